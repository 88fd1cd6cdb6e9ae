
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * When to come back to a provider that refused: what its headers and its
 * error body say, brought to milliseconds from now, and the delay that is
 * taken when they say nothing.  Times are arguments, llm_wait_t is the
 * caller's.  What kind of failure it is says llm_classify.c.
 */


#include <string.h>

#include "llm_dialect.h"
#include "llm_time.h"


/* longer is not believed, and would not matter */

#define LLM_WAIT_MAX  ((int64_t) 30 * 86400 * 1000)


/* limits, as in llm_wait_t */

enum {
    LLM_LIMIT_REQUESTS = 0,
    LLM_LIMIT_TOKENS,
    LLM_LIMIT_INPUT,
    LLM_LIMIT_OUTPUT,
    LLM_LIMIT_MAX
};


typedef enum {
    LLM_WAIT_AFTER_MS = 0,
    LLM_WAIT_AFTER,
    LLM_WAIT_RETRY,
    LLM_WAIT_REMAINING,
    LLM_WAIT_RESET
} llm_wait_e;


typedef struct {
    llm_str_t              name;
    llm_wait_e             type;
    llm_uint_t             limit;
} llm_wait_name_t;


static void llm_wait_trim(llm_str_t *text);
static void llm_wait_retry(llm_wait_t *w, const llm_str_t *value);
static void llm_wait_limits(llm_wait_t *w);
static void llm_wait_remaining(llm_wait_t *w, llm_uint_t limit,
    const llm_str_t *value);
static int64_t llm_wait_reset(const llm_str_t *value, uint64_t now);
static int64_t llm_wait_number(const llm_str_t *value, uint64_t unit);
static int64_t llm_wait_from(int64_t time, uint64_t now);
static int64_t llm_wait_clamp(int64_t ms);
static void llm_wait_details(llm_wait_t *w, const llm_json_value_t *details);


static const llm_wait_name_t  llm_wait_names[] = {
    { llm_string("retry-after-ms"), LLM_WAIT_AFTER_MS, 0 },
    { llm_string("retry-after"), LLM_WAIT_AFTER, 0 },
    { llm_string("x-should-retry"), LLM_WAIT_RETRY, 0 },

    { llm_string("x-ratelimit-remaining"), LLM_WAIT_REMAINING,
      LLM_LIMIT_REQUESTS },
    { llm_string("x-ratelimit-reset"), LLM_WAIT_RESET, LLM_LIMIT_REQUESTS },
    { llm_string("x-ratelimit-remaining-requests"), LLM_WAIT_REMAINING,
      LLM_LIMIT_REQUESTS },
    { llm_string("x-ratelimit-reset-requests"), LLM_WAIT_RESET,
      LLM_LIMIT_REQUESTS },
    { llm_string("x-ratelimit-remaining-tokens"), LLM_WAIT_REMAINING,
      LLM_LIMIT_TOKENS },
    { llm_string("x-ratelimit-reset-tokens"), LLM_WAIT_RESET,
      LLM_LIMIT_TOKENS },

    { llm_string("anthropic-ratelimit-requests-remaining"),
      LLM_WAIT_REMAINING, LLM_LIMIT_REQUESTS },
    { llm_string("anthropic-ratelimit-requests-reset"),
      LLM_WAIT_RESET, LLM_LIMIT_REQUESTS },
    { llm_string("anthropic-ratelimit-tokens-remaining"),
      LLM_WAIT_REMAINING, LLM_LIMIT_TOKENS },
    { llm_string("anthropic-ratelimit-tokens-reset"),
      LLM_WAIT_RESET, LLM_LIMIT_TOKENS },
    { llm_string("anthropic-ratelimit-input-tokens-remaining"),
      LLM_WAIT_REMAINING, LLM_LIMIT_INPUT },
    { llm_string("anthropic-ratelimit-input-tokens-reset"),
      LLM_WAIT_RESET, LLM_LIMIT_INPUT },
    { llm_string("anthropic-ratelimit-output-tokens-remaining"),
      LLM_WAIT_REMAINING, LLM_LIMIT_OUTPUT },
    { llm_string("anthropic-ratelimit-output-tokens-reset"),
      LLM_WAIT_RESET, LLM_LIMIT_OUTPUT },

    { llm_null_string, 0, 0 }
};


void
llm_wait_init(llm_wait_t *w)
{
    llm_uint_t  i;

    w->after_ms = -1;
    w->after = -1;
    w->reset = -1;
    w->info = -1;
    w->should_retry = -1;
    w->exhausted = 0;
    w->left = 0;

    for (i = 0; i < LLM_LIMIT_MAX; i++) {
        w->resets[i] = -1;
    }
}


void
llm_wait_header(llm_wait_t *w, const llm_str_t *name, const llm_str_t *value,
    uint64_t now)
{
    int64_t                 ms;
    llm_str_t               text;
    const llm_wait_name_t  *p;

    for (p = llm_wait_names; p->name.len; p++) {
        if (p->name.len == name->len
            && memcmp(p->name.data, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (p->name.len == 0) {
        return;
    }

    text = *value;
    llm_wait_trim(&text);

    if (text.len == 0) {
        return;
    }

    switch (p->type) {

    case LLM_WAIT_AFTER_MS:
        ms = llm_wait_number(&text, 1);
        w->after_ms = (ms >= 0) ? ms : w->after_ms;
        break;

    case LLM_WAIT_AFTER:
        ms = llm_wait_number(&text, 1000);

        if (ms < 0) {
            ms = llm_wait_from(llm_time_http(&text, now), now);
        }

        w->after = (ms >= 0) ? ms : w->after;
        break;

    case LLM_WAIT_RETRY:
        llm_wait_retry(w, &text);
        break;

    case LLM_WAIT_REMAINING:
        llm_wait_remaining(w, p->limit, &text);
        break;

    case LLM_WAIT_RESET:
        ms = llm_wait_reset(&text, now);

        if (ms > w->resets[p->limit]) {
            w->resets[p->limit] = ms;
            llm_wait_limits(w);
        }
    }
}


static void
llm_wait_trim(llm_str_t *text)
{
    u_char  *last;

    while (text->len && (*text->data == ' ' || *text->data == '\t')) {
        text->data++;
        text->len--;
    }

    while (text->len) {
        last = text->data + text->len - 1;

        if (*last != ' ' && *last != '\t') {
            return;
        }

        text->len--;
    }
}


static void
llm_wait_retry(llm_wait_t *w, const llm_str_t *value)
{
    if (value->len == 4 && llm_mentions(value, "true", 4)) {
        w->should_retry = 1;

    } else if (value->len == 5 && llm_mentions(value, "false", 5)) {
        w->should_retry = 0;
    }
}


/* a limit that is not exhausted has its reset, too, in every answer */

static void
llm_wait_limits(llm_wait_t *w)
{
    llm_uint_t  i;

    w->reset = -1;

    for (i = 0; i < LLM_LIMIT_MAX; i++) {

        if ((w->exhausted | w->left) && !(w->exhausted & llm_bit(i))) {
            continue;
        }

        if (w->resets[i] > w->reset) {
            w->reset = w->resets[i];
        }
    }
}


static void
llm_wait_remaining(llm_wait_t *w, llm_uint_t limit, const llm_str_t *value)
{
    int64_t    n;
    llm_str_t  text;

    text = *value;

    /* some count on below 0 */

    if (text.len && *text.data == '-') {
        text.data++;
        text.len--;
    }

    n = llm_wait_number(&text, 1);

    if (n < 0) {
        return;
    }

    if (n == 0 || text.len < value->len) {
        w->exhausted |= llm_bit(limit);
        w->left &= ~llm_bit(limit);

    } else {
        w->exhausted &= ~llm_bit(limit);
        w->left |= llm_bit(limit);
    }

    llm_wait_limits(w);
}


/* a length of time, or a point: the servers that speak like OpenAI write all
 * of them */

static int64_t
llm_wait_reset(const llm_str_t *value, uint64_t now)
{
    int64_t        time;
    uint64_t       n, ms;
    const u_char  *p, *last;

    p = value->data;
    last = p + value->len;

    if (llm_time_number(&p, last, 1000, 1, &ms) == LLM_OK && p == last) {

        n = ms / 1000;

        if (n > 1000000000000) {
            return llm_wait_from((int64_t) n, now);
        }

        if (n > 1000000000) {
            return llm_wait_from((int64_t) ms, now);
        }

        return llm_wait_clamp((int64_t) ms);
    }

    time = llm_time_duration(value);

    if (time >= 0) {
        return llm_wait_clamp(time);
    }

    time = llm_time_rfc3339(value);

    if (time < 0) {
        time = llm_time_http(value, now);
    }

    return llm_wait_from(time, now);
}


/* -1: no number */

static int64_t
llm_wait_number(const llm_str_t *value, uint64_t unit)
{
    uint64_t       ms;
    const u_char  *p, *last;

    p = value->data;
    last = p + value->len;

    if (llm_time_number(&p, last, unit, 1, &ms) != LLM_OK || p != last) {
        return -1;
    }

    return llm_wait_clamp((int64_t) ms);
}


static int64_t
llm_wait_from(int64_t time, uint64_t now)
{
    if (time < 0) {
        return -1;
    }

    if ((uint64_t) time <= now) {
        return 0;
    }

    return llm_wait_clamp((int64_t) ((uint64_t) time - now));
}


static int64_t
llm_wait_clamp(int64_t ms)
{
    return ms < LLM_WAIT_MAX ? ms : LLM_WAIT_MAX;
}


void
llm_wait_body(llm_wait_t *w, const llm_str_t *body)
{
    llm_json_value_t        error, details;
    static const llm_str_t  path = llm_string("details");

    if (llm_error_object(body, &error) != LLM_OK) {
        return;
    }

    llm_json_path(&error, &path, 1, &details);

    if (details.type == LLM_JSON_ARRAY) {
        llm_wait_details(w, &details);
    }
}


/* google.rpc.Status: details of several kinds, each with its type's name */

static void
llm_wait_details(llm_wait_t *w, const llm_json_value_t *details)
{
    int64_t                 ms;
    u_char                 *pos;
    llm_str_t               text;

    enum { TYPE = 0, DELAY, MAX };

    llm_json_value_t        item, v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("@type"),
        llm_string("retryDelay")
    };
    static const llm_str_t  info =
        llm_string("type.googleapis.com/google.rpc.RetryInfo");

    pos = NULL;

    while (llm_json_next_object(&details->raw, &pos, names, v, MAX, &item)
           == LLM_OK)
    {
        if (v[DELAY].type != LLM_JSON_STRING
            || !llm_json_is(&v[TYPE], (const char *) info.data, info.len))
        {
            continue;
        }

        /* nothing of a duration needs an escape */

        text.data = v[DELAY].raw.data + 1;
        text.len = v[DELAY].raw.len - 2;

        ms = llm_time_duration(&text);

        if (ms >= 0) {
            ms = llm_wait_clamp(ms);
            w->info = (ms > w->info) ? ms : w->info;
        }
    }
}


int64_t
llm_wait_ms(const llm_wait_t *w)
{
    if (w->after_ms >= 0) {
        return w->after_ms;
    }

    if (w->after >= 0) {
        return w->after;
    }

    return w->info >= 0 ? w->info : w->reset;
}


uint64_t
llm_backoff(uint64_t min, uint64_t max, llm_uint_t n, uint32_t random)
{
    uint64_t  delay, half, more;

    if (min == 0) {
        return 0;
    }

    delay = (n >= 64 || min > max >> n) ? max : min << n;

    /*
     * The jitter is within what max allows: else all that wait for long
     * would come back at once.
     */

    half = delay / 2;
    more = delay - half + 1;

    /* more * random / 2^32, in two parts that fit */

    return half + (more >> 32) * random
           + (((more & 0xffffffff) * random) >> 32);
}
