
/*
 * llm_mock: a stand-in for OpenAI's and Anthropic's HTTP APIs.
 *
 * One process, one epoll loop, no threads.  A connection carries one request
 * at a time, so the request lives inside the connection; a stream costs about
 * 2 KB here besides its socket.  Bytes are generated into one shared scratch
 * buffer and written at once; only what the socket refused is kept.
 */

#ifndef _LLM_MOCK_H_INCLUDED_
#define _LLM_MOCK_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>


typedef unsigned char         u_char;
typedef struct mock_conn_s    mock_conn_t;
typedef struct mock_req_s     mock_req_t;
typedef struct mock_listen_s  mock_listen_t;
typedef struct ssl_st         mock_ssl_t;

#define MOCK_OK     0
#define MOCK_ERROR  -1
#define MOCK_AGAIN  -2
#define MOCK_DONE   -4

#define MOCK_HEAD_MAX     65536          /* request head */
#define MOCK_READ_SIZE    262144         /* one recv() */
#define MOCK_BATCH        65536          /* generated before each send() */
#define MOCK_TURN         (1 << 20)      /* then other connections' turn */
#define MOCK_BODY_MAX     (200 << 20)    /* request body */
#define MOCK_LAST_BODY    (4 << 20)      /* kept for /_mock/last_body */
#define MOCK_KEEP_BODY    (64 << 20)     /* the same with keep=1 */
#define MOCK_LAST_ANSWER  (8 << 20)      /* kept for last_response_body */
#define MOCK_POOL         65536          /* filler text, then repeated */
#define MOCK_RING         64             /* /_mock/requests */
#define MOCK_FOREVER      INT64_MAX


typedef struct {
    u_char           *data;
    size_t            len;
    size_t            cap;
} mock_buf_t;


/* Every number is -1 when not given; times are in microseconds. */

typedef struct {
    int64_t           delay, first, gap, heartbeat;
    int64_t           events, size, total, big_event, thinking;
    int64_t           tools, turns, obfuscation, azure, usage;
    int64_t           prompt_tokens, cached, dim, count;
    int64_t           status, fault, at, fails, flap;
    int64_t           plain, stream_framing, keepalive, limits, chunk;
    int64_t           eol, bom, comments, multiline, no_last_newline;
    int64_t           split, split_head, rate, read_rate;
    int64_t           ids, named, unknown, seed, keep, early, prefill;
    int64_t           derive;
    const char       *text, *body, *code, *message, *finish;
    const char       *retry_after, *retry_after_ms, *should_retry;
    const char       *headers, *key;
    const char       *tool, *args, *tool2, *args2;
} mock_ctl_t;


enum {
    MOCK_FAULT_NONE = 0,
    MOCK_FAULT_RESET,
    MOCK_FAULT_CLOSE,
    MOCK_FAULT_HANG,
    MOCK_FAULT_HANG_HEAD,
    MOCK_FAULT_CLOSE_MID_HEAD,
    MOCK_FAULT_BAD_HEAD,
    MOCK_FAULT_ERROR200,
    MOCK_FAULT_ERROR_FIRST,
    MOCK_FAULT_ERROR_EVENT,
    MOCK_FAULT_CUT,
    MOCK_FAULT_CLEAN_CUT,
    MOCK_FAULT_RESET_MID,
    MOCK_FAULT_STALL,
    MOCK_FAULT_MALFORMED,
    MOCK_FAULT_NO_DONE,
    MOCK_FAULT_NO_FINISH,
    MOCK_FAULT_NOT_SSE,
    MOCK_FAULT_GZIP,
    MOCK_FAULT_NO_STREAM_OPTIONS,
    MOCK_FAULT_SHORT,
    MOCK_FAULT_LONG,
    MOCK_FAULT_DONE_OPEN,
    MOCK_FAULT_HALF_CLOSE_IDLE,
    MOCK_FAULT_CLOSE_AFTER
};

enum { MOCK_PREFILL_OFF = 0, MOCK_PREFILL_ON, MOCK_PREFILL_400 };
enum { MOCK_USAGE_OFF = 0, MOCK_USAGE_LAST, MOCK_USAGE_CHUNK };
enum { MOCK_FRAME_LENGTH = 0, MOCK_FRAME_CHUNKED, MOCK_FRAME_CLOSE };
enum { MOCK_EOL_LF = 0, MOCK_EOL_CRLF, MOCK_EOL_CR };


/* What the tolerant scanner found in a JSON request body. */

typedef struct {
    u_char            state;          /* sw_ of json.c */
    u_char            escape;         /* 1 after '\', 2..5 inside \uXXXX */
    u_char            is_key;         /* the string being read is a key */
    u_char            capture;        /* its bytes are wanted */
    uint16_t          depth;
    uint16_t          unit;           /* value of \uXXXX so far */
    uint16_t          high;           /* the first one of a pair */
    u_char            key[8];         /* id of the current key, by depth */
    u_char            stack[64];      /* one bit a level: 1 is an object */
    u_char            text_len;
    char              text[64];       /* current key, number or string */

    u_char            tool_name_len[2];
    char              tool_name[2][64];
    char             *model;          /* raw, escapes as sent */
    size_t            model_len;
    size_t            model_cap;
    char              model_buf[96];
    mock_buf_t        tail;           /* prefill=: text of the last message */
    uint64_t          tail_said;      /* bytes of filler that were in it */
    int64_t           max_tokens;
    int64_t           dimensions;
    uint32_t          tool_results;
    uint32_t          inputs;         /* elements of embeddings' input */
    uint32_t          tools;
    unsigned          started:1;
    unsigned          bad:1;
    unsigned          object:1;       /* the top level is an object */
    unsigned          has_model:1;
    unsigned          has_messages:1;
    unsigned          has_input:1;
    unsigned          has_prompt:1;
    unsigned          has_stream_options:1;
    unsigned          stream:1;
    unsigned          include_usage:1;
    unsigned          no_obfuscation:1;
    unsigned          base64:1;
    unsigned          want_tail:1;
    unsigned          in_tail:1;      /* the string being read is of it */
    unsigned          tail_assistant:1;
} mock_json_t;


enum {
    MOCK_STAGE_PRE = 0,     /* events before the first block */
    MOCK_STAGE_OPEN,        /* of a block */
    MOCK_STAGE_DELTA,
    MOCK_STAGE_CLOSE,
    MOCK_STAGE_POST,
    MOCK_STAGE_END
};

enum { MOCK_BLOCK_TEXT = 0, MOCK_BLOCK_TOOL, MOCK_BLOCK_THINK };


/* Where a stream stands; copied to measure a stream's length beforehand. */

typedef struct {
    uint64_t          rng;
    uint32_t          i;              /* event within the stage */
    uint32_t          sent;           /* content events so far */
    uint32_t          seqno;          /* sequence_number, id: field */
    uint32_t          waits;          /* pauses so far */
    u_char            stage;
    u_char            block;
    u_char            waited;         /* the pause before this event is over */
} mock_gen_t;


typedef struct {
    const char       *name;
    const char       *path;
    u_char            anthropic;      /* dialect of heads and errors */
    u_char            named;          /* events carry an event: field */
    u_char            open_content;   /* a block opens with the first token */
    u_char            open_shown;     /* the first block ends the preamble */
    u_char            streams;
    u_char            json;           /* the body is JSON with a model */
    u_char            pre, post;      /* number of events, below by block */
    u_char            open[3], close[3];

    /* plain: the body is prefix, r->fill_len bytes made by fill, suffix */
    void            (*plan)(mock_req_t *r);
    void            (*prefix)(mock_req_t *r, mock_buf_t *b);
    void            (*fill)(mock_req_t *r, mock_buf_t *b, size_t n);
    void            (*suffix)(mock_req_t *r, mock_buf_t *b);

    /* stream: appends the JSON of one event, returns its name or NULL;
     * leaves b empty when there is none, "[DONE]" is written as it is */
    const char     *(*event)(mock_req_t *r, mock_buf_t *b);
    const char     *(*error_event)(mock_req_t *r, mock_buf_t *b);
} mock_api_t;


enum {
    MOCK_STEP_START = 0,    /* waiting for delay=, nothing sent */
    MOCK_STEP_BODY,
    MOCK_STEP_END
};

/* Where a control came from; a higher level wins. */

enum {
    MOCK_LEVEL_PORT = 0,
    MOCK_LEVEL_MODEL,
    MOCK_LEVEL_QUERY,
    MOCK_LEVEL_HEADER,
    MOCK_LEVEL_PATH
};

#define MOCK_CONTROLS  64

enum { MOCK_END_KEEP = 0, MOCK_END_FIN, MOCK_END_RST, MOCK_END_LINGER };


struct mock_req_s {
    mock_ctl_t        ctl;
    mock_json_t       json;
    mock_gen_t        gen;
    const mock_api_t *api;
    mock_conn_t      *conn;
    uint64_t          seq;            /* of all requests */
    uint64_t          id_seed;
    uint64_t          created;        /* seconds since the epoch */
    int64_t           clock;          /* schedule of the stream's events */
    int64_t           due;            /* nothing is generated before */
    int64_t           beat;           /* next heartbeat */
    uint64_t          body_len;
    uint64_t          body_left;      /* of Content-Length or of a chunk */
    uint64_t          fill_off;
    uint64_t          fill_len;
    uint64_t          produced;       /* body bytes, before framing */
    uint64_t          limit;          /* a plain body is cut here */
    uint64_t          count;          /* embeddings in the answer */
    uint32_t          crc;            /* of the request body, or gzip's */
    uint32_t          gzip_size;
    uint32_t          dim;
    uint32_t          status;
    uint32_t          events;
    uint64_t          size;
    uint64_t          total;          /* bytes of content */
    uint64_t          derived;        /* derive=: hash of the question */
    mock_buf_t        question;       /* derive=: the body, then the text */
    const char       *param;          /* named by an error */
    char             *strs[20];       /* control values to be freed */
    u_char            level[MOCK_CONTROLS];
    char              bad_control[40];
    char              id[40];         /* last segment of responses/{id} */
    u_char            nstrs;
    u_char            method;
    u_char            step;
    u_char            end;
    u_char            framing;
    u_char            chunk_state;
    u_char            blocks;         /* of the answer */
    u_char            tools;          /* tool calls in the answer */
    u_char            turn;           /* tool results seen, in turns */
    u_char            plain_part;
    unsigned          streaming:1;
    unsigned          stream_error:1;
    unsigned          limited:1;      /* max_tokens cut the answer */
    unsigned          http10:1;
    unsigned          chunked:1;      /* request body */
    unsigned          close_asked:1;  /* Connection: close in the request */
    unsigned          close:1;        /* and in the answer */
    unsigned          keep10:1;       /* Connection: keep-alive */
    unsigned          expect:1;
    unsigned          control:1;      /* /_mock/ */
    unsigned          anthropic:1;    /* anthropic-version seen */
    unsigned          head_sent:1;
    unsigned          counted:1;      /* in open_streams */
    unsigned          measure:1;
    unsigned          rude:1;         /* FIN without TLS close_notify */
    unsigned          gzip:1;
    unsigned          gzip_open:1;
    unsigned          overlong:1;     /* body over MOCK_BODY_MAX */
};


enum {
    MOCK_CONN_TLS = 0,      /* handshake */
    MOCK_CONN_HEAD,         /* idle or reading a head */
    MOCK_CONN_BODY,
    MOCK_CONN_ANSWER,
    MOCK_CONN_LINGER,
    MOCK_CONN_DEAD
};


struct mock_conn_s {
    int               fd;
    int               timer;          /* place in the heap, -1 if none */
    int64_t           timer_at;
    mock_listen_t    *listen;
    mock_ssl_t       *ssl;
    mock_conn_t      *next;           /* free list */
    mock_buf_t        in;             /* bytes of the next head so far */
    mock_buf_t        pend;           /* what the socket refused */
    size_t            pend_pos;
    size_t            pace_free;      /* bytes that are not paced: the head */
    int64_t           pace_at;        /* no paced byte before */
    uint64_t          nin;
    u_char            state;
    unsigned          readable:1;
    unsigned          known:1;        /* its first head was seen */
    unsigned          control:1;      /* its first request was /_mock/ */
    unsigned          gone:1;         /* the peer closed */
    mock_req_t        req;
};


struct mock_listen_s {
    int               fd;
    int               port;
    u_char            tls;
    mock_ctl_t        ctl;            /* defaults, /_mock/set */
    uint64_t          connections;
    uint64_t          requests;
    uint64_t          aborted;
};


typedef struct {
    uint64_t          connections, open_connections;
    uint64_t          requests, streams, open_streams, max_open_streams;
    uint64_t          aborted, last_abort_ms, last_abort_mono_us;
    uint64_t          bytes_in, bytes_out;
    uint64_t          tls_handshakes, tls_resumed;
} mock_stats_t;


typedef struct {
    uint64_t          seq;
    uint64_t          t_ms;
    uint32_t          status;
    u_char            method;
    u_char            stream;
    u_char            aborted;
    u_char            done;
    uint16_t          port;
    uint16_t          uri_len;
    char              uri[256];
} mock_record_t;


typedef struct {
    int               epoll;
    int64_t           now;            /* monotonic, microseconds */
    uint64_t          seq;
    uint64_t          last_seq;       /* owner of the last_ buffers */
    mock_stats_t      stats;
    mock_listen_t     listens[32];
    int               nlistens;
    int64_t           gap, events, size;    /* -d, -n, -b */
    mock_buf_t        out;            /* scratch: bytes to send */
    mock_buf_t        ev;             /* scratch: the JSON of an event */
    mock_buf_t        wire;           /* scratch: the event as sent */
    mock_buf_t        last_head;
    mock_buf_t        last_body;
    mock_buf_t        last_answer;
    u_char            last_body_over;
    u_char            last_answer_over;
    mock_record_t     ring[MOCK_RING];
    u_char            pool[MOCK_POOL];
} mock_t;

extern mock_t  mock;


/* buf.c */
void mock_buf_reserve(mock_buf_t *b, size_t n);
void mock_buf_num(mock_buf_t *b, uint64_t n);
void mock_buf_hex(mock_buf_t *b, uint64_t n, int digits);
void mock_buf_json(mock_buf_t *b, const char *p, size_t n);
void mock_buf_pool(mock_buf_t *b, uint64_t off, size_t n);
void mock_buf_free(mock_buf_t *b);
uint64_t mock_random(uint64_t *state);
void mock_buf_id(mock_buf_t *b, uint64_t seed, int n);
uint32_t mock_crc32(uint32_t crc, const u_char *p, size_t n);
int64_t mock_monotonic_us(void);
uint64_t mock_epoch_ms(void);
void mock_pool_init(void);

static inline void
mock_buf_add(mock_buf_t *b, const void *p, size_t n)
{
    if (b->cap - b->len < n) {
        mock_buf_reserve(b, n);
    }

    memcpy(b->data + b->len, p, n);
    b->len += n;
}

#define mock_lit(b, s)  mock_buf_add(b, s, sizeof(s) - 1)
#define mock_str(b, s)  mock_buf_add(b, s, strlen(s))

/* timer.c */
void mock_timer_set(mock_conn_t *c, int64_t at);
void mock_timer_del(mock_conn_t *c);
mock_conn_t *mock_timer_expired(int64_t now);
int64_t mock_timer_next(void);

/* tls.c */
int mock_tls_init(const char *cert, const char *key);
int mock_tls_open(mock_conn_t *c);
int mock_tls_handshake(mock_conn_t *c);
ssize_t mock_tls_recv(mock_conn_t *c, void *p, size_t n);
ssize_t mock_tls_send(mock_conn_t *c, const void *p, size_t n);
void mock_tls_close(mock_conn_t *c, int notify);

/* json.c */
void mock_json_feed(mock_json_t *j, const u_char *p, size_t n);
int mock_json_complete(mock_json_t *j);

/* ctl.c */
void mock_ctl_init(mock_ctl_t *ctl);
int mock_ctl_set(mock_ctl_t *ctl, mock_req_t *r, const char *name, size_t nlen,
    const char *value, size_t vlen, int level);
void mock_ctl_list(mock_req_t *r, const char *p, size_t n, char sep, int level);
void mock_ctl_model(mock_req_t *r);
int mock_ctl_set_listen(mock_listen_t *ls, const char *p, size_t n);
void mock_ctl_free(mock_req_t *r);
int mock_ctl_hits(mock_req_t *r);
void mock_ctl_reset_counters(void);

/* conn.c */
void mock_conn_event(mock_conn_t *c, uint32_t events);
void mock_conn_timer(mock_conn_t *c);
void mock_conn_read(mock_conn_t *c);
void mock_conn_accept(mock_listen_t *ls);
void mock_conn_close(mock_conn_t *c, int rst);
void mock_conn_reap(void);

/* http.c */
int mock_http_head(mock_conn_t *c, u_char *p, size_t len);
ssize_t mock_http_body(mock_conn_t *c, u_char *p, size_t len);
extern const char *mock_methods[];

/* route.c */
const mock_api_t *mock_route(mock_req_t *r, const char *path, size_t len);

/* head.c */
void mock_head(mock_req_t *r, mock_buf_t *b, uint32_t status,
    const char *type, int64_t length);
void mock_error_body(mock_req_t *r, mock_buf_t *b, uint32_t status,
    const char *code, const char *message);

/* out.c */
int mock_out_flush(mock_conn_t *c);
void mock_out_body(mock_req_t *r, const u_char *p, size_t n);
void mock_out_end(mock_req_t *r);

/* answer.c */
void mock_answer(mock_conn_t *c);
void mock_pump(mock_conn_t *c);
void mock_finish(mock_conn_t *c, int aborted);

/* stream.c */
int mock_stream_step(mock_req_t *r);
uint64_t mock_stream_measure(mock_req_t *r);
void mock_stream_heartbeat(mock_req_t *r);
uint32_t mock_block_type(mock_req_t *r, uint32_t block);
uint32_t mock_block_events(mock_req_t *r, uint32_t block);

/* content.c */
void mock_plan(mock_req_t *r);
void mock_text(mock_req_t *r, mock_buf_t *b, uint32_t k);
void mock_text_all(mock_req_t *r, mock_buf_t *b);
void mock_text_fill(mock_req_t *r, mock_buf_t *b, size_t n);
const char *mock_tool_name(mock_req_t *r, uint32_t call);
const char *mock_tool_args(mock_req_t *r, uint32_t call);
void mock_tool_slice(mock_req_t *r, mock_buf_t *b, uint32_t call, uint32_t k);
void mock_model(mock_req_t *r, mock_buf_t *b);
void mock_obfuscation(mock_req_t *r, mock_buf_t *b);
uint32_t mock_tokens_in(mock_req_t *r);
uint32_t mock_tokens_out(mock_req_t *r);
uint64_t mock_text_base(mock_req_t *r);

/* prefill.c */
void mock_prefill_add(mock_json_t *j, const void *p, size_t n);
void mock_prefill_unit(mock_json_t *j);
const char *mock_prefill_refused(mock_req_t *r);
void mock_prefill_plan(mock_req_t *r);

/* derive.c */
void mock_derive_body(mock_req_t *r, const void *p, size_t n);
void mock_derive_plan(mock_req_t *r);

/* api.c: GET /_mock/... */
void mock_api_answer(mock_conn_t *c, mock_buf_t *b, const char **type);
int mock_api_match(mock_req_t *r, const char *path, size_t len);
mock_record_t *mock_record(mock_req_t *r);

/* the providers */
extern const mock_api_t  mock_chat, mock_completions, mock_embeddings;
extern const mock_api_t  mock_responses, mock_response_get;
extern const mock_api_t  mock_response_delete, mock_compact;
extern const mock_api_t  mock_models, mock_models_anthropic, mock_model_get;
extern const mock_api_t  mock_files, mock_file_list, mock_batches;
extern const mock_api_t  mock_batch_list;
extern const mock_api_t  mock_messages, mock_count_tokens;
extern const mock_api_t  mock_unknown, mock_not_allowed, mock_probe;


#endif /* _LLM_MOCK_H_INCLUDED_ */
