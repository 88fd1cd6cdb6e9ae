
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The cache's directives, and what is made ready of them before there are
 * workers: the directory, the threads, the part of a key that is configured.
 * The file itself is opened by each worker, and never here.
 */


#include "ngx_http_llm_module.h"

#include <openssl/rand.h>


/* our own name for a pool: the default one reads files for the core */

#define NGX_HTTP_LLM_THREADS  "llm"


static char *ngx_http_llm_cache_param(ngx_conf_t *cf,
    ngx_http_llm_cache_conf_t *cache, ngx_str_t *value);
static char *ngx_http_llm_cache_scope_set(ngx_conf_t *cf,
    ngx_http_llm_cache_conf_t *cache, ngx_str_t *s);
static ngx_int_t ngx_http_llm_cache_word(ngx_str_t *s, ngx_str_t *words,
    ngx_uint_t n);
static void ngx_http_llm_cache_warn(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf, ngx_http_llm_loc_conf_t *llcf);
static ngx_uint_t ngx_http_llm_cache_empty(u_char *path);


extern ngx_module_t  ngx_thread_pool_module;


static ngx_str_t  ngx_http_llm_cache_switch[] = {
    ngx_string("off"),
    ngx_string("on")
};


char *
ngx_http_llm_cache_path_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    off_t       size;
    ngx_str_t  *value, s;

    if (lmcf->cache_path.len) {
        return "is duplicate";
    }

    value = cf->args->elts;

    size = 1024 * 1024 * 1024;

    if (cf->args->nelts == 3) {

        if (ngx_strncmp(value[2].data, "size=", 5) != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        s.data = value[2].data + 5;
        s.len = value[2].len - 5;

        size = ngx_parse_offset(&s);

        if (size == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid cache size \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        if (size < LLM_STORE_MIN) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "cache size \"%V\" is too small, the least is "
                               "%dm", &value[2],
                               LLM_STORE_MIN / 1024 / 1024);
            return NGX_CONF_ERROR;
        }
    }

    lmcf->cache_path = value[1];
    lmcf->cache_size = size;

    if (lmcf->cache_path.len == 0) {
        return "has an empty path";
    }

    if (lmcf->cache_path.len > 1
        && lmcf->cache_path.data[lmcf->cache_path.len - 1] == '/')
    {
        lmcf->cache_path.data[--lmcf->cache_path.len] = '\0';
    }

    if (ngx_conf_full_name(cf->cycle, &lmcf->cache_path, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_llm_cache_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_int_t                   n;
    ngx_str_t                  *value;
    ngx_uint_t                  i;
    ngx_http_llm_cache_conf_t  *cache;

    if (llcf->cache != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    n = ngx_http_llm_cache_word(&value[1], ngx_http_llm_cache_switch, 2);

    if (n == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", it must be \"on\" or "
                           "\"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    cache = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_cache_conf_t));
    if (cache == NULL) {
        return NGX_CONF_ERROR;
    }

    llcf->cache = cache;

    cache->enable = n;
    cache->ttl = 3600;
    cache->max_size = 1024 * 1024;
    cache->client_control = 1;
    cache->file = cf->conf_file->file.name.data;
    cache->line = cf->conf_file->line;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_llm_repeated(value, i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        /* the others are what coalescing goes by, too */

        if (n == 0
            && (ngx_strncmp(value[i].data, "ttl=", 4) == 0
                || ngx_strncmp(value[i].data, "stale=", 6) == 0
                || ngx_strncmp(value[i].data, "max_size=", 9) == 0))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" contradicts \"off\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_llm_cache_param(cf, cache, &value[i]) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (cache->reveal && cache->scope != NGX_HTTP_LLM_SCOPE_GLOBAL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"reveal=on\" is for \"scope=global\" only: in "
                           "another scope nothing is hidden");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_cache_param(ngx_conf_t *cf, ngx_http_llm_cache_conf_t *cache,
    ngx_str_t *value)
{
    u_char     *p;
    time_t      t;
    ssize_t     size;
    ngx_int_t   n;
    ngx_str_t   s, name;

    static ngx_str_t  when[] = {
        ngx_string("unasked"),
        ngx_string("deterministic"),
        ngx_string("always")
    };

    static ngx_str_t  ids[] = {
        ngx_string("kept"),
        ngx_string("fresh")
    };

    p = (u_char *) ngx_strchr(value->data, '=');

    if (p == NULL) {
        goto invalid;
    }

    name.data = value->data;
    name.len = p - value->data;
    s.data = p + 1;
    s.len = value->data + value->len - s.data;

#define ngx_http_llm_param(text)                                              \
    (name.len == sizeof(text) - 1                                             \
     && ngx_strncmp(name.data, text, sizeof(text) - 1) == 0)

    if (ngx_http_llm_param("ttl") || ngx_http_llm_param("stale")) {

        t = ngx_parse_time(&s, 1);

        if (t == (time_t) NGX_ERROR || t > 0x7fffffff
            || (t == 0 && name.data[0] == 't'))
        {
            goto invalid;
        }

        if (name.data[0] == 't') {
            cache->ttl = t;

        } else {
            cache->stale = t;
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_llm_param("scope")) {
        return ngx_http_llm_cache_scope_set(cf, cache, &s);
    }

    if (ngx_http_llm_param("max_size")) {

        size = ngx_parse_size(&s);

        if (size == NGX_ERROR || size == 0 || size > 0x40000000) {
            goto invalid;
        }

        cache->max_size = size;

        return NGX_CONF_OK;
    }

    if (ngx_http_llm_param("when")) {

        n = ngx_http_llm_cache_word(&s, when, 3);

        if (n == NGX_ERROR) {
            goto invalid;
        }

        cache->when = n;

        return NGX_CONF_OK;
    }

    if (ngx_http_llm_param("ids")) {

        n = ngx_http_llm_cache_word(&s, ids, 2);

        if (n == NGX_ERROR) {
            goto invalid;
        }

        cache->fresh_ids = n;

        return NGX_CONF_OK;
    }

    n = ngx_http_llm_cache_word(&s, ngx_http_llm_cache_switch, 2);

    if (n == NGX_ERROR) {
        goto invalid;
    }

    if (ngx_http_llm_param("client_control")) {
        cache->client_control = n;
        return NGX_CONF_OK;
    }

    if (ngx_http_llm_param("reveal")) {
        cache->reveal = n;
        return NGX_CONF_OK;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", value);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_cache_scope_set(ngx_conf_t *cf, ngx_http_llm_cache_conf_t *cache,
    ngx_str_t *s)
{
    ngx_int_t                          n;
    ngx_http_compile_complex_value_t   ccv;

    static ngx_str_t  scopes[] = {
        ngx_string("key"),
        ngx_string("user"),
        ngx_string("global")
    };

    n = ngx_http_llm_cache_word(s, scopes, 3);

    if (n != NGX_ERROR) {
        cache->scope = n;
        return NGX_CONF_OK;
    }

    if (s->len < 2 || ngx_strlchr(s->data, s->data + s->len, '$') == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid scope \"%V\", it must be \"key\", "
                           "\"user\", \"global\" or a variable", s);
        return NGX_CONF_ERROR;
    }

    if (ngx_strstr(s->data, "$llm_") || ngx_strstr(s->data, "${llm_")) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid scope \"%V\": it is asked for before the "
                           "request's body is read, from which the variable "
                           "comes", s);
        return NGX_CONF_ERROR;
    }

    cache->value = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (cache->value == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = s;
    ccv.complex_value = cache->value;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    cache->scope = NGX_HTTP_LLM_SCOPE_VALUE;

    return NGX_CONF_OK;
}


/* the place of s among words, NGX_ERROR: it is none of them */

static ngx_int_t
ngx_http_llm_cache_word(ngx_str_t *s, ngx_str_t *words, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (s->len == words[i].len
            && ngx_strncmp(s->data, words[i].data, s->len) == 0)
        {
            return i;
        }
    }

    return NGX_ERROR;
}


/* a location with llm_adapter */

char *
ngx_http_llm_cache_merge(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (conf->cache && !conf->cache->enable) {

        if (!conf->coalesce) {
            conf->cache = NULL;

        } else {
            conf->cache->stale = 0;
        }
    }

    if (conf->coalesce) {

        lmcf->coalesce = 1;

        if (conf->cache == NULL) {
            conf->cache = ngx_pcalloc(cf->pool,
                                      sizeof(ngx_http_llm_cache_conf_t));
            if (conf->cache == NULL) {
                return NGX_CONF_ERROR;
            }

            conf->cache->client_control = 1;
        }
    }

    if (conf->cache == NULL || !conf->cache->enable) {
        return NGX_CONF_OK;
    }

    if (lmcf->cache_path.len == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"llm_adapter_cache\" needs \"llm_adapter_cache_path\""
                      " in %s:%ui", conf->cache->file, conf->cache->line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_cache_postconf(ngx_conf_t *cf)
{
    char                      *rv;
    ngx_str_t                 *value, name;
    ngx_uint_t                 i;
    ngx_conf_t                 save;
    ngx_array_t                args;
    ngx_http_llm_place_t      *place;
    ngx_http_llm_targets_t   **set;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    if (lmcf->cache_path.len == 0 && !lmcf->coalesce) {
        return NGX_OK;
    }

    set = lmcf->sets.elts;

    for (i = 0; i < lmcf->sets.nelts; i++) {
        if (ngx_http_llm_cache_route(cf->pool, set[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    place = lmcf->adapters.elts;

    for (i = 0; i < lmcf->adapters.nelts; i++) {
        ngx_http_llm_cache_warn(cf, lmcf, place[i].llcf);
    }

    if (lmcf->cache_path.len == 0) {
        return NGX_OK;
    }

    if (RAND_bytes((u_char *) &lmcf->instance, sizeof(uint64_t)) != 1) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "RAND_bytes() failed");
        return NGX_ERROR;
    }

    ngx_str_set(&name, NGX_HTTP_LLM_THREADS);

    lmcf->threads = ngx_thread_pool_get(cf->cycle, &name);

    if (lmcf->threads) {
        return NGX_OK;
    }

    /* the operator has made none of this name: as if "thread_pool llm
     * threads=1" stood there */

    if (ngx_array_init(&args, cf->pool, 3, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    value = ngx_array_push_n(&args, 3);
    if (value == NULL) {
        return NGX_ERROR;
    }

    ngx_str_set(&value[0], "thread_pool");
    ngx_str_set(&value[1], NGX_HTTP_LLM_THREADS);
    ngx_str_set(&value[2], "threads=1");

    save = *cf;
    cf->args = &args;

    rv = ngx_thread_pool_module.commands[0].set(cf,
                                     &ngx_thread_pool_module.commands[0],
                                     ngx_get_conf(cf->cycle->conf_ctx,
                                                  ngx_thread_pool_module));

    *cf = save;

    if (rv != NGX_CONF_OK) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the cache could not have its thread pool");
        return NGX_ERROR;
    }

    lmcf->threads = ngx_thread_pool_get(cf->cycle, &name);

    return lmcf->threads ? NGX_OK : NGX_ERROR;
}


/* a provider that asks for the client's own key refuses who has none; the
 * cache of everybody does not */

static void
ngx_http_llm_cache_warn(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf,
    ngx_http_llm_loc_conf_t *llcf)
{
    ngx_uint_t                  i, client;
    ngx_http_llm_route_t       *route;
    ngx_http_llm_cache_conf_t  *cache;

    cache = llcf->cache;

    if (cache == NULL
        || cache->scope == NGX_HTTP_LLM_SCOPE_KEY
        || cache->scope == NGX_HTTP_LLM_SCOPE_USER)
    {
        return;
    }

    client = 0;

    if (llcf->targets) {
        client = ngx_http_llm_cache_client(llcf->targets);

    } else {
        route = lmcf->routes.elts;

        for (i = 0; i < lmcf->routes.nelts && !client; i++) {
            client = ngx_http_llm_cache_client(&route[i].targets);
        }
    }

    if (client) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "the scope of \"llm_adapter_cache\" in %s:%ui is not "
                      "the client's key, but a provider is called with that: "
                      "answers are shared with who has no key",
                      cache->file, cache->line);
    }
}


/*
 * What of the targets is in a key: as they are written, and a digest of where
 * and how their providers are called.  Not the key they are called with, which
 * changes no answer.
 */

ngx_int_t
ngx_http_llm_cache_route(ngx_pool_t *pool, ngx_http_llm_targets_t *targets)
{
    u_char                   *p;
    size_t                    len;
    uint64_t                  digest;
    ngx_uint_t                i, k;
    ngx_http_llm_header_t    *h;
    ngx_http_llm_target_t    *t;
    ngx_http_llm_provider_t  *provider;

    t = targets->target;
    len = 0;
    digest = 0;

    for (i = 0; i < targets->n; i++) {

        provider = t[i].provider;

        len += provider->name.len + t[i].model.len + 2;

        digest = llm_digest(provider->endpoint.data, provider->endpoint.len,
                            digest);
        digest = llm_digest(provider->dialect->name.data,
                            provider->dialect->name.len, digest);

        if (provider->headers == NULL) {
            continue;
        }

        h = provider->headers->elts;

        for (k = 0; k < provider->headers->nelts; k++) {
            digest = llm_digest(h[k].lowcase.data, h[k].lowcase.len, digest);
            digest = llm_digest(h[k].value.data, h[k].value.len, digest);
        }
    }

    p = ngx_pnalloc(pool, len + 2 * sizeof(uint64_t));
    if (p == NULL) {
        return NGX_ERROR;
    }

    targets->route.data = p;

    for (i = 0; i < targets->n; i++) {

        p = ngx_sprintf(p, "%s%V", i ? " " : "", &t[i].provider->name);

        if (t[i].model.len) {
            p = ngx_sprintf(p, ":%V", &t[i].model);
        }
    }

    targets->route.len = p - targets->route.data;

    targets->called.data = p;
    targets->called.len = ngx_sprintf(p, "%016xL", digest) - p;

    return NGX_OK;
}


/*
 * The directory, if there is none.  The master alone may have the right to
 * make it; neither a test of the configuration nor a failed one gets here.
 */

ngx_int_t
ngx_http_llm_cache_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                 ours;
    ngx_core_conf_t           *ccf;
    ngx_file_info_t            fi;
    ngx_http_llm_main_conf_t  *lmcf;

    if (ngx_test_config || ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_OK;
    }

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL || lmcf->cache_path.len == 0) {
        return NGX_OK;
    }

    ours = 1;

    if (ngx_create_dir(lmcf->cache_path.data, 0700) == NGX_FILE_ERROR) {

        if (ngx_errno != NGX_EEXIST) {

            /* without it every request is a miss, which is no reason not to
             * serve any */

            ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno,
                          "llm: the cache \"%V\" could not be made",
                          &lmcf->cache_path);
            return NGX_OK;
        }

        ours = ngx_http_llm_cache_empty(lmcf->cache_path.data);
    }

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    if (ours
        && geteuid() == 0
        && ccf->user != (ngx_uid_t) NGX_CONF_UNSET_UINT
        && ngx_file_info(lmcf->cache_path.data, &fi) != NGX_FILE_ERROR
        && fi.st_uid != ccf->user
        && chown((char *) lmcf->cache_path.data, ccf->user, ccf->group) == -1)
    {
        ngx_log_error(NGX_LOG_ERR, cycle->log, ngx_errno,
                      "chown(\"%V\", %d) failed", &lmcf->cache_path,
                      ccf->user);
    }

    return NGX_OK;
}


/* a volume that was mounted for us is given to the workers, a directory with
 * other things in it is not */

static ngx_uint_t
ngx_http_llm_cache_empty(u_char *path)
{
    DIR            *dir;
    ngx_uint_t      empty;
    struct dirent  *de;

    dir = opendir((char *) path);
    if (dir == NULL) {
        return 0;
    }

    empty = 1;

    while ((de = readdir(dir)) != NULL) {
        if (ngx_strcmp(de->d_name, ".") != 0
            && ngx_strcmp(de->d_name, "..") != 0
            && ngx_strcmp(de->d_name, "lost+found") != 0)
        {
            empty = 0;
            break;
        }
    }

    (void) closedir(dir);

    return empty;
}
