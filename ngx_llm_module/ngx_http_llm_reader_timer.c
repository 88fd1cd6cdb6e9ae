
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A reader's own timers: a ping for a client that waits, an end for one that
 * takes nothing, and the aggregation of small pieces.  None of them stands on
 * c->read or c->write, where ngx_http_upstream arms and deletes timers for the
 * attempts of the same connection.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_reader_ping(ngx_http_llm_ctx_t *ctx);


/* after every turn: watch a client that takes nothing, ping one that waits */

ngx_int_t
ngx_http_llm_reader_timers(ngx_http_llm_ctx_t *ctx)
{
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_llm_reader_t     *rd;
    ngx_http_llm_loc_conf_t   *llcf;
    ngx_http_core_loc_conf_t  *clcf;

    r = ctx->request;
    c = r->connection;
    rd = &ctx->reader;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (rd->busy || c->buffered) {

        if (rd->stall.timer_set && c->sent != rd->sent) {
            ngx_del_timer(&rd->stall);
        }

        if (!rd->stall.timer_set) {
            rd->sent = c->sent;
            ngx_add_timer(&rd->stall, clcf->send_timeout);
        }

    } else if (rd->stall.timer_set) {
        ngx_del_timer(&rd->stall);
    }

    if (ngx_handle_write_event(c->write, clcf->send_lowat) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->flight->stream && llcf->ping && rd->head_sent
        && !rd->last_sent && !rd->ping.timer_set)
    {
        ngx_add_timer(&rd->ping, llcf->ping);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_reader_ping(ngx_http_llm_ctx_t *ctx)
{
    llm_str_t               text;
    ngx_chain_t            *out, **ll;
    llm_answer_t            silent, *answer;
    ngx_http_llm_reader_t  *rd;

    rd = &ctx->reader;
    answer = &ctx->flight->answer;

    if (rd->head_only || !ctx->flight->released) {

        /* what the provider said was not shown yet */

        ngx_memzero(&silent, sizeof(llm_answer_t));
        silent.dialect = rd->dialect;
        silent.endpoint = ctx->endpoint;
        answer = &silent;
    }

    rd->dialect->ping(answer, &text);

    if (ctx->flight->ids && *text.data == ':') {

        /*
         * Some clients take any blank line for the end of an event once they
         * have seen an id, and fail to parse the data that is not there.
         */

        text.len--;
    }

    out = NULL;
    ll = &out;

    if (ngx_http_llm_reader_text(ctx, &ll, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    out->buf->flush = 1;

    return ngx_http_llm_reader_output(ctx, out);
}


void
ngx_http_llm_reader_ping_handler(ngx_event_t *ev)
{
    ngx_int_t                 rc;
    ngx_msec_t                quiet;
    ngx_connection_t         *c;
    ngx_http_request_t       *r;
    ngx_http_llm_ctx_t       *ctx;
    ngx_http_llm_reader_t    *rd;
    ngx_http_llm_loc_conf_t  *llcf;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    rd = &ctx->reader;

    ngx_http_set_log_request(c->log, r);

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_llm_module);

    if (rd->last_sent || ctx->flight->ended) {
        return;
    }

    if (!rd->head_sent) {

        /* commits the 200 */

        rd->committed = 1;
        rd->head_only = 1;

        rc = ngx_http_llm_reader_head(ctx);

        if (rc != NGX_OK) {
            ngx_http_llm_reader_finalize(ctx, rc == NGX_DONE ? NGX_OK : rc);
            goto done;
        }

    } else {
        quiet = ngx_current_msec - rd->shown;

        if (quiet < llcf->ping || rd->busy || c->buffered) {
            ngx_add_timer(ev, quiet < llcf->ping ? llcf->ping - quiet
                                                 : llcf->ping);
            return;
        }
    }

    if (ngx_http_llm_reader_ping(ctx) != NGX_OK
        || ngx_http_llm_reader_timers(ctx) != NGX_OK)
    {

        if (c->error) {
            ngx_http_llm_reader_gone(ctx);

        } else {
            ngx_http_llm_reader_finalize(ctx, NGX_ERROR);
        }

        goto done;
    }

    if (!ev->timer_set) {
        ngx_add_timer(ev, llcf->ping);
    }

done:

    ngx_http_run_posted_requests(c);
}


/* the client took no byte for send_timeout */

void
ngx_http_llm_reader_stall_handler(ngx_event_t *ev)
{
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_llm_ctx_t        *ctx;
    ngx_http_llm_reader_t     *rd;
    ngx_http_core_loc_conf_t  *clcf;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    rd = &ctx->reader;

    ngx_http_set_log_request(c->log, r);

    if (c->sent != rd->sent) {
        clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

        rd->sent = c->sent;
        ngx_add_timer(ev, clcf->send_timeout);
        return;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");

    c->timedout = 1;
    ctx->error = "client_timeout";

    ngx_http_llm_reader_finalize(ctx, NGX_HTTP_REQUEST_TIME_OUT);

    ngx_http_run_posted_requests(c);
}


void
ngx_http_llm_reader_flush_handler(ngx_event_t *ev)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;
    ngx_http_llm_ctx_t  *ctx;

    c = ev->data;
    r = c->data;

    ctx = ngx_http_get_module_ctx(r, ngx_http_llm_module);

    if (ctx == NULL) {
        return;
    }

    ngx_http_set_log_request(c->log, r);

    ctx->reader.flushing = 0;

    ngx_http_llm_reader_client(r);

    ngx_http_run_posted_requests(c);
}
