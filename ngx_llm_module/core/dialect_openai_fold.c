
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: a stream of chat/completions or completions as one
 * plain answer.  The tables say what becomes of each member; what is between
 * the lines of a stream is said below: it has to be whole, each choice ended
 * by a reason, and nothing in it may be an error.
 *
 * Servers that speak like OpenAI differ in where they put a member that the
 * chunks are not made for (the first chunk, the last, all of them), and some
 * write an empty one where they have none.  So members of chunks and choices
 * are taken if they say the same wherever they say anything.
 */


#include <string.h>

#include "dialect_openai.h"
#include "llm_fold.h"


static llm_int_t openai_fold_stream(llm_fold_t *f, void *framer,
    const llm_str_t *text, llm_int_t (*end)(llm_fold_t *f));
static llm_int_t openai_fold_event(llm_fold_t *f, const llm_str_t *text,
    const llm_event_t *ev);
static llm_uint_t openai_fold_is_done(const llm_event_t *ev);
static llm_int_t openai_fold_chat_end(llm_fold_t *f);
static llm_int_t openai_fold_message(llm_fold_t *f,
    const llm_fold_node_t *choice);
static llm_int_t openai_fold_completions_end(llm_fold_t *f);
static llm_int_t openai_fold_top(llm_fold_t *f, const llm_str_t *chunk,
    const llm_str_t *plain);
static llm_uint_t openai_fold_ended(const llm_fold_node_t *choice);


/* places in the tables */

enum {
    OPENAI_F_ID = 0,
    OPENAI_F_OBJECT,
    OPENAI_F_CREATED,
    OPENAI_F_MODEL,
    OPENAI_F_CHOICES,
    OPENAI_F_USAGE
};

enum {
    OPENAI_F_INDEX = 0,
    OPENAI_F_CONTENT,                  /* delta, text */
    OPENAI_F_LOGPROBS,
    OPENAI_F_REASON,
    OPENAI_F_CHOICE_USAGE
};

enum {
    OPENAI_F_ROLE = 0,
    OPENAI_F_TEXT
};


#define openai_rules(table, other, indexed)                                   \
    { table, sizeof(table) / sizeof(table[0]), other, indexed }

#define openai_rule(name, how)                                                \
    { llm_string(name), how, llm_null_string, NULL, 0 }

#define openai_rule_rules(name, how, rules)                                   \
    { llm_string(name), how, llm_null_string, &rules, 0 }


/* Gemini gave calls that stand side by side one index and no id */

static const llm_fold_rule_t  openai_fold_function[] = {
    openai_rule("name", LLM_FOLD_SINGLE),
    openai_rule("arguments", LLM_FOLD_TEXT),
    openai_rule("input", LLM_FOLD_TEXT)
};

static const llm_fold_rules_t  openai_fold_function_rules =
    openai_rules(openai_fold_function, LLM_FOLD_ONCE, 0);


static const llm_fold_rule_t  openai_fold_call[] = {
    openai_rule("index", LLM_FOLD_DROP),
    openai_rule("id", LLM_FOLD_SAME),
    openai_rule("type", LLM_FOLD_SAME),
    openai_rule_rules("function", LLM_FOLD_OBJECT,
                      openai_fold_function_rules),
    openai_rule_rules("custom", LLM_FOLD_OBJECT, openai_fold_function_rules)
};

static const llm_fold_rules_t  openai_fold_call_rules =
    openai_rules(openai_fold_call, LLM_FOLD_ONCE, 1);


static const llm_fold_rule_t  openai_fold_delta[] = {
    openai_rule("role", LLM_FOLD_SAME),
    openai_rule("content", LLM_FOLD_TEXT),
    openai_rule("refusal", LLM_FOLD_TEXT),
    openai_rule("reasoning_content", LLM_FOLD_TEXT),
    openai_rule("reasoning", LLM_FOLD_TEXT),
    { llm_string("tool_calls"), LLM_FOLD_LIST, llm_null_string,
      &openai_fold_call_rules, OPENAI_CALLS },
    openai_rule_rules("function_call", LLM_FOLD_OBJECT,
                      openai_fold_function_rules),
    openai_rule("audio", LLM_FOLD_NONE)
};

static const llm_fold_rules_t  openai_fold_delta_rules =
    openai_rules(openai_fold_delta, LLM_FOLD_GUESS, 0);


/* chat has the first two, completions the rest */

static const llm_fold_rule_t  openai_fold_logprobs[] = {
    openai_rule("content", LLM_FOLD_ITEMS),
    openai_rule("refusal", LLM_FOLD_ITEMS),
    openai_rule("tokens", LLM_FOLD_ITEMS),
    openai_rule("token_logprobs", LLM_FOLD_ITEMS),
    openai_rule("top_logprobs", LLM_FOLD_ITEMS),
    openai_rule("text_offset", LLM_FOLD_ITEMS)
};

static const llm_fold_rules_t  openai_fold_logprobs_rules =
    openai_rules(openai_fold_logprobs, LLM_FOLD_NONE, 0);


static const llm_fold_rule_t  openai_fold_chat_choice[] = {
    openai_rule("index", LLM_FOLD_INDEX),
    { llm_string("delta"), LLM_FOLD_OBJECT, llm_string("message"),
      &openai_fold_delta_rules, 0 },
    openai_rule_rules("logprobs", LLM_FOLD_OBJECT,
                      openai_fold_logprobs_rules),
    openai_rule("finish_reason", LLM_FOLD_SAME),
    openai_rule("usage", LLM_FOLD_LAST),
    openai_rule("message", LLM_FOLD_NONE)
};

static const llm_fold_rules_t  openai_fold_chat_choice_rules =
    openai_rules(openai_fold_chat_choice, LLM_FOLD_ONCE, 0);


static const llm_fold_rule_t  openai_fold_text_choice[] = {
    openai_rule("index", LLM_FOLD_INDEX),
    openai_rule("text", LLM_FOLD_TEXT),
    openai_rule_rules("logprobs", LLM_FOLD_OBJECT,
                      openai_fold_logprobs_rules),
    openai_rule("finish_reason", LLM_FOLD_SAME),
    openai_rule("usage", LLM_FOLD_LAST)
};

static const llm_fold_rules_t  openai_fold_text_choice_rules =
    openai_rules(openai_fold_text_choice, LLM_FOLD_ONCE, 0);


/*
 * "created" is the time of the chunk with some (llama.cpp, Ollama).  "usage"
 * is a running sum where it is told often.  "obfuscation" and Mistral's "p"
 * are random padding.
 */

#define openai_fold_chunk(choice)                                             \
    openai_rule("id", LLM_FOLD_SAME),                                         \
    openai_rule("object", LLM_FOLD_SAME),                                     \
    openai_rule("created", LLM_FOLD_FIRST),                                   \
    openai_rule("model", LLM_FOLD_SAME),                                      \
    { llm_string("choices"), LLM_FOLD_LIST, llm_null_string, &choice,         \
      OPENAI_CHOICES },                                                       \
    openai_rule("usage", LLM_FOLD_LAST),                                      \
    openai_rule("service_tier", LLM_FOLD_SAME),                               \
    openai_rule("system_fingerprint", LLM_FOLD_SAME),                         \
    openai_rule("obfuscation", LLM_FOLD_DROP),                                \
    openai_rule("p", LLM_FOLD_DROP),                                          \
    openai_rule("error", LLM_FOLD_NONE)

static const llm_fold_rule_t  openai_fold_chat[] = {
    openai_fold_chunk(openai_fold_chat_choice_rules)
};

static const llm_fold_rules_t  openai_fold_chat_rules =
    openai_rules(openai_fold_chat, LLM_FOLD_SAME, 0);


static const llm_fold_rule_t  openai_fold_completions[] = {
    openai_fold_chunk(openai_fold_text_choice_rules)
};

static const llm_fold_rules_t  openai_fold_completions_rules =
    openai_rules(openai_fold_completions, LLM_FOLD_SAME, 0);


llm_int_t
openai_fold(const llm_endpoint_t *ep, const llm_str_t *text,
    const llm_mem_t *mem, llm_str_t *out)
{
    void        *framer;
    llm_int_t    rc;
    llm_fold_t   f;
    llm_uint_t   chat;

    if (ep->id == OPENAI_RESPONSES) {
        return openai_responses_fold(text, mem, out);
    }

    if ((ep->id != OPENAI_CHAT && ep->id != OPENAI_COMPLETIONS)
        || text->len == 0)
    {
        return LLM_DECLINED;
    }

    chat = (ep->id == OPENAI_CHAT);

    rc = llm_fold_init(&f, mem, chat ? &openai_fold_chat_rules
                                     : &openai_fold_completions_rules);

    framer = llm_sse_framing.create(mem, text->len);

    if (rc == LLM_OK && framer) {
        rc = openai_fold_stream(&f, framer, text,
                                chat ? openai_fold_chat_end
                                     : openai_fold_completions_end);

    } else {
        rc = LLM_ERROR;
    }

    if (rc == LLM_OK) {
        rc = llm_fold_end(&f, out);
    }

    if (framer) {
        llm_sse_framing.free(framer);
    }

    llm_fold_free(&f);

    return rc;
}


static llm_int_t
openai_fold_stream(llm_fold_t *f, void *framer, const llm_str_t *text,
    llm_int_t (*end)(llm_fold_t *f))
{
    u_char       *pos, *last;
    llm_int_t     rc;
    llm_uint_t    done;
    llm_event_t   ev;

    done = 0;
    pos = text->data;
    last = pos + text->len;

    for ( ;; ) {
        rc = llm_sse_framing.feed(framer, &pos, last, &ev);

        if (rc != LLM_OK) {
            break;
        }

        if (ev.lines == 0) {
            continue;
        }

        if (done) {
            return LLM_DECLINED;
        }

        done = openai_fold_is_done(&ev);

        if (!done) {
            rc = openai_fold_event(f, text, &ev);
            if (rc != LLM_OK) {
                return rc;
            }
        }
    }

    if (rc != LLM_AGAIN) {
        return rc;
    }

    rc = llm_sse_framing.finish(framer, &ev);

    if (rc == LLM_ERROR) {
        return LLM_ERROR;
    }

    /* what we stored ends in a blank line */

    return (rc == LLM_DONE && done) ? end(f) : LLM_DECLINED;
}


static llm_int_t
openai_fold_event(llm_fold_t *f, const llm_str_t *text,
    const llm_event_t *ev)
{
    enum { CHOICES = 0, USAGE, MAX };

    llm_str_t               data;
    llm_json_value_t        v[MAX];
    static const llm_str_t  names[MAX] = {
        llm_string("choices"),
        llm_string("usage")
    };

    if (ev->type.len
        && (ev->type.len != 7 || memcmp(ev->type.data, "message", 7) != 0))
    {
        return LLM_DECLINED;
    }

    if (llm_json_scan(&ev->data, LLM_JSON_DEPTH_MAX, names, v, MAX, NULL)
        != LLM_OK)
    {
        return LLM_DECLINED;
    }

    /* not a chunk, but something that nobody knows */

    if (v[CHOICES].type == LLM_JSON_ABSENT
        && v[USAGE].type != LLM_JSON_OBJECT)
    {
        return LLM_DECLINED;
    }

    data = ev->data;

    if ((uintptr_t) data.data < (uintptr_t) text->data
        || (uintptr_t) data.data >= (uintptr_t) text->data + text->len)
    {
        /* joined lines are the framer's, until the next event */

        data = llm_fold_copy(f, &data);

        if (data.data == NULL) {
            return LLM_ERROR;
        }
    }

    return llm_fold_add(f, &data);
}


static llm_uint_t
openai_fold_is_done(const llm_event_t *ev)
{
    u_char  *p, *last;

    p = ev->data.data;
    last = p + ev->data.len;

    while (p < last && *p == ' ') {
        p++;
    }

    while (p < last && last[-1] == ' ') {
        last--;
    }

    return last - p == 6 && memcmp(p, "[DONE]", 6) == 0;
}


static llm_int_t
openai_fold_chat_end(llm_fold_t *f)
{
    llm_int_t                 rc;
    llm_fold_node_t          *choice;
    static const llm_str_t    chunk = llm_string("chat.completion.chunk");
    static const llm_str_t    plain = llm_string("\"chat.completion\"");
    const llm_fold_member_t  *choices;

    rc = openai_fold_top(f, &chunk, &plain);
    if (rc != LLM_OK) {
        return rc;
    }

    choices = llm_fold_member(f->root, OPENAI_F_CHOICES);

    for (choice = choices->nodes; choice; choice = choice->next) {
        rc = openai_fold_message(f, choice);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    return LLM_OK;
}


/* the members that a message has, be there nothing to say */

static llm_int_t
openai_fold_message(llm_fold_t *f, const llm_fold_node_t *choice)
{
    llm_int_t                 rc;
    llm_fold_node_t          *message;
    static const llm_str_t    assistant = llm_string("\"assistant\"");
    static const llm_str_t    null = llm_string("null");
    const llm_fold_member_t  *m;

    m = llm_fold_member(choice, OPENAI_F_CONTENT);

    if (m == NULL || m->nodes == NULL) {
        return LLM_DECLINED;
    }

    message = m->nodes;
    m = llm_fold_member(message, OPENAI_F_ROLE);

    if (m && !llm_json_empty(&m->value)
        && m->value.type != LLM_JSON_STRING)
    {
        return LLM_DECLINED;
    }

    if (m == NULL || llm_json_empty(&m->value)) {
        rc = llm_fold_set(f, message, OPENAI_F_ROLE, &assistant);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    if (llm_fold_member(message, OPENAI_F_TEXT) == NULL) {
        return llm_fold_set(f, message, OPENAI_F_TEXT, &null);
    }

    return LLM_OK;
}


static llm_int_t
openai_fold_completions_end(llm_fold_t *f)
{
    llm_int_t                 rc;
    llm_fold_node_t          *choice;
    static const llm_str_t    chunk = llm_string("text_completion");
    static const llm_str_t    plain = llm_string("\"text_completion\"");
    const llm_fold_member_t  *choices, *m;

    rc = openai_fold_top(f, &chunk, &plain);
    if (rc != LLM_OK) {
        return rc;
    }

    choices = llm_fold_member(f->root, OPENAI_F_CHOICES);

    for (choice = choices->nodes; choice; choice = choice->next) {
        m = llm_fold_member(choice, OPENAI_F_CONTENT);

        if (m == NULL || m->value.type != LLM_JSON_STRING) {
            return LLM_DECLINED;
        }
    }

    return LLM_OK;
}


static llm_int_t
openai_fold_top(llm_fold_t *f, const llm_str_t *chunk,
    const llm_str_t *plain)
{
    llm_int_t                 rc;
    llm_uint_t                usage;
    llm_fold_node_t          *choice;
    static const llm_str_t    zero = llm_string("0");
    const llm_fold_member_t  *m;

    m = llm_fold_member(f->root, OPENAI_F_OBJECT);

    if (m && !llm_json_empty(&m->value)
        && !llm_json_is(&m->value, (char *) chunk->data, chunk->len))
    {
        return LLM_DECLINED;
    }

    m = llm_fold_member(f->root, OPENAI_F_USAGE);
    usage = (m && m->value.type == LLM_JSON_OBJECT);

    m = llm_fold_member(f->root, OPENAI_F_CHOICES);

    if (m == NULL || m->nodes == NULL) {
        return LLM_DECLINED;
    }

    for (choice = m->nodes; choice; choice = choice->next) {

        if (!openai_fold_ended(choice)) {
            return LLM_DECLINED;
        }

        if (llm_fold_member(choice, OPENAI_F_INDEX) == NULL) {
            rc = llm_fold_set(f, choice, OPENAI_F_INDEX, &zero);
            if (rc != LLM_OK) {
                return rc;
            }
        }
    }

    /* Moonshot's, told with the choice: plain answers have it above */

    m = llm_fold_member(m->nodes, OPENAI_F_CHOICE_USAGE);

    if (!usage && m && m->value.type == LLM_JSON_OBJECT) {
        rc = llm_fold_set(f, NULL, OPENAI_F_USAGE, &m->value.raw);
        if (rc != LLM_OK) {
            return rc;
        }
    }

    return llm_fold_set(f, NULL, OPENAI_F_OBJECT, plain);
}


static llm_uint_t
openai_fold_ended(const llm_fold_node_t *choice)
{
    const llm_fold_member_t  *m;

    m = llm_fold_member(choice, OPENAI_F_REASON);

    return m && m->value.type == LLM_JSON_STRING
           && !llm_json_empty(&m->value);
}
