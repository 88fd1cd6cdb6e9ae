
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Every difference between the nginx versions that this module builds on
 * (1.22.1 and newer).  No other file looks at nginx_version.
 */


#ifndef _NGX_HTTP_LLM_COMPAT_H_INCLUDED_
#define _NGX_HTTP_LLM_COMPAT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* words shared by the workers hold 64 bits */

#if (NGX_PTR_SIZE < 8)
#error "this module needs a platform of 64 bits"
#endif


/* 1.23.0: header elements of one name are linked */

#if (nginx_version >= 1023000)
#define ngx_http_llm_header_single(h)  (h)->next = NULL
#else
#define ngx_http_llm_header_single(h)
#endif


/* 1.27.2: trailers can be kept */

#if (nginx_version >= 1027002)
#define ngx_http_llm_parse_chunked(r, b, ctx)                                 \
    ngx_http_parse_chunked(r, b, ctx, 0)
#else
#define ngx_http_llm_parse_chunked(r, b, ctx)                                 \
    ngx_http_parse_chunked(r, b, ctx)
#endif


/*
 * Does an upstream { } keep connections?  Its keepalive module's configuration
 * begins with the number of them, and is 0 without the directive.  Since
 * 1.29.7 they are kept by default.
 */

static ngx_inline ngx_uint_t
ngx_http_llm_upstream_keepalive(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
#if (nginx_version < 1029007)
    ngx_uint_t  i, *max_cached;

    for (i = 0; cf->cycle->modules[i]; i++) {

        if (ngx_strcmp(cf->cycle->modules[i]->name,
                       "ngx_http_upstream_keepalive_module")
            == 0)
        {
            max_cached = uscf->srv_conf[cf->cycle->modules[i]->ctx_index];
            return max_cached && *max_cached;
        }
    }

    return 0;
#else
    return 1;
#endif
}


/* a client connection that carries many requests: it tells of a client that
 * has gone by c->error alone */

#if (NGX_HTTP_V3)
#define ngx_http_llm_quic(r)  ((r)->connection->quic != NULL)
#else
#define ngx_http_llm_quic(r)  0
#endif

#if (NGX_HTTP_V2)
#define ngx_http_llm_multiplexed(r)                                           \
    ((r)->stream != NULL || ngx_http_llm_quic(r))
#else
#define ngx_http_llm_multiplexed(r)  ngx_http_llm_quic(r)
#endif


#endif /* _NGX_HTTP_LLM_COMPAT_H_INCLUDED_ */
