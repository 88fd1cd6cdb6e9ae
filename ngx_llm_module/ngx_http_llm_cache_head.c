
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the head of a request says to the cache: credentials, headers that are
 * part of the key, the client's Cache-Control.
 */


#include "ngx_http_llm_module.h"


#define NGX_HTTP_LLM_LINES  32


/* the lines of one header that a key has */

typedef struct {
    ngx_str_t                      line[NGX_HTTP_LLM_LINES];
    ngx_uint_t                     n;
} ngx_http_llm_lines_t;


static ngx_uint_t ngx_http_llm_cache_ascii(ngx_str_t *s);
static ngx_int_t ngx_http_llm_cache_line(ngx_http_llm_lines_t *lines,
    ngx_str_t *value);
static ngx_int_t ngx_http_llm_cache_credential(ngx_http_llm_cached_t *cache,
    ngx_uint_t i, ngx_str_t *value);
static void ngx_http_llm_cache_control(ngx_http_llm_cached_t *cache,
    ngx_str_t *value);
static u_char *ngx_http_llm_cache_comma(u_char *p, u_char *last);
static time_t ngx_http_llm_cache_seconds(u_char *p, u_char *last);
static ngx_int_t ngx_http_llm_cache_list(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_lines_t *lines, ngx_str_t *list);
static ngx_int_t ngx_http_llm_cache_account(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_lines_t *organization, ngx_http_llm_lines_t *project);
static int ngx_libc_cdecl ngx_http_llm_cmp_str(const void *one,
    const void *two);
static ngx_int_t ngx_http_llm_cache_args(ngx_http_llm_ctx_t *ctx);


/*
 * What of the request's head has to do with the cache, in one walk.
 * NGX_DECLINED: there is too much of it.
 */

ngx_int_t
ngx_http_llm_cache_gather(ngx_http_llm_ctx_t *ctx)
{
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h;
    ngx_http_request_t     *r;
    ngx_http_llm_lines_t    beta, version, openai, organization, project;
    ngx_http_llm_cached_t  *cache;

    r = ctx->request;
    cache = ctx->cache;

    beta.n = 0;
    version.n = 0;
    openai.n = 0;
    organization.n = 0;
    project.n = 0;

    part = &r->headers_in.headers.part;
    h = part->elts;

#define ngx_http_llm_named(text)                                              \
    (h[i].key.len == sizeof(text) - 1                                         \
     && ngx_memcmp(h[i].lowcase_key, text, sizeof(text) - 1) == 0)

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        rc = NGX_OK;

        switch (h[i].key.len) {

        case 7:
            if (ngx_http_llm_named("api-key")) {
                rc = ngx_http_llm_cache_credential(cache, 2, &h[i].value);
            }

            break;

        case 9:
            if (ngx_http_llm_named("x-api-key")) {
                rc = ngx_http_llm_cache_credential(cache, 1, &h[i].value);
            }

            break;

        case 11:
            if (ngx_http_llm_named("openai-beta")) {
                rc = ngx_http_llm_cache_line(&openai, &h[i].value);
            }

            break;

        case 13:
            if (ngx_http_llm_named("authorization")) {
                rc = ngx_http_llm_cache_credential(cache, 0, &h[i].value);

            } else if (ngx_http_llm_named("cache-control")
                       && cache->conf->client_control)
            {
                ngx_http_llm_cache_control(cache, &h[i].value);
            }

            break;

        case 14:
            if (ngx_http_llm_named("x-goog-api-key")) {
                rc = ngx_http_llm_cache_credential(cache, 3, &h[i].value);

            } else if (ngx_http_llm_named("anthropic-beta")) {
                rc = ngx_http_llm_cache_line(&beta, &h[i].value);

            } else if (ngx_http_llm_named("openai-project")) {
                rc = ngx_http_llm_cache_line(&project, &h[i].value);
            }

            break;

        case 17:
            if (ngx_http_llm_named("anthropic-version")) {
                rc = ngx_http_llm_cache_line(&version, &h[i].value);
            }

            break;

        case 19:
            if (ngx_http_llm_named("openai-organization")) {
                rc = ngx_http_llm_cache_line(&organization, &h[i].value);
            }

            break;
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ngx_http_llm_cache_list(ctx, &beta, &cache->beta) != NGX_OK
        || ngx_http_llm_cache_list(ctx, &version, &cache->version) != NGX_OK
        || ngx_http_llm_cache_list(ctx, &openai, &cache->openai_beta)
           != NGX_OK
        || ngx_http_llm_cache_account(ctx, &organization, &project) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (r->args.len && ngx_http_llm_cache_args(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    /* a key is made of text: what is none could be taken for another */

    if (!ngx_http_llm_cache_ascii(&cache->args)
        || !ngx_http_llm_cache_ascii(&cache->beta)
        || !ngx_http_llm_cache_ascii(&cache->version)
        || !ngx_http_llm_cache_ascii(&cache->openai_beta))
    {
        return NGX_DECLINED;
    }

    if (cache->conf->scope == NGX_HTTP_LLM_SCOPE_VALUE) {
        return ngx_http_complex_value(r, cache->conf->value, &cache->value);
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_llm_cache_ascii(ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        if (s->data[i] >= 0x80) {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_llm_cache_line(ngx_http_llm_lines_t *lines, ngx_str_t *value)
{
    if (lines->n == NGX_HTTP_LLM_LINES) {
        return NGX_DECLINED;
    }

    lines->line[lines->n++] = *value;

    return NGX_OK;
}


/* of two it is not known which one counts */

static ngx_int_t
ngx_http_llm_cache_credential(ngx_http_llm_cached_t *cache, ngx_uint_t i,
    ngx_str_t *value)
{
    if (cache->credential[i].len) {
        return NGX_DECLINED;
    }

    cache->credential[i] = *value;

    return NGX_OK;
}


/* RFC 9111, 5.2.1; what is not known there asks for nothing */

static void
ngx_http_llm_cache_control(ngx_http_llm_cached_t *cache, ngx_str_t *value)
{
    u_char  *p, *last, *end, *next;
    time_t   age;

    last = value->data + value->len;

#define ngx_http_llm_directive(text)                                          \
    (end - p == sizeof(text) - 1                                              \
     && ngx_strncasecmp(p, (u_char *) text, sizeof(text) - 1) == 0)

    for (p = value->data; p < last; p = next + 1) {

        next = ngx_http_llm_cache_comma(p, last);
        end = next;

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        if (ngx_http_llm_directive("no-cache")) {
            cache->no_cache = 1;

        } else if (ngx_http_llm_directive("no-store")) {
            cache->no_store = 1;

        } else if (ngx_http_llm_directive("only-if-cached")) {
            cache->only_if_cached = 1;

        } else if (end - p > 8
                   && ngx_strncasecmp(p, (u_char *) "max-age=", 8) == 0)
        {
            age = ngx_http_llm_cache_seconds(p + 8, end);

            if (cache->max_age == -1 || age < cache->max_age) {
                cache->max_age = age;
            }
        }
    }
}


/* the next comma that is not within quotes */

static u_char *
ngx_http_llm_cache_comma(u_char *p, u_char *last)
{
    ngx_uint_t  quoted;

    for (quoted = 0; p < last; p++) {

        if (*p == '"') {
            quoted = !quoted;

        } else if (*p == '\\' && quoted && p + 1 < last) {
            p++;

        } else if (*p == ',' && !quoted) {
            break;
        }
    }

    return p;
}


/* RFC 9111, 1.2.2: too much is much; what is no number is as old as can be */

static time_t
ngx_http_llm_cache_seconds(u_char *p, u_char *last)
{
    time_t  n;

    if (last - p > 1 && *p == '"' && last[-1] == '"') {
        p++;
        last--;
    }

    if (p == last) {
        return 0;
    }

    for (n = 0; p < last; p++) {

        if (*p < '0' || *p > '9') {
            return 0;
        }

        if (n < 0x7fffffff) {
            n = n * 10 + (*p - '0');
        }
    }

    return ngx_min(n, 0x7fffffff);
}


/* what several lines, or one with commas, name: their order means nothing */

static ngx_int_t
ngx_http_llm_cache_list(ngx_http_llm_ctx_t *ctx, ngx_http_llm_lines_t *lines,
    ngx_str_t *list)
{
    u_char      *p, *last, *end, *from;
    size_t       len;
    ngx_str_t   *s;
    ngx_uint_t   i;
    ngx_array_t  names;

    if (lines->n == 0) {
        return NGX_OK;
    }

    if (lines->n == 1
        && ngx_strlchr(lines->line[0].data,
                       lines->line[0].data + lines->line[0].len, ',')
           == NULL)
    {
        *list = lines->line[0];
        return NGX_OK;
    }

    if (ngx_array_init(&names, ctx->request->pool, 8, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    len = 0;

    for (i = 0; i < lines->n; i++) {

        last = lines->line[i].data + lines->line[i].len;

        for (from = lines->line[i].data; from < last; from = end + 1) {

            end = ngx_strlchr(from, last, ',');

            if (end == NULL) {
                end = last;
            }

            p = end;

            while (from < p && (*from == ' ' || *from == '\t')) {
                from++;
            }

            while (p > from && (p[-1] == ' ' || p[-1] == '\t')) {
                p--;
            }

            if (p == from) {
                continue;
            }

            s = ngx_array_push(&names);
            if (s == NULL) {
                return NGX_ERROR;
            }

            s->data = from;
            s->len = p - from;

            len += s->len + 1;
        }
    }

    if (len == 0) {
        return NGX_OK;
    }

    s = names.elts;

    ngx_qsort(s, names.nelts, sizeof(ngx_str_t), ngx_http_llm_cmp_str);

    p = ngx_pnalloc(ctx->request->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    list->data = p;

    for (i = 0; i < names.nelts; i++) {
        if (i) {
            *p++ = ',';
        }

        p = ngx_cpymem(p, s[i].data, s[i].len);
    }

    list->len = p - list->data;

    return NGX_OK;
}


/* a line for each: the one is not taken for the other */

static ngx_int_t
ngx_http_llm_cache_account(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_lines_t *organization, ngx_http_llm_lines_t *project)
{
    u_char     *p;
    ngx_str_t   names[2];

    if (organization->n == 0 && project->n == 0) {
        return NGX_OK;
    }

    ngx_memzero(names, sizeof(names));

    if (ngx_http_llm_cache_list(ctx, organization, &names[0]) != NGX_OK
        || ngx_http_llm_cache_list(ctx, project, &names[1]) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(ctx->request->pool, names[0].len + names[1].len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->cache->account.data = p;
    ctx->cache->account.len = ngx_sprintf(p, "%V\n%V", &names[0], &names[1])
                              - p;

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_http_llm_cmp_str(const void *one, const void *two)
{
    const ngx_str_t *a = one;
    const ngx_str_t *b = two;

    return ngx_memn2cmp(a->data, b->data, a->len, b->len);
}


/* the query as the provider gets it, and the credential in it */

static ngx_int_t
ngx_http_llm_cache_args(ngx_http_llm_ctx_t *ctx)
{
    u_char              *p;
    ngx_http_request_t  *r;

    r = ctx->request;

    p = ngx_pnalloc(r->pool, r->args.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_llm_args(r, &ctx->cache->args, p)
        && ngx_http_arg(r, (u_char *) "key", 3, &ctx->cache->credential[4])
           != NGX_OK)
    {
        /* its name is escaped */

        ctx->cache->credential[4] = r->args;
    }

    return NGX_OK;
}
