
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Active checks: from time to time a provider is asked for something small,
 * and while it does not answer as it should, no call is made to it.
 *
 * Every worker has a timer for each provider; who checks is decided by one
 * word of the provider's cell:
 *
 *     ms << 8 | generation
 *
 * Once that time has come, the worker that replaces the word does the check.
 * It puts in a time by which its check has ended whatever happens, so if it
 * dies, another goes on then; when the check is over, it puts in the time of
 * the next one.  A result counts only while the word is still one's own.  The
 * generation is that of the worker's configuration: the first worker of a new
 * one checks soon, whatever the time, since the provider of that name may now
 * be another.
 *
 * The state and the number of checks that speak against it are words of the
 * same cell, written only by the one who checks.  They stay over a reload,
 * but if no check was made when one should have been, nobody believes them.
 *
 * How a check is made is in ngx_http_llm_health_check.c.  Meanwhile the timer
 * is the limit of the check.  It is cancelable, and the connections have
 * none, so nothing of this keeps an exiting worker alive.
 */


#include "ngx_http_llm_module.h"
#include "ngx_http_llm_health.h"


#define NGX_HTTP_LLM_HEALTH_FIRST   1000       /* ms, after the start */
#define NGX_HTTP_LLM_HEALTH_GRACE   1000       /* ms, for a busy worker */
#define NGX_HTTP_LLM_HEALTH_STALE   10000      /* ms, a check is overdue */

#define ngx_http_llm_health_word(ms, generation)                              \
    (((ngx_atomic_uint_t) (ms) << 8) | ((generation) & 0xff))

#define ngx_http_llm_health_left(word)                                        \
    ((ngx_msec_int_t) ((ngx_msec_t) ((word) >> 8) - ngx_current_msec))


static void ngx_http_llm_health_cleanup(void *data);
static void ngx_http_llm_health_init(ngx_http_llm_health_t *h,
    ngx_http_llm_provider_t *p, ngx_cycle_t *cycle);
static void ngx_http_llm_health_timer(ngx_event_t *ev);
static ngx_int_t ngx_http_llm_health_take(ngx_http_llm_health_t *h);
static ngx_int_t ngx_http_llm_health_put(ngx_http_llm_health_t *h,
    ngx_atomic_uint_t old, ngx_uint_t generation);
static ngx_uint_t ngx_http_llm_health_overdue(ngx_http_llm_provider_t *p,
    ngx_atomic_uint_t word);
static void ngx_http_llm_health_wait(ngx_http_llm_health_t *h);


static ngx_http_llm_health_t  *ngx_http_llm_health;
static ngx_uint_t              ngx_http_llm_nhealth;


/* health [interval=] [uri=] [fails=] [passes=] | off */

char *
ngx_http_llm_provider_health(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value, ngx_uint_t n)
{
    u_char     *c;
    ngx_int_t   k;
    ngx_str_t   s;
    ngx_uint_t  i;

    if (n == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        p->health_interval = 0;
        return NGX_CONF_OK;
    }

    p->health_interval = 10000;
    p->health_fails = 1;
    p->health_passes = 1;

    for (i = 1; i < n; i++) {

        if (ngx_http_llm_repeated(value, i)) {
            goto invalid;
        }

        if (ngx_strncmp(value[i].data, "interval=", 9) == 0) {

            s.data = value[i].data + 9;
            s.len = value[i].len - 9;

            k = ngx_parse_time(&s, 0);

            if (k == NGX_ERROR || k < 100 || k > 86400000) {
                goto invalid;
            }

            p->health_interval = k;
            continue;
        }

        if (ngx_strncmp(value[i].data, "fails=", 6) == 0) {

            k = ngx_atoi(value[i].data + 6, value[i].len - 6);

            if (k == NGX_ERROR || k == 0 || k > 1000) {
                goto invalid;
            }

            p->health_fails = k;
            continue;
        }

        if (ngx_strncmp(value[i].data, "passes=", 7) == 0) {

            k = ngx_atoi(value[i].data + 7, value[i].len - 7);

            if (k == NGX_ERROR || k == 0 || k > 1000) {
                goto invalid;
            }

            p->health_passes = k;
            continue;
        }

        if (ngx_strncmp(value[i].data, "uri=/", 5) == 0) {

            p->health_uri.data = value[i].data + 4;
            p->health_uri.len = value[i].len - 4;

            for (c = p->health_uri.data; *c; c++) {
                if (*c <= ' ' || *c > '~' || *c == '#') {
                    goto invalid;
                }
            }

            continue;
        }

        goto invalid;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid \"health\" parameter \"%V\"", &value[i]);

    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_http_llm_health_init_worker(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i, n;
    ngx_pool_cleanup_t         *cln;
    ngx_http_llm_provider_t   **p;
    ngx_http_llm_main_conf_t   *lmcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL) {
        return NGX_OK;
    }

    p = lmcf->providers.elts;
    n = 0;

    for (i = 0; i < lmcf->providers.nelts; i++) {
        if (p[i]->health_interval && p[i]->cell) {
            n++;
        }
    }

    if (n == 0) {
        return NGX_OK;
    }

    ngx_http_llm_health = ngx_pcalloc(cycle->pool,
                                      n * sizeof(ngx_http_llm_health_t));
    if (ngx_http_llm_health == NULL) {
        return NGX_ERROR;
    }

    /* a single process does not exit when it frees an old configuration */

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_llm_health_cleanup;

    for (i = 0; i < lmcf->providers.nelts; i++) {
        if (p[i]->health_interval && p[i]->cell) {
            ngx_http_llm_health_init(
                                &ngx_http_llm_health[ngx_http_llm_nhealth++],
                                p[i], cycle);
        }
    }

    return NGX_OK;
}


void
ngx_http_llm_health_exit_worker(void)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_http_llm_nhealth; i++) {
        ngx_http_llm_health_abort(&ngx_http_llm_health[i]);
    }

    ngx_http_llm_nhealth = 0;
}


static void
ngx_http_llm_health_cleanup(void *data)
{
    ngx_http_llm_health_exit_worker();
}


static void
ngx_http_llm_health_init(ngx_http_llm_health_t *h, ngx_http_llm_provider_t *p,
    ngx_cycle_t *cycle)
{
    ngx_msec_t  first;

    h->provider = p;
    h->generation = p->cell->generation;
    h->fd = (ngx_socket_t) -1;

    h->log = *cycle->log;

    if (!(h->log.log_level & NGX_LOG_DEBUG_ALL)) {
        h->log.log_level = ngx_min(h->log.log_level, NGX_LOG_ALERT);
    }

    h->timer.handler = ngx_http_llm_health_timer;
    h->timer.data = h;
    h->timer.log = cycle->log;
    h->timer.cancelable = 1;

    first = ngx_min(p->health_interval, NGX_HTTP_LLM_HEALTH_FIRST);

    ngx_http_llm_health_arm(h, 1 + ngx_random() % first);
}


static void
ngx_http_llm_health_timer(ngx_event_t *ev)
{
    ngx_http_llm_health_t  *h;

    h = ev->data;

    if (ngx_exiting || ngx_quit || ngx_terminate) {
        ngx_http_llm_health_abort(h);
        return;
    }

    if (h->running) {
        ngx_http_llm_health_next(h, !h->connected ? "no connection in time"
                                    : !h->secured ? "no TLS in time"
                                                  : "no answer in time", 0);
        return;
    }

    if (ngx_http_llm_health_take(h) != NGX_OK) {
        ngx_http_llm_health_wait(h);
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, &h->log, 0,
                   "llm health check of \"%V\"", &h->provider->name);

    h->running = 1;
    h->started = ngx_current_msec;
    h->first++;
    h->tries = 0;

    ngx_http_llm_health_next(h, "it has no address", 0);
}


/* NGX_OK: it is time for a check, and it is ours; NGX_DECLINED */

static ngx_int_t
ngx_http_llm_health_take(ngx_http_llm_health_t *h)
{
    ngx_uint_t            newer, generation;
    ngx_atomic_uint_t     word;
    ngx_http_llm_cell_t  *cell;

    cell = h->provider->cell;
    word = cell->check;

    newer = (h->generation - word) & 0xff;

    if (word == 0 || (newer && newer <= 0x7f)) {
        generation = h->generation;

    } else if (ngx_http_llm_health_left(word) > 0) {
        return NGX_DECLINED;

    } else {
        generation = word;
    }

    if (ngx_http_llm_health_put(h, word, generation) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_http_llm_health_overdue(h->provider, word)) {
        cell->down = 0;
        cell->streak = 0;
    }

    return NGX_OK;
}


/* the check goes on with another address, which may take its time */

ngx_int_t
ngx_http_llm_health_renew(ngx_http_llm_health_t *h)
{
    return ngx_http_llm_health_put(h, h->word, h->word);
}


static ngx_int_t
ngx_http_llm_health_put(ngx_http_llm_health_t *h, ngx_atomic_uint_t old,
    ngx_uint_t generation)
{
    ngx_msec_t                limit;
    ngx_http_llm_provider_t  *p;

    p = h->provider;

    limit = p->timeout[NGX_HTTP_LLM_T_CONNECT]
            + ngx_min(p->health_interval, NGX_HTTP_LLM_HEALTH_ANSWER)
            + NGX_HTTP_LLM_HEALTH_GRACE;

    h->word = ngx_http_llm_health_word(ngx_current_msec + limit, generation);

    /* two must not believe that the same word is theirs */

    if (h->word == old) {
        h->word += ngx_http_llm_health_word(1, 0);
    }

    return ngx_atomic_cmp_set(&p->cell->check, old, h->word) ? NGX_OK
                                                             : NGX_DECLINED;
}


static ngx_uint_t
ngx_http_llm_health_overdue(ngx_http_llm_provider_t *p, ngx_atomic_uint_t word)
{
    ngx_msec_int_t  left;

    left = ngx_http_llm_health_left(word);

    return left < 0 && (ngx_msec_t) -left > p->health_interval
                                            + NGX_HTTP_LLM_HEALTH_STALE;
}


/* 1: the checks say that p is not to be called */

ngx_uint_t
ngx_http_llm_health_down(ngx_http_llm_provider_t *p)
{
    return p->health_interval && p->cell->down
           && !ngx_http_llm_health_overdue(p, p->cell->check);
}


/* sleeps until the next check, but not so long that a change is missed */

static void
ngx_http_llm_health_wait(ngx_http_llm_health_t *h)
{
    ngx_msec_int_t  left;

    left = ngx_http_llm_health_left(h->provider->cell->check);

    left = ngx_min(left, (ngx_msec_int_t) h->provider->health_interval);

    ngx_http_llm_health_arm(h, (ngx_msec_t) ngx_max(left, 1));
}


void
ngx_http_llm_health_arm(ngx_http_llm_health_t *h, ngx_msec_t ms)
{
    /* ngx_add_timer() leaves a timer that is set to nearly the same time */

    if (h->timer.timer_set) {
        ngx_del_timer(&h->timer);
    }

    ngx_add_timer(&h->timer, ms);
}


/* why: NULL if the check was passed */

void
ngx_http_llm_health_result(ngx_http_llm_health_t *h, const char *why,
    ngx_err_t err)
{
    ngx_uint_t                down;
    ngx_http_llm_cell_t      *cell;
    ngx_http_llm_provider_t  *p;

    p = h->provider;
    cell = p->cell;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, &h->log, err,
                   "llm health of \"%V\": %s", &p->name, why ? why : "well");

    if (cell->check != h->word) {

        /* we were too slow, and another has taken over */

        return;
    }

    down = cell->down ? 1 : 0;

    if ((why != NULL) == down) {
        cell->streak = 0;
        return;
    }

    if (cell->streak + 1 < (down ? p->health_passes : p->health_fails)) {
        cell->streak++;
        return;
    }

    cell->streak = 0;
    cell->down = !down;

    if (down) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "llm: provider \"%V\" is well again", &p->name);

    } else {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, err,
                      "llm: provider \"%V\" is down: %s%s%V", &p->name, why,
                      h->tries ? ", server: " : "", &h->name);
    }
}


/* the check is over: when is the next one? */

void
ngx_http_llm_health_end(ngx_http_llm_health_t *h)
{
    ngx_msec_t                next;
    ngx_http_llm_provider_t  *p;

    ngx_http_llm_health_close(h);

    p = h->provider;

    next = h->started + p->health_interval - p->health_interval / 10
           + ngx_random() % (p->health_interval / 5 + 1);

    if ((ngx_msec_int_t) (next - ngx_current_msec) <= 0) {
        next = ngx_current_msec + 1;
    }

    (void) ngx_atomic_cmp_set(&p->cell->check, h->word,
                              ngx_http_llm_health_word(next, h->word));

    h->running = 0;
    h->name.len = 0;

    ngx_http_llm_health_wait(h);
}


/* the worker exits: nothing is found out, and another may check at once */

void
ngx_http_llm_health_abort(ngx_http_llm_health_t *h)
{
    ngx_http_llm_health_close(h);

    if (h->timer.timer_set) {
        ngx_del_timer(&h->timer);
    }

    if (h->running) {
        h->running = 0;
        (void) ngx_atomic_cmp_set(&h->provider->cell->check, h->word,
                                  ngx_http_llm_health_word(ngx_current_msec,
                                                           h->word));
    }
}
