#!/usr/bin/perl

# $llm_* and what nginx's own variables say of a call: in the access log, in
# headers, in maps.
#
# --- answer is the body of the provider's answer (an event stream if it
# begins like one), or a whole HTTP answer.  The access log has
#   who=[PROVIDER MODEL REQUESTED_MODEL DIALECT STREAM CACHE ATTEMPTS]
#   tokens=[PROMPT COMPLETION CACHED REASONING SOURCE]
#   end=[FINISH_REASON ERROR STATUS] cost=[COST] time=[TTFT TPOT OVERHEAD]
#   id=[PROVIDER_REQUEST_ID] up=[ADDR STATUS]
# with - between what is written here with spaces.

use Test::Nginx::Socket 'no_plan';

sub ::chat { return "POST /v1/chat/completions\n" . ($_[0] // '{"model":"m","messages":[]}') }
sub ::streamed { return ::chat('{"model":"m","messages":[],"stream":true}') }
sub ::messages { return "POST /v1/messages\n" . ($_[0] // '{"model":"c","messages":[]}') }

add_block_preprocessor(sub {
    my ($block) = @_;

    $block->set_value(http_config => ($block->http_config // '') . <<'EOC');
log_format all 'who=[$llm_provider-$llm_model-$llm_requested_model-$llm_dialect-$llm_stream-$llm_cache-$llm_attempts] '
    'tokens=[$llm_prompt_tokens-$llm_completion_tokens-$llm_cached_tokens-$llm_reasoning_tokens-$llm_usage_source] '
    'end=[$llm_finish_reason-$llm_error-$status] cost=[$llm_cost] time=[$llm_ttft-$llm_tpot-$llm_overhead] '
    'id=[$llm_provider_request_id] up=[$upstream_addr-$upstream_status]';
access_log logs/access.log all;
llm_adapter_provider p {
    endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; dialect openai;
    model m input=2.50 cached_input=1.25 cache_write=3 output=10;
    model plain-price input=1 output=0.000001;
    model half input=1;
    model none context=1k;
}
llm_adapter_provider a {
    endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; dialect anthropic;
    model c input=3 cached_input=0.30 cache_write=3.75 output=15;
}
llm_adapter_model m p;
llm_adapter_model alias p:m;
llm_adapter_model plain p:plain-price;
llm_adapter_model half p;
llm_adapter_model none p;
llm_adapter_model other p;
llm_adapter_model c a;
llm_adapter_retry attempts=1;
EOC
    $block->set_value(config => 'access_log logs/access.log all; location /v1/ { llm_adapter on; }')
        if !defined $block->config;
    $block->set_value(request => ::chat()) if !defined $block->request;

    my $answer = scalar $block->answer;

    if (defined $answer) {
        my $type = $answer =~ /^(data|event|:)/ ? 'text/event-stream' : 'application/json';
        $answer = "HTTP/1.1 200 OK\r\nContent-Type: $type\r\nContent-Length: " . length($answer) . "\r\nx-request-id: req_1\r\n\r\n$answer"
            if $answer !~ m{^HTTP/};
        $block->set_value(tcp_listen => '$TEST_NGINX_RAND_PORT_1');
        $block->set_value(tcp_reply => $answer);
    }

    $block->set_value(no_error_log => ['[alert]', '[crit]']);
});

no_long_string();

run_tests();

__DATA__

=== a plain answer
--- answer: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":400},"completion_tokens_details":{"reasoning_tokens":20}}}
--- response_body_like: usage
--- access_log eval
['who=[p-m-m-openai-0-OFF-1]', 'tokens=[1000-50-400-20-provider]', 'end=[stop--200]', 'cost=[0.002500000]', 'id=[req_1]',
 qr/time=\[\d+\.\d{3}--\d+\.\d{6}\]/, qr/up=\[127\.0\.0\.1:\d+-200\]/]



=== a streamed answer
--- request eval
::streamed()
--- answer eval
qq(data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n
data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n
data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2}}\n
data: [DONE]\n
)
--- response_body_like: DONE
--- access_log eval
['who=[p-m-m-openai-1-OFF-1]', 'tokens=[10-2---provider]', 'end=[length--200]', 'cost=[0.000045000]',
 qr/time=\[\d+\.\d{3}-\d+\.\d{6}-\d+\.\d{6}\]/]



=== usage on the last chunk of content, on a choice, is usage too
--- request eval
::streamed()
--- answer eval
qq(data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":null}}\n
data: [DONE]\n
)
--- response_body_like: "usage":\{"prompt_tokens":7
--- access_log
tokens=[7-3---provider]



=== an Anthropic answer: what is read from and written to its cache is prompt too
--- request eval
::messages()
--- answer: {"type":"message","stop_reason":"end_turn","usage":{"input_tokens":100,"cache_read_input_tokens":1000,"cache_creation_input_tokens":200,"output_tokens":10}}
--- response_body_like: end_turn
--- access_log
who=[a-c-c-anthropic-0-OFF-1]
tokens=[1300-10-1000--provider]
end=[end_turn--200]
cost=[0.001500000]



=== an Anthropic stream: its usage is told in parts
--- request eval
::messages('{"model":"c","messages":[],"stream":true}')
--- answer eval
qq(event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":25,"cache_read_input_tokens":0,"output_tokens":1}}}\n
event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n
event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}\n
event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n
event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":15}}\n
event: message_stop\ndata: {"type":"message_stop"}\n
)
--- response_body_like: message_stop
--- access_log
who=[a-c-c-anthropic-1-OFF-1]
tokens=[25-15-0--provider]
end=[max_tokens--200]
cost=[0.000300000]



=== count_tokens
--- request eval
"POST /v1/messages/count_tokens\n" . '{"model":"c","messages":[]}'
--- answer: {"input_tokens":14}
--- response_body chomp
{"input_tokens":14}
--- access_log
who=[a-c-c-anthropic-0-OFF-1]
end=[--200]



=== a response
--- request eval
"POST /v1/responses\n" . '{"model":"m","input":"x"}'
--- answer: {"object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"error":null,"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":6},"output_tokens":8,"output_tokens_details":{"reasoning_tokens":0}}}
--- response_body_like: incomplete
--- access_log
tokens=[36-8-6-0-provider]
end=[max_output_tokens--200]
cost=[0.000162500]



=== a streamed response
--- request eval
"POST /v1/responses\n" . '{"model":"m","input":"x","stream":true}'
--- answer eval
qq(event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"status":"in_progress"}}\n
event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":1,"delta":"a"}\n
event: response.completed\ndata: {"type":"response.completed","sequence_number":2,"response":{"status":"completed","usage":{"input_tokens":4,"output_tokens":6}}}\n
)
--- response_body_like: response.completed
--- access_log
who=[p-m-m-openai-1-OFF-1]
tokens=[4-6---provider]
end=[completed--200]



=== embeddings
--- request eval
"POST /v1/embeddings\n" . '{"model":"half","input":"x"}'
--- answer: {"object":"list","data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}
--- response_body_like: total_tokens
--- access_log
who=[p-half-half-openai-0-OFF-1]
tokens=[8----provider]
end=[--200]
cost=[0.000008000]



=== nothing is known of usage
--- answer: {"choices":[{"finish_reason":"tool_calls"}]}
--- response_body_like: tool_calls
--- access_log
tokens=[----]
end=[tool_calls--200]
cost=[]



=== none is not nothing
--- answer: {"usage":{"prompt_tokens":0,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":0}}}
--- response_body_like: usage
--- access_log
tokens=[0-0-0--provider]
cost=[0.000000000]



=== usage that is no number
--- answer: {"usage":{"prompt_tokens":"many","completion_tokens":-1,"prompt_tokens_details":{"cached_tokens":1.5}}}
--- response_body_like: usage
--- access_log
tokens=[----]
cost=[]



=== the price is that of the model asked of the provider
--- request eval
::chat('{"model":"alias","messages":[]}')
--- answer: {"usage":{"prompt_tokens":1000000,"completion_tokens":0}}
--- response_body_like: usage
--- access_log
who=[p-m-alias-openai-0-OFF-1]
cost=[2.500000000]



=== without prices of their own, cached tokens cost what others do; small prices count
--- request eval
::chat('{"model":"plain","messages":[]}')
--- answer: {"usage":{"prompt_tokens":1000,"completion_tokens":1000,"prompt_tokens_details":{"cached_tokens":1000}}}
--- response_body_like: usage
--- access_log
cost=[0.001000001]



=== tokens written to a cache have a price
--- answer: {"usage":{"prompt_tokens":1000,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":400,"cache_write_tokens":100}}}
--- response_body_like: usage
--- access_log
cost=[0.002050000]



=== many tokens
--- answer: {"usage":{"prompt_tokens":4000000000,"completion_tokens":1000000000}}
--- response_body_like: usage
--- access_log
cost=[20000.000000000]



=== no price of what was written
--- request eval
::chat('{"model":"half","messages":[]}')
--- answer: {"usage":{"prompt_tokens":8,"completion_tokens":1}}
--- response_body_like: usage
--- access_log
cost=[]



=== no prices
--- request eval
::chat('{"model":"none","messages":[]}')
--- answer: {"usage":{"prompt_tokens":8,"completion_tokens":1}}
--- response_body_like: usage
--- access_log
cost=[]



=== a model without a line
--- request eval
::chat('{"model":"other","messages":[]}')
--- answer: {"usage":{"prompt_tokens":8,"completion_tokens":1}}
--- response_body_like: usage
--- access_log
who=[p-other-other-openai-0-OFF-1]
cost=[]



=== a request elsewhere
--- config
access_log logs/access.log all;
location /v1/ { llm_adapter on; }
location /other/ { return 200 "other\n"; }
--- request
GET /other/
--- response_body
other
--- access_log
who=[------] tokens=[----] end=[--200] cost=[] time=[--] id=[] up=[---]



=== models
--- request
GET /v1/models
--- response_body_like: object
--- access_log
who=[---openai---] tokens=[----] end=[--200] cost=[] time=[--] id=[] up=[---]



=== a bad request
--- request eval
::chat('{')
--- error_code: 400
--- response_body_like: invalid_json
--- access_log
who=[---openai---] tokens=[----] end=[-bad_request-400] cost=[] time=[--] id=[] up=[---]



=== an unknown model
--- request eval
::messages('{"model":"gpt\u00e9\"x","messages":[],"stream":true}')
--- error_code: 404
--- response_body_like: does not exist
--- access_log
who=[--gpt\xC3\xA9\x22x-anthropic-1--0] tokens=[----] end=[-unknown_model-404] cost=[]



=== another dialect's provider
--- request eval
::chat('{"model":"c","messages":[]}')
--- error_code: 400
--- response_body_like: unsupported_dialect
--- access_log
who=[--c-openai-0--0] tokens=[----] end=[-dialect-400]



=== a path that is none
--- request
GET /v1/none
--- error_code: 404
--- response_body_like: not_found
--- access_log
who=[------] tokens=[----] end=[-not_found-404]



=== a provider that is not there
--- error_code: 502
--- response_body_like: upstream_connect
--- access_log eval
['who=[p-m-m-openai-0-OFF-1] tokens=[----] end=[-upstream_connect-502] cost=[]', qr/up=\[127\.0\.0\.1:\d+-502\]/]



=== an error of the provider
--- answer eval
"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\nx-request-id: req_9\r\n\r\n{}"
--- error_code: 429
--- response_body: {}
--- access_log eval
['who=[p-m-m-openai-0-OFF-1]', 'tokens=[----] end=[-upstream_429-429] cost=[]', 'id=[req_9]', qr/up=\[127\.0\.0\.1:\d+-429\]/]



=== an answer that is cut
--- request eval
::streamed()
--- answer eval
qq(data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n)
--- response_body_like: "code":"truncated"
--- access_log
end=[-truncated-200]



=== an event that is no JSON
--- request eval
::streamed()
--- answer eval
qq(data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n
data: {"choi\n
data: [DONE]\n\n)
--- response_body eval
qq(data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n
data: [DONE]\n\n)
--- access_log
end=[-malformed_event-200]



=== an encoded answer
--- answer eval
"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b"
--- error_code: 502
--- response_body_like: encoded_answer
--- access_log
end=[-encoded_answer-502]



=== a connection that ends without an answer
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_reply:
--- error_code: 502
--- response_body_like: upstream_closed
--- access_log
end=[-upstream_closed-502]



=== an answer that is no HTTP
--- answer eval
"HTTP/ nonsense\r\n\r\n"
--- error_code: 502
--- response_body_like: upstream_invalid
--- access_log
end=[-upstream_invalid-502]



=== an error within a 200
--- answer: {"error":{"message":"x","code":"rate_limit_exceeded"}}
--- error_code: 429
--- response_body: {"error":{"message":"x","code":"rate_limit_exceeded"}}
--- access_log
end=[-upstream_error-429]



=== a finish reason that would break a log
--- answer: {"choices":[{"finish_reason":"a b\n\"c]"}]}
--- response_body_like: finish_reason
--- access_log eval
qr/end=\[a_b_[_"\\x2]*c_?\]?--200\]/



=== in headers, where they are known
--- config
location /v1/ {
    llm_adapter on;
    add_header X-A "$llm_provider|$llm_model|$llm_requested_model|$llm_dialect|$llm_stream|$llm_attempts|$llm_error" always;
    add_header X-B "$llm_prompt_tokens|$llm_completion_tokens|$llm_finish_reason|$llm_cost|$llm_usage_source" always;
    add_header X-C "$upstream_status|$llm_provider_request_id" always;
    add_header X-D "$request_id" always;
}
--- answer: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}
--- raw_response_headers_like eval
qr{X-LLM-Request-Id: ([0-9a-f]{32})\r\n.*X-A: p\|m\|m\|openai\|0\|1\|\r\nX-B: 10\|5\|stop\|0.000075000\|provider\r\nX-C: 200\|req_1\r\nX-D: \1\r\n}s
--- response_body_like: usage



=== in maps and conditions
--- http_config
map $llm_error $class { "" ok; "~^upstream_4" theirs; default ours; }
map "$llm_stream$llm_dialect" $kind { default none; 1openai streamed; 0openai plain; }
log_format short "class=$class kind=$kind";
--- config
location /v1/ {
    llm_adapter on;
    access_log logs/access.log short;
    access_log logs/access.log all if=$llm_error;
    if ($llm_model) { return 500; }
}
--- answer eval
"HTTP/1.1 404 Gone\r\nContent-Length: 2\r\n\r\n{}"
--- error_code: 404
--- response_body: {}
--- access_log
class=theirs kind=plain
end=[-upstream_404-404]



=== after error_page they are still known
--- config
error_page 429 502 /page;
access_log logs/access.log all;
location /v1/ { llm_adapter on; llm_adapter_intercept_errors on; }
location = /page { return 200 "$llm_provider $llm_error\n"; }
--- answer eval
"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\nx-request-id: req_9\r\n\r\n{}"
--- error_code: 429
--- response_body
p upstream_429
--- access_log
who=[p-m-m-openai-0-OFF-1]
end=[-upstream_429-429]
id=[req_9]



=== after error_page for an error of ours they are still known
--- config
error_page 404 502 @page;
access_log logs/access.log all;
location /v1/ { llm_adapter on; }
location @page { return 200 "$llm_provider $llm_error\n"; }
--- error_code: 502
--- response_body
p upstream_connect
--- access_log
who=[p-m-m-openai-0-OFF-1]
end=[-upstream_connect-502]



=== all addresses that were tried
--- http_config
upstream two { server 127.0.0.1:$TEST_NGINX_RAND_PORT_2; server 127.0.0.1:$TEST_NGINX_RAND_PORT_1; keepalive 1; }
llm_adapter_provider two { endpoint http://two; dialect openai; }
--- config
access_log logs/access.log all;
location /v1/ { llm_adapter two; }
--- answer: {}
--- response_body: {}
--- access_log eval
['who=[two-m-m-openai-0-OFF-1]', qr/up=\[127\.0\.0\.1:\d+, 127\.0\.0\.1:\d+-502, 200\]/]



=== all attempts
--- request eval
::streamed()
--- http_config
server {
    listen $TEST_NGINX_RAND_PORT_2;
    location / {
        client_body_in_single_buffer on;
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_3;
        proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
    }
}
server {
    listen $TEST_NGINX_RAND_PORT_3;
    default_type text/event-stream;
    if ($http_x_body ~ stream_options) { return 400 '{"error":{"message":"Unknown parameter: stream_options"}}'; }
    return 200 "data: [DONE]\n\n";
}
llm_adapter_provider old { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
--- config
location /v1/ { llm_adapter old; access_log logs/access.log all; }
--- response_body eval
"data: [DONE]\n\n"
--- response_headers
X-LLM-Attempts: 2
--- access_log eval
['who=[old-m-m-openai-1-OFF-2]', 'end=[--200]', qr/up=\[127\.0\.0\.1:\d+, 127\.0\.0\.1:\d+-400, 200\]/]



=== a passthrough
--- config
access_log logs/access.log all;
location /v1/ { llm_adapter on; llm_adapter_passthrough p; }
--- request
GET /v1/files
--- answer: {}
--- response_body: {}
--- access_log eval
[qr/who=\[p---(openai)?---?\] tokens=\[----\] end=\[--200\] cost=\[\]/, 'id=[req_1]', qr/up=\[127\.0\.0\.1:\d+-200\]/]



=== a passthrough's error
--- config
access_log logs/access.log all;
location /v1/ { llm_adapter on; llm_adapter_passthrough p; }
--- request
GET /v1/files
--- answer eval
"HTTP/1.1 404 None\r\nContent-Length: 2\r\n\r\n{}"
--- error_code: 404
--- response_body: {}
--- access_log
end=[-upstream_404-404]
