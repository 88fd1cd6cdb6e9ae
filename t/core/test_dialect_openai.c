
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The endpoints of all dialects, and the OpenAI dialect's requests, read and
 * spliced, its errors and lists of models.  Its answers are in
 * test_dialect_openai_answer.c.
 */


#include "dialect.h"


#define D  &llm_dialect_openai

#define CHAT  "chat/completions"
#define MSG   "\"messages\":[]"


static const parse_t  parses[] = {

    /* good ones */

    { CHAT, "{\"model\":\"gpt-4o\"," MSG "}", NULL, NULL, "gpt-4o", "" },
    { CHAT, " {\"model\":\"m\"," MSG ",\"stream\":true}\r\n", NULL, NULL,
      "m", "s" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"stream\":null}", NULL, NULL,
      "m", "" },
    { CHAT, "{\"mod\\u0065l\":\"a\\u002fb\\n\"," MSG "}", "invalid_model",
      "model",
      "the \"model\" member is too long or has control bytes in it", NULL },
    { CHAT, "{\"mod\\u0065l\":\"a\\u002fb\"," MSG "}", NULL, NULL, "a/b",
      "" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"stream\":true,\"stream_options\":"
      "{\"include_usage\":true}}", NULL, NULL, "m", "su" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"stream\":true,\"stream_options\":"
      "{\"include_\\u0075sage\" : true }}", NULL, NULL, "m", "su" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"stream\":true,\"stream_options\":"
      "{\"include_usage\":\"yes\"}}", NULL, NULL, "m", "s" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"response_format\":{\"type\":"
      "\"json_schema\",\"json_schema\":{}}}", NULL, NULL, "m", "j" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"response_format\":{\"type\":"
      "\"json_object\"}}", NULL, NULL, "m", "j" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"response_format\":{\"type\":"
      "\"text\"}}", NULL, NULL, "m", "" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"response_format\":null}", NULL, NULL,
      "m", "" },
    { CHAT, "{\"model\":\"m\"," MSG ",\"temperature\":1e999,"
      "\"\":1,\"foo\":1,\"foo\":2,\"prompt\":1,\"prompt\":2}", NULL, NULL,
      "m", "" },
    { "completions", "{\"model\":\"m\",\"prompt\":\"x\",\"stream\":true}",
      NULL, NULL, "m", "s" },
    { "embeddings", "{\"model\":\"m\",\"input\":[1],\"stream\":true}",
      NULL, NULL, "m", "u" },
    { "embeddings", "{\"model\":\"m\",\"input\":[1],\"stream\":7}",
      NULL, NULL, "m", "u" },
    { "responses", "{\"model\":\"m\",\"input\":\"x\",\"stream\":true}",
      NULL, NULL, "m", "su" },
    { "responses", "{\"model\":\"m\",\"text\":{\"format\":{\"type\":"
      "\"json_schema\"}}}", NULL, NULL, "m", "uj" },
    { "responses", "{\"model\":\"m\",\"text\":{\"format\":{\"type\":"
      "\"text\"}},\"response_format\":{\"type\":\"json_object\"}}",
      NULL, NULL, "m", "u" },

    /* not JSON */

    { CHAT, "", "empty_body", NULL, "the request body is empty", NULL },
    { CHAT, " \t\r\n", "empty_body", NULL, "the request body is empty",
      NULL },
    { CHAT, "{\"model\": \"gpt\" x}", "invalid_json", NULL,
      "the request body is not valid JSON: unexpected character at byte 16",
      NULL },
    { CHAT, "[]", "not_an_object", NULL,
      "the request body must be a JSON object", NULL },
    { CHAT, "\"model\"", "not_an_object", NULL,
      "the request body must be a JSON object", NULL },

    /* members */

    { CHAT, "{}", "missing_model", "model",
      "the \"model\" member is missing", NULL },
    { CHAT, "{\"model\":\"a\",\"model\":\"a\"," MSG "}", "duplicate_member",
      "model", "the \"model\" member is given more than once", NULL },
    { CHAT, "{\"model\":\"a\",\"\\u006dodel\":\"b\"," MSG "}",
      "duplicate_member", "model",
      "the \"model\" member is given more than once", NULL },
    { CHAT, "{\"model\":\"a\"," MSG "," MSG "}", "duplicate_member",
      "messages", "the \"messages\" member is given more than once", NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream\":true,\"stream\":true}",
      "duplicate_member", "stream",
      "the \"stream\" member is given more than once", NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream_options\":{},"
      "\"stream_options\":null}", "duplicate_member", "stream_options",
      "the \"stream_options\" member is given more than once", NULL },
    { "responses", "{\"model\":\"a\",\"input\":1,\"input\":1}",
      "duplicate_member", "input",
      "the \"input\" member is given more than once", NULL },
    { "embeddings", "{\"model\":\"a\",\"input\":1,\"input\":1}",
      "duplicate_member", "input",
      "the \"input\" member is given more than once", NULL },
    { "completions", "{\"model\":\"a\",\"prompt\":1,\"prompt\":1}",
      "duplicate_member", "prompt",
      "the \"prompt\" member is given more than once", NULL },
    { CHAT, "{\"model\":null," MSG "}", "invalid_type", "model",
      "the \"model\" member must be a non-empty string", NULL },
    { CHAT, "{\"model\":\"\"," MSG "}", "invalid_type", "model",
      "the \"model\" member must be a non-empty string", NULL },
    { CHAT, "{\"model\":[\"a\"]," MSG "}", "invalid_type", "model",
      "the \"model\" member must be a non-empty string", NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream\":\"true\"}", "invalid_type",
      "stream", "the \"stream\" member must be a boolean", NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream\":1}", "invalid_type",
      "stream", "the \"stream\" member must be a boolean", NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream_options\":[]}",
      "invalid_type", "stream_options",
      "the \"stream_options\" member must be an object", NULL },
    { CHAT, "{\"model\":\"a\",\"messages\":\"hi\"}", "invalid_type",
      "messages", "the \"messages\" member must be an array", NULL },
    { CHAT, "{\"model\":\"a\",\"messages\":null}", "invalid_type",
      "messages", "the \"messages\" member must be an array", NULL },
    { CHAT, "{\"model\":\"a\"}", "missing_member", "messages",
      "the \"messages\" member is missing", NULL },
    { CHAT, "{\"model\":\"a\\u0000b\"," MSG "}", "invalid_model", "model",
      "the \"model\" member is too long or has control bytes in it", NULL },
    { CHAT, "{\"model\":\"a\x7f\"," MSG "}", "invalid_model", "model",
      "the \"model\" member is too long or has control bytes in it", NULL },
    { "embeddings", "{\"input\":\"x\"}", "missing_model", "model",
      "the \"model\" member is missing", NULL },
    { "completions", "{\"model\":1}", "invalid_type", "model",
      "the \"model\" member must be a non-empty string", NULL },
    { "responses", "{\"model\":{}}", "invalid_type", "model",
      "the \"model\" member must be a non-empty string", NULL },
};


/* bytes that the scanner has to refuse, with the code that we make of it */

static void
bad_bytes(void)
{
    size_t         i;
    u_char        *body;
    pool_t         pool;
    llm_int_t      rc;
    llm_str_t      s;
    llm_error_t    err;
    llm_request_t  rq;
    static const struct {
        const char  *body;
        size_t       len;
        const char  *name;
    } t[] = {
        { "{\"model\":\"a\0b\"}", 15, "NUL in a string" },
        { "{\"model\":\"a\xff\"}", 14, "invalid UTF-8" },
        { "{\"model\":\"\xc0\xaf\"}", 14, "overlong UTF-8" },
        { "{\"model\":\"\xed\xa0\x80\"}", 15, "a surrogate in UTF-8" },
        { "{\"model\":\"a\nb\"}", 15, "a line end in a string" },
        { "\xef\xbb\xbf{}", 5, "a byte order mark" },
        { "{\"a\":1,}", 8, "a trailing comma" },
        { "{\"a\":01}", 8, "a leading zero" },
        { "{} {}", 5, "text after the value" },
        { "{\"model\":\"a\"", 12, "no end" },
        { "\0", 1, "a NUL" }
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        pool_init(&pool, 0);

        s.len = t[i].len;
        s.data = body = exact(t[i].body, t[i].len);

        rc = parse(&rq, D, CHAT, s, &pool.mem, &err);

        ok(rc == LLM_DECLINED && strcmp(err.code, "invalid_json") == 0,
           "parse: %s: %.*s", t[i].name,
           rc == LLM_DECLINED ? (int) err.message.len : 0, err.message.data);

        free(body);
        pool_free(&pool);
    }
}


static void
depth_and_length(void)
{
    char           buf[4096], *p;
    int            i, n;
    pool_t         pool;
    llm_int_t      rc;
    llm_error_t    err;
    llm_request_t  rq;

    for (n = 255; n <= 256; n++) {
        pool_init(&pool, 0);

        p = buf + sprintf(buf, "{\"model\":\"m\"," MSG ",\"a\":");

        for (i = 0; i < n; i++) {
            *p++ = '[';
        }

        for (i = 0; i < n; i++) {
            *p++ = ']';
        }

        *p++ = '}';

        rc = parse(&rq, D, CHAT, text(&pool, buf, p - buf), &pool.mem, &err);

        if (n == 255) {
            is_int(rc, LLM_OK, "parse: nested 256 deep");

        } else {
            ok(rc == LLM_DECLINED && strcmp(err.code, "invalid_json") == 0,
               "parse: nested 257 deep");
        }

        pool_free(&pool);
    }

    for (n = 256; n <= 257; n++) {
        pool_init(&pool, 0);

        /* escaped, too: the limit is that of the name itself */

        p = buf + sprintf(buf, "{" MSG ",\"model\":\"");

        for (i = 0; i < n; i++) {
            p += sprintf(p, "%s", i % 2 ? "x" : "\\u0078");
        }

        p += sprintf(p, "\"}");

        rc = parse(&rq, D, CHAT, text(&pool, buf, p - buf), &pool.mem, &err);

        ok(n == 256 ? rc == LLM_OK && rq.model.len == 256
                    : rc == LLM_DECLINED
                      && strcmp(err.code, "invalid_model") == 0,
           "parse: a model of %d bytes", n);

        pool_free(&pool);
    }

    pool_init(&pool, 0);
    p = buf + sprintf(buf, "{" MSG ",\"model\":\"");
    memset(p, 'x', 3000);
    p += 3000;
    p += sprintf(p, "\"}");

    rc = parse(&rq, D, CHAT, text(&pool, buf, p - buf), &pool.mem, &err);

    ok(rc == LLM_DECLINED && strcmp(err.code, "invalid_model") == 0,
       "parse: a model of 3000 bytes");
    pool_free(&pool);
}


/* ---------------------------------------------------------------- build */

typedef struct {
    const char            *path;
    const char            *body;
    const char            *model;      /* NULL: as it is */
    int                    ask;        /* for usage: 1; more: max_output */
    const char            *want;       /* NULL: the body */
} build_t;


static const build_t  builds[] = {
    { CHAT, "{\"model\":\"a\"," MSG "}", NULL, 1, NULL },
    { CHAT, "{\"model\":\"a\"," MSG "}", "a", 1, NULL },
    { CHAT, "{\"model\":\"\\u0061\"," MSG "}", "a", 0, NULL },
    { CHAT, "{\"model\":\"a\"," MSG "}", "b", 1,
      "{\"model\":\"b\"," MSG "}" },
    { CHAT, "{\"model\":\"a\"," MSG "}", "\"}\\\n\xff", 0,
      "{\"model\":\"\\\"}\\\\\\n\xef\xbf\xbd\"," MSG "}" },
    { CHAT, "{" MSG ",\"stream\":true , \"model\" : \"a\" }", "bcd", 1,
      "{" MSG ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"
      " , \"model\" : \"bcd\" }" },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream\":true}", "b", 1,
      "{\"model\":\"b\"," MSG ",\"stream\":true,"
      "\"stream_options\":{\"include_usage\":true}}" },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream\":true}", "b", 0,
      "{\"model\":\"b\"," MSG ",\"stream\":true}" },
    { CHAT, "{\"stream_options\":null,\"model\":\"a\"," MSG
      ",\"stream\":true}", "b", 1,
      "{\"stream_options\":{\"include_usage\":true},\"model\":\"b\"," MSG
      ",\"stream\":true}" },
    { CHAT, "{\"stream_options\":{\"include_usage\":true},\"model\":\"a\","
      MSG ",\"stream\":true}", NULL, 1, NULL },
    { CHAT, "{\"stream_options\":{\"include_usage\":\"yes\"},\"model\":\"a\""
      "," MSG ",\"stream\":true}", NULL, 1, NULL },
    { CHAT, "{\"stream_options\":{\"include_usage\":true},\"model\":\"a\","
      MSG ",\"stream\":false}", NULL, 1, NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"stream\":false}", NULL, 1, NULL },
    { "completions", "{\"model\":\"a\",\"stream\":true}", NULL, 1,
      "{\"model\":\"a\",\"stream\":true,"
      "\"stream_options\":{\"include_usage\":true}}" },
    { "responses", "{\"model\":\"a\",\"stream\":true}", "b", 1,
      "{\"model\":\"b\",\"stream\":true}" },
    { "embeddings", "{\"model\":\"a\",\"stream\":true}", "b", 1,
      "{\"model\":\"b\",\"stream\":true}" },

    /* limits of the output */

    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":1001}", NULL, 1, NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":1001}", NULL, 1000,
      "{\"model\":\"a\"," MSG ",\"max_tokens\":1000}" },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":1000}", NULL, 1000,
      NULL },
    { CHAT, "{\"model\":\"a\"," MSG "}", NULL, 1000, NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":null}", NULL, 1000,
      NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":\"9999\"}", NULL, 1000,
      NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":9999.5}", NULL, 1000,
      NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_tokens\":-9999}", NULL, 1000,
      NULL },
    { CHAT, "{\"model\":\"a\"," MSG ",\"max_output_tokens\":9999}", NULL, 1000,
      NULL },
    { CHAT, "{\"model\":\"a\"," MSG
      ",\"max_tokens\":99999999999999999999999 }", NULL, 1000,
      "{\"model\":\"a\"," MSG ",\"max_tokens\":1000 }" },
    { CHAT, "{\"max_completion_tokens\": 5000,\"model\":\"a\"," MSG
      ",\"stream\":true,\"max_tokens\":5000}", "b", 1000,
      "{\"max_completion_tokens\": 1000,\"model\":\"b\"," MSG
      ",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
      "\"max_tokens\":1000}" },
    { CHAT, "{\"max_tokens\":5,\"max_tokens\":5000,\"model\":\"a\"," MSG "}",
      NULL, 1000,
      "{\"max_tokens\":5,\"max_tokens\":1000,\"model\":\"a\"," MSG "}" },
    { "completions", "{\"max_tokens\":1e4,\"max_tokens\":2000,"
      "\"model\":\"a\"}", NULL, 1000,
      "{\"max_tokens\":1e4,\"max_tokens\":1000,\"model\":\"a\"}" },
    { "responses", "{\"max_output_tokens\":1001,\"max_tokens\":1001}", "b",
      1000, "{\"max_output_tokens\":1000,\"max_tokens\":1001}" },
    { "embeddings", "{\"model\":\"a\",\"max_tokens\":1001}", NULL, 1000,
      NULL },
};


static void
build_table(void)
{
    size_t         i;
    pool_t         pool;
    llm_str_t      out;
    llm_uint_t     n;
    llm_error_t    err;
    llm_change_t   change;
    llm_splice_t   s[LLM_SPLICES];
    llm_request_t  rq;

    for (i = 0; i < sizeof(builds) / sizeof(builds[0]); i++) {
        pool_init(&pool, 0);
        n = 99;

        if (parse(&rq, D, builds[i].path,
                  text(&pool, builds[i].body, strlen(builds[i].body)),
                  &pool.mem, &err)
            != LLM_OK)
        {
            ok(0, "build: %s", builds[i].body);
            continue;
        }

        change.model = cstr(builds[i].model);
        change.max_output = builds[i].ask > 1 ? builds[i].ask : 0;
        change.ask_usage = builds[i].ask != 0;

        is_int(llm_dialect_openai.build(&rq, &change, &pool.mem, s, &n),
               LLM_OK, "build");

        out = splice(&pool, &rq.body, s, n);

        is(&out, builds[i].want ? builds[i].want : builds[i].body,
           builds[i].body);

        pool_free(&pool);
    }
}


/* every form of stream_options, in every order, with and without spaces,
 * names escaped or not: what comes out is valid and asks */

static const char  *const forms[] = {
    NULL,
    "null",
    "{}",
    "{ \n\t}",
    "{\"include_usage\":false}",
    "{ \"include_usage\" : null }",
    "{\"include_usage\":false,\"include_usage\":null}",
    "{\"\\u0069nclude_usage\":false,\"x\":[1,{\"include_usage\":true}]}",
    "{\"x\":{\"include_usage\":true}}",
    "{ \"include_obfuscation\" : false , \"y\" : \"}\\\"\" }",
    "{\"include_obfuscation\":false,\"include_usage\":false,\"z\":1}"
};

#define NFORMS  (sizeof(forms) / sizeof(forms[0]))


static int
asks(const llm_str_t *json, const char *model)
{
    llm_json_value_t        v[3], u;
    static const llm_str_t  names[] = {
        llm_string("stream_options"),
        llm_string("model"),
        llm_string("messages")
    };
    static const llm_str_t  name = llm_string("include_usage");

    return llm_json_scan(json, 256, names, v, 3, NULL) == LLM_OK
           && !v[0].duplicate && !v[1].duplicate
           && v[2].type == LLM_JSON_ARRAY
           && llm_json_is(&v[1], model, strlen(model))
           && v[0].type == LLM_JSON_OBJECT
           && llm_json_find(&v[0].raw, &name, &u, 1) == LLM_OK
           && u.type == LLM_JSON_TRUE;
}


static int
build_one(char *body, const char *model)
{
    int            good;
    size_t         i, at, from;
    pool_t         pool;
    llm_str_t      out, back;
    llm_uint_t     n;
    llm_error_t    err;
    llm_change_t   change;
    llm_splice_t   s[LLM_SPLICES], r[LLM_SPLICES];
    llm_request_t  rq;

    pool_init(&pool, 0);

    good = (parse(&rq, D, CHAT, text(&pool, body, strlen(body)), &pool.mem,
                  &err)
            == LLM_OK);

    if (good) {
        change.model = cstr(model);
        change.max_output = 0;
        change.ask_usage = 1;

        good = (llm_dialect_openai.build(&rq, &change, &pool.mem, s, &n)
                == LLM_OK
                && n == 2);
    }

    if (good) {
        out = splice(&pool, &rq.body, s, n);

        good = asks(&out, model);

        /* and back: all the rest is where it was */

        at = 0;
        from = 0;

        for (i = 0; i < n; i++) {
            at += s[i].offset - from;
            r[i].offset = at;
            r[i].len = s[i].text.len;
            r[i].text.data = rq.body.data + s[i].offset;
            r[i].text.len = s[i].len;
            at += s[i].text.len;
            from = s[i].offset + s[i].len;
        }

        back = splice(&pool, &out, r, n);

        good = good && back.len == rq.body.len
               && memcmp(back.data, rq.body.data, back.len) == 0;
    }

    if (!good) {
        printf("# %s\n", body);
    }

    pool_free(&pool);

    return good;
}


static void
build_forms(void)
{
    int     form, order, space, escape, i, m, bad, count;
    char    body[512], *p;
    static const int  orders[24][4] = {
        { 0, 1, 2, 3 }, { 0, 1, 3, 2 }, { 0, 2, 1, 3 }, { 0, 2, 3, 1 },
        { 0, 3, 1, 2 }, { 0, 3, 2, 1 }, { 1, 0, 2, 3 }, { 1, 0, 3, 2 },
        { 1, 2, 0, 3 }, { 1, 2, 3, 0 }, { 1, 3, 0, 2 }, { 1, 3, 2, 0 },
        { 2, 0, 1, 3 }, { 2, 0, 3, 1 }, { 2, 1, 0, 3 }, { 2, 1, 3, 0 },
        { 2, 3, 0, 1 }, { 2, 3, 1, 0 }, { 3, 0, 1, 2 }, { 3, 0, 2, 1 },
        { 3, 1, 0, 2 }, { 3, 1, 2, 0 }, { 3, 2, 0, 1 }, { 3, 2, 1, 0 }
    };
    static const char  *const names[2][4] = {
        { "\"model\"", "\"stream\"", "\"messages\"", "\"stream_options\"" },
        { "\"\\u006dodel\"", "\"stre\\u0061m\"", "\"messages\"",
          "\"stream\\u005foptions\"" }
    };

    bad = 0;
    count = 0;

    for (form = 0; form < (int) NFORMS; form++) {
        for (order = 0; order < 24; order++) {
            for (space = 0; space < 2; space++) {
                for (escape = 0; escape < 2; escape++) {
                    const char  *sp = space ? " \r\n\t" : "";

                    p = body + sprintf(body, "%s{%s", sp, sp);
                    m = 0;

                    for (i = 0; i < 4; i++) {
                        const char  *v[4] = { "\"gpt-\\u0034o\"", "true",
                                              "[ 1.50 ]", forms[form] };
                        int          k = orders[order][i];

                        if (v[k] == NULL) {
                            continue;
                        }

                        p += sprintf(p, "%s%s%s:%s%s%s",
                                     m++ ? "," : "",
                                     names[escape][k], sp, sp, v[k], sp);
                    }

                    sprintf(p, "}%s", sp);

                    count++;
                    bad += !build_one(body, "gpt-5\"}");
                }
            }
        }
    }

    ok(bad == 0, "build: %d forms of stream_options, %d bad", count, bad);
}


static void
rejected(void)
{
    llm_str_t  s;

#define REJ(status, body)  (s = cstr(body), llm_dialect_openai.rejected(      \
                                                              status, &s))

    is_int(REJ(400, "{\"error\":\"Unknown field: stream_options\"}"), 1,
           "rejected: named");
    is_int(REJ(400, "stream_options: extra field"), 1, "rejected: at once");
    is_int(REJ(422, "... Stream_Options ..."), 1, "rejected: other case");
    is_int(REJ(400, "extra inputs: include_usage"), 1,
           "rejected: the inner name");
    is_int(REJ(400, "stream_option"), 0, "rejected: cut");
    is_int(REJ(400, ""), 0, "rejected: empty");
    is_int(REJ(500, "stream_options"), 0, "rejected: another status");
    is_int(REJ(400, "messages"), 0, "rejected: not named");
}


/* ------------------------------------------------------------ our texts */

static void
error_texts(void)
{
    size_t       i;
    pool_t       pool;
    llm_str_t    out;
    llm_error_t  err;
    static const struct {
        int          status;
        const char  *type;
    } t[] = {
        { 400, "invalid_request_error" }, { 401, "authentication_error" },
        { 403, "permission_error" }, { 404, "invalid_request_error" },
        { 405, "invalid_request_error" }, { 413, "invalid_request_error" },
        { 415, "invalid_request_error" }, { 422, "invalid_request_error" },
        { 429, "rate_limit_error" }, { 500, "server_error" },
        { 502, "server_error" }, { 504, "server_error" }
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        char  want[256];

        pool_init(&pool, 0);
        fill(&err, t[i].status, "c", NULL, "m");
        llm_dialect_openai.error(&err, &pool.mem, &out);
        sprintf(want, "{\"error\":{\"message\":\"m\",\"type\":\"%s\","
                "\"param\":null,\"code\":\"c\"}}", t[i].type);
        is(&out, want, t[i].type);
        pool_free(&pool);
    }

    pool_init(&pool, 0);
    fill(&err, 400, NULL, "model", "a \"b\"\n\xff\x01");
    llm_dialect_openai.error(&err, &pool.mem, &out);
    is(&out, "{\"error\":{\"message\":\"a \\\"b\\\"\\n\xef\xbf\xbd\\u0001\","
       "\"type\":\"invalid_request_error\",\"param\":\"model\","
       "\"code\":null}}", "error: escaped");
    pool_free(&pool);
}


static void
models(void)
{
    pool_t       pool;
    llm_str_t    out;
    llm_model_t  m[2] = {
        { llm_string("gpt-4o"), llm_string("openai") },
        { llm_string("a\"b"), llm_string("x") }
    };

    pool_init(&pool, 0);

    llm_dialect_openai.models(m, 2, 1700000000, &pool.mem, &out);
    is(&out, "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o\",\"object\":"
       "\"model\",\"created\":1700000000,\"owned_by\":\"openai\"},"
       "{\"id\":\"a\\\"b\",\"object\":\"model\",\"created\":1700000000,"
       "\"owned_by\":\"x\"}]}", "models");

    llm_dialect_openai.models(m, 0, 1, &pool.mem, &out);
    is(&out, "{\"object\":\"list\",\"data\":[]}", "models: none");

    llm_dialect_openai.model(m, 1, &pool.mem, &out);
    is(&out, "{\"id\":\"gpt-4o\",\"object\":\"model\",\"created\":1,"
       "\"owned_by\":\"openai\"}", "model");

    pool_free(&pool);
}


static void
endpoints(void)
{
    size_t                 i;
    llm_str_t              path, id;
    const llm_dialect_t   *d;
    const llm_endpoint_t  *ep;
    static const struct {
        const char             *path;
        const llm_dialect_t    *prefer;
        const char             *dialect;
        const char             *found;
        const char             *id;
    } t[] = {
        { "chat/completions", NULL, "openai", "chat/completions", "" },
        { "v1/chat/completions", NULL, NULL, NULL, NULL },
        { "chat/completions/", NULL, NULL, NULL, NULL },
        { "chat/completionsx", NULL, NULL, NULL, NULL },
        { "completions", &llm_dialect_anthropic, "openai", "completions",
          "" },
        { "embeddings", NULL, "openai", "embeddings", "" },
        { "responses", NULL, "openai", "responses", "" },
        { "responses/resp_1", NULL, NULL, NULL, NULL },
        { "responses/compact", NULL, NULL, NULL, NULL },
        { "models", NULL, "openai", "models", "" },
        { "models", &llm_dialect_anthropic, "anthropic", "models", "" },
        { "models/", NULL, NULL, NULL, NULL },
        { "models/", &llm_dialect_anthropic, NULL, NULL, NULL },
        { "models/gpt-4o", NULL, "openai", "models/", "gpt-4o" },
        { "models/org/m:x", NULL, "openai", "models/", "org/m:x" },
        { "models/c", &llm_dialect_anthropic, "anthropic", "models/", "c" },
        { "messages", NULL, "anthropic", "messages", "" },
        { "messages", &llm_dialect_openai, "anthropic", "messages", "" },
        { "messages/count_tokens", NULL, "anthropic",
          "messages/count_tokens", "" },
        { "messages/batches", NULL, NULL, NULL, NULL },
        { "", NULL, NULL, NULL, NULL },
        { "v1/", NULL, NULL, NULL, NULL },
        { "v1", NULL, NULL, NULL, NULL }
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        path = cstr(t[i].path);
        path.data = exact(path.data, path.len);
        id = cstr("");

        ep = llm_endpoint_find(&path, t[i].prefer, &d, &id);

        ok(t[i].found
           ? ep && ep->path.len == strlen(t[i].found)
             && memcmp(ep->path.data, t[i].found, ep->path.len) == 0
             && strcmp((char *) d->name.data, t[i].dialect) == 0
             && id.len == strlen(t[i].id)
             && memcmp(id.data, t[i].id, id.len) == 0
           : ep == NULL, "endpoint \"%s\"", t[i].path);

        free(path.data);
    }

    path = cstr("anthropic");
    ok(llm_dialect_get(&path) == &llm_dialect_anthropic, "get anthropic");
    path = cstr("openai");
    ok(llm_dialect_get(&path) == &llm_dialect_openai, "get openai");
    path = cstr("openaix");
    ok(llm_dialect_get(&path) == NULL, "get nothing");
}


int
main(void)
{
    endpoints();
    parse_all(D, parses, sizeof(parses) / sizeof(parses[0]));
    bad_bytes();
    depth_and_length();
    build_table();
    build_forms();
    rejected();
    error_texts();
    models();

    return done();
}
