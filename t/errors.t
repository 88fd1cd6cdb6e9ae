#!/usr/bin/perl

# Errors: bad requests of every kind, nginx's own refusals, error_page.  Each
# is told in the dialect of the endpoint called, as JSON.
#
# --- says has a line for each request, "STATUS DIALECT TYPE PARAM CODE: text"
# (param - is null); each answer must be exactly such an object, with text in
# its message.  A line "STATUS text/plain: text" is any answer with that body.

use Test::Nginx::Socket 'no_plan';

BEGIN { $ENV{LLM_T_KEY} = "sk-LLMCANARY" }

# requests as short as they can be, to each dialect's endpoint
sub ::chat     { return "POST /v1/chat/completions\n" . ($_[0] // '') }
sub ::messages { return "POST /v1/messages\n" . ($_[0] // '') }
sub ::both     { return map { (::chat($_), ::messages($_)) } @_ }

# the same refusals of both dialects
sub ::bad {
    my ($param, $code, $text) = @_;
    return map { "400 $_ invalid_request_error $param $code: $text\n" }
               qw(openai anthropic);
}

sub shape {
    my ($line) = @_;

    if ($line =~ m{^(\d+) text/plain: (.*)$}) {
        return [$1, qr/^\Q$2\E\n?$/, qr{}];
    }

    my ($status, $dialect, $type, $param, $code, $text) =
        $line =~ /^(\d+) (\w+) (\w+) (\S+) (\w+): (.*)$/ or die $line;

    $text = qr/"(?:[^"\\]|\\.)*\Q$text\E(?:[^"\\]|\\.)*"/;
    $param = $param eq '-' ? 'null' : qq{"$param"};

    my $body = $dialect eq 'openai'
        ? qr/^\{"error":\{"message":$text,"type":"$type","param":$param,"code":"$code"\}\}$/
        : qr/^\{"type":"error","error":\{"type":"$type","message":$text,"code":"$code"\},"request_id":"[0-9a-f]{32}"\}$/;

    return [$status, $body,
            qr{\r\nContent-Type: application/json\r\nContent-Length: \d+\r\n}];
}

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value(http_config => ($block->http_config // '') . <<'EOC');
llm_adapter_provider o { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/v1; dialect openai; key client; }
llm_adapter_provider a { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/v1; dialect anthropic; key client; }
llm_adapter_model o* o;
llm_adapter_model a* a;
llm_adapter_retry attempts=1;
server {
    listen $TEST_NGINX_RAND_PORT_1;
    default_type application/json;
    location / { return 200 '{"ok":true}'; }
    location /v1/embeddings {
        add_header X-Provider yes always;
        return 429 '{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}';
    }
    location /v1/completions { return 403 '{"error":{"message":"not yours"}}'; }
    location /v1/responses { return 422 '{"error":{"message":"no"}}'; }
}
EOC
    $block->set_value(config => 'location /v1/ { llm_adapter on; }')
        if !defined $block->config;

    my $says = scalar $block->says;
    $block->set_value(no_error_log => ['[alert]', '[crit]'])
        if !defined $block->no_error_log;
    return if !defined $says;

    my @shapes = map { shape($_) } map { split /\n/ } ref $says ? @$says : $says;
    my @wanted = map { my $i = $_; [map { $_->[$i] } @shapes] } 0 .. 2;
    my $requests = $block->request // $block->pipelined_requests;
    @wanted = map { $_->[0] } @wanted if !ref $requests;

    $block->set_value(error_code => $wanted[0]);
    $block->set_value(response_body_like => $wanted[1]);
    $block->set_value(raw_response_headers_like => $wanted[2]);
});

no_long_string();

run_tests();

__DATA__

=== a body that is not JSON: where it stops to be
--- request eval
[
    ::both('{'),
    ::both('hello'),
    ::both('{"model":"o",}'),
    ::both('{"model":"o" "stream":true}'),
    ::both('{"model":"o","messages":[]} x'),
    ::both("{'model':'o'}"),
    ::both('{"model":"o","n":01}'),
    ::both('{"model":"o","n":NaN}'),
    ::both('{"model":"o","n":truE}'),
    ::both('{"model":"o","messages":[{"role":"user","content":"x}]}'),
]
--- says eval
[::bad('-', 'invalid_json', 'unexpected end at byte 1'),
         ::bad('-', 'invalid_json', 'at byte 0'),
         ::bad('-', 'invalid_json', 'at byte 13'),
         ::bad('-', 'invalid_json', 'at byte 13'),
         ::bad('-', 'invalid_json', 'text after the value at byte 28'),
         ::bad('-', 'invalid_json', 'at byte 1'),
         ::bad('-', 'invalid_json', 'at byte 18'),
         ::bad('-', 'invalid_json', 'at byte 17'),
         ::bad('-', 'invalid_json', 'at byte'),
         ::bad('-', 'invalid_json', 'unexpected end at byte 55')]



=== a body that is no object
--- request eval
[::both('[{"model":"o"}]', '"model"', '17', 'null', 'true')]
--- says eval
[(::bad('-', 'not_an_object', 'must be a JSON object')) x 5]



=== an empty body
--- request eval
["POST /v1/chat/completions\n", "POST /v1/messages\n",
 "POST /v1/chat/completions\n", "POST /v1/chat/completions\n0\r\n\r\n",
 "POST /v1/messages\n2\r\n \n\r\n0\r\n\r\n"]
--- more_headers eval
["", "", "Content-Length: 0", "Transfer-Encoding: chunked",
 "Transfer-Encoding: chunked"]
--- says
400 openai invalid_request_error - empty_body: the request body is empty
400 anthropic invalid_request_error - empty_body: the request body is empty
400 openai invalid_request_error - empty_body: the request body is empty
400 openai invalid_request_error - empty_body: the request body is empty
400 anthropic invalid_request_error - empty_body: the request body is empty



=== members given twice
--- request eval
[
    ::both('{"model":"o","model":"p","messages":[]}'),
    ::both('{"model":"o","messages":[],"mod\u0065l":"o"}'),
    ::both('{"model":"o","stream":true,"messages":[],"stream":false}'),
    ::both('{"messages":[],"model":"o","messages":[]}'),
]
--- says eval
[::bad('model', 'duplicate_member', 'the \"model\" member is given more than once'),
         ::bad('model', 'duplicate_member', 'more than once'),
         ::bad('stream', 'duplicate_member', 'more than once'),
         ::bad('messages', 'duplicate_member', 'more than once')]



=== a member that we do not read may come twice, also in depth
--- request eval
::chat('{"model":"o","messages":[{"model":1,"model":2}],"seed":1,"seed":2}')
--- response_body: {"ok":true}



=== members of a wrong type
--- request eval
[
    ::both('{"model":1,"messages":[]}'),
    ::both('{"model":null,"messages":[]}'),
    ::both('{"model":["o"],"messages":[]}'),
    ::both('{"model":"","messages":[]}'),
    ::both('{"model":"o","stream":"true","messages":[]}'),
    ::both('{"model":"o","stream":1,"messages":[]}'),
    ::both('{"model":"o","messages":"hello"}'),
    ::both('{"model":"o","messages":null}'),
    ::both('{"model":"o","messages":{}}'),
]
--- says eval
[(::bad('model', 'invalid_type', 'the \"model\" member must be a non-empty string')) x 4,
         (::bad('stream', 'invalid_type', 'the \"stream\" member must be a boolean')) x 2,
         (::bad('messages', 'invalid_type', 'the \"messages\" member must be an array')) x 3]



=== wrong types that only one endpoint knows
--- request eval
[
    ::chat('{"model":"o","stream":true,"stream_options":[],"messages":[]}'),
    "POST /v1/responses\n" . '{"model":"o","stream":"yes"}',
    "POST /v1/completions\n" . '{"model":"o","stream":0}',
    "POST /v1/embeddings\n" . '{"model":{}}',
    "POST /v1/messages/count_tokens\n" . '{"model":7}',
]
--- says
400 openai invalid_request_error stream_options invalid_type: must be an object
400 openai invalid_request_error stream invalid_type: must be a boolean
400 openai invalid_request_error stream invalid_type: must be a boolean
400 openai invalid_request_error model invalid_type: must be a non-empty string
400 anthropic invalid_request_error model invalid_type: must be a non-empty string



=== no model, no messages
--- request eval
[::both('{}', '{"messages":[]}'), ::chat('{"model":"o"}'), ::messages('{"model":"a"}')]
--- says eval
[(::bad('model', 'missing_model', 'the \"model\" member is missing')) x 2,
         ::bad('messages', 'missing_member', 'the \"messages\" member is missing')]



=== a model's name that no log should have to bear
--- request eval
[::both('{"model":"' . 'o' x 300 . '","messages":[]}', '{"model":"o\\u000ax","messages":[]}',
        '{"model":"o\\u0000","messages":[]}')]
--- says eval
[(::bad('model', 'invalid_model', 'too long or has control bytes')) x 3]



=== a model that nobody serves: neither names nor lists any
--- request eval
[::both('{"model":"secret-x<script>","messages":[]}')]
--- says
404 openai invalid_request_error model model_not_found: the model does not exist
404 anthropic not_found_error model model_not_found: the model does not exist
--- no_error_log
secret-x
[error]



=== nesting, to the limit and beyond it
--- request eval
[
    ::chat('{"model":"o","messages":' . '[' x 255 . ']' x 255 . '}'),
    ::both('{"model":"o","messages":' . '[' x 257 . ']' x 257 . '}',
           '{"model":"o","messages":' . '[' x 200000 . '}'),
]
--- says eval
['200 text/plain: {"ok":true}' . "\n",
         (::bad('-', 'invalid_json', 'nest')) x 2]



=== NUL and control bytes, in text and around it
--- request eval
[::both(qq({"model":"o\0","messages":[]}), qq({"model":"o",\0"messages":[]}),
        qq({"model":"o","messages":[],"a":"b\nc"}), qq({"model":"o","messages":[],"a":"b\x1fc"}),
        qq({"model":"o","messages":[]}\0))]
--- says eval
[::bad('-', 'invalid_json', 'at byte 11'), ::bad('-', 'invalid_json', 'at byte 13'),
         ::bad('-', 'invalid_json', 'at byte 33'), ::bad('-', 'invalid_json', 'at byte 33'),
         ::bad('-', 'invalid_json', 'at byte 27')]



=== invalid UTF-8
--- request eval
[::both(map { qq({"model":"o","messages":[],"a":"$_"}) }
        "\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80")]
--- says eval
[(::bad('-', 'invalid_json', 'at byte 32')) x 6]



=== valid UTF-8, escapes of all kinds, a BOM in a string
--- request eval
::chat(qq({"model":"o","messages":["\xe2\x82\xac\xf0\x9f\x98\x80\x7f\xef\xbb\xbf\\ud800\\u0000\\/"]}))
--- response_body: {"ok":true}



=== a wrong method says which is right
--- request eval
["GET /v1/chat/completions", "DELETE /v1/messages", "PUT /v1/responses\n{}",
 "OPTIONS /v1/embeddings", "POST /v1/models\n{}", "DELETE /v1/models/o1", "PATCH /v1/messages/count_tokens\n{}"]
--- says
405 openai invalid_request_error - method_not_allowed: the method is not allowed here
405 anthropic invalid_request_error - method_not_allowed: the method is not allowed here
405 openai invalid_request_error - method_not_allowed: the method is not allowed here
405 openai invalid_request_error - method_not_allowed: the method is not allowed here
405 openai invalid_request_error - method_not_allowed: the method is not allowed here
405 openai invalid_request_error - method_not_allowed: the method is not allowed here
405 anthropic invalid_request_error - method_not_allowed: the method is not allowed here
--- response_headers_like eval
["Allow: POST", "Allow: POST", "Allow: POST", "Allow: POST", "Allow: GET(, HEAD)?", "Allow: GET(, HEAD)?", "Allow: POST"]



=== models by a wrong method, asked by a client of the other dialect
--- request
POST /v1/models
{}
--- more_headers
anthropic-version: 2023-06-01
--- says
405 anthropic invalid_request_error - method_not_allowed: the method is not allowed here



=== a wrong content type
--- request eval
[(::both('{"model":"o","messages":[]}')) x 3]
--- more_headers eval
[map { ("Content-Type: $_") x 2 } 'text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']
--- says eval
[("415 openai invalid_request_error - unsupported_media_type: must be application/json\n",
          "415 anthropic invalid_request_error - unsupported_media_type: must be application/json\n") x 3]



=== content types that will do
--- request eval
[(::chat('{"model":"o","messages":[]}')) x 5]
--- more_headers eval
["", "Content-Type: application/json", "Content-Type: Application/JSON; charset=utf-8", "Content-Type:",
 "Content-Type: application/vnd.api+json"]
--- response_body eval
['{"ok":true}', '{"ok":true}', '{"ok":true}', '{"ok":true}', '{"ok":true}']



=== an encoded body
--- request eval
[::both("\x1f\x8b"), ::both("\x1f\x8b"), ::chat('{"model":"o","messages":[]}')]
--- more_headers eval
["Content-Encoding: gzip", "Content-Encoding: gzip", "Content-Encoding: identity, br", "content-encoding: zstd",
 "Content-Encoding: Identity"]
--- says
415 openai invalid_request_error - unsupported_media_type: request body is not supported
415 anthropic invalid_request_error - unsupported_media_type: request body is not supported
415 openai invalid_request_error - unsupported_media_type: request body is not supported
415 anthropic invalid_request_error - unsupported_media_type: request body is not supported
200 text/plain: {"ok":true}



=== a body that is too large, by its length and by what comes
--- config
location /v1/ { llm_adapter on; client_max_body_size 40; }
--- request eval
[
    ::both('{"model":"o","messages":[],"a":"bbbbbbbbbbbbbbb"}'),
    map({ "$_\n30\r\n" . ' ' x 48 . "\r\n0\r\n\r\n" }
        'POST /v1/chat/completions', 'POST /v1/messages'),
]
--- more_headers eval
["", "", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]
--- says
413 openai invalid_request_error - request_too_large: too large
413 anthropic request_too_large - request_too_large: too large
413 openai invalid_request_error - request_too_large: too large
413 anthropic request_too_large - request_too_large: too large
--- no_error_log
[alert]



=== a path that is none: in the dialect that fits best
--- config
location /v1/ { llm_adapter on; }
location /o/ { llm_adapter o; }
location /a/ { llm_adapter a; }
location /p/ { llm_adapter on; }
--- request eval
["POST /v1/nothing\n{}", "GET /v1/", "GET /v1/files", "HEAD /v1/batches", "POST /v1/nothing\n{}",
 "GET /o/files", "GET /a/files", "GET /a/files", "POST /v1/chat/completions/\n{}", "POST /v1/chat\n{}",
 "GET /v1/messages/batches", "GET /v1/responses/resp_1"]
--- more_headers eval
["", "", "", "", "anthropic-version: 2023-06-01", "", "", "anthropic-version: 2023-06-01", "", "", "", ""]
--- says eval
my $openai = "404 openai invalid_request_error - not_found: there is no such endpoint\n";
my $anthropic = "404 anthropic not_found_error - not_found: there is no such endpoint\n";
[$openai, $openai, $openai, "404 text/plain: \n", $anthropic,
         $openai, $anthropic, $anthropic, $openai, $openai, $openai, $openai]



=== a provider of the other dialect
--- request eval
[::chat('{"model":"a","messages":[]}'), ::messages('{"model":"o","messages":[]}'),
 "POST /v1/embeddings\n" . '{"model":"a"}', "POST /v1/messages/count_tokens\n" . '{"model":"o","messages":[]}']
--- says
400 openai invalid_request_error model unsupported_dialect: provider of another API
400 anthropic invalid_request_error model unsupported_dialect: provider of another API
400 openai invalid_request_error model unsupported_dialect: provider of another API
400 anthropic invalid_request_error model unsupported_dialect: provider of another API



=== a provider that is not there
--- http_config
llm_adapter_provider down-o { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
llm_adapter_provider down-a { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect anthropic; }
--- config
location /v1/ { llm_adapter on direct; }
--- request eval
[::chat('{"model":"down-o/x","messages":[]}'), ::messages('{"model":"down-a/x","messages":[],"stream":true}')]
--- says
502 openai server_error - upstream_connect: the provider could not be reached
502 anthropic api_error - upstream_connect: the provider could not be reached
--- error_log
Connection refused



=== nginx's own: auth_basic
--- config
auth_basic "private";
auth_basic_user_file $TEST_NGINX_SERVER_ROOT/html/none;
location /v1/ { llm_adapter on; }
--- request eval
[::both('{"model":"o","messages":[]}')]
--- says
401 openai authentication_error - unauthorized: authentication is required
401 anthropic authentication_error - unauthorized: authentication is required
--- response_headers eval
["WWW-Authenticate: Basic realm=\"private\"", "WWW-Authenticate: Basic realm=\"private\""]



=== nginx's own: deny
--- config
location /v1/ { deny all; llm_adapter on; }
--- request eval
[::both('{"model":"o","messages":[]}')]
--- says
403 openai permission_error - forbidden: access is denied
403 anthropic permission_error - forbidden: access is denied
--- error_log eval
qr/access forbidden by rule/



=== nginx's own: limit_req
--- http_config
limit_req_zone $server_name zone=one:64k rate=1r/m;
limit_req_status 429;
--- config
location /v1/ { limit_req zone=one; llm_adapter on; }
--- request eval
[::both('{"model":"o","messages":[]}'), ::chat('{"model":"o","messages":[]}')]
--- says
200 text/plain: {"ok":true}
429 anthropic rate_limit_error - rate_limit_exceeded: too many requests
429 openai rate_limit_error - rate_limit_exceeded: too many requests



=== nginx's own: limit_req, with its default status
--- http_config
limit_req_zone $server_name zone=one:64k rate=1r/m;
--- config
location /v1/ { limit_req zone=one; llm_adapter on; }
--- request eval
[::both('{"model":"o","messages":[]}')]
--- says
200 text/plain: {"ok":true}
503 anthropic overloaded_error - unavailable: not available



=== nginx's own: by return
--- config
location /v1/ { llm_adapter on; if ($arg_s = 401) { return 401; } if ($arg_s = 403) { return 403; } if ($arg_s = 404) { return 404; }
    if ($arg_s = 405) { return 405; } if ($arg_s = 413) { return 413; } if ($arg_s = 429) { return 429; } if ($arg_s = 500) { return 500; }
    if ($arg_s = 502) { return 502; } if ($arg_s = 503) { return 503; } if ($arg_s = 504) { return 504; } }
--- request eval
[map { ("POST /v1/chat/completions?s=$_\n{}", "POST /v1/messages?s=$_\n{}") } qw(401 403 404 405 413 429 500 502 503 504)]
--- says
401 openai authentication_error - unauthorized: authentication
401 anthropic authentication_error - unauthorized: authentication
403 openai permission_error - forbidden: denied
403 anthropic permission_error - forbidden: denied
404 openai invalid_request_error - not_found: no such endpoint
404 anthropic not_found_error - not_found: no such endpoint
405 openai invalid_request_error - method_not_allowed: not allowed
405 anthropic invalid_request_error - method_not_allowed: not allowed
413 openai invalid_request_error - request_too_large: too large
413 anthropic request_too_large - request_too_large: too large
429 openai rate_limit_error - rate_limit_exceeded: too many
429 anthropic rate_limit_error - rate_limit_exceeded: too many
500 openai server_error - internal: internal error
500 anthropic api_error - internal: internal error
502 openai server_error - bad_gateway: provider
502 anthropic api_error - bad_gateway: provider
503 openai server_error - unavailable: not available
503 anthropic overloaded_error - unavailable: not available
504 openai server_error - timeout: in time
504 anthropic timeout_error - timeout: in time



=== an answer of return's own text stays that
--- config
location /v1/ { llm_adapter on; return 503 "closed today"; }
--- request eval
::chat('{"model":"o","messages":[]}')
--- error_code: 503
--- response_body chomp
closed today



=== errors of a location that is not ours stay nginx's
--- config
location /v1/ { llm_adapter on; }
location /other/ { return 503; }
--- request
GET /other/
--- error_code: 503
--- response_body_like: <title>503 Service Temporarily Unavailable</title>



=== HEAD of an error has a head only
--- config
location /v1/ { deny all; llm_adapter on; }
--- request
HEAD /v1/chat/completions
--- error_code: 403
--- response_body:
--- response_headers
Content-Type: application/json



=== every error has a request's id
--- config
location /v1/ { llm_adapter on; add_header X-Id $request_id always; if ($arg_s = 503) { add_header X-Id $request_id always; return 503; } }
--- request eval
[::messages('{'), "POST /v1/messages?s=503\n{}", "GET /v1/none"]
--- error_code eval
[400, 503, 404]
--- raw_response_headers_like eval
[(qr/X-LLM-Request-Id: ([0-9a-f]{32})\r\nX-Id: \1\r\n/) x 3]



=== the id in the body is the one in the head
--- config
location /v1/ { llm_adapter on; }
--- request eval
::messages('{')
--- more_headers
Connection: close
--- error_code: 400
--- response_body_like: "request_id":"[0-9a-f]{32}"
--- response_headers_like
X-LLM-Request-Id: [0-9a-f]{32}



=== error_page for errors of ours
--- config
error_page 400 404 405 415 /page;
error_page 502 =418 /page;
location /v1/ { llm_adapter on direct; }
location = /page { internal; return 200 "page $request_method $uri\n"; }
--- http_config
llm_adapter_provider down-o { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
--- request eval
[::chat('{'), ::chat('{"model":"x","messages":[]}'), "GET /v1/none", "DELETE /v1/messages", ::messages('{}'),
 ::chat('{"model":"down-o/x","messages":[]}')]
--- more_headers eval
["", "", "", "", "Content-Type: text/plain", ""]
--- error_code eval
[400, 404, 404, 405, 415, 418]
--- response_body eval
[("page GET /page\n") x 6]



=== error_page for errors of nginx
--- config
error_page 403 413 503 /page;
location /v1/ { client_max_body_size 5; llm_adapter on; if ($arg_a) { return 503; } limit_except POST { deny all; } }
location = /page { internal; return 200 "page\n"; }
--- request eval
["GET /v1/models", ::chat('{"model":"o"}'), "POST /v1/models?a=b\n{}"]
--- error_code eval
[403, 413, 503]
--- response_body eval
[("page\n") x 3]



=== error_page to a file is served as it is
--- config
error_page 404 /404.json;
location /v1/ { llm_adapter on; }
location = /404.json { default_type application/problem+json; root html; }
--- user_files
>>> 404.json
{"mine":true}
--- request eval
["GET /v1/none", ::chat('{"model":"x","messages":[]}')]
--- error_code eval
[404, 404]
--- response_body eval
["{\"mine\":true}\n", "{\"mine\":true}\n"]
--- response_headers eval
["Content-Type: application/problem+json", "Content-Type: application/problem+json"]



=== error_page to another provider
--- http_config
llm_adapter_provider down-o { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
--- config
location /v1/ { llm_adapter down-o; error_page 502 = @other; }
location @other { llm_adapter o; }
--- request eval
[::chat('{"model":"x","messages":[]}'), ::chat('{"model":"x","messages":[],"stream":true}')]
--- response_body eval
['{"ok":true}', '{"ok":true}']
--- response_headers eval
["X-LLM-Provider: o", "X-LLM-Provider: o"]



=== errors within an error page that is ours are ours
--- config
error_page 400 404 405 415 502 = @llm;
location /v1/ { return 404; }
location @llm { llm_adapter on; }
--- request eval
[::chat('{'), ::chat('{"model":"x","messages":[]}'), "GET /v1/none", "GET /v1/chat/completions", ::chat('{"model":"o","messages":[]}')]
--- says
400 openai invalid_request_error - invalid_json: unexpected end at byte 1
404 openai invalid_request_error model model_not_found: the model does not exist
404 openai invalid_request_error - not_found: there is no such endpoint
405 openai invalid_request_error - method_not_allowed: not allowed here
200 text/plain: {"ok":true}



=== a provider's errors as they are
--- request eval
["POST /v1/embeddings\n" . '{"model":"o"}', "POST /v1/responses\n" . '{"model":"o"}', "POST /v1/completions\n" . '{"model":"o"}']
--- error_code eval
[429, 422, 403]
--- response_body eval
['{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}', '{"error":{"message":"no"}}',
 '{"error":{"message":"not yours"}}']
--- response_headers eval
["X-Provider: yes\nContent-Type: application/json", "Content-Type: application/json", "Content-Type: application/json"]



=== a provider's errors and error_page: not unless asked
--- config
error_page 429 422 /page;
location /v1/ { llm_adapter on; }
location = /page { internal; return 200 "page\n"; }
--- request eval
["POST /v1/embeddings\n" . '{"model":"o"}', "POST /v1/responses\n" . '{"model":"o"}']
--- error_code eval
[429, 422]
--- response_body_like eval
['slow down', '"no"']



=== a provider's errors and error_page: intercepted
--- config
error_page 429 /page;
error_page 422 = @other;
llm_adapter_intercept_errors on;
location /v1/ { llm_adapter on; }
location /off/ { llm_adapter on; llm_adapter_intercept_errors off; }
location = /page { internal; return 200 "page $upstream_status\n"; }
location @other { return 200 "other\n"; }
--- request eval
["POST /v1/embeddings\n" . '{"model":"o"}', "POST /v1/responses\n" . '{"model":"o"}', "POST /v1/completions\n" . '{"model":"o"}',
 "POST /off/embeddings\n" . '{"model":"o"}', "POST /v1/embeddings\n" . '{"model":"o","stream":true}']
--- error_code eval
[429, 200, 403, 429, 429]
--- response_body eval
["page 429\n", "other\n", '{"error":{"message":"not yours"}}',
 '{"error":{"message":"slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}', "page 429\n"]



=== our key refused is our error
--- http_config
server { listen $TEST_NGINX_RAND_PORT_2; default_type application/json; return 401 '{"error":{"message":"Incorrect API key provided: sk-LLMCANARY"}}'; }
llm_adapter_provider ours { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; key env:LLM_T_KEY; }
--- config
location /v1/ { llm_adapter ours; }
--- request eval
::chat('{"model":"x","messages":[]}')
--- says
502 openai server_error - provider_auth: the provider refused the gateway's credentials
--- error_log
provider "ours" refused our key with status 401
--- no_error_log
LLMCANARY
--- log_level: info



=== a client's key refused, and that of nobody, is the provider's word
--- http_config
server { listen $TEST_NGINX_RAND_PORT_2; default_type application/json; return 401 '{"error":{"message":"Incorrect API key"}}'; }
llm_adapter_provider none { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; key none; }
llm_adapter_provider client { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; key client; }
--- config
location /1/ { llm_adapter none; }
location /2/ { llm_adapter client; }
--- request eval
[map { "POST /$_/chat/completions\n" . '{"model":"x","messages":[]}' } 1 .. 2]
--- says
401 text/plain: {"error":{"message":"Incorrect API key"}}
401 text/plain: {"error":{"message":"Incorrect API key"}}



=== the connection stays after an error
--- pipelined_requests eval
[::chat('{'), ::messages('{"model":"x","messages":[]}'), "GET /v1/none", "DELETE /v1/messages", ::chat('{"model":"a","messages":[]}'),
 "POST /v1/none\n{}", ::chat("\x1f\x8b"), ::chat('{"model":"o","messages":[]}')]
--- more_headers eval
["", "", "", "", "", "", "Content-Encoding: gzip", ""]
--- says
400 openai invalid_request_error - invalid_json: unexpected end
404 anthropic not_found_error model model_not_found: does not exist
404 openai invalid_request_error - not_found: no such endpoint
405 anthropic invalid_request_error - method_not_allowed: not allowed
400 openai invalid_request_error model unsupported_dialect: another API
404 openai invalid_request_error - not_found: no such endpoint
415 openai invalid_request_error - unsupported_media_type: encoded
200 text/plain: {"ok":true}



=== the connection stays after an error of nginx, of a provider, of none
--- http_config
llm_adapter_provider down-o { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
--- config
location /v1/ { llm_adapter on direct; if ($arg_s) { return 403; } }
--- pipelined_requests eval
["POST /v1/messages?s=1\n{}", "POST /v1/responses\n" . '{"model":"o"}', ::chat('{"model":"down-o/x","messages":[]}'), ::chat('{"model":"o","messages":[]}')]
--- says
403 anthropic permission_error - forbidden: denied
422 text/plain: {"error":{"message":"no"}}
502 openai server_error - upstream_connect: could not be reached
200 text/plain: {"ok":true}
