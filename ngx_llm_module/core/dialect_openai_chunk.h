
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the files share that make a stream of a plain answer of OpenAI's:
 * dialect_openai_unfold.c has the answer and its choices,
 * dialect_openai_unfold_message.c a chat's message and its calls,
 * dialect_openai_chunk.c what is in every chunk.
 */


#ifndef _DIALECT_OPENAI_CHUNK_H_INCLUDED_
#define _DIALECT_OPENAI_CHUNK_H_INCLUDED_


#include "dialect_openai.h"


#define OPENAI_HEAD  1024              /* bytes, repeated in each chunk */


/* one answer, while it is written */

typedef struct {
    llm_out_t              o;
    llm_json_value_t       top;        /* the answer */
    llm_json_value_t       choices;
    llm_json_value_t       counted;    /* its usage, if the stream tells it */
    llm_json_value_t       filtered;   /* Azure's prompt_filter_results */

    llm_json_value_t       choice;     /* the one that is written */
    llm_json_value_t       logprobs;   /* its own */
    llm_str_t              reason;     /* its own, with quotes */
    uint64_t               index;

    size_t                 head_len;
    u_char                 head[OPENAI_HEAD];

    unsigned               chat:1;
    unsigned               last:1;     /* the choice is */
} openai_unfold_t;


/* a text that is cut: what stands around a piece in its chunk */

typedef struct {
    llm_str_t              before;
    llm_str_t              after;
} openai_around_t;


/* a chunk of the choice, up to what it says */
void openai_chunk_open(openai_unfold_t *u);
/* its end; with the choice's logprobs, if it has any */
void openai_chunk_close(openai_unfold_t *u, llm_uint_t logprobs);

/* a chunk up to its choices, and behind them */
void openai_chunk_begin(openai_unfold_t *u);
void openai_chunk_end(openai_unfold_t *u);

/* A text, a chunk for each piece of it; none if it is empty.  With logprobs
 * one that tells them, if the choice has any. */
void openai_chunk_pieces(openai_unfold_t *u,
    const openai_around_t *around, const llm_json_value_t *text,
    llm_uint_t logprobs);

void openai_chunk_name(llm_out_t *o, const llm_str_t *name);
void openai_chunk_member(llm_out_t *o, const llm_str_t *name,
    const llm_json_value_t *value);
/* without whitespace: an event's data is one line */
void openai_chunk_raw(llm_out_t *o, const llm_json_value_t *value);

/* 1 and up: its place in names; 0: it is none of them */
llm_uint_t openai_name_place(const llm_str_t *name,
    const llm_str_t *names, llm_uint_t n);
/* it could be one that is known, spelled in another way */
llm_uint_t openai_name_escaped(const llm_str_t *name);

/* the message of a chat's choice, but for its end.  LLM_DECLINED: it has what
 * no chunk tells. */
llm_int_t openai_unfold_message(openai_unfold_t *u,
    const llm_json_value_t *message);


#endif /* _DIALECT_OPENAI_CHUNK_H_INCLUDED_ */
