
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the Anthropic dialect's files share: dialect_anthropic.c has the
 * request side and the texts of ours, dialect_anthropic_answer.c the answers.
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


#endif /* _DIALECT_ANTHROPIC_H_INCLUDED_ */
