
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the store's calls take: time_store [DIR]; make time.
 */


#include "store.h"


#define N  20000


static void
lookups(cache_t *c)
{
    int           i, k;
    double        t, none, hit, miss;
    u_char        keys[1000][LLM_KEY_LEN], id[LLM_ID_LEN];
    u_char        copy[4096];
    llm_str_t     scope, material;
    llm_entry_t   e;

    static u_char  body[2048];

    for (i = 0; i < 1000; i++) {
        put(c, i, 1200);
        item_key(keys[i], i);
    }

    for (k = 0; k < 2; k++) {
        t = now_us();

        for (i = 0; i < N * 10; i++) {
            if (llm_store_get(c->store, keys[i % 1000], &e) == LLM_OK) {
                memcpy(copy, e.text.data, e.text.len);
            }

            llm_store_release(c->store);
        }

        hit = (now_us() - t) / (N * 10);
    }

    for (i = 0; i < 1000; i++) {
        keys[i][0] ^= 0xff;
    }

    t = now_us();

    for (i = 0; i < N * 10; i++) {
        llm_store_get(c->store, keys[i % 1000], &e);
        llm_store_release(c->store);
    }

    miss = (now_us() - t) / (N * 10);

    memset(body, 'x', sizeof(body));
    scope = str("user u1");
    material.data = body;
    material.len = sizeof(body);
    t = now_us();

    for (i = 0; i < N; i++) {
        llm_store_key(keys[0], &scope, &material);
    }

    none = (now_us() - t) / N;
    t = now_us();

    for (i = 0; i < N; i++) {
        llm_store_id(c->store, keys[0], id);
    }

    printf("get, 1.2 KB: %.2f us; a miss %.2f us; key of 2 KB %.2f us;"
           " id %.2f us\n", hit, miss, none, (now_us() - t) / N);
}


static void
writes(cache_t *c, int batch)
{
    int           i, k;
    double        t;
    item_t        item[64];
    llm_entry_t  *e[64];

    for (i = 0; i < batch; i++) {
        item_init(&item[i], i, 1200);
        e[i] = &item[i].e;
    }

    t = 0;

    for (k = 0; k < N; k += batch) {
        for (i = 0; i < batch; i++) {
            item_key(item[i].e.key, k + i);
        }

        t -= now_us();
        llm_store_write(c->store, e, batch);
        t += now_us();
    }

    printf("write, 1.2 KB, %d at once: %.1f us each\n", batch, t / N);

    for (i = 0; i < batch; i++) {
        item_free(&item[i]);
    }
}


static void
check(void)
{
    int                i, k, fd;
    double             t;
    cache_t            c;
    item_t             item[64];
    llm_entry_t       *e[64];
    struct stat        st;
    llm_store_stat_t   s;
    llm_store_file_t   f;

    dir_empty();
    cache_open(&c, 256 * MB);

    for (i = 0; i < 64; i++) {
        item_init(&item[i], i, i % 8 ? 1200 : 9000);
        e[i] = &item[i].e;
    }

    for (k = 0; k < 1300; k++) {
        for (i = 0; i < 64; i++) {
            item_key(item[i].e.key, k * 64 + i);
        }

        llm_store_write(c.store, e, 64);
    }

    for (i = 0; i < 64; i++) {
        item_free(&item[i]);
    }

    llm_store_stat(c.store, &s);

    fd = open(file("data.mdb"), O_RDONLY);
    fstat(fd, &st);
    llm_store_check_head(fd, &f);
    t = now_us();

    if (llm_store_check(fd, f.txnid, &f) != LLM_OK) {
        printf("check: %s\n", f.why);
    }

    printf("check, %d MB, %d entries: %.0f ms\n", (int) (st.st_size / MB),
           (int) s.entries, (now_us() - t) / 1000);

    close(fd);
    cache_close(&c);
}


int
main(int argc, char **argv)
{
    cache_t  c;

    dir_new(argc > 1 ? argv[1] : NULL);
    printf("%s\n", dir);

    cache_open(&c, 256 * MB);
    lookups(&c);
    writes(&c, 1);
    writes(&c, 16);
    writes(&c, 64);
    cache_close(&c);
    check();

    return 0;
}
