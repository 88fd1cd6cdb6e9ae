#!/usr/bin/perl

# llm_adapter_passthrough: other paths and methods go to one provider as they
# are, with its key, and come back as they are.
#
# The provider of a block answers with the request that it got: its line, its
# headers sorted, an empty line and the body; the port in Host is PORT.  With
# --- answer it says that instead (status line and headers, LF line ends).

use Test::Nginx::Socket 'no_plan';

BEGIN { $ENV{LLM_T_KEY} = 'sk-ours' }

sub echo {
    my ($head, $body) = split /\r\n\r\n/, $_[0], 2;
    my ($line, @headers) = split /\r\n/, $head;

    s/^(Host: 127\.0\.0\.1):\d+$/$1:PORT/ for @headers;
    my $text = join "\n", $line, sort(@headers), '', $body;

    return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "
           . length($text) . "\r\nx-request-id: req_1\r\n\r\n$text";
}

add_block_preprocessor(sub {
    my ($block) = @_;

    my $members = scalar($block->provider) // 'dialect openai; key env:LLM_T_KEY;';
    $block->set_value(http_config => ($block->http_config // '')
        . "llm_adapter_provider p { endpoint http://127.0.0.1:\$TEST_NGINX_RAND_PORT_1/base; $members}"
        . 'llm_adapter_model m p;');
    $block->set_value(config => 'location /v1/ { llm_adapter on; llm_adapter_passthrough p; }')
        if !defined $block->config;

    my $answer = scalar $block->answer;

    if ($answer) {
        my ($head, $body) = split /\n\n/, $answer, 2;
        $head =~ s/\n*$/\n/;
        $head =~ s/\n/\r\n/g;
        $answer = "$head\r\n" . ($body // '');
    }

    if (!defined $block->no_provider) {
        $block->set_value(tcp_listen => '$TEST_NGINX_RAND_PORT_1') if !defined $block->tcp_listen;
        $block->set_value(tcp_reply => $answer // \&echo) if !defined $block->tcp_reply;
    }

    $block->set_value(no_error_log => ['[alert]', '[crit]', '[error]'])
        if !defined $block->no_error_log;
});

no_long_string();

run_tests();

__DATA__

=== a GET below responses
--- request
GET /v1/responses/resp_1?include%5b%5d=a%20b&key=client&after=x
--- more_headers
User-Agent: sdk
Authorization: Bearer of-the-client
x-api-key: of-the-client
Cookie: a=b
Accept-Encoding: gzip
Accept: application/json
OpenAI-Beta: x=v1
X-Forwarded-For: 10.0.0.1
If-None-Match: "x"
Range: bytes=0-1
--- response_body eval
"GET /base/responses/resp_1?include%5b%5d=a%20b&after=x HTTP/1.1
Accept-Encoding: identity
Accept: application/json
Authorization: Bearer sk-ours
Host: 127.0.0.1:PORT
OpenAI-Beta: x=v1
User-Agent: sdk

"
--- response_headers
x-request-id: req_1
X-LLM-Provider: p



=== DELETE
--- request
DELETE /v1/responses/resp_1
--- answer
HTTP/1.1 200 OK
Content-Type: application/json
Content-Length: 16

{"deleted":true}
--- response_headers
Content-Type: application/json
Content-Length: 16
--- response_body: {"deleted":true}



=== DELETE reaches the provider as such
--- request
DELETE /v1/responses/resp_1
--- response_body_like: ^DELETE /base/responses/resp_1 HTTP/1\.1\nAccept-Encoding: identity\nAuthorization: Bearer sk-ours\nHost: 127.0.0.1:PORT\n\n$



=== HEAD
--- request
HEAD /v1/files/file_1
--- answer
HTTP/1.1 200 OK
Content-Type: application/json
Content-Length: 1234
x-request-id: req_2
--- response_headers
Content-Type: application/json
Content-Length: 1234
x-request-id: req_2
--- response_body:



=== POST to a path that is none of ours
--- request eval
"POST /v1/responses/compact\n" . '{"model":"m", "input":[] }'
--- more_headers
Content-Type: application/json
--- response_body chomp
POST /base/responses/compact HTTP/1.1
Accept-Encoding: identity
Authorization: Bearer sk-ours
Content-Length: 26
Content-Type: application/json
Host: 127.0.0.1:PORT

{"model":"m", "input":[] }



=== an empty POST
--- request
POST /v1/responses/resp_1/cancel
--- more_headers
Content-Length: 0
--- response_body_like: ^POST /base/responses/resp_1/cancel HTTP/1\.1\nAccept-Encoding: identity\nAuthorization: Bearer sk-ours\nContent-Length: 0\nHost: 127.0.0.1:PORT\n\n$



=== a body of several parts is not looked at
--- request eval
"POST /v1/files\n--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{\"not json\0\xff\r\n--XX--"
--- more_headers
Content-Type: multipart/form-data; boundary=XX
--- response_body eval
"POST /base/files HTTP/1.1
Accept-Encoding: identity
Authorization: Bearer sk-ours
Content-Length: 93
Content-Type: multipart/form-data; boundary=XX
Host: 127.0.0.1:PORT

--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{\"not json\0\xff\r\n--XX--"



=== a chunked body that has come whole
--- request eval
"POST /v1/files\n3\r\nabc\r\n8\r\ndefghijk\r\n0\r\n\r\n"
--- more_headers
Transfer-Encoding: chunked
--- tcp_query_auto_timeout: 0.2
--- response_body_like eval
qr/^POST \/base\/files HTTP\/1\.1\nAccept-Encoding: identity\nAuthorization: Bearer sk-ours\n(?:Content-Length: 11\nHost: 127\.0\.0\.1:PORT\n\nabcdefghijk|Host: 127\.0\.0\.1:PORT\nTransfer-Encoding: chunked\n\n(?:b\r\nabcdefghijk\r\n|3\r\nabc\r\n8\r\ndefghijk\r\n)0\r\n\r\n)$/



=== a chunked body that comes in pieces
--- request eval
[["POST /v1/files\n3\r\nabc\r\n", {value => "2\r\nde\r\n", delay_before => 0.05}, {value => "0\r\n\r\n", delay_before => 0.05}]]
--- more_headers
Transfer-Encoding: chunked
--- tcp_query_auto_timeout: 0.3
--- response_body_like: \n\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n$



=== an empty chunked body
--- request eval
"POST /v1/files\n0\r\n\r\n"
--- more_headers
Transfer-Encoding: chunked
--- tcp_query_auto_timeout: 0.2
--- response_body_like: ^POST /base/files HTTP/1\.1\n(.*\n)?\n(0\r\n\r\n)?$



=== an encoded body is the provider's affair
--- request eval
"POST /v1/files\n\x1f\x8b\x08"
--- more_headers
Content-Encoding: gzip
--- response_body_like: Content-Encoding: gzip\n(.*\n)?\n\x1f\x8b\x08$



=== a method that no endpoint has
--- request
GET /v1/chat/completions?limit=2
--- response_body_like: ^GET /base/chat/completions\?limit=2 HTTP/1\.1\n



=== a method of WebDAV
--- request
PATCH /v1/assistants/a
{}
--- response_body_like: ^PATCH /base/assistants/a HTTP/1\.1\n



=== what is parsed is still parsed
--- request eval
"POST /v1/chat/completions\n{"
--- no_provider
--- error_code: 400
--- response_body_like: invalid_json



=== models are still the configuration's
--- request
GET /v1/models
--- no_provider
--- response_body_like: "id":"m"



=== off
--- config
llm_adapter_passthrough p;
location /v1/ { llm_adapter on; llm_adapter_passthrough off; }
--- request eval
["GET /v1/files", "GET /v1/chat/completions", "HEAD /v1/", "GET /v1/files"]
--- more_headers eval
["", "", "", "anthropic-version: 1"]
--- no_provider
--- error_code eval
[404, 405, 404, 404]
--- response_body_like eval
['^\{"error":\{"message":"there is no such endpoint"', 'method_not_allowed', '^$', '^\{"type":"error","error":\{"type":"not_found_error"']



=== off is the default
--- config
location /v1/ { llm_adapter p; }
--- request
GET /v1/files
--- no_provider
--- error_code: 404
--- response_body_like: "code":"not_found"



=== inherited
--- config
llm_adapter_passthrough p;
location /v1/ { llm_adapter p; if ($http_x_a) { set $a 1; } }
--- request
GET /v1/files
--- more_headers
X-A: 1
--- response_body_like: ^GET /base/files HTTP/1\.1\n



=== a preset's name
--- config
location /v1/ { llm_adapter p; llm_adapter_passthrough anthropic; }
--- http_config
llm_adapter_provider anthropic { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; key env:LLM_T_KEY; }
--- request
GET /v1/messages/batches/msgbatch_1/results
--- response_body_like: ^GET /messages/batches/msgbatch_1/results HTTP/1\.1\n(.*\n)?x-api-key: sk-ours\n



=== the path is escaped as it was
--- request
GET /v1/files/a%20b%2Fc%3Fd%25/content
--- response_body_like: ^GET /base/files/a%20b(/|%2F)c%3Fd%25/content HTTP/1\.1\n



=== dots in a path do not lead out of the base
--- request
GET /v1/files/%2e%2e/%2e%2e/secret
--- error_code_like: ^(200|400|404)$
--- no_provider
--- no_error_log
[alert]



=== the root, with the API's version in the path
--- config
location /llm/ { llm_adapter on; llm_adapter_passthrough p; }
--- request
GET /llm/v1/files
--- response_body_like: ^GET /base/files HTTP/1\.1\n



=== a location by a regular expression
--- config
location ~ ^/team/ { llm_adapter on; llm_adapter_passthrough p; }
--- request
GET /team/v1/files
--- response_body_like: ^GET /base/files HTTP/1\.1\n



=== ... takes what follows the version, not what looks like an endpoint
--- config
location ~ ^/team/ { llm_adapter on; llm_adapter_passthrough p; }
--- request eval
"POST /team/v1/threads/t_1/messages\n" . '{"role":"user"}'
--- response_body_like: ^POST /base/threads/t_1/messages HTTP/1\.1\n



=== nor does a location by a prefix
--- request eval
"POST /v1/threads/t_1/messages\n" . '{"role":"user"}'
--- response_body_like: ^POST /base/threads/t_1/messages HTTP/1\.1\n



=== the client's key
--- provider: dialect openai; key client;
--- request
GET /v1/files
--- more_headers
Authorization: Bearer of-the-client
x-api-key: not-this
OpenAI-Project: proj
--- response_body_like: ^GET /base/files HTTP/1\.1\nAccept-Encoding: identity\nAuthorization: Bearer of-the-client\nHost: [^\n]*\nOpenAI-Project: proj\n\n$



=== headers of an answer
--- request
GET /v1/files
--- answer
HTTP/1.1 206 Some
Content-Type: application/octet-stream
Content-Length: 2
Content-Encoding: br
Content-Disposition: attachment
Set-Cookie: a=b
OpenAI-Organization: org
x-ratelimit-limit-requests: 1
X-Accel-Redirect: /elsewhere
Server: provider
Date: Thu, 01 Jan 1970 00:00:00 GMT
ETag: "a"
x-request-id: req_3
Retry-After: 1
Location: /v1/other

ab
--- error_code: 206
--- response_headers
Content-Type: application/octet-stream
Content-Length: 2
Content-Encoding: br
Content-Disposition: attachment
! Set-Cookie
! OpenAI-Organization
! x-ratelimit-limit-requests
! X-Accel-Redirect
ETag: "a"
x-request-id: req_3
Retry-After: 1
X-LLM-Provider: p
--- response_body: ab



=== a redirect is the provider's word
--- request
GET /v1/files
--- answer
HTTP/1.1 302 Found
Content-Length: 0
Location: https://files.example.com/x
--- error_code: 302
--- response_headers
Location: https://files.example.com/x
--- response_body:



=== an error of the provider
--- request
GET /v1/files
--- answer
HTTP/1.1 429 Too Many Requests
Content-Type: application/json
Content-Length: 12
Retry-After: 5

{"error":{}}
--- error_code: 429
--- response_headers
Content-Type: application/json
Retry-After: 5
--- response_body: {"error":{}}



=== a chunked answer
--- request
GET /v1/files
--- answer eval
"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Type: text/plain\n\n3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n"
--- response_headers
Transfer-Encoding: chunked
--- response_body: abcdefgh



=== a stream
--- request
GET /v1/responses/resp_1?stream=true
--- answer eval
"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\nevent: x\r\ndata: 1\r\n\r\n: comment\n\ndata: not json\n"
--- response_headers
Content-Type: text/event-stream
--- response_body eval
"event: x\r\ndata: 1\r\n\r\n: comment\n\ndata: not json\n"



=== no content
--- request
DELETE /v1/files/f
--- answer
HTTP/1.1 204 No Content
x-request-id: req_1
--- error_code: 204
--- response_headers
x-request-id: req_1
--- response_body:



=== interim answers are skipped
--- request
GET /v1/files
--- tcp_reply eval
"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Late: 1\r\n\r\n{}"
--- response_headers
X-Late: 1
! X-Early
--- response_body: {}



=== a provider that is not there
--- request eval
["GET /v1/files", "GET /v1/messages/batches"]
--- more_headers eval
["", "anthropic-version: 1"]
--- no_provider
--- error_code eval
[502, 502]
--- response_body_like eval
['^\{"error":\{"message":"[^"]*","type":"server_error"', '^\{"type":"error","error":\{"type":"api_error"']
--- error_log eval
qr/Connection refused/
--- no_error_log
[alert]



=== a provider that does not answer
--- request
GET /v1/files
--- answer:
--- error_code: 502
--- response_body_like: "type":"server_error"
--- no_error_log
[alert]



=== a provider that takes its time
--- provider: dialect openai; timeout plain=100ms;
--- request
GET /v1/files
--- tcp_reply_delay: 400ms
--- error_code: 504
--- response_body_like: "type":"server_error"
--- no_error_log
[alert]



=== a location that gives it its time
--- provider: dialect openai; timeout plain=100ms;
--- config
location /v1/ { llm_adapter p; llm_adapter_passthrough p; llm_adapter_timeout plain=2s; }
--- request
GET /v1/files
--- tcp_reply_delay: 250ms
--- response_body_like: ^GET /base/files



=== an answer that is cut
--- request
GET /v1/files
--- answer eval
"HTTP/1.1 200 OK\nContent-Length: 100\nContent-Type: text/plain\n\nabc"
--- response_body: abc
--- error_log
prematurely closed connection
--- no_error_log
[alert]



=== a large answer
--- request
GET /v1/files/f/content
--- answer eval
"HTTP/1.1 200 OK\nContent-Length: 3000000\nContent-Type: application/octet-stream\n\n" . "0123456789" x 300000
--- response_headers
Content-Length: 3000000
--- response_body eval
"0123456789" x 300000



=== a large answer in chunks
--- request
GET /v1/files/f/content
--- answer eval
"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Type: application/octet-stream\n\n"
. (sprintf("%x\r\n", 50000) . "0123456789" x 5000 . "\r\n") x 40 . "0\r\n\r\n"
--- response_body eval
"0123456789" x 200000



=== a large body
--- http_config
server {
    listen $TEST_NGINX_RAND_PORT_2;
    client_max_body_size 0;
    location / {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_3;
        proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length "";
        proxy_set_header X-Length "$http_content_length$http_transfer_encoding $request_body_file";
    }
}
server { listen $TEST_NGINX_RAND_PORT_3; return 200 "$http_x_length\n"; }
llm_adapter_provider big { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
--- config
location /v1/ { llm_adapter on; llm_adapter_passthrough big; }
--- request eval
["POST /v1/files\n" . "x" x 3000000, "POST /v1/files\n" . ("c350\r\n" . "0123456789" x 5000 . "\r\n") x 40 . "0\r\n\r\n"]
--- more_headers eval
["", "Transfer-Encoding: chunked"]
--- no_provider
--- response_body_like eval
['^3000000 \S+$', '^(chunked|2000000) \S+$']
--- log_level: info



=== a body over the limit
--- config
location /v1/ { llm_adapter on; llm_adapter_passthrough p; client_max_body_size 10; }
--- request eval
["POST /v1/files\n" . "x" x 30, "POST /v1/files\n1e\r\n" . "x" x 30 . "\r\n0\r\n\r\n"]
--- more_headers eval
["", "Transfer-Encoding: chunked"]
--- no_provider
--- error_code eval
[413, 413]
--- response_body_like eval
['"code":"request_too_large"', '"code":"request_too_large"']
--- no_error_log
[alert]



=== error_page for a provider's error: only if asked
--- config
error_page 429 /page;
location /v1/ { llm_adapter on; llm_adapter_passthrough p; llm_adapter_intercept_errors on; }
location = /page { internal; return 200 "page\n"; }
--- request
GET /v1/files
--- answer
HTTP/1.1 429 Too Many Requests
Content-Length: 2

{}
--- error_code: 429
--- response_body
page



=== to an HTTP/1.0 client
--- request
GET /v1/files HTTP/1.0
--- answer eval
"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n"
--- response_headers
! Transfer-Encoding
--- response_body: abc



=== a connection to the provider is used again
--- http_config
server {
    listen $TEST_NGINX_RAND_PORT_2;
    location / { return 200 "$connection_requests\n"; }
    location /v0/chunked { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_3; proxy_set_header X-N $connection_requests; proxy_http_version 1.0; }
}
server { listen $TEST_NGINX_RAND_PORT_3; location / { ssi on; ssi_types text/plain; root html; try_files /n =404; } }
llm_adapter_provider again { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2/v0; dialect openai; }
--- user_files
>>> n
<!--# echo var="http_x_n" -->
--- config
location /v1/ { llm_adapter again; llm_adapter_passthrough again; }
--- request eval
["GET /v1/files", "POST /v1/files\n{}", "DELETE /v1/files/f", "POST /v1/files\n2\r\n{}\r\n0\r\n\r\n", "GET /v1/chunked", "GET /v1/x",
 "POST /v1/chat/completions\n" . '{"model":"x","messages":[]}', "GET /v1/x"]
--- more_headers eval
["", "", "", "Transfer-Encoding: chunked", "", "", "", ""]
--- no_provider
--- response_body eval
["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n", "8\n"]
