
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Is a request answered from the cache?  When it is looked up, when not, and
 * what is told of that.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_CACHE_WAIT  200           /* polls, one a ms */


static ngx_int_t ngx_http_llm_cache_quick(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_cache_bypassed(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_look(ngx_http_llm_ctx_t *ctx,
    llm_error_t *err);
static const char *ngx_http_llm_cache_unasked(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_find(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_absent(ngx_http_llm_ctx_t *ctx,
    llm_error_t *err);
static ngx_int_t ngx_http_llm_cache_await(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_cache_moving(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_cache_wait_handler(ngx_event_t *ev);


static ngx_str_t  ngx_http_llm_cache_names[] = {
    ngx_string("OFF"),
    ngx_string("BYPASS"),
    ngx_string("MISS"),
    ngx_string("EXPIRED"),
    ngx_string("STALE"),
    ngx_string("HIT"),
    ngx_string("COALESCED")
};


uint64_t
ngx_http_llm_epoch(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000 + tp->msec;
}


/*
 * A request whose body is there and was not looked into.  NGX_OK: it is
 * answered; NGX_DECLINED: it has to be read; NGX_ERROR.
 */

ngx_int_t
ngx_http_llm_cache_begin(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t                 rc;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    if (llcf->cache == NULL) {
        return NGX_DECLINED;
    }

    ctx->cache = ngx_pcalloc(ctx->request->pool,
                             sizeof(ngx_http_llm_cached_t));
    if (ctx->cache == NULL) {
        return NGX_ERROR;
    }

    ctx->cache->conf = llcf->cache;
    ctx->cache->status = llcf->cache->enable ? NGX_HTTP_LLM_CACHE_BYPASS
                                             : NGX_HTTP_LLM_CACHE_OFF;
    ctx->cache->max_age = -1;
    ctx->cache->begun = ngx_http_llm_epoch();

    rc = ngx_http_llm_cache_gather(ctx);

    if (rc == NGX_DECLINED) {
        ctx->cache->reason = "headers";
        return NGX_DECLINED;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_cache_quick(ctx);
}


/* seen before, byte for byte */

static ngx_int_t
ngx_http_llm_cache_quick(ngx_http_llm_ctx_t *ctx)
{
    if (!ctx->cache->conf->enable
        || ctx->rq.body.len > NGX_HTTP_LLM_KEY_MAX
        || ngx_http_llm_cache_seen(ctx) != NGX_OK
        || ctx->cache->no_cache
        || ngx_http_llm_cache_moving(ctx)
        || ngx_http_llm_cache_bypassed(ctx))
    {
        return NGX_DECLINED;
    }

    if (ngx_http_llm_cache_find(ctx) != NGX_OK) {
        return NGX_DECLINED;
    }

    ctx->cache->asked = 1;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_cache_bypassed(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    return llcf->cache_bypass
           && ngx_http_test_predicates(ctx->request, llcf->cache_bypass)
              != NGX_OK;
}


/*
 * A request that was read and has its targets.  NGX_OK: it is answered;
 * NGX_AGAIN: it is known in a moment, and ngx_http_llm_go() will be called;
 * NGX_DECLINED: a provider has to be asked; NGX_BUSY: that is not allowed,
 * and *err says so; NGX_ERROR.
 */

ngx_int_t
ngx_http_llm_cache_lookup(ngx_http_llm_ctx_t *ctx, llm_error_t *err)
{
    ngx_int_t               rc;
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    if (cache == NULL) {
        return NGX_DECLINED;
    }

    cache->asked = 1;
    cache->status = cache->conf->enable ? NGX_HTTP_LLM_CACHE_BYPASS
                                        : NGX_HTTP_LLM_CACHE_OFF;

    if (cache->waited) {
        return ngx_http_llm_cache_look(ctx, err);
    }

    if (cache->keyed && cache->reason == NULL) {

        /* it has begun anew */

        goto keyed;
    }

    if (cache->reason == NULL) {
        cache->reason = ngx_http_llm_cache_unasked(ctx);
    }

    if (cache->reason) {
        return ngx_http_llm_cache_absent(ctx, err);
    }

    rc = ngx_http_llm_cache_scope(ctx);

    if (rc == NGX_DECLINED) {
        cache->reason = "no-scope";
        return ngx_http_llm_cache_absent(ctx, err);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_llm_cache_key(ctx);
    }

    if (rc == NGX_DECLINED) {
        cache->reason = "too-large";
        return ngx_http_llm_cache_absent(ctx, err);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_cache_remember(ctx);

keyed:

    cache->store = cache->conf->enable && !cache->no_store;

    /* what is on its way to the file is written before what follows here */

    if (cache->conf->enable && ngx_http_llm_cache_await(ctx) == NGX_OK) {
        return NGX_AGAIN;
    }

    return ngx_http_llm_cache_look(ctx, err);
}


/* the same of a request whose key is known, and for which nothing is on its
 * way any more */

static ngx_int_t
ngx_http_llm_cache_look(ngx_http_llm_ctx_t *ctx, llm_error_t *err)
{
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;

    if (cache->no_cache) {
        cache->reason = "no-cache";

    } else if (ngx_http_llm_cache_bypassed(ctx)) {
        cache->reason = "bypass";

    } else if (cache->conf->enable) {

        lmcf = ngx_http_get_module_main_conf(ctx->request,
                                             ngx_http_llm_module);

        cache->news = ngx_http_llm_news_word(lmcf->shared, cache->key);

        if (ngx_http_llm_cache_find(ctx) == NGX_OK) {
            return NGX_OK;
        }
    }

    return ngx_http_llm_cache_absent(ctx, err);
}


/* why it has nothing to do with the cache; NULL: it has */

static const char *
ngx_http_llm_cache_unasked(ngx_http_llm_ctx_t *ctx)
{
    llm_uint_t  kind;

    kind = ctx->dialect->caching->kind(&ctx->rq);

    if (kind & LLM_CACHE_STATEFUL) {
        return "stateful";
    }

    switch (ctx->cache->conf->when) {

    case NGX_HTTP_LLM_WHEN_UNASKED:
        return (kind & LLM_CACHE_VARIETY) ? "sampled" : NULL;

    case NGX_HTTP_LLM_WHEN_DETERMINISTIC:
        return (kind & LLM_CACHE_FIXED) ? NULL : "sampled";

    default:
        return NULL;
    }
}


/* NGX_OK: answered; NGX_DECLINED: cache->status says what was found */

static ngx_int_t
ngx_http_llm_cache_find(ngx_http_llm_ctx_t *ctx)
{
    uint64_t                limit;
    ngx_int_t               rc;
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    limit = cache->conf->ttl;

    if (cache->max_age != -1 && (uint64_t) cache->max_age < limit) {
        limit = cache->max_age;
    }

    cache->status = NGX_HTTP_LLM_CACHE_HIT;

    rc = ngx_http_llm_cache_get(ctx, limit);

    if (rc != NGX_OK) {
        cache->status = (rc == NGX_DONE) ? NGX_HTTP_LLM_CACHE_EXPIRED
                                         : NGX_HTTP_LLM_CACHE_MISS;
    }

    return rc;
}


/* a provider will be asked, unless the client wants it otherwise */

static ngx_int_t
ngx_http_llm_cache_absent(ngx_http_llm_ctx_t *ctx, llm_error_t *err)
{
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    if (cache->no_store && cache->reason == NULL) {
        cache->reason = "no-store";
    }

    if (!cache->only_if_cached || !cache->conf->enable) {
        return NGX_DECLINED;
    }

    cache->store = 0;

    /* SDKs would ask again, and again, what can't have changed */

    ctx->spent = 1;

    ctx->error = "not_cached";
    err->status = NGX_HTTP_GATEWAY_TIME_OUT;
    err->code = "not_cached";
    llm_str_set(&err->message, "the answer is not in the cache, and the "
                               "request allows for no other");
    return NGX_BUSY;
}


/*
 * The same question was answered a moment ago, and the answer is still on its
 * way to the file: who asks twice in a row is not to pay twice, nor to be told
 * what was there before.
 */

static ngx_int_t
ngx_http_llm_cache_await(ngx_http_llm_ctx_t *ctx)
{
    ngx_event_t       *ev;
    ngx_connection_t  *c;

    if (!ngx_http_llm_cache_moving(ctx)) {
        return NGX_DECLINED;
    }

    c = ctx->request->connection;
    ev = &ctx->cache->wait;

    ev->handler = ngx_http_llm_cache_wait_handler;
    ev->data = c;
    ev->log = c->log;

    ctx->cache->waited = 1;

    /* it may still be that of the phases */

    ctx->request->write_event_handler = ngx_http_request_empty_handler;

    ngx_add_timer(ev, 1);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_cache_moving(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                 moving;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    (void) ngx_http_llm_news_get(lmcf->shared, ctx->cache->key,
                                 ngx_http_llm_epoch(), &moving);
    return moving;
}


static void
ngx_http_llm_cache_wait_handler(ngx_event_t *ev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_llm_ctx_t  *ctx;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r->main, ngx_http_llm_module);

    if (ctx == NULL || ctx->cache == NULL) {
        return;
    }

    ngx_http_set_log_request(c->log, r);

    if (ctx->cache->waited++ < NGX_HTTP_LLM_CACHE_WAIT
        && ngx_http_llm_cache_moving(ctx))
    {
        ngx_add_timer(ev, 1);
        return;
    }

    ngx_http_llm_go(ctx);

    ngx_http_run_posted_requests(c);
}


ngx_uint_t
ngx_http_llm_cache_status(ngx_http_llm_ctx_t *ctx)
{
    return ctx->cache ? ctx->cache->status : NGX_HTTP_LLM_CACHE_OFF;
}


ngx_str_t *
ngx_http_llm_cache_name(ngx_uint_t status)
{
    return &ngx_http_llm_cache_names[status];
}


/* X-LLM-Cache and what goes with it */

ngx_int_t
ngx_http_llm_cache_headers(ngx_http_llm_ctx_t *ctx)
{
    u_char                 *p;
    ngx_str_t               s;
    ngx_uint_t              status;
    ngx_http_request_t     *r;
    ngx_http_llm_cached_t  *cache;

    r = ctx->request;
    cache = ctx->cache;
    status = ngx_http_llm_cache_status(ctx);

    if (cache && !cache->asked) {

        /* refused before */

        return NGX_OK;
    }

    if (cache && cache->conf->scope == NGX_HTTP_LLM_SCOPE_GLOBAL
        && !cache->conf->reveal)
    {
        /* whether somebody has asked the same is nobody's business */

        return NGX_OK;
    }

    if (ngx_http_llm_add_header_str(r, "X-LLM-Cache",
                                    &ngx_http_llm_cache_names[status])
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (cache == NULL) {
        return NGX_OK;
    }

    if (cache->reason
        && ngx_http_llm_add_header(r, "X-LLM-Cache-Reason", cache->reason)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (status == NGX_HTTP_LLM_CACHE_HIT || status == NGX_HTTP_LLM_CACHE_STALE)
    {
        p = ngx_pnalloc(r->pool, NGX_TIME_T_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        s.data = p;
        s.len = ngx_sprintf(p, "%T", cache->age) - p;

        if (ngx_http_llm_add_header_str(r, "Age", &s) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (!cache->has_id) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, 2 * LLM_ID_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s.data = p;
    s.len = ngx_hex_dump(p, cache->id, LLM_ID_LEN) - p;

    return ngx_http_llm_add_header_str(r, "X-LLM-Cache-Key", &s);
}


void
ngx_http_llm_cache_count(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;

    if (cache->counted || !cache->asked) {
        return;
    }

    cache->counted = 1;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    (void) ngx_atomic_fetch_add(&lmcf->shared->results[cache->status], 1);
}


/* the request ends */

void
ngx_http_llm_cache_cleanup(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->cache == NULL) {
        return;
    }

    if (ctx->cache->wait.timer_set) {
        ngx_del_timer(&ctx->cache->wait);
    }

    ngx_http_llm_cache_count(ctx);
}
