
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Messages and responses folded and unfolded.  The first byte is the
 * endpoint: m messages, r responses.  The second is the allocation that
 * fails.  Then a text that begins with '{' is a plain answer; else each line
 * is the data of an event, or with '!' before it as it stands.
 *
 * What was folded is valid JSON, no larger than its stream; what was unfolded
 * folds, and says the same then; what folds and unfolds is the same after.
 */


#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "dialect_anthropic.h"
#include "dialect_openai.h"
#include "mem.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static llm_int_t
fuzz_retell(fuzz_mem_t *m, char endpoint, llm_uint_t unfold,
    const llm_str_t *text, llm_str_t *out)
{
    size_t                       live;
    llm_int_t                    rc;
    static const llm_endpoint_t  ep = { .id = ANTHROPIC_MESSAGES };

    live = m->live;

    if (endpoint == 'm') {
        rc = unfold ? anthropic_unfold(&ep, text, 1, &m->mem, out)
                    : anthropic_fold(&ep, text, &m->mem, out);

    } else {
        rc = unfold ? openai_responses_unfold(text, &m->mem, out)
                    : openai_responses_fold(text, &m->mem, out);
    }

    check(rc == LLM_OK || rc == LLM_DECLINED
          || (rc == LLM_ERROR && m->fail && m->calls >= m->fail));
    check(m->live == live + (rc == LLM_OK));

    return rc;
}


/* 1 if they say the same, as far as the reference can read them */

static int
fuzz_same(const llm_str_t *a, const llm_str_t *b)
{
    int      same;
    json_t  *x, *y;

    x = json_loadb((char *) a->data, a->len, JSON_ALLOW_NUL, NULL);
    y = json_loadb((char *) b->data, b->len, JSON_ALLOW_NUL, NULL);

    same = (x == NULL || (y && json_equal(x, y)));

    json_decref(x);
    json_decref(y);

    return same;
}


static void
fuzz_unfold(fuzz_mem_t *m, char endpoint, const llm_str_t *plain)
{
    llm_str_t  stream, back;

    if (fuzz_retell(m, endpoint, 1, plain, &stream) != LLM_OK) {
        return;
    }

    check(stream.len <= (plain->len + 16) * 4096);

    switch (fuzz_retell(m, endpoint, 0, &stream, &back)) {

    case LLM_OK:
        check(llm_json_scan(&back, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
              == LLM_OK);
        check(fuzz_same(plain, &back));
        fuzz_free(m, back.data);
        break;

    case LLM_DECLINED:
        check(0);
    }

    fuzz_free(m, stream.data);
}


static void
fuzz_fold(fuzz_mem_t *m, char endpoint, const llm_str_t *stream)
{
    llm_str_t  plain;

    if (fuzz_retell(m, endpoint, 0, stream, &plain) != LLM_OK) {
        return;
    }

    check(plain.len <= stream->len);
    check(llm_json_scan(&plain, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
          == LLM_OK);

    fuzz_unfold(m, endpoint, &plain);
    fuzz_free(m, plain.data);
}


/* each line an event */

static llm_str_t
fuzz_events(const uint8_t *data, size_t size)
{
    size_t      n;
    u_char     *p;
    llm_str_t   text;

    text.data = p = malloc(size * 8 + 8);
    check(p != NULL);

    while (size) {
        for (n = 0; n < size && data[n] != '\n'; n++) { /* void */ }

        if (*data == '!') {
            memcpy(p, data + 1, n - 1);
            p += n - 1;
            *p++ = '\n';

        } else {
            memcpy(p, "data: ", 6);
            memcpy(p + 6, data, n);
            memcpy(p + 6 + n, "\n\n", 2);
            p += n + 8;
        }

        n += (n < size);
        data += n;
        size -= n;
    }

    text.len = p - text.data;

    return text;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char        endpoint;
    llm_str_t   text, exact;
    fuzz_mem_t  m;

    if (size < 2 || size > 65536 || (data[0] != 'm' && data[0] != 'r')) {
        return 0;
    }

    memset(&m, 0, sizeof(fuzz_mem_t));

    endpoint = data[0];

    m.mem.alloc = fuzz_alloc;
    m.mem.free = fuzz_free;
    m.mem.ctx = &m;
    m.fail = (data[1] - '0') & 0x1f;

    data += 2;
    size -= 2;

    /* a copy with nothing behind it */

    if (size && *data == '{') {
        exact.len = size;
        exact.data = malloc(size);
        check(exact.data != NULL);
        memcpy(exact.data, data, size);

        fuzz_unfold(&m, endpoint, &exact);

    } else {
        text = fuzz_events(data, size);

        exact.len = text.len;
        exact.data = malloc(text.len);
        check(exact.data != NULL || text.len == 0);

        if (text.len) {
            memcpy(exact.data, text.data, text.len);
        }

        free(text.data);

        fuzz_fold(&m, endpoint, &exact);
    }

    free(exact.data);
    check(m.live == 0);

    return 0;
}
