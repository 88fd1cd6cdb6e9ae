
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The list of purges: how it stands in the file, and which entries it hits.
 * What is done about it is in llm_store_purge.c.
 */


#include <stdlib.h>
#include <string.h>

#include "llm_store_int.h"


static size_t llm_store_purges_key(MDB_val *key, char *name,
    const llm_store_purges_t *pl, uint64_t i);
static int llm_store_purge_hits(const llm_store_purge_t *rec,
    const llm_entry_t *e);


/*
 * The list stands in several values, each of which has room in a page: one of
 * all records would want pages in a row, and a file that has been full has
 * none, though it has many.
 */

int
llm_store_purges_read(llm_store_t *s, MDB_txn *txn, llm_store_purges_t *pl)
{
    int       rc;
    char      name[LLM_STORE_NAME];
    size_t    head, n;
    uint64_t  i, seq;
    MDB_val   key, value;

    head = offsetof(llm_store_purges_t, list);

    key.mv_data = (void *) "purges";
    key.mv_size = sizeof("purges") - 1;

    rc = mdb_get(txn, s->meta, &key, &value);

    if (rc == MDB_NOTFOUND) {
        memset(pl, 0, head);
        return 0;
    }

    if (rc) {
        return rc;
    }

    if (value.mv_size != head) {
        return MDB_CORRUPTED;
    }

    /* of each list that differs in more than positions seq does, too */

    memcpy(&seq, value.mv_data, sizeof(uint64_t));

    if (seq == pl->seq && pl == &s->purges) {
        return 0;
    }

    memcpy(pl, value.mv_data, head);

    if (pl->n > LLM_STORE_PURGES) {
        goto corrupted;
    }

    for (i = 0; i < pl->n; i += n) {
        n = llm_store_purges_key(&key, name, pl, i);

        rc = mdb_get(txn, s->meta, &key, &value);

        if (rc && rc != MDB_NOTFOUND) {
            memset(pl, 0, head);
            return rc;
        }

        if (rc || value.mv_size != n * sizeof(llm_store_purge_t)) {
            goto corrupted;
        }

        memcpy(&pl->list[i], value.mv_data, value.mv_size);
    }

    return 0;

corrupted:

    memset(pl, 0, head);

    return MDB_CORRUPTED;
}


/* the name of the value that begins with record i, how many are in it */

static size_t
llm_store_purges_key(MDB_val *key, char *name, const llm_store_purges_t *pl,
    uint64_t i)
{
    key->mv_data = name;
    key->mv_size = snprintf(name, LLM_STORE_NAME, "purges-%03u",
                            (unsigned) (i / LLM_STORE_PURGES_VALUE));

    return pl->n - i < LLM_STORE_PURGES_VALUE ? pl->n - i
                                              : LLM_STORE_PURGES_VALUE;
}


/* only what has changed is written */

int
llm_store_purges_write(llm_store_t *s, MDB_txn *txn,
    const llm_store_purges_t *pl)
{
    int       rc;
    char      name[LLM_STORE_NAME];
    size_t    n;
    uint64_t  i;
    MDB_val   key, value, old;

    rc = llm_store_meta_put(s, txn, "purges", pl,
                            offsetof(llm_store_purges_t, list));

    for (i = 0; rc == 0 && i < pl->n; i += n) {
        n = llm_store_purges_key(&key, name, pl, i);

        value.mv_data = (void *) &pl->list[i];
        value.mv_size = n * sizeof(llm_store_purge_t);

        rc = mdb_get(txn, s->meta, &key, &old);

        if (rc == 0 && old.mv_size == value.mv_size
            && memcmp(old.mv_data, value.mv_data, value.mv_size) == 0)
        {
            continue;
        }

        if (rc == 0 || rc == MDB_NOTFOUND) {
            rc = mdb_put(txn, s->meta, &key, &value, 0);
        }
    }

    return rc;
}


uint64_t
llm_store_purges_pending(const llm_store_purges_t *pl)
{
    uint64_t    n;
    llm_uint_t  i;

    n = 0;

    for (i = 0; i < pl->n; i++) {
        n += !pl->list[i].done;
    }

    return n;
}


int
llm_store_purged(const llm_store_purges_t *pl, const llm_entry_t *e,
    uint64_t seq)
{
    llm_uint_t  i;

    for (i = 0; i < pl->n; i++) {
        if (llm_store_purge_one(&pl->list[i], e, seq)) {
            return 1;
        }
    }

    return 0;
}


/* entries written before are hit even if a clock was set back */

int
llm_store_purge_one(const llm_store_purge_t *rec, const llm_entry_t *e,
    uint64_t seq)
{
    return (seq < rec->seq || e->begun <= rec->time)
           && llm_store_purge_hits(rec, e);
}


static int
llm_store_purge_hits(const llm_store_purge_t *rec, const llm_entry_t *e)
{
    uint64_t    digest;
    llm_uint_t  i;

    switch (rec->what) {

    case LLM_PURGE_ALL:
        return 1;

    case LLM_PURGE_SCOPE:
        for (i = 0; i < rec->nranges; i++) {
            if (memcmp(rec->match[i], e->key, LLM_KEY_SCOPE) == 0) {
                return 1;
            }
        }

        return 0;

    case LLM_PURGE_MODEL:
        memcpy(&digest, rec->match, sizeof(uint64_t));

        return llm_digest(e->asked.data, e->asked.len, 0) == digest
               || llm_digest(e->model.data, e->model.len, 0) == digest;

    case LLM_PURGE_ID:
        return memcmp(rec->match, e->id, LLM_ID_LEN) == 0;

    default:
        return 0;
    }
}
