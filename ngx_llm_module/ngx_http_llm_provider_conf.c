
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The llm_adapter_provider block: takes down what its members say.  What they
 * mean as a whole is found out in ngx_http_llm_provider.c.
 */


#include "ngx_http_llm_module.h"


static char *ngx_http_llm_provider_member(ngx_conf_t *cf,
    ngx_command_t *dummy, void *conf);
static ngx_int_t ngx_http_llm_provider_once(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *name);
static char *ngx_http_llm_provider_endpoint(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *value);
static char *ngx_http_llm_provider_key(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *value);
static char *ngx_http_llm_provider_header(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *value);
static char *ngx_http_llm_provider_model(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *value, ngx_uint_t n);
static char *ngx_http_llm_provider_tls(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *value, ngx_uint_t n);
static char *ngx_http_llm_provider_breaker(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *value, ngx_uint_t n);
static ngx_int_t ngx_http_llm_tokens(ngx_str_t *s, uint64_t *n);
static ngx_int_t ngx_http_llm_usd(ngx_str_t *s, uint64_t *price);


char *
ngx_http_llm_provider_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    char                     *rv;
    u_char                   *c;
    ngx_str_t                *value;
    ngx_conf_t                save;
    ngx_http_llm_provider_t  *p;

    value = cf->args->elts;

    for (c = value[1].data; c < value[1].data + value[1].len; c++) {
        if (*c == ':' || *c == '/' || *c == '*' || *c <= ' ' || *c > '~') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid provider name \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (value[1].len == 0
        || ngx_strcmp(value[1].data, "on") == 0
        || ngx_strcmp(value[1].data, "off") == 0
        || ngx_strcmp(value[1].data, "direct") == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid provider name \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_provider_find(lmcf, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate provider \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    p = ngx_http_llm_provider_create(cf, lmcf, &value[1]);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    save = *cf;
    cf->handler = ngx_http_llm_provider_member;
    cf->handler_conf = (void *) p;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    return rv;
}


static char *
ngx_http_llm_provider_member(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_http_llm_provider_t *p = conf;

    ngx_int_t         k;
    ngx_str_t        *value, dialect;
    ngx_uint_t        i, n;
    const llm_str_t  *name;

    value = cf->args->elts;
    n = cf->args->nelts;

    if (ngx_http_llm_provider_once(cf, p, &value[0]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "model") == 0 && n >= 2) {
        return ngx_http_llm_provider_model(cf, p, value, n);
    }

    if (ngx_strcmp(value[0].data, "tls") == 0 && n >= 2) {
        return ngx_http_llm_provider_tls(cf, p, value, n);
    }

    if (ngx_strcmp(value[0].data, "breaker") == 0 && n >= 2) {
        return ngx_http_llm_provider_breaker(cf, p, value, n);
    }

    if (ngx_strcmp(value[0].data, "health") == 0 && n >= 2) {
        return ngx_http_llm_provider_health(cf, p, value, n);
    }

    if (ngx_strcmp(value[0].data, "timeout") == 0 && n >= 2) {

        for (i = 1; i < n; i++) {
            if (ngx_http_llm_parse_timeout(cf, &value[i], p->timeout)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }
        }

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[0].data, "header") == 0 && n == 3) {
        return ngx_http_llm_provider_header(cf, p, value);
    }

    if (n != 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"%V\" in provider \"%V\"",
                           &value[0], &p->name);
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "endpoint") == 0) {
        return ngx_http_llm_provider_endpoint(cf, p, value);
    }

    if (ngx_strcmp(value[0].data, "key") == 0) {
        return ngx_http_llm_provider_key(cf, p, value);
    }

    if (ngx_strcmp(value[0].data, "account") == 0) {

        if (value[1].len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "empty \"account\" in provider \"%V\"",
                               &p->name);
            return NGX_CONF_ERROR;
        }

        p->account = value[1];

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[0].data, "dialect") == 0) {

        dialect = value[1];
        p->dialect = llm_dialect_get((llm_str_t *) &dialect);

        if (p->dialect == NULL) {
            for (i = 0; llm_dialects[i]; i++) {
                name = &llm_dialects[i]->name;

                ngx_conf_log_error(NGX_LOG_INFO, cf, 0,
                                   "known dialect \"%*s\"",
                                   name->len, name->data);
            }

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown dialect \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[0].data, "keepalive") == 0) {

        k = ngx_atoi(value[1].data, value[1].len);

        if (k == NGX_ERROR || k > 65535) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of connections \"%V\"",
                               &value[1]);
            return NGX_CONF_ERROR;
        }

        p->keepalive = k;
        p->keepalive_set = 1;

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[0].data, "stream_usage") == 0) {

        if (ngx_strcmp(value[1].data, "on") == 0) {
            p->stream_usage = 1;

        } else if (ngx_strcmp(value[1].data, "off") == 0) {
            p->stream_usage = 0;

        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\" in \"stream_usage\", "
                               "it must be \"on\" or \"off\"", &value[1]);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in provider \"%V\"",
                       &value[0], &p->name);

    return NGX_CONF_ERROR;
}


/* what may stand in a block only once */

static ngx_int_t
ngx_http_llm_provider_once(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *name)
{
    ngx_uint_t    i;
    static char  *once[] = { "endpoint", "dialect", "key", "keepalive",
                             "stream_usage", "tls", "breaker", "health",
                             "account", NULL };

    for (i = 0; once[i]; i++) {

        if (ngx_strcmp(name->data, once[i]) != 0) {
            continue;
        }

        if (p->seen & (1 << i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate \"%V\" in provider \"%V\"",
                               name, &p->name);
            return NGX_ERROR;
        }

        p->seen |= 1 << i;
    }

    return NGX_OK;
}


/* scheme://HOST[:port][/base]; what HOST is, is found out later */

static char *
ngx_http_llm_provider_endpoint(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value)
{
    u_char     *c, *last;
    ngx_str_t   s;

    s = value[1];
    last = s.data + s.len;

    if (s.len > 7 && ngx_strncasecmp(s.data, (u_char *) "http://", 7) == 0) {
        p->tls = 0;
        c = s.data + 7;

    } else if (s.len > 8
               && ngx_strncasecmp(s.data, (u_char *) "https://", 8) == 0)
    {
#if !(NGX_HTTP_SSL)
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "https endpoint needs nginx built with SSL");
        return NGX_CONF_ERROR;
#endif
        p->tls = 1;
        c = s.data + 8;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid endpoint \"%V\", it must begin with "
                           "\"http://\" or \"https://\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    p->endpoint = s;
    p->host.data = c;

    while (c < last && *c != '/') {

        if (*c <= ' ' || *c > '~' || *c == '@' || *c == '?' || *c == '#'
            || *c == '$')
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid host in endpoint \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }

        c++;
    }

    p->host.len = c - p->host.data;

    if (p->host.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no host in endpoint \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    while (last > c && last[-1] == '/') {
        last--;
    }

    p->base.data = c;
    p->base.len = last - c;

    for ( /* void */ ; c < last; c++) {
        if (*c <= ' ' || *c > '~' || *c == '?' || *c == '#') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid path in endpoint \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_provider_key(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value)
{
    ngx_uint_t  literal;

    p->key.len = 0;

    if (ngx_strcmp(value[1].data, "client") == 0) {
        p->key_source = NGX_HTTP_LLM_KEY_CLIENT;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "none") == 0) {
        p->key_source = NGX_HTTP_LLM_KEY_NONE;
        return NGX_CONF_OK;
    }

    p->key_source = NGX_HTTP_LLM_KEY_OURS;

    if (value[1].len == 0
        || ngx_strcmp(value[1].data, "env:") == 0
        || ngx_strcmp(value[1].data, "file:") == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid key in provider \"%V\"", &p->name);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_secret(cf, &value[1], &p->key, &literal) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (literal) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the key of provider \"%V\" stands in the "
                           "configuration itself, \"env:NAME\" or "
                           "\"file:PATH\" would keep it out", &p->name);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_provider_header(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value)
{
    u_char                 *c;
    ngx_uint_t              literal;
    ngx_http_llm_header_t  *h;

    static char  *framing[] = { "host", "connection", "content-length",
                                "transfer-encoding", "accept-encoding", NULL };
    char        **name;

    for (c = value[1].data; c < value[1].data + value[1].len; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z')
              || (*c >= '0' && *c <= '9') || *c == '-' || *c == '_'))
        {
            break;
        }
    }

    if (value[1].len == 0 || c != value[1].data + value[1].len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid header name \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    for (name = framing; *name; name++) {
        if (ngx_strcasecmp(value[1].data, (u_char *) *name) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "header \"%V\" can not be set", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (p->headers == NULL) {
        p->headers = ngx_array_create(cf->pool, 4,
                                      sizeof(ngx_http_llm_header_t));
        if (p->headers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    h = ngx_array_push(p->headers);
    if (h == NULL) {
        return NGX_CONF_ERROR;
    }

    h->key = value[1];
    h->lowcase.len = value[1].len;
    h->lowcase.data = ngx_pnalloc(cf->pool, value[1].len);
    if (h->lowcase.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_strlow(h->lowcase.data, value[1].data, value[1].len);

    if (value[2].len == 0) {
        ngx_str_null(&h->value);
        return NGX_CONF_OK;
    }

    if (ngx_http_llm_secret(cf, &value[2], &h->value, &literal) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (c = h->value.data; c < h->value.data + h->value.len; c++) {
        if (*c < ' ' || *c == 0x7f) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "control character in the value of header "
                               "\"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_llm_provider_model(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value, ngx_uint_t n)
{
    ngx_str_t              s;
    ngx_uint_t             i, k;
    ngx_http_llm_price_t  *m;

    static ngx_str_t  prices[] = {
        ngx_string("input="),
        ngx_string("cached_input="),
        ngx_string("cache_write="),
        ngx_string("output=")
    };

    m = p->models.elts;

    for (i = 0; i < p->models.nelts; i++) {
        if (m[i].name.len == value[1].len
            && ngx_strncmp(m[i].name.data, value[1].data, value[1].len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate model \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    m = ngx_array_push(&p->models);
    if (m == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(m, sizeof(ngx_http_llm_price_t));
    m->name = value[1];

    for (i = 2; i < n; i++) {

        if (ngx_strncmp(value[i].data, "context=", 8) == 0) {
            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            if (ngx_http_llm_tokens(&s, &m->context) != NGX_OK) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "max_output=", 11) == 0) {
            s.data = value[i].data + 11;
            s.len = value[i].len - 11;

            if (ngx_http_llm_tokens(&s, &m->max_output) != NGX_OK) {
                goto invalid;
            }

            continue;
        }

        for (k = 0; k < NGX_HTTP_LLM_PRICES; k++) {
            if (ngx_strncmp(value[i].data, prices[k].data, prices[k].len)
                == 0)
            {
                break;
            }
        }

        if (k == NGX_HTTP_LLM_PRICES) {
            goto invalid;
        }

        s.data = value[i].data + prices[k].len;
        s.len = value[i].len - prices[k].len;

        if (s.len == 0) {

            /* "cache_write=": not known */

            continue;
        }

        if (ngx_http_llm_usd(&s, &m->price[k]) != NGX_OK) {
            goto invalid;
        }

        m->priced |= 1 << k;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of model \"%V\"",
                       &value[i], &value[1]);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_llm_provider_breaker(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value, ngx_uint_t n)
{
    ngx_int_t   k;
    ngx_str_t   s;
    ngx_uint_t  i;

    if (n == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        p->breaker_failures = 0;
        return NGX_CONF_OK;
    }

    for (i = 1; i < n; i++) {

        if (ngx_http_llm_repeated(value, i)) {
            goto invalid;
        }

        if (ngx_strncmp(value[i].data, "failures=", 9) == 0) {

            k = ngx_atoi(value[i].data + 9, value[i].len - 9);

            if (k == NGX_ERROR || k == 0 || k > 100000) {
                goto invalid;
            }

            p->breaker_failures = k;
            continue;
        }

        if (ngx_strncmp(value[i].data, "window=", 7) == 0) {
            s.data = value[i].data + 7;
            s.len = value[i].len - 7;

        } else if (ngx_strncmp(value[i].data, "open=", 5) == 0) {
            s.data = value[i].data + 5;
            s.len = value[i].len - 5;

        } else {
            goto invalid;
        }

        k = ngx_parse_time(&s, 0);

        if (k == NGX_ERROR || k == 0 || k > 86400000) {
            goto invalid;
        }

        if (value[i].data[0] == 'w') {
            p->breaker_window = k;

        } else {
            p->breaker_open = k;
        }
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid \"breaker\" parameter \"%V\"", &value[i]);

    return NGX_CONF_ERROR;
}


/* tokens: k is a thousand, m a million */

static ngx_int_t
ngx_http_llm_tokens(ngx_str_t *s, uint64_t *n)
{
    size_t     len;
    uint64_t   unit;
    ngx_int_t  k;

    len = s->len;
    unit = 1;

    if (len && (s->data[len - 1] == 'k' || s->data[len - 1] == 'K')) {
        unit = 1000;
        len--;

    } else if (len && (s->data[len - 1] == 'm' || s->data[len - 1] == 'M')) {
        unit = 1000000;
        len--;
    }

    if (len > 9) {
        return NGX_ERROR;
    }

    k = ngx_atoi(s->data, len);

    if (k == NGX_ERROR || k == 0) {
        return NGX_ERROR;
    }

    *n = (uint64_t) k * unit;

    return NGX_OK;
}


/* USD per million tokens, up to six decimals */

static ngx_int_t
ngx_http_llm_usd(ngx_str_t *s, uint64_t *price)
{
    ngx_int_t  n;

    if (s->len > 13) {
        return NGX_ERROR;
    }

    n = ngx_atofp(s->data, s->len, 6);

    if (n == NGX_ERROR) {
        return NGX_ERROR;
    }

    *price = n;

    return NGX_OK;
}


static char *
ngx_http_llm_provider_tls(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value, ngx_uint_t n)
{
#if (NGX_HTTP_SSL)
    ngx_uint_t  i;

    for (i = 1; i < n; i++) {

        if (ngx_strcmp(value[i].data, "verify=on") == 0) {
            p->tls_verify = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "verify=off") == 0) {
            p->tls_verify = 0;
            continue;
        }

        if (ngx_strncmp(value[i].data, "ca=", 3) == 0 && value[i].len > 3) {
            p->tls_ca.data = value[i].data + 3;
            p->tls_ca.len = value[i].len - 3;
            continue;
        }

        if (ngx_strncmp(value[i].data, "name=", 5) == 0 && value[i].len > 5) {
            p->tls_name.data = value[i].data + 5;
            p->tls_name.len = value[i].len - 5;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"tls\" parameter \"%V\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    p->tls_set = 1;

    return NGX_CONF_OK;

#else

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"tls\" needs nginx built with SSL");
    return NGX_CONF_ERROR;

#endif
}
