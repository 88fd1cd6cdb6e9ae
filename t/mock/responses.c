
/* OpenAI: responses, responses/{id}, responses/compact. */

#include "mock.h"


static void
mock_responses_id(mock_req_t *r, mock_buf_t *b, const char *prefix,
    uint32_t salt)
{
    mock_str(b, prefix);

    if (salt == 0 && r->id[0]) {
        mock_str(b, r->id + (strncmp(r->id, prefix, strlen(prefix)) == 0
                             ? strlen(prefix) : 0));
        return;
    }

    mock_buf_id(b, r->id_seed + salt, 40);
}


static void
mock_responses_usage(mock_req_t *r, mock_buf_t *b)
{
    uint32_t  in, out;

    in = mock_tokens_in(r);
    out = mock_tokens_out(r);

    mock_lit(b, "{\"input_tokens\":");
    mock_buf_num(b, in);
    mock_lit(b, ",\"input_tokens_details\":{\"cached_tokens\":");
    mock_buf_num(b, r->ctl.cached > 0 ? (uint64_t) r->ctl.cached : 0);
    mock_lit(b, "},\"output_tokens\":");
    mock_buf_num(b, out);
    mock_lit(b, ",\"output_tokens_details\":{\"reasoning_tokens\":");
    mock_buf_num(b, r->ctl.thinking > 0 ? (uint64_t) r->ctl.thinking : 0);
    mock_lit(b, "},\"total_tokens\":");
    mock_buf_num(b, in + out);
    mock_lit(b, "}");
}


static const char *
mock_responses_status(mock_req_t *r)
{
    return r->limited ? "incomplete" : "completed";
}


/* The object up to its output items ... */

static void
mock_responses_head(mock_req_t *r, mock_buf_t *b, const char *status)
{
    mock_lit(b, "{\"id\":\"");
    mock_responses_id(r, b, "resp_", 0);
    mock_lit(b, "\",\"object\":\"response\",\"created_at\":");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\"status\":\"");
    mock_str(b, status);
    mock_lit(b, "\",\"background\":false,\"error\":");

    if (strcmp(status, "failed") == 0) {
        mock_lit(b, "{\"code\":\"");
        mock_str(b, r->ctl.code ? r->ctl.code : "server_error");
        mock_lit(b, "\",\"message\":\"");
        mock_str(b, r->ctl.message ? r->ctl.message
                    : "The server had an error while processing your "
                      "request.");
        mock_lit(b, "\"}");

    } else {
        mock_lit(b, "null");
    }

    mock_str(b, strcmp(status, "incomplete") == 0
                ? ",\"incomplete_details\":{\"reason\":\"max_output_tokens\"}"
                : ",\"incomplete_details\":null");
    mock_lit(b, ",\"instructions\":null,\"max_output_tokens\":null,"
                "\"max_tool_calls\":null,\"model\":\"");
    mock_model(r, b);
    mock_lit(b, "\",\"output\":[");
}


/* ... and after them. */

static void
mock_responses_tail(mock_req_t *r, mock_buf_t *b, int usage)
{
    mock_lit(b, "],\"parallel_tool_calls\":true,"
                "\"previous_response_id\":null,\"prompt_cache_key\":null,"
                "\"reasoning\":{\"effort\":null,\"summary\":null},"
                "\"safety_identifier\":null,\"service_tier\":\"default\","
                "\"store\":true,\"temperature\":1.0,"
                "\"text\":{\"format\":{\"type\":\"text\"},"
                "\"verbosity\":\"medium\"},\"tool_choice\":\"auto\","
                "\"tools\":[],\"top_logprobs\":0,\"top_p\":1.0,"
                "\"truncation\":\"disabled\",\"usage\":");

    if (usage && r->ctl.usage != MOCK_USAGE_OFF) {
        mock_responses_usage(r, b);

    } else {
        mock_lit(b, "null");
    }

    mock_lit(b, ",\"user\":null,\"metadata\":{}}");
}


static uint32_t
mock_responses_call(mock_req_t *r, uint32_t block)
{
    return block - (r->ctl.thinking > 0);
}


static void
mock_responses_item_id(mock_req_t *r, mock_buf_t *b, uint32_t block)
{
    static const char  *prefix[] = { "msg_", "fc_", "rs_" };

    mock_responses_id(r, b, prefix[mock_block_type(r, block)],
                      block + 1 + 16u * r->turn);
}


static void
mock_responses_text(mock_req_t *r, mock_buf_t *b, uint32_t block)
{
    if (mock_block_type(r, block) == MOCK_BLOCK_THINK) {
        mock_buf_pool(b, 0, (size_t) r->ctl.thinking * r->size);
        return;
    }

    mock_text_all(r, b);
}


/* One output item; done: with its content, else as it begins. */

static void
mock_responses_item(mock_req_t *r, mock_buf_t *b, uint32_t block, int done)
{
    uint32_t     call;
    const char  *args;

    mock_lit(b, "{\"id\":\"");
    mock_responses_item_id(r, b, block);

    switch (mock_block_type(r, block)) {

    case MOCK_BLOCK_THINK:
        mock_lit(b, "\",\"type\":\"reasoning\",\"summary\":[");

        if (done) {
            mock_lit(b, "{\"type\":\"summary_text\",\"text\":\"");
            mock_responses_text(r, b, block);
            mock_lit(b, "\"}");
        }

        mock_lit(b, "]}");
        return;

    case MOCK_BLOCK_TOOL:
        call = mock_responses_call(r, block);
        mock_lit(b, "\",\"type\":\"function_call\",\"status\":\"");
        mock_str(b, done ? "completed" : "in_progress");
        mock_lit(b, "\",\"arguments\":\"");

        if (done) {
            args = mock_tool_args(r, call);
            mock_buf_json(b, args, strlen(args));
        }

        mock_lit(b, "\",\"call_id\":\"call_");
        mock_buf_id(b, r->id_seed + call + 100 + 16u * r->turn, 24);
        mock_lit(b, "\",\"name\":\"");
        mock_str(b, mock_tool_name(r, call));
        mock_lit(b, "\"}");
        return;
    }

    mock_lit(b, "\",\"type\":\"message\",\"status\":\"");
    mock_str(b, done ? mock_responses_status(r) : "in_progress");
    mock_lit(b, "\",\"content\":[");

    if (done) {
        mock_lit(b, "{\"type\":\"output_text\",\"annotations\":[],"
                    "\"logprobs\":[],\"text\":\"");
        mock_responses_text(r, b, block);
        mock_lit(b, "\"}");
    }

    mock_lit(b, "],\"role\":\"assistant\"}");
}


static void
mock_responses_items(mock_req_t *r, mock_buf_t *b)
{
    uint32_t  i;

    for (i = 0; i < r->blocks; i++) {
        mock_str(b, i ? "," : "");
        mock_responses_item(r, b, i, 1);
    }
}


/* plain: filler text comes last, so that it need not be held */

static void
mock_responses_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_responses_head(r, b, mock_responses_status(r));

    if (r->tools || r->ctl.text) {
        mock_responses_items(r, b);
        return;
    }

    if (r->ctl.thinking > 0) {
        mock_responses_item(r, b, 0, 1);
        mock_lit(b, ",");
    }

    mock_lit(b, "{\"id\":\"");
    mock_responses_item_id(r, b, r->blocks - 1u);
    mock_lit(b, "\",\"type\":\"message\",\"status\":\"");
    mock_str(b, mock_responses_status(r));
    mock_lit(b, "\",\"content\":[{\"type\":\"output_text\","
                "\"annotations\":[],\"logprobs\":[],\"text\":\"");
    r->fill_len = r->total;
}


static void
mock_responses_suffix(mock_req_t *r, mock_buf_t *b)
{
    if (!r->tools && !r->ctl.text) {
        mock_lit(b, "\"}],\"role\":\"assistant\"}");
    }

    mock_responses_tail(r, b, 1);
    mock_lit(b, "\n");
}


/* stream */

static const char *
mock_responses_begin(mock_req_t *r, mock_buf_t *b, const char *type)
{
    mock_lit(b, "{\"type\":\"");
    mock_str(b, type);
    mock_lit(b, "\",\"sequence_number\":");
    mock_buf_num(b, r->gen.seqno);

    return type;
}


static const char *
mock_responses_object(mock_req_t *r, mock_buf_t *b, const char *type,
    const char *status, int done)
{
    mock_responses_begin(r, b, type);
    mock_lit(b, ",\"response\":");
    mock_responses_head(r, b, status);

    if (done) {
        mock_responses_items(r, b);
    }

    mock_responses_tail(r, b, done);
    mock_lit(b, "}");

    return type;
}


static const char *
mock_responses_output_item(mock_req_t *r, mock_buf_t *b, int done)
{
    const char  *type;

    type = mock_responses_begin(r, b, done ? "response.output_item.done"
                                           : "response.output_item.added");
    mock_lit(b, ",\"output_index\":");
    mock_buf_num(b, r->gen.block);
    mock_lit(b, ",\"item\":");
    mock_responses_item(r, b, r->gen.block, done);
    mock_lit(b, "}");

    return type;
}


/* the members that name the part an event belongs to */

static void
mock_responses_at(mock_req_t *r, mock_buf_t *b, const char *index)
{
    mock_lit(b, ",\"item_id\":\"");
    mock_responses_item_id(r, b, r->gen.block);
    mock_lit(b, "\",\"output_index\":");
    mock_buf_num(b, r->gen.block);

    if (index) {
        mock_lit(b, ",\"");
        mock_str(b, index);
        mock_lit(b, "\":0");
    }
}


static const char *
mock_responses_part(mock_req_t *r, mock_buf_t *b, int done)
{
    int          think;
    const char  *type;

    think = mock_block_type(r, r->gen.block) == MOCK_BLOCK_THINK;

    if (think) {
        type = done ? "response.reasoning_summary_part.done"
                    : "response.reasoning_summary_part.added";

    } else {
        type = done ? "response.content_part.done"
                    : "response.content_part.added";
    }

    mock_responses_begin(r, b, type);
    mock_responses_at(r, b, think ? "summary_index" : "content_index");
    mock_str(b, think ? ",\"part\":{\"type\":\"summary_text\",\"text\":\""
                      : ",\"part\":{\"type\":\"output_text\","
                        "\"annotations\":[],\"logprobs\":[],\"text\":\"");

    if (done) {
        mock_responses_text(r, b, r->gen.block);
    }

    mock_lit(b, "\"}}");

    return type;
}


static const char *
mock_responses_delta(mock_req_t *r, mock_buf_t *b)
{
    const char  *type;

    switch (mock_block_type(r, r->gen.block)) {

    case MOCK_BLOCK_THINK:
        type = mock_responses_begin(r, b,
                                    "response.reasoning_summary_text.delta");
        mock_responses_at(r, b, "summary_index");
        mock_lit(b, ",\"delta\":\"");
        mock_buf_pool(b, r->gen.i * r->size, r->size);
        mock_lit(b, "\"");
        break;

    case MOCK_BLOCK_TOOL:
        type = mock_responses_begin(r, b,
                                    "response.function_call_arguments.delta");
        mock_responses_at(r, b, NULL);
        mock_lit(b, ",\"delta\":\"");
        mock_tool_slice(r, b, mock_responses_call(r, r->gen.block),
                        r->gen.i);
        mock_lit(b, "\"");
        break;

    default:
        type = mock_responses_begin(r, b, "response.output_text.delta");
        mock_responses_at(r, b, "content_index");
        mock_lit(b, ",\"delta\":\"");
        mock_text(r, b, r->gen.i);
        mock_lit(b, "\",\"logprobs\":[]");
    }

    mock_obfuscation(r, b);
    mock_lit(b, "}");

    return type;
}


static const char *
mock_responses_close(mock_req_t *r, mock_buf_t *b)
{
    uint32_t     call, kind;
    const char  *type, *args;

    kind = mock_block_type(r, r->gen.block);

    if (r->gen.i + 1u == r->api->close[kind]) {
        return mock_responses_output_item(r, b, 1);
    }

    if (r->gen.i == 1) {
        return mock_responses_part(r, b, 1);
    }

    if (kind == MOCK_BLOCK_TOOL) {
        call = mock_responses_call(r, r->gen.block);
        args = mock_tool_args(r, call);
        type = mock_responses_begin(r, b,
                                    "response.function_call_arguments.done");
        mock_responses_at(r, b, NULL);
        mock_lit(b, ",\"name\":\"");
        mock_str(b, mock_tool_name(r, call));
        mock_lit(b, "\",\"arguments\":\"");
        mock_buf_json(b, args, strlen(args));
        mock_lit(b, "\"}");
        return type;
    }

    if (kind == MOCK_BLOCK_THINK) {
        type = mock_responses_begin(r, b,
                                    "response.reasoning_summary_text.done");
        mock_responses_at(r, b, "summary_index");

    } else {
        type = mock_responses_begin(r, b, "response.output_text.done");
        mock_responses_at(r, b, "content_index");
        mock_lit(b, ",\"logprobs\":[]");
    }

    mock_lit(b, ",\"text\":\"");
    mock_responses_text(r, b, r->gen.block);
    mock_lit(b, "\"}");

    return type;
}


static const char *
mock_responses_event(mock_req_t *r, mock_buf_t *b)
{
    switch (r->gen.stage) {

    case MOCK_STAGE_PRE:
        return mock_responses_object(r, b, r->gen.i
                                           ? "response.in_progress"
                                           : "response.created",
                                     "in_progress", 0);

    case MOCK_STAGE_OPEN:
        return r->gen.i ? mock_responses_part(r, b, 0)
                        : mock_responses_output_item(r, b, 0);

    case MOCK_STAGE_DELTA:
        return mock_responses_delta(r, b);

    case MOCK_STAGE_CLOSE:
        return mock_responses_close(r, b);
    }

    if (r->ctl.fault == MOCK_FAULT_NO_DONE
        || r->ctl.fault == MOCK_FAULT_NO_FINISH)
    {
        return NULL;
    }

    return mock_responses_object(r, b, r->limited ? "response.incomplete"
                                                  : "response.completed",
                                 mock_responses_status(r), 1);
}


/* Mid-stream a response fails; before its first token there is an error. */

static const char *
mock_responses_error_event(mock_req_t *r, mock_buf_t *b)
{
    if (r->ctl.fault == MOCK_FAULT_ERROR_EVENT) {
        return mock_responses_object(r, b, "response.failed", "failed", 0);
    }

    mock_responses_begin(r, b, "error");
    mock_lit(b, ",\"code\":\"");
    mock_str(b, r->ctl.code ? r->ctl.code : "server_error");
    mock_lit(b, "\",\"message\":\"");
    mock_str(b, r->ctl.message ? r->ctl.message
                : "The server had an error while processing your request.");
    mock_lit(b, "\",\"param\":null}");

    return "error";
}


const mock_api_t  mock_responses = {
    .name = "responses",
    .named = 1,
    .open_shown = 1,
    .streams = 1,
    .json = 1,
    .pre = 2,
    .post = 1,
    .open = { 2, 1, 2 },
    .close = { 3, 2, 3 },
    .prefix = mock_responses_prefix,
    .fill = mock_text_fill,
    .suffix = mock_responses_suffix,
    .event = mock_responses_event,
    .error_event = mock_responses_error_event
};


const mock_api_t  mock_response_get = {
    .name = "response_get",
    .prefix = mock_responses_prefix,
    .fill = mock_text_fill,
    .suffix = mock_responses_suffix
};


static void
mock_response_delete_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");
    mock_str(b, r->id);
    mock_lit(b, "\",\"object\":\"response\",\"deleted\":true}\n");
}


const mock_api_t  mock_response_delete = {
    .name = "response_delete",
    .prefix = mock_response_delete_prefix
};


static void
mock_compact_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");
    mock_responses_id(r, b, "resp_", 0);
    mock_lit(b, "\",\"object\":\"response.compaction\",\"created_at\":");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\"output\":[{\"id\":\"");
    mock_responses_id(r, b, "msg_", 1);
    mock_lit(b, "\",\"type\":\"message\",\"status\":\"completed\","
                "\"content\":[{\"type\":\"input_text\",\"text\":\"");
    mock_text_all(r, b);
    mock_lit(b, "\"}],\"role\":\"user\"},{\"id\":\"");
    mock_responses_id(r, b, "cmp_", 2);
    mock_lit(b, "\",\"type\":\"compaction\",\"encrypted_content\":\"gAAAAAB");
    mock_buf_id(b, r->id_seed + 3, 120);
    mock_lit(b, "==\"}],\"usage\":");
    mock_responses_usage(r, b);
    mock_lit(b, "}\n");
}


const mock_api_t  mock_compact = {
    .name = "compact",
    .json = 1,
    .prefix = mock_compact_prefix
};
