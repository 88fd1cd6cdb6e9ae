
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Workers: a life in a slot, and what is done after it.
 */


#include "share/llm_share_int.h"


static llm_int_t llm_worker_slot(llm_worker_t *w, uint32_t generation,
    uint32_t index);
static void llm_worker_free(llm_worker_t *w);


llm_int_t
llm_worker_start(llm_share_t *sh, uint32_t generation, uint32_t index,
    llm_share_wake_pt wake, void *data, llm_worker_t **worker)
{
    llm_worker_t  *w;

    w = calloc(1, sizeof(llm_worker_t));
    if (w == NULL) {
        return LLM_ERROR;
    }

    w->share = sh;
    w->generation = generation;
    w->wake = wake;
    w->data = data;

    w->ends = calloc(sh->nlinks, sizeof(llm_end_t));
    w->list = calloc(sh->nlinks, sizeof(uint32_t));
    w->copy = calloc(sh->nlinks, sizeof(uint32_t));

    if (w->ends == NULL || w->list == NULL || w->copy == NULL) {
        llm_worker_free(w);
        return LLM_ERROR;
    }

    if (llm_worker_slot(w, generation, index) != LLM_OK) {
        llm_worker_free(w);
        return LLM_DECLINED;
    }

    /* not all of them begin to look at the same place */

    w->hint = (uint64_t) w->slot * sh->nlinks / sh->nslots;

    *worker = w;

    llm_bell_reset(w);

    return LLM_OK;
}


static llm_int_t
llm_worker_slot(llm_worker_t *w, uint32_t generation, uint32_t index)
{
    uint32_t      i;
    llm_int_t     rc;
    llm_slot_t   *slot;
    llm_share_t  *sh;

    sh = w->share;
    rc = LLM_DECLINED;
    w->slot = sh->nslots;

    for (i = 0; i < sh->nslots; i++) {

        slot = &sh->slots[i];

        if (!llm_mutex_trylock(&slot->life)) {
            continue;
        }

        if (slot->nonce) {
            llm_slot_clean(w, i);
        }

        if (rc == LLM_OK) {
            (void) pthread_mutex_unlock(&slot->life);
            continue;
        }

        rc = LLM_OK;

        w->slot = i;
        w->nonce = __atomic_add_fetch(&sh->nonce, 1, __ATOMIC_SEQ_CST);

        __atomic_store_n(&slot->generation, generation, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->index, index, __ATOMIC_RELAXED);
        __atomic_store_n(&slot->nonce, w->nonce, __ATOMIC_SEQ_CST);
    }

    return rc;
}


void
llm_worker_stop(llm_worker_t *w)
{
    llm_slot_clean(w, w->slot);

    (void) pthread_mutex_unlock(&w->share->slots[w->slot].life);

    llm_worker_free(w);
}


static void
llm_worker_free(llm_worker_t *w)
{
    free(w->ends);
    free(w->list);
    free(w->copy);
    free(w);
}


/*
 * Does this life go on?  With clean what a dead one has left is cleaned up;
 * not while a mutex of the table is held.
 */

llm_uint_t
llm_slot_alive(llm_worker_t *w, uint32_t slot, uint64_t nonce,
    llm_uint_t clean)
{
    llm_slot_t  *s;

    s = &w->share->slots[slot];

    if (__atomic_load_n(&s->nonce, __ATOMIC_SEQ_CST) != nonce) {
        return 0;
    }

    if (slot == w->slot || !llm_mutex_trylock(&s->life)) {
        return __atomic_load_n(&s->nonce, __ATOMIC_SEQ_CST) == nonce;
    }

    if (clean && s->nonce) {
        llm_slot_clean(w, slot);
    }

    (void) pthread_mutex_unlock(&s->life);

    return 0;
}


/* after a life, by who has the slot's mutex; may be done twice */

void
llm_slot_clean(llm_worker_t *w, uint32_t slot)
{
    llm_slot_t  *s;

    s = &w->share->slots[slot];

    llm_table_clean(w->share, s->nonce);
    llm_link_clean(w, slot);

    __atomic_store_n(&s->nonce, 0, __ATOMIC_SEQ_CST);
}


llm_uint_t
llm_worker_links(llm_worker_t *w)
{
    return w->nlist;
}


void
llm_worker_tick(llm_worker_t *w, llm_share_link_pt handler, void *data)
{
    uint32_t     i, n;
    llm_link_t  *l;

    (void) __atomic_add_fetch(&w->share->slots[w->slot].beat, 1,
                              __ATOMIC_RELAXED);

    n = w->nlist;
    memcpy(w->copy, w->list, n * sizeof(uint32_t));

    for (i = 0; i < n; i++) {

        l = &w->share->links[w->copy[i]];

        /* what it finds, it rings for */

        llm_link_check(w, l - w->share->links);

        if (w->ends[w->copy[i]].hung && w->ends[w->copy[i]].own) {
            handler(data, w->copy[i]);
        }
    }

    llm_worker_bells(w, handler, data);
}
