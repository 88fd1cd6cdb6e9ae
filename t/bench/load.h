
/*
 * llm_load: the load client of "make bench".  One process, one epoll loop.
 *
 * load.c       options, the loop, opening and ending of connections
 * load_conn.c  one connection: writing, the HTTP/1.1 and SSE parsers
 * load_abort.c closing all streams at once and asking the mock about it
 * load_util.c  clocks, histograms, the chat body, CPU of a process
 * load_out.c   the JSON report
 *
 * A load_t lives as long as the process; a load_conn_t is one slot of it,
 * reused when its connection is opened again.
 */


#ifndef LOAD_H_INCLUDED
#define LOAD_H_INCLUDED


#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <netinet/in.h>


#define LOAD_OK          0
#define LOAD_ERROR      -1
#define LOAD_AGAIN      -2

#define LOAD_MS          1000000ULL
#define LOAD_SEC         1000000000ULL

#define LOAD_LINE        1024
#define LOAD_NUMBER      12            /* digits of a request's number */
#define LOAD_PLACES      4             /* of it in one request */
#define LOAD_READ        262144

/* 128 steps per power of two: values are right to 0.8 % */
#define LOAD_HIST_BITS   7
#define LOAD_HIST_SLOTS  ((65 - LOAD_HIST_BITS) << LOAD_HIST_BITS)


typedef struct {
    uint64_t              slots[LOAD_HIST_SLOTS];
    uint64_t              count;
    uint64_t              sum;
    uint64_t              max;
} load_hist_t;


typedef enum {
    LOAD_CLOSED_LOOP = 0,
    LOAD_STREAM,
    LOAD_ABORT
} load_mode_e;


typedef enum {
    LOAD_ERR_CONNECT = 0,
    LOAD_ERR_WRITE,
    LOAD_ERR_READ,
    LOAD_ERR_EOF,
    LOAD_ERR_STATUS,
    LOAD_ERR_FRAMING,
    LOAD_ERR_BROKEN,              /* HTTP ended well, the stream did not */
    LOAD_ERR_TIMEOUT,
    LOAD_ERR_MAX
} load_err_e;


typedef enum {
    LOAD_CONN_NONE = 0,
    LOAD_CONN_CONNECTING,
    LOAD_CONN_ACTIVE,             /* a request is being sent or answered */
    LOAD_CONN_IDLE,               /* open, waits until a request is due */
    LOAD_CONN_END
} load_conn_state_e;


typedef struct {
    int                   fd;
    load_conn_state_e     state;
    unsigned              parse;           /* state of load_parse() */
    unsigned              status;
    size_t                sent;            /* bytes of the request written */
    uint64_t              begun;           /* first byte of the request */
    uint64_t              written;         /* last byte of the request */
    uint64_t              last_event;      /* last event with content */
    uint64_t              rest;            /* of the body or of the chunk */
    uint64_t              body;            /* bytes of body seen */
    uint64_t              served;          /* responses on this connection */
    uint32_t              events;          /* data events but [DONE] */
    uint32_t              contents;        /* events with content */
    uint32_t              line_len;
    unsigned              length:1;
    unsigned              chunked:1;
    unsigned              close:1;
    unsigned              sse:1;
    unsigned              first:1;         /* first data byte was seen */
    unsigned              done:1;          /* data: [DONE] was the last one */
    unsigned              ready:1;         /* has its -k events */
    char                  number[LOAD_NUMBER + 1];
    u_char                line[LOAD_LINE];
} load_conn_t;


/* CPU of the server while all streams were open */

typedef struct {
    uint64_t              cpu;
    uint64_t              time;
    uint64_t              events;
} load_mark_t;


typedef struct {
    load_mode_e           mode;
    struct sockaddr_in    addr;
    struct sockaddr_in    mock;            /* port 0: no mock to ask */
    const char           *host;
    const char           *uri;
    const char           *marker;          /* what an event with content has */
    char                 *headers;
    size_t                headers_len;
    u_char               *request;
    size_t                request_len;
    size_t                places[LOAD_PLACES];     /* of its number */
    uint32_t              nplaces;
    size_t                body_size;
    uint64_t              bodies;          /* different ones, 0: one */
    uint64_t              first;           /* number of the first */
    uint64_t              rate;            /* requests per second, 0: any */
    uint32_t              nconns;
    uint64_t              max_requests;
    uint64_t              duration;        /* ns */
    uint64_t              limit;           /* ns, of the whole run */
    uint64_t              gap;             /* ns, nominal */
    uint32_t              ramp;            /* streams opened per second */
    uint32_t              expect;          /* data events of a whole stream */
    uint32_t              abort_after;     /* events before the abort */
    unsigned              status;
    pid_t                 pid;             /* whose CPU is measured */
    unsigned              rst:1;

    int                   epoll;
    load_conn_t          *conns;
    u_char               *buffer;
    uint64_t              now;
    uint64_t              started;
    uint64_t              ended;
    uint64_t              cpu_started;
    uint64_t              cpu_ended;
    load_mark_t           steady_begin;
    load_mark_t           steady_end;

    uint32_t              opened;          /* slots opened at least once */
    uint32_t              active;          /* slots not at their end */
    uint32_t              firsts;          /* streams with a first event */
    uint32_t              readies;
    uint64_t              begun;           /* requests */
    uint64_t              requests;        /* complete and right */
    uint64_t              connects;
    uint64_t              bytes;
    uint64_t              events;
    uint64_t              contents;
    uint64_t              body_min;
    uint64_t              body_max;
    uint64_t              events_min;
    uint64_t              events_max;
    uint64_t              errors[LOAD_ERR_MAX];
    uint64_t              nerrors;
    char                  first_error[256];

    uint64_t              abort_wall;      /* epoch ms of the first close */
    uint64_t              abort_closing;   /* ns from the first to the last */
    int64_t               abort_reached;   /* the mock saw them end */
    int64_t               abort_delay;     /* us, from the first close */
    unsigned              abort_done:1;
    unsigned              reopen:1;        /* a slot is LOAD_CONN_NONE */
    unsigned              idle:1;          /* a slot is LOAD_CONN_IDLE */
    unsigned              interrupted:1;

    load_hist_t           latency;
    load_hist_t           ttft;            /* first data: byte */
    load_hist_t           token;           /* first event with content */
    load_hist_t           gaps;
    load_hist_t           jitter;
} load_t;


uint64_t load_time(void);
uint64_t load_wall_ms(void);
uint64_t load_cpu(pid_t pid);
void load_hist_add(load_hist_t *h, uint64_t value);
uint64_t load_hist_get(load_hist_t *h, double quantile);
u_char *load_body(size_t size, int stream);

int load_conn_open(load_t *l, load_conn_t *c);
void load_conn_begin(load_t *l, load_conn_t *c);
void load_conn_event(load_t *l, load_conn_t *c, uint32_t events);
void load_conn_close(load_t *l, load_conn_t *c, int rst);
void load_fail(load_t *l, load_conn_t *c, load_err_e class, const char *text);
void load_next(load_t *l, load_conn_t *c);

void load_abort(load_t *l);
void load_report(load_t *l);


#endif /* LOAD_H_INCLUDED */
