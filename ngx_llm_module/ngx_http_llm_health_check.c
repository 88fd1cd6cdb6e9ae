
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * One active check: a GET on a connection of its own, to one address after
 * the other until one answers well.  Of the answer only the status line is
 * looked at.
 *
 * A failure is no news: ngx_http_llm_health_result() tells of those that
 * change something, and what nginx would log of a connection is not written.
 */


#include "ngx_http_llm_module.h"
#include "ngx_http_llm_health.h"


#define NGX_HTTP_LLM_HEALTH_TRIES   16         /* addresses, of one check */
#define NGX_HTTP_LLM_HEALTH_BUFFER  4096


static ngx_int_t ngx_http_llm_health_addr(ngx_http_llm_health_t *h,
    ngx_peer_connection_t *pc);
static ngx_addr_t *ngx_http_llm_health_server(ngx_array_t *servers,
    ngx_uint_t n, ngx_uint_t *naddrs);
static ngx_int_t ngx_http_llm_health_connect(ngx_http_llm_health_t *h,
    ngx_peer_connection_t *pc);
static ngx_int_t ngx_http_llm_health_request(ngx_http_llm_health_t *h);
static ngx_uint_t ngx_http_llm_health_has(ngx_http_llm_provider_t *p,
    const char *name, size_t len);
static void ngx_http_llm_health_handler(ngx_event_t *ev);
static ngx_int_t ngx_http_llm_health_established(ngx_http_llm_health_t *h);
#if (NGX_HTTP_SSL)
static void ngx_http_llm_health_tls(ngx_http_llm_health_t *h);
static void ngx_http_llm_health_name(ngx_http_llm_provider_t *p,
    ngx_str_t *name);
static ngx_int_t ngx_http_llm_health_sni(ngx_http_llm_health_t *h,
    ngx_str_t *name);
static void ngx_http_llm_health_tls_done(ngx_connection_t *c);
static const char *ngx_http_llm_health_verify(ngx_http_llm_health_t *h);
#endif
static void ngx_http_llm_health_exchange(ngx_http_llm_health_t *h);
static ngx_int_t ngx_http_llm_health_send(ngx_http_llm_health_t *h);
static void ngx_http_llm_health_recv(ngx_http_llm_health_t *h);
static void ngx_http_llm_health_judge(ngx_http_llm_health_t *h);
static ngx_uint_t ngx_http_llm_health_good(ngx_http_llm_provider_t *p,
    ngx_uint_t status);


/*
 * Tries the next address, if there is one.  why: the last one has failed; if
 * it was the last of all, so has the check.
 */

void
ngx_http_llm_health_next(ngx_http_llm_health_t *h, const char *why,
    ngx_err_t err)
{
    ngx_int_t              rc;
    ngx_peer_connection_t  pc;

    ngx_http_llm_health_close(h);

    for ( ;; ) {

        rc = ngx_http_llm_health_addr(h, &pc);

        if (rc == NGX_DECLINED) {

            /* servers of an upstream that are known to nginx alone say
             * nothing */

            if (h->tries || h->provider->named == NULL) {
                ngx_http_llm_health_result(h, why, err);
            }

            ngx_http_llm_health_end(h);
            return;
        }

        if (h->tries++ && ngx_http_llm_health_renew(h) != NGX_OK) {
            ngx_http_llm_health_end(h);
            return;
        }

        rc = ngx_http_llm_health_connect(h, &pc);

        if (rc == NGX_OK) {
            return;
        }

        if (rc == NGX_ERROR) {

            /* our own trouble says nothing of the provider */

            ngx_http_llm_health_end(h);
            return;
        }

        why = "connect() failed";
        err = ngx_socket_errno;

        ngx_http_llm_health_close(h);
    }
}


/* NGX_DECLINED: there is no other address */

static ngx_int_t
ngx_http_llm_health_addr(ngx_http_llm_health_t *h, ngx_peer_connection_t *pc)
{
    ngx_uint_t                n;
    ngx_addr_t               *addr;
    ngx_http_llm_provider_t  *p;

    p = h->provider;
    n = 0;

    if (p->named) {
        addr = p->named->servers
               ? ngx_http_llm_health_server(p->named->servers,
                                            h->first + h->tries, &n)
               : NULL;

    } else {
        n = p->naddrs;
        addr = n ? &p->addrs[(h->first + h->tries) % n] : NULL;
    }

    if (addr == NULL || h->tries >= ngx_min(n, NGX_HTTP_LLM_HEALTH_TRIES)
        || addr->socklen > (socklen_t) sizeof(ngx_sockaddr_t))
    {
        return NGX_DECLINED;
    }

    ngx_memcpy(&h->sockaddr, addr->sockaddr, addr->socklen);

    h->name.data = h->text;
    h->name.len = ngx_min(addr->name.len, sizeof(h->text));
    ngx_memcpy(h->text, addr->name.data, h->name.len);

    ngx_memzero(pc, sizeof(ngx_peer_connection_t));

    pc->sockaddr = &h->sockaddr.sockaddr;
    pc->socklen = addr->socklen;
    pc->name = &h->name;
    pc->get = ngx_event_get_peer;
    pc->log = &h->log;
    pc->log_error = NGX_ERROR_ERR;

    return NGX_OK;
}


/* the n-th address of those of an upstream { }, counted round */

static ngx_addr_t *
ngx_http_llm_health_server(ngx_array_t *servers, ngx_uint_t n,
    ngx_uint_t *naddrs)
{
    ngx_uint_t                   i, total;
    ngx_http_upstream_server_t  *server;

    server = servers->elts;
    total = 0;

    for (i = 0; i < servers->nelts; i++) {
        if (!server[i].down) {
            total += server[i].naddrs;
        }
    }

    *naddrs = total;

    if (total == 0) {
        return NULL;
    }

    n %= total;

    for (i = 0; /* void */; i++) {

        if (server[i].down) {
            continue;
        }

        if (n < server[i].naddrs) {
            return &server[i].addrs[n];
        }

        n -= server[i].naddrs;
    }
}


/* NGX_OK: on its way, NGX_DECLINED: it fails, NGX_ERROR: so do we */

static ngx_int_t
ngx_http_llm_health_connect(ngx_http_llm_health_t *h,
    ngx_peer_connection_t *pc)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    h->connected = 0;
    h->secured = 0;
    h->len = 0;

    h->pool = ngx_create_pool(1024, ngx_cycle->log);
    if (h->pool == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_health_request(h) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_event_connect_peer(pc);

    if (rc == NGX_ERROR || rc == NGX_DECLINED) {
        return rc;
    }

    c = pc->connection;

    c->data = h;
    c->pool = h->pool;
    c->log = &h->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_http_llm_health_handler;
    c->write->handler = ngx_http_llm_health_handler;

    /* a worker that begins to exit tells us, but in a TLS handshake: that is
     * ended by the timer, or with the worker */

    c->idle = 1;

    h->connection = c;

    ngx_http_llm_health_arm(h, h->provider->timeout[NGX_HTTP_LLM_T_CONNECT]);

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_health_request(ngx_http_llm_health_t *h)
{
    size_t                    len;
    u_char                   *last;
    ngx_uint_t                i;
    ngx_http_llm_header_t    *ph;
    ngx_http_llm_provider_t  *p;

    static const llm_str_t  anthropic = llm_string("anthropic");

    static ngx_str_t  agent = ngx_string("User-Agent: nginx" CRLF);
    static ngx_str_t  version = ngx_string("anthropic-version: 2023-06-01"
                                           CRLF);

    p = h->provider;

    len = sizeof("GET /models HTTP/1.1" CRLF "Host: " CRLF
                 "Accept-Encoding: identity" CRLF
                 "Connection: close" CRLF CRLF) - 1
          + p->base.len + p->health_uri.len + p->host.len
          + agent.len + version.len
          + p->auth.key.len + p->auth.value.len + 4;

    ph = p->headers ? p->headers->elts : NULL;

    for (i = 0; ph && i < p->headers->nelts; i++) {
        len += ph[i].key.len + ph[i].value.len + 4;
    }

    last = ngx_pnalloc(h->pool, len);
    if (last == NULL) {
        return NGX_ERROR;
    }

    h->pos = last;

    if (p->health_uri.len) {
        last = ngx_sprintf(last, "GET %V", &p->health_uri);

    } else {
        last = ngx_sprintf(last, "GET %V/models", &p->base);
    }

    last = ngx_sprintf(last, " HTTP/1.1" CRLF "Host: %V" CRLF
                       "Accept-Encoding: identity" CRLF
                       "Connection: close" CRLF, &p->host);

    if (!ngx_http_llm_health_has(p, "user-agent", sizeof("user-agent") - 1)) {
        last = ngx_cpymem(last, agent.data, agent.len);
    }

    /* Anthropic refuses a request that names no version of its API */

    if (p->dialect == llm_dialect_get(&anthropic)
        && !ngx_http_llm_health_has(p, "anthropic-version",
                                    sizeof("anthropic-version") - 1))
    {
        last = ngx_cpymem(last, version.data, version.len);
    }

    if (p->key_source == NGX_HTTP_LLM_KEY_OURS) {
        last = ngx_sprintf(last, "%V: %V" CRLF, &p->auth.key, &p->auth.value);
    }

    for (i = 0; ph && i < p->headers->nelts; i++) {
        if (ph[i].value.len) {
            last = ngx_sprintf(last, "%V: %V" CRLF, &ph[i].key, &ph[i].value);
        }
    }

    *last++ = CR; *last++ = LF;

    h->last = last;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_health_has(ngx_http_llm_provider_t *p, const char *name,
    size_t len)
{
    ngx_uint_t              i;
    ngx_http_llm_header_t  *ph;

    ph = p->headers ? p->headers->elts : NULL;

    for (i = 0; ph && i < p->headers->nelts; i++) {
        if (ph[i].lowcase.len == len
            && ngx_memcmp(ph[i].lowcase.data, name, len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_llm_health_handler(ngx_event_t *ev)
{
    ngx_connection_t       *c;
    ngx_http_llm_health_t  *h;

    c = ev->data;
    h = c->data;

    if (c->close) {
        ngx_http_llm_health_abort(h);
        return;
    }

    if (!h->connected) {

        if (ngx_http_llm_health_established(h) != NGX_OK) {
            ngx_http_llm_health_next(h, "connect() failed", ngx_socket_errno);
            return;
        }

        if (!c->write->ready) {
            return;
        }

        h->connected = 1;

#if (NGX_HTTP_SSL)

        if (h->provider->tls) {
            ngx_http_llm_health_tls(h);
            return;
        }

#endif

        h->secured = 1;
    }

    ngx_http_llm_health_exchange(h);
}


/* NGX_ERROR: with the reason in errno */

static ngx_int_t
ngx_http_llm_health_established(ngx_http_llm_health_t *h)
{
    int                err;
    socklen_t          len;
    ngx_connection_t  *c;

    c = h->connection;

#if (NGX_HAVE_KQUEUE)

    if (ngx_event_flags & NGX_USE_KQUEUE_EVENT) {

        if (c->write->pending_eof || c->read->pending_eof) {
            ngx_set_socket_errno(c->write->pending_eof ? c->write->kq_errno
                                                       : c->read->kq_errno);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

#endif

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        return NGX_ERROR;
    }

    if (err) {
        ngx_set_socket_errno(err);
        return NGX_ERROR;
    }

    return NGX_OK;
}


#if (NGX_HTTP_SSL)

/* as ngx_http_upstream does for a call, but without an old session */

static void
ngx_http_llm_health_tls(ngx_http_llm_health_t *h)
{
    ngx_str_t                 name;
    ngx_connection_t         *c;
    ngx_http_llm_provider_t  *p;

    c = h->connection;
    p = h->provider;

    if (ngx_ssl_create_connection(p->upstream.ssl, c, NGX_SSL_CLIENT)
        != NGX_OK)
    {
        goto failed;
    }

    ngx_http_llm_health_name(p, &name);

    if (p->upstream.ssl_server_name
        && ngx_http_llm_health_sni(h, &name) != NGX_OK)
    {
        goto failed;
    }

    if (ngx_ssl_handshake(c) == NGX_AGAIN) {
        c->ssl->handler = ngx_http_llm_health_tls_done;
        return;
    }

    ngx_http_llm_health_tls_done(c);
    return;

failed:

    ngx_http_llm_health_end(h);
}


/* the name that is asked for and verified, without a port */

static void
ngx_http_llm_health_name(ngx_http_llm_provider_t *p, ngx_str_t *name)
{
    u_char  *s, *last;

    *name = p->uscf.host;

    s = name->data;
    last = s + name->len;

    if (name->len && *s == '[') {
        s = ngx_strlchr(s, last, ']');

        if (s == NULL) {
            s = name->data;
        }
    }

    s = ngx_strlchr(s, last, ':');

    if (s) {
        name->len = s - name->data;
    }
}


/* RFC 6066: a literal address is no server name */

static ngx_int_t
ngx_http_llm_health_sni(ngx_http_llm_health_t *h, ngx_str_t *name)
{
    u_char            *s;
    ngx_connection_t  *c;

    c = h->connection;

    if (name->len == 0 || name->data[0] == '['
        || ngx_inet_addr(name->data, name->len) != INADDR_NONE)
    {
        return NGX_OK;
    }

    s = ngx_pnalloc(h->pool, name->len + 1);
    if (s == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_cpystrn(s, name->data, name->len + 1);

    if (SSL_set_tlsext_host_name(c->ssl->connection, (char *) s) == 0) {
        ngx_ssl_error(NGX_LOG_ERR, c->log, 0,
                      "SSL_set_tlsext_host_name() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_llm_health_tls_done(ngx_connection_t *c)
{
    const char             *why;
    ngx_http_llm_health_t  *h;

    h = c->data;

    if (c->close) {
        ngx_http_llm_health_abort(h);
        return;
    }

    why = ngx_http_llm_health_verify(h);

    if (why) {
        ngx_http_llm_health_next(h, why, 0);
        return;
    }

    h->secured = 1;

    c->read->handler = ngx_http_llm_health_handler;
    c->write->handler = ngx_http_llm_health_handler;

    ngx_http_llm_health_exchange(h);
}


/* NULL: we know to whom we speak */

static const char *
ngx_http_llm_health_verify(ngx_http_llm_health_t *h)
{
    long                      rc;
    ngx_str_t                 name;
    ngx_connection_t         *c;
    ngx_http_llm_provider_t  *p;

    c = h->connection;
    p = h->provider;

    if (!c->ssl->handshaked) {
        return "TLS handshake failed";
    }

    if (!p->upstream.ssl_verify) {
        return NULL;
    }

    rc = SSL_get_verify_result(c->ssl->connection);

    if (rc != X509_V_OK) {
        return X509_verify_cert_error_string(rc);
    }

    ngx_http_llm_health_name(p, &name);

    if (ngx_ssl_check_host(c, &name) != NGX_OK) {
        return "its certificate is for another name";
    }

    return NULL;
}

#endif


static void
ngx_http_llm_health_exchange(ngx_http_llm_health_t *h)
{
    if (h->pos < h->last && ngx_http_llm_health_send(h) != NGX_OK) {
        return;
    }

    ngx_http_llm_health_recv(h);
}


/* NGX_OK: all was sent, NGX_AGAIN, NGX_ERROR: the try has ended */

static ngx_int_t
ngx_http_llm_health_send(ngx_http_llm_health_t *h)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = h->connection;

    while (h->pos < h->last) {

        n = c->send(c, h->pos, h->last - h->pos);

        if (n == NGX_ERROR) {
            ngx_http_llm_health_next(h, "send() failed", ngx_socket_errno);
            return NGX_ERROR;
        }

        if (n == NGX_AGAIN || n == 0) {
            break;
        }

        h->pos += n;
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_http_llm_health_end(h);
        return NGX_ERROR;
    }

    if (h->pos < h->last) {
        return NGX_AGAIN;
    }

    ngx_http_llm_health_arm(h, ngx_min(h->provider->health_interval,
                                       NGX_HTTP_LLM_HEALTH_ANSWER));

    return NGX_OK;
}


/*
 * What comes in the same breath as the status line is taken, too: to close
 * with bytes unread would be a reset.
 */

static void
ngx_http_llm_health_recv(ngx_http_llm_health_t *h)
{
    size_t             len;
    ssize_t            n;
    ngx_connection_t  *c;
    u_char             buf[NGX_HTTP_LLM_HEALTH_BUFFER];

    c = h->connection;

    while (h->len < NGX_HTTP_LLM_HEALTH_LINE) {

        n = c->recv(c, buf, NGX_HTTP_LLM_HEALTH_BUFFER);

        if (n == NGX_AGAIN) {

            if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
                ngx_http_llm_health_end(h);
            }

            return;
        }

        if (n == NGX_ERROR) {
            ngx_http_llm_health_next(h, "recv() failed", ngx_socket_errno);
            return;
        }

        if (n == 0) {
            ngx_http_llm_health_next(h, "closed without an answer", 0);
            return;
        }

        len = ngx_min((size_t) n, NGX_HTTP_LLM_HEALTH_LINE - h->len);

        ngx_memcpy(h->line + h->len, buf, len);
        h->len += len;
    }

    ngx_http_llm_health_judge(h);
}


static void
ngx_http_llm_health_judge(ngx_http_llm_health_t *h)
{
    u_char     *p, why[sizeof("status 200")];
    ngx_int_t   status;

    p = h->line;

    status = ngx_atoi(p + 9, 3);

    if (ngx_strncmp(p, "HTTP/1.", 7) != 0 || p[7] < '0' || p[7] > '9'
        || p[8] != ' ' || status < 100
        || (p[12] != ' ' && p[12] != CR && p[12] != LF))
    {
        ngx_http_llm_health_next(h, "it does not speak HTTP", 0);
        return;
    }

    if (ngx_http_llm_health_good(h->provider, status)) {
        ngx_http_llm_health_result(h, NULL, 0);
        ngx_http_llm_health_end(h);
        return;
    }

    ngx_sprintf(why, "status %i%Z", status);

    if (h->provider->named) {
        ngx_http_llm_health_next(h, (char *) why, 0);
        return;
    }

    /* all addresses of a host are the same provider: it has answered */

    ngx_http_llm_health_result(h, (char *) why, 0);
    ngx_http_llm_health_end(h);
}


/*
 * The question is whether calls make sense, and these answers come from a
 * server that is at work, too: there is no such uri, or it wants another
 * method (not every server has a list of models), or we ask too often, which
 * a call finds out by itself.  If it is the clients who have a key, it is
 * right to refuse us, who have none.
 */

static ngx_uint_t
ngx_http_llm_health_good(ngx_http_llm_provider_t *p, ngx_uint_t status)
{
    switch (status) {

    case NGX_HTTP_NOT_FOUND:
    case NGX_HTTP_NOT_ALLOWED:
    case NGX_HTTP_TOO_MANY_REQUESTS:
        return 1;

    case NGX_HTTP_UNAUTHORIZED:
    case NGX_HTTP_FORBIDDEN:
        return p->key_source == NGX_HTTP_LLM_KEY_CLIENT;

    default:
        return status >= 200 && status < 400;
    }
}


void
ngx_http_llm_health_close(ngx_http_llm_health_t *h)
{
    ngx_connection_t  *c;

    c = h->connection;

    if (c) {
        h->connection = NULL;

#if (NGX_HTTP_SSL)

        if (c->ssl) {
            c->ssl->no_wait_shutdown = 1;
            c->ssl->no_send_shutdown = 1;

            (void) ngx_ssl_shutdown(c);
        }

#endif

        ngx_close_connection(c);
    }

    if (h->pool) {
        ngx_destroy_pool(h->pool);
        h->pool = NULL;
    }
}
