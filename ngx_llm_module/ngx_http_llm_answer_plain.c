
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Plain answers: held until they are whole or 64 KB long, errors until they
 * are whole, so that what they say decides what follows.  Until then a failure
 * can be mended by asking again.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_answer_long_error(ngx_http_llm_attempt_t *a);
static ngx_uint_t ngx_http_llm_answer_object(ngx_http_llm_flight_t *f);
static ngx_int_t ngx_http_llm_answer_look(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_facts(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_refused(ngx_http_llm_attempt_t *a);
static ngx_int_t ngx_http_llm_answer_no_options(ngx_http_llm_attempt_t *a,
    llm_str_t *body);


ngx_int_t
ngx_http_llm_answer_plain(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last)
{
    u_char                 *p;
    llm_str_t               none;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    none.len = 0;
    none.data = NULL;

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

    if (!f->released && f->status >= NGX_HTTP_BAD_REQUEST) {
        return ngx_http_llm_answer_long_error(a);
    }

    if (!f->released
        && f->appended - f->base > NGX_HTTP_LLM_HOLD_MAX)
    {
        if (ngx_http_llm_answer_look(a) != NGX_OK) {
            return NGX_ERROR;
        }

        if (f->answer.failed && f->status < NGX_HTTP_SPECIAL_RESPONSE) {
            ngx_http_llm_answer_class(a, f->answer.status, &none);
            a->error = "upstream_error";
            return NGX_ERROR;
        }

        a->first = 1;
        a->object = ngx_http_llm_answer_object(f);
        ngx_http_llm_answer_release(a);
    }

    return NGX_OK;
}


/* An error is held until it is whole: what it says decides what follows.
 * Without an end its status decides. */

static ngx_int_t
ngx_http_llm_answer_long_error(ngx_http_llm_attempt_t *a)
{
    llm_str_t               none;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (f->appended - f->base <= NGX_HTTP_LLM_ERROR_MAX) {
        return NGX_OK;
    }

    none.len = 0;
    none.data = NULL;

    ngx_http_llm_answer_class(a, f->status, &none);

    if (a->told != LLM_FAIL_CLIENT) {
        a->error = "upstream_error";
        return NGX_ERROR;
    }

    a->ctx->error_status = f->status;

    ngx_http_llm_breaker_good(a);
    ngx_http_llm_answer_release(a);

    return NGX_OK;
}


void
ngx_http_llm_answer_end_plain(ngx_http_llm_attempt_t *a)
{
    llm_str_t               body;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!a->whole) {
        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "llm: provider \"%V\" cut its answer",
                      &a->provider->name);

        ngx_http_llm_answer_failed(a, a->error ? a->error : "truncated");
        return;
    }

    if (a->error) {
        ngx_http_llm_answer_failed(a, a->error);
        return;
    }

    if (ngx_http_llm_answer_facts(a) != NGX_OK) {
        ngx_http_llm_answer_failed(a, "internal");
        return;
    }

    if (f->status >= NGX_HTTP_BAD_REQUEST) {

        a->ctx->error_status = f->status;

        if (!f->released && ngx_http_llm_answer_refused(a) == NGX_OK) {
            return;
        }

    } else if (f->answer.failed && !f->released) {

        /* an error that calls itself 200 */

        if (ngx_http_llm_answer_gather(f, a->request->pool, &body) == NGX_OK) {
            ngx_http_llm_answer_class(a, f->answer.status, &body);
            ngx_http_llm_answer_words(f, &body);
        }

        ngx_http_llm_answer_failed(a, "upstream_error");
        return;

    } else if (!f->answer.terminal
               && (f->released
                   ? a->object
                   : ((f->status == NGX_HTTP_OK && f->appended == f->base)
                      || ngx_http_llm_answer_object(f))))
    {
        /* HTTP says that it is whole, and its content says that it is not */

        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "llm: provider \"%V\" sent no whole answer",
                      &a->provider->name);

        ngx_http_llm_answer_failed(a, "truncated");
        return;
    }

    if (f->status >= NGX_HTTP_BAD_REQUEST && !f->released) {

        if (a->ctx->aborted && f->nreaders && a->told != LLM_FAIL_CLIENT) {
            ngx_http_llm_lead_lost(f, "worker_lost");
            return;
        }

        if (f->nreaders > 1) {

            /* each of them may have an old answer instead */

            f->failure = a->told;

        } else if (ngx_http_llm_cache_stale(a->ctx, a->told) == NGX_OK) {
            ngx_http_llm_flight_wake(f);
            return;
        }
    }

    f->ended = 1;
    ngx_http_llm_keep_end(a);
    ngx_http_llm_answer_release(a);
}


/* does what is held begin as all answers do?  Other things pass as they are */

static ngx_uint_t
ngx_http_llm_answer_object(ngx_http_llm_flight_t *f)
{
    u_char                *p;
    ngx_http_llm_block_t  *b;

    for (b = f->first; b; b = b->next) {
        for (p = b->start; p < b->last; p++) {
            if (*p != ' ' && *p != '\t' && *p != CR && *p != LF) {
                return *p == '{';
            }
        }
    }

    return 0;
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

    if (ngx_http_llm_answer_gather(f, a->request->pool, &body) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_http_llm_answer_no_options(a, &body) == NGX_OK) {
        return NGX_OK;
    }

    ngx_http_llm_answer_class(a, f->status, &body);

    if (ngx_http_llm_answer_private(a)) {
        ngx_http_llm_answer_failed(a, "upstream_error");
        return NGX_OK;
    }

    return ngx_http_llm_retry(a, a->told, "upstream_error");
}


/* does it complain of the stream_options that we have added? */

static ngx_int_t
ngx_http_llm_answer_no_options(ngx_http_llm_attempt_t *a, llm_str_t *body)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!a->asked_usage
        || a->ctx->request->connection->error
        || !a->provider->dialect->rejected(f->status, body))
    {
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                  "llm: provider \"%V\" refuses stream_options, "
                  "usage of its streams will not be known",
                  &a->provider->name);

    a->provider->no_stream_options = 1;

    ngx_http_llm_attempt_cleanup(a);
    ngx_http_llm_flight_reset(f);
    a->ctx->error_status = 0;
    ngx_str_null(&a->ctx->provider_request_id);

    if (ngx_http_llm_attempt_start(a->ctx) != NGX_OK) {
        ngx_http_llm_fail(f, a->ctx, "internal");
    }

    return NGX_OK;
}


/* the held bytes in one piece, as long as they are held */

ngx_int_t
ngx_http_llm_answer_gather(ngx_http_llm_flight_t *f, ngx_pool_t *pool,
    llm_str_t *out)
{
    size_t                 len;
    u_char                *p;
    ngx_http_llm_block_t  *b;

    b = f->first;

    if (b && b->next == NULL) {
        out->data = b->start;
        out->len = b->last - b->start;

        return NGX_OK;
    }

    len = f->appended - f->trimmed;

    p = ngx_pnalloc(pool, len);
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
