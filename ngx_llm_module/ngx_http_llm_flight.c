
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The flight: an append-only log of one answer, cut into whole events (or
 * opaque segments of a plain answer), with any number of readers.  It lives
 * in the worker's heap, not in a request, since it may outlive the request
 * that began it.  Only the attempt that fills it appends; a reader keeps a
 * cursor {block, record} and never changes what it reads.
 *
 * A block is written from both ends: what is shown to a client of the
 * provider's own dialect stands end to end from the front, so that a reader
 * sends many events as one piece; a record for each of them grows from the
 * back.  A block never moves; blocks before every reader are given back, so
 * an idle stream holds none.
 *
 * As long as a flight is open, which is to say that others may join it, all
 * of its log is kept.  Each reader holds the block where what it still needs
 * begins, and a block is given back when neither it nor one before it is held.
 *
 * A reference is held by each request that follows the flight, until its pool
 * goes (HTTP/2 frames may refer to blocks), and by each mirror and outlet.
 *
 * Called on the event loop only, by the attempt's and readers' files.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_BLOCK       8192          /* bytes, with its header */
#define NGX_HTTP_LLM_BLOCKS_KEPT  128          /* free ones, in a worker */


static void *ngx_http_llm_heap_alloc(void *ctx, size_t size);
static void ngx_http_llm_heap_free(void *ctx, void *p);
static void *ngx_http_llm_pool_alloc(void *ctx, size_t size);
static void ngx_http_llm_flight_free(ngx_http_llm_flight_t *f);
static void ngx_http_llm_flight_shift(ngx_http_llm_flight_t *f);
static void ngx_http_llm_block_free(ngx_http_llm_block_t *b);


const llm_mem_t  ngx_http_llm_heap = {
    ngx_http_llm_heap_alloc,
    ngx_http_llm_heap_free,
    NULL
};


/* a worker's */

static ngx_http_llm_block_t  *ngx_http_llm_free_blocks;
static ngx_uint_t             ngx_http_llm_free_nblocks;


ngx_http_llm_flight_t *
ngx_http_llm_flight_create(void)
{
    ngx_http_llm_flight_t  *f;

    f = ngx_calloc(sizeof(ngx_http_llm_flight_t), ngx_cycle->log);
    if (f == NULL) {
        return NULL;
    }

    ngx_queue_init(&f->readers);

    f->refs = 1;
    f->content_length = -1;
    f->wait = -1;
    f->mem = ngx_http_llm_heap;
    f->answer.mem = &f->mem;

    return f;
}


void
ngx_http_llm_flight_unref(ngx_http_llm_flight_t *f)
{
    if (--f->refs == 0) {
        ngx_http_llm_flight_free(f);
    }
}


static void
ngx_http_llm_flight_free(ngx_http_llm_flight_t *f)
{
    ngx_http_llm_block_t  *b;

    ngx_http_llm_flight_reset(f);

    while (f->pinned) {
        b = f->pinned;
        f->pinned = b->next;
        ngx_http_llm_block_free(b);
    }

    if (f->keep) {
        ngx_http_llm_keep_free(f);
    }

    if (f->strings) {
        ngx_free(f->strings);
    }

    ngx_free(f);
}


/* forgets what a failed attempt said: nothing of it was shown */

void
ngx_http_llm_flight_reset(ngx_http_llm_flight_t *f)
{
    ngx_queue_t            *q;
    ngx_http_llm_reader_t  *rd;

    while (f->first) {
        ngx_http_llm_flight_shift(f);
    }

    if (f->answer.dialect) {
        f->answer.dialect->answer_free(&f->answer);
    }

    ngx_memzero(&f->answer, sizeof(llm_answer_t));
    f->answer.mem = &f->mem;

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = ngx_queue_next(q))
    {
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);
        rd->block = NULL;
        rd->low = NULL;
        rd->record = 0;
    }

    ngx_http_llm_flight_forget(f);

    if (f->keep) {
        ngx_http_llm_keep_reset(f);
    }

    f->head = 0;
    f->stream = 0;
    f->ids = 0;
    f->usage = 0;
    f->status = 0;
    f->content_length = -1;
    ngx_str_null(&f->content_type);
    f->base = f->appended;
}


/* the words of an error */

void
ngx_http_llm_flight_forget(ngx_http_llm_flight_t *f)
{
    if (f->error_body.data) {
        ngx_free(f->error_body.data);
        f->error_body.data = NULL;
        f->error_body.len = 0;
    }

    if (f->last_event.data) {
        ngx_free(f->last_event.data);
        f->last_event.data = NULL;
        f->last_event.len = 0;
    }

    if (f->words.data) {
        ngx_free(f->words.data);
        f->words.data = NULL;
        f->words.len = 0;
        f->words_code = NULL;
    }
}


/*
 * Room for size bytes in one piece, NULL if there is no memory.  What is
 * written there counts from ngx_http_llm_flight_commit() on; until then the
 * room may be asked for again.
 */

u_char *
ngx_http_llm_flight_reserve(ngx_http_llm_flight_t *f, size_t size)
{
    size_t                  room;
    ngx_queue_t            *q;
    ngx_http_llm_block_t   *b;
    ngx_http_llm_reader_t  *rd;

    b = f->last;

    if (b
        && (size_t) ((u_char *) b->records - b->last)
           >= size + sizeof(ngx_http_llm_record_t))
    {
        return b->last;
    }

    room = NGX_HTTP_LLM_BLOCK;

    if (size + sizeof(ngx_http_llm_record_t) + sizeof(ngx_http_llm_block_t)
        > room)
    {
        room = ngx_align(size + sizeof(ngx_http_llm_record_t)
                         + sizeof(ngx_http_llm_block_t), 64);
        b = NULL;

    } else {
        b = ngx_http_llm_free_blocks;
    }

    if (b) {
        ngx_http_llm_free_blocks = b->next;
        ngx_http_llm_free_nblocks--;

    } else {
        b = ngx_alloc(room, ngx_cycle->log);
        if (b == NULL) {
            return NULL;
        }

        b->start = (u_char *) b + sizeof(ngx_http_llm_block_t);
        b->end = (u_char *) b + room;
    }

    b->next = NULL;
    b->last = b->start;
    b->records = (ngx_http_llm_record_t *) b->end;
    b->n = 0;
    b->holds = 0;
    b->pinned = 0;

    if (f->last) {
        f->last->next = b;
        f->last = b;

        return b->last;
    }

    f->first = b;
    f->last = b;

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = ngx_queue_next(q))
    {
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);
        ngx_http_llm_flight_follow(f, rd);
    }

    return b->last;
}


/* data: offset of a one-line payload within the len bytes, or 0 */

void
ngx_http_llm_flight_commit(ngx_http_llm_flight_t *f, size_t len, size_t data,
    ngx_uint_t flags)
{
    ngx_http_llm_block_t   *b;
    ngx_http_llm_record_t  *rec;

    b = f->last;

    rec = --b->records;

    rec->offset = b->last - b->start;
    rec->len = len;
    rec->data = data;
    rec->flags = flags;

    if (f->keep) {
        ngx_http_llm_keep_add(f, b->last, len, flags);
    }

    b->last += len;
    b->n++;

    f->appended += len;

    if (f->form && f->appended - f->trimmed > (off_t) f->max) {
        ngx_http_llm_coalesce_bound(f, len);
    }
}


void
ngx_http_llm_flight_wake(ngx_http_llm_flight_t *f)
{
    ngx_queue_t            *q;
    ngx_http_llm_reader_t  *rd;

    if (f->ended && f->form && !f->settled) {
        ngx_http_llm_coalesce_settle(f);
    }

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = ngx_queue_next(q))
    {
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);
        rd->wake(rd);
    }
}


/* a reader takes part, from the beginning of what there is */

void
ngx_http_llm_flight_attach(ngx_http_llm_flight_t *f, ngx_http_llm_reader_t *rd)
{
    rd->flight = f;
    rd->block = NULL;
    rd->low = NULL;
    rd->record = 0;

    ngx_queue_insert_tail(&f->readers, &rd->queue);
    f->nreaders++;

    if (f->first) {
        ngx_http_llm_flight_follow(f, rd);
    }
}


/* there is a log where there was none */

void
ngx_http_llm_flight_follow(ngx_http_llm_flight_t *f, ngx_http_llm_reader_t *rd)
{
    if (rd->mute) {
        return;
    }

    rd->block = f->first;
    rd->record = 0;

    ngx_http_llm_flight_hold(rd, f->first);
}


/* what rd still needs begins in low; NULL: it needs nothing of the log */

void
ngx_http_llm_flight_hold(ngx_http_llm_reader_t *rd, ngx_http_llm_block_t *low)
{
    if (rd->low == low) {
        return;
    }

    if (rd->low) {
        rd->low->holds--;
    }

    if (low) {
        low->holds++;
    }

    rd->low = low;
}


/*
 * Output that refers to the log, and has not left yet, may still do so when
 * its reader is no longer there: in an HTTP/2 connection's queue, for one.
 * What it refers to stays as long as the flight.
 */

void
ngx_http_llm_flight_pin(ngx_http_llm_reader_t *rd)
{
    ngx_http_llm_block_t  *b;

    for (b = rd->low; b; b = b->next) {
        b->pinned = 1;

        if (b == rd->block) {
            break;
        }
    }
}


/* a reader takes part no more */

void
ngx_http_llm_flight_detach(ngx_http_llm_reader_t *rd)
{
    ngx_http_llm_flight_t  *f;

    f = rd->flight;

    ngx_queue_remove(&rd->queue);
    f->nreaders--;

    ngx_http_llm_flight_hold(rd, NULL);
    ngx_http_llm_flight_trim(f);
}


/*
 * Gives back what nobody needs, if nobody may join.  The last block stays,
 * since it is where readers are, unless there is none, or the only one has
 * taken everything (and says so by having no block).
 */

void
ngx_http_llm_flight_trim(ngx_http_llm_flight_t *f)
{
    ngx_queue_t            *q;
    ngx_http_llm_block_t   *stop;
    ngx_http_llm_reader_t  *rd;

    if (f->open) {
        return;
    }

    if (f->nreaders == 0 && !f->stream && !f->released) {

        /* it will be looked at when it is whole */

        return;
    }

    stop = f->last;

    if (f->nreaders == 0) {
        stop = NULL;

    } else if (f->nreaders == 1) {
        q = ngx_queue_head(&f->readers);
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);

        if (rd->block == NULL) {
            stop = NULL;
        }
    }

    while (f->first != stop && f->first->holds == 0) {
        ngx_http_llm_flight_shift(f);
    }
}


static void
ngx_http_llm_flight_shift(ngx_http_llm_flight_t *f)
{
    ngx_http_llm_block_t  *b;

    b = f->first;
    f->first = b->next;
    f->trimmed += b->last - b->start;

    if (f->first == NULL) {
        f->last = NULL;
    }

    if (b->pinned) {
        b->next = f->pinned;
        f->pinned = b;
        return;
    }

    ngx_http_llm_block_free(b);
}


static void
ngx_http_llm_block_free(ngx_http_llm_block_t *b)
{
    if (b->end - (u_char *) b != NGX_HTTP_LLM_BLOCK
        || ngx_http_llm_free_nblocks >= NGX_HTTP_LLM_BLOCKS_KEPT)
    {
        ngx_free(b);
        return;
    }

    b->next = ngx_http_llm_free_blocks;
    ngx_http_llm_free_blocks = b;
    ngx_http_llm_free_nblocks++;
}


/* a worker ends */

void
ngx_http_llm_flight_exit_worker(void)
{
    ngx_http_llm_block_t  *b;

    while (ngx_http_llm_free_blocks) {
        b = ngx_http_llm_free_blocks;
        ngx_http_llm_free_blocks = b->next;
        ngx_free(b);
    }

    ngx_http_llm_free_nblocks = 0;
}


llm_mem_t
ngx_http_llm_pool_mem(ngx_pool_t *pool)
{
    llm_mem_t  mem;

    mem.alloc = ngx_http_llm_pool_alloc;
    mem.free = NULL;
    mem.ctx = pool;

    return mem;
}


static void *
ngx_http_llm_pool_alloc(void *ctx, size_t size)
{
    return ngx_palloc(ctx, size);
}


static void *
ngx_http_llm_heap_alloc(void *ctx, size_t size)
{
    return ngx_alloc(size, ngx_cycle->log);
}


static void
ngx_http_llm_heap_free(void *ctx, void *p)
{
    ngx_free(p);
}
