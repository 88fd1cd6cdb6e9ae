
/* Arguments, listening sockets, signals, the loop. */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "mock.h"


#define MOCK_EVENTS  512


mock_t  mock;

static volatile sig_atomic_t  mock_quit;


static const char  mock_usage[] =
    "usage: llm_mock [-p PORT[,PORT...]] [-a ADDR] [-s TLSPORT -c CERT -k KEY]"
    "\n                [-P PIDFILE] [-d GAP_MS] [-n EVENTS] [-b BYTES]\n"
    "Controls and the /_mock/ interface: t/mock/README.md\n";


static void
mock_signal(int signo)
{
    (void) signo;

    mock_quit = 1;
}


static void
mock_die(const char *what)
{
    fprintf(stderr, "llm_mock: %s: %s\n", what, strerror(errno));
    exit(1);
}


static void
mock_listen_open(const char *addr, int port, int tls)
{
    int                  one;
    socklen_t            len;
    mock_listen_t       *ls;
    struct sockaddr_in   sin;
    struct epoll_event   ee;

    if (mock.nlistens == sizeof(mock.listens) / sizeof(mock.listens[0])) {
        errno = EMFILE;
        mock_die("too many ports");
    }

    ls = &mock.listens[mock.nlistens++];
    ls->tls = (u_char) tls;
    mock_ctl_init(&ls->ctl);

    memset(&sin, 0, sizeof(sin));
    sin.sin_family = AF_INET;
    sin.sin_port = htons((uint16_t) port);

    if (inet_pton(AF_INET, addr, &sin.sin_addr) != 1) {
        errno = EINVAL;
        mock_die(addr);
    }

    one = 1;
    len = sizeof(sin);
    ls->fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);

    if (ls->fd == -1
        || setsockopt(ls->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))
        || bind(ls->fd, (struct sockaddr *) &sin, len) == -1
        || listen(ls->fd, 65535) == -1
        || getsockname(ls->fd, (struct sockaddr *) &sin, &len) == -1)
    {
        mock_die("listen");
    }

    ls->port = ntohs(sin.sin_port);

    ee.events = EPOLLIN;
    ee.data.ptr = ls;

    if (epoll_ctl(mock.epoll, EPOLL_CTL_ADD, ls->fd, &ee) == -1) {
        mock_die("epoll_ctl");
    }

    printf("%s %d\n", tls ? "listening-tls" : "listening", ls->port);
    fflush(stdout);
}


static void
mock_open_ports(const char *addr, const char *ports, int tls)
{
    long   port;
    char  *end;

    for ( ;; ) {
        port = strtol(ports, &end, 10);

        if (end == ports || port < 0 || port > 65535) {
            errno = EINVAL;
            mock_die(ports);
        }

        mock_listen_open(addr, (int) port, tls);

        if (*end != ',') {
            return;
        }

        ports = end + 1;
    }
}


static int
mock_wait(struct epoll_event *events)
{
    int              n;
    int64_t          at, left;
    struct timespec  ts, *tp;

    static int  no_pwait2;

    at = mock_timer_next();
    tp = NULL;
    left = -1;

    if (at >= 0) {
        left = at - mock_monotonic_us();
        left = left > 0 ? left : 0;
        ts.tv_sec = left / 1000000;
        ts.tv_nsec = left % 1000000 * 1000;
        tp = &ts;
    }

    if (!no_pwait2) {
        n = epoll_pwait2(mock.epoll, events, MOCK_EVENTS, tp, NULL);

        if (n >= 0 || errno != ENOSYS) {
            return n;
        }

        no_pwait2 = 1;
    }

    return epoll_wait(mock.epoll, events, MOCK_EVENTS,
                      left < 0 ? -1 : (int) ((left + 999) / 1000));
}


static void
mock_loop(void)
{
    int                  i, n;
    void                *p;
    mock_conn_t         *c;
    struct epoll_event   events[MOCK_EVENTS];

    while (!mock_quit) {

        n = mock_wait(events);
        mock.now = mock_monotonic_us();

        for (i = 0; i < n; i++) {
            p = events[i].data.ptr;

            if (p >= (void *) mock.listens
                && p < (void *) (mock.listens + mock.nlistens))
            {
                mock_conn_accept(p);

            } else {
                mock_conn_event(p, events[i].events);
            }
        }

        mock.now = mock_monotonic_us();

        for (i = 0; i < MOCK_EVENTS; i++) {
            c = mock_timer_expired(mock.now);

            if (c == NULL) {
                break;
            }

            mock_conn_timer(c);
        }

        mock_conn_reap();
    }
}


static void
mock_init(void)
{
    struct rlimit     rl;
    struct sigaction  sa;

    memset(&sa, 0, sizeof(sa));
    sa.sa_handler = mock_signal;
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGQUIT, &sa, NULL);
    sa.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &sa, NULL);

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &rl);
    }

    (void) prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);

    mock.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (mock.epoll == -1) {
        mock_die("epoll_create1");
    }

    mock.now = mock_monotonic_us();
    mock_pool_init();
}


static void
mock_pidfile(const char *path)
{
    FILE  *f;

    f = fopen(path, "w");
    if (f == NULL) {
        mock_die(path);
    }

    fprintf(f, "%d\n", (int) getpid());
    fclose(f);
}


int
main(int argc, char **argv)
{
    int          opt;
    const char  *addr, *ports, *tls, *cert, *key, *pidfile;

    addr = "127.0.0.1";
    ports = tls = cert = key = pidfile = NULL;
    mock.events = 16;
    mock.size = 16;

    while ((opt = getopt(argc, argv, "p:a:s:c:k:P:d:n:b:h")) != -1) {
        switch (opt) {
        case 'p':
            ports = optarg;
            break;

        case 'a':
            addr = optarg;
            break;

        case 's':
            tls = optarg;
            break;

        case 'c':
            cert = optarg;
            break;

        case 'k':
            key = optarg;
            break;

        case 'P':
            pidfile = optarg;
            break;

        case 'd':
            mock.gap = (int64_t) (strtod(optarg, NULL) * 1000);
            break;

        case 'n':
            mock.events = strtoll(optarg, NULL, 10);
            break;

        case 'b':
            mock.size = strtoll(optarg, NULL, 10);
            break;

        default:
            fputs(mock_usage, stderr);
            return opt == 'h' ? 0 : 2;
        }
    }

    if (tls && (cert == NULL || key == NULL)) {
        fputs(mock_usage, stderr);
        return 2;
    }

    mock_init();

    if (tls && mock_tls_init(cert, key) != MOCK_OK) {
        return 1;
    }

    if (ports || !tls) {
        mock_open_ports(addr, ports ? ports : "0", 0);
    }

    if (tls) {
        mock_open_ports(addr, tls, 1);
    }

    if (pidfile) {
        mock_pidfile(pidfile);
    }

    mock_loop();

    if (pidfile) {
        unlink(pidfile);
    }

    return 0;
}
