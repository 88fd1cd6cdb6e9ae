
/*
 * From a whole request to a whole answer: which kind, its faults, its pump.
 * Everything is produced in steps by mock_pump(), which runs again whenever
 * the socket or a timer allows.
 */

#include "mock.h"


static void
mock_answer_hold(mock_req_t *r)
{
    r->due = MOCK_FOREVER;
}


/* A whole small answer from mock.ev. */

static void
mock_answer_simple(mock_req_t *r, uint32_t status, const char *type)
{
    mock_buf_t  *b;

    b = &mock.ev;

    if (status == 204 || status == 304) {
        r->framing = MOCK_FRAME_LENGTH;
        mock_head(r, &mock.out, status, NULL, -1);
        r->step = MOCK_STEP_END;
        return;
    }

    mock_head(r, &mock.out, status, type, (int64_t) b->len);
    r->conn->pace_free = r->ctl.split_head > 0 ? 0 : mock.out.len;

    if (mock_methods[r->method][0] != 'H') {
        mock_out_body(r, b->data, b->len);
        mock_out_end(r);
    }

    r->step = MOCK_STEP_END;
}


static void
mock_answer_error(mock_req_t *r, uint32_t status, const char *code,
    const char *message)
{
    mock.ev.len = 0;
    mock_error_body(r, &mock.ev, status, code, message);
    mock_answer_simple(r, status, "application/json");
}


static void
mock_answer_status(mock_req_t *r)
{
    uint32_t     status;
    const char  *body;

    status = r->ctl.status > 0 ? (uint32_t) r->ctl.status : 200;
    body = r->ctl.body;

    if (body == NULL) {
        mock_answer_error(r, status, r->ctl.code, r->ctl.message);
        return;
    }

    mock.ev.len = 0;
    mock_str(&mock.ev, body);
    mock_answer_simple(r, status, *body == '<' ? "text/html"
                                               : "application/json");
}


/* Complaints of a real provider; returns MOCK_DONE when one was made. */

static int
mock_answer_invalid(mock_req_t *r)
{
    mock_json_t  *j;
    const char   *message;

    j = &r->json;
    message = NULL;

    if (r->bad_control[0]) {
        mock.wire.len = 0;
        mock_lit(&mock.wire, "mock: unknown control or bad value: ");
        mock_str(&mock.wire, r->bad_control);
        mock_lit(&mock.wire, "\0");
        message = (const char *) mock.wire.data;

    } else if (r->overlong) {
        mock_answer_error(r, 413, NULL, NULL);
        return MOCK_DONE;

    } else if (!r->api->json || r->end == MOCK_END_LINGER) {
        return MOCK_OK;

    } else if (!mock_json_complete(j) || !j->object) {
        message = "We could not parse the JSON body of your request.";

    } else if (!j->has_model) {
        r->param = "model";
        message = r->api->anthropic ? "model: Field required"
                                    : "you must provide a model parameter";

    } else if ((r->api == &mock_chat || r->api->anthropic)
               && !j->has_messages)
    {
        r->param = "messages";
        message = r->api->anthropic
                  ? "messages: Field required"
                  : "Missing required parameter: 'messages'.";

    } else if (r->api == &mock_messages && j->max_tokens < 0) {
        message = "max_tokens: Field required";

    } else if ((message = mock_prefill_refused(r)) != NULL) {
        /* void */

    } else if (r->api == &mock_embeddings && !j->has_input) {
        r->param = "input";
        message = "Missing required parameter: 'input'.";

    } else if (r->ctl.fault == MOCK_FAULT_NO_STREAM_OPTIONS
               && j->has_stream_options)
    {
        r->param = "stream_options";
        mock_answer_error(r, r->ctl.status > 0 ? (uint32_t) r->ctl.status
                                               : 400,
                          "unknown_parameter",
                          "Unrecognized request argument supplied: "
                          "stream_options");
        return MOCK_DONE;
    }

    if (message == NULL) {
        return MOCK_OK;
    }

    mock_answer_error(r, 400, NULL, message);

    return MOCK_DONE;
}


/* Faults before or instead of the head. */

static int
mock_answer_fault(mock_req_t *r)
{
    u_char       end;
    mock_buf_t  *b;

    b = &mock.out;
    end = r->end;
    r->step = MOCK_STEP_END;
    r->end = MOCK_END_FIN;
    r->rude = 1;

    switch (r->ctl.fault) {

    case MOCK_FAULT_RESET:
        r->end = MOCK_END_RST;
        return MOCK_DONE;

    case MOCK_FAULT_CLOSE:
        return MOCK_DONE;

    case MOCK_FAULT_CLOSE_MID_HEAD:
        mock_lit(b, "HTTP/1.1 200 OK\r\nContent-Type: applica");
        return MOCK_DONE;

    case MOCK_FAULT_BAD_HEAD:
        mock_lit(b, "HTP/x.1 2o0 FINE\r\n\001garbage\r\n\r\n{}");
        return MOCK_DONE;

    case MOCK_FAULT_HANG:
        mock_answer_hold(r);
        return MOCK_DONE;
    }

    r->step = MOCK_STEP_START;
    r->end = end;
    r->rude = 0;

    return MOCK_OK;
}


static void
mock_answer_framing(mock_req_t *r, int streaming)
{
    int64_t  framing;

    r->streaming = (unsigned) streaming & 1;
    framing = r->streaming ? r->ctl.stream_framing : r->ctl.plain;

    if (framing < 0) {
        framing = r->streaming ? MOCK_FRAME_CHUNKED : MOCK_FRAME_LENGTH;
    }

    switch (r->ctl.fault) {

    case MOCK_FAULT_GZIP:
        r->gzip = 1;
        framing = MOCK_FRAME_CHUNKED;
        break;

    case MOCK_FAULT_DONE_OPEN:
        if (framing == MOCK_FRAME_LENGTH && !r->streaming) {
            framing = MOCK_FRAME_CHUNKED;
        }

        break;

    case MOCK_FAULT_SHORT:
    case MOCK_FAULT_LONG:
        framing = MOCK_FRAME_LENGTH;
        break;
    }

    if (r->http10 && framing == MOCK_FRAME_CHUNKED) {
        framing = MOCK_FRAME_CLOSE;
    }

    r->framing = (u_char) framing;

    r->close = (framing == MOCK_FRAME_CLOSE || r->ctl.keepalive == 0
                || r->end == MOCK_END_LINGER || r->close_asked
                || (r->http10 && !r->keep10));
}


static int64_t
mock_answer_length(mock_req_t *r, uint64_t length)
{
    return (int64_t) (r->ctl.fault == MOCK_FAULT_SHORT ? length + 100
                                                       : length);
}


static void
mock_answer_stream(mock_req_t *r)
{
    uint64_t  length;

    length = 0;

    if (r->framing == MOCK_FRAME_LENGTH) {
        length = mock_stream_measure(r);
    }

    mock_head(r, &mock.out, 200, "text/event-stream; charset=utf-8",
              mock_answer_length(r, length));

    r->clock = mock.now;
    r->beat = r->ctl.heartbeat > 0 ? mock.now + r->ctl.heartbeat : 0;
    r->gen.i = UINT32_MAX;      /* before the first event */
}


static void
mock_answer_plain(mock_req_t *r)
{
    uint64_t     length;
    mock_buf_t  *b;

    b = &mock.ev;
    b->len = 0;

    r->api->prefix(r, b);

    mock.wire.len = 0;

    if (r->api->suffix) {
        r->api->suffix(r, &mock.wire);
    }

    length = b->len + r->fill_len + mock.wire.len;

    switch (r->ctl.fault) {

    case MOCK_FAULT_CUT:
    case MOCK_FAULT_CLEAN_CUT:
    case MOCK_FAULT_RESET_MID:
    case MOCK_FAULT_STALL:
        r->limit = r->ctl.at >= 0 ? (uint64_t) r->ctl.at : length / 2;
        break;

    default:
        r->limit = UINT64_MAX;
    }

    if (r->ctl.fault == MOCK_FAULT_CLEAN_CUT && length > r->limit) {
        length = r->limit;
    }

    mock_head(r, &mock.out, 200, "application/json",
              mock_answer_length(r, length));
}


/* The first step, after delay=: everything up to and with the head. */

static void
mock_answer_start(mock_req_t *r)
{
    int  streaming;

    streaming = r->api->streams && r->json.stream;

    if (!r->bad_control[0] && r->ctl.fault > 0
        && mock_answer_fault(r) == MOCK_DONE)
    {
        return;
    }

    r->step = MOCK_STEP_BODY;
    mock_answer_framing(r, 0);

    if (r->ctl.fault != MOCK_FAULT_NO_STREAM_OPTIONS && !r->bad_control[0]
        && (r->ctl.status > 0 || r->ctl.body))
    {
        mock_answer_status(r);

    } else if (mock_answer_invalid(r) == MOCK_DONE) {
        /* void */

    } else if (r->ctl.fault == MOCK_FAULT_ERROR200) {
        mock.ev.len = 0;
        mock_error_body(r, &mock.ev, 500, r->ctl.code, r->ctl.message);
        mock_answer_simple(r, 200, "application/json");

    } else if (r->api == &mock_unknown) {
        mock_answer_error(r, 404, NULL, "Unknown request URL.");

    } else if (r->api == &mock_not_allowed) {
        mock_answer_error(r, 405, NULL, NULL);

    } else {
        if (r->api->plan) {
            r->api->plan(r);
        }

        if (streaming && r->ctl.fault != MOCK_FAULT_NOT_SSE) {
            mock_answer_framing(r, 1);
            mock_answer_stream(r);

        } else {
            mock_answer_plain(r);
        }

        r->conn->pace_free = r->ctl.split_head > 0 ? 0 : mock.out.len;

        if (r->ctl.fault == MOCK_FAULT_HANG_HEAD) {
            mock_answer_hold(r);
        }
    }
}


static void
mock_plain_end(mock_req_t *r)
{
    r->step = MOCK_STEP_END;

    switch (r->ctl.fault) {

    case MOCK_FAULT_CUT:
    case MOCK_FAULT_SHORT:
        r->end = MOCK_END_FIN;
        r->rude = 1;
        return;

    case MOCK_FAULT_RESET_MID:
        r->end = MOCK_END_RST;
        r->due = mock.now + 10000;    /* let the peer read what was sent */
        return;

    case MOCK_FAULT_STALL:
    case MOCK_FAULT_DONE_OPEN:
        mock_answer_hold(r);
        return;

    case MOCK_FAULT_LONG:
        mock_lit(&mock.out, "these bytes are beyond Content-Length");
        r->end = MOCK_END_FIN;
        return;

    case MOCK_FAULT_CLOSE_AFTER:
        r->end = MOCK_END_FIN;
        break;
    }

    mock_out_end(r);
}


/* mock.ev holds the prefix when this is called for the first time. */

static void
mock_plain_step(mock_req_t *r)
{
    uint64_t     room;
    mock_buf_t  *b;

    b = &mock.ev;

    if (r->plain_part) {
        b->len = 0;
    }

    r->plain_part = 1;

    while (r->fill_off < r->fill_len && b->len < MOCK_BATCH) {
        r->api->fill(r, b, MOCK_BATCH - b->len);
    }

    if (r->fill_off == r->fill_len && r->api->suffix) {
        r->api->suffix(r, b);
    }

    room = r->limit - r->produced;

    if (b->len >= room) {
        b->len = room;
    }

    mock_out_body(r, b->data, b->len);

    if (r->fill_off == r->fill_len || b->len == room) {
        mock_plain_end(r);
    }
}


static void
mock_answer_wait(mock_conn_t *c)
{
    int64_t      at;
    mock_req_t  *r;

    r = &c->req;
    at = r->due;

    if (r->beat && r->beat < at) {
        at = r->beat;
    }

    if (at != MOCK_FOREVER) {
        mock_timer_set(c, at);
    }
}


void
mock_pump(mock_conn_t *c)
{
    int          rc;
    size_t       sent;
    mock_req_t  *r;

    r = &c->req;

    for (sent = 0; /* void */ ; ) {
        sent += mock.out.len;
        rc = mock_out_flush(c);

        if (rc == MOCK_AGAIN) {
            return;
        }

        if (rc == MOCK_ERROR) {
            mock_finish(c, 1);
            return;
        }

        if (sent > MOCK_TURN) {
            mock_timer_set(c, mock.now + 1);
            return;
        }

        if (r->due > mock.now) {

            if (r->beat && r->beat <= mock.now) {
                r->beat += r->ctl.heartbeat;
                mock_stream_heartbeat(r);
                continue;
            }

            mock_answer_wait(c);
            return;
        }

        if (r->step == MOCK_STEP_END) {
            if (r->end == MOCK_END_KEEP && r->close) {
                r->end = MOCK_END_FIN;
            }

            mock_finish(c, 0);
            return;
        }

        if (r->step == MOCK_STEP_START) {
            mock_answer_start(r);

            if (r->step != MOCK_STEP_BODY || r->due > mock.now) {
                continue;
            }
        }

        if (r->streaming) {
            mock_stream_step(r);

        } else {
            mock_plain_step(r);
        }
    }
}


static void
mock_answer_control(mock_conn_t *c)
{
    const char  *type;
    mock_req_t  *r;

    r = &c->req;
    mock.ev.len = 0;
    mock_api_answer(c, &mock.ev, &type);

    r->close = r->close_asked || (r->http10 && !r->keep10);
    r->framing = MOCK_FRAME_LENGTH;
    mock_answer_simple(r, r->status, type);
    mock_pump(c);
}


/* The request is whole, but for early=1. */

void
mock_answer(mock_conn_t *c)
{
    mock_req_t  *r;

    r = &c->req;
    c->state = MOCK_CONN_ANSWER;
    c->pace_at = 0;
    c->pace_free = 0;

    mock_timer_del(c);

    if (r->control) {
        mock_answer_control(c);
        return;
    }

    if (r->api->json) {
        mock_ctl_model(r);
    }

    mock_plan(r);

    if (r->api->streams && r->json.stream) {
        r->streaming = 1;       /* as asked, for the record */
        r->counted = 1;
        mock.stats.streams++;

        if (++mock.stats.open_streams > mock.stats.max_open_streams) {
            mock.stats.max_open_streams = mock.stats.open_streams;
        }
    }

    if (r->ctl.delay > 0) {
        r->due = mock.now + r->ctl.delay;
    }

    mock_pump(c);
}
