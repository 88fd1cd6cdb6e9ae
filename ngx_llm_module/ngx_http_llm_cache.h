
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The cache's structures: what is configured of it, what the workers share,
 * what one request has to do with it.  Included by ngx_http_llm_module.h.
 */


#ifndef _NGX_HTTP_LLM_CACHE_H_INCLUDED_
#define _NGX_HTTP_LLM_CACHE_H_INCLUDED_


#include "store/llm_store.h"


typedef struct ngx_http_llm_cached_s  ngx_http_llm_cached_t;
typedef struct ngx_http_llm_keep_s    ngx_http_llm_keep_t;
typedef struct ngx_http_llm_purge_s   ngx_http_llm_purge_t;


/* what X-LLM-Cache says */

enum {
    NGX_HTTP_LLM_CACHE_OFF = 0,
    NGX_HTTP_LLM_CACHE_BYPASS,
    NGX_HTTP_LLM_CACHE_MISS,
    NGX_HTTP_LLM_CACHE_EXPIRED,
    NGX_HTTP_LLM_CACHE_STALE,
    NGX_HTTP_LLM_CACHE_HIT,
    NGX_HTTP_LLM_CACHE_COALESCED,
    NGX_HTTP_LLM_CACHE_MAX
};


#define NGX_HTTP_LLM_KEY_MAX  (4 * 1024 * 1024)    /* of a body; it is read and
                                                  hashed on the event loop */

#define NGX_HTTP_LLM_SCOPE_KEY    0
#define NGX_HTTP_LLM_SCOPE_USER   1
#define NGX_HTTP_LLM_SCOPE_GLOBAL 2
#define NGX_HTTP_LLM_SCOPE_VALUE  3

#define NGX_HTTP_LLM_WHEN_UNASKED        0
#define NGX_HTTP_LLM_WHEN_DETERMINISTIC  1
#define NGX_HTTP_LLM_WHEN_ALWAYS         2


/* llm_adapter_status */

#define NGX_HTTP_LLM_STATUS_NONE   0
#define NGX_HTTP_LLM_STATUS_READ   1
#define NGX_HTTP_LLM_STATUS_PURGE  2


/* llm_adapter_cache */

typedef struct {
    ngx_uint_t                     enable;
    time_t                         ttl;
    time_t                         stale;
    ngx_uint_t                     scope;      /* NGX_HTTP_LLM_SCOPE_... */
    ngx_http_complex_value_t      *value;      /* of scope=$variable */
    ngx_uint_t                     when;       /* NGX_HTTP_LLM_WHEN_... */
    size_t                         max_size;   /* of an answer */
    u_char                        *file;
    ngx_uint_t                     line;
    unsigned                       client_control:1;
    unsigned                       reveal:1;
    unsigned                       fresh_ids:1;
} ngx_http_llm_cache_conf_t;


/* ------------------------------------------------------------------- zone */

/*
 * A request that was seen before, byte for byte: its key is known without a
 * look into it.  Written without a lock by any worker, so whoever reads it
 * takes a copy and looks whether that is whole.
 */

typedef struct {
    u_char                         digest[16];
    u_char                         key[LLM_KEY_LEN];
    uint32_t                       model;      /* offset in the body */
    uint16_t                       model_len;
    uint16_t                       facts;      /* NGX_HTTP_LLM_SEEN_... */
    uint64_t                       check;
} ngx_http_llm_seen_t;

#define NGX_HTTP_LLM_SEEN_STREAM  0x01
#define NGX_HTTP_LLM_SEEN_USAGE   0x02


#define NGX_HTTP_LLM_NEWS  8192            /* words, */
#define NGX_HTTP_LLM_WAYS  4               /* so many that may have a key */

typedef struct {
    llm_store_shared_t             store;
    ngx_atomic_t                   results[NGX_HTTP_LLM_CACHE_MAX];

    /* calls that were joined */
    ngx_atomic_t                   joined;
    ngx_atomic_t                   full;       /* no room to join in */
    ngx_atomic_t                   full_told;  /* s: time of the last line */
    ngx_atomic_t                   restarted;
    ngx_atomic_t                   lost;
    ngx_atomic_t                   slow;

    u_char                         secret[32]; /* of the digests of requests */

    ngx_atomic_t                   news[NGX_HTTP_LLM_NEWS];
    u_char                        *marks;
    size_t                         nmarks;
    ngx_http_llm_seen_t           *seen;
    ngx_uint_t                     nseen;
} ngx_http_llm_shared_t;


/* ---------------------------------------------------------------- request */

/* one request's affair with the cache; lives as long as the request */

struct ngx_http_llm_cached_s {
    ngx_http_llm_cache_conf_t     *conf;
    ngx_uint_t                     status;     /* NGX_HTTP_LLM_CACHE_... */
    const char                    *reason;     /* static; NULL: none */

    u_char                         key[LLM_KEY_LEN];
    u_char                         id[LLM_ID_LEN];
    llm_str_t                      scope;
    llm_str_t                      material;   /* what is kept of what the key
                                                  was made of */
    uint64_t                       begun;      /* ms, epoch */
    ngx_atomic_uint_t              news;       /* the word of the key, before it
                                                  was looked up */
    ngx_str_t                      first;      /* model of the first target */

    /* the client's Cache-Control */
    time_t                         max_age;    /* -1: not said */

    /* credentials and headers that make a difference */
    ngx_str_t                      credential[5];
    ngx_str_t                      beta;
    ngx_str_t                      version;
    ngx_str_t                      openai_beta;
    ngx_str_t                      account;    /* organization and project */
    ngx_str_t                      args;
    ngx_str_t                      value;      /* of the scope's variable */

    u_char                         digest[16]; /* of the request as it came */

    /* of the entry that is served */
    ngx_str_t                      provider;
    ngx_str_t                      model;
    time_t                         age;
    uint64_t                       saved;      /* 1e-12 USD */

    ngx_event_t                    wait;
    ngx_uint_t                     waited;

    unsigned                       no_cache:1;
    unsigned                       no_store:1;
    unsigned                       only_if_cached:1;
    unsigned                       digested:1;
    unsigned                       keyed:1;
    unsigned                       has_id:1;
    unsigned                       store:1;    /* the answer may be kept */
    unsigned                       priced:1;   /* saved is known */
    unsigned                       settled:1;  /* kept or not: decided */
    unsigned                       asked:1;    /* it came to be looked up */
    unsigned                       counted:1;
};


/* what an answer says, while it does, for the file; a subscriber of the
 * flight.  In the heap, as the flight. */

struct ngx_http_llm_keep_s {
    u_char                        *text;
    size_t                         len;
    size_t                         size;       /* of its memory */
    size_t                         max;
    llm_run_t                      runs[LLM_STORE_RUNS];
    ngx_uint_t                     nruns;
    const char                    *failed;     /* why it was given up */
};


/* an entry on its way to the file; everything in it is of the heap */

typedef struct {
    ngx_queue_t                    queue;
    llm_entry_t                    entry;
    u_char                        *text;
    u_char                        *request;
    llm_run_t                     *runs;
} ngx_http_llm_item_t;


/* ------------------------------------------------------------------ purge */

typedef void (*ngx_http_llm_purged_pt)(ngx_http_llm_purge_t *purge);

/* in the heap: the request that asks may go before it is done */

struct ngx_http_llm_purge_s {
    ngx_queue_t                    queue;
    ngx_http_llm_purged_pt         handler;
    void                          *data;       /* NULL: nobody waits */
    llm_purge_e                    what;
    llm_str_t                      text;       /* behind this structure */
    llm_purged_t                   done;
    llm_int_t                      rc;
};


#endif /* _NGX_HTTP_LLM_CACHE_H_INCLUDED_ */
