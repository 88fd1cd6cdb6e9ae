
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The key of an entry: what it is made of, as one JSON text, and its digest.
 * OpenSSL's digest is looked up once a process, and one context is kept; a
 * thread that finds it in use by another makes one of its own.
 */


#include <string.h>

#include <openssl/evp.h>

#include "llm_store.h"


typedef struct {
    const char            *name;
    size_t                 offset;     /* in llm_key_parts_t */
} llm_store_part_t;


static size_t llm_store_append(u_char *dst, size_t pos, const void *data,
    size_t len);
static llm_int_t llm_store_sha256(u_char dst[32], const void *data,
    size_t len);


static const llm_store_part_t  llm_store_parts[] = {
    { "dialect", offsetof(llm_key_parts_t, dialect) },
    { "endpoint", offsetof(llm_key_parts_t, endpoint) },
    { "query", offsetof(llm_key_parts_t, query) },
    { "beta", offsetof(llm_key_parts_t, beta) },
    { "version", offsetof(llm_key_parts_t, version) },
    { "openai_beta", offsetof(llm_key_parts_t, openai_beta) },
    { "account", offsetof(llm_key_parts_t, account) },
    { "route", offsetof(llm_key_parts_t, route) },
    { "provider", offsetof(llm_key_parts_t, provider) },
    { "scope", offsetof(llm_key_parts_t, scope) },
    { NULL, 0 }
};


static EVP_MD      *llm_store_md;      /* once set it stays */
static EVP_MD_CTX  *llm_store_md_ctx;  /* taken out while in use */


static size_t
llm_store_append(u_char *dst, size_t pos, const void *data, size_t len)
{
    if (dst) {
        memcpy(dst + pos, data, len);
    }

    return pos + len;
}


size_t
llm_store_material(u_char *dst, const llm_key_parts_t *parts)
{
    size_t                   pos;
    const llm_str_t         *text;
    const llm_store_part_t  *p;

    static const char  head[] = "{\"layout\":1";
    static const char  tail[] = ",\"request\":";

    pos = llm_store_append(dst, 0, head, sizeof(head) - 1);

    for (p = llm_store_parts; p->name; p++) {
        text = (const llm_str_t *) ((const char *) parts + p->offset);

        pos = llm_store_append(dst, pos, ",\"", 2);
        pos = llm_store_append(dst, pos, p->name, strlen(p->name));
        pos = llm_store_append(dst, pos, "\":\"", 3);
        pos += llm_json_escape(dst ? dst + pos : NULL, text);
        pos = llm_store_append(dst, pos, "\"", 1);
    }

    return llm_store_append(dst, pos, tail, sizeof(tail) - 1);
}


static llm_int_t
llm_store_sha256(u_char dst[32], const void *data, size_t len)
{
    int          good;
    EVP_MD      *md, *none;
    EVP_MD_CTX  *ctx;

    md = __atomic_load_n(&llm_store_md, __ATOMIC_ACQUIRE);

    if (md == NULL) {
        md = EVP_MD_fetch(NULL, "SHA256", NULL);
        if (md == NULL) {
            return LLM_ERROR;
        }

        none = NULL;

        if (!__atomic_compare_exchange_n(&llm_store_md, &none, md, 0,
                                         __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        {
            EVP_MD_free(md);
            md = none;
        }
    }

    ctx = __atomic_exchange_n(&llm_store_md_ctx, NULL, __ATOMIC_ACQ_REL);

    if (ctx == NULL) {
        ctx = EVP_MD_CTX_new();
        if (ctx == NULL) {
            return LLM_ERROR;
        }
    }

    good = EVP_DigestInit_ex2(ctx, md, NULL)
           && EVP_DigestUpdate(ctx, data, len)
           && EVP_DigestFinal_ex(ctx, dst, NULL);

    EVP_MD_CTX_free(__atomic_exchange_n(&llm_store_md_ctx, ctx,
                                        __ATOMIC_ACQ_REL));

    return good ? LLM_OK : LLM_ERROR;
}


llm_int_t
llm_store_key(u_char key[LLM_KEY_LEN], const llm_str_t *scope,
    const llm_str_t *material)
{
    u_char  hash[32];

    if (llm_store_scope(key, scope) != LLM_OK
        || llm_store_sha256(hash, material->data, material->len) != LLM_OK)
    {
        return LLM_ERROR;
    }

    memcpy(key + LLM_KEY_SCOPE, hash, LLM_KEY_LEN - LLM_KEY_SCOPE);
    key[LLM_KEY_LEN - 1] &= 0xfe;

    return LLM_OK;
}


llm_int_t
llm_store_scope(u_char scope[LLM_KEY_SCOPE], const llm_str_t *text)
{
    u_char  hash[32];

    if (llm_store_sha256(hash, text->data, text->len) != LLM_OK) {
        return LLM_ERROR;
    }

    memcpy(scope, hash, LLM_KEY_SCOPE);

    return LLM_OK;
}


llm_int_t
llm_store_hashed(u_char dst[LLM_HASHED_LEN], const llm_str_t *text)
{
    u_char       hash[32], *p;
    llm_uint_t   i;

    static const char  hex[] = "0123456789abcdef";

    if (llm_store_sha256(hash, text->data, text->len) != LLM_OK) {
        return LLM_ERROR;
    }

    memcpy(dst, "sha256:", 7);
    p = dst + 7;

    for (i = 0; i < 32; i++) {
        *p++ = hex[hash[i] >> 4];
        *p++ = hex[hash[i] & 0xf];
    }

    return LLM_OK;
}


/* the process looks up no more keys */

void
llm_store_key_done(void)
{
    EVP_MD_CTX_free(__atomic_exchange_n(&llm_store_md_ctx, NULL,
                                        __ATOMIC_ACQ_REL));
    EVP_MD_free(__atomic_exchange_n(&llm_store_md, NULL, __ATOMIC_ACQ_REL));
}
