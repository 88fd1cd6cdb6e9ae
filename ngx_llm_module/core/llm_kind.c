
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the dialects share to tell a cache what a request is: the members at
 * its top that nobody else asks for, and what it says of sampling.  For
 * dialect_*_cache.c alone.  The one scan over every body does not look for
 * these members: most requests have no cache.
 */


#include <string.h>

#include "llm_dialect.h"


#define LLM_KIND_LARGE      512        /* a value that is not passed again */
#define LLM_KIND_EXPONENT   ((int64_t) 1 << 40)  /* beyond any text's length */


static const llm_json_value_t *llm_kind_large(const llm_request_t *rq,
    const u_char *pos);
static void llm_kind_member(const llm_str_t *name,
    const llm_json_value_t *value, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n);
static llm_uint_t llm_kind_unreadable(const llm_json_value_t *v);
static llm_int_t llm_kind_sign(const llm_json_value_t *v);
static llm_int_t llm_kind_to_one(const llm_json_value_t *v);
static int64_t llm_kind_exponent(const u_char *p, const u_char *last);


/*
 * The large values are known from the scan.  The text is walked up to each of
 * them, where it seems to end, and from behind it.
 */

void
llm_kind_find(const llm_request_t *rq, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n)
{
    u_char                  *pos;
    llm_str_t                part, name;
    llm_json_value_t         value;
    const llm_json_value_t  *large;

    memset(values, 0, n * sizeof(llm_json_value_t));

    pos = NULL;
    part.data = rq->body.data;

    for ( ;; ) {
        large = llm_kind_large(rq, pos);
        part.len = large ? (size_t) (large->raw.data - part.data)
                         : rq->body.len;

        while (llm_json_next(&part, &pos, &name, &value) == LLM_OK) {
            llm_kind_member(&name, &value, names, values, n);
        }

        if (large == NULL) {
            return;
        }

        pos = large->raw.data + large->raw.len;
    }
}


/* the next one behind pos; NULL: none */

static const llm_json_value_t *
llm_kind_large(const llm_request_t *rq, const u_char *pos)
{
    llm_uint_t               i;
    const llm_json_value_t  *v, *next;

    next = NULL;

    for (i = 0; i < LLM_REQUEST_MEMBERS; i++) {
        v = &rq->member[i];

        if (v->type == LLM_JSON_ABSENT || v->raw.len < LLM_KIND_LARGE
            || (pos && v->raw.data < pos))
        {
            continue;
        }

        if (next == NULL || v->raw.data < next->raw.data) {
            next = v;
        }
    }

    return next;
}


static void
llm_kind_member(const llm_str_t *name, const llm_json_value_t *value,
    const llm_str_t *names, llm_json_value_t *values, llm_uint_t n)
{
    llm_uint_t  i;

    for (i = 0; i < n; i++) {
        if (llm_json_name_is(name, (const char *) names[i].data,
                             names[i].len))
        {
            values[i] = *value;
            return;
        }
    }
}


llm_uint_t
llm_kind_sampling(const llm_json_value_t v[LLM_K_MAX])
{
    llm_uint_t               i;
    const llm_json_value_t  *temperature;

    temperature = &v[LLM_K_TEMPERATURE];

    for (i = 0; i < LLM_K_MAX; i++) {
        if (llm_kind_unreadable(&v[i])) {
            return LLM_CACHE_VARIETY;
        }
    }

    if (temperature->type == LLM_JSON_NUMBER
        && llm_kind_sign(temperature) > 0)
    {
        return LLM_CACHE_VARIETY;
    }

    if (v[LLM_K_TOP_P].type == LLM_JSON_NUMBER
        && llm_kind_to_one(&v[LLM_K_TOP_P]) < 0)
    {
        return LLM_CACHE_VARIETY;
    }

    for (i = LLM_K_N; i < LLM_K_MAX; i++) {
        if (v[i].type == LLM_JSON_NUMBER && llm_kind_to_one(&v[i]) > 0) {
            return LLM_CACHE_VARIETY;
        }
    }

    if (temperature->type == LLM_JSON_NUMBER
        && llm_kind_sign(temperature) == 0)
    {
        return LLM_CACHE_FIXED;
    }

    return 0;
}


/* servers that take "0.7" for a number know what it says, we do not */

static llm_uint_t
llm_kind_unreadable(const llm_json_value_t *v)
{
    return v->type != LLM_JSON_NUMBER && !llm_json_empty(v);
}


static llm_int_t
llm_kind_sign(const llm_json_value_t *v)
{
    const u_char  *p, *last;

    last = v->raw.data + v->raw.len;

    for (p = v->raw.data; p < last && (*p | 0x20) != 'e'; p++) {
        if (*p >= '1' && *p <= '9') {
            return (*v->raw.data == '-') ? -1 : 1;
        }
    }

    return 0;
}


/*
 * -1, 0, 1: less than 1, equal, more.  By digits: of a number of any length
 * and size, and of any that only looks like 1.
 */

static llm_int_t
llm_kind_to_one(const llm_json_value_t *v)
{
    u_char         first, rest;
    int64_t        place;
    llm_uint_t     point;
    const u_char  *p, *last;

    if (llm_kind_sign(v) <= 0) {
        return -1;
    }

    first = '\0';
    rest = 0;
    place = 0;                         /* of the first digit but zeros */
    point = 0;
    last = v->raw.data + v->raw.len;

    for (p = v->raw.data; p < last && (*p | 0x20) != 'e'; p++) {

        if (*p == '.') {
            point = 1;

        } else if (first) {
            rest |= *p - '0';
            place += !point;

        } else {
            first = (*p == '0') ? '\0' : *p;
            place -= point;
        }
    }

    if (p < last) {
        place += llm_kind_exponent(p + 1, last);
    }

    if (place) {
        return (place < 0) ? -1 : 1;
    }

    return (first != '1' || rest) ? 1 : 0;
}


static int64_t
llm_kind_exponent(const u_char *p, const u_char *last)
{
    int64_t     n;
    llm_uint_t  negative;

    n = 0;
    negative = (p < last && *p == '-');

    for ( /* void */ ; p < last; p++) {
        if (*p >= '0' && *p <= '9' && n < LLM_KIND_EXPONENT) {
            n = n * 10 + (*p - '0');
        }
    }

    return negative ? -n : n;
}
