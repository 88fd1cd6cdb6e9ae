#!/usr/bin/perl

# Targets, retries, breakers and the zone: what is refused, with which words,
# in which file and line, and what is accepted; as t/config.t does for the
# other directives.

use Test::Nginx::Socket 'no_plan';

add_block_preprocessor(sub {
    my ($block) = @_;

    my @files = (
        ['llm.conf', scalar($block->llm) // ''],
        ['location.conf', scalar($block->location) // ''],
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

=== targets, balance and weights
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q r;
llm_adapter_model b p:x p:y q balance=order;
llm_adapter_model c* p q balance=weight weights=3,1;
llm_adapter_model d* p q weights=1000,1;
llm_adapter_model e* p q balance=weight;
llm_adapter_model f* p q balance=latency;
llm_adapter_model g* p q balance=cost;
llm_adapter_model * p q r balance=hash;
--- location
location /v1/ { llm_adapter on; }
location /w/ { llm_adapter p q:x q:y; }



=== breaker, account, retry and zone
--- llm
llm_adapter_zone shared:1m;
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; breaker failures=1 window=1s open=500ms; account acme; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; breaker off; }
llm_adapter_model * p q;
llm_adapter_retry attempts=10 backoff=1ms..1ms budget=0%;
--- location
location /v1/ { llm_adapter on; llm_adapter_retry attempts=1; }



=== a target that names no provider
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p nobody;
--- refused: no usable provider "nobody" in llm.conf:4



=== a target of a location that names no provider
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
--- location
location /v1/ { llm_adapter p nobody:x; }
--- refused: no usable provider "nobody" in location.conf:1



=== a target twice
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q p;
--- refused: duplicate target "p" in llm.conf:4



=== a target twice in a location
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
--- location
location /v1/ { llm_adapter p:m q p:m; }
--- refused: duplicate target "p:m" in location.conf:1



=== more targets than may be
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p:0 p:1 p:2 p:3 p:4 p:5 p:6 p:7 p:8 p:9 p:10 p:11 p:12 p:13 p:14 p:15 p:16;
--- refused: more than 16 targets in llm.conf:4



=== fewer weights than targets
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q balance=weight weights=3;
--- refused: 1 weights for 2 targets in "weights=3" in llm.conf:4



=== more weights than targets
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q weights=3,1,1;
--- refused: 3 weights for 2 targets in "weights=3,1,1" in llm.conf:4



=== a weight of zero
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q weights=3,0;
--- refused: invalid weight in "weights=3,0" in llm.conf:4



=== a weight that is no number
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q weights=3,x;
--- refused: invalid weight in "weights=3,x" in llm.conf:4



=== an empty weight
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q weights=3,;
--- refused: invalid weight in "weights=3," in llm.conf:4



=== a weight that is too large
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q weights=1001,1;
--- refused: invalid weight in "weights=1001,1" in llm.conf:4



=== weights that do not fit the balance
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q weights=3,1 balance=order;
--- refused: "weights=3,1" contradicts "balance=order" in llm.conf:4



=== an unknown balance
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q balance=random;
--- refused: unknown balance "random" in llm.conf:4



=== balance twice
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p q balance=hash balance=order;
--- refused: invalid parameter "balance=order" in llm.conf:4



=== a target behind the balance
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a p balance=hash q;
--- refused: invalid parameter "q" in llm.conf:4



=== balance without a target
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model a balance=hash;
--- refused: no target of model pattern "a" in llm.conf:4



=== no attempts
--- llm
llm_adapter_retry attempts=0;
--- refused: invalid "attempts=0", it must be from 1 to 10 in llm.conf:1



=== eleven attempts
--- llm
llm_adapter_retry attempts=11;
--- refused: invalid "attempts=11", it must be from 1 to 10 in llm.conf:1



=== attempts that are no number
--- llm
llm_adapter_retry attempts=x;
--- refused: invalid "attempts=x", it must be from 1 to 10 in llm.conf:1



=== a back-off without a range
--- llm
llm_adapter_retry backoff=200ms;
--- refused: invalid parameter "backoff=200ms" in llm.conf:1



=== a back-off that shrinks
--- llm
llm_adapter_retry backoff=2s..1s;
--- refused: invalid parameter "backoff=2s..1s" in llm.conf:1



=== a back-off of nothing
--- llm
llm_adapter_retry backoff=0..1s;
--- refused: invalid parameter "backoff=0..1s" in llm.conf:1



=== a budget without per cent
--- llm
llm_adapter_retry budget=20;
--- refused: invalid parameter "budget=20" in llm.conf:1



=== a budget that is too large
--- llm
llm_adapter_retry budget=1001%;
--- refused: invalid parameter "budget=1001%" in llm.conf:1



=== an unknown parameter of llm_adapter_retry
--- llm
llm_adapter_retry tries=3;
--- refused: invalid parameter "tries=3" in llm.conf:1



=== llm_adapter_retry twice
--- llm
llm_adapter_retry attempts=1;
llm_adapter_retry attempts=2;
--- refused: "llm_adapter_retry" directive is duplicate in llm.conf:2



=== breaker: no failures
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker failures=0;
}
--- refused: invalid "breaker" parameter "failures=0" in llm.conf:3



=== breaker: a window of nothing
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker window=0;
}
--- refused: invalid "breaker" parameter "window=0" in llm.conf:3



=== breaker: an open time that is none
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker open=x;
}
--- refused: invalid "breaker" parameter "open=x" in llm.conf:3



=== breaker: an unknown parameter of breaker
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker errors=3;
}
--- refused: invalid "breaker" parameter "errors=3" in llm.conf:3



=== breaker: breaker off and more
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker off open=1s;
}
--- refused: invalid "breaker" parameter "off" in llm.conf:3



=== breaker twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai; breaker off;
    breaker off;
}
--- refused: duplicate "breaker" in provider "p" in llm.conf:3



=== an empty account
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai;
    account ""; }
--- refused: empty "account" in provider "p" in llm.conf:2



=== a zone: llm
--- llm
llm_adapter_zone llm;
--- refused: invalid zone "llm", it must be "name:size" in llm.conf:1



=== a zone: :1m
--- llm
llm_adapter_zone :1m;
--- refused: invalid zone ":1m", it must be "name:size" in llm.conf:1



=== a zone: llm:x
--- llm
llm_adapter_zone llm:x;
--- refused: invalid zone size "llm:x" in llm.conf:1



=== a zone: llm:255k
--- llm
llm_adapter_zone llm:255k;
--- refused: zone "llm:255k" is too small, the least is 256k in llm.conf:1



=== a zone twice
--- llm
llm_adapter_zone a:1m;
llm_adapter_zone b:1m;
--- refused: "llm_adapter_zone" directive is duplicate in llm.conf:2



=== the smallest zone
--- llm
llm_adapter_zone llm:256k;
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; }
llm_adapter_provider r { endpoint http://127.0.0.1:3; dialect openai; }
llm_adapter_model * p q;
--- location
location /v1/ { llm_adapter on; }



=== a fallback to which a client's key must not go
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.2:1; dialect openai; key client; }
llm_adapter_provider o { endpoint http://127.0.0.1:1/x; dialect openai; key client; }
llm_adapter_model a p q;
--- refused: providers "p" and "q" have different hosts and "key client", a client's key would go to either in llm.conf:4



=== a location's fallback to which a client's key must not go
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.2:1; dialect openai; key client; }
llm_adapter_provider o { endpoint http://127.0.0.1:1/x; dialect openai; key client; }
--- location
location /v1/ { llm_adapter p q; }
--- refused: providers "p" and "q" have different hosts and "key client", a client's key would go to either in location.conf:1



=== a fallback on the host that the client's key is for
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; key client; }
llm_adapter_provider q { endpoint http://127.0.0.2:1; dialect openai; key client; }
llm_adapter_provider o { endpoint http://127.0.0.1:1/x; dialect openai; key client; }
llm_adapter_model a p o;
--- location
location /v1/ { llm_adapter on; }



=== a loop
--- llm
llm_adapter_provider loop { endpoint http://127.0.0.1:$TEST_NGINX_SERVER_PORT/v1; dialect openai; }
--- location
location /v1/ { llm_adapter loop; }
--- refused: of provider "loop" is the location that calls it in location.conf:1



=== a loop by a pattern, of a fallback
--- llm
llm_adapter_provider loop { endpoint http://127.0.0.1:$TEST_NGINX_SERVER_PORT/v1; dialect openai; }
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
llm_adapter_model x p;
llm_adapter_model * p loop;
--- location
location /v1/ { llm_adapter on; }
--- refused: of provider "loop" is the location that calls it in location.conf:1



=== a loop by a name
--- llm
llm_adapter_provider loop { endpoint http://localhost:$TEST_NGINX_SERVER_PORT; dialect openai; }
--- location
location /chat { llm_adapter loop; }
--- refused: of provider "loop" is the location that calls it in location.conf:1



=== a loop by passing through
--- llm
llm_adapter_provider loop { endpoint http://127.0.0.1:$TEST_NGINX_SERVER_PORT/v1; dialect openai; }
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; }
--- location
location /v1/ { llm_adapter p; llm_adapter_passthrough loop; }
--- refused: of provider "loop" is the location that calls it in location.conf:1



=== no loop: another location of ours
--- llm
llm_adapter_provider here { endpoint http://127.0.0.1:$TEST_NGINX_SERVER_PORT/other; dialect openai; }
--- location
location /v1/ { llm_adapter here; }
location /other/ { return 204; }



=== no loop: another port of ours
--- llm
llm_adapter_provider here { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/v1; dialect openai; }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; location /v1/ { return 204; } }
--- location
location /v1/ { llm_adapter here; }



=== llm_adapter_retry: attempts twice
--- llm
llm_adapter_retry attempts=3 attempts=5;
--- refused: invalid parameter "attempts=5" in llm.conf:1



=== llm_adapter_retry: the same attempts twice
--- llm
llm_adapter_retry attempts=3 attempts=3;
--- refused: invalid parameter "attempts=3" in llm.conf:1



=== llm_adapter_retry: a back-off twice
--- llm
llm_adapter_retry backoff=1s..2s budget=10% backoff=2s..3s;
--- refused: invalid parameter "backoff=2s..3s" in llm.conf:1



=== llm_adapter_retry: a budget twice
--- llm
llm_adapter_retry budget=10% budget=20%;
--- refused: invalid parameter "budget=20%" in llm.conf:1



=== llm_adapter_retry: resume twice
--- llm
llm_adapter_retry resume=on resume=off;
--- refused: invalid parameter "resume=off" in llm.conf:1



=== breaker: failures twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker failures=3 failures=9;
}
--- refused: invalid "breaker" parameter "failures=9" in llm.conf:3



=== breaker: a window twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker window=1s open=1s window=2s;
}
--- refused: invalid "breaker" parameter "window=2s" in llm.conf:3



=== breaker: an open time twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    breaker open=1s open=1s;
}
--- refused: invalid "breaker" parameter "open=1s" in llm.conf:3



=== health: an interval twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    health interval=5s interval=1s;
}
--- refused: invalid "health" parameter "interval=1s" in llm.conf:3



=== health: fails twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    health fails=2 interval=5s fails=3;
}
--- refused: invalid "health" parameter "fails=3" in llm.conf:3



=== health: passes twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    health passes=2 passes=3;
}
--- refused: invalid "health" parameter "passes=3" in llm.conf:3



=== health: a uri twice
--- llm
llm_adapter_provider p {
    endpoint http://127.0.0.1:1; dialect openai;
    health uri=/a uri=/b;
}
--- refused: invalid "health" parameter "uri=/b" in llm.conf:3



=== each parameter once, and again in another place
--- llm
llm_adapter_provider p { endpoint http://127.0.0.1:1; dialect openai; breaker open=1s failures=3 window=2s; }
llm_adapter_provider q { endpoint http://127.0.0.1:2; dialect openai; breaker open=1s; }
llm_adapter_retry budget=10% attempts=3 backoff=1s..2s;
--- location
location /v1/ { llm_adapter p; llm_adapter_retry attempts=3 resume=on; }
location /w/ { llm_adapter q; llm_adapter_retry attempts=5; }
