
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Folding.
 */


#include <string.h>

#include "dialect_openai.h"


llm_int_t
openai_fold(const llm_endpoint_t *ep, const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out)
{
    (void) ep; (void) text; (void) mem; (void) out;
    return LLM_DECLINED;
}


llm_int_t
openai_unfold(const llm_endpoint_t *ep, const llm_str_t *text, llm_uint_t usage,
    const llm_mem_t *mem, llm_str_t *out)
{
    (void) ep; (void) text; (void) usage; (void) mem; (void) out;
    return LLM_DECLINED;
}
