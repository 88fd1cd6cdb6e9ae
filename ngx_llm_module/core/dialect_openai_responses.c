
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: the events of the responses endpoint, and the one that
 * tells a failure of ours in its manner: the last response object that the
 * provider sent, with its status and error replaced.  That object is kept in
 * openai_answer_t, a large one cut down to what identifies it.
 */


#include <string.h>

#include "dialect_openai.h"


#define OPENAI_RESPONSE_MAX  65536


/* members of an event */

enum {
    OPENAI_E_TYPE = 0,
    OPENAI_E_SEQUENCE,
    OPENAI_E_RESPONSE,
    OPENAI_E_ITEM,
    OPENAI_E_ERROR,
    OPENAI_E_MAX
};


/* events with a meaning to us */

typedef enum {
    OPENAI_R_OTHER = 0,
    OPENAI_R_PREAMBLE,
    OPENAI_R_ADDED,
    OPENAI_R_DONE,
    OPENAI_R_COMPLETED,
    OPENAI_R_FAILED,
    OPENAI_R_ERROR
} openai_responses_e;


typedef struct {
    llm_str_t              name;
    openai_responses_e     type;
} openai_responses_name_t;


typedef struct {
    const openai_answer_t *d;          /* NULL: nothing was seen */
    const llm_error_t     *err;
} openai_failure_t;


static llm_int_t openai_responses_facts(llm_answer_t *a, openai_answer_t *d,
    const llm_event_t *ev, const llm_json_value_t *v, llm_uint_t *what);
static openai_responses_e openai_responses_type(const llm_event_t *ev,
    const llm_json_value_t *v);
static void openai_responses_item(openai_answer_t *d,
    openai_responses_e type, const llm_json_value_t *item);
static llm_uint_t openai_responses_call(const llm_json_value_t *item);
static llm_int_t openai_responses_keep(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *response);
static void openai_render_kept(llm_out_t *o, const void *data);
static void openai_responses_end(llm_answer_t *a,
    const llm_json_value_t *response);
static void openai_responses_failed(llm_answer_t *a, const llm_event_t *ev,
    const llm_json_value_t *v);

static void openai_render_failure(llm_out_t *o, const void *data);
static void openai_render_failed(llm_out_t *o, const void *data);
static void openai_render_response(llm_out_t *o, const llm_str_t *response,
    const llm_error_t *err);
static void openai_render_member(llm_out_t *o, llm_uint_t i,
    const llm_error_t *err);


static const openai_responses_name_t  openai_responses_names[] = {
    { llm_string("response.created"), OPENAI_R_PREAMBLE },
    { llm_string("response.queued"), OPENAI_R_PREAMBLE },
    { llm_string("response.in_progress"), OPENAI_R_PREAMBLE },
    { llm_string("response.output_item.added"), OPENAI_R_ADDED },
    { llm_string("response.output_item.done"), OPENAI_R_DONE },
    { llm_string("response.completed"), OPENAI_R_COMPLETED },
    { llm_string("response.incomplete"), OPENAI_R_COMPLETED },
    { llm_string("response.failed"), OPENAI_R_FAILED },
    { llm_string("error"), OPENAI_R_ERROR },
    { llm_null_string, OPENAI_R_OTHER }
};


llm_int_t
openai_responses_event(llm_answer_t *a, openai_answer_t *d,
    const llm_event_t *ev, llm_uint_t *what)
{
    uint64_t                n;
    llm_int_t               rc;
    llm_json_value_t        v[OPENAI_E_MAX];
    static const llm_str_t  names[OPENAI_E_MAX] = {
        llm_string("type"),
        llm_string("sequence_number"),
        llm_string("response"),
        llm_string("item"),
        llm_string("error")
    };

    rc = llm_json_scan(&ev->data, LLM_JSON_DEPTH_MAX, names, v, OPENAI_E_MAX,
                       NULL);

    if (rc == LLM_ERROR) {
        *what = LLM_EV_MALFORMED;
        return LLM_OK;
    }

    if (rc == LLM_DECLINED) {
        a->begun = 1;
        return LLM_OK;
    }

    rc = openai_responses_facts(a, d, ev, v, what);

    /* an error is the last event: one that is not shown leaves its number to
     * what is told instead */

    if (llm_json_uint(&v[OPENAI_E_SEQUENCE], &n) == LLM_OK) {
        d->sequence = (*what & LLM_EV_ERROR) ? n : n + 1;
    }

    return rc;
}


static llm_int_t
openai_responses_facts(llm_answer_t *a, openai_answer_t *d,
    const llm_event_t *ev, const llm_json_value_t *v, llm_uint_t *what)
{
    openai_responses_e  type;

    type = openai_responses_type(ev, v);

    if (a->want_bound) {
        openai_bind_response(a, &v[OPENAI_E_RESPONSE]);

        if (type == OPENAI_R_DONE) {
            openai_bind_item(a, &v[OPENAI_E_ITEM]);
        }
    }

    switch (type) {

    case OPENAI_R_PREAMBLE:
        *what = LLM_EV_PREAMBLE;
        return openai_responses_keep(a, d, &v[OPENAI_E_RESPONSE]);

    case OPENAI_R_FAILED:
        *what = LLM_EV_TERMINAL|LLM_EV_ERROR;
        openai_responses_end(a, &v[OPENAI_E_RESPONSE]);
        openai_responses_failed(a, ev, v);
        return LLM_OK;

    case OPENAI_R_ERROR:
        *what = LLM_EV_ERROR;
        openai_responses_failed(a, ev, v);
        return LLM_OK;

    case OPENAI_R_COMPLETED:
        *what = LLM_EV_TERMINAL;
        openai_responses_end(a, &v[OPENAI_E_RESPONSE]);
        a->finished = 1;
        break;

    case OPENAI_R_ADDED:
    case OPENAI_R_DONE:
        openai_responses_item(d, type, &v[OPENAI_E_ITEM]);
        break;

    case OPENAI_R_OTHER:
        break;
    }

    a->begun = 1;
    a->open = !a->finished && (d->calls || a->structured);

    return LLM_OK;
}


static openai_responses_e
openai_responses_type(const llm_event_t *ev, const llm_json_value_t *v)
{
    const llm_json_value_t         *type;
    const openai_responses_name_t  *p;

    type = &v[OPENAI_E_TYPE];

    for (p = openai_responses_names; p->name.len; p++) {

        if (type->type == LLM_JSON_STRING) {
            if (llm_json_is(type, (const char *) p->name.data, p->name.len)) {
                return p->type;
            }

        } else if (ev->type.len == p->name.len
                   && memcmp(ev->type.data, p->name.data, p->name.len) == 0)
        {
            return p->type;
        }
    }

    if (type->type == LLM_JSON_ABSENT && llm_json_true(&v[OPENAI_E_ERROR])) {
        return OPENAI_R_ERROR;
    }

    return OPENAI_R_OTHER;
}


static void
openai_responses_item(openai_answer_t *d, openai_responses_e type,
    const llm_json_value_t *item)
{
    if (!openai_responses_call(item)) {
        return;
    }

    if (type == OPENAI_R_ADDED) {
        d->calls++;

    } else if (d->calls) {
        d->calls--;
    }
}


/* function_call, custom_tool_call and all that will come */

static llm_uint_t
openai_responses_call(const llm_json_value_t *item)
{
    llm_json_value_t        type;
    static const llm_str_t  path[] = { llm_string("type") };

    llm_json_path(item, path, 1, &type);

    return type.type == LLM_JSON_STRING
           && type.raw.len > 7
           && memcmp(type.raw.data + type.raw.len - 6, "_call\"", 6) == 0;
}


static llm_int_t
openai_responses_keep(llm_answer_t *a, openai_answer_t *d,
    const llm_json_value_t *response)
{
    size_t      i, len;
    u_char     *p;
    llm_out_t   o;

    if (response->type != LLM_JSON_OBJECT) {
        return LLM_OK;
    }

    o.pos = NULL;
    o.len = 0;

    openai_render_kept(&o, response);

    len = o.len;

    if (d->size < len) {
        p = a->mem->alloc(a->mem->ctx, len);
        if (p == NULL) {
            return LLM_ERROR;
        }

        if (d->response.data && a->mem->free) {
            a->mem->free(a->mem->ctx, d->response.data);
        }

        d->response.data = p;
        d->size = len;
    }

    o.pos = d->response.data;
    o.len = 0;

    openai_render_kept(&o, response);

    d->response.len = len;

    /* a line end would end a line of the event that it will be part of;
     * in a valid text it can stand between tokens only */

    for (i = 0; i < len; i++) {
        if (d->response.data[i] == '\n' || d->response.data[i] == '\r') {
            d->response.data[i] = ' ';
        }
    }

    return LLM_OK;
}


static void
openai_render_kept(llm_out_t *o, const void *data)
{
    llm_uint_t               i;

    enum { ID = 0, OBJECT, CREATED, MODEL, MAX };

    llm_json_value_t         v[MAX];
    const llm_json_value_t  *response = data;
    static const llm_str_t   names[MAX] = {
        llm_string("id"),
        llm_string("object"),
        llm_string("created_at"),
        llm_string("model")
    };

    if (response->raw.len <= OPENAI_RESPONSE_MAX) {
        llm_out(o, response->raw.data, response->raw.len);
        return;
    }

    (void) llm_json_find(&response->raw, names, v, MAX);

    llm_out_text(o, "{\"output\":[]");

    for (i = 0; i < MAX; i++) {
        if (v[i].type == LLM_JSON_ABSENT
            || v[i].raw.len > OPENAI_RESPONSE_MAX / MAX)
        {
            continue;
        }

        llm_out_text(o, ",");
        llm_out_string(o, &names[i]);
        llm_out_text(o, ":");
        llm_out(o, v[i].raw.data, v[i].raw.len);
    }

    llm_out_text(o, "}");
}


static void
openai_responses_end(llm_answer_t *a, const llm_json_value_t *response)
{
    llm_json_value_t        v;

    enum { USAGE = 0, STATUS, INCOMPLETE, REASON };

    static const llm_str_t  path[] = {
        llm_string("usage"),
        llm_string("status"),
        llm_string("incomplete_details"),
        llm_string("reason")
    };

    a->terminal = 1;
    a->open = 0;

    llm_json_path(response, &path[STATUS], 1, &v);
    (void) llm_answer_reason(a, &v);

    llm_json_path(response, &path[INCOMPLETE], 2, &v);
    (void) llm_answer_reason(a, &v);

    llm_json_path(response, &path[USAGE], 1, &v);

    if (v.type == LLM_JSON_OBJECT) {
        openai_usage(&a->usage, &v);
    }
}


/* the error is the response's, the event's, or the event */

static void
openai_responses_failed(llm_answer_t *a, const llm_event_t *ev,
    const llm_json_value_t *v)
{
    llm_json_value_t        error;
    static const llm_str_t  path[] = { llm_string("error") };

    llm_json_path(&v[OPENAI_E_RESPONSE], path, 1, &error);

    if (!llm_json_true(&error)) {
        error = v[OPENAI_E_ERROR];
    }

    if (!llm_json_true(&error)) {
        llm_event_object(ev, &error);
    }

    llm_answer_failed(a, openai_error_status(&error));
}


llm_int_t
openai_responses_error(const llm_answer_t *a, const llm_error_t *err,
    const llm_mem_t *mem, llm_str_t *out)
{
    openai_failure_t  failure;

    failure.d = a->data;
    failure.err = err;

    if (failure.d == NULL || failure.d->response.len == 0) {
        return llm_render(mem, out, openai_render_failure, &failure);
    }

    return llm_render(mem, out, openai_render_failed, &failure);
}


static void
openai_render_failure(llm_out_t *o, const void *data)
{
    const openai_failure_t *f = data;

    llm_out_text(o, "event: error\ndata: {\"type\":\"error\",\"code\":");
    llm_out_cstring(o, f->err->code);
    llm_out_text(o, ",\"message\":");
    llm_out_string(o, &f->err->message);
    llm_out_text(o, ",\"param\":");
    llm_out_cstring(o, f->err->param);
    llm_out_text(o, ",\"sequence_number\":");
    llm_out_uint(o, f->d ? f->d->sequence : 0);
    llm_out_text(o, "}\n\n");
}


static void
openai_render_failed(llm_out_t *o, const void *data)
{
    const openai_failure_t *f = data;

    llm_out_text(o, "event: response.failed\n"
                    "data: {\"type\":\"response.failed\","
                    "\"sequence_number\":");
    llm_out_uint(o, f->d->sequence);
    llm_out_text(o, ",\"response\":");

    openai_render_response(o, &f->d->response, f->err);

    llm_out_text(o, "}\n\n");
}


/* what is not status or error goes out as it came */

static void
openai_render_response(llm_out_t *o, const llm_str_t *response,
    const llm_error_t *err)
{
    u_char                 *p, *last;
    llm_uint_t              i, n;
    llm_json_value_t        v[2], whole;
    static const llm_str_t  names[] = {
        llm_string("status"),
        llm_string("error")
    };

    memset(&whole, 0, sizeof(llm_json_value_t));

    whole.raw = *response;
    whole.type = LLM_JSON_OBJECT;

    p = response->data;
    last = p + response->len - 1;

    (void) llm_json_find(response, names, v, 2);

    /* i is the one that stands first */

    i = (v[0].type == LLM_JSON_ABSENT
         || (v[1].type != LLM_JSON_ABSENT && v[1].raw.data < v[0].raw.data));

    for (n = 0; n < 2; n++, i = !i) {
        if (v[i].type != LLM_JSON_ABSENT) {
            llm_out(o, p, v[i].raw.data - p);
            openai_render_member(o, i, err);
            p = v[i].raw.data + v[i].raw.len;
        }
    }

    llm_out(o, p, last - p);

    n = llm_json_empty(&whole);

    for (i = 0; i < 2; i++) {
        if (v[i].type == LLM_JSON_ABSENT) {
            llm_out(o, ",", n ? 0 : 1);
            llm_out_string(o, &names[i]);
            llm_out_text(o, ":");
            openai_render_member(o, i, err);
            n = 0;
        }
    }

    llm_out_text(o, "}");
}


static void
openai_render_member(llm_out_t *o, llm_uint_t i, const llm_error_t *err)
{
    if (i == 0) {
        llm_out_text(o, "\"failed\"");
        return;
    }

    llm_out_text(o, "{\"code\":");
    llm_out_cstring(o, err->code);
    llm_out_text(o, ",\"message\":");
    llm_out_string(o, &err->message);
    llm_out_text(o, "}");
}
