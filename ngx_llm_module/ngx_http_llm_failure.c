
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Failures: the class of each, and how it is told when it is final.  As long
 * as nothing of an answer was shown, ngx_http_llm_retry.c is asked first.
 */


#include "ngx_http_llm_module.h"


static const char *ngx_http_llm_answer_refusal(ngx_http_llm_flight_t *f,
    ngx_uint_t failure);


typedef struct {
    const char  *error;                        /* $llm_error */
    ngx_uint_t   status;
    ngx_uint_t   failure;                      /* LLM_FAIL_... */
    ngx_str_t    message;
} ngx_http_llm_failure_t;


static ngx_http_llm_failure_t  ngx_http_llm_failures[] = {

    { "timeout_connect", NGX_HTTP_GATEWAY_TIME_OUT,
      LLM_FAIL_SILENT,
      ngx_string("the provider could not be reached in time") },

    { "timeout_send", NGX_HTTP_GATEWAY_TIME_OUT,
      LLM_FAIL_SILENT,
      ngx_string("the provider did not take the request in time") },

    { "timeout_first_token", NGX_HTTP_GATEWAY_TIME_OUT,
      LLM_FAIL_SILENT,
      ngx_string("the provider did not begin to answer in time") },

    { "timeout_idle", NGX_HTTP_GATEWAY_TIME_OUT,
      LLM_FAIL_SILENT,
      ngx_string("the provider stopped in the middle of its answer") },

    { "timeout_plain", NGX_HTTP_GATEWAY_TIME_OUT,
      LLM_FAIL_SILENT,
      ngx_string("the provider did not answer in time") },

    { "timeout_total", NGX_HTTP_GATEWAY_TIME_OUT,
      LLM_FAIL_NONE,
      ngx_string("the answer was not complete in the time allowed") },

    { "upstream_dns", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_AWAY,
      ngx_string("the provider's host has no known address") },

    { "upstream_connect", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_OVERLOADED,
      ngx_string("the provider could not be reached") },

    { "upstream_tls", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_AWAY,
      ngx_string("the provider could not be trusted: TLS failed") },

    { "upstream_closed", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_RETRY,
      ngx_string("the provider closed the connection without an answer") },

    { "upstream_invalid", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_RETRY,
      ngx_string("the provider sent no valid HTTP answer") },

    { "encoded_answer", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_AWAY,
      ngx_string("the provider sent an encoded (compressed) answer, "
                 "which was not asked for") },

    { "truncated", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_RETRY,
      ngx_string("the provider's answer was cut") },

    { "malformed_event", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_RETRY,
      ngx_string("the provider sent an event that is not JSON "
                 "in the middle of machine-read output") },

    { "event_too_large", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_NONE,
      ngx_string("the provider sent an event over the size limit") },

    { "upstream_error", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_RETRY,
      ngx_string("the provider reported an error") },

    { "not_a_stream", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_NONE,
      ngx_string("the provider did not answer with a stream") },

    { "provider_auth", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_AUTH,
      ngx_string("the provider refused the gateway's credentials") },

    { "provider_model", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_MODEL,
      ngx_string("the provider does not serve the model") },

    { "provider_quota", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_QUOTA,
      ngx_string("the gateway's credit at the provider is used up") },

    { "breaker_open", NGX_HTTP_SERVICE_UNAVAILABLE,
      LLM_FAIL_NONE,
      ngx_string("no provider of this model is available now") },

    { "pinned_unavailable", NGX_HTTP_SERVICE_UNAVAILABLE,
      LLM_FAIL_NONE,
      ngx_string("the provider that keeps this conversation is not "
                 "available now") },

    { "worker_lost", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_NONE,
      ngx_string("the process that received the answer has ended") },

    { "reader_too_slow", NGX_HTTP_BAD_GATEWAY,
      LLM_FAIL_NONE,
      ngx_string("the answer is read too slowly to be kept any longer") },

    { "internal", NGX_HTTP_INTERNAL_SERVER_ERROR,
      LLM_FAIL_NONE,
      ngx_string("internal error") },

    { NULL, 0, 0, ngx_null_string }
};


static ngx_http_llm_failure_t *
ngx_http_llm_failure(const char *error)
{
    ngx_http_llm_failure_t  *fail;

    for (fail = ngx_http_llm_failures; fail->error; fail++) {
        if (ngx_strcmp(fail->error, error) == 0) {
            return fail;
        }
    }

    return fail - 1;
}


/* how it is told */

void
ngx_http_llm_failure_error(const char *error, llm_error_t *err)
{
    ngx_http_llm_failure_t  *fail;

    fail = ngx_http_llm_failure(error);

    err->status = fail->status;
    err->code = error;
    err->param = NULL;
    err->message.len = fail->message.len;
    err->message.data = fail->message.data;
}


/* the name of a class as it is here; another worker tells it */

const char *
ngx_http_llm_failure_name(u_char *name, size_t len)
{
    ngx_http_llm_failure_t  *fail;

    for (fail = ngx_http_llm_failures; fail->error; fail++) {
        if (ngx_strlen(fail->error) == len
            && ngx_memcmp(fail->error, name, len) == 0)
        {
            return fail->error;
        }
    }

    return NULL;
}


/* an error whose words are another's */

ngx_int_t
ngx_http_llm_failure_copy(ngx_pool_t *pool, llm_error_t *err)
{
    u_char  *p;
    size_t   len;

    len = err->code ? ngx_strlen(err->code) : 0;

    p = ngx_pnalloc(pool, err->message.len + len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (err->code) {
        ngx_memcpy(p, err->code, len + 1);
        err->code = (char *) p;
        p += len + 1;
    }

    ngx_memcpy(p, err->message.data, err->message.len);
    err->message.data = p;

    return NGX_OK;
}


/* the flight ends without being whole; readers will tell it */

void
ngx_http_llm_fail(ngx_http_llm_flight_t *f, ngx_http_llm_ctx_t *ctx,
    const char *error)
{
    ctx->error = error;

    ngx_http_llm_failure_error(error, &f->error);

    if (f->answer.failed && f->answer.status) {
        f->error.status = f->answer.status;
    }

    if (f->words.len) {
        f->error.message = f->words;

        if (f->words_code) {
            f->error.code = f->words_code;
        }
    }

    f->failed = 1;
    f->ended = 1;

    if (f->keep) {
        ngx_http_llm_keep_give_up(ctx, ngx_strcmp(error, "truncated") == 0
                                       ? "truncated" : "failed");
    }

    ngx_http_llm_flight_wake(f);
}


/*
 * The attempt has failed.  As long as nothing was shown, another one may
 * follow; then the flight goes on.
 */

void
ngx_http_llm_answer_failed(ngx_http_llm_attempt_t *a, const char *error)
{
    ngx_uint_t              failure;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_flight_t  *f;

    ctx = a->ctx;
    f = a->flight;

    failure = a->told ? a->told : ngx_http_llm_failure(error)->failure;

    if (f->released && !f->stream && !f->shown && !ctx->reader.head_sent) {

        /* it came and broke within one read */

        f->released = 0;
    }

    if (f->released && !ngx_http_llm_resume_may(a, failure)) {
        ngx_http_llm_breaker_bad(a, failure);

    } else if (ngx_http_llm_retry(a, failure, error) == NGX_OK) {
        return;

    } else if (!f->released && ctx->aborted && f->nreaders
               && failure != LLM_FAIL_CLIENT && failure != LLM_FAIL_NONE)
    {
        /* the others are in other workers: one of them will ask */

        ctx->error = error;
        ngx_http_llm_lead_lost(f, "worker_lost");
        return;

    } else if (!f->released && f->nreaders > 1) {

        /* each of them may have an old answer instead */

        f->failure = failure;

    } else if (!f->released
               && ngx_http_llm_cache_stale(ctx, failure) == NGX_OK)
    {
        /* why it is a stale one */

        ctx->error = error;
        return;
    }

    if (f->last_event.len && ngx_http_llm_resume_tell(f) == NGX_OK) {
        ctx->error = "upstream_error";
        return;
    }

    if (ctx->broke) {
        error = ctx->broke;

    } else if (ngx_http_llm_answer_private(a)) {
        error = ngx_http_llm_answer_refusal(f, failure);

    } else if (ctx->pinned && !f->released && !a->head
               && failure != LLM_FAIL_NONE)
    {
        error = "pinned_unavailable";
        ctx->wait = 1000;
    }

    ngx_http_llm_fail(f, ctx, error);
}


/* does the provider speak of our key, our credit, our choice of a model? */

ngx_uint_t
ngx_http_llm_answer_private(ngx_http_llm_attempt_t *a)
{
    return a->told >= LLM_FAIL_AUTH && a->provider->ours;
}


/* its words may quote our key, and are not the client's business */

static const char *
ngx_http_llm_answer_refusal(ngx_http_llm_flight_t *f, ngx_uint_t failure)
{
    f->answer.failed = 0;

    ngx_http_llm_flight_forget(f);

    return failure == LLM_FAIL_AUTH ? "provider_auth"
           : failure == LLM_FAIL_MODEL ? "provider_model"
           : "provider_quota";
}


/* what kind of failure is it that the provider tells? */

void
ngx_http_llm_answer_class(ngx_http_llm_attempt_t *a, ngx_uint_t status,
    llm_str_t *body)
{
    a->told = a->provider->dialect->failure(status, body);

    if (a->told == LLM_FAIL_WAIT || a->told == LLM_FAIL_OVERLOADED) {
        llm_wait_body(&a->wait, body);
    }

    /* what a client's own key may not is no matter of the others, whose
     * calls the provider takes */

    if (a->provider->key_source == NGX_HTTP_LLM_KEY_CLIENT
        && !a->provider->ours
        && (a->told == LLM_FAIL_WAIT || a->told >= LLM_FAIL_AUTH))
    {
        a->told = LLM_FAIL_CLIENT;
        return;
    }

    if (a->told < LLM_FAIL_AUTH) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                  "llm: provider \"%V\" %s with status %ui",
                  &a->provider->name,
                  a->told == LLM_FAIL_AUTH ? "refused our key"
                  : a->told == LLM_FAIL_MODEL ? "does not know the model"
                  : "gives us no more credit",
                  status);
}


/*
 * The provider's own words: an error in the form of a body becomes that of
 * the answer as it is; of an event that is or has an error the message and
 * the code are taken.
 */

void
ngx_http_llm_answer_words(ngx_http_llm_flight_t *f, llm_str_t *body)
{
    u_char            *p;
    llm_json_value_t   error, v[2];

    static llm_str_t   name = llm_string("error");
    static llm_str_t   names[] = {
        llm_string("message"),
        llm_string("code")
    };

    ngx_http_llm_flight_forget(f);

    if (llm_json_scan(body, LLM_JSON_DEPTH_MAX, &name, &error, 1, NULL)
        == LLM_OK
        && error.type == LLM_JSON_OBJECT)
    {
        p = ngx_alloc(body->len, ngx_cycle->log);

        if (p) {
            f->error_body.data = p;
            f->error_body.len = body->len;
            ngx_memcpy(p, body->data, body->len);
        }

        return;
    }

    if (llm_error_object(body, &error) != LLM_OK
        || llm_json_find(&error.raw, names, v, 2) != LLM_OK
        || v[0].type != LLM_JSON_STRING)
    {
        return;
    }

    p = ngx_alloc(v[0].raw.len + v[1].raw.len + 1, ngx_cycle->log);
    if (p == NULL) {
        return;
    }

    f->words.data = p;
    f->words.len = llm_json_unescape(p, &v[0]);

    if (v[1].type == LLM_JSON_STRING) {
        f->words_code = (char *) p + f->words.len;
        p += f->words.len;
        p[llm_json_unescape(p, &v[1])] = '\0';
    }
}


/*
 * A head ping has promised a stream, and there is none: what the provider
 * says instead is told in-band, its own words as the message.  Only to this
 * reader: others may get it as it is.
 */

void
ngx_http_llm_answer_no_stream(ngx_http_llm_ctx_t *ctx)
{
    llm_str_t               body, *from;
    llm_json_value_t        error, message;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;

    static llm_str_t        name = llm_string("error");
    static llm_str_t        text = llm_string("message");

    f = ctx->flight;
    rd = &ctx->reader;
    from = &f->error_body;

    rd->failed = 1;

    if (f->failed) {
        rd->error = f->error;

    } else {

        if (f->status < NGX_HTTP_BAD_REQUEST) {
            ctx->error = "not_a_stream";
            ngx_http_llm_failure_error(ctx->error, &rd->error);
            goto done;
        }

        ngx_http_llm_failure_error("upstream_error", &rd->error);
        rd->error.status = f->status;
        ctx->error = NULL;
        ctx->error_status = f->status;

        if (ngx_http_llm_answer_gather(f, ctx->request->pool, &body)
            != NGX_OK)
        {
            goto done;
        }

        from = &body;
    }

    if (llm_json_scan(from, LLM_JSON_DEPTH_MAX, &name, &error, 1, NULL)
        != LLM_OK
        || llm_json_find(&error.raw, &text, &message, 1) != LLM_OK
        || message.type != LLM_JSON_STRING)
    {
        goto done;
    }

    body.data = ngx_pnalloc(ctx->request->pool, message.raw.len);

    if (body.data) {
        body.len = llm_json_unescape(body.data, &message);
        rd->error.message = body;
    }

done:

    if (f->lead == NULL && !f->ended && f->mirror == NULL && f->form == 0) {

        /* nobody else wants it */

        f->failed = 1;
        f->ended = 1;

        if (f->keep) {
            ngx_http_llm_keep_give_up(ctx, "failed");
        }
    }
}
