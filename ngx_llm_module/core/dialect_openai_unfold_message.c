
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: the message of a plain chat answer as chunks.  Texts
 * are cut into pieces, so are the arguments of calls; what chunks are not made
 * for is told once, in a chunk of its own.
 */


#include <string.h>

#include "dialect_openai_chunk.h"


/* members of a message */

enum {
    OPENAI_U_ROLE = 0,
    OPENAI_U_TEXTS,
    OPENAI_U_REASONING_CONTENT = OPENAI_U_TEXTS,
    OPENAI_U_REASONING,
    OPENAI_U_CONTENT,
    OPENAI_U_REFUSAL,
    OPENAI_U_TEXTS_END,
    OPENAI_U_TOOL_CALLS = OPENAI_U_TEXTS_END,
    OPENAI_U_FUNCTION_CALL,
    OPENAI_U_AUDIO,
    OPENAI_U_MAX
};


/* members of a tool call */

enum {
    OPENAI_U_FUNCTION = 0,
    OPENAI_U_CUSTOM,
    OPENAI_U_CALL_INDEX,
    OPENAI_U_CALL_MAX
};


static llm_int_t openai_unfold_check(const llm_json_value_t *v);
static llm_uint_t openai_unfold_told(const openai_unfold_t *u,
    const llm_json_value_t *v);
static void openai_unfold_role(openai_unfold_t *u,
    const llm_json_value_t *v, llm_uint_t told);
static llm_int_t openai_unfold_others(openai_unfold_t *u,
    const llm_json_value_t *message);
static llm_int_t openai_unfold_calls(openai_unfold_t *u,
    const llm_json_value_t *calls);
static llm_int_t openai_unfold_call(openai_unfold_t *u,
    const llm_json_value_t *call, llm_uint_t n);
static llm_int_t openai_unfold_call_head(openai_unfold_t *u,
    const llm_json_value_t *call, llm_uint_t n);
static llm_int_t openai_unfold_function_call(openai_unfold_t *u,
    const llm_json_value_t *function);
static llm_int_t openai_unfold_function(openai_unfold_t *u,
    const llm_json_value_t *function);
static void openai_unfold_arguments(openai_unfold_t *u,
    const llm_str_t *before, const llm_json_value_t *function,
    const llm_str_t *after);


static const llm_str_t  openai_message_names[OPENAI_U_MAX] = {
    llm_string("role"),
    llm_string("reasoning_content"),
    llm_string("reasoning"),
    llm_string("content"),
    llm_string("refusal"),
    llm_string("tool_calls"),
    llm_string("function_call"),
    llm_string("audio")
};


static const llm_str_t  openai_call_names[OPENAI_U_CALL_MAX] = {
    llm_string("function"),
    llm_string("custom"),
    llm_string("index")
};


/* the texts of functions and of custom tools */

static const llm_str_t  openai_function_names[] = {
    llm_string("arguments"),
    llm_string("input")
};


llm_int_t
openai_unfold_message(openai_unfold_t *u, const llm_json_value_t *message)
{
    llm_int_t                     rc;
    llm_uint_t                    i, told;
    llm_json_value_t              v[OPENAI_U_MAX];
    static const openai_around_t  around[] = {
        { llm_string("\"delta\":{\"reasoning_content\":\""),
          llm_string("\"}") },
        { llm_string("\"delta\":{\"reasoning\":\""), llm_string("\"}") },
        { llm_string("\"delta\":{\"content\":\""), llm_string("\"}") },
        { llm_string("\"delta\":{\"refusal\":\""), llm_string("\"}") }
    };

    if (message->type != LLM_JSON_OBJECT
        || llm_json_find(&message->raw, openai_message_names, v,
                         OPENAI_U_MAX)
           != LLM_OK
        || openai_unfold_check(v) != LLM_OK)
    {
        return LLM_DECLINED;
    }

    told = openai_unfold_told(u, v);

    openai_unfold_role(u, v, told);

    for (i = OPENAI_U_TEXTS; i < OPENAI_U_TEXTS_END; i++) {
        if (v[i].type == LLM_JSON_STRING) {
            openai_chunk_pieces(u, &around[i - OPENAI_U_TEXTS], &v[i],
                                i == told);
        }
    }

    rc = openai_unfold_others(u, message);

    if (rc == LLM_OK) {
        rc = openai_unfold_calls(u, &v[OPENAI_U_TOOL_CALLS]);
    }

    if (rc == LLM_OK) {
        rc = openai_unfold_function_call(u, &v[OPENAI_U_FUNCTION_CALL]);
    }

    return rc;
}


static llm_int_t
openai_unfold_check(const llm_json_value_t *v)
{
    llm_uint_t  i;

    for (i = 0; i < OPENAI_U_MAX; i++) {
        if (v[i].duplicate) {
            return LLM_DECLINED;
        }
    }

    for (i = OPENAI_U_TEXTS; i < OPENAI_U_TEXTS_END; i++) {
        if (v[i].type > LLM_JSON_NULL && v[i].type != LLM_JSON_STRING) {
            return LLM_DECLINED;
        }
    }

    if (v[OPENAI_U_ROLE].type != LLM_JSON_STRING
        || llm_json_empty(&v[OPENAI_U_ROLE])
        || !llm_json_empty(&v[OPENAI_U_AUDIO]))
    {
        return LLM_DECLINED;
    }

    return LLM_OK;
}


/* the text whose only chunk tells the logprobs; the role's does if there is
 * none */

static llm_uint_t
openai_unfold_told(const openai_unfold_t *u, const llm_json_value_t *v)
{
    if (u->logprobs.type != LLM_JSON_OBJECT) {
        return OPENAI_U_MAX;
    }

    if (!llm_json_empty(&v[OPENAI_U_CONTENT])) {
        return OPENAI_U_CONTENT;
    }

    if (!llm_json_empty(&v[OPENAI_U_REFUSAL])) {
        return OPENAI_U_REFUSAL;
    }

    return OPENAI_U_ROLE;
}


static void
openai_unfold_role(openai_unfold_t *u, const llm_json_value_t *v,
    llm_uint_t told)
{
    llm_uint_t  i;

    openai_chunk_open(u);

    llm_out_text(&u->o, "\"delta\":{\"role\":");
    openai_chunk_raw(&u->o, &v[OPENAI_U_ROLE]);

    for (i = OPENAI_U_TEXTS; i < OPENAI_U_MAX; i++) {

        if (v[i].type == LLM_JSON_ABSENT
            || (i >= OPENAI_U_TEXTS_END && !llm_json_empty(&v[i]))
            || (i == OPENAI_U_FUNCTION_CALL && v[i].type != LLM_JSON_NULL))
        {
            continue;
        }

        llm_out_text(&u->o, ",");
        openai_chunk_name(&u->o, &openai_message_names[i]);

        if (v[i].type == LLM_JSON_STRING) {
            llm_out_text(&u->o, "\"\"");

        } else {
            openai_chunk_raw(&u->o, &v[i]);
        }
    }

    llm_out_text(&u->o, "}");
    openai_chunk_close(u, told == OPENAI_U_ROLE);
}


/* members that are not known, in a chunk of their own */

static llm_int_t
openai_unfold_others(openai_unfold_t *u, const llm_json_value_t *message)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         n;
    llm_json_value_t   v;

    n = 0;
    pos = NULL;

    while (llm_json_next(&message->raw, &pos, &name, &v) == LLM_OK) {

        if (openai_name_escaped(&name)) {
            return LLM_DECLINED;
        }

        if (openai_name_place(&name, openai_message_names, OPENAI_U_MAX)) {
            continue;
        }

        if (n++ == 0) {
            openai_chunk_open(u);
            llm_out_text(&u->o, "\"delta\":{");

        } else {
            llm_out_text(&u->o, ",");
        }

        openai_chunk_member(&u->o, &name, &v);
    }

    if (n) {
        llm_out_text(&u->o, "}");
        openai_chunk_close(u, 0);
    }

    return LLM_OK;
}


static llm_int_t
openai_unfold_calls(openai_unfold_t *u, const llm_json_value_t *calls)
{
    u_char            *pos;
    llm_int_t          rc;
    llm_uint_t         n;
    llm_json_value_t   call;

    if (calls->type <= LLM_JSON_NULL) {
        return LLM_OK;
    }

    if (calls->type != LLM_JSON_ARRAY) {
        return LLM_DECLINED;
    }

    pos = NULL;

    for (n = 0;
         llm_json_next(&calls->raw, &pos, NULL, &call) == LLM_OK;
         n++)
    {
        if (call.type != LLM_JSON_OBJECT || n == OPENAI_CALLS) {
            return LLM_DECLINED;
        }

        rc = openai_unfold_call(u, &call, n);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    return LLM_OK;
}


static llm_int_t
openai_unfold_call(openai_unfold_t *u, const llm_json_value_t *call,
    llm_uint_t n)
{
    uint64_t                index;
    llm_out_t               o;
    llm_str_t               before;
    llm_uint_t              i;
    u_char                  buf[96];
    llm_json_value_t        v[OPENAI_U_CALL_MAX];
    static const llm_str_t  after = llm_string("\"}}]}");

    (void) llm_json_find(&call->raw, openai_call_names, v, OPENAI_U_CALL_MAX);

    index = n;

    if (v[OPENAI_U_CALL_INDEX].type != LLM_JSON_ABSENT
        && llm_json_uint(&v[OPENAI_U_CALL_INDEX], &index) != LLM_OK)
    {
        return LLM_DECLINED;
    }

    if (index != n || v[OPENAI_U_CALL_INDEX].duplicate
        || v[OPENAI_U_FUNCTION].duplicate || v[OPENAI_U_CUSTOM].duplicate
        || openai_unfold_call_head(u, call, n) != LLM_OK)
    {
        return LLM_DECLINED;
    }

    for (i = OPENAI_U_FUNCTION; i <= OPENAI_U_CUSTOM; i++) {
        o.pos = buf;
        o.len = 0;

        llm_out_text(&o, "\"delta\":{\"tool_calls\":[{\"index\":");
        llm_out_uint(&o, n);
        llm_out_text(&o, ",\"");
        llm_out(&o, openai_call_names[i].data, openai_call_names[i].len);
        llm_out_text(&o, "\":{\"");

        before.data = buf;
        before.len = o.len;

        openai_unfold_arguments(u, &before, &v[i], &after);
    }

    return LLM_OK;
}


/* all of it but for its texts */

static llm_int_t
openai_unfold_call_head(openai_unfold_t *u, const llm_json_value_t *call,
    llm_uint_t n)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         place;
    llm_json_value_t   v;

    openai_chunk_open(u);
    llm_out_text(&u->o, "\"delta\":{\"tool_calls\":[{\"index\":");
    llm_out_uint(&u->o, n);

    pos = NULL;

    while (llm_json_next(&call->raw, &pos, &name, &v) == LLM_OK) {

        if (openai_name_escaped(&name)) {
            return LLM_DECLINED;
        }

        place = openai_name_place(&name, openai_call_names,
                                  OPENAI_U_CALL_MAX);

        if (place == OPENAI_U_CALL_INDEX + 1) {
            continue;
        }

        llm_out_text(&u->o, ",");

        if (place == 0) {
            openai_chunk_member(&u->o, &name, &v);
            continue;
        }

        openai_chunk_name(&u->o, &name);

        if (openai_unfold_function(u, &v) != LLM_OK) {
            return LLM_DECLINED;
        }
    }

    llm_out_text(&u->o, "}]}");
    openai_chunk_close(u, 0);

    return LLM_OK;
}


static llm_int_t
openai_unfold_function_call(openai_unfold_t *u,
    const llm_json_value_t *function)
{
    llm_int_t               rc;
    static const llm_str_t  before =
                                llm_string("\"delta\":{\"function_call\":{\"");
    static const llm_str_t  after = llm_string("\"}}");

    if (function->type <= LLM_JSON_NULL) {
        return LLM_OK;
    }

    openai_chunk_open(u);
    llm_out_text(&u->o, "\"delta\":{\"function_call\":");

    rc = openai_unfold_function(u, function);
    if (rc != LLM_OK) {
        return rc;
    }

    llm_out_text(&u->o, "}");
    openai_chunk_close(u, 0);

    openai_unfold_arguments(u, &before, function, &after);

    return LLM_OK;
}


/* all of it but for its texts */

static llm_int_t
openai_unfold_function(openai_unfold_t *u, const llm_json_value_t *function)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         n, seen, kind;
    llm_json_value_t   v;

    if (function->type == LLM_JSON_NULL) {
        llm_out_text(&u->o, "null");
        return LLM_OK;
    }

    if (function->type != LLM_JSON_OBJECT) {
        return LLM_DECLINED;
    }

    pos = NULL;
    seen = 0;

    llm_out_text(&u->o, "{");

    for (n = 0;
         llm_json_next(&function->raw, &pos, &name, &v) == LLM_OK;
         n++)
    {
        kind = openai_name_place(&name, openai_function_names, 2);

        if (openai_name_escaped(&name)
            || (kind && (seen & llm_bit(kind)))
            || (kind && v.type != LLM_JSON_STRING && v.type != LLM_JSON_NULL))
        {
            return LLM_DECLINED;
        }

        seen |= llm_bit(kind);

        if (n) {
            llm_out_text(&u->o, ",");
        }

        if (kind && v.type == LLM_JSON_STRING) {
            v.raw.len = 2;
            v.raw.data = (u_char *) "\"\"";
        }

        openai_chunk_member(&u->o, &name, &v);
    }

    llm_out_text(&u->o, "}");

    return LLM_OK;
}


/* its texts; before is all up to a name */

static void
openai_unfold_arguments(openai_unfold_t *u, const llm_str_t *before,
    const llm_json_value_t *function, const llm_str_t *after)
{
    u_char            buf[128];
    llm_out_t         o;
    llm_uint_t        i;
    openai_around_t   around;
    llm_json_value_t  v[2];

    if (llm_json_find(&function->raw, openai_function_names, v, 2)
        != LLM_OK)
    {
        return;
    }

    for (i = 0; i < 2; i++) {

        if (v[i].type != LLM_JSON_STRING) {
            continue;
        }

        o.pos = buf;
        o.len = 0;

        llm_out(&o, before->data, before->len);
        llm_out(&o, openai_function_names[i].data,
                openai_function_names[i].len);
        llm_out_text(&o, "\":\"");

        around.before.data = buf;
        around.before.len = o.len;
        around.after = *after;

        openai_chunk_pieces(u, &around, &v[i], 0);
    }
}
