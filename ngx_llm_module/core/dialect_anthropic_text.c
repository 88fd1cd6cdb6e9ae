
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: the text that an event of a stream shows, and how a
 * provider is asked to go on from it, for resuming a stream that broke.
 */


#include <string.h>

#include "dialect_anthropic.h"


static llm_int_t anthropic_text_start(const llm_json_value_t *message);
static llm_int_t anthropic_text_block(const llm_json_value_t *index,
    const llm_json_value_t *block, const llm_str_t *type,
    llm_json_value_t *text);
static void anthropic_render_shown(llm_out_t *o, const void *data);


llm_int_t
anthropic_text(const llm_answer_t *a, const llm_event_t *ev,
    llm_json_value_t *text)
{
    enum { TYPE = 0, INDEX, DELTA, BLOCK, MESSAGE, MAX };

    llm_int_t               rc;
    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("type"),
        llm_string("index"),
        llm_string("delta"),
        llm_string("content_block"),
        llm_string("message")
    };
    static const llm_str_t  block = llm_string("text");
    static const llm_str_t  delta = llm_string("text_delta");

    (void) a;

    if (ev->lines == 0) {
        return LLM_DONE;
    }

    if (llm_json_find(&ev->data, names, v, MAX) != LLM_OK) {
        return LLM_DECLINED;
    }

    switch (anthropic_event_type(ev, &v[TYPE])) {

    case ANTHROPIC_T_BLOCK_DELTA:
        rc = anthropic_text_block(&v[INDEX], &v[DELTA], &delta, text);

        return (rc == LLM_OK && llm_json_empty(text)) ? LLM_DONE : rc;

    case ANTHROPIC_T_BLOCK_START:
        rc = anthropic_text_block(&v[INDEX], &v[BLOCK], &block, text);

        /* one that has a text could not be cut: it opens the block, too */

        return (rc == LLM_OK && !llm_json_empty(text)) ? LLM_DECLINED : rc;

    case ANTHROPIC_T_START:
        return anthropic_text_start(&v[MESSAGE]);

    case ANTHROPIC_T_PING:
    case ANTHROPIC_T_DELTA:
    case ANTHROPIC_T_STOP:
        return LLM_DONE;

    default:

        /* behind a block's end no text can be shown any more */

        return LLM_DECLINED;
    }
}


static llm_int_t
anthropic_text_start(const llm_json_value_t *message)
{
    llm_json_value_t        content;
    static const llm_str_t  path = llm_string("content");

    llm_json_path(message, &path, 1, &content);

    return llm_json_empty(&content) ? LLM_DONE : LLM_DECLINED;
}


/* the first block, or a delta of it; no text comes before one */

static llm_int_t
anthropic_text_block(const llm_json_value_t *index,
    const llm_json_value_t *block, const llm_str_t *type,
    llm_json_value_t *text)
{
    enum { TYPE = 0, TEXT, CITATIONS, MAX };

    uint64_t                n;
    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("type"),
        llm_string("text"),
        llm_string("citations")
    };

    if (!llm_json_empty(index)
        && (llm_json_uint(index, &n) != LLM_OK || n != 0))
    {
        return LLM_DECLINED;
    }

    if (block->type != LLM_JSON_OBJECT
        || llm_json_find(&block->raw, names, v, MAX) != LLM_OK
        || !llm_json_is(&v[TYPE], (const char *) type->data, type->len)
        || v[TEXT].type != LLM_JSON_STRING
        || !llm_json_empty(&v[CITATIONS]))
    {
        return LLM_DECLINED;
    }

    *text = v[TEXT];

    return LLM_OK;
}


/* the end of the block that anthropic_text() is of */

llm_int_t
anthropic_text_end(llm_event_t *ev)
{
    memset(ev, 0, sizeof(llm_event_t));

    llm_str_set(&ev->type, "content_block_stop");
    llm_str_set(&ev->data, "{\"type\":\"content_block_stop\",\"index\":0}");
    ev->lines = 1;

    return LLM_OK;
}


/* an assistant's turn at the end is gone on with, but not where the answer
 * has to begin with thinking or is bound to a grammar */

llm_uint_t
anthropic_continues(const llm_request_t *rq)
{
    llm_json_value_t        thinking, type;
    static const llm_str_t  names[] = {
        llm_string("thinking"),
        llm_string("type")
    };

    if (rq->endpoint->id != ANTHROPIC_MESSAGES
        || rq->structured
        || rq->member[ANTHROPIC_M_MESSAGES].type != LLM_JSON_ARRAY
        || llm_json_find(&rq->body, names, &thinking, 1) != LLM_OK)
    {
        return 0;
    }

    if (llm_json_empty(&thinking)) {
        return 1;
    }

    llm_json_path(&thinking, &names[1], 1, &type);

    return llm_json_is(&type, "disabled", 8);
}


/* turns of one role that follow each other are joined by the provider: one
 * of the client's own at the end may stay as it is */

llm_int_t
anthropic_splice_shown(const llm_request_t *rq, const llm_change_t *change,
    const llm_mem_t *mem, llm_splice_t *splices, llm_uint_t *n)
{
    llm_str_t                text;
    llm_splice_t             s;
    const llm_json_value_t  *messages;

    messages = &rq->member[ANTHROPIC_M_MESSAGES];

    if (change->shown.len == 0 || !anthropic_continues(rq)) {
        return LLM_OK;
    }

    if (llm_render(mem, &text, anthropic_render_shown, &change->shown)
        != LLM_OK)
    {
        return LLM_ERROR;
    }

    s.offset = messages->raw.data + messages->raw.len - 1 - rq->body.data;
    s.len = 0;
    s.text = text;

    if (llm_json_empty(messages)) {

        /* without the comma */

        s.text.data++;
        s.text.len--;
    }

    llm_splice_add(splices, n, &s);

    return LLM_OK;
}


static void
anthropic_render_shown(llm_out_t *o, const void *data)
{
    llm_out_text(o, ",{\"role\":\"assistant\",\"content\":");
    llm_out_string(o, data);
    llm_out_text(o, "}");
}
