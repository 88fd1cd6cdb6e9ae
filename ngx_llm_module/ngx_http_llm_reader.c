
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A client that follows a flight: sends the head when the flight allows it,
 * then what the log holds, whole events only, and the end that fits.  It
 * lives in the request's context and is a subscriber of the flight: waking it
 * posts its request, so that all events of one read from the provider leave
 * in one piece.
 *
 * The attempt is a subrequest on the same client connection, and
 * ngx_http_upstream arms and deletes c->read's and c->write's timers as if
 * that were its own affair.  So no timer of ours stands there, and an expiry
 * of theirs means nothing here.
 *
 * Bytes go out from the flight's blocks without a copy; a block is given back
 * when the client's socket has taken it.
 */


#include "ngx_http_llm_module.h"


static void ngx_http_llm_reader_wake(ngx_http_llm_reader_t *rd);
static void ngx_http_llm_reader_check(ngx_http_request_t *r);
static void ngx_http_llm_reader_gone(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_reader_satisfied(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_begin(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_failed(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_head(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_content_type(ngx_http_request_t *r, ngx_str_t *type);
static ngx_int_t ngx_http_llm_reader_provider_headers(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_collect(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t **out);
static ngx_int_t ngx_http_llm_reader_end(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll);
static ngx_buf_t *ngx_http_llm_reader_buf(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll);
static ngx_int_t ngx_http_llm_reader_text(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll, llm_str_t *text);
static ngx_int_t ngx_http_llm_reader_output(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *out);
static void ngx_http_llm_reader_trim(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_reader_timers(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_ping(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_reader_ping_handler(ngx_event_t *ev);
static void ngx_http_llm_reader_stall_handler(ngx_event_t *ev);
static void ngx_http_llm_reader_flush_handler(ngx_event_t *ev);


/* the main request takes part in its flight from here on */

void
ngx_http_llm_reader_attach(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_request_t       *r;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;
    rd = &ctx->reader;

    rd->flight = ctx->flight;
    rd->request = r;
    rd->dialect = ctx->dialect;
    rd->wake = ngx_http_llm_reader_wake;
    rd->show_usage = ctx->rq.usage_asked;
    rd->shown = ngx_current_msec;
    rd->attached = 1;

    ngx_queue_insert_tail(&ctx->flight->readers, &rd->queue);

    rd->ping.handler = ngx_http_llm_reader_ping_handler;
    rd->ping.data = r->connection;
    rd->ping.log = r->connection->log;

    rd->stall.handler = ngx_http_llm_reader_stall_handler;
    rd->stall.data = r->connection;
    rd->stall.log = r->connection->log;

    rd->flush.handler = ngx_http_llm_reader_flush_handler;
    rd->flush.data = r->connection;
    rd->flush.log = r->connection->log;

    /* as ngx_http_upstream does for what it does not buffer */

    r->limit_rate = 0;
    r->limit_rate_set = 1;

    r->read_event_handler = ngx_http_llm_reader_check;
    r->write_event_handler = ngx_http_llm_reader_client;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (ctx->rq.stream && llcf->ping && llcf->ping_head) {
        ngx_add_timer(&rd->ping, llcf->ping_head);
    }
}


/* the request is being freed or terminated */

void
ngx_http_llm_reader_cleanup(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;

    if (!rd->attached) {
        return;
    }

    rd->attached = 0;
    ngx_queue_remove(&rd->queue);

    if (rd->ping.timer_set) {
        ngx_del_timer(&rd->ping);
    }

    if (rd->stall.timer_set) {
        ngx_del_timer(&rd->stall);
    }

    if (rd->flush.timer_set) {
        ngx_del_timer(&rd->flush);
    }
}


static void
ngx_http_llm_reader_wake(ngx_http_llm_reader_t *rd)
{
    if (rd->posted) {
        return;
    }

    rd->posted = 1;

    (void) ngx_http_post_request(rd->request, &rd->posted_request);
}


/* r->read_event_handler: has the client gone? */

static void
ngx_http_llm_reader_check(ngx_http_request_t *r)
{
    int                  n;
    char                 buf[1];
    ngx_err_t            err;
    ngx_event_t         *rev;
    ngx_connection_t    *c;
    ngx_http_llm_ctx_t  *ctx;

    c = r->connection;
    rev = c->read;
    err = 0;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {

        /* redirected */

        return;
    }

    if (ctx->reader.last_sent && !ctx->reader.busy && !c->buffered) {

        /* it has its answer: this is its next request, or its farewell */

        ngx_http_llm_reader_satisfied(ctx);
        return;
    }

    if (c->error) {
        goto gone;
    }

    if (ngx_http_llm_multiplexed(r)) {
        return;
    }

#if (NGX_HAVE_KQUEUE)

    if (ngx_event_flags & NGX_USE_KQUEUE_EVENT) {

        if (!rev->pending_eof) {
            return;
        }

        err = rev->kq_errno;
        goto closed;
    }

#endif

#if (NGX_HAVE_EPOLLRDHUP)

    if ((ngx_event_flags & NGX_USE_EPOLL_EVENT) && ngx_use_epoll_rdhup) {
        socklen_t  len;

        if (!rev->pending_eof) {
            return;
        }

        len = sizeof(ngx_err_t);

        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len)
            == -1)
        {
            err = ngx_socket_errno;
        }

        goto closed;
    }

#endif

    n = recv(c->fd, buf, 1, MSG_PEEK);

    if (n > 0) {

        /* a pipelined request */

        if ((ngx_event_flags & NGX_USE_LEVEL_EVENT) && rev->active) {
            (void) ngx_del_event(rev, NGX_READ_EVENT, 0);
        }

        return;
    }

    if (n == -1) {
        err = ngx_socket_errno;

        if (err == NGX_EAGAIN) {
            return;
        }
    }

closed:

    if (err) {
        rev->error = 1;
    }

    rev->eof = 1;
    c->error = 1;

gone:

    if (ctx->aborted) {
        return;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, err,
                  "client prematurely closed connection");

    ngx_http_llm_reader_gone(ctx);
}


/* after this the request may be gone: return at once */

static void
ngx_http_llm_reader_gone(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_request_t       *r;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;
    rd = &ctx->reader;

    ctx->aborted = 1;
    ctx->error = "client_closed";
    r->connection->error = 1;
    r->headers_out.status = NGX_HTTP_CLIENT_CLOSED_REQUEST;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->client_abort == NGX_HTTP_LLM_DRAIN
        && ctx->attempt && ctx->attempt->running && !ctx->flight->ended)
    {
        /* let it end by itself; its end terminates the request */

        ngx_http_llm_reader_cleanup(ctx);

        r->read_event_handler = ngx_http_block_reading;
        r->write_event_handler = ngx_http_request_empty_handler;

        if (ctx->flight->stream || ctx->flight->released) {
            ngx_http_llm_flight_pin(ctx->flight);
            rd->block = NULL;
        }

        if (ctx->attempt->closed) {
            ngx_http_llm_attempt_resume(ctx->attempt);
        }

        return;
    }

    ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
}


/*
 * The client has all of it while the attempt still waits for a clean end of
 * the provider's message, which would spare the connection: not at the
 * client's expense.
 */

static void
ngx_http_llm_reader_satisfied(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->attempt && ctx->attempt->running) {
        ngx_http_llm_attempt_abort(ctx->attempt, NULL);
    }
}


/*
 * r->write_event_handler: something was appended, or the client's socket
 * takes more, or the attempt has ended.
 */

void
ngx_http_llm_reader_client(ngx_http_request_t *r)
{
    uint64_t                start;
    ngx_int_t               rc;
    ngx_chain_t            *out;
    ngx_connection_t       *c;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_reader_t  *rd;
    ngx_http_llm_flight_t  *f;

    start = ngx_http_llm_now();

    c = r->connection;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    rd = &ctx->reader;
    f = ctx->flight;

    rd->posted = 0;

    if (c->write->timedout) {
        c->write->timedout = 0;
    }

    if (c->error) {
        ngx_http_llm_reader_check(r);
        return;
    }

    if (!rd->head_sent || rd->head_only) {

        rc = ngx_http_llm_reader_begin(ctx);

        if (rc == NGX_AGAIN) {

            if (rd->busy || c->buffered) {
                goto write;
            }

            return;
        }

        if (rc != NGX_OK) {
            ctx->finalized = 1;
            ngx_http_finalize_request(r, rc == NGX_DONE ? NGX_OK : rc);
            return;
        }
    }

write:

    out = NULL;

    if (!rd->flushing || f->ended) {

        rc = ngx_http_llm_reader_collect(ctx, &out);

        if (rc == NGX_ERROR) {
            goto failed;
        }
    }

    if (out || rd->busy || c->buffered || r->buffered) {
        if (ngx_http_llm_reader_output(ctx, out) != NGX_OK) {
            goto failed;
        }
    }

    ctx->overhead += ngx_http_llm_now() - start;

    if (rd->last_sent && !(ctx->attempt && ctx->attempt->running)) {
        ctx->finalized = 1;
        ngx_http_finalize_request(r, NGX_OK);
        return;
    }

    ngx_http_llm_reader_timers(ctx);

    if (rd->last_sent && c->read->ready && !ngx_http_llm_multiplexed(r)) {
        ngx_post_event(c->read, &ngx_posted_events);
    }

    return;

failed:

    if (c->error) {
        ngx_http_llm_reader_gone(ctx);
        return;
    }

    ctx->finalized = 1;
    ngx_http_finalize_request(r, NGX_ERROR);
}


/* NGX_OK: the head is out, NGX_AGAIN: not yet, else: how the request ends */

static ngx_int_t
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
            ngx_http_llm_flight_trim(f, NULL);
            rd->block = NULL;
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


static ngx_int_t
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

    if (a == NULL || a->headers == NULL) {
        return NGX_OK;
    }

    kept = a->headers->elts;

    for (i = 0; i < a->headers->nelts; i++) {

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


/* what the cursor has not passed, as few buffers as it takes */

static ngx_int_t
ngx_http_llm_reader_collect(ngx_http_llm_ctx_t *ctx, ngx_chain_t **out)
{
    u_char                 *pos, *last;
    ngx_buf_t              *b;
    ngx_chain_t           **ll;
    ngx_http_llm_block_t   *block;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;
    ngx_http_llm_record_t  *rec;

    rd = &ctx->reader;
    f = ctx->flight;
    ll = out;
    b = NULL;

    if (rd->last_sent || rd->head_only || !rd->head_sent) {
        return NGX_OK;
    }

    if (rd->block == NULL) {
        rd->block = f->first;
        rd->record = 0;
    }

    while ((block = rd->block) != NULL) {

        while (rd->record < block->n) {

            /* records grow downwards from the end of the block */

            rec = (ngx_http_llm_record_t *) block->end - ++rd->record;

            if ((rec->flags & NGX_HTTP_LLM_REC_USAGE) && !rd->show_usage) {
                continue;
            }

            pos = block->start + rec->offset;
            last = pos + rec->len;

            if (b && b->last == pos) {
                b->last = last;
                continue;
            }

            b = ngx_http_llm_reader_buf(ctx, &ll);
            if (b == NULL) {
                return NGX_ERROR;
            }

            b->start = pos;
            b->pos = pos;
            b->last = last;
            b->end = last;
        }

        if (block->next == NULL) {
            break;
        }

        rd->block = block->next;
        rd->record = 0;
    }

    if (*out) {
        ctx->last_shown = ngx_current_msec;

        if (ctx->first_shown == 0) {
            ctx->first_shown = ctx->last_shown;
        }
    }

    if (f->ended && ngx_http_llm_reader_end(ctx, &ll) != NGX_OK) {
        return NGX_ERROR;
    }

    if (*out) {
        for (ll = out; (*ll)->next; ll = &(*ll)->next) { /* void */ }
        (*ll)->buf->flush = 1;
    }

    return NGX_OK;
}


/* NGX_ERROR: the answer must not look whole */

static ngx_int_t
ngx_http_llm_reader_end(ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll)
{
    llm_str_t               text;
    ngx_buf_t              *b;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    f = ctx->flight;
    text.len = 0;

    if (f->failed && !f->told) {

        if (!f->stream && !f->committed) {
            return NGX_ERROR;
        }

        f->error.request_id = ngx_http_llm_request_id(ctx->request);

        if (rd->dialect->stream_error(&f->answer, &f->error, &ctx->mem, &text)
            != LLM_OK)
        {
            return NGX_ERROR;
        }

    } else if (f->end_marker) {

        if (rd->dialect->stream_end(&f->answer, &ctx->mem, &text) != LLM_OK) {
            return NGX_ERROR;
        }
    }

    if (text.len && ngx_http_llm_reader_text(ctx, ll, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    b = ngx_http_llm_reader_buf(ctx, ll);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->memory = 0;
    b->last_buf = 1;

    rd->last_sent = 1;

    return NGX_OK;
}


static ngx_buf_t *
ngx_http_llm_reader_buf(ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_chain_get_free_buf(ctx->request->pool, &ctx->reader.free);
    if (cl == NULL) {
        return NULL;
    }

    b = cl->buf;

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->tag = (ngx_buf_tag_t) &ngx_http_llm_module;
    b->memory = 1;

    cl->next = NULL;
    **ll = cl;
    *ll = &cl->next;

    return b;
}


static ngx_int_t
ngx_http_llm_reader_text(ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll,
    llm_str_t *text)
{
    ngx_buf_t  *b;

    b = ngx_http_llm_reader_buf(ctx, ll);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->start = text->data;
    b->pos = text->data;
    b->last = text->data + text->len;
    b->end = b->last;
    b->memory = 0;
    b->temporary = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_reader_output(ngx_http_llm_ctx_t *ctx, ngx_chain_t *out)
{
    ngx_int_t                 rc;
    ngx_http_request_t       *r;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;
    rd = &ctx->reader;

    rc = ngx_http_output_filter(r, out);

    ngx_chain_update_chains(r->pool, &rd->free, &rd->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_llm_module);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    rd->shown = ngx_current_msec;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (llcf->flush && ctx->flight->stream && !ctx->flight->ended
        && !rd->flush.timer_set)
    {
        rd->flushing = 1;
        ngx_add_timer(&rd->flush, llcf->flush);
    }

    ngx_http_llm_reader_trim(ctx);

    return NGX_OK;
}


/* gives back what the client's socket has taken */

static void
ngx_http_llm_reader_trim(ngx_http_llm_ctx_t *ctx)
{
    u_char                 *pos;
    ngx_chain_t            *cl;
    ngx_http_llm_block_t   *b;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    f = ctx->flight;

    if (rd->block == NULL) {
        return;
    }

    /* pings and such stand in no block */

    for (cl = rd->busy; cl; cl = cl->next) {
        if (cl->buf->memory) {
            break;
        }
    }

    if (cl == NULL) {

        if (rd->record == rd->block->n && rd->block->next == NULL) {
            ngx_http_llm_flight_trim(f, NULL);
            rd->block = NULL;

        } else {
            ngx_http_llm_flight_trim(f, rd->block);
        }

    } else {

        pos = cl->buf->pos;

        for (b = f->first; b != rd->block; b = b->next) {
            if (pos >= b->start && pos <= b->last) {
                break;
            }
        }

        ngx_http_llm_flight_trim(f, b);
    }

    if (ctx->attempt && ctx->attempt->closed) {
        ngx_http_llm_attempt_resume(ctx->attempt);
    }
}


/* after every turn: watch a client that takes nothing, ping one that waits */

static void
ngx_http_llm_reader_timers(ngx_http_llm_ctx_t *ctx)
{
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_llm_reader_t     *rd;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_core_loc_conf_t  *clcf;

    r = ctx->request;
    c = r->connection;
    rd = &ctx->reader;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (rd->busy || c->buffered) {

        if (rd->stall.timer_set && c->sent != rd->sent) {
            ngx_del_timer(&rd->stall);
        }

        if (!rd->stall.timer_set) {
            rd->sent = c->sent;
            ngx_add_timer(&rd->stall, clcf->send_timeout);
        }

    } else if (rd->stall.timer_set) {
        ngx_del_timer(&rd->stall);
    }

    if (ngx_handle_write_event(c->write, clcf->send_lowat) != NGX_OK) {
        ctx->finalized = 1;
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
    }

    if (ctx->flight->stream && llcf->ping && rd->head_sent
        && !rd->last_sent && !rd->ping.timer_set)
    {
        ngx_add_timer(&rd->ping, llcf->ping);
    }
}


static ngx_int_t
ngx_http_llm_reader_ping(ngx_http_llm_ctx_t *ctx)
{
    llm_str_t               text;
    ngx_chain_t            *out, **ll;
    llm_answer_t            silent, *answer;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    answer = &ctx->flight->answer;

    if (rd->head_only || !ctx->flight->released) {

        /* what the provider said was not shown yet */

        ngx_memzero(&silent, sizeof(llm_answer_t));
        silent.dialect = rd->dialect;
        silent.endpoint = ctx->endpoint;
        answer = &silent;
    }

    rd->dialect->ping(answer, &text);

    if (ctx->flight->ids && *text.data == ':') {

        /*
         * Some clients take any blank line for the end of an event once they
         * have seen an id, and fail to parse the data that is not there.
         */

        text.len--;
    }

    out = NULL;
    ll = &out;

    if (ngx_http_llm_reader_text(ctx, &ll, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    out->buf->flush = 1;

    return ngx_http_llm_reader_output(ctx, out);
}


static void
ngx_http_llm_reader_ping_handler(ngx_event_t *ev)
{
    ngx_int_t                 rc;
    ngx_msec_t                quiet;
    ngx_connection_t         *c;
    ngx_http_request_t       *r;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    rd = &ctx->reader;

    ngx_http_set_log_request(c->log, r);

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (rd->last_sent || ctx->flight->ended) {
        return;
    }

    if (!rd->head_sent) {

        /* commits the 200 */

        ctx->flight->committed = 1;
        rd->head_only = 1;

        rc = ngx_http_llm_reader_head(ctx);

        if (rc != NGX_OK) {
            ctx->finalized = 1;
            ngx_http_finalize_request(r, rc == NGX_DONE ? NGX_OK : rc);
            goto done;
        }

    } else {
        quiet = ngx_current_msec - rd->shown;

        if (quiet < llcf->ping || rd->busy || c->buffered) {
            ngx_add_timer(ev, quiet < llcf->ping ? llcf->ping - quiet
                                                 : llcf->ping);
            return;
        }
    }

    if (ngx_http_llm_reader_ping(ctx) != NGX_OK) {

        if (c->error) {
            ngx_http_llm_reader_gone(ctx);

        } else {
            ctx->finalized = 1;
            ngx_http_finalize_request(r, NGX_ERROR);
        }

        goto done;
    }

    ngx_add_timer(ev, llcf->ping);

    ngx_http_llm_reader_timers(ctx);

done:

    ngx_http_run_posted_requests(c);
}


/* the client took no byte for send_timeout */

static void
ngx_http_llm_reader_stall_handler(ngx_event_t *ev)
{
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_reader_t     *rd;
    ngx_http_core_loc_conf_t  *clcf;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    rd = &ctx->reader;

    ngx_http_set_log_request(c->log, r);

    if (c->sent != rd->sent) {
        clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

        rd->sent = c->sent;
        ngx_add_timer(ev, clcf->send_timeout);
        return;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");

    c->timedout = 1;
    ctx->error = "client_timeout";
    ctx->finalized = 1;

    ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_llm_reader_flush_handler(ngx_event_t *ev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_llm_ctx_t  *ctx;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    ngx_http_set_log_request(c->log, r);

    ctx->reader.flushing = 0;

    ngx_http_llm_reader_client(r);

    ngx_http_run_posted_requests(c);
}
