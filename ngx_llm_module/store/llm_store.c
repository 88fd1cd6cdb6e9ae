
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The quick functions, and what all the files share: how LMDB is called, what
 * its errors mean, the log.
 *
 * A quick function takes the lock if it is free.  get() keeps it until
 * release(), for what it gave lies in the map, which the slow functions
 * replace under the same lock.
 */


#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm_store_int.h"


#define LLM_STORE_LOOK   250           /* ms between looks for the file */
#define LLM_STORE_QUIET  60000         /* ms between failures that are logged */


typedef struct {
    const u_char          *key;
    llm_entry_t           *entry;
    uint64_t               seq;
    int                    corrupt;
} llm_store_get_t;


static int llm_store_lookup(llm_store_t *s, void *data);
static int llm_store_renew(llm_store_t *s);
static int llm_store_stat_read(llm_store_t *s, void *data);
static int llm_store_reader(const char *text, void *ctx);
static llm_int_t llm_store_hold(llm_store_t *s);


/* of the thread: where an assertion of LMDB goes */

static __thread jmp_buf  *llm_store_jump;


llm_store_t *
llm_store_create(const llm_store_conf_t *conf)
{
    llm_store_t  *s;

    s = calloc(1, sizeof(llm_store_t));
    if (s == NULL) {
        return NULL;
    }

    s->conf = conf;
    s->boot_path = "/proc/sys/kernel/random/boot_id";
    s->fd = -1;

    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return NULL;
    }

    return s;
}


void
llm_store_free(llm_store_t *s)
{
    if (s == NULL) {
        return;
    }

    llm_store_env_close(s);

    EVP_MAC_CTX_free(s->mac);
    EVP_MAC_CTX_free(s->slow_mac);

    pthread_mutex_destroy(&s->lock);
    free(s);
}


/* LLM_OK: the lock is held, and the file open */

static llm_int_t
llm_store_hold(llm_store_t *s)
{
    if (s->held) {

        /* another one in the same turn */

        return LLM_OK;
    }

    if (pthread_mutex_trylock(&s->lock) != 0) {
        return LLM_AGAIN;
    }

    if (s->env == NULL) {
        pthread_mutex_unlock(&s->lock);
        return LLM_AGAIN;
    }

    if (__atomic_load_n(&s->bad, __ATOMIC_RELAXED)) {
        pthread_mutex_unlock(&s->lock);
        return LLM_ERROR;
    }

    s->held = 1;

    return LLM_OK;
}


llm_int_t
llm_store_get(llm_store_t *s, const u_char key[LLM_KEY_LEN], llm_entry_t *e)
{
    int              rc;
    llm_int_t        hold;
    llm_store_get_t  get;

    hold = llm_store_hold(s);
    if (hold != LLM_OK) {
        return hold;
    }

    memset(&get, 0, sizeof(llm_store_get_t));

    get.key = key;
    get.entry = e;

    rc = llm_store_call(s, llm_store_lookup, &get);

    if (rc == MDB_NOTFOUND) {
        return LLM_DECLINED;
    }

    if (rc) {
        (void) llm_store_is_bad(s, rc);
        return LLM_ERROR;
    }

    if (get.corrupt) {
        llm_store_count(s, corrupt, 1);

        if (!__atomic_load_n(&s->corrupt, __ATOMIC_ACQUIRE)) {
            memcpy(s->corrupt_key, key, LLM_KEY_LEN);
            __atomic_store_n(&s->corrupt, 1, __ATOMIC_RELEASE);
        }

        return LLM_DECLINED;
    }

    return llm_store_purged(&s->purges, e, get.seq) ? LLM_DECLINED : LLM_OK;
}


void
llm_store_release(llm_store_t *s)
{
    if (!s->held) {
        return;
    }

    if (s->renewed) {
        mdb_txn_reset(s->rtxn);
        s->renewed = 0;
    }

    s->held = 0;
    pthread_mutex_unlock(&s->lock);
}


static int
llm_store_lookup(llm_store_t *s, void *data)
{
    int               rc;
    MDB_val           key, value;
    llm_store_get_t  *get = data;

    rc = s->renewed ? 0 : llm_store_renew(s);
    if (rc) {
        return rc;
    }

    key.mv_data = (void *) get->key;
    key.mv_size = LLM_KEY_LEN;

    rc = mdb_get(s->rtxn, s->answers, &key, &value);
    if (rc) {
        return rc;
    }

    if (llm_store_decode(get->key, value.mv_data, value.mv_size, get->entry,
                         s->runs, &get->seq)
        != LLM_OK)
    {
        get->corrupt = 1;
    }

    return 0;
}


/* The snapshot of now.  The map of a file that someone has cut is not to be
 * read: LMDB's files never get smaller. */

static int
llm_store_renew(llm_store_t *s)
{
    int          rc;
    size_t       txnid;
    uint64_t     now;
    struct stat  st;

    now = llm_store_ticks();

    if (now - s->looked >= LLM_STORE_LOOK) {
        s->looked = now;

        if (llm_store_moved(s)) {
            return MDB_INVALID;
        }
    }

    if (fstat(s->fd, &st) != 0 || st.st_nlink == 0 || st.st_size < s->size) {
        return MDB_INVALID;
    }

    s->size = st.st_size;

    rc = mdb_txn_renew(s->rtxn);
    if (rc) {
        return rc;
    }

    s->renewed = 1;
    txnid = mdb_txn_id(s->rtxn);

    if (txnid == s->txnid) {
        return 0;
    }

    rc = llm_store_purges_read(s, s->rtxn, &s->purges);
    if (rc) {
        return rc;
    }

    s->txnid = txnid;

    return 0;
}


void
llm_store_mark(llm_store_t *s, const u_char key[LLM_KEY_LEN])
{
    u_char      *mark;
    llm_uint_t   n;

    mark = llm_store_mark_of(s, key);

    if (mark) {
        n = *mark + LLM_STORE_MARK_HIT;
        *mark = n < LLM_STORE_MARK_MAX ? n : LLM_STORE_MARK_MAX;
    }
}


u_char *
llm_store_mark_of(llm_store_t *s, const u_char *key)
{
    uint32_t  n;

    if (s->conf->marks == NULL || s->conf->nmarks == 0) {
        return NULL;
    }

    memcpy(&n, key + LLM_KEY_SCOPE, sizeof(uint32_t));

    return &s->conf->marks[n % s->conf->nmarks];
}


llm_int_t
llm_store_id(llm_store_t *s, const u_char key[LLM_KEY_LEN],
    u_char id[LLM_ID_LEN])
{
    llm_int_t  rc;

    if (!s->held && pthread_mutex_trylock(&s->lock) != 0) {
        return LLM_AGAIN;
    }

    rc = s->mac ? llm_store_mac(s->mac, key, id) : LLM_AGAIN;

    if (!s->held) {
        pthread_mutex_unlock(&s->lock);
    }

    return rc;
}


llm_int_t
llm_store_mac(EVP_MAC_CTX *mac, const u_char *key, u_char *id)
{
    u_char  out[EVP_MAX_MD_SIZE], both[LLM_KEY_LEN];
    size_t  len;

    /* both forms of one answer have one id */

    memcpy(both, key, LLM_KEY_LEN);
    both[LLM_KEY_LEN - 1] &= 0xfe;

    /* the key of before is kept */

    if (!EVP_MAC_init(mac, NULL, 0, NULL)
        || !EVP_MAC_update(mac, both, LLM_KEY_LEN)
        || !EVP_MAC_final(mac, out, &len, sizeof(out))
        || len < LLM_ID_LEN)
    {
        return LLM_ERROR;
    }

    memcpy(id, out, LLM_ID_LEN);

    return LLM_OK;
}


llm_int_t
llm_store_stat(llm_store_t *s, llm_store_stat_t *st)
{
    int        rc, held;
    llm_int_t  hold;

    memset(st, 0, sizeof(llm_store_stat_t));

    held = s->held;

    if (!held) {
        hold = llm_store_hold(s);
        if (hold != LLM_OK) {
            return hold;
        }
    }

    rc = llm_store_call(s, llm_store_stat_read, st);

    if (!held) {
        llm_store_release(s);
    }

    if (rc) {
        (void) llm_store_is_bad(s, rc);
        return LLM_ERROR;
    }

    return LLM_OK;
}


static int
llm_store_stat_read(llm_store_t *s, void *data)
{
    int                rc;
    MDB_stat           ms;
    MDB_envinfo        info;
    llm_store_stat_t  *st = data;

    if (!s->renewed) {
        rc = llm_store_renew(s);
        if (rc) {
            return rc;
        }
    }

    rc = mdb_stat(s->rtxn, s->answers, &ms);
    if (rc) {
        return rc;
    }

    mdb_env_info(s->env, &info);
    mdb_reader_list(s->env, llm_store_reader, &st->readers);

    st->entries = ms.ms_entries;
    st->size = s->limit * s->psize;
    st->used = llm_store_used(s, s->rtxn) * s->psize;
    st->file = s->size;
    st->max_readers = info.me_maxreaders;
    st->pending = llm_store_purges_pending(&s->purges);

    return 0;
}


/* a line for each, and one above them or instead of them */

static int
llm_store_reader(const char *text, void *ctx)
{
    uint64_t  *n = ctx;

    while (*text == ' ') {
        text++;
    }

    if (*text >= '0' && *text <= '9') {
        (*n)++;
    }

    return 0;
}


int
llm_store_call(llm_store_t *s, llm_store_pt fn, void *data)
{
    int       rc;
    jmp_buf   jump;
    jmp_buf  *before;

    before = llm_store_jump;

    if (setjmp(jump) == 0) {
        llm_store_jump = &jump;
        rc = fn(s, data);

    } else {
        rc = MDB_CORRUPTED;
    }

    llm_store_jump = before;

    return rc;
}


void
llm_store_assert(MDB_env *env, const char *text)
{
    (void) env;
    (void) text;

    if (llm_store_jump) {
        longjmp(*llm_store_jump, 1);
    }
}


int
llm_store_is_bad(llm_store_t *s, int rc)
{
    switch (rc) {

    case MDB_MAP_RESIZED:
        __atomic_store_n(&s->resized, 1, __ATOMIC_RELEASE);
        __atomic_store_n(&s->bad, 1, __ATOMIC_RELEASE);
        return 1;

    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_NOTFOUND:
        __atomic_store_n(&s->resized, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&s->bad, LLM_STORE_CORRUPT, __ATOMIC_RELEASE);
        return 1;

    case MDB_PANIC:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_RSLOT:
    case MDB_BAD_TXN:
    case MDB_BAD_DBI:
    case EIO:
    case EINVAL:
        __atomic_store_n(&s->resized, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&s->bad, 1, __ATOMIC_RELEASE);
        return 1;

    default:
        return 0;
    }
}


llm_int_t
llm_store_failed(llm_store_t *s, int rc, const char *what)
{
    uint64_t  now;

    if (s->stxn) {
        llm_store_read_end(s);
    }

    llm_store_write_abort(s);

    if (llm_store_is_bad(s, rc)) {
        return LLM_ERROR;
    }

    now = llm_store_ticks();

    if (s->logged == 0 || now - s->logged >= LLM_STORE_QUIET) {
        s->logged = now;

        /* LMDB's own errors are negative, and the log's are the system's */

        if (rc < 0) {
            llm_store_log(s, LLM_LOG_ERR, 0, "%s failed: %s", what,
                          mdb_strerror(rc));
        } else {
            llm_store_log(s, LLM_LOG_ERR, rc, "%s failed", what);
        }
    }

    return LLM_DECLINED;
}


void
llm_store_log(llm_store_t *s, llm_uint_t level, int err, const char *fmt, ...)
{
    char     text[LLM_STORE_PATH + 256];
    va_list  args;

    if (s->conf->log == NULL) {
        return;
    }

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    s->conf->log(s->conf->log_ctx, level, err, text);
}


uint64_t
llm_store_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


uint64_t
llm_store_ticks(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);

    return (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


int
llm_store_path(llm_store_t *s, char *dst, const char *name)
{
    int  n;

    n = snprintf(dst, LLM_STORE_PATH, "%s/%s", s->conf->path, name);

    return (n > 0 && n < LLM_STORE_PATH) ? 0 : ENAMETOOLONG;
}


int
llm_store_meta_get(llm_store_t *s, MDB_txn *txn, const char *name, void *dst,
    size_t size)
{
    int      rc;
    MDB_val  key, value;

    key.mv_data = (void *) name;
    key.mv_size = strlen(name);

    rc = mdb_get(txn, s->meta, &key, &value);
    if (rc) {
        return rc;
    }

    if (value.mv_size != size) {
        return MDB_CORRUPTED;
    }

    memcpy(dst, value.mv_data, size);

    return 0;
}


int
llm_store_meta_put(llm_store_t *s, MDB_txn *txn, const char *name,
    const void *data, size_t size)
{
    MDB_val  key, value;

    key.mv_data = (void *) name;
    key.mv_size = strlen(name);

    value.mv_data = (void *) data;
    value.mv_size = size;

    return mdb_put(txn, s->meta, &key, &value, 0);
}
