#!/usr/bin/perl

# Further ways to fail: no address, no trust, connections that were closed
# while idle; and what bounds the attempts: the total time, the budget, the
# client that goes away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use File::Temp;
use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time');

my $dir = File::Temp->newdir;
my ($cert, $key) = make_cert("$dir", 'localhost');
my $tls = start_mock(args => ['-p', 0, '-s', 0, '-c', $cert, '-k', $key]);
my $refusing = free_port();

my $g = Targets->new(
    names => [qw(a b c)],
    vars => { TLS => $tls->tls_port, REFUSING => $refusing },
    members => { map { $_ => 'breaker off; timeout first_token=500ms '
                             . 'plain=500ms;' } qw(a b c) },
    locations => {
        '/total/v1/' => 'llm_adapter_timeout total=1200ms; '
            . 'llm_adapter_retry attempts=10 backoff=300ms..5s '
            . 'budget=1000%;',
        '/none/v1/' => 'llm_adapter_retry attempts=4 backoff=1ms..2ms '
                       . 'budget=0%;',
        '/half/v1/' => 'llm_adapter_retry attempts=4 backoff=1ms..2ms '
                       . 'budget=50%;',
        '/long/v1/' => 'llm_adapter_retry attempts=3 backoff=1s..5s '
                       . 'budget=1000%;',
        '/longdrain/v1/' => 'llm_adapter_retry attempts=3 backoff=1s..5s '
                            . 'budget=1000%; llm_adapter_client_abort drain;',
        '/patient/v1/' => 'llm_adapter_timeout first_token=60s plain=60s;',
    },
    http => <<'EOT'
    llm_adapter_provider untrusted {
        endpoint https://127.0.0.1:%%TLS%%/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_provider nowhere {
        endpoint http://no-such-host.invalid/v1;
        dialect openai;
        key none;
        breaker off;
    }

    upstream dead {
        server 127.0.0.1:%%REFUSING%%;
        keepalive 4;
    }

    llm_adapter_provider named {
        endpoint http://dead/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_model untrusted untrusted;
    llm_adapter_model untrusted-a untrusted a:m-a;
    llm_adapter_model nowhere nowhere;
    llm_adapter_model nowhere-a nowhere a:m-a;
    llm_adapter_model named-a named a:m-a;
    llm_adapter_model worst untrusted nowhere;
EOT
        . join '', map {
            Targets::provider("p$_", 'A')
            . "    llm_adapter_model p$_ p$_:m-a xp$_:m-a;\n"
            . "    llm_adapter_model p$_-b p$_:m-a xp$_:m-a b:m-b xb:m-b;\n"
        } 1 .. 6);

my $t = $g->{t};


# --- whom no one can reach: the next one at once, never the same

for my $stream (0, 1) {
    my $form = $stream ? 'stream' : 'plain';

    for my $model (qw(untrusted nowhere)) {
        my $code = $model eq 'nowhere' ? 'upstream_dns' : 'upstream_tls';

        $g->set;
        is_outcome($g->try('chat', model => "$model-a", stream => $stream),
                   { provider => 'a', model => 'm-a', attempts => 2,
                     calls => '1 0 0', log_upstream_status => '502, 200' },
                   "$form, $model: another one");

        my $x = $g->try('chat', model => $model, stream => $stream);
        is_outcome($x, { status => 502, provider => $model, attempts => 1,
                         code => $code, log_error => $code,
                         should => 'false' }, "$form, $model: alone");
    }

    is_outcome($g->try('chat', model => 'worst', stream => $stream),
               { status => 502, attempts => 2, code => 'upstream_dns' },
               "$form: none of two");

    $g->set;
    is_outcome($g->try('chat', model => 'named-a', stream => $stream),
               { provider => 'a', attempts => 2, calls => '1 0 0' },
               "$form: an upstream { } that is down");
}

is($tls->stats->{requests}, 0, 'nothing was sent to whom is not trusted');


# --- a connection that was closed while idle is not a failure

for my $case (['chat', 0], ['chat', 1], ['messages', 1]) {
    my ($kind, $stream) = @$case;
    my @form = ($kind, stream => $stream, model => 'two',
                client => h1($g->port));

    for my $fault ('half_close_idle', 'close_after') {
        my $name = "$kind, stream $stream, $fault";

        $g->set(a => { fault => $fault });
        $g->try(@form);
        nap(0.15);
        is_outcome($g->try(@form), { attempts => 1, model => 'm-a',
                                     calls => '2 0 0' }, $name);
    }
}


# --- the total time is that of all attempts

for my $stream (0, 1) {
    my $form = $stream ? 'stream' : 'plain';

    $g->set(a => { status => 500 });
    my $x = $g->try('chat', model => 'one', stream => $stream,
                    prefix => '/total');
    my $calls = $g->{a}->stats->{requests};
    is_outcome($x, { status => 500, provider => 'a', should => 'false' },
               "$form, total: no wait beyond it");
    cmp_ok($calls, '>=', 2, "$form, total: it tried");
    cmp_ok($calls, '<=', 6, "$form, total: not ten times");
    is($x->{log}{attempts}, $calls, "$form, total: \$llm_attempts");

    $g->set(map { $_ => { fault => 'hang' } } qw(a b c));
    $x = $g->try('chat', model => 'three', stream => $stream,
                 prefix => '/total');
    is_outcome($x, { status => 504, attempts => 3, calls => '1 1 1',
                     log_error => 'timeout_total' },
               "$form, total: silent ones, too");
    cmp_ok($x->{took}, '>=', 1.1, "$form, total: not sooner");
    is($g->{c}->wait_stat('aborted', 1, 3)->{aborted}, 1,
       "$form, total: the last is let go");
}

{
    # what was told is waited for only if there is time

    $g->set(a => { status => 429, retry_after => 2 });
    is_outcome($g->try('chat', model => 'p6', prefix => '/total'),
               { status => 429, attempts => 1, calls => '1 0 0' },
               'total: Retry-After beyond it');
}


# --- the budget: ten at first, then one a second, and a share of the requests

for my $case (['p1', '/none', 0], ['p2', '/half', 0.5]) {
    my ($model, $prefix, $share) = @$case;
    my $name = "budget, $prefix";
    my $start = now();
    my $requests = 20;
    my @statuses;

    $g->set(a => { status => 500 });
    push @statuses, $g->try('chat', model => $model, prefix => $prefix,
                            stream => $_ % 2)->{r}->status for 1 .. $requests;

    my $calls = $g->{a}->stats->{requests};
    my $most = $requests * (1 + $share) + 10 + (now() - $start) + 1;

    is(join(' ', @statuses), join(' ', (500) x $requests),
       "$name: all fail");
    cmp_ok($calls, '>=', $requests * (1 + $share) + 8, "$name: asked again");
    cmp_ok($calls, '<=', $most, "$name: but not each of them, at 4 attempts");

    # it bounds what is asked of the same; another one is asked in any case

    $g->set(a => { status => 500 });
    is_outcome($g->try('chat', model => "$model-b", prefix => $prefix),
               { model => 'm-b' }, "$name: another one nevertheless")
        for 1 .. 5;

    # and it comes back

    nap(1.1);
    $g->set(a => { status => 500, fails => 1 });
    is_outcome($g->try('chat', model => $model, prefix => $prefix),
               { model => 'm-a', attempts => 2, calls => '2 0 0' },
               "$name: one a second");
}

# what fails once in a while is asked again, all of it, at the default share

$g->set(a => { status => 500, flap => 1 });
is_outcome($g->try('chat', model => 'p3', prefix => '/half', stream => $_ % 2),
           { attempts => 2, model => 'm-a' }, "budget: enough, $_")
    for 1 .. 15;


# --- the client goes away

my @WAYS = (
    ['fin', sub { h1($g->port) }, sub { $_[0]->abort('fin') }],
    ['rst', sub { h1($g->port) }, sub { $_[0]->abort('rst') }],
    ['RST_STREAM', sub { h2($g->port('h2')) }, sub { $_[0]->reset($_[1], 8) }],
    ['h2 fin', sub { h2($g->port('h2')) }, sub { $_[0]->abort('fin') }],
);

for my $way (@WAYS) {
    my ($how, $connect, $leave) = @$way;

    for my $stream (0, 1) {

        # while it waits for the next attempt, with nobody asked

        my $name = "$how, stream $stream, in a back-off";
        my @ask = ('chat', model => 'p4', prefix => '/long',
                   stream => $stream, test => $name);

        $g->set(a => { status => 429, retry_after_ms => 1200 });
        my $client = $connect->();
        my $s = start_ask($client, @ask);
        $g->{a}->wait_stat('requests', 1, 5);
        nap(0.2);
        $leave->($client, $s);

        my $log = log_of($t, $name);
        is_deeply([@$log{qw(status error attempts)}],
                  [499, 'client_closed', 1], "$name: in the log at once")
            or diag(explain($log));
        $g->{waiting}{$name} = $g->calls;
        is($g->calls, '1 0 0', "$name: asked once");

        # while another one is asked

        $name = "$how, stream $stream, in a fallback";
        $g->set(a => { status => 500 }, b => { delay => '30s' });
        $client = $connect->();
        $s = start_ask($client, 'chat', model => 'three', stream => $stream,
                       prefix => '/patient', test => $name);
        $g->{b}->wait_stat('requests', 1, 5);
        nap(0.05);
        $leave->($client, $s);

        is($g->{b}->wait_stat('aborted', 1, 3)->{aborted}, 1,
           "$name: the provider sees it");
        $log = log_of($t, $name);
        is_deeply([@$log{qw(status error attempts provider)}],
                  [499, 'client_closed', 2, 'b'], "$name: in the log");
        is($g->calls, '1 1 0', "$name: nobody else is asked");
    }
}

# what was waiting when its client left never came back

{
    $g->set;
    nap(1.5);
    is($g->calls, '0 0 0', 'no attempt for a client that has gone');
}

# drained: nothing is to be drained before an answer has begun

for my $stream (0, 1) {
    my $name = "drain, stream $stream, in a back-off";
    $g->set(a => { status => 500 });
    my $client = h1($g->port);
    start_ask($client, 'chat', model => 'p5', prefix => '/longdrain',
              stream => $stream, test => $name);
    $g->{a}->wait_stat('requests', 1, 5);
    nap(0.1);
    $client->abort('fin');
    is(log_of($t, $name, 10)->{status}, 499, "$name: ends, one way or another");
}

# --- a reload while requests wait: they are served nevertheless

{
    $g->set(a => { status => 429, retry_after_ms => 1000, fails => 4 });
    my @clients = map { h1($g->port) } 1 .. 4;
    start_ask($_, 'chat', model => 'p5', prefix => '/long', stream => 1)
        for @clients;
    $g->{a}->wait_stat('requests', 4, 5);
    $t->reload;
    is(join(' ', map { $_->read_response->status } @clients),
       '200 200 200 200', 'a reload in a back-off');
    is($g->calls, '8 0 0', 'a reload in a back-off: the calls');
}

no_alerts($t);


# --- all of it without a word in the configuration

{
    my $n = start_nginx(<<'EOT', workers => 2,
    llm_adapter_provider a {
        endpoint http://127.0.0.1:%%A%%/v1;
        dialect openai;
        key none;
    }
    llm_adapter_provider b {
        endpoint http://127.0.0.1:%%B%%/v1;
        dialect openai;
        key none;
    }
    llm_adapter_model one a;
    llm_adapter_model two a b;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /v1/ { llm_adapter on; }
    }
EOT
        vars => { A => $g->{a}->port, B => $g->{b}->port });

    my $ask = sub {
        my ($model, $stream) = @_;
        return ask(h1($n->port), 'chat', model => $model, close => 1,
                   stream => $stream);
    };

    $g->set(a => { status => 500, fails => 2 });
    my $r = $ask->('one', 1);
    is($r->status . ' ' . $r->header('x-llm-attempts'), '200 3',
       'the default: three attempts');
    my @gaps = $g->gaps('a');
    cmp_ok($gaps[0], '>=', 98, 'the default: a back-off');
    cmp_ok($gaps[1], '>=', 198, 'the default: a longer one');

    # one request that failed so far; a 500 is asked twice

    $g->set(a => { status => 500 });
    $r = $ask->('two', 0);
    is($r->status . ' ' . $r->header('x-llm-provider'), '200 b',
       'the default: another one');
    $ask->('two', $_) for 0, 1, 0, 1;
    is($g->{a}->stats->{requests}, 7, 'the default: open after five failures');
    is($g->{b}->stats->{requests}, 5, 'the default: the other serves');
    no_alerts($n);
}

done_testing();
