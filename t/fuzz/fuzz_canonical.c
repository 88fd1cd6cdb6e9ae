
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The canonical form: of any bytes it stays within its room; of a valid text
 * it is what jansson takes for the same, sorted, its own canonical form, and
 * that of the text with its members shuffled and blanks put in.  Without some
 * members it is that of the text without them.
 *
 * Memory is none, or fails at a call that the text chooses.
 */


#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "llm.h"
#include "mem.h"


typedef struct {
    llm_str_t              name;       /* raw, without quotes */
    llm_str_t              said;       /* unescaped */
    llm_json_value_t       value;
} member_t;


typedef struct {
    uint64_t               random;
    u_char                *pos;
    unsigned               shuffle:1;  /* and blanks */
    const llm_str_t       *skip;       /* for the top */
} writer_t;


static const llm_str_t  skip[] = {
    llm_string("a"), llm_string("stream"), llm_string("\xc3\xa9"),
    llm_null_string
};


static uint64_t
next(writer_t *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;

    return w->random;
}


static llm_str_t
copy(const u_char *data, size_t len)
{
    llm_str_t  s;

    s.len = len;
    s.data = malloc(len);
    check(s.data != NULL || len == 0);

    if (len) {
        memcpy(s.data, data, len);
    }

    return s;
}


/* LLM_ERROR where memory failed, and *out is empty */

static llm_int_t
canonical(const llm_str_t *text, const llm_str_t *names, size_t fail,
    llm_str_t *out)
{
    llm_int_t   rc;
    fuzz_mem_t  m;

    memset(&m, 0, sizeof(fuzz_mem_t));

    m.mem.alloc = fuzz_alloc;
    m.mem.free = fuzz_free;
    m.mem.ctx = &m;
    m.fail = fail;

    out->data = malloc(text->len);
    rc = llm_canonical(text, names, &m.mem, out->data, &out->len);

    check(m.live == 0);
    check(rc == LLM_OK || (rc == LLM_ERROR && fail && m.calls >= fail));
    check(out->len <= text->len);

    return rc;
}


static int
equal(const llm_str_t *a, const llm_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}


static void
member_read(member_t *m)
{
    llm_json_value_t  v;

    memset(&v, 0, sizeof(llm_json_value_t));

    v.type = LLM_JSON_STRING;
    v.escaped = 1;
    v.raw.data = m->name.data - 1;
    v.raw.len = m->name.len + 2;

    m->said.data = malloc(v.raw.len);
    m->said.len = llm_json_unescape(m->said.data, &v);
}


static member_t *
members(const llm_str_t *object, size_t *n)
{
    u_char    *pos;
    size_t     size;
    member_t  *m;

    *n = 0;
    size = 8;
    pos = NULL;
    m = malloc(size * sizeof(member_t));

    while (llm_json_next(object, &pos, &m[*n].name, &m[*n].value) == LLM_OK) {
        member_read(&m[*n]);

        if (++*n == size) {
            size *= 2;
            m = realloc(m, size * sizeof(member_t));
        }
    }

    return m;
}


static void
members_free(member_t *m, size_t n)
{
    while (n) {
        free(m[--n].said.data);
    }

    free(m);
}


/* neighbours change places, but not those that say the same */

static void
members_shuffle(writer_t *w, member_t *m, size_t n)
{
    size_t    i, k;
    member_t  t;

    for (i = 0; n > 1 && i < n * 4; i++) {
        k = next(w) % (n - 1);

        if (!equal(&m[k].said, &m[k + 1].said)) {
            t = m[k];
            m[k] = m[k + 1];
            m[k + 1] = t;
        }
    }
}


static void
blank(writer_t *w)
{
    static const u_char  blanks[] = " \t\r\n";

    if (w->shuffle && next(w) % 4 == 0) {
        *w->pos++ = blanks[next(w) % 4];
    }
}


static void
put(writer_t *w, const u_char *data, size_t len)
{
    if (len) {
        memcpy(w->pos, data, len);
        w->pos += len;
    }
}


static int
skipped(const writer_t *w, const member_t *m)
{
    const llm_str_t  *name;

    for (name = w->skip; name && name->len; name++) {
        if (equal(name, &m->said)) {
            return 1;
        }
    }

    return 0;
}


static void write_value(writer_t *w, const llm_json_value_t *v);


static void
write_object(writer_t *w, const llm_json_value_t *v)
{
    int         comma;
    size_t      i, n;
    member_t   *m;
    writer_t    top;

    m = members(&v->raw, &n);

    if (w->shuffle) {
        members_shuffle(w, m, n);
    }

    top = *w;
    w->skip = NULL;
    comma = 0;

    for (i = 0; i < n; i++) {

        if (skipped(&top, &m[i])) {
            continue;
        }

        if (comma) {
            put(w, (u_char *) ",", 1);
            blank(w);
        }

        comma = 1;

        put(w, m[i].name.data - 1, m[i].name.len + 2);
        blank(w);
        put(w, (u_char *) ":", 1);
        blank(w);
        write_value(w, &m[i].value);
        blank(w);
    }

    members_free(m, n);
}


static void
write_array(writer_t *w, const llm_json_value_t *v)
{
    int                comma;
    u_char            *pos;
    llm_json_value_t   item;

    w->skip = NULL;
    comma = 0;
    pos = NULL;

    while (llm_json_next(&v->raw, &pos, NULL, &item) == LLM_OK) {

        if (comma) {
            put(w, (u_char *) ",", 1);
            blank(w);
        }

        comma = 1;

        write_value(w, &item);
        blank(w);
    }
}


static void
write_value(writer_t *w, const llm_json_value_t *v)
{
    if (v->type != LLM_JSON_ARRAY && v->type != LLM_JSON_OBJECT) {
        put(w, v->raw.data, v->raw.len);
        return;
    }

    put(w, v->raw.data, 1);
    blank(w);

    if (v->type == LLM_JSON_OBJECT) {
        write_object(w, v);

    } else {
        write_array(w, v);
    }

    put(w, v->raw.data + v->raw.len - 1, 1);
}


static void
check_sorted(const llm_json_value_t *v)
{
    int                rc;
    size_t             i, n, len;
    u_char            *pos;
    member_t          *m;
    llm_json_value_t   item;

    if (v->type == LLM_JSON_ARRAY) {
        for (pos = NULL; llm_json_next(&v->raw, &pos, NULL, &item) == LLM_OK;
             /* void */ )
        {
            check_sorted(&item);
        }
    }

    if (v->type != LLM_JSON_OBJECT) {
        return;
    }

    m = members(&v->raw, &n);

    for (i = 0; i < n; i++) {
        check_sorted(&m[i].value);

        if (i == 0) {
            continue;
        }

        len = (m[i - 1].said.len < m[i].said.len) ? m[i - 1].said.len
                                                  : m[i].said.len;
        rc = len ? memcmp(m[i - 1].said.data, m[i].said.data, len) : 0;

        check(rc < 0 || (rc == 0 && m[i - 1].said.len <= m[i].said.len));
    }

    members_free(m, n);
}


static void
check_same(const llm_str_t *text, const llm_str_t *out)
{
    json_t  *a, *b;

    a = json_loadb((char *) text->data, text->len,
                   JSON_DECODE_ANY|JSON_ALLOW_NUL, NULL);
    b = json_loadb((char *) out->data, out->len,
                   JSON_DECODE_ANY|JSON_ALLOW_NUL, NULL);

    check(!a == !b);

    if (a) {
        check(json_equal(a, b));
    }

    json_decref(a);
    json_decref(b);
}


/* the text written anew: members shuffled, or some left out */

static llm_str_t
rewrite(const llm_json_value_t *v, uint64_t random, const llm_str_t *names)
{
    writer_t   w;
    llm_str_t  text, exact;

    w.random = random;
    w.shuffle = (random != 0);
    w.skip = names;

    text.data = w.pos = malloc(v->raw.len * 4 + 4);

    blank(&w);
    write_value(&w, v);
    blank(&w);

    exact = copy(text.data, w.pos - text.data);
    free(text.data);

    return exact;
}


static void
check_valid(const llm_str_t *text, const llm_str_t *out)
{
    uint64_t          random;
    llm_str_t         other, again;
    llm_json_value_t  v;

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw = *text;

    while (strchr(" \t\r\n", *v.raw.data)) {
        v.raw.data++;
        v.raw.len--;
    }

    while (strchr(" \t\r\n", v.raw.data[v.raw.len - 1])) {
        v.raw.len--;
    }

    v.type = (*v.raw.data == '{') ? LLM_JSON_OBJECT
             : (*v.raw.data == '[') ? LLM_JSON_ARRAY : LLM_JSON_NUMBER;

    random = llm_digest(text->data, text->len, 0);
    other = rewrite(&v, random, NULL);

    check(llm_json_scan(&other, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
          != LLM_ERROR);
    canonical(&other, NULL, 0, &again);
    check(equal(&again, out));

    free(again.data);
    free(other.data);

    other = rewrite(&v, 0, skip);
    canonical(&other, NULL, 0, &again);
    free(other.data);

    canonical(text, skip, 0, &other);
    check(equal(&other, &again));

    free(again.data);
    free(other.data);

    canonical(out, NULL, 0, &again);
    check(equal(&again, out));
    free(again.data);

    v.raw = *out;
    check_sorted(&v);
    check_same(text, out);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_int_t  rc;
    llm_str_t  text, out, less;

    text = copy(data, size);

    rc = llm_json_scan(&text, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL);

    canonical(&text, NULL, 0, &out);

    if (rc != LLM_ERROR) {
        check(llm_json_scan(&out, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
              == rc);
        check_valid(&text, &out);
    }

    canonical(&text, skip, size ? 1 + data[size / 2] % 8 : 1, &less);
    free(less.data);

    free(out.data);
    free(text.data);

    return 0;
}
