
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: a plain answer of chat/completions or completions as a
 * stream, which dialect_openai_fold.c makes the same answer of again.  Texts
 * are cut into pieces; a member that chunks are not made for is told once:
 * the message's in a chunk of their own, a choice's in its last one, objects
 * and arrays of the answer in the last one of all choices.  Short values of
 * the answer are in each chunk, as OpenAI has it.
 *
 * It is written twice by the same functions, once to count.  No memory but
 * for the result.
 */


#include <string.h>

#include "dialect_openai.h"
#include "llm_scan.h"


#define OPENAI_HEAD       1024         /* bytes, repeated in each chunk */
#define OPENAI_SHORT      256          /* bytes of a string that may be */
#define OPENAI_PIECE      64           /* bytes of a text in a chunk, at
                                          least */
#define OPENAI_PIECES     256          /* of one text */


/* one answer, while it is written */

typedef struct {
    llm_out_t              o;
    llm_json_value_t       top;        /* the answer */
    llm_json_value_t       choices;
    llm_json_value_t       counted;    /* its usage, if the stream tells it */
    llm_json_value_t       filtered;   /* Azure's prompt_filter_results */

    llm_json_value_t       choice;     /* the one that is written */
    llm_json_value_t       logprobs;   /* its own */
    llm_str_t              reason;     /* its own, with quotes */
    uint64_t               index;

    size_t                 head_len;
    u_char                 head[OPENAI_HEAD];

    unsigned               chat:1;
    unsigned               last:1;     /* the choice is */
} openai_unfold_t;


/* a text that is cut: what stands around a piece in its chunk */

typedef struct {
    llm_str_t              before;
    llm_str_t              after;
} openai_around_t;


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
static llm_int_t openai_unfold_message(openai_unfold_t *u,
    const llm_json_value_t *message);
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
static llm_int_t openai_unfold_finish(openai_unfold_t *u);
static void openai_unfold_pieces(openai_unfold_t *u,
    const openai_around_t *around, const llm_json_value_t *text,
    llm_uint_t logprobs);
static const u_char *openai_unfold_cut(const u_char *p, const u_char *last,
    size_t size);
static void openai_unfold_open(openai_unfold_t *u);
static void openai_unfold_close(openai_unfold_t *u, llm_uint_t logprobs);
static void openai_unfold_chunk(openai_unfold_t *u);
static void openai_unfold_end(openai_unfold_t *u);
static void openai_unfold_name(llm_out_t *o, const llm_str_t *name);
static void openai_unfold_member(llm_out_t *o, const llm_str_t *name,
    const llm_json_value_t *value);
static void openai_unfold_raw(llm_out_t *o, const llm_json_value_t *value);
static llm_uint_t openai_unfold_known(const llm_str_t *name,
    const llm_str_t *names, llm_uint_t n);
static llm_uint_t openai_unfold_escaped(const llm_str_t *name);


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


/* members of the answer that are not in the chunks' head; the last one if it
 * is not short */

static const llm_str_t  openai_apart_names[] = {
    llm_string("choices"),
    llm_string("usage"),
    llm_string("error"),
    llm_string("prompt_filter_results")
};


/* the texts of functions and of custom tools */

static const llm_str_t  openai_function_names[] = {
    llm_string("arguments"),
    llm_string("input")
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

        if (openai_unfold_escaped(&name)) {
            return LLM_DECLINED;
        }

        if (!openai_unfold_short(&v) || openai_unfold_known(&name, openai_apart_names, 3)) {
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
        openai_unfold_member(&o, &name, &v);
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
        openai_unfold_chunk(u);
        llm_out_text(&u->o, "],");
        openai_unfold_member(&u->o, &filtered, &u->filtered);
        openai_unfold_end(u);
    }

    rc = openai_unfold_choices(u);
    if (rc != LLM_OK) {
        return rc;
    }

    if (u->counted.type != LLM_JSON_ABSENT) {
        openai_unfold_chunk(u);
        llm_out_text(&u->o, "],\"usage\":");
        openai_unfold_raw(&u->o, &u->counted);
        llm_out_text(&u->o, "}\n\n");
    }

    llm_out_text(&u->o, "data: [DONE]\n\n");

    return LLM_OK;
}


static llm_int_t
openai_unfold_choices(openai_unfold_t *u)
{
    u_char                 *pos, *next;
    llm_int_t               rc;
    llm_uint_t              n;
    llm_json_value_t        v[OPENAI_U_CHOICE_MAX], after;
    static const llm_str_t  names[OPENAI_U_CHOICE_MAX] = {
        llm_string("index"),
        llm_string("logprobs"),
        llm_string("finish_reason"),
        llm_string("message"),
        llm_string("text"),
        llm_string("delta")
    };

    pos = NULL;

    for (n = 0;
         llm_json_next_object(&u->choices.raw, &pos, names, v,
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
        openai_unfold_open(u);
        llm_out_text(&u->o, "\"text\":\"\"");
        openai_unfold_close(u, 1);
        return LLM_OK;
    }

    openai_unfold_pieces(u, &around, text, 1);

    return LLM_OK;
}


static llm_int_t
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
            openai_unfold_pieces(u, &around[i - OPENAI_U_TEXTS], &v[i],
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

    openai_unfold_open(u);

    llm_out_text(&u->o, "\"delta\":{\"role\":");
    openai_unfold_raw(&u->o, &v[OPENAI_U_ROLE]);

    for (i = OPENAI_U_TEXTS; i < OPENAI_U_MAX; i++) {

        if (v[i].type == LLM_JSON_ABSENT
            || (i >= OPENAI_U_TEXTS_END && !llm_json_empty(&v[i]))
            || (i == OPENAI_U_FUNCTION_CALL && v[i].type != LLM_JSON_NULL))
        {
            continue;
        }

        llm_out_text(&u->o, ",");
        openai_unfold_name(&u->o, &openai_message_names[i]);

        if (v[i].type == LLM_JSON_STRING) {
            llm_out_text(&u->o, "\"\"");

        } else {
            openai_unfold_raw(&u->o, &v[i]);
        }
    }

    llm_out_text(&u->o, "}");
    openai_unfold_close(u, told == OPENAI_U_ROLE);
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

        if (openai_unfold_escaped(&name)) {
            return LLM_DECLINED;
        }

        if (openai_unfold_known(&name, openai_message_names, OPENAI_U_MAX)) {
            continue;
        }

        if (n++ == 0) {
            openai_unfold_open(u);
            llm_out_text(&u->o, "\"delta\":{");

        } else {
            llm_out_text(&u->o, ",");
        }

        openai_unfold_member(&u->o, &name, &v);
    }

    if (n) {
        llm_out_text(&u->o, "}");
        openai_unfold_close(u, 0);
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

    openai_unfold_open(u);
    llm_out_text(&u->o, "\"delta\":{\"tool_calls\":[{\"index\":");
    llm_out_uint(&u->o, n);

    pos = NULL;

    while (llm_json_next(&call->raw, &pos, &name, &v) == LLM_OK) {

        if (openai_unfold_escaped(&name)) {
            return LLM_DECLINED;
        }

        place = openai_unfold_known(&name, openai_call_names,
                                    OPENAI_U_CALL_MAX);

        if (place == OPENAI_U_CALL_INDEX + 1) {
            continue;
        }

        llm_out_text(&u->o, ",");

        if (place == 0) {
            openai_unfold_member(&u->o, &name, &v);
            continue;
        }

        openai_unfold_name(&u->o, &name);

        if (openai_unfold_function(u, &v) != LLM_OK) {
            return LLM_DECLINED;
        }
    }

    llm_out_text(&u->o, "}]}");
    openai_unfold_close(u, 0);

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

    openai_unfold_open(u);
    llm_out_text(&u->o, "\"delta\":{\"function_call\":");

    rc = openai_unfold_function(u, function);
    if (rc != LLM_OK) {
        return rc;
    }

    llm_out_text(&u->o, "}");
    openai_unfold_close(u, 0);

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
        kind = openai_unfold_known(&name, openai_function_names, 2);

        if (openai_unfold_escaped(&name)
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

        openai_unfold_member(&u->o, &name, &v);
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

        openai_unfold_pieces(u, &around, &v[i], 0);
    }
}


static llm_int_t
openai_unfold_finish(openai_unfold_t *u)
{
    u_char                 *pos;
    llm_str_t               name;
    llm_json_value_t        v;
    static const llm_str_t  names[] = {
        llm_string("index"),
        llm_string("logprobs"),
        llm_string("finish_reason"),
        llm_string("message"),
        llm_string("text")
    };

    openai_unfold_open(u);

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

    pos = NULL;

    while (llm_json_next(&u->choice.raw, &pos, &name, &v) == LLM_OK) {

        if (openai_unfold_escaped(&name)) {
            return LLM_DECLINED;
        }

        /* "text" of a chat's choice is nothing known */

        if (!openai_unfold_known(&name, names, u->chat ? 4 : 5)) {
            llm_out_text(&u->o, ",");
            openai_unfold_member(&u->o, &name, &v);
        }
    }

    llm_out_text(&u->o, "}]");

    pos = NULL;

    while (u->last && llm_json_next(&u->top.raw, &pos, &name, &v) == LLM_OK) {

        if (!openai_unfold_short(&v)
            && !openai_unfold_known(&name, openai_apart_names, 4))
        {
            llm_out_text(&u->o, ",");
            openai_unfold_member(&u->o, &name, &v);
        }
    }

    openai_unfold_end(u);

    return LLM_OK;
}


/* with logprobs a single chunk, which tells them */

static void
openai_unfold_pieces(openai_unfold_t *u, const openai_around_t *around,
    const llm_json_value_t *text, llm_uint_t logprobs)
{
    size_t         size;
    const u_char  *p, *last, *next;

    logprobs = (logprobs && u->logprobs.type == LLM_JSON_OBJECT);

    p = text->raw.data + 1;
    last = p + text->raw.len - 2;
    size = (last - p + OPENAI_PIECES - 1) / OPENAI_PIECES;

    if (size < OPENAI_PIECE) {
        size = OPENAI_PIECE;
    }

    for ( /* void */ ; p < last; p = next) {
        next = logprobs ? last : openai_unfold_cut(p, last, size);

        openai_unfold_open(u);
        llm_out(&u->o, around->before.data, around->before.len);
        llm_out(&u->o, p, next - p);
        llm_out(&u->o, around->after.data, around->after.len);
        openai_unfold_close(u, logprobs);
    }
}


/* the end of a piece of size bytes or a little more: not within a character,
 * be it escaped, nor between the escapes of a surrogate pair */

static const u_char *
openai_unfold_cut(const u_char *p, const u_char *last, size_t size)
{
    size_t         n;
    const u_char  *end;

    if ((size_t) (last - p) <= size) {
        return last;
    }

    end = p + size;

    for ( ;; ) {
        p = llm_scan_quote(p, end);

        if (p >= end) {
            break;
        }

        n = 2;

        if (p[1] == 'u') {
            n = 6;

            if ((p[2] | 0x20) == 'd' && strchr("89abAB", p[3])
                && last - p >= 12 && p[6] == '\\' && p[7] == 'u'
                && (p[8] | 0x20) == 'd' && strchr("cdefCDEF", p[9]))
            {
                n = 12;
            }
        }

        p += n;

        if (p >= end) {
            return p;
        }
    }

    while (p < last && (*p & 0xc0) == 0x80) {
        p++;
    }

    return p;
}


static void
openai_unfold_open(openai_unfold_t *u)
{
    openai_unfold_chunk(u);

    llm_out_text(&u->o, "{\"index\":");
    llm_out_uint(&u->o, u->index);
    llm_out_text(&u->o, ",");
}


static void
openai_unfold_close(openai_unfold_t *u, llm_uint_t logprobs)
{
    if (u->logprobs.type != LLM_JSON_ABSENT) {
        llm_out_text(&u->o, ",\"logprobs\":");

        if (logprobs) {
            openai_unfold_raw(&u->o, &u->logprobs);

        } else {
            llm_out_text(&u->o, "null");
        }
    }

    llm_out_text(&u->o, ",\"finish_reason\":null}]");

    openai_unfold_end(u);
}


static void
openai_unfold_chunk(openai_unfold_t *u)
{
    llm_out_text(&u->o, "data: {");
    llm_out(&u->o, u->head, u->head_len);
    llm_out_text(&u->o, "\"choices\":[");
}


static void
openai_unfold_end(openai_unfold_t *u)
{
    if (u->counted.type != LLM_JSON_ABSENT) {
        llm_out_text(&u->o, ",\"usage\":null");
    }

    llm_out_text(&u->o, "}\n\n");
}


static void
openai_unfold_name(llm_out_t *o, const llm_str_t *name)
{
    llm_out_text(o, "\"");
    llm_out(o, name->data, name->len);
    llm_out_text(o, "\":");
}


static void
openai_unfold_member(llm_out_t *o, const llm_str_t *name,
    const llm_json_value_t *value)
{
    openai_unfold_name(o, name);
    openai_unfold_raw(o, value);
}


/* without whitespace: an event's data is one line */

static void
openai_unfold_raw(llm_out_t *o, const llm_json_value_t *value)
{
    const u_char  *p, *last, *next;

    p = value->raw.data;
    last = p + value->raw.len;

    if (value->type < LLM_JSON_ARRAY) {
        llm_out(o, p, last - p);
        return;
    }

    while (p < last) {
        next = p;

        if (*p == '"') {
            next = llm_scan_quote(p + 1, last);

            while (next < last && *next == '\\') {
                next = llm_scan_quote(next + 2, last);
            }

            next++;

        } else {
            while (next < last && *next > ' ' && *next != '"') {
                next++;
            }
        }

        llm_out(o, p, next - p);
        p = llm_scan_token(next, last);
    }
}


/* 1 and up: its place in names; 0: it is none of them */

static llm_uint_t
openai_unfold_known(const llm_str_t *name, const llm_str_t *names,
    llm_uint_t n)
{
    llm_uint_t  i;

    for (i = 0; i < n; i++) {
        if (name->len == names[i].len
            && memcmp(name->data, names[i].data, name->len) == 0)
        {
            return i + 1;
        }
    }

    return 0;
}


/* it could be one that is known, spelled in another way */

static llm_uint_t
openai_unfold_escaped(const llm_str_t *name)
{
    return name->len && memchr(name->data, '\\', name->len) != NULL;
}
