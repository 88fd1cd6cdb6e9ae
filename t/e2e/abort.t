#!/usr/bin/perl

# The client goes away, in any phase, in any manner: the provider's connection
# is closed at once, and the log says 499.  With llm_adapter_client_abort drain
# the answer runs to its end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my ($t, $mock) = gateway(
    location => 'llm_adapter_passthrough openai;',
    locations => {
        '/drain/v1/' => 'llm_adapter_client_abort drain;',
        '/head/v1/' => 'llm_adapter_ping 100ms head=200ms;',
        '/short/v1/' => 'llm_adapter_client_abort drain; '
                        . 'llm_adapter_timeout total=1s;',
    });

my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;
my $n = 0;
my @ms;


# How a client can leave.  Each is (name, what to connect, what to do).

my @WAYS = (
    ['fin', sub { h1($t->port, @_) }, sub { $_[0]->abort('fin') }],
    ['rst', sub { h1($t->port, @_) }, sub { $_[0]->abort('rst') }],
    ['RST_STREAM', sub { h2($t->port('h2'), @_) },
        sub { $_[0]->reset($_[1], 8) }],
    ['h2 fin', sub { h2($t->port('h2'), @_) }, sub { $_[0]->abort('fin') }],
    ['h2 rst', sub { h2($t->port('h2'), @_) }, sub { $_[0]->abort('rst') }],
);


# Waits until the provider has seen one more close; tells how long it took.

sub provider_sees_it {
    my ($before, $when, $name, $count) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $want = $before->{aborted} + ($count // 1);
    my $stats = $mock->wait_stat('aborted', $want, 2 * $slow);
    is($stats->{aborted}, $want, "$name: the provider sees the close")
        or return;

    my $ms = $stats->{last_abort_mono_us} / 1000 - $when * 1000;
    push @ms, $ms;
    cmp_ok($ms, '<', 2000 * $slow, sprintf '%s: after %.1f ms', $name, $ms);
}


sub is_499 {
    my ($test, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $log = log_of($t, $test, 5 * $slow);
    is($log->{status}, 499, "$name: logged as 499");
    is($log->{error}, 'client_closed', "$name: \$llm_error");
    return $log;
}


sub provider_has_it {
    my ($before) = @_;
    $mock->wait_stat('requests', $before->{requests} + 1, 5 * $slow);
}


# --- in the upload ---

for (@WAYS) {
    my ($way, $connect, $leave) = @$_;

    for my $chunked ($way =~ /h2|STREAM/ ? (0) : (0, 1)) {
        my $name = "$way, in the upload" . ($chunked ? ', chunked' : '');
        my $test = 'abort ' . ++$n;
        my $before = $mock->stats;
        my $client = $connect->();
        my @headers = ('content-type' => 'application/json',
                       'x-test' => $test);
        my $half = substr body_of('chat', more => '"x":"' . 'y' x 200000 . '"'),
                          0, 100000;
        my $stream;

        if ($client->isa('LLM::H2')) {
            $stream = $client->start('POST', '/v1/chat/completions', open => 1,
                                     headers => \@headers);
            $client->send_data($stream, substr $half, 0, 40000);

        } elsif ($chunked) {
            $client->send_request('POST', '/v1/chat/completions', headers =>
                [@headers, 'transfer-encoding' => 'chunked']);
            $client->write(sprintf "%x\r\n%s\r\n", length $half, $half);

        } else {
            $client->send_request('POST', '/v1/chat/completions', headers =>
                [@headers, 'content-length' => 200000]);
            $client->write($half);
        }

        nap(0.1);
        $leave->($client, $stream);
        is_499($test, $name);
        is($mock->stats->{requests}, $before->{requests},
           "$name: the provider was not asked");
    }
}


# --- waiting for the head ---

for my $case (['chat', 1], ['chat', 0], ['messages', 1], ['embeddings', 0]) {
    my ($kind, $streamed) = @$case;

    for (@WAYS) {
        my ($way, $connect, $leave) = @$_;
        my $name = "$way, $kind, " . ($streamed ? 'stream' : 'plain')
                   . ', before the head';
        my $test = 'abort ' . ++$n;
        my $before = $mock->stats;
        my $client = $connect->();
        my $stream = start_ask($client, $kind, stream => $streamed,
                               test => $test, mock => { delay => '30s' });
        provider_has_it($before);

        my $when = now();
        $leave->($client, $stream);
        provider_sees_it($before, $when, $name);
        is_499($test, $name);
    }
}


# --- in the stream ---

for my $kind (qw(chat messages responses)) {
    for (@WAYS) {
        my ($way, $connect, $leave) = @$_;
        my $name = "$way, $kind, in the stream";
        my $test = 'abort ' . ++$n;
        my $before = $mock->stats;
        my $client = $connect->();
        my $stream = start_ask($client, $kind, stream => 1, test => $test,
                               mock => { events => 1000, gap => '100ms' });
        my $r = head_of($client, $stream);
        is($r->status, 200, "$name: it runs");
        $client->read_body($r, limit => 1);

        my $when = now();
        $leave->($client, $stream);
        provider_sees_it($before, $when, $name);
        is_499($test, $name);
    }
}


# --- silence after the first event: nothing is written that could fail ---

for (@WAYS) {
    my ($way, $connect, $leave) = @$_;
    my $name = "$way, a silent stream";
    my $test = 'abort ' . ++$n;
    my $before = $mock->stats;
    my $client = $connect->();
    my $stream = start_ask($client, 'chat', stream => 1, test => $test,
                           mock => { events => 5, at => 2,
                                     fault => 'stall' });
    my $r = head_of($client, $stream);
    $client->read_body($r, until => qr/"content":"[^"]/);

    my $when = now();
    $leave->($client, $stream);
    provider_sees_it($before, $when, $name);
    is_499($test, $name);
}


# --- after a head of our own ---

for (@WAYS) {
    my ($way, $connect, $leave) = @$_;
    my $name = "$way, after head=";
    my $test = 'abort ' . ++$n;
    my $before = $mock->stats;
    my $client = $connect->();
    my $stream = start_ask($client, 'chat', stream => 1, test => $test,
                           prefix => '/head', mock => { delay => '30s' });
    my $r = head_of($client, $stream);
    is($r->status, 200, "$name: the head is there");

    my $when = now();
    $leave->($client, $stream);
    provider_sees_it($before, $when, $name);
    is_499($test, $name);
}


# --- in a plain answer ---

for (@WAYS) {
    my ($way, $connect, $leave) = @$_;
    my $name = "$way, in a plain answer";
    my $test = 'abort ' . ++$n;
    my $before = $mock->stats;
    my $client = $connect->();
    my $stream = start_ask($client, 'embeddings', test => $test,
                           mock => { total => '4m', rate => '400k' });
    my $r = head_of($client, $stream);
    is($r->status, 200, "$name: it runs");
    $client->read_body($r, limit => 1000);

    my $when = now();
    $leave->($client, $stream);
    provider_sees_it($before, $when, $name);
    is_499($test, $name);
}


# --- while the client is full and the valve is closed ---

for (@WAYS) {
    my ($way, $connect, $leave) = @$_;

    for my $case (['chat', 1, { events => 200000, size => 200 }],
                  ['embeddings', 0, { total => '60m' }])
    {
        my ($kind, $streamed, $set) = @$case;
        my $name = "$way, $kind, nobody reads";
        my $test = 'abort ' . ++$n;
        my $before = $mock->stats;
        my $client = $connect->(rcvbuf => 16384, window => 60000, auto => 0);
        my $stream = start_ask($client, $kind, stream => $streamed,
                               test => $test, mock => $set);
        my $r = head_of($client, $stream);
        is($r->status, 200, "$name: it runs");

        # until the provider is stopped too
        my $out = -1;
        wait_for {
            my $now = $mock->stats->{bytes_out};
            my $same = $now == $out;
            $out = $now;
            $same;
        } 10 * $slow, 0.3;

        cmp_ok($mock->stats->{open_connections}, '>=', 1, "$name: open");
        is($mock->stats->{aborted}, $before->{aborted}, "$name: it waits");

        my $when = now();
        $leave->($client, $stream);
        provider_sees_it($before, $when, $name);
        is_499($test, $name);
    }
}


# --- drain ---

for my $case (
    ['chat, before the head', 'chat', 1, { delay => '700ms', events => 4 }, 0],
    ['chat, in the stream', 'chat', 1, { events => 8, gap => '80ms' }, 1],
    ['messages, in the stream', 'messages', 1,
        { events => 8, gap => '80ms' }, 1],
    ['responses, in the stream', 'responses', 1,
        { events => 8, gap => '80ms' }, 1],
    ['chat, plain', 'chat', 0, { delay => '700ms', events => 4 }, 0],
    ['embeddings, in the answer', 'embeddings', 0,
        { total => '600k', rate => '1m' }, 1],
    ['chat, much to come', 'chat', 1,
        { events => 40, size => 50000, gap => '10ms' }, 1],
    ['embeddings, much to come', 'embeddings', 0,
        { total => '6m', rate => '8m' }, 1],
) {
    my ($what, $kind, $streamed, $set, $read) = @$case;

    for (@WAYS) {
        my ($way, $connect, $leave) = @$_;
        my $name = "drain, $way, $what";
        my $test = 'abort ' . ++$n;
        my $before = $mock->stats;
        my $client = $connect->();
        my $stream = start_ask($client, $kind, stream => $streamed,
                               test => $test, prefix => '/drain',
                               mock => $set);
        provider_has_it($before);

        if ($read) {
            my $r = head_of($client, $stream);
            is($r->status, 200, "$name: it runs");
            $client->read_body($r, limit => 1);
        }

        $leave->($client, $stream);

        my $ended = wait_for { $mock->requests->[-1]{done} } 5 * $slow, 0.02;
        ok($ended, "$name: the provider's answer ends");
        is($mock->stats->{aborted}, $before->{aborted}, "$name: whole");

        my $log = is_499($test, $name);
        isnt($log->{prompt_tokens} // '', '', "$name: usage in the log");
        isnt($log->{finish_reason} // '', '', "$name: and how it ended")
            if $kind ne 'embeddings';
    }
}

{
    # a drained answer still has to be in time

    my $before = $mock->stats;
    my $client = h1($t->port);
    start_ask($client, 'chat', stream => 1, test => 'drain late',
              prefix => '/short', mock => { events => 5, at => 2,
                                            fault => 'stall' });
    my $r = $client->read_head;
    $client->abort('fin');
    my $stats = $mock->wait_stat('aborted', $before->{aborted} + 1, 3 * $slow);
    is($stats->{aborted}, $before->{aborted} + 1, 'drain: not for ever');
    is(log_of($t, 'drain late')->{status}, 499, 'drain, too late: 499');
}


# --- many at once ---

{
    my $count = 200;
    my $before = $mock->stats;
    my @clients = map { h1($t->port) } 1 .. $count;

    start_ask($_, 'chat', stream => 1, test => 'many',
              mock => { events => 1000, gap => '200ms' }) for @clients;
    $_->read_head for @clients;
    is($mock->stats->{open_streams} - $before->{open_streams}, $count,
       "$count streams run");

    my $when = now();
    $_->abort($_ % 2 ? 'rst' : 'fin') for @clients;
    provider_sees_it($before, $when, "$count at once", $count);
    is($mock->stats->{open_streams}, $before->{open_streams},
       'no stream is left');

    my @logs;
    wait_for { @logs = logs_of($t, 'many'); @logs >= $count } 5 * $slow;
    is(scalar(grep { $_->{status} == 499 } @logs), $count, 'all are 499');
}

{
    my $count = 100;
    my $before = $mock->stats;
    my $client = h2($t->port('h2'));
    my @streams = map {
        start_ask($client, 'messages', stream => 1, test => 'many h2',
                  mock => { events => 1000, gap => '200ms' })
    } 1 .. $count;
    $client->read_head($_) for @streams;
    is($mock->stats->{open_streams} - $before->{open_streams}, $count,
       "$count streams of one connection run");

    my $when = now();
    $client->reset($_) for @streams[0 .. 49];
    provider_sees_it($before, $when, '50 of one connection', 50);
    $client->read_some($streams[99]);
    is($streams[99]->end, '', 'the others run on');

    $when = now();
    $client->abort('fin');
    provider_sees_it($before, $when, 'the connection', $count);
}


# --- what is no abort ---

{
    my $client = h1($t->port);
    my ($method, $path, %o) = request_of('chat', stream => 1, test => 'pipe 1',
                                         mock => { events => 4,
                                                   gap => '100ms' });
    my ($method2, $path2, %o2) = request_of('chat', test => 'pipe 2');
    $client->write($client->format_head($method, $path, %o) . $o{body}
                   . $client->format_head($method2, $path2, %o2) . $o2{body});

    my $r = $client->read_response(method => 'POST');
    is_whole($r, 'chat', 'a pipelined request is no abort');
    is(log_of($t, 'pipe 1')->{status}, 200, 'it is a 200 in the log');

    my $r2 = $client->read_response(method => 'POST');
    is($r2->status, 200, 'and is answered in its turn');
    is($r2->body, $mock->last_response_body, 'with its own answer');
}

{
    # the second request comes while the first one's answer runs

    my $client = h1($t->port);
    start_ask($client, 'chat', stream => 1, mock => { events => 4,
                                                      gap => '150ms' });
    my $r = $client->read_head;
    $client->read_some($r);
    start_ask($client, 'messages', stream => 1, mock => { events => 3 });
    $client->read_body($r);
    is_whole($r, 'chat', 'a request during an answer is no abort');
    is_whole($client->read_response, 'messages', 'and is answered');
}

{
    # closing the sending side is leaving, as in nginx itself

    my $before = $mock->stats;
    my $client = h1($t->port);
    start_ask($client, 'chat', stream => 1, test => 'half',
              mock => { events => 1000, gap => '100ms' });
    my $r = $client->read_head;
    my $when = now();
    $client->half_close;
    provider_sees_it($before, $when, 'half close');
    is_499('half', 'half close');
}


# --- passthrough ---

for my $set ({ delay => '30s' }, { fault => 'stall', at => 10 }) {
    for (@WAYS) {
        my ($way, $connect, $leave) = @$_;
        my $name = "$way, passthrough, " . join ' ', %$set;
        my $test = 'abort ' . ++$n;
        my $before = $mock->stats;
        my $client = $connect->();
        my @headers = ('x-test' => $test,
                       map { ("x-mock-$_" => $set->{$_}) } keys %$set);
        my $stream;

        if ($client->isa('LLM::H2')) {
            $stream = $client->start('GET', '/v1/files', headers => \@headers);

        } else {
            $client->send_request('GET', '/v1/files', headers => \@headers);
        }

        provider_has_it($before);
        nap(0.1);
        my $when = now();
        $leave->($client, $stream);
        provider_sees_it($before, $when, $name);
        is(log_of($t, $test)->{status}, $set->{delay} ? 499 : 200,
           "$name: in the log") if $set->{delay};
    }
}


# --- over TLS ---

SKIP: {
    skip 'no IO::Socket::SSL', 1 if !have_tls();

    my ($cert, $key) = make_cert($t->dir);
    my ($s, $m) = gateway(mock => $mock, server => <<"EOT");
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate $cert;
        ssl_certificate_key $key;
EOT

    for my $way (qw(fin rst)) {
        my $before = $mock->stats;
        my $client = h1($s->port('tls'), tls => { ca => $cert });
        start_ask($client, 'chat', stream => 1, test => "tls $way",
                  mock => { events => 1000, gap => '100ms' });
        my $r = $client->read_head;
        is($r->status, 200, "TLS, $way: it runs");
        my $when = now();
        $client->abort($way);
        provider_sees_it($before, $when, "TLS, $way");
        is(log_of($s, "tls $way")->{status}, 499, "TLS, $way: 499");
    }

    no_alerts($s, name => 'TLS: no alerts');
}

@ms = sort { $a <=> $b } @ms;
diag(sprintf 'aborts reached the provider after %.1f ms (median), %.1f (most)',
     $ms[@ms / 2], $ms[-1]) if @ms;

is($mock->stats->{open_streams}, 0, 'the provider has no open stream');
no_alerts($t);

done_testing();
