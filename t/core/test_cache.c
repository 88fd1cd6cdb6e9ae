
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What a cache asks of a dialect: what a request is, whom it is made for, what
 * in it does not change the answer, and which answers are good to keep.
 */


#include "dialect.h"


#define OA   &llm_dialect_openai
#define AN   &llm_dialect_anthropic

#define CHAT  "chat/completions"
#define COMP  "completions"
#define EMB   "embeddings"
#define RESP  "responses"
#define MSGS  "messages"
#define COUNT "messages/count_tokens"


/* --------------------------------------------------------------- requests */

/* calls fn with a request that was parsed; a failure to parse is one */

static int
request(const llm_dialect_t *dialect, const char *path, const char *body,
    pool_t *pool, llm_request_t *rq)
{
    llm_error_t  err;

    pool_init(pool, 0);

    return parse(rq, dialect, path, text(pool, body, strlen(body)),
                 &pool->mem, &err) == LLM_OK
           || ok(0, "parse: %.60s", body);
}


typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *body;
    const char            *kind;       /* s stateful, v variety, f fixed */
} kind_t;


#define CM(rest)  "{\"model\":\"m\",\"messages\":[]" rest "}"
#define CT(type)  CM(",\"tools\":[{\"type\":\"function\",\"function\":{}},"    \
                     type "]")
#define CC(part)  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\","         \
                  "\"content\":[" part "]}]}"
#define PM(rest)  "{\"model\":\"m\",\"prompt\":\"p\"" rest "}"
#define RM(rest)  "{\"model\":\"m\",\"store\":false" rest "}"
#define RI(item)  RM(",\"input\":[{\"role\":\"user\",\"content\":\"x\"},"      \
                     item "]")
#define RT(tool)  RM(",\"tools\":[" tool "]")
#define MM(rest)  "{\"model\":\"m\",\"max_tokens\":1,\"messages\":[]" rest "}"
#define MT(tool)  MM(",\"tools\":[{\"name\":\"a\"}," tool "]")
#define MC(part)  "{\"model\":\"m\",\"messages\":[{\"role\":\"user\","         \
                  "\"content\":[" part "]}]}"


static const kind_t  kinds[] = {

    /* sampling */

    { OA, CHAT, CM(""), "" },
    { OA, CHAT, CM(",\"temperature\":null,\"top_p\":null,\"n\":null"), "" },
    { OA, CHAT, CM(",\"temperature\":0"), "f" },
    { OA, CHAT, CM(",\"temperature\":0.0"), "f" },
    { OA, CHAT, CM(",\"temperature\":-0"), "f" },
    { OA, CHAT, CM(",\"temperature\":0e5"), "f" },
    { OA, CHAT, CM(",\"temperature\":-0.000E-12"), "f" },
    { OA, CHAT, CM(",\"temper\\u0061ture\":0"), "f" },
    { OA, CHAT, CM(",\"temperature\":-1"), "" },
    { OA, CHAT, CM(",\"temperature\":1"), "v" },
    { OA, CHAT, CM(",\"temperature\":0.7"), "v" },
    { OA, CHAT, CM(",\"temperature\":1e-3"), "v" },
    { OA, CHAT, CM(",\"temperature\":1e-400"), "v" },
    { OA, CHAT, CM(",\"temperature\":0.00000000000000000000000000001"), "v" },
    { OA, CHAT, CM(",\"temperature\":1,\"temperature\":0"), "f" },
    { OA, CHAT, CM(",\"temperature\":0,\"temperature\":1"), "v" },
    { OA, CHAT, CM(",\"temperature\":\"0.7\""), "v" },
    { OA, CHAT, CM(",\"x\":{\"temperature\":1}"), "" },
    { OA, CHAT, CM(",\"top_p\":1"), "" },
    { OA, CHAT, CM(",\"top_p\":1.0"), "" },
    { OA, CHAT, CM(",\"top_p\":10e-1"), "" },
    { OA, CHAT, CM(",\"top_p\":0.01E2"), "" },
    { OA, CHAT, CM(",\"top_p\":2"), "" },
    { OA, CHAT, CM(",\"top_p\":1e9999999999999999999999999"), "" },
    { OA, CHAT, CM(",\"top_p\":0.99999999999999999999"), "v" },
    { OA, CHAT, CM(",\"top_p\":9.9e-1"), "v" },
    { OA, CHAT, CM(",\"top_p\":1e-9999999999999999999999999"), "v" },
    { OA, CHAT, CM(",\"top_p\":0"), "v" },
    { OA, CHAT, CM(",\"top_p\":0e99"), "v" },
    { OA, CHAT, CM(",\"top_p\":-3"), "v" },
    { OA, CHAT, CM(",\"n\":1"), "" },
    { OA, CHAT, CM(",\"n\":0"), "" },
    { OA, CHAT, CM(",\"n\":1.0"), "" },
    { OA, CHAT, CM(",\"n\":2"), "v" },
    { OA, CHAT, CM(",\"n\":1.00000000000000000000001"), "v" },
    { OA, CHAT, CM(",\"n\":0.02e2"), "v" },
    { OA, CHAT, CM(",\"n\":10"), "v" },
    { OA, CHAT, CM(",\"candidateCount\":3"), "v" },
    { OA, CHAT, CM(",\"temperature\":0,\"n\":2"), "v" },
    { OA, CHAT, CM(",\"temperature\":0,\"n\":1,\"top_p\":1,\"seed\":7"), "f" },
    { OA, COMP, PM(",\"best_of\":2"), "v" },
    { OA, COMP, PM(",\"temperature\":0,\"best_of\":1"), "f" },
    { OA, EMB, "{\"model\":\"m\",\"input\":\"x\",\"temperature\":1}", "f" },
    { AN, MSGS, MM(",\"temperature\":0"), "f" },
    { AN, MSGS, MM(",\"temperature\":0.2"), "v" },
    { AN, MSGS, MM(",\"top_p\":0.9"), "v" },
    { AN, MSGS, MM(",\"top_k\":5"), "" },
    { AN, COUNT, MM(",\"temperature\":1"), "f" },

    /* chat */

    { OA, CHAT, CM(",\"store\":false"), "" },
    { OA, CHAT, CM(",\"store\":null"), "" },
    { OA, CHAT, CM(",\"store\":true"), "s" },
    { OA, CHAT, CM(",\"store\":1"), "s" },
    { OA, CHAT, CM(",\"store\":true,\"temperature\":0"), "sf" },
    { OA, CHAT, CM(",\"store\":true,\"temperature\":1"), "sv" },
    { OA, CHAT, CM(",\"web_search_options\":{}"), "s" },
    { OA, CHAT, CM(",\"web_search_options\":null"), "" },
    { OA, CHAT, CM(",\"cached_content\":\"c\""), "s" },
    { OA, CHAT, CM(",\"cachedContent\":\"c\""), "s" },
    { OA, CHAT, CM(",\"cachedContent\":\"\""), "" },
    { OA, CHAT, CM(",\"extra_body\":{\"google\":{\"cached_content\":\"c\"}}"),
      "s" },
    { OA, CHAT, CM(",\"extra_body\":{\"google\":{\"thinking_config\":{}}}"),
      "" },
    { OA, CHAT, CM(",\"background\":true"), "s" },
    { OA, CHAT, CM(",\"background\":false"), "" },
    { OA, CHAT, CM(",\"container\":\"c\""), "s" },
    { OA, CHAT, CM(",\"context_management\":[{}]"), "s" },
    { OA, CHAT, CM(",\"context_management\":[]"), "" },
    { OA, CHAT, CM(",\"search_parameters\":{\"mode\":\"on\"}"), "s" },
    { OA, CHAT, CM(",\"enable_search\":true"), "s" },
    { OA, CHAT, CM(",\"enable_search\":false"), "" },
    { OA, CHAT, CM(",\"data_sources\":[{}]"), "s" },
    { OA, CHAT, CM(",\"plugins\":[{\"id\":\"web\"}]"), "s" },
    { OA, CHAT, CM(",\"audio\":{\"voice\":\"alloy\"}"), "s" },
    { OA, CHAT, CM(",\"tools\":[]"), "" },
    { OA, CHAT, CM(",\"tools\":null"), "" },
    { OA, CHAT, CM(",\"tools\":{\"a\":1}"), "s" },
    { OA, CHAT, CT("{\"type\":\"custom\"}"), "" },
    { OA, CHAT, CT("{\"type\":\"functi\\u006fn\"}"), "" },
    { OA, CHAT, CT("{\"type\":\"web_search\"}"), "s" },
    { OA, CHAT, CT("{\"type\":\"functions\"}"), "s" },
    { OA, CHAT, CT("{\"googleSearch\":{}}"), "s" },
    { OA, CHAT, CT("7"), "s" },
    { OA, CHAT, CC("{\"type\":\"text\",\"text\":\"file_id\"},"
                   "{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\"}},"
                   "{\"type\":\"file\",\"file\":{\"file_data\":\"x\"}}"), "" },
    { OA, CHAT, CC("{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}"), "s" },
    { OA, CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\","
      "\"audio\":{\"id\":\"audio_1\"}}]}", "s" },
    { OA, CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\","
      "\"audio\":null},1]}", "" },
    { OA, COMP, PM(""), "" },
    { OA, COMP, PM(",\"store\":true"), "s" },

    /* responses */

    { OA, RESP, "{\"model\":\"m\",\"input\":\"x\"}", "s" },
    { OA, RESP, "{\"model\":\"m\",\"store\":null}", "s" },
    { OA, RESP, "{\"model\":\"m\",\"store\":0}", "s" },
    { OA, RESP, "{\"model\":\"m\",\"store\":\"false\"}", "s" },
    { OA, RESP, "{\"model\":\"m\",\"store\":false,\"store\":true}", "s" },
    { OA, RESP, RM(",\"input\":\"x\""), "" },
    { OA, RESP, RM(",\"input\":\"x\",\"temperature\":0"), "f" },
    { OA, RESP, RM(",\"include\":[\"reasoning.encrypted_content\"]"), "" },
    { OA, RESP, RM(",\"previous_response_id\":\"r\""), "s" },
    { OA, RESP, RM(",\"previous_response_id\":null,\"conversation\":null,"
                   "\"prompt\":null,\"background\":null,\"tools\":[]"), "" },
    { OA, RESP, RM(",\"conversation\":\"c\""), "s" },
    { OA, RESP, RM(",\"conversation\":{\"id\":\"c\"}"), "s" },
    { OA, RESP, RM(",\"background\":true"), "s" },
    { OA, RESP, RM(",\"prompt\":{\"id\":\"p\"}"), "s" },
    { OA, RESP, RM(",\"context_management\":[{\"type\":\"compaction\"}]"),
      "s" },
    { OA, RESP, RT("{\"type\":\"function\"},{\"type\":\"custom\"}"), "" },
    { OA, RESP, RT("{\"type\":\"file_search\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"web_search_preview\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"code_interpreter\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"computer_use_preview\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"mcp\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"image_generation\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"local_shell\"}"), "s" },
    { OA, RESP, RT("{\"type\":\"of_tomorrow\"}"), "s" },
    { OA, RESP, RI("{\"type\":\"message\",\"id\":\"msg_1\",\"role\":"
                   "\"assistant\",\"content\":[{\"type\":\"output_text\"}]},"
                   "{\"type\":\"function_call\",\"id\":\"fc\"},"
                   "{\"type\":\"function_call_output\",\"output\":\"file_id\"},"
                   "{\"type\":\"custom_tool_call\"},"
                   "{\"type\":\"custom_tool_call_output\"}"), "" },
    { OA, RESP, RI("{\"type\":\"reasoning\",\"id\":\"rs\","
                   "\"encrypted_content\":\"gA\"}"), "" },
    { OA, RESP, RI("{\"type\":\"compaction\",\"encrypted_content\":\"g\"}"),
      "" },
    { OA, RESP, RI("{\"type\":\"reasoning\",\"id\":\"rs\"}"), "s" },
    { OA, RESP, RI("{\"type\":\"reasoning\",\"id\":\"rs\","
                   "\"encrypted_content\":null}"), "s" },
    { OA, RESP, RI("{\"type\":\"item_reference\",\"id\":\"msg_1\"}"), "s" },
    { OA, RESP, RI("{\"id\":\"msg_1\"}"), "s" },
    { OA, RESP, RI("{\"type\":null,\"id\":\"msg_1\"}"), "s" },
    { OA, RESP, RI("{\"type\":\"image_generation_call\",\"id\":\"i\"}"), "s" },
    { OA, RESP, RI("{\"type\":\"message\",\"role\":\"user\",\"content\":["
                   "{\"type\":\"input_file\",\"file_id\":\"f\"}]}"), "s" },
    { OA, RESP, RI("{\"type\":\"message\",\"role\":\"user\",\"content\":["
                   "{\"type\":\"input_file\",\"file_id\":null}]}"), "" },
    { OA, RESP, RI("{\"type\":\"function_call_output\",\"output\":["
                   "{\"type\":\"input_image\",\"file_id\":\"f\"}]}"), "s" },
    { OA, RESP, RI("{\"type\":\"function_call\",\"container_id\":\"c\"}"),
      "s" },

    /* messages */

    { AN, MSGS, MM(""), "" },
    { AN, MSGS, MM(",\"container\":\"c\""), "s" },
    { AN, MSGS, MM(",\"container\":{\"skills\":[{}]}"), "s" },
    { AN, MSGS, MM(",\"container\":null,\"mcp_servers\":[]"), "" },
    { AN, MSGS, MM(",\"mcp_servers\":[{\"url\":\"u\"}]"), "s" },
    { AN, MSGS, MM(",\"context_management\":{\"edits\":["
                   "{\"type\":\"clear_thinking_20251015\"},"
                   "{\"type\":\"clear_tool_uses_20250919\"}]}"), "" },
    { AN, MSGS, MM(",\"context_management\":{\"edits\":["
                   "{\"type\":\"compact_20260112\"}]}"), "s" },
    { AN, MSGS, MM(",\"context_management\":{\"edits\":[{}]}"), "s" },
    { AN, MSGS, MM(",\"context_management\":{\"other\":1}"), "s" },
    { AN, MSGS, MM(",\"tools\":[]"), "" },
    { AN, MSGS, MM(",\"tools\":7"), "s" },
    { AN, MSGS, MT("{\"type\":\"custom\"},{\"type\":null}"), "" },
    { AN, MSGS, MT("{\"type\":\"bash_20250124\"},"
                   "{\"type\":\"text_editor_20250728\"},"
                   "{\"type\":\"computer_20250124\"},"
                   "{\"type\":\"memory_20250818\"}"), "" },
    { AN, MSGS, MT("{\"type\":\"web_search_20250305\"}"), "s" },
    { AN, MSGS, MT("{\"type\":\"web_fetch_20250910\"}"), "s" },
    { AN, MSGS, MT("{\"type\":\"code_execution_20250825\"}"), "s" },
    { AN, MSGS, MT("{\"type\":\"bash\"}"), "s" },
    { AN, MSGS, MT("{\"type\":7}"), "s" },
    { AN, MSGS, MT("\"bash_1\""), "s" },
    { AN, MSGS, MC("{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":"
                   "\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"d\"},"
                   "{\"type\":\"text\",\"text\":\"file_id\"}"), "" },
    { AN, MSGS, MC("{\"type\":\"tool_use\",\"input\":{\"file_id\":\"f\"}}"),
      "" },
    { AN, MSGS, MC("{\"type\":\"document\",\"source\":{\"type\":\"file\","
                   "\"file_id\":\"f\"}}"), "s" },
    { AN, MSGS, MC("{\"type\":\"container_upload\",\"file_id\":\"f\"}"),
      "s" },
    { AN, MSGS, MC("{\"type\":\"tool_result\",\"content\":[{\"source\":"
                   "{\"type\":\"file\",\"file_id\":\"f\"}}]}"), "s" },
    { AN, COUNT, MC("{\"source\":{\"file_id\":\"f\"}}"), "sf" },
    { AN, COUNT, MT("{\"type\":\"web_search_20250305\"}"), "f" }
};


static void
kind_table(void)
{
    char            got[4], *p;
    size_t          i;
    pool_t          pool;
    llm_uint_t      kind;
    const kind_t   *k;
    llm_request_t   rq;

    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        k = &kinds[i];

        if (request(k->dialect, k->path, k->body, &pool, &rq)) {
            kind = k->dialect->caching->kind(&rq);
            p = got;

            if (kind & LLM_CACHE_STATEFUL) {
                *p++ = 's';
            }

            if (kind & LLM_CACHE_VARIETY) {
                *p++ = 'v';
            }

            if (kind & LLM_CACHE_FIXED) {
                *p++ = 'f';
            }

            *p = '\0';

            is_mem(got, p - got, k->kind, strlen(k->kind), k->body);
        }

        pool_free(&pool);
    }
}


/* members before, between and behind values that are not passed again */

static void
kind_large(void)
{
    char           body[8192], *p;
    size_t         i;
    pool_t         pool;
    llm_uint_t     at;
    llm_request_t  rq;

    for (i = 0; i < 4; i++) {
        p = body + sprintf(body, "{");

        for (at = 0; at < 3; at++) {
            if (at == i) {
                p += sprintf(p, "\"temperature\":1,");
            }

            p += sprintf(p, "\"%s\":[\"%0*d\"],",
                         at == 0 ? "messages" : at == 1 ? "tools" : "input",
                         at == 1 ? 100 : 1500, 0);
        }

        sprintf(p, "\"model\":\"m\",\"x\":\"temperature\"%s}",
                i == 3 ? ",\"temperature\" : 1" : "");

        if (request(OA, CHAT, body, &pool, &rq)) {
            ok(llm_dialect_openai.caching->kind(&rq) & LLM_CACHE_VARIETY,
               "kind: found at place %zu", i);
        }

        pool_free(&pool);
    }
}


/* ------------------------------------------------------------------ users */

typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *body;
    const char            *users;      /* one after the other, raw */
    llm_uint_t             n;
} users_t;


static const users_t  users[] = {
    { OA, CHAT, CM(""), "", 0 },
    { OA, CHAT, CM(",\"user\":\"u\""), "-\"u\"-", 1 },
    { OA, CHAT, CM(",\"user\":\"u\",\"safety_identifier\":\"s\""),
      "\"s\"\"u\"-", 2 },
    { OA, CHAT, CM(",\"user\":\"\",\"safety_identifier\":7"), "", 0 },
    { OA, CHAT, CM(",\"us\\u0065r\":\"\\u0061\""), "-\"\\u0061\"-", 1 },
    { OA, COMP, PM(",\"user\":\"u\",\"safety_identifier\":\"s\""),
      "-\"u\"-", 1 },
    { OA, EMB, "{\"model\":\"m\",\"user\":\"u\"}", "-\"u\"-", 1 },
    { OA, RESP, RM(",\"user\":null,\"safety_identifier\":\"s\""),
      "\"s\"--", 1 },
    { AN, MSGS, MM(",\"metadata\":{\"x\":1,\"user_id\":\"u\"}"),
      "\"u\"--", 1 },
    { AN, MSGS, MM(",\"metadata\":{\"user_id\":\"\"},\"user_id\":\"u\""),
      "", 0 },
    { AN, MSGS, MM(",\"metadata\":\"user_id\""), "", 0 },
    { AN, COUNT, MM(",\"metadata\":{\"user_id\":\"u\"}"), "", 0 }
};


static void
users_table(void)
{
    char              got[64], *p;
    size_t            i, k;
    pool_t            pool;
    llm_uint_t        n;
    const users_t    *t;
    llm_request_t     rq;
    llm_json_value_t  v[LLM_USERS];

    for (i = 0; i < sizeof(users) / sizeof(users[0]); i++) {
        t = &users[i];

        if (request(t->dialect, t->path, t->body, &pool, &rq)) {
            memset(v, 0xa5, sizeof(v));
            n = t->dialect->caching->users(&rq, v);
            p = got;

            for (k = 0; k < LLM_USERS; k++) {
                if (v[k].type == LLM_JSON_ABSENT) {
                    p += n ? sprintf(p, "-") : 0;

                } else {
                    p += sprintf(p, "%.*s", (int) v[k].raw.len,
                                 v[k].raw.data);
                }
            }

            is_int(n, t->n, t->body);
            is_mem(got, p - got, t->users, strlen(t->users), t->body);
        }

        pool_free(&pool);
    }
}


static void
unkeyed(const llm_dialect_t *dialect, const char *path, const char *want)
{
    char              got[256], *p;
    const llm_str_t  *name;

    p = got;

    for (name = dialect->caching->unkeyed(endpoint(dialect, path)); name->len;
         name++)
    {
        p += sprintf(p, "%s%s", p > got ? " " : "", (char *) name->data);
    }

    is_mem(got, p - got, want, strlen(want), path);
}


static void
unkeyed_all(void)
{
    unkeyed(OA, CHAT, "stream stream_options user safety_identifier "
                      "prompt_cache_key prompt_cache_retention metadata");
    unkeyed(OA, COMP, "stream stream_options user");
    unkeyed(OA, EMB, "user");
    unkeyed(OA, RESP, "stream stream_options");
    unkeyed(OA, "models", "");
    unkeyed(AN, MSGS, "stream metadata");
    unkeyed(AN, COUNT, "");
}


/* ---------------------------------------------------------------- answers */

#define T_CHOICES(list)  "{\"choices\":[" list "],\"usage\":{}}"
#define T_REASON(r)      "{\"index\":0,\"finish_reason\":" r "}"
#define T_SECOND(r)      "{\"index\":1,\"finish_reason\":" r "}"
#define T_RESP(rest)     "{\"object\":\"response\"," rest "}"
#define T_STOP(r)        "{\"type\":\"message\",\"stop_reason\":" r "}"


typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *body;
    const char            *whole;      /* NULL: fit */
    const char            *pieces;
} unfit_t;


static const unfit_t  unfits[] = {
    { OA, CHAT, T_CHOICES(T_REASON("\"stop\"")), NULL, NULL },
    { OA, CHAT, T_CHOICES(T_REASON("\"tool_calls\"")), NULL, NULL },
    { OA, CHAT, T_CHOICES(T_REASON("\"function_call\"")), NULL, NULL },
    { OA, CHAT, T_CHOICES(T_REASON("\"st\\u006fp\"")), NULL, NULL },
    { OA, CHAT, T_CHOICES("{\"message\":{\"refusal\":\"no\"},"
                          "\"finish_reason\":\"stop\"}"), NULL, NULL },
    { OA, COMP, T_CHOICES(T_REASON("\"stop\"")), NULL, NULL },
    { OA, CHAT, T_CHOICES(T_REASON("\"length\"")), "truncated", "truncated" },
    { OA, COMP, T_CHOICES(T_REASON("\"length\"")), "truncated", "truncated" },
    { OA, CHAT, T_CHOICES(T_REASON("\"content_filter\"")), "filtered",
      "filtered" },
    { OA, CHAT, T_CHOICES(T_REASON("\"stopped\"")), "unfinished",
      "unfinished" },
    { OA, CHAT, T_CHOICES(T_REASON("\"completed\"")), "unfinished",
      "unfinished" },
    { OA, CHAT, T_CHOICES(T_REASON("null")), "unfinished", "unfinished" },
    { OA, CHAT, T_CHOICES(""), "unfinished", "unfinished" },
    { OA, CHAT, "{}", "unfinished", "unfinished" },
    { OA, CHAT, "{\"error\":{\"code\":500}}", "failed", "failed" },
    { OA, CHAT, "{\"error\":{},\"choices\":[" T_REASON("\"stop\"") "]}",
      "failed", "failed" },

    /* in pieces only the last reason is known */

    { OA, CHAT, T_CHOICES(T_REASON("\"stop\"") "," T_SECOND("\"tool_calls\"")),
      NULL, "unfinished" },
    { OA, CHAT, T_CHOICES(T_REASON("\"length\"") "," T_SECOND("\"stop\"")),
      "truncated", "unfinished" },
    { OA, CHAT, T_CHOICES(T_REASON("\"content_filter\"") ","
                          T_SECOND("\"length\"")), "filtered", "truncated" },
    { OA, CHAT, T_CHOICES(T_REASON("\"stop\"") "," T_SECOND("null")),
      "unfinished", "unfinished" },
    { OA, CHAT, T_CHOICES(T_REASON("null") "," T_SECOND("\"stop\"")),
      "unfinished", "unfinished" },
    { OA, CHAT, T_CHOICES(T_REASON("\"new\"") "," T_SECOND("\"stop\"")),
      "unfinished", "unfinished" },

    { OA, EMB, "{\"data\":[]}", NULL, NULL },
    { OA, EMB, "{\"error\":{\"message\":\"x\"}}", "failed", "failed" },

    { OA, RESP, T_RESP("\"status\":\"completed\",\"error\":null"), NULL,
      NULL },
    { OA, RESP, T_RESP("\"status\":\"completed\",\"incomplete_details\":null"),
      NULL, NULL },
    { OA, RESP, T_RESP("\"status\":\"incomplete\",\"incomplete_details\":"
                       "{\"reason\":\"max_output_tokens\"}"), "truncated",
      "truncated" },
    { OA, RESP, T_RESP("\"status\":\"incomplete\""), "truncated",
      "truncated" },
    { OA, RESP, T_RESP("\"status\":\"incomplete\",\"incomplete_details\":"
                       "{\"reason\":\"content_filter\"}"), "filtered",
      "filtered" },
    { OA, RESP, T_RESP("\"status\":\"failed\",\"error\":{\"code\":\"x\"}"),
      "failed", "failed" },
    { OA, RESP, T_RESP("\"status\":\"in_progress\""), "unfinished",
      "unfinished" },
    { OA, RESP, T_RESP("\"status\":\"cancelled\""), "unfinished",
      "unfinished" },
    { OA, RESP, T_RESP("\"id\":\"r\""), "unfinished", "unfinished" },

    { AN, MSGS, T_STOP("\"end_turn\""), NULL, NULL },
    { AN, MSGS, T_STOP("\"stop_sequence\""), NULL, NULL },
    { AN, MSGS, T_STOP("\"tool_use\""), NULL, NULL },
    { AN, MSGS, T_STOP("\"max_tokens\""), "truncated", "truncated" },
    { AN, MSGS, T_STOP("\"model_context_window_exceeded\""), "truncated",
      "truncated" },
    { AN, MSGS, T_STOP("\"refusal\""), "filtered", "filtered" },
    { AN, MSGS, T_STOP("\"pause_turn\""), "unfinished", "unfinished" },
    { AN, MSGS, T_STOP("null"), "unfinished", "unfinished" },
    { AN, MSGS, "{\"type\":\"error\",\"error\":{\"type\":\"x\"}}", "failed",
      "failed" },
    { AN, COUNT, "{\"input_tokens\":5}", NULL, NULL },
    { AN, COUNT, "{\"error\":{}}", "failed", "failed" }
};


static void
is_unfit(const llm_answer_t *a, const char *want, const char *name)
{
    const char  *got;

    got = a->dialect->caching->unfit(a);

    ok(!got == !want && (!got || strcmp(got, want) == 0), "unfit %s: %s",
       got ? got : "-", name);
}


static void
unfit_plain(void)
{
    size_t          i;
    u_char         *p;
    run_mem_t       m;
    llm_str_t       s;
    llm_answer_t    a;
    const unfit_t  *t;

    for (i = 0; i < sizeof(unfits) / sizeof(unfits[0]); i++) {
        t = &unfits[i];
        s = cstr(t->body);

        run_mem(&m, 0);
        answer_init(&a, t->dialect, t->path, &m.mem);

        (void) t->dialect->plain_whole(&a, &s);
        is_unfit(&a, t->whole, t->body);
        t->dialect->answer_free(&a);

        answer_init(&a, t->dialect, t->path, &m.mem);

        for (p = s.data; p < s.data + s.len; p++) {
            (void) t->dialect->plain(&a, p, p + 1);
        }

        (void) t->dialect->plain_end(&a);
        is_unfit(&a, t->pieces, t->body);
        t->dialect->answer_free(&a);
    }
}


/* the data of events, ended by NULL */

static void
unfit_stream(const llm_dialect_t *dialect, const char *path,
    const char *const *events, const char *want, const char *name)
{
    run_mem_t     m;
    llm_uint_t    what;
    llm_answer_t  a;

    run_mem(&m, 0);
    answer_init(&a, dialect, path, &m.mem);

    for ( /* void */ ; *events; events++) {
        (void) event(&a, NULL, *events, strlen(*events), &what);
    }

    is_unfit(&a, want, name);
    dialect->answer_free(&a);
}


#define STREAM(dialect, path, want, name, ...)                                \
    unfit_stream(dialect, path,                                               \
                 (const char *const[]) { __VA_ARGS__, NULL }, want, name)


static void
unfit_streams(void)
{
    STREAM(OA, CHAT, NULL, "stop",
           T_CHOICES("{\"index\":0,\"delta\":{\"content\":\"x\"},"
                     "\"finish_reason\":null}"),
           T_CHOICES(T_REASON("\"stop\"")), "[DONE]");
    STREAM(OA, CHAT, "truncated", "length",
           T_CHOICES(T_REASON("\"length\"")), "[DONE]");
    STREAM(OA, CHAT, NULL, "two choices",
           T_CHOICES(T_REASON("\"stop\"")),
           T_CHOICES(T_SECOND("\"tool_calls\"")), "[DONE]");
    STREAM(OA, CHAT, "truncated", "the first of two choices",
           T_CHOICES(T_REASON("\"length\"")),
           T_CHOICES(T_SECOND("\"stop\"")), "[DONE]");
    STREAM(OA, CHAT, "filtered", "two choices in an event",
           T_CHOICES(T_REASON("\"content_filter\"") ","
                     T_SECOND("\"stop\"")), "[DONE]");
    STREAM(OA, CHAT, "unfinished", "one of two choices",
           T_CHOICES(T_SECOND("null")),
           T_CHOICES(T_REASON("\"stop\"")), "[DONE]");
    STREAM(OA, CHAT, "unfinished", "no reason", "[DONE]");
    STREAM(OA, CHAT, "failed", "an error",
           T_CHOICES(T_REASON("\"stop\"")), "{\"error\":{\"code\":500}}");

    STREAM(OA, RESP, NULL, "completed",
           "{\"type\":\"response.completed\",\"response\":"
           "{\"status\":\"completed\"}}");
    STREAM(OA, RESP, "truncated", "incomplete",
           "{\"type\":\"response.incomplete\",\"response\":{\"status\":"
           "\"incomplete\",\"incomplete_details\":{\"reason\":"
           "\"max_output_tokens\"}}}");
    STREAM(OA, RESP, "failed", "response.failed",
           "{\"type\":\"response.failed\",\"response\":{\"status\":"
           "\"failed\"}}");

    STREAM(AN, MSGS, NULL, "end_turn",
           "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
           "\"end_turn\"}}", "{\"type\":\"message_stop\"}");
    STREAM(AN, MSGS, "truncated", "max_tokens",
           "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
           "\"max_tokens\"}}", "{\"type\":\"message_stop\"}");
    STREAM(AN, MSGS, "unfinished", "no stop_reason",
           "{\"type\":\"message_stop\"}");
    STREAM(AN, MSGS, "failed", "an error",
           "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}");
}


/* plain answers of endpoints that have no finish reason */

typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *body;
    llm_uint_t             says;
} says_t;


#define E1  "{\"embedding\":[0.5,-1]}"


static const says_t  says[] = {
    { OA, EMB, "{\"data\":[" E1 "]}", 1 },
    { OA, EMB, "{\"data\":[" E1 "," E1 "," E1 "]}", 1 },
    { OA, EMB, " { \"object\" : \"list\" , \"data\" : [ { \"index\" : 0 , "
      "\"embedding\" : [ 1 ] } ] , \"usage\" : {} } ", 1 },
    { OA, EMB, "{\"data\":[{\"embedding\":\"AACAPw==\"}]}", 1 },
    { OA, EMB, "{\"d\\u0061ta\":[{\"embeddin\\u0067\":[1]}]}", 1 },
    { OA, EMB, "{\"data\":[],\"data\":[" E1 "]}", 1 },
    { OA, EMB, "{\"data\":[" E1 "],\"data\":[]}", 0 },
    { OA, EMB, "{}", 0 },
    { OA, EMB, "{\"detail\":\"queued, come back later\"}", 0 },
    { OA, EMB, "{\"data\":[]}", 0 },
    { OA, EMB, "{\"data\":null}", 0 },
    { OA, EMB, "{\"data\":\"x\"}", 0 },
    { OA, EMB, "{\"data\":" E1 "}", 0 },
    { OA, EMB, "{\"data\":[1]}", 0 },
    { OA, EMB, "{\"data\":[null]}", 0 },
    { OA, EMB, "{\"data\":[[" E1 "]]}", 0 },
    { OA, EMB, "{\"data\":[{}]}", 0 },
    { OA, EMB, "{\"data\":[{\"embedding\":null}]}", 0 },
    { OA, EMB, "{\"data\":[{\"embedding\":[]}]}", 0 },
    { OA, EMB, "{\"data\":[{\"embedding\":\"\"}]}", 0 },
    { OA, EMB, "{\"data\":[{\"embedding\":{\"a\":1}}]}", 0 },
    { OA, EMB, "{\"data\":[{\"embedding\":1}]}", 0 },
    { OA, EMB, "{\"data\":[" E1 ",{\"index\":1}]}", 0 },
    { OA, EMB, "{\"data\":[{\"index\":0}," E1 "]}", 0 },
    { OA, EMB, "{\"data\":[" E1 ",7]}", 0 },
    { OA, EMB, "{\"data\":[7," E1 "]}", 0 },
    { OA, EMB, "{\"x\":{\"data\":[" E1 "]}}", 0 },
    { OA, EMB, "[" E1 "]", 0 },

    { AN, COUNT, "{\"input_tokens\":5}", 1 },
    { AN, COUNT, " { \"x\" : {} , \"input_tokens\" : 0 } ", 1 },
    { AN, COUNT, "{\"input_token\\u0073\":5}", 1 },
    { AN, COUNT, "{}", 0 },
    { AN, COUNT, "{\"detail\":\"queued, come back later\"}", 0 },
    { AN, COUNT, "{\"input_tokens\":null}", 0 },
    { AN, COUNT, "{\"input_tokens\":\"5\"}", 0 },
    { AN, COUNT, "{\"input_tokens\":[5]}", 0 },
    { AN, COUNT, "{\"x\":{\"input_tokens\":5}}", 0 },
    { AN, COUNT, "5", 0 },

    /* the others say how they ended */

    { OA, CHAT, "{}", 1 },
    { OA, COMP, "{}", 1 },
    { OA, RESP, "{}", 1 },
    { AN, MSGS, "{}", 1 }
};


static void
says_table(void)
{
    size_t         i;
    llm_str_t      s;
    llm_uint_t     got;
    const says_t  *t;

    for (i = 0; i < sizeof(says) / sizeof(says[0]); i++) {
        t = &says[i];
        s.len = strlen(t->body);
        s.data = exact(t->body, s.len);

        got = t->dialect->caching->says(endpoint(t->dialect, t->path), &s);

        ok(got == t->says, "%s says %d: %s", t->path, (int) got, t->body);
        free(s.data);
    }
}


int
main(void)
{
    kind_table();
    kind_large();
    users_table();
    unkeyed_all();

    unfit_plain();
    unfit_streams();
    says_table();

    return done();
}
