
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What is found when it is opened: another start of the machine, another
 * layout, files removed or replaced, another process' work, other sizes, a
 * directory that can't be written.
 */


#include "store.h"


static void
boot_set(cache_t *c, const char *id)
{
    FILE  *f;

    static char  path[PATH_MAX * 2];

    snprintf(path, sizeof(path), "%s/boot", dir);
    f = fopen(path, "w");
    fputs(id, f);
    fclose(f);

    c->store->boot_path = path;
}


static void
fresh(void)
{
    dir_empty();
    memset(shared, 0, sizeof(llm_store_shared_t));
    logged[0] = '\0';
}


/* opened, written by a process that does not close it */

static int
crash(void *arg)
{
    cache_t  c;

    cache_init(&c, 4 * MB);
    boot_set(&c, "boot-1");

    if (llm_store_open(c.store) != LLM_OK || put(&c, 1, 1000) != LLM_OK) {
        return 1;
    }

    _exit(0);
}


static void
boots(void)
{
    cache_t  c;

    fresh();
    cache_init(&c, 4 * MB);
    boot_set(&c, "boot-1");
    is_int(llm_store_open(c.store), LLM_OK, "boot: created");
    put(&c, 1, 1000);
    cache_close(&c);

    cache_init(&c, 4 * MB);
    boot_set(&c, "boot-2");
    is_int(llm_store_open(c.store), LLM_OK, "boot: another, closed before");
    is_int(get(&c, 1, 1000), LLM_OK, "boot: is there");
    is_int(shared->recreated, 0, "boot: the same file");
    cache_close(&c);

    is_int(in_child(crash, NULL), 0, "boot: a process that ends");
    cache_init(&c, 4 * MB);
    boot_set(&c, "boot-1");
    is_int(llm_store_open(c.store), LLM_OK, "boot: the same");
    is_int(get(&c, 1, 1000), LLM_OK, "boot: is there, too");
    is_int(shared->recreated, 0, "boot: still the same file");

    /* opened, not written: not closed for that */

    llm_store_env_close(c.store);
    llm_store_free(c.store);

    cache_init(&c, 4 * MB);
    boot_set(&c, "boot-3");
    is_int(llm_store_open(c.store), LLM_OK, "boot: another, not closed");
    is_int(get(&c, 1, 1000), LLM_DECLINED, "boot: is not there");
    is_int(shared->recreated, 1, "boot: begun anew");
    ok(strstr(logged, "machine stopped") != NULL, "boot: said so");
    is_int(dir_count("data.mdb.bad-"), 1, "boot: put aside");
    cache_close(&c);
}


static void
layout(void)
{
    cache_t            c;
    llm_store_state_t  state;

    fresh();
    cache_open(&c, 4 * MB);
    put(&c, 1, 1000);

    if (llm_store_write_begin(c.store) != 0) {
        exit(1);
    }

    llm_store_meta_get(c.store, c.store->wtxn, "state", &state,
                       sizeof(llm_store_state_t));
    state.layout = 999;
    llm_store_meta_put(c.store, c.store->wtxn, "state", &state,
                       sizeof(llm_store_state_t));
    llm_store_write_end(c.store);
    llm_store_env_close(c.store);
    llm_store_free(c.store);

    is_int(cache_open(&c, 4 * MB), LLM_OK, "layout: open");
    is_int(shared->recreated, 1, "layout: begun anew");
    ok(strstr(logged, "layout is 999") != NULL, "layout: said so");
    is_int(put(&c, 1, 1000), LLM_OK, "layout: works");
    cache_close(&c);
}


static void
write_file(const char *name, const char *text)
{
    FILE  *f;

    f = fopen(file(name), "w");
    fputs(text, f);
    fclose(f);
}


static void
garbage(void)
{
    cache_t  c;

    fresh();
    write_file("data.mdb", "");
    is_int(cache_open(&c, 4 * MB), LLM_OK, "empty file");
    is_int(shared->recreated, 1, "empty file: begun anew");
    cache_close(&c);

    write_file("data.mdb", "this is not a file of LMDB, but a text");
    write_file("lock.mdb", "nor is this");
    is_int(cache_open(&c, 4 * MB), LLM_OK, "text");
    is_int(put(&c, 1, 1000), LLM_OK, "text: works");
    is_int(get(&c, 1, 1000), LLM_OK, "text: works");
    is_int(dir_count("data.mdb.bad-"), 1, "text: one is kept");
    cache_close(&c);

    /* left by a process killed while it created */

    write_file("data.new", "half");
    write_file("data.new-lock", "half");
    write_file("secret.new", "half");
    unlink(file("data.mdb"));
    unlink(file("secret"));
    is_int(cache_open(&c, 4 * MB), LLM_OK, "left-overs");
    is_int(put(&c, 1, 1000), LLM_OK, "left-overs: works");
    is_int(dir_count("data.new"), 0, "left-overs: gone");
    is_int(dir_count("secret.new"), 0, "left-overs: secret.new gone");
    cache_close(&c);

    write_file("secret", "short");
    is_int(cache_open(&c, 4 * MB), LLM_OK, "secret: short");
    is_int(put(&c, 1, 1000), LLM_OK, "secret: works");
    cache_close(&c);
}


static void
replaced(void)
{
    u_char   key[LLM_KEY_LEN], id[2][LLM_ID_LEN];
    cache_t  c;

    fresh();
    cache_open(&c, 4 * MB);
    put(&c, 1, 1000);
    item_key(key, 1);
    llm_store_id(c.store, key, id[0]);
    is_int(get(&c, 1, 1000), LLM_OK, "removed: before");

    dir_empty();
    is_int(get(&c, 1, 1000), LLM_ERROR, "removed: all of it");
    is_int(put(&c, 2, 1000), LLM_ERROR, "removed: write");
    is_int(llm_store_tend(c.store, now_ms()), LLM_ERROR, "removed: tend");
    is_int(llm_store_open(c.store), LLM_OK, "removed: open");
    is_int(put(&c, 1, 1000), LLM_OK, "removed: write again");
    is_int(get(&c, 1, 1000), LLM_OK, "removed: works");
    llm_store_id(c.store, key, id[1]);
    ok(memcmp(id[0], id[1], LLM_ID_LEN) != 0, "removed: a new secret");

    /* renamed: found a while after */

    rename(file("data.mdb"), "/dev/null/none");
    is_int(get(&c, 1, 1000), LLM_OK, "renamed: not at all");

    {
        char  from[PATH_MAX * 2];

        snprintf(from, sizeof(from), "%s", file("data.mdb"));
        rename(from, file("data.old"));
        usleep(300000);
        is_int(get(&c, 1, 1000), LLM_ERROR, "renamed: get");
        is_int(llm_store_open(c.store), LLM_OK, "renamed: open");
        is_int(get(&c, 1, 1000), LLM_DECLINED, "renamed: a new one");

        /* and back: its lock file is another one's by now */

        snprintf(from, sizeof(from), "%s", file("data.old"));
        rename(from, file("data.mdb"));
        is_int(llm_store_open(c.store), LLM_OK, "back: open");
        is_int(get(&c, 1, 1000), LLM_OK, "back: the old one");
        is_int(put(&c, 3, 1000), LLM_OK, "back: works");
    }

    unlink(file("lock.mdb"));
    usleep(300000);
    is_int(get(&c, 1, 1000), LLM_ERROR, "no lock.mdb: get");
    is_int(llm_store_open(c.store), LLM_OK, "no lock.mdb: open");
    is_int(get(&c, 1, 1000), LLM_DECLINED, "no lock.mdb: begun anew");
    is_int(put(&c, 1, 1000), LLM_OK, "no lock.mdb: works");
    cache_close(&c);
}


/* another process puts the file aside and begins anew */

static int
aside(void *arg)
{
    int      fd;
    cache_t  c;

    fd = open(file("data.mdb"), O_WRONLY);

    if (pwrite(fd, "damaged", 7, 16) != 7 || close(fd) != 0) {
        return 1;
    }

    shared->checked = 0;

    if (cache_open(&c, 4 * MB) != LLM_OK || put(&c, 9, 1000) != LLM_OK) {
        return 2;
    }

    cache_close(&c);

    return 0;
}


static void
other(void)
{
    cache_t  c;

    fresh();
    cache_open(&c, 4 * MB);
    put(&c, 1, 1000);
    is_int(get(&c, 1, 1000), LLM_OK, "other: before");
    is_int(in_child(aside, NULL), 0, "other: puts it aside");
    is_int(shared->recreated, 1, "other: begun anew");
    usleep(300000);
    is_int(get(&c, 1, 1000), LLM_ERROR, "other: seen");
    is_int(llm_store_open(c.store), LLM_OK, "other: open");
    is_int(get(&c, 9, 1000), LLM_OK, "other: its entry");
    is_int(shared->recreated, 1, "other: once");
    cache_close(&c);
}


static int
larger(void *arg)
{
    int      i, bad;
    cache_t  c;

    bad = (cache_open(&c, 64 * MB) != LLM_OK);

    for (i = 100; i < 200; i++) {
        bad += (put(&c, i, 200000) != LLM_OK);
    }

    cache_close(&c);

    return bad != 0;
}


static void
sizes(void)
{
    int        i, bad;
    cache_t    c;
    llm_int_t  rc;

    fresh();
    cache_open(&c, 4 * MB);
    put(&c, 1, 1000);
    is_int(get(&c, 1, 1000), LLM_OK, "sizes: before");
    is_int(in_child(larger, NULL), 0, "sizes: another has more room");
    is_int(get(&c, 1, 1000), LLM_ERROR, "sizes: get");
    is_int(llm_store_open(c.store), LLM_OK, "sizes: open");
    is_int(get(&c, 1, 1000), LLM_OK, "sizes: is there");
    is_int(get(&c, 150, 200000), LLM_OK, "sizes: the other's, too");

    bad = 0;

    for (i = 0; i < 300; i++) {
        rc = llm_store_tend(c.store, now_ms());
        bad += (rc != LLM_OK && rc != LLM_AGAIN);
        bad += (put(&c, 1000 + i, 2000) != LLM_OK);
    }

    is_int(bad, 0, "sizes: written");
    is_int(get(&c, 1299, 2000), LLM_OK, "sizes: works");
    is_int(shared->recreated, 0, "sizes: the same file");
    cache_close(&c);

    is_int(cache_open(&c, 128 * MB), LLM_OK, "sizes: more after a reload");
    is_int(put(&c, 1, 1000), LLM_OK, "sizes: more, write");
    is_int(get(&c, 1, 1000), LLM_OK, "sizes: more, get");
    cache_close(&c);
}


static int
denied(void *arg)
{
    int      i;
    cache_t  c;

    if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) {
        return 1;
    }

    logged[0] = '\0';
    cache_init(&c, 4 * MB);

    for (i = 0; i < 3; i++) {
        if (llm_store_open(c.store) != LLM_DECLINED) {
            return 2;
        }
    }

    if (put(&c, 1, 10) != LLM_ERROR || get(&c, 1, 10) != LLM_AGAIN) {
        return 3;
    }

    llm_store_free(c.store);

    if (strstr(logged, "denied") == NULL
        || strstr(strstr(logged, "denied") + 1, "denied") != NULL)
    {
        return 4;
    }

    return 0;
}


static void
rights(void)
{
    cache_t  c;

    fresh();
    chmod(dir, 0555);
    is_int(in_child(denied, NULL), 0, "rights: a directory");
    chmod(dir, 0755);

    cache_open(&c, 4 * MB);
    put(&c, 1, 1000);
    is_int(in_child(denied, NULL), 0, "rights: files");
    is_int(get(&c, 1, 1000), LLM_OK, "rights: nothing changed");
    cache_close(&c);

    cache_init(&c, 4 * MB);
    c.conf.path = "/nonexistent/dir";
    is_int(llm_store_open(c.store), LLM_DECLINED, "rights: no directory");
    llm_store_free(c.store);
}


/* a process that starts with others opening at once */

static int
opener(void *arg)
{
    int      i, bad;
    cache_t  c;
    u_char   key[LLM_KEY_LEN], id[LLM_ID_LEN];

    bad = (cache_open(&c, 4 * MB) != LLM_OK);
    fflush(stdout);
    item_key(key, 1);
    bad += (llm_store_id(c.store, key, id) != LLM_OK);

    for (i = 0; i < 20; i++) {
        bad += (put(&c, getpid() % 1000 * 100 + i, 300) != LLM_OK);
    }

    /* the secret is one */

    memcpy(arg, id, LLM_ID_LEN);
    cache_close(&c);

    return bad != 0;
}


static void
together(void)
{
    int               i, k, bad, status;
    pid_t             pid[8];
    u_char           *ids;
    cache_t           c;
    llm_store_stat_t  st;

    ids = mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS,
               -1, 0);
    bad = 0;

    for (k = 0; k < rounds(5, 50); k++) {
        fresh();
        fflush(stdout);

        for (i = 0; i < 8; i++) {
            pid[i] = fork();

            if (pid[i] == 0) {
                _exit(opener(ids + i * LLM_ID_LEN));
            }
        }

        for (i = 0; i < 8; i++) {
            waitpid(pid[i], &status, 0);

            if (status || memcmp(ids, ids + i * LLM_ID_LEN, LLM_ID_LEN) != 0) {
                printf("# process %d: %x\n", i, status);
                bad++;
            }
        }

        bad += (cache_open(&c, 4 * MB) != LLM_OK);
        bad += (llm_store_stat(c.store, &st) != LLM_OK);
        bad += (st.entries != 160);
        bad += (shared->recreated != 0);

        if (bad) {
            printf("# %d entries, %d times anew\n", (int) st.entries,
                   (int) shared->recreated);
        }

        cache_close(&c);
    }

    is_int(bad, 0, "together: eight create it, and write");
}


/* quick functions in one thread, slow ones in another that reopens */

static int  over;


static void *
slow(void *arg)
{
    int       i;
    cache_t  *c = arg;

    for (i = 0; i < 300; i++) {
        put(c, i % 20, 400);
        (void) llm_store_tend(c->store, now_ms());

        if (i % 10 == 0) {
            llm_store_close(c->store);
        }

        (void) llm_store_open(c->store);
    }

    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);

    return NULL;
}


static void
threads(void)
{
    int               n[6], i;
    u_char            key[LLM_KEY_LEN], id[LLM_ID_LEN];
    cache_t           c;
    pthread_t         t;
    llm_store_stat_t  st;

    fresh();
    cache_open(&c, 4 * MB);
    memset(n, 0, sizeof(n));
    item_key(key, 1);

    pthread_create(&t, NULL, slow, &c);

    for (i = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); i++) {
        n[-get(&c, i % 20, 400)]++;
        (void) llm_store_stat(c.store, &st);
        (void) llm_store_id(c.store, key, id);
    }

    pthread_join(t, NULL);

    is_int(n[-LLM_ERROR] + n[-LLM_DONE], 0, "threads: no error, all whole");
    ok(n[-LLM_OK] > 0, "threads: hits");
    cache_close(&c);
}


int
main(void)
{
    dir_new(NULL);
    chmod(dir, 0755);

    boots();
    layout();
    garbage();
    replaced();
    other();
    sizes();
    rights();
    together();
    threads();

    return done();
}
