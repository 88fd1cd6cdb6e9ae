
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: its endpoints, what is read of a request and changed
 * in it, and the texts that we say ourselves.  Its answers are read in
 * dialect_anthropic_answer.c.  Called through llm_dialect_anthropic alone.
 */


#include <string.h>

#include "dialect_anthropic.h"


typedef struct {
    const llm_model_t     *models;
    llm_uint_t             n;
    time_t                 created;
} anthropic_models_t;


static llm_int_t anthropic_parse(llm_request_t *rq, const llm_mem_t *mem,
    llm_error_t *err);
static llm_int_t anthropic_build(const llm_request_t *rq,
    const llm_change_t *change, const llm_mem_t *mem, llm_splice_t *splices,
    llm_uint_t *n);
static llm_uint_t anthropic_rejected(llm_uint_t status,
    const llm_str_t *body);

static llm_int_t anthropic_error(const llm_error_t *err,
    const llm_mem_t *mem, llm_str_t *out);
static void anthropic_render_error(llm_out_t *o, const void *data);
static const char *anthropic_error_type(llm_uint_t status);
static llm_int_t anthropic_stream_error(const llm_answer_t *a,
    const llm_error_t *err, const llm_mem_t *mem, llm_str_t *out);
static void anthropic_render_stream_error(llm_out_t *o, const void *data);
static llm_int_t anthropic_stream_end(const llm_answer_t *a,
    const llm_mem_t *mem, llm_str_t *out);
static void anthropic_ping(const llm_answer_t *a, llm_str_t *out);

static llm_int_t anthropic_models(const llm_model_t *models, llm_uint_t n,
    time_t created, const llm_mem_t *mem, llm_str_t *out);
static llm_int_t anthropic_model(const llm_model_t *model, time_t created,
    const llm_mem_t *mem, llm_str_t *out);
static void anthropic_render_models(llm_out_t *o, const void *data);
static void anthropic_render_model(llm_out_t *o, const void *data);


static const llm_endpoint_t  anthropic_endpoints[] = {

    { llm_string("messages"),
      llm_string("chat"),
      LLM_METHOD_POST,
      LLM_EP_BODY|LLM_EP_STREAM,
      ANTHROPIC_MESSAGES },

    { llm_string("messages/count_tokens"),
      llm_string("count_tokens"),
      LLM_METHOD_POST,
      LLM_EP_BODY,
      ANTHROPIC_COUNT },

    { llm_string("models"),
      llm_string("models"),
      LLM_METHOD_GET,
      LLM_EP_MODELS,
      ANTHROPIC_MODELS },

    { llm_string("models/"),
      llm_string("models"),
      LLM_METHOD_GET,
      LLM_EP_MODEL,
      ANTHROPIC_MODEL }
};


static const llm_str_t  anthropic_members[ANTHROPIC_M_MAX] = {
    llm_string("model"),
    llm_string("stream"),
    llm_string("messages"),
    llm_string("output_format"),
    llm_string("output_config"),
    llm_string("max_tokens"),
    llm_string("container"),
    llm_string("system"),
    llm_string("tools")
};


#define ANTHROPIC_ALL  (llm_bit(ANTHROPIC_MESSAGES)|llm_bit(ANTHROPIC_COUNT))


static const llm_rule_t  anthropic_rules[] = {

    { ANTHROPIC_M_MODEL, llm_bit(LLM_JSON_STRING),
      ANTHROPIC_ALL, ANTHROPIC_ALL,
      " must be a non-empty string" },

    { ANTHROPIC_M_STREAM,
      llm_bit(LLM_JSON_TRUE)|llm_bit(LLM_JSON_FALSE)|llm_bit(LLM_JSON_NULL),
      llm_bit(ANTHROPIC_MESSAGES), 0,
      " must be a boolean" },

    { ANTHROPIC_M_MESSAGES, llm_bit(LLM_JSON_ARRAY),
      ANTHROPIC_ALL, llm_bit(ANTHROPIC_MESSAGES),
      " must be an array" }
};


static const llm_request_spec_t  anthropic_spec = {
    anthropic_members,
    ANTHROPIC_M_MAX,
    anthropic_rules,
    sizeof(anthropic_rules) / sizeof(anthropic_rules[0])
};


static const llm_str_t  anthropic_credentials[] = {
    llm_string("x-api-key"),
    llm_string("authorization"),
    llm_null_string
};


const llm_dialect_t  llm_dialect_anthropic = {
    llm_string("anthropic"),
    llm_string("anthropic-version"),       /* marker */
    anthropic_endpoints,
    sizeof(anthropic_endpoints) / sizeof(anthropic_endpoints[0]),

    anthropic_credentials,
    llm_private_headers,
    llm_limit_headers,

    anthropic_parse,
    anthropic_build,
    anthropic_rejected,
    llm_classify,
    anthropic_bound,
    anthropic_prefix,

    anthropic_event,
    anthropic_plain,
    anthropic_plain_end,
    anthropic_plain_whole,
    anthropic_answer_free,
    anthropic_text,
    anthropic_text_end,
    anthropic_continues,

    anthropic_error,
    anthropic_stream_error,
    anthropic_stream_end,
    anthropic_ping,

    anthropic_models,
    anthropic_model,

    llm_string("x-api-key"),
    llm_null_string,

    &anthropic_caching
};


static llm_int_t
anthropic_parse(llm_request_t *rq, const llm_mem_t *mem, llm_error_t *err)
{
    llm_int_t               rc;
    llm_json_value_t        old, cur;
    static const llm_str_t  path[] = {
        llm_string("format"),
        llm_string("type")
    };

    rc = llm_request_parse(rq, &anthropic_spec, mem, err);
    if (rc != LLM_OK) {
        return rc;
    }

    rq->usage_asked = 1;

    llm_json_path(&rq->member[ANTHROPIC_M_OUTPUT_FORMAT], &path[1], 1, &old);
    llm_json_path(&rq->member[ANTHROPIC_M_OUTPUT_CONFIG], path, 2, &cur);

    rq->structured = llm_json_is(&old, "json_schema", 11)
                     || llm_json_is(&cur, "json_schema", 11);

    return LLM_OK;
}


static llm_int_t
anthropic_build(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n)
{
    *n = 0;

    if (llm_splice_model(rq, change, mem, splices, n) != LLM_OK) {
        return LLM_ERROR;
    }

    if (rq->endpoint->id != ANTHROPIC_MESSAGES) {
        return LLM_OK;
    }

    if (anthropic_splice_shown(rq, change, mem, splices, n) != LLM_OK) {
        return LLM_ERROR;
    }

    return llm_splice_limit(rq, ANTHROPIC_M_MAX_TOKENS, change, mem, splices,
                            n);
}


static llm_uint_t
anthropic_rejected(llm_uint_t status, const llm_str_t *body)
{
    (void) status;
    (void) body;

    /* nothing is put in */

    return 0;
}


static llm_int_t
anthropic_error(const llm_error_t *err, const llm_mem_t *mem, llm_str_t *out)
{
    return llm_render(mem, out, anthropic_render_error, err);
}


static void
anthropic_render_error(llm_out_t *o, const void *data)
{
    const llm_error_t *err = data;

    llm_out_text(o, "{\"type\":\"error\",\"error\":{\"type\":");
    llm_out_cstring(o, anthropic_error_type(err->status));
    llm_out_text(o, ",\"message\":");
    llm_out_string(o, &err->message);
    llm_out_text(o, ",\"code\":");
    llm_out_cstring(o, err->code);
    llm_out_text(o, "},\"request_id\":");

    if (err->request_id.len) {
        llm_out_string(o, &err->request_id);

    } else {
        llm_out_text(o, "null");
    }

    llm_out_text(o, "}");
}


static const char *
anthropic_error_type(llm_uint_t status)
{
    switch (status) {

    case 401:
        return "authentication_error";

    case 402:
        return "billing_error";

    case 403:
        return "permission_error";

    case 404:
        return "not_found_error";

    case 413:
        return "request_too_large";

    case 429:
        return "rate_limit_error";

    case 504:
        return "timeout_error";

    case 503:
    case 529:
        return "overloaded_error";

    default:
        return status >= 500 ? "api_error" : "invalid_request_error";
    }
}


static llm_int_t
anthropic_stream_error(const llm_answer_t *a, const llm_error_t *err,
    const llm_mem_t *mem, llm_str_t *out)
{
    (void) a;

    return llm_render(mem, out, anthropic_render_stream_error, err);
}


static void
anthropic_render_stream_error(llm_out_t *o, const void *data)
{
    llm_out_text(o, "event: error\ndata: ");
    anthropic_render_error(o, data);
    llm_out_text(o, "\n\n");
}


static llm_int_t
anthropic_stream_end(const llm_answer_t *a, const llm_mem_t *mem,
    llm_str_t *out)
{
    llm_str_t  text;

    if (a->terminal || !a->finished) {
        text.len = 0;
        text.data = NULL;

    } else {
        llm_str_set(&text, "event: message_stop\n"
                           "data: {\"type\":\"message_stop\"}\n\n");
    }

    return llm_concat(mem, out, &text, NULL);
}


static void
anthropic_ping(const llm_answer_t *a, llm_str_t *out)
{
    const anthropic_answer_t *d;

    d = (a->dialect == &llm_dialect_anthropic) ? a->data : NULL;

    /* SDKs want message_start first; seen is not yet shown */

    if (d && d->started && a->begun) {
        llm_str_set(out, "event: ping\ndata: {\"type\": \"ping\"}\n\n");

    } else {
        llm_str_set(out, ": ping\n\n");
    }
}


static llm_int_t
anthropic_models(const llm_model_t *models, llm_uint_t n, time_t created,
    const llm_mem_t *mem, llm_str_t *out)
{
    anthropic_models_t  list;

    list.models = models;
    list.n = n;
    list.created = created;

    return llm_render(mem, out, anthropic_render_models, &list);
}


static llm_int_t
anthropic_model(const llm_model_t *model, time_t created,
    const llm_mem_t *mem, llm_str_t *out)
{
    anthropic_models_t  list;

    list.models = model;
    list.n = 1;
    list.created = created;

    return llm_render(mem, out, anthropic_render_model, &list);
}


static void
anthropic_render_models(llm_out_t *o, const void *data)
{
    llm_uint_t                 i;
    anthropic_models_t         one;
    const anthropic_models_t  *list = data;

    llm_out_text(o, "{\"data\":[");

    one = *list;

    for (i = 0; i < list->n; i++) {
        if (i) {
            llm_out_text(o, ",");
        }

        one.models = &list->models[i];
        anthropic_render_model(o, &one);
    }

    llm_out_text(o, "],\"has_more\":false,\"first_id\":");

    if (list->n == 0) {
        llm_out_text(o, "null,\"last_id\":null}");
        return;
    }

    llm_out_string(o, &list->models[0].id);
    llm_out_text(o, ",\"last_id\":");
    llm_out_string(o, &list->models[list->n - 1].id);
    llm_out_text(o, "}");
}


static void
anthropic_render_model(llm_out_t *o, const void *data)
{
    const anthropic_models_t *list = data;

    llm_out_text(o, "{\"type\":\"model\",\"id\":");
    llm_out_string(o, &list->models->id);
    llm_out_text(o, ",\"display_name\":");
    llm_out_string(o, &list->models->id);
    llm_out_text(o, ",\"created_at\":\"");
    llm_out_time(o, list->created);
    llm_out_text(o, "\"}");
}
