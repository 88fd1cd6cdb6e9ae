
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: the message that a stream has told, written.  Members
 * stand where message_start has them, those that came later behind.
 */


#include <string.h>

#include "dialect_anthropic_fold.h"


static void anthropic_render_content(llm_out_t *o,
    const anthropic_fold_t *f);
static void anthropic_render_block(llm_out_t *o, const anthropic_fold_t *f,
    const anthropic_block_t *b);
static void anthropic_render_pieces(llm_out_t *o, const anthropic_fold_t *f,
    const anthropic_block_t *b, llm_uint_t member);
static void anthropic_render_usage(llm_out_t *o, const anthropic_fold_t *f);
static void anthropic_render_added(llm_out_t *o, const llm_str_t *base,
    const llm_str_t *objects, llm_uint_t n, llm_uint_t *first);
static llm_uint_t anthropic_fold_has(const llm_str_t *objects, llm_uint_t n,
    const llm_str_t *name);


static const llm_str_t  anthropic_content = llm_string("content");
static const llm_str_t  anthropic_used = llm_string("usage");
static const llm_str_t  anthropic_context = llm_string("context_management");


void
anthropic_folded(llm_out_t *o, const void *data)
{
    u_char                  *pos;
    llm_str_t                name;
    llm_uint_t               first, content, usage, context;
    llm_json_value_t         value;
    const anthropic_fold_t  *f = data;

    pos = NULL;
    first = 1;

    /* what is still to be written */

    content = 1;
    usage = (f->nusages != 0);
    context = (f->context.type != LLM_JSON_ABSENT);

    llm_out_text(o, "{");

    while (llm_json_next(&f->message.raw, &pos, &name, &value) == LLM_OK) {
        llm_retell_name(o, &name, &first);

        if (content && llm_json_name_is(&name, "content", 7)) {
            anthropic_render_content(o, f);
            content = 0;

        } else if (usage && llm_json_name_is(&name, "usage", 5)) {
            anthropic_render_usage(o, f);
            usage = 0;

        } else if (context
                   && llm_json_name_is(&name, "context_management", 18))
        {
            llm_out(o, f->context.raw.data, f->context.raw.len);
            context = 0;

        } else {
            (void) anthropic_fold_over(f->deltas, f->ndeltas, &name, &value);
            llm_out(o, value.raw.data, value.raw.len);
        }
    }

    if (content) {
        llm_retell_name(o, &anthropic_content, &first);
        anthropic_render_content(o, f);
    }

    anthropic_render_added(o, &f->message.raw, f->deltas, f->ndeltas, &first);

    if (context) {
        llm_retell_name(o, &anthropic_context, &first);
        llm_out(o, f->context.raw.data, f->context.raw.len);
    }

    if (usage) {
        llm_retell_name(o, &anthropic_used, &first);
        anthropic_render_usage(o, f);
    }

    llm_out_text(o, "}");
}


static void
anthropic_render_content(llm_out_t *o, const anthropic_fold_t *f)
{
    llm_uint_t          i;
    anthropic_block_t  *b;

    b = f->blocks.items;

    llm_out_text(o, "[");

    for (i = 0; i < f->blocks.n; i++) {
        llm_out(o, ",", i ? 1 : 0);
        anthropic_render_block(o, f, &b[i]);
    }

    llm_out_text(o, "]");
}


static void
anthropic_render_block(llm_out_t *o, const anthropic_fold_t *f,
    const anthropic_block_t *b)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         i, first;
    llm_json_value_t   value;

    if (b->npieces == 0) {
        llm_out(o, b->value.raw.data, b->value.raw.len);
        return;
    }

    pos = NULL;
    first = 1;

    llm_out_text(o, "{");

    while (llm_json_next(&b->value.raw, &pos, &name, &value) == LLM_OK) {
        llm_retell_name(o, &name, &first);

        for (i = 0; i < ANTHROPIC_S_MAX; i++) {
            if (b->n[i] && b->begun[i].raw.data == value.raw.data) {
                break;
            }
        }

        if (i < ANTHROPIC_S_MAX) {
            anthropic_render_pieces(o, f, b, i);

        } else {
            llm_out(o, value.raw.data, value.raw.len);
        }
    }

    for (i = 0; i < ANTHROPIC_S_MAX; i++) {

        if (b->n[i] && b->begun[i].type == LLM_JSON_ABSENT) {
            llm_retell_name(o, &anthropic_streamed[i].name, &first);
            anthropic_render_pieces(o, f, b, i);
        }
    }

    llm_out_text(o, "}");
}


static void
anthropic_render_pieces(llm_out_t *o, const anthropic_fold_t *f,
    const anthropic_block_t *b, llm_uint_t member)
{
    llm_str_t                 begun;
    llm_uint_t                i, array, comma;
    const anthropic_piece_t  *piece;

    if (member == ANTHROPIC_S_INPUT) {
        llm_out(o, b->input, b->len);
        return;
    }

    array = (anthropic_streamed[member].type == LLM_JSON_ARRAY);
    comma = array && !llm_json_empty(&b->begun[member]);

    llm_out(o, array ? "[" : "\"", 1);

    if (comma) {
        begun = b->begun[member].raw;
        llm_out(o, begun.data + 1, begun.len - 2);

    } else if (!array) {
        begun = llm_retell_inside(&b->begun[member]);
        llm_out(o, begun.data, begun.len);
    }

    piece = (anthropic_piece_t *) f->pieces.items + b->piece;

    for (i = 0; i < b->npieces; i++) {

        if (piece[i].member == member) {
            llm_out(o, ",", comma);
            llm_out(o, piece[i].text.data, piece[i].text.len);
            comma = array;
        }
    }

    llm_out(o, array ? "]" : "\"", 1);
}


/* counts are cumulative: the last one counts */

static void
anthropic_render_usage(llm_out_t *o, const anthropic_fold_t *f)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         first;
    llm_json_value_t   value;

    pos = NULL;
    first = 1;

    llm_out_text(o, "{");

    while (llm_json_next(&f->usage.raw, &pos, &name, &value) == LLM_OK) {
        (void) anthropic_fold_over(f->usages, f->nusages, &name, &value);

        llm_retell_name(o, &name, &first);
        llm_out(o, value.raw.data, value.raw.len);
    }

    anthropic_render_added(o, &f->usage.raw, f->usages, f->nusages, &first);

    llm_out_text(o, "}");
}


/* the objects' members that base has not, each one once */

static void
anthropic_render_added(llm_out_t *o, const llm_str_t *base,
    const llm_str_t *objects, llm_uint_t n, llm_uint_t *first)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         i;
    llm_json_value_t   value;

    for (i = 0; i < n; i++) {
        pos = NULL;

        while (llm_json_next(&objects[i], &pos, &name, &value) == LLM_OK) {

            if (anthropic_fold_has(base, 1, &name)
                || anthropic_fold_has(objects, i, &name))
            {
                continue;
            }

            (void) anthropic_fold_over(objects, n, &name, &value);

            llm_retell_name(o, &name, first);
            llm_out(o, value.raw.data, value.raw.len);
        }
    }
}


static llm_uint_t
anthropic_fold_has(const llm_str_t *objects, llm_uint_t n,
    const llm_str_t *name)
{
    llm_json_value_t  v;

    while (n--) {
        (void) llm_json_find(&objects[n], name, &v, 1);

        if (v.type != LLM_JSON_ABSENT) {
            return 1;
        }
    }

    return 0;
}


llm_uint_t
anthropic_fold_over(const llm_str_t *objects, llm_uint_t n,
    const llm_str_t *name, llm_json_value_t *value)
{
    llm_json_value_t  v;

    while (n--) {
        (void) llm_json_find(&objects[n], name, &v, 1);

        if (v.type != LLM_JSON_ABSENT && v.type != LLM_JSON_NULL) {
            *value = v;
            return 1;
        }
    }

    return 0;
}
