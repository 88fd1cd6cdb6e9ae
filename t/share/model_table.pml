/*
 * The table (llm_share.h): workers ask for one key.  Who finds no one leads
 * until it leaves or dies; who finds somebody asks to join, and is refused if
 * that one has left.  There is never more than one who lives and leads, and
 * everybody who lives leads or has joined in the end.
 *
 * The mutex is robust: who waits gets it if its owner has died.  An entry
 * counts from its last word on.
 *
 * BUG_MUTEX: without the mutex.
 * BUG_DEAD: an entry of a dead worker is believed.
 * BUG_WORD: the word that makes it count is written first.
 */

#define WORKERS  3
#define WAYS     2

bit  alive[WORKERS];
bit  live[WAYS];
byte owner[WAYS];
byte mutex = 255;
byte leading;                  /* living workers in the table */
byte deaths = 2;
bit  leads[WORKERS];
bit  settled[WORKERS];

#define valid(i)  (live[i] && (alive[owner[i]] || dead_believed))

#ifdef BUG_DEAD
#define dead_believed  1
#else
#define dead_believed  0
#endif

inline lock()
{
#ifndef BUG_MUTEX
    atomic { (mutex == 255 || !alive[mutex]) -> mutex = me }
#else
    skip
#endif
}

inline unlock()
{
#ifndef BUG_MUTEX
    mutex = 255
#else
    skip
#endif
}

inline may_die()
{
    if
    :: atomic { deaths > 0 ->
        deaths--;
        alive[me] = 0;
        if
        :: leads[me] -> leading--; leads[me] = 0
        :: else
        fi;
        settled[me] = 1
       };
       goto dead
    :: true
    fi
}

proctype Worker(byte me)
{
    byte found, i, tries;

again:
    found = 255;
    lock();

    i = 0;
    do
    :: i < WAYS ->
        if
        :: valid(i) && owner[i] != me -> found = owner[i]
        :: else
        fi;
        i++
    :: else -> break
    od;

    may_die();

    if
    :: found == 255 ->

        i = 0;
        do
        :: i < WAYS && live[i] && alive[owner[i]] -> i++
        :: i < WAYS && (!live[i] || !alive[owner[i]]) -> break
        :: i == WAYS -> break
        od;

        assert(i < WAYS);

#ifdef BUG_WORD
        live[i] = 1;
        may_die();
        owner[i] = me;
#else
        live[i] = 0;
        owner[i] = me;
        may_die();
        live[i] = 1;
#endif

        atomic { leads[me] = 1; leading++ };
        assert(leading <= 1);
        unlock();

        may_die();

        /* the answer ends */

        lock();
        atomic { leads[me] = 0; leading--; settled[me] = 1 };
        live[i] = 0;
        unlock()

    :: else ->
        unlock();
        may_die();

        if
        :: !alive[found] && tries < 4 -> tries++; goto again   /* lost */
        :: alive[found] && leads[found] -> settled[me] = 1     /* joined */
        :: alive[found] && !leads[found] && tries < 4 ->
            tries++; goto again                                 /* refused */
        fi
    fi;

dead:
    skip
}

init {
    byte i;

    atomic {
        alive[0] = 1; alive[1] = 1; alive[2] = 1;
        run Worker(0); run Worker(1); run Worker(2)
    };

    (_nr_pr == 1);

    assert(settled[0] && settled[1] && settled[2]);

    /* what is left in the table is of the dead */

    assert(!live[0] || !alive[owner[0]]);
    assert(!live[1] || !alive[owner[1]])
}
