
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * UTF-8: where a text stops being well-formed (Unicode, table 3-7: nothing
 * overlong, no surrogates, nothing beyond U+10FFFF).
 *
 * With AVX2 or SSSE3, whichever the processor has, whole blocks are checked
 * by three looks into tables of 16 for each byte, after Keiser and Lemire,
 * "Validating UTF-8 in less than one instruction per byte".  They only tell
 * that all is well: the place of a fault, and what is left behind the last
 * block, is for the byte by byte walk.
 */


#include <string.h>

#include "llm_scan.h"

#if (LLM_SSE2)
#include <immintrin.h>

#define LLM_SSSE3  __attribute__((target("ssse3")))
#define LLM_AVX2   __attribute__((target("avx2")))


/*
 * What is wrong with two bytes that stand together.  The high half of the
 * first allows of some of it, so does its low half, so does the high half of
 * the second; what all three allow of is there.
 */

#define LLM_UTF8_CUT    0x01           /* a lead, no continuation behind it */
#define LLM_UTF8_STRAY  0x02           /* a continuation behind ASCII */
#define LLM_UTF8_C0     0x04           /* C0, C1: overlong */
#define LLM_UTF8_E0     0x08           /* E0 80..9F: overlong */
#define LLM_UTF8_ED     0x10           /* ED A0..BF: a surrogate */
#define LLM_UTF8_F0     0x20           /* F0 80..8F: overlong; F5.. 80..8F */
#define LLM_UTF8_F4     0x40           /* F4 90..BF: too high; F5.. 90..BF */
#define LLM_UTF8_PAIR   0x80           /* two continuations: wrong unless a
                                          lead before them asks for it */

#define LLM_UTF8_F5     (LLM_UTF8_F0|LLM_UTF8_F4)
#define LLM_UTF8_ANY    (LLM_UTF8_CUT|LLM_UTF8_STRAY|LLM_UTF8_PAIR)
#define LLM_UTF8_CONT   (LLM_UTF8_STRAY|LLM_UTF8_PAIR|LLM_UTF8_C0)


static const u_char  llm_utf8_first_high[16] = {
    /* 0 */ LLM_UTF8_STRAY, LLM_UTF8_STRAY, LLM_UTF8_STRAY, LLM_UTF8_STRAY,
    /* 4 */ LLM_UTF8_STRAY, LLM_UTF8_STRAY, LLM_UTF8_STRAY, LLM_UTF8_STRAY,
    /* 8 */ LLM_UTF8_PAIR, LLM_UTF8_PAIR, LLM_UTF8_PAIR, LLM_UTF8_PAIR,
    /* c */ LLM_UTF8_CUT|LLM_UTF8_C0,
    /* d */ LLM_UTF8_CUT,
    /* e */ LLM_UTF8_CUT|LLM_UTF8_E0|LLM_UTF8_ED,
    /* f */ LLM_UTF8_CUT|LLM_UTF8_F5
};


static const u_char  llm_utf8_first_low[16] = {
    /* 0 */ LLM_UTF8_ANY|LLM_UTF8_C0|LLM_UTF8_E0|LLM_UTF8_F0,
    /* 1 */ LLM_UTF8_ANY|LLM_UTF8_C0,
    /* 2 */ LLM_UTF8_ANY, LLM_UTF8_ANY,
    /* 4 */ LLM_UTF8_ANY|LLM_UTF8_F4,
    /* 5 */ LLM_UTF8_ANY|LLM_UTF8_F5, LLM_UTF8_ANY|LLM_UTF8_F5,
    /* 7 */ LLM_UTF8_ANY|LLM_UTF8_F5, LLM_UTF8_ANY|LLM_UTF8_F5,
    /* 9 */ LLM_UTF8_ANY|LLM_UTF8_F5, LLM_UTF8_ANY|LLM_UTF8_F5,
    /* b */ LLM_UTF8_ANY|LLM_UTF8_F5, LLM_UTF8_ANY|LLM_UTF8_F5,
    /* d */ LLM_UTF8_ANY|LLM_UTF8_F5|LLM_UTF8_ED,
    /* e */ LLM_UTF8_ANY|LLM_UTF8_F5, LLM_UTF8_ANY|LLM_UTF8_F5
};


static const u_char  llm_utf8_second_high[16] = {
    /* 0 */ LLM_UTF8_CUT, LLM_UTF8_CUT, LLM_UTF8_CUT, LLM_UTF8_CUT,
    /* 4 */ LLM_UTF8_CUT, LLM_UTF8_CUT, LLM_UTF8_CUT, LLM_UTF8_CUT,
    /* 8 */ LLM_UTF8_CONT|LLM_UTF8_E0|LLM_UTF8_F0,
    /* 9 */ LLM_UTF8_CONT|LLM_UTF8_E0|LLM_UTF8_F4,
    /* a */ LLM_UTF8_CONT|LLM_UTF8_ED|LLM_UTF8_F4,
    /* b */ LLM_UTF8_CONT|LLM_UTF8_ED|LLM_UTF8_F4,
    /* c */ LLM_UTF8_CUT, LLM_UTF8_CUT, LLM_UTF8_CUT, LLM_UTF8_CUT
};


/* not 0 where the bytes of v, which before stands before, are at fault */

LLM_SSSE3 static inline __m128i
llm_utf8_check_ssse3(__m128i v, __m128i before)
{
    __m128i  half, first, wrong, asked;

#define llm_utf8_look(table, i)                                               \
    _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) table), i)

    half = _mm_set1_epi8(0x0f);
    first = _mm_alignr_epi8(v, before, 15);

    wrong = llm_utf8_look(llm_utf8_first_low, _mm_and_si128(first, half));
    first = _mm_and_si128(_mm_srli_epi16(first, 4), half);
    wrong = _mm_and_si128(wrong, llm_utf8_look(llm_utf8_first_high, first));
    half = _mm_and_si128(_mm_srli_epi16(v, 4), half);
    wrong = _mm_and_si128(wrong, llm_utf8_look(llm_utf8_second_high, half));

#undef llm_utf8_look

    /* the top bit: from 0xe0 two before, from 0xf0 three before */

    asked = _mm_or_si128(_mm_subs_epu8(_mm_alignr_epi8(v, before, 14),
                                       _mm_set1_epi8(0xe0 - 0x80)),
                         _mm_subs_epu8(_mm_alignr_epi8(v, before, 13),
                                       _mm_set1_epi8(0xf0 - 0x80)));

    return _mm_xor_si128(wrong, _mm_and_si128(asked,
                                    _mm_set1_epi8((char) LLM_UTF8_PAIR)));
}


/* behind the blocks at p if they are well-formed so far, else p */

LLM_SSSE3 static const u_char *
llm_utf8_blocks_ssse3(const u_char *p, const u_char *last)
{
    int            wide, was_wide;
    __m128i        a, b, before, wrong;
    const u_char  *start;

    start = p;
    was_wide = 0;
    before = _mm_setzero_si128();
    wrong = before;

    for ( /* void */ ; last - p >= 32; p += 32) {
        a = _mm_loadu_si128((const __m128i *) p);
        b = _mm_loadu_si128((const __m128i *) (p + 16));

        wide = _mm_movemask_epi8(_mm_or_si128(a, b));

        /* in ASCII, the end of what was before it may be missing */

        if (wide | was_wide) {
            wrong = _mm_or_si128(wrong, llm_utf8_check_ssse3(a, before));
            wrong = _mm_or_si128(wrong, llm_utf8_check_ssse3(b, a));
        }

        was_wide = wide;
        before = b;
    }

    wrong = _mm_cmpeq_epi8(wrong, _mm_setzero_si128());

    return (_mm_movemask_epi8(wrong) == 0xffff) ? p : start;
}


/* the same two, 32 bytes at a time */

LLM_AVX2 static inline __m256i
llm_utf8_check_avx2(__m256i v, __m256i before)
{
    __m256i  half, first, wrong, asked;

#define llm_utf8_look(table, i)                                               \
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(                          \
                            _mm_loadu_si128((const __m128i *) table)), i)

    /* the shifts are of 16 bytes each: before each half its own before */

    before = _mm256_permute2x128_si256(before, v, 0x21);

    half = _mm256_set1_epi8(0x0f);
    first = _mm256_alignr_epi8(v, before, 15);

    wrong = llm_utf8_look(llm_utf8_first_low, _mm256_and_si256(first, half));
    first = _mm256_and_si256(_mm256_srli_epi16(first, 4), half);
    wrong = _mm256_and_si256(wrong,
                             llm_utf8_look(llm_utf8_first_high, first));
    half = _mm256_and_si256(_mm256_srli_epi16(v, 4), half);
    wrong = _mm256_and_si256(wrong,
                             llm_utf8_look(llm_utf8_second_high, half));

#undef llm_utf8_look

    asked = _mm256_or_si256(
                       _mm256_subs_epu8(_mm256_alignr_epi8(v, before, 14),
                                        _mm256_set1_epi8(0xe0 - 0x80)),
                       _mm256_subs_epu8(_mm256_alignr_epi8(v, before, 13),
                                        _mm256_set1_epi8(0xf0 - 0x80)));

    return _mm256_xor_si256(wrong, _mm256_and_si256(asked,
                                    _mm256_set1_epi8((char) LLM_UTF8_PAIR)));
}


LLM_AVX2 static const u_char *
llm_utf8_blocks_avx2(const u_char *p, const u_char *last)
{
    int            wide, was_wide;
    __m256i        a, b, before, wrong;
    const u_char  *start;

    start = p;
    was_wide = 0;
    before = _mm256_setzero_si256();
    wrong = before;

    for ( /* void */ ; last - p >= 64; p += 64) {
        a = _mm256_loadu_si256((const __m256i *) p);
        b = _mm256_loadu_si256((const __m256i *) (p + 32));

        wide = _mm256_movemask_epi8(_mm256_or_si256(a, b));

        if (wide | was_wide) {
            wrong = _mm256_or_si256(wrong, llm_utf8_check_avx2(a, before));
            wrong = _mm256_or_si256(wrong, llm_utf8_check_avx2(b, a));
        }

        was_wide = wide;
        before = b;
    }

    return _mm256_testz_si256(wrong, wrong) ? p : start;
}

#endif


/* from p on; what stands before it is well-formed, but may be cut there */

static const u_char *
llm_utf8_walk(const u_char *start, const u_char *p, const u_char *last)
{
    uint64_t    word;
    llm_uint_t  n;

    if (p > start) {

        do {
            p--;
        } while ((*p & 0xc0) == 0x80);
    }

    while (p < last) {

        if (*p >= 0x80) {
            n = llm_scan_utf8(p, last);

            if (n == 0) {
                return p;
            }

            p += n;
            continue;
        }

        p++;

        while (last - p >= 8) {
            memcpy(&word, p, 8);

            if (word & 0x8080808080808080) {
                break;
            }

            p += 8;
        }
    }

    return p;
}


const u_char *
llm_utf8_fault(const u_char *p, const u_char *last)
{
    const u_char  *start;

    start = p;

#if (LLM_SSE2)

    if (__builtin_cpu_supports("avx2")) {
        p = llm_utf8_blocks_avx2(p, last);

    } else if (__builtin_cpu_supports("ssse3")) {
        p = llm_utf8_blocks_ssse3(p, last);
    }

#endif

    return llm_utf8_walk(start, p, last);
}
