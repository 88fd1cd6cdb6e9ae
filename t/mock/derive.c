
/*
 * derive=1: the answer is a function of the question.  Text, ids, time, token
 * counts and vectors follow from a hash of the endpoint and the JSON body, in
 * which neither the order of members nor whitespace counts, nor the members
 * that tell how or for whom to answer.  So a cache that mixes up two questions
 * is seen by the answer alone.
 */

#include "mock.h"


#define MOCK_DERIVE_BODY  (4 << 20)


typedef struct {
    const u_char  *pos;
    const u_char  *end;
} mock_derive_t;


static uint64_t mock_derive_value(mock_derive_t *d);


static const char  *mock_derive_skipped[] = {
    "stream", "stream_options", "user", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention", "metadata", NULL
};


static uint64_t
mock_derive_mix(uint64_t a, uint64_t b)
{
    a = (a ^ b) * 0x9e3779b97f4a7c15;
    a ^= a >> 29;

    return mock_random(&a);
}


void
mock_derive_body(mock_req_t *r, const void *p, size_t n)
{
    if (n > MOCK_DERIVE_BODY - r->question.len) {
        n = MOCK_DERIVE_BODY - r->question.len;
    }

    mock_buf_add(&r->question, p, n);
}


/* the next byte that is not whitespace; the text is known to be valid */

static u_char
mock_derive_next(mock_derive_t *d)
{
    while (d->pos < d->end
           && (*d->pos == ' ' || *d->pos == '\t' || *d->pos == '\r'
               || *d->pos == '\n'))
    {
        d->pos++;
    }

    return d->pos < d->end ? *d->pos : '\0';
}


/* An escape is hashed as what it stands for, \uXXXX as its number. */

static uint64_t
mock_derive_escape(mock_derive_t *d, uint64_t hash)
{
    int       i;
    u_char    ch;
    uint64_t  unit;

    ch = *d->pos++;

    switch (ch) {

    case 'n':
        return mock_derive_mix(hash, '\n');

    case 't':
        return mock_derive_mix(hash, '\t');

    case 'r':
        return mock_derive_mix(hash, '\r');

    case 'b':
        return mock_derive_mix(hash, '\b');

    case 'f':
        return mock_derive_mix(hash, '\f');

    case 'u':
        break;

    default:
        return mock_derive_mix(hash, ch);
    }

    for (unit = 0, i = 0; i < 4 && d->pos < d->end; i++) {
        ch = *d->pos++;
        unit = unit << 4 | (uint64_t) ((ch & 15) + (ch > '9' ? 9 : 0));
    }

    return mock_derive_mix(hash, unit);
}


/* Code units, as UTF-16 counts them: "\u00e9" is what the two bytes are. */

static uint64_t
mock_derive_string(mock_derive_t *d)
{
    int       more;
    u_char    ch;
    uint64_t  hash, unit;

    hash = '"';
    d->pos++;

    while (d->pos < d->end && *d->pos != '"') {
        ch = *d->pos++;

        if (ch == '\\' && d->pos < d->end) {
            hash = mock_derive_escape(d, hash);
            continue;
        }

        more = ch < 0xc0 ? 0 : ch < 0xe0 ? 1 : ch < 0xf0 ? 2 : 3;
        unit = more ? ch & (0x3fu >> more) : ch;

        while (more-- && d->pos < d->end) {
            unit = unit << 6 | (*d->pos++ & 0x3f);
        }

        if (unit > 0xffff) {
            unit -= 0x10000;
            hash = mock_derive_mix(hash, 0xd800 + (unit >> 10));
            unit = 0xdc00 + (unit & 0x3ff);
        }

        hash = mock_derive_mix(hash, unit);
    }

    d->pos++;

    return hash;
}


static int
mock_derive_skip(const u_char *p, size_t n, int all)
{
    int  i;

    /* an answer of /responses carries the others, so they count there */

    for (i = 0; mock_derive_skipped[i] && (all || i < 2); i++) {
        if (strlen(mock_derive_skipped[i]) == n
            && memcmp(mock_derive_skipped[i], p, n) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* A sum over the members, so that their order does not count. */

static uint64_t
mock_derive_object(mock_derive_t *d, int top, int all)
{
    int            skip;
    uint64_t       sum, name, value;
    const u_char  *p;

    sum = '{';
    d->pos++;

    while (mock_derive_next(d) == '"') {
        p = d->pos + 1;
        name = mock_derive_string(d);

        skip = top && mock_derive_skip(p, (size_t) (d->pos - 1 - p), all);

        (void) mock_derive_next(d);
        d->pos++;
        value = mock_derive_value(d);

        if (!skip) {
            sum += mock_derive_mix(name, value);
        }

        if (mock_derive_next(d) == ',') {
            d->pos++;
        }
    }

    d->pos++;

    return sum;
}


static uint64_t
mock_derive_array(mock_derive_t *d)
{
    uint64_t  hash;

    hash = '[';
    d->pos++;

    while (d->pos < d->end && mock_derive_next(d) != ']') {
        hash = mock_derive_mix(hash, mock_derive_value(d));

        if (mock_derive_next(d) == ',') {
            d->pos++;
        }
    }

    d->pos++;

    return hash;
}


static uint64_t
mock_derive_value(mock_derive_t *d)
{
    uint64_t  hash;

    switch (mock_derive_next(d)) {

    case '{':
        return mock_derive_object(d, 0, 0);

    case '[':
        return mock_derive_array(d);

    case '"':
        return mock_derive_string(d);
    }

    /* numbers and words as they are written */

    for (hash = '0'; d->pos < d->end; d->pos++) {
        if (memchr(",]} \t\r\n", *d->pos, 7)) {
            break;
        }

        hash = mock_derive_mix(hash, *d->pos);
    }

    return hash;
}


/* Words with what JSON must escape and UTF-8 of all lengths in them. */

static void
mock_derive_text(mock_req_t *r, uint64_t rnd)
{
    uint32_t     i, n, size;
    mock_buf_t  *b;
    const char  *word;

    static const char  *words[] = {
        "the ", "answer ", "is ", "forty-two ", "and ", "caf\xc3\xa9 ",
        "\xe6\xbc\xa2\xe5\xad\x97 ", "\xf0\x9f\x99\x82 ", "\"quoted\" ",
        "back\\slash ", "line\n", "tab\t", "{\"a\": 1} ", "data: ",
        "[DONE] ", "it "
    };

    b = &r->question;
    b->len = 0;

    n = 5 + (uint32_t) (mock_random(&rnd) % 120);
    size = 8 + (uint32_t) (mock_random(&rnd) % 60);

    if (mock_random(&rnd) % 16 == 0) {
        n *= 40;
        size *= 20;
    }

    for (i = 0; i < n; i++) {
        word = words[mock_random(&rnd) % 16];
        mock_str(b, word);
        mock_buf_num(b, mock_random(&rnd) % 1000);
        mock_lit(b, " ");
    }

    mock_lit(b, "\0");

    r->ctl.text = (const char *) b->data;

    if (r->ctl.size < 0) {
        r->ctl.size = size;
    }
}


/* Sets what the request did not choose itself: text, seed, prompt_tokens. */

void
mock_derive_plan(mock_req_t *r)
{
    uint64_t       hash;
    const char    *p;
    mock_derive_t  d;

    if (r->ctl.derive <= 0 || !r->api->json || !mock_json_complete(&r->json)
        || !r->json.object || r->question.len != r->body_len)
    {
        return;
    }

    d.pos = r->question.data;
    d.end = d.pos + r->question.len;

    (void) mock_derive_next(&d);
    hash = mock_derive_object(&d, 1, r->api != &mock_responses);

    for (p = r->api->name; *p; p++) {
        hash = mock_derive_mix(hash, (u_char) *p);
    }

    r->derived = hash;

    if (r->ctl.seed < 0) {
        r->ctl.seed = (int64_t) (hash >> 16);
    }

    if (r->ctl.prompt_tokens < 0) {
        r->ctl.prompt_tokens = (int64_t) (1 + hash % 5000);
    }

    if (r->ctl.text == NULL) {
        mock_derive_text(r, hash);
    }
}
