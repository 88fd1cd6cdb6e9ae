
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * JSON against jansson: the same texts are JSON, a tree made by walking with
 * llm_json_next() is jansson's, and members found are the tree's.  Against
 * json_plain.h: errors are the same, at the same place, in the text and in
 * the text as a string behind others of each width.
 *
 * Known to differ, and to be what llm.h says: jansson has no lone
 * surrogates, no NUL in names, and no numbers beyond its types; and it
 * passes over a NUL byte behind a number or word, which is never JSON.
 */


#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "llm.h"
#include "../core/json_plain.h"


#define DEPTH  64

#define check(cond)  do { if (!(cond)) { abort(); } } while (0)


static llm_str_t  names[] = {
    llm_string("a"), llm_string("model"), llm_string(""), llm_string("usage"),
    llm_string("\xc3\xa9"), llm_string("stream"), llm_string("\xf0\x9f\x98\x80")
};

#define NAMES  (sizeof(names) / sizeof(llm_str_t))


/* an exact copy: a byte read too far is seen */

static llm_str_t
copy(const u_char *data, size_t len)
{
    llm_str_t  s;

    s.len = len;
    s.data = malloc(len);

    if (len) {
        memcpy(s.data, data, len);
    }

    return s;
}


static json_t *
load(const llm_str_t *text, json_error_t *err)
{
    return json_loadb(text->len ? (char *) text->data : "", text->len,
                      JSON_DECODE_ANY|JSON_ALLOW_NUL, err);
}


/* names may have a NUL only where jansson refused the text before */

static void
text_of(const llm_json_value_t *v, llm_str_t *out)
{
    out->data = malloc(v->raw.len + 1);
    out->len = llm_json_unescape(out->data, v);
    out->data[out->len] = '\0';

    check(out->len <= v->raw.len - 2);
    check(llm_json_is(v, (char *) out->data, out->len));
    check(!llm_json_is(v, (char *) out->data, out->len + 1));
}


static json_t *
build(const llm_json_value_t *v)
{
    u_char            *pos;
    json_t            *tree, *item;
    llm_str_t          name, text;
    llm_json_value_t   value, key;

    switch (v->type) {

    case LLM_JSON_STRING:
        text_of(v, &text);
        tree = json_stringn((char *) text.data, text.len);
        free(text.data);
        check(tree);
        return tree;

    case LLM_JSON_ARRAY:
    case LLM_JSON_OBJECT:
        pos = NULL;
        tree = (v->type == LLM_JSON_ARRAY) ? json_array() : json_object();

        while (llm_json_next(&v->raw, &pos, &name, &value) == LLM_OK) {
            item = build(&value);

            if (v->type == LLM_JSON_ARRAY) {
                check(json_array_append_new(tree, item) == 0);
                continue;
            }

            memset(&key, 0, sizeof(llm_json_value_t));

            key.type = LLM_JSON_STRING;
            key.raw.data = name.data - 1;
            key.raw.len = name.len + 2;
            key.escaped = name.len && memchr(name.data, '\\', name.len);

            text_of(&key, &text);
            check(json_object_set_new(tree, (char *) text.data, item) == 0);
            free(text.data);
        }

        return tree;

    default:
        tree = load(&v->raw, NULL);
        check(tree);
        return tree;
    }
}


static void
check_members(const llm_str_t *text, const json_t *root)
{
    size_t            i;
    json_t           *tree;
    uint64_t          n;
    llm_json_value_t  scanned[NAMES], found[NAMES];

    check(llm_json_scan(text, DEPTH, names, scanned, NAMES, NULL) == LLM_OK);
    check(llm_json_find(text, names, found, NAMES) == LLM_OK);

    for (i = 0; i < NAMES; i++) {
        check(scanned[i].type == found[i].type);
        check(scanned[i].escaped == found[i].escaped);
        check(scanned[i].duplicate == found[i].duplicate);
        check(scanned[i].raw.data == found[i].raw.data);
        check(scanned[i].raw.len == found[i].raw.len);

        if (root == NULL) {
            continue;
        }

        tree = json_object_get(root, (char *) names[i].data);
        check((tree == NULL) == (found[i].type == LLM_JSON_ABSENT));

        if (tree == NULL) {
            continue;
        }

        if (llm_json_uint(&found[i], &n) == LLM_OK) {
            check(json_is_integer(tree));
            check((uint64_t) json_integer_value(tree) == n);
        }

        tree = build(&found[i]);
        check(json_equal(tree, json_object_get(root,
                                               (char *) names[i].data)));
        json_decref(tree);
    }
}


static void
check_text(const llm_str_t *text)
{
    json_t            *root, *tree;
    llm_int_t          rc;
    json_error_t       jerr;
    llm_json_value_t   value;
    llm_json_error_t   err;

    rc = llm_json_scan(text, DEPTH, NULL, NULL, 0, &err);

    if (text->len && memchr(text->data, '\0', text->len)) {
        check(rc == LLM_ERROR && err.offset < text->len);
        return;
    }

    root = load(text, &jerr);

    if (rc == LLM_ERROR) {
        check(err.offset <= text->len);
        check(root == NULL || strcmp(err.reason, "nested too deep") == 0);
        json_decref(root);
        return;
    }

    if (root == NULL) {
        check(json_error_code(&jerr) == json_error_numeric_overflow
              || json_error_code(&jerr) == json_error_null_byte_in_key
              || strstr(jerr.text, "invalid Unicode")
              || strstr(jerr.text, "too big"));

        if (rc == LLM_OK) {
            check_members(text, NULL);
        }

        return;
    }

    check((rc == LLM_OK) == json_is_object(root));

    memset(&value, 0, sizeof(llm_json_value_t));
    value.raw = *text;

    if (json_is_object(root) || json_is_array(root)) {
        value.type = json_is_object(root) ? LLM_JSON_OBJECT : LLM_JSON_ARRAY;

        tree = build(&value);
        check(json_equal(root, tree));
        json_decref(tree);
    }

    if (rc == LLM_OK) {
        check_members(text, root);
    }

    json_decref(root);
}


static void
check_plain(const llm_str_t *text)
{
    llm_int_t         rc;
    llm_json_error_t  err, plain;

    rc = llm_json_scan(text, DEPTH, NULL, NULL, 0, &err);

    check(rc == plain_scan(text, DEPTH, &plain));

    if (rc == LLM_ERROR) {
        check(err.offset == plain.offset);
        check(strcmp(err.reason, plain.reason) == 0);
    }
}


static void
check_string(const llm_str_t *text)
{
    size_t     i, n;
    llm_str_t  json;

    static const llm_str_t  heads[] = {
        llm_string(""), llm_string("\n"), llm_string("Ã©"),
        llm_string("â¬\"")
    };

    n = text->len ? text->data[0] % 4 : 0;

    for (i = 0; i < 2; i++) {
        json.len = 1 + heads[n].len + text->len + i;
        json.data = malloc(json.len);

        json.data[0] = '"';
        json.data[json.len - 1] = '"';
        memcpy(json.data + 1, heads[n].data, heads[n].len);

        if (text->len) {
            memcpy(json.data + 1 + heads[n].len, text->data, text->len);
        }

        check_plain(&json);

        free(json.data);
    }
}


/* the readers on what may not be JSON: they end, and stay within it */

static void
check_garbage(const llm_str_t *text)
{
    u_char            *pos, *dst;
    size_t             i, n;
    llm_str_t          name;
    llm_json_value_t   value, found[NAMES];

    (void) llm_json_find(text, names, found, NAMES);

    pos = NULL;

    for (n = 0; llm_json_next(text, &pos, &name, &value) == LLM_OK; n++) {
        check(n < text->len);
        check(value.raw.data >= text->data
              && value.raw.data + value.raw.len <= text->data + text->len);
        check(pos == value.raw.data + value.raw.len);
    }

    value.type = LLM_JSON_STRING;
    value.raw = *text;

    dst = malloc(text->len);

    for (i = 0; i < 2; i++) {
        value.escaped = i;
        check(llm_json_unescape(dst, &value) <= text->len);
        (void) llm_json_is(&value, "model", 5);
    }

    free(dst);
}


/* any bytes can be told within a string, and read again */

static void
check_escape(const llm_str_t *text)
{
    size_t            len;
    u_char           *back;
    llm_str_t         json;
    llm_json_value_t  value;

    len = llm_json_escape(NULL, text);

    json.len = len + 2;
    json.data = malloc(json.len);

    check(llm_json_escape(json.data + 1, text) == len);

    json.data[0] = '"';
    json.data[len + 1] = '"';

    check(llm_json_scan(&json, 1, NULL, NULL, 0, NULL) == LLM_DECLINED);

    memset(&value, 0, sizeof(llm_json_value_t));

    value.type = LLM_JSON_STRING;
    value.escaped = 1;
    value.raw = json;

    back = malloc(json.len);
    len = llm_json_unescape(back, &value);

    if (memmem(back, len, "\xef\xbf\xbd", 3) == NULL) {
        check(len == text->len && (len == 0
                                   || memcmp(back, text->data, len) == 0));
    }

    free(back);
    free(json.data);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    llm_str_t  text;

    text = copy(data, size);

    check_text(&text);
    check_plain(&text);
    check_string(&text);
    check_garbage(&text);
    check_escape(&text);

    free(text.data);

    return 0;
}
