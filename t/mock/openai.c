
/* OpenAI: chat/completions, completions, embeddings. */

#include "mock.h"


static void
mock_openai_id(mock_req_t *r, mock_buf_t *b, const char *prefix)
{
    mock_str(b, prefix);
    mock_buf_id(b, r->id_seed, 29);
}


static void
mock_openai_usage(mock_req_t *r, mock_buf_t *b)
{
    uint32_t  in, out;

    in = mock_tokens_in(r);
    out = mock_tokens_out(r);

    mock_lit(b, "{\"prompt_tokens\":");
    mock_buf_num(b, in);
    mock_lit(b, ",\"completion_tokens\":");
    mock_buf_num(b, out);
    mock_lit(b, ",\"total_tokens\":");
    mock_buf_num(b, in + out);
    mock_lit(b, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    mock_buf_num(b, r->ctl.cached > 0 ? (uint64_t) r->ctl.cached : 0);
    mock_lit(b, ",\"audio_tokens\":0},\"completion_tokens_details\":"
                "{\"reasoning_tokens\":");
    mock_buf_num(b, r->ctl.thinking > 0 ? (uint64_t) r->ctl.thinking : 0);
    mock_lit(b, ",\"audio_tokens\":0,\"accepted_prediction_tokens\":0,"
                "\"rejected_prediction_tokens\":0}}");
}


static const char *
mock_openai_finish(mock_req_t *r)
{
    if (r->ctl.finish) {
        return r->ctl.finish;
    }

    return r->tools ? "tool_calls" : r->limited ? "length" : "stop";
}


static void
mock_openai_tool(mock_req_t *r, mock_buf_t *b, uint32_t call)
{
    mock_lit(b, "\"id\":\"call_");
    mock_buf_id(b, r->id_seed + call + 1 + 16u * r->turn, 24);
    mock_lit(b, "\",\"type\":\"function\",\"function\":{\"name\":\"");
    mock_str(b, mock_tool_name(r, call));
    mock_lit(b, "\",\"arguments\":\"");
}


/* chat/completions, plain */

static void
mock_chat_prefix(mock_req_t *r, mock_buf_t *b)
{
    uint32_t     i;
    const char  *args;

    mock_lit(b, "{\n  \"id\": \"");
    mock_openai_id(r, b, "chatcmpl-");
    mock_lit(b, "\",\n  \"object\": \"chat.completion\",\n  \"created\": ");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\n  \"model\": \"");
    mock_model(r, b);
    mock_lit(b, "\",\n  \"choices\": [\n    {\n      \"index\": 0,\n"
                "      \"message\": {\n        \"role\": \"assistant\",\n");

    if (r->ctl.thinking > 0) {
        mock_lit(b, "        \"reasoning_content\": \"");
        mock_buf_pool(b, 0, (size_t) r->ctl.thinking * r->size);
        mock_lit(b, "\",\n");
    }

    if (r->tools) {
        mock_lit(b, "        \"content\": null,\n        \"tool_calls\": [");

        for (i = 0; i < r->tools; i++) {
            mock_str(b, i ? ",{" : "{");
            mock_openai_tool(r, b, i);
            args = mock_tool_args(r, i);
            mock_buf_json(b, args, strlen(args));
            mock_lit(b, "\"}}");
        }

        mock_lit(b, "]");
        return;
    }

    mock_lit(b, "        \"content\": \"");

    if (r->ctl.text) {
        mock_text_all(r, b);

    } else {
        r->fill_len = r->total;
    }
}


static void
mock_chat_suffix(mock_req_t *r, mock_buf_t *b)
{
    mock_str(b, r->tools ? "" : "\"");
    mock_lit(b, ",\n        \"refusal\": null,\n        \"annotations\": []\n"
                "      },\n      \"logprobs\": null,\n"
                "      \"finish_reason\": \"");
    mock_str(b, mock_openai_finish(r));
    mock_lit(b, "\"\n    }\n  ],\n");

    if (r->ctl.usage != MOCK_USAGE_OFF) {
        mock_lit(b, "  \"usage\": ");
        mock_openai_usage(r, b);
        mock_lit(b, ",\n");
    }

    if (r->ctl.unknown > 0) {
        mock_lit(b, "  \"mock_unknown\": {\"a\": [1, 2, {\"b\": null}]},\n");
    }

    mock_lit(b, "  \"service_tier\": \"default\",\n"
                "  \"system_fingerprint\": \"fp_mock0a1b2c\"\n}\n");
}


/* chat/completions, stream */

static void
mock_chat_begin(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");
    mock_openai_id(r, b, "chatcmpl-");
    mock_lit(b, "\",\"object\":\"chat.completion.chunk\",\"created\":");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\"model\":\"");
    mock_model(r, b);
    mock_lit(b, "\",\"service_tier\":\"default\","
                "\"system_fingerprint\":\"fp_mock0a1b2c\",\"choices\":[");
}


static void
mock_chat_end(mock_req_t *r, mock_buf_t *b, int delta)
{
    if (r->json.include_usage && r->ctl.usage != MOCK_USAGE_OFF
        && r->ctl.usage != MOCK_USAGE_LAST)
    {
        mock_lit(b, ",\"usage\":null");
    }

    if (delta) {
        mock_obfuscation(r, b);
    }

    mock_lit(b, "}");
}


static void
mock_chat_delta(mock_req_t *r, mock_buf_t *b)
{
    uint32_t  call;

    mock_chat_begin(r, b);
    mock_lit(b, "{\"index\":0,\"delta\":{");

    switch (mock_block_type(r, r->gen.block)) {

    case MOCK_BLOCK_THINK:
        mock_lit(b, "\"reasoning_content\":\"");
        mock_buf_pool(b, r->gen.i * r->size, r->size);
        mock_lit(b, "\"");
        break;

    case MOCK_BLOCK_TOOL:
        call = r->gen.block - (r->ctl.thinking > 0);
        mock_lit(b, "\"tool_calls\":[{\"index\":");
        mock_buf_num(b, call);

        if (r->gen.stage == MOCK_STAGE_OPEN) {
            mock_lit(b, ",");
            mock_openai_tool(r, b, call);

        } else {
            mock_lit(b, ",\"function\":{\"arguments\":\"");
            mock_tool_slice(r, b, call, r->gen.i);
        }

        mock_lit(b, "\"}}]");
        break;

    default:
        mock_lit(b, "\"content\":\"");
        mock_text(r, b, r->gen.i);
        mock_lit(b, "\"");
    }

    mock_lit(b, "},\"logprobs\":null,\"finish_reason\":null}]");

    if (r->ctl.unknown > 0 && r->gen.stage == MOCK_STAGE_DELTA
        && r->gen.i == r->events / 2)
    {
        mock_lit(b, ",\"mock_unknown\":{\"a\":[1,2,{\"b\":null}]}");
    }

    mock_chat_end(r, b, 1);
}


static void
mock_chat_azure(mock_buf_t *b)
{
    mock_lit(b, "{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\","
                "\"object\":\"\",\"prompt_filter_results\":[{"
                "\"prompt_index\":0,\"content_filter_results\":{"
                "\"hate\":{\"filtered\":false,\"severity\":\"safe\"},"
                "\"self_harm\":{\"filtered\":false,\"severity\":\"safe\"},"
                "\"sexual\":{\"filtered\":false,\"severity\":\"safe\"},"
                "\"violence\":{\"filtered\":false,\"severity\":\"safe\"}"
                "}}]}");
}


static void
mock_chat_post(mock_req_t *r, mock_buf_t *b)
{
    switch (r->gen.i) {

    case 0:
        if (r->ctl.fault == MOCK_FAULT_NO_FINISH) {
            return;
        }

        mock_chat_begin(r, b);
        mock_lit(b, "{\"index\":0,\"delta\":{},\"logprobs\":null,"
                    "\"finish_reason\":\"");
        mock_str(b, mock_openai_finish(r));
        mock_lit(b, "\"}]");

        if (r->ctl.usage == MOCK_USAGE_LAST) {
            mock_lit(b, ",\"usage\":");
            mock_openai_usage(r, b);
        }

        mock_chat_end(r, b, 1);
        return;

    case 1:
        if (!r->json.include_usage || r->ctl.usage == MOCK_USAGE_OFF
            || r->ctl.usage == MOCK_USAGE_LAST)
        {
            return;
        }

        mock_chat_begin(r, b);
        mock_lit(b, "],\"usage\":");
        mock_openai_usage(r, b);
        mock_obfuscation(r, b);
        mock_lit(b, "}");
        return;

    default:
        if (r->ctl.fault != MOCK_FAULT_NO_DONE) {
            mock_lit(b, "[DONE]");
        }
    }
}


static const char *
mock_chat_event(mock_req_t *r, mock_buf_t *b)
{
    switch (r->gen.stage) {

    case MOCK_STAGE_PRE:
        if (r->gen.i == 0) {
            if (r->ctl.azure > 0) {
                mock_chat_azure(b);
            }

            break;
        }

        mock_chat_begin(r, b);
        mock_lit(b, "{\"index\":0,\"delta\":{\"role\":\"assistant\",");
        mock_str(b, r->tools ? "\"content\":null" : "\"content\":\"\"");
        mock_lit(b, ",\"refusal\":null},\"logprobs\":null,"
                    "\"finish_reason\":null}]");
        mock_chat_end(r, b, 1);
        break;

    case MOCK_STAGE_POST:
        mock_chat_post(r, b);
        break;

    default:
        mock_chat_delta(r, b);
    }

    return NULL;
}


static const char *
mock_openai_error_event(mock_req_t *r, mock_buf_t *b)
{
    const char  *message;

    message = r->ctl.message ? r->ctl.message
              : "The server had an error while processing your request.";

    mock_lit(b, "{\"error\":{\"message\":\"");
    mock_buf_json(b, message, strlen(message));
    mock_lit(b, "\",\"type\":\"server_error\",\"param\":null,\"code\":");

    if (r->ctl.code) {
        mock_lit(b, "\"");
        mock_str(b, r->ctl.code);
        mock_lit(b, "\"}}");

    } else {
        mock_lit(b, "null}}");
    }

    return NULL;
}


const mock_api_t  mock_chat = {
    .name = "chat",
    .streams = 1,
    .json = 1,
    .open_content = 1,
    .pre = 2,
    .post = 3,
    .open = { 0, 1, 0 },
    .close = { 0, 0, 0 },
    .prefix = mock_chat_prefix,
    .fill = mock_text_fill,
    .suffix = mock_chat_suffix,
    .event = mock_chat_event,
    .error_event = mock_openai_error_event
};


/* completions: no role chunk, no tools, text in choices[0].text */

static void
mock_completions_begin(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");
    mock_openai_id(r, b, "cmpl-");
    mock_lit(b, "\",\"object\":\"text_completion\",\"created\":");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\"model\":\"");
    mock_model(r, b);
    mock_lit(b, "\",\"system_fingerprint\":\"fp_mock0a1b2c\",\"choices\":[");
}


static void
mock_completions_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_completions_begin(r, b);
    mock_lit(b, "{\"text\":\"");

    if (r->ctl.text) {
        mock_text_all(r, b);

    } else {
        r->fill_len = r->total;
    }
}


static void
mock_completions_suffix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"");
    mock_str(b, mock_openai_finish(r));
    mock_lit(b, "\"}]");

    if (r->ctl.usage != MOCK_USAGE_OFF) {
        mock_lit(b, ",\"usage\":");
        mock_openai_usage(r, b);
    }

    mock_lit(b, "}\n");
}


static const char *
mock_completions_event(mock_req_t *r, mock_buf_t *b)
{
    if (r->gen.stage == MOCK_STAGE_POST && r->gen.i == 2) {
        mock_chat_post(r, b);
        return NULL;
    }

    if (r->gen.stage == MOCK_STAGE_POST && r->gen.i == 1) {
        if (r->json.include_usage && r->ctl.usage != MOCK_USAGE_OFF
            && r->ctl.usage != MOCK_USAGE_LAST)
        {
            mock_completions_begin(r, b);
            mock_lit(b, "],\"usage\":");
            mock_openai_usage(r, b);
            mock_lit(b, "}");
        }

        return NULL;
    }

    if (r->gen.stage == MOCK_STAGE_POST
        && r->ctl.fault == MOCK_FAULT_NO_FINISH)
    {
        return NULL;
    }

    mock_completions_begin(r, b);
    mock_lit(b, "{\"text\":\"");

    if (r->gen.stage == MOCK_STAGE_DELTA) {
        mock_text(r, b, r->gen.i);
        mock_lit(b, "\",\"index\":0,\"logprobs\":null,"
                    "\"finish_reason\":null}]");

    } else {
        mock_lit(b, "\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"");
        mock_str(b, mock_openai_finish(r));
        mock_lit(b, "\"}]");

        if (r->ctl.usage == MOCK_USAGE_LAST) {
            mock_lit(b, ",\"usage\":");
            mock_openai_usage(r, b);
        }
    }

    mock_chat_end(r, b, 0);

    return NULL;
}


static void
mock_completions_plan(mock_req_t *r)
{
    r->tools = 0;
    r->blocks = 1;
    r->ctl.thinking = 0;
}


const mock_api_t  mock_completions = {
    .name = "completions",
    .streams = 1,
    .json = 1,
    .post = 3,
    .plan = mock_completions_plan,
    .prefix = mock_completions_prefix,
    .fill = mock_text_fill,
    .suffix = mock_completions_suffix,
    .event = mock_completions_event,
    .error_event = mock_openai_error_event
};
