
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Responses folded and unfolded: streams as the public documentation shows
 * them, each kind of item, the order of events, and what is declined.
 */


#include "dialect_openai.h"
#include "retell.h"


#define EV(type, rest)  "event: " type "\ndata: {\"type\":\"" type "\"" rest  \
                        "}\n\n"

#define RESPONSE(status, output, usage)                                       \
    "{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1741290958,"   \
    "\"status\":\"" status "\",\"error\":null,\"incomplete_details\":null,"   \
    "\"model\":\"gpt\",\"output\":[" output "],\"store\":false,\"usage\":"    \
    usage ",\"metadata\":{}}"
#define USAGE                                                                 \
    "{\"input_tokens\":37,\"input_tokens_details\":{\"cached_tokens\":5},"    \
    "\"output_tokens\":11,\"output_tokens_details\":{\"reasoning_tokens\":"   \
    "2},\"total_tokens\":48}"
#define PLAIN(output)  RESPONSE("completed", output, USAGE)

#define CREATED                                                               \
    EV("response.created", ",\"sequence_number\":0,\"response\":"             \
       RESPONSE("in_progress", "", "null"))
#define ADDED(i, item)                                                        \
    EV("response.output_item.added", ",\"output_index\":" i ",\"item\":" item)
#define DONE(i, item)                                                         \
    EV("response.output_item.done", ",\"output_index\":" i ",\"item\":" item)
#define TEXT(t)                                                               \
    EV("response.output_text.delta", ",\"item_id\":\"msg_1\","                \
       "\"output_index\":0,\"content_index\":0,\"delta\":\"" t "\"")
#define LAST(response)                                                        \
    EV("response.completed", ",\"sequence_number\":9,\"response\":" response)

#define OPEN                                                                  \
    "{\"id\":\"msg_1\",\"type\":\"message\",\"status\":\"in_progress\","      \
    "\"role\":\"assistant\",\"content\":[]}"
#define MESSAGE(content)                                                      \
    "{\"id\":\"msg_1\",\"type\":\"message\",\"status\":\"completed\","        \
    "\"role\":\"assistant\",\"content\":[" content "]}"
#define SAID(t)                                                               \
    "{\"type\":\"output_text\",\"text\":\"" t "\",\"annotations\":[]}"
#define CALL(args)                                                            \
    "{\"id\":\"fc_1\",\"type\":\"function_call\",\"status\":\"completed\","   \
    "\"call_id\":\"call_1\",\"name\":\"f\",\"arguments\":\"" args "\"}"
#define REASONING(summary)                                                    \
    "{\"id\":\"rs_1\",\"type\":\"reasoning\",\"encrypted_content\":\"gA\","   \
    "\"summary\":[" summary "]}"


typedef struct {
    const char            *name;
    const char            *from;
    const char            *to;         /* NULL: declined */
} case_t;


static llm_int_t
fold(const llm_endpoint_t *ep, const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out)
{
    return openai_responses_fold(text, mem, out);
}


static llm_int_t
unfold(const llm_endpoint_t *ep, const llm_str_t *text, llm_uint_t usage,
    const llm_mem_t *mem, llm_str_t *out)
{
    return openai_responses_unfold(text, mem, out);
}


/* without the dispatch by endpoint, which is not theirs */

static const llm_caching_t  caching = {
    .fold = fold,
    .unfold = unfold
};


static const retell_t  responses = {
    &llm_dialect_openai, "responses", &caching
};


static const case_t  folds[] = {
    { "a text",
      CREATED ADDED("0", OPEN) TEXT("Hi") TEXT("!") DONE("0",
      MESSAGE(SAID("Hi!"))) LAST(PLAIN(MESSAGE(SAID("Hi!")))),
      PLAIN(MESSAGE(SAID("Hi!"))) },

    { "nothing said", CREATED LAST(PLAIN("")), PLAIN("") },

    { "spaces within", CREATED LAST("{ \"status\" :\"completed\",\"output\" "
      ": [ ] ,\"a\\\\u0062\":1.50}"),
      "{ \"status\" :\"completed\",\"output\" : [ ] ,\"a\\\\u0062\":1.50}" },

    { "several items, progress of tools, and [DONE]",
      CREATED EV("response.queued", "") EV("response.in_progress", "")
      ADDED("0", REASONING("")) EV("response.reasoning_summary_part.added", "")
      EV("response.reasoning_summary_text.delta", ",\"delta\":\"a\"")
      DONE("0", REASONING("{\"type\":\"summary_text\",\"text\":\"a\"}"))
      EV("response.web_search_call.searching", "")
      EV("response.mcp_call.in_progress", "")
      ADDED("1", CALL(""))
      EV("response.function_call_arguments.delta", ",\"delta\":\"{}\"")
      DONE("1", CALL("{}"))
      LAST(PLAIN(REASONING("{\"type\":\"summary_text\",\"text\":\"a\"}") ","
                 CALL("{}"))) "data: [DONE]\n\n",
      PLAIN(REASONING("{\"type\":\"summary_text\",\"text\":\"a\"}") ","
            CALL("{}")) },

    { "an item whose other members differ",
      CREATED DONE("0", "{\"id\":\"r\",\"type\":\"reasoning\","
                        "\"encrypted_content\":\"a\"}")
      LAST(PLAIN("{\"encrypted_content\":\"b\",\"id\":\"r\",\"type\":"
                 "\"reasoning\"}")),
      PLAIN("{\"encrypted_content\":\"b\",\"id\":\"r\",\"type\":"
            "\"reasoning\"}") },

    { "nothing", "", NULL },
    { "no end", CREATED, NULL },
    { "response.incomplete", CREATED EV("response.incomplete",
      ",\"response\":" RESPONSE("incomplete", "", USAGE)), NULL },
    { "response.failed", CREATED EV("response.failed",
      ",\"response\":" RESPONSE("failed", "", "null")), NULL },
    { "an error", CREATED EV("error", ",\"code\":\"x\""), NULL },
    { "another status", CREATED LAST(RESPONSE("incomplete", "", USAGE)),
      NULL },
    { "no response", CREATED EV("response.completed", ""), NULL },
    { "no output", CREATED LAST("{\"status\":\"completed\"}"), NULL },
    { "two ends", CREATED LAST(PLAIN("")) LAST(PLAIN("")), NULL },
    { "an unknown event", CREATED EV("response.new", "") LAST(PLAIN("")),
      NULL },
    { "pictures on their way", CREATED
      EV("response.image_generation_call.partial_image", "") LAST(PLAIN("")),
      NULL },
    { "no type", CREATED "data: {}\n\n" LAST(PLAIN("")), NULL },
    { "broken JSON", CREATED "data: {\n\n" LAST(PLAIN("")), NULL },
    { "an output left out", CREATED ADDED("0", OPEN)
      DONE("0", MESSAGE(SAID("Hi!"))) LAST(PLAIN("")), NULL },
    { "an item that is not done", CREATED ADDED("0", OPEN) LAST(PLAIN("")),
      NULL },
    { "an item that was not told", CREATED LAST(PLAIN(MESSAGE(SAID("a")))),
      NULL },
    { "another text", CREATED DONE("0", MESSAGE(SAID("Hi!")))
      LAST(PLAIN(MESSAGE(SAID("Hi.")))), NULL },
    { "another item", CREATED DONE("0", CALL("{}"))
      LAST(PLAIN("{\"id\":\"fc_2\",\"type\":\"function_call\","
                 "\"arguments\":\"{}\"}")), NULL },
    { "items out of order", CREATED DONE("1", MESSAGE(SAID("a")))
      LAST(PLAIN(MESSAGE(SAID("a")))), NULL },
    { "an item that is none", CREATED DONE("0", "1") LAST(PLAIN("1")), NULL }
};


static const case_t  unfolds[] = {
    { "nothing said", PLAIN(""), "3" },
    { "a text", PLAIN(MESSAGE(SAID("Hello"))), "9" },
    { "several parts and items",
      PLAIN(REASONING("{\"type\":\"summary_text\",\"text\":\"I think\"},"
                      "{\"type\":\"summary_text\",\"text\":\"\"}") ","
            MESSAGE(SAID("a \\ud83d\\ude00 b") ","
                    "{\"type\":\"refusal\",\"refusal\":\"I can't\"}") ","
            CALL("{\\\"a\\\":1,\\\"b\\\":\\\"a longer text, in pieces\\\"}")
            "," CALL("")
            ",{\"id\":\"ct_1\",\"type\":\"custom_tool_call\",\"call_id\":"
            "\"c\",\"name\":\"g\",\"input\":\"do it\"}"), "34" },
    { "reasoning in the open",
      PLAIN("{\"id\":\"rs_1\",\"type\":\"reasoning\",\"summary\":[],"
            "\"content\":[{\"type\":\"reasoning_text\",\"text\":\"why\"}]},"
            "{\"id\":\"rs_2\",\"type\":\"reasoning\",\"summary\":null,"
            "\"content\":null,\"status\":null}"), "11" },
    { "annotations",
      PLAIN(MESSAGE("{\"annotations\":[{\"type\":\"url_citation\",\"url\":"
                    "\"x\"},{\"type\":\"file_path\"}],\"type\":"
                    "\"output_text\",\"logprobs\":[],\"text\":\"a\",\"new\":"
                    "{}},{\"type\":\"output_text\",\"text\":\"\"}")), "14" },
    { "line ends between tokens",
      "\n {\n  \"id\" : \"resp_1\",\r\n  \"status\": \"completed\",\n"
      "  \"x\": [\n 1,\n \"a  b\\n\"\n ],  \"output\": [\n " MESSAGE("\n"
      SAID("a") "\n") "\n ]\n}\n", "9" }
};


static const case_t  undone[] = {
    { "nothing", "", NULL },
    { "no JSON", "{", NULL },
    { "no object", "[]", NULL },
    { "not completed", RESPONSE("incomplete", "", USAGE), NULL },
    { "no status", "{\"output\":[]}", NULL },
    { "no output", "{\"status\":\"completed\"}", NULL },
    { "an error", "{\"status\":\"completed\",\"output\":[],\"error\":{}}",
      NULL },
    { "incomplete", "{\"status\":\"completed\",\"output\":[],"
      "\"incomplete_details\":{\"reason\":\"x\"}}", NULL },
    { "a name twice", "{\"status\":\"completed\",\"output\":[],\"output\":"
      "[]}", NULL },
    { "an unknown item", PLAIN("{\"id\":\"ws\",\"type\":\"web_search_call\"}"),
      NULL },
    { "an item that is none", PLAIN("1"), NULL },
    { "an item without id", PLAIN("{\"type\":\"message\",\"content\":[]}"),
      NULL },
    { "an item without type", PLAIN("{\"id\":\"message\"}"), NULL },
    { "a call without arguments",
      PLAIN("{\"id\":\"a\",\"type\":\"function_call\"}"), NULL },
    { "a call with content", PLAIN("{\"id\":\"a\",\"type\":\"function_call\","
      "\"arguments\":\"\",\"content\":[]}"), NULL },
    { "a tool's input that is no text", PLAIN("{\"id\":\"a\",\"type\":"
      "\"custom_tool_call\",\"input\":{}}"), NULL },
    { "a message with a summary", PLAIN("{\"id\":\"a\",\"type\":\"message\","
      "\"summary\":[{}]}"), NULL },
    { "content that is a text", PLAIN("{\"id\":\"a\",\"type\":\"message\","
      "\"content\":\"a\"}"), NULL },
    { "an unknown part", PLAIN(MESSAGE("{\"type\":\"new\",\"text\":\"\"}")),
      NULL },
    { "a part of something else",
      PLAIN(MESSAGE("{\"type\":\"summary_text\",\"text\":\"\"}")), NULL },
    { "a part that is none", PLAIN(MESSAGE("\"a\"")), NULL },
    { "a part without text", PLAIN(MESSAGE("{\"type\":\"output_text\"}")),
      NULL },
    { "logprobs", PLAIN(MESSAGE("{\"type\":\"output_text\",\"text\":\"a\","
      "\"logprobs\":[{}]}")), NULL },
    { "an annotation that is no object", PLAIN(MESSAGE("{\"type\":"
      "\"output_text\",\"text\":\"a\",\"annotations\":[{},1]}")), NULL },
    { "annotations that are none", PLAIN(MESSAGE("{\"type\":\"output_text\","
      "\"text\":\"a\",\"annotations\":{}}")), NULL }
};


/* numbers go up by one, the field is the type, deltas make the text of done */

static void
numbered(const char *name, const llm_str_t *stream)
{
    int            good;
    void          *framer;
    size_t         len;
    u_char        *pos, *last, joined[8192], whole[8192];
    uint64_t       n, sequence;
    run_mem_t      m;
    llm_event_t    ev;

    enum { TYPE = 0, SEQUENCE, DELTA, TEXT_, ARGUMENTS, INPUT, REFUSAL, MAX };

    llm_json_value_t        v[MAX];
    llm_uint_t              i;
    static const llm_str_t  names[MAX] = {
        llm_string("type"), llm_string("sequence_number"),
        llm_string("delta"), llm_string("text"), llm_string("arguments"),
        llm_string("input"), llm_string("refusal")
    };

    run_mem(&m, 0);
    framer = llm_sse_framing.create(&m.mem, stream->len);
    pos = stream->data;
    last = pos + stream->len;
    good = 1;
    sequence = 0;
    len = 0;

    while (llm_sse_framing.feed(framer, &pos, last, &ev) == LLM_OK) {
        good = good
               && llm_json_scan(&ev.data, 512, names, v, MAX, NULL) == LLM_OK
               && llm_json_is(&v[TYPE], (char *) ev.type.data, ev.type.len)
               && llm_json_uint(&v[SEQUENCE], &n) == LLM_OK
               && n == sequence++;

        if (v[DELTA].type == LLM_JSON_STRING) {
            len += llm_json_unescape(joined + len, &v[DELTA]);
        }

        for (i = TEXT_; good && i < MAX; i++) {
            if (v[i].type == LLM_JSON_STRING) {
                n = llm_json_unescape(whole, &v[i]);
                good = (n == len && memcmp(whole, joined, n) == 0);
                len = 0;
            }
        }
    }

    ok(good && sequence > 2 && len == 0, "numbers and texts: %s", name);

    llm_sse_framing.free(framer);
}


static void
tables(void)
{
    size_t     i;
    llm_str_t  out;

    for (i = 0; i < sizeof(folds) / sizeof(folds[0]); i++) {

        if (folds[i].to == NULL) {
            retell_declined(&responses, 0, folds[i].name, folds[i].from);
            continue;
        }

        is_int(retell(&responses, 0, folds[i].from, strlen(folds[i].from),
                      &out), LLM_OK, folds[i].name);
        is(&out, folds[i].to, "byte for byte");
        free(out.data);
    }

    for (i = 0; i < sizeof(unfolds) / sizeof(unfolds[0]); i++) {
        retell_there_and_back(&responses, unfolds[i].name, unfolds[i].from,
                              atoi(unfolds[i].to), &out);
        numbered(unfolds[i].name, &out);
        free(out.data);
    }

    for (i = 0; i < sizeof(undone) / sizeof(undone[0]); i++) {
        retell_declined(&responses, 1, undone[i].name, undone[i].from);
    }
}


#define N(type, n, rest)  EV(type, ",\"sequence_number\":" n rest)
#define AT(id, o)  ",\"item_id\":\"" id "\",\"output_index\":" o
#define PART_AT(id, o, i)  AT(id, o) ",\"content_index\":" i

static void
golden(void)
{
    llm_str_t  s;

    static const char  plain[] =
        PLAIN(MESSAGE("{\"type\":\"output_text\",\"text\":\"Hi\","
                      "\"annotations\":[{\"n\":1}]}") "," CALL("{}"));

    static const char  want[] =
        N("response.created", "0", ",\"response\":"
          RESPONSE("in_progress", "", "null"))
        N("response.in_progress", "1", ",\"response\":"
          RESPONSE("in_progress", "", "null"))
        N("response.output_item.added", "2", ",\"output_index\":0,\"item\":"
          OPEN)
        N("response.content_part.added", "3", PART_AT("msg_1", "0", "0")
          ",\"part\":" SAID(""))
        N("response.output_text.delta", "4", PART_AT("msg_1", "0", "0")
          ",\"delta\":\"Hi\",\"logprobs\":[]")
        N("response.output_text.annotation.added", "5",
          PART_AT("msg_1", "0", "0")
          ",\"annotation_index\":0,\"annotation\":{\"n\":1}")
        N("response.output_text.done", "6", PART_AT("msg_1", "0", "0")
          ",\"text\":\"Hi\",\"logprobs\":[]")
        N("response.content_part.done", "7", PART_AT("msg_1", "0", "0")
          ",\"part\":{\"type\":\"output_text\",\"text\":\"Hi\","
          "\"annotations\":[{\"n\":1}]}")
        N("response.output_item.done", "8", ",\"output_index\":0,\"item\":"
          MESSAGE("{\"type\":\"output_text\",\"text\":\"Hi\","
                  "\"annotations\":[{\"n\":1}]}"))
        N("response.output_item.added", "9", ",\"output_index\":1,\"item\":"
          "{\"id\":\"fc_1\",\"type\":\"function_call\",\"status\":"
          "\"in_progress\",\"call_id\":\"call_1\",\"name\":\"f\","
          "\"arguments\":\"\"}")
        N("response.function_call_arguments.delta", "10", AT("fc_1", "1")
          ",\"delta\":\"{}\"")
        N("response.function_call_arguments.done", "11", AT("fc_1", "1")
          ",\"name\":\"f\",\"arguments\":\"{}\"")
        N("response.output_item.done", "12", ",\"output_index\":1,\"item\":"
          CALL("{}"))
        N("response.completed", "13", ",\"response\":"
          PLAIN(MESSAGE("{\"type\":\"output_text\",\"text\":\"Hi\","
                        "\"annotations\":[{\"n\":1}]}") "," CALL("{}")));

    is_int(retell(&responses, 1, plain, sizeof(plain) - 1, &s), LLM_OK,
           "unfold");
    is(&s, want, "the events of a stream");
    free(s.data);
}


/* what each event repeats, or needs an event of its own */

static void
limits(void)
{
    char       *x, *p;
    size_t      i;
    llm_str_t   out;
    llm_uint_t  n;

    x = malloc(65536);

    for (n = 510; n <= 511; n++) {
        sprintf(x, "{\"status\":\"completed\",\"output\":[{\"type\":"
                "\"message\",\"content\":[],\"id\":\"%0*d\"}]}", (int) n,
                1);
        is_int(retell(&responses, 1, x, strlen(x), &out),
               n == 510 ? LLM_OK : LLM_DECLINED, "length of an id");
        free(out.data);
    }

    for (n = 1024; n <= 1025; n++) {
        p = x + sprintf(x, "{\"status\":\"completed\",\"output\":[");

        for (i = 0; i < n; i++) {
            p += sprintf(p, "%s{\"type\":\"message\",\"id\":\"%zu\"}",
                         i ? "," : "", i);
        }

        strcpy(p, "]}");

        is_int(retell(&responses, 1, x, strlen(x), &out),
               n == 1024 ? LLM_OK : LLM_DECLINED, "number of items");
        free(out.data);
    }

    free(x);
}


int
main(void)
{
    tables();
    golden();
    limits();

    return done();
}
