
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Members of an object in the order of their names, for llm_canonical.c: by
 * insertion if they are few, by merging if not, and never two that say the
 * same past each other.  Nearly always 8 bytes of a name decide.
 */


#include <string.h>

#include "llm_canonical.h"


#define LLM_CANONICAL_INSERT  12       /* so few are sorted by insertion */


static void llm_canonical_insert(llm_canonical_member_t *m, size_t n,
    const u_char *src);
static size_t llm_canonical_unescape(const u_char **p, const u_char *last,
    u_char *dst);


/* filled up with zeros, which no name has in it unless it is escaped */

uint64_t
llm_canonical_key(const llm_canonical_member_t *m, const u_char *src,
    const u_char *last)
{
    size_t         n;
    u_char         buf[8 + 12];
    uint64_t       key;
    const u_char  *p, *end;

    p = src + m->name;

    if (!m->escaped && m->len >= 8) {
        memcpy(&key, p, 8);
        return __builtin_bswap64(key);
    }

    memset(buf, 0, 8);

    if (!m->escaped) {

        if (last - p >= 8) {
            memcpy(&key, p, 8);
            key = __builtin_bswap64(key);
            return m->len ? key >> (64 - 8 * m->len) << (64 - 8 * m->len) : 0;
        }

        memcpy(buf, p, m->len);

    } else {
        end = p + m->len;

        for (n = 0; n < 8 && p < end; /* void */ ) {
            n += llm_canonical_unescape(&p, end, buf + n);
        }

        if (n < 8) {
            memset(buf + n, 0, 8 - n);
        }
    }

    memcpy(&key, buf, 8);

    return __builtin_bswap64(key);
}


void
llm_canonical_sort(llm_canonical_member_t *m, llm_canonical_member_t *tmp,
    size_t n, const u_char *src)
{
    size_t                   half;
    llm_canonical_member_t  *left, *right, *left_last, *right_last;

    if (n <= LLM_CANONICAL_INSERT) {
        llm_canonical_insert(m, n, src);
        return;
    }

    half = n / 2;

    llm_canonical_sort(m, tmp, half, src);
    llm_canonical_sort(m + half, tmp, n - half, src);

    right = m + half;
    right_last = m + n;

    if (llm_canonical_compare(right - 1, right, src) <= 0) {
        return;
    }

    memcpy(tmp, m, half * sizeof(llm_canonical_member_t));

    left = tmp;
    left_last = tmp + half;

    while (left < left_last && right < right_last) {
        *m++ = (llm_canonical_compare(left, right, src) <= 0) ? *left++
                                                            : *right++;
    }

    /* those left of the right half are in their places */

    memcpy(m, left, (u_char *) left_last - (u_char *) left);
}


static void
llm_canonical_insert(llm_canonical_member_t *m, size_t n, const u_char *src)
{
    size_t                  i, k;
    llm_canonical_member_t  member;

    for (i = 1; i < n; i++) {

        if (llm_canonical_compare(&m[i - 1], &m[i], src) <= 0) {
            continue;
        }

        member = m[i];

        for (k = i; k && llm_canonical_compare(&m[k - 1], &member, src) > 0;
             k--)
        {
            m[k] = m[k - 1];
        }

        m[k] = member;
    }
}


llm_int_t
llm_canonical_compare_names(const llm_canonical_member_t *a,
    const llm_canonical_member_t *b, const u_char *src)
{
    int            rc;
    u_char         abuf[12], bbuf[12], *ap, *bp;
    size_t         an, bn;
    const u_char  *apos, *alast, *bpos, *blast;

    apos = src + a->name;
    bpos = src + b->name;

    if (!a->escaped && !b->escaped) {
        rc = memcmp(apos, bpos, a->len < b->len ? a->len : b->len);

        return rc ? rc : (llm_int_t) a->len - (llm_int_t) b->len;
    }

    an = 0;
    bn = 0;
    ap = abuf;
    bp = bbuf;
    alast = apos + a->len;
    blast = bpos + b->len;

    for ( ;; ) {

        if (an == 0 && apos < alast) {
            ap = abuf;
            an = llm_canonical_unescape(&apos, alast, abuf);
        }

        if (bn == 0 && bpos < blast) {
            bp = bbuf;
            bn = llm_canonical_unescape(&bpos, blast, bbuf);
        }

        if (an == 0 || bn == 0) {
            return (llm_int_t) an - (llm_int_t) bn;
        }

        if (*ap != *bp) {
            return (*ap < *bp) ? -1 : 1;
        }

        ap++;
        bp++;
        an--;
        bn--;
    }
}


/* the next byte or escape of a name: 1 to 12 bytes, of which at least one */

static size_t
llm_canonical_unescape(const u_char **p, const u_char *last, u_char *dst)
{
    size_t            n;
    const u_char     *s;
    llm_json_value_t  v;

    s = *p;
    n = 1;

    if (*s == '\\' && last - s >= 2) {
        n = 2;

        if (s[1] == 'u' && last - s >= 6) {
            n = 6;

            if ((s[2] | 0x20) == 'd' && strchr("89abAB", s[3])
                && last - s >= 12 && s[6] == '\\' && s[7] == 'u'
                && (s[8] | 0x20) == 'd' && strchr("cdefCDEF", s[9]))
            {
                n = 12;
            }
        }
    }

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw.data = (u_char *) s - 1;
    v.raw.len = n + 2;
    v.type = LLM_JSON_STRING;
    v.escaped = 1;

    *p = s + n;

    return llm_json_unescape(dst, &v);
}
