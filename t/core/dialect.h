
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the tests of the dialects share: a pool for texts of requests, tables
 * of requests and of events, both given to the functions as exact copies, so
 * that a byte read too far is caught.
 */


#ifndef _DIALECT_H_INCLUDED_
#define _DIALECT_H_INCLUDED_


#include "run.h"


/* memory that is freed as a whole, as nginx's pools are */

typedef struct {
    run_mem_t              run;
    llm_mem_t              mem;        /* without free */
    void                  *p[4096];
    size_t                 n;
} pool_t;


/* a request and what is read in it */

typedef struct {
    const char            *path;
    const char            *body;
    const char            *code;       /* NULL: good */
    const char            *param;
    const char            *told;       /* message, or model */
    const char            *flags;      /* s stream, u usage_asked,
                                          j structured */
} parse_t;


/* an event and what it is */

typedef struct {
    const char            *type;
    const char            *data;       /* NULL: none */
    const char            *what;       /* P preamble, G ping, H hidden,
                                          T terminal, E error, M malformed */
    const char            *state;      /* after it: b begun, o open,
                                          f finished, t terminal, x failed */
} step_t;


static void *
pool_alloc(void *ctx, size_t size)
{
    pool_t  *pool = ctx;

    if (pool->n == sizeof(pool->p) / sizeof(pool->p[0])) {
        abort();
    }

    pool->p[pool->n] = run_alloc(&pool->run, size);

    return pool->p[pool->n] ? pool->p[pool->n++] : NULL;
}


static void
pool_init(pool_t *pool, size_t fail)
{
    run_mem(&pool->run, fail);

    pool->mem.alloc = pool_alloc;
    pool->mem.free = NULL;
    pool->mem.ctx = pool;
    pool->n = 0;
}


static void
pool_free(pool_t *pool)
{
    while (pool->n) {
        run_free(&pool->run, pool->p[--pool->n]);
    }
}


__attribute__((unused))
static llm_str_t
text(pool_t *pool, const char *s, size_t len)
{
    llm_str_t  str;

    str.len = len;
    str.data = pool_alloc(pool, len ? len : 1);

    if (len) {
        memcpy(str.data, s, len);
    }

    return str;
}


__attribute__((unused))
static llm_str_t
cstr(const char *s)
{
    llm_str_t  str;

    str.data = (u_char *) s;
    str.len = s ? strlen(s) : 0;

    return str;
}


__attribute__((unused))
static int
valid(const llm_str_t *json)
{
    return llm_json_scan(json, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
           == LLM_OK;
}


static const llm_endpoint_t *
endpoint(const llm_dialect_t *prefer, const char *path)
{
    llm_str_t             p, id;
    const llm_dialect_t  *dialect;

    p = cstr(path);

    return llm_endpoint_find(&p, prefer, &dialect, &id);
}


__attribute__((unused))
static llm_int_t
parse(llm_request_t *rq, const llm_dialect_t *dialect, const char *path,
    llm_str_t body, const llm_mem_t *mem, llm_error_t *err)
{
    memset(rq, 0xa5, sizeof(llm_request_t));
    memset(err, 0xa5, sizeof(llm_error_t));

    rq->dialect = dialect;
    rq->endpoint = endpoint(dialect, path);
    rq->body = body;

    return dialect->parse(rq, mem, err);
}


__attribute__((unused))
static void
request_flags(const llm_request_t *rq, char *flags)
{
    if (rq->stream) {
        *flags++ = 's';
    }

    if (rq->usage_asked) {
        *flags++ = 'u';
    }

    if (rq->structured) {
        *flags++ = 'j';
    }

    *flags = '\0';
}


__attribute__((unused))
static void
parse_all(const llm_dialect_t *dialect, const parse_t *t, size_t n)
{
    int            good;
    char           flags[8];
    u_char        *body;
    pool_t         pool;
    llm_int_t      rc;
    llm_str_t      s, told;
    llm_error_t    err;
    llm_request_t  rq;

    for ( /* void */ ; n; n--, t++) {
        pool_init(&pool, 0);

        s.len = strlen(t->body);
        s.data = body = exact(t->body, s.len);

        rc = parse(&rq, dialect, t->path, s, &pool.mem, &err);

        if (t->code) {
            good = (rc == LLM_DECLINED && err.status == 400
                    && strcmp(err.code, t->code) == 0
                    && !err.param == !t->param
                    && (!t->param || strcmp(err.param, t->param) == 0));
            told = (rc == LLM_DECLINED) ? err.message : cstr("");

        } else {
            good = (rc == LLM_OK);
            told = good ? rq.model : cstr("");

            if (good) {
                request_flags(&rq, flags);
                good = strcmp(flags, t->flags) == 0;
            }
        }

        good = good && told.len == strlen(t->told)
               && memcmp(told.data, t->told, told.len) == 0;

        if (!ok(good, "parse %s: %.60s", t->path, t->body)) {
            printf("#   rc %d, code %s, told \"%.*s\"\n", (int) rc,
                   rc == LLM_DECLINED ? err.code : "none",
                   (int) told.len, told.data);
        }

        free(body);
        pool_free(&pool);
    }
}


__attribute__((unused))
static llm_str_t
splice(pool_t *pool, const llm_str_t *body, const llm_splice_t *s,
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

    out.data = p = pool_alloc(pool, len + 1);
    from = 0;

    for (i = 0; i < n; i++) {
        if (s[i].offset < from || s[i].offset + s[i].len > body->len) {
            abort();
        }

        memcpy(p, body->data + from, s[i].offset - from);
        p += s[i].offset - from;
        memcpy(p, s[i].text.data, s[i].text.len);
        p += s[i].text.len;
        from = s[i].offset + s[i].len;
    }

    memcpy(p, body->data + from, body->len - from);
    p += body->len - from;
    *p = '\0';

    out.len = p - out.data;

    return out;
}


__attribute__((unused))
static void
answer_init(llm_answer_t *a, const llm_dialect_t *dialect, const char *path,
    const llm_mem_t *mem)
{
    memset(a, 0, sizeof(llm_answer_t));

    a->dialect = dialect;
    a->endpoint = endpoint(dialect, path);
    a->mem = mem;
}


static void
answer_told(const llm_answer_t *a, llm_uint_t what, char *w, char *state)
{
    static const char  bits[] = "PGHTEM";
    llm_uint_t         i;

    for (i = 0; bits[i]; i++) {
        if (what & ((llm_uint_t) 1 << i)) {
            *w++ = bits[i];
        }
    }

    *w = '\0';

    if (a->begun) {
        *state++ = 'b';
    }

    if (a->open) {
        *state++ = 'o';
    }

    if (a->finished) {
        *state++ = 'f';
    }

    if (a->terminal) {
        *state++ = 't';
    }

    if (a->failed) {
        *state++ = 'x';
    }

    *state = '\0';
}


__attribute__((unused))
static llm_int_t
event(llm_answer_t *a, const char *type, const char *data, size_t len,
    llm_uint_t *what)
{
    u_char       *copy, *tcopy;
    llm_int_t     rc;
    llm_event_t   ev;

    memset(&ev, 0, sizeof(llm_event_t));

    copy = exact(data, len);
    tcopy = exact(type, type ? strlen(type) : 0);

    if (type) {
        ev.type.data = tcopy;
        ev.type.len = strlen(type);
    }

    if (data) {
        ev.data.data = copy;
        ev.data.len = len;
        ev.lines = 1;
    }

    rc = a->dialect->event(a, &ev, what);

    free(copy);
    free(tcopy);

    return rc;
}


__attribute__((unused))
static int
steps(const char *name, llm_answer_t *a, const step_t *s, size_t n)
{
    int         good;
    char        what[8], state[8];
    size_t      i;
    llm_int_t   rc;
    llm_uint_t  mask;

    good = 1;

    for (i = 0; i < n; i++) {
        rc = event(a, s[i].type, s[i].data,
                   s[i].data ? strlen(s[i].data) : 0, &mask);

        answer_told(a, mask, what, state);

        if (rc != LLM_OK || strcmp(what, s[i].what) != 0
            || strcmp(state, s[i].state) != 0)
        {
            printf("# step %zu: rc %d what \"%s\" state \"%s\": %.70s\n",
                   i, (int) rc, what, state, s[i].data);
            good = 0;
        }
    }

    return ok(good, "%s", name);
}


#define STEPS(name, a, s)  steps(name, a, s, sizeof(s) / sizeof(s[0]))


/* an error of ours */

__attribute__((unused))
static void
fill(llm_error_t *err, llm_uint_t status, const char *code,
    const char *param, const char *message)
{
    memset(err, 0, sizeof(llm_error_t));

    err->status = status;
    err->code = code;
    err->param = param;
    err->message = cstr(message);
}


/* usage as "prompt/completion/cached/cache_write/reasoning", - for unknown */

__attribute__((unused))
static void
is_usage(const llm_answer_t *a, const char *want, const char *name)
{
    int             i, len;
    char            buf[160];
    const uint64_t  n[5] = { a->usage.prompt, a->usage.completion,
                             a->usage.cached, a->usage.cache_write,
                             a->usage.reasoning };

    len = 0;

    for (i = 0; i < 5; i++) {
        if (a->usage.known & (1 << i)) {
            len += sprintf(buf + len, "%s%llu", i ? "/" : "",
                           (unsigned long long) n[i]);
        } else {
            len += sprintf(buf + len, "%s-", i ? "/" : "");
        }
    }

    is_mem(buf, len, want, strlen(want), name);
}


__attribute__((unused))
static void
is_reason(const llm_answer_t *a, const char *want, const char *name)
{
    is_mem(a->finish_reason, a->finish_reason_len, want, strlen(want), name);
}


/* in one piece a valid text tells the same; a broken one nothing */

static void
plain_whole(const char *name, const llm_dialect_t *dialect, const char *path,
    const char *body, const char *state, int status, const char *reason,
    const char *usage)
{
    char          what[8], got[8];
    llm_str_t     text;
    run_mem_t     m;
    llm_answer_t  a;

    run_mem(&m, 0);
    answer_init(&a, dialect, path, &m.mem);

    text.len = strlen(body);
    text.data = exact(body, text.len);

    if (llm_json_scan(&text, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
        != LLM_OK)
    {
        ok(dialect->plain_whole(&a, &text) == LLM_OK && !a.finished
           && !a.failed && !a.terminal && a.usage.known == 0,
           "whole %s: nothing", name);

    } else {
        ok(dialect->plain_whole(&a, &text) == LLM_OK && a.terminal,
           "whole %s", name);

        a.terminal = 0;
        answer_told(&a, 0, what, got);

        ok(strcmp(got, state) == 0 && a.status == status
           && a.finish_reason_len == strlen(reason)
           && memcmp(a.finish_reason, reason, strlen(reason)) == 0,
           "whole %s: state %s, status %d", name, got, a.status);
        is_usage(&a, usage, name);
    }

    dialect->answer_free(&a);
    free(text.data);

    ok(m.live == 0, "whole %s: nothing left", name);
}


/* a plain answer cut in two at every offset, and byte by byte */

__attribute__((unused))
static void
plain(const char *name, const llm_dialect_t *dialect, const char *path,
    const char *body, const char *state, int status, const char *reason,
    const char *usage)
{
    int           bad, valid;
    char          what[8], got[8];
    size_t        i, len, n;
    u_char       *p;
    run_mem_t     m;
    llm_str_t     text;
    llm_answer_t  a;

    bad = 0;
    len = strlen(body);

    text.data = (u_char *) body;
    text.len = len;

    valid = llm_json_scan(&text, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
            == LLM_OK;

    for (i = 0; i <= len + 1; i++) {
        run_mem(&m, 0);
        answer_init(&a, dialect, path, &m.mem);

        for (n = 0; n < len; /* void */ ) {
            size_t  part = (i > len) ? 1 : (n < i ? i - n : len - n);

            p = exact(body + n, part);
            bad |= (dialect->plain(&a, p, p + part) != LLM_OK);
            free(p);
            n += part;
        }

        bad |= (dialect->plain_end(&a) != LLM_OK);

        /* of a text that ends too soon it is not said that it is whole */

        bad |= valid && !a.terminal;
        bad |= a.terminal && body[0] == '{' && !strchr("} \n", body[len - 1]);

        a.terminal = 0;
        answer_told(&a, 0, what, got);

        bad |= strcmp(got, state) != 0 || a.status != status;
        bad |= (a.finish_reason_len != strlen(reason)
                || memcmp(a.finish_reason, reason, strlen(reason)) != 0);

        if (i == len + 1) {
            ok(!bad, "plain %s: state %s, status %d, reason %.*s", name, got,
               a.status, a.finish_reason_len, a.finish_reason);
            is_usage(&a, usage, name);
        }

        dialect->answer_free(&a);
        dialect->answer_free(&a);

        bad |= m.live != 0;
    }

    ok(!bad, "plain %s: all splits, nothing left", name);

    plain_whole(name, dialect, path, body, state, status, reason, usage);
}


#endif /* _DIALECT_H_INCLUDED_ */
