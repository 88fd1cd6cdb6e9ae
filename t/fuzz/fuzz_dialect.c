
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The dialects, with any bytes.  The first byte says what the rest is:
 *
 *     r  a request body; what is built of it has to be valid JSON, with the
 *        new model, asking for usage, with no limit of the output above
 *        FUZZ_MAX, and else as it was (to jansson, too)
 *     e  a stream's events, one a line; "event:" before one gives its type.
 *        What the masks promise is checked, and that our own texts are valid
 *     p  a plain answer, fed whole and in pieces: both tell the same
 *
 * Whatever it is, it is an error's body, too.
 *
 * The second byte is the endpoint, the third has flags: bit 0 and 1 are
 * hide_usage and structured, the rest the allocation that fails.
 */


#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "llm.h"
#include "mem.h"


#define FUZZ_MAX  1000


typedef struct {
    const llm_dialect_t   *dialect;
    const llm_endpoint_t  *endpoint;
    unsigned               flags;
    u_char                *data;       /* an exact copy */
    size_t                 size;
} fuzz_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void *
fuzz_pool(void *ctx, size_t size)
{
    void        *p;
    fuzz_mem_t  *m = ctx;

    p = fuzz_alloc(ctx, size);

    if (p) {
        check(m->n < sizeof(m->p) / sizeof(m->p[0]));
        m->p[m->n++] = p;
    }

    return p;
}


static void
fuzz_mem(fuzz_mem_t *m, unsigned pool, size_t fail)
{
    memset(m, 0, sizeof(fuzz_mem_t));

    m->mem.alloc = pool ? fuzz_pool : fuzz_alloc;
    m->mem.free = pool ? NULL : fuzz_free;
    m->mem.ctx = m;
    m->fail = fail;
}


static void
fuzz_mem_done(fuzz_mem_t *m)
{
    while (m->n) {
        fuzz_free(m, m->p[--m->n]);
    }

    check(m->live == 0);
}


static int
valid(const llm_str_t *json)
{
    return llm_json_scan(json, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
           == LLM_OK;
}


static llm_str_t
spliced(fuzz_mem_t *pool, const llm_str_t *body, const llm_splice_t *s,
    llm_uint_t n)
{
    size_t      len, from;
    u_char     *p;
    llm_str_t   out;
    llm_uint_t  i;

    len = body->len;

    for (i = 0; i < n; i++) {
        len += s[i].text.len;
    }

    pool->fail = 0;
    out.data = p = fuzz_pool(pool, len + 1);
    from = 0;

    for (i = 0; i < n; i++) {
        check(s[i].offset >= from && s[i].offset + s[i].len <= body->len);

        memcpy(p, body->data + from, s[i].offset - from);
        p += s[i].offset - from;
        memcpy(p, s[i].text.data, s[i].text.len);
        p += s[i].text.len;
        from = s[i].offset + s[i].len;
    }

    memcpy(p, body->data + from, body->len - from);

    out.len = p + (body->len - from) - out.data;

    return out;
}


static void
check_limit(json_t *tree, const char *name)
{
    json_t  *v;

    v = json_object_get(tree, name);

    if (json_is_integer(v) && json_integer_value(v) > FUZZ_MAX) {
        json_object_set_new(tree, name, json_integer(FUZZ_MAX));
    }
}


static int
is_path(const llm_request_t *rq, const char *path)
{
    return rq->endpoint->path.len == strlen(path)
           && memcmp(rq->endpoint->path.data, path, strlen(path)) == 0;
}


/* the same change made in a tree; jansson refuses some valid texts */

static void
check_tree(const llm_request_t *rq, const llm_str_t *out, int asked)
{
    json_t  *old, *new, *options, *usage;

    old = json_loadb((char *) rq->body.data, rq->body.len, JSON_ALLOW_NUL,
                     NULL);

    if (old == NULL) {
        return;
    }

    new = json_loadb((char *) out->data, out->len, JSON_ALLOW_NUL, NULL);
    check(new != NULL);

    if (rq->model.len) {
        json_object_set_new(old, "model", json_string("x\"y"));
    }

    if (is_path(rq, "chat/completions") || is_path(rq, "completions")) {
        check_limit(old, "max_tokens");
        check_limit(old, "max_completion_tokens");

    } else if (is_path(rq, "responses")) {
        check_limit(old, "max_output_tokens");

    } else if (is_path(rq, "messages")) {
        check_limit(old, "max_tokens");
    }

    options = json_object_get(old, "stream_options");
    usage = options ? json_object_get(options, "include_usage") : NULL;

    if (asked && (!usage || json_is_false(usage) || json_is_null(usage))) {

        if (!json_is_object(options)) {
            json_object_set_new(old, "stream_options", json_object());
            options = json_object_get(old, "stream_options");
        }

        json_object_set_new(options, "include_usage", json_true());
    }

    check(json_equal(old, new));

    json_decref(old);
    json_decref(new);
}


static void
check_digests(const llm_request_t *rq)
{
    uint64_t    d[LLM_BOUND_MAX], one;
    llm_uint_t  i, k, n;

    n = rq->dialect->bound(rq, d, LLM_BOUND_MAX);
    check(n <= LLM_BOUND_MAX);

    for (i = 0; i < n; i++) {
        check(d[i] != 0);

        for (k = 0; k < i; k++) {
            check(d[i] != d[k]);
        }
    }

    check(rq->dialect->bound(rq, &one, 1) == (n != 0));
    check(rq->dialect->prefix(rq) == rq->dialect->prefix(rq));
}


static void
fuzz_request(const fuzz_t *f)
{
    int               asked;
    llm_int_t         rc;
    llm_str_t         out;
    fuzz_mem_t        pool;
    llm_uint_t        n;
    llm_error_t       err;
    llm_change_t      change;
    llm_splice_t      s[LLM_SPLICES];
    llm_request_t     rq;
    llm_json_value_t  v;

    static const llm_str_t  name = llm_string("model");

    fuzz_mem(&pool, 1, f->flags >> 2);

    memset(&rq, 0, sizeof(llm_request_t));

    rq.dialect = f->dialect;
    rq.endpoint = f->endpoint;
    rq.body.data = f->data;
    rq.body.len = f->size;

    rc = f->dialect->parse(&rq, &pool.mem, &err);

    if (rc == LLM_DECLINED) {
        check(err.status == 400 && err.code && err.message.len);

        if (f->dialect->error(&err, &pool.mem, &out) == LLM_OK) {
            check(valid(&out));
        }
    }

    if (rc != LLM_OK || !(f->endpoint->flags & LLM_EP_BODY)) {
        fuzz_mem_done(&pool);
        return;
    }

    /* a response may be asked of a stored prompt that names the model */

    check(rq.model.len || is_path(&rq, "responses"));
    check(rq.model.len <= 256);

    check_digests(&rq);

    memset(&change, 0, sizeof(llm_change_t));

    llm_str_set(&change.model, "x\"y");
    change.max_output = FUZZ_MAX;
    change.ask_usage = 1;

    if (f->dialect->build(&rq, &change, &pool.mem, s, &n) == LLM_OK) {
        check(n <= LLM_SPLICES);
        out = spliced(&pool, &rq.body, s, n);

        check(llm_json_scan(&out, LLM_JSON_DEPTH_MAX, &name, &v, 1, NULL)
              == LLM_OK);
        check(llm_json_is(&v, "x\"y", 3) || rq.model.len == 0);

        asked = rq.stream && !rq.usage_asked;

        check_tree(&rq, &out, asked);
    }

    fuzz_mem_done(&pool);
}


/* an event of ours: lines that are known, the last one's data valid */

static void
check_text(const llm_str_t *text)
{
    u_char     *p, *last, *end;
    llm_str_t   json;

    if (text->len == 0) {
        return;
    }

    p = text->data;
    last = p + text->len;

    check(text->len > 2 && last[-1] == '\n' && last[-2] == '\n');

    last--;

    while (p < last) {
        end = memchr(p, '\n', last - p);
        check(end != NULL);

        if (memcmp(p, "data: ", 6) == 0) {
            json.data = p + 6;
            json.len = end - json.data;
            check(valid(&json)
                  || (json.len == 6 && memcmp(json.data, "[DONE]", 6) == 0));

        } else {
            check(*p == ':' || memcmp(p, "event: ", 7) == 0);
        }

        p = end + 1;
    }
}


static llm_int_t
check_texts(const llm_answer_t *a, fuzz_mem_t *pool)
{
    llm_str_t    out;
    llm_error_t  err;

    memset(&err, 0, sizeof(llm_error_t));

    err.status = 502;
    err.code = "truncated";
    llm_str_set(&err.message, "the \"stream\"\n\xff");

    if (a->dialect->stream_error(a, &err, &pool->mem, &out) != LLM_OK) {
        return LLM_ERROR;
    }

    check(out.len);
    check_text(&out);

    if (a->dialect->stream_end(a, &pool->mem, &out) != LLM_OK) {
        return LLM_ERROR;
    }

    check_text(&out);

    a->dialect->ping(a, &out);
    check(out.len);
    check_text(&out);

    return LLM_OK;
}


static llm_int_t
fuzz_event(llm_answer_t *a, const llm_str_t *type, const llm_str_t *line)
{
    u_char        *copy;
    llm_int_t      rc;
    llm_uint_t     what;
    llm_event_t    ev;
    llm_answer_t   old;

    memset(&ev, 0, sizeof(llm_event_t));

    copy = malloc(line->len);
    check(copy != NULL);

    if (line->len) {
        memcpy(copy, line->data, line->len);
    }

    ev.type = *type;
    ev.data.data = copy;
    ev.data.len = line->len;
    ev.lines = (line->len != 1 || *copy != '-');

    old = *a;

    rc = a->dialect->event(a, &ev, &what);

    free(copy);

    if (rc != LLM_OK) {
        check(rc == LLM_ERROR);
        return rc;
    }

    if (what & LLM_EV_MALFORMED) {
        old.data = a->data;
        check(what == LLM_EV_MALFORMED);
        check(memcmp(&old, a, sizeof(llm_answer_t)) == 0);
    }

    check(!(what & LLM_EV_HIDDEN) || (what == LLM_EV_HIDDEN
                                      && a->hide_usage));
    check(!(what & LLM_EV_TERMINAL) || a->terminal);
    check(!(what & LLM_EV_ERROR) || (a->failed && a->status >= 400
                                     && a->status <= 599));
    check(!(what & LLM_EV_PREAMBLE)
          || !(what & (LLM_EV_TERMINAL|LLM_EV_ERROR)));
    check(!(what & LLM_EV_PING) || (what & LLM_EV_PREAMBLE));
    check(old.begun || !a->begun || !(what & LLM_EV_PREAMBLE));
    check(!a->open || a->begun);
    check(!a->open || !a->finished);
    check(a->finish_reason_len <= sizeof(a->finish_reason));

    return LLM_OK;
}


static void
fuzz_events(const fuzz_t *f)
{
    u_char        *p, *last, *end;
    llm_int_t      rc;
    llm_str_t      type, line;
    fuzz_mem_t     mem, pool;
    llm_answer_t   a;

    fuzz_mem(&mem, 0, f->flags >> 2);
    memset(&a, 0, sizeof(llm_answer_t));

    a.dialect = f->dialect;
    a.endpoint = f->endpoint;
    a.mem = &mem.mem;
    a.hide_usage = f->flags;
    a.structured = f->flags >> 1;
    a.want_bound = 1;

    type.len = 0;
    type.data = NULL;
    rc = LLM_OK;

    p = f->data;
    last = p + f->size;

    while (p < last && rc == LLM_OK) {
        end = memchr(p, '\n', last - p);

        if (end == NULL) {
            end = last;
        }

        line.data = p;
        line.len = end - p;

        if (line.len > 6 && memcmp(p, "event:", 6) == 0) {
            type.data = p + 6;
            type.len = line.len - 6;

        } else {
            rc = fuzz_event(&a, &type, &line);
            type.len = 0;

            if (rc == LLM_OK) {
                fuzz_mem(&pool, 1, 0);
                check(check_texts(&a, &pool) == LLM_OK);
                fuzz_mem_done(&pool);
            }
        }

        p = end + 1;
    }

    a.dialect->answer_free(&a);
    fuzz_mem_done(&mem);
}


static void
fuzz_pieces(const fuzz_t *f, llm_answer_t *a, fuzz_mem_t *mem, size_t whole)
{
    size_t      n, part, seed;
    u_char     *copy;
    llm_int_t   rc;

    fuzz_mem(mem, 0, whole ? 0 : f->flags >> 2);
    memset(a, 0, sizeof(llm_answer_t));

    a->dialect = f->dialect;
    a->endpoint = f->endpoint;
    a->mem = &mem->mem;
    a->want_bound = 1;

    seed = f->size;
    rc = LLM_OK;

    for (n = 0; n < f->size && rc == LLM_OK; n += part) {
        seed = seed * 1103515245 + 12345 + f->data[n];
        part = whole ? f->size : (seed >> 16) % 23;

        if (part > f->size - n) {
            part = f->size - n;
        }

        copy = malloc(part);
        check(copy != NULL);
        memcpy(copy, f->data + n, part);

        rc = a->dialect->plain(a, copy, copy + part);

        free(copy);
    }

    if (rc == LLM_OK) {
        rc = a->dialect->plain_end(a);
    }

    check(rc == LLM_OK || mem->fail);

    a->dialect->answer_free(a);
    a->dialect->answer_free(a);
    fuzz_mem_done(mem);

    a->mem = NULL;
}


/* an error is told once it is seen: of two, the last one comes too late */

static void
fuzz_plain(const fuzz_t *f)
{
    llm_str_t         text;
    fuzz_mem_t        mem;
    llm_answer_t      one, many;
    llm_json_value_t  v[2];

    static const llm_str_t  names[] = {
        llm_string("error"),
        llm_string("object")
    };

    fuzz_pieces(f, &one, &mem, 1);
    fuzz_pieces(f, &many, &mem, 0);

    text.data = f->data;
    text.len = f->size;

    if ((mem.fail == 0 || mem.calls < mem.fail)
        && llm_json_scan(&text, LLM_JSON_DEPTH_MAX, names, v, 2, NULL)
           == LLM_OK
        && !v[0].duplicate && !v[1].duplicate)
    {
        check(memcmp(&one, &many, sizeof(llm_answer_t)) == 0);
    }

    fuzz_mem(&mem, 0, 0);
    memset(&one, 0, sizeof(llm_answer_t));

    one.dialect = f->dialect;
    one.endpoint = f->endpoint;
    one.mem = &mem.mem;
    one.want_bound = 1;

    check(one.dialect->plain_whole(&one, &text) == LLM_OK);
    check(one.nbound <= LLM_BOUND_MAX && one.bound_next < LLM_BOUND_MAX);

    one.dialect->answer_free(&one);
    fuzz_mem_done(&mem);
}


static void
fuzz_failure(const fuzz_t *f)
{
    size_t      i;
    llm_str_t   body;
    llm_uint_t  class;

    static const llm_uint_t  statuses[] = { 0, 200, 400, 403, 404, 429, 500 };

    body.data = f->data;
    body.len = f->size;

    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        class = f->dialect->failure(statuses[i], &body);
        check(class > LLM_FAIL_NONE && class <= LLM_FAIL_QUOTA);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_t      f;
    llm_uint_t  i, n;

    if (size < 3 || size > 262144) {
        return 0;
    }

    n = 0;

    for (i = 0; llm_dialects[i]; i++) {
        n += llm_dialects[i]->nendpoints;
    }

    n = (data[1] - (llm_uint_t) '0') % n;

    for (i = 0; n >= llm_dialects[i]->nendpoints; i++) {
        n -= llm_dialects[i]->nendpoints;
    }

    f.dialect = llm_dialects[i];
    f.endpoint = &f.dialect->endpoints[n];
    f.flags = data[2] - (unsigned) '0';
    f.flags &= 0x3f;

    f.size = size - 3;
    f.data = malloc(f.size);
    check(f.data != NULL);
    memcpy(f.data, data + 3, f.size);

    fuzz_failure(&f);

    switch (data[0]) {

    case 'r':
        fuzz_request(&f);
        break;

    case 'e':
        fuzz_events(&f);
        break;

    case 'p':
        fuzz_plain(&f);
        break;
    }

    free(f.data);

    return 0;
}
