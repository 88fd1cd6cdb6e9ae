
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Fresh ids for a stored answer, in place.  The text is a stream of events or
 * one plain answer; only strings and brackets are looked at, so that either
 * does.  In a string a quote has a backslash before it: what a text or the
 * arguments of a tool quote is never taken for a member.  An object of the
 * client's or of the model's making is passed over.
 *
 * A new id is drawn from the digest of the old one: no table of those met is
 * needed for equal ones to stay equal.
 */


#include <string.h>

#include "llm_dialect.h"
#include "llm_scan.h"


#define LLM_ID_CHARS  8                /* the fewest behind a prefix: fewer do
                                          not make an id one of a kind */


static const u_char *llm_id_member(const llm_str_t *name, u_char *p,
    const u_char *last, uint64_t seed);
static const u_char *llm_id_string(const u_char *p, const u_char *last);
static const u_char *llm_id_skip(const u_char *p, const u_char *last);
static llm_uint_t llm_id_listed(const llm_str_t *list, const llm_str_t *name);
static void llm_id_value(u_char *p, u_char *last, uint64_t seed);
static const llm_str_t *llm_id_class(const u_char *p, const u_char *last);
static uint64_t llm_id_random(uint64_t *state);


/* members whose values are ids */

static const llm_str_t  llm_id_names[] = {
    llm_string("id"),
    llm_string("item_id"),
    llm_string("call_id"),
    llm_string("tool_call_id"),
    llm_string("tool_use_id"),
    llm_string("response_id"),
    llm_string("message_id"),
    llm_null_string
};


/* members whose objects are not the provider's own words */

static const llm_str_t  llm_id_foreign[] = {
    llm_string("input"),
    llm_string("arguments"),
    llm_string("metadata"),
    llm_string("tools"),
    llm_string("parameters"),
    llm_null_string
};


static const llm_str_t  llm_id_prefixes[] = {
    llm_string("chatcmpl-"),
    llm_string("cmpl-"),
    llm_string("gen-"),
    llm_string("msg_"),
    llm_string("resp_"),
    llm_string("fc_"),
    llm_string("call_"),
    llm_string("toolu_"),
    llm_string("ctc_"),
    llm_null_string
};


/* what an id may be made of, the narrowest first */

static const llm_str_t  llm_id_classes[] = {
    llm_string("0123456789"),
    llm_string("0123456789abcdef"),
    llm_string("0123456789abcdefghijklmnopqrstuvwxyz"),
    llm_string("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    llm_string("0123456789abcdefghijklmnopqrstuvwxyz"
               "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    llm_null_string
};


void
llm_fresh_ids(u_char *text, size_t len, uint64_t seed)
{
    llm_str_t      name;
    const u_char  *p, *last, *end;

    p = text;
    last = len ? text + len : text;

    while (p < last) {
        p = memchr(p, '"', last - p);

        if (p == NULL) {
            return;
        }

        name.data = text + (++p - text);
        end = llm_id_string(p, last);

        if (end == NULL) {
            return;
        }

        name.len = end - p;
        p = end + 1;

        if (*end == '"') {
            end = llm_scan_token(p, last);

            if (end < last && *end == ':') {
                p = llm_id_member(&name, text + (end + 1 - text), last, seed);
            }
        }
    }
}


/* p is behind the colon; on return behind the value, if it is one that was
 * read or is passed over, or at it */

static const u_char *
llm_id_member(const llm_str_t *name, u_char *p, const u_char *last,
    uint64_t seed)
{
    u_char        *value;
    const u_char  *end;

    value = p + (llm_scan_token(p, last) - p);

    if (value == last) {
        return last;
    }

    if ((*value == '{' || *value == '[')
        && llm_id_listed(llm_id_foreign, name))
    {
        return llm_id_skip(value, last);
    }

    if (*value != '"' || !llm_id_listed(llm_id_names, name)) {
        return value;
    }

    end = llm_id_string(++value, last);

    if (end == NULL) {
        return last;
    }

    if (*end == '"') {
        llm_id_value(value, value + (end - value), seed);
    }

    return end + 1;
}


/* The end of a string: its quote, or a line's end, which no string has: it
 * was none, but part of another field of an event.  NULL: neither. */

static const u_char *
llm_id_string(const u_char *p, const u_char *last)
{
    const u_char  *end, *line;

    for ( ;; ) {
        end = llm_scan_quote(p, last);
        line = memchr(p, '\n', end - p);

        if (line) {
            return line;
        }

        if (end == last) {
            return NULL;
        }

        if (*end == '"') {
            return end;
        }

        if (last - end < 3) {
            return NULL;
        }

        p = end + 2;

        if (end[1] == '\n') {
            return end + 1;
        }
    }
}


/* behind an object or array */

static const u_char *
llm_id_skip(const u_char *p, const u_char *last)
{
    llm_uint_t     depth;
    const u_char  *end;

    depth = 0;

    for ( ;; ) {
        end = llm_scan_bracket(p, last);

        if (end == last) {
            return last;
        }

        p = end + 1;

        switch (*end) {

        case '"':
            end = llm_id_string(p, last);

            if (end == NULL) {
                return last;
            }

            p = end + 1;
            break;

        case '{':
        case '[':
            depth++;
            break;

        default: /* '}', ']' */

            if (--depth == 0) {
                return p;
            }
        }
    }
}


static llm_uint_t
llm_id_listed(const llm_str_t *list, const llm_str_t *name)
{
    for ( /* void */ ; list->len; list++) {
        if (list->len == name->len
            && memcmp(list->data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static void
llm_id_value(u_char *p, u_char *last, uint64_t seed)
{
    uint64_t          state;
    const llm_str_t  *prefix, *class;

    for (prefix = llm_id_prefixes; prefix->len; prefix++) {
        if ((size_t) (last - p) >= prefix->len + LLM_ID_CHARS
            && memcmp(p, prefix->data, prefix->len) == 0)
        {
            break;
        }
    }

    if (prefix->len == 0) {
        return;
    }

    class = llm_id_class(p + prefix->len, last);

    if (class->len == 0) {
        return;
    }

    state = llm_digest(p, last - p, seed);

    for (p += prefix->len; p < last; p++) {
        if (*p != '-' && *p != '_') {
            *p = class->data[llm_id_random(&state) % class->len];
        }
    }
}


/* the narrowest one that has all characters; len 0: it is no id */

static const llm_str_t *
llm_id_class(const u_char *p, const u_char *last)
{
    const u_char     *ch;
    const llm_str_t  *class;

    for (class = llm_id_classes; class->len; class++) {

        for (ch = p; ch < last; ch++) {
            if (*ch != '-' && *ch != '_'
                && memchr(class->data, *ch, class->len) == NULL)
            {
                break;
            }
        }

        if (ch == last) {
            break;
        }
    }

    return class;
}


/* splitmix64 */

static uint64_t
llm_id_random(uint64_t *state)
{
    uint64_t  n;

    *state += 0x9e3779b97f4a7c15ULL;

    n = *state;
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9ULL;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebULL;

    return n ^ (n >> 31);
}
