
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * An entry that is found becomes a flight that has ended: whatever follows is
 * done by its reader, as for any other.  The bytes are copied out of the file
 * at once, so that a slow client holds nothing of it.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_cache_form(ngx_http_llm_ctx_t *ctx,
    llm_entry_t *e, llm_str_t *text);
static ngx_int_t ngx_http_llm_cache_serve(ngx_http_llm_ctx_t *ctx,
    llm_entry_t *e, llm_str_t *text);
static ngx_int_t ngx_http_llm_cache_copy(ngx_http_llm_ctx_t *ctx,
    llm_entry_t *e, llm_str_t *text);
static ngx_int_t ngx_http_llm_cache_facts(ngx_http_llm_ctx_t *ctx,
    llm_entry_t *e);
static ngx_int_t ngx_http_llm_cache_str(ngx_pool_t *pool, ngx_str_t *dst,
    llm_str_t *src);


/*
 * Serves the entry, in whichever form there is one, if it is not older than
 * limit seconds, nor than it may be.  NGX_DONE: there is one that is too old;
 * NGX_DECLINED: there is none.
 */

ngx_int_t
ngx_http_llm_cache_get(ngx_http_llm_ctx_t *ctx, uint64_t limit)
{
    uint64_t                   now, age, newest;
    llm_int_t                  rc;
    llm_str_t                  text;
    ngx_int_t                  found;
    ngx_uint_t                 i, form, moving;
    llm_store_t               *store;
    llm_entry_t                e;
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;
    store = ngx_http_llm_cache_store();

    if (store == NULL) {
        return NGX_DECLINED;
    }

    now = ngx_http_llm_epoch();

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    newest = ngx_http_llm_news_get(lmcf->shared, cache->key, now, &moving);
    rc = LLM_DECLINED;
    found = NGX_DECLINED;
    form = ctx->rq.stream;

    for (i = 0; i < 2 && found != NGX_OK; i++, form = !form) {

        cache->key[LLM_KEY_LEN - 1] &= 0xfe;
        cache->key[LLM_KEY_LEN - 1] |= form;

        rc = llm_store_get(store, cache->key, &e);

        if (rc == LLM_OK) {

            age = now > e.made ? (now - e.made) / 1000 : 0;

            if (e.made < newest
                && cache->status != NGX_HTTP_LLM_CACHE_STALE)
            {
                /* somebody was told something newer, which is not there */

            } else if (age >= limit
                       || (cache->status == NGX_HTTP_LLM_CACHE_HIT
                           ? age >= e.ttl
                           : age >= (uint64_t) e.ttl + e.stale))
            {
                found = NGX_DONE;

            } else if (ngx_http_llm_cache_form(ctx, &e, &text) == NGX_OK) {

                cache->age = age;
                found = ngx_http_llm_cache_serve(ctx, &e, &text);
            }
        }

        if (found == NGX_OK) {
            llm_store_mark(store, cache->key);
        }

        if (found == NGX_ERROR || rc == LLM_ERROR) {
            break;
        }
    }

    llm_store_release(store);

    if (rc == LLM_ERROR) {
        ngx_http_llm_cache_broken();
    }

    if (found == NGX_ERROR) {
        found = NGX_DECLINED;
    }

    cache->key[LLM_KEY_LEN - 1] &= 0xfe;

    return found;
}


/* *text: the answer as it is wanted, in the entry or of the request's pool.
 * NGX_DECLINED: that can't be said of this entry */

static ngx_int_t
ngx_http_llm_cache_form(ngx_http_llm_ctx_t *ctx, llm_entry_t *e,
    llm_str_t *text)
{
    ngx_uint_t            stream;
    const llm_caching_t  *caching;

    stream = (e->flags & LLM_ENTRY_STREAM) ? 1 : 0;

    if (stream && ctx->rq.usage_asked && !(e->flags & LLM_ENTRY_USAGE)) {
        return NGX_DECLINED;
    }

    if (stream == ctx->rq.stream) {
        *text = e->text;
        return NGX_OK;
    }

    caching = ctx->dialect->caching;

    if (stream) {

        /* a plain answer has its usage, always */

        if ((e->usage.known & (LLM_USAGE_PROMPT|LLM_USAGE_COMPLETION))
            != (LLM_USAGE_PROMPT|LLM_USAGE_COMPLETION))
        {
            return NGX_DECLINED;
        }

        return caching->fold(ctx->endpoint, &e->text, &ctx->mem, text)
               == LLM_OK ? NGX_OK : NGX_DECLINED;
    }

    return caching->unfold(ctx->endpoint, &e->text, ctx->rq.usage_asked,
                           &ctx->mem, text)
           == LLM_OK ? NGX_OK : NGX_DECLINED;
}


/* the entry becomes a flight */

static ngx_int_t
ngx_http_llm_cache_serve(ngx_http_llm_ctx_t *ctx, llm_entry_t *e,
    llm_str_t *text)
{
    size_t                  len;
    ngx_http_llm_flight_t  *f;

    f = ctx->flight;

    if (f == NULL) {
        ctx->flight = ngx_http_llm_flight_create();
        if (ctx->flight == NULL) {
            return NGX_ERROR;
        }

    } else if (f->form && (ctx->follows || f->nreaders > 1)) {

        /* that is the others' affair */

        if (ngx_http_llm_lead_own(ctx) == NULL) {
            return NGX_ERROR;
        }

    } else {

        if (f->form) {
            ngx_http_llm_coalesce_leave(f);
            f->form = 0;
            f->lead = NULL;
            f->failure = 0;
        }

        ngx_http_llm_flight_reset(f);
    }

    f = ctx->flight;

    if (ngx_http_llm_cache_facts(ctx, e) != NGX_OK
        || ngx_http_llm_cache_copy(ctx, e, text) != NGX_OK)
    {
        ngx_http_llm_flight_reset(f);
        return NGX_ERROR;
    }

    f->head = 1;
    f->stream = ctx->rq.stream;
    f->status = NGX_HTTP_OK;
    f->released = 1;
    f->ended = 1;
    f->failed = 0;
    f->told = 0;

    f->answer.usage = e->usage;

    len = ngx_min(e->finish_reason.len, sizeof(f->answer.finish_reason));

    ngx_memcpy(f->answer.finish_reason, e->finish_reason.data, len);
    f->answer.finish_reason_len = len;

    ngx_http_llm_cache_count(ctx);

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_cache_copy(ngx_http_llm_ctx_t *ctx, llm_entry_t *e,
    llm_str_t *text)
{
    size_t                  len;
    u_char                 *p, *from;
    uint32_t                i;
    ngx_uint_t              stored;
    ngx_http_llm_flight_t  *f;

    f = ctx->flight;

    /* a form that was made has no runs */

    stored = (text->data == e->text.data && ctx->rq.stream);
    len = text->len;

    for (i = 0; stored && i < e->nruns; i++) {
        if ((e->runs[i].flags & LLM_RUN_HIDDEN) && !ctx->rq.usage_asked) {
            len -= e->runs[i].len;
        }
    }

    if (len == 0) {
        return NGX_ERROR;
    }

    p = ngx_http_llm_flight_reserve(f, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (len == text->len) {
        ngx_memcpy(p, text->data, len);

    } else {
        from = text->data;

        for (i = 0; i < e->nruns; i++) {

            if (!(e->runs[i].flags & LLM_RUN_HIDDEN)) {
                ngx_memcpy(p, from, e->runs[i].len);
                p += e->runs[i].len;
            }

            from += e->runs[i].len;
        }

        p -= len;
    }

    if (ctx->cache->conf->fresh_ids) {
        llm_fresh_ids(p, len, (uint64_t) ngx_random() << 32 ^ ngx_random());
    }

    ngx_http_llm_flight_commit(f, len, 0,
                               ctx->rq.stream ? 0 : NGX_HTTP_LLM_REC_PLAIN);

    return NGX_OK;
}


/* what is told of it, beside the answer */

static ngx_int_t
ngx_http_llm_cache_facts(ngx_http_llm_ctx_t *ctx, llm_entry_t *e)
{
    ngx_pool_t             *pool;
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;
    pool = ctx->request->pool;

    ngx_memcpy(cache->id, e->id, LLM_ID_LEN);
    cache->has_id = 1;

    cache->saved = e->cost;
    cache->priced = (e->flags & LLM_ENTRY_COST) ? 1 : 0;

    if (ngx_http_llm_cache_str(pool, &cache->provider, &e->provider) != NGX_OK
        || ngx_http_llm_cache_str(pool, &cache->model, &e->model) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ctx->rq.stream != ((e->flags & LLM_ENTRY_STREAM) != 0)) {

        /* made anew: a stream has its type from the reader */

        if (!ctx->rq.stream) {
            ngx_str_set(&ctx->flight->content_type, "application/json");
        }

        return NGX_OK;
    }

    return ngx_http_llm_cache_str(pool, &ctx->flight->content_type,
                                  &e->content_type);
}


static ngx_int_t
ngx_http_llm_cache_str(ngx_pool_t *pool, ngx_str_t *dst, llm_str_t *src)
{
    dst->data = ngx_pnalloc(pool, src->len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    dst->len = src->len;
    ngx_memcpy(dst->data, src->data, src->len);

    return NGX_OK;
}


/*
 * Every target has failed, and nothing was shown.  NGX_OK: an answer whose
 * time is over is better than none, and the flight is that answer now.  Not
 * for who has asked for a fresh one (RFC 9111, 4.2.4 and 5.2.1.1).
 */

ngx_int_t
ngx_http_llm_cache_stale(ngx_http_llm_ctx_t *ctx, ngx_uint_t failure)
{
    ngx_uint_t              status;
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    if (cache == NULL || !cache->keyed
        || cache->conf->stale == 0
        || cache->no_cache || cache->max_age != -1
        || failure == LLM_FAIL_CLIENT
        || failure == LLM_FAIL_CONTEXT
        || ctx->reader.head_sent || ctx->aborted || ctx->finalized
        || (ctx->flight && ctx->flight->released && !ctx->flight->failure))
    {
        return NGX_DECLINED;
    }

    status = cache->status;
    cache->status = NGX_HTTP_LLM_CACHE_STALE;

    if (ngx_http_llm_cache_get(ctx, cache->conf->ttl + cache->conf->stale)
        != NGX_OK)
    {
        cache->status = status;
        return NGX_DECLINED;
    }

    cache->store = 0;
    ctx->spent = 0;

    return NGX_OK;
}
