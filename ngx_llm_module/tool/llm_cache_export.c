
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * export and get: an entry as one line of JSON, which import reads.  Requests
 * and answers stand in it as they were, so that no number is rounded and no
 * member moved; an answer that can't stand in one line as it is becomes a
 * string.  Ids and secrets of the directory are left out.
 */


#include <string.h>

#include "llm_cache.h"


typedef struct {
    llm_cache_t           *cache;
    llm_cache_out_t        out;
    llm_cache_progress_t   progress;
    u_char                 id[LLM_ID_LEN];     /* that get wants */
    unsigned               get:1;
    unsigned               found:1;
    unsigned               failed:1;
} llm_cache_export_t;


static llm_int_t llm_cache_export_entry(void *ctx, const llm_entry_t *e);
static void llm_cache_entry(llm_cache_out_t *o, const llm_entry_t *e);
static void llm_cache_material(llm_cache_out_t *o, const llm_entry_t *e,
    llm_json_value_t *request);
static void llm_cache_facts(llm_cache_out_t *o, const llm_entry_t *e);
static void llm_cache_usage_of(llm_cache_out_t *o, const llm_usage_t *u);
static void llm_cache_runs(llm_cache_out_t *o, const llm_entry_t *e);
static void llm_cache_answer(llm_cache_out_t *o, const llm_entry_t *e);
static void llm_cache_text(llm_cache_out_t *o, const char *name,
    const llm_str_t *value);


int
llm_cache_export(llm_cache_t *c)
{
    llm_int_t           rc;
    llm_cache_export_t  x;

    memset(&x, 0, sizeof(llm_cache_export_t));

    x.cache = c;

    llm_cache_progress_begin(&x.progress);

    rc = llm_store_walk(c->store, llm_cache_export_entry, &x);

    llm_cache_progress_end(&x.progress);
    llm_cache_out_free(&x.out);

    if (rc == LLM_OK) {
        return LLM_CACHE_OK;
    }

    if (!x.failed && !llm_cache_signal) {
        llm_cache_error("the cache in \"%s\" can't be read", c->dir);
    }

    return LLM_CACHE_ERROR;
}


int
llm_cache_get(llm_cache_t *c)
{
    llm_int_t           rc;
    llm_cache_export_t  x;

    memset(&x, 0, sizeof(llm_cache_export_t));

    x.cache = c;
    x.get = 1;

    if (llm_cache_hex(x.id, LLM_ID_LEN, (u_char *) c->args[0],
                      strlen(c->args[0]))
        != LLM_OK)
    {
        llm_cache_error("\"%s\" is no id: %d hex digits", c->args[0],
                        2 * LLM_ID_LEN);
        return LLM_CACHE_USAGE;
    }

    rc = llm_store_walk(c->store, llm_cache_export_entry, &x);

    llm_cache_out_free(&x.out);

    if (x.found && !x.failed) {
        return LLM_CACHE_OK;
    }

    if (rc == LLM_OK) {
        llm_cache_error("there is no entry \"%s\"", c->args[0]);

    } else if (!x.failed && !llm_cache_signal) {
        llm_cache_error("the cache in \"%s\" can't be read", c->dir);
    }

    return LLM_CACHE_ERROR;
}


static llm_int_t
llm_cache_export_entry(void *ctx, const llm_entry_t *e)
{
    llm_cache_export_t *x = ctx;

    if (llm_cache_signal) {
        return LLM_DONE;
    }

    if (x->get && memcmp(e->id, x->id, LLM_ID_LEN) != 0) {

        /* both forms have one id, and stand side by side */

        return x->found ? LLM_DONE : LLM_OK;
    }

    x->found = 1;

    if (x->get && x->cache->text) {
        llm_cache_add_str(&x->out, &e->text);

    } else {
        llm_cache_entry(&x->out, e);
    }

    llm_cache_progress(&x->progress, x->out.len);

    if (llm_cache_flush(&x->out, x->cache->out) != LLM_OK) {
        x->failed = 1;
        return LLM_ERROR;
    }

    return (x->get && x->cache->text) ? LLM_DONE : LLM_OK;
}


static void
llm_cache_entry(llm_cache_out_t *o, const llm_entry_t *e)
{
    llm_json_value_t  request;

    llm_cache_addf(o, "{\"v\":1,\"key\":\"");
    llm_cache_add_hex(o, e->key, LLM_KEY_LEN);
    llm_cache_add(o, "\"", 1);

    llm_cache_material(o, e, &request);
    llm_cache_facts(o, e);

    if (request.type == LLM_JSON_OBJECT) {
        llm_cache_addf(o, ",\"request\":");
        llm_cache_add_str(o, &request.raw);
    }

    llm_cache_answer(o, e);
    llm_cache_add(o, "}\n", 2);
}


/* what the key was made of, less what is empty */

static void
llm_cache_material(llm_cache_out_t *o, const llm_entry_t *e,
    llm_json_value_t *request)
{
    llm_int_t                rc;
    llm_uint_t               i;

    enum { DIALECT = 0, ENDPOINT, QUERY, BETA, VERSION, OPENAI_BETA, ACCOUNT,
           ROUTE, PROVIDER, SCOPE, REQUEST, MAX };

    llm_json_value_t         v[MAX];
    static const llm_str_t   names[MAX] = {
        llm_string("dialect"),
        llm_string("endpoint"),
        llm_string("query"),
        llm_string("beta"),
        llm_string("version"),
        llm_string("openai_beta"),
        llm_string("account"),
        llm_string("route"),
        llm_string("provider"),
        llm_string("scope"),
        llm_string("request")
    };
    const llm_str_t  *const  known[MAX] = {
        [DIALECT] = &e->dialect,
        [ENDPOINT] = &e->endpoint,
        [SCOPE] = &e->scope
    };

    rc = llm_json_scan(&e->request, LLM_JSON_DEPTH_MAX, names, v, MAX, NULL);

    if (rc != LLM_OK) {
        memset(v, 0, sizeof(v));
    }

    for (i = 0; i < REQUEST; i++) {

        /* another "provider" is the name of who answered */

        if (v[i].type == LLM_JSON_STRING && v[i].raw.len > 2) {
            llm_cache_addf(o, ",\"%s\":", i == PROVIDER ? "provider_digest"
                                          : (const char *) names[i].data);
            llm_cache_add_str(o, &v[i].raw);

        } else if (known[i]) {
            llm_cache_text(o, (const char *) names[i].data, known[i]);
        }
    }

    *request = v[REQUEST];
}


static void
llm_cache_facts(llm_cache_out_t *o, const llm_entry_t *e)
{
    llm_cache_text(o, "provider", &e->provider);
    llm_cache_text(o, "model", &e->model);
    llm_cache_text(o, "asked", &e->asked);

    llm_cache_addf(o, ",\"form\":\"%s\"",
                   (e->flags & LLM_ENTRY_STREAM) ? "stream" : "plain");

    llm_cache_text(o, "content_type", &e->content_type);
    llm_cache_text(o, "finish_reason", &e->finish_reason);

    llm_cache_addf(o, ",\"begun\":%llu,\"made\":%llu,\"ttl\":%u,\"stale\":%u",
                   (unsigned long long) e->begun,
                   (unsigned long long) e->made, e->ttl, e->stale);

    llm_cache_usage_of(o, &e->usage);

    if (e->flags & LLM_ENTRY_COST) {
        llm_cache_addf(o, ",\"cost\":%llu.%012llu",
                       (unsigned long long) (e->cost / 1000000000000),
                       (unsigned long long) (e->cost % 1000000000000));
    }

    if (!(e->flags & LLM_ENTRY_STREAM)) {
        return;
    }

    if (e->flags & LLM_ENTRY_USAGE) {
        llm_cache_addf(o, ",\"tells_usage\":true");
    }

    llm_cache_runs(o, e);
}


static void
llm_cache_usage_of(llm_cache_out_t *o, const llm_usage_t *u)
{
    llm_uint_t        i, n;
    const struct {
        uint8_t       bit;
        const char   *name;
        uint64_t      value;
    } counts[] = {
        { LLM_USAGE_PROMPT, "prompt", u->prompt },
        { LLM_USAGE_COMPLETION, "completion", u->completion },
        { LLM_USAGE_CACHED, "cached", u->cached },
        { LLM_USAGE_CACHE_WRITE, "cache_write", u->cache_write },
        { LLM_USAGE_REASONING, "reasoning", u->reasoning }
    };

    n = 0;

    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        if (u->known & counts[i].bit) {
            llm_cache_addf(o, "%s\"%s\":%llu", n++ ? "," : ",\"usage\":{",
                           counts[i].name,
                           (unsigned long long) counts[i].value);
        }
    }

    if (n) {
        llm_cache_add(o, "}", 1);
    }
}


static void
llm_cache_runs(llm_cache_out_t *o, const llm_entry_t *e)
{
    uint32_t  i;

    llm_cache_addf(o, ",\"runs\":[");

    for (i = 0; i < e->nruns; i++) {
        llm_cache_addf(o, "%s{\"len\":%u,\"hidden\":%s}", i ? "," : "",
                       e->runs[i].len,
                       (e->runs[i].flags & LLM_RUN_HIDDEN) ? "true" : "false");
    }

    llm_cache_add(o, "]", 1);
}


static void
llm_cache_answer(llm_cache_out_t *o, const llm_entry_t *e)
{
    const llm_str_t  *text;

    text = &e->text;

    /* what stands around the value would be lost, and a line would end; an
     * embedded value is one level deeper */

    if (!(e->flags & LLM_ENTRY_STREAM)
        && text->len > 1
        && text->data[0] == '{' && text->data[text->len - 1] == '}'
        && memchr(text->data, '\n', text->len) == NULL
        && memchr(text->data, '\r', text->len) == NULL
        && llm_json_scan(text, LLM_JSON_DEPTH_MAX - 1, NULL, NULL, 0, NULL)
           == LLM_OK)
    {
        llm_cache_addf(o, ",\"answer\":");
        llm_cache_add_str(o, text);
        return;
    }

    llm_cache_text(o, "answer_text", text);
}


static void
llm_cache_text(llm_cache_out_t *o, const char *name, const llm_str_t *value)
{
    if (value->len) {
        llm_cache_addf(o, ",\"%s\":", name);
        llm_cache_add_json(o, value);
    }
}
