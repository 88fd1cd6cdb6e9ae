
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * import: reads lines of any split, turns each into an entry, and writes them
 * in batches, so that the workers never wait long for the file.  A bad line
 * is told and costs only itself.
 */


#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llm_cache.h"


#define LLM_CACHE_LINE   (64 * 1024 * 1024)
#define LLM_CACHE_PIECE  (64 * 1024)
#define LLM_CACHE_BATCH  1000          /* entries */
#define LLM_CACHE_BYTES  (16 * 1024 * 1024)
#define LLM_CACHE_TOLD   100           /* bad lines that are told */

#define LLM_ABORTED      -6            /* the file takes no more */


typedef struct {
    llm_cache_t           *cache;
    llm_cache_reader_t     reader;
    llm_cache_progress_t   progress;

    llm_cache_out_t        buf;        /* read and not used yet */
    size_t                 pos;        /* in it: the line's start, */
    size_t                 seen;       /* no end of it up to here */
    uint64_t               line;       /* its number */

    llm_entry_t           *entries[LLM_CACHE_BATCH];
    llm_uint_t             n;
    size_t                 bytes;

    uint64_t               imported;
    uint64_t               skipped;
    uint64_t               lost;       /* could not be stored */
    uint64_t               bad;

    unsigned               end:1;      /* of the input */
    unsigned               long_line:1;    /* being passed over */
} llm_cache_import_t;


static int llm_cache_import_all(llm_cache_import_t *im);
static llm_int_t llm_cache_routes(llm_cache_import_t *im);
static llm_int_t llm_cache_route(void *ctx, const llm_str_t *route);
static llm_int_t llm_cache_next_line(llm_cache_import_t *im,
    llm_str_t *line);
static llm_int_t llm_cache_fill(llm_cache_import_t *im);
static llm_int_t llm_cache_take(llm_cache_import_t *im,
    const llm_str_t *line);
static llm_uint_t llm_cache_newer(llm_cache_import_t *im,
    const llm_entry_t *e);
static void llm_cache_bad_line(llm_cache_import_t *im, const char *why);
static llm_int_t llm_cache_write(llm_cache_import_t *im);
static llm_uint_t llm_cache_blank(const llm_str_t *line);


int
llm_cache_import(llm_cache_t *c)
{
    int                  rc;
    size_t               i;
    llm_cache_import_t  *im;

    im = calloc(1, sizeof(llm_cache_import_t));

    if (im == NULL) {
        llm_cache_error("no memory");
        return LLM_CACHE_ERROR;
    }

    im->cache = c;
    im->reader.now = llm_cache_now();
    im->reader.ttl = c->ttl;
    im->reader.all = c->all;

    llm_cache_arena_init(&im->reader.arena);

    rc = LLM_CACHE_ERROR;

    if (llm_cache_routes(im) == LLM_OK) {
        llm_cache_progress_begin(&im->progress);

        rc = llm_cache_import_all(im);

        llm_cache_progress_end(&im->progress);

        fprintf(c->out, "imported %llu, skipped %llu, bad %llu\n",
                (unsigned long long) im->imported,
                (unsigned long long) im->skipped,
                (unsigned long long) im->bad);

    } else {
        llm_cache_error("the cache in \"%s\" can't be read", c->dir);
    }

    if (im->bad > LLM_CACHE_TOLD) {
        llm_cache_error("%llu more bad lines",
                        (unsigned long long) (im->bad - LLM_CACHE_TOLD));
    }

    if (im->lost) {
        llm_cache_error("%llu entries could not be stored",
                        (unsigned long long) im->lost);
    }

    if (im->bad || im->lost) {
        rc = LLM_CACHE_ERROR;
    }

    for (i = 0; i < im->reader.nroutes; i++) {
        free(im->reader.routes[i].route.data);
    }

    free(im->reader.routes);
    llm_cache_arena_reset(&im->reader.arena);
    llm_cache_out_free(&im->buf);
    free(im);

    return rc;
}


static int
llm_cache_import_all(llm_cache_import_t *im)
{
    llm_int_t  rc;
    llm_str_t  line;

    do {
        rc = llm_cache_next_line(im, &line);

        if (rc == LLM_DECLINED) {
            llm_cache_bad_line(im, "longer than 64 MB");
            rc = LLM_OK;

        } else if (rc == LLM_OK) {
            rc = llm_cache_take(im, &line);
        }

    } while (rc == LLM_OK && !llm_cache_signal);

    if (rc == LLM_ABORTED) {

        /* the file takes nothing, and has said why */

        return LLM_CACHE_ERROR;
    }

    if (rc == LLM_ERROR && !llm_cache_signal) {
        llm_cache_error("line %llu: %s", (unsigned long long) im->line,
                        ferror(im->cache->in) ? strerror(errno)
                                              : "no memory");
    }

    if (llm_cache_write(im) != LLM_OK) {
        return LLM_CACHE_ERROR;
    }

    return (rc == LLM_DONE || llm_cache_signal) ? LLM_CACHE_OK
                                                : LLM_CACHE_ERROR;
}


/* what nginx has told about its routes */

static llm_int_t
llm_cache_routes(llm_cache_import_t *im)
{
    size_t              i, n;
    llm_cache_route_t  *r;

    if (llm_store_route_walk(im->cache->store, llm_cache_route, im)
        != LLM_OK)
    {
        return LLM_ERROR;
    }

    n = 0;

    for (i = 0; i < im->reader.nroutes; i++) {
        r = &im->reader.routes[n];

        *r = im->reader.routes[i];
        r->digest.data = r->route.data + r->route.len;

        if (llm_store_route_get(im->cache->store, &r->route, &r->digest)
            == LLM_OK)
        {
            n++;

        } else {
            free(r->route.data);
        }
    }

    im->reader.nroutes = n;

    return LLM_OK;
}


/* with room for the digest behind it */

static llm_int_t
llm_cache_route(void *ctx, const llm_str_t *route)
{
    llm_cache_import_t *im = ctx;

    u_char             *p;
    llm_cache_route_t  *r;

    r = realloc(im->reader.routes,
                (im->reader.nroutes + 1) * sizeof(llm_cache_route_t));
    if (r == NULL) {
        return LLM_ERROR;
    }

    im->reader.routes = r;

    p = malloc(route->len + 64);
    if (p == NULL) {
        return LLM_ERROR;
    }

    r += im->reader.nroutes++;

    memcpy(p, route->data, route->len);

    r->route.data = p;
    r->route.len = route->len;
    r->digest.len = 0;

    return LLM_OK;
}


/* LLM_OK, LLM_DONE: there is none, LLM_DECLINED: it was too long; LLM_ERROR.
 * The line lives until the next call. */

static llm_int_t
llm_cache_next_line(llm_cache_import_t *im, llm_str_t *line)
{
    u_char           *p;
    llm_uint_t        dropped;
    llm_cache_out_t  *b;

    b = &im->buf;
    im->line++;
    im->seen = im->pos;

    for ( ;; ) {
        p = (b->len > im->seen) ? memchr(b->data + im->seen, '\n',
                                         b->len - im->seen)
                                : NULL;

        if (p == NULL && im->end) {
            p = (b->len > im->pos) ? b->data + b->len : NULL;
        }

        if (p) {
            dropped = im->long_line;
            im->long_line = 0;

            line->data = b->data + im->pos;
            line->len = p - line->data;

            im->pos = p - b->data + (p < b->data + b->len);

            return dropped || line->len > LLM_CACHE_LINE ? LLM_DECLINED
                                                         : LLM_OK;
        }

        if (im->end) {
            dropped = im->long_line;
            im->long_line = 0;

            return dropped ? LLM_DECLINED : LLM_DONE;
        }

        if (llm_cache_signal || llm_cache_fill(im) != LLM_OK) {
            return LLM_ERROR;
        }
    }
}


static llm_int_t
llm_cache_fill(llm_cache_import_t *im)
{
    u_char           *p;
    ssize_t           n;
    llm_cache_out_t  *b;

    b = &im->buf;

    if (b->len - im->pos > LLM_CACHE_LINE) {

        /* only its end is of interest */

        im->long_line = 1;
        im->pos = b->len;
    }

    if (im->pos) {
        memmove(b->data, b->data + im->pos, b->len - im->pos);
        b->len -= im->pos;
        im->pos = 0;
    }

    im->seen = b->len;

    p = llm_cache_reserve(b, LLM_CACHE_PIECE);
    if (p == NULL) {
        return LLM_ERROR;
    }

    do {
        n = read(fileno(im->cache->in), p, LLM_CACHE_PIECE);
    } while (n == -1 && errno == EINTR && !llm_cache_signal);

    if (n == -1) {
        return LLM_ERROR;
    }

    im->end = (n == 0);
    b->len += n;

    return LLM_OK;
}


static llm_int_t
llm_cache_take(llm_cache_import_t *im, const llm_str_t *line)
{
    llm_int_t     rc;
    llm_entry_t  *e;

    if (llm_cache_blank(line)) {
        return LLM_OK;
    }

    rc = llm_cache_line(&im->reader, line, &e);

    llm_cache_progress(&im->progress, line->len);

    switch (rc) {

    case LLM_OK:
        break;

    case LLM_DECLINED:
        llm_cache_bad_line(im, im->reader.why);
        return LLM_OK;

    case LLM_DONE:
        im->skipped++;
        return LLM_OK;

    default:
        return LLM_ERROR;
    }

    if (llm_cache_newer(im, e)) {
        im->skipped++;
        return LLM_OK;
    }

    im->entries[im->n++] = e;
    im->bytes += e->text.len + e->request.len;

    if (im->n < LLM_CACHE_BATCH && im->bytes < LLM_CACHE_BYTES) {
        return LLM_OK;
    }

    return llm_cache_write(im);
}


/* is the answer in the file of a later time? */

static llm_uint_t
llm_cache_newer(llm_cache_import_t *im, const llm_entry_t *e)
{
    llm_int_t     rc;
    llm_uint_t    newer;
    llm_entry_t   old;

    rc = llm_store_get(im->cache->store, e->key, &old);

    newer = (rc == LLM_OK && old.made > e->made);

    llm_store_release(im->cache->store);

    return newer;
}


static void
llm_cache_bad_line(llm_cache_import_t *im, const char *why)
{
    if (im->bad++ < LLM_CACHE_TOLD) {
        llm_cache_progress_end(&im->progress);
        llm_cache_error("line %llu: %s", (unsigned long long) im->line, why);
    }
}


static llm_int_t
llm_cache_write(llm_cache_import_t *im)
{
    uint64_t      before, stored;
    llm_int_t     rc;
    llm_uint_t    try;
    llm_store_t  *s;

    s = im->cache->store;
    before = im->cache->shared.stores;
    rc = LLM_OK;

    for (try = 0; try < 2 && im->n; try++) {
        rc = llm_store_write(s, im->entries, im->n);

        /* another process may just have put another file there */

        if (rc != LLM_ERROR || llm_store_open(s) != LLM_OK) {
            break;
        }
    }

    stored = im->cache->shared.stores - before;

    if (stored > im->n) {
        stored = im->n;
    }

    im->imported += stored;
    im->lost += im->n - stored;

    if (rc == LLM_OK) {
        (void) llm_store_tend(s, llm_cache_now());
    }

    im->n = 0;
    im->bytes = 0;

    llm_cache_arena_reset(&im->reader.arena);

    return rc == LLM_OK ? LLM_OK : LLM_ABORTED;
}


static llm_uint_t
llm_cache_blank(const llm_str_t *line)
{
    size_t  i;

    for (i = 0; i < line->len; i++) {
        if (line->data[i] != ' ' && line->data[i] != '\t'
            && line->data[i] != '\r')
        {
            return 0;
        }
    }

    return 1;
}
