
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the OpenAI dialect's files share: dialect_openai.c has the request
 * side and the texts of ours, dialect_openai_answer.c the answers,
 * dialect_openai_responses.c the events of the responses endpoint,
 * dialect_openai_text.c the text that an event shows,
 * dialect_openai_bound.c the state at the provider in requests and answers.
 */


#ifndef _DIALECT_OPENAI_H_INCLUDED_
#define _DIALECT_OPENAI_H_INCLUDED_


#include "llm_dialect.h"


enum {
    OPENAI_CHAT = 0,
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    OPENAI_RESPONSES,
    OPENAI_MODELS,
    OPENAI_MODEL
};


/* rq->member */

enum {
    OPENAI_M_MODEL = LLM_MEMBER_MODEL,
    OPENAI_M_STREAM = LLM_MEMBER_STREAM,
    OPENAI_M_STREAM_OPTIONS,
    OPENAI_M_MESSAGES,
    OPENAI_M_INPUT,
    OPENAI_M_PROMPT,
    OPENAI_M_RESPONSE_FORMAT,
    OPENAI_M_TEXT,
    OPENAI_M_MAX_TOKENS,
    OPENAI_M_MAX_COMPLETION,
    OPENAI_M_MAX_OUTPUT,
    OPENAI_M_TOOLS,
    OPENAI_M_INSTRUCTIONS,
    OPENAI_M_PREVIOUS,
    OPENAI_M_CONVERSATION,
    OPENAI_M_CACHED,
    OPENAI_M_CACHED_CAMEL,
    OPENAI_M_EXTRA,
    OPENAI_M_MAX
};


/* what is wrong with a finish reason: the worse, the larger; a->worst */

enum {
    OPENAI_FIT = 0,
    OPENAI_UNFINISHED,
    OPENAI_TRUNCATED,
    OPENAI_FILTERED,
    OPENAI_FAILED,
    OPENAI_FIT_MAX
};


#define OPENAI_CHOICES  128            /* the API's own limit of n */


/* one answer's private facts; lives in a->data */

typedef struct {
    llm_tap_t             *tap;        /* of a plain answer */

    uint64_t               seen[OPENAI_CHOICES / 64];   /* choices, by index */
    uint64_t               ended[OPENAI_CHOICES / 64];  /* with a reason */

    llm_str_t              response;   /* the last response object seen */
    size_t                 size;       /* of its memory */
    uint64_t               sequence;   /* the next sequence_number */
    llm_uint_t             calls;      /* items of tool calls not done */

    unsigned               tools:1;    /* a choice has begun a tool call */
    unsigned               many:1;     /* an index past OPENAI_CHOICES */
} openai_answer_t;


llm_int_t openai_event(llm_answer_t *a, const llm_event_t *ev,
    llm_uint_t *what);
llm_int_t openai_plain(llm_answer_t *a, const u_char *pos,
    const u_char *last);
llm_int_t openai_plain_end(llm_answer_t *a);
llm_int_t openai_plain_whole(llm_answer_t *a, const llm_str_t *text);
void openai_answer_free(llm_answer_t *a);

llm_int_t openai_text(const llm_answer_t *a, const llm_event_t *ev,
    llm_json_value_t *text);
llm_int_t openai_text_end(llm_event_t *ev);
llm_uint_t openai_continues(const llm_request_t *rq);

/* the members of a usage object that are known by any name */
void openai_usage(llm_usage_t *u, const llm_json_value_t *object);

/* the status that fits an object with a type and a code */
llm_uint_t openai_error_status(const llm_json_value_t *error);

/* an event of the responses endpoint; its data is not [DONE] */
llm_int_t openai_responses_event(llm_answer_t *a, openai_answer_t *d,
    const llm_event_t *ev, llm_uint_t *what);
llm_int_t openai_responses_error(const llm_answer_t *a,
    const llm_error_t *err, const llm_mem_t *mem, llm_str_t *out);

llm_uint_t openai_bound(const llm_request_t *rq, uint64_t *digests,
    llm_uint_t max);
uint64_t openai_prefix(const llm_request_t *rq);

/* what a response object, or an item of its output, names; only with
 * a->want_bound */
void openai_bind_response(llm_answer_t *a, const llm_json_value_t *response);
void openai_bind_item(llm_answer_t *a, const llm_json_value_t *item);


/* dialect_openai_cache.c */
extern const llm_caching_t  openai_caching;

/* what is wrong with a->finish_reason, if it is the only one */
llm_uint_t openai_fit(const llm_answer_t *a);

/* dialect_openai_fold.c, _unfold.c: chat and completions;
 * dialect_openai_responses_fold.c */
llm_int_t openai_fold(const llm_endpoint_t *ep, const llm_str_t *text,
    const llm_mem_t *mem, llm_str_t *out);
llm_int_t openai_unfold(const llm_endpoint_t *ep, const llm_str_t *text,
    llm_uint_t usage, const llm_mem_t *mem, llm_str_t *out);
llm_int_t openai_responses_fold(const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out);
llm_int_t openai_responses_unfold(const llm_str_t *text,
    const llm_mem_t *mem, llm_str_t *out);


#endif /* _DIALECT_OPENAI_H_INCLUDED_ */
