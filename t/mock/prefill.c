
/*
 * prefill=: a conversation that ends with the assistant's own words is gone
 * on with, or refused, as the models of Anthropic do.  json.c keeps the text
 * of the last message.
 */

#include "mock.h"


#define MOCK_TAIL_MAX  (1 << 20)


/* bytes of the last message's text, unescaped */

void
mock_prefill_add(mock_json_t *j, const void *p, size_t n)
{
    if (n > MOCK_TAIL_MAX - j->tail.len) {
        n = MOCK_TAIL_MAX - j->tail.len;
    }

    mock_buf_add(&j->tail, p, n);
}


/* \uXXXX in it, in UTF-8; the first half of a pair waits for the other */

void
mock_prefill_unit(mock_json_t *j)
{
    int       n;
    u_char    c[4];
    uint32_t  u;

    u = j->unit;

    if ((u & 0xfc00) == 0xd800) {
        j->high = j->unit;
        return;
    }

    if ((u & 0xfc00) == 0xdc00) {
        u = 0x10000 + ((j->high & 0x3ffu) << 10) + (u & 0x3ff);
    }

    if (u < 0x80) {
        c[0] = (u_char) u;
        mock_prefill_add(j, c, 1);
        return;
    }

    n = u < 0x800 ? 2 : u < 0x10000 ? 3 : 4;
    c[0] = (u_char) ((0xf00 >> n & 0xff) | u >> 6 * (n - 1));
    c[1] = (u_char) (0x80 | (u >> 6 * (n - 2) & 0x3f));
    c[2] = (u_char) (0x80 | (n > 2 ? u >> 6 * (n - 3) & 0x3f : 0));
    c[3] = (u_char) (0x80 | (u & 0x3f));

    mock_prefill_add(j, c, (size_t) n);
}


/* Unicode's whitespace */

static int
mock_prefill_ends_blank(const mock_buf_t *b)
{
    size_t               len;
    const char         **s;
    static const char   *blank[] = {
        " ", "\t", "\n", "\v", "\f", "\r", "\x1c", "\x1d", "\x1e", "\x1f",
        "\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80",
        "\xe2\x80\x80", "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83",
        "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87",
        "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
        "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80", NULL
    };

    for (s = blank; *s; s++) {
        len = strlen(*s);

        if (b->len >= len && memcmp(b->data + b->len - len, *s, len) == 0) {
            return 1;
        }
    }

    return 0;
}


/* The complaint of a real server about the last message, or NULL. */

const char *
mock_prefill_refused(mock_req_t *r)
{
    if (r->ctl.prefill <= 0 || !r->json.tail_assistant) {
        return NULL;
    }

    if (r->ctl.prefill == MOCK_PREFILL_400) {
        return "This model does not support assistant message prefill. The "
               "conversation must end with a user message.";
    }

    if (mock_prefill_ends_blank(&r->json.tail)) {
        return "messages: final assistant content cannot end with trailing "
               "whitespace";
    }

    return NULL;
}


/* Bytes of the text that were said: the last message ends with them. */

static size_t
mock_prefill_said(mock_req_t *r, const u_char *text, size_t len)
{
    size_t       n;
    mock_buf_t  *b;

    b = &r->json.tail;

    for (n = len < b->len ? len : b->len; n; n--) {
        if (memcmp(b->data + b->len - n, text, n) == 0) {
            break;
        }
    }

    return n;
}


/* The plan for the whole text becomes that for the rest of it. */

void
mock_prefill_plan(mock_req_t *r)
{
    size_t       len;
    mock_buf_t  *b;

    if (r->ctl.prefill != MOCK_PREFILL_ON || !r->json.tail_assistant
        || r->tools || r->limited)
    {
        return;
    }

    if (r->ctl.text) {
        len = strlen(r->ctl.text);
        r->ctl.text += mock_prefill_said(r, (u_char *) r->ctl.text, len);
        len = strlen(r->ctl.text);

        if (r->ctl.events > 0) {
            r->size = (len + (size_t) r->ctl.events - 1)
                      / (size_t) r->ctl.events;
        }

        r->size = r->size ? r->size : 1;

    } else {
        b = &mock.ev;
        b->len = 0;
        len = r->total;
        mock_buf_pool(b, mock_text_base(r), len);
        r->json.tail_said = mock_prefill_said(r, b->data, len);
        len -= r->json.tail_said;

        r->total = len;
        r->ctl.big_event = 0;
    }

    r->events = r->size ? (uint32_t) ((len + r->size - 1) / r->size) : 0;

    if (len == 0) {
        r->blocks = 0;
    }
}
