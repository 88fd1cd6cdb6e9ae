
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The key of a request: the whole of it in canonical form, but for members
 * that change no answer, with what else of it reaches the provider or chooses
 * one, and with whom the answer is for.
 *
 * A table in shared memory remembers the keys of requests that were seen
 * before, byte for byte, so that a repeat need not be read, sorted and hashed
 * again.  It is asked by a digest under a secret that the workers share
 * (Poly1305, of which nothing is ever shown), so no client can make two
 * requests that are taken for one.
 */


#include "ngx_http_llm_module.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>


#define NGX_HTTP_LLM_BETAS  64


static ngx_int_t ngx_http_llm_cache_control(ngx_http_llm_cached_t *cache,
    ngx_str_t *value);
static ngx_int_t ngx_http_llm_cache_betas(ngx_http_llm_ctx_t *ctx,
    ngx_str_t *values, ngx_uint_t n);
static int ngx_libc_cdecl ngx_http_llm_cmp_str(const void *one,
    const void *two);
static ngx_int_t ngx_http_llm_cache_args(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_scope_key(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_scope_user(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_cache_digest(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_mac_add(EVP_MAC_CTX *mac, ngx_str_t *s);
static uint64_t ngx_http_llm_seen_check(ngx_http_llm_seen_t *seen);


/* a worker's */

static EVP_MAC_CTX  *ngx_http_llm_mac;


/* what of the request's head has to do with the cache, in one walk */

ngx_int_t
ngx_http_llm_cache_gather(ngx_http_llm_ctx_t *ctx)
{
    ngx_str_t               betas[NGX_HTTP_LLM_BETAS];
    ngx_uint_t              i, n;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h;
    ngx_http_request_t     *r;
    ngx_http_llm_cached_t  *cache;

    r = ctx->request;
    cache = ctx->cache;
    n = 0;

    part = &r->headers_in.headers.part;
    h = part->elts;

#define ngx_http_llm_named(text)                                              \
    (h[i].key.len == sizeof(text) - 1                                         \
     && ngx_memcmp(h[i].lowcase_key, text, sizeof(text) - 1) == 0)

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        switch (h[i].key.len) {

        case 7:
            if (ngx_http_llm_named("api-key")) {
                cache->credential[2] = h[i].value;
            }

            break;

        case 9:
            if (ngx_http_llm_named("x-api-key")) {
                cache->credential[1] = h[i].value;
            }

            break;

        case 11:
            if (ngx_http_llm_named("openai-beta")) {
                cache->openai_beta = h[i].value;
            }

            break;

        case 13:
            if (ngx_http_llm_named("authorization")) {
                cache->credential[0] = h[i].value;

            } else if (ngx_http_llm_named("cache-control")
                       && cache->conf->client_control)
            {
                if (ngx_http_llm_cache_control(cache, &h[i].value) != NGX_OK) {
                    cache->no_cache = 1;
                }
            }

            break;

        case 14:
            if (ngx_http_llm_named("x-goog-api-key")) {
                cache->credential[3] = h[i].value;

            } else if (ngx_http_llm_named("anthropic-beta")) {

                if (n == NGX_HTTP_LLM_BETAS) {
                    return NGX_DECLINED;
                }

                betas[n++] = h[i].value;
            }

            break;

        case 17:
            if (ngx_http_llm_named("anthropic-version")) {
                cache->version = h[i].value;
            }

            break;
        }
    }

    if (n && ngx_http_llm_cache_betas(ctx, betas, n) != NGX_OK) {
        return NGX_ERROR;
    }

    if (r->args.len && ngx_http_llm_cache_args(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    if (cache->conf->scope == NGX_HTTP_LLM_SCOPE_VALUE) {
        return ngx_http_complex_value(r, cache->conf->value, &cache->value);
    }

    return NGX_OK;
}


/* RFC 9111, 5.2.1.  What is not understood there asks for nothing.
 * NGX_DECLINED: a max-age that is no number */

static ngx_int_t
ngx_http_llm_cache_control(ngx_http_llm_cached_t *cache, ngx_str_t *value)
{
    u_char     *p, *last, *end;
    ngx_int_t   n;

    last = value->data + value->len;

#define ngx_http_llm_directive(text)                                          \
    (end - p == sizeof(text) - 1                                              \
     && ngx_strncasecmp(p, (u_char *) text, sizeof(text) - 1) == 0)

    for (p = value->data; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ',');

        if (end == NULL) {
            end = last;
        }

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        if (ngx_http_llm_directive("no-cache")) {
            cache->no_cache = 1;

        } else if (ngx_http_llm_directive("no-store")) {
            cache->no_store = 1;

        } else if (ngx_http_llm_directive("only-if-cached")) {
            cache->only_if_cached = 1;

        } else if (end - p > 8
                   && ngx_strncasecmp(p, (u_char *) "max-age=", 8) == 0)
        {
            p += 8;

            if (end - p > 2 && *p == '"' && end[-1] == '"') {
                n = ngx_atoi(p + 1, end - p - 2);

            } else {
                n = ngx_atoi(p, end - p);
            }

            if (n == NGX_ERROR) {
                return NGX_DECLINED;
            }

            if (cache->max_age == -1 || n < cache->max_age) {
                cache->max_age = n;
            }
        }

        while (end < last && *end != ',') {
            end++;
        }
    }

    return NGX_OK;
}


/* their order means nothing */

static ngx_int_t
ngx_http_llm_cache_betas(ngx_http_llm_ctx_t *ctx, ngx_str_t *values,
    ngx_uint_t n)
{
    u_char      *p, *last, *end, *from;
    size_t       len;
    ngx_str_t   *s;
    ngx_uint_t   i;
    ngx_array_t  names;

    if (ngx_array_init(&names, ctx->request->pool, 8, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    len = 0;

    for (i = 0; i < n; i++) {

        last = values[i].data + values[i].len;

        for (from = values[i].data; from < last; from = end + 1) {

            end = ngx_strlchr(from, last, ',');

            if (end == NULL) {
                end = last;
            }

            p = end;

            while (from < p && (*from == ' ' || *from == '\t')) {
                from++;
            }

            while (p > from && (p[-1] == ' ' || p[-1] == '\t')) {
                p--;
            }

            if (p == from) {
                continue;
            }

            s = ngx_array_push(&names);
            if (s == NULL) {
                return NGX_ERROR;
            }

            s->data = from;
            s->len = p - from;

            len += s->len + 1;
        }
    }

    if (len == 0) {
        return NGX_OK;
    }

    s = names.elts;

    ngx_qsort(s, names.nelts, sizeof(ngx_str_t), ngx_http_llm_cmp_str);

    p = ngx_pnalloc(ctx->request->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->cache->beta.data = p;

    for (i = 0; i < names.nelts; i++) {
        if (i) {
            *p++ = ',';
        }

        p = ngx_cpymem(p, s[i].data, s[i].len);
    }

    ctx->cache->beta.len = p - ctx->cache->beta.data;

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_http_llm_cmp_str(const void *one, const void *two)
{
    const ngx_str_t *a = one;
    const ngx_str_t *b = two;

    return ngx_memn2cmp(a->data, b->data, a->len, b->len);
}


/* the query as the provider gets it, and the credential in it */

static ngx_int_t
ngx_http_llm_cache_args(ngx_http_llm_ctx_t *ctx)
{
    u_char              *p;
    ngx_http_request_t  *r;

    r = ctx->request;

    p = ngx_pnalloc(r->pool, r->args.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_http_llm_args(r, &ctx->cache->args, p);

    if (ngx_http_arg(r, (u_char *) "key", 3, &ctx->cache->credential[4])
        != NGX_OK)
    {
        ngx_str_null(&ctx->cache->credential[4]);
    }

    return NGX_OK;
}


/* NGX_OK: cache->scope is set, NGX_DECLINED: the request is nobody's */

ngx_int_t
ngx_http_llm_cache_scope(ngx_http_llm_ctx_t *ctx)
{
    u_char                 *p;
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

        p = ngx_pnalloc(ctx->request->pool, 6 + cache->value.len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        cache->scope.data = p;
        p = ngx_cpymem(p, "value ", 6);
        p = ngx_cpymem(p, cache->value.data, cache->value.len);
        cache->scope.len = p - cache->scope.data;

        return NGX_OK;

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
    u_char                 *p, *q;
    u_char                  md[32];
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

    if (EVP_Digest(s.data, s.len, md, NULL, EVP_sha256(), NULL) != 1) {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(ctx->request->pool, sizeof("key sha256:") - 1 + 64);
    if (p == NULL) {
        return NGX_ERROR;
    }

    q = ngx_cpymem(p, "key sha256:", sizeof("key sha256:") - 1);
    q = ngx_hex_dump(q, md, 32);

    cache->scope.data = p;
    cache->scope.len = q - p;

    return NGX_OK;
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


/* NGX_OK: cache->key is set, and what it was made of */

ngx_int_t
ngx_http_llm_cache_key(ngx_http_llm_ctx_t *ctx)
{
    size_t                   len;
    u_char                  *p;
    llm_key_parts_t          parts;
    ngx_http_llm_cached_t   *cache;
    ngx_http_llm_targets_t  *targets;

    cache = ctx->cache;
    targets = ctx->targets;

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
    ngx_http_llm_part(query, cache->args);
    ngx_http_llm_part(beta, cache->beta);
    ngx_http_llm_part(version, cache->version);
    ngx_http_llm_part(openai_beta, cache->openai_beta);
    ngx_http_llm_part(route, targets->route);
    ngx_http_llm_part(provider, targets->called);
    ngx_http_llm_part(scope, cache->scope);

    cache->head = llm_store_material(NULL, &parts);

    p = ngx_palloc(ctx->request->pool, cache->head + ctx->rq.body.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) llm_store_material(p, &parts);

    if (llm_canonical(&ctx->rq.body,
                      ctx->dialect->caching->unkeyed(ctx->endpoint),
                      &ngx_http_llm_heap, p + cache->head, &len)
        != LLM_OK)
    {
        return NGX_ERROR;
    }

    p[cache->head + len] = '}';

    cache->material.data = p;
    cache->material.len = cache->head + len + 1;

    if (llm_store_key(cache->key, &cache->scope, &cache->material) != LLM_OK) {
        return NGX_ERROR;
    }

    cache->keyed = 1;

    return NGX_OK;
}


/*
 * NGX_OK: this very request was seen before, and what was found out about it
 * is set: its key, the model it names, in which form it wants its answer.
 * NGX_DECLINED: not, or no longer known.
 */

ngx_int_t
ngx_http_llm_cache_seen(ngx_http_llm_ctx_t *ctx)
{
    uint64_t                   n;
    ngx_http_llm_seen_t        seen;
    ngx_http_llm_shared_t     *shared;
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;
    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    shared = lmcf->shared;

    if (ngx_http_llm_cache_digest(ctx) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_memcpy(&n, cache->digest, sizeof(uint64_t));

    seen = shared->seen[n & (shared->nseen - 1)];

    if (ngx_memcmp(seen.digest, cache->digest, sizeof(seen.digest)) != 0
        || seen.check != ngx_http_llm_seen_check(&seen)
        || (size_t) seen.model + seen.model_len > ctx->rq.body.len)
    {
        return NGX_DECLINED;
    }

    ngx_memcpy(cache->key, seen.key, LLM_KEY_LEN);

    ctx->rq.model.data = ctx->rq.body.data + seen.model;
    ctx->rq.model.len = seen.model_len;
    ctx->rq.stream = (seen.facts & NGX_HTTP_LLM_SEEN_STREAM) ? 1 : 0;
    ctx->rq.usage_asked = (seen.facts & NGX_HTTP_LLM_SEEN_USAGE) ? 1 : 0;

    return NGX_OK;
}


/* the request was read, and may be answered from the cache */

void
ngx_http_llm_cache_remember(ngx_http_llm_ctx_t *ctx)
{
    uint64_t                   n;
    ngx_http_llm_seen_t        seen;
    ngx_http_llm_shared_t     *shared;
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;

    /* a name that was written with escapes stands nowhere in the body */

    if (!cache->digested
        || ctx->rq.model.data < ctx->rq.body.data
        || ctx->rq.model.data + ctx->rq.model.len
           > ctx->rq.body.data + ctx->rq.body.len
        || ctx->rq.body.len > 0xffffffff)
    {
        return;
    }

    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);
    shared = lmcf->shared;

    ngx_memcpy(seen.digest, cache->digest, sizeof(seen.digest));
    ngx_memcpy(seen.key, cache->key, LLM_KEY_LEN);

    seen.key[LLM_KEY_LEN - 1] &= 0xfe;
    seen.model = ctx->rq.model.data - ctx->rq.body.data;
    seen.model_len = ctx->rq.model.len;
    seen.facts = (ctx->rq.stream ? NGX_HTTP_LLM_SEEN_STREAM : 0)
                 | (ctx->rq.usage_asked ? NGX_HTTP_LLM_SEEN_USAGE : 0);
    seen.check = ngx_http_llm_seen_check(&seen);

    ngx_memcpy(&n, cache->digest, sizeof(uint64_t));

    shared->seen[n & (shared->nseen - 1)] = seen;
}


static uint64_t
ngx_http_llm_seen_check(ngx_http_llm_seen_t *seen)
{
    return llm_digest(seen, offsetof(ngx_http_llm_seen_t, check), 's');
}


/*
 * All that decides which key a request has, or whether it has one, as it came.
 * Addresses of the configuration stand for what is configured: they are the
 * same in all workers that came of one reading of it.
 */

static ngx_int_t
ngx_http_llm_cache_digest(ngx_http_llm_ctx_t *ctx)
{
    size_t                     len;
    EVP_MAC                   *mac;
    uint64_t                   fixed[4];
    ngx_str_t                  s;
    ngx_uint_t                 i;
    ngx_http_llm_cached_t     *cache;
    ngx_http_llm_main_conf_t  *lmcf;

    cache = ctx->cache;
    lmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_llm_module);

    if (ngx_http_llm_mac == NULL) {

        mac = EVP_MAC_fetch(NULL, "POLY1305", NULL);
        if (mac == NULL) {
            return NGX_DECLINED;
        }

        ngx_http_llm_mac = EVP_MAC_CTX_new(mac);
        EVP_MAC_free(mac);

        if (ngx_http_llm_mac == NULL) {
            return NGX_DECLINED;
        }
    }

    if (EVP_MAC_init(ngx_http_llm_mac, lmcf->shared->secret, 32, NULL) != 1) {
        return NGX_DECLINED;
    }

    fixed[0] = lmcf->instance;
    fixed[1] = (uintptr_t) ngx_http_get_module_loc_conf(ctx->request,
                                                        ngx_http_llm_module);
    fixed[2] = (uintptr_t) ctx->endpoint;
    fixed[3] = ctx->rq.body.len;

    s.data = (u_char *) fixed;
    s.len = sizeof(fixed);

    if (EVP_MAC_update(ngx_http_llm_mac, s.data, s.len) != 1) {
        return NGX_DECLINED;
    }

    if (cache->conf->scope == NGX_HTTP_LLM_SCOPE_KEY
        || cache->conf->scope == NGX_HTTP_LLM_SCOPE_USER)
    {
        for (i = 0; i < 5; i++) {
            if (ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->credential[i])
                != NGX_OK)
            {
                return NGX_DECLINED;
            }
        }
    }

    if (ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->value) != NGX_OK
        || ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->args) != NGX_OK
        || ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->beta) != NGX_OK
        || ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->version) != NGX_OK
        || ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->openai_beta)
           != NGX_OK
        || EVP_MAC_update(ngx_http_llm_mac, ctx->rq.body.data,
                          ctx->rq.body.len)
           != 1
        || EVP_MAC_final(ngx_http_llm_mac, cache->digest, &len,
                         sizeof(cache->digest))
           != 1)
    {
        return NGX_DECLINED;
    }

    cache->digested = 1;

    return NGX_OK;
}


/* with its length, so that what follows can't be taken for a part of it */

static ngx_int_t
ngx_http_llm_mac_add(EVP_MAC_CTX *mac, ngx_str_t *s)
{
    uint64_t  len;

    len = s->len;

    if (EVP_MAC_update(mac, (u_char *) &len, sizeof(len)) != 1
        || (len && EVP_MAC_update(mac, s->data, len) != 1))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_http_llm_cache_key_exit_worker(void)
{
    if (ngx_http_llm_mac) {
        EVP_MAC_CTX_free(ngx_http_llm_mac);
        ngx_http_llm_mac = NULL;
    }
}
