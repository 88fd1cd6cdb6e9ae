
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Folding.
 */


#include <string.h>

#include "dialect_openai.h"


llm_int_t
openai_responses_fold(const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out)
{
    (void) text; (void) mem; (void) out;
    return LLM_DECLINED;
}


llm_int_t
openai_responses_unfold(const llm_str_t *text, const llm_mem_t *mem,
    llm_str_t *out)
{
    (void) text; (void) mem; (void) out;
    return LLM_DECLINED;
}
