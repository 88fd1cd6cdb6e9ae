
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * $llm_*: what is known of a request, for logs, maps and the like.  Always of
 * the main request, never cached, and empty where nothing is known: absent is
 * not 0.
 */


#include "ngx_http_llm_module.h"


typedef enum {
    NGX_HTTP_LLM_V_PROVIDER = 0,
    NGX_HTTP_LLM_V_MODEL,
    NGX_HTTP_LLM_V_REQUESTED_MODEL,
    NGX_HTTP_LLM_V_DIALECT,
    NGX_HTTP_LLM_V_STREAM,
    NGX_HTTP_LLM_V_CACHE,
    NGX_HTTP_LLM_V_CACHE_REASON,
    NGX_HTTP_LLM_V_FLIGHT,
    NGX_HTTP_LLM_V_ATTEMPTS,
    NGX_HTTP_LLM_V_USAGE_SOURCE,
    NGX_HTTP_LLM_V_PROVIDER_REQUEST_ID,
    NGX_HTTP_LLM_V_FINISH_REASON,
    NGX_HTTP_LLM_V_ERROR,
    NGX_HTTP_LLM_V_BREAKER,
    NGX_HTTP_LLM_V_TTFT,
    NGX_HTTP_LLM_V_TPOT,
    NGX_HTTP_LLM_V_OVERHEAD,
    NGX_HTTP_LLM_V_COST,
    NGX_HTTP_LLM_V_COST_SAVED
} ngx_http_llm_variable_e;


static ngx_int_t ngx_http_llm_text_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_number_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_usage_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_llm_breakers(ngx_http_llm_ctx_t *ctx, ngx_str_t *s);
static ngx_int_t ngx_http_llm_breaker_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_llm_variables[] = {

    { ngx_string("llm_provider"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_PROVIDER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_model"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_requested_model"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_REQUESTED_MODEL, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_dialect"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_DIALECT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_stream"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_STREAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cache"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_CACHE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cache_reason"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_CACHE_REASON, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_flight"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_FLIGHT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_usage_source"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_USAGE_SOURCE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_provider_request_id"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_PROVIDER_REQUEST_ID, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_finish_reason"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_FINISH_REASON, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_error"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_ERROR, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_breaker"), NULL, ngx_http_llm_text_variable,
      NGX_HTTP_LLM_V_BREAKER, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_breaker_"), NULL, ngx_http_llm_breaker_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

    { ngx_string("llm_attempts"), NULL, ngx_http_llm_number_variable,
      NGX_HTTP_LLM_V_ATTEMPTS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_ttft"), NULL, ngx_http_llm_number_variable,
      NGX_HTTP_LLM_V_TTFT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_tpot"), NULL, ngx_http_llm_number_variable,
      NGX_HTTP_LLM_V_TPOT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_overhead"), NULL, ngx_http_llm_number_variable,
      NGX_HTTP_LLM_V_OVERHEAD, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cost"), NULL, ngx_http_llm_number_variable,
      NGX_HTTP_LLM_V_COST, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cost_saved"), NULL, ngx_http_llm_number_variable,
      NGX_HTTP_LLM_V_COST_SAVED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_prompt_tokens"), NULL, ngx_http_llm_usage_variable,
      LLM_USAGE_PROMPT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_completion_tokens"), NULL, ngx_http_llm_usage_variable,
      LLM_USAGE_COMPLETION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_cached_tokens"), NULL, ngx_http_llm_usage_variable,
      LLM_USAGE_CACHED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("llm_reasoning_tokens"), NULL, ngx_http_llm_usage_variable,
      LLM_USAGE_REASONING, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_llm_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_llm_variables; v->name.len; v++) {

        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_http_llm_ctx_t *
ngx_http_llm_variable_ctx(ngx_http_request_t *r, ngx_http_variable_value_t *v)
{
    ngx_http_llm_ctx_t  *ctx;

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = 0;
    v->data = (u_char *) "";

    ctx = ngx_http_get_module_ctx(r->main, ngx_http_llm_module);

    if (ctx == NULL) {
        ctx = ngx_http_llm_lost_ctx(r);
    }

    if (ctx && ctx->flight) {
        ngx_http_llm_facts(ctx);
    }

    return ctx;
}


static ngx_int_t
ngx_http_llm_text_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t            s, other;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_variable_ctx(r, v);

    if (ctx == NULL) {
        return NGX_OK;
    }

    ngx_str_null(&s);

    switch (data) {

    case NGX_HTTP_LLM_V_PROVIDER:
        if (ngx_http_llm_served(ctx, &s, &other) != NGX_OK
            && ctx->passthrough)
        {
            s = ctx->passthrough->name;
        }

        break;

    case NGX_HTTP_LLM_V_MODEL:
        (void) ngx_http_llm_served(ctx, &other, &s);
        break;

    case NGX_HTTP_LLM_V_REQUESTED_MODEL:
        s.len = ctx->rq.model.len;
        s.data = ctx->rq.model.data;
        break;

    case NGX_HTTP_LLM_V_DIALECT:
        if (ctx->dialect) {
            s.len = ctx->dialect->name.len;
            s.data = ctx->dialect->name.data;
        }

        break;

    case NGX_HTTP_LLM_V_STREAM:
        if (ctx->rq.model.len) {
            s.len = 1;
            s.data = (u_char *) (ctx->rq.stream ? "1" : "0");
        }

        break;

    case NGX_HTTP_LLM_V_CACHE:
        if (ctx->cache ? ctx->cache->asked : ctx->attempt != NULL) {
            s = *ngx_http_llm_cache_name(ngx_http_llm_cache_status(ctx));
        }

        break;

    case NGX_HTTP_LLM_V_CACHE_REASON:
        if (ctx->cache && ctx->cache->reason) {
            s.len = ngx_strlen(ctx->cache->reason);
            s.data = (u_char *) ctx->cache->reason;
        }

        break;

    case NGX_HTTP_LLM_V_FLIGHT:
        s = ctx->name;
        break;

    case NGX_HTTP_LLM_V_USAGE_SOURCE:
        if (ctx->usage.known) {
            ngx_str_set(&s, "provider");
        }

        break;

    case NGX_HTTP_LLM_V_PROVIDER_REQUEST_ID:
        s = ctx->provider_request_id;
        break;

    case NGX_HTTP_LLM_V_FINISH_REASON:
        s = ctx->finish_reason;
        break;

    case NGX_HTTP_LLM_V_BREAKER:
        if (ctx->targets && ngx_http_llm_breakers(ctx, &s) != NGX_OK) {
            return NGX_ERROR;
        }

        break;

    case NGX_HTTP_LLM_V_ERROR:
        if (ctx->error) {
            s.len = ngx_strlen(ctx->error);
            s.data = (u_char *) ctx->error;

        } else if (ctx->error_status) {
            s.data = ngx_pnalloc(r->pool, sizeof("upstream_") + NGX_INT_T_LEN);
            if (s.data == NULL) {
                return NGX_ERROR;
            }

            s.len = ngx_sprintf(s.data, "upstream_%ui", ctx->error_status)
                    - s.data;
        }

        break;
    }

    v->len = s.len;
    v->data = s.data;

    return NGX_OK;
}


/* "openai=closed, spare=open": those that may serve the request */

static ngx_int_t
ngx_http_llm_breakers(ngx_http_llm_ctx_t *ctx, ngx_str_t *s)
{
    u_char                   *p;
    size_t                    len;
    ngx_uint_t                i;
    ngx_http_llm_targets_t   *targets;
    ngx_http_llm_provider_t  *provider;

    targets = ctx->targets;
    len = 0;

    for (i = 0; i < targets->n; i++) {
        len += targets->target[i].provider->name.len
               + sizeof("=half-open, ") - 1;
    }

    p = ngx_pnalloc(ctx->request->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s->data = p;

    for (i = 0; i < targets->n; i++) {
        provider = targets->target[i].provider;

        p = ngx_sprintf(p, "%s%V=%V", i ? ", " : "", &provider->name,
                        ngx_http_llm_breaker_name(provider));
    }

    s->len = p - s->data;

    return NGX_OK;
}


/* $llm_breaker_NAME, anywhere; what no variable's name may have is a '_' */

static ngx_int_t
ngx_http_llm_breaker_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                     c;
    ngx_str_t                 *name, *p, *state;
    ngx_uint_t                 i, k;
    ngx_http_llm_provider_t  **provider;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    name = (ngx_str_t *) data;
    provider = lmcf->providers.elts;

    for (i = 0; i < lmcf->providers.nelts; i++) {

        p = &provider[i]->name;

        if (name->len - (sizeof("llm_breaker_") - 1) != p->len
            || provider[i]->cell == NULL)
        {
            continue;
        }

        for (k = 0; k < p->len; k++) {

            c = ngx_tolower(p->data[k]);

            if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) {
                c = '_';
            }

            if (c != name->data[k + sizeof("llm_breaker_") - 1]) {
                break;
            }
        }

        if (k == p->len) {
            state = ngx_http_llm_breaker_name(provider[i]);

            v->valid = 1;
            v->no_cacheable = 0;
            v->not_found = 0;
            v->len = state->len;
            v->data = state->data;

            return NGX_OK;
        }
    }

    v->not_found = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_number_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char              *p;
    uint64_t             n;
    llm_usage_t          usage;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_variable_ctx(r, v);

    if (ctx == NULL) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;

    switch (data) {

    case NGX_HTTP_LLM_V_ATTEMPTS:
        if (ctx->rq.model.len) {
            v->len = ngx_sprintf(p, "%ui", ctx->attempts) - p;
        }

        break;

    case NGX_HTTP_LLM_V_TTFT:
        if (ctx->first_shown) {
            n = ctx->first_shown - ctx->arrived;
            v->len = ngx_sprintf(p, "%uL.%03uL", n / 1000, n % 1000) - p;
        }

        break;

    case NGX_HTTP_LLM_V_TPOT:
        if (ctx->streamed && ctx->first_shown && ctx->usage.completion > 1) {

            n = (uint64_t) (ctx->last_shown - ctx->first_shown) * 1000
                / (ctx->usage.completion - 1);
            v->len = ngx_sprintf(p, "%uL.%06uL", n / 1000000, n % 1000000) - p;
        }

        break;

    case NGX_HTTP_LLM_V_OVERHEAD:
        if (ctx->attempt || ctx->flight || ctx->cache) {
            n = ctx->overhead;
            v->len = ngx_sprintf(p, "%uL.%06uL", n / 1000000, n % 1000000) - p;
        }

        break;

    case NGX_HTTP_LLM_V_COST_SAVED:
        if (ctx->cache && ctx->cache->priced) {
            n = (ctx->cache->saved + 500) / 1000;
            v->len = ngx_sprintf(p, "%uL.%09uL", n / 1000000000,
                                 n % 1000000000)
                     - p;
        }

        break;

    case NGX_HTTP_LLM_V_COST:

        if (ngx_http_llm_cache_status(ctx) >= NGX_HTTP_LLM_CACHE_STALE) {
            v->len = ngx_sprintf(p, "0.000000000") - p;
            break;
        }

        usage = ctx->usage;
        usage.prompt -= ctx->spent_usage.prompt;
        usage.completion -= ctx->spent_usage.completion;
        usage.cached -= ctx->spent_usage.cached;
        usage.cache_write -= ctx->spent_usage.cache_write;

        if (ngx_http_llm_cost(ctx, &usage, &n) == NGX_OK) {

            n += ctx->spent_cost;

            /* from 1e-12 to 1e-9 USD */

            n = (n + 500) / 1000;
            v->len = ngx_sprintf(p, "%uL.%09uL", n / 1000000000,
                                 n % 1000000000)
                     - p;
        }

        break;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_usage_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char              *p;
    uint64_t             n;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_variable_ctx(r, v);

    if (ctx == NULL || !(ctx->usage.known & data)) {
        return NGX_OK;
    }

    switch (data) {

    case LLM_USAGE_PROMPT:
        n = ctx->usage.prompt;
        break;

    case LLM_USAGE_COMPLETION:
        n = ctx->usage.completion;
        break;

    case LLM_USAGE_CACHED:
        n = ctx->usage.cached;
        break;

    default:
        n = ctx->usage.reasoning;
        break;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = ngx_sprintf(p, "%uL", n) - p;

    return NGX_OK;
}


/* in 1e-12 USD, by the model asked of the provider; NGX_DECLINED: not known */

ngx_int_t
ngx_http_llm_cost(ngx_http_llm_ctx_t *ctx, llm_usage_t *usage, uint64_t *cost)
{
    uint64_t               fresh, cached, written;
    ngx_str_t              model;
    ngx_http_llm_price_t  *m;

    if (ctx->attempt == NULL || !(usage->known & LLM_USAGE_PROMPT)) {
        return NGX_DECLINED;
    }

    model = ngx_http_llm_target_model(ctx, ctx->attempt->target);
    m = ngx_http_llm_model_facts(ctx->attempt->provider, &model);

    if (m == NULL
        || !(m->priced & (1 << NGX_HTTP_LLM_PRICE_INPUT))
        || (usage->completion
            && !(m->priced & (1 << NGX_HTTP_LLM_PRICE_OUTPUT))))
    {
        return NGX_DECLINED;
    }

    cached = ngx_min(usage->cached, usage->prompt);
    written = ngx_min(usage->cache_write, usage->prompt - cached);
    fresh = usage->prompt - cached - written;

    *cost = fresh * m->price[NGX_HTTP_LLM_PRICE_INPUT]
            + cached * m->price[(m->priced & (1 << NGX_HTTP_LLM_PRICE_CACHED))
                                ? NGX_HTTP_LLM_PRICE_CACHED
                                : NGX_HTTP_LLM_PRICE_INPUT]
            + written * m->price[(m->priced
                                  & (1 << NGX_HTTP_LLM_PRICE_CACHE_WRITE))
                                 ? NGX_HTTP_LLM_PRICE_CACHE_WRITE
                                 : NGX_HTTP_LLM_PRICE_INPUT]
            + usage->completion * m->price[NGX_HTTP_LLM_PRICE_OUTPUT];

    return NGX_OK;
}
