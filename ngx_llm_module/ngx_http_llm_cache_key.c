
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The key of a request: the whole of it in canonical form, but for members
 * that change no answer, with what else of it reaches the provider or chooses
 * one, and with whom the answer is for.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_KEY_ROOM      (NGX_HTTP_LLM_KEY_MAX + 64 * 1024)
#define NGX_HTTP_LLM_KEEP_REQUEST  (16 * 1024) /* what a key is made of is
                                                  kept up to here */


static ngx_int_t ngx_http_llm_cache_scope_key(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_scope_user(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_hashed(ngx_pool_t *pool, llm_str_t *dst,
    const char *word, ngx_str_t *s);
static u_char *ngx_http_llm_cache_room(ngx_pool_t *pool, size_t len);


/* a worker's */

static u_char  *ngx_http_llm_room;
static size_t   ngx_http_llm_room_size;


/* NGX_OK: cache->scope is set, NGX_DECLINED: the request is nobody's */

ngx_int_t
ngx_http_llm_cache_scope(ngx_http_llm_ctx_t *ctx)
{
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    switch (cache->conf->scope) {

    case NGX_HTTP_LLM_SCOPE_GLOBAL:
        llm_str_set(&cache->scope, "global");
        return NGX_OK;

    case NGX_HTTP_LLM_SCOPE_VALUE:

        if (cache->value.len == 0) {
            return NGX_DECLINED;
        }

        return ngx_http_llm_cache_hashed(ctx->request->pool, &cache->scope,
                                         "value ", &cache->value);

    case NGX_HTTP_LLM_SCOPE_USER:
        return ngx_http_llm_cache_scope_user(ctx);

    default:
        return ngx_http_llm_cache_scope_key(ctx);
    }
}


/* "key sha256:HEX" of the bare secret, as in a file of virtual keys; of
 * several of all of them */

static ngx_int_t
ngx_http_llm_cache_scope_key(ngx_http_llm_ctx_t *ctx)
{
    u_char                 *p;
    size_t                  len;
    ngx_str_t               s, *found;
    ngx_uint_t              i, n;
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;
    found = NULL;
    len = 0;
    n = 0;

    for (i = 0; i < 5; i++) {
        if (cache->credential[i].len) {
            found = &cache->credential[i];
            len += found->len + 1;
            n++;
        }
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    s = *found;

    if (n == 1 && found == &cache->credential[0]) {

        /* "Bearer SECRET" */

        p = ngx_strlchr(s.data, s.data + s.len, ' ');

        if (p && p - s.data == 6
            && ngx_strncasecmp(s.data, (u_char *) "Bearer", 6) == 0)
        {
            while (p < s.data + s.len && *p == ' ') {
                p++;
            }

            s.len = s.data + s.len - p;
            s.data = p;

            if (s.len == 0) {
                return NGX_DECLINED;
            }
        }

    } else if (n > 1) {

        p = ngx_pnalloc(ctx->request->pool, len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        s.data = p;

        for (i = 0; i < 5; i++) {
            if (cache->credential[i].len) {
                p = ngx_cpymem(p, cache->credential[i].data,
                               cache->credential[i].len);
                *p++ = '\0';
            }
        }

        s.len = p - s.data;
    }

    return ngx_http_llm_cache_hashed(ctx->request->pool, &cache->scope, "key ",
                                     &s);
}


/* word and "sha256:HEX" of s */

static ngx_int_t
ngx_http_llm_cache_hashed(ngx_pool_t *pool, llm_str_t *dst, const char *word,
    ngx_str_t *s)
{
    size_t      len;
    u_char     *p;
    llm_str_t   text;

    len = ngx_strlen(word);

    p = ngx_pnalloc(pool, len + LLM_HASHED_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    dst->data = p;
    dst->len = len + LLM_HASHED_LEN;

    p = ngx_cpymem(p, word, len);

    text.len = s->len;
    text.data = s->data;

    return llm_store_hashed(p, &text) == LLM_OK ? NGX_OK : NGX_ERROR;
}


/* "user sha256:HEX \"NAME\"": one user of one key */

static ngx_int_t
ngx_http_llm_cache_scope_user(ngx_http_llm_ctx_t *ctx)
{
    u_char                 *p;
    size_t                  len;
    ngx_int_t               rc;
    ngx_uint_t              i;
    llm_json_value_t        users[LLM_USERS];
    ngx_http_llm_cached_t  *cache;

    cache = ctx->cache;

    if (ctx->dialect->caching->users(&ctx->rq, users) == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_http_llm_cache_scope_key(ctx);

    if (rc != NGX_OK) {
        return rc;
    }

    len = cache->scope.len + 1;

    for (i = 0; i < LLM_USERS; i++) {
        len += users[i].raw.len + 1;
    }

    p = ngx_pnalloc(ctx->request->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(p, "user ", 5);
    p = ngx_cpymem(p, cache->scope.data + 4, cache->scope.len - 4);

    cache->scope.data = p - cache->scope.len - 1;

    *p++ = ' ';

    for (i = 0; i < LLM_USERS; i++) {

        if (users[i].type == LLM_JSON_STRING) {

            /* with its quotes: two names are not one with a comma in it */

            p = ngx_cpymem(p, users[i].raw.data, users[i].raw.len);
        }

        *p++ = ',';
    }

    while (p[-1] == ',') {
        p--;
    }

    cache->scope.len = p - cache->scope.data;

    return NGX_OK;
}


/* is one of them called with the client's own key? */

ngx_uint_t
ngx_http_llm_cache_client(ngx_http_llm_targets_t *targets)
{
    ngx_uint_t  i;

    for (i = 0; i < targets->n; i++) {
        if (targets->target[i].provider->key_source == NGX_HTTP_LLM_KEY_CLIENT)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * Where a key's text is put together.  A buffer of the worker serves all but
 * odd ones: memory that is new costs more than what is written there.
 */

static u_char *
ngx_http_llm_cache_room(ngx_pool_t *pool, size_t len)
{
    u_char  *p;

    if (len > NGX_HTTP_LLM_KEY_ROOM) {
        return ngx_palloc(pool, len);
    }

    if (len > ngx_http_llm_room_size) {

        p = ngx_alloc(ngx_align(len, 4096), ngx_cycle->log);
        if (p == NULL) {
            return NULL;
        }

        ngx_http_llm_cache_key_exit_worker();

        ngx_http_llm_room = p;
        ngx_http_llm_room_size = ngx_align(len, 4096);
    }

    return ngx_http_llm_room;
}


void
ngx_http_llm_cache_key_exit_worker(void)
{
    if (ngx_http_llm_room) {
        ngx_free(ngx_http_llm_room);
        ngx_http_llm_room = NULL;
        ngx_http_llm_room_size = 0;
    }
}


/* NGX_OK: cache->key is set, and what is kept of what it was made of;
 * NGX_DECLINED: the request is too much for that */

ngx_int_t
ngx_http_llm_cache_key(ngx_http_llm_ctx_t *ctx)
{
    size_t                   head, len;
    u_char                  *p;
    llm_int_t                rc;
    llm_str_t                material;
    llm_key_parts_t          parts;
    ngx_http_llm_cached_t   *cache;
    ngx_http_llm_targets_t  *targets;

    cache = ctx->cache;
    targets = ctx->targets;

    if (ctx->rq.body.len > NGX_HTTP_LLM_KEY_MAX) {
        return NGX_DECLINED;
    }

    if (targets->route.len == 0
        && ngx_http_llm_cache_route(ctx->request->pool, targets) != NGX_OK)
    {
        return NGX_ERROR;
    }

#define ngx_http_llm_part(name, value)                                        \
    parts.name.len = (value).len;                                             \
    parts.name.data = (value).data

    ngx_http_llm_part(dialect, ctx->dialect->name);
    ngx_http_llm_part(endpoint, ctx->endpoint->path);
    ngx_http_llm_part(beta, cache->beta);
    ngx_http_llm_part(version, cache->version);
    ngx_http_llm_part(openai_beta, cache->openai_beta);
    ngx_http_llm_part(route, targets->route);
    ngx_http_llm_part(provider, targets->called);
    ngx_http_llm_part(scope, cache->scope);

    ngx_memzero(&parts.query, sizeof(llm_str_t));
    ngx_memzero(&parts.account, sizeof(llm_str_t));

    if ((cache->args.len
         && ngx_http_llm_cache_hashed(ctx->request->pool, &parts.query, "",
                                      &cache->args)
            != NGX_OK)
        || (cache->account.len
            && ngx_http_llm_cache_client(targets)
            && ngx_http_llm_cache_hashed(ctx->request->pool, &parts.account,
                                         "", &cache->account)
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    head = llm_store_material(NULL, &parts);
    len = head + ctx->rq.body.len + 1;

    p = ngx_http_llm_cache_room(ctx->request->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) llm_store_material(p, &parts);

    rc = llm_canonical(&ctx->rq.body,
                       ctx->dialect->caching->unkeyed(ctx->endpoint),
                       &ngx_http_llm_heap, p + head, &len);

    if (rc != LLM_OK) {
        return rc == LLM_DECLINED ? NGX_DECLINED : NGX_ERROR;
    }

    p[head + len] = '}';

    material.data = p;
    material.len = head + len + 1;

    if (llm_store_key(cache->key, &cache->scope, &material) != LLM_OK) {
        return NGX_ERROR;
    }

    /* of a long one only what stands before the body is kept:
     * {"layout":1,...,"request": */

    if (material.len > NGX_HTTP_LLM_KEEP_REQUEST) {
        material.len = head - (sizeof(",\"request\":") - 1) + 1;
        p[material.len - 1] = '}';
    }

    cache->material.data = ngx_pnalloc(ctx->request->pool, material.len);
    if (cache->material.data == NULL) {
        return NGX_ERROR;
    }

    cache->material.len = material.len;
    ngx_memcpy(cache->material.data, p, material.len);

    cache->keyed = 1;

    return NGX_OK;
}
