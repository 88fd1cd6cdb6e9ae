
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * From a flight of this worker to another one, in which somebody follows it:
 * a reader of the flight whose client is a link (share/llm_share.h).  It says
 * the flight's name at once, the head when the flight may be shown, then each record of the log as it
 * stands there, at last what is told of the end; a message may be larger than
 * the link's ring, and goes there piece by piece.
 *
 * It lives as long as both ends want: the other worker rings when it has made
 * room, or has nobody left who reads.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_STALL  1000               /* ms: a worker that takes
                                                  nothing while others wait */


static void ngx_http_llm_outlet_open(ngx_uint_t link);
static void ngx_http_llm_outlet_wake(ngx_http_llm_reader_t *rd);
static void ngx_http_llm_outlet_handler(ngx_event_t *ev);
static void ngx_http_llm_outlet_wait(ngx_http_llm_outlet_t *o);
static void ngx_http_llm_outlet_stalled(ngx_event_t *ev);
static void ngx_http_llm_outlet_resume(ngx_http_llm_outlet_t *o);
static ngx_int_t ngx_http_llm_outlet_send(ngx_http_llm_outlet_t *o);
static ngx_int_t ngx_http_llm_outlet_next(ngx_http_llm_outlet_t *o);
static ngx_int_t ngx_http_llm_outlet_record(ngx_http_llm_outlet_t *o);
static ngx_int_t ngx_http_llm_outlet_head(ngx_http_llm_outlet_t *o);
static ngx_int_t ngx_http_llm_outlet_end(ngx_http_llm_outlet_t *o);
static void ngx_http_llm_outlet_message(ngx_http_llm_outlet_t *o,
    ngx_uint_t type, u_char *text, size_t len);
static void ngx_http_llm_outlet_close(ngx_http_llm_outlet_t *o,
    llm_link_e how);


/* a link whose writer is this worker has rung */

void
ngx_http_llm_outlet_ring(ngx_uint_t link)
{
    ngx_http_llm_outlet_t  *o;

    o = llm_link_get(ngx_http_llm_worker, link);

    if (o == NULL) {
        ngx_http_llm_outlet_open(link);
        return;
    }

    ngx_http_llm_outlet_handler(&o->event);
}


/* somebody in another worker wants one of our flights */

static void
ngx_http_llm_outlet_open(ngx_uint_t link)
{
    uint64_t                id;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_outlet_t  *o;

    id = llm_link_wanted(ngx_http_llm_worker, link);

    if (id == 0) {
        return;
    }

    f = ngx_http_llm_coalesce_get(id);

    if (f == NULL) {
        llm_link_end(ngx_http_llm_worker, link, LLM_LINK_REFUSED);
        return;
    }

    o = ngx_calloc(sizeof(ngx_http_llm_outlet_t), ngx_cycle->log);

    if (o == NULL) {
        llm_link_end(ngx_http_llm_worker, link, LLM_LINK_REFUSED);
        return;
    }

    o->link = link;
    o->reader.wake = ngx_http_llm_outlet_wake;
    o->event.handler = ngx_http_llm_outlet_handler;
    o->event.data = o;
    o->event.log = ngx_cycle->log;

    o->stall.handler = ngx_http_llm_outlet_stalled;
    o->stall.data = o;
    o->stall.log = ngx_cycle->log;

    llm_link_set(ngx_http_llm_worker, link, o);

    f->refs++;
    f->noutlets++;
    ngx_http_llm_flight_attach(f, &o->reader);

    ngx_http_llm_worker_watch();

    ngx_http_llm_outlet_handler(&o->event);
}


static void
ngx_http_llm_outlet_wake(ngx_http_llm_reader_t *rd)
{
    ngx_http_llm_outlet_t  *o;

    o = (ngx_http_llm_outlet_t *) rd;

    ngx_post_event(&o->event, &ngx_posted_events);
}


static void
ngx_http_llm_outlet_handler(ngx_event_t *ev)
{
    off_t                   taken;
    ngx_int_t               rc;
    ngx_http_llm_outlet_t  *o;
    ngx_http_llm_flight_t  *f;

    o = ev->data;
    f = o->reader.flight;

    if (llm_link_gone(ngx_http_llm_worker, o->link)) {
        ngx_http_llm_outlet_close(o, LLM_LINK_DONE);
        return;
    }

    if (f->lost) {

        /* whoever was shown nothing asks again */

        ngx_http_llm_outlet_close(o, LLM_LINK_LOST);
        return;
    }

    if (o->reader.failed) {

        /* too far behind: without an end it is known */

        ngx_http_llm_outlet_close(o, LLM_LINK_DONE);
        return;
    }

    taken = o->taken;

    do {
        rc = ngx_http_llm_outlet_send(o);

        if (rc == NGX_OK && o->ending) {
            ngx_http_llm_outlet_close(o, LLM_LINK_DONE);
            return;
        }

        if (rc == NGX_OK) {
            rc = ngx_http_llm_outlet_next(o);
        }

    } while (rc == NGX_OK);

    llm_link_flush(ngx_http_llm_worker, o->link);

    if (rc == NGX_ERROR) {
        ngx_http_llm_outlet_close(o, LLM_LINK_LOST);
        return;
    }

    if (o->stall.timer_set && o->taken != taken) {
        ngx_del_timer(&o->stall);
    }

    if (!f->open) {
        ngx_http_llm_outlet_wait(o);
    }
}


/* a flight that is not held for others any more is read no faster than other
 * workers take it; but not if one of them takes nothing */

static void
ngx_http_llm_outlet_wait(ngx_http_llm_outlet_t *o)
{
    ngx_http_llm_flight_t  *f;

    f = o->reader.flight;

    if (!o->busy || f->nreaders == 1) {

        if (o->stall.timer_set) {
            ngx_del_timer(&o->stall);
        }

    } else if (!o->stall.timer_set) {
        ngx_add_timer(&o->stall, NGX_HTTP_LLM_STALL);
    }

    ngx_http_llm_outlet_resume(o);
}


static void
ngx_http_llm_outlet_stalled(ngx_event_t *ev)
{
    ngx_http_llm_outlet_t     *o;
    ngx_http_llm_main_conf_t  *lmcf;

    o = ev->data;

    if (o->reader.flight->nreaders > 1) {

        lmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                                   ngx_http_llm_module);

        (void) ngx_atomic_fetch_add(&lmcf->shared->slow, 1);

        o->reader.failed = 1;
        ngx_http_llm_outlet_handler(&o->event);
    }
}


/* the provider may have been let wait */

static void
ngx_http_llm_outlet_resume(ngx_http_llm_outlet_t *o)
{
    ngx_http_llm_flight_t   *f;
    ngx_http_llm_attempt_t  *a;

    f = o->reader.flight;
    a = f->lead ? f->lead->attempt : NULL;

    if (a && a->closed) {
        ngx_http_llm_attempt_resume(a, NULL);
    }
}


/* bytes that some other worker has not got yet */

off_t
ngx_http_llm_outlet_behind(ngx_http_llm_flight_t *f)
{
    off_t                   behind, most;
    ngx_queue_t            *q;
    ngx_http_llm_outlet_t  *o;

    if (f->nreaders <= 1) {
        return f->appended - f->trimmed;
    }

    most = 0;

    if (f->noutlets == 0) {
        return most;
    }

    for (q = ngx_queue_head(&f->readers);
         q != ngx_queue_sentinel(&f->readers);
         q = ngx_queue_next(q))
    {
        o = ngx_queue_data(q, ngx_http_llm_outlet_t, reader.queue);

        if (o->reader.request == NULL && !o->reader.failed) {
            behind = f->appended - f->base - o->taken;
            most = ngx_max(most, behind);
        }
    }

    return most;
}


/* the message that is on its way; NGX_AGAIN: there is no more room for now */

static ngx_int_t
ngx_http_llm_outlet_send(ngx_http_llm_outlet_t *o)
{
    size_t   n, len;
    u_char  *p;

    if (!o->busy) {
        return NGX_OK;
    }

    if (o->sent < sizeof(ngx_http_llm_msg_t)) {

        p = (u_char *) &o->msg + o->sent;
        len = sizeof(ngx_http_llm_msg_t) - o->sent;

        n = llm_link_write(ngx_http_llm_worker, o->link, p, len);
        o->sent += n;

        if (n < len) {
            return NGX_AGAIN;
        }
    }

    if (o->pos < o->last) {

        len = o->last - o->pos;

        n = llm_link_write(ngx_http_llm_worker, o->link, o->pos, len);
        o->pos += n;

        if (n < len) {
            return NGX_AGAIN;
        }
    }

    o->busy = 0;

    if (o->text) {
        ngx_free(o->text);
        o->text = NULL;
    }

    return NGX_OK;
}


/* NGX_OK: there is another message, NGX_AGAIN: not yet */

static ngx_int_t
ngx_http_llm_outlet_next(ngx_http_llm_outlet_t *o)
{
    ngx_int_t               rc;
    ngx_http_llm_flight_t  *f;

    f = o->reader.flight;

    if (!o->named) {
        o->named = 1;

        ngx_http_llm_outlet_message(o, NGX_HTTP_LLM_MSG_NAME, f->name,
                                    f->name_len);
        return NGX_OK;
    }

    if (!f->released && !f->ended) {
        return NGX_AGAIN;
    }

    if (!o->reader.head_sent) {
        o->reader.head_sent = 1;

        return ngx_http_llm_outlet_head(o);
    }

    rc = f->released ? ngx_http_llm_outlet_record(o) : NGX_AGAIN;

    if (rc == NGX_AGAIN && f->ended) {
        return ngx_http_llm_outlet_end(o);
    }

    return rc;
}


static ngx_int_t
ngx_http_llm_outlet_record(ngx_http_llm_outlet_t *o)
{
    ngx_http_llm_block_t   *b;
    ngx_http_llm_flight_t  *f;
    ngx_http_llm_reader_t  *rd;
    ngx_http_llm_record_t  *rec;

    rd = &o->reader;
    f = rd->flight;
    b = rd->block;

    if (b && rd->record == b->n && b->next) {

        rd->block = b->next;
        rd->record = 0;

        ngx_http_llm_flight_hold(rd, rd->block);
        ngx_http_llm_flight_trim(f);

        b = rd->block;
    }

    if (b == NULL || rd->record == b->n) {
        return NGX_AGAIN;
    }

    /* records grow downwards from the end of the block */

    rec = (ngx_http_llm_record_t *) b->end - ++rd->record;

    ngx_http_llm_outlet_message(o, NGX_HTTP_LLM_MSG_RECORD,
                                b->start + rec->offset, rec->len);

    o->msg.data = rec->data;
    o->msg.flags = rec->flags;
    o->taken += rec->len;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_outlet_head(ngx_http_llm_outlet_t *o)
{
    size_t                   len;
    u_char                  *p, *text;
    ngx_http_llm_head_t      head;
    ngx_http_llm_flight_t   *f;

    f = o->reader.flight;

    ngx_memzero(&head, sizeof(ngx_http_llm_head_t));

    head.content_length = f->content_length;
    head.status = f->status;
    head.stream = f->stream;
    head.released = f->released;
    head.ids = f->ids;
    head.usage = f->usage;
    head.provider = f->provider.len;
    head.model = f->model.len;
    head.content_type = f->content_type.len;

    if (f->released) {
        f->shown = 1;
    }

    len = sizeof(ngx_http_llm_head_t) + head.provider + head.model
          + head.content_type;

    text = ngx_alloc(len, ngx_cycle->log);
    if (text == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(text, &head, sizeof(ngx_http_llm_head_t));
    p = ngx_cpymem(p, f->provider.data, f->provider.len);
    p = ngx_cpymem(p, f->model.data, f->model.len);
    ngx_memcpy(p, f->content_type.data, f->content_type.len);

    ngx_http_llm_outlet_message(o, NGX_HTTP_LLM_MSG_HEAD, text, len);
    o->text = text;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_outlet_end(ngx_http_llm_outlet_t *o)
{
    size_t                  len;
    u_char                 *p, *text;
    ngx_http_llm_end_t      end;
    ngx_http_llm_flight_t  *f;

    f = o->reader.flight;

    ngx_memzero(&end, sizeof(ngx_http_llm_end_t));

    end.usage = f->answer.usage;
    end.cost = f->cost;
    end.wait = f->wait;
    end.failure = f->failure;
    end.priced = f->priced;
    end.spent = f->spent;
    end.failed = f->failed;
    end.told = f->told;
    end.end_marker = f->end_marker;
    end.finished = f->answer.finished;
    end.ids = f->ids;

    ngx_memcpy(end.finish, f->answer.finish_reason,
               f->answer.finish_reason_len);
    end.finish_len = f->answer.finish_reason_len;

    end.reason = f->reason ? ngx_strlen(f->reason) : 0;
    end.error_body = f->error_body.len;

    if (f->failed) {
        end.status = f->error.status;
        end.code = f->error.code ? ngx_strlen(f->error.code) : 0;
        end.message = f->error.message.len;
    }

    len = sizeof(ngx_http_llm_end_t) + end.reason + end.code + end.message
          + end.error_body;

    text = ngx_alloc(len, ngx_cycle->log);
    if (text == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(text, &end, sizeof(ngx_http_llm_end_t));
    p = ngx_cpymem(p, f->reason, end.reason);
    p = ngx_cpymem(p, f->error.code, end.code);
    p = ngx_cpymem(p, f->error.message.data, end.message);
    ngx_memcpy(p, f->error_body.data, end.error_body);

    ngx_http_llm_outlet_message(o, NGX_HTTP_LLM_MSG_END, text, len);
    o->text = text;
    o->ending = 1;

    return NGX_OK;
}


static void
ngx_http_llm_outlet_message(ngx_http_llm_outlet_t *o, ngx_uint_t type,
    u_char *text, size_t len)
{
    o->msg.len = len;
    o->msg.data = 0;
    o->msg.type = type;
    o->msg.flags = 0;
    o->sent = 0;
    o->pos = text;
    o->last = text + len;
    o->busy = 1;
}


/* this may end the flight */

static void
ngx_http_llm_outlet_close(ngx_http_llm_outlet_t *o, llm_link_e how)
{
    ngx_http_llm_flight_t  *f;

    f = o->reader.flight;

    llm_link_set(ngx_http_llm_worker, o->link, NULL);
    llm_link_end(ngx_http_llm_worker, o->link, how);

    if (o->event.posted) {
        ngx_delete_posted_event(&o->event);
    }

    if (o->stall.timer_set) {
        ngx_del_timer(&o->stall);
    }

    if (o->text) {
        ngx_free(o->text);
    }

    f->noutlets--;
    ngx_http_llm_flight_detach(&o->reader);

    if (!f->open) {
        ngx_http_llm_outlet_resume(o);
    }

    ngx_free(o);

    ngx_http_llm_lead_unread(f);
    ngx_http_llm_flight_unref(f);
}
