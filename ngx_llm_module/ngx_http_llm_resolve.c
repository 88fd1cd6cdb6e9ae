
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The addresses of a bare host, looked up again and again.  With a "resolver"
 * at the http level each worker asks it on its own: soon after its start, and
 * whenever an answer's validity has ended.  Until there is an answer, and
 * while there is none, what was known before stays in use: at first that is
 * what the system found when the configuration was read.
 *
 * A list of addresses lives in a pool of its own and is replaced as a whole.
 * Nobody may point into it but the provider and its idle connections: see
 * ngx_http_llm_peer_addrs().
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_RESOLVE_MIN      1000     /* ms, between two queries */
#define NGX_HTTP_LLM_RESOLVE_MAX      3600000
#define NGX_HTTP_LLM_RESOLVE_BACKOFF  30000    /* ms, at most, after errors */
#define NGX_HTTP_LLM_RESOLVE_SPREAD   1000     /* ms, of the first queries */
#define NGX_HTTP_LLM_RESOLVE_POOL     512


struct ngx_http_llm_resolve_s {
    ngx_http_llm_provider_t       *provider;
    ngx_resolver_t                *resolver;
    ngx_resolver_ctx_t            *ctx;        /* a query on its way */

    /* the timer's data: ngx_event_ident() looks for a descriptor after three
     * pointers, as in ngx_connection_t */

    ngx_socket_t                   fd;
    ngx_event_t                    event;

    ngx_str_t                      name;       /* lower case */
    ngx_msec_t                     timeout;    /* of a query */
    ngx_pool_t                    *pool;       /* of the addresses; NULL: they
                                                  are the configuration's */
    ngx_uint_t                     failed;     /* times in a row */
};


static void ngx_http_llm_resolve_cleanup(void *data);
static void ngx_http_llm_resolve_timer(ngx_event_t *ev);
static void ngx_http_llm_resolve_done(ngx_resolver_ctx_t *ctx);
static void ngx_http_llm_resolve_failed(ngx_http_llm_resolve_t *rs,
    ngx_int_t state);
static ngx_int_t ngx_http_llm_resolve_update(ngx_http_llm_resolve_t *rs,
    ngx_resolver_ctx_t *ctx);
static ngx_addr_t *ngx_http_llm_resolve_list(ngx_http_llm_resolve_t *rs,
    ngx_pool_t *pool, ngx_resolver_ctx_t *ctx, ngx_uint_t *n);
static ngx_int_t ngx_http_llm_resolve_names(ngx_pool_t *pool,
    ngx_addr_t *addrs, ngx_uint_t n);
static void ngx_http_llm_resolve_log(ngx_http_llm_resolve_t *rs);
static int ngx_libc_cdecl ngx_http_llm_resolve_cmp(const void *one,
    const void *two);


/* the resolver of http { }, for all providers; merging may have left a dummy
 * there that has no servers */

void
ngx_http_llm_resolve_main_conf(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->resolver == NULL || clcf->resolver->connections.nelts == 0) {
        return;
    }

    lmcf->resolver = clcf->resolver;
    lmcf->resolver_timeout = clcf->resolver_timeout;

    if (lmcf->resolver_timeout == NGX_CONF_UNSET_MSEC) {
        lmcf->resolver_timeout = 30000;
    }
}


/* a provider whose host is a name, with the addresses that are known now */

ngx_int_t
ngx_http_llm_resolve_provider(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *host)
{
    ngx_pool_cleanup_t        *cln;
    ngx_http_llm_resolve_t    *rs;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (lmcf->resolver == NULL) {
        return NGX_OK;
    }

    rs = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_resolve_t));
    if (rs == NULL) {
        return NGX_ERROR;
    }

    rs->name.len = host->len;
    rs->name.data = ngx_pnalloc(cf->pool, host->len);
    if (rs->name.data == NULL) {
        return NGX_ERROR;
    }

    ngx_strlow(rs->name.data, host->data, host->len);

    /* runs before that of the resolver, which was created earlier */

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_llm_resolve_cleanup;
    cln->data = rs;

    rs->provider = p;
    rs->resolver = lmcf->resolver;
    rs->timeout = lmcf->resolver_timeout;
    rs->fd = (ngx_socket_t) -1;

    p->resolve = rs;

    if (p->naddrs) {
        ngx_qsort(p->addrs, p->naddrs, sizeof(ngx_addr_t),
                  ngx_http_llm_resolve_cmp);
    }

    return NGX_OK;
}


static void
ngx_http_llm_resolve_cleanup(void *data)
{
    ngx_http_llm_resolve_t *rs = data;

    if (rs->event.timer_set) {
        ngx_del_timer(&rs->event);
    }

    if (rs->ctx) {
        ngx_resolve_name_done(rs->ctx);
        rs->ctx = NULL;
    }

    if (rs->pool) {
        rs->provider->addrs = NULL;
        rs->provider->naddrs = 0;

        ngx_destroy_pool(rs->pool);
        rs->pool = NULL;
    }
}


ngx_int_t
ngx_http_llm_resolve_init_worker(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_msec_t                  wait;
    ngx_http_llm_resolve_t     *rs;
    ngx_http_llm_provider_t   **p;
    ngx_http_llm_main_conf_t   *lmcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL) {
        return NGX_OK;
    }

    p = lmcf->providers.elts;

    for (i = 0; i < lmcf->providers.nelts; i++) {
        rs = p[i]->resolve;

        if (rs == NULL) {
            continue;
        }

        rs->event.handler = ngx_http_llm_resolve_timer;
        rs->event.data = rs;
        rs->event.log = cycle->log;
        rs->event.cancelable = 1;

        wait = 0;

        if (p[i]->naddrs) {
            p[i]->next = ngx_random();
            wait = ngx_random() % NGX_HTTP_LLM_RESOLVE_SPREAD;
        }

        ngx_add_timer(&rs->event, wait);
    }

    return NGX_OK;
}


/* a request found no address: not long until the next query, then */

void
ngx_http_llm_resolve_wanted(ngx_http_llm_provider_t *p)
{
    ngx_http_llm_resolve_t  *rs;

    rs = p->resolve;

    if (rs && rs->event.timer_set
        && (ngx_msec_int_t) (rs->event.timer.key - ngx_current_msec)
           > NGX_HTTP_LLM_RESOLVE_MIN)
    {
        ngx_add_timer(&rs->event, NGX_HTTP_LLM_RESOLVE_MIN);
    }
}


static void
ngx_http_llm_resolve_timer(ngx_event_t *ev)
{
    ngx_resolver_ctx_t      *ctx;
    ngx_http_llm_resolve_t  *rs;

    rs = ev->data;

    /* what runs still has its addresses */

    if (ngx_exiting) {
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ev->log, 0,
                   "llm resolve: \"%V\"", &rs->name);

    ctx = ngx_resolve_start(rs->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_http_llm_resolve_failed(rs, NGX_ERROR);
        return;
    }

    ctx->name = rs->name;
    ctx->handler = ngx_http_llm_resolve_done;
    ctx->data = rs;
    ctx->timeout = rs->timeout;
    ctx->cancelable = 1;

    rs->ctx = ctx;

    /* the handler may be called within */

    if (ngx_resolve_name(ctx) != NGX_OK) {
        rs->ctx = NULL;
        ngx_http_llm_resolve_failed(rs, NGX_ERROR);
    }
}


static void
ngx_http_llm_resolve_done(ngx_resolver_ctx_t *ctx)
{
    time_t                   valid;
    ngx_msec_t               wait;
    ngx_http_llm_resolve_t  *rs;

    rs = ctx->data;
    rs->ctx = NULL;

    if (ctx->state != NGX_OK) {
        ngx_http_llm_resolve_failed(rs, ctx->state);
        ngx_resolve_name_done(ctx);
        return;
    }

    if (ngx_http_llm_resolve_update(rs, ctx) != NGX_OK) {
        ngx_http_llm_resolve_failed(rs, NGX_ERROR);
        ngx_resolve_name_done(ctx);
        return;
    }

    if (rs->failed) {
        ngx_log_error(NGX_LOG_NOTICE, rs->event.log, 0,
                      "llm: provider \"%V\": \"%V\" is resolved again",
                      &rs->provider->name, &rs->name);
        rs->failed = 0;
    }

    /* the resolver's cache still has the answer in the last second of its
     * validity */

    valid = ctx->valid - ngx_time() + 1;

    ngx_resolve_name_done(ctx);

    if (valid < NGX_HTTP_LLM_RESOLVE_MIN / 1000) {
        wait = NGX_HTTP_LLM_RESOLVE_MIN;

    } else if (valid > NGX_HTTP_LLM_RESOLVE_MAX / 1000) {
        wait = NGX_HTTP_LLM_RESOLVE_MAX;

    } else {
        wait = (ngx_msec_t) valid * 1000;
    }

    ngx_add_timer(&rs->event, wait + ngx_random() % (wait / 10));
}


static void
ngx_http_llm_resolve_failed(ngx_http_llm_resolve_t *rs, ngx_int_t state)
{
    ngx_msec_t                wait;
    ngx_http_llm_provider_t  *p;

    p = rs->provider;

    if (rs->failed == 0) {
        ngx_log_error(NGX_LOG_ERR, rs->event.log, 0,
                      "llm: provider \"%V\": \"%V\" could not be resolved "
                      "(%i: %s), %s", &p->name, &rs->name, state,
                      state == NGX_ERROR ? "no memory"
                                         : ngx_resolver_strerror(state),
                      p->naddrs ? "its addresses of before stay in use"
                                : "its calls fail until it is");
    }

    wait = NGX_HTTP_LLM_RESOLVE_MIN << ngx_min(rs->failed, 5);
    wait = ngx_min(wait, NGX_HTTP_LLM_RESOLVE_BACKOFF);

    rs->failed++;

    ngx_add_timer(&rs->event, wait + ngx_random() % (wait / 10));
}


static ngx_int_t
ngx_http_llm_resolve_update(ngx_http_llm_resolve_t *rs,
    ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t                i, n;
    ngx_addr_t               *addrs;
    ngx_pool_t               *pool;
    ngx_http_llm_provider_t  *p;

    p = rs->provider;

    pool = ngx_create_pool(NGX_HTTP_LLM_RESOLVE_POOL, rs->event.log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    addrs = ngx_http_llm_resolve_list(rs, pool, ctx, &n);

    if (addrs == NULL) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    if (n == p->naddrs) {

        for (i = 0; i < n; i++) {
            if (ngx_http_llm_resolve_cmp(&addrs[i], &p->addrs[i]) != 0) {
                break;
            }
        }

        if (i == n) {
            ngx_destroy_pool(pool);
            return NGX_OK;
        }
    }

    if (ngx_http_llm_resolve_names(pool, addrs, n) != NGX_OK) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    ngx_http_llm_peer_addrs(p, addrs, n);

    if (rs->pool) {
        ngx_destroy_pool(rs->pool);
    }

    rs->pool = pool;

    ngx_http_llm_resolve_log(rs);

    return NGX_OK;
}


/* an answer's addresses: sorted, since a resolver turns them, and each once */

static ngx_addr_t *
ngx_http_llm_resolve_list(ngx_http_llm_resolve_t *rs, ngx_pool_t *pool,
    ngx_resolver_ctx_t *ctx, ngx_uint_t *n)
{
    ngx_uint_t        i, k;
    ngx_addr_t       *addrs;
    struct sockaddr  *sockaddr;

    addrs = ngx_pcalloc(pool, ctx->naddrs * sizeof(ngx_addr_t));
    if (addrs == NULL) {
        return NULL;
    }

    for (i = 0; i < ctx->naddrs; i++) {
        sockaddr = ngx_palloc(pool, ctx->addrs[i].socklen);
        if (sockaddr == NULL) {
            return NULL;
        }

        ngx_memcpy(sockaddr, ctx->addrs[i].sockaddr, ctx->addrs[i].socklen);
        ngx_inet_set_port(sockaddr, rs->provider->uscf.port);

        addrs[i].sockaddr = sockaddr;
        addrs[i].socklen = ctx->addrs[i].socklen;
    }

    ngx_qsort(addrs, ctx->naddrs, sizeof(ngx_addr_t),
              ngx_http_llm_resolve_cmp);

    k = 0;

    for (i = 0; i < ctx->naddrs; i++) {
        if (i == 0 || ngx_http_llm_resolve_cmp(&addrs[i], &addrs[k - 1]) != 0)
        {
            addrs[k++] = addrs[i];
        }
    }

    *n = k;

    return addrs;
}


static ngx_int_t
ngx_http_llm_resolve_names(ngx_pool_t *pool, ngx_addr_t *addrs, ngx_uint_t n)
{
    u_char      *p;
    size_t       len;
    ngx_uint_t   i;
    u_char       text[NGX_SOCKADDR_STRLEN];

    for (i = 0; i < n; i++) {
        len = ngx_sock_ntop(addrs[i].sockaddr, addrs[i].socklen, text,
                            NGX_SOCKADDR_STRLEN, 1);

        p = ngx_pnalloc(pool, len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(p, text, len);

        addrs[i].name.len = len;
        addrs[i].name.data = p;
    }

    return NGX_OK;
}


static void
ngx_http_llm_resolve_log(ngx_http_llm_resolve_t *rs)
{
    u_char                   *last;
    ngx_uint_t                i;
    ngx_http_llm_provider_t  *p;
    u_char                    text[NGX_MAX_ERROR_STR / 2];

    p = rs->provider;
    last = text;

    for (i = 0; i < p->naddrs; i++) {
        last = ngx_slprintf(last, text + sizeof(text), "%s%V",
                            i ? ", " : "", &p->addrs[i].name);
    }

    ngx_log_error(NGX_LOG_NOTICE, rs->event.log, 0,
                  "llm: provider \"%V\": \"%V\" is now at %*s",
                  &p->name, &rs->name, (size_t) (last - text), text);
}


static int ngx_libc_cdecl
ngx_http_llm_resolve_cmp(const void *one, const void *two)
{
    struct sockaddr       *first, *second;
    struct sockaddr_in    *sin1, *sin2;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6   *sin61, *sin62;
#endif

    first = ((ngx_addr_t *) one)->sockaddr;
    second = ((ngx_addr_t *) two)->sockaddr;

    if (first->sa_family != second->sa_family) {
        return first->sa_family == AF_INET ? -1 : 1;
    }

#if (NGX_HAVE_INET6)

    if (first->sa_family == AF_INET6) {
        sin61 = (struct sockaddr_in6 *) first;
        sin62 = (struct sockaddr_in6 *) second;

        return ngx_memcmp(&sin61->sin6_addr, &sin62->sin6_addr, 16);
    }

#endif

    sin1 = (struct sockaddr_in *) first;
    sin2 = (struct sockaddr_in *) second;

    return ngx_memcmp(&sin1->sin_addr, &sin2->sin_addr, 4);
}
