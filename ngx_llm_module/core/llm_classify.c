
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What kind of failure an error is, by its code or type, by the HTTP status,
 * and by words of its message where APIs have no code for what matters: that
 * the context is too small and that no credit is left.  Codes are those of
 * OpenAI, Anthropic, Google (google.rpc.Code) and of servers that speak like
 * them; which of them a provider is made of is not to be known from its
 * dialect.
 */


#include <string.h>

#include "llm_dialect.h"


#define LLM_CLASSIFY_TEXT  4096        /* of a message: its beginning */
#define LLM_CLASSIFY_NAME  64          /* of a code: the longest known is 32 */

/*
 * Messages repeat what the client wrote ("Invalid value: '...'"): what is said
 * of our key or credit is believed only from this near the beginning, or a
 * client could take a provider away from all the others.
 */
#define LLM_CLASSIFY_HEAD  5           /* "Your " */


/* what an error says of itself */

typedef struct {
    llm_uint_t             sure;       /* LLM_FAIL_...: whatever the status */
    llm_uint_t             hint;       /* LLM_FAIL_...: a status says more.
                                          LLM_FAIL_MODEL: something is not
                                          found */
    llm_uint_t             number;     /* an HTTP status in it; 0: none */
    llm_str_t              message;    /* unescaped, in buf */
    u_char                 buf[LLM_CLASSIFY_TEXT];
} llm_classify_t;


typedef struct {
    const char            *name;       /* in lower case */
    uint8_t                class;
} llm_class_name_t;


typedef struct {
    llm_str_t              text;       /* in lower case */
    uint8_t                class;
} llm_class_text_t;


static void llm_classify_read(llm_classify_t *c, const llm_str_t *body);
static void llm_classify_name(llm_classify_t *c,
    const llm_json_value_t *value);
static llm_uint_t llm_classify_find(const llm_class_name_t *table,
    const char *name);
static void llm_classify_number(llm_classify_t *c,
    const llm_json_value_t *value);
static void llm_classify_message(llm_classify_t *c,
    const llm_json_value_t *value);
static llm_uint_t llm_classify_status(llm_uint_t status);
static llm_uint_t llm_classify_hint(const llm_classify_t *c,
    llm_uint_t status);
static llm_uint_t llm_classify_model(const llm_classify_t *c);
static llm_uint_t llm_classify_text(const llm_classify_t *c,
    llm_uint_t class);


/* these are believed whatever the status is */

static const llm_class_name_t  llm_class_sure[] = {

    { "rate_limit_error", LLM_FAIL_WAIT },
    { "rate_limit_exceeded", LLM_FAIL_WAIT },
    { "rate_limit_reached_error", LLM_FAIL_WAIT },
    { "rate_limit", LLM_FAIL_WAIT },
    { "rate_limited", LLM_FAIL_WAIT },
    { "ratelimiterror", LLM_FAIL_WAIT },
    { "resource_exhausted", LLM_FAIL_WAIT },
    { "too_many_requests", LLM_FAIL_WAIT },
    { "requests", LLM_FAIL_WAIT },
    { "tokens", LLM_FAIL_WAIT },

    { "overloaded_error", LLM_FAIL_OVERLOADED },
    { "overloaded", LLM_FAIL_OVERLOADED },
    { "engine_overloaded", LLM_FAIL_OVERLOADED },
    { "engine_overloaded_error", LLM_FAIL_OVERLOADED },
    { "server_is_overloaded", LLM_FAIL_OVERLOADED },
    { "model_overloaded", LLM_FAIL_OVERLOADED },
    { "slow_down", LLM_FAIL_OVERLOADED },
    { "capacity_exceeded", LLM_FAIL_OVERLOADED },
    { "unavailable", LLM_FAIL_OVERLOADED },
    { "service_unavailable", LLM_FAIL_OVERLOADED },
    { "service_unavailable_error", LLM_FAIL_OVERLOADED },

    { "timeout_error", LLM_FAIL_SILENT },
    { "timeout", LLM_FAIL_SILENT },
    { "deadline_exceeded", LLM_FAIL_SILENT },

    { "insufficient_quota", LLM_FAIL_QUOTA },
    { "insufficient_user_quota", LLM_FAIL_QUOTA },
    { "insufficient_balance", LLM_FAIL_QUOTA },
    { "insufficient_credits", LLM_FAIL_QUOTA },
    { "exceeded_current_quota_error", LLM_FAIL_QUOTA },
    { "billing_hard_limit_reached", LLM_FAIL_QUOTA },
    { "billing_not_active", LLM_FAIL_QUOTA },
    { "billing_error", LLM_FAIL_QUOTA },

    { "authentication_error", LLM_FAIL_AUTH },
    { "authenticationerror", LLM_FAIL_AUTH },
    { "invalid_authentication_error", LLM_FAIL_AUTH },
    { "invalid_api_key", LLM_FAIL_AUTH },
    { "incorrect_api_key_error", LLM_FAIL_AUTH },
    { "account_deactivated", LLM_FAIL_AUTH },
    { "unauthenticated", LLM_FAIL_AUTH },
    { "unauthorized", LLM_FAIL_AUTH },
    { "permission_error", LLM_FAIL_AUTH },
    { "permission_denied", LLM_FAIL_AUTH },
    { "permissiondeniederror", LLM_FAIL_AUTH },

    { "model_not_found", LLM_FAIL_MODEL },
    { "model_not_available", LLM_FAIL_MODEL },
    { "model_decommissioned", LLM_FAIL_MODEL },
    { "invalid_model", LLM_FAIL_MODEL },
    { "deploymentnotfound", LLM_FAIL_MODEL },

    { "context_length_exceeded", LLM_FAIL_CONTEXT },
    { "context_window_exceeded", LLM_FAIL_CONTEXT },
    { "contextwindowexceedederror", LLM_FAIL_CONTEXT },
    { "exceed_context_size_error", LLM_FAIL_CONTEXT },
    { "model_max_prompt_tokens_exceeded", LLM_FAIL_CONTEXT },
    { "tokens_limit_reached", LLM_FAIL_CONTEXT },

    { "content_policy_violation", LLM_FAIL_CLIENT },
    { "content_filter", LLM_FAIL_CLIENT },
    { "data_inspection_failed", LLM_FAIL_CLIENT },
    { "moderation_blocked", LLM_FAIL_CLIENT },
    { "invalid_prompt", LLM_FAIL_CLIENT },
    { "request_too_large", LLM_FAIL_CLIENT },

    { NULL, LLM_FAIL_NONE }
};


/* these are said of many things, and sometimes beside a status that does not
 * fit them: OpenAI's refusals of keys are invalid_request_error, too */

static const llm_class_name_t  llm_class_hints[] = {

    { "invalid_request_error", LLM_FAIL_CLIENT },
    { "badrequesterror", LLM_FAIL_CLIENT },
    { "invalid_argument", LLM_FAIL_CLIENT },
    { "failed_precondition", LLM_FAIL_CLIENT },

    { "not_found_error", LLM_FAIL_MODEL },
    { "not_found", LLM_FAIL_MODEL },
    { "notfounderror", LLM_FAIL_MODEL },

    { "api_error", LLM_FAIL_RETRY },
    { "server_error", LLM_FAIL_RETRY },
    { "internal_error", LLM_FAIL_RETRY },
    { "internal_server_error", LLM_FAIL_RETRY },
    { "internalservererror", LLM_FAIL_RETRY },
    { "internal", LLM_FAIL_RETRY },

    { NULL, LLM_FAIL_NONE }
};


static const llm_class_text_t  llm_class_texts[] = {

    /* Anthropic: 400, invalid_request_error; others with 403 or 429 */

    { llm_string("credit balance is too low"), LLM_FAIL_QUOTA },
    { llm_string("you have reached your specified api usage limits"),
      LLM_FAIL_QUOTA },
    { llm_string("insufficient balance"), LLM_FAIL_QUOTA },

    /* Anthropic, OpenAI and vLLM, llama.cpp, Gemini, Bedrock */

    { llm_string("prompt is too long"), LLM_FAIL_CONTEXT },
    { llm_string("exceed context limit"), LLM_FAIL_CONTEXT },
    { llm_string("maximum context length"), LLM_FAIL_CONTEXT },
    { llm_string("context window"), LLM_FAIL_CONTEXT },
    { llm_string("context length exceeded"), LLM_FAIL_CONTEXT },
    { llm_string("exceeds the context"), LLM_FAIL_CONTEXT },
    { llm_string("available context size"), LLM_FAIL_CONTEXT },
    { llm_string("exceeds the maximum number of tokens"), LLM_FAIL_CONTEXT },
    { llm_string("input is too long"), LLM_FAIL_CONTEXT },

    /* Gemini and xAI: 400 */

    { llm_string("api key not valid"), LLM_FAIL_AUTH },
    { llm_string("incorrect api key"), LLM_FAIL_AUTH },
    { llm_string("invalid api key"), LLM_FAIL_AUTH },
    { llm_string("api key expired"), LLM_FAIL_AUTH },

    /* 403 of those who have no code for it */

    { llm_string("content policy"), LLM_FAIL_CLIENT },
    { llm_string("content management policy"), LLM_FAIL_CLIENT },
    { llm_string("moderation"), LLM_FAIL_CLIENT },

    { llm_null_string, LLM_FAIL_NONE }
};


llm_uint_t
llm_classify(llm_uint_t status, const llm_str_t *body)
{
    llm_uint_t      class;
    llm_classify_t  c;

    llm_classify_read(&c, body);

    if (c.sure != LLM_FAIL_NONE) {
        return c.sure;
    }

    if (status < 400) {
        status = c.number;
    }

    class = llm_classify_hint(&c, status);

    return llm_classify_text(&c, class);
}


static void
llm_classify_read(llm_classify_t *c, const llm_str_t *body)
{
    enum { CODE = 0, TYPE, STATUS, MESSAGE, ERR, DETAIL, MAX };

    llm_json_value_t         error, v[MAX];
    const llm_json_value_t  *message;
    static const llm_str_t   names[MAX] = {
        llm_string("code"),
        llm_string("type"),
        llm_string("status"),
        llm_string("message"),
        llm_string("error"),
        llm_string("detail")
    };

    c->sure = LLM_FAIL_NONE;
    c->hint = LLM_FAIL_NONE;
    c->number = 0;
    c->message.len = 0;
    c->message.data = c->buf;

    if (llm_error_object(body, &error) != LLM_OK
        || llm_json_find(&error.raw, names, v, MAX) != LLM_OK)
    {
        return;
    }

    /* the code says more: a model that is not found is an invalid request */

    llm_classify_name(c, &v[CODE]);
    llm_classify_name(c, &v[TYPE]);
    llm_classify_name(c, &v[STATUS]);

    llm_classify_number(c, &v[CODE]);
    llm_classify_number(c, &v[STATUS]);

    /* {"error": "text"}, and what Python's frameworks say */

    message = &v[MESSAGE];

    if (message->type != LLM_JSON_STRING) {
        message = (v[ERR].type == LLM_JSON_STRING) ? &v[ERR] : &v[DETAIL];
    }

    llm_classify_message(c, message);
}


llm_int_t
llm_error_object(const llm_str_t *body, llm_json_value_t *error)
{
    u_char                 *pos;
    llm_int_t               rc;

    enum { RESPONSE = 0, ERR, MAX };

    llm_json_value_t        top, v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("response"),
        llm_string("error")
    };

    if (body->len == 0) {
        return LLM_DECLINED;
    }

    memset(&top, 0, sizeof(llm_json_value_t));

    top.raw = *body;
    top.type = LLM_JSON_OBJECT;

    rc = llm_json_scan(body, LLM_JSON_DEPTH_MAX, names, v, MAX, NULL);

    if (rc == LLM_ERROR) {
        return LLM_DECLINED;
    }

    if (rc == LLM_DECLINED) {
        pos = NULL;

        /* Gemini: an array of one */

        if (llm_json_next(body, &pos, NULL, &top) != LLM_OK
            || top.type != LLM_JSON_OBJECT
            || llm_json_find(&top.raw, names, v, MAX) != LLM_OK)
        {
            return LLM_DECLINED;
        }
    }

    llm_json_path(&v[RESPONSE], &names[ERR], 1, error);

    if (error->type != LLM_JSON_OBJECT) {
        *error = (v[ERR].type == LLM_JSON_OBJECT) ? v[ERR] : top;
    }

    return LLM_OK;
}


static void
llm_classify_name(llm_classify_t *c, const llm_json_value_t *value)
{
    char    name[LLM_CLASSIFY_NAME + 1];
    size_t  i, len;

    if (value->type != LLM_JSON_STRING || value->raw.len > LLM_CLASSIFY_NAME)
    {
        return;
    }

    len = llm_json_unescape((u_char *) name, value);

    for (i = 0; i < len; i++) {
        if (name[i] >= 'A' && name[i] <= 'Z') {
            name[i] |= 0x20;
        }
    }

    name[len] = '\0';

    if (c->sure == LLM_FAIL_NONE) {
        c->sure = llm_classify_find(llm_class_sure, name);
    }

    if (c->hint == LLM_FAIL_NONE) {
        c->hint = llm_classify_find(llm_class_hints, name);
    }
}


static llm_uint_t
llm_classify_find(const llm_class_name_t *table, const char *name)
{
    while (table->name && strcmp(table->name, name) != 0) {
        table++;
    }

    return table->class;
}


/* 429 or "429" */

static void
llm_classify_number(llm_classify_t *c, const llm_json_value_t *value)
{
    uint64_t          n;
    llm_json_value_t  v;

    v = *value;

    if (v.type == LLM_JSON_STRING && v.raw.len == 5) {
        v.raw.data++;
        v.raw.len = 3;
        v.type = LLM_JSON_NUMBER;
    }

    if (c->number == 0
        && v.type == LLM_JSON_NUMBER
        && llm_json_uint(&v, &n) == LLM_OK
        && n >= 400 && n <= 599)
    {
        c->number = (llm_uint_t) n;
    }
}


static void
llm_classify_message(llm_classify_t *c, const llm_json_value_t *value)
{
    llm_json_value_t  v;

    if (value->type != LLM_JSON_STRING) {
        return;
    }

    v = *value;

    /* an escape that is cut is read as less of one */

    if (v.raw.len > LLM_CLASSIFY_TEXT) {
        v.raw.len = LLM_CLASSIFY_TEXT;
    }

    c->message.len = llm_json_unescape(c->buf, &v);
}


/* LLM_FAIL_NONE: it does not tell a failure */

static llm_uint_t
llm_classify_status(llm_uint_t status)
{
    switch (status) {

    case 401:
    case 403:
        return LLM_FAIL_AUTH;

    case 402:
        return LLM_FAIL_QUOTA;

    case 408:
    case 409:
    case 425:
        return LLM_FAIL_RETRY;

    case 429:
        return LLM_FAIL_WAIT;

    case 501:
        return LLM_FAIL_CLIENT;

    case 503:
    case 529:
        return LLM_FAIL_OVERLOADED;

    case 504:
    case 524:

        /* what is behind a gateway said nothing; 520 to 526: Cloudflare's */

        return LLM_FAIL_SILENT;
    }

    if (status < 400) {
        return LLM_FAIL_NONE;
    }

    return status < 500 ? LLM_FAIL_CLIENT : LLM_FAIL_RETRY;
}


static llm_uint_t
llm_classify_hint(const llm_classify_t *c, llm_uint_t status)
{
    llm_uint_t  class;

    class = llm_classify_status(status);

    if (class != LLM_FAIL_NONE && class != LLM_FAIL_CLIENT) {
        return class;
    }

    if (c->hint == LLM_FAIL_MODEL || status == 404) {
        return llm_classify_model(c);
    }

    if (c->hint == LLM_FAIL_RETRY
        && (class == LLM_FAIL_NONE || status == 400 || status == 422))
    {
        return LLM_FAIL_RETRY;
    }

    if (class == LLM_FAIL_NONE) {
        return c->hint == LLM_FAIL_NONE ? LLM_FAIL_RETRY : c->hint;
    }

    return class;
}


/*
 * Is what is not found the model?  An endpoint, a file, or an item that is
 * not stored are the request's fault; and that a model does not fit an
 * endpoint is told with 404, too.
 */

static llm_uint_t
llm_classify_model(const llm_classify_t *c)
{
    if (!llm_mentions(&c->message, "model", 5)) {
        return LLM_FAIL_CLIENT;
    }

    if (c->hint == LLM_FAIL_MODEL
        || llm_mentions(&c->message, "not found", 9)
        || llm_mentions(&c->message, "not exist", 9))
    {
        return LLM_FAIL_MODEL;
    }

    return LLM_FAIL_CLIENT;
}


/* what a message says more exactly than what is known so far */

static llm_uint_t
llm_classify_text(const llm_classify_t *c, llm_uint_t class)
{
    llm_str_t                text;
    llm_uint_t               generic, good;
    const llm_class_text_t  *p;

    generic = (class == LLM_FAIL_CLIENT || class == LLM_FAIL_RETRY);

    for (p = llm_class_texts; p->text.len; p++) {
        text = c->message;

        switch (p->class) {

        case LLM_FAIL_CLIENT:
            good = (class == LLM_FAIL_AUTH);
            break;

        case LLM_FAIL_CONTEXT:
            good = generic;
            break;

        default: /* LLM_FAIL_QUOTA, LLM_FAIL_AUTH */
            good = generic || p->class == LLM_FAIL_QUOTA;

            if (text.len > LLM_CLASSIFY_HEAD + p->text.len) {
                text.len = LLM_CLASSIFY_HEAD + p->text.len;
            }
        }

        if (good && llm_mentions(&text, (const char *) p->text.data,
                                 p->text.len))
        {
            return p->class;
        }
    }

    return class;
}


llm_uint_t
llm_mentions(const llm_str_t *text, const char *word, size_t len)
{
    u_char  ch;
    size_t  i, n;

    for (i = 0; i + len <= text->len; i++) {

        for (n = 0; n < len; n++) {
            ch = text->data[i + n];

            if (ch >= 'A' && ch <= 'Z') {
                ch |= 0x20;
            }

            if (ch != (u_char) word[n]) {
                break;
            }
        }

        if (n == len) {
            return 1;
        }
    }

    return 0;
}
