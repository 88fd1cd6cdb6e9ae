
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The transactions of the slow functions, one at a time, and the mark that
 * says that the file is whole on the disk.
 *
 * LMDB does not sync here: what a process writes is there for all others at
 * once, and stays if the process is killed, but not if the machine stops.
 * The disk then has some pages and others not.  So a file counts as sound
 * after another start of the machine only if it is marked as clean; the last
 * one who closes it marks it, and the first one who writes takes the mark
 * away, both in transactions that do sync.
 */


#include <errno.h>
#include <string.h>

#include "llm_store_int.h"


static int llm_store_note_limit(llm_store_t *s);
static int llm_store_commit_synced(llm_store_t *s);


int
llm_store_read_begin(llm_store_t *s)
{
    int  rc;

    if (s->stxn) {
        llm_store_read_end(s);
    }

    rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->stxn);

    if (rc == MDB_READERS_FULL) {
        (void) mdb_reader_check(s->env, NULL);
        rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->stxn);
    }

    if (rc) {
        s->stxn = NULL;
    }

    return rc;
}


void
llm_store_read_end(llm_store_t *s)
{
    MDB_txn  *txn;

    txn = s->stxn;
    s->stxn = NULL;
    mdb_txn_abort(txn);
}


int
llm_store_clean(llm_store_t *s, void *data)
{
    int                rc;
    llm_store_state_t  state;

    (void) data;

    rc = mdb_txn_begin(s->env, NULL, 0, &s->wtxn);
    if (rc) {
        s->wtxn = NULL;
        return rc;
    }

    rc = llm_store_meta_get(s, s->wtxn, "state", &state,
                            sizeof(llm_store_state_t));

    if (rc || state.clean) {
        llm_store_write_abort(s);
        return rc;
    }

    state.clean = 1;
    memcpy(state.boot, s->boot, LLM_STORE_BOOT);

    rc = llm_store_meta_put(s, s->wtxn, "state", &state,
                            sizeof(llm_store_state_t));

    return rc ? rc : llm_store_commit_synced(s);
}


/* without MDB_NOSYNC LMDB writes the pages, syncs the whole file, and only
 * then writes what makes them count */

static int
llm_store_commit_synced(llm_store_t *s)
{
    int  rc;

    mdb_env_set_flags(s->env, MDB_NOSYNC, 0);

    rc = mdb_txn_commit(s->wtxn);
    s->wtxn = NULL;

    mdb_env_set_flags(s->env, MDB_NOSYNC, 1);

    return rc;
}


/* The file's state says that all is on disk: that ends before anything else
 * is written.  Another machine's start is noted with it. */

int
llm_store_write_begin(llm_store_t *s)
{
    int                rc;
    llm_uint_t         try;
    llm_store_state_t  state;

    /* another process may be closed in between, and then another */

    for (try = 0; try < 100; try++) {
        rc = mdb_txn_begin(s->env, NULL, 0, &s->wtxn);

        if (rc) {
            s->wtxn = NULL;
            return rc;
        }

        s->deleted = 0;
        s->evicted = 0;
        s->expired = 0;
        s->broken = 0;

        rc = llm_store_meta_get(s, s->wtxn, "state", &state,
                                sizeof(llm_store_state_t));
        if (rc) {
            return rc;
        }

        if (!state.clean) {
            return llm_store_note_limit(s);
        }

        state.clean = 0;
        memcpy(state.boot, s->boot, LLM_STORE_BOOT);

        rc = llm_store_meta_put(s, s->wtxn, "state", &state,
                                sizeof(llm_store_state_t));
        if (rc == 0) {
            rc = llm_store_commit_synced(s);
        }

        if (rc) {
            return rc;
        }
    }

    return EAGAIN;
}


/* for those who have to know it and are not told */

static int
llm_store_note_limit(llm_store_t *s)
{
    int  rc;

    if (s->conf->size == 0 || s->noted == s->conf->size) {
        return 0;
    }

    rc = llm_store_meta_put(s, s->wtxn, "limit", &s->conf->size,
                            sizeof(uint64_t));
    if (rc == 0) {
        s->noted = s->conf->size;
    }

    return rc;
}


int
llm_store_write_end(llm_store_t *s)
{
    int  rc;

    rc = mdb_txn_commit(s->wtxn);
    s->wtxn = NULL;

    if (rc) {
        return rc;
    }

    if (s->unsynced == 0) {
        s->unsynced = llm_store_now();
    }

    llm_store_count(s, evicted, s->evicted);
    llm_store_count(s, expired, s->expired);
    llm_store_count(s, corrupt, s->broken);

    return 0;
}


void
llm_store_write_abort(llm_store_t *s)
{
    if (s->wtxn) {
        mdb_txn_abort(s->wtxn);
        s->wtxn = NULL;
    }
}
