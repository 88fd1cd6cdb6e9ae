
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What a cache asks of the Anthropic dialect: which requests use or leave
 * state at the provider, whom they are made for, which of their members do
 * not change the answer, and which answers are good to keep.
 *
 * A tool whose type is not known is one that the provider runs.  Signatures
 * of thinking and encrypted results are not state: they come with the request,
 * whole.  Nor are edits that clear a part of it.
 */


#include <string.h>

#include "dialect_anthropic.h"


/* members that only a cache asks for */

enum {
    ANTHROPIC_K_MCP = LLM_K_MAX,
    ANTHROPIC_K_CONTEXT,
    ANTHROPIC_K_MAX
};


typedef struct {
    llm_str_t              name;
    const char            *unfit;
} anthropic_reason_t;


static llm_uint_t anthropic_kind(const llm_request_t *rq);
static llm_uint_t anthropic_stateful(const llm_request_t *rq,
    const llm_json_value_t *v);
static llm_uint_t anthropic_types(const llm_json_value_t *array,
    llm_uint_t absent, const llm_str_t *prefixes);
static llm_uint_t anthropic_prefixed(const llm_json_value_t *type,
    const llm_str_t *prefixes);
static llm_uint_t anthropic_users(const llm_request_t *rq,
    llm_json_value_t users[LLM_USERS]);
static const llm_str_t *anthropic_unkeyed(const llm_endpoint_t *ep);
static const char *anthropic_unfit(const llm_answer_t *a);


static const llm_str_t  anthropic_kind_names[ANTHROPIC_K_MAX] = {
    LLM_K_NAMES,
    llm_string("mcp_servers"),
    llm_string("context_management")
};


/* tools that the client runs: a date follows */

static const llm_str_t  anthropic_client_tools[] = {
    llm_string("bash_"),
    llm_string("text_editor_"),
    llm_string("computer_"),
    llm_string("memory_"),
    llm_null_string
};


static const llm_str_t  anthropic_edits[] = {
    llm_string("clear_"),
    llm_null_string
};


static const anthropic_reason_t  anthropic_reasons[] = {
    { llm_string("end_turn"), NULL },
    { llm_string("stop_sequence"), NULL },
    { llm_string("tool_use"), NULL },
    { llm_string("max_tokens"), "truncated" },
    { llm_string("model_context_window_exceeded"), "truncated" },
    { llm_string("refusal"), "filtered" },
    { llm_null_string, "unfinished" }
};


static llm_uint_t anthropic_says(const llm_endpoint_t *ep,
    const llm_str_t *text);


const llm_caching_t  anthropic_caching = {
    anthropic_kind,
    anthropic_users,
    anthropic_unkeyed,
    anthropic_unfit,
    anthropic_says,
    anthropic_fold,
    anthropic_unfold
};


static llm_uint_t
anthropic_kind(const llm_request_t *rq)
{
    llm_uint_t        kind;
    llm_json_value_t  v[ANTHROPIC_K_MAX];

    switch (rq->endpoint->id) {

    case ANTHROPIC_MESSAGES:
    case ANTHROPIC_COUNT:
        break;

    default:
        return LLM_CACHE_STATEFUL;
    }

    llm_kind_find(rq, anthropic_kind_names, v, ANTHROPIC_K_MAX);

    kind = (rq->endpoint->id == ANTHROPIC_COUNT) ? LLM_CACHE_FIXED
                                                 : llm_kind_sampling(v);

    if (anthropic_stateful(rq, v)) {
        kind |= LLM_CACHE_STATEFUL;
    }

    return kind;
}


static llm_uint_t
anthropic_stateful(const llm_request_t *rq, const llm_json_value_t *v)
{
    llm_json_value_t         edits;
    const llm_json_value_t  *context;
    static const llm_str_t   path = llm_string("edits");

    context = &v[ANTHROPIC_K_CONTEXT];

    if (!llm_json_empty(&rq->member[ANTHROPIC_M_CONTAINER])
        || !llm_json_empty(&v[ANTHROPIC_K_MCP])
        || anthropic_names_file(rq))
    {
        return 1;
    }

    /* a tool is counted, not run */

    if (rq->endpoint->id == ANTHROPIC_COUNT) {
        return 0;
    }

    if (!llm_json_empty(context)) {
        llm_json_path(context, &path, 1, &edits);

        if (edits.type == LLM_JSON_ABSENT
            || !anthropic_types(&edits, 0, anthropic_edits))
        {
            return 1;
        }
    }

    return !anthropic_types(&rq->member[ANTHROPIC_M_TOOLS], 1,
                            anthropic_client_tools);
}


/* 1 if the type of every item is "custom", if there is none, with absent, or
 * begins with one of the prefixes */

static llm_uint_t
anthropic_types(const llm_json_value_t *array, llm_uint_t absent,
    const llm_str_t *prefixes)
{
    u_char                 *pos;
    llm_json_value_t        item, type;
    static const llm_str_t  name = llm_string("type");

    if (llm_json_empty(array)) {
        return 1;
    }

    if (array->type != LLM_JSON_ARRAY) {
        return 0;
    }

    pos = NULL;

    while (llm_json_next_object(&array->raw, &pos, &name, &type, 1, &item)
           == LLM_OK)
    {
        if (item.type != LLM_JSON_OBJECT) {
            return 0;
        }

        if (absent && (llm_json_empty(&type)
                       || llm_json_is(&type, "custom", 6)))
        {
            continue;
        }

        if (!anthropic_prefixed(&type, prefixes)) {
            return 0;
        }
    }

    return 1;
}


/* one that is written with escapes is not known */

static llm_uint_t
anthropic_prefixed(const llm_json_value_t *type, const llm_str_t *prefixes)
{
    if (type->type != LLM_JSON_STRING || type->escaped) {
        return 0;
    }

    for ( /* void */ ; prefixes->len; prefixes++) {
        if (type->raw.len >= prefixes->len + 2
            && memcmp(type->raw.data + 1, prefixes->data, prefixes->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static llm_uint_t
anthropic_users(const llm_request_t *rq, llm_json_value_t users[LLM_USERS])
{
    llm_json_value_t        metadata, user;
    static const llm_str_t  name = llm_string("metadata");
    static const llm_str_t  path = llm_string("user_id");

    memset(users, 0, LLM_USERS * sizeof(llm_json_value_t));

    if (rq->endpoint->id != ANTHROPIC_MESSAGES) {
        return 0;
    }

    llm_kind_find(rq, &name, &metadata, 1);
    llm_json_path(&metadata, &path, 1, &user);

    if (user.type != LLM_JSON_STRING || user.raw.len <= 2) {
        return 0;
    }

    users[0] = user;

    return 1;
}


static const llm_str_t *
anthropic_unkeyed(const llm_endpoint_t *ep)
{
    static const llm_str_t  none[] = {
        llm_null_string
    };
    static const llm_str_t  messages[] = {
        llm_string("stream"),
        llm_string("metadata"),
        llm_null_string
    };

    return (ep->id == ANTHROPIC_MESSAGES) ? messages : none;
}


static const char *
anthropic_unfit(const llm_answer_t *a)
{
    const anthropic_reason_t  *p;

    if (a->failed) {
        return "failed";
    }

    if (a->endpoint->id == ANTHROPIC_COUNT) {
        return NULL;
    }

    for (p = anthropic_reasons; p->name.len; p++) {
        if (a->finish_reason_len == p->name.len
            && memcmp(a->finish_reason, p->name.data, p->name.len) == 0)
        {
            break;
        }
    }

    return (p->unfit || a->finished) ? p->unfit : "unfinished";
}


static llm_uint_t
anthropic_says(const llm_endpoint_t *ep, const llm_str_t *text)
{
    llm_json_value_t        v;
    static const llm_str_t  name = llm_string("input_tokens");

    if (ep->id != ANTHROPIC_COUNT) {
        return 1;
    }

    return llm_json_scan(text, LLM_REQUEST_DEPTH, &name, &v, 1, NULL) == LLM_OK
           && v.type == LLM_JSON_NUMBER;
}
