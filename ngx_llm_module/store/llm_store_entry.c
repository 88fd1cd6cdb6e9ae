
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * An entry as it lies in the file: a head of fixed size, the runs, the short
 * texts, the request and the answer, one behind another.  In this machine's
 * order of bytes: the file is not for other machines.  The sum in the head is
 * over the key and all that follows.
 */


#include <string.h>

#include "core/llm_dialect.h"
#include "llm_store_int.h"


#define LLM_STORE_SEED   0x6c6c6d2d63616368ULL
#define LLM_STORE_TEXTS  8
#define LLM_STORE_BIG    (1U << 30)    /* of one text */


typedef struct {
    uint64_t               sum;
    uint64_t               len;        /* of the whole entry */
    uint64_t               seq;        /* of the list of purges */
    uint64_t               begun;
    uint64_t               made;
    uint64_t               cost;
    uint64_t               usage[5];
    uint32_t               ttl;
    uint32_t               stale;
    uint32_t               flags;
    uint32_t               nruns;
    uint32_t               request;    /* lengths */
    uint32_t               text;
    uint16_t               texts[LLM_STORE_TEXTS];
    uint64_t               known;
    u_char                 id[LLM_ID_LEN];
} llm_store_head_t;


static uint64_t llm_store_sum(const u_char *key, const u_char *data,
    size_t len);
static llm_str_t *llm_store_text(llm_entry_t *e, llm_uint_t i);
static llm_int_t llm_store_head(const u_char *key, const u_char *data,
    size_t len, llm_store_head_t *h, llm_entry_t *e);


static uint64_t
llm_store_sum(const u_char *key, const u_char *data, size_t len)
{
    llm_digest_t  d;

    llm_digest_init(&d, LLM_STORE_SEED);
    llm_digest_add(&d, key, LLM_KEY_LEN);
    llm_digest_add(&d, data + sizeof(uint64_t), len - sizeof(uint64_t));

    return llm_digest_end(&d);
}


static llm_str_t *
llm_store_text(llm_entry_t *e, llm_uint_t i)
{
    llm_str_t *const  texts[LLM_STORE_TEXTS] = {
        &e->dialect, &e->endpoint, &e->provider, &e->model,
        &e->asked, &e->scope, &e->content_type, &e->finish_reason
    };

    return texts[i];
}


size_t
llm_store_entry_len(const llm_entry_t *e)
{
    size_t      len, runs;
    llm_str_t  *text;
    llm_uint_t  i;

    if (e->nruns > LLM_STORE_RUNS || e->request.len >= LLM_STORE_BIG
        || e->text.len >= LLM_STORE_BIG)
    {
        return 0;
    }

    len = sizeof(llm_store_head_t) + e->nruns * sizeof(llm_run_t)
          + e->request.len + e->text.len;

    for (i = 0; i < LLM_STORE_TEXTS; i++) {
        text = llm_store_text((llm_entry_t *) e, i);

        if (text->len > UINT16_MAX) {
            return 0;
        }

        len += text->len;
    }

    runs = 0;

    for (i = 0; i < e->nruns; i++) {
        runs += e->runs[i].len;
    }

    return (e->nruns == 0 || runs == e->text.len) ? len : 0;
}


static u_char *
llm_store_copy(u_char *p, const void *data, size_t len)
{
    if (len) {
        memcpy(p, data, len);
    }

    return p + len;
}


void
llm_store_encode(u_char *dst, const llm_entry_t *e, uint64_t seq)
{
    u_char            *p;
    llm_str_t         *text;
    llm_uint_t         i;
    llm_store_head_t   h;

    memset(&h, 0, sizeof(llm_store_head_t));

    h.len = llm_store_entry_len(e);
    h.seq = seq;
    h.begun = e->begun;
    h.made = e->made;
    h.cost = e->cost;
    h.usage[0] = e->usage.prompt;
    h.usage[1] = e->usage.completion;
    h.usage[2] = e->usage.cached;
    h.usage[3] = e->usage.cache_write;
    h.usage[4] = e->usage.reasoning;
    h.known = e->usage.known;
    h.ttl = e->ttl;
    h.stale = e->stale;
    h.flags = e->flags & ~LLM_ENTRY_ALONE;
    h.nruns = e->nruns;
    h.request = e->request.len;
    h.text = e->text.len;
    memcpy(h.id, e->id, LLM_ID_LEN);

    p = dst + sizeof(llm_store_head_t);
    p = llm_store_copy(p, e->runs, e->nruns * sizeof(llm_run_t));

    for (i = 0; i < LLM_STORE_TEXTS; i++) {
        text = llm_store_text((llm_entry_t *) e, i);
        h.texts[i] = text->len;
        p = llm_store_copy(p, text->data, text->len);
    }

    p = llm_store_copy(p, e->request.data, e->request.len);
    (void) llm_store_copy(p, e->text.data, e->text.len);

    memcpy(dst, &h, sizeof(llm_store_head_t));

    h.sum = llm_store_sum(e->key, dst, h.len);
    memcpy(dst, &h.sum, sizeof(uint64_t));
}


llm_int_t
llm_store_decode(const u_char *key, const u_char *data, size_t len,
    llm_entry_t *e, llm_run_t *runs, uint64_t *seq)
{
    uint64_t          sum;
    llm_store_head_t  h;

    if (llm_store_head(key, data, len, &h, e) != LLM_OK) {
        return LLM_ERROR;
    }

    sum = llm_store_sum(key, data, len);

    if (sum != h.sum) {
        return LLM_ERROR;
    }

    /* in the file they are not aligned */

    memcpy(runs, data + sizeof(llm_store_head_t),
           h.nruns * sizeof(llm_run_t));

    e->runs = h.nruns ? runs : NULL;
    e->nruns = h.nruns;
    *seq = h.seq;

    return LLM_OK;
}


llm_int_t
llm_store_peek(const u_char *key, const u_char *data, size_t len,
    llm_entry_t *e, uint64_t *seq)
{
    llm_store_head_t  h;

    if (llm_store_head(key, data, len, &h, e) != LLM_OK) {
        return LLM_ERROR;
    }

    *seq = h.seq;

    return LLM_OK;
}


static llm_int_t
llm_store_head(const u_char *key, const u_char *data, size_t len,
    llm_store_head_t *h, llm_entry_t *e)
{
    size_t         need;
    llm_str_t     *text;
    llm_uint_t     i;
    const u_char  *p;

    if (len < sizeof(llm_store_head_t)) {
        return LLM_ERROR;
    }

    memcpy(h, data, sizeof(llm_store_head_t));

    if (h->len != len || h->nruns > LLM_STORE_RUNS
        || h->request >= LLM_STORE_BIG || h->text >= LLM_STORE_BIG)
    {
        return LLM_ERROR;
    }

    need = sizeof(llm_store_head_t) + h->nruns * sizeof(llm_run_t)
           + h->request + h->text;

    for (i = 0; i < LLM_STORE_TEXTS; i++) {
        need += h->texts[i];
    }

    if (need != len) {
        return LLM_ERROR;
    }

    memset(e, 0, sizeof(llm_entry_t));

    memcpy(e->key, key, LLM_KEY_LEN);
    memcpy(e->id, h->id, LLM_ID_LEN);

    e->begun = h->begun;
    e->made = h->made;
    e->ttl = h->ttl;
    e->stale = h->stale;
    e->flags = h->flags;
    e->cost = h->cost;
    e->usage.prompt = h->usage[0];
    e->usage.completion = h->usage[1];
    e->usage.cached = h->usage[2];
    e->usage.cache_write = h->usage[3];
    e->usage.reasoning = h->usage[4];
    e->usage.known = h->known;

    p = data + sizeof(llm_store_head_t) + h->nruns * sizeof(llm_run_t);

    for (i = 0; i < LLM_STORE_TEXTS; i++) {
        text = llm_store_text(e, i);
        text->data = (u_char *) p;
        text->len = h->texts[i];
        p += text->len;
    }

    e->request.data = (u_char *) p;
    e->request.len = h->request;

    e->text.data = (u_char *) p + h->request;
    e->text.len = h->text;

    return LLM_OK;
}
