
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the dialects share, for the dialect files alone: the checks of a
 * request's members, texts rendered in two passes, facts of an answer.
 * Everybody else talks to a dialect through llm.h.
 */


#ifndef _LLM_DIALECT_H_INCLUDED_
#define _LLM_DIALECT_H_INCLUDED_


#include "llm.h"


#define LLM_REQUEST_DEPTH  256         /* of nesting in a request */
#define LLM_MODEL_MAX      256         /* bytes of a model's name */
#define LLM_PLAIN_VALUE    16384       /* what is kept of a plain answer */


/* ------------------------------------------------------------- requests */

/* places in rq->member that every dialect has in common */

#define LLM_MEMBER_MODEL   0
#define LLM_MEMBER_STREAM  1


/* what one member has to be; endpoints are bits of llm_endpoint_t.id */

typedef struct {
    uint8_t                member;
    uint8_t                types;      /* bits of llm_json_type_e; 0: any */
    uint16_t               endpoints;  /* where it has a meaning */
    uint16_t               required;   /* where it may not be absent */
    const char            *must;       /* " must be ..." */
} llm_rule_t;


#define llm_bit(n)  (1 << (n))


typedef struct {
    const llm_str_t       *names;      /* of rq->member, terminated texts */
    llm_uint_t             n;
    const llm_rule_t      *rules;
    llm_uint_t             nrules;
} llm_request_spec_t;


/* reads rq->member, rq->model and rq->stream; the codes are parse()'s */
llm_int_t llm_request_parse(llm_request_t *rq, const llm_request_spec_t *spec,
    const llm_mem_t *mem, llm_error_t *err);

/* follows names into nested objects of a valid text; LLM_JSON_ABSENT if
 * there is no such member */
void llm_json_path(const llm_json_value_t *value, const llm_str_t *names,
    llm_uint_t n, llm_json_value_t *found);

/* adds a splice, kept sorted by offset */
void llm_splice_add(llm_splice_t *splices, llm_uint_t *n,
    const llm_splice_t *s);

/* adds the splice that replaces the model, if it changes */
llm_int_t llm_splice_model(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n);

/* adds the one that lowers a member to change->max_output: a whole number
 * of any length that is larger; anything else stays as it is */
llm_int_t llm_splice_limit(const llm_request_t *rq, llm_uint_t member,
    const llm_change_t *change, const llm_mem_t *mem, llm_splice_t *splices,
    llm_uint_t *n);


/* ---------------------------------------------------------------- texts */

/* a text is rendered twice: once to count, once to write */

typedef struct {
    u_char                *pos;        /* NULL: only count */
    size_t                 len;
} llm_out_t;


typedef void (*llm_render_pt)(llm_out_t *o, const void *data);

llm_int_t llm_render(const llm_mem_t *mem, llm_str_t *out,
    llm_render_pt render, const void *data);

#define llm_out_text(o, text)  llm_out(o, text, sizeof(text) - 1)

void llm_out(llm_out_t *o, const void *text, size_t len);
void llm_out_uint(llm_out_t *o, uint64_t n);
void llm_out_time(llm_out_t *o, time_t t);           /* RFC 3339, UTC */
void llm_out_string(llm_out_t *o, const llm_str_t *text);
void llm_out_cstring(llm_out_t *o, const char *text);    /* NULL: null */


/* -------------------------------------------------------------- answers */

/* the dialect's own data, zeroed; NULL: no memory */
void *llm_answer_data(llm_answer_t *a, size_t size);

/* keeps a finish reason; 1 if value is one */
llm_uint_t llm_answer_reason(llm_answer_t *a, const llm_json_value_t *value);

void llm_answer_failed(llm_answer_t *a, llm_uint_t status);

/* 1 if nothing is said by it: null, "", [], {} */
llm_uint_t llm_json_empty(const llm_json_value_t *value);

/* 1 if JavaScript would take it for true, as the SDKs ask of an error */
llm_uint_t llm_json_true(const llm_json_value_t *value);

/* the object that is an event's data */
void llm_event_object(const llm_event_t *ev, llm_json_value_t *object);

/* a member's name from llm_json_next() */
llm_uint_t llm_json_name_is(const llm_str_t *name, const char *text,
    size_t len);


/* what an error's type or code says; ended by len 0 */

typedef struct {
    llm_str_t              name;
    llm_uint_t             status;
} llm_status_name_t;

/* 0: not in the table */
llm_uint_t llm_status_by_name(const llm_status_name_t *table,
    const llm_json_value_t *value);


/* creates *tap at the first call; LLM_OK or LLM_ERROR */
llm_int_t llm_plain_feed(llm_answer_t *a, llm_tap_t **tap,
    const llm_str_t *paths, llm_uint_t n, const u_char *pos,
    const u_char *last);

/* a tapped value, checked; LLM_JSON_ABSENT if it is not valid */
void llm_plain_value(llm_tap_t *tap, llm_uint_t i, llm_json_value_t *value);

/* the values at the same paths of a text that stands in one piece; 1 if it
 * is a valid object */
llm_uint_t llm_plain_text(const llm_str_t *text, const llm_str_t *paths,
    llm_uint_t n, llm_json_value_t *values);


/* ---------------------------------------------- failures: llm_classify.c */

/* what every dialect does: compatible servers mix the codes of all APIs */
llm_uint_t llm_classify(llm_uint_t status, const llm_str_t *body);

/* 1 if text has word in it, which is in lower case, in any case */
llm_uint_t llm_mentions(const llm_str_t *text, const char *word, size_t len);


/* ------------------------------------------------- digests: llm_digest.c */

/* llm_digest() of a text that comes in pieces */

typedef struct {
    uint64_t               hash;
    uint64_t               len;
    u_char                 rest[8];    /* len % 8 bytes not yet mixed in */
} llm_digest_t;

void llm_digest_init(llm_digest_t *d, uint64_t seed);
void llm_digest_add(llm_digest_t *d, const void *data, size_t len);
/* the text of a JSON string, unescaped; of anything else nothing */
void llm_digest_string(llm_digest_t *d, const llm_json_value_t *value);
/* never 0; d may go on after it */
uint64_t llm_digest_end(const llm_digest_t *d);


/* ---------------------------------- state kept at a provider: llm_bound.c */

/* a request's references: the last max that were added */

typedef struct {
    uint64_t              *digests;    /* a ring */
    llm_uint_t             max;
    llm_uint_t             n;
    llm_uint_t             next;
} llm_bound_t;

void llm_bound_init(llm_bound_t *b, uint64_t *digests, llm_uint_t max);
/* a string that is not empty; else nothing, as of those seen already */
void llm_bound_add(llm_bound_t *b, const llm_json_value_t *value);
/* the same for "ID" and {"id": "ID"} */
void llm_bound_add_id(llm_bound_t *b, const llm_json_value_t *value);
/* puts the newest first; their number */
llm_uint_t llm_bound_end(llm_bound_t *b);

/*
 * 1 if one of words, ended by len 0, stands in text as a whole JSON string:
 * a name or a value.  Each ends in one of d e f g t u v w, which is what
 * makes it fast.  Written with escapes it is not found.
 */
llm_uint_t llm_bound_words(const llm_str_t *text, const llm_str_t *words);

/* the same for what an answer names: only with a->want_bound */
void llm_answer_bind(llm_answer_t *a, const llm_json_value_t *value);
void llm_answer_bind_id(llm_answer_t *a, const llm_json_value_t *value);


/* ---------------------------- the conversation's beginning: llm_prefix.c */

/*
 * Clients write the same beginning anew with each turn, and not always in the
 * same bytes.  Not looked at are: cache_control, which moves on to the newest
 * message; whether a text is a string or the only block of its kind; the line
 * x-anthropic-billing-header, which Claude Code puts first into its system
 * text with a number that changes each time.
 */

/* a value as it is written */
void llm_prefix_raw(llm_digest_t *d, const llm_json_value_t *value);
/* a text, or an array of blocks */
void llm_prefix_content(llm_digest_t *d, const llm_json_value_t *value);
/* the messages up to the first of the user; if there is none, the first
 * message.  A string is one of the user.  1 if there is any. */
llm_uint_t llm_prefix_messages(llm_digest_t *d,
    const llm_json_value_t *messages);


/* --------------------------------- what a request is to a cache: llm_kind.c */

/* what a request may say of sampling: the first names of a dialect's table
 * for llm_kind_find() */

enum {
    LLM_K_TEMPERATURE = 0,
    LLM_K_TOP_P,
    LLM_K_N,                           /* this and the rest: of choices */
    LLM_K_BEST_OF,
    LLM_K_CANDIDATES,
    LLM_K_MAX
};

#define LLM_K_NAMES                                                           \
    llm_string("temperature"),                                                \
    llm_string("top_p"),                                                      \
    llm_string("n"),                                                          \
    llm_string("best_of"),                                                    \
    llm_string("candidateCount")

/* The members at the top of rq->body; of duplicates the last.  Values that
 * are large and in rq->member are not passed again. */
void llm_kind_find(const llm_request_t *rq, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n);

/* LLM_CACHE_VARIETY, LLM_CACHE_FIXED or 0 */
llm_uint_t llm_kind_sampling(const llm_json_value_t v[LLM_K_MAX]);


/* headers that tell whose account it is, and what is left of it: compatible
 * servers mix the two families, so every dialect has both */

extern const llm_str_t  llm_private_headers[];
extern const llm_str_t  llm_limit_headers[];


#endif /* _LLM_DIALECT_H_INCLUDED_ */
