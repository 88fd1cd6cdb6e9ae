#!/usr/bin/perl

# Headers and query: what a provider is sent, what a client is sent.
#
# The provider of a block answers with the request that it got: its line, its
# headers sorted, an empty line and the body; the port in Host is PORT.  With
# --- answer it says that instead (status line and headers, LF line ends).
# --- provider has the members of its block beside the endpoint.

use Test::Nginx::Socket 'no_plan';

BEGIN { $ENV{LLM_T_KEY} = 'sk-ours' }

sub echo {
    my ($head, $body) = split /\r\n\r\n/, $_[0], 2;
    my ($line, @headers) = split /\r\n/, $head;

    s/^(Host: 127\.0\.0\.1):\d+$/$1:PORT/ for @headers;
    my $text = join "\n", $line, sort(@headers), '', $body;

    return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
           . length($text) . "\r\n\r\n$text";
}

add_block_preprocessor(sub {
    my ($block) = @_;

    my $members = scalar($block->provider) // 'dialect openai; key none;';
    $block->set_value(http_config => ($block->http_config // '')
        . 'llm_adapter_provider p {'
        . "endpoint http://127.0.0.1:\$TEST_NGINX_RAND_PORT_1/base;$members}");
    $block->set_value(config => 'location /v1/ { llm_adapter p; }')
        if !defined $block->config;
    $block->set_value(request => "POST /v1/chat/completions\n"
                                 . '{"model":"m","messages":[]}')
        if !defined $block->request;

    my $answer = scalar $block->answer;

    if (defined $answer) {
        my ($head, $body) = split /\n\n/, $answer, 2;
        $head =~ s/\n*$/\n/;
        $head =~ s/\n/\r\n/g;
        $answer = "$head\r\n" . ($body // '{}');
    }

    $block->set_value(tcp_listen => '$TEST_NGINX_RAND_PORT_1');
    $block->set_value(tcp_reply => $answer // \&echo)
        if !defined $block->tcp_reply;
    $block->set_value(no_error_log => ['[alert]', '[crit]', '[error]']);
});

no_long_string();

run_tests();

__DATA__

=== a request with nothing of its own
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT

{"model":"m","messages":[]}



=== headers that are never sent
--- more_headers
Host: gateway.example.com
Cookie: session=1
Forwarded: for=10.0.0.1
X-Forwarded-For: 10.0.0.1
X-Forwarded-Host: gateway
x-forwarded-proto: https
X-Forwarded-Anything: 1
X-Real-IP: 10.0.0.1
Via: 1.1 proxy
Cache-Control: no-store
Range: bytes=0-10
If-Match: "a"
If-None-Match: "a"
If-Modified-Since: Mon, 23 Nov 2026 00:00:00 GMT
If-Unmodified-Since: Mon, 23 Nov 2037 00:00:00 GMT
If-Range: "a"
If-Something: new
Accept-Encoding: gzip, deflate, br
Proxy-Authorization: Basic eDp5
Proxy-Connection: keep-alive
Keep-Alive: timeout=5
TE: trailers
Trailer: X-T
Upgrade: h2c
HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA
Authorization: Bearer of-the-client
x-api-key: of-the-client
api-key: of-the-client
x-goog-api-key: of-the-client
OpenAI-Organization: org-client
OpenAI-Project: proj-client
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT

{"model":"m","messages":[]}



=== headers that pass, with their case and all their values
--- more_headers
User-Agent: OpenAI/Python 2.1
Accept: application/json, text/event-stream
Accept-Language: de
Content-Type: application/json; charset=utf-8
Content-Language: en
Idempotency-Key: stainless-1
OpenAI-Beta: assistants=v2
anthropic-beta: a-1,b-2
anthropic-beta: c-3
anthropic-version: 2023-06-01
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
tracestate: a=b
X-Stainless-Retry-Count: 0
X-Request-Id: mine
x-lowercase: kept
X-Unknown: a: b; c="d"
X-Utf8: é
X-Empty:
Iffy: is no condition
X-Forwardedish: too
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Accept-Language: de
Accept: application/json, text/event-stream
Content-Language: en
Content-Length: 27
Content-Type: application/json; charset=utf-8
Host: 127.0.0.1:PORT
Idempotency-Key: stainless-1
Iffy: is no condition
OpenAI-Beta: assistants=v2
User-Agent: OpenAI/Python 2.1
X-Empty: 
X-Forwardedish: too
X-Request-Id: mine
X-Stainless-Retry-Count: 0
X-Unknown: a: b; c="d"
X-Utf8: é
anthropic-beta: a-1,b-2
anthropic-beta: c-3
anthropic-version: 2023-06-01
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
tracestate: a=b
x-lowercase: kept

{"model":"m","messages":[]}



=== what Connection names ends here
--- more_headers
Connection: close, X-Hop,x-HOP2 ,X-Hop3
X-Hop: 1
X-Hop2: 2
X-Hop3: 3
X-Hop4: 4
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT
X-Hop4: 4

{"model":"m","messages":[]}



=== what a short Connection names ends here
--- request eval
"POST /v1/chat/completions HTTP/1.0\n" . '{"model":"m","messages":[]}'
--- more_headers
Connection: X-A
X-A: 1
X-B: 2
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT
X-B: 2

{"model":"m","messages":[]}



=== what a second Connection names ends here
--- more_headers
Connection: close
Connection: X-Hop-by-hop
X-Hop-By-Hop: 1
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT

{"model":"m","messages":[]}



=== a chunked body goes out by its length
--- request eval
"POST /v1/chat/completions\n10\r\n" . '{"model":"m","me' . "\r\nb\r\n" . 'ssages":[]}' . "\r\n0\r\n\r\n"
--- more_headers
Transfer-Encoding: chunked
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT

{"model":"m","messages":[]}



=== our key, to an OpenAI provider
--- provider: dialect openai; key env:LLM_T_KEY;
--- more_headers
Authorization: Bearer of-the-client
x-api-key: of-the-client
api-key: of-the-client
OpenAI-Organization: org-client
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Authorization: Bearer sk-ours
Content-Length: 27
Host: 127.0.0.1:PORT

{"model":"m","messages":[]}



=== our key, to an Anthropic provider
--- provider: dialect anthropic; key env:LLM_T_KEY;
--- request eval
"POST /v1/messages?beta=true\n" . '{"model":"m","messages":[]}'
--- more_headers
x-api-key: of-the-client
Authorization: Bearer of-the-client
anthropic-version: 2023-06-01
--- response_body chomp
POST /base/messages?beta=true HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT
anthropic-version: 2023-06-01
x-api-key: sk-ours

{"model":"m","messages":[]}



=== a key of a file loses its last newline
--- user_files
>>> key
sk-of-a-file
--- provider: dialect openai; key file:$TEST_NGINX_SERVER_ROOT/html/key;
--- response_body_like: ^POST [^{]*\nAuthorization: Bearer sk-of-a-file\nContent-Length: 27\n



=== a literal key
--- provider: dialect openai; key sk-literal;
--- response_body_like: \nAuthorization: Bearer sk-literal\n



=== the client's key, to an OpenAI provider
--- provider: dialect openai; key client;
--- more_headers
Authorization: Bearer of-the-client
x-api-key: not-this
api-key: not-this
x-goog-api-key: not-this
OpenAI-Organization: org-client
OpenAI-Project: proj-client
Cookie: not this
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Authorization: Bearer of-the-client
Content-Length: 27
Host: 127.0.0.1:PORT
OpenAI-Organization: org-client
OpenAI-Project: proj-client

{"model":"m","messages":[]}



=== the client's key, to an Anthropic provider
--- provider: dialect anthropic; key client;
--- request eval
"POST /v1/messages\n" . '{"model":"m","messages":[]}'
--- more_headers
x-api-key: of-the-client
api-key: not-this
x-goog-api-key: not-this
OpenAI-Organization: not-this
OpenAI-Project: not-this
--- response_body chomp
POST /base/messages HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: 127.0.0.1:PORT
x-api-key: of-the-client

{"model":"m","messages":[]}



=== the client's token, to an Anthropic provider
--- provider: dialect anthropic; key client;
--- request eval
"POST /v1/messages\n" . '{"model":"m","messages":[]}'
--- more_headers
Authorization: Bearer oauth
--- response_body_like: \nAuthorization: Bearer oauth\n



=== headers of the provider: set, in a client's place, dropped
--- provider
    dialect openai;
    key env:LLM_T_KEY;
    header OpenAI-Organization org-ours;
    header X-Set "a b";
    header X-Twice 1;
    header X-Twice 2;
    header user-agent gateway;
    header X-Drop "";
    header X-Env env:LLM_T_KEY;
    header Cookie chocolate;
--- more_headers
openai-organization: org-client
User-Agent: client
x-drop: me
X-SET: mine
X-Env: mine
Cookie: mine
--- response_body chomp
POST /base/chat/completions HTTP/1.1
Accept-Encoding: identity
Authorization: Bearer sk-ours
Content-Length: 27
Cookie: chocolate
Host: 127.0.0.1:PORT
OpenAI-Organization: org-ours
X-Env: sk-ours
X-Set: a b
X-Twice: 1
X-Twice: 2
user-agent: gateway

{"model":"m","messages":[]}



=== the query passes less a key
--- request eval
"POST /v1/chat/completions?b=%20x&key=sk-client&a=1+2&KEY=sk-client&keyring=3&monkey=4&c\n" . '{"model":"m","messages":[]}'
--- response_body_like: ^POST /base/chat/completions\?b=%20x&a=1\+2&keyring=3&monkey=4&c HTTP/1\.1\n



=== a query that is a key
--- request eval
"POST /v1/chat/completions?key=sk-client\n" . '{"model":"m","messages":[]}'
--- response_body_like: ^POST /base/chat/completions HTTP/1\.1\n



=== a key in the query is no credential of these dialects
--- provider: dialect openai; key client;
--- request eval
"POST /v1/chat/completions?a&key=sk-client&\n" . '{"model":"m","messages":[]}'
--- response_body_like: ^POST /base/chat/completions\?a&? HTTP/1\.1\n



=== Host is the endpoint's, and the upstream's name
--- http_config
upstream api { server 127.0.0.1:$TEST_NGINX_RAND_PORT_1; keepalive 1; }
llm_adapter_provider q { endpoint http://api/v9/; dialect openai; }
--- config
location /v1/ { llm_adapter q; }
--- more_headers
Host: gateway
--- response_body chomp
POST /v9/chat/completions HTTP/1.1
Accept-Encoding: identity
Content-Length: 27
Host: api

{"model":"m","messages":[]}



=== an endpoint without a path
--- http_config
llm_adapter_provider q { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; dialect openai; }
--- config
location /v1/ { llm_adapter q; }
--- response_body_like: ^POST /chat/completions HTTP/1\.1\n



=== headers of an answer that never pass
--- answer
HTTP/1.1 200 Fine
Content-Type: application/json
Content-Length: 2
Connection: close
Keep-Alive: timeout=5
Server: provider
Date: Thu, 01 Jan 1970 00:00:00 GMT
Set-Cookie: __cf_bm=1
set-cookie: __cf_bm=2
OpenAI-Organization: org-1
openai-project: proj-1
anthropic-organization-id: uuid
x-ratelimit-limit-requests: 5000
X-RateLimit-Remaining-Tokens: 4999
x-ratelimit-reset-tokens: 6m0s
anthropic-ratelimit-requests-limit: 5
anthropic-ratelimit-tokens-reset: 2026-11-23T00:00:00Z
Upgrade: h2
Trailer: X
Proxy-Authenticate: Basic
X-Accel-Redirect: /elsewhere
X-Accel-Buffering: yes
X-Accel-Limit-Rate: 1
X-Accel-Expires: 1
X-Accel-Charset: x
--- raw_response_headers_like eval
qr{^HTTP/1\.1\ 200\ OK\r\n
   Server:\ nginx[^\r]*\r\n
   Date:\ [^\r]*2026[^\r]*\r\n
   Content-Type:\ application/json\r\n
   Content-Length:\ 2\r\n
   Connection:\ close\r\n
   X-LLM-Request-Id:\ [0-9a-f]{32}\r\n
   X-LLM-Provider:\ p\r\n
   X-LLM-Model:\ m\r\n
   X-LLM-Attempts:\ 1\r\n
   X-LLM-Cache:\ OFF\r\n$}x
--- response_body: {}



=== headers of an answer that pass
--- answer
HTTP/1.1 200 OK
Content-Type: application/json; charset=utf-8
Content-Length: 2
x-request-id: req_1
request-id: req_2
openai-processing-ms: 12
OpenAI-Version: 2020-10-01
Retry-After: 3
retry-after-ms: 3000
x-should-retry: false
Cache-Control: private
Vary: Origin
Content-Language: en
ETag: "a"
Last-Modified: Mon, 23 Nov 2026 00:00:00 GMT
Link: <a>; rel=x
Link: <b>; rel=y
Strict-Transport-Security: max-age=1
cf-ray: 1-FRA
X-Unknown: a: b
x-ratelimit: is no limit
--- response_headers
Content-Type: application/json; charset=utf-8
Content-Length: 2
x-request-id: req_1
request-id: req_2
openai-processing-ms: 12
OpenAI-Version: 2020-10-01
Retry-After: 3
retry-after-ms: 3000
x-should-retry: false
Cache-Control: private
Vary: Origin
Content-Language: en
ETag: "a"
Last-Modified: Mon, 23 Nov 2026 00:00:00 GMT
Link: <a>; rel=x, <b>; rel=y
Strict-Transport-Security: max-age=1
cf-ray: 1-FRA
X-Unknown: a: b
x-ratelimit: is no limit
X-LLM-Provider: p
--- response_body: {}



=== limits are a client's to know whose key they limit
--- provider: dialect openai; key client;
--- answer
HTTP/1.1 200 OK
Content-Type: application/json
Content-Length: 2
x-ratelimit-limit-requests: 5000
anthropic-ratelimit-requests-limit: 5
OpenAI-Organization: org-1
Set-Cookie: a=b
--- response_headers
x-ratelimit-limit-requests: 5000
anthropic-ratelimit-requests-limit: 5
! OpenAI-Organization
! Set-Cookie
--- response_body: {}



=== the same of an error
--- answer
HTTP/1.1 429 Too Many Requests
Content-Type: application/json
Content-Length: 14
Retry-After: 7
x-request-id: req_1
x-ratelimit-limit-requests: 5000
Set-Cookie: a=b
x-should-retry: true

{"error":null}
--- error_code: 429
--- response_headers
Content-Type: application/json
Retry-After: 7
x-request-id: req_1
x-should-retry: true
! x-ratelimit-limit-requests
! Set-Cookie
X-LLM-Attempts: 1
X-LLM-Provider: p
--- response_body: {"error":null}



=== X-LLM headers: the model that was asked
--- config
location /v1/ { llm_adapter p:other; }
--- response_headers_like
X-LLM-Model: other
X-LLM-Provider: p
X-LLM-Attempts: 1
X-LLM-Cache: OFF
X-LLM-Request-Id: [0-9a-f]{32}
--- response_body_like: \{"model":"other","messages":\[\]\}$



=== X-LLM headers off
--- config
llm_adapter_headers off;
location /v1/ { llm_adapter p; }
--- raw_response_headers_unlike: (?i)x-llm
--- response_body_like: ^POST



=== X-LLM headers off, of a stream
--- config
location /v1/ { llm_adapter p; llm_adapter_headers off; }
--- request eval
"POST /v1/chat/completions\n" . '{"model":"m","messages":[],"stream":true}'
--- answer eval
"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\ndata: [DONE]\n\n"
--- raw_response_headers_unlike: (?i)x-llm
--- response_headers
X-Accel-Buffering: no
--- response_body eval
"data: [DONE]\n\n"



=== X-LLM headers off, of an error
--- config
location /v1/ { llm_adapter p; llm_adapter_headers off; }
--- request eval
["POST /v1/chat/completions\n{", "GET /v1/models"]
--- error_code eval
[400, 200]
--- raw_response_headers_unlike eval
["(?i)x-llm", "(?i)x-llm"]



=== headers of a stream
--- request eval
"POST /v1/chat/completions\n" . '{"model":"m","messages":[],"stream":true}'
--- answer eval
"HTTP/1.1 200 OK
Content-Type: text/event-stream; charset=utf-8
Content-Length: 14
Cache-Control: no-cache, must-revalidate
cache-control: private
X-Accel-Buffering: yes
x-request-id: req_1
x-ratelimit-limit-requests: 1
Set-Cookie: a=b

data: [DONE]

"
--- raw_response_headers_like eval
qr{^HTTP/1\.1\ 200\ OK\r\n
   Server:\ nginx[^\r]*\r\n
   Date:\ [^\r]*\r\n
   Content-Type:\ text/event-stream;\ charset=utf-8\r\n
   Transfer-Encoding:\ chunked\r\n
   Connection:\ close\r\n
   Cache-Control:\ no-cache\r\n
   X-Accel-Buffering:\ no\r\n
   x-request-id:\ req_1\r\n
   X-LLM-Request-Id:\ [0-9a-f]{32}\r\n
   X-LLM-Provider:\ p\r\n
   X-LLM-Model:\ m\r\n
   X-LLM-Attempts:\ 1\r\n
   X-LLM-Cache:\ OFF\r\n$}x
--- response_body eval
"data: [DONE]\n\n"



=== a chunked answer that is held has a length
--- answer eval
"HTTP/1.1 200 OK\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"
--- response_headers
Content-Length: 7
! Transfer-Encoding
--- response_body: {"a":1}



=== an answer that the end of the connection ends
--- answer eval
"HTTP/1.0 200 OK\nContent-Type: application/json\n\n{\"a\":1}"
--- response_headers
Content-Length: 7
--- response_body: {"a":1}



=== an answer without a content type
--- answer eval
"HTTP/1.1 200 OK\nContent-Length: 7\n\n{\"a\":1}"
--- raw_response_headers_unlike: Content-Type
--- response_body: {"a":1}



=== interim answers are skipped
--- tcp_reply eval
"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\nX-Early: 1\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 2\r\nX-Late: 1\r\n\r\n{}"
--- error_code: 201
--- response_headers
X-Late: 1
! X-Early
! Link
--- response_body: {}



=== an empty answer
--- answer
HTTP/1.1 204 No Content
x-request-id: req_1
--- error_code: 204
--- response_headers
x-request-id: req_1
! Content-Type
--- response_body:
