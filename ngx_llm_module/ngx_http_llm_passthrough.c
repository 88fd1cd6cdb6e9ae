
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Other paths and methods below the prefix: sent to one provider as they are,
 * with its key, and answered as it answers.  Neither body is looked at or
 * held: the client's is read as fast as the provider takes it, the provider's
 * as fast as the client does.  This is ngx_http_upstream on the main request,
 * as ngx_http_proxy_module uses it.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_passthrough_create_request(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_passthrough_path(ngx_http_request_t *r,
    ngx_str_t *path);
static ngx_int_t ngx_http_llm_passthrough_chunks(void *data, ngx_chain_t *in);
static ngx_int_t ngx_http_llm_passthrough_chunk_head(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll, off_t size);
static ngx_int_t ngx_http_llm_passthrough_reinit(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_passthrough_status(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_passthrough_header(ngx_http_request_t *r);
static ngx_int_t ngx_http_llm_passthrough_keep(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_table_elt_t *line);
static ngx_int_t ngx_http_llm_passthrough_input_init(void *data);
static ngx_int_t ngx_http_llm_passthrough_input(void *data, ssize_t bytes);
static void ngx_http_llm_passthrough_abort(ngx_http_request_t *r);
static void ngx_http_llm_passthrough_finalize(ngx_http_request_t *r,
    ngx_int_t rc);


ngx_int_t
ngx_http_llm_passthrough_handler(ngx_http_request_t *r,
    ngx_http_llm_provider_t *p)
{
    ngx_int_t                 rc;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_upstream_t      *u;
    ngx_http_llm_loc_conf_t  *llcf;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    ctx->passthrough = p;
    ctx->reading = 1;

    if (ngx_http_upstream_create(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    u = r->upstream;

#if (NGX_HTTP_SSL)
    u->ssl = p->tls;
#endif

    if (p->tls) {
        ngx_str_set(&u->schema, "https://");

    } else {
        ngx_str_set(&u->schema, "http://");
    }

    u->output.tag = (ngx_buf_tag_t) &ngx_http_llm_module;

    u->conf = llcf->direct;
    u->buffering = 0;

    u->create_request = ngx_http_llm_passthrough_create_request;
    u->reinit_request = ngx_http_llm_passthrough_reinit;
    u->process_header = ngx_http_llm_passthrough_status;
    u->abort_request = ngx_http_llm_passthrough_abort;
    u->finalize_request = ngx_http_llm_passthrough_finalize;

    u->input_filter_init = ngx_http_llm_passthrough_input_init;
    u->input_filter = ngx_http_llm_passthrough_input;
    u->input_filter_ctx = r;

    if (r->headers_in.content_length_n > 0 || r->headers_in.chunked) {
        r->request_body_no_buffering = 1;
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_upstream_init);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static ngx_int_t
ngx_http_llm_passthrough_create_request(ngx_http_request_t *r)
{
    off_t                 length;
    ngx_str_t             path;
    ngx_chain_t          *cl;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    u = r->upstream;

    if (ngx_http_llm_passthrough_path(r, &path) != NGX_OK) {
        return NGX_ERROR;
    }

    length = r->headers_in.content_length_n;

    if (r->headers_in.chunked && r->reading_body) {

        /* so far content_length_n is only what has come */

        length = -2;
        ctx->internal_chunked = 1;

        u->output.output_filter = ngx_http_llm_passthrough_chunks;
        u->output.filter_ctx = r;
    }

    /* nginx adds the body as it comes */

    cl = ngx_http_llm_build_head(r, ctx->passthrough, &path, length,
                                 r->request_body_no_buffering
                                 ? NULL : u->request_bufs);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf->flush = 1;

    if (r->request_body_no_buffering) {
        cl->buf->last_buf = 0;
    }

    u->request_bufs = cl;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_passthrough_path(ngx_http_request_t *r, ngx_str_t *path)
{
    u_char     *p;
    size_t      escape;
    llm_str_t   rest;

    ngx_http_llm_path(r, &rest);

    escape = 2 * ngx_escape_uri(NULL, rest.data, rest.len, NGX_ESCAPE_URI);

    p = ngx_pnalloc(r->pool, 1 + rest.len + escape);
    if (p == NULL) {
        return NGX_ERROR;
    }

    path->data = p;
    path->len = 1 + rest.len + escape;

    *p++ = '/';

    if (escape) {
        (void) ngx_escape_uri(p, rest.data, rest.len, NGX_ESCAPE_URI);

    } else {
        ngx_memcpy(p, rest.data, rest.len);
    }

    return NGX_OK;
}


/* a body of unknown length, in chunks of what came */

static ngx_int_t
ngx_http_llm_passthrough_chunks(void *data, ngx_chain_t *in)
{
    ngx_http_request_t *r = data;

    off_t                 size;
    ngx_int_t             rc;
    ngx_buf_t            *b;
    ngx_uint_t            last;
    ngx_chain_t          *out, *cl, *tl, **ll;
    ngx_http_llm_ctx_t   *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (in == NULL) {
        out = NULL;
        goto send;
    }

    out = NULL;
    ll = &out;

    if (!ctx->header_done) {

        /* the head is no part of the body */

        ctx->header_done = 1;

        tl = ngx_alloc_chain_link(r->pool);
        if (tl == NULL) {
            return NGX_ERROR;
        }

        tl->buf = in->buf;
        *ll = tl;
        ll = &tl->next;

        in = in->next;
    }

    size = 0;
    last = 0;

    for (cl = in; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);

        if (cl->buf->last_buf) {
            last = 1;
        }
    }

    *ll = NULL;

    if (size && ngx_http_llm_passthrough_chunk_head(r, ctx, &ll, size)
                != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (cl = in; cl; cl = cl->next) {

        if (ngx_buf_size(cl->buf) == 0) {
            continue;
        }

        tl = ngx_alloc_chain_link(r->pool);
        if (tl == NULL) {
            return NGX_ERROR;
        }

        tl->buf = cl->buf;
        tl->next = NULL;
        *ll = tl;
        ll = &tl->next;
    }

    if (size || last) {
        tl = ngx_chain_get_free_buf(r->pool, &ctx->out_free);
        if (tl == NULL) {
            return NGX_ERROR;
        }

        b = tl->buf;
        ngx_memzero(b, sizeof(ngx_buf_t));

        b->tag = (ngx_buf_tag_t) &ngx_http_llm_passthrough_handler;
        b->memory = 1;

        if (last) {
            b->pos = (u_char *) (size ? CRLF "0" CRLF CRLF : "0" CRLF CRLF);
            b->last = b->pos + (size ? 7 : 5);
            b->last_buf = 1;

        } else {
            b->pos = (u_char *) CRLF;
            b->last = b->pos + 2;
        }

        tl->next = NULL;
        *ll = tl;
    }

send:

    rc = ngx_chain_writer(&r->upstream->writer, out);

    ngx_chain_update_chains(r->pool, &ctx->out_free, &ctx->out_busy, &out,
                      (ngx_buf_tag_t) &ngx_http_llm_passthrough_handler);

    return rc;
}


static ngx_int_t
ngx_http_llm_passthrough_chunk_head(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll, off_t size)
{
    u_char       *text;
    ngx_buf_t    *b;
    ngx_chain_t  *tl;

    tl = ngx_chain_get_free_buf(r->pool, &ctx->out_free);
    if (tl == NULL) {
        return NGX_ERROR;
    }

    b = tl->buf;
    text = b->start;

    /* the buffers of chunk heads keep their room, others have none */

    if (text == NULL || b->end - text != 20) {
        text = ngx_palloc(r->pool, 20);
        if (text == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->start = text;
    b->end = text + 20;
    b->pos = text;
    b->last = ngx_sprintf(text, "%xO" CRLF, size);
    b->tag = (ngx_buf_tag_t) &ngx_http_llm_passthrough_handler;
    b->temporary = 1;

    tl->next = NULL;
    **ll = tl;
    *ll = &tl->next;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_passthrough_reinit(ngx_http_request_t *r)
{
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    ngx_memzero(&ctx->status, sizeof(ngx_http_status_t));
    ngx_memzero(&ctx->chunked, sizeof(ngx_http_chunked_t));

    r->upstream->process_header = ngx_http_llm_passthrough_status;
    r->state = 0;
    ctx->header_done = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_passthrough_status(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    ngx_http_llm_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    ctx->reading = 0;

    rc = ngx_http_llm_status_line(r, r->upstream, &ctx->status);

    if (rc != NGX_OK) {
        return rc;
    }

    r->upstream->process_header = ngx_http_llm_passthrough_header;

    return ngx_http_llm_passthrough_header(r);
}


static ngx_int_t
ngx_http_llm_passthrough_header(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_table_elt_t       h;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    u = r->upstream;

    for ( ;; ) {
        rc = ngx_http_llm_header_line(r, u, &h);

        if (rc == NGX_DONE) {
            break;
        }

        if (rc != NGX_OK) {
            return rc;
        }

        if (u->headers_in.status_n < NGX_HTTP_OK) {
            continue;
        }

        if (ngx_http_llm_passthrough_keep(r, ctx, &h) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (u->headers_in.status_n < NGX_HTTP_OK) {

        /* 100, 102, 103: another head follows */

        ngx_memzero(&ctx->status, sizeof(ngx_http_status_t));
        r->state = 0;
        u->headers_in.status_n = 0;
        u->headers_in.content_length_n = -1;
        u->process_header = ngx_http_llm_passthrough_status;

        return ngx_http_llm_passthrough_status(r);
    }

    ctx->own = 1;

    if (u->headers_in.status_n >= NGX_HTTP_BAD_REQUEST) {
        ctx->error_status = u->headers_in.status_n;
    }

    return ngx_http_llm_own_headers(ctx) == NGX_OK ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_llm_passthrough_keep(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx,
    ngx_table_elt_t *line)
{
    u_char           *p;
    ngx_table_elt_t  *h;

    static ngx_str_t  content[] = {
        ngx_string("content-type"),
        ngx_string("content-encoding"),
        ngx_null_string
    };
    ngx_str_t        *name;

    for (name = content; name->len; name++) {
        if (line->lowcase_key && line->key.len == name->len
            && ngx_strncmp(line->lowcase_key, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (name->len == 0
        && ngx_http_llm_header_hidden(ctx->passthrough, line))
    {
        return NGX_OK;
    }

    h = ngx_list_push(&r->upstream->headers_in.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(r->pool, line->key.len * 2 + line->value.len + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *h = *line;

    h->key.data = p;
    p = ngx_cpymem(p, line->key.data, line->key.len);
    *p++ = '\0';

    h->value.data = p;
    p = ngx_cpymem(p, line->value.data, line->value.len);
    *p++ = '\0';

    h->lowcase_key = p;
    ngx_strlow(p, line->key.data, line->key.len);

    h->hash = ngx_hash_key(p, line->key.len);

    if ((h->key.len == 12 && ngx_strncmp(p, "x-request-id", 12) == 0)
        || (h->key.len == 10 && ngx_strncmp(p, "request-id", 10) == 0))
    {
        ctx->provider_request_id = h->value;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_passthrough_input_init(void *data)
{
    ngx_http_request_t *r = data;

    ngx_http_upstream_t  *u;

    u = r->upstream;

    if (u->headers_in.status_n == NGX_HTTP_NO_CONTENT
        || u->headers_in.status_n == NGX_HTTP_NOT_MODIFIED
        || r->method == NGX_HTTP_HEAD)
    {
        u->length = 0;
        u->keepalive = !u->headers_in.connection_close;

    } else if (u->headers_in.chunked) {
        u->length = 1;

    } else if (u->headers_in.content_length_n == 0) {
        u->length = 0;
        u->keepalive = !u->headers_in.connection_close;

    } else {
        u->length = u->headers_in.content_length_n;
    }

    return NGX_OK;
}


/* links ranges of u->buffer, as nginx's own filters for this do */

static ngx_int_t
ngx_http_llm_passthrough_input(void *data, ssize_t bytes)
{
    ngx_http_request_t *r = data;

    off_t                 size;
    ngx_buf_t             b;
    ngx_int_t             rc;
    ngx_chain_t          *cl, **ll;
    ngx_http_llm_ctx_t   *ctx;
    ngx_http_upstream_t  *u;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);
    u = r->upstream;

    if (!u->headers_in.chunked) {
        rc = ngx_http_upstream_non_buffered_filter(r, bytes);

        if (rc == NGX_OK && u->length == 0) {
            u->keepalive = !u->headers_in.connection_close;
        }

        return rc;
    }

    ngx_memzero(&b, sizeof(ngx_buf_t));

    b.pos = u->buffer.last;
    b.last = b.pos + bytes;

    u->buffer.last += bytes;

    for (cl = u->out_bufs, ll = &u->out_bufs; cl; cl = cl->next) {
        ll = &cl->next;
    }

    for ( ;; ) {
        rc = ngx_http_llm_parse_chunked(r, &b, &ctx->chunked);

        if (rc == NGX_OK) {
            size = ngx_min(b.last - b.pos, ctx->chunked.size);

            cl = ngx_chain_get_free_buf(r->pool, &u->free_bufs);
            if (cl == NULL) {
                return NGX_ERROR;
            }

            *ll = cl;
            ll = &cl->next;

            cl->buf->flush = 1;
            cl->buf->memory = 1;
            cl->buf->pos = b.pos;
            b.pos += size;
            cl->buf->last = b.pos;
            cl->buf->tag = u->output.tag;

            ctx->chunked.size -= size;

            continue;
        }

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc == NGX_DONE) {
            u->length = 0;
            u->keepalive = !u->headers_in.connection_close
                           && b.pos == b.last;
            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream sent invalid chunked response");

        return NGX_ERROR;
    }
}


static void
ngx_http_llm_passthrough_abort(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm passthrough abort request");
}


static void
ngx_http_llm_passthrough_finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_llm_ctx_t  *ctx;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm passthrough finalize: %i", rc);

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (rc == NGX_HTTP_CLIENT_CLOSED_REQUEST) {
        ctx->error = "client_closed";
        r->headers_out.status = NGX_HTTP_CLIENT_CLOSED_REQUEST;

    } else if (rc == NGX_HTTP_GATEWAY_TIME_OUT) {
        ctx->error = r->upstream->request_sent ? "timeout_plain"
                                               : "timeout_connect";

    } else if (rc == NGX_HTTP_BAD_GATEWAY) {
        ctx->error = r->upstream->request_sent ? "upstream_closed"
                                               : "upstream_connect";
    }
}
