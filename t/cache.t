#!/usr/bin/perl

# The cache's directives: what is refused, with which words, in which file and
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

=== all there is
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=8m;
llm_adapter_cache on;
llm_adapter_cache_bypass $http_a $http_b;
llm_adapter_no_cache $http_a;
--- location
location /a/ { llm_adapter p; llm_adapter_cache off; }
location /b/ { llm_adapter p; llm_adapter_cache on ttl=1h scope=key when=unasked max_size=1m stale=1h client_control=on ids=kept; }
location /c/ { llm_adapter p; llm_adapter_cache on scope=user when=deterministic client_control=off ids=fresh; }
location /d/ { llm_adapter p; llm_adapter_cache on scope=global when=always reveal=on; }
location /e/ { llm_adapter p; llm_adapter_cache on scope=global reveal=off ttl=1d stale=30; }
location /f/ { llm_adapter p; llm_adapter_cache on scope=$remote_user; llm_adapter_cache_bypass $arg_a; llm_adapter_no_cache $arg_b; }
location /g/ { llm_adapter p; llm_adapter_cache on ttl=90; if ($arg_x) { llm_adapter q; } }
location = /llm { llm_adapter_status; }
location = /purge { llm_adapter_status purge=on; }
location = /nopurge { llm_adapter_status purge=off; }



=== a path without a size
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache/;



=== a path that is not used
--- location
location /v1/ { llm_adapter p; }



=== off needs no path
--- llm
llm_adapter_cache off;
--- location
location /v1/ { llm_adapter p; }



=== nor does a place where there is no gateway
--- llm
--- location
location /v1/ { llm_adapter_cache on; return 200; }



=== on without a path
--- llm
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_cache on;
}
--- refused: "llm_adapter_cache" needs "llm_adapter_cache_path" in location.conf:3



=== on without a path, inherited
--- llm
# the second line
llm_adapter_cache on;
--- location
location /v1/ { llm_adapter p; }
--- refused: "llm_adapter_cache" needs "llm_adapter_cache_path" in llm.conf:2



=== a path twice
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache;
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache2;
--- refused: "llm_adapter_cache_path" directive is duplicate in llm.conf:2



=== too small
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=1m;
--- refused: cache size "size=1m" is too small in llm.conf:1



=== no size
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=large;
--- refused: invalid cache size "size=large" in llm.conf:1



=== a negative size
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=-8m;
--- refused: invalid cache size "size=-8m" in llm.conf:1



=== an empty size
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=;
--- refused: size= in llm.conf:1



=== a size beyond what an address can say
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=9999999999g;
--- refused: invalid cache size in llm.conf:1



=== an unknown parameter of the path
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache levels=1:2;
--- refused: invalid parameter "levels=1:2" in llm.conf:1



=== too many parameters of the path
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache size=8m size=16m;
--- refused: invalid number of arguments in "llm_adapter_cache_path" directive in llm.conf:1



=== an empty path
--- llm
llm_adapter_cache_path "";
--- refused: "llm_adapter_cache_path" in llm.conf:1



=== a path in a server
--- location
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache;
--- refused: "llm_adapter_cache_path" directive is not allowed here in location.conf:1



=== neither on nor off
--- llm
llm_adapter_cache maybe;
--- refused: invalid value "maybe" in llm.conf:1



=== no value
--- llm
llm_adapter_cache;
--- refused: invalid number of arguments in "llm_adapter_cache" directive in llm.conf:1



=== twice
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_cache on;
    llm_adapter_cache off;
}
--- refused: "llm_adapter_cache" directive is duplicate in location.conf:4



=== off, but with more
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_cache off ttl=1h;
}
--- refused: "ttl=1h" contradicts "off" in location.conf:3



=== an unknown parameter
--- llm
llm_adapter_cache on tll=1h;
--- refused: invalid parameter "tll=1h" in llm.conf:1



=== a parameter without a value
--- llm
llm_adapter_cache on ttl;
--- refused: invalid parameter "ttl" in llm.conf:1



=== a parameter with nothing behind it
--- llm
llm_adapter_cache on ttl=;
--- refused: invalid parameter "ttl=" in llm.conf:1



=== a parameter twice
--- llm
llm_adapter_cache on ttl=1h ttl=2h;
--- refused: duplicate parameter "ttl=2h" in llm.conf:1



=== a bad ttl
--- llm
llm_adapter_cache on ttl=soon;
--- refused: invalid parameter "ttl=soon" in llm.conf:1



=== a negative ttl
--- llm
llm_adapter_cache on ttl=-1;
--- refused: invalid parameter "ttl=-1" in llm.conf:1



=== no time at all
--- llm
llm_adapter_cache on ttl=0;
--- refused: invalid parameter "ttl=0" in llm.conf:1



=== too long a time
--- llm
llm_adapter_cache on ttl=99999999999999999999;
--- refused: invalid parameter "ttl= in llm.conf:1



=== a bad stale
--- llm
llm_adapter_cache on stale=1x;
--- refused: invalid parameter "stale=1x" in llm.conf:1



=== a bad max_size
--- llm
llm_adapter_cache on max_size=big;
--- refused: invalid parameter "max_size=big" in llm.conf:1



=== max_size=0
--- llm
llm_adapter_cache on max_size=0;
--- refused: invalid parameter "max_size=0" in llm.conf:1



=== a bad when
--- llm
llm_adapter_cache on when=sometimes;
--- refused: invalid parameter "when=sometimes" in llm.conf:1



=== a bad ids
--- llm
llm_adapter_cache on ids=new;
--- refused: invalid parameter "ids=new" in llm.conf:1



=== a bad client_control
--- llm
llm_adapter_cache on client_control=yes;
--- refused: invalid parameter "client_control=yes" in llm.conf:1



=== a bad reveal
--- llm
llm_adapter_cache on scope=global reveal=1;
--- refused: invalid parameter "reveal=1" in llm.conf:1



=== a bad scope
--- llm
llm_adapter_cache on scope=tenant;
--- refused: invalid scope "tenant" in llm.conf:1



=== an empty scope
--- llm
llm_adapter_cache on scope=;
--- refused: scope in llm.conf:1



=== a scope that is only a dollar
--- llm
llm_adapter_cache on scope=$;
--- refused: invalid in llm.conf:1



=== an unknown variable
--- llm
llm_adapter_cache on scope=$no_such_variable;
--- refused: unknown "no_such_variable" variable



=== reveal where nothing is hidden
--- llm
# the second line
llm_adapter_cache on reveal=on;
--- refused: "reveal=on" is for "scope=global" only in llm.conf:2



=== ... with an own scope, in whichever order
--- llm
llm_adapter_cache on reveal=on scope=user;
--- refused: "reveal=on" is for "scope=global" only in llm.conf:1



=== bypass without a condition
--- llm
llm_adapter_cache_bypass;
--- refused: invalid number of arguments in "llm_adapter_cache_bypass" directive in llm.conf:1



=== no_cache with an unknown variable
--- llm
llm_adapter_no_cache $no_such_variable;
--- refused: unknown "no_such_variable" variable



=== status: neither on nor off
--- location
location = /llm {
    llm_adapter_status purge=maybe;
}
--- refused: purge=maybe in location.conf:2



=== status: an unknown parameter
--- location
location = /llm {
    llm_adapter_status all=on;
}
--- refused: "all=on" in location.conf:2



=== status: not in a server
--- location
llm_adapter_status;
--- refused: "llm_adapter_status" directive is not allowed here in location.conf:1



=== status: twice
--- location
location = /llm {
    llm_adapter_status;
    llm_adapter_status purge=on;
}
--- refused: "llm_adapter_status" directive is duplicate in location.conf:3



=== status beside a gateway
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_status;
}
--- refused: "llm_adapter_status" is in a location that another directive handles in location.conf:3



=== a miss and a hit
--- location
location /v1/ { llm_adapter p; llm_adapter_cache on; }
--- request eval
[(::chat()) x 2, ::chat('{"messages" : [], "model" : "m"}')]
--- more_headers
Authorization: Bearer sk-1
--- response_headers eval
["X-LLM-Cache: MISS\n! Age", "X-LLM-Cache: HIT\nAge: 0", "X-LLM-Cache: HIT\nAge: 0"]
--- response_body_like eval
[(qr/"chatcmpl-0123456789"/) x 3]



=== no credential
--- location
location /v1/ { llm_adapter p; llm_adapter_cache on; }
--- request eval
[(::chat()) x 2]
--- response_headers eval
[("X-LLM-Cache: BYPASS\nX-LLM-Cache-Reason: no-scope") x 2]
--- response_body_like eval
[(qr/"chatcmpl-0123456789"/) x 2]



=== not in an if
--- location
location /v1/ {
    llm_adapter p;
    if ($http_x_off) {
        llm_adapter_cache off;
    }
}
--- refused: "llm_adapter_cache" directive is not allowed here in location.conf:4



=== an if with a target of its own has entries of its own
--- location
location /v1/ { llm_adapter p; llm_adapter_cache on; if ($http_x_q) { llm_adapter q; } }
--- request eval
[(::chat()) x 5]
--- more_headers eval
["Authorization: Bearer sk-1", ("Authorization: Bearer sk-1\nX-Q: 1") x 2, "Authorization: Bearer sk-1", "Authorization: Bearer sk-2"]
--- response_headers eval
["X-LLM-Cache: MISS", "X-LLM-Cache: MISS\nX-LLM-Provider: q", "X-LLM-Cache: HIT\nX-LLM-Provider: q", "X-LLM-Cache: HIT\nX-LLM-Provider: p", "X-LLM-Cache: MISS"]
--- response_body_like eval
[(qr/"chatcmpl-0123456789"/) x 5]



=== off
--- location
location /v1/ { llm_adapter p; llm_adapter_cache off; }
--- request eval
[(::chat()) x 2]
--- more_headers
Authorization: Bearer sk-1
--- response_headers eval
[("X-LLM-Cache: OFF\n! Age") x 2]
--- response_body_like eval
[(qr/"chatcmpl-0123456789"/) x 2]



=== inherited from http
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache;
llm_adapter_cache on scope=global reveal=on;
--- location
location /v1/ { llm_adapter p; }
--- request eval
[(::chat()) x 2]
--- response_headers eval
["X-LLM-Cache: MISS", "X-LLM-Cache: HIT"]
--- response_body_like eval
[(qr/"chatcmpl-0123456789"/) x 2]



=== bypass in the location replaces that of the server
--- llm
llm_adapter_cache_path $TEST_NGINX_SERVER_ROOT/cache;
llm_adapter_cache on scope=global reveal=on;
llm_adapter_cache_bypass 1;
--- location
location /v1/ { llm_adapter p; llm_adapter_cache_bypass $http_x_a; }
--- request eval
[(::chat()) x 3]
--- more_headers eval
["", "X-A: 1", ""]
--- response_headers eval
["X-LLM-Cache: MISS", "X-LLM-Cache: BYPASS\nX-LLM-Cache-Reason: bypass", "X-LLM-Cache: HIT"]
--- response_body_like eval
[(qr/"chatcmpl-0123456789"/) x 3]



=== only what is there
--- location
location /v1/ { llm_adapter p; llm_adapter_cache on; }
--- request eval
[(::chat()) x 2]
--- more_headers
Authorization: Bearer sk-1
Cache-Control: only-if-cached
--- error_code eval
[504, 504]
--- response_body_like eval
[(qr/^\{"error":\{.*"message":/) x 2]



=== the status
--- location
location = /llm { llm_adapter_status; }
--- request
GET /llm
--- response_headers
Content-Type: application/json
--- response_body_like: "cache": ?\{



=== access rules come first
--- location
location = /llm { llm_adapter_status purge=on; deny all; }
--- request
GET /llm
--- error_code: 403
--- error_log: access forbidden by rule
