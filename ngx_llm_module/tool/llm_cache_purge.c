
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * purge.  What it hits is a miss at once; to delete it may take long, and
 * goes on here until it is done, beside the workers, who do the same.
 */


#include <string.h>
#include <time.h>
#include <unistd.h>

#include "llm_cache.h"


#define LLM_CACHE_PAUSE  (10 * 1000 * 1000)    /* ns */


static int llm_cache_purge_what(llm_cache_t *c, llm_purge_e *what);
static int llm_cache_purge_rest(llm_cache_t *c);


int
llm_cache_purge(llm_cache_t *c)
{
    llm_int_t     rc;
    llm_str_t     text;
    llm_purge_e   what;
    llm_purged_t  res;

    if (llm_cache_purge_what(c, &what) != LLM_CACHE_OK) {
        return LLM_CACHE_USAGE;
    }

    text.data = (u_char *) (c->nargs > 1 ? c->args[1] : "");
    text.len = strlen((char *) text.data);

    memset(&res, 0, sizeof(llm_purged_t));

    rc = llm_store_purge(c->store, what, &text, llm_cache_now(), &res);

    if (rc != LLM_OK) {
        llm_cache_error("the purge failed");
        return LLM_CACHE_ERROR;
    }

    fprintf(c->out, "{\"matched\":%llu,\"deleted\":%llu,\"pending\":%llu}\n",
            (unsigned long long) res.matched,
            (unsigned long long) res.deleted,
            (unsigned long long) res.pending);
    fflush(c->out);

    return res.pending ? llm_cache_purge_rest(c) : LLM_CACHE_OK;
}


static int
llm_cache_purge_what(llm_cache_t *c, llm_purge_e *what)
{
    u_char             id[LLM_ID_LEN];
    llm_uint_t         i;
    static const struct {
        const char    *name;
        llm_purge_e    what;
        int            nargs;
    } kinds[] = {
        { "all", LLM_PURGE_ALL, 1 },
        { "scope", LLM_PURGE_SCOPE, 2 },
        { "model", LLM_PURGE_MODEL, 2 },
        { "id", LLM_PURGE_ID, 2 },
        { NULL, 0, 0 }
    };

    for (i = 0; kinds[i].name; i++) {
        if (strcmp(kinds[i].name, c->args[0]) == 0) {
            break;
        }
    }

    if (kinds[i].name == NULL) {
        llm_cache_error("purge what?  \"%s\" is none of all, scope, model, id",
                        c->args[0]);
        return LLM_CACHE_USAGE;
    }

    if (c->nargs != kinds[i].nargs
        || (c->nargs > 1 && c->args[1][0] == '\0'))
    {
        llm_cache_error(c->nargs > kinds[i].nargs
                        ? "too many arguments for \"purge %s\""
                        : "\"purge %s\" needs to know which", kinds[i].name);
        return LLM_CACHE_USAGE;
    }

    if (kinds[i].what == LLM_PURGE_ID
        && llm_cache_hex(id, LLM_ID_LEN, (u_char *) c->args[1],
                         strlen(c->args[1]))
           != LLM_OK)
    {
        llm_cache_error("\"%s\" is no id: %d hex digits", c->args[1],
                        2 * LLM_ID_LEN);
        return LLM_CACHE_USAGE;
    }

    *what = kinds[i].what;

    return LLM_CACHE_OK;
}


static int
llm_cache_purge_rest(llm_cache_t *c)
{
    llm_int_t         rc;
    llm_uint_t        failed, tty;
    struct timespec   pause;
    llm_store_stat_t  st;

    pause.tv_sec = 0;
    pause.tv_nsec = LLM_CACHE_PAUSE;

    tty = isatty(STDERR_FILENO);
    failed = 0;

    while (!llm_cache_signal && failed < 3) {

        rc = llm_store_tend(c->store, llm_cache_now());

        if (rc == LLM_ERROR && llm_store_open(c->store) != LLM_OK) {
            failed++;
            continue;
        }

        if (llm_store_stat(c->store, &st) != LLM_OK) {
            failed++;
            nanosleep(&pause, NULL);
            continue;
        }

        if (st.pending == 0) {
            failed = 0;
            break;
        }

        if (tty) {
            fprintf(stderr, "\r%llu entries are left, purged ones too\033[K",
                    (unsigned long long) st.entries);
        }

        if (rc != LLM_AGAIN) {
            nanosleep(&pause, NULL);
        }
    }

    if (tty) {
        fprintf(stderr, "\r\033[K");
    }

    if (failed) {
        llm_cache_error("what was purged could not be deleted yet; "
                        "the workers will");
        return LLM_CACHE_ERROR;
    }

    return LLM_CACHE_OK;
}
