
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
static void ngx_http_llm_reader_wake_elsewhere(ngx_http_llm_reader_t *rd);
static void ngx_http_llm_reader_check(ngx_http_request_t *r);
static void ngx_http_llm_reader_satisfied(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_write(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_reader_collect(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t **out);
static ngx_int_t ngx_http_llm_reader_end(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll);
static void ngx_http_llm_reader_lost(ngx_http_llm_ctx_t *ctx);
static ngx_buf_t *ngx_http_llm_reader_buf(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t ***ll);


/* the main request takes part in its flight from here on */

void
ngx_http_llm_reader_attach(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_request_t       *r;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;
    rd = &ctx->reader;

    rd->request = r;
    rd->dialect = ctx->dialect;
    rd->wake = ctx->follows ? ngx_http_llm_reader_wake_elsewhere
                            : ngx_http_llm_reader_wake;
    rd->show_usage = ctx->rq.usage_asked;
    rd->shown = ngx_current_msec;
    rd->attached = 1;

    ngx_http_llm_flight_attach(ctx->flight, rd);

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

    if (rd->head_only) {
        ngx_add_timer(&rd->ping, llcf->ping);

    } else if (ctx->rq.stream && llcf->ping && llcf->ping_head
               && !rd->head_sent)
    {
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

    if (rd->busy || ctx->request->connection->buffered) {
        ngx_http_llm_flight_pin(rd);
    }

    ngx_http_llm_flight_detach(rd);

    if (rd->ping.timer_set) {
        ngx_del_timer(&rd->ping);
    }

    if (rd->stall.timer_set) {
        ngx_del_timer(&rd->stall);
    }

    if (rd->flush.timer_set) {
        ngx_del_timer(&rd->flush);
    }

    ngx_http_llm_lead_unread(rd->flight);
}


/* the flight's attempts are those of this request from now on */

void
ngx_http_llm_reader_leads(ngx_http_llm_ctx_t *ctx)
{
    ctx->reader.wake = ngx_http_llm_reader_wake;
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


/* what fills the flight are events of another connection: nobody would run
 * what is posted on this one */

static void
ngx_http_llm_reader_wake_elsewhere(ngx_http_llm_reader_t *rd)
{
    ngx_post_event(rd->request->connection->write, &ngx_posted_events);
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

void
ngx_http_llm_reader_gone(ngx_http_llm_ctx_t *ctx)
{
    ctx->aborted = 1;
    ctx->error = "client_closed";
    ctx->request->connection->error = 1;
    ctx->request->headers_out.status = NGX_HTTP_CLIENT_CLOSED_REQUEST;

    ngx_http_llm_reader_finalize(ctx, NGX_HTTP_CLIENT_CLOSED_REQUEST);
}


/*
 * The request ends before its answer does; but it may lead a flight that is
 * wanted.  After this it may be gone.
 */

void
ngx_http_llm_reader_finalize(ngx_http_llm_ctx_t *ctx, ngx_int_t rc)
{
    if (!ctx->aborted && ngx_http_llm_lead_others(ctx)
        && !ctx->flight->ended)
    {
        /* it can't be told anything any more */

        ctx->aborted = 1;
        ctx->request->connection->error = 1;
    }

    if (ctx->aborted && ngx_http_llm_lead_leave(ctx) == NGX_OK) {
        return;
    }

    ctx->finalized = 1;
    ngx_http_finalize_request(ctx->request, rc);
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
    ngx_connection_t       *c;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_reader_t  *rd;

    start = ngx_http_llm_now();

    c = r->connection;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    rd = &ctx->reader;

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

        if (rc == NGX_BUSY) {
            ngx_http_llm_lead_restart(ctx);
            return;
        }

        if (rc == NGX_AGAIN) {

            if (rd->busy || c->buffered) {
                goto write;
            }

            return;
        }

        if (rc != NGX_OK) {
            ngx_http_llm_reader_finalize(ctx, rc == NGX_DONE ? NGX_OK : rc);
            return;
        }
    }

write:

    if (ngx_http_llm_reader_write(ctx) != NGX_OK) {
        goto failed;
    }

    ctx->overhead += ngx_http_llm_now() - start;

    if (rd->last_sent && !(ctx->attempt && ctx->attempt->running)) {
        ctx->finalized = 1;
        ngx_http_llm_reader_cleanup(ctx);
        ngx_http_finalize_request(r, NGX_OK);
        return;
    }

    if (rd->last_sent && rd->failed && !rd->busy && !c->buffered
        && ngx_http_llm_lead_others(ctx) && !ctx->flight->ended)
    {
        /* the others' answer goes on */

        ngx_http_llm_reader_finalize(ctx, NGX_OK);
        return;
    }

    if (ngx_http_llm_reader_timers(ctx) != NGX_OK) {
        goto failed;
    }

    if (rd->last_sent && c->read->ready && !ngx_http_llm_multiplexed(r)) {
        ngx_post_event(c->read, &ngx_posted_events);
    }

    return;

failed:

    if (c->error) {
        ngx_http_llm_reader_gone(ctx);
        return;
    }

    ngx_http_llm_reader_finalize(ctx, NGX_ERROR);
}


/* as much as the client's socket takes */

static ngx_int_t
ngx_http_llm_reader_write(ngx_http_llm_ctx_t *ctx)
{
    ngx_chain_t            *out;
    ngx_connection_t       *c;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    c = ctx->request->connection;

    do {
        out = NULL;
        rd->more = 0;

        if ((!rd->flushing || ctx->flight->ended || rd->failed)
            && ngx_http_llm_reader_collect(ctx, &out) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if ((out || rd->busy || c->buffered || ctx->request->buffered)
            && ngx_http_llm_reader_output(ctx, out) != NGX_OK)
        {
            return NGX_ERROR;
        }

    } while (rd->more && rd->busy == NULL && !c->buffered);

    return NGX_OK;
}


/* what the cursor has not passed, as few buffers as it takes; of a flight
 * that has others to read it, not too much at once */

static ngx_int_t
ngx_http_llm_reader_collect(ngx_http_llm_ctx_t *ctx, ngx_chain_t **out)
{
    size_t                  size;
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
    size = 0;

    if (rd->last_sent || rd->head_only || !rd->head_sent) {
        return NGX_OK;
    }

    if (f->form && (rd->busy || ctx->request->connection->buffered)) {
        rd->more = 1;
        return NGX_OK;
    }

    while ((block = rd->block) != NULL) {

        while (rd->record < block->n) {

            if (f->form && size > NGX_HTTP_LLM_UNREAD_HIGH) {
                rd->more = 1;
                goto done;
            }

            /* records grow downwards from the end of the block */

            rec = (ngx_http_llm_record_t *) block->end - ++rd->record;

            if ((rec->flags & NGX_HTTP_LLM_REC_USAGE) && !rd->show_usage) {
                continue;
            }

            pos = block->start + rec->offset;
            last = pos + rec->len;
            size += rec->len;

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

done:

    if (*out) {
        ctx->last_shown = ngx_current_msec;

        if (ctx->first_shown == 0) {
            ctx->first_shown = ctx->last_shown;
        }
    }

    if ((f->ended || rd->failed) && !rd->more
        && ngx_http_llm_reader_end(ctx, &ll) != NGX_OK)
    {
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
    llm_error_t             err;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    f = ctx->flight;
    text.len = 0;

    if (rd->failed || (f->failed && !f->told)) {

        if (!f->stream && !rd->committed) {
            return NGX_ERROR;
        }

        err = rd->failed ? rd->error : f->error;
        err.request_id = ngx_http_llm_request_id(ctx->request);

        ngx_http_llm_mirror_answer(f);

        if (rd->dialect->stream_error(&f->answer, &err, &ctx->mem, &text)
            != LLM_OK)
        {
            return NGX_ERROR;
        }

        if (f->lost) {
            ngx_http_llm_reader_lost(ctx);
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


static void
ngx_http_llm_reader_lost(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    (void) ngx_atomic_fetch_add(&lmcf->shared->lost, 1);
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


ngx_int_t
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


ngx_int_t
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

    ngx_http_llm_reader_trim(ctx, r->connection);

    return NGX_OK;
}


/* gives back what the client's socket has taken; c: the connection whose
 * event this is, NULL: another's */

void
ngx_http_llm_reader_trim(ngx_http_llm_ctx_t *ctx, ngx_connection_t *c)
{
    u_char                  *pos;
    ngx_chain_t             *cl;
    ngx_http_llm_block_t    *b;
    ngx_http_llm_flight_t   *f;
    ngx_http_llm_reader_t   *rd;
    ngx_http_llm_attempt_t  *a;

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

    b = rd->block;

    if (cl == NULL) {

        if (rd->record == b->n && b->next == NULL
            && f->nreaders == 1 && !f->open)
        {
            rd->block = NULL;
            b = NULL;
        }

    } else {

        pos = cl->buf->pos;

        for (b = rd->low; b != rd->block; b = b->next) {
            if (pos >= b->start && pos <= b->last) {
                break;
            }
        }
    }

    ngx_http_llm_flight_hold(rd, b);
    ngx_http_llm_flight_trim(f);

    a = f->lead ? f->lead->attempt : ctx->attempt;

    if (a && a->closed) {
        ngx_http_llm_attempt_resume(a, c);
    }

    if (f->mirror) {
        ngx_http_llm_mirror_resume(f->mirror);
    }
}
