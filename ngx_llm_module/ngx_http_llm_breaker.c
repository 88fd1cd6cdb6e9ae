
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Who is not called for now.  Three things keep a provider's calls away, all
 * of them in its cell, so that what one worker learns holds for all:
 *
 *   breaker  opened by failures in a window, or at once where our key or our
 *            credit is refused; after a while one call may try (the probe),
 *            and its end decides;
 *   down     by the active checks;
 *   held     the provider has told us when to come back: it is called before
 *            that only if nobody else is left.
 *
 * A target has a breaker of its own for a model that its provider does not
 * know.
 *
 * The breaker is one word: 0 is closed, else milliseconds and a state.  OPEN:
 * no call before that time.  PROBE: a call is on its way to find out, and if
 * nothing was heard by that time (its worker died), the next may try.  The
 * one whose word it is, and nobody else, ends a probe.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_BREAKER_OPEN   1
#define NGX_HTTP_LLM_BREAKER_PROBE  2

#define ngx_http_llm_breaker_word(ms, state)  (((ms) << 2) | (state))
#define ngx_http_llm_breaker_until(word)      ((ngx_msec_t) ((word) >> 2))

/* ms that the valve may have been closed */

#define NGX_HTTP_LLM_BREAKER_PATIENCE  1000

/* less than a tenth of the calls failing opens nothing */

#define NGX_HTTP_LLM_BREAKER_SHARE  10

/* a slot of the window: 24 bits of its number, 20 of calls, 20 of failures */

#define NGX_HTTP_LLM_SLOT_MAX  0xfffff

#define ngx_http_llm_slot_now(p)                                              \
    ((uint64_t) (ngx_current_msec                                             \
                 / ((p)->breaker_window / NGX_HTTP_LLM_WINDOW + 1))           \
     & 0xffffff)

#define ngx_http_llm_slot_number(w)    ((w) >> 40)
#define ngx_http_llm_slot_calls(w)     (((w) >> 20) & NGX_HTTP_LLM_SLOT_MAX)
#define ngx_http_llm_slot_failures(w)  ((w) & NGX_HTTP_LLM_SLOT_MAX)


static ngx_int_t ngx_http_llm_breaker_enter(ngx_http_llm_cell_t *cell,
    ngx_msec_t open, ngx_atomic_uint_t *probe);
static void ngx_http_llm_breaker_trip(ngx_http_llm_attempt_t *a,
    ngx_http_llm_cell_t *cell, ngx_atomic_uint_t *probe, const char *why);
static ngx_uint_t ngx_http_llm_breaker_blameless(ngx_http_llm_attempt_t *a);
static ngx_uint_t ngx_http_llm_breaker_blamed(ngx_http_llm_attempt_t *a);
static ngx_uint_t ngx_http_llm_breaker_sure(ngx_http_llm_attempt_t *a);
static ngx_uint_t ngx_http_llm_breaker_lately(ngx_http_llm_provider_t *p);
static void ngx_http_llm_breaker_close(ngx_http_llm_attempt_t *a,
    ngx_uint_t which);
static void ngx_http_llm_breaker_sum(ngx_http_llm_provider_t *p,
    ngx_uint_t *called, ngx_uint_t *failed);
static ngx_uint_t ngx_http_llm_breaker_count(ngx_http_llm_provider_t *p,
    ngx_uint_t failures, ngx_uint_t calls, ngx_uint_t share);


/* Would a call be let through?  0: yes, else ms until one may be */

ngx_msec_int_t
ngx_http_llm_breaker_closed(ngx_http_llm_target_t *target)
{
    ngx_uint_t                i;
    ngx_msec_t                until;
    ngx_msec_int_t            left, wait;
    ngx_atomic_uint_t         word;
    ngx_http_llm_cell_t      *cell[2];
    ngx_http_llm_provider_t  *p;

    p = target->provider;
    wait = 0;

    if (ngx_http_llm_health_down(p)) {
        wait = p->health_interval;
    }

    if (p->breaker_failures == 0) {
        return wait;
    }

    cell[0] = p->cell;
    cell[1] = target->cell;

    for (i = 0; i < 2; i++) {

        word = cell[i] ? cell[i]->breaker : 0;

        if (word == 0) {
            continue;
        }

        until = ngx_http_llm_breaker_until(word);
        left = (ngx_msec_int_t) (until - ngx_current_msec);

        if (left > wait) {
            wait = left;
        }
    }

    return wait;
}


ngx_uint_t
ngx_http_llm_breaker_held(ngx_http_llm_target_t *target)
{
    ngx_uint_t            i;
    ngx_atomic_uint_t     until;
    ngx_http_llm_cell_t  *cell[2];

    cell[0] = target->provider->cell;
    cell[1] = target->cell;

    for (i = 0; i < 2; i++) {

        until = cell[i] ? cell[i]->held : 0;

        if (until && (ngx_msec_int_t) (until - ngx_current_msec) > 0) {
            return 1;
        }
    }

    return 0;
}


/*
 * The provider has said when it wants the next call.  A rate limit is one of
 * the model, an overload is of all.
 */

void
ngx_http_llm_breaker_hold(ngx_http_llm_target_t *target, ngx_uint_t failure,
    ngx_msec_t ms)
{
    ngx_http_llm_cell_t  *cell;

    cell = (failure == LLM_FAIL_WAIT && target->cell) ? target->cell
                                                      : target->provider->cell;
    cell->held = ngx_current_msec + ms;
}


/*
 * NGX_OK: a call may be made now, and if it is a probe, ctx->probe says so;
 * NGX_DECLINED: not.
 */

ngx_int_t
ngx_http_llm_breaker_admit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    ngx_http_llm_provider_t  *p;

    p = target->provider;

    ngx_http_llm_breaker_release(ctx);

    if (ngx_http_llm_health_down(p)) {
        return NGX_DECLINED;
    }

    if (p->breaker_failures == 0) {
        return NGX_OK;
    }

    ctx->target = target;

    if (ngx_http_llm_breaker_enter(p->cell, p->breaker_open, &ctx->probe[0])
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (target->cell
        && ngx_http_llm_breaker_enter(target->cell, p->breaker_open,
                                      &ctx->probe[1])
           != NGX_OK)
    {
        ngx_http_llm_breaker_release(ctx);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_breaker_enter(ngx_http_llm_cell_t *cell, ngx_msec_t open,
    ngx_atomic_uint_t *probe)
{
    ngx_msec_t         until;
    ngx_atomic_uint_t  word, mine;

    word = cell->breaker;

    if (word == 0) {
        return NGX_OK;
    }

    until = ngx_http_llm_breaker_until(word);

    if ((ngx_msec_int_t) (until - ngx_current_msec) > 0) {
        return NGX_DECLINED;
    }

    mine = ngx_http_llm_breaker_word(ngx_current_msec + open,
                                     NGX_HTTP_LLM_BREAKER_PROBE);

    if (word == mine || !ngx_atomic_cmp_set(&cell->breaker, word, mine)) {
        return NGX_DECLINED;
    }

    *probe = mine;

    return NGX_OK;
}


/* the provider has answered as it should, be it to refuse what was asked */

void
ngx_http_llm_breaker_good(ngx_http_llm_attempt_t *a)
{
    if (a->judged) {
        return;
    }

    a->judged = 1;

    if (a->provider->breaker_failures == 0) {
        return;
    }

    (void) ngx_http_llm_breaker_count(a->provider, 0, 1, 1);

    ngx_http_llm_breaker_close(a, 0);
    ngx_http_llm_breaker_close(a, 1);
}


/* a probe's success; which: 0 of the provider's breaker, 1 of the target's */

static void
ngx_http_llm_breaker_close(ngx_http_llm_attempt_t *a, ngx_uint_t which)
{
    ngx_atomic_uint_t     word, *probe;
    ngx_http_llm_cell_t  *cell;

    probe = &a->ctx->probe[which];

    if (*probe == 0) {
        return;
    }

    cell = which ? a->target->cell : a->provider->cell;
    word = cell->breaker;

    /*
     * An answer that takes longer than a probe may last was followed by
     * other probes.  None of them has failed as long as one is on its way.
     */

    if ((word == *probe
         || (word & 3) == NGX_HTTP_LLM_BREAKER_PROBE)
        && ngx_atomic_cmp_set(&cell->breaker, word, 0))
    {
        if (which == 0) {
            ngx_memzero((void *) cell->window, sizeof(cell->window));
        }

        ngx_log_error(NGX_LOG_NOTICE, a->ctx->request->connection->log, 0,
                      "llm: provider \"%V\"%s works again, breaker closed",
                      &a->provider->name, which ? " (this model)" : "");
    }

    *probe = 0;
}


/* failure: LLM_FAIL_...; also after content, when the answer broke off */

void
ngx_http_llm_breaker_bad(ngx_http_llm_attempt_t *a, ngx_uint_t failure)
{
    ngx_uint_t                calls, share;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_provider_t  *p;

    ctx = a->ctx;
    p = a->provider;

    if (failure == LLM_FAIL_NONE || ngx_http_llm_breaker_blameless(a)) {
        return;
    }

    if (failure == LLM_FAIL_CLIENT || failure == LLM_FAIL_CONTEXT) {
        ngx_http_llm_breaker_good(a);
        return;
    }

    calls = a->judged ? 0 : 1;
    a->judged = 1;

    /* how long a whole answer takes is a matter of what was asked, too */

    share = a->blameless ? 2 : NGX_HTTP_LLM_BREAKER_SHARE;

    if (p->breaker_failures == 0) {
        return;
    }

    switch (failure) {

    case LLM_FAIL_AUTH:
    case LLM_FAIL_QUOTA:

        if (ngx_http_llm_breaker_sure(a)
            || ngx_http_llm_breaker_count(p, 1, calls, share))
        {
            ngx_http_llm_breaker_trip(a, p->cell, &ctx->probe[0],
                                      failure == LLM_FAIL_AUTH
                                      ? "refuses our key"
                                      : "gives us no more credit");
        }

        break;

    case LLM_FAIL_MODEL:

        /* it knows what it does not know, and so it works; and a name that
         * the client chose must not close it for others */

        ngx_http_llm_breaker_close(a, 0);

        if (a->target->cell && a->target->model.len) {
            ngx_http_llm_breaker_trip(a, a->target->cell, &ctx->probe[1],
                                      "does not know the model");
        }

        break;

    case LLM_FAIL_WAIT:

        /* it is well, but it wants less: not a probe's success, though */

        if (ctx->probe[0]) {
            ngx_http_llm_breaker_trip(a, p->cell, &ctx->probe[0],
                                      "limits us");
        }

        break;

    default:

        /* of one request that is asked again only the first failure counts:
         * two of them are not to close it for all */

        if (ctx->probe[0]) {
            ngx_http_llm_breaker_trip(a, p->cell, &ctx->probe[0],
                                      "has failed again");

        } else if (p->cell->breaker == 0
                   && !ngx_http_llm_breaker_blamed(a)
                   && ngx_http_llm_breaker_count(p, 1, calls, share))
        {
            ngx_http_llm_breaker_trip(a, p->cell, &ctx->probe[0],
                                      "has failed too often");
        }
    }

    ngx_http_llm_breaker_release(ctx);
}


/*
 * 401 is about the key alone, and so is a quota that is used up; 403 and 402
 * may be about the one thing that this client has asked for.  If other calls
 * have gone well lately, they are.
 */

static ngx_uint_t
ngx_http_llm_breaker_sure(ngx_http_llm_attempt_t *a)
{
    ngx_uint_t  status;

    status = a->flight->status;

    if (status < NGX_HTTP_BAD_REQUEST) {
        status = a->flight->answer.status;
    }

    return (status != NGX_HTTP_FORBIDDEN && status != 402)
           || a->ctx->probe[0]
           || !ngx_http_llm_breaker_lately(a->provider);
}


/* has a failure of this request been counted at this provider?  Now it has */

static ngx_uint_t
ngx_http_llm_breaker_blamed(ngx_http_llm_attempt_t *a)
{
    ngx_uint_t               i;
    ngx_http_llm_ctx_t      *ctx;
    ngx_http_llm_targets_t  *targets;

    ctx = a->ctx;
    targets = ctx->targets;

    for (i = 0; i < targets->n; i++) {
        if ((ctx->blamed & (1 << i))
            && targets->target[i].provider == a->provider)
        {
            return 1;
        }
    }

    ctx->blamed |= 1 << (a->target - targets->target);

    return 0;
}


/* it has answered, if oddly, or lost patience with one who reads slowly */

static ngx_uint_t
ngx_http_llm_breaker_blameless(ngx_http_llm_attempt_t *a)
{
    return a->alive || a->closed
           || a->waited > NGX_HTTP_LLM_BREAKER_PATIENCE;
}


static void
ngx_http_llm_breaker_trip(ngx_http_llm_attempt_t *a,
    ngx_http_llm_cell_t *cell, ngx_atomic_uint_t *probe, const char *why)
{
    ngx_atomic_uint_t  word;

    /* whoever has opened it already has said so */

    word = ngx_http_llm_breaker_word(ngx_current_msec
                                     + a->provider->breaker_open,
                                     NGX_HTTP_LLM_BREAKER_OPEN);

    if (ngx_atomic_cmp_set(&cell->breaker, *probe, word)) {
        ngx_log_error(NGX_LOG_WARN, a->ctx->request->connection->log, 0,
                      "llm: provider \"%V\" %s, breaker open for %Mms",
                      &a->provider->name, why, a->provider->breaker_open);
    }

    *probe = 0;
}


/* the request goes to somebody else, or away: its probe may be another's */

void
ngx_http_llm_breaker_release(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t            i;
    ngx_atomic_uint_t     word;
    ngx_http_llm_cell_t  *cell[2];

    if (ctx->probe[0] == 0 && ctx->probe[1] == 0) {
        return;
    }

    cell[0] = ctx->target->provider->cell;
    cell[1] = ctx->target->cell;

    word = ngx_http_llm_breaker_word(ngx_current_msec,
                                     NGX_HTTP_LLM_BREAKER_OPEN);

    for (i = 0; i < 2; i++) {
        if (ctx->probe[i]) {
            (void) ngx_atomic_cmp_set(&cell[i]->breaker, ctx->probe[i], word);
            ctx->probe[i] = 0;
        }
    }
}


/*
 * Adds to the window, which is as many slots as divide it; each begins anew
 * when its time has come round.  1: there were enough failures to open, and
 * they are no less than one in "share" of the calls.
 */

static ngx_uint_t
ngx_http_llm_breaker_count(ngx_http_llm_provider_t *p, ngx_uint_t failures,
    ngx_uint_t calls, ngx_uint_t share)
{
    uint64_t           number, word, next;
    ngx_uint_t         failed, called;
    ngx_atomic_t      *slot;

    number = ngx_http_llm_slot_now(p);

    slot = &p->cell->window[number % NGX_HTTP_LLM_WINDOW];

    do {
        word = *slot;
        next = word;

        if (ngx_http_llm_slot_number(word) != number) {
            next = number << 40;
        }

        if (ngx_http_llm_slot_calls(next) < NGX_HTTP_LLM_SLOT_MAX) {
            next += (uint64_t) calls << 20;
        }

        if (ngx_http_llm_slot_failures(next) < NGX_HTTP_LLM_SLOT_MAX) {
            next += failures;
        }

    } while (!ngx_atomic_cmp_set(slot, word, next));

    if (failures == 0) {
        return 0;
    }

    ngx_http_llm_breaker_sum(p, &called, &failed);

    return failed >= p->breaker_failures && failed * share >= called;
}


static ngx_uint_t
ngx_http_llm_breaker_lately(ngx_http_llm_provider_t *p)
{
    ngx_uint_t  called, failed;

    ngx_http_llm_breaker_sum(p, &called, &failed);

    return called > failed;
}


/* of the window */

static void
ngx_http_llm_breaker_sum(ngx_http_llm_provider_t *p, ngx_uint_t *called,
    ngx_uint_t *failed)
{
    uint64_t    number, word, n;
    ngx_uint_t  i;

    number = ngx_http_llm_slot_now(p);

    *called = 0;
    *failed = 0;

    for (i = 0; i < NGX_HTTP_LLM_WINDOW; i++) {

        word = p->cell->window[i];
        n = (number - ngx_http_llm_slot_number(word)) & 0xffffff;

        if (n < NGX_HTTP_LLM_WINDOW) {
            *failed += ngx_http_llm_slot_failures(word);
            *called += ngx_http_llm_slot_calls(word);
        }
    }
}


ngx_str_t *
ngx_http_llm_breaker_name(ngx_http_llm_provider_t *p)
{
    ngx_atomic_uint_t  word;

    static ngx_str_t  closed = ngx_string("closed");
    static ngx_str_t  open = ngx_string("open");
    static ngx_str_t  half = ngx_string("half-open");
    static ngx_str_t  down = ngx_string("down");

    if (ngx_http_llm_health_down(p)) {
        return &down;
    }

    word = p->breaker_failures ? p->cell->breaker : 0;

    if (word == 0) {
        return &closed;
    }

    if ((word & 3) == NGX_HTTP_LLM_BREAKER_OPEN
        && (ngx_msec_int_t) (ngx_http_llm_breaker_until(word)
                             - ngx_current_msec)
           > 0)
    {
        return &open;
    }

    return &half;
}
