
/*
 * llm_turns.so: how long an nginx worker's turns of the event loop last.
 *
 * Put before nginx with LD_PRELOAD it stands between the worker and
 * epoll_wait(): a turn is the time from its return to the next call.  Seen
 * from outside, by requests that have to wait, a turn is mixed up with those
 * of the client and of the kernel's scheduler; here what the thread waited for
 * its core (run_delay of schedstat) is known and taken off.
 *
 * The results stand in the file LLM_TURNS names, which is mapped before the
 * worker is forked.  Only the worker calls epoll_wait(), from one thread; the
 * reader zeroes the file to begin anew.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/mman.h>


typedef int (*turns_wait_pt)(int, struct epoll_event *, int, int);

/* nanoseconds; lib/proc.py reads them in this order */

typedef struct {
    uint64_t               turns;
    uint64_t               total;
    uint64_t               longest;    /* less what it waited for its core */
    uint64_t               wall;       /* the longest, waiting included */
    uint64_t               cpu;        /* the most CPU time in one */
    uint64_t               over_1ms;   /* turns of that length */
    uint64_t               over_5ms;
} turns_t;

typedef struct {
    uint64_t               wall;
    uint64_t               cpu;
    uint64_t               waited;
} turns_now_t;


static turns_t        *turns;
static turns_now_t     turns_begun;
static turns_wait_pt   turns_wait;
static int             turns_stat = -1;


static uint64_t
turns_clock(clockid_t id)
{
    struct timespec  ts;

    clock_gettime(id, &ts);

    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}


static turns_now_t
turns_now(void)
{
    char         buf[128], *p;
    ssize_t      n;
    turns_now_t  now;

    now.wall = turns_clock(CLOCK_MONOTONIC);
    now.cpu = turns_clock(CLOCK_THREAD_CPUTIME_ID);
    now.waited = 0;

    n = pread(turns_stat, buf, sizeof(buf) - 1, 0);

    if (n > 0) {
        buf[n] = '\0';
        (void) strtoull(buf, &p, 10);
        now.waited = strtoull(p, NULL, 10);
    }

    return now;
}


static void
turns_max(uint64_t *max, uint64_t value)
{
    if (value > *max) {
        *max = value;
    }
}


static void
turns_end(void)
{
    uint64_t     wall, waited;
    turns_now_t  now;

    now = turns_now();
    wall = now.wall - turns_begun.wall;
    waited = now.waited - turns_begun.waited;
    waited = waited < wall ? waited : wall;

    turns->turns++;
    turns->total += wall;
    turns->over_1ms += (wall - waited > 1000000);
    turns->over_5ms += (wall - waited > 5000000);
    turns_max(&turns->wall, wall);
    turns_max(&turns->longest, wall - waited);
    turns_max(&turns->cpu, now.cpu - turns_begun.cpu);
}


int
epoll_wait(int fd, struct epoll_event *events, int n, int timeout)
{
    int  rc, err;

    if (turns == NULL) {
        return turns_wait(fd, events, n, timeout);
    }

    if (turns_stat == -1) {
        turns_stat = open("/proc/thread-self/schedstat", O_RDONLY|O_CLOEXEC);

    } else {
        turns_end();
    }

    rc = turns_wait(fd, events, n, timeout);

    err = errno;
    turns_begun = turns_now();
    errno = err;

    return rc;
}


static void __attribute__((constructor))
turns_init(void)
{
    int          fd;
    void        *p;
    const char  *path;

    turns_wait = (turns_wait_pt) dlsym(RTLD_NEXT, "epoll_wait");
    path = getenv("LLM_TURNS");

    if (path == NULL) {
        return;
    }

    fd = open(path, O_RDWR|O_CREAT|O_CLOEXEC, 0600);

    if (fd == -1 || ftruncate(fd, sizeof(turns_t)) == -1) {
        perror("llm_turns");
        exit(1);
    }

    p = mmap(NULL, sizeof(turns_t), PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED) {
        perror("llm_turns");
        exit(1);
    }

    close(fd);
    turns = p;
}
