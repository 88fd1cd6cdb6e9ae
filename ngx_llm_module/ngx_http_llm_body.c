
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A client's body as one piece of memory, copied as little as possible: read to
 * one place, or mapped from the file that nginx spilled it to.
 */


#include "ngx_http_llm_module.h"

#include <sys/mman.h>


typedef struct {
    void    *addr;
    size_t   len;
} ngx_http_llm_map_t;


static ngx_int_t ngx_http_llm_body_map(ngx_http_request_t *r, ngx_buf_t *b,
    llm_str_t *body);
static void ngx_http_llm_body_unmap(void *data);


/*
 * The beginning of a body often comes with the head, and nginx reads the rest
 * to another place, unless it has room behind the beginning.  It is given
 * room there, as much as it would have taken elsewhere: the body is to be
 * scanned in one piece, and this spares a copy of it.
 */

ngx_int_t
ngx_http_llm_body_room(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx)
{
    off_t                      length;
    size_t                     preread;
    ngx_buf_t                 *b;
    ngx_http_core_loc_conf_t  *clcf;

    r->request_body_in_single_buf = 1;

    if (r->request_body || ngx_http_llm_multiplexed(r)) {
        return NGX_OK;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    length = r->headers_in.content_length_n;
    preread = r->header_in->last - r->header_in->pos;

    if (preread == 0
        || r->headers_in.chunked
        || (off_t) preread >= length
        || length > (off_t) clcf->client_body_buffer_size
        || clcf->client_body_in_file_only
        || length - (off_t) preread
           <= r->header_in->end - r->header_in->last)
    {
        return NGX_OK;
    }

    b = ngx_create_temp_buf(r->pool, length);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last = ngx_cpymem(b->last, r->header_in->pos, preread);

    r->header_in->pos = r->header_in->last;

    ctx->header_in = r->header_in;
    r->header_in = b;

    return NGX_OK;
}


/* the client's body as one piece of memory */

ngx_int_t
ngx_http_llm_body(ngx_http_request_t *r, llm_str_t *body)
{
    size_t        len;
    u_char       *p;
    ngx_uint_t    joined;
    ngx_chain_t  *cl;

    body->len = 0;
    body->data = NULL;

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    cl = r->request_body->bufs;

    if (cl->next == NULL) {

        if (cl->buf->in_file) {
            return ngx_http_llm_body_map(r, cl->buf, body);
        }

        body->data = cl->buf->pos;
        body->len = cl->buf->last - cl->buf->pos;

        return NGX_OK;
    }

    len = 0;
    joined = 1;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {

        if (cl->buf->in_file) {
            ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                          "llm: request body in several files");
            return NGX_ERROR;
        }

        len += cl->buf->last - cl->buf->pos;

        if (cl->next && cl->next->buf->pos != cl->buf->last) {
            joined = 0;
        }
    }

    if (len == 0) {
        return NGX_OK;
    }

    if (joined) {
        body->data = r->request_body->bufs->buf->pos;
        body->len = len;

        return NGX_OK;
    }

    p = ngx_palloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;
    body->len = len;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        p = ngx_cpymem(p, cl->buf->pos, cl->buf->last - cl->buf->pos);
    }

    return NGX_OK;
}


/* nginx has written it to a file of its own, a moment ago */

static ngx_int_t
ngx_http_llm_body_map(ngx_http_request_t *r, ngx_buf_t *b, llm_str_t *body)
{
    void                *addr;
    size_t               len;
    ngx_pool_cleanup_t  *cln;
    ngx_http_llm_map_t  *map;

    if (b->file_pos != 0 || b->file_last == 0) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_llm_map_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    len = b->file_last;

    addr = mmap(NULL, len, PROT_READ, MAP_SHARED|MAP_POPULATE, b->file->fd, 0);

    if (addr == MAP_FAILED) {
        ngx_log_error(NGX_LOG_CRIT, r->connection->log, ngx_errno,
                      "mmap(%uz) of a request body failed", len);
        return NGX_ERROR;
    }

    map = cln->data;
    map->addr = addr;
    map->len = len;
    cln->handler = ngx_http_llm_body_unmap;

    body->data = addr;
    body->len = len;

    return NGX_OK;
}


static void
ngx_http_llm_body_unmap(void *data)
{
    ngx_http_llm_map_t  *map = data;

    if (munmap(map->addr, map->len) == -1) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_errno,
                      "munmap(%p, %uz) failed", map->addr, map->len);
    }
}
