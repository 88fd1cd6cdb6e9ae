
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * State that one provider keeps: the digests of what a request refers to and
 * of what an answer names.  Two rings of the last ones, because the last are
 * those that the next request goes on with; the memory is the caller's.  Which
 * members name such state is said in dialect_openai_bound.c and
 * dialect_anthropic_bound.c.
 */


#include <string.h>

#include "llm_dialect.h"
#include "llm_scan.h"


static uint64_t llm_bound_digest(const llm_json_value_t *value);
static void llm_bound_id(const llm_json_value_t *value,
    llm_json_value_t *id);
static void llm_bound_reverse(uint64_t *p, llm_uint_t n);
static const u_char *llm_bound_end_of_word(const u_char *p,
    const u_char *last);


void
llm_bound_init(llm_bound_t *b, uint64_t *digests, llm_uint_t max)
{
    b->digests = digests;
    b->max = max;
    b->n = 0;
    b->next = 0;
}


void
llm_bound_add(llm_bound_t *b, const llm_json_value_t *value)
{
    uint64_t    digest;
    llm_uint_t  i;

    digest = llm_bound_digest(value);

    if (digest == 0 || b->max == 0) {
        return;
    }

    for (i = 0; i < b->n; i++) {
        if (b->digests[i] == digest) {
            return;
        }
    }

    b->digests[b->next] = digest;
    b->next = (b->next + 1) % b->max;

    if (b->n < b->max) {
        b->n++;
    }
}


void
llm_bound_add_id(llm_bound_t *b, const llm_json_value_t *value)
{
    llm_json_value_t  id;

    llm_bound_id(value, &id);
    llm_bound_add(b, &id);
}


llm_uint_t
llm_bound_end(llm_bound_t *b)
{
    llm_uint_t  n;

    /* next - 1 is the newest, next the oldest of a full ring */

    n = (b->n < b->max) ? b->n : b->next;

    llm_bound_reverse(b->digests, n);
    llm_bound_reverse(b->digests + n, b->n - n);

    return b->n;
}


void
llm_answer_bind(llm_answer_t *a, const llm_json_value_t *value)
{
    uint64_t    digest;
    llm_uint_t  i;

    digest = llm_bound_digest(value);

    if (digest == 0) {
        return;
    }

    for (i = 0; i < a->nbound; i++) {
        if (a->bound[i] == digest) {
            return;
        }
    }

    a->bound[a->bound_next] = digest;
    a->bound_next = (a->bound_next + 1) % LLM_BOUND_MAX;

    if (a->nbound < LLM_BOUND_MAX) {
        a->nbound++;
    }
}


void
llm_answer_bind_id(llm_answer_t *a, const llm_json_value_t *value)
{
    llm_json_value_t  id;

    llm_bound_id(value, &id);
    llm_answer_bind(a, &id);
}


/* 0: it names nothing */

static uint64_t
llm_bound_digest(const llm_json_value_t *value)
{
    llm_digest_t  d;

    if (value->type != LLM_JSON_STRING || value->raw.len <= 2) {
        return 0;
    }

    llm_digest_init(&d, 0);
    llm_digest_string(&d, value);

    return llm_digest_end(&d);
}


static void
llm_bound_id(const llm_json_value_t *value, llm_json_value_t *id)
{
    static const llm_str_t  path = llm_string("id");

    if (value->type == LLM_JSON_OBJECT) {
        llm_json_path(value, &path, 1, id);

    } else {
        *id = *value;
    }
}


static void
llm_bound_reverse(uint64_t *p, llm_uint_t n)
{
    uint64_t    digest;
    llm_uint_t  i;

    for (i = 0; i < n / 2; i++) {
        digest = p[i];
        p[i] = p[n - 1 - i];
        p[n - 1 - i] = digest;
    }
}


llm_uint_t
llm_bound_words(const llm_str_t *text, const llm_str_t *words)
{
    size_t            len;
    const u_char     *p, *last;
    const llm_str_t  *word;

    if (text->len == 0) {
        return 0;
    }

    p = text->data;
    last = p + text->len;

    for ( ;; ) {
        p = llm_bound_end_of_word(p, last);

        if (p == last) {
            return 0;
        }

        p++;
        len = p - text->data;

        for (word = words; word->len; word++) {
            if (len > word->len
                && p[-1] == word->data[word->len - 1]
                && *(p - word->len - 1) == '"'
                && memcmp(p - word->len, word->data, word->len) == 0)
            {
                return 1;
            }
        }
    }
}


/*
 * The last letter of a string that may be one of the words, or last.  The
 * letters are those that differ from 'd' in the bits of 0x13 alone; a quote
 * that is a part of a string has a backslash before it.
 */

static const u_char *
llm_bound_end_of_word(const u_char *p, const u_char *last)
{
#if (LLM_SSE2)
    int      mask;
    __m128i  v;

    while (last - p >= 17) {
        v = _mm_loadu_si128((const __m128i *) p);
        v = _mm_and_si128(v, _mm_set1_epi8((char) 0xec));
        v = llm_eq(v, 0x64);
        mask = _mm_movemask_epi8(
                   _mm_and_si128(v, llm_eq(_mm_loadu_si128(
                                               (const __m128i *) (p + 1)),
                                           '"')));

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    for ( /* void */ ; last - p >= 2; p++) {
        if ((*p & 0xec) == 0x64 && p[1] == '"') {
            return p;
        }
    }

    return last;
}
