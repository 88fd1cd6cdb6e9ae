#!/usr/bin/perl

# The circuit breaker: what opens it, who finds out that a provider is well
# again, and that all workers know the same.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time, needs two workers');

# NAME => arguments of breaker; each has the models NAME (alone) and NAME-b
# (with another one behind it)

my %BREAKER = (
    (map { ("opens$_" => 'failures=3 window=10s open=60s') } 0 .. 9),
    (map { ("probe$_" => 'failures=2 window=10s open=1s') } 0 .. 9),
    share => 'failures=3 window=30s open=60s',
    window => 'failures=3 window=400ms open=60s',
    (map { ("well$_" => 'failures=2 window=30s open=60s') } 0 .. 5),
    flaps => 'failures=3 window=10s open=500ms',
    reload => 'failures=3 window=60s open=60s',
    many => 'failures=2 window=10s open=1s',
    soon => 'failures=2 window=10s open=5s',
    killed => 'failures=2 window=10s open=1s',
    never => 'off',
);

my $conf = '';

for my $name (sort keys %BREAKER) {
    $conf .= Targets::provider($name, 'A', "breaker $BREAKER{$name}; "
                               . 'timeout first_token=300ms idle=300ms '
                               . 'plain=300ms;')
        . "    llm_adapter_model $name $name:m-a x$name:m-a;\n"
        . "    llm_adapter_model $name-b $name:m-a x$name:m-a b:m-b xb:m-b;\n";
}

$conf .= "    llm_adapter_model both many:m-a soon:m-a;\n";

my $g = Targets->new(
    http => $conf, retry => 'attempts=1', connections => 4096,
    location => 'llm_adapter_retry attempts=1;',
    locations => {
        '/next/v1/' => 'llm_adapter_retry attempts=2 backoff=1ms..2ms '
                       . 'budget=1000%;',
        '/patient/v1/' => 'llm_adapter_timeout first_token=60s plain=60s;',
    },
    server => 'location /state/opens0 { return 200 $llm_breaker_opens0; }'
              . 'location /state/none { return 200 "[$llm_breaker_nobody]"; }'
);

my $t = $g->{t};


# Asks n times, each on a connection of its own: "500 500 503".

sub statuses {
    my ($n, $kind, %o) = @_;
    return join ' ', map { $g->try($kind, %o)->{r}->status } 1 .. $n;
}

sub state_of {
    my ($name, $kind) = @_;
    my $log = $g->try($kind // 'chat', model => "$name-b",
                      more => '"n":"look"')->{log};
    return $log->{breaker} =~ /\b\Q$name\E=([\w-]+)/ ? $1 : '';
}

# opens the breaker of a provider

sub open_it {
    my ($name, %o) = @_;

    $g->set(a => { status => 500 });
    my ($n) = $BREAKER{$name} =~ /failures=(\d+)/;
    is(statuses($n, 'chat', model => $name, %o), join(' ', (500) x $n),
       "$name: fails");
    $g->set;
}


# --- it opens after so many failures, for all workers

my $i = 0;

for my $case (['chat', 0, { status => 500 }, 500, 'a 500'],
              ['chat', 1, { status => 503, limits => 'off' }, 503, 'a 503'],
              ['messages', 1, { status => 529 }, 529, 'a 529'],
              ['messages', 0, { fault => 'hang' }, 504, 'silent'],
              ['chat', 1, { fault => 'hang' }, 504, 'silent'],
              ['embeddings', 0, { fault => 'error200' }, 500, 'in a 200'],
              ['responses', 1, { fault => 'cut' }, 200, 'cut in the middle'],
              ['chat', 1, { fault => 'stall' }, 200, 'stalled'],
              ['messages', 1, { fault => 'error_event' }, 200,
               'error in the middle'],
              ['chat', 1, { fault => 'error_event' }, 200,
               'error in the middle'])
{
    my ($kind, $stream, $how, $status, $what) = @$case;
    my $name = "opens" . $i++;
    my $test = "$kind, " . ($stream ? 'stream' : 'plain') . ", $what";
    my $x = $kind eq 'messages' ? 'x' : '';
    my @ask = ($kind, model => $name, stream => $stream);

    $g->set(a => $how);
    is(statuses(2, @ask), "$status $status", "$test: fails");
    $g->set;
    is_outcome($g->try(@ask), { attempts => 1, calls => '1 0' },
               "$test: twice opens nothing");
    $g->set(a => $how);
    is(statuses(7, @ask), join(' ', $status, (503) x 6),
       "$test: open after the third");
    is($g->calls, '1 0', "$test: no calls then");

    my $got = $g->try(@ask);
    is_outcome($got, { status => 503, log_attempts => 0, calls => '1 0',
                       code => 'breaker_open', log_error => 'breaker_open' },
               "$test: nobody else");
    like($got->{log}{breaker}, qr/\b$x$name=open\b/, "$test: \$llm_breaker");

    my $after = $got->{r}->header('retry-after') // 0;
    ok($after >= 45 && $after <= 60, "$test: Retry-After, $after");
    my $ms = $got->{r}->header('retry-after-ms') // 0;
    ok($ms > 45000 && $ms <= 60000, "$test: retry-after-ms, $ms")
        if $ms || $after < 60;

    is_outcome($g->try($kind, model => "$name-b", stream => $stream),
               { provider => "${x}b", attempts => 1, calls => '1 1' },
               "$test: another one");
}

like($t->error_log, qr/\[warn\].*"opens0" .* breaker open for 60000ms/,
     'it is in the error log');
is(http_get($t->port, '/state/opens0')->body, 'open', '$llm_breaker_NAME');
is(http_get($t->port, '/state/none')->body, '[]', '... of nobody');


# --- what is no failure of the provider's

my @WELL = (
    ['a 400', 'chat', { status => 400 }, 400],
    ['content policy', 'chat', { status => 400,
                                 code => 'content_policy_violation' }, 400],
    ['a 429', 'chat', { status => 429 }, 429],
    ['a 413', 'messages', { status => 413 }, 413],
    ['a malformed event', 'chat', { fault => 'malformed' }, 200],
    ['no terminal event', 'messages', { fault => 'no_done' }, 200],
);

for my $n (0 .. $#WELL) {
    my ($what, $kind, $how, $status) = @{ $WELL[$n] };
    $g->set(a => $how);
    is(statuses(6, $kind, model => "well$n", stream => 1),
       join(' ', ($status) x 6), "$what: not a failure");
    is($g->calls, '6 0', "$what: all are asked");
}

{
    # nor a client that goes away

    for my $n (1 .. 4) {
        $g->set(a => { delay => '30s' });
        my $client = h1($g->port);
        start_ask($client, 'chat', model => 'well0', prefix => '/patient');
        $g->{a}->wait_stat('requests', 1, 5);
        $client->abort('rst');
        is($g->{a}->wait_stat('aborted', 1, 3)->{aborted}, 1, "abort $n");
    }

    $g->set;
    is_outcome($g->try('chat', model => 'well0'), { calls => '1 0' },
               'aborts by clients: not failures');
}

$g->set(a => { status => 500 });
is(statuses(15, 'chat', model => 'never'), join(' ', (500) x 15),
   'breaker off: never opens');
is($g->calls, '15 0', 'breaker off: all are asked');


# --- few among many, and failures that are long ago

$g->set;
is(statuses(34, 'chat', model => 'share'), join(' ', (200) x 34), 'many');
$g->set(a => { status => 500 });
is(statuses(3, 'chat', model => 'share'), '500 500 500', '... and three');
$g->set;
is(state_of('share'), 'closed', 'less than a tenth opens nothing');
$g->set(a => { status => 500 });
is(statuses(3, 'chat', model => 'share'), '500 503 503', 'but more do');

$g->set(a => { status => 500 });
is(statuses(2, 'chat', model => 'window'), '500 500', 'two failures');
nap(0.7);
is(statuses(1, 'chat', model => 'window'), '500', '... and one later');
is(statuses(4, 'chat', model => 'window'), '500 500 503 503',
   '... do not open it, but three at once do');


# --- half-open: one call finds out, whoever is asked elsewhere

for my $case (['probe0', 'chat', 0], ['probe1', 'chat', 1]) {
    my ($name, $kind, $stream) = @$case;

    open_it($name);
    is(statuses(2, $kind, model => $name), '503 503', "$name: open");
    nap(1.1);
    $g->set(a => { delay => 250 });
    my @clients = map { h1($g->port) } 1 .. 30;
    start_ask($_, $kind, model => "$name-b", stream => $stream)
        for @clients;

    my %n;

    for my $client (@clients) {
        my $r = $client->read_response;
        $n{ $r->status . ' ' . ($r->header('x-llm-model') // '') }++;
        $client->close;
    }

    is_deeply(\%n, { '200 m-a' => 1, '200 m-b' => 29 },
              "$name: one probe, the others go elsewhere")
        or diag(explain(\%n));
    is($g->calls, '1 29', "$name: so the providers say");

    $g->set;
    is(statuses(6, $kind, model => $name), join(' ', (200) x 6),
       "$name: closed then");
    is($g->calls, '6 0', "$name: all are asked");
}

like($t->error_log, qr/\[notice\].*"probe0" works again, breaker closed/,
     'that is in the error log, too');

# one that fails opens it anew, at once and for as long

for my $case (['probe2', { status => 500 }, 500],
              ['probe3', { fault => 'hang' }, 504],
              ['probe4', { status => 429, limits => 'off' }, 429],
              ['probe5', { status => 401 }, 502])
{
    my ($name, $how, $status) = @$case;

    open_it($name);
    nap(1.1);
    $g->set(a => $how);
    is(statuses(4, 'chat', model => $name), "$status 503 503 503",
       "$name: a probe that fails");
    is($g->calls, '1 0', "$name: one call");
    nap(1.1);
    $g->set;
    is(statuses(3, 'chat', model => $name), '200 200 200',
       "$name: well the next time");
}

# a refusal is an answer: the provider is well

open_it('probe6');
nap(1.1);
$g->set(a => { status => 400 });
like($g->try('chat', model => 'probe6')->{log}{breaker}, qr/\bprobe6=closed/,
     'a refusal closes it');
is(statuses(3, 'chat', model => 'probe6'), '400 400 400', '... for all');

# a probe whose client goes away: the next one may try at once

my @WAYS = (
    ['probe7', sub { h1($g->port) }, sub { $_[0]->abort('fin') }, 0],
    ['probe8', sub { h1($g->port) }, sub { $_[0]->abort('rst') }, 1],
    ['probe9', sub { h2($g->port('h2')) }, sub { $_[0]->reset($_[1], 8) }, 1],
);

for my $way (@WAYS) {
    my ($name, $connect, $leave, $stream) = @$way;

    open_it($name);
    nap(1.1);
    $g->set(a => { delay => '30s' });

    my $client = $connect->();
    my $s = start_ask($client, 'chat', model => $name, stream => $stream,
                      prefix => '/patient', test => "$name leaves");
    $g->{a}->wait_stat('requests', 1, 5);
    is(statuses(2, 'chat', model => $name), '503 503',
       "$name: a probe is on its way");
    $leave->($client, $s);
    is($g->{a}->wait_stat('aborted', 1, 3)->{aborted}, 1,
       "$name: the provider sees that its client leaves");
    is(log_of($t, "$name leaves")->{status}, 499, "$name: in the log");

    $g->set;
    is(statuses(2, 'chat', model => $name), '200 200',
       "$name: the next one is the probe");
}


# --- all are open: how long until one may be called

open_it('many');
nap(0.4);
open_it('soon');

{
    my $x = $g->try('chat', model => 'both');
    is_outcome($x, { status => 503, after => 1, calls => '0 0' },
               'the nearest of several');
    my $ms = $x->{r}->header('retry-after-ms') // 0;
    ok($ms > 0 && $ms <= 1000, "in ms, $ms");
    like($x->{log}{breaker}, qr/many=open, soon=open/, 'both are open');
}


# --- a provider that goes down and comes back, under steady traffic

{
    my ($down, $well) = (2, 1.6);
    my $client = h1($g->port);
    my $start = now();
    my (%n, @late);

    $g->set(a => { status => 500 });

    while ((my $at = now() - $start) < $down + $well) {
        if ($at >= $down && !exists $n{down}) {
            $n{down} = $g->{a}->stats->{requests};
            $g->{a}->set(status => 0);
        }

        my $r = ask($client, 'chat', model => 'flaps-b', prefix => '/next',
                    stream => $n{asked}++ % 2);
        $n{served}++ if $r->status == 200;
        push @late, $r->header('x-llm-model') // '' if $at > $down + 1.1;
        nap(0.02);
    }

    is($n{served}, $n{asked}, 'flapping: all were served');
    cmp_ok($n{asked}, '>=', 20, 'flapping: there was traffic');
    cmp_ok($n{down}, '>=', 4, 'flapping: it is probed while down');
    cmp_ok($n{down}, '<=', 3 + int($down / 0.5) + 1,
           'flapping: and not hammered');
    is_deeply([grep { $_ ne 'm-a' } @late], [], 'flapping: it is returned to');
    cmp_ok(scalar(@late), '>=', 2, 'flapping: and then serves');
}


# --- over a reload

$g->set(a => { status => 500 });
is(statuses(2, 'chat', model => 'reload'), '500 500', 'reload: two failures');
$t->reload;
is(statuses(3, 'chat', model => 'reload'), '500 503 503',
   'reload: they are counted');
$t->reload;
$g->set;
is(statuses(4, 'chat', model => 'reload'), '503 503 503 503',
   'reload: it stays open');
is($g->calls, '0 0', 'reload: nobody is asked');
is(state_of('reload'), 'open', 'reload: $llm_breaker');


# --- a worker that dies with the probe

open_it('killed');
nap(1.1);

{
    $g->set(a => { delay => '30s' });
    my $client = h1($g->port);
    start_ask($client, 'chat', model => 'killed', prefix => '/patient');
    $g->{a}->wait_stat('requests', 1, 5);

    my @workers = $t->workers;
    kill KILL => @workers;
    wait_for { my @now = $t->workers;
               @now == 2 && !grep { my $w = $_; grep { $w == $_ } @workers }
                            @now } 10;

    nap(1.1);
    $g->set;
    is(statuses(2, 'chat', model => 'killed'), '200 200',
       'killed: the next one may try after a while');
}

no_alerts($t, allow => [qr/exited on signal 9/]);
done_testing();
