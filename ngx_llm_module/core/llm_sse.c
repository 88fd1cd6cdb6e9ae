
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The framing text/event-stream, as WHATWG defines it, read at any split and
 * written.
 *
 * An event that lies whole in the input and has one line of data is told by
 * pointers into the input.  Only when an event is cut by the end of the
 * input, or has more lines, its fields move to buffers of their own; the cut
 * line goes straight behind what its field has, so each byte is looked at
 * once, whatever the pieces.  Comments and unknown fields are not kept.
 *
 * A value of "id" or "retry" may prove void at its end and must then leave
 * the earlier one alone, so these and "event" are gathered in a slot of
 * their own and change places with the field's.
 */


#include <string.h>

#include "llm_scan.h"


/* what an idle stream may keep of a buffer */

#define LLM_SSE_KEEP      1024

#define LLM_SSE_NAME_MAX  5


typedef struct {
    u_char                *data;       /* in the input or == buf */
    u_char                *buf;
    uint32_t               len;
    uint32_t               size;       /* of buf */
} llm_sse_slot_t;


typedef enum {
    sse_type = 0,
    sse_id,
    sse_retry,
    sse_line,                          /* one of the above, being read */
    sse_data,
    sse_unknown
} llm_sse_field_e;


typedef enum {
    sw_bom = 0,
    sw_line,
    sw_name,
    sw_space,
    sw_value,
    sw_ignore
} llm_sse_state_e;


typedef struct {
    llm_mem_t              mem;
    u_char                *start;      /* of the value, in the input */
    size_t                 lines;      /* of data, ended ones */
    uint32_t               max;
    llm_sse_slot_t         slot[sse_unknown];

    u_char                 name[LLM_SSE_NAME_MAX];
    uint8_t                name_len;   /* may be one more: too long */
    uint8_t                state;
    uint8_t                field;

    unsigned               has_id:1;
    unsigned               begun:1;    /* the value has bytes in its slot */
    unsigned               cr:1;       /* the last byte was one */
    unsigned               told:1;     /* the slots' event was returned */
    unsigned               failed:1;
} llm_sse_t;


static void *llm_sse_create(const llm_mem_t *mem, size_t max);
static llm_int_t llm_sse_feed(void *framer, u_char **pos, u_char *last,
    llm_event_t *ev);
static llm_int_t llm_sse_finish(void *framer, llm_event_t *ev);
static void llm_sse_free(void *framer);

static u_char *llm_sse_bom(llm_sse_t *s, u_char *p);
static u_char *llm_sse_line(llm_sse_t *s, u_char *p, u_char *last);
static llm_uint_t llm_sse_field(const llm_sse_t *s);
static llm_int_t llm_sse_ended(llm_sse_t *s, u_char *p);
static llm_int_t llm_sse_value(llm_sse_t *s, u_char *p, llm_uint_t ended);
static llm_uint_t llm_sse_valid(const llm_sse_t *s);
static llm_int_t llm_sse_cut(llm_sse_t *s, u_char *last);
static llm_int_t llm_sse_append(llm_sse_t *s, llm_sse_slot_t *slot,
    const u_char *p, size_t len);
static llm_int_t llm_sse_grow(llm_sse_t *s, llm_sse_slot_t *slot,
    size_t need);
static llm_int_t llm_sse_tell(llm_sse_t *s, llm_event_t *ev);
static void llm_sse_reset(llm_sse_t *s);
static size_t llm_sse_write_field(u_char *dst, size_t len, const char *name,
    const llm_str_t *value);
static size_t llm_sse_put(u_char *dst, size_t len, const void *text,
    size_t n);


const llm_framing_t  llm_sse_framing = {
    llm_string("sse"),
    llm_string("text/event-stream"),
    llm_sse_create,
    llm_sse_feed,
    llm_sse_finish,
    llm_sse_free
};


static void *
llm_sse_create(const llm_mem_t *mem, size_t max)
{
    llm_sse_t  *s;

    s = mem->alloc(mem->ctx, sizeof(llm_sse_t));
    if (s == NULL) {
        return NULL;
    }

    memset(s, 0, sizeof(llm_sse_t));

    s->mem = *mem;
    s->max = (max < UINT32_MAX) ? max : UINT32_MAX;

    return s;
}


static llm_int_t
llm_sse_feed(void *framer, u_char **pos, u_char *last, llm_event_t *ev)
{
    u_char      *p;
    llm_int_t    rc;
    llm_sse_t   *s = framer;
    llm_uint_t   blank;

    if (s->failed) {
        return LLM_DECLINED;
    }

    if (s->told) {
        llm_sse_reset(s);
    }

    p = *pos;
    s->start = p;

    if (s->cr && p < last) {
        p += (*p == '\n');
        s->cr = 0;
    }

    while (p < last) {

        if (s->state == sw_bom) {
            p = llm_sse_bom(s, p);
            continue;
        }

        blank = (s->state == sw_line && (*p == '\n' || *p == '\r'));

        if (!blank) {
            p = llm_sse_line(s, p, last);

            if (p == last) {
                break;
            }

            rc = llm_sse_ended(s, p);

            if (rc != LLM_OK) {
                return rc;
            }
        }

        /* the LF of a CRLF is not waited for: it may come much later */

        s->cr = (*p++ == '\r');

        if (s->cr && p < last) {
            p += (*p == '\n');
            s->cr = 0;
        }

        if (blank && llm_sse_tell(s, ev) == LLM_OK) {
            *pos = p;
            return LLM_OK;
        }
    }

    *pos = last;

    return llm_sse_cut(s, last);
}


static llm_int_t
llm_sse_finish(void *framer, llm_event_t *ev)
{
    llm_int_t   rc;
    llm_sse_t  *s = framer;

    if (s->failed) {
        return LLM_DONE;
    }

    if (s->told) {
        llm_sse_reset(s);
    }

    if (s->state == sw_name) {
        s->field = llm_sse_field(s);
    }

    if (s->state != sw_bom && s->state != sw_line) {

        /* an empty rest, wherever */

        s->start = s->name;
        rc = llm_sse_ended(s, s->name);

        if (rc == LLM_ERROR) {
            return LLM_ERROR;
        }

        if (rc == LLM_DECLINED) {
            return LLM_DONE;
        }
    }

    return llm_sse_tell(s, ev) == LLM_OK ? LLM_OK : LLM_DONE;
}


static void
llm_sse_free(void *framer)
{
    llm_sse_t   *s = framer;
    llm_uint_t   i;

    if (s->mem.free == NULL) {
        return;
    }

    for (i = 0; i < sse_unknown; i++) {

        if (s->slot[i].buf) {
            s->mem.free(s->mem.ctx, s->slot[i].buf);
        }
    }

    s->mem.free(s->mem.ctx, s);
}


static u_char *
llm_sse_bom(llm_sse_t *s, u_char *p)
{
    static const u_char  bom[] = { 0xef, 0xbb, 0xbf };

    if (*p != bom[s->name_len]) {

        /* a part of a BOM begins an unknown name */

        s->field = sse_unknown;
        s->state = s->name_len ? sw_value : sw_line;

        return p;
    }

    if (++s->name_len == sizeof(bom)) {
        s->state = sw_line;
    }

    return p + 1;
}


/* goes on in a line up to its end or the input's */

static u_char *
llm_sse_line(llm_sse_t *s, u_char *p, u_char *last)
{
    if (s->state == sw_line) {
        s->name_len = 0;
        s->state = sw_name;
    }

    if (s->state == sw_name) {

        while (p < last && *p != ':' && *p != '\n' && *p != '\r') {

            if (s->name_len < LLM_SSE_NAME_MAX) {
                s->name[s->name_len++] = *p;

            } else {
                s->name_len = LLM_SSE_NAME_MAX + 1;
            }

            p++;
        }

        if (p == last) {
            return p;
        }

        s->field = llm_sse_field(s);
        s->start = p;
        s->state = sw_value;

        if (*p != ':') {
            return p;
        }

        p++;
        s->state = sw_space;
    }

    if (s->state == sw_space) {

        if (p == last) {
            return p;
        }

        p += (*p == ' ');
        s->start = p;
        s->state = sw_value;
    }

    return (u_char *) llm_scan_eol(p, last);
}


static llm_uint_t
llm_sse_field(const llm_sse_t *s)
{
    switch (s->name_len) {

    case 2:
        return memcmp(s->name, "id", 2) == 0 ? sse_id : sse_unknown;

    case 4:
        return memcmp(s->name, "data", 4) == 0 ? sse_data : sse_unknown;

    case 5:

        if (memcmp(s->name, "event", 5) == 0) {
            return sse_type;
        }

        return memcmp(s->name, "retry", 5) == 0 ? sse_retry : sse_unknown;

    default: /* a comment has no name */
        return sse_unknown;
    }
}


/* a line other than a blank one ends at p */

static llm_int_t
llm_sse_ended(llm_sse_t *s, u_char *p)
{
    llm_int_t        rc;
    llm_sse_slot_t   slot, *line;

    s->state = sw_line;

    if (s->field == sse_unknown) {
        return LLM_OK;
    }

    rc = llm_sse_value(s, p, 1);

    if (rc != LLM_OK) {
        return rc;
    }

    s->begun = 0;

    if (s->field == sse_data) {
        s->lines++;
        return LLM_OK;
    }

    line = &s->slot[sse_line];

    if (llm_sse_valid(s)) {
        slot = s->slot[s->field];
        s->slot[s->field] = *line;
        *line = slot;

        if (s->field == sse_id) {
            s->has_id = 1;
        }
    }

    line->data = line->buf;
    line->len = 0;

    return LLM_OK;
}


/* the value has the bytes from s->start to p; ended: it has no more */

static llm_int_t
llm_sse_value(llm_sse_t *s, u_char *p, llm_uint_t ended)
{
    size_t           len;
    llm_int_t        rc;
    llm_uint_t       join;
    llm_sse_slot_t  *slot;

    len = p - s->start;
    slot = &s->slot[(s->field == sse_data) ? sse_data : sse_line];
    join = (s->field == sse_data && s->lines && !s->begun);

    if (ended && !s->begun && !join) {

        if (len > s->max) {
            s->failed = 1;
            return LLM_DECLINED;
        }

        slot->data = s->start;
        slot->len = len;

        return LLM_OK;
    }

    s->begun = 1;

    if (join) {
        rc = llm_sse_append(s, slot, (u_char *) "\n", 1);

        if (rc != LLM_OK) {
            return rc;
        }
    }

    return llm_sse_append(s, slot, s->start, len);
}


static llm_uint_t
llm_sse_valid(const llm_sse_t *s)
{
    uint32_t               i;
    const llm_sse_slot_t  *line;

    line = &s->slot[sse_line];

    switch (s->field) {

    case sse_id:
        return line->len == 0 || memchr(line->data, '\0', line->len) == NULL;

    case sse_retry:

        for (i = 0; i < line->len; i++) {

            if (line->data[i] < '0' || line->data[i] > '9') {
                return 0;
            }
        }

        return line->len != 0;

    default: /* sse_type */
        return 1;
    }
}


/* the input ends within an event: keep what it has of it */

static llm_int_t
llm_sse_cut(llm_sse_t *s, u_char *last)
{
    llm_int_t        rc;
    llm_uint_t       i;
    llm_sse_slot_t  *slot;

    if (s->state == sw_value && s->field != sse_unknown) {
        rc = llm_sse_value(s, last, 0);

        if (rc != LLM_OK) {
            return rc;
        }
    }

    for (i = 0; i < sse_unknown; i++) {
        slot = &s->slot[i];

        if (slot->data == slot->buf) {
            continue;
        }

        rc = llm_sse_append(s, slot, NULL, 0);

        if (rc != LLM_OK) {
            return rc;
        }
    }

    return LLM_AGAIN;
}


static llm_int_t
llm_sse_append(llm_sse_t *s, llm_sse_slot_t *slot, const u_char *p,
    size_t len)
{
    size_t  need;

    if (len > s->max - slot->len) {
        s->failed = 1;
        return LLM_DECLINED;
    }

    need = slot->len + len;

    if (need > slot->size && llm_sse_grow(s, slot, need) != LLM_OK) {
        return LLM_ERROR;
    }

    if (slot->data != slot->buf) {

        if (slot->len) {
            memcpy(slot->buf, slot->data, slot->len);
        }

        slot->data = slot->buf;
    }

    if (len) {
        memcpy(slot->buf + slot->len, p, len);
    }

    slot->len = need;

    return LLM_OK;
}


static llm_int_t
llm_sse_grow(llm_sse_t *s, llm_sse_slot_t *slot, size_t need)
{
    u_char  *buf;
    size_t   size;

    size = (size_t) slot->size * 2;

    if (size < LLM_SSE_KEEP / 4) {
        size = LLM_SSE_KEEP / 4;
    }

    if (size < need) {
        size = need;
    }

    if (size > s->max) {
        size = s->max;
    }

    buf = s->mem.alloc(s->mem.ctx, size);
    if (buf == NULL) {
        return LLM_ERROR;
    }

    if (slot->data == slot->buf) {

        if (slot->len) {
            memcpy(buf, slot->buf, slot->len);
        }

        slot->data = buf;
    }

    if (slot->buf && s->mem.free) {
        s->mem.free(s->mem.ctx, slot->buf);
    }

    slot->buf = buf;
    slot->size = size;

    return LLM_OK;
}


/* a blank line; LLM_DONE: it closes nothing that is an event */

static llm_int_t
llm_sse_tell(llm_sse_t *s, llm_event_t *ev)
{
    llm_sse_slot_t  *slot;

    slot = s->slot;

    if (s->lines == 0 && !s->has_id && slot[sse_retry].len == 0) {
        llm_sse_reset(s);
        return LLM_DONE;
    }

    ev->type.len = slot[sse_type].len;
    ev->type.data = slot[sse_type].data;

    ev->id.len = slot[sse_id].len;
    ev->id.data = slot[sse_id].data;

    ev->retry.len = slot[sse_retry].len;
    ev->retry.data = slot[sse_retry].data;

    ev->data.len = slot[sse_data].len;
    ev->data.data = slot[sse_data].data;

    ev->lines = s->lines;
    ev->has_id = s->has_id;

    s->told = 1;

    return LLM_OK;
}


static void
llm_sse_reset(llm_sse_t *s)
{
    llm_uint_t       i;
    llm_sse_slot_t  *slot;

    for (i = 0; i < sse_unknown; i++) {
        slot = &s->slot[i];

        if (slot->size > LLM_SSE_KEEP && s->mem.free) {
            s->mem.free(s->mem.ctx, slot->buf);
            slot->buf = NULL;
            slot->size = 0;
        }

        slot->data = slot->buf;
        slot->len = 0;
    }

    s->lines = 0;
    s->has_id = 0;
    s->told = 0;
}


size_t
llm_sse_write(u_char *dst, const llm_event_t *ev, size_t *data)
{
    size_t         len;
    const u_char  *p, *last, *end;

    len = 0;

    if (data) {
        *data = 0;
    }

    if (ev->type.len) {
        len = llm_sse_write_field(dst, len, "event: ", &ev->type);
    }

    if (ev->has_id) {
        len = llm_sse_write_field(dst, len, "id: ", &ev->id);
    }

    if (ev->retry.len) {
        len = llm_sse_write_field(dst, len, "retry: ", &ev->retry);
    }

    if (ev->lines) {
        p = ev->data.data;
        last = ev->data.len ? p + ev->data.len : p;

        for ( ;; ) {
            end = llm_scan_eol(p, last);
            len = llm_sse_put(dst, len, "data: ", 6);

            if (data && end == last && p == ev->data.data) {
                *data = len;
            }

            len = llm_sse_put(dst, len, p, end - p);
            len = llm_sse_put(dst, len, "\n", 1);

            if (end == last) {
                break;
            }

            p = end + 1;

            if (*end == '\r' && p < last && *p == '\n') {
                p++;
            }
        }
    }

    return llm_sse_put(dst, len, "\n", 1);
}


/* what stands behind a line end in the value would be fields of its own */

static size_t
llm_sse_write_field(u_char *dst, size_t len, const char *name,
    const llm_str_t *value)
{
    const u_char  *p, *last, *end;

    p = value->data;
    last = value->len ? p + value->len : p;
    end = llm_scan_eol(p, last);

    len = llm_sse_put(dst, len, name, strlen(name));
    len = llm_sse_put(dst, len, p, end - p);

    return llm_sse_put(dst, len, "\n", 1);
}


static size_t
llm_sse_put(u_char *dst, size_t len, const void *text, size_t n)
{
    if (dst && n) {
        memcpy(dst + len, text, n);
    }

    return len + n;
}
