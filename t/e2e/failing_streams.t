#!/usr/bin/perl

# Streams that fail: before the first content another provider answers and
# nothing of the failed one is seen, after it the failure is told in-band; and
# what a head ping has promised is kept.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time');

my $members = 'breaker off; keepalive 0; '
              . 'timeout first_token=400ms idle=400ms plain=400ms;';

my $g = Targets->new(
    names => [qw(a b c)],
    members => { map { $_ => $members } qw(a b c) },
    env => { TEST_E2E_KEY => 'sk-canary-failing' },
    location => 'llm_adapter_ping off;',
    locations => {
        '/head/v1/' => 'llm_adapter_ping 100ms head=150ms; '
                       . 'llm_adapter_timeout first_token=5s;',
        '/later/v1/' => 'llm_adapter_ping 100ms head=150ms; '
                        . 'llm_adapter_retry attempts=3 backoff=400ms..5s '
                        . 'budget=1000%;',
    },
    http => "    llm_adapter_model keyed keyed xkeyed;\n"
            . Targets::provider('keyed', 'A',
                                'key env:TEST_E2E_KEY; breaker off;'));

my @STREAMED = qw(chat completions messages responses);


sub provider_of {
    my ($kind, $name) = @_;
    return ($kind eq 'messages' ? 'x' : '') . $name;
}


# The events that are neither pings nor usage that was not asked for.

sub said { return grep { !/^ping\|/ && !usage_only($_) } events_of($_[0]) }


# The client was shown what this provider has sent in its last answer, and
# nothing else but comments and pings.

sub is_answer_of {
    my ($x, $name, $test) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @sent = said($g->{$name}->last_response_body);
    my @got = said($x->{r}->body);

    cmp_ok(scalar(@sent), '>', 1, "$test: there were events");
    is_deeply(\@got, \@sent, "$test: the events of $name alone");
}


# --- before the first content: as if it had not been

my %BEFORE = (
    'cut' => [{ fault => 'cut', at => 0 }, 'same'],
    'reset' => [{ fault => 'reset_mid', at => 0 }, 'same'],
    'ended cleanly' => [{ fault => 'clean_cut', at => 0 }, 'same'],
    'an error event' => [{ fault => 'error_first' }, 'same'],
    'response.failed' => [{ fault => 'error_event', at => 0 }, 'same'],
    'silent behind the preamble' => [{ fault => 'stall', at => 0 }, 'next'],
    'only pings' => [{ first => '9s', heartbeat => 50 }, 'next'],
    'silent behind the head' => [{ fault => 'hang_head' }, 'next'],
    'compressed' => [{ fault => 'gzip' }, 'next'],
);

for my $what (sort keys %BEFORE) {
    my ($how, $who) = @{ $BEFORE{$what} };

    for my $kind (@STREAMED) {
        next if $what eq 'response.failed' && $kind ne 'responses';

        my $name = "$kind, $what";
        my %good = (events => 7, prompt_tokens => 123);

        # with three of them, one attempt each

        $g->set(a => $how, b => \%good, c => \%good);
        my $x = $g->try($kind, model => 'three', stream => 1);
        is_outcome($x, { provider => provider_of($kind, 'b'), attempts => 2,
                         model => 'm-b', calls => '1 1 0',
                         log_finish_reason => outcome_reason($kind) },
                   "$name: another one");
        is_answer_of($x, 'b', $name);

        # alone: once more, or never

        next if $kind eq 'completions' || $kind eq 'responses';

        $g->set(a => $how);
        my $calls = $who eq 'same' ? 3 : 1;
        $x = $g->try($kind, model => 'one', stream => 1);
        is_outcome($x, { status => $x->{r}->status, attempts => $calls,
                         calls => "$calls 0 0", should => 'false' },
                   "$name: alone");
        is_error($x->{r}, $kind, $x->{r}->status >= 500 ? $x->{r}->status
                                                        : 502,
                 "$name: alone");
    }
}

sub outcome_reason {
    my ($kind) = @_;
    return $kind eq 'messages' ? 'end_turn'
           : $kind eq 'responses' ? 'completed' : 'stop';
}


# --- after it: told in-band, nobody else is asked, nothing looks complete

my @AFTER = (
    ['cut', { fault => 'cut' }, 'truncated'],
    ['reset', { fault => 'reset_mid' }, 'truncated'],
    ['ended cleanly', { fault => 'clean_cut' }, 'truncated'],
    ['stalled', { fault => 'stall' }, 'timeout_idle'],
    ['stalled, with pings', { fault => 'stall', heartbeat => 50 },
     'timeout_idle'],
    ['an error event', { fault => 'error_event' }, 'upstream_error'],
);

for my $case (@AFTER) {
    my ($what, $how, $error) = @$case;

    for my $kind (@STREAMED) {
        for my $h2 ($what eq 'cut' || $what eq 'stalled' ? (0, 1) : 0) {
            my $name = "$kind, $what in the middle" . ($h2 ? ', h2' : '');

            $g->set(a => { %$how, at => 3, events => 6 });
            my $x = $g->try($kind, model => 'three', stream => 1, h2 => $h2);
            is_in_band($x->{r}, $kind, $name);
            is_deeply([$g->calls, @{ $x->{log} }{qw(error attempts provider)}],
                      ['1 0 0', $error, 1, provider_of($kind, 'a')],
                      "$name: nobody else");

            my @sent = said($g->{a}->last_response_body);
            my @got = said($x->{r}->body);
            pop @got;
            pop @sent if $what eq 'an error event';
            is_deeply(\@got, \@sent, "$name: what was said before");
        }
    }
}


# --- an event that is broken, a terminal marker that is missing: no failure

for my $kind (@STREAMED) {
    $g->set(a => { fault => 'malformed', at => 3, events => 8 });
    my $x = $g->try($kind, model => 'three', stream => 1);
    my $name = "$kind, a malformed event";

    is_outcome($x, { attempts => 1, calls => '1 0 0', model => 'm-a',
                     log_error => 'malformed_event' }, $name);

    my @sent = said($g->{a}->last_response_body);
    my @whole = grep { (split /\|/, $_, 4)[3] eq '[DONE]'
                       || json_decode((split /\|/, $_, 4)[3]) } @sent;
    is(@sent - @whole, 1, "$name: there was one");
    is_deeply([said($x->{r}->body)], \@whole,
              "$name: all others reach the client");

    $g->set(a => { fault => 'no_done' });
    is_outcome($g->try($kind, model => 'three', stream => 1),
               { attempts => 1, calls => '1 0 0', model => 'm-a' },
               "$kind, no terminal marker")
        if $kind ne 'responses';
}


# --- a head ping was sent: the 200 stands, the attempts go on

for my $kind (@STREAMED) {
    for my $h2 ($kind eq 'completions' ? 0 : (0, 1)) {
        my $name = "$kind, after a head ping" . ($h2 ? ', h2' : '');

        $g->set(a => { delay => 300, status => 500 },
                b => { delay => 100, status => 503, limits => 'off' },
                c => { delay => 100, events => 5 });

        my $x = $g->try($kind, model => 'three', stream => 1, h2 => $h2,
                        prefix => '/head');
        is_outcome($x, { status => 200, calls => '1 1 1', provider => undef,
                         log_provider => provider_of($kind, 'c'),
                         attempts => undef, log_attempts => 3 },
                   "$name: the third answers");
        is_answer_of($x, 'c', $name);
        like($x->{r}->body, qr/^: ping\n/, "$name: pings were shown");
        cmp_ok($x->{log}{ttft}, '>=', 0.45, "$name: \$llm_ttft is its own");
    }
}

# a time that was told is waited for, with pings

for my $kind (qw(chat messages)) {
    my $name = "$kind, a head ping in a back-off";
    $g->set(a => { status => 429, retry_after => 1, fails => 1 });
    my $x = $g->try($kind, model => 'one', stream => 1, prefix => '/later');

    is_outcome($x, { calls => '2 0 0', log_attempts => 2, provider => undef },
               $name);
    is_answer_of($x, 'a', $name);
    cmp_ok(($g->gaps('a'))[0] // 0, '>=', 990, "$name: not too soon");
    cmp_ok(scalar(() = $x->{r}->body =~ /^(?::|event: ping)/mg), '>=', 4,
           "$name: pings meanwhile");
}

# and where nobody can answer: in-band

for my $kind (@STREAMED) {
    for my $case (
        ['a 500 of all', { delay => 180, status => 500,
                           message => 'it broke here' },
         'upstream_500', qr/it broke here/],
        ['a reset of all', { delay => 180, fault => 'reset' },
         'upstream_closed', qr/closed the connection/],
        ['content policy', { delay => 300, status => 400,
                             code => 'content_policy_violation' },
         'upstream_400', qr/safety system|content filtering/],
    ) {
        my ($what, $how, $error, $words) = @$case;
        my $name = "$kind, after a head ping, $what";
        my $calls = $error eq 'upstream_400' ? '1 0 0' : '1 1 1';

        $g->set(map { $_ => $how } qw(a b c));
        my $x = $g->try($kind, model => 'three', stream => 1,
                        prefix => '/head');
        my $e = is_in_band($x->{r}, $kind, $name);
        like($e->{message}, $words, "$name: its words");
        is_deeply([$g->calls, @{ $x->{log} }{qw(error attempts)}],
                  [$calls, $error, $calls eq '1 0 0' ? 1 : 3],
                  "$name: in the log");
    }

    # not with our key in it

    my $name = "$kind, after a head ping, our key is refused";
    $g->set(a => { delay => 300, status => 401,
                   message => 'Incorrect key sk-canary-failing' });
    my $x = $g->try($kind, model => 'keyed', stream => 1, prefix => '/head');
    my $e = is_in_band($x->{r}, $kind, $name);
    unlike($x->{r}->body, qr/canary/, "$name: not its words");
    is($x->{log}{error}, 'provider_auth', "$name: \$llm_error");
}


# --- a slow provider is not a silent one

for my $kind (@STREAMED) {
    $g->set(a => { first => 150, gap => 100, events => 6 });
    my $x = $g->try($kind, model => 'two', stream => 1);
    is_outcome($x, { attempts => 1, calls => '1 0 0', model => 'm-a' },
               "$kind, slow but alive");
    cmp_ok($x->{took}, '>=', 0.6, "$kind: it took its time");
}

no_alerts($g->{t});
done_testing();
