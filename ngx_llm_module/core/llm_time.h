
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Points and lengths of time as they stand in headers.  No clock, no locale:
 * "now" is an argument.  For llm_failure.c alone.
 */


#ifndef _LLM_TIME_H_INCLUDED_
#define _LLM_TIME_H_INCLUDED_


#include "llm.h"


/*
 * A number, a fraction allowed, of units that are num / den milliseconds:
 * from *p, which is moved behind it, rounded up, LLM_TIME_MAX at most.
 * LLM_OK, or LLM_DECLINED: no digit stands there.
 */
#define LLM_TIME_MAX  ((uint64_t) 1 << 53)

llm_int_t llm_time_number(const u_char **p, const u_char *last, uint64_t num,
    uint64_t den, uint64_t *ms);

/* "6m0s", "1h2m3s", "20ms", "0.5s": ms; -1: it is none */
int64_t llm_time_duration(const llm_str_t *text);

/* ms of the epoch, 0 for what lies before it; -1: it is none.  All forms of
 * RFC 9110, 5.6.7; now, in ms, tells the century of a year of two digits */
int64_t llm_time_http(const llm_str_t *text, uint64_t now);

/* the same of RFC 3339, 5.6 */
int64_t llm_time_rfc3339(const llm_str_t *text);


#endif /* _LLM_TIME_H_INCLUDED_ */
