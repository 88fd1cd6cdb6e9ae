
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * JSON by spans: the readers.  They take the text for valid, as it is after
 * llm_json_scan(), and check nothing again.  On one that is not they find
 * less or nonsense, but stay within it and end: each step takes at least a
 * byte.
 */


#include <string.h>

#include "llm_scan.h"


typedef struct {
    const u_char          *pos;
    const u_char          *last;
    llm_json_value_t       name;       /* in an object; with its quotes */
    llm_json_value_t       value;
    u_char                 close;      /* the container's end */
    uint8_t                first;      /* no item was read yet */
} llm_json_walk_t;


static llm_int_t llm_json_enter(llm_json_walk_t *w,
    const llm_str_t *container);
static llm_int_t llm_json_step(llm_json_walk_t *w);
static void llm_json_members(llm_json_walk_t *w, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n);
static const u_char *llm_json_skip(const u_char *p, const u_char *last,
    llm_json_value_t *value);
static const u_char *llm_json_skip_container(const u_char *p,
    const u_char *last);
static const u_char *llm_json_skip_string(const u_char *p,
    const u_char *last, uint8_t *escaped);
static const u_char *llm_json_resolve(const u_char *p, const u_char *last,
    u_char *dst, size_t *n);
static llm_int_t llm_json_hex(const u_char *p, const u_char *last);
static size_t llm_json_encode(u_char *dst, uint32_t code);
static size_t llm_json_escape_byte(u_char *dst, u_char ch);


llm_int_t
llm_json_find(const llm_str_t *object, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n)
{
    llm_json_walk_t  w;

    if (n) {
        memset(values, 0, n * sizeof(llm_json_value_t));
    }

    if (llm_json_enter(&w, object) != LLM_OK || w.close != '}') {
        return LLM_DECLINED;
    }

    llm_json_members(&w, names, values, n);

    return LLM_OK;
}


llm_int_t
llm_json_next(const llm_str_t *container, u_char **pos, llm_str_t *name,
    llm_json_value_t *value)
{
    llm_json_walk_t  w;

    if (llm_json_enter(&w, container) != LLM_OK) {
        return LLM_DONE;
    }

    if (*pos) {
        w.pos = *pos;
        w.first = 0;
    }

    if (llm_json_step(&w) != LLM_OK) {
        *pos = (u_char *) w.last;
        return LLM_DONE;
    }

    *pos = (u_char *) w.pos;
    *value = w.value;

    if (name) {
        name->len = 0;
        name->data = NULL;

        if (w.close == '}') {
            name->len = w.name.raw.len - 2;
            name->data = w.name.raw.data + 1;
        }
    }

    return LLM_OK;
}


llm_int_t
llm_json_next_object(const llm_str_t *array, u_char **pos,
    const llm_str_t *names, llm_json_value_t *values, llm_uint_t n,
    llm_json_value_t *item)
{
    const u_char     *p;
    llm_json_walk_t   w, o;

    memset(values, 0, n * sizeof(llm_json_value_t));

    if (llm_json_enter(&w, array) != LLM_OK) {
        return LLM_DONE;
    }

    if (*pos) {
        w.pos = *pos;
        w.first = 0;
    }

    p = llm_scan_token(w.pos, w.last);

    if (!w.first && p < w.last && *p == ',') {
        p = llm_scan_token(p + 1, w.last);
    }

    if (p == w.last || *p != '{' || w.close != ']') {
        return llm_json_next(array, pos, NULL, item);
    }

    memset(item, 0, sizeof(llm_json_value_t));
    item->type = LLM_JSON_OBJECT;
    item->raw.data = (u_char *) p;

    o.pos = p + 1;
    o.last = w.last;
    o.close = '}';
    o.first = 1;

    llm_json_members(&o, names, values, n);

    p = llm_scan_token(o.pos, o.last);

    if (p == o.last || *p != '}') {
        *pos = (u_char *) w.last;
        return LLM_DONE;
    }

    *pos = (u_char *) p + 1;
    item->raw.len = *pos - item->raw.data;

    return LLM_OK;
}


static void
llm_json_members(llm_json_walk_t *w, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n)
{
    uint8_t            duplicate;
    llm_json_value_t  *value;

    while (llm_json_step(w) == LLM_OK) {
        value = llm_json_wanted(names, values, n, &w->name);

        if (value) {
            duplicate = value->duplicate;
            *value = w->value;
            value->duplicate = duplicate;
        }
    }
}


static llm_int_t
llm_json_enter(llm_json_walk_t *w, const llm_str_t *container)
{
    if (container->len == 0) {
        return LLM_DECLINED;
    }

    w->last = container->data + container->len;
    w->pos = llm_scan_token(container->data, w->last);

    if (w->pos == w->last || (*w->pos != '{' && *w->pos != '[')) {
        return LLM_DECLINED;
    }

    w->close = *w->pos++ + 2;
    w->first = 1;

    return LLM_OK;
}


static llm_int_t
llm_json_step(llm_json_walk_t *w)
{
    const u_char  *p;

    p = llm_scan_token(w->pos, w->last);

    if (p == w->last || *p == w->close) {
        return LLM_DONE;
    }

    if (!w->first) {

        if (*p != ',') {
            return LLM_DONE;
        }

        p = llm_scan_token(p + 1, w->last);
    }

    if (w->close == '}') {
        p = llm_json_skip(p, w->last, &w->name);

        if (p == NULL || w->name.type != LLM_JSON_STRING) {
            return LLM_DONE;
        }

        p = llm_scan_token(p, w->last);

        if (p == w->last || *p != ':') {
            return LLM_DONE;
        }

        p = llm_scan_token(p + 1, w->last);
    }

    p = llm_json_skip(p, w->last, &w->value);

    if (p == NULL) {
        return LLM_DONE;
    }

    w->pos = p;
    w->first = 0;

    return LLM_OK;
}


/* fills value with what is at p; behind it on return, NULL: nothing there */

static const u_char *
llm_json_skip(const u_char *p, const u_char *last, llm_json_value_t *value)
{
    value->raw.data = (u_char *) p;
    value->type = (p < last) ? llm_json_type(*p) : LLM_JSON_ABSENT;
    value->escaped = 0;
    value->duplicate = 0;
    value->overflow = 0;

    switch (value->type) {

    case LLM_JSON_ABSENT:
        return NULL;

    case LLM_JSON_STRING:
        p = llm_json_skip_string(p + 1, last, &value->escaped);
        break;

    case LLM_JSON_ARRAY:
    case LLM_JSON_OBJECT:
        p = llm_json_skip_container(p, last);
        break;

    default:

        while (p < last && *p > ' ' && *p != ',' && *p != ']' && *p != '}') {
            p++;
        }
    }

    if (p) {
        value->raw.len = p - value->raw.data;
    }

    return p;
}


/* brackets are counted, not paired: the text is valid */

static const u_char *
llm_json_skip_container(const u_char *p, const u_char *last)
{
    uint8_t     escaped;
    llm_uint_t  depth;

    depth = 0;

    for ( ;; ) {
        p = llm_scan_bracket(p, last);

        if (p == last) {
            return NULL;
        }

        switch (*p++) {

        case '"':
            p = llm_json_skip_string(p, last, &escaped);

            if (p == NULL) {
                return NULL;
            }

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


/* p is behind the opening quote; behind the closing one on return */

static const u_char *
llm_json_skip_string(const u_char *p, const u_char *last, uint8_t *escaped)
{
    for ( ;; ) {
        p = llm_scan_quote(p, last);

        if (p == last) {
            return NULL;
        }

        if (*p == '"') {
            return p + 1;
        }

        if (last - p < 2) {
            return NULL;
        }

        *escaped = 1;
        p += 2;
    }
}


llm_uint_t
llm_json_is(const llm_json_value_t *value, const char *text, size_t len)
{
    size_t         n;
    u_char         ch[4];
    const u_char  *p, *last, *next;

    if (value->type != LLM_JSON_STRING || value->raw.len < 2) {
        return 0;
    }

    p = value->raw.data + 1;
    last = p + value->raw.len - 2;

    if (!value->escaped) {
        return (size_t) (last - p) == len
               && (len == 0 || memcmp(p, text, len) == 0);
    }

    while (p < last) {

        if (*p == '\\') {
            next = llm_json_resolve(p, last, ch, &n);
            p = ch;

        } else {
            next = llm_scan_quote(p + 1, last);
            n = next - p;
        }

        if (n > len || memcmp(p, text, n) != 0) {
            return 0;
        }

        text += n;
        len -= n;
        p = next;
    }

    return len == 0;
}


size_t
llm_json_unescape(u_char *dst, const llm_json_value_t *value)
{
    size_t         n;
    u_char        *start;
    const u_char  *p, *last, *next;

    if (value->type != LLM_JSON_STRING || value->raw.len < 2) {
        return 0;
    }

    start = dst;
    p = value->raw.data + 1;
    last = p + value->raw.len - 2;

    while (p < last) {

        if (*p == '\\') {
            next = llm_json_resolve(p, last, dst, &n);

        } else {
            next = llm_scan_quote(p + 1, last);
            n = next - p;
            memcpy(dst, p, n);
        }

        dst += n;
        p = next;
    }

    return dst - start;
}


/* the escape at p: its *n bytes to dst; never more than it took itself */

static const u_char *
llm_json_resolve(const u_char *p, const u_char *last, u_char *dst, size_t *n)
{
    llm_int_t  code, low;

    *n = 1;

    if (++p == last) {
        *dst = '\\';
        return p;
    }

    switch (*p) {

    case 'b':
        *dst = '\b';
        return p + 1;

    case 'f':
        *dst = '\f';
        return p + 1;

    case 'n':
        *dst = '\n';
        return p + 1;

    case 'r':
        *dst = '\r';
        return p + 1;

    case 't':
        *dst = '\t';
        return p + 1;

    case 'u':
        break;

    default:
        *dst = *p;
        return p + 1;
    }

    code = llm_json_hex(p + 1, last);

    if (code < 0) {
        *dst = 'u';
        return p + 1;
    }

    p += 5;

    if (code >= 0xd800 && code < 0xdc00 && last - p >= 6
        && p[0] == '\\' && p[1] == 'u')
    {
        low = llm_json_hex(p + 2, last);

        if (low >= 0xdc00 && low < 0xe000) {
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
    }

    if (code >= 0xd800 && code < 0xe000) {
        code = 0xfffd;
    }

    *n = llm_json_encode(dst, code);

    return p;
}


/* four digits; -1: there are not */

static llm_int_t
llm_json_hex(const u_char *p, const u_char *last)
{
    u_char      ch;
    llm_int_t   code;
    llm_uint_t  i;

    if (last - p < 4) {
        return -1;
    }

    code = 0;

    for (i = 0; i < 4; i++) {
        ch = p[i];

        if (ch >= '0' && ch <= '9') {
            code = code * 16 + ch - '0';
            continue;
        }

        ch |= 0x20;

        if (ch < 'a' || ch > 'f') {
            return -1;
        }

        code = code * 16 + ch - 'a' + 10;
    }

    return code;
}


static size_t
llm_json_encode(u_char *dst, uint32_t code)
{
    if (code < 0x80) {
        dst[0] = code;
        return 1;
    }

    if (code < 0x800) {
        dst[0] = 0xc0 | code >> 6;
        dst[1] = 0x80 | (code & 0x3f);
        return 2;
    }

    if (code < 0x10000) {
        dst[0] = 0xe0 | code >> 12;
        dst[1] = 0x80 | (code >> 6 & 0x3f);
        dst[2] = 0x80 | (code & 0x3f);
        return 3;
    }

    dst[0] = 0xf0 | code >> 18;
    dst[1] = 0x80 | (code >> 12 & 0x3f);
    dst[2] = 0x80 | (code >> 6 & 0x3f);
    dst[3] = 0x80 | (code & 0x3f);

    return 4;
}


llm_int_t
llm_json_uint(const llm_json_value_t *value, uint64_t *n)
{
    u_char    *p, *last;
    uint64_t   sum;
    unsigned   digit;

    if (value->type != LLM_JSON_NUMBER || value->raw.len == 0) {
        return LLM_DECLINED;
    }

    sum = 0;
    p = value->raw.data;
    last = p + value->raw.len;

    for ( /* void */ ; p < last; p++) {

        if (*p < '0' || *p > '9') {
            return LLM_DECLINED;
        }

        digit = *p - '0';

        if (sum > (UINT64_MAX - digit) / 10) {
            return LLM_DECLINED;
        }

        sum = sum * 10 + digit;
    }

    *n = sum;

    return LLM_OK;
}


size_t
llm_json_escape(u_char *dst, const llm_str_t *text)
{
    size_t         len, n;
    u_char         buf[6];
    const u_char  *p, *last, *next, *from;

    if (text->len == 0) {
        return 0;
    }

    len = 0;
    p = text->data;
    last = p + text->len;

    while (p < last) {
        from = p;
        next = llm_scan_odd(p, last);

        if (next > p) {
            n = next - p;

        } else if (*p < 0x80) {
            n = llm_json_escape_byte(buf, *p);
            from = buf;
            next = p + 1;

        } else {
            n = llm_scan_utf8(p, last);
            next = p + n;

            if (n == 0) {
                n = llm_json_encode(buf, 0xfffd);
                from = buf;
                next = p + 1;
            }
        }

        if (dst) {
            memcpy(dst + len, from, n);
        }

        len += n;
        p = next;
    }

    return len;
}


static size_t
llm_json_escape_byte(u_char *dst, u_char ch)
{
    static const u_char  hex[] = "0123456789abcdef";

    dst[0] = '\\';

    switch (ch) {

    case '"':
    case '\\':
        dst[1] = ch;
        return 2;

    case '\b':
        dst[1] = 'b';
        return 2;

    case '\f':
        dst[1] = 'f';
        return 2;

    case '\n':
        dst[1] = 'n';
        return 2;

    case '\r':
        dst[1] = 'r';
        return 2;

    case '\t':
        dst[1] = 't';
        return 2;

    default:
        dst[1] = 'u';
        dst[2] = '0';
        dst[3] = '0';
        dst[4] = hex[ch >> 4];
        dst[5] = hex[ch & 0xf];
        return 6;
    }
}
