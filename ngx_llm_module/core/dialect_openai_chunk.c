
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The OpenAI dialect: chunks of a stream that is made of a plain answer.  An
 * answer is written twice by the same functions, once to count.
 */


#include <string.h>

#include "dialect_openai_chunk.h"
#include "llm_scan.h"


#define OPENAI_PIECE   64              /* bytes of a text in a chunk, at
                                          least */
#define OPENAI_PIECES  256             /* of one text */


static const u_char *openai_chunk_cut(const u_char *p, const u_char *last,
    size_t size);


void
openai_chunk_begin(openai_unfold_t *u)
{
    llm_out_text(&u->o, "data: {");
    llm_out(&u->o, u->head, u->head_len);
    llm_out_text(&u->o, "\"choices\":[");
}


void
openai_chunk_end(openai_unfold_t *u)
{
    if (u->counted.type != LLM_JSON_ABSENT) {
        llm_out_text(&u->o, ",\"usage\":null");
    }

    llm_out_text(&u->o, "}\n\n");
}


void
openai_chunk_open(openai_unfold_t *u)
{
    openai_chunk_begin(u);

    llm_out_text(&u->o, "{\"index\":");
    llm_out_uint(&u->o, u->index);
    llm_out_text(&u->o, ",");
}


void
openai_chunk_close(openai_unfold_t *u, llm_uint_t logprobs)
{
    if (u->logprobs.type != LLM_JSON_ABSENT) {
        llm_out_text(&u->o, ",\"logprobs\":");

        if (logprobs) {
            openai_chunk_raw(&u->o, &u->logprobs);

        } else {
            llm_out_text(&u->o, "null");
        }
    }

    llm_out_text(&u->o, ",\"finish_reason\":null}]");

    openai_chunk_end(u);
}


void
openai_chunk_pieces(openai_unfold_t *u, const openai_around_t *around,
    const llm_json_value_t *text, llm_uint_t logprobs)
{
    size_t         size;
    const u_char  *p, *last, *next;

    logprobs = (logprobs && u->logprobs.type == LLM_JSON_OBJECT);

    p = text->raw.data + 1;
    last = p + text->raw.len - 2;
    size = (last - p + OPENAI_PIECES - 1) / OPENAI_PIECES;

    if (size < OPENAI_PIECE) {
        size = OPENAI_PIECE;
    }

    for ( /* void */ ; p < last; p = next) {
        next = logprobs ? last : openai_chunk_cut(p, last, size);

        openai_chunk_open(u);
        llm_out(&u->o, around->before.data, around->before.len);
        llm_out(&u->o, p, next - p);
        llm_out(&u->o, around->after.data, around->after.len);
        openai_chunk_close(u, logprobs);
    }
}


/* the end of a piece of size bytes or a little more: not within a character,
 * be it escaped, nor between the escapes of a surrogate pair */

static const u_char *
openai_chunk_cut(const u_char *p, const u_char *last, size_t size)
{
    size_t         n;
    const u_char  *end;

    if ((size_t) (last - p) <= size) {
        return last;
    }

    end = p + size;

    for ( ;; ) {
        p = llm_scan_quote(p, end);

        if (p >= end) {
            break;
        }

        n = 2;

        if (p[1] == 'u') {
            n = 6;

            if ((p[2] | 0x20) == 'd' && strchr("89abAB", p[3])
                && last - p >= 12 && p[6] == '\\' && p[7] == 'u'
                && (p[8] | 0x20) == 'd' && strchr("cdefCDEF", p[9]))
            {
                n = 12;
            }
        }

        p += n;

        if (p >= end) {
            return p;
        }
    }

    while (p < last && (*p & 0xc0) == 0x80) {
        p++;
    }

    return p;
}


void
openai_chunk_name(llm_out_t *o, const llm_str_t *name)
{
    llm_out_text(o, "\"");
    llm_out(o, name->data, name->len);
    llm_out_text(o, "\":");
}


void
openai_chunk_member(llm_out_t *o, const llm_str_t *name,
    const llm_json_value_t *value)
{
    openai_chunk_name(o, name);
    openai_chunk_raw(o, value);
}


void
openai_chunk_raw(llm_out_t *o, const llm_json_value_t *value)
{
    const u_char  *p, *last, *next;

    p = value->raw.data;
    last = p + value->raw.len;

    if (value->type < LLM_JSON_ARRAY) {
        llm_out(o, p, last - p);
        return;
    }

    while (p < last) {
        next = p;

        if (*p == '"') {
            next = llm_scan_quote(p + 1, last);

            while (next < last && *next == '\\') {
                next = llm_scan_quote(next + 2, last);
            }

            next++;

        } else {
            while (next < last && *next > ' ' && *next != '"') {
                next++;
            }
        }

        llm_out(o, p, next - p);
        p = llm_scan_token(next, last);
    }
}


llm_uint_t
openai_name_place(const llm_str_t *name, const llm_str_t *names,
    llm_uint_t n)
{
    llm_uint_t  i;

    for (i = 0; i < n; i++) {
        if (name->len == names[i].len
            && memcmp(name->data, names[i].data, name->len) == 0)
        {
            return i + 1;
        }
    }

    return 0;
}


llm_uint_t
openai_name_escaped(const llm_str_t *name)
{
    return name->len && memchr(name->data, '\\', name->len) != NULL;
}
