
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Damaged files: bits flipped at random, cut off, written over.  Whatever the
 * file is, a process that opens and uses it must not crash, hang or give an
 * entry that is not as it was written.
 */


#include "store.h"


#define ENTRIES  60
#define BATCH    25                    /* files a process */


static u_char  *image;
static size_t   image_len;


typedef enum {
    FLIP_ANY = 0,
    FLIP_HEADS,                        /* the first bytes of pages */
    FLIP_META,                         /* the two first pages */
    FLIP_CUT,
    FLIP_BLOCK                         /* a page's worth of another page */
} flip_e;


typedef struct {
    unsigned               seed;
    flip_e                 kind;
} flip_t;


static size_t
item_len(int n)
{
    return (n % 10 == 0) ? 9000 + n * 100 : 50 + n * 37;
}


static void
image_write(const void *data, size_t len)
{
    int  fd;

    unlink(file("data.mdb"));
    unlink(file("lock.mdb"));
    unlink(file("open.lock"));

    fd = open(file("data.mdb"), O_WRONLY|O_CREAT|O_TRUNC, 0600);

    if (fd == -1 || write(fd, data, len) != (ssize_t) len) {
        _exit(99);
    }

    close(fd);
}


static void
image_make(void)
{
    int          fd, i;
    cache_t      c;
    struct stat  st;

    cache_open(&c, 4 * MB);

    /* pages that were used and are free, too */

    for (i = 0; i < ENTRIES * 2; i++) {
        put(&c, i % ENTRIES, item_len((i * 7) % ENTRIES));
    }

    for (i = 0; i < ENTRIES; i++) {
        put(&c, i, item_len(i));
    }

    cache_close(&c);

    fd = open(file("data.mdb"), O_RDONLY);
    fstat(fd, &st);
    image_len = st.st_size;
    image = malloc(image_len);

    if (read(fd, image, image_len) != (ssize_t) image_len) {
        exit(1);
    }

    close(fd);
}


/* all that one does with a cache */

static int
use(void)
{
    int                i, bad;
    cache_t            c;
    llm_str_t          text;
    llm_int_t          rc;
    llm_purged_t       res;
    llm_store_stat_t   st;

    if (cache_open(&c, 4 * MB) != LLM_OK) {
        return 1;
    }

    bad = 0;

    for (i = 0; i < ENTRIES; i++) {
        rc = get(&c, i, item_len(i));
        bad += (rc != LLM_OK && rc != LLM_DECLINED);
    }

    llm_store_tend(c.store, now_ms());

    for (i = 0; i < ENTRIES * 2; i += 3) {
        put(&c, i, 100 + i * 90);
    }

    text = str("model-3");
    llm_store_purge(c.store, LLM_PURGE_MODEL, &text, now_ms(), &res);
    text = str("u1");
    llm_store_purge(c.store, LLM_PURGE_SCOPE, &text, now_ms(), &res);
    llm_store_tend(c.store, now_ms());

    for (i = 0; i < ENTRIES; i++) {
        rc = get(&c, i, (i % 3) ? item_len(i) : 100 + (size_t) i * 90);
        bad += (rc != LLM_OK && rc != LLM_DECLINED);
    }

    bad += (llm_store_stat(c.store, &st) != LLM_OK);
    bad += (c.store->bad != 0);

    cache_close(&c);

    return bad ? 2 : 0;
}


static void
damage(u_char *p, size_t *len, const flip_t *flip)
{
    int     i, n;
    size_t  pos;

    n = 1 + rand() % 4;

    for (i = 0; i < n; i++) {
        switch (flip->kind) {

        case FLIP_ANY:
            pos = rand() % *len;
            break;

        case FLIP_HEADS:
            pos = rand() % (*len / 4096) * 4096 + rand() % 64;
            break;

        case FLIP_META:
            pos = rand() % 2 * 4096 + rand() % 160;
            break;

        case FLIP_CUT:
            *len = rand() % *len;
            return;

        default:
            pos = rand() % (*len / 4096) * 4096;
            memcpy(p + pos, image + rand() % (*len / 4096) * 4096, 4096);
            continue;
        }

        p[pos] ^= 1 << rand() % 8;
    }
}


static int
batch(void *arg)
{
    int      i, rc;
    u_char  *p;
    size_t   len;
    flip_t  *flip = arg;

    srand(flip->seed);
    alarm(60);

    p = malloc(image_len);

    for (i = 0; i < BATCH; i++) {
        len = image_len;
        memcpy(p, image, len);
        damage(p, &len, flip);

        image_write(p, len);
        memset(shared, 0, sizeof(llm_store_shared_t));

        rc = use();

        if (rc) {
            return rc;
        }
    }

    free(p);

    return 0;
}


static void
flips(flip_e kind, const char *name, int n)
{
    int     i, rc, bad;
    flip_t  flip;

    bad = 0;
    flip.kind = kind;

    for (i = 0; i < n; i++) {
        flip.seed = kind * 100000 + i;
        rc = in_child(batch, &flip);

        if (rc && bad++ == 0) {
            printf("# seed %u: %d\n", flip.seed, rc);
        }
    }

    ok(bad == 0, "%s: %d files", name, n * BATCH);
    ok(dir_count("data.mdb.bad-") <= 1, "%s: one is kept", name);
}


/* what is sound stays: each file that is not damaged passes */

static void
sound(void)
{
    cache_t  c;

    image_write(image, image_len);
    memset(shared, 0, sizeof(llm_store_shared_t));
    is_int(cache_open(&c, 4 * MB), LLM_OK, "sound: open");
    is_int(shared->recreated, 0, "sound: stays");
    is_int(get(&c, 10, item_len(10)), LLM_OK, "sound: an entry");
    cache_close(&c);
}


/* the entry's sum finds what the check does not look at */

static void
value(void)
{
    size_t    i;
    item_t    t;
    cache_t   c;
    u_char   *p;

    p = malloc(image_len);
    memcpy(p, image, image_len);
    item_init(&t, 10, item_len(10));

    for (i = 0; i + 100 < image_len; i++) {
        if (memcmp(p + i, t.text, 100) == 0) {
            p[i + 50] ^= 0x10;
        }
    }

    item_free(&t);
    image_write(p, image_len);
    free(p);

    memset(shared, 0, sizeof(llm_store_shared_t));
    is_int(cache_open(&c, 4 * MB), LLM_OK, "value: open");
    is_int(shared->recreated, 0, "value: the file stays");
    is_int(get(&c, 10, item_len(10)), LLM_DECLINED, "value: a miss");
    is_int(shared->corrupt, 1, "value: counted");
    is_int(get(&c, 11, item_len(11)), LLM_OK, "value: others are there");
    is_int(llm_store_tend(c.store, now_ms()), LLM_OK, "value: tend");
    is_int(get(&c, 10, item_len(10)), LLM_DECLINED, "value: is gone");
    is_int(shared->corrupt, 1, "value: was deleted");
    cache_close(&c);
}


/* while it is in use */

static void
cut(void)
{
    int      i;
    cache_t  c;

    image_write(image, image_len);
    memset(shared, 0, sizeof(llm_store_shared_t));
    cache_open(&c, 4 * MB);
    is_int(get(&c, 10, item_len(10)), LLM_OK, "cut: before");

    if (truncate(file("data.mdb"), image_len / 2) != 0) {
        exit(1);
    }

    is_int(get(&c, 10, item_len(10)), LLM_ERROR, "cut: get");
    is_int(llm_store_open(c.store), LLM_OK, "cut: open");
    is_int(shared->recreated, 1, "cut: begun anew");

    for (i = 0; i < 100; i++) {
        put(&c, i, 1000);
    }

    is_int(get(&c, 99, 1000), LLM_OK, "cut: goes on");
    cache_close(&c);
}


int
main(void)
{
    dir_new(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    image_make();

    printf("# %zu bytes\n", image_len);

    sound();
    value();
    cut();

    flips(FLIP_ANY, "any bits", rounds(16, 400));
    flips(FLIP_HEADS, "bits of heads", rounds(16, 400));
    flips(FLIP_META, "bits of the first pages", rounds(8, 200));
    flips(FLIP_BLOCK, "pages", rounds(8, 200));
    flips(FLIP_CUT, "cut", rounds(8, 200));

    free(image);

    return done();
}
