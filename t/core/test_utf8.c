
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * llm_utf8.c, each way that it has of checking, and what llm_json_scan()
 * makes of it and of escapes, 64 bytes at a time: against json_plain.h.
 * Random texts go on for LLM_TEST_SECONDS, 1 if not set.
 */


#include <time.h>

#include "run.h"
#include "json_plain.h"

/* its static functions are called here */

#include "llm_utf8.c"


#define TEXT_MAX  4096

#define countof(a)  (sizeof(a) / sizeof(a[0]))


typedef const u_char *(*fault_pt)(const u_char *p, const u_char *last);

typedef struct {
    const char  *name;
    fault_pt     fault;
    fault_pt     blocks;               /* may be NULL */
    size_t       size;                 /* of a block */
    size_t       wrong;
} way_t;


static const u_char *
walk(const u_char *p, const u_char *last)
{
    return llm_utf8_walk(p, p, last);
}


#if (LLM_SSE2)

static const u_char *
ssse3(const u_char *p, const u_char *last)
{
    return llm_utf8_walk(p, llm_utf8_blocks_ssse3(p, last), last);
}


static const u_char *
avx2(const u_char *p, const u_char *last)
{
    return llm_utf8_walk(p, llm_utf8_blocks_avx2(p, last), last);
}

#endif


static way_t   ways[4] = {
    { "as used", llm_utf8_fault, NULL, 0, 0 },
    { "walk", walk, NULL, 0, 0 }
};

static size_t  nways = 2;


static void
find_ways(void)
{
#if (LLM_SSE2)

    if (__builtin_cpu_supports("ssse3")) {
        ways[nways++] = (way_t) { "ssse3", ssse3, llm_utf8_blocks_ssse3, 32,
                                  0 };
    }

    if (__builtin_cpu_supports("avx2")) {
        ways[nways++] = (way_t) { "avx2", avx2, llm_utf8_blocks_avx2, 64, 0 };
    }

#endif
}


static void
check(const u_char *p, size_t len)
{
    size_t         i;
    way_t         *way;
    const u_char  *want, *last;

    last = p + len;
    want = plain_fault(p, last);

    for (i = 0; i < nways; i++) {
        way = &ways[i];

        if (way->fault(p, last) != want) {
            way->wrong++;
        }

        /* or it would be slow and none the wiser */

        if (way->blocks && want == last
            && way->blocks(p, last) != p + len / way->size * way->size)
        {
            way->wrong++;
        }
    }
}


static void
checked(const char *what)
{
    size_t  i;

    for (i = 0; i < nways; i++) {
        is_int(ways[i].wrong, 0, what);

        if (ways[i].wrong) {
            printf("#   %s\n", ways[i].name);
        }

        ways[i].wrong = 0;
    }
}


/* each kind, well-formed or not, at each place of blocks and of ends */

static const llm_str_t  kinds[] = {
    llm_string("\x7f"),
    llm_string("\xc2\x80"), llm_string("\xdf\xbf"),
    llm_string("\xe0\xa0\x80"), llm_string("\xe0\xbf\xbf"),
    llm_string("\xe1\x80\x80"), llm_string("\xec\xbf\xbf"),
    llm_string("\xed\x80\x80"), llm_string("\xed\x9f\xbf"),
    llm_string("\xee\x80\x80"), llm_string("\xef\xbf\xbf"),
    llm_string("\xf0\x90\x80\x80"), llm_string("\xf0\xbf\xbf\xbf"),
    llm_string("\xf1\x80\x80\x80"), llm_string("\xf3\xbf\xbf\xbf"),
    llm_string("\xf4\x80\x80\x80"), llm_string("\xf4\x8f\xbf\xbf"),

    llm_string("\x80"), llm_string("\xbf"),
    llm_string("\xc0\x80"), llm_string("\xc1\xbf"), llm_string("\xc0"),
    llm_string("\xc2"), llm_string("\xdf\x7f"), llm_string("\xc3\xc3\xa9"),
    llm_string("\xc3\xa9\xa9"),
    llm_string("\xe0\x80\x80"), llm_string("\xe0\x9f\xbf"),
    llm_string("\xed\xa0\x80"), llm_string("\xed\xbf\xbf"),
    llm_string("\xe1"), llm_string("\xe1\x80"), llm_string("\xe1\x80\x7f"),
    llm_string("\xe1\x80\xc0"), llm_string("\xe1\x7f\x80"),
    llm_string("\xe2\x82\xac\x80"), llm_string("\xe2\x82\xe2\x82\xac"),
    llm_string("\xf0\x80\x80\x80"), llm_string("\xf0\x8f\xbf\xbf"),
    llm_string("\xf4\x90\x80\x80"), llm_string("\xf5\x80\x80\x80"),
    llm_string("\xf4\xbf\xbf\xbf"), llm_string("\xf8\x88\x80\x80\x80"),
    llm_string("\xff"), llm_string("\xfe\x80\x80\x80\x80\x80"),
    llm_string("\xf1"), llm_string("\xf1\x80"), llm_string("\xf1\x80\x80"),
    llm_string("\xf1\x80\x80\x7f"), llm_string("\xf1\x80\x7f\x80"),
    llm_string("\xf1\x7f\x80\x80"), llm_string("\xf1\x80\x80\xf1"),
    llm_string("\xf0\x9f\x98\x80\x80")
};


static void
fill(u_char *p, size_t len, size_t with)
{
    static const llm_str_t  fillers[] = {
        llm_string("x"), llm_string("\xc3\xa9"), llm_string("\xe2\x82\xac"),
        llm_string("\xf0\x9f\x98\x80")
    };

    size_t  i;

    for (i = 0; i + fillers[with].len <= len; i += fillers[with].len) {
        memcpy(p + i, fillers[with].data, fillers[with].len);
    }

    memset(p + i, 'x', len - i);
}


static void
test_places(void)
{
    size_t   kind, with, place, tail, len;
    u_char  *p;

    for (tail = 0; tail < 80; tail += (tail < 4 || tail > 60) ? 1 : 7) {

        for (place = 0; place < 132; place++) {

            for (kind = 0; kind < countof(kinds); kind++) {
                with = (place + kind + tail) % 4;
                len = place + kinds[kind].len + tail;

                p = malloc(len);

                fill(p, place, with);
                memcpy(p + place, kinds[kind].data, kinds[kind].len);
                fill(p + place + kinds[kind].len, tail, tail / 4 % 4);

                check(p, len);

                free(p);
            }
        }
    }

    checked("kinds of sequences at places");
}


/* what the tables tell of two bytes depends on no others: all pairs, with
 * what may follow, across the ends of blocks too */

static void
test_pairs(void)
{
    size_t   i, k, n;
    u_char  *p;

    static const u_char  next[][2] = {
        { 0x80, 0x80 }, { 0xbf, 'x' }, { 'x', 'x' }, { 0xbf, 0xbf },
        { 0xc3, 0xa9 }
    };
    static const size_t  places[] = { 0, 13, 31, 63, 62 };

    p = malloc(67);

    for (i = 0; i < 0x10000; i++) {

        for (k = 0; k < 5; k++) {
            n = places[(i + k) % 5];

            memset(p, 'x', 67);
            p[n] = i >> 8;
            p[n + 1] = i;
            p[n + 2] = next[k][0];
            p[n + 3] = next[k][1];

            check(p, 67);
        }
    }

    free(p);

    checked("pairs of bytes");
}


static uint64_t
dice(uint64_t n)
{
    static uint64_t  state = 88172645463325252;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return (state >> 11) % n;
}


/* until this or that many texts, so that it ends whatever the clock says */

static int
goes_on(size_t *n, clock_t until)
{
    return ++*n % 64 || (*n < 1000000000 && clock() < until);
}


static clock_t
until(double seconds)
{
    const char  *s;

    s = getenv("LLM_TEST_SECONDS");

    return clock() + (s ? atof(s) : 1.0) * seconds * CLOCKS_PER_SEC;
}


static size_t
put(u_char *p, const char *text)
{
    memcpy(p, text, strlen(text));

    return strlen(text);
}


static size_t
random_sequence(u_char *p)
{
    const llm_str_t  *kind;

    kind = &kinds[1 + dice(16)];
    memcpy(p, kind->data, kind->len);

    /* a continuation that is not the second can be any */

    if (kind->len > 2) {
        p[kind->len - 1] = 0x80 + dice(0x40);
    }

    return kind->len;
}


static void
mutate(u_char *p, size_t *len)
{
    size_t  i, n;

    static const u_char  odd[] = "\"\"\"\\\\\\\n\x1f\0{}[],:u/ \x80\xbf\xc3"
                                 "\xe2\xf0\xff";

    for (n = dice(4) * dice(2); n && *len; n--) {
        i = dice(*len);

        switch (dice(4)) {

        case 0:
            p[i] = odd[dice(sizeof(odd) - 1)];
            break;

        case 1:
            p[i] = dice(256);
            break;

        case 2:
            memmove(p + i, p + i + 1, --*len - i);
            break;

        default:
            *len = dice(8) ? *len : i;
        }
    }
}


static void
test_random(void)
{
    size_t   n, len, max;
    u_char   text[TEXT_MAX], *p;
    clock_t  end;

    n = 0;
    end = until(0.4);

    while (goes_on(&n, end)) {
        max = dice(dice(8) ? 200 : 600);

        for (len = 0; len < max; /* void */) {

            if (dice(3) == 0) {
                len += random_sequence(text + len);

            } else {
                memset(text + len, 'x', 100);
                len += dice(dice(8) ? 4 : 100);
            }
        }

        mutate(text, &len);

        p = exact(text, len);
        check(p, len);
        free(p);
    }

    checked("random texts");
    printf("# %zu of them\n", n);
}


/* ---------------------------------------------------------------- JSON */

static const llm_str_t  names[] = {
    llm_string("a"), llm_string("\xc3\xa9"), llm_string("model")
};


static size_t
random_string(u_char *p, size_t size)
{
    size_t  len, n;

    len = 1;
    p[0] = '"';

    for (n = dice(dice(4) ? 5 : 40); n && len + 110 < size; n--) {

        switch (dice(8)) {

        case 0:
            memset(p + len, 'x', 100);
            len += dice(100);
            break;

        case 1:
        case 2:
            len += random_sequence(p + len);
            break;

        case 3:
            p[len++] = '\\';
            p[len++] = "\"\\/bfnrt"[dice(8)];
            break;

        case 4:
            len += sprintf((char *) p + len, dice(2) ? "\\u%04x" : "\\u%04X",
                           (unsigned) dice(0x10000));
            break;

        case 5:
            p[len] = '\\';
            memset(p + len, '\\', 8);
            len += 2 * dice(5);
            break;

        default:
            memset(p + len, 'y', 10);
            len += dice(10);
        }
    }

    p[len++] = '"';

    return len;
}


static size_t
random_value(u_char *p, size_t size, int depth)
{
    size_t  len, n;

    static const char  *scalars[] = {
        "true", "false", "null", "0", "-1.5e+10", "12345", "{}", "[]", "\"\""
    };
    static const char  *member[] = {
        "\"a\":", "\"\xc3\xa9\" : ", "\"mod\\u0065l\":", "\"model\": "
    };

    n = dice(depth ? 4 : 2);

    if (size < 400 || n == 3) {
        return put(p, scalars[dice(9)]);
    }

    if (n == 2) {
        return random_string(p, size);
    }

    len = 0;
    p[len++] = n ? '{' : '[';

    for ( ;; ) {

        if (n) {
            len += put(p + len, member[dice(4)]);
        }

        len += random_value(p + len, (size - len) / 2, depth + 1);

        if (len + 200 > size || dice(3) == 0) {
            break;
        }

        len += put(p + len, dice(4) ? "," : " ,\n  ");
    }

    p[len++] = n ? '}' : ']';

    return len;
}


/* 1 if both say the same */

static int
same(const u_char *text, size_t len)
{
    int               good;
    llm_int_t         rc, want;
    llm_str_t         json;
    llm_json_error_t  err, plain;
    llm_json_value_t  v[countof(names)], found[countof(names)];

    json.len = len;
    json.data = exact(text, len);

    want = plain_scan(&json, 8, &plain);
    rc = llm_json_scan(&json, 8, names, v, countof(names), &err);

    good = (rc == want);

    if (rc == LLM_ERROR) {
        memset(found, 0, sizeof(found));
        good = good && err.offset == plain.offset
               && strcmp(err.reason, plain.reason) == 0;

    } else {
        (void) llm_json_find(&json, names, found, countof(names));
    }

    good = good && plain_same(v, found, countof(names));

    free(json.data);

    return good;
}


/* what ends or breaks a string, at each place, behind escapes or not */

static void
test_strings(void)
{
    size_t   i, k, row, place, len, wrong;
    u_char   text[TEXT_MAX];

    static const char  *heads[] = { "", "\\n", "\xc3\xa9", "\xc3\xa9\\\\" };
    static const char  *odd[] = {
        "\"", "\\\"", "\\\\", "\\\\\\\"", "\\\\\"", "\\u00e9", "\\u00e",
        "\\u00g0", "\\x", "\\\n", "\n", "\x1f", "\\\xc3\xa9", "\xc3\xa9",
        "\xc3\\n", "\xc3\"", "\xe2\x82\n", "\x80", "\\u\xe2\x82\xac",
        "\\ud83d\\ude00", "\\"
    };

    wrong = 0;

    for (place = 0; place < 200; place++) {

        for (i = 0; i < countof(odd) * countof(heads); i++) {

            for (row = 0; row < 3; row++) {
                len = put(text, "[\"");
                len += put(text + len, heads[i % countof(heads)]);
                memset(text + len, 'x', place);
                len += place;

                for (k = 0; k < row; k++) {
                    len += put(text + len, row == 1 ? "\\\\" : "\\t");
                }

                len += put(text + len, odd[i / countof(heads)]);
                memset(text + len, 'x', 80);
                len += (place + i) % 80;
                len += put(text + len, (i % 3) ? "\"]" : "\\n\"]");

                wrong += !same(text, len);
            }
        }
    }

    is_int(wrong, 0, "odd bytes in strings");
}


/* an escape where one block of 64 ends, and something odd in the next two */

static void
test_blocks(void)
{
    size_t   i, place, next, len, wrong;
    u_char   text[TEXT_MAX];

    static const char  *escapes[] = { "\\n", "\\\\", "\\u00e9" };
    static const char  *odd[] = {
        "\"", "\\\"", "\\x", "\n", "\x80", "\xc3\xa9"
    };

    wrong = 0;

    for (place = 56; place < 70; place++) {

        for (next = place + 6; next < 210; next++) {

            for (i = 0; i < countof(odd) * countof(escapes); i++) {
                memset(text, 'x', TEXT_MAX);
                text[0] = '"';

                (void) put(text + 1, "\\t");
                (void) put(text + 3 + place, escapes[i % countof(escapes)]);
                len = 3 + next;
                len += put(text + len, odd[i / countof(escapes)]);
                len += 80;
                len += put(text + len, "\"");

                wrong += !same(text, len);
            }
        }
    }

    is_int(wrong, 0, "odd bytes in blocks");
}


/* the end of the text within an escape */

static void
test_cut(void)
{
    size_t   cut, place, len, wrong;
    u_char   text[TEXT_MAX];

    wrong = 0;

    for (place = 0; place < 200; place++) {

        for (cut = 0; cut < 12; cut++) {
            memset(text, 'x', TEXT_MAX);

            len = put(text, (cut % 2) ? "\"\\t" : "\"\xc3\xa9") + place;
            len += put(text + len, "\\u00e9");
            len -= cut / 2;

            wrong += !same(text, len);
        }
    }

    is_int(wrong, 0, "cut escapes");
}


static void
test_json(void)
{
    size_t   n, len, wrong;
    u_char   text[TEXT_MAX];
    clock_t  end;

    n = 0;
    wrong = 0;
    end = until(0.6);

    while (goes_on(&n, end)) {
        len = random_value(text, dice(4) ? 800 : sizeof(text), 0);
        mutate(text, &len);

        if (!same(text, len) && wrong++ == 0) {
            printf("#   %.*s\n", (int) len, text);
        }
    }

    is_int(wrong, 0, "random JSON");
    printf("# %zu texts\n", n);
}


int
main(void)
{
    find_ways();

    test_places();
    test_pairs();
    test_random();
    test_strings();
    test_blocks();
    test_cut();
    test_json();

    return done();
}
