
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Purges.  A purge is a record in the file: from the moment it is there,
 * entries that it matches are misses, and answers to calls that began before
 * are not stored.  What it matched is deleted by and by, the position is
 * kept in the record, so that any process goes on with it.
 *
 * Records that are done are kept for as long as calls may take that began
 * before.  When one is let go, the list's floor is raised to its time: calls
 * that began before that are not stored at all.
 */


#include <stdlib.h>
#include <string.h>

#include "core/llm_dialect.h"
#include "llm_store_int.h"


#define LLM_STORE_KEEP     (2 * 3600 * 1000ULL)    /* ms: done records */
#define LLM_STORE_SKEW     60000                   /* ms: clocks go back */
#define LLM_STORE_WALK     5000                    /* entries looked at in a
                                                      transaction */
#define LLM_STORE_AT_ONCE  50                      /* ms */


typedef struct {
    llm_store_purge_t      rec;
    uint64_t               now;
    uint64_t               matched;
    int                    full;       /* deletions have to be ended first */
} llm_store_add_t;


typedef struct {
    uint64_t               now;
    uint64_t               deleted;
    int                    more;
} llm_store_work_t;


static llm_int_t llm_store_purge_match(llm_store_purge_t *rec,
    llm_purge_e what, const llm_str_t *text);
static llm_int_t llm_store_purge_scopes(llm_store_purge_t *rec,
    const llm_str_t *text);
static llm_int_t llm_store_purge_id(llm_store_purge_t *rec,
    const llm_str_t *text);
static int llm_store_purge_add(llm_store_t *s, void *data);
static int llm_store_purge_count(llm_store_t *s, void *data);
static int llm_store_purge_count_range(llm_store_t *s, llm_store_add_t *add,
    MDB_cursor *cursor, llm_uint_t range);
static int llm_store_purge_due(llm_store_t *s, uint64_t now, int *due);
static int llm_store_purge_txn(llm_store_t *s, void *data);
static int llm_store_purge_sweep(llm_store_t *s, llm_store_purge_t *rec,
    MDB_cursor *cursor, llm_store_work_t *work);
static llm_uint_t llm_store_purge_tidy(llm_store_purges_t *pl, uint64_t now);


llm_int_t
llm_store_purge(llm_store_t *s, llm_purge_e what, const llm_str_t *text,
    uint64_t now, llm_purged_t *res)
{
    int              rc;
    llm_int_t        work;
    uint64_t         deleted;
    llm_uint_t       try;
    llm_store_add_t  add;

    memset(res, 0, sizeof(llm_purged_t));
    memset(&add, 0, sizeof(llm_store_add_t));

    if (s->env == NULL) {
        return LLM_AGAIN;
    }

    if (s->conf->readonly || llm_store_moved(s)
        || __atomic_load_n(&s->bad, __ATOMIC_ACQUIRE))
    {
        return LLM_ERROR;
    }

    if (llm_store_purge_match(&add.rec, what, text) != LLM_OK) {
        return LLM_DECLINED;
    }

    add.rec.time = now;
    add.now = now;

    for (try = 0; /* void */ ; try++) {
        add.full = 0;
        rc = llm_store_call(s, llm_store_purge_add, &add);

        if (rc == 0 && !add.full) {
            break;
        }

        if (rc == MDB_MAP_FULL && try < LLM_STORE_ROOMS
            && llm_store_make_room(s, 64 << try) == LLM_OK)
        {
            continue;
        }

        if (rc) {
            (void) llm_store_failed(s, rc, "purging the cache");
            return LLM_ERROR;
        }

        if (try == LLM_STORE_PURGES) {
            return LLM_ERROR;
        }

        do {
            work = llm_store_purge_work(s, now, 1000, &deleted);
        } while (work == LLM_AGAIN);

        if (work != LLM_OK) {
            return LLM_ERROR;
        }
    }

    rc = llm_store_call(s, llm_store_purge_count, &add);

    if (rc) {
        (void) llm_store_failed(s, rc, "purging the cache");
        return LLM_ERROR;
    }

    res->matched = add.matched;

    (void) llm_store_purge_work(s, now, LLM_STORE_AT_ONCE, &deleted);

    res->deleted = deleted < res->matched ? deleted : res->matched;
    res->pending = res->matched - res->deleted;

    return LLM_OK;
}


static llm_int_t
llm_store_purge_match(llm_store_purge_t *rec, llm_purge_e what,
    const llm_str_t *text)
{
    uint64_t  digest;

    rec->what = what;

    switch (what) {

    case LLM_PURGE_ALL:
        return LLM_OK;

    case LLM_PURGE_SCOPE:
        return llm_store_purge_scopes(rec, text);

    case LLM_PURGE_MODEL:
        digest = llm_digest(text->data, text->len, 0);
        memcpy(rec->match, &digest, sizeof(uint64_t));
        return LLM_OK;

    case LLM_PURGE_ID:
        return llm_store_purge_id(rec, text);

    default:
        return LLM_DECLINED;
    }
}


static llm_int_t
llm_store_purge_scopes(llm_store_purge_t *rec, const llm_str_t *text)
{
    u_char      *p;
    size_t       len;
    llm_int_t    rc;
    llm_str_t    scope, value;
    llm_uint_t   i;

    static const char *const  words[] = { "", "key ", "value ", "user " };

    p = malloc(text->len + sizeof("value ") + LLM_HASHED_LEN);
    if (p == NULL) {
        return LLM_ERROR;
    }

    rc = LLM_OK;

    for (i = 0; i < 4 && rc == LLM_OK; i++) {
        len = strlen(words[i]);
        memcpy(p, words[i], len);

        if (i == 2 && !(text->len > 7 && memcmp(text->data, "sha256:", 7) == 0))
        {
            /* a value stands there hashed */

            value = *text;

            if (value.len > 6 && memcmp(value.data, "value ", 6) == 0) {
                value.data += 6;
                value.len -= 6;
            }

            rc = llm_store_hashed(p + len, &value);
            len += LLM_HASHED_LEN;

        } else if (text->len) {
            memcpy(p + len, text->data, text->len);
            len += text->len;
        }

        scope.data = p;
        scope.len = len;

        if (rc == LLM_OK) {
            rc = llm_store_scope(rec->match[i], &scope);
        }
    }

    rec->nranges = 4;
    free(p);

    return rc;
}


static llm_int_t
llm_store_purge_id(llm_store_purge_t *rec, const llm_str_t *text)
{
    u_char      ch, id[LLM_ID_LEN];
    llm_uint_t  i;

    if (text->len != LLM_ID_LEN * 2) {
        return LLM_DECLINED;
    }

    memset(id, 0, LLM_ID_LEN);

    for (i = 0; i < text->len; i++) {
        ch = text->data[i];

        if (ch >= '0' && ch <= '9') {
            ch -= '0';

        } else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f') {
            ch = (ch | 0x20) - 'a' + 10;

        } else {
            return LLM_DECLINED;
        }

        id[i / 2] = id[i / 2] << 4 | ch;
    }

    memcpy(rec->match, id, LLM_ID_LEN);

    return LLM_OK;
}


static int
llm_store_purge_add(llm_store_t *s, void *data)
{
    int                  rc;
    llm_store_add_t     *add = data;
    llm_store_purges_t  *pl;

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    pl = &s->slow_purges;

    rc = llm_store_purges_read(s, s->wtxn, pl);
    if (rc) {
        return rc;
    }

    (void) llm_store_purge_tidy(pl, add->now);

    if (pl->n == LLM_STORE_PURGES) {
        add->full = 1;
        llm_store_write_abort(s);
        return 0;
    }

    add->rec.seq = ++pl->seq;
    pl->list[pl->n++] = add->rec;

    rc = llm_store_purges_write(s, s->wtxn, pl);

    return rc ? rc : llm_store_write_end(s);
}


/* Lets go of what is old, and of the oldest done one if there is no room; a
 * time that is still to come was told by a clock that went wrong.  1 if the
 * list has changed. */

static llm_uint_t
llm_store_purge_tidy(llm_store_purges_t *pl, uint64_t now)
{
    uint64_t            i, n, changed, room;
    llm_store_purge_t  *p;

    changed = 0;
    room = (pl->n == LLM_STORE_PURGES);

    if (pl->floor > now + LLM_STORE_SKEW) {
        pl->floor = now;
        changed = 1;
    }

    for (i = 0, n = 0; i < pl->n; i++) {
        p = &pl->list[i];

        if (p->done && p->time > now + LLM_STORE_SKEW) {
            p->time = now;
            changed = 1;
        }

        if (p->done && (room || p->time + LLM_STORE_KEEP <= now)) {
            pl->floor = p->time > pl->floor ? p->time : pl->floor;
            room = 0;
            changed = 1;
            continue;
        }

        if (n != i) {
            pl->list[n] = *p;
        }

        n++;
    }

    pl->n = n;

    return changed;
}


/* what it hits of the entries that are there, but no other purge does */

static int
llm_store_purge_count(llm_store_t *s, void *data)
{
    int               rc;
    MDB_stat          st;
    llm_uint_t        i;
    MDB_cursor       *cursor;
    llm_store_add_t  *add = data;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    if (add->rec.what == LLM_PURGE_ALL) {
        rc = mdb_stat(s->stxn, s->answers, &st);
        add->matched = rc ? 0 : st.ms_entries;
        llm_store_read_end(s);
        return rc;
    }

    rc = mdb_cursor_open(s->stxn, s->answers, &cursor);
    if (rc) {
        return rc;
    }

    for (i = 0; i < (add->rec.nranges ? add->rec.nranges : 1); i++) {
        rc = llm_store_purge_count_range(s, add, cursor, i);
        if (rc) {
            break;
        }
    }

    mdb_cursor_close(cursor);
    llm_store_read_end(s);

    return rc;
}


static int
llm_store_purge_count_range(llm_store_t *s, llm_store_add_t *add,
    MDB_cursor *cursor, llm_uint_t range)
{
    int            rc;
    u_char         from[LLM_KEY_LEN];
    MDB_val        key, value;
    uint64_t       seq;
    llm_uint_t     i;
    llm_entry_t    e;
    MDB_cursor_op  op;

    memset(from, 0, LLM_KEY_LEN);
    memcpy(from, add->rec.match[range], add->rec.nranges ? LLM_KEY_SCOPE : 0);

    key.mv_data = from;
    key.mv_size = LLM_KEY_LEN;
    op = MDB_SET_RANGE;

    while ((rc = mdb_cursor_get(cursor, &key, &value, op)) == 0) {
        op = MDB_NEXT;

        if (add->rec.nranges
            && memcmp(key.mv_data, from, LLM_KEY_SCOPE) != 0)
        {
            return 0;
        }

        if (llm_store_peek(key.mv_data, value.mv_data, value.mv_size, &e,
                           &seq)
            != LLM_OK
            || !llm_store_purge_one(&add->rec, &e, seq))
        {
            continue;
        }

        /* those of earlier purges are not there any more */

        for (i = 0; i < s->slow_purges.n; i++) {
            if (s->slow_purges.list[i].seq < add->rec.seq
                && llm_store_purge_one(&s->slow_purges.list[i], &e, seq))
            {
                break;
            }
        }

        add->matched += (i == s->slow_purges.n);
    }

    return rc == MDB_NOTFOUND ? 0 : rc;
}


llm_int_t
llm_store_purge_work(llm_store_t *s, uint64_t now, uint64_t ms,
    uint64_t *deleted)
{
    int               rc;
    uint64_t          start;
    llm_uint_t        try;
    llm_store_work_t  work;

    *deleted = 0;
    start = llm_store_now();

    try = 0;

    do {
        memset(&work, 0, sizeof(llm_store_work_t));
        work.now = now;

        rc = llm_store_call(s, llm_store_purge_txn, &work);

        if (rc == MDB_MAP_FULL && try < LLM_STORE_ROOMS
            && llm_store_make_room(s, 64 << try) == LLM_OK)
        {
            try++;
            work.more = 1;
            continue;
        }

        if (rc) {
            return llm_store_failed(s, rc, "purging the cache");
        }

        *deleted += work.deleted;

    } while (work.more && llm_store_now() - start < ms);

    return work.more ? LLM_AGAIN : LLM_OK;
}


/* *due: the list is not as it should be; no lock is taken for that */

static int
llm_store_purge_due(llm_store_t *s, uint64_t now, int *due)
{
    int                  rc;
    llm_store_purges_t  *pl;

    pl = &s->slow_purges;

    rc = llm_store_read_begin(s);
    if (rc) {
        return rc;
    }

    rc = llm_store_purges_read(s, s->stxn, pl);
    llm_store_read_end(s);

    *due = (rc == 0 && (llm_store_purges_pending(pl) != 0
                        || llm_store_purge_tidy(pl, now)));

    return rc;
}


/* a piece of the first record that is not done */

static int
llm_store_purge_txn(llm_store_t *s, void *data)
{
    int                  rc, due;
    MDB_cursor          *cursor;
    llm_uint_t           i;
    llm_store_work_t    *work = data;
    llm_store_purges_t  *pl;

    pl = &s->slow_purges;

    rc = llm_store_purge_due(s, work->now, &due);

    if (rc || !due) {
        return rc;
    }

    rc = llm_store_write_begin(s);
    if (rc) {
        return rc;
    }

    rc = llm_store_purges_read(s, s->wtxn, pl);
    if (rc) {
        return rc;
    }

    if (llm_store_purge_tidy(pl, work->now)) {
        pl->seq++;
    }

    for (i = 0; i < pl->n && pl->list[i].done; i++) { /* void */ }

    if (i < pl->n) {
        rc = mdb_cursor_open(s->wtxn, s->answers, &cursor);
        if (rc) {
            return rc;
        }

        rc = llm_store_purge_sweep(s, &pl->list[i], cursor, work);

        mdb_cursor_close(cursor);

        if (rc) {
            return rc;
        }

        pl->seq += pl->list[i].done;
    }

    work->more = (llm_store_purges_pending(pl) != 0);

    rc = llm_store_purges_write(s, s->wtxn, pl);
    if (rc) {
        return rc;
    }

    rc = llm_store_write_end(s);

    if (rc == 0) {
        llm_store_count(s, purged, work->deleted);
    }

    return rc;
}


static int
llm_store_purge_sweep(llm_store_t *s, llm_store_purge_t *rec,
    MDB_cursor *cursor, llm_store_work_t *work)
{
    int          rc;
    MDB_val      key, value;
    uint64_t     seq, visited;
    llm_entry_t  e;

    for (visited = 0;
         visited < LLM_STORE_WALK && work->deleted < LLM_STORE_EVICT;
         visited++)
    {
        if (rec->what == LLM_PURGE_SCOPE
            && memcmp(rec->pos, rec->match[rec->range], LLM_KEY_SCOPE) != 0)
        {
            memset(rec->pos, 0, LLM_KEY_LEN);
            memcpy(rec->pos, rec->match[rec->range], LLM_KEY_SCOPE);
        }

        key.mv_data = rec->pos;
        key.mv_size = LLM_KEY_LEN;

        rc = mdb_cursor_get(cursor, &key, &value,
                            visited ? MDB_NEXT : MDB_SET_RANGE);

        if (rc && rc != MDB_NOTFOUND) {
            return rc;
        }

        if (rc == MDB_NOTFOUND
            || (rec->what == LLM_PURGE_SCOPE
                && memcmp(key.mv_data, rec->match[rec->range],
                          LLM_KEY_SCOPE)
                   != 0))
        {
            if (++rec->range >= rec->nranges) {
                rec->done = 1;
                return 0;
            }

            visited = (uint64_t) -1;
            continue;
        }

        memcpy(rec->pos, key.mv_data, LLM_KEY_LEN);

        if (llm_store_peek(key.mv_data, value.mv_data, value.mv_size, &e,
                           &seq)
            == LLM_OK
            && !llm_store_purged(&s->slow_purges, &e, seq))
        {
            continue;
        }

        rc = mdb_cursor_del(cursor, 0);
        if (rc) {
            return rc;
        }

        work->deleted++;
    }

    return 0;
}
