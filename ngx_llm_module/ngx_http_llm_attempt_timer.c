
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * How long an attempt may take, and how it is ended from outside.
 *
 * The timer is one event for all phases.  It is armed for the nearest deadline
 * and, when a later one has replaced that in the meantime, armed again on
 * expiry; so an event of a stream costs no timer operation.
 */


#include "ngx_http_llm_module.h"


static ngx_msec_t ngx_http_llm_attempt_deadline(ngx_http_llm_attempt_t *a,
    const char **error);


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


void
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


void
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
