#!/usr/bin/perl

# stale=: an entry whose time is over is given, though old, when every target
# fails, and not when the request itself is at fault.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();
skip_under_valgrind('measures time');

my $second = start_mock();
my $third = start_mock();
my $TIMES = 'llm_adapter_timeout first_token=300ms idle=300ms plain=300ms;';

my $provider = sub {
    my ($name, $port, $more) = @_;
    return <<"EOT";
    llm_adapter_provider $name {
        endpoint http://127.0.0.1:%%$port%%/v1;
        dialect openai;
        key sk-ours;
        $more
    }
EOT
};

my $c = Caching->new(
    workers => 2,
    cache => 'on ttl=1s stale=1h',
    mocks => [$second, $third],
    vars => { SECOND => $second->port, THIRD => $third->port },
    location => $TIMES,
    http => $provider->('a', 'MOCK', 'breaker off;')
            . $provider->('b', 'SECOND', 'breaker off;')
            . $provider->('c', 'THIRD', 'breaker failures=2 window=30s '
                                        . 'open=30s;'),
    locations => {
        '/two/v1/' => "llm_adapter a b; $TIMES llm_adapter_retry attempts=3 "
                      . 'backoff=10ms..50ms budget=1000%;',
        '/breaker/v1/' => 'llm_adapter c;',
        '/never/v1/' => 'llm_adapter_cache on ttl=1s stale=0;',
        '/little/v1/' => 'llm_adapter_cache on ttl=1s stale=1s;',
        '/gone/v1/' => 'llm_adapter b;',
    });
my ($t, $mock) = @$c{qw(t mock)};


# All entries are made first, so that one wait is enough for their time.

my %FORM = (chat => [0, 1], messages => [0, 1], responses => [0, 1],
            completions => [0, 1], embeddings => [0]);
my %count;

sub stored {
    my ($kind, $stream, %ask) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my %all = (say => Caching::question(), stream => $stream, %ask);
    my $x = $c->try($kind, %all);
    is_cache($x, 'MISS', "$kind, entry " . ++$count{$kind});

    return { x => $x, kind => $kind, ask => \%all };
}


# name, what the provider does, and whether it is hidden: STALE, or the status
# that is shown

my @FAILURES = (
    ['a 500', { status => 500 }, 'STALE'],
    ['a 502, no JSON', { status => 502, body => 'bad gateway' }, 'STALE'],
    ['a 503', { status => 503, limits => 'off' }, 'STALE'],
    ['a 429', { status => 429, limits => 'off' }, 'STALE'],
    ['a 529', { status => 529, limits => 'off' }, 'STALE'],
    ['silence', { fault => 'hang' }, 'STALE'],
    ['a reset', { fault => 'reset' }, 'STALE'],
    ['no HTTP', { fault => 'bad_head' }, 'STALE'],
    ['a 400', { status => 400 }, 400],
    ['a 404', { status => 404, code => 'not_found' }, undef],
    ['a 422', { status => 422 }, 422],
);

my @cases;

for my $failure (@FAILURES) {
    my $many = $failure->[0] =~ /^a (?:500|400)$/;
    my @kinds = $many ? sort keys %FORM : ('chat');

    for my $kind (@kinds) {
        for my $stream (@{ $FORM{$kind} }) {
            push @cases, [$failure, stored($kind, $stream)];
        }
    }
}

my $first_error = stored('chat', 1);
my $middle_error = stored('chat', 1);
my $stream_as_plain = stored('chat', 1);
my @two = map { stored('chat', $_, prefix => '/two') } 0, 1;
my @breaker = map { stored('chat', 0, prefix => '/breaker') } 1 .. 4;
my @never = map { stored('chat', $_, prefix => '/never') } 0, 1;
my $little = stored('chat', 0, prefix => '/little');
my $gone = stored('chat', 0, prefix => '/gone');
my @control = map { stored('chat', 0) } 1 .. 3;
my $younger = stored('chat', 0);

is_cache($c->try($_->{kind}, %{ $_->{ask} }), 'HIT', 'fresh still')
    for $younger;

nap(2.1);


# --- each way to fail

for (@cases) {
    my ($failure, $entry) = @$_;
    my ($what, $how, $want) = @$failure;
    my ($kind, $ask) = @$entry{qw(kind ask)};
    my $name = "$kind, " . ($ask->{stream} ? 'stream' : 'plain') . ", $what";

    my $x = $c->try($kind, %$ask, mock => $how);

    if (!defined $want) {
        isnt($x->{r}->status, 0, "$name: answered");
        next;
    }

    if ($want ne 'STALE') {
        is($x->{r}->status, $want, "$name: shown");
        is($x->{r}->header('age'), undef, "$name: no Age");
        isnt($x->{r}->header('x-llm-cache'), 'STALE', "$name: not stale");
        next;
    }

    # a kept connection that is reset is tried anew, and that is no attempt
    is_cache($x, 'STALE', $name, calls => 1, any_calls => $how->{fault});
    is_form($x, $name) if $kind ne 'embeddings';
    cmp_ok($x->{r}->header('age'), '>=', 2, "$name: its Age");
    is_same_content($entry->{x}, $x, $name) if $kind ne 'embeddings';
    is($x->{r}->body, $entry->{x}{r}->body, "$name: the same bytes")
        if $kind eq 'embeddings';
    is($x->{r}->header($_), undef, "$name: no $_")
        for qw(retry-after retry-after-ms x-should-retry);

    my $log = Caching->logged($x);
    is($log->{status}, 200, "$name: status in the log");
    is($log->{cache}, 'STALE', "$name: in the log");
    is($log->{attempts}, 1, "$name: attempts in the log");
    cmp_ok($log->{cost_saved}, '>', 0, "$name: cost saved")
        if $kind =~ /^(?:chat|messages)$/;
    is($log->{cost} + 0, 0, "$name: no cost") if $log->{cost} ne '';
}


# --- well again

for (grep { $_->[0][0] =~ /^a (?:500|400)$/ } @cases) {
    my ($failure, $entry) = @$_;
    my ($kind, $ask) = @$entry{qw(kind ask)};
    my $name = "$kind, " . ($ask->{stream} ? 'stream' : 'plain')
               . ", after $failure->[0]";

    my $x = $c->try($kind, %$ask);
    is_cache($x, 'EXPIRED', $name);
}

{
    my ($kind, $ask) = @{ $cases[0][1] }{qw(kind ask)};
    my %ask = (%$ask, control => 'no-cache', mock => { text => 'new' });
    is($c->try($kind, %ask)->{calls}, 1, 'refreshed');
    is_cache($c->try($kind, %$ask), 'HIT', 'well again, and fresh');
}


# --- errors in-band: before anything was shown, and after it

{
    my $x = $c->try('chat', %{ $first_error->{ask} },
                    mock => { fault => 'error_first' });
    is_cache($x, 'STALE', 'an error as the first event', calls => 1);
    is_form($x, 'an error as the first event');
    is_same_content($first_error->{x}, $x, 'an error as the first event');

    $x = $c->try('chat', %{ $middle_error->{ask} },
                 mock => { fault => 'error_event', events => 6, at => 3 });
    is_in_band($x->{r}, 'chat', 'an error in the middle');
    is($x->{r}->header('x-llm-cache'), 'EXPIRED',
       'an error in the middle: not hidden');

    $x = $c->try('chat', %{ $middle_error->{ask} }, mock => { status => 500 });
    is_cache($x, 'STALE', 'an error in the middle takes nothing out',
             calls => 1);

    # the other form
    $x = $c->try('chat', %{ $stream_as_plain->{ask} }, stream => 0,
                 mock => { status => 500 });
    is_cache($x, 'STALE', 'stored as a stream, stale as plain', calls => 1);
    is_same_content($stream_as_plain->{x}, $x, 'stale, the other form');
}


# --- several targets: only when all of them fail

for my $entry (@two) {
    my $name = 'two targets, ' . ($entry->{ask}{stream} ? 'stream' : 'plain');

    $mock->set(status => 500);
    $second->set(status => 500);
    my $x = $c->try('chat', %{ $entry->{ask} });
    is_cache($x, 'STALE', "$name: both fail", calls => 3);
    is($x->{r}->header('x-llm-attempts'), 3, "$name: attempts");

    $second->reset;
    $x = $c->try('chat', %{ $entry->{ask} });
    is_cache($x, 'EXPIRED', "$name: one is well", calls => 3);
    $mock->reset;
}


# --- a breaker that is open: nobody is asked

{
    $third->set(status => 500);
    is_cache($c->try('chat', %{ $breaker[$_]{ask} }), 'STALE',
             "breaker, failure $_", calls => 1) for 0, 1;
    my @x = map { $c->try('chat', %{ $breaker[$_]{ask} }) } 2, 3;
    is_cache($_, 'STALE', 'breaker open', calls => 0) for @x;
    is(Caching->logged($x[1])->{attempts}, 0, 'breaker open: no attempts');
    $third->reset;

    my $x = $c->try('chat', say => Caching::question(), prefix => '/breaker');
    is_error($x->{r}, 'chat', 503, 'breaker open, nothing stored');
}


# --- stale=0; stale's time is over, too

for my $entry (@never, $little) {
    my $name = $entry->{ask}{prefix}
               . ($entry->{ask}{stream} ? ', stream' : ', plain');
    my $x = $c->try('chat', %{ $entry->{ask} }, mock => { status => 500 });
    is($x->{r}->status, 500, "$name: shown");
    is($x->{r}->header('age'), undef, "$name: no Age");
}


# --- what the client says

{
    my ($x) = $c->try('chat', %{ $control[0]{ask} }, control => 'no-cache',
                      mock => { status => 500 });
    is($x->{r}->status, 500, 'no-cache: not answered by an old one');

    $x = $c->try('chat', %{ $control[1]{ask} }, control => 'only-if-cached');
    is($x->{r}->status, 504, 'only-if-cached: an old one does not count');

    $x = $c->try('chat', %{ $control[2]{ask} }, control => 'no-store',
                 mock => { status => 500 });
    is_cache($x, 'STALE', 'no-store: may be answered', calls => 1);
}


# --- nobody there: connections are refused

{
    $second->stop;
    $c->{mocks} = [$mock, $third];
    my $x = $c->try('chat', %{ $gone->{ask} });
    is_cache($x, 'STALE', 'refused', calls => 0);
    is_same_content($gone->{x}, $x, 'refused');
}

no_alerts($t);
done_testing();
