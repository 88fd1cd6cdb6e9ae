#!/usr/bin/perl

# What is never stored: errors, answers that are cut, stopped by a limit or a
# filter, malformed, resumed, too large, or of another model than was asked
# for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();

my $second = start_mock();
my $RETRY = 'llm_adapter_retry attempts=3 backoff=10ms..50ms budget=1000%';

my $c = Caching->new(
    workers => 2,
    mocks => [$second],
    vars => { SECOND => $second->port },
    location => 'llm_adapter_timeout idle=300ms plain=300ms first_token=300ms;',
    http => <<'EOT',
    llm_adapter_provider a {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        breaker off;
    }
    llm_adapter_provider b {
        endpoint http://127.0.0.1:%%SECOND%%/v1;
        dialect openai;
        key none;
        breaker off;
    }
EOT
    locations => {
        '/small/v1/' => 'llm_adapter_cache on max_size=4k;',
        '/large/v1/' => 'llm_adapter_cache on max_size=4m;',
        '/same/v1/' => "llm_adapter a b; $RETRY;",
        '/named/v1/' => "llm_adapter a:m-1 b:m-1; $RETRY;",
        '/other/v1/' => "llm_adapter a:m-1 b:m-2; $RETRY;",
        '/retry/v1/' => "llm_adapter a; $RETRY;",
        '/resume/v1/' => "llm_adapter a b; $RETRY resume=on; "
                         . 'llm_adapter_timeout idle=300ms;',
    });
my ($t, $mock) = @$c{qw(t mock)};

my @STREAMS = map { [$_, 1] } qw(chat completions messages responses);
my @PLAIN = map { [$_, 0] } qw(chat completions messages responses);
my @ALL = (@STREAMS, @PLAIN, ['embeddings', 0]);


# The first answer is of that kind, and not stored: the second is a MISS, and
# is.  want: reason of the first, and status.

sub not_stored {
    my ($forms, $how, $name, %want) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $form (@$forms) {
        my ($kind, $stream) = @$form;
        my $full = "$kind, " . ($stream ? 'stream' : 'plain') . ", $name";
        my %ask = (say => Caching::question(), stream => $stream,
                   %{ $want{ask} // {} });

        my $x = $c->try($kind, %ask, mock => $how);
        my $log = Caching->logged($x);

        cmp_ok($x->{calls}, '>=', 1, "$full: asked");
        is($x->{r}->status, $want{status}, "$full: status")
            if $want{status};
        is($log->{cache_reason}, $want{reason}, "$full: reason")
            if $want{reason};
        unlike($x->{r}->header('x-llm-cache') // '', qr/HIT|STALE/,
               "$full: no hit");

        my $y = $c->try($kind, %ask);
        is_cache($y, 'MISS', "$full: not stored");
        is_cache($c->try($kind, %ask), 'HIT', "$full: a good one is");
    }
}


# --- errors

not_stored(\@ALL, { status => $_, limits => 'off' }, "a $_",
           status => $_) for 400, 500;
not_stored([['chat', 0], ['messages', 1]], { status => $_, limits => 'off' },
           "a $_", status => $_) for 404, 413, 422, 429, 503, 529;
not_stored([['chat', 0], ['messages', 1]], { status => $_ }, "a $_")
    for 401, 403, 301, 204;

not_stored(\@PLAIN, { fault => 'error200' }, 'an error in a 200');
not_stored(\@STREAMS, { fault => 'error_first' }, 'an error at first');
not_stored(\@STREAMS, { fault => 'error_event', events => 6, at => 3 },
           'an error in the middle', status => 200);
not_stored([['chat', 0]], { body => '{"choices":[]' }, 'not JSON');
not_stored([['chat', 0], ['messages', 0]], { body => '<html>all well</html>' },
           'no JSON at all');
not_stored([['chat', 0], ['messages', 0]], { body => '{}' },
           'an empty object');


# --- cut, and other ends

not_stored(\@STREAMS, { fault => $_, events => 6, at => 3 }, $_)
    for qw(cut reset_mid clean_cut);
not_stored([['chat', 1], ['messages', 1]],
           { fault => $_, events => 6, at => 3 }, $_)
    for qw(stall no_finish no_done);
not_stored([['responses', 1]], { fault => $_, events => 6 }, $_)
    for qw(no_finish no_done);
not_stored(\@PLAIN, { fault => $_ }, $_) for qw(cut clean_cut reset_mid);
not_stored([['chat', 0], ['messages', 0], ['embeddings', 0]],
           { fault => $_ }, $_) for qw(close reset hang short);
not_stored(\@STREAMS, { fault => 'malformed', events => 6, at => 3 },
           'a malformed event');


# a stream was asked for and a plain answer came; a coding nobody asked for

not_stored([['chat', 1], ['messages', 1]], { fault => 'not_sse' },
           'no stream');
not_stored([['chat', 0], ['chat', 1], ['messages', 0], ['messages', 1]],
           { fault => 'gzip' }, 'gzip');


# --- limits and filters

not_stored([['chat', $_], ['completions', $_]], { finish => 'length' },
           'finish_reason length', reason => 'truncated') for 0, 1;
not_stored([['messages', $_]], { finish => 'max_tokens' },
           'stop_reason max_tokens', reason => 'truncated') for 0, 1;
not_stored([['chat', $_], ['completions', $_]],
           { finish => 'content_filter' }, 'finish_reason content_filter',
           reason => 'filtered') for 0, 1;
not_stored([['messages', $_]], { finish => 'refusal' },
           'stop_reason refusal', reason => 'filtered') for 0, 1;
not_stored([['messages', $_]], { finish => 'pause_turn' },
           'stop_reason pause_turn', reason => 'unfinished') for 0, 1;
not_stored([['chat', $_], ['messages', $_]], { finish => 'who_knows' },
           'an unknown finish reason', reason => 'unfinished') for 0, 1;

# a limit of the request's own that is reached: never stored

for my $case (['chat', 'max_tokens'], ['messages', 'max_tokens'],
              ['responses', 'max_output_tokens'])
{
    my ($kind, $member) = @$case;

    for my $stream (0, 1) {
        my $name = "$kind, $member reached, " . ($stream ? 'stream' : 'plain');
        my $say = Caching::question();
        my %ask = (stream => $stream, body => body_of($kind, say => $say,
                       stream => $stream, more => qq("$member":3))
                       =~ s/"max_tokens":100000,//r);

        for (1, 2) {
            my $x = $c->try($kind, %ask);
            is_cache($x, 'MISS', "$name, $_", reason => 'truncated',
                     late => 1);
        }
    }
}


# --- size

for my $form (@ALL) {
    my ($kind, $stream) = @$form;
    my $name = "$kind, " . ($stream ? 'stream' : 'plain');
    my %ask = (say => Caching::question(), stream => $stream);
    my %how = (mock => { total => 20000, size => 1000 });

    for (1, 2) {
        my $x = $c->try($kind, %ask, %how, prefix => '/small');
        is_cache($x, 'MISS', "$name, larger than max_size, $_",
                 reason => 'too-large', late => 1);
    }

    is_cache($c->try($kind, %ask, %how, prefix => '/large'), 'MISS',
             "$name, large");
    is_cache($c->try($kind, %ask, %how, prefix => '/large'), 'HIT',
             "$name, large, again");
}


# --- fallbacks

# of the same model: stored; of another one: not

for my $stream (0, 1) {
    my $form = $stream ? 'stream' : 'plain';

    for my $where (qw(same named)) {
        my %ask = (say => Caching::question(), stream => $stream,
                   prefix => "/$where");
        my $name = "fallback, $where model, $form";

        $mock->set(status => 500);
        my $x = $c->try('chat', %ask);
        is_cache($x, 'MISS', $name, any_calls => 1);
        is($x->{r}->header('x-llm-provider'), 'b', "$name: of the second");
        $mock->reset;

        my $y = $c->try('chat', %ask);
        is_cache($y, 'HIT', "$name, again");
        is($y->{r}->header('x-llm-provider'), 'b', "$name: still named");
        is_same_content($x, $y, $name);
    }

    my %ask = (say => Caching::question(), stream => $stream,
               prefix => '/other');
    my $name = "fallback to another model, $form";

    $mock->set(status => 500);

    for my $n (1, 2) {
        my $x = $c->try('chat', %ask);
        is_cache($x, 'MISS', "$name, $n", any_calls => 1, reason => 'fallback',
                 late => 1);
        is($x->{r}->header('x-llm-model'), 'm-2', "$name: of the second");
    }

    $mock->reset;
    is_cache($c->try('chat', %ask), 'MISS', "$name: the first is well");
    my $x = $c->try('chat', %ask);
    is_cache($x, 'HIT', "$name: its own is stored");
    is($x->{r}->header('x-llm-model'), 'm-1', "$name: its own");
}

# the same provider once more: stored

{
    my %ask = (say => Caching::question(), prefix => '/retry');
    my $x = $c->try('chat', %ask, mock => { status => 500, fails => 1,
                                            key => "again $$" });
    is_cache($x, 'MISS', 'asked twice', calls => 2);
    is_cache($c->try('chat', %ask), 'HIT', 'asked twice: stored');
}


# --- resumed

for my $fault (qw(cut stall)) {
    my %ask = (say => Caching::question(), stream => 1, prefix => '/resume');

    for my $n (1, 2) {
        $mock->set(fault => $fault, at => 3, events => 8);
        $second->set(events => 8);
        my $x = $c->try('chat', %ask);
        is_whole($x->{r}, 'chat', "resumed after $fault, $n: whole");
        is_cache($x, 'MISS', "resumed after $fault, $n", any_calls => 1,
                 reason => 'resumed', late => 1);
        $_->reset for $mock, $second;
    }

    is_cache($c->try('chat', %ask), 'MISS', "$fault: not stored");
    is_cache($c->try('chat', %ask), 'HIT', "$fault: a whole one is");
}


# --- what is good though it is odd

for my $case (
    ['usage off', { usage => 'off' }], ['usage=last', { usage => 'last' }],
    ['length unknown', { plain => 'close', stream_framing => 'close' }],
    ['small pieces', { split => 7 }],
    ['chunks', { plain => 'chunked' }],
) {
    my ($what, $how) = @$case;

    for my $form (['chat', 0], ['chat', 1], ['messages', 1]) {
        my ($kind, $stream) = @$form;
        my %ask = (say => Caching::question(), stream => $stream);
        my $name = "$kind, " . ($stream ? 'stream' : 'plain') . ", $what";

        my $x = $c->try($kind, %ask, mock => $how);
        is_cache($x, 'MISS', $name);
        my $y = $c->try($kind, %ask);
        is_cache($y, 'HIT', "$name, again");
        is_same_content($x, $y, $name);
    }
}

no_alerts($t);
done_testing();
