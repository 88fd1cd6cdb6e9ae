
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What a cache asks of the OpenAI dialect: which requests use or leave state
 * at the provider, whom they are made for, which of their members do not
 * change the answer, and which answers are good to keep.
 *
 * State is told from what is known to be none: a tool or an item of input
 * whose type is not known is one of the provider's.  Encrypted reasoning is
 * not state: who asks for it with "store": false sends all of it with each
 * turn, so it is a part of the request as any other.  What is referred to by
 * a URL is taken for a part of the request, too.
 */


#include <string.h>

#include "dialect_openai.h"


/* members that only a cache asks for */

enum {
    OPENAI_K_STORE = LLM_K_MAX,
    OPENAI_K_SEARCH,
    OPENAI_K_STATE,                    /* this and the rest: names of state,
                                          or of what the provider runs */
    OPENAI_K_MAX = OPENAI_K_STATE + 12
};


/* members of an item of input */

enum {
    OPENAI_I_TYPE = 0,
    OPENAI_I_ID,
    OPENAI_I_ROLE,
    OPENAI_I_CONTAINER,
    OPENAI_I_ENCRYPTED,
    OPENAI_I_CONTENT,
    OPENAI_I_OUTPUT,
    OPENAI_I_MAX
};


/* whom a request is made for */

enum {
    OPENAI_U_SAFETY = 0,
    OPENAI_U_USER,
    OPENAI_U_MAX
};


typedef struct {
    llm_str_t              name;
    llm_uint_t             fit;
} openai_reason_t;


static llm_uint_t openai_kind(const llm_request_t *rq);
static llm_uint_t openai_stateful(const llm_request_t *rq,
    const llm_json_value_t *v);
static llm_uint_t openai_stateful_members(const llm_request_t *rq,
    const llm_json_value_t *v);
static llm_uint_t openai_said(const llm_json_value_t *v);
static llm_uint_t openai_stateful_tools(const llm_json_value_t *tools);
static llm_uint_t openai_stateful_messages(const llm_json_value_t *messages);
static llm_uint_t openai_stateful_input(const llm_json_value_t *input);
static llm_uint_t openai_stateful_item(const llm_json_value_t *v);
static llm_uint_t openai_item_known(const llm_json_value_t *type);
static llm_uint_t openai_names_file(const llm_json_value_t *parts,
    const llm_str_t *path, llm_uint_t n);
static llm_uint_t openai_users(const llm_request_t *rq,
    llm_json_value_t users[LLM_USERS]);
static const llm_str_t *openai_unkeyed(const llm_endpoint_t *ep);
static const char *openai_unfit(const llm_answer_t *a);


static const llm_str_t  openai_kind_names[OPENAI_K_MAX] = {
    LLM_K_NAMES,
    llm_string("store"),
    llm_string("web_search_options"),
    llm_string("background"),
    llm_string("container"),
    llm_string("context_management"),
    llm_string("mcp_servers"),
    llm_string("audio"),                   /* is kept, under an id */
    llm_string("deferred"),                /* xAI */
    llm_string("search_parameters"),
    llm_string("search_settings"),         /* Groq */
    llm_string("enable_search"),           /* Qwen */
    llm_string("connectors"),              /* Cohere */
    llm_string("data_sources"),            /* Azure */
    llm_string("plugins")                  /* OpenRouter */
};


/* without any of them messages name nothing */

static const llm_str_t  openai_message_words[] = {
    llm_string("file_id"),
    llm_string("id"),
    llm_null_string
};


/* items of input that are whole, and of no tool that the provider runs */

static const llm_str_t  openai_item_types[] = {
    llm_string("message"),
    llm_string("function_call"),
    llm_string("function_call_output"),
    llm_string("custom_tool_call"),
    llm_string("custom_tool_call_output"),
    llm_null_string
};


/* items that are whole if their content is encrypted in them */

static const llm_str_t  openai_item_secret[] = {
    llm_string("reasoning"),
    llm_string("compaction"),
    llm_string("compaction_summary"),
    llm_null_string
};


static const openai_reason_t  openai_choice_reasons[] = {
    { llm_string("stop"), OPENAI_FIT },
    { llm_string("tool_calls"), OPENAI_FIT },
    { llm_string("function_call"), OPENAI_FIT },
    { llm_string("length"), OPENAI_TRUNCATED },
    { llm_string("content_filter"), OPENAI_FILTERED },
    { llm_null_string, OPENAI_UNFINISHED }
};


static const openai_reason_t  openai_response_reasons[] = {
    { llm_string("completed"), OPENAI_FIT },
    { llm_string("incomplete"), OPENAI_TRUNCATED },
    { llm_string("max_output_tokens"), OPENAI_TRUNCATED },
    { llm_string("content_filter"), OPENAI_FILTERED },
    { llm_string("failed"), OPENAI_FAILED },
    { llm_null_string, OPENAI_UNFINISHED }
};


static llm_uint_t openai_says(const llm_endpoint_t *ep,
    const llm_str_t *text);


const llm_caching_t  openai_caching = {
    openai_kind,
    openai_users,
    openai_unkeyed,
    openai_unfit,
    openai_says,
    openai_fold,
    openai_unfold
};


static llm_uint_t
openai_kind(const llm_request_t *rq)
{
    llm_uint_t        kind;
    llm_json_value_t  v[OPENAI_K_MAX];

    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
    case OPENAI_COMPLETIONS:
    case OPENAI_RESPONSES:
        break;

    case OPENAI_EMBEDDINGS:
        return LLM_CACHE_FIXED;

    default:
        return LLM_CACHE_STATEFUL;
    }

    llm_kind_find(rq, openai_kind_names, v, OPENAI_K_MAX);

    kind = llm_kind_sampling(v);

    if (openai_stateful(rq, v)) {
        kind |= LLM_CACHE_STATEFUL;
    }

    return kind;
}


static llm_uint_t
openai_stateful(const llm_request_t *rq, const llm_json_value_t *v)
{
    const llm_json_value_t  *m;

    m = rq->member;

    if (openai_stateful_members(rq, v)
        || openai_stateful_tools(&m[OPENAI_M_TOOLS]))
    {
        return 1;
    }

    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
        return openai_stateful_messages(&m[OPENAI_M_MESSAGES]);

    case OPENAI_RESPONSES:

        /* a prompt is a stored one */

        return v[OPENAI_K_STORE].type != LLM_JSON_FALSE
               || openai_said(&m[OPENAI_M_PROMPT])
               || openai_stateful_input(&m[OPENAI_M_INPUT]);

    default:
        return 0;
    }
}


static llm_uint_t
openai_stateful_members(const llm_request_t *rq, const llm_json_value_t *v)
{
    llm_uint_t               i;
    llm_json_value_t         cached;
    const llm_json_value_t  *m;
    static const llm_str_t   path[] = {
        llm_string("google"),
        llm_string("cached_content")
    };

    m = rq->member;

    for (i = OPENAI_K_STATE; i < OPENAI_K_MAX; i++) {
        if (openai_said(&v[i])) {
            return 1;
        }
    }

    llm_json_path(&m[OPENAI_M_EXTRA], path, 2, &cached);

    /* an empty object of options asks for a search as well */

    return openai_said(&v[OPENAI_K_STORE])
           || openai_said(&m[OPENAI_M_PREVIOUS])
           || openai_said(&m[OPENAI_M_CONVERSATION])
           || openai_said(&m[OPENAI_M_CACHED])
           || openai_said(&m[OPENAI_M_CACHED_CAMEL])
           || openai_said(&cached)
           || (v[OPENAI_K_SEARCH].type != LLM_JSON_ABSENT
               && v[OPENAI_K_SEARCH].type != LLM_JSON_NULL);
}


static llm_uint_t
openai_said(const llm_json_value_t *v)
{
    return v->type != LLM_JSON_FALSE && !llm_json_empty(v);
}


static llm_uint_t
openai_stateful_tools(const llm_json_value_t *tools)
{
    u_char                 *pos;
    llm_json_value_t        type, tool;
    static const llm_str_t  name = llm_string("type");

    if (llm_json_empty(tools)) {
        return 0;
    }

    if (tools->type != LLM_JSON_ARRAY) {
        return 1;
    }

    pos = NULL;

    while (llm_json_next_object(&tools->raw, &pos, &name, &type, 1, &tool)
           == LLM_OK)
    {
        if (!llm_json_is(&type, "function", 8)
            && !llm_json_is(&type, "custom", 6))
        {
            return 1;
        }
    }

    return 0;
}


/* files, and spoken answers, by their ids */

static llm_uint_t
openai_stateful_messages(const llm_json_value_t *messages)
{
    u_char                 *pos;

    enum { CONTENT = 0, AUDIO, MAX };

    llm_json_value_t        message, id, v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("content"),
        llm_string("audio")
    };
    static const llm_str_t  path = llm_string("id");
    static const llm_str_t  file[] = {
        llm_string("file"),
        llm_string("file_id")
    };

    if (messages->type != LLM_JSON_ARRAY
        || !llm_bound_words(&messages->raw, openai_message_words))
    {
        return 0;
    }

    pos = NULL;

    while (llm_json_next_object(&messages->raw, &pos, names, v, MAX,
                                &message)
           == LLM_OK)
    {
        llm_json_path(&v[AUDIO], &path, 1, &id);

        if (openai_said(&id) || openai_names_file(&v[CONTENT], file, 2)) {
            return 1;
        }
    }

    return 0;
}


static llm_uint_t
openai_stateful_input(const llm_json_value_t *input)
{
    u_char                 *pos;
    llm_json_value_t        item, v[OPENAI_I_MAX];
    static const llm_str_t  names[OPENAI_I_MAX] = {
        llm_string("type"),
        llm_string("id"),
        llm_string("role"),
        llm_string("container_id"),
        llm_string("encrypted_content"),
        llm_string("content"),
        llm_string("output")
    };

    if (input->type != LLM_JSON_ARRAY) {
        return 0;
    }

    pos = NULL;

    while (llm_json_next_object(&input->raw, &pos, names, v, OPENAI_I_MAX,
                                &item)
           == LLM_OK)
    {
        if (openai_stateful_item(v)) {
            return 1;
        }
    }

    return 0;
}


static llm_uint_t
openai_stateful_item(const llm_json_value_t *v)
{
    llm_uint_t              i;
    static const llm_str_t  path = llm_string("file_id");

    if (llm_json_empty(&v[OPENAI_I_TYPE])) {

        /* a message, or a reference to an item: both need no type */

        if (llm_json_empty(&v[OPENAI_I_ROLE])) {
            return 1;
        }

    } else if (!openai_item_known(&v[OPENAI_I_TYPE])) {

        for (i = 0; openai_item_secret[i].len; i++) {
            if (llm_json_is(&v[OPENAI_I_TYPE],
                            (const char *) openai_item_secret[i].data,
                            openai_item_secret[i].len))
            {
                break;
            }
        }

        if (openai_item_secret[i].len == 0
            || llm_json_empty(&v[OPENAI_I_ENCRYPTED]))
        {
            return 1;
        }
    }

    return openai_said(&v[OPENAI_I_CONTAINER])
           || openai_names_file(&v[OPENAI_I_CONTENT], &path, 1)
           || openai_names_file(&v[OPENAI_I_OUTPUT], &path, 1);
}


static llm_uint_t
openai_item_known(const llm_json_value_t *type)
{
    const llm_str_t  *name;

    for (name = openai_item_types; name->len; name++) {
        if (llm_json_is(type, (const char *) name->data, name->len)) {
            return 1;
        }
    }

    return 0;
}


static llm_uint_t
openai_names_file(const llm_json_value_t *parts, const llm_str_t *path,
    llm_uint_t n)
{
    u_char            *pos;
    llm_json_value_t   part, first, file;

    if (parts->type != LLM_JSON_ARRAY) {
        return 0;
    }

    pos = NULL;

    while (llm_json_next_object(&parts->raw, &pos, path, &first, 1, &part)
           == LLM_OK)
    {
        llm_json_path(&first, path + 1, n - 1, &file);

        if (openai_said(&file)) {
            return 1;
        }
    }

    return 0;
}


static llm_uint_t
openai_users(const llm_request_t *rq, llm_json_value_t users[LLM_USERS])
{
    llm_uint_t              i, n;
    static const llm_str_t  names[OPENAI_U_MAX] = {
        llm_string("safety_identifier"),
        llm_string("user")
    };

    memset(users, 0, LLM_USERS * sizeof(llm_json_value_t));

    switch (rq->endpoint->id) {

    case OPENAI_CHAT:
    case OPENAI_RESPONSES:
        llm_kind_find(rq, names, users, OPENAI_U_MAX);
        break;

    case OPENAI_COMPLETIONS:
    case OPENAI_EMBEDDINGS:
        llm_kind_find(rq, &names[OPENAI_U_USER], &users[OPENAI_U_USER], 1);
        break;

    default:
        return 0;
    }

    n = 0;

    for (i = 0; i < OPENAI_U_MAX; i++) {

        if (users[i].type == LLM_JSON_STRING && users[i].raw.len > 2) {
            n++;

        } else {
            memset(&users[i], 0, sizeof(llm_json_value_t));
        }
    }

    return n;
}


static const llm_str_t *
openai_unkeyed(const llm_endpoint_t *ep)
{
    static const llm_str_t  none[] = {
        llm_null_string
    };
    static const llm_str_t  chat[] = {
        llm_string("stream"),
        llm_string("stream_options"),
        llm_string("user"),
        llm_string("safety_identifier"),
        llm_string("prompt_cache_key"),
        llm_string("prompt_cache_retention"),
        llm_string("metadata"),
        llm_null_string
    };
    static const llm_str_t  completions[] = {
        llm_string("stream"),
        llm_string("stream_options"),
        llm_string("user"),
        llm_null_string
    };
    static const llm_str_t  embeddings[] = {
        llm_string("user"),
        llm_null_string
    };
    static const llm_str_t  responses[] = {
        llm_string("stream"),
        llm_string("stream_options"),
        llm_null_string
    };

    switch (ep->id) {

    case OPENAI_CHAT:
        return chat;

    case OPENAI_COMPLETIONS:
        return completions;

    case OPENAI_EMBEDDINGS:
        return embeddings;

    case OPENAI_RESPONSES:
        return responses;

    default:
        return none;
    }
}


llm_uint_t
openai_fit(const llm_answer_t *a)
{
    const openai_reason_t  *p;

    p = (a->endpoint->id == OPENAI_RESPONSES) ? openai_response_reasons
                                              : openai_choice_reasons;

    for ( /* void */ ; p->name.len; p++) {
        if (a->finish_reason_len == p->name.len
            && memcmp(a->finish_reason, p->name.data, p->name.len) == 0)
        {
            break;
        }
    }

    return p->fit;
}


static const char *
openai_unfit(const llm_answer_t *a)
{
    llm_uint_t                fit;
    static const char *const  words[OPENAI_FIT_MAX] = {
        NULL, "unfinished", "truncated", "filtered", "failed"
    };

    if (a->failed) {
        return words[OPENAI_FAILED];
    }

    if (a->endpoint->id == OPENAI_EMBEDDINGS) {
        return NULL;
    }

    fit = openai_fit(a);

    if (fit < a->worst) {
        fit = a->worst;
    }

    if (fit == OPENAI_FIT && !a->finished) {
        fit = OPENAI_UNFINISHED;
    }

    return words[fit];
}


/* vectors, and nothing but vectors */

static llm_uint_t
openai_says(const llm_endpoint_t *ep, const llm_str_t *text)
{
    u_char                 *pos;
    llm_int_t               rc;
    llm_uint_t              n;
    llm_json_value_t        data, item, v;
    static const llm_str_t  name = llm_string("data");
    static const llm_str_t  embedding = llm_string("embedding");

    if (ep->id != OPENAI_EMBEDDINGS) {
        return 1;
    }

    if (llm_json_scan(text, LLM_REQUEST_DEPTH, &name, &data, 1, NULL)
        != LLM_OK
        || data.type != LLM_JSON_ARRAY)
    {
        return 0;
    }

    pos = NULL;

    for (n = 0; /* void */; n++) {

        rc = llm_json_next_object(&data.raw, &pos, &embedding, &v, 1, &item);

        if (rc != LLM_OK) {
            return n != 0;
        }

        if (llm_json_empty(&v)
            || (v.type != LLM_JSON_ARRAY && v.type != LLM_JSON_STRING))
        {
            return 0;
        }
    }
}
