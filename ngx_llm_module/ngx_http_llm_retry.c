
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What follows from a failure, as long as nothing was shown: the same target
 * once more after a while, another one at once, or the failure is final.  The
 * class of the failure decides, not what it looked like.
 *
 * Each target that may serve the request gets its chance before one gets a
 * second: a target is asked again only with attempts that the others do not
 * need.  Asking again is also bounded by a budget that all workers share, so
 * that a provider in trouble is not called several times as often as usual.
 *
 * The wait is a timer of the request.  Nothing else is held during it: the
 * attempt that failed is gone.
 */


#include "ngx_http_llm_module.h"


/* the budget, in thousandths of an attempt */

#define NGX_HTTP_LLM_BUDGET_ONE   1000
#define NGX_HTTP_LLM_BUDGET_LOW   10000        /* what time alone gives */
#define NGX_HTTP_LLM_BUDGET_HIGH  1000000

#define NGX_HTTP_LLM_HOLD         600000       /* ms, at most */
#define NGX_HTTP_LLM_SDK_WAIT     60000        /* ms; SDKs wait no longer */


static const char *ngx_http_llm_retry_closed(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_retry_choose(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_retry_may(ngx_http_llm_ctx_t *ctx,
    ngx_uint_t k);
static ngx_uint_t ngx_http_llm_retry_others(ngx_http_llm_ctx_t *ctx);
static ngx_msec_int_t ngx_http_llm_retry_when(ngx_http_llm_ctx_t *ctx);
static ngx_msec_t ngx_http_llm_retry_same(ngx_http_llm_attempt_t *a,
    ngx_uint_t failure, ngx_uint_t others);
static ngx_int_t ngx_http_llm_retry_next(ngx_http_llm_attempt_t *a,
    const char *error, ngx_msec_t delay);
static ngx_int_t ngx_http_llm_retry_start(ngx_http_llm_ctx_t *ctx);
static void ngx_http_llm_retry_backoff(ngx_event_t *ev);
static void ngx_http_llm_retry_deposit(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_retry_withdraw(ngx_http_llm_provider_t *p);
static ngx_uint_t ngx_http_llm_retry_said(ngx_http_request_t *r,
    ngx_str_t *name);


/* NGX_OK: an attempt is on its way, NGX_DECLINED: *err says why not */

ngx_int_t
ngx_http_llm_retry_first(ngx_http_llm_ctx_t *ctx, llm_error_t *err)
{
    if (ngx_http_llm_retry_choose(ctx) == NGX_OK) {
        ngx_http_llm_retry_deposit(ctx);
        ngx_http_llm_balance_scout(ctx);
        ctx->tries = 1;

        return ngx_http_llm_attempt_start(ctx);
    }

    ctx->wait = ngx_http_llm_retry_when(ctx);

    ctx->error = ngx_http_llm_retry_closed(ctx);

    ngx_http_llm_failure_error(ctx->error, err);

    return NGX_DECLINED;
}


/* nobody may be called: what is that? */

static const char *
ngx_http_llm_retry_closed(ngx_http_llm_ctx_t *ctx)
{
    return ctx->pinned ? "pinned_unavailable" : "breaker_open";
}


/* the next in order that may be called, those told to wait last */

static ngx_int_t
ngx_http_llm_retry_choose(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t              i, held;
    ngx_http_llm_target_t  *target, *last;

    last = ctx->target;

    for (held = 0; held < 2; held++) {

        for (i = 0; i < ctx->norder; i++) {

            if (!ngx_http_llm_retry_may(ctx, ctx->order[i])) {
                continue;
            }

            target = &ctx->targets->target[ctx->order[i]];

            if (ngx_http_llm_breaker_held(target) == held
                && ngx_http_llm_breaker_admit(ctx, target) == NGX_OK)
            {
                ctx->target = target;
                ctx->again = 0;

                return NGX_OK;
            }
        }
    }

    ctx->target = last;

    return NGX_DECLINED;
}


/* not tried yet, and fit for the request? */

static ngx_uint_t
ngx_http_llm_retry_may(ngx_http_llm_ctx_t *ctx, ngx_uint_t k)
{
    ngx_str_t               model;
    ngx_http_llm_price_t   *m;
    ngx_http_llm_target_t  *target;

    if (ctx->tried & (1 << k)) {
        return 0;
    }

    target = &ctx->targets->target[k];

    if (ctx->pinned
        && !ngx_http_llm_same_account(ctx->pinned, target->provider))
    {
        return 0;
    }

    if (ctx->need_context) {
        model = ngx_http_llm_target_model(ctx, target);
        m = ngx_http_llm_model_facts(target->provider, &model);

        if (m == NULL || m->context <= ctx->need_context) {
            return 0;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_llm_retry_others(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t              i, n;
    ngx_http_llm_target_t  *target;

    n = 0;

    for (i = 0; i < ctx->norder; i++) {

        target = &ctx->targets->target[ctx->order[i]];

        if (target != ctx->target
            && ngx_http_llm_retry_may(ctx, ctx->order[i])
            && ngx_http_llm_breaker_closed(target) == 0)
        {
            n++;
        }
    }

    return n;
}


/* ms until one of those that may serve the request can be called */

static ngx_msec_int_t
ngx_http_llm_retry_when(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t      i;
    ngx_msec_int_t  wait, least;

    least = -1;

    for (i = 0; i < ctx->norder; i++) {

        if (!ngx_http_llm_retry_may(ctx, ctx->order[i])) {
            continue;
        }

        wait = ngx_http_llm_breaker_closed(
                                    &ctx->targets->target[ctx->order[i]]);

        if (least == -1 || wait < least) {
            least = wait;
        }
    }

    /* a probe is on its way */

    return least == 0 ? 1000 : least;
}


/*
 * An attempt has failed, and nothing of it was shown, or what was shown can
 * be gone on with.  NGX_OK: another one will be made, and what this one has
 * left is forgotten; NGX_DECLINED: the failure is final.
 */

ngx_int_t
ngx_http_llm_retry(ngx_http_llm_attempt_t *a, ngx_uint_t failure,
    const char *error)
{
    ngx_str_t                 model;
    ngx_uint_t                others;
    ngx_msec_t                delay;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_price_t     *m;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = a->ctx;

    if (failure == LLM_FAIL_NONE) {
        ctx->spent = ctx->tries > 1;
        return NGX_DECLINED;
    }

    if (!a->again) {
        ngx_http_llm_breaker_bad(a, failure);
        ngx_http_llm_balance_blame(a, failure);
    }

    if (failure == LLM_FAIL_CLIENT
        || ctx->aborted || ctx->finalized
        || ctx->request->connection->error)
    {
        return NGX_DECLINED;
    }

    if (a->again) {
        ctx->tries--;
        return ngx_http_llm_retry_next(a, error, 0);
    }

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    ctx->wait = -1;
    ctx->spent = llcf->attempts > 1;

    if (failure == LLM_FAIL_WAIT || failure == LLM_FAIL_OVERLOADED) {

        /* when a limit is lifted says nothing of when it is well again */

        if (failure == LLM_FAIL_OVERLOADED) {
            a->wait.reset = -1;
        }

        ctx->wait = llm_wait_ms(&a->wait);

        if (ctx->wait > 0 && (ngx_msec_t) ctx->wait > llcf->backoff_max) {
            ngx_http_llm_breaker_hold(a->target, failure,
                                  ngx_min(ctx->wait, NGX_HTTP_LLM_HOLD));
        }
    }

    if (failure == LLM_FAIL_CONTEXT) {
        model = ngx_http_llm_target_model(ctx, ctx->target);
        m = ngx_http_llm_model_facts(a->provider, &model);

        ctx->need_context = (m && m->context) ? m->context : 1;
        ctx->spent = 0;
    }

    if (ctx->tries >= llcf->attempts) {
        return NGX_DECLINED;
    }

    others = ngx_http_llm_retry_others(ctx);
    delay = ngx_http_llm_retry_same(a, failure, others);

    if (delay) {
        return ngx_http_llm_retry_next(a, error, delay);
    }

    ctx->tried |= 1 << (ctx->target - ctx->targets->target);

    if (others && ngx_http_llm_retry_choose(ctx) == NGX_OK) {
        return ngx_http_llm_retry_next(a, error, 0);
    }

    /* told to come back later, and nobody else: that is for the client */

    if (ctx->wait > 0 && (ngx_msec_t) ctx->wait > llcf->backoff_max) {
        ctx->spent = 0;
    }

    return NGX_DECLINED;
}


/* ms until the same target is asked again, 0: it is not */

static ngx_msec_t
ngx_http_llm_retry_same(ngx_http_llm_attempt_t *a, ngx_uint_t failure,
    ngx_uint_t others)
{
    ngx_msec_t                delay;
    ngx_msec_int_t            wait;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = a->ctx;
    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    wait = -1;

    switch (failure) {

    case LLM_FAIL_WAIT:
    case LLM_FAIL_OVERLOADED:

        wait = ctx->wait;

        if (wait > 0 && (ngx_msec_t) wait > llcf->backoff_max) {
            return 0;
        }

        if (wait == -1 && others) {
            return 0;
        }

        break;

    case LLM_FAIL_RETRY:
        break;

    default:
        return 0;
    }

    if (a->wait.should_retry == 0
        || (others && llcf->attempts - ctx->tries <= others)
        || ngx_http_llm_breaker_closed(ctx->target) > 0)
    {
        return 0;
    }

    if (wait > 0) {
        delay = wait + ngx_random() % (wait / 10 + 10);

    } else {
        delay = llm_backoff(llcf->backoff_min, llcf->backoff_max, ctx->again,
                            ngx_random());
    }

    if ((ngx_msec_int_t) (ctx->arrived + a->timeout[NGX_HTTP_LLM_T_TOTAL]
                          - ngx_current_msec - delay)
        <= 0)
    {
        return 0;
    }

    if (ngx_http_llm_retry_withdraw(a->provider) != NGX_OK) {
        return 0;
    }

    return ngx_max(delay, 1);
}


static ngx_int_t
ngx_http_llm_retry_next(ngx_http_llm_attempt_t *a, const char *error,
    ngx_msec_t delay)
{
    ngx_connection_t       *c;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_flight_t  *f;

    ctx = a->ctx;
    f = ctx->flight;
    c = ctx->request->connection;

    ngx_log_error(NGX_LOG_INFO, c->log, 0,
                  "llm: attempt %ui at provider \"%V\" failed, the next one "
                  "is at \"%V\" in %Mms", ctx->attempts, &a->provider->name,
                  &ctx->target->provider->name, delay);

    ngx_http_llm_attempt_cleanup(a);

    if (f->released) {
        ngx_http_llm_resume_reset(a, error);

    } else {
        ngx_http_llm_flight_reset(f);
    }

    ctx->error = NULL;
    ctx->error_status = 0;
    ctx->spent = 0;
    ctx->wait = -1;
    ngx_str_null(&ctx->provider_request_id);

    if (delay == 0) {
        return ngx_http_llm_retry_start(ctx);
    }

    ctx->again++;

    ngx_http_llm_retry_later(ctx, delay);

    return NGX_OK;
}


/* the same target once more, after delay ms */

void
ngx_http_llm_retry_later(ngx_http_llm_ctx_t *ctx, ngx_msec_t delay)
{
    ngx_connection_t  *c;

    c = ctx->request->connection;

    ctx->backoff.handler = ngx_http_llm_retry_backoff;
    ctx->backoff.data = c;
    ctx->backoff.log = c->log;

    ngx_add_timer(&ctx->backoff, delay);
}


static ngx_int_t
ngx_http_llm_retry_start(ngx_http_llm_ctx_t *ctx)
{
    ctx->tries++;

    if (ngx_http_llm_attempt_start(ctx) != NGX_OK) {
        ngx_http_llm_fail(ctx->flight, ctx, "internal");
    }

    return NGX_OK;
}


static void
ngx_http_llm_retry_backoff(ngx_event_t *ev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_llm_ctx_t  *ctx;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r->main, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, c->log, 0, "llm retry: back-off ends");

    /* others may have found out meanwhile that it is no use */

    if (ngx_http_llm_breaker_admit(ctx, ctx->target) != NGX_OK) {

        ctx->tried |= 1 << (ctx->target - ctx->targets->target);

        if (ngx_http_llm_retry_choose(ctx) != NGX_OK) {
            ctx->tried = 0;
            ctx->wait = ngx_http_llm_retry_when(ctx);
            ctx->spent = ctx->tries > 1;

            if (ngx_http_llm_cache_stale(ctx, LLM_FAIL_AWAY) == NGX_OK) {
                ctx->error = ngx_http_llm_retry_closed(ctx);
                ngx_http_llm_flight_wake(ctx->flight);
                goto done;
            }

            ngx_http_llm_fail(ctx->flight, ctx,
                              ctx->broke ? ctx->broke
                                         : ngx_http_llm_retry_closed(ctx));

            goto done;
        }
    }

    (void) ngx_http_llm_retry_start(ctx);

done:

    ngx_http_run_posted_requests(c);
}


/* each request adds its share to what may be asked again */

static void
ngx_http_llm_retry_deposit(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_cell_t      *cell;
    ngx_http_llm_loc_conf_t  *llcf;

    cell = ctx->target->provider->cell;
    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    if (cell->budget < NGX_HTTP_LLM_BUDGET_HIGH) {
        (void) ngx_atomic_fetch_add(&cell->budget,
                              llcf->budget * NGX_HTTP_LLM_BUDGET_ONE / 100);
    }
}


static ngx_int_t
ngx_http_llm_retry_withdraw(ngx_http_llm_provider_t *p)
{
    ngx_msec_int_t        elapsed;
    ngx_atomic_uint_t     have, then, now;
    ngx_http_llm_cell_t  *cell;

    cell = p->cell;

    /* one a second, so that little traffic is not left without */

    now = ngx_current_msec ? ngx_current_msec : 1;
    then = cell->refill;
    elapsed = then ? (ngx_msec_int_t) (now - then) : NGX_HTTP_LLM_BUDGET_LOW;

    /* the other workers' clocks may be ahead of ours */

    if (elapsed >= 1000 && ngx_atomic_cmp_set(&cell->refill, then, now)) {

        have = cell->budget;

        if (have < NGX_HTTP_LLM_BUDGET_LOW) {
            (void) ngx_atomic_fetch_add(&cell->budget,
                           ngx_min((ngx_atomic_uint_t) elapsed,
                                   NGX_HTTP_LLM_BUDGET_LOW - have));
        }
    }

    do {
        have = cell->budget;

        if (have < NGX_HTTP_LLM_BUDGET_ONE) {
            return NGX_DECLINED;
        }

    } while (!ngx_atomic_cmp_set(&cell->budget, have,
                                 have - NGX_HTTP_LLM_BUDGET_ONE));

    return NGX_OK;
}


/* tell an SDK what not to do: we have tried already */

ngx_int_t
ngx_http_llm_retry_headers(ngx_http_llm_ctx_t *ctx)
{
    u_char              *p;
    ngx_str_t            value;
    ngx_uint_t           status;
    ngx_http_request_t  *r;

    static ngx_str_t     after = ngx_string("Retry-After");
    static ngx_str_t     after_ms = ngx_string("retry-after-ms");

    r = ctx->request;
    status = r->headers_out.status;

    if (status < NGX_HTTP_BAD_REQUEST) {
        return NGX_OK;
    }

    if ((status == NGX_HTTP_TOO_MANY_REQUESTS
         || status == NGX_HTTP_SERVICE_UNAVAILABLE)
        && ctx->wait > 0
        && !ngx_http_llm_retry_said(r, &after))
    {
        p = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        value.data = p;
        value.len = ngx_sprintf(p, "%M", (ngx_msec_t) (ctx->wait + 999) / 1000)
                    - p;

        if (ngx_http_llm_add_header_str(r, "Retry-After", &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ctx->wait < NGX_HTTP_LLM_SDK_WAIT
            && !ngx_http_llm_retry_said(r, &after_ms))
        {
            value.data = p + value.len;
            value.len = ngx_sprintf(value.data, "%M", (ngx_msec_t) ctx->wait)
                        - value.data;

            if (ngx_http_llm_add_header_str(r, "retry-after-ms", &value)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    if (ngx_http_llm_retry_never(ctx)) {
        return ngx_http_llm_add_header(r, "x-should-retry", "false");
    }

    return NGX_OK;
}


/* is an SDK to leave it at that? */

ngx_uint_t
ngx_http_llm_retry_never(ngx_http_llm_ctx_t *ctx)
{
    return ctx->spent || ctx->wait > NGX_HTTP_LLM_SDK_WAIT;
}


/* does the answer have this header, of the provider's? */

static ngx_uint_t
ngx_http_llm_retry_said(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_out.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return 0;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash
            && h[i].key.len == name->len
            && ngx_strncasecmp(h[i].key.data, name->data, name->len) == 0)
        {
            return 1;
        }
    }
}
