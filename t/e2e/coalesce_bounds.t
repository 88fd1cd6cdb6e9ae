# Coalescing has bounds: a slow reader harms nobody else, one that reads alone
# is waited for, and a zone without room costs calls, but no answer.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use lib 't/lib', 't/e2e';
use LLM::E2E;
use Gateway;
use Coalescing;

skip_without_module();


# --- a slow reader beside fast ones, in one worker and in two ---

for my $workers (1, 2) {
    my ($t, $mock) = server(workers => $workers,
                            extra => 'llm_adapter_max_response 64k;');
    my %mock = (events => 400, size => 20000, gap => '5ms', first => '400ms');
    my $q = question();
    my $begin = time;
    my @c = (client($t, question => $q, stream => 1, mock => {%mock}),
             client($t, question => $q, stream => 1, mock => {%mock},
                    after => 0.05, pause => 8),
             client($t, question => $q, stream => 1, mock => {%mock},
                    after => 0.05));
    run_clients(30, \@c);

    is(scalar(grep { $_->{hung} } @c), 0, "$workers workers: nobody hangs");
    ok($c[$_]{whole}, "$workers workers: fast reader $_ has all of it")
        for 0, 2;
    ok($c[0]{body} eq $c[2]{body}, "$workers workers: the same")
        or diag map { cache_of($c[$_]) . ' ' . length($c[$_]{body}) . ' '
                      . substr($c[$_]{body}, -150) . "\n" } 0 .. 2;
    cmp_ok($c[0]{ended} - $begin, '<', 7,
           "$workers workers: it did not wait for the slow one");

    if (cache_of($c[1]) eq 'COALESCED' && $workers == 1) {
        ok($c[1]{body} !~ /\[DONE\]/, 'the slow one has not all of it');
        like($c[1]{body}, qr/reader_too_slow/, 'and is told so');
        is(status_of($t)->{slow}, 1, 'it was counted');
    }

    is_empty($t, "$workers workers");
    no_alerts($t);
    $mock->stop;
}


# --- one that reads alone ---

{
    my ($t, $mock) = server(workers => 1,
                            extra => 'llm_adapter_max_response 64k;');
    my @c = (client($t, question => question(), stream => 1, pause => 2,
                    mock => { events => 400, size => 20000 }));
    run_clients(30, \@c);
    ok($c[0]{whole} && $c[0]{body} =~ /\[DONE\]\n\n\z/,
       'a slow reader that is alone gets all of it');
    is(status_of($t)->{slow}, 0, 'nobody was given up');
    is_empty($t, 'alone');
    no_alerts($t);
    $mock->stop;
}


# --- events that are larger than what is held ---

{
    my ($t, $mock) = server(workers => 4,
                            extra => 'llm_adapter_max_response 64k;');
    my $q = question();
    my @c = map { client($t, question => $q, stream => 1, after => $_ * 0.01,
                         mock => { events => 4, first => '300ms', gap => '100ms',
                                   'big-event' => 300000 }) } 0 .. 11;
    run_clients(20, \@c);
    is(calls($mock), 1, 'a large event: one call');
    is(scalar(grep { !$_->{whole} } @c), 0, 'a large event: all whole');
    is(bodies(@c), 1, 'a large event: all alike');

    $q = question();
    @c = map { client($t, question => $q, after => $_ * 0.01,
                      mock => { total => 400000, delay => '300ms',
                                rate => 1000000 }) } 0 .. 11;
    run_clients(20, \@c);
    is(calls($mock), 2, 'a large plain answer: one call');
    is(scalar(grep { !$_->{whole} } @c), 0, 'a large plain answer: all whole');
    is(bodies(@c), 1, 'a large plain answer: all alike');
    is_empty($t, 'large');
    no_alerts($t);
    $mock->stop;
}


# --- no room in the zone ---

{
    my ($t, $mock) = server(workers => 4, http => 'llm_adapter_zone llm:256k;');
    my $links = status_of($t)->{links};
    my @c;

    for my $k (1 .. 40) {
        my $q = question();
        push @c, map { client($t, question => $q, stream => 1,
                              after => $_ * 0.2 + $k * 0.004,
                              mock => { first => '1500ms', events => 3 }) }
                 0 .. 2;
    }

    run_clients(20, \@c);
    my $st = status_of($t);
    cmp_ok($links, '<', 40, 'there are few links');
    is(scalar(grep { $_->{status} != 200 || !$_->{whole} } @c), 0,
       'no room: all are answered');
    cmp_ok($st->{full}, '>', 0, 'no room: it was counted');
    is(calls($mock), @c - joined(@c), 'no room: who has not joined has asked');
    is(scalar(() = $t->error_log =~ /has no room/g), 1, 'no room: one line');
    is_empty($t, 'no room');
    no_alerts($t);
    $mock->stop;
}

done_testing();
