
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The files of the directory: a new data file, one that can't be used put
 * aside, the secret; and which start of the machine this is.  For open(),
 * which has "open.lock" locked: no other process does the same.
 */


#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/rand.h>

#include "llm_store_int.h"


#define LLM_STORE_BAD  "data.mdb.bad-"


static int llm_store_fresh_env(llm_store_t *s, void *data);
static void llm_store_aside_old(llm_store_t *s, const char *keep);
static int llm_store_secret_new(llm_store_t *s, const char *path);
static EVP_MAC_CTX *llm_store_mac_new(const u_char *secret);


/* a new file gets its name when it is whole */

int
llm_store_fresh(llm_store_t *s)
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
    mdb_env_set_mapsize(env, llm_store_map(s->conf->size ? s->conf->size
                                                         : LLM_STORE_MIN));

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


llm_int_t
llm_store_aside(llm_store_t *s, const char *why)
{
    int   n;
    char  name[64], from[LLM_STORE_PATH], to[LLM_STORE_PATH];

    if (s->conf->readonly) {
        llm_store_log(s, LLM_LOG_ERR, 0, "the cache in \"%s\" can't be read:"
                      " %s", s->conf->path, why);
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
                  why[0] ? why : "unknown", name);

    llm_store_count(s, recreated, 1);
    llm_store_aside_old(s, name);

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


int
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

void
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
