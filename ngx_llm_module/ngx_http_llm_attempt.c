
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * An attempt: one try at one provider.  It is a background clone subrequest
 * of the request that leads the flight, running ngx_http_upstream unbuffered,
 * so that its failure costs the client nothing.  Its output goes nowhere (see
 * ngx_http_llm_filter.c); what comes back is put into the flight by
 * ngx_http_llm_answer.c, and the parent sends.
 *
 * All attempts of a worker read into one buffer: whatever was received is
 * taken over before the event handler returns.  Only a head that comes in
 * pieces gets a buffer of its own.
 *
 * The valve: ngx_http_upstream stops to read while u->busy_bufs is not empty
 * and u->buffer has no room.  A closed valve is a buffer of one byte there
 * that nobody sends; it is opened by taking that byte away.
 *
 * The timer is one event for all phases.  It is armed for the nearest
 * deadline and, when a later one has replaced that in the meantime, armed
 * again on expiry; so an event of a stream costs no timer operation.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_attempt_create_request(ngx_http_request_t *r);
static ngx_chain_t *ngx_http_llm_attempt_body(ngx_http_llm_attempt_t *a,
    off_t *length);
static ngx_int_t ngx_http_llm_attempt_send(void *data, ngx_chain_t *in);
static ngx_int_t ngx_http_llm_attempt_reinit(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_attempt_head(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_attempt_whole_head(ngx_http_request_t *r,
    ngx_http_upstream_t *u);
static ngx_int_t ngx_http_llm_attempt_keep_head(ngx_http_request_t *r,
    ngx_http_upstream_t *u, u_char *last);
static ngx_int_t ngx_http_llm_attempt_header(ngx_http_llm_attempt_t *a,
    ngx_table_elt_t *h);
static void ngx_http_llm_attempt_abort_request(ngx_http_request_t *r);
static void ngx_http_llm_attempt_finalize(ngx_http_request_t *r, ngx_int_t rc);
static ngx_int_t ngx_http_llm_attempt_input_init(void *data);
static ngx_int_t ngx_http_llm_attempt_input(void *data, ssize_t bytes);
static ngx_int_t ngx_http_llm_attempt_chunks(ngx_http_llm_attempt_t *a,
    u_char *pos, u_char *last);
static void ngx_http_llm_attempt_valve(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_attempt_done(ngx_http_request_t *r, void *data,
    ngx_int_t rc);
static ngx_msec_t ngx_http_llm_attempt_deadline(ngx_http_llm_attempt_t *a,
    const char **error);
static void ngx_http_llm_attempt_arm(ngx_http_llm_attempt_t *a);
static void ngx_http_llm_attempt_timer(ngx_event_t *ev);


/* a worker's */

static u_char  *ngx_http_llm_read_buffer;


ngx_int_t
ngx_http_llm_attempt_init_worker(ngx_cycle_t *cycle)
{
    ngx_http_llm_read_buffer = ngx_palloc(cycle->pool,
                                          NGX_HTTP_LLM_READ_BUFFER);

    return ngx_http_llm_read_buffer ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_llm_attempt_start(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t                   i;
    ngx_http_request_t          *r, *sr;
    ngx_http_llm_attempt_t      *a;
    ngx_http_llm_provider_t     *p;
    ngx_http_llm_loc_conf_t     *llcf;
    ngx_http_post_subrequest_t  *ps;

    r = ctx->request;

    a = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_attempt_t));
    if (a == NULL) {
        return NGX_ERROR;
    }

    ps = ngx_palloc(r->pool, sizeof(ngx_http_post_subrequest_t));
    if (ps == NULL) {
        return NGX_ERROR;
    }

    ps->handler = ngx_http_llm_attempt_done;
    ps->data = a;

    p = ctx->target->provider;
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    a->ctx = ctx;
    a->flight = ctx->flight;
    a->provider = p;
    a->model = ctx->target->model;

    for (i = 0; i < NGX_HTTP_LLM_T_MAX; i++) {
        a->timeout[i] = llcf->timeout[i] != NGX_CONF_UNSET_MSEC
                        ? llcf->timeout[i] : p->timeout[i];
    }

    a->flight->answer.dialect = p->dialect;
    a->flight->answer.endpoint = ctx->endpoint;
    a->flight->answer.structured = ctx->rq.structured;
    a->flight->answer.hide_usage = 1;

    if (ngx_http_subrequest(r, &r->uri, &r->args, &sr, ps,
                            NGX_HTTP_SUBREQUEST_BACKGROUND
                            |NGX_HTTP_SUBREQUEST_CLONE)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    sr->content_handler = ngx_http_llm_handler;
    ngx_http_set_ctx(sr, a, ngx_http_llm_module);

    a->request = sr;
    a->running = 1;
    a->started = ngx_current_msec;

    a->timer.handler = ngx_http_llm_attempt_timer;
    a->timer.data = r->connection;
    a->timer.log = r->connection->log;

    ctx->attempt = a;
    ctx->flight->attempt = a;
    ctx->attempts++;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm attempt %ui: \"%V\" model \"%V\"",
                   ctx->attempts, &p->name, &a->model);

    return NGX_OK;
}


/* the content handler of the subrequest */

ngx_int_t
ngx_http_llm_attempt_handler(ngx_http_request_t *r)
{
    ngx_http_upstream_t      *u;
    ngx_http_llm_attempt_t   *a;
    ngx_http_llm_provider_t  *p;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    p = a->provider;

    if (ngx_http_upstream_create(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    u = r->upstream;

#if (NGX_HTTP_SSL)
    u->ssl = p->tls;
#endif

    if (p->tls) {
        ngx_str_set(&u->schema, "https://");

    } else {
        ngx_str_set(&u->schema, "http://");
    }

    u->output.tag = (ngx_buf_tag_t) &ngx_http_llm_module;
    u->output.output_filter = ngx_http_llm_attempt_send;
    u->output.filter_ctx = a;

    u->conf = &p->upstream;
    u->buffering = 0;

    u->create_request = ngx_http_llm_attempt_create_request;
    u->reinit_request = ngx_http_llm_attempt_reinit;
    u->process_header = ngx_http_llm_attempt_head;
    u->abort_request = ngx_http_llm_attempt_abort_request;
    u->finalize_request = ngx_http_llm_attempt_finalize;

    u->input_filter_init = ngx_http_llm_attempt_input_init;
    u->input_filter = ngx_http_llm_attempt_input;
    u->input_filter_ctx = a;

    /* a buffer and lists given here are not made by ngx_http_upstream */

    u->buffer.start = ngx_http_llm_read_buffer;
    u->buffer.pos = u->buffer.start;
    u->buffer.last = u->buffer.start;
    u->buffer.end = u->buffer.start + NGX_HTTP_LLM_READ_BUFFER;
    u->buffer.temporary = 1;
    u->buffer.tag = u->output.tag;

    if (ngx_list_init(&u->headers_in.headers, r->pool, 1,
                      sizeof(ngx_table_elt_t))
        != NGX_OK
        || ngx_list_init(&u->headers_in.trailers, r->pool, 1,
                         sizeof(ngx_table_elt_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_llm_attempt_arm(a);

    r->main->count++;

    ngx_http_upstream_init(r);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_llm_attempt_create_request(ngx_http_request_t *r)
{
    off_t                    length;
    uint64_t                 start;
    ngx_str_t                path;
    ngx_chain_t             *body;
    ngx_http_llm_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    start = ngx_http_llm_now();

    body = ngx_http_llm_attempt_body(a, &length);
    if (body == NULL) {
        return NGX_ERROR;
    }

    path.len = a->ctx->endpoint->path.len + 1;
    path.data = ngx_pnalloc(r->pool, path.len);
    if (path.data == NULL) {
        return NGX_ERROR;
    }

    path.data[0] = '/';
    ngx_memcpy(path.data + 1, a->ctx->endpoint->path.data, path.len - 1);

    r->upstream->request_bufs = ngx_http_llm_build_head(r->main, a->provider,
                                                        &path, length, body);

    a->ctx->overhead += ngx_http_llm_now() - start;

    return r->upstream->request_bufs ? NGX_OK : NGX_ERROR;
}


/* the client's body with what must change spliced in; no byte is copied */

static ngx_chain_t *
ngx_http_llm_attempt_body(ngx_http_llm_attempt_t *a, off_t *length)
{
    size_t               offset;
    ngx_buf_t           *b;
    ngx_uint_t           i;
    llm_uint_t           n;
    ngx_chain_t         *out, **ll, *cl;
    llm_change_t         change;
    llm_splice_t         splices[LLM_SPLICES];
    ngx_http_llm_ctx_t  *ctx;
    struct {
        u_char          *pos;
        u_char          *last;
    } piece[2 * LLM_SPLICES + 1];

    ctx = a->ctx;

    change.model.len = a->model.len;
    change.model.data = a->model.data;
    change.ask_usage = ctx->rq.stream && !ctx->rq.usage_asked
                       && a->provider->stream_usage
                       && !a->provider->no_stream_options;

    a->asked_usage = change.ask_usage;

    n = 0;

    if (a->provider->dialect->build(&ctx->rq, &change, &ctx->mem, splices, &n)
        != LLM_OK)
    {
        return NULL;
    }

    offset = 0;

    for (i = 0; i < n; i++) {
        piece[2 * i].pos = ctx->rq.body.data + offset;
        piece[2 * i].last = ctx->rq.body.data + splices[i].offset;
        piece[2 * i + 1].pos = splices[i].text.data;
        piece[2 * i + 1].last = splices[i].text.data + splices[i].text.len;
        offset = splices[i].offset + splices[i].len;
    }

    piece[2 * n].pos = ctx->rq.body.data + offset;
    piece[2 * n].last = ctx->rq.body.data + ctx->rq.body.len;

    out = NULL;
    ll = &out;
    b = NULL;
    *length = 0;

    for (i = 0; i < 2 * n + 1; i++) {

        if (piece[i].pos == piece[i].last) {
            continue;
        }

        b = ngx_calloc_buf(a->request->pool);
        cl = ngx_alloc_chain_link(a->request->pool);

        if (b == NULL || cl == NULL) {
            return NULL;
        }

        /* start, for ngx_http_upstream_reinit() */

        b->start = piece[i].pos;
        b->pos = piece[i].pos;
        b->last = piece[i].last;
        b->end = piece[i].last;
        b->memory = 1;

        *length += b->last - b->pos;

        cl->buf = b;
        cl->next = NULL;
        *ll = cl;
        ll = &cl->next;
    }

    if (b) {
        b->last_buf = 1;
    }

    return out;
}


/* in ngx_chain_writer()'s place: when was the request sent? */

static ngx_int_t
ngx_http_llm_attempt_send(void *data, ngx_chain_t *in)
{
    ngx_http_llm_attempt_t *a = data;

    ngx_int_t  rc;

    rc = ngx_chain_writer(&a->request->upstream->writer, in);

    if (rc == NGX_OK) {
        a->sent = ngx_current_msec;
        a->last_event = a->sent;
        ngx_http_llm_attempt_arm(a);
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_attempt_reinit(ngx_http_request_t *r)
{
    ngx_http_llm_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    ngx_memzero(&a->status, sizeof(ngx_http_status_t));
    r->state = 0;

    /* a connection is made anew, and has its own time for that */

    a->sent = 0;
    a->started = ngx_current_msec;

    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }

    ngx_http_llm_attempt_arm(a);

    return NGX_OK;
}


/* u->process_header: parses the head when it is whole */

static ngx_int_t
ngx_http_llm_attempt_head(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_table_elt_t          h;
    ngx_http_upstream_t     *u;
    ngx_http_llm_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    u = r->upstream;

    for ( ;; ) {

        rc = ngx_http_llm_attempt_whole_head(r, u);

        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_llm_status_line(r, u, &a->status);

        if (rc != NGX_OK) {
            return rc == NGX_AGAIN ? NGX_HTTP_UPSTREAM_INVALID_HEADER : rc;
        }

        for ( ;; ) {
            rc = ngx_http_llm_header_line(r, u, &h);

            if (rc != NGX_OK) {
                break;
            }

            if (u->headers_in.status_n < NGX_HTTP_OK) {
                continue;
            }

            rc = ngx_http_llm_attempt_header(a, &h);

            if (rc != NGX_OK) {
                return rc;
            }
        }

        if (rc != NGX_DONE) {
            return rc == NGX_AGAIN ? NGX_HTTP_UPSTREAM_INVALID_HEADER : rc;
        }

        if (u->headers_in.status_n >= NGX_HTTP_OK) {
            return NGX_OK;
        }

        /* 100, 102, 103: another head follows */

        ngx_memzero(&a->status, sizeof(ngx_http_status_t));
        r->state = 0;
        u->headers_in.status_n = 0;
        u->headers_in.content_length_n = -1;
        u->headers_in.chunked = 0;
    }
}


static ngx_int_t
ngx_http_llm_attempt_whole_head(ngx_http_request_t *r, ngx_http_upstream_t *u)
{
    size_t   len;
    u_char  *p, *last;

    last = u->buffer.last;

    for (p = u->buffer.pos; p < last; p++) {

        p = memchr(p, LF, last - p);

        if (p == NULL) {
            break;
        }

        if ((last - p > 1 && p[1] == LF)
            || (last - p > 2 && p[1] == CR && p[2] == LF))
        {
            return ngx_http_llm_attempt_keep_head(r, u, p);
        }
    }

    if (u->buffer.start != ngx_http_llm_read_buffer) {
        return NGX_AGAIN;
    }

    /* others will read into this buffer before more of the head comes */

    len = last - u->buffer.pos;

    if (len >= NGX_HTTP_LLM_HEAD_MAX) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream sent too big header");
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    p = ngx_palloc(r->pool, NGX_HTTP_LLM_HEAD_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, u->buffer.pos, len);

    u->buffer.start = p;
    u->buffer.pos = p;
    u->buffer.last = p + len;
    u->buffer.end = p + NGX_HTTP_LLM_HEAD_MAX;

    return NGX_AGAIN;
}


/* what is passed on of it is wanted when the buffer has other things in it */

static ngx_int_t
ngx_http_llm_attempt_keep_head(ngx_http_request_t *r, ngx_http_upstream_t *u,
    u_char *last)
{
    ngx_http_llm_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    a->head_from = u->buffer.pos;

    a->head_to = ngx_pnalloc(r->pool, last - u->buffer.pos);
    if (a->head_to == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(a->head_to, u->buffer.pos, last - u->buffer.pos);

    return NGX_OK;
}


/* keeps what is for the client; its strings are those of the kept head */

static ngx_int_t
ngx_http_llm_attempt_header(ngx_http_llm_attempt_t *a, ngx_table_elt_t *h)
{
    ngx_table_elt_t     *kept;
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;

    h->key.data = a->head_to + (h->key.data - a->head_from);
    h->value.data = a->head_to + (h->value.data - a->head_from);

    if (h->key.len == 12 && h->lowcase_key
        && ngx_strncmp(h->lowcase_key, "content-type", 12) == 0)
    {
        a->content_type = h->value;

        return NGX_OK;
    }

    if (h->key.len == 16 && h->lowcase_key
        && ngx_strncmp(h->lowcase_key, "content-encoding", 16) == 0
        && !(h->value.len == 8
             && ngx_strncasecmp(h->value.data, (u_char *) "identity", 8) == 0))
    {
        a->error = "encoded_answer";

        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "llm: provider \"%V\" sent an encoded answer (\"%V\") "
                      "though identity was asked for",
                      &a->provider->name, &h->value);

        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    if (ngx_http_llm_header_hidden(a->provider, h)) {
        return NGX_OK;
    }

    if (a->headers == NULL) {
        a->headers = ngx_array_create(a->request->pool, 8,
                                      sizeof(ngx_table_elt_t));
        if (a->headers == NULL) {
            return NGX_ERROR;
        }
    }

    kept = ngx_array_push(a->headers);
    if (kept == NULL) {
        return NGX_ERROR;
    }

    *kept = *h;
    kept->lowcase_key = NULL;

    if ((h->key.len == 12 && h->lowcase_key
         && ngx_strncmp(h->lowcase_key, "x-request-id", 12) == 0)
        || (h->key.len == 10 && h->lowcase_key
            && ngx_strncmp(h->lowcase_key, "request-id", 10) == 0))
    {
        ctx->provider_request_id = kept->value;
    }

    return NGX_OK;
}


static void
ngx_http_llm_attempt_abort_request(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm attempt abort request");
}


/* u->finalize_request: on every way out, the client's leaving included */

static void
ngx_http_llm_attempt_finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_request_t         *mr;
    ngx_http_llm_attempt_t     *a;
    ngx_http_upstream_state_t  *state, *states;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm attempt finalize: %i", rc);

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }

    /* $upstream_* of the main request list all attempts */

    mr = r->main;

    if (r->upstream_states == NULL || r->upstream_states->nelts == 0) {
        return;
    }

    if (mr->upstream_states == NULL) {
        mr->upstream_states = r->upstream_states;
        return;
    }

    state = ngx_array_push_n(mr->upstream_states, r->upstream_states->nelts);

    if (state) {
        states = r->upstream_states->elts;
        ngx_memcpy(state, states, r->upstream_states->nelts
                                  * sizeof(ngx_http_upstream_state_t));
    }
}


static ngx_int_t
ngx_http_llm_attempt_input_init(void *data)
{
    ngx_http_llm_attempt_t *a = data;

    ngx_http_upstream_t  *u;

    u = a->request->upstream;

    a->head = 1;

    if (u->headers_in.status_n == NGX_HTTP_NO_CONTENT
        || u->headers_in.status_n == NGX_HTTP_NOT_MODIFIED)
    {
        u->length = 0;

    } else if (u->headers_in.chunked) {
        u->length = 1;

    } else {
        u->length = u->headers_in.content_length_n;
    }

    if (u->length == 0) {
        a->whole = 1;
        u->keepalive = !u->headers_in.connection_close;
    }

    return ngx_http_llm_answer_begin(a);
}


/* the bytes stand behind u->buffer.last, and are all taken */

static ngx_int_t
ngx_http_llm_attempt_input(void *data, ssize_t bytes)
{
    ngx_http_llm_attempt_t *a = data;

    u_char               *pos, *last;
    uint64_t              start;
    ngx_int_t             rc;
    ngx_http_upstream_t  *u;

    start = ngx_http_llm_now();

    u = a->request->upstream;

    pos = u->buffer.last;
    last = pos + bytes;

    if (a->whole) {
        ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                      "upstream sent more data than its framing allows");
        u->keepalive = 0;
        return NGX_OK;
    }

    if (u->headers_in.chunked) {
        rc = ngx_http_llm_attempt_chunks(a, pos, last);

    } else {

        if (u->length != -1 && bytes >= u->length) {

            if (bytes > u->length) {
                ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                              "upstream sent more data than specified in "
                              "\"Content-Length\" header");
                last = pos + u->length;

            } else {
                u->keepalive = !u->headers_in.connection_close;
            }

            a->whole = 1;
            u->length = 0;

        } else if (u->length != -1) {
            u->length -= bytes;
        }

        rc = ngx_http_llm_answer_feed(a, pos, last);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_attempt_valve(a);
    ngx_http_llm_attempt_arm(a);

    a->ctx->overhead += ngx_http_llm_now() - start;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_attempt_chunks(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last)
{
    off_t                 size;
    ngx_buf_t             b;
    ngx_int_t             rc;
    ngx_http_upstream_t  *u;

    u = a->request->upstream;

    ngx_memzero(&b, sizeof(ngx_buf_t));

    b.pos = pos;
    b.last = last;

    for ( ;; ) {

        rc = ngx_http_llm_parse_chunked(a->request, &b, &a->chunked);

        if (rc == NGX_OK) {

            size = ngx_min(b.last - b.pos, a->chunked.size);

            rc = ngx_http_llm_answer_feed(a, b.pos, b.pos + size);
            if (rc != NGX_OK) {
                return rc;
            }

            b.pos += size;
            a->chunked.size -= size;

            continue;
        }

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc == NGX_DONE) {
            a->whole = 1;
            u->length = 0;
            u->keepalive = !u->headers_in.connection_close;

            if (b.pos != b.last) {
                ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                              "upstream sent data after final chunk");
                u->keepalive = 0;
            }

            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "upstream sent invalid chunked response");

        return NGX_ERROR;
    }
}


/* closes the valve when the reader is far behind */

static void
ngx_http_llm_attempt_valve(ngx_http_llm_attempt_t *a)
{
    ngx_http_upstream_t    *u;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (f->appended - f->trimmed <= NGX_HTTP_LLM_UNREAD_HIGH
        || !f->released || f->ended || a->whole || a->closed)
    {
        return;
    }

    u = a->request->upstream;

    a->closed = 1;
    a->closed_at = ngx_current_msec;
    a->posted = 0;

    if (a->valve_buf.start == NULL) {
        a->valve_buf.start = (u_char *) "v";
        a->valve_buf.end = a->valve_buf.start + 1;
        a->valve_buf.memory = 1;
        a->valve_buf.tag = u->output.tag;
    }

    a->valve_buf.pos = a->valve_buf.start;
    a->valve_buf.last = a->valve_buf.end;
    a->valve.buf = &a->valve_buf;
    a->valve.next = NULL;

    u->busy_bufs = &a->valve;
    u->free_bufs = NULL;

    u->buffer.last = u->buffer.end;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, a->request->connection->log, 0,
                   "llm attempt valve closed");
}


/*
 * Called by a reader that has taken something: opens the valve when there is
 * room.  The attempt runs from the posted requests, the caller runs them.
 */

void
ngx_http_llm_attempt_resume(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!a->closed || !a->running
        || f->appended - f->trimmed > NGX_HTTP_LLM_UNREAD_LOW)
    {
        return;
    }

    a->closed = 0;
    a->waited += ngx_current_msec - a->closed_at;
    a->valve_buf.pos = a->valve_buf.last;
    a->last_event = ngx_current_msec;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, a->request->connection->log, 0,
                   "llm attempt valve open");

    if (!a->posted) {
        a->posted = 1;
        (void) ngx_http_post_request(a->request, &a->posted_request);
    }
}


/* the subrequest has ended, one way or another, but not by the client */

static ngx_int_t
ngx_http_llm_attempt_done(ngx_http_request_t *r, void *data, ngx_int_t rc)
{
    ngx_http_llm_attempt_t *a = data;

    ngx_http_upstream_t  *u;

    u = r->upstream;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm attempt done: %i, whole:%ui head:%ui",
                   rc, a->whole, a->head);

    a->running = 0;

    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }

    /* an answer that the end of the connection ends */

    if (rc == NGX_OK && u && a->head && !a->whole
        && !u->headers_in.chunked && u->headers_in.content_length_n == -1)
    {
        a->whole = 1;
    }

    if (a->error == NULL && !a->head) {

        if (u == NULL || rc == NGX_HTTP_INTERNAL_SERVER_ERROR) {
            a->error = "internal";

        } else if (a->provider->named == NULL && a->provider->naddrs == 0) {
            a->error = "upstream_dns";

        } else if (!u->request_sent) {
            a->error = (rc == NGX_HTTP_GATEWAY_TIME_OUT)
                       ? "timeout_connect" : "upstream_connect";

        } else if (rc == NGX_HTTP_GATEWAY_TIME_OUT) {
            a->error = "timeout_send";

        } else {
            a->error = u->state && u->state->bytes_received
                       ? "upstream_invalid" : "upstream_closed";
        }
    }

    ngx_http_llm_answer_end(a);

    /* the failure ends here: what to do is decided by the flight's owner */

    return NGX_OK;
}


/* called once the main request is going away: nothing may point here then */

void
ngx_http_llm_attempt_cleanup(ngx_http_llm_attempt_t *a)
{
    if (a->cleaned) {
        return;
    }

    a->cleaned = 1;
    a->running = 0;

    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }

    if (a->framer) {
        a->provider->framing->free(a->framer);
        a->framer = NULL;
    }
}


/*
 * Ends a running attempt from outside of its own events.  It may end the
 * request with it: the caller must return at once.
 */

void
ngx_http_llm_attempt_abort(ngx_http_llm_attempt_t *a, const char *error)
{
    ngx_connection_t     *c;
    ngx_http_upstream_t  *u;

    u = a->request->upstream;
    c = u ? u->peer.connection : NULL;

    if (c == NULL) {
        return;
    }

    if (a->error == NULL) {
        a->error = error;
    }

    /* how long a whole answer takes is a matter of what was asked */

    if (error && (ngx_strcmp(error, "timeout_plain") == 0
                  || ngx_strcmp(error, "timeout_total") == 0))
    {
        a->blameless = 1;
    }

    if (!u->request_sent) {
        c->write->timedout = 1;
        c->write->handler(c->write);
        return;
    }

    if (a->flight->ended && a->head) {

        /* all was said: this is no failure to be logged */

        u->keepalive = 0;
        u->length = 0;
        u->busy_bufs = NULL;
        c->read->handler(c->read);
        return;
    }

    c->read->timedout = 1;
    c->read->handler(c->read);
}


/* when must what have come?  *error is the class of its absence */

static ngx_msec_t
ngx_http_llm_attempt_deadline(ngx_http_llm_attempt_t *a, const char **error)
{
    ngx_msec_t             deadline, total;
    ngx_http_upstream_t   *u;

    u = a->request->upstream;

    if (a->flight->ended) {
        *error = NULL;
        return a->last_event + NGX_HTTP_LLM_LINGER;
    }

    if (a->closed) {
        a->last_event = ngx_current_msec;
    }

    if (!a->sent) {
        *error = "timeout_connect";
        deadline = a->started + a->timeout[NGX_HTTP_LLM_T_CONNECT];

        if (u && u->request_sent && !u->request_body_sent
            && u->peer.connection && u->state->connect_time != (ngx_msec_t) -1)
        {
            /* on its way; ngx_http_upstream watches over each write */

            deadline = ngx_current_msec + 1000;
        }

    } else if (!a->ctx->rq.stream || (a->head && !a->flight->stream)) {
        *error = "timeout_plain";
        deadline = a->sent + a->timeout[NGX_HTTP_LLM_T_PLAIN];

        /* the provider is not to blame for a slow client */

        deadline += a->closed ? ngx_current_msec - a->sent : a->waited;

    } else if (!a->first) {
        *error = "timeout_first_token";
        deadline = a->sent + a->timeout[NGX_HTTP_LLM_T_FIRST_TOKEN];

    } else {
        *error = "timeout_idle";
        deadline = a->last_event + a->timeout[NGX_HTTP_LLM_T_IDLE];
    }

    total = a->ctx->arrived + a->timeout[NGX_HTTP_LLM_T_TOTAL];

    if ((ngx_msec_int_t) (total - deadline) < 0) {
        *error = "timeout_total";
        deadline = total;
    }

    return deadline;
}


static void
ngx_http_llm_attempt_arm(ngx_http_llm_attempt_t *a)
{
    ngx_msec_t       deadline;
    const char      *error;
    ngx_msec_int_t   left;

    if (!a->running) {
        return;
    }

    deadline = ngx_http_llm_attempt_deadline(a, &error);

    if (a->timer.timer_set) {

        if ((ngx_msec_int_t) (deadline - a->timer.timer.key) >= 0) {
            return;
        }

        ngx_del_timer(&a->timer);
    }

    left = (ngx_msec_int_t) (deadline - ngx_current_msec);

    ngx_add_timer(&a->timer, left > 0 ? (ngx_msec_t) left : 1);
}


static void
ngx_http_llm_attempt_timer(ngx_event_t *ev)
{
    ngx_msec_t               deadline;
    const char              *error;
    ngx_connection_t        *c;
    ngx_http_request_t      *r;
    ngx_http_llm_ctx_t      *ctx;
    ngx_http_llm_attempt_t  *a;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r->main, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    a = ctx->attempt;

    ngx_http_set_log_request(c->log, r);

    deadline = ngx_http_llm_attempt_deadline(a, &error);

    if ((ngx_msec_int_t) (deadline - ngx_current_msec) > 0) {
        ngx_http_llm_attempt_arm(a);
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0, "llm attempt timer: %s",
                   error ? error : "linger");

    ngx_http_llm_attempt_abort(a, error);
}
