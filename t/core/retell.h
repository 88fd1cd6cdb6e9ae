
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the tests of folding and unfolding share: both done with exact copies
 * and with every allocation failing once, JSON compared by content, a stream
 * read by its dialect.
 */


#ifndef _RETELL_H_INCLUDED_
#define _RETELL_H_INCLUDED_


#include "dialect.h"


typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const llm_caching_t   *caching;    /* fold and unfold of it */
} retell_t;


/* the member whose name is written so in another object */

static void
retell_member(const llm_json_value_t *object, const llm_str_t *name,
    llm_json_value_t *value)
{
    llm_str_t         text;
    llm_json_value_t  v;

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw.data = name->data - 1;
    v.raw.len = name->len + 2;
    v.type = LLM_JSON_STRING;
    v.escaped = 1;

    text.data = malloc(v.raw.len);
    text.len = llm_json_unescape(text.data, &v);

    (void) llm_json_find(&object->raw, &text, value, 1);

    free(text.data);
}


/* 1 if both say the same: objects in any order, strings however escaped,
 * numbers as they are written */

static int
retell_same(const llm_json_value_t *a, const llm_json_value_t *b)
{
    int                good;
    size_t             n;
    u_char            *p, *pos, *pos2;
    llm_str_t          name;
    llm_uint_t         members, members2;
    llm_json_value_t   v, v2;

    if (a->type != b->type) {
        return 0;
    }

    pos = pos2 = NULL;

    switch (a->type) {

    case LLM_JSON_STRING:
        p = malloc(a->raw.len);
        n = llm_json_unescape(p, a);
        good = llm_json_is(b, (char *) p, n);
        free(p);
        return good;

    case LLM_JSON_ARRAY:

        while (llm_json_next(&a->raw, &pos, NULL, &v) == LLM_OK) {
            if (llm_json_next(&b->raw, &pos2, NULL, &v2) != LLM_OK
                || !retell_same(&v, &v2))
            {
                return 0;
            }
        }

        return llm_json_next(&b->raw, &pos2, NULL, &v2) == LLM_DONE;

    case LLM_JSON_OBJECT:
        members = members2 = 0;

        while (llm_json_next(&a->raw, &pos, &name, &v) == LLM_OK) {
            members++;
            retell_member(b, &name, &v2);

            if (!retell_same(&v, &v2)) {
                return 0;
            }
        }

        while (llm_json_next(&b->raw, &pos2, &name, &v2) == LLM_OK) {
            members2++;
        }

        return members == members2;

    default:
        return a->raw.len == b->raw.len
               && memcmp(a->raw.data, b->raw.data, a->raw.len) == 0;
    }
}


static int
retell_equal(const llm_str_t *a, const llm_str_t *b)
{
    llm_json_value_t  va, vb;

    if (!valid(a) || !valid(b)) {
        return 0;
    }

    memset(&va, 0, sizeof(llm_json_value_t));

    va.type = LLM_JSON_OBJECT;
    vb = va;
    va.raw = *a;
    vb.raw = *b;

    return retell_same(&va, &vb);
}


/*
 * One of the two, of an exact copy; *out from malloc().  With memory that
 * can't be freed and with memory that can, where nothing else may be left,
 * and with each allocation failing.
 */

static llm_int_t
retell(const retell_t *t, int unfold, const char *s, size_t len,
    llm_str_t *out)
{
    int                    bad;
    size_t                 k;
    pool_t                 pool;
    llm_int_t              rc, again;
    llm_str_t              copy, got;
    run_mem_t              m;
    const llm_endpoint_t  *ep;

    ep = endpoint(t->dialect, t->path);
    copy.data = exact(s, len);
    copy.len = len;

    pool_init(&pool, 0);

    rc = unfold ? t->caching->unfold(ep, &copy, 1, &pool.mem, &got)
                : t->caching->fold(ep, &copy, &pool.mem, &got);

    out->len = 0;
    out->data = NULL;

    if (rc == LLM_OK) {
        out->len = got.len;
        out->data = exact(got.data, got.len);
    }

    pool_free(&pool);

    for (bad = 0, k = 0; ; k++) {
        run_mem(&m, k);

        again = unfold ? t->caching->unfold(ep, &copy, 1, &m.mem, &got)
                       : t->caching->fold(ep, &copy, &m.mem, &got);

        if (again == LLM_OK) {
            bad += (rc != LLM_OK || got.len != out->len
                    || memcmp(got.data, out->data, got.len) != 0);
            run_free(&m, got.data);

        } else if (k == 0 || m.calls < k) {
            bad += (again != rc);

        } else {
            bad += (again != LLM_ERROR);
        }

        bad += (m.live != 0);

        if (k && m.calls < k) {
            break;
        }
    }

    if (bad) {
        ok(0, "memory: %d faults of %s: %.60s", bad,
           unfold ? "unfold" : "fold", s);
    }

    free(copy.data);

    return rc;
}


/* 1 if the dialect takes the stream for a whole one that tells what the plain
 * answer tells, and has as many events as it should at least */

static int
retell_stream(const retell_t *t, const llm_str_t *stream,
    const llm_str_t *plain, llm_uint_t least)
{
    int           good;
    void         *framer;
    u_char       *pos, *last;
    llm_uint_t    n, what;
    run_mem_t     m;
    llm_event_t   ev;
    llm_answer_t  a, b;

    run_mem(&m, 0);
    answer_init(&a, t->dialect, t->path, &m.mem);
    answer_init(&b, t->dialect, t->path, &m.mem);

    framer = llm_sse_framing.create(&m.mem, stream->len);
    pos = stream->data;
    last = pos + stream->len;
    good = 1;
    what = 0;

    for (n = 0; llm_sse_framing.feed(framer, &pos, last, &ev) == LLM_OK; n++) {
        good = good && !a.terminal && ev.lines == 1 && ev.type.len
               && a.dialect->event(&a, &ev, &what) == LLM_OK
               && !(what & (LLM_EV_ERROR|LLM_EV_MALFORMED));
    }

    good = good && llm_sse_framing.finish(framer, &ev) == LLM_DONE
           && (what & LLM_EV_TERMINAL) && a.terminal && a.finished
           && !a.failed && !a.open && n >= least
           && b.dialect->plain_whole(&b, plain) == LLM_OK
           && b.finished
           && a.finish_reason_len == b.finish_reason_len
           && memcmp(a.finish_reason, b.finish_reason, a.finish_reason_len)
              == 0
           && memcmp(&a.usage, &b.usage, sizeof(llm_usage_t)) == 0;

    llm_sse_framing.free(framer);
    a.dialect->answer_free(&a);
    b.dialect->answer_free(&b);

    return good && m.live == 0;
}


/* x unfolds to a stream that folds to x again; *stream from malloc() */

__attribute__((unused))
static void
retell_there_and_back(const retell_t *t, const char *name, const char *x,
    llm_uint_t least, llm_str_t *stream)
{
    llm_int_t  rc;
    llm_str_t  plain, back, s;

    plain = cstr(x);

    rc = retell(t, 1, x, strlen(x), &s);

    if (!ok(rc == LLM_OK, "unfold: %s", name)) {
        printf("#   rc %d\n", (int) rc);
        *stream = s;
        return;
    }

    ok(retell_stream(t, &s, &plain, least), "its stream is whole: %s", name);

    rc = retell(t, 0, (char *) s.data, s.len, &back);

    if (!ok(rc == LLM_OK && retell_equal(&plain, &back), "and back: %s",
            name))
    {
        printf("#   rc %d\n#   want: %s\n#   got:  %.*s\n#   of: %.*s\n",
               (int) rc, x, (int) back.len, back.data, (int) s.len, s.data);
    }

    free(back.data);
    *stream = s;
}


__attribute__((unused))
static void
retell_folds(const retell_t *t, const char *name, const char *stream,
    const char *want)
{
    llm_int_t  rc;
    llm_str_t  out, plain;

    plain = cstr(want);

    rc = retell(t, 0, stream, strlen(stream), &out);

    if (!ok(rc == LLM_OK && retell_equal(&plain, &out), "fold: %s", name)) {
        printf("#   rc %d\n#   want: %s\n#   got:  %.*s\n", (int) rc, want,
               (int) out.len, out.data);
    }

    free(out.data);
}


__attribute__((unused))
static void
retell_declined(const retell_t *t, int unfold, const char *name,
    const char *s)
{
    llm_str_t  out;

    is_int(retell(t, unfold, s, strlen(s), &out), LLM_DECLINED, name);
    free(out.data);
}


#endif /* _RETELL_H_INCLUDED_ */
