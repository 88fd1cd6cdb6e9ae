
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the Anthropic dialect's files share: dialect_anthropic.c has the
 * request side and the texts of ours, dialect_anthropic_answer.c the answers,
 * dialect_anthropic_text.c the text that an event shows and how to go on from
 * it, dialect_anthropic_bound.c the state at the provider in both.
 */


#ifndef _DIALECT_ANTHROPIC_H_INCLUDED_
#define _DIALECT_ANTHROPIC_H_INCLUDED_


#include "llm_dialect.h"


enum {
    ANTHROPIC_MESSAGES = 0,
    ANTHROPIC_COUNT,
    ANTHROPIC_MODELS,
    ANTHROPIC_MODEL
};


/* rq->member */

enum {
    ANTHROPIC_M_MODEL = LLM_MEMBER_MODEL,
    ANTHROPIC_M_STREAM = LLM_MEMBER_STREAM,
    ANTHROPIC_M_MESSAGES,
    ANTHROPIC_M_OUTPUT_FORMAT,
    ANTHROPIC_M_OUTPUT_CONFIG,
    ANTHROPIC_M_MAX_TOKENS,
    ANTHROPIC_M_CONTAINER,
    ANTHROPIC_M_SYSTEM,
    ANTHROPIC_M_TOOLS,
    ANTHROPIC_M_MAX
};


typedef enum {
    ANTHROPIC_T_OTHER = 0,
    ANTHROPIC_T_BLOCK_DELTA,
    ANTHROPIC_T_BLOCK_START,
    ANTHROPIC_T_BLOCK_STOP,
    ANTHROPIC_T_PING,
    ANTHROPIC_T_START,
    ANTHROPIC_T_DELTA,
    ANTHROPIC_T_STOP,
    ANTHROPIC_T_ERROR
} anthropic_type_e;


/* one answer's private facts; lives in a->data */

typedef struct {
    llm_tap_t             *tap;        /* of a plain answer */

    uint64_t               input;      /* tokens, as they are told: parts */
    uint64_t               cached;
    uint64_t               cache_write;

    uint64_t               tools;      /* open blocks, index modulo 64: there
                                          is hardly more than one at a time */
    unsigned               started:1;  /* message_start was seen */
} anthropic_answer_t;


llm_int_t anthropic_event(llm_answer_t *a, const llm_event_t *ev,
    llm_uint_t *what);
llm_int_t anthropic_plain(llm_answer_t *a, const u_char *pos,
    const u_char *last);
llm_int_t anthropic_plain_end(llm_answer_t *a);
llm_int_t anthropic_plain_whole(llm_answer_t *a, const llm_str_t *text);
void anthropic_answer_free(llm_answer_t *a);

/* by the data's member "type", else by the event's field */
anthropic_type_e anthropic_event_type(const llm_event_t *ev,
    const llm_json_value_t *type);

llm_int_t anthropic_text(const llm_answer_t *a, const llm_event_t *ev,
    llm_json_value_t *text);
llm_int_t anthropic_text_end(llm_event_t *ev);
llm_uint_t anthropic_continues(const llm_request_t *rq);

/* adds the splice that puts change->shown behind the messages */
llm_int_t anthropic_splice_shown(const llm_request_t *rq,
    const llm_change_t *change, const llm_mem_t *mem, llm_splice_t *splices,
    llm_uint_t *n);

llm_uint_t anthropic_bound(const llm_request_t *rq, uint64_t *digests,
    llm_uint_t max);
uint64_t anthropic_prefix(const llm_request_t *rq);
/* 1 if a file is named by its id */
llm_uint_t anthropic_names_file(const llm_request_t *rq);

/* what a message, its container, or a block or delta of it names; only with
 * a->want_bound */
void anthropic_bind_message(llm_answer_t *a, const llm_json_value_t *message);
void anthropic_bind_container(llm_answer_t *a,
    const llm_json_value_t *object);
void anthropic_bind_block(llm_answer_t *a, const llm_json_value_t *block);


/* dialect_anthropic_cache.c */
extern const llm_caching_t  anthropic_caching;

/* dialect_anthropic_fold.c */
llm_int_t anthropic_fold(const llm_endpoint_t *ep, const llm_str_t *text,
    const llm_mem_t *mem, llm_str_t *out);
llm_int_t anthropic_unfold(const llm_endpoint_t *ep, const llm_str_t *text,
    llm_uint_t usage, const llm_mem_t *mem, llm_str_t *out);


#endif /* _DIALECT_ANTHROPIC_H_INCLUDED_ */
