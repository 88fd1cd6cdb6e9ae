
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the fuzzers lend to the functions they call: memory that counts what
 * is alive and fails at the fail-th allocation.
 */


#ifndef _FUZZ_MEM_H_INCLUDED_
#define _FUZZ_MEM_H_INCLUDED_


#include <stdlib.h>

#include "llm.h"


#define check(good)  if (!(good)) { __builtin_trap(); }


typedef struct {
    llm_mem_t              mem;
    void                  *p[512];     /* a pool's: freed at the end */
    size_t                 n;
    size_t                 calls;
    size_t                 fail;
    size_t                 live;
} fuzz_mem_t;


static void *
fuzz_alloc(void *ctx, size_t size)
{
    void        *p;
    fuzz_mem_t  *m = ctx;

    if (++m->calls == m->fail) {
        return NULL;
    }

    p = malloc(size);
    check(p != NULL);

    m->live++;

    return p;
}


static void
fuzz_free(void *ctx, void *p)
{
    fuzz_mem_t  *m = ctx;

    if (p) {
        m->live--;
        free(p);
    }
}


#endif /* _FUZZ_MEM_H_INCLUDED_ */
