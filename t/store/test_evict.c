
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Eviction: how often a request hits, against an exact LRU of the same size;
 * a flood of entries that nobody asks for again; entries of all sizes; time
 * that is over.
 */


#include <math.h>

#include "store.h"


#define KEYS   20000
#define MARKS  8192


static u_char   marks[MARKS];
static u_char   keys[KEYS][LLM_KEY_LEN];
static double   sums[KEYS];
static int      older[KEYS + 1], newer[KEYS + 1];
static char     in[KEYS];

static uint64_t  state = 88172645463325252ULL;


static double
chance(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return (state >> 11) / 9007199254740992.0;
}


/* Zipf with exponent 0.9; keys are digests, so that their order is none */

static int
zipf(void)
{
    int     lo, hi, mid;
    double  x;

    x = chance() * sums[KEYS - 1];
    lo = 0;
    hi = KEYS - 1;

    while (lo < hi) {
        mid = (lo + hi) / 2;

        if (sums[mid] < x) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }

    return lo;
}


static void
unlink_lru(int k)
{
    newer[older[k]] = newer[k];
    older[newer[k]] = older[k];
}


/* percent of hits in the second half */

static double
lru(int requests, int room, uint64_t seed)
{
    int  i, k, n, hits;

    state = seed;
    n = 0;
    hits = 0;
    memset(in, 0, sizeof(in));
    older[KEYS] = KEYS;
    newer[KEYS] = KEYS;

    for (i = 0; i < requests; i++) {
        k = zipf();

        if (in[k]) {
            hits += (i >= requests / 2);
            unlink_lru(k);

        } else {
            if (n == room) {
                in[newer[KEYS]] = 0;
                unlink_lru(newer[KEYS]);
                n--;
            }

            in[k] = 1;
            n++;
        }

        /* the newest is the older one of the list's head */

        older[k] = older[KEYS];
        newer[k] = KEYS;
        newer[older[KEYS]] = k;
        older[KEYS] = k;
    }

    return 100.0 * hits / (requests - requests / 2);
}


static int
ask(cache_t *c, const u_char *key, item_t *t)
{
    llm_int_t     rc;
    llm_entry_t   e, *p;

    rc = llm_store_get(c->store, key, &e);

    if (rc == LLM_OK) {
        llm_store_mark(c->store, key);
    }

    llm_store_release(c->store);

    if (rc == LLM_OK) {
        return 1;
    }

    memcpy(t->e.key, key, LLM_KEY_LEN);
    p = &t->e;

    if (llm_store_write(c->store, &p, 1) != LLM_OK) {
        ok(0, "write");
    }

    return 0;
}


static void
hit_rate(cache_t *c)
{
    int               i, hits, requests;
    double            mine, exact, entries;
    item_t            t;
    llm_store_stat_t  st;

    requests = rounds(120000, 600000);
    item_init(&t, 1, 1200);
    entries = 0;
    hits = 0;
    state = 4711;

    for (i = 0; i < requests; i++) {
        hits += ask(c, keys[zipf()], &t) && i >= requests / 2;

        if (i >= requests / 2 && i % 100 == 0) {
            llm_store_stat(c->store, &st);
            entries += st.entries;
        }
    }

    item_free(&t);

    entries /= (requests - requests / 2) / 100;
    mine = 100.0 * hits / (requests - requests / 2);
    exact = lru(requests, (int) entries, 4711);

    printf("# %d keys, room for %.0f: %.2f %% hits, of an exact LRU"
           " %.2f %%\n", KEYS, entries, mine, exact);

    ok(mine > exact - 0.5, "hit rate: as good as an exact LRU");
    ok(entries > 1000, "hit rate: room for many");
    is_int(shared->dropped, 0, "hit rate: none dropped");
}


/* ten times as many as there is room for, each asked for once; some others
 * now and then */

static void
flood(cache_t *c)
{
    int     i, k, kept, asked;
    item_t  t;
    u_char  key[LLM_KEY_LEN];

    item_init(&t, 1, 1200);
    kept = 0;
    asked = 0;

    for (i = 0; i < 18000; i++) {
        memcpy(key, keys[i], LLM_KEY_LEN);
        key[8] ^= 0xa5;
        key[20] ^= 0xff;
        ask(c, key, &t);

        if (i % 600 == 0) {
            for (k = 0; k < 20; k++) {
                kept += ask(c, keys[k], &t) && i >= 1800;
                asked += (i >= 1800);
            }
        }
    }

    item_free(&t);

    printf("# hot ones there %d times of %d\n", kept, asked);
    ok(kept >= asked * 95 / 100, "flood: what is asked for stays");
}


/* nothing is stuck though room is in pieces */

static void
sizes(cache_t *c)
{
    int               i, big, huge;
    size_t            len;
    uint64_t          dropped;
    llm_store_stat_t  st;

    big = 0;
    huge = 0;
    dropped = shared->dropped;

    for (i = 0; i < 3000; i++) {
        len = 1024 << (int) (chance() * 8);
        len += chance() * len;

        if (i % 100 == 0) {
            len = 900000;
        }

        if (put(c, i, len) != LLM_OK) {
            ok(0, "sizes: write");
        }

        if (i % 100 == 0) {
            huge += (get(c, i, len) == LLM_OK);
        }

        if (i % 100 == 50) {
            big += (get(c, i, len) == LLM_OK);
        }

        if (i % 64 == 0) {
            (void) llm_store_tend(c->store, now_ms());
        }
    }

    llm_store_stat(c->store, &st);

    printf("# 1 KB to 512 KB: %d of 30 there; 900 KB: %d of 30; dropped"
           " %d of 3000; %.0f %% used, %d entries\n", big, huge,
           (int) (shared->dropped - dropped), 100.0 * st.used / st.size,
           (int) st.entries);

    ok(big >= 29, "sizes: the usual ones are stored");
    ok(huge >= 27, "sizes: the long ones, too");
    ok(shared->dropped - dropped <= 30, "sizes: few dropped");
    ok(st.used <= st.size * 93 / 100, "sizes: within the limit");
    ok(st.used >= st.size / 2, "sizes: it is not empty");
}


static void
expired(void)
{
    int           i;
    item_t        t;
    cache_t       c;
    uint64_t      evicted;
    llm_entry_t  *e;

    dir_empty();
    memset(shared, 0, sizeof(llm_store_shared_t));
    cache_open(&c, 4 * MB);
    e = &t.e;

    for (i = 0; i < 1000; i++) {
        item_init(&t, i, 1200);

        if (i % 2) {
            t.e.made -= 7200 * 1000;
        }

        llm_store_write(c.store, &e, 1);
        item_free(&t);
    }

    is_int(get(&c, 1, 1200), LLM_OK, "expired: there as long as it is");
    evicted = shared->evicted;

    for (i = 2000; shared->expired < 100 && i < 4000; i++) {
        put(&c, i, 1200);
    }

    ok(shared->expired >= 100, "expired: taken out, and counted");
    ok(shared->evicted >= evicted, "expired: apart from evicted");
    cache_close(&c);
}


/* a process that has less room than the others */

static void
smaller(void)
{
    int               i;
    cache_t           c;
    llm_store_stat_t  st;

    dir_empty();
    memset(shared, 0, sizeof(llm_store_shared_t));
    cache_open(&c, 16 * MB);

    for (i = 0; i < 5000; i++) {
        put(&c, i, 1200);
    }

    llm_store_stat(c.store, &st);
    ok(st.used > 9 * MB, "smaller: much is there");
    cache_close(&c);

    cache_open(&c, 4 * MB);

    for (i = 0; i < 200; i++) {
        if (llm_store_tend(c.store, now_ms()) != LLM_AGAIN) {
            break;
        }
    }

    llm_store_stat(c.store, &st);
    ok(st.used < 4 * MB, "smaller: evicted by and by");
    is_int(put(&c, 9999, 1200), LLM_OK, "smaller: write");
    is_int(get(&c, 9999, 1200), LLM_OK, "smaller: get");
    is_int(shared->recreated, 0, "smaller: the same file");
    cache_close(&c);
}


int
main(void)
{
    int      i;
    double   sum;
    cache_t  c;

    dir_new(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    sum = 0;

    for (i = 0; i < KEYS; i++) {
        item_key(keys[i], i);
        sum += 1 / pow(i + 1, 0.9);
        sums[i] = sum;
    }

    cache_init(&c, 4 * MB);
    c.conf.marks = marks;
    c.conf.nmarks = MARKS;
    is_int(llm_store_open(c.store), LLM_OK, "open");
    hit_rate(&c);
    flood(&c);
    cache_close(&c);

    dir_empty();
    cache_init(&c, 64 * MB);
    c.conf.marks = marks;
    c.conf.nmarks = MARKS;
    is_int(llm_store_open(c.store), LLM_OK, "sizes: open");
    sizes(&c);
    cache_close(&c);

    expired();
    smaller();

    return done();
}
