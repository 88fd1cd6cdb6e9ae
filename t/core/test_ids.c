
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Fresh ids for stored answers.
 */


#include "run.h"


/* of is the same text, a '*' where a character may change: others stay */

typedef struct {
    const char            *name;
    const char            *text;
    const char            *of;
} ids_t;


static const ids_t  all[] = {
    { "nothing", "", "" },
    { "a quote", "\"", "\"" },
    { "no JSON", "no \"id\" : call_1234567890", NULL },
    { "a name at the end", "{\"id\":", NULL },
    { "a value that is cut", "{\"id\":\"call_1234567890", NULL },

    { "chat", "{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l\",\"object\":\"x\"}",
      "{\"id\":\"chatcmpl-****************\",\"object\":\"x\"}" },
    { "spaces", "{\n  \"id\" : \"msg_01AbCdEf\"\n}",
      "{\n  \"id\" : \"msg_********\"\n}" },
    { "separators", "{\"id\":\"gen-1733421234-AbC_dEf\"}",
      "{\"id\":\"gen-**********-***_***\"}" },

    { "a stream",
      "event: x\ndata: {\"id\":\"chatcmpl-00ff00ff\",\"a\":\"b\"}\n\n"
      "data: {\"id\":\"chatcmpl-00ff00ff\"}\n\ndata: [DONE]\n\n",
      "event: x\ndata: {\"id\":\"chatcmpl-********\",\"a\":\"b\"}\n\n"
      "data: {\"id\":\"chatcmpl-********\"}\n\ndata: [DONE]\n\n" },
    { "an event's type with a quote",
      "event: it\"s\ndata: {\"id\":\"cmpl-00ff00ff\"}\n\n",
      "event: it\"s\ndata: {\"id\":\"cmpl-********\"}\n\n" },
    { "a type that ends in a backslash",
      "event: \"\\\ndata: {\"id\":\"cmpl-00ff00ff\"}\n\n",
      "event: \"\\\ndata: {\"id\":\"cmpl-********\"}\n\n" },

    { "each name",
      "{\"item_id\":\"fc_12345678\",\"call_id\":\"call_12345678\","
      "\"tool_call_id\":\"call_12345678\",\"tool_use_id\":\"toolu_12345678\","
      "\"response_id\":\"resp_12345678\",\"message_id\":\"msg_12345678\","
      "\"id\":\"ctc_12345678\"}",
      "{\"item_id\":\"fc_********\",\"call_id\":\"call_********\","
      "\"tool_call_id\":\"call_********\",\"tool_use_id\":\"toolu_********\","
      "\"response_id\":\"resp_********\",\"message_id\":\"msg_********\","
      "\"id\":\"ctc_********\"}" },
    { "other names",
      "{\"ids\":\"fc_12345678\",\"previous_response_id\":\"resp_12345678\","
      "\"x\":\"id\",\"y\":[\"id\",\"msg_12345678\"],\"model\":"
      "\"cmpl-12345678\"}",
      NULL },
    { "nested",
      "{\"a\":[{\"b\":{\"id\":\"call_abcdefgh\"}},[{\"id\":\"fc_12345678\"}]]}",
      "{\"a\":[{\"b\":{\"id\":\"call_********\"}},[{\"id\":"
      "\"fc_********\"}]]}" },
    { "state at the provider",
      "[{\"id\":\"rs_1234567890\"},{\"id\":\"cntr_1234567890\"},{\"id\":"
      "\"file-1234567890\"},{\"id\":\"vs_1234567890\"},{\"id\":"
      "\"srvtoolu_1234567890\"}]", NULL },
    { "no prefix that is known",
      "[{\"id\":\"D681PevKs\"},{\"id\":\"function-call-1234567890\"},"
      "{\"id\":12345678},{\"id\":null},{\"id\":\"\"}]", NULL },
    { "too short", "{\"id\":\"chatcmpl-123\",\"call_id\":\"call_1234567\"}",
      NULL },
    { "other characters", "[{\"id\":\"call_1234567890|x\"},"
      "{\"id\":\"call_12345\\u0036789\"},{\"id\":\"call_1234567890\xc3\xa9\"}]",
      NULL },

    { "within a text",
      "{\"content\":\"{\\\"id\\\":\\\"call_1234567890\\\"} \\\\\","
      "\"id\":\"msg_12345678\"}",
      "{\"content\":\"{\\\"id\\\":\\\"call_1234567890\\\"} \\\\\","
      "\"id\":\"msg_********\"}" },
    { "a tool's input",
      "{\"type\":\"tool_use\",\"input\":{\"id\":\"msg_12345678\",\"x\":[{"
      "\"id\":\"msg_12345678\",\"y\":\"}\\\"\"}]},\"id\":\"toolu_12345678\"}",
      "{\"type\":\"tool_use\",\"input\":{\"id\":\"msg_12345678\",\"x\":[{"
      "\"id\":\"msg_12345678\",\"y\":\"}\\\"\"}]},\"id\":\"toolu_********\"}" },
    { "objects of the client's",
      "{\"metadata\":{\"id\":\"msg_12345678\"},\"tools\":[{\"id\":"
      "\"msg_12345678\"}],\"arguments\":{\"id\":\"msg_12345678\"},"
      "\"input\":\"x\",\"id\":\"msg_12345678\"}",
      "{\"metadata\":{\"id\":\"msg_12345678\"},\"tools\":[{\"id\":"
      "\"msg_12345678\"}],\"arguments\":{\"id\":\"msg_12345678\"},"
      "\"input\":\"x\",\"id\":\"msg_********\"}" },
    { "an input that is cut", "{\"input\":{\"id\":\"msg_12345678\"", NULL }
};


static int
fits(const u_char *got, const ids_t *t)
{
    size_t       i;
    const char  *of;

    of = t->of ? t->of : t->text;

    for (i = 0; t->text[i]; i++) {

        if (of[i] == '*') {
            if (strchr("0123456789abcdefghijklmnopqrstuvwxyz"
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ", got[i]) == NULL)
            {
                return 0;
            }

        } else if (got[i] != (u_char) of[i]) {
            return 0;
        }
    }

    return of[i] == '\0';
}


static void
texts(void)
{
    size_t        i, len;
    u_char       *one, *two, *same;
    const ids_t  *t;

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        t = &all[i];
        len = strlen(t->text);

        one = exact(t->text, len);
        two = exact(t->text, len);
        same = exact(t->text, len);

        llm_fresh_ids(one, len, 1);
        llm_fresh_ids(two, len, 2);
        llm_fresh_ids(same, len, 1);

        ok(fits(one, t) && fits(two, t), "%s", t->name);
        ok(memcmp(one, same, len) == 0, "%s: the seed decides", t->name);
        is_int(memcmp(one, two, len) != 0 && memcmp(one, t->text, len) != 0,
               t->of && strchr(t->of, '*') != NULL, "and gives others");

        free(one);
        free(two);
        free(same);
    }
}


/* equal ones stay equal, others do not become so */

static void
equals(void)
{
    u_char       *p;
    const char    text[] = "{\"id\":\"call_abcdefgh1\",\"call_id\":"
                           "\"call_abcdefgh1\",\"item_id\":\"call_abcdefgh2\"}";

    p = exact(text, sizeof(text));

    llm_fresh_ids(p, sizeof(text) - 1, 7);

    ok(memcmp(p + 7, p + 34, 14) == 0, "equal ids stay equal");
    ok(memcmp(p + 7, p + 61, 14) != 0, "others differ");
    ok(memcmp(p + 61, "call_", 5) == 0, "in the same place");

    free(p);
}


static void
class(const char *id, const char *chars)
{
    int            bad;
    char           text[128];
    size_t         i, len, start;
    uint64_t       seed;
    unsigned char  seen[256];

    bad = 0;
    memset(seen, 0, sizeof(seen));

    for (seed = 0; seed < 1000; seed++) {
        len = sprintf(text, "{\"id\":\"call_%s\"}", id);
        start = strlen("{\"id\":\"call_");

        llm_fresh_ids((u_char *) text, len, seed);

        for (i = start; i < start + strlen(id); i++) {
            bad += strchr(chars, text[i]) == NULL;
            seen[(u_char) text[i]] = 1;
        }
    }

    for (i = 0; chars[i]; i++) {
        bad += !seen[(u_char) chars[i]];
    }

    ok(bad == 0, "%s: all of %s, nothing else", id, chars);
}


/* a text cut at any byte: nothing is read behind it (ASan says), and what is
 * changed is what is in the whole text */

static void
cuts(void)
{
    int           bad;
    size_t        i, k, n, len;
    u_char       *p;
    const ids_t  *t;

    bad = 0;

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        t = &all[i];
        len = strlen(t->text);

        if (t->of == NULL) {
            continue;
        }

        for (n = 0; n < len; n++) {
            p = exact(t->text, n);
            llm_fresh_ids(p, n, 3);

            for (k = 0; k < n; k++) {
                bad += p[k] != (u_char) t->text[k] && t->of[k] != '*';
            }

            free(p);
        }
    }

    is_int(bad, 0, "cut texts");
}


int
main(void)
{
    texts();
    equals();

    class("1234567890", "0123456789");
    class("12345678ab", "0123456789abcdef");
    class("12345678az", "0123456789abcdefghijklmnopqrstuvwxyz");
    class("12345678AB", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    class("12345678aB", "0123456789abcdefghijklmnopqrstuvwxyz"
                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

    cuts();

    return done();
}
