
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * JSON by spans: the check.  This one pass over a request or an event is the
 * module's largest cost for each byte, so nothing is built: a loop with a
 * stack of closing brackets checks the text and tells where the members
 * asked for stand.  In strings, bytes from 0x80 are only noticed; if there
 * are any, the text is then checked for UTF-8 at once, by llm_utf8.c.  What
 * reads a text that passed is in llm_json_read.c.
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
    u_char                 wide;       /* 0x80: there are bytes from it on */
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
static const u_char *llm_json_string_rest(llm_json_scan_t *s,
    const u_char *p) __attribute__((noinline));
static const u_char *llm_json_plain(llm_json_scan_t *s, const u_char *p);
#if (LLM_SSE2)
static inline const u_char *llm_json_bad_escape(const u_char *p,
    uint64_t escapes);
#endif
static const u_char *llm_json_escaped(llm_json_scan_t *s, const u_char *p);
static const u_char *llm_json_utf8(llm_json_scan_t *s, const u_char *start,
    const u_char *p);
static const u_char *llm_json_fail(llm_json_scan_t *s, const u_char *p,
    const char *reason);


#define LLM_JSON_ESCAPE  1             /* may stand behind a backslash */
#define LLM_JSON_HEX     2             /* a digit of \uXXXX */

static const u_char  llm_json_class[256] = {
    ['"'] = 1, ['\\'] = 1, ['/'] = 1, ['n'] = 1, ['r'] = 1, ['t'] = 1,
    ['b'] = 1|2, ['f'] = 1|2, ['a'] = 2, ['c'] = 2, ['d'] = 2, ['e'] = 2,
    ['A'] = 2, ['B'] = 2, ['C'] = 2, ['D'] = 2, ['E'] = 2, ['F'] = 2,
    ['0'] = 2, ['1'] = 2, ['2'] = 2, ['3'] = 2, ['4'] = 2,
    ['5'] = 2, ['6'] = 2, ['7'] = 2, ['8'] = 2, ['9'] = 2
};


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

        if (p < s.last) {
            p = llm_json_fail(&s, p, "text after the value");
        }
    }

    if (s.wide) {
        p = llm_json_utf8(&s, start, p);
    }

    if (p) {
        return (*start == '{') ? LLM_OK : LLM_DECLINED;
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
    const u_char  *near;

    s->escaped = 0;

    /* what is longer is for the larger blocks */

    near = (s->last - p > 128) ? p + 128 : s->last;
    p = llm_scan_odd(p, near);

    return (p < near && *p == '"') ? p + 1 : llm_json_string_rest(s, p);
}


/* not inlined, to keep the short and plain strings fast; p is any byte */

static const u_char *
llm_json_string_rest(llm_json_scan_t *s, const u_char *p)
{
    for ( ;; ) {

        if (p == s->last) {
            return llm_json_fail(s, p, "unexpected end");
        }

        if (*p == '"') {
            return p + 1;
        }

        if (*p < ' ') {
            return llm_json_fail(s, p, "control character in string");
        }

        if (*p == '\\') {
            s->escaped = 1;
            p = llm_json_escaped(s, p);

            if (p == NULL) {
                return NULL;
            }

        } else if (*p >= 0x80) {
            s->wide = 0x80;
        }

        p = llm_json_plain(s, p);
    }
}


/*
 * The first byte that llm_json_string_rest() has to look at.  Escapes that
 * are right are passed over, but not near the end of the text.
 */

static const u_char *
llm_json_plain(llm_json_scan_t *s, const u_char *p)
{
#if (LLM_SSE2)

    int            i;
    __m128i        v, any, slash[4], stop[4];
    uint64_t       escapes, stops, within;
    const u_char  *bad;

    within = 0;

    /* an escape that begins with the last of 64 bytes has 5 more */

    while (s->last - p >= 64 + 5) {
        any = _mm_setzero_si128();

#pragma GCC unroll 4
        for (i = 0; i < 4; i++) {
            v = _mm_loadu_si128((const __m128i *) (p + 16 * i));

            slash[i] = llm_eq(v, '\\');
            stop[i] = _mm_or_si128(llm_eq(v, '"'),
                                   llm_below_space(v, s->wide));
            any = _mm_or_si128(any, _mm_or_si128(slash[i], stop[i]));
        }

        if (_mm_movemask_epi8(any) == 0) {
            p += 64;
            within = 0;
            continue;
        }

        /* within: the first byte was looked at with its backslash */

        escapes = llm_scan_escapes(llm_bits(slash) & ~within);
        stops = llm_bits(stop) & ~(escapes << 1 | within);
        escapes &= (stops - 1) & ~stops;

        if (escapes) {
            s->escaped = 1;
            bad = llm_json_bad_escape(p, escapes);

            if (bad) {
                return bad;
            }
        }

        if (stops) {
            return p + __builtin_ctzll(stops);
        }

        p += 64;
        within = escapes >> 63;
    }

    p += within;

#endif

    return llm_scan_string(p, s->last, s->wide);
}


#if (LLM_SSE2)

/* the first wrong one, NULL: none */

static inline const u_char *
llm_json_bad_escape(const u_char *p, uint64_t escapes)
{
    const u_char  *e;

    for ( /* void */ ; escapes; escapes &= escapes - 1) {
        e = p + __builtin_ctzll(escapes) + 1;

        if (llm_json_class[*e] & LLM_JSON_ESCAPE) {
            continue;
        }

        if (*e != 'u'
            || !(llm_json_class[e[1]] & llm_json_class[e[2]]
                 & llm_json_class[e[3]] & llm_json_class[e[4]]
                 & LLM_JSON_HEX))
        {
            return e - 1;
        }
    }

    return NULL;
}

#endif


static const u_char *
llm_json_escaped(llm_json_scan_t *s, const u_char *p)
{
    llm_uint_t  i;

    if (++p == s->last) {
        return llm_json_fail(s, p, "unexpected end");
    }

    if (llm_json_class[*p] & LLM_JSON_ESCAPE) {
        return p + 1;
    }

    if (*p != 'u') {
        return llm_json_fail(s, p, "invalid escape");
    }

    for (i = 0; i < 4; i++) {

        if (++p == s->last || !(llm_json_class[*p] & LLM_JSON_HEX)) {
            return llm_json_fail(s, p, "invalid escape");
        }
    }

    return p + 1;
}


/*
 * p is the end of the text, or NULL if it failed.  Of two faults the first
 * counts; no sequence goes on behind the place that failed.
 */

static const u_char *
llm_json_utf8(llm_json_scan_t *s, const u_char *start, const u_char *p)
{
    const u_char  *end, *fault;

    end = p ? p : s->failed;
    fault = llm_utf8_fault(start, end);

    return (fault < end) ? llm_json_fail(s, fault, "invalid UTF-8") : p;
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
