
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * When to come back, with any bytes: lines of "name: value", then an empty
 * line and a body.  What is understood lies between now and 30 days; a date
 * that is taken is the one that libc reads.  The first bytes are the numbers
 * of a back-off, too.
 */


#define _XOPEN_SOURCE  700
#define _DEFAULT_SOURCE

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llm.h"


#define check(good)  if (!(good)) { __builtin_trap(); }

#define FUZZ_NOW  1700000000500LL
#define FUZZ_MAX  (30LL * 86400 * 1000)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check_wait(const llm_wait_t *w)
{
    int      i;
    int64_t  ms;

    ms = llm_wait_ms(w);

    check(w->after_ms >= -1 && w->after_ms <= FUZZ_MAX);
    check(w->after >= -1 && w->after <= FUZZ_MAX);
    check(w->reset >= -1 && w->reset <= FUZZ_MAX);
    check(w->info >= -1 && w->info <= FUZZ_MAX);
    check(w->should_retry >= -1 && w->should_retry <= 1);
    check(w->exhausted < 16);
    check(ms == w->after_ms || ms == w->after || ms == w->info
          || ms == w->reset);

    for (i = 0; i < 4; i++) {
        check(w->resets[i] >= -1 && w->resets[i] <= FUZZ_MAX);
        check(w->exhausted || w->reset >= w->resets[i]);
    }
}


static void
check_date(const llm_str_t *value)
{
    char        text[64], *end;
    int64_t     want;
    struct tm   tm;
    llm_str_t   name;
    llm_wait_t  w;

    llm_wait_init(&w);
    llm_str_set(&name, "retry-after");
    llm_wait_header(&w, &name, value, FUZZ_NOW);

    if (w.after < 0 || value->len != 29 || value->data[3] != ',') {
        return;
    }

    memcpy(text, value->data, 29);
    text[29] = '\0';
    memset(&tm, 0, sizeof(struct tm));

    end = strptime(text, "%a, %d %b %Y %H:%M:%S ", &tm);
    check(end != NULL);

    want = (int64_t) timegm(&tm) * 1000 - FUZZ_NOW;
    want = (want < 0) ? 0 : want;

    check(w.after == (want < FUZZ_MAX ? want : FUZZ_MAX));
}


static void
check_backoff(const uint8_t *data)
{
    uint32_t  random;
    uint64_t  min, max, delay;

    memcpy(&min, data, 8);
    memcpy(&max, data + 8, 8);
    memcpy(&random, data + 16, 4);

    min >>= data[20] % 64;
    max >>= data[21] % 64;

    delay = llm_backoff(min, max, data[22], random);

    check(delay <= max || min == 0);
    check(data[22] || min > max || delay >= min / 2);
}


static void
fuzz_line(llm_wait_t *w, const u_char *p, const u_char *last)
{
    u_char        *copy;
    llm_str_t      name, value;
    const u_char  *colon;

    colon = memchr(p, ':', last - p);

    if (colon == NULL) {
        return;
    }

    copy = malloc(last - p);
    check(copy != NULL);
    memcpy(copy, p, last - p);

    name.data = copy;
    name.len = colon - p;
    value.data = copy + name.len + 1;
    value.len = last - colon - 1;

    llm_wait_header(w, &name, &value, FUZZ_NOW);
    check_wait(w);

    if (value.len && *value.data == ' ') {
        value.data++;
        value.len--;
    }

    check_date(&value);

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char        *copy;
    llm_str_t      body;
    llm_wait_t     w;
    const u_char  *p, *last, *end;

    if (size > 65536) {
        return 0;
    }

    if (size >= 23) {
        check_backoff(data);
    }

    llm_wait_init(&w);

    p = data;
    last = p + size;

    while (p < last && *p != '\n') {
        end = memchr(p, '\n', last - p);
        end = end ? end : last;

        fuzz_line(&w, p, end);

        p = (end < last) ? end + 1 : last;
    }

    if (p < last) {
        p++;
    }

    body.len = last - p;
    body.data = copy = malloc(body.len + (body.len == 0));
    check(copy != NULL);
    memcpy(copy, p, body.len);

    llm_wait_body(&w, &body);
    check_wait(&w);

    free(copy);

    return 0;
}
