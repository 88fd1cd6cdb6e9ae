
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * When to come back (llm_wait_*), the back-off, and what kind of failure an
 * error is.
 */


#include "dialect.h"


/* 1994-11-06 08:49:37 UTC, RFC 9110's, and half a second */

#define NOW  784111777500ULL

#define DAYS30  (30LL * 86400 * 1000)


static void
header(llm_wait_t *w, const char *name, const char *value)
{
    u_char     *n, *v;
    llm_str_t   name_s, value_s;

    n = exact(name, strlen(name));
    v = exact(value, strlen(value));

    name_s.data = n;
    name_s.len = strlen(name);
    value_s.data = v;
    value_s.len = strlen(value);

    llm_wait_header(w, &name_s, &value_s, NOW);

    free(n);
    free(v);
}


typedef struct {
    const char            *name;
    const char            *value;
    long long              want;
} header_t;


static const header_t  headers[] = {

    /* seconds */

    { "retry-after", "0", 0 },
    { "retry-after", "120", 120000 },
    { "retry-after", " \t7 ", 7000 },
    { "retry-after", "1.5", 1500 },
    { "retry-after", "0.0001", 1 },
    { "retry-after", "2592001", DAYS30 },
    { "retry-after", "99999999999999999999999999999999", DAYS30 },
    { "retry-after", "99999999999999999999.9999999999999999999", DAYS30 },
    { "retry-after", "", -1 },
    { "retry-after", " ", -1 },
    { "retry-after", "-1", -1 },
    { "retry-after", "+1", -1 },
    { "retry-after", ".5", -1 },
    { "retry-after", "1.", -1 },
    { "retry-after", "1e3", -1 },
    { "retry-after", "5s", -1 },
    { "retry-after", "soon", -1 },

    /* dates */

    { "retry-after", "Sun, 06 Nov 1994 08:49:38 GMT", 500 },
    { "retry-after", "Sun, 06 Nov 1994 08:50:37 GMT", 59500 },
    { "retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", 0 },
    { "retry-after", "Thu, 01 Jan 1970 00:00:00 GMT", 0 },
    { "retry-after", "Sun, 31 Dec 1600 23:59:59 GMT", 0 },
    { "retry-after", "sun, 06 nov 1994 08:50:37 gmt", 59500 },
    { "retry-after", "Mon, 07 Nov 1994 08:49:37 GMT", 86399500 },
    { "retry-after", "Fri, 31 Dec 9999 23:59:59 GMT", DAYS30 },
    { "retry-after", "Sunday, 06-Nov-94 08:50:37 GMT", 59500 },
    { "retry-after", "Sunday, 06-Nov-44 08:50:37 GMT", DAYS30 },
    { "retry-after", "Sunday, 06-Nov-45 08:50:37 GMT", 0 },
    { "retry-after", "Sun Nov  6 08:50:37 1994", 59500 },
    { "retry-after", "Wed Nov 16 08:49:37 1994", 863999500 },
    { "retry-after", "Sun, 06 Nov 1994 08:49:60 GMT", 22500 },
    { "retry-after", "Sun, 06 Nov 1994 08:49:61 GMT", -1 },
    { "retry-after", "Sun, 06 Nov 1994 24:00:00 GMT", -1 },
    { "retry-after", "Sun, 06 Nov 1994 08:60:00 GMT", -1 },
    { "retry-after", "Sun, 00 Nov 1994 08:50:37 GMT", -1 },
    { "retry-after", "Sun, 31 Nov 1994 08:50:37 GMT", -1 },
    { "retry-after", "Sun, 29 Feb 1995 08:50:37 GMT", -1 },
    { "retry-after", "Sun, 32 Dec 1994 08:50:37 GMT", -1 },
    { "retry-after", "Sun, 06 Nov 1994 08:50:37 UTC", -1 },
    { "retry-after", "Sun, 06 Nov 1994 08:50:37 GMTx", -1 },
    { "retry-after", "Sun, 06 Nov 1994 08:50:37 GM", -1 },
    { "retry-after", "Sun, 6 Nov 1994 08:50:37 GMT", -1 },
    { "retry-after", "Sux, 06 Nov 1994 08:50:37 GMT", -1 },
    { "retry-after", "Sun, 06 Nox 1994 08:50:37 GMT", -1 },

    { "retry-after-ms", "1500", 1500 },
    { "retry-after-ms", "1500.2", 1501 },
    { "retry-after-ms", "-3", -1 },
    { "retry-after-ms", "1s", -1 },
    { "retry-after-ms", "99999999999999999999", DAYS30 },

    /* resets */

    { "x-ratelimit-reset-requests", "1s", 1000 },
    { "x-ratelimit-reset-requests", "6m0s", 360000 },
    { "x-ratelimit-reset-requests", "20ms", 20 },
    { "x-ratelimit-reset-tokens", "1h2m3s", 3723000 },
    { "x-ratelimit-reset-tokens", "0.5s", 500 },
    { "x-ratelimit-reset-tokens", "2m59.56s", 179560 },
    { "x-ratelimit-reset-tokens", "1d", 86400000 },
    { "x-ratelimit-reset-tokens", "500us", 1 },
    { "x-ratelimit-reset-tokens", "889\xc2\xb5s", 1 },
    { "x-ratelimit-reset-tokens", "2000001ns", 3 },
    { "x-ratelimit-reset-tokens", "12", 12000 },
    { "x-ratelimit-reset", "12.5", 12500 },
    { "x-ratelimit-reset", "1000000000", DAYS30 },
    { "x-ratelimit-reset-tokens", "1994-11-06T08:50:37Z", 59500 },
    { "x-ratelimit-reset-tokens", "9999999999999999d", DAYS30 },
    { "x-ratelimit-reset-tokens", "1s2", -1 },
    { "x-ratelimit-reset-tokens", "s", -1 },
    { "x-ratelimit-reset-tokens", "1x", -1 },
    { "x-ratelimit-reset-tokens", "-1s", -1 },
    { "x-ratelimit-reset-tokens", "1..5s", -1 },
    { "x-ratelimit-reset-tokens", "1.5.5s", -1 },
    { "x-ratelimit-reset-other", "1s", -1 },
    { "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:38Z", 500 },
    { "anthropic-ratelimit-tokens-reset", "1994-11-06t08:49:38.25z", 750 },
    { "anthropic-ratelimit-input-tokens-reset",
      "1994-11-06T10:49:38+02:00", 500 },
    { "anthropic-ratelimit-output-tokens-reset",
      "1994-11-06T06:19:37.6009-02:30", 100 },
    { "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:37Z", 0 },
    { "anthropic-ratelimit-requests-reset", "1970-01-01T00:00:00+10:00", 0 },
    { "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:38", -1 },
    { "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:38.Z", -1 },
    { "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:38+0200", -1 },
    { "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:38+24:00", -1 },
    { "anthropic-ratelimit-requests-reset", "1994-13-06T08:49:38Z", -1 },

    { "date", "120", -1 },
};


static void
header_table(void)
{
    size_t       i;
    long long    got;
    llm_wait_t   w;

    for (i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        llm_wait_init(&w);
        header(&w, headers[i].name, headers[i].value);

        got = llm_wait_ms(&w);

        if (!ok(got == headers[i].want, "%s: %s", headers[i].name,
                headers[i].value))
        {
            printf("#   got:  %lld\n#   want: %lld\n", got, headers[i].want);
        }
    }
}


static void
epochs(void)
{
    llm_str_t   name, value;
    llm_wait_t  w;

    name = cstr("x-ratelimit-reset-requests");

    llm_wait_init(&w);
    value = cstr("1700000010");
    llm_wait_header(&w, &name, &value, 1700000000000);
    is_int(llm_wait_ms(&w), 10000, "epoch seconds");

    llm_wait_init(&w);
    value = cstr("1700000010.25");
    llm_wait_header(&w, &name, &value, 1700000000000);
    is_int(llm_wait_ms(&w), 10250, "epoch seconds, a fraction");

    llm_wait_init(&w);
    value = cstr("1700000010123");
    llm_wait_header(&w, &name, &value, 1700000000000);
    is_int(llm_wait_ms(&w), 10123, "epoch milliseconds");

    llm_wait_init(&w);
    value = cstr("1700000000");
    llm_wait_header(&w, &name, &value, 1700000001000);
    is_int(llm_wait_ms(&w), 0, "epoch seconds, past");

    llm_wait_init(&w);
    name = cstr("retry-after");
    value = cstr("Tue, 29 Feb 2000 00:00:01 GMT");
    llm_wait_header(&w, &name, &value, 951782400000);
    is_int(llm_wait_ms(&w), 1000, "29 February 2000");

    value = cstr("Wed, 01 Mar 2000 00:00:02 GMT");
    llm_wait_header(&w, &name, &value, 951868800000);
    is_int(llm_wait_ms(&w), 2000, "1 March 2000");

    value = cstr("Mon, 29 Feb 2100 00:00:02 GMT");
    llm_wait_init(&w);
    llm_wait_header(&w, &name, &value, 951868800000);
    is_int(llm_wait_ms(&w), -1, "29 February 2100");

    value = cstr("Sunday, 06-Nov-05 08:50:37 GMT");
    llm_wait_header(&w, &name, &value, 2540000000000);
    is_int(llm_wait_ms(&w), 0, "the century is that of now");

    value = cstr("Sunday, 06-Nov-94 08:50:37 GMT");
    llm_wait_init(&w);
    llm_wait_header(&w, &name, &value, 1700000000000);
    is_int(llm_wait_ms(&w), 0, "the century is the one before");
}


static void
limits(void)
{
    llm_wait_t  w;

    llm_wait_init(&w);
    is_int(llm_wait_ms(&w), -1, "nothing is said");
    is_int(w.should_retry, -1, "x-should-retry is not said");

    header(&w, "x-ratelimit-reset-requests", "9s");
    header(&w, "x-ratelimit-reset-tokens", "5s");
    is_int(llm_wait_ms(&w), 9000, "no remainder: the longest");

    header(&w, "x-ratelimit-remaining-requests", "3");
    is_int(llm_wait_ms(&w), -1, "a remainder that is not 0");

    header(&w, "x-ratelimit-remaining-tokens", "0");
    is_int(llm_wait_ms(&w), 5000, "that of which nothing remains");
    is_int(w.exhausted, 2, "it is marked");

    header(&w, "x-ratelimit-remaining-requests", "-2");
    is_int(llm_wait_ms(&w), 9000, "both: the longest; below 0 is 0");

    header(&w, "x-ratelimit-remaining-requests", "1");
    header(&w, "x-ratelimit-remaining-requests", "none");
    is_int(llm_wait_ms(&w), 5000, "said anew");

    llm_wait_init(&w);
    header(&w, "anthropic-ratelimit-output-tokens-remaining", "0");
    header(&w, "anthropic-ratelimit-requests-reset", "1994-11-06T08:49:39Z");
    is_int(llm_wait_ms(&w), -1, "no reset of that");
    header(&w, "anthropic-ratelimit-output-tokens-reset",
           "1994-11-06T08:49:38Z");
    is_int(llm_wait_ms(&w), 500, "the order of headers does not matter");
    header(&w, "anthropic-ratelimit-input-tokens-remaining", "0");
    header(&w, "anthropic-ratelimit-input-tokens-reset",
           "1994-11-06T08:49:40Z");
    header(&w, "anthropic-ratelimit-tokens-remaining", "10");
    header(&w, "anthropic-ratelimit-tokens-reset", "1994-11-06T09:49:40Z");
    is_int(llm_wait_ms(&w), 2500, "four limits");

    llm_wait_init(&w);
    header(&w, "x-ratelimit-remaining", "0");
    header(&w, "x-ratelimit-reset", "3");
    header(&w, "x-ratelimit-reset-tokens", "30");
    is_int(llm_wait_ms(&w), 3000, "without a name");

    w.info = 4000;
    is_int(llm_wait_ms(&w), 4000, "RetryInfo before resets");
    header(&w, "retry-after", "5");
    is_int(llm_wait_ms(&w), 5000, "Retry-After before RetryInfo");
    header(&w, "retry-after-ms", "6");
    is_int(llm_wait_ms(&w), 6, "retry-after-ms before Retry-After");
    header(&w, "retry-after", "what");
    is_int(w.after, 5000, "what says nothing changes nothing");

    header(&w, "x-should-retry", "True");
    is_int(w.should_retry, 1, "x-should-retry: True");
    header(&w, "x-should-retry", "false");
    is_int(w.should_retry, 0, "x-should-retry: false");
    header(&w, "x-should-retry", "falsely");
    is_int(w.should_retry, 0, "x-should-retry: falsely");
}


#define INFO(delay)                                                           \
    "{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"details\":" \
    "[{\"@type\":\"type.googleapis.com/google.rpc.QuotaFailure\","            \
    "\"retryDelay\":\"99s\"},{\"@type\":"                                     \
    "\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":" delay      \
    "}]}}"


static void
bodies(void)
{
    size_t      i;
    llm_str_t   s;
    llm_wait_t  w;

    static const struct {
        const char  *body;
        long long    want;
    } t[] = {
        { INFO("\"34.07s\""), 34070 },
        { INFO("\"3.000000001s\""), 3001 },
        { " [" INFO("\"34s\"") "]", 34000 },
        { "[" INFO("\"34s\"") "," INFO("\"99s\"") "]", 34000 },
        { "[[" INFO("\"34s\"") "]]", -1 },
        { "[]", -1 },
        { INFO("\"34s\"") "x", -1 },
        { INFO("\"-34s\""), -1 },
        { INFO("34"), -1 },
        { INFO("\"\""), -1 },
        { INFO("\"99999999999999s\""), DAYS30 },
        { "{\"error\":{\"details\":{}}}", -1 },
        { "{\"error\":\"details\"}", -1 },
        { "", -1 },
    };

    for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        s.len = strlen(t[i].body);
        s.data = exact(t[i].body, s.len);

        llm_wait_init(&w);
        llm_wait_body(&w, &s);
        is_int(llm_wait_ms(&w), t[i].want, t[i].body);

        free(s.data);
    }
}


static void
backoff(void)
{
    int       bad;
    unsigned  n, r;
    uint64_t  d, full, max;

    static const uint32_t  randoms[] = { 0, 1, 0x7fffffff, 0xffffffff };
    static const uint64_t  sizes[] = { 0, 1, 2, 3, 200, 10000, 1ULL << 32,
                                       (1ULL << 62) + 1, UINT64_MAX };
    size_t  i, k;

    bad = 0;

    for (i = 0; i < 9; i++) {
        for (k = 0; k < 9; k++) {
            for (n = 0; n < 130; n++) {
                full = sizes[i];
                max = sizes[k];

                for (r = 0; r < n && full < max; r++) {
                    full = (full > UINT64_MAX / 2) ? UINT64_MAX : full * 2;

                    if (full == 0) {
                        break;
                    }
                }

                full = (sizes[i] && full > max) ? max : full;

                for (r = 0; r < 4; r++) {
                    d = llm_backoff(sizes[i], max, n, randoms[r]);
                    bad += (d > full || d < full / 2);
                    bad += (randoms[r] == 0xffffffff && full < 1ULL << 31
                            && d != full);
                    bad += (randoms[r] == 0 && d != full / 2);
                }
            }
        }
    }

    is_int(bad, 0, "back-off: in the upper half, never past max");

    is_int(llm_backoff(200, 10000, 0, 0), 100, "first, least");
    is_int(llm_backoff(200, 10000, 0, 0xffffffff), 200, "first, most");
    is_int(llm_backoff(200, 10000, 3, 0x80000000), 1200, "fourth, half way");
    is_int(llm_backoff(200, 10000, 99, 0xffffffff), 10000, "many");
}


/* ---------------------------------------------------------- what it is */

#define R  LLM_FAIL_RETRY
#define W  LLM_FAIL_WAIT
#define O  LLM_FAIL_OVERLOADED
#define S  LLM_FAIL_SILENT
#define X  LLM_FAIL_CONTEXT
#define C  LLM_FAIL_CLIENT
#define A  LLM_FAIL_AUTH
#define M  LLM_FAIL_MODEL
#define Q  LLM_FAIL_QUOTA

#define ERR(type, code, message)                                              \
    "{\"error\":{\"message\":\"" message "\",\"type\":\"" type "\",\"param\"" \
    ":null,\"code\":" code "}}"
#define ANT(type, message)                                                    \
    "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\""     \
    message "\"},\"request_id\":\"req_1\"}"
#define GEM(code, status, message)                                            \
    "{\"error\":{\"code\":" code ",\"message\":\"" message "\",\"status\":\"" \
    status "\"}}"


static const struct {
    int                    status;
    const char            *body;
    llm_uint_t             want;
} classes[] = {

    /* the status alone */

    { 400, "", C }, { 401, "", A }, { 402, "", Q }, { 403, "", A },
    { 404, "", C }, { 405, "", C }, { 408, "", R }, { 409, "", R },
    { 413, "", C }, { 415, "", C }, { 418, "", C }, { 422, "", C },
    { 425, "", R }, { 429, "", W }, { 499, "", C }, { 500, "", R },
    { 501, "", C }, { 502, "", R }, { 503, "", O }, { 504, "", S },
    { 505, "", R }, { 520, "", R }, { 521, "", R }, { 522, "", R },
    { 523, "", R }, { 524, "", S }, { 525, "", R }, { 526, "", R },
    { 529, "", O }, { 599, "", R }, { 700, "", R }, { 0, "", R },
    { 200, "", R }, { 302, "", R },

    /* bodies that say nothing */

    { 404, "<html>the model is not found</html>", C },
    { 503, "{\"error\":", O }, { 429, "[]", W }, { 429, "[1]", W },
    { 429, "null", W }, { 429, "{}", W }, { 429, "{\"error\":null}", W },
    { 200, "{}", R }, { 0, "{\"error\":\"boom\"}", R },
    { 0, "{\"error\":{\"message\":\"boom\"}}", R },
    { 0, "{\"error\":{\"code\":7}}", R },

    /* OpenAI */

    { 429, ERR("requests", "\"rate_limit_exceeded\"", "slow"), W },
    { 429, ERR("insufficient_quota", "\"insufficient_quota\"", "x"), Q },
    { 403, ERR("x", "\"billing_not_active\"", "x"), Q },
    { 400, ERR("x", "\"billing_hard_limit_reached\"", "x"), Q },
    { 401, ERR("invalid_request_error", "\"invalid_api_key\"", "x"), A },
    { 200, ERR("invalid_request_error", "\"invalid_api_key\"", "x"), A },
    { 401, ERR("invalid_request_error", "null", "x"), A },
    { 403, ERR("x", "\"unsupported_country_region_territory\"", "x"), A },
    { 403, ERR("x", "\"content_policy_violation\"", "x"), C },
    { 403, ERR("x", "null", "This breaks the Content Policy"), C },
    { 400, ERR("invalid_request_error", "\"content_filter\"",
               "context window"), C },
    { 400, ERR("invalid_request_error", "null", "x"), C },
    { 0, ERR("invalid_request_error", "null", "x"), C },
    { 500, ERR("server_error", "null", "x"), R },
    { 400, ERR("server_error", "null", "x"), R },
    { 503, ERR("server_error", "null", "x"), O },
    { 429, ERR("server_error", "null", "x"), W },
    { 0, ERR("server_error", "null", "x"), R },
    { 500, ERR("server_error", "\"engine_overloaded\"", "x"), O },
    { 500, ERR("x", "\"slow_down\"", "x"), O },
    { 0, ERR("x", "429", "x"), W }, { 0, ERR("x", "\"503\"", "x"), O },
    { 200, ERR("x", "502", "x"), R }, { 0, ERR("x", "504", "x"), S },
    { 404, ERR("invalid_request_error", "\"model_not_found\"", "x"), M },
    { 403, ERR("invalid_request_error", "\"model_not_found\"", "x"), M },
    { 404, ERR("NotFoundError", "404",
               "The model `m` does not exist."), M },
    { 404, ERR("invalid_request_error", "null",
               "The model `m` does not exist"), M },
    { 404, ERR("invalid_request_error", "null", "Invalid URL"), C },
    { 404, ERR("invalid_request_error", "null", "This is a chat model and "
               "not supported in the v1/completions endpoint"), C },
    { 404, ERR("invalid_request_error", "null",
               "Item with id 'rs_1' not found."), C },
    { 404, "{\"error\":\"model 'x' not found\"}", M },
    { 404, "{\"detail\":\"Not Found\"}", C },
    { 404, "{\"error\":{\"code\":\"DeploymentNotFound\"}}", M },

    { 400, ERR("invalid_request_error", "\"context_length_exceeded\"", "x"),
      X },
    { 200, ERR("invalid_request_error", "\"context_length_exceeded\"", "x"),
      X },
    { 400, ERR("BadRequestError", "400",
               "This model's MAXIMUM context length is 4096 tokens."), X },
    { 400, ERR("invalid_request_error", "null", "exceeds the "
               "c\\u006fntext"), X },
    { 400, ERR("invalid_request_error", "null", "exceeds the conte"), C },
    { 400, ERR("x", "null", "your input exceeds the context window"), X },
    { 429, ERR("x", "null", "your input exceeds the context window"), W },
    { 500, "{\"error\":{\"code\":500,\"message\":\"the request exceeds the "
           "available context size\",\"type\":\"server_error\"}}", X },
    { 400, "{\"object\":\"error\",\"message\":\"maximum context length\"}",
      X },
    { 400, "{\"detail\":\"maximum context length\"}", X },

    /* responses: events */

    { 0, "{\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":"
         "\"rate_limit_exceeded\",\"message\":\"x\"}}}", W },
    { 200, "{\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":"
           "\"server_error\",\"message\":\"x\"}}}", R },
    { 0, "{\"type\":\"response.failed\",\"response\":{\"status\":\"failed\","
         "\"error\":{\"code\":\"invalid_prompt\",\"message\":\"x\"}}}", C },
    { 0, "{\"type\":\"error\",\"code\":\"context_length_exceeded\","
         "\"message\":\"x\",\"param\":null}", X },
    { 0, "{\"type\":\"error\",\"message\":\"x\"}", R },

    /* Anthropic */

    { 529, ANT("overloaded_error", "Overloaded"), O },
    { 0, ANT("overloaded_error", "Overloaded"), O },
    { 200, ANT("rate_limit_error", "x"), W },
    { 200, ANT("api_error", "x"), R }, { 500, ANT("api_error", "x"), R },
    { 504, ANT("api_error", "x"), S },
    { 0, ANT("timeout_error", "x"), S }, { 504, ANT("timeout_error", "x"), S },
    { 401, ANT("authentication_error", "x"), A },
    { 0, ANT("permission_error", "x"), A },
    { 402, ANT("billing_error", "x"), Q },
    { 400, ANT("invalid_request_error", "Your credit balance is too low to "
               "access the Anthropic API."), Q },
    { 402, ANT("invalid_request_error", "Your credit balance is too low"),
      Q },
    { 400, ANT("invalid_request_error", "You have reached your specified API "
               "usage limits. You will regain access on 2026-12-01"), Q },
    { 400, ANT("invalid_request_error", "messages.0.role: got 'Your credit "
               "balance is too low'"), C },
    { 404, ANT("not_found_error", "model: claude-9"), M },
    { 0, ANT("not_found_error", "Model: claude-9"), M },
    { 404, ANT("not_found_error", "Not Found"), C },
    { 500, ANT("not_found_error", "model: claude-9"), R },
    { 413, ANT("request_too_large", "prompt is too long"), C },
    { 400, ANT("invalid_request_error",
               "prompt is too long: 210000 tokens > 200000 maximum"), X },
    { 0, ANT("invalid_request_error", "Prompt is too long"), X },
    { 400, ANT("invalid_request_error", "input length and `max_tokens` exceed"
               " context limit: 190000 + 20000 > 200000"), X },
    { 400, ANT("invalid_request_error", "max_tokens: too large"), C },

    /* Gemini */

    { 429, GEM("429", "RESOURCE_EXHAUSTED", "x"), W },
    { 0, "[" GEM("429", "RESOURCE_EXHAUSTED", "x") "]", W },
    { 200, "\n[" GEM("503", "UNAVAILABLE", "x") "\n]", O },
    { 400, GEM("400", "INVALID_ARGUMENT", "The input token count (9) exceeds "
               "the maximum number of tokens allowed (8)."), X },
    { 400, GEM("400", "INVALID_ARGUMENT", "API key not valid. Please pass a "
               "valid API key."), A },
    { 400, GEM("400", "INVALID_ARGUMENT", "role 'api key not valid'"), C },
    { 404, GEM("404", "NOT_FOUND", "models/x is not found for v1"), M },
    { 404, GEM("404", "NOT_FOUND", "x"), C },
    { 504, GEM("504", "DEADLINE_EXCEEDED", "x"), S },
    { 0, GEM("500", "INTERNAL", "x"), R },
    { 403, GEM("403", "PERMISSION_DENIED", "x"), A },
};


static void
class_table(void)
{
    size_t       i;
    llm_str_t    s;
    llm_uint_t   k, got;

    for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        s.len = strlen(classes[i].body);
        s.data = exact(classes[i].body, s.len);

        for (k = 0; llm_dialects[k]; k++) {
            got = llm_dialects[k]->failure(classes[i].status, &s);

            if (!ok(got == classes[i].want, "failure %d %.100s",
                    classes[i].status, classes[i].body))
            {
                printf("#   got:  %d\n#   want: %d\n", (int) got,
                       (int) classes[i].want);
            }
        }

        free(s.data);
    }
}


static void
class_bounds(void)
{
    size_t      i;
    u_char     *p;
    llm_str_t   s;
    llm_uint_t  bad, got;

    static const char  head[] = "{\"error\":{\"message\":\"";
    static const char  tail[] = "maximum context length\"}}";

    /* the message's beginning is read, wherever an escape is cut */

    bad = 0;
    p = malloc(32768);

    for (i = 4000; i < 4120; i++) {
        s.len = sprintf((char *) p, "%s", head);
        memset(p + s.len, 'x', i);
        s.len += i;
        s.len += sprintf((char *) p + s.len, "\\ud83d\\ude00%s", tail);
        s.data = exact(p, s.len);

        got = llm_dialect_openai.failure(400, &s);
        bad += got != (i + 12 + 22 <= 4094 ? LLM_FAIL_CONTEXT
                                          : LLM_FAIL_CLIENT);
        free(s.data);
    }

    is_int(bad, 0, "failure: long messages");

    bad = 0;

    for (i = 0; i < 1000; i++) {
        s.len = 0;
        bad += (llm_dialect_openai.failure(i, &s) == LLM_FAIL_NONE);
    }

    is_int(bad, 0, "failure: never none");

    /* a code of any length */

    memset(p, 'x', 32768);
    memcpy(p, "{\"error\":{\"code\":\"", 18);
    memcpy(p + 32768 - 3, "\"}}", 3);
    s.data = p;
    s.len = 32768;
    is_int(llm_dialect_openai.failure(429, &s), LLM_FAIL_WAIT, "a long code");

    free(p);
}


int
main(void)
{
    header_table();
    epochs();
    limits();
    bodies();
    backoff();
    class_table();
    class_bounds();

    return done();
}
