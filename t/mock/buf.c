
/*
 * Growing buffers, filler text, ids, checksums, clocks.  Allocation failure
 * ends the process: a test tool has nothing better to do.
 */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mock.h"


static uint32_t  mock_crc_table[256];


void
mock_buf_reserve(mock_buf_t *b, size_t n)
{
    size_t   cap;
    u_char  *p;

    if (b->cap - b->len >= n && b->data != NULL) {
        return;
    }

    cap = b->cap ? b->cap : 256;

    while (cap - b->len < n) {
        cap *= 2;
    }

    p = realloc(b->data, cap);
    if (p == NULL) {
        perror("llm_mock: realloc");
        exit(1);
    }

    b->data = p;
    b->cap = cap;
}


void
mock_buf_free(mock_buf_t *b)
{
    free(b->data);
    memset(b, 0, sizeof(mock_buf_t));
}


void
mock_buf_num(mock_buf_t *b, uint64_t n)
{
    u_char  *p, tmp[20];

    p = tmp + sizeof(tmp);

    do {
        *--p = (u_char) ('0' + n % 10);
        n /= 10;
    } while (n);

    mock_buf_add(b, p, tmp + sizeof(tmp) - p);
}


/* digits: fixed width, or 0 for as many as it takes */

void
mock_buf_hex(mock_buf_t *b, uint64_t n, int digits)
{
    u_char  *p, tmp[16];

    p = tmp + sizeof(tmp);

    do {
        *--p = (u_char) "0123456789abcdef"[n & 15];
        n >>= 4;
    } while (p > tmp && (digits ? tmp + sizeof(tmp) - p < digits : n != 0));

    mock_buf_add(b, p, tmp + sizeof(tmp) - p);
}


void
mock_buf_json(mock_buf_t *b, const char *p, size_t n)
{
    u_char       ch;
    const char  *end;

    for (end = p + n; p < end; p++) {
        ch = (u_char) *p;

        switch (ch) {

        case '"':
        case '\\':
            mock_lit(b, "\\");
            mock_buf_add(b, p, 1);
            break;

        case '\n':
            mock_lit(b, "\\n");
            break;

        case '\r':
            mock_lit(b, "\\r");
            break;

        case '\t':
            mock_lit(b, "\\t");
            break;

        default:
            if (ch < 0x20) {
                mock_lit(b, "\\u00");
                mock_buf_hex(b, ch, 2);

            } else {
                mock_buf_add(b, p, 1);
            }
        }
    }
}


void
mock_pool_init(void)
{
    int       j;
    size_t    i, n;
    uint32_t  k, c;
    char      word[16];

    for (i = 0, k = 1; i < MOCK_POOL; i += n, k++) {
        n = (size_t) snprintf(word, sizeof(word), "w%05u%c", k,
                              k % 12 ? ' ' : '.');
        if (n > MOCK_POOL - i) {
            n = MOCK_POOL - i;
        }

        memcpy(mock.pool + i, word, n);
    }

    for (k = 0; k < 256; k++) {
        for (c = k, j = 0; j < 8; j++) {
            c = (c & 1) ? (c >> 1) ^ 0xedb88320 : c >> 1;
        }

        mock_crc_table[k] = c;
    }
}


void
mock_buf_pool(mock_buf_t *b, uint64_t off, size_t n)
{
    size_t  pos, len;

    pos = off % MOCK_POOL;
    mock_buf_reserve(b, n);

    while (n) {
        len = MOCK_POOL - pos;
        if (len > n) {
            len = n;
        }

        mock_buf_add(b, mock.pool + pos, len);
        n -= len;
        pos = 0;
    }
}


/* splitmix64 */

uint64_t
mock_random(uint64_t *state)
{
    uint64_t  z;

    z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return z ^ (z >> 31);
}


void
mock_buf_id(mock_buf_t *b, uint64_t seed, int n)
{
    int       i;
    uint64_t  v;
    u_char   *p;

    static const char  alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "abcdefghijklmnopqrstuvwxyz0123456789AB";

    mock_buf_reserve(b, (size_t) n);
    p = b->data + b->len;
    b->len += (size_t) n;

    for (i = 0, v = 0; i < n; i++, v >>= 6) {
        if (i % 10 == 0) {
            v = mock_random(&seed);
        }

        p[i] = (u_char) alphabet[v & 63];
    }
}


uint32_t
mock_crc32(uint32_t crc, const u_char *p, size_t n)
{
    crc = ~crc;

    while (n--) {
        crc = mock_crc_table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
    }

    return ~crc;
}


int64_t
mock_monotonic_us(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


uint64_t
mock_epoch_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}
