
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The nginx half: its structures, one for each lifetime (configuration,
 * request, flight, attempt, reader).
 */


#ifndef _NGX_HTTP_LLM_MODULE_H_INCLUDED_
#define _NGX_HTTP_LLM_MODULE_H_INCLUDED_


#include "ngx_http_llm_compat.h"
#include "core/llm.h"
#include "ngx_http_llm_cache.h"
#include "share/llm_share.h"


#define NGX_HTTP_LLM_EVENT_MAX       (16 * 1024 * 1024)  /* bytes, one event */
#define NGX_HTTP_LLM_HOLD_MAX        (64 * 1024)   /* plain bytes before head */
#define NGX_HTTP_LLM_ERROR_MAX       (1024 * 1024)     /* the same of errors */
#define NGX_HTTP_LLM_READ_BUFFER     (64 * 1024)   /* one for a worker */
#define NGX_HTTP_LLM_HEAD_MAX        (32 * 1024)   /* a provider's head */
#define NGX_HTTP_LLM_UNREAD_HIGH     (256 * 1024)  /* the valve closes, */
#define NGX_HTTP_LLM_UNREAD_LOW      (64 * 1024)   /* and opens again */
#define NGX_HTTP_LLM_LINGER          1000          /* ms, after the terminal
                                                      event, for a clean end
                                                      of the HTTP message */

#define NGX_HTTP_LLM_TARGETS_MAX     16            /* of one request */
#define NGX_HTTP_LLM_ATTEMPTS_MAX    10

#define NGX_HTTP_LLM_STATUS_OVERLOADED  529

/* what llm_adapter says */

#define NGX_HTTP_LLM_OFF       0
#define NGX_HTTP_LLM_ON        1
#define NGX_HTTP_LLM_DIRECT    2
#define NGX_HTTP_LLM_TARGETS   3

#define NGX_HTTP_LLM_CANCEL    0
#define NGX_HTTP_LLM_DRAIN     1

/* which of several targets is the first */

#define NGX_HTTP_LLM_BALANCE_ORDER    0
#define NGX_HTTP_LLM_BALANCE_WEIGHT   1
#define NGX_HTTP_LLM_BALANCE_LATENCY  2
#define NGX_HTTP_LLM_BALANCE_COST     3
#define NGX_HTTP_LLM_BALANCE_HASH     4

/* where a provider's key comes from */

#define NGX_HTTP_LLM_KEY_NONE    0
#define NGX_HTTP_LLM_KEY_OURS    1
#define NGX_HTTP_LLM_KEY_CLIENT  2


typedef struct ngx_http_llm_provider_s  ngx_http_llm_provider_t;
typedef struct ngx_http_llm_flight_s    ngx_http_llm_flight_t;
typedef struct ngx_http_llm_attempt_s   ngx_http_llm_attempt_t;
typedef struct ngx_http_llm_reader_s    ngx_http_llm_reader_t;
typedef struct ngx_http_llm_ctx_s       ngx_http_llm_ctx_t;
typedef struct ngx_http_llm_block_s     ngx_http_llm_block_t;
typedef struct ngx_http_llm_resolve_s   ngx_http_llm_resolve_t;
typedef struct ngx_http_llm_mirror_s    ngx_http_llm_mirror_t;
typedef struct ngx_http_llm_outlet_s    ngx_http_llm_outlet_t;


/* ------------------------------------------------------------------- zone */

/*
 * What all workers know of one provider, target or route.  A cell stays where
 * it is as long as the zone, and over reloads belongs to whoever has its
 * name.  Each word is changed by itself, so a worker may die at any moment.
 */

#define NGX_HTTP_LLM_WINDOW    8
#define NGX_HTTP_LLM_DIALECTS  4

typedef struct {
    uint64_t                       key;        /* of the name; 0: free */
    uint64_t                       generation; /* configuration, the last one
                                                  that had it */
    uint64_t                       identity;   /* digest of what it says */

    ngx_atomic_t                   breaker;    /* ngx_http_llm_breaker.c */
    ngx_atomic_t                   window[NGX_HTTP_LLM_WINDOW];
    ngx_atomic_t                   held;       /* ms: not wanted before */

    ngx_atomic_t                   down;       /* ngx_http_llm_health.c */
    ngx_atomic_t                   streak;     /* checks against that */
    ngx_atomic_t                   check;      /* who, and when the next */

    ngx_atomic_t                   budget;     /* ngx_http_llm_retry.c */
    ngx_atomic_t                   refill;

    ngx_atomic_t                   ttft;       /* ngx_http_llm_balance.c */
    ngx_atomic_t                   rate;
    ngx_atomic_t                   sampled;
    ngx_atomic_t                   scout;      /* ms: one finds out until */
    ngx_atomic_t                   turn[NGX_HTTP_LLM_DIALECTS];
} ngx_http_llm_cell_t;


/* ---------------------------------------------------------- configuration */

enum {
    NGX_HTTP_LLM_T_CONNECT = 0,        /* TCP and TLS */
    NGX_HTTP_LLM_T_FIRST_TOKEN,        /* request sent to first event */
    NGX_HTTP_LLM_T_IDLE,               /* between two events */
    NGX_HTTP_LLM_T_PLAIN,              /* request sent to whole answer */
    NGX_HTTP_LLM_T_TOTAL,              /* everything */
    NGX_HTTP_LLM_T_MAX
};


typedef struct {
    ngx_str_t                      key;
    ngx_str_t                      lowcase;
    ngx_str_t                      value;      /* len 0: only dropped */
} ngx_http_llm_header_t;


/* a request on its way to a provider, for its signer */

#define NGX_HTTP_LLM_SIGNED_HEADERS  8

typedef struct {
    ngx_str_t                      method;
    ngx_str_t                      uri;
    ngx_chain_t                   *body;
    ngx_keyval_t                   headers[NGX_HTTP_LLM_SIGNED_HEADERS];
    ngx_uint_t                     nheaders;
} ngx_http_llm_outgoing_t;


/* adds to out->headers what proves that the call is ours */

typedef struct {
    ngx_str_t                      name;
    ngx_int_t                    (*sign)(ngx_http_request_t *r,
                                       ngx_http_llm_provider_t *p,
                                       ngx_http_llm_outgoing_t *out);
} ngx_http_llm_signer_t;


/* a model line; prices in 1e-12 USD a token (a millionth of a USD per million
 * tokens) */

#define NGX_HTTP_LLM_PRICE_INPUT        0
#define NGX_HTTP_LLM_PRICE_CACHED       1
#define NGX_HTTP_LLM_PRICE_CACHE_WRITE  2
#define NGX_HTTP_LLM_PRICE_OUTPUT       3
#define NGX_HTTP_LLM_PRICES             4

typedef struct {
    ngx_str_t                      name;
    uint64_t                       context;    /* tokens; 0: not said */
    uint64_t                       max_output;
    uint64_t                       price[NGX_HTTP_LLM_PRICES];
    uint8_t                        priced;     /* bits, by the same numbers */
} ngx_http_llm_price_t;


struct ngx_http_llm_provider_s {
    ngx_str_t                      name;
    const llm_dialect_t           *dialect;
    const llm_framing_t           *framing;
    const ngx_http_llm_signer_t   *signer;

    ngx_str_t                      endpoint;   /* as written */
    ngx_str_t                      host;       /* Host: header */
    ngx_str_t                      base;       /* path before ours, no last / */

    ngx_uint_t                     key_source; /* NGX_HTTP_LLM_KEY_... */
    ngx_str_t                      key;        /* secret */
    ngx_keyval_t                   auth;       /* header made of it; secret */
    ngx_array_t                   *headers;    /* of ngx_http_llm_header_t */
    ngx_array_t                    models;     /* of ngx_http_llm_price_t */
    ngx_hash_t                     skip;       /* client headers not sent on */
    ngx_hash_t                     hide;       /* answer headers not passed */
    ngx_hash_t                     hide_direct;        /* ... through */

    ngx_msec_t                     timeout[NGX_HTTP_LLM_T_MAX];

    ngx_http_llm_cell_t           *cell;
    ngx_str_t                      account;
    ngx_uint_t                     breaker_failures;   /* 0: off */
    ngx_msec_t                     breaker_window;
    ngx_msec_t                     breaker_open;
    ngx_msec_t                     health_interval;    /* 0: off */
    ngx_uint_t                     health_fails;       /* in a row: down */
    ngx_uint_t                     health_passes;
    ngx_str_t                      health_uri; /* len 0: base + /models */

    ngx_http_upstream_conf_t       upstream;   /* static: pools are tagged */
    ngx_http_upstream_conf_t       direct;     /* the same, for passthrough */
    ngx_http_upstream_srv_conf_t   uscf;       /* ours, with our peer.init */
    ngx_http_upstream_srv_conf_t  *named;      /* upstream { } of the operator,
                                                  NULL: a host and our pool */

    /* a bare host: its addresses and a worker's idle connections */
    ngx_addr_t                    *addrs;
    ngx_uint_t                     naddrs;
    ngx_uint_t                     next;       /* address, round robin */
    ngx_http_llm_resolve_t        *resolve;    /* NULL: they stay */
    ngx_uint_t                     keepalive;  /* idle connections at most */
    ngx_queue_t                    idle;       /* newest first */
    ngx_queue_t                    free;
#if (NGX_HTTP_SSL)
    ngx_ssl_session_t             *session;    /* the last one, of a worker */
    ngx_str_t                      tls_ca;
    ngx_str_t                      tls_name;
    ngx_flag_t                     tls_verify; /* on unless said otherwise */
#endif

    u_char                        *file;       /* where it was written */
    ngx_uint_t                     line;
    ngx_uint_t                     seen;       /* members, bits */

    unsigned                       tls:1;
    unsigned                       preset:1;   /* made without a block */
    unsigned                       ready:1;    /* set up */
    unsigned                       ours:1;     /* the credential sent is */
    unsigned                       stream_usage:1;
    unsigned                       keepalive_set:1;
    unsigned                       tls_set:1;
    unsigned                       no_stream_options:1;  /* learnt, a worker */
};


extern const ngx_http_llm_signer_t  ngx_http_llm_key_signer;


typedef struct {
    ngx_str_t                      text;       /* as written */
    ngx_http_llm_provider_t       *provider;
    ngx_str_t                      model;      /* len 0: the client's */
    ngx_http_llm_cell_t           *cell;       /* NULL: the client named it */
    ngx_uint_t                     weight;
    uint64_t                       no_continue;    /* learnt, a worker: digest
                                                      of the last model that
                                                      refused */
} ngx_http_llm_target_t;


/* those who may serve a request */

typedef struct {
    ngx_http_llm_target_t         *target;
    ngx_uint_t                     n;
    ngx_uint_t                     balance;    /* NGX_HTTP_LLM_BALANCE_... */
    ngx_str_t                      route;      /* of the cache's key: all of
                                                  them, */
    ngx_str_t                      called;     /* and a digest of how they are
                                                  called */
    uint8_t                       *turns[NGX_HTTP_LLM_DIALECTS];
                                               /* whose turn, by weight */
    ngx_uint_t                     nturns[NGX_HTTP_LLM_DIALECTS];
    ngx_http_llm_cell_t           *cell;       /* counts the turns */
    ngx_str_t                      name;       /* of the cell */
    unsigned                       mixed:1;    /* of several accounts */
} ngx_http_llm_targets_t;


typedef struct {
    ngx_str_t                      pattern;    /* '*' cut */
    ngx_http_llm_targets_t         targets;
    unsigned                       prefix:1;
    u_char                        *file;
    ngx_uint_t                     line;
} ngx_http_llm_route_t;


typedef struct {
    ngx_array_t                    providers;  /* of ..._provider_t * */
    ngx_array_t                    routes;     /* of ..._route_t */
    ngx_array_t                    sets;       /* of ..._targets_t *: all */
    ngx_array_t                    adapters;   /* of ..._place_t */
    ngx_shm_zone_t                *zone;
    ngx_str_t                      zone_name;
    size_t                         zone_size;
    time_t                         started;    /* "created" of models */
    ngx_str_t                      cache_path; /* len 0: no cache */
    uint64_t                       cache_size;
    ngx_http_llm_shared_t         *shared;     /* in the zone */
    llm_share_t                   *share;      /* the same: calls in the air */
    uint32_t                       generation; /* of this configuration */
    uint64_t                       instance;   /* random, of this reading of
                                                  the configuration */
    ngx_thread_pool_t             *threads;
    ngx_int_t                      request_id; /* index of the variable */
    ngx_resolver_t                *resolver;   /* http's; NULL: none */
    ngx_msec_t                     resolver_timeout;
    unsigned                       used:1;     /* by some llm_adapter */
    unsigned                       coalesce:1; /* somewhere */
} ngx_http_llm_main_conf_t;


typedef struct {
    ngx_uint_t                     adapter;    /* NGX_HTTP_LLM_OFF, ON, ... */
    ngx_http_llm_targets_t        *targets;
    ngx_str_t                      passthrough_name;
    u_char                        *passthrough_file;
    ngx_uint_t                     passthrough_line;
    ngx_http_llm_provider_t       *passthrough;
    ngx_http_upstream_conf_t      *direct;     /* for it, of this location */
    ngx_msec_t                     timeout[NGX_HTTP_LLM_T_MAX];
    ngx_uint_t                     attempts;   /* at most, of a request */
    ngx_msec_t                     backoff_min;
    ngx_msec_t                     backoff_max;
    ngx_uint_t                     budget;     /* per cent */
    ngx_flag_t                     resume;
    ngx_uint_t                     client_abort;
    ngx_msec_t                     ping;       /* 0: off */
    ngx_msec_t                     ping_head;  /* 0: off */
    ngx_msec_t                     flush;
    ngx_flag_t                     intercept_errors;
    ngx_flag_t                     headers;
    ngx_http_llm_cache_conf_t     *cache;      /* NULL: neither it nor
                                                  coalescing is on */
    ngx_flag_t                     coalesce;
    size_t                         max_response;
    ngx_array_t                   *cache_bypass;
    ngx_array_t                   *no_cache;
    ngx_uint_t                     status;     /* NGX_HTTP_LLM_STATUS_... */
    ngx_uint_t                     status_open;    /* it has access rules */

    ngx_str_t                      prefix;     /* the location's, or empty */
    u_char                        *file;       /* of llm_adapter, for errors */
    ngx_uint_t                     line;
    unsigned                       own:1;      /* llm_adapter stands here */
    unsigned                       timeout_set:1;
} ngx_http_llm_loc_conf_t;


/* a location with llm_adapter, and its server */

typedef struct {
    ngx_http_core_srv_conf_t      *cscf;
    ngx_http_llm_loc_conf_t       *llcf;
} ngx_http_llm_place_t;


/* ----------------------------------------------------------------- flight */

/*
 * One answer on its way.  Blocks hold what is shown as it is shown, end to
 * end, and from their other end a record for each event or segment.
 */

#define NGX_HTTP_LLM_REC_USAGE   0x01  /* only usage: not for clients that did
                                          not ask */
#define NGX_HTTP_LLM_REC_PLAIN   0x02  /* opaque bytes of a plain answer */


typedef struct {
    uint32_t                       offset;     /* in the block */
    uint32_t                       len;
    uint32_t                       data;       /* of the payload, from offset;
                                                  0: it has several lines */
    uint32_t                       flags;      /* NGX_HTTP_LLM_REC_... */
} ngx_http_llm_record_t;


struct ngx_http_llm_block_s {
    ngx_http_llm_block_t          *next;
    u_char                        *start;
    u_char                        *last;       /* free from here ... */
    ngx_http_llm_record_t         *records;    /* ... to the newest record;
                                                  they grow downwards */
    u_char                        *end;
    ngx_uint_t                     n;
    ngx_uint_t                     holds;      /* readers whose first wanted
                                                  byte is here */
    unsigned                       pinned:1;   /* output may refer to it when
                                                  nobody needs it any more */
};


/* the kinds of subscriber differ by what waking them means */

typedef void (*ngx_http_llm_wake_pt)(ngx_http_llm_reader_t *rd);


struct ngx_http_llm_flight_s {
    ngx_http_llm_block_t          *first;
    ngx_http_llm_block_t          *last;
    ngx_http_llm_block_t          *pinned;     /* out of the log, in use */
    ngx_queue_t                    readers;
    ngx_uint_t                     nreaders;
    ngx_uint_t                     noutlets;   /* of them */
    ngx_uint_t                     refs;       /* of contexts, mirrors and
                                                  outlets */

    off_t                          appended;   /* bytes, all time */
    off_t                          trimmed;    /* bytes, given back */
    off_t                          base;       /* where this answer began */

    llm_answer_t                   answer;
    llm_mem_t                      mem;

    ngx_http_llm_keep_t           *keep;       /* NULL: it is not kept */

    /* of one that others may join, or have joined */
    ngx_http_llm_ctx_t            *lead;       /* whose attempts fill it */
    ngx_http_llm_mirror_t         *mirror;     /* or which link does */
    ngx_queue_t                    queue;      /* in the worker's table, by key, */
    ngx_queue_t                    named;      /* and by id */
    u_char                         key[LLM_KEY_LEN];
    ngx_uint_t                     form;       /* LLM_FORM_..., 0: private */
    uint64_t                       id;         /* its name for other workers,
                                                  0: they don't know of it */
    size_t                         max;        /* bytes held for all */
    u_char                         name[32];   /* the leader's request id */
    ngx_uint_t                     name_len;
    u_char                        *strings;    /* holds the three: */
    ngx_str_t                      provider;
    ngx_str_t                      model;
    const char                    *reason;     /* $llm_error, static */
    ngx_uint_t                     failure;    /* of an end that an old answer
                                                  is better than; LLM_FAIL_ */
    uint64_t                       cost;       /* with priced */
    ngx_msec_int_t                 wait;       /* told with an error; -1 */

    ngx_uint_t                     status;
    off_t                          content_length;  /* -1: not known */
    ngx_str_t                      content_type;

    /* with failed: told in the dialect of each reader */
    llm_error_t                    error;
    llm_str_t                      error_body; /* the provider's own, instead */
    llm_str_t                      words;      /* or only its message, and */
    const char                    *words_code;
    llm_str_t                      last_event; /* an error event not shown */

    unsigned                       head:1;     /* status and type are known */
    unsigned                       stream:1;   /* events, else segments */
    unsigned                       released:1; /* readers may be shown it */
    unsigned                       ids:1;      /* events had an id */
    unsigned                       ended:1;    /* nothing more will come */
    unsigned                       failed:1;   /* and it is not whole */
    unsigned                       told:1;     /* by the provider itself */
    unsigned                       end_marker:1;  /* the provider left out the
                                                     terminal event */

    unsigned                       open:1;     /* can be joined: all of the log
                                                  is there */
    unsigned                       listed:1;   /* in the worker's table */
    unsigned                       settled:1;  /* what is told of its end is
                                                  known */
    unsigned                       shown:1;    /* somebody has been told its
                                                  head */
    unsigned                       usage:1;    /* a stream's usage was asked
                                                  for */
    unsigned                       lost:1;     /* nobody fills it any more */
    unsigned                       mirrored:1; /* another worker reads the
                                                  provider's answer */
    unsigned                       priced:1;
    unsigned                       spent:1;    /* our attempts are used up */
};


struct ngx_http_llm_reader_s {
    ngx_queue_t                    queue;      /* in flight->readers */
    ngx_http_llm_flight_t         *flight;
    ngx_http_llm_wake_pt           wake;

    ngx_http_llm_block_t          *block;      /* the cursor */
    ngx_uint_t                     record;
    ngx_http_llm_block_t          *low;        /* where what it still needs
                                                  begins; NULL: nowhere */

    ngx_http_request_t            *request;    /* NULL: an outlet */
    const llm_dialect_t           *dialect;
    llm_error_t                    error;      /* with failed */

    ngx_chain_t                   *free;
    ngx_chain_t                   *busy;
    ngx_http_posted_request_t      posted_request;

    ngx_event_t                    ping;
    ngx_event_t                    stall;      /* the client takes nothing */
    ngx_event_t                    flush;
    ngx_msec_t                     shown;      /* time of the last output */
    off_t                          sent;       /* c->sent when last looked */

    unsigned                       posted:1;
    unsigned                       attached:1;
    unsigned                       show_usage:1;
    unsigned                       head_sent:1;
    unsigned                       head_only:1;    /* by a head ping */
    unsigned                       last_sent:1;
    unsigned                       flushing:1;
    unsigned                       committed:1;    /* a stream's head was sent
                                                      before there was one */
    unsigned                       mute:1;     /* is shown nothing of the log */
    unsigned                       failed:1;   /* told another end than the
                                                  flight's */
    unsigned                       fold:1;     /* wants a stream as a plain
                                                  answer */
    unsigned                       more:1;     /* there is, than was taken */
};


/* --------------------------------------------- between workers: two ends */

/* what a link carries: this, and len bytes behind it */

typedef struct {
    uint32_t                       len;
    uint32_t                       data;       /* of a record, as there */
    uint16_t                       type;       /* NGX_HTTP_LLM_MSG_... */
    uint16_t                       flags;      /* of a record */
} ngx_http_llm_msg_t;

#define NGX_HTTP_LLM_MSG_HEAD    1
#define NGX_HTTP_LLM_MSG_RECORD  2
#define NGX_HTTP_LLM_MSG_END     3
#define NGX_HTTP_LLM_MSG_NAME    4             /* of the flight, at once */


/* a head's bytes; the strings of these lengths follow */

typedef struct {
    off_t                          content_length;
    uint32_t                       status;
    uint32_t                       provider;
    uint32_t                       model;
    uint32_t                       content_type;
    unsigned                       stream:1;
    unsigned                       released:1;
    unsigned                       ids:1;
    unsigned                       usage:1;
} ngx_http_llm_head_t;


/* an end's */

typedef struct {
    llm_usage_t                    usage;
    uint64_t                       cost;
    ngx_msec_int_t                 wait;
    ngx_uint_t                     failure;
    uint32_t                       status;
    uint32_t                       reason;
    uint32_t                       code;
    uint32_t                       message;
    uint32_t                       error_body;
    uint32_t                       finish_len;
    u_char                         finish[32];
    unsigned                       priced:1;
    unsigned                       spent:1;
    unsigned                       failed:1;
    unsigned                       told:1;
    unsigned                       end_marker:1;
    unsigned                       finished:1;
    unsigned                       ids:1;
} ngx_http_llm_end_t;


/* the end that writes: a reader of the flight */

struct ngx_http_llm_outlet_s {
    ngx_http_llm_reader_t          reader;
    ngx_uint_t                     link;
    ngx_event_t                    event;
    ngx_http_llm_msg_t             msg;
    size_t                         sent;       /* of the message's head */
    u_char                        *pos;        /* of its bytes */
    u_char                        *last;
    u_char                        *text;       /* of the heap, or NULL */
    off_t                          taken;      /* bytes of the log */
    ngx_event_t                    stall;
    unsigned                       busy:1;     /* with a message */
    unsigned                       named:1;    /* the flight's name is said */
    unsigned                       ending:1;   /* it is the last one */
};


/* the end that reads: it fills a flight of this worker */

struct ngx_http_llm_mirror_s {
    ngx_http_llm_flight_t         *flight;
    ngx_uint_t                     link;
    ngx_http_llm_msg_t             msg;
    size_t                         got;        /* of the message, head and all */
    u_char                        *text;       /* of one that is no record */
    unsigned                       waiting:1;  /* for the only reader */
};


/* ---------------------------------------------------------------- attempt */

struct ngx_http_llm_attempt_s {
    ngx_http_llm_ctx_t            *ctx;
    ngx_http_llm_flight_t         *flight;
    ngx_http_llm_target_t         *target;
    ngx_http_llm_provider_t       *provider;   /* of the target */
    ngx_http_request_t            *request;    /* the subrequest */

    ngx_event_t                    timer;
    ngx_msec_t                     timeout[NGX_HTTP_LLM_T_MAX];
    ngx_msec_t                     started;
    ngx_msec_t                     sent;       /* the request, whole; 0: not */
    ngx_msec_t                     last_event;
    ngx_msec_t                     closed_at;  /* the valve, last time */
    ngx_msec_t                     waited;     /* while it was closed */

    void                          *framer;
    ngx_http_status_t              status;
    ngx_http_chunked_t             chunked;
    ngx_array_t                   *headers;    /* of ngx_table_elt_t, for the
                                                  client */
    ngx_str_t                      content_type;
    u_char                        *head_from;  /* where the head was read, */
    u_char                        *head_to;    /* and a copy of it that stays */

    ngx_chain_t                    valve;      /* in u->busy_bufs: closed */
    ngx_buf_t                      valve_buf;
    ngx_http_posted_request_t      posted_request;

    const char                    *error;      /* class, static; NULL: none */
    ngx_uint_t                     told;       /* LLM_FAIL_..., by its words */
    llm_wait_t                     wait;       /* when to come back */
    ngx_msec_t                     first_at;   /* time of the first token */
    llm_str_t                      refusal;    /* with refused: its body */
    ngx_uint_t                     malformed;  /* events that were no JSON */

    unsigned                       asked_usage:1;
    unsigned                       first:1;    /* first token was seen */
    unsigned                       whole:1;    /* the HTTP message ended well */
    unsigned                       closed:1;   /* the valve is */
    unsigned                       posted:1;
    unsigned                       running:1;
    unsigned                       head:1;     /* of the answer, seen */
    unsigned                       again:1;    /* once more, asked in another
                                                  way: no failure */
    unsigned                       blameless:1;    /* ended by us, and the
                                                      server can't help it */
    unsigned                       refused:1;  /* the answer is an error, and
                                                  was to be joined */
    unsigned                       continues:1;    /* asked to go on from what
                                                      was shown */
    unsigned                       object:1;   /* what was released begins as
                                                  JSON does */
    unsigned                       alive:1;    /* it has answered, if oddly */
    unsigned                       tls_failed:1;
    unsigned                       judged:1;   /* the breaker has been told */
    unsigned                       cleaned:1;
};


/* ---------------------------------------------------------------- request */

struct ngx_http_llm_ctx_s {
    ngx_http_request_t            *request;

    const llm_dialect_t           *dialect;    /* the client's */
    const llm_endpoint_t          *endpoint;
    llm_str_t                      model_id;   /* GET models/{id} */
    llm_request_t                  rq;
    llm_mem_t                      mem;        /* r->pool */
    ngx_buf_t                     *header_in;  /* nginx's own, while the body
                                                  is read to one of ours */

    ngx_http_llm_targets_t        *targets;
    ngx_http_llm_target_t         *target;     /* of the attempt */
    uint8_t                        order[NGX_HTTP_LLM_TARGETS_MAX];
    ngx_uint_t                     norder;     /* targets that may serve it */
    uint32_t                       tried;      /* bits, by place in targets */
    uint32_t                       blamed;     /* the same: of this request a
                                                  failure was counted there */
    uint64_t                       need_context;   /* more than this, tokens */
    ngx_http_llm_provider_t       *pinned;     /* keeps state it refers to */
    ngx_atomic_uint_t              probe[2];   /* it is the probe of ... */

    ngx_http_llm_cached_t         *cache;      /* NULL: off */
    ngx_http_llm_flight_t         *flight;
    ngx_http_llm_reader_t          reader;
    ngx_http_llm_attempt_t        *attempt;    /* the last one */
    ngx_uint_t                     attempts;
    ngx_uint_t                     tries;      /* that count */
    ngx_uint_t                     again;      /* of this target */
    ngx_event_t                    backoff;
    ngx_msec_int_t                 wait;       /* told with an error; -1 */

    llm_resume_t                  *resume;     /* resume=on: what was shown */
    const char                    *broke;      /* the failure that broke it */
    llm_usage_t                    spent_usage;    /* of attempts that broke */
    uint64_t                       spent_cost; /* 1e-12 USD */

    /* for the log, when the flight is gone */
    llm_usage_t                    usage;
    ngx_str_t                      finish_reason;
    ngx_str_t                      provider_request_id;
    const char                    *error;      /* $llm_error, static */
    ngx_uint_t                     error_status;    /* for upstream_NNN */
    uint64_t                       overhead;   /* us spent by us */
    ngx_msec_t                     arrived;
    ngx_msec_t                     first_shown;     /* 0: nothing yet */
    ngx_msec_t                     last_shown;

    ngx_str_t                      shape;      /* body in nginx's own errors'
                                                  place */

    /* passthrough */
    ngx_http_llm_provider_t       *passthrough;
    ngx_http_status_t              status;
    ngx_http_chunked_t             chunked;
    ngx_chain_t                   *out_free;
    ngx_chain_t                   *out_busy;

    ngx_str_t                      name;       /* $llm_flight */
    ngx_uint_t                     restarts;   /* flights that were lost */

    unsigned                       follows:1;  /* another's flight */
    unsigned                       alone:1;    /* must not join any more */
    unsigned                       cancel:1;   /* nobody is left */
    unsigned                       spent:1;    /* our attempts are used up */
    unsigned                       resumed:1;  /* a broken stream is gone on
                                                  with */
    unsigned                       no_continue:1;  /* ask anew from now on */
    unsigned                       own:1;      /* the answer is ours, not made
                                                  by nginx */
    unsigned                       reading:1;  /* the client's body */
    unsigned                       aborted:1;  /* the client has gone */
    unsigned                       finalized:1;
    unsigned                       streamed:1; /* the answer was */
    unsigned                       shaped:1;
    unsigned                       internal_chunked:1;
    unsigned                       header_done:1;
};


#include "ngx_http_llm_functions.h"


#endif /* _NGX_HTTP_LLM_MODULE_H_INCLUDED_ */
