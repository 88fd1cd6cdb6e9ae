
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Connections to a provider.  Every provider has an upstream configuration of
 * its own whose peer.init is ours.  For a bare host the peers are the host's
 * addresses and a pool of idle connections that each worker keeps (the
 * addresses may change, see ngx_http_llm_resolve.c); for a
 * named upstream { } they are nginx's own, with its balancing and keepalive,
 * and ours stand around them.
 *
 * In both cases one rule is added to nginx's: a request is sent a second time
 * within one attempt only if it was not sent at all, or if it went to an idle
 * connection that the provider had closed without a byte of an answer.
 * Everything else is for the attempt's owner to decide.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_IDLE_TIMEOUT   60000      /* ms */
#define NGX_HTTP_LLM_IDLE_AGE       3600000    /* ms, of a connection */
#define NGX_HTTP_LLM_IDLE_REQUESTS  1000


/* an idle connection of a bare host */

typedef struct {
    ngx_queue_t                    queue;
    ngx_connection_t              *connection;
    ngx_http_llm_provider_t       *provider;
    ngx_addr_t                    *addr;
} ngx_http_llm_idle_t;


/* peers of one attempt */

typedef struct {
    ngx_http_llm_provider_t       *provider;
    ngx_http_upstream_t           *upstream;
    ngx_http_llm_attempt_t        *attempt;    /* NULL: passthrough */
    ngx_pool_t                    *pool;       /* the request's */
    ngx_addr_t                    *addr;       /* the one in use, a copy */
    ngx_uint_t                     next;

    /* of a named upstream */
    void                          *data;
    ngx_event_get_peer_pt          get;
    ngx_event_free_peer_pt         free;
    ngx_event_notify_peer_pt       notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt  set_session;
    ngx_event_save_peer_session_pt save_session;
#endif
} ngx_http_llm_peer_t;


static ngx_int_t ngx_http_llm_peer_get_host(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_llm_peer_free_host(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_int_t ngx_http_llm_peer_use(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_t *lp, ngx_addr_t *addr);
static ngx_addr_t *ngx_http_llm_peer_find(ngx_addr_t *addrs, ngx_uint_t n,
    ngx_addr_t *addr);
static ngx_int_t ngx_http_llm_peer_keep(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_t *lp);
static ngx_int_t ngx_http_llm_peer_get_named(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_llm_peer_free_named(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void ngx_http_llm_peer_notify_named(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t type);
static void ngx_http_llm_peer_failed(ngx_peer_connection_t *pc,
    ngx_http_llm_peer_t *lp, ngx_uint_t state);
static void ngx_http_llm_peer_once(ngx_peer_connection_t *pc,
    ngx_http_upstream_t *u, ngx_uint_t state);
static void ngx_http_llm_idle_dummy(ngx_event_t *ev);
static void ngx_http_llm_idle_handler(ngx_event_t *ev);
static void ngx_http_llm_idle_free(ngx_http_llm_idle_t *idle);
static void ngx_http_llm_idle_close(ngx_connection_t *c);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_llm_peer_set_session(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_llm_peer_save_session(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_http_llm_peer_set_named_session(
    ngx_peer_connection_t *pc, void *data);
static void ngx_http_llm_peer_save_named_session(ngx_peer_connection_t *pc,
    void *data);
#endif


ngx_int_t
ngx_http_llm_peer_pool(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    ngx_uint_t            i;
    ngx_http_llm_idle_t  *idle;

    ngx_queue_init(&p->idle);
    ngx_queue_init(&p->free);

    if (p->named || p->keepalive == 0) {
        return NGX_OK;
    }

    idle = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_idle_t) * p->keepalive);
    if (idle == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < p->keepalive; i++) {
        idle[i].provider = p;
        ngx_queue_insert_head(&p->free, &idle[i].queue);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_peer_init(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_t      *u;
    ngx_http_llm_peer_t      *lp;
    ngx_http_llm_provider_t  *p;

    p = (ngx_http_llm_provider_t *) ((u_char *) us
                                - offsetof(ngx_http_llm_provider_t, uscf));
    u = r->upstream;

    lp = ngx_pcalloc(r->pool, sizeof(ngx_http_llm_peer_t));
    if (lp == NULL) {
        return NGX_ERROR;
    }

    lp->provider = p;
    lp->upstream = u;
    lp->pool = r->pool;

    if (r != r->main) {
        lp->attempt = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    }

    if (p->named) {
        if (p->named->peer.init(r, p->named) != NGX_OK) {
            return NGX_ERROR;
        }

        lp->data = u->peer.data;
        lp->get = u->peer.get;
        lp->free = u->peer.free;

        u->peer.data = lp;
        u->peer.get = ngx_http_llm_peer_get_named;
        u->peer.free = ngx_http_llm_peer_free_named;

        if (u->peer.notify) {
            lp->notify = u->peer.notify;
            u->peer.notify = ngx_http_llm_peer_notify_named;
        }

#if (NGX_HTTP_SSL)
        lp->set_session = u->peer.set_session;
        lp->save_session = u->peer.save_session;
        u->peer.set_session = ngx_http_llm_peer_set_named_session;
        u->peer.save_session = ngx_http_llm_peer_save_named_session;
#endif

        return NGX_OK;
    }

    lp->next = p->naddrs ? p->next++ % p->naddrs : 0;

    u->peer.data = lp;
    u->peer.get = ngx_http_llm_peer_get_host;
    u->peer.free = ngx_http_llm_peer_free_host;
    u->peer.tries = p->naddrs;
#if (NGX_HTTP_SSL)
    u->peer.set_session = ngx_http_llm_peer_set_session;
    u->peer.save_session = ngx_http_llm_peer_save_session;
#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_peer_get_host(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_t *lp = data;

    ngx_queue_t              *q;
    ngx_connection_t         *c;
    ngx_http_llm_idle_t      *idle;
    ngx_http_llm_provider_t  *p;

    p = lp->provider;

    pc->cached = 0;
    pc->connection = NULL;

    if (p->naddrs == 0) {
        ngx_http_llm_resolve_wanted(p);
        pc->name = &p->uscf.host;
        return NGX_BUSY;
    }

    if (!ngx_queue_empty(&p->idle)) {
        q = ngx_queue_head(&p->idle);
        idle = ngx_queue_data(q, ngx_http_llm_idle_t, queue);

        if (ngx_http_llm_peer_use(pc, lp, idle->addr) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_queue_remove(q);
        ngx_queue_insert_head(&p->free, q);

        c = idle->connection;

        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "llm peer: idle connection %p", c);

        c->idle = 0;
        c->sent = 0;
        c->data = NULL;
        c->log = pc->log;
        c->read->log = pc->log;
        c->write->log = pc->log;
        c->pool->log = pc->log;

        if (c->read->timer_set) {
            ngx_del_timer(c->read);
        }

        pc->connection = c;
        pc->cached = 1;

        return NGX_DONE;
    }

    /* their number may be another than when the attempt began */

    return ngx_http_llm_peer_use(pc, lp, &p->addrs[lp->next++ % p->naddrs]);
}


/* a copy, since the list of addresses may be replaced before the request ends,
 * and its log line is written after that */

static ngx_int_t
ngx_http_llm_peer_use(ngx_peer_connection_t *pc, ngx_http_llm_peer_t *lp,
    ngx_addr_t *addr)
{
    u_char      *p;
    ngx_addr_t  *copy;

    p = ngx_palloc(lp->pool,
                   sizeof(ngx_addr_t) + addr->socklen + addr->name.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    copy = (ngx_addr_t *) p;
    p += sizeof(ngx_addr_t);

    copy->sockaddr = (struct sockaddr *) p;
    copy->socklen = addr->socklen;
    p = ngx_cpymem(p, addr->sockaddr, addr->socklen);

    copy->name.len = addr->name.len;
    copy->name.data = p;
    ngx_memcpy(p, addr->name.data, addr->name.len);

    lp->addr = copy;

    pc->sockaddr = copy->sockaddr;
    pc->socklen = copy->socklen;
    pc->name = &copy->name;

    return NGX_OK;
}


static ngx_addr_t *
ngx_http_llm_peer_find(ngx_addr_t *addrs, ngx_uint_t n, ngx_addr_t *addr)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (ngx_cmp_sockaddr(addrs[i].sockaddr, addrs[i].socklen,
                             addr->sockaddr, addr->socklen, 1)
            == NGX_OK)
        {
            return &addrs[i];
        }
    }

    return NULL;
}


/*
 * The host is elsewhere: idle connections to addresses that it no longer has
 * are closed.  Running requests have copies of theirs, so the old list may be
 * freed then.
 */

void
ngx_http_llm_peer_addrs(ngx_http_llm_provider_t *p, ngx_addr_t *addrs,
    ngx_uint_t n)
{
    ngx_addr_t           *addr;
    ngx_queue_t          *q, *next;
    ngx_http_llm_idle_t  *idle;

    for (q = ngx_queue_head(&p->idle);
         q != ngx_queue_sentinel(&p->idle);
         q = next)
    {
        next = ngx_queue_next(q);
        idle = ngx_queue_data(q, ngx_http_llm_idle_t, queue);
        addr = ngx_http_llm_peer_find(addrs, n, idle->addr);

        if (addr) {
            idle->addr = addr;

        } else {
            ngx_http_llm_idle_free(idle);
        }
    }

    p->addrs = addrs;
    p->naddrs = n;
    p->next = ngx_random();
}


static void
ngx_http_llm_peer_free_host(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_llm_peer_t  *lp = data;

    ngx_http_llm_peer_failed(pc, lp, state);

    if (ngx_http_llm_peer_keep(pc, lp) == NGX_OK) {
        pc->connection = NULL;
    }

    if (pc->tries) {
        pc->tries--;
    }

    ngx_http_llm_peer_once(pc, lp->upstream, state);
}


/* NGX_OK: the connection is in the pool now, NGX_DECLINED */

static ngx_int_t
ngx_http_llm_peer_keep(ngx_peer_connection_t *pc, ngx_http_llm_peer_t *lp)
{
    ngx_addr_t               *addr;
    ngx_queue_t              *q;
    ngx_connection_t         *c;
    ngx_http_llm_idle_t      *idle;
    ngx_http_upstream_t      *u;
    ngx_http_llm_provider_t  *p;

    c = pc->connection;
    u = lp->upstream;
    p = lp->provider;

    if (c == NULL
        || p->keepalive == 0
        || !u->keepalive
        || !u->request_body_sent
        || c->read->eof
        || c->read->error
        || c->read->timedout
        || c->write->error
        || c->write->timedout
        || c->requests >= NGX_HTTP_LLM_IDLE_REQUESTS
        || ngx_current_msec - c->start_time > NGX_HTTP_LLM_IDLE_AGE
        || ngx_terminate
        || ngx_exiting)
    {
        return NGX_DECLINED;
    }

    addr = ngx_http_llm_peer_find(p->addrs, p->naddrs, lp->addr);

    if (addr == NULL || ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_queue_empty(&p->free)) {
        q = ngx_queue_last(&p->idle);
        idle = ngx_queue_data(q, ngx_http_llm_idle_t, queue);
        ngx_http_llm_idle_close(idle->connection);

    } else {
        q = ngx_queue_head(&p->free);
        idle = ngx_queue_data(q, ngx_http_llm_idle_t, queue);
    }

    ngx_queue_remove(q);
    ngx_queue_insert_head(&p->idle, q);

    idle->connection = c;
    idle->addr = addr;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "llm peer: keep connection %p", c);

    c->read->delayed = 0;
    ngx_add_timer(c->read, NGX_HTTP_LLM_IDLE_TIMEOUT);

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    c->write->handler = ngx_http_llm_idle_dummy;
    c->read->handler = ngx_http_llm_idle_handler;

    c->data = idle;
    c->idle = 1;
    c->log = ngx_cycle->log;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;
    c->pool->log = ngx_cycle->log;

    if (c->read->ready) {
        ngx_http_llm_idle_handler(c->read);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_peer_get_named(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_t  *lp = data;

    return lp->get(pc, lp->data);
}


static void
ngx_http_llm_peer_free_named(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_llm_peer_t  *lp = data;

    ngx_http_llm_peer_failed(pc, lp, state);

    if (lp->attempt && lp->attempt->blameless) {
        state &= ~NGX_PEER_FAILED;
    }

    lp->free(pc, lp->data, state);

    ngx_http_llm_peer_once(pc, lp->upstream, state);
}


static void
ngx_http_llm_peer_notify_named(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type)
{
    ngx_http_llm_peer_t  *lp = data;

    lp->notify(pc, lp->data, type);
}


/* was it TLS that failed?  The connection is still there to be looked at */

static void
ngx_http_llm_peer_failed(ngx_peer_connection_t *pc, ngx_http_llm_peer_t *lp,
    ngx_uint_t state)
{
    if (lp->attempt == NULL) {
        return;
    }

    lp->attempt->tls_failed = 0;

#if (NGX_HTTP_SSL)

    if ((state & NGX_PEER_FAILED)
        && !lp->upstream->request_sent
        && pc->connection
        && pc->connection->ssl
        && !pc->connection->write->timedout)
    {
        lp->attempt->tls_failed = 1;
    }

#endif
}


static void
ngx_http_llm_peer_once(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    ngx_uint_t state)
{
    if (!(state & NGX_PEER_FAILED) || !u->request_sent) {
        return;
    }

    if (u->headers_in.status_n
        || u->buffer.last != u->buffer.start
        || (u->state && u->state->bytes_received))
    {
        pc->cached = 0;
    }

    /* with pc->cached set ngx_http_upstream_next() adds one more try */

    pc->tries = 0;
}


static void
ngx_http_llm_idle_dummy(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0, "llm idle dummy handler");
}


/* an idle connection has a byte, an end, a time-out, or the worker quits */

static void
ngx_http_llm_idle_handler(ngx_event_t *ev)
{
    int                n;
    char               buf[1];
    ngx_connection_t  *c;

    c = ev->data;

    if (!c->close && !c->read->timedout) {
        n = recv(c->fd, buf, 1, MSG_PEEK);

        if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
            ev->ready = 0;

            if (ngx_handle_read_event(c->read, 0) == NGX_OK) {
                return;
            }
        }
    }

    ngx_http_llm_idle_free(c->data);
}


static void
ngx_http_llm_idle_free(ngx_http_llm_idle_t *idle)
{
    ngx_http_llm_idle_close(idle->connection);

    ngx_queue_remove(&idle->queue);
    ngx_queue_insert_head(&idle->provider->free, &idle->queue);
}


static void
ngx_http_llm_idle_close(ngx_connection_t *c)
{
#if (NGX_HTTP_SSL)

    if (c->ssl) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        if (ngx_ssl_shutdown(c) == NGX_AGAIN) {
            c->ssl->handler = ngx_http_llm_idle_close;
            return;
        }
    }

#endif

    ngx_destroy_pool(c->pool);
    ngx_close_connection(c);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_llm_peer_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_t  *lp = data;

    /* one name, one configuration: a session fits all addresses of a host */

    if (lp->provider->session == NULL) {
        return NGX_OK;
    }

    return ngx_ssl_set_session(pc->connection, lp->provider->session);
}


static void
ngx_http_llm_peer_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_t  *lp = data;

    ngx_ssl_session_t    *session;

    session = ngx_ssl_get_session(pc->connection);
    if (session == NULL) {
        return;
    }

    if (lp->provider->session) {
        ngx_ssl_free_session(lp->provider->session);
    }

    lp->provider->session = session;
}


static ngx_int_t
ngx_http_llm_peer_set_named_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_t  *lp = data;

    return lp->set_session(pc, lp->data);
}


static void
ngx_http_llm_peer_save_named_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_llm_peer_t  *lp = data;

    lp->save_session(pc, lp->data);
}

#endif
