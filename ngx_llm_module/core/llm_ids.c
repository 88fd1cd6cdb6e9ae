
/*
 * Copyright (C) ngx_http_llm_module authors
 */


#include "llm_dialect.h"


void
llm_fresh_ids(u_char *text, size_t len, uint64_t seed)
{
    (void) text; (void) len; (void) seed;
}
