
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * This worker among the others: its part in what they share of calls in the
 * air (share/llm_share.h), and how they wake each other.
 *
 * The master makes an eventfd for each worker of a configuration, before it
 * forks; so each of them has all of these, and a worker that is started in
 * another's place has the same as that one had.  Workers of another
 * configuration have others, and are not spoken with.
 *
 * Without eventfds calls are joined within a worker only.
 */


#include "ngx_http_llm_module.h"

#if (NGX_HAVE_EVENTFD)
#include <sys/eventfd.h>
#endif


#define NGX_HTTP_LLM_TICK  500                 /* ms */


#if (NGX_HAVE_EVENTFD)

static void ngx_http_llm_worker_close(void *data);
static void ngx_http_llm_worker_wake(void *data, uint32_t index);
static void ngx_http_llm_worker_read(ngx_event_t *rev);
static void ngx_http_llm_worker_tick(ngx_event_t *ev);
static void ngx_http_llm_worker_link(void *data, llm_uint_t link);

#endif


/* a worker's; NULL: it is alone */

llm_worker_t        *ngx_http_llm_worker;


#if (NGX_HAVE_EVENTFD)

/* one for each worker of a configuration; inherited */

static ngx_array_t  *ngx_http_llm_wakers;

static ngx_event_t   ngx_http_llm_ticks;


/* before the workers are */

ngx_int_t
ngx_http_llm_worker_init_module(ngx_cycle_t *cycle)
{
    int                       *fd;
    ngx_int_t                  n;
    ngx_array_t               *wakers;
    ngx_core_conf_t           *ccf;
    ngx_pool_cleanup_t        *cln;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    ngx_http_llm_wakers = NULL;

    if (lmcf == NULL || !lmcf->coalesce || ngx_test_config
        || ngx_process == NGX_PROCESS_SIGNALLER)
    {
        return NGX_OK;
    }

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    n = ngx_max(ccf->worker_processes, 1);

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    wakers = ngx_array_create(cycle->pool, n, sizeof(int));

    if (cln == NULL || wakers == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_llm_worker_close;
    cln->data = wakers;

    while (n--) {

        fd = ngx_array_push(wakers);
        if (fd == NULL) {
            return NGX_ERROR;
        }

        *fd = eventfd(0, EFD_NONBLOCK|EFD_CLOEXEC);

        if (*fd == -1) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                          "eventfd() failed");
            wakers->nelts--;
            return NGX_ERROR;
        }
    }

    ngx_http_llm_wakers = wakers;

    return NGX_OK;
}


static void
ngx_http_llm_worker_close(void *data)
{
    ngx_array_t *wakers = data;

    int         *fd;
    ngx_uint_t   i;

    fd = wakers->elts;

    for (i = 0; i < wakers->nelts; i++) {
        (void) close(fd[i]);
    }
}


ngx_int_t
ngx_http_llm_worker_init(ngx_cycle_t *cycle)
{
    int                       *fd;
    llm_int_t                  rc;
    ngx_connection_t          *c;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (ngx_http_llm_wakers == NULL || lmcf == NULL || lmcf->share == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE)
        || ngx_worker >= ngx_http_llm_wakers->nelts)
    {
        return NGX_OK;
    }

    fd = ngx_http_llm_wakers->elts;

    c = ngx_get_connection(fd[ngx_worker], cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->log = cycle->log;
    c->recv = ngx_recv;
    c->read->log = cycle->log;
    c->write->log = cycle->log;
    c->read->handler = ngx_http_llm_worker_read;

    /* it stays until the worker ends, which is no leak */

    c->read->channel = 1;
    c->write->channel = 1;

    if (ngx_add_event(c->read, NGX_READ_EVENT,
                      (ngx_event_flags & NGX_USE_CLEAR_EVENT)
                      ? NGX_CLEAR_EVENT : NGX_LEVEL_EVENT)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    rc = llm_worker_start(lmcf->share, lmcf->generation, ngx_worker,
                          ngx_http_llm_worker_wake, NULL,
                          &ngx_http_llm_worker);

    if (rc == LLM_ERROR) {
        return NGX_ERROR;
    }

    if (rc != LLM_OK) {
        ngx_http_llm_worker = NULL;

        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "llm: zone \"%V\" has no room for another worker: its "
                      "calls are not joined with those of others",
                      &lmcf->zone->shm.name);
        return NGX_OK;
    }

    ngx_http_llm_ticks.handler = ngx_http_llm_worker_tick;
    ngx_http_llm_ticks.data = c;
    ngx_http_llm_ticks.log = cycle->log;

    return NGX_OK;
}


void
ngx_http_llm_worker_exit(void)
{
    if (ngx_http_llm_worker) {
        llm_worker_stop(ngx_http_llm_worker);
        ngx_http_llm_worker = NULL;
    }
}


static void
ngx_http_llm_worker_wake(void *data, uint32_t index)
{
    int       *fd;
    uint64_t   one;

    if (index >= ngx_http_llm_wakers->nelts) {
        return;
    }

    fd = ngx_http_llm_wakers->elts;
    one = 1;

    /* it fails if nobody has read it for 2^64 times: it wakes all the same */

    if (write(fd[index], &one, sizeof(uint64_t)) == -1
        && ngx_errno != NGX_EAGAIN)
    {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_errno,
                      "write() to an eventfd failed");
    }
}


static void
ngx_http_llm_worker_read(ngx_event_t *rev)
{
    uint64_t           n;
    ngx_connection_t  *c;

    c = rev->data;

    if (read(c->fd, &n, sizeof(uint64_t)) == -1 && ngx_errno != NGX_EAGAIN) {
        ngx_log_error(NGX_LOG_ALERT, rev->log, ngx_errno,
                      "read() of an eventfd failed");
    }

    rev->ready = 0;

    if (ngx_http_llm_worker) {
        llm_worker_bells(ngx_http_llm_worker, ngx_http_llm_worker_link, NULL);
    }
}


/* there is a link: others are to be watched, and are to know of us */

void
ngx_http_llm_worker_watch(void)
{
    if (!ngx_http_llm_ticks.timer_set) {
        ngx_add_timer(&ngx_http_llm_ticks, NGX_HTTP_LLM_TICK);
    }
}


/* not cancelable: clients may have nothing but this to wait for, and a worker
 * that is to quit waits for its timers */

static void
ngx_http_llm_worker_tick(ngx_event_t *ev)
{
    llm_worker_tick(ngx_http_llm_worker, ngx_http_llm_worker_link, NULL);

    if (llm_worker_links(ngx_http_llm_worker)) {
        ngx_http_llm_worker_watch();
    }
}


static void
ngx_http_llm_worker_link(void *data, llm_uint_t link)
{
    if (llm_link_mine(ngx_http_llm_worker, link)) {
        ngx_http_llm_outlet_ring(link);

    } else {
        ngx_http_llm_mirror_ring(link);
    }
}

#else

ngx_int_t
ngx_http_llm_worker_init_module(ngx_cycle_t *cycle)
{
    return NGX_OK;
}


ngx_int_t
ngx_http_llm_worker_init(ngx_cycle_t *cycle)
{
    return NGX_OK;
}


void
ngx_http_llm_worker_exit(void)
{
    /* void */
}


void
ngx_http_llm_worker_watch(void)
{
    /* void */
}

#endif
