
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
 * The text is taken for valid.  One that is not comes out as it is, or as
 * nonsense of no more bytes.
 */


#include <string.h>

#include "llm_dialect.h"
#include "llm_scan.h"


#define LLM_CANONICAL_SMALL   64       /* items that need no memory */
#define LLM_CANONICAL_TEXT    4096     /* bytes of a text, the same */
#define LLM_CANONICAL_INSERT  12       /* so few are sorted by insertion */


typedef struct {
    uint64_t               key;        /* first 8 bytes of its name, which
                                          decide nearly always */
    uint32_t               name;       /* in the source, behind the quote */
    uint32_t               len:31;     /* as written */
    uint32_t               escaped:1;
    uint32_t               start;      /* in the text without whitespace: of */
    uint32_t               end;        /* its name and behind its value */
    uint32_t               first;      /* objects in its value */
    uint32_t               last;
} llm_canonical_member_t;


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
    const u_char          *src;        /* behind leading whitespace */
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
    unsigned               skipped:1;  /* the last top-level member */
    unsigned               failed:1;   /* no memory */
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
static void llm_canonical_member_end(llm_canonical_t *c, const u_char *p,
    llm_uint_t top);
static llm_int_t llm_canonical_close(llm_canonical_t *c,
    llm_canonical_frame_t *f, const u_char *p);
static const u_char *llm_canonical_scalar(const u_char *p,
    const u_char *last);
static inline const u_char *llm_canonical_loose(const u_char *p,
    const u_char *last);
static inline const u_char *llm_canonical_string(llm_canonical_t *c,
    const u_char *p);
static const u_char *llm_canonical_string_rest(llm_canonical_t *c,
    const u_char *p) __attribute__((noinline));
static inline const u_char *llm_canonical_gap(llm_canonical_t *c,
    const u_char *p);
static void llm_canonical_cut(llm_canonical_t *c, const u_char *p,
    const u_char *next);
static void *llm_canonical_push(llm_canonical_t *c, llm_canonical_array_t *a,
    size_t item, size_t n);
static void llm_canonical_free(llm_canonical_t *c);

static u_char *llm_canonical_emit(const llm_canonical_t *c, u_char *dst,
    const llm_canonical_member_t *m);
static inline u_char *llm_canonical_copy(const llm_canonical_t *c,
    u_char *dst, size_t pos, size_t end);

static void llm_canonical_sort(const llm_canonical_t *c,
    llm_canonical_member_t *m, llm_canonical_member_t *tmp, size_t n);
static void llm_canonical_insert(const llm_canonical_t *c,
    llm_canonical_member_t *m, size_t n);
static inline uint64_t llm_canonical_key(const llm_canonical_t *c,
    const llm_canonical_member_t *m);
static inline llm_int_t llm_canonical_compare(const llm_canonical_t *c,
    const llm_canonical_member_t *a, const llm_canonical_member_t *b);
static llm_int_t llm_canonical_compare_names(const llm_canonical_t *c,
    const llm_canonical_member_t *a, const llm_canonical_member_t *b);
static size_t llm_canonical_unescape(const u_char **p, const u_char *last,
    u_char *dst);


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

    if (p && llm_scan_token(p, c->last) != c->last) {
        p = NULL;
    }

    if (c->failed) {
        return LLM_ERROR;
    }

    if (p == NULL) {
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
    llm_uint_t              depth;
    const u_char           *p, *start;
    llm_canonical_frame_t  *f, frames[LLM_JSON_DEPTH_MAX + 1];

    p = c->src;
    depth = 0;
    f = frames;
    f->close = '\0';

    for ( ;; ) {

        if (f->close == '}') {
            p = llm_canonical_name(c, f, p, depth == 1);

            if (p == NULL) {
                return NULL;
            }
        }

        if (p == c->last) {
            return NULL;
        }

        if (*p == '{' || *p == '[') {

            if (depth++ == LLM_JSON_DEPTH_MAX) {
                return NULL;
            }

            p = llm_canonical_open(c, ++f, p);

            if (p == NULL) {
                return NULL;
            }

            if (p == c->last || *p != f->close) {
                continue;
            }

        } else if (*p == '"') {
            p = llm_canonical_string(c, p + 1);

            if (p == NULL) {
                return NULL;
            }

            if (f->close == '}') {
                p = llm_canonical_gap(c, p);
                llm_canonical_member_end(c, p, depth == 1);
            }

        } else if (f->close == ']') {
            start = p;
            p = llm_canonical_gap(c, llm_canonical_loose(p, c->last));

            if (p == start) {
                return NULL;
            }

            if (p == c->last || (*p != ',' && *p != ']')) {

                /* numbers and words were passed over with their commas */

                continue;
            }

        } else {
            start = p;
            p = llm_canonical_scalar(p, c->last);

            if (p == start) {
                return NULL;
            }

            if (f->close == '}') {
                p = llm_canonical_gap(c, p);
                llm_canonical_member_end(c, p, depth == 1);
            }
        }

        /* behind a value, or at the end of an empty container */

        for ( ;; ) {

            if (depth == 0) {
                return p;
            }

            p = llm_canonical_gap(c, p);

            if (p == c->last || *p != f->close) {
                break;
            }

            if (*p == '}' && llm_canonical_close(c, f, p) != LLM_OK) {
                return NULL;
            }

            p++;
            f--;

            if (--depth && f->close == '}') {
                p = llm_canonical_gap(c, p);
                llm_canonical_member_end(c, p, depth == 1);
            }
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
    m->key = llm_canonical_key(c, m);
    m->first = c->objects.n;

    if (top && c->skip) {
        c->skipped = llm_canonical_skips(c, name, m->len);
    }

    if (f->sorted && c->open.n - f->base > 1
        && llm_canonical_compare(c, m - 1, m) > 0)
    {
        f->sorted = 0;
    }

    p = llm_canonical_gap(c, p);

    if (p == c->last || *p != ':') {
        return NULL;
    }

    p = llm_canonical_gap(c, p + 1);

    if (top && c->skipped) {
        f->sorted = 0;
    }

    return p;
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
    llm_canonical_sort(c, to, from, n);

    return LLM_OK;
}


static const u_char *
llm_canonical_scalar(const u_char *p, const u_char *last)
{
    while (p < last && *p > ' ' && *p != ',' && *p != ']' && *p != '}') {
        p++;
    }

    return p;
}


/* in an array: what is not of a number, a word or a comma */

static inline const u_char *
llm_canonical_loose(const u_char *p, const u_char *last)
{
    u_char   ch;
#if (LLM_SSE2)
    int      mask;
    __m128i  v, low, odd;

    while (last - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);

        low = _mm_or_si128(v, _mm_set1_epi8(0x20));
        odd = _mm_or_si128(llm_eq(low, '{'), llm_eq(low, '}'));
        odd = _mm_or_si128(odd, llm_eq(v, '"'));
        odd = _mm_or_si128(odd, _mm_cmplt_epi8(v, _mm_set1_epi8('!')));
        mask = _mm_movemask_epi8(odd);

        if (mask) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    for ( /* void */ ; p < last; p++) {
        ch = *p | 0x20;

        if (ch == '{' || ch == '}' || *p == '"' || *p <= ' ' || *p >= 0x80) {
            break;
        }
    }

    return p;
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


static void
llm_canonical_sort(const llm_canonical_t *c, llm_canonical_member_t *m,
    llm_canonical_member_t *tmp, size_t n)
{
    size_t                   half;
    llm_canonical_member_t  *left, *right, *left_last, *right_last;

    if (n <= LLM_CANONICAL_INSERT) {
        llm_canonical_insert(c, m, n);
        return;
    }

    half = n / 2;

    llm_canonical_sort(c, m, tmp, half);
    llm_canonical_sort(c, m + half, tmp, n - half);

    right = m + half;
    right_last = m + n;

    if (llm_canonical_compare(c, right - 1, right) <= 0) {
        return;
    }

    memcpy(tmp, m, half * sizeof(llm_canonical_member_t));

    left = tmp;
    left_last = tmp + half;

    while (left < left_last && right < right_last) {
        *m++ = (llm_canonical_compare(c, left, right) <= 0) ? *left++
                                                            : *right++;
    }

    /* those left of the right half are in their places */

    memcpy(m, left, (u_char *) left_last - (u_char *) left);
}


static void
llm_canonical_insert(const llm_canonical_t *c, llm_canonical_member_t *m,
    size_t n)
{
    size_t                  i, k;
    llm_canonical_member_t  member;

    for (i = 1; i < n; i++) {

        if (llm_canonical_compare(c, &m[i - 1], &m[i]) <= 0) {
            continue;
        }

        member = m[i];

        for (k = i; k && llm_canonical_compare(c, &m[k - 1], &member) > 0;
             k--)
        {
            m[k] = m[k - 1];
        }

        m[k] = member;
    }
}


/* filled up with zeros, which no name has in it unless it is escaped */

static inline uint64_t
llm_canonical_key(const llm_canonical_t *c, const llm_canonical_member_t *m)
{
    size_t         n;
    u_char         buf[8 + 12];
    uint64_t       key;
    const u_char  *p, *last;

    p = c->src + m->name;

    if (!m->escaped && m->len >= 8) {
        memcpy(&key, p, 8);
        return __builtin_bswap64(key);
    }

    memset(buf, 0, 8);

    if (!m->escaped) {

        if (c->last - p >= 8) {
            memcpy(&key, p, 8);
            key = __builtin_bswap64(key);
            return m->len ? key >> (64 - 8 * m->len) << (64 - 8 * m->len) : 0;
        }

        memcpy(buf, p, m->len);

    } else {
        last = p + m->len;

        for (n = 0; n < 8 && p < last; /* void */ ) {
            n += llm_canonical_unescape(&p, last, buf + n);
        }

        if (n < 8) {
            memset(buf + n, 0, 8 - n);
        }
    }

    memcpy(&key, buf, 8);

    return __builtin_bswap64(key);
}


static inline llm_int_t
llm_canonical_compare(const llm_canonical_t *c,
    const llm_canonical_member_t *a, const llm_canonical_member_t *b)
{
    if (a->key != b->key) {
        return (a->key < b->key) ? -1 : 1;
    }

    return llm_canonical_compare_names(c, a, b);
}


/* names that say the same, escaped or not, are equal */

static llm_int_t
llm_canonical_compare_names(const llm_canonical_t *c,
    const llm_canonical_member_t *a, const llm_canonical_member_t *b)
{
    int            rc;
    u_char         abuf[12], bbuf[12], *ap, *bp;
    size_t         an, bn;
    const u_char  *apos, *alast, *bpos, *blast;

    apos = c->src + a->name;
    bpos = c->src + b->name;

    if (!a->escaped && !b->escaped) {
        rc = memcmp(apos, bpos, a->len < b->len ? a->len : b->len);

        return rc ? rc : (llm_int_t) a->len - (llm_int_t) b->len;
    }

    an = 0;
    bn = 0;
    ap = abuf;
    bp = bbuf;
    alast = apos + a->len;
    blast = bpos + b->len;

    for ( ;; ) {

        if (an == 0 && apos < alast) {
            ap = abuf;
            an = llm_canonical_unescape(&apos, alast, abuf);
        }

        if (bn == 0 && bpos < blast) {
            bp = bbuf;
            bn = llm_canonical_unescape(&bpos, blast, bbuf);
        }

        if (an == 0 || bn == 0) {
            return (llm_int_t) an - (llm_int_t) bn;
        }

        if (*ap != *bp) {
            return (*ap < *bp) ? -1 : 1;
        }

        ap++;
        bp++;
        an--;
        bn--;
    }
}


/* the next byte or escape of a name: 1 to 12 bytes, of which at least one */

static size_t
llm_canonical_unescape(const u_char **p, const u_char *last, u_char *dst)
{
    size_t            n;
    const u_char     *s;
    llm_json_value_t  v;

    s = *p;
    n = 1;

    if (*s == '\\' && last - s >= 2) {
        n = 2;

        if (s[1] == 'u' && last - s >= 6) {
            n = 6;

            if ((s[2] | 0x20) == 'd' && strchr("89abAB", s[3])
                && last - s >= 12 && s[6] == '\\' && s[7] == 'u'
                && (s[8] | 0x20) == 'd' && strchr("cdefCDEF", s[9]))
            {
                n = 12;
            }
        }
    }

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw.data = (u_char *) s - 1;
    v.raw.len = n + 2;
    v.type = LLM_JSON_STRING;
    v.escaped = 1;

    *p = s + n;

    return llm_json_unescape(dst, &v);
}
