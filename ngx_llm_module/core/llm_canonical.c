
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The canonical form of a JSON text, which a cache's key is made of.
 *
 * Clients seldom write members in sorted order, and bodies are long strings
 * in small objects.  So the text is read once: of an object that is not
 * sorted its members are noted, by their place in the text without
 * whitespace, and what they are is copied only when all is known, each byte
 * once, however deep it stands.  That text is the given one if it has no
 * whitespace in it, else it is made on the way.
 *
 * Time is linear but for the sorting of members, n log n.  Memory is a copy of
 * a text with whitespace in it, and about 100 bytes for each member of what is
 * not sorted: none for a small request.
 *
 * The text is taken for valid.  One that is not comes out as it is, or as
 * nonsense of no more bytes.
 */


#include <string.h>

#include "llm_canonical.h"
#include "llm_scan.h"


#define LLM_CANONICAL_MANY   65536     /* objects, members: sorting more takes
                                          longer than a caller can wait */
#define LLM_CANONICAL_SMALL   64       /* items that need no memory */
#define LLM_CANONICAL_TEXT    4096     /* bytes of a text, the same */


/* an object; in the order of their opening brackets */

typedef struct {
    uint32_t               start;      /* behind its opening bracket */
    uint32_t               end;        /* at its closing bracket */
    uint32_t               members;    /* sorted */
    uint32_t               n;
    uint32_t               next;       /* object that is not within it */
} llm_canonical_object_t;


typedef struct {
    void                  *data;
    size_t                 n;
    size_t                 size;       /* of items */
    unsigned               owned:1;    /* data is from mem */
} llm_canonical_array_t;


/* an open container */

typedef struct {
    uint32_t               object;
    uint32_t               base;       /* its first member in open */
    u_char                 close;
    u_char                 sorted;
} llm_canonical_frame_t;


typedef struct {
    const llm_mem_t       *mem;
    const llm_str_t       *skip;
    const u_char          *src;        /* without the whitespace around */
    const u_char          *last;

    u_char                *text;       /* without whitespace */
    size_t                 size;       /* of its memory */
    size_t                 len;
    const u_char          *from;       /* source that is not in text yet */
    size_t                 removed;    /* whitespace so far */

    u_char                *dst_last;

    llm_canonical_array_t  objects;
    llm_canonical_array_t  members;    /* of objects that are closed */
    llm_canonical_array_t  open;       /* of those that are not */

    u_char                *small;      /* LLM_CANONICAL_TEXT */

    unsigned               owned:1;    /* text is from mem */
    unsigned               escaped:1;  /* the last string has a backslash */
    unsigned               skipped:1;  /* the top-level member being read */
    unsigned               failed:1;   /* no memory, or too many members */
    unsigned               many:1;
} llm_canonical_t;


static llm_int_t llm_canonical_write(llm_canonical_t *c, u_char *dst,
    size_t *len);
static const u_char *llm_canonical_read(llm_canonical_t *c);
static const u_char *llm_canonical_open(llm_canonical_t *c,
    llm_canonical_frame_t *f, const u_char *p);
static const u_char *llm_canonical_name(llm_canonical_t *c,
    llm_canonical_frame_t *f, const u_char *p, llm_uint_t top);
static llm_uint_t llm_canonical_skips(const llm_canonical_t *c,
    const u_char *name, size_t len);
static inline void llm_canonical_member_end(llm_canonical_t *c,
    const u_char *p, llm_uint_t top);
static llm_int_t llm_canonical_close(llm_canonical_t *c,
    llm_canonical_frame_t *f, const u_char *p);
static inline const u_char *llm_canonical_scalar(llm_canonical_t *c,
    const llm_canonical_frame_t *f, const u_char *p);
static inline const u_char *llm_canonical_string(llm_canonical_t *c,
    const u_char *p);
static const u_char *llm_canonical_string_rest(llm_canonical_t *c,
    const u_char *p) __attribute__((noinline));
static inline const u_char *llm_canonical_gap(llm_canonical_t *c,
    const u_char *p);
static void llm_canonical_cut(llm_canonical_t *c, const u_char *p,
    const u_char *next);
static inline void *llm_canonical_push(llm_canonical_t *c,
    llm_canonical_array_t *a, size_t item, size_t n);
static void llm_canonical_free(llm_canonical_t *c);

static u_char *llm_canonical_emit(const llm_canonical_t *c, u_char *dst,
    const llm_canonical_member_t *m);
static inline u_char *llm_canonical_copy(const llm_canonical_t *c,
    u_char *dst, size_t pos, size_t end);


#define llm_canonical_item(array, type, i)  (&((type *) (array).data)[i])

/* a place of the source in the text without whitespace */

#define llm_canonical_offset(c, p)                                            \
    ((uint32_t) ((size_t) ((p) - (c)->src) - (c)->removed))


llm_int_t
llm_canonical(const llm_str_t *json, const llm_str_t *skip,
    const llm_mem_t *mem, u_char *dst, size_t *len)
{
    u_char                  text[LLM_CANONICAL_TEXT];
    llm_int_t               rc;
    llm_canonical_t         c;
    llm_canonical_member_t  open[LLM_CANONICAL_SMALL];
    llm_canonical_member_t  members[LLM_CANONICAL_SMALL];
    llm_canonical_object_t  objects[LLM_CANONICAL_SMALL];

    *len = 0;

    if (json->len == 0) {
        return LLM_OK;
    }

    if (json->len > INT32_MAX) {
        return LLM_ERROR;
    }

    memset(&c, 0, sizeof(llm_canonical_t));

    c.mem = mem;
    c.skip = (skip && skip->len) ? skip : NULL;
    c.last = json->data + json->len;
    c.src = llm_scan_token(json->data, c.last);
    c.from = c.src;

    while (c.last > c.src && (c.last[-1] == '\n' || c.last[-1] == ' '
                              || c.last[-1] == '\r' || c.last[-1] == '\t'))
    {
        c.last--;
    }

    c.dst_last = dst + json->len;
    c.small = text;

    c.objects.data = objects;
    c.objects.size = LLM_CANONICAL_SMALL;
    c.members.data = members;
    c.members.size = LLM_CANONICAL_SMALL;
    c.open.data = open;
    c.open.size = LLM_CANONICAL_SMALL;

    rc = llm_canonical_write(&c, dst, len);

    if (rc == LLM_DECLINED) {
        memcpy(dst, json->data, json->len);
        *len = json->len;
        rc = LLM_OK;

    } else if (rc == LLM_ERROR && c.many) {
        rc = LLM_DECLINED;
    }

    llm_canonical_free(&c);

    return rc;
}


/* LLM_DECLINED: it is not valid */

static llm_int_t
llm_canonical_write(llm_canonical_t *c, u_char *dst, size_t *len)
{
    const u_char            *p;
    llm_canonical_member_t   all;

    p = llm_canonical_read(c);

    if (c->failed) {
        return LLM_ERROR;
    }

    if (p != c->last) {
        return LLM_DECLINED;
    }

    if (c->removed) {
        llm_canonical_cut(c, p, p);

    } else {
        c->text = (u_char *) c->src;
        c->len = p - c->src;
        c->size = c->len;
    }

    all.start = 0;
    all.end = c->len;
    all.first = 0;
    all.last = c->objects.n;

    *len = llm_canonical_emit(c, dst, &all) - dst;

    return LLM_OK;
}


/* behind the value, NULL: the text is not valid, or no memory */

static const u_char *
llm_canonical_read(llm_canonical_t *c)
{
    const u_char           *p;
    llm_canonical_frame_t  *f, frames[LLM_JSON_DEPTH_MAX + 1];

    p = c->src;
    f = frames;
    f->close = '\0';

    for ( ;; ) {

        if (f->close == '}') {
            p = llm_canonical_name(c, f, p, f == &frames[1]);
        }

        if (p == NULL || p == c->last) {
            return NULL;
        }

        if (*p == '{' || *p == '[') {

            if (f == &frames[LLM_JSON_DEPTH_MAX]) {
                return NULL;
            }

            p = llm_canonical_open(c, ++f, p);

            if (p && (p == c->last || *p != f->close)) {
                continue;
            }

        } else {
            p = llm_canonical_scalar(c, f, p);

            if (p && p < c->last && f->close == ']'
                && *p != ',' && *p != ']')
            {

                /* numbers and words were passed over with their commas */

                continue;
            }

            if (p && f->close == '}') {
                llm_canonical_member_end(c, p, f == &frames[1]);
            }
        }

        /* behind a value, or at the end of an empty container */

        while (p && f > frames && p < c->last && *p == f->close) {

            if (*p == '}' && llm_canonical_close(c, f, p) != LLM_OK) {
                return NULL;
            }

            f--;
            p = llm_canonical_gap(c, p + 1);

            if (f->close == '}') {
                llm_canonical_member_end(c, p, f == &frames[1]);
            }
        }

        if (p == NULL || f == frames) {
            return p;
        }

        if (p == c->last || *p != ',') {
            return NULL;
        }

        p = llm_canonical_gap(c, p + 1);
    }
}


static const u_char *
llm_canonical_open(llm_canonical_t *c, llm_canonical_frame_t *f,
    const u_char *p)
{
    llm_canonical_object_t  *object;

    f->close = *p + 2;

    if (*p++ == '[') {
        return llm_canonical_gap(c, p);
    }

    f->sorted = 1;
    f->base = c->open.n;
    f->object = c->objects.n;

    object = llm_canonical_push(c, &c->objects,
                                sizeof(llm_canonical_object_t), 1);
    if (object == NULL) {
        return NULL;
    }

    object->start = llm_canonical_offset(c, p);

    return llm_canonical_gap(c, p);
}


/* a name and its colon; at the value on return */

static const u_char *
llm_canonical_name(llm_canonical_t *c, llm_canonical_frame_t *f,
    const u_char *p, llm_uint_t top)
{
    const u_char            *name;
    llm_canonical_member_t  *m;

    if (p == c->last || *p != '"') {
        return NULL;
    }

    m = llm_canonical_push(c, &c->open, sizeof(llm_canonical_member_t), 1);
    if (m == NULL) {
        return NULL;
    }

    m->start = llm_canonical_offset(c, p);
    name = p + 1;

    c->escaped = 0;
    p = llm_canonical_string(c, name);

    if (p == NULL) {
        return NULL;
    }

    m->name = name - c->src;
    m->len = p - 1 - name;
    m->escaped = c->escaped;
    m->key = llm_canonical_key(m, c->src, c->last);
    m->first = c->objects.n;

    if (top && c->skip && llm_canonical_skips(c, name, m->len)) {
        c->skipped = 1;
        f->sorted = 0;
    }

    if (f->sorted && c->open.n - f->base > 1
        && llm_canonical_compare(m - 1, m, c->src) > 0)
    {
        f->sorted = 0;
    }

    p = llm_canonical_gap(c, p);

    if (p == c->last || *p != ':') {
        return NULL;
    }

    return llm_canonical_gap(c, p + 1);
}


static llm_uint_t
llm_canonical_skips(const llm_canonical_t *c, const u_char *name, size_t len)
{
    const llm_str_t   *skip;
    llm_json_value_t   v;

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw.data = (u_char *) name - 1;
    v.raw.len = len + 2;
    v.type = LLM_JSON_STRING;
    v.escaped = c->escaped;

    for (skip = c->skip; skip->len; skip++) {

        if ((v.escaped || len == skip->len)
            && llm_json_is(&v, (const char *) skip->data, skip->len))
        {
            return 1;
        }
    }

    return 0;
}


static inline void
llm_canonical_member_end(llm_canonical_t *c, const u_char *p, llm_uint_t top)
{
    llm_canonical_member_t  *m;

    m = llm_canonical_item(c->open, llm_canonical_member_t, c->open.n - 1);

    if (top && c->skipped) {
        c->skipped = 0;
        c->objects.n = m->first;
        c->open.n--;
        return;
    }

    m->end = llm_canonical_offset(c, p);
    m->last = c->objects.n;
}


static llm_int_t
llm_canonical_close(llm_canonical_t *c, llm_canonical_frame_t *f,
    const u_char *p)
{
    size_t                   n;
    llm_canonical_object_t  *object;
    llm_canonical_member_t  *from, *to;

    n = c->open.n - f->base;
    c->open.n = f->base;

    object = llm_canonical_item(c->objects, llm_canonical_object_t,
                                f->object);

    if (f->sorted) {

        if (c->objects.n == f->object + 1) {
            c->objects.n--;
        }

        /* nothing is written for it, but those within it have their turn */

        object->end = object->start;
        object->n = 0;
        object->next = f->object + 1;

        return LLM_OK;
    }

    object->end = llm_canonical_offset(c, p);
    object->members = c->members.n;
    object->n = n;
    object->next = c->objects.n;

    if (n == 0) {
        return LLM_OK;
    }

    to = llm_canonical_push(c, &c->members, sizeof(llm_canonical_member_t),
                            n);
    if (to == NULL) {
        return LLM_ERROR;
    }

    from = llm_canonical_item(c->open, llm_canonical_member_t, f->base);

    memcpy(to, from, n * sizeof(llm_canonical_member_t));
    llm_canonical_sort(to, from, n, c->src);

    return LLM_OK;
}


/* NULL: there is none, or its string does not end */

static inline const u_char *
llm_canonical_scalar(llm_canonical_t *c, const llm_canonical_frame_t *f,
    const u_char *p)
{
    const u_char  *start;

    if (*p == '"') {
        p = llm_canonical_string(c, p + 1);

        return p ? llm_canonical_gap(c, p) : NULL;
    }

    start = p;

    if (f->close == ']') {
        p = llm_scan_list(p, c->last);

    } else {
        while (p < c->last && *p > ' ' && *p != ',' && *p != ']'
               && *p != '}')
        {
            p++;
        }
    }

    return (p == start) ? NULL : llm_canonical_gap(c, p);
}


/* p is behind the opening quote; behind the closing one on return */

static inline const u_char *
llm_canonical_string(llm_canonical_t *c, const u_char *p)
{
    const u_char  *near;

    /* what is longer is for the larger blocks */

    near = (c->last - p > 64) ? p + 64 : c->last;
    p = llm_scan_quote(p, near);

    return (p < near && *p == '"') ? p + 1 : llm_canonical_string_rest(c, p);
}


static const u_char *
llm_canonical_string_rest(llm_canonical_t *c, const u_char *p)
{
#if (LLM_SSE2)

    int       i;
    __m128i   v, any, slash[4], quote[4];
    uint64_t  escapes, quotes, within;

    within = 0;

    while (c->last - p >= 64) {
        any = _mm_setzero_si128();

#pragma GCC unroll 4
        for (i = 0; i < 4; i++) {
            v = _mm_loadu_si128((const __m128i *) (p + 16 * i));

            slash[i] = llm_eq(v, '\\');
            quote[i] = llm_eq(v, '"');
            any = _mm_or_si128(any, _mm_or_si128(slash[i], quote[i]));
        }

        if (_mm_movemask_epi8(any) == 0) {
            p += 64;
            within = 0;
            continue;
        }

        /* within: the first byte belongs to the backslash before it */

        escapes = llm_scan_escapes(llm_bits(slash) & ~within);
        quotes = llm_bits(quote) & ~(escapes << 1 | within);

        if (escapes & (quotes - 1) & ~quotes) {
            c->escaped = 1;
        }

        if (quotes) {
            return p + __builtin_ctzll(quotes) + 1;
        }

        p += 64;
        within = escapes >> 63;
    }

    if (within) {

        if (p == c->last) {
            return NULL;
        }

        p++;
    }

#endif

    for ( ;; ) {
        p = llm_scan_quote(p, c->last);

        if (p == c->last) {
            return NULL;
        }

        if (*p == '"') {
            return p + 1;
        }

        if (c->last - p < 2) {
            return NULL;
        }

        c->escaped = 1;
        p += 2;
    }
}


/* behind the whitespace at p, of which the text is rid */

static inline const u_char *
llm_canonical_gap(llm_canonical_t *c, const u_char *p)
{
    const u_char  *next;

    if (p < c->last && *p > ' ') {
        return p;
    }

    next = llm_scan_token(p, c->last);

    if (next != p) {
        llm_canonical_cut(c, p, next);
    }

    return next;
}


/* a lack of memory is told at the end: places are right without the text */

static void
llm_canonical_cut(llm_canonical_t *c, const u_char *p, const u_char *next)
{
    size_t  n;

    if (c->text == NULL && !c->failed) {
        c->size = c->last - c->src;

        if (c->size <= LLM_CANONICAL_TEXT) {
            c->text = c->small;

        } else {
            c->text = c->mem->alloc(c->mem->ctx, c->size);
            c->owned = (c->text != NULL);
            c->failed = (c->text == NULL);
        }
    }

    n = p - c->from;

    if (c->text == NULL) {
        c->len += n;

    } else if (n <= 16 && c->last - c->from >= 16) {

        /* len is never more than the place of from */

        memcpy(c->text + c->len, c->from, 16);
        c->len += n;

    } else {
        memcpy(c->text + c->len, c->from, n);
        c->len += n;
    }

    c->removed += next - p;
    c->from = next;
}


/* room for n more items, the first one; NULL: no memory */

static inline void *
llm_canonical_push(llm_canonical_t *c, llm_canonical_array_t *a, size_t item,
    size_t n)
{
    void    *data;
    size_t   size;

    if (n > LLM_CANONICAL_MANY - a->n) {
        c->failed = 1;
        c->many = 1;
        return NULL;
    }

    if (n > a->size - a->n) {
        size = (a->size + n) * 2;
        data = c->mem->alloc(c->mem->ctx, size * item);

        if (data == NULL) {
            c->failed = 1;
            return NULL;
        }

        memcpy(data, a->data, a->n * item);

        if (a->owned && c->mem->free) {
            c->mem->free(c->mem->ctx, a->data);
        }

        a->data = data;
        a->size = size;
        a->owned = 1;
    }

    data = (u_char *) a->data + a->n * item;
    a->n += n;

    return data;
}


static void
llm_canonical_free(llm_canonical_t *c)
{
    if (c->mem->free == NULL) {
        return;
    }

    if (c->objects.owned) {
        c->mem->free(c->mem->ctx, c->objects.data);
    }

    if (c->members.owned) {
        c->mem->free(c->mem->ctx, c->members.data);
    }

    if (c->open.owned) {
        c->mem->free(c->mem->ctx, c->open.data);
    }

    if (c->owned) {
        c->mem->free(c->mem->ctx, c->text);
    }
}


/* goes as deep as objects that are not sorted are nested */

static u_char *
llm_canonical_emit(const llm_canonical_t *c, u_char *dst,
    const llm_canonical_member_t *m)
{
    size_t                         pos;
    uint32_t                       i, k;
    const llm_canonical_object_t  *object;
    const llm_canonical_member_t  *member;

    pos = m->start;

    for (i = m->first; i < m->last; i = object->next) {
        object = llm_canonical_item(c->objects, llm_canonical_object_t, i);

        if (object->end == object->start) {
            continue;
        }

        dst = llm_canonical_copy(c, dst, pos, object->start);
        member = llm_canonical_item(c->members, llm_canonical_member_t,
                                    object->members);

        for (k = 0; k < object->n; k++, member++) {

            if (k) {
                *dst++ = ',';
            }

            if (member->first == member->last) {
                dst = llm_canonical_copy(c, dst, member->start, member->end);

            } else {
                dst = llm_canonical_emit(c, dst, member);
            }
        }

        pos = object->end;
    }

    return llm_canonical_copy(c, dst, pos, m->end);
}


static inline u_char *
llm_canonical_copy(const llm_canonical_t *c, u_char *dst, size_t pos,
    size_t end)
{
    size_t  n;

    n = end - pos;

    if (n <= 32 && c->size - pos >= 32 && c->dst_last - dst >= 32) {

        /* what is too much is written over, or within the room of dst */

        memcpy(dst, c->text + pos, 32);

    } else {
        memcpy(dst, c->text + pos, n);
    }

    return dst + n;
}
