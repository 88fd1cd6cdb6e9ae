
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Small questions about a client's request, asked by several files: which
 * path below the prefix, which header, which dialect by its marker, which
 * models it may name.
 */


#include "ngx_http_llm_module.h"

#if (NGX_OPENSSL)
#include <openssl/rand.h>
#endif


#define NGX_HTTP_LLM_ID_LEN  16                /* bytes, as $request_id has */


static ngx_int_t ngx_http_llm_random_id(ngx_http_request_t *r,
    ngx_http_variable_value_t *vv);
static ngx_uint_t ngx_http_llm_versioned(ngx_str_t *prefix);
static u_char *ngx_http_llm_path_tail(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_model_add(ngx_array_t *list, ngx_str_t *id,
    ngx_str_t *owner);
static ngx_int_t ngx_http_llm_models_of(ngx_array_t *list,
    ngx_http_llm_provider_t *p, ngx_http_llm_main_conf_t *lmcf,
    ngx_http_llm_route_t *route);


/* the decoded path after the location's prefix, without a leading slash */

void
ngx_http_llm_path(ngx_http_request_t *r, llm_str_t *path)
{
    u_char                   *p, *last;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    p = r->uri.data;
    last = p + r->uri.len;

    if (llcf->prefix.len && r->uri.len > llcf->prefix.len
        && ngx_strncmp(p, llcf->prefix.data, llcf->prefix.len) == 0)
    {
        p += llcf->prefix.len;

    } else {
        p = ngx_http_llm_path_tail(r);
    }

    while (p < last && *p == '/') {
        p++;
    }

    /* a prefix above the version, which the provider's endpoint has, too */

    if (llcf->prefix.len
        && !ngx_http_llm_versioned(&llcf->prefix)
        && last - p > 3 && ngx_strncmp(p, "v1/", 3) == 0)
    {
        p += 3;
    }

    path->data = p;
    path->len = last - p;
}


/* does it end with a version?  Then another one below it is none */

static ngx_uint_t
ngx_http_llm_versioned(ngx_str_t *prefix)
{
    u_char  *p;

    p = prefix->data + prefix->len;

    if (prefix->len >= 4 && ngx_strncmp(p - 4, "/v1/", 4) == 0) {
        return 1;
    }

    return prefix->len >= 3 && ngx_strncmp(p - 3, "/v1", 3) == 0;
}


/*
 * A location without a prefix (named, regex, exact): what follows the API's
 * version (threads/ID/messages is not the endpoint messages), else what is an
 * endpoint at the end of the path.
 */

static u_char *
ngx_http_llm_path_tail(ngx_http_request_t *r)
{
    u_char               *p, *last;
    llm_str_t             tail, id;
    const llm_dialect_t  *dialect;

    last = r->uri.data + r->uri.len;

    /* the first, so that no second one leads round another location's rules */

    p = ngx_strnstr(r->uri.data, "/v1/", r->uri.len);

    if (p) {
        return p + 3;
    }

    for (p = r->uri.data; p < last; p++) {

        if (*p != '/') {
            continue;
        }

        tail.data = p + 1;
        tail.len = last - tail.data;

        if (llm_endpoint_find(&tail, NULL, &dialect, &id)) {
            return p;
        }
    }

    return r->uri.data;
}


ngx_table_elt_t *
ngx_http_llm_request_header(ngx_http_request_t *r, const char *name,
    size_t len)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == len
            && ngx_strncmp(h[i].lowcase_key, name, len) == 0)
        {
            return &h[i];
        }
    }
}


/* the dialect whose clients alone send a header that is here, or NULL */

const llm_dialect_t *
ngx_http_llm_marked_dialect(ngx_http_request_t *r)
{
    const llm_dialect_t *const  *d;

    for (d = llm_dialects; *d; d++) {
        if ((*d)->marker.len
            && ngx_http_llm_request_header(r, (char *) (*d)->marker.data,
                                           (*d)->marker.len))
        {
            return *d;
        }
    }

    return NULL;
}


/* of llm_model_t, in the order of the configuration; NULL: no memory */

ngx_array_t *
ngx_http_llm_model_list(ngx_http_request_t *r)
{
    ngx_uint_t                 i;
    ngx_array_t               *list;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_target_t     *target;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_llm_main_conf_t  *lmcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);
    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    list = ngx_array_create(r->pool, 8, sizeof(llm_model_t));
    if (list == NULL) {
        return NULL;
    }

    /* of several targets the first counts: the others stand in for it */

    if (llcf->adapter == NGX_HTTP_LLM_TARGETS) {
        target = llcf->targets->target;

        if ((target->model.len
             ? ngx_http_llm_model_add(list, &target->model,
                                      &target->provider->name)
             : ngx_http_llm_models_of(list, target->provider, NULL, NULL))
            != NGX_OK)
        {
            return NULL;
        }

        return list;
    }

    /*
     * The names that a pattern takes are not known, but for those that its
     * provider lists and that no better pattern takes.
     */

    route = lmcf->routes.elts;

    for (i = 0; i < lmcf->routes.nelts; i++) {
        target = route[i].targets.target;

        if (route[i].prefix && target->model.len) {
            continue;
        }

        if ((route[i].prefix
             ? ngx_http_llm_models_of(list, target->provider, lmcf, &route[i])
             : ngx_http_llm_model_add(list, &route[i].pattern,
                                      &target->provider->name))
            != NGX_OK)
        {
            return NULL;
        }
    }

    return list;
}


static ngx_int_t
ngx_http_llm_models_of(ngx_array_t *list, ngx_http_llm_provider_t *p,
    ngx_http_llm_main_conf_t *lmcf, ngx_http_llm_route_t *route)
{
    ngx_uint_t             i;
    llm_str_t              name;
    ngx_http_llm_price_t  *price;

    price = p->models.elts;

    for (i = 0; i < p->models.nelts; i++) {

        name.len = price[i].name.len;
        name.data = price[i].name.data;

        if (route && ngx_http_llm_route_find(lmcf, &name) != route) {
            continue;
        }

        if (ngx_http_llm_model_add(list, &price[i].name, &p->name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_model_add(ngx_array_t *list, ngx_str_t *id, ngx_str_t *owner)
{
    ngx_uint_t    i;
    llm_model_t  *m;

    m = list->elts;

    for (i = 0; i < list->nelts; i++) {
        if (m[i].id.len == id->len
            && ngx_memcmp(m[i].id.data, id->data, id->len) == 0)
        {
            return NGX_OK;
        }
    }

    m = ngx_array_push(list);
    if (m == NULL) {
        return NGX_ERROR;
    }

    m->id.len = id->len;
    m->id.data = id->data;
    m->owner.len = owner->len;
    m->owner.data = owner->data;

    return NGX_OK;
}


/*
 * $request_id, empty if it can't be had.  nginx asks OpenSSL for 16 random
 * bytes each time, which costs a third of all that we add to a small request;
 * so the bytes are taken from a stock here, each of them once, and the
 * variable is given the value before it is asked for.
 */

llm_str_t
ngx_http_llm_request_id(ngx_http_request_t *r)
{
    llm_str_t                   id;
    ngx_http_variable_value_t  *vv;
    ngx_http_llm_main_conf_t   *lmcf;

    r = r->main;
    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    vv = &r->variables[lmcf->request_id];

    if (!vv->valid && ngx_http_llm_random_id(r, vv) != NGX_OK) {
        vv = ngx_http_get_indexed_variable(r, lmcf->request_id);
    }

    id.len = 0;
    id.data = NULL;

    if (vv && !vv->not_found) {
        id.len = vv->len;
        id.data = vv->data;
    }

    return id;
}


static ngx_int_t
ngx_http_llm_random_id(ngx_http_request_t *r, ngx_http_variable_value_t *vv)
{
#if (NGX_OPENSSL)

    u_char         *id;

    static u_char   stock[NGX_HTTP_LLM_ID_LEN * 256];
    static size_t   left;

    id = ngx_pnalloc(r->pool, 2 * NGX_HTTP_LLM_ID_LEN);
    if (id == NULL) {
        return NGX_ERROR;
    }

    if (left == 0) {
        if (RAND_bytes(stock, sizeof(stock)) != 1) {
            return NGX_ERROR;
        }

        left = sizeof(stock);
    }

    left -= NGX_HTTP_LLM_ID_LEN;

    (void) ngx_hex_dump(id, stock + left, NGX_HTTP_LLM_ID_LEN);

    ngx_memzero(stock + left, NGX_HTTP_LLM_ID_LEN);

    vv->len = 2 * NGX_HTTP_LLM_ID_LEN;
    vv->valid = 1;
    vv->no_cacheable = 0;
    vv->not_found = 0;
    vv->data = id;

    return NGX_OK;

#else

    return NGX_DECLINED;

#endif
}


/* a clock for $llm_overhead: microseconds since some moment */

uint64_t
ngx_http_llm_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
