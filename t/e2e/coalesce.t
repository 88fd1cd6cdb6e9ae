# Identical calls in the air: who joins, in which worker, what each is shown;
# who leaves, what fails, who dies.  Clients are processes of one script, so
# that many of them read at once.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use lib 't/lib', 't/e2e';
use LLM::E2E;
use Gateway;
use Coalescing;

skip_without_module();

my %slow = (gap => '30ms', events => 12, first => '300ms');


# --- one, two and four workers ---

for my $workers (1, 2, 4) {
    my ($t, $mock) = server(workers => $workers);
    my $name = "$workers workers";

    my $before = calls($mock);
    my $q = question();
    my @c = map { client($t, question => $q, stream => 1, mock => {%slow},
                         after => $_ * 0.008, test => "s$_") } 0 .. 59;
    run_clients(15, \@c);
    is_one_call($mock, $before, "$name, streams", @c);
    cmp_ok(scalar(keys %{ pids(@c) }), '>=', $workers > 1 ? 2 : 1,
           "$name: in several of them") if $workers > 1;
    like($c[0]{body}, qr/\[DONE\]\n\n\z/, "$name: with its last event");

    $before = calls($mock);
    $q = question();
    @c = map { client($t, question => $q, mock => { delay => '500ms' },
                      after => $_ * 0.004) } 0 .. 59;
    run_clients(15, \@c);
    is_one_call($mock, $before, "$name, plain", @c);

    # plain ones that join a stream

    $before = calls($mock);
    $q = question();
    @c = (client($t, question => $q, stream => 1, mock => {%slow}),
          map { client($t, question => $q, mock => {%slow},
                       after => 0.1 + $_ * 0.01) } 0 .. 9);
    run_clients(15, \@c);
    is(calls($mock) - $before, 1, "$name, plain of a stream: one call");
    shift @c;
    is(bodies(@c), 1, "$name, plain of a stream: all alike");
    is(joined(@c), 10, "$name, plain of a stream: joined");
    is(eval { json_decode($c[0]{body})->{object} } // '', 'chat.completion',
       "$name, plain of a stream: an answer");

    # the one that leads leaves

    for my $stream (1, 0) {
        $before = calls($mock);
        $q = question();
        my %mock = $stream ? %slow : (delay => '600ms');
        @c = (client($t, question => $q, stream => $stream, mock => {%mock},
                     leave => 0.35),
              map { client($t, question => $q, stream => $stream,
                           mock => {%mock}, after => 0.1 + $_ * 0.01) }
                  0 .. 9);
        run_clients(15, \@c);
        shift @c;
        is(calls($mock) - $before, 1, "$name, leader leaves: one call");
        is(scalar(grep { $_->{status} != 200 || !$_->{whole} } @c), 0,
           "$name, leader leaves: all are whole");
        is(bodies(@c), 1, "$name, leader leaves: all alike");
    }

    # ... and its attempt fails: the others go on

    $before = calls($mock);
    $q = question();
    @c = (client($t, question => $q, stream => 1, leave => 0.2,
                 mock => { status => 400, delay => '500ms' }),
          map { client($t, question => $q, stream => 1,
                       mock => { status => 400, delay => '500ms' },
                       after => 0.05 + $_ * 0.01) } 0 .. 5);
    run_clients(15, \@c);
    shift @c;
    is(calls($mock) - $before, 1, "$name, refused: one call");
    is(join(' ', map { $_->{status} } @c), join(' ', (400) x 6),
       "$name, refused: all are told");
    is(bodies(@c), 1, "$name, refused: in the same words");

    # the last one leaves

    $q = question();
    @c = map { client($t, question => $q, stream => 1,
                      mock => { gap => '50ms', events => 400 },
                      after => $_ * 0.05, leave => 0.5) } 0 .. 3;
    my $aborts = $mock->stats->{aborted};
    run_clients(5, \@c);
    is($mock->wait_stat(aborted => $aborts + 1, 1)->{aborted}, $aborts + 1,
       "$name, all have left: the provider's connection is closed");
    is_empty($t, "$name, all have left");

    # broken after content: everybody is told

    $q = question();
    @c = map { client($t, question => $q, stream => 1, after => $_ * 0.01,
                      mock => { events => 10, gap => '40ms', first => '200ms',
                                fault => 'cut', at => 5 }) } 0 .. 7;
    run_clients(10, \@c);
    is(scalar(grep { $_->{hung} } @c), 0, "$name, broken: nobody hangs");
    is(scalar(grep { $_->{body} =~ /\[DONE\]/ } @c), 0,
       "$name, broken: nobody is told that it is whole");

    is_empty($t, $name);
    no_alerts($t);
    $mock->stop;
}


# --- who is left apart ---

{
    my ($t, $mock) = server(workers => 1);

    for my $case (
        ['temperature', more => { temperature => 1 }],
        ['store', more => { store => \1 }],
        ['no-cache', headers => [authorization => 'Bearer a',
                                 'cache-control' => 'no-cache']],
        ['no-store', headers => [authorization => 'Bearer a',
                                 'cache-control' => 'no-store']],
        ['no credential', headers => []],
    ) {
        my ($name, %o) = @$case;
        my $before = calls($mock);
        my $q = question();
        my @c = map { client($t, question => $q, stream => 1, %o,
                             mock => { first => '300ms', events => 3 },
                             after => $_ * 0.02) } 0 .. 2;
        run_clients(10, \@c);
        is(calls($mock) - $before, 3, "$name: each makes its own call");
        is(joined(@c), 0, "$name: none has joined");
    }

    my $before = calls($mock);
    my $q = question();
    my @c = map { client($t, question => $q, stream => 1,
                         headers => [authorization => "Bearer $_"],
                         mock => { first => '300ms', events => 3 }) } qw(a b);
    run_clients(10, \@c);
    is(calls($mock) - $before, 2, 'two keys: two calls');

    # the log names the flight

    $q = question();
    @c = map { client($t, question => $q, stream => 1, test => "flight $_",
                      mock => { first => '300ms', events => 3 },
                      after => $_ * 0.02) } 0 .. 2;
    run_clients(10, \@c);
    my @log = map { log_of($t, "flight $_") } 0 .. 2;
    like($log[0]{flight}, qr/^[0-9a-f]{32}$/, 'the flight has a name');
    is(join(' ', map { $_->{flight} } @log), join(' ', ($log[0]{flight}) x 3),
       'the same for all');
    is(join(' ', map { $_->{cache} } @log), 'OFF COALESCED COALESCED',
       'the log says who has joined');
    is(join(' ', map { $_->{attempts} } @log), '1 0 0', 'and who made the call');
    cmp_ok($log[0]{cost}, '>', 0, 'which has a cost');
    is($log[1]{cost} + 0, 0, 'once');
    is($log[1]{cost_saved}, $log[0]{cost}, 'the others have saved it');
    is($log[1]{completion_tokens}, $log[0]{completion_tokens},
       'tokens are known to all');

    no_alerts($t);
    $mock->stop;
}


# --- with the cache: also just after ---

{
    my ($t, $mock) = server(workers => 4, cache => 'on',
                            http => 'llm_adapter_cache_path %%DIR%%/cache size=16m;');

    for my $round (1 .. 3) {
        my $before = calls($mock);
        my $q = question();
        my @c = map { client($t, question => $q, stream => $_ % 3 ? 1 : 0,
                             mock => { gap => '20ms', events => 10 },
                             after => ($_ ? 0.02 : 0) + $_ * 0.005,
                             ($_ ? () : (stream => 1))) } 0 .. 99;
        run_clients(15, \@c);
        is(calls($mock) - $before, 1, "cache, round $round: one call");
        is(scalar(grep { $_->{status} != 200 || !$_->{whole} } @c), 0,
           "cache, round $round: all whole");
        my %got;
        $got{ cache_of($_) }++ for @c;
        is($got{MISS}, 1, "cache, round $round: one MISS");
        is(($got{COALESCED} // 0) + ($got{HIT} // 0), 99,
           "cache, round $round: the others joined or hit")
            or diag explain \%got;
    }

    is_empty($t, 'cache');
    no_alerts($t);
    $mock->stop;
}


# --- a worker is killed ---

{
    my ($t, $mock) = server(workers => 4);

    # shown: told in-band

    my $q = question();
    my @c = map { client($t, question => $q, stream => 1, after => $_ * 0.02,
                         mock => { gap => '50ms', events => 60 }) } 0 .. 23;
    my $leader;
    my $at = time + 1.2;
    my $killed;
    run_clients(15, \@c, sub {
        return if $killed || time < $at;
        for my $c (@c) {
            next if $c->{data} !~ /X-LLM-Cache: OFF/i;
            ($leader) = $c->{data} =~ /X-Pid: (\d+)/i;
        }
        return if !$leader;
        kill 'KILL', $leader;
        $killed = time;
    });
    my @others = grep { ($_->{head}{'x-pid'} // 0) != $leader } @c;
    cmp_ok(scalar(@others), '>', 0, 'killed: some are in other workers');
    is(scalar(grep { $_->{hung} } @c), 0, 'killed: nobody hangs');
    is(scalar(grep { $_->{body} !~ /worker_lost/ || $_->{body} =~ /DONE/ }
              @others), 0, 'killed: they are told');
    is(scalar(grep { $_->{ended} - $killed > 2 } @others), 0,
       'killed: within two seconds');

    # nothing shown: asked again, once

    wait_for(sub { scalar($t->workers) == 4 }, 5);
    my $before = calls($mock);
    $q = question();
    @c = map { client($t, question => $q, stream => 1, after => $_ * 0.01,
                      test => "lost $_",
                      mock => { first => '1500ms', events => 4 }) } 0 .. 23;
    $at = time + 0.8;
    undef $killed;
    run_clients(15, \@c, sub {
        return if $killed || time < $at;
        my ($peer) = leader_of($mock->port, $t->workers);
        return if !$peer;
        kill 'KILL', $peer;
        $killed = time;
    });
    @others = grep { $_->{status} == 200 } @c;
    is(scalar(grep { $_->{hung} } @c), 0, 'lost: nobody hangs');
    cmp_ok(scalar(@others), '>', 0, 'lost: some were in other workers');
    is(calls($mock) - $before, 2, 'lost: one more call, not one for each');
    is(bodies(@others), 1, 'lost: all alike');
    is(scalar(grep { !$_->{whole} } @others), 0, 'lost: and whole');

    is_empty($t, 'killed');
    no_alerts($t, allow => [qr/exited on signal 9/]);
    $mock->stop;
}


# --- reload: old flights end, new requests begin new ones ---

{
    my ($t, $mock) = server(workers => 2);
    my $before = calls($mock);
    my $q = question();
    my @c = ((map { client($t, question => $q, stream => 1, after => $_ * 0.02,
                           mock => { gap => '50ms', events => 40 }) } 0 .. 7),
             (map { client($t, question => $q, stream => 1,
                           after => 1.2 + $_ * 0.02,
                           mock => { gap => '50ms', events => 40 }) } 0 .. 3));
    my $at = time + 0.6;
    my $done;
    run_clients(15, \@c, sub {
        return if $done || time < $at;
        $t->signal('HUP');
        $done = 1;
    });
    is(scalar(grep { $_->{status} != 200 || !$_->{whole} } @c), 0,
       'reload: all are whole');
    is(calls($mock) - $before, 2, 'reload: two calls');
    is(bodies(@c[0 .. 7]), 1, 'reload: the old ones alike');
    is(bodies(@c[8 .. 11]), 1, 'reload: the new ones alike');
    is_empty($t, 'reload');
    no_alerts($t);
    $mock->stop;
}

done_testing();
