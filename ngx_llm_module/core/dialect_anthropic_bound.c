
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: which members name state at the provider -
 * containers, files, and the signatures of thinking, which their maker alone
 * can verify - and the beginning of a conversation.  Messages are walked
 * once, and not at all if none of the names is in them.
 */


#include <string.h>

#include "dialect_anthropic.h"


/* members of a block */

enum {
    ANTHROPIC_B_TYPE = 0,
    ANTHROPIC_B_SIGNATURE,
    ANTHROPIC_B_DATA,
    ANTHROPIC_B_FILE,
    ANTHROPIC_B_SOURCE,
    ANTHROPIC_B_CONTENT,
    ANTHROPIC_B_MAX
};


#define ANTHROPIC_B_NAMED  ANTHROPIC_B_FILE    /* how many an answer has */


static void anthropic_bound_messages(llm_bound_t *b,
    const llm_json_value_t *messages, llm_uint_t secrets);
static void anthropic_bound_blocks(llm_bound_t *b,
    const llm_json_value_t *content, llm_uint_t secrets, llm_uint_t nested);
static const llm_json_value_t *anthropic_secret(const llm_json_value_t *v);


static const llm_str_t  anthropic_block_names[ANTHROPIC_B_MAX] = {
    llm_string("type"),
    llm_string("signature"),
    llm_string("data"),
    llm_string("file_id"),
    llm_string("source"),
    llm_string("content")
};


static const llm_str_t  anthropic_words[] = {
    llm_string("signature"),
    llm_string("redacted_thinking"),
    llm_string("file_id"),
    llm_null_string
};


static const llm_str_t  anthropic_file_words[] = {
    llm_string("file_id"),
    llm_null_string
};


llm_uint_t
anthropic_bound(const llm_request_t *rq, uint64_t *digests, llm_uint_t max)
{
    llm_bound_t  b;

    llm_bound_init(&b, digests, max);

    anthropic_bound_messages(&b, &rq->member[ANTHROPIC_M_MESSAGES], 1);
    llm_bound_add_id(&b, &rq->member[ANTHROPIC_M_CONTAINER]);

    return llm_bound_end(&b);
}


llm_uint_t
anthropic_names_file(const llm_request_t *rq)
{
    uint64_t     digest;
    llm_bound_t  b;

    llm_bound_init(&b, &digest, 1);

    anthropic_bound_messages(&b, &rq->member[ANTHROPIC_M_MESSAGES], 0);

    return llm_bound_end(&b) != 0;
}


/* with secrets those that only their maker can read, too */

static void
anthropic_bound_messages(llm_bound_t *b, const llm_json_value_t *messages,
    llm_uint_t secrets)
{
    u_char                 *pos;
    llm_json_value_t        message, content;
    static const llm_str_t  name = llm_string("content");

    if (messages->type != LLM_JSON_ARRAY
        || !llm_bound_words(&messages->raw,
                            secrets ? anthropic_words : anthropic_file_words))
    {
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&messages->raw, &pos, &name, &content, 1,
                                &message)
           == LLM_OK)
    {
        anthropic_bound_blocks(b, &content, secrets, 0);
    }
}


/* nested: those of a tool's result, which has none of its own */

static void
anthropic_bound_blocks(llm_bound_t *b, const llm_json_value_t *content,
    llm_uint_t secrets, llm_uint_t nested)
{
    u_char                 *pos;
    llm_json_value_t        block, file, v[ANTHROPIC_B_MAX];
    static const llm_str_t  path = llm_string("file_id");

    if (content->type != LLM_JSON_ARRAY) {
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&content->raw, &pos, anthropic_block_names,
                                v, ANTHROPIC_B_MAX, &block)
           == LLM_OK)
    {
        if (!nested) {
            anthropic_bound_blocks(b, &v[ANTHROPIC_B_CONTENT], secrets, 1);
        }

        llm_json_path(&v[ANTHROPIC_B_SOURCE], &path, 1, &file);

        llm_bound_add(b, &file);
        llm_bound_add(b, &v[ANTHROPIC_B_FILE]);

        if (secrets) {
            llm_bound_add(b, anthropic_secret(v));
        }
    }
}


/* what only its maker can read */

static const llm_json_value_t *
anthropic_secret(const llm_json_value_t *v)
{
    if (llm_json_is(&v[ANTHROPIC_B_TYPE], "redacted_thinking", 17)) {
        return &v[ANTHROPIC_B_DATA];
    }

    return &v[ANTHROPIC_B_SIGNATURE];
}


uint64_t
anthropic_prefix(const llm_request_t *rq)
{
    llm_digest_t             d;
    const llm_json_value_t  *m;

    m = rq->member;

    llm_digest_init(&d, 0);

    llm_prefix_content(&d, &m[ANTHROPIC_M_SYSTEM]);

    if (!llm_prefix_messages(&d, &m[ANTHROPIC_M_MESSAGES])) {
        return 0;
    }

    llm_prefix_raw(&d, &m[ANTHROPIC_M_TOOLS]);

    return llm_digest_end(&d);
}


void
anthropic_bind_message(llm_answer_t *a, const llm_json_value_t *message)
{
    u_char                 *pos;
    llm_json_value_t        block, content, v[ANTHROPIC_B_NAMED];
    static const llm_str_t  path = llm_string("content");

    llm_json_path(message, &path, 1, &content);

    pos = NULL;

    while (content.type == LLM_JSON_ARRAY
           && llm_json_next_object(&content.raw, &pos, anthropic_block_names,
                                   v, ANTHROPIC_B_NAMED, &block)
              == LLM_OK)
    {
        llm_answer_bind(a, anthropic_secret(v));
    }

    anthropic_bind_container(a, message);
}


void
anthropic_bind_container(llm_answer_t *a, const llm_json_value_t *object)
{
    llm_json_value_t        v;
    static const llm_str_t  path[] = {
        llm_string("container"),
        llm_string("id")
    };

    llm_json_path(object, path, 2, &v);
    llm_answer_bind(a, &v);
}


/* a signature comes whole, in one delta of its own */

void
anthropic_bind_block(llm_answer_t *a, const llm_json_value_t *block)
{
    llm_json_value_t  v[ANTHROPIC_B_NAMED];

    if (block->type == LLM_JSON_OBJECT
        && llm_json_find(&block->raw, anthropic_block_names, v,
                         ANTHROPIC_B_NAMED)
           == LLM_OK)
    {
        llm_answer_bind(a, anthropic_secret(v));
    }
}
