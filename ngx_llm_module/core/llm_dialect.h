
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

/* adds the splice that replaces the model, if it changes */
llm_int_t llm_splice_model(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n);


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


/* headers that tell whose account it is, and what is left of it: compatible
 * servers mix the two families, so every dialect has both */

extern const llm_str_t  llm_private_headers[];
extern const llm_str_t  llm_limit_headers[];


#endif /* _LLM_DIALECT_H_INCLUDED_ */
