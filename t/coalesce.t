#!/usr/bin/perl

# The directives of coalescing: what is refused, with which words, in which file and
# line, and what is accepted; the simplest requests.
#
# The text under --- llm is a file of its own at the http level (llm.conf),
# that under --- location one at the server level (location.conf), so that the
# lines in messages are known.  --- refused is "text in FILE:LINE", or "text"
# where nginx itself does not say more.

use Test::Nginx::Socket 'no_plan';

sub ::chat { return "POST /v1/chat/completions\n" . ($_[0] // '{"model":"m","messages":[]}') }

add_block_preprocessor(sub {
    my ($block) = @_;

    my $llm = scalar $block->llm;
    my $provider = 'llm_adapter_provider p { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/p; dialect openai; key none; }'
        . "\nllm_adapter_provider q { endpoint http://127.0.0.1:\$TEST_NGINX_RAND_PORT_1/p; dialect openai; key none; }";

    $llm = "llm_adapter_cache_path \$TEST_NGINX_SERVER_ROOT/cache size=8m;\n" if !defined $llm;

    $block->set_value(user_files => [
        ['llm.conf', $llm],
        ['location.conf', scalar($block->location) // ''],
    ]);
    $block->set_value(http_config => <<"EOC");
$provider
include \$TEST_NGINX_SERVER_ROOT/html/llm.conf;
server {
    listen \$TEST_NGINX_RAND_PORT_1;
    location /p/ {
        default_type application/json;
        return 200 '{"id":"chatcmpl-0123456789","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"\$request_id"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}';
    }
}
EOC
    $block->set_value(config => 'location = /up { return 200 up; }'
        . ' include $TEST_NGINX_SERVER_ROOT/html/location.conf;');

    if (defined $block->refused) {
        my $text = scalar $block->refused;
        chomp $text;
        my ($words, $where) = $text =~ /^(.*) in (\w+\.conf:\d+)$/
            ? ($1, ".* in \\S+/html/$2\$") : ($text, '');

        $block->set_value(must_die => '');
        $block->set_value(suppress_stderr => '');
        $block->set_value(error_log => [qr{\[emerg\] .*\Q$words\E$where}]);
        $block->set_value(no_error_log => ['[alert]', '[crit]']);
        return;
    }

    if (!defined $block->request) {
        $block->set_value(request => "GET /up\n");
        $block->set_value(response_body => 'up');
    }

    $block->set_value(no_error_log => ['[alert]', '[crit]', '[emerg]', '[error]', '[warn]'])
        if !defined $block->error_log;
});

no_long_string();

run_tests();

__DATA__

=== TEST 1: no cache, nobody to join
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_coalesce on; llm_adapter_cache off scope=global reveal=on when=always; llm_adapter_max_response 1m; }
--- request eval: ::chat()
--- response_headers
X-LLM-Cache: OFF
X-LLM-Attempts: 1



=== TEST 2: a request without a credential belongs to nobody
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_coalesce on; }
--- request eval: ::chat()
--- response_headers
X-LLM-Cache: OFF
X-LLM-Cache-Reason: no-scope



=== TEST 3: who asks for variety is left apart
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_coalesce on; }
--- request eval: ::chat('{"model":"m","messages":[],"temperature":1}')
--- response_headers
X-LLM-Cache: OFF
X-LLM-Cache-Reason: sampled



=== TEST 4: a bad value
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_coalesce yes; }
--- refused: invalid value "yes" in "llm_adapter_coalesce" directive, it must be "on" or "off" in location.conf:1



=== TEST 5: twice
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_coalesce on; llm_adapter_coalesce on; }
--- refused: "llm_adapter_coalesce" directive is duplicate in location.conf:1



=== TEST 6: a bad size
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_max_response big; }
--- refused: "llm_adapter_max_response" directive invalid value in location.conf:1



=== TEST 7: what only a cache has
--- llm
--- location
location /v1/ { llm_adapter p; llm_adapter_cache off ttl=1h; llm_adapter_coalesce on; }
--- refused: "ttl=1h" contradicts "off" in location.conf:1
