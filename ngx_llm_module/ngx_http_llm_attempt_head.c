
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The head of a provider's answer: parsed when it is whole, since all attempts
 * of a worker read into one buffer; a head that comes in pieces gets one of its
 * own.  What is passed on of it is kept in the request's pool.
 * Called by ngx_http_upstream, through the attempt.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_WAIT_NAME  64


static ngx_int_t ngx_http_llm_attempt_whole_head(ngx_http_request_t *r,
    ngx_http_upstream_t *u);
static ngx_int_t ngx_http_llm_attempt_keep_head(ngx_http_request_t *r,
    ngx_http_upstream_t *u, u_char *last);
static ngx_int_t ngx_http_llm_attempt_header(ngx_http_llm_attempt_t *a,
    ngx_table_elt_t *h);
static void ngx_http_llm_attempt_wait(ngx_http_llm_attempt_t *a,
    ngx_table_elt_t *h);


/* u->process_header: parses the head when it is whole */

ngx_int_t
ngx_http_llm_attempt_head(ngx_http_request_t *r)
{
    ngx_int_t                rc;
    ngx_table_elt_t          h;
    ngx_http_upstream_t     *u;
    ngx_http_llm_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    u = r->upstream;

    for ( ;; ) {

        rc = ngx_http_llm_attempt_whole_head(r, u);

        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_llm_status_line(r, u, &a->status);

        if (rc != NGX_OK) {
            return rc == NGX_AGAIN ? NGX_HTTP_UPSTREAM_INVALID_HEADER : rc;
        }

        for ( ;; ) {
            rc = ngx_http_llm_header_line(r, u, &h);

            if (rc != NGX_OK) {
                break;
            }

            if (u->headers_in.status_n < NGX_HTTP_OK) {
                continue;
            }

            rc = ngx_http_llm_attempt_header(a, &h);

            if (rc != NGX_OK) {
                return rc;
            }
        }

        if (rc != NGX_DONE) {
            return rc == NGX_AGAIN ? NGX_HTTP_UPSTREAM_INVALID_HEADER : rc;
        }

        if (u->headers_in.status_n >= NGX_HTTP_OK) {
            return NGX_OK;
        }

        /* 100, 102, 103: another head follows */

        ngx_memzero(&a->status, sizeof(ngx_http_status_t));
        r->state = 0;
        u->headers_in.status_n = 0;
        u->headers_in.content_length_n = -1;
        u->headers_in.chunked = 0;
    }
}


static ngx_int_t
ngx_http_llm_attempt_whole_head(ngx_http_request_t *r, ngx_http_upstream_t *u)
{
    size_t   len;
    u_char  *p, *last;

    last = u->buffer.last;

    for (p = u->buffer.pos; p < last; p++) {

        p = memchr(p, LF, last - p);

        if (p == NULL) {
            break;
        }

        if ((last - p > 1 && p[1] == LF)
            || (last - p > 2 && p[1] == CR && p[2] == LF))
        {
            return ngx_http_llm_attempt_keep_head(r, u, p);
        }
    }

    if (u->buffer.start != ngx_http_llm_read_buffer) {
        return NGX_AGAIN;
    }

    /* others will read into this buffer before more of the head comes */

    len = last - u->buffer.pos;

    if (len >= NGX_HTTP_LLM_HEAD_MAX) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream sent too big header");
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    p = ngx_palloc(r->pool, NGX_HTTP_LLM_HEAD_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, u->buffer.pos, len);

    u->buffer.start = p;
    u->buffer.pos = p;
    u->buffer.last = p + len;
    u->buffer.end = p + NGX_HTTP_LLM_HEAD_MAX;

    return NGX_AGAIN;
}


/* what is passed on of it is wanted when the buffer has other things in it */

static ngx_int_t
ngx_http_llm_attempt_keep_head(ngx_http_request_t *r, ngx_http_upstream_t *u,
    u_char *last)
{
    ngx_http_llm_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    a->head_from = u->buffer.pos;

    a->head_to = ngx_pnalloc(r->pool, last - u->buffer.pos);
    if (a->head_to == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(a->head_to, u->buffer.pos, last - u->buffer.pos);

    return NGX_OK;
}


/* keeps what is for the client; its strings are those of the kept head */

static ngx_int_t
ngx_http_llm_attempt_header(ngx_http_llm_attempt_t *a, ngx_table_elt_t *h)
{
    ngx_table_elt_t     *kept;
    ngx_http_llm_ctx_t  *ctx;

    ctx = a->ctx;

    h->key.data = a->head_to + (h->key.data - a->head_from);
    h->value.data = a->head_to + (h->value.data - a->head_from);

    if (a->request->upstream->headers_in.status_n >= NGX_HTTP_BAD_REQUEST
        && h->key.len <= NGX_HTTP_LLM_WAIT_NAME)
    {
        ngx_http_llm_attempt_wait(a, h);
    }

    if (h->key.len == 12 && h->lowcase_key
        && ngx_strncmp(h->lowcase_key, "content-type", 12) == 0)
    {
        a->content_type = h->value;

        return NGX_OK;
    }

    if (h->key.len == 16 && h->lowcase_key
        && ngx_strncmp(h->lowcase_key, "content-encoding", 16) == 0
        && !(h->value.len == 8
             && ngx_strncasecmp(h->value.data, (u_char *) "identity", 8) == 0))
    {
        a->error = "encoded_answer";

        ngx_log_error(NGX_LOG_ERR, a->request->connection->log, 0,
                      "llm: provider \"%V\" sent an encoded answer (\"%V\") "
                      "though identity was asked for",
                      &a->provider->name, &h->value);

        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    if (ngx_http_llm_header_hidden(a->provider, h)) {
        return NGX_OK;
    }

    if (a->headers == NULL) {
        a->headers = ngx_array_create(a->request->pool, 8,
                                      sizeof(ngx_table_elt_t));
        if (a->headers == NULL) {
            return NGX_ERROR;
        }
    }

    kept = ngx_array_push(a->headers);
    if (kept == NULL) {
        return NGX_ERROR;
    }

    *kept = *h;
    kept->lowcase_key = NULL;

    if ((h->key.len == 12 && h->lowcase_key
         && ngx_strncmp(h->lowcase_key, "x-request-id", 12) == 0)
        || (h->key.len == 10 && h->lowcase_key
            && ngx_strncmp(h->lowcase_key, "request-id", 10) == 0))
    {
        ctx->provider_request_id = kept->value;
    }

    return NGX_OK;
}


/* does it say when to come back? */

static void
ngx_http_llm_attempt_wait(ngx_http_llm_attempt_t *a, ngx_table_elt_t *h)
{
    u_char       lowcase[NGX_HTTP_LLM_WAIT_NAME];
    uint64_t     now;
    llm_str_t    name, value;
    ngx_time_t  *tp;

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    /* nginx lowers names of up to 32 bytes, and some of these are longer */

    ngx_strlow(lowcase, h->key.data, h->key.len);

    name.len = h->key.len;
    name.data = lowcase;
    value.len = h->value.len;
    value.data = h->value.data;

    llm_wait_header(&a->wait, &name, &value, now);
}
