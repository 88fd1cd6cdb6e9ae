#!/usr/bin/perl

# How answers end when they end badly: the five timeouts, cut and broken
# answers, errors within a stream, and what the client and the log are told.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Errno qw(EINPROGRESS);
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_ERROR);
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();


# A port where connections are not answered: its accept queue is full, so the
# kernel drops what comes.  undef if this kernel does not do that.

my @held;

sub silent_port {
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)
        or return;
    listen $listen, 0;
    push @held, $listen;

    for (1 .. 8) {
        my $sock = IO::Socket::INET->new(
            PeerAddr => '127.0.0.1', PeerPort => $listen->sockport,
            Blocking => 0);
        return if !$sock;
        push @held, $sock;

        return $listen->sockport
            if !IO::Select->new($sock)->can_write(0.3);
    }

    return;
}


my $silent = silent_port();
my $refusing = free_port();

# NAME PORT DIALECT KEY and what else its block says

my $providers = '';

for ('silent SILENT openai none', 'refusing REFUSING openai none',
     'timely MOCK openai none timeout first_token=400ms idle=400ms plain=400ms;',
     'keyed MOCK openai env:TEST_E2E_KEY',
     'keyeda MOCK anthropic env:TEST_E2E_KEY',
     'theirs MOCK openai client', 'theirsa MOCK anthropic client',
     map { "old$_ MOCK openai none" } 1 .. 4)
{
    my ($name, $port, $dialect, $key, $more) = split / /, $_, 5;
    $providers .= <<"EOT";
    llm_adapter_provider $name {
        endpoint http://127.0.0.1:%%$port%%/v1;
        dialect $dialect;
        key $key;
        breaker off;
        @{[ $more // '' ]}
    }
EOT
}

my ($t, $mock) = gateway(
    location => 'llm_adapter_ping off;',
    locations => {
        '/t/v1/' => 'llm_adapter_timeout first_token=400ms idle=400ms '
                    . 'plain=500ms;',
        '/total/v1/' => 'llm_adapter_timeout total=500ms;',
        '/timely/v1/' => 'llm_adapter timely; llm_adapter_timeout idle=5s;',
        '/silent/v1/' => 'llm_adapter silent; '
                         . 'llm_adapter_timeout connect=400ms;',
        '/refusing/v1/' => 'llm_adapter refusing;',
        '/key/v1/' => 'llm_adapter keyed;',
        '/keya/v1/' => 'llm_adapter keyeda;',
        '/theirs/v1/' => 'llm_adapter theirs theirsa;',
        map { ("/old$_/v1/" => "llm_adapter old$_;") } 1 .. 4,
    },
    env => { TEST_E2E_KEY => 'sk-canary-0123456789' },
    vars => { SILENT => $silent // 1, REFUSING => $refusing },
    http => $providers);

my @STREAMED = qw(chat completions messages responses);
my %HIDES = (chat => 1, completions => 1);
my $n = 0;


# A request on a connection of its own: (response, its log line, seconds).

sub try_it {
    my ($kind, %o) = @_;

    my $test = 'ends ' . ++$n;
    my $client = $o{h2} ? h2($t->port('h2'), timeout => 20)
                        : h1($t->port, timeout => 20);
    my $start = now();
    my $r = ask($client, $kind, %o, test => $test);
    my $took = now() - $start;

    return ($r, log_of($t, $test), $took);
}


sub took_about {
    my ($took, $wanted, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok($took > $wanted - 0.05 && $took < $wanted + 1.5, "$name: in time")
        or diag("took $took, not $wanted");
}


# What only an error event may follow: the events shown are the provider's
# first ones.

sub is_beginning {
    my ($r, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @sent = events_of($mock->last_response_body);
    my @got = events_of($r->body);
    pop @got;

    my @same = @sent[0 .. $#got];
    is_deeply(\@got, \@same, "$name: what was said before");
    cmp_ok(scalar(@got), '>=', 2, "$name: there was something before");
}


# --- timeouts ---

SKIP: {
    skip 'this kernel answers on a full accept queue', 6 if !$silent;

    for my $stream (0, 1) {
        my $name = $stream ? 'connect, stream' : 'connect, plain';
        my ($r, $log, $took) = try_it('chat', stream => $stream,
                                      prefix => '/silent');
        is_error($r, 'chat', 504, "$name timeout");
        is($log->{error}, 'timeout_connect', "$name: \$llm_error");
        took_about($took, 0.4, $name);
    }
}

{
    my ($r, $log) = try_it('chat', stream => 1, prefix => '/refusing');
    is_error($r, 'chat', 502, 'a port that refuses');
    is($log->{error}, 'upstream_connect', 'a port that refuses: $llm_error');
}

for my $kind (@STREAMED) {
    for my $case (
        ['no answer', { fault => 'hang' }],
        ['only a head', { fault => 'hang_head' }],
        ['only a preamble', { first => '9s' }],
        ['a preamble and heartbeats', { first => '9s', heartbeat => '50ms' }],
    ) {
        my ($what, $set) = @$case;
        my $name = "first_token, $kind, $what";
        my ($r, $log, $took) = try_it($kind, stream => 1, prefix => '/t',
                                      mock => $set);
        is_error($r, $kind, 504, $name);
        is($log->{error}, 'timeout_first_token', "$name: \$llm_error");
        is($log->{status}, 504, "$name: status in the log");
        took_about($took, 0.4, $name);
    }

    for my $case (
        ['silence', { fault => 'stall', at => 2 }],
        ['heartbeats', { fault => 'stall', at => 2, heartbeat => '50ms' }],
    ) {
        my ($what, $set) = @$case;
        my $name = "idle, $kind, $what";
        my ($r, $log, $took) = try_it($kind, stream => 1, prefix => '/t',
                                      mock => { events => 5, %$set });
        my $e = is_in_band($r, $kind, $name);
        is($log->{error}, 'timeout_idle', "$name: \$llm_error");
        is($log->{status}, 200, "$name: status in the log");
        is($e->{code}, 'timeout_idle', "$name: its code")
            if $kind ne 'messages';
        took_about($took, 0.4, $name);
    }

    {
        my $name = "total, $kind, in the stream";
        my ($r, $log, $took) = try_it($kind, stream => 1, prefix => '/total',
                                      mock => { events => 99, gap => '60ms' });
        is_in_band($r, $kind, $name);
        is($log->{error}, 'timeout_total', "$name: \$llm_error");
        took_about($took, 0.5, $name);
    }
}

for my $kind (qw(chat messages embeddings)) {
    my ($r, $log, $took) = try_it($kind, prefix => '/t',
                                  mock => { fault => 'hang' });
    is_error($r, $kind, 504, "plain, $kind");
    is($log->{error}, 'timeout_plain', "plain, $kind: \$llm_error");
    took_about($took, 0.5, "plain, $kind");
}

{
    my ($r, $log, $took) = try_it('embeddings', prefix => '/t',
                                  mock => { fault => 'stall' });
    is_error($r, 'embeddings', 504, 'plain, half an answer');
    is($log->{error}, 'timeout_plain', 'plain, half an answer: $llm_error');

    # bytes do not start it anew

    ($r, $log, $took) = try_it('embeddings', prefix => '/t',
                               mock => { total => 20000, rate => 10000 });
    is_error($r, 'embeddings', 504, 'plain, a slow answer');
    is($log->{error}, 'timeout_plain', 'plain, a slow answer: $llm_error');
    took_about($took, 0.5, 'plain, a slow answer');

    # after the head is out

    for my $h2 (0, 1) {
        my $name = 'plain, later' . ($h2 ? ', h2' : '');
        ($r, $log, $took) = try_it('embeddings', prefix => '/t', h2 => $h2,
                                   mock => { total => '1m', fault => 'stall',
                                             at => 500000 });
        is($r->status, 200, "$name: the head is out");
        is($r->end, $h2 ? 'rst' : 'cut', "$name: cut");
        is($log->{error}, 'timeout_plain', "$name: \$llm_error");
        took_about($took, 0.5, $name);
    }

    # a plain answer has no first token

    ($r, $log) = try_it('chat', prefix => '/t',
                        mock => { delay => '450ms', events => 2 });
    is($r->status, 200, 'no first_token for plain answers');
    is($r->body, $mock->last_response_body, 'and it is whole');

    ($r, $log, $took) = try_it('chat', prefix => '/total',
                               mock => { fault => 'hang' });
    is_error($r, 'chat', 504, 'total, plain');
    is($log->{error}, 'timeout_total', 'total, plain: $llm_error');

    ($r, $log, $took) = try_it('chat', stream => 1, prefix => '/total',
                               mock => { fault => 'hang' });
    is_error($r, 'chat', 504, 'total, before the first token');
    is($log->{error}, 'timeout_total', 'total, before: $llm_error');
}

{
    # the provider's own values, and a location's over them

    my ($r, $log, $took) = try_it('chat', stream => 1, prefix => '/timely',
                                  mock => { fault => 'hang' });
    is_error($r, 'chat', 504, "a provider's first_token");
    is($log->{error}, 'timeout_first_token', "a provider's first_token");
    took_about($took, 0.4, "a provider's first_token");

    ($r, $log) = try_it('chat', stream => 1, prefix => '/timely',
                        mock => { events => 2, gap => '700ms' });
    is_whole($r, 'chat', "a location's idle goes before a provider's");
}

{
    # events come in time: nothing happens, though it takes long

    for my $kind (@STREAMED) {
        my ($r, $log, $took) = try_it($kind, stream => 1, prefix => '/t',
                                      mock => { events => 6, gap => '250ms' });
        is_whole($r, $kind, "$kind: each event in time");
        cmp_ok($took, '>', 1, "$kind: longer than idle");
        is($log->{error}, '', "$kind: no error");
    }
}


# --- cut in the stream ---

for my $kind (@STREAMED) {
    for my $fault (qw(cut clean_cut reset_mid)) {
        for my $framing (qw(chunked close length)) {

            # by length it would be a lie of another kind
            next if $framing eq 'length' && $fault eq 'clean_cut';

            my $name = "$kind, $fault, $framing";
            my ($r, $log) = try_it(
                $kind, stream => 1, close => 1,
                mock => { events => 8, at => 3, fault => $fault,
                          stream_framing => $framing });
            my $e = is_in_band($r, $kind, $name);
            is($log->{error}, 'truncated', "$name: \$llm_error");
            is($e->{code}, 'truncated', "$name: its code")
                if $kind ne 'messages';
            is_beginning($r, $name);
        }
    }

    {
        my $name = "$kind, cut, h2";
        my ($r, $log) = try_it($kind, stream => 1, h2 => 1,
                               mock => { events => 8, at => 3,
                                         fault => 'cut' });
        is_in_band($r, $kind, $name);
        is($r->end, 'end_stream', "$name: the stream ends well");
        is($log->{error}, 'truncated', "$name: \$llm_error");
    }

    # nothing was shown yet: an HTTP error

    for my $fault ($kind eq 'responses' ? () : qw(cut clean_cut)) {
        my $name = "$kind, $fault before content";
        my ($r, $log) = try_it($kind, stream => 1,
                               mock => { events => 8, at => 0,
                                         fault => $fault });
        is_error($r, $kind, 502, $name);
        is($log->{error}, 'truncated', "$name: \$llm_error");
    }
}


# --- an end without its marker ---

for my $kind (qw(chat completions)) {
    for my $framing (qw(chunked length close)) {
        my $name = "$kind, no_done, $framing";
        my ($r, $log) = try_it($kind, stream => 1, close => 1,
                               mock => { events => 4, fault => 'no_done',
                                         stream_framing => $framing });
        is_whole($r, $kind, "$name: completed");
        is($log->{error}, '', "$name: no error");

        my @got = events_of($r->body);
        my @sent = grep { !usage_only($_) }
                   events_of($mock->last_response_body);
        is_deeply(\@got, [@sent, '-|-|-|[DONE]'], "$name: the same events");
    }

    # [DONE] without a reason is an end all the same

    my ($r, $log) = try_it($kind, stream => 1,
                           mock => { events => 4, fault => 'no_finish' });
    is_whole($r, $kind, "$kind, no_finish");
    is_same_events($r, $mock, name => "$kind, no_finish", hidden => 1);
}

{
    my ($r, $log) = try_it('messages', stream => 1, close => 1,
                           mock => { events => 4, fault => 'no_done' });
    is_whole($r, 'messages', 'messages, no_done: completed');
    is($log->{error}, '', 'messages, no_done: no error');

    ($r, $log) = try_it('responses', stream => 1, close => 1,
                        mock => { events => 4, fault => 'no_done' });
    is_in_band($r, 'responses', 'responses, no_done');
    is($log->{error}, 'truncated', 'responses, no_done: $llm_error');
}


# --- events that are not JSON ---

for my $kind (@STREAMED) {
    my $name = "$kind, malformed";
    my ($r, $log) = try_it($kind, stream => 1, close => 1,
                           mock => { events => 6, size => 40, at => 3,
                                     fault => 'malformed' });
    my @sent = grep { my $data = (split /\|/, $_, 4)[3];
                      $data eq '[DONE]' || json_decode($data) }
               grep { !$HIDES{$kind} || !usage_only($_) }
               events_of($mock->last_response_body);
    my @got = events_of($r->body);

    is_whole($r, $kind, "$name: goes on");
    is_deeply(\@got, \@sent, "$name: only that event is left out");
    is($log->{error}, 'malformed_event', "$name: \$llm_error");

    # it comes first: nothing was shown

    ($r, $log) = try_it($kind, stream => 1, close => 1,
                        mock => { events => 6, size => 40, at => 1,
                                  fault => 'malformed' });
    is_whole($r, $kind, "$name, the first: goes on");
}

my %TOOLS = (
    chat => '"tools":[{"type":"function","function":{"name":"f"}}]',
    messages => '"tools":[{"name":"f","input_schema":{"type":"object"}}]',
    responses => '"tools":[{"type":"function","name":"f"}]',
);
my %ARGS = (tools => 1, events => 6, args => '{"city":"Paris","days":3}');

for my $kind (sort keys %TOOLS) {
    for my $fault (qw(malformed cut)) {
        my $name = "$kind, $fault in a tool call";
        my ($r, $log) = try_it($kind, stream => 1, more => $TOOLS{$kind},
                               mock => { %ARGS, at => 3, fault => $fault });
        is_in_band($r, $kind, $name);
        is($log->{error}, $fault eq 'cut' ? 'truncated' : 'malformed_event',
           "$name: \$llm_error");
    }

    my ($r, $log) = try_it($kind, stream => 1, more => $TOOLS{$kind},
                           mock => \%ARGS);
    is_whole($r, $kind, "$kind, a tool call without a fault");
}

for (['chat', '"response_format":{"type":"json_schema","json_schema":'
              . '{"name":"x","schema":{"type":"object"}}}'],
     ['responses', '"text":{"format":{"type":"json_schema","name":"x",'
                   . '"schema":{"type":"object"}}}'])
{
    my ($kind, $more) = @$_;
    my ($r, $log) = try_it($kind, stream => 1, more => $more,
                           mock => { events => 6, size => 40, at => 3,
                                     fault => 'malformed' });
    is_in_band($r, $kind, "$kind, malformed in structured output");
    is($log->{error}, 'malformed_event', "$kind, structured: \$llm_error");
}


# --- errors within a stream ---

for my $kind (@STREAMED) {
    my ($r, $log) = try_it($kind, stream => 1,
                           mock => { fault => 'error_first', events => 5,
                                     message => 'it broke here' });

    my $e = is_error($r, $kind, $r->status, "$kind, error_first");
    cmp_ok($r->status, '>=', 400, "$kind, error_first: its status");
    is($e->{message}, 'it broke here', "$kind, error_first: its words");
    is($log->{error}, 'upstream_error', "$kind, error_first: \$llm_error");

    for my $h2 (0, 1) {
        my $name = "$kind, error_event" . ($h2 ? ', h2' : '');
        ($r, $log) = try_it($kind, stream => 1, h2 => $h2, close => 1,
                            mock => { fault => 'error_event', events => 5,
                                      at => 3, message => 'it broke here' });
        my $e = is_in_band($r, $kind, $name);
        is($e->{message}, 'it broke here', "$name: its own words");
        is($log->{error}, 'upstream_error', "$name: \$llm_error");
        is_same_events($r, $mock, name => $name);
    }
}


# --- no stream at all ---

for my $kind (@STREAMED, 'embeddings') {
    for my $stream ($kind eq 'embeddings' ? (0) : (0, 1)) {
        my $what = "$kind, " . ($stream ? 'stream' : 'plain');

        for my $case (
            [reset => 'upstream_closed'],
            [close => 'upstream_closed'],
            [close_mid_head => 'upstream_(?:closed|invalid)'],
            [bad_head => 'upstream_invalid'],
            [gzip => 'encoded_answer'],
        ) {
            my ($fault, $class) = @$case;
            my ($r, $log) = try_it($kind, stream => $stream,
                                   mock => { fault => $fault });
            is_error($r, $kind, 502, "$what, $fault");
            like($log->{error}, qr/^$class$/, "$what, $fault: \$llm_error");
        }

        my ($r, $log) = try_it($kind, stream => $stream,
                               mock => { fault => 'error200',
                                         message => 'a lie' });
        my $e = is_error($r, $kind, $r->status, "$what, error200");
        cmp_ok($r->status, '>=', 400, "$what, error200: not a 200");
        is($e->{message}, 'a lie', "$what, error200: its own words");
        is($log->{error}, 'upstream_error', "$what, error200: \$llm_error");
    }
}

for my $kind (@STREAMED) {
    my ($r, $log) = try_it($kind, stream => 1, close => 1,
                           mock => { fault => 'not_sse', events => 3 });
    is($r->status, 200, "$kind, not_sse: status");
    is($r->body, $mock->last_response_body, "$kind, not_sse: as it is");
    like($r->header('content-type'), qr{^application/json},
         "$kind, not_sse: its type");
}


# --- HTTP that does not add up ---

for my $kind (@STREAMED) {

    # all was said before the connection ended short

    my ($r, $log) = try_it($kind, stream => 1, close => 1,
                           mock => { fault => 'short', events => 3 });
    is_whole($r, $kind, "$kind, short");
    is_same_events($r, $mock, name => "$kind, short",
                   hidden => $HIDES{$kind});

    ($r, $log) = try_it($kind, stream => 1, close => 1,
                        mock => { fault => 'long', events => 3 });
    is_whole($r, $kind, "$kind, long");
    is_same_events($r, $mock, name => "$kind, long", hidden => $HIDES{$kind});
}

{
    my ($r, $log) = try_it('embeddings', close => 1,
                           mock => { fault => 'short' });
    is_error($r, 'embeddings', 502, 'plain, short');
    is($log->{error}, 'truncated', 'plain, short: $llm_error');

    ($r, $log) = try_it('embeddings', close => 1, mock => { fault => 'long' });
    is($r->status, 200, 'plain, long: status');
    is($r->body, $mock->last_response_body, 'plain, long: what was announced');

    # the connection is not used again after either: the next one is fine

    ($r) = try_it('embeddings');
    is($r->body, $mock->last_response_body, 'the next answer is its own');
}

for my $kind (@STREAMED) {
    for my $h2 (0, 1) {
        my $name = "$kind, done_open" . ($h2 ? ', h2' : '');
        my $before = $mock->stats;
        my $client = $h2 ? h2($t->port('h2')) : h1($t->port);
        my $start = now();
        my $r = ask($client, $kind, stream => 1, test => $name,
                    mock => { fault => 'done_open', events => 3 });
        cmp_ok(now() - $start, '<', 0.8, "$name: the client is done at once");
        is_whole($r, $kind, "$name: whole");

        my $stats = $mock->wait_stat('aborted', $before->{aborted} + 1, 4);
        is($stats->{aborted}, $before->{aborted} + 1,
           "$name: the provider's connection is closed soon");

        my $log = log_of($t, $name);
        is($log->{status}, 200, "$name: status in the log");
        is($log->{error}, '', "$name: no error");

        my $again = ask($client, $kind, stream => 1, mock => { events => 2 });
        is_whole($again, $kind, "$name: the client's connection lives");
    }
}

for my $how (qw(fin rst)) {
    for my $h2 (0, 1) {

        # a client that has all and goes is no abort

        my $client = $h2 ? h2($t->port('h2')) : h1($t->port);
        my $name = "done_open, and the client goes, $how"
                   . ($h2 ? ', h2' : '');
        my $r = ask($client, 'chat', stream => 1, test => $name,
                    mock => { fault => 'done_open', events => 3 });
        is_whole($r, 'chat', $name);
        nap(0.1);
        $client->abort($how);
        my $log = log_of($t, $name);
        is($log->{status}, 200, "$name: not a 499");
        is($log->{error}, '', "$name: no error");
    }
}


# --- the client's connection outlives all of this ---

for my $h2 (0, 1) {
    my $client = $h2 ? h2($t->port('h2')) : h1($t->port);
    my @said;

    for my $case (
        [{ fault => 'reset' }, 502], [{ fault => 'hang' }, 504],
        [{ fault => 'cut', at => 2, events => 5 }, 200],
        [{ fault => 'stall', at => 2, events => 5 }, 200],
        [{ fault => 'error_first' }, undef], [{ status => 429 }, 429],
        [{ fault => 'bad_head' }, 502], [{ fault => 'gzip' }, 502],
        [{ fault => 'error_event', at => 2, events => 5 }, 200],
        [{ fault => 'malformed', events => 5 }, 200],
        [{ fault => 'not_sse' }, 200], [{ events => 3 }, 200],
    ) {
        my ($set, $status) = @$case;
        my $r = ask($client, 'chat', stream => 1, prefix => '/t',
                    mock => $set);
        push @said, ($set->{fault} // 'none') . ' ' . $r->status
                    . ($r->complete ? '' : ' ' . $r->end)
            if !$r->complete || $status && $r->status != $status;
    }

    is_deeply(\@said, [], 'one connection for all faults' . ($h2 ? ', h2' : ''));
}


# --- plain answers that are cut ---

for my $framing (qw(length chunked)) {
    for my $fault (qw(cut reset_mid short)) {

        next if $fault eq 'short' && $framing eq 'chunked';

        for my $h2 (0, 1) {
            my $name = "plain, $framing, $fault" . ($h2 ? ', h2' : '');
            my ($r, $log) = try_it('embeddings', h2 => $h2,
                                   mock => { total => '1m', fault => $fault,
                                             plain => $framing });
            is($r->status, 200, "$name: the head is out");
            is($r->end, $h2 ? 'rst' : 'cut', "$name: cut");
            cmp_ok(length $r->body, '>', 64 << 10, "$name: some of it came");
            is($log->{error}, 'truncated', "$name: \$llm_error");
        }

        my $name = "plain, $framing, $fault, small";
        my ($r, $log) = try_it('embeddings',
                               mock => { fault => $fault,
                                         plain => $framing });
        is_error($r, 'embeddings', 502, $name);
        is($log->{error}, 'truncated', "$name: \$llm_error");
    }
}


# --- errors with a status ---

for my $kind (qw(chat messages responses embeddings)) {
    for my $status (400, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
    {
        for my $stream ($kind eq 'chat' ? (0, 1) : (0)) {
            my $name = "$kind, status $status" . ($stream ? ', stream' : '');
            my ($r, $log) = try_it($kind, stream => $stream, close => 1,
                                   prefix => '/theirs',
                                   mock => { status => $status,
                                             retry_after => '7' });
            is($r->status, $status, "$name: passes");
            is($r->body, $mock->last_response_body, "$name: body unchanged");
            is($r->header('retry-after'), '7', "$name: Retry-After passes");
            like($r->header('content-type'), qr{^application/json},
                 "$name: type");
            is($log->{error}, "upstream_$status", "$name: \$llm_error");
        }
    }
}

{
    my ($r, $log) = try_it('chat', close => 1,
                           mock => { status => 503,
                                     body => '<html>down</html>' });
    is($r->status, 503, 'an error that is HTML: status');
    is($r->body, '<html>down</html>', 'an error that is HTML: as it is');
}

for my $case (['/key', 'chat'], ['/key', 'responses'], ['/keya', 'messages']) {
    my ($prefix, $kind) = @$case;

    for my $status (401, 403) {
        for my $stream (0, 1) {
            my $name = "$kind, our key and a $status";
            my ($r, $log) = try_it(
                $kind, stream => $stream, prefix => $prefix,
                mock => { status => $status, message => 'sk-canary is bad' });
            my $e = is_error($r, $kind, 502, $name);
            unlike($r->head, qr/canary/, "$name: nothing in the head")
                if $r->can('head');
            unlike($r->body, qr/canary/, "$name: not the provider's text");
            is($log->{error}, 'provider_auth', "$name: \$llm_error");
            is($e->{code}, 'provider_auth', "$name: its code")
                if $kind ne 'messages';
            like($log->{upstream_status}, qr/$status/,
                 "$name: the true status in the log");
        }
    }
}

{
    # not ours: it is the client's to know

    my ($r) = try_it('chat', close => 1, prefix => '/theirs',
                     mock => { status => 401 });
    is($r->status, 401, "the client's key and a 401");
    is($r->body, $mock->last_response_body, 'its body');
}


# --- a provider that does not know stream_options ---

for my $case ([1 => 400], [2 => 422]) {
    my ($old, $status) = @$case;
    my %set = (prefix => "/old$old", stream => 1, close => 1,
               mock => { fault => 'no_stream_options', status => $status,
                         events => 3 });

    my $before = $mock->stats->{requests};
    my ($r, $log) = try_it('chat', %set);
    is_whole($r, 'chat', "stream_options and a $status: asked once more");
    is($mock->stats->{requests} - $before, 2, 'two requests');
    is($mock->last_body, body_of('chat', stream => 1), 'the second without');
    is($log->{attempts}, 2, 'two attempts in the log');
    is($log->{error}, '', 'no error in the log');
    is($r->header('x-llm-attempts'), 2, 'and in the header');
    like($log->{upstream_status}, qr/^$status, 200$/, 'both in the log');

    $before = $mock->stats->{requests};
    ($r, $log) = try_it('chat', %set);
    is_whole($r, 'chat', 'the next one');
    is($mock->stats->{requests} - $before, 1, 'it is remembered');
    is($log->{attempts}, 1, 'one attempt in the log');
}

{
    # the client's own wish is the client's own error

    my $before = $mock->stats->{requests};
    my ($r, $log) = try_it('chat', prefix => '/old3', stream => 1, close => 1,
                           more => '"stream_options":{"include_usage":true}',
                           mock => { fault => 'no_stream_options' });
    is($r->status, 400, 'asked by the client: the error passes');
    is($r->body, $mock->last_response_body, 'asked by the client: its body');
    is($mock->stats->{requests} - $before, 1, 'asked by the client: once');

    # another 400 is not taken for that

    $before = $mock->stats->{requests};
    ($r, $log) = try_it('chat', prefix => '/old4', stream => 1, close => 1,
                        mock => { status => 400, message => 'bad messages' });
    is($r->status, 400, 'another 400 passes');
    is($mock->stats->{requests} - $before, 1, 'another 400: once');
}


# --- a worker without a connection to spare ---

{
    my ($s) = gateway(mock => $mock, connections => 24, workers => 1,
                      location => 'llm_adapter_ping off;');
    my @clients = map { h1($s->port) } 1 .. 18;
    my %status;

    for (@clients) {
        start_ask($_, 'chat', stream => 1, mock => { events => 6,
                                                     gap => '50ms' });
    }

    for (@clients) {
        my $r = $_->read_response;
        my $status = $r->status || 'none';
        $status = "bad $status" if $status eq '200'
                                   && $r->body !~ /\[DONE\]\n\n\z/;
        $status = "bad $status" if $status =~ /^5/ && !$r->json->{error};
        $status{$status}++;
        $_->close;
    }

    my $said = join ', ', map { "$status{$_} x $_" } sort keys %status;
    ok($status{200}, "too few connections: some are served ($said)");
    is(scalar(grep { !/^(?:200|50[023]|none)$/ } keys %status), 0,
       'too few connections: others get an error');

    my $r = ask(h1($s->port), 'chat', stream => 1);
    is_whole($r, 'chat', 'too few connections: later all is well');
    no_alerts($s, name => 'too few connections: no other alerts',
              allow => [qr/worker_connections are not enough/]);
}

@held = ();
no_alerts($t);

done_testing();
