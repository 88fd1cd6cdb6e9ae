
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Broken streams resumed, with any events.  The first byte is the endpoint:
 * c chat/completions, l completions, m messages, r responses.  The second has
 * flags: bit 0 is hide_usage, the rest the allocation that fails.  The third
 * is max, in units of 4.  Then a line is:
 *
 *     =         a new answer, of the request run again
 *     +         a new answer, which goes on
 *     event:X   the type of the next event
 *     -         an event without data
 *     tX        an event with the text X, as it stands in JSON
 *     o         an event that begins a text
 *     X         an event's data
 *
 * What the client has is what was noted, and: of an answer run again, or
 * found to begin anew, the text that this answer says; of one that goes on
 * what was shown before and what this answer says, less whitespace that the
 * client has already.
 */


#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llm.h"
#include "mem.h"


#define ANEW  16                       /* what can be told apart */


typedef struct {
    fuzz_mem_t             m;
    llm_resume_t           rs;
    llm_answer_t           a;
    llm_uint_t             hide;

    llm_str_t              client;     /* what it has */
    llm_str_t              before;     /* it had as the answer began */
    llm_str_t              answer;     /* what this answer said */
    size_t                 from;       /* of before, that it goes on from */

    llm_uint_t             attempt;
    llm_uint_t             asked;      /* to go on */
    llm_uint_t             declined;
    llm_uint_t             emitted;    /* events of this attempt */
} fuzz_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void fuzz_joined(const fuzz_t *f);


static void
fuzz_answer(fuzz_t *f)
{
    const llm_dialect_t   *dialect;
    const llm_endpoint_t  *endpoint;

    dialect = f->a.dialect;
    endpoint = f->a.endpoint;

    dialect->answer_free(&f->a);
    memset(&f->a, 0, sizeof(llm_answer_t));

    f->a.dialect = dialect;
    f->a.endpoint = endpoint;
    f->a.mem = &f->m.mem;
    f->a.hide_usage = f->hide;
}


static void
fuzz_begin(fuzz_t *f, llm_uint_t continues)
{
    llm_str_t  text;

    fuzz_answer(f);

    text = llm_resume_text(&f->rs);
    check(text.len <= f->rs.len);

    llm_resume_begin(&f->rs, continues);
    check(f->rs.continues == (continues && text.len));
    check(!f->rs.continues || f->rs.matched == text.len);
    check(f->rs.holds == (f->rs.continues && text.len >= ANEW));

    memcpy(f->before.data, f->client.data, f->client.len);

    f->before.len = f->client.len;
    f->from = text.len;
    f->answer.len = 0;
    f->attempt++;
    f->asked = f->rs.continues;
    f->declined = 0;
    f->emitted = 0;
}


static llm_int_t
fuzz_text(const fuzz_t *f, const llm_event_t *ev, llm_uint_t what,
    llm_str_t *to)
{
    llm_int_t         rc;
    llm_json_value_t  text;

    if (what & (LLM_EV_HIDDEN|LLM_EV_MALFORMED|LLM_EV_ERROR)) {
        return LLM_DONE;
    }

    rc = f->a.dialect->text(&f->a, ev, &text);
    check(rc == LLM_OK || rc == LLM_DONE || rc == LLM_DECLINED);

    if (rc == LLM_OK) {
        check(text.type == LLM_JSON_STRING && text.raw.len >= 2);
        check(text.raw.data >= ev->data.data
              && text.raw.data + text.raw.len
                 <= ev->data.data + ev->data.len);

        to->len += llm_json_unescape(to->data + to->len, &text);
    }

    return rc;
}


/* while it is possible, what is kept is what the client has; and what this
 * has is always what it should */

static void
fuzz_check(const fuzz_t *f)
{
    const llm_resume_t  *rs = &f->rs;

    check(rs->matched <= rs->len);
    check(rs->held <= rs->matched);
    check(rs->held == 0 || (rs->holds && rs->continues && !rs->joined));
    check(rs->possible || (rs->shown == NULL && rs->len == 0));

    if (rs->possible) {
        check(rs->len <= rs->max);
        check(rs->len == f->client.len);
        check(rs->len == 0
              || memcmp(rs->shown, f->client.data, rs->len) == 0);
    }

    if (f->attempt == 0 || f->declined) {
        return;
    }

    if (rs->joined) {
        fuzz_joined(f);
        return;
    }

    check(f->emitted == 0);
    check(f->client.len == f->before.len
          && memcmp(f->client.data, f->before.data, f->before.len) == 0);

    if (rs->possible && rs->holds) {
        check(rs->held == f->answer.len && rs->held < f->from
              && memcmp(f->answer.data, f->before.data, rs->held) == 0);
    }
}


/* the text of an answer that is being shown */

static void
fuzz_joined(const fuzz_t *f)
{
    size_t               cut;
    llm_uint_t           anew;
    const llm_resume_t  *rs = &f->rs;

    anew = f->asked && f->from >= ANEW && f->answer.len >= f->from
           && memcmp(f->answer.data, f->before.data, f->from) == 0;

    /* what follows the text is shown as it comes, be it a text again */

    check(!rs->possible || rs->continues == (f->asked && !anew));

    if (!rs->continues) {
        check(f->client.len == f->answer.len
              && memcmp(f->client.data, f->answer.data, f->answer.len) == 0);
        return;
    }

    check(f->client.len >= f->before.len
          && memcmp(f->client.data, f->before.data, f->before.len) == 0);
    check(f->before.len + f->answer.len >= f->client.len);

    cut = f->before.len + f->answer.len - f->client.len;

    check(cut <= f->answer.len
          && memcmp(f->client.data + f->before.len, f->answer.data + cut,
                    f->answer.len - cut) == 0);

    check(f->from + cut <= f->before.len
          && memcmp(f->answer.data, f->before.data + f->from, cut) == 0);
}


/* a block's end is put before an event, at most once */

static llm_int_t
fuzz_twice(fuzz_t *f, const llm_event_t *ev, llm_uint_t what,
    llm_event_t *out)
{
    llm_int_t         rc;
    llm_json_value_t  text;

    rc = llm_resume_event(&f->rs, &f->a, ev, what, out);

    if (rc != LLM_AGAIN) {
        return rc;
    }

    check(f->a.dialect == &llm_dialect_anthropic && f->a.finished);
    check(f->asked && f->answer.len == 0 && f->emitted == 0);
    check(out->lines == 1 && !out->has_id && out->retry.len == 0);
    check(llm_json_scan(&out->data, LLM_JSON_DEPTH_MAX, NULL, NULL, 0, NULL)
          == LLM_OK);
    check(f->a.dialect->text(&f->a, out, &text) == LLM_DECLINED);

    rc = llm_resume_event(&f->rs, &f->a, ev, what, out);
    check(rc == LLM_OK && out->data.data == ev->data.data);
    check(!f->rs.possible);

    return rc;
}


static llm_int_t
fuzz_told(fuzz_t *f, const llm_event_t *ev, llm_uint_t what)
{
    llm_int_t    rc;
    llm_event_t  out;

    if (f->attempt == 0) {
        rc = llm_resume_note(&f->rs, &f->a, ev, what);
        check(rc == LLM_OK || (rc == LLM_ERROR && !f->rs.possible));
        (void) fuzz_text(f, ev, what, &f->client);

        return rc;
    }

    (void) fuzz_text(f, ev, what, &f->answer);

    rc = fuzz_twice(f, ev, what, &out);

    switch (rc) {

    case LLM_OK:
        check(f->rs.joined);
        check(!(what & LLM_EV_MALFORMED));
        check(!(what & LLM_EV_HIDDEN) || out.data.data == ev->data.data);
        f->emitted++;

        if (out.data.data == ev->data.data) {
            check(memcmp(&out, ev, sizeof(llm_event_t)) == 0);
            (void) fuzz_text(f, &out, what, &f->client);
            break;
        }

        check(out.data.data == f->rs.out);
        check(llm_json_scan(&out.data, LLM_JSON_DEPTH_MAX, NULL, NULL, 0,
                            NULL)
              == LLM_OK);
        check(fuzz_text(f, &out, what, &f->client) != LLM_DECLINED);
        break;

    case LLM_DONE:
        check(!(what & LLM_EV_HIDDEN) || !f->rs.joined);
        break;

    case LLM_DECLINED:
        check(!f->rs.joined && f->emitted == 0);
        f->declined = 1;
        break;

    default:
        check(rc == LLM_ERROR && !f->rs.possible);
    }

    return rc;
}


static llm_int_t
fuzz_event(fuzz_t *f, const llm_str_t *type, const char *before,
    const llm_str_t *data, const char *after)
{
    char         *copy;
    size_t        n;
    llm_int_t     rc;
    llm_uint_t    what, possible;
    llm_event_t   ev;

    memset(&ev, 0, sizeof(llm_event_t));

    n = strlen(before);

    ev.type = *type;
    ev.data.len = n + data->len + strlen(after);
    ev.lines = (ev.data.len != 1 || data->len == 0 || *data->data != '-');

    copy = malloc(ev.data.len + 1);
    check(copy != NULL);
    memcpy(copy, before, n);
    memcpy(copy + n, data->data, data->len);
    strcpy(copy + n + data->len, after);

    ev.data.data = malloc(ev.data.len);
    check(ev.data.data != NULL);
    memcpy(ev.data.data, copy, ev.data.len);
    free(copy);

    possible = f->rs.possible;
    rc = f->a.dialect->event(&f->a, &ev, &what);

    if (rc == LLM_OK) {
        rc = fuzz_told(f, &ev, what);
        check(possible || !f->rs.possible);

        if (rc != LLM_ERROR) {
            fuzz_check(f);
        }
    }

    free(ev.data.data);

    return rc;
}


static llm_int_t
fuzz_line(fuzz_t *f, llm_str_t *type, llm_str_t *line)
{
    llm_int_t    rc;
    llm_uint_t   messages, chat;
    const char  *before, *after;

    if (line->len == 1 && (*line->data == '=' || *line->data == '+')) {
        fuzz_begin(f, *line->data == '+');
        type->len = 0;
        return LLM_OK;
    }

    if (line->len > 6 && memcmp(line->data, "event:", 6) == 0) {
        type->data = line->data + 6;
        type->len = line->len - 6;
        return LLM_OK;
    }

    if (f->declined) {
        return LLM_OK;
    }

    before = "";
    after = "";
    messages = f->a.dialect == &llm_dialect_anthropic;
    chat = f->a.endpoint->path.len == sizeof("chat/completions") - 1;

    if (line->len && *line->data == 't') {
        line->data++;
        line->len--;

        before = messages ? "{\"type\":\"content_block_delta\",\"delta\":"
                            "{\"type\":\"text_delta\",\"text\":\""
                 : chat ? "{\"choices\":[{\"delta\":{\"content\":\""
                 : "{\"choices\":[{\"text\":\"";
        after = messages ? "\"}}" : chat ? "\"}}]}" : "\"}]}";

    } else if (line->len == 1 && *line->data == 'o') {
        line->len = 0;

        before = messages ? "{\"type\":\"content_block_start\",\"index\":0,"
                            "\"content_block\":{\"type\":\"text\","
                            "\"text\":\"\"}}"
                          : "{\"choices\":[{\"index\":0,\"delta\":{\"role\":"
                            "\"assistant\",\"content\":\"\"},\"text\":\"\"}]}";
    }

    rc = fuzz_event(f, type, before, line, after);
    type->len = 0;

    return rc;
}


static void
fuzz_lines(fuzz_t *f, const uint8_t *data, size_t size)
{
    u_char     *p, *last, *end, *copy;
    llm_int_t   rc;
    llm_str_t   type, line;

    copy = malloc(size + 1);
    check(copy != NULL);
    memcpy(copy, data, size);
    copy[size] = '\n';

    p = copy;
    last = p + size;
    rc = LLM_OK;

    type.len = 0;
    type.data = p;

    while (p < last && rc != LLM_ERROR) {
        end = memchr(p, '\n', last + 1 - p);

        line.data = p;
        line.len = end - p;
        p = end + 1;

        rc = fuzz_line(f, &type, &line);
    }

    check(rc != LLM_ERROR || f->m.fail);

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_t                 f;
    llm_str_t              path, id;
    const llm_dialect_t   *prefer, *dialect;
    const llm_endpoint_t  *endpoint;

    if (size < 3 || size > 65536) {
        return 0;
    }

    prefer = data[0] == 'm' ? &llm_dialect_anthropic : &llm_dialect_openai;

    switch (data[0]) {

    case 'c':
        llm_str_set(&path, "chat/completions");
        break;

    case 'l':
        llm_str_set(&path, "completions");
        break;

    case 'm':
        llm_str_set(&path, "messages");
        break;

    case 'r':
        llm_str_set(&path, "responses");
        break;

    default:
        return 0;
    }

    endpoint = llm_endpoint_find(&path, prefer, &dialect, &id);
    check(endpoint != NULL);

    memset(&f, 0, sizeof(fuzz_t));

    f.m.mem.alloc = fuzz_alloc;
    f.m.mem.free = fuzz_free;
    f.m.mem.ctx = &f.m;
    f.m.fail = (data[1] - '0') >> 1 & 0x1f;

    /* what is said may be said again, and once more */

    f.client.data = malloc(size * 3);
    f.before.data = malloc(size * 3);
    f.answer.data = malloc(size * 3);
    check(f.client.data && f.before.data && f.answer.data);

    f.a.dialect = dialect;
    f.a.endpoint = endpoint;
    f.hide = data[1] & 1;
    fuzz_answer(&f);

    llm_resume_init(&f.rs, &f.m.mem, (size_t) (data[2] - '0') % 256 * 4);

    fuzz_lines(&f, data + 3, size - 3);

    dialect->answer_free(&f.a);
    llm_resume_free(&f.rs);
    check(f.m.live == 0);

    free(f.client.data);
    free(f.before.data);
    free(f.answer.data);

    return 0;
}
