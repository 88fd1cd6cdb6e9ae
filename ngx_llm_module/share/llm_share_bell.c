
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Bells: how a worker learns which of its links have something for it.
 */


#include "share/llm_share_int.h"


static void llm_bell_look(llm_worker_t *w, llm_uint_t link,
    llm_share_link_pt handler, void *data);


/* there is something to look at, for who lives in the slot */

void
llm_bell_ring(llm_worker_t *w, uint32_t slot, llm_uint_t link)
{
    uint64_t     *word;
    llm_slot_t   *s;
    llm_share_t  *sh;

    sh = w->share;
    s = &sh->slots[slot];

    word = &sh->bells[slot * sh->nwords + link / 64];

    (void) __atomic_fetch_or(word, (uint64_t) 1 << (link % 64),
                             __ATOMIC_SEQ_CST);

    /* an index says something only among those of one configuration; the
     * others find the bit when they look next */

    if (__atomic_load_n(&s->generation, __ATOMIC_RELAXED) != w->generation
        || __atomic_load_n(&s->nonce, __ATOMIC_SEQ_CST) == 0)
    {
        return;
    }

    if (__atomic_exchange_n(&s->ringing, 1, __ATOMIC_SEQ_CST) == 0) {
        w->wake(w->data, __atomic_load_n(&s->index, __ATOMIC_RELAXED));
    }
}


/* a life begins: what was rung for the one before is not known */

void
llm_bell_reset(llm_worker_t *w)
{
    uint32_t      i;
    uint64_t      state;
    llm_share_t  *sh;

    sh = w->share;

    __atomic_store_n(&sh->slots[w->slot].ringing, 0, __ATOMIC_SEQ_CST);

    for (i = 0; i < sh->nlinks; i++) {

        state = __atomic_load_n(&sh->links[i].state, __ATOMIC_SEQ_CST);

        if (!llm_state_free(state)
            && (llm_state_writer(state) == w->slot
                || llm_state_reader(state) == w->slot))
        {
            llm_bell_ring(w, w->slot, i);
        }
    }
}


void
llm_worker_bells(llm_worker_t *w, llm_share_link_pt handler, void *data)
{
    uint32_t      i;
    uint64_t      bits, *word;
    llm_uint_t    link;
    llm_share_t  *sh;

    sh = w->share;
    word = &sh->bells[w->slot * sh->nwords];

    /* first this: who rings from now on wakes again */

    __atomic_store_n(&sh->slots[w->slot].ringing, 0, __ATOMIC_SEQ_CST);

    for (i = 0; i < sh->nwords; i++) {

        if (__atomic_load_n(&word[i], __ATOMIC_SEQ_CST) == 0) {
            continue;
        }

        bits = __atomic_exchange_n(&word[i], 0, __ATOMIC_SEQ_CST);

        while (bits) {
            link = i * 64 + __builtin_ctzll(bits);
            bits &= bits - 1;

            llm_bell_look(w, link, handler, data);
        }
    }
}


static void
llm_bell_look(llm_worker_t *w, llm_uint_t link, llm_share_link_pt handler,
    void *data)
{
    uint64_t  state;

    state = __atomic_load_n(&w->share->links[link].state, __ATOMIC_SEQ_CST);

    if (w->ends[link].own) {
        handler(data, link);
        return;
    }

    if (!(state & LLM_STATE_WRITER) || llm_state_writer(state) != w->slot) {
        return;
    }

    if (!(state & LLM_STATE_READER)) {

        /* the reader has died before anything came of it */

        (void) llm_link_drop(w->share, link, state, LLM_STATE_WRITER, 0);

    } else if (state & LLM_STATE_ASKED) {
        handler(data, link);
    }
}
