
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Points and lengths of time as they stand in headers.  strptime() would read
 * names of days and months by the locale, and timegm() is not everywhere.
 */


#include <string.h>

#include "llm_time.h"


typedef struct {
    uint64_t               year;
    uint64_t               mon;        /* 1 to 12 */
    uint64_t               day;
    uint64_t               hour;
    uint64_t               min;
    uint64_t               sec;
} llm_tm_t;


static const u_char *llm_time_read(const u_char *p, const u_char *last,
    const char *format, llm_tm_t *tm);
static const u_char *llm_time_field(const u_char *p, const u_char *last,
    char field, llm_tm_t *tm);
static const u_char *llm_time_digits(const u_char *p, const u_char *last,
    llm_uint_t n, uint64_t *value);
static const u_char *llm_time_name(const u_char *p, const u_char *last,
    const char *const *names, size_t len, uint64_t *value);
static int64_t llm_time_epoch(const llm_tm_t *tm);
static const u_char *llm_time_fraction(const u_char *p, const u_char *last,
    uint64_t *ms);
static const u_char *llm_time_offset(const u_char *p, const u_char *last,
    int64_t *ms);


typedef struct {
    llm_str_t              name;
    uint64_t               num;        /* of ms */
    uint64_t               den;
} llm_time_unit_t;


/* Go's, which OpenAI's headers are written with, and days; those that begin
 * another come after it */

static const llm_time_unit_t  llm_time_units[] = {
    { llm_string("ms"), 1, 1 },
    { llm_string("s"), 1000, 1 },
    { llm_string("m"), 60000, 1 },
    { llm_string("h"), 3600000, 1 },
    { llm_string("d"), 86400000, 1 },
    { llm_string("us"), 1, 1000 },
    { llm_string("\xc2\xb5s"), 1, 1000 },
    { llm_string("ns"), 1, 1000000 },
    { llm_null_string, 0, 0 }
};


static const char  *const llm_time_months[] = {
    "jan", "feb", "mar", "apr", "may", "jun",
    "jul", "aug", "sep", "oct", "nov", "dec", NULL
};


static const char  *const llm_time_days[] = {
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday",
    "sunday", NULL
};


llm_int_t
llm_time_number(const u_char **p, const u_char *last, uint64_t num,
    uint64_t den, uint64_t *ms)
{
    uint64_t       n, part, scale;
    const u_char  *q;

    q = *p;
    n = 0;
    part = 0;
    scale = 1;

    if (q == last || *q < '0' || *q > '9') {
        return LLM_DECLINED;
    }

    for ( /* void */ ; q < last && *q >= '0' && *q <= '9'; q++) {
        n = n * 10 + (*q - '0');

        if (n > LLM_TIME_MAX) {
            n = LLM_TIME_MAX;
        }
    }

    if (last - q > 1 && *q == '.' && q[1] >= '0' && q[1] <= '9') {

        for (q++; q < last && *q >= '0' && *q <= '9'; q++) {

            /* what is not seen by a day's 10^-9 is not seen */

            if (scale < 1000000000) {
                part = part * 10 + (*q - '0');
                scale *= 10;
            }
        }
    }

    *p = q;

    if (n > LLM_TIME_MAX / num) {
        *ms = LLM_TIME_MAX / den;
        return LLM_OK;
    }

    n = n * num + (part * num + scale - 1) / scale;
    n = (n + den - 1) / den;

    *ms = (n < LLM_TIME_MAX) ? n : LLM_TIME_MAX;

    return LLM_OK;
}


int64_t
llm_time_duration(const llm_str_t *text)
{
    uint64_t                sum, ms;
    const u_char           *p, *q, *last;
    const llm_time_unit_t  *unit;

    sum = 0;
    p = text->data;
    last = p + text->len;

    if (p == last) {
        return -1;
    }

    while (p < last) {

        /* the unit comes after its number */

        q = p;

        while (q < last && ((*q >= '0' && *q <= '9') || *q == '.')) {
            q++;
        }

        for (unit = llm_time_units; unit->name.len; unit++) {
            if ((size_t) (last - q) >= unit->name.len
                && memcmp(q, unit->name.data, unit->name.len) == 0)
            {
                break;
            }
        }

        if (unit->name.len == 0
            || llm_time_number(&p, last, unit->num, unit->den, &ms) != LLM_OK
            || p != q)
        {
            return -1;
        }

        p += unit->name.len;
        sum += ms;

        if (sum > LLM_TIME_MAX) {
            sum = LLM_TIME_MAX;
        }
    }

    return (int64_t) sum;
}


int64_t
llm_time_http(const llm_str_t *text, uint64_t now)
{
    int64_t                    sec;
    uint64_t                   year;
    llm_tm_t                   tm;
    llm_uint_t                 i;
    const u_char              *last;
    static const char  *const  formats[] = {
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y"
    };

    last = text->data + text->len;

    for (i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {

        if (llm_time_read(text->data, last, formats[i], &tm) != last) {
            continue;
        }

        if (i == 1) {

            /* RFC 9110: what seems to be more than 50 years ahead is past;
             * the year of now may be wrong by a day, which is not 50 years */

            year = 1970 + now / 86400000 * 400 / 146097;
            tm.year += year / 100 * 100;

            if (tm.year > year + 50) {
                tm.year -= 100;

            } else if (tm.year + 100 <= year + 50) {
                tm.year += 100;
            }
        }

        sec = llm_time_epoch(&tm);

        return sec < 0 ? -1 : sec * 1000;
    }

    return -1;
}


int64_t
llm_time_rfc3339(const llm_str_t *text)
{
    int64_t        ms, offset;
    uint64_t       part;
    llm_tm_t       tm;
    const u_char  *p, *last;

    p = text->data;
    last = p + text->len;

    p = llm_time_read(p, last, "%Y-%m-%dT%H:%M:%S", &tm);

    if (p == NULL) {
        return -1;
    }

    ms = llm_time_epoch(&tm);
    p = llm_time_fraction(p, last, &part);
    p = llm_time_offset(p, last, &offset);

    if (ms < 0 || p != last) {
        return -1;
    }

    ms = ms * 1000 + (int64_t) part - offset;

    return ms < 0 ? 0 : ms;
}


/* strptime(), as far as it is needed; NULL: it does not match.  Letters match
 * in any case. */

static const u_char *
llm_time_read(const u_char *p, const u_char *last, const char *format,
    llm_tm_t *tm)
{
    u_char  ch;

    memset(tm, 0, sizeof(llm_tm_t));

    for ( /* void */ ; *format; format++) {

        if (*format == '%') {
            p = llm_time_field(p, last, *++format, tm);

            if (p == NULL) {
                return NULL;
            }

            continue;
        }

        if (p == last) {
            return NULL;
        }

        ch = *p++;

        if (ch != (u_char) *format
            && !(ch >= 'a' && ch <= 'z' && (ch & ~0x20) == *format))
        {
            return NULL;
        }
    }

    return p;
}


static const u_char *
llm_time_field(const u_char *p, const u_char *last, char field, llm_tm_t *tm)
{
    uint64_t  day;

    switch (field) {

    case 'a':
        return llm_time_name(p, last, llm_time_days, 3, &day);

    case 'A':
        return llm_time_name(p, last, llm_time_days, 0, &day);

    case 'b':
        return llm_time_name(p, last, llm_time_months, 3, &tm->mon);

    case 'd':
        return llm_time_digits(p, last, 2, &tm->day);

    case 'e':

        if (p < last && *p == ' ') {
            return llm_time_digits(p + 1, last, 1, &tm->day);
        }

        return llm_time_digits(p, last, 2, &tm->day);

    case 'm':
        return llm_time_digits(p, last, 2, &tm->mon);

    case 'Y':
        return llm_time_digits(p, last, 4, &tm->year);

    case 'y':
        return llm_time_digits(p, last, 2, &tm->year);

    case 'H':
        return llm_time_digits(p, last, 2, &tm->hour);

    case 'M':
        return llm_time_digits(p, last, 2, &tm->min);

    default: /* 'S' */
        return llm_time_digits(p, last, 2, &tm->sec);
    }
}


static const u_char *
llm_time_digits(const u_char *p, const u_char *last, llm_uint_t n,
    uint64_t *value)
{
    *value = 0;

    for ( /* void */ ; n; n--, p++) {

        if (p == last || *p < '0' || *p > '9') {
            return NULL;
        }

        *value = *value * 10 + (*p - '0');
    }

    return p;
}


/* len: how much of the names is written; 0: all.  *value is from 1 */

static const u_char *
llm_time_name(const u_char *p, const u_char *last, const char *const *names,
    size_t len, uint64_t *value)
{
    size_t      i, n;
    llm_uint_t  k;

    for (k = 0; names[k]; k++) {
        n = len ? len : strlen(names[k]);

        if ((size_t) (last - p) < n) {
            continue;
        }

        for (i = 0; i < n && (p[i] | 0x20) == (u_char) names[k][i]; i++) {
            /* void */
        }

        if (i == n) {
            *value = k + 1;
            return p + n;
        }
    }

    return NULL;
}


/* seconds of the epoch, 0 for what lies before it; -1: no such time */

static int64_t
llm_time_epoch(const llm_tm_t *tm)
{
    uint64_t              year, days;
    static const uint8_t  length[] = {
        31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31
    };

    /* 60: a leap second */

    if (tm->mon < 1 || tm->mon > 12 || tm->day < 1
        || tm->day > length[tm->mon - 1]
        || tm->hour > 23 || tm->min > 59 || tm->sec > 60)
    {
        return -1;
    }

    if (tm->mon == 2 && tm->day == 29
        && (tm->year % 4 || (tm->year % 100 == 0 && tm->year % 400)))
    {
        return -1;
    }

    if (tm->year < 1970) {
        return 0;
    }

    /* years begin in March: the odd day is the last one */

    year = tm->year - (tm->mon <= 2);
    days = year * 365 + year / 4 - year / 100 + year / 400
           + (153 * (tm->mon > 2 ? tm->mon - 3 : tm->mon + 9) + 2) / 5
           + tm->day - 1 - 719468;

    return (int64_t) (((days * 24 + tm->hour) * 60 + tm->min) * 60 + tm->sec);
}


static const u_char *
llm_time_fraction(const u_char *p, const u_char *last, uint64_t *ms)
{
    uint64_t  unit;

    *ms = 0;

    if (last - p < 2 || *p != '.' || p[1] < '0' || p[1] > '9') {
        return p;
    }

    unit = 100;

    for (p++; p < last && *p >= '0' && *p <= '9'; p++) {
        *ms += unit * (*p - '0');
        unit /= 10;
    }

    return p;
}


/* "Z" or "+01:00"; NULL: neither */

static const u_char *
llm_time_offset(const u_char *p, const u_char *last, int64_t *ms)
{
    u_char    sign;
    llm_tm_t  tm;

    *ms = 0;

    if (p == last) {
        return NULL;
    }

    sign = *p++;

    if (sign == 'Z' || sign == 'z') {
        return p;
    }

    if (sign != '+' && sign != '-') {
        return NULL;
    }

    p = llm_time_read(p, last, "%H:%M", &tm);

    if (p == NULL || tm.hour > 23 || tm.min > 59) {
        return NULL;
    }

    *ms = (int64_t) (tm.hour * 60 + tm.min) * 60000;

    if (sign == '-') {
        *ms = -*ms;
    }

    return p;
}
