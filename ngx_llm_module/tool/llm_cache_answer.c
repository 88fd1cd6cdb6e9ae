
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The answer of a line: read by its dialect as one that a provider sends, so
 * that nothing is imported which a worker would not have stored.  A stream is
 * written anew, event by event, as the workers write it.
 */


#include <string.h>

#include "llm_cache.h"


typedef struct {
    llm_cache_reader_t    *reader;
    llm_entry_t           *entry;
    llm_answer_t           answer;
    llm_cache_out_t        out;
    llm_run_t              runs[LLM_STORE_RUNS];
    uint32_t               nruns;
} llm_cache_stream_t;


static llm_int_t llm_cache_answer_text(llm_cache_reader_t *r,
    const llm_json_value_t *answer, const llm_json_value_t *text,
    llm_str_t *out);
static llm_int_t llm_cache_answer_events(llm_cache_stream_t *s,
    llm_str_t *text);
static llm_int_t llm_cache_answer_event(llm_cache_stream_t *s,
    const llm_event_t *ev);
static llm_int_t llm_cache_answer_run(llm_cache_stream_t *s, size_t len,
    llm_uint_t what);
static llm_int_t llm_cache_answer_keep(llm_cache_stream_t *s);
static llm_int_t llm_cache_answer_fit(llm_cache_reader_t *r,
    const llm_answer_t *a);
static llm_int_t llm_cache_answer_bad(llm_cache_reader_t *r,
    const char *why);


llm_int_t
llm_cache_line_answer(llm_cache_reader_t *r, const llm_request_t *rq,
    const llm_json_value_t *answer, const llm_json_value_t *text,
    llm_entry_t *e)
{
    size_t              len;
    u_char             *p;
    llm_int_t           rc;
    llm_str_t           source;
    llm_answer_t       *a;
    llm_cache_stream_t  s;

    rc = llm_cache_answer_text(r, answer, text, &source);
    if (rc != LLM_OK) {
        return rc;
    }

    memset(&s, 0, sizeof(llm_cache_stream_t));

    s.reader = r;
    s.entry = e;

    a = &s.answer;
    a->dialect = rq->dialect;
    a->endpoint = rq->endpoint;
    a->mem = &llm_cache_heap;
    a->structured = rq->structured;
    a->hide_usage = 1;

    if (e->flags & LLM_ENTRY_STREAM) {
        rc = llm_cache_answer_events(&s, &source);

    } else {
        rc = rq->dialect->plain_whole(a, &source);
        e->text = source;
    }

    if (rc == LLM_OK) {
        rc = llm_cache_answer_fit(r, a);
    }

    if (rc == LLM_OK && (e->flags & LLM_ENTRY_STREAM)) {
        rc = llm_cache_answer_keep(&s);
    }

    if (rc == LLM_OK) {
        len = a->finish_reason_len;
        p = r->arena.mem.alloc(r->arena.mem.ctx, len);

        if (p) {
            memcpy(p, a->finish_reason, len);

            e->finish_reason.data = p;
            e->finish_reason.len = len;
            e->usage = a->usage;

        } else {
            rc = LLM_ERROR;
        }
    }

    rq->dialect->answer_free(a);
    llm_cache_out_free(&s.out);

    return rc;
}


/* a copy, of the arena */

static llm_int_t
llm_cache_answer_text(llm_cache_reader_t *r, const llm_json_value_t *answer,
    const llm_json_value_t *text, llm_str_t *out)
{
    const llm_json_value_t  *v;

    v = (answer->type != LLM_JSON_ABSENT) ? answer : text;

    out->data = r->arena.mem.alloc(r->arena.mem.ctx, v->raw.len);

    if (out->data == NULL) {
        return LLM_ERROR;
    }

    if (v == text) {
        out->len = llm_json_unescape(out->data, v);
        return LLM_OK;
    }

    memcpy(out->data, v->raw.data, v->raw.len);
    out->len = v->raw.len;

    return LLM_OK;
}


static llm_int_t
llm_cache_answer_events(llm_cache_stream_t *s, llm_str_t *text)
{
    void         *framer;
    u_char       *p, *last;
    llm_int_t     rc;
    llm_event_t   ev;

    framer = llm_sse_framing.create(&llm_cache_heap, text->len);
    if (framer == NULL) {
        return LLM_ERROR;
    }

    p = text->data;
    last = p + text->len;

    /* what follows the terminal event is not of the answer */

    for ( ;; ) {
        rc = llm_sse_framing.feed(framer, &p, last, &ev);

        if (rc == LLM_AGAIN) {
            rc = llm_sse_framing.finish(framer, &ev);
        }

        if (rc != LLM_OK) {
            break;
        }

        rc = llm_cache_answer_event(s, &ev);

        if (rc != LLM_OK || s->answer.terminal) {
            break;
        }
    }

    llm_sse_framing.free(framer);

    if (rc == LLM_DONE) {
        return LLM_OK;
    }

    return rc;
}


static llm_int_t
llm_cache_answer_event(llm_cache_stream_t *s, const llm_event_t *ev)
{
    size_t      len;
    u_char     *p;
    llm_uint_t  what;

    if (ev->lines && ev->data.len == 0) {
        return LLM_OK;
    }

    if (s->answer.dialect->event(&s->answer, ev, &what) != LLM_OK) {
        return LLM_ERROR;
    }

    if (what & LLM_EV_MALFORMED) {
        return llm_cache_answer_bad(s->reader, "malformed");
    }

    if (what & LLM_EV_ERROR) {
        return llm_cache_answer_bad(s->reader, "failed");
    }

    len = llm_sse_write(NULL, ev, NULL);

    p = llm_cache_reserve(&s->out, len);
    if (p == NULL) {
        return LLM_ERROR;
    }

    (void) llm_sse_write(p, ev, NULL);
    s->out.len += len;

    return llm_cache_answer_run(s, len, what);
}


static llm_int_t
llm_cache_answer_run(llm_cache_stream_t *s, size_t len, llm_uint_t what)
{
    uint32_t    flags;
    llm_run_t  *run;

    flags = (what & LLM_EV_HIDDEN) ? LLM_RUN_HIDDEN : 0;

    if (s->nruns && s->runs[s->nruns - 1].flags == flags) {
        s->runs[s->nruns - 1].len += len;
        return LLM_OK;
    }

    if (s->nruns == LLM_STORE_RUNS) {
        return llm_cache_answer_bad(s->reader, "too-large");
    }

    run = &s->runs[s->nruns++];
    run->len = len;
    run->flags = flags;

    return LLM_OK;
}


static llm_int_t
llm_cache_answer_keep(llm_cache_stream_t *s)
{
    size_t        size;
    u_char       *p;
    llm_mem_t    *mem;
    llm_entry_t  *e;

    e = s->entry;
    mem = &s->reader->arena.mem;
    size = s->nruns * sizeof(llm_run_t);

    p = mem->alloc(mem->ctx, size + s->out.len);
    if (p == NULL) {
        return LLM_ERROR;
    }

    memcpy(p, s->runs, size);
    memcpy(p + size, s->out.data, s->out.len);

    e->runs = (llm_run_t *) p;
    e->nruns = s->nruns;
    e->text.data = p + size;
    e->text.len = s->out.len;

    if (s->answer.usage.known) {
        e->flags |= LLM_ENTRY_USAGE;
    }

    return LLM_OK;
}


/* would a worker have kept it? */

static llm_int_t
llm_cache_answer_fit(llm_cache_reader_t *r, const llm_answer_t *a)
{
    const char  *why;

    why = a->dialect->caching->unfit(a);

    if (why == NULL && !a->terminal) {
        why = "unfinished";
    }

    return why ? llm_cache_answer_bad(r, why) : LLM_OK;
}


static llm_int_t
llm_cache_answer_bad(llm_cache_reader_t *r, const char *why)
{
    snprintf(r->why, sizeof(r->why), "the answer is not fit to keep: %s",
             why);

    return LLM_DECLINED;
}
