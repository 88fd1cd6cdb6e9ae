
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The file opened, mapped anew, found to be another one, closed.  Slow, one
 * process at a time: whoever opens has "open.lock" locked.
 *
 * LMDB's lock.mdb belongs to one data.mdb: it tells which snapshot of it is
 * the newest.  One that was left by another data file is removed; one that is
 * gone, or another, while its data file is still there, may be in use with
 * it, so that the data file can't be trusted any more.  Which two belong
 * together is written in open.lock.
 */


#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "llm_store_int.h"


/* not MDB_NOMEMINIT: it would write what the process had in its memory before,
 * keys perhaps, to unused parts of the file */

#define LLM_STORE_FLAGS  (MDB_NOTLS|MDB_NORDAHEAD|MDB_NOSYNC)

/* a file that is larger than it should be by now needs some room to be
 * emptied in */

#define LLM_STORE_SPARE  (512 * 1024)


/* in open.lock */

typedef struct {
    uint64_t               data;       /* inodes */
    uint64_t               lock;
} llm_store_pair_t;


typedef struct {
    int                    fd;         /* open.lock; -1: readonly without */
    int                    data;       /* data.mdb */
    int                    nolock;
    char                   why[256];   /* the data file can't be used */
    llm_store_pair_t       pair;
    llm_store_file_t       file;
} llm_store_open_t;


static llm_int_t llm_store_locked(llm_store_t *s, llm_store_open_t *o);
static llm_int_t llm_store_remap(llm_store_t *s);
static int llm_store_remap_locked(llm_store_t *s, void *data);
static llm_int_t llm_store_lock(llm_store_t *s, llm_store_open_t *o);
static void llm_store_unlock(llm_store_open_t *o);
static int llm_store_file(llm_store_t *s, llm_store_open_t *o);
static int llm_store_pair(llm_store_t *s, llm_store_open_t *o,
    const struct stat *data);
static void llm_store_pair_write(llm_store_t *s, llm_store_open_t *o);
static int llm_store_env(llm_store_t *s, llm_store_open_t *o);
static int llm_store_env_set(llm_store_t *s, MDB_env *env,
    llm_store_open_t *o);
static int llm_store_env_read(llm_store_t *s, void *data);
static int llm_store_sound(llm_store_t *s, llm_store_open_t *o);
static int llm_store_state(llm_store_t *s, llm_store_open_t *o);
static int llm_store_limit(llm_store_t *s, llm_store_open_t *o);


llm_int_t
llm_store_open(llm_store_t *s)
{
    llm_int_t         rc;
    llm_store_open_t  o;

    if (s->env) {
        if (llm_store_remap(s) == LLM_OK) {
            return LLM_OK;
        }

        if (__atomic_load_n(&s->bad, __ATOMIC_ACQUIRE) == LLM_STORE_CORRUPT
            && !llm_store_moved(s))
        {
            s->suspect++;
        }
    }

    memset(&o, 0, sizeof(llm_store_open_t));
    o.fd = -1;
    o.data = -1;

    rc = llm_store_lock(s, &o);

    if (rc == LLM_OK) {

        /* an environment is never open twice in a process */

        pthread_mutex_lock(&s->lock);
        llm_store_env_close(s);
        pthread_mutex_unlock(&s->lock);

        rc = llm_store_locked(s, &o);
    }

    llm_store_unlock(&o);

    return rc;
}


static llm_int_t
llm_store_locked(llm_store_t *s, llm_store_open_t *o)
{
    int         rc;
    llm_int_t   res;
    llm_uint_t  try;

    rc = 0;

    for (try = 0; try < 6; try++) {
        o->why[0] = '\0';
        rc = llm_store_file(s, o);

        if (o->data != -1) {
            close(o->data);
            o->data = -1;
        }

        if (rc == 0) {
            llm_store_pair_write(s, o);
            s->logged = 0;
            return LLM_OK;
        }

        if (rc == ENOENT && !s->conf->readonly) {
            rc = llm_store_fresh(s);

            if (rc) {
                break;
            }

            memset(&o->pair, 0, sizeof(llm_store_pair_t));

            continue;
        }

        if (rc == MDB_MAP_RESIZED) {
            continue;
        }

        if (!llm_store_is_bad(s, rc)) {
            break;
        }

        res = llm_store_aside(s, o->why);

        if (res != LLM_OK) {
            return res;
        }

        memset(&o->pair, 0, sizeof(llm_store_pair_t));
    }

    (void) llm_store_failed(s, rc ? rc : EAGAIN, "opening the cache");

    return LLM_DECLINED;
}


/* LLM_OK: what is open is good, or was made so */

static llm_int_t
llm_store_remap(llm_store_t *s)
{
    int  bad, rc;

    if (llm_store_moved(s)) {
        return LLM_ERROR;
    }

    bad = __atomic_load_n(&s->bad, __ATOMIC_ACQUIRE);

    if (!bad) {
        return LLM_OK;
    }

    if (!__atomic_load_n(&s->resized, __ATOMIC_ACQUIRE)) {
        return LLM_ERROR;
    }

    pthread_mutex_lock(&s->lock);

    rc = llm_store_call(s, llm_store_remap_locked, NULL);

    if (rc == 0) {
        __atomic_store_n(&s->resized, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&s->bad, 0, __ATOMIC_RELEASE);
    }

    pthread_mutex_unlock(&s->lock);

    return rc == 0 ? LLM_OK : LLM_ERROR;
}


static int
llm_store_remap_locked(llm_store_t *s, void *data)
{
    (void) data;

    return mdb_env_set_mapsize(s->env, 0);
}


int
llm_store_moved(llm_store_t *s)
{
    char         path[LLM_STORE_PATH];
    struct stat  st;

    if (llm_store_path(s, path, "data.mdb") != 0
        || stat(path, &st) != 0
        || st.st_ino != s->data.st_ino
        || st.st_dev != s->data.st_dev)
    {
        return 1;
    }

    if (s->lockfile.st_ino == 0) {
        return 0;
    }

    if (llm_store_path(s, path, "lock.mdb") != 0
        || stat(path, &st) != 0
        || st.st_ino != s->lockfile.st_ino)
    {
        return 1;
    }

    return 0;
}


/* open.lock, locked.  Whoever waited may have locked one that was removed by
 * then, with all else in the directory. */

static llm_int_t
llm_store_lock(llm_store_t *s, llm_store_open_t *o)
{
    int          flags;
    char         path[LLM_STORE_PATH];
    struct stat  st, now;

    flags = s->conf->readonly ? O_RDONLY : O_RDWR|O_CREAT;

    if (llm_store_path(s, path, "open.lock") != 0) {
        return llm_store_failed(s, ENAMETOOLONG, "opening the cache");
    }

    for ( ;; ) {
        o->fd = open(path, flags|O_CLOEXEC, 0600);

        if (o->fd == -1) {
            return (s->conf->readonly && errno == ENOENT)
                   ? LLM_OK
                   : (llm_store_failed(s, errno, "opening \"open.lock\""),
                      LLM_DECLINED);
        }

        while (flock(o->fd, LOCK_EX) != 0) {
            if (errno != EINTR) {
                (void) llm_store_failed(s, errno, "locking \"open.lock\"");
                return LLM_DECLINED;
            }
        }

        if (fstat(o->fd, &st) == 0 && stat(path, &now) == 0
            && st.st_ino == now.st_ino)
        {
            break;
        }

        close(o->fd);
        o->fd = -1;
    }

    if (pread(o->fd, &o->pair, sizeof(llm_store_pair_t), 0)
        != (ssize_t) sizeof(llm_store_pair_t))
    {
        memset(&o->pair, 0, sizeof(llm_store_pair_t));
    }

    return LLM_OK;
}


static void
llm_store_unlock(llm_store_open_t *o)
{
    if (o->fd != -1) {
        close(o->fd);
    }
}


/* Opens what is there.  0, ENOENT: nothing is there; else an error, with
 * o->why if the file is at fault. */

static int
llm_store_file(llm_store_t *s, llm_store_open_t *o)
{
    int          rc;
    char         path[LLM_STORE_PATH];
    struct stat  st;

    rc = llm_store_path(s, path, "data.mdb");
    if (rc) {
        return rc;
    }

    o->data = open(path, O_RDONLY|O_CLOEXEC);
    if (o->data == -1) {
        return errno;
    }

    if (fstat(o->data, &st) != 0) {
        return errno;
    }

    if (!S_ISREG(st.st_mode)) {
        return EISDIR;
    }

    rc = llm_store_pair(s, o, &st);
    if (rc) {
        return rc;
    }

    if (llm_store_check_head(o->data, &o->file) != LLM_OK) {
        snprintf(o->why, sizeof(o->why), "%s", o->file.why);
        return MDB_INVALID;
    }

    s->data = st;

    if (!s->conf->readonly) {
        rc = llm_store_secret(s);
        if (rc) {
            return rc;
        }

    } else {
        (void) llm_store_secret(s);
    }

    return llm_store_env(s, o);
}


static int
llm_store_pair(llm_store_t *s, llm_store_open_t *o, const struct stat *data)
{
    int          rc;
    char         path[LLM_STORE_PATH];
    struct stat  st;

    rc = llm_store_path(s, path, "lock.mdb");
    if (rc) {
        return rc;
    }

    if (stat(path, &st) != 0) {
        if (errno != ENOENT) {
            return errno;
        }

        st.st_ino = 0;
    }

    o->nolock = 0;

    if (o->pair.data == 0
        || (o->pair.data == data->st_ino && o->pair.lock == st.st_ino))
    {
        o->nolock = s->conf->readonly && st.st_ino == 0;
        return 0;
    }

    if (s->conf->readonly) {
        o->nolock = (o->pair.data != data->st_ino);
        return o->nolock ? 0 : EBUSY;
    }

    if (o->pair.data == data->st_ino) {
        snprintf(o->why, sizeof(o->why),
                 "its \"lock.mdb\" was removed or replaced");
        return MDB_INVALID;
    }

    if (unlink(path) != 0 && errno != ENOENT) {
        return errno;
    }

    return 0;
}


static void
llm_store_pair_write(llm_store_t *s, llm_store_open_t *o)
{
    llm_store_pair_t  pair;

    if (s->conf->readonly || o->fd == -1) {
        return;
    }

    pair.data = s->data.st_ino;
    pair.lock = s->lockfile.st_ino;

    if (memcmp(&pair, &o->pair, sizeof(llm_store_pair_t)) != 0) {

        /* with none written the two are believed to belong together */

        if (pwrite(o->fd, &pair, sizeof(llm_store_pair_t), 0)
            != (ssize_t) sizeof(llm_store_pair_t))
        {
            (void) !ftruncate(o->fd, 0);
        }
    }
}


static int
llm_store_env(llm_store_t *s, llm_store_open_t *o)
{
    int        rc;
    MDB_env   *env;
    unsigned   flags;
    uint64_t   size, want;

    rc = mdb_env_create(&env);
    if (rc) {
        return rc;
    }

    flags = LLM_STORE_FLAGS;
    flags |= s->conf->readonly ? MDB_RDONLY : 0;
    flags |= o->nolock ? MDB_NOLOCK : 0;

    mdb_env_set_assert(env, llm_store_assert);
    mdb_env_set_maxreaders(env, LLM_STORE_READERS);
    mdb_env_set_maxdbs(env, 2);

    want = s->conf->size ? llm_store_map(s->conf->size) : o->file.mapsize;

    size = (o->file.last + 1) * o->file.psize;

    if (size > want) {

        /* what it had before, if that was more than it is */

        want = o->file.mapsize > size ? o->file.mapsize
                                      : size + LLM_STORE_SPARE;
    }

    mdb_env_set_mapsize(env, want);

    rc = mdb_env_open(env, s->conf->path, flags, 0600);

    if (rc) {
        mdb_env_close(env);
        snprintf(o->why, sizeof(o->why), "%s", mdb_strerror(rc));
        return rc;
    }

    pthread_mutex_lock(&s->lock);

    rc = llm_store_env_set(s, env, o);

    pthread_mutex_unlock(&s->lock);

    return rc;
}


/* the lock is held: quick functions that come now say LLM_AGAIN */

static int
llm_store_env_set(llm_store_t *s, MDB_env *env, llm_store_open_t *o)
{
    int   rc;
    char  path[LLM_STORE_PATH];

    if (o->nolock
        || llm_store_path(s, path, "lock.mdb") != 0
        || stat(path, &s->lockfile) != 0)
    {
        memset(&s->lockfile, 0, sizeof(struct stat));
    }

    s->env = env;
    s->psize = o->file.psize;
    mdb_env_get_fd(env, &s->fd);

    rc = llm_store_call(s, llm_store_env_read, o);

    if (rc) {
        llm_store_env_close(s);

        if (o->why[0] == '\0') {
            snprintf(o->why, sizeof(o->why), "%s", mdb_strerror(rc));
        }

        return rc;
    }

    s->looked = llm_store_ticks();
    s->size = s->data.st_size;
    s->txnid = 0;
    s->purges.seq = UINT64_MAX;
    s->unsynced = 0;

    __atomic_store_n(&s->resized, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&s->bad, 0, __ATOMIC_RELEASE);

    return 0;
}


static int
llm_store_env_read(llm_store_t *s, void *data)
{
    int                rc;
    MDB_txn           *txn;
    llm_store_open_t  *o = data;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    rc = llm_store_sound(s, o);
    if (rc) {
        return rc;
    }

    rc = mdb_dbi_open(s->stxn, "meta", 0, &s->meta);

    if (rc == 0) {
        rc = mdb_dbi_open(s->stxn, "answers", 0, &s->answers);
    }

    if (rc == 0) {
        rc = llm_store_state(s, o);
    }

    if (rc == 0) {
        rc = llm_store_limit(s, o);
    }

    if (rc) {
        return rc;
    }

    /* the handles stay only if it is committed */

    txn = s->stxn;
    s->stxn = NULL;

    rc = mdb_txn_commit(txn);
    if (rc) {
        return rc;
    }

    rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->rtxn);
    if (rc) {
        s->rtxn = NULL;
        return rc;
    }

    mdb_txn_reset(s->rtxn);

    return 0;
}


/* once for a file, as long as nothing is wrong */

static int
llm_store_sound(llm_store_t *s, llm_store_open_t *o)
{
    llm_int_t            rc;
    llm_store_shared_t  *shared;

    shared = s->conf->shared;

    /* one that is shorter than its pages may have been cut */

    if (shared && s->suspect == 0
        && __atomic_load_n(&shared->checked, __ATOMIC_RELAXED)
           == s->data.st_ino
        && (uint64_t) s->data.st_size / o->file.psize > o->file.last)
    {
        return 0;
    }

    if (s->suspect > 1) {
        snprintf(o->why, sizeof(o->why), "it failed again");
        return MDB_CORRUPTED;
    }

    rc = llm_store_check(o->data, mdb_txn_id(s->stxn), &o->file);

    if (rc == LLM_DECLINED) {
        return ENOMEM;
    }

    if (rc != LLM_OK) {
        snprintf(o->why, sizeof(o->why), "%s", o->file.why);
        return MDB_CORRUPTED;
    }

    if (shared) {
        __atomic_store_n(&shared->checked, s->data.st_ino, __ATOMIC_RELAXED);
    }

    return 0;
}


static int
llm_store_limit(llm_store_t *s, llm_store_open_t *o)
{
    int       rc;
    uint64_t  size;

    rc = llm_store_meta_get(s, s->stxn, "limit", &s->noted, sizeof(uint64_t));

    if (rc == MDB_NOTFOUND) {
        s->noted = 0;
        rc = 0;
    }

    size = s->conf->size ? s->conf->size
           : s->noted ? s->noted : o->file.mapsize;

    if (size < LLM_STORE_MIN) {
        size = LLM_STORE_MIN;
    }

    s->limit = size / s->psize;

    return rc;
}


static int
llm_store_state(llm_store_t *s, llm_store_open_t *o)
{
    int                rc;
    llm_store_state_t  state;

    rc = llm_store_meta_get(s, s->stxn, "state", &state,
                            sizeof(llm_store_state_t));
    if (rc) {
        return rc;
    }

    if (state.layout != LLM_STORE_LAYOUT) {
        snprintf(o->why, sizeof(o->why), "its layout is %u, not %u",
                 state.layout, LLM_STORE_LAYOUT);
        return MDB_INCOMPATIBLE;
    }

    llm_store_boot(s);

    if (!state.clean && memcmp(state.boot, s->boot, LLM_STORE_BOOT) != 0) {
        snprintf(o->why, sizeof(o->why),
                 "the machine stopped before it was closed");
        return MDB_CORRUPTED;
    }

    return 0;
}


void
llm_store_env_close(llm_store_t *s)
{
    if (s->stxn) {
        llm_store_read_end(s);
    }

    llm_store_write_abort(s);

    if (s->rtxn) {
        mdb_txn_abort(s->rtxn);
        s->rtxn = NULL;
    }

    if (s->env) {
        mdb_env_close(s->env);
        s->env = NULL;
        s->fd = -1;
    }
}


void
llm_store_close(llm_store_t *s)
{
    int  rc;

    if (s->env == NULL) {
        return;
    }

    if (!s->conf->readonly && !__atomic_load_n(&s->bad, __ATOMIC_ACQUIRE)
        && !llm_store_moved(s))
    {
        rc = llm_store_call(s, llm_store_clean, NULL);

        if (rc) {
            (void) llm_store_failed(s, rc, "closing the cache");
        }
    }

    pthread_mutex_lock(&s->lock);
    llm_store_env_close(s);
    pthread_mutex_unlock(&s->lock);
}
