
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the files of the store share, and nobody else includes (but its
 * tests).  Who may touch what:
 *
 *   lock      the environment is replaced or mapped anew under it; a quick
 *             function only tries to take it, and has it from get() to
 *             release()
 *   quick     the members so marked: only by quick functions
 *   slow      only by slow ones, which run one at a time
 */


#ifndef _LLM_STORE_INT_H_INCLUDED_
#define _LLM_STORE_INT_H_INCLUDED_


#include <pthread.h>
#include <sys/stat.h>

#include <lmdb.h>
#include <openssl/evp.h>

#include "llm_store.h"


#define LLM_STORE_SECRET    32
#define LLM_STORE_READERS   1024
#define LLM_STORE_PURGES    256        /* records of the list, */
#define LLM_STORE_PURGES_VALUE  16     /* so many in one value: below 2 KB */
#define LLM_STORE_NAME      16         /* of a value in "meta" */
#define LLM_STORE_ROOMS     6          /* times that room is made for what has
                                          to be written */
#define LLM_STORE_BOOT      40
#define LLM_STORE_PATH      4096

#define LLM_STORE_CORRUPT   2

/* percent of the limit: where a write makes room, and where tend() does, and
 * how far */

#define LLM_STORE_HIGH      90
#define LLM_STORE_AHEAD     89
#define LLM_STORE_LOW       88

#define LLM_STORE_EVICT     500        /* deletions in one transaction */
#define LLM_STORE_VISIT     4000       /* entries looked at for that */


/* A mark is taken from an entry as the hand passes, and what has none goes.
 * A new one lives for a whole round at least.  In a flood of new ones the
 * hand goes nearly two rounds while as many are written as there is room for:
 * so a hit counts for two.  Chosen by trial against an exact LRU, see
 * t/store/test_evict.c. */

#define LLM_STORE_MARK_NEW  1
#define LLM_STORE_MARK_HIT  2
#define LLM_STORE_MARK_MAX  4


/* of the tree "meta": "state" */

typedef struct {
    uint32_t               layout;
    uint32_t               clean;      /* all is on disk, nobody wrote since */
    char                   boot[LLM_STORE_BOOT];   /* the last writer's */
} llm_store_state_t;


/* of the tree "meta": "purges", what stands before the list, and "purges-NNN",
 * pieces of it */

typedef struct {
    uint64_t               seq;        /* entries with a smaller one are hit, */
    uint64_t               time;       /* and those begun then or before, ms */
    uint32_t               what;
    uint32_t               done;       /* none is left */
    uint32_t               range;      /* LLM_PURGE_SCOPE: of match, */
    uint32_t               nranges;
    u_char                 match[4][LLM_KEY_SCOPE];    /* or digest, or id */
    u_char                 pos[LLM_KEY_LEN];           /* deleted up to it */
} llm_store_purge_t;

typedef struct {
    uint64_t               seq;        /* of the last record ever made */
    uint64_t               floor;      /* ms: calls that began then or before
                                          are not stored, whatever they are:
                                          stands for the records let go */
    uint64_t               n;
    llm_store_purge_t      list[LLM_STORE_PURGES];
} llm_store_purges_t;


/* of a data file: its head, or the sum of a check */

typedef struct {
    uint64_t               txnid;
    uint64_t               last;       /* page */
    uint64_t               mapsize;
    uint32_t               psize;
    const char            *why;        /* static: what is wrong */
} llm_store_file_t;


struct llm_store_s {
    const llm_store_conf_t  *conf;
    const char              *boot_path;    /* tests have their own */

    pthread_mutex_t          lock;

    MDB_env                 *env;          /* NULL: not open */
    MDB_dbi                  meta;
    MDB_dbi                  answers;
    int                      fd;           /* of the data file: env's */
    uint32_t                 psize;
    uint64_t                 limit;        /* pages to be filled */
    uint64_t                 noted;        /* bytes: the limit in the file */
    struct stat              data;         /* as it was opened: inode */
    struct stat              lockfile;

    int                      bad;          /* atomic: open() has to look,
                                              or LLM_STORE_CORRUPT */
    int                      resized;      /* atomic: another's map is
                                              larger */
    int                      corrupt;      /* atomic: corrupt_key is set */
    u_char                   corrupt_key[LLM_KEY_LEN];

    /* quick */
    MDB_txn                 *rtxn;
    int                      held;         /* lock and rtxn, by get() */
    int                      renewed;
    off_t                    size;         /* of the file, as last seen */
    uint64_t                 looked;       /* ms: when it was looked for */
    uint64_t                 txnid;        /* purges are of then */
    llm_store_purges_t       purges;
    llm_run_t                runs[LLM_STORE_RUNS];
    EVP_MAC_CTX             *mac;          /* under lock */

    /* slow */
    EVP_MAC_CTX             *slow_mac;
    MDB_txn                 *wtxn;         /* under way, or NULL */
    MDB_txn                 *stxn;         /* the same for reading */
    llm_store_purges_t       slow_purges;
    char                     boot[LLM_STORE_BOOT];
    u_char                   secret[LLM_STORE_SECRET];
    int                      suspect;      /* times it was found corrupt
                                              though it had been checked */
    uint64_t                 deleted;      /* by wtxn's evictions */
    uint64_t                 evicted;      /* to be counted when it is over */
    uint64_t                 expired;
    uint64_t                 broken;
    uint64_t                 unsynced;     /* ms: the first such write, 0 */
    uint64_t                 readers;      /* ms: last looked after */
    uint64_t                 logged;       /* ms: a failure */
};


/* a piece of work within LMDB: 0 or an error of LMDB or the system */
typedef int (*llm_store_pt)(llm_store_t *s, void *data);


/* ----------------------------------------------------------- llm_store.c */

#define llm_store_count(s, name, n)                                           \
    if ((s)->conf->shared) {                                                  \
        __atomic_fetch_add(&(s)->conf->shared->name, n, __ATOMIC_RELAXED);    \
    }

/* runs fn so that an assertion of LMDB does not end the process but is
 * MDB_CORRUPTED; transactions of slow functions that it leaves are aborted */
int llm_store_call(llm_store_t *s, llm_store_pt fn, void *data);
void llm_store_assert(MDB_env *env, const char *text);

/* what an error of LMDB means, slow: LLM_ERROR: the file is to be opened
 * anew; LLM_DECLINED: logged, not too often */
llm_int_t llm_store_failed(llm_store_t *s, int rc, const char *what);
/* the same without a log: 1 if the file is to be opened anew */
int llm_store_is_bad(llm_store_t *s, int rc);

void llm_store_log(llm_store_t *s, llm_uint_t level, int err,
    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

uint64_t llm_store_now(void);              /* ms, epoch */
uint64_t llm_store_ticks(void);            /* ms, coarse, monotonic */
int llm_store_path(llm_store_t *s, char *dst, const char *name);

/* of the tree "meta"; the value has to be of that size */
int llm_store_meta_get(llm_store_t *s, MDB_txn *txn, const char *name,
    void *dst, size_t size);
int llm_store_meta_put(llm_store_t *s, MDB_txn *txn, const char *name,
    const void *data, size_t size);

llm_int_t llm_store_mac(EVP_MAC_CTX *mac, const u_char *key, u_char *id);

/* the byte for the entry; NULL: there are none */
u_char *llm_store_mark_of(llm_store_t *s, const u_char *key);


/* ------------------------------------------------------ llm_store_open.c */

/* 1 if the data file under its name is not the one that is open */
int llm_store_moved(llm_store_t *s);
void llm_store_env_close(llm_store_t *s);


/* ------------------------------------------------------ llm_store_file.c */

/* an empty data.mdb */
int llm_store_fresh(llm_store_t *s);
/* renames it, of those renamed before none stays: LLM_OK, LLM_DECLINED */
llm_int_t llm_store_aside(llm_store_t *s, const char *why);
/* reads it, or makes it */
int llm_store_secret(llm_store_t *s);
/* s->boot */
void llm_store_boot(llm_store_t *s);


/* ------------------------------------------------------- llm_store_txn.c */

/* slow: s->stxn, s->wtxn; to be called within llm_store_call(), but for the
 * ends */
int llm_store_read_begin(llm_store_t *s);
void llm_store_read_end(llm_store_t *s);
int llm_store_write_begin(llm_store_t *s);
int llm_store_write_end(llm_store_t *s);
void llm_store_write_abort(llm_store_t *s);
/* marks the file as whole on the disk; data is not looked at */
int llm_store_clean(llm_store_t *s, void *data);


/* ----------------------------------------------------- llm_store_check.c */

/* The newest snapshot's numbers, from the file's first pages.  LLM_OK;
 * LLM_ERROR: f->why */
llm_int_t llm_store_check_head(int fd, llm_store_file_t *f);
/* The whole tree of the snapshot txnid, that a reader keeps from being
 * changed.  LLM_OK; LLM_ERROR: f->why; LLM_DECLINED: no memory */
llm_int_t llm_store_check(int fd, uint64_t txnid, llm_store_file_t *f);


/* ----------------------------------------------------- llm_store_write.c */

uint64_t llm_store_used(llm_store_t *s, MDB_txn *txn);      /* pages */
/* Deletes what the hand meets and nobody missed, until no more than goal
 * pages are used, or it has done enough; with force that much at any rate. */
int llm_store_evict(llm_store_t *s, MDB_txn *txn, uint64_t goal, int force);


/* ----------------------------------------------------- llm_store_purge.c */

/* The bytes to be mapped for a size: a little more, since it is reckoned by
 * pages in use, and some are between two uses. */

static inline uint64_t
llm_store_map(uint64_t size)
{
    uint64_t  more;

    more = size / 16;

    return size + (more > 1024 * 1024 ? more : 1024 * 1024);
}


llm_int_t llm_store_make_room(llm_store_t *s, uint64_t pages);
int llm_store_purges_write(llm_store_t *s, MDB_txn *txn,
    const llm_store_purges_t *pl);
int llm_store_purge_one(const llm_store_purge_t *rec, const llm_entry_t *e,
    uint64_t seq);
int llm_store_purges_read(llm_store_t *s, MDB_txn *txn,
    llm_store_purges_t *pl);
/* 1 if one has hit the entry, written when the list's number was seq */
int llm_store_purged(const llm_store_purges_t *pl, const llm_entry_t *e,
    uint64_t seq);
uint64_t llm_store_purges_pending(const llm_store_purges_t *pl);
/* deletes for that long, or a single transaction: LLM_OK, LLM_AGAIN: there
 * is more; else as llm_store_failed() */
llm_int_t llm_store_purge_work(llm_store_t *s, uint64_t now, uint64_t ms,
    uint64_t *deleted);


/* ----------------------------------------------------- llm_store_entry.c */

/* bytes in the file; 0: it can't be stored */
size_t llm_store_entry_len(const llm_entry_t *e);
void llm_store_encode(u_char *dst, const llm_entry_t *e, uint64_t seq);
/* *e points into data, runs has room for LLM_STORE_RUNS.  LLM_OK;
 * LLM_ERROR: not what was written */
llm_int_t llm_store_decode(const u_char *key, const u_char *data, size_t len,
    llm_entry_t *e, llm_run_t *runs, uint64_t *seq);
/* the same without the sum and the runs: what it says may be wrong, but it
 * is safe to read */
llm_int_t llm_store_peek(const u_char *key, const u_char *data, size_t len,
    llm_entry_t *e, uint64_t *seq);


#endif /* _LLM_STORE_INT_H_INCLUDED_ */
