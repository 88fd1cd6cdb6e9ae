
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: a plain message as a stream, in the order and with
 * the events that the API sends.  All counts stand in message_delta, too, so
 * that who reads either event knows them.
 */


#include <string.h>

#include "dialect_anthropic_fold.h"


/* members of a message that are known at its end only */

enum {
    ANTHROPIC_U_REASON = 0,
    ANTHROPIC_U_SEQUENCE,
    ANTHROPIC_U_DETAILS,
    ANTHROPIC_U_CONTEXT,
    ANTHROPIC_U_CONTAINER,
    ANTHROPIC_U_USAGE,
    ANTHROPIC_U_CONTENT,
    ANTHROPIC_U_TYPE,
    ANTHROPIC_U_MAX
};


typedef struct {
    const llm_str_t       *text;
    llm_json_value_t       v[ANTHROPIC_U_MAX];
} anthropic_unfold_t;


static llm_uint_t anthropic_unfolds(const anthropic_unfold_t *u);
static llm_uint_t anthropic_unfolds_block(const llm_json_value_t *block);
static void anthropic_render_stream(llm_out_t *o, const void *data);
static void anthropic_unfold_start(llm_out_t *o,
    const anthropic_unfold_t *u);
static void anthropic_unfold_usage(llm_out_t *o,
    const llm_json_value_t *usage);
static void anthropic_unfold_block(llm_out_t *o, llm_uint_t index,
    const llm_json_value_t *block);
static void anthropic_unfold_begin(llm_out_t *o, anthropic_kind_e kind,
    const llm_json_value_t *block);
static void anthropic_unfold_member(llm_out_t *o, llm_uint_t index,
    llm_uint_t member, const llm_json_value_t *value);
static void anthropic_unfold_pieces(llm_out_t *o, llm_uint_t index,
    llm_uint_t member, const llm_str_t *text, size_t size);
static void anthropic_unfold_delta(llm_out_t *o, llm_uint_t index,
    llm_uint_t member);
static void anthropic_unfold_end(llm_out_t *o, const anthropic_unfold_t *u);


static const llm_str_t  anthropic_unfold_names[ANTHROPIC_U_MAX] = {
    llm_string("stop_reason"),
    llm_string("stop_sequence"),
    llm_string("stop_details"),
    llm_string("context_management"),
    llm_string("container"),
    llm_string("usage"),
    llm_string("content"),
    llm_string("type")
};


llm_int_t
anthropic_unfold(const llm_endpoint_t *ep, const llm_str_t *text,
    llm_uint_t usage, const llm_mem_t *mem, llm_str_t *out)
{
    llm_json_value_t    whole;
    anthropic_unfold_t  u;

    /* a stream of messages always tells it */

    (void) usage;

    u.text = text;

    if (ep->id != ANTHROPIC_MESSAGES
        || llm_json_scan(text, LLM_RETELL_PLAIN_DEPTH, anthropic_unfold_names,
                         u.v, ANTHROPIC_U_MAX, NULL)
           != LLM_OK)
    {
        return LLM_DECLINED;
    }

    memset(&whole, 0, sizeof(llm_json_value_t));

    whole.raw = *text;
    whole.type = LLM_JSON_OBJECT;

    if (!llm_retell_simple(&whole) || !anthropic_unfolds(&u)) {
        return LLM_DECLINED;
    }

    return llm_render(mem, out, anthropic_render_stream, &u);
}


/* 1 if there is an event for each thing in the message */

static llm_uint_t
anthropic_unfolds(const anthropic_unfold_t *u)
{
    u_char                  *pos;
    llm_uint_t               n;
    llm_json_value_t         block, output;
    const llm_json_value_t  *v = u->v;
    static const llm_str_t   path = llm_string("output_tokens");

    /* clients need output_tokens in message_delta */

    llm_json_path(&v[ANTHROPIC_U_USAGE], &path, 1, &output);

    if (!llm_json_is(&v[ANTHROPIC_U_TYPE], "message", 7)
        || v[ANTHROPIC_U_REASON].type != LLM_JSON_STRING
        || v[ANTHROPIC_U_CONTENT].type != LLM_JSON_ARRAY
        || !llm_retell_simple(&v[ANTHROPIC_U_USAGE])
        || output.type != LLM_JSON_NUMBER)
    {
        return 0;
    }

    n = 0;
    pos = NULL;

    while (llm_json_next(&v[ANTHROPIC_U_CONTENT].raw, &pos, NULL, &block)
           == LLM_OK)
    {
        if (n++ == LLM_RETELL_ITEMS || !anthropic_unfolds_block(&block)) {
            return 0;
        }
    }

    return 1;
}


static llm_uint_t
anthropic_unfolds_block(const llm_json_value_t *block)
{
    anthropic_kind_e         kind;
    llm_json_value_t         s[ANTHROPIC_S_MAX];
    const llm_json_value_t  *signature;

    if (!llm_retell_simple(block)) {
        return 0;
    }

    kind = anthropic_streamed_find(block, s);

    switch (kind) {

    case ANTHROPIC_K_TEXT:
        return s[ANTHROPIC_S_TEXT].type == LLM_JSON_STRING
               && llm_retell_objects(&s[ANTHROPIC_S_CITATIONS]);

    case ANTHROPIC_K_THINKING:
        signature = &s[ANTHROPIC_S_SIGNATURE];

        return s[ANTHROPIC_S_THINKING].type == LLM_JSON_STRING
               && (signature->type == LLM_JSON_STRING
                   || signature->type == LLM_JSON_NULL
                   || signature->type == LLM_JSON_ABSENT);

    case ANTHROPIC_K_CALL:
        return s[ANTHROPIC_S_INPUT].type == LLM_JSON_OBJECT;

    default:
        return kind == ANTHROPIC_K_WHOLE;
    }
}


static void
anthropic_render_stream(llm_out_t *o, const void *data)
{
    u_char                    *pos;
    llm_uint_t                 i;
    llm_json_value_t           block;
    const anthropic_unfold_t  *u = data;

    anthropic_unfold_start(o, u);

    i = 0;
    pos = NULL;

    while (llm_json_next(&u->v[ANTHROPIC_U_CONTENT].raw, &pos, NULL, &block)
           == LLM_OK)
    {
        anthropic_unfold_block(o, i++, &block);
    }

    anthropic_unfold_end(o, u);

    llm_retell_event(o, "message_stop");
    llm_retell_end(o);
}


static void
anthropic_unfold_start(llm_out_t *o, const anthropic_unfold_t *u)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         i, first;
    llm_json_value_t   value;

    pos = NULL;
    first = 1;

    llm_retell_event(o, "message_start");
    llm_out_text(o, ",\"message\":{");

    while (llm_json_next(u->text, &pos, &name, &value) == LLM_OK) {
        llm_retell_name(o, &name, &first);

        for (i = 0; i < ANTHROPIC_U_MAX; i++) {
            if (u->v[i].raw.data == value.raw.data) {
                break;
            }
        }

        switch (i) {

        case ANTHROPIC_U_REASON:
        case ANTHROPIC_U_SEQUENCE:
        case ANTHROPIC_U_DETAILS:
        case ANTHROPIC_U_CONTEXT:
            llm_out_text(o, "null");
            break;

        case ANTHROPIC_U_CONTENT:
            llm_out_text(o, "[]");
            break;

        case ANTHROPIC_U_USAGE:
            anthropic_unfold_usage(o, &value);
            break;

        default:
            llm_retell_value(o, &value.raw);
        }
    }

    llm_out_text(o, "}");
    llm_retell_end(o);
}


/* as it is at the beginning */

static void
anthropic_unfold_usage(llm_out_t *o, const llm_json_value_t *usage)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         first;
    llm_json_value_t   value;

    pos = NULL;
    first = 1;

    llm_out_text(o, "{");

    while (llm_json_next(&usage->raw, &pos, &name, &value) == LLM_OK) {
        llm_retell_name(o, &name, &first);

        if (llm_json_name_is(&name, "output_tokens", 13)
            && !(value.raw.len == 1 && *value.raw.data == '0'))
        {
            llm_out_text(o, "1");
            continue;
        }

        llm_retell_value(o, &value.raw);
    }

    llm_out_text(o, "}");
}


static void
anthropic_unfold_block(llm_out_t *o, llm_uint_t index,
    const llm_json_value_t *block)
{
    llm_uint_t        i;
    anthropic_kind_e  kind;
    llm_json_value_t  s[ANTHROPIC_S_MAX];

    kind = anthropic_streamed_find(block, s);

    llm_retell_event(o, "content_block_start");
    llm_out_text(o, ",\"index\":");
    llm_out_uint(o, index);
    llm_out_text(o, ",\"content_block\":");
    anthropic_unfold_begin(o, kind, block);
    llm_retell_end(o);

    for (i = 0; i < ANTHROPIC_S_MAX; i++) {
        if (anthropic_streamed[i].kind == kind) {
            anthropic_unfold_member(o, index, i, &s[i]);
        }
    }

    llm_retell_event(o, "content_block_stop");
    llm_out_text(o, ",\"index\":");
    llm_out_uint(o, index);
    llm_retell_end(o);
}


/* the block without what will be told in pieces */

static void
anthropic_unfold_begin(llm_out_t *o, anthropic_kind_e kind,
    const llm_json_value_t *block)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         i, first;
    llm_json_value_t   value, s[ANTHROPIC_S_MAX];

    static const llm_str_t  empty[] = {
        [LLM_JSON_STRING] = llm_string("\"\""),
        [LLM_JSON_ARRAY] = llm_string("[]"),
        [LLM_JSON_OBJECT] = llm_string("{}")
    };

    (void) anthropic_streamed_find(block, s);

    pos = NULL;
    first = 1;

    llm_out_text(o, "{");

    while (llm_json_next(&block->raw, &pos, &name, &value) == LLM_OK) {
        llm_retell_name(o, &name, &first);

        for (i = 0; i < ANTHROPIC_S_MAX; i++) {
            if (anthropic_streamed[i].kind == kind
                && s[i].raw.data == value.raw.data)
            {
                break;
            }
        }

        if (i < ANTHROPIC_S_MAX && value.type != LLM_JSON_NULL) {
            value.raw = empty[value.type];
        }

        llm_retell_value(o, &value.raw);
    }

    llm_out_text(o, "}");
}


static void
anthropic_unfold_member(llm_out_t *o, llm_uint_t index, llm_uint_t member,
    const llm_json_value_t *value)
{
    u_char            *pos;
    llm_str_t          text;
    llm_json_value_t   item;

    if (member == ANTHROPIC_S_CITATIONS) {
        pos = NULL;

        while (value->type == LLM_JSON_ARRAY
               && llm_json_next(&value->raw, &pos, NULL, &item) == LLM_OK)
        {
            anthropic_unfold_delta(o, index, member);
            llm_retell_value(o, &item.raw);
            llm_out_text(o, "}");
            llm_retell_end(o);
        }

        return;
    }

    if (member == ANTHROPIC_S_INPUT) {
        anthropic_unfold_delta(o, index, member);
        llm_out_text(o, "\"\"}");
        llm_retell_end(o);

        if (!llm_json_empty(value)) {
            anthropic_unfold_pieces(o, index, member, &value->raw,
                                    llm_retell_size(value->raw.len));
        }

        return;
    }

    text = llm_retell_inside(value);

    /* a signature comes whole */

    anthropic_unfold_pieces(o, index, member, &text,
                            member == ANTHROPIC_S_SIGNATURE
                            ? text.len : llm_retell_size(text.len));
}


static void
anthropic_unfold_pieces(llm_out_t *o, llm_uint_t index, llm_uint_t member,
    const llm_str_t *text, size_t size)
{
    size_t     offset;
    llm_str_t  piece;

    offset = 0;

    while (llm_retell_piece(text, &offset, size, &piece) == LLM_OK) {
        anthropic_unfold_delta(o, index, member);

        if (member == ANTHROPIC_S_INPUT) {
            llm_out_string(o, &piece);

        } else {
            llm_out_text(o, "\"");
            llm_out(o, piece.data, piece.len);
            llm_out_text(o, "\"");
        }

        llm_out_text(o, "}");
        llm_retell_end(o);
    }
}


static void
anthropic_unfold_delta(llm_out_t *o, llm_uint_t index, llm_uint_t member)
{
    const anthropic_streamed_t  *s;

    s = &anthropic_streamed[member];

    llm_retell_event(o, "content_block_delta");
    llm_out_text(o, ",\"index\":");
    llm_out_uint(o, index);
    llm_out_text(o, ",\"delta\":{\"type\":\"");
    llm_out(o, s->delta, strlen(s->delta));
    llm_out_text(o, "\",\"");
    llm_out(o, s->piece.data, s->piece.len);
    llm_out_text(o, "\":");
}


static void
anthropic_unfold_end(llm_out_t *o, const anthropic_unfold_t *u)
{
    llm_uint_t                i, first;
    const llm_json_value_t   *context;
    static const llm_uint_t   members[] = {
        ANTHROPIC_U_CONTAINER,
        ANTHROPIC_U_REASON,
        ANTHROPIC_U_SEQUENCE,
        ANTHROPIC_U_DETAILS
    };

    first = 1;
    context = &u->v[ANTHROPIC_U_CONTEXT];

    llm_retell_event(o, "message_delta");
    llm_out_text(o, ",\"delta\":{");

    for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (u->v[members[i]].type != LLM_JSON_ABSENT) {
            llm_retell_name(o, &anthropic_unfold_names[members[i]], &first);
            llm_retell_value(o, &u->v[members[i]].raw);
        }
    }

    llm_out_text(o, "},\"usage\":");
    llm_retell_value(o, &u->v[ANTHROPIC_U_USAGE].raw);

    if (context->type != LLM_JSON_ABSENT && context->type != LLM_JSON_NULL) {
        llm_out_text(o, ",\"context_management\":");
        llm_retell_value(o, &context->raw);
    }

    llm_retell_end(o);
}
