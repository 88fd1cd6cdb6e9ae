
/*
 * The abort run: every stream is closed at once, then the mock is asked how
 * many of its streams were cut and when the last one was.  Blocking sockets:
 * nothing else is left to do by then.
 */


#include "load.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/time.h>


#define LOAD_ABORT_WAIT  (2 * LOAD_SEC)


static int load_stats(load_t *l, int64_t *aborted, int64_t *last_ms,
    int64_t *last_us);
static int64_t load_stats_number(const char *text, const char *name);


void
load_abort(load_t *l)
{
    int64_t   base, aborted, last_ms, last_us;
    uint32_t  i;
    uint64_t  begin;

    if (load_stats(l, &base, &last_ms, &last_us) != LOAD_OK) {
        base = 0;
    }

    l->abort_done = 1;
    l->abort_wall = load_wall_ms();
    begin = load_time();

    for (i = 0; i < l->nconns; i++) {
        load_conn_close(l, &l->conns[i], l->rst);
        l->conns[i].state = LOAD_CONN_END;
    }

    l->abort_closing = load_time() - begin;
    l->active = 0;

    if (l->mock.sin_port == 0) {
        return;
    }

    for ( ;; ) {
        if (load_stats(l, &aborted, &last_ms, &last_us) == LOAD_OK) {
            l->abort_reached = aborted - base;

            /* the same clock as load_time() on the same machine */

            l->abort_delay = (last_us != -1)
                             ? last_us - (int64_t) (begin / 1000)
                             : (last_ms - (int64_t) l->abort_wall) * 1000;

            if (l->abort_reached >= (int64_t) l->readies) {
                return;
            }
        }

        if (load_time() - begin > LOAD_ABORT_WAIT) {
            return;
        }

        usleep(1000);
    }
}


static int
load_stats(load_t *l, int64_t *aborted, int64_t *last_ms, int64_t *last_us)
{
    int             fd;
    char            buf[8192];
    size_t          len;
    ssize_t         n;
    struct timeval  tv;

    static const char  request[] =
        "GET /_mock/stats HTTP/1.1\r\nHost: mock\r\n"
        "Connection: close\r\n\r\n";

    if (l->mock.sin_port == 0) {
        return LOAD_ERROR;
    }

    fd = socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return LOAD_ERROR;
    }

    tv.tv_sec = 1;
    tv.tv_usec = 0;
    (void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));

    len = 0;

    if (connect(fd, (struct sockaddr *) &l->mock, sizeof(l->mock)) == 0
        && send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) > 0)
    {
        while (len < sizeof(buf) - 1) {
            n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0);

            if (n <= 0) {
                break;
            }

            len += (size_t) n;
        }
    }

    close(fd);
    buf[len] = '\0';

    *aborted = load_stats_number(buf, "\"aborted\"");
    *last_ms = load_stats_number(buf, "\"last_abort_ms\"");
    *last_us = load_stats_number(buf, "\"last_abort_mono_us\"");

    return *aborted == -1 ? LOAD_ERROR : LOAD_OK;
}


static int64_t
load_stats_number(const char *text, const char *name)
{
    const char  *p;

    p = strstr(text, name);
    if (p == NULL) {
        return -1;
    }

    p += strlen(name);
    p += strspn(p, " :\t");

    return strtoll(p, NULL, 10);
}
