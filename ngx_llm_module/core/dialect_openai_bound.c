
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: which members name state at the provider - responses,
 * conversations, items, containers, files, vector stores, stored prompts,
 * cached content, and encrypted reasoning, which its maker alone can read -
 * and the beginning of a conversation.  Requests are walked once, and not at
 * all if none of the names is in them.
 */


#include <string.h>

#include "dialect_openai.h"


/* members of an item of input or output */

enum {
    OPENAI_I_TYPE = 0,
    OPENAI_I_ID,
    OPENAI_I_CONTAINER,
    OPENAI_I_ENCRYPTED,
    OPENAI_I_CONTENT,
    OPENAI_I_OUTPUT,
    OPENAI_I_MAX
};


static void openai_bound_cached(llm_bound_t *b, const llm_request_t *rq);
static void openai_bound_messages(llm_bound_t *b,
    const llm_json_value_t *messages);
static void openai_bound_tools(llm_bound_t *b,
    const llm_json_value_t *tools);
static void openai_bound_strings(llm_bound_t *b,
    const llm_json_value_t *array);
static void openai_bound_input(llm_bound_t *b, const llm_json_value_t *input);
static void openai_bound_item(llm_bound_t *b, const llm_json_value_t *v);
static void openai_bound_files(llm_bound_t *b, const llm_json_value_t *parts);

static void openai_prefix_responses(llm_digest_t *d,
    const llm_request_t *rq, llm_uint_t *any);
static void openai_bind_values(llm_answer_t *a, const llm_json_value_t *v);


static const llm_str_t  openai_item[OPENAI_I_MAX] = {
    llm_string("type"),
    llm_string("id"),
    llm_string("container_id"),
    llm_string("encrypted_content"),
    llm_string("content"),
    llm_string("output")
};


static const llm_str_t  openai_file_words[] = {
    llm_string("file_id"),
    llm_null_string
};


static const llm_str_t  openai_input_words[] = {
    llm_string("encrypted_content"),
    llm_string("item_reference"),
    llm_string("reasoning"),
    llm_string("file_id"),
    llm_string("container_id"),
    llm_null_string
};


/* the oldest first: what is named beside the conversation holds for its
 * newest turn */

llm_uint_t
openai_bound(const llm_request_t *rq, uint64_t *digests, llm_uint_t max)
{
    llm_bound_t              b;
    const llm_json_value_t  *m;

    m = rq->member;

    llm_bound_init(&b, digests, max);

    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
        openai_bound_messages(&b, &m[OPENAI_M_MESSAGES]);
        openai_bound_cached(&b, rq);
        break;

    case OPENAI_RESPONSES:
        openai_bound_tools(&b, &m[OPENAI_M_TOOLS]);
        openai_bound_input(&b, &m[OPENAI_M_INPUT]);

        if (m[OPENAI_M_PROMPT].type == LLM_JSON_OBJECT) {
            llm_bound_add_id(&b, &m[OPENAI_M_PROMPT]);
        }

        llm_bound_add_id(&b, &m[OPENAI_M_CONVERSATION]);
        llm_bound_add(&b, &m[OPENAI_M_PREVIOUS]);
        break;
    }

    return llm_bound_end(&b);
}


/* Gemini's: at the top, or as its compatible endpoint documents it */

static void
openai_bound_cached(llm_bound_t *b, const llm_request_t *rq)
{
    llm_json_value_t        v;
    static const llm_str_t  path[] = {
        llm_string("google"),
        llm_string("cached_content")
    };

    llm_bound_add(b, &rq->member[OPENAI_M_CACHED]);
    llm_bound_add(b, &rq->member[OPENAI_M_CACHED_CAMEL]);

    llm_json_path(&rq->member[OPENAI_M_EXTRA], path, 2, &v);
    llm_bound_add(b, &v);
}


static void
openai_bound_messages(llm_bound_t *b, const llm_json_value_t *messages)
{
    u_char                 *pos, *part;
    llm_json_value_t        message, content, file, v, item;
    static const llm_str_t  names[] = {
        llm_string("content"),
        llm_string("file"),
        llm_string("file_id")
    };

    if (messages->type != LLM_JSON_ARRAY
        || !llm_bound_words(&messages->raw, openai_file_words))
    {
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&messages->raw, &pos, &names[0], &content, 1,
                                &message)
           == LLM_OK)
    {
        if (content.type != LLM_JSON_ARRAY) {
            continue;
        }

        part = NULL;

        while (llm_json_next_object(&content.raw, &part, &names[1], &file, 1,
                                    &item)
               == LLM_OK)
        {
            llm_json_path(&file, &names[2], 1, &v);
            llm_bound_add(b, &v);
        }
    }
}


static void
openai_bound_tools(llm_bound_t *b, const llm_json_value_t *tools)
{
    u_char                 *pos;

    enum { CONTAINER = 0, STORES, MAX };

    llm_json_value_t        tool, files, v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("container"),
        llm_string("vector_store_ids")
    };
    static const llm_str_t  path = llm_string("file_ids");

    if (tools->type != LLM_JSON_ARRAY) {
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&tools->raw, &pos, names, v, MAX, &tool)
           == LLM_OK)
    {
        /* an object asks for a new container, with these files in it */

        llm_bound_add(b, &v[CONTAINER]);
        llm_json_path(&v[CONTAINER], &path, 1, &files);

        openai_bound_strings(b, &files);
        openai_bound_strings(b, &v[STORES]);
    }
}


static void
openai_bound_strings(llm_bound_t *b, const llm_json_value_t *array)
{
    u_char            *pos;
    llm_json_value_t   v;

    if (array->type != LLM_JSON_ARRAY) {
        return;
    }

    pos = NULL;

    while (llm_json_next(&array->raw, &pos, NULL, &v) == LLM_OK) {
        llm_bound_add(b, &v);
    }
}


static void
openai_bound_input(llm_bound_t *b, const llm_json_value_t *input)
{
    u_char            *pos;
    llm_json_value_t   item, v[OPENAI_I_MAX];

    if (input->type != LLM_JSON_ARRAY
        || !llm_bound_words(&input->raw, openai_input_words))
    {
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&input->raw, &pos, openai_item, v,
                                OPENAI_I_MAX, &item)
           == LLM_OK)
    {
        openai_bound_item(b, v);
    }
}


static void
openai_bound_item(llm_bound_t *b, const llm_json_value_t *v)
{
    llm_json_value_t        file;
    static const llm_str_t  path = llm_string("file_id");

    /*
     * Reasoning without its content is looked up by its id, as an
     * item_reference is; other items are complete and their ids say nothing.
     */

    if (llm_json_is(&v[OPENAI_I_TYPE], "item_reference", 14)
        || llm_json_is(&v[OPENAI_I_TYPE], "reasoning", 9))
    {
        llm_bound_add(b, &v[OPENAI_I_ID]);
    }

    llm_bound_add(b, &v[OPENAI_I_CONTAINER]);
    llm_bound_add(b, &v[OPENAI_I_ENCRYPTED]);

    openai_bound_files(b, &v[OPENAI_I_CONTENT]);
    openai_bound_files(b, &v[OPENAI_I_OUTPUT]);

    llm_json_path(&v[OPENAI_I_OUTPUT], &path, 1, &file);
    llm_bound_add(b, &file);
}


static void
openai_bound_files(llm_bound_t *b, const llm_json_value_t *parts)
{
    u_char                 *pos;
    llm_json_value_t        item, v;
    static const llm_str_t  name = llm_string("file_id");

    if (parts->type != LLM_JSON_ARRAY) {
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&parts->raw, &pos, &name, &v, 1, &item)
           == LLM_OK)
    {
        llm_bound_add(b, &v);
    }
}


uint64_t
openai_prefix(const llm_request_t *rq)
{
    llm_uint_t               any;
    llm_digest_t             d;
    const llm_json_value_t  *m, *text;

    m = rq->member;

    llm_digest_init(&d, 0);

    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
        any = llm_prefix_messages(&d, &m[OPENAI_M_MESSAGES]);
        llm_prefix_raw(&d, &m[OPENAI_M_TOOLS]);
        break;

    case OPENAI_RESPONSES:
        openai_prefix_responses(&d, rq, &any);
        break;

    case OPENAI_COMPLETIONS:
    case OPENAI_EMBEDDINGS:
        text = &m[rq->endpoint->id == OPENAI_EMBEDDINGS ? OPENAI_M_INPUT
                                                        : OPENAI_M_PROMPT];
        any = !llm_json_empty(text);
        llm_prefix_raw(&d, text);
        break;

    default:
        any = 0;
    }

    return any ? llm_digest_end(&d) : 0;
}


static void
openai_prefix_responses(llm_digest_t *d, const llm_request_t *rq,
    llm_uint_t *any)
{
    llm_json_value_t        id;
    static const llm_str_t  path = llm_string("id");

    id = rq->member[OPENAI_M_CONVERSATION];

    if (id.type == LLM_JSON_OBJECT) {
        llm_json_path(&rq->member[OPENAI_M_CONVERSATION], &path, 1, &id);
    }

    if (id.type != LLM_JSON_STRING) {
        id = rq->member[OPENAI_M_PREVIOUS];
    }

    if (id.type == LLM_JSON_STRING) {
        llm_digest_string(d, &id);
        *any = 1;
        return;
    }

    llm_prefix_raw(d, &rq->member[OPENAI_M_INSTRUCTIONS]);

    *any = llm_prefix_messages(d, &rq->member[OPENAI_M_INPUT]);
}


/* the response itself last: it is what the next request names first */

void
openai_bind_response(llm_answer_t *a, const llm_json_value_t *response)
{
    u_char                 *pos;

    enum { ID = 0, CONVERSATION, OUTPUT, MAX };

    llm_json_value_t        item, r[MAX], v[OPENAI_I_MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("id"),
        llm_string("conversation"),
        llm_string("output")
    };

    if (response->type != LLM_JSON_OBJECT
        || llm_json_find(&response->raw, names, r, MAX) != LLM_OK)
    {
        return;
    }

    pos = NULL;

    while (r[OUTPUT].type == LLM_JSON_ARRAY
           && llm_json_next_object(&r[OUTPUT].raw, &pos, openai_item, v,
                                   OPENAI_I_MAX, &item)
              == LLM_OK)
    {
        openai_bind_values(a, v);
    }

    llm_answer_bind_id(a, &r[CONVERSATION]);
    llm_answer_bind(a, &r[ID]);
}


void
openai_bind_item(llm_answer_t *a, const llm_json_value_t *item)
{
    llm_json_value_t  v[OPENAI_I_MAX];

    if (item->type == LLM_JSON_OBJECT
        && llm_json_find(&item->raw, openai_item, v, OPENAI_I_MAX) == LLM_OK)
    {
        openai_bind_values(a, v);
    }
}


static void
openai_bind_values(llm_answer_t *a, const llm_json_value_t *v)
{
    llm_answer_bind(a, &v[OPENAI_I_ID]);
    llm_answer_bind(a, &v[OPENAI_I_CONTAINER]);
    llm_answer_bind(a, &v[OPENAI_I_ENCRYPTED]);
}
