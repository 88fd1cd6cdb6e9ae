#!/usr/bin/perl

# Streams: events as they came, the usage that we asked for, ends that are
# whole and ends that are not, failures before and after the first event.
#
# --- answer is a list of what the provider's answer has for a body: a payload
# becomes "data: PAYLOAD" and a blank line, a reference to a text stays as it
# is.  --- shown is what the client gets, likewise.  --- head replaces or adds
# headers of the answer.

use Test::Nginx::Socket 'no_plan';

sub ::stream { return qq(POST /v1/chat/completions\n{"model":"m","messages":[],"stream":true$_[0]}) }
sub ::messages { return "POST /v1/messages\n" . '{"model":"c","messages":[],"stream":true}' }
sub ::responses { return "POST /v1/responses\n" . '{"model":"m","input":"x","stream":true}' }

# chat's chunks
sub ::chunk { return qq({"id":"c","choices":[{"index":0,"delta":$_[0],"finish_reason":) . ($_[1] ? qq("$_[1]") : 'null') . '}]}' }
sub ::text { return ::chunk(qq({"content":"$_[0]"})) }
our $ROLE = ::chunk('{"role":"assistant","content":""}');
our $STOP = ::chunk('{}', 'stop');
our $USAGE = '{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}';

# named events, for the other endpoints
sub ::event { my ($type, $more) = @_; return \(qq(event: $type\ndata: {"type":"$type") . ($more // '') . "}\n\n") }
our @START = (::event('message_start', ',"message":{"id":"msg_1","content":[],"usage":{"input_tokens":9,"output_tokens":1}}'),
              ::event('content_block_start', ',"index":0,"content_block":{"type":"text","text":""}'));
our $DELTA = ::event('content_block_delta', ',"index":0,"delta":{"type":"text_delta","text":"Hi"}');
our @END = (::event('content_block_stop', ',"index":0'),
            ::event('message_delta', ',"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":4}'),
            ::event('message_stop'));

# an error of ours in the middle of a chat
sub ::told { return qq({"error":{"message":"$_[1]","type":"server_error","param":null,"code":"$_[0]"}}) }

sub join_events { return join '', map { ref $_ ? $$_ : "data: $_\n\n" } @_ }

add_block_preprocessor(sub {
    my ($block) = @_;

    my $members = scalar($block->provider) // '';
    $block->set_value(http_config => ($block->http_config // '')
        . 'llm_adapter_provider p { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; dialect openai; ' . $members . '}'
        . 'llm_adapter_provider a { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; dialect anthropic; }'
        . 'llm_adapter_model m p; llm_adapter_model c a;'
        . 'llm_adapter_retry attempts=1;');
    $block->set_value(config => 'location /v1/ { llm_adapter on; ' . (scalar($block->location) // '') . '}')
        if !defined $block->config;
    $block->set_value(request => ::stream('')) if !defined $block->request;

    my $answer = scalar $block->answer;

    if (defined $answer) {
        my $body = join_events(ref $answer eq 'ARRAY' ? @$answer : $answer);
        my $head = scalar($block->head) // "HTTP/1.1 200 OK\nContent-Type: text/event-stream\n";
        $head =~ s/\n?$/\n/;
        $head .= 'Content-Length: ' . length($body) . "\n" if $head !~ /^(?:Content-Length|Transfer-Encoding):/m;
        $head =~ s/\n/\r\n/g;
        $block->set_value(tcp_listen => '$TEST_NGINX_RAND_PORT_1');
        $block->set_value(tcp_reply => "$head\r\n$body") if !defined $block->tcp_reply;
        $block->set_value(tcp_reply => [split //, "$head\r\n$body"]) if defined $block->bytewise;
    }

    my $shown = scalar $block->shown;
    $block->set_value(response_body => join_events(ref $shown eq 'ARRAY' ? @$shown : $shown)) if defined $shown;
    $block->set_value(no_error_log => ['[alert]', '[crit]', '[emerg]', defined $block->error_log ? () : '[error]'])
        if !defined $block->no_error_log;
});

no_long_string();

run_tests();

__DATA__

=== a chat, event by event
--- answer eval
[$::ROLE, ::text('Hel'), ::text('lo'), $::STOP, '[DONE]']
--- shown eval
[$::ROLE, ::text('Hel'), ::text('lo'), $::STOP, '[DONE]']
--- response_headers
Content-Type: text/event-stream
Transfer-Encoding: chunked
! Content-Length



=== one byte after the other
--- answer eval
[$::ROLE, ::text('Hel'), ::text('l\u00f6 €'), $::STOP, '[DONE]']
--- bytewise
--- shown eval
[$::ROLE, ::text('Hel'), ::text('l\u00f6 €'), $::STOP, '[DONE]']



=== spellings of a payload stay
--- answer eval
['{ "choices" : [ {"delta":{"content":"\u0041\/"},"n":1.0e+2 , "big":12345678901234567890} ] }  ', '[DONE]']
--- shown eval
['{ "choices" : [ {"delta":{"content":"\u0041\/"},"n":1.0e+2 , "big":12345678901234567890} ] }  ', '[DONE]']



=== CRLF, CR, a BOM, comments, no space after the colon, other fields
--- answer eval
[\"\xef\xbb\xbfdata:{\"a\":1}\r\n\r\n", \": comment\r\n\r\n", \"id: 7\revent: x\rdata: {\"b\":2}\r\r", \":\n\n", \"retry: 100\nnonsense: 1\ndata\ndata: {\"c\":3}\n\n", '[DONE]']
--- shown eval
['{"a":1}', \"event: x\nid: 7\ndata: {\"b\":2}\n\n", \"retry: 100\ndata: \ndata: {\"c\":3}\n\n", '[DONE]']



=== the same, one byte after the other
--- answer eval
[\"\xef\xbb\xbfdata:{\"a\":1}\r\n\r\n", \": comment\r\n\r\n", \"id: 7\revent: x\rdata: {\"b\":2}\r\r", \":\n\n", \"retry: 100\nnonsense: 1\ndata\ndata: {\"c\":3}\n\n", '[DONE]']
--- bytewise
--- shown eval
['{"a":1}', \"event: x\nid: 7\ndata: {\"b\":2}\n\n", \"retry: 100\ndata: \ndata: {\"c\":3}\n\n", '[DONE]']



=== a payload of several lines
--- answer eval
[\"data: {\"choices\":\ndata:  [{\"delta\":{\"content\":\"a\"}}]\ndata: }\n\n", $::STOP, '[DONE]']
--- shown eval
[\"data: {\"choices\":\ndata:  [{\"delta\":{\"content\":\"a\"}}]\ndata: }\n\n", $::STOP, '[DONE]']



=== the last event without a blank line gets one
--- answer eval
[::text('a'), \"data: [DONE]"]
--- shown eval
[::text('a'), '[DONE]']



=== an event without data is none
--- answer eval
[\"event: ping\n\n", ::text('a'), \"data:\n\n", \"data: \n\n", '[DONE]']
--- shown eval
[::text('a'), '[DONE]']



=== nothing after the terminal event
--- answer eval
[::text('a'), $::STOP, '[DONE]', '[DONE]', ::text('b')]
--- shown eval
[::text('a'), $::STOP, '[DONE]']



=== unknown events and members are passed on
--- answer eval
['{"choices":[{"delta":{"content":null,"reasoning_content":"hm"},"x":1}],"service_tier":"new"}', '{"object":"chat.completion.future"}', \"event: future\ndata: [1,2]\n\n", '7', '"x"', 'null', '[DONE]']
--- shown eval
['{"choices":[{"delta":{"content":null,"reasoning_content":"hm"},"x":1}],"service_tier":"new"}', '{"object":"chat.completion.future"}', \"event: future\ndata: [1,2]\n\n", '7', '"x"', 'null', '[DONE]']



=== the usage that we asked for is not shown
--- answer eval
['{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}', $::STOP, $::USAGE, '[DONE]']
--- shown eval
['{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}', $::STOP, '[DONE]']



=== the usage that the client asked for is
--- request eval
::stream(',"stream_options":{"include_usage":true}')
--- answer eval
[::text('a'), $::STOP, $::USAGE, '[DONE]']
--- shown eval
[::text('a'), $::STOP, $::USAGE, '[DONE]']



=== usage on a chunk with a choice is shown in any case
--- answer eval
['{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}', '[DONE]']
--- shown eval
['{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}', '[DONE]']



=== an empty chunk without usage is shown (Azure's first)
--- answer eval
['{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}', $::ROLE, ::text('a'), $::STOP, '[DONE]']
--- shown eval
['{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}', $::ROLE, ::text('a'), $::STOP, '[DONE]']



=== how usage is asked for
--- http_config
server {
    listen $TEST_NGINX_RAND_PORT_2;
    client_body_in_single_buffer on;
    location / {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_3;
        proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
    }
}
server { listen $TEST_NGINX_RAND_PORT_3; default_type application/json; return 200 $http_x_body; }
llm_adapter_provider up { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
llm_adapter_provider noup { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; stream_usage off; }
llm_adapter_provider ant { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect anthropic; }
--- config
location /v1/ { llm_adapter up:n; }
location /off/ { llm_adapter noup; }
location /a/ { llm_adapter ant; }
--- request eval
[map { "POST $_" }
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":true}),
    qq(/v1/chat/completions\n{"stream" : true , "messages":[],"model":"m"}),
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":true,"stream_options":{}}),
    qq(/v1/chat/completions\n{"stream_options":{ },"model":"m","messages":[],"stream":true}),
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":true,"stream_options":null}),
    qq(/v1/chat/completions\n{"model":"m","stream_options": {"include_obfuscation":false},"messages":[],"stream":true}),
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":false,"x":1}}),
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage" : null}}),
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}),
    qq(/v1/completions\n{"model":"m","prompt":"x","stream":true}),
    qq(/v1/chat/completions\n{"model":"m","messages":[],"stream":false}),
    qq(/v1/chat/completions\n{"model":"m","messages":[{"stream":true}]}),
    qq(/v1/responses\n{"model":"m","input":"x","stream":true}),
    qq(/v1/embeddings\n{"model":"m","input":"x","stream":true}),
    qq(/off/chat/completions\n{"model":"m","messages":[],"stream":true,"stream_options":{"x":1}}),
    qq(/a/messages\n{"model":"m","messages":[],"stream":true}),
]
--- response_body eval
[
    '{"model":"n","messages":[],"stream":true,"stream_options":{"include_usage":true}}',
    '{"stream" : true,"stream_options":{"include_usage":true} , "messages":[],"model":"n"}',
    '{"model":"n","messages":[],"stream":true,"stream_options":{"include_usage":true}}',
    '{"stream_options":{"include_usage":true },"model":"n","messages":[],"stream":true}',
    '{"model":"n","messages":[],"stream":true,"stream_options":{"include_usage":true}}',
    '{"model":"n","stream_options": {"include_usage":true,"include_obfuscation":false},"messages":[],"stream":true}',
    '{"model":"n","messages":[],"stream":true,"stream_options":{"include_usage":true,"x":1}}',
    '{"model":"n","messages":[],"stream":true,"stream_options":{"include_usage" : true}}',
    '{"model":"n","messages":[],"stream":true,"stream_options":{"include_usage":true}}',
    '{"model":"n","prompt":"x","stream":true,"stream_options":{"include_usage":true}}',
    '{"model":"n","messages":[],"stream":false}',
    '{"model":"n","messages":[{"stream":true}]}',
    '{"model":"n","input":"x","stream":true}',
    '{"model":"n","input":"x","stream":true}',
    '{"model":"m","messages":[],"stream":true,"stream_options":{"x":1}}',
    '{"model":"m","messages":[],"stream":true}',
]



=== a provider that refuses stream_options is asked again, then no more
--- http_config
server {
    listen $TEST_NGINX_RAND_PORT_2;
    client_body_in_single_buffer on;
    location / {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_3;
        proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
    }
}
server {
    listen $TEST_NGINX_RAND_PORT_3;
    default_type text/event-stream;
    if ($http_x_body ~ stream_options) { return 422 '{"detail":[{"loc":["body","stream_options"],"msg":"extra fields not permitted"}]}'; }
    return 200 "data: [DONE]\n\n";
}
llm_adapter_provider old { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_2; dialect openai; }
--- config
location /v1/ { llm_adapter old; }
--- request eval
[::stream(''), ::stream(''), ::stream(',"stream_options":{"include_usage":true}')]
--- error_code eval
[200, 200, 422]
--- response_headers eval
["X-LLM-Attempts: 2", "X-LLM-Attempts: 1", "X-LLM-Attempts: 1"]
--- response_body_like eval
["^data: \\[DONE\\]\n\n\$", "^data: \\[DONE\\]\n\n\$", "extra fields not permitted"]



=== a 400 that speaks of something else is the answer
--- head
HTTP/1.1 400 Bad Request
Content-Type: application/json
--- answer eval
\'{"error":{"message":"max_tokens is too large"}}'
--- error_code: 400
--- response_headers
X-LLM-Attempts: 1
Content-Type: application/json
--- response_body chomp
{"error":{"message":"max_tokens is too large"}}



=== without [DONE], but with a reason to end: whole
--- answer eval
[$::ROLE, ::text('a'), $::STOP]
--- shown eval
[$::ROLE, ::text('a'), $::STOP, '[DONE]']



=== the same, with the usage after it
--- answer eval
[::text('a'), $::STOP, $::USAGE]
--- shown eval
[::text('a'), $::STOP, '[DONE]']



=== without [DONE], a reason for one choice of two
--- answer eval
['{"choices":[{"index":1,"delta":{"content":"b"}}]}', ::text('a'), $::STOP]
--- shown eval
['{"choices":[{"index":1,"delta":{"content":"b"}}]}', ::text('a'), $::STOP, ::told('truncated', "the provider's answer was cut")]
--- error_log
cut its answer



=== without [DONE], without a reason
--- answer eval
[$::ROLE, ::text('a')]
--- shown eval
[$::ROLE, ::text('a'), ::told('truncated', "the provider's answer was cut")]
--- error_log
cut its answer



=== cut in the middle of an event
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- answer eval
[::text('a'), \'data: {"choi']
--- shown eval
[::text('a'), ::told('truncated', "the provider's answer was cut")]
--- error_log
cut its answer



=== cut, though a reason was given
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- answer eval
[::text('a'), $::STOP]
--- shown eval
[::text('a'), $::STOP, ::told('truncated', "the provider's answer was cut")]
--- error_log
cut its answer



=== cut in the middle of a chunk
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Transfer-Encoding: chunked
--- answer eval
\("30\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"abcd\"}}]}\n\r\n20\r\n\ndata")
--- shown eval
['{"choices":[{"delta":{"content":"abcd"}}]}', ::told('truncated', "the provider's answer was cut")]
--- error_log
cut its answer



=== chunks that are none
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Transfer-Encoding: chunked
--- answer eval
\("30\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"abcd\"}}]}\n\r\n1\r\n\n\r\nxyz\r\n")
--- response_body_like eval
qr/^data: \{"choices":\[\{"delta":\{"content":"abcd"\}\}\]\}\n\ndata: \{"error":\{[^\n]*\}\}\n\n$/
--- error_log
upstream sent invalid chunked response



=== whole, though the connection was cut after the terminal event
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- answer eval
[::text('a'), $::STOP, '[DONE]']
--- shown eval
[::text('a'), $::STOP, '[DONE]']
--- no_error_log
[alert]



=== the end of the connection may be the end of the answer
--- tcp_reply eval
"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " . $::STOP . "\n\ndata: [DONE]\n\n"
--- answer:
--- shown eval
[$::STOP, '[DONE]']



=== cut before the first word
--- answer eval
[$::ROLE]
--- error_code: 502
--- response_body chomp
{"error":{"message":"the provider's answer was cut","type":"server_error","param":null,"code":"truncated"}}
--- error_log
cut its answer



=== no event at all
--- answer eval
\''
--- error_code: 502
--- response_body_like: "code":"truncated"
--- error_log
cut its answer



=== [DONE] alone
--- answer eval
['[DONE]']
--- shown eval
['[DONE]']



=== an event that is no JSON is left out
--- answer eval
[::text('a'), '{"choices":', ::text('b'), 'oops', $::STOP, '[DONE]']
--- shown eval
[::text('a'), ::text('b'), $::STOP, '[DONE]']
--- error_log
sent an event that is not JSON



=== ... not so in a tool call
--- answer eval
[::chunk('{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""}}]}'), '{"choices":[{"delta":{"tool_c', ::chunk('{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}'), ::chunk('{}', 'tool_calls'), '[DONE]']
--- shown eval
[::chunk('{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":""}}]}'), ::told('malformed_event', 'the provider sent an event that is not JSON in the middle of machine-read output')]
--- error_log
sent an event that is not JSON



=== ... nor in output that is to have a schema
--- request eval
::stream(',"response_format":{"type":"json_schema","json_schema":{}}')
--- answer eval
[::text('{\\\\'), 'x', ::text('}'), $::STOP, '[DONE]']
--- shown eval
[::text('{\\\\'), ::told('malformed_event', 'the provider sent an event that is not JSON in the middle of machine-read output')]
--- error_log
sent an event that is not JSON



=== an error as the first event
--- answer eval
['{"error":{"message":"Rate limit","type":"requests","param":null,"code":"rate_limit_exceeded"}}']
--- error_code: 429
--- response_headers
Content-Type: application/json
! Transfer-Encoding
--- response_body chomp
{"error":{"message":"Rate limit","type":"requests","param":null,"code":"rate_limit_exceeded"}}



=== an error after the preamble
--- answer eval
[\": hello\n\n", $::ROLE, '{"error":{"message":"Overloaded","code":503}}', '[DONE]']
--- error_code: 503
--- response_body chomp
{"error":{"message":"Overloaded","code":503}}



=== an error that names no class
--- answer eval
['{"error":"something"}']
--- error_code: 502
--- response_body_like: "code":"upstream_error"



=== an error after content ends the stream
--- answer eval
[::text('a'), '{"error":{"message":"Overloaded","code":503}}', '[DONE]']
--- shown eval
[::text('a'), '{"error":{"message":"Overloaded","code":503}}']



=== a plain answer to a stream request
--- head
HTTP/1.1 200 OK
Content-Type: application/json
--- answer eval
\'{"object":"chat.completion","choices":[]}'
--- response_headers
Content-Type: application/json
Content-Length: 41
! X-Accel-Buffering
--- response_body chomp
{"object":"chat.completion","choices":[]}



=== a stream in answer to a plain request is passed on
--- request eval
"POST /v1/chat/completions\n" . '{"model":"m","messages":[]}'
--- answer eval
[$::ROLE, $::STOP, '[DONE]']
--- response_headers
Content-Type: text/event-stream
--- shown eval
[$::ROLE, $::STOP, '[DONE]']



=== an encoded answer is refused
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Encoding: gzip
--- answer eval
\"\x1f\x8b\x08"
--- error_code: 502
--- response_headers
! Content-Encoding
--- response_body_like: "code":"encoded_answer"
--- error_log
sent an encoded answer ("gzip")



=== an answer that says that it is not encoded
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Encoding: identity
--- answer eval
['[DONE]']
--- shown eval
['[DONE]']



=== an event of a megabyte
--- answer eval
[::text('x' x 1048576), ::text('y' x 100000), $::STOP, '[DONE]']
--- shown eval
[::text('x' x 1048576), ::text('y' x 100000), $::STOP, '[DONE]']



=== many events
--- answer eval
[(map { ::text($_) } 1 .. 5000), $::STOP, '[DONE]']
--- shown eval
[(map { ::text($_) } 1 .. 5000), $::STOP, '[DONE]']



=== an event over the limit
--- answer eval
[::text('a'), ::text('x' x (17 * 1048576)), '[DONE]']
--- shown eval
[::text('a'), ::told('event_too_large', 'the provider sent an event over the size limit')]
--- error_log
sent an event of more than
--- log_level: info



=== an event over the limit, first
--- answer eval
[\('data: ' . 'x' x (17 * 1048576))]
--- error_code: 502
--- response_body_like: "code":"event_too_large"
--- error_log
sent an event of more than
--- log_level: info



=== to an HTTP/1.0 client
--- request eval
qq(POST /v1/chat/completions HTTP/1.0\n{"model":"m","messages":[],"stream":true})
--- answer eval
[::text('a'), $::STOP, '[DONE]']
--- response_headers
Content-Type: text/event-stream
! Transfer-Encoding
! Content-Length
--- shown eval
[::text('a'), $::STOP, '[DONE]']



=== a stream and what follows it on a connection
--- pipelined_requests eval
[::stream(''), "GET /v1/none"]
--- answer eval
[::text('a'), $::STOP, '[DONE]']
--- error_code eval
[200, 404]
--- response_body_like eval
["data: \\[DONE\\]\n\n\$", 'not_found']



=== aggregated
--- location: llm_adapter_flush 20ms;
--- answer eval
[$::ROLE, (map { ::text($_) } 1 .. 50), $::STOP, '[DONE]']
--- bytewise
--- shown eval
[$::ROLE, (map { ::text($_) } 1 .. 50), $::STOP, '[DONE]']



=== completions
--- request eval
"POST /v1/completions\n" . '{"model":"m","prompt":"x","stream":true}'
--- answer eval
['{"choices":[{"index":0,"text":"","finish_reason":null}]}', '{"choices":[{"index":0,"text":"a","finish_reason":null}]}', '{"choices":[{"index":0,"text":"","finish_reason":"length"}]}', '{"choices":[],"usage":{"prompt_tokens":1}}', '[DONE]']
--- shown eval
['{"choices":[{"index":0,"text":"","finish_reason":null}]}', '{"choices":[{"index":0,"text":"a","finish_reason":null}]}', '{"choices":[{"index":0,"text":"","finish_reason":"length"}]}', '[DONE]']



=== messages
--- request eval
::messages()
--- answer eval
[@::START, ::event('ping'), $::DELTA, \"event: future_event\ndata: {\"type\":\"future_event\"}\n\n", @::END]
--- shown eval
[@::START, ::event('ping'), $::DELTA, \"event: future_event\ndata: {\"type\":\"future_event\"}\n\n", @::END]



=== messages, cut
--- request eval
::messages()
--- answer eval
[@::START, $::DELTA]
--- response_body_like eval
qr/^event: message_start\n.*"text":"Hi"\}\}\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error","message":"the provider's answer was cut","code":"truncated"\},"request_id":"[0-9a-f]{32}"\}\n\n$/s
--- error_log
cut its answer



=== messages, whole but for the last event
--- request eval
::messages()
--- answer eval
[@::START, $::DELTA, @::END[0, 1]]
--- shown eval
[@::START, $::DELTA, @::END]



=== messages, an error after the preamble
--- request eval
::messages()
--- answer eval
[@::START, ::event('ping'), ::event('error', ',"error":{"type":"overloaded_error","message":"Overloaded"}')]
--- error_code: 529
--- response_headers
Content-Type: application/json
--- response_body chomp
{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}



=== messages, an error after content
--- request eval
::messages()
--- answer eval
[@::START, $::DELTA, ::event('error', ',"error":{"type":"overloaded_error","message":"Overloaded"}'), ::event('message_stop')]
--- shown eval
[@::START, $::DELTA, ::event('error', ',"error":{"type":"overloaded_error","message":"Overloaded"}')]



=== messages, cut before the first word
--- request eval
::messages()
--- answer eval
[@::START]
--- error_code: 502
--- response_body_like: ^\{"type":"error","error":\{"type":"api_error","message":"the provider's answer was cut","code":"truncated"\}
--- error_log
cut its answer



=== messages, an event that is no JSON in a tool's input
--- request eval
::messages()
--- answer eval
[$::START[0], ::event('content_block_start', ',"index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}'), \"event: content_block_delta\ndata: {\n\n", @::END]
--- response_body_like eval
qr/"type":"tool_use".*\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error",[^\n]*"code":"malformed_event"\}[^\n]*\}\n\n$/
--- error_log
sent an event that is not JSON



=== a response
--- request eval
::responses()
--- answer eval
[::event('response.created', ',"sequence_number":0,"response":{"id":"r"}'), ::event('response.output_text.delta', ',"sequence_number":1,"delta":"a"'), ::event('response.completed', ',"sequence_number":2,"response":{"id":"r","status":"completed"}')]
--- shown eval
[::event('response.created', ',"sequence_number":0,"response":{"id":"r"}'), ::event('response.output_text.delta', ',"sequence_number":1,"delta":"a"'), ::event('response.completed', ',"sequence_number":2,"response":{"id":"r","status":"completed"}')]



=== a response, cut
--- request eval
::responses()
--- answer eval
[::event('response.created', ',"sequence_number":0,"response":{"id":"r","status":"in_progress","error":null}'), ::event('response.output_text.delta', ',"sequence_number":1,"delta":"a"')]
--- shown eval
[::event('response.created', ',"sequence_number":0,"response":{"id":"r","status":"in_progress","error":null}'), ::event('response.output_text.delta', ',"sequence_number":1,"delta":"a"'),
 ::event('response.failed', q(,"sequence_number":2,"response":{"id":"r","status":"failed","error":{"code":"truncated","message":"the provider's answer was cut"}}))]
--- error_log
cut its answer



=== a response that failed before its first word
--- request eval
::responses()
--- answer eval
[::event('response.created', ',"sequence_number":0,"response":{"id":"r"}'), ::event('response.failed', ',"sequence_number":1,"response":{"id":"r","status":"failed","error":{"code":"rate_limit_exceeded","message":"slow down"}}')]
--- error_code: 429
--- response_body_like: ^\{"error":\{"message":"slow down","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"



=== a response that failed after it
--- request eval
::responses()
--- answer eval
[::event('response.output_text.delta', ',"sequence_number":1,"delta":"a"'), ::event('response.failed', ',"sequence_number":2,"response":{"error":{"code":"server_error"}}')]
--- shown eval
[::event('response.output_text.delta', ',"sequence_number":1,"delta":"a"'), ::event('response.failed', ',"sequence_number":2,"response":{"error":{"code":"server_error"}}')]



=== the first word does not come in time
--- location: llm_adapter_timeout first_token=100ms;
--- answer eval
[\": comment\n\n", $::ROLE]
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- tcp_no_close
--- error_code: 504
--- response_body_like: "message":"the provider did not begin to answer in time","type":"server_error","param":null,"code":"timeout_first_token"
--- no_error_log
[alert]



=== the next word does not come in time
--- location: llm_adapter_timeout idle=100ms;
--- answer eval
[::text('a')]
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- tcp_no_close
--- shown eval
[::text('a'), ::told('timeout_idle', 'the provider stopped in the middle of its answer')]
--- no_error_log
[alert]



=== the end does not come in time
--- provider: timeout total=700ms;
--- answer eval
[::text('a')]
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- tcp_no_close
--- shown eval
[::text('a'), ::told('timeout_total', 'the answer was not complete in the time allowed')]
--- no_error_log
[alert]



=== a plain answer does not come in time
--- request eval
"POST /v1/chat/completions\n" . '{"model":"m","messages":[]}'
--- location: llm_adapter_timeout plain=100ms;
--- answer eval
\'{"choices":'
--- head
HTTP/1.1 200 OK
Content-Type: application/json
Content-Length: 1000
--- tcp_no_close
--- error_code: 504
--- response_body_like: "code":"timeout_plain"
--- no_error_log
[alert]



=== no head comes in time
--- location: llm_adapter_timeout first_token=100ms;
--- answer eval
\''
--- tcp_reply:
--- tcp_no_close
--- error_code: 504
--- response_body_like: "code":"timeout_first_token"
--- no_error_log
[alert]



=== a terminal event is an end, whatever the connection does
--- answer eval
[::text('a'), $::STOP, '[DONE]']
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- tcp_no_close
--- shown eval
[::text('a'), $::STOP, '[DONE]']
--- no_error_log
[alert]
[error]



=== pings between events
--- location: llm_adapter_ping 50ms; llm_adapter_timeout idle=500ms;
--- answer eval
[::text('a')]
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- tcp_no_close
--- response_body_like eval
my ($first, $last) = (::text('a'), ::told('timeout_idle', 'the provider stopped in the middle of its answer'));
qr/^data: \Q$first\E\n\n(?:: ping\n\n){2,10}data: \Q$last\E\n\n$/
--- no_error_log
[alert]



=== pings between events of messages
--- request eval
::messages()
--- location: llm_adapter_ping 50ms; llm_adapter_timeout idle=500ms;
--- answer eval
[@::START, $::DELTA]
--- head
HTTP/1.1 200 OK
Content-Type: text/event-stream
Content-Length: 1000
--- tcp_no_close
--- response_body_like eval
qr/"text":"Hi"\}\}\n\n(?:event: ping\ndata: \{"type": ?"ping"\}\n\n){2,10}event: error\ndata: [^\n]*"code":"timeout_idle"/
--- no_error_log
[alert]



=== a ping before the head commits the answer
--- location: llm_adapter_ping 15s head=50ms;
--- tcp_reply_delay: 300ms
--- answer eval
[$::ROLE, ::text('a'), $::STOP, '[DONE]']
--- response_headers
Content-Type: text/event-stream
X-Accel-Buffering: no
--- shown eval
[\": ping\n\n", $::ROLE, ::text('a'), $::STOP, '[DONE]']



=== ... so that an error is told within it
--- location: llm_adapter_ping 15s head=50ms;
--- tcp_reply_delay: 300ms
--- head
HTTP/1.1 429 Too Many Requests
Content-Type: application/json
--- answer eval
\'{"error":{"message":"slow down"}}'
--- response_headers
Content-Type: text/event-stream
--- response_body_like eval
qr/^: ping\n\ndata: \{"error":\{[^\n]*\}\}\n\n$/
--- no_error_log
[alert]



=== ... in the manner of messages
--- request eval
::messages()
--- location: llm_adapter_ping 15s head=50ms;
--- tcp_reply_delay: 300ms
--- head
HTTP/1.1 529 Overloaded
Content-Type: application/json
--- answer eval
\'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
--- response_body_like eval
qr/^: ping\n\nevent: error\ndata: \{"type":"error","error":\{"type":"overloaded_error"[^\n]*\}\n\n$/
--- no_error_log
[alert]



=== ... and so is a connection that fails
--- location: llm_adapter_ping 15s head=50ms;
--- tcp_reply_delay: 300ms
--- tcp_reply:
--- answer:
--- response_body_like eval
qr/^: ping\n\ndata: \{"error":\{[^\n]*"code":"upstream_closed"\}\}\n\n$/
--- no_error_log
[alert]



=== a ping before the head is for streams alone
--- request eval
"POST /v1/chat/completions\n" . '{"model":"m","messages":[]}'
--- location: llm_adapter_ping 15s head=50ms;
--- tcp_reply_delay: 300ms
--- head
HTTP/1.1 200 OK
Content-Type: application/json
--- answer eval
\'{}'
--- response_headers
Content-Type: application/json
Content-Length: 2
--- response_body: {}
