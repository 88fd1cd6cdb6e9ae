
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The nginx-free half: everything that can be said about LLM requests and
 * answers without a socket.  No nginx header, no I/O, no clock, no globals
 * that change.  The caller gives the memory; time and limits are arguments.
 * Nothing here blocks or keeps a pointer longer than its comment says.
 *
 * Limits of use, first:
 *   - texts are one contiguous piece of memory, except where a function is
 *     named "feed" (those may be called with any split of the input);
 *   - values found in a text point into it: they live as long as it does;
 *   - a function that returns LLM_ERROR ran out of memory, unless its comment
 *     says otherwise; the object it worked on may then only be freed.
 */


#ifndef _LLM_H_INCLUDED_
#define _LLM_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>


/* the values are nginx's, so that codes can be handed through */

#define LLM_OK         0
#define LLM_ERROR     -1
#define LLM_AGAIN     -2
#define LLM_DONE      -4
#define LLM_DECLINED  -5


typedef intptr_t   llm_int_t;
typedef uintptr_t  llm_uint_t;


/* a text, not terminated; the layout is ngx_str_t's */

typedef struct {
    size_t                 len;
    u_char                *data;
} llm_str_t;


#define llm_string(str)  { sizeof(str) - 1, (u_char *) str }
#define llm_null_string  { 0, NULL }

#define llm_str_set(s, text)                                                  \
    (s)->len = sizeof(text) - 1; (s)->data = (u_char *) text


/* memory of the caller: free may be NULL (a pool, an arena) */

typedef struct {
    void                *(*alloc)(void *ctx, size_t size);
    void                 (*free)(void *ctx, void *p);
    void                  *ctx;
} llm_mem_t;


/* ------------------------------------------------------------- llm_json.c */

/*
 * JSON by spans: no tree.  RFC 8259, strict: UTF-8 is checked (no overlong
 * forms, no surrogates), control bytes in strings, leading zeros, trailing
 * commas and text after the value are errors.  Numbers may have any length
 * and size; escaped lone surrogates ("\ud800") are let through, as
 * JavaScript writes them; the member name "" is allowed.
 */

typedef enum {
    LLM_JSON_ABSENT = 0,
    LLM_JSON_NULL,
    LLM_JSON_FALSE,
    LLM_JSON_TRUE,
    LLM_JSON_NUMBER,
    LLM_JSON_STRING,
    LLM_JSON_ARRAY,
    LLM_JSON_OBJECT
} llm_json_type_e;


typedef struct {
    llm_str_t              raw;        /* as written, with quotes or braces */
    uint8_t                type;       /* llm_json_type_e */
    uint8_t                escaped;    /* a string with a backslash in it */
    uint8_t                duplicate;  /* the name was seen more than once;
                                          the value is the last one's */
    uint8_t                overflow;   /* a tap's: too long, dropped */
} llm_json_value_t;


typedef struct {
    const char            *reason;     /* static: "unexpected character", ... */
    size_t                 offset;     /* of the byte at fault */
} llm_json_error_t;


#define LLM_JSON_DEPTH_MAX  512        /* the largest max_depth */


/*
 * Checks the whole text and finds the named members of its top-level object
 * in one pass.  names may be met escaped ("mod\u0065l" is "model").  values
 * has n items and is filled wholly (LLM_JSON_ABSENT where not found).
 *
 * LLM_OK        an object, valid
 * LLM_DECLINED  valid JSON, but not an object
 * LLM_ERROR     not valid; *err says why and where (err may be NULL).
 *               No other meaning: this function takes no memory.
 */
llm_int_t llm_json_scan(const llm_str_t *json, llm_uint_t max_depth,
    const llm_str_t *names, llm_json_value_t *values, llm_uint_t n,
    llm_json_error_t *err);

/*
 * The same for an object within a text that llm_json_scan() found valid:
 * checks nothing again.  LLM_OK, or LLM_DECLINED if it is not an object.
 */
llm_int_t llm_json_find(const llm_str_t *object, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n);

/*
 * Walks an array or object of a valid text.  pos starts NULL.
 * LLM_OK with the next item (name is set for objects, quotes cut, escapes
 * kept; name may be NULL), LLM_DONE at the end.
 */
llm_int_t llm_json_next(const llm_str_t *container, u_char **pos,
    llm_str_t *name, llm_json_value_t *value);

/*
 * The next item of an array and, if it is an object, its named members, in
 * one pass.  As llm_json_next() otherwise; the members of anything else are
 * LLM_JSON_ABSENT.
 */
llm_int_t llm_json_next_object(const llm_str_t *array, u_char **pos,
    const llm_str_t *names, llm_json_value_t *values, llm_uint_t n,
    llm_json_value_t *item);

/* 1 if value is a string that says text (escapes are resolved), else 0 */
llm_uint_t llm_json_is(const llm_json_value_t *value, const char *text,
    size_t len);

/* writes a string's text, unescaped, to dst (room: raw.len); its length.
 * Lone surrogates become U+FFFD. */
size_t llm_json_unescape(u_char *dst, const llm_json_value_t *value);

/* a whole number >= 0 that fits (a fraction or exponent is DECLINED) */
llm_int_t llm_json_uint(const llm_json_value_t *value, uint64_t *n);

/* writes text as the inside of a JSON string; the length.  dst NULL: only
 * the length.  Invalid UTF-8 becomes U+FFFD. */
size_t llm_json_escape(u_char *dst, const llm_str_t *text);


/*
 * A tap on a JSON text that passes by in pieces of any size (a plain answer
 * of 100 MB): keeps the values at a few paths and nothing else.  It does not
 * check the text; on a broken one it captures less or nothing.
 *
 * A path is up to 4 names separated by '.'; '*' stands for any array item:
 * "usage", "choices.*.finish_reason".  The last value met wins.  A value
 * longer than max is dropped (type ABSENT, overflow set).
 */

#define LLM_TAP_PATHS  8

typedef struct llm_tap_s  llm_tap_t;

/* paths must outlive the tap.  NULL: no memory */
llm_tap_t *llm_tap_create(const llm_mem_t *mem, const llm_str_t *paths,
    llm_uint_t n, size_t max);
/* LLM_OK, or LLM_ERROR: no memory */
llm_int_t llm_tap_feed(llm_tap_t *tap, const u_char *pos, const u_char *last);
/* the value at paths[i] so far, complete ones only; lives with the tap */
void llm_tap_value(llm_tap_t *tap, llm_uint_t i, llm_json_value_t *value);
/* 1 once the top-level value is closed */
llm_uint_t llm_tap_done(const llm_tap_t *tap);
void llm_tap_free(llm_tap_t *tap);


/* -------------------------------------------------- framings: llm_sse.c ... */

/* one event of a provider's stream, whatever framed it */

typedef struct {
    llm_str_t              type;       /* "event:" field; len 0: none */
    llm_str_t              id;         /* as has_id says, may be empty */
    llm_str_t              retry;      /* digits; len 0: none */
    llm_str_t              data;       /* lines joined with LF */
    llm_uint_t             lines;      /* of data; 0: an event without data */
    unsigned               has_id:1;
} llm_event_t;


/*
 * A framer cuts a byte stream into events.  Push, resumable at any byte,
 * bounded.  create: max is the largest event in bytes of data; NULL: no
 * memory.  feed: LLM_OK with one event and *pos behind it, LLM_AGAIN when
 * all is taken, LLM_DECLINED when an event passes max (nothing more can be
 * read), LLM_ERROR no memory.  finish: the input has ended; LLM_OK with a
 * last event that no blank line closed, LLM_DONE when there is none.  An
 * event's strings live until the next call and as long as the input given.
 */

typedef struct {
    llm_str_t              name;
    llm_str_t              content_type;

    void                *(*create)(const llm_mem_t *mem, size_t max);
    llm_int_t            (*feed)(void *framer, u_char **pos, u_char *last,
                               llm_event_t *ev);
    llm_int_t            (*finish)(void *framer, llm_event_t *ev);
    void                 (*free)(void *framer);
} llm_framing_t;


extern const llm_framing_t  llm_sse_framing;

/* The event as text/event-stream, LF line ends, closed by a blank line.
 * dst NULL: only the length.  *data, if not NULL, is the offset of the data
 * in a one-line event. */
size_t llm_sse_write(u_char *dst, const llm_event_t *ev, size_t *data);


/* ------------------------------------------------ dialects: llm_dialect.c */

typedef struct llm_dialect_s   llm_dialect_t;
typedef struct llm_request_s   llm_request_t;
typedef struct llm_answer_s    llm_answer_t;
typedef struct llm_caching_s   llm_caching_t;


/* an error of ours, to be told in the client's dialect */

typedef struct {
    llm_uint_t             status;     /* HTTP status that it has or would */
    const char            *code;       /* short, stable: "invalid_json" */
    const char            *param;      /* the member at fault, or NULL */
    llm_str_t              message;    /* for people; any bytes */
    llm_str_t              request_id; /* ours */
} llm_error_t;


#define LLM_METHOD_GET     1
#define LLM_METHOD_POST    2

#define LLM_EP_BODY        0x01        /* takes a JSON body with a model */
#define LLM_EP_STREAM      0x02        /* may be asked to stream */
#define LLM_EP_MODELS      0x04        /* GET models: from the configuration */
#define LLM_EP_MODEL       0x08        /* GET models/{id} */

typedef struct {
    llm_str_t              path;       /* "chat/completions" */
    llm_str_t              operation;  /* OpenTelemetry's: chat, embeddings */
    uint8_t                method;     /* LLM_METHOD_... */
    uint8_t                flags;      /* LLM_EP_... */
    uint8_t                id;         /* the dialect's own number */
} llm_endpoint_t;


/* one client's request, as far as it was read; memory: the caller's */

#define LLM_REQUEST_MEMBERS  20

struct llm_request_s {
    const llm_dialect_t   *dialect;
    const llm_endpoint_t  *endpoint;

    llm_str_t              body;       /* the whole text */
    llm_str_t              model;      /* unescaped; len 0: none yet */

    llm_json_value_t       member[LLM_REQUEST_MEMBERS];  /* the dialect's */

    unsigned               stream:1;
    unsigned               usage_asked:1;   /* usage comes in the stream
                                               without our asking */
    unsigned               structured:1;    /* the answer's text is to be
                                               machine-read as a whole */
};


/* what an attempt wants changed in the request */

typedef struct {
    llm_str_t              model;      /* len 0: as the client wrote it */
    uint64_t               max_output; /* tokens; a larger limit in the request
                                          is lowered to it (of duplicates the
                                          last, as readers do).  0: none */
    llm_str_t              shown;      /* an answer's beginning to go on from,
                                          see continues() below; len 0: none */
    unsigned               ask_usage:1;
} llm_change_t;


/* replace len bytes at offset by text; sorted by offset, not overlapping.
 * At most the model, stream_options and two limits of the output, or the
 * model, one limit and what was shown. */

typedef struct {
    size_t                 offset;
    size_t                 len;
    llm_str_t              text;
} llm_splice_t;

#define LLM_SPLICES  4


#define LLM_USAGE_PROMPT       0x01    /* which members are known: */
#define LLM_USAGE_COMPLETION   0x02    /* absent is not 0 */
#define LLM_USAGE_CACHED       0x04
#define LLM_USAGE_CACHE_WRITE  0x08
#define LLM_USAGE_REASONING    0x10

typedef struct {
    uint64_t               prompt;     /* tokens, those from a cache included */
    uint64_t               completion; /* tokens, reasoning included */
    uint64_t               cached;     /* of prompt, read from its cache */
    uint64_t               cache_write;    /* of prompt, written to its cache */
    uint64_t               reasoning;  /* of completion */
    uint8_t                known;      /* LLM_USAGE_... */
} llm_usage_t;


/*
 * State that a provider keeps and that another provider does not know: what
 * a request refers to and what an answer names is reduced to a digest of 64
 * bits for each (a response, a conversation, a container, a file, a signature
 * or encrypted reasoning).  The same text gives the same digest everywhere.
 */

#define LLM_BOUND_MAX  16

/* 64 bits of a text, never 0; not for secrets, no protection against
 * collisions that are sought */
uint64_t llm_digest(const void *data, size_t len, uint64_t seed);


/*
 * What the events or bytes of one answer told, so far.  One for each attempt;
 * the dialect of the provider fills it.  mem must be able to free; private
 * data is released by answer_free.
 */

struct llm_answer_s {
    const llm_dialect_t   *dialect;
    const llm_endpoint_t  *endpoint;
    const llm_mem_t       *mem;
    void                  *data;       /* the dialect's own */

    uint64_t               bound[LLM_BOUND_MAX];    /* see llm_bound.c; with
                                                       want_bound only */
    uint8_t                nbound;     /* used; further ones write over the
                                          oldest */
    uint8_t                bound_next;

    llm_usage_t            usage;
    u_char                 finish_reason[32];
    uint8_t                finish_reason_len;
    uint8_t                worst;      /* of the finish reasons of several
                                          choices; the dialect's own */

    unsigned               hide_usage:1;    /* set by the caller: usage was
                                               asked by us, not the client */
    unsigned               structured:1;    /* set by the caller from the
                                               request */
    unsigned               want_bound:1;    /* set by the caller: the names of
                                               state kept at the provider */
    unsigned               begun:1;    /* something was said that the reader
                                          of a stream may be shown */
    unsigned               open:1;     /* in the middle of a tool call or of
                                          structured output */
    unsigned               finished:1; /* a finish reason was seen: the
                                          content is whole */
    unsigned               terminal:1; /* the dialect's own last event; of a
                                          plain answer, its JSON was whole */
    unsigned               failed:1;   /* the provider told an error */
    uint16_t               status;     /* with failed: the HTTP status that
                                          fits its error */
};


/* what an event is; a bit mask */

#define LLM_EV_PREAMBLE    0x01        /* a known preamble: can be held back */
#define LLM_EV_PING        0x02        /* no progress */
#define LLM_EV_HIDDEN      0x04        /* not for this client (our usage) */
#define LLM_EV_TERMINAL    0x08
#define LLM_EV_ERROR       0x10        /* the provider's error, in-band */
#define LLM_EV_MALFORMED   0x20        /* its data is not JSON: not shown */


/* for GET models */

typedef struct {
    llm_str_t              id;
    llm_str_t              owner;      /* the provider's name */
} llm_model_t;


struct llm_dialect_s {
    llm_str_t              name;
    llm_str_t              marker;     /* a request header, lower case, that
                                          only this dialect's clients send;
                                          len 0: none */
    const llm_endpoint_t  *endpoints;
    llm_uint_t             nendpoints;

    /* names of headers, lower case, ended by len 0 */
    const llm_str_t       *credentials;     /* a client's key, and whose */
    const llm_str_t       *private_headers; /* of answers: never passed on */
    const llm_str_t       *limit_headers;   /* of answers, prefixes: passed on
                                               only with the client's key */

    /*
     * The facts of a request whose body is rq->body.  LLM_OK; LLM_DECLINED:
     * a client's error, *err filled (message from mem); LLM_ERROR.
     */
    llm_int_t            (*parse)(llm_request_t *rq, const llm_mem_t *mem,
                               llm_error_t *err);

    /* the splices that make the provider's request; *n is set.  Texts are
     * from mem. */
    llm_int_t            (*build)(const llm_request_t *rq,
                               const llm_change_t *change,
                               const llm_mem_t *mem, llm_splice_t *splices,
                               llm_uint_t *n);

    /* 1 if an error answer with this body (status 400 or 422) complains of
     * what build() put in */
    llm_uint_t           (*rejected)(llm_uint_t status, const llm_str_t *body);

    /* What kind of failure is told by an answer or an event of this status
     * whose text is body (may be empty): LLM_FAIL_...  Never LLM_FAIL_NONE
     * for a status >= 400. */
    llm_uint_t           (*failure)(llm_uint_t status, const llm_str_t *body);

    /* Digests of the state that the request refers to, newest first, at most
     * max of them; their number. */
    llm_uint_t           (*bound)(const llm_request_t *rq, uint64_t *digests,
                               llm_uint_t max);

    /* A digest of the conversation's beginning: the same for each of its
     * turns.  0: the request has none. */
    uint64_t             (*prefix)(const llm_request_t *rq);

    /* a stream's next event: its mask in *what, facts in a.  LLM_OK or
     * LLM_ERROR. */
    llm_int_t            (*event)(llm_answer_t *a, const llm_event_t *ev,
                               llm_uint_t *what);

    /* a plain answer's next bytes, and its end.  a->failed: it has an error
     * member at the top.  Of a->bound only the answer's own: its id, its
     * conversation, its container. */
    llm_int_t            (*plain)(llm_answer_t *a, const u_char *pos,
                               const u_char *last);
    llm_int_t            (*plain_end)(llm_answer_t *a);

    /* the same in one step, for a plain answer that stands in one piece;
     * a->bound has the items or blocks of its content, too */
    llm_int_t            (*plain_whole)(llm_answer_t *a,
                               const llm_str_t *text);

    void                 (*answer_free)(llm_answer_t *a);

    /*
     * The text that an event of a stream shows, told after event(), and not
     * of one that is malformed or an error.  LLM_OK: *text is a string within
     * ev->data, empty only where it opens a block for text.  LLM_DONE: it
     * shows nothing (a role, an empty delta, usage, a finish, a ping, the
     * terminal one).  LLM_DECLINED: it shows something else, or is unknown.
     */
    llm_int_t            (*text)(const llm_answer_t *a,
                               const llm_event_t *ev,
                               llm_json_value_t *text);

    /* LLM_OK: *ev, of static texts, is the event that ends the text() in the
     * client's stream; LLM_DECLINED: none is needed, *ev is as before */
    llm_int_t            (*text_end)(llm_event_t *ev);

    /* 1 if a provider can be asked by llm_change_t.shown to go on with an
     * answer to this request, else the member is ignored */
    llm_uint_t           (*continues)(const llm_request_t *rq);

    /* texts from mem: a JSON error body; an error in-band that ends a
     * stream; the terminal event of a stream that was whole without one
     * (may be empty) */
    llm_int_t            (*error)(const llm_error_t *err,
                               const llm_mem_t *mem, llm_str_t *out);
    llm_int_t            (*stream_error)(const llm_answer_t *a,
                               const llm_error_t *err, const llm_mem_t *mem,
                               llm_str_t *out);
    llm_int_t            (*stream_end)(const llm_answer_t *a,
                               const llm_mem_t *mem, llm_str_t *out);

    /* a keepalive for the client's stream; static text */
    void                 (*ping)(const llm_answer_t *a, llm_str_t *out);

    /* GET models, GET models/{id}: JSON from mem.  created: epoch seconds */
    llm_int_t            (*models)(const llm_model_t *models, llm_uint_t n,
                               time_t created, const llm_mem_t *mem,
                               llm_str_t *out);
    llm_int_t            (*model)(const llm_model_t *model, time_t created,
                               const llm_mem_t *mem, llm_str_t *out);

    /* the headers that carry a provider's key: name and what stands before
     * the key ("Bearer ") */
    llm_str_t              key_header;
    llm_str_t              key_prefix;

    /* for the cache, see below */
    const llm_caching_t   *caching;
};


/* ------------------------------------ what a cache asks: dialect_*_cache.c */

/* what a request is to a cache; a bit mask */

#define LLM_CACHE_STATEFUL  0x01       /* it uses or leaves state at the
                                          provider, or has it run a tool */
#define LLM_CACHE_VARIETY   0x02       /* it asks for variety itself:
                                          temperature > 0 or top_p < 1 given,
                                          more than one choice */
#define LLM_CACHE_FIXED     0x04       /* temperature 0 given, or an endpoint
                                          that does not sample */

#define LLM_USERS  3


struct llm_caching_s {

    /* LLM_CACHE_...; rq was parsed */
    llm_uint_t           (*kind)(const llm_request_t *rq);

    /* for whom the request is made: strings, in a fixed order, those not
     * given LLM_JSON_ABSENT.  Their number, 0: nobody is named. */
    llm_uint_t           (*users)(const llm_request_t *rq,
                               llm_json_value_t users[LLM_USERS]);

    /* names of top-level members that do not change the answer and that the
     * answer does not carry; ended by len 0 */
    const llm_str_t     *(*unkeyed)(const llm_endpoint_t *ep);

    /*
     * Of an answer that is whole: NULL if it may be kept, else why not, a
     * static word: "filtered", "truncated" (its limit cut it), "unfinished"
     * (no finish reason, or one that is not known to be good), "failed".
     */
    const char          *(*unfit)(const llm_answer_t *a);

    /* of a plain answer of an endpoint that has no finish reason: 1 if it is
     * what was asked for, 0 if it is something else that is JSON, too */
    llm_uint_t           (*says)(const llm_endpoint_t *ep,
                               const llm_str_t *text);

    /*
     * A stream as one plain answer: text is its events as llm_sse_write()
     * wrote them, hidden ones too, to the terminal one.  LLM_OK: *out, from
     * mem, says the same; LLM_DECLINED: something in it can't be said so (an
     * unknown member that changes, an event not known); LLM_ERROR: memory.
     */
    llm_int_t            (*fold)(const llm_endpoint_t *ep,
                               const llm_str_t *text, const llm_mem_t *mem,
                               llm_str_t *out);

    /*
     * The reverse: a plain answer as a stream of several events, the terminal
     * one too.  With usage the events that tell it, where the endpoint lets
     * the client choose.  LLM_DECLINED: it has members that no event carries.
     */
    llm_int_t            (*unfold)(const llm_endpoint_t *ep,
                               const llm_str_t *text, llm_uint_t usage,
                               const llm_mem_t *mem, llm_str_t *out);
};


/*
 * The canonical form of a valid JSON text: of every object the members in the
 * order of their names' bytes, no insignificant whitespace, all else as it is
 * written.  Names that say the same, escaped or not, stay as they stood: which
 * of them counts is the reader's choice.  It is one to one but for that.
 * Members of the top-level object that skip names (ended by len 0; NULL: none;
 * met escaped or not) are left out.  dst has room for json->len bytes, mem is
 * for the time of the call (free, if it has one, is called).
 * LLM_OK; LLM_DECLINED: more than 65,536 of its members or objects would have
 * to be put in order; LLM_ERROR: no memory, or a text of 2 GB or more.
 */
llm_int_t llm_canonical(const llm_str_t *json, const llm_str_t *skip,
    const llm_mem_t *mem, u_char *dst, size_t *len);

/*
 * Gives a stored answer (events or plain JSON) ids of its own, in place: of
 * the same form and length, equal ones stay equal, seed decides.  Ids that
 * are a provider's state (containers, files, reasoning) stay.
 */
void llm_fresh_ids(u_char *text, size_t len, uint64_t seed);


/* --------------------------------- a broken stream resumed: llm_resume.c */

/*
 * A stream broke after some of its text was shown; another attempt is to end
 * the answer.  Where the provider can be asked to go on from what was shown,
 * its text is appended; else the request is run again, and the new answer is
 * joined to what was shown only if it begins with exactly that.
 *
 * A provider that is asked to go on may take what was shown for a turn that
 * is over, and answer anew.  So as long as the new answer says what was shown
 * from its start, it is held back.  If it says all that was to be gone on
 * from, it is treated as run again; if it differs before, it goes on, and
 * shows what is held.  Not so if that is less than 16 bytes.
 *
 * Limits: one text, nothing else (no tools, no reasoning, no second choice or
 * block, no logprobs); streams of chat/completions, completions and messages.
 * Not those of responses, whose events repeat in each item and at their end
 * what was said before.
 */

typedef struct {
    const llm_mem_t       *mem;        /* can free */

    u_char                *shown;      /* the text so far, unescaped */
    size_t                 len;
    size_t                 size;       /* of its memory */
    size_t                 max;        /* of len */
    size_t                 matched;    /* of len, met again in the new answer
                                          or no longer waited for */
    size_t                 held;       /* of len, its first bytes: what the
                                          new answer said so far, with holds */

    u_char                *out;        /* data of a rewritten event */
    size_t                 out_size;   /* of its memory */

    unsigned               possible:1; /* nothing but text was shown, no more
                                          than max, and not its end */
    unsigned               opened:1;   /* an event with a text was shown, be
                                          it empty; else only a beginning */
    unsigned               continues:1;    /* the new answer goes on, else it
                                              begins anew */
    unsigned               holds:1;    /* with continues: it may still be
                                          that it begins anew */
    unsigned               reopened:1; /* with holds: the new answer had an
                                          event with a text, be it empty */
    unsigned               joined:1;   /* the new answer is being shown */
} llm_resume_t;

/* mem must outlive it */
void llm_resume_init(llm_resume_t *rs, const llm_mem_t *mem, size_t max);

/* An event, and its mask, that is shown of the first answer: keeps its text,
 * or makes it impossible.  Held back events are noted when they are shown.
 * LLM_OK; LLM_ERROR: no memory, and impossible, but the answer may go on. */
llm_int_t llm_resume_note(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, llm_uint_t what);

/* A new answer will come; possible has to be 1.  May be called again, with
 * either way, after any of its events. */
void llm_resume_begin(llm_resume_t *rs, llm_uint_t continues);

/*
 * An event of the new answer, once its dialect's event() told the mask and
 * before the next one, preambles too:
 * LLM_OK        *out is to be shown: the same event, or one whose data lives
 *               until the next call.  Its text is noted.  A hidden one is the
 *               same event, to be shown to those it is not hidden from.
 * LLM_AGAIN     *out, whose mask is 0 and which the dialect's event() must
 *               not be told, is to be shown first: the end of the block that
 *               the client has open.  Then call again with the same ev and
 *               what.  At most once for an event.
 * LLM_DONE      not to be shown: met before, held back, malformed, or hidden
 *               and before the joint
 * LLM_DECLINED  this is another answer, or it ended while some of it was held
 *               back: no event of it was shown
 * LLM_ERROR     no memory
 */
llm_int_t llm_resume_event(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, llm_uint_t what, llm_event_t *out);

/* For llm_change_t.shown: the text without the whitespace at its end, which
 * Anthropic refuses.  Lives until the next call.  len 0: nothing to go on
 * from, the request is to be run again. */
llm_str_t llm_resume_text(const llm_resume_t *rs);

void llm_resume_free(llm_resume_t *rs);


/* ----------------------------------------------- failures: llm_failure.c */

/*
 * Classes of failure: what is done about one depends on nothing else.  Of
 * the classes marked "ours" the dialect does not know whose the key is: with
 * the client's key they are LLM_FAIL_CLIENT.
 */

enum {
    LLM_FAIL_NONE = 0,
    LLM_FAIL_RETRY,                /* the same provider may do it now */
    LLM_FAIL_WAIT,                 /* a rate limit: when it says so, if that is
                                      near, else elsewhere */
    LLM_FAIL_OVERLOADED,           /* the same, but it is the provider's own
                                      trouble (503, 529) */
    LLM_FAIL_SILENT,               /* nothing came: elsewhere only */
    LLM_FAIL_AWAY,                 /* no address, no trust: elsewhere only */
    LLM_FAIL_CONTEXT,              /* where more context is, else give up */
    LLM_FAIL_CLIENT,               /* the request's own fault: give up */
    LLM_FAIL_AUTH,                 /* ours: 401, 403 */
    LLM_FAIL_MODEL,                /* ours: the model is not known there */
    LLM_FAIL_QUOTA                 /* ours: no credit left */
};


/*
 * The object that tells the error, in a body of any form: that of
 * "response", "error", or the body; of an array its first item.  LLM_OK, or
 * LLM_DECLINED: there is none, or the body is not valid JSON.
 */
llm_int_t llm_error_object(const llm_str_t *body, llm_json_value_t *error);


/*
 * When to come back, as the provider said it: Retry-After (seconds or
 * HTTP-date, RFC 9110 10.2.3), retry-after-ms, x-ratelimit-* and
 * anthropic-ratelimit-* (of a limit whose remainder is 0, or the longest if no
 * remainder is told),
 * x-should-retry, Google's RetryInfo in a body.  Milliseconds from the time
 * given as now (epoch, ms); -1: not said.
 */

typedef struct {
    int64_t                after_ms;   /* retry-after-ms */
    int64_t                after;      /* Retry-After */
    int64_t                reset;      /* of limits, the longest that counts */
    int64_t                info;       /* RetryInfo */
    int8_t                 should_retry;    /* 1, 0; -1: not said */
    uint8_t                exhausted;  /* bits: limits whose remainder is 0 */
    uint8_t                left;       /* bits: ... is not 0 */
    int64_t                resets[4];  /* requests, tokens, input-, output- */
} llm_wait_t;

void llm_wait_init(llm_wait_t *w);
/* name in lower case; others than those above are ignored */
void llm_wait_header(llm_wait_t *w, const llm_str_t *name,
    const llm_str_t *value, uint64_t now);
void llm_wait_body(llm_wait_t *w, const llm_str_t *body);
/* ms, -1: not said.  Precedence: after_ms, after, info, resets */
int64_t llm_wait_ms(const llm_wait_t *w);

/* The n-th (from 0) delay of an exponential back-off between min and max with
 * jitter: ms, random within the upper half of min * 2^n, max at most. */
uint64_t llm_backoff(uint64_t min, uint64_t max, llm_uint_t n,
    uint32_t random);


extern const llm_dialect_t  llm_dialect_openai;
extern const llm_dialect_t  llm_dialect_anthropic;

/* all of them; ended by NULL */
extern const llm_dialect_t  *const llm_dialects[];

/* by name; NULL: no such dialect */
const llm_dialect_t *llm_dialect_get(const llm_str_t *name);

/*
 * The endpoint that a path (below the prefix, no leading '/', no query, no
 * version) names, whatever the method.  prefer, if not
 * NULL, wins where two dialects have the path.  NULL: none.  *dialect is
 * set; for LLM_EP_MODEL *id is the rest of the path.
 */
const llm_endpoint_t *llm_endpoint_find(const llm_str_t *path,
    const llm_dialect_t *prefer, const llm_dialect_t **dialect,
    llm_str_t *id);

/* text from mem, pieces joined; for messages and bodies.  Each piece is a
 * llm_str_t *; the last is NULL. */
llm_int_t llm_concat(const llm_mem_t *mem, llm_str_t *out, ...);


#endif /* _LLM_H_INCLUDED_ */
