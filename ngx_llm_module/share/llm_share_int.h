
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the files of share/ have in common: the words in shared memory, and a
 * worker's own part.
 */


#ifndef _LLM_SHARE_INT_H_INCLUDED_
#define _LLM_SHARE_INT_H_INCLUDED_


#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "share/llm_share.h"


#define LLM_SHARE_LINE     64
#define LLM_SHARE_WAYS     8           /* entries of a set */
#define LLM_SHARE_STRIPES  64          /* mutexes of the table */


/* a link's state: incarnation << 32 | writer << 22 | reader << 12 | flags */

#define LLM_STATE_WRITER   0x01
#define LLM_STATE_READER   0x02
#define LLM_STATE_ASKED    0x04
#define LLM_STATE_REFUSED  0x08
#define LLM_STATE_LOST     0x10

#define llm_state_writer(s)  (((s) >> 22) & 0x3ff)
#define llm_state_reader(s)  (((s) >> 12) & 0x3ff)
#define llm_state_pair(s)    ((s) & ~(uint64_t) 0xfff)
#define llm_state_next(s)    ((((s) >> 32) + 1) << 32)
#define llm_state_free(s)    (((s) & (LLM_STATE_WRITER|LLM_STATE_READER)) == 0)

#define llm_state_make(s, writer, reader)                                     \
    ((((s) >> 32) << 32) | (uint64_t) (writer) << 22                          \
     | (uint64_t) (reader) << 12 | LLM_STATE_WRITER | LLM_STATE_READER)


typedef struct {
    pthread_mutex_t        life;       /* held by who lives in it */
    uint64_t               nonce;      /* 0: free */
    uint32_t               generation;
    uint32_t               index;
    uint64_t               beat;
    uint32_t               ringing;
} __attribute__((aligned(LLM_SHARE_LINE))) llm_slot_t;


typedef struct {
    u_char                 key[LLM_SHARE_KEY_LEN];
    uint64_t               nonce;
    uint64_t               flight;
    uint32_t               generation;
    uint16_t               slot;
    uint8_t                form;
    uint8_t                live;       /* written last */
} __attribute__((aligned(LLM_SHARE_LINE))) llm_seat_t;


typedef struct {
    pthread_mutex_t        mutex;
} __attribute__((aligned(LLM_SHARE_LINE))) llm_stripe_t;


/* what the reader writes stands apart from what the writer writes */

typedef struct {
    uint64_t               state;
    uint64_t               flight;
    uint64_t               writer;     /* nonces */
    uint64_t               reader;
    uint64_t               head;
    uint32_t               full;

    uint64_t               tail __attribute__((aligned(LLM_SHARE_LINE)));
} __attribute__((aligned(LLM_SHARE_LINE))) llm_link_t;


struct llm_share_s {
    uint32_t               layout;
    uint32_t               nslots;
    uint32_t               nsets;
    uint32_t               nlinks;
    uint32_t               nwords;     /* of a slot's bells */
    uint64_t               nonce;      /* the last one */

    llm_slot_t            *slots;
    uint64_t              *bells;      /* nwords for each slot */
    llm_stripe_t          *stripes;
    llm_seat_t            *seats;
    llm_link_t            *links;
    u_char                *rings;
};


/* of a link, in one worker */

typedef struct {
    void                  *own;
    uint64_t               put;        /* head, with what is not flushed */
    uint64_t               beat;       /* the writer's, when last looked */
    uint32_t               place;      /* in the list, from 1; 0: not there */
    uint16_t               still;      /* ticks without a new beat */
    uint16_t               hung;
} llm_end_t;


struct llm_worker_s {
    llm_share_t           *share;
    uint64_t               nonce;
    uint32_t               slot;
    uint32_t               generation;
    uint32_t               hint;       /* where a free link may be */
    uint32_t               nlist;
    uint32_t              *list;       /* links that are somebody's here */
    uint32_t              *copy;       /* of it, while it changes */
    llm_end_t             *ends;
    llm_share_wake_pt      wake;
    void                  *data;
};


llm_int_t llm_mutex_init(pthread_mutex_t *mutex);
llm_uint_t llm_mutex_trylock(pthread_mutex_t *mutex);
void llm_mutex_lock(pthread_mutex_t *mutex);

void llm_bell_ring(llm_worker_t *w, uint32_t slot, llm_uint_t link);
void llm_bell_reset(llm_worker_t *w);

llm_uint_t llm_slot_alive(llm_worker_t *w, uint32_t slot, uint64_t nonce,
    llm_uint_t clean);
void llm_slot_clean(llm_worker_t *w, uint32_t slot);

void llm_table_clean(llm_share_t *sh, uint64_t nonce);

llm_uint_t llm_link_drop(llm_share_t *sh, llm_uint_t link, uint64_t seen,
    uint64_t flag, uint64_t add);
void llm_link_clean(llm_worker_t *w, uint32_t slot);
void llm_link_check(llm_worker_t *w, llm_uint_t link);


#endif /* _LLM_SHARE_INT_H_INCLUDED_ */
