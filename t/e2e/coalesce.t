# Identical calls in the air: who joins, in which worker, what each is shown;
# who leaves, what fails, who dies.  Clients are processes of one script, so
# that many of them read at once.

use strict;
use warnings;

use Test::More;
use IO::Select ();
use IO::Socket::INET ();
use Time::HiRes qw(time sleep);

use lib 't/lib', 't/e2e';
use LLM::E2E;
use Gateway;

skip_without_module();

my $n = 0;


# --- clients: sockets that are read together ---

# { question, stream, mock => {...}, headers => [...], after => s, leave => s }

sub client {
    my ($t, %o) = @_;

    return { %o, begin => time + ($o{after} // 0), port => $t->port,
             data => '', state => 'new' };
}


sub open_client {
    my ($c) = @_;

    my $body = json_encode({ model => $c->{model} // 'gpt-4o',
                             messages => [{ role => 'user',
                                            content => $c->{question} }],
                             ($c->{stream} ? (stream => \1) : ()),
                             %{ $c->{more} // {} } });
    my $head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
               . "Connection: close\r\nContent-Type: application/json\r\n"
               . 'X-Test: ' . ($c->{test} // '-') . "\r\n";

    my %mock = %{ $c->{mock} // {} };
    $head .= "X-Mock-$_: $mock{$_}\r\n" for sort keys %mock;

    my @headers = @{ $c->{headers} // [authorization => 'Bearer sk-a'] };

    while (my ($name, $value) = splice @headers, 0, 2) {
        $head .= "$name: $value\r\n";
    }

    $head .= 'Content-Length: ' . length($body) . "\r\n\r\n";

    $c->{sock} = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                       PeerPort => $c->{port})
        or die "connect: $!";
    syswrite $c->{sock}, $head . $body;
    $c->{state} = 'open';
}


# Runs them all; at most so many seconds.  on => a function called between.

sub run_clients {
    my ($limit, $list, $on) = @_;

    my $end = time + $limit;
    my $select = IO::Select->new;
    my %by;

    while (time < $end && grep { $_->{state} ne 'done' } @$list) {

        for my $c (@$list) {
            if ($c->{state} eq 'new' && time >= $c->{begin}) {
                open_client($c);
                $by{ $c->{sock} } = $c;
                $select->add($c->{sock});
            }

            if ($c->{state} eq 'open' && $c->{leave}
                && time >= $c->{begin} + $c->{leave})
            {
                $select->remove($c->{sock});
                close $c->{sock};
                $c->{state} = 'done';
                $c->{left} = 1;
            }
        }

        $on->() if $on;

        for my $sock ($select->can_read(0.005)) {
            my $c = $by{$sock};
            my $got = sysread $sock, $c->{data}, 262144, length $c->{data};

            if (!$got) {
                $select->remove($sock);
                close $sock;
                $c->{state} = 'done';
                $c->{ended} = time;
            }
        }
    }

    for my $c (@$list) {
        $c->{hung} = 1 if $c->{state} ne 'done';
        my ($head, $rest) = split /\r\n\r\n/, $c->{data}, 2;
        $c->{status} = ($head // '') =~ m{^HTTP/1.1 (\d+)} ? $1 : 0;
        $c->{head} = { map { lc($_->[0]) => $_->[1] }
                       map { [split /:\s*/, $_, 2] }
                       grep { /:/ } split /\r\n/, $head // '' };
        $c->{body} = $rest // '';

        if (($c->{head}{'transfer-encoding'} // '') eq 'chunked') {
            my ($raw, $out) = ($c->{body}, '');
            $c->{whole} = 0;

            while ($raw =~ s/^([0-9a-f]+)\r\n//i) {
                my $size = hex $1;

                if ($size == 0) {
                    $c->{whole} = 1;
                    last;
                }

                $out .= substr $raw, 0, $size, '';
                $raw =~ s/^\r\n//;
            }

            $c->{body} = $out;

        } else {
            $c->{whole} = length $c->{body}
                          == ($c->{head}{'content-length'} // -1);
        }
    }
}


sub question { return "coalesce $$ " . ++$n }

sub calls { return $_[0]->stats->{requests} }

sub cache_of { return $_[0]{head}{'x-llm-cache'} // '(none)' }

sub joined { return scalar grep { cache_of($_) eq 'COALESCED' } @_ }

sub bodies { my %b; $b{ $_->{body} }++ for @_; return scalar keys %b }

sub pids { my %p; $p{ $_->{head}{'x-pid'} // 0 }++ for @_; return \%p }


# All have the same whole answer, of one call.

sub is_one_call {
    my ($mock, $before, $name, @c) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is(calls($mock) - $before, 1, "$name: one call");
    is(scalar(grep { $_->{hung} } @c), 0, "$name: nobody hangs");
    is(scalar(grep { $_->{status} != 200 || !$_->{whole} } @c), 0,
       "$name: all are answered, whole");
    is(bodies(@c), 1, "$name: all alike");
    is(joined(@c), @c - 1, "$name: one leads, the others have joined");
    is(scalar(grep { cache_of($_) eq 'COALESCED'
                     && ($_->{head}{'x-llm-attempts'} // '') ne '0' } @c), 0,
       "$name: without an attempt");
}


sub status_of {
    my ($t) = @_;
    return http_get($t->port, '/llm')->json->{coalesce};
}


sub is_empty {
    my ($t, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $st;
    wait_for(sub {
        $st = status_of($t);
        return $st->{flights} == 0 && $st->{linked} == 0;
    }, 4);
    is("$st->{flights} $st->{linked}", '0 0', "$name: nothing is left in the zone");
}


sub server {
    my (%o) = @_;

    my $cache = delete $o{cache} // 'off';
    my $extra = delete $o{extra} // '';
    my $http = delete $o{http} // '';

    return gateway(
        fields => [qw(cache flight cost_saved)],
        http => $http,
        provider => 'model gpt-4o input=1000 output=2000;',
        server => "llm_adapter_coalesce on; llm_adapter_cache $cache; "
                  . 'add_header X-Pid $pid always; '
                  . 'location = /llm { llm_adapter_status; } ' . $extra,
        %o);
}


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


# The worker that has a connection to the provider on which something moves:
# by /proc, since the tests have no other means.

sub leader_of {
    my ($port, @pids) = @_;

    my %inode;
    my $hex = sprintf ':%04X', $port;

    for my $line (split /\n/, slurp('/proc/net/tcp')) {
        my @f = split ' ', $line;
        $inode{ $f[9] } = 1 if ($f[2] // '') =~ /$hex$/ && $f[3] eq '01';
    }

    my @found;

    for my $pid (@pids) {
        for my $fd (glob "/proc/$pid/fd/*") {
            my $link = readlink $fd;
            push @found, $pid
                if $link && $link =~ /socket:\[(\d+)\]/ && $inode{$1};
        }
    }

    return @found ? ($found[0]) : ();
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
