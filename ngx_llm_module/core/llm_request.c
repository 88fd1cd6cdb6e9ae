
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the dialects do alike with a request: one scan over its body, the
 * rules for the members that have a meaning to us, the model's name read and
 * replaced.  A member that no rule names is the provider's business.  For
 * the dialect files alone.
 */


#include <string.h>

#include "llm_dialect.h"


/* a message about a request */

typedef struct {
    const char              *param;
    const char              *text;
    const llm_json_error_t  *je;
} llm_message_t;


static llm_int_t llm_request_syntax(llm_request_t *rq,
    const llm_request_spec_t *spec, const llm_mem_t *mem, llm_error_t *err);
static llm_int_t llm_request_rule(llm_request_t *rq,
    const llm_request_spec_t *spec, const llm_rule_t *rule,
    const llm_mem_t *mem, llm_error_t *err);
static llm_int_t llm_request_model(llm_request_t *rq, const llm_mem_t *mem,
    llm_error_t *err);
static llm_int_t llm_request_error(llm_error_t *err, const llm_mem_t *mem,
    const char *code, const char *param, const char *text);
static llm_int_t llm_request_invalid(llm_error_t *err, const llm_mem_t *mem,
    const llm_json_error_t *je);
static void llm_message(llm_out_t *o, const void *data);
static void llm_render_string(llm_out_t *o, const void *data);
static llm_uint_t llm_limit_passes(const llm_json_value_t *v, uint64_t max);
static void llm_render_uint(llm_out_t *o, const void *data);


llm_int_t
llm_request_parse(llm_request_t *rq, const llm_request_spec_t *spec,
    const llm_mem_t *mem, llm_error_t *err)
{
    llm_int_t   rc;
    llm_uint_t  i;

    rq->model.len = 0;
    rq->model.data = NULL;
    rq->stream = 0;
    rq->usage_asked = 0;
    rq->structured = 0;

    memset(rq->member, 0, sizeof(rq->member));

    if (!(rq->endpoint->flags & LLM_EP_BODY)) {
        return LLM_OK;
    }

    rc = llm_request_syntax(rq, spec, mem, err);
    if (rc != LLM_OK) {
        return rc;
    }

    for (i = 0; i < spec->nrules; i++) {
        rc = llm_request_rule(rq, spec, &spec->rules[i], mem, err);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    if ((rq->endpoint->flags & LLM_EP_STREAM)
        && rq->member[LLM_MEMBER_STREAM].type == LLM_JSON_TRUE)
    {
        rq->stream = 1;
    }

    return llm_request_model(rq, mem, err);
}


static llm_int_t
llm_request_syntax(llm_request_t *rq, const llm_request_spec_t *spec,
    const llm_mem_t *mem, llm_error_t *err)
{
    u_char            *p, *last;
    llm_int_t          rc;
    llm_json_error_t   je;

    p = rq->body.data;
    last = p + rq->body.len;

    while (p < last && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
    {
        p++;
    }

    if (p == last) {
        return llm_request_error(err, mem, "empty_body", NULL,
                                 "the request body is empty");
    }

    rc = llm_json_scan(&rq->body, LLM_REQUEST_DEPTH, spec->names, rq->member,
                       spec->n, &je);

    if (rc == LLM_ERROR) {
        return llm_request_invalid(err, mem, &je);
    }

    if (rc == LLM_DECLINED) {
        return llm_request_error(err, mem, "not_an_object", NULL,
                                 "the request body must be a JSON object");
    }

    return LLM_OK;
}


static llm_int_t
llm_request_rule(llm_request_t *rq, const llm_request_spec_t *spec,
    const llm_rule_t *rule, const llm_mem_t *mem, llm_error_t *err)
{
    unsigned           bit;
    const char        *name;
    llm_json_value_t  *v;

    bit = llm_bit(rq->endpoint->id);

    if (!(rule->endpoints & bit)) {
        return LLM_OK;
    }

    v = &rq->member[rule->member];
    name = (const char *) spec->names[rule->member].data;

    if (v->type == LLM_JSON_ABSENT) {

        if (!(rule->required & bit)) {
            return LLM_OK;
        }

        return llm_request_error(err, mem,
                                 rule->member == LLM_MEMBER_MODEL
                                     ? "missing_model" : "missing_member",
                                 name, " is missing");
    }

    if (v->duplicate) {
        return llm_request_error(err, mem, "duplicate_member", name,
                                 " is given more than once");
    }

    if (rule->types && !(rule->types & llm_bit(v->type))) {
        return llm_request_error(err, mem, "invalid_type", name, rule->must);
    }

    return LLM_OK;
}


static llm_int_t
llm_request_model(llm_request_t *rq, const llm_mem_t *mem, llm_error_t *err)
{
    u_char            *p, *last;
    llm_json_value_t  *v;

    v = &rq->member[LLM_MEMBER_MODEL];

    if (v->type == LLM_JSON_ABSENT) {
        return LLM_OK;
    }

    if (v->raw.len == 2) {
        return llm_request_error(err, mem, "invalid_type", "model",
                                 " must be a non-empty string");
    }

    /* an escape takes up to 6 bytes for one */

    if (v->raw.len > 2 + 6 * LLM_MODEL_MAX) {
        goto invalid;
    }

    if (v->escaped) {
        rq->model.data = mem->alloc(mem->ctx, v->raw.len);
        if (rq->model.data == NULL) {
            return LLM_ERROR;
        }

        rq->model.len = llm_json_unescape(rq->model.data, v);

    } else {
        rq->model.data = v->raw.data + 1;
        rq->model.len = v->raw.len - 2;
    }

    if (rq->model.len > LLM_MODEL_MAX) {
        goto invalid;
    }

    last = rq->model.data + rq->model.len;

    for (p = rq->model.data; p < last; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            goto invalid;
        }
    }

    return LLM_OK;

invalid:

    return llm_request_error(err, mem, "invalid_model", "model",
                             " is too long or has control bytes in it");
}


/* with param, text goes on after its name */

static llm_int_t
llm_request_error(llm_error_t *err, const llm_mem_t *mem, const char *code,
    const char *param, const char *text)
{
    llm_message_t  msg;

    memset(err, 0, sizeof(llm_error_t));

    err->status = 400;
    err->code = code;
    err->param = param;

    msg.param = param;
    msg.text = text;
    msg.je = NULL;

    return llm_render(mem, &err->message, llm_message, &msg) == LLM_OK
           ? LLM_DECLINED : LLM_ERROR;
}


static llm_int_t
llm_request_invalid(llm_error_t *err, const llm_mem_t *mem,
    const llm_json_error_t *je)
{
    llm_message_t  msg;

    memset(err, 0, sizeof(llm_error_t));

    err->status = 400;
    err->code = "invalid_json";

    msg.param = NULL;
    msg.text = "the request body is not valid JSON: ";
    msg.je = je;

    return llm_render(mem, &err->message, llm_message, &msg) == LLM_OK
           ? LLM_DECLINED : LLM_ERROR;
}


static void
llm_message(llm_out_t *o, const void *data)
{
    const llm_message_t *msg = data;

    if (msg->param) {
        llm_out_text(o, "the \"");
        llm_out(o, msg->param, strlen(msg->param));
        llm_out_text(o, "\" member");
    }

    llm_out(o, msg->text, strlen(msg->text));

    if (msg->je) {
        llm_out(o, msg->je->reason, strlen(msg->je->reason));
        llm_out_text(o, " at byte ");
        llm_out_uint(o, msg->je->offset);
    }
}


void
llm_splice_add(llm_splice_t *splices, llm_uint_t *n, const llm_splice_t *s)
{
    llm_uint_t  i;

    for (i = *n; i && s->offset < splices[i - 1].offset; i--) {
        splices[i] = splices[i - 1];
    }

    splices[i] = *s;

    (*n)++;
}


llm_int_t
llm_splice_model(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n)
{
    llm_splice_t             s;
    const llm_json_value_t  *v;

    v = &rq->member[LLM_MEMBER_MODEL];

    if (change->model.len == 0
        || v->type == LLM_JSON_ABSENT
        || (change->model.len == rq->model.len
            && memcmp(change->model.data, rq->model.data, rq->model.len) == 0))
    {
        return LLM_OK;
    }

    s.offset = v->raw.data - rq->body.data;
    s.len = v->raw.len;

    if (llm_render(mem, &s.text, llm_render_string, &change->model)
        != LLM_OK)
    {
        return LLM_ERROR;
    }

    llm_splice_add(splices, n, &s);

    return LLM_OK;
}


static void
llm_render_string(llm_out_t *o, const void *data)
{
    llm_out_string(o, data);
}


llm_int_t
llm_splice_limit(const llm_request_t *rq, llm_uint_t member,
    const llm_change_t *change, const llm_mem_t *mem, llm_splice_t *splices,
    llm_uint_t *n)
{
    llm_splice_t             s;
    const llm_json_value_t  *v;

    v = &rq->member[member];

    if (change->max_output == 0 || !llm_limit_passes(v, change->max_output)) {
        return LLM_OK;
    }

    s.offset = v->raw.data - rq->body.data;
    s.len = v->raw.len;

    if (llm_render(mem, &s.text, llm_render_uint, &change->max_output)
        != LLM_OK)
    {
        return LLM_ERROR;
    }

    llm_splice_add(splices, n, &s);

    return LLM_OK;
}


static llm_uint_t
llm_limit_passes(const llm_json_value_t *v, uint64_t max)
{
    size_t    i;
    uint64_t  n;

    if (v->type != LLM_JSON_NUMBER) {
        return 0;
    }

    if (llm_json_uint(v, &n) == LLM_OK) {
        return n > max;
    }

    /* digits alone are a number that does not fit */

    for (i = 0; i < v->raw.len; i++) {
        if (v->raw.data[i] < '0' || v->raw.data[i] > '9') {
            return 0;
        }
    }

    return 1;
}


static void
llm_render_uint(llm_out_t *o, const void *data)
{
    const uint64_t *n = data;

    llm_out_uint(o, *n);
}
