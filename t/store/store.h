
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the tests of the store share: a directory of their own, a store in
 * it, entries by number.
 */


#ifndef _STORE_H_INCLUDED_
#define _STORE_H_INCLUDED_


#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "run.h"
#include "llm_store_int.h"


#define MB  (1024 * 1024)

static char                 dir[PATH_MAX];
static char                 logged[8192];      /* lines of errors */
static llm_store_shared_t  *shared;


typedef struct {
    llm_store_conf_t       conf;
    llm_store_t           *store;
} cache_t;


__attribute__((unused))
static uint64_t
now_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


__attribute__((unused))
static double
now_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}


__attribute__((unused))
static int
rounds(int quick, int full)
{
    return getenv("LLM_STORE_LONG") ? full : quick;
}


__attribute__((unused))
static void
dir_empty(void)
{
    DIR            *d;
    char            path[PATH_MAX * 2];
    struct dirent  *e;

    d = opendir(dir);

    while (d && (e = readdir(d)) != NULL) {
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        unlink(path);
    }

    if (d) {
        closedir(d);
    }
}


static void
dir_remove(void)
{
    dir_empty();
    rmdir(dir);
}


static pid_t  dir_owner;


static void
dir_exit(void)
{
    if (getpid() == dir_owner) {
        dir_remove();
    }
}


__attribute__((unused))
static void
dir_new(const char *base)
{
    snprintf(dir, sizeof(dir), "%s/llm_store.XXXXXX",
             base ? base : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");

    if (mkdtemp(dir) == NULL) {
        perror(dir);
        exit(1);
    }

    dir_owner = getpid();
    atexit(dir_exit);

    shared = mmap(NULL, sizeof(llm_store_shared_t), PROT_READ|PROT_WRITE,
                  MAP_SHARED|MAP_ANONYMOUS, -1, 0);
}


/* files whose names begin so */

__attribute__((unused))
static int
dir_count(const char *prefix)
{
    int             n;
    DIR            *d;
    struct dirent  *e;

    n = 0;
    d = opendir(dir);

    while (d && (e = readdir(d)) != NULL) {
        n += (strncmp(e->d_name, prefix, strlen(prefix)) == 0);
    }

    if (d) {
        closedir(d);
    }

    return n;
}


__attribute__((unused))
static const char *
file(const char *name)
{
    static char  path[PATH_MAX * 2];

    snprintf(path, sizeof(path), "%s/%s", dir, name);

    return path;
}


static void
cache_log(void *ctx, llm_uint_t level, int err, const char *text)
{
    size_t  len;

    len = strlen(logged);

    snprintf(logged + len, sizeof(logged) - len, "%s%s%s\n", text,
             err ? ": " : "", err ? strerror(err) : "");

    if (len + 1 < sizeof(logged)) {
        printf("# log: %s", logged + len);
    }
}


__attribute__((unused))
static void
cache_init(cache_t *c, uint64_t size)
{
    memset(c, 0, sizeof(cache_t));

    c->conf.path = dir;
    c->conf.size = size;
    c->conf.shared = shared;
    c->conf.log = cache_log;

    c->store = llm_store_create(&c->conf);
}


__attribute__((unused))
static llm_int_t
cache_open(cache_t *c, uint64_t size)
{
    cache_init(c, size);

    return llm_store_open(c->store);
}


__attribute__((unused))
static void
cache_close(cache_t *c)
{
    llm_store_close(c->store);
    llm_store_free(c->store);
}


/* an entry by number: all of it follows from the number and the length */

typedef struct {
    llm_entry_t            e;
    char                   scope[64];
    char                   model[64];
    llm_run_t              runs[3];
    u_char                *text;
} item_t;


static llm_str_t
str(const char *s)
{
    llm_str_t  r;

    r.data = (u_char *) s;
    r.len = strlen(s);

    return r;
}


__attribute__((unused))
static void
item_key(u_char *key, int n)
{
    char       buf[64], scope[64];
    llm_str_t  material, text;

    snprintf(scope, sizeof(scope), "user u%d", n % 10);
    snprintf(buf, sizeof(buf), "{\"n\":%d}", n);

    material = str(buf);
    text = str(scope);

    if (llm_store_key(key, &text, &material) != LLM_OK) {
        abort();
    }
}


__attribute__((unused))
static void
item_init(item_t *t, int n, size_t len)
{
    size_t     i;
    uint32_t   x;

    memset(t, 0, sizeof(item_t));

    item_key(t->e.key, n);

    snprintf(t->scope, sizeof(t->scope), "user u%d", n % 10);
    snprintf(t->model, sizeof(t->model), "model-%d", n % 7);

    t->text = malloc(len + 1);
    x = n * 2654435761u + 1;

    for (i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        t->text[i] = x >> 24;
    }

    t->runs[0].len = len / 2;
    t->runs[1].len = len - len / 2;
    t->runs[1].flags = LLM_RUN_HIDDEN;

    t->e.begun = now_ms();
    t->e.made = t->e.begun;
    t->e.ttl = 3600;
    t->e.stale = 60;
    t->e.flags = LLM_ENTRY_STREAM|LLM_ENTRY_COST;
    t->e.cost = n * 1000ULL;
    t->e.usage.prompt = n;
    t->e.usage.completion = n + 1;
    t->e.usage.cached = 3;
    t->e.usage.cache_write = 4;
    t->e.usage.reasoning = 5;
    t->e.usage.known = 0x1f;
    t->e.dialect = str("openai");
    t->e.endpoint = str("chat/completions");
    t->e.provider = str("mock");
    t->e.model = str("provider-model");
    t->e.asked = str(t->model);
    t->e.scope = str(t->scope);
    t->e.content_type = str("text/event-stream");
    t->e.finish_reason = str("stop");
    t->e.request = str("{\"layout\":1}");
    t->e.text.data = t->text;
    t->e.text.len = len;
    t->e.runs = t->runs;
    t->e.nruns = 2;
}


static void
item_free(item_t *t)
{
    free(t->text);
}


__attribute__((unused))
static llm_int_t
put(cache_t *c, int n, size_t len)
{
    item_t        t;
    llm_int_t     rc;
    llm_entry_t  *e;

    item_init(&t, n, len);
    e = &t.e;
    rc = llm_store_write(c->store, &e, 1);
    item_free(&t);

    return rc;
}


/* LLM_OK: it is there, and as item_init() made it */

__attribute__((unused))
static llm_int_t
get(cache_t *c, int n, size_t len)
{
    item_t       t;
    u_char       key[LLM_KEY_LEN];
    llm_int_t    rc;
    llm_entry_t  e;

    item_key(key, n);
    rc = llm_store_get(c->store, key, &e);

    if (rc == LLM_OK) {
        item_init(&t, n, len);

        if (e.text.len != len || memcmp(e.text.data, t.text, len) != 0
            || e.cost != t.e.cost)
        {
            rc = LLM_DONE;
        }

        item_free(&t);
    }

    llm_store_release(c->store);

    return rc;
}


/* runs fn in a process of its own; what it returned */

__attribute__((unused))
static int
in_child(int (*fn)(void *arg), void *arg)
{
    int    status;
    pid_t  pid;

    fflush(stdout);
    pid = fork();

    if (pid == 0) {
        _exit(fn(arg));
    }

    waitpid(pid, &status, 0);

    return WIFEXITED(status) ? WEXITSTATUS(status)
                             : 1000 + WTERMSIG(status);
}


#endif /* _STORE_H_INCLUDED_ */
