
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What ngx_http_llm_health.c (when, and what follows) and
 * ngx_http_llm_health_check.c (how) have in common.
 */


#ifndef _NGX_HTTP_LLM_HEALTH_H_INCLUDED_
#define _NGX_HTTP_LLM_HEALTH_H_INCLUDED_


#define NGX_HTTP_LLM_HEALTH_ANSWER  10000      /* ms, to wait at most */
#define NGX_HTTP_LLM_HEALTH_LINE    (sizeof("HTTP/1.1 200 ") - 1)


/* a worker's, of one provider with "health" */

typedef struct {
    ngx_http_llm_provider_t  *provider;
    ngx_connection_t         *connection;      /* NULL: none is open */
    ngx_pool_t               *pool;            /* of the connection */

    ngx_socket_t              fd;              /* where ngx_event_ident()
                                                  expects that of an event's
                                                  data; -1 */
    ngx_event_t               timer;
    ngx_log_t                 log;             /* failures are no news */

    ngx_uint_t                generation;
    ngx_atomic_uint_t         word;            /* ours, while we check */
    ngx_msec_t                started;
    ngx_uint_t                first;           /* address, in turn */
    ngx_uint_t                tries;

    ngx_sockaddr_t            sockaddr;        /* copies: addresses change */
    ngx_str_t                 name;
    u_char                    text[NGX_SOCKADDR_STRLEN];

    u_char                   *pos;             /* request not yet sent */
    u_char                   *last;
    u_char                    line[NGX_HTTP_LLM_HEALTH_LINE];
    size_t                    len;             /* of the line so far */

    unsigned                  running:1;
    unsigned                  connected:1;
    unsigned                  secured:1;       /* or needs no TLS */
} ngx_http_llm_health_t;


/*
 * Ends the try that is in the air, if any, and begins that of the next
 * address; if there is none, the check has failed because of why and err.
 */
void ngx_http_llm_health_next(ngx_http_llm_health_t *h, const char *why,
    ngx_err_t err);
void ngx_http_llm_health_close(ngx_http_llm_health_t *h);

/* NGX_DECLINED: the check has become another worker's */
ngx_int_t ngx_http_llm_health_renew(ngx_http_llm_health_t *h);
void ngx_http_llm_health_arm(ngx_http_llm_health_t *h, ngx_msec_t ms);
void ngx_http_llm_health_result(ngx_http_llm_health_t *h, const char *why,
    ngx_err_t err);
void ngx_http_llm_health_end(ngx_http_llm_health_t *h);
void ngx_http_llm_health_abort(ngx_http_llm_health_t *h);


#endif /* _NGX_HTTP_LLM_HEALTH_H_INCLUDED_ */
