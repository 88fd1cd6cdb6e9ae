
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Entries written, and others evicted for them; what is due from time to
 * time.  Slow.
 *
 * Eviction is a hand that goes over all entries in the order of their keys,
 * which is none to speak of, round and round: see LLM_STORE_MARK_NEW.  Where
 * it stands is kept in the file, so that all processes move one hand.
 *
 * Long values need pages in a row.  Where there is room, but not in one
 * piece, LMDB says that its map is full: then more is evicted, in a
 * transaction of its own, whose pages the next one may use.
 */


#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "llm_store_int.h"


#define LLM_STORE_BATCH    (16 * 1024 * 1024)  /* bytes of a transaction, and */
#define LLM_STORE_ENTRIES  1000                /* entries */
#define LLM_STORE_TRIES    5
#define LLM_STORE_SYNC     10000               /* ms */
#define LLM_STORE_CHECK    10000               /* ms: readers */
#define LLM_STORE_SPEND    5                   /* ms of a tend() */


typedef struct {
    llm_entry_t *const    *entries;
    llm_uint_t             n;
    llm_uint_t             stored;
    llm_uint_t             dropped;    /* hit by purges, or of no use */
} llm_store_batch_t;


typedef struct {
    uint64_t               pages;      /* to be freed */
    uint64_t               goal;       /* or: to be left in use */
    int                    more;       /* goal is not reached */
} llm_store_room_t;


static llm_int_t llm_store_write_batch(llm_store_t *s,
    llm_entry_t *const *entries, llm_uint_t n);
static void llm_store_write_done(llm_store_t *s,
    const llm_store_batch_t *batch);
static llm_int_t llm_store_write_again(llm_store_t *s,
    const llm_store_batch_t *batch, int rc, llm_uint_t try);
static int llm_store_write_txn(llm_store_t *s, void *data);
static int llm_store_write_entry(llm_store_t *s, const llm_entry_t *e,
    size_t len);
static uint64_t llm_store_pages(llm_store_t *s, size_t len);
static int llm_store_room_txn(llm_store_t *s, void *data);
static int llm_store_sweep(llm_store_t *s, MDB_cursor *cursor, u_char *hand,
    uint64_t goal, int force);
static int llm_store_goes(llm_store_t *s, const MDB_val *key,
    const MDB_val *value, uint64_t now, int force);
static int llm_store_ahead_txn(llm_store_t *s, void *data);
static int llm_store_corrupt_txn(llm_store_t *s, void *data);
static llm_int_t llm_store_ready(llm_store_t *s);


/* LLM_OK, or LLM_ERROR: it is to be opened */

static llm_int_t
llm_store_ready(llm_store_t *s)
{
    if (s->env == NULL) {
        return LLM_ERROR;
    }

    if (__atomic_load_n(&s->bad, __ATOMIC_ACQUIRE)) {
        return LLM_ERROR;
    }

    if (llm_store_moved(s)) {
        __atomic_store_n(&s->resized, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&s->bad, 1, __ATOMIC_RELEASE);
        return LLM_ERROR;
    }

    return LLM_OK;
}


llm_int_t
llm_store_write(llm_store_t *s, llm_entry_t *const *entries, llm_uint_t n)
{
    size_t      len;
    llm_int_t   rc, res;
    llm_uint_t  i, k;

    if (n == 0) {
        return LLM_OK;
    }

    if (llm_store_ready(s) != LLM_OK) {
        llm_store_count(s, dropped, n);
        return LLM_ERROR;
    }

    res = LLM_DECLINED;

    for (i = 0; i < n; i += k) {
        len = 0;

        for (k = 0; i + k < n && k < LLM_STORE_ENTRIES; k++) {
            len += llm_store_entry_len(entries[i + k]);

            if (k && len > LLM_STORE_BATCH) {
                break;
            }
        }

        rc = llm_store_write_batch(s, entries + i, k);

        if (rc == LLM_OK) {
            res = LLM_OK;
            continue;
        }

        /* the next batch would fail as this one did */

        llm_store_count(s, dropped, n - i);
        llm_store_count(s, errors, 1);

        return (rc == LLM_ERROR) ? LLM_ERROR : res;
    }

    return LLM_OK;
}


static llm_int_t
llm_store_write_batch(llm_store_t *s, llm_entry_t *const *entries,
    llm_uint_t n)
{
    int                rc;
    llm_int_t          res;
    llm_uint_t         i, try;
    llm_store_batch_t  batch;

    for (try = 0; try < LLM_STORE_TRIES; try++) {
        memset(&batch, 0, sizeof(llm_store_batch_t));
        batch.entries = entries;
        batch.n = n;

        rc = llm_store_call(s, llm_store_write_txn, &batch);

        if (rc == 0) {
            llm_store_write_done(s, &batch);
            return LLM_OK;
        }

        res = llm_store_write_again(s, &batch, rc, try);

        if (res != LLM_AGAIN) {
            return res;
        }
    }

    if (n == 1) {
        llm_store_count(s, dropped, 1);
        return LLM_OK;
    }

    /* one by one: the small ones may have room */

    for (i = 0; i < n; i++) {
        res = llm_store_write_batch(s, entries + i, 1);

        if (res != LLM_OK) {
            return res;
        }
    }

    return LLM_OK;
}


static void
llm_store_write_done(llm_store_t *s, const llm_store_batch_t *batch)
{
    u_char      *mark;
    llm_uint_t   i;

    for (i = 0; i < batch->n; i++) {
        mark = llm_store_mark_of(s, batch->entries[i]->key);

        if (mark && *mark < LLM_STORE_MARK_NEW) {
            *mark = LLM_STORE_MARK_NEW;
        }
    }

    llm_store_count(s, stores, batch->stored);
    llm_store_count(s, dropped, batch->dropped);
}


/* LLM_AGAIN: what failed may not fail again */

static llm_int_t
llm_store_write_again(llm_store_t *s, const llm_store_batch_t *batch, int rc,
    llm_uint_t try)
{
    size_t      len;
    uint64_t    pages;
    llm_int_t   res;
    llm_uint_t  i;

    llm_store_write_abort(s);

    if (rc == MDB_MAP_RESIZED) {
        (void) llm_store_is_bad(s, rc);

        return llm_store_open(s) == LLM_OK ? LLM_AGAIN : LLM_ERROR;
    }

    if (rc != MDB_MAP_FULL && rc != MDB_TXN_FULL) {
        return llm_store_failed(s, rc, "writing to the cache");
    }

    len = 0;

    for (i = 0; i < batch->n; i++) {
        len += llm_store_entry_len(batch->entries[i]);
    }

    pages = (llm_store_pages(s, len) + 16) << try;

    if (pages > s->limit / 16 + 16) {
        pages = s->limit / 16 + 16;
    }

    res = llm_store_make_room(s, pages);

    return res == LLM_OK ? LLM_AGAIN : res;
}


/* Evicts so many pages at least.  LLM_OK: it may be enough by now, LLM_DECLINED
 * or LLM_ERROR: as llm_store_failed() says. */


llm_int_t
llm_store_make_room(llm_store_t *s, uint64_t pages)
{
    int               rc;
    llm_store_room_t  room;

    llm_store_write_abort(s);

    memset(&room, 0, sizeof(llm_store_room_t));
    room.pages = pages;

    rc = llm_store_call(s, llm_store_room_txn, &room);

    /* LMDB uses freed pages from the second transaction on */

    if (rc == 0) {
        rc = llm_store_call(s, llm_store_room_txn, NULL);
    }

    if (rc == 0 || rc == MDB_MAP_FULL) {
        llm_store_write_abort(s);
        return LLM_OK;
    }

    return llm_store_failed(s, rc, "evicting from the cache");
}


static int
llm_store_write_txn(llm_store_t *s, void *data)
{
    int                 rc;
    size_t              len;
    uint64_t            used, need, high;
    llm_uint_t          i;
    llm_entry_t        *e;
    llm_store_batch_t  *batch = data;

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    rc = llm_store_purges_read(s, s->wtxn, &s->slow_purges);
    if (rc) {
        return rc;
    }

    high = s->limit * LLM_STORE_HIGH / 100;

    for (i = 0; i < batch->n; i++) {
        e = batch->entries[i];
        len = llm_store_entry_len(e);
        need = llm_store_pages(s, len);

        if (len == 0 || need > s->limit / 4
            || e->begun <= s->slow_purges.floor
            || llm_store_purged(&s->slow_purges, e, s->slow_purges.seq)
            || llm_store_mac(s->slow_mac, e->key, e->id) != LLM_OK)
        {
            batch->dropped++;
            continue;
        }

        used = llm_store_used(s, s->wtxn);

        if (used + need > high) {
            rc = llm_store_evict(s, s->wtxn,
                                 high > need + s->limit / 100
                                 ? high - need - s->limit / 100 : 0, 0);
            if (rc) {
                return rc;
            }
        }

        rc = llm_store_write_entry(s, e, len);
        if (rc) {
            return rc;
        }

        batch->stored++;
    }

    return llm_store_write_end(s);
}


static int
llm_store_write_entry(llm_store_t *s, const llm_entry_t *e, size_t len)
{
    int      rc;
    u_char   other[LLM_KEY_LEN];
    MDB_val  key, value;

    key.mv_size = LLM_KEY_LEN;

    if (e->flags & LLM_ENTRY_ALONE) {

        memcpy(other, e->key, LLM_KEY_LEN);
        other[LLM_KEY_LEN - 1] ^= 1;

        key.mv_data = other;

        rc = mdb_del(s->wtxn, s->answers, &key, NULL);

        if (rc && rc != MDB_NOTFOUND) {
            return rc;
        }
    }

    key.mv_data = (void *) e->key;

    value.mv_data = NULL;
    value.mv_size = len;

    rc = mdb_put(s->wtxn, s->answers, &key, &value, MDB_RESERVE);
    if (rc) {
        return rc;
    }

    llm_store_encode(value.mv_data, e, s->slow_purges.seq);

    return 0;
}


/* a small one shares its page */

static uint64_t
llm_store_pages(llm_store_t *s, size_t len)
{
    return (len + 16 + LLM_KEY_LEN) / s->psize + 1;
}


uint64_t
llm_store_used(llm_store_t *s, MDB_txn *txn)
{
    uint64_t    n;
    MDB_dbi     dbi[3];
    MDB_stat    st;
    llm_uint_t  i;

    /* that of free pages has no name, but number 0 */

    dbi[0] = 0;
    dbi[1] = s->meta;
    dbi[2] = s->answers;

    n = 2;

    for (i = 0; i < 3; i++) {
        if (mdb_stat(txn, dbi[i], &st) == 0) {
            n += st.ms_branch_pages + st.ms_leaf_pages
                 + st.ms_overflow_pages;
        }
    }

    return n;
}


static int
llm_store_room_txn(llm_store_t *s, void *data)
{
    int                rc;
    uint64_t           used, goal;
    llm_store_room_t  *room = data;

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    used = llm_store_used(s, s->wtxn);
    goal = used;

    if (room) {
        goal = used > room->pages ? used - room->pages : 0;
    }

    rc = llm_store_evict(s, s->wtxn, goal, room != NULL);
    if (rc) {
        return rc;
    }

    return llm_store_write_end(s);
}


int
llm_store_evict(llm_store_t *s, MDB_txn *txn, uint64_t goal, int force)
{
    int          rc;
    u_char       hand[LLM_KEY_LEN];
    MDB_cursor  *cursor;

    rc = llm_store_meta_get(s, txn, "hand", hand, LLM_KEY_LEN);

    if (rc == MDB_NOTFOUND) {
        memset(hand, 0, LLM_KEY_LEN);

    } else if (rc) {
        return rc;
    }

    rc = mdb_cursor_open(txn, s->answers, &cursor);
    if (rc) {
        return rc;
    }

    rc = llm_store_sweep(s, cursor, hand, goal, force);

    mdb_cursor_close(cursor);

    return rc ? rc : llm_store_meta_put(s, txn, "hand", hand, LLM_KEY_LEN);
}


static int
llm_store_sweep(llm_store_t *s, MDB_cursor *cursor, u_char *hand,
    uint64_t goal, int force)
{
    int             rc;
    MDB_txn        *txn;
    MDB_val         key, value;
    uint64_t        now;
    llm_uint_t      visited;
    MDB_cursor_op   op;

    txn = mdb_cursor_txn(cursor);
    now = llm_store_now();
    op = MDB_SET_RANGE;

    key.mv_data = hand;
    key.mv_size = LLM_KEY_LEN;

    rc = 0;

    for (visited = 0; visited < 2 * LLM_STORE_VISIT; visited++) {
        if (llm_store_used(s, txn) <= goal || s->deleted >= LLM_STORE_EVICT) {
            break;
        }

        rc = mdb_cursor_get(cursor, &key, &value, op);

        if (rc == MDB_NOTFOUND && op != MDB_FIRST) {
            op = MDB_FIRST;
            continue;
        }

        if (rc) {
            break;
        }

        memcpy(hand, key.mv_data, LLM_KEY_LEN);
        op = MDB_NEXT;

        if (!llm_store_goes(s, &key, &value, now,
                            force || visited >= LLM_STORE_VISIT))
        {
            continue;
        }

        rc = mdb_cursor_del(cursor, 0);
        if (rc) {
            break;
        }

        s->deleted++;
    }

    return rc == MDB_NOTFOUND ? 0 : rc;
}


/* 1 if the entry is to go.  What would go in the end goes at once with
 * force: those with no or one mark. */

static int
llm_store_goes(llm_store_t *s, const MDB_val *key, const MDB_val *value,
    uint64_t now, int force)
{
    u_char       *mark;
    uint64_t      seq;
    llm_entry_t   e;

    if (key->mv_size != LLM_KEY_LEN
        || llm_store_peek(key->mv_data, value->mv_data, value->mv_size, &e,
                          &seq)
           != LLM_OK)
    {
        s->broken++;
        return 1;
    }

    if (e.made + ((uint64_t) e.ttl + e.stale) * 1000 <= now) {
        s->expired++;
        return 1;
    }

    mark = llm_store_mark_of(s, key->mv_data);

    if (mark && *mark > (force ? 1 : 0)) {
        (*mark)--;
        return 0;
    }

    s->evicted++;

    return 1;
}


llm_int_t
llm_store_tend(llm_store_t *s, uint64_t now)
{
    int               rc;
    llm_int_t         res;
    uint64_t          deleted;
    llm_store_room_t  room;

    if (llm_store_ready(s) != LLM_OK) {
        return LLM_ERROR;
    }

    if (s->conf->readonly) {
        return LLM_OK;
    }

    if (s->unsynced && (now >= s->unsynced + LLM_STORE_SYNC
                        || now + LLM_STORE_SYNC < s->unsynced))
    {
        s->unsynced = 0;
        rc = mdb_env_sync(s->env, 1);

        if (rc) {
            return llm_store_failed(s, rc, "syncing the cache");
        }
    }

    if (now >= s->readers + LLM_STORE_CHECK
        || now + LLM_STORE_CHECK < s->readers)
    {
        s->readers = now;
        rc = mdb_reader_check(s->env, NULL);

        if (rc) {
            return llm_store_failed(s, rc, "checking the cache's readers");
        }
    }

    if (__atomic_load_n(&s->corrupt, __ATOMIC_ACQUIRE)) {
        rc = llm_store_call(s, llm_store_corrupt_txn, NULL);

        if (rc) {
            return llm_store_failed(s, rc, "deleting from the cache");
        }

        __atomic_store_n(&s->corrupt, 0, __ATOMIC_RELEASE);
    }

    res = llm_store_purge_work(s, now, LLM_STORE_SPEND, &deleted);

    if (res != LLM_OK) {
        return res;
    }

    memset(&room, 0, sizeof(llm_store_room_t));

    rc = llm_store_call(s, llm_store_ahead_txn, &room);

    if (rc) {
        return llm_store_failed(s, rc, "evicting from the cache");
    }

    return room.more ? LLM_AGAIN : LLM_OK;
}


static int
llm_store_ahead_txn(llm_store_t *s, void *data)
{
    int                rc;
    uint64_t           used;
    llm_store_room_t  *room = data;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    used = llm_store_used(s, s->stxn);
    llm_store_read_end(s);

    if (used <= s->limit * LLM_STORE_AHEAD / 100) {
        return 0;
    }

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    room->goal = s->limit * LLM_STORE_LOW / 100;

    rc = llm_store_evict(s, s->wtxn, room->goal, 0);
    if (rc) {
        return rc;
    }

    room->more = llm_store_used(s, s->wtxn) > room->goal;

    return llm_store_write_end(s);
}


/* the entry whose sum was wrong, if it still is */

static int
llm_store_corrupt_txn(llm_store_t *s, void *data)
{
    int          rc;
    MDB_val      key, value;
    uint64_t     seq;
    llm_run_t    runs[LLM_STORE_RUNS];
    llm_entry_t  e;

    (void) data;

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    key.mv_data = s->corrupt_key;
    key.mv_size = LLM_KEY_LEN;

    rc = mdb_get(s->wtxn, s->answers, &key, &value);

    if (rc == 0
        && llm_store_decode(s->corrupt_key, value.mv_data, value.mv_size, &e,
                            runs, &seq)
           != LLM_OK)
    {
        rc = mdb_del(s->wtxn, s->answers, &key, NULL);
    }

    if (rc && rc != MDB_NOTFOUND) {
        return rc;
    }

    return llm_store_write_end(s);
}
