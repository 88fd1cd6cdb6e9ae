#!/usr/bin/perl

# Directives: what is refused, with which words, in which file and line; what
# is warned of; what is accepted.
#
# The text under --- llm is a file of its own at the http level (llm.conf),
# that under --- location one at the server level (location.conf), so that the
# lines in messages are known.  --- refused and --- warns are
# "text in FILE:LINE", --- warns also "text" alone.

use Test::Nginx::Socket 'no_plan';

BEGIN {
    $ENV{LLM_T_KEY} = 'sk-of-the-environment';
    $ENV{OPENAI_API_KEY} = 'sk-of-openai';
    $ENV{ANTHROPIC_API_KEY} = 'sk-of-anthropic';
    delete $ENV{LLM_T_ABSENT};
}

add_block_preprocessor(sub {
    my ($block) = @_;

    my @files = (
        ['llm.conf', scalar($block->llm) // ''],
        ['location.conf', scalar($block->location) // ''],
        ['key', "sk-of-a-file\n"],
        ['empty', ''],
        ['newline', "\n"],
        ['lines', "one\ntwo\n"],
    );

    $block->set_value(user_files => \@files);
    $block->set_value(http_config =>
        'include $TEST_NGINX_SERVER_ROOT/html/llm.conf;');
    $block->set_value(config =>
        'location = /up { return 200 up; }'
        . ' include $TEST_NGINX_SERVER_ROOT/html/location.conf;');

    my $text = scalar $block->refused // scalar $block->warns;
    my @log;

    if (defined $text) {
        chomp $text;
        my ($words, $where) = $text =~ /^(.*) in (\w+\.conf:\d+)$/
            ? ($1, $2) : ($text);
        my $level = defined $block->refused ? 'emerg' : 'warn';
        my $end = defined $where ? ".* in \\S+/html/$where\$" : '';
        push @log, qr{\[$level\] .*\Q$words\E$end};
    }

    if (defined $block->refused) {
        $block->set_value(must_die => '');
        $block->set_value(suppress_stderr => '');
        $block->set_value(error_log => \@log);
        $block->set_value(no_error_log => ['[alert]', '[crit]']);
        return;
    }

    $block->set_value(request => "GET /up\n");
    $block->set_value(response_body => 'up');
    $block->set_value(error_log => \@log) if @log;
    $block->set_value(no_error_log => ['[alert]', '[crit]', '[emerg]',
                                       @log ? () : '[warn]']);
});

no_long_string();

run_tests();

__DATA__

=== all of a provider's members
--- llm
llm_adapter_provider p {
    endpoint      https://127.0.0.1:4443/base/v1/;
    dialect       openai;
    key           env:LLM_T_KEY;
    model         gpt-4o context=128k max_output=16k input=2.50 cached_input=1.25 cache_write= output=10;
    model         gpt-mini;
    model         o9 context=1m max_output=5 input=0 output=0.000001;
    header        OpenAI-Organization org-123;
    header        X-Secret file:$TEST_NGINX_SERVER_ROOT/html/key;
    header        X-Env env:LLM_T_KEY;
    header        User-Agent "";
    timeout       connect=5s first_token=5m idle=2m plain=10m total=60m;
    keepalive     64;
    tls           verify=on name=api.example.com;
    stream_usage  on;
}
llm_adapter_provider q {
    endpoint   http://[::1]:8000;
    dialect    anthropic;
    key        file:$TEST_NGINX_SERVER_ROOT/html/key;
    timeout    connect=50ms;
    timeout    total=1h;
    keepalive  0;
    stream_usage off;
}
llm_adapter_provider c { endpoint http://127.0.0.1:8001; dialect openai; key client; }
llm_adapter_provider n { endpoint http://127.0.0.1:8001/x; dialect openai; key none; }
llm_adapter_model  gpt-4o  p;
llm_adapter_model  gpt-*   p:gpt-mini;
llm_adapter_model  claude  q:a:b:c;
llm_adapter_model  *       n;
llm_adapter_passthrough n;
llm_adapter_timeout connect=1s first_token=1s idle=1s plain=1s total=1s;
llm_adapter_client_abort cancel;
llm_adapter_ping off;
llm_adapter_flush 0;
llm_adapter_intercept_errors off;
llm_adapter_headers on;
--- location
llm_adapter_passthrough off;
llm_adapter_timeout connect=100ms;
llm_adapter_client_abort drain;
llm_adapter_ping 15s;
llm_adapter_flush 20ms;
llm_adapter_intercept_errors on;
llm_adapter_headers off;
location /a/ { llm_adapter on; }
location /b/ { llm_adapter on direct; llm_adapter_passthrough p; }
location /c/ { llm_adapter p; llm_adapter_ping 15s head=30s; }
location /d/ { llm_adapter p:gpt-4o; llm_adapter_ping 1s head=off; }



=== presets, and a block named like one
--- llm
llm_adapter_provider openai { endpoint http://127.0.0.1:8000/v1; }
llm_adapter_provider anthropic { endpoint http://127.0.0.1:8000; key none; timeout idle=5s; }
--- location
location /a/ { llm_adapter openai; }
location /b/ { llm_adapter anthropic; }



=== the preset alone: a host that can't be resolved is no reason not to start
--- llm
llm_adapter_provider p { endpoint https://-no-such-host.invalid/v1; dialect openai; }
--- location
location /v1/ { llm_adapter p; }
--- warns: endpoint "https://-no-such-host.invalid/v1" of provider "p", its calls will fail until a reload finds it



=== with a resolver the next answer helps
--- llm
resolver 127.0.0.1:9;
llm_adapter_provider p { endpoint https://-no-such-host.invalid/v1; dialect openai; }
--- location
location /v1/ { llm_adapter p; }
--- warns: provider "p", its calls will fail until "resolver" finds it



=== no endpoint
--- llm
# the block's own line counts
llm_adapter_provider p {
    dialect openai;
}
--- refused: no "endpoint" in provider "p" in llm.conf:2



=== no dialect
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
}
--- refused: no "dialect" in provider "p" in llm.conf:1



=== unknown dialect
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect chinese;
}
--- refused: unknown dialect "chinese" in llm.conf:3



=== unknown member
--- llm
llm_adapter_provider p {
    endpint http://127.0.0.1:1;
}
--- refused: "endpint" in provider "p" in llm.conf:2



=== a member without its value
--- llm
llm_adapter_provider p {
    endpoint;
}
--- refused: invalid "endpoint" in provider "p" in llm.conf:2



=== a member with a value too many
--- llm
llm_adapter_provider p {
    key env:LLM_T_KEY env:LLM_T_KEY;
}
--- refused: invalid "key" in provider "p" in llm.conf:2



=== duplicate provider
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider p { endpoint http://127.0.0.1:2; dialect openai; }
--- refused: duplicate provider "p" in llm.conf:2



=== provider's name with a colon
--- llm
llm_adapter_provider a:b { endpoint http://127.0.0.1:1; dialect openai; }
--- refused: invalid provider name "a:b" in llm.conf:1



=== provider's name with a slash
--- llm
llm_adapter_provider a/b { endpoint http://127.0.0.1:1; dialect openai; }
--- refused: invalid provider name "a/b" in llm.conf:1



=== provider's name that means something else
--- llm
llm_adapter_provider off { endpoint http://127.0.0.1:1; dialect openai; }
--- refused: invalid provider name "off" in llm.conf:1



=== provider without a name
--- llm
llm_adapter_provider { endpoint http://127.0.0.1:1; dialect openai; }
--- refused: invalid number of arguments in "llm_adapter_provider" directive in llm.conf:1



=== provider in a server
--- location
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- refused: "llm_adapter_provider" directive is not allowed here in location.conf:1



=== duplicate endpoint
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    endpoint http://127.0.0.1:2;
    dialect openai;
}
--- refused: duplicate "endpoint" in provider "p" in llm.conf:3



=== duplicate dialect
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    dialect anthropic;
}
--- refused: duplicate "dialect" in provider "p" in llm.conf:4



=== duplicate key
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key env:LLM_T_KEY;
    key client;
}
--- refused: duplicate "key" in provider "p" in llm.conf:5



=== duplicate keepalive
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    keepalive 1;
    keepalive 2;
}
--- refused: duplicate "keepalive" in provider "p" in llm.conf:5



=== duplicate stream_usage
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    stream_usage on;
    stream_usage off;
}
--- refused: duplicate "stream_usage" in provider "p" in llm.conf:5



=== endpoint without a scheme
--- llm
llm_adapter_provider p { endpoint api.example.com; dialect openai; }
--- refused: invalid endpoint "api.example.com", it must begin with "http://" or "https://" in llm.conf:1



=== endpoint of another scheme
--- llm
llm_adapter_provider p { endpoint ftp://example.com; dialect openai; }
--- refused: invalid endpoint "ftp://example.com" in llm.conf:1



=== endpoint that is a scheme alone
--- llm
llm_adapter_provider p { endpoint https://; dialect openai; }
--- refused: endpoint "https://" in llm.conf:1



=== endpoint without a host
--- llm
llm_adapter_provider p { endpoint http:///v1; dialect openai; }
--- refused: no host in endpoint "http:///v1" in llm.conf:1



=== endpoint with a password
--- llm
llm_adapter_provider p { endpoint http://user:secret@127.0.0.1/v1; dialect openai; }
--- refused: invalid host in endpoint in llm.conf:1



=== endpoint with a variable in its host
--- llm
llm_adapter_provider p { endpoint http://$host/v1; dialect openai; }
--- refused: invalid host in endpoint "http://$host/v1" in llm.conf:1



=== endpoint with a query
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1/v1?a=b; dialect openai; }
--- refused: invalid path in endpoint "http://127.0.0.1/v1?a=b" in llm.conf:1



=== endpoint with a space in its path
--- llm
llm_adapter_provider p { endpoint "http://127.0.0.1/a b"; dialect openai; }
--- refused: invalid path in endpoint "http://127.0.0.1/a b" in llm.conf:1



=== endpoint with a port that is none
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:99999/v1;
    dialect openai;
}
--- refused: invalid port in endpoint "http://127.0.0.1:99999/v1" in provider "p" in llm.conf:1



=== endpoint with port 0
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:0; dialect openai; }
--- refused: invalid port in endpoint "http://127.0.0.1:0" in provider "p" in llm.conf:1



=== keepalive that is no number
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; keepalive many; }
--- refused: invalid number of connections "many" in llm.conf:1



=== keepalive beyond reason
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; keepalive 65536; }
--- refused: invalid number of connections "65536" in llm.conf:1



=== stream_usage neither on nor off
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; stream_usage maybe; }
--- refused: invalid value "maybe" in "stream_usage" in llm.conf:1



=== a provider's timeout by an unknown name
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    timeout connect=5s read=5s;
}
--- refused: invalid timeout "read=5s" in llm.conf:4



=== a provider's timeout of no time
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; timeout idle=0; }
--- refused: invalid timeout "idle=0" in llm.conf:1



=== a provider's timeout without a value
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; timeout plain=; }
--- refused: invalid timeout "plain=" in llm.conf:1



=== a provider's timeout in a unit that is none
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; timeout first_token=5parsecs; }
--- refused: invalid timeout "first_token=5parsecs" in llm.conf:1



=== a provider's timeout without a name
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; timeout 5s; }
--- refused: invalid timeout "5s" in llm.conf:1



=== a model twice in a provider
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    model m input=1;
    model m input=2;
}
--- refused: duplicate model "m" in llm.conf:5



=== a model's unknown parameter
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; model m size=7b; }
--- refused: invalid parameter "size=7b" of model "m" in llm.conf:1



=== a model's price that is no number
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; model m input=cheap; }
--- refused: invalid parameter "input=cheap" of model "m" in llm.conf:1



=== a model's price below zero
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; model m output=-1; }
--- refused: invalid parameter "output=-1" of model "m" in llm.conf:1



=== a model's context of nothing
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; model m context=0; }
--- refused: invalid parameter "context=0" of model "m" in llm.conf:1



=== a model's context in an unknown unit
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; model m context=1g; }
--- refused: invalid parameter "context=1g" of model "m" in llm.conf:1



=== a header's name that is none
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; header "X Y" z; }
--- refused: invalid header name "X Y" in llm.conf:1



=== a header that is ours
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    header Content-Length 5;
}
--- refused: header "Content-Length" can not be set in llm.conf:4



=== Host is ours too
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; header host other; }
--- refused: header "host" can not be set in llm.conf:1



=== a header with two lines in it
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; header X-A "a\nX-B: b"; }
--- refused: control character in the value of header "X-A" in llm.conf:1



=== a header from a file of several lines
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; header X-A file:$TEST_NGINX_SERVER_ROOT/html/lines; }
--- refused: control character in the value of header "X-A" in llm.conf:1



=== a header that the key makes
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key env:LLM_T_KEY;
    header authorization "Bearer other";
}
--- refused: header "authorization" in provider "p" in llm.conf:1



=== a literal key
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key sk-literal; }
--- warns: the key of provider "p" stands in the configuration itself in llm.conf:1



=== a key that is empty
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key ""; }
--- refused: invalid key in llm.conf:1



=== a key from a variable without a name
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key env:; }
--- refused: invalid key in llm.conf:1



=== a key's variable that is absent
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key env:LLM_T_ABSENT;
}
--- refused: the environment variable "LLM_T_ABSENT" is not set in llm.conf:4



=== a preset's variable that is absent
--- llm
--- location
location /v1/ {
    llm_adapter gemini;
}
--- refused: no usable provider "gemini" in location.conf:2



=== a key's file that is absent
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key file:no/such/file;
}
--- refused: no/such/file" failed in llm.conf:4



=== a key's file that is empty
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key file:$TEST_NGINX_SERVER_ROOT/html/empty;
}
--- refused: html/empty" is empty in llm.conf:4



=== a key's file with a newline alone
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key file:$TEST_NGINX_SERVER_ROOT/html/newline;
}
--- refused: html/newline" is empty in llm.conf:4



=== a key's file that is a directory
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key file:$TEST_NGINX_SERVER_ROOT/html;
}
--- refused: /html" in llm.conf:4



=== a key of several lines
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    key file:$TEST_NGINX_SERVER_ROOT/html/lines;
}
--- refused: the key has a byte that no header can carry in provider "p" in llm.conf:1



=== tls with an unknown parameter
--- llm
llm_adapter_provider p { endpoint https://127.0.0.1:1; dialect openai; tls verify=maybe; }
--- refused: invalid "tls" parameter "verify=maybe" in llm.conf:1



=== tls without https
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; tls verify=off; }
--- refused: "tls" needs an https endpoint in provider "p" in llm.conf:1



=== tls with a CA file that is absent
--- llm
llm_adapter_provider p { endpoint https://127.0.0.1:1; dialect openai; tls ca=no/such.pem; }
--- refused: no/such.pem
--- location



=== duplicate tls
--- llm
llm_adapter_provider p {
    endpoint https://127.0.0.1:1;
    dialect openai;
    tls verify=off;
    tls verify=on;
}
--- refused: duplicate "tls" in provider "p" in llm.conf:5



=== a named upstream with keepalive
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p { endpoint http://up/v1; dialect openai; }



=== an upstream defined after its provider
--- llm
llm_adapter_provider p { endpoint http://up/v1; dialect openai; keepalive 4; }
upstream up { server 127.0.0.1:1; keepalive 4; }
--- refused: "keepalive" is a matter of upstream "up" in provider "p" in llm.conf:1



=== a named upstream without keepalive
--- llm
upstream up { server 127.0.0.1:1; }
llm_adapter_provider p { endpoint http://up/v1; dialect openai; }
--- warns: upstream "up" of provider "p" has no "keepalive"



=== a named upstream with other balancing and keepalive
--- llm
upstream up { least_conn; server 127.0.0.1:1; server 127.0.0.1:2; keepalive 4; }
llm_adapter_provider p { endpoint http://up/v1; dialect openai; }



=== a named upstream with other balancing but no keepalive
--- llm
upstream up { least_conn; server 127.0.0.1:1; server 127.0.0.1:2; }
llm_adapter_provider p { endpoint http://up/v1; dialect openai; }
--- warns: upstream "up" of provider "p" has no "keepalive"



=== a named upstream with a port
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p {
    endpoint http://up:8080/v1;
    dialect openai;
}
--- refused: endpoint "http://up:8080/v1" names an upstream and may not have a port in provider "p" in llm.conf:2



=== keepalive beside a named upstream
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p { endpoint http://UP; dialect openai; keepalive 8; }
--- refused: "keepalive" is a matter of upstream "UP" in provider "p" in llm.conf:2



=== https to a named upstream without a name to verify
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p { endpoint https://up; dialect openai; }
--- refused: https to upstream "up" needs "tls name=" in provider "p" in llm.conf:2



=== two providers with different TLS on one upstream
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p { endpoint https://up; dialect openai; tls name=a; }
llm_adapter_provider q { endpoint https://up; dialect openai; tls name=b; }
--- refused: upstream "up" is used with other TLS settings by provider "p" in provider "q" in llm.conf:3



=== two providers on one upstream, one of them without TLS
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p { endpoint https://up; dialect openai; tls name=a; }
llm_adapter_provider q { endpoint http://up; dialect openai; }
--- refused: upstream "up" is used with other TLS settings by provider "p" in provider "q" in llm.conf:3



=== two providers with equal TLS on one upstream
--- llm
upstream up { server 127.0.0.1:1; keepalive 4; }
llm_adapter_provider p { endpoint https://up/a; dialect openai; tls name=a verify=off; }
llm_adapter_provider q { endpoint https://up/b; dialect openai; tls verify=off name=a; }



=== a host that is not an upstream though proxy_pass names it
--- llm
llm_adapter_provider p { endpoint http://localhost:8080/v1; dialect openai; keepalive 8; }
--- location
location /p { proxy_pass http://localhost:8080; }



=== a pattern with its star in the middle
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model a*b p;
--- refused: invalid model pattern "a*b" in llm.conf:2



=== a pattern with two stars
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model a** p;
--- refused: invalid model pattern "a**" in llm.conf:2



=== an empty pattern
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model "" p;
--- refused: invalid model pattern "" in llm.conf:2



=== duplicate pattern
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model a p;
llm_adapter_model a* p;
llm_adapter_model a p:x;
--- refused: duplicate model pattern "a" in llm.conf:4



=== duplicate prefix
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model a* p;
llm_adapter_model a* p:x;
--- refused: duplicate model pattern "a*" in llm.conf:3



=== a pattern without a target
--- llm
llm_adapter_model a;
--- refused: invalid number of arguments in "llm_adapter_model" directive in llm.conf:1



=== a target whose provider is unknown
--- llm
# one line down
llm_adapter_model a nobody:m;
--- refused: no usable provider "nobody" in llm.conf:2



=== a target without a model
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model a p:;
--- refused: invalid target "p:" in llm.conf:2



=== a target without a provider
--- llm
llm_adapter_model a :m;
--- refused: invalid target ":m" in llm.conf:1



=== a model in a server
--- location
llm_adapter_model a p;
--- refused: "llm_adapter_model" directive is not allowed here in location.conf:1



=== llm_adapter twice
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter p;
}
--- refused: "llm_adapter" directive is duplicate in location.conf:3



=== llm_adapter before proxy_pass
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ {
    llm_adapter p;
    proxy_pass http://127.0.0.1:1;
}
--- refused: "llm_adapter" is in a location that another directive handles in location.conf:2



=== llm_adapter after proxy_pass
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ {
    proxy_pass http://127.0.0.1:1;
    llm_adapter p;
}
--- refused: is in a location that another directive handles in location.conf:3



=== llm_adapter in an if beside proxy_pass
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ {
    if ($arg_a) {
        llm_adapter p;
        proxy_pass http://127.0.0.1:1;
    }
}
--- refused: "llm_adapter" is in a location that another directive handles in location.conf:3



=== llm_adapter with an unknown provider
--- location
location /v1/ {
    llm_adapter nobody;
}
--- refused: no usable provider "nobody" in location.conf:2



=== llm_adapter on, and something else
--- location
location /v1/ {
    llm_adapter on fast;
}
--- refused: invalid parameter "fast" in location.conf:2



=== llm_adapter on direct, and more
--- location
location /v1/ {
    llm_adapter on direct now;
}
--- refused: invalid parameter in location.conf:2



=== llm_adapter without a target
--- location
location /v1/ {
    llm_adapter;
}
--- refused: invalid number of arguments in "llm_adapter" directive in location.conf:2



=== llm_adapter in a server
--- location
llm_adapter on;
--- refused: "llm_adapter" directive is not allowed here in location.conf:1



=== passthrough to an unknown provider
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_passthrough nobody;
}
--- refused: no usable provider "nobody" in location.conf:3



=== passthrough to an unknown provider, inherited
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_passthrough nobody;
--- location
location /v1/ {
    llm_adapter p;
}
--- refused: no usable provider "nobody" in llm.conf:2



=== passthrough with a model
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_passthrough p:m;
}
--- refused: "p:m" in location.conf:3



=== passthrough twice
--- location
llm_adapter_passthrough off;
llm_adapter_passthrough off;
--- refused: "llm_adapter_passthrough" directive is duplicate in location.conf:2



=== a timeout by an unknown name
--- location
llm_adapter_timeout write=1s;
--- refused: invalid timeout "write=1s" in location.conf:1



=== a timeout of no time
--- location
llm_adapter_timeout connect=1s total=0s;
--- refused: invalid timeout "total=0s" in location.conf:1



=== a timeout given twice
--- location
llm_adapter_timeout connect=1s;
llm_adapter_timeout connect=2s;
--- refused: "llm_adapter_timeout" directive is duplicate in location.conf:2



=== client_abort that is neither
--- location
llm_adapter_client_abort ignore;
--- refused: invalid value "ignore" in location.conf:1



=== client_abort twice
--- location
llm_adapter_client_abort drain;
llm_adapter_client_abort cancel;
--- refused: "llm_adapter_client_abort" directive is duplicate in location.conf:2



=== ping of no time
--- location
llm_adapter_ping 0;
--- refused: invalid time "0" in location.conf:1



=== ping that is no time
--- location
llm_adapter_ping often;
--- refused: invalid time "often" in location.conf:1



=== ping off with more
--- location
llm_adapter_ping off head=5s;
--- refused: invalid parameter "head=5s" in location.conf:1



=== ping with an unknown parameter
--- location
llm_adapter_ping 15s tail=5s;
--- refused: invalid parameter "tail=5s" in location.conf:1



=== ping with a head of no time
--- location
llm_adapter_ping 15s head=0;
--- refused: invalid parameter "head=0" in location.conf:1



=== ping twice
--- location
llm_adapter_ping 15s;
llm_adapter_ping 20s;
--- refused: "llm_adapter_ping" directive is duplicate in location.conf:2



=== flush that is no time
--- location
llm_adapter_flush soon;
--- refused: "llm_adapter_flush" directive invalid value in location.conf:1



=== flush twice
--- location
llm_adapter_flush 0;
llm_adapter_flush 1ms;
--- refused: "llm_adapter_flush" directive is duplicate in location.conf:2



=== intercept_errors that is no flag
--- location
llm_adapter_intercept_errors yes;
--- refused: invalid value "yes" in "llm_adapter_intercept_errors" directive in location.conf:1



=== headers that is no flag
--- location
llm_adapter_headers yes;
--- refused: invalid value "yes" in "llm_adapter_headers" directive in location.conf:1



=== a client's key for different hosts, by model
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; key client; }
llm_adapter_model a p;
llm_adapter_model b q;
--- location
location /v1/ { llm_adapter on; }
--- refused: providers "p" and "q" have different hosts and "key client" in llm.conf:4



=== a client's key for different hosts, by the provider's name
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; key client; }
--- location
location /v1/ {
    llm_adapter on direct;
}
--- refused: providers "p" and "q" have different hosts and "key client" in location.conf:2



=== a client's key for different hosts, by path
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; key client; }
--- location
location /v1/ {
    llm_adapter p;
    llm_adapter_passthrough q;
}
--- refused: providers "p" and "q" have different hosts and "key client" in location.conf:2



=== a client's key for different hosts, by path where models choose
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; key client; }
llm_adapter_model * p;
--- location
location /v1/ {
    llm_adapter on;
    llm_adapter_passthrough q;
}
--- refused: providers "p" and "q" have different hosts and "key client" in location.conf:2



=== a client's key for one host
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1/a; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.1:1/b; dialect openai; key client; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p;
llm_adapter_model b q;
llm_adapter_model c r;
--- location
location /v1/ { llm_adapter on direct; llm_adapter_passthrough p; }



=== a client's key for different hosts, in locations of their own
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; key client; }
--- location
location /p/ { llm_adapter p; }
location /q/ { llm_adapter q; }



=== health
--- llm
llm_adapter_provider a { endpoint http://127.0.0.1:$TEST_NGINX_SERVER_PORT/up; dialect openai; health interval=1h; }
llm_adapter_provider b { endpoint http://127.0.0.1:1/v1; dialect openai; health off; }
llm_adapter_provider c {
    health interval=100ms uri=/up?b=c fails=1000 passes=2;
    endpoint http://127.0.0.1:$TEST_NGINX_SERVER_PORT/up;
    dialect openai;
}
--- location
location /a/ { llm_adapter a b c; }



=== health, an interval that is too short
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health interval=99ms;
}
--- location
--- refused: invalid "health" parameter "interval=99ms" in llm.conf:4



=== health, an interval that is too long
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health interval=2d;
}
--- location
--- refused: invalid "health" parameter "interval=2d" in llm.conf:4



=== health, no time
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health interval=often;
}
--- location
--- refused: invalid "health" parameter "interval=often" in llm.conf:4



=== health, a uri without a slash
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health uri=models;
}
--- location
--- refused: invalid "health" parameter "uri=models" in llm.conf:4



=== health, a uri of another host
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health uri=http://127.0.0.1/;
}
--- location
--- refused: invalid "health" parameter "uri=http://127.0.0.1/" in llm.conf:4



=== health, no uri
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health uri=;
}
--- location
--- refused: invalid "health" parameter "uri=" in llm.conf:4



=== health, a space in a uri
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health "uri=/a b";
}
--- location
--- refused: invalid "health" parameter "uri=/a b" in llm.conf:4



=== health, no failures
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health fails=0;
}
--- location
--- refused: invalid "health" parameter "fails=0" in llm.conf:4



=== health, no passes
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health passes=0;
}
--- location
--- refused: invalid "health" parameter "passes=0" in llm.conf:4



=== health, no number
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health passes=x;
}
--- location
--- refused: invalid "health" parameter "passes=x" in llm.conf:4



=== health, an unknown parameter
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health timeout=1s;
}
--- location
--- refused: invalid "health" parameter "timeout=1s" in llm.conf:4



=== health, off and more
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health off interval=1s;
}
--- location
--- refused: invalid "health" parameter "off" in llm.conf:4



=== health, without parameters
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health;
}
--- location
--- refused: invalid "health" in provider "p" in llm.conf:4



=== health, twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1;
    dialect openai;
    health off;
    health interval=1s;
}
--- location
--- refused: duplicate "health" in provider "p" in llm.conf:5
