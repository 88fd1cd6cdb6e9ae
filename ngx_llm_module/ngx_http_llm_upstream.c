
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The request that goes out to a provider, and the head of what comes back,
 * as far as attempts and the passthrough have them in common: which headers
 * of a client are sent on, which of a provider are passed on, who signs.
 * The lists are those of the public interface; what they do not name passes,
 * as with proxy_pass.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_CHUNKED  -2


static ngx_int_t ngx_http_llm_key_sign(ngx_http_request_t *r,
    ngx_http_llm_provider_t *p, ngx_http_llm_outgoing_t *out);
static ngx_uint_t ngx_http_llm_skip_header(ngx_http_llm_provider_t *p,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_llm_hop_header(ngx_http_request_t *r,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_llm_names_hops(ngx_table_elt_t *h);
static ngx_int_t ngx_http_llm_hash(ngx_conf_t *cf, ngx_hash_t *hash,
    ngx_array_t *keys, char *name);
static ngx_int_t ngx_http_llm_hash_add(ngx_conf_t *cf, ngx_array_t *keys,
    ngx_str_t *name);


const ngx_http_llm_signer_t  ngx_http_llm_key_signer = {
    ngx_string("key"),
    ngx_http_llm_key_sign
};


/* never sent to a provider (X-Forwarded-* and If-* too) */

static ngx_str_t  ngx_http_llm_skip_headers[] = {
    ngx_string("host"),
    ngx_string("connection"),
    ngx_string("keep-alive"),
    ngx_string("proxy-connection"),
    ngx_string("te"),
    ngx_string("trailer"),
    ngx_string("transfer-encoding"),
    ngx_string("upgrade"),
    ngx_string("http2-settings"),
    ngx_string("content-length"),
    ngx_string("expect"),
    ngx_string("cookie"),
    ngx_string("forwarded"),
    ngx_string("x-real-ip"),
    ngx_string("via"),
    ngx_string("cache-control"),
    ngx_string("range"),
    ngx_string("accept-encoding"),
    ngx_string("proxy-authorization"),
    ngx_null_string
};


/* sent only with "key client", and then only those of the dialect */

static ngx_str_t  ngx_http_llm_client_headers[] = {
    ngx_string("authorization"),
    ngx_string("x-api-key"),
    ngx_string("api-key"),
    ngx_string("x-goog-api-key"),
    ngx_string("openai-organization"),
    ngx_string("openai-project"),
    ngx_null_string
};


/* never passed on to a client, or made anew by nginx */

static ngx_str_t  ngx_http_llm_hide_headers[] = {
    ngx_string("set-cookie"),
    ngx_string("connection"),
    ngx_string("keep-alive"),
    ngx_string("proxy-authenticate"),
    ngx_string("te"),
    ngx_string("trailer"),
    ngx_string("transfer-encoding"),
    ngx_string("upgrade"),
    ngx_string("content-length"),
    ngx_string("content-type"),
    ngx_string("content-encoding"),
    ngx_string("date"),
    ngx_string("server"),
    ngx_string("openai-organization"),
    ngx_string("openai-project"),
    ngx_string("anthropic-organization-id"),
    ngx_string("x-pad"),
    ngx_string("x-accel-expires"),
    ngx_string("x-accel-redirect"),
    ngx_string("x-accel-limit-rate"),
    ngx_string("x-accel-buffering"),
    ngx_string("x-accel-charset"),
    ngx_null_string
};


/*
 * The head of a request as a chain in front of body.  r is the client's
 * request; path is what follows the endpoint's base, escaped.  content_length
 * -1: no body, -2: chunked.  NULL: no memory.
 */

ngx_chain_t *
ngx_http_llm_build_head(ngx_http_request_t *r, ngx_http_llm_provider_t *p,
    ngx_str_t *path, off_t content_length, ngx_chain_t *body)
{
    size_t                    len;
    u_char                   *uri;
    ngx_buf_t                *b;
    ngx_str_t                 args;
    ngx_uint_t                i, hops, passed;
    ngx_chain_t              *cl;
    ngx_list_part_t          *part;
    ngx_table_elt_t          *h;
    ngx_http_llm_header_t    *ph;
    ngx_http_llm_outgoing_t   out;

    out.method = r->method_name;
    out.body = body;
    out.nheaders = 0;

    out.uri.data = ngx_pnalloc(r->pool, p->base.len + path->len + 1
                                        + r->args.len);
    if (out.uri.data == NULL) {
        return NULL;
    }

    uri = ngx_cpymem(out.uri.data, p->base.data, p->base.len);
    uri = ngx_cpymem(uri, path->data, path->len);

    (void) ngx_http_llm_args(r, &args, uri + 1);

    if (args.len) {
        *uri = '?';
        uri += 1 + args.len;
    }

    out.uri.len = uri - out.uri.data;

    if (p->signer->sign(r, p, &out) != NGX_OK) {
        return NULL;
    }

    len = out.method.len + 1 + out.uri.len
          + sizeof(" HTTP/1.1" CRLF "Host: " CRLF
                   "Accept-Encoding: identity" CRLF
                   "Transfer-Encoding: chunked" CRLF
                   "Content-Length: " CRLF CRLF) - 1
          + p->host.len + NGX_OFF_T_LEN;

    for (i = 0; i < out.nheaders; i++) {
        len += out.headers[i].key.len + out.headers[i].value.len + 4;
    }

    if (p->headers) {
        ph = p->headers->elts;
        for (i = 0; i < p->headers->nelts; i++) {
            len += ph[i].key.len + ph[i].value.len + 4;
        }
    }

    hops = 0;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */; i++) {
        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        len += h[i].key.len + h[i].value.len + 4;
        hops |= ngx_http_llm_names_hops(&h[i]);
    }

    b = ngx_create_temp_buf(r->pool, len);
    if (b == NULL) {
        return NULL;
    }

    b->last = ngx_cpymem(b->last, out.method.data, out.method.len);
    *b->last++ = ' ';
    b->last = ngx_cpymem(b->last, out.uri.data, out.uri.len);
    b->last = ngx_cpymem(b->last, " HTTP/1.1" CRLF "Host: ",
                         sizeof(" HTTP/1.1" CRLF "Host: ") - 1);
    b->last = ngx_cpymem(b->last, p->host.data, p->host.len);
    b->last = ngx_cpymem(b->last, CRLF "Accept-Encoding: identity" CRLF,
                         sizeof(CRLF "Accept-Encoding: identity" CRLF) - 1);

    if (content_length == NGX_HTTP_LLM_CHUNKED) {
        b->last = ngx_cpymem(b->last, "Transfer-Encoding: chunked" CRLF,
                             sizeof("Transfer-Encoding: chunked" CRLF) - 1);

    } else if (content_length >= 0) {
        b->last = ngx_sprintf(b->last, "Content-Length: %O" CRLF,
                              content_length);
    }

    for (i = 0; i < out.nheaders; i++) {
        b->last = ngx_sprintf(b->last, "%V: %V" CRLF, &out.headers[i].key,
                              &out.headers[i].value);
    }

    if (p->headers) {
        ph = p->headers->elts;
        for (i = 0; i < p->headers->nelts; i++) {
            if (ph[i].value.len) {
                b->last = ngx_sprintf(b->last, "%V: %V" CRLF, &ph[i].key,
                                      &ph[i].value);
            }
        }
    }

    part = &r->headers_in.headers.part;
    h = part->elts;
    passed = 0;

    for (i = 0; /* void */; i++) {
        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (ngx_http_llm_skip_header(p, &h[i])
            || (hops && ngx_http_llm_hop_header(r, &h[i])))
        {
            continue;
        }

        b->last = ngx_cpymem(b->last, h[i].key.data, h[i].key.len);
        *b->last++ = ':'; *b->last++ = ' ';
        b->last = ngx_cpymem(b->last, h[i].value.data, h[i].value.len);
        *b->last++ = CR; *b->last++ = LF;
        passed++;
    }

    *b->last++ = CR; *b->last++ = LF;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "llm request to \"%V\", %ui client headers, body:%O",
                   &p->name, passed, content_length);

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NULL;
    }

    cl->buf = b;
    cl->next = body;

    if (body == NULL) {
        b->last_buf = 1;
    }

    return cl;
}


static ngx_int_t
ngx_http_llm_key_sign(ngx_http_request_t *r, ngx_http_llm_provider_t *p,
    ngx_http_llm_outgoing_t *out)
{
    if (p->key_source == NGX_HTTP_LLM_KEY_OURS) {
        out->headers[out->nheaders++] = p->auth;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_skip_header(ngx_http_llm_provider_t *p, ngx_table_elt_t *h)
{
    if (ngx_hash_find(&p->skip, h->hash, h->lowcase_key, h->key.len)) {
        return 1;
    }

    if (h->key.len > 3 && ngx_strncmp(h->lowcase_key, "if-", 3) == 0) {
        return 1;
    }

    return h->key.len > sizeof("x-forwarded-") - 1
           && ngx_strncmp(h->lowcase_key, "x-forwarded-",
                          sizeof("x-forwarded-") - 1)
              == 0;
}


/* RFC 9110, 7.6.1: what a Connection header names ends at this hop */

static ngx_uint_t
ngx_http_llm_hop_header(ngx_http_request_t *r, ngx_table_elt_t *h)
{
    u_char           *pos, *last, *token;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *named;

    part = &r->headers_in.headers.part;
    named = part->elts;

    for (i = 0; /* void */; i++) {
        if (i >= part->nelts) {
            if (part->next == NULL) {
                return 0;
            }

            part = part->next;
            named = part->elts;
            i = 0;
        }

        if (!ngx_http_llm_names_hops(&named[i])) {
            continue;
        }

        pos = named[i].value.data;
        last = pos + named[i].value.len;

        while (pos < last) {
            while (pos < last && (*pos == ' ' || *pos == ',' || *pos == '\t')) {
                pos++;
            }

            token = pos;

            while (pos < last && *pos != ' ' && *pos != ',' && *pos != '\t') {
                pos++;
            }

            if ((size_t) (pos - token) == h->key.len
                && ngx_strncasecmp(token, h->key.data, h->key.len) == 0)
            {
                return 1;
            }
        }
    }
}


/* a Connection header that says more than every client does */

static ngx_uint_t
ngx_http_llm_names_hops(ngx_table_elt_t *h)
{
    return h->key.len == sizeof("connection") - 1
           && ngx_strncmp(h->lowcase_key, "connection",
                          sizeof("connection") - 1)
              == 0
           && !(h->value.len == sizeof("close") - 1
                && ngx_strncasecmp(h->value.data, (u_char *) "close",
                                   sizeof("close") - 1)
                   == 0)
           && !(h->value.len == sizeof("keep-alive") - 1
                && ngx_strncasecmp(h->value.data, (u_char *) "keep-alive",
                                   sizeof("keep-alive") - 1)
                   == 0);
}


/* "key" in any case, however much of it is escaped */

static ngx_uint_t
ngx_http_llm_arg_is_key(u_char *pos, u_char *last)
{
    u_char      c;
    ngx_int_t   n;
    ngx_uint_t  i;

    for (i = 0; pos < last && *pos != '='; i++) {

        c = *pos++;

        if (c == '%' && last - pos >= 2) {
            n = ngx_hextoi(pos, 2);

            if (n != NGX_ERROR) {
                c = (u_char) n;
                pos += 2;
            }
        }

        if (i == 3 || ngx_tolower(c) != "key"[i]) {
            return 0;
        }
    }

    return i == 3;
}


/* the query string less "key" arguments, written to dst; 1 if there was one */

ngx_uint_t
ngx_http_llm_args(ngx_http_request_t *r, ngx_str_t *args, u_char *dst)
{
    u_char      *pos, *last, *amp, *out;
    ngx_uint_t   key;

    out = dst;
    pos = r->args.data;
    last = pos + r->args.len;
    key = 0;

    while (pos < last) {
        amp = ngx_strlchr(pos, last, '&');
        if (amp == NULL) {
            amp = last;
        }

        if (ngx_http_llm_arg_is_key(pos, amp)) {
            key = 1;

        } else {
            if (out != dst) {
                *out++ = '&';
            }

            out = ngx_cpymem(out, pos, amp - pos);
        }

        pos = amp + 1;
    }

    args->data = dst;
    args->len = out - dst;

    return key;
}


/*
 * NGX_OK: the head of the answer begins well, NGX_AGAIN: it has not come
 * whole, NGX_HTTP_UPSTREAM_INVALID_HEADER.
 */

ngx_int_t
ngx_http_llm_status_line(ngx_http_request_t *r, ngx_http_upstream_t *u,
    ngx_http_status_t *status)
{
    size_t     len;
    ngx_int_t  rc;

    rc = ngx_http_parse_status_line(r, &u->buffer, status);

    if (rc == NGX_AGAIN) {
        return rc;
    }

    if (rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream sent no valid HTTP/1.x header");
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    if (u->state && u->state->status == 0) {
        u->state->status = status->code;
    }

    u->headers_in.status_n = status->code;

    len = status->end - status->start;
    u->headers_in.status_line.len = len;

    u->headers_in.status_line.data = ngx_pnalloc(r->pool, len);
    if (u->headers_in.status_line.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(u->headers_in.status_line.data, status->start, len);

    if (status->http_version < NGX_HTTP_VERSION_11) {
        u->headers_in.connection_close = 1;
    }

    return NGX_OK;
}


/*
 * The next header of an answer.  NGX_OK: *h is it, its strings within
 * u->buffer but lowcase_key within the request; NGX_DONE: the head has
 * ended; NGX_AGAIN; NGX_HTTP_UPSTREAM_INVALID_HEADER.  What frames the body
 * is set in u->headers_in.
 */

ngx_int_t
ngx_http_llm_header_line(ngx_http_request_t *r, ngx_http_upstream_t *u,
    ngx_table_elt_t *h)
{
    off_t      n;
    ngx_int_t  rc;

    rc = ngx_http_parse_header_line(r, &u->buffer, 1);

    if (rc == NGX_HTTP_PARSE_HEADER_DONE) {
        return NGX_DONE;
    }

    if (rc == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "upstream sent invalid header");
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }

    h->hash = r->header_hash;
    h->key.len = r->header_name_end - r->header_name_start;
    h->key.data = r->header_name_start;
    h->value.len = r->header_end - r->header_start;
    h->value.data = r->header_start;
    h->lowcase_key = r->lowcase_header;
    ngx_http_llm_header_single(h);

    if (h->key.len != r->lowcase_index) {

        /* longer than nginx lowers: of no meaning to us */

        h->hash = 0;
        h->lowcase_key = NULL;
        return NGX_OK;
    }

    switch (h->key.len) {

    case 10:
        if (ngx_strncmp(h->lowcase_key, "connection", 10) == 0
            && ngx_strlcasestrn(h->value.data, h->value.data + h->value.len,
                                (u_char *) "close", 5 - 1)
               != NULL)
        {
            u->headers_in.connection_close = 1;
        }

        break;

    case 14:
        if (ngx_strncmp(h->lowcase_key, "content-length", 14) == 0) {
            n = ngx_atoof(h->value.data, h->value.len);

            if (n == NGX_ERROR || u->headers_in.content_length_n != -1
                || u->headers_in.chunked)
            {
                ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                              "upstream sent invalid \"Content-Length\"");
                return NGX_HTTP_UPSTREAM_INVALID_HEADER;
            }

            u->headers_in.content_length_n = n;
        }

        break;

    case 17:
        if (ngx_strncmp(h->lowcase_key, "transfer-encoding", 17) == 0) {

            if (h->value.len != 7
                || ngx_strncasecmp(h->value.data, (u_char *) "chunked", 7) != 0
                || u->headers_in.content_length_n != -1
                || u->headers_in.chunked)
            {
                ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                              "upstream sent invalid \"Transfer-Encoding\"");
                return NGX_HTTP_UPSTREAM_INVALID_HEADER;
            }

            u->headers_in.chunked = 1;
        }

        break;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_llm_header_hidden(ngx_http_llm_provider_t *p, ngx_table_elt_t *h)
{
    const llm_str_t  *prefix;

    if (h->lowcase_key
        && ngx_hash_find(&p->hide, h->hash, h->lowcase_key, h->key.len))
    {
        return 1;
    }

    /* these names are ours: another gateway's would be taken for it */

    if (h->key.len > 6
        && ngx_strncasecmp(h->key.data, (u_char *) "x-llm-", 6) == 0)
    {
        return 1;
    }

    if (p->key_source == NGX_HTTP_LLM_KEY_CLIENT) {
        return 0;
    }

    for (prefix = p->dialect->limit_headers; prefix->len; prefix++) {
        if (h->key.len > prefix->len
            && ngx_tolower(h->key.data[0]) == prefix->data[0]
            && ngx_strncasecmp(h->key.data, prefix->data, prefix->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* a provider's hashes, at configuration time */

ngx_int_t
ngx_http_llm_header_hashes(ngx_conf_t *cf, ngx_http_llm_provider_t *p)
{
    ngx_str_t              *name, own;
    ngx_uint_t              i;
    ngx_array_t             skip, hide, direct;
    const llm_str_t        *s;
    ngx_http_llm_header_t  *ph;

    if (ngx_array_init(&skip, cf->temp_pool, 64, sizeof(ngx_hash_key_t))
        != NGX_OK
        || ngx_array_init(&hide, cf->temp_pool, 32, sizeof(ngx_hash_key_t))
           != NGX_OK
        || ngx_array_init(&direct, cf->temp_pool, 32, sizeof(ngx_hash_key_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (name = ngx_http_llm_skip_headers; name->len; name++) {
        if (ngx_http_llm_hash_add(cf, &skip, name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    for (name = ngx_http_llm_client_headers; name->len; name++) {

        if (p->key_source == NGX_HTTP_LLM_KEY_CLIENT) {

            /* a credential of the dialect, or no credential at all */

            for (s = p->dialect->credentials; s->len; s++) {
                if (s->len == name->len
                    && ngx_strncmp(s->data, name->data, s->len) == 0)
                {
                    break;
                }
            }

            if (s->len) {
                continue;
            }
        }

        if (ngx_http_llm_hash_add(cf, &skip, name) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (p->headers) {
        ph = p->headers->elts;
        for (i = 0; i < p->headers->nelts; i++) {
            if (ngx_http_llm_hash_add(cf, &skip, &ph[i].lowcase) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    for (name = ngx_http_llm_hide_headers; name->len; name++) {
        if (ngx_http_llm_hash_add(cf, &hide, name) != NGX_OK) {
            return NGX_ERROR;
        }

        /* what is passed through is not parsed, so its type is kept */

        if (ngx_strncmp(name->data, "content-", 8) != 0
            && ngx_http_llm_hash_add(cf, &direct, name) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    for (s = p->dialect->private_headers; s->len; s++) {
        own.len = s->len;
        own.data = s->data;

        if (ngx_http_llm_hash_add(cf, &hide, &own) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_llm_hash(cf, &p->skip, &skip, "llm_skip_headers_hash")
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_llm_hash(cf, &p->hide, &hide, "llm_hide_headers_hash")
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_hash(cf, &p->hide_direct, &direct,
                             "llm_hide_headers_hash");
}


static ngx_int_t
ngx_http_llm_hash_add(ngx_conf_t *cf, ngx_array_t *keys, ngx_str_t *name)
{
    ngx_uint_t       i;
    ngx_hash_key_t  *hk;

    hk = keys->elts;

    for (i = 0; i < keys->nelts; i++) {
        if (hk[i].key.len == name->len
            && ngx_strncmp(hk[i].key.data, name->data, name->len) == 0)
        {
            return NGX_OK;
        }
    }

    hk = ngx_array_push(keys);
    if (hk == NULL) {
        return NGX_ERROR;
    }

    hk->key = *name;
    hk->key_hash = ngx_hash_key(name->data, name->len);
    hk->value = (void *) 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_hash(ngx_conf_t *cf, ngx_hash_t *hash, ngx_array_t *keys,
    char *name)
{
    ngx_hash_init_t  init;

    init.hash = hash;
    init.key = ngx_hash_key;
    init.max_size = 1024;
    init.bucket_size = ngx_align(128, ngx_cacheline_size);
    init.name = name;
    init.pool = cf->pool;
    init.temp_pool = NULL;

    return ngx_hash_init(&init, keys->elts, keys->nelts);
}
