
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A line of an import becomes an entry, as if a worker had stored it: with
 * the request's key, of an answer that is whole and good to keep.  What the
 * answer says of itself is believed, not what the line says of it.
 */


#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "llm_cache_line.h"


static llm_int_t llm_cache_line_read(llm_cache_line_t *l,
    const llm_str_t *line);
static llm_int_t llm_cache_line_texts(llm_cache_line_t *l);
static llm_int_t llm_cache_line_numbers(llm_cache_line_t *l);
static llm_int_t llm_cache_line_where(llm_cache_line_t *l);
static llm_int_t llm_cache_line_form(llm_cache_line_t *l);
static llm_int_t llm_cache_line_when(llm_cache_line_t *l);
static llm_int_t llm_cache_line_cost(llm_cache_line_t *l);
static llm_int_t llm_cache_line_hash(llm_cache_line_t *l, llm_str_t *s,
    size_t n);
static llm_int_t llm_cache_line_scope(llm_cache_line_t *l);
static llm_int_t llm_cache_line_names(llm_cache_line_t *l);
static llm_int_t llm_cache_line_asked(llm_cache_line_t *l);
static void llm_cache_line_target(llm_cache_line_t *l, llm_str_t *provider,
    llm_str_t *model);
static llm_uint_t llm_cache_line_clean(const llm_str_t *s);


static const llm_str_t  llm_cache_line_members[LINE_MAX] = {
    llm_string("key"),
    llm_string("dialect"),
    llm_string("endpoint"),
    llm_string("query"),
    llm_string("beta"),
    llm_string("version"),
    llm_string("openai_beta"),
    llm_string("account"),
    llm_string("route"),
    llm_string("provider_digest"),
    llm_string("provider"),
    llm_string("model"),
    llm_string("asked"),
    llm_string("scope"),
    llm_string("form"),
    llm_string("content_type"),
    llm_string("v"),
    llm_string("made"),
    llm_string("ttl"),
    llm_string("stale"),
    llm_string("cost"),
    llm_string("tells_usage"),
    llm_string("request"),
    llm_string("answer"),
    llm_string("answer_text")
};


llm_int_t
llm_cache_line(llm_cache_reader_t *r, const llm_str_t *line, llm_entry_t **e)
{
    llm_int_t         rc;
    llm_cache_line_t  l;

    memset(&l, 0, sizeof(llm_cache_line_t));

    l.reader = r;
    l.entry = r->arena.mem.alloc(r->arena.mem.ctx, sizeof(llm_entry_t));

    if (l.entry == NULL) {
        return LLM_ERROR;
    }

    memset(l.entry, 0, sizeof(llm_entry_t));

    if ((rc = llm_cache_line_read(&l, line)) != LLM_OK
        || (rc = llm_cache_line_where(&l)) != LLM_OK
        || (rc = llm_cache_line_form(&l)) != LLM_OK
        || (rc = llm_cache_line_scope(&l)) != LLM_OK
        || (rc = llm_cache_line_when(&l)) != LLM_OK
        || (rc = llm_cache_line_cost(&l)) != LLM_OK
        || (rc = llm_cache_line_request(&l)) != LLM_OK
        || (rc = llm_cache_line_names(&l)) != LLM_OK
        || (rc = llm_cache_line_answer(r, &l.rq, &l.v[LINE_ANSWER],
                                       &l.v[LINE_ANSWER_TEXT], l.entry))
           != LLM_OK)
    {
        return rc;
    }

    *e = l.entry;

    return LLM_OK;
}


static llm_int_t
llm_cache_line_read(llm_cache_line_t *l, const llm_str_t *line)
{
    llm_int_t         rc;
    llm_json_error_t  err;

    rc = llm_json_scan(line, LLM_JSON_DEPTH_MAX, llm_cache_line_members, l->v,
                       LINE_MAX, &err);

    if (rc == LLM_ERROR) {
        return llm_cache_bad(l->reader, "invalid JSON, %s at byte %zu",
                             err.reason, err.offset + 1);
    }

    if (rc != LLM_OK) {
        return llm_cache_bad(l->reader, "it is no JSON object");
    }

    rc = llm_cache_line_texts(l);

    return rc == LLM_OK ? llm_cache_line_numbers(l) : rc;
}


static llm_int_t
llm_cache_line_texts(llm_cache_line_t *l)
{
    llm_mem_t         *mem;
    llm_str_t         *s;
    llm_uint_t         i;
    llm_json_value_t  *v;

    mem = &l->reader->arena.mem;

    for (i = 0; i < LINE_TEXTS; i++) {
        v = &l->v[i];
        s = &l->text[i];

        if (v->type == LLM_JSON_ABSENT || v->type == LLM_JSON_NULL) {
            continue;
        }

        if (v->type != LLM_JSON_STRING) {
            return llm_cache_bad(l->reader, "\"%s\" is no string",
                                 llm_cache_line_members[i].data);
        }

        s->data = mem->alloc(mem->ctx, v->raw.len);

        if (s->data == NULL) {
            return LLM_ERROR;
        }

        s->len = llm_json_unescape(s->data, v);

        if (s->len > UINT16_MAX) {
            return llm_cache_bad(l->reader, "\"%s\" is too long",
                                 llm_cache_line_members[i].data);
        }
    }

    return LLM_OK;
}


static llm_int_t
llm_cache_line_numbers(llm_cache_line_t *l)
{
    uint64_t          *n;
    llm_uint_t         i;
    llm_json_value_t  *v;

    l->number[LINE_V] = 1;
    l->number[LINE_MADE] = l->reader->now;
    l->number[LINE_TTL] = l->reader->ttl;
    l->number[LINE_STALE] = 0;

    for (i = LINE_V; i < LINE_NUMBERS; i++) {
        v = &l->v[i];
        n = &l->number[i];

        if (v->type == LLM_JSON_ABSENT || v->type == LLM_JSON_NULL) {
            continue;
        }

        if (v->type != LLM_JSON_NUMBER || llm_json_uint(v, n) != LLM_OK
            || (i != LINE_MADE && *n > UINT32_MAX))
        {
            return llm_cache_bad(l->reader, "\"%s\" is no number of its kind",
                                 llm_cache_line_members[i].data);
        }
    }

    if (l->number[LINE_V] != 1) {
        return llm_cache_bad(l->reader, "its version \"v\" is not 1");
    }

    return LLM_OK;
}


static llm_int_t
llm_cache_line_where(llm_cache_line_t *l)
{
    llm_str_t             *s;
    llm_entry_t           *e;
    const llm_dialect_t   *prefer, *dialect;
    const llm_endpoint_t  *ep;

    e = l->entry;
    prefer = NULL;
    dialect = NULL;

    s = &l->text[LINE_DIALECT];

    if (s->len) {
        prefer = llm_dialect_get(s);

        if (prefer == NULL) {
            return llm_cache_bad(l->reader, "unknown dialect \"%.*s\"",
                                 (int) s->len, s->data);
        }
    }

    s = &l->text[LINE_ENDPOINT];

    if (s->len == 0) {
        return llm_cache_bad(l->reader, "\"endpoint\" is missing");
    }

    ep = llm_endpoint_find(s, prefer, &dialect, NULL);

    if (ep == NULL || !(ep->flags & LLM_EP_BODY)
        || (prefer && dialect != prefer))
    {
        return llm_cache_bad(l->reader, "unknown endpoint \"%.*s\"",
                             (int) s->len, s->data);
    }

    l->rq.dialect = dialect;
    l->rq.endpoint = ep;

    e->dialect = dialect->name;
    e->endpoint = ep->path;

    return LLM_OK;
}


static llm_int_t
llm_cache_line_form(llm_cache_line_t *l)
{
    llm_str_t         *form;
    llm_json_value_t  *text;

    form = &l->text[LINE_FORM];
    text = &l->v[LINE_ANSWER_TEXT];

    if ((l->v[LINE_ANSWER].type != LLM_JSON_ABSENT)
        == (text->type != LLM_JSON_ABSENT))
    {
        return llm_cache_bad(l->reader, "it needs \"answer\" or "
                             "\"answer_text\", one of them");
    }

    if (text->type != LLM_JSON_ABSENT && text->type != LLM_JSON_STRING) {
        return llm_cache_bad(l->reader, "\"answer_text\" is no string");
    }

    if (form->len == 0) {
        l->stream = (text->type == LLM_JSON_STRING);

    } else if (llm_cache_is(form, "stream")) {
        l->stream = 1;

    } else if (!llm_cache_is(form, "plain")) {
        return llm_cache_bad(l->reader, "\"form\" is neither \"stream\" nor "
                             "\"plain\"");
    }

    if (!l->stream) {
        return LLM_OK;
    }

    if (text->type != LLM_JSON_STRING) {
        return llm_cache_bad(l->reader, "a stream is an \"answer_text\"");
    }

    if (!(l->rq.endpoint->flags & LLM_EP_STREAM)) {
        return llm_cache_bad(l->reader, "the endpoint \"%s\" does not stream",
                             l->rq.endpoint->path.data);
    }

    l->entry->flags |= LLM_ENTRY_STREAM;

    if (l->v[LINE_TELLS_USAGE].type == LLM_JSON_TRUE) {
        l->entry->flags |= LLM_ENTRY_USAGE;
    }

    return LLM_OK;
}


/* what stands behind the first n bytes is hashed, unless it is already */

static llm_int_t
llm_cache_line_hash(llm_cache_line_t *l, llm_str_t *s, size_t n)
{
    u_char     *p;
    llm_mem_t  *mem;
    llm_str_t   rest;

    rest.data = s->data + n;
    rest.len = s->len - n;

    if (llm_cache_begins(&rest, "sha256:")) {
        return LLM_OK;
    }

    mem = &l->reader->arena.mem;

    p = mem->alloc(mem->ctx, n + LLM_HASHED_LEN);
    if (p == NULL) {
        return LLM_ERROR;
    }

    memcpy(p, s->data, n);

    if (llm_store_hashed(p + n, &rest) != LLM_OK) {
        return LLM_ERROR;
    }

    s->data = p;
    s->len = n + LLM_HASHED_LEN;

    return LLM_OK;
}


/* one that no request can have is a mistake */

static llm_int_t
llm_cache_line_scope(llm_cache_line_t *l)
{
    llm_str_t  *s, *query;

    s = &l->text[LINE_SCOPE];
    query = &l->text[LINE_QUERY];

    if (query->len && llm_cache_line_hash(l, query, 0) != LLM_OK) {
        return LLM_ERROR;
    }

    if (llm_cache_begins(s, "value ")
        && llm_cache_line_hash(l, s, sizeof("value ") - 1) != LLM_OK)
    {
        return LLM_ERROR;
    }

    if (s->len == 0) {
        return llm_cache_bad(l->reader, "\"scope\" is missing");
    }

    if (!llm_cache_is(s, "global")
        && !llm_cache_begins(s, "value ")
        && !llm_cache_begins(s, "key sha256:")
        && !llm_cache_begins(s, "user sha256:"))
    {
        return llm_cache_bad(l->reader, "\"scope\" is none of \"global\", "
                             "\"value ...\", \"key sha256:...\", "
                             "\"user sha256:...\"");
    }

    l->entry->scope = *s;

    return LLM_OK;
}


static llm_int_t
llm_cache_line_when(llm_cache_line_t *l)
{
    uint64_t      age, now;
    llm_entry_t  *e;

    e = l->entry;
    now = l->reader->now;

    /* a purge that comes while it is imported hits it, one of before does
     * not: it was made to come back */

    e->begun = now;
    e->made = l->number[LINE_MADE] < now ? l->number[LINE_MADE] : now;
    e->ttl = l->number[LINE_TTL];
    e->stale = l->number[LINE_STALE];

    age = (now - e->made) / 1000;

    if (!l->reader->all && age >= (uint64_t) e->ttl + e->stale) {
        return LLM_DONE;
    }

    return LLM_OK;
}


/* USD, to 1e-12; 64 bits of mantissa are enough for all that is counted */

static llm_int_t
llm_cache_line_cost(llm_cache_line_t *l)
{
    char               text[64];
    long double        usd;
    llm_json_value_t  *v;

    v = &l->v[LINE_COST];

    if (v->type == LLM_JSON_ABSENT || v->type == LLM_JSON_NULL) {
        return LLM_OK;
    }

    if (v->type != LLM_JSON_NUMBER || v->raw.len >= sizeof(text)) {
        return llm_cache_bad(l->reader, "\"cost\" is no number of USD");
    }

    memcpy(text, v->raw.data, v->raw.len);
    text[v->raw.len] = '\0';

    usd = strtold(text, NULL);

    if (!(usd >= 0 && usd < 1e6)) {
        return llm_cache_bad(l->reader, "\"cost\" is no number of USD");
    }

    l->entry->cost = (uint64_t) (usd * 1e12L + 0.5L);
    l->entry->flags |= LLM_ENTRY_COST;

    return LLM_OK;
}


/* what is shown with the answer: it goes to headers and logs */

static llm_int_t
llm_cache_line_names(llm_cache_line_t *l)
{
    llm_uint_t              i;
    llm_str_t               provider, model;
    llm_entry_t            *e;
    static const llm_str_t  plain = llm_string("application/json");
    static const llm_str_t  stream = llm_string("text/event-stream");
    static const uint8_t    shown[] = {
        LINE_PROVIDER, LINE_MODEL, LINE_CONTENT_TYPE
    };

    e = l->entry;

    for (i = 0; i < sizeof(shown); i++) {
        if (!llm_cache_line_clean(&l->text[shown[i]])) {
            return llm_cache_bad(l->reader, "\"%s\" has a control character",
                                 llm_cache_line_members[shown[i]].data);
        }
    }

    if (llm_cache_line_asked(l) != LLM_OK) {
        return LLM_ERROR;
    }

    llm_cache_line_target(l, &provider, &model);

    e->provider = l->text[LINE_PROVIDER].len ? l->text[LINE_PROVIDER]
                                             : provider;
    e->model = l->text[LINE_MODEL].len ? l->text[LINE_MODEL]
               : model.len ? model : e->asked;

    e->content_type = l->text[LINE_CONTENT_TYPE].len
                      ? l->text[LINE_CONTENT_TYPE]
                      : l->stream ? stream : plain;

    if (e->asked.len > UINT16_MAX || !llm_cache_line_clean(&e->model)
        || !llm_cache_line_clean(&e->provider))
    {
        return llm_cache_bad(l->reader, "the model's name is not good");
    }

    return LLM_OK;
}


/* the line is gone when the entry is written */

static llm_int_t
llm_cache_line_asked(llm_cache_line_t *l)
{
    llm_mem_t    *mem;
    llm_str_t    *model;
    llm_entry_t  *e;

    e = l->entry;
    mem = &l->reader->arena.mem;
    model = &l->rq.model;

    e->asked = l->text[LINE_ASKED];

    if (e->asked.len || model->len == 0) {
        return LLM_OK;
    }

    e->asked.data = mem->alloc(mem->ctx, model->len);

    if (e->asked.data == NULL) {
        return LLM_ERROR;
    }

    memcpy(e->asked.data, model->data, model->len);
    e->asked.len = model->len;

    return LLM_OK;
}


/* of the route "PROVIDER[:MODEL] ..." its first target */

static void
llm_cache_line_target(llm_cache_line_t *l, llm_str_t *provider,
    llm_str_t *model)
{
    u_char     *p;
    llm_str_t   s;

    s = l->text[LINE_ROUTE];

    p = s.len ? memchr(s.data, ' ', s.len) : NULL;

    if (p) {
        s.len = p - s.data;
    }

    *provider = s;
    model->len = 0;
    model->data = NULL;

    p = s.len ? memchr(s.data, ':', s.len) : NULL;

    if (p) {
        provider->len = p - s.data;
        model->data = p + 1;
        model->len = s.data + s.len - model->data;
    }
}


static llm_uint_t
llm_cache_line_clean(const llm_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        if (s->data[i] < 0x20 || s->data[i] == 0x7f) {
            return 0;
        }
    }

    return 1;
}


llm_int_t
llm_cache_bad(llm_cache_reader_t *r, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    vsnprintf(r->why, sizeof(r->why), fmt, args);
    va_end(args);

    return LLM_DECLINED;
}
