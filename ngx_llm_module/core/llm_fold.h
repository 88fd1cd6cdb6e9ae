
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Many JSON objects, which tell one answer piece by piece, made one: what
 * becomes of a member that several of them have is said by a table.  Nothing
 * of a text is copied before the whole is written.
 */


#ifndef _LLM_FOLD_H_INCLUDED_
#define _LLM_FOLD_H_INCLUDED_


#include "llm_dialect.h"


/*
 * "Empty" is what llm_json_empty() says: it may stand beside anything, and
 * is kept only if there is nothing else.
 */

typedef enum {
    LLM_FOLD_NONE = 0,                 /* may only be empty; not written */
    LLM_FOLD_DROP,
    LLM_FOLD_SAME,                     /* the same in all that have it; of two
                                          objects the one that has all of the
                                          other's members */
    LLM_FOLD_ONCE,                     /* as above, but an array only once:
                                          it may be meant to be joined */
    LLM_FOLD_SINGLE,                   /* only once: a second one may mean
                                          that another object begins */
    LLM_FOLD_FIRST,                    /* the first that is not 0 */
    LLM_FOLD_LAST,                     /* the last that is not null; else not
                                          written */
    LLM_FOLD_TEXT,                     /* strings, joined */
    LLM_FOLD_GUESS,                    /* a member not known: strings that
                                          differ, joined; others only once */
    LLM_FOLD_ITEMS,                    /* arrays, joined */
    LLM_FOLD_OBJECT,                   /* by rules of its own */
    LLM_FOLD_LIST,                     /* an array of objects, those with the
                                          same "index" by rules of their own */
    LLM_FOLD_INDEX                     /* of such an object: its index */
} llm_fold_how_e;


typedef struct llm_fold_rules_s   llm_fold_rules_t;
typedef struct llm_fold_member_s  llm_fold_member_t;
typedef struct llm_fold_node_s    llm_fold_node_t;
typedef struct llm_fold_piece_s   llm_fold_piece_t;
typedef struct llm_fold_block_s   llm_fold_block_t;


typedef struct {
    llm_str_t                name;
    llm_fold_how_e           how;
    llm_str_t                as;       /* its new name; len 0: the same */
    const llm_fold_rules_t  *rules;    /* OBJECT, LIST: of the objects */
    llm_uint_t               max;      /* LIST: indexes are below it */
} llm_fold_rule_t;


/* the members are written in the order of the table, others behind */

struct llm_fold_rules_s {
    const llm_fold_rule_t   *rule;
    llm_uint_t               n;
    llm_fold_how_e           other;    /* those that are not in the table */
    unsigned                 indexed:1;     /* in a LIST: "index" may not be
                                               missing; else that is 0 */
};


struct llm_fold_piece_s {
    llm_str_t                text;     /* without quotes or brackets */
    llm_fold_piece_t        *next;
};


struct llm_fold_member_s {
    llm_str_t                name;     /* to be written */
    llm_json_value_t         value;    /* of TEXT and GUESS the first that is
                                          not empty; of ITEMS, OBJECT and LIST
                                          only the type */
    llm_fold_piece_t        *first;
    llm_fold_piece_t        *last;
    llm_fold_node_t         *nodes;    /* OBJECT: one; LIST: by index */
    llm_fold_node_t         *recent;   /* of them, the last one met */
    llm_fold_member_t       *next;
    uint64_t                 visit;    /* of the object it was last seen in */
    uint16_t                 place;    /* its rule's; n: it has none */
    uint8_t                  how;
    unsigned                 varied:1; /* GUESS: not all pieces are the same */
    unsigned                 doubtful:1;    /* GUESS: all of several are */
};


struct llm_fold_node_s {
    const llm_fold_rules_t  *rules;
    llm_fold_member_t       *members;  /* in the order to be written */
    llm_fold_node_t         *next;
    uint64_t                 index;
};


/* one fold, from llm_fold_init() to llm_fold_free() */

typedef struct {
    const llm_mem_t         *mem;
    llm_fold_block_t        *blocks;
    u_char                  *pos;      /* free memory of the first one */
    u_char                  *last;
    size_t                   size;     /* of the next one */
    llm_fold_node_t         *root;
    uint64_t                 visits;   /* objects met */
    llm_uint_t               doubts;   /* members that are doubtful */
} llm_fold_t;


/* LLM_OK, LLM_ERROR.  llm_fold_free() is to be called in both cases */
llm_int_t llm_fold_init(llm_fold_t *f, const llm_mem_t *mem,
    const llm_fold_rules_t *rules);
void llm_fold_free(llm_fold_t *f);

/* a copy that lives as long as the fold; data NULL: no memory */
llm_str_t llm_fold_copy(llm_fold_t *f, const llm_str_t *text);

/* One more object, valid, which must outlive the fold.  LLM_DECLINED: it
 * can't be told in one with those before it. */
llm_int_t llm_fold_add(llm_fold_t *f, const llm_str_t *object);

/* the member of a rule; NULL: there was none */
llm_fold_member_t *llm_fold_member(const llm_fold_node_t *node,
    llm_uint_t place);

/* gives a node, or the root if it is NULL, a member with this value, a JSON
 * text that outlives the fold */
llm_int_t llm_fold_set(llm_fold_t *f, llm_fold_node_t *node,
    llm_uint_t place, const llm_str_t *value);

/* The whole, from mem.  LLM_DECLINED: some strings were joined that may have
 * been one, told several times. */
llm_int_t llm_fold_end(const llm_fold_t *f, llm_str_t *out);


#endif /* _LLM_FOLD_H_INCLUDED_ */
