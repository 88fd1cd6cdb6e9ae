
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * From a provider's bytes to the flight: the framer cuts events, the dialect
 * says what each of them is, and here is decided what follows from that: hold
 * back, show, skip, end, fail.  Which dialect it is, is not known here.
 *
 * A stream is held back until its first event that is not a known preamble, a
 * plain answer until it is whole or 64 KB long: until then a failure can be
 * told as an HTTP error, or be mended by asking again.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_answer_events(ngx_http_llm_attempt_t *a,
    u_char *pos, u_char *last);
static ngx_int_t ngx_http_llm_answer_event(ngx_http_llm_attempt_t *a,
    llm_event_t *ev);
static ngx_int_t ngx_http_llm_answer_plain(ngx_http_llm_attempt_t *a,
    u_char *pos, u_char *last);
static ngx_int_t ngx_http_llm_answer_look(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_facts(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_malformed(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_told_error(ngx_http_llm_attempt_t *a,
    llm_event_t *ev);
static void ngx_http_llm_answer_end_stream(ngx_http_llm_attempt_t *a);
static void ngx_http_llm_answer_end_plain(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_refused(ngx_http_llm_attempt_t *a);
static ngx_uint_t ngx_http_llm_answer_auth(ngx_http_llm_attempt_t *a,
    ngx_uint_t status);
static void ngx_http_llm_answer_release(ngx_http_llm_flight_t *f);
static ngx_int_t ngx_http_llm_answer_gather(ngx_http_llm_flight_t *f,
    ngx_pool_t *pool, llm_str_t *out);


typedef struct {
    const char  *error;                        /* $llm_error */
    ngx_uint_t   status;
    ngx_str_t    message;
} ngx_http_llm_failure_t;


static ngx_http_llm_failure_t  ngx_http_llm_failures[] = {

    { "timeout_connect", NGX_HTTP_GATEWAY_TIME_OUT,
      ngx_string("the provider could not be reached in time") },

    { "timeout_send", NGX_HTTP_GATEWAY_TIME_OUT,
      ngx_string("the provider did not take the request in time") },

    { "timeout_first_token", NGX_HTTP_GATEWAY_TIME_OUT,
      ngx_string("the provider did not begin to answer in time") },

    { "timeout_idle", NGX_HTTP_GATEWAY_TIME_OUT,
      ngx_string("the provider stopped in the middle of its answer") },

    { "timeout_plain", NGX_HTTP_GATEWAY_TIME_OUT,
      ngx_string("the provider did not answer in time") },

    { "timeout_total", NGX_HTTP_GATEWAY_TIME_OUT,
      ngx_string("the answer was not complete in the time allowed") },

    { "upstream_dns", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider's host has no known address") },

    { "upstream_connect", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider could not be reached") },

    { "upstream_closed", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider closed the connection without an answer") },

    { "upstream_invalid", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider sent no valid HTTP answer") },

    { "encoded_answer", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider sent an encoded (compressed) answer, "
                 "which was not asked for") },

    { "truncated", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider's answer was cut") },

    { "malformed_event", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider sent an event that is not JSON "
                 "in the middle of machine-read output") },

    { "event_too_large", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider sent an event over the size limit") },

    { "upstream_error", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider reported an error") },

    { "not_a_stream", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider did not answer with a stream") },

    { "provider_auth", NGX_HTTP_BAD_GATEWAY,
      ngx_string("the provider refused the gateway's credentials") },

    { "internal", NGX_HTTP_INTERNAL_SERVER_ERROR,
      ngx_string("internal error") },

    { NULL, 0, ngx_null_string }
};


/* the flight ends without being whole; readers will tell it */

void
ngx_http_llm_fail(ngx_http_llm_flight_t *f, ngx_http_llm_ctx_t *ctx,
    const char *error)
{
    ngx_http_llm_failure_t  *fail;

    for (fail = ngx_http_llm_failures; fail->error; fail++) {
        if (ngx_strcmp(fail->error, error) == 0) {
            break;
        }
    }

    if (fail->error == NULL) {
        fail--;
    }

    ctx->error = error;

    f->error.status = f->answer.failed && f->answer.status
                      ? f->answer.status : fail->status;
    f->error.code = error;
    f->error.param = NULL;
    f->error.message.len = fail->message.len;
    f->error.message.data = fail->message.data;

    f->failed = 1;
    f->ended = 1;

    ngx_http_llm_flight_wake(f);
}


/* the head of the answer has come */

ngx_int_t
ngx_http_llm_answer_begin(ngx_http_llm_attempt_t *a)
{
    ngx_str_t              *type;
    const llm_str_t        *framed;
    ngx_http_upstream_t    *u;
    ngx_http_llm_flight_t  *f;

    f = a->flight;
    u = a->request->upstream;

    f->head = 1;
    f->status = u->headers_in.status_n;
    f->content_length = u->headers_in.chunked
                        ? -1 : u->headers_in.content_length_n;
    f->content_type = a->content_type;

    framed = &a->provider->framing->content_type;
    type = &a->content_type;

    if (a->ctx->rq.stream
        && f->status == NGX_HTTP_OK
        && type->len >= framed->len
        && ngx_strncasecmp(type->data, framed->data, framed->len) == 0)
    {
        a->framer = a->provider->framing->create(&f->mem,
                                                 NGX_HTTP_LLM_EVENT_MAX);
        if (a->framer == NULL) {
            return NGX_ERROR;
        }

        f->stream = 1;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_answer_feed(ngx_http_llm_attempt_t *a, u_char *pos, u_char *last)
{
    off_t                   before;
    ngx_int_t               rc;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (f->ended || pos == last) {
        return NGX_OK;
    }

    before = f->appended;

    rc = f->stream ? ngx_http_llm_answer_events(a, pos, last)
                   : ngx_http_llm_answer_plain(a, pos, last);

    if (ngx_queue_empty(&f->readers)) {

        /* drained: nobody will be shown it, but what is held is looked at */

        if (f->stream || f->released) {
            ngx_http_llm_flight_trim(f, NULL);
        }

    } else if (f->released && (f->appended != before || f->ended)) {
        ngx_http_llm_flight_wake(f);
    }

    if (rc != NGX_OK && a->error == NULL) {
        a->error = "internal";
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_answer_events(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last)
{
    llm_int_t    rc;
    llm_event_t  ev;

    for ( ;; ) {

        rc = a->provider->framing->feed(a->framer, &pos, last, &ev);

        if (rc == LLM_AGAIN) {
            return NGX_OK;
        }

        if (rc == LLM_DECLINED) {
            ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                          "llm: provider \"%V\" sent an event of more than "
                          "%d bytes", &a->provider->name,
                          NGX_HTTP_LLM_EVENT_MAX);
            a->error = "event_too_large";
            return NGX_ERROR;
        }

        if (rc != LLM_OK) {
            return NGX_ERROR;
        }

        if (ngx_http_llm_answer_event(a, &ev) != NGX_OK) {
            return NGX_ERROR;
        }

        if (a->flight->ended) {
            return NGX_OK;
        }
    }
}


static ngx_int_t
ngx_http_llm_answer_event(ngx_http_llm_attempt_t *a, llm_event_t *ev)
{
    size_t                  size, data;
    u_char                 *p;
    llm_uint_t              what;
    ngx_uint_t              flags;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (ev->lines && ev->data.len == 0) {

        /* a keepalive of some servers: no client could parse it */

        return NGX_OK;
    }

    if (a->provider->dialect->event(&f->answer, ev, &what) != LLM_OK) {
        return NGX_ERROR;
    }

    if (!(what & LLM_EV_PING)) {
        a->last_event = ngx_current_msec;

        if (!(what & LLM_EV_PREAMBLE)) {
            a->first = 1;
        }
    }

    if (what & LLM_EV_MALFORMED) {
        return ngx_http_llm_answer_malformed(a);
    }

    if ((what & LLM_EV_ERROR) && !f->released) {
        return ngx_http_llm_answer_told_error(a, ev);
    }

    size = llm_sse_write(NULL, ev, NULL);

    p = ngx_http_llm_flight_reserve(f, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) llm_sse_write(p, ev, &data);

    if (ev->has_id) {
        f->ids = 1;
    }

    flags = (what & LLM_EV_HIDDEN) ? NGX_HTTP_LLM_REC_USAGE : 0;

    ngx_http_llm_flight_commit(f, size, ev->lines == 1 ? data : 0, flags);

    if (!f->released
        && (!(what & (LLM_EV_PREAMBLE|LLM_EV_PING|LLM_EV_HIDDEN))
            || f->appended - f->trimmed > NGX_HTTP_LLM_UNREAD_HIGH))
    {
        ngx_http_llm_answer_release(f);
    }

    if (what & LLM_EV_ERROR) {
        a->ctx->error = "upstream_error";
        f->failed = 1;
        f->told = 1;
        f->ended = 1;

    } else if (what & LLM_EV_TERMINAL) {
        f->ended = 1;
    }

    return NGX_OK;
}


/* an event that is not JSON: left out; but within machine-read output that
 * would give a wrong text that looks whole */

static ngx_int_t
ngx_http_llm_answer_malformed(ngx_http_llm_attempt_t *a)
{
    if (a->malformed++ == 0) {
        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "llm: provider \"%V\" sent an event that is not JSON",
                      &a->provider->name);
    }

    a->ctx->error = "malformed_event";

    if (a->flight->answer.open) {
        a->error = "malformed_event";
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* an error before anything was shown: the attempt has failed */

static ngx_int_t
ngx_http_llm_answer_told_error(ngx_http_llm_attempt_t *a, llm_event_t *ev)
{
    llm_json_value_t        value;
    ngx_http_llm_flight_t  *f;
    static llm_str_t        name = llm_string("error");

    f = a->flight;

    if (ngx_http_llm_answer_auth(a, f->answer.status)) {
        a->error = "provider_auth";
        return NGX_ERROR;
    }

    a->error = "upstream_error";

    if (llm_json_find(&ev->data, &name, &value, 1) != LLM_OK
        || value.type != LLM_JSON_OBJECT)
    {
        return NGX_ERROR;
    }

    /* the provider's own words are the body of the error */

    f->error_body.data = ngx_alloc(ev->data.len, ngx_cycle->log);

    if (f->error_body.data) {
        f->error_body.len = ev->data.len;
        ngx_memcpy(f->error_body.data, ev->data.data, ev->data.len);
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_llm_answer_plain(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last)
{
    u_char                 *p;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    /* what is held is looked at when it is whole, in one go */

    if (f->released
        && a->provider->dialect->plain(&f->answer, pos, last) != LLM_OK)
    {
        return NGX_ERROR;
    }

    a->last_event = ngx_current_msec;

    p = ngx_http_llm_flight_reserve(f, last - pos);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, pos, last - pos);

    ngx_http_llm_flight_commit(f, last - pos, 0, NGX_HTTP_LLM_REC_PLAIN);

    if (!f->released
        && f->appended - f->base > NGX_HTTP_LLM_HOLD_MAX)
    {
        if (ngx_http_llm_answer_look(a) != NGX_OK) {
            return NGX_ERROR;
        }

        if (f->answer.failed && f->status < NGX_HTTP_SPECIAL_RESPONSE) {
            a->error = "upstream_error";
            return NGX_ERROR;
        }

        a->first = 1;
        ngx_http_llm_answer_release(f);
    }

    return NGX_OK;
}


static void
ngx_http_llm_answer_release(ngx_http_llm_flight_t *f)
{
    f->released = 1;
}


/* the attempt is over */

void
ngx_http_llm_answer_end(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!f->ended) {

        if (a->error && !(a->head && a->whole)) {
            ngx_http_llm_fail(f, a->ctx, a->error);

        } else if (!a->head) {
            ngx_http_llm_fail(f, a->ctx, "internal");

        } else if (f->stream) {
            ngx_http_llm_answer_end_stream(a);

        } else {
            ngx_http_llm_answer_end_plain(a);
        }
    }

    ngx_http_llm_flight_wake(f);
}


static void
ngx_http_llm_answer_end_stream(ngx_http_llm_attempt_t *a)
{
    llm_event_t             ev;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (a->error == NULL
        && a->provider->framing->finish(a->framer, &ev) == LLM_OK
        && ngx_http_llm_answer_event(a, &ev) != NGX_OK
        && a->error == NULL)
    {
        a->error = "internal";
    }

    if (a->error) {
        ngx_http_llm_fail(f, a->ctx, a->error);
        return;
    }

    if (f->ended) {
        return;
    }

    if (a->whole && f->answer.finished) {

        /* whole but for the dialect's last word */

        f->end_marker = 1;
        f->ended = 1;
        ngx_http_llm_answer_release(f);
        return;
    }

    ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                  "llm: provider \"%V\" cut its answer", &a->provider->name);

    ngx_http_llm_fail(f, a->ctx, "truncated");
}


static void
ngx_http_llm_answer_end_plain(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!a->whole) {
        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "llm: provider \"%V\" cut its answer",
                      &a->provider->name);

        ngx_http_llm_fail(f, a->ctx, a->error ? a->error : "truncated");
        return;
    }

    if (a->error) {
        ngx_http_llm_fail(f, a->ctx, a->error);
        return;
    }

    if (ngx_http_llm_answer_facts(a) != NGX_OK) {
        ngx_http_llm_fail(f, a->ctx, "internal");
        return;
    }

    if (f->status >= NGX_HTTP_BAD_REQUEST) {

        a->ctx->error_status = f->status;

        if (!f->released && ngx_http_llm_answer_refused(a) == NGX_OK) {
            return;
        }

    } else if (f->answer.failed && !f->released) {

        /* an error that calls itself 200 */

        if (ngx_http_llm_answer_auth(a, f->answer.status)) {
            ngx_http_llm_fail(f, a->ctx, "provider_auth");
            return;
        }

        if (ngx_http_llm_answer_gather(f, NULL, &f->error_body) != NGX_OK) {
            f->error_body.len = 0;
        }

        ngx_http_llm_fail(f, a->ctx, "upstream_error");
        return;
    }

    f->ended = 1;
    ngx_http_llm_answer_release(f);
}


/* what was held passes the tap now */

static ngx_int_t
ngx_http_llm_answer_look(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_block_t   *b;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    for (b = f->first; b; b = b->next) {
        if (a->provider->dialect->plain(&f->answer, b->start, b->last)
            != LLM_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_answer_facts(ngx_http_llm_attempt_t *a)
{
    llm_str_t               text;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!f->released) {

        if (f->first == f->last) {
            text.data = f->first ? f->first->start : NULL;
            text.len = f->first ? f->first->last - f->first->start : 0;

            return a->provider->dialect->plain_whole(&f->answer, &text);
        }

        if (ngx_http_llm_answer_look(a) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return a->provider->dialect->plain_end(&f->answer);
}


/*
 * An error answer, whole and not shown.  NGX_OK: it is dealt with,
 * NGX_DECLINED: it goes to the client as it is.
 */

static ngx_int_t
ngx_http_llm_answer_refused(ngx_http_llm_attempt_t *a)
{
    llm_str_t               body;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (a->asked_usage && !a->request->connection->error) {

        if (ngx_http_llm_answer_gather(f, a->request->pool, &body) != NGX_OK) {
            return NGX_DECLINED;
        }

        if (a->provider->dialect->rejected(f->status, &body)) {

            ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                          "llm: provider \"%V\" refuses stream_options, "
                          "usage of its streams will not be known",
                          &a->provider->name);

            a->provider->no_stream_options = 1;

            ngx_http_llm_attempt_cleanup(a);
            ngx_http_llm_flight_reset(f);
            a->ctx->error_status = 0;

            if (ngx_http_llm_attempt_start(a->ctx) != NGX_OK) {
                ngx_http_llm_fail(f, a->ctx, "internal");
            }

            return NGX_OK;
        }
    }

    if (ngx_http_llm_answer_auth(a, f->status)) {
        ngx_http_llm_fail(f, a->ctx, "provider_auth");
        return NGX_OK;
    }

    return NGX_DECLINED;
}


/* does it speak of our key?  Its words may quote it: they are not shown */

static ngx_uint_t
ngx_http_llm_answer_auth(ngx_http_llm_attempt_t *a, ngx_uint_t status)
{
    if (a->provider->key_source != NGX_HTTP_LLM_KEY_OURS
        || (status != NGX_HTTP_UNAUTHORIZED && status != NGX_HTTP_FORBIDDEN))
    {
        return 0;
    }

    ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                  "llm: provider \"%V\" refused our key with status %ui",
                  &a->provider->name, status);

    a->flight->answer.failed = 0;

    return 1;
}


/*
 * A head ping has promised a stream, and there is none: what the provider
 * says instead is told in-band, its own words as the message.
 */

void
ngx_http_llm_answer_no_stream(ngx_http_llm_ctx_t *ctx)
{
    llm_str_t               body, *from;
    llm_json_value_t        error, message;
    ngx_http_llm_flight_t  *f;

    static llm_str_t        name = llm_string("error");
    static llm_str_t        text = llm_string("message");

    f = ctx->flight;
    from = &f->error_body;

    if (!f->failed) {

        if (f->status < NGX_HTTP_BAD_REQUEST) {
            ngx_http_llm_fail(f, ctx, "not_a_stream");
            return;
        }

        f->answer.failed = 1;
        f->answer.status = f->status;

        ngx_http_llm_fail(f, ctx, "upstream_error");
        ctx->error = NULL;

        if (ngx_http_llm_answer_gather(f, ctx->request->pool, &body)
            != NGX_OK)
        {
            return;
        }

        from = &body;
    }

    if (llm_json_scan(from, LLM_JSON_DEPTH_MAX, &name, &error, 1, NULL)
        != LLM_OK
        || llm_json_find(&error.raw, &text, &message, 1) != LLM_OK
        || message.type != LLM_JSON_STRING)
    {
        return;
    }

    body.data = ngx_pnalloc(ctx->request->pool, message.raw.len);

    if (body.data) {
        body.len = llm_json_unescape(body.data, &message);
        f->error.message = body;
    }
}


/* the held bytes in one piece, from the pool or, without one, the heap */

static ngx_int_t
ngx_http_llm_answer_gather(ngx_http_llm_flight_t *f, ngx_pool_t *pool,
    llm_str_t *out)
{
    size_t                 len;
    u_char                *p;
    ngx_http_llm_block_t  *b;

    len = f->appended - f->trimmed;

    p = pool ? ngx_pnalloc(pool, len) : ngx_alloc(len, ngx_cycle->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;
    out->len = len;

    for (b = f->first; b; b = b->next) {
        p = ngx_cpymem(p, b->start, b->last - b->start);
    }

    return NGX_OK;
}
