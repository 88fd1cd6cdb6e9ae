
/* Anthropic: messages, messages/count_tokens, models. */

#include "mock.h"


static void
mock_messages_usage(mock_req_t *r, mock_buf_t *b, uint32_t out)
{
    uint32_t  in, cached;

    in = mock_tokens_in(r);
    cached = r->ctl.cached > 0 ? (uint32_t) r->ctl.cached : 0;

    mock_lit(b, "{\"input_tokens\":");
    mock_buf_num(b, in);
    mock_lit(b, ",\"cache_creation_input_tokens\":0,"
                "\"cache_read_input_tokens\":");
    mock_buf_num(b, cached);
    mock_lit(b, ",\"cache_creation\":{\"ephemeral_5m_input_tokens\":0,"
                "\"ephemeral_1h_input_tokens\":0},\"output_tokens\":");
    mock_buf_num(b, out);
    mock_lit(b, ",\"service_tier\":\"standard\"}");
}


static const char *
mock_messages_stop(mock_req_t *r)
{
    if (r->ctl.finish) {
        return r->ctl.finish;
    }

    return r->tools ? "tool_use" : r->limited ? "max_tokens" : "end_turn";
}


static void
mock_messages_head(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"model\":\"");
    mock_model(r, b);
    mock_lit(b, "\",\"id\":\"msg_01");
    mock_buf_id(b, r->id_seed, 22);
    mock_lit(b, "\",\"type\":\"message\",\"role\":\"assistant\","
                "\"content\":[");
}


static void
mock_messages_tool(mock_req_t *r, mock_buf_t *b, uint32_t call)
{
    mock_lit(b, "{\"type\":\"tool_use\",\"id\":\"toolu_01");
    mock_buf_id(b, r->id_seed + call + 1 + 16u * r->turn, 22);
    mock_lit(b, "\",\"name\":\"");
    mock_str(b, mock_tool_name(r, call));
    mock_lit(b, "\",\"input\":");
}


static void
mock_messages_signature(mock_req_t *r, mock_buf_t *b)
{
    mock_buf_id(b, r->id_seed + 77, 120);
}


static void
mock_messages_prefix(mock_req_t *r, mock_buf_t *b)
{
    uint32_t  i;

    mock_messages_head(r, b);

    if (r->ctl.thinking > 0) {
        mock_lit(b, "{\"type\":\"thinking\",\"thinking\":\"");
        mock_buf_pool(b, 0, (size_t) r->ctl.thinking * r->size);
        mock_lit(b, "\",\"signature\":\"");
        mock_messages_signature(r, b);
        mock_lit(b, "\"},");
    }

    for (i = 0; i < r->tools; i++) {
        mock_str(b, i ? "," : "");
        mock_messages_tool(r, b, i);
        mock_str(b, mock_tool_args(r, i));
        mock_lit(b, "}");
    }

    if (r->tools || r->blocks == 0) {
        return;
    }

    mock_lit(b, "{\"type\":\"text\",\"text\":\"");

    if (r->ctl.text) {
        mock_text_all(r, b);

    } else {
        r->fill_len = r->total;
    }
}


static void
mock_messages_suffix(mock_req_t *r, mock_buf_t *b)
{
    mock_str(b, r->tools || r->blocks == 0 ? "" : "\"}");
    mock_lit(b, "],\"stop_reason\":\"");
    mock_str(b, mock_messages_stop(r));
    mock_lit(b, "\",\"stop_sequence\":null");

    if (r->ctl.unknown > 0) {
        mock_lit(b, ",\"mock_unknown\":{\"a\":[1,2,{\"b\":null}]}");
    }

    if (r->ctl.usage != MOCK_USAGE_OFF) {
        mock_lit(b, ",\"usage\":");
        mock_messages_usage(r, b, mock_tokens_out(r));
    }

    mock_lit(b, "}");
}


/* stream */

static const char *
mock_messages_block(mock_req_t *r, mock_buf_t *b)
{
    uint32_t  type;

    type = mock_block_type(r, r->gen.block);

    if (r->gen.i == 1) {

        /* one ping, after the first block has begun */

        if (r->gen.block > 0) {
            return NULL;
        }

        mock_lit(b, "{\"type\": \"ping\"}");
        return "ping";
    }

    mock_lit(b, "{\"type\":\"content_block_start\",\"index\":");
    mock_buf_num(b, r->gen.block);
    mock_lit(b, ",\"content_block\":");

    switch (type) {

    case MOCK_BLOCK_THINK:
        mock_lit(b, "{\"type\":\"thinking\",\"thinking\":\"\","
                    "\"signature\":\"\"}}");
        break;

    case MOCK_BLOCK_TOOL:
        mock_messages_tool(r, b, r->gen.block - (r->ctl.thinking > 0));
        mock_lit(b, "{}}}");
        break;

    default:
        mock_lit(b, "{\"type\":\"text\",\"text\":\"\"}}");
    }

    return "content_block_start";
}


static const char *
mock_messages_delta(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"type\":\"content_block_delta\",\"index\":");
    mock_buf_num(b, r->gen.block);
    mock_lit(b, ",\"delta\":{\"type\":\"");

    switch (mock_block_type(r, r->gen.block)) {

    case MOCK_BLOCK_THINK:
        if (r->gen.stage == MOCK_STAGE_CLOSE) {
            mock_lit(b, "signature_delta\",\"signature\":\"");
            mock_messages_signature(r, b);

        } else {
            mock_lit(b, "thinking_delta\",\"thinking\":\"");
            mock_buf_pool(b, r->gen.i * r->size, r->size);
        }

        break;

    case MOCK_BLOCK_TOOL:
        mock_lit(b, "input_json_delta\",\"partial_json\":\"");
        mock_tool_slice(r, b, r->gen.block - (r->ctl.thinking > 0),
                        r->gen.i);
        break;

    default:
        mock_lit(b, "text_delta\",\"text\":\"");
        mock_text(r, b, r->gen.i);
    }

    mock_lit(b, "\"}}");

    return "content_block_delta";
}


static const char *
mock_messages_close(mock_req_t *r, mock_buf_t *b)
{
    if (mock_block_type(r, r->gen.block) == MOCK_BLOCK_THINK
        && r->gen.i == 0)
    {
        return mock_messages_delta(r, b);
    }

    mock_lit(b, "{\"type\":\"content_block_stop\",\"index\":");
    mock_buf_num(b, r->gen.block);
    mock_lit(b, "}");

    return "content_block_stop";
}


static const char *
mock_messages_post(mock_req_t *r, mock_buf_t *b)
{
    if (r->gen.i == 1) {
        if (r->ctl.fault == MOCK_FAULT_NO_DONE) {
            return NULL;
        }

        mock_lit(b, "{\"type\":\"message_stop\"}");
        return "message_stop";
    }

    if (r->ctl.fault == MOCK_FAULT_NO_FINISH) {
        return NULL;
    }

    mock_lit(b, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"");
    mock_str(b, mock_messages_stop(r));
    mock_lit(b, "\",\"stop_sequence\":null}");

    if (r->ctl.usage != MOCK_USAGE_OFF) {
        mock_lit(b, ",\"usage\":{\"input_tokens\":");
        mock_buf_num(b, mock_tokens_in(r));
        mock_lit(b, ",\"cache_creation_input_tokens\":0,"
                    "\"cache_read_input_tokens\":");
        mock_buf_num(b, r->ctl.cached > 0 ? (uint64_t) r->ctl.cached : 0);
        mock_lit(b, ",\"output_tokens\":");
        mock_buf_num(b, mock_tokens_out(r));
        mock_lit(b, "}");
    }

    mock_lit(b, "}");

    return "message_delta";
}


static const char *
mock_messages_event(mock_req_t *r, mock_buf_t *b)
{
    switch (r->gen.stage) {

    case MOCK_STAGE_PRE:
        mock_lit(b, "{\"type\":\"message_start\",\"message\":");
        mock_messages_head(r, b);
        mock_lit(b, "],\"stop_reason\":null,\"stop_sequence\":null,"
                    "\"usage\":");
        mock_messages_usage(r, b, 1);
        mock_lit(b, "}}");
        return "message_start";

    case MOCK_STAGE_OPEN:
        return mock_messages_block(r, b);

    case MOCK_STAGE_DELTA:
        return mock_messages_delta(r, b);

    case MOCK_STAGE_CLOSE:
        return mock_messages_close(r, b);

    default:
        return mock_messages_post(r, b);
    }
}


static const char *
mock_messages_error_event(mock_req_t *r, mock_buf_t *b)
{
    mock_error_body(r, b, 529, r->ctl.code, r->ctl.message);

    return "error";
}


const mock_api_t  mock_messages = {
    .name = "messages",
    .anthropic = 1,
    .named = 1,
    .streams = 1,
    .json = 1,
    .pre = 1,
    .post = 2,
    .open = { 2, 2, 2 },
    .close = { 1, 1, 2 },
    .prefix = mock_messages_prefix,
    .fill = mock_text_fill,
    .suffix = mock_messages_suffix,
    .event = mock_messages_event,
    .error_event = mock_messages_error_event
};


static void
mock_count_tokens_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"input_tokens\":");
    mock_buf_num(b, mock_tokens_in(r));
    mock_lit(b, "}");
}


const mock_api_t  mock_count_tokens = {
    .name = "count_tokens",
    .anthropic = 1,
    .json = 1,
    .prefix = mock_count_tokens_prefix
};


static void
mock_models_prefix(mock_req_t *r, mock_buf_t *b)
{
    (void) r;

    mock_lit(b, "{\"data\":[{\"type\":\"model\",\"id\":\"claude-mock-1\","
                "\"display_name\":\"Claude Mock 1\","
                "\"created_at\":\"2026-01-01T00:00:00Z\"},"
                "{\"type\":\"model\",\"id\":\"claude-mock-mini\","
                "\"display_name\":\"Claude Mock Mini\","
                "\"created_at\":\"2025-10-01T00:00:00Z\"}],"
                "\"has_more\":false,\"first_id\":\"claude-mock-1\","
                "\"last_id\":\"claude-mock-mini\"}");
}


const mock_api_t  mock_models_anthropic = {
    .name = "models",
    .anthropic = 1,
    .prefix = mock_models_prefix
};
