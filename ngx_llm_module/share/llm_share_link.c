
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Links: a ring between two workers, and whose it is.
 */


#include "share/llm_share_int.h"


static u_char *llm_link_ring(llm_share_t *sh, llm_uint_t link);
static uint64_t llm_link_word(llm_worker_t *w, llm_uint_t link);
static llm_uint_t llm_link_find(llm_worker_t *w, uint32_t writer,
    llm_uint_t *link);


static u_char *
llm_link_ring(llm_share_t *sh, llm_uint_t link)
{
    return sh->rings + link * LLM_LINK_ROOM;
}


static uint64_t
llm_link_word(llm_worker_t *w, llm_uint_t link)
{
    return __atomic_load_n(&w->share->links[link].state, __ATOMIC_SEQ_CST);
}


void
llm_link_set(llm_worker_t *w, llm_uint_t link, void *own)
{
    uint32_t    last;
    llm_end_t  *end;

    end = &w->ends[link];

    end->own = own;

    if (own && end->place == 0) {
        w->list[w->nlist++] = link;
        end->place = w->nlist;
        return;
    }

    if (own == NULL && end->place) {
        last = w->list[--w->nlist];
        w->list[end->place - 1] = last;
        w->ends[last].place = end->place;
        end->place = 0;
    }
}


void *
llm_link_get(llm_worker_t *w, llm_uint_t link)
{
    return w->ends[link].own;
}


llm_uint_t
llm_link_mine(llm_worker_t *w, llm_uint_t link)
{
    return llm_state_writer(llm_link_word(w, link)) == w->slot;
}


/*
 * One end is let go of, if the link is still that of the pair that was seen,
 * and has that end.  1: it was done by this call.
 */

llm_uint_t
llm_link_drop(llm_share_t *sh, llm_uint_t link, uint64_t seen, uint64_t flag,
    uint64_t add)
{
    uint64_t  state, next, *word;

    word = &sh->links[link].state;
    state = __atomic_load_n(word, __ATOMIC_SEQ_CST);

    do {
        if (llm_state_pair(state) != llm_state_pair(seen) || !(state & flag)) {
            return 0;
        }

        next = (state | add) & ~flag;

        if (llm_state_free(next)) {
            next = llm_state_next(state);
        }

    } while (!__atomic_compare_exchange_n(word, &state, next, 0,
                                          __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));

    return 1;
}


/* the ends of a slot whose life is over */

void
llm_link_clean(llm_worker_t *w, uint32_t slot)
{
    uint32_t      i;
    uint64_t      state;
    llm_share_t  *sh;

    sh = w->share;

    for (i = 0; i < sh->nlinks; i++) {

        state = llm_link_word(w, i);

        if (llm_state_free(state)) {
            continue;
        }

        if (llm_state_writer(state) == slot
            && llm_link_drop(sh, i, state, LLM_STATE_WRITER, LLM_STATE_LOST))
        {
            llm_bell_ring(w, llm_state_reader(state), i);
        }

        if (llm_state_reader(state) == slot
            && llm_link_drop(sh, i, state, LLM_STATE_READER, 0))
        {
            llm_bell_ring(w, llm_state_writer(state), i);
        }
    }
}


/* does who has the other end still live? */

void
llm_link_check(llm_worker_t *w, llm_uint_t link)
{
    uint64_t      state, beat;
    llm_end_t    *end;
    llm_link_t   *l;
    llm_share_t  *sh;

    sh = w->share;
    l = &sh->links[link];
    end = &w->ends[link];

    state = llm_link_word(w, link);

    if (end->own == NULL) {
        return;
    }

    if (llm_state_writer(state) == w->slot) {

        if (!llm_slot_alive(w, llm_state_reader(state), l->reader, 1)) {
            (void) llm_link_drop(sh, link, state, LLM_STATE_READER, 0);
            llm_bell_ring(w, w->slot, link);
        }

        return;
    }

    if (!(state & LLM_STATE_WRITER)) {

        /* it is through; nothing more is wanted of it */

        return;
    }

    if (!llm_slot_alive(w, llm_state_writer(state), l->writer, 1)) {
        (void) llm_link_drop(sh, link, state, LLM_STATE_WRITER,
                             LLM_STATE_LOST);
        llm_bell_ring(w, w->slot, link);
        return;
    }

    beat = __atomic_load_n(&sh->slots[llm_state_writer(state)].beat,
                           __ATOMIC_RELAXED);

    if (beat != end->beat) {
        end->beat = beat;
        end->still = 0;

    } else if (++end->still >= LLM_SHARE_HUNG) {
        end->hung = 1;
    }
}


llm_int_t
llm_link_open(llm_worker_t *w, const llm_place_t *place, llm_uint_t *link)
{
    uint64_t      state, *word;
    llm_end_t    *end;
    llm_link_t   *l;
    llm_share_t  *sh;

    sh = w->share;

    if (!llm_link_find(w, place->slot, link)) {
        return LLM_DECLINED;
    }

    l = &sh->links[*link];
    end = &w->ends[*link];

    end->put = 0;
    end->still = 0;
    end->hung = 0;
    end->beat = __atomic_load_n(&sh->slots[place->slot].beat,
                                __ATOMIC_RELAXED);

    __atomic_store_n(&l->flight, place->flight, __ATOMIC_SEQ_CST);
    __atomic_store_n(&l->writer, place->nonce, __ATOMIC_SEQ_CST);
    __atomic_store_n(&l->reader, w->nonce, __ATOMIC_SEQ_CST);

    __atomic_store_n(&l->head, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&l->tail, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&l->full, 0, __ATOMIC_RELAXED);

    word = &l->state;
    state = __atomic_load_n(word, __ATOMIC_SEQ_CST);

    /* the writer's slot may have been cleaned up meanwhile */

    while ((state & LLM_STATE_WRITER)
           && !__atomic_compare_exchange_n(word, &state,
                                           state | LLM_STATE_ASKED, 0,
                                           __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST))
    {
        /* void */
    }

    llm_bell_ring(w, place->slot, *link);

    return LLM_OK;
}


/* 1: *link is free no more, both of its ends are held */

static llm_uint_t
llm_link_find(llm_worker_t *w, uint32_t writer, llm_uint_t *link)
{
    uint32_t      i, n;
    uint64_t      state;
    llm_share_t  *sh;

    sh = w->share;
    n = w->hint;

    for (i = 0; i < sh->nlinks; i++, n++) {

        if (n >= sh->nlinks) {
            n = 0;
        }

        state = __atomic_load_n(&sh->links[n].state, __ATOMIC_SEQ_CST);

        if (llm_state_free(state)
            && __atomic_compare_exchange_n(&sh->links[n].state, &state,
                                           llm_state_make(state, writer,
                                                          w->slot),
                                           0, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST))
        {
            *link = n;

            /* the one that is free soonest again is the warmest */

            w->hint = n;

            return 1;
        }
    }

    return 0;
}


size_t
llm_link_read(llm_worker_t *w, llm_uint_t link, u_char *buf, size_t size)
{
    size_t       at, part;
    u_char      *ring;
    uint64_t     head, tail;
    llm_link_t  *l;

    l = &w->share->links[link];
    ring = llm_link_ring(w->share, link);

    tail = l->tail;
    head = __atomic_load_n(&l->head, __ATOMIC_ACQUIRE);

    if (size > head - tail) {
        size = head - tail;
    }

    if (size == 0 || w->ends[link].hung) {
        return 0;
    }

    at = tail % LLM_LINK_ROOM;
    part = LLM_LINK_ROOM - at;

    if (part > size) {
        part = size;
    }

    memcpy(buf, ring + at, part);
    memcpy(buf + part, ring, size - part);

    __atomic_store_n(&l->tail, tail + size, __ATOMIC_SEQ_CST);

    if (__atomic_load_n(&l->full, __ATOMIC_SEQ_CST)
        && __atomic_exchange_n(&l->full, 0, __ATOMIC_SEQ_CST))
    {
        llm_bell_ring(w, llm_state_writer(llm_link_word(w, link)), link);
    }

    return size;
}


llm_link_e
llm_link_state(llm_worker_t *w, llm_uint_t link)
{
    uint64_t     state;
    llm_link_t  *l;

    if (w->ends[link].hung) {
        return LLM_LINK_LOST;
    }

    l = &w->share->links[link];

    state = llm_link_word(w, link);

    /* in this order: what a writer has put in before it let go is seen */

    if ((state & LLM_STATE_WRITER)
        || __atomic_load_n(&l->head, __ATOMIC_ACQUIRE) != l->tail)
    {
        return LLM_LINK_OPEN;
    }

    if (state & LLM_STATE_REFUSED) {
        return LLM_LINK_REFUSED;
    }

    return (state & LLM_STATE_LOST) ? LLM_LINK_LOST : LLM_LINK_DONE;
}


void
llm_link_close(llm_worker_t *w, llm_uint_t link)
{
    uint64_t  state;

    state = llm_link_word(w, link);

    llm_link_set(w, link, NULL);
    w->ends[link].hung = 0;

    if (llm_link_drop(w->share, link, state, LLM_STATE_READER, 0)
        && (state & LLM_STATE_WRITER))
    {
        llm_bell_ring(w, llm_state_writer(state), link);
    }
}


uint64_t
llm_link_wanted(llm_worker_t *w, llm_uint_t link)
{
    uint64_t     state, flight, writer;
    llm_link_t  *l;

    l = &w->share->links[link];

    do {
        state = llm_link_word(w, link);

        if (!(state & LLM_STATE_WRITER) || llm_state_writer(state) != w->slot)
        {
            return 0;
        }

        if (!(state & LLM_STATE_READER)) {
            (void) llm_link_drop(w->share, link, state, LLM_STATE_WRITER, 0);
            return 0;
        }

        if (!(state & LLM_STATE_ASKED)) {
            return 0;
        }

        flight = __atomic_load_n(&l->flight, __ATOMIC_SEQ_CST);
        writer = __atomic_load_n(&l->writer, __ATOMIC_SEQ_CST);

        /* a reader that has found its writer dead may have let go of this end,
         * and the link be another's that is just filled in */

    } while (llm_link_word(w, link) != state);

    if (writer != w->nonce) {

        /* it was meant for who lived here before */

        if (llm_link_drop(w->share, link, state, LLM_STATE_WRITER,
                          LLM_STATE_REFUSED))
        {
            llm_bell_ring(w, llm_state_reader(state), link);
        }

        return 0;
    }

    w->ends[link].put = 0;

    return flight;
}


size_t
llm_link_write(llm_worker_t *w, llm_uint_t link, const u_char *p, size_t size)
{
    size_t       at, part, room;
    u_char      *ring;
    uint64_t     put;
    llm_link_t  *l;

    l = &w->share->links[link];
    ring = llm_link_ring(w->share, link);
    put = w->ends[link].put;

    room = LLM_LINK_ROOM - (put - __atomic_load_n(&l->tail, __ATOMIC_ACQUIRE));

    if (room < size) {

        __atomic_store_n(&l->full, 1, __ATOMIC_SEQ_CST);

        room = LLM_LINK_ROOM
               - (put - __atomic_load_n(&l->tail, __ATOMIC_SEQ_CST));

        if (room < size) {
            size = room;
        }
    }

    at = put % LLM_LINK_ROOM;
    part = LLM_LINK_ROOM - at;

    if (part > size) {
        part = size;
    }

    memcpy(ring + at, p, part);
    memcpy(ring, p + part, size - part);

    w->ends[link].put = put + size;

    return size;
}


void
llm_link_flush(llm_worker_t *w, llm_uint_t link)
{
    llm_link_t  *l;

    l = &w->share->links[link];

    if (l->head == w->ends[link].put) {
        return;
    }

    __atomic_store_n(&l->head, w->ends[link].put, __ATOMIC_SEQ_CST);

    llm_bell_ring(w, llm_state_reader(llm_link_word(w, link)), link);
}


llm_uint_t
llm_link_gone(llm_worker_t *w, llm_uint_t link)
{
    return !(llm_link_word(w, link) & LLM_STATE_READER);
}


void
llm_link_end(llm_worker_t *w, llm_uint_t link, llm_link_e how)
{
    uint64_t  state, add;

    state = llm_link_word(w, link);

    if (how == LLM_LINK_REFUSED) {
        add = LLM_STATE_REFUSED;

    } else {
        __atomic_store_n(&w->share->links[link].head, w->ends[link].put,
                         __ATOMIC_SEQ_CST);

        add = (how == LLM_LINK_LOST) ? LLM_STATE_LOST : 0;
    }

    llm_link_set(w, link, NULL);

    if (llm_link_drop(w->share, link, state, LLM_STATE_WRITER, add)) {
        llm_bell_ring(w, llm_state_reader(state), link);
    }
}
