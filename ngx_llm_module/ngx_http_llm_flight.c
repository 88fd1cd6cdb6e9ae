
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
 * Called on the event loop only, by the attempt's and readers' files.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_BLOCK       8192          /* bytes, with its header */
#define NGX_HTTP_LLM_BLOCKS_KEPT  128          /* free ones, in a worker */


static void *ngx_http_llm_heap_alloc(void *ctx, size_t size);
static void ngx_http_llm_heap_free(void *ctx, void *p);
static void *ngx_http_llm_pool_alloc(void *ctx, size_t size);
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

    f->content_length = -1;
    f->mem = ngx_http_llm_heap;
    f->answer.mem = &f->mem;

    return f;
}


void
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

    ngx_free(f);
}


/* forgets what a failed attempt said: nothing of it was shown */

void
ngx_http_llm_flight_reset(ngx_http_llm_flight_t *f)
{
    ngx_queue_t            *q;
    ngx_http_llm_reader_t  *rd;

    ngx_http_llm_flight_trim(f, NULL);

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
        rd->record = 0;
    }

    ngx_http_llm_flight_forget(f);

    if (f->keep) {
        ngx_http_llm_keep_reset(f);
    }

    f->head = 0;
    f->stream = 0;
    f->ids = 0;
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
    size_t                 room;
    ngx_http_llm_block_t  *b;

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

    if (f->last) {
        f->last->next = b;

    } else {
        f->first = b;
    }

    f->last = b;

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
}


void
ngx_http_llm_flight_wake(ngx_http_llm_flight_t *f)
{
    ngx_queue_t            *q;
    ngx_http_llm_reader_t  *rd;

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = ngx_queue_next(q))
    {
        rd = ngx_queue_data(q, ngx_http_llm_reader_t, queue);
        rd->wake(rd);
    }
}


/* gives back the blocks before keep; all of them if keep is NULL */

void
ngx_http_llm_flight_trim(ngx_http_llm_flight_t *f, ngx_http_llm_block_t *keep)
{
    ngx_http_llm_block_t  *b;

    while (f->first && f->first != keep) {
        b = f->first;
        f->first = b->next;
        f->trimmed += b->last - b->start;

        ngx_http_llm_block_free(b);
    }

    if (f->first == NULL) {
        f->last = NULL;
    }
}


/*
 * Takes all blocks out of the log but keeps them as long as the flight: the
 * output of a reader that has gone may still wait in an HTTP/2 connection's
 * queue, and whatever stands there is sent.
 */

void
ngx_http_llm_flight_pin(ngx_http_llm_flight_t *f)
{
    ngx_http_llm_block_t  *b;

    while (f->first) {
        b = f->first;
        f->first = b->next;
        f->trimmed += b->last - b->start;

        b->next = f->pinned;
        f->pinned = b;
    }

    f->last = NULL;
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
