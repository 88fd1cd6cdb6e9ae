
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: a stream of messages as one plain answer.  The
 * message that message_start has is the skeleton; what the later events add
 * is noted as spans of their texts; dialect_anthropic_folded.c writes it.
 *
 * Whatever is not known for certain to say the same is declined: members of
 * events and deltas that are new, blocks that overlap, a stream without
 * message_stop.  Unknown members of the message, of a block, of usage and of
 * message_delta's "delta" are taken over: they have their place in a message.
 */


#include <string.h>

#include "dialect_anthropic_fold.h"


/* members of an event */

enum {
    ANTHROPIC_F_TYPE = 0,
    ANTHROPIC_F_INDEX,
    ANTHROPIC_F_DELTA,
    ANTHROPIC_F_BLOCK,
    ANTHROPIC_F_MESSAGE,
    ANTHROPIC_F_USAGE,
    ANTHROPIC_F_CONTEXT,
    ANTHROPIC_F_MAX
};


static llm_int_t anthropic_fold_event(void *data, const llm_event_t *ev);
static anthropic_type_e anthropic_fold_read(const llm_event_t *ev,
    llm_json_value_t *v);
static llm_int_t anthropic_fold_start(anthropic_fold_t *f,
    const llm_json_value_t *message);
static llm_int_t anthropic_fold_block(anthropic_fold_t *f,
    const llm_json_value_t *v);
static anthropic_block_t *anthropic_fold_open(const anthropic_fold_t *f,
    const llm_json_value_t *v);
static llm_int_t anthropic_fold_delta(anthropic_fold_t *f,
    const llm_json_value_t *v);
static llm_uint_t anthropic_fold_piece(const llm_json_value_t *delta,
    llm_json_value_t *told);
static llm_int_t anthropic_fold_stop(anthropic_fold_t *f,
    const llm_json_value_t *v);
static llm_int_t anthropic_fold_input(anthropic_fold_t *f,
    anthropic_block_t *b);
static llm_int_t anthropic_fold_end(anthropic_fold_t *f,
    const llm_json_value_t *v);
static llm_uint_t anthropic_fold_whole(const anthropic_fold_t *f);
static void anthropic_fold_free(anthropic_fold_t *f);


const anthropic_streamed_t  anthropic_streamed[ANTHROPIC_S_MAX] = {

    { llm_string("text"), llm_string("text"), "text_delta",
      ANTHROPIC_K_TEXT, LLM_JSON_STRING, LLM_JSON_STRING },

    { llm_string("citations"), llm_string("citation"), "citations_delta",
      ANTHROPIC_K_TEXT, LLM_JSON_ARRAY, LLM_JSON_OBJECT },

    { llm_string("thinking"), llm_string("thinking"), "thinking_delta",
      ANTHROPIC_K_THINKING, LLM_JSON_STRING, LLM_JSON_STRING },

    { llm_string("signature"), llm_string("signature"), "signature_delta",
      ANTHROPIC_K_THINKING, LLM_JSON_STRING, LLM_JSON_STRING },

    { llm_string("input"), llm_string("partial_json"), "input_json_delta",
      ANTHROPIC_K_CALL, LLM_JSON_OBJECT, LLM_JSON_STRING }
};


static const llm_str_t  anthropic_fold_names[ANTHROPIC_F_MAX] = {
    llm_string("type"),
    llm_string("index"),
    llm_string("delta"),
    llm_string("content_block"),
    llm_string("message"),
    llm_string("usage"),
    llm_string("context_management")
};


/* an event has no others */

static const u_char  anthropic_fold_allowed[] = {
    [ANTHROPIC_T_START] = llm_bit(ANTHROPIC_F_MESSAGE),
    [ANTHROPIC_T_BLOCK_START] = llm_bit(ANTHROPIC_F_INDEX)
                                |llm_bit(ANTHROPIC_F_BLOCK),
    [ANTHROPIC_T_BLOCK_DELTA] = llm_bit(ANTHROPIC_F_INDEX)
                                |llm_bit(ANTHROPIC_F_DELTA),
    [ANTHROPIC_T_BLOCK_STOP] = llm_bit(ANTHROPIC_F_INDEX),
    [ANTHROPIC_T_DELTA] = llm_bit(ANTHROPIC_F_DELTA)
                          |llm_bit(ANTHROPIC_F_USAGE)
                          |llm_bit(ANTHROPIC_F_CONTEXT),
    [ANTHROPIC_T_ERROR] = 0
};


llm_int_t
anthropic_fold(const llm_endpoint_t *ep, const llm_str_t *text,
    const llm_mem_t *mem, llm_str_t *out)
{
    u_char           *joined;
    llm_int_t         rc;
    anthropic_fold_t  f;

    if (ep->id != ANTHROPIC_MESSAGES) {
        return LLM_DECLINED;
    }

    memset(&f, 0, sizeof(anthropic_fold_t));

    f.mem = mem;

    rc = llm_retell_events(text, mem, anthropic_fold_event, &f, &joined);

    if (rc == LLM_OK) {
        rc = anthropic_fold_whole(&f)
             ? llm_render(mem, out, anthropic_folded, &f)
             : LLM_DECLINED;
    }

    anthropic_fold_free(&f);
    llm_retell_free(joined, mem);

    return rc;
}


static llm_int_t
anthropic_fold_event(void *data, const llm_event_t *ev)
{
    anthropic_fold_t  *f = data;
    anthropic_type_e   type;
    llm_json_value_t   v[ANTHROPIC_F_MAX];

    type = anthropic_fold_read(ev, v);

    if (type == ANTHROPIC_T_PING) {
        return LLM_OK;
    }

    if (f->stopped
        || (type == ANTHROPIC_T_START)
           != (f->message.type == LLM_JSON_ABSENT))
    {
        return LLM_DECLINED;
    }

    switch (type) {

    case ANTHROPIC_T_START:
        return anthropic_fold_start(f, &v[ANTHROPIC_F_MESSAGE]);

    case ANTHROPIC_T_BLOCK_START:
        return anthropic_fold_block(f, v);

    case ANTHROPIC_T_BLOCK_DELTA:
        return anthropic_fold_delta(f, v);

    case ANTHROPIC_T_BLOCK_STOP:
        return anthropic_fold_stop(f, v);

    case ANTHROPIC_T_DELTA:
        return anthropic_fold_end(f, v);

    case ANTHROPIC_T_STOP:
        f->stopped = 1;
        return LLM_OK;

    default:
        return LLM_DECLINED;
    }
}


/* its members; ANTHROPIC_T_OTHER: it is not valid, or it has others than such
 * an event should have */

static anthropic_type_e
anthropic_fold_read(const llm_event_t *ev, llm_json_value_t *v)
{
    llm_uint_t        i, allowed;
    anthropic_type_e  type;
    llm_json_value_t  name;

    if (llm_json_scan(&ev->data, LLM_RETELL_DEPTH, anthropic_fold_names,
                      &name, 1, NULL)
        != LLM_OK)
    {
        return ANTHROPIC_T_OTHER;
    }

    type = anthropic_event_type(ev, &name);

    if (type == ANTHROPIC_T_PING) {
        return type;
    }

    if (llm_retell_members(&ev->data, anthropic_fold_names, v,
                           ANTHROPIC_F_MAX)
        != LLM_OK)
    {
        return ANTHROPIC_T_OTHER;
    }

    allowed = anthropic_fold_allowed[type] | llm_bit(ANTHROPIC_F_TYPE);

    for (i = 0; i < ANTHROPIC_F_MAX; i++) {
        if (v[i].type != LLM_JSON_ABSENT && !(allowed & llm_bit(i))) {
            return ANTHROPIC_T_OTHER;
        }
    }

    return type;
}


static llm_int_t
anthropic_fold_start(anthropic_fold_t *f, const llm_json_value_t *message)
{
    llm_json_value_t         v[2];
    static const llm_str_t   none = llm_string("{}");
    static const llm_str_t   names[] = {
        llm_string("content"),
        llm_string("usage")
    };

    if (!llm_retell_simple(message)) {
        return LLM_DECLINED;
    }

    (void) llm_json_find(&message->raw, names, v, 2);

    if (!llm_json_empty(&v[0]) || v[0].type == LLM_JSON_STRING) {
        return LLM_DECLINED;
    }

    if (v[1].type == LLM_JSON_ABSENT || v[1].type == LLM_JSON_NULL) {
        v[1].raw = none;
        v[1].type = LLM_JSON_OBJECT;
    }

    if (!llm_retell_simple(&v[1])) {
        return LLM_DECLINED;
    }

    f->message = *message;
    f->usage = v[1];

    return LLM_OK;
}


static llm_int_t
anthropic_fold_block(anthropic_fold_t *f, const llm_json_value_t *v)
{
    uint64_t            n;
    anthropic_kind_e    kind;
    llm_json_value_t    begun[ANTHROPIC_S_MAX];
    anthropic_block_t  *b;

    if (f->open || f->ndeltas || f->blocks.n == LLM_RETELL_ITEMS
        || llm_json_uint(&v[ANTHROPIC_F_INDEX], &n) != LLM_OK
        || n != f->blocks.n
        || !llm_retell_simple(&v[ANTHROPIC_F_BLOCK]))
    {
        return LLM_DECLINED;
    }

    kind = anthropic_streamed_find(&v[ANTHROPIC_F_BLOCK], begun);

    if (kind == ANTHROPIC_K_OTHER) {
        return LLM_DECLINED;
    }

    b = llm_list_push(&f->blocks, f->mem, sizeof(anthropic_block_t));
    if (b == NULL) {
        return LLM_ERROR;
    }

    memset(b, 0, sizeof(anthropic_block_t));

    b->value = v[ANTHROPIC_F_BLOCK];
    b->kind = kind;
    b->piece = f->pieces.n;
    memcpy(b->begun, begun, sizeof(begun));

    f->open = 1;

    return LLM_OK;
}


anthropic_kind_e
anthropic_streamed_find(const llm_json_value_t *block,
    llm_json_value_t *values)
{
    llm_str_t          names[ANTHROPIC_S_MAX + 1], type;
    llm_uint_t         i;
    llm_json_value_t   v[ANTHROPIC_S_MAX + 1];

    for (i = 0; i < ANTHROPIC_S_MAX; i++) {
        names[i] = anthropic_streamed[i].name;
    }

    llm_str_set(&names[i], "type");

    (void) llm_json_find(&block->raw, names, v, ANTHROPIC_S_MAX + 1);

    memcpy(values, v, ANTHROPIC_S_MAX * sizeof(llm_json_value_t));

    if (llm_json_is(&v[i], "text", 4)) {
        return ANTHROPIC_K_TEXT;
    }

    if (llm_json_is(&v[i], "thinking", 8)) {
        return ANTHROPIC_K_THINKING;
    }

    if (llm_json_is(&v[i], "redacted_thinking", 17)
        || llm_json_is(&v[i], "container_upload", 16))
    {
        return ANTHROPIC_K_WHOLE;
    }

    type = llm_retell_inside(&v[i]);

    if (type.len >= 8 && memcmp(type.data + type.len - 8, "tool_use", 8) == 0)
    {
        return ANTHROPIC_K_CALL;
    }

    if (type.len >= 11
        && memcmp(type.data + type.len - 11, "tool_result", 11) == 0)
    {
        return ANTHROPIC_K_WHOLE;
    }

    return ANTHROPIC_K_OTHER;
}


/* the open block, if it is the event's */

static anthropic_block_t *
anthropic_fold_open(const anthropic_fold_t *f, const llm_json_value_t *v)
{
    uint64_t  n;

    if (!f->open
        || llm_json_uint(&v[ANTHROPIC_F_INDEX], &n) != LLM_OK
        || n != f->blocks.n - 1)
    {
        return NULL;
    }

    return (anthropic_block_t *) f->blocks.items + n;
}


static llm_int_t
anthropic_fold_delta(anthropic_fold_t *f, const llm_json_value_t *v)
{
    llm_uint_t          i;
    anthropic_block_t  *b;
    anthropic_piece_t  *piece;
    llm_json_value_t    told;

    b = anthropic_fold_open(f, v);
    i = anthropic_fold_piece(&v[ANTHROPIC_F_DELTA], &told);

    if (b == NULL || i == ANTHROPIC_S_MAX
        || anthropic_streamed[i].kind != b->kind)
    {
        return LLM_DECLINED;
    }

    if (told.type == LLM_JSON_STRING && told.raw.len == 2) {
        return LLM_OK;
    }

    piece = llm_list_push(&f->pieces, f->mem, sizeof(anthropic_piece_t));
    if (piece == NULL) {
        return LLM_ERROR;
    }

    piece->member = i;
    piece->text = (told.type == LLM_JSON_STRING) ? llm_retell_inside(&told)
                                                 : told.raw;

    b->npieces++;
    b->n[i]++;

    return LLM_OK;
}


/* what a delta tells, and of which member; ANTHROPIC_S_MAX: something else,
 * or more than that */

static llm_uint_t
anthropic_fold_piece(const llm_json_value_t *delta, llm_json_value_t *told)
{
    llm_str_t               names[3];
    llm_uint_t              i;
    const char             *type;
    llm_json_value_t        v[3];
    static const llm_str_t  path = llm_string("type");

    llm_json_path(delta, &path, 1, &v[0]);

    for (i = 0; i < ANTHROPIC_S_MAX; i++) {
        type = anthropic_streamed[i].delta;

        if (llm_json_is(&v[0], type, strlen(type))) {
            break;
        }
    }

    if (i == ANTHROPIC_S_MAX) {
        return i;
    }

    names[0] = path;
    names[1] = anthropic_streamed[i].piece;
    llm_str_set(&names[2], "estimated_tokens");

    /* the last one is a hint on progress, that no message has */

    if (llm_retell_members(&delta->raw, names, v,
                         i == ANTHROPIC_S_THINKING ? 3 : 2)
        != LLM_OK
        || v[1].type != anthropic_streamed[i].told)
    {
        return ANTHROPIC_S_MAX;
    }

    *told = v[1];

    return i;
}


static llm_int_t
anthropic_fold_stop(anthropic_fold_t *f, const llm_json_value_t *v)
{
    llm_uint_t          i;
    anthropic_block_t  *b;

    b = anthropic_fold_open(f, v);

    if (b == NULL) {
        return LLM_DECLINED;
    }

    f->open = 0;

    for (i = 0; i < ANTHROPIC_S_MAX; i++) {

        if (b->n[i]
            && b->begun[i].type != anthropic_streamed[i].type
            && b->begun[i].type != LLM_JSON_ABSENT
            && b->begun[i].type != LLM_JSON_NULL)
        {
            return LLM_DECLINED;
        }
    }

    /* these are not added to, but replaced */

    if ((b->n[ANTHROPIC_S_SIGNATURE]
         && (b->n[ANTHROPIC_S_SIGNATURE] > 1
             || !llm_json_empty(&b->begun[ANTHROPIC_S_SIGNATURE])))
        || (b->n[ANTHROPIC_S_INPUT]
            && !llm_json_empty(&b->begun[ANTHROPIC_S_INPUT])))
    {
        return LLM_DECLINED;
    }

    return b->n[ANTHROPIC_S_INPUT] ? anthropic_fold_input(f, b) : LLM_OK;
}


/* joined before they are unescaped: a pair of escapes may be cut in two */

static llm_int_t
anthropic_fold_input(anthropic_fold_t *f, anthropic_block_t *b)
{
    u_char             *p;
    llm_str_t           json;
    llm_uint_t          i;
    llm_json_value_t    v;
    anthropic_piece_t  *piece;

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw.len = 2;
    v.type = LLM_JSON_STRING;
    v.escaped = 1;

    piece = (anthropic_piece_t *) f->pieces.items + b->piece;

    for (i = 0; i < b->npieces; i++) {
        v.raw.len += piece[i].text.len;
    }

    b->input = f->mem->alloc(f->mem->ctx, v.raw.len * 2);
    if (b->input == NULL) {
        return LLM_ERROR;
    }

    v.raw.data = p = b->input + v.raw.len;
    *p++ = '"';

    for (i = 0; i < b->npieces; i++) {
        memcpy(p, piece[i].text.data, piece[i].text.len);
        p += piece[i].text.len;
    }

    *p = '"';

    if (llm_retell_lone(&v.raw)) {
        return LLM_DECLINED;
    }

    json.data = b->input;
    json.len = b->len = llm_json_unescape(b->input, &v);

    if (llm_json_scan(&json, LLM_RETELL_DEPTH, NULL, NULL, 0, NULL)
        == LLM_ERROR)
    {
        return LLM_DECLINED;
    }

    return LLM_OK;
}


static llm_int_t
anthropic_fold_end(anthropic_fold_t *f, const llm_json_value_t *v)
{
    llm_uint_t               i;

    enum { ID = 0, TYPE, ROLE, MODEL, CONTENT, USAGE, MAX };

    llm_json_value_t         kept[MAX];
    const llm_json_value_t  *delta, *usage;
    static const llm_str_t   names[MAX] = {
        llm_string("id"),
        llm_string("type"),
        llm_string("role"),
        llm_string("model"),
        llm_string("content"),
        llm_string("usage")
    };

    delta = &v[ANTHROPIC_F_DELTA];
    usage = &v[ANTHROPIC_F_USAGE];

    if (f->open || f->ndeltas == ANTHROPIC_DELTAS
        || !llm_retell_simple(delta))
    {
        return LLM_DECLINED;
    }

    /* what a message begins with does not change */

    (void) llm_json_find(&delta->raw, names, kept, MAX);

    for (i = 0; i < MAX; i++) {
        if (kept[i].type != LLM_JSON_ABSENT) {
            return LLM_DECLINED;
        }
    }

    f->deltas[f->ndeltas++] = delta->raw;

    if (v[ANTHROPIC_F_CONTEXT].type != LLM_JSON_ABSENT
        && v[ANTHROPIC_F_CONTEXT].type != LLM_JSON_NULL)
    {
        f->context = v[ANTHROPIC_F_CONTEXT];
    }

    if (usage->type == LLM_JSON_ABSENT || usage->type == LLM_JSON_NULL) {
        return LLM_OK;
    }

    if (!llm_retell_simple(usage)) {
        return LLM_DECLINED;
    }

    f->usages[f->nusages++] = usage->raw;

    return LLM_OK;
}


/* 1 if the message has ended, and for a reason */

static llm_uint_t
anthropic_fold_whole(const anthropic_fold_t *f)
{
    llm_json_value_t        v;
    static const llm_str_t  reason = llm_string("stop_reason");
    static const llm_str_t  context = llm_string("context_management");

    if (!f->stopped || f->open
        || !anthropic_fold_over(f->deltas, f->ndeltas, &reason, &v)
        || v.type != LLM_JSON_STRING)
    {
        return 0;
    }

    /* in either place, but not in both */

    return f->context.type == LLM_JSON_ABSENT
           || !anthropic_fold_over(f->deltas, f->ndeltas, &context, &v);
}


static void
anthropic_fold_free(anthropic_fold_t *f)
{
    llm_uint_t          i;
    anthropic_block_t  *b;

    b = f->blocks.items;

    for (i = 0; i < f->blocks.n; i++) {
        if (b[i].input && f->mem->free) {
            f->mem->free(f->mem->ctx, b[i].input);
        }
    }

    llm_list_free(&f->blocks, f->mem);
    llm_list_free(&f->pieces, f->mem);
}
