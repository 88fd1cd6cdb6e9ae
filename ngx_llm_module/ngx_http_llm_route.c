
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Which target serves a model.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_route_direct(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_http_llm_main_conf_t *lmcf);


/* NGX_OK: ctx->targets is set, NGX_DECLINED: nobody serves this model */

ngx_int_t
ngx_http_llm_route(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_route_t      *best;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->adapter == NGX_HTTP_LLM_TARGETS) {
        ctx->targets = llcf->targets;
        return NGX_OK;
    }

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    best = ngx_http_llm_route_find(lmcf, &ctx->rq.model);

    if ((best == NULL || (best->prefix && best->pattern.len == 0))
        && llcf->adapter == NGX_HTTP_LLM_DIRECT
        && ngx_http_llm_route_direct(r, ctx, lmcf) == NGX_OK)
    {
        return NGX_OK;
    }

    if (best == NULL) {
        return NGX_DECLINED;
    }

    ctx->targets = &best->targets;

    return NGX_OK;
}


/* exact beats longest prefix beats '*'; NULL: no pattern takes it */

ngx_http_llm_route_t *
ngx_http_llm_route_find(ngx_http_llm_main_conf_t *lmcf, llm_str_t *model)
{
    ngx_uint_t             i;
    ngx_http_llm_route_t  *route, *best;

    best = NULL;
    route = lmcf->routes.elts;

    for (i = 0; i < lmcf->routes.nelts; i++) {

        if (model->len < route[i].pattern.len
            || ngx_memcmp(model->data, route[i].pattern.data,
                          route[i].pattern.len)
               != 0)
        {
            continue;
        }

        if (!route[i].prefix) {

            if (model->len == route[i].pattern.len) {
                return &route[i];
            }

            continue;
        }

        if (best == NULL || best->pattern.len < route[i].pattern.len) {
            best = &route[i];
        }
    }

    return best;
}


/* "provider/model" */

static ngx_int_t
ngx_http_llm_route_direct(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_main_conf_t *lmcf)
{
    u_char                   *slash, *last;
    ngx_str_t                 name;
    ngx_http_llm_target_t    *target;
    ngx_http_llm_targets_t   *targets;
    ngx_http_llm_provider_t  *p;

    last = ctx->rq.model.data + ctx->rq.model.len;
    slash = ngx_strlchr(ctx->rq.model.data, last, '/');

    if (slash == NULL || slash + 1 == last) {
        return NGX_DECLINED;
    }

    name.data = ctx->rq.model.data;
    name.len = slash - name.data;

    p = ngx_http_llm_provider_find(lmcf, &name);
    if (p == NULL) {
        return NGX_DECLINED;
    }

    target = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_target_t));
    if (target == NULL) {
        return NGX_DECLINED;
    }

    targets = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_targets_t));
    if (targets == NULL) {
        return NGX_DECLINED;
    }

    target->provider = p;
    target->model.data = slash + 1;
    target->model.len = last - slash - 1;

    targets->target = target;
    targets->n = 1;

    ctx->targets = targets;

    return NGX_OK;
}
