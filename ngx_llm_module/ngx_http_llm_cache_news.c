
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Of each key that was answered lately the workers know when, and whether the
 * answer is still on its way to the file.  If it was asked for afresh, what is
 * older in the file has been superseded, be the newer one there yet, in a
 * moment, or lost on its way.
 *
 * A table of words in shared memory: half of the key's digest, whatever the
 * form, the lower half of the time in ms but for its last three bits, and these.
 * They are written without a lock: one that is lost, or gives place to another
 * one, costs only this knowledge.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_ON_ITS_WAY  2000          /* ms, at most */
#define NGX_HTTP_LLM_KNOWN       86400000      /* ms, a day: how long it is of
                                                  use that there is a newer */

#define NGX_HTTP_LLM_HALF     0xffffffff00000000
#define NGX_HTTP_LLM_ARRIVED  1                /* it is not on its way */
#define NGX_HTTP_LLM_ALONE    2                /* what is older has had its
                                                  time */

#define NGX_HTTP_LLM_LOST     4                /* nor in the file */

#define NGX_HTTP_LLM_SETTLED  10000            /* ms, after which nothing older
                                                  comes to the file */

#define ngx_http_llm_news_time(word)  ((uint32_t) (word) & 0xfffffff8)


static ngx_atomic_uint_t ngx_http_llm_news_made(llm_entry_t *e);
static ngx_atomic_uint_t ngx_http_llm_news_half(u_char *key, size_t offset);
static ngx_atomic_t *ngx_http_llm_news_slot(ngx_http_llm_shared_t *shared,
    u_char *key, uint32_t now, ngx_atomic_t **spare);


static ngx_atomic_uint_t
ngx_http_llm_news_made(llm_entry_t *e)
{
    return ngx_http_llm_news_half(e->key, 4) << 32 | (e->made & 0xfffffff8)
           | ((e->flags & LLM_ENTRY_ALONE) ? NGX_HTTP_LLM_ALONE : 0);
}


static ngx_atomic_uint_t
ngx_http_llm_news_half(u_char *key, size_t offset)
{
    uint32_t  n;

    ngx_memcpy(&n, key + LLM_KEY_SCOPE + offset, sizeof(uint32_t));

    return n;
}


/* the word of the key, NULL: there is none; *spare: the oldest that may be */

static ngx_atomic_t *
ngx_http_llm_news_slot(ngx_http_llm_shared_t *shared, u_char *key,
    uint32_t now, ngx_atomic_t **spare)
{
    uint32_t            age, oldest;
    ngx_uint_t          i, n;
    ngx_atomic_t       *set;
    ngx_atomic_uint_t   half, value;

    half = ngx_http_llm_news_half(key, 4) << 32;

    n = ngx_http_llm_news_half(key, 0) & (NGX_HTTP_LLM_NEWS - 1);
    set = &shared->news[n & ~(NGX_HTTP_LLM_WAYS - 1)];
    oldest = 0;
    *spare = set;

    for (i = 0; i < NGX_HTTP_LLM_WAYS; i++) {

        value = set[i];

        if (value && (value & NGX_HTTP_LLM_HALF) == half) {
            return &set[i];
        }

        age = value ? now - (uint32_t) value : (uint32_t) -1;

        if (age > oldest) {
            oldest = age;
            *spare = &set[i];
        }
    }

    return NULL;
}


/* it is on its way from now on */

void
ngx_http_llm_news_put(ngx_http_llm_shared_t *shared, llm_entry_t *e)
{
    int32_t             later;
    ngx_atomic_t       *slot, *spare;
    ngx_atomic_uint_t   word, value;

    word = ngx_http_llm_news_made(e);
    slot = ngx_http_llm_news_slot(shared, e->key, e->made, &spare);

    if (slot == NULL) {
        *spare = word;
        return;
    }

    value = *slot;
    later = ngx_http_llm_news_time(word) - ngx_http_llm_news_time(value);

    if ((value & NGX_HTTP_LLM_HALF) == (word & NGX_HTTP_LLM_HALF)) {

        /* another worker may have a newer one on its way; or one was asked for
         * afresh and lost, and this one is of one form only */

        if (later < 0
            || ((value & NGX_HTTP_LLM_ALONE) && !(word & NGX_HTTP_LLM_ALONE)
                && ((value & NGX_HTTP_LLM_LOST)
                    || later < NGX_HTTP_LLM_SETTLED)))
        {
            return;
        }
    }

    *slot = word;
}


/* it is in the file, or lost */

void
ngx_http_llm_news_arrived(ngx_http_llm_shared_t *shared, llm_entry_t *e,
    ngx_uint_t lost)
{
    ngx_atomic_t       *slot, *spare;
    ngx_atomic_uint_t   word;

    slot = ngx_http_llm_news_slot(shared, e->key, e->made, &spare);

    if (slot) {
        word = ngx_http_llm_news_made(e);
        (void) ngx_atomic_cmp_set(slot, word, word | NGX_HTTP_LLM_ARRIVED
                                         | (lost ? NGX_HTTP_LLM_LOST : 0));
    }
}


/* changes whenever something of the key does; 0: nothing is known */

ngx_atomic_uint_t
ngx_http_llm_news_word(ngx_http_llm_shared_t *shared, u_char *key)
{
    ngx_atomic_t  *slot, *spare;

    slot = ngx_http_llm_news_slot(shared, key, 0, &spare);

    return slot ? *slot : 0;
}


/*
 * When the answer to this question was last asked for afresh, as far as it is
 * known: ms, epoch; 0: not known.  *moving: the newest answer may be on its
 * way to the file.
 */

uint64_t
ngx_http_llm_news_get(ngx_http_llm_shared_t *shared, u_char *key,
    uint64_t now, ngx_uint_t *moving)
{
    int32_t             age;
    ngx_atomic_t       *slot, *spare;
    ngx_atomic_uint_t   value;

    *moving = 0;

    slot = ngx_http_llm_news_slot(shared, key, now, &spare);

    if (slot == NULL) {
        return 0;
    }

    value = *slot;

    if (value >> 32 != ngx_http_llm_news_half(key, 4)) {
        return 0;
    }

    /* the other workers' clocks may be ahead of ours */

    age = (int32_t) ((uint32_t) now - ngx_http_llm_news_time(value));

    if (age > NGX_HTTP_LLM_KNOWN || age < -NGX_HTTP_LLM_KNOWN) {
        return 0;
    }

    *moving = !(value & NGX_HTTP_LLM_ARRIVED)
              && age < NGX_HTTP_LLM_ON_ITS_WAY;

    return (value & NGX_HTTP_LLM_ALONE) ? now - age : 0;
}
