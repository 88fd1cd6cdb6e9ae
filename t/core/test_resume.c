
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A broken stream resumed: the text that events show, what a provider is
 * asked to go on from, and answers joined to what was shown of others, cut
 * and escaped in every way.
 */


#include "dialect.h"


#define OA     &llm_dialect_openai
#define AN     &llm_dialect_anthropic

#define CHAT   "chat/completions"
#define LEGACY "completions"
#define MAX    1000000


/* events of each endpoint, around a text */

#define C_ROLE                                                                \
    "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"            \
    "\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,"     \
    "\"finish_reason\":null}],\"usage\":null}"
#define C_TEXT(t)                                                             \
    "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""       \
    t "\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null,"        \
    "\"obfuscation\":\"x\"}"
#define C_LAST(t)                                                             \
    "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""       \
    t "\"},\"finish_reason\":\"stop\"}]}"
#define C_USED(t)                                                             \
    "{\"choices\":[{\"delta\":{\"content\":\"" t "\"}}],\"usage\":"           \
    "{\"prompt_tokens\":1}}"
#define C_STOP                                                                \
    "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}"
#define C_USAGE  "{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}"
#define C_TOOL                                                                \
    "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}"
#define C_DONE  "[DONE]"

#define L_TEXT(t)                                                             \
    "{\"choices\":[{\"text\":\"" t "\",\"index\":0,\"logprobs\":null,"        \
    "\"finish_reason\":null}]}"
#define L_STOP                                                                \
    "{\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}]}"

#define M_START                                                               \
    "{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"content\":[],"   \
    "\"usage\":{\"input_tokens\":3}}}"
#define M_PING  "{\"type\": \"ping\"}"
#define M_OPEN                                                                \
    "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"        \
    "{\"type\":\"text\",\"text\":\"\"}}"
#define M_TEXT(t)                                                             \
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":"                \
    "{\"type\":\"text_delta\",\"text\":\"" t "\"}}"
#define M_CLOSE  "{\"type\":\"content_block_stop\",\"index\":0}"
#define M_CLOSED  "event: content_block_stop\ndata: " M_CLOSE "\n\n"
#define M_TOOL                                                                \
    "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"        \
    "{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}"
#define M_THINK                                                               \
    "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"        \
    "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}"
#define M_STOP                                                                \
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},"   \
    "\"usage\":{\"output_tokens\":5}}"
#define M_DELTA                                                               \
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null}}"
#define M_END  "{\"type\":\"message_stop\"}"
#define M_ERROR                                                               \
    "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}"


/* as short as it may be to find that an answer begins anew */

#define LONG  "0123456789abcdef"


/* one client's stream; the attempts' memory is counted with its own */

typedef struct {
    run_mem_t              m;
    llm_resume_t           rs;
    llm_answer_t           a;
    const llm_dialect_t   *dialect;
    const char            *path;

    llm_uint_t             first;      /* the attempt is */
    llm_uint_t             twice;      /* one was put before the last event */
    u_char                 before[256];    /* it, as it is sent */
    size_t                 before_len;
    u_char                 out[8192];  /* the last event shown */
    size_t                 out_len;
    u_char                 text[8192]; /* all text shown */
    size_t                 len;
    llm_uint_t             shown;      /* events */
} stream_t;


static void
stream_init(stream_t *s, const llm_dialect_t *dialect, const char *path,
    size_t max, size_t fail)
{
    run_mem(&s->m, fail);

    s->dialect = dialect;
    s->path = path;
    s->first = 1;
    s->twice = 0;
    s->out_len = 0;
    s->len = 0;
    s->shown = 0;

    llm_resume_init(&s->rs, &s->m.mem, max);
    answer_init(&s->a, dialect, path, &s->m.mem);
}


static void
stream_again(stream_t *s, llm_uint_t continues)
{
    s->dialect->answer_free(&s->a);
    answer_init(&s->a, s->dialect, s->path, &s->m.mem);

    llm_resume_begin(&s->rs, continues);
    s->first = 0;
}


/* 1 if nothing is left */

static int
stream_free(stream_t *s)
{
    s->dialect->answer_free(&s->a);
    llm_resume_free(&s->rs);
    llm_resume_free(&s->rs);

    return s->m.live == 0;
}


static void
stream_shown(stream_t *s, const llm_event_t *ev)
{
    llm_json_value_t  text;

    if (ev->data.len > sizeof(s->out)) {
        abort();
    }

    s->shown++;
    s->out_len = ev->data.len;

    if (ev->data.len) {
        memcpy(s->out, ev->data.data, ev->data.len);
    }

    if (!s->a.failed && s->dialect->text(&s->a, ev, &text) == LLM_OK) {
        s->len += llm_json_unescape(s->text + s->len, &text);
    }
}


/* an event of the current attempt; data NULL: one without */

static llm_int_t
stream_event(stream_t *s, const char *data)
{
    u_char       *copy;
    llm_int_t     rc;
    llm_uint_t    what;
    llm_event_t   ev, out;

    memset(&ev, 0, sizeof(llm_event_t));

    ev.data = cstr(data);
    ev.data.data = copy = exact(ev.data.data, ev.data.len);
    ev.lines = data != NULL;

    s->twice = 0;
    rc = s->dialect->event(&s->a, &ev, &what);

    if (rc == LLM_OK && s->first) {
        rc = llm_resume_note(&s->rs, &s->a, &ev, what);
        out = ev;

    } else if (rc == LLM_OK) {
        rc = llm_resume_event(&s->rs, &s->a, &ev, what, &out);

        if (rc == LLM_AGAIN) {
            s->twice = 1;
            s->before_len = llm_sse_write(s->before, &out, NULL);
            stream_shown(s, &out);

            rc = llm_resume_event(&s->rs, &s->a, &ev, what, &out);
        }
    }

    if (rc == LLM_OK) {
        stream_shown(s, &out);
    }

    free(copy);

    return rc;
}


/* ------------------------------------------------------ texts of events */

typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *type;
    const char            *data;
    llm_int_t              rc;
    const char            *text;       /* as it is written */
} text_t;


static const text_t  texts[] = {
    { OA, CHAT, NULL, NULL, LLM_DONE, "" },
    { OA, CHAT, NULL, C_ROLE, LLM_DONE, "" },
    { OA, CHAT, NULL, C_TEXT("a\\n\\u00e9"), LLM_OK, "\"a\\n\\u00e9\"" },
    { OA, CHAT, NULL, C_TEXT(""), LLM_DONE, "" },
    { OA, CHAT, NULL, C_LAST("b"), LLM_OK, "\"b\"" },
    { OA, CHAT, NULL, C_STOP, LLM_DONE, "" },
    { OA, CHAT, NULL, C_USAGE, LLM_DONE, "" },
    { OA, CHAT, NULL, C_DONE, LLM_DONE, "" },
    { OA, CHAT, NULL, C_TOOL, LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"usage\":{}}", LLM_DONE, "" },
    { OA, CHAT, NULL, "{\"choices\":null}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"type\":\"new\"}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "[{}]", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "3", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[null]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{}]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":null}]}", LLM_DONE, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":\"a\"}]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"text\":\"a\"}]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"finish_reason\":\"stop\"}]}",
      LLM_DONE, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}",
      LLM_OK, "\"a\"" },
    { OA, CHAT, NULL, "{\"choices\":[{\"index\":null,\"delta\":{\"role\":"
      "\"assistant\",\"obfuscation\":\"x\",\"c\\u006fntent\" : \"a\","
      "\"tool_calls\":[],\"annotations\":null}}]} ", LLM_OK, "\"a\"" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"content\":\"a\","
      "\"content\":\"b\"}}]}", LLM_OK, "\"b\"" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"content\":\"a\","
      "\"content\":null}}]}", LLM_DONE, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"content\":[{\"type\":"
      "\"text\"}]}}]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"content\":\"a\","
      "\"reasoning_content\":\"b\"}}]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"refusal\":\"no\"}}]}",
      LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"audio\":{\"id\":1}}}]}",
      LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{\"content\":\"a\"},"
      "\"logprobs\":{\"content\":[]}}]}", LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"index\":1,\"delta\":{}}]}",
      LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"index\":\"0\",\"delta\":{}}]}",
      LLM_DECLINED, "" },
    { OA, CHAT, NULL, "{\"choices\":[{\"delta\":{}},{\"index\":1}]}",
      LLM_DECLINED, "" },

    { OA, LEGACY, NULL, L_TEXT("a"), LLM_OK, "\"a\"" },
    { OA, LEGACY, NULL, L_STOP, LLM_DONE, "" },
    { OA, LEGACY, NULL, C_DONE, LLM_DONE, "" },
    { OA, LEGACY, NULL, "{\"choices\":[{\"text\":null}]}", LLM_DONE, "" },
    { OA, LEGACY, NULL, "{\"choices\":[{\"text\":1}]}", LLM_DECLINED, "" },
    { OA, LEGACY, NULL, "{\"choices\":[{\"text\":{\"a\":1}}]}",
      LLM_DECLINED, "" },
    { OA, LEGACY, NULL, "{\"choices\":[{\"index\":0}]}", LLM_DECLINED, "" },
    { OA, LEGACY, NULL, "{\"choices\":[{\"finish_reason\":\"stop\"}]}",
      LLM_DONE, "" },
    { OA, LEGACY, NULL, "{\"choices\":[{\"text\":\"a\",\"logprobs\":"
      "{\"tokens\":[\"a\"]}}]}", LLM_DECLINED, "" },
    { OA, LEGACY, NULL, C_TEXT("a"), LLM_DECLINED, "" },

    { OA, "responses", NULL, "{\"type\":\"response.output_text.delta\","
      "\"delta\":\"a\"}", LLM_DECLINED, "" },

    { AN, "messages", NULL, NULL, LLM_DONE, "" },
    { AN, "messages", NULL, M_START, LLM_DONE, "" },
    { AN, "messages", NULL, M_PING, LLM_DONE, "" },
    { AN, "messages", NULL, M_OPEN, LLM_OK, "\"\"" },
    { AN, "messages", NULL, M_TEXT("a"), LLM_OK, "\"a\"" },
    { AN, "messages", NULL, M_TEXT(""), LLM_DONE, "" },
    { AN, "messages", NULL, M_CLOSE, LLM_DECLINED, "" },
    { AN, "messages", NULL, M_TOOL, LLM_DECLINED, "" },
    { AN, "messages", NULL, M_THINK, LLM_DECLINED, "" },
    { AN, "messages", NULL, M_STOP, LLM_DONE, "" },
    { AN, "messages", NULL, M_END, LLM_DONE, "" },
    { AN, "messages", NULL, "{\"type\":\"new\"}", LLM_DECLINED, "" },
    { AN, "messages", NULL, "[]", LLM_DECLINED, "" },
    { AN, "messages", "content_block_delta", "{\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"a\"}}", LLM_OK, "\"a\"" },
    { AN, "messages", "content_block_delta", "{\"delta\":{\"type\":"
      "\"text_delta\",\"text\":null}}", LLM_DECLINED, "" },
    { AN, "messages", "content_block_delta", "{\"delta\":{\"type\":"
      "\"thinking_delta\",\"thinking\":\"a\"}}", LLM_DECLINED, "" },
    { AN, "messages", "content_block_delta", "{\"delta\":{\"type\":"
      "\"citations_delta\",\"citation\":{}}}", LLM_DECLINED, "" },
    { AN, "messages", "content_block_delta", "{\"index\":1,\"delta\":"
      "{\"type\":\"text_delta\",\"text\":\"a\"}}", LLM_DECLINED, "" },
    { AN, "messages", "content_block_delta", "{}", LLM_DECLINED, "" },
    { AN, "messages", "content_block_start", "{\"content_block\":"
      "{\"type\":\"text\",\"text\":\"\",\"citations\":null}}",
      LLM_OK, "\"\"" },
    { AN, "messages", "content_block_start", "{\"content_block\":"
      "{\"type\":\"text\",\"text\":\"\",\"citations\":[1]}}",
      LLM_DECLINED, "" },
    { AN, "messages", "content_block_start", "{\"content_block\":"
      "{\"type\":\"text\",\"text\":\"a\"}}", LLM_DECLINED, "" },
    { AN, "messages", "message_start", "{\"message\":{\"content\":[1]}}",
      LLM_DECLINED, "" }
};


static void
event_texts(void)
{
    size_t            i;
    llm_int_t         rc;
    llm_uint_t        what;
    llm_event_t       ev;
    stream_t          s;
    llm_json_value_t  text;
    const text_t     *t;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        t = &texts[i];

        stream_init(&s, t->dialect, t->path, MAX, 0);
        memset(&ev, 0, sizeof(llm_event_t));
        memset(&text, 0xa5, sizeof(llm_json_value_t));

        ev.type = cstr(t->type);
        ev.data = cstr(t->data);
        ev.data.data = exact(ev.data.data, ev.data.len);
        ev.lines = t->data != NULL;

        t->dialect->event(&s.a, &ev, &what);
        rc = t->dialect->text(&s.a, &ev, &text);

        ok(rc == t->rc
           && (rc != LLM_OK
               || (text.raw.len == strlen(t->text)
                   && memcmp(text.raw.data, t->text, text.raw.len) == 0)),
           "text: %d %.60s", (int) rc, t->data ? t->data : "none");

        free(ev.data.data);
        stream_free(&s);
    }
}


/* ----------------------------------------------------------- requests */

typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *body;
    const char            *built;      /* NULL: cannot go on */
} build_t;


#define SHOWN  "{\"role\":\"assistant\",\"content\":\"a\\\"\\n\xc3\xa9\"}"

static const build_t  builds[] = {
    { AN, "messages", "{\"messages\":[{\"role\":\"user\"} ] ,"
      "\"max_tokens\":9,\"model\":\"a\"}",
      "{\"messages\":[{\"role\":\"user\"} ," SHOWN "] ,\"max_tokens\":5,"
      "\"model\":\"b\"}" },
    { AN, "messages", " {\"model\":\"a\",\"max_tokens\":9,\"messages\":"
      "[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\"{\"}]}",
      " {\"model\":\"b\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\"},"
      "{\"role\":\"assistant\",\"content\":\"{\"}," SHOWN "]}" },
    { AN, "messages", "{\"messages\":[ ],\"model\":\"a\"}",
      "{\"messages\":[ " SHOWN "],\"model\":\"b\"}" },
    { AN, "messages", "{\"messages\":[1],\"model\":\"a\",\"thinking\":"
      "{\"type\":\"disabled\"}}",
      "{\"messages\":[1," SHOWN "],\"model\":\"b\",\"thinking\":"
      "{\"type\":\"disabled\"}}" },
    { AN, "messages", "{\"messages\":[1],\"model\":\"a\",\"thinking\":null}",
      "{\"messages\":[1," SHOWN "],\"model\":\"b\",\"thinking\":null}" },
    { AN, "messages", "{\"messages\":[1],\"model\":\"b\",\"thinking\":"
      "{\"type\":\"enabled\",\"budget_tokens\":1024}}", NULL },
    { AN, "messages", "{\"messages\":[1],\"model\":\"b\",\"thinking\":"
      "{\"type\":\"adaptive\"}}", NULL },
    { AN, "messages", "{\"messages\":[1],\"model\":\"b\","
      "\"output_config\":{\"format\":{\"type\":\"json_schema\"}}}", NULL },
    { AN, "messages/count_tokens", "{\"messages\":[1],\"model\":\"b\"}",
      NULL },
    { OA, CHAT, "{\"messages\":[1],\"model\":\"b\"}", NULL },
    { OA, LEGACY, "{\"prompt\":\"a\",\"model\":\"b\"}", NULL },
    { OA, "responses", "{\"input\":\"a\",\"model\":\"b\"}", NULL }
};


static void
requests(void)
{
    size_t          i;
    pool_t          pool;
    llm_str_t       out;
    llm_uint_t      n, goes;
    llm_error_t     err;
    llm_change_t    change;
    llm_splice_t    sp[LLM_SPLICES];
    llm_request_t   rq;
    const build_t  *b;

    for (i = 0; i < sizeof(builds) / sizeof(builds[0]); i++) {
        b = &builds[i];
        pool_init(&pool, 0);

        if (parse(&rq, b->dialect, b->path,
                  text(&pool, b->body, strlen(b->body)), &pool.mem, &err)
            != LLM_OK)
        {
            abort();
        }

        memset(&change, 0, sizeof(llm_change_t));

        change.model = cstr("b");
        change.max_output = 5;
        change.shown = cstr("a\"\n\xc3\xa9");

        goes = b->dialect->continues(&rq);

        if (b->dialect->build(&rq, &change, &pool.mem, sp, &n) != LLM_OK) {
            abort();
        }

        out = splice(&pool, &rq.body, sp, n);

        ok(goes == (b->built != NULL), "continues: %.60s", b->body);
        is(&out, b->built ? b->built : b->body, "build: what was shown");

        pool_free(&pool);
    }
}


/* ---------------------------------------------------------- scenarios */

/*
 * n  an event is shown, which is noted      R  the request is run again
 * e  an event of the new answer             C  the new answer goes on
 * 2  the same, and one is put before it
 * =  the text shown so far, noted as such   w  what to go on from
 * !  resuming is not possible any more
 */

typedef struct {
    char                   op;
    const char            *data;
    llm_int_t              rc;
    const char            *out;        /* NULL: as it came */
} line_t;


static int
scenario_line(stream_t *s, const line_t *l)
{
    llm_int_t    rc;
    llm_str_t    text;
    const char  *want;

    switch (l->op) {

    case 'R':
    case 'C':
        stream_again(s, l->op == 'C');
        return 1;

    case 'w':
        text = llm_resume_text(&s->rs);
        return text.len == strlen(l->data)
               && (text.len == 0
                   || memcmp(text.data, l->data, text.len) == 0);

    case '=':
        return s->rs.possible
               && s->rs.len == strlen(l->data) && s->len == s->rs.len
               && (s->len == 0
                   || memcmp(s->rs.shown, l->data, s->len) == 0)
               && memcmp(s->text, l->data, s->len) == 0;

    case '!':
        return !s->rs.possible && s->rs.shown == NULL;

    default:
        rc = stream_event(s, l->data);
        want = l->out ? l->out : l->data ? l->data : "";

        if (s->twice != (l->op == '2')
            || (s->twice
                && (s->before_len != sizeof(M_CLOSED) - 1
                    || memcmp(s->before, M_CLOSED, s->before_len) != 0)))
        {
            return 0;
        }

        return rc == l->rc
               && (rc != LLM_OK
                   || (s->out_len == strlen(want)
                       && memcmp(s->out, want, s->out_len) == 0));
    }
}


static void
scenario(const char *name, const llm_dialect_t *dialect, const char *path,
    size_t max, const line_t *l, size_t n)
{
    int       good;
    size_t    i;
    stream_t  s;

    stream_init(&s, dialect, path, max, 0);

    good = 1;

    for (i = 0; i < n; i++) {
        if (!scenario_line(&s, &l[i])) {
            printf("# line %zu: %c %s\n# out \"%.*s\", text \"%.*s\"\n", i,
                   l[i].op, l[i].data ? l[i].data : "", (int) s.out_len,
                   s.out, (int) s.len, s.text);
            good = 0;
        }
    }

    good &= stream_free(&s);

    ok(good, "%s", name);
}


#define SCENARIO(name, dialect, path, max, ...)                               \
    do {                                                                      \
        static const line_t  l[] = { __VA_ARGS__ };                           \
        scenario(name, dialect, path, max, l, sizeof(l) / sizeof(l[0]));      \
    } while (0)

#define SHOW(e)          { 'n', e, LLM_OK, NULL }
#define PASS(e)          { 'e', e, LLM_OK, NULL }
#define DROP(e)          { 'e', e, LLM_DONE, NULL }
#define DENY(e)          { 'e', e, LLM_DECLINED, NULL }
#define TURN(e, out)     { 'e', e, LLM_OK, out }
#define CLOSE(e)         { '2', e, LLM_OK, NULL }
#define AGAIN            { 'R', NULL, 0, NULL }
#define GO_ON            { 'C', NULL, 0, NULL }
#define IS(t)            { '=', t, 0, NULL }
#define FROM(t)          { 'w', t, 0, NULL }
#define NEVER            { '!', NULL, 0, NULL }


static void
chat_again(void)
{
    SCENARIO("chat: run again", OA, CHAT, MAX,
             SHOW(C_ROLE), SHOW(C_TEXT("Hel")), SHOW(C_TEXT("lo ")),
             IS("Hello "), AGAIN,
             DROP(NULL), DROP(C_ROLE), DROP("{broken"), DROP(C_TEXT("Hell")),
             DROP(C_TEXT("")), TURN(C_TEXT("o wo\\u0072\\n"),
                                    C_TEXT("wor\\n")),
             IS("Hello wor\n"), PASS(C_TEXT("ld")), PASS(C_ROLE), PASS(NULL),
             DROP("{broken"), IS("Hello wor\nld"), PASS(C_STOP), NEVER,
             PASS(C_USAGE), PASS(C_DONE));

    SCENARIO("chat: joined at an event's end", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN,
             DROP(C_TEXT("Hello")), PASS(C_TEXT("!")), IS("Hello!"),
             PASS(C_TOOL), NEVER, PASS(C_TEXT("x")), PASS(C_STOP),
             PASS(C_DONE));

    SCENARIO("chat: the finish is not lost", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN,
             DROP(C_TEXT("Hel")), TURN(C_LAST("lo"), C_LAST("")), NEVER,
             PASS(C_DONE));

    SCENARIO("chat: a finish with the rest", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN,
             TURN(C_LAST("Hello\\\"x"), C_LAST("\\\"x")), NEVER);

    SCENARIO("chat: usage is not lost", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN,
             DROP(C_USED("Hel")), TURN(C_USED("lo"), C_USED("")),
             IS("Hello"), PASS(C_STOP));

    SCENARIO("chat: shorter, ended", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN, DROP(C_TEXT("Hell")),
             DENY(C_STOP), IS("Hello"));

    SCENARIO("chat: shorter, ended with text", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN, DENY(C_LAST("Hell")));

    SCENARIO("chat: shorter, terminal", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN, DROP(C_TEXT("Hell")),
             DENY(C_DONE));

    SCENARIO("chat: shorter, an error", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN, DROP(C_TEXT("Hell")),
             DENY("{\"error\":{\"message\":\"x\"}}"));

    SCENARIO("chat: another content", OA, CHAT, MAX,
             SHOW(C_TEXT("Hello")), AGAIN, DROP(C_TEXT("Hell")),
             DENY(C_TOOL), AGAIN, DENY("{\"choices\":[{\"index\":1,\"delta\":"
                                       "{\"content\":\"Hello\"}}]}"),
             AGAIN, TURN(C_TEXT("Hello!"), C_TEXT("!")), IS("Hello!"));
}


static void
chat_first(void)
{
    SCENARIO("chat: nothing but a beginning was shown", OA, CHAT, MAX,
             SHOW(C_ROLE), IS(""), AGAIN, DROP(C_ROLE), PASS(C_TEXT("a")),
             IS("a"));

    SCENARIO("chat: nothing shown, an empty answer", OA, CHAT, MAX,
             AGAIN, DROP(C_ROLE), PASS(C_STOP), NEVER, PASS(C_DONE));

    SCENARIO("chat: nothing shown, a tool", OA, CHAT, MAX,
             SHOW(C_ROLE), AGAIN, DROP(C_ROLE), PASS(C_TOOL), NEVER,
             PASS(C_STOP));

    SCENARIO("chat: nothing shown, half of a pair", OA, CHAT, MAX,
             SHOW(C_ROLE), AGAIN, PASS(C_TEXT("\\ud83d")), NEVER,
             PASS(C_TEXT("\\ude00")));

    SCENARIO("chat: nothing shown, an error", OA, CHAT, MAX,
             AGAIN, DENY("{\"error\":{\"message\":\"x\"}}"), AGAIN,
             DENY(C_DONE));

    SCENARIO("chat: an error after joining", OA, CHAT, MAX,
             SHOW(C_TEXT("a")), AGAIN, DROP(C_TEXT("a")),
             PASS("{\"error\":{\"message\":\"x\"}}"), NEVER);

    SCENARIO("chat: never after a tool", OA, CHAT, MAX,
             SHOW(C_TEXT("a")), SHOW(C_TOOL), NEVER, SHOW(C_TEXT("a")),
             NEVER, AGAIN, DENY(C_TEXT("a")));

    SCENARIO("chat: never after the end", OA, CHAT, MAX,
             SHOW(C_TEXT("a")), SHOW(C_STOP), NEVER);

    SCENARIO("chat: never after the end, with text", OA, CHAT, MAX,
             SHOW(C_LAST("a")), NEVER);

    SCENARIO("chat: never after [DONE]", OA, CHAT, MAX,
             SHOW(C_TEXT("a")), SHOW(C_DONE), NEVER);

    SCENARIO("chat: never after an error", OA, CHAT, MAX,
             SHOW(C_TEXT("a")), SHOW("{\"error\":{\"message\":\"x\"}}"),
             NEVER);

    SCENARIO("chat: never with half of a pair", OA, CHAT, MAX,
             SHOW(C_TEXT("a\\ud83d")), NEVER);

    SCENARIO("chat: it goes on by being run again", OA, CHAT, MAX,
             SHOW(C_TEXT(" \\n")), FROM(""), GO_ON, DROP(C_TEXT(" ")),
             TURN(C_TEXT("\\na"), C_TEXT("a")), IS(" \na"));
}


static void
halves(void)
{
    size_t            i;
    stream_t          s;
    static const char *const  bad[] = {
        C_TEXT("\\ud83d"), C_TEXT("\\uDE00"), C_TEXT("\\ude00\\ud83d"),
        C_TEXT("\\ud83dx"), C_TEXT("\\ud83d\\n"), C_TEXT("\\ud83d\\u0061"),
        C_TEXT("\\uDBFF\\ud83d"), C_TEXT("\\ud83d\\ude00\\ude00"),
        C_TEXT("\\\\\\ud83d"), C_TEXT("\\udbff\\\\dfff0"),
        C_TEXT("\\ud83d\\ud7ff")
    };
    static const char *const  good[] = {
        C_TEXT("\\ud83d\\ude00"), C_TEXT("\\uDBFF\\uDFFF"),
        C_TEXT("\\\\ud83d"), C_TEXT("\\ud7ff\\ue000"), C_TEXT("\\ufffd"),
        C_TEXT("\\uD800\\uDC00\\ud83D\\uDe00x")
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        stream_init(&s, OA, CHAT, MAX, 0);
        ok(stream_event(&s, bad[i]) == LLM_OK && !s.rs.possible,
           "half of a pair %zu", i);
        stream_free(&s);
    }

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        stream_init(&s, OA, CHAT, MAX, 0);
        ok(stream_event(&s, good[i]) == LLM_OK && s.rs.possible
           && s.rs.len == s.len, "no half of a pair %zu", i);
        stream_free(&s);
    }
}


static void
chat_more(void)
{
    SCENARIO("chat: three attempts", OA, CHAT, MAX,
             SHOW(C_TEXT("ab")), AGAIN, DROP(C_TEXT("a")),
             TURN(C_TEXT("bc"), C_TEXT("c")), PASS(C_TEXT("d")), IS("abcd"),
             AGAIN, DROP(C_TEXT("ab")), DROP(C_TEXT("c")),
             AGAIN, DROP(C_TEXT("a")), DENY(C_TEXT("x")), IS("abcd"),
             AGAIN, TURN(C_TEXT("abcde"), C_TEXT("e")), IS("abcde"),
             PASS(C_STOP), NEVER);

    SCENARIO("chat: as much as max", OA, CHAT, 5,
             SHOW(C_TEXT("ab")), SHOW(C_TEXT("c\\u00e9")), IS("abc\xc3\xa9"),
             AGAIN, TURN(C_TEXT("abc\xc3\xa9" "d"), C_TEXT("d")), NEVER,
             PASS(C_TEXT("e")), PASS(C_STOP));

    SCENARIO("chat: more than max", OA, CHAT, 4,
             SHOW(C_TEXT("ab")), SHOW(C_TEXT("c\\u00e9")), NEVER,
             SHOW(C_TEXT("a")), NEVER);

    SCENARIO("chat: max reached while shown", OA, CHAT, 5,
             SHOW(C_TEXT("ab")), AGAIN, DROP(C_TEXT("ab")),
             PASS(C_TEXT("cde")), IS("abcde"), PASS(C_TEXT("f")), NEVER,
             PASS(C_TEXT("g")), PASS(C_STOP), PASS(C_DONE));

    SCENARIO("chat: no text may be kept", OA, CHAT, 0,
             SHOW(C_ROLE), IS(""), SHOW(C_TEXT("a")), NEVER);

    SCENARIO("responses: never", OA, "responses", MAX,
             SHOW("{\"type\":\"response.output_text.delta\",\"delta\":"
                  "\"a\"}"), NEVER);

    SCENARIO("legacy: run again", OA, LEGACY, MAX,
             SHOW(L_TEXT("Hel")), AGAIN, DROP(L_TEXT("H")),
             TURN(L_TEXT("ell\\u00f6"), L_TEXT("l\xc3\xb6")), PASS(L_STOP),
             NEVER, PASS(C_DONE));

    SCENARIO("legacy: shorter", OA, LEGACY, MAX,
             SHOW(L_TEXT("Hel")), AGAIN, DROP(L_TEXT("He")), DENY(L_STOP));
}


/* what we asked for ourselves is shown behind the joint: the caller knows
 * to whom */

static void
hidden(void)
{
    stream_t     s;
    llm_event_t  ev;

    stream_init(&s, OA, CHAT, MAX, 0);
    stream_event(&s, C_TEXT("a"));

    memset(&ev, 0, sizeof(llm_event_t));
    ev.data = cstr("{broken");
    ev.lines = 1;

    ok(llm_resume_note(&s.rs, &s.a, &ev, LLM_EV_MALFORMED) == LLM_OK
       && s.rs.possible, "note: a malformed event");

    stream_again(&s, 0);
    s.a.hide_usage = 1;

    is_int(stream_event(&s, C_USAGE), LLM_DONE, "hidden: before");
    is_int(stream_event(&s, C_TEXT("a")), LLM_DONE, "hidden: joined");
    is_int(stream_event(&s, C_TEXT("b")), LLM_OK, "hidden: a text");
    is_int(stream_event(&s, C_USAGE), LLM_OK, "hidden: after");
    is_mem(s.out, s.out_len, C_USAGE, strlen(C_USAGE), "hidden: as it came");
    is_int(stream_event(&s, C_STOP), LLM_OK, "hidden: the end");
    is_int(stream_event(&s, C_USAGE), LLM_OK, "hidden: after the end");
    is_int(stream_event(&s, C_DONE), LLM_OK, "hidden: terminal");
    is_int(s.shown, 6, "hidden: events that are shown");

    stream_free(&s);

    /* nor while an answer that goes on is held back */

    stream_init(&s, OA, CHAT, MAX, 0);
    stream_event(&s, C_TEXT(LONG));
    stream_again(&s, 1);
    s.a.hide_usage = 1;

    is_int(stream_event(&s, C_TEXT("0123")), LLM_DONE, "hidden: held");
    is_int(stream_event(&s, C_USAGE), LLM_DONE, "hidden: while held");
    is_int(stream_event(&s, C_TEXT("5")), LLM_OK, "hidden: goes on");
    is_int(stream_event(&s, C_USAGE), LLM_OK, "hidden: gone on");

    stream_free(&s);
}


static void
messages_again(void)
{
    SCENARIO("messages: run again", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_PING), SHOW(M_TEXT("Hel")),
             SHOW(M_TEXT("lo")), IS("Hello"), AGAIN,
             DROP(M_START), DROP(M_OPEN), DROP(M_PING), DROP(M_TEXT("H")),
             DROP(NULL), TURN(M_TEXT("ello\\n"), M_TEXT("\\n")),
             PASS(M_PING), PASS(M_TEXT("x")), IS("Hello\nx"), PASS(M_CLOSE),
             NEVER, PASS(M_TOOL), PASS(M_STOP), PASS(M_END));

    SCENARIO("messages: joined at an event's end", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("Hello")), AGAIN,
             DROP(M_START), DROP(M_OPEN), DROP(M_TEXT("Hello")),
             PASS(M_CLOSE), PASS(M_STOP), PASS(M_END));

    SCENARIO("messages: shorter", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("Hello")), AGAIN,
             DROP(M_START), DROP(M_OPEN), DROP(M_TEXT("Hell")),
             DENY(M_CLOSE), AGAIN, DROP(M_START), DENY(M_STOP), AGAIN,
             DENY(M_END), AGAIN, DENY(M_ERROR), AGAIN, DENY(M_THINK), AGAIN,
             DENY(M_TOOL));

    SCENARIO("messages: only a message was begun", AN, "messages", MAX,
             SHOW(M_START), AGAIN, DROP(M_START), PASS(M_OPEN),
             PASS(M_TEXT("a")), IS("a"));

    SCENARIO("messages: begun, and now thinking", AN, "messages", MAX,
             SHOW(M_START), AGAIN, DROP(M_START), PASS(M_THINK), NEVER);

    SCENARIO("messages: only a block was begun", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), AGAIN, DROP(M_START),
             DROP(M_OPEN), PASS(M_TEXT("a")), IS("a"), PASS(M_CLOSE));

    SCENARIO("messages: a block was begun, and now thinking", AN,
             "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), AGAIN, DROP(M_START),
             DENY(M_THINK));

    SCENARIO("messages: never after a block's end", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("a")), SHOW(M_CLOSE),
             NEVER);

    SCENARIO("messages: never with thinking", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_THINK), NEVER);
}


static void
messages_go_on(void)
{
    SCENARIO("go on: appended", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("Hel")), FROM("Hel"),
             GO_ON, DROP(M_START), DROP(M_PING), DROP(M_OPEN),
             PASS(M_TEXT("Hello")), PASS(M_PING), PASS(M_TEXT("!")),
             IS("HelHello!"), PASS(M_CLOSE), NEVER, PASS(M_STOP),
             PASS(M_END));

    SCENARIO("go on: nothing to add", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("a ")), GO_ON,
             DROP(M_START), DROP(M_OPEN), PASS(M_CLOSE), PASS(M_STOP),
             PASS(M_END));

    SCENARIO("go on: no block to close", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("a")), GO_ON,
             DROP(M_START), DENY(M_END), GO_ON, DENY(M_ERROR), GO_ON,
             DENY(M_THINK), GO_ON, DENY(M_TOOL), GO_ON, DENY(M_CLOSE),
             GO_ON, DROP(M_DELTA), CLOSE(M_STOP), NEVER, PASS(M_END));

    SCENARIO("go on: no block, and none is open", AN, "messages", MAX,
             SHOW(M_START), GO_ON, DROP(M_START), PASS(M_STOP), NEVER,
             PASS(M_END));

    SCENARIO("go on: no block, but run again", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("a")), AGAIN, DROP(M_START),
             DENY(M_STOP));

    SCENARIO("go on: no block, chat", OA, CHAT, MAX,
             SHOW(C_TEXT("a")), GO_ON, DROP(C_ROLE), PASS(C_STOP), NEVER,
             PASS(C_USAGE), PASS(C_DONE));

    SCENARIO("go on: whitespace again", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT("a\\n \\t")),
             FROM("a"), GO_ON, DROP(M_START), DROP(M_OPEN),
             DROP(M_TEXT("\\n")), PASS(M_PING), PASS(M_TEXT("")),
             TURN(M_TEXT(" \\t\\tb"), M_TEXT("\\tb")), PASS(M_TEXT(" c")),
             IS("a\n \t\tb c"));

    SCENARIO("go on: all whitespace, exactly", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("a \\n")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT(" \\n")), PASS(M_TEXT(" b")), IS("a \n b"));

    SCENARIO("go on: less whitespace", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("a \\n")), GO_ON, DROP(M_OPEN),
             TURN(M_TEXT(" b"), M_TEXT("b")), PASS(M_TEXT("\\n")),
             IS("a \nb\n"));

    SCENARIO("go on: no whitespace", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("a ")), GO_ON, DROP(M_OPEN),
             PASS(M_TEXT("b")), IS("a b"));

    SCENARIO("go on: another whitespace", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("a \\u00a0")), FROM("a"), GO_ON,
             DROP(M_OPEN), TURN(M_TEXT(" \xc2\xa9"), M_TEXT("\xc2\xa9")),
             IS("a \xc2\xa0\xc2\xa9"));

    SCENARIO("go on: an end while whitespace is waited for", AN, "messages",
             MAX, SHOW(M_OPEN), SHOW(M_TEXT("a  ")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT(" ")), PASS(M_CLOSE), NEVER, PASS(M_STOP));

    SCENARIO("go on: broken while whitespace is waited for", AN, "messages",
             MAX, SHOW(M_OPEN), SHOW(M_TEXT("a  ")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT(" ")), PASS(M_ERROR), NEVER);

    SCENARIO("go on: half of a pair", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("a ")), GO_ON, DROP(M_OPEN),
             PASS(M_TEXT("\\ud83d")), NEVER, PASS(M_TEXT(" ")));

    SCENARIO("go on: and again, and run again", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("ab ")), GO_ON, DROP(M_OPEN),
             PASS(M_TEXT("c")), FROM("ab c"), GO_ON, DROP(M_START),
             DROP(M_OPEN), PASS(M_TEXT("d ")), GO_ON, DROP(M_OPEN),
             TURN(M_TEXT(" e"), M_TEXT("e")), IS("ab cd e"), AGAIN,
             DROP(M_OPEN), TURN(M_TEXT("ab cd ef"), M_TEXT("f")),
             IS("ab cd ef"));

    SCENARIO("go on: max passed", AN, "messages", 3,
             SHOW(M_OPEN), SHOW(M_TEXT("ab ")), GO_ON, DROP(M_OPEN),
             TURN(M_TEXT(" c"), M_TEXT("c")), NEVER, PASS(M_TEXT("d")));
}


/* asked to go on, it begins anew; or it seems so for a while */

static void
messages_anew(void)
{
    SCENARIO("anew: joined", AN, "messages", MAX,
             SHOW(M_START), SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON,
             DROP(M_START), DROP(M_OPEN), DROP(M_PING), DROP(M_TEXT("01234")),
             DROP(M_PING), DROP(M_TEXT("")), DROP(NULL), DROP("{broken"),
             IS(LONG), TURN(M_TEXT("56789abcdefg\\n"), M_TEXT("g\\n")),
             IS(LONG "g\n"), PASS(M_PING), PASS(M_TEXT("x")),
             IS(LONG "g\nx"), PASS(M_CLOSE), NEVER, PASS(M_STOP),
             PASS(M_END));

    SCENARIO("anew: in one event", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN),
             TURN(M_TEXT(LONG "x"), M_TEXT("x")), IS(LONG "x"));

    SCENARIO("anew: joined at an event's end", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT(LONG)), PASS(M_CLOSE), NEVER, PASS(M_STOP));

    SCENARIO("anew: whitespace at the end", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG " \\n")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT("0")), DROP(M_TEXT("123456789abcdef")),
             DROP(M_TEXT(" ")), TURN(M_TEXT("\\nx"), M_TEXT("x")),
             IS(LONG " \nx"));

    SCENARIO("anew: another whitespace at the end", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG " \\n")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT(LONG)), DENY(M_TEXT("\\n")), GO_ON, DROP(M_OPEN),
             DENY(M_TEXT(LONG "x")), IS(LONG " \n"));

    SCENARIO("anew: shorter", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG " ")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT("0")), DENY(M_CLOSE), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT("0")), DENY(M_STOP), GO_ON, DROP(M_TEXT("0")),
             DENY(M_END), GO_ON, DROP(M_TEXT("0")), DENY(M_ERROR), GO_ON,
             DROP(M_TEXT("0")), DENY(M_TOOL), GO_ON, DROP(M_TEXT("0")),
             DENY(M_TEXT("\\ud83d")), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT(LONG)), DENY(M_CLOSE), IS(LONG " "), AGAIN,
             DROP(M_OPEN), TURN(M_TEXT(LONG " a"), M_TEXT("a")),
             IS(LONG " a"));

    SCENARIO("anew: it goes on", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT("0\\u0031")), DROP(M_TEXT("2")),
             TURN(M_TEXT("34\\u0078\\\"\\u00e9"),
                  M_TEXT("01234x\\\"\xc3\xa9")),
             IS(LONG "01234x\"\xc3\xa9"), PASS(M_PING), PASS(M_TEXT("5")),
             IS(LONG "01234x\"\xc3\xa9" "5"), GO_ON, DROP(M_OPEN),
             PASS(M_TEXT("1")), IS(LONG "01234x\"\xc3\xa9" "51"),
             PASS(M_CLOSE), NEVER);

    SCENARIO("anew: it goes on, and is broken while held", AN, "messages",
             MAX, SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT("01")), GO_ON, DROP(M_OPEN), PASS(M_TEXT("2")),
             IS(LONG "2"));

    SCENARIO("anew: it goes on with whitespace", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG " \\n")), FROM(LONG), GO_ON,
             DROP(M_OPEN), DROP(M_TEXT(" ")), PASS(M_PING),
             TURN(M_TEXT("\\n0123"), M_TEXT("0123")),
             IS(LONG " \n0123"));

    SCENARIO("anew: whitespace at both ends", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(" \\n" LONG " \\t")), GO_ON,
             DROP(M_OPEN), DROP(M_TEXT(" ")), DROP(M_TEXT("\\t")),
             PASS(M_PING), PASS(M_TEXT("a")), IS(" \n" LONG " \ta"), GO_ON,
             DROP(M_OPEN), DROP(M_TEXT(" \\n0")),
             TURN(M_TEXT("x"), M_TEXT(" \\n0x")),
             IS(" \n" LONG " \ta \n0x"));

    SCENARIO("anew: as much is cut as was held", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(" \\n" LONG " ")), GO_ON,
             DROP(M_OPEN), DROP(M_TEXT(" ")), PASS(M_TEXT("ab")),
             IS(" \n" LONG " ab"));

    SCENARIO("anew: half of a pair", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN),
             PASS(M_TEXT("\\ud83d")), NEVER, PASS(M_TEXT("\\ude00")));

    SCENARIO("anew: nothing to add", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG " ")), GO_ON, DROP(M_START),
             DROP(M_OPEN), DROP(M_PING), PASS(M_CLOSE), NEVER, PASS(M_STOP),
             PASS(M_END));

    SCENARIO("anew: a block was begun, but by another", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN), GO_ON,
             DENY(M_CLOSE), GO_ON, DENY(M_TOOL), GO_ON, DROP(M_OPEN),
             PASS(M_CLOSE), NEVER);

    SCENARIO("anew: nothing to add, no block", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_START),
             CLOSE(M_STOP), NEVER, PASS(M_END));

    SCENARIO("anew: nothing to add, no end of the block", AN, "messages",
             MAX, SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_START),
             DROP(M_OPEN), CLOSE(M_STOP), NEVER, PASS(M_END));

    SCENARIO("anew: too short to tell", AN, "messages", MAX,
             SHOW(M_OPEN), SHOW(M_TEXT("0123456789abcde \\n")), GO_ON,
             DROP(M_OPEN), PASS(M_TEXT("01")), PASS(M_CLOSE));

    SCENARIO("anew: max passed", AN, "messages", 18,
             SHOW(M_OPEN), SHOW(M_TEXT(LONG)), GO_ON, DROP(M_OPEN),
             DROP(M_TEXT("01")), TURN(M_TEXT("x"), M_TEXT("01x")), NEVER,
             PASS(M_TEXT("y")));

    SCENARIO("anew: the end has a text", OA, CHAT, MAX,
             SHOW(C_TEXT(LONG)), GO_ON, DROP(C_ROLE), DROP(C_TEXT("01")),
             TURN(C_LAST("2"), C_LAST("012")), NEVER, PASS(C_DONE));

    SCENARIO("anew: the end has the rest", OA, CHAT, MAX,
             SHOW(C_TEXT(LONG)), GO_ON, DROP(C_TEXT("01")),
             TURN(C_LAST("23456789abcdef"), C_LAST("")), NEVER);

    SCENARIO("anew: the end has no text", OA, CHAT, MAX,
             SHOW(C_TEXT(LONG)), GO_ON, DROP(C_USED("01")), DENY(C_STOP),
             GO_ON, DROP(C_TEXT("0")), DENY(C_DONE), IS(LONG), GO_ON,
             DROP(C_TEXT("0")), TURN(C_USED("x"), C_USED("0x")),
             PASS(C_STOP), NEVER);
}


/* what Unicode calls whitespace, and its neighbours */

static void
spaces(void)
{
    int           bad;
    char          data[256];
    size_t        n;
    llm_str_t     text;
    stream_t      s;
    unsigned      code, white;

    bad = 0;

    for (code = 1; code < 0xffff; code++) {

        if (code >= 0xd800 && code < 0xe000) {
            continue;
        }

        white = code == ' ' || (code >= 9 && code <= 13)
                || (code >= 0x1c && code <= 0x1f) || code == 0x85
                || code == 0xa0 || code == 0x1680
                || (code >= 0x2000 && code <= 0x200a) || code == 0x2028
                || code == 0x2029 || code == 0x202f || code == 0x205f
                || code == 0x3000;

        sprintf(data, C_TEXT("a\\u%04x"), code);
        stream_init(&s, OA, CHAT, MAX, 0);
        bad |= stream_event(&s, data) != LLM_OK;

        text = llm_resume_text(&s.rs);
        n = text.len;
        bad |= n != (white ? 1 : s.rs.len);
        stream_free(&s);
    }

    ok(!bad, "text: whitespace at the end");

    /* the end of a longer character is none */

    stream_init(&s, OA, CHAT, MAX, 0);
    stream_event(&s, C_TEXT("\xf0\x90\x80\x80 \xe3\x80\x80\xc2\xa0"));
    text = llm_resume_text(&s.rs);
    is(&text, "\xf0\x90\x80\x80", "text: several kinds");
    stream_free(&s);

    stream_init(&s, OA, CHAT, MAX, 0);
    is_int(llm_resume_text(&s.rs).len, 0, "text: none");
    stream_free(&s);
}


/* ------------------------------------------------------ splits, escapes */

typedef struct {
    const llm_dialect_t   *dialect;
    const char            *path;
    const char            *begin[3];
    const char            *text;       /* %s */
    const char            *end[4];
} kind_t;


static const kind_t  kinds[] = {
    { OA, CHAT, { C_ROLE }, C_TEXT("%s"), { C_STOP, C_USAGE, C_DONE } },
    { OA, LEGACY, { NULL }, L_TEXT("%s"), { L_STOP, C_DONE } },
    { AN, "messages", { M_START, M_OPEN }, M_TEXT("%s"),
      { M_CLOSE, M_STOP, M_END } }
};


static const uint32_t  letters[] = {
    'H', '"', '\\', '\n', 0xe9, 0x1f600, ' ', '/', 0x4e2d, 0x10ffff, '\t', 1,
    'u', 0xfffd, 0x7f
};

#define LETTERS  (sizeof(letters) / sizeof(letters[0]))


static size_t
utf8(char *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = c;
        return 1;
    }

    if (c < 0x800) {
        p[0] = 0xc0 | c >> 6;
        p[1] = 0x80 | (c & 0x3f);
        return 2;
    }

    if (c < 0x10000) {
        p[0] = 0xe0 | c >> 12;
        p[1] = 0x80 | (c >> 6 & 0x3f);
        p[2] = 0x80 | (c & 0x3f);
        return 3;
    }

    p[0] = 0xf0 | c >> 18;
    p[1] = 0x80 | (c >> 12 & 0x3f);
    p[2] = 0x80 | (c >> 6 & 0x3f);
    p[3] = 0x80 | (c & 0x3f);

    return 4;
}


/* style 0: as short as it goes, 1: all escaped, 2: by turns */

static size_t
letter(char *p, uint32_t c, int style)
{
    if (style == 1 || (style == 2 && c % 2)) {

        if (c >= 0x10000) {
            return sprintf(p, "\\uD%03X\\ud%03x",
                           0x800 + ((c - 0x10000) >> 10),
                           0xc00 + ((c - 0x10000) & 0x3ff));
        }

        return sprintf(p, "\\u%04x", c);
    }

    if (c == '"' || c == '\\' || (c == '/' && style == 2)) {
        return sprintf(p, "\\%c", (int) c);
    }

    if (c < ' ') {
        return sprintf(p, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\u%04x",
                       c);
    }

    return utf8(p, c);
}


/* events with the letters from a to b, n in each; 0 or the first code that
 * is not one of an event told */

static llm_int_t
say(stream_t *s, const kind_t *k, const uint32_t *l, size_t a, size_t b,
    size_t n, int style)
{
    char       text[LETTERS * 12 + 1], data[1024], *p;
    size_t     i;
    llm_int_t  rc;

    while (a < b) {
        p = text;

        for (i = 0; i < n && a < b; i++) {
            p += letter(p, l[a++], style);
        }

        *p = '\0';
        sprintf(data, k->text, text);

        rc = stream_event(s, data);

        if (rc != LLM_OK && rc != LLM_DONE) {
            return rc;
        }
    }

    return LLM_OK;
}


/* 1 if that many of the letters are shown, and then that many of l */

static int
says(const stream_t *s, size_t n, const uint32_t *l, size_t m)
{
    char    text[LETTERS * 8], *p;
    size_t  i;

    p = text;

    for (i = 0; i < n; i++) {
        p += utf8(p, letters[i]);
    }

    for (i = 0; i < m; i++) {
        p += utf8(p, l[i]);
    }

    return s->len == (size_t) (p - text) && memcmp(s->text, text, s->len) == 0;
}


static int
said(const stream_t *s, size_t n)
{
    return says(s, n, NULL, 0);
}


static int
begin(stream_t *s, const kind_t *k, llm_int_t rc)
{
    int     bad;
    size_t  i;

    bad = 0;

    for (i = 0; k->begin[i]; i++) {
        bad |= stream_event(s, k->begin[i]) != rc;
    }

    return bad;
}


/* cut letters are shown, then the new answer comes in pieces of n */

static int
split(const kind_t *k, size_t cut, size_t n, int style)
{
    int       bad;
    size_t    i;
    stream_t  s;

    stream_init(&s, k->dialect, k->path, MAX, 0);

    bad = begin(&s, k, LLM_OK);
    bad |= say(&s, k, letters, 0, cut, 1 + n % 4, style % 3) != LLM_OK;
    bad |= !said(&s, cut);

    stream_again(&s, 0);

    bad |= begin(&s, k, LLM_DONE);
    bad |= say(&s, k, letters, 0, LETTERS, n, style / 3) != LLM_OK;
    bad |= !said(&s, LETTERS);
    bad |= !s.rs.possible || s.rs.len != s.len
           || memcmp(s.rs.shown, s.text, s.len) != 0;

    for (i = 0; k->end[i]; i++) {
        bad |= stream_event(&s, k->end[i]) != LLM_OK;
    }

    bad |= s.rs.possible || !said(&s, LETTERS);
    bad |= !stream_free(&s);

    return bad;
}


/* a letter is another one, or the answer ends before it; then once more */

static int
other(const kind_t *k, size_t cut, size_t n, size_t at)
{
    int         bad;
    size_t      i;
    stream_t    s;
    uint32_t    wrong[LETTERS];
    llm_int_t   rc;
    llm_uint_t  shown;

    stream_init(&s, k->dialect, k->path, MAX, 0);

    bad = begin(&s, k, LLM_OK);
    bad |= say(&s, k, letters, 0, cut, 2, 0) != LLM_OK;
    shown = s.shown;

    memcpy(wrong, letters, sizeof(letters));
    wrong[at] ^= 2;

    stream_again(&s, 0);
    bad |= begin(&s, k, LLM_DONE);
    bad |= say(&s, k, wrong, 0, LETTERS, n, 2) != LLM_DECLINED;

    stream_again(&s, 0);
    bad |= begin(&s, k, LLM_DONE);
    bad |= say(&s, k, letters, 0, at, n, 1) != LLM_OK;

    rc = LLM_OK;

    for (i = 0; k->end[i] && rc != LLM_DECLINED; i++) {
        rc = stream_event(&s, k->end[i]);
        bad |= rc == LLM_OK;
    }

    bad |= rc != LLM_DECLINED || s.shown != shown || !said(&s, cut);

    stream_again(&s, 0);
    bad |= begin(&s, k, LLM_DONE);
    bad |= say(&s, k, letters, 0, LETTERS, n, 2) != LLM_OK;
    bad |= !said(&s, LETTERS);

    return bad | !stream_free(&s);
}


static void
splits(void)
{
    int     bad, style;
    size_t  i, cut, n, at;

    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        bad = 0;

        for (cut = 1; cut < LETTERS; cut++) {
            for (n = 1; n <= LETTERS; n++) {
                for (style = 0; style < 9; style++) {
                    bad += split(&kinds[i], cut, n, style);
                }
            }
        }

        ok(bad == 0, "%s: all splits and escapes", kinds[i].path);

        bad = 0;

        for (cut = 1; cut < LETTERS; cut++) {
            for (n = 1; n <= LETTERS; n++) {
                for (at = 0; at < cut; at++) {
                    bad += other(&kinds[i], cut, n, at);
                }
            }
        }

        ok(bad == 0, "%s: other and shorter answers", kinds[i].path);
    }
}


static size_t
letter_bytes(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}


/*
 * cut letters are shown, and the new answer, which was to go on from known of
 * them, has the first of them, too; then another one.  then: it goes on, and
 * once more in the other way, or it ends.
 */

static int
anew(const kind_t *k, size_t cut, size_t known, size_t same, size_t n,
    int style)
{
    int         bad;
    size_t      i, bytes;
    stream_t    s;
    uint32_t    wrong[LETTERS];
    llm_int_t   rc;
    llm_uint_t  shown;

    stream_init(&s, k->dialect, k->path, MAX, 0);

    bad = begin(&s, k, LLM_OK);
    bad |= say(&s, k, letters, 0, cut, 1 + n % 4, style % 3) != LLM_OK;
    shown = s.shown;

    memcpy(wrong, letters, sizeof(letters));
    wrong[same] ^= 1;

    /* all of it is held back, until it ends */

    stream_again(&s, 1);
    bad |= llm_resume_text(&s.rs).len < 16;
    bad |= begin(&s, k, LLM_DONE);
    bad |= say(&s, k, wrong, 0, same, n, style / 3) != LLM_OK;
    bad |= s.shown != shown;

    if (same) {
        rc = LLM_OK;

        for (i = 0; k->end[i] && rc != LLM_DECLINED; i++) {
            rc = stream_event(&s, k->end[i]);
            bad |= rc == LLM_OK;
        }

        bad |= rc != LLM_DECLINED || s.shown != shown || !said(&s, cut);
    }

    stream_again(&s, 1);
    bad |= begin(&s, k, LLM_DONE);
    rc = say(&s, k, wrong, 0, LETTERS, n, style / 3);

    /* 16 bytes in common are no chance; a letter's first bytes count, too */

    for (i = 0, bytes = 0; i < same; i++) {
        bytes += letter_bytes(letters[i]);
    }

    if (same < known && bytes < 16
        && bytes + letter_bytes(letters[same]) > 16)
    {
        /* either */

    } else if (same >= known || bytes >= 16) {
        bad |= rc != LLM_DECLINED || s.shown != shown || !said(&s, cut);

    } else {
        bad |= rc != LLM_OK || !says(&s, cut, wrong, LETTERS);
        bad |= s.shown != shown + (LETTERS - same / n * n + n - 1) / n;
        bad |= s.rs.len != s.len || memcmp(s.rs.shown, s.text, s.len) != 0;

        for (i = 0; k->end[i]; i++) {
            bad |= stream_event(&s, k->end[i]) != LLM_OK;
        }

        bad |= s.rs.possible;
    }

    return bad | !stream_free(&s);
}


static int
anew_joined(const kind_t *k, size_t cut, size_t n, int style)
{
    int       bad;
    size_t    i;
    stream_t  s;

    stream_init(&s, k->dialect, k->path, MAX, 0);

    bad = begin(&s, k, LLM_OK);
    bad |= say(&s, k, letters, 0, cut, 1 + n % 4, style % 3) != LLM_OK;

    stream_again(&s, 1);
    bad |= begin(&s, k, LLM_DONE);
    bad |= say(&s, k, letters, 0, LETTERS, n, style / 3) != LLM_OK;
    bad |= !said(&s, LETTERS) || s.rs.continues || !s.rs.joined;
    bad |= s.rs.len != s.len || memcmp(s.rs.shown, s.text, s.len) != 0;

    for (i = 0; k->end[i]; i++) {
        bad |= stream_event(&s, k->end[i]) != LLM_OK;
    }

    return bad | s.rs.possible | !stream_free(&s);
}


static void
anews(void)
{
    int            bad, style;
    size_t         i, cut, known, n, same;
    const kind_t  *k;

    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        k = &kinds[i];
        bad = 0;

        /* 10 of them are 19 bytes; the one before is whitespace */

        for (cut = 10; cut < LETTERS; cut++) {
            known = cut - (letters[cut - 1] == '\t');

            for (n = 1; n <= LETTERS; n++) {
                for (style = 0; style < 9; style++) {
                    bad += anew_joined(k, cut, n, style);

                    for (same = 0; same < cut; same++) {
                        bad += anew(k, cut, known, same, n, style);
                    }
                }
            }
        }

        ok(bad == 0, "%s: answers that begin anew, or seem to", k->path);
    }
}


/* attempts that break anywhere, each in its way */

static void
attempts(void)
{
    int            bad;
    size_t         a, b, n, to;
    stream_t       s;
    const kind_t  *k;

    bad = 0;
    k = &kinds[2];

    for (a = 1; a < LETTERS; a++) {
        for (b = 1; b < LETTERS; b++) {
            for (n = 1; n < 6; n++) {
                stream_init(&s, k->dialect, k->path, MAX, 0);
                bad |= begin(&s, k, LLM_OK);
                bad |= say(&s, k, letters, 0, a, n, 0) != LLM_OK;

                stream_again(&s, 0);
                bad |= begin(&s, k, LLM_DONE);
                bad |= say(&s, k, letters, 0, b, n, 1) != LLM_OK;
                to = a > b ? a : b;
                bad |= !said(&s, to);

                /* whitespace at the break comes again */

                stream_again(&s, 1);
                bad |= begin(&s, k, LLM_DONE);

                while (letters[to - 1] == ' ' || letters[to - 1] == '\n'
                       || letters[to - 1] == '\t')
                {
                    to--;
                }

                bad |= say(&s, k, letters, to, LETTERS, n, 2) != LLM_OK;
                bad |= !said(&s, LETTERS);

                stream_again(&s, 0);
                bad |= begin(&s, k, LLM_DONE);
                bad |= say(&s, k, letters, 0, LETTERS, n, 2) != LLM_OK;
                bad |= !said(&s, LETTERS) || !s.rs.joined;
                bad |= !stream_free(&s);
            }
        }
    }

    ok(!bad, "attempts: four in a row");
}


/* ------------------------------------------------------------- memory */

static int
life(size_t fail, size_t *calls)
{
    int           bad, oom;
    size_t        i, big;
    char          data[8000];
    stream_t      s;
    const kind_t *k = &kinds[0];

    stream_init(&s, k->dialect, k->path, MAX, fail);

    big = 3000;
    memset(data, 'x', sizeof(data));
    memcpy(data, C_TEXT("%s"), strchr(C_TEXT("%s"), '%') - C_TEXT("%s"));
    i = strchr(C_TEXT("%s"), '%') - C_TEXT("%s") + big;
    strcpy(data + i, strchr(C_TEXT("%s"), '%') + 2);

    bad = 0;
    oom = say(&s, k, letters, 0, 5, 2, 0) == LLM_ERROR
          || stream_event(&s, data) == LLM_ERROR;

    /* it is a failed one that cannot be resumed, or the answer's own */

    bad |= oom && s.rs.possible && s.a.data;

    if (!oom) {
        stream_again(&s, 0);
        oom = say(&s, k, letters, 0, 5, 5, 1) == LLM_ERROR;

        data[i++] = 'y';
        strcpy(data + i, strchr(C_TEXT("%s"), '%') + 2);

        oom = oom || stream_event(&s, data) == LLM_ERROR
              || say(&s, k, letters, 0, LETTERS, 5, 1) == LLM_ERROR
              || stream_event(&s, data) == LLM_ERROR;
    }

    if (oom) {

        /* nor does anything harm it then */

        stream_event(&s, C_TEXT("a"));
        stream_again(&s, 0);
        bad |= stream_event(&s, C_TEXT("a")) != LLM_DECLINED
               && !s.rs.possible;
    }

    *calls = s.m.calls;
    bad |= oom != (fail && fail <= *calls);

    return bad | !stream_free(&s);
}


/* the same of an answer that is held back, and goes on */

static int
life_held(size_t fail, size_t *calls)
{
    int       bad, oom;
    char      data[4000];
    size_t    i;
    stream_t  s;

    stream_init(&s, AN, "messages", MAX, fail);

    oom = stream_event(&s, M_OPEN) == LLM_ERROR;

    for (i = 0; i < 100 && !oom; i++) {
        sprintf(data, M_TEXT("%08zu"), i);
        oom = stream_event(&s, data) == LLM_ERROR;
    }

    if (!oom) {
        stream_again(&s, 1);
        oom = stream_event(&s, M_OPEN) == LLM_ERROR;
    }

    if (!oom) {
        oom = stream_event(&s, M_TEXT("00000000")) == LLM_ERROR;
    }

    bad = !oom && s.len != 800;

    if (!oom) {
        sprintf(data, M_TEXT("%01000d"), 0);
        oom = stream_event(&s, data) == LLM_ERROR;
        bad |= !oom && (s.len != 800 + 8 + 1000 || s.rs.len != s.len
                        || memcmp(s.rs.shown, s.text, s.len) != 0
                        || memcmp(s.text, s.text + 800, 8) != 0);
    }

    if (oom) {
        bad |= s.rs.possible && s.a.data;
        stream_again(&s, 1);
        bad |= stream_event(&s, M_TEXT("a")) != LLM_DECLINED
               && !s.rs.possible;
    }

    *calls = s.m.calls;
    bad |= oom != (fail && fail <= *calls);

    return bad | !stream_free(&s);
}


static void
allocations(void)
{
    int     bad;
    size_t  i, n, calls;

    bad = life(0, &n);

    for (i = 1; i <= n; i++) {
        bad += life(i, &calls);
    }

    ok(bad == 0 && n >= 6, "memory: %zu allocations fail", n);

    bad = life_held(0, &n);

    for (i = 1; i <= n; i++) {
        bad += life_held(i, &calls);
    }

    ok(bad == 0 && n >= 5, "memory: %zu allocations fail while held", n);
}


int
main(void)
{
    event_texts();
    requests();
    chat_again();
    chat_first();
    chat_more();
    halves();
    hidden();
    messages_again();
    messages_go_on();
    messages_anew();
    spaces();
    splits();
    anews();
    attempts();
    allocations();

    return done();
}
