
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A tap on a JSON text that passes by.  Only the containers that paths lead
 * through are read by tokens; there are never more than LLM_TAP_LEVELS of
 * them.  Any other container is "skipped": its brackets are counted and its
 * strings stepped over, which is nearly all of a long answer.
 *
 * The values being kept are runs of the input: a run is copied where the
 * value or the piece of input ends, so nothing is done for their bytes
 * singly.  A complete value replaces the former one by an exchange of
 * buffers, and these are used again.
 *
 * Text that cannot be JSON stops the tap: it takes what comes and keeps what
 * it has.
 */


#include <string.h>

#include "llm_scan.h"


#define LLM_TAP_LEVELS    4
#define LLM_TAP_BUF_MIN   64


typedef enum {
    sw_value = 0,                      /* at a value or an array's end */
    sw_scalar,
    sw_string,
    sw_escape,
    sw_name,                           /* at a name or an object's end */
    sw_colon,
    sw_next,                           /* at a comma or a container's end */
    sw_skip,
    sw_stop
} llm_tap_state_e;


typedef struct {
    u_char                *data;
    size_t                 len;
    size_t                 size;
} llm_tap_buf_t;


typedef struct {
    llm_str_t              name[LLM_TAP_LEVELS];
    llm_uint_t             n;

    llm_tap_buf_t          kept;       /* the last complete value */
    llm_tap_buf_t          next;       /* the value being read */
    const u_char          *run;        /* its bytes in this input that are
                                          not in next yet */
    llm_json_value_t       value;      /* but for its text: that is kept */

    unsigned               met:1;      /* a value was complete */
    unsigned               overflow:1; /* next has no room for its value */
} llm_tap_path_t;


/* an open container that paths lead through; paths are bits of a mask */

typedef struct {
    u_char                 close;
    uint8_t                paths;      /* those that lead through it */
    uint8_t                keep;       /* those that it is the value of */
} llm_tap_level_t;


struct llm_tap_s {
    llm_mem_t              mem;
    size_t                 max;
    llm_uint_t             n;

    size_t                 depth;      /* of brackets, while skipping */
    llm_uint_t             level;      /* of levels, open ones */
    llm_tap_level_t        levels[LLM_TAP_LEVELS];

    const u_char          *name_run;   /* as of a path, of a name being read */
    u_char                *name;       /* room for the longest that can fit */
    size_t                 name_len;
    size_t                 name_size;

    u_char                 first;      /* byte of the value being read */
    uint8_t                state;
    uint8_t                after;      /* the state behind a string */
    uint8_t                paths;      /* those that lead to the next value */
    uint8_t                keep;       /* those that the scalar or skipped
                                          container being read is kept for */
    uint8_t                reading;    /* those with a value being read */

    unsigned               escaped:1;  /* the string has a backslash */
    unsigned               done:1;
    unsigned               failed:1;   /* no memory */

    llm_tap_path_t         path[];
};


static size_t llm_tap_path(llm_tap_path_t *path, const llm_str_t *text);
static const u_char *llm_tap_token(llm_tap_t *tap, const u_char *p);
static const u_char *llm_tap_begin(llm_tap_t *tap, const u_char *p);
static llm_uint_t llm_tap_through(llm_tap_t *tap, u_char ch);
static const u_char *llm_tap_scalar(llm_tap_t *tap, const u_char *p,
    const u_char *last);
static const u_char *llm_tap_string(llm_tap_t *tap, const u_char *p,
    const u_char *last);
static const u_char *llm_tap_skip(llm_tap_t *tap, const u_char *p,
    const u_char *last);
static const u_char *llm_tap_close(llm_tap_t *tap, const u_char *p);
static void llm_tap_stop(llm_tap_t *tap);
static void llm_tap_name(llm_tap_t *tap, const u_char *p);
static void llm_tap_name_cut(llm_tap_t *tap, const u_char *p);
static void llm_tap_ended(llm_tap_t *tap, llm_uint_t keep, u_char first,
    const u_char *p);
static llm_int_t llm_tap_append(llm_tap_t *tap, llm_tap_path_t *path,
    const u_char *p);


llm_tap_t *
llm_tap_create(const llm_mem_t *mem, const llm_str_t *paths, llm_uint_t n,
    size_t max)
{
    size_t          size, len, longest;
    llm_tap_t      *tap;
    llm_uint_t      i;
    llm_tap_path_t  path;

    if (n > LLM_TAP_PATHS) {
        return NULL;
    }

    longest = 0;

    for (i = 0; i < n; i++) {
        len = llm_tap_path(&path, &paths[i]);

        if (path.n == 0) {
            return NULL;
        }

        if (longest < len) {
            longest = len;
        }
    }

    size = sizeof(llm_tap_t) + n * sizeof(llm_tap_path_t);

    /* all of a name may be escaped, 6 bytes for one; quotes */

    tap = mem->alloc(mem->ctx, size + longest * 6 + 2);
    if (tap == NULL) {
        return NULL;
    }

    memset(tap, 0, size);

    tap->mem = *mem;
    tap->max = max;
    tap->n = n;
    tap->paths = (1 << n) - 1;

    tap->name = (u_char *) tap + size;
    tap->name_size = longest * 6 + 2;

    for (i = 0; i < n; i++) {
        (void) llm_tap_path(&tap->path[i], &paths[i]);
    }

    return tap;
}


/* cuts the path; the length of its longest name.  n is 0 if it has too many */

static size_t
llm_tap_path(llm_tap_path_t *path, const llm_str_t *text)
{
    size_t   longest;
    u_char  *p, *last, *start;

    longest = 0;
    path->n = 0;

    p = text->data;
    last = text->len ? p + text->len : p;
    start = p;

    for ( ;; ) {

        if (p < last && *p != '.') {
            p++;
            continue;
        }

        if (path->n == LLM_TAP_LEVELS) {
            path->n = 0;
            return 0;
        }

        path->name[path->n].data = start;
        path->name[path->n].len = p - start;

        if (longest < path->name[path->n].len) {
            longest = path->name[path->n].len;
        }

        path->n++;

        if (p == last) {
            return longest;
        }

        start = ++p;
    }
}


llm_int_t
llm_tap_feed(llm_tap_t *tap, const u_char *pos, const u_char *last)
{
    llm_uint_t     i;
    const u_char  *p;

    tap->name_run = pos;

    for (i = 0; i < tap->n; i++) {
        tap->path[i].run = pos;
    }

    p = pos;

    while (p < last) {

        switch (tap->state) {

        case sw_scalar:
            p = llm_tap_scalar(tap, p, last);
            break;

        case sw_string:
            p = llm_tap_string(tap, p, last);
            break;

        case sw_escape:
            tap->state = sw_string;
            p++;
            break;

        case sw_skip:
            p = llm_tap_skip(tap, p, last);
            break;

        case sw_stop:
            return tap->failed ? LLM_ERROR : LLM_OK;

        default:
            p = llm_scan_token(p, last);

            if (p < last) {
                p = llm_tap_token(tap, p);
            }
        }
    }

    if (tap->after == sw_colon
        && (tap->state == sw_string || tap->state == sw_escape))
    {
        llm_tap_name_cut(tap, last);
    }

    for (i = 0; i < tap->n; i++) {

        if (tap->reading & (1 << i)
            && llm_tap_append(tap, &tap->path[i], last) != LLM_OK)
        {
            return LLM_ERROR;
        }
    }

    return tap->failed ? LLM_ERROR : LLM_OK;
}


static const u_char *
llm_tap_token(llm_tap_t *tap, const u_char *p)
{
    llm_tap_level_t  *level;

    if (tap->level == 0) {
        return llm_tap_begin(tap, p);
    }

    level = &tap->levels[tap->level - 1];

    if (*p == level->close && tap->state != sw_colon) {
        return llm_tap_close(tap, p);
    }

    switch (tap->state) {

    case sw_value:
        return llm_tap_begin(tap, p);

    case sw_name:

        if (*p == '"') {
            tap->state = sw_string;
            tap->after = sw_colon;
            tap->escaped = 0;
            tap->name_run = p;
            tap->name_len = 0;

            return p + 1;
        }

        break;

    case sw_colon:

        if (*p == ':') {
            tap->state = sw_value;
            return p + 1;
        }

        break;

    default: /* sw_next */

        if (*p == ',') {
            tap->state = (level->close == '}') ? sw_name : sw_value;
            tap->paths = level->paths;

            return p + 1;
        }
    }

    llm_tap_stop(tap);

    return p;
}


static const u_char *
llm_tap_begin(llm_tap_t *tap, const u_char *p)
{
    u_char            keep;
    llm_uint_t        i, through;
    llm_tap_level_t  *level;

    keep = 0;

    for (i = 0; i < tap->n; i++) {

        if (tap->paths & (1 << i) && tap->path[i].n == tap->level) {
            tap->path[i].run = p;
            tap->path[i].next.len = 0;
            tap->path[i].overflow = 0;

            keep |= 1 << i;
        }
    }

    tap->reading |= keep;
    tap->keep = keep;
    tap->first = *p;
    tap->escaped = 0;

    switch (llm_json_type(*p)) {

    case LLM_JSON_OBJECT:
    case LLM_JSON_ARRAY:
        through = llm_tap_through(tap, *p);

        if (through == 0) {
            tap->state = sw_skip;
            tap->depth = 1;
            break;
        }

        level = &tap->levels[tap->level++];
        level->close = *p + 2;
        level->paths = through;
        level->keep = keep;

        tap->state = (*p == '{') ? sw_name : sw_value;
        tap->paths = through;
        break;

    case LLM_JSON_STRING:
        tap->state = sw_string;
        tap->after = sw_next;
        break;

    case LLM_JSON_ABSENT:
        llm_tap_stop(tap);
        break;

    default:
        tap->state = sw_scalar;
    }

    return p + 1;
}


/* the paths that go on below this container */

static llm_uint_t
llm_tap_through(llm_tap_t *tap, u_char ch)
{
    llm_str_t   *name;
    llm_uint_t   i, any, through;

    through = 0;

    for (i = 0; i < tap->n; i++) {

        if (!(tap->paths & (1 << i)) || tap->path[i].n == tap->level) {
            continue;
        }

        name = &tap->path[i].name[tap->level];
        any = (name->len == 1 && *name->data == '*');

        if (any == (ch == '[')) {
            through |= 1 << i;
        }
    }

    return through;
}


static const u_char *
llm_tap_scalar(llm_tap_t *tap, const u_char *p, const u_char *last)
{
    while (p < last) {

        if (*p <= ' ' || *p == ',' || *p == ']' || *p == '}') {
            llm_tap_ended(tap, tap->keep, tap->first, p);
            break;
        }

        p++;
    }

    return p;
}


static const u_char *
llm_tap_string(llm_tap_t *tap, const u_char *p, const u_char *last)
{
    for ( ;; ) {
        p = llm_scan_quote(p, last);

        if (p == last) {
            return p;
        }

        if (*p++ == '"') {
            break;
        }

        tap->escaped = 1;

        if (p == last) {
            tap->state = sw_escape;
            return p;
        }

        p++;
    }

    switch (tap->after) {

    case sw_colon:
        llm_tap_name(tap, p);
        break;

    case sw_skip:
        tap->state = sw_skip;
        break;

    default: /* sw_next */
        llm_tap_ended(tap, tap->keep, tap->first, p);
    }

    return p;
}


static const u_char *
llm_tap_skip(llm_tap_t *tap, const u_char *p, const u_char *last)
{
    tap->after = sw_skip;

    for ( ;; ) {
        p = llm_scan_bracket(p, last);

        if (p == last) {
            return p;
        }

        switch (*p++) {

        case '"':
            tap->state = sw_string;
            p = llm_tap_string(tap, p, last);

            if (tap->state != sw_skip) {
                return p;
            }

            break;

        case '{':
        case '[':
            tap->depth++;
            break;

        default: /* '}', ']' */

            if (--tap->depth == 0) {
                llm_tap_ended(tap, tap->keep, tap->first, p);
                return p;
            }
        }
    }
}


static const u_char *
llm_tap_close(llm_tap_t *tap, const u_char *p)
{
    llm_tap_level_t  *level;

    level = &tap->levels[--tap->level];
    llm_tap_ended(tap, level->keep, level->close - 2, p + 1);

    return p + 1;
}


static void
llm_tap_stop(llm_tap_t *tap)
{
    tap->state = sw_stop;
    tap->reading = 0;
}


/* a name ends at p: which paths go on below it */

static void
llm_tap_name(llm_tap_t *tap, const u_char *p)
{
    llm_str_t         *name;
    llm_uint_t         i;
    llm_json_value_t   value;

    tap->state = sw_colon;

    if (tap->name_len) {
        llm_tap_name_cut(tap, p);

        value.raw.data = tap->name;
        value.raw.len = tap->name_len;

    } else {
        value.raw.data = (u_char *) tap->name_run;
        value.raw.len = p - tap->name_run;
    }

    tap->paths = 0;

    if (value.raw.len > tap->name_size) {
        return;
    }

    value.type = LLM_JSON_STRING;
    value.escaped = tap->escaped;

    for (i = 0; i < tap->n; i++) {
        name = &tap->path[i].name[tap->level - 1];

        if (tap->levels[tap->level - 1].paths & (1 << i)
            && llm_json_is(&value, (char *) name->data, name->len))
        {
            tap->paths |= 1 << i;
        }
    }
}


/* keeps a cut name; a length beyond the room says that it cannot fit */

static void
llm_tap_name_cut(llm_tap_t *tap, const u_char *p)
{
    size_t  len;

    len = p - tap->name_run;

    if (tap->name_len > tap->name_size
        || len > tap->name_size - tap->name_len)
    {
        tap->name_len = tap->name_size + 1;
        return;
    }

    memcpy(tap->name + tap->name_len, tap->name_run, len);
    tap->name_len += len;
}


/* a value ends at p */

static void
llm_tap_ended(llm_tap_t *tap, llm_uint_t keep, u_char first,
    const u_char *p)
{
    llm_uint_t       i;
    llm_tap_buf_t    buf;
    llm_tap_path_t  *path;

    tap->state = sw_next;

    if (tap->level == 0) {
        tap->state = sw_stop;
        tap->done = 1;
    }

    tap->reading &= ~keep;

    for (i = 0; keep; i++, keep >>= 1) {
        path = &tap->path[i];

        if (!(keep & 1)) {
            continue;
        }

        if (llm_tap_append(tap, path, p) != LLM_OK) {
            return;
        }

        buf = path->kept;
        path->kept = path->next;
        path->next = buf;

        path->value.type = path->overflow ? LLM_JSON_ABSENT
                                          : llm_json_type(first);
        path->value.escaped = (path->value.type == LLM_JSON_STRING)
                              ? tap->escaped : 0;
        path->value.duplicate = path->met;
        path->value.overflow = path->overflow;

        path->met = 1;
    }
}


/* adds the run up to p */

static llm_int_t
llm_tap_append(llm_tap_t *tap, llm_tap_path_t *path, const u_char *p)
{
    size_t          len, size;
    u_char         *data;
    llm_tap_buf_t  *buf;

    buf = &path->next;
    len = p - path->run;

    if (path->overflow || len > tap->max - buf->len) {
        path->overflow = 1;
        return LLM_OK;
    }

    if (len > buf->size - buf->len) {
        size = (buf->size < LLM_TAP_BUF_MIN) ? LLM_TAP_BUF_MIN
                                             : buf->size * 2;

        if (size < buf->len + len) {
            size = buf->len + len;
        }

        if (size > tap->max) {
            size = tap->max;
        }

        data = tap->mem.alloc(tap->mem.ctx, size);

        if (data == NULL) {
            llm_tap_stop(tap);
            tap->failed = 1;
            return LLM_ERROR;
        }

        if (buf->len) {
            memcpy(data, buf->data, buf->len);
        }

        if (buf->data && tap->mem.free) {
            tap->mem.free(tap->mem.ctx, buf->data);
        }

        buf->data = data;
        buf->size = size;
    }

    if (len) {
        memcpy(buf->data + buf->len, path->run, len);
        buf->len += len;
    }

    return LLM_OK;
}


void
llm_tap_value(llm_tap_t *tap, llm_uint_t i, llm_json_value_t *value)
{
    llm_tap_path_t  *path;

    path = &tap->path[i];
    *value = path->value;

    value->raw.len = 0;
    value->raw.data = NULL;

    if (value->type != LLM_JSON_ABSENT) {
        value->raw.len = path->kept.len;
        value->raw.data = path->kept.data;
    }
}


llm_uint_t
llm_tap_done(const llm_tap_t *tap)
{
    return tap->done;
}


void
llm_tap_free(llm_tap_t *tap)
{
    llm_uint_t  i;

    if (tap->mem.free == NULL) {
        return;
    }

    for (i = 0; i < tap->n; i++) {

        if (tap->path[i].kept.data) {
            tap->mem.free(tap->mem.ctx, tap->path[i].kept.data);
        }

        if (tap->path[i].next.data) {
            tap->mem.free(tap->mem.ctx, tap->path[i].next.data);
        }
    }

    tap->mem.free(tap->mem.ctx, tap);
}
