
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Errors, always in the client's dialect: those that this module makes, and
 * those that nginx makes for a main request in one of our locations (401 of
 * auth_basic, 413 of the core, 429 of limit_req ...), whose page is exchanged
 * for JSON on its way out.  error_page goes before both.
 */


#include "ngx_http_llm_module.h"


static ngx_http_output_header_filter_pt  ngx_http_llm_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_llm_next_body_filter;


typedef struct {
    ngx_uint_t   status;
    const char  *code;
    llm_str_t    message;
} ngx_http_llm_page_t;


/* which errors of nginx are given the dialect's shape, and in what words */

static ngx_http_llm_page_t  ngx_http_llm_pages[] = {

    { NGX_HTTP_UNAUTHORIZED, "unauthorized",
      llm_string("authentication is required") },

    { NGX_HTTP_FORBIDDEN, "forbidden",
      llm_string("access is denied") },

    { NGX_HTTP_NOT_FOUND, "not_found",
      llm_string("there is no such endpoint") },

    { NGX_HTTP_NOT_ALLOWED, "method_not_allowed",
      llm_string("the method is not allowed here") },

    { NGX_HTTP_REQUEST_ENTITY_TOO_LARGE, "request_too_large",
      llm_string("the request body is too large") },

    { NGX_HTTP_TOO_MANY_REQUESTS, "rate_limit_exceeded",
      llm_string("too many requests") },

    { NGX_HTTP_INTERNAL_SERVER_ERROR, "internal",
      llm_string("internal error") },

    { NGX_HTTP_BAD_GATEWAY, "bad_gateway",
      llm_string("the provider could not be reached") },

    { NGX_HTTP_SERVICE_UNAVAILABLE, "unavailable",
      llm_string("the service is not available now") },

    { NGX_HTTP_GATEWAY_TIME_OUT, "timeout",
      llm_string("the provider did not answer in time") },

    { 0, NULL, llm_null_string }
};


/*
 * Sends an error, or hands it to error_page.  Returns what the request is to
 * be finalized with.
 */

ngx_int_t
ngx_http_llm_error(ngx_http_request_t *r, llm_error_t *err)
{
    llm_str_t             out;
    llm_mem_t             mem;
    ngx_str_t             body;
    ngx_http_llm_ctx_t   *ctx;
    const llm_dialect_t  *dialect;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx && ctx->error == NULL) {
        ctx->error = err->code;
    }

    if (ngx_http_llm_has_error_page(r, err->status)) {
        return err->status;
    }

    dialect = ngx_http_llm_error_dialect(r);
    mem = ngx_http_llm_pool_mem(r->pool);

    err->request_id = ngx_http_llm_request_id(r);

    if (dialect->error(err, &mem, &out) != LLM_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body.len = out.len;
    body.data = out.data;

    return ngx_http_llm_send_json(r, err->status, &body);
}


/* a whole answer of ours; the body lives as long as the request */

ngx_int_t
ngx_http_llm_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *body)
{
    ngx_int_t            rc;
    ngx_buf_t           *b;
    ngx_chain_t          out;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_llm_get_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->own = 1;
    r->disable_not_modified = 1;

    if (r->request_body == NULL) {
        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    r->headers_out.status = status;
    r->headers_out.content_length_n = body->len;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    if (ngx_http_llm_own_headers(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = body->data;
    b->last = body->data + body->len;
    b->memory = 1;
    b->last_buf = 1;

    out.buf = b;
    out.next = NULL;

    rc = ngx_http_output_filter(r, &out);

    return rc == NGX_AGAIN ? NGX_OK : rc;
}


ngx_int_t
ngx_http_llm_add_header(ngx_http_request_t *r, const char *name,
    const char *value)
{
    ngx_str_t  s;

    s.len = ngx_strlen(value);
    s.data = (u_char *) value;

    return ngx_http_llm_add_header_str(r, name, &s);
}


ngx_int_t
ngx_http_llm_add_header_str(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.len = ngx_strlen(name);
    h->key.data = (u_char *) name;
    h->value = *value;
    h->lowcase_key = NULL;
    ngx_http_llm_header_single(h);

    return NGX_OK;
}


/* X-LLM-*, as far as they are known */

ngx_int_t
ngx_http_llm_own_headers(ngx_http_llm_ctx_t *ctx)
{
    u_char                   *p;
    llm_str_t                 id;
    ngx_str_t                 value, provider, model;
    ngx_http_request_t       *r;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;

    if (ngx_http_llm_retry_headers(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (!llcf->headers) {
        return NGX_OK;
    }

    id = ngx_http_llm_request_id(r);

    if (id.len) {
        value.len = id.len;
        value.data = id.data;

        if (ngx_http_llm_add_header_str(r, "X-LLM-Request-Id", &value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ctx->passthrough) {
        return ngx_http_llm_add_header_str(r, "X-LLM-Provider",
                                           &ctx->passthrough->name);
    }

    /* with a head ping it is not known yet who will answer */

    if (ctx->reader.head_only) {
        return NGX_OK;
    }

    if (ngx_http_llm_served(ctx, &provider, &model) != NGX_OK) {

        /* nobody was asked */

        if (ctx->targets
            && ngx_http_llm_add_header(r, "X-LLM-Attempts", "0") != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ctx->cache ? ngx_http_llm_cache_headers(ctx) : NGX_OK;
    }

    if (ngx_http_llm_add_header_str(r, "X-LLM-Provider", &provider)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (model.len
        && ngx_http_llm_add_header_str(r, "X-LLM-Model", &model) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_sprintf(p, "%ui", ctx->attempts) - p;

    if (ngx_http_llm_add_header_str(r, "X-LLM-Attempts", &value) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_cache_headers(ctx);
}


/* who made the answer, and which model: NGX_DECLINED: nobody */

ngx_int_t
ngx_http_llm_served(ngx_http_llm_ctx_t *ctx, ngx_str_t *provider,
    ngx_str_t *model)
{
    if (ngx_http_llm_cache_status(ctx) >= NGX_HTTP_LLM_CACHE_STALE) {

        if (ctx->cache->provider.len == 0) {

            /* it has joined a call that came to nothing */

            return NGX_DECLINED;
        }

        *provider = ctx->cache->provider;
        *model = ctx->cache->model;

        return NGX_OK;
    }

    if (ctx->attempt) {
        *provider = ctx->attempt->provider->name;
        *model = ngx_http_llm_target_model(ctx, ctx->attempt->target);

        return NGX_OK;
    }

    return NGX_DECLINED;
}


const llm_dialect_t *
ngx_http_llm_error_dialect(ngx_http_request_t *r)
{
    llm_str_t                 path, id;
    const llm_dialect_t      *dialect;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx && ctx->dialect) {
        return ctx->dialect;
    }

    dialect = ngx_http_llm_marked_dialect(r);

    ngx_http_llm_path(r, &path);

    if (llm_endpoint_find(&path, dialect, &dialect, &id)) {
        return dialect;
    }

    dialect = ngx_http_llm_marked_dialect(r);

    if (dialect) {
        return dialect;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->targets) {
        return llcf->targets->target->provider->dialect;
    }

    if (llcf->passthrough) {
        return llcf->passthrough->dialect;
    }

    return llm_dialects[0];
}


ngx_uint_t
ngx_http_llm_has_error_page(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *page;
    ngx_http_core_loc_conf_t  *clcf;

    /* these end a request without any page */

    if (status == NGX_HTTP_REQUEST_TIME_OUT
        || status == NGX_HTTP_CLOSE
        || status == NGX_HTTP_CLIENT_CLOSED_REQUEST)
    {
        return 0;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->error_pages == NULL || r->error_page || r->uri_changes == 0) {

        /* this is one already; as ngx_http_special_response_handler() says */

        return 0;
    }

    page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (page[i].status == (ngx_int_t) status) {
            return 1;
        }
    }

    return 0;
}


/* nginx's own page is about to go out: make it the dialect's */

static ngx_int_t
ngx_http_llm_error_header_filter(ngx_http_request_t *r)
{
    llm_str_t                 out;
    llm_mem_t                 mem;
    llm_error_t               err;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_page_t      *page;
    ngx_http_llm_loc_conf_t  *llcf;

    if (r != r->main || r->err_status < NGX_HTTP_BAD_REQUEST) {
        return ngx_http_llm_next_header_filter(r);
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf == NULL || llcf->adapter == NGX_HTTP_LLM_OFF
        || llcf->adapter == NGX_CONF_UNSET_UINT)
    {
        return ngx_http_llm_next_header_filter(r);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx && ctx->own) {
        return ngx_http_llm_next_header_filter(r);
    }

    for (page = ngx_http_llm_pages; page->status; page++) {
        if (page->status == r->err_status
            && page->status == r->headers_out.status)
        {
            break;
        }
    }

    if (page->status == 0 || r->headers_out.content_length_n == 0) {
        return ngx_http_llm_next_header_filter(r);
    }

    ctx = ngx_http_llm_get_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&err, sizeof(llm_error_t));
    err.status = page->status;
    err.code = page->code;
    err.message = page->message;
    err.request_id = ngx_http_llm_request_id(r);

    mem = ngx_http_llm_pool_mem(r->pool);

    if (ngx_http_llm_error_dialect(r)->error(&err, &mem, &out) != LLM_OK) {
        return NGX_ERROR;
    }

    ctx->own = 1;
    ctx->shape.len = out.len;
    ctx->shape.data = out.data;

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.charset.len = 0;

    if (r->headers_out.content_length) {
        r->headers_out.content_length->hash = 0;
        r->headers_out.content_length = NULL;
    }

    r->headers_out.content_length_n = out.len;

    /* limit_req and its kin do not say when: soon */

    if ((page->status == NGX_HTTP_TOO_MANY_REQUESTS
         || page->status == NGX_HTTP_SERVICE_UNAVAILABLE)
        && ctx->wait == 0)
    {
        ctx->wait = 1000;
    }

    if (ngx_http_llm_own_headers(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_llm_next_header_filter(r);
}


static ngx_int_t
ngx_http_llm_error_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_buf_t           *b;
    ngx_chain_t          out;
    ngx_http_llm_ctx_t  *ctx;

    if (r != r->main || in == NULL) {
        return ngx_http_llm_next_body_filter(r, in);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL || ctx->shape.len == 0) {
        return ngx_http_llm_next_body_filter(r, in);
    }

    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
        in->buf->file_pos = in->buf->file_last;
    }

    if (ctx->shaped) {
        return NGX_OK;
    }

    ctx->shaped = 1;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = ctx->shape.data;
    b->last = b->pos + ctx->shape.len;
    b->memory = 1;
    b->last_buf = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_llm_next_body_filter(r, &out);
}


ngx_int_t
ngx_http_llm_error_filter_init(ngx_conf_t *cf)
{
    ngx_http_llm_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_llm_error_header_filter;

    ngx_http_llm_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_llm_error_body_filter;

    return NGX_OK;
}
