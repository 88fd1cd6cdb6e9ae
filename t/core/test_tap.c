
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * llm_tap.c: each text whole, cut in two at every place, and byte by byte;
 * each piece in a heap buffer of its size that is gone after the feed.
 */


#include "run.h"


#define PATHS  3


/* out: for each path its value as written, "-" for none, "^" for one too
 * long; '*' before it if it was met before; then "." once it is done */

typedef struct {
    const char  *text;
    const char  *paths[PATHS];
    const char  *out;
    size_t       max;                  /* 0: enough */
} fixture_t;


static fixture_t  fixtures[] = {

    /* members of the top */

    { "{}", { "usage" }, "-|.", 0 },
    { "{\"usage\":1}", { "usage" }, "1|.", 0 },
    { " { \"usage\" : { \"a\" : [ 1 , 2 ] } } ", { "usage" },
      "{ \"a\" : [ 1 , 2 ] }|.", 0 },
    { "{\"a\":1,\"b\":\"x\",\"c\":[]}", { "a", "b", "c" },
      "1|\"x\"|[]|.", 0 },
    { "{\"a\":true,\"b\":null,\"c\":-1.5e+3}", { "c", "b", "a" },
      "-1.5e+3|null|true|.", 0 },
    { "{\"b\":{\"a\":1},\"c\":[{\"a\":2}]}", { "a" }, "-|.", 0 },
    { "{\"b\":{\"a\":1},\"a\":3,\"c\":[{\"a\":2}]}", { "a" }, "3|.", 0 },
    { "{\"x\":\"}\\\"{[\",\"a\":1}", { "a" }, "1|.", 0 },
    { "{\"x\":{\"y\":\"}\\\"{[\"},\"a\":1}", { "a" }, "1|.", 0 },
    { "{\"x\":[\"]\\\\\",\"a\"],\"a\":1}", { "a" }, "1|.", 0 },
    { "{\"a\":\"\\\"}\",\"b\":\"\\\\\"}", { "a", "b" },
      "\"\\\"}\"|\"\\\\\"|.", 0 },
    { "{\"a\":1,\"a\":2}", { "a" }, "*2|.", 0 },
    { "{\"\":1}", { "" }, "1|.", 0 },
    { "{\"*\":1,\"a\":[2]}", { "*" }, "-|.", 0 },
    { "{\"aa\":1,\"A\":2,\"a \":3}", { "a" }, "-|.", 0 },
    { "{\"a\":[[[[[[[[]]]]]]]]}", { "a" }, "[[[[[[[[]]]]]]]]|.", 0 },

    /* escaped names */

    { "{\"us\\u0061ge\":1}", { "usage" }, "1|.", 0 },
    { "{\"\\u0075\\u0073\\u0061\\u0067\\u0065\":1}", { "usage" }, "1|.", 0 },
    { "{\"\\u0075\\u0073\\u0061\\u0067\\u0065\\u0000\":1}", { "usage" },
      "-|.", 0 },
    { "{\"us\\nge\":1,\"usag\\\"\":2}", { "usage" }, "-|.", 0 },
    { "{\"\\ud83d\\ude00\":1}", { "\xf0\x9f\x98\x80" }, "1|.", 0 },
    { "{\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\":1,\"a\":2}", { "a" },
      "2|.", 0 },

    /* deeper */

    { "{\"usage\":{\"total\":7}}", { "usage.total" }, "7|.", 0 },
    { "{\"usage\":{\"total\":7},\"total\":8}", { "usage.total", "usage",
      "total" }, "7|{\"total\":7}|8|.", 0 },
    { "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":1}}}}}", { "a.b.c.d", "a.b", "b.c" },
      "{\"e\":1}|{\"c\":{\"d\":{\"e\":1}}}|-|.", 0 },
    { "{\"a\":{\"b\":1},\"a\":{\"c\":2}}", { "a.b", "a.c", "a" },
      "1|2|*{\"c\":2}|.", 0 },
    { "{\"a\":{\"x\":{\"b\":1},\"b\":2,\"y\":[{\"b\":3}]}}", { "a.b" },
      "2|.", 0 },
    { "{\"a\":[{\"b\":1}],\"a\":3}", { "a.b" }, "-|.", 0 },
    { "{\"a\":\"b\"}", { "a.b", "a" }, "-|\"b\"|.", 0 },

    /* items */

    { "{\"choices\":[{\"finish_reason\":\"stop\"}]}",
      { "choices.*.finish_reason" }, "\"stop\"|.", 0 },
    { "{\"c\":[{\"f\":null,\"g\":0},{\"g\":1},{\"f\":\"x\"}]}",
      { "c.*.f", "c.*.g", "c.*" }, "*\"x\"|*1|*{\"f\":\"x\"}|.", 0 },
    { "{\"c\":[1,\"a\",[2],{\"f\":3},null]}", { "c.*.f", "c.*" },
      "3|*null|.", 0 },
    { "{\"c\":[],\"d\":[ ]}", { "c.*", "d.*", "d" }, "-|-|[ ]|.", 0 },
    { "{\"c\":{\"x\":{\"f\":1}}}", { "c.*.f" }, "-|.", 0 },
    { "[1,2]", { "*", "a" }, "*2|-|.", 0 },
    { "[[[[5]]]]", { "*.*.*.*", "*.*", "*" }, "5|[[5]]|[[[5]]]|.", 0 },
    { "[[1,2],[3]]", { "*.*" }, "*3|.", 0 },

    /* no container */

    { "7 ", { "a" }, "-|.", 0 }, { "7", { "a" }, "-|", 0 },
    { "\"a\"", { "a" }, "-|.", 0 }, { "null\n", { "*" }, "-|.", 0 },

    /* bytes after the value are not looked at */

    { "{\"a\":1}{\"a\":2}", { "a" }, "1|.", 0 },
    { "{\"a\":1}}]\"", { "a" }, "1|.", 0 },

    /* bounds */

    { "{\"a\":\"123456\",\"b\":1234567,\"c\":[[[1]]]}", { "a", "b", "c" },
      "\"123456\"|1234567|[[[1]]]|.", 8 },
    { "{\"a\":\"1234567\",\"b\":123456789,\"c\":[[[12]]]}", { "a", "b", "c" },
      "^|^|^|.", 8 - 1 },
    { "{\"a\":123456789,\"a\":1}", { "a" }, "*1|.", 8 },
    { "{\"a\":1,\"a\":123456789}", { "a" }, "*^|.", 8 },
    { "{\"a\":{\"b\":1,\"c\":2222}}", { "a", "a.b", "a.c" }, "^|1|2222|.", 8 },
    { "{\"a\":1}", { "a" }, "^|.", SIZE_MAX },  /* stands for 0 */

    /* cut */

    { "", { "a" }, "-|", 0 }, { " ", { "a" }, "-|", 0 },
    { "{\"a\":1", { "a" }, "-|", 0 }, { "{\"a\":1,", { "a" }, "1|", 0 },
    { "{\"a\":\"x", { "a" }, "-|", 0 }, { "{\"a\":\"x\"", { "a" },
      "\"x\"|", 0 },
    { "{\"a\":1,\"a\":[2,3", { "a" }, "1|", 0 },
    { "{\"a\":{\"b\":1},\"a\":{\"b\":2", { "a.b", "a" }, "1|{\"b\":1}|", 0 },
    { "{\"a\\", { "a" }, "-|", 0 }, { "{\"a\"", { "a" }, "-|", 0 },

    /* not JSON: less, or nothing */

    { "}", { "a" }, "-|", 0 }, { "]", { "*" }, "-|", 0 },
    { ",", { "*" }, "-|", 0 }, { "{]", { "a" }, "-|", 0 },
    { "<html>{\"a\":1}", { "a" }, "-|", 0 },
    { "{\"a\" 1,\"a\":2}", { "a" }, "-|", 0 },
    { "{\"a\":1 2,\"a\":3}", { "a" }, "1|", 0 },
    { "{a:1,\"a\":2}", { "a" }, "-|", 0 },
    { "{\"a\":1,b}", { "a" }, "1|", 0 },

    /* brackets of what is skipped are counted, not paired */

    { "{\"a\":[1}", { "a" }, "[1}|", 0 },
    { "{\"a\":[1},\"b\":2}", { "a.*", "b" }, "1|-|", 0 },
    { "{\"a\":<}", { "a" }, "-|", 0 },
    { "{\"a\":{\"b\"", { "a", "a.b" }, "-|-|", 0 }
};

#define FIXTURES  (sizeof(fixtures) / sizeof(fixture_t))


typedef struct {
    char         out[1024];
    size_t       len;
    llm_int_t    rc;
} result_t;


static void
put(result_t *r, const void *text, size_t len)
{
    if (len < sizeof(r->out) - r->len) {
        memcpy(r->out + r->len, text, len);
        r->len += len;
        r->out[r->len] = '\0';
    }
}


static llm_uint_t
get_paths(const fixture_t *f, llm_str_t *paths)
{
    llm_uint_t  n;

    for (n = 0; n < PATHS && f->paths[n]; n++) {
        paths[n].len = strlen(f->paths[n]);
        paths[n].data = exact(f->paths[n], paths[n].len);
    }

    return n;
}


static void
free_paths(llm_str_t *paths, llm_uint_t n)
{
    while (n) {
        free(paths[--n].data);
    }
}


static void
tell(llm_tap_t *tap, llm_uint_t n, result_t *r)
{
    llm_uint_t        i;
    llm_json_value_t  v;

    for (i = 0; i < n; i++) {
        llm_tap_value(tap, i, &v);

        if (v.duplicate) {
            put(r, "*", 1);
        }

        if (v.type == LLM_JSON_ABSENT) {
            put(r, v.overflow ? "^" : "-", 1);

        } else {
            put(r, v.raw.data, v.raw.len);
        }

        if (v.type != LLM_JSON_ABSENT
            && v.escaped != (*v.raw.data == '"'
                             && memchr(v.raw.data, '\\', v.raw.len)))
        {
            put(r, "(ESCAPED?)", 10);
        }

        put(r, "|", 1);
    }

    if (llm_tap_done(tap)) {
        put(r, ".", 1);
    }
}


static void
run(const fixture_t *f, size_t first, size_t step, size_t fail, run_mem_t *m,
    result_t *r)
{
    u_char      *buf;
    size_t       i, len, max, piece;
    llm_str_t    paths[PATHS];
    llm_tap_t   *tap;
    llm_uint_t   n;

    run_mem(m, fail);

    r->len = 0;
    r->rc = LLM_ERROR;
    r->out[0] = '\0';

    n = get_paths(f, paths);
    max = (f->max == SIZE_MAX) ? 0 : (f->max ? f->max : 1000);

    tap = llm_tap_create(&m->mem, paths, n, max);

    if (tap) {
        r->rc = LLM_OK;
        len = strlen(f->text);

        for (i = 0, piece = first; i < len; i += piece, piece = step) {

            if (piece > len - i) {
                piece = len - i;
            }

            buf = exact(f->text + i, piece);
            r->rc = llm_tap_feed(tap, buf, buf + piece);
            free(buf);

            if (r->rc != LLM_OK) {
                break;
            }
        }

        if (r->rc == LLM_OK) {
            tell(tap, n, r);
        }

        llm_tap_free(tap);
    }

    free_paths(paths, n);
}


static void
test_fixtures(void)
{
    size_t      i, at, len, wrong, allocs;
    result_t    r;
    run_mem_t   m;
    fixture_t  *f;

    for (i = 0; i < FIXTURES; i++) {
        f = &fixtures[i];
        len = strlen(f->text);

        run(f, len, 1, 0, &m, &r);

        if (!ok(r.rc == LLM_OK && strcmp(r.out, f->out) == 0 && m.live == 0,
                "%s in %s", f->paths[0], f->text))
        {
            printf("#   got:  %s\n#   want: %s\n", r.out, f->out);
        }

        wrong = 0;

        for (at = 1; at < len; at++) {
            run(f, at, len, 0, &m, &r);
            wrong += r.rc != LLM_OK || strcmp(r.out, f->out) != 0 || m.live;
        }

        for (at = 1; at < 8; at++) {
            run(f, 0, at, 0, &m, &r);
            wrong += r.rc != LLM_OK || strcmp(r.out, f->out) != 0 || m.live;
        }

        is_int(wrong, 0, "the same, cut");

        wrong = 0;

        for (at = 1; at < len + 1; at++) {
            run(f, at, 1, 0, &m, &r);
            allocs = m.calls;

            while (allocs) {
                run(f, at, 1, allocs--, &m, &r);
                wrong += r.rc != LLM_ERROR || m.live;
            }
        }

        is_int(wrong, 0, "the same, without memory");
    }
}


/* a long answer costs what its paths have, whatever its pieces */

static void
test_long(void)
{
    char              *text, *p;
    size_t             i, len, step, first;
    run_mem_t          m;
    llm_tap_t         *tap;
    llm_json_value_t   v;

    static const size_t     steps[] = { 1, 13, 4096, 65536, 1000000 };
    static const llm_str_t  paths[] = {
        llm_string("data.*.index"), llm_string("usage"), llm_string("model")
    };

    text = malloc(1 << 20);
    p = text + sprintf(text, "{\"model\":\"e\",\"data\":[");

    for (i = 0; i < 100; i++) {
        p += sprintf(p, "%s{\"embedding\":[", i ? "," : "");

        for (len = 0; len < 300; len++) {
            p += sprintf(p, "%s-0.0%zu", len ? "," : "", len * 7919 + i);
        }

        p += sprintf(p, "],\"text\":\"]}\\\"\",\"index\":%zu}", i);
    }

    p += sprintf(p, "],\"usage\":{\"prompt_tokens\":7}}");
    len = p - text;

    for (i = 0; i < sizeof(steps) / sizeof(size_t); i++) {
        run_mem(&m, 0);
        tap = llm_tap_create(&m.mem, paths, 3, 4096);
        first = 0;

        for (p = text; p < text + len; p += step) {
            step = steps[i];

            if (step > (size_t) (text + len - p)) {
                step = text + len - p;
            }

            (void) llm_tap_feed(tap, (u_char *) p, (u_char *) p + step);

            if (first == 0 && p - text > 100000) {
                first = m.calls;
            }
        }

        ok(llm_tap_done(tap), "a long answer in pieces of %zu", steps[i]);

        llm_tap_value(tap, 0, &v);
        is(&v.raw, "99", "the last index");
        llm_tap_value(tap, 1, &v);
        is(&v.raw, "{\"prompt_tokens\":7}", "the usage");
        llm_tap_value(tap, 2, &v);
        is(&v.raw, "\"e\"", "the model");

        ok(m.calls <= 5 && m.bytes < 2048,
           "took %zu pieces, %zu bytes", m.calls, m.bytes);

        llm_tap_free(tap);
        is_int(m.live, 0, "all is freed");
    }

    free(text);
}


/* what the scanner finds in a valid text the tap finds */

static void
test_agree(void)
{
    size_t             i, k, wrong;
    llm_str_t          json, names[PATHS];
    run_mem_t          m;
    llm_tap_t         *tap;
    llm_uint_t         n;
    fixture_t         *f;
    llm_json_value_t   v, found[PATHS];

    wrong = 0;

    for (i = 0; i < FIXTURES; i++) {
        f = &fixtures[i];

        if (f->max) {
            continue;
        }

        n = get_paths(f, names);
        json.len = strlen(f->text);
        json.data = exact(f->text, json.len);

        if (llm_json_scan(&json, 100, names, found, n, NULL) == LLM_OK) {
            run_mem(&m, 0);

            tap = llm_tap_create(&m.mem, names, n, 1000);
            (void) llm_tap_feed(tap, json.data, json.data + json.len);

            for (k = 0; k < n; k++) {

                if (memchr(names[k].data, '.', names[k].len)
                    || memchr(names[k].data, '*', names[k].len))
                {
                    continue;
                }

                llm_tap_value(tap, k, &v);

                wrong += v.type != found[k].type
                         || v.escaped != found[k].escaped
                         || v.duplicate != found[k].duplicate
                         || v.raw.len != found[k].raw.len
                         || (v.raw.len && memcmp(v.raw.data,
                                                 found[k].raw.data,
                                                 v.raw.len));
            }

            llm_tap_free(tap);
        }

        free(json.data);
        free_paths(names, n);
    }

    is_int(wrong, 0, "agrees with llm_json_scan()");
}


static void
test_paths(void)
{
    llm_str_t         paths[LLM_TAP_PATHS + 1];
    run_mem_t         m;
    llm_tap_t        *tap;
    llm_uint_t        i;
    llm_json_value_t  v;

    static const char  text[] = "{\"a\":1,\"b\":{\"c\":[{\"d\":2}]}}";

    run_mem(&m, 0);

    for (i = 0; i < LLM_TAP_PATHS + 1; i++) {
        paths[i] = (llm_str_t) llm_string("b.c.*.d");
    }

    tap = llm_tap_create(&m.mem, paths, LLM_TAP_PATHS, 100);
    (void) llm_tap_feed(tap, (u_char *) text, (u_char *) text);
    (void) llm_tap_feed(tap, (u_char *) text,
                        (u_char *) text + sizeof(text) - 1);
    llm_tap_value(tap, LLM_TAP_PATHS - 1, &v);
    is(&v.raw, "2", "all paths may be the same");
    llm_tap_free(tap);

    ok(llm_tap_create(&m.mem, paths, LLM_TAP_PATHS + 1, 100) == NULL,
       "too many paths");

    paths[1] = (llm_str_t) llm_string("a.b.c.d.e");
    ok(llm_tap_create(&m.mem, paths, 2, 100) == NULL, "too long a path");

    tap = llm_tap_create(&m.mem, NULL, 0, 100);
    (void) llm_tap_feed(tap, NULL, NULL);
    (void) llm_tap_feed(tap, (u_char *) text,
                        (u_char *) text + sizeof(text) - 1);
    ok(llm_tap_done(tap), "no paths: only its end");
    llm_tap_free(tap);

    is_int(m.live, 0, "all is freed");
}


int
main(void)
{
    test_fixtures();
    test_long();
    test_agree();
    test_paths();

    return done();
}
