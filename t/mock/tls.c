
/*
 * TLS server side.  recv and send keep the socket calls' conventions: -1 with
 * errno EAGAIN when the socket is not ready.
 */

#include <errno.h>
#include <stdio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "mock.h"


static SSL_CTX  *mock_tls_ctx;


int
mock_tls_init(const char *cert, const char *key)
{
    static const u_char  sid[] = "llm_mock";

    mock_tls_ctx = SSL_CTX_new(TLS_server_method());

    if (mock_tls_ctx == NULL
        || SSL_CTX_use_certificate_chain_file(mock_tls_ctx, cert) != 1
        || SSL_CTX_use_PrivateKey_file(mock_tls_ctx, key,
                                       SSL_FILETYPE_PEM) != 1)
    {
        ERR_print_errors_fp(stderr);
        return MOCK_ERROR;
    }

    SSL_CTX_set_mode(mock_tls_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE
                                   |SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                                   |SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(mock_tls_ctx, SSL_SESS_CACHE_SERVER);
    SSL_CTX_set_session_id_context(mock_tls_ctx, sid, sizeof(sid) - 1);
    SSL_CTX_set_num_tickets(mock_tls_ctx, 1);

    return MOCK_OK;
}


int
mock_tls_open(mock_conn_t *c)
{
    c->ssl = SSL_new(mock_tls_ctx);

    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1) {
        return MOCK_ERROR;
    }

    SSL_set_accept_state(c->ssl);

    return MOCK_OK;
}


int
mock_tls_handshake(mock_conn_t *c)
{
    int  n, err;

    ERR_clear_error();
    n = SSL_do_handshake(c->ssl);

    if (n == 1) {
        mock.stats.tls_handshakes++;
        mock.stats.tls_resumed += SSL_session_reused(c->ssl) ? 1 : 0;
        return MOCK_OK;
    }

    err = SSL_get_error(c->ssl, n);

    return (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE)
           ? MOCK_AGAIN : MOCK_ERROR;
}


static ssize_t
mock_tls_result(mock_conn_t *c, int n)
{
    switch (SSL_get_error(c->ssl, n)) {

    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;

    case SSL_ERROR_ZERO_RETURN:
        return 0;

    default:
        errno = ECONNRESET;
        return -1;
    }
}


ssize_t
mock_tls_recv(mock_conn_t *c, void *p, size_t n)
{
    int  rc;

    ERR_clear_error();
    rc = SSL_read(c->ssl, p, (int) n);

    return rc > 0 ? rc : mock_tls_result(c, rc);
}


ssize_t
mock_tls_send(mock_conn_t *c, const void *p, size_t n)
{
    int  rc;

    ERR_clear_error();
    rc = SSL_write(c->ssl, p, n > 1 << 30 ? 1 << 30 : (int) n);

    return rc > 0 ? rc : mock_tls_result(c, rc);
}


/* Without notify the peer sees a truncated TLS stream, as after a crash. */

void
mock_tls_close(mock_conn_t *c, int notify)
{
    ERR_clear_error();

    if (notify && SSL_is_init_finished(c->ssl)) {
        SSL_shutdown(c->ssl);

    } else {
        SSL_set_quiet_shutdown(c->ssl, 1);
    }

    SSL_free(c->ssl);
    c->ssl = NULL;
}
