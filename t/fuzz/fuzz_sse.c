
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * text/event-stream: however the input is cut the events are the same, what
 * is written is read back as it was, and memory stays within the bound.
 *
 * The first two bytes choose the largest event and the cuts.
 */


#include <stdlib.h>
#include <string.h>

#include "llm.h"


#define check(cond)  do { if (!(cond)) { abort(); } } while (0)


typedef struct {
    u_char    *data;
    size_t     len;
    size_t     size;
    size_t     events;
    llm_int_t  rc;
} record_t;


static size_t  bytes;


static void *
mem_alloc(void *ctx, size_t size)
{
    size_t  *p;

    p = malloc(sizeof(max_align_t) + size);
    check(p);

    *p = size;
    bytes += size;

    return (u_char *) p + sizeof(max_align_t);
}


static void
mem_free(void *ctx, void *data)
{
    size_t  *p;

    p = (size_t *) ((u_char *) data - sizeof(max_align_t));
    bytes -= *p;
    free(p);
}


static const llm_mem_t  mem = { mem_alloc, mem_free, NULL };


static void
put(record_t *r, const llm_str_t *s)
{
    if (r->size - r->len < s->len + sizeof(size_t)) {
        r->size = (r->len + s->len + sizeof(size_t)) * 2;
        r->data = realloc(r->data, r->size);
        check(r->data);
    }

    memcpy(r->data + r->len, &s->len, sizeof(size_t));
    r->len += sizeof(size_t);

    if (s->len) {
        memcpy(r->data + r->len, s->data, s->len);
        r->len += s->len;
    }
}


static void
put_event(record_t *r, const llm_event_t *ev)
{
    llm_str_t  n;
    u_char     text[2];

    text[0] = ev->has_id;
    text[1] = ev->lines;
    n.data = text;
    n.len = 2;

    put(r, &n);
    put(r, &ev->type);
    put(r, &ev->id);
    put(r, &ev->retry);
    put(r, &ev->data);

    check(ev->lines || ev->data.len == 0);
    check(ev->lines || ev->has_id || ev->retry.len);

    r->events++;
}


/* a lone event comes back as it was, and alone */

static void
check_write(const llm_event_t *ev)
{
    size_t       len, at;
    void        *framer;
    u_char      *text, *p;
    record_t     a, b;
    llm_event_t  again;

    len = llm_sse_write(NULL, ev, NULL);
    text = malloc(len);

    check(llm_sse_write(text, ev, &at) == len);
    check(at + ev->data.len + 2 == len || ev->lines != 1);
    check(ev->lines == 1 || at == 0);

    framer = llm_sse_framing.create(&mem, len);
    p = text;

    check(llm_sse_framing.feed(framer, &p, text + len, &again) == LLM_OK);
    check(p == text + len);

    memset(&a, 0, sizeof(record_t));
    memset(&b, 0, sizeof(record_t));

    put_event(&a, ev);
    put_event(&b, &again);

    check(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
    check(llm_sse_framing.finish(framer, &again) == LLM_DONE);

    llm_sse_framing.free(framer);

    free(a.data);
    free(b.data);
    free(text);
}


static void
feed(void *framer, const uint8_t *data, size_t len, record_t *r, int write)
{
    u_char       *buf, *p;
    llm_event_t   ev;

    buf = malloc(len);

    if (len) {
        memcpy(buf, data, len);
    }

    p = buf;

    for ( ;; ) {
        r->rc = llm_sse_framing.feed(framer, &p, buf + len, &ev);

        if (r->rc != LLM_OK) {
            break;
        }

        put_event(r, &ev);

        if (write) {
            check_write(&ev);
        }
    }

    check(r->rc == LLM_DECLINED || (r->rc == LLM_AGAIN && p == buf + len));

    free(buf);
}


/* cut: 0 not at all, 1 each byte, else by pseudo-random lengths below it */

static void
run(const uint8_t *data, size_t size, size_t max, unsigned cut, record_t *r)
{
    void         *framer;
    size_t        n, before;
    unsigned      seed;
    llm_event_t   ev;

    memset(r, 0, sizeof(record_t));

    bytes = 0;
    seed = cut;
    framer = llm_sse_framing.create(&mem, max);
    before = bytes;
    r->rc = LLM_AGAIN;

    while (size && r->rc == LLM_AGAIN) {
        seed = seed * 1103515245 + 12345;
        n = (cut == 0) ? size : (cut == 1) ? 1 : (seed >> 16) % cut;

        if (n > size) {
            n = size;
        }

        feed(framer, data, n, r, cut == 0);

        /* a slot for each field and the line */

        check(bytes <= before + 5 * max);

        data += n;
        size -= n;
    }

    if (r->rc == LLM_DECLINED) {
        feed(framer, (uint8_t *) "data\n\n", 6, r, 0);
        check(r->rc == LLM_DECLINED);
    }

    if (llm_sse_framing.finish(framer, &ev) == LLM_OK) {
        check(r->rc == LLM_AGAIN);
        put_event(r, &ev);
        check(llm_sse_framing.finish(framer, &ev) == LLM_DONE);
    }

    llm_sse_framing.free(framer);
    check(bytes == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t    max;
    unsigned  i, cuts[3];
    record_t  whole, cut;

    if (size < 2) {
        return 0;
    }

    max = (data[0] & 1) ? 1 << 20 : data[0];

    cuts[0] = 1;
    cuts[1] = 2 + data[1] % 16;
    cuts[2] = 2 + data[1];

    data += 2;
    size -= 2;

    run(data, size, max, 0, &whole);

    for (i = 0; i < 3; i++) {
        run(data, size, max, cuts[i], &cut);

        check(cut.rc == whole.rc && cut.events == whole.events);
        check(cut.len == whole.len
              && (cut.len == 0
                  || memcmp(cut.data, whole.data, cut.len) == 0));

        free(cut.data);
    }

    free(whole.data);

    return 0;
}
