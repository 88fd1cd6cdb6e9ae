
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Streams of chat/completions and completions folded into plain answers, and
 * the reverse.
 */


#define _GNU_SOURCE

#include <time.h>

#include "dialect.h"


#define OA    &llm_dialect_openai

#define CHAT  "chat/completions"
#define TEXT  "completions"

#define EV(json)  "data: " json "\n\n"
#define DONE      "data: [DONE]\n\n"

/* a chunk of one choice */

#define TOP      "\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\"," \
                  "\"created\":7,\"model\":\"m\""
#define CH(rest)  EV("{" TOP ",\"choices\":[{\"index\":0," rest "}]}")
#define D(delta)  CH("\"delta\":{" delta "},\"finish_reason\":null")
#define END(why)  CH("\"delta\":{},\"finish_reason\":\"" why "\"")
#define STOP      END("stop") DONE
#define ROLE      D("\"role\":\"assistant\",\"content\":\"\"")

#define PTOP      "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\"," \
                  "\"created\":7,\"model\":\"m\",\"choices\":["
#define MSG(m, rest)  PTOP "{\"index\":0,\"message\":{" m "}," rest "}]}"
#define PLAIN(m)  MSG("\"role\":\"assistant\"," m, "\"finish_reason\":\"stop\"")


typedef struct {
    const char            *path;
    const char            *name;
    const char            *stream;
    const char            *plain;      /* NULL: declined */
} fold_t;


typedef struct {
    const char            *path;
    const char            *name;
    llm_uint_t             usage;
    const char            *plain;
    const char            *stream;     /* NULL: declined */
} unfold_t;


static const fold_t  folds[] = {

    { CHAT, "OpenAI",
      EV("{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\","
         "\"created\":1741570283,\"model\":\"gpt-4o\",\"service_tier\":"
         "\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":"
         "0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":"
         "null},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null,"
         "\"obfuscation\":\"Yt3\"}")
      EV("{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\","
         "\"created\":1741570283,\"model\":\"gpt-4o\",\"service_tier\":"
         "\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":"
         "0,\"delta\":{\"content\":\"Hello\"},\"logprobs\":null,"
         "\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"Y\"}")
      EV("{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\","
         "\"created\":1741570283,\"model\":\"gpt-4o\",\"service_tier\":"
         "\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":"
         "0,\"delta\":{\"content\":\" \\\"you\\\"\\n\"},\"logprobs\":null,"
         "\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"\"}")
      EV("{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\","
         "\"created\":1741570283,\"model\":\"gpt-4o\",\"service_tier\":"
         "\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":"
         "0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
         "\"usage\":null,\"obfuscation\":\"x\"}")
      EV("{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion.chunk\","
         "\"created\":1741570283,\"model\":\"gpt-4o\",\"service_tier\":"
         "\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[],\"usage\":"
         "{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11,"
         "\"prompt_tokens_details\":{\"cached_tokens\":0}},"
         "\"obfuscation\":\"xyz\"}")
      DONE,
      "{\"id\":\"chatcmpl-B9\",\"object\":\"chat.completion\",\"created\":"
      "1741570283,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":"
      "{\"role\":\"assistant\",\"content\":\"Hello \\\"you\\\"\\n\","
      "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
      "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,"
      "\"total_tokens\":11,\"prompt_tokens_details\":{\"cached_tokens\":0}},"
      "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\"}" },

    { CHAT, "tool calls",
      D("\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,"
        "\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":"
        "\"get\",\"arguments\":\"\"}}],\"refusal\":null")
      D("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\"}"
        "}]")
      D("\"tool_calls\":[{\"index\":1,\"id\":\"call_2\",\"type\":\"custom\","
        "\"custom\":{\"name\":\"sh\",\"input\":\"\"}}]")
      D("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\":1}\"}"
        "},{\"index\":1,\"custom\":{\"input\":\"ls\"}}]")
      END("tool_calls") DONE,
      MSG("\"role\":\"assistant\",\"content\":null,\"refusal\":null,"
          "\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\","
          "\"function\":{\"name\":\"get\",\"arguments\":\"{\\\"a\\\":1}\"}},"
          "{\"id\":\"call_2\",\"type\":\"custom\",\"custom\":{\"name\":\"sh\","
          "\"input\":\"ls\"}}]", "\"finish_reason\":\"tool_calls\"") },

    { CHAT, "function_call",
      D("\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":"
        "\"get\",\"arguments\":\"\"}")
      D("\"function_call\":{\"arguments\":\"{\"}")
      D("\"function_call\":{\"arguments\":\"}\"}")
      END("function_call") DONE,
      MSG("\"role\":\"assistant\",\"content\":null,\"function_call\":{"
          "\"name\":\"get\",\"arguments\":\"{}\"}",
          "\"finish_reason\":\"function_call\"") },

    { CHAT, "refusal",
      D("\"role\":\"assistant\",\"content\":null,\"refusal\":\"\"")
      D("\"refusal\":\"No\"") D("\"refusal\":\"!\"") STOP,
      PLAIN("\"content\":null,\"refusal\":\"No!\"") },

    { CHAT, "three choices, interleaved, one chunk for two",
      CH("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}")
      EV("{" TOP ",\"choices\":[{\"index\":2,\"delta\":{\"role\":"
         "\"assistant\",\"content\":\"c\"}},{\"index\":1,\"delta\":{"
         "\"role\":\"assistant\",\"content\":\"b\"}}]}")
      D("\"content\":\"a\"")
      EV("{" TOP ",\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":"
         "\"length\"},{\"index\":2,\"delta\":{\"content\":\"C\"},"
         "\"finish_reason\":\"stop\"}]}")
      STOP,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"a\"},\"finish_reason\":\"stop\"},{\"index\":1,\"message\":{\"role\":"
      "\"assistant\",\"content\":\"b\"},\"finish_reason\":\"length\"},"
      "{\"index\":2,\"message\":{\"role\":\"assistant\",\"content\":\"cC\"},"
      "\"finish_reason\":\"stop\"}]}" },

    { CHAT, "logprobs",
      CH("\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
         "\"logprobs\":null,\"finish_reason\":null")
      CH("\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[{\"token\":"
         "\"a\",\"logprob\":-0.1,\"bytes\":[97],\"top_logprobs\":[]}],"
         "\"refusal\":null},\"finish_reason\":null")
      CH("\"delta\":{\"content\":\"b\"},\"logprobs\":{\"content\":[{\"token\":"
         "\"b\",\"logprob\":-2.50,\"bytes\":[98],\"top_logprobs\":[]}],"
         "\"refusal\":null},\"finish_reason\":null")
      CH("\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"") DONE,
      MSG("\"role\":\"assistant\",\"content\":\"ab\",\"refusal\":null",
          "\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.1,"
          "\"bytes\":[97],\"top_logprobs\":[]},{\"token\":\"b\",\"logprob\":"
          "-2.50,\"bytes\":[98],\"top_logprobs\":[]}],\"refusal\":null},"
          "\"finish_reason\":\"stop\"") },

    { CHAT, "Azure",
      EV("{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":"
         "\"\",\"prompt_filter_results\":[{\"prompt_index\":0,"
         "\"content_filter_results\":{\"hate\":{\"filtered\":false,"
         "\"severity\":\"safe\"}}}]}")
      EV("{\"choices\":[{\"content_filter_results\":{},\"delta\":{\"content\":"
         "\"\",\"refusal\":null,\"role\":\"assistant\"},\"finish_reason\":null,"
         "\"index\":0,\"logprobs\":null}],\"created\":7,\"id\":\"chatcmpl-A\","
         "\"model\":\"gpt-4o\",\"object\":\"chat.completion.chunk\","
         "\"system_fingerprint\":\"fp\"}")
      EV("{\"choices\":[{\"content_filter_results\":{\"hate\":{\"filtered\":"
         "false,\"severity\":\"safe\"}},\"delta\":{\"content\":\"Hi\"},"
         "\"finish_reason\":null,\"index\":0,\"logprobs\":null}],\"created\":7,"
         "\"id\":\"chatcmpl-A\",\"model\":\"gpt-4o\",\"object\":"
         "\"chat.completion.chunk\",\"system_fingerprint\":\"fp\"}")
      EV("{\"choices\":[{\"content_filter_results\":{\"hate\":{\"filtered\":"
         "false,\"severity\":\"safe\"}},\"delta\":{\"content\":\"!\"},"
         "\"finish_reason\":null,\"index\":0,\"logprobs\":null}],\"created\":7,"
         "\"id\":\"chatcmpl-A\",\"model\":\"gpt-4o\",\"object\":"
         "\"chat.completion.chunk\",\"system_fingerprint\":\"fp\"}")
      EV("{\"choices\":[{\"content_filter_results\":{},\"delta\":{},"
         "\"finish_reason\":\"stop\",\"index\":0,\"logprobs\":null}],"
         "\"created\":7,\"id\":\"chatcmpl-A\",\"model\":\"gpt-4o\",\"object\":"
         "\"chat.completion.chunk\",\"system_fingerprint\":\"fp\"}")
      DONE,
      "{\"id\":\"chatcmpl-A\",\"object\":\"chat.completion\",\"created\":7,"
      "\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
      "\"assistant\",\"content\":\"Hi!\",\"refusal\":null},\"logprobs\":null,"
      "\"finish_reason\":\"stop\",\"content_filter_results\":{\"hate\":{"
      "\"filtered\":false,\"severity\":\"safe\"}}}],\"system_fingerprint\":"
      "\"fp\",\"prompt_filter_results\":[{\"prompt_index\":0,"
      "\"content_filter_results\":{\"hate\":{\"filtered\":false,\"severity\":"
      "\"safe\"}}}]}" },

    { CHAT, "Azure: filter results that change",
      CH("\"delta\":{\"content\":\"a\"},\"content_filter_results\":{\"hate\":{"
         "\"severity\":\"safe\"}}")
      CH("\"delta\":{\"content\":\"b\"},\"content_filter_results\":{\"hate\":{"
         "\"severity\":\"low\"}}")
      STOP, NULL },

    { CHAT, "vLLM",
      D("\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":null")
      CH("\"delta\":{\"reasoning_content\":\"Hm\"},\"logprobs\":null,"
         "\"finish_reason\":null,\"token_ids\":null")
      CH("\"delta\":{\"reasoning_content\":\".\",\"tool_calls\":[]}")
      CH("\"delta\":{\"content\":\"1\"},\"stop_reason\":null")
      CH("\"delta\":{\"content\":\"1\"},\"finish_reason\":\"stop\","
         "\"stop_reason\":128009")
      EV("{" TOP ",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}") DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"11\",\"reasoning_content\":\"Hm.\",\"tool_calls\":[]},\"logprobs\":"
      "null,\"finish_reason\":\"stop\",\"token_ids\":null,\"stop_reason\":"
      "128009}],\"usage\":{\"prompt_tokens\":1}}" },

    { CHAT, "vLLM: token ids in each chunk",
      CH("\"delta\":{\"content\":\"1\"},\"token_ids\":[16]")
      CH("\"delta\":{\"content\":\"1\"},\"token_ids\":[16]") STOP, NULL },

    { CHAT, "llama.cpp",
      EV("{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{"
         "\"role\":\"assistant\",\"content\":null}}],\"created\":100,\"id\":"
         "\"chatcmpl-x\",\"model\":\"q\",\"system_fingerprint\":\"b1\","
         "\"object\":\"chat.completion.chunk\"}")
      EV("{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{"
         "\"content\":\"Hi\"}}],\"created\":101,\"id\":"
         "\"chatcmpl-x\",\"model\":\"q\",\"system_fingerprint\":\"b1\","
         "\"object\":\"chat.completion.chunk\"}")
      EV("{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}],"
         "\"created\":102,\"id\":\"chatcmpl-x\",\"model\":\"q\","
         "\"system_fingerprint\":\"b1\",\"object\":\"chat.completion.chunk\","
         "\"usage\":{\"completion_tokens\":1},\"timings\":{\"prompt_n\":1,"
         "\"predicted_ms\":3.25}}") DONE,
      "{\"id\":\"chatcmpl-x\",\"object\":\"chat.completion\",\"created\":100,"
      "\"model\":\"q\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
      "\"assistant\",\"content\":\"Hi\"},\"finish_reason\":\"stop\"}],"
      "\"usage\":{\"completion_tokens\":1},\"system_fingerprint\":\"b1\","
      "\"timings\":{\"prompt_n\":1,\"predicted_ms\":3.25}}" },

    { CHAT, "Ollama",
      CH("\"delta\":{\"role\":\"assistant\",\"content\":\"H\"},"
         "\"finish_reason\":null")
      CH("\"delta\":{\"role\":\"assistant\",\"content\":\"i\"},"
         "\"finish_reason\":null")
      CH("\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
         "\"finish_reason\":\"stop\"") DONE,
      PLAIN("\"content\":\"Hi\"") },

    { CHAT, "Mistral",
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
         "\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"p\":"
         "\"abc\"}")
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\","
         "\"tool_calls\":[{\"id\":\"D681PevKs\",\"function\":{\"name\":\"get\","
         "\"arguments\":\"{}\"},\"index\":0}]},\"finish_reason\":"
         "\"tool_calls\"}],\"usage\":{\"prompt_tokens\":2},\"p\":\"abcdef\"}")
      DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\","
      "\"tool_calls\":[{\"id\":\"D681PevKs\",\"function\":{\"name\":\"get\","
      "\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}],\"usage\":{"
      "\"prompt_tokens\":2}}" },

    { CHAT, "Mistral: content in blocks",
      D("\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\"}]") STOP,
      NULL },

    { CHAT, "DeepSeek",
      D("\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"\"")
      D("\"content\":null,\"reasoning_content\":\"Well\"")
      D("\"content\":null,\"reasoning_content\":\", yes\"")
      D("\"content\":\"Yes\",\"reasoning_content\":null")
      CH("\"delta\":{\"content\":\"\",\"reasoning_content\":null},"
         "\"finish_reason\":\"stop\"") DONE,
      PLAIN("\"content\":\"Yes\",\"reasoning_content\":\"Well, yes\"") },

    { CHAT, "Gemini",
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
         "\"assistant\",\"tool_calls\":[{\"extra_content\":{\"google\":{"
         "\"thought_signature\":\"AbC==\"}},\"function\":{\"arguments\":"
         "\"{\\\"x\\\":1}\",\"name\":\"get\"},\"id\":\"function-call-1\","
         "\"index\":0,\"type\":\"function\"}]}}],\"usage\":{"
         "\"total_tokens\":1}}")
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
         "\"assistant\"},\"finish_reason\":\"tool_calls\"}],\"usage\":{"
         "\"total_tokens\":3}}") DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,"
      "\"tool_calls\":[{\"id\":\"function-call-1\",\"type\":\"function\","
      "\"function\":{\"name\":\"get\",\"arguments\":\"{\\\"x\\\":1}\"},"
      "\"extra_content\":{\"google\":{\"thought_signature\":\"AbC==\"}}}]},"
      "\"finish_reason\":\"tool_calls\"}],\"usage\":{\"total_tokens\":3}}" },

    { CHAT, "Gemini: calls with the same index",
      D("\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":"
        "\"get\",\"arguments\":\"{}\"}}]")
      D("\"tool_calls\":[{\"index\":0,\"id\":\"b\",\"function\":{\"name\":"
        "\"get\",\"arguments\":\"{}\"}}]")
      STOP, NULL },

    { CHAT, "Gemini: no ids either",
      D("\"tool_calls\":[{\"index\":0,\"id\":\"\",\"function\":{\"name\":"
        "\"get\",\"arguments\":\"{}\"}}]")
      D("\"tool_calls\":[{\"index\":0,\"id\":\"\",\"function\":{\"name\":"
        "\"get\",\"arguments\":\"{}\"}}]")
      STOP, NULL },

    { CHAT, "a name and an id that are empty later",
      D("\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":"
        "\"get\",\"arguments\":\"{\"}}]")
      D("\"tool_calls\":[{\"index\":0,\"id\":\"\",\"function\":{\"name\":"
        "null,\"arguments\":\"}\"}},{\"index\":0,\"function\":{\"name\":"
        "\"\",\"arguments\":null}}]")
      STOP, PLAIN("\"content\":null,\"tool_calls\":[{\"id\":\"a\","
                  "\"function\":{\"name\":\"get\",\"arguments\":\"{}\"}}]") },

    { CHAT, "OpenRouter",
      ": OPENROUTER PROCESSING\n\n"
      EV("{" TOP ",\"provider\":\"X\",\"choices\":[{\"index\":0,\"delta\":{"
         "\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":null},"
         "\"finish_reason\":null,\"native_finish_reason\":null,\"logprobs\":"
         "null}]}")
      ": OPENROUTER PROCESSING\n\n"
      EV("{" TOP ",\"provider\":\"X\",\"choices\":[{\"index\":0,\"delta\":{"
         "\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"r\","
         "\"reasoning_details\":[{\"type\":\"reasoning.text\"}]},"
         "\"finish_reason\":\"stop\",\"native_finish_reason\":\"STOP\","
         "\"logprobs\":null}]}") DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"a\",\"reasoning\":\"r\",\"reasoning_details\":[{\"type\":"
      "\"reasoning.text\"}]},\"logprobs\":null,\"finish_reason\":\"stop\","
      "\"native_finish_reason\":\"STOP\"}],\"provider\":\"X\"}" },

    { CHAT, "OpenRouter: details in two deltas",
      D("\"reasoning_details\":[{\"text\":\"a\"}]")
      D("\"reasoning_details\":[{\"text\":\"b\"}]") STOP, NULL },

    { CHAT, "Groq",
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
         "\"assistant\",\"content\":\"a\"}}],\"x_groq\":{\"id\":\"req_1\"}}")
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":"
         "\"stop\"}],\"x_groq\":{\"id\":\"req_1\",\"usage\":{\"q\":0.5}}}")
      DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"a\"},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"req_1\","
      "\"usage\":{\"q\":0.5}}}" },

    { CHAT, "Perplexity",
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
         "\"assistant\",\"content\":\"a\"}}],\"citations\":[\"u\"]}")
      EV("{" TOP ",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":"
         "\"stop\"}],\"citations\":[\"u\"]}") DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"a\"},\"finish_reason\":\"stop\"}],\"citations\":[\"u\"]}" },

    { CHAT, "Moonshot",
      D("\"role\":\"assistant\",\"content\":\"a\"")
      CH("\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"total_tokens\":"
         "3}") DONE,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"a\"},\"finish_reason\":\"stop\",\"usage\":{\"total_tokens\":3}}],"
      "\"usage\":{\"total_tokens\":3}}" },

    { CHAT, "a surrogate pair in two deltas, and other characters",
      ROLE D("\"content\":\"\\ud83d\"") D("\"content\":\"\\ude00\xc3\xa9\"")
      STOP, PLAIN("\"content\":\"\\ud83d\\ude00\xc3\xa9\"") },

    { CHAT, "fields, comments, data in lines",
      "event: message\nid: 5\n"
      "data: {" TOP ",\ndata: \"choices\":[{\"index\":0,\ndata:\"delta\":{"
      "\"content\":\"a\"}}]}\n\n:\n\nretry: 5\n\n"
      "id: 6\ndata: {" TOP ",\ndata: \"choices\":[{\"index\":0,\n"
      "data:\"delta\":{\"content\":\"b\"}}]}\n\n" STOP,
      PLAIN("\"content\":\"ab\"") },

    { CHAT, "no role, no content, no index",
      EV("{\"choices\":[{\"delta\":{}}]}")
      EV("{\"choices\":[{\"finish_reason\":\"stop\"}]}") DONE,
      "{\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{"
      "\"role\":\"assistant\",\"content\":null},\"finish_reason\":"
      "\"stop\"}]}" },

    { CHAT, "members of a delta that are not known",
      ROLE D("\"a\":\"x\",\"b\":1,\"c\":[],\"d\":null,\"e\":\"q\"")
      D("\"a\":\"\",\"c\":[1],\"e\":\"r\"") D("\"a\":null,\"e\":\"q\"") STOP,
      PLAIN("\"content\":\"\",\"a\":\"x\",\"b\":1,\"c\":[1],\"d\":null,"
            "\"e\":\"qrq\"") },

    { CHAT, "a string that is told twice", D("\"a\":\"x\"") D("\"a\":\"x\"")
      STOP, NULL },
    { CHAT, "a number that is told twice", D("\"a\":1") D("\"a\":1") STOP,
      NULL },
    { CHAT, "an object that is told twice", D("\"a\":{\"b\":1}")
      D("\"a\":{\"b\":1}") STOP, NULL },
    { CHAT, "a string, and an array", D("\"a\":\"x\"") D("\"a\":[1]") STOP,
      NULL },
    { CHAT, "audio", D("\"audio\":{\"data\":\"AA\"}") STOP, NULL },
    { CHAT, "no audio", ROLE D("\"audio\":null") STOP,
      PLAIN("\"content\":\"\"") },

    { CHAT, "nothing", "", NULL },
    { CHAT, "only the end", DONE, NULL },
    { CHAT, "no end", ROLE END("stop"), NULL },
    { CHAT, "no blank line at the end", ROLE END("stop") "data: [DONE]\n",
      NULL },
    { CHAT, "more behind the end", ROLE STOP ROLE, NULL },
    { CHAT, "an event that is cut behind the end", ROLE STOP "data: {\n",
      NULL },
    { CHAT, "two ends", ROLE STOP DONE, NULL },
    { CHAT, "no reason", ROLE DONE, NULL },
    { CHAT, "no reason of the second choice", ROLE
      EV("{" TOP ",\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"},"
         "\"finish_reason\":null}]}") STOP, NULL },
    { CHAT, "two reasons", ROLE END("length") STOP, NULL },
    { CHAT, "a reason that is a number", ROLE
      CH("\"delta\":{},\"finish_reason\":1") DONE, NULL },
    { CHAT, "a choice without a delta", CH("\"finish_reason\":\"stop\"") DONE,
      NULL },
    { CHAT, "a choice's message", ROLE
      CH("\"delta\":{},\"message\":{\"content\":\"a\"}") STOP, NULL },
    { CHAT, "no choices", EV("{" TOP ",\"choices\":[]}") DONE, NULL },
    { CHAT, "an event that is no JSON", ROLE EV("{") STOP, NULL },
    { CHAT, "an event that is no object", ROLE EV("[]") STOP, NULL },
    { CHAT, "an event that is no chunk", ROLE EV("{\"type\":\"ping\"}") STOP,
      NULL },
    { CHAT, "a chunk of another kind",
      EV("{\"object\":\"chat.completion\",\"choices\":[]}") ROLE STOP, NULL },
    { CHAT, "an error's event", ROLE
      "event: error\ndata: {\"choices\":[]}\n\n" STOP, NULL },
    { CHAT, "an error", ROLE
      EV("{\"error\":{\"message\":\"x\"},\"choices\":[]}") STOP, NULL },
    { CHAT, "no error", EV("{\"error\":null,\"choices\":[]}") ROLE STOP,
      PLAIN("\"content\":\"\"") },
    { CHAT, "two ids", EV("{\"id\":\"chatcmpl-2\",\"choices\":[]}") ROLE STOP,
      NULL },
    { CHAT, "two models", EV("{\"model\":\"n\",\"choices\":[]}") ROLE STOP,
      NULL },
    { CHAT, "an unknown member that changes",
      EV("{\"x\":1,\"choices\":[]}") EV("{\"x\":2,\"choices\":[]}") ROLE STOP,
      NULL },
    { CHAT, "a name twice", D("\"content\":\"a\",\"content\":\"b\"") STOP,
      NULL },
    { CHAT, "a name with an escape", D("\"cont\\u0065nt\":\"a\"") STOP, NULL },
    { CHAT, "a content that is a number", D("\"content\":1") STOP, NULL },
    { CHAT, "a role that is a number", D("\"role\":1") STOP, NULL },
    { CHAT, "a delta that is a string", CH("\"delta\":\"a\"") STOP, NULL },
    { CHAT, "choices that are an object", ROLE EV("{\"choices\":{}}") STOP,
      NULL },
    { CHAT, "a choice that is a string", ROLE EV("{\"choices\":[\"\"]}") STOP,
      NULL },
    { CHAT, "an index that is none", ROLE
      EV("{\"choices\":[{\"index\":-1,\"delta\":{}}]}") STOP, NULL },
    { CHAT, "an index past all", ROLE
      EV("{\"choices\":[{\"index\":128,\"delta\":{},\"finish_reason\":"
         "\"stop\"}]}") STOP, NULL },
    { CHAT, "an object that loses a member", EV("{\"x\":{\"a\":1,\"b\":2},"
      "\"choices\":[]}") EV("{\"x\":{\"b\":2},\"choices\":[]}") ROLE STOP,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"\"},\"finish_reason\":\"stop\"}],\"x\":{\"a\":1,\"b\":2}}" },
    { CHAT, "an object that changes one", EV("{\"x\":{\"a\":1,\"b\":2},"
      "\"choices\":[]}") EV("{\"x\":{\"b\":3},\"choices\":[]}") ROLE STOP,
      NULL },
    { CHAT, "a call without an index",
      D("\"tool_calls\":[{\"id\":\"a\"}]") STOP, NULL },
    { CHAT, "a call with two names",
      D("\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"get\"}}]")
      D("\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"_x\"}}]")
      STOP, NULL },
    { CHAT, "arguments that are an object",
      D("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":{}}}]")
      STOP, NULL },
    { CHAT, "logprobs not known",
      CH("\"delta\":{},\"logprobs\":{\"x\":[1]}") STOP, NULL },
    { CHAT, "logprobs that are an array",
      CH("\"delta\":{},\"logprobs\":[1]") STOP, NULL },

#define CT  "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7," \
            "\"model\":\"m\",\"choices\":["

    { TEXT, "OpenAI's completions",
      EV(CT "{\"text\":\"Hi\",\"index\":0,\"logprobs\":{\"tokens\":[\"Hi\"],"
         "\"token_logprobs\":[-1.0],\"top_logprobs\":[{\"Hi\":-1.0}],"
         "\"text_offset\":[3]},\"finish_reason\":null}]}")
      EV(CT "{\"text\":\" you\",\"index\":0,\"logprobs\":{\"tokens\":[\" yo\","
         "\"u\"],\"token_logprobs\":[-2,-3],\"top_logprobs\":[{},{}],"
         "\"text_offset\":[5,8]},\"finish_reason\":null}],\"usage\":null}")
      EV(CT "{\"text\":\"\",\"index\":0,\"logprobs\":{\"tokens\":[],"
         "\"token_logprobs\":[],\"top_logprobs\":[],\"text_offset\":[]},"
         "\"finish_reason\":\"length\"}],\"usage\":null}")
      EV(CT "],\"usage\":{\"total_tokens\":3}}") DONE,
      CT "{\"index\":0,\"text\":\"Hi you\",\"logprobs\":{\"tokens\":[\"Hi\","
      "\" yo\",\"u\"],\"token_logprobs\":[-1.0,-2,-3],\"top_logprobs\":[{"
      "\"Hi\":-1.0},{},{}],\"text_offset\":[3,5,8]},\"finish_reason\":"
      "\"length\"}],\"usage\":{\"total_tokens\":3}}" },

    { TEXT, "completions without logprobs",
      EV(CT "{\"text\":\"a\",\"index\":0,\"logprobs\":null,\"finish_reason\":"
         "null,\"stop_reason\":null}]}")
      EV(CT "{\"text\":\"a\",\"index\":0,\"logprobs\":null,\"finish_reason\":"
         "\"stop\",\"stop_reason\":\"x\"}]}") DONE,
      CT "{\"index\":0,\"text\":\"aa\",\"logprobs\":null,\"finish_reason\":"
      "\"stop\",\"stop_reason\":\"x\"}]}" },

    { TEXT, "completions without a text",
      EV(CT "{\"index\":0,\"finish_reason\":\"stop\"}]}") DONE, NULL },
    { TEXT, "completions, a chunk of another kind",
      EV("{\"object\":\"chat.completion.chunk\",\"choices\":[{\"text\":\"\","
         "\"finish_reason\":\"stop\"}]}") DONE, NULL },

    { "embeddings", "another endpoint", ROLE STOP, NULL }
};


#define UTOP      "{" TOP ",\"choices\":["
#define U(rest)   EV(UTOP "{\"index\":0," rest "}]}")
#define UN(rest)  EV(UTOP "{\"index\":0," rest "}],\"usage\":null}")
#define UD(d)     U("\"delta\":{" d "},\"finish_reason\":null")
#define UROLE     UD("\"role\":\"assistant\",\"content\":\"\"")
#define USTOP     U("\"delta\":{},\"finish_reason\":\"stop\"") DONE
#define S64       "0123456789abcdef0123456789abcdef0123456789abcdef" \
                  "0123456789abcdef"
#define S62       "0123456789abcdef0123456789abcdef0123456789abcdef" \
                  "0123456789abcd"


static const unfold_t  unfolds[] = {

    { CHAT, "a text", 0, PLAIN("\"content\":\"Hi\""),
      UROLE UD("\"content\":\"Hi\"") USTOP },

    { CHAT, "usage, asked", 1,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"Hi\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
      "\"usage\":{\n  \"total_tokens\": 3,\n  \"x\": \"a \\\" b\"\n}}",
      UN("\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}"
         ",\"logprobs\":null,\"finish_reason\":null")
      UN("\"delta\":{\"content\":\"Hi\"},\"logprobs\":null,\"finish_reason\":"
         "null")
      UN("\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"")
      EV(UTOP "],\"usage\":{\"total_tokens\":3,\"x\":\"a \\\" b\"}}") DONE },

    { CHAT, "usage, not asked", 0,
      PTOP "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
      "\"Hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"total_tokens\":3}}",
      UROLE UD("\"content\":\"Hi\"") USTOP },

    { CHAT, "usage, asked, not there", 1, PLAIN("\"content\":\"Hi\""),
      UROLE UD("\"content\":\"Hi\"") USTOP },

    { CHAT, "pieces", 0, PLAIN("\"content\":\"" S64 S62 "\\ud83d\\ude00"
                               S62 "\xe2\x82\xac" S64 "\""),
      UROLE UD("\"content\":\"" S64 "\"")
      UD("\"content\":\"" S62 "\\ud83d\\ude00\"")
      UD("\"content\":\"" S62 "\xe2\x82\xac\"") UD("\"content\":\"" S64 "\"")
      USTOP },

    { CHAT, "tool calls", 0,
      PLAIN("\"content\":null,\"reasoning_content\":\"r\",\"tool_calls\":[{"
            "\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":"
            "{\"name\":\"get\",\"arguments\":\"" S64 "}\"},\"extra_content\":{"
            "\"g\": 1}},{\"id\":\"call_2\",\"type\":\"custom\",\"custom\":{"
            "\"name\":\"sh\",\"input\":\"ls\"}}],\"x\":[1]"),
      UD("\"role\":\"assistant\",\"reasoning_content\":\"\",\"content\":null")
      UD("\"reasoning_content\":\"r\"")
      UD("\"x\":[1]")
      UD("\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\""
         ",\"function\":{\"name\":\"get\",\"arguments\":\"\"},"
         "\"extra_content\":{\"g\":1}}]")
      UD("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"" S64
         "\"}}]")
      UD("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]")
      UD("\"tool_calls\":[{\"index\":1,\"id\":\"call_2\",\"type\":\"custom\","
         "\"custom\":{\"name\":\"sh\",\"input\":\"\"}}]")
      UD("\"tool_calls\":[{\"index\":1,\"custom\":{\"input\":\"ls\"}}]")
      USTOP },

    { CHAT, "logprobs with all of the text", 0,
      MSG("\"role\":\"assistant\",\"content\":\"" S64 S64 "\"",
          "\"logprobs\":{\"content\":[{\"token\":\"a\"},{\"token\":\"b\"}]},"
          "\"finish_reason\":\"stop\""),
      U("\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null"
        ",\"finish_reason\":null")
      U("\"delta\":{\"content\":\"" S64 S64 "\"},\"logprobs\":{\"content\":[{"
        "\"token\":\"a\"},{\"token\":\"b\"}]},\"finish_reason\":null")
      U("\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"") DONE },

    { CHAT, "members that are not known", 0,
      "{\"id\":\"i\",\"object\":\"chat.completion\",\"n\":1.50,\"choices\":[{"
      "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\","
      "\"annotations\":[ ]},\"finish_reason\":\"stop\",\"y\":[1]},{\"index\":3,"
      "\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":"
      "\"stop\"}],\"z\":{\"a\":1},\"prompt_filter_results\":[1]}",
#define HEAD  "{\"id\":\"i\",\"object\":\"chat.completion.chunk\",\"n\":1.50," \
              "\"choices\":["
      EV(HEAD "],\"prompt_filter_results\":[1]}")
      EV(HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
         "\"\"},\"finish_reason\":null}]}")
      EV(HEAD "{\"index\":0,\"delta\":{\"annotations\":[]},\"finish_reason\":"
         "null}]}")
      EV(HEAD "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"y\":[1]}"
         "]}")
      EV(HEAD "{\"index\":3,\"delta\":{\"role\":\"assistant\",\"content\":"
         "\"\"},\"finish_reason\":null}]}")
      EV(HEAD "{\"index\":3,\"delta\":{},\"finish_reason\":\"stop\"}],"
         "\"z\":{\"a\":1}}") DONE },

    { CHAT, "function_call", 0,
      PLAIN("\"content\":null,\"function_call\":{\"name\":\"f\","
            "\"arguments\":\"{}\"}"),
      UD("\"role\":\"assistant\",\"content\":null")
      UD("\"function_call\":{\"name\":\"f\",\"arguments\":\"\"}")
      UD("\"function_call\":{\"arguments\":\"{}\"}") USTOP },

    { CHAT, "what says nothing", 0,
      PLAIN("\"content\":null,\"refusal\":null,\"audio\":null,\"tool_calls\":"
            "[],\"function_call\":null"),
      UD("\"role\":\"assistant\",\"content\":null,\"refusal\":null,"
         "\"tool_calls\":[],\"function_call\":null,\"audio\":null") USTOP },

    { CHAT, "a long string of the answer", 0,
      "{\"x\":\"" S64 S64 S64 S64 "\",\"choices\":[{\"message\":{\"role\":"
      "\"assistant\"},\"finish_reason\":\"stop\"}]}",
      EV("{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"},"
         "\"finish_reason\":null}]}")
      EV("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}"
         "],\"x\":\"" S64 S64 S64 S64 "\"}") DONE },

    { CHAT, "padding", 0, "{\"p\":\"x\",\"choices\":[{\"message\":{\"role\":"
      "\"a\"},\"finish_reason\":\"stop\"}]}", NULL },
    { CHAT, "an index past all", 0, "{\"choices\":[{\"index\":128,\"message\":"
      "{\"role\":\"a\"},\"finish_reason\":\"stop\"}]}", NULL },
    { CHAT, "usage that is an array", 0, "{\"usage\":[],\"choices\":[{"
      "\"message\":{\"role\":\"a\"},\"finish_reason\":\"stop\"}]}", NULL },
    { CHAT, "audio", 0,
      PLAIN("\"content\":null,\"audio\":{\"id\":\"a\"}"), NULL },
    { CHAT, "no role", 0, MSG("\"content\":\"\"", "\"finish_reason\":\"stop\""),
      NULL },
    { CHAT, "no reason", 0,
      MSG("\"role\":\"assistant\"", "\"finish_reason\":null"), NULL },
    { CHAT, "content in blocks", 0, PLAIN("\"content\":[]"), NULL },
    { CHAT, "two contents", 0,
      PLAIN("\"content\":\"\",\"content\":\"a\""), NULL },
    { CHAT, "a name with an escape", 0,
      PLAIN("\"cont\\u0065nt\":\"a\""), NULL },
    { CHAT, "another kind", 0, "{\"object\":\"x\",\"choices\":[{\"message\":{"
      "\"role\":\"assistant\"},\"finish_reason\":\"stop\"}]}", NULL },
    { CHAT, "an error", 0, "{\"error\":{\"a\":1},\"choices\":[]}", NULL },
    { CHAT, "no choices", 0, "{\"choices\":[]}", NULL },
    { CHAT, "an index twice", 0, "{\"choices\":[{\"index\":0,\"message\":{"
      "\"role\":\"assistant\"},\"finish_reason\":\"stop\"},{\"index\":0,"
      "\"message\":{\"role\":\"assistant\"},\"finish_reason\":\"stop\"}]}",
      NULL },
    { CHAT, "a call's index that is not its place", 0,
      PLAIN("\"tool_calls\":[{\"index\":1}]"), NULL },
    { CHAT, "arguments that are an object", 0,
      PLAIN("\"tool_calls\":[{\"function\":{\"arguments\":{}}}]"), NULL },
    { CHAT, "no JSON", 0, "{", NULL },
    { CHAT, "no object", 0, "[]", NULL },

#define CE(rest)  EV(CT "{\"index\":0," rest "}]}")

    { TEXT, "completions", 0,
      CT "{\"index\":0,\"text\":\"" S64 "a\",\"logprobs\":null,"
      "\"finish_reason\":\"stop\",\"stop_reason\":null}]}",
      CE("\"text\":\"" S64 "\",\"logprobs\":null,\"finish_reason\":null")
      CE("\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null")
      CE("\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\","
         "\"stop_reason\":null") DONE },

    { TEXT, "completions with logprobs", 0,
      CT "{\"index\":0,\"text\":\"\",\"logprobs\":{\"tokens\":[]},"
      "\"finish_reason\":\"stop\"}]}",
      CE("\"text\":\"\",\"logprobs\":{\"tokens\":[]},\"finish_reason\":null")
      CE("\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\"") DONE },

    { TEXT, "completions with a message", 0,
      CT "{\"index\":0,\"text\":\"\",\"message\":{},\"finish_reason\":"
      "\"stop\"}]}", NULL },
    { TEXT, "completions without a text", 0,
      CT "{\"index\":0,\"finish_reason\":\"stop\"}]}", NULL },

    { "embeddings", "another endpoint", 0, PLAIN("\"content\":\"\""), NULL }
};


static llm_int_t
fold(const char *path, const llm_str_t *s, const llm_mem_t *mem,
    llm_str_t *out)
{
    return llm_dialect_openai.caching->fold(endpoint(OA, path), s, mem, out);
}


static llm_int_t
unfold(const char *path, const llm_str_t *s, llm_uint_t usage,
    const llm_mem_t *mem, llm_str_t *out)
{
    return llm_dialect_openai.caching->unfold(endpoint(OA, path), s, usage,
                                              mem, out);
}


/* way: 0 fold, 1 unfold, 2 with usage.  What each allocation that fails
 * does; the number of faults */

static int
failing(const char *path, const llm_str_t *s, int way, llm_int_t want)
{
    int        bad;
    size_t     k;
    run_mem_t  m;
    llm_int_t  rc;
    llm_str_t  out;

    bad = 0;

    for (k = 1; ; k++) {
        run_mem(&m, k);

        rc = way ? unfold(path, s, way - 1, &m.mem, &out)
                 : fold(path, s, &m.mem, &out);

        if (rc == LLM_OK) {
            run_free(&m, out.data);
        }

        bad += (m.live != 0);

        if (m.calls < k) {
            return bad + (rc != want);
        }

        bad += (rc != LLM_ERROR);
    }
}


static void
told(const char *what, const char *name, llm_int_t rc, const llm_str_t *out,
    const char *want)
{
    char  buf[128];

    snprintf(buf, sizeof(buf), "%s: %s", what, name);

    if (want == NULL || rc != LLM_OK) {
        is_int(rc, want ? LLM_OK : LLM_DECLINED, buf);
        return;
    }

    is(out, want, buf);
}


static void
fold_all(void)
{
    int            bad;
    size_t         i;
    u_char        *p;
    pool_t         pool;
    llm_int_t      rc;
    llm_str_t      s, out, back, again;
    const fold_t  *t;

    bad = 0;

    for (i = 0; i < sizeof(folds) / sizeof(folds[0]); i++) {
        t = &folds[i];
        pool_init(&pool, 0);

        s.len = strlen(t->stream);
        s.data = p = exact(t->stream, s.len);

        rc = fold(t->path, &s, &pool.mem, &out);
        told("fold", t->name, rc, &out, t->plain);

        bad += failing(t->path, &s, 0, rc);

        if (rc == LLM_OK) {
            bad += !valid(&out);

            if (unfold(t->path, &out, 1, &pool.mem, &back) != LLM_OK
                || fold(t->path, &back, &pool.mem, &again) != LLM_OK)
            {
                ok(0, "there and back: %s", t->name);

            } else {
                is(&again, t->plain, "there and back");
            }
        }

        free(p);
        pool_free(&pool);
    }

    is_int(bad, 0, "fold: allocations that fail");
}


static void
unfold_all(void)
{
    int              bad;
    size_t           i;
    u_char          *p;
    pool_t           pool;
    llm_int_t        rc;
    llm_str_t        s, out, back;
    const unfold_t  *t;

    bad = 0;

    for (i = 0; i < sizeof(unfolds) / sizeof(unfolds[0]); i++) {
        t = &unfolds[i];
        pool_init(&pool, 0);

        s.len = strlen(t->plain);
        s.data = p = exact(t->plain, s.len);

        rc = unfold(t->path, &s, t->usage, &pool.mem, &out);
        told("unfold", t->name, rc, &out, t->stream);

        bad += failing(t->path, &s, 1 + t->usage, rc);

        if (rc == LLM_OK) {
            bad += fold(t->path, &out, &pool.mem, &back) != LLM_OK;
        }

        free(p);
        pool_free(&pool);
    }

    is_int(bad, 0, "unfold: allocations that fail");
}


/* ----------------------------------------------------- texts of any length */

static size_t
random_text(char *p, size_t n, unsigned *seed)
{
    char               *start;
    size_t              i;
    static const char  *pieces[] = {
        "a", " ", "\\n", "\\\\", "\\\"", "\\u00e9", "\\ud83d\\ude00",
        "\\udbff", "\\udfff", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
        "word", "\\/", "0123456789abcdef"
    };

    start = p;

    for (i = 0; i < n; i++) {
        *seed = *seed * 1103515245 + 12345;
        p = stpcpy(p, pieces[(*seed >> 16) % 15]);
    }

    return p - start;
}


/* 1 if each event's data is valid and none ends within a pair; its first
 * half is never alone in a random text */

static int
sound(const llm_str_t *stream, size_t *events)
{
    int          good;
    char        *p, *end, *last;
    llm_str_t    data;

    good = 1;
    p = (char *) stream->data;
    last = p + stream->len;

    for (*events = 0; p < last; p = end + 2) {
        end = memmem(p, last - p, "\n\n", 2);

        if (end == NULL || end - p < 6) {
            return 0;
        }

        data.data = (u_char *) p + 6;
        data.len = end - p - 6;

        if (data.len == 6 && memcmp(data.data, "[DONE]", 6) == 0) {
            return good && end + 2 == last;
        }

        good &= valid(&data);
        good &= (memmem(p, end - p, "\\ud83d\"", 7) == NULL);
        ++*events;
    }

    return 0;
}


static void
texts(void)
{
    int         bad, many;
    char       *buf;
    size_t      i, len, events;
    pool_t      pool;
    unsigned    seed;
    llm_str_t   s, out, back;

    bad = 0;
    many = 0;
    seed = 5;
    buf = malloc(4096 * 20 + 1024);

    for (i = 0; i < 400; i++) {
        pool_init(&pool, 0);

        len = sprintf(buf, PTOP "{\"index\":0,\"message\":{\"role\":"
                      "\"assistant\",\"content\":\"");
        len += random_text(buf + len, i < 390 ? i : 4096, &seed);

        len += sprintf(buf + len, "\"},\"finish_reason\":\"stop\"}]}");

        s = text(&pool, buf, len);

        if (unfold(CHAT, &s, 0, &pool.mem, &out) != LLM_OK
            || fold(CHAT, &out, &pool.mem, &back) != LLM_OK
            || back.len != s.len || memcmp(back.data, s.data, s.len) != 0)
        {
            bad++;

        } else {
            many += !sound(&out, &events) || events > 258;
        }

        pool_free(&pool);
    }

    free(buf);

    is_int(bad, 0, "any text comes back");
    is_int(many, 0, "and its pieces are whole and not too many");
}


/* ----------------------------------------------------------------- limits */

static void
limit(const char *name, const char *path, const char *one, size_t n,
    const char *end, llm_int_t want)
{
    char       *buf;
    size_t      i, len;
    pool_t      pool;
    llm_str_t   s, out;

    pool_init(&pool, 0);
    buf = malloc(n * (strlen(one) + 16) + strlen(end) + 1);
    len = 0;

    for (i = 0; i < n; i++) {
        len += sprintf(buf + len, one, (int) i);
    }

    len += sprintf(buf + len, "%s", end);

    s = text(&pool, buf, len);
    is_int(fold(path, &s, &pool.mem, &out), want, name);

    free(buf);
    pool_free(&pool);
}


static void
limits(void)
{
#define CHOICE EV("{\"choices\":[{\"index\":%d,\"delta\":{\"content\":\"a\"}," \
                   "\"finish_reason\":\"stop\"}]}")
#define CALL    D("\"tool_calls\":[{\"index\":%d,\"id\":\"a\"}]")
#define MEMBER  D("\"m%d\":\"a\"")

    limit("128 choices", CHAT, CHOICE, 128, DONE, LLM_OK);
    limit("129 choices", CHAT, CHOICE, 129, DONE, LLM_DECLINED);
    limit("256 calls", CHAT, CALL, 256, STOP, LLM_OK);
    limit("257 calls", CHAT, CALL, 257, STOP, LLM_DECLINED);
    limit("62 members", CHAT, MEMBER, 62, STOP, LLM_OK);
    limit("65 members", CHAT, MEMBER, 65, STOP, LLM_DECLINED);
}


static void
unfold_limit(const char *name, const char *start, const char *one, size_t n,
    const char *end, llm_int_t want)
{
    char       *buf;
    size_t      i, len;
    pool_t      pool;
    llm_str_t   s, out;

    pool_init(&pool, 0);
    buf = malloc(strlen(start) + n * (strlen(one) + 16) + strlen(end) + 1);
    len = sprintf(buf, "%s", start);

    for (i = 0; i < n; i++) {
        len += sprintf(buf + len, one, i ? "," : "", (int) i);
    }

    len += sprintf(buf + len, "%s", end);

    s = text(&pool, buf, len);
    is_int(unfold(CHAT, &s, 0, &pool.mem, &out), want, name);

    free(buf);
    pool_free(&pool);
}


static void
unfold_limits(void)
{
#define PCHOICE  "%s{\"index\":%d,\"message\":{\"role\":\"assistant\"}," \
                 "\"finish_reason\":\"stop\"}"
#define PCALL    "%s{\"id\":\"%d\"}"
#define PCALLS   PTOP "{\"message\":{\"role\":\"assistant\",\"tool_calls\":["
#define PEND     "]},\"finish_reason\":\"stop\"}]}"
#define PHEAD    "%s\"m%d\":\"0123456789012345678901234567890\""

    unfold_limit("128 choices of a plain answer", PTOP, PCHOICE, 128, "]}",
                 LLM_OK);
    unfold_limit("129 choices of a plain answer", PTOP, PCHOICE, 129, "]}",
                 LLM_DECLINED);
    unfold_limit("256 calls of a plain answer", PCALLS, PCALL, 256, PEND,
                 LLM_OK);
    unfold_limit("257 calls of a plain answer", PCALLS, PCALL, 257, PEND,
                 LLM_DECLINED);
    unfold_limit("short members that fit into each chunk", "{", PHEAD, 20,
                 ",\"choices\":[{\"message\":{\"role\":\"a\"},"
                 "\"finish_reason\":\"stop\"}]}", LLM_OK);
    unfold_limit("short members that do not", "{", PHEAD, 40,
                 ",\"choices\":[{\"message\":{\"role\":\"a\"},"
                 "\"finish_reason\":\"stop\"}]}", LLM_DECLINED);
}


/* what would be quadratic takes minutes here */

static void
long_streams(void)
{
    char       *buf;
    size_t      i, len;
    pool_t      pool;
    clock_t     start;
    llm_str_t   s, out, back;

    buf = malloc(40 * 1000 * 1000);
    len = 0;

    for (i = 0; i < 100000; i++) {
        len += sprintf(buf + len, EV("{" TOP ",\"choices\":[{\"index\":%d,"
                       "\"delta\":{\"content\":\" %zu\"},\"finish_reason\":"
                       "null}]}"), (int) (i % 128), i);
    }

    for (i = 0; i < 128; i++) {
        len += sprintf(buf + len, EV("{" TOP ",\"choices\":[{\"index\":%d,"
                       "\"delta\":{},\"finish_reason\":\"stop\"}]}"), (int) i);
    }

    len += sprintf(buf + len, DONE);

    pool_init(&pool, 0);
    s.data = (u_char *) buf;
    s.len = len;

    start = clock();

    is_int(fold(CHAT, &s, &pool.mem, &out), LLM_OK, "100,000 chunks");
    is_int(unfold(CHAT, &out, 0, &pool.mem, &back), LLM_OK, "and back");

    ok((clock() - start) / CLOCKS_PER_SEC < 10, "in time");

    free(buf);
    pool_free(&pool);
}


int
main(void)
{
    fold_all();
    unfold_all();
    texts();
    limits();
    unfold_limits();
    long_streams();

    return done();
}
