
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The tap: however the input is cut its values are the same; on a valid text
 * they are those of llm_json_find() and llm_json_next().
 *
 * The first two bytes choose the longest value and the cuts.
 */


#include <stdlib.h>
#include <string.h>

#include "llm.h"


#define DEPTH  64

#define check(cond)  do { if (!(cond)) { abort(); } } while (0)


static const llm_str_t  paths[] = {
    llm_string("usage"), llm_string("a"), llm_string("a.b"),
    llm_string("c.*.a"), llm_string("c.*"), llm_string("*.a"),
    llm_string("a.*.b.*"), llm_string("\xc3\xa9.\xf0\x9f\x98\x80")
};

#define PATHS  (sizeof(paths) / sizeof(llm_str_t))


typedef struct {
    llm_json_value_t  value[PATHS];
    llm_uint_t        done;
} record_t;


static void *
mem_alloc(void *ctx, size_t size)
{
    void  *p;

    p = malloc(size);
    check(p);

    return p;
}


static void
mem_free(void *ctx, void *p)
{
    free(p);
}


static const llm_mem_t  mem = { mem_alloc, mem_free, NULL };


static void
run(const uint8_t *data, size_t size, size_t max, unsigned cut, record_t *r)
{
    u_char            *buf;
    size_t             n, i;
    unsigned           seed;
    llm_tap_t         *tap;
    llm_json_value_t  *v;

    seed = cut;
    tap = llm_tap_create(&mem, paths, PATHS, max);

    while (size) {
        seed = seed * 1103515245 + 12345;
        n = (cut == 0) ? size : (cut == 1) ? 1 : (seed >> 16) % cut;

        if (n > size) {
            n = size;
        }

        buf = malloc(n);

        if (n) {
            memcpy(buf, data, n);
        }

        check(llm_tap_feed(tap, buf, buf + n) == LLM_OK);
        free(buf);

        data += n;
        size -= n;
    }

    for (i = 0; i < PATHS; i++) {
        v = &r->value[i];
        llm_tap_value(tap, i, v);

        check(v->raw.len <= max);
        check((v->raw.len != 0) == (v->type != LLM_JSON_ABSENT));
        check(v->type == LLM_JSON_ABSENT || !v->overflow);

        if (v->raw.len) {
            buf = malloc(v->raw.len);
            memcpy(buf, v->raw.data, v->raw.len);
            v->raw.data = buf;
        }
    }

    r->done = llm_tap_done(tap);

    llm_tap_free(tap);
}


static void
same(const llm_json_value_t *a, const llm_json_value_t *b)
{
    check(a->type == b->type && a->escaped == b->escaped
          && a->duplicate == b->duplicate && a->overflow == b->overflow
          && a->raw.len == b->raw.len
          && (a->raw.len == 0
              || memcmp(a->raw.data, b->raw.data, a->raw.len) == 0));
}


/* the last value at the path below this one, by the readers */

static void
find(const llm_json_value_t *in, const u_char *p, const u_char *last,
    llm_json_value_t *out)
{
    u_char            *pos;
    llm_str_t          name, part;
    llm_uint_t         any, met;
    const u_char      *dot;
    llm_json_value_t   item, key;

    dot = memchr(p, '.', last - p);
    part.data = (u_char *) p;
    part.len = (dot ? dot : last) - p;
    any = (part.len == 1 && *p == '*');

    pos = NULL;

    while (llm_json_next(&in->raw, &pos, &name, &item) == LLM_OK) {

        if (any != (name.data == NULL)) {
            return;
        }

        if (!any) {
            memset(&key, 0, sizeof(llm_json_value_t));

            key.type = LLM_JSON_STRING;
            key.raw.data = name.data - 1;
            key.raw.len = name.len + 2;
            key.escaped = name.len && memchr(name.data, '\\', name.len);

            if (!llm_json_is(&key, (char *) part.data, part.len)) {
                continue;
            }
        }

        if (dot) {
            find(&item, dot + 1, last, out);
            continue;
        }

        met = (out->type != LLM_JSON_ABSENT);
        *out = item;
        out->duplicate = met;
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t            i, max;
    unsigned          k, cuts[3];
    record_t          whole, cut;
    llm_int_t         rc;
    llm_str_t         json;
    llm_json_value_t  in, want;

    if (size < 2) {
        return 0;
    }

    max = (data[0] & 1) ? 1 << 20 : data[0];

    cuts[0] = 1;
    cuts[1] = 2 + data[1] % 16;
    cuts[2] = 2 + data[1];

    data += 2;
    size -= 2;

    run(data, size, max, 0, &whole);

    for (k = 0; k < 3; k++) {
        run(data, size, max, cuts[k], &cut);
        check(cut.done == whole.done);

        for (i = 0; i < PATHS; i++) {
            same(&cut.value[i], &whole.value[i]);
            free(cut.value[i].raw.data);
        }
    }

    json.data = (u_char *) data;
    json.len = size;

    rc = llm_json_scan(&json, DEPTH, NULL, NULL, 0, NULL);

    for (i = 0; i < PATHS; i++) {

        if (rc != LLM_ERROR && max == 1 << 20) {
            memset(&in, 0, sizeof(llm_json_value_t));
            memset(&want, 0, sizeof(llm_json_value_t));

            in.raw = json;
            find(&in, paths[i].data, paths[i].data + paths[i].len, &want);
            same(&want, &whole.value[i]);
        }

        free(whole.value[i].raw.data);
    }

    check(rc != LLM_OK || whole.done);

    return 0;
}
