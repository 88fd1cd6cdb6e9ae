
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * In which order the targets of a request are tried: as written, by weight,
 * by how fast they have been, by price, or by the conversation.  Whatever the
 * order says, who is not to be called for now is left out later on.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_HALF_LIFE   30000         /* ms, of what was measured */
#define NGX_HTTP_LLM_TYPICAL     200           /* tokens of an answer */
#define NGX_HTTP_LLM_SCOUT       10000         /* ms, for one to find out */
#define NGX_HTTP_LLM_BLAME       30000000      /* us, for a failure */


static ngx_int_t ngx_http_llm_balance_turns(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, ngx_uint_t d);
static ngx_uint_t ngx_http_llm_balance_turn(ngx_http_llm_ctx_t *ctx);
static ngx_uint_t ngx_http_llm_balance_divisor(ngx_uint_t a, ngx_uint_t b);
static ngx_uint_t ngx_http_llm_balance_scouted(ngx_http_llm_cell_t *cell);
static uint64_t ngx_http_llm_balance_latency(ngx_http_llm_target_t *target);
static uint64_t ngx_http_llm_balance_cost(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);
static ngx_uint_t ngx_http_llm_balance_old(ngx_http_llm_cell_t *cell);
static void ngx_http_llm_balance_mix(ngx_atomic_t *word, ngx_msec_t sample,
    ngx_uint_t fresh);
static void ngx_http_llm_balance_pin(ngx_http_llm_ctx_t *ctx);


/* the targets are known: what can be found out about them once */

ngx_int_t
ngx_http_llm_balance_init(ngx_conf_t *cf, ngx_http_llm_targets_t *targets)
{
    ngx_uint_t  i;

    for (i = 1; i < targets->n; i++) {
        if (!ngx_http_llm_same_account(targets->target[i].provider,
                                       targets->target[0].provider))
        {
            targets->mixed = 1;
        }
    }

    if (targets->balance != NGX_HTTP_LLM_BALANCE_WEIGHT) {
        return NGX_OK;
    }

    for (i = 0; i < NGX_HTTP_LLM_DIALECTS && llm_dialects[i]; i++) {
        if (ngx_http_llm_balance_turns(cf, targets, i) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* whose turn it is among those of a dialect, once round, evenly spread */

static ngx_int_t
ngx_http_llm_balance_turns(ngx_conf_t *cf, ngx_http_llm_targets_t *targets,
    ngx_uint_t d)
{
    ngx_int_t   current[NGX_HTTP_LLM_TARGETS_MAX];
    ngx_int_t   weight[NGX_HTTP_LLM_TARGETS_MAX];
    ngx_uint_t  i, k, best, total, divisor;

    total = 0;
    divisor = 0;

    for (i = 0; i < targets->n; i++) {
        current[i] = 0;
        weight[i] = 0;

        if (targets->target[i].provider->dialect == llm_dialects[d]) {
            weight[i] = targets->target[i].weight;
            divisor = ngx_http_llm_balance_divisor(weight[i], divisor);
        }
    }

    for (i = 0; i < targets->n; i++) {
        weight[i] /= divisor ? divisor : 1;
        total += weight[i];
    }

    if (total == 0) {
        return NGX_OK;
    }

    targets->turns[d] = ngx_pnalloc(cf->pool, total);
    if (targets->turns[d] == NULL) {
        return NGX_ERROR;
    }

    for (k = 0; k < total; k++) {

        best = 0;

        for (i = 0; i < targets->n; i++) {
            current[i] += weight[i];

            if (current[i] > current[best] || weight[best] == 0) {
                best = i;
            }
        }

        current[best] -= total;
        targets->turns[d][k] = best;
    }

    targets->nturns[d] = total;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_balance_divisor(ngx_uint_t a, ngx_uint_t b)
{
    ngx_uint_t  c;

    while (b) {
        c = a % b;
        a = b;
        b = c;
    }

    return a;
}


/* fills ctx->order with those of the client's dialect, and ctx->pinned */

void
ngx_http_llm_balance(ngx_http_llm_ctx_t *ctx)
{
    uint64_t                 prefix, score, scores[NGX_HTTP_LLM_TARGETS_MAX];
    ngx_uint_t               i, k, n, turn;
    ngx_http_llm_target_t   *target;
    ngx_http_llm_targets_t  *targets;

    targets = ctx->targets;
    target = targets->target;
    prefix = 0;
    turn = 0;

    if (targets->balance == NGX_HTTP_LLM_BALANCE_HASH && targets->n > 1) {
        prefix = ctx->dialect->prefix(&ctx->rq);

    } else if (targets->balance == NGX_HTTP_LLM_BALANCE_WEIGHT) {
        turn = ngx_http_llm_balance_turn(ctx);
    }

    n = 0;

    for (i = 0; i < targets->n; i++) {

        if (target[i].provider->dialect != ctx->dialect) {
            continue;
        }

        switch (targets->n > 1 ? targets->balance : 0) {

        case NGX_HTTP_LLM_BALANCE_WEIGHT:
            score = (i != turn);
            break;

        case NGX_HTTP_LLM_BALANCE_LATENCY:
            score = ngx_http_llm_balance_latency(&target[i]);
            break;

        case NGX_HTTP_LLM_BALANCE_COST:
            score = ngx_http_llm_balance_cost(ctx, &target[i]);
            break;

        case NGX_HTTP_LLM_BALANCE_HASH:

            /* the highest of a digest with each: the others' conversations
             * stay where they are when one comes or goes */

            score = prefix ? llm_digest(target[i].text.data,
                                        target[i].text.len, prefix)
                           : 0;
            break;

        default:
            score = 0;
        }

        /* stable: equals stay as written */

        for (k = n; k > 0 && scores[k - 1] > score; k--) {
            scores[k] = scores[k - 1];
            ctx->order[k] = ctx->order[k - 1];
        }

        scores[k] = score;
        ctx->order[k] = i;
        n++;
    }

    ctx->norder = n;

    if (targets->mixed) {
        ngx_http_llm_balance_pin(ctx);
    }
}


static ngx_uint_t
ngx_http_llm_balance_turn(ngx_http_llm_ctx_t *ctx)
{
    ngx_uint_t               d, turn;
    ngx_http_llm_targets_t  *targets;

    targets = ctx->targets;

    for (d = 0; d < NGX_HTTP_LLM_DIALECTS && llm_dialects[d]; d++) {

        if (llm_dialects[d] == ctx->dialect && targets->nturns[d]) {
            turn = ngx_atomic_fetch_add(&targets->cell->turn[d], 1);

            return targets->turns[d][turn % targets->nturns[d]];
        }
    }

    return 0;
}


/*
 * State that a provider keeps is known there only, or within its account: who
 * made it serves all that refers to it.
 */

static void
ngx_http_llm_balance_pin(ngx_http_llm_ctx_t *ctx)
{
    uint64_t                   digest[LLM_BOUND_MAX];
    ngx_uint_t                 i, k, n;
    ngx_http_llm_target_t     *target;
    ngx_http_llm_provider_t   *p;
    ngx_http_llm_main_conf_t  *lmcf;

    n = ctx->dialect->bound(&ctx->rq, digest, LLM_BOUND_MAX);

    if (n == 0 || ctx->norder == 0) {
        return;
    }

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    target = ctx->targets->target;

    for (i = 0; i < n; i++) {

        p = ngx_http_llm_bound_get(lmcf, digest[i]);

        if (p == NULL) {
            continue;
        }

        for (k = 0; k < ctx->norder; k++) {

            if (ngx_http_llm_same_account(p,
                                          target[ctx->order[k]].provider))
            {
                ctx->pinned = p;
                return;
            }
        }
    }

    /* made before our time, or elsewhere: the first as written */

    k = ctx->order[0];

    for (i = 1; i < ctx->norder; i++) {
        k = ngx_min(k, ctx->order[i]);
    }

    ctx->pinned = target[k].provider;
}


/*
 * The first of the order is about to be called.  If what is known of it is
 * old, one call finds out, and until then the others go where they went: or
 * all of them would run into a target that is slow.
 */

void
ngx_http_llm_balance_scout(ngx_http_llm_ctx_t *ctx)
{
    ngx_atomic_uint_t     until;
    ngx_http_llm_cell_t  *cell;

    cell = ctx->target->cell;

    if (ctx->targets->balance != NGX_HTTP_LLM_BALANCE_LATENCY
        || cell == NULL
        || (cell->sampled
            && (ngx_msec_int_t) (ngx_current_msec - cell->sampled)
               < NGX_HTTP_LLM_HALF_LIFE))
    {
        return;
    }

    until = cell->scout;

    (void) ngx_atomic_cmp_set(&cell->scout, until,
                              ngx_current_msec + NGX_HTTP_LLM_SCOUT);
}


static ngx_uint_t
ngx_http_llm_balance_scouted(ngx_http_llm_cell_t *cell)
{
    ngx_atomic_uint_t  until;

    until = cell->scout;

    return until && (ngx_msec_int_t) (until - ngx_current_msec) > 0;
}


/* does one know the state that the other keeps? */

ngx_uint_t
ngx_http_llm_same_account(ngx_http_llm_provider_t *p,
    ngx_http_llm_provider_t *other)
{
    return p == other
           || (p->account.len
               && p->account.len == other->account.len
               && ngx_strncmp(p->account.data, other->account.data,
                              p->account.len)
                  == 0);
}


/*
 * The time that an answer of typical length takes, in us.  What was measured
 * long ago counts for less and less, so that a target that was slow once is
 * tried again; one that was never measured is tried first.
 */

static uint64_t
ngx_http_llm_balance_latency(ngx_http_llm_target_t *target)
{
    uint64_t              score;
    ngx_msec_int_t        age;
    ngx_http_llm_cell_t  *cell;

    cell = target->cell;

    if (cell == NULL) {
        return 0;
    }

    if (ngx_http_llm_balance_scouted(cell)) {
        return (uint64_t) -1;
    }

    if (cell->sampled == 0) {
        return 0;
    }

    score = cell->ttft + NGX_HTTP_LLM_TYPICAL * (uint64_t) cell->rate;
    age = (ngx_msec_int_t) (ngx_current_msec - cell->sampled);

    if (age < 0) {
        age = 0;
    }

    for ( /* void */ ; age >= NGX_HTTP_LLM_HALF_LIFE && score; score /= 2) {
        age -= NGX_HTTP_LLM_HALF_LIFE;
    }

    return score - score * age / NGX_HTTP_LLM_HALF_LIFE / 2;
}


/* the first token has come */

void
ngx_http_llm_balance_first(ngx_http_llm_attempt_t *a)
{
    ngx_msec_int_t        took;
    ngx_http_llm_cell_t  *cell;

    cell = a->target->cell;

    if (a->ctx->targets->balance != NGX_HTTP_LLM_BALANCE_LATENCY
        || cell == NULL || a->sent == 0 || !a->flight->stream)
    {
        return;
    }

    /* an answer may begin before the request is all sent */

    took = (ngx_msec_int_t) (a->first_at - a->sent);

    ngx_http_llm_balance_mix(&cell->ttft, ngx_max(took, 0) * 1000 + 1,
                             ngx_http_llm_balance_old(cell)
                             || cell->ttft == 0);

    cell->sampled = ngx_current_msec;
    cell->scout = 0;
}


static ngx_uint_t
ngx_http_llm_balance_old(ngx_http_llm_cell_t *cell)
{
    return cell->sampled == 0
           || (ngx_msec_int_t) (ngx_current_msec - cell->sampled)
              > 4 * NGX_HTTP_LLM_HALF_LIFE;
}


/* an answer has ended well: how long did it take? */

void
ngx_http_llm_balance_learn(ngx_http_llm_attempt_t *a)
{
    uint64_t              rate;
    ngx_uint_t            fresh;
    ngx_msec_t            took;
    llm_usage_t          *usage;
    ngx_http_llm_cell_t  *cell;

    cell = a->target->cell;

    if (a->ctx->targets->balance != NGX_HTTP_LLM_BALANCE_LATENCY
        || cell == NULL || a->sent == 0)
    {
        return;
    }

    if (a->waited || a->closed) {

        /* it was the client that took its time */

        cell->scout = 0;
        return;
    }

    usage = &a->flight->answer.usage;
    fresh = ngx_http_llm_balance_old(cell);

    took = a->last_event - ((a->flight->stream && a->first_at) ? a->first_at
                                                               : a->sent);

    if ((usage->known & LLM_USAGE_COMPLETION) && usage->completion > 1) {
        rate = (uint64_t) took * 1000 / usage->completion + 1;

        ngx_http_llm_balance_mix(&cell->rate, rate, fresh || cell->rate == 0);
    }

    cell->sampled = ngx_current_msec;
    cell->scout = 0;
}


/* it has failed: that counts as slow, or it would go on being the first */

void
ngx_http_llm_balance_blame(ngx_http_llm_attempt_t *a, ngx_uint_t failure)
{
    ngx_http_llm_cell_t  *cell;

    cell = a->target->cell;

    if (a->ctx->targets->balance != NGX_HTTP_LLM_BALANCE_LATENCY
        || cell == NULL
        || failure == LLM_FAIL_CLIENT || failure == LLM_FAIL_CONTEXT)
    {
        return;
    }

    ngx_http_llm_balance_mix(&cell->ttft, NGX_HTTP_LLM_BLAME,
                             cell->ttft == 0);

    cell->sampled = ngx_current_msec;
    cell->scout = 0;
}


/* a lost update of another worker is one sample lost */

static void
ngx_http_llm_balance_mix(ngx_atomic_t *word, ngx_msec_t sample,
    ngx_uint_t fresh)
{
    *word = fresh ? sample : (*word * 7 + sample) / 8;
}


/*
 * What the request may cost, in 1e-12 USD: four bytes a token in, and an
 * answer of typical length; who has no price comes last.
 */

static uint64_t
ngx_http_llm_balance_cost(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    uint64_t               cost;
    ngx_str_t              model;
    ngx_http_llm_price_t  *m;

    model = ngx_http_llm_target_model(ctx, target);
    m = ngx_http_llm_model_facts(target->provider, &model);

    if (m == NULL || !(m->priced & (1 << NGX_HTTP_LLM_PRICE_INPUT))) {
        return (uint64_t) -1;
    }

    cost = (ctx->rq.body.len / 4 + 1) * m->price[NGX_HTTP_LLM_PRICE_INPUT];

    if (m->priced & (1 << NGX_HTTP_LLM_PRICE_OUTPUT)) {
        cost += NGX_HTTP_LLM_TYPICAL * m->price[NGX_HTTP_LLM_PRICE_OUTPUT];
    }

    return cost;
}


/* the model that a target is asked for: its own name, or the client's */

ngx_str_t
ngx_http_llm_target_model(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target)
{
    ngx_str_t  model;

    model = target->model;

    if (model.len == 0) {
        model.len = ctx->rq.model.len;
        model.data = ctx->rq.model.data;
    }

    return model;
}


/* what the provider's block says of a model, NULL: nothing */

ngx_http_llm_price_t *
ngx_http_llm_model_facts(ngx_http_llm_provider_t *p, ngx_str_t *model)
{
    ngx_uint_t             i;
    ngx_http_llm_price_t  *m;

    m = p->models.elts;

    for (i = 0; i < p->models.nelts; i++) {
        if (m[i].name.len == model->len
            && ngx_memcmp(m[i].name.data, model->data, model->len) == 0)
        {
            return &m[i];
        }
    }

    return NULL;
}
