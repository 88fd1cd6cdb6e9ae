
/* /_mock/: counters, the last exchange, defaults of a port. */

#include <stdio.h>

#include "mock.h"


mock_record_t *
mock_record(mock_req_t *r)
{
    return &mock.ring[r->seq % MOCK_RING];
}


static void
mock_api_reset(void)
{
    int           i;
    mock_stats_t  old;

    old = mock.stats;
    memset(&mock.stats, 0, sizeof(mock_stats_t));
    mock.stats.open_connections = old.open_connections;
    mock.stats.open_streams = old.open_streams;
    mock.stats.max_open_streams = old.open_streams;

    for (i = 0; i < mock.nlistens; i++) {
        mock_ctl_init(&mock.listens[i].ctl);
        mock.listens[i].connections = 0;
        mock.listens[i].requests = 0;
        mock.listens[i].aborted = 0;
    }

    memset(mock.ring, 0, sizeof(mock.ring));
    mock.last_seq = 0;
    mock_buf_free(&mock.last_head);
    mock_buf_free(&mock.last_body);
    mock_buf_free(&mock.last_answer);
    mock.last_body_over = 0;
    mock.last_answer_over = 0;
    mock_ctl_reset_counters();
}


/* Returns 1 for a path of ours; arguments do not live longer than this. */

int
mock_api_match(mock_req_t *r, const char *uri, size_t len)
{
    size_t  n;

    if (len < 7 || memcmp(uri, "/_mock/", 7) != 0) {
        return 0;
    }

    r->control = 1;
    r->api = &mock_unknown;
    r->status = 200;

    uri += 7;
    len -= 7;

    for (n = 0; n < len && uri[n] != '?'; n++) { /* void */ }

    snprintf(r->id, sizeof(r->id), "%.*s", (int) n, uri);

    if (strcmp(r->id, "set") == 0 && n < len) {
        if (mock_ctl_set_listen(r->conn->listen, uri + n + 1, len - n - 1)
            != MOCK_OK)
        {
            r->status = 400;
        }
    }

    return 1;
}


static void
mock_api_number(mock_buf_t *b, const char *name, uint64_t n)
{
    mock_lit(b, "\"");
    mock_str(b, name);
    mock_lit(b, "\":");
    mock_buf_num(b, n);
    mock_lit(b, ",");
}


static void
mock_api_stats(mock_buf_t *b)
{
    int            i;
    mock_stats_t  *s;

    s = &mock.stats;

    mock_lit(b, "{");
    mock_api_number(b, "connections", s->connections);
    mock_api_number(b, "open_connections", s->open_connections);
    mock_api_number(b, "requests", s->requests);
    mock_api_number(b, "streams", s->streams);
    mock_api_number(b, "open_streams", s->open_streams);
    mock_api_number(b, "max_open_streams", s->max_open_streams);
    mock_api_number(b, "aborted", s->aborted);
    mock_api_number(b, "last_abort_ms", s->last_abort_ms);
    mock_api_number(b, "last_abort_mono_us", s->last_abort_mono_us);
    mock_api_number(b, "bytes_in", s->bytes_in);
    mock_api_number(b, "bytes_out", s->bytes_out);
    mock_api_number(b, "tls_handshakes", s->tls_handshakes);
    mock_api_number(b, "tls_resumed", s->tls_resumed);
    mock_api_number(b, "now_ms", mock_epoch_ms());
    mock_lit(b, "\"ports\":[");

    for (i = 0; i < mock.nlistens; i++) {
        mock_str(b, i ? ",{" : "{");
        mock_api_number(b, "port", (uint64_t) mock.listens[i].port);
        mock_api_number(b, "connections", mock.listens[i].connections);
        mock_api_number(b, "requests", mock.listens[i].requests);
        mock_api_number(b, "aborted", mock.listens[i].aborted);
        mock_str(b, mock.listens[i].tls ? "\"tls\":true}" : "\"tls\":false}");
    }

    mock_lit(b, "]}\n");
}


static void
mock_api_requests(mock_buf_t *b)
{
    int             first;
    uint64_t        seq;
    mock_record_t  *rec;

    first = 1;
    seq = mock.seq > MOCK_RING ? mock.seq - MOCK_RING + 1 : 1;

    mock_lit(b, "[");

    for ( /* void */ ; seq <= mock.seq; seq++) {
        rec = &mock.ring[seq % MOCK_RING];

        if (rec->seq != seq) {
            continue;
        }

        mock_str(b, first ? "\n{\"method\":\"" : ",\n{\"method\":\"");
        mock_str(b, mock_methods[rec->method]);
        mock_lit(b, "\",\"uri\":\"");
        mock_buf_json(b, rec->uri, rec->uri_len);
        mock_lit(b, "\",");
        mock_api_number(b, "status", rec->status);
        mock_api_number(b, "t_ms", rec->t_ms);
        mock_api_number(b, "port", rec->port);
        mock_str(b, rec->stream ? "\"stream\":true," : "\"stream\":false,");
        mock_str(b, rec->done ? "\"done\":true," : "\"done\":false,");
        mock_str(b, rec->aborted ? "\"aborted\":true}"
                                 : "\"aborted\":false}");
        first = 0;
    }

    mock_lit(b, "]\n");
}


static void
mock_api_last(mock_req_t *r, mock_buf_t *b, mock_buf_t *last, int over)
{
    if (over) {
        r->status = 413;
        mock_lit(b, "too large to be kept\n");
        return;
    }

    if (last->len) {
        mock_buf_add(b, last->data, last->len);
    }
}


void
mock_api_answer(mock_conn_t *c, mock_buf_t *b, const char **type)
{
    mock_req_t  *r;
    const char  *op;

    r = &c->req;
    op = r->id;
    *type = "application/json";

    if (strcmp(op, "stats") == 0) {
        mock_api_stats(b);

    } else if (strcmp(op, "requests") == 0) {
        mock_api_requests(b);

    } else if (strcmp(op, "reset") == 0) {
        mock_api_reset();
        mock_lit(b, "{\"ok\":true}\n");

    } else if (strcmp(op, "set") == 0) {
        mock_str(b, r->status == 200 ? "{\"ok\":true}\n"
                                     : "{\"ok\":false}\n");

    } else if (strcmp(op, "last") == 0) {
        *type = "text/plain";
        mock_api_last(r, b, &mock.last_head, 0);

    } else if (strcmp(op, "last_body") == 0) {
        *type = "application/octet-stream";
        mock_api_last(r, b, &mock.last_body, mock.last_body_over);

    } else if (strcmp(op, "last_response_body") == 0) {
        *type = "application/octet-stream";
        mock_api_last(r, b, &mock.last_answer, mock.last_answer_over);

    } else {
        r->status = 404;
        mock_lit(b, "{\"ok\":false}\n");
    }
}
