
/*
 * Copyright (C) ngx_http_llm_module authors
 */


#include "llm_store.h"


llm_store_t *
llm_store_create(const llm_store_conf_t *conf)
{
    (void) conf;
    return NULL;
}
