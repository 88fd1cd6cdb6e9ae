
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The bytes of a provider's answer: taken out of their HTTP framing and given
 * to ngx_http_llm_answer.c, and the valve.
 *
 * ngx_http_upstream stops to read while u->busy_bufs is not empty and u->buffer
 * has no room.  A closed valve is a buffer of one byte there that nobody sends;
 * it is opened by taking that byte away.  Called by ngx_http_upstream and by
 * readers that have made room.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_attempt_chunks(ngx_http_llm_attempt_t *a,
    u_char *pos, u_char *last);
static void ngx_http_llm_attempt_valve(ngx_http_llm_attempt_t *a);


ngx_int_t
ngx_http_llm_attempt_input_init(void *data)
{
    ngx_http_llm_attempt_t *a = data;

    ngx_http_upstream_t  *u;

    u = a->request->upstream;

    a->head = 1;

    if (u->headers_in.status_n == NGX_HTTP_NO_CONTENT
        || u->headers_in.status_n == NGX_HTTP_NOT_MODIFIED)
    {
        u->length = 0;

    } else if (u->headers_in.chunked) {
        u->length = 1;

    } else {
        u->length = u->headers_in.content_length_n;
    }

    if (u->length == 0) {
        a->whole = 1;
        u->keepalive = !u->headers_in.connection_close;
    }

    return ngx_http_llm_answer_begin(a);
}


/* the bytes stand behind u->buffer.last, and are all taken */

ngx_int_t
ngx_http_llm_attempt_input(void *data, ssize_t bytes)
{
    ngx_http_llm_attempt_t *a = data;

    u_char               *pos, *last;
    uint64_t              start;
    ngx_int_t             rc;
    ngx_http_upstream_t  *u;

    start = ngx_http_llm_now();

    u = a->request->upstream;

    pos = u->buffer.last;
    last = pos + bytes;

    if (a->whole) {
        ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                      "upstream sent more data than its framing allows");
        u->keepalive = 0;
        return NGX_OK;
    }

    if (u->headers_in.chunked) {
        rc = ngx_http_llm_attempt_chunks(a, pos, last);

    } else {

        if (u->length != -1 && bytes >= u->length) {

            if (bytes > u->length) {
                ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                              "upstream sent more data than specified in "
                              "\"Content-Length\" header");
                last = pos + u->length;

            } else {
                u->keepalive = !u->headers_in.connection_close;
            }

            a->whole = 1;
            u->length = 0;

        } else if (u->length != -1) {
            u->length -= bytes;
        }

        rc = ngx_http_llm_answer_feed(a, pos, last);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_llm_attempt_valve(a);
    ngx_http_llm_attempt_arm(a);

    a->ctx->overhead += ngx_http_llm_now() - start;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_attempt_chunks(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last)
{
    off_t                 size;
    ngx_buf_t             b;
    ngx_int_t             rc;
    ngx_http_upstream_t  *u;

    u = a->request->upstream;

    ngx_memzero(&b, sizeof(ngx_buf_t));

    b.pos = pos;
    b.last = last;

    for ( ;; ) {

        rc = ngx_http_llm_parse_chunked(a->request, &b, &a->chunked);

        if (rc == NGX_OK) {

            size = ngx_min(b.last - b.pos, a->chunked.size);

            rc = ngx_http_llm_answer_feed(a, b.pos, b.pos + size);
            if (rc != NGX_OK) {
                return rc;
            }

            b.pos += size;
            a->chunked.size -= size;

            continue;
        }

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc == NGX_DONE) {
            a->whole = 1;
            u->length = 0;
            u->keepalive = !u->headers_in.connection_close;

            if (b.pos != b.last) {
                ngx_log_error(NGX_LOG_WARN, a->request->connection->log, 0,
                              "upstream sent data after final chunk");
                u->keepalive = 0;
            }

            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "upstream sent invalid chunked response");

        return NGX_ERROR;
    }
}


/* closes the valve when the reader is far behind */

static void
ngx_http_llm_attempt_valve(ngx_http_llm_attempt_t *a)
{
    ngx_http_upstream_t    *u;
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (f->appended - f->trimmed <= NGX_HTTP_LLM_UNREAD_HIGH
        || f->open || ngx_http_llm_outlet_behind(f) <= NGX_HTTP_LLM_UNREAD_HIGH
        || !f->released || f->ended || a->whole || a->closed)
    {
        return;
    }

    u = a->request->upstream;

    a->closed = 1;
    a->closed_at = ngx_current_msec;
    a->posted = 0;

    if (a->valve_buf.start == NULL) {
        a->valve_buf.start = (u_char *) "v";
        a->valve_buf.end = a->valve_buf.start + 1;
        a->valve_buf.memory = 1;
        a->valve_buf.tag = u->output.tag;
    }

    a->valve_buf.pos = a->valve_buf.start;
    a->valve_buf.last = a->valve_buf.end;
    a->valve.buf = &a->valve_buf;
    a->valve.next = NULL;

    u->busy_bufs = &a->valve;
    u->free_bufs = NULL;

    u->buffer.last = u->buffer.end;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, a->request->connection->log, 0,
                   "llm attempt valve closed");
}


/*
 * Called by a reader that has taken something: opens the valve when there is
 * room.  The attempt runs from the posted requests of its connection; if that
 * is c, the caller runs them.
 */

void
ngx_http_llm_attempt_resume(ngx_http_llm_attempt_t *a, ngx_connection_t *c)
{
    ngx_http_llm_flight_t  *f;

    f = a->flight;

    if (!a->closed || !a->running
        || ngx_http_llm_outlet_behind(f) > NGX_HTTP_LLM_UNREAD_LOW)
    {
        return;
    }

    a->closed = 0;
    a->waited += ngx_current_msec - a->closed_at;
    a->valve_buf.pos = a->valve_buf.last;
    a->last_event = ngx_current_msec;

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, a->request->connection->log, 0,
                   "llm attempt valve open");

    if (!a->posted) {
        a->posted = 1;
        (void) ngx_http_post_request(a->request, &a->posted_request);
    }

    if (a->request->connection != c) {
        ngx_post_event(a->request->connection->write, &ngx_posted_events);
    }
}
