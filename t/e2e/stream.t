#!/usr/bin/perl

# Streams: each event's payload byte for byte, over HTTP/1.1, HTTP/1.0 and
# HTTP/2, as it comes, whatever the provider's framing; usage that was asked
# for by us; flush and ping.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my ($t, $mock) = gateway(
    location => 'llm_adapter_ping off;',
    locations => {
        '/flush/v1/' => 'llm_adapter_ping off; llm_adapter_flush 20ms;',
        '/ping/v1/' => 'llm_adapter_ping 100ms;',
        '/head/v1/' => 'llm_adapter_ping 100ms head=300ms;',
        '/nousage/v1/' => 'llm_adapter nousage;',
        '/gzip/v1/' => 'gzip on; gzip_http_version 1.0; gzip_proxied any; '
                       . 'gzip_types text/event-stream application/json; '
                       . 'llm_adapter_ping 150ms;',
    },
    http => <<'EOT');
    llm_adapter_provider nousage {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        stream_usage off;
    }
EOT

my @STREAMED = qw(chat completions messages responses);
my %HIDES = (chat => 1, completions => 1);


# When did the first and the last content event arrive, and in how many steps?

sub arrivals {
    my ($r) = @_;
    my @times = map { $_->[0] } @{ $r->chunks };
    my %steps = map { int($_ * 50) => 1 } @times;
    return ($times[0], $times[-1], scalar keys %steps);
}


sub comments {
    my ($r) = @_;
    return map { @{ $_->{comments} } } sse_events($r->body);
}


# --- transports ---

for my $kind (@STREAMED) {

    for my $way (qw(h1 h1.0 h2)) {
        my $client = $way eq 'h2' ? h2($t->port('h2')) : h1($t->port);
        my $name = "$kind, $way";
        my $r = ask($client, $kind, stream => 1, test => $name,
                    mock => { events => 5, size => 30 },
                    $way eq 'h1.0' ? (version => '1.0') : ());

        is_whole($r, $kind, "$name: whole");
        is_same_events($r, $mock, name => $name, hidden => $HIDES{$kind});

        like($r->header('content-type'), qr{^text/event-stream},
             "$name: type");
        is($r->header('cache-control'), 'no-cache', "$name: Cache-Control");
        is($r->header('x-accel-buffering'), 'no', "$name: X-Accel-Buffering");
        is($r->header('content-length'), undef, "$name: no length");
        is(scalar($r->header_all('cache-control')), 1,
           "$name: one Cache-Control");

        is($r->end, 'chunked', "$name: chunked") if $way eq 'h1';
        is($r->end, 'eof', "$name: ended by close") if $way eq 'h1.0';
        is($r->header('transfer-encoding'), undef, "$name: not chunked")
            if $way ne 'h1';

        my $log = log_of($t, $name);
        is($log->{status}, 200, "$name: status in the log");
        is($log->{error}, '', "$name: no error in the log");
        is($log->{stream}, 1, "$name: \$llm_stream") if $way eq 'h1';
        isnt($log->{completion_tokens}, '', "$name: usage in the log");
        isnt($log->{ttft}, '', "$name: ttft in the log");
    }
}


# --- as it comes ---

for my $kind (@STREAMED) {
    for my $way (qw(h1 h2)) {
        my $client = $way eq 'h2' ? h2($t->port('h2')) : h1($t->port);
        my $r = ask($client, $kind, stream => 1, test => "live $kind $way",
                    mock => { events => 4, gap => '120ms', size => 20 });
        my ($first, $last, $steps) = arrivals($r);

        cmp_ok($last - $first, '>', 0.25,
               "$kind, $way: the first event did not wait for the last");
        cmp_ok($steps, '>=', 4, "$kind, $way: events come one by one");
        is_whole($r, $kind, "$kind, $way: whole");
    }
}

{
    # what one read from the provider brought leaves as one piece

    my $r = ask(h1($t->port), 'chat', stream => 1,
                mock => { events => 60, size => 20 });
    is_whole($r, 'chat', 'a burst: whole');
    cmp_ok(scalar @{ $r->chunks }, '<=', 2, 'one flush for one read');

    my $s = ask(h2($t->port('h2')), 'chat', stream => 1,
                mock => { events => 60, size => 20 });
    is_whole($s, 'chat', 'a burst, h2: whole');

    # nginx cuts DATA frames at http2_chunk_size, 8k
    my $frames = grep { length $_->[1] } @{ $s->chunks };
    cmp_ok($frames, '<=', int(length($s->body) / 8192) + 3,
           'one flush for one read, h2');
}


# --- how a provider may write events ---

my @FRAMINGS = (
    {},
    { eol => 'crlf' },
    { eol => 'cr' },
    { bom => 1 },
    { comments => 1 },
    { multiline => 1 },
    { no_last_newline => 1 },
    { ids => 1 },
    { named => 1 },
    { unknown => 1 },
    { obfuscation => 1 },
    { obfuscation => 0 },
    { azure => 1 },
    { thinking => 3 },
    { chunk => 7 },
    { stream_framing => 'chunked' },
    { stream_framing => 'length' },
    { stream_framing => 'close' },
    { stream_framing => 'close', no_last_newline => 1 },
    { heartbeat => '20ms', gap => '30ms', events => 4 },
    { eol => 'crlf', bom => 1, comments => 1, multiline => 1, ids => 1,
      unknown => 1, chunk => 3 },
    { eol => 'cr', bom => 1, comments => 1, multiline => 1, ids => 1,
      no_last_newline => 1 },
);

for my $mock_set (@FRAMINGS) {
    my $what = join ' ', map { "$_=$mock_set->{$_}" } sort keys %$mock_set;

    for my $kind (@STREAMED) {
        my $name = "$kind, " . ($what || 'as documented');
        my $r = ask(h1($t->port), $kind, stream => 1, close => 1,
                    mock => { events => 6, size => 24, %$mock_set });

        is_whole($r, $kind, "$name: whole");
        is_same_events($r, $mock, name => $name, hidden => $HIDES{$kind});
        is(scalar(grep { !$_->{complete} } sse_events($r->body)), 0,
           "$name: each event ends with a blank line");
        unlike($r->body, qr/\xef\xbb\xbf/, "$name: no byte order mark")
            if $mock_set->{bom};
    }
}

{
    # tool calls too

    my $tools = '"tools":[{"type":"function","function":{"name":"f"}}]';
    my $r = ask(h1($t->port), 'chat', stream => 1, more => $tools,
                mock => { tools => 2, events => 4 });
    is_whole($r, 'chat', 'tool calls: whole');
    like($r->body, qr/"tool_calls"/, 'there were tool calls');
    is_same_events($r, $mock, name => 'tool calls', hidden => 1);
}

{
    # any split: one, two ... bytes a write, at the same time

    my %same = (seed => 7, events => 2, size => 12, ids => 1, eol => 'crlf');

    for my $kind (qw(chat messages)) {
        my (@clients, %body);

        for my $n (0 .. 13) {
            my $client = h1($t->port, timeout => 30);
            start_ask($client, $kind, stream => 1,
                      mock => { %same, $n ? (split => $n) : () });
            push @clients, [$n, $client];
        }

        for (@clients) {
            my ($n, $client) = @$_;
            my $r = $client->read_response;
            is_whole($r, $kind, "$kind, split=$n: whole");
            $body{$n} = join "\n", events_of($r->body);
            $body{$n} =~ s/"(created\w*)":\d+/"$1":0/g;
        }

        is(scalar(grep { $body{$_} ne $body{0} } 1 .. 13), 0,
           "$kind: the same events, however they were cut");
    }
}


# --- sizes ---

# (the mock provider says an event's text five times in a responses stream)

for my $case ([chat => 4], [messages => 4], [responses => 1]) {
    my ($kind, $mb) = @$case;
    my %big = (events => 3, size => 20, big_event => "${mb}m", at => 2);

    for my $way (qw(h1 h2)) {
        my $client = $way eq 'h2'
            ? h2($t->port('h2'), timeout => 30, window => 1 << 20)
            : h1($t->port, timeout => 30);
        my $name = "$kind, $way, an event of $mb MB";
        my $r = ask($client, $kind, stream => 1, mock => \%big);

        is_whole($r, $kind, "$name: whole");
        cmp_ok(length $r->body, '>', $mb << 20, "$name: it was that big");
        is_same_events($r, $mock, name => $name, hidden => $HIDES{$kind});
    }
}

{
    my %huge = (events => 3, size => 20, big_event => '17m');

    my $r = ask(h1($t->port, timeout => 30), 'chat', stream => 1,
                test => 'huge later', mock => { %huge, at => 2 });
    my $e = is_in_band($r, 'chat', 'an event over 16 MB');
    is($e->{code}, 'event_too_large', 'its code');
    cmp_ok(length $r->body, '<', 1 << 20, 'nothing of it was shown');
    is(log_of($t, 'huge later')->{error}, 'event_too_large', 'in the log');

    $r = ask(h1($t->port, timeout => 30), 'chat', stream => 1,
             test => 'huge first', mock => { %huge, at => 1 });
    is_error($r, 'chat', 502, 'an event over 16 MB comes first');
    is(log_of($t, 'huge first')->{error}, 'event_too_large', 'in the log');

    # just below: 15 MB of text
    $r = ask(h1($t->port, timeout => 30), 'chat', stream => 1,
             mock => { events => 3, size => 20, big_event => '15m', at => 2 });
    is($r->end, 'chunked', 'an event of 15 MB: whole');
    like(substr($r->body, -20), qr/\n\ndata: \[DONE\]\n\n\z/,
         'an event of 15 MB: its end');
    cmp_ok(length $r->body, '>', 15 << 20, 'an event of 15 MB: all of it');
}


# --- usage ---

for my $kind (qw(chat completions)) {

    my @asks = (
        # what the client says, what the provider is told, whether it is shown
        ['', 1, 0],
        ['"stream_options":{"include_usage":true}', 1, 1],
        ['"stream_options":{"include_usage":false}', 1, 0],
        ['"stream_options":{"include_obfuscation":false}', 1, 0],
        ['"stream_options":{}', 1, 0],
        ['"stream_options":null', 1, 0],
    );

    for (@asks) {
        my ($more, $told, $shown) = @$_;

        for my $usage (qw(chunk last off)) {
            my $name = "$kind, usage=$usage, asked with '$more'";
            my $r = ask(h1($t->port), $kind, stream => 1, close => 1,
                        test => $name, mock => { events => 3, usage => $usage },
                        $more ? (more => $more) : ());

            my $json = json_decode($mock->last_body);
            is($json->{stream_options}{include_usage} ? 1 : 0, $told,
               "$name: usage is asked of the provider");

            is_whole($r, $kind, "$name: whole");
            is_same_events($r, $mock, name => $name, hidden => !$shown);
            is(scalar(grep { usage_only($_) } events_of($r->body)),
               $shown && $usage eq 'chunk' ? 1 : 0,
               "$name: " . ($shown ? 'shown' : 'kept from the client'));

            my $log = log_of($t, $name);
            is($log->{prompt_tokens} ne '' ? 1 : 0, $usage ne 'off' ? 1 : 0,
               "$name: in the log");
            is($log->{usage_source}, $usage ne 'off' ? 'provider' : '',
               "$name: its source");
        }
    }

    # other members of stream_options stay

    ask(h1($t->port), $kind, stream => 1, close => 1,
        more => '"stream_options": {"include_obfuscation" :false , "x":[1e2]}',
        mock => { events => 2 });
    my $body = $mock->last_body;
    like($body, qr/"include_obfuscation" :false , "x":\[1e2\]/,
         "$kind: other stream_options stay as written");

    # not for plain answers, not where the operator says no

    ask(h1($t->port), $kind, mock => { events => 2 });
    unlike($mock->last_body, qr/stream_options/, "$kind, plain: not asked");
    is($mock->last_body, body_of($kind), "$kind, plain: nothing is changed");

    my $r = ask(h1($t->port), $kind, stream => 1, prefix => '/nousage',
                test => "nousage $kind", mock => { events => 3 });
    is($mock->last_body, body_of($kind, stream => 1),
       "$kind, stream_usage off: the request is not changed");
    is_same_events($r, $mock, name => "$kind, stream_usage off");
    is(log_of($t, "nousage $kind")->{prompt_tokens}, '',
       "$kind, stream_usage off: no usage in the log");
}

for my $kind (qw(messages responses)) {
    my $r = ask(h1($t->port), $kind, stream => 1, close => 1,
                test => "usage $kind", mock => { events => 3, cached => 5 });
    is($mock->last_body, body_of($kind, stream => 1),
       "$kind: the request is not changed");
    my $log = log_of($t, "usage $kind");
    isnt($log->{$_}, '', "$kind: $_ in the log")
        for qw(prompt_tokens completion_tokens finish_reason);
    is($log->{cached_tokens}, 5, "$kind: cached_tokens in the log");
}


# --- llm_adapter_flush ---

{
    my %fast = (events => 60, gap => '3ms', size => 20, seed => 3);
    my (%body, %chunks);

    for my $prefix ('', '/flush') {
        my $r = ask(h1($t->port), 'chat', stream => 1, prefix => $prefix,
                    mock => \%fast);
        my $name = $prefix ? 'flush' : 'no flush';
        is_whole($r, 'chat', "$name: whole");
        is_same_events($r, $mock, name => $name, hidden => 1);
        $chunks{$prefix} = scalar @{ $r->chunks };
    }

    diag("chunks: $chunks{''}, with llm_adapter_flush: $chunks{'/flush'}");
    cmp_ok($chunks{'/flush'}, '<', $chunks{''} / 2,
           'llm_adapter_flush: fewer chunks');

    # the last event of a turn does not wait for the next one

    my $r = ask(h1($t->port), 'chat', stream => 1, prefix => '/flush',
                mock => { events => 3, gap => '200ms' });
    my ($first, $last, $steps) = arrivals($r);
    cmp_ok($steps, '>=', 3, 'llm_adapter_flush: slow events come one by one');
    is_whole($r, 'chat', 'llm_adapter_flush: a slow stream is whole');

    my $s = ask(h2($t->port('h2')), 'messages', stream => 1,
                prefix => '/flush', mock => \%fast);
    is_whole($s, 'messages', 'flush, h2: whole');
    is_same_events($s, $mock, name => 'flush, h2');
}


# --- llm_adapter_ping ---

for my $way (qw(h1 h2)) {
    my $client = sub { $way eq 'h2' ? h2($t->port('h2')) : h1($t->port) };

    for my $kind (qw(chat completions responses)) {
        my $r = ask($client->(), $kind, stream => 1, prefix => '/ping',
                    mock => { events => 2, gap => '550ms' });
        my $name = "$kind, $way, ping";
        is_whole($r, $kind, "$name: whole");
        cmp_ok(scalar(comments($r)), '>=', 3, "$name: comments");
        cmp_ok(scalar(comments($r)), '<=', 12, "$name: not too many");
        is_same_events($r, $mock, name => $name, hidden => $HIDES{$kind});
        unlike($r->body, qr/event: ping/, "$name: no event");
    }

    my $r = ask($client->(), 'messages', stream => 1, prefix => '/ping',
                mock => { events => 2, gap => '550ms' });
    my @events = sse_events($r->body);
    my @pings = grep { ($_->{event} // '') eq 'ping' } @events;

    is_whole($r, 'messages', "messages, $way, ping: whole");
    cmp_ok(scalar(@pings), '>=', 3, "messages, $way: ping events");
    is_deeply([map { json_decode($_->{data}) } @pings],
              [map { { type => 'ping' } } @pings],
              "messages, $way: what a ping says");
    is($events[0]{event}, 'message_start',
       "messages, $way: none before message_start");

    my @mine = grep { !/^ping\|/ } events_of($r->body);
    my @theirs = grep { !/^ping\|/ } events_of($mock->last_response_body);
    is_deeply(\@mine, \@theirs, "messages, $way, ping: the same events");
}

{
    # an event that comes slowly: pings stand before or after it

    for my $kind (qw(chat messages)) {
        my $r = ask(h1($t->port, timeout => 20), $kind, stream => 1,
                    prefix => '/ping',
                    mock => { events => 3, size => 300, rate => 2500 });
        is_whole($r, $kind, "$kind, slow bytes: whole");
        cmp_ok(scalar(() = $r->body =~ /^(?:: ping|event: ping)/mg), '>=', 1,
               "$kind, slow bytes: pings");

        my @mine = grep { !/^ping\|/ } events_of($r->body);
        my @theirs = grep { !/^ping\|/ && !($kind eq 'chat' && usage_only($_)) }
                     events_of($mock->last_response_body);
        is_deeply(\@mine, \@theirs,
                  "$kind, slow bytes: no ping within an event");
    }
}

{
    # not in plain answers, not when it is off

    my $r = ask(h1($t->port), 'chat', prefix => '/ping',
                mock => { delay => '400ms', events => 2 });
    is($r->body, $mock->last_response_body, 'no ping in a plain answer');

    $r = ask(h1($t->port), 'embeddings', prefix => '/head',
             mock => { delay => '600ms' });
    is($r->status, 200, 'no head of its own for a plain answer');
    is($r->body, $mock->last_response_body, 'no ping in a plain answer');
    cmp_ok($r->head_at - $r->started, '>', 0.5, 'it waits for the provider');

    $r = ask(h1($t->port), 'chat', stream => 1,
             mock => { events => 2, gap => '300ms' });
    is(scalar(comments($r)), 0, 'llm_adapter_ping off');
}


# --- llm_adapter_ping head= ---

for my $way (qw(h1 h2)) {
    my $client = sub { $way eq 'h2' ? h2($t->port('h2')) : h1($t->port) };

    for my $kind (@STREAMED) {
        my $name = "$kind, $way, head=";
        my $c = $client->();
        my $s = start_ask($c, $kind, stream => 1, prefix => '/head',
                          test => $name,
                          mock => { delay => '900ms', events => 3 });
        my $r = head_of($c, $s);
        my $waited = $r->head_at - $r->started;

        cmp_ok($waited, '>', 0.25, "$name: not before its time");
        cmp_ok($waited, '<', 0.8, "$name: the head does not wait");
        is($r->status, 200, "$name: status");
        is($r->header('x-request-id') // $r->header('request-id'), undef,
           "$name: no header of the provider");
        like($r->header('content-type'), qr{^text/event-stream},
             "$name: type");

        $c->read_body($r);
        is_whole($r, $kind, "$name: whole");
        like($r->body, qr/\A: ping\n\n/, "$name: a comment comes first")
            if $kind ne 'messages';
        unlike(($r->body =~ /\A(.*?)^event: message_start/ms)[0] // '',
               qr/^(?:event|data):/m, "$name: no event before message_start")
            if $kind eq 'messages';
        is_same_events($r, $mock, name => $name, hidden => $HIDES{$kind});
    }

    # the 200 is out: what fails later is told in-band

    for my $kind (@STREAMED) {
        my $name = "$kind, $way, head= and then an error";
        my $r = ask($client->(), $kind, stream => 1, prefix => '/head',
                    test => $name,
                    mock => { delay => '600ms', status => 500 });
        is_in_band($r, $kind, $name);
        is(log_of($t, $name)->{status}, 200, "$name: status in the log");
        isnt(log_of($t, $name)->{error}, '', "$name: error in the log");
    }

    # an answer that is in time is not touched

    my $r = ask($client->(), 'chat', stream => 1, prefix => '/head',
                mock => { status => 429 });
    is_error($r, 'chat', 429, "$way, head= and an error in time");

    $r = ask($client->(), 'chat', stream => 1, prefix => '/head',
             mock => { events => 2 });
    is(scalar(comments($r)), 0, "$way, head= and an answer in time");
    isnt($r->header('x-request-id'), undef, "$way: provider's headers then");
}

{
    # a ping that the client does not take yet, and much behind it

    my $c = h2($t->port('h2'), window => 0, auto => 'conn');
    my $s = start_ask($c, 'chat', stream => 1, prefix => '/head',
                      mock => { delay => '500ms', events => 400, size => 100,
                                gap => '1ms' });
    $c->read_head($s);
    nap(1.5);
    $c->window_update($s, 1 << 20);
    $c->read_body($s);

    is_whole($s, 'chat', 'a ping that waits, and a stream behind it: whole');
    is_same_events($s, $mock, name => 'a ping that waits', hidden => 1);
}


# --- through nginx's own gzip, if the operator wants that ---

SKIP: {
    skip 'no Compress::Raw::Zlib', 1
        if !eval { require Compress::Raw::Zlib; 1 };

    for my $way (qw(h1 h2)) {
        for my $kind (qw(chat messages embeddings)) {
            my $name = "$kind, $way, gzip";
            my $client = $way eq 'h2' ? h2($t->port('h2')) : h1($t->port);
            my $s = start_ask($client, $kind, prefix => '/gzip',
                              stream => $kind ne 'embeddings',
                              headers => ['accept-encoding' => 'gzip'],
                              mock => { events => 40, size => 200,
                                        gap => '10ms' });
            my $r = head_of($client, $s);
            is($r->header('content-encoding'), 'gzip', "$name: encoded");

            my ($zip) = Compress::Raw::Zlib::Inflate->new(
                -WindowBits => Compress::Raw::Zlib::WANT_GZIP(),
                -AppendOutput => 1);
            my ($text, $early, $seen) = ('', 0, 0);

            while (1) {
                my $raw = substr $r->body, $seen;
                $seen += length $raw;
                $zip->inflate($raw, $text) if $raw ne '';
                $early ||= length $text if !$r->end && $text =~ /content/;
                last if $r->end || $client->read_some($r) eq '' && $r->end;
            }

            ok($r->complete, "$name: whole");
            $r->{body} = $text;

            if ($kind eq 'embeddings') {
                is($text, $mock->last_response_body, "$name: its bytes");
                next;
            }

            is_whole($r, $kind, "$name: the stream is whole");
            is_same_events($r, $mock, name => $name, hidden => $HIDES{$kind});
            cmp_ok($early, '<', length($text) / 2, "$name: it comes live")
                if $early;
            ok($early, "$name: before its end");
        }
    }
}

no_alerts($t);

done_testing();
