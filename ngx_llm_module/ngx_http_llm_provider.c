
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A provider, from what was written to what can be called: preset values,
 * secrets, the named upstream { } or the host's addresses, TLS, header lists.
 * All of this runs once, in the master, while the configuration is read;
 * errors name the file and line of the provider's block.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_FOREVER      86400000     /* ms; own timers end sooner */
#define NGX_HTTP_LLM_SEND_TIMEOUT  60000       /* ms, between two writes */


typedef struct {
    ngx_str_t   name;
    ngx_str_t   endpoint;
    ngx_str_t   dialect;
    ngx_str_t   key;
} ngx_http_llm_preset_t;


static ngx_http_llm_preset_t *ngx_http_llm_preset_find(ngx_str_t *name);
static ngx_int_t ngx_http_llm_provider_defaults(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);
static ngx_int_t ngx_http_llm_provider_named(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);
static ngx_int_t ngx_http_llm_provider_resolve(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);
static ngx_int_t ngx_http_llm_provider_upstream(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);
static ngx_int_t ngx_http_llm_provider_auth(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_llm_provider_tls(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);
static void ngx_http_llm_free_session(void *data);
#endif


#define ngx_http_llm_provider_error(cf, p, fmt, ...)                          \
    ngx_log_error(NGX_LOG_EMERG, (cf)->log, 0, fmt " in provider \"%V\""      \
                  " in %s:%ui", ##__VA_ARGS__, &(p)->name, (p)->file,         \
                  (p)->line)


static ngx_http_llm_preset_t  ngx_http_llm_presets[] = {

    { ngx_string("openai"),
      ngx_string("https://api.openai.com/v1"),
      ngx_string("openai"),
      ngx_string("env:OPENAI_API_KEY") },

    { ngx_string("anthropic"),
      ngx_string("https://api.anthropic.com/v1"),
      ngx_string("anthropic"),
      ngx_string("env:ANTHROPIC_API_KEY") },

    /* by the OpenAI-compatible endpoint that Google offers */

    { ngx_string("gemini"),
      ngx_string("https://generativelanguage.googleapis.com/v1beta/openai"),
      ngx_string("openai"),
      ngx_string("env:GEMINI_API_KEY") },

    { ngx_null_string, ngx_null_string, ngx_null_string, ngx_null_string }
};


ngx_http_llm_provider_t *
ngx_http_llm_provider_find(ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name)
{
    ngx_uint_t                 i;
    ngx_http_llm_provider_t  **p;

    p = lmcf->providers.elts;

    for (i = 0; i < lmcf->providers.nelts; i++) {
        if (p[i]->name.len == name->len
            && ngx_strncmp(p[i]->name.data, name->data, name->len) == 0)
        {
            return p[i];
        }
    }

    return NULL;
}


ngx_http_llm_provider_t *
ngx_http_llm_provider_create(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf,
    ngx_str_t *name)
{
    ngx_http_llm_provider_t  *p, **pp;

    p = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_provider_t));
    if (p == NULL) {
        return NULL;
    }

    pp = ngx_array_push(&lmcf->providers);
    if (pp == NULL) {
        return NULL;
    }

    *pp = p;

    if (ngx_array_init(&p->models, cf->pool, 4, sizeof(ngx_http_llm_price_t))
        != NGX_OK)
    {
        return NULL;
    }

    p->name = *name;
    p->framing = &llm_sse_framing;
    p->signer = &ngx_http_llm_key_signer;
    p->key_source = NGX_CONF_UNSET_UINT;
    p->keepalive = 64;
    p->stream_usage = 1;
#if (NGX_HTTP_SSL)
    p->tls_verify = 1;
#endif

    p->breaker_failures = 5;
    p->breaker_window = 30000;
    p->breaker_open = 15000;

    p->timeout[NGX_HTTP_LLM_T_CONNECT] = 5000;
    p->timeout[NGX_HTTP_LLM_T_FIRST_TOKEN] = 300000;
    p->timeout[NGX_HTTP_LLM_T_IDLE] = 120000;
    p->timeout[NGX_HTTP_LLM_T_PLAIN] = 600000;
    p->timeout[NGX_HTTP_LLM_T_TOTAL] = 3600000;

    if (cf->conf_file) {
        p->file = cf->conf_file->file.name.data;
        p->line = cf->conf_file->line;
    }

    return p;
}


/* a target that no block defines; NULL: no such preset, or an error */

ngx_http_llm_provider_t *
ngx_http_llm_provider_preset(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf,
    ngx_str_t *name)
{
    ngx_http_llm_provider_t  *p;

    if (ngx_http_llm_preset_find(name) == NULL) {
        return NULL;
    }

    p = ngx_http_llm_provider_create(cf, lmcf, name);

    if (p == NULL || ngx_http_llm_provider_ready(cf, p) != NGX_OK) {
        return NULL;
    }

    return p;
}


static ngx_http_llm_preset_t *
ngx_http_llm_preset_find(ngx_str_t *name)
{
    ngx_http_llm_preset_t  *preset;

    for (preset = ngx_http_llm_presets; preset->name.len; preset++) {
        if (preset->name.len == name->len
            && ngx_strncmp(preset->name.data, name->data, name->len) == 0)
        {
            return preset;
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_llm_provider_ready(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    if (p->ready) {
        return NGX_OK;
    }

    p->ready = 1;

    if (ngx_http_llm_provider_defaults(cf, p) != NGX_OK
        || ngx_http_llm_provider_named(cf, p) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (p->named == NULL && ngx_http_llm_provider_resolve(cf, p) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_provider_auth(cf, p) != NGX_OK
        || ngx_http_llm_header_hashes(cf, p) != NGX_OK
        || ngx_http_llm_peer_pool(cf, p) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_provider_upstream(cf, p);
}


/* what is absent is the preset's, if there is one of that name */

static ngx_int_t
ngx_http_llm_provider_defaults(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    ngx_uint_t              literal;
    ngx_http_llm_preset_t  *preset;

    preset = ngx_http_llm_preset_find(&p->name);

    if (p->endpoint.len == 0) {

        if (preset == NULL) {
            ngx_http_llm_provider_error(cf, p, "no \"endpoint\"");
            return NGX_ERROR;
        }

        /* a preset's endpoint is https://host/base */

        p->endpoint = preset->endpoint;
        p->tls = 1;
        p->host.data = p->endpoint.data + sizeof("https://") - 1;
        p->base.data = (u_char *) ngx_strchr(p->host.data, '/');
        p->host.len = p->base.data - p->host.data;
        p->base.len = p->endpoint.data + p->endpoint.len - p->base.data;
    }

    if (p->dialect == NULL) {

        if (preset == NULL) {
            ngx_http_llm_provider_error(cf, p, "no \"dialect\"");
            return NGX_ERROR;
        }

        p->dialect = llm_dialect_get((llm_str_t *) &preset->dialect);
    }

    if (p->key_source != NGX_CONF_UNSET_UINT) {
        return NGX_OK;
    }

    if (preset == NULL) {
        p->key_source = NGX_HTTP_LLM_KEY_NONE;
        return NGX_OK;
    }

    p->key_source = NGX_HTTP_LLM_KEY_OURS;

    return ngx_http_llm_secret(cf, &preset->key, &p->key, &literal);
}


/* is the host the name of an upstream { } of the operator? */

static ngx_int_t
ngx_http_llm_provider_named(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    u_char                          *colon;
    ngx_str_t                        name;
    ngx_uint_t                       i;
    ngx_http_llm_provider_t        **other;
    ngx_http_llm_main_conf_t        *lmcf;
    ngx_http_upstream_srv_conf_t   **uscf;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    name = p->host;
    colon = ngx_strlchr(name.data, name.data + name.len, ':');

    if (colon) {
        name.len = colon - name.data;
    }

    uscf = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if ((uscf[i]->flags & NGX_HTTP_UPSTREAM_CREATE)
            && uscf[i]->host.len == name.len
            && ngx_strncasecmp(uscf[i]->host.data, name.data, name.len) == 0)
        {
            break;
        }
    }

    if (i == umcf->upstreams.nelts) {
        return NGX_OK;
    }

    p->named = uscf[i];

    if (colon) {
        ngx_http_llm_provider_error(cf, p, "endpoint \"%V\" names an upstream "
                                    "and may not have a port", &p->endpoint);
        return NGX_ERROR;
    }

    if (p->keepalive_set) {
        ngx_http_llm_provider_error(cf, p, "\"keepalive\" is a matter of "
                                    "upstream \"%V\"", &name);
        return NGX_ERROR;
    }

    if (!ngx_http_llm_upstream_keepalive(cf, p->named)) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "upstream \"%V\" of provider \"%V\" has no "
                      "\"keepalive\", each call makes a new connection",
                      &name, &p->name);
    }

#if (NGX_HTTP_SSL)

    if (p->tls && p->tls_name.len == 0) {
        ngx_http_llm_provider_error(cf, p, "https to upstream \"%V\" needs "
                                    "\"tls name=\"", &name);
        return NGX_ERROR;
    }

    /* nginx's keepalive tells connections apart by their address alone */

    other = lmcf->providers.elts;

    for (i = 0; i < lmcf->providers.nelts; i++) {
        if (other[i] != p && other[i]->named == p->named
            && (other[i]->tls != p->tls
                || other[i]->tls_verify != p->tls_verify
                || other[i]->tls_name.len != p->tls_name.len
                || ngx_strncmp(other[i]->tls_name.data, p->tls_name.data,
                               p->tls_name.len) != 0
                || other[i]->tls_ca.len != p->tls_ca.len
                || ngx_strncmp(other[i]->tls_ca.data, p->tls_ca.data,
                               p->tls_ca.len) != 0))
        {
            ngx_http_llm_provider_error(cf, p, "upstream \"%V\" is used with "
                                        "other TLS settings by provider "
                                        "\"%V\"", &name, &other[i]->name);
            return NGX_ERROR;
        }
    }

#else
    (void) other;
    (void) lmcf;
#endif

    return NGX_OK;
}


/* the first addresses of a host; a name that is unknown now is no reason to
 * keep the rest of the server from starting */

static ngx_int_t
ngx_http_llm_provider_resolve(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    ngx_url_t                  u;
    ngx_uint_t                 literal;
    ngx_http_llm_main_conf_t  *lmcf;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = p->host;
    u.default_port = p->tls ? 443 : 80;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_http_llm_provider_error(cf, p, "%s in endpoint \"%V\"",
                                    u.err ? u.err : "error", &p->endpoint);
        return NGX_ERROR;
    }

    literal = u.naddrs;

    if (!literal && ngx_inet_resolve_host(cf->pool, &u) != NGX_OK) {
        lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "%s in endpoint \"%V\" of provider \"%V\", its calls "
                      "will fail until %s finds it",
                      u.err ? u.err : "host not found", &p->endpoint,
                      &p->name, lmcf->resolver ? "\"resolver\"" : "a reload");

        u.naddrs = 0;
    }

    p->addrs = u.addrs;
    p->naddrs = u.naddrs;
    p->uscf.host = u.host;
    p->uscf.port = u.port;

    return literal ? NGX_OK : ngx_http_llm_resolve_provider(cf, p, &u.host);
}


static ngx_int_t
ngx_http_llm_provider_upstream(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    ngx_http_upstream_conf_t  *conf;

    p->uscf.peer.init = ngx_http_llm_peer_init;

    if (p->named) {
        p->uscf.host = p->named->host;
    }

#if (NGX_HTTP_SSL)

    if (p->tls_name.len) {
        p->uscf.host = p->tls_name;

        if (p->named) {
            p->host = p->tls_name;
        }
    }

#endif

    conf = &p->upstream;

    conf->upstream = &p->uscf;
    conf->connect_timeout = NGX_HTTP_LLM_FOREVER;
    conf->send_timeout = NGX_HTTP_LLM_SEND_TIMEOUT;
    conf->read_timeout = NGX_HTTP_LLM_FOREVER;
    conf->next_upstream = NGX_HTTP_UPSTREAM_FT_ERROR
                          |NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    conf->buffer_size = NGX_HTTP_LLM_HEAD_MAX;
    conf->ignore_client_abort = 1;
    conf->pass_request_headers = 1;
    conf->pass_request_body = 1;
    conf->hide_headers_hash = p->hide;
    ngx_str_set(&conf->module, "llm");

#if (NGX_HTTP_SSL)

    if (p->tls && ngx_http_llm_provider_tls(cf, p) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!p->tls && p->tls_set) {
        ngx_http_llm_provider_error(cf, p, "\"tls\" needs an https endpoint");
        return NGX_ERROR;
    }

#endif

    /* nobody else watches a request that is passed through */

    p->direct = *conf;
    p->direct.hide_headers_hash = p->hide_direct;
    p->direct.ignore_client_abort = 0;
    p->direct.connect_timeout = p->timeout[NGX_HTTP_LLM_T_CONNECT];
    p->direct.read_timeout = p->timeout[NGX_HTTP_LLM_T_PLAIN];

    return NGX_OK;
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_llm_provider_tls(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    ngx_ssl_t           *ssl;
    ngx_str_t            ciphers;
    ngx_pool_cleanup_t  *cln;

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NGX_ERROR;
    }

    ssl->log = cf->log;

    if (ngx_ssl_create(ssl, NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3, NULL) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        ngx_ssl_cleanup_ctx(ssl);
        return NGX_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    ngx_str_set(&ciphers, "DEFAULT");

    if (ngx_ssl_ciphers(cf, ssl, &ciphers, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (p->tls_ca.len) {

        if (ngx_ssl_trusted_certificate(cf, ssl, &p->tls_ca, 9) != NGX_OK) {
            return NGX_ERROR;
        }

    } else if (p->tls_verify
               && SSL_CTX_set_default_verify_paths(ssl->ctx) == 0)
    {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "SSL_CTX_set_default_verify_paths() failed");
        return NGX_ERROR;
    }

    if (ngx_ssl_client_session_cache(cf, ssl, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_llm_free_session;
    cln->data = p;

    p->upstream.ssl = ssl;
    p->upstream.ssl_session_reuse = 1;
    p->upstream.ssl_server_name = 1;
    p->upstream.ssl_verify = p->tls_verify;

    return NGX_OK;
}

#endif


#if (NGX_HTTP_SSL)

static void
ngx_http_llm_free_session(void *data)
{
    ngx_http_llm_provider_t *p = data;

    if (p->session) {
        ngx_ssl_free_session(p->session);
        p->session = NULL;
    }
}

#endif


/* the header that carries our key, made once */

static ngx_int_t
ngx_http_llm_provider_auth(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    u_char                 *c;
    ngx_uint_t              i;
    const llm_str_t        *s;
    ngx_http_llm_header_t  *h;

    p->ours = (p->key_source == NGX_HTTP_LLM_KEY_OURS);

    for (i = 0; p->headers && i < p->headers->nelts; i++) {
        h = p->headers->elts;

        for (s = p->dialect->credentials; s->len && h[i].value.len; s++) {

            /* a key in a header of the block is no client's, either */

            if (s->len == h[i].lowcase.len
                && ngx_strncmp(s->data, h[i].lowcase.data, s->len) == 0)
            {
                p->ours = 1;
            }
        }
    }

    if (p->key_source != NGX_HTTP_LLM_KEY_OURS) {
        return NGX_OK;
    }

    for (i = 0; p->headers && i < p->headers->nelts; i++) {
        h = p->headers->elts;

        if (h[i].value.len
            && h[i].key.len == p->dialect->key_header.len
            && ngx_strncasecmp(h[i].key.data, p->dialect->key_header.data,
                               h[i].key.len)
               == 0)
        {
            ngx_http_llm_provider_error(cf, p, "the key makes header \"%V\"",
                                        &h[i].lowcase);
            return NGX_ERROR;
        }
    }

    for (c = p->key.data; c < p->key.data + p->key.len; c++) {
        if (*c <= ' ' || *c > '~') {
            ngx_http_llm_provider_error(cf, p, "the key has a byte that no "
                                        "header can carry");
            return NGX_ERROR;
        }
    }

    p->auth.key.len = p->dialect->key_header.len;
    p->auth.key.data = p->dialect->key_header.data;

    p->auth.value.len = p->dialect->key_prefix.len + p->key.len;
    p->auth.value.data = ngx_pnalloc(cf->pool, p->auth.value.len);
    if (p->auth.value.data == NULL) {
        return NGX_ERROR;
    }

    c = ngx_cpymem(p->auth.value.data, p->dialect->key_prefix.data,
                   p->dialect->key_prefix.len);

    if (p->key.len) {
        ngx_memcpy(c, p->key.data, p->key.len);
    }

    return NGX_OK;
}
