
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: a plain response as a stream, in the order and with the
 * events that the API sends for messages, calls of functions and custom
 * tools, and reasoning.  Other items are not known to be told by their
 * beginning and end alone.
 */


#include <string.h>

#include "dialect_openai.h"
#include "llm_retell.h"


#define OPENAI_ID_MAX  512


/* what an item or a part of one is, and what is told of it in pieces */

typedef struct {
    llm_str_t              type;
    llm_str_t              member;
    const char            *delta;      /* types of events */
    const char            *done;
} openai_told_t;


/* where an event belongs */

typedef struct {
    llm_out_t             *o;
    uint64_t               sequence;
    llm_uint_t             output;     /* output_index */
    llm_str_t              id;         /* item_id, with quotes */
    const char            *array;      /* "content", "summary"; NULL: none */
    llm_uint_t             index;      /* in it */
} openai_unfold_t;


/* a list of parts in an item */

typedef struct {
    const char            *name;       /* of the list and of its index */
    const char            *added;      /* types of events */
    const char            *done;
    const openai_told_t   *parts;      /* ended by len 0 */
} openai_parts_t;


typedef struct {
    llm_str_t              type;
    const openai_told_t   *told;       /* a string; NULL: none */
    const openai_parts_t  *content;    /* NULL: none */
    const openai_parts_t  *summary;
} openai_item_t;


/* members of items and parts that matter */

enum {
    OPENAI_V_TYPE = 0,
    OPENAI_V_ID,
    OPENAI_V_CONTENT,
    OPENAI_V_SUMMARY,
    OPENAI_V_ARGUMENTS,
    OPENAI_V_INPUT,
    OPENAI_V_TEXT,
    OPENAI_V_REFUSAL,
    OPENAI_V_ANNOTATIONS,
    OPENAI_V_LOGPROBS,
    OPENAI_V_NAME,
    OPENAI_V_MAX
};


static llm_uint_t openai_unfolds(const llm_str_t *text);
static llm_uint_t openai_unfolds_item(const llm_json_value_t *item);
static llm_uint_t openai_unfolds_parts(const openai_parts_t *parts,
    const llm_json_value_t *list);
static const openai_item_t *openai_item_find(const llm_json_value_t *type);
static const openai_told_t *openai_told_find(const openai_told_t *told,
    const llm_json_value_t *type);
static void openai_told_value(const openai_told_t *told,
    const llm_json_value_t *object, llm_json_value_t *value);

static void openai_render_unfolded(llm_out_t *o, const void *data);
static void openai_unfold_begun(openai_unfold_t *u, const char *type,
    const llm_str_t *text);
static void openai_unfold_item(openai_unfold_t *u,
    const llm_json_value_t *item);
static void openai_unfold_parts(openai_unfold_t *u,
    const openai_parts_t *parts, const llm_json_value_t *list);
static void openai_unfold_part(openai_unfold_t *u, const char *type,
    const llm_json_value_t *part, llm_uint_t whole);
static void openai_unfold_told(openai_unfold_t *u, const openai_told_t *told,
    const llm_json_value_t *object);
static void openai_unfold_annotations(openai_unfold_t *u,
    const llm_json_value_t *list);
static void openai_unfold_event(openai_unfold_t *u, const char *type);
static void openai_unfold_at(openai_unfold_t *u, const char *type);
static void openai_unfold_empty(llm_out_t *o, const llm_str_t *object,
    const llm_str_t *names, llm_uint_t n);
static llm_str_t openai_unfold_blank(const llm_json_value_t *value);


static const openai_told_t  openai_content_parts[] = {
    { llm_string("output_text"), llm_string("text"),
      "response.output_text.delta", "response.output_text.done" },
    { llm_string("refusal"), llm_string("refusal"),
      "response.refusal.delta", "response.refusal.done" },
    { llm_null_string, llm_null_string, NULL, NULL }
};


static const openai_told_t  openai_reasoning_parts[] = {
    { llm_string("reasoning_text"), llm_string("text"),
      "response.reasoning_text.delta", "response.reasoning_text.done" },
    { llm_null_string, llm_null_string, NULL, NULL }
};


static const openai_told_t  openai_summary_parts[] = {
    { llm_string("summary_text"), llm_string("text"),
      "response.reasoning_summary_text.delta",
      "response.reasoning_summary_text.done" },
    { llm_null_string, llm_null_string, NULL, NULL }
};


static const openai_parts_t  openai_content = {
    "content", "response.content_part.added", "response.content_part.done",
    openai_content_parts
};


static const openai_parts_t  openai_reasoning = {
    "content", "response.content_part.added", "response.content_part.done",
    openai_reasoning_parts
};


static const openai_parts_t  openai_summary = {
    "summary", "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done", openai_summary_parts
};


static const openai_told_t  openai_arguments = {
    llm_string("function_call"), llm_string("arguments"),
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done"
};


static const openai_told_t  openai_input = {
    llm_string("custom_tool_call"), llm_string("input"),
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done"
};


static const openai_item_t  openai_items[] = {
    { llm_string("message"), NULL, &openai_content, NULL },
    { llm_string("function_call"), &openai_arguments, NULL, NULL },
    { llm_string("custom_tool_call"), &openai_input, NULL, NULL },
    { llm_string("reasoning"), NULL, &openai_reasoning, &openai_summary },
    { llm_null_string, NULL, NULL, NULL }
};


static const llm_str_t  openai_unfold_names[OPENAI_V_MAX] = {
    llm_string("type"),
    llm_string("id"),
    llm_string("content"),
    llm_string("summary"),
    llm_string("arguments"),
    llm_string("input"),
    llm_string("text"),
    llm_string("refusal"),
    llm_string("annotations"),
    llm_string("logprobs"),
    llm_string("name")
};


llm_int_t
openai_responses_unfold(const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out)
{
    llm_str_t  whole;

    if (!openai_unfolds(text)) {
        return LLM_DECLINED;
    }

    /* without what stands around the object */

    whole = *text;

    while (whole.data[0] != '{') {
        whole.data++;
        whole.len--;
    }

    while (whole.data[whole.len - 1] != '}') {
        whole.len--;
    }

    return llm_render(mem, out, openai_render_unfolded, &whole);
}


/* 1 if there is an event for each thing in the response */

static llm_uint_t
openai_unfolds(const llm_str_t *text)
{
    u_char                 *pos;

    enum { STATUS = 0, ERROR, INCOMPLETE, OUTPUT, MAX };

    llm_json_value_t        v[MAX], whole, item;
    static const llm_str_t  names[MAX] = {
        llm_string("status"),
        llm_string("error"),
        llm_string("incomplete_details"),
        llm_string("output")
    };

    if (llm_json_scan(text, LLM_RETELL_PLAIN_DEPTH, names, v, MAX, NULL)
        != LLM_OK)
    {
        return 0;
    }

    memset(&whole, 0, sizeof(llm_json_value_t));

    whole.raw = *text;
    whole.type = LLM_JSON_OBJECT;

    if (!llm_retell_simple(&whole)
        || !llm_json_is(&v[STATUS], "completed", 9)
        || llm_json_true(&v[ERROR])
        || llm_json_true(&v[INCOMPLETE])
        || v[OUTPUT].type != LLM_JSON_ARRAY
        || !llm_retell_objects(&v[OUTPUT]))
    {
        return 0;
    }

    pos = NULL;

    while (llm_json_next(&v[OUTPUT].raw, &pos, NULL, &item) == LLM_OK) {
        if (!openai_unfolds_item(&item)) {
            return 0;
        }
    }

    return 1;
}


static llm_uint_t
openai_unfolds_item(const llm_json_value_t *item)
{
    llm_json_value_t      v[OPENAI_V_MAX], told;
    const openai_item_t  *type;

    if (!llm_retell_simple(item)) {
        return 0;
    }

    (void) llm_json_find(&item->raw, openai_unfold_names, v, OPENAI_V_MAX);

    type = openai_item_find(&v[OPENAI_V_TYPE]);

    /* each event repeats the id */

    if (type == NULL || v[OPENAI_V_ID].type != LLM_JSON_STRING
        || v[OPENAI_V_ID].raw.len > OPENAI_ID_MAX)
    {
        return 0;
    }

    if (type->told) {
        openai_told_value(type->told, item, &told);

        if (told.type != LLM_JSON_STRING) {
            return 0;
        }
    }

    return openai_unfolds_parts(type->content, &v[OPENAI_V_CONTENT])
           && openai_unfolds_parts(type->summary, &v[OPENAI_V_SUMMARY]);
}


static llm_uint_t
openai_unfolds_parts(const openai_parts_t *parts,
    const llm_json_value_t *list)
{
    u_char               *pos;
    llm_json_value_t      part, v[OPENAI_V_MAX], value;
    const openai_told_t  *told;

    if (parts == NULL) {
        return list->type == LLM_JSON_ABSENT;
    }

    if (!llm_retell_objects(list)) {
        return 0;
    }

    pos = NULL;

    while (list->type == LLM_JSON_ARRAY
           && llm_json_next(&list->raw, &pos, NULL, &part) == LLM_OK)
    {
        if (!llm_retell_simple(&part)) {
            return 0;
        }

        (void) llm_json_find(&part.raw, openai_unfold_names, v,
                             OPENAI_V_MAX);

        told = openai_told_find(parts->parts, &v[OPENAI_V_TYPE]);

        if (told == NULL) {
            return 0;
        }

        openai_told_value(told, &part, &value);

        /* deltas tell the logprobs of their tokens, which are not known */

        if (value.type != LLM_JSON_STRING
            || !llm_retell_objects(&v[OPENAI_V_ANNOTATIONS])
            || !llm_json_empty(&v[OPENAI_V_LOGPROBS]))
        {
            return 0;
        }
    }

    return 1;
}


static const openai_item_t *
openai_item_find(const llm_json_value_t *type)
{
    const openai_item_t  *p;

    for (p = openai_items; p->type.len; p++) {
        if (llm_json_is(type, (char *) p->type.data, p->type.len)) {
            return p;
        }
    }

    return NULL;
}


static const openai_told_t *
openai_told_find(const openai_told_t *told, const llm_json_value_t *type)
{
    for ( /* void */ ; told->type.len; told++) {
        if (llm_json_is(type, (char *) told->type.data, told->type.len)) {
            return told;
        }
    }

    return NULL;
}


static void
openai_told_value(const openai_told_t *told, const llm_json_value_t *object,
    llm_json_value_t *value)
{
    llm_json_path(object, &told->member, 1, value);
}


static void
openai_render_unfolded(llm_out_t *o, const void *data)
{
    u_char                  *pos;
    openai_unfold_t          u;
    llm_json_value_t         output, item;
    const llm_str_t         *text = data;
    static const llm_str_t   name = llm_string("output");

    memset(&u, 0, sizeof(openai_unfold_t));

    u.o = o;

    openai_unfold_begun(&u, "response.created", text);
    openai_unfold_begun(&u, "response.in_progress", text);

    (void) llm_json_find(text, &name, &output, 1);

    pos = NULL;

    while (llm_json_next(&output.raw, &pos, NULL, &item) == LLM_OK) {
        openai_unfold_item(&u, &item);
        u.output++;
    }

    openai_unfold_event(&u, "response.completed");
    llm_out_text(o, ",\"response\":");
    llm_retell_value(o, text);
    llm_retell_end(o);
}


static void
openai_unfold_begun(openai_unfold_t *u, const char *type,
    const llm_str_t *text)
{
    static const llm_str_t  names[] = {
        llm_string("output"),
        llm_string("usage"),
        llm_string("completed_at")
    };

    openai_unfold_event(u, type);
    llm_out_text(u->o, ",\"response\":");
    openai_unfold_empty(u->o, text, names, 3);
    llm_retell_end(u->o);
}


static void
openai_unfold_item(openai_unfold_t *u, const llm_json_value_t *item)
{
    llm_json_value_t        v[OPENAI_V_MAX];
    const openai_item_t    *type;
    static const llm_str_t  names[] = {
        llm_string("content"),
        llm_string("summary"),
        llm_string("arguments"),
        llm_string("input")
    };

    (void) llm_json_find(&item->raw, openai_unfold_names, v, OPENAI_V_MAX);

    type = openai_item_find(&v[OPENAI_V_TYPE]);
    u->id = v[OPENAI_V_ID].raw;

    openai_unfold_event(u, "response.output_item.added");
    llm_out_text(u->o, ",\"output_index\":");
    llm_out_uint(u->o, u->output);
    llm_out_text(u->o, ",\"item\":");
    openai_unfold_empty(u->o, &item->raw, names, 4);
    llm_retell_end(u->o);

    if (type->told) {
        u->array = NULL;
        openai_unfold_told(u, type->told, item);
    }

    /* a model thinks before it sums up */

    openai_unfold_parts(u, type->content, &v[OPENAI_V_CONTENT]);
    openai_unfold_parts(u, type->summary, &v[OPENAI_V_SUMMARY]);

    openai_unfold_event(u, "response.output_item.done");
    llm_out_text(u->o, ",\"output_index\":");
    llm_out_uint(u->o, u->output);
    llm_out_text(u->o, ",\"item\":");
    llm_retell_value(u->o, &item->raw);
    llm_retell_end(u->o);
}


static void
openai_unfold_parts(openai_unfold_t *u, const openai_parts_t *parts,
    const llm_json_value_t *list)
{
    u_char            *pos;
    llm_json_value_t   part, v[OPENAI_V_MAX];

    if (list->type != LLM_JSON_ARRAY) {
        return;
    }

    pos = NULL;

    u->array = parts->name;
    u->index = 0;

    while (llm_json_next(&list->raw, &pos, NULL, &part) == LLM_OK) {
        (void) llm_json_find(&part.raw, openai_unfold_names, v,
                             OPENAI_V_MAX);

        openai_unfold_part(u, parts->added, &part, 0);
        openai_unfold_told(u, openai_told_find(parts->parts,
                                               &v[OPENAI_V_TYPE]), &part);
        openai_unfold_part(u, parts->done, &part, 1);

        u->index++;
    }
}


static void
openai_unfold_part(openai_unfold_t *u, const char *type,
    const llm_json_value_t *part, llm_uint_t whole)
{
    static const llm_str_t  names[] = {
        llm_string("text"),
        llm_string("refusal"),
        llm_string("annotations")
    };

    openai_unfold_at(u, type);
    llm_out_text(u->o, ",\"part\":");

    if (whole) {
        llm_retell_value(u->o, &part->raw);

    } else {
        openai_unfold_empty(u->o, &part->raw, names, 3);
    }

    llm_retell_end(u->o);
}


/* the pieces of a string, and then the string */

static void
openai_unfold_told(openai_unfold_t *u, const openai_told_t *told,
    const llm_json_value_t *object)
{
    size_t             offset, size;
    llm_str_t          text, piece;
    llm_uint_t         logprobs, first;
    llm_json_value_t   v[OPENAI_V_MAX], value;

    (void) llm_json_find(&object->raw, openai_unfold_names, v, OPENAI_V_MAX);

    openai_told_value(told, object, &value);

    logprobs = (told == openai_content_parts);
    text = llm_retell_inside(&value);
    size = llm_retell_size(text.len);
    offset = 0;
    first = 0;

    while (llm_retell_piece(&text, &offset, size, &piece) == LLM_OK) {
        openai_unfold_at(u, told->delta);
        llm_out_text(u->o, ",\"delta\":\"");
        llm_out(u->o, piece.data, piece.len);
        llm_out(u->o, "\",\"logprobs\":[]", logprobs ? 15 : 1);
        llm_retell_end(u->o);
    }

    if (logprobs) {
        openai_unfold_annotations(u, &v[OPENAI_V_ANNOTATIONS]);
    }

    openai_unfold_at(u, told->done);

    if (told == &openai_arguments && v[OPENAI_V_NAME].type != LLM_JSON_ABSENT)
    {
        llm_retell_name(u->o, &openai_unfold_names[OPENAI_V_NAME], &first);
        llm_retell_value(u->o, &v[OPENAI_V_NAME].raw);
    }

    llm_retell_name(u->o, &told->member, &first);
    llm_out(u->o, value.raw.data, value.raw.len);
    llm_out(u->o, ",\"logprobs\":[]", logprobs ? 14 : 0);
    llm_retell_end(u->o);
}


static void
openai_unfold_annotations(openai_unfold_t *u, const llm_json_value_t *list)
{
    u_char            *pos;
    llm_uint_t         i;
    llm_json_value_t   item;

    i = 0;
    pos = NULL;

    while (list->type == LLM_JSON_ARRAY
           && llm_json_next(&list->raw, &pos, NULL, &item) == LLM_OK)
    {
        openai_unfold_at(u, "response.output_text.annotation.added");
        llm_out_text(u->o, ",\"annotation_index\":");
        llm_out_uint(u->o, i++);
        llm_out_text(u->o, ",\"annotation\":");
        llm_retell_value(u->o, &item.raw);
        llm_retell_end(u->o);
    }
}


static void
openai_unfold_event(openai_unfold_t *u, const char *type)
{
    llm_retell_event(u->o, type);
    llm_out_text(u->o, ",\"sequence_number\":");
    llm_out_uint(u->o, u->sequence++);
}


/* an event of an item, or of a part of it */

static void
openai_unfold_at(openai_unfold_t *u, const char *type)
{
    openai_unfold_event(u, type);

    llm_out_text(u->o, ",\"item_id\":");
    llm_out(u->o, u->id.data, u->id.len);
    llm_out_text(u->o, ",\"output_index\":");
    llm_out_uint(u->o, u->output);

    if (u->array) {
        llm_out_text(u->o, ",\"");
        llm_out(u->o, u->array, strlen(u->array));
        llm_out_text(u->o, "_index\":");
        llm_out_uint(u->o, u->index);
    }
}


/* an object as it is before anything is known: those members are empty, and
 * its status tells that it goes on */

static void
openai_unfold_empty(llm_out_t *o, const llm_str_t *object,
    const llm_str_t *names, llm_uint_t n)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         i, first;
    llm_json_value_t   value;

    pos = NULL;
    first = 1;

    llm_out_text(o, "{");

    while (llm_json_next(object, &pos, &name, &value) == LLM_OK) {
        llm_retell_name(o, &name, &first);

        for (i = 0; i < n; i++) {
            if (llm_json_name_is(&name, (char *) names[i].data,
                                 names[i].len))
            {
                value.raw = openai_unfold_blank(&value);
                break;
            }
        }

        if (llm_json_name_is(&name, "status", 6)
            && value.type == LLM_JSON_STRING)
        {
            llm_str_set(&value.raw, "\"in_progress\"");
        }

        llm_retell_value(o, &value.raw);
    }

    llm_out_text(o, "}");
}


static llm_str_t
openai_unfold_blank(const llm_json_value_t *value)
{
    llm_str_t  text;

    switch (value->type) {

    case LLM_JSON_STRING:
        llm_str_set(&text, "\"\"");
        break;

    case LLM_JSON_ARRAY:
        llm_str_set(&text, "[]");
        break;

    default:
        llm_str_set(&text, "null");
    }

    return text;
}
