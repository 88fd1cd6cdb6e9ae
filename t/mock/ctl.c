
/*
 * Controls: what a request asks the mock to do.  The table below is the whole
 * list; README.md says what each means.  An unknown name or value is answered
 * with 400, so that a misspelt test does not pass by accident.
 */

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "mock.h"


typedef enum {
    type_int = 0,
    type_ms,
    type_size,
    type_flag,
    type_enum,
    type_str
} mock_ctl_type_e;

typedef struct {
    const char       *name;
    mock_ctl_type_e   type;
    size_t            offset;
    const char       *values;         /* of an enum, in order of its numbers */
} mock_ctl_def_t;

#define mock_ctl(name, type)                                                  \
    { #name, type_##type, offsetof(mock_ctl_t, name), NULL }

#define mock_ctl_enum(name, values)                                           \
    { #name, type_enum, offsetof(mock_ctl_t, name), values }

static const mock_ctl_def_t  mock_ctl_defs[] = {
    mock_ctl(delay, ms),
    mock_ctl(first, ms),
    mock_ctl(gap, ms),
    mock_ctl(heartbeat, ms),
    mock_ctl(events, int),
    mock_ctl(size, size),
    mock_ctl(total, size),
    mock_ctl(big_event, size),
    mock_ctl(thinking, int),
    mock_ctl(tools, int),
    mock_ctl(turns, int),
    mock_ctl(obfuscation, flag),
    mock_ctl(azure, flag),
    mock_ctl_enum(usage, "off last chunk"),
    mock_ctl(prompt_tokens, int),
    mock_ctl(cached, int),
    mock_ctl(dim, int),
    mock_ctl(count, int),
    mock_ctl(status, int),
    mock_ctl_enum(fault, "none reset close hang hang_head close_mid_head "
                         "bad_head error200 error_first error_event cut "
                         "clean_cut reset_mid stall malformed no_done "
                         "no_finish not_sse gzip no_stream_options short "
                         "long done_open half_close_idle close_after"),
    mock_ctl(at, int),
    mock_ctl(fails, int),
    mock_ctl(flap, int),
    mock_ctl_enum(plain, "length chunked close"),
    mock_ctl_enum(stream_framing, "length chunked close"),
    mock_ctl_enum(keepalive, "off on"),
    mock_ctl_enum(limits, "off on"),
    mock_ctl(chunk, size),
    mock_ctl_enum(eol, "lf crlf cr"),
    mock_ctl(bom, flag),
    mock_ctl(comments, flag),
    mock_ctl(multiline, flag),
    mock_ctl(no_last_newline, flag),
    mock_ctl(split, size),
    mock_ctl(split_head, flag),
    mock_ctl(rate, size),
    mock_ctl(read_rate, size),
    mock_ctl(ids, flag),
    mock_ctl(named, flag),
    mock_ctl(unknown, flag),
    mock_ctl(seed, int),
    mock_ctl(keep, flag),
    mock_ctl(early, flag),
    mock_ctl_enum(prefill, "off on 400"),
    mock_ctl(derive, flag),
    mock_ctl(text, str),
    mock_ctl(body, str),
    mock_ctl(code, str),
    mock_ctl(message, str),
    mock_ctl(finish, str),
    mock_ctl(retry_after, str),
    mock_ctl(retry_after_ms, str),
    mock_ctl(should_retry, str),
    mock_ctl(headers, str),
    mock_ctl(key, str),
    mock_ctl(tool, str),
    mock_ctl(args, str),
    mock_ctl(tool2, str),
    mock_ctl(args2, str),
    { NULL, type_int, 0, NULL }
};

/* Strings of /_mock/set are kept for good: a stream may still use them. */

typedef struct mock_kept_s  mock_kept_t;

struct mock_kept_s {
    mock_kept_t  *next;
    char         *text;
};

static mock_kept_t  *mock_kept;

static struct {
    uint64_t  hash;
    uint64_t  hits;
} mock_ctl_counters[1024];


void
mock_ctl_init(mock_ctl_t *ctl)
{
    /* the numbers come first; all bits set is -1 */

    memset(ctl, 0xff, offsetof(mock_ctl_t, text));
    memset((u_char *) ctl + offsetof(mock_ctl_t, text), 0,
           sizeof(mock_ctl_t) - offsetof(mock_ctl_t, text));
}


static void
mock_ctl_keep(char *text)
{
    mock_kept_t  *k;

    k = malloc(sizeof(mock_kept_t));
    if (k == NULL) {
        exit(1);
    }

    k->text = text;
    k->next = mock_kept;
    mock_kept = k;
}


static int
mock_ctl_parse_enum(const char *values, const char *v, int64_t *n)
{
    size_t       len;
    const char  *p;

    for (p = values, *n = 0; *p; (*n)++) {
        len = strcspn(p, " ");

        if (strlen(v) == len && strncasecmp(p, v, len) == 0) {
            return MOCK_OK;
        }

        p += len;
        p += strspn(p, " ");
    }

    return MOCK_ERROR;
}


static int
mock_ctl_parse(const mock_ctl_def_t *def, const char *v, int64_t *n)
{
    char    *end;
    double   d;

    if (def->type == type_enum) {
        return mock_ctl_parse_enum(def->values, v, n);
    }

    if (def->type == type_flag) {
        *n = !(strcmp(v, "0") == 0 || strcmp(v, "off") == 0
               || strcmp(v, "false") == 0 || *v == '\0');
        return MOCK_OK;
    }

    if (def->type == type_int) {
        *n = strtoll(v, &end, 10);
        return (end == v || *end) ? MOCK_ERROR : MOCK_OK;
    }

    d = strtod(v, &end);

    if (end == v || d < 0) {
        return MOCK_ERROR;
    }

    if (def->type == type_ms) {
        d *= (strcmp(end, "s") == 0) ? 1000000 : 1000;
        end += (strcmp(end, "s") == 0) ? 1 : (strcmp(end, "ms") == 0) ? 2 : 0;

    } else {
        switch (*end | 0x20) {

        case 'g':
            d *= 1024;
            /* fall through */

        case 'm':
            d *= 1024;
            /* fall through */

        case 'k':
            d *= 1024;
            end++;
        }
    }

    *n = (int64_t) d;

    return *end ? MOCK_ERROR : MOCK_OK;
}


/*
 * Sets one control; the name may be written with '-' for '_' and in any case.
 * Returns MOCK_ERROR for an unknown name or a bad value.
 */

int
mock_ctl_set(mock_ctl_t *ctl, mock_req_t *r, const char *name, size_t nlen,
    const char *value, size_t vlen, int level)
{
    char                   tmp[32], *v;
    size_t                 i;
    int64_t                n;
    const mock_ctl_def_t  *def;

    if (nlen >= sizeof(tmp)) {
        return MOCK_ERROR;
    }

    for (i = 0; i < nlen; i++) {
        tmp[i] = (char) (name[i] == '-' ? '_' : name[i] | 0x20);
        if (name[i] == '_' || (name[i] >= '0' && name[i] <= '9')) {
            tmp[i] = name[i];
        }
    }

    tmp[nlen] = '\0';

    for (def = mock_ctl_defs; def->name; def++) {
        if (def->name[0] == tmp[0] && strcmp(def->name, tmp) == 0) {
            break;
        }
    }

    if (def->name == NULL) {
        return MOCK_ERROR;
    }

    i = (size_t) (def - mock_ctl_defs);

    if (r && r->level[i] > level) {
        return MOCK_OK;
    }

    if (def->type == type_str) {
        v = strndup(value, vlen);

        if (r) {
            if (r->nstrs == sizeof(r->strs) / sizeof(r->strs[0])) {
                free(v);
                return MOCK_ERROR;
            }

            r->strs[r->nstrs++] = v;

        } else {
            mock_ctl_keep(v);
        }

        memcpy((u_char *) ctl + def->offset, &v, sizeof(v));

    } else {
        if (vlen >= sizeof(tmp)) {
            return MOCK_ERROR;
        }

        memcpy(tmp, value, vlen);
        tmp[vlen] = '\0';

        if (mock_ctl_parse(def, tmp, &n) != MOCK_OK) {
            return MOCK_ERROR;
        }

        memcpy((u_char *) ctl + def->offset, &n, sizeof(n));
    }

    if (r) {
        r->level[i] = (u_char) level;
    }

    return MOCK_OK;
}


static size_t
mock_ctl_unescape(char *dst, const char *p, size_t n)
{
    char    *d, hex[3];
    size_t   i;

    d = dst;

    for (i = 0; i < n; i++) {
        if (p[i] == '%' && i + 2 < n) {
            hex[0] = p[i + 1];
            hex[1] = p[i + 2];
            hex[2] = '\0';
            *d++ = (char) strtol(hex, NULL, 16);
            i += 2;

        } else {
            *d++ = (char) (p[i] == '+' ? ' ' : p[i]);
        }
    }

    return (size_t) (d - dst);
}


static int
mock_ctl_pair(mock_ctl_t *ctl, mock_req_t *r, const char *p, size_t n,
    int level)
{
    int          rc;
    char        *v;
    size_t       vlen;
    const char  *eq;

    eq = memchr(p, '=', n);
    if (eq == NULL) {
        return mock_ctl_set(ctl, r, p, n, "1", 1, level);
    }

    v = malloc(n + 1);
    if (v == NULL) {
        exit(1);
    }

    /* "%" first: a last "%41" needs i + 2 < n to hold */

    vlen = n - (size_t) (eq + 1 - p);
    memcpy(v, eq + 1, vlen);
    v[vlen] = '\0';
    vlen = mock_ctl_unescape(v, v, vlen + 1) - 1;

    rc = mock_ctl_set(ctl, r, p, (size_t) (eq - p), v, vlen, level);
    free(v);

    return rc;
}


/*
 * A list "name=value<sep>name=value" with values percent-encoded.  In a query
 * (sep '&') only arguments named mock_... are ours.
 */

void
mock_ctl_list(mock_req_t *r, const char *p, size_t n, char sep, int level)
{
    size_t       len, skip;
    const char  *end;

    for ( /* void */ ; n; p += len, n -= len) {

        end = memchr(p, sep, n);
        len = end ? (size_t) (end - p) : n;
        skip = 0;

        if (sep == '&') {
            skip = 5;
        }

        if (len > skip
            && (skip == 0 || memcmp(p, "mock_", 5) == 0)
            && mock_ctl_pair(&r->ctl, r, p + skip, len - skip, level)
               != MOCK_OK)
        {
            snprintf(r->bad_control, sizeof(r->bad_control), "%.*s",
                     (int) (len - skip), p + skip);
        }

        if (end) {
            len++;
        }
    }
}


/* "gpt-4o@delay=50;events=3" and "gpt-4o@mock:delay=50" */

void
mock_ctl_model(mock_req_t *r)
{
    size_t       n;
    const char  *p;

    if (r->json.model_len == 0) {
        return;
    }

    p = memchr(r->json.model, '@', r->json.model_len);
    if (p == NULL) {
        return;
    }

    p++;
    n = r->json.model_len - (size_t) (p - r->json.model);

    if (n > 5 && memcmp(p, "mock:", 5) == 0) {
        p += 5;
        n -= 5;
    }

    /* a date after '@', as at Vertex, is not ours */

    if (memchr(p, '=', n)) {
        mock_ctl_list(r, p, n, ';', MOCK_LEVEL_MODEL);
    }
}


/* /_mock/set?name=value&name=value: defaults of one port */

int
mock_ctl_set_listen(mock_listen_t *ls, const char *p, size_t n)
{
    size_t       len, skip;
    const char  *end;

    for ( /* void */ ; n; p += len, n -= len) {
        end = memchr(p, '&', n);
        len = end ? (size_t) (end - p) : n;
        skip = (len > 5 && memcmp(p, "mock_", 5) == 0) ? 5 : 0;

        if (len && mock_ctl_pair(&ls->ctl, NULL, p + skip, len - skip, 0)
                   != MOCK_OK)
        {
            return MOCK_ERROR;
        }

        if (end) {
            len++;
        }
    }

    return MOCK_OK;
}


void
mock_ctl_free(mock_req_t *r)
{
    while (r->nstrs) {
        free(r->strs[--r->nstrs]);
    }
}


/* How often a request with this key= came before (fails=, flap=). */

int
mock_ctl_hits(mock_req_t *r)
{
    size_t       i;
    uint64_t     hash;
    const char  *p;

    hash = 0xcbf29ce484222325;

    for (p = r->ctl.key ? r->ctl.key : ""; *p; p++) {
        hash = (hash ^ (u_char) *p) * 0x100000001b3;
    }

    for (i = hash % 1024; /* void */ ; i = (i + 1) % 1024) {
        if (mock_ctl_counters[i].hits == 0
            || mock_ctl_counters[i].hash == hash)
        {
            mock_ctl_counters[i].hash = hash;
            return (int) mock_ctl_counters[i].hits++;
        }

        if ((i + 1) % 1024 == hash % 1024) {
            return 0;
        }
    }
}


void
mock_ctl_reset_counters(void)
{
    memset(mock_ctl_counters, 0, sizeof(mock_ctl_counters));
}
