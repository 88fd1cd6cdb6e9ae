
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the OpenAI dialect's files share: dialect_openai.c has the request
 * side and the texts of ours, dialect_openai_answer.c the answers,
 * dialect_openai_responses.c the events of the responses endpoint.
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

/* the members of a usage object that are known by any name */
void openai_usage(llm_usage_t *u, const llm_json_value_t *object);

/* the status that fits an object with a type and a code */
llm_uint_t openai_error_status(const llm_json_value_t *error);

/* an event of the responses endpoint; its data is not [DONE] */
llm_int_t openai_responses_event(llm_answer_t *a, openai_answer_t *d,
    const llm_event_t *ev, llm_uint_t *what);
llm_int_t openai_responses_error(const llm_answer_t *a,
    const llm_error_t *err, const llm_mem_t *mem, llm_str_t *out);


#endif /* _DIALECT_OPENAI_H_INCLUDED_ */
