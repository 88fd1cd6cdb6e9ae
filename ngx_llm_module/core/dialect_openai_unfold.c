
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: a plain answer of chat/completions or completions as a
 * stream, which dialect_openai_fold.c makes the same answer of again.  Short
 * values of the answer are in each chunk, as OpenAI has it; its objects and
 * arrays in the last one of all choices, a choice's members in its last one.
 *
 * It is written twice by the same functions, once to count.  No memory but
 * for the result.
 */


#include <string.h>

#include "dialect_openai_chunk.h"


#define OPENAI_SHORT  256              /* bytes of a string in each chunk */


/* members of a choice */

enum {
    OPENAI_U_INDEX = 0,
    OPENAI_U_LOGPROBS,
    OPENAI_U_REASON,
    OPENAI_U_MESSAGE,
    OPENAI_U_TEXT,
    OPENAI_U_DELTA,
    OPENAI_U_CHOICE_MAX
};


static llm_int_t openai_unfold_begin(openai_unfold_t *u,
    const llm_str_t *text, llm_uint_t usage);
static llm_int_t openai_unfold_head(openai_unfold_t *u);
static llm_uint_t openai_unfold_short(const llm_json_value_t *v);
static llm_int_t openai_unfold_stream(openai_unfold_t *u);
static llm_int_t openai_unfold_choices(openai_unfold_t *u);
static llm_int_t openai_unfold_choice(openai_unfold_t *u,
    const llm_json_value_t *v, llm_uint_t n);
static llm_int_t openai_unfold_text_choice(openai_unfold_t *u,
    const llm_json_value_t *text);
static llm_int_t openai_unfold_finish(openai_unfold_t *u);


static const llm_str_t  openai_choice_names[OPENAI_U_CHOICE_MAX] = {
    llm_string("index"),
    llm_string("logprobs"),
    llm_string("finish_reason"),
    llm_string("message"),
    llm_string("text"),
    llm_string("delta")
};


/* members of the answer that are not in the chunks' head; the last one if it
 * is not short */

static const llm_str_t  openai_apart_names[] = {
    llm_string("choices"),
    llm_string("usage"),
    llm_string("error"),
    llm_string("prompt_filter_results")
};


llm_int_t
openai_unfold(const llm_endpoint_t *ep, const llm_str_t *text,
    llm_uint_t usage, const llm_mem_t *mem, llm_str_t *out)
{
    u_char           *p;
    llm_int_t         rc;
    openai_unfold_t   u;

    if (ep->id == OPENAI_RESPONSES) {
        return openai_responses_unfold(text, mem, out);
    }

    if (ep->id != OPENAI_CHAT && ep->id != OPENAI_COMPLETIONS) {
        return LLM_DECLINED;
    }

    memset(&u, 0, sizeof(openai_unfold_t));
    u.chat = (ep->id == OPENAI_CHAT);

    rc = openai_unfold_begin(&u, text, usage);
    if (rc != LLM_OK) {
        return rc;
    }

    rc = openai_unfold_stream(&u);
    if (rc != LLM_OK) {
        return rc;
    }

    p = mem->alloc(mem->ctx, u.o.len);
    if (p == NULL) {
        return LLM_ERROR;
    }

    out->data = p;
    out->len = u.o.len;

    u.o.pos = p;
    u.o.len = 0;

    return openai_unfold_stream(&u);
}


static llm_int_t
openai_unfold_begin(openai_unfold_t *u, const llm_str_t *text,
    llm_uint_t usage)
{
    llm_uint_t              i, same;

    enum { CHOICES = 0, USAGE, OBJECT, ERR, FILTERED, PADDING, P, ID, CREATED,
           MODEL, MAX };

    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("choices"),
        llm_string("usage"),
        llm_string("object"),
        llm_string("error"),
        llm_string("prompt_filter_results"),
        llm_string("obfuscation"),
        llm_string("p"),
        llm_string("id"),
        llm_string("created"),
        llm_string("model")
    };

    if (llm_json_scan(text, LLM_JSON_DEPTH_MAX, names, v, MAX, NULL)
        != LLM_OK)
    {
        return LLM_DECLINED;
    }

    for (i = 0; i < MAX; i++) {
        if (v[i].duplicate) {
            return LLM_DECLINED;
        }
    }

    same = u->chat ? llm_json_is(&v[OBJECT], "chat.completion", 15)
                   : llm_json_is(&v[OBJECT], "text_completion", 15);

    if ((!same && !llm_json_empty(&v[OBJECT]))
        || v[CHOICES].type != LLM_JSON_ARRAY
        || !llm_json_empty(&v[ERR])
        || (v[USAGE].type > LLM_JSON_NULL
            && v[USAGE].type != LLM_JSON_OBJECT)
        || v[PADDING].type != LLM_JSON_ABSENT
        || v[P].type != LLM_JSON_ABSENT)
    {
        return LLM_DECLINED;
    }

    u->top.raw = *text;
    u->top.type = LLM_JSON_OBJECT;
    u->choices = v[CHOICES];

    if (usage && v[USAGE].type == LLM_JSON_OBJECT) {
        u->counted = v[USAGE];
    }

    if (!openai_unfold_short(&v[FILTERED])) {
        u->filtered = v[FILTERED];
    }

    return openai_unfold_head(u);
}


/* what is the same in each chunk, a comma behind each member */

static llm_int_t
openai_unfold_head(openai_unfold_t *u)
{
    u_char                 *pos;
    llm_out_t               o;
    llm_str_t               name;
    llm_uint_t              object;
    llm_json_value_t        v;
    static const llm_str_t  chat = llm_string("\"chat.completion.chunk\"");

    o.len = 0;
    pos = NULL;

    while (llm_json_next(&u->top.raw, &pos, &name, &v) == LLM_OK) {

        if (openai_name_escaped(&name)) {
            return LLM_DECLINED;
        }

        if (!openai_unfold_short(&v)
            || openai_name_place(&name, openai_apart_names, 3))
        {
            continue;
        }

        object = llm_json_name_is(&name, "object", 6);

        if (object && u->chat) {
            v.raw = chat;
        }

        if (o.len + name.len + v.raw.len + 4 > OPENAI_HEAD) {
            return LLM_DECLINED;
        }

        o.pos = u->head + o.len;
        openai_chunk_member(&o, &name, &v);
        llm_out_text(&o, ",");
    }

    u->head_len = o.len;

    return LLM_OK;
}


static llm_uint_t
openai_unfold_short(const llm_json_value_t *v)
{
    return v->type < LLM_JSON_ARRAY && v->raw.len <= OPENAI_SHORT;
}


static llm_int_t
openai_unfold_stream(openai_unfold_t *u)
{
    llm_int_t               rc;
    static const llm_str_t  filtered = llm_string("prompt_filter_results");

    if (u->filtered.type != LLM_JSON_ABSENT) {
        openai_chunk_begin(u);
        llm_out_text(&u->o, "],");
        openai_chunk_member(&u->o, &filtered, &u->filtered);
        openai_chunk_end(u);
    }

    rc = openai_unfold_choices(u);
    if (rc != LLM_OK) {
        return rc;
    }

    if (u->counted.type != LLM_JSON_ABSENT) {
        openai_chunk_begin(u);
        llm_out_text(&u->o, "],\"usage\":");
        openai_chunk_raw(&u->o, &u->counted);
        llm_out_text(&u->o, "}\n\n");
    }

    llm_out_text(&u->o, "data: [DONE]\n\n");

    return LLM_OK;
}


static llm_int_t
openai_unfold_choices(openai_unfold_t *u)
{
    u_char            *pos, *next;
    llm_int_t          rc;
    llm_uint_t         n;
    llm_json_value_t   v[OPENAI_U_CHOICE_MAX], after;

    pos = NULL;

    for (n = 0;
         llm_json_next_object(&u->choices.raw, &pos, openai_choice_names, v,
                              OPENAI_U_CHOICE_MAX, &u->choice)
         == LLM_OK;
         n++)
    {
        if (openai_unfold_choice(u, v, n) != LLM_OK) {
            return LLM_DECLINED;
        }

        next = pos;
        u->last = (llm_json_next(&u->choices.raw, &next, NULL, &after)
                   != LLM_OK);

        rc = u->chat ? openai_unfold_message(u, &v[OPENAI_U_MESSAGE])
                     : openai_unfold_text_choice(u, &v[OPENAI_U_TEXT]);

        if (rc == LLM_OK) {
            rc = openai_unfold_finish(u);
        }

        if (rc != LLM_OK) {
            return rc;
        }
    }

    return n ? LLM_OK : LLM_DECLINED;
}


/* what is needed of the n-th choice; indexes have to rise, or some would be
 * one choice */

static llm_int_t
openai_unfold_choice(openai_unfold_t *u, const llm_json_value_t *v,
    llm_uint_t n)
{
    uint64_t    index;
    llm_uint_t  i;

    for (i = 0; i < OPENAI_U_CHOICE_MAX; i++) {
        if (v[i].duplicate) {
            return LLM_DECLINED;
        }
    }

    index = n;

    if (v[OPENAI_U_INDEX].type != LLM_JSON_ABSENT
        && llm_json_uint(&v[OPENAI_U_INDEX], &index) != LLM_OK)
    {
        return LLM_DECLINED;
    }

    if ((n && index <= u->index) || index >= OPENAI_CHOICES
        || v[OPENAI_U_DELTA].type != LLM_JSON_ABSENT
        || (!u->chat && v[OPENAI_U_MESSAGE].type != LLM_JSON_ABSENT)
        || v[OPENAI_U_REASON].type != LLM_JSON_STRING
        || llm_json_empty(&v[OPENAI_U_REASON])
        || (v[OPENAI_U_LOGPROBS].type > LLM_JSON_NULL
            && v[OPENAI_U_LOGPROBS].type != LLM_JSON_OBJECT))
    {
        return LLM_DECLINED;
    }

    u->index = index;
    u->logprobs = v[OPENAI_U_LOGPROBS];
    u->reason = v[OPENAI_U_REASON].raw;

    return LLM_OK;
}


static llm_int_t
openai_unfold_text_choice(openai_unfold_t *u, const llm_json_value_t *text)
{
    static const openai_around_t  around = {
        llm_string("\"text\":\""), llm_string("\"")
    };

    if (text->type != LLM_JSON_STRING) {
        return LLM_DECLINED;
    }

    if (u->logprobs.type == LLM_JSON_OBJECT && llm_json_empty(text)) {
        openai_chunk_open(u);
        llm_out_text(&u->o, "\"text\":\"\"");
        openai_chunk_close(u, 1);
        return LLM_OK;
    }

    openai_chunk_pieces(u, &around, text, 1);

    return LLM_OK;
}


static llm_int_t
openai_unfold_finish(openai_unfold_t *u)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         n;
    llm_json_value_t   v;

    openai_chunk_open(u);

    if (u->chat) {
        llm_out_text(&u->o, "\"delta\":{}");

    } else {
        llm_out_text(&u->o, "\"text\":\"\"");
    }

    if (u->logprobs.type != LLM_JSON_ABSENT) {
        llm_out_text(&u->o, ",\"logprobs\":null");
    }

    llm_out_text(&u->o, ",\"finish_reason\":");
    llm_out(&u->o, u->reason.data, u->reason.len);

    /* "text" of a chat's choice is nothing known */

    n = u->chat ? OPENAI_U_TEXT : OPENAI_U_TEXT + 1;
    pos = NULL;

    while (llm_json_next(&u->choice.raw, &pos, &name, &v) == LLM_OK) {

        if (openai_name_escaped(&name)) {
            return LLM_DECLINED;
        }

        if (!openai_name_place(&name, openai_choice_names, n)) {
            llm_out_text(&u->o, ",");
            openai_chunk_member(&u->o, &name, &v);
        }
    }

    llm_out_text(&u->o, "}]");

    pos = NULL;

    while (u->last && llm_json_next(&u->top.raw, &pos, &name, &v) == LLM_OK) {

        if (!openai_unfold_short(&v)
            && !openai_name_place(&name, openai_apart_names, 4))
        {
            llm_out_text(&u->o, ",");
            openai_chunk_member(&u->o, &name, &v);
        }
    }

    openai_chunk_end(u);

    return LLM_OK;
}
