
/*
 * One timer a connection, in a binary heap by expiry; c->timer is its place.
 */

#include <stdio.h>
#include <stdlib.h>

#include "mock.h"


static mock_conn_t  **mock_heap;
static int            mock_heap_n, mock_heap_cap;


static void
mock_timer_put(int i, mock_conn_t *c)
{
    mock_heap[i] = c;
    c->timer = i;
}


static void
mock_timer_up(int i, mock_conn_t *c)
{
    int  parent;

    while (i > 0) {
        parent = (i - 1) / 2;

        if (mock_heap[parent]->timer_at <= c->timer_at) {
            break;
        }

        mock_timer_put(i, mock_heap[parent]);
        i = parent;
    }

    mock_timer_put(i, c);
}


static void
mock_timer_down(int i, mock_conn_t *c)
{
    int  child;

    for ( ;; ) {
        child = 2 * i + 1;

        if (child >= mock_heap_n) {
            break;
        }

        if (child + 1 < mock_heap_n
            && mock_heap[child + 1]->timer_at < mock_heap[child]->timer_at)
        {
            child++;
        }

        if (mock_heap[child]->timer_at >= c->timer_at) {
            break;
        }

        mock_timer_put(i, mock_heap[child]);
        i = child;
    }

    mock_timer_put(i, c);
}


void
mock_timer_set(mock_conn_t *c, int64_t at)
{
    if (c->timer >= 0) {
        mock_timer_del(c);
    }

    if (mock_heap_n == mock_heap_cap) {
        mock_heap_cap = mock_heap_cap ? mock_heap_cap * 2 : 1024;
        mock_heap = realloc(mock_heap,
                            (size_t) mock_heap_cap * sizeof(mock_conn_t *));
        if (mock_heap == NULL) {
            perror("llm_mock: realloc");
            exit(1);
        }
    }

    c->timer_at = at;
    mock_timer_up(mock_heap_n++, c);
}


void
mock_timer_del(mock_conn_t *c)
{
    int           i;
    mock_conn_t  *last;

    i = c->timer;

    if (i < 0) {
        return;
    }

    c->timer = -1;
    last = mock_heap[--mock_heap_n];

    if (last == c) {
        return;
    }

    if (last->timer_at < c->timer_at) {
        mock_timer_up(i, last);

    } else {
        mock_timer_down(i, last);
    }
}


mock_conn_t *
mock_timer_expired(int64_t now)
{
    mock_conn_t  *c;

    if (mock_heap_n == 0 || mock_heap[0]->timer_at > now) {
        return NULL;
    }

    c = mock_heap[0];
    mock_timer_del(c);

    return c;
}


/* Returns the earliest expiry, or -1 when no timer is set. */

int64_t
mock_timer_next(void)
{
    return mock_heap_n ? mock_heap[0]->timer_at : -1;
}
