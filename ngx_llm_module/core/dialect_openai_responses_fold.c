
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: a stream of responses as one plain answer.  The last
 * event has the whole response, which is that answer.  The others are looked
 * at only to see that it says all that they said: some servers leave the
 * output out of it.
 */


#include <string.h>

#include "dialect_openai.h"
#include "llm_retell.h"


/* what is compared of an item that was told when it was done */

enum {
    OPENAI_I_TYPE = 0,
    OPENAI_I_ID,
    OPENAI_I_CONTENT,
    OPENAI_I_SUMMARY,
    OPENAI_I_ARGUMENTS,
    OPENAI_I_INPUT,
    OPENAI_I_MAX
};


typedef struct {
    const llm_mem_t       *mem;
    llm_list_t             items;      /* llm_json_value_t: those done */
    llm_uint_t             added;      /* items */
    llm_str_t              response;   /* len 0: not yet */
} openai_responses_fold_t;


static llm_int_t openai_responses_fold_event(void *data,
    const llm_event_t *ev);
static llm_uint_t openai_responses_repeated(const llm_json_value_t *type);
static llm_int_t openai_responses_fold_item(openai_responses_fold_t *f,
    const llm_json_value_t *item, const llm_json_value_t *index);
static llm_int_t openai_responses_fold_last(openai_responses_fold_t *f,
    const llm_json_value_t *response);
static llm_uint_t openai_responses_fold_same(const openai_responses_fold_t *f,
    const llm_json_value_t *output);


static const llm_str_t  openai_item_names[OPENAI_I_MAX] = {
    llm_string("type"),
    llm_string("id"),
    llm_string("content"),
    llm_string("summary"),
    llm_string("arguments"),
    llm_string("input")
};


/* Events that say what the response repeats, or that something is going on;
 * by their beginnings, in the order of their frequency.  Ended by len 0. */

static const llm_str_t  openai_repeated[] = {
    llm_string("response.output_text."),
    llm_string("response.function_call_arguments."),
    llm_string("response.reasoning_summary_text."),
    llm_string("response.reasoning_text."),
    llm_string("response.custom_tool_call_input."),
    llm_string("response.content_part."),
    llm_string("response.reasoning_summary_part."),
    llm_string("response.refusal."),
    llm_string("response.created"),
    llm_string("response.queued"),
    llm_string("response.in_progress"),
    llm_string("response.web_search_call."),
    llm_string("response.file_search_call."),
    llm_string("response.code_interpreter_call"),
    llm_string("response.mcp_"),
    llm_null_string
};


llm_int_t
openai_responses_fold(const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out)
{
    u_char                   *joined;
    llm_int_t                 rc;
    openai_responses_fold_t   f;

    memset(&f, 0, sizeof(openai_responses_fold_t));

    f.mem = mem;

    rc = llm_retell_events(text, mem, openai_responses_fold_event, &f,
                           &joined);

    if (rc == LLM_OK) {
        rc = f.response.len ? llm_concat(mem, out, &f.response, NULL)
                            : LLM_DECLINED;
    }

    llm_list_free(&f.items, mem);
    llm_retell_free(joined, mem);

    return rc;
}


static llm_int_t
openai_responses_fold_event(void *data, const llm_event_t *ev)
{
    openai_responses_fold_t  *f = data;

    enum { TYPE = 0, RESPONSE, ITEM, INDEX, MAX };

    llm_json_value_t          v[MAX];
    static const llm_str_t    names[MAX] = {
        llm_string("type"),
        llm_string("response"),
        llm_string("item"),
        llm_string("output_index")
    };

    if (f->response.len) {

        /* some servers end any stream with it */

        return (ev->data.len == 6 && memcmp(ev->data.data, "[DONE]", 6) == 0)
               ? LLM_OK : LLM_DECLINED;
    }

    if (llm_json_scan(&ev->data, LLM_RETELL_DEPTH, names, v, MAX, NULL)
        != LLM_OK)
    {
        return LLM_DECLINED;
    }

    if (v[TYPE].type == LLM_JSON_ABSENT && ev->type.len) {
        return LLM_DECLINED;
    }

    if (openai_responses_repeated(&v[TYPE])) {
        return LLM_OK;
    }

    if (llm_json_is(&v[TYPE], "response.output_item.added", 26)) {
        f->added++;
        return LLM_OK;
    }

    if (llm_json_is(&v[TYPE], "response.output_item.done", 25)) {
        return openai_responses_fold_item(f, &v[ITEM], &v[INDEX]);
    }

    if (llm_json_is(&v[TYPE], "response.completed", 18)) {
        return openai_responses_fold_last(f, &v[RESPONSE]);
    }

    return LLM_DECLINED;
}


static llm_uint_t
openai_responses_repeated(const llm_json_value_t *type)
{
    llm_str_t         text;
    const llm_str_t  *p;

    text = llm_retell_inside(type);

    for (p = openai_repeated; p->len; p++) {
        if (text.len >= p->len && memcmp(text.data, p->data, p->len) == 0) {
            return 1;
        }
    }

    return 0;
}


static llm_int_t
openai_responses_fold_item(openai_responses_fold_t *f,
    const llm_json_value_t *item, const llm_json_value_t *index)
{
    uint64_t           n;
    llm_json_value_t  *p;

    if (item->type != LLM_JSON_OBJECT || f->items.n == LLM_RETELL_ITEMS
        || llm_json_uint(index, &n) != LLM_OK || n != f->items.n)
    {
        return LLM_DECLINED;
    }

    p = llm_list_push(&f->items, f->mem, sizeof(llm_json_value_t));
    if (p == NULL) {
        return LLM_ERROR;
    }

    *p = *item;

    return LLM_OK;
}


static llm_int_t
openai_responses_fold_last(openai_responses_fold_t *f,
    const llm_json_value_t *response)
{
    enum { STATUS = 0, OUTPUT, MAX };

    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("status"),
        llm_string("output")
    };

    if (response->type != LLM_JSON_OBJECT) {
        return LLM_DECLINED;
    }

    (void) llm_json_find(&response->raw, names, v, MAX);

    if (!llm_json_is(&v[STATUS], "completed", 9)
        || v[OUTPUT].type != LLM_JSON_ARRAY
        || f->added > f->items.n
        || !openai_responses_fold_same(f, &v[OUTPUT]))
    {
        return LLM_DECLINED;
    }

    f->response = response->raw;

    return LLM_OK;
}


/* 1 if the response has the items as they were told, and no others */

static llm_uint_t
openai_responses_fold_same(const openai_responses_fold_t *f,
    const llm_json_value_t *output)
{
    u_char            *pos;
    llm_uint_t         i, n;
    llm_json_value_t  *items, item, v[OPENAI_I_MAX], done[OPENAI_I_MAX];

    n = 0;
    pos = NULL;
    items = f->items.items;

    while (llm_json_next_object(&output->raw, &pos, openai_item_names, v,
                                OPENAI_I_MAX, &item)
           == LLM_OK)
    {
        if (n == f->items.n) {
            return 0;
        }

        (void) llm_json_find(&items[n++].raw, openai_item_names, done,
                             OPENAI_I_MAX);

        for (i = 0; i < OPENAI_I_MAX; i++) {
            if (!llm_retell_same(&v[i], &done[i])) {
                return 0;
            }
        }
    }

    return n == f->items.n;
}
