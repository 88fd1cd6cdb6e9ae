
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The table of dialects, the search for an endpoint in it, and what the
 * dialect files share (llm_dialect.h).  Nothing here keeps a state; all that
 * is written lives in memory of the caller.
 */


#include <stdarg.h>
#include <string.h>

#include "llm_dialect.h"


static const llm_endpoint_t *llm_endpoint_match(const llm_dialect_t *dialect,
    const llm_str_t *path, llm_str_t *id);
static void llm_digits(u_char *p, uint64_t n);
static void llm_plain_descend(const llm_json_value_t *value,
    const llm_str_t *path, llm_json_value_t *found);


const llm_dialect_t  *const llm_dialects[] = {
    &llm_dialect_openai,
    &llm_dialect_anthropic,
    NULL
};


const llm_str_t  llm_private_headers[] = {
    llm_string("openai-organization"),
    llm_string("openai-project"),
    llm_string("anthropic-organization-id"),
    llm_null_string
};


const llm_str_t  llm_limit_headers[] = {
    llm_string("x-ratelimit-"),
    llm_string("anthropic-ratelimit-"),
    llm_null_string
};


const llm_dialect_t *
llm_dialect_get(const llm_str_t *name)
{
    llm_uint_t            i;
    const llm_dialect_t  *dialect;

    for (i = 0; llm_dialects[i]; i++) {
        dialect = llm_dialects[i];

        if (dialect->name.len == name->len
            && memcmp(dialect->name.data, name->data, name->len) == 0)
        {
            return dialect;
        }
    }

    return NULL;
}


const llm_endpoint_t *
llm_endpoint_find(const llm_str_t *path, const llm_dialect_t *prefer,
    const llm_dialect_t **dialect, llm_str_t *id)
{
    llm_uint_t             i;
    const llm_endpoint_t  *ep;

    if (prefer) {
        ep = llm_endpoint_match(prefer, path, id);

        if (ep) {
            *dialect = prefer;
            return ep;
        }
    }

    for (i = 0; llm_dialects[i]; i++) {
        ep = llm_endpoint_match(llm_dialects[i], path, id);

        if (ep) {
            *dialect = llm_dialects[i];
            return ep;
        }
    }

    return NULL;
}


static const llm_endpoint_t *
llm_endpoint_match(const llm_dialect_t *dialect, const llm_str_t *path,
    llm_str_t *id)
{
    llm_uint_t             i;
    const llm_endpoint_t  *ep;

    for (i = 0; i < dialect->nendpoints; i++) {
        ep = &dialect->endpoints[i];

        if (path->len < ep->path.len
            || memcmp(path->data, ep->path.data, ep->path.len) != 0)
        {
            continue;
        }

        if ((path->len == ep->path.len) == !!(ep->flags & LLM_EP_MODEL)) {

            /* an id may not be empty, and nothing else may have a rest */

            continue;
        }

        if (id) {
            id->data = path->data + ep->path.len;
            id->len = path->len - ep->path.len;
        }

        return ep;
    }

    return NULL;
}


llm_int_t
llm_concat(const llm_mem_t *mem, llm_str_t *out, ...)
{
    size_t            len;
    u_char           *p;
    va_list           args;
    const llm_str_t  *piece;

    len = 0;

    va_start(args, out);

    while ((piece = va_arg(args, const llm_str_t *)) != NULL) {
        len += piece->len;
    }

    va_end(args);

    p = mem->alloc(mem->ctx, len ? len : 1);
    if (p == NULL) {
        return LLM_ERROR;
    }

    out->data = p;
    out->len = len;

    va_start(args, out);

    while ((piece = va_arg(args, const llm_str_t *)) != NULL) {
        if (piece->len) {
            memcpy(p, piece->data, piece->len);
            p += piece->len;
        }
    }

    va_end(args);

    return LLM_OK;
}


llm_int_t
llm_render(const llm_mem_t *mem, llm_str_t *out, llm_render_pt render,
    const void *data)
{
    llm_out_t  o;

    o.pos = NULL;
    o.len = 0;

    render(&o, data);

    out->len = o.len;
    out->data = mem->alloc(mem->ctx, o.len ? o.len : 1);

    if (out->data == NULL) {
        return LLM_ERROR;
    }

    o.pos = out->data;
    o.len = 0;

    render(&o, data);

    return LLM_OK;
}


void
llm_out(llm_out_t *o, const void *text, size_t len)
{
    if (o->pos && len) {
        memcpy(o->pos, text, len);
        o->pos += len;
    }

    o->len += len;
}


void
llm_out_uint(llm_out_t *o, uint64_t n)
{
    u_char  *p, buf[20];

    p = buf + sizeof(buf);

    do {
        *--p = (u_char) ('0' + n % 10);
        n /= 10;
    } while (n);

    llm_out(o, p, buf + sizeof(buf) - p);
}


void
llm_out_time(llm_out_t *o, time_t t)
{
    u_char     buf[sizeof("1970-01-01T00:00:00Z") - 1];
    uint64_t   sec, days, era, doe, yoe, doy, mp, year, mon, day;

    /* the civil calendar, counted in eras of 400 years from 0000-03-01 */

    sec = t > 0 ? (uint64_t) t : 0;
    days = sec / 86400 + 719468;
    sec %= 86400;

    era = days / 146097;
    doe = days % 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;

    day = doy - (153 * mp + 2) / 5 + 1;
    mon = mp < 10 ? mp + 3 : mp - 9;
    year = (era * 400 + yoe + (mon <= 2)) % 10000;

    memcpy(buf, "0000-00-00T00:00:00Z", sizeof(buf));

    llm_digits(buf, year / 100);
    llm_digits(buf + 2, year % 100);
    llm_digits(buf + 5, mon);
    llm_digits(buf + 8, day);
    llm_digits(buf + 11, sec / 3600);
    llm_digits(buf + 14, sec / 60 % 60);
    llm_digits(buf + 17, sec % 60);

    llm_out(o, buf, sizeof(buf));
}


static void
llm_digits(u_char *p, uint64_t n)
{
    p[0] = (u_char) ('0' + n / 10);
    p[1] = (u_char) ('0' + n % 10);
}


void
llm_out_string(llm_out_t *o, const llm_str_t *text)
{
    size_t  len;

    llm_out_text(o, "\"");

    len = llm_json_escape(o->pos, text);

    if (o->pos) {
        o->pos += len;
    }

    o->len += len;

    llm_out_text(o, "\"");
}


void
llm_out_cstring(llm_out_t *o, const char *text)
{
    llm_str_t  s;

    if (text == NULL) {
        llm_out_text(o, "null");
        return;
    }

    s.data = (u_char *) text;
    s.len = strlen(text);

    llm_out_string(o, &s);
}


void
llm_json_path(const llm_json_value_t *value, const llm_str_t *names,
    llm_uint_t n, llm_json_value_t *found)
{
    llm_uint_t        i;
    llm_json_value_t  v;

    v = *value;

    for (i = 0; i < n; i++) {
        if (v.type != LLM_JSON_OBJECT
            || llm_json_find(&v.raw, &names[i], found, 1) != LLM_OK)
        {
            memset(&v, 0, sizeof(llm_json_value_t));
            break;
        }

        v = *found;
    }

    *found = v;
}


void *
llm_answer_data(llm_answer_t *a, size_t size)
{
    if (a->data == NULL) {
        a->data = a->mem->alloc(a->mem->ctx, size);

        if (a->data) {
            memset(a->data, 0, size);
        }
    }

    return a->data;
}


llm_uint_t
llm_answer_reason(llm_answer_t *a, const llm_json_value_t *value)
{
    u_char  *p, buf[sizeof(a->finish_reason) * 6 + 2];
    size_t   i, len;

    if (value->type != LLM_JSON_STRING || value->raw.len == 2) {
        return 0;
    }

    p = value->raw.data + 1;
    len = value->raw.len - 2;

    if (value->escaped) {
        if (value->raw.len > sizeof(buf)) {

            /* no reason that anybody knows, but one */

            len = 0;

        } else {
            p = buf;
            len = llm_json_unescape(buf, value);
        }
    }

    if (len > sizeof(a->finish_reason)) {
        len = sizeof(a->finish_reason);
    }

    /* it goes to logs and labels: no byte that could end a line there */

    for (i = 0; i < len; i++) {
        a->finish_reason[i] = (p[i] > 0x20 && p[i] < 0x7f) ? p[i] : '_';
    }

    a->finish_reason_len = (uint8_t) len;

    return 1;
}


void
llm_answer_failed(llm_answer_t *a, llm_uint_t status)
{
    a->failed = 1;
    a->status = (uint16_t) status;
}


llm_uint_t
llm_json_empty(const llm_json_value_t *value)
{
    u_char            *pos;
    llm_json_value_t   item;

    switch (value->type) {

    case LLM_JSON_ABSENT:
    case LLM_JSON_NULL:
        return 1;

    case LLM_JSON_STRING:
        return value->raw.len == 2;

    case LLM_JSON_ARRAY:
    case LLM_JSON_OBJECT:
        pos = NULL;

        return value->raw.len == 2
               || llm_json_next(&value->raw, &pos, NULL, &item) == LLM_DONE;

    default:
        return 0;
    }
}


llm_uint_t
llm_json_true(const llm_json_value_t *value)
{
    switch (value->type) {

    case LLM_JSON_ABSENT:
    case LLM_JSON_NULL:
    case LLM_JSON_FALSE:
        return 0;

    case LLM_JSON_STRING:
        return value->raw.len != 2;

    default:
        return 1;
    }
}


void
llm_event_object(const llm_event_t *ev, llm_json_value_t *object)
{
    memset(object, 0, sizeof(llm_json_value_t));

    object->raw = ev->data;

    while (object->raw.len && object->raw.data[0] != '{') {
        object->raw.data++;
        object->raw.len--;
    }

    object->type = LLM_JSON_OBJECT;
}


llm_uint_t
llm_json_name_is(const llm_str_t *name, const char *text, size_t len)
{
    llm_json_value_t  v;

    if (name->len == len) {
        return memcmp(name->data, text, len) == 0;
    }

    if (name->len < len || memchr(name->data, '\\', name->len) == NULL) {
        return 0;
    }

    /* the quotes stand around it */

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw.data = name->data - 1;
    v.raw.len = name->len + 2;
    v.type = LLM_JSON_STRING;
    v.escaped = 1;

    return llm_json_is(&v, text, len);
}


llm_uint_t
llm_status_by_name(const llm_status_name_t *table,
    const llm_json_value_t *value)
{
    if (value->type != LLM_JSON_STRING) {
        return 0;
    }

    for ( /* void */ ; table->name.len; table++) {
        if (llm_json_is(value, (const char *) table->name.data,
                        table->name.len))
        {
            return table->status;
        }
    }

    return 0;
}


llm_int_t
llm_plain_feed(llm_answer_t *a, llm_tap_t **tap, const llm_str_t *paths,
    llm_uint_t n, const u_char *pos, const u_char *last)
{
    if (*tap == NULL) {
        *tap = llm_tap_create(a->mem, paths, n, LLM_PLAIN_VALUE);

        if (*tap == NULL) {
            return LLM_ERROR;
        }
    }

    return llm_tap_feed(*tap, pos, last);
}


void
llm_plain_value(llm_tap_t *tap, llm_uint_t i, llm_json_value_t *value)
{
    llm_tap_value(tap, i, value);

    if (value->type == LLM_JSON_ABSENT) {
        return;
    }

    /* the tap does not check what it keeps, and what comes next must have
     * it checked */

    if (llm_json_scan(&value->raw, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
        == LLM_ERROR)
    {
        memset(value, 0, sizeof(llm_json_value_t));
    }
}


llm_uint_t
llm_plain_text(const llm_str_t *text, const llm_str_t *paths, llm_uint_t n,
    llm_json_value_t *values)
{
    u_char            *dot;
    llm_str_t          names[LLM_TAP_PATHS], rest;
    llm_uint_t         i;
    llm_json_value_t   top;

    memset(names, 0, sizeof(names));

    for (i = 0; i < n; i++) {
        dot = memchr(paths[i].data, '.', paths[i].len);

        names[i].data = paths[i].data;
        names[i].len = dot ? (size_t) (dot - paths[i].data) : paths[i].len;
    }

    if (llm_json_scan(text, LLM_JSON_DEPTH_MAX, names, values, n, NULL)
        != LLM_OK)
    {
        memset(values, 0, n * sizeof(llm_json_value_t));
        return 0;
    }

    for (i = 0; i < n; i++) {

        if (names[i].len == paths[i].len) {
            continue;
        }

        top = values[i];
        memset(&values[i], 0, sizeof(llm_json_value_t));

        rest.data = paths[i].data + names[i].len + 1;
        rest.len = paths[i].len - names[i].len - 1;

        llm_plain_descend(&top, &rest, &values[i]);
    }

    return 1;
}


/* the last value at path below value; *found is left alone if there is none */

static void
llm_plain_descend(const llm_json_value_t *value, const llm_str_t *path,
    llm_json_value_t *found)
{
    u_char            *dot, *pos;
    llm_str_t          name, rest;
    llm_json_value_t   next, item;

    dot = memchr(path->data, '.', path->len);

    name.data = path->data;
    name.len = dot ? (size_t) (dot - path->data) : path->len;

    rest.data = path->data + name.len + 1;
    rest.len = dot ? path->len - name.len - 1 : 0;

    if (name.len == 1 && *name.data == '*') {

        if (value->type != LLM_JSON_ARRAY) {
            return;
        }

        pos = NULL;

        if (rest.len && memchr(rest.data, '.', rest.len) == NULL) {

            /* one name: found while its object is passed */

            while (llm_json_next_object(&value->raw, &pos, &rest, &next, 1,
                                        &item)
                   == LLM_OK)
            {
                if (next.type != LLM_JSON_ABSENT) {
                    *found = next;
                }
            }

            return;
        }

        while (llm_json_next(&value->raw, &pos, NULL, &next) == LLM_OK) {

            if (rest.len) {
                llm_plain_descend(&next, &rest, found);

            } else {
                *found = next;
            }
        }

        return;
    }

    if (value->type != LLM_JSON_OBJECT
        || llm_json_find(&value->raw, &name, &next, 1) != LLM_OK
        || next.type == LLM_JSON_ABSENT)
    {
        return;
    }

    if (rest.len) {
        llm_plain_descend(&next, &rest, found);

    } else {
        *found = next;
    }
}
