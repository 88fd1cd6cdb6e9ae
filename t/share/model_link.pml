/*
 * The life of a link (llm_share.h).  Slot 0 has the flights; who lives in
 * slots 1 and 2 wants one, and there is one link.  Any of them may die between
 * any two steps, and be followed by another life in its slot, which cleans up.
 *
 * Checked: a link is never used by two pairs at once; who holds an end still
 * has it when it looks; a request is answered only by the life that it was
 * meant for; a reader that lives gets an answer, or learns that there will be
 * none; in the end the link is free.
 *
 * state is one word that is only changed by CAS: a d_step here.  life[s] is the
 * robust mutex of slot s: 1 as long as its owner lives.  That bells are not
 * lost is the matter of model_bell.pml: here a bit waits until it is taken.
 *
 * BUG_ASKED: a writer does not wait for ASKED.
 * BUG_NONCE: a writer does not look whom a request was meant for.
 * BUG_RECHECK: ... nor, when it has, whether the link is still the same.
 * BUG_CLEAN: a slot is freed before its links are cleaned up.
 * BUG_TICK: nobody looks after the other end.
 */

#ifndef LEAVES
#define LEAVES 1
#endif

#define NONE   255
#define SLOTS  3

/* state */
byte inc, wslot, rslot;
bit  W, R, ASKED, REFUSED, LOST;

/* filled in by the reader */
byte wanted = NONE;            /* the nonce it is meant for */
byte flight;
byte rnonce;

byte nonce[SLOTS];
bit  life[SLOTS];              /* the mutex is held by who lives */
bit  cleaning[SLOTS];          /* or by who cleans up */
bit  bell[SLOTS];
byte nonces = 0;
byte deaths;
byte leaves = LEAVES;
byte finished;
byte told;                     /* of whose flight the bytes in the ring are */
byte using;                    /* pairs that put bytes in or take them */

inline ring(s) { bell[s] = 1 }

/* seen_*: what was seen of the word */

#define same  (inc == s_inc && wslot == s_w && rslot == s_r)

inline see()
{
    d_step {
        s_inc = inc; s_w = wslot; s_r = rslot;
        s_W = W; s_R = R; s_asked = ASKED; s_ref = REFUSED; s_lost = LOST
    }
}

inline freed()
{
    if
    :: !W && !R ->
        inc++; wslot = 0; rslot = 0; ASKED = 0; REFUSED = 0; LOST = 0
    :: else
    fi
}

inline drop_writer(ref, lost_)
{
    d_step {
        dropped = 0;
        if
        :: same && W ->
            W = 0; REFUSED = REFUSED | ref; LOST = LOST | lost_;
            dropped = 1;
            freed()
        :: else
        fi
    }
}

inline drop_reader()
{
    d_step {
        dropped = 0;
        if
        :: same && R -> R = 0; dropped = 1; freed()
        :: else
        fi
    }
}

/* the ends of a slot whose life is over; its mutex is held */

inline clean(s)
{
    see();

    if
    :: s_W && s_w == s ->
        drop_writer(0, 1);
        if
        :: dropped -> ring(s_r)
        :: else
        fi
    :: else
    fi;

    see();

    if
    :: s_R && s_r == s ->
        drop_reader();
        if
        :: dropped -> ring(s_w)
        :: else
        fi
    :: else
    fi;

    nonce[s] = 0
}

/* is the life n of slot s over?  what it left is cleaned up */

inline check(s, n)
{
    dead = 0;

    if
    :: nonce[s] != n -> dead = 1
    :: else ->
        if
        :: d_step { !life[s] && !cleaning[s] -> cleaning[s] = 1 } ->
            if
            :: nonce[s] != 0 -> clean(s)
            :: else
            fi;
            cleaning[s] = 0;
            dead = 1
        :: else -> dead = (nonce[s] != n)
        fi
    fi
}

/* a process that dies does nothing more, and its mutex can be had; what its
 * end of the link is used for ends with it */

inline may_die(s)
{
    if
    :: d_step { deaths > 0 ->
        deaths--; life[s] = 0; using = using - used; used = 0
       };
       goto died
    :: true
    fi
}

inline begin(s)
{
    /* the mutex of the slot: of nobody, or of who has died */

    d_step { !life[s] && !cleaning[s] -> life[s] = 1 };

    if
    :: nonce[s] != 0 ->
#ifdef BUG_CLEAN
        nonce[s] = 0;
#endif
        /* who cleans up may die of it */

        may_die(s);
        clean(s)
    :: else
    fi;

    d_step { nonces++; me = nonces; nonce[s] = me };
    bell[s] = 1
}

proctype Writer()
{
    byte me, s_inc, s_w, s_r;
    bit s_W, s_R, s_asked, s_ref, s_lost, dropped, dead, own, used;
    bit for_me, changed;
    byte whose;

born:
    own = 0;
    begin(0);

end:
    do
    :: d_step { bell[0] -> bell[0] = 0 };

        may_die(0);
        see();

        if
        :: own && !s_R ->
            d_step { using = using - used; used = 0 };
            drop_writer(0, 0);
            own = 0

        :: own && s_R ->

            /* through, or somebody else's turn first */

            if
            :: told = flight;
               may_die(0);
               d_step { using = using - used; used = 0 };
               drop_writer(0, 0);
               own = 0;
               if
               :: dropped -> ring(s_r)
               :: else
               fi
            :: d_step { using = using - used; used = 0 };
               drop_writer(0, 1);
               own = 0;
               if
               :: dropped -> ring(s_r)
               :: else
               fi
            fi

        :: !own && s_W && s_w == 0 && !s_R -> drop_writer(0, 0)

#ifdef BUG_ASKED
        :: !own && s_W && s_w == 0 && s_R ->
#else
        :: !own && s_W && s_w == 0 && s_R && s_asked ->
#endif
            for_me = (wanted == me);
            whose = flight;

#ifndef BUG_RECHECK
            /* a reader that has found its writer dead may have let go of this
             * end, and the link be another's that is just filled in */

            if
            :: d_step { same && W && R && ASKED == s_asked -> changed = 0 }
            :: else -> changed = 1
            fi;
#endif
            if
            :: changed -> bell[0] = 1

            :: !changed && !for_me ->
#ifdef BUG_NONCE
                own = 1
#else
                drop_writer(1, 0);
                if
                :: dropped -> ring(s_r)
                :: else
                fi
#endif

            :: !changed && for_me ->

                /* refused, since it has left; or joined */

                if
                :: drop_writer(1, 0);
                    if
                    :: dropped -> ring(s_r)
                    :: else
                    fi
                :: assert(whose == me);
                    own = 1;
                    d_step { used = 1; using++ };
                    assert(using == 1);
                    bell[0] = 1
                fi
            fi

        :: else
        fi;

        may_die(0)

#ifndef BUG_TICK
    :: own && R && (nonce[rslot] != rnonce || !life[rslot]) ->

        /* a tick */

        see();
        check(s_r, rnonce);

        if
        :: dead ->
            drop_reader();
            bell[0] = 1
        :: else
        fi
#endif
    od;

died:
    if
    :: goto born
    :: true                            /* nobody comes in its place */
    fi
}

proctype Reader(byte s)
{
    byte me, s_inc, s_w, s_r, w, h_inc, goes;
    bit s_W, s_R, s_asked, s_ref, s_lost, dropped, dead, used;

    goes = 2;

born:
    begin(s);

again:
    if
    :: goes == 0 -> goto through
    :: else -> goes--
    fi;

    /* the table says who it is; it may be dead when it is asked */

    w = nonce[0];

    if
    :: w == 0 -> goto again
    :: else
    fi;

    /* the link becomes this reader's, if it is free */

    if
    :: d_step { !W && !R ->
        W = 1; R = 1; wslot = 0; rslot = s; h_inc = inc
       }
    :: else -> goto again
    fi;

    may_die(s);
    wanted = w;
    may_die(s);
    flight = w;
    rnonce = me;

    d_step {
        if
        :: W -> ASKED = 1
        :: else
        fi
    };

    may_die(s);
    ring(0);

    /* until the writer has let go */

    do
    :: d_step { bell[s] -> bell[s] = 0 };
        see();
        assert(s_R && s_r == s && s_inc == h_inc);

        if
        :: s_W
        :: else -> break
        fi;

        may_die(s)

#ifndef BUG_TICK
    :: W && (nonce[0] != w || !life[0]) ->
        see();
        assert(s_R && s_r == s && s_inc == h_inc);

        if
        :: s_W ->
            check(0, w);
            if
            :: dead ->
                drop_writer(0, 1);
                bell[s] = 1
            :: else
            fi
        :: else
        fi
#endif

    :: d_step { leaves > 0 -> leaves-- };

        /* its client leaves */

        break
    od;

    see();
    assert(s_R && s_r == s && s_inc == h_inc);

    if
    :: !s_W && !s_ref && !s_lost -> assert(told == w)
    :: else
    fi;

    drop_reader();

    if
    :: s_W -> ring(0)
    :: else
    fi;

    goto again;

died:
    goes = goes + 0;
    goto born;

through:
    /* gives up its slot */

    clean(s);
    life[s] = 0;
    finished++
}

init {
    byte s_inc, s_w, s_r;
    bit s_W, s_R, s_asked, s_ref, s_lost, dropped;

    deaths = DEATHS;

    atomic { run Writer(); run Reader(1); run Reader(2) };

    /* nothing moves: the writer waits for a bell that nobody will ring, or is
     * dead, and whoever starts next cleans up after it */

    timeout;

    assert(finished == 2);

    if
    :: !life[0] && nonce[0] != 0 -> clean(0)
    :: else
    fi;

    assert(!W && !R)
}
