
/* Which endpoint a path means, under any prefix. */

#define _GNU_SOURCE

#include <stdio.h>

#include "mock.h"


enum { method_get = 1, method_post, method_head, method_delete };

typedef struct {
    const char        *path;
    u_char             method;
    const mock_api_t  *api;
} mock_route_t;

static const mock_route_t  mock_routes[] = {
    { "/chat/completions", method_post, &mock_chat },
    { "/completions", method_post, &mock_completions },
    { "/embeddings", method_post, &mock_embeddings },
    { "/responses/compact", method_post, &mock_compact },
    { "/responses", method_post, &mock_responses },
    { "/messages/count_tokens", method_post, &mock_count_tokens },
    { "/messages", method_post, &mock_messages },
    { "/models", method_get, &mock_models },
    { "/files", method_post, &mock_files },
    { "/files", method_get, &mock_file_list },
    { "/batches", method_post, &mock_batches },
    { "/batches", method_get, &mock_batch_list },
    { NULL, 0, NULL }
};

static const mock_route_t  mock_id_routes[] = {
    { "/responses/", method_get, &mock_response_get },
    { "/responses/", method_post, &mock_response_get },
    { "/responses/", method_delete, &mock_response_delete },
    { "/models/", method_get, &mock_model_get },
    { "/batches/", method_get, &mock_batches },
    { "/batches/", method_post, &mock_batches },
    { NULL, 0, NULL }
};


static const mock_api_t *
mock_route_id(mock_req_t *r, const char *path, size_t len)
{
    size_t               n;
    const char          *p;
    const mock_route_t  *route;

    for (route = mock_id_routes; route->path; route++) {

        n = strlen(route->path);
        p = memmem(path, len, route->path, n);

        if (p == NULL || route->method != r->method) {
            continue;
        }

        p += n;
        n = len - (size_t) (p - path);
        n = strcspn(p, "/ ?") < n ? strcspn(p, "/ ?") : n;

        if (n) {
            snprintf(r->id, sizeof(r->id), "%.*s", (int) n, p);
            return route->api;
        }
    }

    return &mock_unknown;
}


const mock_api_t *
mock_route(mock_req_t *r, const char *path, size_t len)
{
    int                  found;
    size_t               n;
    const mock_route_t  *route;

    if (r->method == method_head) {
        return &mock_probe;
    }

    if (len > 1 && path[len - 1] == '/') {
        len--;
    }

    found = 0;

    for (route = mock_routes; route->path; route++) {
        n = strlen(route->path);

        if (n > len || memcmp(path + len - n, route->path, n) != 0) {
            continue;
        }

        if (route->method == r->method) {
            return route->api;
        }

        found = 1;
    }

    return found ? &mock_not_allowed : mock_route_id(r, path, len);
}
