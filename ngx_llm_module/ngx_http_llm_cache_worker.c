
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A worker's part in the cache's file.  Whatever may wait - opening, writing,
 * evicting, syncing, purging - is done by a task in a thread, one at a time;
 * here is its queue, when it is run, and what becomes of it when the worker
 * ends.  The event loop itself only reads.
 *
 * An item is written as soon as it comes, if no task has run just before;
 * under load what comes within some ms makes one transaction.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_BATCH       256
#define NGX_HTTP_LLM_QUEUE       4096          /* items, */
#define NGX_HTTP_LLM_QUEUE_SIZE  (64 * 1024 * 1024)    /* and their bytes */
#define NGX_HTTP_LLM_GATHER      5             /* ms */
#define NGX_HTTP_LLM_TEND        10000         /* ms */
#define NGX_HTTP_LLM_ASIDE       10000         /* ms, after it could not be
                                                  opened or written */
#define NGX_HTTP_LLM_LAST        200           /* ms, when the worker ends */


/* one run of the thread; the event loop does not touch it while it runs */

typedef struct {
    llm_store_t                *store;
    ngx_http_llm_main_conf_t   *lmcf;
    llm_entry_t                *entries[NGX_HTTP_LLM_BATCH];
    ngx_http_llm_item_t        *items[NGX_HTTP_LLM_BATCH];
    ngx_uint_t                  n;
    ngx_queue_t                 purges;
    uint64_t                    now;           /* ms, epoch */
    llm_int_t                   opened;
    llm_int_t                   written;
    llm_int_t                   tended;
    unsigned                    open:1;        /* what is to be done */
    unsigned                    tend:1;
    unsigned                    routes:1;
} ngx_http_llm_work_t;


typedef struct {
    llm_store_t                *store;
    llm_store_conf_t            conf;
    ngx_http_llm_main_conf_t   *lmcf;
    ngx_thread_task_t          *task;
    ngx_queue_t                 items;
    ngx_uint_t                  nitems;
    size_t                      size;
    ngx_queue_t                 purges;
    ngx_event_t                 timer;
    ngx_msec_t                  done;          /* the last task */
    ngx_msec_t                  tended;
    ngx_msec_t                  aside;         /* not before; 0: at once */
    ngx_msec_t                  told;          /* that the queue is full */
    unsigned                    running:1;
    unsigned                    open:1;        /* it could be opened */
    unsigned                    more:1;        /* there is something to tend */
    unsigned                    routes:1;      /* were written */
} ngx_http_llm_cache_worker_t;


static void ngx_http_llm_cache_log(void *ctx, llm_uint_t level, int err,
    const char *text);
static void ngx_http_llm_cache_schedule(void);
static void ngx_http_llm_cache_timer(ngx_event_t *ev);
static void ngx_http_llm_cache_run(void);
static void ngx_http_llm_cache_take(ngx_http_llm_work_t *work);
static void ngx_http_llm_cache_task(void *data, ngx_log_t *log);
static void ngx_http_llm_cache_routes(ngx_http_llm_work_t *work);
static void ngx_http_llm_cache_done(ngx_event_t *ev);
static void ngx_http_llm_cache_drop(ngx_http_llm_item_t *item);


static ngx_http_llm_cache_worker_t  ngx_http_llm_cache_w;


ngx_int_t
ngx_http_llm_cache_init_worker(ngx_cycle_t *cycle)
{
    ngx_connection_t             *dummy;
    ngx_http_llm_main_conf_t     *lmcf;
    ngx_http_llm_cache_worker_t  *w;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL || lmcf->cache_path.len == 0 || lmcf->shared == NULL
        || ngx_process == NGX_PROCESS_HELPER)
    {
        return NGX_OK;
    }

    w = &ngx_http_llm_cache_w;

    ngx_memzero(w, sizeof(ngx_http_llm_cache_worker_t));

    w->lmcf = lmcf;

    ngx_queue_init(&w->items);
    ngx_queue_init(&w->purges);

    w->conf.path = (char *) lmcf->cache_path.data;
    w->conf.size = lmcf->cache_size;
    w->conf.shared = &lmcf->shared->store;
    w->conf.marks = lmcf->shared->marks;
    w->conf.nmarks = lmcf->shared->nmarks;
    w->conf.log = ngx_http_llm_cache_log;
    w->conf.log_ctx = cycle->log;

    w->store = llm_store_create(&w->conf);
    if (w->store == NULL) {
        return NGX_ERROR;
    }

    w->task = ngx_thread_task_alloc(cycle->pool, sizeof(ngx_http_llm_work_t));
    if (w->task == NULL) {
        return NGX_ERROR;
    }

    w->task->handler = ngx_http_llm_cache_task;
    w->task->event.handler = ngx_http_llm_cache_done;
    w->task->event.data = w;

    /* what debug logs take for a connection */

    dummy = ngx_pcalloc(cycle->pool, sizeof(ngx_connection_t));
    if (dummy == NULL) {
        return NGX_ERROR;
    }

    dummy->fd = (ngx_socket_t) -1;

    w->timer.handler = ngx_http_llm_cache_timer;
    w->timer.data = dummy;
    w->timer.log = cycle->log;
    w->timer.cancelable = 1;

    /* the threads have been started: their module stands before this one */

    ngx_http_llm_cache_run();

    return NGX_OK;
}


/* NULL: there is no cache */

llm_store_t *
ngx_http_llm_cache_store(void)
{
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    /* a single process takes a new configuration without being begun anew */

    if (w->store
        && w->lmcf != ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                                          ngx_http_llm_module))
    {
        return NULL;
    }

    return w->store;
}


/* from either thread */

static void
ngx_http_llm_cache_log(void *ctx, llm_uint_t level, int err, const char *text)
{
    ngx_log_error(level, (ngx_log_t *) ctx, err, "llm: %s", text);
}


/* reading has found that the file is bad, or has gone */

void
ngx_http_llm_cache_broken(void)
{
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    w->open = 0;

    if (!w->running) {
        ngx_http_llm_cache_schedule();
    }
}


/* takes the item over */

void
ngx_http_llm_cache_put(ngx_http_llm_item_t *item)
{
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    if (ngx_http_llm_cache_store() == NULL) {
        ngx_http_llm_item_free(item);
        return;
    }

    ngx_http_llm_news_put(w->lmcf->shared, &item->entry);

    if (w->aside) {

        /* counted; why, was said when it went wrong */

        ngx_http_llm_cache_drop(item);
        return;
    }

    if (w->nitems >= NGX_HTTP_LLM_QUEUE
        || w->size + item->entry.text.len > NGX_HTTP_LLM_QUEUE_SIZE)
    {
        if (w->told == 0 || ngx_current_msec - w->told > 60000) {
            w->told = ngx_current_msec ? ngx_current_msec : 1;

            ngx_log_error(NGX_LOG_WARN, w->timer.log, 0,
                          "llm: answers come faster than the cache can write "
                          "them, some are not kept");
        }

        ngx_http_llm_cache_drop(item);
        return;
    }

    ngx_queue_insert_tail(&w->items, &item->queue);
    w->nitems++;
    w->size += item->entry.text.len;

    if (!w->running) {
        ngx_http_llm_cache_schedule();
    }
}


/* takes the purge over if it is NGX_OK */

ngx_int_t
ngx_http_llm_cache_purge(ngx_http_llm_purge_t *purge)
{
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    if (ngx_http_llm_cache_store() == NULL) {
        return NGX_DECLINED;
    }

    ngx_queue_insert_tail(&w->purges, &purge->queue);

    if (!w->running) {
        ngx_http_llm_cache_run();
    }

    return NGX_OK;
}


/* something is to be done, and no task runs */

static void
ngx_http_llm_cache_schedule(void)
{
    ngx_msec_t                    since;
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    if (!ngx_queue_empty(&w->purges)) {
        ngx_http_llm_cache_run();
        return;
    }

    if (w->aside == 0 && (w->nitems || !w->open || w->more)) {

        since = ngx_current_msec - w->done;

        if (since >= NGX_HTTP_LLM_GATHER
            || w->nitems >= NGX_HTTP_LLM_BATCH)
        {
            ngx_http_llm_cache_run();
            return;
        }

        since = NGX_HTTP_LLM_GATHER - since;

    } else if (w->aside) {
        since = (ngx_msec_int_t) (w->aside - ngx_current_msec) > 0
                ? w->aside - ngx_current_msec : 1;

    } else {
        since = NGX_HTTP_LLM_TEND;
    }

    /* a timer that is set already is not later than that, or is moved */

    if (w->timer.timer_set) {

        if ((ngx_msec_int_t) (w->timer.timer.key - ngx_current_msec)
            <= (ngx_msec_int_t) since)
        {
            return;
        }

        ngx_del_timer(&w->timer);
    }

    ngx_add_timer(&w->timer, since);
}


static void
ngx_http_llm_cache_timer(ngx_event_t *ev)
{
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    if (ngx_http_llm_cache_store() == NULL) {
        return;
    }

    if (w->aside && (ngx_msec_int_t) (w->aside - ngx_current_msec) <= 0) {
        w->aside = 0;
        w->open = 0;
    }

    if (!w->running) {
        ngx_http_llm_cache_run();
    }
}


static void
ngx_http_llm_cache_run(void)
{
    ngx_queue_t                  *q;
    ngx_http_llm_work_t          *work;
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    if (w->timer.timer_set) {
        ngx_del_timer(&w->timer);
    }

    work = w->task->ctx;

    work->store = w->store;
    work->lmcf = w->lmcf;

    ngx_http_llm_cache_take(work);

    if (ngx_thread_task_post(w->lmcf->threads, w->task) != NGX_OK) {

        /* the pool's queue is full, which takes other users of it */

        while (work->n) {
            ngx_http_llm_cache_drop(work->items[--work->n]);
        }

        while (!ngx_queue_empty(&work->purges)) {
            q = ngx_queue_last(&work->purges);
            ngx_queue_remove(q);
            ngx_queue_insert_head(&w->purges, q);
        }

        w->done = ngx_current_msec;

        if (!w->timer.timer_set) {
            ngx_add_timer(&w->timer, NGX_HTTP_LLM_TEND / 10);
        }

        return;
    }

    w->running = 1;
}


/* what one task is to do */

static void
ngx_http_llm_cache_take(ngx_http_llm_work_t *work)
{
    ngx_time_t                   *tp;
    ngx_queue_t                  *q;
    ngx_http_llm_item_t          *item;
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    tp = ngx_timeofday();

    work->now = (uint64_t) tp->sec * 1000 + tp->msec;
    work->open = !w->open;
    work->routes = !w->routes;
    work->tend = w->more
                 || ngx_current_msec - w->tended >= NGX_HTTP_LLM_TEND;
    work->opened = LLM_OK;
    work->written = LLM_OK;
    work->tended = LLM_OK;
    work->n = 0;

    while (w->nitems && work->n < NGX_HTTP_LLM_BATCH) {

        q = ngx_queue_head(&w->items);
        ngx_queue_remove(q);

        item = ngx_queue_data(q, ngx_http_llm_item_t, queue);

        w->nitems--;
        w->size -= item->entry.text.len;

        work->items[work->n] = item;
        work->entries[work->n] = &item->entry;
        work->n++;
    }

    ngx_queue_init(&work->purges);

    if (!ngx_queue_empty(&w->purges)) {
        ngx_queue_add(&work->purges, &w->purges);
        ngx_queue_init(&w->purges);
    }
}


/* in the thread */

static void
ngx_http_llm_cache_task(void *data, ngx_log_t *log)
{
    ngx_http_llm_work_t *work = data;

    ngx_queue_t           *q;
    ngx_http_llm_purge_t  *purge;

    if (work->open) {
        work->opened = llm_store_open(work->store);
    }

    if (work->opened == LLM_OK && work->routes) {
        ngx_http_llm_cache_routes(work);
    }

    for (q = ngx_queue_head(&work->purges);
         q != ngx_queue_sentinel(&work->purges);
         q = ngx_queue_next(q))
    {
        purge = ngx_queue_data(q, ngx_http_llm_purge_t, queue);

        purge->rc = (work->opened == LLM_OK)
                    ? llm_store_purge(work->store, purge->what, &purge->text,
                                      work->now, &purge->done)
                    : LLM_AGAIN;
    }

    if (work->opened != LLM_OK) {
        return;
    }

    if (work->n) {
        work->written = llm_store_write(work->store, work->entries, work->n);
    }

    if (work->tend && work->written == LLM_OK) {
        work->tended = llm_store_tend(work->store, work->now);
    }
}


/* for whoever imports answers into the cache and does not know how the
 * providers are called */

static void
ngx_http_llm_cache_routes(ngx_http_llm_work_t *work)
{
    llm_str_t                 route, called;
    ngx_uint_t                i;
    ngx_http_llm_targets_t  **set;

    set = work->lmcf->sets.elts;

    for (i = 0; i < work->lmcf->sets.nelts; i++) {

        if (set[i]->route.len == 0) {
            continue;
        }

        route.len = set[i]->route.len;
        route.data = set[i]->route.data;
        called.len = set[i]->called.len;
        called.data = set[i]->called.data;

        (void) llm_store_route_put(work->store, &route, &called);
    }
}


/* the thread has done its work; on the event loop */

static void
ngx_http_llm_cache_done(ngx_event_t *ev)
{
    ngx_uint_t                    i;
    ngx_queue_t                  *q;
    ngx_http_llm_work_t          *work;
    ngx_http_llm_purge_t         *purge;
    ngx_http_llm_cache_worker_t  *w;

    w = ev->data;
    work = w->task->ctx;

    if (ngx_http_llm_cache_store() == NULL) {
        return;
    }

    w->running = 0;
    w->done = ngx_current_msec;

    if (work->opened == LLM_OK && work->open) {
        w->open = 1;
        w->routes = 1;
    }

    for (i = 0; i < work->n; i++) {

        ngx_http_llm_news_arrived(w->lmcf->shared, &work->items[i]->entry,
                                  work->opened != LLM_OK
                                  || work->written != LLM_OK);

        if (work->opened != LLM_OK) {
            ngx_http_llm_cache_drop(work->items[i]);

        } else {
            ngx_http_llm_item_free(work->items[i]);
        }
    }

    if (work->tend) {
        w->tended = ngx_current_msec;
    }

    w->more = (work->tended == LLM_AGAIN);

    if (work->opened != LLM_OK || work->written == LLM_DECLINED) {

        /* the store has said why */

        w->aside = ngx_current_msec + NGX_HTTP_LLM_ASIDE;

        if (w->aside == 0) {
            w->aside = 1;
        }

    } else if (work->written == LLM_ERROR || work->tended == LLM_ERROR) {
        w->open = 0;
    }

    while (!ngx_queue_empty(&work->purges)) {

        q = ngx_queue_head(&work->purges);
        ngx_queue_remove(q);

        purge = ngx_queue_data(q, ngx_http_llm_purge_t, queue);

        if (purge->done.pending) {
            w->more = 1;
        }

        purge->handler(purge);
    }

    if (!w->running) {
        ngx_http_llm_cache_schedule();
    }
}


static void
ngx_http_llm_cache_drop(ngx_http_llm_item_t *item)
{
    (void) __atomic_fetch_add(
                       &ngx_http_llm_cache_w.lmcf->shared->store.dropped, 1,
                       __ATOMIC_RELAXED);

    ngx_http_llm_news_arrived(ngx_http_llm_cache_w.lmcf->shared,
                              &item->entry, 1);
    ngx_http_llm_item_free(item);
}


/* the worker ends: the threads have ended before, so all is done here */

void
ngx_http_llm_cache_exit_worker(ngx_cycle_t *cycle)
{
    uint64_t                      start;
    ngx_queue_t                  *q;
    ngx_http_llm_work_t          *work;
    ngx_http_llm_item_t          *item;
    ngx_http_llm_cache_worker_t  *w;

    w = &ngx_http_llm_cache_w;

    ngx_http_llm_cache_seen_exit_worker();
    ngx_http_llm_cache_key_exit_worker();

    if (w->store == NULL) {

        /* keys are made for coalescing, too */

        llm_store_key_done();
        return;
    }

    work = w->task->ctx;
    start = ngx_http_llm_now();

    if (w->running) {

        /* it was run, but nobody is left to be told so */

        while (work->n) {
            ngx_http_llm_item_free(work->items[--work->n]);
        }
    }

    while (w->nitems) {

        if (!w->open || w->aside
            || ngx_http_llm_now() - start > NGX_HTTP_LLM_LAST * 1000)
        {
            item = ngx_queue_data(ngx_queue_head(&w->items),
                                  ngx_http_llm_item_t, queue);
            ngx_queue_remove(&item->queue);
            w->nitems--;

            ngx_http_llm_cache_drop(item);
            continue;
        }

        ngx_http_llm_cache_take(work);

        if (llm_store_write(w->store, work->entries, work->n) != LLM_OK) {
            w->open = 0;
        }

        while (work->n) {
            ngx_http_llm_item_free(work->items[--work->n]);
        }
    }

    if (w->running && !ngx_queue_empty(&work->purges)) {
        ngx_queue_add(&w->purges, &work->purges);
    }

    while (!ngx_queue_empty(&w->purges)) {

        /* who has asked is gone, or is about to be */

        q = ngx_queue_head(&w->purges);
        ngx_queue_remove(q);
        ngx_free(ngx_queue_data(q, ngx_http_llm_purge_t, queue));
    }

    llm_store_close(w->store);
    llm_store_free(w->store);
    llm_store_key_done();

    w->store = NULL;
}
