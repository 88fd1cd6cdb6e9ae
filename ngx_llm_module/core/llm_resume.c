
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * A broken stream resumed: what was shown of an answer's text is kept, and
 * the events of another attempt's answer are compared with it.
 *
 * Texts are compared unescaped, since servers escape as they like, and cut
 * into events as they like.  The text of an event is unescaped right behind
 * what was shown: there it is compared, and there it stays if it is shown.
 * The event in which what was shown ends is written anew with the rest of its
 * text; all others are shown as they are, or not at all.
 *
 * A provider that is asked to go on may answer anew all the same.  While its
 * answer says what was shown from its start, that is held back: it need not
 * be kept again, since it is the beginning of what was shown.
 *
 * Half of a surrogate pair, an escape that is cut between two events, has no
 * bytes in UTF-8.  Such a text is not kept: it could be taken for another.
 */


#include <string.h>

#include "llm_dialect.h"


/* of the memory for a text */

#define LLM_RESUME_SIZE  1024

/* bytes of what is gone on from: an answer that says all of them is no
 * continuation */

#define LLM_RESUME_ANEW  16


static llm_int_t llm_resume_end_text(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, llm_uint_t what, llm_int_t rc, llm_event_t *out);
static llm_int_t llm_resume_meet(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, const llm_json_value_t *text, llm_str_t *said,
    llm_event_t *out);
static llm_int_t llm_resume_hold(llm_resume_t *rs, const llm_answer_t *a,
    llm_str_t *said);
static llm_int_t llm_resume_match(llm_resume_t *rs, llm_str_t *said);
static size_t llm_resume_same(const llm_str_t *said, const u_char *p,
    size_t len);
static llm_uint_t llm_resume_says_more(const llm_answer_t *a,
    const llm_event_t *ev);
static llm_int_t llm_resume_rewrite(llm_resume_t *rs, const llm_event_t *ev,
    const llm_json_value_t *text, const llm_str_t *rest, llm_event_t *out);

static llm_int_t llm_resume_read(llm_resume_t *rs,
    const llm_json_value_t *text, llm_str_t *said);
static llm_uint_t llm_resume_halves(const llm_json_value_t *text);
static void llm_resume_keep(llm_resume_t *rs, const llm_str_t *said);
static llm_int_t llm_resume_grow(llm_resume_t *rs, u_char **buf, size_t *size,
    size_t used, size_t need);
static void llm_resume_end(llm_resume_t *rs);
static void llm_resume_release(llm_resume_t *rs, u_char **buf, size_t *size);
static size_t llm_resume_space(const u_char *p, size_t len);


void
llm_resume_init(llm_resume_t *rs, const llm_mem_t *mem, size_t max)
{
    memset(rs, 0, sizeof(llm_resume_t));

    rs->mem = mem;
    rs->max = max;
    rs->possible = 1;
}


llm_int_t
llm_resume_note(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, llm_uint_t what)
{
    llm_int_t         rc;
    llm_str_t         said;
    llm_json_value_t  text;

    if (!rs->possible
        || (what & (LLM_EV_PING|LLM_EV_HIDDEN|LLM_EV_MALFORMED)))
    {
        return LLM_OK;
    }

    if (a->finished || (what & (LLM_EV_TERMINAL|LLM_EV_ERROR))) {

        /* nothing may follow what the client takes for the end */

        llm_resume_end(rs);
        return LLM_OK;
    }

    rc = a->dialect->text(a, ev, &text);

    if (rc == LLM_DONE) {
        return LLM_OK;
    }

    if (rc == LLM_OK) {
        rc = llm_resume_read(rs, &text, &said);
    }

    if (rc == LLM_OK) {
        llm_resume_keep(rs, &said);
        return LLM_OK;
    }

    llm_resume_end(rs);

    return (rc == LLM_ERROR) ? LLM_ERROR : LLM_OK;
}


void
llm_resume_begin(llm_resume_t *rs, llm_uint_t continues)
{
    rs->joined = 0;
    rs->reopened = 0;
    rs->matched = 0;
    rs->held = 0;

    if (continues) {
        rs->matched = llm_resume_text(rs).len;
    }

    rs->continues = (rs->matched != 0);
    rs->holds = (rs->matched >= LLM_RESUME_ANEW);
}


llm_int_t
llm_resume_event(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, llm_uint_t what, llm_event_t *out)
{
    llm_int_t         rc;
    llm_str_t         said;
    llm_json_value_t  text;

    *out = *ev;

    if (what & LLM_EV_MALFORMED) {
        return LLM_DONE;
    }

    if (what & LLM_EV_HIDDEN) {
        return rs->joined ? LLM_OK : LLM_DONE;
    }

    if (rs->joined
        && (rs->matched == rs->len
            || (what & (LLM_EV_TERMINAL|LLM_EV_ERROR))))
    {
        return llm_resume_note(rs, a, ev, what);
    }

    if (!rs->joined
        && (!rs->possible || (what & (LLM_EV_TERMINAL|LLM_EV_ERROR))))
    {
        return LLM_DECLINED;
    }

    rc = a->dialect->text(a, ev, &text);

    if (rc == LLM_OK) {
        rc = llm_resume_read(rs, &text, &said);
    }

    if (rc == LLM_OK) {
        return llm_resume_meet(rs, a, ev, &text, &said, out);
    }

    if (rc == LLM_ERROR) {
        llm_resume_end(rs);
        return LLM_ERROR;
    }

    if (!rs->joined && rc == LLM_DONE && !a->finished) {
        return LLM_DONE;
    }

    if (!rs->joined && rs->opened) {
        return llm_resume_end_text(rs, a, ev, what, rc, out);
    }

    /* if nothing was shown but a beginning, any answer has that */

    rs->joined = 1;

    return llm_resume_note(rs, a, ev, what);
}


/*
 * An event that ends the new answer's text, or follows it, while none of it
 * was shown: there is nothing to be added, unless it is held back.  rc is
 * what text() told.
 */

static llm_int_t
llm_resume_end_text(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, llm_uint_t what, llm_int_t rc, llm_event_t *out)
{
    if (!rs->continues || rs->held) {
        return LLM_DECLINED;
    }

    if (rc == LLM_DONE && a->dialect->text_end(out) == LLM_OK) {

        /* no block was begun, or its end is missing: the client's is open */

        rs->joined = 1;
        llm_resume_end(rs);

        return LLM_AGAIN;
    }

    if (rc != LLM_DONE && !rs->reopened) {
        return LLM_DECLINED;
    }

    rs->joined = 1;

    return llm_resume_note(rs, a, ev, what);
}


/* an event with a text, which is said, while something is to be met */

static llm_int_t
llm_resume_meet(llm_resume_t *rs, const llm_answer_t *a,
    const llm_event_t *ev, const llm_json_value_t *text, llm_str_t *said,
    llm_event_t *out)
{
    size_t      len;
    llm_int_t   rc;
    llm_uint_t  opens;

    len = said->len;

    if (rs->holds) {
        rc = llm_resume_hold(rs, a, said);

        if (rc != LLM_OK) {
            return rc;
        }
    }

    if (llm_resume_match(rs, said) != LLM_OK) {
        return LLM_DECLINED;
    }

    if (!rs->continues && rs->matched < rs->len) {

        /* an answer that ends here is shorter than what was shown */

        return a->finished ? LLM_DECLINED : LLM_DONE;
    }

    opens = !rs->joined && !rs->opened;
    rs->joined = 1;

    if (said->len == 0 && !opens && !llm_resume_says_more(a, ev)) {
        return LLM_DONE;
    }

    if (said->len != len
        && llm_resume_rewrite(rs, ev, text, said, out) != LLM_OK)
    {
        llm_resume_end(rs);
        return LLM_ERROR;
    }

    if (a->finished) {
        llm_resume_end(rs);

    } else {
        llm_resume_keep(rs, said);
    }

    return LLM_OK;
}


/*
 * Does it go on, or was it answered anew?  LLM_DONE: that is not known yet.
 * LLM_OK: it is; what is held of an answer that goes on is said now, too.
 */

static llm_int_t
llm_resume_hold(llm_resume_t *rs, const llm_answer_t *a, llm_str_t *said)
{
    size_t   n;
    u_char  *p;

    n = llm_resume_same(said, rs->shown + rs->held, rs->matched - rs->held);

    if (rs->held + n == rs->matched) {

        /* anew: from here on as if that had been asked */

        rs->holds = 0;
        rs->continues = 0;
        rs->matched = rs->held;
        rs->held = 0;

        return LLM_OK;
    }

    rs->reopened = 1;

    if (n == said->len && !a->finished) {
        rs->held += n;
        return LLM_DONE;
    }

    /* begun anew, and then said otherwise: that much is no chance */

    if (n < said->len && rs->held + n >= LLM_RESUME_ANEW) {
        return LLM_DECLINED;
    }

    if (llm_resume_grow(rs, &rs->shown, &rs->size, rs->len + said->len,
                        rs->len + rs->held + said->len)
        != LLM_OK)
    {
        llm_resume_end(rs);
        return LLM_ERROR;
    }

    p = rs->shown + rs->len;

    memmove(p + rs->held, p, said->len);
    memcpy(p, rs->shown, rs->held);

    said->data = p;
    said->len += rs->held;

    rs->holds = 0;
    rs->held = 0;

    return LLM_OK;
}


/* cuts from said what was shown before */

static llm_int_t
llm_resume_match(llm_resume_t *rs, llm_str_t *said)
{
    size_t  n, left;

    left = rs->len - rs->matched;
    n = llm_resume_same(said, rs->shown + rs->matched, left);

    if (n < left && n < said->len) {

        if (!rs->continues) {
            return LLM_DECLINED;
        }

        /* not in the middle of a character */

        while (n && (said->data[n] & 0xc0) == 0x80) {
            n--;
        }

        /* whitespace that the new answer has not is waited for no more */

        rs->matched = rs->len - n;
    }

    rs->matched += n;
    said->data += n;
    said->len -= n;

    return LLM_OK;
}


/* bytes that are the same at the beginning of both */

static size_t
llm_resume_same(const llm_str_t *said, const u_char *p, size_t len)
{
    size_t  n;

    if (len > said->len) {
        len = said->len;
    }

    for (n = 0; n < len && said->data[n] == p[n]; n++) {
        /* void */
    }

    return n;
}


/* 1 if an event must not be lost although its text was shown before */

static llm_uint_t
llm_resume_says_more(const llm_answer_t *a, const llm_event_t *ev)
{
    llm_json_value_t        usage;
    static const llm_str_t  name = llm_string("usage");

    return a->finished
           || (llm_json_find(&ev->data, &name, &usage, 1) == LLM_OK
               && usage.type == LLM_JSON_OBJECT);
}


static llm_int_t
llm_resume_rewrite(llm_resume_t *rs, const llm_event_t *ev,
    const llm_json_value_t *text, const llm_str_t *rest, llm_event_t *out)
{
    size_t   before, after;
    u_char  *p;

    /* the text's quotes stay */

    before = text->raw.data + 1 - ev->data.data;
    after = ev->data.len - before - (text->raw.len - 2);

    out->data.len = before + llm_json_escape(NULL, rest) + after;

    if (llm_resume_grow(rs, &rs->out, &rs->out_size, 0, out->data.len)
        != LLM_OK)
    {
        return LLM_ERROR;
    }

    p = rs->out;
    out->data.data = p;

    memcpy(p, ev->data.data, before);
    p += before;
    p += llm_json_escape(p, rest);
    memcpy(p, ev->data.data + ev->data.len - after, after);

    return LLM_OK;
}


llm_str_t
llm_resume_text(const llm_resume_t *rs)
{
    size_t     n;
    llm_str_t  text;

    text.data = rs->shown;
    text.len = rs->len;

    do {
        n = llm_resume_space(text.data, text.len);
        text.len -= n;
    } while (n);

    return text;
}


void
llm_resume_free(llm_resume_t *rs)
{
    llm_resume_end(rs);
    llm_resume_release(rs, &rs->out, &rs->out_size);
}


/* unescapes a text behind what was shown; LLM_DECLINED: it cannot be kept */

static llm_int_t
llm_resume_read(llm_resume_t *rs, const llm_json_value_t *text,
    llm_str_t *said)
{
    if (llm_resume_halves(text)) {
        return LLM_DECLINED;
    }

    if (llm_resume_grow(rs, &rs->shown, &rs->size, rs->len,
                        rs->len + text->raw.len)
        != LLM_OK)
    {
        return LLM_ERROR;
    }

    said->data = rs->shown + rs->len;
    said->len = llm_json_unescape(said->data, text);

    return LLM_OK;
}


/* 1 if a surrogate is written in it that is not one of a pair */

static llm_uint_t
llm_resume_halves(const llm_json_value_t *text)
{
    u_char  *p, *last;

    if (!text->escaped) {
        return 0;
    }

    last = text->raw.data + text->raw.len - 1;

    for (p = text->raw.data + 1; p < last; p++) {

        if (*p != '\\') {
            continue;
        }

        p++;

        if (*p != 'u' || (p[1] | 0x20) != 'd' || p[2] < '8') {
            continue;
        }

        /* "d8" to "db" begin a pair, "dc" to "df" end it */

        if ((p[2] | 0x20) >= 'c'
            || last - p < 11
            || p[5] != '\\' || p[6] != 'u' || (p[7] | 0x20) != 'd'
            || (p[8] | 0x20) < 'c')
        {
            return 1;
        }

        p += 10;
    }

    return 0;
}


/* said stands behind what was shown, if not right behind it */

static void
llm_resume_keep(llm_resume_t *rs, const llm_str_t *said)
{
    rs->opened = 1;

    if (said->len > rs->max - rs->len) {
        llm_resume_end(rs);
        return;
    }

    memmove(rs->shown + rs->len, said->data, said->len);

    if (rs->matched == rs->len) {
        rs->matched += said->len;
    }

    rs->len += said->len;
}


static llm_int_t
llm_resume_grow(llm_resume_t *rs, u_char **buf, size_t *size, size_t used,
    size_t need)
{
    size_t   n;
    u_char  *p;

    if (need <= *size) {
        return LLM_OK;
    }

    n = 2 * *size;

    if (n < need) {
        n = need;
    }

    if (n < LLM_RESUME_SIZE) {
        n = LLM_RESUME_SIZE;
    }

    p = rs->mem->alloc(rs->mem->ctx, n);
    if (p == NULL) {
        return LLM_ERROR;
    }

    if (used) {
        memcpy(p, *buf, used);
    }

    llm_resume_release(rs, buf, size);

    *buf = p;
    *size = n;

    return LLM_OK;
}


/* it cannot be resumed any more; an event written anew stays */

static void
llm_resume_end(llm_resume_t *rs)
{
    llm_resume_release(rs, &rs->shown, &rs->size);

    rs->len = 0;
    rs->matched = 0;
    rs->held = 0;
    rs->possible = 0;
}


static void
llm_resume_release(llm_resume_t *rs, u_char **buf, size_t *size)
{
    if (*buf && rs->mem->free) {
        rs->mem->free(rs->mem->ctx, *buf);
    }

    *buf = NULL;
    *size = 0;
}


/* the bytes of whitespace, Unicode's, that a text has as its last character */

static size_t
llm_resume_space(const u_char *p, size_t len)
{
    uint32_t  code;

    if (len == 0) {
        return 0;
    }

    p += len - 1;

    if (*p == ' ' || (*p >= '\t' && *p <= '\r') || (*p >= 0x1c && *p <= 0x1f))
    {
        return 1;
    }

    if (len >= 2 && p[-1] == 0xc2) {
        return (*p == 0x85 || *p == 0xa0) ? 2 : 0;
    }

    if (len < 3 || (p[-2] & 0xf0) != 0xe0) {
        return 0;
    }

    code = (uint32_t) (p[-2] & 0x0f) << 12
           | (uint32_t) (p[-1] & 0x3f) << 6
           | (*p & 0x3f);

    return (code == 0x1680 || (code >= 0x2000 && code <= 0x200a)
            || code == 0x2028 || code == 0x2029 || code == 0x202f
            || code == 0x205f || code == 0x3000)
           ? 3 : 0;
}
