
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The files of the directory: opened, created, put aside, closed.  Slow, one
 * process at a time: whoever opens has "open.lock" locked.
 *
 * LMDB's lock.mdb belongs to one data.mdb: it tells which snapshot of it is
 * the newest.  One that was left by another data file is removed; one that is
 * gone, or another, while its data file is still there, may be in use with
 * it, so that the data file can't be trusted any more.  Which two belong
 * together is written in open.lock.
 */


#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/rand.h>

#include "llm_store_int.h"


#define LLM_STORE_FLAGS  (MDB_NOTLS|MDB_NORDAHEAD|MDB_NOMEMINIT|MDB_NOSYNC)
#define LLM_STORE_BAD    "data.mdb.bad-"

/* a file that is larger than it should be by now needs some room to be
 * emptied in */

#define LLM_STORE_SLACK  (4 * 1024 * 1024)


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
static int llm_store_env_read(llm_store_t *s, void *data);
static int llm_store_sound(llm_store_t *s, llm_store_open_t *o);
static int llm_store_state(llm_store_t *s, llm_store_open_t *o);
static int llm_store_fresh(llm_store_t *s, llm_store_open_t *o);
static int llm_store_fresh_env(llm_store_t *s, void *data);
static llm_int_t llm_store_aside(llm_store_t *s, llm_store_open_t *o);
static void llm_store_aside_old(llm_store_t *s, const char *keep);
static int llm_store_secret(llm_store_t *s);
static int llm_store_secret_new(llm_store_t *s, const char *path);
static EVP_MAC_CTX *llm_store_mac_new(const u_char *secret);
static void llm_store_boot(llm_store_t *s);
static int llm_store_clean(llm_store_t *s, void *data);


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
            rc = llm_store_fresh(s, o);

            if (rc) {
                break;
            }

            continue;
        }

        if (rc == MDB_MAP_RESIZED) {
            continue;
        }

        if (!llm_store_is_bad(s, rc)) {
            break;
        }

        res = llm_store_aside(s, o);

        if (res != LLM_OK) {
            return res;
        }
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
    char       path[LLM_STORE_PATH];
    MDB_env   *env;
    unsigned   flags;
    uint64_t   size;

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

    size = (o->file.last + 1) * o->file.psize + LLM_STORE_SLACK;
    mdb_env_set_mapsize(env, size > s->conf->size ? size : s->conf->size);

    rc = mdb_env_open(env, s->conf->path, flags, 0600);

    if (rc) {
        mdb_env_close(env);
        snprintf(o->why, sizeof(o->why), "%s", mdb_strerror(rc));
        return rc;
    }

    pthread_mutex_lock(&s->lock);

    memset(&s->lockfile, 0, sizeof(struct stat));

    if (!o->nolock
        && (llm_store_path(s, path, "lock.mdb") != 0
            || stat(path, &s->lockfile) != 0))
    {
        memset(&s->lockfile, 0, sizeof(struct stat));
    }

    s->env = env;
    s->psize = o->file.psize;
    s->limit = s->conf->size / s->psize;
    mdb_env_get_fd(env, &s->fd);

    rc = llm_store_call(s, llm_store_env_read, o);

    if (rc) {
        llm_store_env_close(s);

        if (o->why[0] == '\0') {
            snprintf(o->why, sizeof(o->why), "%s", mdb_strerror(rc));
        }

    } else {
        s->looked = llm_store_ticks();
        s->size = s->data.st_size;
        s->txnid = 0;
        s->purges.seq = UINT64_MAX;
        s->wrote = 0;
        s->unsynced = 0;

        __atomic_store_n(&s->resized, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&s->bad, 0, __ATOMIC_RELEASE);
    }

    pthread_mutex_unlock(&s->lock);

    return rc;
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


/* a new file gets its name when it is whole */

static int
llm_store_fresh(llm_store_t *s, llm_store_open_t *o)
{
    int          rc;
    char         tmp[LLM_STORE_PATH], lock[LLM_STORE_PATH];
    char         path[LLM_STORE_PATH];
    MDB_env     *env;
    struct stat  st;

    if (llm_store_path(s, tmp, "data.new") != 0
        || llm_store_path(s, lock, "data.new-lock") != 0
        || llm_store_path(s, path, "lock.mdb") != 0)
    {
        return ENAMETOOLONG;
    }

    unlink(tmp);
    unlink(lock);

    rc = mdb_env_create(&env);
    if (rc) {
        return rc;
    }

    mdb_env_set_assert(env, llm_store_assert);
    mdb_env_set_maxdbs(env, 2);
    mdb_env_set_mapsize(env, s->conf->size);

    rc = mdb_env_open(env, tmp, MDB_NOSUBDIR|MDB_NOTLS, 0600);

    if (rc == 0) {
        rc = llm_store_call(s, llm_store_fresh_env, env);
    }

    mdb_env_close(env);
    unlink(lock);

    if (rc) {
        unlink(tmp);
        return rc;
    }

    unlink(path);

    if (llm_store_path(s, path, "data.mdb") != 0 || stat(tmp, &st) != 0
        || rename(tmp, path) != 0)
    {
        rc = errno;
        unlink(tmp);
        return rc;
    }

    memset(&o->pair, 0, sizeof(llm_store_pair_t));
    s->suspect = 0;

    if (s->conf->shared) {
        __atomic_store_n(&s->conf->shared->checked, st.st_ino,
                         __ATOMIC_RELAXED);
    }

    return 0;
}


static int
llm_store_fresh_env(llm_store_t *s, void *data)
{
    int                rc;
    MDB_dbi            meta, answers;
    MDB_env           *env = data;
    MDB_txn           *txn;
    MDB_val            key, value;
    llm_store_state_t  state;

    llm_store_boot(s);

    memset(&state, 0, sizeof(llm_store_state_t));
    state.layout = LLM_STORE_LAYOUT;
    memcpy(state.boot, s->boot, LLM_STORE_BOOT);

    key.mv_data = (void *) "state";
    key.mv_size = sizeof("state") - 1;
    value.mv_data = &state;
    value.mv_size = sizeof(llm_store_state_t);

    rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc) {
        return rc;
    }

    if ((rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &meta)) != 0
        || (rc = mdb_dbi_open(txn, "answers", MDB_CREATE, &answers)) != 0
        || (rc = mdb_put(txn, meta, &key, &value, 0)) != 0)
    {
        mdb_txn_abort(txn);
        return rc;
    }

    return mdb_txn_commit(txn);
}


static llm_int_t
llm_store_aside(llm_store_t *s, llm_store_open_t *o)
{
    int   n;
    char  name[64], from[LLM_STORE_PATH], to[LLM_STORE_PATH];

    if (s->conf->readonly) {
        llm_store_log(s, LLM_LOG_ERR, 0, "the cache in \"%s\" can't be read:"
                      " %s", s->conf->path, o->why);
        return LLM_DECLINED;
    }

    n = snprintf(name, sizeof(name), LLM_STORE_BAD "%llu",
                 (unsigned long long) llm_store_now());

    if (n < 0 || llm_store_path(s, from, "data.mdb") != 0
        || llm_store_path(s, to, name) != 0)
    {
        return LLM_DECLINED;
    }

    if (rename(from, to) != 0) {
        (void) llm_store_failed(s, errno, "renaming \"data.mdb\"");
        return LLM_DECLINED;
    }

    if (llm_store_path(s, from, "lock.mdb") == 0) {
        unlink(from);
    }

    llm_store_log(s, LLM_LOG_ERR, 0, "the cache \"%s/data.mdb\" can't be used:"
                  " %s; it is now \"%s\", and begun anew", s->conf->path,
                  o->why[0] ? o->why : "unknown", name);

    llm_store_count(s, recreated, 1);
    llm_store_aside_old(s, name);

    memset(&o->pair, 0, sizeof(llm_store_pair_t));

    return LLM_OK;
}


static void
llm_store_aside_old(llm_store_t *s, const char *keep)
{
    DIR            *dir;
    char            path[LLM_STORE_PATH];
    struct dirent  *e;

    dir = opendir(s->conf->path);
    if (dir == NULL) {
        return;
    }

    while ((e = readdir(dir)) != NULL) {
        if (strncmp(e->d_name, LLM_STORE_BAD, sizeof(LLM_STORE_BAD) - 1) == 0
            && strcmp(e->d_name, keep) != 0
            && llm_store_path(s, path, e->d_name) == 0)
        {
            unlink(path);
        }
    }

    closedir(dir);
}


static int
llm_store_secret(llm_store_t *s)
{
    int           fd, rc;
    char          path[LLM_STORE_PATH];
    u_char        secret[LLM_STORE_SECRET];
    ssize_t       n;
    EVP_MAC_CTX  *mac, *slow;

    rc = llm_store_path(s, path, "secret");
    if (rc) {
        return rc;
    }

    fd = open(path, O_RDONLY|O_CLOEXEC);

    if (fd == -1 && errno != ENOENT) {
        return errno;
    }

    n = 0;

    if (fd != -1) {
        n = read(fd, secret, LLM_STORE_SECRET);
        close(fd);
    }

    if (n != LLM_STORE_SECRET) {
        if (s->conf->readonly) {
            return ENOENT;
        }

        rc = llm_store_secret_new(s, path);
        if (rc) {
            return rc;
        }

        memcpy(secret, s->secret, LLM_STORE_SECRET);

    } else if (s->mac && memcmp(secret, s->secret, LLM_STORE_SECRET) == 0) {
        return 0;
    }

    mac = llm_store_mac_new(secret);
    slow = llm_store_mac_new(secret);

    if (mac == NULL || slow == NULL) {
        EVP_MAC_CTX_free(mac);
        EVP_MAC_CTX_free(slow);
        return ENOMEM;
    }

    pthread_mutex_lock(&s->lock);

    EVP_MAC_CTX_free(s->mac);
    s->mac = mac;

    pthread_mutex_unlock(&s->lock);

    EVP_MAC_CTX_free(s->slow_mac);
    s->slow_mac = slow;
    memcpy(s->secret, secret, LLM_STORE_SECRET);

    return 0;
}


/* open.lock is locked: no other process makes one */

static int
llm_store_secret_new(llm_store_t *s, const char *path)
{
    int      fd, rc;
    char     tmp[LLM_STORE_PATH];
    ssize_t  n;

    rc = llm_store_path(s, tmp, "secret.new");
    if (rc) {
        return rc;
    }

    if (RAND_bytes(s->secret, LLM_STORE_SECRET) != 1) {
        return ENOMEM;
    }

    unlink(tmp);

    fd = open(tmp, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600);
    if (fd == -1) {
        return errno;
    }

    rc = 0;
    n = write(fd, s->secret, LLM_STORE_SECRET);

    if (n != LLM_STORE_SECRET || fsync(fd) != 0) {
        rc = errno ? errno : ENOSPC;
    }

    close(fd);

    if (rc == 0 && rename(tmp, path) != 0) {
        rc = errno;
    }

    if (rc) {
        unlink(tmp);
    }

    return rc;
}


static EVP_MAC_CTX *
llm_store_mac_new(const u_char *secret)
{
    EVP_MAC      *mac;
    OSSL_PARAM    params[2];
    EVP_MAC_CTX  *ctx;

    mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (mac == NULL) {
        return NULL;
    }

    ctx = EVP_MAC_CTX_new(mac);
    EVP_MAC_free(mac);

    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
                                                 (char *) "SHA256", 0);
    params[1] = OSSL_PARAM_construct_end();

    if (ctx && !EVP_MAC_init(ctx, secret, LLM_STORE_SECRET, params)) {
        EVP_MAC_CTX_free(ctx);
        return NULL;
    }

    return ctx;
}


/* where there is none, all boots are one */

static void
llm_store_boot(llm_store_t *s)
{
    int      fd;
    ssize_t  n;

    memset(s->boot, 0, LLM_STORE_BOOT);

    fd = open(s->boot_path, O_RDONLY|O_CLOEXEC);
    if (fd == -1) {
        return;
    }

    n = read(fd, s->boot, LLM_STORE_BOOT - 1);

    if (n < 0) {
        memset(s->boot, 0, LLM_STORE_BOOT);
    }

    close(fd);
}


void
llm_store_env_close(llm_store_t *s)
{
    if (s->stxn) {
        llm_store_read_end(s);
    }

    if (s->wtxn) {
        mdb_txn_abort(s->wtxn);
        s->wtxn = NULL;
    }

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

    if (s->wrote && !__atomic_load_n(&s->bad, __ATOMIC_ACQUIRE)
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


static int
llm_store_clean(llm_store_t *s, void *data)
{
    int                rc;
    llm_store_state_t  state;

    (void) data;

    rc = mdb_txn_begin(s->env, NULL, 0, &s->wtxn);
    if (rc) {
        s->wtxn = NULL;
        return rc;
    }

    memset(&state, 0, sizeof(llm_store_state_t));
    state.layout = LLM_STORE_LAYOUT;
    state.clean = 1;
    memcpy(state.boot, s->boot, LLM_STORE_BOOT);

    rc = llm_store_meta_put(s, s->wtxn, "state", &state,
                            sizeof(llm_store_state_t));

    return rc ? rc : llm_store_commit_synced(s);
}


/* without MDB_NOSYNC LMDB writes the pages, syncs the whole file, and only
 * then writes what makes them count */

int
llm_store_commit_synced(llm_store_t *s)
{
    int  rc;

    mdb_env_set_flags(s->env, MDB_NOSYNC, 0);

    rc = mdb_txn_commit(s->wtxn);
    s->wtxn = NULL;

    mdb_env_set_flags(s->env, MDB_NOSYNC, 1);

    return rc;
}


/* The file's state says that all is on disk: that ends before anything else
 * is written.  Another machine's start is noted with it. */

int
llm_store_write_begin(llm_store_t *s)
{
    int                rc;
    llm_uint_t         try;
    llm_store_state_t  state;

    /* another process may be closed in between, and then another */

    for (try = 0; try < 100; try++) {
        rc = mdb_txn_begin(s->env, NULL, 0, &s->wtxn);

        if (rc) {
            s->wtxn = NULL;
            return rc;
        }

        rc = llm_store_meta_get(s, s->wtxn, "state", &state,
                                sizeof(llm_store_state_t));
        if (rc) {
            return rc;
        }

        if (!state.clean) {
            return 0;
        }

        state.clean = 0;
        memcpy(state.boot, s->boot, LLM_STORE_BOOT);

        rc = llm_store_meta_put(s, s->wtxn, "state", &state,
                                sizeof(llm_store_state_t));
        if (rc == 0) {
            rc = llm_store_commit_synced(s);
        }

        if (rc) {
            return rc;
        }
    }

    return EAGAIN;
}


int
llm_store_write_end(llm_store_t *s)
{
    int  rc;

    rc = mdb_txn_commit(s->wtxn);
    s->wtxn = NULL;

    if (rc == 0) {
        s->wrote = 1;

        if (s->unsynced == 0) {
            s->unsynced = llm_store_now();
        }
    }

    return rc;
}
