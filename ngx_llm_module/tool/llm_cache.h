
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * llm-cache: the operator's command on a cache's directory.  One process, one
 * thread, one command; it may run beside the workers, for it calls the same
 * functions on the file as they do.
 */


#ifndef _LLM_CACHE_H_INCLUDED_
#define _LLM_CACHE_H_INCLUDED_


#include <signal.h>
#include <stdio.h>

#include "store/llm_store.h"


#define LLM_CACHE_VERSION  "0.1.0"

/* exit codes */

#define LLM_CACHE_OK       0
#define LLM_CACHE_ERROR    1
#define LLM_CACHE_USAGE    2

/* what a command does to the file */

#define LLM_CACHE_READ     0
#define LLM_CACHE_WRITE    1
#define LLM_CACHE_CREATE   2


typedef struct llm_cache_s      llm_cache_t;
typedef struct llm_cache_out_s  llm_cache_out_t;


struct llm_cache_s {
    const char            *dir;
    char                 **args;       /* of the command */
    int                    nargs;

    const char            *model;      /* filters of list, or NULL */
    const char            *scope;
    uint64_t               ttl;        /* s: of lines that have none */
    uint64_t               size;       /* of the file's map, 0: not given */

    llm_store_t           *store;
    llm_store_conf_t       conf;
    llm_store_shared_t     shared;     /* of this process alone */

    FILE                  *in;         /* of import */
    FILE                  *out;
    char                  *tmp;        /* the file's name, until it is whole */
    const char            *name;       /* the name it gets */

    unsigned               json:1;
    unsigned               text:1;
    unsigned               all:1;
};


/* ---------------------------------------------------------- llm_cache.c */

/* the signal that asks for an end, 0: none has */
extern volatile sig_atomic_t  llm_cache_signal;


/* ----------------------------------------------------- llm_cache_file.c */

/* All of these say what is wrong, and return an exit code. */

/* the files that the command is given, with the rights of who calls it */
int llm_cache_files(llm_cache_t *c, const char *in, const char *out);
/* Those of the directory's owner from here on, if it was root.  Where a file
 * is to be put into another's directory after that, it goes on in a child,
 * and *waits is 1 in the parent, which has the child's exit code. */
int llm_cache_drop(llm_cache_t *c, int *waits);
/* writes what is left and gives the file its name, or, if the command has
 * failed with code, removes it */
int llm_cache_files_end(llm_cache_t *c, int code);

/* LLM_CACHE_READ, LLM_CACHE_WRITE: there has to be a cache, or
 * LLM_CACHE_CREATE */
int llm_cache_open(llm_cache_t *c, llm_uint_t how);
void llm_cache_close(llm_cache_t *c);


/* ------------------------------------------------------ llm_cache_out.c */

/* one line on stderr */
void llm_cache_error(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));

uint64_t llm_cache_now(void);              /* ms, epoch */


/* a text that grows; once memory has failed nothing is added */

struct llm_cache_out_s {
    u_char                *data;
    size_t                 len;
    size_t                 size;
    unsigned               failed:1;
};

/* room at its end, that the caller fills and adds to len; NULL: no memory */
u_char *llm_cache_reserve(llm_cache_out_t *o, size_t len);
void llm_cache_add(llm_cache_out_t *o, const void *data, size_t len);
void llm_cache_addf(llm_cache_out_t *o, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void llm_cache_add_str(llm_cache_out_t *o, const llm_str_t *s);
/* with quotes */
void llm_cache_add_json(llm_cache_out_t *o, const llm_str_t *s);
void llm_cache_add_hex(llm_cache_out_t *o, const u_char *data, size_t len);
/* for a terminal: no byte that moves its cursor; "-" if there is none */
void llm_cache_add_plain(llm_cache_out_t *o, const llm_str_t *s);
/* LLM_OK, LLM_ERROR: told */
llm_int_t llm_cache_flush(llm_cache_out_t *o, FILE *f);
void llm_cache_out_free(llm_cache_out_t *o);

/* n bytes of hex digits, 2n of them; LLM_DECLINED: it is not that */
llm_int_t llm_cache_hex(u_char *dst, size_t n, const u_char *hex, size_t len);


/* how far it is, on a terminal */

typedef struct {
    uint64_t               entries;
    uint64_t               bytes;
    uint64_t               began;      /* ms */
    uint64_t               told;       /* ms, 0: never */
    unsigned               on:1;
} llm_cache_progress_t;

void llm_cache_progress_begin(llm_cache_progress_t *p);
void llm_cache_progress(llm_cache_progress_t *p, uint64_t bytes);
/* the line is free again */
void llm_cache_progress_end(llm_cache_progress_t *p);


/* memory that is let go as a whole; zeroed at first */

typedef struct llm_cache_chunk_s  llm_cache_chunk_t;

typedef struct {
    llm_cache_chunk_t     *chunks;
    llm_mem_t              mem;        /* set by init; has no free */
} llm_cache_arena_t;

void llm_cache_arena_init(llm_cache_arena_t *a);
void llm_cache_arena_reset(llm_cache_arena_t *a);

extern const llm_mem_t  llm_cache_heap;


/* ------------------------------------------------------------- commands */

int llm_cache_stat(llm_cache_t *c);
int llm_cache_list(llm_cache_t *c);
int llm_cache_get(llm_cache_t *c);
int llm_cache_purge(llm_cache_t *c);
int llm_cache_export(llm_cache_t *c);
int llm_cache_import(llm_cache_t *c);


/* ----------------------------------------------------- llm_cache_line.c */

/* a line of an import becomes an entry */

typedef struct {
    llm_str_t              route;
    llm_str_t              digest;     /* of how its providers are called */
} llm_cache_route_t;

typedef struct {
    llm_cache_arena_t      arena;      /* of the entries */
    llm_cache_route_t     *routes;     /* that the directory knows */
    size_t                 nroutes;
    uint64_t               now;        /* ms: the import began */
    uint64_t               ttl;        /* s */
    unsigned               all:1;      /* those whose time is over, too */
    char                   why[512];
} llm_cache_reader_t;

/* LLM_OK: *e, of the arena; LLM_DONE: its time is over; LLM_DECLINED: why;
 * LLM_ERROR: no memory */
llm_int_t llm_cache_line(llm_cache_reader_t *r, const llm_str_t *line,
    llm_entry_t **e);


/* --------------------------------------------------- llm_cache_answer.c */

/* Sets what e has of the answer, one of the two; e->flags tells its form.  As
 * llm_cache_line() otherwise. */
llm_int_t llm_cache_line_answer(llm_cache_reader_t *r,
    const llm_request_t *rq, const llm_json_value_t *answer,
    const llm_json_value_t *text, llm_entry_t *e);


#endif /* _LLM_CACHE_H_INCLUDED_ */
