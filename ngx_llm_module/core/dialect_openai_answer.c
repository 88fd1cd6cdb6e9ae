
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: what an answer tells.  Streams of chat/completions and
 * completions here, those of responses in dialect_openai_responses.c, plain
 * answers of all endpoints here.  The private facts, openai_answer_t, live
 * from the first event or byte to openai_answer_free().
 */


#include <string.h>

#include "dialect_openai.h"


static llm_uint_t openai_is_done(const llm_str_t *data);
static llm_int_t openai_done(llm_answer_t *a, llm_uint_t *what);
static llm_int_t openai_chat_event(llm_answer_t *a, openai_answer_t *d,
    const llm_event_t *ev, llm_uint_t *what);
static llm_uint_t openai_chat_error(llm_answer_t *a, const llm_event_t *ev,
    const llm_json_value_t *error, const llm_json_value_t *object);
static llm_uint_t openai_choices(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *choices, llm_uint_t *n);
static llm_uint_t openai_choice(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *v);
static void openai_choice_seen(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *index, const llm_json_value_t *reason);
static llm_uint_t openai_delta(openai_answer_t *d,
    const llm_json_value_t *delta);
static void openai_count(llm_usage_t *u, uint64_t *count, uint8_t known,
    const llm_json_value_t *value);
static void openai_plain_facts(llm_answer_t *a, const llm_json_value_t *v,
    llm_uint_t done);
static void openai_reason_fits(llm_answer_t *a, llm_uint_t fit);
static void openai_whole_reasons(llm_answer_t *a,
    const llm_json_value_t *choices);
static llm_uint_t openai_plain_error(llm_answer_t *a,
    const llm_json_value_t *v, llm_uint_t end);
static llm_uint_t openai_plain_binds(const llm_answer_t *a);


/* members of a choice */

enum {
    OPENAI_C_DELTA = 0,
    OPENAI_C_REASON,
    OPENAI_C_INDEX,
    OPENAI_C_TEXT,
    OPENAI_C_USAGE,
    OPENAI_C_MAX
};


/* paths in a plain answer */

enum {
    OPENAI_P_ERROR = 0,
    OPENAI_P_OBJECT,
    OPENAI_P_USAGE,
    OPENAI_P_REASON,
    OPENAI_P_STATUS,
    OPENAI_P_INCOMPLETE,
    OPENAI_P_FACTS,                    /* the rest with a->want_bound only */
    OPENAI_P_ID = OPENAI_P_FACTS,
    OPENAI_P_CONVERSATION,
    OPENAI_P_MAX
};


static const llm_str_t  openai_paths[OPENAI_P_MAX] = {
    llm_string("error"),
    llm_string("object"),
    llm_string("usage"),
    llm_string("choices.*.finish_reason"),
    llm_string("status"),
    llm_string("incomplete_details.reason"),
    llm_string("id"),
    llm_string("conversation.id")
};


/* in one that stands in one piece: the reason of every choice is read */

static const llm_str_t  openai_whole_paths[OPENAI_P_FACTS] = {
    llm_string("error"),
    llm_string("object"),
    llm_string("usage"),
    llm_string("choices"),
    llm_string("status"),
    llm_string("incomplete_details.reason")
};


/* codes and types of OpenAI and of those who speak like it */

static const llm_status_name_t  openai_statuses[] = {
    { llm_string("invalid_request_error"), 400 },
    { llm_string("invalid_prompt"), 400 },
    { llm_string("context_length_exceeded"), 400 },
    { llm_string("content_filter"), 400 },
    { llm_string("content_policy_violation"), 400 },
    { llm_string("BadRequestError"), 400 },
    { llm_string("authentication_error"), 401 },
    { llm_string("invalid_api_key"), 401 },
    { llm_string("permission_error"), 403 },
    { llm_string("permission_denied"), 403 },
    { llm_string("not_found_error"), 404 },
    { llm_string("not_found"), 404 },
    { llm_string("model_not_found"), 404 },
    { llm_string("NotFoundError"), 404 },
    { llm_string("rate_limit_error"), 429 },
    { llm_string("rate_limit_exceeded"), 429 },
    { llm_string("rate_limit"), 429 },
    { llm_string("insufficient_quota"), 429 },
    { llm_string("requests"), 429 },
    { llm_string("tokens"), 429 },
    { llm_string("server_error"), 500 },
    { llm_string("api_error"), 500 },
    { llm_string("internal_error"), 500 },
    { llm_string("internal_server_error"), 500 },
    { llm_string("InternalServerError"), 500 },
    { llm_string("overloaded"), 503 },
    { llm_string("overloaded_error"), 503 },
    { llm_string("engine_overloaded"), 503 },
    { llm_string("server_is_overloaded"), 503 },
    { llm_string("service_unavailable"), 503 },
    { llm_string("timeout"), 504 },
    { llm_null_string, 0 }
};


llm_int_t
openai_event(llm_answer_t *a, const llm_event_t *ev, llm_uint_t *what)
{
    openai_answer_t  *d;

    *what = 0;

    if (ev->lines == 0) {
        *what = LLM_EV_PREAMBLE|LLM_EV_PING;
        return LLM_OK;
    }

    d = llm_answer_data(a, sizeof(openai_answer_t));
    if (d == NULL) {
        return LLM_ERROR;
    }

    if (openai_is_done(&ev->data)) {
        return openai_done(a, what);
    }

    if (a->endpoint->id == OPENAI_RESPONSES) {
        return openai_responses_event(a, d, ev, what);
    }

    return openai_chat_event(a, d, ev, what);
}


static llm_uint_t
openai_is_done(const llm_str_t *data)
{
    u_char  *p, *last;

    p = data->data;
    last = p + data->len;

    while (p < last && *p == ' ') {
        p++;
    }

    while (p < last && last[-1] == ' ') {
        last--;
    }

    return last - p == 6 && memcmp(p, "[DONE]", 6) == 0;
}


static llm_int_t
openai_done(llm_answer_t *a, llm_uint_t *what)
{
    /*
     * The responses endpoint has no such event, but servers that wrap it
     * send one after its own last: no sign of an end by itself.
     */

    if (a->endpoint->id == OPENAI_RESPONSES
        && !a->finished && !a->terminal && !a->failed)
    {
        *what = LLM_EV_MALFORMED;
        return LLM_OK;
    }

    a->terminal = 1;
    a->open = 0;

    *what = LLM_EV_TERMINAL;

    return LLM_OK;
}


static llm_int_t
openai_chat_event(llm_answer_t *a, openai_answer_t *d, const llm_event_t *ev,
    llm_uint_t *what)
{
    llm_int_t               rc;
    llm_uint_t              n, said, counted;

    enum { CHOICES = 0, USAGE, ERR, OBJECT, MAX };

    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("choices"),
        llm_string("usage"),
        llm_string("error"),
        llm_string("object")
    };

    rc = llm_json_scan(&ev->data, LLM_JSON_DEPTH_MAX, names, v, MAX, NULL);

    if (rc == LLM_ERROR) {
        *what = LLM_EV_MALFORMED;
        return LLM_OK;
    }

    if (rc == LLM_OK && openai_chat_error(a, ev, &v[ERR], &v[OBJECT])) {
        *what = LLM_EV_ERROR;
        return LLM_OK;
    }

    said = 1;
    counted = 0;

    if (v[USAGE].type == LLM_JSON_OBJECT) {
        openai_usage(&a->usage, &v[USAGE]);
        counted = 1;
    }

    if (v[CHOICES].type == LLM_JSON_ARRAY) {
        said = openai_choices(a, d, &v[CHOICES], &n);

        if (n == 0 && counted) {
            if (a->hide_usage) {
                *what = LLM_EV_HIDDEN;
                return LLM_OK;
            }

            said = 1;
        }
    }

    if (said) {
        a->begun = 1;

    } else {
        *what = LLM_EV_PREAMBLE;
    }

    a->open = !a->finished && (d->tools || (a->structured && a->begun));

    return LLM_OK;
}


static llm_uint_t
openai_chat_error(llm_answer_t *a, const llm_event_t *ev,
    const llm_json_value_t *error, const llm_json_value_t *object)
{
    llm_json_value_t  whole;

    if (llm_json_true(error)) {
        llm_answer_failed(a, openai_error_status(error));
        return 1;
    }

    /* other servers' forms, the error being the event itself */

    if (llm_json_is(object, "error", 5)
        || (ev->type.len == 5 && memcmp(ev->type.data, "error", 5) == 0))
    {
        llm_event_object(ev, &whole);
        llm_answer_failed(a, openai_error_status(&whole));
        return 1;
    }

    return 0;
}


/* 1 if something is said by one of them */

static llm_uint_t
openai_choices(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *choices, llm_uint_t *n)
{
    u_char                 *pos;
    llm_uint_t              said;
    llm_json_value_t        choice, v[OPENAI_C_MAX];
    static const llm_str_t  names[OPENAI_C_MAX] = {
        llm_string("delta"),
        llm_string("finish_reason"),
        llm_string("index"),
        llm_string("text"),
        llm_string("usage")
    };

    *n = 0;
    said = 0;
    pos = NULL;

    while (llm_json_next_object(&choices->raw, &pos, names, v, OPENAI_C_MAX,
                                &choice)
           == LLM_OK)
    {
        (*n)++;

        if (choice.type != LLM_JSON_OBJECT || openai_choice(a, d, v)) {
            said = 1;
        }
    }

    return said;
}


static llm_uint_t
openai_choice(llm_answer_t *a, openai_answer_t *d, const llm_json_value_t *v)
{
    openai_choice_seen(a, d, &v[OPENAI_C_INDEX], &v[OPENAI_C_REASON]);

    if (v[OPENAI_C_USAGE].type == LLM_JSON_OBJECT) {
        openai_usage(&a->usage, &v[OPENAI_C_USAGE]);
    }

    if (!llm_json_empty(&v[OPENAI_C_REASON])) {
        return 1;
    }

    if (a->endpoint->id == OPENAI_COMPLETIONS) {
        return v[OPENAI_C_TEXT].type == LLM_JSON_ABSENT
               || !llm_json_empty(&v[OPENAI_C_TEXT]);
    }

    return v[OPENAI_C_DELTA].type != LLM_JSON_OBJECT
           || openai_delta(d, &v[OPENAI_C_DELTA]);
}


/* the content is whole once every choice that was seen has its reason */

static void
openai_choice_seen(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *index, const llm_json_value_t *reason)
{
    uint64_t    i, bit;
    llm_uint_t  n;

    if (llm_json_uint(index, &i) != LLM_OK) {
        i = 0;
    }

    if (i < OPENAI_CHOICES) {
        bit = (uint64_t) 1 << (i % 64);
        d->seen[i / 64] |= bit;

        if (llm_answer_reason(a, reason)) {
            d->ended[i / 64] |= bit;
            openai_reason_fits(a, openai_fit(a));
        }

    } else {
        d->many = 1;
    }

    if (d->many) {
        a->finished = 0;
        return;
    }

    a->finished = 1;

    for (n = 0; n < OPENAI_CHOICES / 64; n++) {
        if (d->seen[n] & ~d->ended[n]) {
            a->finished = 0;
        }
    }
}


static llm_uint_t
openai_delta(openai_answer_t *d, const llm_json_value_t *delta)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         said;
    llm_json_value_t   v;

    said = 0;
    pos = NULL;

    while (llm_json_next(&delta->raw, &pos, &name, &v) == LLM_OK) {

        if (llm_json_empty(&v)
            || llm_json_name_is(&name, "role", 4)
            || llm_json_name_is(&name, "obfuscation", 11))
        {
            continue;
        }

        said = 1;

        if (llm_json_name_is(&name, "tool_calls", 10)
            || llm_json_name_is(&name, "function_call", 13))
        {
            d->tools = 1;
        }
    }

    return said;
}


void
openai_usage(llm_usage_t *u, const llm_json_value_t *object)
{
    enum { PROMPT = 0, INPUT, COMPLETION, OUTPUT, PROMPT_D, INPUT_D,
           COMPLETION_D, OUTPUT_D, MAX };

    enum { CACHED = 0, CACHE_WRITE, REASONING, DETAILS };

    llm_uint_t              i;
    llm_json_value_t        v[MAX], dv[DETAILS];
    static const llm_str_t  names[MAX] = {
        llm_string("prompt_tokens"),
        llm_string("input_tokens"),
        llm_string("completion_tokens"),
        llm_string("output_tokens"),
        llm_string("prompt_tokens_details"),
        llm_string("input_tokens_details"),
        llm_string("completion_tokens_details"),
        llm_string("output_tokens_details")
    };
    static const llm_str_t  details[DETAILS] = {
        llm_string("cached_tokens"),
        llm_string("cache_write_tokens"),
        llm_string("reasoning_tokens")
    };

    if (llm_json_find(&object->raw, names, v, MAX) != LLM_OK) {
        return;
    }

    openai_count(u, &u->prompt, LLM_USAGE_PROMPT, &v[PROMPT]);
    openai_count(u, &u->prompt, LLM_USAGE_PROMPT, &v[INPUT]);
    openai_count(u, &u->completion, LLM_USAGE_COMPLETION, &v[COMPLETION]);
    openai_count(u, &u->completion, LLM_USAGE_COMPLETION, &v[OUTPUT]);

    for (i = PROMPT_D; i < MAX; i++) {
        if (v[i].type != LLM_JSON_OBJECT
            || llm_json_find(&v[i].raw, details, dv, DETAILS) != LLM_OK)
        {
            continue;
        }

        openai_count(u, &u->cached, LLM_USAGE_CACHED, &dv[CACHED]);
        openai_count(u, &u->cache_write, LLM_USAGE_CACHE_WRITE,
                     &dv[CACHE_WRITE]);
        openai_count(u, &u->reasoning, LLM_USAGE_REASONING, &dv[REASONING]);
    }
}


static void
openai_count(llm_usage_t *u, uint64_t *count, uint8_t known,
    const llm_json_value_t *value)
{
    uint64_t  n;

    if (llm_json_uint(value, &n) == LLM_OK) {
        *count = n;
        u->known |= known;
    }
}


llm_uint_t
openai_error_status(const llm_json_value_t *error)
{
    llm_uint_t              status;
    uint64_t                n;

    enum { CODE = 0, TYPE, MAX };

    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("code"),
        llm_string("type")
    };

    if (error->type != LLM_JSON_OBJECT
        || llm_json_find(&error->raw, names, v, MAX) != LLM_OK)
    {
        return 502;
    }

    if (v[CODE].type == LLM_JSON_STRING && v[CODE].raw.len == 5) {

        /* a number in quotes */

        v[CODE].raw.data++;
        v[CODE].raw.len = 3;
        v[CODE].type = LLM_JSON_NUMBER;
    }

    if (v[CODE].type == LLM_JSON_NUMBER
        && llm_json_uint(&v[CODE], &n) == LLM_OK
        && n >= 400 && n <= 599)
    {
        return (llm_uint_t) n;
    }

    /* the code says more: a model that is not found is an invalid request */

    status = llm_status_by_name(openai_statuses, &v[CODE]);

    if (status == 0) {
        status = llm_status_by_name(openai_statuses, &v[TYPE]);
    }

    return status ? status : 502;
}


llm_int_t
openai_plain(llm_answer_t *a, const u_char *pos, const u_char *last)
{
    llm_uint_t         n;
    openai_answer_t   *d;
    llm_json_value_t   v[OPENAI_P_MAX];

    n = openai_plain_binds(a) ? OPENAI_P_MAX : OPENAI_P_FACTS;
    d = llm_answer_data(a, sizeof(openai_answer_t));

    if (d == NULL
        || llm_plain_feed(a, &d->tap, openai_paths, n, pos, last) != LLM_OK)
    {
        return LLM_ERROR;
    }

    llm_plain_value(d->tap, OPENAI_P_ERROR, &v[OPENAI_P_ERROR]);
    llm_plain_value(d->tap, OPENAI_P_OBJECT, &v[OPENAI_P_OBJECT]);

    (void) openai_plain_error(a, v, 0);

    return LLM_OK;
}


llm_int_t
openai_plain_end(llm_answer_t *a)
{
    llm_uint_t         i;
    openai_answer_t   *d;
    llm_json_value_t   v[OPENAI_P_MAX];

    d = a->data;

    if (d == NULL || d->tap == NULL) {
        return LLM_OK;
    }

    for (i = 0; i < OPENAI_P_FACTS; i++) {
        llm_plain_value(d->tap, i, &v[i]);
    }

    openai_plain_facts(a, v, llm_tap_done(d->tap));

    if (v[OPENAI_P_REASON].duplicate) {

        /* those before the last one are not known */

        openai_reason_fits(a, OPENAI_UNFINISHED);
    }

    if (openai_plain_binds(a)) {

        /* an answer in pieces is large: no items of its output */

        for ( /* void */ ; i < OPENAI_P_MAX; i++) {
            llm_plain_value(d->tap, i, &v[i]);
        }

        llm_answer_bind(a, &v[OPENAI_P_CONVERSATION]);
        llm_answer_bind(a, &v[OPENAI_P_ID]);
    }

    return LLM_OK;
}


llm_int_t
openai_plain_whole(llm_answer_t *a, const llm_str_t *text)
{
    llm_uint_t        done;
    llm_json_value_t  whole, v[OPENAI_P_MAX];

    done = llm_plain_text(text, openai_whole_paths, OPENAI_P_FACTS, v);

    openai_plain_facts(a, v, done);

    if (done && openai_plain_binds(a)) {
        memset(&whole, 0, sizeof(llm_json_value_t));

        whole.raw = *text;
        whole.type = LLM_JSON_OBJECT;

        openai_bind_response(a, &whole);
    }

    return LLM_OK;
}


static llm_uint_t
openai_plain_binds(const llm_answer_t *a)
{
    return a->want_bound && a->endpoint->id == OPENAI_RESPONSES;
}


static void
openai_plain_facts(llm_answer_t *a, const llm_json_value_t *v,
    llm_uint_t done)
{
    a->terminal = done;

    if (openai_plain_error(a, v, 1)) {
        return;
    }

    if (v[OPENAI_P_USAGE].type == LLM_JSON_OBJECT) {
        openai_usage(&a->usage, &v[OPENAI_P_USAGE]);
    }

    if (a->endpoint->id == OPENAI_RESPONSES) {
        (void) llm_answer_reason(a, &v[OPENAI_P_STATUS]);
        (void) llm_answer_reason(a, &v[OPENAI_P_INCOMPLETE]);

    } else if (v[OPENAI_P_REASON].type == LLM_JSON_ARRAY) {
        openai_whole_reasons(a, &v[OPENAI_P_REASON]);

    } else {
        (void) llm_answer_reason(a, &v[OPENAI_P_REASON]);
    }

    a->finished = done
                  && (a->finish_reason_len
                      || a->endpoint->id == OPENAI_EMBEDDINGS);
}


static void
openai_reason_fits(llm_answer_t *a, llm_uint_t fit)
{
    if (a->worst < fit) {
        a->worst = (uint8_t) fit;
    }
}


/* the last one that is told counts, as in pieces, but for what fits */

static void
openai_whole_reasons(llm_answer_t *a, const llm_json_value_t *choices)
{
    u_char                 *pos;
    llm_json_value_t        choice, reason;
    static const llm_str_t  name = llm_string("finish_reason");

    pos = NULL;

    while (llm_json_next_object(&choices->raw, &pos, &name, &reason, 1,
                                &choice)
           == LLM_OK)
    {
        if (llm_answer_reason(a, &reason)) {
            openai_reason_fits(a, openai_fit(a));
            continue;
        }

        openai_reason_fits(a, OPENAI_UNFINISHED);

        if (reason.type != LLM_JSON_ABSENT) {
            a->finish_reason_len = 0;
        }
    }
}


static llm_uint_t
openai_plain_error(llm_answer_t *a, const llm_json_value_t *v, llm_uint_t end)
{
    const llm_json_value_t  *error, *object;

    if (a->failed) {
        return 1;
    }

    error = &v[OPENAI_P_ERROR];

    if (!llm_json_true(error) && !error->overflow) {
        return 0;
    }

    if (a->endpoint->id == OPENAI_RESPONSES) {

        /* a response that failed is an answer with an error in it */

        object = &v[OPENAI_P_OBJECT];

        if (llm_json_is(object, "response", 8)
            || (object->type == LLM_JSON_ABSENT && !end))
        {
            return 0;
        }
    }

    llm_answer_failed(a, openai_error_status(error));

    return 1;
}


void
openai_answer_free(llm_answer_t *a)
{
    openai_answer_t  *d;

    d = a->data;

    if (d == NULL) {
        return;
    }

    a->data = NULL;

    if (d->tap) {
        llm_tap_free(d->tap);
    }

    if (a->mem->free) {
        if (d->response.data) {
            a->mem->free(a->mem->ctx, d->response.data);
        }

        a->mem->free(a->mem->ctx, d);
    }
}
