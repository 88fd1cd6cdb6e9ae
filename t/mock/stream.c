
/*
 * Streams: the order of events, their pauses, the faults between them, and
 * how an event looks on the wire.
 */

#include "mock.h"


static uint32_t
mock_stage_events(mock_req_t *r)
{
    switch (r->gen.stage) {

    case MOCK_STAGE_PRE:
        return r->api->pre;

    case MOCK_STAGE_OPEN:
        return r->blocks ? r->api->open[mock_block_type(r, r->gen.block)] : 0;

    case MOCK_STAGE_DELTA:
        return mock_block_events(r, r->gen.block);

    case MOCK_STAGE_CLOSE:
        return r->blocks ? r->api->close[mock_block_type(r, r->gen.block)] : 0;

    case MOCK_STAGE_POST:
        return r->api->post;

    default:
        return UINT32_MAX;
    }
}


/* To the next event; from UINT32_MAX to the first. */

static void
mock_stream_next(mock_req_t *r)
{
    mock_gen_t  *g;

    g = &r->gen;
    g->i++;
    g->waited = 0;

    while (g->i >= mock_stage_events(r)) {
        g->i = 0;

        if (g->stage == MOCK_STAGE_CLOSE && g->block + 1 < r->blocks) {
            g->block++;
            g->stage = MOCK_STAGE_OPEN;

        } else {
            g->stage++;
        }
    }
}


static const char *
mock_stream_eol(mock_req_t *r)
{
    switch (r->ctl.eol) {

    case MOCK_EOL_CRLF:
        return "\r\n";

    case MOCK_EOL_CR:
        return "\r";

    default:
        return "\n";
    }
}


/* multiline=1: a line break after each comma and brace outside strings */

static void
mock_stream_multiline(mock_buf_t *w, const u_char *p, size_t n,
    const char *eol)
{
    int     in;
    size_t  i;

    for (in = 0, i = 0; i < n; i++) {
        mock_buf_add(w, p + i, 1);

        if (in) {
            if (p[i] == '\\' && i + 1 < n) {
                mock_buf_add(w, p + ++i, 1);

            } else if (p[i] == '"') {
                in = 0;
            }

        } else if (p[i] == '"') {
            in = 1;

        } else if (p[i] == ',' || p[i] == '{') {
            mock_str(w, eol);
            mock_lit(w, "data:   ");
        }
    }
}


static void
mock_stream_fields(mock_req_t *r, mock_buf_t *w, const char *eol)
{
    if (r->ctl.bom > 0 && r->gen.seqno == 0) {
        mock_lit(w, "\xef\xbb\xbf");
    }

    if (r->ctl.comments > 0) {
        mock_lit(w, ": keepalive");
        mock_str(w, eol);
        mock_str(w, eol);
    }

    if (r->ctl.ids > 0) {
        mock_lit(w, "id: ");
        mock_buf_num(w, r->gen.seqno);
        mock_str(w, eol);

        if (r->gen.seqno == 0) {
            mock_lit(w, "retry: 3000");
            mock_str(w, eol);
        }
    }
}


/* Sends the JSON in mock.ev as one event. */

static void
mock_stream_send(mock_req_t *r, const char *name)
{
    const char  *eol;
    mock_buf_t  *w, *ev;

    w = &mock.wire;
    ev = &mock.ev;
    w->len = 0;
    eol = mock_stream_eol(r);

    mock_stream_fields(r, w, eol);

    if (name == NULL && r->ctl.named > 0 && ev->data[0] == '{') {
        name = "chat.completion.chunk";
    }

    if (name) {
        mock_lit(w, "event: ");
        mock_str(w, name);
        mock_str(w, eol);
    }

    mock_lit(w, "data: ");

    if (r->ctl.multiline > 0 && ev->data[0] == '{') {
        mock_stream_multiline(w, ev->data, ev->len, eol);

    } else {
        mock_buf_add(w, ev->data, ev->len);
    }

    if (r->ctl.no_last_newline <= 0 || r->gen.stage != MOCK_STAGE_END) {
        mock_str(w, eol);
        mock_str(w, eol);
    }

    r->gen.seqno++;
    mock_out_body(r, w->data, w->len);

    if (ev->cap > 1 << 20) {
        mock_buf_free(ev);
        mock_buf_free(w);
    }
}


void
mock_stream_heartbeat(mock_req_t *r)
{
    static const u_char  comment[] = ": heartbeat\n\n";
    static const u_char  ping[] = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

    if (!r->streaming || !r->head_sent) {
        return;
    }

    if (r->api->anthropic) {
        mock_out_body(r, ping, sizeof(ping) - 1);

    } else {
        mock_out_body(r, comment, sizeof(comment) - 1);
    }
}


/* The last bytes are written: how the stream's HTTP ends. */

static void
mock_stream_end(mock_req_t *r)
{
    r->step = MOCK_STEP_END;

    switch (r->ctl.fault) {

    case MOCK_FAULT_DONE_OPEN:
        r->due = MOCK_FOREVER;
        return;

    case MOCK_FAULT_SHORT:
        r->end = MOCK_END_FIN;
        return;

    case MOCK_FAULT_LONG:
        if (r->measure) {
            return;
        }

        mock_lit(&mock.out, "data: beyond Content-Length\n\n");
        r->end = MOCK_END_FIN;
        return;

    case MOCK_FAULT_CLOSE_AFTER:
        r->end = MOCK_END_FIN;
        break;
    }

    mock_out_end(r);
}


/* MOCK_DONE if a fault took the place of the next event. */

static int
mock_stream_fault(mock_req_t *r)
{
    int64_t      at;
    const char  *name;

    at = r->ctl.at >= 0 ? r->ctl.at : 2;

    if (r->ctl.fault == MOCK_FAULT_ERROR_FIRST) {
        at = 0;
    }

    if (r->gen.sent < at && r->gen.stage != MOCK_STAGE_POST) {
        return MOCK_OK;
    }

    if (r->measure && r->ctl.fault != MOCK_FAULT_ERROR_FIRST
        && r->ctl.fault != MOCK_FAULT_ERROR_EVENT
        && r->ctl.fault != MOCK_FAULT_CLEAN_CUT)
    {
        return MOCK_OK;
    }

    switch (r->ctl.fault) {

    case MOCK_FAULT_ERROR_FIRST:
    case MOCK_FAULT_ERROR_EVENT:
        mock.ev.len = 0;
        name = r->api->error_event(r, &mock.ev);
        mock_stream_send(r, name);
        r->gen.stage = MOCK_STAGE_END;
        mock_stream_end(r);
        return MOCK_DONE;

    case MOCK_FAULT_CLEAN_CUT:
        r->gen.stage = MOCK_STAGE_END;
        mock_stream_end(r);
        return MOCK_DONE;

    case MOCK_FAULT_CUT:
        r->step = MOCK_STEP_END;
        r->end = MOCK_END_FIN;
        r->rude = 1;
        return MOCK_DONE;

    case MOCK_FAULT_RESET_MID:
        r->step = MOCK_STEP_END;
        r->end = MOCK_END_RST;
        r->due = mock.now + 10000;    /* let the peer read what was sent */
        return MOCK_DONE;

    case MOCK_FAULT_STALL:
        r->due = MOCK_FOREVER;
        return MOCK_DONE;
    }

    return MOCK_OK;
}


/* MOCK_AGAIN if there is a pause before the next event. */

static int
mock_stream_pause(mock_req_t *r)
{
    int64_t      pause;
    mock_gen_t  *g;

    g = &r->gen;

    if (g->waited || r->measure) {
        return MOCK_OK;
    }

    g->waited = 1;
    pause = r->ctl.gap >= 0 ? r->ctl.gap : mock.gap;

    if (g->waits == 0) {
        pause = r->ctl.first >= 0 ? r->ctl.first : 0;

    } else if (g->waits == 1 && r->api->open_shown) {
        pause = 0;
    }

    g->waits++;

    if (pause <= 0) {
        return MOCK_OK;
    }

    /* the schedule is absolute, so that lateness does not add up */

    r->clock += pause;

    if (r->clock < mock.now) {
        r->clock = mock.now;
    }

    r->due = r->clock;

    return r->due > mock.now ? MOCK_AGAIN : MOCK_OK;
}


static int
mock_stream_is_content(mock_req_t *r)
{
    switch (r->gen.stage) {

    case MOCK_STAGE_DELTA:
        return 1;

    case MOCK_STAGE_OPEN:
        return r->api->open_content;

    case MOCK_STAGE_POST:
        return r->gen.i == 0;

    default:
        return 0;
    }
}


/* the end of the preamble, where it is followed by more than content */

static int
mock_stream_is_first(mock_req_t *r)
{
    return r->api->open_shown && r->gen.stage == MOCK_STAGE_OPEN
           && r->gen.block == 0 && r->gen.i == 0;
}


static void
mock_stream_event(mock_req_t *r)
{
    int          content, at;
    const char  *name;
    mock_buf_t  *b;

    b = &mock.ev;
    b->len = 0;
    content = r->gen.stage == MOCK_STAGE_DELTA;

    name = r->api->event(r, b);

    if (content) {
        r->gen.sent++;
        at = r->ctl.at > 0 ? (int) r->ctl.at : 2;

        if (r->ctl.fault == MOCK_FAULT_MALFORMED && (int) r->gen.sent == at) {
            b->len /= 2;
        }
    }

    mock_stream_next(r);

    if (b->len) {
        mock_stream_send(r, name);
    }

    if (content && r->ctl.unknown > 0 && r->api->named
        && r->gen.sent == (r->events + 1) / 2)
    {
        b->len = 0;
        mock_lit(b, "{\"type\":\"mock_unknown_event\",\"sequence_number\":");
        mock_buf_num(b, r->gen.seqno);
        mock_lit(b, ",\"payload\":{\"a\":[1,2,{\"b\":null}]}}");
        mock_stream_send(r, "mock_unknown_event");
    }
}


/* Produces events up to a pause, an end, or a batch to be written. */

int
mock_stream_step(mock_req_t *r)
{
    if (r->gen.i == UINT32_MAX) {
        mock_stream_next(r);
    }

    for ( ;; ) {
        if (r->gen.stage == MOCK_STAGE_END) {
            mock_stream_end(r);
            return MOCK_DONE;
        }

        if (mock_stream_is_content(r) || mock_stream_is_first(r)) {

            if (mock_stream_pause(r) == MOCK_AGAIN) {
                return MOCK_AGAIN;
            }

            if (r->ctl.fault > 0 && mock_stream_fault(r) == MOCK_DONE) {
                return MOCK_DONE;
            }
        }

        mock_stream_event(r);

        if (mock.out.len >= MOCK_BATCH) {
            return MOCK_OK;
        }
    }
}


/* Bytes of the whole stream, for Content-Length. */

uint64_t
mock_stream_measure(mock_req_t *r)
{
    uint64_t    length;
    mock_gen_t  saved;

    saved = r->gen;
    r->measure = 1;
    r->produced = 0;
    r->gen.i = UINT32_MAX;

    (void) mock_stream_step(r);

    length = r->produced;
    r->produced = 0;
    r->measure = 0;
    r->gen = saved;
    r->step = MOCK_STEP_BODY;
    r->end = MOCK_END_KEEP;
    r->due = 0;

    return length;
}
