
/* OpenAI: models, files, batches; the probe; what does not exist. */

#include "mock.h"


static void
mock_probe_prefix(mock_req_t *r, mock_buf_t *b)
{
    (void) r;
    (void) b;
}


const mock_api_t  mock_probe = {
    .name = "probe",
    .prefix = mock_probe_prefix
};

const mock_api_t  mock_unknown = { .name = "unknown" };
const mock_api_t  mock_not_allowed = { .name = "not_allowed" };


static void
mock_models_prefix(mock_req_t *r, mock_buf_t *b)
{
    (void) r;

    mock_lit(b, "{\n  \"object\": \"list\",\n  \"data\": [\n"
                "    {\n      \"id\": \"gpt-mock\",\n"
                "      \"object\": \"model\",\n"
                "      \"created\": 1760000000,\n"
                "      \"owned_by\": \"openai\"\n    },\n"
                "    {\n      \"id\": \"text-embedding-mock\",\n"
                "      \"object\": \"model\",\n"
                "      \"created\": 1760000001,\n"
                "      \"owned_by\": \"openai-internal\"\n    }\n"
                "  ]\n}\n");
}


const mock_api_t  mock_models = {
    .name = "models",
    .prefix = mock_models_prefix
};


static void
mock_model_get_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");
    mock_str(b, r->id);
    mock_lit(b, "\",\"object\":\"model\",\"created\":1760000000,"
                "\"owned_by\":\"openai\"}\n");
}


const mock_api_t  mock_model_get = {
    .name = "model_get",
    .prefix = mock_model_get_prefix
};


/* bytes and crc32 are those of the request body as received, not of a part */

static void
mock_files_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"file-");
    mock_buf_id(b, r->id_seed, 22);
    mock_lit(b, "\",\"object\":\"file\",\"bytes\":");
    mock_buf_num(b, r->body_len);
    mock_lit(b, ",\"crc32\":\"");
    mock_buf_hex(b, r->crc, 8);
    mock_lit(b, "\",\"created_at\":");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\"expires_at\":null,\"filename\":\"upload.jsonl\","
                "\"purpose\":\"batch\",\"status\":\"processed\"}\n");
}


const mock_api_t  mock_files = {
    .name = "files",
    .prefix = mock_files_prefix
};


static void
mock_empty_list_prefix(mock_req_t *r, mock_buf_t *b)
{
    (void) r;

    mock_lit(b, "{\"object\":\"list\",\"data\":[],\"first_id\":null,"
                "\"last_id\":null,\"has_more\":false}\n");
}


const mock_api_t  mock_file_list = {
    .name = "file_list",
    .prefix = mock_empty_list_prefix
};

const mock_api_t  mock_batch_list = {
    .name = "batch_list",
    .prefix = mock_empty_list_prefix
};


static void
mock_batches_prefix(mock_req_t *r, mock_buf_t *b)
{
    mock_lit(b, "{\"id\":\"");

    if (r->id[0]) {
        mock_str(b, r->id);

    } else {
        mock_lit(b, "batch_");
        mock_buf_id(b, r->id_seed, 32);
    }

    mock_lit(b, "\",\"object\":\"batch\",\"endpoint\":"
                "\"/v1/chat/completions\",\"errors\":null,"
                "\"input_file_id\":\"file-mock\","
                "\"completion_window\":\"24h\",\"status\":\"validating\","
                "\"output_file_id\":null,\"error_file_id\":null,"
                "\"created_at\":");
    mock_buf_num(b, r->created);
    mock_lit(b, ",\"in_progress_at\":null,\"expires_at\":");
    mock_buf_num(b, r->created + 86400);
    mock_lit(b, ",\"finalizing_at\":null,\"completed_at\":null,"
                "\"failed_at\":null,\"expired_at\":null,"
                "\"cancelling_at\":null,\"cancelled_at\":null,"
                "\"request_counts\":{\"total\":0,\"completed\":0,"
                "\"failed\":0},\"metadata\":null}\n");
}


const mock_api_t  mock_batches = {
    .name = "batches",
    .prefix = mock_batches_prefix
};
