
/*
 * Response heads as the providers send them, and error bodies in the dialect
 * of the endpoint.
 */

#include <stdio.h>
#include <time.h>

#include "mock.h"


typedef struct {
    uint32_t     status;
    const char  *reason;
    const char  *openai_type;
    const char  *openai_code;
    const char  *anthropic_type;
    const char  *message;
} mock_status_t;

static const mock_status_t  mock_statuses[] = {
    { 400, "Bad Request", "invalid_request_error", NULL,
      "invalid_request_error", "The request was malformed." },
    { 401, "Unauthorized", "invalid_request_error", "invalid_api_key",
      "authentication_error", "Incorrect API key provided." },
    { 402, "Payment Required", "invalid_request_error", NULL,
      "billing_error", "Payment required." },
    { 403, "Forbidden", "invalid_request_error", "unsupported_country",
      "permission_error", "Not allowed." },
    { 404, "Not Found", "invalid_request_error", "model_not_found",
      "not_found_error", "The model does not exist." },
    { 405, "Method Not Allowed", "invalid_request_error",
      "method_not_supported", "invalid_request_error",
      "Method not allowed." },
    { 408, "Request Timeout", "server_error", NULL,
      "timeout_error", "Request timed out." },
    { 409, "Conflict", "invalid_request_error", NULL,
      "invalid_request_error", "Conflict." },
    { 413, "Payload Too Large", "invalid_request_error", NULL,
      "request_too_large", "Request exceeds the maximum size." },
    { 422, "Unprocessable Entity", "invalid_request_error", NULL,
      "invalid_request_error", "The request could not be processed." },
    { 429, "Too Many Requests", "requests", "rate_limit_exceeded",
      "rate_limit_error", "Rate limit reached for requests." },
    { 500, "Internal Server Error", "server_error", NULL,
      "api_error", "The server had an error while processing your request." },
    { 502, "Bad Gateway", "server_error", NULL, "api_error", "Bad gateway." },
    { 503, "Service Unavailable", "server_error", NULL, "overloaded_error",
      "The engine is currently overloaded, please try again later." },
    { 504, "Gateway Timeout", "server_error", NULL, "timeout_error",
      "Gateway timed out." },
    { 529, "Overloaded", "server_error", NULL, "overloaded_error",
      "Overloaded" },
    { 0, NULL, "server_error", NULL, "api_error", "Error." }
};

typedef struct {
    const char  *code;
    const char  *openai_type;
    const char  *openai_message;
    const char  *anthropic_message;
} mock_code_t;

static const mock_code_t  mock_codes[] = {
    { "context_length_exceeded", "invalid_request_error",
      "This model's maximum context length is 128000 tokens. However, your "
      "messages resulted in 130042 tokens. Please reduce the length of the "
      "messages.",
      "prompt is too long: 210042 tokens > 200000 maximum" },
    { "insufficient_quota", "insufficient_quota",
      "You exceeded your current quota, please check your plan and billing "
      "details.",
      "Your credit balance is too low to access the Anthropic API." },
    { "content_policy_violation", "invalid_request_error",
      "Your request was rejected by the safety system.",
      "Output blocked by content filtering policy" },
    { NULL, NULL, NULL, NULL }
};


static const mock_status_t *
mock_status(uint32_t status)
{
    const mock_status_t  *s;

    for (s = mock_statuses; s->status; s++) {
        if (s->status == status) {
            break;
        }
    }

    return s;
}


static void
mock_head_date(mock_buf_t *b)
{
    time_t     t;
    struct tm  tm;

    static char    date[64];
    static size_t  len;
    static time_t  last;

    t = time(NULL);

    if (t != last) {
        last = t;
        len = strftime(date, sizeof(date),
                       "Date: %a, %d %b %Y %H:%M:%S GMT\r\n",
                       gmtime_r(&t, &tm));
    }

    mock_buf_add(b, date, len);
}


static void
mock_head_openai(mock_req_t *r, mock_buf_t *b, uint64_t rnd)
{
    mock_lit(b, "access-control-expose-headers: X-Request-ID\r\n"
                "openai-organization: mock-org-7f3k2\r\n"
                "openai-processing-ms: 21\r\n"
                "openai-project: proj_mock0123456789abcdefgh\r\n"
                "openai-version: 2020-10-01\r\n");

    if (r->ctl.limits != 0) {
        mock_lit(b, "x-ratelimit-limit-requests: 10000\r\n"
                    "x-ratelimit-limit-tokens: 2000000\r\n"
                    "x-ratelimit-remaining-requests: 9999\r\n"
                    "x-ratelimit-remaining-tokens: 1999981\r\n"
                    "x-ratelimit-reset-requests: 6ms\r\n"
                    "x-ratelimit-reset-tokens: 0s\r\n");
    }

    mock_lit(b, "x-request-id: req_");
    mock_buf_hex(b, r->seq, 16);
    mock_buf_hex(b, rnd, 16);
    mock_lit(b, "\r\ncf-cache-status: DYNAMIC\r\n"
                "set-cookie: __cf_bm=");
    mock_buf_hex(b, rnd * 31, 16);
    mock_lit(b, "-1-1.0.1.1; path=/; domain=.api.openai.com; HttpOnly; "
                "Secure; SameSite=None\r\n"
                "set-cookie: _cfuvid=");
    mock_buf_hex(b, rnd * 37, 16);
    mock_lit(b, "-0.0.1.1; path=/; domain=.api.openai.com; HttpOnly; "
                "Secure; SameSite=None\r\n");
}


static void
mock_head_anthropic_limits(mock_buf_t *b)
{
    mock_lit(b, "anthropic-ratelimit-requests-limit: 4000\r\n"
                "anthropic-ratelimit-requests-remaining: 3999\r\n"
                "anthropic-ratelimit-requests-reset: 2026-11-23T20:00:00Z\r\n"
                "anthropic-ratelimit-input-tokens-limit: 2000000\r\n"
                "anthropic-ratelimit-input-tokens-remaining: 1999000\r\n"
                "anthropic-ratelimit-input-tokens-reset: "
                "2026-11-23T20:00:00Z\r\n"
                "anthropic-ratelimit-output-tokens-limit: 400000\r\n"
                "anthropic-ratelimit-output-tokens-remaining: 399000\r\n"
                "anthropic-ratelimit-output-tokens-reset: "
                "2026-11-23T20:00:00Z\r\n");
}


static void
mock_head_anthropic(mock_req_t *r, mock_buf_t *b, uint64_t rnd)
{
    if (r->ctl.limits != 0) {
        mock_head_anthropic_limits(b);
    }

    mock_lit(b, "request-id: req_011C");
    mock_buf_hex(b, r->seq, 8);
    mock_buf_hex(b, rnd, 12);
    mock_lit(b, "\r\nanthropic-organization-id: "
                "6d0c4a2e-0000-4000-8000-00000000110c\r\n"
                "via: 1.1 google\r\n"
                "cf-cache-status: DYNAMIC\r\n"
                "X-Robots-Tag: none\r\n"
                "set-cookie: _cfuvid=");
    mock_buf_hex(b, rnd * 37, 16);
    mock_lit(b, "-0.0.1.1; path=/; domain=.api.anthropic.com; HttpOnly; "
                "Secure; SameSite=None\r\n");
}


/* headers=Name: value|Name: value */

static void
mock_head_extra(mock_buf_t *b, const char *p)
{
    size_t  n;

    while (*p) {
        n = strcspn(p, "|");

        if (n) {
            mock_buf_add(b, p, n);
            mock_lit(b, "\r\n");
        }

        p += n + (p[n] == '|');
    }
}


static void
mock_head_line(mock_buf_t *b, const char *name, const char *value)
{
    if (value == NULL) {
        return;
    }

    mock_str(b, name);
    mock_lit(b, ": ");
    mock_str(b, value);
    mock_lit(b, "\r\n");
}


/* The head of r->framing; length is for MOCK_FRAME_LENGTH, -1 for no body. */

void
mock_head(mock_req_t *r, mock_buf_t *b, uint32_t status, const char *type,
    int64_t length)
{
    uint64_t              rnd;
    mock_ctl_t           *ctl;
    const mock_status_t  *s;

    ctl = &r->ctl;
    r->status = status;
    r->head_sent = 1;

    if (status == 200) {
        mock_lit(b, "HTTP/1.1 200 OK\r\n");

    } else {
        s = mock_status(status);
        mock_lit(b, "HTTP/1.1 ");
        mock_buf_num(b, status);
        mock_lit(b, " ");
        mock_str(b, s->reason ? s->reason : "Status");
        mock_lit(b, "\r\n");
    }

    mock_head_date(b);
    mock_head_line(b, "Content-Type", type);

    if (r->framing == MOCK_FRAME_CHUNKED) {
        mock_lit(b, "Transfer-Encoding: chunked\r\n");

    } else if (r->framing == MOCK_FRAME_LENGTH && length >= 0) {
        mock_lit(b, "Content-Length: ");
        mock_buf_num(b, (uint64_t) length);
        mock_lit(b, "\r\n");
    }

    if (r->close) {
        mock_lit(b, "Connection: close\r\n");

    } else {
        mock_lit(b, "Connection: keep-alive\r\n");
    }

    if (r->streaming) {
        mock_lit(b, "Cache-Control: no-cache\r\n");
    }

    if (r->gzip) {
        mock_lit(b, "Content-Encoding: gzip\r\n");
    }

    if (!r->control) {
        rnd = r->seq;
        rnd = mock_random(&rnd);

        if (r->api->anthropic) {
            mock_head_anthropic(r, b, rnd);

        } else {
            mock_head_openai(r, b, rnd);
        }

        mock_lit(b, "strict-transport-security: max-age=31536000; "
                    "includeSubDomains; preload\r\n"
                    "Server: cloudflare\r\n"
                    "CF-RAY: ");
        mock_buf_hex(b, rnd, 16);
        mock_lit(b, "-FRA\r\n"
                    "X-Content-Type-Options: nosniff\r\n"
                    "alt-svc: h3=\":443\"; ma=86400\r\n");

        mock_head_line(b, "retry-after", ctl->retry_after);
        mock_head_line(b, "retry-after-ms", ctl->retry_after_ms);
        mock_head_line(b, "x-should-retry", ctl->should_retry);

        if (ctl->headers) {
            mock_head_extra(b, ctl->headers);
        }
    }

    mock_lit(b, "\r\n");
}


/* code and message may be NULL: what is usual for the status. */

void
mock_error_body(mock_req_t *r, mock_buf_t *b, uint32_t status,
    const char *code, const char *message)
{
    const char           *type;
    const mock_code_t    *k;
    const mock_status_t  *s;

    s = mock_status(status);

    for (k = mock_codes; code && k->code; k++) {
        if (strcmp(k->code, code) == 0) {
            break;
        }
    }

    if (code == NULL || k->code == NULL) {
        k = NULL;
    }

    if (r->api->anthropic) {
        if (message == NULL) {
            message = k ? k->anthropic_message : s->message;
        }

        /* Anthropic has no codes: one that is not ours names the type */

        type = (code && k == NULL) ? code : s->anthropic_type;

        mock_lit(b, "{\"type\":\"error\",\"error\":{\"type\":\"");
        mock_str(b, type);
        mock_lit(b, "\",\"message\":\"");
        mock_buf_json(b, message, strlen(message));
        mock_lit(b, "\"},\"request_id\":\"req_011C");
        mock_buf_hex(b, r->seq, 8);
        mock_lit(b, "\"}");
        return;
    }

    if (message == NULL) {
        message = k ? k->openai_message : s->message;
    }

    if (code == NULL) {
        code = s->openai_code;
    }

    mock_lit(b, "{\n    \"error\": {\n        \"message\": \"");
    mock_buf_json(b, message, strlen(message));
    mock_lit(b, "\",\n        \"type\": \"");
    mock_str(b, k ? k->openai_type : s->openai_type);
    mock_lit(b, "\",\n        \"param\": ");

    if (r->param) {
        mock_lit(b, "\"");
        mock_str(b, r->param);
        mock_lit(b, "\"");

    } else {
        mock_lit(b, "null");
    }

    mock_lit(b, ",\n        \"code\": ");

    if (code) {
        mock_lit(b, "\"");
        mock_buf_json(b, code, strlen(code));
        mock_lit(b, "\"");

    } else {
        mock_lit(b, "null");
    }

    mock_lit(b, "\n    }\n}\n");
}
