
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the workers of one nginx share of calls in the air, in memory that all
 * of them have mapped at the same address: who is alive (slots), which key is
 * being answered by whom (the table), and how an answer gets from the worker
 * that receives it to another one that has readers for it (links).  Plain C,
 * no nginx header, no I/O, no clock: the caller wakes, and tells the time by
 * calling llm_share_tick().
 *
 * Any process may be killed at any moment, between any two instructions.
 * Nothing that another one needs is left half done by that: what is shared is
 * words that change one by one, memory that has one writer, and tables under a
 * robust mutex whose entries count from the moment their last word is written.
 *
 *
 * Slots.  A worker takes a slot when it starts and holds the slot's robust
 * mutex as long as it lives.  So "is it alive?" has an exact answer that needs
 * neither its pid nor a clock: the kernel gives the mutex away when a process
 * dies (EOWNERDEAD), and a mutex that is busy has a living owner.  Who finds a
 * slot whose owner is dead has the mutex then and cleans up: the dead one's
 * entries leave the table; of each of its links the end it had is let go
 * (LOST if it was the writer's), and the other end's worker is told; at last
 * nonce = 0: the slot is free.  A cleaner that dies in the middle leaves a
 * nonce that is not 0 with a mutex that can be had: the next one begins anew.
 * All steps may be done twice.
 *
 * nonce names one worker's life in one slot: it is never used again.
 *
 *
 * The table.  An entry says: this key, in this form, is being answered by the
 * flight FLIGHT of the worker NONCE in slot SLOT.  Entering is under the mutex
 * of the key's set: who finds no one is entered, so of all who ask at once one
 * leads.  Only workers of one generation (configuration) see each other's
 * entries.  An entry whose owner is dead is as good as none.
 *
 *
 * Links.  A link carries the bytes of one flight from one worker (the writer,
 * which has the provider's answer) to one other (the reader): a ring of fixed
 * size with one who writes and one who reads, two counters that only grow.
 * `state` is one word:
 *
 *     incarnation (32 bits) | writer's slot | reader's slot | flags
 *
 *     WRITER   the writer's end is held     READER   the reader's end is held
 *     ASKED    the reader has filled in what it wants
 *     REFUSED  the writer has no such flight (any more)
 *     LOST     the writer is gone before it was through
 *
 *   free -> WRITER|READER      by the reader, one CAS: the link is its own
 *        -> ... |ASKED         by the reader, once flight, nonce, head = tail
 *                              = 0 are written; then it rings the writer
 *   WRITER is dropped          by the writer (through: what is in the ring is
 *                              whole; with REFUSED; with LOST), or with LOST by
 *                              the cleaner of the writer's slot, or by the
 *                              reader itself if it has found that slot free or
 *                              another's
 *   READER is dropped          by the reader, or by the cleaner of its slot
 *   the last of both           -> free, incarnation + 1
 *
 * Every change is a CAS of the whole word from what was seen, so nobody
 * changes a link that has become another one.  Who holds an end may use the
 * ring; a link becomes free only when nobody does.  head is written by the
 * writer alone, tail by the reader alone; bytes are written before head (release)
 * and read after it (acquire), and the same for tail.
 *
 * A writer without ASKED knows nothing of a link and leaves it alone, unless
 * READER is not held (the reader died while it filled it in): then it drops
 * WRITER.
 *
 * What the reader has filled in counts only if the state is the same before and
 * after it was read: a reader that has found its writer dead may have let go of
 * both ends, and the link be another's already.  (The model has found this.)
 *
 * A writer that finds the ring full sets `full`, then looks at tail once more
 * (both sequentially consistent); a reader that has moved tail looks at `full`
 * after that, and if it is set clears it and rings.  Neither can miss the
 * other.
 *
 *
 * Bells.  Each slot has a bit for each link, and a word `ringing`.  To ring: set
 * the bit of the link; exchange ringing with 1; if it was 0, wake the worker
 * (a write to its eventfd, by the caller's function).  Who is woken: sets
 * ringing to 0 first, then takes the bits (exchange with 0), and looks at each
 * of these links.  A bit that is set after it was looked at finds ringing 0
 * and wakes again.  A bit may be set for nothing; each look finds out from the
 * link's own words what there is to do.  Bells belong to the slot, not to the
 * life in it: a worker that takes a slot looks at all links once.
 *
 * t/share/model_*.pml are this protocol as models, checked by spin.
 */


#ifndef _LLM_SHARE_H_INCLUDED_
#define _LLM_SHARE_H_INCLUDED_


#include "core/llm.h"


#define LLM_SHARE_LAYOUT    1

#define LLM_SHARE_KEY_LEN   32
#define LLM_SHARE_SLOTS     512        /* at most */
#define LLM_SHARE_LINKS     65536      /* at most */
#define LLM_SHARE_MIN       (32 * 1024)    /* the least memory: 16 slots, some
                                              entries, two links or more */

#define LLM_LINK_ROOM       8192       /* bytes of a ring, which takes no memory
                                          until it is used; and there are 128
                                          bytes of words */

#define LLM_SHARE_HUNG      20         /* ticks in which a writer's beat did not
                                          change: it is as good as dead */


typedef struct llm_share_s   llm_share_t;      /* in shared memory */
typedef struct llm_worker_s  llm_worker_t;     /* one process' part, its heap */


/* forms of an answer, bits */

#define LLM_FORM_PLAIN   0x01
#define LLM_FORM_STREAM  0x02


/* a flight in another worker */

typedef struct {
    uint32_t               slot;
    uint32_t               form;       /* one of the bits */
    uint64_t               nonce;      /* of the worker */
    uint64_t               flight;     /* its name there: not 0 */
} llm_place_t;


typedef struct {
    uint32_t               slots;      /* there are */
    uint32_t               workers;    /* slots that are taken */
    uint32_t               entries;    /* there are */
    uint32_t               flights;    /* entries that are taken */
    uint32_t               links;      /* there are */
    uint32_t               linked;     /* that are not free */
} llm_share_stat_t;


/* wakes the worker with this index (in the configuration that is common to
 * both); must not block */

typedef void (*llm_share_wake_pt)(void *data, uint32_t index);

/* there may be something to do about a link */

typedef void (*llm_share_link_pt)(void *data, llm_uint_t link);


/* ------------------------------------------------------------------ share */

/*
 * Lays out size bytes at mem (aligned to a page), which all processes will have at
 * this address; a sixteenth for slots and bells, as much for the table, the
 * rest is links.  The rings are not touched.  Once, before there are others.
 * NULL: too small, or no mutex to be had.
 */
llm_share_t *llm_share_create(void *mem, size_t size);

void llm_share_stat(llm_share_t *sh, llm_share_stat_t *st);


/* ----------------------------------------------------------------- worker */

/*
 * Takes a slot, cleaning up after the dead; called in the process and thread
 * that will do all the rest.  index < 65536.  LLM_DECLINED: no slot is free;
 * LLM_ERROR: no memory.
 */
llm_int_t llm_worker_start(llm_share_t *sh, uint32_t generation,
    uint32_t index, llm_share_wake_pt wake, void *data, llm_worker_t **w);

/*
 * Gives the slot up: as if it died, but at once.  w is freed.
 */
void llm_worker_stop(llm_worker_t *w);

/*
 * The worker was woken, or has a moment: looks at its bells; handler is called
 * for each link that rang and whose one end is this worker's.  The handler may
 * call everything here but these two functions.
 */
void llm_worker_bells(llm_worker_t *w, llm_share_link_pt handler, void *data);

/*
 * About twice a second, as long as this worker has a link: shows that it is
 * not hung, looks after other workers (of those it has links with: are they
 * dead? has the writer's beat not changed for LLM_SHARE_HUNG ticks of ours?),
 * and does what llm_worker_bells() does.  A link whose writer is hung is
 * reported as LLM_LINK_LOST from then on.
 */
void llm_worker_tick(llm_worker_t *w, llm_share_link_pt handler, void *data);

/* links this worker has an end of: is a tick needed? */
llm_uint_t llm_worker_links(llm_worker_t *w);

/* the caller's own of a link, NULL at first and once the end is let go */
void llm_link_set(llm_worker_t *w, llm_uint_t link, void *own);
void *llm_link_get(llm_worker_t *w, llm_uint_t link);


/* ------------------------------------------------------------------ table */

/*
 * Who answers this key in one of the forms of `accept` (own form first)?
 *   LLM_OK        nobody does: this worker from now on, as `flight`, in the
 *                 form `own`
 *   LLM_AGAIN     *place does, a living worker's
 *   LLM_DECLINED  nobody does, but there is no room in the table
 * `accept` has the bit of `own`.  flight: chosen by the caller, not 0, never
 * used twice in a worker's life.
 */
llm_int_t llm_table_enter(llm_worker_t *w, const u_char *key,
    llm_uint_t accept, llm_uint_t own, uint64_t flight, llm_place_t *place);

/* no longer; nothing happens if it was not there */
void llm_table_leave(llm_worker_t *w, const u_char *key, llm_uint_t form,
    uint64_t flight);


/* ------------------------------------------------------ links, the reader */

/* LLM_OK: *link is asked for, LLM_DECLINED: all are in use */
llm_int_t llm_link_open(llm_worker_t *w, const llm_place_t *place,
    llm_uint_t *link);

/*
 * Takes at most size bytes out of the ring, in order; 0: there are none now.
 */
size_t llm_link_read(llm_worker_t *w, llm_uint_t link, u_char *buf,
    size_t size);

typedef enum {
    LLM_LINK_OPEN = 0,         /* more may come */
    LLM_LINK_DONE,             /* the writer is through, the ring is empty */
    LLM_LINK_REFUSED,
    LLM_LINK_LOST              /* what was read is all there will be; bytes
                                  still in the ring can be read before that is
                                  said, unless the writer is hung */
} llm_link_e;

llm_link_e llm_link_state(llm_worker_t *w, llm_uint_t link);

/* lets go; the link is another's from now on */
void llm_link_close(llm_worker_t *w, llm_uint_t link);


/* ------------------------------------------------------ links, the writer */

/* is this worker the writer of the link?  else it is its reader */
llm_uint_t llm_link_mine(llm_worker_t *w, llm_uint_t link);

/*
 * A link that is asked for and not known yet (llm_link_get() is NULL): the
 * flight that is wanted of this worker.  0: nothing is, any more; what there
 * was to be let go of was let go of.
 */
uint64_t llm_link_wanted(llm_worker_t *w, llm_uint_t link);

/*
 * Puts in as much of size bytes as there is room for, and says how much; if it
 * is less than size, the writer's bell rings when there is room again.  The
 * reader sees it with llm_link_flush().
 */
size_t llm_link_write(llm_worker_t *w, llm_uint_t link, const u_char *p,
    size_t size);
void llm_link_flush(llm_worker_t *w, llm_uint_t link);

/* has the reader gone?  Then the writer's end is let go of by llm_link_end() */
llm_uint_t llm_link_gone(llm_worker_t *w, llm_uint_t link);

/* lets go: LLM_LINK_DONE, _REFUSED or _LOST, which the reader will see (DONE
 * and LOST: after all that was written) */
void llm_link_end(llm_worker_t *w, llm_uint_t link, llm_link_e how);


#endif /* _LLM_SHARE_H_INCLUDED_ */
