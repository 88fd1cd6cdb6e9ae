
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * From a provider's bytes to the flight: the framer cuts events, the dialect
 * says what each of them is, and here is decided what follows from that: hold
 * back, show, skip, end, fail.  Which dialect it is, is not known here.  What is
 * not a stream is left to ngx_http_llm_answer_plain.c.
 *
 * A stream is held back until its first event that is not a known preamble:
 * until then a failure can be told as an HTTP error, or be mended by asking
 * again.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_answer_join(ngx_http_llm_attempt_t *a);
static ngx_uint_t ngx_http_llm_answer_framed(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_events(ngx_http_llm_attempt_t *a,
    u_char *pos, u_char *last);
static ngx_int_t ngx_http_llm_answer_event(ngx_http_llm_attempt_t *a,
    llm_event_t *ev);
static ngx_int_t ngx_http_llm_answer_joined(ngx_http_llm_attempt_t *a,
    llm_event_t *ev, llm_uint_t what);
static ngx_int_t ngx_http_llm_answer_show(ngx_http_llm_attempt_t *a,
    llm_event_t *ev, llm_uint_t what);
static ngx_int_t ngx_http_llm_answer_malformed(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_told_error(ngx_http_llm_attempt_t *a,
    llm_event_t *ev);
static void ngx_http_llm_answer_end_stream(ngx_http_llm_attempt_t *a);
static void ngx_http_llm_answer_bind(ngx_http_llm_attempt_t *a);
static void ngx_http_llm_answer_learn(ngx_http_llm_attempt_t *a);


/* the answer is to go on with what another attempt began to show */

static ngx_int_t
ngx_http_llm_answer_join(ngx_http_llm_attempt_t *a)
{
    if (ngx_http_llm_answer_framed(a)) {

        a->framer = a->provider->framing->create(&a->flight->mem,
                                                 NGX_HTTP_LLM_EVENT_MAX);
        if (a->framer == NULL) {
            return NGX_ERROR;
        }
    }

    a->flight->head = 1;

    return ngx_http_llm_resume_head(a);
}


static ngx_uint_t
ngx_http_llm_answer_framed(ngx_http_llm_attempt_t *a)
{
    ngx_str_t        *type;
    const llm_str_t  *framed;

    framed = &a->provider->framing->content_type;
    type = &a->content_type;

    return a->ctx->rq.stream
           && a->request->upstream->headers_in.status_n == NGX_HTTP_OK
           && type->len >= framed->len
           && ngx_strncasecmp(type->data, framed->data, framed->len) == 0;
}


/* the head of the answer has come */

ngx_int_t
ngx_http_llm_answer_begin(ngx_http_llm_attempt_t *a)
{
    ngx_str_t               model;
    ngx_http_upstream_t    *u;
    ngx_http_llm_flight_t  *f;

    f = a->flight;
    u = a->request->upstream;

    if (a->ctx->resumed) {
        return ngx_http_llm_answer_join(a);
    }

    f->head = 1;
    f->status = u->headers_in.status_n;
    f->content_length = u->headers_in.chunked
                        ? -1 : u->headers_in.content_length_n;
    f->content_type = a->content_type;

    if (f->form) {
        model = ngx_http_llm_target_model(a->ctx, a->target);

        if (ngx_http_llm_coalesce_strings(f, &a->provider->name, &model,
                                          &a->content_type)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_http_llm_answer_framed(a)) {
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

    if (a->refused) {
        ngx_http_llm_resume_body(a, pos, last);
        return NGX_OK;
    }

    before = f->appended;

    rc = f->stream ? ngx_http_llm_answer_events(a, pos, last)
                   : ngx_http_llm_answer_plain(a, pos, last);

    if (f->nreaders == 0) {

        /* drained: nobody will be shown it */

        ngx_http_llm_flight_trim(f);

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
    ngx_int_t               rc;
    llm_uint_t              what;
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

    if (what & LLM_EV_ERROR) {

        ngx_http_llm_answer_class(a, f->answer.status, &ev->data);

        if (!f->released) {
            return ngx_http_llm_answer_told_error(a, ev);
        }

        if (ngx_http_llm_answer_private(a)) {
            a->error = "upstream_error";
            return NGX_ERROR;
        }

        if (a->ctx->resumed || ngx_http_llm_resume_may(a, a->told)) {
            ngx_http_llm_resume_keep(a, ev);
            a->error = "upstream_error";
            return NGX_ERROR;
        }

    } else if (a->ctx->resume) {

        rc = ngx_http_llm_answer_joined(a, ev, what);

        if (rc != NGX_OK) {
            return rc == NGX_DONE ? NGX_OK : NGX_ERROR;
        }
    }

    return ngx_http_llm_answer_show(a, ev, what);
}


/* of a stream that may be resumed, or is: NGX_OK, NGX_DONE: not to be shown */

static ngx_int_t
ngx_http_llm_answer_joined(ngx_http_llm_attempt_t *a, llm_event_t *ev,
    llm_uint_t what)
{
    ngx_int_t    rc;
    llm_event_t  extra;

    rc = ngx_http_llm_resume_event(a, ev, what, &extra);

    if (rc == NGX_AGAIN) {

        /* one of ours has to go before it */

        if (ngx_http_llm_answer_show(a, &extra, 0) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = ngx_http_llm_resume_event(a, ev, what, &extra);
    }

    if (rc == NGX_DECLINED) {

        /* a class that nothing follows from; what is told is ctx->broke */

        a->error = "resume_failed";
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_answer_show(ngx_http_llm_attempt_t *a, llm_event_t *ev,
    llm_uint_t what)
{
    size_t                  size, data;
    u_char                 *p;
    ngx_uint_t              flags;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

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
        ngx_http_llm_answer_release(a);
    }

    if (what & LLM_EV_ERROR) {
        a->ctx->error = "upstream_error";
        f->failed = 1;
        f->told = 1;
        f->ended = 1;

        if (f->keep) {
            ngx_http_llm_keep_give_up(a->ctx, "failed");
        }

    } else if (what & LLM_EV_TERMINAL) {

        /* the next turn may come before the end of the HTTP message */

        ngx_http_llm_answer_bind(a);
        f->ended = 1;
        ngx_http_llm_keep_end(a);
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
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    a->error = "upstream_error";

    ngx_http_llm_answer_words(f, &ev->data);

    return NGX_ERROR;
}


/* readers may be shown it from now on */

void
ngx_http_llm_answer_release(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (f->released) {
        return;
    }

    f->released = 1;

    if (f->status < NGX_HTTP_BAD_REQUEST) {
        a->first_at = ngx_current_msec;
        ngx_http_llm_breaker_good(a);
        ngx_http_llm_balance_first(a);
    }
}


/* the attempt is over */

void
ngx_http_llm_answer_end(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!f->ended && !f->released
        && (a->error || !a->head || !a->whole
            || f->status >= NGX_HTTP_BAD_REQUEST))
    {
        (void) ngx_http_llm_lead_pass(a);
    }

    if (!f->ended) {

        if (a->refused) {
            ngx_http_llm_resume_refused(a);
            ngx_http_llm_answer_failed(a, "upstream_error");

        } else if (a->error && !(a->head && a->whole)) {
            ngx_http_llm_answer_failed(a, a->error);

        } else if (!a->head) {
            ngx_http_llm_answer_failed(a, "internal");

        } else if (f->stream) {
            ngx_http_llm_answer_end_stream(a);

        } else {
            ngx_http_llm_answer_end_plain(a);
        }

    } else if (f->told) {
        ngx_http_llm_breaker_bad(a, a->told);
    }

    if (f->ended && !f->failed && f->status < NGX_HTTP_BAD_REQUEST
        && ngx_http_llm_cache_status(a->ctx) != NGX_HTTP_LLM_CACHE_STALE)
    {
        ngx_http_llm_answer_learn(a);
    }

    ngx_http_llm_flight_wake(f);
}


/* what the answer tells of the next ones */

static void
ngx_http_llm_answer_learn(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_breaker_good(a);
    ngx_http_llm_balance_learn(a);
    ngx_http_llm_answer_bind(a);
}


/* it has made what its answer names */

static void
ngx_http_llm_answer_bind(ngx_http_llm_attempt_t *a)
{
    ngx_uint_t                 i;
    llm_answer_t              *answer;
    ngx_http_llm_main_conf_t  *lmcf;

    answer = &a->flight->answer;

    if (answer->nbound == 0) {
        return;
    }

    lmcf = ngx_http_get_module_main_conf(a->request, ngx_http_llm_module);

    for (i = 0; i < answer->nbound; i++) {
        ngx_http_llm_bound_put(lmcf, answer->bound[i], a->provider);
    }

    answer->nbound = 0;
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
        ngx_http_llm_answer_failed(a, a->error);
        return;
    }

    if (f->ended) {
        return;
    }

    if (a->whole && f->answer.finished) {

        /* whole but for the dialect's last word */

        f->end_marker = 1;
        f->ended = 1;
        ngx_http_llm_keep_end(a);
        ngx_http_llm_answer_release(a);
        return;
    }

    ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                  "llm: provider \"%V\" cut its answer", &a->provider->name);

    ngx_http_llm_answer_failed(a, "truncated");
}
