
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What llm_json_scan() and llm_utf8_fault() are to say, byte by byte and by
 * recursion: for tests that put random texts to both.
 */


#ifndef _JSON_PLAIN_H_INCLUDED_
#define _JSON_PLAIN_H_INCLUDED_


#include <string.h>

#include "llm.h"


typedef struct {
    const u_char  *p;
    const u_char  *last;
    const char    *reason;             /* NULL: all is well so far */
    llm_uint_t     max_depth;
} plain_t;


static void plain_value(plain_t *t, llm_uint_t depth);


/* the length of the sequence at p by its code point, 0: not well-formed */

static size_t
plain_sequence(const u_char *p, size_t len)
{
    size_t    i, n;
    uint32_t  code;

    static const uint32_t  least[] = { 0, 0, 0x80, 0x800, 0x10000 };

    n = (*p < 0x80) ? 1 : (*p >> 5 == 6) ? 2 : (*p >> 4 == 14) ? 3
        : (*p >> 3 == 30) ? 4 : 0;

    if (n == 0 || n > len) {
        return 0;
    }

    code = (n == 1) ? *p : *p & (0x7f >> n);

    for (i = 1; i < n; i++) {

        if (p[i] >> 6 != 2) {
            return 0;
        }

        code = code << 6 | (p[i] & 0x3f);
    }

    if (code < least[n] || code > 0x10ffff
        || (code >= 0xd800 && code < 0xe000))
    {
        return 0;
    }

    return n;
}


/* the place of the first fault, or last */

__attribute__((unused))
static const u_char *
plain_fault(const u_char *p, const u_char *last)
{
    size_t  n;

    for ( /* void */ ; p < last; p += n) {
        n = plain_sequence(p, last - p);

        if (n == 0) {
            break;
        }
    }

    return p;
}


static int
plain_fail(plain_t *t, const char *reason)
{
    if (t->reason == NULL) {
        t->reason = (t->p < t->last) ? reason : "unexpected end";
    }

    return 0;
}


static int
plain_at(plain_t *t, const char *set)
{
    return t->p < t->last && *t->p && strchr(set, *t->p);
}


static void
plain_blank(plain_t *t)
{
    while (plain_at(t, " \t\r\n")) {
        t->p++;
    }
}


static int
plain_take(plain_t *t, const char *set, const char *reason)
{
    if (!plain_at(t, set)) {
        return plain_fail(t, reason);
    }

    t->p++;

    return 1;
}


static void
plain_digits(plain_t *t)
{
    if (plain_take(t, "0123456789", "invalid number")) {

        while (plain_at(t, "0123456789")) {
            t->p++;
        }
    }
}


static void
plain_number(plain_t *t)
{
    if (plain_at(t, "-")) {
        t->p++;
    }

    if (plain_at(t, "0")) {
        t->p++;

        if (plain_at(t, "0123456789")) {
            plain_fail(t, "invalid number");
            return;
        }

    } else {
        plain_digits(t);
    }

    if (t->reason == NULL && plain_at(t, ".")) {
        t->p++;
        plain_digits(t);
    }

    if (t->reason == NULL && plain_at(t, "eE")) {
        t->p++;

        if (plain_at(t, "+-")) {
            t->p++;
        }

        plain_digits(t);
    }
}


static void
plain_escape(plain_t *t)
{
    int  i;

    if (!plain_at(t, "u")) {
        plain_take(t, "\"\\/bfnrt", "invalid escape");
        return;
    }

    t->p++;

    for (i = 0; i < 4; i++) {

        if (!plain_take(t, "0123456789abcdefABCDEF", "invalid escape")) {
            return;
        }
    }
}


static void
plain_string(plain_t *t)
{
    size_t  n;

    t->p++;

    while (t->reason == NULL) {

        if (plain_at(t, "\"")) {
            t->p++;
            return;
        }

        if (plain_at(t, "\\")) {
            t->p++;
            plain_escape(t);
            continue;
        }

        if (t->p == t->last || *t->p < ' ') {
            plain_fail(t, "control character in string");
            return;
        }

        n = plain_sequence(t->p, t->last - t->p);
        t->p += n;

        if (n == 0) {
            plain_fail(t, "invalid UTF-8");
        }
    }
}


static void
plain_container(plain_t *t, llm_uint_t depth)
{
    int  object;

    object = (*t->p == '{');

    if (depth == t->max_depth) {
        plain_fail(t, "nested too deep");
        return;
    }

    t->p++;
    plain_blank(t);

    if (plain_at(t, object ? "}" : "]")) {
        t->p++;
        return;
    }

    for ( ;; ) {

        if (object) {

            if (!plain_at(t, "\"")) {
                plain_fail(t, "unexpected character");
                return;
            }

            plain_string(t);

            if (t->reason == NULL) {
                plain_blank(t);
                plain_take(t, ":", "unexpected character");
                plain_blank(t);
            }
        }

        if (t->reason == NULL) {
            plain_value(t, depth + 1);
        }

        if (t->reason) {
            return;
        }

        plain_blank(t);

        if (plain_at(t, object ? "}" : "]")) {
            t->p++;
            return;
        }

        if (!plain_take(t, ",", "unexpected character")) {
            return;
        }

        plain_blank(t);
    }
}


static void
plain_value(plain_t *t, llm_uint_t depth)
{
    size_t              i;
    const char         *word;

    static const char  *words[] = { "true", "false", "null" };

    if (plain_at(t, "{[")) {
        plain_container(t, depth);

    } else if (plain_at(t, "\"")) {
        plain_string(t);

    } else if (plain_at(t, "-0123456789")) {
        plain_number(t);

    } else {

        for (i = 0; i < 3; i++) {
            word = words[i];

            if (t->p == t->last || *t->p != word[0]) {
                continue;
            }

            while (*word && t->p < t->last && *t->p == *word) {
                t->p++;
                word++;
            }

            if (*word) {
                plain_fail(t, "unexpected character");
            }

            return;
        }

        plain_fail(t, "unexpected character");
    }
}


__attribute__((unused))
static llm_int_t
plain_scan(const llm_str_t *json, llm_uint_t max_depth, llm_json_error_t *err)
{
    plain_t        t;
    const u_char  *start;

    t.p = json->data;
    t.last = json->data + json->len;
    t.reason = NULL;
    t.max_depth = max_depth;

    plain_blank(&t);
    start = t.p;

    if (start == t.last) {
        t.reason = "empty";

    } else {
        plain_value(&t, 0);
    }

    if (t.reason == NULL) {
        plain_blank(&t);

        if (t.p == t.last) {
            return (*start == '{') ? LLM_OK : LLM_DECLINED;
        }

        plain_fail(&t, "text after the value");
    }

    err->reason = t.reason;
    err->offset = t.p - json->data;

    return LLM_ERROR;
}


/* 1 if the n values of both are the same, whatever their padding has */

__attribute__((unused))
static int
plain_same(const llm_json_value_t *a, const llm_json_value_t *b, size_t n)
{
    for ( /* void */ ; n; n--, a++, b++) {

        if (a->raw.data != b->raw.data || a->raw.len != b->raw.len
            || a->type != b->type || a->escaped != b->escaped
            || a->duplicate != b->duplicate || a->overflow != b->overflow)
        {
            return 0;
        }
    }

    return 1;
}


#endif /* _JSON_PLAIN_H_INCLUDED_ */
