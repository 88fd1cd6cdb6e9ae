
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the files that fold and unfold messages share: which members of a
 * content block a stream tells in pieces, and what a stream has told.
 */


#ifndef _DIALECT_ANTHROPIC_FOLD_H_INCLUDED_
#define _DIALECT_ANTHROPIC_FOLD_H_INCLUDED_


#include "dialect_anthropic.h"
#include "llm_retell.h"


/* Kinds of blocks.  Others are not known to come whole, and may change the
 * message: a "fallback" tells another model. */

typedef enum {
    ANTHROPIC_K_OTHER = 0,
    ANTHROPIC_K_TEXT,
    ANTHROPIC_K_THINKING,
    ANTHROPIC_K_CALL,                  /* tool_use, server_tool_use, ... */
    ANTHROPIC_K_WHOLE                  /* as it begins: results of tools */
} anthropic_kind_e;


enum {
    ANTHROPIC_S_TEXT = 0,
    ANTHROPIC_S_CITATIONS,
    ANTHROPIC_S_THINKING,
    ANTHROPIC_S_SIGNATURE,
    ANTHROPIC_S_INPUT,
    ANTHROPIC_S_MAX
};


typedef struct {
    llm_str_t              name;       /* in the block */
    llm_str_t              piece;      /* in a delta */
    const char            *delta;      /* its type */
    anthropic_kind_e       kind;       /* of blocks that have it */
    llm_json_type_e        type;       /* in the block */
    llm_json_type_e        told;       /* in a delta */
} anthropic_streamed_t;


#define ANTHROPIC_DELTAS  8            /* message_delta events */


typedef struct {
    llm_str_t              text;       /* the inside of a string, or a
                                          citation */
    llm_uint_t             member;     /* ANTHROPIC_S_... */
} anthropic_piece_t;


typedef struct {
    llm_json_value_t       value;      /* as it began */
    llm_json_value_t       begun[ANTHROPIC_S_MAX];  /* its members that can be
                                                       streamed */
    llm_uint_t             n[ANTHROPIC_S_MAX];      /* of pieces, of each */
    llm_uint_t             piece;      /* its first one */
    llm_uint_t             npieces;
    u_char                *input;      /* parsed, memory of its own; NULL: as
                                          it began */
    size_t                 len;        /* of input */
    anthropic_kind_e       kind;
} anthropic_block_t;


typedef struct {
    const llm_mem_t       *mem;
    llm_json_value_t       message;
    llm_json_value_t       usage;      /* its usage, an object */
    llm_str_t              deltas[ANTHROPIC_DELTAS];
    llm_str_t              usages[ANTHROPIC_DELTAS];
    llm_uint_t             ndeltas;
    llm_uint_t             nusages;
    llm_json_value_t       context;    /* context_management, the last one */
    llm_list_t             blocks;
    llm_list_t             pieces;
    unsigned               open:1;     /* the last block is */
    unsigned               stopped:1;  /* message_stop was seen */
} anthropic_fold_t;


extern const anthropic_streamed_t  anthropic_streamed[ANTHROPIC_S_MAX];


/* the block's kind and those members of it */
anthropic_kind_e anthropic_streamed_find(const llm_json_value_t *block,
    llm_json_value_t *values);

/* The member of this name of the last of n objects that has it; 1 if there is
 * one.  What is null does not count: it was told before, or by nobody. */
llm_uint_t anthropic_fold_over(const llm_str_t *objects, llm_uint_t n,
    const llm_str_t *name, llm_json_value_t *value);

/* an llm_render_pt: the message of an anthropic_fold_t */
void anthropic_folded(llm_out_t *o, const void *data);


#endif /* _DIALECT_ANTHROPIC_FOLD_H_INCLUDED_ */
