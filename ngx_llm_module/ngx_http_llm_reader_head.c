
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The head that a reader's client gets: when it may go out, and what it says of
 * a stream, a plain answer, or a failure that nothing was shown of.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_reader_joined(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_failed(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_content_type(ngx_http_request_t *r, ngx_str_t *type);
static ngx_int_t ngx_http_llm_reader_provider_headers(ngx_http_llm_ctx_t *ctx);


/* NGX_OK: the head is out, NGX_AGAIN: not yet, else: how the request ends */

ngx_int_t
ngx_http_llm_reader_begin(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t                 rc;
    ngx_http_request_t       *r;
    ngx_http_llm_flight_t    *f;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;
    rd = &ctx->reader;
    f = ctx->flight;

    if (f->form) {

        rc = ngx_http_llm_reader_joined(ctx);

        if (rc != NGX_OK) {
            return rc;
        }

        f = ctx->flight;
    }

    if (!f->released && !f->ended) {
        return NGX_AGAIN;
    }

    if (rd->head_only) {

        /* a head ping has committed us to a stream */

        rd->head_only = 0;

        if ((!f->stream && !f->failed) || f->error_body.len) {
            ngx_http_llm_answer_no_stream(ctx);
        }

        if (!f->stream || !f->released) {
            rd->mute = 1;
            rd->block = NULL;

            ngx_http_llm_flight_hold(rd, NULL);
            ngx_http_llm_flight_trim(f);
        }

        return NGX_OK;
    }

    if (f->failed && !f->released) {

        if (ctx->attempt && ctx->attempt->running) {
            return NGX_AGAIN;
        }

        ngx_http_llm_reader_cleanup(ctx);

        rc = ngx_http_llm_reader_failed(ctx);
        return rc == NGX_OK ? NGX_DONE : rc;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (f->status >= NGX_HTTP_BAD_REQUEST
        && llcf->intercept_errors
        && ngx_http_llm_has_error_page(r, f->status)
        && !(ctx->attempt && ctx->attempt->running))
    {
        ngx_http_llm_reader_cleanup(ctx);
        return f->status;
    }

    return ngx_http_llm_reader_head(ctx);
}


/*
 * A flight that others may read, too: is it one that this reader can be shown?
 * NGX_OK; NGX_AGAIN: that is not known yet; NGX_BUSY: it is not, the request
 * begins anew; NGX_ERROR.
 */

static ngx_int_t
ngx_http_llm_reader_joined(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t               rc;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    f = ctx->flight;

    if (ctx->follows) {

        if (f->lost) {
            return NGX_BUSY;
        }

        if (rd->failed
            || (f->released && f->stream && rd->show_usage && !f->usage
                && !rd->fold))
        {
            /* it was given up, or has not what was asked for */

            ctx->alone = 1;
            return NGX_BUSY;
        }

        if (rd->fold) {

            if (!f->ended) {
                return NGX_AGAIN;
            }

            rc = ngx_http_llm_lead_fold(ctx);

            if (rc == NGX_DECLINED) {
                ctx->alone = 1;
                return NGX_BUSY;
            }

            if (rc != NGX_OK) {
                return rc;
            }

            f = ctx->flight;
        }

        ngx_http_llm_facts(ctx);
    }

    if (f->failure && !rd->head_sent) {

        /* each of its readers may have an old answer instead */

        (void) ngx_http_llm_cache_stale(ctx, f->failure);
    }

    return NGX_OK;
}


/* nothing was shown: an error of ours, or the provider's own words */

static ngx_int_t
ngx_http_llm_reader_failed(ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t               body;
    ngx_http_llm_flight_t  *f;

    f = ctx->flight;

    if (f->error_body.len
        && !ngx_http_llm_has_error_page(ctx->request, f->error.status))
    {
        body.len = f->error_body.len;
        body.data = f->error_body.data;

        if (ngx_http_llm_reader_provider_headers(ctx) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_http_llm_send_json(ctx->request, f->error.status, &body);
    }

    return ngx_http_llm_error(ctx->request, &f->error);
}


ngx_int_t
ngx_http_llm_reader_head(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t               rc;
    ngx_http_request_t     *r;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;

    r = ctx->request;
    rd = &ctx->reader;
    f = ctx->flight;

    ctx->own = 1;
    rd->head_sent = 1;

    if (!rd->head_only) {
        f->shown = 1;
    }

    r->disable_not_modified = 1;

    r->headers_out.status = (rd->head_only || f->stream)
                            ? NGX_HTTP_OK : f->status;

    if (rd->head_only || f->stream) {
        ngx_str_set(&r->headers_out.content_type, "text/event-stream");
        r->headers_out.content_type_len = r->headers_out.content_type.len;
        ngx_http_clear_content_length(r);

        if (ngx_http_llm_add_header(r, "Cache-Control", "no-cache") != NGX_OK
            || ngx_http_llm_add_header(r, "X-Accel-Buffering", "no") != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        /* the framing's charset is fixed */

        if (!rd->head_only && f->content_type.len) {
            ngx_http_llm_content_type(r, &f->content_type);
        }

    } else {
        ngx_http_llm_content_type(r, &f->content_type);

        /* a held answer that is whole has a known length */

        if (f->ended && !f->failed && f->trimmed == f->base) {
            r->headers_out.content_length_n = f->appended - f->base;

        } else {
            r->headers_out.content_length_n = f->content_length;
        }
    }

    if (!rd->head_only
        && ngx_http_llm_reader_provider_headers(ctx) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_llm_own_headers(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc == NGX_OK ? NGX_DONE : rc;
    }

    return NGX_OK;
}


/* the provider's, as it is; filters compare what stands before parameters */

static void
ngx_http_llm_content_type(ngx_http_request_t *r, ngx_str_t *type)
{
    u_char  *p, *last;

    r->headers_out.content_type = *type;
    r->headers_out.content_type_lowcase = NULL;

    last = type->data + type->len;
    p = type->len ? ngx_strlchr(type->data, last, ';') : NULL;

    if (p == NULL) {
        p = last;
    }

    while (p > type->data && p[-1] == ' ') {
        p--;
    }

    r->headers_out.content_type_len = p - type->data;
}


static ngx_int_t
ngx_http_llm_reader_provider_headers(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t               i;
    ngx_table_elt_t         *h, *kept;
    ngx_http_request_t      *r;
    ngx_http_llm_attempt_t  *a;

    r = ctx->request;
    a = ctx->attempt;

    if (a == NULL || a->headers == NULL
        || ngx_http_llm_cache_status(ctx) == NGX_HTTP_LLM_CACHE_STALE)
    {
        return NGX_OK;
    }

    kept = a->headers->elts;

    for (i = 0; i < a->headers->nelts; i++) {

        /* it does not know that we have tried again already */

        if (ngx_http_llm_retry_never(ctx)
            && kept[i].key.len == sizeof("x-should-retry") - 1
            && ngx_strncasecmp(kept[i].key.data, (u_char *) "x-should-retry",
                               sizeof("x-should-retry") - 1)
               == 0)
        {
            continue;
        }

        /* ours says the same of every stream */

        if (ctx->flight->stream
            && kept[i].key.len == sizeof("Cache-Control") - 1
            && ngx_strncasecmp(kept[i].key.data, (u_char *) "Cache-Control",
                               sizeof("Cache-Control") - 1)
               == 0)
        {
            continue;
        }

        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        *h = kept[i];
        h->hash = 1;
        ngx_http_llm_header_single(h);
    }

    return NGX_OK;
}
