/*
 * A link's ring (llm_share.h): one writes, one reads, both sleep when there is
 * nothing to do.  All that was written is read, in order, and neither sleeps
 * for ever.
 *
 * Bells that are never lost (model_bell.pml) are a flag here.  put: what is
 * written but not flushed.
 *
 * BUG_FULL: the writer says that it waits after it has looked at tail.
 * BUG_FLUSH: it waits without having flushed.
 * BUG_LAST: the writer lets go before the last bytes can be seen.
 */

#define ROOM   2
#define TOTAL  5

byte ring[ROOM];
byte head;
byte tail;
bit  waits;                    /* full, in the code */
bit  writer = 1;               /* the flag of state */
bit  rung_w;
bit  rung_r;

proctype Writer()
{
    byte put, seen;

    do
    :: put == TOTAL -> break

    :: put < TOTAL ->

        seen = tail;

        if
        :: put - seen == ROOM ->
#ifdef BUG_FULL
            skip;
#else
            waits = 1;
            seen = tail;
#endif
            if
            :: put - seen == ROOM ->
#ifdef BUG_FULL
                waits = 1;
#endif
#ifndef BUG_FLUSH
                if
                :: head != put -> head = put; rung_r = 1
                :: else
                fi;
#endif
                atomic { rung_w -> rung_w = 0 }
            :: else
            fi
        :: else ->
            ring[put % ROOM] = put;
            put++;

            if
            :: head = put; rung_r = 1
            :: true                    /* flushed later, with more */
            fi
        fi
    od;

#ifdef BUG_LAST
    writer = 0;
    rung_r = 1;
    head = put;
#else
    head = put;
    writer = 0;
    rung_r = 1
#endif
}

proctype Reader()
{
    byte seen, was;
    bit held;

    do
    :: true ->
        seen = head;

        if
        :: seen != tail ->
            assert(ring[tail % ROOM] == tail);
            tail++;

            if
            :: waits ->
                atomic { was = waits; waits = 0 };
                if
                :: was -> rung_w = 1
                :: else
                fi
            :: else
            fi

        :: else ->
            held = writer;

            if
            :: !held && head == tail -> break
            :: !held && head != tail
            :: held -> atomic { rung_r -> rung_r = 0 }
            fi
        fi
    od;

    assert(tail == TOTAL)
}

init {
    atomic { run Writer(); run Reader() }
}
