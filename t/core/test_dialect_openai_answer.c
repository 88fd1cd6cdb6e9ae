
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect's answers: streams as the public documentation and
 * other servers of the dialect show them, plain answers, the texts of ours
 * that depend on an answer, and a whole life with allocations that fail.
 */


#include "dialect.h"


#define D  &llm_dialect_openai

#define CHAT  "chat/completions"
#define MSG   "\"messages\":[]"


/* --------------------------------------------------------------- events */

#define HEAD(rest)                                                            \
    "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":"          \
    "\"chat.completion.chunk\",\"created\":1741569952,\"model\":"             \
    "\"gpt-4.1-2025-04-14\",\"service_tier\":\"default\","                    \
    "\"system_fingerprint\":\"fp_44709d6fcb\"," rest "}"

#define CHUNK(delta, reason)                                                  \
    HEAD("\"choices\":[{\"index\":0,\"delta\":" delta ",\"logprobs\":null,"   \
         "\"finish_reason\":" reason "}],\"usage\":null,"                     \
         "\"obfuscation\":\"aB3\"")

#define USAGE                                                                 \
    "{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,"     \
    "\"prompt_tokens_details\":{\"cached_tokens\":4,\"audio_tokens\":0},"     \
    "\"completion_tokens_details\":{\"reasoning_tokens\":2}}"


static const step_t  chat_text[] = {
    { NULL, NULL, "PG", "" },
    { NULL, CHUNK("{\"role\":\"assistant\",\"content\":\"\","
                  "\"refusal\":null}", "null"), "P", "" },
    { NULL, CHUNK("{\"content\":\"Hello\"}", "null"), "", "b" },
    { NULL, CHUNK("{\"content\":\"\"}", "null"), "P", "b" },
    { NULL, CHUNK("{}", "\"stop\""), "", "bf" },
    { NULL, HEAD("\"choices\":[],\"usage\":" USAGE), "H", "bf" },
    { NULL, "[DONE]", "T", "bft" }
};


static const step_t  chat_usage_shown[] = {
    { NULL, CHUNK("{\"role\":\"assistant\"}", "null"), "P", "" },
    { NULL, CHUNK("{\"content\":\"Hello\"}", "null"), "", "b" },
    { NULL, HEAD("\"choices\":[{\"index\":0,\"delta\":{},"
                 "\"finish_reason\":\"length\"}],\"usage\":" USAGE),
      "", "bf" },
    { NULL, HEAD("\"choices\":[ ],\"usage\":" USAGE), "", "bf" },
    { NULL, " [DONE]  ", "T", "bft" }
};


/* Azure: the first chunk has no choices, later ones are about filters */

static const step_t  chat_azure[] = {
    { NULL, "{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\","
      "\"object\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0,"
      "\"content_filter_results\":{\"hate\":{\"filtered\":false}}}]}",
      "P", "" },
    { NULL, "{\"choices\":[{\"content_filter_results\":{},\"delta\":"
      "{\"content\":\"\",\"refusal\":null,\"role\":\"assistant\"},"
      "\"finish_reason\":null,\"index\":0,\"logprobs\":null}],"
      "\"created\":1,\"usage\":null}", "P", "" },
    { NULL, "{\"choices\":[{\"delta\":{\"content\":\"Hi\"},"
      "\"finish_reason\":null,\"index\":0}]}", "", "b" },
    { NULL, "{\"choices\":[{\"delta\":{},"
      "\"finish_reason\":\"content_filter\",\"index\":0}]}", "", "bf" }
};


static const step_t  chat_tools[] = {
    { NULL, CHUNK("{\"role\":\"assistant\",\"content\":null,"
                  "\"tool_calls\":[]}", "null"), "P", "" },
    { NULL, CHUNK("{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\","
                  "\"type\":\"function\",\"function\":{\"name\":\"f\","
                  "\"arguments\":\"\"}}]}", "null"), "", "bo" },
    { NULL, "{\"choices\":[{\"delta\":{\"tool_calls\":[", "M", "bo" },
    { NULL, CHUNK("{\"tool_calls\":[{\"index\":0,\"function\":{"
                  "\"arguments\":\"{}\"}}]}", "null"), "", "bo" },
    { NULL, CHUNK("{}", "\"tool_calls\""), "", "bf" },
    { NULL, "[DONE]", "T", "bft" }
};


static const step_t  chat_function[] = {
    { NULL, CHUNK("{\"role\":\"assistant\",\"function_call\":null}", "null"),
      "P", "" },
    { NULL, CHUNK("{\"f\\u0075nction_call\":{\"name\":\"f\"}}", "null"),
      "", "bo" },
    { NULL, CHUNK("{}", "\"function_call\""), "", "bf" }
};


/* unknown shapes are shown, and release */

static const step_t  chat_unknown[] = {
    { NULL, CHUNK("{\"reasoning_content\":null,\"role\":\"assistant\"}",
                  "\"\""), "P", "" },
    { NULL, CHUNK("{\"reasoning_content\":\"hm\"}", "null"), "", "b" }
};

static const step_t  chat_unknown2[] = {
    { NULL, "{\"choices\":[{\"index\":0,\"message\":{}}]}", "", "b" }
};

static const step_t  chat_unknown3[] = {
    { NULL, "{\"type\":\"something.new\"}", "", "b" },
    { NULL, "{\"choices\":null}", "", "b" },
    { NULL, "{\"choices\":[null]}", "", "b" },
    { NULL, "[1,2]", "", "b" },
    { NULL, "null", "", "b" },
    { NULL, "hello", "M", "b" },
    { NULL, "", "M", "b" },
    { NULL, "{\"choices\":[]} x", "M", "b" },
    { NULL, "{\"a\":\"\xff\"}", "M", "b" },
    { NULL, "[DONE]]", "M", "b" }
};


/* several choices: whole when each has its reason */

static const step_t  chat_n[] = {
    { NULL, "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}"
      ",{\"index\":1,\"delta\":{\"role\":\"assistant\"}}]}", "P", "" },
    { NULL, "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}",
      "", "b" },
    { NULL, "{\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":"
      "\"stop\"}]}", "", "b" },
    { NULL, "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":"
      "\"length\"}]}", "", "bf" },
    { NULL, "{\"choices\":[{\"index\":100,\"delta\":{\"content\":\"a\"}}]}",
      "", "b" },
    { NULL, "{\"choices\":[{\"index\":100,\"delta\":{},\"finish_reason\":"
      "\"stop\"}]}", "", "bf" },
    { NULL, "{\"choices\":[{\"index\":128,\"delta\":{},\"finish_reason\":"
      "\"stop\"}]}", "", "b" }
};


static const step_t  chat_structured[] = {
    { NULL, CHUNK("{\"role\":\"assistant\",\"content\":\"\"}", "null"), "P",
      "" },
    { NULL, CHUNK("{\"content\":\"{\"}", "null"), "", "bo" },
    { NULL, CHUNK("{\"content\":\"}\"}", "null"), "", "bo" },
    { NULL, CHUNK("{}", "\"stop\""), "", "bf" }
};


static const step_t  completions[] = {
    { NULL, "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"choices\":"
      "[{\"text\":\"\",\"index\":0,\"logprobs\":null,"
      "\"finish_reason\":null}]}", "P", "" },
    { NULL, "{\"choices\":[{\"text\":\"This\",\"index\":0,"
      "\"finish_reason\":null}]}", "", "b" },
    { NULL, "{\"choices\":[{\"text\":\"\",\"index\":0,"
      "\"finish_reason\":\"stop\"}]}", "", "bf" },
    { NULL, "{\"choices\":[],\"usage\":" USAGE "}", "H", "bf" },
    { NULL, "[DONE]", "T", "bft" }
};

static const step_t  completions_unknown[] = {
    { NULL, "{\"choices\":[{\"index\":0,\"delta\":{}}]}", "", "b" }
};


typedef struct {
    const char            *path;
    const char            *type;
    const char            *data;
    int                    status;
} fail_t;


static const fail_t  failures[] = {
    { CHAT, NULL, "{\"error\":{\"message\":\"x\",\"type\":\"server_error\","
      "\"param\":null,\"code\":null}}", 500 },
    { CHAT, NULL, "{\"error\":{\"type\":\"requests\",\"code\":"
      "\"rate_limit_exceeded\"}}", 429 },
    { CHAT, NULL, "{\"error\":{\"type\":\"insufficient_quota\"}}", 429 },
    { CHAT, NULL, "{\"error\":{\"type\":\"invalid_request_error\"}}", 400 },
    { CHAT, NULL, "{\"error\":{\"type\":\"invalid_request_error\","
      "\"code\":\"model_not_found\"}}", 404 },
    { CHAT, NULL, "{\"error\":{\"type\":\"authentication_error\"}}", 401 },
    { CHAT, NULL, "{\"error\":{\"type\":\"permission_error\"}}", 403 },
    { CHAT, NULL, "{\"error\":{\"type\":\"overloaded_error\"}}", 503 },
    { CHAT, NULL, "{\"error\":{\"type\":\"server_error\",\"code\":429}}",
      429 },
    { CHAT, NULL, "{\"error\":{\"code\":\"503\"}}", 503 },
    { CHAT, NULL, "{\"error\":{\"code\":\"abc\"}}", 502 },
    { CHAT, NULL, "{\"error\":{\"code\":200}}", 502 },
    { CHAT, NULL, "{\"error\":{\"code\":600}}", 502 },
    { CHAT, NULL, "{\"error\":\"boom\"}", 502 },
    { CHAT, NULL, "{\"error\":{}}", 502 },
    { CHAT, NULL, "{\"choices\":[],\"error\":{\"code\":502}}", 502 },
    { CHAT, NULL, "{\"object\":\"error\",\"message\":\"x\",\"code\":400}",
      400 },
    { CHAT, NULL, " \n {\"object\":\"error\",\"code\":401}", 401 },
    { CHAT, "error", "{\"message\":\"x\",\"type\":\"server_error\"}", 500 },
    { "completions", NULL, "{\"error\":{\"type\":\"server_error\"}}", 500 },
    { "responses", "error", "{\"type\":\"error\",\"code\":"
      "\"rate_limit_exceeded\",\"message\":\"x\",\"param\":null,"
      "\"sequence_number\":1}", 429 },
    { "responses", NULL, "{\"type\":\"error\",\"error\":{\"type\":"
      "\"server_error\",\"code\":\"server_error\"}}", 500 },
    { "responses", NULL, "{\"error\":{\"type\":\"server_error\"}}", 500 },
    { "responses", "error", "{\"message\":\"x\"}", 502 }
};


static void
failed(void)
{
    size_t         i;
    run_mem_t      m;
    llm_int_t      rc;
    llm_uint_t     what;
    llm_answer_t   a;

    for (i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        run_mem(&m, 0);
        answer_init(&a, D, failures[i].path, &m.mem);

        rc = event(&a, failures[i].type, failures[i].data,
                   strlen(failures[i].data), &what);

        ok(rc == LLM_OK && what == LLM_EV_ERROR && a.failed && !a.begun
           && !a.terminal && a.status == failures[i].status,
           "error event: %d %s", a.status, failures[i].data);

        llm_dialect_openai.answer_free(&a);
    }

    for (i = 0; i < 3; i++) {
        static const char  *const none[] = {
            "{\"choices\":[],\"error\":null}",
            "{\"choices\":[],\"error\":\"\"}",
            "{\"choices\":[],\"error\":false}"
        };

        run_mem(&m, 0);
        answer_init(&a, D, CHAT, &m.mem);
        event(&a, NULL, none[i], strlen(none[i]), &what);
        ok(what == LLM_EV_PREAMBLE && !a.failed, "no error: %s", none[i]);
        llm_dialect_openai.answer_free(&a);
    }
}


/* usage of one choice (Kimi), reasons that are no words */

static const step_t  chat_choice_usage[] = {
    { NULL, "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":"
      "\"a b\\n\\u00e9" "12345678901234567890123456789012\",\"usage\":" USAGE
      "}]}", "", "bf" }
};

static const step_t  chat_long_reason[] = {
    { NULL, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"\\u0061"
      "1234567890123456789012345678901234567890123456789012345678901234567890"
      "1234567890123456789012345678901234567890123456789012345678901234567890"
      "1234567890123456789012345678901234567890123456789012345678901234567890"
      "\"}]}", "", "bf" }
};


static void
chat_events(void)
{
    run_mem_t     m;
    llm_answer_t  a;

#define RUN(path, hide, json, name, s)                                        \
    run_mem(&m, 0);                                                           \
    answer_init(&a, D, path, &m.mem);                                         \
    a.hide_usage = hide;                                                      \
    a.structured = json;                                                      \
    STEPS(name, &a, s)

#define END()                                                                 \
    llm_dialect_openai.answer_free(&a);                                       \
    llm_dialect_openai.answer_free(&a);                                       \
    is_int(m.live, 0, "nothing left")

    RUN(CHAT, 1, 0, "chat: text, usage hidden", chat_text);
    is_usage(&a, "19/10/4/-/2", "chat: usage");
    is_reason(&a, "stop", "chat: reason");
    END();

    RUN(CHAT, 0, 0, "chat: usage shown", chat_usage_shown);
    is_usage(&a, "19/10/4/-/2", "chat: usage with content");
    is_reason(&a, "length", "chat: reason");
    END();

    RUN(CHAT, 1, 0, "chat: Azure", chat_azure);
    is_usage(&a, "-/-/-/-/-", "chat: no usage");
    is_reason(&a, "content_filter", "chat: reason");
    END();

    RUN(CHAT, 0, 0, "chat: tool calls", chat_tools);
    END();
    RUN(CHAT, 0, 0, "chat: function call", chat_function);
    END();
    RUN(CHAT, 0, 0, "chat: unknown member of a delta", chat_unknown);
    END();
    RUN(CHAT, 0, 0, "chat: unknown choice", chat_unknown2);
    END();
    RUN(CHAT, 0, 0, "chat: unknown events, broken ones", chat_unknown3);
    END();
    RUN(CHAT, 0, 0, "chat: several choices", chat_n);
    END();
    RUN(CHAT, 0, 1, "chat: structured output", chat_structured);
    END();
    RUN(CHAT, 0, 0, "chat: usage in a choice", chat_choice_usage);
    is_usage(&a, "19/10/4/-/2", "chat: usage in a choice");
    is_reason(&a, "a_b___12345678901234567890123456", "chat: reason");
    END();
    RUN(CHAT, 0, 0, "chat: an endless reason", chat_long_reason);
    is_reason(&a, "", "chat: reason");
    END();

    RUN("completions", 1, 0, "completions", completions);
    is_usage(&a, "19/10/4/-/2", "completions: usage");
    END();
    RUN("completions", 1, 0, "completions: unknown", completions_unknown);
    END();
}


/* ------------------------------------------------------------ responses */

#define RESP(status, rest)                                                    \
    "\"response\":{\"id\":\"resp_67c9\",\"object\":\"response\","             \
    "\"created_at\":1741290958,\"status\":\"" status "\",\"error\":null,"     \
    "\"incomplete_details\":null,\"model\":\"gpt-4.1\",\"output\":[]" rest "}"

#define RUSAGE                                                                \
    ",\"usage\":{\"input_tokens\":37,\"output_tokens\":11,"                   \
    "\"output_tokens_details\":{\"reasoning_tokens\":3},"                     \
    "\"input_tokens_details\":{\"cached_tokens\":5,"                          \
    "\"cache_write_tokens\":6},\"total_tokens\":48}"


static const step_t  responses_text[] = {
    { "response.created", "{\"type\":\"response.created\","
      "\"sequence_number\":0," RESP("in_progress", "") "}", "P", "" },
    { "response.queued", "{\"type\":\"response.queued\","
      "\"sequence_number\":1," RESP("queued", "") "}", "P", "" },
    { "response.in_progress", "{\"type\":\"response.in_progress\","
      "\"sequence_number\":2," RESP("in_progress", "") "}", "P", "" },
    { "response.output_item.added",
      "{\"type\":\"response.output_item.added\",\"output_index\":0,"
      "\"item\":{\"id\":\"msg_1\",\"type\":\"message\"},"
      "\"sequence_number\":3}", "", "b" },
    { "response.output_text.delta",
      "{\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\","
      "\"output_index\":0,\"content_index\":0,\"delta\":\"Hi\","
      "\"sequence_number\":4,\"obfuscation\":\"x\"}", "", "b" },
    { "response.completed", "{\"type\":\"response.completed\","
      "\"sequence_number\":5," RESP("completed", RUSAGE) "}", "T", "bft" },
    { NULL, "[DONE]", "T", "bft" }
};


static const step_t  responses_calls[] = {
    { NULL, "{\"type\":\"response.output_item.added\",\"item\":"
      "{\"type\":\"function_call\",\"id\":\"fc_1\"}}", "", "bo" },
    { NULL, "{\"type\":\"response.function_call_arguments.delta\","
      "\"delta\":\"{\"}", "", "bo" },
    { NULL, "{\"type\":", "M", "bo" },
    { NULL, "{\"type\":\"response.output_item.done\",\"item\":"
      "{\"type\":\"function_call\",\"id\":\"fc_1\"}}", "", "b" },
    { NULL, "{\"type\":\"response.output_item.added\",\"item\":"
      "{\"type\":\"custom_tool_call\"}}", "", "bo" },
    { NULL, "[DONE]", "M", "bo" },
    { NULL, "{\"type\":\"response.incomplete\",\"response\":{\"status\":"
      "\"incomplete\",\"incomplete_details\":{\"reason\":"
      "\"max_output_tokens\"}}}", "T", "bft" }
};


/* the type may be told by the event field alone; others are passed on */

static const step_t  responses_field[] = {
    { "response.created", "{\"response\":{}}", "P", "" },
    { "response.something.new", "{\"a\":1}", "", "b" },
    { "response.completed", "{\"response\":{\"status\":\"completed\"}}",
      "T", "bft" }
};

static const step_t  responses_json[] = {
    { NULL, "{\"type\":\"response.created\"," RESP("in_progress", "") "}",
      "P", "" },
    { NULL, "{\"type\":\"response.output_text.delta\",\"delta\":\"{\"}", "",
      "bo" },
    { NULL, "{\"type\":\"response.output_text.done\"}", "", "bo" },
    { NULL, "{\"type\":\"response.completed\","
      RESP("completed", "") "}", "T", "bft" }
};

static const step_t  responses_failed[] = {
    { NULL, "{\"type\":\"response.created\"," RESP("in_progress", "") "}",
      "P", "" },
    { NULL, "{\"type\":\"response.failed\",\"response\":{\"status\":"
      "\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\","
      "\"message\":\"x\"}}}", "TE", "tx" }
};

static const step_t  responses_failed2[] = {
    { NULL, "{\"type\":\"response.failed\",\"error\":{\"code\":"
      "\"server_error\"}}", "TE", "tx" }
};

static const step_t  responses_odd[] = {
    { NULL, "[]", "", "b" },
    { NULL, "{}", "", "b" },
    { NULL, "{\"type\":7}", "", "b" },
    { NULL, "{\"type\":\"response.output_item.added\",\"item\":null}", "",
      "b" },
    { NULL, "{\"type\":\"response.output_item.done\",\"item\":{\"type\":"
      "\"x_call\"}}", "", "b" },
    { NULL, "{\"type\":\"response.completed\"}", "T", "bft" }
};


static void
responses_events(void)
{
    run_mem_t     m;
    llm_answer_t  a;

    RUN("responses", 0, 0, "responses: text", responses_text);
    is_usage(&a, "37/11/5/6/3", "responses: usage");
    is_reason(&a, "completed", "responses: reason");
    END();

    RUN("responses", 0, 0, "responses: calls", responses_calls);
    is_reason(&a, "max_output_tokens", "responses: reason");
    END();

    RUN("responses", 0, 0, "responses: type in event:", responses_field);
    END();
    RUN("responses", 0, 1, "responses: structured", responses_json);
    END();

    RUN("responses", 0, 0, "responses: failed", responses_failed);
    is_int(a.status, 429, "responses: status");
    is_reason(&a, "failed", "responses: reason");
    END();

    RUN("responses", 0, 0, "responses: failed, Perplexity's",
        responses_failed2);
    is_int(a.status, 500, "responses: status");
    END();

    RUN("responses", 0, 0, "responses: odd events", responses_odd);
    END();
}


/* ------------------------------------------------------------ our texts */

/* the JSON in one line of data of an event */

static llm_str_t
data_of(const llm_str_t *event, const char *before)
{
    size_t     len;
    llm_str_t  s;

    len = strlen(before);

    if (event->len < len + 2 || memcmp(event->data, before, len) != 0
        || memcmp(event->data + event->len - 2, "\n\n", 2) != 0)
    {
        return cstr("not an event");
    }

    s.data = event->data + len;
    s.len = event->len - len - 2;

    if (memchr(s.data, '\n', s.len) || memchr(s.data, '\r', s.len)) {
        return cstr("more than one line");
    }

    return s;
}


static void
chat_texts(void)
{
    pool_t        pool;
    run_mem_t     m;
    llm_str_t     out;
    llm_uint_t    what;
    llm_error_t   err;
    llm_answer_t  a;

    pool_init(&pool, 0);
    run_mem(&m, 0);
    answer_init(&a, D, CHAT, &m.mem);
    fill(&err, 502, "truncated", NULL, "cut");

    llm_dialect_openai.stream_error(&a, &err, &pool.mem, &out);
    is(&out, "data: {\"error\":{\"message\":\"cut\",\"type\":"
       "\"server_error\",\"param\":null,\"code\":\"truncated\"}}\n\n",
       "stream_error: chat");

    llm_dialect_openai.stream_end(&a, &pool.mem, &out);
    is(&out, "data: [DONE]\n\n", "stream_end: chat");

    event(&a, NULL, "[DONE]", 6, &what);
    llm_dialect_openai.stream_end(&a, &pool.mem, &out);
    is(&out, "", "stream_end: nothing more");

    llm_dialect_openai.ping(&a, &out);
    is(&out, ": ping\n\n", "ping");

    llm_dialect_openai.answer_free(&a);
    answer_init(&a, D, "responses", &m.mem);
    llm_dialect_openai.stream_end(&a, &pool.mem, &out);
    is(&out, "", "stream_end: responses");

    memset(&a, 0, sizeof(llm_answer_t));
    llm_dialect_openai.stream_error(&a, &err, &pool.mem, &out);
    ok(out.len && memcmp(out.data, "data: {", 7) == 0,
       "stream_error: an attempt that never began");
    llm_dialect_openai.stream_end(&a, &pool.mem, &out);
    llm_dialect_openai.answer_free(&a);

    pool_free(&pool);
}


static void
failure(const char *event_data, const char *want, const char *name)
{
    pool_t        pool;
    run_mem_t     m;
    llm_str_t     out, json;
    llm_uint_t    what;
    llm_error_t   err;
    llm_answer_t  a;

    pool_init(&pool, 0);
    run_mem(&m, 0);
    answer_init(&a, D, "responses", &m.mem);
    fill(&err, 502, "truncated", NULL, "cut");

    if (event_data) {
        event(&a, NULL, event_data, strlen(event_data), &what);
    }

    is_int(llm_dialect_openai.stream_error(&a, &err, &pool.mem, &out),
           LLM_OK, name);

    is(&out, want, name);

    json = data_of(&out, strncmp(want, "event: e", 8)
                         ? "event: response.failed\ndata: "
                         : "event: error\ndata: ");
    ok(valid(&json), "%s: valid JSON", name);

    llm_dialect_openai.answer_free(&a);
    is_int(m.live, 0, "nothing left");
    pool_free(&pool);
}


#define FAILED(seq, resp)                                                     \
    "event: response.failed\ndata: {\"type\":\"response.failed\","            \
    "\"sequence_number\":" seq ",\"response\":" resp "}\n\n"

#define FERR  "{\"code\":\"truncated\",\"message\":\"cut\"}"


static void
responses_texts(void)
{
    size_t       len;
    char        *big, *want, *p;
    static char  kept[] = "event: response.failed\ndata: {\"type\":"
        "\"response.failed\",\"sequence_number\":8,\"response\":{"
        "\"output\":[],\"id\":\"r\",\"created_at\":5,\"model\":\"m\","
        "\"status\":\"failed\",\"error\":" FERR "}}\n\n";

    failure(NULL, "event: error\ndata: {\"type\":\"error\",\"code\":"
            "\"truncated\",\"message\":\"cut\",\"param\":null,"
            "\"sequence_number\":0}\n\n", "stream_error: none seen");

    failure("{\"type\":\"response.x\",\"sequence_number\":3}",
            "event: error\ndata: {\"type\":\"error\",\"code\":"
            "\"truncated\",\"message\":\"cut\",\"param\":null,"
            "\"sequence_number\":4}\n\n", "stream_error: none, a number");

    failure("{\"type\":\"response.created\",\"sequence_number\":0,"
            RESP("in_progress", ",\"a\":[1.0]") "}",
            FAILED("1", "{\"id\":\"resp_67c9\",\"object\":\"response\","
            "\"created_at\":1741290958,\"status\":\"failed\",\"error\":" FERR
            ",\"incomplete_details\":null,\"model\":\"gpt-4.1\","
            "\"output\":[],\"a\":[1.0]}"), "stream_error: both replaced");

    failure("{\"type\":\"response.created\",\"sequence_number\":7,"
            "\"response\":{ \"error\" : null , \"st\\u0061tus\" : \"x\" }}",
            FAILED("8", "{ \"error\" : " FERR
                   " , \"st\\u0061tus\" : \"failed\" }"),
            "stream_error: other order, spaces, escapes");

    failure("{\"type\":\"response.created\",\"sequence_number\":7,"
            "\"response\":{}}",
            FAILED("8", "{\"status\":\"failed\",\"error\":" FERR "}"),
            "stream_error: an empty response");

    failure("{\"type\":\"response.created\",\"sequence_number\":7,"
            "\"response\":{\"a\":\n1\r}}",
            FAILED("8", "{\"a\": 1 ,\"status\":\"failed\",\"error\":" FERR
                   "}"),
            "stream_error: line ends, both added");

    failure("{\"type\":\"response.created\",\"sequence_number\":7,"
            "\"response\":{\"error\":{\"code\":null},\"z\":0}}",
            FAILED("8", "{\"error\":" FERR ",\"z\":0,\"status\":\"failed\"}"),
            "stream_error: one of two");

    failure("{\"type\":\"response.created\",\"sequence_number\":7,"
            "\"response\":{\"status\":\"x\"}}",
            FAILED("8", "{\"status\":\"failed\",\"error\":" FERR "}"),
            "stream_error: the other of two");

    /* a response too large to keep */

    len = 70000;
    big = malloc(len + 512);
    p = big + sprintf(big, "{\"type\":\"response.in_progress\","
                      "\"sequence_number\":7,\"response\":{\"id\":\"r\","
                      "\"created_at\":5,\"model\":\"m\",\"instructions\":\"");
    memset(p, 'x', len);
    sprintf(p + len, "\"}}");
    want = kept;
    failure(big, want, "stream_error: a large response");
    free(big);
}


static void
plains(void)
{
    plain("chat", D, CHAT, "{\"id\":\"x\",\"object\":\"chat.completion\","
          "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
          "\"content\":\"{\\\"error\\\":1}\"},\"finish_reason\":\"stop\"}],"
          "\"usage\":" USAGE ",\"error\":null}\n",
          "f", 0, "stop", "19/10/4/-/2");
    plain("chat, cut", D, CHAT, "{\"choices\":[{\"finish_reason\":\"stop\"}]"
          ",\"usage\":{\"prompt_tokens\":1}", "", 0, "stop", "1/-/-/-/-");
    plain("error", D, CHAT, "{\"error\":{\"message\":\"x\",\"type\":"
          "\"invalid_request_error\",\"code\":\"invalid_api_key\"}}",
          "x", 401, "", "-/-/-/-/-");
    plain("error text", D, "embeddings", "{\"error\":\"boom\"}",
          "x", 502, "", "-/-/-/-/-");
    plain("embeddings", D, "embeddings", "{\"object\":\"list\",\"data\":"
          "[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.1,-1e5]}]"
          ",\"model\":\"m\",\"usage\":{\"prompt_tokens\":8,"
          "\"total_tokens\":8}}", "f", 0, "", "8/-/-/-/-");
    plain("responses", D, "responses", "{\"object\":\"response\",\"status\":"
          "\"completed\",\"error\":null,\"incomplete_details\":null" RUSAGE
          "}", "f", 0, "completed", "37/11/5/6/3");
    plain("responses, incomplete", D, "responses", "{\"object\":"
          "\"response\",\"incomplete_details\":{\"reason\":"
          "\"content_filter\"},\"status\":\"incomplete\"}",
          "f", 0, "content_filter", "-/-/-/-/-");
    plain("responses, failed", D, "responses", "{\"error\":{\"code\":"
          "\"server_error\"},\"object\":\"response\",\"status\":\"failed\"}",
          "f", 0, "failed", "-/-/-/-/-");
    plain("responses, an error", D, "responses", "{\"error\":{\"type\":"
          "\"server_error\"}}", "x", 500, "", "-/-/-/-/-");
    plain("not JSON", D, CHAT, "<html>\"error\": true</html>", "", 0, "",
          "-/-/-/-/-");
    plain("broken inside", D, CHAT, "{\"usage\":{\"prompt_tokens\":zz\"},"
          "\"error\":{,,}}", "", 0, "", "-/-/-/-/-");
    plain("not an object", D, CHAT, "[{\"error\":1}]", "", 0, "",
          "-/-/-/-/-");
}


static void
plain_large(void)
{
    char          *big;
    size_t         len;
    run_mem_t      m;
    llm_answer_t   a;

    /* an error longer than what is kept is an error all the same, and is
     * seen before the end */

    len = 40000;
    big = malloc(len);
    memset(big, 'x', len);
    memcpy(big, "{\"error\":{\"message\":\"", 21);
    memcpy(big + len - 4, "\"}, ", 4);

    run_mem(&m, 0);
    answer_init(&a, D, CHAT, &m.mem);
    llm_dialect_openai.plain(&a, (u_char *) big, (u_char *) big + len);
    ok(a.failed && a.status == 502, "plain: a large error");
    llm_dialect_openai.answer_free(&a);
    is_int(m.live, 0, "nothing left");
    free(big);

    run_mem(&m, 0);
    answer_init(&a, D, CHAT, &m.mem);
    is_int(llm_dialect_openai.plain_end(&a), LLM_OK, "plain: empty");
    is_int(m.live, 0, "nothing left");
}


/* ------------------------------------------------------ memory that fails */

/* a whole life; 0: out of memory was told, or all went well */

static int
scenario(size_t fail, size_t *calls)
{
    int            oom, bad;
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
    static char    good[] = "{\"model\":\"\\u0061\"," MSG ",\"stream\":true}";
    static char    wrong[] = "{\"model\":\"\\u0061\",}";

    /* one counter for both memories */

    pool_init(&pool, fail);
    oom = bad = 0;

#define OOM(rc)  if ((rc) == LLM_ERROR) { oom = 1; goto done; }

    memset(&a, 0, sizeof(llm_answer_t));

    m = pool.run;
    m.mem.ctx = &pool.run;
    answer_init(&a, D, "responses", &m.mem);

    OOM(parse(&rq, D, CHAT, cstr(wrong), &pool.mem, &err));
    OOM(llm_dialect_openai.error(&err, &pool.mem, &out));
    OOM(parse(&rq, D, CHAT, cstr(good), &pool.mem, &err));

    fill(&err, 502, "truncated", NULL, "cut");

    change.model = cstr("b");
    change.ask_usage = 1;

    OOM(llm_dialect_openai.build(&rq, &change, &pool.mem, s, &n));

    for (i = 0; i < 4; i++) {
        OOM(event(&a, NULL, responses_text[i].data,
                  strlen(responses_text[i].data), &what));
    }

    OOM(llm_dialect_openai.stream_error(&a, &err, &pool.mem, &out));
    OOM(llm_dialect_openai.stream_end(&a, &pool.mem, &out));
    llm_dialect_openai.answer_free(&a);
    answer_init(&a, D, CHAT, &m.mem);
    OOM(llm_dialect_openai.stream_error(&a, &err, &pool.mem, &out));
    OOM(event(&a, NULL, chat_text[1].data, strlen(chat_text[1].data),
              &what));
    llm_dialect_openai.answer_free(&a);
    OOM(llm_dialect_openai.plain(&a, (u_char *) good, (u_char *) good + 20));
    OOM(llm_dialect_openai.plain(&a, (u_char *) good + 20,
                                 (u_char *) good + sizeof(good) - 1));
    OOM(llm_dialect_openai.plain_end(&a));
    OOM(llm_dialect_openai.models(&model, 1, 0, &pool.mem, &out));
    OOM(llm_dialect_openai.model(&model, 0, &pool.mem, &out));

done:

    llm_dialect_openai.answer_free(&a);
    *calls = pool.run.calls;
    pool_free(&pool);

    bad = (pool.run.live != 0) || (oom != (fail && fail <= *calls));

    return bad;
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

    ok(bad == 0 && n > 10, "memory: %zu allocations fail", n);
}


int
main(void)
{
    chat_events();
    failed();
    responses_events();
    chat_texts();
    responses_texts();
    plains();
    plain_large();
    allocations();

    return done();
}
