
/*
 * One connection of the load client: connect, write the request, and parse
 * the answer as it comes.  The parsers can stop after any byte.
 */


#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <netinet/tcp.h>


enum {
    sw_head = 0,
    sw_length,
    sw_to_eof,
    sw_chunk_size,
    sw_chunk_line,
    sw_chunk_data,
    sw_chunk_end,
    sw_trailer
};


static int load_conn_write(load_t *l, load_conn_t *c);
static int load_conn_iov(load_t *l, load_conn_t *c, struct iovec *iov);
static void load_conn_read(load_t *l, load_conn_t *c);
static void load_conn_finish(load_t *l, load_conn_t *c);
static int load_parse(load_t *l, load_conn_t *c, u_char *p, u_char *last,
    u_char **end);
static int load_parse_head(load_conn_t *c, u_char **pos, u_char *last);
static int load_parse_head_line(load_conn_t *c);
static int load_parse_chunk_size(load_conn_t *c, u_char ch);
static void load_data(load_t *l, load_conn_t *c, u_char *p, size_t size);
static void load_data_line(load_t *l, load_conn_t *c, u_char *p, size_t size);
static void load_data_first(load_t *l, load_conn_t *c);
static void load_data_content(load_t *l, load_conn_t *c);
static void load_mark(load_t *l, load_mark_t *mark);
static int load_line(load_conn_t *c, u_char **pos, u_char *last);


int
load_conn_open(load_t *l, load_conn_t *c)
{
    int                 one;
    struct epoll_event  ee;

    memset(c, 0, offsetof(load_conn_t, line));

    c->fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (c->fd == -1) {
        load_fail(l, c, LOAD_ERR_CONNECT, strerror(errno));
        return LOAD_ERROR;
    }

    one = 1;
    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(int));

    c->state = LOAD_CONN_CONNECTING;
    l->connects++;

    ee.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
    ee.data.ptr = c;

    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ee) == -1) {
        load_fail(l, c, LOAD_ERR_CONNECT, strerror(errno));
        return LOAD_ERROR;
    }

    if (connect(c->fd, (struct sockaddr *) &l->addr, sizeof(l->addr)) == -1
        && errno != EINPROGRESS)
    {
        load_fail(l, c, LOAD_ERR_CONNECT, strerror(errno));
        return LOAD_ERROR;
    }

    return LOAD_OK;
}


void
load_conn_close(load_t *l, load_conn_t *c, int rst)
{
    struct linger  lg;

    (void) l;

    if (c->fd == -1) {
        return;
    }

    if (rst) {
        lg.l_onoff = 1;
        lg.l_linger = 0;
        (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
    }

    close(c->fd);
    c->fd = -1;
}


void
load_conn_event(load_t *l, load_conn_t *c, uint32_t events)
{
    int        err;
    socklen_t  len;

    if (c->fd == -1) {
        return;
    }

    if (c->state == LOAD_CONN_CONNECTING) {
        err = 0;
        len = sizeof(int);

        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1 || err) {
            load_fail(l, c, LOAD_ERR_CONNECT, strerror(err ? err : errno));
            return;
        }

        if (!(events & EPOLLOUT)) {
            return;
        }

        load_conn_begin(l, c);
        return;
    }

    if (c->sent < l->request_len && (events & EPOLLOUT)) {
        if (load_conn_write(l, c) == LOAD_ERROR) {
            return;
        }
    }

    if (events & (EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR)) {
        load_conn_read(l, c);
    }
}


/* when it is due, which load_next() knows for all but a new connection */

void
load_conn_begin(load_t *l, load_conn_t *c)
{
    c->state = LOAD_CONN_ACTIVE;
    c->parse = sw_head;
    c->status = 0;
    c->sent = 0;
    c->body = 0;
    c->events = 0;
    c->contents = 0;
    c->line_len = 0;
    c->length = 0;
    c->chunked = 0;
    c->close = 0;
    c->sse = 0;
    c->first = 0;
    c->done = 0;

    if (l->nplaces) {
        snprintf(c->number, sizeof(c->number), "%0*llu", LOAD_NUMBER,
                 (unsigned long long) (l->first + l->begun % l->bodies));
    }

    c->begun = load_time();
    l->begun++;

    (void) load_conn_write(l, c);
}


static int
load_conn_write(load_t *l, load_conn_t *c)
{
    ssize_t        n;
    struct iovec   iov[2 * LOAD_PLACES + 1];
    struct msghdr  msg;

    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = iov;

    while (c->sent < l->request_len) {
        msg.msg_iovlen = (size_t) load_conn_iov(l, c, iov);

        n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);

        if (n == -1) {
            if (errno == EAGAIN || errno == EINTR) {
                return LOAD_AGAIN;
            }

            /* an early error answer may be waiting: its status says more */

            load_conn_read(l, c);

            if (c->fd != -1) {
                load_fail(l, c, LOAD_ERR_WRITE, strerror(EPIPE));
            }

            return LOAD_ERROR;
        }

        c->sent += (size_t) n;
    }

    c->written = load_time();

    return LOAD_OK;
}


/* what is left of the request, with the number of this one in its places */

static int
load_conn_iov(load_t *l, load_conn_t *c, struct iovec *iov)
{
    int       n;
    size_t    pos;
    uint32_t  i;

    n = 0;
    pos = c->sent;

    for (i = 0; i < l->nplaces; i++) {

        if (pos < l->places[i]) {
            iov[n].iov_base = l->request + pos;
            iov[n++].iov_len = l->places[i] - pos;
            pos = l->places[i];
        }

        if (pos < l->places[i] + LOAD_NUMBER) {
            iov[n].iov_base = c->number + (pos - l->places[i]);
            iov[n++].iov_len = LOAD_NUMBER - (pos - l->places[i]);
            pos = l->places[i] + LOAD_NUMBER;
        }
    }

    if (pos < l->request_len) {
        iov[n].iov_base = l->request + pos;
        iov[n++].iov_len = l->request_len - pos;
    }

    return n;
}


static void
load_conn_read(load_t *l, load_conn_t *c)
{
    int      rc;
    u_char  *end;
    ssize_t  n;

    for ( ;; ) {
        n = recv(c->fd, l->buffer, LOAD_READ, 0);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            if (errno != EAGAIN) {
                load_fail(l, c, LOAD_ERR_READ, strerror(errno));
            }

            return;
        }

        l->now = load_time();

        if (n == 0) {
            if (c->parse == sw_to_eof) {
                load_conn_finish(l, c);

            } else {
                load_fail(l, c, LOAD_ERR_EOF, "closed before its end");
            }

            return;
        }

        l->bytes += (uint64_t) n;

        rc = load_parse(l, c, l->buffer, l->buffer + n, &end);

        if (rc == LOAD_ERROR) {
            load_fail(l, c, LOAD_ERR_FRAMING, "bad framing");
            return;
        }

        if (rc == LOAD_OK) {
            if (end != l->buffer + n) {
                load_fail(l, c, LOAD_ERR_FRAMING, "bytes after the end");
                return;
            }

            load_conn_finish(l, c);
            return;
        }
    }
}


static void
load_conn_finish(load_t *l, load_conn_t *c)
{
    char  text[200];

    if (c->status != l->status) {
        snprintf(text, sizeof(text), "status %u: %.*s", c->status,
                 (int) (c->line_len < 160 ? c->line_len : 160), c->line);
        load_fail(l, c, LOAD_ERR_STATUS, text);
        return;
    }

    if (l->mode != LOAD_CLOSED_LOOP
        && (!c->sse || !c->done || c->parse == sw_to_eof || c->line_len
            || (l->expect && c->events != l->expect)))
    {
        snprintf(text, sizeof(text), "not whole: sse:%d done:%d events:%u "
                 "of %u to_eof:%d rest:%u", c->sse, c->done, c->events,
                 l->expect, c->parse == sw_to_eof, c->line_len);
        load_fail(l, c, LOAD_ERR_BROKEN, text);
        return;
    }

    if (c->sent < l->request_len) {
        load_fail(l, c, LOAD_ERR_FRAMING, "answered before it was sent");
        return;
    }

    l->requests++;
    c->served++;

    load_hist_add(&l->latency, l->now - c->begun);

    if (c->body < l->body_min || l->requests == 1) {
        l->body_min = c->body;
    }

    if (c->body > l->body_max) {
        l->body_max = c->body;
    }

    if (c->events < l->events_min || l->requests == 1) {
        l->events_min = c->events;
    }

    if (c->events > l->events_max) {
        l->events_max = c->events;
    }

    load_next(l, c);

    if (c->state == LOAD_CONN_ACTIVE && c->fd != -1) {
        load_conn_begin(l, c);
    }
}


/* LOAD_OK: the answer is complete, *end is behind its last byte */

static int
load_parse(load_t *l, load_conn_t *c, u_char *p, u_char *last, u_char **end)
{
    int     rc;
    size_t  n;

    while (p < last) {

        switch (c->parse) {

        case sw_head:
            rc = load_parse_head(c, &p, last);

            if (rc == LOAD_ERROR) {
                return LOAD_ERROR;
            }

            if (rc == LOAD_OK && c->parse == sw_length && c->rest == 0) {
                goto done;
            }

            break;

        case sw_length:
        case sw_chunk_data:
            n = (size_t) (last - p);
            n = (n < c->rest) ? n : (size_t) c->rest;

            load_data(l, c, p, n);

            p += n;
            c->rest -= n;

            if (c->rest) {
                break;
            }

            if (c->parse == sw_length) {
                goto done;
            }

            c->parse = sw_chunk_end;
            break;

        case sw_to_eof:
            load_data(l, c, p, (size_t) (last - p));
            p = last;
            break;

        case sw_chunk_end:
            if (*p == '\n') {
                c->parse = sw_chunk_size;
                c->length = 0;

            } else if (*p != '\r') {
                return LOAD_ERROR;
            }

            p++;
            break;

        case sw_chunk_size:
        case sw_chunk_line:
            if (load_parse_chunk_size(c, *p) == LOAD_ERROR) {
                return LOAD_ERROR;
            }

            p++;
            break;

        case sw_trailer:
            /* the last bytes are an empty line; trailers are not looked at */

            if (*p == '\n') {
                if (!c->length) {
                    p++;
                    goto done;
                }

                c->length = 0;

            } else if (*p != '\r') {
                c->length = 1;
            }

            p++;
            break;
        }
    }

    return LOAD_AGAIN;

done:

    *end = p;

    return LOAD_OK;
}


/* the lines of the head; c->rest and c->parse are set at its end */

static int
load_parse_head(load_conn_t *c, u_char **pos, u_char *last)
{
    for ( ;; ) {
        if (load_line(c, pos, last) == LOAD_AGAIN) {
            return LOAD_AGAIN;
        }

        if (c->line_len == 0) {
            break;
        }

        if (load_parse_head_line(c) == LOAD_ERROR) {
            return LOAD_ERROR;
        }

        c->line_len = 0;
    }

    if (c->status == 0) {
        return LOAD_ERROR;
    }

    if (c->status == 100) {
        c->status = 0;
        return LOAD_AGAIN;
    }

    if (c->chunked) {
        c->length = 0;
        c->rest = 0;
        c->parse = sw_chunk_size;

    } else if (c->length) {
        c->parse = sw_length;

    } else {
        c->parse = sw_to_eof;
    }

    return LOAD_OK;
}


static int
load_parse_head_line(load_conn_t *c)
{
    char  *line;

    line = (char *) c->line;
    line[c->line_len < LOAD_LINE ? c->line_len : LOAD_LINE - 1] = '\0';

    if (c->status == 0) {
        if (strncmp(line, "HTTP/1.", 7) != 0) {
            return LOAD_ERROR;
        }

        c->status = (unsigned) atoi(line + 9);
        return LOAD_OK;
    }

    if (strncasecmp(line, "Content-Length:", 15) == 0) {
        c->rest = strtoull(line + 15, NULL, 10);
        c->length = 1;

    } else if (strncasecmp(line, "Transfer-Encoding:", 18) == 0) {
        c->chunked = (strcasestr(line + 18, "chunked") != NULL);

    } else if (strncasecmp(line, "Connection:", 11) == 0) {
        c->close = (strcasestr(line + 11, "close") != NULL);

    } else if (strncasecmp(line, "Content-Type:", 13) == 0) {
        c->sse = (strcasestr(line + 13, "text/event-stream") != NULL);
    }

    return LOAD_OK;
}


/* c->length: there was a digit */

static int
load_parse_chunk_size(load_conn_t *c, u_char ch)
{
    u_char  lower;

    if (c->parse == sw_chunk_size) {
        lower = ch | 0x20;

        if (ch >= '0' && ch <= '9') {
            c->rest = c->rest * 16 + (uint64_t) (ch - '0');
            c->length = 1;
            return LOAD_OK;
        }

        if (lower >= 'a' && lower <= 'f') {
            c->rest = c->rest * 16 + (uint64_t) (lower - 'a' + 10);
            c->length = 1;
            return LOAD_OK;
        }

        if (!c->length) {
            return LOAD_ERROR;
        }

        c->parse = sw_chunk_line;
    }

    if (ch == '\n') {
        c->parse = c->rest ? sw_chunk_data : sw_trailer;
        c->length = 0;
    }

    return LOAD_OK;
}


static void
load_data(load_t *l, load_conn_t *c, u_char *p, size_t size)
{
    size_t   n;
    u_char  *nl, *last;

    c->body += size;

    if (!c->sse) {
        /* kept for the message if this is an error */

        if (c->status != l->status && c->line_len < 160) {
            n = 160 - c->line_len;
            n = (size < n) ? size : n;
            memcpy(c->line + c->line_len, p, n);
            c->line_len += (uint32_t) n;
        }

        return;
    }

    last = p + size;

    while (p < last) {

        if (c->line_len == 0) {
            nl = memchr(p, '\n', (size_t) (last - p));

            if (nl) {
                load_data_line(l, c, p, (size_t) (nl - p));
                p = nl + 1;
                continue;
            }
        }

        if (load_line(c, &p, last) == LOAD_OK) {
            n = (c->line_len < LOAD_LINE) ? c->line_len : LOAD_LINE;
            load_data_line(l, c, c->line, n);
            c->line_len = 0;
        }
    }

    if (!c->first && c->line_len >= 5 && memcmp(c->line, "data:", 5) == 0) {
        load_data_first(l, c);
    }
}


/* a line of the stream without its end */

static void
load_data_line(load_t *l, load_conn_t *c, u_char *p, size_t size)
{
    u_char  *m;
    size_t   len;

    if (size && p[size - 1] == '\r') {
        size--;
    }

    if (size < 5 || memcmp(p, "data:", 5) != 0) {
        return;
    }

    if (!c->first) {
        load_data_first(l, c);
    }

    if (size >= 11 && size <= 12 && memcmp(p + size - 6, "[DONE]", 6) == 0) {
        c->done = 1;

        if (l->steady_begin.time && l->steady_end.time == 0) {
            load_mark(l, &l->steady_end);
        }

        return;
    }

    c->done = 0;
    c->events++;
    l->events++;

    len = strlen(l->marker);
    m = memmem(p, size, l->marker, len);

    if (m && m + len < p + size && m[len] != '"') {
        load_data_content(l, c);
    }
}


static void
load_data_first(load_t *l, load_conn_t *c)
{
    c->first = 1;
    load_hist_add(&l->ttft, l->now - c->written);

    if (++l->firsts == l->nconns && l->mode == LOAD_STREAM) {
        load_mark(l, &l->steady_begin);
    }
}


static void
load_mark(load_t *l, load_mark_t *mark)
{
    mark->cpu = load_cpu(l->pid);
    mark->time = l->now;
    mark->events = l->events;
}


static void
load_data_content(load_t *l, load_conn_t *c)
{
    uint64_t  gap;

    if (c->contents++) {
        gap = l->now - c->last_event;
        load_hist_add(&l->gaps, gap);

        if (l->gap) {
            load_hist_add(&l->jitter,
                          gap > l->gap ? gap - l->gap : l->gap - gap);
        }

    } else {
        load_hist_add(&l->token, l->now - c->written);
    }

    c->last_event = l->now;
    l->contents++;

    if (!c->ready && l->abort_after && c->contents >= l->abort_after) {
        c->ready = 1;
        l->readies++;
    }
}


/* gathers a line over reads; what does not fit is cut, but counted */

static int
load_line(load_conn_t *c, u_char **pos, u_char *last)
{
    size_t   n, room;
    u_char  *p, *nl;

    p = *pos;
    nl = memchr(p, '\n', (size_t) (last - p));
    n = (size_t) ((nl ? nl : last) - p);

    if (c->line_len < LOAD_LINE) {
        room = LOAD_LINE - c->line_len;
        memcpy(c->line + c->line_len, p, n < room ? n : room);
    }

    c->line_len += (uint32_t) n;

    if (nl == NULL) {
        *pos = last;
        return LOAD_AGAIN;
    }

    *pos = nl + 1;

    if (c->line_len && c->line_len <= LOAD_LINE
        && c->line[c->line_len - 1] == '\r')
    {
        c->line_len--;
    }

    return LOAD_OK;
}
