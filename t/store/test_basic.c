
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * One process: what is written comes back, all of it; keys, ids, routes, the
 * walk, what the calls return where there is nothing to do.
 */


#include "store.h"


static void
same(const llm_str_t *a, const llm_str_t *b, const char *name)
{
    is_mem(a->data, a->len, b->data, b->len, name);
}


static void
round_trip(cache_t *c)
{
    item_t        t;
    llm_int_t     rc;
    llm_entry_t   e, *p;

    item_init(&t, 1, 1200);
    p = &t.e;

    is_int(llm_store_get(c->store, t.e.key, &e), LLM_DECLINED, "miss");
    llm_store_release(c->store);

    is_int(llm_store_write(c->store, &p, 1), LLM_OK, "write");

    rc = llm_store_get(c->store, t.e.key, &e);
    is_int(rc, LLM_OK, "hit");

    if (rc == LLM_OK) {
        is_mem(e.key, LLM_KEY_LEN, t.e.key, LLM_KEY_LEN, "key");
        is_mem(e.id, LLM_ID_LEN, t.e.id, LLM_ID_LEN, "id");
        is_int(e.begun, t.e.begun, "begun");
        is_int(e.made, t.e.made, "made");
        is_int(e.ttl, t.e.ttl, "ttl");
        is_int(e.stale, t.e.stale, "stale");
        is_int(e.flags, t.e.flags, "flags");
        is_int(e.cost, t.e.cost, "cost");
        is_int(e.usage.prompt, t.e.usage.prompt, "usage: prompt");
        is_int(e.usage.completion, t.e.usage.completion, "usage: completion");
        is_int(e.usage.cached, t.e.usage.cached, "usage: cached");
        is_int(e.usage.cache_write, t.e.usage.cache_write,
               "usage: cache_write");
        is_int(e.usage.reasoning, t.e.usage.reasoning, "usage: reasoning");
        is_int(e.usage.known, t.e.usage.known, "usage: known");
        same(&e.dialect, &t.e.dialect, "dialect");
        same(&e.endpoint, &t.e.endpoint, "endpoint");
        same(&e.provider, &t.e.provider, "provider");
        same(&e.model, &t.e.model, "model");
        same(&e.asked, &t.e.asked, "asked");
        same(&e.scope, &t.e.scope, "scope");
        same(&e.content_type, &t.e.content_type, "content_type");
        same(&e.finish_reason, &t.e.finish_reason, "finish_reason");
        same(&e.request, &t.e.request, "request");
        same(&e.text, &t.e.text, "text");
        is_int(e.nruns, 2, "runs");
        is_mem(e.runs, e.nruns * sizeof(llm_run_t), t.runs,
               2 * sizeof(llm_run_t), "runs: each");
    }

    llm_store_release(c->store);
    llm_store_release(c->store);

    item_free(&t);

    is_int(put(c, 1, 300000), LLM_OK, "overwrite: larger");
    is_int(get(c, 1, 300000), LLM_OK, "overwrite: larger is there");
    is_int(put(c, 1, 10), LLM_OK, "overwrite: smaller");
    is_int(get(c, 1, 10), LLM_OK, "overwrite: smaller is there");
    is_int(put(c, 1, 0), LLM_OK, "empty");
    is_int(get(c, 1, 0), LLM_OK, "empty is there");
}


static void
forms(cache_t *c)
{
    item_t        a, b;
    llm_entry_t   e, *p[2];

    item_init(&a, 2, 100);
    item_init(&b, 2, 200);
    b.e.key[LLM_KEY_LEN - 1] |= 1;

    is_int(a.e.key[LLM_KEY_LEN - 1] & 1, 0, "forms: a key's last bit");

    p[0] = &a.e;
    p[1] = &b.e;
    is_int(llm_store_write(c->store, p, 2), LLM_OK, "forms: write");

    is_int(llm_store_get(c->store, a.e.key, &e), LLM_OK, "forms: plain");
    is_int(e.text.len, 100, "forms: plain is it");
    llm_store_release(c->store);

    is_int(llm_store_get(c->store, b.e.key, &e), LLM_OK, "forms: stream");
    is_int(e.text.len, 200, "forms: stream is it");
    llm_store_release(c->store);

    /* of the same key in one transaction the last one */

    memcpy(b.e.key, a.e.key, LLM_KEY_LEN);
    is_int(llm_store_write(c->store, p, 2), LLM_OK, "same key: write");
    is_int(llm_store_get(c->store, a.e.key, &e), LLM_OK, "same key: hit");
    is_int(e.text.len, 200, "same key: the last one");
    llm_store_release(c->store);

    item_free(&a);
    item_free(&b);
}


static void
limits(cache_t *c)
{
    item_t        t;
    uint64_t      dropped;
    llm_run_t     runs[LLM_STORE_RUNS + 1];
    llm_entry_t  *p;

    static u_char  big[70000];

    dropped = shared->dropped;
    p = &t.e;

    item_init(&t, 3, 100);
    t.e.asked.data = big;
    t.e.asked.len = 65536;
    is_int(llm_store_write(c->store, &p, 1), LLM_OK, "limits: a long text");

    t.e.asked.len = 65535;
    is_int(llm_store_write(c->store, &p, 1), LLM_OK, "limits: not as long");
    is_int(get(c, 3, 100), LLM_OK, "limits: is there");

    memset(runs, 0, sizeof(runs));
    runs[0].len = 100;
    t.e.runs = runs;
    t.e.nruns = LLM_STORE_RUNS + 1;
    is_int(llm_store_write(c->store, &p, 1), LLM_OK, "limits: many runs");

    t.e.nruns = 1;
    runs[0].len = 99;
    is_int(llm_store_write(c->store, &p, 1), LLM_OK, "limits: short runs");

    is_int(shared->dropped, dropped + 3, "limits: dropped");
    item_free(&t);

    is_int(put(c, 4, 3 * MB), LLM_OK, "limits: a quarter of the map");
    is_int(get(c, 4, 3 * MB), LLM_OK, "limits: is there, too");
    is_int(put(c, 5, 5 * MB), LLM_OK, "limits: more");
    is_int(get(c, 5, 5 * MB), LLM_DECLINED, "limits: is not there");
    is_int(llm_store_write(c->store, NULL, 0), LLM_OK, "limits: none");
}


static void
keys(void)
{
    size_t           len;
    u_char           buf[1024], key[LLM_KEY_LEN], scope[LLM_KEY_SCOPE];
    llm_str_t        text, m;
    llm_key_parts_t  parts;

    memset(&parts, 0, sizeof(llm_key_parts_t));
    parts.dialect = str("openai");
    parts.endpoint = str("chat/completions");
    parts.query = str("a=\"b\"");
    parts.scope = str("user \xc3\xa4\n");

    len = llm_store_material(NULL, &parts);
    is_int(llm_store_material(buf, &parts), len, "material: its length");

    text.data = buf;
    text.len = len;
    is(&text, "{\"layout\":1,\"dialect\":\"openai\","
       "\"endpoint\":\"chat/completions\",\"query\":\"a=\\\"b\\\"\","
       "\"beta\":\"\",\"version\":\"\",\"openai_beta\":\"\",\"account\":\"\",\"route\":\"\","
       "\"provider\":\"\",\"scope\":\"user \xc3\xa4\\n\",\"request\":",
       "material");

    /* SHA-256 of "abc" */

    m = str("abc");
    is_int(llm_store_key(key, &m, &m), LLM_OK, "key");
    is_mem(key, LLM_KEY_SCOPE, "\xba\x78\x16\xbf\x8f\x01\xcf\xea", 8,
           "key: the scope");
    is_mem(key + 8, 24, "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde"
           "\x5d\xae\x22\x23\xb0\x03\x61\xa3\x96\x17\x7a\x9c", 24,
           "key: the request");

    is_int(llm_store_scope(scope, &m), LLM_OK, "scope");
    is_mem(scope, 8, key, 8, "scope: as in the key");
}


static void
ids(cache_t *c)
{
    int       i;
    FILE     *f;
    u_char    key[LLM_KEY_LEN], a[LLM_ID_LEN], b[LLM_ID_LEN];
    cache_t   d;
    struct stat  st;

    item_key(key, 1);

    is_int(llm_store_id(c->store, key, a), LLM_OK, "id");
    is_int(llm_store_id(c->store, key, b), LLM_OK, "id: again");
    is_mem(a, LLM_ID_LEN, b, LLM_ID_LEN, "id: is one");

    key[31] ^= 1;
    llm_store_id(c->store, key, b);
    is_mem(a, LLM_ID_LEN, b, LLM_ID_LEN, "id: of both forms");
    key[31] ^= 1;

    key[31] ^= 2;
    llm_store_id(c->store, key, b);
    ok(memcmp(a, b, LLM_ID_LEN) != 0, "id: of another key");
    key[31] ^= 2;

    cache_init(&d, 4 * MB);
    is_int(llm_store_id(d.store, key, b), LLM_AGAIN, "id: not open");
    is_int(get(&d, 1, 1), LLM_AGAIN, "get: not open");
    llm_store_free(d.store);

    is_int(stat(file("secret"), &st), 0, "secret");
    is_int(st.st_mode & 0777, 0600, "secret: nobody else's");
    is_int(st.st_size, 32, "secret: 32 bytes");

    for (i = 0; i < 2; i++) {
        f = fopen(file("data.mdb"), "r");
        ok(f && fstat(fileno(f), &st) == 0 && (st.st_mode & 0777) == 0600,
           "data.mdb: nobody else's");
        if (f) {
            fclose(f);
        }
    }
}


static int  walked, wrong;
static u_char  walked_key[LLM_KEY_LEN];


static llm_int_t
walk(void *ctx, const llm_entry_t *e)
{
    wrong += (walked && memcmp(walked_key, e->key, LLM_KEY_LEN) >= 0);
    memcpy(walked_key, e->key, LLM_KEY_LEN);

    walked++;

    /* a slow function within */

    if (ctx && walked % 50 == 0) {
        wrong += (put(ctx, 1000000 + walked, 10) != LLM_OK);
    }

    return (ctx == NULL && walked == 3) ? LLM_DONE : LLM_OK;
}


static void
walks(cache_t *c)
{
    int               i;
    item_t            t;
    llm_entry_t      *p;
    llm_store_stat_t  st;

    for (i = 100; i < 400; i++) {
        put(c, i, (i % 30) * 100);
    }

    /* the last key there may be */

    item_init(&t, 1, 10);
    memset(t.e.key, 0xff, LLM_KEY_LEN);
    p = &t.e;
    llm_store_write(c->store, &p, 1);
    item_free(&t);

    is_int(llm_store_stat(c->store, &st), LLM_OK, "stat");

    walked = 0;
    is_int(llm_store_walk(c->store, walk, c), LLM_OK, "walk");
    ok(walked >= (int) st.entries, "walk: all");
    is_int(wrong, 0, "walk: in order");

    walked = 0;
    is_int(llm_store_walk(c->store, walk, NULL), LLM_DONE, "walk: ended");
    is_int(walked, 3, "walk: at once");

    is_int(st.size, 16 * MB, "stat: size");
    ok(st.used > 0 && st.used < st.size, "stat: used");
    ok(st.file > 0 && st.file <= st.size, "stat: file");
    is_int(st.readers, 1, "stat: readers");
    is_int(st.max_readers, LLM_STORE_READERS, "stat: max_readers");
    is_int(st.pending, 0, "stat: pending");
}


static int  routes_seen;


static llm_int_t
route_seen(void *ctx, const llm_str_t *route)
{
    routes_seen += (route->len == 600 || route->len == 4);

    return LLM_OK;
}


static void
routes(cache_t *c)
{
    char       text[601];
    u_char     buf[64];
    llm_str_t  route, provider, got;

    memset(text, 'r', 600);
    text[600] = '\0';

    got.data = buf;
    route = str("r1 a");
    provider = str("0123");

    is_int(llm_store_route_get(c->store, &route, &got), LLM_DECLINED,
           "route: not known");
    is_int(llm_store_route_put(c->store, &route, &provider), LLM_OK,
           "route: put");
    is_int(llm_store_route_put(c->store, &route, &provider), LLM_OK,
           "route: put again");
    is_int(llm_store_route_get(c->store, &route, &got), LLM_OK,
           "route: get");
    is(&got, "0123", "route: is it");

    provider = str("0123456789012345678901234567890123456789"
                   "012345678901234567890123");
    route = str(text);
    is_int(llm_store_route_put(c->store, &route, &provider), LLM_OK,
           "route: a long one");
    is_int(llm_store_route_get(c->store, &route, &got), LLM_OK,
           "route: get the long one");
    is_int(got.len, 64, "route: a long provider");

    is_int(llm_store_route_walk(c->store, route_seen, NULL), LLM_OK,
           "route: walk");
    is_int(routes_seen, 2, "route: both");
}


static void
reopen(cache_t *c)
{
    uint64_t   n;

    put(c, 7, 5000);
    llm_store_close(c->store);
    is_int(get(c, 7, 5000), LLM_AGAIN, "closed");
    is_int(llm_store_write(c->store, NULL, 0), LLM_OK, "closed: no write");
    is_int(put(c, 8, 1), LLM_ERROR, "closed: write");
    is_int(llm_store_open(c->store), LLM_OK, "open again");
    is_int(llm_store_open(c->store), LLM_OK, "open when it is");
    is_int(get(c, 7, 5000), LLM_OK, "open again: is there");

    n = now_ms();
    is_int(put(c, 8, 1), LLM_OK, "tend: something to sync");
    is_int(llm_store_tend(c->store, n), LLM_OK, "tend");
    ok(c->store->unsynced != 0, "tend: not yet");
    is_int(llm_store_tend(c->store, n + 11000), LLM_OK, "tend: later");
    is_int(c->store->unsynced, 0, "tend: synced");
}


/* an assertion of LMDB's ends what was under way, not the process */

static int
assertion(llm_store_t *s, void *data)
{
    int  rc;

    rc = llm_store_write_begin(s);

    if (rc == 0) {
        llm_store_assert(s->env, "none of LMDB's");
        (*(int *) data)++;
    }

    return rc;
}


static void
assertions(cache_t *c)
{
    int  went_on;

    went_on = 0;

    is_int(llm_store_call(c->store, assertion, &went_on), MDB_CORRUPTED,
           "assertion: an error");
    is_int(went_on, 0, "assertion: it did not go on");
    is_int(llm_store_failed(c->store, MDB_CORRUPTED, "test"), LLM_ERROR,
           "assertion: to be opened");
    is_int(get(c, 7, 5000), LLM_ERROR, "assertion: get");
    is_int(llm_store_open(c->store), LLM_OK, "assertion: open");
    is_int(get(c, 7, 5000), LLM_OK, "assertion: sound, so it stays");
    is_int(put(c, 8, 1), LLM_OK, "assertion: the lock is free");

    /* a second time it is not believed */

    llm_store_failed(c->store, MDB_CORRUPTED, "test");
    is_int(llm_store_open(c->store), LLM_OK, "assertion: again");
    is_int(shared->recreated, 1, "assertion: begun anew");
    is_int(put(c, 7, 5000), LLM_OK, "assertion: goes on");
}


static void
readonly(void)
{
    cache_t  c;

    cache_init(&c, 16 * MB);
    c.conf.readonly = 1;
    is_int(llm_store_open(c.store), LLM_OK, "readonly: open");
    is_int(get(&c, 7, 5000), LLM_OK, "readonly: get");
    is_int(put(&c, 9, 5000), LLM_DECLINED, "readonly: write");
    is_int(llm_store_tend(c.store, now_ms()), LLM_OK, "readonly: tend");
    cache_close(&c);

    dir_empty();

    cache_init(&c, 16 * MB);
    c.conf.readonly = 1;
    is_int(llm_store_open(c.store), LLM_DECLINED, "readonly: nothing there");
    is_int(dir_count("data"), 0, "readonly: creates no data.mdb");
    is_int(dir_count("lock"), 0, "readonly: creates no lock.mdb");
    is_int(dir_count("secret"), 0, "readonly: creates no secret");
    cache_close(&c);
}


int
main(void)
{
    cache_t  c;

    dir_new(NULL);
    keys();

    is_int(cache_open(&c, 16 * MB), LLM_OK, "open");

    round_trip(&c);
    forms(&c);
    limits(&c);
    ids(&c);
    walks(&c);
    routes(&c);
    reopen(&c);
    assertions(&c);

    cache_close(&c);

    readonly();

    return done();
}
