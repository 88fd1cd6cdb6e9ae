
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What the files of the nginx half offer each other, in the order in which a
 * request visits them.  Included by ngx_http_llm_module.h.
 */


#ifndef _NGX_HTTP_LLM_FUNCTIONS_H_INCLUDED_
#define _NGX_HTTP_LLM_FUNCTIONS_H_INCLUDED_


extern ngx_module_t  ngx_http_llm_module;


/* ngx_http_llm_provider_conf.c: the provider block */
char *ngx_http_llm_provider_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* ngx_http_llm_conf.c: the other setters */
char *ngx_http_llm_model(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_adapter(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_passthrough_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_timeout(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_ping(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_retry_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_uint_t ngx_http_llm_repeated(ngx_str_t *value, ngx_uint_t i);
ngx_int_t ngx_http_llm_parse_timeout(ngx_conf_t *cf, ngx_str_t *arg,
    ngx_msec_t *timeout);

/* ngx_http_llm_provider.c: from what was written to what can be called */
ngx_http_llm_provider_t *ngx_http_llm_provider_find(
    ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name);
ngx_http_llm_provider_t *ngx_http_llm_provider_preset(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name);
ngx_http_llm_provider_t *ngx_http_llm_provider_create(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf, ngx_str_t *name);
ngx_int_t ngx_http_llm_provider_ready(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);

/* ngx_http_llm_secret.c: keys from the environment and from files */
ngx_int_t ngx_http_llm_secret(ngx_conf_t *cf, ngx_str_t *text,
    ngx_str_t *secret, ngx_uint_t *literal);

/* ngx_http_llm_handler.c: a request, up to its first attempt */
ngx_int_t ngx_http_llm_handler(ngx_http_request_t *r);
ngx_http_llm_ctx_t *ngx_http_llm_get_ctx(ngx_http_request_t *r);
void ngx_http_llm_facts(ngx_http_llm_ctx_t *ctx);

ngx_http_llm_ctx_t *ngx_http_llm_lost_ctx(ngx_http_request_t *r);

void ngx_http_llm_go(ngx_http_llm_ctx_t *ctx);

/* ngx_http_llm_cache_conf.c: its directives, what is made ready for it */
char *ngx_http_llm_cache_path_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_llm_cache_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_cache_merge(ngx_conf_t *cf, ngx_http_llm_loc_conf_t *conf);
ngx_int_t ngx_http_llm_cache_postconf(ngx_conf_t *cf);
ngx_int_t ngx_http_llm_cache_route(ngx_pool_t *pool,
    ngx_http_llm_targets_t *targets);
ngx_int_t ngx_http_llm_cache_init_module(ngx_cycle_t *cycle);

/* ngx_http_llm_cache.c: is it answered from the cache? */
ngx_int_t ngx_http_llm_cache_begin(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_cache_lookup(ngx_http_llm_ctx_t *ctx,
    llm_error_t *err);
ngx_uint_t ngx_http_llm_cache_status(ngx_http_llm_ctx_t *ctx);
ngx_str_t *ngx_http_llm_cache_name(ngx_uint_t status);
ngx_int_t ngx_http_llm_cache_headers(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_cache_count(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_cache_cleanup(ngx_http_llm_ctx_t *ctx);
uint64_t ngx_http_llm_epoch(void);

/* ngx_http_llm_cache_serve.c: an entry becomes a flight */
ngx_int_t ngx_http_llm_cache_get(ngx_http_llm_ctx_t *ctx, uint64_t limit);
ngx_int_t ngx_http_llm_cache_stale(ngx_http_llm_ctx_t *ctx,
    ngx_uint_t failure);

/* ngx_http_llm_cache_head.c: what a request's head says to it */
ngx_int_t ngx_http_llm_cache_gather(ngx_http_llm_ctx_t *ctx);

/* ngx_http_llm_cache_key.c: what of a request makes its key */
ngx_int_t ngx_http_llm_cache_scope(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_cache_key(ngx_http_llm_ctx_t *ctx);
ngx_uint_t ngx_http_llm_cache_client(ngx_http_llm_targets_t *targets);
void ngx_http_llm_cache_key_exit_worker(void);

/* ngx_http_llm_cache_seen.c: keys of requests that were seen before */
ngx_int_t ngx_http_llm_cache_seen(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_cache_remember(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_cache_seen_exit_worker(void);

/* ngx_http_llm_cache_keep.c: an answer that is kept */
ngx_int_t ngx_http_llm_keep_begin(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_keep_add(ngx_http_llm_flight_t *f, u_char *p, size_t len,
    ngx_uint_t flags);
void ngx_http_llm_keep_reset(ngx_http_llm_flight_t *f);
void ngx_http_llm_keep_free(ngx_http_llm_flight_t *f);
void ngx_http_llm_keep_end(ngx_http_llm_attempt_t *a);
void ngx_http_llm_keep_give_up(ngx_http_llm_ctx_t *ctx, const char *reason);
void ngx_http_llm_item_free(ngx_http_llm_item_t *item);

/* ngx_http_llm_cache_worker.c: a worker's part in the file */
ngx_int_t ngx_http_llm_cache_init_worker(ngx_cycle_t *cycle);
void ngx_http_llm_cache_exit_worker(ngx_cycle_t *cycle);
llm_store_t *ngx_http_llm_cache_store(void);
void ngx_http_llm_cache_broken(void);
void ngx_http_llm_cache_put(ngx_http_llm_item_t *item);
ngx_int_t ngx_http_llm_cache_purge(ngx_http_llm_purge_t *purge);

/* ngx_http_llm_cache_news.c: what was answered lately */
void ngx_http_llm_news_put(ngx_http_llm_shared_t *shared, llm_entry_t *e);
void ngx_http_llm_news_arrived(ngx_http_llm_shared_t *shared,
    llm_entry_t *e, ngx_uint_t lost);
ngx_atomic_uint_t ngx_http_llm_news_word(ngx_http_llm_shared_t *shared,
    u_char *key);
uint64_t ngx_http_llm_news_get(ngx_http_llm_shared_t *shared, u_char *key,
    uint64_t now, ngx_uint_t *moving);

/* ngx_http_llm_status.c: a location that tells of it */
char *ngx_http_llm_status_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_llm_status_merge(ngx_conf_t *cf,
    ngx_http_llm_loc_conf_t *conf);

/* ngx_http_llm_body.c: the client's body, in one piece */
ngx_int_t ngx_http_llm_body_room(ngx_http_request_t *r,
    ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_body(ngx_http_request_t *r, llm_str_t *body);

/* ngx_http_llm_targets.c: which providers they are */
ngx_int_t ngx_http_llm_targets_ready(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, u_char *file, ngx_uint_t line);
ngx_int_t ngx_http_llm_target_resolve(ngx_conf_t *cf,
    ngx_http_llm_target_t *t, u_char *file, ngx_uint_t line);
ngx_int_t ngx_http_llm_same_host(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf, ngx_uint_t direct, u_char *file,
    ngx_uint_t line);
ngx_int_t ngx_http_llm_targets_same_host(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets, u_char *file, ngx_uint_t line);
ngx_int_t ngx_http_llm_passthrough_same_host(ngx_conf_t *cf,
    ngx_http_llm_loc_conf_t *conf, ngx_http_llm_provider_t *p);
ngx_int_t ngx_http_llm_check_loops(ngx_conf_t *cf);

/* ngx_http_llm_zone.c: the shared memory */
char *ngx_http_llm_zone_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_llm_zone_add(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf);
ngx_int_t ngx_http_llm_zone_init_module(ngx_cycle_t *cycle);
void ngx_http_llm_bound_put(ngx_http_llm_main_conf_t *lmcf, uint64_t digest,
    ngx_http_llm_provider_t *p);
ngx_http_llm_provider_t *ngx_http_llm_bound_get(
    ngx_http_llm_main_conf_t *lmcf, uint64_t digest);

/* ngx_http_llm_route.c: which targets serve a model */
ngx_int_t ngx_http_llm_route(ngx_http_request_t *r, ngx_http_llm_ctx_t *ctx);
ngx_http_llm_route_t *ngx_http_llm_route_find(ngx_http_llm_main_conf_t *lmcf,
    llm_str_t *model);

/* ngx_http_llm_balance.c: in which order they are tried */
ngx_int_t ngx_http_llm_balance_init(ngx_conf_t *cf,
    ngx_http_llm_targets_t *targets);
void ngx_http_llm_balance(ngx_http_llm_ctx_t *ctx);
ngx_uint_t ngx_http_llm_same_account(ngx_http_llm_provider_t *p,
    ngx_http_llm_provider_t *other);
ngx_str_t ngx_http_llm_target_model(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);
ngx_http_llm_price_t *ngx_http_llm_model_facts(ngx_http_llm_provider_t *p,
    ngx_str_t *model);
void ngx_http_llm_balance_learn(ngx_http_llm_attempt_t *a);
void ngx_http_llm_balance_first(ngx_http_llm_attempt_t *a);
void ngx_http_llm_balance_blame(ngx_http_llm_attempt_t *a, ngx_uint_t failure);
void ngx_http_llm_balance_scout(ngx_http_llm_ctx_t *ctx);

/* ngx_http_llm_breaker.c: who is not called for now */
ngx_msec_int_t ngx_http_llm_breaker_closed(ngx_http_llm_target_t *target);
ngx_uint_t ngx_http_llm_breaker_held(ngx_http_llm_target_t *target);
ngx_int_t ngx_http_llm_breaker_admit(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_target_t *target);
void ngx_http_llm_breaker_good(ngx_http_llm_attempt_t *a);
void ngx_http_llm_breaker_bad(ngx_http_llm_attempt_t *a, ngx_uint_t failure);
void ngx_http_llm_breaker_hold(ngx_http_llm_target_t *target,
    ngx_uint_t failure, ngx_msec_t ms);
void ngx_http_llm_breaker_release(ngx_http_llm_ctx_t *ctx);
ngx_str_t *ngx_http_llm_breaker_name(ngx_http_llm_provider_t *p);

/* ngx_http_llm_health.c: the active checks */
char *ngx_http_llm_provider_health(ngx_conf_t *cf, ngx_http_llm_provider_t *p,
    ngx_str_t *value, ngx_uint_t n);
ngx_int_t ngx_http_llm_health_init_worker(ngx_cycle_t *cycle);
void ngx_http_llm_health_exit_worker(void);
ngx_uint_t ngx_http_llm_health_down(ngx_http_llm_provider_t *p);

/* ngx_http_llm_retry.c: what follows from a failure */
ngx_int_t ngx_http_llm_retry_first(ngx_http_llm_ctx_t *ctx, llm_error_t *err);
ngx_int_t ngx_http_llm_retry(ngx_http_llm_attempt_t *a, ngx_uint_t failure,
    const char *error);
ngx_int_t ngx_http_llm_retry_headers(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_retry_later(ngx_http_llm_ctx_t *ctx, ngx_msec_t delay);
ngx_uint_t ngx_http_llm_retry_never(ngx_http_llm_ctx_t *ctx);

/* ngx_http_llm_resume.c: a stream that broke goes on */
ngx_int_t ngx_http_llm_resume_init(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_resume_free(ngx_http_llm_ctx_t *ctx);
ngx_uint_t ngx_http_llm_resume_may(ngx_http_llm_attempt_t *a,
    ngx_uint_t failure);
void ngx_http_llm_resume_reset(ngx_http_llm_attempt_t *a, const char *error);
void ngx_http_llm_resume_begin(ngx_http_llm_attempt_t *a);
ngx_int_t ngx_http_llm_resume_head(ngx_http_llm_attempt_t *a);
ngx_int_t ngx_http_llm_resume_event(ngx_http_llm_attempt_t *a,
    llm_event_t *ev, ngx_uint_t what, llm_event_t *extra);
void ngx_http_llm_resume_body(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last);
void ngx_http_llm_resume_refused(ngx_http_llm_attempt_t *a);
void ngx_http_llm_resume_keep(ngx_http_llm_attempt_t *a, llm_event_t *ev);
ngx_int_t ngx_http_llm_resume_tell(ngx_http_llm_flight_t *f);
void ngx_http_llm_resume_usage(ngx_http_llm_ctx_t *ctx);

/* ngx_http_llm_request.c: small questions about a client's request */
void ngx_http_llm_path(ngx_http_request_t *r, llm_str_t *path);
ngx_table_elt_t *ngx_http_llm_request_header(ngx_http_request_t *r,
    const char *name, size_t len);
const llm_dialect_t *ngx_http_llm_marked_dialect(ngx_http_request_t *r);
ngx_array_t *ngx_http_llm_model_list(ngx_http_request_t *r);
uint64_t ngx_http_llm_now(void);
llm_str_t ngx_http_llm_request_id(ngx_http_request_t *r);

/* ngx_http_llm_error.c: errors of ours, and nginx's own in our locations */
ngx_int_t ngx_http_llm_error(ngx_http_request_t *r, llm_error_t *err);
ngx_int_t ngx_http_llm_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *body);
ngx_int_t ngx_http_llm_add_header(ngx_http_request_t *r, const char *name,
    const char *value);
ngx_int_t ngx_http_llm_add_header_str(ngx_http_request_t *r, const char *name,
    ngx_str_t *value);
ngx_int_t ngx_http_llm_own_headers(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_served(ngx_http_llm_ctx_t *ctx, ngx_str_t *provider,
    ngx_str_t *model);
const llm_dialect_t *ngx_http_llm_error_dialect(ngx_http_request_t *r);
ngx_uint_t ngx_http_llm_has_error_page(ngx_http_request_t *r,
    ngx_uint_t status);
ngx_int_t ngx_http_llm_error_filter_init(ngx_conf_t *cf);

/* ngx_http_llm_flight.c: the log and its readers */
ngx_http_llm_flight_t *ngx_http_llm_flight_create(void);
void ngx_http_llm_flight_unref(ngx_http_llm_flight_t *f);
u_char *ngx_http_llm_flight_reserve(ngx_http_llm_flight_t *f, size_t size);
void ngx_http_llm_flight_commit(ngx_http_llm_flight_t *f, size_t len,
    size_t data, ngx_uint_t flags);
void ngx_http_llm_flight_reset(ngx_http_llm_flight_t *f);
void ngx_http_llm_flight_forget(ngx_http_llm_flight_t *f);
void ngx_http_llm_flight_wake(ngx_http_llm_flight_t *f);
void ngx_http_llm_flight_attach(ngx_http_llm_flight_t *f,
    ngx_http_llm_reader_t *rd);
void ngx_http_llm_flight_follow(ngx_http_llm_flight_t *f,
    ngx_http_llm_reader_t *rd);
void ngx_http_llm_flight_hold(ngx_http_llm_reader_t *rd,
    ngx_http_llm_block_t *low);
void ngx_http_llm_flight_pin(ngx_http_llm_reader_t *rd);
void ngx_http_llm_flight_detach(ngx_http_llm_reader_t *rd);
void ngx_http_llm_flight_trim(ngx_http_llm_flight_t *f);
void ngx_http_llm_flight_exit_worker(void);
extern const llm_mem_t  ngx_http_llm_heap;
llm_mem_t ngx_http_llm_pool_mem(ngx_pool_t *pool);

/* ngx_http_llm_coalesce.c: identical calls in the air become one */
ngx_int_t ngx_http_llm_coalesce_init_worker(ngx_cycle_t *cycle);
ngx_int_t ngx_http_llm_coalesce_join(ngx_http_llm_ctx_t *ctx);
ngx_http_llm_flight_t *ngx_http_llm_coalesce_get(uint64_t id);
void ngx_http_llm_coalesce_list(ngx_http_llm_flight_t *f);
void ngx_http_llm_coalesce_leave(ngx_http_llm_flight_t *f);
void ngx_http_llm_coalesce_bound(ngx_http_llm_flight_t *f, size_t len);
void ngx_http_llm_coalesce_settle(ngx_http_llm_flight_t *f);
void ngx_http_llm_coalesce_facts(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_coalesce_full(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_coalesce_strings(ngx_http_llm_flight_t *f,
    ngx_str_t *provider, ngx_str_t *model, ngx_str_t *content_type);

/* ngx_http_llm_lead.c: who leads a flight, and what if nobody does */
void ngx_http_llm_lead_begin(ngx_http_llm_ctx_t *ctx,
    ngx_http_llm_flight_t *f);
ngx_uint_t ngx_http_llm_lead_others(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_lead_leave(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_lead_unread(ngx_http_llm_flight_t *f);
ngx_int_t ngx_http_llm_lead_pass(ngx_http_llm_attempt_t *a);
void ngx_http_llm_lead_end(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_lead_lost(ngx_http_llm_flight_t *f, const char *error);
void ngx_http_llm_lead_restart(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_lead_fold(ngx_http_llm_ctx_t *ctx);
ngx_http_llm_flight_t *ngx_http_llm_lead_own(ngx_http_llm_ctx_t *ctx);

/* ngx_http_llm_worker.c: this worker among the others */
ngx_int_t ngx_http_llm_worker_init_module(ngx_cycle_t *cycle);
ngx_int_t ngx_http_llm_worker_init(ngx_cycle_t *cycle);
void ngx_http_llm_worker_exit(void);
void ngx_http_llm_worker_watch(void);
extern llm_worker_t  *ngx_http_llm_worker;

/* ngx_http_llm_outlet.c: from a flight to another worker */
void ngx_http_llm_outlet_ring(ngx_uint_t link);
off_t ngx_http_llm_outlet_behind(ngx_http_llm_flight_t *f);

/* ngx_http_llm_mirror.c: from another worker to a flight */
ngx_http_llm_flight_t *ngx_http_llm_mirror_create(llm_place_t *place,
    ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_mirror_ring(ngx_uint_t link);
void ngx_http_llm_mirror_resume(ngx_http_llm_mirror_t *m);
void ngx_http_llm_mirror_close(ngx_http_llm_mirror_t *m);
void ngx_http_llm_mirror_answer(ngx_http_llm_flight_t *f);

/* ngx_http_llm_attempt.c: one try at one provider */
ngx_int_t ngx_http_llm_attempt_start(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_attempt_cleanup(ngx_http_llm_attempt_t *a);
ngx_int_t ngx_http_llm_attempt_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_attempt_init_worker(ngx_cycle_t *cycle);
extern u_char  *ngx_http_llm_read_buffer;

/* ngx_http_llm_attempt_head.c, _input.c, _timer.c: its parts */
ngx_int_t ngx_http_llm_attempt_head(ngx_http_request_t *r);
ngx_int_t ngx_http_llm_attempt_input_init(void *data);
ngx_int_t ngx_http_llm_attempt_input(void *data, ssize_t bytes);
void ngx_http_llm_attempt_resume(ngx_http_llm_attempt_t *a,
    ngx_connection_t *c);
void ngx_http_llm_attempt_arm(ngx_http_llm_attempt_t *a);
void ngx_http_llm_attempt_timer(ngx_event_t *ev);
void ngx_http_llm_attempt_abort(ngx_http_llm_attempt_t *a, const char *error);

/* ngx_http_llm_answer.c: what comes back, into the flight */
ngx_int_t ngx_http_llm_answer_begin(ngx_http_llm_attempt_t *a);
ngx_int_t ngx_http_llm_answer_feed(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last);
void ngx_http_llm_answer_end(ngx_http_llm_attempt_t *a);
void ngx_http_llm_answer_release(ngx_http_llm_attempt_t *a);

/* ngx_http_llm_answer_plain.c: the same of what is no stream */
ngx_int_t ngx_http_llm_answer_plain(ngx_http_llm_attempt_t *a, u_char *pos,
    u_char *last);
void ngx_http_llm_answer_end_plain(ngx_http_llm_attempt_t *a);
ngx_int_t ngx_http_llm_answer_gather(ngx_http_llm_flight_t *f,
    ngx_pool_t *pool, llm_str_t *out);

/* ngx_http_llm_failure.c: what went wrong, and how it is told */
void ngx_http_llm_answer_class(ngx_http_llm_attempt_t *a, ngx_uint_t status,
    llm_str_t *body);
ngx_uint_t ngx_http_llm_answer_private(ngx_http_llm_attempt_t *a);
void ngx_http_llm_answer_failed(ngx_http_llm_attempt_t *a, const char *error);
void ngx_http_llm_answer_words(ngx_http_llm_flight_t *f, llm_str_t *body);
void ngx_http_llm_answer_no_stream(ngx_http_llm_ctx_t *ctx);
const char *ngx_http_llm_failure_name(u_char *name, size_t len);
ngx_int_t ngx_http_llm_failure_copy(ngx_pool_t *pool, llm_error_t *err);
void ngx_http_llm_failure_error(const char *error, llm_error_t *err);
void ngx_http_llm_fail(ngx_http_llm_flight_t *f, ngx_http_llm_ctx_t *ctx,
    const char *error);

/* ngx_http_llm_upstream.c: requests to, and heads from, a provider */
ngx_uint_t ngx_http_llm_args(ngx_http_request_t *r, ngx_str_t *args,
    u_char *dst);
ngx_chain_t *ngx_http_llm_build_head(ngx_http_request_t *r,
    ngx_http_llm_provider_t *p, ngx_str_t *path, off_t content_length,
    ngx_chain_t *body);
ngx_int_t ngx_http_llm_status_line(ngx_http_request_t *r,
    ngx_http_upstream_t *u, ngx_http_status_t *status);
ngx_int_t ngx_http_llm_header_line(ngx_http_request_t *r,
    ngx_http_upstream_t *u, ngx_table_elt_t *h);
ngx_uint_t ngx_http_llm_header_hidden(ngx_http_llm_provider_t *p,
    ngx_table_elt_t *h);
ngx_int_t ngx_http_llm_header_hashes(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p);

/* ngx_http_llm_peer.c: connections */
ngx_int_t ngx_http_llm_peer_init(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
ngx_int_t ngx_http_llm_peer_pool(ngx_conf_t *cf, ngx_http_llm_provider_t *p);
void ngx_http_llm_peer_addrs(ngx_http_llm_provider_t *p, ngx_addr_t *addrs,
    ngx_uint_t n);

/* ngx_http_llm_resolve.c: addresses of a host, looked up again */
void ngx_http_llm_resolve_main_conf(ngx_conf_t *cf,
    ngx_http_llm_main_conf_t *lmcf);
ngx_int_t ngx_http_llm_resolve_provider(ngx_conf_t *cf,
    ngx_http_llm_provider_t *p, ngx_str_t *host);
ngx_int_t ngx_http_llm_resolve_init_worker(ngx_cycle_t *cycle);
void ngx_http_llm_resolve_wanted(ngx_http_llm_provider_t *p);

/* ngx_http_llm_reader.c: a client that follows a flight */
void ngx_http_llm_reader_attach(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_reader_cleanup(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_reader_leads(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_reader_trim(ngx_http_llm_ctx_t *ctx, ngx_connection_t *c);
void ngx_http_llm_reader_finalize(ngx_http_llm_ctx_t *ctx, ngx_int_t rc);
void ngx_http_llm_reader_client(ngx_http_request_t *r);
void ngx_http_llm_reader_gone(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_reader_text(ngx_http_llm_ctx_t *ctx, ngx_chain_t ***ll,
    llm_str_t *text);
ngx_int_t ngx_http_llm_reader_output(ngx_http_llm_ctx_t *ctx,
    ngx_chain_t *out);

/* ngx_http_llm_reader_head.c, _timer.c: its parts */
ngx_int_t ngx_http_llm_reader_begin(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_reader_head(ngx_http_llm_ctx_t *ctx);
ngx_int_t ngx_http_llm_reader_timers(ngx_http_llm_ctx_t *ctx);
void ngx_http_llm_reader_ping_handler(ngx_event_t *ev);
void ngx_http_llm_reader_stall_handler(ngx_event_t *ev);
void ngx_http_llm_reader_flush_handler(ngx_event_t *ev);

/* ngx_http_llm_filter.c: the output of attempts goes nowhere */
ngx_int_t ngx_http_llm_filter_init(ngx_conf_t *cf);

/* ngx_http_llm_passthrough.c: other paths and methods, unparsed */
ngx_int_t ngx_http_llm_passthrough_handler(ngx_http_request_t *r,
    ngx_http_llm_provider_t *p);

/* ngx_http_llm_variable.c */
ngx_int_t ngx_http_llm_cost(ngx_http_llm_ctx_t *ctx, llm_usage_t *usage,
    uint64_t *cost);
ngx_int_t ngx_http_llm_add_variables(ngx_conf_t *cf);


#endif /* _NGX_HTTP_LLM_FUNCTIONS_H_INCLUDED_ */
