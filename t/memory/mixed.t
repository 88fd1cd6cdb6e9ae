#!/usr/bin/perl

# 100,000 mixed requests on one worker: plain, streams, clients that leave,
# providers that fail in each way, bad input, with and without the cache.  Meant for LLM_VALGRIND=1
# (make check-memory): the end looks for leaks and invalid accesses.  What
# grows with the number of requests shows in the worker's memory as well.

use strict;
use warnings;

use Test::More;

use lib 't/lib';
use LLM::E2E;

skip_without_module();

my $total = $ENV{REQUESTS} // 100_000;
my $load = repo_root() . '/build/llm_load';

plan skip_all => 'no build/llm_load: make -C t/bench' if !-x $load;

my $mock = start_mock();

my $t = start_nginx(<<'EOT', vars => { MOCK => $mock->port }, workers => 1,
    llm_adapter_provider p {
        endpoint http://127.0.0.1:%%MOCK%%/v1; dialect openai; key secret;
        breaker off;
    }
    llm_adapter_provider a {
        endpoint http://127.0.0.1:%%MOCK%%/v1; dialect anthropic; key secret;
        breaker off;
    }
    llm_adapter_provider b {
        endpoint http://127.0.0.1:%%MOCK%%/v1; dialect openai; key secret;
        breaker failures=3 window=200ms open=5ms;
        health interval=100ms;
    }
    llm_adapter_provider ab {
        endpoint http://127.0.0.1:%%MOCK%%/v1; dialect anthropic; key secret;
        breaker failures=3 window=200ms open=5ms;
    }
    llm_adapter_zone llm:2m;
    llm_adapter_cache_path llm_cache size=8m;
    llm_adapter_model claude-* a;
    llm_adapter_model claude-r* ab a balance=hash;
    llm_adapter_model retry* b p balance=latency;
    llm_adapter_model * p:gpt-4o-mini;
    llm_adapter_retry attempts=4 backoff=1ms..10ms budget=1000% resume=on;
    llm_adapter_timeout first_token=300ms idle=300ms plain=300ms;
    llm_adapter_ping 100ms;
    keepalive_requests 1000000;
    client_body_buffer_size 16k;
    client_max_body_size 4m;
    log_format llm '$llm_provider $llm_model $llm_prompt_tokens $llm_error '
                   '$llm_cost $llm_ttft $llm_tpot $llm_overhead';
    access_log off;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        location /v1/ { llm_adapter on; llm_adapter_passthrough p; }
        location /c/v1/ {
            llm_adapter on;
            llm_adapter_cache on scope=global when=always ttl=2s stale=5s
                              ids=fresh;
            llm_adapter_client_abort drain;
        }
        location = /llm { llm_adapter_status purge=on; }
    }
EOT
    connections => 4000);

my ($worker) = $t->workers;
my $done = 0;
my $share = sub { int($total * $_[0]) };

my $run = sub {
    my ($name, @args) = @_;

    my $uri = $args[0] =~ m{^/} ? shift @args : '/v1/chat/completions';
    my $out = `$load -u http://127.0.0.1:@{[$t->port]}$uri @args 2>&1`;
    my $r = eval { json_decode($out) } // {};

    ok($? == 0, $name) or diag($out);
};

# a client that sends what it is given and reads what comes, or leaves

my $ask = sub {
    my ($body, %o) = @_;

    my $c = h1($t->port, timeout => 10);

    $c->send_request('POST', $o{path} // '/v1/chat/completions',
        body => $body,
        headers => ['Content-Type' => 'application/json',
                    'Content-Length' => $o{length} // length $body,
                    map { split /: /, $_, 2 } @{ $o{headers} // [] }]);

    if ($o{leave}) {
        nap(rand 0.02);
        $c->abort(rand() < 0.5 ? 'rst' : 'fin');
        return;
    }

    my $r = $c->read_head;
    $c->read_body($r) if $r;
    $c->close;
};

# faults and bad input, a few of them at once in children

my @faults = map { ["X-Mock-Fault: $_"] }
    qw(reset close close_mid_head bad_head error200 error_first error_event
       cut clean_cut reset_mid malformed no_done no_finish not_sse gzip
       no_stream_options short long half_close_idle close_after stall hang
       hang_head done_open);

push @faults, ['X-Mock-Status: 500'], ['X-Mock-Status: 429'],
    ['X-Mock-Status: 401'], ['X-Mock-Split: 7'], ['X-Mock-Eol: crlf'],
    ['X-Mock-Big-Event: 300000'], ['X-Mock-Usage: last'], ['X-Mock-Bom: 1'];

my @bad = ('', '{', '[]', '{"model":1}', '{"model":"x","model":"y"}',
           '{"messages":[]}', "{\"model\":\"\xff\"}", '"x"',
           '{"model":"x","messages":' . ('[' x 300), '{"model":"x"}');

my $child = sub {
    my ($n) = @_;

    srand($$);

    for my $i (1 .. $n) {
        my $stream = rand() < 0.6 ? 'true' : 'false';
        my $model = (qw(claude-x claude-r gpt-x gpt-x retry retry))[rand 6];
        my $text = ('x' x (rand() < 0.05 ? 40_000 : 100)) . int rand 20;
        my $body = qq({"model":"$model","stream":$stream,"max_tokens":100000,)
                   . qq("messages":[{"role":"user","content":"$text"}]});
        my $path = $model =~ /^claude/ ? '/v1/messages'
                                       : '/v1/chat/completions';
        my $kind = rand();

        # every other one by the cache, to be found there or stored

        $path = "/c$path" if rand() < 0.5;

        if ($kind < 0.35) {
            my @fault = @{ $faults[rand @faults] };

            # once, so that another attempt mends it
            push @fault, 'X-Mock-Fails: 1', "X-Mock-Key: $$-$i"
                if rand() < 0.5;

            $ask->($body, path => $path, headers => \@fault,
                   rand() < 0.1 ? (leave => 1) : ());

        } elsif ($kind < 0.6) {
            $ask->($body, path => $path, leave => 1,
                   headers => ['X-Mock-Gap: 5', 'X-Mock-Events: 20',
                               'X-Mock-Delay: ' . int(rand 20)]);

        } elsif ($kind < 0.7) {
            $ask->($body, path => $path, leave => 1,
                   length => length($body) + 10);

        } elsif ($kind < 0.75) {
            $ask->($body, path => '/v1/responses/compact');

        } elsif ($kind < 0.85) {
            $ask->($body, path => $path);

        } elsif ($kind < 0.86) {
            $ask->((qw({"purge":"all"} {"model":"gpt-x"} {"scope":"global"}
                       {"id":"00"} {))[rand 5], path => '/llm');

        } else {
            $ask->($bad[rand @bad], path => $path);
        }
    }
};

my $mixed = sub {
    my ($n) = @_;

    my @pids;

    for (1 .. 8) {
        my $pid = fork() // die "fork: $!";

        if ($pid == 0) {
            eval { $child->($n / 8) };
            warn $@ if $@;
            require POSIX;
            POSIX::_exit($@ ? 1 : 0);
        }

        push @pids, $pid;
    }

    my $bad = 0;

    for my $pid (@pids) {
        waitpid $pid, 0;
        $bad++ if $?;
    }

    ok(!$bad, "$n requests with faults, aborts and bad input");
};

my @rss;

for my $part (1 .. 5) {
    my $n = $share->(0.10);

    $run->("$n plain answers", '-c 16', "-n $n", '-b 2048');

    my $cached = $share->(0.02);
    $run->("$cached plain answers that are stored", '/c/v1/chat/completions',
           '-c 16', "-n $cached", '-b 2048', '-v 1000000000',
           "-V @{[$part * 1_000_000]}");
    $run->("$cached hits", '/c/v1/chat/completions', '-c 16', "-n $cached",
           '-b 3000');

    my $streams = $share->(0.05);

    while ($streams > 0) {
        my $some = $streams > 500 ? 500 : $streams;
        $run->("$some streams", '-m stream', "-c $some", '-r 2000',
               "-H 'X-Mock-Events: 5'");
        $streams -= $some;
    }

    $run->('100 aborts', '-m abort', '-c 100', '-k 2',
           '-M http://127.0.0.1:' . $mock->port . '/',
           "-H 'X-Mock-Events: 1000'", "-H 'X-Mock-Gap: 20'");

    $mixed->($share->(0.05));

    push @rss, rss_kb($worker);
    note("resident: $rss[-1] KB");
}

# what valgrind itself holds goes up and down by some MB

my ($early) = sort { $b <=> $a } @rss[0 .. 2];

cmp_ok($rss[-1] - $early, '<', 4096,
       "memory does not grow with requests: @rss KB");

no_alerts($t, allow => [qr/open socket/]);

done_testing();
