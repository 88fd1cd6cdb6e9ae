
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Many processes: writers killed in the middle, readers beside them, the
 * walk, the lock of a dead one.
 */


#include "store.h"


#define OLD    50                      /* entries that nobody writes again */
#define SIZE   (32 * MB)


static volatile int  *stop;


static size_t
len_of(int n)
{
    return (n % 8 == 0) ? 20000 : 200 + n % 900;
}


static int
writer(void *arg)
{
    int           i, k;
    item_t        t[16];
    cache_t       c;
    unsigned      seed;
    llm_entry_t  *e[16];

    seed = *(int *) arg;

    if (cache_open(&c, SIZE) != LLM_OK) {
        return 1;
    }

    for ( ;; ) {
        k = 1 + rand_r(&seed) % 16;

        for (i = 0; i < k; i++) {
            item_init(&t[i], OLD + rand_r(&seed) % 2000, 700);
            e[i] = &t[i].e;
        }

        if (llm_store_write(c.store, e, k) != LLM_OK) {
            return 2;
        }

        for (i = 0; i < k; i++) {
            item_free(&t[i]);
        }

        (void) llm_store_tend(c.store, now_ms());
    }
}


static int
reader(void *arg)
{
    int        i, bad;
    cache_t    c;
    llm_int_t  rc;

    if (cache_open(&c, SIZE) != LLM_OK) {
        return 1;
    }

    bad = 0;

    for (i = 0; !*stop; i++) {
        rc = get(&c, i % OLD, len_of(i % OLD));
        bad += (rc != LLM_OK);

        rc = get(&c, OLD + i % 2000, 700);
        bad += (rc != LLM_OK && rc != LLM_DECLINED);
    }

    cache_close(&c);

    return bad ? 3 : 0;
}


static llm_int_t
walk(void *ctx, const llm_entry_t *e)
{
    ++*(int *) ctx;

    return LLM_OK;
}


static int
walker(void *arg)
{
    int      n;
    cache_t  c;

    if (cache_open(&c, SIZE) != LLM_OK) {
        return 1;
    }

    while (!*stop) {
        n = 0;

        if (llm_store_walk(c.store, walk, &n) != LLM_OK || n < OLD) {
            return 2;
        }
    }

    cache_close(&c);

    return 0;
}


static pid_t
start(int (*fn)(void *arg), void *arg)
{
    pid_t  pid;

    fflush(stdout);
    pid = fork();

    if (pid == 0) {
        _exit(fn(arg));
    }

    return pid;
}


static int
result(pid_t pid)
{
    int  status;

    waitpid(pid, &status, 0);

    return WIFEXITED(status) ? WEXITSTATUS(status)
                             : 1000 + WTERMSIG(status);
}


static void
kills(cache_t *c, int n)
{
    int     i, k, lost, failed, ended;
    pid_t   pid[2];
    double  t, worst;

    lost = 0;
    failed = 0;
    ended = 0;
    worst = 0;

    for (i = 0; i < n; i++) {
        k = 2 * i;
        pid[0] = start(writer, &k);
        k++;
        pid[1] = start(writer, &k);

        usleep(3000 + rand() % 40000);

        for (k = 0; k < 2; k++) {
            kill(pid[k], SIGKILL);
            ended += (result(pid[k]) != 1000 + SIGKILL);
        }

        t = now_us();
        failed += (put(c, 100000 + i, 300) != LLM_OK);
        t = now_us() - t;
        worst = t > worst ? t : worst;

        failed += (get(c, 100000 + i, 300) != LLM_OK);

        for (k = 0; k < OLD; k++) {
            lost += (get(c, k, len_of(k)) != LLM_OK);
        }
    }

    is_int(ended, 0, "kill: writers wrote until then");
    is_int(failed, 0, "kill: the next write");
    is_int(lost, 0, "kill: what was there is there");
    ok(worst < 3e6, "kill: the lock is free at once");
    printf("# %d rounds, the slowest write after %.0f us\n", n, worst);
}


static void
after(cache_t *c)
{
    int               fd;
    llm_store_stat_t  st;
    llm_store_file_t  f;

    is_int(llm_store_tend(c->store, now_ms() + 20000), LLM_OK,
           "after: tend");
    llm_store_stat(c->store, &st);
    is_int(st.readers, 1, "after: no readers are left");
    is_int(shared->recreated, 0, "after: it is the same file");

    fd = open(file("data.mdb"), O_RDONLY);
    is_int(llm_store_check_head(fd, &f), LLM_OK, "after: head");
    is_int(llm_store_check(fd, f.txnid, &f), LLM_OK, "after: sound");

    if (f.why) {
        printf("# %s\n", f.why);
    }

    close(fd);
}


static void
readers(void)
{
    int    i, bad, seed;
    pid_t  r[6], w;

    *stop = 0;
    seed = 12345;
    w = start(writer, &seed);

    for (i = 0; i < 6; i++) {
        r[i] = start(i < 4 ? reader : walker, NULL);
    }

    usleep(rounds(1500000, 15000000));
    *stop = 1;
    bad = 0;

    for (i = 0; i < 6; i++) {
        bad += (result(r[i]) != 0);
    }

    is_int(bad, 0, "readers and walks beside a writer");
    kill(w, SIGKILL);
    is_int(result(w), 1000 + SIGKILL, "the writer, too");
}


static int
idle(void *arg)
{
    cache_t  c;

    if (cache_open(&c, SIZE) != LLM_OK || get(&c, 1, len_of(1)) != LLM_OK) {
        return 1;
    }

    while (!*stop) {
        usleep(1000);
    }

    if (get(&c, 2, len_of(2)) != LLM_OK) {
        return 2;
    }

    cache_close(&c);

    return 0;
}


static void
many(cache_t *c)
{
    int               i, bad;
    pid_t             pid[60];
    llm_store_stat_t  st;

    *stop = 0;

    for (i = 0; i < 60; i++) {
        pid[i] = start(idle, NULL);
    }

    for (i = 0; i < 500; i++) {
        usleep(20000);
        llm_store_stat(c->store, &st);

        if (st.readers >= 61) {
            break;
        }
    }

    ok(st.readers >= 61, "many readers: all have a slot");

    *stop = 1;
    bad = 0;

    for (i = 0; i < 60; i++) {
        bad += (result(pid[i]) != 0);
    }

    is_int(bad, 0, "many readers");
}


/* a stopped process may have the lock: readers do not care */

static void
stopped(cache_t *c)
{
    int    i, bad, seed;
    pid_t  w;

    bad = 0;

    for (i = 0; i < 20; i++) {
        seed = i;
        w = start(writer, &seed);
        usleep(10000 + i * 500);
        kill(w, SIGSTOP);
        bad += (get(c, 1, len_of(1)) != LLM_OK);
        kill(w, SIGKILL);
        bad += (result(w) != 1000 + SIGKILL);
    }

    is_int(bad, 0, "a stopped writer does not stop readers");
}


int
main(void)
{
    int      i;
    cache_t  c;

    dir_new(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    srand(1);

    stop = mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS,
                -1, 0);

    cache_open(&c, SIZE);

    for (i = 0; i < OLD; i++) {
        put(&c, i, len_of(i));
    }

    kills(&c, rounds(40, 200));
    readers();
    many(&c);
    stopped(&c);
    after(&c);

    cache_close(&c);

    return done();
}
