
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Private to llm_canonical.c, which reads and writes, and
 * llm_canonical_sort.c, which puts members in order.
 */


#ifndef _LLM_CANONICAL_H_INCLUDED_
#define _LLM_CANONICAL_H_INCLUDED_


#include "llm_dialect.h"


typedef struct {
    uint64_t               key;        /* first 8 bytes of its name, which
                                          decide nearly always */
    uint32_t               name;       /* in the source, behind the quote */
    uint32_t               len:31;     /* as written */
    uint32_t               escaped:1;
    uint32_t               start;      /* in the text without whitespace: of */
    uint32_t               end;        /* its name and behind its value */
    uint32_t               first;      /* objects in its value */
    uint32_t               last;
} llm_canonical_member_t;


/* the key of a member whose name, len and escaped are known */
uint64_t llm_canonical_key(const llm_canonical_member_t *m,
    const u_char *src, const u_char *last);

/* stable; tmp has room for n, too */
void llm_canonical_sort(llm_canonical_member_t *m,
    llm_canonical_member_t *tmp, size_t n, const u_char *src);

/* of equal keys */
llm_int_t llm_canonical_compare_names(const llm_canonical_member_t *a,
    const llm_canonical_member_t *b, const u_char *src);


/* less than 0, 0, more; only names that say the same, escaped or not, are
 * equal */

static inline llm_int_t
llm_canonical_compare(const llm_canonical_member_t *a,
    const llm_canonical_member_t *b, const u_char *src)
{
    if (a->key != b->key) {
        return (a->key < b->key) ? -1 : 1;
    }

    return llm_canonical_compare_names(a, b, src);
}


#endif /* _LLM_CANONICAL_H_INCLUDED_ */
