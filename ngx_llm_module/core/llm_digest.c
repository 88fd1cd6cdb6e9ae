
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Digests of 64 bits, of texts in one piece or in several: eight bytes at a
 * time are multiplied and mixed in, the length at the end.  The state is the
 * caller's; the result depends on the bytes and the seed, and on the order of
 * bytes in a word of this machine: it is not for other machines.
 */


#include <string.h>

#include "llm_dialect.h"


/* odd, half of the bits set, no pattern */

#define LLM_DIGEST_K1  0x9fb21c651e98df25ULL
#define LLM_DIGEST_K2  0xd6e8feb86659fd93ULL


static const u_char *llm_digest_escape(llm_digest_t *d, const u_char *p,
    const u_char *last);
static llm_uint_t llm_digest_surrogate(const u_char *p, u_char first);


static inline uint64_t
llm_digest_mix(uint64_t hash, const u_char *p)
{
    uint64_t  word;

    memcpy(&word, p, 8);

    /* the first product does not wait for the one before it */

    word *= LLM_DIGEST_K1;
    word ^= word >> 47;

    return (hash ^ word) * LLM_DIGEST_K2;
}


void
llm_digest_init(llm_digest_t *d, uint64_t seed)
{
    memset(d, 0, sizeof(llm_digest_t));

    d->hash = (seed ^ LLM_DIGEST_K1) * LLM_DIGEST_K2;
}


void
llm_digest_add(llm_digest_t *d, const void *data, size_t len)
{
    size_t         n, room;
    uint64_t       hash;
    const u_char  *p, *last;

    if (len == 0) {
        return;
    }

    p = data;
    last = p + len;

    n = d->len % 8;
    d->len += len;

    if (n) {
        room = 8 - n;

        if (len < room) {
            memcpy(d->rest + n, p, len);
            return;
        }

        memcpy(d->rest + n, p, room);
        d->hash = llm_digest_mix(d->hash, d->rest);
        p += room;
    }

    hash = d->hash;

    for ( /* void */ ; last - p >= 8; p += 8) {
        hash = llm_digest_mix(hash, p);
    }

    d->hash = hash;

    memcpy(d->rest, p, last - p);
}


uint64_t
llm_digest_end(const llm_digest_t *d)
{
    size_t    n;
    u_char    rest[8];
    uint64_t  hash;

    n = d->len % 8;
    hash = d->hash;

    if (n) {
        memset(rest, 0, 8);
        memcpy(rest, d->rest, n);
        hash = llm_digest_mix(hash, rest);
    }

    hash ^= d->len;
    hash = (hash ^ (hash >> 32)) * LLM_DIGEST_K1;
    hash = (hash ^ (hash >> 29)) * LLM_DIGEST_K2;
    hash ^= hash >> 32;

    return hash ? hash : 1;
}


uint64_t
llm_digest(const void *data, size_t len, uint64_t seed)
{
    llm_digest_t  d;

    llm_digest_init(&d, seed);
    llm_digest_add(&d, data, len);

    return llm_digest_end(&d);
}


/* without memory for the unescaped text: an escape at a time */

void
llm_digest_string(llm_digest_t *d, const llm_json_value_t *value)
{
    const u_char  *p, *last, *next;

    if (value->type != LLM_JSON_STRING || value->raw.len < 2) {
        return;
    }

    p = value->raw.data + 1;
    last = p + value->raw.len - 2;

    while (p < last) {
        next = value->escaped ? memchr(p, '\\', last - p) : NULL;

        if (next == NULL) {
            llm_digest_add(d, p, last - p);
            return;
        }

        llm_digest_add(d, p, next - p);

        p = llm_digest_escape(d, next, last);
    }
}


/* p is at a backslash; behind its escape, or two for one, on return */

static const u_char *
llm_digest_escape(llm_digest_t *d, const u_char *p, const u_char *last)
{
    size_t            len;
    u_char            buf[12];
    llm_json_value_t  v;

    len = (last - p > 1 && p[1] == 'u') ? 6 : 2;

    /* a high surrogate goes with the low one that follows, if one does */

    if (last - p >= 12 && llm_digest_surrogate(p, 0x8)
        && llm_digest_surrogate(p + 6, 0xc))
    {
        len = 12;
    }

    if ((size_t) (last - p) < len) {
        len = last - p;
    }

    memset(&v, 0, sizeof(llm_json_value_t));

    /* the readers do not look at the quotes */

    v.raw.data = (u_char *) p - 1;
    v.raw.len = len + 2;
    v.type = LLM_JSON_STRING;
    v.escaped = 1;

    len = llm_json_unescape(buf, &v);
    llm_digest_add(d, buf, len);

    return p + v.raw.len - 2;
}


/* 1 if the escape at p is "\uDfxx" to "\uD(f+3)xx", f being first */

static llm_uint_t
llm_digest_surrogate(const u_char *p, u_char first)
{
    u_char  ch;

    if (p[0] != '\\' || p[1] != 'u' || (p[2] | 0x20) != 'd') {
        return 0;
    }

    ch = p[3] | 0x20;
    ch = (ch >= 'a' && ch <= 'f') ? ch - 'a' + 10 : p[3] - '0';

    return ch >= first && ch < first + 4;
}
