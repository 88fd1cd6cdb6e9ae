
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * From another worker to a flight of this one: what is led there is followed
 * here by as many as want, for one link.  The flight has a log of its own, so
 * whoever comes later in this worker is shown all of it, and how fast they
 * read is no matter of the other worker's.
 *
 * It ends with what the other worker tells of the end, or when that is lost,
 * or when nobody is left who reads.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_MIRROR_MESSAGE  (4 * 1024 * 1024) /* bytes, of an end: an
                                                          error's body, mostly */


static void ngx_http_llm_mirror_run(ngx_http_llm_mirror_t *m);
static ngx_int_t ngx_http_llm_mirror_read(ngx_http_llm_mirror_t *m);
static ngx_int_t ngx_http_llm_mirror_room(ngx_http_llm_mirror_t *m,
    u_char **p);
static ngx_int_t ngx_http_llm_mirror_keep(ngx_http_llm_mirror_t *m, u_char *p);
static ngx_int_t ngx_http_llm_mirror_message(ngx_http_llm_mirror_t *m);
static ngx_int_t ngx_http_llm_mirror_record(ngx_http_llm_mirror_t *m);
static ngx_int_t ngx_http_llm_mirror_head(ngx_http_llm_mirror_t *m);
static ngx_int_t ngx_http_llm_mirror_end(ngx_http_llm_mirror_t *m);
static ngx_uint_t ngx_http_llm_mirror_full(ngx_http_llm_flight_t *f);
static void ngx_http_llm_mirror_feed(ngx_http_llm_flight_t *f, u_char *p,
    size_t len);


/* NULL: there is no link to be had, or no memory */

ngx_http_llm_flight_t *
ngx_http_llm_mirror_create(llm_place_t *place, ngx_http_llm_ctx_t *ctx)
{
    llm_uint_t                link;
    ngx_http_llm_flight_t    *f;
    ngx_http_llm_mirror_t    *m;
    ngx_http_llm_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_llm_module);

    m = ngx_calloc(sizeof(ngx_http_llm_mirror_t), ngx_cycle->log);
    if (m == NULL) {
        return NULL;
    }

    f = ngx_http_llm_flight_create();
    if (f == NULL) {
        ngx_free(m);
        return NULL;
    }

    if (llm_link_open(ngx_http_llm_worker, place, &link) != LLM_OK) {
        ngx_http_llm_flight_unref(f);
        ngx_free(m);
        return NULL;
    }

    m->flight = f;
    m->link = link;

    llm_link_set(ngx_http_llm_worker, link, m);

    f->mirror = m;
    f->mirrored = 1;
    f->form = place->form;
    f->max = llcf->max_response;
    f->open = 1;
    f->answer.dialect = ctx->dialect;
    f->answer.endpoint = ctx->endpoint;

    ngx_memcpy(f->key, ctx->cache->key, LLM_KEY_LEN);

    ngx_http_llm_coalesce_list(f);
    ngx_http_llm_worker_watch();

    return f;
}


/* a link whose reader is this worker has rung */

void
ngx_http_llm_mirror_ring(ngx_uint_t link)
{
    ngx_http_llm_mirror_t  *m;

    m = llm_link_get(ngx_http_llm_worker, link);

    if (m) {
        ngx_http_llm_mirror_run(m);
    }
}


/* a reader that was behind has taken something */

void
ngx_http_llm_mirror_resume(ngx_http_llm_mirror_t *m)
{
    if (m->waiting && !ngx_http_llm_mirror_full(m->flight)) {
        ngx_http_llm_mirror_run(m);
    }
}


static void
ngx_http_llm_mirror_run(ngx_http_llm_mirror_t *m)
{
    off_t                   appended;
    ngx_int_t               rc;
    const char             *error;
    ngx_http_llm_flight_t  *f;

    f = m->flight;
    appended = f->appended;
    error = "worker_lost";

    m->waiting = 0;

    do {
        rc = ngx_http_llm_mirror_read(m);
    } while (rc == NGX_OK);

    if (rc == NGX_BUSY) {
        m->waiting = 1;

    } else if (rc == NGX_AGAIN) {

        switch (llm_link_state(ngx_http_llm_worker, m->link)) {

        case LLM_LINK_OPEN:
            break;

        case LLM_LINK_DONE:

            /* without an end: we were too far behind */

            error = "reader_too_slow";
            rc = NGX_ERROR;
            break;

        default:

            /* refused or lost */

            rc = NGX_ERROR;
        }
    }

    if (rc == NGX_ERROR && !f->ended) {
        ngx_http_llm_lead_lost(f, error);
    }

    if (f->ended) {

        /* all of it is here */

        f->refs++;
        ngx_http_llm_mirror_close(m);

        if (!f->lost) {
            ngx_http_llm_flight_wake(f);
        }

        ngx_http_llm_flight_unref(f);
        return;
    }

    if (f->released && (f->appended != appended || f->nreaders == 0)) {
        ngx_http_llm_flight_wake(f);
    }
}


/*
 * A piece of a message.  NGX_OK: there was one, NGX_AGAIN: there is none now,
 * NGX_BUSY: the only reader is behind, NGX_DONE: it was the last, NGX_ERROR.
 */

static ngx_int_t
ngx_http_llm_mirror_read(ngx_http_llm_mirror_t *m)
{
    size_t      n, size;
    u_char     *p;
    ngx_int_t   rc;

    if (m->got < sizeof(ngx_http_llm_msg_t)) {

        if (m->got == 0 && ngx_http_llm_mirror_full(m->flight)) {
            return NGX_BUSY;
        }

        n = llm_link_read(ngx_http_llm_worker, m->link,
                          (u_char *) &m->msg + m->got,
                          sizeof(ngx_http_llm_msg_t) - m->got);
        m->got += n;

        if (m->got < sizeof(ngx_http_llm_msg_t)) {
            return n ? NGX_OK : NGX_AGAIN;
        }
    }

    size = m->msg.len - (m->got - sizeof(ngx_http_llm_msg_t));

    if (size) {

        if (ngx_http_llm_mirror_room(m, &p) != NGX_OK) {
            return NGX_ERROR;
        }

        n = llm_link_read(ngx_http_llm_worker, m->link,
                          p + m->got - sizeof(ngx_http_llm_msg_t), size);
        m->got += n;

        if (n < size) {
            if (ngx_http_llm_mirror_keep(m, p) != NGX_OK) {
                return NGX_ERROR;
            }

            return n ? NGX_OK : NGX_AGAIN;
        }
    }

    rc = ngx_http_llm_mirror_message(m);

    m->got = 0;

    return rc;
}


/*
 * Where the message is put together.  A record that is there in one piece goes
 * straight to its place in the log.
 */

static ngx_int_t
ngx_http_llm_mirror_room(ngx_http_llm_mirror_t *m, u_char **p)
{
    if (m->text) {
        *p = m->text;
        return NGX_OK;
    }

    if (m->msg.type == NGX_HTTP_LLM_MSG_RECORD) {
        *p = ngx_http_llm_flight_reserve(m->flight, m->msg.len);

        return *p ? NGX_OK : NGX_ERROR;
    }

    if (m->msg.len > NGX_HTTP_LLM_MIRROR_MESSAGE) {
        return NGX_ERROR;
    }

    m->text = ngx_alloc(m->msg.len, ngx_cycle->log);
    *p = m->text;

    return *p ? NGX_OK : NGX_ERROR;
}


/* the rest comes later, and until then what was reserved may be given back */

static ngx_int_t
ngx_http_llm_mirror_keep(ngx_http_llm_mirror_t *m, u_char *p)
{
    if (m->text) {
        return NGX_OK;
    }

    m->text = ngx_alloc(m->msg.len, ngx_cycle->log);
    if (m->text == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(m->text, p, m->got - sizeof(ngx_http_llm_msg_t));

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_mirror_message(ngx_http_llm_mirror_t *m)
{
    ngx_int_t  rc;

    switch (m->msg.type) {

    case NGX_HTTP_LLM_MSG_RECORD:
        rc = ngx_http_llm_mirror_record(m);
        break;

    case NGX_HTTP_LLM_MSG_NAME:
        m->flight->name_len = ngx_min(m->msg.len, sizeof(m->flight->name));
        ngx_memcpy(m->flight->name, m->text, m->flight->name_len);

        rc = NGX_OK;
        break;

    case NGX_HTTP_LLM_MSG_HEAD:
        rc = ngx_http_llm_mirror_head(m);
        break;

    default:
        rc = ngx_http_llm_mirror_end(m);
    }

    if (m->text) {
        ngx_free(m->text);
        m->text = NULL;
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_mirror_record(ngx_http_llm_mirror_t *m)
{
    u_char                 *p;
    ngx_http_llm_flight_t  *f;

    f = m->flight;

    if (m->text) {
        p = ngx_http_llm_flight_reserve(f, m->msg.len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(p, m->text, m->msg.len);

    } else {
        p = f->last->last;
    }

    if (f->stream && !f->answer.begun) {

        /* a ping differs before and after */

        ngx_http_llm_mirror_feed(f, p, m->msg.len);
    }

    ngx_http_llm_flight_commit(f, m->msg.len, m->msg.data, m->msg.flags);

    if (f->nreaders == 0) {
        ngx_http_llm_flight_trim(f);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_mirror_head(ngx_http_llm_mirror_t *m)
{
    ngx_str_t               provider, model, type;
    ngx_http_llm_head_t     head;
    ngx_http_llm_flight_t  *f;

    f = m->flight;

    ngx_memcpy(&head, m->text, sizeof(ngx_http_llm_head_t));

    provider.data = m->text + sizeof(ngx_http_llm_head_t);
    provider.len = head.provider;
    model.data = provider.data + provider.len;
    model.len = head.model;
    type.data = model.data + model.len;
    type.len = head.content_type;

    if (ngx_http_llm_coalesce_strings(f, &provider, &model, &type) != NGX_OK) {
        return NGX_ERROR;
    }

    f->content_length = head.content_length;
    f->status = head.status;
    f->stream = head.stream;
    f->ids = head.ids;
    f->usage = head.usage;
    f->head = 1;
    f->released = head.released;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_mirror_end(ngx_http_llm_mirror_t *m)
{
    u_char                 *p;
    ngx_http_llm_end_t      end;
    ngx_http_llm_flight_t  *f;

    f = m->flight;

    ngx_memcpy(&end, m->text, sizeof(ngx_http_llm_end_t));

    f->answer.usage = end.usage;
    f->answer.finished = end.finished;
    f->cost = end.cost;
    f->wait = end.wait;
    f->failure = end.failure;
    f->priced = end.priced;
    f->spent = end.spent;
    f->told = end.told;
    f->end_marker = end.end_marker;
    f->ids = end.ids;

    ngx_memcpy(f->answer.finish_reason, end.finish, end.finish_len);
    f->answer.finish_reason_len = end.finish_len;

    p = m->text + sizeof(ngx_http_llm_end_t);

    f->reason = ngx_http_llm_failure_name(p, end.reason);
    p += end.reason;

    ngx_http_llm_flight_forget(f);

    if (end.failed) {

        f->failed = 1;
        f->error.status = end.status;

        /* message, and behind it the code, ended by a zero */

        f->words.data = ngx_alloc(end.message + end.code + 1, ngx_cycle->log);
        if (f->words.data == NULL) {
            return NGX_ERROR;
        }

        f->words.len = end.message;
        ngx_memcpy(f->words.data, p + end.code, end.message);
        ngx_memcpy(f->words.data + end.message, p, end.code);
        f->words.data[end.message + end.code] = '\0';

        f->error.message = f->words;
        f->error.code = end.code ? (char *) f->words.data + end.message
                                 : NULL;
    }

    p += end.code + end.message;

    if (end.error_body) {
        f->error_body.data = ngx_alloc(end.error_body, ngx_cycle->log);
        if (f->error_body.data == NULL) {
            return NGX_ERROR;
        }

        f->error_body.len = end.error_body;
        ngx_memcpy(f->error_body.data, p, end.error_body);
    }

    f->ended = 1;

    return NGX_DONE;
}


/* who reads alone is waited for, once the flight is not open any more; but the
 * other worker may have others that wait for us */

static ngx_uint_t
ngx_http_llm_mirror_full(ngx_http_llm_flight_t *f)
{
    return !f->open && f->nreaders == 1
           && f->appended - f->trimmed > (off_t) f->max;
}


/* the flight stays as long as somebody has it; the link does not */

void
ngx_http_llm_mirror_close(ngx_http_llm_mirror_t *m)
{
    ngx_http_llm_flight_t  *f;

    f = m->flight;

    ngx_http_llm_coalesce_leave(f);

    llm_link_set(ngx_http_llm_worker, m->link, NULL);
    llm_link_close(ngx_http_llm_worker, m->link);

    f->mirror = NULL;

    if (m->text) {
        ngx_free(m->text);
    }

    ngx_free(m);

    ngx_http_llm_flight_unref(f);
}


/*
 * An error is about to be told in a stream, and how depends on what was said:
 * of an answer that another worker has read only the beginning is known here.
 */

void
ngx_http_llm_mirror_answer(ngx_http_llm_flight_t *f)
{
    llm_usage_t            usage;
    const llm_dialect_t   *dialect;
    const llm_endpoint_t  *endpoint;
    ngx_http_llm_block_t  *b;

    if (!f->mirrored || !f->stream || f->trimmed != f->base) {
        return;
    }

    f->mirrored = 0;

    dialect = f->answer.dialect;
    endpoint = f->answer.endpoint;
    usage = f->answer.usage;

    dialect->answer_free(&f->answer);

    ngx_memzero(&f->answer, sizeof(llm_answer_t));

    f->answer.mem = &f->mem;
    f->answer.dialect = dialect;
    f->answer.endpoint = endpoint;

    for (b = f->first; b; b = b->next) {
        ngx_http_llm_mirror_feed(f, b->start, b->last - b->start);
    }

    f->answer.usage = usage;
}


/* whole events, as a provider sends them */

static void
ngx_http_llm_mirror_feed(ngx_http_llm_flight_t *f, u_char *p, size_t len)
{
    void        *framer;
    u_char      *last;
    llm_uint_t   what;
    llm_event_t  ev;

    framer = llm_sse_framing.create(&f->mem, NGX_HTTP_LLM_EVENT_MAX);

    if (framer == NULL) {
        return;
    }

    last = p + len;

    while (llm_sse_framing.feed(framer, &p, last, &ev) == LLM_OK) {
        if (f->answer.dialect->event(&f->answer, &ev, &what) != LLM_OK) {
            break;
        }
    }

    llm_sse_framing.free(framer);
}
