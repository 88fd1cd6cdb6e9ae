
/*
 * Request heads and bodies.  A head is parsed only when it is whole; a body is
 * consumed in whatever pieces arrive.
 */

#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "mock.h"


const char  *mock_methods[] = {
    "?", "GET", "POST", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", NULL
};

enum {
    sw_size = 0,
    sw_size_ext,
    sw_data,
    sw_data_cr,
    sw_data_lf,
    sw_trailer,
    sw_trailer_line
};


static int
mock_http_is(const u_char *p, size_t n, const char *name)
{
    return strlen(name) == n && strncasecmp((const char *) p, name, n) == 0;
}


static void
mock_http_header(mock_req_t *r, u_char *p, size_t n, u_char *v, size_t vlen)
{
    switch (p[0] | 0x20) {

    case 'x':
        if (n > 7 && strncasecmp((char *) p, "x-mock-", 7) == 0
            && mock_ctl_set(&r->ctl, r, (char *) p + 7, n - 7, (char *) v,
                            vlen, MOCK_LEVEL_HEADER)
               != MOCK_OK)
        {
            snprintf(r->bad_control, sizeof(r->bad_control), "%.*s",
                     (int) n, (char *) p);
        }

        break;

    case 'c':
        if (mock_http_is(p, n, "content-length")) {
            r->body_left = strtoull((char *) v, NULL, 10);

        } else if (mock_http_is(p, n, "connection")) {
            if (memmem(v, vlen, "close", 5)) {
                r->close_asked = 1;

            } else if (vlen == 10 && strncasecmp((char *) v, "keep-alive", 10)
                                     == 0)
            {
                r->keep10 = 1;
            }
        }

        break;

    case 't':
        if (mock_http_is(p, n, "transfer-encoding")
            && memmem(v, vlen, "chunked", 7))
        {
            r->chunked = 1;
        }

        break;

    case 'e':
        if (mock_http_is(p, n, "expect") && vlen == 12) {
            r->expect = 1;
        }

        break;

    case 'a':
        if (mock_http_is(p, n, "anthropic-version")) {
            r->anthropic = 1;
        }

        break;
    }
}


/* Cuts "/@name=value;.../" out of the path, returns what follows it. */

static void
mock_http_path(mock_req_t *r, char **path, size_t *len)
{
    char    *p, *end;
    size_t   n;

    p = memmem(*path, *len, "/@", 2);
    if (p == NULL) {
        return;
    }

    p += 2;
    n = *len - (size_t) (p - *path);
    end = memchr(p, '/', n);
    n = end ? (size_t) (end - p) : n;

    mock_ctl_list(r, p, n, ';', MOCK_LEVEL_PATH);

    *len -= (size_t) (p + n - *path);
    *path = p + n;
}


static int
mock_http_line(mock_req_t *r, u_char *p, size_t n)
{
    int             i;
    char           *uri, *args;
    u_char         *end;
    size_t          len, path_len;
    mock_record_t  *rec;

    end = memchr(p, ' ', n);
    if (end == NULL) {
        return MOCK_ERROR;
    }

    for (i = 1; mock_methods[i]; i++) {
        if (mock_http_is(p, (size_t) (end - p), mock_methods[i])) {
            r->method = (u_char) i;
        }
    }

    uri = (char *) end + 1;
    end = memrchr(p, ' ', n);
    len = (size_t) ((char *) end - uri);

    if ((char *) end < uri || len == 0 || uri[0] != '/'
        || p + n - end < 9 || memcmp(end + 1, "HTTP/1.", 7) != 0)
    {
        return MOCK_ERROR;
    }

    r->http10 = (end[8] == '0');

    args = memchr(uri, '?', len);
    path_len = args ? (size_t) (args - uri) : len;

    if (mock_api_match(r, uri, len)) {
        return MOCK_OK;
    }

    r->seq = ++mock.seq;
    rec = mock_record(r);
    memset(rec, 0, offsetof(mock_record_t, uri));
    rec->seq = r->seq;
    rec->t_ms = mock_epoch_ms();
    rec->method = r->method;
    rec->port = (uint16_t) r->conn->listen->port;
    rec->uri_len = (uint16_t) (len < sizeof(rec->uri) ? len
                                                      : sizeof(rec->uri));
    memcpy(rec->uri, uri, rec->uri_len);

    mock_http_path(r, &uri, &path_len);

    if (args) {
        args++;
        mock_ctl_list(r, args, len - (size_t) (args - ((char *) end - len)),
                      '&', MOCK_LEVEL_QUERY);
    }

    r->api = mock_route(r, uri, path_len);

    return MOCK_OK;
}


/*
 * Parses a head of len bytes, its empty line included, and resets c->req for
 * it.  The bytes may be written to.
 */

int
mock_http_head(mock_conn_t *c, u_char *p, size_t len)
{
    u_char      *end, *lf, *colon, *v, *last;
    mock_req_t  *r;

    r = &c->req;
    end = p + len;

    memset((u_char *) r + sizeof(mock_ctl_t), 0,
           sizeof(mock_req_t) - sizeof(mock_ctl_t));
    r->ctl = c->listen->ctl;
    r->conn = c;
    r->json.max_tokens = -1;
    r->json.dimensions = -1;

    lf = memchr(p, '\n', len);

    if (mock_http_line(r, p, (size_t) (lf - p) - (lf[-1] == '\r'))
        != MOCK_OK)
    {
        return MOCK_ERROR;
    }

    for (v = lf + 1; v < end; v = lf + 1) {

        lf = memchr(v, '\n', (size_t) (end - v));
        colon = lf ? memchr(v, ':', (size_t) (lf - v)) : NULL;

        if (colon == NULL) {
            if (lf - v > 1) {
                return MOCK_ERROR;
            }

            break;
        }

        last = lf[-1] == '\r' ? lf - 1 : lf;
        p = v;
        v = colon + 1;

        while (v < last && (*v == ' ' || *v == '\t')) { v++; }
        while (last > v && last[-1] == ' ') { last--; }

        mock_http_header(r, p, (size_t) (colon - p), v, (size_t) (last - v));
    }

    if (r->chunked) {
        r->body_left = 0;
    }

    if (r->anthropic && r->api == &mock_models) {
        r->api = &mock_models_anthropic;
    }

    return MOCK_OK;
}


static void
mock_http_data(mock_req_t *r, u_char *p, size_t n)
{
    size_t       limit;
    mock_buf_t  *b;

    r->body_len += n;

    if (r->body_len > MOCK_BODY_MAX) {
        r->overlong = 1;
        return;
    }

    if (r->control) {
        return;
    }

    if (r->api->json) {
        r->json.want_tail = r->ctl.prefill > 0 && r->api == &mock_messages;
        mock_json_feed(&r->json, p, n);

        if (r->ctl.derive > 0) {
            mock_derive_body(r, p, n);
        }

    } else if (r->api == &mock_files) {
        r->crc = mock_crc32(r->crc, p, n);
    }

    if (r->seq == mock.last_seq && !mock.last_body_over) {
        b = &mock.last_body;
        limit = r->ctl.keep > 0 ? MOCK_KEEP_BODY : MOCK_LAST_BODY;

        if (n > limit - b->len) {
            n = limit - b->len;
            mock.last_body_over = !(r->ctl.keep > 0);
        }

        mock_buf_add(b, p, n);
    }
}


/*
 * Takes body bytes.  Returns how many; r->body_left and r->chunked are zero
 * when the body is whole.  MOCK_ERROR for broken chunked coding.
 */

ssize_t
mock_http_body(mock_conn_t *c, u_char *p, size_t len)
{
    u_char       ch;
    u_char      *start, *end;
    size_t       n;
    mock_req_t  *r;

    r = &c->req;
    start = p;
    end = p + len;

    if (!r->chunked) {
        n = len < r->body_left ? len : r->body_left;
        r->body_left -= n;
        mock_http_data(r, p, n);
        return (ssize_t) n;
    }

    while (p < end) {

        if (r->chunk_state == sw_data) {
            n = (size_t) (end - p);
            n = n < r->body_left ? n : r->body_left;
            mock_http_data(r, p, n);
            p += n;
            r->body_left -= n;

            if (r->body_left == 0) {
                r->chunk_state = sw_data_cr;
            }

            continue;
        }

        ch = *p++;

        switch (r->chunk_state) {

        case sw_size:
            if (ch >= '0' && ch <= '9') {
                r->body_left = r->body_left << 4 | (uint64_t) (ch - '0');

            } else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f') {
                r->body_left = r->body_left << 4
                               | (uint64_t) ((ch | 0x20) - 'a' + 10);

            } else if (ch == '\r' || ch == ';') {
                r->chunk_state = sw_size_ext;

            } else {
                return MOCK_ERROR;
            }

            break;

        case sw_size_ext:
            if (ch == '\n') {
                r->chunk_state = r->body_left ? sw_data : sw_trailer;
            }

            break;

        case sw_data_cr:
            if (ch != '\r') {
                return MOCK_ERROR;
            }

            r->chunk_state = sw_data_lf;
            break;

        case sw_data_lf:
            if (ch != '\n') {
                return MOCK_ERROR;
            }

            r->chunk_state = sw_size;
            break;

        case sw_trailer:
            if (ch == '\n') {
                r->chunked = 0;
                r->body_left = 0;
                return p - start;
            }

            r->chunk_state = (ch == '\r') ? sw_trailer : sw_trailer_line;
            break;

        case sw_trailer_line:
            if (ch == '\n') {
                r->chunk_state = sw_trailer;
            }

            break;
        }
    }

    return p - start;
}
