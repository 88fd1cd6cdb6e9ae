
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * stat and list: how full the cache is, and of what.  Neither shows what was
 * asked or answered.
 */


#include <string.h>

#include "llm_cache.h"


typedef struct {
    llm_cache_t           *cache;
    llm_cache_out_t        out;
    uint64_t               now;
    unsigned               failed:1;
} llm_cache_list_t;


static void llm_cache_stat_text(llm_cache_out_t *o, const char *name,
    uint64_t n, double of);
static llm_int_t llm_cache_list_entry(void *ctx, const llm_entry_t *e);
static llm_uint_t llm_cache_wanted(const llm_cache_t *c,
    const llm_entry_t *e);
static llm_uint_t llm_cache_same(const llm_str_t *s, const char *text);
static void llm_cache_list_text(llm_cache_list_t *l, const llm_entry_t *e);
static void llm_cache_list_json(llm_cache_list_t *l, const llm_entry_t *e);
static uint64_t llm_cache_age(const llm_cache_list_t *l,
    const llm_entry_t *e);
static const char *llm_cache_span(char buf[24], uint64_t sec);


int
llm_cache_stat(llm_cache_t *c)
{
    llm_int_t         rc;
    llm_cache_out_t   o;
    llm_store_stat_t  st;

    if (llm_store_stat(c->store, &st) != LLM_OK) {
        llm_cache_error("the cache in \"%s\" can't be read", c->dir);
        return LLM_CACHE_ERROR;
    }

    memset(&o, 0, sizeof(llm_cache_out_t));

    if (c->json) {
        llm_cache_addf(&o, "{\"entries\":%llu,\"size\":%llu,\"used\":%llu,",
                       (unsigned long long) st.entries,
                       (unsigned long long) st.size,
                       (unsigned long long) st.used);
        llm_cache_addf(&o, "\"file\":%llu,\"readers\":%llu,"
                       "\"max_readers\":%llu,\"pending\":%llu}\n",
                       (unsigned long long) st.file,
                       (unsigned long long) st.readers,
                       (unsigned long long) st.max_readers,
                       (unsigned long long) st.pending);

    } else {
        llm_cache_addf(&o, "entries         %llu\n",
                       (unsigned long long) st.entries);
        llm_cache_stat_text(&o, "size", st.size, 0);
        llm_cache_stat_text(&o, "used", st.used, st.size);
        llm_cache_stat_text(&o, "file", st.file, 0);
        llm_cache_addf(&o, "readers         %llu of %llu\n"
                       "pending purges  %llu\n",
                       (unsigned long long) st.readers,
                       (unsigned long long) st.max_readers,
                       (unsigned long long) st.pending);
    }

    rc = llm_cache_flush(&o, c->out);
    llm_cache_out_free(&o);

    return rc == LLM_OK ? LLM_CACHE_OK : LLM_CACHE_ERROR;
}


static void
llm_cache_stat_text(llm_cache_out_t *o, const char *name, uint64_t n,
    double of)
{
    llm_cache_addf(o, "%-15s %llu (%.1f MB", name, (unsigned long long) n,
                   n / 1048576.0);

    if (of > 0) {
        llm_cache_addf(o, ", %.1f %%", 100.0 * n / of);
    }

    llm_cache_addf(o, ")\n");
}


int
llm_cache_list(llm_cache_t *c)
{
    llm_int_t         rc;
    llm_cache_list_t  l;

    memset(&l, 0, sizeof(llm_cache_list_t));

    l.cache = c;
    l.now = llm_cache_now();

    rc = llm_store_walk(c->store, llm_cache_list_entry, &l);

    llm_cache_out_free(&l.out);

    if (rc == LLM_OK || llm_cache_signal) {
        return LLM_CACHE_OK;
    }

    if (!l.failed) {
        llm_cache_error("the cache in \"%s\" can't be read", c->dir);
    }

    return LLM_CACHE_ERROR;
}


static llm_int_t
llm_cache_list_entry(void *ctx, const llm_entry_t *e)
{
    llm_cache_list_t *l = ctx;

    if (llm_cache_signal) {
        return LLM_DONE;
    }

    if (!llm_cache_wanted(l->cache, e)) {
        return LLM_OK;
    }

    if (l->cache->json) {
        llm_cache_list_json(l, e);

    } else {
        llm_cache_list_text(l, e);
    }

    if (llm_cache_flush(&l->out, l->cache->out) != LLM_OK) {
        l->failed = 1;
        return LLM_ERROR;
    }

    return LLM_OK;
}


static llm_uint_t
llm_cache_wanted(const llm_cache_t *c, const llm_entry_t *e)
{
    u_char     *p;
    u_char      hashed[LLM_HASHED_LEN];
    llm_str_t   rest, text;

    if (c->model && !llm_cache_same(&e->asked, c->model)
        && !llm_cache_same(&e->model, c->model))
    {
        return 0;
    }

    if (c->scope == NULL || llm_cache_same(&e->scope, c->scope)) {
        return 1;
    }

    /* as a purge takes it: without its first word */

    p = e->scope.len ? memchr(e->scope.data, ' ', e->scope.len) : NULL;

    if (p == NULL) {
        return 0;
    }

    rest.data = p + 1;
    rest.len = e->scope.data + e->scope.len - rest.data;

    if (llm_cache_same(&rest, c->scope)) {
        return 1;
    }

    text.data = (u_char *) c->scope;
    text.len = strlen(c->scope);

    if (text.len > 6 && memcmp(text.data, "value ", 6) == 0) {
        text.data += 6;
        text.len -= 6;
    }

    return rest.len == LLM_HASHED_LEN
           && e->scope.data[0] == 'v'
           && llm_store_hashed(hashed, &text) == LLM_OK
           && memcmp(hashed, rest.data, LLM_HASHED_LEN) == 0;
}


static llm_uint_t
llm_cache_same(const llm_str_t *s, const char *text)
{
    return s->len == strlen(text)
           && (s->len == 0 || memcmp(s->data, text, s->len) == 0);
}


static void
llm_cache_list_text(llm_cache_list_t *l, const llm_entry_t *e)
{
    char              buf[24];
    uint64_t          age;
    llm_cache_out_t  *o;

    o = &l->out;
    age = llm_cache_age(l, e);

    llm_cache_add_hex(o, e->id, LLM_ID_LEN);
    llm_cache_addf(o, " %5s", llm_cache_span(buf, age));
    llm_cache_addf(o, " %7s", age < e->ttl ? llm_cache_span(buf, e->ttl - age)
                                           : "expired");
    llm_cache_addf(o, " %-6s %8llu ",
                   (e->flags & LLM_ENTRY_STREAM) ? "stream" : "plain",
                   (unsigned long long) e->text.len);
    llm_cache_add_plain(o, &e->dialect);
    llm_cache_add(o, "/", 1);
    llm_cache_add_plain(o, &e->endpoint);
    llm_cache_add(o, " ", 1);
    llm_cache_add_plain(o, &e->asked);
    llm_cache_add(o, " ", 1);
    llm_cache_add_plain(o, &e->provider);
    llm_cache_add(o, " ", 1);
    llm_cache_add_plain(o, &e->scope);
    llm_cache_add(o, "\n", 1);
}


static void
llm_cache_list_json(llm_cache_list_t *l, const llm_entry_t *e)
{
    uint64_t          age;
    llm_uint_t        i;
    llm_cache_out_t  *o;
    const struct {
        const char       *name;
        const llm_str_t  *value;
    } texts[] = {
        { "dialect", &e->dialect },
        { "endpoint", &e->endpoint },
        { "model", &e->model },
        { "asked", &e->asked },
        { "provider", &e->provider },
        { "scope", &e->scope }
    };

    o = &l->out;
    age = llm_cache_age(l, e);

    llm_cache_addf(o, "{\"id\":\"");
    llm_cache_add_hex(o, e->id, LLM_ID_LEN);
    llm_cache_addf(o, "\",\"age\":%llu,\"left\":%llu,\"expired\":%s,",
                   (unsigned long long) age,
                   (unsigned long long) (age < e->ttl ? e->ttl - age : 0),
                   age < e->ttl ? "false" : "true");
    llm_cache_addf(o, "\"form\":\"%s\",\"bytes\":%llu",
                   (e->flags & LLM_ENTRY_STREAM) ? "stream" : "plain",
                   (unsigned long long) e->text.len);

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        llm_cache_addf(o, ",\"%s\":", texts[i].name);
        llm_cache_add_json(o, texts[i].value);
    }

    llm_cache_add(o, "}\n", 2);
}


/* s */

static uint64_t
llm_cache_age(const llm_cache_list_t *l, const llm_entry_t *e)
{
    return l->now > e->made ? (l->now - e->made) / 1000 : 0;
}


static const char *
llm_cache_span(char buf[24], uint64_t sec)
{
    llm_uint_t         i;
    static const struct {
        uint64_t       sec;
        char           unit;
    } units[] = {
        { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' }
    };

    /* two digits say more than one */

    for (i = 0; i < 3 && sec < 2 * units[i].sec; i++) { /* void */ }

    snprintf(buf, 24, "%llu%c", (unsigned long long) (sec / units[i].sec),
             units[i].unit);

    return buf;
}
