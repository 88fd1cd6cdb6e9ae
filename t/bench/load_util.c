
/*
 * Clocks, histograms, the generated chat body and the CPU of a process.
 */


#include "load.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>


static uint64_t load_cpu_task(pid_t pid, const char *task);
static size_t load_body_text(u_char *p, size_t size, uint32_t *seed);


uint64_t
load_time(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * LOAD_SEC + (uint64_t) ts.tv_nsec;
}


uint64_t
load_wall_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / LOAD_MS;
}


/* nanoseconds all threads of the process have run, 0 if it cannot be known */

uint64_t
load_cpu(pid_t pid)
{
    DIR            *dir;
    char            path[64];
    uint64_t        sum;
    struct dirent  *de;

    if (pid == 0) {
        return 0;
    }

    snprintf(path, sizeof(path), "/proc/%d/task", (int) pid);

    dir = opendir(path);
    if (dir == NULL) {
        return 0;
    }

    sum = 0;

    while ((de = readdir(dir)) != NULL) {
        if (de->d_name[0] != '.') {
            sum += load_cpu_task(pid, de->d_name);
        }
    }

    closedir(dir);

    return sum;
}


static uint64_t
load_cpu_task(pid_t pid, const char *task)
{
    char                 path[320];
    FILE                *f;
    unsigned long long   ns;

    snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int) pid,
             task);

    f = fopen(path, "r");
    if (f == NULL) {
        return 0;
    }

    if (fscanf(f, "%llu", &ns) != 1) {
        ns = 0;
    }

    fclose(f);

    return ns;
}


void
load_hist_add(load_hist_t *h, uint64_t value)
{
    unsigned  shift, slot;

    if (value < (1 << LOAD_HIST_BITS)) {
        slot = (unsigned) value;

    } else {
        shift = 63 - (unsigned) __builtin_clzll(value) - LOAD_HIST_BITS;
        slot = (shift << LOAD_HIST_BITS) + (unsigned) (value >> shift);
    }

    h->slots[slot]++;
    h->count++;
    h->sum += value;

    if (value > h->max) {
        h->max = value;
    }
}


uint64_t
load_hist_get(load_hist_t *h, double quantile)
{
    uint64_t  left, value, shift, slot;

    if (h->count == 0) {
        return 0;
    }

    left = (uint64_t) (quantile * (double) h->count);

    for (slot = 0; slot < LOAD_HIST_SLOTS; slot++) {
        if (h->slots[slot] > left) {
            break;
        }

        left -= h->slots[slot];
    }

    if (slot >= 2 << LOAD_HIST_BITS) {
        shift = (slot >> LOAD_HIST_BITS) - 1;
        value = (slot - (shift << LOAD_HIST_BITS)) << shift;
        value += 1ULL << (shift - 1);

    } else {
        value = slot;
    }

    return value < h->max ? value : h->max;
}


/*
 * A chat completion request of exactly "size" bytes (not less than 256) in
 * the member order the Python SDK writes: "messages" come before "model".
 * The text has the share of escapes and non-ASCII bytes of code and prose.
 */

u_char *
load_body(size_t size, int stream)
{
    int          turn;
    size_t       room, part, n;
    u_char      *body, *p, *end;
    uint32_t     seed;
    const char  *tail;

    static const char  *heads[] = {
        "{\"role\":\"user\",\"content\":\"",
        "{\"role\":\"assistant\",\"content\":\""
    };

    static const char  system[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":"
        "\"You are a careful assistant. Answer briefly.\"}";

    tail = stream
           ? "],\"model\":\"gpt-4o\",\"max_tokens\":512,\"stream\":true}"
           : "],\"model\":\"gpt-4o\",\"max_tokens\":512}";

    body = malloc(size + 1);
    if (body == NULL) {
        return NULL;
    }

    end = body + size - strlen(tail);
    p = body;
    memcpy(p, system, sizeof(system) - 1);
    p += sizeof(system) - 1;

    seed = 1;

    for (turn = 0; /* void */ ; turn ^= 1) {

        /* the comma, the head and "\"}" */
        n = 1 + strlen(heads[turn]) + 2;
        room = (size_t) (end - p) - n;
        part = (room < 1600) ? room : 800;

        *p++ = ',';
        memcpy(p, heads[turn], n - 3);
        p += n - 3;

        p += load_body_text(p, part, &seed);

        *p++ = '"';
        *p++ = '}';

        if (part == room) {
            break;
        }
    }

    memcpy(p, tail, strlen(tail) + 1);

    return body;
}


static size_t
load_body_text(u_char *p, size_t size, uint32_t *seed)
{
    size_t       n, left;
    const char  *word;

    static const char  *words[] = {
        "the ", "of ", "request ", "and ", "provider ", "a ", "stream, ",
        "to ", "answer ", "in ", "value ", "is ", "function ", "with ",
        "tokens. ", "for ", "return ", "that ", "connection ", "it ",
        "caf\xc3\xa9 ", "\\n", "\\n    ", "\\\"name\\\": ", "model "
    };

    left = size;

    for ( ;; ) {
        *seed = *seed * 1103515245 + 12345;
        word = words[(*seed >> 16) % (sizeof(words) / sizeof(words[0]))];
        n = strlen(word);

        if (n > left) {
            break;
        }

        memcpy(p, word, n);
        p += n;
        left -= n;
    }

    memset(p, '.', left);

    return size;
}
