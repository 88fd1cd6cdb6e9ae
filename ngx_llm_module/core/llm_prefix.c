
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The beginning of a conversation as a digest that stays the same while the
 * conversation grows, so that its turns can meet one provider's prompt cache.
 * What is left out of it, and why, is said in llm_dialect.h.
 */


#include <string.h>

#include "llm_dialect.h"


static void llm_prefix_text(llm_digest_t *d, const llm_json_value_t *value);
static u_char *llm_prefix_line(u_char *p, u_char *last);
static void llm_prefix_block(llm_digest_t *d, const llm_json_value_t *block);


/* a zero keeps "ab" "c" from being "a" "bc": valid JSON has none */

void
llm_prefix_raw(llm_digest_t *d, const llm_json_value_t *value)
{
    llm_digest_add(d, value->raw.data, value->raw.len);
    llm_digest_add(d, "", 1);
}


static void
llm_prefix_text(llm_digest_t *d, const llm_json_value_t *value)
{
    u_char            *p;
    llm_json_value_t   rest;

    static const u_char  billing[] = "\"x-anthropic-billing-header:";

    rest = *value;

    if (rest.raw.len > sizeof(billing)
        && memcmp(rest.raw.data, billing, sizeof(billing) - 1) == 0)
    {
        p = llm_prefix_line(rest.raw.data, rest.raw.data + rest.raw.len);

        if (p == NULL) {
            return;
        }

        rest.raw.len -= p - rest.raw.data;
        rest.raw.data = p;
    }

    /* without the quotes, or with the line end for the first of them */

    rest.raw.data++;
    rest.raw.len -= 2;

    llm_prefix_raw(d, &rest);
}


/* the last byte of the first line end, as it stands in JSON; NULL: none */

static u_char *
llm_prefix_line(u_char *p, u_char *last)
{
    for ( ;; ) {
        p = memchr(p, '\\', last - p);

        if (p == NULL || last - p < 2) {
            return NULL;
        }

        if (p[1] == 'n') {
            return p + 1;
        }

        p += 2;
    }
}


void
llm_prefix_content(llm_digest_t *d, const llm_json_value_t *value)
{
    u_char                 *pos;

    enum { TYPE = 0, TEXT, MAX };

    llm_json_value_t        item, v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("type"),
        llm_string("text")
    };

    if (value->type == LLM_JSON_STRING) {
        llm_prefix_text(d, value);
        return;
    }

    if (value->type != LLM_JSON_ARRAY) {
        llm_prefix_raw(d, value);
        return;
    }

    pos = NULL;

    while (llm_json_next_object(&value->raw, &pos, names, v, MAX, &item)
           == LLM_OK)
    {
        if (v[TEXT].type == LLM_JSON_STRING
            && (llm_json_is(&v[TYPE], "text", 4)
                || llm_json_is(&v[TYPE], "input_text", 10)))
        {
            llm_prefix_text(d, &v[TEXT]);

        } else {
            llm_prefix_block(d, &item);
        }
    }
}


static void
llm_prefix_block(llm_digest_t *d, const llm_json_value_t *block)
{
    u_char            *pos;
    llm_str_t          name;
    llm_json_value_t   v;

    if (block->type != LLM_JSON_OBJECT) {
        llm_prefix_raw(d, block);
        return;
    }

    pos = NULL;

    while (llm_json_next(&block->raw, &pos, &name, &v) == LLM_OK) {

        if (!llm_json_name_is(&name, "cache_control", 13)) {
            llm_digest_add(d, name.data, name.len);
            llm_prefix_raw(d, &v);
        }
    }
}


llm_uint_t
llm_prefix_messages(llm_digest_t *d, const llm_json_value_t *messages)
{
    u_char                 *pos;
    llm_uint_t              n;
    llm_digest_t            first;

    enum { ROLE = 0, CONTENT, MAX };

    llm_json_value_t        item, v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("role"),
        llm_string("content")
    };

    if (messages->type == LLM_JSON_STRING) {

        /* as it comes in the next turn */

        llm_digest_add(d, "\"user\"", 7);
        llm_prefix_text(d, messages);
        return 1;
    }

    if (messages->type != LLM_JSON_ARRAY) {
        return 0;
    }

    n = 0;
    pos = NULL;
    first = *d;

    while (llm_json_next_object(&messages->raw, &pos, names, v, MAX, &item)
           == LLM_OK)
    {
        if (v[CONTENT].type == LLM_JSON_ABSENT) {
            llm_prefix_raw(d, &item);

        } else {
            llm_prefix_raw(d, &v[ROLE]);
            llm_prefix_content(d, &v[CONTENT]);
        }

        if (n++ == 0) {
            first = *d;
        }

        if (llm_json_is(&v[ROLE], "user", 4)) {
            return 1;
        }
    }

    *d = first;

    return n != 0;
}
