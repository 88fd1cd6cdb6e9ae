
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Digests; state at a provider, in requests and in answers; the beginning of
 * a conversation.
 */


#include "dialect.h"


#define OA   &llm_dialect_openai
#define AN   &llm_dialect_anthropic

#define CHAT  "chat/completions"
#define RESP  "responses"
#define MSGS  "messages"


static uint64_t
digest(const char *s)
{
    return llm_digest(s, strlen(s), 0);
}


static void
digests(void)
{
    int        bad;
    size_t     i, k, n;
    u_char     buf[64], *p;
    uint64_t   all[64 * 8 + 65];

    n = 0;
    memset(buf, 0, sizeof(buf));

    /* zeros of any length, and each bit of 64 bytes */

    for (i = 0; i <= 64; i++) {
        p = exact(buf, i);
        all[n++] = llm_digest(p, i, 0);
        free(p);
    }

    for (i = 0; i < 64 * 8; i++) {
        buf[i / 8] ^= 1 << i % 8;
        all[n++] = llm_digest(buf, 64, 0);
        buf[i / 8] ^= 1 << i % 8;
    }

    bad = 0;

    for (i = 0; i < n; i++) {
        bad += (all[i] == 0);

        for (k = 0; k < i; k++) {
            bad += (all[i] == all[k]);

            /* of 64 bits more than 12 differ, or it is no hash */

            bad += (__builtin_popcountll(all[i] ^ all[k]) <= 8);
        }
    }

    is_int(bad, 0, "digest: all differ");
    ok(llm_digest("a", 1, 0) != llm_digest("a", 1, 1), "digest: the seed");
    ok(digest("abcdefgh12") == digest("abcdefgh12"), "digest: is one");
}


/* --------------------------------------------------------------- requests */

typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *body;
    const char            *want[8];    /* newest first */
} bound_t;


#define CM  "{\"model\":\"m\",\"messages\":"
#define RM  "{\"model\":\"m\","


static const bound_t  bounds[] = {
    { OA, CHAT, CM "[]}", { NULL } },
    { OA, CHAT, CM "[{\"role\":\"user\",\"content\":\"\\\"file_id\\\"\"}]}",
      { NULL } },
    { OA, CHAT, CM "[1,{\"role\":\"user\",\"content\":[{\"type\":\"file\","
      "\"file\":{\"file_id\":\"f-1\"}},{\"type\":\"text\",\"text\":\"x\"}]},"
      "{\"content\":[2,{\"file\":{\"file_id\" : \"f\\u002d2\"}},"
      "{\"file\":{\"file_id\":3}}]}]}", { "f-2", "f-1" } },
    { OA, CHAT, CM "[],\"cached_content\":\"c1\",\"cachedContent\":\"c2\","
      "\"extra_body\":{\"google\":{\"cached_content\":\"c3\"}},"
      "\"previous_response_id\":\"no\"}", { "c3", "c2", "c1" } },
    { OA, "embeddings", RM "\"input\":[{\"file_id\":\"f\"}],"
      "\"conversation\":\"c\"}", { NULL } },

    { OA, RESP, RM "\"input\":\"x\"}", { NULL } },
    { OA, RESP, RM "\"previous_response_id\":\"resp_1\"}", { "resp_1" } },
    { OA, RESP, RM "\"previous_response_id\":null,\"conversation\":null}",
      { NULL } },
    { OA, RESP, RM "\"previous_response_id\":\"\"}", { NULL } },
    { OA, RESP, RM "\"conversation\":\"conv_1\"}", { "conv_1" } },
    { OA, RESP, RM "\"conversation\":{\"id\":\"conv_1\"}}", { "conv_1" } },
    { OA, RESP, RM "\"prompt\":{\"id\":\"pmpt_1\",\"version\":\"2\"}}",
      { "pmpt_1" } },
    { OA, RESP, RM "\"prompt\":\"text\"}", { NULL } },
    { OA, RESP, RM "\"tools\":[{\"type\":\"code_interpreter\",\"container\":"
      "\"cntr_1\"},{\"type\":\"code_interpreter\",\"container\":{\"type\":"
      "\"auto\",\"file_ids\":[\"f-1\"]}},{\"type\":\"file_search\","
      "\"vector_store_ids\":[\"vs_1\",\"vs_2\"]},"
      "{\"type\":\"function\"},7]}", { "vs_2", "vs_1", "f-1", "cntr_1" } },
    { OA, RESP, RM "\"input\":[{\"type\":\"item_reference\",\"id\":"
      "\"msg_1\"},{\"type\":\"message\",\"id\":\"msg_2\",\"content\":["
      "{\"type\":\"input_file\",\"file_id\":\"f-1\"},"
      "{\"type\":\"input_image\",\"file_id\":\"f-2\"}]}]}",
      { "f-2", "f-1", "msg_1" } },
    { OA, RESP, RM "\"input\":[{\"type\":\"reasoning\",\"id\":\"rs_1\","
      "\"encrypted_content\":\"gAAA\\/b\"},{\"type\":\"function_call\",\"id\":"
      "\"fc_1\"}]}", { "gAAA/b", "rs_1" } },
    { OA, RESP, RM "\"input\":[{\"type\":\"reasoning\",\"id\":\"rs_1\"}]}",
      { "rs_1" } },
    { OA, RESP, RM "\"input\":[{\"type\":\"code_interpreter_call\",\"id\":"
      "\"ci_1\",\"container_id\":\"cntr_2\"}]}", { "cntr_2" } },
    { OA, RESP, RM "\"input\":[{\"type\":\"computer_call_output\",\"output\":"
      "{\"type\":\"computer_screenshot\",\"file_id\":\"f-3\"}},"
      "{\"type\":\"function_call_output\",\"output\":[{\"type\":"
      "\"input_image\",\"file_id\":\"f-4\"}]}]}", { "f-4", "f-3" } },
    { OA, RESP, RM "\"previous_response_id\":\"resp_1\",\"tools\":["
      "{\"container\":\"cntr_1\"}],\"input\":[{\"container_id\":\"cntr_1\"},"
      "{\"type\":\"item_reference\",\"id\":\"a\"},"
      "{\"type\":\"item_reference\",\"id\":\"a\"}]}",
      { "resp_1", "a", "cntr_1" } },

    { AN, MSGS, CM "[{\"role\":\"user\",\"content\":\"signature\"}]}",
      { NULL } },
    { AN, MSGS, CM "[],\"container\":\"cont_1\"}", { "cont_1" } },
    { AN, MSGS, CM "[],\"container\":{\"id\":\"cont_1\",\"skills\":[]}}",
      { "cont_1" } },
    { AN, MSGS, CM "[{\"role\":\"assistant\",\"content\":["
      "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s1\"},"
      "{\"type\":\"redacted_thinking\",\"data\":\"d1\"},"
      "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"\"}]}]}",
      { "d1", "s1" } },
    { AN, MSGS, CM "[{\"role\":\"user\",\"content\":["
      "{\"type\":\"document\",\"source\":{\"type\":\"file\",\"file_id\":"
      "\"f1\"}},{\"type\":\"image\",\"source\":{\"type\":\"base64\","
      "\"data\":\"no\"}},{\"type\":\"container_upload\",\"file_id\":\"f2\"},"
      "{\"type\":\"tool_result\",\"content\":[{\"type\":\"image\",\"source\":"
      "{\"type\":\"file\",\"file_id\":\"f3\"},\"content\":[{\"file_id\":"
      "\"no\"}]}]}]}]}", { "f3", "f2", "f1" } },
    { AN, "messages/count_tokens", CM "[{\"content\":[{\"signature\":"
      "\"s\"}]}]}", { "s" } },
};


static void
bound_table(void)
{
    int            good;
    size_t         i, k, n;
    pool_t         pool;
    uint64_t       d[64];
    llm_error_t    err;
    llm_request_t  rq;

    for (i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        pool_init(&pool, 0);

        if (parse(&rq, bounds[i].dialect, bounds[i].path,
                  text(&pool, bounds[i].body, strlen(bounds[i].body)),
                  &pool.mem, &err)
            != LLM_OK)
        {
            ok(0, "bound: %s", bounds[i].body);
            continue;
        }

        n = bounds[i].dialect->bound(&rq, d, 64);

        for (k = 0; bounds[i].want[k]; k++) {
            /* void */
        }

        good = (n == k);

        for (k = 0; k < n && good; k++) {
            good = (d[k] == digest(bounds[i].want[k]));
        }

        ok(good, "bound: %.100s", bounds[i].body);

        /* the newest, when there is room for no more */

        n = bounds[i].dialect->bound(&rq, d, 1);
        ok(n == (bounds[i].want[0] != NULL)
           && (n == 0 || d[0] == digest(bounds[i].want[0])), "bound: one");

        is_int(bounds[i].dialect->bound(&rq, d, 0), 0, "bound: no room");

        pool_free(&pool);
    }
}


/* more references than room: the last ones, in any number of both */

static void
bound_rings(void)
{
    int            bad;
    char           buf[4096], id[16], *p;
    pool_t         pool;
    uint64_t       d[8];
    llm_uint_t     i, k, n, got;
    llm_error_t    err;
    llm_request_t  rq;

    bad = 0;

    for (n = 1; n < 30; n++) {
        p = buf + sprintf(buf, RM "\"input\":[");

        for (i = 0; i < n; i++) {
            p += sprintf(p, "%s{\"type\":\"item_reference\",\"id\":\"i%u\"}",
                         i ? "," : "", (unsigned) i);
        }

        p += sprintf(p, "]}");

        pool_init(&pool, 0);
        parse(&rq, OA, RESP, text(&pool, buf, p - buf), &pool.mem, &err);

        for (k = 1; k <= 8; k++) {
            got = llm_dialect_openai.bound(&rq, d, k);
            bad += (got != (n < k ? n : k));

            for (i = 0; i < got; i++) {
                sprintf(id, "i%u", (unsigned) (n - 1 - i));
                bad += (d[i] != digest(id));
            }
        }

        pool_free(&pool);
    }

    is_int(bad, 0, "bound: the newest");
}


/* a string's digest is that of its text, however it is written */

static void
escapes(void)
{
    size_t         i;
    pool_t         pool;
    char           buf[512];
    uint64_t       d[2];
    llm_error_t    err;
    llm_request_t  rq;

    static const struct {
        const char  *json;
        const char  *text;
    } t[] = {
        { "a\\nb", "a\nb" },
        { "\\\\\\\"\\/\\b\\f\\r\\t", "\\\"/\b\f\r\t" },
        { "\\u0041", "A" },
        { "abcdefgh\\u00e9ijklmnopqr\\u20ac",
          "abcdefgh\xc3\xa9ijklmnopqr\xe2\x82\xac" },
        { "\\ud83d\\ude00", "\xf0\x9f\x98\x80" },
        { "\\uD83D\\uDE00x", "\xf0\x9f\x98\x80x" },
        { "\\ud83d", "\xef\xbf\xbd" },
        { "\\ude00\\ud83d", "\xef\xbf\xbd\xef\xbf\xbd" },
        { "\\ud83d\\ud83d\\ude00", "\xef\xbf\xbd\xf0\x9f\x98\x80" },
        { "\\ude00\\ud83d\\ude00", "\xef\xbf\xbd\xf0\x9f\x98\x80" },
        { "\\ud7ff\\ud83d\\ude00", "\xed\x9f\xbf\xf0\x9f\x98\x80" },
        { "\\ud83d\\u0041", "\xef\xbf\xbd" "A" },
        { "\\ud83dA\\n", "\xef\xbf\xbd" "A\n" },
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        sprintf(buf, RM "\"previous_response_id\":\"%s\"}", t[i].json);

        pool_init(&pool, 0);
        parse(&rq, OA, RESP, text(&pool, buf, strlen(buf)), &pool.mem, &err);

        ok(llm_dialect_openai.bound(&rq, d, 2) == 1
           && d[0] == digest(t[i].text), "escapes: %s", t[i].json);
        pool_free(&pool);
    }
}


/* ---------------------------------------------------------------- prefix */

static uint64_t
prefix(const llm_dialect_t *dialect, const char *path, const char *body)
{
    pool_t         pool;
    uint64_t       d;
    llm_error_t    err;
    llm_request_t  rq;

    pool_init(&pool, 0);

    if (parse(&rq, dialect, path, text(&pool, body, strlen(body)), &pool.mem,
              &err)
        != LLM_OK)
    {
        ok(0, "prefix: %s", body);
    }

    d = dialect->prefix(&rq);

    pool_free(&pool);

    return d;
}


typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    int                    same;
    const char            *one;
    const char            *two;
} prefix_t;


#define SYS   "{\"role\":\"system\",\"content\":\"be\"},"
#define USER  "{\"role\":\"user\",\"content\":\"hi\"}"
#define MORE  ",{\"role\":\"assistant\",\"content\":\"yes\"}," USER
#define BILL  "x-anthropic-billing-header: cc_version=2.1; cch="


static const prefix_t  prefixes[] = {
    { OA, CHAT, 1, CM "[" SYS USER "]}",
      "{\"messages\":[" SYS USER MORE "],\"model\":\"other\","
      "\"temperature\":1}" },
    { OA, CHAT, 0, CM "[" SYS USER "]}", CM "[" USER "]}" },
    { OA, CHAT, 0, CM "[" USER "]}",
      CM "[{\"role\":\"user\",\"content\":\"ho\"}]}" },
    { OA, CHAT, 0, CM "[" USER "]}", CM "[" USER "],\"tools\":[{}]}" },
    { OA, CHAT, 0, CM "[" USER "]}",
      CM "[{\"role\":\"assistant\",\"content\":\"hi\"}]}" },
    { OA, CHAT, 1, CM "[" SYS "1]}", CM "[" SYS "1,2]}" },
    { OA, CHAT, 1, CM "[" USER "]}", CM "[{\"role\":\"user\",\"content\":["
      "{\"type\":\"text\",\"text\":\"hi\"}]}" MORE "]}" },
    { OA, CHAT, 0, CM "[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
      "\"url\":\"a\"}]}]}", CM "[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"image\",\"url\":\"b\"}]}]}" },
    { OA, CHAT, 0, CM "[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":\"a\"},{\"type\":\"text\",\"text\":\"bc\"}]}]}",
      CM "[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":\"ab\"},{\"type\":\"text\",\"text\":\"c\"}]}]}" },

    { OA, RESP, 1, RM "\"input\":\"hi\"}",
      "{\"model\":\"n\",\"input\":[" USER MORE "]}" },
    { OA, RESP, 0, RM "\"input\":\"hi\"}",
      RM "\"input\":\"hi\",\"instructions\":\"x\"}" },
    { OA, RESP, 1, RM "\"previous_response_id\":\"r\",\"input\":\"a\"}",
      RM "\"previous_response_id\":\"r\",\"input\":\"b\"}" },
    { OA, RESP, 1, RM "\"conversation\":\"r\",\"input\":\"a\"}",
      RM "\"conversation\":{\"id\":\"r\"},\"input\":\"b\"}" },
    { OA, RESP, 0, RM "\"conversation\":\"r\"}", RM "\"conversation\":\"s\"}" },
    { OA, RESP, 0, RM "\"input\":[{\"type\":\"x\",\"id\":1}]}",
      RM "\"input\":[{\"type\":\"x\",\"id\":2}]}" },

    { OA, "embeddings", 1, RM "\"input\":[\"a\",\"b\"]}",
      "{\"input\":[\"a\",\"b\"],\"model\":\"n\"}" },
    { OA, "embeddings", 0, RM "\"input\":\"a\"}", RM "\"input\":\"b\"}" },
    { OA, "completions", 0, RM "\"prompt\":\"a\"}", RM "\"prompt\":\"b\"}" },

    { AN, MSGS, 1, CM "[" USER "]}", CM "[" USER MORE "]}" },
    { AN, MSGS, 1, CM "[" USER "]}", CM "[{\"role\":\"user\",\"content\":["
      "{\"type\":\"text\",\"text\":\"hi\",\"cache_control\":{\"type\":"
      "\"ephemeral\"}}]}]}" },
    { AN, MSGS, 1, CM "[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
      "\"source\":{},\"cache_control\":{}}]}]}", CM "[{\"role\":\"user\","
      "\"content\":[{\"type\":\"image\",\"source\":{}}]}]}" },
    { AN, MSGS, 0, CM "[" USER "]}", CM "[" USER "],\"system\":\"x\"}" },
    { AN, MSGS, 0, CM "[" USER "]}", CM "[" USER "],\"tools\":[{}]}" },
    { AN, MSGS, 1, CM "[" USER "],\"system\":[{\"type\":\"text\",\"text\":"
      "\"" BILL "a1;\"},{\"type\":\"text\",\"text\":\"x\"}]}",
      CM "[" USER "],\"system\":[{\"type\":\"text\",\"text\":"
      "\"" BILL "b2;\"},{\"type\":\"text\",\"text\":\"x\"}]}" },
    { AN, MSGS, 1, CM "[" USER "],\"system\":\"" BILL "a\\t;\\nx\"}",
      CM "[" USER "],\"system\":\"" BILL "bbb;\\nx\"}" },
    { AN, MSGS, 0, CM "[" USER "],\"system\":\"" BILL "a;\\nx\"}",
      CM "[" USER "],\"system\":\"" BILL "a;\\ny\"}" },
    { AN, "messages/count_tokens", 1, CM "[" USER "]}",
      CM "[" USER MORE "]}" },
};


static void
prefix_table(void)
{
    size_t    i;
    uint64_t  one, two;

    for (i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        one = prefix(prefixes[i].dialect, prefixes[i].path, prefixes[i].one);
        two = prefix(prefixes[i].dialect, prefixes[i].path, prefixes[i].two);

        ok(one && two && (one == two) == prefixes[i].same,
           "prefix: %s: %.90s", prefixes[i].same ? "same" : "other",
           prefixes[i].two);
    }

    is_int(prefix(OA, CHAT, CM "[],\"tools\":[1]}"), 0, "prefix: no message");
    is_int(prefix(AN, MSGS, CM "[],\"system\":\"x\"}"), 0,
           "prefix: no message");
    is_int(prefix(OA, RESP, RM "\"instructions\":\"x\"}"), 0,
           "prefix: no input");
    is_int(prefix(OA, RESP, RM "\"input\":7}"), 0, "prefix: odd input");
    is_int(prefix(OA, "embeddings", RM "\"input\":null}"), 0,
           "prefix: null input");
    is_int(prefix(OA, "completions", RM "\"input\":\"x\"}"), 0,
           "prefix: no prompt");
    ok(prefix(OA, RESP, RM "\"conversation\":\"r\",\"previous_response_id\":"
              "\"s\"}") == digest("r"), "prefix: the conversation");
}


/* --------------------------------------------------------------- answers */

static int
named(const llm_answer_t *a, const char *const *want)
{
    llm_uint_t  i, k, n;

    for (n = 0; want[n]; n++) {

        for (i = 0; i < a->nbound; i++) {
            if (a->bound[i] == digest(want[n])) {
                break;
            }
        }

        if (i == a->nbound) {
            printf("# \"%s\" is not bound\n", want[n]);
            return 0;
        }
    }

    for (i = 0; i < a->nbound; i++) {
        for (k = 0; k < i; k++) {
            if (a->bound[i] == a->bound[k]) {
                return 0;
            }
        }
    }

    return n == a->nbound;
}


static void
streamed(const char *name, const llm_dialect_t *dialect, const char *path,
    const char *const *events, const char *const *want)
{
    int                       bad;
    llm_uint_t                i, on, what;
    run_mem_t                 m;
    llm_answer_t              a;
    static const char *const  none[] = { NULL };

    for (on = 0; on < 2; on++) {
        run_mem(&m, 0);
        answer_init(&a, dialect, path, &m.mem);
        a.want_bound = on;
        bad = 0;

        for (i = 0; events[i]; i++) {
            bad += (event(&a, NULL, events[i], strlen(events[i]), &what)
                    != LLM_OK) || (what & LLM_EV_MALFORMED);
        }

        ok(!bad && named(&a, on ? want : none), "stream: %s, %s", name,
           on ? "wanted" : "not wanted");

        dialect->answer_free(&a);
    }
}


static void
plainly(const char *name, const llm_dialect_t *dialect, const char *path,
    const char *body, const char *const *whole, const char *const *pieces)
{
    size_t                    i, len;
    u_char                   *p;
    llm_str_t                 s;
    llm_uint_t                on;
    run_mem_t                 m;
    llm_answer_t              a;
    static const char *const  none[] = { NULL };

    len = strlen(body);

    for (on = 0; on < 2; on++) {
        run_mem(&m, 0);
        answer_init(&a, dialect, path, &m.mem);
        a.want_bound = on;
        s.data = exact(body, len);
        s.len = len;

        ok(dialect->plain_whole(&a, &s) == LLM_OK
           && named(&a, on ? whole : none), "plain whole: %s, %d", name,
           (int) on);

        free(s.data);
        dialect->answer_free(&a);

        answer_init(&a, dialect, path, &m.mem);
        a.want_bound = on;

        for (i = 0; i < len; i++) {
            p = exact(body + i, 1);
            dialect->plain(&a, p, p + 1);
            free(p);
        }

        ok(dialect->plain_end(&a) == LLM_OK
           && named(&a, on ? pieces : none), "plain pieces: %s, %d", name,
           (int) on);

        dialect->answer_free(&a);
        ok(m.live == 0, "plain: nothing left");
    }
}


#define OUTPUT                                                                \
    "\"output\":[{\"type\":\"reasoning\",\"id\":\"rs_1\","                    \
    "\"encrypted_content\":\"g\\u0041\"},{\"type\":\"code_interpreter_call\","\
    "\"id\":\"ci_1\",\"container_id\":\"cntr_1\"},{\"type\":\"message\","     \
    "\"id\":\"msg_1\",\"content\":[]}]"


static void
answers(void)
{
    static const char  *const responses[] = {
        "{\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\","
        "\"conversation\":{\"id\":\"conv_1\"},\"output\":[]}}",
        "{\"type\":\"response.output_item.added\",\"item\":{\"type\":"
        "\"reasoning\",\"id\":\"rs_1\",\"encrypted_content\":\"early\"}}",
        "{\"type\":\"response.output_item.done\",\"item\":{\"type\":"
        "\"reasoning\",\"id\":\"rs_1\",\"encrypted_content\":\"gA\"}}",
        "{\"type\":\"response.output_item.done\",\"item\":{\"type\":"
        "\"code_interpreter_call\",\"id\":\"ci_1\",\"container_id\":"
        "\"cntr_1\"}}",
        "{\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\","
        "\"delta\":\"x\"}",
        "{\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\","
        "\"status\":\"completed\"," OUTPUT "}}",
        NULL
    };
    static const char  *const ids[] = {
        "resp_1", "conv_1", "rs_1", "gA", "ci_1", "cntr_1", "msg_1", NULL
    };
    static const char  *const pieces[] = { "resp_1", "conv_1", NULL };

    static const char  *const messages[] = {
        "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\","
        "\"container\":null,\"content\":[]}}",
        "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
        "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}",
        "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
        "{\"type\":\"signature_delta\",\"signature\":\"s1\"}}",
        "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
        "{\"type\":\"redacted_thinking\",\"data\":\"d1\"}}",
        "{\"type\":\"content_block_start\",\"index\":2,\"content_block\":"
        "{\"type\":\"other\",\"data\":\"d2\"}}",
        "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
        "\"end_turn\",\"container\":{\"id\":\"cont_1\"}}}",
        NULL
    };
    static const char  *const secrets[] = { "s1", "d1", "cont_1", NULL };
    static const char  *const container[] = { "cont_1", NULL };
    static const char  *const none[] = { NULL };

    static const char  *const chat[] = {
        "{\"id\":\"chatcmpl-1\",\"choices\":[]}", NULL
    };

    streamed("responses", OA, RESP, responses, ids);
    streamed("messages", AN, MSGS, messages, secrets);
    streamed("chat", OA, CHAT, chat, none);

    plainly("responses", OA, RESP, "{\"id\":\"resp_1\",\"object\":"
            "\"response\",\"conversation\":{\"id\":\"conv_1\"}," OUTPUT
            ",\"status\":\"completed\"}", ids, pieces);
    plainly("messages", AN, MSGS, "{\"id\":\"msg_1\",\"content\":["
            "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s1\"},"
            "{\"type\":\"redacted_thinking\",\"data\":\"d1\"},"
            "{\"type\":\"text\",\"text\":\"x\"}],\"container\":{\"id\":"
            "\"cont_1\"},\"stop_reason\":\"end_turn\"}", secrets, container);
    plainly("chat", OA, CHAT, chat[0], none, none);
    plainly("broken", OA, RESP, "{\"id\":\"resp_1\",", none,
            (const char *const []) { "resp_1", NULL });
}


/* what is told last stays, and that is the response's own id */

static void
answer_ring(void)
{
    char          buf[4096], *p;
    llm_str_t     s;
    run_mem_t     m;
    unsigned      i;
    llm_answer_t  a;

    p = buf + sprintf(buf, "{\"id\":\"resp_1\",\"status\":\"completed\","
                           "\"output\":[");

    for (i = 0; i < 40; i++) {
        p += sprintf(p, "%s{\"id\":\"i%u\"}", i ? "," : "", i);
    }

    p += sprintf(p, "]}");

    run_mem(&m, 0);
    answer_init(&a, OA, RESP, &m.mem);
    a.want_bound = 1;

    s.data = (u_char *) buf;
    s.len = p - buf;

    ok(llm_dialect_openai.plain_whole(&a, &s) == LLM_OK
       && named(&a, (const char *const []) { "i25", "i26", "i27", "i28",
                "i29", "i30", "i31", "i32", "i33", "i34", "i35", "i36", "i37",
                "i38", "i39", "resp_1", NULL }), "answer: the last ones");
}


/* the words that make the walk worth it, at every offset of a vector */

static void
words(void)
{
    int            bad;
    char           buf[512];
    size_t         i, len;
    pool_t         pool;
    uint64_t       d[2];
    llm_error_t    err;
    llm_request_t  rq;

    bad = 0;

    for (i = 0; i < 100; i++) {
        len = sprintf(buf, CM "[{\"content\":[{\"text\":\"%.*s\","
                      "\"file\":{\"file_id\":\"f\"}}]}]}", (int) i,
                      "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
                      "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");

        pool_init(&pool, 0);
        parse(&rq, OA, CHAT, text(&pool, buf, len), &pool.mem, &err);
        bad += (llm_dialect_openai.bound(&rq, d, 2) != 1);
        pool_free(&pool);
    }

    is_int(bad, 0, "words: at any place");
}


int
main(void)
{
    digests();
    bound_table();
    bound_rings();
    escapes();
    prefix_table();
    answers();
    answer_ring();
    words();

    return done();
}
