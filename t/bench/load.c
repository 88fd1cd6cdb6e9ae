
/*
 * llm_load: options, the loop, and when a connection begins its next request.
 *
 *   llm_load -u URL [-m closed|stream|abort] ...
 *
 * Everything the servers must agree on (body, headers) is one buffer that all
 * connections write; what is measured is kept in load_t and printed once.
 */


#include "load.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/resource.h>


#define LOAD_EVENTS      512
#define LOAD_MAX_ERRORS  1000
#define LOAD_GRACE       (10 * LOAD_SEC)


static int load_options(load_t *l, int argc, char **argv);
static int load_option(load_t *l, int opt, char *value);
static int load_mode(load_t *l, const char *value);
static int load_url(char *url, struct sockaddr_in *addr, const char **host,
    const char **uri);
static int load_header(load_t *l, const char *value);
static int load_init(load_t *l);
static int load_request(load_t *l);
static void load_places(load_t *l);
static void load_loop(load_t *l);
static int load_over(load_t *l);
static int load_open(load_t *l);
static void load_reopen(load_t *l);
static int load_due(load_t *l);
static void load_wake(load_t *l);
static int load_last(load_t *l);
static void load_end(load_t *l);
static void load_signal(int signo);
static void load_usage(void);


static load_t                 load;
static volatile sig_atomic_t  load_signalled;


int
main(int argc, char **argv)
{
    if (load_options(&load, argc, argv) != LOAD_OK) {
        load_usage();
        return 2;
    }

    if (load_init(&load) != LOAD_OK) {
        fprintf(stderr, "llm_load: %s\n", strerror(errno));
        return 2;
    }

    load.started = load_time();
    load.cpu_started = load_cpu(load.pid);

    load_loop(&load);

    load.ended = load_time();
    load.cpu_ended = load_cpu(load.pid);

    load_end(&load);
    load_report(&load);

    return load.nerrors ? 1 : 0;
}


static int
load_options(load_t *l, int argc, char **argv)
{
    int  opt;

    l->nconns = 32;
    l->body_size = 2048;
    l->status = 200;
    l->ramp = 1000;
    l->limit = 120 * LOAD_SEC;
    l->marker = "\"content\":\"";
    l->uri = "/";

    while ((opt = getopt(argc, argv,
                         "u:m:c:t:n:b:v:V:q:r:H:e:g:k:M:P:T:x:s:R"))
           != -1)
    {
        if (load_option(l, opt, optarg) != LOAD_OK) {
            return LOAD_ERROR;
        }
    }

    if (optind != argc || l->addr.sin_port == 0 || l->nconns == 0
        || l->body_size < 256 || l->ramp == 0)
    {
        return LOAD_ERROR;
    }

    if (l->mode == LOAD_CLOSED_LOOP && !l->duration && !l->max_requests) {
        return LOAD_ERROR;
    }

    if (l->mode == LOAD_ABORT && l->abort_after == 0) {
        l->abort_after = 1;
    }

    if (l->max_requests && l->nconns > l->max_requests) {
        l->nconns = (uint32_t) l->max_requests;
    }

    return LOAD_OK;
}


static int
load_option(load_t *l, int opt, char *value)
{
    const char  *host, *uri;

    switch (opt) {

    case 'u':
        return load_url(value, &l->addr, &l->host, &l->uri);

    case 'M':
        return load_url(value, &l->mock, &host, &uri);

    case 'm':
        return load_mode(l, value);

    case 'H':
        return load_header(l, value);

    case 'c':
        l->nconns = (uint32_t) strtoul(value, NULL, 10);
        return LOAD_OK;

    case 't':
        l->duration = (uint64_t) (strtod(value, NULL) * LOAD_SEC);
        return LOAD_OK;

    case 'T':
        l->limit = (uint64_t) (strtod(value, NULL) * LOAD_SEC);
        return LOAD_OK;

    case 'n':
        l->max_requests = strtoull(value, NULL, 10);
        return LOAD_OK;

    case 'b':
        l->body_size = strtoul(value, NULL, 10);
        return LOAD_OK;

    case 'v':
        l->bodies = strtoull(value, NULL, 10);
        return LOAD_OK;

    case 'V':
        l->first = strtoull(value, NULL, 10);
        return LOAD_OK;

    case 'q':
        l->rate = strtoull(value, NULL, 10);
        return LOAD_OK;

    case 'r':
        l->ramp = (uint32_t) strtoul(value, NULL, 10);
        return LOAD_OK;

    case 'e':
        l->expect = (uint32_t) strtoul(value, NULL, 10);
        return LOAD_OK;

    case 'g':
        l->gap = (uint64_t) (strtod(value, NULL) * LOAD_MS);
        return LOAD_OK;

    case 'k':
        l->abort_after = (uint32_t) strtoul(value, NULL, 10);
        return LOAD_OK;

    case 'P':
        l->pid = (pid_t) strtol(value, NULL, 10);
        return LOAD_OK;

    case 'x':
        l->marker = value;
        return LOAD_OK;

    case 's':
        l->status = (unsigned) strtoul(value, NULL, 10);
        return LOAD_OK;

    case 'R':
        l->rst = 1;
        return LOAD_OK;
    }

    return LOAD_ERROR;
}


static int
load_mode(load_t *l, const char *value)
{
    if (strcmp(value, "closed") == 0) {
        l->mode = LOAD_CLOSED_LOOP;

    } else if (strcmp(value, "stream") == 0) {
        l->mode = LOAD_STREAM;

    } else if (strcmp(value, "abort") == 0) {
        l->mode = LOAD_ABORT;

    } else {
        return LOAD_ERROR;
    }

    return LOAD_OK;
}


/* http://ADDRESS:PORT[/uri], cut in place */

static int
load_url(char *url, struct sockaddr_in *addr, const char **host,
    const char **uri)
{
    char  *p, *colon;

    if (strncmp(url, "http://", 7) != 0) {
        return LOAD_ERROR;
    }

    *host = strdup(url + 7);
    if (*host == NULL) {
        return LOAD_ERROR;
    }

    p = strchr(*host, '/');
    *uri = "/";

    if (p) {
        *uri = strdup(p);
        if (*uri == NULL) {
            return LOAD_ERROR;
        }

        *p = '\0';
    }

    colon = strchr(url + 7, ':');
    if (colon == NULL) {
        return LOAD_ERROR;
    }

    *colon = '\0';

    addr->sin_family = AF_INET;
    addr->sin_port = htons((uint16_t) atoi(colon + 1));

    return inet_pton(AF_INET, url + 7, &addr->sin_addr) == 1
           ? LOAD_OK : LOAD_ERROR;
}


static int
load_header(load_t *l, const char *value)
{
    char    *p;
    size_t   len;

    len = strlen(value);

    p = realloc(l->headers, l->headers_len + len + 3);
    if (p == NULL) {
        return LOAD_ERROR;
    }

    l->headers = p;
    memcpy(p + l->headers_len, value, len);
    memcpy(p + l->headers_len + len, "\r\n", 3);
    l->headers_len += len + 2;

    return LOAD_OK;
}


static int
load_init(load_t *l)
{
    uint32_t          i;
    struct rlimit     rl;
    struct sigaction  sa;

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = load_signal;
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &rl);
    }

    l->conns = calloc(l->nconns, sizeof(load_conn_t));
    l->buffer = malloc(LOAD_READ);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);

    if (l->conns == NULL || l->buffer == NULL || l->epoll == -1) {
        return LOAD_ERROR;
    }

    for (i = 0; i < l->nconns; i++) {
        l->conns[i].fd = -1;
    }

    return load_request(l);
}


static int
load_request(load_t *l)
{
    int      n;
    char     head[512];
    u_char  *body;
    size_t   len;

    body = load_body(l->body_size, l->mode != LOAD_CLOSED_LOOP);
    if (body == NULL) {
        return LOAD_ERROR;
    }

    n = snprintf(head, sizeof(head),
                 "POST %s HTTP/1.1\r\n"
                 "Host: %s\r\n"
                 "Accept: %s\r\n"
                 "User-Agent: llm_load\r\n"
                 "Content-Type: application/json\r\n"
                 "Authorization: Bearer sk-bench\r\n"
                 "Content-Length: %zu\r\n",
                 l->uri, l->host,
                 l->mode == LOAD_CLOSED_LOOP ? "*/*" : "text/event-stream",
                 l->body_size);

    if (n < 0 || (size_t) n >= sizeof(head)) {
        errno = ENAMETOOLONG;
        return LOAD_ERROR;
    }

    len = (size_t) n;
    l->request_len = len + l->headers_len + 2 + l->body_size;

    l->request = malloc(l->request_len);
    if (l->request == NULL) {
        return LOAD_ERROR;
    }

    memcpy(l->request, head, len);

    if (l->headers_len) {
        memcpy(l->request + len, l->headers, l->headers_len);
    }

    len += l->headers_len;
    memcpy(l->request + len, "\r\n", 2);
    memcpy(l->request + len + 2, body, l->body_size);

    free(body);

    if (l->bodies) {
        load_places(l);
    }

    return LOAD_OK;
}


/* where the number goes: in headers as told, in the body over its system
 * message, which leaves the size as it is */

static void
load_places(load_t *l)
{
    u_char  *p, *end;

    end = l->request + l->request_len;

    p = memmem(l->request, l->request_len, "Answer brief", LOAD_NUMBER);
    memset(p, '#', LOAD_NUMBER);

    for (p = l->request; l->nplaces < LOAD_PLACES; p += LOAD_NUMBER) {
        p = memmem(p, (size_t) (end - p), "############", LOAD_NUMBER);

        if (p == NULL) {
            break;
        }

        l->places[l->nplaces++] = (size_t) (p - l->request);
    }
}


static void
load_loop(load_t *l)
{
    int                 i, n, wait;
    struct epoll_event  list[LOAD_EVENTS];

    for ( ;; ) {
        l->now = load_time();

        if (load_over(l)) {
            return;
        }

        if (l->reopen) {
            load_reopen(l);
        }

        wait = load_open(l);

        if (l->idle) {
            load_wake(l);
            wait = 1;
        }

        n = epoll_wait(l->epoll, list, LOAD_EVENTS, wait);

        for (i = 0; i < n; i++) {
            load_conn_event(l, list[i].data.ptr, list[i].events);
        }
    }
}


static int
load_over(load_t *l)
{
    if (load_signalled) {
        l->interrupted = 1;
        return 1;
    }

    if (l->now - l->started > l->limit || l->nerrors > LOAD_MAX_ERRORS) {
        return 1;
    }

    if (l->opened < l->nconns) {
        return 0;
    }

    if (l->active == 0) {
        return 1;
    }

    if (l->mode == LOAD_ABORT && l->readies >= l->active) {
        load_abort(l);
        return 1;
    }

    return l->mode == LOAD_CLOSED_LOOP && l->duration
           && l->now - l->started > l->duration + LOAD_GRACE;
}


/* opens what is due by the ramp, returns how long epoll may wait */

static int
load_open(load_t *l)
{
    uint64_t  due;

    due = l->nconns;

    if (l->mode != LOAD_CLOSED_LOOP) {
        due = (l->now - l->started) * l->ramp / LOAD_SEC + 1;

        if (due > l->nconns) {
            due = l->nconns;
        }
    }

    while (l->opened < due) {
        l->active++;
        (void) load_conn_open(l, &l->conns[l->opened++]);
    }

    return l->opened < l->nconns ? 1 : 100;
}


static void
load_reopen(load_t *l)
{
    uint32_t  i;

    l->reopen = 0;

    for (i = 0; i < l->opened; i++) {
        if (l->conns[i].state == LOAD_CONN_NONE) {
            (void) load_conn_open(l, &l->conns[i]);
        }
    }
}


static int
load_due(load_t *l)
{
    return l->rate == 0
           || l->begun < (l->now - l->started) * l->rate / LOAD_SEC;
}


/* begins what is due on idle connections, or ends them */

static void
load_wake(load_t *l)
{
    uint32_t      i;
    load_conn_t  *c;

    l->idle = 0;

    for (i = 0; i < l->opened; i++) {
        c = &l->conns[i];

        if (c->state != LOAD_CONN_IDLE) {
            continue;
        }

        if (load_last(l)) {
            load_conn_close(l, c, 0);
            c->state = LOAD_CONN_END;
            l->active--;

        } else if (load_due(l)) {
            load_conn_begin(l, c);

        } else {
            l->idle = 1;
        }
    }
}


/* no more requests may begin */

static int
load_last(load_t *l)
{
    return l->mode != LOAD_CLOSED_LOOP
           || load_signalled
           || (l->max_requests && l->begun >= l->max_requests)
           || (l->duration && l->now - l->started >= l->duration);
}


/* after a good answer; left in LOAD_CONN_ACTIVE, it begins another request */

void
load_next(load_t *l, load_conn_t *c)
{
    if (c->ready) {
        c->ready = 0;
        l->readies--;
    }

    if (load_last(l)) {
        load_conn_close(l, c, 0);
        c->state = LOAD_CONN_END;
        l->active--;
        return;
    }

    if (c->close) {
        load_conn_close(l, c, 0);
        c->state = LOAD_CONN_NONE;
        l->reopen = 1;
        return;
    }

    if (!load_due(l)) {
        c->state = LOAD_CONN_IDLE;
        l->idle = 1;
    }
}


void
load_fail(load_t *l, load_conn_t *c, load_err_e class, const char *text)
{
    l->errors[class]++;

    if (l->nerrors++ == 0) {
        snprintf(l->first_error, sizeof(l->first_error), "%s", text);
    }

    if (c->ready) {
        c->ready = 0;
        l->readies--;
    }

    load_conn_close(l, c, 0);

    if (load_last(l)) {
        c->state = LOAD_CONN_END;
        l->active--;

    } else {
        c->state = LOAD_CONN_NONE;
        l->reopen = 1;
    }
}


static void
load_end(load_t *l)
{
    char      text[128];
    uint32_t  i;

    for (i = 0; i < l->nconns; i++) {
        load_conn_close(l, &l->conns[i], 0);
    }

    if (l->interrupted || (l->active == 0 && l->opened == l->nconns)) {
        return;
    }

    l->active += l->nconns - l->opened;
    l->errors[LOAD_ERR_TIMEOUT] += l->active;

    if (l->nerrors == 0) {
        snprintf(text, sizeof(text), "%u of %u not ended after %.1f s",
                 l->active, l->nconns,
                 (double) (l->ended - l->started) / LOAD_SEC);
        snprintf(l->first_error, sizeof(l->first_error), "%s", text);
    }

    l->nerrors += l->active;
}


static void
load_signal(int signo)
{
    (void) signo;

    load_signalled = 1;
}


static void
load_usage(void)
{
    fprintf(stderr,
        "usage: llm_load -u http://ADDRESS:PORT/uri [options]\n"
        "  -m MODE    closed (default), stream or abort\n"
        "  -c N       connections, or streams (32)\n"
        "  -t SEC     closed: how long        -n N  closed: how many\n"
        "  -b BYTES   size of the request body (2048)\n"
        "  -v N       N different bodies in rotation; the number is also put\n"
        "             where a header has ############\n"
        "  -V N       the number of the first (0)\n"
        "  -q N       closed: N requests begin in a second, not more\n"
        "  -H HEADER  more request headers, repeatable\n"
        "  -s CODE    expected status (200)\n"
        "  -r N       streams opened per second (1000)\n"
        "  -e N       data events of a whole stream, [DONE] not counted\n"
        "  -g MS      nominal time between events\n"
        "  -x TEXT    what an event with content has ('\"content\":\"')\n"
        "  -k N       abort: events before it -R    abort: with RST\n"
        "  -M URL     the mock, to ask for /_mock/stats\n"
        "  -P PID     server process whose CPU is reported\n"
        "  -T SEC     no run lasts longer (120)\n");
}
