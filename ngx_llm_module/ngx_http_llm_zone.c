
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The shared memory: a table of cells, one for each provider, target and
 * route, the makers of what providers keep, what the cache shares beside its
 * file, and the calls in the air.  All of it is taken from the slab pool once,
 * by the master, while no worker uses it; after that there are words that are
 * changed one by one, so that a worker may be killed at any moment and leaves
 * nothing half done.
 *
 * Over a reload the zone stays, if name and size do, and a cell stays with
 * its name.
 */


#include "ngx_http_llm_module.h"

#include <openssl/rand.h>


#define NGX_HTTP_LLM_LAYOUT      3
#define NGX_HTTP_LLM_ZONE_SIZE   (32 * 1024 * 1024)
#define NGX_HTTP_LLM_ZONE_MIN    (256 * 1024)
#define NGX_HTTP_LLM_BOUND_WAYS  4
#define NGX_HTTP_LLM_BOUND_AGE   720           /* hours */


/*
 * A word of the table of makers: 40 bits of the digest, 14 of the maker's
 * cell, 10 of the time, in hours.
 */

#define ngx_http_llm_bound_word(digest, cell, hours)                          \
    (((digest) & 0xffffffffff000000ULL)                                       \
     | ((uint64_t) (cell) << 10) | ((hours) & 0x3ff))

#define ngx_http_llm_bound_same(word, digest)                                 \
    (((word) ^ (digest)) < 0x1000000)

#define ngx_http_llm_bound_cell(word)  (((word) >> 10) & 0x3fff)
#define ngx_http_llm_bound_age(word, hours)  (((hours) - (word)) & 0x3ff)

#define NGX_HTTP_LLM_CELLS_MAX  0x4000


typedef struct {
    uint64_t                layout;
    ngx_atomic_t            generation;

    ngx_http_llm_cell_t    *cells;
    ngx_uint_t              ncells;

    ngx_atomic_t           *bound;
    ngx_uint_t              nbound;            /* a power of two */

    ngx_http_llm_shared_t   cache;
    llm_share_t            *share;             /* NULL: there is no room */
} ngx_http_llm_zone_t;


static ngx_int_t ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_http_llm_zone_t *ngx_http_llm_zone_create(
    ngx_shm_zone_t *shm_zone);
static ngx_int_t ngx_http_llm_zone_cache(ngx_shm_zone_t *shm_zone,
    ngx_http_llm_zone_t *zone);
static ngx_int_t ngx_http_llm_zone_share(ngx_shm_zone_t *shm_zone,
    ngx_http_llm_zone_t *zone);
static ngx_int_t ngx_http_llm_zone_cells(ngx_shm_zone_t *shm_zone,
    ngx_http_llm_zone_t *zone, ngx_http_llm_main_conf_t *lmcf);
static void ngx_http_llm_zone_identity(ngx_http_llm_provider_t *p);
static ngx_http_llm_cell_t *ngx_http_llm_zone_cell(ngx_http_llm_zone_t *zone,
    char kind, ngx_str_t *name, ngx_http_llm_target_t *target);


char *
ngx_http_llm_zone_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_llm_main_conf_t *lmcf = conf;

    u_char     *colon;
    ssize_t     size;
    ngx_str_t  *value, s;

    if (lmcf->zone_name.len) {
        return "is duplicate";
    }

    value = cf->args->elts;

    colon = (u_char *) ngx_strchr(value[1].data, ':');

    if (colon == NULL || colon == value[1].data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\", it must be \"name:size\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    s.data = colon + 1;
    s.len = value[1].data + value[1].len - s.data;

    size = ngx_parse_size(&s);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone size \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (size < NGX_HTTP_LLM_ZONE_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is too small, the least is %uzk",
                           &value[1], (size_t) NGX_HTTP_LLM_ZONE_MIN / 1024);
        return NGX_CONF_ERROR;
    }

    lmcf->zone_name.data = value[1].data;
    lmcf->zone_name.len = colon - value[1].data;
    lmcf->zone_size = size;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_llm_zone_add(ngx_conf_t *cf, ngx_http_llm_main_conf_t *lmcf)
{
    if (!lmcf->used && lmcf->zone_name.len == 0) {
        return NGX_OK;
    }

    if (lmcf->zone_name.len == 0) {
        ngx_str_set(&lmcf->zone_name, "llm");
        lmcf->zone_size = NGX_HTTP_LLM_ZONE_SIZE;
    }

    lmcf->zone = ngx_shared_memory_add(cf, &lmcf->zone_name, lmcf->zone_size,
                                       &ngx_http_llm_module);
    if (lmcf->zone == NULL) {
        return NGX_ERROR;
    }

    if (lmcf->zone->data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is already in use",
                           &lmcf->zone_name);
        return NGX_ERROR;
    }

    lmcf->zone->init = ngx_http_llm_zone_init;
    lmcf->zone->data = lmcf;

    return NGX_OK;
}


/* called when the configuration is read; data: that of the former one */

static ngx_int_t
ngx_http_llm_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_zone_t       *zone;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    zone = (data || shm_zone->shm.exists) ? shpool->data : NULL;

    if (zone == NULL) {
        zone = ngx_http_llm_zone_create(shm_zone);
        if (zone == NULL) {
            return NGX_ERROR;
        }

        shpool->data = zone;
    }

    if (zone->layout != NGX_HTTP_LLM_LAYOUT) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "zone \"%V\" is that of another version of the module: "
                      "give it another name or size, or restart",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }

    lmcf->shared = &zone->cache;
    lmcf->share = zone->share;

    if (lmcf->coalesce && zone->share == NULL) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "zone \"%V\" is too small for \"llm_adapter_coalesce\"",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }

    return ngx_http_llm_zone_cells(shm_zone, zone, lmcf);
}


static ngx_http_llm_zone_t *
ngx_http_llm_zone_create(ngx_shm_zone_t *shm_zone)
{
    size_t                len;
    ngx_uint_t            n;
    ngx_slab_pool_t      *shpool;
    ngx_http_llm_zone_t  *zone;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    len = sizeof(" in llm_adapter_zone \"\"") + shm_zone->shm.name.len;

    shpool->log_ctx = ngx_slab_alloc(shpool, len);
    if (shpool->log_ctx == NULL) {
        goto failed;
    }

    ngx_sprintf(shpool->log_ctx, " in llm_adapter_zone \"%V\"%Z",
                &shm_zone->shm.name);

    zone = ngx_slab_calloc(shpool, sizeof(ngx_http_llm_zone_t));
    if (zone == NULL) {
        goto failed;
    }

    /* a sixteenth for the cells, as much for the makers */

    n = shm_zone->shm.size / 16 / sizeof(ngx_http_llm_cell_t);

    zone->ncells = ngx_min(n, NGX_HTTP_LLM_CELLS_MAX);
    zone->cells = ngx_slab_calloc(shpool,
                                zone->ncells * sizeof(ngx_http_llm_cell_t));
    if (zone->cells == NULL) {
        goto failed;
    }

    for (n = NGX_HTTP_LLM_BOUND_WAYS;
         2 * n * sizeof(ngx_atomic_t) <= shm_zone->shm.size / 16;
         n *= 2)
    {
        /* void */
    }

    zone->nbound = n;
    zone->bound = ngx_slab_calloc(shpool, n * sizeof(ngx_atomic_t));
    if (zone->bound == NULL) {
        goto failed;
    }

    if (ngx_http_llm_zone_cache(shm_zone, zone) != NGX_OK
        || ngx_http_llm_zone_share(shm_zone, zone) != NGX_OK)
    {
        goto failed;
    }

    zone->layout = NGX_HTTP_LLM_LAYOUT;

    return zone;

failed:

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "zone \"%V\" is too small", &shm_zone->shm.name);

    return NULL;
}


/* an eighth for the marks of entries, a sixteenth for requests seen */

static ngx_int_t
ngx_http_llm_zone_cache(ngx_shm_zone_t *shm_zone, ngx_http_llm_zone_t *zone)
{
    ngx_uint_t              n;
    ngx_slab_pool_t        *shpool;
    ngx_http_llm_shared_t  *cache;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    cache = &zone->cache;

    cache->nmarks = shm_zone->shm.size / 8;
    cache->marks = ngx_slab_calloc(shpool, cache->nmarks);
    if (cache->marks == NULL) {
        return NGX_ERROR;
    }

    for (n = 1;
         2 * n * sizeof(ngx_http_llm_seen_t) <= shm_zone->shm.size / 16;
         n *= 2)
    {
        /* void */
    }

    cache->nseen = n;
    cache->seen = ngx_slab_calloc(shpool, n * sizeof(ngx_http_llm_seen_t));
    if (cache->seen == NULL) {
        return NGX_ERROR;
    }

    return RAND_bytes(cache->secret, sizeof(cache->secret)) == 1 ? NGX_OK
                                                                 : NGX_ERROR;
}


/* half of it for calls in the air, or what is left */

static ngx_int_t
ngx_http_llm_zone_share(ngx_shm_zone_t *shm_zone, ngx_http_llm_zone_t *zone)
{
    void             *p;
    size_t            size;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    size = ngx_min(shm_zone->shm.size / 2, shpool->pfree * ngx_pagesize);

    /* what is free need not be in one piece */

    for ( ;; ) {

        if (size < LLM_SHARE_MIN) {
            return NGX_OK;
        }

        shpool->log_nomem = 0;

        p = ngx_slab_alloc(shpool, size);

        shpool->log_nomem = 1;

        if (p) {
            break;
        }

        size -= ngx_pagesize;
    }

    zone->share = llm_share_create(p, size);

    return zone->share ? NGX_OK : NGX_ERROR;
}


/*
 * This configuration is the one in use from now on.  One that failed may have
 * raised the number, and workers of this one may be started after that.
 */

ngx_int_t
ngx_http_llm_zone_init_module(ngx_cycle_t *cycle)
{
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_zone_t       *zone;
    ngx_http_llm_main_conf_t  *lmcf;

    lmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_llm_module);

    if (lmcf == NULL || lmcf->zone == NULL) {
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) lmcf->zone->shm.addr;
    zone = shpool->data;

    lmcf->generation = zone->generation;

    return NGX_OK;
}


/* everything that is configured gets its cell */

static ngx_int_t
ngx_http_llm_zone_cells(ngx_shm_zone_t *shm_zone, ngx_http_llm_zone_t *zone,
    ngx_http_llm_main_conf_t *lmcf)
{
    ngx_uint_t                 i, k;
    ngx_http_llm_provider_t  **p;
    ngx_http_llm_targets_t   **set, *targets;

    zone->generation++;

    p = lmcf->providers.elts;

    for (i = 0; i < lmcf->providers.nelts; i++) {

        p[i]->cell = ngx_http_llm_zone_cell(zone, 'p', &p[i]->name, NULL);

        if (p[i]->cell == NULL) {
            goto full;
        }

        ngx_http_llm_zone_identity(p[i]);
    }

    set = lmcf->sets.elts;

    for (i = 0; i < lmcf->sets.nelts; i++) {

        targets = set[i];

        targets->cell = ngx_http_llm_zone_cell(zone, 'r', &targets->name,
                                               NULL);
        if (targets->cell == NULL) {
            goto full;
        }

        for (k = 0; k < targets->n; k++) {

            targets->target[k].cell =
                        ngx_http_llm_zone_cell(zone, 't',
                                         &targets->target[k].provider->name,
                                         &targets->target[k]);

            if (targets->target[k].cell == NULL) {
                goto full;
            }
        }
    }

    return NGX_OK;

full:

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "zone \"%V\" has no room for %ui providers and %ui routes",
                  &shm_zone->shm.name, lmcf->providers.nelts,
                  lmcf->sets.nelts);

    return NGX_ERROR;
}


/*
 * A provider of the same name that is called elsewhere, or with another key,
 * is another one: nothing that was learnt of the former holds.
 */

static void
ngx_http_llm_zone_identity(ngx_http_llm_provider_t *p)
{
    uint64_t               identity;
    ngx_uint_t             i;
    ngx_http_llm_cell_t   *cell;
    ngx_http_llm_header_t *h;

    identity = llm_digest(p->endpoint.data, p->endpoint.len, 'e');
    identity = llm_digest(p->key.data, p->key.len, identity);

    for (i = 0; p->headers && i < p->headers->nelts; i++) {
        h = p->headers->elts;
        identity = llm_digest(h[i].value.data, h[i].value.len, identity);
    }

    cell = p->cell;

    if (cell->identity != identity) {
        cell->identity = identity;
        cell->breaker = 0;
        cell->held = 0;
        cell->down = 0;

        ngx_memzero((void *) cell->window, sizeof(cell->window));
    }
}


static ngx_http_llm_cell_t *
ngx_http_llm_zone_cell(ngx_http_llm_zone_t *zone, char kind, ngx_str_t *name,
    ngx_http_llm_target_t *target)
{
    uint64_t              key;
    ngx_uint_t            i;
    ngx_http_llm_cell_t  *cell, *spare;

    key = llm_digest(name->data, name->len, kind);

    if (target) {

        /* that of a provider which has become another one is another one */

        key = llm_digest(target->model.data, target->model.len,
                         key ^ target->provider->cell->identity);
    }

    if (key == 0) {
        key = 1;
    }

    spare = NULL;

    for (i = 0; i < zone->ncells; i++) {

        cell = &zone->cells[i];

        if (cell->key == key) {
            cell->generation = zone->generation;
            return cell;
        }

        if (cell->key == 0) {
            spare = cell;
            break;
        }

        /* nobody has used it for two configurations */

        if (spare == NULL && cell->generation + 1 < zone->generation) {
            spare = cell;
        }
    }

    /* a free one ends the search, since none is ever freed */

    if (spare) {
        ngx_memzero(spare, sizeof(ngx_http_llm_cell_t));
        spare->key = key;
        spare->generation = zone->generation;
    }

    return spare;
}


/* p made what has this digest */

void
ngx_http_llm_bound_put(ngx_http_llm_main_conf_t *lmcf, uint64_t digest,
    ngx_http_llm_provider_t *p)
{
    uint64_t              hours, age, oldest, cell;
    ngx_uint_t            i;
    ngx_atomic_t         *word, *victim;
    ngx_slab_pool_t      *shpool;
    ngx_http_llm_zone_t  *zone;

    shpool = (ngx_slab_pool_t *) lmcf->zone->shm.addr;
    zone = shpool->data;

    hours = (uint64_t) ngx_time() / 3600;
    word = &zone->bound[digest & (zone->nbound - 1)
                        & ~(NGX_HTTP_LLM_BOUND_WAYS - 1)];

    victim = word;
    oldest = 0;
    cell = p->cell - zone->cells;

    for (i = 0; i < NGX_HTTP_LLM_BOUND_WAYS; i++) {

        age = ngx_http_llm_bound_age(word[i], hours);

        if (word[i] && ngx_http_llm_bound_same(word[i], digest)) {

            /* who says that it made what another has made is not believed:
             * there are servers whose ids a client may choose */

            if (ngx_http_llm_bound_cell(word[i]) != cell
                && age < NGX_HTTP_LLM_BOUND_AGE)
            {
                return;
            }

            victim = &word[i];
            break;
        }

        if (word[i] == 0) {
            victim = &word[i];
            break;
        }

        if (age >= oldest) {
            oldest = age;
            victim = &word[i];
        }
    }

    *victim = ngx_http_llm_bound_word(digest, cell, hours);
}


/* NULL: not known, or its maker is no longer configured */

ngx_http_llm_provider_t *
ngx_http_llm_bound_get(ngx_http_llm_main_conf_t *lmcf, uint64_t digest)
{
    uint64_t                   value;
    ngx_uint_t                 i, k;
    ngx_atomic_t              *word;
    ngx_slab_pool_t           *shpool;
    ngx_http_llm_cell_t       *cell;
    ngx_http_llm_zone_t       *zone;
    ngx_http_llm_provider_t  **p;

    shpool = (ngx_slab_pool_t *) lmcf->zone->shm.addr;
    zone = shpool->data;

    word = &zone->bound[digest & (zone->nbound - 1)
                        & ~(NGX_HTTP_LLM_BOUND_WAYS - 1)];

    for (i = 0; i < NGX_HTTP_LLM_BOUND_WAYS; i++) {

        value = word[i];

        if (value == 0 || !ngx_http_llm_bound_same(value, digest)) {
            continue;
        }

        cell = &zone->cells[ngx_http_llm_bound_cell(value)];

        p = lmcf->providers.elts;

        for (k = 0; k < lmcf->providers.nelts; k++) {
            if (p[k]->cell == cell) {
                return p[k];
            }
        }
    }

    return NULL;
}
