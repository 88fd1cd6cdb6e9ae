
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Purges: of each kind, at once and for every process, stores that began
 * before, deletion by and by, a list that is full, clocks, a file that is full.
 */


#include "store.h"


static void
fill(cache_t *c, int n)
{
    int           i;
    item_t       *t;
    llm_entry_t **e;

    t = calloc(n, sizeof(item_t));
    e = calloc(n, sizeof(llm_entry_t *));

    for (i = 0; i < n; i++) {
        item_init(&t[i], i, 500);
        e[i] = &t[i].e;
    }

    is_int(llm_store_write(c->store, e, n), LLM_OK, "fill");

    for (i = 0; i < n; i++) {
        item_free(&t[i]);
    }

    free(t);
    free(e);
}


static int
there(cache_t *c, int n)
{
    int  i, found;

    found = 0;

    for (i = 0; i < n; i++) {
        found += (get(c, i, 500) == LLM_OK);
    }

    return found;
}


static llm_int_t
purge(cache_t *c, llm_purge_e what, const char *s, llm_purged_t *res)
{
    llm_str_t  text;

    text = str(s);

    return llm_store_purge(c->store, what, &text, now_ms(), res);
}


static void
tend(cache_t *c)
{
    int        i;
    llm_int_t  rc;

    for (i = 0; i < 1000; i++) {
        rc = llm_store_tend(c->store, now_ms());

        if (rc != LLM_AGAIN) {
            break;
        }
    }

    is_int(rc, LLM_OK, "tend: done");
}


static void
kinds(cache_t *c)
{
    int               i;
    char              hex[2 * LLM_ID_LEN + 1];
    u_char            key[LLM_KEY_LEN], id[LLM_ID_LEN];
    llm_purged_t      res;
    llm_store_stat_t  st;

    usleep(2000);
    fill(c, 210);
    usleep(2000);

    is_int(purge(c, LLM_PURGE_SCOPE, "u3", &res), LLM_OK, "scope");
    is_int(res.matched, 21, "scope: matched");
    is_int(res.deleted, 21, "scope: deleted");
    is_int(res.pending, 0, "scope: nothing pending");
    is_int(there(c, 210), 189, "scope: the others are there");
    is_int(get(c, 13, 500), LLM_DECLINED, "scope: gone");

    is_int(purge(c, LLM_PURGE_SCOPE, "user u4", &res), LLM_OK,
           "scope: in full");
    is_int(res.matched, 21, "scope: in full, matched");
    is_int(purge(c, LLM_PURGE_SCOPE, "", &res), LLM_OK, "scope: empty");
    is_int(res.matched, 0, "scope: empty, none");

    is_int(purge(c, LLM_PURGE_MODEL, "model-5", &res), LLM_OK, "model");
    is_int(res.matched, 24, "model: matched");
    is_int(there(c, 210), 144, "model: gone");

    item_key(key, 0);
    llm_store_id(c->store, key, id);

    for (i = 0; i < LLM_ID_LEN; i++) {
        sprintf(hex + 2 * i, "%02X", id[i]);
    }

    is_int(purge(c, LLM_PURGE_ID, hex, &res), LLM_OK, "id");
    is_int(res.matched, 1, "id: matched");
    is_int(get(c, 0, 500), LLM_DECLINED, "id: gone");
    is_int(there(c, 210), 143, "id: the others are there");

    is_int(purge(c, LLM_PURGE_ID, "abc", &res), LLM_DECLINED, "id: short");
    hex[3] = 'g';
    is_int(purge(c, LLM_PURGE_ID, hex, &res), LLM_DECLINED, "id: no hex");

    is_int(purge(c, LLM_PURGE_MODEL, "provider-model", &res), LLM_OK,
           "model: of the provider");
    is_int(res.matched, 143, "model: all the rest");
    is_int(there(c, 210), 0, "model: none is there");

    usleep(2000);
    fill(c, 50);
    usleep(2000);
    is_int(there(c, 50), 50, "stores that began after");
    is_int(purge(c, LLM_PURGE_ALL, "", &res), LLM_OK, "all");
    is_int(res.matched, 50, "all: matched");
    is_int(there(c, 50), 0, "all: gone");

    llm_store_stat(c->store, &st);
    is_int(st.entries, 0, "all: nothing left");
    is_int(st.pending, 0, "all: nothing to do");
}


static void
before(cache_t *c)
{
    item_t        t;
    llm_entry_t  *e;
    llm_purged_t  res;

    item_init(&t, 1, 500);
    e = &t.e;
    usleep(2000);
    purge(c, LLM_PURGE_SCOPE, "u1", &res);
    is_int(llm_store_write(c->store, &e, 1), LLM_OK, "before: write");
    is_int(get(c, 1, 500), LLM_DECLINED, "before: not stored");
    item_free(&t);

    item_init(&t, 2, 500);
    t.e.begun -= 5000;
    is_int(llm_store_write(c->store, &e, 1), LLM_OK, "before: another scope");
    is_int(get(c, 2, 500), LLM_DECLINED, "before: the purge of all");
    t.e.begun += 10000;
    is_int(llm_store_write(c->store, &e, 1), LLM_OK, "after");
    is_int(get(c, 2, 500), LLM_OK, "after: stored");

    /* written before, though by its clock it began after */

    purge(c, LLM_PURGE_ALL, "", &res);
    is_int(res.matched, 1, "clock: matched");
    is_int(get(c, 2, 500), LLM_DECLINED, "clock: gone");
    item_free(&t);
}


/* hidden at once, deleted by and by */

static void
many(cache_t *c)
{
    int                i, rc;
    item_t             t;
    llm_entry_t       *e;
    llm_purged_t       res;
    llm_store_stat_t   st;

    usleep(2000);
    e = &t.e;
    fill(c, 6000);
    usleep(2000);

    is_int(purge(c, LLM_PURGE_ALL, "", &res), LLM_OK, "many: all");
    is_int(res.matched, 6000, "many: matched");
    is_int(res.deleted + res.pending, 6000, "many: deleted or pending");
    is_int(there(c, 6000), 0, "many: all hidden");

    /* one of the same key is not hidden */

    item_init(&t, 5999, 500);
    t.e.begun++;
    rc = 0;

    for (i = 0; i < 10; i++) {
        rc |= llm_store_write(c->store, &e, 1);
        usleep(1000);
    }

    is_int(rc, LLM_OK, "many: a new one");
    item_free(&t);

    tend(c);
    is_int(get(c, 5999, 500), LLM_OK, "many: the new one is there");
    llm_store_stat(c->store, &st);
    is_int(st.entries, 1, "many: nothing else");
    is_int(st.pending, 0, "many: done");
}


static int
child(void *arg)
{
    cache_t       c;
    llm_purged_t  res;

    if (cache_open(&c, 32 * MB) != LLM_OK || get(&c, 7, 500) != LLM_OK) {
        return 1;
    }

    if (purge(&c, LLM_PURGE_SCOPE, "u7", &res) != LLM_OK) {
        return 2;
    }

    cache_close(&c);

    return res.matched == 10 ? 0 : 3;
}


static void
other(cache_t *c)
{
    usleep(2000);
    fill(c, 100);
    is_int(get(c, 7, 500), LLM_OK, "other process: before");
    usleep(2000);

    is_int(in_child(child, NULL), 0, "other process: purges");
    is_int(get(c, 7, 500), LLM_DECLINED, "other process: seen at once");
    is_int(there(c, 100), 90, "other process: only those");
}


/* more purges than the list has room for: none is forgotten */

static void
full(cache_t *c)
{
    int           i, bad;
    char          name[32];
    item_t        t;
    llm_entry_t  *e;
    llm_purged_t  res;

    item_init(&t, 3, 500);
    e = &t.e;
    usleep(2000);
    bad = 0;

    for (i = 0; i < LLM_STORE_PURGES * 2 + 10; i++) {
        snprintf(name, sizeof(name), i ? "model-x%d" : "model-3", i);
        bad += (purge(c, LLM_PURGE_MODEL, name, &res) != LLM_OK);
    }

    is_int(bad, 0, "full: all are taken");
    is_int(llm_store_write(c->store, &e, 1), LLM_OK, "full: write");
    is_int(get(c, 3, 500), LLM_DECLINED, "full: the first still counts");
    item_free(&t);

    usleep(2000);
    put(c, 3, 500);
    is_int(get(c, 3, 500), LLM_OK, "full: what begins now is stored");

    /* two hours on */

    llm_store_tend(c->store, now_ms() + 3 * 3600 * 1000);
    is_int(c->store->slow_purges.n, 0, "later: no records");
    is_int(get(c, 3, 500), LLM_OK, "later: is there");
}


/* a purge, then the clock is set back */

static void
back(cache_t *c)
{
    llm_str_t     text;
    llm_purged_t  res;

    text = str("");

    is_int(llm_store_purge(c->store, LLM_PURGE_ALL, &text,
                           now_ms() + 86400000, &res), LLM_OK,
           "clock back: purge");
    put(c, 3, 500);
    is_int(get(c, 3, 500), LLM_DECLINED, "clock back: not stored");
    is_int(llm_store_tend(c->store, now_ms()), LLM_OK, "clock back: tend");
    usleep(2000);
    put(c, 3, 500);
    is_int(get(c, 3, 500), LLM_OK, "clock back: stored");
}


static double
megabytes(void)
{
    struct stat  st;

    return stat(file("data.mdb"), &st) == 0 ? (double) st.st_size / MB : 0;
}


/*
 * A file that has been full of small entries for long has no pages in a row
 * left.  Purges can be written even so, also after it was opened again, and it
 * does not grow by that.
 */

static void
crowded(void)
{
    int           i, k, bad, lost;
    char          name[32];
    item_t        t[250];
    cache_t       c;
    llm_entry_t  *e[250];
    llm_purged_t  res;

    dir_empty();
    is_int(cache_open(&c, 4 * MB), LLM_OK, "crowded: open");

    bad = 0;

    for (i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "model-x%d", i);
        bad += (purge(&c, LLM_PURGE_MODEL, name, &res) != LLM_OK);
    }

    is_int(bad, 0, "crowded: 200 purges");

    bad = 0;
    lost = 0;

    for (i = 0; i < 200; i++) {

        for (k = 0; k < 250; k++) {
            item_init(&t[k], i * 250 + k, 100 + k * 7919 % 1000);
            e[k] = &t[k].e;
        }

        lost += (llm_store_write(c.store, e, 250) == LLM_ERROR);

        for (k = 0; k < 250; k++) {
            item_free(&t[k]);
        }

        if (i % 10 == 9) {
            snprintf(name, sizeof(name), "model-y%d", i);
            bad += (purge(&c, LLM_PURGE_MODEL, name, &res) != LLM_OK);
        }

        if (i % 40 == 39) {
            cache_close(&c);
            bad += (cache_open(&c, 4 * MB) != LLM_OK);
        }
    }

    is_int(bad, 0, "crowded: purges are written");
    is_int(lost, 0, "crowded: and so is the rest");
    ok(megabytes() < 5.5, "crowded: %.1f MB", megabytes());

    usleep(2000);
    put(&c, 3, 500);
    is_int(get(&c, 3, 500), LLM_OK, "crowded: is there");
    usleep(2000);
    is_int(purge(&c, LLM_PURGE_ALL, "", &res), LLM_OK, "crowded: all");
    is_int(get(&c, 3, 500), LLM_DECLINED, "crowded: gone");
    tend(&c);

    cache_close(&c);
}


int
main(void)
{
    cache_t       c;
    llm_purged_t  res;

    dir_new(NULL);

    cache_init(&c, 32 * MB);
    is_int(purge(&c, LLM_PURGE_ALL, "", &res), LLM_AGAIN, "not open");
    is_int(llm_store_open(c.store), LLM_OK, "open");

    kinds(&c);
    before(&c);
    many(&c);
    other(&c);
    full(&c);
    back(&c);

    cache_close(&c);

    crowded();

    return done();
}
