
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
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_attempt_create_request(ngx_http_request_t *r);
static void ngx_http_llm_attempt_change(ngx_http_llm_attempt_t *a,
    llm_change_t *change);
static ngx_chain_t *ngx_http_llm_attempt_body(ngx_http_llm_attempt_t *a,
    off_t *length);
static ngx_int_t ngx_http_llm_attempt_send(void *data, ngx_chain_t *in);
static ngx_int_t ngx_http_llm_attempt_reinit(ngx_http_request_t *r);
static void ngx_http_llm_attempt_abort_request(ngx_http_request_t *r);
static void ngx_http_llm_attempt_finalize(ngx_http_request_t *r, ngx_int_t rc);
static ngx_int_t ngx_http_llm_attempt_done(ngx_http_request_t *r, void *data,
    ngx_int_t rc);


/* a worker's */

u_char  *ngx_http_llm_read_buffer;


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
    a->target = ctx->target;
    a->provider = p;

    for (i = 0; i < NGX_HTTP_LLM_T_MAX; i++) {
        a->timeout[i] = llcf->timeout[i] != NGX_CONF_UNSET_MSEC
                        ? llcf->timeout[i] : p->timeout[i];
    }

    a->flight->answer.dialect = p->dialect;
    a->flight->answer.endpoint = ctx->endpoint;
    a->flight->answer.structured = ctx->rq.structured;
    a->flight->answer.hide_usage = 1;
    a->flight->answer.want_bound = ctx->targets->mixed;

    llm_wait_init(&a->wait);

    if (ngx_http_llm_resume_init(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_resume_begin(a);

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
    ctx->attempts++;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm attempt %ui: \"%V\" model \"%V\"",
                   ctx->attempts, &p->name, &a->target->model);

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


/* what this provider is to be told otherwise than the client wrote it */

static void
ngx_http_llm_attempt_change(ngx_http_llm_attempt_t *a, llm_change_t *change)
{
    ngx_str_t              model;
    ngx_http_llm_ctx_t    *ctx;
    ngx_http_llm_price_t  *m;

    ctx = a->ctx;

    ngx_memzero(change, sizeof(llm_change_t));

    change->model.len = a->target->model.len;
    change->model.data = a->target->model.data;

    if (a->continues) {
        change->shown = llm_resume_text(ctx->resume);
    }

    if (a->target != &ctx->targets->target[ctx->order[0]]) {

        /* what the client asks of the first is not to break a stand-in */

        model = ngx_http_llm_target_model(ctx, a->target);
        m = ngx_http_llm_model_facts(a->provider, &model);

        change->max_output = m ? m->max_output : 0;
    }

    change->ask_usage = ctx->rq.stream && !ctx->rq.usage_asked
                        && a->provider->stream_usage
                        && !a->provider->no_stream_options;

    a->asked_usage = change->ask_usage;
    a->flight->usage = ctx->rq.usage_asked || a->asked_usage;
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

    ngx_http_llm_attempt_change(a, &change);

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

        } else if (a->tls_failed) {
            a->error = "upstream_tls";

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
