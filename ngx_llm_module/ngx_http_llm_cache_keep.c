
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * An answer that is kept: a copy of what its flight is told, taken as it
 * comes, and what has to be true of it in the end.  Only what is complete, and
 * is what the request asked for, becomes an entry.
 *
 * The copy ends with the flight, or goes on its way to the file as an item of
 * the heap, since that takes longer than the request.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_KEEP_FIRST  4096


static const char *ngx_http_llm_keep_unfit(ngx_http_llm_attempt_t *a);
static ngx_http_llm_item_t *ngx_http_llm_keep_item(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_keep_request(ngx_http_llm_cached_t *cache,
    ngx_http_llm_item_t *item);
static u_char *ngx_http_llm_keep_str(u_char *p, llm_str_t *dst, u_char *data,
    size_t len);


/* a provider will be asked: is its answer to be kept? */

ngx_int_t
ngx_http_llm_keep_begin(ngx_http_llm_ctx_t *ctx)
{
    llm_store_t            *store;
    ngx_http_llm_keep_t    *keep;
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    if (cache == NULL || !cache->store) {
        return NGX_OK;
    }

    store = ngx_http_llm_cache_store();

    if (store == NULL || llm_store_id(store, cache->key, cache->id) != LLM_OK)
    {
        /* not open: it may be, when the answer has come */

        cache->has_id = 0;

    } else {
        cache->has_id = 1;
    }

    keep = ngx_calloc(sizeof(ngx_http_llm_keep_t), ngx_cycle->log);
    if (keep == NULL) {
        return NGX_ERROR;
    }

    keep->max = cache->conf->max_size;

    ctx->flight->keep = keep;

    cache->first = ngx_http_llm_target_model(ctx,
                                 &ctx->targets->target[ctx->order[0]]);

    return NGX_OK;
}


/* the flight is told this */

void
ngx_http_llm_keep_add(ngx_http_llm_flight_t *f, u_char *p, size_t len,
    ngx_uint_t flags)
{
    size_t                size;
    u_char               *text;
    uint32_t              kind;
    llm_run_t            *run;
    ngx_http_llm_keep_t  *keep;

    keep = f->keep;

    if (keep->failed) {
        return;
    }

    if (len > keep->max - keep->len) {
        keep->failed = "too-large";
        goto failed;
    }

    if (keep->len + len > keep->size) {

        size = keep->size ? 2 * keep->size : NGX_HTTP_LLM_KEEP_FIRST;

        if (f->content_length > 0 && keep->size == 0) {
            size = f->content_length;
        }

        size = ngx_max(size, keep->len + len);
        size = ngx_min(size, keep->max);

        text = realloc(keep->text, size);

        if (text == NULL) {
            keep->failed = "no-memory";
            goto failed;
        }

        keep->text = text;
        keep->size = size;
    }

    ngx_memcpy(keep->text + keep->len, p, len);
    keep->len += len;

    kind = (flags & NGX_HTTP_LLM_REC_USAGE) ? LLM_RUN_HIDDEN : 0;

    if (keep->nruns && keep->runs[keep->nruns - 1].flags == kind) {
        keep->runs[keep->nruns - 1].len += len;
        return;
    }

    if (keep->nruns == LLM_STORE_RUNS) {
        keep->failed = "too-large";
        goto failed;
    }

    run = &keep->runs[keep->nruns++];
    run->len = len;
    run->flags = kind;

    return;

failed:

    ngx_free(keep->text);
    keep->text = NULL;
    keep->len = 0;
    keep->size = 0;
    keep->nruns = 0;
}


/* another attempt begins anew */

void
ngx_http_llm_keep_reset(ngx_http_llm_flight_t *f)
{
    f->keep->len = 0;
    f->keep->nruns = 0;
    f->keep->failed = NULL;
}


void
ngx_http_llm_keep_free(ngx_http_llm_flight_t *f)
{
    if (f->keep->text) {
        ngx_free(f->keep->text);
    }

    ngx_free(f->keep);
    f->keep = NULL;
}


/*
 * The answer has just ended, and its last words were not shown yet: now it is
 * decided.  What follows of its HTTP message changes nothing.
 */

void
ngx_http_llm_keep_end(ngx_http_llm_attempt_t *a)
{
    const char             *unfit;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_item_t    *item;
    ngx_http_llm_cached_t  *cache;

    ctx = a->ctx;
    cache = ctx->cache;

    if (cache == NULL || a->flight->keep == NULL || cache->settled) {
        return;
    }

    cache->settled = 1;

    unfit = ngx_http_llm_keep_unfit(a);

    if (unfit == NULL) {

        item = ngx_http_llm_keep_item(a);

        if (item) {
            ngx_http_llm_cache_put(item);

        } else {
            unfit = "no-memory";
        }
    }

    if (unfit) {
        ngx_http_llm_keep_give_up(ctx, unfit);
        return;
    }

    ngx_http_llm_keep_free(a->flight);
}


/* the answer is not kept; reason: static */

void
ngx_http_llm_keep_give_up(ngx_http_llm_ctx_t *ctx, const char *reason)
{
    ctx->cache->settled = 1;
    ctx->cache->reason = reason;
    ctx->cache->has_id = 0;

    ngx_http_llm_keep_free(ctx->flight);
}


/* why the answer, which is whole, is not to be kept; NULL: it is */

static const char *
ngx_http_llm_keep_unfit(ngx_http_llm_attempt_t *a)
{
    llm_str_t                 text;
    ngx_str_t                 model;
    const char               *unfit;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_cached_t    *cache;
    ngx_http_llm_flight_t    *f;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = a->ctx;
    cache = ctx->cache;
    f = a->flight;

    if (f->status != NGX_HTTP_OK || f->failed || f->told) {
        return "failed";
    }

    if (f->keep->failed) {
        return f->keep->failed;
    }

    if (ctx->resumed) {
        return "resumed";
    }

    if (a->malformed) {
        return "malformed";
    }

    if (f->stream != ctx->rq.stream || f->end_marker || !f->answer.terminal
        || f->keep->len == 0)
    {
        return "unfinished";
    }

    model = ngx_http_llm_target_model(ctx, a->target);

    if (model.len != cache->first.len
        || ngx_memcmp(model.data, cache->first.data, model.len) != 0)
    {
        return "fallback";
    }

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    if (llcf->no_cache
        && ngx_http_test_predicates(ctx->request, llcf->no_cache) != NGX_OK)
    {
        return "no-store";
    }

    unfit = ctx->dialect->caching->unfit(&f->answer);

    if (unfit || f->stream) {
        return unfit;
    }

    text.len = f->keep->len;
    text.data = f->keep->text;

    return ctx->dialect->caching->says(ctx->endpoint, &text) ? NULL
                                                             : "unfinished";
}


/* takes the copy over from the flight; NULL: no memory */

static ngx_http_llm_item_t *
ngx_http_llm_keep_item(ngx_http_llm_attempt_t *a)
{
    size_t                  len;
    u_char                 *p;
    uint64_t                cost;
    ngx_str_t               model;
    ngx_time_t             *tp;
    llm_entry_t            *e;
    llm_answer_t           *answer;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_item_t    *item;
    ngx_http_llm_keep_t    *keep;
    ngx_http_llm_cached_t  *cache;

    ctx = a->ctx;
    cache = ctx->cache;
    keep = a->flight->keep;
    answer = &a->flight->answer;

    model = ngx_http_llm_target_model(ctx, a->target);

    if (ctx->rq.model.len > 0xffff || cache->scope.len > 0xffff
        || a->flight->content_type.len > 0xffff)
    {
        return NULL;
    }

    len = a->provider->name.len + model.len + ctx->rq.model.len
          + cache->scope.len + a->flight->content_type.len
          + answer->finish_reason_len;

    item = ngx_calloc(sizeof(ngx_http_llm_item_t)
                      + keep->nruns * sizeof(llm_run_t) + len,
                      ngx_cycle->log);
    if (item == NULL) {
        return NULL;
    }

    if (ngx_http_llm_keep_request(cache, item) != NGX_OK) {
        ngx_free(item);
        return NULL;
    }

    e = &item->entry;

    item->runs = (llm_run_t *) (item + 1);
    p = (u_char *) (item->runs + keep->nruns);

    ngx_memcpy(item->runs, keep->runs, keep->nruns * sizeof(llm_run_t));

    ngx_memcpy(e->key, cache->key, LLM_KEY_LEN);

    tp = ngx_timeofday();

    e->begun = cache->begun;
    e->made = (uint64_t) tp->sec * 1000 + tp->msec;
    e->ttl = cache->conf->ttl;
    e->stale = cache->conf->stale;
    e->usage = answer->usage;

    if (a->flight->stream) {
        e->key[LLM_KEY_LEN - 1] |= 1;
        e->flags |= LLM_ENTRY_STREAM;
        e->runs = item->runs;
        e->nruns = keep->nruns;
    }

    /* a MISS was one for this form alone; else this is newer than both */

    if (cache->status != NGX_HTTP_LLM_CACHE_MISS) {
        e->flags |= LLM_ENTRY_ALONE;
    }

    if (ctx->rq.usage_asked || a->asked_usage) {
        e->flags |= LLM_ENTRY_USAGE;
    }

    if (ngx_http_llm_cost(ctx, &answer->usage, &cost) == NGX_OK) {
        e->flags |= LLM_ENTRY_COST;
        e->cost = cost;
    }

    e->dialect = ctx->dialect->name;
    e->endpoint = ctx->endpoint->path;

    p = ngx_http_llm_keep_str(p, &e->provider, a->provider->name.data,
                              a->provider->name.len);
    p = ngx_http_llm_keep_str(p, &e->model, model.data, model.len);
    p = ngx_http_llm_keep_str(p, &e->asked, ctx->rq.model.data,
                              ctx->rq.model.len);
    p = ngx_http_llm_keep_str(p, &e->scope, cache->scope.data,
                              cache->scope.len);
    p = ngx_http_llm_keep_str(p, &e->content_type,
                              a->flight->content_type.data,
                              a->flight->content_type.len);
    (void) ngx_http_llm_keep_str(p, &e->finish_reason, answer->finish_reason,
                                 answer->finish_reason_len);

    item->text = keep->text;
    e->text.data = keep->text;
    e->text.len = keep->len;

    keep->text = NULL;

    return item;
}


static ngx_int_t
ngx_http_llm_keep_request(ngx_http_llm_cached_t *cache,
    ngx_http_llm_item_t *item)
{
    u_char  *p;
    size_t   len;

    len = cache->material.len;

    p = ngx_alloc(len, ngx_cycle->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, cache->material.data, len);

    item->request = p;
    item->entry.request.data = p;
    item->entry.request.len = len;

    return NGX_OK;
}


static u_char *
ngx_http_llm_keep_str(u_char *p, llm_str_t *dst, u_char *data, size_t len)
{
    dst->data = p;
    dst->len = len;

    return ngx_cpymem(p, data, len);
}


void
ngx_http_llm_item_free(ngx_http_llm_item_t *item)
{
    if (item->text) {
        ngx_free(item->text);
    }

    ngx_free(item->request);
    ngx_free(item);
}
