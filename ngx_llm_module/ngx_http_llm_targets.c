
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Targets, while the configuration is read: which provider each of them is,
 * and what must not be: a client's key that may go to several hosts, and a
 * provider that is ourselves.
 */


#include "ngx_http_llm_module.h"


static ngx_uint_t ngx_http_llm_other_host(ngx_http_llm_provider_t **first,
    ngx_http_llm_provider_t *p);
static void ngx_http_llm_other_host_error(ngx_conf_t *cf,
    ngx_http_llm_provider_t *first, ngx_http_llm_provider_t *p, u_char *file,
    ngx_uint_t line);
static ngx_uint_t ngx_http_llm_place_calls(ngx_http_llm_main_conf_t *lmcf,
    ngx_http_llm_loc_conf_t *llcf, ngx_http_llm_provider_t *p);
static ngx_uint_t ngx_http_llm_place_takes(ngx_http_llm_loc_conf_t *llcf,
    ngx_http_llm_provider_t *p);
static ngx_uint_t ngx_http_llm_server_serves(ngx_conf_t *cf,
    ngx_http_core_srv_conf_t *cscf, ngx_http_llm_provider_t *p);
static ngx_uint_t ngx_http_llm_listens(ngx_http_listen_opt_t *opt,
    ngx_addr_t *addr);
static ngx_http_core_srv_conf_t *ngx_http_llm_server_named(
    ngx_http_conf_addr_t *addr, ngx_str_t *host);


/* the providers of targets that stand together, and how they are balanced */

ngx_int_t
ngx_http_llm_targets_ready(ngx_conf_t *cf, ngx_http_llm_targets_t *targets,
    u_char *file, ngx_uint_t line)
{
    ngx_uint_t                 i;
    ngx_http_llm_targets_t   **set;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    for (i = 0; i < targets->n; i++) {
        if (ngx_http_llm_target_resolve(cf, &targets->target[i], file, line)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    set = ngx_array_push(&lmcf->sets);
    if (set == NULL) {
        return NGX_ERROR;
    }

    *set = targets;

    return ngx_http_llm_balance_init(cf, targets);
}


/* the provider of a target, by its block or its preset */

ngx_int_t
ngx_http_llm_target_resolve(ngx_conf_t *cf, ngx_http_llm_target_t *t,
    u_char *file, ngx_uint_t line)
{
    u_char                    *colon;
    ngx_str_t                  name;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    name = t->text;
    colon = ngx_strlchr(name.data, name.data + name.len, ':');

    if (colon) {
        name.len = colon - name.data;
    }

    t->provider = ngx_http_llm_provider_find(lmcf, &name);

    if (t->provider == NULL) {
        t->provider = ngx_http_llm_provider_preset(cf, lmcf, &name);
    }

    if (t->provider == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "no usable provider \"%V\" in %s:%ui",
                      &name, file, line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * A client's key is for one host: neither a fallback nor the name of a model
 * must send it to another.  All providers count if "direct" lets a client
 * name any of them.
 */

ngx_int_t
ngx_http_llm_same_host(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf,
    ngx_uint_t direct, u_char *file, ngx_uint_t line)
{
    ngx_uint_t                 i, k;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_provider_t   *p, *first, **all;

    first = NULL;

    if (direct) {
        all = lmcf->providers.elts;

        for (i = 0; i < lmcf->providers.nelts; i++) {
            if (ngx_http_llm_other_host(&first, all[i])) {
                ngx_http_llm_other_host_error(cf, first, all[i], file, line);
                return NGX_ERROR;
            }
        }

        return NGX_OK;
    }

    route = lmcf->routes.elts;

    for (i = 0; i < lmcf->routes.nelts; i++) {
        for (k = 0; k < route[i].targets.n; k++) {

            p = route[i].targets.target[k].provider;

            if (ngx_http_llm_other_host(&first, p)) {
                ngx_http_llm_other_host_error(cf, first, p, route[i].file,
                                              route[i].line);
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_targets_same_host(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, u_char *file, ngx_uint_t line)
{
    ngx_uint_t                i;
    ngx_http_llm_provider_t  *p, *first;

    first = NULL;

    for (i = 0; i < targets->n; i++) {

        p = targets->target[i].provider;

        if (ngx_http_llm_other_host(&first, p)) {
            ngx_http_llm_other_host_error(cf, first, p, file, line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* the same of a location's targets and of what it passes through */

ngx_int_t
ngx_http_llm_passthrough_same_host(ngx_conf_t *cf,
    ngx_http_llm_loc_conf_t *conf, ngx_http_llm_provider_t *p)
{
    ngx_uint_t                 i, k;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_targets_t    *targets;
    ngx_http_llm_provider_t   *first, *other;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    first = NULL;
    (void) ngx_http_llm_other_host(&first, p);

    route = lmcf->routes.elts;

    for (i = 0; i < (conf->targets ? 1 : lmcf->routes.nelts); i++) {

        targets = conf->targets ? conf->targets : &route[i].targets;

        for (k = 0; k < targets->n; k++) {

            other = targets->target[k].provider;

            if (ngx_http_llm_other_host(&first, other)) {
                ngx_http_llm_other_host_error(cf, other, p, conf->file,
                                              conf->line);
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_other_host(ngx_http_llm_provider_t **first,
    ngx_http_llm_provider_t *p)
{
    if (p->key_source != NGX_HTTP_LLM_KEY_CLIENT) {
        return 0;
    }

    if (*first == NULL) {
        *first = p;
        return 0;
    }

    return (*first)->host.len != p->host.len
           || ngx_strncasecmp((*first)->host.data, p->host.data, p->host.len)
              != 0;
}


static void
ngx_http_llm_other_host_error(ngx_conf_t *cf, ngx_http_llm_provider_t *first,
    ngx_http_llm_provider_t *p, u_char *file, ngx_uint_t line)
{
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "providers \"%V\" and \"%V\" have different hosts "
                  "and \"key client\", a client's key would go to "
                  "either in %s:%ui",
                  &first->name, &p->name, file, line);
}


/*
 * A provider whose endpoint is one of our own listeners, in a location that
 * calls this provider: each request would make another, without an end.
 * Called when all is read and merged.
 */

ngx_int_t
ngx_http_llm_check_loops(ngx_conf_t *cf)
{
    ngx_uint_t                  i, k;
    ngx_http_llm_place_t       *place;
    ngx_http_llm_provider_t   **p;
    ngx_http_llm_main_conf_t   *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    p = lmcf->providers.elts;
    place = lmcf->adapters.elts;

    for (i = 0; i < lmcf->providers.nelts; i++) {
        for (k = 0; k < lmcf->adapters.nelts; k++) {

            if (ngx_http_llm_place_takes(place[k].llcf, p[i])
                && ngx_http_llm_place_calls(lmcf, place[k].llcf, p[i])
                && ngx_http_llm_server_serves(cf, place[k].cscf, p[i]))
            {
                ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                              "the endpoint \"%V\" of provider \"%V\" is "
                              "the location that calls it in %s:%ui",
                              &p[i]->endpoint, &p[i]->name,
                              place[k].llcf->file, place[k].llcf->line);
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/* would what we send to the provider be taken by this location? */

static ngx_uint_t
ngx_http_llm_place_takes(ngx_http_llm_loc_conf_t *llcf,
    ngx_http_llm_provider_t *p)
{
    size_t      len;
    ngx_str_t  *prefix;

    prefix = &llcf->prefix;
    len = ngx_min(prefix->len, p->base.len);

    /* "/v1/" takes what is under "/v1", and so does "/v1/chat" in part */

    return ngx_strncmp(prefix->data, p->base.data, len) == 0
           && (prefix->len <= p->base.len
               || prefix->data[p->base.len] == '/');
}


static ngx_uint_t
ngx_http_llm_place_calls(ngx_http_llm_main_conf_t *lmcf,
    ngx_http_llm_loc_conf_t *llcf, ngx_http_llm_provider_t *p)
{
    ngx_uint_t               i, k;
    ngx_http_llm_route_t    *route;
    ngx_http_llm_targets_t  *targets;

    if (llcf->adapter == NGX_HTTP_LLM_DIRECT || llcf->passthrough == p) {
        return 1;
    }

    route = lmcf->routes.elts;

    for (i = 0; i < (llcf->targets ? 1 : lmcf->routes.nelts); i++) {

        targets = llcf->targets ? llcf->targets : &route[i].targets;

        for (k = 0; k < targets->n; k++) {
            if (targets->target[k].provider == p) {
                return 1;
            }
        }
    }

    return 0;
}


/* does the provider's address lead to this server { }? */

static ngx_uint_t
ngx_http_llm_server_serves(ngx_conf_t *cf, ngx_http_core_srv_conf_t *cscf,
    ngx_http_llm_provider_t *p)
{
    ngx_uint_t                  i, k, n;
    ngx_http_conf_port_t       *port;
    ngx_http_conf_addr_t       *addr;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    if (p->named || cmcf->ports == NULL) {
        return 0;
    }

    for (n = 0; n < p->naddrs; n++) {

        port = cmcf->ports->elts;

        for (i = 0; i < cmcf->ports->nelts; i++) {

            addr = port[i].addrs.elts;

            for (k = 0; k < port[i].addrs.nelts; k++) {

                if (ngx_http_llm_listens(&addr[k].opt, &p->addrs[n])
                    && ngx_http_llm_server_named(&addr[k], &p->uscf.host)
                       == cscf)
                {
                    return 1;
                }
            }
        }
    }

    return 0;
}


/* of "*" nothing but loopback is known to be ours */

static ngx_uint_t
ngx_http_llm_listens(ngx_http_listen_opt_t *opt, ngx_addr_t *addr)
{
    struct sockaddr      *sa;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    sa = addr->sockaddr;

    if (!opt->wildcard) {
        return ngx_cmp_sockaddr(sa, addr->socklen, opt->sockaddr,
                                opt->socklen, 1)
               == NGX_OK;
    }

    if (sa->sa_family != opt->sockaddr->sa_family
        || ngx_inet_get_port(sa) != ngx_inet_get_port(opt->sockaddr))
    {
        return 0;
    }

#if (NGX_HAVE_INET6)

    if (sa->sa_family == AF_INET6) {
        sin6 = (struct sockaddr_in6 *) sa;
        return IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr);
    }

#endif

    sin = (struct sockaddr_in *) sa;

    return (ntohl(sin->sin_addr.s_addr) >> 24) == 127;
}


static ngx_http_core_srv_conf_t *
ngx_http_llm_server_named(ngx_http_conf_addr_t *addr, ngx_str_t *host)
{
    ngx_uint_t                  i, k;
    ngx_http_server_name_t     *name;
    ngx_http_core_srv_conf_t  **server;

    server = addr->servers.elts;

    for (i = 0; i < addr->servers.nelts; i++) {

        name = server[i]->server_names.elts;

        for (k = 0; k < server[i]->server_names.nelts; k++) {
            if (name[k].name.len == host->len
                && ngx_strncasecmp(name[k].name.data, host->data, host->len)
                   == 0)
            {
                return server[i];
            }
        }
    }

    return addr->default_server;
}
