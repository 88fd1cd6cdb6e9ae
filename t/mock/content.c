
/*
 * What an answer says: how many events, which text, which tool calls, the
 * token counts.  The pieces of a stream add up to the content of the plain
 * answer to the same controls.
 */

#include <unistd.h>

#include "mock.h"


static void
mock_plan_text(mock_req_t *r)
{
    size_t       len, slice;
    mock_ctl_t  *ctl;

    ctl = &r->ctl;

    if (ctl->text) {
        len = strlen(ctl->text);
        slice = (size_t) (ctl->size > 0 ? ctl->size : mock.size);

        if (ctl->events > 0) {
            slice = (len + (size_t) ctl->events - 1) / (size_t) ctl->events;
        }

        slice = slice ? slice : 1;
        r->size = slice;
        r->events = (uint32_t) ((len + slice - 1) / slice);
        return;
    }

    r->size = (uint64_t) (ctl->size >= 0 ? ctl->size : mock.size);
    r->events = (uint32_t) (ctl->events >= 0 ? ctl->events : mock.events);

    if (ctl->total >= 0 && ctl->events < 0 && r->size) {
        r->events = (uint32_t) (((uint64_t) ctl->total + r->size - 1)
                                / r->size);
    }
}


static void
mock_plan_tools(mock_req_t *r)
{
    int64_t      turns;
    mock_ctl_t  *ctl;

    ctl = &r->ctl;

    if (ctl->tools <= 0 || r->json.tools == 0) {
        return;
    }

    r->turn = (u_char) (r->json.tool_results / (uint32_t) ctl->tools);
    turns = ctl->turns > 0 ? ctl->turns : 1;

    if (r->turn < turns) {
        r->tools = (u_char) (ctl->tools < 8 ? ctl->tools : 8);
    }
}


/* Resolves the controls; fails= and flap= may take the fault away. */

void
mock_plan(mock_req_t *r)
{
    int          n, off;
    int64_t      big;
    mock_ctl_t  *ctl;

    ctl = &r->ctl;

    if (ctl->fails >= 0 || ctl->flap > 0) {
        n = mock_ctl_hits(r);
        off = ctl->fails >= 0 ? n >= ctl->fails : n / ctl->flap % 2;

        if (off) {
            ctl->status = -1;
            ctl->fault = MOCK_FAULT_NONE;
            ctl->body = NULL;
            ctl->retry_after = NULL;
            ctl->retry_after_ms = NULL;
            ctl->should_retry = NULL;
        }
    }

    mock_derive_plan(r);

    /* hashed, for ids of neighbours in the sequence would overlap */

    r->id_seed = ctl->seed >= 0 ? (uint64_t) ctl->seed
                                : r->seq + ((uint64_t) getpid() << 40);
    r->id_seed = mock_random(&r->id_seed);
    r->gen.rng = r->id_seed;
    r->created = ctl->seed >= 0 ? 1760000000 : mock_epoch_ms() / 1000;

    mock_plan_text(r);
    mock_plan_tools(r);

    if (ctl->events < 0 && r->json.max_tokens >= 0
        && r->json.max_tokens < r->events && r->tools == 0)
    {
        r->events = (uint32_t) r->json.max_tokens;
        r->limited = 1;
    }

    r->total = r->events * r->size;

    if (ctl->total >= 0 && !r->limited) {
        r->total = (uint64_t) ctl->total;
    }

    if (ctl->big_event > 0) {
        big = ctl->at > 0 ? ctl->at - 1 : 0;

        if (big < r->events && r->total >= r->size && ctl->text == NULL) {
            r->total += (uint64_t) ctl->big_event - r->size;

        } else {
            ctl->big_event = 0;
        }
    }

    r->blocks = (u_char) ((ctl->thinking > 0) + (r->tools ? r->tools : 1));

    mock_prefill_plan(r);
}


uint32_t
mock_block_type(mock_req_t *r, uint32_t block)
{
    if (r->ctl.thinking > 0 && block == 0) {
        return MOCK_BLOCK_THINK;
    }

    return r->tools ? MOCK_BLOCK_TOOL : MOCK_BLOCK_TEXT;
}


static uint32_t
mock_tool_slice_len(mock_req_t *r, size_t len)
{
    uint32_t  n;

    n = r->events ? r->events : 1;

    return (uint32_t) ((len + n - 1) / n);
}


uint32_t
mock_block_events(mock_req_t *r, uint32_t block)
{
    size_t    len;
    uint32_t  slice;

    switch (mock_block_type(r, block)) {

    case MOCK_BLOCK_THINK:
        return (uint32_t) r->ctl.thinking;

    case MOCK_BLOCK_TOOL:
        block -= (r->ctl.thinking > 0);
        len = strlen(mock_tool_args(r, block));
        slice = mock_tool_slice_len(r, len);
        return (uint32_t) ((len + slice - 1) / slice);

    default:
        return r->events;
    }
}


static size_t
mock_text_boundary(const char *text, size_t pos)
{
    while ((text[pos] & 0xc0) == 0x80) { pos++; }

    return pos;
}


uint64_t
mock_text_base(mock_req_t *r)
{
    return (r->ctl.seed > 0 ? (uint64_t) r->ctl.seed * 8 * 12 : 0)
           + r->json.tail_said;
}


/* JSON-escaped text of content event k, from 0. */

void
mock_text(mock_req_t *r, mock_buf_t *b, uint32_t k)
{
    size_t    from, to, len, size;
    uint32_t  big;
    uint64_t  off;

    if (r->ctl.text) {
        len = strlen(r->ctl.text);
        from = (size_t) k * r->size;
        to = from + r->size;
        from = mock_text_boundary(r->ctl.text, from < len ? from : len);
        to = mock_text_boundary(r->ctl.text, to < len ? to : len);
        mock_buf_json(b, r->ctl.text + from, to - from);
        return;
    }

    big = r->ctl.at > 0 ? (uint32_t) r->ctl.at - 1 : 0;
    off = k * r->size;
    size = r->size;

    if (r->ctl.big_event > 0) {
        if (k > big) {
            off += (uint64_t) r->ctl.big_event - r->size;

        } else if (k == big) {
            size = (size_t) r->ctl.big_event;
        }
    }

    if (off + size > r->total) {
        size = off < r->total ? r->total - off : 0;
    }

    mock_buf_pool(b, mock_text_base(r) + off, size);
}


/* All of it: text= or, with r->total bytes, filler. */

void
mock_text_all(mock_req_t *r, mock_buf_t *b)
{
    size_t  len;

    if (r->ctl.text) {
        len = strlen(r->ctl.text);

        if (r->limited && r->events * r->size < len) {
            len = mock_text_boundary(r->ctl.text, r->events * r->size);
        }

        mock_buf_json(b, r->ctl.text, len);
        return;
    }

    mock_buf_pool(b, mock_text_base(r), r->total);
}


void
mock_text_fill(mock_req_t *r, mock_buf_t *b, size_t n)
{
    if (n > r->fill_len - r->fill_off) {
        n = r->fill_len - r->fill_off;
    }

    mock_buf_pool(b, mock_text_base(r) + r->fill_off, n);
    r->fill_off += n;
}


/* call counts from 0 over all turns: tool= is the first, tool2= the others */

static uint32_t
mock_tool_call(mock_req_t *r, uint32_t call)
{
    return (uint32_t) r->turn * r->tools + call;
}


const char *
mock_tool_name(mock_req_t *r, uint32_t call)
{
    u_char        i;
    mock_json_t  *j;

    j = &r->json;
    call = mock_tool_call(r, call);

    if (call > 0 && r->ctl.tool2) {
        return r->ctl.tool2;
    }

    if (r->ctl.tool) {
        return r->ctl.tool;
    }

    i = (call % 2 && j->tool_name_len[1]) ? 1 : 0;

    if (j->tool_name_len[i] == 0) {
        return "get_weather";
    }

    j->tool_name[i][j->tool_name_len[i]] = '\0';

    return j->tool_name[i];
}


const char *
mock_tool_args(mock_req_t *r, uint32_t call)
{
    call = mock_tool_call(r, call);

    if (call > 0 && r->ctl.args2) {
        return r->ctl.args2;
    }

    if (r->ctl.args) {
        return r->ctl.args;
    }

    return call % 2 ? "{\"location\":\"Rome, Italy\"}"
                    : "{\"location\":\"Paris, France\"}";
}


/* Piece k of a call's arguments, escaped to stand inside a JSON string. */

void
mock_tool_slice(mock_req_t *r, mock_buf_t *b, uint32_t call, uint32_t k)
{
    size_t       len, slice, from, to;
    const char  *args;

    args = mock_tool_args(r, call);
    len = strlen(args);
    slice = mock_tool_slice_len(r, len);
    from = k * slice;
    to = from + slice;
    from = mock_text_boundary(args, from < len ? from : len);
    to = mock_text_boundary(args, to < len ? to : len);

    mock_buf_json(b, args + from, to - from);
}


void
mock_model(mock_req_t *r, mock_buf_t *b)
{
    if (r->json.model_len) {
        mock_buf_add(b, r->json.model, r->json.model_len);
        return;
    }

    mock_lit(b, "mock-model");
}


/* ,"obfuscation":"..." of 1 to 16 random characters, if asked for */

void
mock_obfuscation(mock_req_t *r, mock_buf_t *b)
{
    uint64_t  rnd;

    if (r->ctl.obfuscation <= 0 || r->json.no_obfuscation) {
        return;
    }

    rnd = mock_random(&r->gen.rng);
    mock_lit(b, ",\"obfuscation\":\"");
    mock_buf_id(b, rnd, 1 + (int) (rnd & 15));
    mock_lit(b, "\"");
}


uint32_t
mock_tokens_in(mock_req_t *r)
{
    if (r->ctl.prompt_tokens >= 0) {
        return (uint32_t) r->ctl.prompt_tokens;
    }

    return (uint32_t) ((r->body_len + 3) / 4);
}


uint32_t
mock_tokens_out(mock_req_t *r)
{
    uint32_t  n, i;

    for (n = 0, i = 0; i < r->blocks; i++) {
        n += mock_block_events(r, i);
    }

    return n;
}
