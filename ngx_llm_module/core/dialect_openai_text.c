
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: the text that an event of a stream shows, for resuming
 * one that broke.  What is not surely text, and the first choice's, is
 * something else: it could not be found again in another answer.
 */


#include <string.h>

#include "dialect_openai.h"


/* members of a choice */

enum {
    OPENAI_X_INDEX = 0,
    OPENAI_X_DELTA,
    OPENAI_X_TEXT,
    OPENAI_X_REASON,
    OPENAI_X_LOGPROBS,
    OPENAI_X_MAX
};


static llm_int_t openai_text_choices(const llm_answer_t *a,
    const llm_json_value_t *choices, llm_json_value_t *text);
static llm_int_t openai_text_choice(const llm_answer_t *a,
    const llm_json_value_t *v, llm_json_value_t *text);
static llm_int_t openai_text_delta(const llm_json_value_t *delta,
    llm_json_value_t *text);


llm_int_t
openai_text(const llm_answer_t *a, const llm_event_t *ev,
    llm_json_value_t *text)
{
    enum { CHOICES = 0, USAGE, MAX };

    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("choices"),
        llm_string("usage")
    };

    if (a->endpoint->id != OPENAI_CHAT
        && a->endpoint->id != OPENAI_COMPLETIONS)
    {
        return LLM_DECLINED;
    }

    if (ev->lines == 0 || a->terminal) {
        return LLM_DONE;
    }

    if (llm_json_find(&ev->data, names, v, MAX) != LLM_OK) {
        return LLM_DECLINED;
    }

    if (v[CHOICES].type != LLM_JSON_ARRAY) {
        return v[USAGE].type == LLM_JSON_OBJECT ? LLM_DONE : LLM_DECLINED;
    }

    return openai_text_choices(a, &v[CHOICES], text);
}


static llm_int_t
openai_text_choices(const llm_answer_t *a, const llm_json_value_t *choices,
    llm_json_value_t *text)
{
    u_char                 *pos;
    llm_json_value_t        v[OPENAI_X_MAX], choice, other;
    static const llm_str_t  names[OPENAI_X_MAX] = {
        llm_string("index"),
        llm_string("delta"),
        llm_string("text"),
        llm_string("finish_reason"),
        llm_string("logprobs")
    };

    pos = NULL;

    if (llm_json_next_object(&choices->raw, &pos, names, v, OPENAI_X_MAX,
                             &choice)
        != LLM_OK)
    {
        return LLM_DONE;
    }

    if (choice.type != LLM_JSON_OBJECT
        || llm_json_next(&choices->raw, &pos, NULL, &other) == LLM_OK)
    {
        return LLM_DECLINED;
    }

    return openai_text_choice(a, v, text);
}


static llm_int_t
openai_text_choice(const llm_answer_t *a, const llm_json_value_t *v,
    llm_json_value_t *text)
{
    uint64_t                 n;
    const llm_json_value_t  *said;

    if (!llm_json_empty(&v[OPENAI_X_INDEX])
        && (llm_json_uint(&v[OPENAI_X_INDEX], &n) != LLM_OK || n != 0))
    {
        return LLM_DECLINED;
    }

    if (!llm_json_empty(&v[OPENAI_X_LOGPROBS])) {
        return LLM_DECLINED;
    }

    said = &v[a->endpoint->id == OPENAI_CHAT ? OPENAI_X_DELTA
                                             : OPENAI_X_TEXT];

    if (said->type == LLM_JSON_ABSENT) {

        /* nothing is known of such a choice, unless it only ends */

        return llm_json_empty(&v[OPENAI_X_REASON]) ? LLM_DECLINED : LLM_DONE;
    }

    if (llm_json_empty(said)) {
        return LLM_DONE;
    }

    if (a->endpoint->id == OPENAI_CHAT) {
        return openai_text_delta(said, text);
    }

    *text = *said;

    return said->type == LLM_JSON_STRING ? LLM_OK : LLM_DECLINED;
}


static llm_int_t
openai_text_delta(const llm_json_value_t *delta, llm_json_value_t *text)
{
    u_char            *pos;
    llm_str_t          name;
    llm_json_value_t   v;

    if (delta->type != LLM_JSON_OBJECT) {
        return LLM_DECLINED;
    }

    memset(text, 0, sizeof(llm_json_value_t));

    pos = NULL;

    while (llm_json_next(&delta->raw, &pos, &name, &v) == LLM_OK) {

        if (llm_json_name_is(&name, "content", 7)) {

            if (v.type != LLM_JSON_STRING && !llm_json_empty(&v)) {
                return LLM_DECLINED;
            }

            *text = v;
            continue;
        }

        if (!llm_json_empty(&v)
            && !llm_json_name_is(&name, "role", 4)
            && !llm_json_name_is(&name, "obfuscation", 11))
        {
            return LLM_DECLINED;
        }
    }

    return llm_json_empty(text) ? LLM_DONE : LLM_OK;
}


/* the finish reason does */

llm_int_t
openai_text_end(llm_event_t *ev)
{
    (void) ev;

    return LLM_DECLINED;
}


llm_uint_t
openai_continues(const llm_request_t *rq)
{
    (void) rq;

    /* an assistant's message at the end is answered, not gone on with */

    return 0;
}
