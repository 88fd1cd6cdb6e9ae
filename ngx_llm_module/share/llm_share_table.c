
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The table of who answers what.
 */


#include "share/llm_share_int.h"


static uint32_t llm_table_set(llm_share_t *sh, const u_char *key);
static pthread_mutex_t *llm_table_mutex(llm_share_t *sh, uint32_t set);
static llm_seat_t *llm_table_find(llm_worker_t *w, llm_seat_t *set,
    const u_char *key, llm_uint_t forms);
static llm_seat_t *llm_table_room(llm_worker_t *w, llm_seat_t *set);
static llm_uint_t llm_table_alive(llm_worker_t *w, llm_seat_t *seat);


llm_int_t
llm_table_enter(llm_worker_t *w, const u_char *key, llm_uint_t accept,
    llm_uint_t own, uint64_t flight, llm_place_t *place)
{
    uint32_t          n;
    llm_int_t         rc;
    llm_seat_t       *set, *seat;
    llm_share_t      *sh;
    pthread_mutex_t  *mutex;

    sh = w->share;
    n = llm_table_set(sh, key);
    set = &sh->seats[n * LLM_SHARE_WAYS];
    mutex = llm_table_mutex(sh, n);

    llm_mutex_lock(mutex);

    seat = llm_table_find(w, set, key, own);

    if (seat == NULL) {
        seat = llm_table_find(w, set, key, accept);
    }

    if (seat) {
        place->slot = seat->slot;
        place->form = seat->form;
        place->nonce = seat->nonce;
        place->flight = seat->flight;

        rc = LLM_AGAIN;
        goto done;
    }

    seat = llm_table_room(w, set);

    if (seat == NULL) {
        rc = LLM_DECLINED;
        goto done;
    }

    memcpy(seat->key, key, LLM_SHARE_KEY_LEN);
    seat->nonce = w->nonce;
    seat->flight = flight;
    seat->generation = w->generation;
    seat->slot = w->slot;
    seat->form = own;

    __atomic_store_n(&seat->live, 1, __ATOMIC_RELEASE);

    rc = LLM_OK;

done:

    (void) pthread_mutex_unlock(mutex);

    return rc;
}


void
llm_table_leave(llm_worker_t *w, const u_char *key, llm_uint_t form,
    uint64_t flight)
{
    uint32_t          i, n;
    llm_seat_t       *set;
    llm_share_t      *sh;
    pthread_mutex_t  *mutex;

    sh = w->share;
    n = llm_table_set(sh, key);
    set = &sh->seats[n * LLM_SHARE_WAYS];
    mutex = llm_table_mutex(sh, n);

    llm_mutex_lock(mutex);

    for (i = 0; i < LLM_SHARE_WAYS; i++) {
        if (set[i].live && set[i].nonce == w->nonce
            && set[i].flight == flight && set[i].form == form
            && memcmp(set[i].key, key, LLM_SHARE_KEY_LEN) == 0)
        {
            __atomic_store_n(&set[i].live, 0, __ATOMIC_RELEASE);
            break;
        }
    }

    (void) pthread_mutex_unlock(mutex);
}


/* keys are digests; the first bytes may be common to many */

static uint32_t
llm_table_set(llm_share_t *sh, const u_char *key)
{
    uint64_t  n;

    memcpy(&n, key + LLM_SHARE_KEY_LEN / 2, sizeof(uint64_t));

    return n % sh->nsets;
}


static pthread_mutex_t *
llm_table_mutex(llm_share_t *sh, uint32_t set)
{
    return &sh->stripes[set % LLM_SHARE_STRIPES].mutex;
}


static llm_seat_t *
llm_table_find(llm_worker_t *w, llm_seat_t *set, const u_char *key,
    llm_uint_t forms)
{
    uint32_t  i;

    for (i = 0; i < LLM_SHARE_WAYS; i++) {

        if (set[i].live && (set[i].form & forms)
            && set[i].generation == w->generation
            && memcmp(set[i].key, key, LLM_SHARE_KEY_LEN) == 0
            && llm_table_alive(w, &set[i]))
        {
            return &set[i];
        }
    }

    return NULL;
}


static llm_seat_t *
llm_table_room(llm_worker_t *w, llm_seat_t *set)
{
    uint32_t  i;

    for (i = 0; i < LLM_SHARE_WAYS; i++) {
        if (!set[i].live) {
            return &set[i];
        }
    }

    for (i = 0; i < LLM_SHARE_WAYS; i++) {
        if (!llm_table_alive(w, &set[i])) {
            return &set[i];
        }
    }

    return NULL;
}


/* that of a dead worker leaves the table here; what else it has left is
 * another one's affair, since a mutex of the table is held */

static llm_uint_t
llm_table_alive(llm_worker_t *w, llm_seat_t *seat)
{
    if (llm_slot_alive(w, seat->slot, seat->nonce, 0)) {
        return 1;
    }

    __atomic_store_n(&seat->live, 0, __ATOMIC_RELEASE);

    return 0;
}


/* a life is over */

void
llm_table_clean(llm_share_t *sh, uint64_t nonce)
{
    uint32_t          i, n;
    llm_seat_t       *set;
    pthread_mutex_t  *mutex;

    for (n = 0; n < sh->nsets; n++) {

        set = &sh->seats[n * LLM_SHARE_WAYS];

        for (i = 0; i < LLM_SHARE_WAYS; i++) {

            if (!__atomic_load_n(&set[i].live, __ATOMIC_ACQUIRE)) {
                continue;
            }

            mutex = llm_table_mutex(sh, n);

            llm_mutex_lock(mutex);

            if (set[i].live && set[i].nonce == nonce) {
                __atomic_store_n(&set[i].live, 0, __ATOMIC_RELEASE);
            }

            (void) pthread_mutex_unlock(mutex);
        }
    }
}
