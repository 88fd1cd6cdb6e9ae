
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A disk that is full or broken: the calls by which LMDB writes are this
 * file's, and fail when told to.
 */


#include <sys/syscall.h>
#include <sys/uio.h>

#include "store.h"


static int  fail;                      /* the errno, or 0 */
static int  after;                     /* calls that go well before */
static int  calls;


static int
failing(void)
{
    calls++;

    if (fail == 0 || after-- > 0) {
        return 0;
    }

    errno = fail;

    return 1;
}


ssize_t
pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return failing() ? -1 : syscall(SYS_pwrite64, fd, buf, n, offset);
}


ssize_t
pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
    return failing() ? -1 : syscall(SYS_pwrite64, fd, buf, n, offset);
}


ssize_t
writev(int fd, const struct iovec *iov, int n)
{
    return failing() ? -1 : syscall(SYS_writev, fd, iov, n);
}


int
fdatasync(int fd)
{
    return failing() ? -1 : syscall(SYS_fdatasync, fd);
}


static void
set(int err, int n)
{
    fail = err;
    after = n;
    calls = 0;
}


static int
lines(const char *text)
{
    int          n;
    const char  *p;

    n = 0;

    for (p = logged; (p = strstr(p, text)) != NULL; p++) {
        n++;
    }

    return n;
}


static void
full(cache_t *c)
{
    int        i, k, bad;
    llm_int_t  rc;

    is_int(put(c, 1, 1000), LLM_OK, "before");
    ok(calls > 0, "its calls are ours");

    set(ENOSPC, 0);
    bad = 0;

    for (i = 0; i < 10; i++) {
        bad += (put(c, 2, 1000) != LLM_DECLINED);
        bad += (get(c, 1, 1000) != LLM_OK);
    }

    is_int(bad, 0, "full: declined, and readers go on");
    ok(shared->errors == 10 && shared->dropped == 10, "full: counted");
    is_int(lines("No space left"), 1, "full: logged once");

    set(0, 0);
    is_int(put(c, 2, 1000), LLM_OK, "full: it goes on at once");
    is_int(get(c, 2, 1000), LLM_OK, "full: is there");

    /* each call of a transaction in its turn */

    for (i = 0; i < 8; i++) {
        set(i % 2 ? ENOSPC : EIO, i / 2);
        rc = put(c, 3, 30000);
        set(0, 0);
        bad += (rc != LLM_OK && rc != LLM_DECLINED && rc != LLM_ERROR);

        /* the last one fails LMDB's environment */

        if (rc == LLM_ERROR || get(c, 1, 1000) == LLM_ERROR) {
            bad += (llm_store_open(c->store) != LLM_OK);
        }

        for (k = 1; k < 3; k++) {
            bad += (get(c, k, 1000) != LLM_OK);
        }

        bad += (put(c, 4 + i, 30000) != LLM_OK);
        bad += (get(c, 4 + i, 30000) != LLM_OK);
    }

    is_int(bad, 0, "full: at each call");
    is_int(shared->recreated, 0, "full: the same file");
}


static void
syncs(cache_t *c)
{
    put(c, 1, 1000);
    set(EIO, 0);
    ok(llm_store_tend(c->store, now_ms() + 20000) != LLM_OK,
       "sync: fails");
    set(0, 0);

    is_int(llm_store_open(c->store), LLM_OK, "sync: open");
    is_int(put(c, 1, 1000), LLM_OK, "sync: it goes on");
    is_int(get(c, 1, 1000), LLM_OK, "sync: is there");
}


static void
create(void)
{
    int        i, bad;
    cache_t    c;
    llm_int_t  rc;

    bad = 0;

    for (i = 0; i < 12; i++) {
        dir_empty();
        memset(shared, 0, sizeof(llm_store_shared_t));
        cache_init(&c, 4 * MB);
        set(ENOSPC, i);
        rc = llm_store_open(c.store);
        set(0, 0);
        bad += (rc != LLM_OK && rc != LLM_DECLINED);
        bad += (i == 0 && rc != LLM_DECLINED);
        bad += (llm_store_open(c.store) != LLM_OK);
        bad += (put(&c, 1, 1000) != LLM_OK);
        bad += (get(&c, 1, 1000) != LLM_OK);
        bad += (shared->recreated != 0);
        cache_close(&c);
    }

    is_int(bad, 0, "create: at each call");
}


static void
closing(void)
{
    int      i, bad;
    cache_t  c;

    bad = 0;

    for (i = 0; i < 6; i++) {
        bad += (cache_open(&c, 4 * MB) != LLM_OK);
        bad += (put(&c, 2, 1000) != LLM_OK);
        set(EIO, i);
        cache_close(&c);
        set(0, 0);
        bad += (cache_open(&c, 4 * MB) != LLM_OK);
        bad += (get(&c, 2, 1000) != LLM_OK);
        cache_close(&c);
    }

    is_int(bad, 0, "close: at each call");
}


int
main(void)
{
    cache_t  c;

    dir_new(NULL);
    is_int(cache_open(&c, 4 * MB), LLM_OK, "open");

    full(&c);
    syncs(&c);
    cache_close(&c);

    create();
    closing();

    return done();
}
