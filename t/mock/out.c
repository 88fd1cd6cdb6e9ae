
/*
 * Output: framing of body bytes into the shared scratch buffer, and writing
 * it.  What the socket refuses, or what is paced, waits in c->pend; nothing
 * more is generated until that is gone.
 */

#include <errno.h>
#include <sys/socket.h>

#include "mock.h"


static ssize_t
mock_out_send(mock_conn_t *c, const u_char *p, size_t n)
{
    ssize_t  rc;

    do {
        rc = c->ssl ? mock_tls_send(c, p, n)
                    : send(c->fd, p, n, MSG_NOSIGNAL);
    } while (rc == -1 && errno == EINTR);

    if (rc == -1) {
        return errno == EAGAIN ? MOCK_AGAIN : MOCK_ERROR;
    }

    if (!c->control) {
        mock.stats.bytes_out += (uint64_t) rc;
    }

    return rc;
}


/* How many bytes may go now; sets the timer and returns 0 if none. */

static size_t
mock_out_pace(mock_conn_t *c, size_t n)
{
    size_t       limit;
    int64_t      pause;
    mock_ctl_t  *ctl;

    if (c->pace_free) {
        return n < c->pace_free ? n : c->pace_free;
    }

    if (c->pace_at > mock.now) {
        mock_timer_set(c, c->pace_at);
        return 0;
    }

    ctl = &c->req.ctl;

    if (ctl->split > 0) {
        limit = (size_t) ctl->split;
        pause = 1000;

    } else if (ctl->rate >= 100) {
        limit = (size_t) ctl->rate / 100;
        pause = 10000;

    } else {
        limit = 1;
        pause = 1000000 / ctl->rate;
    }

    if (c->pace_at < mock.now - 100000) {
        c->pace_at = mock.now;
    }

    c->pace_at += pause;

    return n < limit ? n : limit;
}


static int
mock_out_pend(mock_conn_t *c, int paced)
{
    size_t   n;
    ssize_t  sent;

    while (c->pend_pos < c->pend.len) {
        n = c->pend.len - c->pend_pos;

        if (paced) {
            n = mock_out_pace(c, n);
            if (n == 0) {
                return MOCK_AGAIN;
            }
        }

        sent = mock_out_send(c, c->pend.data + c->pend_pos, n);

        if (sent < 0) {
            return (int) sent;
        }

        c->pend_pos += (size_t) sent;

        if (paced && c->pace_free) {
            c->pace_free -= (size_t) sent;
        }
    }

    mock_buf_free(&c->pend);
    c->pend_pos = 0;

    return MOCK_OK;
}


/* MOCK_OK when everything is written, MOCK_AGAIN, MOCK_ERROR */

int
mock_out_flush(mock_conn_t *c)
{
    int          paced;
    ssize_t      sent;
    mock_buf_t  *b;

    b = &mock.out;
    paced = c->state == MOCK_CONN_ANSWER && !c->req.control
            && (c->req.ctl.split > 0 || c->req.ctl.rate > 0);

    if (b->len) {
        sent = 0;

        if (c->pend.len == 0 && !paced) {
            sent = mock_out_send(c, b->data, b->len);

            if (sent == (ssize_t) b->len) {
                b->len = 0;
                return MOCK_OK;
            }

            if (sent == MOCK_ERROR) {
                b->len = 0;
                return MOCK_ERROR;
            }

            if (sent == MOCK_AGAIN) {
                sent = 0;
            }
        }

        mock_buf_add(&c->pend, b->data + sent, b->len - (size_t) sent);
        b->len = 0;

        if (b->cap > 1 << 20) {
            mock_buf_free(b);
        }
    }

    return c->pend.len ? mock_out_pend(c, paced) : MOCK_OK;
}


static void
mock_out_frame(mock_req_t *r, const u_char *p, size_t n)
{
    size_t       len, room;
    mock_buf_t  *b;

    b = &mock.out;
    r->produced += n;

    if (r->measure) {
        return;
    }

    if (r->seq == mock.last_seq && !r->control && !mock.last_answer_over) {
        room = MOCK_LAST_ANSWER - mock.last_answer.len;
        mock.last_answer_over = n > room;
        mock_buf_add(&mock.last_answer, p, n < room ? n : room);
    }

    if (r->framing != MOCK_FRAME_CHUNKED) {
        mock_buf_add(b, p, n);
        return;
    }

    while (n) {
        len = n;

        if (r->ctl.chunk > 0 && len > (size_t) r->ctl.chunk) {
            len = (size_t) r->ctl.chunk;
        }

        mock_buf_hex(b, len, 0);
        mock_lit(b, "\r\n");
        mock_buf_add(b, p, len);
        mock_lit(b, "\r\n");

        p += len;
        n -= len;
    }
}


static void
mock_out_le32(u_char *p, uint32_t n)
{
    p[0] = (u_char) n;
    p[1] = (u_char) (n >> 8);
    p[2] = (u_char) (n >> 16);
    p[3] = (u_char) (n >> 24);
}


/* gzip of stored blocks: true gzip without a compressor */

static void
mock_out_gzip(mock_req_t *r, const u_char *p, size_t n)
{
    size_t  len;
    u_char  block[5];

    static const u_char  head[10] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3 };

    if (!r->gzip_open) {
        r->gzip_open = 1;
        r->crc = 0;
        mock_out_frame(r, head, sizeof(head));
    }

    r->crc = mock_crc32(r->crc, p, n);

    while (n) {
        len = n < 65535 ? n : 65535;

        block[0] = 0;
        block[1] = (u_char) len;
        block[2] = (u_char) (len >> 8);
        block[3] = (u_char) ~len;
        block[4] = (u_char) (~len >> 8);

        mock_out_frame(r, block, sizeof(block));
        mock_out_frame(r, p, len);

        p += len;
        n -= len;
    }
}


/* Appends body bytes to what mock_out_flush() will write. */

void
mock_out_body(mock_req_t *r, const u_char *p, size_t n)
{
    if (n == 0) {
        return;
    }

    if (r->gzip) {
        r->gzip_size += (uint32_t) n;
        mock_out_gzip(r, p, n);
        return;
    }

    mock_out_frame(r, p, n);
}


/* The clean end of the body. */

void
mock_out_end(mock_req_t *r)
{
    u_char  tail[13];

    if (r->gzip) {
        memcpy(tail, "\001\000\000\377\377", 5);
        mock_out_le32(tail + 5, r->crc);
        mock_out_le32(tail + 9, r->gzip_size);
        mock_out_frame(r, tail, sizeof(tail));
    }

    if (r->framing == MOCK_FRAME_CHUNKED && !r->measure) {
        mock_lit(&mock.out, "0\r\n\r\n");
    }
}
