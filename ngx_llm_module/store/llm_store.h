
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The cache's file: an LMDB environment that many processes share.  Plain C,
 * no nginx header: the nginx half and the command llm-cache use the same
 * functions.  A process has one llm_store_t for a directory and opens it
 * after it has forked.
 *
 * Two kinds of functions.  "Quick" ones never wait for anything but a page
 * that is not in memory; they are for the event loop, one thread.  "Slow" ones
 * may wait for the file's write lock, for the disk, for other processes; they
 * are for one other thread (or the same one), one at a time.  A quick and a
 * slow one may run at once.
 *
 * The file lives in its directory as data.mdb and lock.mdb (LMDB's own),
 * "secret" (32 random bytes, mode 0600) and "open.lock".  One that can't be
 * used any more is renamed to data.mdb.bad-TIME; the newest such is kept.
 *
 * It is a cache: what was written is safe from a process that is killed, but
 * if the machine stops before the last process closed it, it is begun anew.
 */


#ifndef _LLM_STORE_H_INCLUDED_
#define _LLM_STORE_H_INCLUDED_


#include "core/llm.h"


#define LLM_STORE_LAYOUT   1           /* of the file; another one is renamed
                                          away */

#define LLM_KEY_LEN        32          /* 8 bytes of the scope, 24 of the
                                          request; the last bit of the last
                                          byte is the form: 1 for a stream */
#define LLM_KEY_SCOPE      8
#define LLM_ID_LEN         16

#define LLM_STORE_MIN      (4 * 1024 * 1024)   /* the least size */
#define LLM_STORE_RUNS     64          /* of one entry */


typedef struct llm_store_s  llm_store_t;


/* what is shared by all processes beside the file: in shared memory that is
 * zeroed at first, or NULL.  Words are added to with __atomic, marks written
 * plainly: a lost mark is no harm. */

typedef struct {
    uint64_t               stores;     /* entries written */
    uint64_t               dropped;    /* stores given up: queue, room, error */
    uint64_t               evicted;
    uint64_t               expired;    /* taken out since their time was over */
    uint64_t               purged;
    uint64_t               corrupt;    /* entries whose checksum was wrong */
    uint64_t               recreated;  /* times the file was begun anew */
    uint64_t               errors;     /* write transactions that failed */
    uint64_t               checked;    /* inode of the file found sound */
} llm_store_shared_t;


/* levels of log(), syslog's numbers as nginx has them + 1 */

#define LLM_LOG_ERR     4
#define LLM_LOG_WARN    5
#define LLM_LOG_NOTICE  6
#define LLM_LOG_INFO    7

typedef struct {
    const char            *path;       /* of the directory; it exists */
    uint64_t               size;       /* bytes of the map, >= LLM_STORE_MIN;
                                          0: as in the file, that the last
                                          who had a size has told it */
    llm_store_shared_t    *shared;     /* or NULL */
    u_char                *marks;      /* one byte an entry, by its key, shared;
                                          or NULL: no second chance */
    size_t                 nmarks;
    void                 (*log)(void *ctx, llm_uint_t level, int err,
                               const char *text);      /* from any thread */
    void                  *log_ctx;
    unsigned               readonly:1; /* creates and changes nothing */
} llm_store_conf_t;


/* a piece of a stream's text */

#define LLM_RUN_HIDDEN  0x01           /* usage: not for who did not ask */

typedef struct {
    uint32_t               len;
    uint32_t               flags;
} llm_run_t;


#define LLM_ENTRY_STREAM  0x01         /* text is events, else a plain body */
#define LLM_ENTRY_COST    0x02         /* cost is known */
#define LLM_ENTRY_USAGE   0x04         /* of a stream: usage was asked for */
#define LLM_ENTRY_ALONE   0x08         /* to llm_store_write() only: the entry
                                          of the other form, if there is one,
                                          is older and goes */

typedef struct {
    u_char                 key[LLM_KEY_LEN];
    u_char                 id[LLM_ID_LEN];     /* shown to clients: see
                                                  llm_store_id() */
    uint64_t               begun;      /* ms, epoch: the call began; a purge
                                          that is not older removes it */
    uint64_t               made;       /* ms, epoch: the answer was whole */
    uint32_t               ttl;        /* s, from made: fresh */
    uint32_t               stale;      /* s, after that: kept for bad times */
    uint32_t               flags;      /* LLM_ENTRY_... */
    uint64_t               cost;       /* 1e-12 USD */
    llm_usage_t            usage;

    llm_str_t              dialect;    /* texts below 64 KB each */
    llm_str_t              endpoint;   /* "chat/completions" */
    llm_str_t              provider;
    llm_str_t              model;      /* asked of the provider */
    llm_str_t              asked;      /* by the client */
    llm_str_t              scope;      /* as in llm_key_parts_t */
    llm_str_t              content_type;
    llm_str_t              finish_reason;

    llm_str_t              request;    /* what the key was made of, see
                                          llm_store_key(), as JSON; the member
                                          "request" may be left out */
    llm_str_t              text;       /* the answer */
    const llm_run_t       *runs;       /* of a stream, their lengths add up to
                                          text.len */
    uint32_t               nruns;
} llm_entry_t;


/* ------------------------------------------------------- llm_store_key.c */

/* Clients may put secrets where nobody expects them, and the file is no place
 * for these: what is "hashed" stands there as "sha256:HEX". */

typedef struct {
    llm_str_t              dialect;
    llm_str_t              endpoint;
    llm_str_t              query;      /* of the URL, less credentials, hashed;
                                          or empty */
    llm_str_t              beta;       /* values of anthropic-beta, sorted,
                                          joined by ',' */
    llm_str_t              version;    /* anthropic-version */
    llm_str_t              openai_beta;
    llm_str_t              account;    /* OpenAI-Organization and -Project,
                                          where they are sent on; hashed */
    llm_str_t              route;      /* the targets, as configured */
    llm_str_t              provider;   /* hex digest of how they are called */
    llm_str_t              scope;      /* "key sha256:HEX",
                                          "user sha256:HEX ...",
                                          "value sha256:HEX", "global" */
} llm_key_parts_t;

/*
 * What an entry's key is made of, in one JSON text:
 * {"layout":1,"dialect":...,...,"scope":...,"request":BODY} with BODY the
 * canonical form of the request's body, put there last.  llm_store_material()
 * gives the length of what stands before BODY, and writes it if dst is not
 * NULL; BODY and one '}' follow.  Texts are escaped as JSON strings.
 */
size_t llm_store_material(u_char *dst, const llm_key_parts_t *parts);

/* The key of that text: 8 bytes of SHA-256 of the scope, 24 of that of the
 * text, the last bit 0.  LLM_OK or LLM_ERROR. */
llm_int_t llm_store_key(u_char key[LLM_KEY_LEN], const llm_str_t *scope,
    const llm_str_t *material);

/* first 8 bytes of SHA-256 */
llm_int_t llm_store_scope(u_char scope[LLM_KEY_SCOPE], const llm_str_t *text);

#define LLM_HASHED_LEN     71

/* "sha256:HEX" of a text.  LLM_OK or LLM_ERROR. */
llm_int_t llm_store_hashed(u_char dst[LLM_HASHED_LEN], const llm_str_t *text);

/* gives back what these keep for the process; no thread may be in them */
void llm_store_key_done(void);


/* ----------------------------------------------------------- llm_store.c */

/* Does nothing to the disk.  conf and what it points to must outlive it.
 * NULL: no memory. */
llm_store_t *llm_store_create(const llm_store_conf_t *conf);

/*
 * Slow.  Opens the file, creates it if there is none, puts one that can't be
 * used aside (renamed, one LLM_LOG_ERR line) and begins anew.  May be called
 * again at any time: does nothing if all is well, reopens if the file is
 * another one by now or was found bad.  LLM_OK, LLM_DECLINED: not now (no
 * room, no rights, no readers left ...; logged at most once a minute).
 */
llm_int_t llm_store_open(llm_store_t *s);

/*
 * Quick.  LLM_OK: *e, whose texts lie in the file: copy them, then call
 * llm_store_release() in the same turn of the event loop, whatever came back
 * here.  Several may be called before, and see the same state of the file.  key's last bit says which form is wanted.  An entry is given, though
 * its time is over, as long as it is there; not one that a purge has hit.
 * LLM_DECLINED: none.  LLM_AGAIN: not open, or just being reopened.
 * LLM_ERROR: the file has gone or is bad: call llm_store_open().
 */
llm_int_t llm_store_get(llm_store_t *s, const u_char key[LLM_KEY_LEN],
    llm_entry_t *e);
void llm_store_release(llm_store_t *s);

/* Quick.  The entry was of use: it is not evicted before the others. */
void llm_store_mark(llm_store_t *s, const u_char key[LLM_KEY_LEN]);

/* Quick.  HMAC-SHA-256 of the key under the directory's secret, cut; the same
 * for both forms.
 * LLM_AGAIN: not open yet. */
llm_int_t llm_store_id(llm_store_t *s, const u_char key[LLM_KEY_LEN],
    u_char id[LLM_ID_LEN]);

/*
 * Slow.  Writes n entries in one transaction (or several, if there is need),
 * over older ones of the same key.  Not those that a purge has hit since
 * they began.  Evicts, as far as room is needed.  e->id is set here.  Entries
 * are independent: one that can't be stored is counted as dropped; so is one
 * that needs more than a quarter of the size.
 * LLM_OK; LLM_DECLINED: nothing could be written, step aside for a while;
 * LLM_ERROR: the file is not open or bad: call llm_store_open().
 */
llm_int_t llm_store_write(llm_store_t *s, llm_entry_t *const *entries,
    llm_uint_t n);

/* Slow.  What is due: sync (10 s after the first write that was not), stale
 * readers, what purges left to delete, eviction ahead of need; at most some
 * ms, but for the disk's own time.  now: ms, epoch.  LLM_AGAIN: there is more,
 * call soon; LLM_OK; LLM_DECLINED, LLM_ERROR as above. */
llm_int_t llm_store_tend(llm_store_t *s, uint64_t now);

typedef enum {
    LLM_PURGE_ALL = 0,
    LLM_PURGE_SCOPE,                   /* text: as in llm_key_parts_t, or
                                          without its first word */
    LLM_PURGE_MODEL,                   /* text: as asked by clients or of the
                                          provider */
    LLM_PURGE_ID                       /* text: hex of an id */
} llm_purge_e;

typedef struct {
    uint64_t               matched;    /* entries that were there */
    uint64_t               deleted;    /* by now */
    uint64_t               pending;    /* misses already, deleted by and by */
} llm_purged_t;

/*
 * Slow.  When it returns LLM_OK, no process gives what matched any more, nor
 * stores it from a call that began before now.  Deletes for at most 50 ms;
 * llm_store_tend(), of any process, does the rest.  LLM_DECLINED: text is no
 * id; LLM_AGAIN: not open; LLM_ERROR: it is not purged.
 */
llm_int_t llm_store_purge(llm_store_t *s, llm_purge_e what,
    const llm_str_t *text, uint64_t now, llm_purged_t *res);

typedef struct {
    uint64_t               entries;
    uint64_t               size;       /* of the map */
    uint64_t               used;       /* bytes of pages in use */
    uint64_t               file;       /* bytes of the file */
    uint64_t               readers;    /* slots in use, */
    uint64_t               max_readers;
    uint64_t               pending;    /* purges that still have to delete */
} llm_store_stat_t;

/* Quick.  LLM_OK or as llm_store_get(); no release. */
llm_int_t llm_store_stat(llm_store_t *s, llm_store_stat_t *st);

/* Slow.  Calls fn for each entry, in the order of keys, from a copy of its
 * own: no transaction is open at that time, and fn may call slow functions.
 * fn's LLM_OK goes on, all else ends it and is returned.  Purged ones are left
 * out.  LLM_AGAIN: not open; LLM_DECLINED, LLM_ERROR as above. */
llm_int_t llm_store_walk(llm_store_t *s,
    llm_int_t (*fn)(void *ctx, const llm_entry_t *e), void *ctx);

/* Slow.  Which configured route is called how, for imports: kept in the file.
 * get: *provider, of 64 bytes at least, is set; LLM_DECLINED: not known. */
llm_int_t llm_store_route_put(llm_store_t *s, const llm_str_t *route,
    const llm_str_t *provider);
llm_int_t llm_store_route_get(llm_store_t *s, const llm_str_t *route,
    llm_str_t *provider);
llm_int_t llm_store_route_walk(llm_store_t *s,
    llm_int_t (*fn)(void *ctx, const llm_str_t *route), void *ctx);

/* Slow.  Syncs, and marks the file as sound if nobody writes after.  It may
 * be opened again. */
void llm_store_close(llm_store_t *s);
void llm_store_free(llm_store_t *s);


#endif /* _LLM_STORE_H_INCLUDED_ */
