
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the dialects need to fold a stream into a plain answer and to unfold
 * one: events and members read strictly, as an unknown one must not get lost,
 * texts cut into pieces, events written.  Nothing lives longer than a call
 * but lists, which their owner frees.
 */


#include <string.h>

#include "llm_retell.h"
#include "llm_scan.h"


static const u_char *llm_retell_escape(const u_char *p, const u_char *last);
static llm_int_t llm_retell_unit(const u_char *p, const u_char *last);
static void llm_retell_packed(llm_out_t *o, const llm_str_t *raw);


void *
llm_list_push(llm_list_t *list, const llm_mem_t *mem, size_t item)
{
    void        *p;
    llm_uint_t   size;

    if (list->n == list->size) {
        size = list->size ? list->size * 2 : 16;

        if (size > SIZE_MAX / item / 2) {
            return NULL;
        }

        p = mem->alloc(mem->ctx, size * item);
        if (p == NULL) {
            return NULL;
        }

        if (list->n) {
            memcpy(p, list->items, list->n * item);
        }

        llm_list_free(list, mem);

        list->items = p;
        list->size = size;
    }

    return (u_char *) list->items + list->n++ * item;
}


void
llm_list_free(llm_list_t *list, const llm_mem_t *mem)
{
    if (list->items && mem->free) {
        mem->free(mem->ctx, list->items);
    }

    list->items = NULL;
}


llm_int_t
llm_retell_events(const llm_str_t *text, const llm_mem_t *mem,
    llm_retell_pt handler, void *data, u_char **joined)
{
    void         *framer;
    size_t        len;
    u_char       *pos, *last;
    llm_int_t     rc;
    llm_event_t   ev;

    *joined = NULL;
    len = 0;

    if (text->len == 0) {
        return LLM_OK;
    }

    framer = llm_sse_framing.create(mem, text->len);
    if (framer == NULL) {
        return LLM_ERROR;
    }

    pos = text->data;
    last = pos + text->len;

    for ( ;; ) {
        rc = llm_sse_framing.feed(framer, &pos, last, &ev);

        if (rc != LLM_OK) {
            break;
        }

        if (ev.lines == 0) {
            continue;
        }

        if (ev.lines > 1) {

            /* they were joined in the framer's memory, until the next event;
             * all of them are shorter than the text */

            if (*joined == NULL) {
                *joined = mem->alloc(mem->ctx, text->len);

                if (*joined == NULL) {
                    rc = LLM_ERROR;
                    break;
                }
            }

            memcpy(*joined + len, ev.data.data, ev.data.len);
            ev.data.data = *joined + len;
            len += ev.data.len;
        }

        rc = handler(data, &ev);

        if (rc != LLM_OK) {
            break;
        }
    }

    if (rc == LLM_AGAIN) {
        rc = llm_sse_framing.finish(framer, &ev);
        rc = (rc == LLM_DONE) ? LLM_OK
             : (rc == LLM_OK) ? LLM_DECLINED : rc;
    }

    llm_sse_framing.free(framer);

    return rc;
}


void
llm_retell_free(u_char *joined, const llm_mem_t *mem)
{
    if (joined && mem->free) {
        mem->free(mem->ctx, joined);
    }
}


llm_int_t
llm_retell_members(const llm_str_t *object, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n)
{
    u_char            *pos;
    llm_str_t          name;
    llm_uint_t         i;
    llm_json_value_t   value;

    memset(values, 0, n * sizeof(llm_json_value_t));

    pos = NULL;

    if (llm_json_find(object, NULL, NULL, 0) != LLM_OK) {
        return LLM_DECLINED;
    }

    while (llm_json_next(object, &pos, &name, &value) == LLM_OK) {

        for (i = 0; i < n; i++) {
            if (name.len == names[i].len
                && memcmp(name.data, names[i].data, name.len) == 0)
            {
                break;
            }
        }

        if (i == n || values[i].type != LLM_JSON_ABSENT) {
            return LLM_DECLINED;
        }

        values[i] = value;
    }

    return LLM_OK;
}


llm_uint_t
llm_retell_simple(const llm_json_value_t *value)
{
    u_char            *pos;
    llm_str_t          names[LLM_RETELL_MEMBERS];
    llm_uint_t         i, n;
    llm_json_value_t   member;

    if (value->type != LLM_JSON_OBJECT) {
        return 0;
    }

    n = 0;
    pos = NULL;

    while (n < LLM_RETELL_MEMBERS
           && llm_json_next(&value->raw, &pos, &names[n], &member) == LLM_OK)
    {
        if (memchr(names[n].data, '\\', names[n].len)) {
            return 0;
        }

        for (i = 0; i < n; i++) {
            if (names[i].len == names[n].len
                && memcmp(names[i].data, names[n].data, names[n].len) == 0)
            {
                return 0;
            }
        }

        n++;
    }

    return n < LLM_RETELL_MEMBERS;
}


llm_uint_t
llm_retell_objects(const llm_json_value_t *value)
{
    u_char            *pos;
    llm_uint_t         n;
    llm_json_value_t   item;

    if (value->type == LLM_JSON_ABSENT || value->type == LLM_JSON_NULL) {
        return 1;
    }

    if (value->type != LLM_JSON_ARRAY) {
        return 0;
    }

    n = 0;
    pos = NULL;

    while (llm_json_next(&value->raw, &pos, NULL, &item) == LLM_OK) {
        if (n++ == LLM_RETELL_ITEMS || item.type != LLM_JSON_OBJECT) {
            return 0;
        }
    }

    return 1;
}


llm_str_t
llm_retell_inside(const llm_json_value_t *value)
{
    llm_str_t  text;

    text.len = 0;
    text.data = NULL;

    if (value->type == LLM_JSON_STRING) {
        text.data = value->raw.data + 1;
        text.len = value->raw.len - 2;
    }

    return text;
}


llm_uint_t
llm_retell_same(const llm_json_value_t *a, const llm_json_value_t *b)
{
    return a->type == b->type
           && (a->type == LLM_JSON_ABSENT
               || (a->raw.len == b->raw.len
                   && memcmp(a->raw.data, b->raw.data, a->raw.len) == 0));
}


llm_uint_t
llm_retell_lone(const llm_str_t *string)
{
    llm_int_t      unit;
    const u_char  *p, *last;

    p = string->data;
    last = p + string->len;

    while ((p = memchr(p, '\\', last - p)) != NULL) {
        unit = llm_retell_unit(p, last);

        if (unit == 0xdc
            || (unit == 0xd8 && llm_retell_unit(p + 6, last) != 0xdc))
        {
            return 1;
        }

        p = llm_retell_escape(p, last);
    }

    return 0;
}


size_t
llm_retell_size(size_t len)
{
    return (len > 24 * 256) ? len / 256 + 1 : 24;
}


llm_int_t
llm_retell_piece(const llm_str_t *text, size_t *offset, size_t n,
    llm_str_t *piece)
{
    const u_char  *p, *last;

    if (*offset == text->len) {
        return LLM_DONE;
    }

    p = text->data + *offset;
    last = text->data + text->len;

    for ( /* void */ ; n && p < last; n--) {

        if (*p == '\\') {
            p = llm_retell_escape(p, last);
            continue;
        }

        p++;

        while (p < last && (*p & 0xc0) == 0x80) {
            p++;
        }
    }

    piece->data = text->data + *offset;
    piece->len = p - piece->data;

    *offset += piece->len;

    return LLM_OK;
}


/* behind the escape at p, or behind both that make up one code point */

static const u_char *
llm_retell_escape(const u_char *p, const u_char *last)
{
    llm_int_t  high, low;

    high = llm_retell_unit(p, last);

    if (high < 0) {
        return (last - p > 2) ? p + 2 : last;
    }

    p += 6;

    if (high == 0xd8) {
        low = llm_retell_unit(p, last);

        if (low == 0xdc) {
            p += 6;
        }
    }

    return p;
}


/* What \uXXXX at p is: 0xd8 a high surrogate, 0xdc a low one, 0 any other
 * unit; -1: there is no such escape. */

static llm_int_t
llm_retell_unit(const u_char *p, const u_char *last)
{
    if (last - p < 6 || p[0] != '\\' || p[1] != 'u') {
        return -1;
    }

    if ((p[2] | 0x20) != 'd') {
        return 0;
    }

    switch (p[3] | 0x20) {

    case '8':
    case '9':
    case 'a':
    case 'b':
        return 0xd8;

    case 'c':
    case 'd':
    case 'e':
    case 'f':
        return 0xdc;

    default:
        return 0;
    }
}


void
llm_retell_event(llm_out_t *o, const char *type)
{
    size_t  len;

    len = strlen(type);

    llm_out_text(o, "event: ");
    llm_out(o, type, len);
    llm_out_text(o, "\ndata: {\"type\":\"");
    llm_out(o, type, len);
    llm_out_text(o, "\"");
}


void
llm_retell_end(llm_out_t *o)
{
    llm_out_text(o, "}\n\n");
}


void
llm_retell_value(llm_out_t *o, const llm_str_t *raw)
{
    const u_char  *last;

    last = raw->data + raw->len;

    if (llm_scan_eol(raw->data, last) == last) {
        llm_out(o, raw->data, raw->len);
        return;
    }

    llm_retell_packed(o, raw);
}


static void
llm_retell_packed(llm_out_t *o, const llm_str_t *raw)
{
    const u_char  *p, *last, *end;

    p = raw->data;
    last = p + raw->len;

    while (p < last) {
        p = llm_scan_spaces(p, last);
        end = p;

        while (end < last && *end > ' ' && *end != '"') {
            end++;
        }

        if (end < last && *end == '"') {
            end = llm_scan_quote(end + 1, last);

            while (end < last && *end == '\\') {
                end = (last - end > 2) ? llm_scan_quote(end + 2, last)
                                       : last;
            }

            end += (end < last);
        }

        llm_out(o, p, end - p);
        p = end;
    }
}


void
llm_retell_name(llm_out_t *o, const llm_str_t *name, llm_uint_t *first)
{
    llm_out(o, ",", *first ? 0 : 1);
    llm_out_text(o, "\"");
    llm_out(o, name->data, name->len);
    llm_out_text(o, "\":");

    *first = 0;
}
