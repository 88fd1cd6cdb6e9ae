
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * llm_json.c, llm_json_read.c: what is JSON and what is not, with the reason
 * and place that a client is told; members, walks, texts of strings.  Each
 * text stands in a heap buffer of its size.
 */


#include "run.h"
#include "json_plain.h"


typedef struct {
    llm_str_t    text;
    llm_int_t    rc;
    const char  *reason;
    size_t       offset;
} verdict_t;


#define good(text)      { llm_string(text), LLM_DECLINED, NULL, 0 }
#define object(text)    { llm_string(text), LLM_OK, NULL, 0 }
#define bad(text, reason, offset)                                             \
    { llm_string(text), LLM_ERROR, reason, offset }

#define CHAR   "unexpected character"
#define END    "unexpected end"
#define CTRL   "control character in string"
#define UTF8   "invalid UTF-8"
#define ESC    "invalid escape"
#define NUM    "invalid number"
#define AFTER  "text after the value"
#define EMPTY  "empty"


static verdict_t  verdicts[] = {

    /* values of each kind, alone */

    good("null"), good("true"), good("false"), good("\"\""), good("\"a\""),
    good("[]"), good("0"), good("-0"), good("7"), good("-1"),
    object("{}"), object(" {} "), object("\t\r\n {\t\r\n }\t\r\n "),
    good(" \n[ \r\t] "), good("\n0\n"),

    /* containers */

    good("[1,2,3]"), good("[ 1 , 2 ]"), good("[[],[[]],{}]"),
    good("[{\"a\":[]},{}]"), object("{\"a\":{\"b\":{\"c\":[]}}}"),
    object("{\"\":0}"), object("{\"a\":1,\"a\":2}"),
    object("{ \"a\" : 1 , \"b\" : [ true , false , null ] }"),
    object("{\"a\":[{},{},[]],\"b\":{\"c\":{}}}"),

    bad("[", END, 1), bad("{", END, 1), bad("[1", END, 2),
    bad("[1,", END, 3), bad("{\"a\"", END, 4), bad("{\"a\":", END, 5),
    bad("{\"a\":1", END, 6), bad("{\"a\":1,", END, 7), bad("[[]", END, 3),
    bad("[1,]", CHAR, 3), bad("[,1]", CHAR, 1), bad("[,]", CHAR, 1),
    bad("[1 2]", CHAR, 3), bad("[1,,2]", CHAR, 3), bad("[}", CHAR, 1),
    bad("[1}", CHAR, 2), bad("{]", CHAR, 1), bad("{\"a\":1]", CHAR, 6),
    bad("{,}", CHAR, 1), bad("{\"a\":1,}", CHAR, 7), bad("{\"a\"}", CHAR, 4),
    bad("{\"a\":}", CHAR, 5), bad("{\"a\",1}", CHAR, 4),
    bad("{a:1}", CHAR, 1), bad("{'a':1}", CHAR, 1), bad("{1:1}", CHAR, 1),
    bad("{\"a\"::1}", CHAR, 5), bad("{\"a\":1 \"b\":2}", CHAR, 7),
    bad("{\"a\":1,,\"b\":2}", CHAR, 7), bad("{null:1}", CHAR, 1),
    bad("]", CHAR, 0), bad("}", CHAR, 0), bad(",", CHAR, 0),
    bad(":", CHAR, 0), bad("[:]", CHAR, 1), bad("[\"a\":1]", CHAR, 4),
    bad("{[]:1}", CHAR, 1), bad("{{}:1}", CHAR, 1),

    /* nothing, and too much */

    bad("", EMPTY, 0), bad(" ", EMPTY, 1), bad("\n\t \r", EMPTY, 4),
    bad("                    ", EMPTY, 20),
    bad("{}{}", AFTER, 2), bad("{} x", AFTER, 3), bad("1 2", AFTER, 2),
    bad("[]]", AFTER, 2), bad("{}}", AFTER, 2), bad("null,", AFTER, 4),
    bad("\"a\"b", AFTER, 3), bad("{}\0", AFTER, 2), bad("0 0", AFTER, 2),
    bad("[]\v", AFTER, 2), bad("truefalse", AFTER, 4),
    bad("\xef\xbb\xbf{}", CHAR, 0), bad("\f{}", CHAR, 0),
    bad("\xc2\xa0{}", CHAR, 0), bad("\0", CHAR, 0), bad("[\0]", CHAR, 1),
    bad("// x\n{}", CHAR, 0), bad("{/**/}", CHAR, 1), bad("[1/**/]", CHAR, 2),

    /* words */

    bad("t", END, 1), bad("tru", END, 3), bad("nul", END, 3),
    bad("fals", END, 4), bad("True", CHAR, 0), bad("trUe", CHAR, 2),
    bad("nil", CHAR, 1), bad("nulL", CHAR, 3), bad("falsy", CHAR, 4),
    bad("[nul]", CHAR, 4), bad("NaN", CHAR, 0), bad("Infinity", CHAR, 0),
    bad("undefined", CHAR, 0), bad("nulll", AFTER, 4), bad("true1", AFTER, 4),

    /* numbers */

    good("123"), good("-123"), good("0.0"), good("-0.5"), good("1e5"),
    good("1E5"), good("1e+5"), good("1e-5"), good("0e0"), good("1.25e-07"),
    good("-0.0E+0"), good("1e999999"), good("0.000000000000000000000000001"),
    good("123456789012345678901234567890123456789012345678901234567890"),
    good("-1e-999"), good("[0,-0,1.5,1e1]"), good("1e00"), good("1.0"),

    bad("-", END, 1), bad("1.", END, 2), bad("1e", END, 2),
    bad("1e+", END, 3), bad("1.5E-", END, 5), bad("[-]", NUM, 2),
    bad("01", NUM, 1), bad("-01", NUM, 2), bad("00", NUM, 1),
    bad("[1.]", NUM, 3), bad("[1.e5]", NUM, 3), bad("[1e]", NUM, 3),
    bad("[1e+]", NUM, 4), bad("[1e5.5]", CHAR, 4), bad("+1", CHAR, 0),
    bad(".5", CHAR, 0), bad("--1", NUM, 1), bad("1.5.5", AFTER, 3),
    bad("0x1", AFTER, 1), bad("1_000", AFTER, 1), bad("1a", AFTER, 1),
    bad("[1a]", CHAR, 2), bad("-a", NUM, 1), bad("- 1", NUM, 1),
    bad("[1 .5]", CHAR, 3), bad("-Infinity", NUM, 1), bad("1e5e5", AFTER, 3),
    bad("1 e5", AFTER, 2), bad("\xef\xbc\x91", CHAR, 0), bad("1e 5", NUM, 2),

    /* strings */

    good("\"\\\"\""), good("\"\\\\\""), good("\"\\/\\b\\f\\n\\r\\t\""),
    good("\"\\u0000\""), good("\"\\uABCD\\uabcd\\u0041\""),
    good("\"\\ud83d\\ude00\""), good("\"\\ud800\""), good("\"\\udc00\""),
    good("\"\\ud800\\ud800\""), good("\"\\udc00\\ud800x\""),
    good("\"\x7f\""), good("\"/\""), good("\"'\""), good("\"{[,:]}\""),
    good("\"0123456789abcdef0123456789abcdef\""),
    good("\"0123456789abcd\\n0123456789abcdef\\n\""),

    bad("\"", END, 1), bad("\"abc", END, 4), bad("\"\\\"", END, 3),
    bad("\"\\", END, 2), bad("\"\\u", END, 3), bad("\"\\u00", END, 5),
    bad("\"\\u0041", END, 7), bad("\"0123456789abcdef", END, 17),
    bad("\"\\x41\"", ESC, 2), bad("\"\\a\"", ESC, 2), bad("\"\\'\"", ESC, 2),
    bad("\"\\U0041\"", ESC, 2), bad("\"\\0\"", ESC, 2),
    bad("\"\\u004g\"", ESC, 6), bad("\"\\u004\"", ESC, 6),
    bad("\"\\u+041\"", ESC, 3), bad("\"\\u 041\"", ESC, 3),
    bad("\"\\u{41}\"", ESC, 3), bad("\"\\\n\"", ESC, 2),
    bad("\"\\\0\"", ESC, 2), bad("\"\\\xc3\xa9\"", ESC, 2),
    bad("\"\\u004\xc3\xa9\"", ESC, 6), bad("\"\\u004`\"", ESC, 6),
    bad("\"\\u004@\"", ESC, 6), bad("\"\\u004/\"", ESC, 6),
    bad("\"\\u004:\"", ESC, 6), bad("\"\\u004G\"", ESC, 6),
    bad("\"a\nb\"", CTRL, 2), bad("\"\0\"", CTRL, 1), bad("\"\t\"", CTRL, 1),
    bad("\"\x1f\"", CTRL, 1), bad("\"0123456789abcdef\x01\"", CTRL, 17),
    bad("{\"a\nb\":1}", CTRL, 3), bad("'a'", CHAR, 0),
    bad("{\"\\q\":1}", ESC, 3), bad("{\"\xff\":1}", UTF8, 2),

    /* UTF-8: the edges of each range */

    good("\"\xc2\x80\xdf\xbf\""), good("\"\xe0\xa0\x80\xe0\xbf\xbf\""),
    good("\"\xe1\x80\x80\xec\xbf\xbf\""), good("\"\xed\x80\x80\xed\x9f\xbf\""),
    good("\"\xee\x80\x80\xef\xbf\xbf\""), good("\"\xf0\x90\x80\x80\""),
    good("\"\xf1\x80\x80\x80\xf3\xbf\xbf\xbf\""), good("\"\xf4\x8f\xbf\xbf\""),
    good("\"\xef\xbb\xbf\""), good("\"\xef\xbf\xbe\""),
    good("\"a\xc3\xa9z\xe2\x82\xac \xf0\x9f\x98\x80!\""),
    good("\"0123456789abcde\xe2\x82\xac""0123456789abcdef\""),

    bad("\"\x80\"", UTF8, 1), bad("\"\xbf\"", UTF8, 1),
    bad("\"\xc0\x80\"", UTF8, 1), bad("\"\xc1\xbf\"", UTF8, 1),
    bad("\"\xc2\"", UTF8, 1), bad("\"\xc2\x7f\"", UTF8, 1),
    bad("\"\xc2\xc0\"", UTF8, 1), bad("\"\xe0\x9f\xbf\"", UTF8, 1),
    bad("\"\xe0\x80\x80\"", UTF8, 1), bad("\"\xe1\x80\"", UTF8, 1),
    bad("\"\xe1\x80\x7f\"", UTF8, 1), bad("\"\xed\xa0\x80\"", UTF8, 1),
    bad("\"\xed\xbf\xbf\"", UTF8, 1), bad("\"\xf0\x8f\xbf\xbf\"", UTF8, 1),
    bad("\"\xf0\x80\x80\x80\"", UTF8, 1), bad("\"\xf0\x90\x80\"", UTF8, 1),
    bad("\"\xf1\x80\x80\xc0\"", UTF8, 1), bad("\"\xf4\x90\x80\x80\"", UTF8, 1),
    bad("\"\xf5\x80\x80\x80\"", UTF8, 1), bad("\"\xff\"", UTF8, 1),
    bad("\"\xfe\xff\"", UTF8, 1), bad("\"ok\xc3\xa9\xc3\"", UTF8, 5),
    bad("\"\xc3", UTF8, 1), bad("\"\xe2\x82", UTF8, 1),
    bad("\"\xf0\x9f\x98", UTF8, 1), bad("\"\xf8\x88\x80\x80\x80\"", UTF8, 1),
    bad("\"0123456789abcdef\x80\"", UTF8, 17), bad("[\xe2\x82\xac]", CHAR, 1)
};


static llm_int_t
scan(const char *data, size_t len, llm_uint_t depth, llm_json_error_t *err)
{
    llm_int_t  rc;
    llm_str_t  json;

    json.len = len;
    json.data = exact(data, len);

    rc = llm_json_scan(&json, depth, NULL, NULL, 0, err);

    if (rc == LLM_ERROR) {
        err->offset += 1000000 * (err->offset > len);
    }

    free(json.data);

    return rc;
}


static void
test_verdicts(void)
{
    size_t            i;
    verdict_t        *v;
    llm_int_t         rc;
    llm_json_error_t  err;

    for (i = 0; i < sizeof(verdicts) / sizeof(verdict_t); i++) {
        v = &verdicts[i];

        err.reason = NULL;
        err.offset = 0;

        rc = scan((char *) v->text.data, v->text.len, 100, &err);

        if (!ok(rc == v->rc && err.offset == v->offset
                && (err.reason == NULL) == (v->reason == NULL)
                && (rc != LLM_ERROR || strcmp(err.reason, v->reason) == 0),
                "verdict %zu: %.*s", i, (int) v->text.len, v->text.data))
        {
            printf("#   rc %d, \"%s\" at %zu\n", (int) rc,
                   err.reason ? err.reason : "", err.offset);
        }
    }

    rc = llm_json_scan(&(llm_str_t) llm_null_string, 10, NULL, NULL, 0, &err);

    ok(rc == LLM_ERROR && strcmp(err.reason, EMPTY) == 0 && err.offset == 0,
       "no text at all");

    is_int(llm_json_scan(&(llm_str_t) llm_string("x"), 10, NULL, NULL, 0,
                         NULL),
           LLM_ERROR, "err may be NULL");
}


/* no prefix of an object is an object, and none is read past its end */

static void
test_prefixes(void)
{
    size_t             len, wrong;
    llm_json_error_t   err;

    static const char  text[] =
        "{\"model\":\"gpt\\u0034\\n\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 and "
        "long enough for a block\", \"n\" : [-1.5e+10, true,false ,null, "
        "{\"a\":{}}, \"\", []],                     \"z\":\"\\ud83d\\ude00\"}";

    wrong = 0;

    for (len = 0; len < sizeof(text) - 1; len++) {

        if (scan(text, len, 10, &err) != LLM_ERROR || err.offset > len
            || (strcmp(err.reason, END) && strcmp(err.reason, UTF8)
                && strcmp(err.reason, EMPTY)))
        {
            wrong++;
        }
    }

    is_int(wrong, 0, "prefixes");
    is_int(scan(text, sizeof(text) - 1, 10, &err), LLM_OK, "the whole");
}


/* one byte of any value at any place of a string: the blocks and the rest */

static void
test_places(void)
{
    int               ch;
    char              text[64];
    size_t            i, len, wrong;
    llm_int_t         rc;
    const char       *reason;
    llm_json_error_t  err;

    wrong = 0;

    for (len = 3; len < sizeof(text); len++) {

        for (i = 1; i < len - 1; i++) {

            for (ch = 0; ch < 256; ch++) {
                memset(text, 'x', len);
                text[0] = '"';
                text[len - 1] = '"';
                text[i] = ch;

                reason = (ch < ' ') ? CTRL
                         : (ch >= 0x80) ? UTF8
                         : (ch == '"') ? AFTER
                         : (ch == '\\') ? ESC : NULL;

                rc = scan(text, len, 1, &err);

                if (ch == '\\' && i == len - 2) {
                    reason = END;
                }

                wrong += (reason == NULL) ? rc != LLM_DECLINED
                         : rc != LLM_ERROR || strcmp(err.reason, reason);
            }
        }
    }

    is_int(wrong, 0, "bytes at places");
}


/* all sequences of two bytes, three by their edges, against the table of
 * Unicode's chapter 3, written as ranges of code points */

static int
well_formed(const u_char *p, size_t len)
{
    size_t    i, n;
    uint32_t  code;

    static const uint32_t  least[] = { 0, 0, 0x80, 0x800, 0x10000 };

    for ( /* void */ ; len; p += n, len -= n) {

        n = (*p < 0x80) ? 1 : (*p >> 5 == 6) ? 2 : (*p >> 4 == 14) ? 3
            : (*p >> 3 == 30) ? 4 : 0;

        if (n == 0 || n > len) {
            return 0;
        }

        code = (n == 1) ? *p : *p & (0x7f >> n);

        for (i = 1; i < n; i++) {

            if (p[i] >> 6 != 2) {
                return 0;
            }

            code = code << 6 | (p[i] & 0x3f);
        }

        if (code < least[n] || code > 0x10ffff
            || (code >= 0xd800 && code < 0xe000))
        {
            return 0;
        }
    }

    return 1;
}


static void
test_utf8(void)
{
    char               text[8];
    size_t             a, b, c, d, n, wrong;
    llm_json_error_t   err;

    static const char  edge[] = "\x20\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xff";

    wrong = 0;

    for (a = 0x80; a < 0x100; a++) {

        for (b = 0; b < 0x100 * 10 * 10; b++) {
            c = b / 256 % 10;
            d = b / 2560;

            for (n = 1; n <= 4; n++) {
                text[0] = '"';
                text[1] = a;
                text[2] = b;
                text[3] = edge[c];
                text[4] = edge[d];
                text[1 + n] = '"';

                if (memchr(text + 1, '"', n) || memchr(text + 1, '\\', n)
                    || (n > 1 && (u_char) b < ' '))
                {
                    continue;
                }

                wrong += (scan(text, n + 2, 1, &err) == LLM_DECLINED)
                         != well_formed((u_char *) text + 1, n);
            }

            /* more is the same for the ASCII */
            if (a < 0xc0 && b > 256) {
                break;
            }
        }
    }

    is_int(wrong, 0, "UTF-8 sequences");
}


static void
test_depth(void)
{
    char              text[4096];
    size_t            n, i, wrong;
    llm_int_t         rc;
    llm_json_error_t  err;

    wrong = 0;

    for (n = 1; n <= 600; n++) {

        for (i = 0; i < n; i++) {
            text[i] = '[';
            text[2 * n - 1 - i] = ']';
        }

        rc = scan(text, 2 * n, n, &err);
        wrong += (rc == LLM_DECLINED) != (n <= LLM_JSON_DEPTH_MAX);

        rc = scan(text, 2 * n, n - 1, &err);
        wrong += rc != LLM_ERROR || strcmp(err.reason, "nested too deep")
                 || err.offset != ((n - 1 < LLM_JSON_DEPTH_MAX)
                                   ? n - 1 : LLM_JSON_DEPTH_MAX);
    }

    is_int(wrong, 0, "arrays up to the depth allowed and one more");

    /* kinds alternate: each bracket is remembered */

    for (n = 0, i = 0; i < 256; i++) {
        memcpy(text + n, "[{\"a\":", 6);
        n += 6;
    }

    text[n++] = '0';

    for (i = 0; i < 256; i++) {
        text[n++] = '}';
        text[n++] = ']';
    }

    is_int(scan(text, n, 512, &err), LLM_DECLINED, "512 of both kinds");
    is_int(scan(text, n, 100000, &err), LLM_DECLINED, "max_depth is cut");

    text[n - 3] = '}';
    is_int(scan(text, n, 512, &err), LLM_ERROR, "a wrong bracket");
    is_int(err.offset, n - 3, "and its place");
    is_int(scan("0", 1, 0, &err), LLM_DECLINED, "depth 0: a scalar");
    is_int(scan("{}", 2, 0, &err), LLM_ERROR, "depth 0: no object");
}


static llm_str_t  names[] = {
    llm_string("model"), llm_string("stream"), llm_string("n"),
    llm_string(""), llm_string("\xc3\xa9""a"), llm_string("\xf0\x9f\x98\x80")
};

#define NAMES  (sizeof(names) / sizeof(llm_str_t))


typedef struct {
    const char  *text;
    llm_uint_t   name;
    const char  *raw;                  /* NULL: absent */
    llm_uint_t   type;
    llm_uint_t   escaped;
    llm_uint_t   duplicate;
} member_t;


static member_t  members[] = {
    { "{}", 0, NULL, 0, 0, 0 },
    { "{\"model\":\"a\"}", 0, "\"a\"", LLM_JSON_STRING, 0, 0 },
    { "{ \"model\" : \"a\" }", 0, "\"a\"", LLM_JSON_STRING, 0, 0 },
    { "{\"model\":\"\\u0061\"}", 0, "\"\\u0061\"", LLM_JSON_STRING, 1, 0 },
    { "{\"model\":null}", 0, "null", LLM_JSON_NULL, 0, 0 },
    { "{\"model\":true }", 0, "true", LLM_JSON_TRUE, 0, 0 },
    { "{\"model\":false\n}", 0, "false", LLM_JSON_FALSE, 0, 0 },
    { "{\"model\":-1.5e3,\"x\":1}", 0, "-1.5e3", LLM_JSON_NUMBER, 0, 0 },
    { "{\"model\":[ 1, \"\\n\" ]}", 0, "[ 1, \"\\n\" ]", LLM_JSON_ARRAY,
      0, 0 },
    { "{\"model\":{\"model\":\"in\"} }", 0, "{\"model\":\"in\"}",
      LLM_JSON_OBJECT, 0, 0 },
    { "{\"x\":{\"model\":1},\"y\":[{\"model\":2}]}", 0, NULL, 0, 0, 0 },
    { "{\"x\":{\"model\":1},\"model\":3}", 0, "3", LLM_JSON_NUMBER, 0, 0 },
    { "{\"model\":1,\"x\":{\"model\":2}}", 0, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"model\":{},\"stream\":[]}", 0, "{}", LLM_JSON_OBJECT, 0, 0 },
    { "{\"model\":{},\"stream\":[]}", 1, "[]", LLM_JSON_ARRAY, 0, 0 },

    /* the last one counts, as most readers have it */

    { "{\"model\":1,\"model\":2}", 0, "2", LLM_JSON_NUMBER, 0, 1 },
    { "{\"model\":\"\\n\",\"model\":\"a\"}", 0, "\"a\"", LLM_JSON_STRING,
      0, 1 },
    { "{\"model\":1,\"model\":2,\"model\":null}", 0, "null", LLM_JSON_NULL,
      0, 1 },
    { "{\"model\":1,\"mod\\u0065l\":2}", 0, "2", LLM_JSON_NUMBER, 0, 1 },
    { "{\"model\":1,\"n\":2,\"n\":3}", 0, "1", LLM_JSON_NUMBER, 0, 0 },

    /* escaped names */

    { "{\"mod\\u0065l\":1}", 0, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\\u006d\\u006F\\u0064\\u0065\\u006C\":1}", 0, "1", LLM_JSON_NUMBER,
      0, 0 },
    { "{\"mode\\u006c\\u0000\":1}", 0, NULL, 0, 0, 0 },
    { "{\"mode\\u006\":1}", 0, NULL, 0, 0, 0 },
    { "{\"mode\\n\":1}", 0, NULL, 0, 0, 0 },
    { "{\"modell\":1,\"mode\":2,\"Model\":3,\"xmodel\":4}", 0, NULL, 0, 0,
      0 },
    { "{\"\":1}", 3, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\xc3\xa9""a\":1}", 4, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\\u00e9a\":1}", 4, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\xc3\xa9\\u0061\":1}", 4, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\\ud83d\\ude00\":1}", 5, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\\uD83D\\uDE00\":1}", 5, "1", LLM_JSON_NUMBER, 0, 0 },
    { "{\"\\ud83d\":1,\"\\ude00\":2}", 5, NULL, 0, 0, 0 },
    { "{\"\\ude00\\ud83d\":1}", 5, NULL, 0, 0, 0 }
};


static int
member_is(const member_t *m, const llm_json_value_t *v)
{
    if (m->raw == NULL) {
        return v->type == LLM_JSON_ABSENT && v->raw.len == 0
               && v->duplicate == 0;
    }

    return v->type == m->type && v->escaped == m->escaped
           && v->duplicate == m->duplicate && v->raw.len == strlen(m->raw)
           && memcmp(v->raw.data, m->raw, v->raw.len) == 0;
}


static void
test_members(void)
{
    size_t            i;
    llm_int_t         rc;
    llm_str_t         json;
    member_t         *m;
    llm_json_value_t  values[NAMES];

    for (i = 0; i < sizeof(members) / sizeof(member_t); i++) {
        m = &members[i];

        json.len = strlen(m->text);
        json.data = exact(m->text, json.len);

        memset(values, 0xa5, sizeof(values));
        rc = llm_json_scan(&json, 10, names, values, NAMES, NULL);

        if (rc == LLM_OK) {
            ok(member_is(m, &values[m->name]), "scan: %s", m->text);

        } else {
            ok(values[0].type == LLM_JSON_ABSENT && values[0].raw.len == 0,
               "scan, not valid: %s", m->text);
        }

        memset(values, 0xa5, sizeof(values));
        rc = llm_json_find(&json, names, values, NAMES);

        ok(rc == LLM_OK && member_is(m, &values[m->name]), "find: %s",
           m->text);

        free(json.data);
    }

    memset(values, 0xa5, sizeof(values));
    json = (llm_str_t) llm_string("[{\"model\":1}]");

    is_int(llm_json_scan(&json, 10, names, values, NAMES, NULL), LLM_DECLINED,
           "scan: an array");
    is_int(values[0].type, LLM_JSON_ABSENT, "scan: an array has no members");

    memset(values, 0xa5, sizeof(values));

    is_int(llm_json_find(&json, names, values, NAMES), LLM_DECLINED,
           "find: an array");
    is_int(values[NAMES - 1].type, LLM_JSON_ABSENT,
           "find: an array has no members");

    is_int(llm_json_find(&(llm_str_t) llm_null_string, names, values, NAMES),
           LLM_DECLINED, "find: nothing");

    json = (llm_str_t) llm_string("{\"model\":1,\"n\":2,}");

    is_int(llm_json_scan(&json, 10, names, values, NAMES, NULL), LLM_ERROR,
           "scan: not valid in the end");
    is_int(values[0].type, LLM_JSON_ABSENT, "nothing is told of it");
}


static size_t
walk(const char *text, char *out, size_t size)
{
    u_char            *pos;
    size_t             n, len;
    llm_str_t          json, name;
    llm_json_value_t   value;

    json.len = strlen(text);
    json.data = exact(text, json.len);

    n = 0;
    len = 0;
    pos = NULL;
    out[0] = '\0';

    while (llm_json_next(&json, &pos, &name, &value) == LLM_OK) {
        n++;
        len += snprintf(out + len, size - len, "%.*s=%.*s;",
                        (int) name.len, name.len ? (char *) name.data : "",
                        (int) value.raw.len, value.raw.data);

        if (n > json.len) {
            break;
        }
    }

    if (llm_json_next(&json, &pos, NULL, &value) != LLM_DONE) {
        n = 1000;
    }

    free(json.data);

    return n;
}


static void
test_walk(void)
{
    char    out[256];
    size_t  i;

    static const struct {
        const char  *text;
        size_t       n;
        const char  *out;
    } walks[] = {
        { "[]", 0, "" }, { "{}", 0, "" }, { " [ ] ", 0, "" },
        { "[1]", 1, "=1;" }, { "[ 1 , 2 ]", 2, "=1;=2;" },
        { "[[1,2],{\"a\":3},\"b,]\"]", 3,
          "=[1,2];={\"a\":3};=\"b,]\";" },
        { "{\"a\":1,\"b\\n\" : [\"}\"] , \"\":{}}", 3,
          "a=1;b\\n=[\"}\"];={};" },
        { "[true,null,-1.5e3,\"\\\"\"]", 4, "=true;=null;=-1.5e3;=\"\\\"\";" },
        { "{\"a\":\"0123456789abcdef\\\\\",\"b\":\"\\\"0123456789abcdef\"}",
          2, "a=\"0123456789abcdef\\\\\";b=\"\\\"0123456789abcdef\";" },

        /* not containers, not valid: less, and an end */

        { "", 0, "" }, { "1", 0, "" }, { "\"[1]\"", 0, "" }, { "[", 0, "" },
        { "{", 0, "" }, { "[,", 0, "" }, { "[,1]", 0, "" },
        { "[1", 1, "=1;" }, { "[1,", 1, "=1;" }, { "[1 2]", 1, "=1;" },
        { "[1}", 1, "=1;" }, { "[\"", 0, "" }, { "[\"\\", 0, "" },
        { "[\"\\\"", 0, "" }, { "[[1]", 1, "=[1];" }, { "[[1", 0, "" },
        { "{\"a\"", 0, "" }, { "{\"a\":", 0, "" }, { "{\"a\" 1}", 0, "" },
        { "{1:2}", 0, "" }, { "{\"a\":1,2}", 1, "a=1;" }, { "[x]", 0, "" },
        { "[{\"a]\":\"}\"", 0, "" }, { "[t", 1, "=t;" }
    };

    for (i = 0; i < sizeof(walks) / sizeof(walks[0]); i++) {
        ok(walk(walks[i].text, out, sizeof(out)) == walks[i].n
           && strcmp(out, walks[i].out) == 0,
           "walk: %s", walks[i].text);
    }
}


static llm_json_value_t
string(const llm_str_t *raw)
{
    llm_json_value_t  v;

    memset(&v, 0, sizeof(llm_json_value_t));

    v.raw = *raw;
    v.type = LLM_JSON_STRING;
    v.escaped = raw->len && memchr(raw->data, '\\', raw->len) != NULL;

    return v;
}


static void
test_strings(void)
{
    size_t            i, len;
    u_char           *dst;
    llm_str_t         raw, json;
    llm_json_value_t  v;

    static const struct {
        llm_str_t    raw;
        llm_str_t    text;
    } strings[] = {
        { llm_string("\"\""), llm_string("") },
        { llm_string("\"a\""), llm_string("a") },
        { llm_string("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
          llm_string("\"\\/\b\f\n\r\t") },
        { llm_string("\"a\\u0041b\""), llm_string("aAb") },
        { llm_string("\"\\u0000\""), llm_string("\0") },
        { llm_string("\"\\u007f\\u0080\\u07ff\\u0800\\uffff\""),
          llm_string("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf") },
        { llm_string("\"\\ud83d\\uDE00\""), llm_string("\xf0\x9f\x98\x80") },
        { llm_string("\"\\ud800\\udc00\\udbff\\udfff\""),
          llm_string("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf") },
        { llm_string("\"\\ud83d\""), llm_string("\xef\xbf\xbd") },
        { llm_string("\"\\ude00x\""), llm_string("\xef\xbf\xbdx") },
        { llm_string("\"\\ud83dx\""), llm_string("\xef\xbf\xbdx") },
        { llm_string("\"\\ud83d\\n\""), llm_string("\xef\xbf\xbd\n") },
        { llm_string("\"\\ud83d\\u0041\""), llm_string("\xef\xbf\xbd""A") },
        { llm_string("\"\\ud83d\\ud83d\\ude00\""),
          llm_string("\xef\xbf\xbd\xf0\x9f\x98\x80") },
        { llm_string("\"0123456789abcdef0\\n0123456789abcdef\\\"\""),
          llm_string("0123456789abcdef0\n0123456789abcdef\"") },
        { llm_string("\"\xc3\xa9\\n\xf0\x9f\x98\x80\""),
          llm_string("\xc3\xa9\n\xf0\x9f\x98\x80") }
    };

    for (i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        raw.len = strings[i].raw.len;
        raw.data = exact(strings[i].raw.data, raw.len);
        dst = malloc(raw.len);

        v = string(&raw);
        len = llm_json_unescape(dst, &v);

        is_mem(dst, len, strings[i].text.data, strings[i].text.len,
               "unescape");

        ok(llm_json_is(&v, (char *) strings[i].text.data,
                       strings[i].text.len),
           "is: %s", strings[i].raw.data);
        ok(!llm_json_is(&v, (char *) strings[i].text.data,
                        strings[i].text.len + 1),
           "is not, longer");
        ok(strings[i].text.len == 0
           || !llm_json_is(&v, (char *) strings[i].text.data,
                           strings[i].text.len - 1),
           "is not, shorter");
        ok(!llm_json_is(&v, "other", 5), "is not, other");

        free(dst);
        free(raw.data);
    }

    /* not valid: within the text, and no more than it */

    for (i = 0; i < 2; i++) {
        static const llm_str_t  cut[] = {
            llm_string("\"\\"), llm_string("\"\\\""), llm_string("\"\\u\""),
            llm_string("\"\\u00\""), llm_string("\"\\u00zz\""),
            llm_string("\"\\ud83d\\u\""), llm_string("\"\\ud83d\\u12\""),
            llm_string("\"\\x\""), llm_string("\"\"\""), llm_string("\""),
            llm_string("")
        };

        for (len = 0; len < sizeof(cut) / sizeof(llm_str_t); len++) {
            raw.len = cut[len].len;
            raw.data = exact(cut[len].data, raw.len);
            dst = malloc(raw.len);

            v = string(&raw);
            v.escaped = i;

            ok(llm_json_unescape(dst, &v) <= raw.len
               && !llm_json_is(&v, "other", 5),
               "strings cut short");

            free(dst);
            free(raw.data);
        }
    }

    json = (llm_str_t) llm_string("\"a\"");
    v = string(&json);
    v.type = LLM_JSON_NUMBER;

    ok(!llm_json_is(&v, "a", 1), "is: only strings are");
    is_int(llm_json_unescape(NULL, &v), 0, "unescape: only strings");

    v.type = LLM_JSON_ABSENT;
    v.raw = (llm_str_t) llm_null_string;

    ok(!llm_json_is(&v, "", 0), "is: not what is absent");
}


static void
test_escape(void)
{
    size_t     i, len;
    u_char    *dst;
    llm_str_t  text;

    static const struct {
        llm_str_t    text;
        const char  *out;
    } escapes[] = {
        { llm_null_string, "" },
        { llm_string("plain, 'text' / <&>"), "plain, 'text' / <&>" },
        { llm_string("\"\\"), "\\\"\\\\" },
        { llm_string("\b\f\n\r\t"), "\\b\\f\\n\\r\\t" },
        { llm_string("\0\x01\x1f\x7f"), "\\u0000\\u0001\\u001f\x7f" },
        { llm_string("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
          "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
        { llm_string("a\xff""b"), "a\xef\xbf\xbd""b" },
        { llm_string("a\xe2\x82"), "a\xef\xbf\xbd\xef\xbf\xbd" },
        { llm_string("\xed\xa0\x80"),
          "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { llm_string("0123456789abcdef0123456789\n0123456789abcdef"),
          "0123456789abcdef0123456789\\n0123456789abcdef" }
    };

    for (i = 0; i < sizeof(escapes) / sizeof(escapes[0]); i++) {
        text.len = escapes[i].text.len;
        text.data = text.len ? exact(escapes[i].text.data, text.len) : NULL;

        len = llm_json_escape(NULL, &text);
        is_int(len, strlen(escapes[i].out), "escape: the length");

        dst = malloc(len);
        len = llm_json_escape(dst, &text);
        is_mem(dst, len, escapes[i].out, strlen(escapes[i].out), "escape");

        free(dst);
        free(text.data);
    }
}


static void
test_uint(void)
{
    size_t             i;
    uint64_t           n;
    llm_int_t          rc;
    llm_json_value_t   v;

    static const struct {
        const char  *raw;
        llm_int_t    rc;
        uint64_t     n;
    } numbers[] = {
        { "0", LLM_OK, 0 }, { "7", LLM_OK, 7 }, { "1234", LLM_OK, 1234 },
        { "18446744073709551615", LLM_OK, UINT64_MAX },
        { "18446744073709551614", LLM_OK, UINT64_MAX - 1 },
        { "18446744073709551616", LLM_DECLINED, 0 },
        { "18446744073709551620", LLM_DECLINED, 0 },
        { "99999999999999999999999", LLM_DECLINED, 0 },
        { "-1", LLM_DECLINED, 0 }, { "-0", LLM_DECLINED, 0 },
        { "1.0", LLM_DECLINED, 0 }, { "1e2", LLM_DECLINED, 0 },
        { "", LLM_DECLINED, 0 }
    };

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        memset(&v, 0, sizeof(llm_json_value_t));

        v.type = LLM_JSON_NUMBER;
        v.raw.len = strlen(numbers[i].raw);
        v.raw.data = exact(numbers[i].raw, v.raw.len);

        n = 0;
        rc = llm_json_uint(&v, &n);

        ok(rc == numbers[i].rc && n == numbers[i].n, "uint: %s",
           numbers[i].raw);

        v.type = LLM_JSON_STRING;
        ok(llm_json_uint(&v, &n) == LLM_DECLINED, "uint: not a string");

        free(v.raw.data);
    }
}


/* one pass over an array of objects tells what two passes tell */

static void
test_objects(void)
{
    size_t             i, k;
    u_char            *one, *two;
    llm_int_t          rc, rc2;
    llm_str_t          s;
    llm_json_value_t   a[3], b[3], item, item2;

    static const llm_str_t  names[3] = {
        llm_string("a"), llm_string("b"), llm_string("")
    };
    static const char      *texts[] = {
        "[]", " [ ] ", "[{}]", "[{\"a\":1}]",
        "[{\"a\":1},{\"b\":[{}],\"a\":{}}]",
        "[ { \"a\" : \"x\" , \"b\" : null } , 1 , [2] , \"s\", {\"\":0} ]",
        "[{\"\\u0061\":1,\"a\":2}]", "{\"a\":{\"b\":1}}", "1",
        "[{\"a\":1", "[{\"a\"", "[{", "[{}", "[{},", "[,{}]",
        "[{\"a\":{\"b\":\"}]\"},\"b\":\"\\\"\"}]", ""
    };

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        s.len = strlen(texts[i]);
        s.data = exact(texts[i], s.len);

        one = NULL;
        two = NULL;

        for (k = 0; k < 8; k++) {
            memset(&item, 0, sizeof(item));
            memset(&item2, 0, sizeof(item2));
            memset(b, 0, sizeof(b));

            rc = llm_json_next_object(&s, &one, names, a, 3, &item);
            rc2 = llm_json_next(&s, &two, NULL, &item2);

            if (rc2 == LLM_OK && *s.data != '{'
                && item2.type == LLM_JSON_OBJECT)
            {
                (void) llm_json_find(&item2.raw, names, b, 3);
            }

            if (rc != LLM_OK || rc2 != LLM_OK) {
                break;
            }

            ok(item.raw.data == item2.raw.data
               && item.raw.len == item2.raw.len
               && item.type == item2.type && plain_same(a, b, 3),
               "object %d of %s", (int) k, texts[i]);
        }

        ok(rc == rc2, "end of %s", texts[i]);

        free(s.data);
    }
}


int
main(void)
{
    test_objects();
    test_verdicts();
    test_prefixes();
    test_places();
    test_utf8();
    test_depth();
    test_members();
    test_walk();
    test_strings();
    test_escape();
    test_uint();

    return done();
}
