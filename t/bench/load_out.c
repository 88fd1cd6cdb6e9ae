
/*
 * The report: one JSON object on standard output, times in microseconds.
 */


#include "load.h"

#include <string.h>


static void load_report_hist(const char *name, load_hist_t *h);
static void load_report_errors(load_t *l);
static void load_report_steady(load_t *l);
static void load_report_string(const char *text);


void
load_report(load_t *l)
{
    double              seconds;
    static const char  *modes[] = { "closed", "stream", "abort" };

    seconds = (double) (l->ended - l->started) / LOAD_SEC;

    printf("{\"mode\":\"%s\",\"interrupted\":%s,\"seconds\":%.6f,"
           "\"connections\":%u,\"connects\":%llu,"
           "\"begun\":%llu,\"requests\":%llu,\"rps\":%.1f,"
           "\"request_body\":%zu,\"body_min\":%llu,\"body_max\":%llu,"
           "\"bytes\":%llu,\"cpu_us\":%.1f,",
           modes[l->mode], l->interrupted ? "true" : "false", seconds,
           l->nconns, (unsigned long long) l->connects,
           (unsigned long long) l->begun, (unsigned long long) l->requests,
           seconds > 0 ? (double) l->requests / seconds : 0.0,
           l->body_size, (unsigned long long) l->body_min,
           (unsigned long long) l->body_max, (unsigned long long) l->bytes,
           (double) (l->cpu_ended - l->cpu_started) / 1000);

    load_report_errors(l);
    load_report_hist("latency", &l->latency);

    if (l->mode != LOAD_CLOSED_LOOP) {
        printf(",\"firsts\":%u,\"events\":%llu,\"contents\":%llu,"
               "\"events_min\":%llu,\"events_max\":%llu",
               l->firsts, (unsigned long long) l->events,
               (unsigned long long) l->contents,
               (unsigned long long) l->events_min,
               (unsigned long long) l->events_max);

        load_report_hist("ttft", &l->ttft);
        load_report_hist("token", &l->token);
        load_report_hist("gap", &l->gaps);
        load_report_hist("jitter", &l->jitter);
        load_report_steady(l);
    }

    if (l->mode == LOAD_ABORT) {
        printf(",\"abort\":{\"done\":%s,\"streams\":%u,\"reached\":%lld,"
               "\"wall_ms\":%llu,\"closing_us\":%llu,\"last_delay_us\":%lld}",
               l->abort_done ? "true" : "false", l->readies,
               (long long) l->abort_reached,
               (unsigned long long) l->abort_wall,
               (unsigned long long) l->abort_closing / 1000,
               (long long) l->abort_delay);
    }

    printf("}\n");
}


static void
load_report_hist(const char *name, load_hist_t *h)
{
    printf(",\"%s\":{\"count\":%llu,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,"
           "\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
           name, (unsigned long long) h->count,
           h->count ? (double) h->sum / (double) h->count / 1000 : 0.0,
           (double) load_hist_get(h, 0.5) / 1000,
           (double) load_hist_get(h, 0.9) / 1000,
           (double) load_hist_get(h, 0.99) / 1000,
           (double) load_hist_get(h, 0.999) / 1000,
           (double) h->max / 1000);
}


static void
load_report_errors(load_t *l)
{
    int  i;

    static const char  *names[LOAD_ERR_MAX] = {
        "connect", "write", "read", "eof", "status", "framing", "broken",
        "timeout"
    };

    printf("\"errors\":%llu,\"errors_by\":{",
           (unsigned long long) l->nerrors);

    for (i = 0; i < LOAD_ERR_MAX; i++) {
        printf("%s\"%s\":%llu", i ? "," : "", names[i],
               (unsigned long long) l->errors[i]);
    }

    printf("},\"first_error\":");
    load_report_string(l->first_error);
}


/* from the first event of the last stream to the end of the first stream */

static void
load_report_steady(load_t *l)
{
    if (l->steady_begin.time == 0 || l->steady_end.time == 0) {
        return;
    }

    printf(",\"steady\":{\"seconds\":%.6f,\"events\":%llu,\"cpu_us\":%.1f}",
           (double) (l->steady_end.time - l->steady_begin.time) / LOAD_SEC,
           (unsigned long long)
               (l->steady_end.events - l->steady_begin.events),
           (double) (l->steady_end.cpu - l->steady_begin.cpu) / 1000);
}


static void
load_report_string(const char *text)
{
    const unsigned char  *p;

    putchar('"');

    for (p = (const unsigned char *) text; *p; p++) {
        if (*p == '"' || *p == '\\') {
            putchar('\\');
            putchar(*p);

        } else if (*p < 0x20 || *p > 0x7e) {
            printf("\\u%04x", *p);

        } else {
            putchar(*p);
        }
    }

    putchar('"');
}
