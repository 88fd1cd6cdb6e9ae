
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What all commands need to speak: errors, texts that grow, a line of
 * progress; and the memory of an import.
 */


#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "llm_cache.h"


#define LLM_CACHE_CHUNK   (64 * 1024)
#define LLM_CACHE_ALIGN   16
#define LLM_CACHE_TELL    200          /* ms */


struct llm_cache_chunk_s {
    llm_cache_chunk_t     *next;
    size_t                 size;
    size_t                 used;       /* its head as well */
};


static void *llm_cache_arena_alloc(void *ctx, size_t size);
static void *llm_cache_heap_alloc(void *ctx, size_t size);
static void llm_cache_heap_free(void *ctx, void *p);
static int llm_cache_digit(u_char c);


const llm_mem_t  llm_cache_heap = {
    llm_cache_heap_alloc,
    llm_cache_heap_free,
    NULL
};


void
llm_cache_error(const char *fmt, ...)
{
    char     *p, text[2048];
    va_list   args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    /* what came from a file or an argument must not begin another line */

    for (p = text; *p; p++) {
        if ((u_char) *p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }

    fprintf(stderr, "llm-cache: %s\n", text);
}


uint64_t
llm_cache_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


u_char *
llm_cache_reserve(llm_cache_out_t *o, size_t len)
{
    size_t   size;
    u_char  *data;

    if (o->failed) {
        return NULL;
    }

    if (len <= o->size - o->len && o->data) {
        return o->data + o->len;
    }

    size = o->len + len + o->size / 2 + 1024;
    data = realloc(o->data, size);

    if (data == NULL) {
        o->failed = 1;
        return NULL;
    }

    o->data = data;
    o->size = size;

    return data + o->len;
}


void
llm_cache_add(llm_cache_out_t *o, const void *data, size_t len)
{
    if (len && llm_cache_reserve(o, len)) {
        memcpy(o->data + o->len, data, len);
        o->len += len;
    }
}


void
llm_cache_addf(llm_cache_out_t *o, const char *fmt, ...)
{
    int      n;
    char     text[256];
    va_list  args;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    if (n < 0 || n >= (int) sizeof(text)) {

        /* long texts are added by themselves */

        o->failed = 1;
        return;
    }

    llm_cache_add(o, text, n);
}


void
llm_cache_add_str(llm_cache_out_t *o, const llm_str_t *s)
{
    llm_cache_add(o, s->data, s->len);
}


void
llm_cache_add_json(llm_cache_out_t *o, const llm_str_t *s)
{
    size_t  len;

    len = llm_json_escape(NULL, s);

    if (llm_cache_reserve(o, len + 2) == NULL) {
        return;
    }

    o->data[o->len++] = '"';
    o->len += llm_json_escape(o->data + o->len, s);
    o->data[o->len++] = '"';
}


void
llm_cache_add_hex(llm_cache_out_t *o, const u_char *data, size_t len)
{
    size_t             i;
    static const char  hex[] = "0123456789abcdef";

    if (llm_cache_reserve(o, 2 * len) == NULL) {
        return;
    }

    for (i = 0; i < len; i++) {
        o->data[o->len++] = hex[data[i] >> 4];
        o->data[o->len++] = hex[data[i] & 0xf];
    }
}


void
llm_cache_add_plain(llm_cache_out_t *o, const llm_str_t *s)
{
    size_t  i;
    u_char  c;

    if (s->len == 0) {
        llm_cache_add(o, "-", 1);
        return;
    }

    for (i = 0; i < s->len; i++) {
        c = s->data[i];

        if (c < 0x20 || c == 0x7f
            || (c == 0xc2 && i + 1 < s->len && s->data[i + 1] < 0xa0))
        {
            c = '?';
        }

        llm_cache_add(o, &c, 1);
    }
}


llm_int_t
llm_cache_flush(llm_cache_out_t *o, FILE *f)
{
    size_t  len;

    if (o->failed) {
        llm_cache_error("no memory");
        return LLM_ERROR;
    }

    len = o->len;
    o->len = 0;

    if (len && fwrite(o->data, 1, len, f) != len) {

        if (!llm_cache_signal) {
            llm_cache_error("writing failed: %m");
        }

        return LLM_ERROR;
    }

    return LLM_OK;
}


void
llm_cache_out_free(llm_cache_out_t *o)
{
    free(o->data);
    memset(o, 0, sizeof(llm_cache_out_t));
}


llm_int_t
llm_cache_hex(u_char *dst, size_t n, const u_char *hex, size_t len)
{
    int     high, low;
    size_t  i;

    if (len != 2 * n) {
        return LLM_DECLINED;
    }

    for (i = 0; i < n; i++) {
        high = llm_cache_digit(hex[2 * i]);
        low = llm_cache_digit(hex[2 * i + 1]);

        if (high < 0 || low < 0) {
            return LLM_DECLINED;
        }

        dst[i] = (u_char) (high << 4 | low);
    }

    return LLM_OK;
}


static int
llm_cache_digit(u_char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}


void
llm_cache_progress_begin(llm_cache_progress_t *p)
{
    memset(p, 0, sizeof(llm_cache_progress_t));

    p->on = isatty(STDERR_FILENO) ? 1 : 0;
    p->began = llm_cache_now();
}


void
llm_cache_progress(llm_cache_progress_t *p, uint64_t bytes)
{
    uint64_t  now, ms;

    p->entries++;
    p->bytes += bytes;

    /* the clock is not asked for each */

    if (!p->on || (p->entries & 0xf)) {
        return;
    }

    now = llm_cache_now();

    if (now - p->told < LLM_CACHE_TELL) {
        return;
    }

    p->told = now;
    ms = now > p->began ? now - p->began : 1;

    fprintf(stderr, "\r%llu entries, %.1f MB, %.0f a second\033[K",
            (unsigned long long) p->entries, p->bytes / 1e6,
            p->entries * 1000.0 / ms);
}


void
llm_cache_progress_end(llm_cache_progress_t *p)
{
    if (p->on && p->told) {
        fprintf(stderr, "\r\033[K");
        p->told = 0;
    }
}


void
llm_cache_arena_init(llm_cache_arena_t *a)
{
    a->chunks = NULL;
    a->mem.alloc = llm_cache_arena_alloc;
    a->mem.free = NULL;
    a->mem.ctx = a;
}


static void *
llm_cache_arena_alloc(void *ctx, size_t size)
{
    llm_cache_arena_t *a = ctx;

    void               *p;
    size_t              head, need;
    llm_cache_chunk_t  *chunk;

    head = (sizeof(llm_cache_chunk_t) + LLM_CACHE_ALIGN - 1)
           & ~(size_t) (LLM_CACHE_ALIGN - 1);
    need = (size + LLM_CACHE_ALIGN - 1) & ~(size_t) (LLM_CACHE_ALIGN - 1);

    chunk = a->chunks;

    if (chunk == NULL || chunk->size - chunk->used < need) {

        size = head + need > LLM_CACHE_CHUNK ? head + need : LLM_CACHE_CHUNK;

        chunk = malloc(size);
        if (chunk == NULL) {
            return NULL;
        }

        chunk->size = size;
        chunk->used = head;
        chunk->next = a->chunks;
        a->chunks = chunk;
    }

    p = (u_char *) chunk + chunk->used;
    chunk->used += need;

    return p;
}


void
llm_cache_arena_reset(llm_cache_arena_t *a)
{
    llm_cache_chunk_t  *chunk;

    while (a->chunks) {
        chunk = a->chunks;
        a->chunks = chunk->next;
        free(chunk);
    }
}


static void *
llm_cache_heap_alloc(void *ctx, size_t size)
{
    (void) ctx;

    return malloc(size ? size : 1);
}


static void
llm_cache_heap_free(void *ctx, void *p)
{
    (void) ctx;

    free(p);
}
