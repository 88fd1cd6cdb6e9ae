
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: its endpoints, what is read of a request and changed
 * in it, and the texts that we say ourselves.  Its answers are read in
 * dialect_openai_answer.c.  Called through llm_dialect_openai alone.
 */


#include <string.h>

#include "dialect_openai.h"


typedef struct {
    const llm_model_t     *models;
    llm_uint_t             n;
    time_t                 created;
} openai_models_t;


static llm_int_t openai_parse(llm_request_t *rq, const llm_mem_t *mem,
    llm_error_t *err);
static llm_uint_t openai_structured(const llm_request_t *rq);
static llm_uint_t openai_usage_in_stream(const llm_request_t *rq);
static llm_int_t openai_build(const llm_request_t *rq,
    const llm_change_t *change, const llm_mem_t *mem, llm_splice_t *splices,
    llm_uint_t *n);
static llm_int_t openai_limits(const llm_request_t *rq,
    const llm_change_t *change, const llm_mem_t *mem, llm_splice_t *splices,
    llm_uint_t *n);
static llm_uint_t openai_ask_usage(const llm_request_t *rq, llm_splice_t *s);
static llm_uint_t openai_rejected(llm_uint_t status, const llm_str_t *body);

static llm_int_t openai_error(const llm_error_t *err, const llm_mem_t *mem,
    llm_str_t *out);
static void openai_render_error(llm_out_t *o, const void *data);
static const char *openai_error_type(llm_uint_t status);
static llm_int_t openai_stream_error(const llm_answer_t *a,
    const llm_error_t *err, const llm_mem_t *mem, llm_str_t *out);
static llm_uint_t openai_is_responses(const llm_answer_t *a);
static void openai_render_stream_error(llm_out_t *o, const void *data);
static llm_int_t openai_stream_end(const llm_answer_t *a,
    const llm_mem_t *mem, llm_str_t *out);
static void openai_ping(const llm_answer_t *a, llm_str_t *out);

static llm_int_t openai_models(const llm_model_t *models, llm_uint_t n,
    time_t created, const llm_mem_t *mem, llm_str_t *out);
static llm_int_t openai_model(const llm_model_t *model, time_t created,
    const llm_mem_t *mem, llm_str_t *out);
static void openai_render_models(llm_out_t *o, const void *data);
static void openai_render_model(llm_out_t *o, const void *data);


static const llm_endpoint_t  openai_endpoints[] = {

    { llm_string("chat/completions"),
      llm_string("chat"),
      LLM_METHOD_POST,
      LLM_EP_BODY|LLM_EP_STREAM,
      OPENAI_CHAT },

    { llm_string("completions"),
      llm_string("text_completion"),
      LLM_METHOD_POST,
      LLM_EP_BODY|LLM_EP_STREAM,
      OPENAI_COMPLETIONS },

    { llm_string("embeddings"),
      llm_string("embeddings"),
      LLM_METHOD_POST,
      LLM_EP_BODY,
      OPENAI_EMBEDDINGS },

    { llm_string("responses"),
      llm_string("chat"),
      LLM_METHOD_POST,
      LLM_EP_BODY|LLM_EP_STREAM,
      OPENAI_RESPONSES },

    { llm_string("models"),
      llm_string("models"),
      LLM_METHOD_GET,
      LLM_EP_MODELS,
      OPENAI_MODELS },

    { llm_string("models/"),
      llm_string("models"),
      LLM_METHOD_GET,
      LLM_EP_MODEL,
      OPENAI_MODEL }
};


static const llm_str_t  openai_members[OPENAI_M_MAX] = {
    llm_string("model"),
    llm_string("stream"),
    llm_string("stream_options"),
    llm_string("messages"),
    llm_string("input"),
    llm_string("prompt"),
    llm_string("response_format"),
    llm_string("text"),
    llm_string("max_tokens"),
    llm_string("max_completion_tokens"),
    llm_string("max_output_tokens"),
    llm_string("tools"),
    llm_string("instructions"),
    llm_string("previous_response_id"),
    llm_string("conversation"),
    llm_string("cached_content"),
    llm_string("cachedContent"),
    llm_string("extra_body")
};


#define OPENAI_STREAMS  (llm_bit(OPENAI_CHAT)|llm_bit(OPENAI_COMPLETIONS)     \
                         |llm_bit(OPENAI_RESPONSES))
#define OPENAI_ALL      (OPENAI_STREAMS|llm_bit(OPENAI_EMBEDDINGS))


static const llm_rule_t  openai_rules[] = {

    /* a response may be asked of a stored prompt that names the model */

    { OPENAI_M_MODEL, llm_bit(LLM_JSON_STRING),
      OPENAI_ALL, OPENAI_ALL & ~llm_bit(OPENAI_RESPONSES),
      " must be a non-empty string" },

    { OPENAI_M_STREAM,
      llm_bit(LLM_JSON_TRUE)|llm_bit(LLM_JSON_FALSE)|llm_bit(LLM_JSON_NULL),
      OPENAI_STREAMS, 0,
      " must be a boolean" },

    { OPENAI_M_STREAM_OPTIONS,
      llm_bit(LLM_JSON_OBJECT)|llm_bit(LLM_JSON_NULL),
      OPENAI_STREAMS, 0,
      " must be an object" },

    { OPENAI_M_MESSAGES, llm_bit(LLM_JSON_ARRAY),
      llm_bit(OPENAI_CHAT), llm_bit(OPENAI_CHAT),
      " must be an array" },

    { OPENAI_M_INPUT, 0,
      llm_bit(OPENAI_EMBEDDINGS)|llm_bit(OPENAI_RESPONSES), 0,
      NULL },

    { OPENAI_M_PROMPT, 0,
      llm_bit(OPENAI_COMPLETIONS)|llm_bit(OPENAI_RESPONSES), 0,
      NULL }
};


static const llm_request_spec_t  openai_spec = {
    openai_members,
    OPENAI_M_MAX,
    openai_rules,
    sizeof(openai_rules) / sizeof(openai_rules[0])
};


static const llm_str_t  openai_credentials[] = {
    llm_string("authorization"),
    llm_string("openai-organization"),
    llm_string("openai-project"),
    llm_null_string
};


const llm_dialect_t  llm_dialect_openai = {
    llm_string("openai"),
    llm_null_string,                       /* marker */
    openai_endpoints,
    sizeof(openai_endpoints) / sizeof(openai_endpoints[0]),

    openai_credentials,
    llm_private_headers,
    llm_limit_headers,

    openai_parse,
    openai_build,
    openai_rejected,
    llm_classify,
    openai_bound,
    openai_prefix,

    openai_event,
    openai_plain,
    openai_plain_end,
    openai_plain_whole,
    openai_answer_free,
    openai_text,
    openai_text_end,
    openai_continues,

    openai_error,
    openai_stream_error,
    openai_stream_end,
    openai_ping,

    openai_models,
    openai_model,

    llm_string("Authorization"),
    llm_string("Bearer "),

    &openai_caching
};


static llm_int_t
openai_parse(llm_request_t *rq, const llm_mem_t *mem, llm_error_t *err)
{
    llm_int_t  rc;

    rc = llm_request_parse(rq, &openai_spec, mem, err);
    if (rc != LLM_OK) {
        return rc;
    }

    rq->usage_asked = openai_usage_in_stream(rq);
    rq->structured = openai_structured(rq);

    return LLM_OK;
}


static llm_uint_t
openai_usage_in_stream(const llm_request_t *rq)
{
    llm_json_value_t        v;
    static const llm_str_t  path[] = { llm_string("include_usage") };

    if (rq->endpoint->id != OPENAI_CHAT
        && rq->endpoint->id != OPENAI_COMPLETIONS)
    {
        return 1;
    }

    llm_json_path(&rq->member[OPENAI_M_STREAM_OPTIONS], path, 1, &v);

    return v.type == LLM_JSON_TRUE;
}


static llm_uint_t
openai_structured(const llm_request_t *rq)
{
    llm_json_value_t        v;
    static const llm_str_t  path[] = {
        llm_string("format"),
        llm_string("type")
    };

    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
        llm_json_path(&rq->member[OPENAI_M_RESPONSE_FORMAT], &path[1], 1, &v);
        break;

    case OPENAI_RESPONSES:
        llm_json_path(&rq->member[OPENAI_M_TEXT], path, 2, &v);
        break;

    default:
        return 0;
    }

    return llm_json_is(&v, "json_schema", 11)
           || llm_json_is(&v, "json_object", 11);
}


static llm_int_t
openai_build(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n)
{
    llm_str_t     text;
    llm_splice_t  s;

    *n = 0;

    if (llm_splice_model(rq, change, mem, splices, n) != LLM_OK
        || openai_limits(rq, change, mem, splices, n) != LLM_OK)
    {
        return LLM_ERROR;
    }

    if (!change->ask_usage || !openai_ask_usage(rq, &s)) {
        return LLM_OK;
    }

    if (llm_concat(mem, &text, &s.text, NULL) != LLM_OK) {
        return LLM_ERROR;
    }

    s.text = text;

    llm_splice_add(splices, n, &s);

    return LLM_OK;
}


static llm_int_t
openai_limits(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n)
{
    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
    case OPENAI_COMPLETIONS:

        if (llm_splice_limit(rq, OPENAI_M_MAX_TOKENS, change, mem, splices, n)
            != LLM_OK)
        {
            return LLM_ERROR;
        }

        return llm_splice_limit(rq, OPENAI_M_MAX_COMPLETION, change, mem,
                                splices, n);

    case OPENAI_RESPONSES:
        return llm_splice_limit(rq, OPENAI_M_MAX_OUTPUT, change, mem, splices,
                                n);

    default:
        return LLM_OK;
    }
}


/* 1 if something is to be put in; the text is static */

static llm_uint_t
openai_ask_usage(const llm_request_t *rq, llm_splice_t *s)
{
    const llm_json_value_t  *options, *stream;
    llm_json_value_t         v;
    static const llm_str_t   name = llm_string("include_usage");

    if (!rq->stream || rq->usage_asked) {
        return 0;
    }

    stream = &rq->member[OPENAI_M_STREAM];
    options = &rq->member[OPENAI_M_STREAM_OPTIONS];

    if (options->type == LLM_JSON_ABSENT) {
        s->offset = stream->raw.data + stream->raw.len - rq->body.data;
        s->len = 0;
        llm_str_set(&s->text, ",\"stream_options\":{\"include_usage\":true}");
        return 1;
    }

    s->offset = options->raw.data - rq->body.data;

    if (options->type != LLM_JSON_OBJECT) {
        s->len = options->raw.len;
        llm_str_set(&s->text, "{\"include_usage\":true}");
        return 1;
    }

    llm_json_path(options, &name, 1, &v);

    switch (v.type) {

    case LLM_JSON_ABSENT:
        s->offset++;
        s->len = 0;

        if (llm_json_empty(options)) {
            llm_str_set(&s->text, "\"include_usage\":true");

        } else {
            llm_str_set(&s->text, "\"include_usage\":true,");
        }

        return 1;

    case LLM_JSON_FALSE:
    case LLM_JSON_NULL:
        s->offset = v.raw.data - rq->body.data;
        s->len = v.raw.len;
        llm_str_set(&s->text, "true");
        return 1;

    default:

        /* the provider has to say that it is wrong */

        return 0;
    }
}


static llm_uint_t
openai_rejected(llm_uint_t status, const llm_str_t *body)
{
    if (status != 400 && status != 422) {
        return 0;
    }

    return llm_mentions(body, "stream_options", 14)
           || llm_mentions(body, "include_usage", 13);
}


static llm_int_t
openai_error(const llm_error_t *err, const llm_mem_t *mem, llm_str_t *out)
{
    return llm_render(mem, out, openai_render_error, err);
}


static void
openai_render_error(llm_out_t *o, const void *data)
{
    const llm_error_t *err = data;

    llm_out_text(o, "{\"error\":{\"message\":");
    llm_out_string(o, &err->message);
    llm_out_text(o, ",\"type\":");
    llm_out_cstring(o, openai_error_type(err->status));
    llm_out_text(o, ",\"param\":");
    llm_out_cstring(o, err->param);
    llm_out_text(o, ",\"code\":");
    llm_out_cstring(o, err->code);
    llm_out_text(o, "}}");
}


static const char *
openai_error_type(llm_uint_t status)
{
    switch (status) {

    case 401:
        return "authentication_error";

    case 403:
        return "permission_error";

    case 429:
        return "rate_limit_error";

    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}


static llm_int_t
openai_stream_error(const llm_answer_t *a, const llm_error_t *err,
    const llm_mem_t *mem, llm_str_t *out)
{
    if (openai_is_responses(a)) {
        return openai_responses_error(a, err, mem, out);
    }

    return llm_render(mem, out, openai_render_stream_error, err);
}


/* an attempt that never began has no dialect yet */

static llm_uint_t
openai_is_responses(const llm_answer_t *a)
{
    return a->dialect == &llm_dialect_openai
           && a->endpoint
           && a->endpoint->id == OPENAI_RESPONSES;
}


static void
openai_render_stream_error(llm_out_t *o, const void *data)
{
    llm_out_text(o, "data: ");
    openai_render_error(o, data);
    llm_out_text(o, "\n\n");
}


static llm_int_t
openai_stream_end(const llm_answer_t *a, const llm_mem_t *mem,
    llm_str_t *out)
{
    llm_str_t  text;

    if (a->terminal || openai_is_responses(a)) {
        text.len = 0;
        text.data = NULL;

    } else {
        llm_str_set(&text, "data: [DONE]\n\n");
    }

    return llm_concat(mem, out, &text, NULL);
}


static void
openai_ping(const llm_answer_t *a, llm_str_t *out)
{
    (void) a;

    llm_str_set(out, ": ping\n\n");
}


static llm_int_t
openai_models(const llm_model_t *models, llm_uint_t n, time_t created,
    const llm_mem_t *mem, llm_str_t *out)
{
    openai_models_t  list;

    list.models = models;
    list.n = n;
    list.created = created;

    return llm_render(mem, out, openai_render_models, &list);
}


static llm_int_t
openai_model(const llm_model_t *model, time_t created, const llm_mem_t *mem,
    llm_str_t *out)
{
    openai_models_t  list;

    list.models = model;
    list.n = 1;
    list.created = created;

    return llm_render(mem, out, openai_render_model, &list);
}


static void
openai_render_models(llm_out_t *o, const void *data)
{
    llm_uint_t              i;
    openai_models_t         one;
    const openai_models_t  *list = data;

    llm_out_text(o, "{\"object\":\"list\",\"data\":[");

    one = *list;

    for (i = 0; i < list->n; i++) {
        if (i) {
            llm_out_text(o, ",");
        }

        one.models = &list->models[i];
        openai_render_model(o, &one);
    }

    llm_out_text(o, "]}");
}


static void
openai_render_model(llm_out_t *o, const void *data)
{
    const openai_models_t *list = data;

    llm_out_text(o, "{\"id\":");
    llm_out_string(o, &list->models->id);
    llm_out_text(o, ",\"object\":\"model\",\"created\":");
    llm_out_uint(o, list->created > 0 ? (uint64_t) list->created : 0);
    llm_out_text(o, ",\"owned_by\":");
    llm_out_string(o, &list->models->owner);
    llm_out_text(o, "}");
}
