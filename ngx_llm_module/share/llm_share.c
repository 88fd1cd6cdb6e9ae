
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The layout of what workers share, and the mutexes in it.
 */


#include "share/llm_share_int.h"


#define LLM_SHARE_SLOTS_MIN  16


static void *llm_share_take(u_char **p, size_t size);


llm_share_t *
llm_share_create(void *mem, size_t size)
{
    size_t        room;
    u_char       *p, *last;
    uint32_t      i;
    llm_share_t  *sh;

    if (size < LLM_SHARE_MIN) {
        return NULL;
    }

    p = mem;
    last = p + size;

    sh = llm_share_take(&p, sizeof(llm_share_t));

    sh->layout = LLM_SHARE_LAYOUT;

    /* a sixteenth for slots, bells included; as much for the table */

    room = size / 16;

    sh->nlinks = size / (LLM_LINK_ROOM + sizeof(llm_link_t));

    if (sh->nlinks > LLM_SHARE_LINKS) {
        sh->nlinks = LLM_SHARE_LINKS;
    }

    sh->nwords = (sh->nlinks + 63) / 64;
    sh->nslots = room / (sizeof(llm_slot_t) + sh->nwords * sizeof(uint64_t));

    if (sh->nslots > LLM_SHARE_SLOTS) {
        sh->nslots = LLM_SHARE_SLOTS;
    }

    if (sh->nslots < LLM_SHARE_SLOTS_MIN) {
        sh->nslots = LLM_SHARE_SLOTS_MIN;
    }

    sh->nsets = room / (LLM_SHARE_WAYS * sizeof(llm_seat_t));

    sh->slots = llm_share_take(&p, sh->nslots * sizeof(llm_slot_t));
    sh->bells = llm_share_take(&p, sh->nslots * sh->nwords * sizeof(uint64_t));
    sh->stripes = llm_share_take(&p, LLM_SHARE_STRIPES * sizeof(llm_stripe_t));
    sh->seats = llm_share_take(&p, sh->nsets * LLM_SHARE_WAYS
                                   * sizeof(llm_seat_t));

    /* rings begin at a page, so that one which is not used takes no memory */

    if (last - p < 4096) {
        return NULL;
    }

    room = (last - p - 4096) / (LLM_LINK_ROOM + sizeof(llm_link_t));

    if (room < sh->nlinks) {
        sh->nlinks = room;
    }

    if (sh->nlinks == 0) {
        return NULL;
    }

    sh->links = llm_share_take(&p, sh->nlinks * sizeof(llm_link_t));
    sh->rings = (u_char *) (((uintptr_t) p + 4095) & ~(uintptr_t) 4095);

    for (i = 0; i < sh->nslots; i++) {
        if (llm_mutex_init(&sh->slots[i].life) != LLM_OK) {
            return NULL;
        }
    }

    for (i = 0; i < LLM_SHARE_STRIPES; i++) {
        if (llm_mutex_init(&sh->stripes[i].mutex) != LLM_OK) {
            return NULL;
        }
    }

    return sh;
}


static void *
llm_share_take(u_char **p, size_t size)
{
    u_char  *taken;

    taken = *p;
    size = (size + LLM_SHARE_LINE - 1) & ~(size_t) (LLM_SHARE_LINE - 1);

    *p += size;

    return memset(taken, 0, size);
}


void
llm_share_stat(llm_share_t *sh, llm_share_stat_t *st)
{
    uint32_t  i;

    memset(st, 0, sizeof(llm_share_stat_t));

    st->slots = sh->nslots;
    st->entries = sh->nsets * LLM_SHARE_WAYS;
    st->links = sh->nlinks;

    for (i = 0; i < st->slots; i++) {
        if (__atomic_load_n(&sh->slots[i].nonce, __ATOMIC_RELAXED)) {
            st->workers++;
        }
    }

    for (i = 0; i < st->entries; i++) {
        if (__atomic_load_n(&sh->seats[i].live, __ATOMIC_RELAXED)) {
            st->flights++;
        }
    }

    for (i = 0; i < st->links; i++) {
        if (!llm_state_free(__atomic_load_n(&sh->links[i].state,
                                            __ATOMIC_RELAXED)))
        {
            st->linked++;
        }
    }
}


llm_int_t
llm_mutex_init(pthread_mutex_t *mutex)
{
    llm_int_t            rc;
    pthread_mutexattr_t  attr;

    if (pthread_mutexattr_init(&attr) != 0) {
        return LLM_ERROR;
    }

    rc = LLM_ERROR;

    if (pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0
        && pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0
        && pthread_mutex_init(mutex, &attr) == 0)
    {
        rc = LLM_OK;
    }

    (void) pthread_mutexattr_destroy(&attr);

    return rc;
}


/* 1: it is ours, be it that nobody had it or that who had it is dead */

llm_uint_t
llm_mutex_trylock(pthread_mutex_t *mutex)
{
    int  rc;

    rc = pthread_mutex_trylock(mutex);

    if (rc == EOWNERDEAD) {
        (void) pthread_mutex_consistent(mutex);
        return 1;
    }

    return rc == 0;
}


void
llm_mutex_lock(pthread_mutex_t *mutex)
{
    if (pthread_mutex_lock(mutex) == EOWNERDEAD) {

        /* nothing is half done that would matter */

        (void) pthread_mutex_consistent(mutex);
    }
}
