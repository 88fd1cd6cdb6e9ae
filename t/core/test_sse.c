
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * llm_sse.c: each fixture whole, cut in two at every place, and byte by
 * byte; each piece in a heap buffer of its size that is gone after the feed.
 */


#include "run.h"

#include <time.h>


/* events as "type|id|retry|lines|data;", no id as "-" */

typedef struct {
    const char  *name;
    llm_str_t    in;
    const char  *out;
    size_t       max;                  /* 0: enough */
    llm_int_t    rc;                   /* of the feed that fails, or 0 */
} fixture_t;


typedef struct {
    char         out[4096];
    size_t       len;
    llm_int_t    rc;
} result_t;


static fixture_t  fixtures[] = {

    { "nothing", llm_string(""), "", 0, 0 },
    { "one event", llm_string("data: a\n\n"), "|-||1|a;", 0, 0 },
    { "two events", llm_string("data: a\n\ndata: b\n\n"),
      "|-||1|a;|-||1|b;", 0, 0 },
    { "CRLF", llm_string("data: a\r\n\r\ndata: b\r\n\r\n"),
      "|-||1|a;|-||1|b;", 0, 0 },
    { "CR", llm_string("data: a\r\rdata: b\r\r"), "|-||1|a;|-||1|b;", 0, 0 },
    { "mixed line ends",
      llm_string("data: a\r\ndata: b\rdata: c\n\rdata: d\n\r\ndata: e\r\n\n"),
      "|-||3|a\nb\nc;|-||1|d;|-||1|e;", 0, 0 },
    { "LF CR is two line ends", llm_string("\n\rdata: a\n\r\n\r"),
      "|-||1|a;", 0, 0 },

    /* data */

    { "one space is cut", llm_string("data:  a \n\n"), "|-||1| a ;", 0, 0 },
    { "no space", llm_string("data:a\n\n"), "|-||1|a;", 0, 0 },
    { "a tab is not a space", llm_string("data:\ta\n\n"), "|-||1|\ta;", 0,
      0 },
    { "colons", llm_string("data: a: b\n\ndata::\n\n"),
      "|-||1|a: b;|-||1|:;", 0, 0 },
    { "lines", llm_string("data: a\ndata\ndata: \ndata:  c\n\n"),
      "|-||4|a\n\n\n c;", 0, 0 },
    { "empty data", llm_string("data:\n\ndata\n\ndata: \n\n"),
      "|-||1|;|-||1|;|-||1|;", 0, 0 },
    { "two empty lines", llm_string("data\ndata\n\n"), "|-||2|\n;", 0, 0 },
    { "empty, then not", llm_string("data:\ndata:b\n\n"), "|-||2|\nb;", 0,
      0 },
    { "NUL in data", llm_string("data: a\0b\n\n"), "|-||1|a\\0b;", 0, 0 },
    { "any bytes", llm_string("data: \xff\xfe\x80\x01\n\n"),
      "|-||1|\xff\xfe\x80\x01;", 0, 0 },
    { "longer than a block",
      llm_string("data: 0123456789abcdef0123456789abcdef\n\n"),
      "|-||1|0123456789abcdef0123456789abcdef;", 0, 0 },

    /* other fields */

    { "all fields",
      llm_string("event: t\nid: 7\nretry: 250\ndata: a\n\n"),
      "t|7|250|1|a;", 0, 0 },
    { "any order", llm_string("data: a\nretry:5\ndata:b\nid:x\nevent:y\n\n"),
      "y|x|5|2|a\nb;", 0, 0 },
    { "the last one counts",
      llm_string("event: a\nevent: bb\nid: 1\nid: 22\nretry: 3\nretry: 44\n"
                 "data:d\n\n"),
      "bb|22|44|1|d;", 0, 0 },
    { "an empty type", llm_string("event: a\nevent:\ndata: d\n\n"),
      "|-||1|d;", 0, 0 },
    { "an empty id", llm_string("id: 1\nid\ndata: d\n\nid:\n\n"),
      "||" "|1|d;|||0|;", 0, 0 },
    { "no event carries to the next",
      llm_string("event: t\nid: 1\nretry: 2\ndata: a\n\ndata: b\n\n"),
      "t|1|2|1|a;|-||1|b;", 0, 0 },
    { "a void type carries neither", llm_string("event: t\n\ndata: b\n\n"),
      "|-||1|b;", 0, 0 },
    { "an id with NUL", llm_string("id: 1\nid: 2\0\ndata: a\n\nid: \0\n\n"),
      "|1||1|a;", 0, 0 },
    { "a retry of other than digits",
      llm_string("retry: 10\nretry: 1x\nretry: -1\nretry:  1\nretry:\nretry\n"
                 "data: a\n\nretry: 1.5\n\n"),
      "|-|10|1|a;", 0, 0 },
    { "only an id", llm_string("id: 7\n\n"), "|7||0|;", 0, 0 },
    { "only a retry", llm_string("retry: 7\n\n"), "|-|7|0|;", 0, 0 },
    { "only a type", llm_string("event: ping\n\n"), "", 0, 0 },
    { "type and id", llm_string("event: ping\nid: 1\n\n"), "ping|1||0|;", 0,
      0 },

    /* what is not a field */

    { "comments", llm_string(": x\n:\n\n: data: a\n\ndata: b\n: c\n\n"),
      "|-||1|b;", 0, 0 },
    { "blank lines", llm_string("\n\n\r\r\r\n\r\ndata: a\n\n\n\n"),
      "|-||1|a;", 0, 0 },
    { "unknown fields",
      llm_string("foo: a\n\nx\ndata2: a\ndat: a\nData: a\n data: a\n"
                 "data : a\nids: 1\ni: 1\neventt: a\nretry2: 1\nevens: 1\n"
                 "retri: 1\nix: 3\n\n"),
      "", 0, 0 },
    { "unknown ones within",
      llm_string("foo\ndata: a\nfoo: b\nfoo:\ndata: c\nfoo\n\n"),
      "|-||2|a\nc;", 0, 0 },
    { "a very long name",
      llm_string("datadatadatadatadatadatadatadata: x\ndata: a\n\n"),
      "|-||1|a;", 0, 0 },
    { "a name with NUL", llm_string("data\0: x\n\0data: x\ndata: a\n\n"),
      "|-||1|a;", 0, 0 },

    /* the BOM */

    { "a BOM", llm_string("\xef\xbb\xbf""data: a\n\n"), "|-||1|a;", 0, 0 },
    { "only a BOM", llm_string("\xef\xbb\xbf"), "", 0, 0 },
    { "two", llm_string("\xef\xbb\xbf\xef\xbb\xbf""data: a\ndata: b\n\n"),
      "|-||1|b;", 0, 0 },
    { "a BOM later", llm_string("data: a\n\n\xef\xbb\xbf""data: b\n\n"),
      "|-||1|a;", 0, 0 },
    { "a BOM in data", llm_string("data: \xef\xbb\xbf""a\n\n"),
      "|-||1|\xef\xbb\xbf""a;", 0, 0 },
    { "a part of a BOM", llm_string("\xef\xbb""data: a\ndata: b\n\n"),
      "|-||1|b;", 0, 0 },
    { "a part of a BOM, a line end",
      llm_string("\xef\ndata: b\n\n"), "|-||1|b;", 0, 0 },
    { "a part of a BOM, a colon",
      llm_string("\xef\xbb: x\n\ndata: b\n\n"), "|-||1|b;", 0, 0 },
    { "a BOM, a blank line", llm_string("\xef\xbb\xbf\r\n\r\ndata: a\n\n"),
      "|-||1|a;", 0, 0 },

    /* the end of input; what is in "out" behind '!' comes by finish */

    { "no blank line", llm_string("data: a\n"), "!|-||1|a;", 0, 0 },
    { "no line end", llm_string("data: a\n\nevent: t\ndata: b"),
      "|-||1|a;!t|-||1|b;", 0, 0 },
    { "an end after CR", llm_string("data: a\r"), "!|-||1|a;", 0, 0 },
    { "a name only", llm_string("data"), "!|-||1|;", 0, 0 },
    { "a name and colon", llm_string("data: x\ndata:"), "!|-||2|x\n;", 0, 0 },
    { "a name, colon, space", llm_string("id: "), "!|" "||0|;", 0, 0 },
    { "a part of a name", llm_string("data: x\ndat"), "!|-||1|x;", 0, 0 },
    { "a cut id with NUL", llm_string("id: 1\nid: \0"), "!|1||0|;", 0, 0 },
    { "a cut retry", llm_string("retry: 12"), "!|-|12|0|;", 0, 0 },
    { "a cut comment", llm_string("data: x\n\n: abc"), "|-||1|x;", 0, 0 },
    { "a cut type", llm_string("event: x"), "", 0, 0 },

    /* bounds */

    { "data of max", llm_string("data: 12345678\n\ndata: 1234\ndata: 678\n\n"),
      "|-||1|12345678;|-||2|1234\n678;", 8, 0 },
    { "data beyond max",
      llm_string("data: a\n\ndata: 123456789\n\ndata: b\n\n"),
      "|-||1|a;", 8, LLM_DECLINED },
    { "lines beyond max", llm_string("data: 1234\ndata: 6789\n\n"), "", 8,
      LLM_DECLINED },
    { "empty lines beyond max",
      llm_string("data\ndata\ndata\ndata\ndata\ndata\ndata\ndata\ndata\n\n"
                 "data\ndata\ndata\ndata\ndata\ndata\ndata\ndata\ndata\n"
                 "data\n\n"),
      "|-||9|\n\n\n\n\n\n\n\n;", 8, LLM_DECLINED },
    { "a type beyond max", llm_string("event: 123456789\n"), "", 8,
      LLM_DECLINED },
    { "an id beyond max", llm_string("id: 123456789\0\n"), "", 8,
      LLM_DECLINED },
    { "a retry beyond max", llm_string("retry: 123456789\n"), "", 8,
      LLM_DECLINED },
    { "each field may have max",
      llm_string("event: 12345678\nid: 12345678\nretry: 12345678\n"
                 "data: 12345678\n\n"),
      "12345678|12345678|12345678|1|12345678;", 8, 0 },
    { "comments and unknown fields have none",
      llm_string(": 0123456789abcdef\nfoo: 0123456789abcdef\n"
                 "0123456789abcdef0123456789abcdef\ndata: a\n\n"),
      "|-||1|a;", 8, 0 },
    { "an unended line beyond max", llm_string("data: 1234567890"), "", 8,
      LLM_DECLINED }
};

#define FIXTURES  (sizeof(fixtures) / sizeof(fixture_t))


static void
put(result_t *r, const void *text, size_t len)
{
    size_t         i;
    const u_char  *p = text;

    for (i = 0; i < len && r->len < sizeof(r->out) - 3; i++) {

        if (p[i] == '\0') {
            r->out[r->len++] = '\\';
            r->out[r->len++] = '0';
            continue;
        }

        r->out[r->len++] = p[i];
    }

    r->out[r->len] = '\0';
}


static void
put_event(result_t *r, const llm_event_t *ev)
{
    char  lines[32];

    put(r, ev->type.data, ev->type.len);
    put(r, "|", 1);
    put(r, ev->has_id ? ev->id.data : (u_char *) "-",
        ev->has_id ? ev->id.len : 1);
    put(r, "|", 1);
    put(r, ev->retry.data, ev->retry.len);
    put(r, lines, sprintf(lines, "|%d|", (int) ev->lines));
    put(r, ev->data.data, ev->data.len);
    put(r, ";", 1);
}


static void
feed(void *framer, const void *data, size_t len, result_t *r)
{
    u_char       *buf, *p;
    size_t        n;
    llm_event_t   ev;

    buf = exact(data, len);
    p = buf;

    for (n = 0; n <= len; n++) {
        memset(&ev, 0xa5, sizeof(llm_event_t));
        r->rc = llm_sse_framing.feed(framer, &p, buf + len, &ev);

        if (r->rc != LLM_OK) {
            break;
        }

        put_event(r, &ev);
    }

    if (r->rc == LLM_AGAIN && p != buf + len) {
        put(r, "NOT ALL", 7);
    }

    free(buf);
}


static void
finish(void *framer, result_t *r)
{
    llm_int_t    rc;
    llm_event_t  ev;

    rc = llm_sse_framing.finish(framer, &ev);

    if (rc == LLM_OK) {
        put(r, "!", 1);
        put_event(r, &ev);
        rc = llm_sse_framing.finish(framer, &ev);
    }

    if (rc == LLM_ERROR) {
        r->rc = LLM_ERROR;

    } else if (rc != LLM_DONE) {
        put(r, "NOT DONE", 8);
    }
}


/* pieces of step bytes, the first of first; fail: of allocations */

static void
run(const fixture_t *f, size_t first, size_t step, size_t fail,
    run_mem_t *m, result_t *r)
{
    void    *framer;
    size_t   i, n;

    run_mem(m, fail);

    r->len = 0;
    r->rc = LLM_ERROR;
    r->out[0] = '\0';

    framer = llm_sse_framing.create(&m->mem, f->max ? f->max : 1000000);
    if (framer == NULL) {
        return;
    }

    r->rc = LLM_AGAIN;

    for (i = 0, n = first; i < f->in.len; i += n, n = step) {

        if (n > f->in.len - i) {
            n = f->in.len - i;
        }

        feed(framer, f->in.data + i, n, r);

        if (r->rc != LLM_AGAIN) {
            break;
        }
    }

    if (r->rc == LLM_DECLINED) {
        feed(framer, "data: x\n\n", 9, r);
    }

    if (r->rc != LLM_ERROR) {
        finish(framer, r);
    }

    llm_sse_framing.free(framer);
}


static int
right(const fixture_t *f, const run_mem_t *m, const result_t *r)
{
    return strcmp(r->out, f->out) == 0
           && r->rc == (f->rc ? f->rc : LLM_AGAIN) && m->live == 0;
}


static void
test_fixtures(void)
{
    size_t      i, at, wrong, allocs;
    result_t    r;
    run_mem_t   m;
    fixture_t  *f;

    for (i = 0; i < FIXTURES; i++) {
        f = &fixtures[i];

        run(f, f->in.len, 1, 0, &m, &r);

        if (!ok(right(f, &m, &r), "%s", f->name)) {
            printf("#   got:  %s, rc %d\n#   want: %s\n", r.out, (int) r.rc,
                   f->out);
        }

        wrong = 0;

        for (at = 1; at < f->in.len; at++) {
            run(f, at, f->in.len, 0, &m, &r);
            wrong += !right(f, &m, &r);
        }

        for (at = 1; at < 8; at++) {
            run(f, at, at, 0, &m, &r);
            wrong += !right(f, &m, &r);

            /* an empty feed changes nothing */
            run(f, 0, at, 0, &m, &r);
            wrong += !right(f, &m, &r);
        }

        is_int(wrong, 0, "the same, cut");

        wrong = 0;

        for (at = 1; at < f->in.len + 1; at++) {
            run(f, at, 1, 0, &m, &r);
            allocs = m.calls;

            while (allocs) {
                run(f, at, 1, allocs--, &m, &r);
                wrong += r.rc != LLM_ERROR || m.live;
            }
        }

        is_int(wrong, 0, "the same, without memory");
    }
}


/* nothing is copied that need not be */

static void
test_places(void)
{
    u_char       *buf, *p;
    void         *framer;
    run_mem_t     m;
    llm_event_t   ev;

    static const char  text[] =
        "event: t\nid: 1\nretry: 2\ndata: abc\n\ndata: d\ndata: e\n\n: x";

    run_mem(&m, 0);
    framer = llm_sse_framing.create(&m.mem, 1000);

    ok(m.bytes < 200, "an idle stream takes %zu bytes", m.bytes);

    buf = exact(text, sizeof(text) - 1);
    p = buf;

    is_int(llm_sse_framing.feed(framer, &p, buf + sizeof(text) - 1, &ev),
           LLM_OK, "a whole event");

    ok(ev.data.data == buf + 30 && ev.type.data == buf + 7
       && ev.id.data == buf + 13 && ev.retry.data == buf + 22,
       "points into the input");
    is_int(p - buf, 35, "and *pos is behind it");
    is_int(m.calls, 1, "and takes no memory");

    is_int(llm_sse_framing.feed(framer, &p, buf + sizeof(text) - 1, &ev),
           LLM_OK, "one of two lines");
    is(&ev.data, "d\ne", "is joined");
    is_int(m.calls, 2, "in a buffer");
    is_int(llm_sse_framing.feed(framer, &p, buf + sizeof(text) - 1, &ev),
           LLM_AGAIN, "a comment");

    llm_sse_framing.free(framer);
    free(buf);

    is_int(m.live, 0, "all is freed");
}


/* a lone CR ends its line at once; the LF may come later */

static void
test_cr(void)
{
    void      *framer;
    result_t   r;
    run_mem_t  m;

    run_mem(&m, 0);
    framer = llm_sse_framing.create(&m.mem, 1000);

    memset(&r, 0, sizeof(result_t));

    feed(framer, "data: a\r\r", 9, &r);
    ok(strcmp(r.out, "|-||1|a;") == 0, "CR CR: told at once");

    feed(framer, "\n", 1, &r);
    feed(framer, "data: b\r\n\r", 10, &r);
    ok(strcmp(r.out, "|-||1|a;|-||1|b;") == 0, "CRLF CR: told at once");

    feed(framer, "\ndata: c\r", 9, &r);
    feed(framer, "\n", 1, &r);
    ok(strcmp(r.out, "|-||1|a;|-||1|b;") == 0, "CR, LF: one line end");

    feed(framer, "\n", 1, &r);
    ok(strcmp(r.out, "|-||1|a;|-||1|b;|-||1|c;") == 0, "CR, LF, LF: two");

    llm_sse_framing.free(framer);
}


/* a large event: pieces of any size cost the same, and none of it stays */

static void
test_large(void)
{
    void         *framer;
    u_char       *buf, *p, *end;
    size_t        i, n, len, want;
    clock_t       start;
    run_mem_t     m;
    llm_int_t     rc;
    llm_event_t   ev;

    static const size_t  steps[] = { 1, 7, 8192, 1000000, 8000000 };

    want = 4 << 20;
    len = want + 8;
    buf = malloc(len);

    memset(buf, 'x', len);
    memcpy(buf, "data: ", 6);
    memcpy(buf + len - 2, "\n\n", 2);

    for (i = 0; i < sizeof(steps) / sizeof(size_t); i++) {
        run_mem(&m, 0);
        framer = llm_sse_framing.create(&m.mem, want);

        n = 0;
        rc = LLM_AGAIN;
        start = clock();

        for (p = buf; p < buf + len && rc == LLM_AGAIN; /* void */ ) {
            end = p + steps[i];

            if (end > buf + len) {
                end = buf + len;
            }

            rc = llm_sse_framing.feed(framer, &p, end, &ev);
            n++;
        }

        ok(rc == LLM_OK && ev.data.len == want && ev.data.data[0] == 'x'
           && ev.data.data[want - 1] == 'x' && m.calls < 30,
           "4 MB in %zu pieces", n);
        ok(clock() - start < 2 * CLOCKS_PER_SEC, "takes %ld ms",
           (long) ((clock() - start) / (CLOCKS_PER_SEC / 1000)));

        is_int(llm_sse_framing.feed(framer, &p, p, &ev), LLM_AGAIN,
               "nothing more");
        ok(m.bytes < 200, "%zu bytes are kept", m.bytes);

        llm_sse_framing.free(framer);
    }

    /* endless lines that are not data */

    run_mem(&m, 0);
    framer = llm_sse_framing.create(&m.mem, 1000);
    memset(buf, 'x', len);

    for (i = 0; i < 64; i++) {
        buf[0] = (i == 0) ? ':' : (i == 32) ? '\n' : 'x';
        p = buf;
        rc = llm_sse_framing.feed(framer, &p, buf + 65536, &ev);
    }

    ok(rc == LLM_AGAIN && m.calls == 1, "a comment and a name of 2 MB");

    llm_sse_framing.free(framer);
    free(buf);
}


/* mem without free: a pool */

static void *
pool_alloc(void *ctx, size_t size)
{
    size_t             *used = ctx;

    static long double  pool[256];

    *used += (size + 15) / 16;

    return (*used <= 256) ? &pool[*used - (size + 15) / 16] : NULL;
}


static void
test_pool(void)
{
    void       *framer;
    size_t      i, used;
    result_t    r;
    llm_mem_t   mem;

    used = 0;
    mem.alloc = pool_alloc;
    mem.free = NULL;
    mem.ctx = &used;

    framer = llm_sse_framing.create(&mem, 100000);

    memset(&r, 0, sizeof(result_t));

    for (i = 0; i < 100; i++) {
        feed(framer, "data: a\nid: 1\neve", 17, &r);
        feed(framer, "nt: x\n\n", 7, &r);
    }

    ok(used <= 256 && r.rc == LLM_AGAIN, "a pool gives %zu bytes, no more",
       used * 16);

    llm_sse_framing.free(framer);
}


static void
test_write(void)
{
    size_t       i, len, at, n;
    u_char      *dst;
    llm_event_t  ev;

    static const struct {
        const char   *type, *id, *retry;
        llm_str_t     data;
        llm_uint_t    lines;
        const char   *out;
        size_t        at;
    } writes[] = {
        { "", NULL, "", llm_string("{}"), 1, "data: {}\n\n", 6 },
        { "", NULL, "", llm_string(""), 1, "data: \n\n", 6 },
        { "", NULL, "", llm_null_string, 1, "data: \n\n", 6 },
        { "t", "7", "250", llm_string("a"), 1,
          "event: t\nid: 7\nretry: 250\ndata: a\n\n", 32 },
        { "t", "", "", llm_string("a"), 1, "event: t\nid: \ndata: a\n\n", 20 },
        { "", NULL, "", llm_string("a\nb"), 2, "data: a\ndata: b\n\n", 0 },
        { "", NULL, "", llm_string("\n"), 2, "data: \ndata: \n\n", 0 },
        { "", "1", "", llm_null_string, 0, "id: 1\n\n", 0 },
        { "", NULL, "5", llm_null_string, 0, "retry: 5\n\n", 0 },

        /* a value cannot make fields */

        { "a\ndata: x", "1\r\n\r\n", "5\rid: 2", llm_string("a\rb\r\nc\r"),
          1, "event: a\nid: 1\nretry: 5\ndata: a\ndata: b\ndata: c\ndata: \n\n",
          0 }
    };

    for (i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        memset(&ev, 0, sizeof(llm_event_t));

        ev.type.data = (u_char *) writes[i].type;
        ev.type.len = strlen(writes[i].type);
        ev.retry.data = (u_char *) writes[i].retry;
        ev.retry.len = strlen(writes[i].retry);
        ev.data = writes[i].data;
        ev.lines = writes[i].lines;

        if (writes[i].id) {
            ev.has_id = 1;
            ev.id.data = (u_char *) writes[i].id;
            ev.id.len = strlen(writes[i].id);
        }

        len = llm_sse_write(NULL, &ev, NULL);
        dst = malloc(len);
        at = 12345;
        n = llm_sse_write(dst, &ev, &at);

        ok(n == len, "write: the length");
        is_mem(dst, n, writes[i].out, strlen(writes[i].out), "write");
        is_int(at, writes[i].at, "write: where the data is");

        free(dst);
    }
}


int
main(void)
{
    test_fixtures();
    test_places();
    test_cr();
    test_large();
    test_pool();
    test_write();

    return done();
}
