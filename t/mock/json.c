
/*
 * Push scanner for request bodies: checks JSON's grammar (not UTF-8) byte by
 * byte, at any split, and notes the few members the mock acts on.  Written
 * apart from the module's own scanner on purpose: the two check each other.
 */

#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "mock.h"


#define MOCK_JSON_DEPTH  512


enum {
    sw_value = 0,
    sw_value_or_end,
    sw_key,
    sw_key_or_end,
    sw_colon,
    sw_after,
    sw_string,
    sw_literal,
    sw_done
};

enum {
    key_other = 0,
    key_model,
    key_stream,
    key_stream_options,
    key_include_usage,
    key_include_obfuscation,
    key_messages,
    key_input,
    key_prompt,
    key_tools,
    key_role,
    key_type,
    key_name,
    key_function,
    key_content,
    key_text,
    key_max_tokens,
    key_dimensions,
    key_encoding_format
};

typedef struct {
    const char  *name;
    u_char       len;
    u_char       id;
} mock_json_key_t;

#define mock_key(s, id)  { s, sizeof(s) - 1, id }

static const mock_json_key_t  mock_json_keys[] = {
    mock_key("role", key_role),
    mock_key("content", key_content),
    mock_key("text", key_text),
    mock_key("type", key_type),
    mock_key("name", key_name),
    mock_key("model", key_model),
    mock_key("stream", key_stream),
    mock_key("stream_options", key_stream_options),
    mock_key("include_usage", key_include_usage),
    mock_key("include_obfuscation", key_include_obfuscation),
    mock_key("messages", key_messages),
    mock_key("input", key_input),
    mock_key("prompt", key_prompt),
    mock_key("tools", key_tools),
    mock_key("function", key_function),
    mock_key("max_tokens", key_max_tokens),
    mock_key("max_completion_tokens", key_max_tokens),
    mock_key("max_output_tokens", key_max_tokens),
    mock_key("dimensions", key_dimensions),
    mock_key("encoding_format", key_encoding_format),
    { NULL, 0, 0 }
};


static u_char
mock_json_key(const char *p, size_t n)
{
    const mock_json_key_t  *k;

    for (k = mock_json_keys; k->name; k++) {
        if (k->len == n && memcmp(k->name, p, n) == 0) {
            return k->id;
        }
    }

    return key_other;
}


static int
mock_json_in_object(mock_json_t *j)
{
    return j->stack[(j->depth - 1) / 8] >> ((j->depth - 1) % 8) & 1;
}


/* A value inside "messages" begins: of the last one the text is kept. */

static void
mock_json_tail(mock_json_t *j, u_char ch)
{
    if (j->depth == 2) {
        j->tail.len = 0;
        j->tail_assistant = 0;
    }

    j->in_tail = ch == '"'
                 && ((j->depth == 3 && j->key[3] == key_content)
                     || (j->depth == 5 && j->key[3] == key_content
                         && j->key[5] == key_text));
}


/* Called when a value begins: '{', '[', '"' or the start of a literal. */

static void
mock_json_begin(mock_json_t *j, u_char ch)
{
    if (j->depth == 1) {
        switch (j->key[1]) {

        case key_messages:
            j->has_messages = 1;
            break;

        case key_input:
            j->has_input = 1;
            j->inputs = (ch == '[') ? 0 : 1;
            break;

        case key_prompt:
            j->has_prompt = 1;
            break;

        case key_stream_options:
            j->has_stream_options = 1;
            break;

        case key_model:
            j->model_len = 0;
            j->has_model = (ch == '"');
            j->capture = (ch == '"');
            break;
        }
    }

    if (j->depth == 2 && j->key[1] == key_input && !mock_json_in_object(j)) {

        /* an array of token numbers is one input */

        if (ch == '"' || ch == '[' || ch == '{') {
            j->inputs++;

        } else if (j->inputs == 0) {
            j->inputs = 1;
        }
    }

    if (j->depth == 2 && j->key[1] == key_tools && !mock_json_in_object(j)) {
        j->tools++;
    }

    if (j->want_tail && j->key[1] == key_messages) {
        mock_json_tail(j, ch);
    }
}


static void
mock_json_tool_name(mock_json_t *j)
{
    uint32_t  i;

    for (i = 0; i < 2; i++) {
        if (j->tool_name_len[i] == 0 && j->text_len < sizeof(j->text)) {
            memcpy(j->tool_name[i], j->text, j->text_len);
            j->tool_name_len[i] = j->text_len;
            return;
        }
    }
}


static int
mock_json_text(mock_json_t *j, const char *s)
{
    return j->text_len == strlen(s) && memcmp(j->text, s, j->text_len) == 0;
}


static int
mock_json_text_ends(mock_json_t *j, const char *s)
{
    size_t  n;

    n = strlen(s);

    return j->text_len >= n && j->text_len < sizeof(j->text)
           && memcmp(j->text + j->text_len - n, s, n) == 0;
}


static void
mock_json_string(mock_json_t *j)
{
    u_char  *key;

    key = j->key;

    switch (j->depth) {

    case 1:
        if (key[1] == key_encoding_format) {
            j->base64 = mock_json_text(j, "base64");
        }

        break;

    case 3:
        if (key[1] == key_messages && key[3] == key_role
            && mock_json_text(j, "tool"))
        {
            j->tool_results++;
        }

        if (key[1] == key_messages && key[3] == key_role) {
            j->tail_assistant = mock_json_text(j, "assistant");
        }

        if (key[1] == key_input && key[3] == key_type
            && mock_json_text_ends(j, "call_output"))
        {
            j->tool_results++;
        }

        if (key[1] == key_tools && key[3] == key_name) {
            mock_json_tool_name(j);
        }

        break;

    case 4:
        if (key[1] == key_tools && key[3] == key_function
            && key[4] == key_name)
        {
            mock_json_tool_name(j);
        }

        break;

    case 5:
        if (key[1] == key_messages && key[3] == key_content
            && key[5] == key_type && mock_json_text(j, "tool_result"))
        {
            j->tool_results++;
        }

        break;
    }
}


static int
mock_json_number(const char *p, size_t n)
{
    const char  *end;

    end = p + n;

    if (p < end && *p == '-') {
        p++;
    }

    if (p == end || *p < '0' || *p > '9') {
        return 0;
    }

    if (*p++ != '0') {
        while (p < end && *p >= '0' && *p <= '9') { p++; }
    }

    if (p < end && *p == '.') {
        p++;

        if (p == end || *p < '0' || *p > '9') {
            return 0;
        }

        while (p < end && *p >= '0' && *p <= '9') { p++; }
    }

    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;

        if (p < end && (*p == '-' || *p == '+')) {
            p++;
        }

        if (p == end || *p < '0' || *p > '9') {
            return 0;
        }

        while (p < end && *p >= '0' && *p <= '9') { p++; }
    }

    return p == end;
}


static void
mock_json_literal(mock_json_t *j)
{
    int      yes;
    int64_t  n;

    yes = mock_json_text(j, "true");
    n = -1;

    if (!yes && !mock_json_text(j, "false") && !mock_json_text(j, "null")) {

        if (j->text_len == sizeof(j->text)) {
            return;
        }

        if (!mock_json_number(j->text, j->text_len)) {
            j->bad = 1;
            return;
        }

        j->text[j->text_len] = '\0';
        n = strtoll(j->text, NULL, 10);
    }

    if (j->depth == 1) {
        switch (j->key[1]) {

        case key_stream:
            j->stream = yes;
            break;

        case key_max_tokens:
            j->max_tokens = n;
            break;

        case key_dimensions:
            j->dimensions = n;
            break;

        case key_stream_options:
            if (mock_json_text(j, "null")) {
                j->has_stream_options = 0;
            }

            break;
        }
    }

    if (j->depth == 2 && j->key[1] == key_stream_options) {
        switch (j->key[2]) {

        case key_include_usage:
            j->include_usage = yes;
            break;

        case key_include_obfuscation:
            j->no_obfuscation = !yes;
            break;
        }
    }
}


static void
mock_json_open(mock_json_t *j, u_char ch)
{
    u_char  bit;

    if (j->depth == MOCK_JSON_DEPTH) {
        j->bad = 1;
        return;
    }

    bit = (u_char) (1 << (j->depth % 8));

    if (ch == '{') {
        j->stack[j->depth / 8] |= bit;
        j->state = sw_key_or_end;

    } else {
        j->stack[j->depth / 8] &= (u_char) ~bit;
        j->state = sw_value_or_end;
    }

    if (j->depth == 0) {
        j->object = (ch == '{');
    }

    j->depth++;

    if (j->depth < sizeof(j->key)) {
        j->key[j->depth] = key_other;
    }
}


static void
mock_json_close(mock_json_t *j, u_char ch)
{
    if (j->depth == 0 || mock_json_in_object(j) != (ch == '}')) {
        j->bad = 1;
        return;
    }

    j->depth--;
    j->state = j->depth ? sw_after : sw_done;
}


static void
mock_json_value(mock_json_t *j, u_char ch)
{
    mock_json_begin(j, ch);

    switch (ch) {

    case '{':
    case '[':
        mock_json_open(j, ch);
        return;

    case '"':
        j->state = sw_string;
        j->is_key = 0;
        j->text_len = 0;
        return;

    default:
        j->state = sw_literal;
        j->text_len = 1;
        j->text[0] = (char) ch;
    }
}


static void
mock_json_after(mock_json_t *j, u_char ch)
{
    if (ch != ',') {
        mock_json_close(j, ch);
        return;
    }

    j->state = mock_json_in_object(j) ? sw_key : sw_value;
}


static void
mock_json_save(mock_json_t *j, const u_char *p, size_t n, int decoded)
{
    size_t  room;
    char   *old;

    room = sizeof(j->text) - j->text_len;

    if (decoded && room) {
        memcpy(j->text + j->text_len, p, n < room ? n : room);
        j->text_len += (u_char) (n < room ? n : room);
    }

    if (!j->capture || decoded == 2) {
        return;
    }

    if (j->model == NULL) {
        j->model = j->model_buf;
        j->model_cap = sizeof(j->model_buf);
    }

    if (n > j->model_cap - j->model_len) {
        if (j->model_len + n > 65536) {
            return;
        }

        old = j->model;
        j->model_cap = 2 * (j->model_len + n);
        j->model = malloc(j->model_cap);

        if (j->model == NULL) {
            exit(1);
        }

        memcpy(j->model, old, j->model_len);

        if (old != j->model_buf) {
            free(old);
        }
    }

    memcpy(j->model + j->model_len, p, n);
    j->model_len += n;
}


static void
mock_json_escape(mock_json_t *j, u_char ch)
{
    u_char  c;

    mock_json_save(j, &ch, 1, 0);

    if (j->escape == 1) {
        switch (ch) {

        case 'u':
            j->escape = 2;
            j->unit = 0;
            return;

        case 'n':
            c = '\n';
            break;

        case 't':
            c = '\t';
            break;

        case 'r':
            c = '\r';
            break;

        case 'b':
            c = '\b';
            break;

        case 'f':
            c = '\f';
            break;

        case '"':
        case '\\':
        case '/':
            c = ch;
            break;

        default:
            j->bad = 1;
            return;
        }

        j->escape = 0;
        mock_json_save(j, &c, 1, 2);

        if (j->in_tail) {
            mock_prefill_add(j, &c, 1);
        }

        return;
    }

    c = (u_char) (ch | 0x20);

    if (ch >= '0' && ch <= '9') {
        c = (u_char) (ch - '0');

    } else if (c >= 'a' && c <= 'f') {
        c = (u_char) (c - 'a' + 10);

    } else {
        j->bad = 1;
        return;
    }

    j->unit = (uint16_t) (j->unit << 4 | c);

    if (j->escape++ == 5) {
        j->escape = 0;
        c = j->unit < 0x80 ? (u_char) j->unit : '?';
        mock_json_save(j, &c, 1, 2);

        if (j->in_tail) {
            mock_prefill_unit(j);
        }
    }
}


static const u_char *
mock_json_skip(const u_char *p, const u_char *end)
{
#ifdef __SSE2__
    int      mask;
    __m128i  v, hit;

    while (end - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) p);
        hit = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                           _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
        hit = _mm_or_si128(hit,
                           _mm_cmpeq_epi8(_mm_min_epu8(v,
                                                       _mm_set1_epi8(0x1f)),
                                          v));
        mask = _mm_movemask_epi8(hit);

        if (mask) {
            return p + __builtin_ctz((unsigned) mask);
        }

        p += 16;
    }
#endif

    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20) { p++; }

    return p;
}


static const u_char *
mock_json_in_string(mock_json_t *j, const u_char *p, const u_char *end)
{
    const u_char  *q;

    if (j->escape) {
        mock_json_escape(j, *p);
        return p + 1;
    }

    q = mock_json_skip(p, end);
    mock_json_save(j, p, (size_t) (q - p), 1);

    if (j->in_tail) {
        mock_prefill_add(j, p, (size_t) (q - p));
    }

    if (q == end) {
        return q;
    }

    switch (*q) {

    case '\\':
        mock_json_save(j, q, 1, 0);
        j->escape = 1;
        break;

    case '"':
        j->capture = 0;
        j->in_tail = 0;

        if (j->is_key) {
            if (j->depth < sizeof(j->key)) {
                j->key[j->depth] = mock_json_key(j->text, j->text_len);
            }

            j->state = sw_colon;
            break;
        }

        mock_json_string(j);
        j->state = j->depth ? sw_after : sw_done;
        break;

    default:
        j->bad = 1;
    }

    return q + 1;
}


static int
mock_json_is_literal(u_char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z')
           || ch == '-' || ch == '+' || ch == '.' || ch == 'E';
}


static void
mock_json_char(mock_json_t *j, u_char ch)
{
    switch (j->state) {

    case sw_value_or_end:
        if (ch == ']') {
            mock_json_close(j, ch);
            return;
        }

        /* fall through */

    case sw_value:
        if (ch == '{' || ch == '[' || ch == '"' || mock_json_is_literal(ch)) {
            mock_json_value(j, ch);
            return;
        }

        break;

    case sw_key_or_end:
        if (ch == '}') {
            mock_json_close(j, ch);
            return;
        }

        /* fall through */

    case sw_key:
        if (ch == '"') {
            j->state = sw_string;
            j->is_key = 1;
            j->text_len = 0;
            return;
        }

        break;

    case sw_colon:
        if (ch == ':') {
            j->state = sw_value;
            return;
        }

        break;

    case sw_after:
        mock_json_after(j, ch);
        return;
    }

    j->bad = 1;
}


void
mock_json_feed(mock_json_t *j, const u_char *p, size_t n)
{
    u_char         ch;
    const u_char  *end;

    end = p + n;

    while (p < end && !j->bad) {

        if (j->state == sw_string) {
            p = mock_json_in_string(j, p, end);
            continue;
        }

        ch = *p++;

        if (j->state == sw_literal) {
            if (mock_json_is_literal(ch)) {
                mock_json_save(j, &ch, 1, 1);
                continue;
            }

            mock_json_literal(j);
            j->state = j->depth ? sw_after : sw_done;
        }

        if (ch == ' ' || ch == '\n' || ch == '\r' || ch == '\t') {
            continue;
        }

        j->started = 1;

        if (!j->bad) {
            mock_json_char(j, ch);
        }
    }
}


/* Returns 1 if what was fed is one whole JSON value. */

int
mock_json_complete(mock_json_t *j)
{
    if (j->state == sw_literal && j->depth == 0 && !j->bad) {
        mock_json_literal(j);
        j->state = sw_done;
    }

    return !j->bad && j->state == sw_done;
}
