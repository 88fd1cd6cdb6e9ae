
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Stored answers folded and unfolded.  The first byte is the endpoint:
 * c chat/completions, l completions, m messages, r responses.  The second has
 * flags: bit 0 a plain answer follows, else a stream; bit 1 is usage; the rest
 * the allocation that fails.
 *
 * What is folded from a stream has to be the same when it is unfolded and
 * folded again.  A plain answer that is unfolded may have what no stream has,
 * and is then not folded; else it is the same but for what ours leave out.
 */


#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "llm.h"
#include "mem.h"


typedef struct {
    fuzz_mem_t             m;
    const llm_dialect_t   *dialect;
    const llm_endpoint_t  *endpoint;
    llm_uint_t             usage;
    llm_uint_t             chat;
} fuzz_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* the calls with memory that does not fail, once it was seen to fail well */

static llm_int_t
fuzz_call(fuzz_t *f, llm_uint_t unfold, const llm_str_t *text, llm_str_t *out)
{
    size_t                calls;
    llm_int_t             rc;
    const llm_caching_t  *caching;

    caching = f->dialect->caching;
    calls = f->m.calls;

    rc = unfold ? caching->unfold(f->endpoint, text, f->usage, &f->m.mem, out)
                : caching->fold(f->endpoint, text, &f->m.mem, out);

    check(rc == LLM_OK || rc == LLM_DECLINED || rc == LLM_ERROR);
    check(f->m.live == (rc == LLM_OK));
    check((rc == LLM_ERROR)
          == (calls < f->m.fail && f->m.calls >= f->m.fail));

    if (rc != LLM_ERROR) {
        f->m.live = 0;
        return rc;
    }

    f->m.fail = 0;

    return fuzz_call(f, unfold, text, out);
}


static llm_int_t
fuzz_fold(fuzz_t *f, const llm_str_t *text, llm_str_t *out)
{
    llm_int_t  rc;

    rc = fuzz_call(f, 0, text, out);

    check(rc != LLM_OK
          || llm_json_scan(out, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
             == LLM_OK);

    return rc;
}


/* a client of the dialect takes its events for a whole answer */

static llm_int_t
fuzz_unfold(fuzz_t *f, const llm_str_t *text, llm_str_t *out)
{
    void          *framer;
    u_char        *pos, *last;
    llm_int_t      rc;
    llm_uint_t     what, n;
    llm_event_t    ev;
    llm_answer_t   a;

    rc = fuzz_call(f, 1, text, out);

    if (rc != LLM_OK) {
        return rc;
    }

    f->m.fail = 0;

    memset(&a, 0, sizeof(llm_answer_t));

    a.dialect = f->dialect;
    a.endpoint = f->endpoint;
    a.mem = &f->m.mem;

    framer = llm_sse_framing.create(&f->m.mem, out->len);
    check(framer != NULL);

    n = 0;
    what = 0;
    pos = out->data;
    last = pos + out->len;

    while (llm_sse_framing.feed(framer, &pos, last, &ev) == LLM_OK) {
        check(!(what & LLM_EV_TERMINAL));
        check(f->dialect->event(&a, &ev, &what) == LLM_OK);
        check(!(what & (LLM_EV_MALFORMED|LLM_EV_ERROR)));
        n++;
    }

    check(pos == last && n > 1);
    check((what & LLM_EV_TERMINAL) && a.terminal && a.finished && !a.failed);

    f->dialect->answer_free(&a);
    llm_sse_framing.free(framer);
    check(f->m.live == 0);

    return LLM_OK;
}


static llm_uint_t
fuzz_listed(const char *name, const char *const *list)
{
    for ( /* void */ ; *list; list++) {
        if (strcmp(name, *list) == 0) {
            return 1;
        }
    }

    return 0;
}


/* what a choice of OpenAI's loses or is given on its way */

static void
fuzz_choice(const fuzz_t *f, json_t *choice, size_t place)
{
    void                     *next;
    json_t                   *message, *logprobs, *call, *v;
    size_t                    i;
    const char               *name;
    static const char *const  known[] = {
        "content", "refusal", "tokens", "token_logprobs", "top_logprobs",
        "text_offset", NULL
    };

    if (json_object_get(choice, "index") == NULL) {
        json_object_set_new(choice, "index", json_integer(place));
    }

    logprobs = json_object_get(choice, "logprobs");

    json_object_foreach_safe(logprobs, next, name, v) {
        if (!fuzz_listed(name, known)) {
            json_object_del(logprobs, name);
        }
    }

    if (!f->chat) {
        return;
    }

    message = json_object_get(choice, "message");
    json_object_del(message, "audio");

    if (json_object_get(message, "content") == NULL) {
        json_object_set_new(message, "content", json_null());
    }

    json_array_foreach(json_object_get(message, "tool_calls"), i, call) {
        json_object_del(call, "index");
    }
}


static void
fuzz_plain(const fuzz_t *f, json_t *answer, llm_uint_t usage)
{
    size_t   i;
    json_t  *choice;

    if (!usage) {
        json_object_del(answer, "usage");
    }

    json_object_del(answer, "error");
    json_object_del(answer, "object");

    json_array_foreach(json_object_get(answer, "choices"), i, choice) {
        fuzz_choice(f, choice, i);
    }
}


static json_t *
fuzz_load(const llm_str_t *text)
{
    return json_loadb((char *) text->data, text->len, JSON_ALLOW_NUL, NULL);
}


/* other is of a plain answer that was unfolded and folded */

static void
fuzz_same(const fuzz_t *f, const llm_str_t *plain, const llm_str_t *other)
{
    json_t      *one, *two;
    llm_uint_t   usage;

    one = fuzz_load(plain);
    two = fuzz_load(other);

    /* jansson refuses numbers that are too large, and halves of a pair */

    if (one && two) {
        usage = f->usage && json_is_object(json_object_get(one, "usage"));

        fuzz_plain(f, one, usage);
        fuzz_plain(f, two, usage);

        check(json_equal(one, two));
    }

    json_decref(one);
    json_decref(two);
}


static void
fuzz_ids(const llm_str_t *text)
{
    u_char     *p;
    llm_str_t   copy;

    p = malloc(text->len);
    check(p != NULL);
    memcpy(p, text->data, text->len);

    copy.data = p;
    copy.len = text->len;

    llm_fresh_ids(p, text->len, text->len);

    check(llm_json_scan(text, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
          == llm_json_scan(&copy, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL));

    free(p);
}


static void
fuzz_text(fuzz_t *f, const llm_str_t *text, llm_uint_t is_plain)
{
    llm_str_t  plain, stream, again;

    fuzz_ids(text);

    plain = *text;

    if (!is_plain && fuzz_fold(f, text, &plain) != LLM_OK) {
        return;
    }

    fuzz_ids(&plain);

    if (fuzz_unfold(f, &plain, &stream) == LLM_OK) {
        fuzz_ids(&stream);

        if (fuzz_fold(f, &stream, &again) == LLM_OK) {
            fuzz_same(f, &plain, &again);
            free(again.data);

        } else {
            check(is_plain);
        }

        free(stream.data);
    }

    if (!is_plain) {
        free(plain.data);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_t                f;
    u_char               *copy;
    llm_str_t             path, id, text;
    const llm_dialect_t  *prefer;

    if (size < 3 || size > 65536) {
        return 0;
    }

    prefer = data[0] == 'm' ? &llm_dialect_anthropic : &llm_dialect_openai;

    switch (data[0]) {

    case 'c':
        llm_str_set(&path, "chat/completions");
        break;

    case 'l':
        llm_str_set(&path, "completions");
        break;

    case 'm':
        llm_str_set(&path, "messages");
        break;

    case 'r':
        llm_str_set(&path, "responses");
        break;

    default:
        return 0;
    }

    memset(&f, 0, sizeof(fuzz_t));

    f.endpoint = llm_endpoint_find(&path, prefer, &f.dialect, &id);
    check(f.endpoint != NULL);

    f.m.mem.alloc = fuzz_alloc;
    f.m.mem.free = fuzz_free;
    f.m.mem.ctx = &f.m;
    f.m.fail = (data[1] - '0') >> 2 & 0xf;

    f.usage = (data[1] - '0') >> 1 & 1;
    f.chat = (data[0] == 'c');

    copy = malloc(size - 2);
    check(copy != NULL);
    memcpy(copy, data + 2, size - 2);

    text.data = copy;
    text.len = size - 2;

    fuzz_text(&f, &text, (data[1] - '0') & 1);

    free(copy);

    return 0;
}
