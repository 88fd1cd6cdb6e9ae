
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The Anthropic dialect: requests read and spliced, streams as the public
 * documentation shows them, plain answers, our own texts, and all of it with
 * allocations that fail.
 */


#include <time.h>

#include "dialect.h"


#define D  &llm_dialect_anthropic

#define MSG  "\"max_tokens\":10,\"messages\":[]"


static const parse_t  parses[] = {
    { "messages", "{\"model\":\"claude\"," MSG "}", NULL, NULL, "claude",
      "u" },
    { "messages", "{" MSG ",\"stream\" : true, \"model\":\"claude\"}",
      NULL, NULL, "claude", "su" },
    { "messages", "{\"model\":\"a\\u002Fb\"," MSG "}", NULL, NULL, "a/b",
      "u" },
    { "messages", "{\"model\":\"c\",\"messages\":[]}", NULL, NULL, "c",
      "u" },
    { "messages", "{\"model\":\"c\"," MSG ",\"output_format\":{\"type\":"
      "\"json_schema\",\"schema\":{}}}", NULL, NULL, "c", "uj" },
    { "messages", "{\"model\":\"c\"," MSG ",\"output_config\":{\"effort\":"
      "\"low\",\"format\":{\"type\":\"json_schema\"}}}", NULL, NULL, "c",
      "uj" },
    { "messages", "{\"model\":\"c\"," MSG ",\"output_config\":{\"format\":"
      "null}}", NULL, NULL, "c", "u" },
    { "messages", "{\"model\":\"c\"," MSG ",\"output_config\":{\"type\":"
      "\"json_schema\"}}", NULL, NULL, "c", "u" },
    { "messages", "{\"model\":\"c\"," MSG ",\"stream_options\":1,"
      "\"input\":1,\"input\":2}", NULL, NULL, "c", "u" },
    { "messages/count_tokens", "{\"model\":\"c\",\"stream\":true}", NULL,
      NULL, "c", "u" },

    { "messages", "", "empty_body", NULL, "the request body is empty",
      NULL },
    { "messages", "{\"model\":\"c\",", "invalid_json", NULL,
      "the request body is not valid JSON: unexpected end at byte 13",
      NULL },
    { "messages", "1", "not_an_object", NULL,
      "the request body must be a JSON object", NULL },
    { "messages", "{" MSG "}", "missing_model", "model",
      "the \"model\" member is missing", NULL },
    { "messages", "{\"model\":\"c\"}", "missing_member", "messages",
      "the \"messages\" member is missing", NULL },
    { "messages", "{\"model\":\"c\",\"messages\":{}}", "invalid_type",
      "messages", "the \"messages\" member must be an array", NULL },
    { "messages", "{\"model\":true," MSG "}", "invalid_type", "model",
      "the \"model\" member must be a non-empty string", NULL },
    { "messages", "{\"model\":\"c\"," MSG ",\"stream\":0}", "invalid_type",
      "stream", "the \"stream\" member must be a boolean", NULL },
    { "messages", "{\"model\":\"c\",\"model\":\"c\"," MSG "}",
      "duplicate_member", "model",
      "the \"model\" member is given more than once", NULL },
    { "messages", "{\"model\":\"c\",\"stream\":true,\"stream\":false," MSG
      "}", "duplicate_member", "stream",
      "the \"stream\" member is given more than once", NULL },
    { "messages", "{\"model\":\"c\"," MSG "," MSG "}", "duplicate_member",
      "messages", "the \"messages\" member is given more than once", NULL },
    { "messages", "{\"model\":\"\\t\"," MSG "}", "invalid_model", "model",
      "the \"model\" member is too long or has control bytes in it", NULL },
    { "messages/count_tokens", "{\"model\":\"c\",\"messages\":1}",
      "invalid_type", "messages", "the \"messages\" member must be an array",
      NULL },
    { "messages/count_tokens", "{}", "missing_model", "model",
      "the \"model\" member is missing", NULL }
};


static void
builds(void)
{
    pool_t         pool;
    llm_str_t      out;
    llm_uint_t     n;
    llm_error_t    err;
    llm_change_t   change;
    llm_splice_t   s[LLM_SPLICES];
    llm_request_t  rq;
    static char    body[] = " {" MSG ",\"stream\":true,\"model\" : \"a\"}\n";

    pool_init(&pool, 0);

    parse(&rq, D, "messages", text(&pool, body, strlen(body)), &pool.mem,
          &err);

    memset(&change, 0, sizeof(llm_change_t));

    change.model = cstr("b\"");
    change.ask_usage = 1;

    is_int(llm_dialect_anthropic.build(&rq, &change, &pool.mem, s, &n),
           LLM_OK, "build");
    out = splice(&pool, &rq.body, s, n);
    is(&out, " {" MSG ",\"stream\":true,\"model\" : \"b\\\"\"}\n",
       "build: another model");

    change.model = cstr("a");
    llm_dialect_anthropic.build(&rq, &change, &pool.mem, s, &n);
    is_int(n, 0, "build: the same model");

    change.model = cstr("");
    llm_dialect_anthropic.build(&rq, &change, &pool.mem, s, &n);
    is_int(n, 0, "build: no model");

    parse(&rq, D, "messages", cstr("{\"max_tokens\":32001 ,\"model\":\"a\","
                                   "\"messages\":[]}"), &pool.mem, &err);

    change.model = cstr("b");
    change.max_output = 32000;
    llm_dialect_anthropic.build(&rq, &change, &pool.mem, s, &n);
    out = splice(&pool, &rq.body, s, n);
    is(&out, "{\"max_tokens\":32000 ,\"model\":\"b\",\"messages\":[]}",
       "build: a smaller limit");

    change.model = cstr("");
    change.max_output = 32001;
    llm_dialect_anthropic.build(&rq, &change, &pool.mem, s, &n);
    is_int(n, 0, "build: a limit that fits");

    out = cstr("stream_options");
    is_int(llm_dialect_anthropic.rejected(400, &out), 0, "rejected: never");

    pool_free(&pool);
}


#define START                                                                 \
    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"     \
    "\"message\",\"role\":\"assistant\",\"content\":[],\"model\":"            \
    "\"claude-opus-4-6\",\"stop_reason\":null,\"stop_sequence\":null,"        \
    "\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":7,"       \
    "\"cache_read_input_tokens\":100,\"output_tokens\":1}}}"

#define BLOCK(i, block)                                                       \
    "{\"type\":\"content_block_start\",\"index\":" i ",\"content_block\":"    \
    block "}"

#define DELTA(i, delta)                                                       \
    "{\"type\":\"content_block_delta\",\"index\":" i ",\"delta\":" delta "}"

#define STOP(i)  "{\"type\":\"content_block_stop\",\"index\":" i "}"

#define ENDED(reason, usage)                                                  \
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"" reason "\","  \
    "\"stop_sequence\":null},\"usage\":" usage "}"

#define PING  "{\"type\": \"ping\"}"


static const step_t  text_stream[] = {
    { NULL, NULL, "PG", "" },
    { "message_start", START, "P", "" },
    { "content_block_start", BLOCK("0", "{\"type\":\"text\",\"text\":\"\"}"),
      "P", "" },
    { "ping", PING, "PG", "" },
    { "content_block_delta", DELTA("0", "{\"type\":\"text_delta\",\"text\":"
      "\"Hello\"}"), "", "b" },
    { "ping", PING, "PG", "b" },
    { "content_block_stop", STOP("0"), "", "b" },
    { "message_delta", ENDED("end_turn", "{\"output_tokens\":15}"), "",
      "bf" },
    { "message_stop", "{\"type\":\"message_stop\"}", "T", "bft" }
};


static const step_t  tool_stream[] = {
    { "message_start", START, "P", "" },
    { NULL, BLOCK("0", "{\"type\":\"thinking\",\"thinking\":\"\","
                  "\"signature\":\"\"}"), "P", "" },
    { NULL, DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\"x\"}"),
      "", "b" },
    { NULL, STOP("0"), "", "b" },
    { NULL, BLOCK("1", "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":"
                  "\"f\",\"input\":{}}"), "", "bo" },
    { NULL, DELTA("1", "{\"type\":\"input_json_delta\",\"partial_json\":"
                  "\"{\"}"), "", "bo" },
    { NULL, "{\"type\":\"content_bl", "M", "bo" },
    { NULL, STOP("1"), "", "b" },
    { NULL, BLOCK("2", "{\"type\":\"server_tool_use\",\"id\":\"srv\"}"), "",
      "bo" },
    { NULL, STOP("0"), "", "bo" },
    { NULL, STOP("2"), "", "b" },
    { NULL, BLOCK("66", "{\"type\":\"mcp_tool_use\",\"id\":\"srv\"}"), "",
      "bo" },
    { NULL, ENDED("tool_use", "{\"output_tokens\":89,\"input_tokens\":26,"
                  "\"cache_read_input_tokens\":null,"
                  "\"output_tokens_details\":{\"thinking_tokens\":12}}"), "",
      "bf" },
    { NULL, "{\"type\":\"message_stop\"}", "T", "bft" }
};


static const step_t  structured_stream[] = {
    { NULL, START, "P", "" },
    { NULL, BLOCK("0", "{\"type\":\"text\",\"text\":\"\"}"), "P", "" },
    { NULL, DELTA("0", "{\"type\":\"text_delta\",\"text\":\"{\"}"), "",
      "bo" },
    { NULL, STOP("0"), "", "bo" },
    { NULL, ENDED("end_turn", "{}"), "", "bf" }
};


/* what releases: a tool, a block that is not empty or not known */

static const step_t  release_tool[] = {
    { NULL, START, "P", "" },
    { NULL, BLOCK("0", "{\"type\":\"tool_use\",\"id\":\"t\"}"), "", "bo" }
};

static const step_t  release_text[] = {
    { NULL, BLOCK("0", "{\"type\":\"text\",\"text\":\"a\"}"), "", "b" }
};

static const step_t  release_thinking[] = {
    { NULL, BLOCK("0", "{\"type\":\"thinking\",\"thinking\":\"\","
                  "\"signature\":\"s\"}"), "", "b" }
};

static const step_t  release_redacted[] = {
    { NULL, BLOCK("0", "{\"type\":\"redacted_thinking\",\"data\":\"x\"}"),
      "", "b" }
};

static const step_t  release_block[] = {
    { NULL, BLOCK("0", "{\"type\":\"new\"}"), "", "b" },
    { NULL, BLOCK("0", "null"), "", "b" },
    { NULL, BLOCK("0", "{\"type\":7}"), "", "b" },
    { NULL, BLOCK("0", "{\"type\":\"tool_use\\u0021\"}"), "", "b" }
};

static const step_t  odd[] = {
    { "something_new", "{\"type\":\"something_new\",\"error\":{}}", "", "b" },
    { "ping", "[]", "", "b" },
    { NULL, "7", "", "b" },
    { NULL, "", "M", "b" },
    { NULL, "[DONE]", "M", "b" },
    { NULL, "{\"type\":\"message_start\",\"message\":null}", "P", "b" },
    { NULL, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null}}",
      "", "b" },
    { NULL, "{\"type\":\"message_delta\",\"usage\":[]}", "", "b" },
    { NULL, STOP("-1"), "", "b" }
};

static const step_t  by_field[] = {
    { "message_start", "{\"message\":{\"usage\":{\"input_tokens\":3}}}",
      "P", "" },
    { "ping", "{}", "PG", "" },
    { "message_start", "{\"type\":\"ping\"}", "PG", "" },
    { "message_stop", "{}", "T", "bt" }
};


static void
events(void)
{
    run_mem_t     m;
    llm_answer_t  a;

#define RUN(json, name, s)                                                    \
    run_mem(&m, 0);                                                           \
    answer_init(&a, D, "messages", &m.mem);                                   \
    a.structured = json;                                                      \
    a.hide_usage = 1;                                                         \
    STEPS(name, &a, s)

#define END()                                                                 \
    llm_dialect_anthropic.answer_free(&a);                                    \
    llm_dialect_anthropic.answer_free(&a);                                    \
    is_int(m.live, 0, "nothing left")

    RUN(0, "messages: text", text_stream);
    is_usage(&a, "132/15/100/7/-", "messages: usage");
    is_reason(&a, "end_turn", "messages: reason");
    END();

    RUN(0, "messages: tools", tool_stream);
    is_usage(&a, "133/89/100/7/12", "messages: usage");
    is_reason(&a, "tool_use", "messages: reason");
    END();

    RUN(1, "messages: structured", structured_stream);
    END();
    RUN(0, "messages: a tool releases", release_tool);
    END();
    RUN(0, "messages: a text releases", release_text);
    END();
    RUN(0, "messages: a thought releases", release_thinking);
    END();
    RUN(0, "messages: a redacted thought releases", release_redacted);
    END();
    RUN(0, "messages: an unknown block releases", release_block);
    END();
    RUN(0, "messages: odd events", odd);
    END();
    RUN(0, "messages: type in event:", by_field);
    is_usage(&a, "3/-/-/-/-", "messages: usage");
    END();
}


static void
failed(void)
{
    size_t         i;
    run_mem_t      m;
    llm_int_t      rc;
    llm_uint_t     what;
    llm_answer_t   a;
    static const struct {
        const char  *type;
        const char  *data;
        int          status;
    } t[] = {
#define ERR(type)  "error", "{\"type\":\"error\",\"error\":{\"type\":\""      \
                   type "\",\"message\":\"x\"}}"
        { ERR("invalid_request_error"), 400 },
        { ERR("authentication_error"), 401 },
        { ERR("billing_error"), 402 },
        { ERR("permission_error"), 403 },
        { ERR("not_found_error"), 404 },
        { ERR("request_too_large"), 413 },
        { ERR("rate_limit_error"), 429 },
        { ERR("timeout_error"), 504 },
        { ERR("api_error"), 500 },
        { ERR("overloaded_error"), 529 },
        { ERR("new_error"), 502 },
        { "error", "{}", 502 },
        { NULL, "{\"type\":\"error\"}", 502 },
        { NULL, "{\"error\":{\"type\":\"api_error\"}}", 500 },
        { NULL, "{\"error\":\"boom\"}", 502 }
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        run_mem(&m, 0);
        answer_init(&a, D, "messages", &m.mem);

        rc = event(&a, t[i].type, t[i].data, strlen(t[i].data), &what);

        ok(rc == LLM_OK && what == LLM_EV_ERROR && a.failed && !a.begun
           && !a.terminal && a.status == t[i].status,
           "error event: %d %s", a.status, t[i].data);

        llm_dialect_anthropic.answer_free(&a);
    }
}


static void
texts(void)
{
    size_t        i;
    pool_t        pool;
    run_mem_t     m;
    llm_str_t     out;
    llm_uint_t    what;
    llm_error_t   err;
    llm_answer_t  a;
    static const struct {
        int          status;
        const char  *type;
    } t[] = {
        { 400, "invalid_request_error" }, { 401, "authentication_error" },
        { 402, "billing_error" }, { 403, "permission_error" },
        { 404, "not_found_error" }, { 405, "invalid_request_error" },
        { 413, "request_too_large" }, { 415, "invalid_request_error" },
        { 422, "invalid_request_error" }, { 429, "rate_limit_error" },
        { 500, "api_error" }, { 502, "api_error" },
        { 503, "overloaded_error" }, { 504, "timeout_error" },
        { 529, "overloaded_error" }
    };

    pool_init(&pool, 0);
    memset(&err, 0, sizeof(llm_error_t));

    err.code = "c";
    err.message = cstr("a \"b\"");

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        char  want[256];

        err.status = t[i].status;
        llm_dialect_anthropic.error(&err, &pool.mem, &out);
        sprintf(want, "{\"type\":\"error\",\"error\":{\"type\":\"%s\","
                "\"message\":\"a \\\"b\\\"\",\"code\":\"c\"},"
                "\"request_id\":null}", t[i].type);
        is(&out, want, t[i].type);
    }

    run_mem(&m, 0);
    answer_init(&a, D, "messages", &m.mem);

    err.request_id = cstr("req\"1");
    llm_dialect_anthropic.stream_error(&a, &err, &pool.mem, &out);
    is(&out, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
       "\"overloaded_error\",\"message\":\"a \\\"b\\\"\",\"code\":\"c\"},"
       "\"request_id\":\"req\\\"1\"}\n\n", "stream_error");

#define SAYS(data)  event(&a, NULL, data, strlen(data), &what)

    llm_dialect_anthropic.ping(&a, &out);
    is(&out, ": ping\n\n", "ping: before the first event");

    SAYS(START);
    llm_dialect_anthropic.ping(&a, &out);
    is(&out, ": ping\n\n", "ping: message_start may be held");

    SAYS(DELTA("0", "{}"));
    llm_dialect_anthropic.ping(&a, &out);
    is(&out, "event: ping\ndata: {\"type\": \"ping\"}\n\n", "ping");

    llm_dialect_anthropic.stream_end(&a, &pool.mem, &out);
    is(&out, "", "stream_end: not finished");

    SAYS(ENDED("end_turn", "{}"));
    llm_dialect_anthropic.stream_end(&a, &pool.mem, &out);
    is(&out, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
       "stream_end");

    SAYS("{\"type\":\"message_stop\"}");
    llm_dialect_anthropic.stream_end(&a, &pool.mem, &out);
    is(&out, "", "stream_end: nothing more");

    llm_dialect_anthropic.answer_free(&a);

    memset(&a, 0, sizeof(llm_answer_t));
    llm_dialect_anthropic.ping(&a, &out);
    is(&out, ": ping\n\n", "ping: an attempt that never began");
    llm_dialect_anthropic.stream_error(&a, &err, &pool.mem, &out);
    ok(out.len > 0, "stream_error: an attempt that never began");

    pool_free(&pool);
}


static void
models(void)
{
    size_t       i;
    pool_t       pool;
    llm_str_t    out;
    llm_model_t  m[2] = {
        { llm_string("claude-x"), llm_string("anthropic") },
        { llm_string("a\"b"), llm_string("x") }
    };
    static const struct {
        time_t       t;
        const char  *text;
    } times[] = {
        { 0, "1970-01-01T00:00:00Z" },
        { -5, "1970-01-01T00:00:00Z" },
        { 951782399, "2000-02-28T23:59:59Z" },
        { 951782400, "2000-02-29T00:00:00Z" },
        { 951868800, "2000-03-01T00:00:00Z" },
        { 1078012800, "2004-02-29T00:00:00Z" },
        { 1795446245, "2026-11-23T15:04:05Z" },
        { 4102444799, "2099-12-31T23:59:59Z" },
        { 4107542400, "2100-03-01T00:00:00Z" }
    };

    pool_init(&pool, 0);

    llm_dialect_anthropic.models(m, 2, 0, &pool.mem, &out);
    is(&out, "{\"data\":[{\"type\":\"model\",\"id\":\"claude-x\","
       "\"display_name\":\"claude-x\",\"created_at\":"
       "\"1970-01-01T00:00:00Z\"},{\"type\":\"model\",\"id\":\"a\\\"b\","
       "\"display_name\":\"a\\\"b\",\"created_at\":"
       "\"1970-01-01T00:00:00Z\"}],\"has_more\":false,\"first_id\":"
       "\"claude-x\",\"last_id\":\"a\\\"b\"}", "models");

    llm_dialect_anthropic.models(m, 0, 0, &pool.mem, &out);
    is(&out, "{\"data\":[],\"has_more\":false,\"first_id\":null,"
       "\"last_id\":null}", "models: none");

    for (i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        char  want[256];

        llm_dialect_anthropic.model(m, times[i].t, &pool.mem, &out);
        sprintf(want, "{\"type\":\"model\",\"id\":\"claude-x\","
                "\"display_name\":\"claude-x\",\"created_at\":\"%s\"}",
                times[i].text);
        is(&out, want, "model");
    }

    pool_free(&pool);
}


/* every day of 400 years, against libc */

static void
calendar(void)
{
    int          bad;
    char         want[64], *p;
    pool_t       pool;
    time_t       t;
    struct tm    tm;
    llm_str_t    out;
    llm_model_t  m = { llm_string("m"), llm_string("o") };

    bad = 0;

    for (t = 0; t < (time_t) 86400 * 146097; t += 86400 + 17) {
        pool_init(&pool, 0);

        llm_dialect_anthropic.model(&m, t, &pool.mem, &out);
        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%SZ\"}", &tm);
        p = (char *) out.data + out.len - strlen(want);
        bad += memcmp(p, want, strlen(want)) != 0;

        pool_free(&pool);
    }

    ok(bad == 0, "model: the calendar of 400 years");
}


static void
plains(void)
{
    plain("messages", D, "messages", "{\"id\":\"msg_1\",\"type\":"
          "\"message\",\"content\":[{\"type\":\"text\",\"text\":\"{}\"}],"
          "\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":10,"
          "\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":3,"
          "\"output_tokens\":4}}", "f", 0, "end_turn", "15/4/3/2/-");
    plain("count_tokens", D, "messages/count_tokens",
          "{\"input_tokens\":2095}", "f", 0, "", "2095/-/-/-/-");
    plain("error", D, "messages", "{\"type\":\"error\",\"error\":{\"type\":"
          "\"overloaded_error\",\"message\":\"Overloaded\"},\"request_id\":"
          "null}", "x", 529, "", "-/-/-/-/-");
    plain("count_tokens, error", D, "messages/count_tokens",
          "{\"error\":{\"type\":\"not_found_error\"}}", "x", 404, "",
          "-/-/-/-/-");
    plain("cut", D, "messages", "{\"stop_reason\":\"end_turn\",\"usage\":{",
          "", 0, "end_turn", "-/-/-/-/-");
    plain("no JSON", D, "messages", "oops", "", 0, "", "-/-/-/-/-");
    plain("nothing", D, "messages", "", "", 0, "", "-/-/-/-/-");
}


static int
scenario(size_t fail, size_t *calls)
{
    int            oom;
    size_t         i;
    pool_t         pool;
    run_mem_t      m;
    llm_str_t      out;
    llm_uint_t     n, what;
    llm_error_t    err;
    llm_change_t   change;
    llm_splice_t   s[LLM_SPLICES];
    llm_answer_t   a;
    llm_request_t  rq;
    llm_model_t    model = { llm_string("a"), llm_string("b") };
    static char    good[] = "{\"model\":\"\\u0061\"," MSG ",\"stream\":true,"
                            "\"max_tokens\":2}";

    pool_init(&pool, fail);
    oom = 0;

#define OOM(rc)  if ((rc) == LLM_ERROR) { oom = 1; goto done; }

    memset(&a, 0, sizeof(llm_answer_t));

    m = pool.run;
    m.mem.ctx = &pool.run;
    answer_init(&a, D, "messages", &m.mem);

    OOM(parse(&rq, D, "messages", cstr(good), &pool.mem, &err));

    change.model = cstr("b");
    change.max_output = 1;
    change.shown = cstr("c");
    change.ask_usage = 1;

    OOM(llm_dialect_anthropic.build(&rq, &change, &pool.mem, s, &n));
    OOM(parse(&rq, D, "messages", cstr("{}"), &pool.mem, &err));
    OOM(llm_dialect_anthropic.error(&err, &pool.mem, &out));

    for (i = 0; i < 8; i++) {
        OOM(event(&a, NULL, text_stream[i].data,
                  text_stream[i].data ? strlen(text_stream[i].data) : 0,
                  &what));
    }

    OOM(llm_dialect_anthropic.stream_error(&a, &err, &pool.mem, &out));
    OOM(llm_dialect_anthropic.stream_end(&a, &pool.mem, &out));
    llm_dialect_anthropic.answer_free(&a);
    OOM(llm_dialect_anthropic.plain(&a, (u_char *) good,
                                    (u_char *) good + 20));
    OOM(llm_dialect_anthropic.plain_end(&a));
    OOM(llm_dialect_anthropic.models(&model, 1, 0, &pool.mem, &out));
    OOM(llm_dialect_anthropic.model(&model, 0, &pool.mem, &out));

done:

    llm_dialect_anthropic.answer_free(&a);
    *calls = pool.run.calls;
    pool_free(&pool);

    return (pool.run.live != 0) || (oom != (fail && fail <= *calls));
}


static void
allocations(void)
{
    int     bad;
    size_t  i, n, calls;

    bad = scenario(0, &n);

    for (i = 1; i <= n; i++) {
        bad += scenario(i, &calls);
    }

    ok(bad == 0 && n > 8, "memory: %zu allocations fail", n);
}


int
main(void)
{
    parse_all(D, parses, sizeof(parses) / sizeof(parses[0]));
    builds();
    events();
    failed();
    texts();
    models();
    calendar();
    plains();
    allocations();

    return done();
}
