
/*
 * Copyright (C) ngx_http_llm_module authors
 */


#include <string.h>

#include "llm_dialect.h"


llm_int_t
llm_canonical(const llm_str_t *json, const llm_str_t *skip,
    const llm_mem_t *mem, u_char *dst, size_t *len)
{
    (void) skip; (void) mem;
    memcpy(dst, json->data, json->len);
    *len = json->len;
    return LLM_OK;
}
