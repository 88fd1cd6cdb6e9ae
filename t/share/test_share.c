
/*
 * What workers share, used by processes that are killed: each enters the
 * table, leads or opens a link to who leads, and what comes through a link is
 * compared byte by byte with what the flight must say.  In the end nothing is
 * left, and nobody who waits for a living writer was let wait.
 *
 *     test_share [SECONDS]
 */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "share/llm_share_int.h"


#define WORKERS  6
#define KEYS     24
#define SIZE     (256 * 1024)
#define STALL    3.0                   /* s without a byte of a living writer */


typedef struct {
    uint64_t      flight;
    uint32_t      key;
    uint32_t      length;
    uint32_t      left;                /* ms until it ends */
    int           used;
} lead_t;


typedef struct {
    llm_uint_t    link;
    uint64_t      flight;              /* its name, with the writer's nonce */
    uint32_t      length;
    uint32_t      at;
    double        moved;
    int           used;
} read_t;


typedef struct {
    llm_uint_t    link;
    lead_t       *lead;
    uint64_t      flight;
    uint32_t      length;
    uint32_t      at;
    int           used;
} out_t;


typedef struct {
    llm_worker_t *w;
    uint64_t      nonce;
    uint64_t      flights;
    lead_t        leads[64];
    read_t        reads[256];
    out_t         outs[1024];
} process_t;


typedef struct {
    uint64_t      joined, whole, lost, refused, full, wrong, stalled, leads;
} counts_t;


static int           fds[WORKERS];
static llm_share_t  *share;
static counts_t     *counts;
static process_t     self;


static double
now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


static void
count(uint64_t *n)
{
    __atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
}


static u_char
byte_at(uint64_t nonce, uint64_t flight, uint32_t at)
{
    uint64_t  n;

    n = (nonce * 0x9e3779b97f4a7c15ULL ^ flight) * 31 + at * 2654435761u;

    return n >> 11;
}


static uint32_t
length_of(uint64_t nonce, uint64_t flight)
{
    return (nonce * 7919 + flight * 104729) % 40000;
}


static void
wake(void *data, uint32_t index)
{
    uint64_t  one = 1;

    (void) data;

    if (write(fds[index], &one, sizeof(one)) != sizeof(one)) {
        abort();
    }
}


static void
key_of(u_char *key, uint32_t n)
{
    memset(key, 0, LLM_SHARE_KEY_LEN);
    memcpy(key + LLM_SHARE_KEY_LEN / 2, &n, sizeof(n));
}


static void
pump(out_t *o)
{
    u_char    buf[3000];
    size_t    n, size;
    uint32_t  i;

    if (llm_link_gone(self.w, o->link)) {
        llm_link_end(self.w, o->link, LLM_LINK_DONE);
        o->used = 0;
        return;
    }

    while (o->at < o->length) {

        size = o->length - o->at;
        size = size < sizeof(buf) ? size : 1 + rand() % sizeof(buf);

        for (i = 0; i < size; i++) {
            buf[i] = byte_at(self.nonce, o->flight, o->at + i);
        }

        n = llm_link_write(self.w, o->link, buf, size);
        o->at += n;

        if (n < size) {
            llm_link_flush(self.w, o->link);
            return;
        }
    }

    o->used = 0;
    llm_link_end(self.w, o->link, LLM_LINK_DONE);
}


static void
take(read_t *r, uint64_t nonce)
{
    u_char    buf[5000];
    size_t    n;
    uint32_t  i;

    while ((n = llm_link_read(self.w, r->link, buf,
                              1 + rand() % sizeof(buf))) != 0)
    {
        for (i = 0; i < n; i++) {
            if (buf[i] != byte_at(nonce, r->flight, r->at + i)) {
                count(&counts->wrong);
                break;
            }
        }

        r->at += n;
        r->moved = now();
    }

    switch (llm_link_state(self.w, r->link)) {

    case LLM_LINK_OPEN:
        return;

    case LLM_LINK_DONE:
        count(r->at == r->length ? &counts->whole : &counts->wrong);
        break;

    case LLM_LINK_REFUSED:
        count(r->at ? &counts->wrong : &counts->refused);
        break;

    case LLM_LINK_LOST:
        count(&counts->lost);
    }

    r->used = 0;
    llm_link_close(self.w, r->link);
}


static uint64_t  nonces[256];


static void
on_link(void *data, llm_uint_t link)
{
    int        i;
    void      *own;
    uint64_t   flight;

    (void) data;

    own = llm_link_get(self.w, link);

    if (!llm_link_mine(self.w, link)) {
        if (own) {
            take(own, nonces[(read_t *) own - self.reads]);
        }

        return;
    }

    if (own) {
        pump(own);
        return;
    }

    flight = llm_link_wanted(self.w, link);

    if (flight == 0) {
        return;
    }

    for (i = 0; i < 64; i++) {
        if (self.leads[i].used && self.leads[i].flight == flight) {
            break;
        }
    }

    if (i == 64) {
        llm_link_end(self.w, link, LLM_LINK_REFUSED);
        return;
    }

    for (i = 0; i < 1024; i++) {
        if (!self.outs[i].used) {
            self.outs[i].used = 1;
            self.outs[i].link = link;
            self.outs[i].flight = flight;
            self.outs[i].length = length_of(self.nonce, flight);
            self.outs[i].at = 0;
            llm_link_set(self.w, link, &self.outs[i]);
            pump(&self.outs[i]);
            return;
        }
    }

    llm_link_end(self.w, link, LLM_LINK_REFUSED);
}


static void
ask(void)
{
    int          i, k;
    u_char       key[LLM_SHARE_KEY_LEN];
    uint32_t     n;
    uint64_t     flight;
    llm_place_t  place;

    n = rand() % KEYS;
    key_of(key, n);

    for (k = 0; k < 64 && self.leads[k].used; k++) { /* void */ }
    for (i = 0; i < 256 && self.reads[i].used; i++) { /* void */ }

    if (k == 64 || i == 256) {
        return;
    }

    flight = ++self.flights;

    switch (llm_table_enter(self.w, key, LLM_FORM_STREAM, LLM_FORM_STREAM,
                            flight, &place))
    {
    case LLM_OK:
        self.leads[k].used = 1;
        self.leads[k].flight = flight;
        self.leads[k].key = n;
        self.leads[k].left = rand() % 30;
        count(&counts->leads);
        return;

    case LLM_AGAIN:
        break;

    default:
        count(&counts->full);
        return;
    }

    if (place.nonce == self.nonce) {
        return;
    }

    self.reads[i].flight = place.flight;
    self.reads[i].length = length_of(place.nonce, place.flight);
    self.reads[i].at = 0;
    self.reads[i].moved = now();
    nonces[i] = place.nonce;

    if (llm_link_open(self.w, &place, &self.reads[i].link) != LLM_OK) {
        count(&counts->full);
        return;
    }

    self.reads[i].used = 1;
    llm_link_set(self.w, self.reads[i].link, &self.reads[i]);
    count(&counts->joined);
}


static void
turn(void)
{
    int     i;
    u_char  key[LLM_SHARE_KEY_LEN];

    for (i = 0; i < 64; i++) {
        if (self.leads[i].used && self.leads[i].left-- == 0) {
            key_of(key, self.leads[i].key);
            llm_table_leave(self.w, key, LLM_FORM_STREAM,
                            self.leads[i].flight);
            self.leads[i].used = 0;
        }
    }

    for (i = 0; i < 256; i++) {

        if (!self.reads[i].used) {
            continue;
        }

        if (now() - self.reads[i].moved > STALL) {
            count(&counts->stalled);
            self.reads[i].moved = now();
        }

        if (rand() % 200 == 0) {
            llm_link_close(self.w, self.reads[i].link);
            self.reads[i].used = 0;
        }
    }
}


static void
process(uint32_t index, double until)
{
    double         ticked;
    uint64_t       n;
    struct pollfd  p;

    srand(getpid());
    memset(&self, 0, sizeof(self));

    if (llm_worker_start(share, 1, index, wake, NULL, &self.w) != LLM_OK) {
        fprintf(stderr, "no slot\n");
        _exit(1);
    }

    self.nonce = self.w->nonce;
    ticked = now();
    p.fd = fds[index];
    p.events = POLLIN;

    while (now() < until || llm_worker_links(self.w)) {

        if (now() < until && rand() % 3 == 0) {
            ask();
        }

        if (poll(&p, 1, 1) == 1) {
            if (read(fds[index], &n, sizeof(n)) == sizeof(n)) {
                llm_worker_bells(self.w, on_link, NULL);
            }
        }

        turn();

        if (now() - ticked > 0.1) {
            ticked = now();
            llm_worker_tick(self.w, on_link, NULL);
        }

        if (now() > until + 10) {
            count(&counts->stalled);
            break;
        }
    }

    llm_worker_stop(self.w);
    _exit(0);
}


static int  failed;


static void
check(int ok, const char *name)
{
    printf("%sok - %s\n", ok ? "" : "not ", name);
    failed |= !ok;
}


static void
units(void)
{
    int               i, n;
    u_char            key[LLM_SHARE_KEY_LEN], buf[LLM_LINK_ROOM + 10];
    llm_uint_t        link, links[LLM_SHARE_LINKS];
    llm_worker_t     *a, *b, *c;
    llm_place_t       place;
    llm_share_stat_t  st;

    check(llm_share_create(NULL, LLM_SHARE_MIN - 1) == NULL, "too small");

    llm_worker_start(share, 1, 0, wake, NULL, &a);
    llm_worker_start(share, 1, 1, wake, NULL, &b);
    llm_worker_start(share, 2, 0, wake, NULL, &c);

    key_of(key, 1);

    check(llm_table_enter(a, key, LLM_FORM_PLAIN|LLM_FORM_STREAM,
                          LLM_FORM_PLAIN, 7, &place) == LLM_OK, "it leads");
    check(llm_table_enter(b, key, LLM_FORM_STREAM, LLM_FORM_STREAM, 8, &place)
          == LLM_OK, "another form is led by another");
    check(llm_table_enter(b, key, LLM_FORM_PLAIN|LLM_FORM_STREAM,
                          LLM_FORM_PLAIN, 9, &place) == LLM_AGAIN
          && place.flight == 7 && place.form == LLM_FORM_PLAIN,
          "the own form comes first");
    check(llm_table_enter(c, key, LLM_FORM_PLAIN, LLM_FORM_PLAIN, 9, &place)
          == LLM_OK, "another generation does not see it");

    (void) llm_table_enter(b, key, LLM_FORM_PLAIN, LLM_FORM_PLAIN, 9, &place);

    check(llm_link_open(b, &place, &link) == LLM_OK, "a link");
    llm_link_set(b, link, buf);
    check(llm_link_mine(a, link) && !llm_link_mine(b, link), "whose it is");
    check(llm_link_wanted(a, link) == 7, "what is wanted");
    llm_link_set(a, link, buf);

    memset(buf, 'x', sizeof(buf));

    check(llm_link_write(a, link, buf, LLM_LINK_ROOM + 10) == LLM_LINK_ROOM,
          "it is full");
    check(llm_link_read(b, link, buf, 10) == 0, "nothing before the flush");
    llm_link_flush(a, link);
    check(llm_link_read(b, link, buf, 100) == 100, "some of it");
    check(llm_link_write(a, link, buf, 200) == 100, "room for as much");
    llm_link_end(a, link, LLM_LINK_LOST);
    check(llm_link_state(b, link) == LLM_LINK_OPEN, "bytes are left");
    n = llm_link_read(b, link, buf, sizeof(buf));
    check(n == LLM_LINK_ROOM, "all of them");
    check(llm_link_state(b, link) == LLM_LINK_LOST, "then it is lost");
    llm_link_close(b, link);

    llm_share_stat(share, &st);
    check(st.linked == 0 && st.flights == 3 && st.workers == 3, "the numbers");

    for (i = 0; llm_link_open(b, &place, &links[i]) == LLM_OK; i++) {
        llm_link_set(b, links[i], buf);
    }

    check(i == (int) st.links, "all links");
    llm_worker_stop(b);

    for (n = 0; n < i; n++) {
        if (llm_link_wanted(a, links[n]) != 0) {
            break;
        }
    }

    check(n == i, "nobody wants anything any more");

    llm_worker_stop(a);
    llm_worker_stop(c);

    llm_share_stat(share, &st);
    check(st.linked == 0 && st.flights == 0 && st.workers == 0,
          "nothing is left");
}


int
main(int argc, char **argv)
{
    int               i, status;
    pid_t             pid, pids[WORKERS];
    double            until, end;
    uint64_t          kills;
    llm_worker_t     *w;
    llm_share_stat_t  st;

    end = argc > 1 ? atof(argv[1]) : 5;

    share = mmap(NULL, SIZE, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);
    counts = mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1,
                  0);

    if (share == MAP_FAILED || counts == MAP_FAILED) {
        return 1;
    }

    share = llm_share_create(share, SIZE);

    if (share == NULL) {
        return 1;
    }

    for (i = 0; i < WORKERS; i++) {
        fds[i] = eventfd(0, EFD_NONBLOCK);
    }

    units();

    until = now() + end;
    kills = 0;
    srand(getpid());

    for (i = 0; i < WORKERS; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            process(i, until);
        }
    }

    while (now() < until - 1) {

        usleep(1000 + rand() % 20000);

        i = rand() % WORKERS;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], &status, 0);
        kills++;

        pid = fork();

        if (pid == 0) {
            process(i, until);
        }

        pids[i] = pid;
    }

    for (i = 0; i < WORKERS; i++) {
        waitpid(pids[i], &status, 0);
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ended well");
    }

    /* whoever starts next cleans up */

    llm_worker_start(share, 1, 0, wake, NULL, &w);
    llm_worker_bells(w, on_link, NULL);
    llm_worker_stop(w);

    llm_share_stat(share, &st);

    printf("# %lu kills: %lu led, %lu joined, %lu whole, %lu lost, %lu refused, "
           "%lu without room\n", kills, counts->leads, counts->joined,
           counts->whole, counts->lost, counts->refused, counts->full);

    check(counts->joined > 50 && counts->whole > 20 && counts->lost > 0,
          "something happened");
    check(counts->wrong == 0, "no byte is wrong");
    check(counts->stalled == 0, "nobody was let wait");
    check(st.linked == 0, "no link is left");
    check(st.flights == 0, "no entry is left");
    check(st.workers == 0, "no worker is left");

    return failed;
}
