
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Secrets of the configuration: from nginx's environment or from a file.  Read
 * by the master while the configuration is read; never logged.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_SECRET_MAX  65536


static ngx_int_t ngx_http_llm_secret_env(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *secret);
static ngx_int_t ngx_http_llm_secret_file(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *secret);


/* as the process got it; stays over reloads */

static char  **ngx_http_llm_environ;


/* env:NAME, file:PATH, or the text itself (*literal is set) */

ngx_int_t
ngx_http_llm_secret(ngx_conf_t *cf, ngx_str_t *text, ngx_str_t *secret,
    ngx_uint_t *literal)
{
    ngx_str_t  name;

    *literal = 0;

    if (text->len > 4 && ngx_strncmp(text->data, "env:", 4) == 0) {
        name.data = text->data + 4;
        name.len = text->len - 4;

        return ngx_http_llm_secret_env(cf, &name, secret);
    }

    if (text->len > 5 && ngx_strncmp(text->data, "file:", 5) == 0) {
        name.data = text->data + 5;
        name.len = text->len - 5;

        return ngx_http_llm_secret_file(cf, &name, secret);
    }

    *literal = 1;
    *secret = *text;

    return NGX_OK;
}


static ngx_int_t
ngx_http_llm_secret_env(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *secret)
{
    char             **env;
    ngx_str_t         *kept;
    ngx_uint_t         i;
    ngx_core_conf_t   *ccf;

    /* nginx hands on only what is listed, to a new binary too */

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);
    kept = ccf->env.elts;

    for (i = 0; i < ccf->env.nelts; i++) {
        if (kept[i].len == name->len
            && ngx_strncmp(kept[i].data, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (i == ccf->env.nelts) {
        kept = ngx_array_push(&ccf->env);
        if (kept == NULL) {
            return NGX_ERROR;
        }

        *kept = *name;
    }

    /* with master_process off nginx replaces environ by what is listed */

    if (ngx_http_llm_environ == NULL) {
        ngx_http_llm_environ = environ;
    }

    for (env = ngx_http_llm_environ; *env; env++) {

        if (ngx_strncmp(*env, name->data, name->len) != 0
            || (*env)[name->len] != '=')
        {
            continue;
        }

        /* the block may be written over by process titles */

        secret->len = ngx_strlen(*env + name->len + 1);
        secret->data = ngx_pnalloc(cf->pool, secret->len + 1);
        if (secret->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(secret->data, *env + name->len + 1, secret->len + 1);

        if (secret->len) {
            return NGX_OK;
        }
    }

    ngx_str_null(secret);

    if (ngx_test_config || ngx_process == NGX_PROCESS_SIGNALLER) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the environment variable \"%V\" is not set",
                           name);
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "the environment variable \"%V\" is not set", name);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_llm_secret_file(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *secret)
{
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_str_t        path;
    ngx_file_info_t  fi;

    path = *name;

    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    fd = ngx_open_file(path.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", &path);
        return NGX_ERROR;
    }

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR
        || ngx_file_size(&fi) > NGX_HTTP_LLM_SECRET_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is too large for a key", &path);
        goto failed;
    }

    secret->data = ngx_pnalloc(cf->pool, ngx_file_size(&fi) + 1);
    if (secret->data == NULL) {
        goto failed;
    }

    n = ngx_read_fd(fd, secret->data, ngx_file_size(&fi));

    if (n == -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_read_fd_n " \"%V\" failed", &path);
        goto failed;
    }

    if (n && secret->data[n - 1] == LF) {
        n--;
    }

    if (n && secret->data[n - 1] == CR) {
        n--;
    }

    secret->len = n;

    (void) ngx_close_file(fd);

    if (n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" is empty", &path);
        return NGX_ERROR;
    }

    return NGX_OK;

failed:

    (void) ngx_close_file(fd);

    return NGX_ERROR;
}
