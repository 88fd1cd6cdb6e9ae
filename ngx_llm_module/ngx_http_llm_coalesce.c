
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Identical calls in the air become one.  A request that has a key, and may
 * share its answer, looks for a flight of that key: in this worker's table,
 * then in the one that all workers share.  It joins it as one more reader, or
 * is entered as the one who leads.
 *
 * A flight that can be joined is open: all of its log is kept, and it stands
 * in the tables.  It leaves them when it ends, when it is larger than what is
 * held for others, or when nobody fills it any more; so whoever finds it there
 * can be shown all of it.  That others have joined already changes nothing by
 * that.
 *
 * With the cache on the order matters: an answer that is kept is known to be
 * on its way (ngx_http_llm_cache_news.c) before its flight leaves the table.
 * Who looks in the file first, then enters the table, and then finds nothing
 * new to be known, is the only one who asks.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_TABLE     1024            /* a power of two */
#define NGX_HTTP_LLM_RESTARTS  10


static ngx_int_t ngx_http_llm_coalesce_follow(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_flight_t *f);
static ngx_int_t ngx_http_llm_coalesce_lead(ngx_http_llm_ctx_t *ctx,
    uint64_t id);
static ngx_uint_t ngx_http_llm_coalesce_missed(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_coalesce_may(ngx_http_llm_ctx_t *ctx);
static ngx_http_llm_flight_t *ngx_http_llm_coalesce_find(
    ngx_http_llm_ctx_t *ctx, ngx_uint_t form);
static ngx_queue_t *ngx_http_llm_coalesce_chain(u_char *key);
static void ngx_http_llm_coalesce_cut(ngx_http_llm_flight_t *f,
    ngx_uint_t fold);


/* a worker's: chains of flights, by key and by id */

static ngx_queue_t  *ngx_http_llm_table;
static ngx_queue_t  *ngx_http_llm_names;
static uint64_t      ngx_http_llm_flights;


ngx_int_t
ngx_http_llm_coalesce_init_worker(ngx_cycle_t *cycle)
{
    ngx_uint_t                 i;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL || !lmcf->coalesce) {
        return NGX_OK;
    }

    ngx_http_llm_table = ngx_palloc(cycle->pool, 2 * NGX_HTTP_LLM_TABLE
                                                 * sizeof(ngx_queue_t));
    if (ngx_http_llm_table == NULL) {
        return NGX_ERROR;
    }

    ngx_http_llm_names = ngx_http_llm_table + NGX_HTTP_LLM_TABLE;

    for (i = 0; i < 2 * NGX_HTTP_LLM_TABLE; i++) {
        ngx_queue_init(&ngx_http_llm_table[i]);
    }

    return NGX_OK;
}


/*
 * A request that has to be answered by a provider.  NGX_OK: it follows
 * another's flight; NGX_DECLINED: it makes its own call, and if ctx->flight is
 * set others may join that; NGX_AGAIN: the cache may know by now; NGX_ERROR.
 */

ngx_int_t
ngx_http_llm_coalesce_join(ngx_http_llm_ctx_t *ctx)
{
    uint64_t                id;
    llm_int_t               rc;
    ngx_uint_t              own, accept;
    llm_place_t             place;
    ngx_http_llm_flight_t  *f;

    if (!ngx_http_llm_coalesce_may(ctx)) {
        return NGX_DECLINED;
    }

    /* a plain answer can be made of a stream, but it would be long in coming
     * for who wants a stream */

    own = ctx->rq.stream ? LLM_FORM_STREAM : LLM_FORM_PLAIN;
    accept = LLM_FORM_STREAM | own;

    f = ngx_http_llm_coalesce_find(ctx, own);

    if (f == NULL) {
        f = ngx_http_llm_coalesce_find(ctx, accept);
    }

    if (f) {
        return ngx_http_llm_coalesce_follow(ctx, f);
    }

    if (ngx_http_llm_worker == NULL) {
        return ngx_http_llm_coalesce_lead(ctx, 0);
    }

    id = ++ngx_http_llm_flights;

    rc = llm_table_enter(ngx_http_llm_worker, ctx->cache->key, accept, own, id,
                         &place);

    if (rc == LLM_OK) {
        return ngx_http_llm_coalesce_lead(ctx, id);
    }

    if (rc == LLM_AGAIN) {
        f = ngx_http_llm_mirror_create(&place, ctx);

        if (f) {
            return ngx_http_llm_coalesce_follow(ctx, f);
        }
    }

    ngx_http_llm_coalesce_full(ctx);

    /* one of this worker is enough, all the same */

    return ngx_http_llm_coalesce_lead(ctx, 0);
}


static ngx_int_t
ngx_http_llm_coalesce_follow(ngx_http_llm_ctx_t *ctx, ngx_http_llm_flight_t *f)
{
    ngx_http_llm_main_conf_t  *lmcf;

    ctx->flight = f;
    ctx->follows = 1;
    ctx->cache->status = NGX_HTTP_LLM_CACHE_COALESCED;
    ctx->cache->store = 0;

    f->refs++;

    ctx->reader.fold = (f->form == LLM_FORM_STREAM && !ctx->rq.stream);

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    (void) ngx_atomic_fetch_add(&lmcf->shared->joined, 1);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_coalesce_lead(ngx_http_llm_ctx_t *ctx, uint64_t id)
{
    ngx_http_llm_flight_t    *f;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    f = ngx_http_llm_flight_create();

    if (f == NULL) {

        if (id) {
            llm_table_leave(ngx_http_llm_worker, ctx->cache->key,
                            ctx->rq.stream ? LLM_FORM_STREAM : LLM_FORM_PLAIN,
                            id);
        }

        return NGX_ERROR;
    }

    f->form = ctx->rq.stream ? LLM_FORM_STREAM : LLM_FORM_PLAIN;
    f->max = llcf->max_response;
    f->open = 1;

    if (id) {
        f->id = id;
        ngx_queue_insert_head(&ngx_http_llm_names[id
                                                  & (NGX_HTTP_LLM_TABLE - 1)],
                              &f->named);
    }

    ngx_memcpy(f->key, ctx->cache->key, LLM_KEY_LEN);

    ngx_http_llm_coalesce_list(f);
    ngx_http_llm_lead_begin(ctx, f);

    if (ngx_http_llm_coalesce_missed(ctx)) {

        /* nobody can have joined in this worker, and who has in others will
         * be refused and look again, too */

        ngx_http_llm_coalesce_leave(f);

        ctx->flight = NULL;
        f->lead = NULL;
        ngx_http_llm_flight_unref(f);

        return NGX_AGAIN;
    }

    return NGX_DECLINED;
}


/* has there been an answer since it was looked for? */

static ngx_uint_t
ngx_http_llm_coalesce_missed(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;

    if (!cache->conf->enable || ctx->restarts >= NGX_HTTP_LLM_RESTARTS) {
        return 0;
    }

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    if (ngx_http_llm_news_word(lmcf->shared, cache->key) == cache->news) {
        return 0;
    }

    ctx->restarts++;
    cache->waited = 0;

    return 1;
}


/* is the answer one that others may be told? */

static ngx_uint_t
ngx_http_llm_coalesce_may(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_cached_t    *cache;
    ngx_http_llm_loc_conf_t  *llcf;

    cache = ctx->cache;

    if (cache == NULL || !cache->keyed || cache->reason
        || cache->no_cache || cache->no_store || cache->only_if_cached
        || ctx->alone)
    {
        return 0;
    }

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    if (!llcf->coalesce) {
        return 0;
    }

    if (ctx->restarts > NGX_HTTP_LLM_RESTARTS) {
        ctx->alone = 1;
        return 0;
    }

    return 1;
}


static ngx_http_llm_flight_t *
ngx_http_llm_coalesce_find(ngx_http_llm_ctx_t *ctx, ngx_uint_t form)
{
    ngx_queue_t            *q, *chain;
    ngx_http_llm_flight_t  *f;

    chain = ngx_http_llm_coalesce_chain(ctx->cache->key);

    for (q = ngx_queue_head(chain);
         q != ngx_queue_sentinel(chain);
         q = ngx_queue_next(q))
    {
        f = ngx_queue_data(q, ngx_http_llm_flight_t, queue);

        if ((f->form & form)
            && ngx_memcmp(f->key, ctx->cache->key, LLM_KEY_LEN) == 0)
        {
            return f;
        }
    }

    return NULL;
}


/* the flight of this name, that another worker wants; NULL: there is none,
 * or it can't be joined any more */

ngx_http_llm_flight_t *
ngx_http_llm_coalesce_get(uint64_t id)
{
    ngx_queue_t            *q, *chain;
    ngx_http_llm_flight_t  *f;

    chain = &ngx_http_llm_names[id & (NGX_HTTP_LLM_TABLE - 1)];

    for (q = ngx_queue_head(chain);
         q != ngx_queue_sentinel(chain);
         q = ngx_queue_next(q))
    {
        f = ngx_queue_data(q, ngx_http_llm_flight_t, named);

        if (f->id == id) {
            return f;
        }
    }

    return NULL;
}


static ngx_queue_t *
ngx_http_llm_coalesce_chain(u_char *key)
{
    uint32_t  n;

    ngx_memcpy(&n, key + LLM_KEY_SCOPE, sizeof(uint32_t));

    return &ngx_http_llm_table[n & (NGX_HTTP_LLM_TABLE - 1)];
}


/* who comes next in this worker finds it */

void
ngx_http_llm_coalesce_list(ngx_http_llm_flight_t *f)
{
    ngx_queue_insert_head(ngx_http_llm_coalesce_chain(f->key), &f->queue);
    f->listed = 1;
}


/* nobody finds it any more */

void
ngx_http_llm_coalesce_leave(ngx_http_llm_flight_t *f)
{
    if (f->listed) {
        ngx_queue_remove(&f->queue);
        f->listed = 0;
    }

    if (f->id) {
        ngx_queue_remove(&f->named);
        llm_table_leave(ngx_http_llm_worker, f->key, f->form, f->id);
        f->id = 0;
    }

    f->open = 0;
}


/* no room to join in: told once a minute, whoever finds it out */

void
ngx_http_llm_coalesce_full(ngx_http_llm_ctx_t *ctx)
{
    time_t                     now;
    ngx_atomic_uint_t          told;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    (void) ngx_atomic_fetch_add(&lmcf->shared->full, 1);

    now = ngx_time();
    told = lmcf->shared->full_told;

    if ((told == 0 || now - (time_t) told >= 60)
        && ngx_atomic_cmp_set(&lmcf->shared->full_told, told, now))
    {
        ngx_log_error(NGX_LOG_WARN, ctx->request->connection->log, 0,
                      "llm: zone \"%V\" has no room, calls of several workers "
                      "are not joined", &lmcf->zone->shm.name);
    }
}


/*
 * More of the log is held than is meant to be.  From here on only what is
 * needed is kept; and if several read, who is twice that behind, without the
 * len bytes that nobody can have taken yet, is given up.  One that reads alone
 * is waited for, instead.
 */

void
ngx_http_llm_coalesce_bound(ngx_http_llm_flight_t *f, size_t len)
{
    off_t  held;

    if (f->open) {

        ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                       "llm flight is not open any more");

        ngx_http_llm_coalesce_leave(f);

        /* who needs all of it would never be done */

        ngx_http_llm_coalesce_cut(f, 1);
        ngx_http_llm_flight_trim(f);
    }

    while (f->nreaders > 1 && f->first && f->first->holds
           && f->appended - (off_t) len - f->trimmed > 2 * (off_t) f->max)
    {
        held = f->trimmed;

        ngx_http_llm_coalesce_cut(f, 0);
        ngx_http_llm_flight_trim(f);

        if (f->trimmed == held) {
            return;
        }
    }
}


/* gives up the readers that are furthest behind, or those that fold */

static void
ngx_http_llm_coalesce_cut(ngx_http_llm_flight_t *f, ngx_uint_t fold)
{
    ngx_queue_t               *q, *next;
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_reader_t     *rd;
    ngx_http_llm_main_conf_t  *lmcf;

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = next)
    {
        next = ngx_queue_next(q);

        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);

        if (rd->mute || rd->request == NULL
            || (fold ? !rd->fold : rd->low != f->first))
        {
            /* other workers are waited for, see ngx_http_llm_outlet.c */

            continue;
        }

        if (!rd->fold && rd->busy == NULL && !rd->request->connection->buffered)
        {
            /* it is not its client's fault: it had no turn yet */

            continue;
        }

        lmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                                   ngx_http_llm_module);

        if (!rd->fold) {
            (void) ngx_atomic_fetch_add(&lmcf->shared->slow, 1);
        }

        ngx_http_llm_flight_pin(rd);
        ngx_http_llm_flight_hold(rd, NULL);

        rd->block = NULL;
        rd->mute = 1;
        rd->failed = 1;

        if (!rd->fold) {
            ctx = ngx_http_get_module_ctx(rd->request, ngx_http_llm_module);
            ctx->error = "reader_too_slow";

            ngx_http_llm_failure_error(ctx->error, &rd->error);
        }

        rd->wake(rd);
    }
}


/*
 * The flight has ended, and nobody was shown that yet: what its readers will
 * be told of it beside the log.
 */

void
ngx_http_llm_coalesce_settle(ngx_http_llm_flight_t *f)
{
    ngx_http_llm_ctx_t  *ctx;

    f->settled = 1;

    ngx_http_llm_coalesce_leave(f);

    ctx = f->lead;

    if (ctx == NULL) {
        return;
    }

    f->reason = ctx->error;
    f->wait = ctx->wait;
    f->spent = ctx->spent;

    if (ngx_http_llm_cost(ctx, &f->answer.usage, &f->cost) == NGX_OK) {
        f->cost += ctx->spent_cost;
        f->priced = 1;
    }
}


/* what a request that follows knows of the flight, for the log and errors */

void
ngx_http_llm_coalesce_facts(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_flight_t  *f;

    f = ctx->flight;

    if (f->form == 0) {

        /* it is not the one that it followed */

        return;
    }

    ctx->cache->provider = f->provider;
    ctx->cache->model = f->model;

    if (ctx->name.len == 0 && f->name_len) {

        ctx->name.data = ngx_pnalloc(ctx->request->pool, f->name_len);

        if (ctx->name.data) {
            ctx->name.len = f->name_len;
            ngx_memcpy(ctx->name.data, f->name, f->name_len);
        }
    }

    if (!f->ended) {
        return;
    }

    ctx->wait = f->wait;
    ctx->spent = f->spent;
    ctx->cache->saved = f->cost;
    ctx->cache->priced = f->priced;

    if (ctx->error == NULL) {
        ctx->error = f->reason;
    }

    if (ctx->error == NULL && f->status >= NGX_HTTP_BAD_REQUEST) {
        ctx->error_status = f->status;
    }
}


/* what it has of the request that leads it, which may go before it does */

ngx_int_t
ngx_http_llm_coalesce_strings(ngx_http_llm_flight_t *f, ngx_str_t *provider,
    ngx_str_t *model, ngx_str_t *content_type)
{
    u_char  *p;

    p = ngx_alloc(provider->len + model->len + content_type->len + 1,
                  ngx_cycle->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (f->strings) {
        ngx_free(f->strings);
    }

    f->strings = p;

    f->provider.data = p;
    f->provider.len = provider->len;
    p = ngx_cpymem(p, provider->data, provider->len);

    f->model.data = p;
    f->model.len = model->len;
    p = ngx_cpymem(p, model->data, model->len);

    f->content_type.data = p;
    f->content_type.len = content_type->len;
    ngx_memcpy(p, content_type->data, content_type->len);

    return NGX_OK;
}
