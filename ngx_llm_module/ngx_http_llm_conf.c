
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The setters that are more than a slot, but for the provider block.  They
 * only take down what was written; what it means as a whole is found out at
 * merging.
 */


#include "ngx_http_llm_module.h"


static char *ngx_http_llm_targets(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, ngx_str_t *value, ngx_uint_t n);
static char *ngx_http_llm_target(ngx_conf_t *cf, ngx_http_llm_target_t *t,
    ngx_str_t *value);
static char *ngx_http_llm_balance_set(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, ngx_str_t *value, ngx_uint_t n);
static char *ngx_http_llm_weights(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, ngx_str_t *value);


static char  *ngx_http_llm_timeout_names[] = {
    "connect=", "first_token=", "idle=", "plain=", "total="
};


/* does a parameter "name=..." of this name stand before value[i]? */

ngx_uint_t
ngx_http_llm_repeated(ngx_str_t *value, ngx_uint_t i)
{
    u_char      *p;
    size_t       len;
    ngx_uint_t   k;

    p = (u_char *) ngx_strchr(value[i].data, '=');

    if (p == NULL) {
        return 0;
    }

    len = p + 1 - value[i].data;

    for (k = 1; k < i; k++) {
        if (ngx_strncmp(value[k].data, value[i].data, len) == 0) {
            return 1;
        }
    }

    return 0;
}


/* one "name=time" of a timeout directive */

ngx_int_t
ngx_http_llm_parse_timeout(ngx_conf_t *cf, ngx_str_t *arg, ngx_msec_t *timeout)
{
    size_t      len;
    ngx_str_t   s;
    ngx_int_t   ms;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_LLM_T_MAX; i++) {

        len = ngx_strlen(ngx_http_llm_timeout_names[i]);

        if (arg->len <= len
            || ngx_strncmp(arg->data, ngx_http_llm_timeout_names[i], len) != 0)
        {
            continue;
        }

        s.data = arg->data + len;
        s.len = arg->len - len;

        ms = ngx_parse_time(&s, 0);

        if (ms == NGX_ERROR || ms == 0) {
            break;
        }

        timeout[i] = ms;

        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid timeout \"%V\"", arg);

    return NGX_ERROR;
}


char *
ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_str_t             *value, pattern;
    ngx_uint_t             i, n, prefix;
    ngx_http_llm_route_t  *route;

    value = cf->args->elts;

    pattern = value[1];
    prefix = 0;

    if (pattern.len && pattern.data[pattern.len - 1] == '*') {
        pattern.len--;
        prefix = 1;
    }

    if ((pattern.len == 0 && !prefix)
        || ngx_strlchr(pattern.data, pattern.data + pattern.len, '*'))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid model pattern \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    route = lmcf->routes.elts;

    for (i = 0; i < lmcf->routes.nelts; i++) {
        if (route[i].prefix == prefix
            && route[i].pattern.len == pattern.len
            && ngx_strncmp(route[i].pattern.data, pattern.data, pattern.len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate model pattern \"%V\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    route = ngx_array_push(&lmcf->routes);
    if (route == NULL) {
        return NGX_CONF_ERROR;
    }

    route->pattern = pattern;
    route->prefix = prefix;
    route->file = cf->conf_file->file.name.data;
    route->line = cf->conf_file->line;

    ngx_memzero(&route->targets, sizeof(ngx_http_llm_targets_t));

    route->targets.name.data = value[1].data;
    route->targets.name.len = value[1].len;

    for (n = 2; n < cf->args->nelts; n++) {
        if (ngx_strncmp(value[n].data, "balance=", 8) == 0
            || ngx_strncmp(value[n].data, "weights=", 8) == 0)
        {
            break;
        }
    }

    if (n == 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no target of model pattern \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_targets(cf, &route->targets, &value[2], n - 2)
        != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_balance_set(cf, &route->targets, &value[n],
                                    cf->args->nelts - n);
}


static char *
ngx_http_llm_targets(ngx_conf_t *cf, ngx_http_llm_targets_t *targets,
    ngx_str_t *value, ngx_uint_t n)
{
    ngx_uint_t              i, k;
    ngx_http_llm_target_t  *t;

    if (n > NGX_HTTP_LLM_TARGETS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "more than %d targets", NGX_HTTP_LLM_TARGETS_MAX);
        return NGX_CONF_ERROR;
    }

    t = ngx_pcalloc(cf->pool, n * sizeof(ngx_http_llm_target_t));
    if (t == NULL) {
        return NGX_CONF_ERROR;
    }

    targets->target = t;
    targets->n = n;

    for (i = 0; i < n; i++) {

        if (ngx_http_llm_target(cf, &t[i], &value[i]) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }

        for (k = 0; k < i; k++) {
            if (t[k].text.len == t[i].text.len
                && ngx_strncmp(t[k].text.data, t[i].text.data, t[i].text.len)
                   == 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "duplicate target \"%V\"", &value[i]);
                return NGX_CONF_ERROR;
            }
        }
    }

    return NGX_CONF_OK;
}


/* provider, or provider:model */

static char *
ngx_http_llm_target(ngx_conf_t *cf, ngx_http_llm_target_t *t,
    ngx_str_t *value)
{
    u_char  *colon, *last;

    t->text = *value;
    t->weight = 1;

    last = t->text.data + t->text.len;
    colon = ngx_strlchr(t->text.data, last, ':');

    if (t->text.len == 0 || colon == t->text.data || colon == last - 1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid target \"%V\"", value);
        return NGX_CONF_ERROR;
    }

    if (colon) {
        t->model.data = colon + 1;
        t->model.len = last - colon - 1;
    }

    return NGX_CONF_OK;
}


/* "balance=" and "weights=", behind the targets */

static char *
ngx_http_llm_balance_set(ngx_conf_t *cf, ngx_http_llm_targets_t *targets,
    ngx_str_t *value, ngx_uint_t n)
{
    ngx_str_t   s, *weights, *balance;
    ngx_uint_t  i, k;

    static ngx_str_t  names[] = {
        ngx_string("order"),
        ngx_string("weight"),
        ngx_string("latency"),
        ngx_string("cost"),
        ngx_string("hash")
    };

    weights = NULL;
    balance = NULL;

    for (i = 0; i < n; i++) {

        if (ngx_strncmp(value[i].data, "weights=", 8) == 0
            && weights == NULL)
        {
            weights = &value[i];
            continue;
        }

        if (ngx_strncmp(value[i].data, "balance=", 8) != 0 || balance) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        balance = &value[i];
        s.data = value[i].data + 8;
        s.len = value[i].len - 8;

        for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
            if (s.len == names[k].len
                && ngx_strncmp(s.data, names[k].data, s.len) == 0)
            {
                break;
            }
        }

        if (k == sizeof(names) / sizeof(names[0])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown balance \"%V\", it must be \"order\","
                               " \"weight\", \"latency\", \"cost\" or "
                               "\"hash\"", &s);
            return NGX_CONF_ERROR;
        }

        targets->balance = k;
    }

    if (weights == NULL) {
        return NGX_CONF_OK;
    }

    if (balance && targets->balance != NGX_HTTP_LLM_BALANCE_WEIGHT) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" contradicts \"%V\"", weights, balance);
        return NGX_CONF_ERROR;
    }

    targets->balance = NGX_HTTP_LLM_BALANCE_WEIGHT;

    return ngx_http_llm_weights(cf, targets, weights);
}


static char *
ngx_http_llm_weights(ngx_conf_t *cf, ngx_http_llm_targets_t *targets,
    ngx_str_t *value)
{
    u_char     *p, *last, *comma;
    ngx_int_t   w;
    ngx_uint_t  n;

    p = value->data + 8;
    last = value->data + value->len;

    for (n = 0; /* void */; n++) {

        comma = ngx_strlchr(p, last, ',');

        if (comma == NULL) {
            comma = last;
        }

        w = ngx_atoi(p, comma - p);

        if (w == NGX_ERROR || w == 0 || w > 1000) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid weight in \"%V\"", value);
            return NGX_CONF_ERROR;
        }

        if (n < targets->n) {
            targets->target[n].weight = w;
        }

        if (comma == last) {
            break;
        }

        p = comma + 1;
    }

    if (n + 1 != targets->n) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%ui weights for %ui targets in \"%V\"",
                           n + 1, targets->n, value);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_llm_adapter(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *lmcf;

    if (llcf->adapter != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);
    lmcf->used = 1;

    llcf->own = 1;
    llcf->file = cf->conf_file->file.name.data;
    llcf->line = cf->conf_file->line;

    if (ngx_strcmp(value[1].data, "on") == 0) {

        llcf->adapter = NGX_HTTP_LLM_ON;

        if (cf->args->nelts > 2) {

            if (cf->args->nelts > 3
                || ngx_strcmp(value[2].data, "direct") != 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid parameter \"%V\"", &value[2]);
                return NGX_CONF_ERROR;
            }

            llcf->adapter = NGX_HTTP_LLM_DIRECT;
        }

    } else {

        llcf->adapter = NGX_HTTP_LLM_TARGETS;

        llcf->targets = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_targets_t));
        if (llcf->targets == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_str_set(&llcf->targets->name, "llm_adapter");

        if (ngx_http_llm_targets(cf, llcf->targets, &value[1],
                                 cf->args->nelts - 1)
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler && clcf->handler != ngx_http_llm_handler) {
        return "is in a location that another directive handles";
    }

    clcf->handler = ngx_http_llm_handler;

    llcf->prefix = clcf->name;

    if (clcf->exact_match || clcf->named
#if (NGX_PCRE)
        || clcf->regex
#endif
       )
    {
        ngx_str_null(&llcf->prefix);
    }

    return NGX_CONF_OK;
}


char *
ngx_http_llm_passthrough_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t  *value;

    if (llcf->passthrough_name.data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0
        || ngx_strlchr(value[1].data, value[1].data + value[1].len, ':'))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid provider \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    llcf->passthrough_name = value[1];
    llcf->passthrough_file = cf->conf_file->file.name.data;
    llcf->passthrough_line = cf->conf_file->line;

    return NGX_CONF_OK;
}


char *
ngx_http_llm_timeout(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_str_t   *value;
    ngx_uint_t   i;

    if (llcf->timeout_set) {
        return "is duplicate";
    }

    llcf->timeout_set = 1;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_http_llm_parse_timeout(cf, &value[i], llcf->timeout)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


char *
ngx_http_llm_ping(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    ngx_int_t   ms;
    ngx_str_t  *value, s;

    if (llcf->ping != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {

        if (cf->args->nelts > 2) {
            goto invalid;
        }

        llcf->ping = 0;
        llcf->ping_head = 0;

        return NGX_CONF_OK;
    }

    ms = ngx_parse_time(&value[1], 0);

    if (ms == NGX_ERROR || ms == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid time \"%V\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    llcf->ping = ms;
    llcf->ping_head = 0;

    if (cf->args->nelts == 3) {

        if (ngx_strncmp(value[2].data, "head=", 5) != 0) {
            goto invalid;
        }

        s.data = value[2].data + 5;
        s.len = value[2].len - 5;

        if (!(s.len == 3 && ngx_strncmp(s.data, "off", 3) == 0)) {
            ms = ngx_parse_time(&s, 0);

            if (ms == NGX_ERROR || ms == 0) {
                goto invalid;
            }

            llcf->ping_head = ms;
        }
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       &value[2]);

    return NGX_CONF_ERROR;
}


char *
ngx_http_llm_retry_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_loc_conf_t *llcf = conf;

    u_char      *dots;
    ngx_int_t    n, max;
    ngx_str_t   *value, s;
    ngx_uint_t   i;

    if (llcf->attempts != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    /* what is not said has its default, whatever the level above says */

    llcf->attempts = 3;
    llcf->backoff_min = 200;
    llcf->backoff_max = 5000;
    llcf->budget = 20;
    llcf->resume = 0;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_llm_repeated(value, i)) {
            goto invalid;
        }

        if (ngx_strncmp(value[i].data, "attempts=", 9) == 0) {

            n = ngx_atoi(value[i].data + 9, value[i].len - 9);

            if (n == NGX_ERROR || n == 0 || n > NGX_HTTP_LLM_ATTEMPTS_MAX) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid \"%V\", it must be from 1 to %d",
                                   &value[i], NGX_HTTP_LLM_ATTEMPTS_MAX);
                return NGX_CONF_ERROR;
            }

            llcf->attempts = n;
            continue;
        }

        if (ngx_strncmp(value[i].data, "backoff=", 8) == 0) {

            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            dots = ngx_strnstr(s.data, "..", s.len);

            if (dots == NULL) {
                goto invalid;
            }

            max = s.len - (dots + 2 - s.data);
            s.len = dots - s.data;

            n = ngx_parse_time(&s, 0);

            s.data = dots + 2;
            s.len = max;

            max = ngx_parse_time(&s, 0);

            if (n == NGX_ERROR || n == 0 || max == NGX_ERROR || max < n) {
                goto invalid;
            }

            llcf->backoff_min = n;
            llcf->backoff_max = max;
            continue;
        }

        if (ngx_strcmp(value[i].data, "resume=on") == 0) {
            llcf->resume = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "resume=off") == 0) {
            continue;
        }

        if (ngx_strncmp(value[i].data, "budget=", 7) == 0) {

            if (value[i].data[value[i].len - 1] != '%') {
                goto invalid;
            }

            n = ngx_atoi(value[i].data + 7, value[i].len - 8);

            if (n == NGX_ERROR || n > 1000) {
                goto invalid;
            }

            llcf->budget = n;
            continue;
        }

        goto invalid;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       &value[i]);

    return NGX_CONF_ERROR;
}
