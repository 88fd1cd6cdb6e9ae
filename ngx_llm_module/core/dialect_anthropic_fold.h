
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What folding and unfolding of messages have in common: which members of a
 * content block a stream tells in pieces.
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


extern const anthropic_streamed_t  anthropic_streamed[ANTHROPIC_S_MAX];


/* the block's kind and those members of it */
anthropic_kind_e anthropic_streamed_find(const llm_json_value_t *block,
    llm_json_value_t *values);


#endif /* _DIALECT_ANTHROPIC_FOLD_H_INCLUDED_ */
