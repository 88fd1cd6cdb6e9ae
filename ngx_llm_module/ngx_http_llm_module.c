
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The module: its directives, its configuration's life, its hooks.
 */


#include "ngx_http_llm_module.h"


static ngx_int_t ngx_http_llm_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_llm_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_llm_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_llm_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_llm_merge_adapter(ngx_conf_t *cf,
    ngx_http_llm_loc_conf_t *prev, ngx_http_llm_loc_conf_t *conf);
static char *ngx_http_llm_merge_passthrough(ngx_conf_t *cf,
    ngx_http_llm_loc_conf_t *conf);
static ngx_int_t ngx_http_llm_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_llm_init_process(ngx_cycle_t *cycle);
static void ngx_http_llm_exit_process(ngx_cycle_t *cycle);


static ngx_conf_enum_t  ngx_http_llm_client_aborts[] = {
    { ngx_string("cancel"), NGX_HTTP_LLM_CANCEL },
    { ngx_string("drain"), NGX_HTTP_LLM_DRAIN },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_llm_commands[] = {

    { ngx_string("llm_adapter_provider"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_llm_provider_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_model"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_llm_model,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_zone_set,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF|NGX_CONF_1MORE,
      ngx_http_llm_adapter,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_passthrough"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_llm_passthrough_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_llm_timeout,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_retry"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_llm_retry_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_client_abort"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, client_abort),
      &ngx_http_llm_client_aborts },

    { ngx_string("llm_adapter_ping"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_ping,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_flush"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, flush),
      NULL },

    { ngx_string("llm_adapter_intercept_errors"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, intercept_errors),
      NULL },

    { ngx_string("llm_adapter_cache_path"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_llm_cache_path_set,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_cache"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_llm_cache_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_coalesce"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, coalesce),
      NULL },

    { ngx_string("llm_adapter_max_response"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, max_response),
      NULL },

    { ngx_string("llm_adapter_cache_bypass"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, cache_bypass),
      NULL },

    { ngx_string("llm_adapter_no_cache"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, no_cache),
      NULL },

    { ngx_string("llm_adapter_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_llm_status_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("llm_adapter_headers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_llm_loc_conf_t, headers),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_llm_module_ctx = {
    ngx_http_llm_preconfiguration,         /* preconfiguration */
    ngx_http_llm_postconfiguration,        /* postconfiguration */

    ngx_http_llm_create_main_conf,         /* create main configuration */
    ngx_http_llm_init_main_conf,           /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_llm_create_loc_conf,          /* create location configuration */
    ngx_http_llm_merge_loc_conf            /* merge location configuration */
};


ngx_module_t  ngx_http_llm_module = {
    NGX_MODULE_V1,
    &ngx_http_llm_module_ctx,              /* module context */
    ngx_http_llm_commands,                 /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_llm_init_module,              /* init module */
    ngx_http_llm_init_process,             /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_llm_exit_process,             /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_llm_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_llm_add_variables(cf);
}


static ngx_int_t
ngx_http_llm_postconfiguration(ngx_conf_t *cf)
{
    /* the swallowing filter is the last to be added, and so the first to see
     * what an attempt puts out */

    if (ngx_http_llm_cache_postconf(cf) != NGX_OK
        || ngx_http_llm_check_loops(cf) != NGX_OK
        || ngx_http_llm_error_filter_init(cf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_filter_init(cf);
}


static void *
ngx_http_llm_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&lmcf->providers, cf->pool, 4,
                       sizeof(ngx_http_llm_provider_t *))
        != NGX_OK
        || ngx_array_init(&lmcf->routes, cf->pool, 8,
                          sizeof(ngx_http_llm_route_t))
           != NGX_OK
        || ngx_array_init(&lmcf->sets, cf->pool, 8,
                          sizeof(ngx_http_llm_targets_t *))
           != NGX_OK
        || ngx_array_init(&lmcf->adapters, cf->pool, 8,
                          sizeof(ngx_http_llm_place_t))
           != NGX_OK)
    {
        return NULL;
    }

    return lmcf;
}


static char *
ngx_http_llm_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    ngx_str_t                  name;
    ngx_uint_t                 i, n;
    ngx_http_llm_route_t      *route;
    ngx_http_llm_provider_t  **p;

    lmcf->started = ngx_time();

    ngx_str_set(&name, "request_id");

    lmcf->request_id = ngx_http_get_variable_index(cf, &name);
    if (lmcf->request_id == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    ngx_http_llm_resolve_main_conf(cf, lmcf);

    n = lmcf->providers.nelts;

    for (i = 0; i < n; i++) {
        p = lmcf->providers.elts;

        if (ngx_http_llm_provider_ready(cf, p[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    route = lmcf->routes.elts;

    for (i = 0; i < lmcf->routes.nelts; i++) {
        if (ngx_http_llm_targets_ready(cf, &route[i].targets, route[i].file,
                                       route[i].line)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_http_llm_same_host(cf, lmcf, 0, NULL, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_llm_zone_add(cf, lmcf) == NGX_OK ? NGX_CONF_OK
                                                     : NGX_CONF_ERROR;
}


static void *
ngx_http_llm_create_loc_conf(ngx_conf_t *cf)
{
    ngx_uint_t                i;
    ngx_http_llm_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_llm_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->targets = NULL;
     *     conf->passthrough_name = { 0, NULL };
     *     conf->passthrough = NULL;
     *     conf->prefix = { 0, NULL };
     *     conf->status = NGX_HTTP_LLM_STATUS_NONE;
     *     conf->own = 0;
     */

    conf->adapter = NGX_CONF_UNSET_UINT;
    conf->attempts = NGX_CONF_UNSET_UINT;
    conf->backoff_min = NGX_CONF_UNSET_MSEC;
    conf->backoff_max = NGX_CONF_UNSET_MSEC;
    conf->budget = NGX_CONF_UNSET_UINT;
    conf->resume = NGX_CONF_UNSET;
    conf->client_abort = NGX_CONF_UNSET_UINT;
    conf->ping = NGX_CONF_UNSET_MSEC;
    conf->ping_head = NGX_CONF_UNSET_MSEC;
    conf->flush = NGX_CONF_UNSET_MSEC;
    conf->intercept_errors = NGX_CONF_UNSET;
    conf->headers = NGX_CONF_UNSET;
    conf->cache = NGX_CONF_UNSET_PTR;
    conf->coalesce = NGX_CONF_UNSET;
    conf->max_response = NGX_CONF_UNSET_SIZE;
    conf->cache_bypass = NGX_CONF_UNSET_PTR;
    conf->no_cache = NGX_CONF_UNSET_PTR;

    for (i = 0; i < NGX_HTTP_LLM_T_MAX; i++) {
        conf->timeout[i] = NGX_CONF_UNSET_MSEC;
    }

    return conf;
}


static char *
ngx_http_llm_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_llm_loc_conf_t *prev = parent;
    ngx_http_llm_loc_conf_t *conf = child;

    ngx_uint_t  i;

    ngx_conf_merge_uint_value(conf->attempts, prev->attempts, 3);
    ngx_conf_merge_msec_value(conf->backoff_min, prev->backoff_min, 200);
    ngx_conf_merge_msec_value(conf->backoff_max, prev->backoff_max, 5000);
    ngx_conf_merge_uint_value(conf->budget, prev->budget, 20);
    ngx_conf_merge_value(conf->resume, prev->resume, 0);
    ngx_conf_merge_uint_value(conf->client_abort, prev->client_abort,
                              NGX_HTTP_LLM_CANCEL);
    ngx_conf_merge_msec_value(conf->ping, prev->ping, 15000);
    ngx_conf_merge_msec_value(conf->ping_head, prev->ping_head, 0);
    ngx_conf_merge_msec_value(conf->flush, prev->flush, 0);
    ngx_conf_merge_value(conf->intercept_errors, prev->intercept_errors, 0);
    ngx_conf_merge_value(conf->headers, prev->headers, 1);
    ngx_conf_merge_ptr_value(conf->cache, prev->cache, NULL);
    ngx_conf_merge_value(conf->coalesce, prev->coalesce, 0);
    ngx_conf_merge_size_value(conf->max_response, prev->max_response,
                              8 * 1024 * 1024);
    ngx_conf_merge_ptr_value(conf->cache_bypass, prev->cache_bypass, NULL);
    ngx_conf_merge_ptr_value(conf->no_cache, prev->no_cache, NULL);

    for (i = 0; i < NGX_HTTP_LLM_T_MAX; i++) {

        /* unset: the provider's */

        if (conf->timeout[i] == NGX_CONF_UNSET_MSEC) {
            conf->timeout[i] = prev->timeout[i];
        }
    }

    if (conf->passthrough_name.data == NULL) {
        conf->passthrough_name = prev->passthrough_name;
        conf->passthrough_file = prev->passthrough_file;
        conf->passthrough_line = prev->passthrough_line;
    }

    if (conf->status != NGX_HTTP_LLM_STATUS_NONE) {
        return ngx_http_llm_status_merge(cf, conf);
    }

    return ngx_http_llm_merge_adapter(cf, prev, conf);
}


/* llm_adapter is not inherited, but by the nameless locations within its own */

static char *
ngx_http_llm_merge_adapter(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *prev,
    ngx_http_llm_loc_conf_t *conf)
{
    ngx_http_llm_place_t      *place;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_llm_main_conf_t  *lmcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->own) {

        if (clcf->handler != ngx_http_llm_handler) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"llm_adapter\" is in a location that another "
                          "directive handles in %s:%ui",
                          conf->file, conf->line);
            return NGX_CONF_ERROR;
        }

        if (conf->adapter == NGX_HTTP_LLM_DIRECT
            && ngx_http_llm_same_host(cf,
                   ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module),
                   1, conf->file, conf->line)
               != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        if (conf->targets
            && (ngx_http_llm_targets_ready(cf, conf->targets, conf->file,
                                           conf->line)
                != NGX_OK
                || ngx_http_llm_targets_same_host(cf, conf->targets,
                                                  conf->file, conf->line)
                   != NGX_OK))
        {
            return NGX_CONF_ERROR;
        }

        if (clcf->noname && prev->prefix.len) {
            conf->prefix = prev->prefix;
        }

    } else if (clcf->noname && prev->adapter != NGX_CONF_UNSET_UINT
               && prev->adapter != NGX_HTTP_LLM_OFF)
    {
        conf->adapter = prev->adapter;
        conf->targets = prev->targets;
        conf->prefix = prev->prefix;
        conf->file = prev->file;
        conf->line = prev->line;

        if (clcf->lmt_excpt && clcf->handler == NULL) {
            clcf->handler = ngx_http_llm_handler;
        }
    }

    if (conf->adapter == NGX_CONF_UNSET_UINT) {
        conf->adapter = NGX_HTTP_LLM_OFF;
        return NGX_CONF_OK;
    }

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_module);

    place = ngx_array_push(&lmcf->adapters);
    if (place == NULL) {
        return NGX_CONF_ERROR;
    }

    place->cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
    place->llcf = conf;

    if (clcf->post_action.data) {

        /* it would run within a request whose attempt may not have ended */

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"post_action\" can not be used with \"llm_adapter\" "
                      "in %s:%ui", conf->file, conf->line);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_llm_cache_merge(cf, conf) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->passthrough_name.data == NULL
        || ngx_strcmp(conf->passthrough_name.data, "off") == 0)
    {
        return NGX_CONF_OK;
    }

    return ngx_http_llm_merge_passthrough(cf, conf);
}


static char *
ngx_http_llm_merge_passthrough(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf)
{
    ngx_http_llm_target_t      t;
    ngx_http_llm_provider_t   *p;
    ngx_http_upstream_conf_t  *direct;

    ngx_memzero(&t, sizeof(ngx_http_llm_target_t));

    t.text = conf->passthrough_name;

    if (ngx_http_llm_target_resolve(cf, &t, conf->passthrough_file,
                                    conf->passthrough_line)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    p = t.provider;

    if (ngx_http_llm_passthrough_same_host(cf, conf, p) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    direct = ngx_palloc(cf->pool, sizeof(ngx_http_upstream_conf_t));
    if (direct == NULL) {
        return NGX_CONF_ERROR;
    }

    *direct = p->direct;

    if (conf->timeout[NGX_HTTP_LLM_T_CONNECT] != NGX_CONF_UNSET_MSEC) {
        direct->connect_timeout = conf->timeout[NGX_HTTP_LLM_T_CONNECT];
    }

    if (conf->timeout[NGX_HTTP_LLM_T_PLAIN] != NGX_CONF_UNSET_MSEC) {
        direct->read_timeout = conf->timeout[NGX_HTTP_LLM_T_PLAIN];
    }

    direct->intercept_errors = conf->intercept_errors;

    conf->passthrough = p;
    conf->direct = direct;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_llm_init_module(ngx_cycle_t *cycle)
{
    if (ngx_http_llm_zone_init_module(cycle) != NGX_OK
        || ngx_http_llm_worker_init_module(cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_cache_init_module(cycle);
}


static ngx_int_t
ngx_http_llm_init_process(ngx_cycle_t *cycle)
{
    if (ngx_http_llm_attempt_init_worker(cycle) != NGX_OK
        || ngx_http_llm_resolve_init_worker(cycle) != NGX_OK
        || ngx_http_llm_cache_init_worker(cycle) != NGX_OK
        || ngx_http_llm_coalesce_init_worker(cycle) != NGX_OK
        || ngx_http_llm_worker_init(cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_llm_health_init_worker(cycle);
}


static void
ngx_http_llm_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_llm_health_exit_worker();
    ngx_http_llm_cache_exit_worker(cycle);
    ngx_http_llm_worker_exit();
    ngx_http_llm_flight_exit_worker();
}
