
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The key of a line: made of its request as a worker makes it, or, of an
 * entry whose request was too long to be kept, as it was exported.
 */


#include <string.h>

#include "llm_cache_line.h"


#define LLM_CACHE_KEEP_REQUEST  (16 * 1024)    /* as the workers do */


static llm_int_t llm_cache_line_route(llm_cache_line_t *l);
static llm_int_t llm_cache_unknown_route(llm_cache_line_t *l);
static llm_int_t llm_cache_line_key(llm_cache_line_t *l);
static llm_int_t llm_cache_line_given_key(llm_cache_line_t *l);
static void llm_cache_line_parts(llm_cache_line_t *l, llm_key_parts_t *parts);


llm_int_t
llm_cache_line_request(llm_cache_line_t *l)
{
    llm_int_t          rc;
    llm_error_t        err;
    llm_json_value_t  *v;

    v = &l->v[LINE_REQUEST];

    if (v->type == LLM_JSON_ABSENT) {
        return llm_cache_line_given_key(l);
    }

    memset(&err, 0, sizeof(llm_error_t));

    l->rq.body = v->raw;

    rc = l->rq.dialect->parse(&l->rq, &l->reader->arena.mem, &err);

    if (rc == LLM_DECLINED) {
        return llm_cache_bad(l->reader, "\"request\": %.*s",
                             (int) err.message.len, err.message.data);
    }

    if (rc != LLM_OK) {
        return rc;
    }

    if (l->rq.dialect->caching->kind(&l->rq) & LLM_CACHE_STATEFUL) {
        return llm_cache_bad(l->reader, "the request is stateful: it uses or "
                             "leaves state at the provider");
    }

    rc = llm_cache_line_route(l);

    return rc == LLM_OK ? llm_cache_line_key(l) : rc;
}


static llm_int_t
llm_cache_line_route(llm_cache_line_t *l)
{
    size_t               i;
    llm_str_t           *route, *digest;
    llm_cache_reader_t  *r;

    r = l->reader;
    route = &l->text[LINE_ROUTE];
    digest = &l->text[LINE_DIGEST];

    if (route->len == 0) {

        if (r->nroutes != 1) {
            return llm_cache_unknown_route(l);
        }

        *route = r->routes[0].route;
    }

    /* of an export: an answer of providers that are called otherwise by now
     * is not taken for one of today's */

    if (digest->len) {
        return LLM_OK;
    }

    for (i = 0; i < r->nroutes; i++) {
        if (r->routes[i].route.len == route->len
            && memcmp(r->routes[i].route.data, route->data, route->len) == 0)
        {
            *digest = r->routes[i].digest;
            return LLM_OK;
        }
    }

    return llm_cache_unknown_route(l);
}


static llm_int_t
llm_cache_unknown_route(llm_cache_line_t *l)
{
    int                  n;
    size_t               i, len;
    llm_str_t           *route;
    llm_cache_reader_t  *r;

    r = l->reader;
    route = &l->text[LINE_ROUTE];

    if (route->len) {
        (void) llm_cache_bad(r, "unknown route \"%.*s\"", (int) route->len,
                             route->data);

    } else {
        (void) llm_cache_bad(r, "\"route\" is missing");
    }

    for (i = 0; i < r->nroutes; i++) {
        len = strlen(r->why);

        n = snprintf(r->why + len, sizeof(r->why) - len, "%s\"%.*s\"",
                     i ? ", " : "; known are ",
                     (int) r->routes[i].route.len, r->routes[i].route.data);

        if (n < 0 || (size_t) n >= sizeof(r->why) - len) {
            break;
        }
    }

    if (r->nroutes == 0) {
        len = strlen(r->why);
        snprintf(r->why + len, sizeof(r->why) - len, "; none is known here: "
                 "nginx tells them when it starts");
    }

    return LLM_DECLINED;
}


static llm_int_t
llm_cache_line_key(llm_cache_line_t *l)
{
    size_t            head, len;
    u_char           *p;
    llm_int_t         rc;
    llm_mem_t        *mem;
    llm_str_t         material;
    llm_entry_t      *e;
    llm_key_parts_t   parts;

    e = l->entry;
    mem = &l->reader->arena.mem;

    llm_cache_line_parts(l, &parts);

    head = llm_store_material(NULL, &parts);

    p = mem->alloc(mem->ctx, head + l->rq.body.len + 1);
    if (p == NULL) {
        return LLM_ERROR;
    }

    (void) llm_store_material(p, &parts);

    rc = llm_canonical(&l->rq.body,
                       l->rq.dialect->caching->unkeyed(l->rq.endpoint),
                       &llm_cache_heap, p + head, &len);

    if (rc != LLM_OK) {
        return rc == LLM_DECLINED
               ? llm_cache_bad(l->reader, "the request has too many members")
               : LLM_ERROR;
    }

    p[head + len] = '}';

    material.data = p;
    material.len = head + len + 1;

    if (llm_store_key(e->key, &e->scope, &material) != LLM_OK) {
        return LLM_ERROR;
    }

    if (l->stream) {
        e->key[LLM_KEY_LEN - 1] |= 1;
    }

    if (material.len > LLM_CACHE_KEEP_REQUEST) {
        material.len = head - (sizeof(",\"request\":") - 1) + 1;
        p[material.len - 1] = '}';
    }

    e->request = material;

    return LLM_OK;
}


/* an export whose request was too long to be kept */

static llm_int_t
llm_cache_line_given_key(llm_cache_line_t *l)
{
    size_t            len;
    u_char            scope[LLM_KEY_SCOPE], *p;
    llm_mem_t        *mem;
    llm_str_t        *s;
    llm_entry_t      *e;
    llm_key_parts_t   parts;

    e = l->entry;
    s = &l->text[LINE_KEY];

    if (s->len == 0) {
        return llm_cache_bad(l->reader, "it has neither \"request\" nor "
                             "\"key\"");
    }

    if (llm_cache_hex(e->key, LLM_KEY_LEN, s->data, s->len) != LLM_OK) {
        return llm_cache_bad(l->reader, "\"key\" is no %d hex digits",
                             2 * LLM_KEY_LEN);
    }

    if (llm_store_scope(scope, &e->scope) != LLM_OK) {
        return LLM_ERROR;
    }

    if (memcmp(scope, e->key, LLM_KEY_SCOPE) != 0) {
        return llm_cache_bad(l->reader, "\"key\" is not one of this scope");
    }

    if ((e->key[LLM_KEY_LEN - 1] & 1) != l->stream) {
        return llm_cache_bad(l->reader, "\"key\" is not one of this form");
    }

    llm_cache_line_parts(l, &parts);

    mem = &l->reader->arena.mem;
    len = llm_store_material(NULL, &parts);

    p = mem->alloc(mem->ctx, len);
    if (p == NULL) {
        return LLM_ERROR;
    }

    (void) llm_store_material(p, &parts);

    e->request.data = p;
    e->request.len = len - (sizeof(",\"request\":") - 1) + 1;
    p[e->request.len - 1] = '}';

    return LLM_OK;
}


static void
llm_cache_line_parts(llm_cache_line_t *l, llm_key_parts_t *parts)
{
    parts->dialect = l->rq.dialect->name;
    parts->endpoint = l->rq.endpoint->path;
    parts->query = l->text[LINE_QUERY];
    parts->beta = l->text[LINE_BETA];
    parts->version = l->text[LINE_VERSION];
    parts->openai_beta = l->text[LINE_OPENAI_BETA];
    parts->account = l->text[LINE_ACCOUNT];
    parts->route = l->text[LINE_ROUTE];
    parts->provider = l->text[LINE_DIGEST];
    parts->scope = l->text[LINE_SCOPE];
}
