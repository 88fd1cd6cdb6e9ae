
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Who leads a flight that others follow, and what becomes of them if nobody
 * does.  The request that leads has the attempts: they are its subrequests.
 *
 * Its client may leave.  As long as an attempt runs the request stays, without
 * a client (an orphan), and with it the attempt; its end terminates it.  Nothing
 * new can be begun on it, so when an attempt is to follow another request of
 * this worker takes over, with all that was found out by then.  If there is
 * none, the flight is lost: who follows it, in whichever worker, and was shown
 * nothing asks again as if it had just come.
 *
 * A request that follows can become one that reads a flight of its own: of a
 * stream that it wants as a plain answer, or of an old answer that is better
 * than an error.
 */


#include "ngx_http_llm_module.h"


static void ngx_http_llm_lead_alone(ngx_http_llm_flight_t *f);
static void ngx_http_llm_lead_orphan(ngx_http_request_t *r);
static ngx_http_llm_ctx_t *ngx_http_llm_lead_candidate(
    ngx_http_llm_flight_t *f);
static void ngx_http_llm_lead_hand(ngx_http_llm_ctx_t *old,
    ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_lead_error(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_flight_t *f);
static ngx_int_t ngx_http_llm_lead_folded(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_flight_t *f);
static ngx_int_t ngx_http_llm_lead_served(ngx_http_llm_ctx_t *ctx);


void
ngx_http_llm_lead_begin(ngx_http_llm_ctx_t *ctx, ngx_http_llm_flight_t *f)
{
    llm_str_t  id;

    ctx->flight = f;
    f->lead = ctx;

    id = ngx_http_llm_request_id(ctx->request);

    ctx->name.len = id.len;
    ctx->name.data = id.data;

    f->name_len = ngx_min(id.len, sizeof(f->name));
    ngx_memcpy(f->name, id.data, f->name_len);
}


/* does anybody else read the flight that this request leads? */

ngx_uint_t
ngx_http_llm_lead_others(ngx_http_llm_ctx_t *ctx)
{
    return ctx->flight && ctx->flight->lead == ctx
           && ctx->flight->nreaders > (ngx_uint_t) ctx->reader.attached;
}


/*
 * The client of a request has gone.  NGX_OK: the request stays, for the sake
 * of others or since its call is to be let end; NGX_DECLINED: it need not.
 */

ngx_int_t
ngx_http_llm_lead_leave(ngx_http_llm_ctx_t *ctx)
{
    ngx_msec_t                left;
    ngx_uint_t                others;
    ngx_http_request_t       *r;
    ngx_http_llm_ctx_t       *next;
    ngx_http_llm_loc_conf_t  *llcf;

    r = ctx->request;

    if (ctx->flight == NULL || ctx->follows || ctx->flight->ended) {
        return NGX_DECLINED;
    }

    others = ngx_http_llm_lead_others(ctx);

    if (ctx->attempt == NULL || !ctx->attempt->running) {

        if (!others) {
            return NGX_DECLINED;
        }

        next = ngx_http_llm_lead_candidate(ctx->flight);

        if (next && ctx->backoff.timer_set) {

            left = ctx->backoff.timer.key - ngx_current_msec;

            ngx_http_llm_lead_hand(ctx, next);
            ngx_http_llm_retry_later(next, (ngx_msec_int_t) left > 0 ? left
                                                                     : 1);

        } else {
            ngx_http_llm_lead_lost(ctx->flight, "worker_lost");
        }

        return NGX_DECLINED;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (!others && llcf->client_abort != NGX_HTTP_LLM_DRAIN) {
        return NGX_DECLINED;
    }

    ngx_http_llm_reader_cleanup(ctx);

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_llm_lead_orphan;

    if (ctx->attempt->closed) {
        ngx_http_llm_attempt_resume(ctx->attempt, r->connection);
    }

    return NGX_OK;
}


/* r->write_event_handler of an orphan: posted requests of its connection will
 * run, and that is all, unless nobody is left */

static void
ngx_http_llm_lead_orphan(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx && ctx->cancel) {
        ctx->cancel = 0;
        ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
    }
}


/* a reader has left; if it was the last one, nobody wants the answer */

void
ngx_http_llm_lead_unread(ngx_http_llm_flight_t *f)
{
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_loc_conf_t  *llcf;

    if (f->nreaders) {
        ngx_http_llm_lead_alone(f);
        return;
    }

    if (f->mirror) {
        ngx_http_llm_mirror_close(f->mirror);
        return;
    }

    ctx = f->lead;

    if (ctx == NULL || !ctx->aborted || f->ended) {
        return;
    }

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    if (llcf->client_abort == NGX_HTTP_LLM_DRAIN) {

        /* what waits for a reader need not any more */

        if (ctx->attempt && ctx->attempt->closed) {
            ngx_http_llm_attempt_resume(ctx->attempt, NULL);
        }

        return;
    }

    ngx_http_llm_coalesce_leave(f);

    /* within another connection's event */

    ctx->cancel = 1;
    ngx_post_event(ctx->request->connection->write, &ngx_posted_events);
}


/* who may be the only reader now decides how fast the provider is read */

static void
ngx_http_llm_lead_alone(ngx_http_llm_flight_t *f)
{
    ngx_queue_t             *q;
    ngx_http_llm_reader_t   *rd;
    ngx_http_llm_attempt_t  *a;

    if (f->open || f->ended) {
        return;
    }

    if (f->nreaders == 1) {
        q = ngx_queue_head(&f->readers);
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);

        if (rd->request) {
            ngx_http_llm_reader_trim(ngx_http_get_module_ctx(rd->request,
                                                       ngx_http_llm_module),
                                     NULL);
        }
    }

    a = f->lead ? f->lead->attempt : NULL;

    if (a && a->closed) {
        ngx_http_llm_attempt_resume(a, NULL);
    }
}


/*
 * An attempt of an orphan has ended, and nothing of it was shown.  NGX_OK:
 * another request leads from now on, and decides what follows.
 */

ngx_int_t
ngx_http_llm_lead_pass(ngx_http_llm_attempt_t *a)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;

    if (!ctx->aborted || a->flight->form == 0 || a->flight->lead != ctx) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_llm_lead_candidate(a->flight);

    if (ctx == NULL) {
        return NGX_DECLINED;
    }

    ngx_http_llm_lead_hand(a->ctx, ctx);

    a->ctx = ctx;

    return NGX_OK;
}


/* one that follows, and could as well lead */

static ngx_http_llm_ctx_t *
ngx_http_llm_lead_candidate(ngx_http_llm_flight_t *f)
{
    ngx_queue_t            *q;
    ngx_http_llm_ctx_t     *ctx;
    ngx_http_llm_reader_t  *rd;

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = ngx_queue_next(q))
    {
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);

        if (rd->request == NULL || rd->fold || rd->mute
            || rd->request->connection->error)
        {
            continue;
        }

        ctx = ngx_http_get_module_ctx(rd->request, ngx_http_llm_module);

        if (ctx->follows && !ctx->aborted && !ctx->finalized
            && ctx->targets->n == f->lead->targets->n)
        {
            return ctx;
        }
    }

    return NULL;
}


/* the same key has the same route: targets go by their place in it */

static void
ngx_http_llm_lead_hand(ngx_http_llm_ctx_t *old, ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_flight_t  *f;

    f = old->flight;

    ngx_log_error(NGX_LOG_INFO, old->request->connection->log, 0,
                  "llm: client of the call has left, another one's request "
                  "goes on with it");

    ngx_memcpy(ctx->order, old->order, sizeof(ctx->order));

    ctx->norder = old->norder;
    ctx->tried = old->tried;
    ctx->blamed = old->blamed;
    ctx->need_context = old->need_context;
    ctx->pinned = old->pinned;
    ctx->attempts = old->attempts;
    ctx->tries = old->tries;
    ctx->again = old->again;
    ctx->wait = old->wait;
    ctx->spent = old->spent;

    ctx->target = old->target
                  ? &ctx->targets->target[old->target - old->targets->target]
                  : NULL;

    ctx->follows = 0;
    ctx->cache->status = old->cache->status;
    ctx->cache->reason = old->cache->reason;
    ctx->cache->store = old->cache->store;

    if (f->keep) {
        ctx->cache->first = ngx_http_llm_target_model(ctx,
                                  &ctx->targets->target[ctx->order[0]]);
        ctx->cache->has_id = old->cache->has_id;
        ngx_memcpy(ctx->cache->id, old->cache->id, LLM_ID_LEN);
    }

    f->lead = ctx;

    ngx_http_llm_reader_leads(ctx);

    /* what is posted there has to be run */

    ngx_post_event(ctx->request->connection->write, &ngx_posted_events);
}


/* a request ends: if it led, then with it what it led */

void
ngx_http_llm_lead_end(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_flight_t  *f;

    f = ctx->flight;

    if (f == NULL || f->lead != ctx) {
        return;
    }

    if (f->ended && !f->settled) {
        ngx_http_llm_coalesce_settle(f);
    }

    if (!f->ended) {
        ngx_http_llm_lead_lost(f, "worker_lost");
    }

    f->lead = NULL;
}


/*
 * Nobody fills the flight any more.  Its readers find out by themselves what
 * that means for them.
 */

void
ngx_http_llm_lead_lost(ngx_http_llm_flight_t *f, const char *error)
{
    ngx_http_llm_coalesce_leave(f);

    if (f->nreaders) {
        ngx_log_error(NGX_LOG_INFO, ngx_cycle->log, 0,
                      "llm: a call that %ui others follow is lost",
                      f->nreaders);
    }

    ngx_http_llm_failure_error(error, &f->error);

    f->reason = error;
    f->settled = 1;
    f->lost = 1;
    f->failed = 1;
    f->ended = 1;

    ngx_http_llm_flight_wake(f);
}


/*
 * The flight was lost, or is of no use to this request, and its client was
 * shown nothing: once more, as if it had just come.  After this the request
 * may be gone.
 */

void
ngx_http_llm_lead_restart(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_request_t        *r;
    ngx_http_llm_reader_t     *rd;
    ngx_http_llm_flight_t     *f;
    ngx_http_llm_main_conf_t  *lmcf;

    r = ctx->request;
    rd = &ctx->reader;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm request begins anew: %ui", ctx->restarts);

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    (void) ngx_atomic_fetch_add(&lmcf->shared->restarted, 1);

    ngx_http_llm_reader_cleanup(ctx);

    f = ctx->flight;
    ctx->flight = NULL;
    ngx_http_llm_flight_unref(f);

    rd->fold = 0;
    rd->failed = 0;
    rd->mute = 0;

    ctx->follows = 0;
    ctx->restarts++;
    ctx->error = NULL;
    ctx->cache->waited = 0;
    ctx->cache->store = 0;

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_http_llm_go(ctx);
}


/*
 * The reader leaves the flight for one of its own, which has nothing yet.
 * NULL: there is no memory, and nothing has changed.
 */

ngx_http_llm_flight_t *
ngx_http_llm_lead_own(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_flight_t  *f, *own;

    f = ctx->flight;

    own = ngx_http_llm_flight_create();
    if (own == NULL) {
        return NULL;
    }

    if (f->lead == ctx) {
        f->lead = NULL;
    }

    ctx->reader.fold = 0;
    ctx->flight = own;

    ngx_http_llm_flight_detach(&ctx->reader);
    ngx_http_llm_flight_attach(own, &ctx->reader);

    ngx_http_llm_lead_unread(f);
    ngx_http_llm_flight_unref(f);

    return own;
}


/*
 * A stream has ended that this request wants as a plain answer.  NGX_OK: it
 * has that now, or an error; NGX_DECLINED: it can't be made; NGX_ERROR.
 */

ngx_int_t
ngx_http_llm_lead_fold(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_flight_t  *f;

    f = ctx->flight;

    if (!f->stream && !f->failed) {

        /* an error, or something else that is not one; as it is */

        if (f->status < NGX_HTTP_BAD_REQUEST) {
            return NGX_DECLINED;
        }

        ctx->reader.fold = 0;

        return NGX_OK;
    }

    if (f->failed) {
        return ngx_http_llm_lead_error(ctx, f);
    }

    return ngx_http_llm_lead_folded(ctx, f);
}


static ngx_int_t
ngx_http_llm_lead_error(ngx_http_llm_ctx_t *ctx, ngx_http_llm_flight_t *f)
{
    llm_error_t             err;
    ngx_http_llm_flight_t  *own;

    if (!f->released) {

        /* it was not shown to anybody: told as to everybody */

        ctx->reader.fold = 0;

        return NGX_OK;
    }

    if (f->told) {
        ngx_http_llm_failure_error("upstream_error", &err);

    } else {
        err = f->error;
    }

    /* its words are the flight's */

    if (ngx_http_llm_failure_copy(ctx->request->pool, &err) != NGX_OK
        || ngx_http_llm_lead_served(ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    own = ngx_http_llm_lead_own(ctx);
    if (own == NULL) {
        return NGX_ERROR;
    }

    own->error = err;
    own->failed = 1;
    own->ended = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_lead_folded(ngx_http_llm_ctx_t *ctx, ngx_http_llm_flight_t *f)
{
    u_char                 *p;
    llm_int_t               rc;
    llm_str_t               text, folded;
    llm_answer_t           *answer;
    ngx_http_llm_flight_t  *own;

    answer = &f->answer;

    if (f->end_marker || f->trimmed != f->base
        || (answer->usage.known & (LLM_USAGE_PROMPT|LLM_USAGE_COMPLETION))
           != (LLM_USAGE_PROMPT|LLM_USAGE_COMPLETION)
        || ngx_http_llm_answer_gather(f, ctx->request->pool, &text) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    rc = ctx->dialect->caching->fold(ctx->endpoint, &text, &ctx->mem, &folded);

    if (rc != LLM_OK) {
        return NGX_DECLINED;
    }

    if (ngx_http_llm_lead_served(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    own = ngx_http_llm_lead_own(ctx);
    if (own == NULL) {
        return NGX_ERROR;
    }

    p = ngx_http_llm_flight_reserve(own, folded.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, folded.data, folded.len);

    ngx_http_llm_flight_commit(own, folded.len, 0, NGX_HTTP_LLM_REC_PLAIN);

    ngx_str_set(&own->content_type, "application/json");

    own->answer.usage = ctx->usage;
    own->status = NGX_HTTP_OK;
    own->head = 1;
    own->released = 1;
    own->ended = 1;

    return NGX_OK;
}


/* what is told of the flight that it leaves */

static ngx_int_t
ngx_http_llm_lead_served(ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t              *s;
    ngx_pool_t             *pool;
    ngx_http_llm_cached_t  *cache;

    pool = ctx->request->pool;
    cache = ctx->cache;

    ngx_http_llm_facts(ctx);

    /* they are the flight's */

    s = &cache->provider;
    s->data = ngx_pstrdup(pool, s);

    if (s->data == NULL) {
        return NGX_ERROR;
    }

    s = &cache->model;
    s->data = ngx_pstrdup(pool, s);

    return s->data ? NGX_OK : NGX_ERROR;
}
