
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * llm_adapter_status: a location that tells, as JSON, how the cache is doing,
 * and where entries are purged.  For the host itself only, unless the operator
 * has said in the location who may come in.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_PURGE_BODY  (64 * 1024)


static ngx_int_t ngx_http_llm_status_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_status_allowed(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf);
static ngx_uint_t ngx_http_llm_status_rules(ngx_conf_t *cf);
static ngx_int_t ngx_http_llm_status_error(ngx_http_request_t *r,
    ngx_uint_t status, const char *code, const char *message);
static ngx_int_t ngx_http_llm_status_read(ngx_http_request_t *r);
static u_char *ngx_http_llm_status_coalesce(ngx_http_llm_main_conf_t *lmcf,
    u_char *p);
static u_char *ngx_http_llm_status_cache(ngx_http_llm_main_conf_t *lmcf,
    u_char *p, llm_store_stat_t *st, ngx_uint_t open);
static ngx_int_t ngx_http_llm_status_purge(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_status_foreign(ngx_http_request_t *r);
static ngx_uint_t ngx_http_llm_status_local(ngx_str_t *host);
static void ngx_http_llm_purge_body(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_purge_begin(ngx_http_request_t *r);
static void ngx_http_llm_purge_gone(void *data);
static void ngx_http_llm_purge_done(ngx_http_llm_purge_t *purge);


char *
ngx_http_llm_status_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *lmcf;

    if (llcf->status != NGX_HTTP_LLM_STATUS_NONE) {
        return "is duplicate";
    }

    llcf->status = NGX_HTTP_LLM_STATUS_READ;

    if (cf->args->nelts == 2) {

        value = cf->args->elts;

        if (ngx_strcmp(value[1].data, "purge=on") == 0) {
            llcf->status = NGX_HTTP_LLM_STATUS_PURGE;

        } else if (ngx_strcmp(value[1].data, "purge=off") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", it must be "
                               "\"purge=on\" or \"purge=off\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    lmcf->used = 1;

    llcf->file = cf->conf_file->file.name.data;
    llcf->line = cf->conf_file->line;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_llm_status_handler;

    return NGX_CONF_OK;
}


char *
ngx_http_llm_status_merge(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler != ngx_http_llm_status_handler || conf->own) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"llm_adapter_status\" is in a location that another "
                      "directive handles in %s:%ui", conf->file, conf->line);
        return NGX_CONF_ERROR;
    }

    conf->status_open = ngx_http_llm_status_rules(cf);

    return NGX_CONF_OK;
}


/*
 * Does the location have rules by allow or deny?  Those of its server or of
 * http { } may be a list of who is blocked, and let everybody else in.  Their
 * module's configuration is its own affair, but begins with pointers to the
 * rules of each family of addresses, which are inherited as they are.  This
 * module is merged after it, being a dynamic one.
 */

static ngx_uint_t
ngx_http_llm_status_rules(ngx_conf_t *cf)
{
    void                     **conf, **server;
    ngx_uint_t                 i, k, n;
    ngx_http_conf_ctx_t       *ctx;
    ngx_http_core_srv_conf_t  *cscf;

    ctx = cf->ctx;
    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);

    n = 1;
#if (NGX_HAVE_INET6)
    n++;
#endif
#if (NGX_HAVE_UNIX_DOMAIN)
    n++;
#endif

    for (i = 0; cf->cycle->modules[i]; i++) {

        if (ngx_strcmp(cf->cycle->modules[i]->name, "ngx_http_access_module")
            != 0)
        {
            continue;
        }

        conf = ctx->loc_conf[cf->cycle->modules[i]->ctx_index];
        server = cscf->ctx->loc_conf[cf->cycle->modules[i]->ctx_index];

        for (k = 0; conf && server && k < n; k++) {
            if (conf[k] && conf[k] != server[k]) {
                return 1;
            }
        }

        return 0;
    }

    return 0;
}


static ngx_int_t
ngx_http_llm_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_http_llm_loc_conf_t  *llcf;

    if (r != r->main) {
        return NGX_HTTP_NOT_FOUND;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (ngx_http_llm_status_allowed(r, llcf) != NGX_OK) {
        return ngx_http_llm_status_error(r, NGX_HTTP_FORBIDDEN, "forbidden",
                                         "only from this host");
    }

    if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {

        rc = ngx_http_discard_request_body(r);

        return rc == NGX_OK ? ngx_http_llm_status_read(r) : rc;
    }

    if (r->method == NGX_HTTP_POST
        && llcf->status == NGX_HTTP_LLM_STATUS_PURGE)
    {
        return ngx_http_llm_status_purge(r);
    }

    if (ngx_http_llm_add_header(r, "Allow",
                                llcf->status == NGX_HTTP_LLM_STATUS_PURGE
                                ? "GET, HEAD, POST" : "GET, HEAD")
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_status_error(r, NGX_HTTP_NOT_ALLOWED,
                                     "method_not_allowed",
                                     "the method is not allowed here");
}


static ngx_int_t
ngx_http_llm_status_allowed(ngx_http_request_t *r,
    ngx_http_llm_loc_conf_t *llcf)
{
    struct sockaddr      *sa;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    u_char               *p;
    struct sockaddr_in6  *sin6;
#endif

    if (llcf->status_open) {
        return NGX_OK;
    }

    sa = r->connection->sockaddr;

    switch (sa->sa_family) {

    case AF_INET:
        sin = (struct sockaddr_in *) sa;
        return (ntohl(sin->sin_addr.s_addr) >> 24) == 127 ? NGX_OK
                                                          : NGX_DECLINED;

#if (NGX_HAVE_INET6)

    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) sa;
        p = sin6->sin6_addr.s6_addr;

        if (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr)) {
            return p[12] == 127 ? NGX_OK : NGX_DECLINED;
        }

        return IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr) ? NGX_OK : NGX_DECLINED;

#endif

#if (NGX_HAVE_UNIX_DOMAIN)

    case AF_UNIX:
        return NGX_OK;

#endif

    default:
        return NGX_DECLINED;
    }
}


static ngx_int_t
ngx_http_llm_status_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *code, const char *message)
{
    llm_error_t  err;

    ngx_memzero(&err, sizeof(llm_error_t));

    err.status = status;
    err.code = code;
    err.message.data = (u_char *) message;
    err.message.len = ngx_strlen(message);

    return ngx_http_llm_error(r, &err);
}


static ngx_int_t
ngx_http_llm_status_read(ngx_http_request_t *r)
{
    u_char                    *p;
    size_t                     len;
    llm_str_t                  path;
    ngx_str_t                  body;
    ngx_uint_t                 open;
    llm_store_t               *store;
    llm_store_stat_t           st;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_llm_module);

    path.len = lmcf->cache_path.len;
    path.data = lmcf->cache_path.data;

    ngx_memzero(&st, sizeof(llm_store_stat_t));

    store = ngx_http_llm_cache_store();
    open = store && llm_store_stat(store, &st) == LLM_OK;

    len = 2048 + 48 * NGX_INT64_LEN + llm_json_escape(NULL, &path);

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    body.data = p;

    p = ngx_sprintf(p, "{\"nginx\":\"%s\",\"pid\":%P,\"cache\":",
                    NGINX_VERSION, ngx_pid);

    if (path.len) {
        p = ngx_http_llm_status_cache(lmcf, p, &st, open);

    } else {
        p = ngx_cpymem(p, "null", 4);
    }

    if (lmcf->coalesce) {
        p = ngx_http_llm_status_coalesce(lmcf, p);
    }

    p = ngx_cpymem(p, "}\n", 2);

    body.len = p - body.data;

    if (ngx_http_llm_add_header(r, "Cache-Control", "no-store") != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_llm_send_json(r, NGX_HTTP_OK, &body);
}


static u_char *
ngx_http_llm_status_cache(ngx_http_llm_main_conf_t *lmcf, u_char *p,
    llm_store_stat_t *st, ngx_uint_t open)
{
    llm_str_t               path;
    ngx_str_t              *name;
    ngx_uint_t              i;
    llm_store_shared_t     *s;
    ngx_http_llm_shared_t  *shared;

    path.len = lmcf->cache_path.len;
    path.data = lmcf->cache_path.data;

    shared = lmcf->shared;
    s = &shared->store;

    p = ngx_cpymem(p, "{\"path\":\"", sizeof("{\"path\":\"") - 1);
    p += llm_json_escape(p, &path);

    p = ngx_sprintf(p, "\",\"open\":%s,\"entries\":%uL,\"size\":%uL,"
                    "\"used\":%uL,\"file\":%uL,\"readers\":%uL,"
                    "\"max_readers\":%uL,\"pending\":%uL,",
                    open ? "true" : "false", st->entries,
                    open ? st->size : lmcf->cache_size, st->used, st->file,
                    st->readers, st->max_readers, st->pending);

    p = ngx_sprintf(p, "\"stores\":%uL,\"dropped\":%uL,\"evicted\":%uL,"
                    "\"expired\":%uL,\"purged\":%uL,\"corrupt\":%uL,"
                    "\"recreated\":%uL,\"errors\":%uL,\"results\":{",
                    s->stores, s->dropped, s->evicted, s->expired, s->purged,
                    s->corrupt, s->recreated, s->errors);

    for (i = NGX_HTTP_LLM_CACHE_BYPASS; i < NGX_HTTP_LLM_CACHE_MAX; i++) {
        name = ngx_http_llm_cache_name(i);
        p = ngx_sprintf(p, "%s\"%V\":%uA",
                        i > NGX_HTTP_LLM_CACHE_BYPASS ? "," : "", name,
                        shared->results[i]);
    }

    return ngx_cpymem(p, "}}", 2);
}


static u_char *
ngx_http_llm_status_coalesce(ngx_http_llm_main_conf_t *lmcf, u_char *p)
{
    llm_share_stat_t        st;
    ngx_http_llm_shared_t  *shared;

    shared = lmcf->shared;

    llm_share_stat(lmcf->share, &st);

    p = ngx_sprintf(p, ",\"coalesce\":{\"flights\":%uD,\"entries\":%uD,"
                    "\"links\":%uD,\"linked\":%uD,\"workers\":%uD,",
                    st.flights, st.entries, st.links, st.linked, st.workers);

    return ngx_sprintf(p, "\"joined\":%uA,\"full\":%uA,\"restarted\":%uA,"
                       "\"lost\":%uA,\"slow\":%uA}",
                       shared->joined, shared->full, shared->restarted,
                       shared->lost, shared->slow);
}


/* POST: a page of another site must not be able to do that by a browser here */

static ngx_int_t
ngx_http_llm_status_purge(ngx_http_request_t *r)
{
    size_t            len;
    ngx_int_t         rc;
    ngx_str_t        *type;
    ngx_table_elt_t  *h;

    h = r->headers_in.content_type;
    type = h ? &h->value : NULL;
    len = sizeof("application/json") - 1;

    if (type == NULL
        || type->len < len
        || ngx_strncasecmp(type->data, (u_char *) "application/json", len) != 0
        || (type->len > len && ngx_strchr("; \t", type->data[len]) == NULL))
    {
        return ngx_http_llm_status_error(r, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                                  "unsupported_media_type",
                                  "the content type must be application/json");
    }

    if (ngx_http_llm_status_foreign(r)) {
        return ngx_http_llm_status_error(r, NGX_HTTP_FORBIDDEN, "forbidden",
                                         "not from another origin");
    }

    if (r->headers_in.content_length_n > NGX_HTTP_LLM_PURGE_BODY) {
        return ngx_http_llm_status_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                         "request_too_large",
                                         "the request body is too large");
    }

    r->request_body_in_single_buf = 1;

    rc = ngx_http_read_client_request_body(r, ngx_http_llm_purge_body);

    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}


/* RFC 6454, 7: "null", or scheme://host[:port] */

static ngx_uint_t
ngx_http_llm_status_foreign(ngx_http_request_t *r)
{
    u_char                   *p, *last;
    ngx_str_t                *host;
    ngx_table_elt_t          *h;
    ngx_http_llm_loc_conf_t  *llcf;

    h = ngx_http_llm_request_header(r, "sec-fetch-site", 14);

    if (h && !(h->value.len == 11
               && ngx_strncmp(h->value.data, "same-origin", 11) == 0)
        && !(h->value.len == 4 && ngx_strncmp(h->value.data, "none", 4) == 0))
    {
        return 1;
    }

    h = ngx_http_llm_request_header(r, "origin", 6);

    if (h == NULL) {
        return 0;
    }

    if (r->headers_in.host == NULL) {
        return 1;
    }

    host = &r->headers_in.host->value;

    p = h->value.data;
    last = p + h->value.len;

    p = ngx_strlcasestrn(p, last, (u_char *) "://", 3 - 1);

    if (p == NULL) {
        return 1;
    }

    p += 3;

    if ((size_t) (last - p) != host->len
        || ngx_strncasecmp(p, host->data, host->len) != 0)
    {
        return 1;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    return !llcf->status_open && !ngx_http_llm_status_local(host);
}


/* Any name may be made to mean this host, by who owns it: of a browser here
 * only an address is believed, or the one name that nobody owns. */

static ngx_uint_t
ngx_http_llm_status_local(ngx_str_t *host)
{
    size_t  i;

    if (host->len >= 9
        && ngx_strncasecmp(host->data, (u_char *) "localhost", 9) == 0
        && (host->len == 9 || host->data[9] == ':'))
    {
        return 1;
    }

    if (host->len && host->data[0] == '[') {
        return 1;
    }

    for (i = 0; i < host->len; i++) {
        if (ngx_strchr("0123456789.:", host->data[i]) == NULL) {
            return 0;
        }
    }

    return host->len != 0;
}


static void
ngx_http_llm_purge_body(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    rc = ngx_http_llm_purge_begin(r);

    if (rc != NGX_DONE) {
        ngx_http_finalize_request(r, rc);
    }
}


/* NGX_DONE: it is on its way, else what the request ends with */

static ngx_int_t
ngx_http_llm_purge_begin(ngx_http_request_t *r)
{
    llm_str_t              body;
    ngx_uint_t             i, what;
    llm_json_value_t       v[4];
    ngx_pool_cleanup_t    *cln;
    ngx_http_llm_purge_t  *purge;

    static llm_str_t       names[] = {
        llm_string("purge"),
        llm_string("scope"),
        llm_string("model"),
        llm_string("id")
    };

    if (ngx_http_llm_body(r, &body) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (body.len > NGX_HTTP_LLM_PURGE_BODY) {
        return ngx_http_llm_status_error(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE,
                                         "request_too_large",
                                         "the request body is too large");
    }

    if (llm_json_scan(&body, 16, names, v, 4, NULL) != LLM_OK) {
        return ngx_http_llm_status_error(r, NGX_HTTP_BAD_REQUEST,
                                         "invalid_json",
                                  "the request body is not a JSON object");
    }

    what = 4;

    for (i = 0; i < 4; i++) {

        if (v[i].type == LLM_JSON_ABSENT) {
            continue;
        }

        if (what != 4 || v[i].duplicate || v[i].type != LLM_JSON_STRING
            || v[i].raw.len == 2)
        {
            what = 5;
            break;
        }

        what = i;
    }

    if (what > 3 || (what == 0 && !llm_json_is(&v[0], "all", 3))) {
        return ngx_http_llm_status_error(r, NGX_HTTP_BAD_REQUEST,
                                         "invalid_purge",
                                  "one of {\"purge\":\"all\"}, {\"scope\":"
                                  "\"...\"}, {\"model\":\"...\"}, {\"id\":"
                                  "\"...\"} is wanted");
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    purge = ngx_calloc(sizeof(ngx_http_llm_purge_t) + v[what].raw.len,
                       r->connection->log);
    if (purge == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    purge->what = what;
    purge->text.data = (u_char *) (purge + 1);
    purge->text.len = llm_json_unescape(purge->text.data, &v[what]);
    purge->handler = ngx_http_llm_purge_done;
    purge->data = r;

    if (ngx_http_llm_cache_purge(purge) != NGX_OK) {
        ngx_free(purge);
        return ngx_http_llm_status_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                         "no_cache", "there is no cache");
    }

    cln->handler = ngx_http_llm_purge_gone;
    cln->data = purge;

    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_DONE;
}


/* the request ends before its purge: that goes on */

static void
ngx_http_llm_purge_gone(void *data)
{
    ngx_http_llm_purge_t *purge = data;

    purge->data = NULL;
}


static void
ngx_http_llm_purge_done(ngx_http_llm_purge_t *purge)
{
    u_char              *p;
    ngx_int_t            rc;
    ngx_str_t            body;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_pool_cleanup_t  *cln;

    r = purge->data;

    if (r == NULL) {
        ngx_free(purge);
        return;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_llm_purge_gone) {
            cln->handler = NULL;
        }
    }

    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    if (purge->rc == LLM_DECLINED) {
        rc = ngx_http_llm_status_error(r, NGX_HTTP_BAD_REQUEST, "invalid_id",
                                       "this is not the id of an entry");
        goto done;
    }

    if (purge->rc != LLM_OK) {
        rc = ngx_http_llm_status_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                       "cache_unavailable",
                                       "the cache can't be written now");
        goto done;
    }

    p = ngx_pnalloc(r->pool, 64 + 3 * NGX_INT64_LEN);
    if (p == NULL) {
        rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
        goto done;
    }

    body.data = p;
    body.len = ngx_sprintf(p, "{\"matched\":%uL,\"deleted\":%uL,"
                           "\"pending\":%uL}\n", purge->done.matched,
                           purge->done.deleted, purge->done.pending)
               - p;

    rc = ngx_http_llm_send_json(r, NGX_HTTP_OK, &body);

done:

    ngx_free(purge);

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}
