
/*
 * OpenAI: embeddings.  The vectors come from a pool of numbers of fixed width,
 * so that the length of any answer is known before it is made, and 100 MB are
 * made as fast as the socket takes them.
 */

#include "mock.h"


#define MOCK_FLOATS      4096     /* in the pool, each of MOCK_FLOAT_LEN */
#define MOCK_FLOAT_LEN   10       /* "-0.0123456" without the comma */
#define MOCK_B64_GROUPS  4096     /* in the pool, of 3 floats, 16 characters */

static u_char  mock_floats[MOCK_FLOATS * (MOCK_FLOAT_LEN + 1)];
static u_char  mock_b64[MOCK_B64_GROUPS * 16];


static void
mock_b64_encode(u_char *dst, const u_char *p, size_t n)
{
    size_t    i;
    uint32_t  v;

    static const char  table[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (i = 0; i < n; i += 3, dst += 4) {
        v = (uint32_t) p[i] << 16;
        v |= i + 1 < n ? (uint32_t) p[i + 1] << 8 : 0;
        v |= i + 2 < n ? p[i + 2] : 0;

        dst[0] = (u_char) table[v >> 18];
        dst[1] = (u_char) table[v >> 12 & 63];
        dst[2] = (u_char) (i + 1 < n ? table[v >> 6 & 63] : '=');
        dst[3] = (u_char) (i + 2 < n ? table[v & 63] : '=');
    }
}


static float
mock_float(uint64_t k)
{
    return (float) ((double) (mock_random(&k) % 1000000) / 1e7 - 0.05);
}


static void
mock_embeddings_pool(void)
{
    float     f[3];
    int       j;
    size_t    i;
    u_char   *p;
    uint64_t  rnd, n;

    for (i = 0, p = mock_floats; i < MOCK_FLOATS; i++) {
        rnd = i;
        n = mock_random(&rnd) % 900000 + 100000;

        memcpy(p, i & 1 ? "-0.0000000" : "0.00000000", MOCK_FLOAT_LEN);

        for (j = MOCK_FLOAT_LEN - 1; n; j--, n /= 10) {
            p[j] = (u_char) ('0' + n % 10);
        }

        p[MOCK_FLOAT_LEN] = ',';
        p += MOCK_FLOAT_LEN + 1;
    }

    for (i = 0; i < MOCK_B64_GROUPS; i++) {
        f[0] = mock_float(3 * i);
        f[1] = mock_float(3 * i + 1);
        f[2] = mock_float(3 * i + 2);
        mock_b64_encode(mock_b64 + 16 * i, (u_char *) f, sizeof(f));
    }
}


/* {"object":"embedding","index":N,"embedding":...} */

#define MOCK_ITEM_HEAD  "{\"object\":\"embedding\",\"index\":"
#define MOCK_ITEM_MID   ",\"embedding\":"


static uint64_t
mock_vector_len(mock_req_t *r)
{
    if (r->json.base64) {
        return 2 + ((uint64_t) r->dim * 4 + 2) / 3 * 4;
    }

    return r->dim ? 1 + (uint64_t) r->dim * (MOCK_FLOAT_LEN + 1) : 2;
}


static uint64_t
mock_items_len(mock_req_t *r)
{
    uint64_t  len, from;

    len = r->count * (sizeof(MOCK_ITEM_HEAD) - 1 + sizeof(MOCK_ITEM_MID) - 1
                      + mock_vector_len(r) + 1 + 1);
    len -= r->count ? 1 : 0;        /* no comma after the last */
    len += r->count;                /* one digit each */

    for (from = 10; from < r->count; from *= 10) {
        len += r->count - from;     /* and one more from 10, from 100 ... */
    }

    return len;
}


static void
mock_embeddings_plan(mock_req_t *r)
{
    uint64_t  item;

    if (mock_floats[0] == 0) {
        mock_embeddings_pool();
    }

    r->dim = r->ctl.dim >= 0 ? (uint32_t) r->ctl.dim
             : r->json.dimensions > 0 ? (uint32_t) r->json.dimensions : 1536;
    r->count = r->ctl.count >= 0 ? (uint64_t) r->ctl.count : r->json.inputs;

    if (r->ctl.total > 0) {
        r->count = 1;
        item = mock_items_len(r);
        r->count = ((uint64_t) r->ctl.total + item - 1) / item;
    }

    r->fill_len = mock_items_len(r);
    r->gen.i = 0;         /* the item */
    r->gen.sent = 0;      /* numbers of its vector written */
    r->gen.waited = 0;    /* its beginning is written */
}


static void
mock_embeddings_prefix(mock_req_t *r, mock_buf_t *b)
{
    (void) r;

    mock_lit(b, "{\"object\":\"list\",\"data\":[");
}


static void
mock_vector_floats(mock_req_t *r, mock_buf_t *b, size_t n)
{
    size_t       from, len;
    mock_gen_t  *g;

    g = &r->gen;
    n = n / (MOCK_FLOAT_LEN + 1) + 1;
    n = n < r->dim - g->sent ? n : r->dim - g->sent;

    while (n) {
        from = (r->derived % MOCK_FLOATS + (uint64_t) g->i * 7919 + g->sent)
               % MOCK_FLOATS;
        len = MOCK_FLOATS - from < n ? MOCK_FLOATS - from : n;

        mock_buf_add(b, mock_floats + from * (MOCK_FLOAT_LEN + 1),
                     len * (MOCK_FLOAT_LEN + 1));
        g->sent += (uint32_t) len;
        n -= len;
    }
}


static void
mock_vector_b64(mock_req_t *r, mock_buf_t *b, size_t n)
{
    float        f[2];
    u_char       tail[12];
    size_t       from, len, rest;
    mock_gen_t  *g;

    g = &r->gen;
    n = n / 16 + 1;
    n = n < (r->dim - g->sent) / 3 ? n : (r->dim - g->sent) / 3;

    while (n) {
        from = (r->derived % MOCK_B64_GROUPS + (uint64_t) g->i * 7919
                + g->sent / 3)
               % MOCK_B64_GROUPS;
        len = MOCK_B64_GROUPS - from < n ? MOCK_B64_GROUPS - from : n;

        mock_buf_add(b, mock_b64 + from * 16, len * 16);
        g->sent += (uint32_t) len * 3;
        n -= len;
    }

    rest = r->dim - g->sent;

    if (rest == 1 || rest == 2) {
        f[0] = mock_float(g->i);
        f[1] = mock_float(g->i + 1);
        mock_b64_encode(tail, (u_char *) f, rest * 4);
        mock_buf_add(b, tail, (rest * 4 + 2) / 3 * 4);
        g->sent += (uint32_t) rest;
    }
}


static void
mock_embeddings_fill(mock_req_t *r, mock_buf_t *b, size_t n)
{
    size_t       before;
    mock_gen_t  *g;

    g = &r->gen;
    before = b->len;

    if (!g->waited) {
        g->waited = 1;
        mock_lit(b, MOCK_ITEM_HEAD);
        mock_buf_num(b, g->i);
        mock_lit(b, MOCK_ITEM_MID);
        mock_str(b, r->json.base64 ? "\"" : "[");
    }

    if (r->json.base64) {
        mock_vector_b64(r, b, n);

    } else {
        mock_vector_floats(r, b, n);
    }

    if (g->sent == r->dim) {

        if (r->json.base64) {
            mock_lit(b, "\"}");

        } else {
            b->len -= r->dim ? 1 : 0;       /* the last comma */
            mock_lit(b, "]}");
        }

        g->i++;
        g->sent = 0;
        g->waited = 0;

        if (g->i < r->count) {
            mock_lit(b, ",");
        }
    }

    r->fill_off += b->len - before;
}


static void
mock_embeddings_suffix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "],\"model\":\"");
    mock_model(r, b);
    mock_lit(b, "\"");

    if (r->ctl.usage != MOCK_USAGE_OFF) {
        mock_lit(b, ",\"usage\":{\"prompt_tokens\":");
        mock_buf_num(b, mock_tokens_in(r));
        mock_lit(b, ",\"total_tokens\":");
        mock_buf_num(b, mock_tokens_in(r));
        mock_lit(b, "}");
    }

    mock_lit(b, "}\n");
}


const mock_api_t  mock_embeddings = {
    .name = "embeddings",
    .json = 1,
    .plan = mock_embeddings_plan,
    .prefix = mock_embeddings_prefix,
    .fill = mock_embeddings_fill,
    .suffix = mock_embeddings_suffix
};
