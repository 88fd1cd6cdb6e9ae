
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * What a cache asks of the anthropic dialect.
 */


#include <string.h>

#include "dialect_anthropic.h"


static llm_uint_t
anthropic_kind(const llm_request_t *rq)
{
    (void) rq;
    return LLM_CACHE_FIXED;
}


static llm_uint_t
anthropic_users(const llm_request_t *rq, llm_json_value_t users[LLM_USERS])
{
    (void) rq;
    memset(users, 0, LLM_USERS * sizeof(llm_json_value_t));
    return 0;
}


static const llm_str_t *
anthropic_unkeyed(const llm_endpoint_t *ep)
{
    static const llm_str_t  names[] = {
        llm_string("stream"),
        llm_string("stream_options"),
        llm_null_string
    };

    (void) ep;
    return names;
}


static const char *
anthropic_unfit(const llm_answer_t *a)
{
    (void) a;
    return NULL;
}


const llm_caching_t  anthropic_caching = {
    anthropic_kind,
    anthropic_users,
    anthropic_unkeyed,
    anthropic_unfit,
    anthropic_fold,
    anthropic_unfold
};
