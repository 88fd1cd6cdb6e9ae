
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Messages folded and unfolded: streams as the public documentation shows
 * them, each kind of block, texts cut anywhere, and what is declined.
 */


#define _GNU_SOURCE                    /* memmem() */

#include "dialect_anthropic.h"
#include "retell.h"


static const retell_t  messages = {
    &llm_dialect_anthropic, "messages", &anthropic_caching
};


#define EV(type, rest)  "event: " type "\ndata: {\"type\":\"" type "\"" rest  \
                        "}\n\n"

#define START_OF(message)  EV("message_start", ",\"message\":" message)
#define START                                                                 \
    START_OF("{\"id\":\"msg_1\",\"type\":\"message\",\"role\":"               \
             "\"assistant\",\"content\":[],\"model\":\"claude\","             \
             "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":"         \
             "{\"input_tokens\":25,\"cache_read_input_tokens\":7,"            \
             "\"output_tokens\":1}}")
#define PING  "event: ping\ndata: {\"type\": \"ping\"}\n\n"
#define BLOCK(i, block)                                                       \
    EV("content_block_start", ",\"index\":" i ",\"content_block\":" block)
#define TEXT_BLOCK(i)  BLOCK(i, "{\"type\":\"text\",\"text\":\"\"}")
#define TOOL_BLOCK(i)                                                         \
    BLOCK(i, "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\","      \
             "\"input\":{}}")
#define THINK_BLOCK(i)                                                        \
    BLOCK(i, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
#define DELTA(i, delta)                                                       \
    EV("content_block_delta", ",\"index\":" i ",\"delta\":" delta)
#define TEXT(i, t)                                                            \
    DELTA(i, "{\"type\":\"text_delta\",\"text\":\"" t "\"}")
#define JSON(i, t)                                                            \
    DELTA(i, "{\"type\":\"input_json_delta\",\"partial_json\":\"" t "\"}")
#define THINK(i, t)                                                           \
    DELTA(i, "{\"type\":\"thinking_delta\",\"thinking\":\"" t "\"}")
#define SIGN(i, t)                                                            \
    DELTA(i, "{\"type\":\"signature_delta\",\"signature\":\"" t "\"}")
#define CITE(i, t)                                                            \
    DELTA(i, "{\"type\":\"citations_delta\",\"citation\":" t "}")
#define STOP(i)  EV("content_block_stop", ",\"index\":" i)
#define ENDS(reason, n)                                                       \
    EV("message_delta", ",\"delta\":{\"stop_reason\":\"" reason "\","         \
       "\"stop_sequence\":null},\"usage\":{\"output_tokens\":" n "}")
#define LAST  EV("message_stop", "")
#define END  ENDS("end_turn", "15") LAST

#define PLAIN(content, reason, n)                                             \
    "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","          \
    "\"content\":[" content "],\"model\":\"claude\",\"stop_reason\":\""       \
    reason "\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,"        \
    "\"cache_read_input_tokens\":7,\"output_tokens\":" n "}}"

#define P_TEXT(t)  "{\"type\":\"text\",\"text\":\"" t "\"}"
#define P_TOOL(input)                                                         \
    "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\",\"input\":"     \
    input "}"

#define DONE(content)  PLAIN(content, "end_turn", "15")


typedef struct {
    const char            *name;
    const char            *from;
    const char            *to;         /* NULL: declined */
} case_t;


static const case_t  folds[] = {

    { "a text",
      START TEXT_BLOCK("0") PING TEXT("0", "Hello") TEXT("0", "!") STOP("0")
      END, DONE(P_TEXT("Hello!")) },

    { "no block at all", START END, DONE("") },

    { "an empty text", START TEXT_BLOCK("0") STOP("0") END,
      DONE(P_TEXT("")) },

    { "escapes and a pair cut in two",
      START TEXT_BLOCK("0") TEXT("0", "\\ud83d") TEXT("0", "\\ude00\\n")
      TEXT("0", "\\\"\xc3\xa9") STOP("0") END,
      DONE(P_TEXT("\xf0\x9f\x98\x80\\n\\\"\\u00e9")) },

    { "a block that begins with text",
      START BLOCK("0", "{\"text\":\"He\",\"type\":\"text\",\"x\":[1, 2]}")
      TEXT("0", "llo") STOP("0") END,
      DONE("{\"text\":\"Hello\",\"type\":\"text\",\"x\":[1, 2]}") },

    { "a block without its text",
      START BLOCK("0", "{\"type\":\"text\"}") TEXT("0", "a") STOP("0") END,
      DONE(P_TEXT("a")) },

    { "comments, unnamed fields, carriage returns",
      ": hello\n" START ":\n\nid: 4\n\n"
      "data: {\"type\":\"content_block_start\",\"index\":0,"
      "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\r\n\r\n"
      TEXT("0", "a") STOP("0") END, DONE(P_TEXT("a")) },

    { "text and a tool",
      START TEXT_BLOCK("0") TEXT("0", "I'll look.") STOP("0")
      TOOL_BLOCK("1") JSON("1", "") JSON("1", "{\\\"location\\\":")
      JSON("1", " \\\"San") JSON("1", " \\ud83d") JSON("1", "\\ude00\\\"}")
      STOP("1") ENDS("tool_use", "89") LAST,
      PLAIN(P_TEXT("I'll look.") ","
            P_TOOL("{\"location\":\"San \xf0\x9f\x98\x80\"}"), "tool_use",
            "89") },

    { "a tool without input",
      START TOOL_BLOCK("0") JSON("0", "") STOP("0") END,
      DONE(P_TOOL("{}")) },

    { "a tool with its input from the start",
      START BLOCK("0", P_TOOL("{\"a\":1}")) STOP("0") END,
      DONE(P_TOOL("{\"a\":1}")) },

    { "numbers stay as they are",
      START TOOL_BLOCK("0") JSON("0", "{\\\"a\\\":1.") JSON("0", "0e2,")
      JSON("0", "\\n\\\"b\\\":\\\"\\\\ud83d\\\"}") STOP("0") END,
      DONE(P_TOOL("{\"a\":1.0e2,\"b\":\"\\ud83d\"}")) },

    { "thinking",
      START THINK_BLOCK("0") THINK("0", "Let ") THINK("0", "me")
      DELTA("0", "{\"type\":\"thinking_delta\",\"thinking\":\" see\","
                 "\"estimated_tokens\":50}")
      SIGN("0", "EqQB") STOP("0") TEXT_BLOCK("1") TEXT("1", "42") STOP("1")
      END,
      DONE("{\"type\":\"thinking\",\"thinking\":\"Let me see\","
           "\"signature\":\"EqQB\"}," P_TEXT("42")) },

    { "thinking that is not shown",
      START BLOCK("0", "{\"type\":\"thinking\",\"thinking\":\"\"}")
      SIGN("0", "EqQB") STOP("0") END,
      DONE("{\"type\":\"thinking\",\"thinking\":\"\","
           "\"signature\":\"EqQB\"}") },

    { "citations",
      START BLOCK("0", "{\"citations\":[],\"type\":\"text\",\"text\":\"\"}")
      TEXT("0", "the grass ") CITE("0", "{\"type\":\"char_location\"}")
      TEXT("0", "is green") CITE("0", "{\"n\":2}") STOP("0")
      TEXT_BLOCK("1") CITE("1", "{}") TEXT("1", "x") STOP("1")
      BLOCK("2", "{\"citations\":null,\"type\":\"text\",\"text\":\"\"}")
      CITE("2", "{}") STOP("2")
      BLOCK("3", "{\"citations\":[ {\"n\":1} ],\"type\":\"text\","
                 "\"text\":\"\"}") CITE("3", "{}") STOP("3") END,
      DONE("{\"type\":\"text\",\"text\":\"the grass is green\",\"citations\":"
           "[{\"type\":\"char_location\"},{\"n\":2}]},"
           "{\"type\":\"text\",\"text\":\"x\",\"citations\":[{}]},"
           "{\"type\":\"text\",\"text\":\"\",\"citations\":[{}]},"
           "{\"type\":\"text\",\"text\":\"\",\"citations\":[{\"n\":1},{}]}")
    },

    { "tools of the server, and their results",
      START BLOCK("0", "{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":"
                       "\"web_search\",\"input\":{}}")
      JSON("0", "{\\\"query\\\":\\\"a\\\"}") STOP("0")
      BLOCK("1", "{\"type\":\"web_search_tool_result\",\"tool_use_id\":\"s\","
                 "\"content\":[{\"type\":\"web_search_result\"}]}") STOP("1")
      BLOCK("2", "{\"type\":\"redacted_thinking\",\"data\":\"Em\"}")
      STOP("2") END,
      DONE("{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":"
           "\"web_search\",\"input\":{\"query\":\"a\"}},"
           "{\"type\":\"web_search_tool_result\",\"tool_use_id\":\"s\","
           "\"content\":[{\"type\":\"web_search_result\"}]},"
           "{\"type\":\"redacted_thinking\",\"data\":\"Em\"}") },

    { "usage and unknown members of both ends",
      START_OF("{\"x\":{\"y\":null},\"container\":null,\"usage\":"
               "{\"input_tokens\":3,\"output_tokens\":1,\"service_tier\":"
               "\"standard\",\"a\":5,\"n\":null}}")
      EV("message_delta", ",\"delta\":{\"stop_reason\":\"refusal\","
         "\"stop_details\":{\"type\":\"refusal\"},\"container\":{\"id\":"
         "\"c\"},\"new\":1},\"usage\":{\"input_tokens\":4,\"output_tokens\":"
         "9,\"a\":null,\"server_tool_use\":{\"web_search_requests\":1},"
         "\"z\":null},\"context_management\":{\"applied_edits\":[]}") LAST,
      "{\"x\":{\"y\":null},\"content\":[],\"container\":{\"id\":\"c\"},"
      "\"stop_reason\":\"refusal\",\"stop_details\":{\"type\":\"refusal\"},"
      "\"new\":1,\"usage\":{\"input_tokens\":4,\"output_tokens\":9,"
      "\"service_tier\":\"standard\",\"a\":5,\"n\":null,\"z\":null,"
      "\"server_tool_use\":{\"web_search_requests\":1}},"
      "\"context_management\":{\"applied_edits\":[]}}" },

    { "several message_delta",
      START EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\","
               "\"b\":1},\"usage\":{\"output_tokens\":2,\"q\":1}")
      EV("message_delta", ",\"delta\":{\"stop_reason\":null,"
         "\"stop_sequence\":\"x\",\"b\":2},\"usage\":{\"output_tokens\":15}")
      LAST,
      "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","
      "\"content\":[],\"model\":\"claude\",\"stop_reason\":\"end_turn\","
      "\"stop_sequence\":\"x\",\"b\":2,\"usage\":{\"input_tokens\":25,"
      "\"cache_read_input_tokens\":7,\"output_tokens\":15,\"q\":1}}" },

    { "usage at the end only",
      START_OF("{\"content\":null,\"usage\":null}") ENDS("end_turn", "1")
      LAST,
      "{\"content\":[],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
      "\"usage\":{\"output_tokens\":1}}" },

    { "no usage", START_OF("{}")
      EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"}") LAST,
      "{\"content\":[],\"stop_reason\":\"end_turn\"}" },

    { "nothing", "", NULL },
    { "no message_start", TEXT_BLOCK("0") STOP("0") END, NULL },
    { "two of them", START START END, NULL },
    { "no message_stop", START ENDS("end_turn", "1"), NULL },
    { "one cut off", START ENDS("end_turn", "1")
      "event: message_stop\ndata: {\"type\":\"message_stop\"}\n", NULL },
    { "something after it", START END TEXT_BLOCK("0"), NULL },
    { "no message_delta", START LAST, NULL },
    { "no reason", START EV("message_delta", ",\"delta\":{\"stop_reason\":"
      "null},\"usage\":{\"output_tokens\":1}") LAST, NULL },
    { "an error", START EV("error", ",\"error\":{\"type\":"
      "\"overloaded_error\"}") END, NULL },
    { "an unknown event", START EV("new", "") END, NULL },
    { "broken JSON", START "data: {\"type\":\"message_stop\"\n\n" END, NULL },
    { "an array", START "data: []\n\n" END, NULL },
    { "data in two lines", START "data: {\"type\":\ndata: \"ping\"}\n\n"
      "event: content_block_start\ndata: {\"type\":\"content_block_start\",\n"
      "data: \"index\":0,\"content_block\":\ndata: {\"type\":\"text\",\n"
      "data: \"text\":\"a\"}}\n\n" STOP("0") END,
      PLAIN(P_TEXT("a"), "end_turn", "15") },
    { "an unknown member of an event",
      START ENDS("end_turn", "1") EV("message_stop", ",\"metrics\":{}"),
      NULL },
    { "a member twice", START ENDS("end_turn", "1")
      EV("message_stop", ",\"type\":\"message_stop\""), NULL },
    { "a member of another event",
      START ENDS("end_turn", "1") EV("message_stop", ",\"index\":0"), NULL },
    { "a block that does not stop", START TEXT_BLOCK("0") END, NULL },
    { "a block in a block", START TEXT_BLOCK("0") TEXT_BLOCK("1") STOP("1")
      STOP("0") END, NULL },
    { "a block left out", START TEXT_BLOCK("1") STOP("1") END, NULL },
    { "a block without index", START EV("content_block_start",
      ",\"content_block\":{\"type\":\"text\",\"text\":\"\"}") END, NULL },
    { "a block after message_delta", START ENDS("end_turn", "1")
      TEXT_BLOCK("0") STOP("0") LAST, NULL },
    { "a delta of no block", START TEXT("0", "a") END, NULL },
    { "a delta of another block", START TEXT_BLOCK("0") TEXT("1", "a")
      STOP("0") END, NULL },
    { "a delta after its block", START TEXT_BLOCK("0") STOP("0")
      TEXT("0", "a") END, NULL },
    { "the stop of another block", START TEXT_BLOCK("0") STOP("1") END,
      NULL },
    { "an unknown delta", START TEXT_BLOCK("0")
      DELTA("0", "{\"type\":\"new_delta\",\"text\":\"a\"}") STOP("0") END,
      NULL },
    { "a delta with more", START TEXT_BLOCK("0")
      DELTA("0", "{\"type\":\"text_delta\",\"text\":\"a\",\"x\":1}")
      STOP("0") END, NULL },
    { "a delta with less", START TEXT_BLOCK("0")
      DELTA("0", "{\"type\":\"text_delta\"}") STOP("0") END, NULL },
    { "a delta of a number", START TEXT_BLOCK("0")
      DELTA("0", "{\"type\":\"text_delta\",\"text\":1}") STOP("0") END,
      NULL },
    { "a citation that is none", START TEXT_BLOCK("0") CITE("0", "1")
      STOP("0") END, NULL },
    { "no delta", START TEXT_BLOCK("0") EV("content_block_delta",
      ",\"index\":0") STOP("0") END, NULL },
    { "a delta of another kind", START TEXT_BLOCK("0") JSON("0", "{}")
      STOP("0") END, NULL },
    { "text into thinking", START THINK_BLOCK("0") TEXT("0", "a") STOP("0")
      END, NULL },
    { "text added to a number", START
      BLOCK("0", "{\"type\":\"text\",\"text\":1}") TEXT("0", "a") STOP("0")
      END, NULL },
    { "an unknown block", START BLOCK("0", "{\"type\":\"fallback\"}")
      STOP("0") END, NULL },
    { "a block that is none", START BLOCK("0", "\"text\"") STOP("0") END,
      NULL },
    { "two signatures", START THINK_BLOCK("0") SIGN("0", "a") SIGN("0", "b")
      STOP("0") END, NULL },
    { "a signature over another", START
      BLOCK("0", "{\"type\":\"thinking\",\"signature\":\"a\"}")
      SIGN("0", "b") STOP("0") END, NULL },
    { "input that is no JSON", START TOOL_BLOCK("0") JSON("0", "{\\\"a\\\":")
      STOP("0") END, NULL },
    { "half a code point in input", START TOOL_BLOCK("0")
      JSON("0", "{\\\"a\\\":\\\"\\ud83d\\\"}") STOP("0") END, NULL },
    { "input over another", START BLOCK("0", P_TOOL("{\"a\":1}"))
      JSON("0", "{}") STOP("0") END, NULL },
    { "a message with content", START_OF("{\"content\":[{}]}") END, NULL },
    { "a message that is none", START_OF("[]") END, NULL },
    { "a message with a name twice", START_OF("{\"a\":1,\"a\":2}") END,
      NULL },
    { "a message with an escaped name", START_OF("{\"\\u0061\":1}") END,
      NULL },
    { "usage that is none", START_OF("{\"usage\":[]}") END, NULL },
    { "a delta of the model", START EV("message_delta",
      ",\"delta\":{\"stop_reason\":\"end_turn\",\"model\":\"x\"}") LAST,
      NULL },
    { "context_management in both places", START EV("message_delta",
      ",\"delta\":{\"stop_reason\":\"a\",\"context_management\":{}},"
      "\"context_management\":{}") LAST, NULL }
};


/* what unfolds, and is the same when it is folded again */

static const case_t  unfolds[] = {
    { "a text", DONE(P_TEXT("Hello, world")), "6" },
    { "no block", DONE(""), "3" },
    { "an empty text", DONE(P_TEXT("")), "5" },
    { "several blocks",
      PLAIN("{\"type\":\"thinking\",\"thinking\":\"Let me see\","
            "\"signature\":\"EqQB\"}," P_TEXT("a") ","
            P_TOOL("{\"location\":\"San \\u0022x\\ud83d\\ude00\",\"n\":1.50}")
            "," P_TOOL("{}"), "tool_use", "89"), "18" },
    { "thinking without a signature",
      DONE("{\"type\":\"thinking\",\"thinking\":\"a\"},"
           "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":null},"
           "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"},"
           "{\"type\":\"redacted_thinking\",\"data\":\"E\"}"), "11" },
    { "citations",
      DONE("{\"type\":\"text\",\"text\":\"a\",\"citations\":[{\"n\":1},"
           "{\"n\":[2]}]},{\"citations\":null,\"type\":\"text\",\"text\":"
           "\"b\"},{\"citations\":[],\"type\":\"text\",\"text\":\"c\","
           "\"new\":{}}"), "14" },
    { "tools of the server",
      DONE("{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"w\","
           "\"input\":{\"query\":\"a\"},\"caller\":{\"type\":\"direct\"}},"
           "{\"type\":\"web_search_tool_result\",\"content\":[1]},"
           "{\"type\":\"mcp_tool_use\",\"input\":{},\"server_name\":\"m\"},"
           "{\"type\":\"mcp_tool_result\",\"is_error\":false},"
           "{\"type\":\"container_upload\",\"file_id\":\"f\"}"), "16" },
    { "unknown members",
      "{\"type\":\"message\",\"stop_details\":{\"type\":\"refusal\"},"
      "\"new\":{\"a\":[]},\"container\":{\"id\":\"c\",\"expires_at\":\"x\"},"
      "\"context_management\":{\"applied_edits\":[{}]},\"content\":[],"
      "\"stop_reason\":\"refusal\",\"usage\":{\"output_tokens\":0,"
      "\"input_tokens\":1,\"cache_creation\":{\"a\":0},\"service_tier\":null"
      "}}", "3" },
    { "nulls",
      "{\"type\":\"message\",\"stop_details\":null,\"container\":null,"
      "\"context_management\":null,\"content\":[],\"stop_reason\":"
      "\"stop_sequence\",\"stop_sequence\":\"\\n\",\"usage\":"
      "{\"output_tokens\":7}}", "3" },
    { "line ends between tokens",
      "\n{\r\n  \"type\" : \"message\",\n \"x\":{\n \"y\\\"\\\\\" : [ 1,\r2 ]"
      "\n},  \"content\":[\n " P_TOOL("{\n \"a \\\" \": [\n1 ]\n }") ",\n"
      "{\"type\":\"text\",\n\"text\":\"a  b\",\"c\":[\n \" \\\\\",\n \"\"]}\n"
      "],\n \"stop_reason\":\n\"end_turn\",\"usage\":\n{ \"output_tokens\"\n"
      ":\n7 } }\n \n", "8" }
};


static const case_t  undone[] = {
    { "nothing", "", NULL },
    { "no JSON", "{", NULL },
    { "no object", "[]", NULL },
    { "an error", "{\"type\":\"error\",\"error\":{}}", NULL },
    { "no reason", "{\"type\":\"message\",\"content\":[],\"stop_reason\":"
      "null,\"usage\":{\"output_tokens\":1}}", NULL },
    { "no usage", "{\"type\":\"message\",\"content\":[],\"stop_reason\":"
      "\"end_turn\"}", NULL },
    { "no count of output", "{\"type\":\"message\",\"content\":[],"
      "\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":1}}", NULL },
    { "no content", "{\"type\":\"message\",\"stop_reason\":\"end_turn\","
      "\"usage\":{\"output_tokens\":1}}", NULL },
    { "a name twice", "{\"type\":\"message\",\"content\":[],\"stop_reason\":"
      "\"end_turn\",\"usage\":{\"output_tokens\":1},\"content\":[]}", NULL },
    { "content that is a text", "{\"type\":\"message\",\"content\":\"a\","
      "\"stop_reason\":\"end_turn\",\"usage\":{\"output_tokens\":1}}", NULL },
    { "an unknown block", DONE("{\"type\":\"compaction\",\"content\":\"a\"}"),
      NULL },
    { "a block without type", DONE("{\"text\":\"a\"}"), NULL },
    { "a block that is none", DONE("1"), NULL },
    { "a block with a name twice", DONE("{\"type\":\"text\",\"text\":\"a\","
      "\"text\":\"b\"}"), NULL },
    { "a text that is none", DONE("{\"type\":\"text\",\"text\":null}"),
      NULL },
    { "citations that are none", DONE("{\"type\":\"text\",\"text\":\"\","
      "\"citations\":{}}"), NULL },
    { "a citation that is no object", DONE("{\"type\":\"text\",\"text\":"
      "\"\",\"citations\":[{},1]}"), NULL },
    { "a tool without input", DONE("{\"type\":\"tool_use\"}"), NULL },
    { "an input that is no object", DONE(P_TOOL("[]")), NULL },
    { "thinking that is none", DONE("{\"type\":\"thinking\"}"), NULL },
    { "a signature that is none", DONE("{\"type\":\"thinking\",\"thinking\":"
      "\"\",\"signature\":1}"), NULL }
};


static void
tables(void)
{
    size_t     i;
    llm_str_t  stream;

    for (i = 0; i < sizeof(folds) / sizeof(folds[0]); i++) {

        if (folds[i].to) {
            retell_folds(&messages, folds[i].name, folds[i].from,
                         folds[i].to);

        } else {
            retell_declined(&messages, 0, folds[i].name, folds[i].from);
        }
    }

    for (i = 0; i < sizeof(unfolds) / sizeof(unfolds[0]); i++) {
        retell_there_and_back(&messages, unfolds[i].name, unfolds[i].from,
                              atoi(unfolds[i].to), &stream);
        free(stream.data);
    }

    for (i = 0; i < sizeof(undone) / sizeof(undone[0]); i++) {
        retell_declined(&messages, 1, undone[i].name, undone[i].from);
    }
}


/* the events of a stream, one by one as they should be */

static void
golden(void)
{
    llm_str_t  s;

    static const char  plain[] =
        "{\"id\":\"msg_1\",\"content\":[" P_TEXT("Hi") "," P_TOOL("{\"a\":1}")
        "],\"type\":\"message\",\"stop_reason\":\"tool_use\","
        "\"stop_sequence\":null,\"usage\":{\"input_tokens\":3,"
        "\"output_tokens\":20}}";

    static const char  want[] =
        START_OF("{\"id\":\"msg_1\",\"content\":[],\"type\":\"message\","
                 "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":"
                 "{\"input_tokens\":3,\"output_tokens\":1}}")
        TEXT_BLOCK("0") TEXT("0", "Hi") STOP("0")
        TOOL_BLOCK("1") JSON("1", "") JSON("1", "{\\\"a\\\":1}") STOP("1")
        EV("message_delta", ",\"delta\":{\"stop_reason\":\"tool_use\","
           "\"stop_sequence\":null},\"usage\":{\"input_tokens\":3,"
           "\"output_tokens\":20}")
        LAST;

    is_int(retell(&messages, 1, plain, sizeof(plain) - 1, &s), LLM_OK,
           "unfold");
    is(&s, want, "the events of a stream");
    free(s.data);
}


/* a text of all kinds of code points and escapes, of every length */

static void
texts(void)
{
    int         bad, pieces, most;
    char        x[8192], *p;
    size_t      i, n;
    u_char     *at;
    llm_str_t   plain, s, back;

    static const char *const  units[] = {
        "a", "\\n", "\xc3\xa9", "\\ud83d\\ude00", "\xf0\x9f\x98\x80",
        "\\\\", "\\uD800", "\\u0041", "\\\"", "\\udc00", "\xe4\xb8\x96", " "
    };

    bad = 0;
    most = 0;

    for (n = 0; n < 400; n += 7) {
        p = x + sprintf(x, "{\"type\":\"message\",\"stop_reason\":\"a\","
                        "\"usage\":{\"output_tokens\":1},\"content\":"
                        "[{\"type\":\"text\",\"text\":\"");

        for (i = 0; i < n; i++) {
            p += sprintf(p, "%s", units[(i * i + n) % 12]);
        }

        strcpy(p, "\"}]}");

        plain = cstr(x);

        bad += retell(&messages, 1, x, strlen(x), &s) != LLM_OK;
        bad += retell(&messages, 0, (char *) s.data, s.len, &back) != LLM_OK;
        bad += !retell_equal(&plain, &back);

        pieces = 0;
        at = s.data;

        while ((at = memmem(at, s.data + s.len - at, "text_delta", 10))) {
            pieces++;
            at++;
        }

        bad += (pieces < (int) n / 48);
        most = (pieces > most) ? pieces : most;

        free(s.data);
        free(back.data);
    }

    is_int(bad, 0, "texts of all lengths");
    ok(most > 10 && most <= 257, "in %d pieces at most", most);
}


/* the pieces are strings by themselves: no pair is cut */

static void
pairs(void)
{
    int        bad;
    char       x[65536], *p;
    size_t     i;
    u_char    *at, *end;
    llm_str_t  s;

    p = x + sprintf(x, "{\"type\":\"message\",\"stop_reason\":\"a\",\"usage\":"
                    "{\"output_tokens\":1},\"content\":[{\"type\":\"text\","
                    "\"text\":\"a");

    for (i = 0; i < 2000; i++) {
        p += sprintf(p, "\\ud83d\\ude00%s", i % 3 ? "" : "\xf0\x9f\x98\x80");
    }

    strcpy(p, "\"}]}");

    is_int(retell(&messages, 1, x, strlen(x), &s), LLM_OK, "unfold pairs");

    bad = 0;
    i = 0;
    at = s.data;

    while ((at = memmem(at, s.data + s.len - at, "\"text_delta\",\"text\":\"",
                        21)))
    {
        at += 21;
        end = memchr(at, '"', s.data + s.len - at);
        bad += (memcmp(at, "\\ude", 4) == 0
                || memcmp(end - 6, "\\ud83d", 6) == 0
                || (*at & 0xc0) == 0x80);
        i++;
    }

    ok(bad == 0 && i > 20 && i <= 257, "no pair is cut in %zu pieces", i);
    free(s.data);
}


/* more blocks than there may be, and a nesting too deep */

static void
limits(void)
{
    char       *x, *p;
    size_t      i;
    llm_int_t   rc;
    llm_str_t   s;
    run_mem_t   m;
    llm_uint_t  n;

    x = malloc(400 * 1024);
    run_mem(&m, 0);

    for (n = 1024; n <= 1025; n++) {
        p = x + sprintf(x, "%s", START);

        for (i = 0; i < n; i++) {
            p += sprintf(p, "event: content_block_start\ndata: {\"type\":"
                         "\"content_block_start\",\"index\":%zu,"
                         "\"content_block\":{\"type\":\"text\",\"text\":"
                         "\"\"}}\n\nevent: content_block_stop\ndata: "
                         "{\"type\":\"content_block_stop\",\"index\":%zu}\n\n",
                         i, i);
        }

        p += sprintf(p, "%s", END);

        s = cstr(x);
        rc = llm_dialect_anthropic.caching->fold(
                 endpoint(messages.dialect, messages.path), &s, &m.mem, &s);

        is_int(rc, n == 1024 ? LLM_OK : LLM_DECLINED, "number of blocks");

        if (rc == LLM_OK) {
            run_free(&m, s.data);
        }
    }

    for (n = 500; n <= 520; n += 20) {
        p = x + sprintf(x, "%s%s", START, "event: content_block_start\ndata: "
                        "{\"type\":\"content_block_start\",\"index\":0,"
                        "\"content_block\":{\"type\":\"tool_use\",\"input\":"
                        "{}}}\n\nevent: content_block_delta\ndata: {\"type\":"
                        "\"content_block_delta\",\"index\":0,\"delta\":"
                        "{\"type\":\"input_json_delta\",\"partial_json\":\"");
        memset(p, '[', n);
        memset(p + n, ']', n);
        sprintf(p + n * 2, "\"}}\n\n%s%s", STOP("0"), END);

        s = cstr(x);
        rc = llm_dialect_anthropic.caching->fold(
                 endpoint(messages.dialect, messages.path), &s, &m.mem, &s);

        is_int(rc, n == 500 ? LLM_OK : LLM_DECLINED, "depth of input");

        if (rc == LLM_OK) {
            ok(valid(&s), "its message can be read");
            run_free(&m, s.data);
        }
    }

    is_int(m.live, 0, "nothing left");
    free(x);
}


static void
count_tokens(void)
{
    llm_str_t       out;
    const retell_t  t = { &llm_dialect_anthropic, "messages/count_tokens",
                         &anthropic_caching };

    is_int(retell(&t, 1, "{\"input_tokens\":1}", 18, &out), LLM_DECLINED,
           "count_tokens has no stream");
    is_int(retell(&t, 0, START END, sizeof(START END) - 1, &out),
           LLM_DECLINED, "count_tokens has none to fold");
}


int
main(void)
{
    tables();
    golden();
    texts();
    pairs();
    limits();
    count_tokens();

    return done();
}
