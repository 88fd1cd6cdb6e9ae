
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A stream that broke after the client has seen some of it, and is gone on
 * with by another attempt: "llm_adapter_retry ... resume=on".  The provider
 * is asked to continue what was shown, where its API can; else it is asked
 * anew, and its answer is joined where it says exactly what was shown.  If
 * it does not, the failure that broke the stream is told, as without this.
 *
 * What was shown stays in the flight: only what the attempt told of its end
 * is forgotten.  The usage of all attempts is summed up.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_RESUME_MAX   (256 * 1024) /* bytes of text */
#define NGX_HTTP_LLM_REFUSAL_MAX  (16 * 1024)


static uint64_t ngx_http_llm_resume_model(ngx_http_llm_attempt_t *a);
static void ngx_http_llm_resume_add(llm_usage_t *sum, llm_usage_t *usage);


/* at the first attempt: NGX_OK, or NGX_ERROR without memory */

ngx_int_t
ngx_http_llm_resume_init(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    if (!llcf->resume || !ctx->rq.stream || ctx->resume) {
        return NGX_OK;
    }

    ctx->resume = ngx_palloc(ctx->request->pool, sizeof(llm_resume_t));
    if (ctx->resume == NULL) {
        return NGX_ERROR;
    }

    llm_resume_init(ctx->resume, &ngx_http_llm_heap, NGX_HTTP_LLM_RESUME_MAX);

    return NGX_OK;
}


void
ngx_http_llm_resume_free(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->resume) {
        llm_resume_free(ctx->resume);
        ctx->resume = NULL;
    }
}


/* can what broke now be gone on with? */

ngx_uint_t
ngx_http_llm_resume_may(ngx_http_llm_attempt_t *a, ngx_uint_t failure)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;

    return ctx->resume && ctx->resume->possible
           && a->flight->stream
           && failure != LLM_FAIL_NONE
           && failure != LLM_FAIL_CLIENT
           && failure != LLM_FAIL_CONTEXT;
}


/*
 * Another attempt will be made, whose answer is to be joined to what was
 * shown: forgets what this one has told.
 */

void
ngx_http_llm_resume_reset(ngx_http_llm_attempt_t *a, const char *error)
{
    uint64_t                cost;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_flight_t  *f;

    ctx = a->ctx;
    f = a->flight;

    if (ctx->broke == NULL) {
        ctx->broke = error;
    }

    ctx->resumed = 1;

    if (ngx_http_llm_cost(ctx, &f->answer.usage, &cost) == NGX_OK) {
        ctx->spent_cost += cost;
    }

    ngx_http_llm_resume_add(&ctx->spent_usage, &f->answer.usage);

    if (f->answer.dialect) {
        f->answer.dialect->answer_free(&f->answer);
    }

    ngx_memzero(&f->answer, sizeof(llm_answer_t));
    f->answer.mem = &f->mem;
    f->head = 0;
}


/* an attempt begins; how its provider is asked */

void
ngx_http_llm_resume_begin(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;

    if (!ctx->resumed) {
        return;
    }

    a->continues = !ctx->no_continue
                   && a->target->no_continue != ngx_http_llm_resume_model(a)
                   && a->provider->dialect->continues(&ctx->rq);

    llm_resume_begin(ctx->resume, a->continues);
}


/* the head of an answer that is to be joined; NGX_ERROR: it is none */

ngx_int_t
ngx_http_llm_resume_head(ngx_http_llm_attempt_t *a)
{
    if (a->framer) {
        return NGX_OK;
    }

    if (a->request->upstream->headers_in.status_n < NGX_HTTP_BAD_REQUEST) {
        a->error = "upstream_invalid";
        return NGX_ERROR;
    }

    /* what it says decides, as with any other */

    a->refusal.data = ngx_pnalloc(a->request->pool, NGX_HTTP_LLM_REFUSAL_MAX);
    if (a->refusal.data == NULL) {
        return NGX_ERROR;
    }

    a->refused = 1;

    return NGX_OK;
}


void
ngx_http_llm_resume_body(ngx_http_llm_attempt_t *a, u_char *pos, u_char *last)
{
    size_t  len;

    len = ngx_min((size_t) (last - pos),
                  NGX_HTTP_LLM_REFUSAL_MAX - a->refusal.len);

    ngx_memcpy(a->refusal.data + a->refusal.len, pos, len);
    a->refusal.len += len;
}


/* it refuses to go on: why, and what follows from that? */

void
ngx_http_llm_resume_refused(ngx_http_llm_attempt_t *a)
{
    ngx_uint_t           status;
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;
    status = a->request->upstream->headers_in.status_n;

    if (a->continues && (status == NGX_HTTP_BAD_REQUEST || status == 422)) {

        /*
         * Newer models do not go on from what they are given.  That is not
         * the client's fault, nor a failure; and it is remembered where it
         * holds for the next one, too.
         */

        ctx->no_continue = 1;

        if (ngx_strlcasestrn(a->refusal.data,
                             a->refusal.data + a->refusal.len,
                             (u_char *) "prefill", 7 - 1)
            || ngx_strlcasestrn(a->refusal.data,
                                a->refusal.data + a->refusal.len,
                                (u_char *) "must end with a user", 20 - 1))
        {
            a->target->no_continue = ngx_http_llm_resume_model(a);
        }

        a->told = LLM_FAIL_RETRY;
        a->again = 1;

        ngx_log_error(NGX_LOG_INFO, a->request->connection->log, 0,
                      "llm: provider \"%V\" does not continue an answer, it "
                      "is asked anew", &a->provider->name);

        return;
    }

    ngx_http_llm_answer_class(a, status, &a->refusal);

    if (a->told == LLM_FAIL_CLIENT || a->told == LLM_FAIL_CONTEXT) {

        /* the request was good where it began: this one is odd */

        a->told = LLM_FAIL_AWAY;
        a->alive = 1;
    }
}


static uint64_t
ngx_http_llm_resume_model(ngx_http_llm_attempt_t *a)
{
    ngx_str_t  model;

    model = ngx_http_llm_target_model(a->ctx, a->target);

    return llm_digest(model.data, model.len, 1);
}


/* the first error that a provider tells of a stream that may be resumed: its
 * own words, in case that nobody goes on */

void
ngx_http_llm_resume_keep(ngx_http_llm_attempt_t *a, llm_event_t *ev)
{
    size_t                  size;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (a->ctx->resumed || f->last_event.len) {
        return;
    }

    size = llm_sse_write(NULL, ev, NULL);

    f->last_event.data = ngx_alloc(size, ngx_cycle->log);

    if (f->last_event.data) {
        f->last_event.len = size;
        (void) llm_sse_write(f->last_event.data, ev, NULL);
    }
}


/* nobody does: NGX_OK, they are in the log, and end it */

ngx_int_t
ngx_http_llm_resume_tell(ngx_http_llm_flight_t *f)
{
    u_char  *p;

    p = ngx_http_llm_flight_reserve(f, f->last_event.len);
    if (p == NULL) {
        return NGX_DECLINED;
    }

    ngx_memcpy(p, f->last_event.data, f->last_event.len);
    ngx_http_llm_flight_commit(f, f->last_event.len, 0, 0);

    f->failed = 1;
    f->told = 1;
    f->ended = 1;

    ngx_http_llm_flight_wake(f);

    return NGX_OK;
}


/*
 * An event of an answer that may break, or of one that is joined.  NGX_OK:
 * *ev is to be shown, NGX_AGAIN: *extra is, and then this is to be called again
 * with the same, NGX_DONE: it is not, NGX_DECLINED: it is the wrong answer,
 * NGX_ERROR.
 */

ngx_int_t
ngx_http_llm_resume_event(ngx_http_llm_attempt_t *a, llm_event_t *ev,
    ngx_uint_t what, llm_event_t *extra)
{
    llm_int_t            rc;
    llm_event_t          out;
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;

    if (!ctx->resumed) {

        /* without memory for it the stream is well, but can't be resumed */

        (void) llm_resume_note(ctx->resume, &a->flight->answer, ev, what);

        return NGX_OK;
    }

    rc = llm_resume_event(ctx->resume, &a->flight->answer, ev, what, &out);

    if (rc == LLM_OK) {
        *ev = out;

    } else if (rc == LLM_AGAIN) {
        *extra = out;
    }

    if (rc == LLM_DECLINED) {
        ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                      "llm: provider \"%V\" gave another answer than the one "
                      "that broke off", &a->provider->name);
    }

    return rc;
}


/* all attempts of a resumed answer were paid for */

void
ngx_http_llm_resume_usage(ngx_http_llm_ctx_t *ctx)
{
    if (ctx->resumed) {
        ngx_http_llm_resume_add(&ctx->usage, &ctx->spent_usage);
    }
}


static void
ngx_http_llm_resume_add(llm_usage_t *sum, llm_usage_t *usage)
{
    sum->prompt += usage->prompt;
    sum->completion += usage->completion;
    sum->cached += usage->cached;
    sum->cache_write += usage->cache_write;
    sum->reasoning += usage->reasoning;
    sum->known |= usage->known;
}
