#!/usr/bin/perl

# Active checks: what is asked, what passes, who asks and how often, what
# follows for calls, and what becomes of it at reload, quit and kill.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use File::Temp;
use IO::Socket::INET;
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();
skip_under_valgrind('masters and workers, many of them');

my $KEY = 'sk-canary-health';
my $dir = File::Temp->newdir;
chmod 0755, "$dir";

# a and b of most tests, and a third one
my $mock = start_mock(args => ['-p', '0,0,0']);

# a port that says nothing
my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64);


sub provider {
    my ($name, $text) = @_;
    return "llm_adapter_provider $name { dialect openai; $text }\n";
}

# Providers by name; a location /NAME/v1/ for each, and /ab/v1/.

sub health_conf {
    my (%providers) = @_;

    my %locations = map { ("/$_/v1/" => "llm_adapter $_;") } keys %providers;
    $locations{'/ab/v1/'} = 'llm_adapter a b;' if $providers{b};

    return (
        mock => $mock,
        env => { TEST_E2E_KEY => $KEY },
        vars => { A => $mock->port(0), B => $mock->port(1),
                  C => $mock->port(2), MUTE => $mute->sockport,
                  CLOSED => free_port(), DIRS => "$dir" },
        locations => \%locations,
        http => join '', map { provider($_, $providers{$_}) }
                         sort keys %providers);
}

sub health_nginx {
    my ($providers, %o) = @_;
    my ($t) = gateway(health_conf(%$providers), %o);
    return $t;
}

# Does it come to be known as that?  Says why it is down.

sub is_down {
    my ($t, $name, $why, $mark) = @_;
    return $t->wait_log(qr/\[warn\].* llm: provider "$name" is down: $why/,
                        5, $mark);
}

sub is_well {
    my ($t, $name, $mark) = @_;
    return $t->wait_log(qr/\[notice\].* llm: provider "$name" is well again/,
                        5, $mark);
}

# Checks (GET) or calls (POST) that a port has seen: their times in ms.

sub seen {
    my ($method, $port) = @_;
    return map { $_->{t_ms} }
           grep { $_->{method} eq $method && $_->{port} == $mock->port($port) }
           @{ $mock->requests };
}

sub waits { my ($port, $count) = @_;
            return wait_for { seen('GET', $port) >= $count } 5 }

my $A = 'endpoint http://127.0.0.1:%%A%%/v1;';
my $B = 'endpoint http://127.0.0.1:%%B%%/v1;';
my $C = 'endpoint http://127.0.0.1:%%C%%/v1;';


# --- what follows ---

{
    my $t = health_nginx({
        a => "$A health interval=200ms; timeout connect=200ms;",
        b => "$B health interval=200ms;",
        c => $C,
    });

    ok(waits(0, 2), 'a is asked');
    ok(waits(1, 2), 'b is asked');
    is(scalar(seen('GET', 2)), 0, 'c has no "health" and is not asked');
    unlike($t->error_log, qr/is down|well again/, 'all well: no line of log');

    my $r = ask(h1($t->port), 'chat', prefix => '/ab', test => 'first');
    is($r->status, 200, 'well: answered');
    is(log_of($t, 'first')->{provider}, 'a', 'well: by a');

    # down

    $mock->set(port => $mock->port(0), status => 503);
    my $at = $mock->port(0);
    ok(is_down($t, 'a', "status 503, server: 127.0.0.1:$at\n"), 'a is down');

    my $calls = seen('POST', 0);

    for my $streamed (0, 1) {
        $r = ask(h1($t->port), 'chat', prefix => '/ab', stream => $streamed,
                 test => "fallback $streamed");
        is($r->status, 200, 'down: answered');
        my $log = log_of($t, "fallback $streamed");
        is($log->{provider}, 'b', 'down: by b');
        is($log->{attempts}, 1, 'down: at the first attempt');
    }

    my $start = now();
    $r = ask(h1($t->port), 'chat', prefix => '/a', test => 'alone');
    is_error($r, 'chat', 503, 'down, and no other');
    cmp_ok($r->header('retry-after') // 0, '>=', 1, 'Retry-After is told');
    cmp_ok(now() - $start, '<', 0.5, 'at once');
    is(scalar(seen('POST', 0)), $calls, 'a was not called');

    my $mark = $t->log_mark;
    my $checks = seen('GET', 0);
    ok(waits(0, $checks + 3), 'a is asked all the time');
    unlike($t->log_since($mark), qr/is down/, 'this is said once');

    # well again

    $mock->reset;
    ok(is_well($t, 'a'), 'a is well again');
    $r = ask(h1($t->port), 'chat', prefix => '/ab', test => 'again');
    is(log_of($t, 'again')->{provider}, 'a', 'well again: by a');
    $r = ask(h1($t->port), 'chat', prefix => '/a');
    is($r->status, 200, 'well again: alone');

    no_alerts($t, name => 'down and up: no alerts');
}


# --- what is asked ---

{
    $mock->reset;

    my $t = health_nginx({
        a => "$A key env:TEST_E2E_KEY; header X-Extra sk-canary-extra; "
             . 'health interval=300ms uri=/v1/models?key=sk-canary-uri;',
    }, log_level => 'debug');

    ok(waits(0, 1), 'asked');
    my $port = $mock->port(0);
    is($mock->last, "GET /v1/models?key=sk-canary-uri HTTP/1.1\r\n"
       . "Host: 127.0.0.1:$port\r\nAccept-Encoding: identity\r\n"
       . "Connection: close\r\nUser-Agent: nginx\r\n"
       . "Authorization: Bearer $KEY\r\nX-Extra: sk-canary-extra\r\n\r\n",
       'the request');

    $mock->set(port => $port, status => 401);
    ok(is_down($t, 'a', 'status 401'), 'our key is refused: down');
    unlike($t->error_log, qr/sk-canary/, 'no secret in the log, even debug');
    no_alerts($t, name => 'the request: no alerts');

    $mock->reset;
    $t = health_nginx({ a => "$A header User-Agent \"\"; key client; "
                             . 'health interval=300ms;' });
    ok(waits(0, 1), 'asked, with little to say');
    is($mock->last, "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:$port\r\n"
       . "Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
       'the request: endpoint and /models, no key, no User-Agent');
    no_alerts($t, name => 'the short request: no alerts');

    $mock->reset;
    ($t) = gateway(mock => $mock, env => { TEST_E2E_KEY => $KEY },
                   provider => 'key env:TEST_E2E_KEY; health interval=300ms;');
    wait_for { scalar(seen('GET', 0)) >= 4 } 5;
    my %head = map { ($_->{status} => 1) } @{ $mock->requests };
    is_deeply(\%head, { 200 => 1 }, 'both dialects are asked well');
    no_alerts($t, name => 'both dialects: no alerts');
}


# --- what passes ---

{
    $mock->reset;

    my @well = (200, 204, 302, 404, 405, 429);
    my @down = (400, 401, 402, 403, 408, 418, 500, 502, 503, 529);

    my %providers = (
        (map { ("s$_" => "endpoint http://127.0.0.1:%%A%%/\@status=$_/v1; "
                         . 'key env:TEST_E2E_KEY; health interval=500ms;') }
             @well, @down),
        (map { ("f$_" => "endpoint http://127.0.0.1:%%A%%/\@fault=$_/v1; "
                         . 'health interval=500ms;') }
             qw(reset close bad_head hang)),
        (map { ("c$_" => "endpoint http://127.0.0.1:%%A%%/\@status=$_/v1; "
                         . 'key client; health interval=500ms;') } 401, 403),
        slow => 'endpoint http://127.0.0.1:%%A%%/@delay=300/v1; '
                . 'health interval=500ms;',
        split => 'endpoint "http://127.0.0.1:%%A%%/@split=1;split_head=1/v1"; '
                 . 'health interval=500ms;',
        refused => 'endpoint http://127.0.0.1:%%CLOSED%%/v1; '
                   . 'health interval=500ms;',
        nohost => 'endpoint http://-no-such-host.invalid/v1; '
                  . 'health interval=500ms;',
    );

    my $t = health_nginx(\%providers);
    ok(is_down($t, 'fhang', 'no answer in time, server'), 'hang: down');

    my %reason = map { /provider "(\w+)" is down: (.*)/ ? ($1 => $2) : () }
                 split /\n/, $t->error_log;

    ok(!exists $reason{"s$_"}, "status $_: well") for @well;
    ok(!exists $reason{$_}, "$_: well") for qw(c401 c403 slow split);
    like($reason{"s$_"} // 'well', qr/^status $_, server: [\d.:]+$/,
         "status $_: down") for @down;
    like($reason{freset} // '', qr/^recv\(\) failed, server: .* \(104: /,
         'reset: down');
    like($reason{fclose} // '', qr/^closed without an answer, /,
         'close: down');
    like($reason{fbad_head} // '', qr/^it does not speak HTTP, /,
         'not HTTP: down');
    like($reason{refused} // '',
         qr/^connect\(\) failed, server: 127.0.0.1:\d+ \(111: /,
         'nobody listens: down');
    is($reason{nohost} // '', 'it has no address', 'no address: down');
    unlike($t->error_log, qr/\[(?:error|crit)\]/, 'nothing else is logged');

    no_alerts($t, name => 'what passes: no alerts');
}


# --- so many in a row ---

{
    $mock->reset;
    $mock->set(port => $mock->port(0), status => 500, fails => 2);

    my $t = health_nginx({
        a => "$A health interval=100ms fails=3 passes=3;",
    });

    ok(waits(0, 6), 'two failures and more checks');
    unlike($t->error_log, qr/is down/, 'two of three: not down');

    $mock->reset;
    $mock->set(port => $mock->port(0), status => 500, fails => 3);
    ok(is_down($t, 'a', 'status 500'), 'three of three: down');
    ok(is_well($t, 'a'), 'and well again');
    my @status = map { $_->{status} } grep { $_->{method} eq 'GET' }
                 @{ $mock->requests };
    cmp_ok(scalar(@status), '>=', 6, 'after three that passed');
    cmp_ok(scalar(@status), '<=', 8, 'and not many more');

    no_alerts($t, name => 'in a row: no alerts');
}


# --- who, and how often ---

for my $workers (1, 2, 4) {
    $mock->reset;

    my $t = health_nginx({ a => "$A health interval=200ms;" },
                         workers => $workers);
    nap(4);
    my @times = sort { $a <=> $b } seen('GET', 0);
    my @gaps = sort { $a <=> $b }
               map { $times[$_] - $times[$_ - 1] } 1 .. $#times;

    cmp_ok(scalar(@times), '>=', 15, "$workers workers: checks in 4 s");
    cmp_ok(scalar(@times), '<=', 22, "$workers workers: not more");
    cmp_ok($gaps[0], '>=', 150, "$workers workers: never two at once")
        or diag("@gaps");
    cmp_ok($gaps[-1] - $gaps[0], '>=', 5, "$workers workers: jitter");

    no_alerts($t, name => "$workers workers: no alerts");
}


# --- several addresses ---

{
    $mock->reset;

    my $t = health_nginx({
        one => 'endpoint http://one/v1; health interval=200ms;',
        two => 'endpoint http://two/v1; health interval=200ms;',
        none => 'endpoint http://none/v1; health interval=200ms;',
        nobody => 'endpoint http://nobody/v1; health interval=200ms;',
    }, servers => <<'EOT');
    upstream one {
        server 127.0.0.1:%%CLOSED%%;
        server 127.0.0.1:%%A%%;
        server 127.0.0.1:%%MUTE%%;
        keepalive 4;
    }
    upstream two {
        server 127.0.0.1:%%A%%;
        server 127.0.0.1:%%B%%;
        keepalive 4;
    }
    upstream none {
        server 127.0.0.1:%%CLOSED%%;
        server 127.0.0.1:%%C%% down;
        keepalive 4;
    }
    upstream nobody {
        server 127.0.0.1:%%C%% down;
        keepalive 4;
    }
EOT

    ok(is_down($t, 'none', 'connect\(\) failed'), 'none of its servers');
    $mock->set(port => $mock->port(0), status => 500);
    ok(is_down($t, 'one', '.*'), 'one of three fails now, the others did');
    nap(0.7);
    unlike($t->error_log, qr/"two" is down/, 'one of two is enough');
    unlike($t->error_log, qr/"nobody" is down/, 'none to be asked: not known');
    is(scalar(seen('GET', 2)), 0, 'a server that is "down" is not asked');

    $mock->set(port => $mock->port(1), status => 500);
    ok(is_down($t, 'two', 'status 500'), 'both of two fail');
    $mock->reset;
    ok(is_well($t, $_), "$_ is well again") for qw(one two);

    no_alerts($t, name => 'addresses: no alerts');
}


# --- TLS ---

{
    my ($cert, $key) = make_cert("$dir");
    my ($alien) = make_cert("$dir", 'alien.test');

    my $tls = start_mock(args => ['-p', 0, '-s', 0, '-c', $cert, '-k', $key],
                         wait_tls => 1);
    my $port = $tls->tls_port;
    my $health = 'health interval=200ms; timeout connect=300ms;';

    my $t = health_nginx({
        good => "endpoint https://localhost:$port/v1; tls ca=$cert; $health",
        lax => "endpoint https://localhost:$port/v1; tls verify=off; $health",
        addr => "endpoint https://127.0.0.1:$port/v1; "
                . "tls ca=$cert name=localhost; $health",
        system => "endpoint https://localhost:$port/v1; $health",
        other => "endpoint https://localhost:$port/v1; tls ca=$alien; $health",
        name => "endpoint https://localhost:$port/v1; "
                . "tls ca=$cert name=wrong.test; $health",
        plain => "endpoint https://127.0.0.1:%%A%%/v1; $health",
        mute => "endpoint https://127.0.0.1:%%MUTE%%/v1; $health",
    });

    ok(is_down($t, 'system', 'self.signed certificate, '), 'not trusted');
    ok(is_down($t, 'other', 'self.signed certificate, '), 'another authority');
    ok(is_down($t, 'name', 'its certificate is for another name, '),
       'another name');
    ok(is_down($t, 'plain', '(?:TLS handshake failed|no TLS in time), '),
       'no TLS at all');
    ok(is_down($t, 'mute', 'no TLS in time, '), 'no handshake');
    nap(0.5);
    unlike($t->error_log, qr/"(?:good|lax|addr)" is down/, 'others are well');

    my $r = ask(h1($t->port), 'chat', prefix => '/good');
    is($r->status, 200, 'TLS: called');
    is_error(ask(h1($t->port), 'chat', prefix => '/name'), 'chat', 503,
             'TLS: not called');
    unlike($t->error_log, qr/\[(?:error|crit)\]/, 'TLS: nothing else is logged');

    # the server is started anew

    my $stats = $tls->stats;
    cmp_ok($stats->{tls_handshakes}, '>=', 6, 'handshakes');
    is($stats->{tls_resumed}, 0, 'no old session');

    no_alerts($t, name => 'TLS: no alerts');
}


# --- quit and reload with a check in the air ---

for my $what (qw(answer TLS)) {
    for my $signal (qw(QUIT TERM HUP)) {
        my $endpoint = $what eq 'TLS'
            ? 'https://127.0.0.1:%%MUTE%%' : 'http://127.0.0.1:%%MUTE%%';

        my $t = health_nginx({
            a => "endpoint $endpoint; health interval=1h; "
                 . 'timeout connect=1m;',
        }, workers => 2);

        my $s = $mute->accept;
        ok($s && $s->sysread(my $head, 1), "$signal, $what: a check hangs");

        my $start = now();

        if ($signal eq 'HUP') {
            ok($t->reload(old_gone => 1), "$signal, $what: old workers end");
            ok(my $next = $mute->accept, "$signal, $what: a new check");

        } else {
            ok($t->stop(signal => $signal), "$signal, $what: it ends");
        }

        cmp_ok(now() - $start, '<', 2.5, "$signal, $what: promptly");
        no_alerts($t, name => "$signal, $what: no alerts");
    }
}

{
    # the worker that quits has a stream still, and gives the check up at once

    $mock->reset;
    my $t = health_nginx({
        a => 'endpoint http://127.0.0.1:%%MUTE%%; health interval=1h;',
        b => $B,
    });
    my $hanging = $mute->accept;
    my $c = h1($t->port);
    start_ask($c, 'chat', prefix => '/b', stream => 1,
              mock => { events => 20, gap => '100ms' });
    my $r = $c->read_head;
    $t->signal('QUIT');
    $hanging->sysread(my $buf, 65536);
    is($hanging->sysread($buf, 65536), 0, 'its connection is closed');
    $c->read_body($r);
    is_whole($r, 'chat', 'the stream goes on meanwhile');
    no_alerts($t, name => 'a stream at quit: no alerts');
}


# --- reload ---

{
    $mock->reset;
    $mock->set(port => $mock->port(0), status => 500);

    my %a = (a => "$A health interval=1h;");
    my $t = health_nginx(\%a, workers => 2);
    ok(is_down($t, 'a', 'status 500'), 'down, for an hour');

    for my $round (1 .. 3) {
        my $mark = $t->log_mark;
        my $checks = seen('GET', 0);
        ok($t->reload, 'reload');
        is(ask(h1($t->port), 'chat', prefix => '/a')->status, 503,
           'the state is kept');
        ok(waits(0, $checks + 1), 'and looked at');
        nap(1.2) if $round == 3;
        is(scalar(seen('GET', 0)), $checks + 1, 'once');
        unlike($t->log_since($mark), qr/is down/, 'this is no news');
    }

    my %conf = health_conf(a => $A);
    ok($t->reload(http => gateway_conf(%conf)), 'health off');
    my $r = ask(h1($t->port), 'chat', prefix => '/a', test => 'off');
    like(log_of($t, 'off')->{upstream_status}, qr/^500/,
         'off: it is called');

    $mock->reset;
    my $mark = $t->log_mark;
    %conf = health_conf(%a);
    ok($t->reload(http => gateway_conf(%conf)), 'health on');
    ok(is_well($t, 'a', $mark), 'on: it is looked at soon');
    is(ask(h1($t->port), 'chat', prefix => '/a')->status, 200, 'and called');
    is(scalar(seen('GET', 0)), 1, 'one check');

    no_alerts($t, name => 'reload: no alerts');
}


# --- kill ---

{
    $mock->reset;
    $mock->set(port => $mock->port(0), fault => 'hang');

    my $t = health_nginx({
        a => "$A health interval=300ms; timeout connect=200ms;",
    }, workers => 2);

    ok(waits(0, 2), 'checks hang');

    # one of them has one in the air, and dies with it

    for my $pid ($t->workers) {
        $t->kill_worker(pid => $pid);
        my $checks = seen('GET', 0);
        ok(waits(0, $checks + 2), 'a worker is killed: checks go on');
    }

    $mock->reset;
    ok(is_well($t, 'a'), 'and count');
    no_alerts($t, name => 'kill: no alerts',
              allow => [qr/exited on signal 9/]);
}


# --- one process ---

{
    $mock->reset;
    my $t = health_nginx({ a => "$A health interval=200ms;",
                           b => 'endpoint http://127.0.0.1:%%MUTE%%; '
                                . 'health interval=1h;' },
                         master => 0);
    ok(waits(0, 2), 'a single process: checks');
    $mock->set(port => $mock->port(0), status => 500);
    ok(is_down($t, 'a', 'status 500'), 'a single process: down');
    no_alerts($t, name => 'a single process: no alerts');
}


$mock->stop;

done_testing();
