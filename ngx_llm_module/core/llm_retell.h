
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the files that fold and unfold a dialect's answers share.  All of it
 * works on texts that lie in one piece and points into them.
 */


#ifndef _LLM_RETELL_H_INCLUDED_
#define _LLM_RETELL_H_INCLUDED_


#include "llm_dialect.h"


#define LLM_RETELL_ITEMS    1024         /* blocks or output items */
#define LLM_RETELL_MEMBERS  64           /* of an object that is looked into */

/* of nesting: what is taken out of an event, or put into one, is nested
 * deeper then, and must be readable still */

#define LLM_RETELL_DEPTH        (LLM_JSON_DEPTH_MAX - 8)
#define LLM_RETELL_PLAIN_DEPTH  (LLM_JSON_DEPTH_MAX - 16)


/* an array that grows; its items move then */

typedef struct {
    void                  *items;
    llm_uint_t             n;
    llm_uint_t             size;       /* items that there is room for */
} llm_list_t;

/* the new last item, not set to anything; NULL: no memory */
void *llm_list_push(llm_list_t *list, const llm_mem_t *mem, size_t item);
void llm_list_free(llm_list_t *list, const llm_mem_t *mem);


/* anything but LLM_OK ends the walk */

typedef llm_int_t (*llm_retell_pt)(void *data, const llm_event_t *ev);

/*
 * Tells each event that has data, which lies in text or, if it has several
 * lines, in *joined: memory of mem, NULL if there was no need, that the caller
 * gives back, whatever was returned.  LLM_DECLINED: an event is cut off.
 */
llm_int_t llm_retell_events(const llm_str_t *text, const llm_mem_t *mem,
    llm_retell_pt handler, void *data, u_char **joined);
void llm_retell_free(u_char *joined, const llm_mem_t *mem);

/* The members of an object of a valid text.  LLM_DECLINED: it is none, has
 * others than those named, or one twice. */
llm_int_t llm_retell_members(const llm_str_t *object, const llm_str_t *names,
    llm_json_value_t *values, llm_uint_t n);

/* 1 if it is an object of at most LLM_RETELL_MEMBERS, whose names are written
 * without escapes, each one once: names can be compared as they stand */
llm_uint_t llm_retell_simple(const llm_json_value_t *value);

/* 1 if it is an array of at most LLM_RETELL_ITEMS objects, null or absent */
llm_uint_t llm_retell_objects(const llm_json_value_t *value);

/* the inside of a string, as it is written; of anything else nothing */
llm_str_t llm_retell_inside(const llm_json_value_t *value);

/* 1 if the string has an escape that is half of a code point without the
 * other half: unescaped it would be lost */
llm_uint_t llm_retell_lone(const llm_str_t *string);

/* 1 if both are written alike, or absent */
llm_uint_t llm_retell_same(const llm_json_value_t *a,
    const llm_json_value_t *b);


/* how many code points a piece of a text of len bytes has */
size_t llm_retell_size(size_t len);

/*
 * The next piece, of n code points, of the inside of a string or of any valid
 * JSON text.  It does not end within an escape, nor between two that are one
 * code point.  LLM_DONE: there is none.
 */
llm_int_t llm_retell_piece(const llm_str_t *text, size_t *offset, size_t n,
    llm_str_t *piece);

/* begins an event: its type as field and as member; the rest of the object
 * and llm_retell_end() follow */
void llm_retell_event(llm_out_t *o, const char *type);
void llm_retell_end(llm_out_t *o);

/* a value as it is; if it has line ends, without whitespace between tokens,
 * since a line end would end a line of the event */
void llm_retell_value(llm_out_t *o, const llm_str_t *raw);

/* ,"name": or, with *first, which it clears, "name":  */
void llm_retell_name(llm_out_t *o, const llm_str_t *name, llm_uint_t *first);


#endif /* _LLM_RETELL_H_INCLUDED_ */
