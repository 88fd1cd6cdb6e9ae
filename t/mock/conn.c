
/*
 * Connections: accept, read, close.  Sockets are edge-triggered with all
 * events registered once, so c->readable remembers input that was left unread
 * while an answer is on its way.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "mock.h"


#define MOCK_LINGER_US     2000000
#define MOCK_HALF_IDLE_US  50000


static u_char        mock_rbuf[MOCK_READ_SIZE + MOCK_HEAD_MAX];
static mock_conn_t  *mock_free, *mock_dead;

typedef struct mock_slab_s  mock_slab_t;

struct mock_slab_s {
    mock_slab_t  *next;
    mock_conn_t   conns[64];
};

static mock_slab_t  *mock_slabs;


static int
mock_conn_grow(void)
{
    size_t        i;
    mock_slab_t  *slab;

    slab = malloc(sizeof(mock_slab_t));
    if (slab == NULL) {
        return MOCK_ERROR;
    }

    slab->next = mock_slabs;
    mock_slabs = slab;

    for (i = 0; i < sizeof(slab->conns) / sizeof(slab->conns[0]); i++) {
        slab->conns[i].next = mock_free;
        mock_free = &slab->conns[i];
    }

    return MOCK_OK;
}


static mock_conn_t *
mock_conn_get(int fd, mock_listen_t *ls)
{
    mock_conn_t  *c;

    if (mock_free == NULL && mock_conn_grow() != MOCK_OK) {
        return NULL;
    }

    c = mock_free;
    mock_free = c->next;

    memset(c, 0, offsetof(mock_conn_t, req));
    c->req.nstrs = 0;
    c->req.rude = 0;
    c->req.json.model = NULL;
    c->req.json.tail.data = NULL;
    c->req.question.data = NULL;
    c->fd = fd;
    c->timer = -1;
    c->listen = ls;
    c->state = ls->tls ? MOCK_CONN_TLS : MOCK_CONN_HEAD;

    return c;
}


void
mock_conn_accept(mock_listen_t *ls)
{
    int                  fd, one;
    mock_conn_t         *c;
    struct epoll_event   ee;

    for ( ;; ) {
        fd = accept4(ls->fd, NULL, NULL, SOCK_NONBLOCK|SOCK_CLOEXEC);

        if (fd == -1) {
            if (errno == ECONNABORTED || errno == EINTR) {
                continue;
            }

            if (errno != EAGAIN) {
                perror("llm_mock: accept");
            }

            return;
        }

        c = mock_conn_get(fd, ls);
        if (c == NULL) {
            close(fd);
            return;
        }

        one = 1;
        (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

        mock.stats.connections++;
        mock.stats.open_connections++;
        ls->connections++;

        ee.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
        ee.data.ptr = c;

        if (epoll_ctl(mock.epoll, EPOLL_CTL_ADD, fd, &ee) == -1
            || (ls->tls && mock_tls_open(c) != MOCK_OK))
        {
            mock_conn_close(c, 1);
        }
    }
}


void
mock_conn_close(mock_conn_t *c, int rst)
{
    struct linger  lg;

    mock_timer_del(c);

    if (c->ssl) {
        mock_tls_close(c, !rst && !c->req.rude);
    }

    if (rst) {
        lg.l_onoff = 1;
        lg.l_linger = 0;
        (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
    }

    close(c->fd);

    if (!c->control) {
        mock.stats.open_connections--;
    }

    mock_buf_free(&c->in);
    mock_buf_free(&c->pend);

    c->fd = -1;
    c->state = MOCK_CONN_DEAD;
    c->next = mock_dead;
    mock_dead = c;
}


/* Events of this epoll round may still point to closed connections. */

void
mock_conn_reap(void)
{
    mock_conn_t  *c;

    while (mock_dead) {
        c = mock_dead;
        mock_dead = c->next;
        c->next = mock_free;
        mock_free = c;
    }
}


/* The first head tells whether the connection counts at all. */

static void
mock_conn_known(mock_conn_t *c)
{
    c->known = 1;

    if (c->req.control) {
        c->control = 1;
        c->listen->connections--;
        mock.stats.connections--;
        mock.stats.open_connections--;

    } else {
        mock.stats.bytes_in += c->nin;
    }
}


static void
mock_conn_free_req(mock_req_t *r)
{
    mock_ctl_free(r);

    if (r->json.model && r->json.model != r->json.model_buf) {
        free(r->json.model);
    }

    r->json.model = NULL;
    mock_buf_free(&r->json.tail);
    mock_buf_free(&r->question);
}


static void
mock_conn_bad(mock_conn_t *c, const char *status)
{
    mock_buf_t  *b;

    mock_conn_free_req(&c->req);

    b = &mock.out;
    mock_lit(b, "HTTP/1.1 ");
    mock_str(b, status);
    mock_lit(b, "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");

    (void) mock_out_flush(c);
    mock_conn_close(c, 0);
}


static void
mock_conn_head_done(mock_conn_t *c, const u_char *p, size_t len)
{
    mock_req_t  *r;

    r = &c->req;

    if (!c->known) {
        mock_conn_known(c);
    }

    if (r->control) {
        return;
    }

    mock.stats.requests++;
    c->listen->requests++;

    mock.last_seq = r->seq;
    mock.last_body.len = 0;
    mock.last_body_over = 0;
    mock.last_answer.len = 0;
    mock.last_answer_over = 0;
    mock.last_head.len = 0;
    mock_buf_add(&mock.last_head, p, len);
}


static int
mock_conn_body_left(mock_req_t *r)
{
    return r->chunked || r->body_left;
}


/* Returns bytes used; stops at an answer that is not written at once. */

static size_t
mock_conn_process(mock_conn_t *c, u_char *p, size_t n)
{
    int          size;
    u_char      *start, *end, *empty;
    ssize_t      used;
    mock_req_t  *r;

    r = &c->req;
    start = p;
    end = p + n;

    while (p < end) {

        if (c->state == MOCK_CONN_HEAD) {

            empty = memmem(p, (size_t) (end - p), "\r\n\r\n", 4);

            if (empty == NULL) {
                if (end - p > MOCK_HEAD_MAX) {
                    mock_conn_bad(c, "431 Request Header Fields Too Large");
                }

                break;
            }

            empty += 4;
            mock_timer_del(c);

            if (mock_http_head(c, p, (size_t) (empty - p)) != MOCK_OK) {
                mock_conn_bad(c, "400 Bad Request");
                break;
            }

            mock_conn_head_done(c, p, (size_t) (empty - p));

            p = empty;
            c->state = MOCK_CONN_BODY;

            if (r->ctl.read_rate > 0) {
                size = 16384;
                (void) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size,
                                  sizeof(size));
            }

            if (r->expect && p == end && mock_conn_body_left(r)
                && r->ctl.early <= 0)
            {
                mock_lit(&mock.out, "HTTP/1.1 100 Continue\r\n\r\n");
                (void) mock_out_flush(c);
            }

            if (r->ctl.early > 0) {
                r->end = MOCK_END_LINGER;
                mock_answer(c);

            } else if (!mock_conn_body_left(r)) {
                mock_answer(c);
            }

        } else if (c->state == MOCK_CONN_BODY) {

            used = mock_http_body(c, p, (size_t) (end - p));

            if (used < 0) {
                mock_conn_bad(c, "400 Bad Request");
                break;
            }

            p += used;

            if (r->overlong) {
                r->end = MOCK_END_LINGER;
                mock_answer(c);

            } else if (!mock_conn_body_left(r)) {
                mock_answer(c);
            }

        } else if (c->state == MOCK_CONN_LINGER) {
            p = end;

        } else {
            break;
        }
    }

    return (size_t) (p - start);
}


static ssize_t
mock_conn_recv(mock_conn_t *c, u_char *p, size_t size)
{
    ssize_t  n;

    do {
        n = c->ssl ? mock_tls_recv(c, p, size) : recv(c->fd, p, size, 0);
    } while (n == -1 && errno == EINTR);

    if (n == -1 && errno == EAGAIN) {
        c->readable = 0;
        return MOCK_AGAIN;
    }

    if (n <= 0) {
        return MOCK_ERROR;
    }

    if (!c->ssl && (size_t) n < size && !c->gone) {
        c->readable = 0;
    }

    if (c->known) {
        mock.stats.bytes_in += c->control ? 0 : (uint64_t) n;

    } else {
        c->nin += (uint64_t) n;
    }

    return n;
}


static void
mock_conn_gone(mock_conn_t *c)
{
    if (c->state == MOCK_CONN_BODY || c->state == MOCK_CONN_ANSWER) {
        mock_finish(c, 1);
        return;
    }

    mock_conn_close(c, 0);
}


void
mock_conn_read(mock_conn_t *c)
{
    size_t   have, used, size;
    ssize_t  n;

    while (c->state == MOCK_CONN_HEAD || c->state == MOCK_CONN_BODY
           || c->state == MOCK_CONN_LINGER)
    {
        have = c->in.len;
        size = MOCK_READ_SIZE;
        n = 0;

        if (c->state == MOCK_CONN_BODY && c->req.ctl.read_rate > 0) {
            if (c->timer >= 0) {
                return;
            }

            size = (size_t) c->req.ctl.read_rate / 100 + 1;
            mock_timer_set(c, mock.now + 10000);
        }

        if (have) {
            memcpy(mock_rbuf, c->in.data, have);
            mock_buf_free(&c->in);
        }

        if (size > sizeof(mock_rbuf) - have) {
            size = sizeof(mock_rbuf) - have;
        }

        if (c->readable && size) {
            n = mock_conn_recv(c, mock_rbuf + have, size);

            if (n == MOCK_ERROR) {
                mock_conn_gone(c);
                return;
            }
        }

        have += n > 0 ? (size_t) n : 0;
        used = mock_conn_process(c, mock_rbuf, have);

        if (c->state == MOCK_CONN_DEAD) {
            return;
        }

        if (used < have) {
            mock_buf_add(&c->in, mock_rbuf + used, have - used);
        }

        if (!c->readable || (n <= 0 && used == 0)) {
            break;
        }
    }

    if (c->gone && c->state == MOCK_CONN_ANSWER) {
        mock_conn_gone(c);
    }
}


void
mock_conn_event(mock_conn_t *c, uint32_t events)
{
    int  rc;

    if (c->state == MOCK_CONN_DEAD) {
        return;
    }

    if (events & (EPOLLRDHUP|EPOLLHUP|EPOLLERR)) {
        c->gone = 1;
        c->readable = 1;
    }

    if (events & EPOLLIN) {
        c->readable = 1;
    }

    if (c->state == MOCK_CONN_TLS) {
        rc = mock_tls_handshake(c);

        if (rc == MOCK_AGAIN && !c->gone) {
            return;
        }

        if (rc != MOCK_OK) {
            mock_conn_close(c, 0);
            return;
        }

        c->state = MOCK_CONN_HEAD;
        c->readable = 1;
    }

    if (c->gone && c->state == MOCK_CONN_ANSWER) {
        mock_conn_gone(c);
        return;
    }

    if ((events & EPOLLOUT) && c->state == MOCK_CONN_ANSWER && c->pend.len) {
        mock_pump(c);
    }

    if (c->readable) {
        mock_conn_read(c);
    }
}


void
mock_conn_timer(mock_conn_t *c)
{
    switch (c->state) {

    case MOCK_CONN_ANSWER:
        mock_pump(c);
        mock_conn_read(c);
        break;

    case MOCK_CONN_BODY:
        mock_conn_read(c);
        break;

    default:    /* lingering, or half_close_idle */
        mock_conn_close(c, 0);
    }
}


/*
 * Ends the request: by the client's leaving, or as r->end says.  Never reads
 * on, since it is called from below mock_conn_process().
 */

void
mock_finish(mock_conn_t *c, int aborted)
{
    mock_req_t     *r;
    mock_record_t  *rec;

    r = &c->req;

    mock_timer_del(c);

    if (!r->control) {
        rec = mock_record(r);

        if (rec->seq == r->seq) {
            rec->status = r->status;
            rec->stream = r->streaming;
            rec->aborted = (u_char) aborted;
            rec->done = 1;
        }

        if (aborted) {
            mock.stats.aborted++;
            mock.stats.last_abort_ms = mock_epoch_ms();
            mock.stats.last_abort_mono_us = (uint64_t) mock_monotonic_us();
            c->listen->aborted++;
        }

        if (r->counted) {
            r->counted = 0;
            mock.stats.open_streams--;
        }
    }

    mock_conn_free_req(r);

    if (aborted) {
        mock_conn_close(c, 0);
        return;
    }

    switch (r->end) {

    case MOCK_END_KEEP:
        c->state = MOCK_CONN_HEAD;

        if (r->ctl.fault == MOCK_FAULT_HALF_CLOSE_IDLE) {
            mock_timer_set(c, mock.now + MOCK_HALF_IDLE_US);
        }

        break;

    case MOCK_END_LINGER:
        c->state = MOCK_CONN_LINGER;
        shutdown(c->fd, SHUT_WR);
        mock_timer_set(c, mock.now + MOCK_LINGER_US);
        break;

    default:
        mock_conn_close(c, r->end == MOCK_END_RST);
    }
}
