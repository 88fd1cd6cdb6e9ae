
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The content handler: a request from its path to its first attempt.  Finds
 * the endpoint, reads and scans the body, chooses the target, begins the
 * flight and follows it as its first reader.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_endpoint(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_check_head(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_models(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_body_ready(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_begin(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_error_t *err);
static ngx_int_t ngx_http_llm_call(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_error_t *err);
static ngx_int_t ngx_http_llm_lead(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_error_t *err);
static ngx_int_t ngx_http_llm_follow(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_outcome(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_int_t rc, llm_error_t *err);
static ngx_int_t ngx_http_llm_tell(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, llm_error_t *err);
static ngx_int_t ngx_http_llm_watch_client(ngx_http_request_t *r);
static void ngx_http_llm_cleanup(void *data);
static void ngx_http_llm_free_flight(void *data);


ngx_int_t
ngx_http_llm_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    llm_error_t               err;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    if (r != r->main) {

        if (ngx_http_get_module_ctx(r, ngx_http_llm_module)) {
            return ngx_http_llm_attempt_handler(r);
        }

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "llm_adapter does not serve subrequests");

        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx = ngx_http_llm_get_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    rc = ngx_http_llm_endpoint(r, ctx);

    if (rc != NGX_OK) {

        if (llcf->passthrough) {
            return ngx_http_llm_passthrough_handler(r, llcf->passthrough);
        }

        ngx_memzero(&err, sizeof(llm_error_t));

        if (rc == NGX_DECLINED) {
            err.status = NGX_HTTP_NOT_FOUND;
            err.code = "not_found";
            llm_str_set(&err.message, "there is no such endpoint");

        } else {
            err.status = NGX_HTTP_NOT_ALLOWED;
            err.code = "method_not_allowed";
            llm_str_set(&err.message, "the method is not allowed here");

            if (ngx_http_llm_add_header(r, "Allow",
                            ctx->endpoint->method == LLM_METHOD_POST
                            ? "POST" : "GET, HEAD")
                != NGX_OK)
            {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }
        }

        ctx->error = err.code;

        return ngx_http_llm_error(r, &err);
    }

    if (ctx->endpoint->flags & (LLM_EP_MODELS|LLM_EP_MODEL)) {
        return ngx_http_llm_models(r, ctx);
    }

    rc = ngx_http_llm_check_head(r, ctx);

    if (rc != NGX_OK) {
        return rc == NGX_DONE ? NGX_OK : rc;
    }

    if (ngx_http_llm_body_room(r, ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->reading = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_llm_body_ready);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


/* the context of a main request, made if absent */

ngx_http_llm_ctx_t *
ngx_http_llm_get_ctx(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;
    ngx_http_cleanup_t  *cln;
    ngx_pool_cleanup_t  *pcln;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx) {
        return ctx;
    }

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NULL;
    }

    pcln = ngx_pool_cleanup_add(r->pool, 0);
    if (pcln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_llm_cleanup;
    cln->data = ctx;

    pcln->handler = ngx_http_llm_free_flight;
    pcln->data = ctx;

    ctx->request = r;
    ctx->mem = ngx_http_llm_pool_mem(r->pool);
    ctx->arrived = ngx_current_msec;

    ngx_http_set_ctx(r, ctx, ngx_http_llm_module);

    return ctx;
}


/*
 * An internal redirect has taken the context away: it is found once more by
 * its cleanup, for what is logged of it.  NULL: there never was one.
 */

ngx_http_llm_ctx_t *
ngx_http_llm_lost_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;

    if (!r->main->internal) {
        return NULL;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_llm_free_flight) {
            return cln->data;
        }
    }

    return NULL;
}


/* NGX_OK, NGX_DECLINED: no such endpoint, NGX_BUSY: not by this method */

static ngx_int_t
ngx_http_llm_endpoint(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    llm_str_t             path;
    const llm_dialect_t  *marked;

    ngx_http_llm_path(r, &path);

    ctx->endpoint = llm_endpoint_find(&path, NULL, &ctx->dialect,
                                      &ctx->model_id);

    if (ctx->endpoint == NULL) {
        ctx->dialect = NULL;
        return NGX_DECLINED;
    }

    if (ctx->endpoint->flags & (LLM_EP_MODELS|LLM_EP_MODEL)) {

        marked = ngx_http_llm_marked_dialect(r);

        if (marked) {
            ctx->endpoint = llm_endpoint_find(&path, marked, &ctx->dialect,
                                              &ctx->model_id);
        }
    }

    if ((ctx->endpoint->method == LLM_METHOD_POST
         && r->method == NGX_HTTP_POST)
        || (ctx->endpoint->method == LLM_METHOD_GET
            && (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))))
    {
        return NGX_OK;
    }

    return NGX_BUSY;
}


/* NGX_OK, NGX_DONE: an error was sent, else a status */

static ngx_int_t
ngx_http_llm_check_head(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t         rc;
    ngx_str_t        *type;
    llm_error_t       err;
    ngx_table_elt_t  *h;

    ngx_memzero(&err, sizeof(llm_error_t));
    err.status = NGX_HTTP_UNSUPPORTED_MEDIA_TYPE;
    err.code = "unsupported_media_type";

    h = r->headers_in.content_type;

    if (h && h->value.len) {
        type = &h->value;

        if (!((type->len >= sizeof("application/json") - 1
               && ngx_strncasecmp(type->data, (u_char *) "application/json",
                                  sizeof("application/json") - 1)
                  == 0)
              || ngx_strlcasestrn(type->data, type->data + type->len,
                                  (u_char *) "+json", 5 - 1)))
        {
            llm_str_set(&err.message,
                        "the content type must be application/json");
            goto failed;
        }
    }

    h = ngx_http_llm_request_header(r, "content-encoding",
                                    sizeof("content-encoding") - 1);

    if (h && h->value.len
        && !(h->value.len == 8
             && ngx_strncasecmp(h->value.data, (u_char *) "identity", 8) == 0))
    {
        llm_str_set(&err.message,
                    "an encoded (compressed) request body is not supported");
        goto failed;
    }

    return NGX_OK;

failed:

    ctx->error = err.code;

    rc = ngx_http_llm_error(r, &err);

    return rc == NGX_OK ? NGX_DONE : rc;
}


static ngx_int_t
ngx_http_llm_models(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t                  body;
    llm_str_t                  out;
    llm_int_t                  rc;
    ngx_uint_t                 i;
    llm_error_t                err;
    llm_model_t               *models;
    ngx_array_t               *list;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    list = ngx_http_llm_model_list(r);
    if (list == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    models = list->elts;

    if (ctx->endpoint->flags & LLM_EP_MODELS) {
        rc = ctx->dialect->models(models, list->nelts, lmcf->started,
                                  &ctx->mem, &out);
        goto done;
    }

    for (i = 0; i < list->nelts; i++) {
        if (models[i].id.len == ctx->model_id.len
            && ngx_memcmp(models[i].id.data, ctx->model_id.data,
                          models[i].id.len)
               == 0)
        {
            rc = ctx->dialect->model(&models[i], lmcf->started, &ctx->mem,
                                     &out);
            goto done;
        }
    }

    ngx_memzero(&err, sizeof(llm_error_t));
    err.status = NGX_HTTP_NOT_FOUND;
    err.code = "model_not_found";
    err.param = "model";
    llm_str_set(&err.message, "the model does not exist");

    ctx->error = "unknown_model";

    return ngx_http_llm_error(r, &err);

done:

    if (rc != LLM_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body.len = out.len;
    body.data = out.data;

    return ngx_http_llm_send_json(r, NGX_HTTP_OK, &body);
}


static void
ngx_http_llm_body_ready(ngx_http_request_t *r)
{
    uint64_t             start;
    ngx_int_t            rc;
    llm_error_t          err;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    start = ngx_http_llm_now();

    ctx->reading = 0;

    if (ctx->header_in) {
        r->header_in = ctx->header_in;
        ctx->header_in = NULL;
    }

    ngx_memzero(&err, sizeof(llm_error_t));

    rc = ngx_http_llm_begin(r, ctx, &err);

    ctx->overhead += ngx_http_llm_now() - start;

    ngx_http_llm_outcome(r, ctx, rc, &err);
}


/* the cache knows by now whether it has the answer */

void
ngx_http_llm_go(ngx_http_llm_ctx_t *ctx)
{
    uint64_t             start;
    ngx_int_t            rc;
    llm_error_t          err;
    ngx_http_request_t  *r;

    start = ngx_http_llm_now();
    r = ctx->request;

    ngx_memzero(&err, sizeof(llm_error_t));

    rc = ngx_http_llm_call(r, ctx, &err);

    ctx->overhead += ngx_http_llm_now() - start;

    ngx_http_llm_outcome(r, ctx, rc, &err);
}


static void
ngx_http_llm_outcome(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_int_t rc, llm_error_t *err)
{
    if (rc == NGX_DECLINED && ctx->reader.head_sent) {
        rc = ngx_http_llm_tell(r, ctx, err);

        if (rc == NGX_OK) {
            return;
        }

    } else if (rc == NGX_DECLINED) {
        rc = ngx_http_llm_error(r, err);

    } else if (rc == NGX_OK) {
        return;
    }

    ctx->finalized = 1;
    ngx_http_finalize_request(r, rc);
}


/* a head ping has sent a stream's head before it was known */

static ngx_int_t
ngx_http_llm_tell(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_error_t *err)
{
    if (ctx->flight == NULL) {
        ctx->flight = ngx_http_llm_flight_create();
        if (ctx->flight == NULL) {
            return NGX_ERROR;
        }
    }

    ctx->flight->error = *err;
    ctx->flight->failed = 1;
    ctx->flight->ended = 1;

    return ngx_http_llm_follow(r, ctx);
}


/* NGX_OK: the flight is on its way, NGX_DECLINED: *err says why not, else a
 * status */

static ngx_int_t
ngx_http_llm_begin(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_error_t *err)
{
    ngx_int_t  rc;

    ctx->rq.dialect = ctx->dialect;
    ctx->rq.endpoint = ctx->endpoint;

    if (ngx_http_llm_body(r, &ctx->rq.body) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_llm_cache_begin(ctx);

    if (rc != NGX_DECLINED) {
        return rc == NGX_OK ? ngx_http_llm_follow(r, ctx)
                            : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ctx->dialect->parse(&ctx->rq, &ctx->mem, err);

    if (rc == LLM_DECLINED) {
        ctx->error = "bad_request";
        return NGX_DECLINED;
    }

    if (rc != LLM_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_llm_route(r, ctx) != NGX_OK) {

        if (ctx->rq.model.len == 0) {
            ctx->error = "bad_request";
            err->status = NGX_HTTP_BAD_REQUEST;
            err->code = "missing_model";
            err->param = "model";
            llm_str_set(&err->message, "the \"model\" member is missing");
            return NGX_DECLINED;
        }

        ctx->error = "unknown_model";
        err->status = NGX_HTTP_NOT_FOUND;
        err->code = "model_not_found";
        err->param = "model";
        llm_str_set(&err->message, "the model does not exist "
                                   "or you do not have access to it");
        return NGX_DECLINED;
    }

    return ngx_http_llm_call(r, ctx, err);
}


/* the same of a request that was read and has its targets */

static ngx_int_t
ngx_http_llm_call(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_error_t *err)
{
    ngx_int_t  rc;

    do {
        rc = ngx_http_llm_cache_lookup(ctx, err);

        switch (rc) {

        case NGX_OK:
            return ngx_http_llm_follow(r, ctx);

        case NGX_AGAIN:
            return NGX_OK;

        case NGX_BUSY:
            return NGX_DECLINED;

        case NGX_DECLINED:
            break;

        default:
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        rc = ngx_http_llm_coalesce_join(ctx);

    } while (rc == NGX_AGAIN);

    if (rc == NGX_OK) {
        return ngx_http_llm_follow(r, ctx);
    }

    if (rc != NGX_DECLINED) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_llm_lead(r, ctx, err);

    if (rc != NGX_OK && ctx->flight) {
        ngx_http_llm_coalesce_leave(ctx->flight);
    }

    return rc;
}


/* the same of one that makes its own call */

static ngx_int_t
ngx_http_llm_lead(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    llm_error_t *err)
{
    ngx_int_t  rc;

    ngx_http_llm_balance(ctx);

    if (ctx->norder == 0) {
        ctx->error = "dialect";
        err->status = NGX_HTTP_BAD_REQUEST;
        err->code = "unsupported_dialect";
        err->param = "model";
        llm_str_set(&err->message, "this model is served by a provider of "
                                   "another API, and requests are not "
                                   "translated");
        return NGX_DECLINED;
    }

    if (ctx->flight == NULL) {
        ctx->flight = ngx_http_llm_flight_create();
        if (ctx->flight == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ngx_http_llm_keep_begin(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_llm_retry_first(ctx, err);

    if (rc == NGX_DECLINED
        && ngx_http_llm_cache_stale(ctx, LLM_FAIL_AWAY) == NGX_OK)
    {
        return ngx_http_llm_follow(r, ctx);
    }

    if (rc != NGX_OK) {

        if (ctx->flight->keep) {
            ngx_http_llm_keep_give_up(ctx, "failed");
        }

        return rc;
    }

    ngx_http_llm_reader_attach(ctx);

    return ngx_http_llm_watch_client(r);
}


/* the answer is there already, or on its way to another */

static ngx_int_t
ngx_http_llm_follow(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_reader_attach(ctx);

    if (ctx->flight->released || ctx->flight->ended) {
        ctx->reader.wake(&ctx->reader);
    }

    return ngx_http_llm_watch_client(r);
}


/* from now on the client's leaving is an event */

static ngx_int_t
ngx_http_llm_watch_client(ngx_http_request_t *r)
{
    ngx_event_t  *rev;

    rev = r->connection->read;

    if (rev->ready) {
        ngx_post_event(rev, &ngx_posted_events);
        return NGX_OK;
    }

    return ngx_handle_read_event(rev, 0);
}


/* what the log will ask for, before the flight goes */

void
ngx_http_llm_facts(ngx_http_llm_ctx_t *ctx)
{
    llm_answer_t  *answer;

    if (ctx->flight == NULL) {
        return;
    }

    answer = &ctx->flight->answer;

    if (ctx->follows) {
        ngx_http_llm_coalesce_facts(ctx);
    }

    ctx->usage = answer->usage;
    ngx_http_llm_resume_usage(ctx);
    ctx->streamed = ctx->flight->stream;

    if (answer->finish_reason_len && ctx->finish_reason.len == 0) {
        ctx->finish_reason.data = ngx_pnalloc(ctx->request->pool,
                                              answer->finish_reason_len);
        if (ctx->finish_reason.data) {
            ctx->finish_reason.len = answer->finish_reason_len;
            ngx_memcpy(ctx->finish_reason.data, answer->finish_reason,
                       answer->finish_reason_len);
        }
    }
}


/* the request ends, or is terminated: before it is logged */

static void
ngx_http_llm_cleanup(void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    ngx_http_request_t  *r;

    r = ctx->request;

    if (ctx->reading && r->connection->error) {

        /* nginx calls it a bad request, but nobody is left to be told */

        ctx->error = "client_closed";
        r->headers_out.status = NGX_HTTP_CLIENT_CLOSED_REQUEST;
    }

    ctx->reading = 0;

    if (ctx->header_in) {
        r->header_in = ctx->header_in;
        ctx->header_in = NULL;
    }

    ngx_http_llm_lead_end(ctx);

    if (ctx->backoff.timer_set) {
        ngx_del_timer(&ctx->backoff);
    }

    if (ctx->attempt) {
        ngx_http_llm_attempt_cleanup(ctx->attempt);
    }

    ngx_http_llm_cache_cleanup(ctx);
    ngx_http_llm_breaker_release(ctx);
    ngx_http_llm_resume_free(ctx);
    ngx_http_llm_reader_cleanup(ctx);
    ngx_http_llm_facts(ctx);
}


/* HTTP/2 frames that wait may refer to the flight until the pool goes */

static void
ngx_http_llm_free_flight(void *data)
{
    ngx_http_llm_ctx_t *ctx = data;

    if (ctx->flight) {
        ngx_http_llm_flight_unref(ctx->flight);
        ctx->flight = NULL;
    }
}
