
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The keys of requests that were seen before, byte for byte: a table in shared
 * memory, so that a repeat need not be read, sorted and hashed again.  It is
 * asked by a digest under a secret that the workers share (Poly1305, of which
 * nothing is ever shown), so no client can make two requests that are taken
 * for one.
 */


#include "ngx_http_llm_module.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>


static ngx_int_t ngx_http_llm_cache_digest(ngx_http_llm_ctx_t *ctx);
static ngx_int_t ngx_http_llm_mac_add(EVP_MAC_CTX *mac, ngx_str_t *s);
static uint64_t ngx_http_llm_seen_check(ngx_http_llm_seen_t *seen);


/* a worker's */

static EVP_MAC_CTX  *ngx_http_llm_mac;


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
        || ngx_http_llm_mac_add(ngx_http_llm_mac, &cache->account) != NGX_OK
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
ngx_http_llm_cache_seen_exit_worker(void)
{
    if (ngx_http_llm_mac) {
        EVP_MAC_CTX_free(ngx_http_llm_mac);
        ngx_http_llm_mac = NULL;
    }
}
