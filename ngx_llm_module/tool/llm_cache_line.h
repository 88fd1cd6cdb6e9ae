
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A line of an import while it is read: what it says, and what becomes of it.
 * Lives as long as the call of llm_cache_line().
 */


#ifndef _LLM_CACHE_LINE_H_INCLUDED_
#define _LLM_CACHE_LINE_H_INCLUDED_


#include "llm_cache.h"


/* members of a line: texts, then numbers, then others */

enum {
    LINE_KEY = 0,
    LINE_DIALECT,
    LINE_ENDPOINT,
    LINE_QUERY,
    LINE_BETA,
    LINE_VERSION,
    LINE_OPENAI_BETA,
    LINE_ACCOUNT,
    LINE_ROUTE,
    LINE_DIGEST,
    LINE_PROVIDER,
    LINE_MODEL,
    LINE_ASKED,
    LINE_SCOPE,
    LINE_FORM,
    LINE_CONTENT_TYPE,
    LINE_TEXTS,

    LINE_V = LINE_TEXTS,
    LINE_MADE,
    LINE_TTL,
    LINE_STALE,
    LINE_NUMBERS,

    LINE_COST = LINE_NUMBERS,
    LINE_TELLS_USAGE,
    LINE_REQUEST,
    LINE_ANSWER,
    LINE_ANSWER_TEXT,
    LINE_MAX
};


typedef struct {
    llm_cache_reader_t    *reader;
    llm_entry_t           *entry;
    llm_json_value_t       v[LINE_MAX];
    llm_str_t              text[LINE_TEXTS];
    uint64_t               number[LINE_NUMBERS];   /* from LINE_V */
    llm_request_t          rq;
    unsigned               stream:1;
} llm_cache_line_t;


#define llm_cache_is(s, word)                                                 \
    ((s)->len == sizeof(word) - 1                                             \
     && memcmp((s)->data, word, sizeof(word) - 1) == 0)

#define llm_cache_begins(s, word)                                             \
    ((s)->len > sizeof(word) - 1                                              \
     && memcmp((s)->data, word, sizeof(word) - 1) == 0)


/* reader->why; returns LLM_DECLINED */
llm_int_t llm_cache_bad(llm_cache_reader_t *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));


/* ------------------------------------------------------ llm_cache_key.c */

/* Sets the entry's key and what it was made of, and what of the request
 * and its route was not said.  As llm_cache_line(). */
llm_int_t llm_cache_line_request(llm_cache_line_t *l);


#endif /* _LLM_CACHE_LINE_H_INCLUDED_ */
