
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * JSON by spans: the check.  This one pass over a request or an event is the
 * module's largest cost for each byte, so nothing is built: a loop with a
 * stack of closing brackets checks the text and tells where the members
 * asked for stand.  What reads a text that passed it is in llm_json_read.c.
 */


#include <string.h>

#include "llm_scan.h"


typedef struct {
    const u_char          *last;
    const u_char          *failed;     /* the byte at fault */
    const char            *reason;

    const llm_str_t       *names;      /* wanted */
    llm_json_value_t      *values;
    llm_uint_t             n;

    llm_json_value_t      *value;      /* the wanted one being read */
    llm_uint_t             max_depth;
    llm_uint_t             escaped;    /* the last string was */
} llm_json_scan_t;


static const u_char *llm_json_text(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_name(llm_json_scan_t *s, const u_char *p,
    llm_uint_t depth);
static void llm_json_found(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_scalar(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_literal(llm_json_scan_t *s, const u_char *p,
    const char *word, size_t len);
static const u_char *llm_json_number(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_digits(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_string(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_escaped(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_fail(llm_json_scan_t *s, const u_char *p,
    const char *reason);


llm_int_t
llm_json_scan(const llm_str_t *json, llm_uint_t max_depth,
    const llm_str_t *names, llm_json_value_t *values, llm_uint_t n,
    llm_json_error_t *err)
{
    const u_char     *p, *start;
    llm_json_scan_t   s;

    memset(&s, 0, sizeof(llm_json_scan_t));

    if (n) {
        memset(values, 0, n * sizeof(llm_json_value_t));
    }

    s.names = names;
    s.values = values;
    s.n = n;
    s.max_depth = (max_depth < LLM_JSON_DEPTH_MAX) ? max_depth
                                                   : LLM_JSON_DEPTH_MAX;

    p = NULL;
    start = json->data;

    if (json->len) {
        s.last = start + json->len;
        start = llm_scan_token(start, s.last);
    }

    if (json->len == 0 || start == s.last) {
        s.failed = start;
        s.reason = "empty";

    } else {
        p = llm_json_text(&s, start);
    }

    if (p) {
        p = llm_scan_token(p, s.last);

        if (p == s.last) {
            return (*start == '{') ? LLM_OK : LLM_DECLINED;
        }

        (void) llm_json_fail(&s, p, "text after the value");
    }

    if (n) {
        memset(values, 0, n * sizeof(llm_json_value_t));
    }

    if (err) {
        err->reason = s.reason;
        err->offset = s.failed - json->data;
    }

    return LLM_ERROR;
}


static const u_char *
llm_json_text(llm_json_scan_t *s, const u_char *p)
{
    u_char      close[LLM_JSON_DEPTH_MAX + 1];
    llm_uint_t  depth;

    depth = 0;
    close[0] = '\0';

    for ( ;; ) {

        if (close[depth] == '}') {
            p = llm_json_name(s, p, depth);

            if (p == NULL) {
                return NULL;
            }
        }

        if (p < s->last && (*p == '{' || *p == '[')) {

            if (depth == s->max_depth) {
                return llm_json_fail(s, p, "nested too deep");
            }

            close[++depth] = *p + 2;
            p = llm_scan_token(p + 1, s->last);

            if (p == s->last || *p != close[depth]) {
                continue;
            }

        } else {
            p = llm_json_scalar(s, p);

            if (p == NULL) {
                return NULL;
            }
        }

        /* behind a value, or at the end of an empty container */

        for ( ;; ) {

            if (depth == 0) {
                return p;
            }

            if (depth == 1 && s->value) {
                llm_json_found(s, p);
            }

            p = llm_scan_token(p, s->last);

            if (p == s->last || *p != close[depth]) {
                break;
            }

            p++;
            depth--;
        }

        if (p == s->last || *p != ',') {
            return llm_json_fail(s, p, "unexpected character");
        }

        p = llm_scan_token(p + 1, s->last);
    }
}


/* a name and its colon; at the value on return */

static const u_char *
llm_json_name(llm_json_scan_t *s, const u_char *p, llm_uint_t depth)
{
    const u_char      *start;
    llm_json_value_t   name;

    if (p == s->last || *p != '"') {
        return llm_json_fail(s, p, "unexpected character");
    }

    start = p;
    p = llm_json_string(s, p + 1);

    if (p == NULL) {
        return NULL;
    }

    if (depth == 1 && s->n) {
        name.raw.data = (u_char *) start;
        name.raw.len = p - start;
        name.type = LLM_JSON_STRING;
        name.escaped = s->escaped;

        s->value = llm_json_wanted(s->names, s->values, s->n, &name);
    }

    p = llm_scan_token(p, s->last);

    if (p == s->last || *p != ':') {
        return llm_json_fail(s, p, "unexpected character");
    }

    p = llm_scan_token(p + 1, s->last);

    if (s->value && depth == 1) {
        s->value->raw.data = (u_char *) p;
    }

    return p;
}


static void
llm_json_found(llm_json_scan_t *s, const u_char *p)
{
    llm_json_value_t  *value;

    value = s->value;
    s->value = NULL;

    value->raw.len = p - value->raw.data;
    value->type = llm_json_type(*value->raw.data);
    value->escaped = (value->type == LLM_JSON_STRING) ? s->escaped : 0;
}


static const u_char *
llm_json_scalar(llm_json_scan_t *s, const u_char *p)
{
    if (p == s->last) {
        return llm_json_fail(s, p, "unexpected end");
    }

    switch (*p) {

    case '"':
        return llm_json_string(s, p + 1);

    case 't':
        return llm_json_literal(s, p, "true", 4);

    case 'f':
        return llm_json_literal(s, p, "false", 5);

    case 'n':
        return llm_json_literal(s, p, "null", 4);

    case '-':
    case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        return llm_json_number(s, p);

    default:
        return llm_json_fail(s, p, "unexpected character");
    }
}


static const u_char *
llm_json_literal(llm_json_scan_t *s, const u_char *p, const char *word,
    size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {

        if (p + i == s->last || p[i] != (u_char) word[i]) {
            return llm_json_fail(s, p + i, "unexpected character");
        }
    }

    return p + len;
}


static const u_char *
llm_json_number(llm_json_scan_t *s, const u_char *p)
{
    if (*p == '-') {
        p++;
    }

    if (p < s->last && *p == '0') {
        p++;

        if (p < s->last && *p >= '0' && *p <= '9') {
            return llm_json_fail(s, p, "invalid number");
        }

    } else {
        p = llm_json_digits(s, p);
    }

    if (p && p < s->last && *p == '.') {
        p = llm_json_digits(s, p + 1);
    }

    if (p && p < s->last && (*p | 0x20) == 'e') {
        p++;

        if (p < s->last && (*p == '+' || *p == '-')) {
            p++;
        }

        p = llm_json_digits(s, p);
    }

    return p;
}


static const u_char *
llm_json_digits(llm_json_scan_t *s, const u_char *p)
{
    if (p == s->last || *p < '0' || *p > '9') {
        return llm_json_fail(s, p, "invalid number");
    }

    do {
        p++;
    } while (p < s->last && *p >= '0' && *p <= '9');

    return p;
}


/* p is behind the opening quote; behind the closing one on return */

static const u_char *
llm_json_string(llm_json_scan_t *s, const u_char *p)
{
    llm_uint_t  n;

    s->escaped = 0;

    for ( ;; ) {
        p = llm_scan_odd(p, s->last);

        if (p == s->last) {
            return llm_json_fail(s, p, "unexpected end");
        }

        if (*p == '"') {
            return p + 1;
        }

        if (*p == '\\') {
            s->escaped = 1;
            p = llm_json_escaped(s, p);

            if (p == NULL) {
                return NULL;
            }

            continue;
        }

        if (*p < ' ') {
            return llm_json_fail(s, p, "control character in string");
        }

        do {
            n = llm_scan_utf8(p, s->last);

            if (n == 0) {
                return llm_json_fail(s, p, "invalid UTF-8");
            }

            p += n;

        } while (p < s->last && *p >= 0x80);
    }
}


static const u_char *
llm_json_escaped(llm_json_scan_t *s, const u_char *p)
{
    llm_uint_t  i;

    if (++p == s->last) {
        return llm_json_fail(s, p, "unexpected end");
    }

    switch (*p) {

    case '"': case '\\': case '/':
    case 'b': case 'f': case 'n': case 'r': case 't':
        return p + 1;

    case 'u':

        for (i = 0; i < 4; i++) {
            if (++p == s->last
                || !((*p >= '0' && *p <= '9')
                     || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'f')))
            {
                return llm_json_fail(s, p, "invalid escape");
            }
        }

        return p + 1;

    default:
        return llm_json_fail(s, p, "invalid escape");
    }
}


static const u_char *
llm_json_fail(llm_json_scan_t *s, const u_char *p, const char *reason)
{
    s->failed = p;
    s->reason = (p < s->last) ? reason : "unexpected end";

    return NULL;
}


llm_json_value_t *
llm_json_wanted(const llm_str_t *names, llm_json_value_t *values,
    llm_uint_t n, const llm_json_value_t *name)
{
    u_char      first;
    size_t      len;
    llm_uint_t  i;

    len = name->raw.len - 2;
    first = name->raw.data[1];

    for (i = 0; i < n; i++) {

        /* most names are none of those wanted: no call to find that out */

        if (!name->escaped
            && (len != names[i].len
                || (len && first != names[i].data[0])))
        {
            continue;
        }

        if (name->escaped) {
            if (!llm_json_is(name, (char *) names[i].data, names[i].len)) {
                continue;
            }

        } else if (memcmp(name->raw.data + 1, names[i].data, len) != 0) {
            continue;
        }

        if (values[i].type != LLM_JSON_ABSENT) {
            values[i].duplicate = 1;
        }

        return &values[i];
    }

    return NULL;
}
