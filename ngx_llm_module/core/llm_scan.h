
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Private to the parsers of this folder: the first byte of a kind in
 * [p, last), or last.  With SSE2 16 bytes at a time.  No load goes past
 * last: the texts are not terminated and nothing is known of what follows,
 * so the last 15 bytes are read one by one.
 */


#ifndef _LLM_SCAN_H_INCLUDED_
#define _LLM_SCAN_H_INCLUDED_


#include "llm.h"

#if defined(__SSE2__) && !defined(LLM_SCALAR)
#include <emmintrin.h>
#define LLM_SSE2  1
#define llm_eq(v, ch)  _mm_cmpeq_epi8(v, _mm_set1_epi8((char) (ch)))


/* a signed comparison: bytes from 0x80 are below too, unless pass is 0x80 */

static inline __m128i
llm_below_space(__m128i v, u_char pass)
{
    return _mm_cmplt_epi8(_mm_xor_si128(v, _mm_set1_epi8((char) pass)),
                          _mm_set1_epi8((char) (' ' ^ pass)));
}


/* a bit for each byte that is not 0, 64 of them */

static inline uint64_t
llm_bits(const __m128i *v)
{
    uint32_t  low, high;

    low = _mm_movemask_epi8(v[1]);
    low = low << 16 | _mm_movemask_epi8(v[0]);
    high = _mm_movemask_epi8(v[3]);
    high = high << 16 | _mm_movemask_epi8(v[2]);

    return (uint64_t) high << 32 | low;
}


/*
 * Of the backslashes, those that begin an escape: the first, third, fifth of
 * each row.  What is added to a row's first is carried over all of the row.
 */

static inline uint64_t
llm_scan_escapes(uint64_t slashes)
{
    uint64_t  first, rows;

    static const uint64_t  even = 0x5555555555555555;

    first = slashes & ~(slashes << 1);
    rows = slashes & ~(slashes + (first & even));

    return (rows & even) | (slashes & ~rows & ~even);
}

#endif


/*
 * In a string: a quote, a backslash, a control byte; and bytes from 0x80,
 * unless pass, which is 0x80 then and 0 otherwise.
 */

static inline const u_char *
llm_scan_string(const u_char *p, const u_char *last, u_char pass)
{
#if (LLM_SSE2)
    int      mask;
    __m128i  v, odd;

    while (last - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);
        odd = _mm_or_si128(llm_below_space(v, pass),
                           _mm_or_si128(llm_eq(v, '"'), llm_eq(v, '\\')));
        mask = _mm_movemask_epi8(odd);

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    while (p < last && *p >= ' ' && (*p < 0x80 || pass)
           && *p != '"' && *p != '\\')
    {
        p++;
    }

    return p;
}


/* in a string: what cannot stand there as it is, UTF-8 included */

static inline const u_char *
llm_scan_odd(const u_char *p, const u_char *last)
{
    return llm_scan_string(p, last, 0);
}


/* in a string that needs no checking: a quote or a backslash */

static inline const u_char *
llm_scan_quote(const u_char *p, const u_char *last)
{
#if (LLM_SSE2)
    int      mask;
    __m128i  v;

    while (last - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);
        mask = _mm_movemask_epi8(_mm_or_si128(llm_eq(v, '"'),
                                              llm_eq(v, '\\')));

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    while (p < last && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}


/* in a container that needs no checking: a bracket or a quote */

static inline const u_char *
llm_scan_bracket(const u_char *p, const u_char *last)
{
    u_char   ch;
#if (LLM_SSE2)
    int      mask;
    __m128i  v, low;

    while (last - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);

        /* the bit that tells '[' from '{' and ']' from '}' */

        low = _mm_or_si128(v, _mm_set1_epi8(0x20));
        low = _mm_or_si128(llm_eq(low, '{'), llm_eq(low, '}'));
        mask = _mm_movemask_epi8(_mm_or_si128(low, llm_eq(v, '"')));

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    for ( /* void */ ; p < last; p++) {
        ch = *p | 0x20;

        if (ch == '{' || ch == '}' || *p == '"') {
            break;
        }
    }

    return p;
}


/* the end of a line: CR or LF */

static inline const u_char *
llm_scan_eol(const u_char *p, const u_char *last)
{
#if (LLM_SSE2)
    int      mask;
    __m128i  v;

    while (last - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);
        mask = _mm_movemask_epi8(_mm_or_si128(llm_eq(v, '\n'),
                                              llm_eq(v, '\r')));

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    while (p < last && *p != '\n' && *p != '\r') {
        p++;
    }

    return p;
}


/* anything but JSON's white space */

static inline const u_char *
llm_scan_spaces(const u_char *p, const u_char *last)
{
#if (LLM_SSE2)
    int      mask;
    __m128i  v, blank;

    while (last - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);

        blank = _mm_or_si128(_mm_or_si128(llm_eq(v, ' '), llm_eq(v, '\n')),
                             _mm_or_si128(llm_eq(v, '\r'), llm_eq(v, '\t')));
        mask = _mm_movemask_epi8(blank) ^ 0xffff;

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    while (p < last
           && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    {
        p++;
    }

    return p;
}


/* most texts have no spaces between tokens, one, or long runs */

static inline const u_char *
llm_scan_token(const u_char *p, const u_char *last)
{
    if (p < last && *p > ' ') {
        return p;
    }

    if (last - p > 1 && *p == ' ' && p[1] > ' ') {
        return p + 1;
    }

    return llm_scan_spaces(p, last);
}


/*
 * The length of the UTF-8 sequence at p, which is not ASCII; 0 if it is not
 * well-formed: cut, overlong, a surrogate, beyond U+10FFFF.
 */

static inline llm_uint_t
llm_scan_utf8(const u_char *p, const u_char *last)
{
    if (*p < 0xc2 || last - p < 2 || (p[1] & 0xc0) != 0x80) {
        return 0;
    }

    if (*p < 0xe0) {
        return 2;
    }

    if (last - p < 3 || (p[2] & 0xc0) != 0x80) {
        return 0;
    }

    if (*p < 0xf0) {
        return ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f))
               ? 0 : 3;
    }

    if (*p > 0xf4 || last - p < 4 || (p[3] & 0xc0) != 0x80) {
        return 0;
    }

    return ((*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
           ? 0 : 4;
}


/* the first byte that is not well-formed UTF-8, or last; llm_utf8.c */

const u_char *llm_utf8_fault(const u_char *p, const u_char *last);


/* a value's type by its first byte; LLM_JSON_ABSENT: none begins so */

static inline llm_uint_t
llm_json_type(u_char ch)
{
    switch (ch) {

    case '{':
        return LLM_JSON_OBJECT;

    case '[':
        return LLM_JSON_ARRAY;

    case '"':
        return LLM_JSON_STRING;

    case 't':
        return LLM_JSON_TRUE;

    case 'f':
        return LLM_JSON_FALSE;

    case 'n':
        return LLM_JSON_NULL;

    default:
        return (ch == '-' || (ch >= '0' && ch <= '9')) ? LLM_JSON_NUMBER
                                                       : LLM_JSON_ABSENT;
    }
}


/* where to put the value of this member, NULL: it is not asked for */

llm_json_value_t *llm_json_wanted(const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n, const llm_json_value_t *name);


#endif /* _LLM_SCAN_H_INCLUDED_ */
