
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The runner of the core's unit tests, used by including it once: prints
 * TAP, counts, and lends a llm_mem_t that counts what is alive and can fail
 * the k-th allocation.  A loop over many splits should count its failures
 * and end in one ok().
 *
 *     int main(void) { ...; is_int(1 + 1, 2, "sum"); return done(); }
 */


#ifndef _RUN_H_INCLUDED_
#define _RUN_H_INCLUDED_


#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <malloc.h>

#include "llm.h"


/* run_mem(&m, k) makes one; &m.mem is what the functions under test get */

typedef struct {
    llm_mem_t              mem;
    size_t                 calls;      /* of alloc */
    size_t                 fail;       /* the call to fail, from 1; 0: none */
    size_t                 live;       /* pieces not freed */
    size_t                 bytes;      /* in them */
    size_t                 peak;       /* of bytes */
} run_mem_t;


static int  run_count, run_failed;


__attribute__((format(printf, 2, 3), unused))
static int
ok(int good, const char *fmt, ...)
{
    va_list  args;

    run_count++;
    run_failed += !good;

    printf("%sok %d - ", good ? "" : "not ", run_count);

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);

    printf("\n");
    fflush(stdout);

    return good;
}


__attribute__((unused))
static int
is_mem(const void *got, size_t len, const void *want, size_t n,
    const char *name)
{
    if (ok(len == n && (n == 0 || memcmp(got, want, n) == 0), "%s", name)) {
        return 1;
    }

    printf("#   got:  %zu \"%.*s\"\n#   want: %zu \"%.*s\"\n",
           len, (int) len, len ? (const char *) got : "",
           n, (int) n, n ? (const char *) want : "");

    return 0;
}


__attribute__((unused))
static int
is(const llm_str_t *got, const char *want, const char *name)
{
    return is_mem(got->data, got->len, want, strlen(want), name);
}


__attribute__((unused))
static int
is_int(long long got, long long want, const char *name)
{
    if (ok(got == want, "%s", name)) {
        return 1;
    }

    printf("#   got:  %lld\n#   want: %lld\n", got, want);

    return 0;
}


__attribute__((unused))
static int
done(void)
{
    printf("1..%d\n", run_count);

    return run_failed != 0;
}


static void *
run_alloc(void *ctx, size_t size)
{
    void       *p;
    run_mem_t  *m = ctx;

    if (++m->calls == m->fail) {
        return NULL;
    }

    p = malloc(size);
    if (p == NULL) {
        abort();
    }

    memset(p, 0xa5, size);

    m->live++;
    m->bytes += malloc_usable_size(p);

    if (m->peak < m->bytes) {
        m->peak = m->bytes;
    }

    return p;
}


static void
run_free(void *ctx, void *p)
{
    run_mem_t  *m = ctx;

    if (p) {
        m->live--;
        m->bytes -= malloc_usable_size(p);
        free(p);
    }
}


__attribute__((unused))
static void
run_mem(run_mem_t *m, size_t fail)
{
    memset(m, 0, sizeof(run_mem_t));

    m->mem.alloc = run_alloc;
    m->mem.free = run_free;
    m->mem.ctx = m;
    m->fail = fail;
}


/* a copy with nothing behind it, so that a byte read too far is caught */

__attribute__((unused))
static u_char *
exact(const void *data, size_t len)
{
    u_char  *p;

    p = malloc(len);

    if (p && len) {
        memcpy(p, data, len);
    }

    return p;
}


#endif /* _RUN_H_INCLUDED_ */
