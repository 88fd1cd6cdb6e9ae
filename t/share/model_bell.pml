/*
 * Bells (llm_share.h): two workers ring a third for one link each, and it may
 * die and be followed by another life at any moment.  Whatever was there to be
 * seen before a bell was rung has been seen when nothing moves any more.
 *
 * One statement is one access to shared memory; what is sequentially
 * consistent there is an interleaving here.  efd is the eventfd: it outlives
 * who reads it.
 *
 * BUG_ORDER: the bits are taken before ringing is set to 0.
 * BUG_RESET: a new life looks at nothing by itself.
 */

#define RINGERS  2
#define RINGS    2
#define LIVES    2

byte data[RINGERS];            /* what the links have */
byte seen[RINGERS];            /* what the worker knows of them */
bit  bits[RINGERS];
bit  ringing;
bit  efd;
byte done;

inline look(i)
{
    if
    :: atomic { bits[i] -> bits[i] = 0 }; seen[i] = data[i]
    :: else
    fi
}

proctype Ringer(byte i)
{
    byte n;
    bit was;

    do
    :: n < RINGS ->
        data[i]++;
        bits[i] = 1;
        atomic { was = ringing; ringing = 1 };
        if
        :: was == 0 -> efd = 1
        :: else
        fi;
        n++
    :: else -> break
    od;

    done++
}

proctype Worker()
{
    byte lives = LIVES;

life:
    /* what the former life knew is gone, and so is what it has not handled */

#ifndef BUG_RESET
    atomic { seen[0] = 0; seen[1] = 0 };
    ringing = 0;
    bits[0] = 1;
    bits[1] = 1;
    ringing = 1;
    efd = 1;
#endif

end:
    do
    :: efd ->
        efd = 0;

        if
        :: lives > 1 -> lives--; goto life
        :: true
        fi;

#ifdef BUG_ORDER
        look(0);
        look(1);
        ringing = 0;
#else
        ringing = 0;

        if
        :: lives > 1 -> lives--; goto life
        :: true
        fi;

        look(0);

        if
        :: lives > 1 -> lives--; goto life
        :: true
        fi;

        look(1);
#endif
    od
}

init {
    atomic { run Worker(); run Ringer(0); run Ringer(1) };

    timeout -> assert(done == RINGERS && seen[0] == data[0]
                      && seen[1] == data[1])
}
