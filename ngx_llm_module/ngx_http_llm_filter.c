
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * An attempt must never put out anything: a subrequest that is not the
 * connection's active one would have its output queued by the postpone filter
 * and never end.  So whatever ngx_http_upstream sends for it (a head, empty
 * flush and last buffers) ends here.
 */


#include "ngx_http_llm_module.h"


static ngx_http_output_header_filter_pt  ngx_http_llm_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_llm_next_body_filter;


static ngx_int_t
ngx_http_llm_header_filter(ngx_http_request_t *r)
{
    if (r == r->main || ngx_http_get_module_ctx(r, ngx_http_llm_module) == NULL)
    {
        return ngx_http_llm_next_header_filter(r);
    }

    r->header_sent = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    if (r == r->main || ngx_http_get_module_ctx(r, ngx_http_llm_module) == NULL)
    {
        return ngx_http_llm_next_body_filter(r, in);
    }

    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_llm_filter_init(ngx_conf_t *cf)
{
    ngx_http_llm_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_llm_header_filter;

    ngx_http_llm_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_llm_body_filter;

    return NGX_OK;
}
