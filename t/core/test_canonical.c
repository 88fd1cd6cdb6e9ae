
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The canonical form of a JSON text, which a cache's key is made of.
 */


#include "run.h"


static const llm_str_t  skip[] = {
    llm_string("stream"),
    llm_string("user"),
    llm_null_string
};


/* exact copies, room for no byte more; freed by the caller */

static llm_int_t
canonical(const void *data, size_t len, const llm_str_t *names, size_t fail,
    llm_str_t *out)
{
    llm_int_t  rc;
    llm_str_t  json;
    run_mem_t  m;

    run_mem(&m, fail);

    json.len = len;
    json.data = exact(data, len);

    out->data = malloc(len ? len : 1);
    memset(out->data, 0xa5, len);

    rc = llm_canonical(&json, names, &m.mem, out->data, &out->len);

    if (m.live) {
        ok(0, "canonical: nothing left");
    }

    free(json.data);

    return rc;
}


typedef struct {
    const char            *json;
    const char            *want;       /* without skip */
    const char            *less;       /* with it; NULL: the same */
} form_t;


static const form_t  forms[] = {
    { "{}", "{}", NULL },
    { " {\n} ", "{}", NULL },
    { "[]", "[]", NULL },
    { "[ ]", "[]", NULL },
    { "7", "7", NULL },
    { "\t\"a b\" \r\n", "\"a b\"", NULL },
    { "{\"b\":1,\"a\":2}", "{\"a\":2,\"b\":1}", NULL },
    { "{\"a\":1,\"b\":2}", "{\"a\":1,\"b\":2}", NULL },
    { " { \"b\" : 1.50 , \"a\" : -0e+7 } ", "{\"a\":-0e+7,\"b\":1.50}", NULL },
    { "{\"b\":{\"d\":{},\"c\":[]},\"a\":{\"z\":1,\"y\":{\"x\":1,\"w\":2}}}",
      "{\"a\":{\"y\":{\"w\":2,\"x\":1},\"z\":1},\"b\":{\"c\":[],\"d\":{}}}",
      NULL },

    /* sorted ones around one that is not */

    { "{\"a\":{\"a\":[{\"d\":1,\"c\":2},3,{\"d\":[ 1 ],\"c\":2}]},\"b\":0}",
      "{\"a\":{\"a\":[{\"c\":2,\"d\":1},3,{\"c\":2,\"d\":[1]}]},\"b\":0}",
      NULL },

    /* arrays keep their order */

    { "[ 3 , 2,1, \"b\" ,\"a\", null,[ 2,1 ],{ }, true ]",
      "[3,2,1,\"b\",\"a\",null,[2,1],{},true]", NULL },
    { "[1 ,2 , {\"b\":[ ] ,\"a\": 1 } , 3 ]", "[1,2,{\"a\":1,\"b\":[]},3]",
      NULL },

    /* of names one may begin with the other, be empty, be wide */

    { "{\"ab\":1,\"a\":2,\"\":3,\"abcdefghi\":4,\"abcdefgh\":5,"
      "\"abcdefghij\":6}",
      "{\"\":3,\"a\":2,\"ab\":1,\"abcdefgh\":5,\"abcdefghi\":4,"
      "\"abcdefghij\":6}", NULL },
    { "{\"\xc3\xa9\":1,\"z\":2,\"Z\":3}", "{\"Z\":3,\"z\":2,\"\xc3\xa9\":1}",
      NULL },

    /* equal names keep their order, however they are written */

    { "{\"b\":1,\"a\":2,\"b\":3,\"a\":4,\"b\":0}",
      "{\"a\":2,\"a\":4,\"b\":1,\"b\":3,\"b\":0}", NULL },
    { "{\"b\":0,\"\\u0061\":2,\"a\":1}", "{\"\\u0061\":2,\"a\":1,\"b\":0}",
      NULL },
    { "{\"b\":0,\"a\":2,\"\\u0061\":1}", "{\"a\":2,\"\\u0061\":1,\"b\":0}",
      NULL },
    { "{\"\\u00e9\":1,\"\xc3\xa9\":2,\"\\ud83d\\ude00\":3,"
      "\"\xf0\x9f\x98\x80\":4,\"a\":0}",
      "{\"a\":0,\"\\u00e9\":1,\"\xc3\xa9\":2,\"\\ud83d\\ude00\":3,"
      "\"\xf0\x9f\x98\x80\":4}", NULL },
    { "{\"abcdefgh\\u0061b\":1,\"abcdefghaa\":2,\"abcdefgh\\n\":3,"
      "\"abcdefgh\":4}",
      "{\"abcdefgh\":4,\"abcdefgh\\n\":3,\"abcdefghaa\":2,"
      "\"abcdefgh\\u0061b\":1}", NULL },
    { "{\"a\\u0000\":1,\"a\":2,\"\\\"\":3,\"\\\\\":4}",
      "{\"\\\"\":3,\"\\\\\":4,\"a\":2,\"a\\u0000\":1}", NULL },
    { "{\"\\ud800\":1,\"\\ud801\":2,\"a\":3}",
      "{\"a\":3,\"\\ud800\":1,\"\\ud801\":2}", NULL },

    /* values are as written */

    { "{\"b\":\"\\u0061\\/ \\\" {\\\\\",\"a\":1e2}",
      "{\"a\":1e2,\"b\":\"\\u0061\\/ \\\" {\\\\\"}", NULL },

    { "{\"stream\":true,\"model\":\"m\"}", "{\"model\":\"m\",\"stream\":true}",
      "{\"model\":\"m\"}" },
    { "{\"a\":1,\"stream\":true}", "{\"a\":1,\"stream\":true}", "{\"a\":1}" },
    { "{ \"stream\" : true }", "{\"stream\":true}", "{}" },
    { "{\"str\\u0065am\":{\"b\":1,\"a\":[{\"d\":1,\"c\":2}]},\"user\":[],"
      "\"stream\":0,\"a\":{\"d\":1,\"c\":2}}",
      "{\"a\":{\"c\":2,\"d\":1},\"str\\u0065am\":{\"a\":[{\"c\":2,\"d\":1}],"
      "\"b\":1},\"stream\":0,\"user\":[]}",
      "{\"a\":{\"c\":2,\"d\":1}}" },
    { "{\"b\":{\"user\":1,\"stream\":2},\"streams\":1,\"strea\":2}",
      "{\"b\":{\"stream\":2,\"user\":1},\"strea\":2,\"streams\":1}", NULL },
    { "[{\"user\":1,\"a\":2}]", "[{\"a\":2,\"user\":1}]", NULL }
};


static void
canonical_forms(void)
{
    size_t         i;
    llm_str_t      out;
    const form_t  *f;

    for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        f = &forms[i];

        ok(canonical(f->json, strlen(f->json), NULL, 0, &out) == LLM_OK,
           "canonical: rc");
        is(&out, f->want, f->json);
        free(out.data);

        ok(canonical(f->json, strlen(f->json), skip, 0, &out) == LLM_OK,
           "canonical less: rc");
        is(&out, f->less ? f->less : f->want, f->json);
        free(out.data);
    }
}


/* what differs before differs after */

static void
canonical_differs(void)
{
    int                       bad;
    size_t                    i, k, n;
    llm_str_t                 out[32];
    static const char *const  texts[] = {
        "{}", "[]", "{\"a\":{}}", "{\"a\":[]}", "{\"a\":null}", "{\"a\":\"\"}",
        "{\"a\":0}", "{\"a\":-0}", "{\"a\":0.0}", "{\"a\":0e0}",
        "{\"a\":\"0\"}",
        "{\"\\u0061\":0}", "{\"a\":0,\"a\":0}", "{\"a\":0,\"a\":1}",
        "{\"a\":1,\"a\":0}", "{\"a\":0,\"\\u0061\":1}",
        "{\"\\u0061\":1,\"a\":0}", "{\"a\":{\"b\":0}}", "{\"a\":[0]}",
        "{\"a\":[0,0]}", "{\"a\":\" \"}", "{\"a\":\"\\u0020\"}",
        "{\"a\":[{\"b\":1},{\"c\":1}]}", "{\"a\":[{\"b\":1,\"c\":1}]}",
        "{\"a\":[{\"c\":1},{\"b\":1}]}", "{\"a\":\"{\\\"b\\\":1}\"}"
    };

    bad = 0;
    n = sizeof(texts) / sizeof(texts[0]);

    for (i = 0; i < n; i++) {
        bad += canonical(texts[i], strlen(texts[i]), NULL, 0, &out[i])
               != LLM_OK;

        for (k = 0; k < i; k++) {
            if (out[i].len == out[k].len
                && memcmp(out[i].data, out[k].data, out[i].len) == 0)
            {
                printf("# %s is %s\n", texts[i], texts[k]);
                bad++;
            }
        }
    }

    for (i = 0; i < n; i++) {
        free(out[i].data);
    }

    is_int(bad, 0, "canonical: what differs, differs");
}


/* n members {"KEY":{"b":I,"a":"text"}}, keys made of i * step mod n */

static size_t
canonical_many(char *buf, unsigned n, unsigned step, const char *gap)
{
    char      *p;
    unsigned   i;

    p = buf;
    *p++ = '{';

    for (i = 0; i < n; i++) {
        p += sprintf(p, "%s%s\"member_%05u\":%s{\"b\":%u,\"a\":\"x\"}%s",
                     i ? "," : "", gap, (unsigned) ((size_t) i * step % n),
                     gap, (unsigned) ((size_t) i * step % n), gap);
    }

    *p++ = '}';

    return p - buf;
}


static void
canonical_large(void)
{
    char                 *buf, *want, *p;
    size_t                i, len;
    unsigned              k;
    llm_str_t             out;
    static const size_t   sizes[] = { 2, 11, 12, 13, 14, 25, 64, 65, 100,
                                      10007 };

    buf = malloc(64 * 10007);
    want = malloc(64 * 10007);

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        p = want;
        *p++ = '{';

        for (k = 0; k < sizes[i]; k++) {
            p += sprintf(p, "%s\"member_%05u\":{\"a\":\"x\",\"b\":%u}",
                         k ? "," : "", k, k);
        }

        *p++ = '}';

        /* in order, backwards, mixed */

        for (k = 0; k < 4; k++) {
            len = canonical_many(buf, sizes[i],
                                 k == 0 ? 1 : k == 1 ? sizes[i] - 1
                                 : sizes[i] % 7 ? 7 : 1, k == 3 ? "\n  " : "");

            ok(canonical(buf, len, NULL, 0, &out) == LLM_OK,
               "canonical: %zu members, way %u", sizes[i], k);
            is_mem(out.data, out.len, want, p - want, "canonical: sorted");
            free(out.data);
        }
    }

    free(buf);
    free(want);
}


/* {"b":[{"b":...}],"a":1} */

static void
canonical_deep(void)
{
    int         bad;
    char       *buf, *want, *p, *w;
    size_t      depth, i;
    llm_str_t   out;

    buf = malloc(32 * 520);
    want = malloc(32 * 520);
    bad = 0;

    for (depth = 2; depth <= LLM_JSON_DEPTH_MAX + 2; depth += 2) {
        p = buf;
        w = want;

        for (i = 0; i < depth / 2; i++) {
            p += sprintf(p, "{\"b\":[");
            w += sprintf(w, "{\"a\":1,\"b\":[");
        }

        for (i = 0; i < depth / 2; i++) {
            p += sprintf(p, "],\"a\":1}");
            w += sprintf(w, "]}");
        }

        bad += canonical(buf, p - buf, NULL, 0, &out) != LLM_OK;

        if (depth > LLM_JSON_DEPTH_MAX) {
            is_mem(out.data, out.len, buf, p - buf,
                   "canonical: too deep, as it was");

        } else {
            bad += (out.len != (size_t) (w - want)
                    || memcmp(out.data, want, out.len) != 0);
        }

        free(out.data);
    }

    free(buf);
    free(want);

    is_int(bad, 0, "canonical: any depth");
}


/* strings whose escapes and quotes stand at any place of a block */

static void
canonical_strings(void)
{
    int         bad;
    char        buf[400], want[400], value[300];
    size_t      i, k, n, len;
    llm_str_t   out;

    static const char *const  odd[] = {
        "\\\"", "\\\\", "\\\\\\\"", "\\\\\\\\", "\\n\\\"", "\xc3\xa9"
    };

    bad = 0;

    for (i = 0; i < 200; i++) {
        for (k = 0; k < sizeof(odd) / sizeof(odd[0]); k++) {
            n = strlen(odd[k]);

            memset(value, 'x', sizeof(value));
            memcpy(value + i, odd[k], n);
            memcpy(value + i + n + i % 5, odd[k], n);
            n = i + 2 * n + i % 5 + i % 70;
            value[n] = '\0';

            len = sprintf(buf, "{\"c\" :\"%s\",\"b\":[\"%s\"],\"a\":\"\"}",
                          value, "");
            sprintf(want, "{\"a\":\"\",\"b\":[\"\"],\"c\":\"%s\"}", value);

            bad += canonical(buf, len, NULL, 0, &out) != LLM_OK;
            bad += (out.len != strlen(want)
                    || memcmp(out.data, want, out.len) != 0);
            free(out.data);
        }
    }

    is_int(bad, 0, "canonical: strings");
}


/* a text that is cut or has a byte too many stays within its room */

static void
canonical_broken(void)
{
    int         bad;
    char        buf[128];
    size_t      i, k, len;
    llm_str_t   out;

    static const char  text[] = "{\"b\":[1, {\"d\":\"x\\\"\",\"c\":null}],"
                                "\"stream\":{\"y\":1},\"a\\u0062\": -1.5e3 }";
    static const char  odd[] = "{}[]\",:\\ \n1\x80";

    bad = 0;
    len = strlen(text);

    for (i = 0; i < len; i++) {
        bad += canonical(text, i, skip, 0, &out) != LLM_OK || out.len > i;
        free(out.data);

        for (k = 0; k < sizeof(odd); k++) {
            memcpy(buf, text, len);
            buf[i] = odd[k];

            bad += canonical(buf, len, skip, 0, &out) != LLM_OK
                   || out.len > len;
            free(out.data);
        }
    }

    is_int(bad, 0, "canonical: broken texts");

    canonical("{\"b\":1,\"a\":}", 12, NULL, 0, &out);
    is(&out, "{\"b\":1,\"a\":}", "canonical: a broken text is as it was");
    free(out.data);
}


static void
canonical_memory(void)
{
    char       *buf;
    size_t      i, len;
    llm_int_t   rc;
    llm_str_t   json, out;
    run_mem_t   m;

    buf = malloc(64 * 1000);

    /* a small request needs none */

    run_mem(&m, 1);

    len = canonical_many(buf, 20, 7, " ");
    json.data = (u_char *) buf;
    json.len = len;
    out.data = malloc(len);

    ok(llm_canonical(&json, NULL, &m.mem, out.data, &out.len) == LLM_OK
       && m.calls == 0, "canonical: no memory for a small one");
    free(out.data);

    /* nor does a long text for the line end of a client's file */

    run_mem(&m, 1);

    memset(buf, 'x', 20000);
    memcpy(buf, " {\"b\":1,\"a\":\"", 14);
    memcpy(buf + 19996, "\"}\r\n", 4);
    json.len = 20000;
    out.data = malloc(json.len);

    ok(llm_canonical(&json, NULL, &m.mem, out.data, &out.len) == LLM_OK
       && m.calls == 0 && out.len == 19997,
       "canonical: no memory for whitespace around");
    free(out.data);

    len = canonical_many(buf, 1000, 7, " ");

    for (i = 1; i < 100; i++) {
        rc = canonical(buf, len, NULL, i, &out);
        free(out.data);

        if (rc == LLM_OK) {
            break;
        }

        is_int(rc, LLM_ERROR, "canonical: no memory");
    }

    ok(i > 3 && i < 100, "canonical: memory at last");
    free(buf);
}


int
main(void)
{
    canonical_forms();
    canonical_differs();
    canonical_large();
    canonical_deep();
    canonical_strings();
    canonical_broken();
    canonical_memory();

    return done();
}
