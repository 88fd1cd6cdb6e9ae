
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: what an answer tells, as a stream of named events or
 * as one JSON text.  The private facts, anthropic_answer_t, live from the
 * first event or byte to anthropic_answer_free().
 */


#include <string.h>

#include "dialect_anthropic.h"


/* members of an event */

enum {
    ANTHROPIC_E_TYPE = 0,
    ANTHROPIC_E_INDEX,
    ANTHROPIC_E_DELTA,
    ANTHROPIC_E_BLOCK,
    ANTHROPIC_E_MESSAGE,
    ANTHROPIC_E_USAGE,
    ANTHROPIC_E_ERROR,
    ANTHROPIC_E_MAX
};


/* paths in a plain answer */

enum {
    ANTHROPIC_P_ERROR = 0,
    ANTHROPIC_P_USAGE,
    ANTHROPIC_P_REASON,
    ANTHROPIC_P_INPUT,
    ANTHROPIC_P_FACTS,                 /* the rest with a->want_bound only */
    ANTHROPIC_P_CONTAINER = ANTHROPIC_P_FACTS,
    ANTHROPIC_P_MAX
};


typedef struct {
    llm_str_t              name;
    anthropic_type_e       type;
} anthropic_name_t;


static llm_uint_t anthropic_facts(llm_answer_t *a, anthropic_answer_t *d,
    anthropic_type_e type, const llm_json_value_t *v);
static llm_uint_t anthropic_block(anthropic_answer_t *d,
    const llm_json_value_t *v);
static uint64_t anthropic_index(const llm_json_value_t *index);
static void anthropic_usage(llm_answer_t *a, anthropic_answer_t *d,
    const llm_json_value_t *object);
static llm_uint_t anthropic_error_status(const llm_json_value_t *error);
static void anthropic_plain_facts(llm_answer_t *a, anthropic_answer_t *d,
    const llm_json_value_t *v, llm_uint_t done);
static llm_uint_t anthropic_plain_error(llm_answer_t *a,
    const llm_json_value_t *error);


/* the most frequent first */

static const anthropic_name_t  anthropic_names[] = {
    { llm_string("content_block_delta"), ANTHROPIC_T_BLOCK_DELTA },
    { llm_string("content_block_start"), ANTHROPIC_T_BLOCK_START },
    { llm_string("content_block_stop"), ANTHROPIC_T_BLOCK_STOP },
    { llm_string("ping"), ANTHROPIC_T_PING },
    { llm_string("message_start"), ANTHROPIC_T_START },
    { llm_string("message_delta"), ANTHROPIC_T_DELTA },
    { llm_string("message_stop"), ANTHROPIC_T_STOP },
    { llm_string("error"), ANTHROPIC_T_ERROR },
    { llm_null_string, ANTHROPIC_T_OTHER }
};


static const llm_status_name_t  anthropic_statuses[] = {
    { llm_string("invalid_request_error"), 400 },
    { llm_string("authentication_error"), 401 },
    { llm_string("billing_error"), 402 },
    { llm_string("permission_error"), 403 },
    { llm_string("not_found_error"), 404 },
    { llm_string("request_too_large"), 413 },
    { llm_string("rate_limit_error"), 429 },
    { llm_string("api_error"), 500 },
    { llm_string("timeout_error"), 504 },
    { llm_string("overloaded_error"), 529 },
    { llm_null_string, 0 }
};


static const llm_str_t  anthropic_paths[ANTHROPIC_P_MAX] = {
    llm_string("error"),
    llm_string("usage"),
    llm_string("stop_reason"),
    llm_string("input_tokens"),
    llm_string("container.id")
};


llm_int_t
anthropic_event(llm_answer_t *a, const llm_event_t *ev, llm_uint_t *what)
{
    llm_int_t               rc;
    anthropic_type_e        type;
    anthropic_answer_t     *d;
    llm_json_value_t        v[ANTHROPIC_E_MAX];
    static const llm_str_t  names[ANTHROPIC_E_MAX] = {
        llm_string("type"),
        llm_string("index"),
        llm_string("delta"),
        llm_string("content_block"),
        llm_string("message"),
        llm_string("usage"),
        llm_string("error")
    };

    *what = 0;

    if (ev->lines == 0) {
        *what = LLM_EV_PREAMBLE|LLM_EV_PING;
        return LLM_OK;
    }

    d = llm_answer_data(a, sizeof(anthropic_answer_t));
    if (d == NULL) {
        return LLM_ERROR;
    }

    rc = llm_json_scan(&ev->data, LLM_JSON_DEPTH_MAX, names, v,
                       ANTHROPIC_E_MAX, NULL);

    if (rc == LLM_ERROR) {
        *what = LLM_EV_MALFORMED;
        return LLM_OK;
    }

    type = anthropic_event_type(ev, &v[ANTHROPIC_E_TYPE]);

    if (rc == LLM_DECLINED) {
        type = ANTHROPIC_T_OTHER;
    }

    if (a->want_bound) {
        anthropic_bind_message(a, &v[ANTHROPIC_E_MESSAGE]);
        anthropic_bind_container(a, &v[ANTHROPIC_E_DELTA]);
        anthropic_bind_block(a, &v[ANTHROPIC_E_DELTA]);
        anthropic_bind_block(a, &v[ANTHROPIC_E_BLOCK]);
    }

    *what = anthropic_facts(a, d, type, v);

    if (!(*what & (LLM_EV_PREAMBLE|LLM_EV_ERROR))) {
        a->begun = 1;
    }

    a->open = !a->terminal && !a->finished
              && (d->tools || (a->structured && a->begun));

    return LLM_OK;
}


anthropic_type_e
anthropic_event_type(const llm_event_t *ev, const llm_json_value_t *type)
{
    const anthropic_name_t  *p;

    for (p = anthropic_names; p->name.len; p++) {

        if (type->type == LLM_JSON_STRING) {
            if (llm_json_is(type, (const char *) p->name.data, p->name.len)) {
                break;
            }

        } else if (ev->type.len == p->name.len
                   && memcmp(ev->type.data, p->name.data, p->name.len) == 0)
        {
            break;
        }
    }

    return p->type;
}


static llm_uint_t
anthropic_facts(llm_answer_t *a, anthropic_answer_t *d,
    anthropic_type_e type, const llm_json_value_t *v)
{
    llm_json_value_t        found;
    static const llm_str_t  usage = llm_string("usage");
    static const llm_str_t  reason = llm_string("stop_reason");

    switch (type) {

    case ANTHROPIC_T_PING:
        return LLM_EV_PREAMBLE|LLM_EV_PING;

    case ANTHROPIC_T_START:
        d->started = 1;
        llm_json_path(&v[ANTHROPIC_E_MESSAGE], &usage, 1, &found);
        anthropic_usage(a, d, &found);
        return LLM_EV_PREAMBLE;

    case ANTHROPIC_T_BLOCK_START:
        return anthropic_block(d, v) ? LLM_EV_PREAMBLE : 0;

    case ANTHROPIC_T_BLOCK_STOP:
        d->tools &= ~anthropic_index(&v[ANTHROPIC_E_INDEX]);
        return 0;

    case ANTHROPIC_T_DELTA:
        anthropic_usage(a, d, &v[ANTHROPIC_E_USAGE]);
        llm_json_path(&v[ANTHROPIC_E_DELTA], &reason, 1, &found);

        if (llm_answer_reason(a, &found)) {
            a->finished = 1;
        }

        return 0;

    case ANTHROPIC_T_STOP:
        a->terminal = 1;
        return LLM_EV_TERMINAL;

    default:

        if (type != ANTHROPIC_T_ERROR
            && (v[ANTHROPIC_E_TYPE].type != LLM_JSON_ABSENT
                || !llm_json_true(&v[ANTHROPIC_E_ERROR])))
        {
            return 0;
        }

        llm_answer_failed(a, anthropic_error_status(&v[ANTHROPIC_E_ERROR]));
        return LLM_EV_ERROR;
    }
}


/* 1 if the block that starts is a known one and empty */

static llm_uint_t
anthropic_block(anthropic_answer_t *d, const llm_json_value_t *v)
{
    enum { TYPE = 0, TEXT, THINKING, SIGNATURE, MAX };

    llm_json_value_t         b[MAX];
    const llm_json_value_t  *block;
    static const llm_str_t   names[MAX] = {
        llm_string("type"),
        llm_string("text"),
        llm_string("thinking"),
        llm_string("signature")
    };

    block = &v[ANTHROPIC_E_BLOCK];

    if (block->type != LLM_JSON_OBJECT
        || llm_json_find(&block->raw, names, b, MAX) != LLM_OK)
    {
        return 0;
    }

    if (b[TYPE].type == LLM_JSON_STRING
        && b[TYPE].raw.len >= sizeof("\"tool_use\"") - 1
        && memcmp(b[TYPE].raw.data + b[TYPE].raw.len - 9, "tool_use\"", 9)
           == 0)
    {
        /* server_tool_use and mcp_tool_use, too */

        d->tools |= anthropic_index(&v[ANTHROPIC_E_INDEX]);
        return 0;
    }

    if (llm_json_is(&b[TYPE], "text", 4)) {
        return llm_json_empty(&b[TEXT]);
    }

    if (llm_json_is(&b[TYPE], "thinking", 8)) {
        return llm_json_empty(&b[THINKING]) && llm_json_empty(&b[SIGNATURE]);
    }

    return 0;
}


static uint64_t
anthropic_index(const llm_json_value_t *index)
{
    uint64_t  n;

    if (llm_json_uint(index, &n) != LLM_OK) {
        n = 0;
    }

    return (uint64_t) 1 << (n % 64);
}


/* counts are cumulative, and an event may leave out those it told before */

static void
anthropic_usage(llm_answer_t *a, anthropic_answer_t *d,
    const llm_json_value_t *object)
{
    enum { INPUT = 0, READ, WRITE, OUTPUT, DETAILS, MAX };

    uint8_t                 known;
    llm_usage_t            *u;
    llm_json_value_t        v[MAX], thinking;
    static const llm_str_t  names[MAX] = {
        llm_string("input_tokens"),
        llm_string("cache_read_input_tokens"),
        llm_string("cache_creation_input_tokens"),
        llm_string("output_tokens"),
        llm_string("output_tokens_details")
    };
    static const llm_str_t  path = llm_string("thinking_tokens");

    if (object->type != LLM_JSON_OBJECT
        || llm_json_find(&object->raw, names, v, MAX) != LLM_OK)
    {
        return;
    }

    known = 0;
    u = &a->usage;

    if (llm_json_uint(&v[INPUT], &d->input) == LLM_OK) {
        known |= LLM_USAGE_PROMPT;
    }

    if (llm_json_uint(&v[READ], &d->cached) == LLM_OK) {
        known |= LLM_USAGE_PROMPT|LLM_USAGE_CACHED;
    }

    if (llm_json_uint(&v[WRITE], &d->cache_write) == LLM_OK) {
        known |= LLM_USAGE_PROMPT|LLM_USAGE_CACHE_WRITE;
    }

    if (llm_json_uint(&v[OUTPUT], &u->completion) == LLM_OK) {
        known |= LLM_USAGE_COMPLETION;
    }

    llm_json_path(&v[DETAILS], &path, 1, &thinking);

    if (llm_json_uint(&thinking, &u->reasoning) == LLM_OK) {
        known |= LLM_USAGE_REASONING;
    }

    u->known |= known;
    u->cached = d->cached;
    u->cache_write = d->cache_write;
    u->prompt = d->input + d->cached + d->cache_write;
}


static llm_uint_t
anthropic_error_status(const llm_json_value_t *error)
{
    llm_uint_t              status;
    llm_json_value_t        type;
    static const llm_str_t  path = llm_string("type");

    llm_json_path(error, &path, 1, &type);

    status = llm_status_by_name(anthropic_statuses, &type);

    return status ? status : 502;
}


llm_int_t
anthropic_plain(llm_answer_t *a, const u_char *pos, const u_char *last)
{
    llm_uint_t           n;
    llm_json_value_t     error;
    anthropic_answer_t  *d;

    n = a->want_bound ? ANTHROPIC_P_MAX : ANTHROPIC_P_FACTS;
    d = llm_answer_data(a, sizeof(anthropic_answer_t));

    if (d == NULL
        || llm_plain_feed(a, &d->tap, anthropic_paths, n, pos, last)
           != LLM_OK)
    {
        return LLM_ERROR;
    }

    llm_plain_value(d->tap, ANTHROPIC_P_ERROR, &error);

    (void) anthropic_plain_error(a, &error);

    return LLM_OK;
}


llm_int_t
anthropic_plain_end(llm_answer_t *a)
{
    llm_uint_t            i;
    llm_json_value_t      v[ANTHROPIC_P_MAX];
    anthropic_answer_t   *d;

    d = a->data;

    if (d == NULL || d->tap == NULL) {
        return LLM_OK;
    }

    for (i = 0; i < ANTHROPIC_P_FACTS; i++) {
        llm_plain_value(d->tap, i, &v[i]);
    }

    anthropic_plain_facts(a, d, v, llm_tap_done(d->tap));

    if (a->want_bound) {

        /* an answer in pieces is large: no blocks of its content */

        llm_plain_value(d->tap, ANTHROPIC_P_CONTAINER,
                        &v[ANTHROPIC_P_CONTAINER]);
        llm_answer_bind(a, &v[ANTHROPIC_P_CONTAINER]);
    }

    return LLM_OK;
}


llm_int_t
anthropic_plain_whole(llm_answer_t *a, const llm_str_t *text)
{
    llm_uint_t          done;
    llm_json_value_t    whole, v[ANTHROPIC_P_MAX];
    anthropic_answer_t  d;

    memset(&d, 0, sizeof(anthropic_answer_t));

    done = llm_plain_text(text, anthropic_paths, ANTHROPIC_P_FACTS, v);

    anthropic_plain_facts(a, &d, v, done);

    if (done && a->want_bound) {
        memset(&whole, 0, sizeof(llm_json_value_t));

        whole.raw = *text;
        whole.type = LLM_JSON_OBJECT;

        anthropic_bind_message(a, &whole);
    }

    return LLM_OK;
}


static void
anthropic_plain_facts(llm_answer_t *a, anthropic_answer_t *d,
    const llm_json_value_t *v, llm_uint_t done)
{
    a->terminal = done;

    if (anthropic_plain_error(a, &v[ANTHROPIC_P_ERROR])) {
        return;
    }

    if (a->endpoint->id == ANTHROPIC_COUNT) {

        if (llm_json_uint(&v[ANTHROPIC_P_INPUT], &d->input) == LLM_OK) {
            a->usage.prompt = d->input;
            a->usage.known |= LLM_USAGE_PROMPT;
            a->finished = done;
        }

        return;
    }

    anthropic_usage(a, d, &v[ANTHROPIC_P_USAGE]);

    if (llm_answer_reason(a, &v[ANTHROPIC_P_REASON])) {
        a->finished = done;
    }
}


static llm_uint_t
anthropic_plain_error(llm_answer_t *a, const llm_json_value_t *error)
{
    if (a->failed) {
        return 1;
    }

    if (!llm_json_true(error) && !error->overflow) {
        return 0;
    }

    llm_answer_failed(a, anthropic_error_status(error));

    return 1;
}


void
anthropic_answer_free(llm_answer_t *a)
{
    anthropic_answer_t  *d;

    d = a->data;

    if (d == NULL) {
        return;
    }

    a->data = NULL;

    if (d->tap) {
        llm_tap_free(d->tap);
    }

    if (a->mem->free) {
        a->mem->free(a->mem->ctx, d);
    }
}
