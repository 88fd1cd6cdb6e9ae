
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * All entries one after another, copied some at a time so that no
 * transaction is open while the caller looks at them; and the few routes
 * that are kept beside the entries.  Slow.
 */


#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/llm_dialect.h"
#include "llm_store_int.h"


#define LLM_STORE_TAKE     64                  /* entries copied at once, */
#define LLM_STORE_TAKE_MEM (1024 * 1024)       /* or bytes, but one */
#define LLM_STORE_ROUTE    "route:"


typedef struct {
    u_char                 key[LLM_KEY_LEN];
    size_t                 offset;
    size_t                 len;
} llm_store_item_t;


typedef struct {
    u_char                 from[LLM_KEY_LEN];  /* the next key, or a later */
    u_char                *buf;
    size_t                 size;
    size_t                 len;
    llm_uint_t             n;
    int                    end;
    llm_store_item_t       items[LLM_STORE_TAKE];
} llm_store_walk_t;


typedef struct {
    char                   name[64];
    const llm_str_t       *route;
    llm_str_t             *provider;
    u_char                *buf;        /* the value: length, route, provider */
    size_t                 len;
} llm_store_route_t;


static int llm_store_walk_take(llm_store_t *s, void *data);
static int llm_store_walk_keep(llm_store_walk_t *w, const MDB_val *key,
    const MDB_val *value);
static llm_int_t llm_store_walk_give(llm_store_t *s, llm_store_walk_t *w,
    llm_int_t (*fn)(void *ctx, const llm_entry_t *e), void *ctx);
static void llm_store_route_name(llm_store_route_t *r,
    const llm_str_t *route);
static int llm_store_route_write(llm_store_t *s, void *data);
static int llm_store_route_read(llm_store_t *s, void *data);
static int llm_store_route_next(llm_store_t *s, void *data);
static int llm_store_route_parse(const MDB_val *value, llm_str_t *route,
    llm_str_t *provider);


llm_int_t
llm_store_walk(llm_store_t *s,
    llm_int_t (*fn)(void *ctx, const llm_entry_t *e), void *ctx)
{
    int                rc;
    llm_int_t          res;
    llm_store_walk_t  *w;

    if (s->env == NULL) {
        return LLM_AGAIN;
    }

    w = calloc(1, sizeof(llm_store_walk_t));
    if (w == NULL) {
        return LLM_ERROR;
    }

    res = LLM_OK;

    while (!w->end && res == LLM_OK) {
        w->n = 0;
        w->len = 0;

        rc = llm_store_call(s, llm_store_walk_take, w);

        if (rc) {
            res = llm_store_failed(s, rc, "reading the cache");
            break;
        }

        res = llm_store_walk_give(s, w, fn, ctx);
    }

    free(w->buf);
    free(w);

    return res;
}


static int
llm_store_walk_take(llm_store_t *s, void *data)
{
    int                rc;
    MDB_val            key, value;
    llm_uint_t         i;
    MDB_cursor        *cursor;
    MDB_cursor_op      op;
    llm_store_walk_t  *w = data;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    rc = llm_store_purges_read(s, s->stxn, &s->slow_purges);
    if (rc) {
        return rc;
    }

    rc = mdb_cursor_open(s->stxn, s->answers, &cursor);
    if (rc) {
        return rc;
    }

    key.mv_data = w->from;
    key.mv_size = LLM_KEY_LEN;
    op = MDB_SET_RANGE;

    while (w->n < LLM_STORE_TAKE && w->len < LLM_STORE_TAKE_MEM) {
        rc = mdb_cursor_get(cursor, &key, &value, op);
        if (rc) {
            break;
        }

        rc = llm_store_walk_keep(w, &key, &value);
        if (rc) {
            break;
        }

        op = MDB_NEXT;
    }

    mdb_cursor_close(cursor);
    llm_store_read_end(s);

    if (rc == MDB_NOTFOUND) {
        w->end = 1;
        rc = 0;
    }

    if (w->n) {
        memcpy(w->from, w->items[w->n - 1].key, LLM_KEY_LEN);

        for (i = LLM_KEY_LEN; i-- > 0 && ++w->from[i] == 0; ) { /* void */ }

        if (i == (llm_uint_t) -1) {
            w->end = 1;
        }
    }

    return rc;
}


static int
llm_store_walk_keep(llm_store_walk_t *w, const MDB_val *key,
    const MDB_val *value)
{
    size_t             size;
    u_char            *buf;
    llm_store_item_t  *item;

    if (w->len + value->mv_size > w->size) {
        size = w->len + value->mv_size + LLM_STORE_TAKE_MEM;
        buf = realloc(w->buf, size);

        if (buf == NULL) {
            return ENOMEM;
        }

        w->buf = buf;
        w->size = size;
    }

    item = &w->items[w->n++];

    memcpy(item->key, key->mv_data, LLM_KEY_LEN);
    item->offset = w->len;
    item->len = value->mv_size;

    memcpy(w->buf + w->len, value->mv_data, value->mv_size);
    w->len += value->mv_size;

    return 0;
}


static llm_int_t
llm_store_walk_give(llm_store_t *s, llm_store_walk_t *w,
    llm_int_t (*fn)(void *ctx, const llm_entry_t *e), void *ctx)
{
    uint64_t           seq;
    llm_run_t          runs[LLM_STORE_RUNS];
    llm_int_t          rc;
    llm_uint_t         i;
    llm_entry_t        e;
    llm_store_item_t  *item;

    for (i = 0; i < w->n; i++) {
        item = &w->items[i];

        if (llm_store_decode(item->key, w->buf + item->offset, item->len, &e,
                             runs, &seq)
            != LLM_OK)
        {
            llm_store_count(s, corrupt, 1);
            continue;
        }

        if (llm_store_purged(&s->slow_purges, &e, seq)) {
            continue;
        }

        rc = fn(ctx, &e);

        if (rc != LLM_OK) {
            return rc;
        }
    }

    return LLM_OK;
}


/* routes are longer than LMDB's keys may be: the digest is the name, the
 * value tells which it is */

static void
llm_store_route_name(llm_store_route_t *r, const llm_str_t *route)
{
    memset(r, 0, sizeof(llm_store_route_t));

    r->route = route;

    snprintf(r->name, sizeof(r->name), LLM_STORE_ROUTE "%016llx",
             (unsigned long long) llm_digest(route->data, route->len, 0));
}


llm_int_t
llm_store_route_put(llm_store_t *s, const llm_str_t *route,
    const llm_str_t *provider)
{
    int                rc;
    uint32_t           len;
    llm_str_t          known;
    u_char             buf[64];
    llm_store_route_t  r;

    known.data = buf;

    if (provider->len > sizeof(buf)) {
        return LLM_DECLINED;
    }

    rc = llm_store_route_get(s, route, &known);

    if (rc == LLM_OK && known.len == provider->len
        && memcmp(known.data, provider->data, known.len) == 0)
    {
        return LLM_OK;
    }

    if (rc != LLM_OK && rc != LLM_DECLINED) {
        return rc;
    }

    llm_store_route_name(&r, route);

    r.len = sizeof(uint32_t) + route->len + provider->len;
    r.buf = malloc(r.len);

    if (r.buf == NULL) {
        return LLM_ERROR;
    }

    len = route->len;
    memcpy(r.buf, &len, sizeof(uint32_t));

    if (route->len) {
        memcpy(r.buf + sizeof(uint32_t), route->data, route->len);
    }

    if (provider->len) {
        memcpy(r.buf + sizeof(uint32_t) + route->len, provider->data,
               provider->len);
    }

    rc = llm_store_call(s, llm_store_route_write, &r);

    free(r.buf);

    return rc ? llm_store_failed(s, rc, "writing a route to the cache")
              : LLM_OK;
}


static int
llm_store_route_write(llm_store_t *s, void *data)
{
    int                 rc;
    llm_store_route_t  *r = data;

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    rc = llm_store_meta_put(s, s->wtxn, r->name, r->buf, r->len);

    return rc ? rc : llm_store_write_end(s);
}


llm_int_t
llm_store_route_get(llm_store_t *s, const llm_str_t *route,
    llm_str_t *provider)
{
    int                rc;
    llm_store_route_t  r;

    if (s->env == NULL) {
        return LLM_AGAIN;
    }

    llm_store_route_name(&r, route);
    r.provider = provider;

    rc = llm_store_call(s, llm_store_route_read, &r);

    if (rc == MDB_NOTFOUND) {
        llm_store_read_end(s);
        return LLM_DECLINED;
    }

    return rc ? llm_store_failed(s, rc, "reading a route of the cache")
              : LLM_OK;
}


static int
llm_store_route_read(llm_store_t *s, void *data)
{
    int                 rc;
    MDB_val             key, value;
    llm_str_t           route, provider;
    llm_store_route_t  *r = data;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    key.mv_data = r->name;
    key.mv_size = strlen(r->name);

    rc = mdb_get(s->stxn, s->meta, &key, &value);
    if (rc) {
        return rc;
    }

    if (llm_store_route_parse(&value, &route, &provider) != 0
        || route.len != r->route->len
        || memcmp(route.data, r->route->data, route.len) != 0)
    {
        return MDB_NOTFOUND;
    }

    memcpy(r->provider->data, provider.data, provider.len);
    r->provider->len = provider.len;

    llm_store_read_end(s);

    return 0;
}


static int
llm_store_route_parse(const MDB_val *value, llm_str_t *route,
    llm_str_t *provider)
{
    uint32_t  len;

    if (value->mv_size < sizeof(uint32_t)) {
        return 1;
    }

    memcpy(&len, value->mv_data, sizeof(uint32_t));

    if (len > value->mv_size - sizeof(uint32_t)) {
        return 1;
    }

    route->data = (u_char *) value->mv_data + sizeof(uint32_t);
    route->len = len;

    provider->data = route->data + len;
    provider->len = value->mv_size - sizeof(uint32_t) - len;

    return provider->len > 64;
}


/* one at a time: nobody has more than some */

llm_int_t
llm_store_route_walk(llm_store_t *s,
    llm_int_t (*fn)(void *ctx, const llm_str_t *route), void *ctx)
{
    int                rc;
    llm_int_t          res;
    llm_str_t          route;
    llm_store_route_t  r;

    if (s->env == NULL) {
        return LLM_AGAIN;
    }

    memset(&r, 0, sizeof(llm_store_route_t));
    memcpy(r.name, LLM_STORE_ROUTE, sizeof(LLM_STORE_ROUTE));

    for ( ;; ) {
        rc = llm_store_call(s, llm_store_route_next, &r);

        if (rc == MDB_NOTFOUND) {
            llm_store_read_end(s);
            return LLM_OK;
        }

        if (rc) {
            return llm_store_failed(s, rc, "reading the cache's routes");
        }

        route.data = r.buf;
        route.len = r.len;

        res = fn(ctx, &route);

        free(r.buf);
        r.buf = NULL;

        if (res != LLM_OK) {
            return res;
        }
    }
}


/* the one behind r->name */

static int
llm_store_route_next(llm_store_t *s, void *data)
{
    int                 rc;
    MDB_val             key, value;
    llm_str_t           route, provider;
    MDB_cursor         *cursor;
    llm_store_route_t  *r = data;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    rc = mdb_cursor_open(s->stxn, s->meta, &cursor);
    if (rc) {
        return rc;
    }

    key.mv_data = r->name;
    key.mv_size = strlen(r->name);

    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);

    if (rc == 0 && key.mv_size == strlen(r->name)
        && memcmp(key.mv_data, r->name, key.mv_size) == 0)
    {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }

    mdb_cursor_close(cursor);

    if (rc) {
        return rc;
    }

    if (key.mv_size <= sizeof(LLM_STORE_ROUTE) - 1
        || key.mv_size >= sizeof(r->name)
        || memcmp(key.mv_data, LLM_STORE_ROUTE, sizeof(LLM_STORE_ROUTE) - 1)
           != 0
        || llm_store_route_parse(&value, &route, &provider) != 0)
    {
        return MDB_NOTFOUND;
    }

    memcpy(r->name, key.mv_data, key.mv_size);
    r->name[key.mv_size] = '\0';

    r->buf = malloc(route.len + 1);
    if (r->buf == NULL) {
        return ENOMEM;
    }

    memcpy(r->buf, route.data, route.len);
    r->len = route.len;

    llm_store_read_end(s);

    return 0;
}
