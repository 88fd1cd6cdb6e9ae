#!/usr/bin/perl

# The mock provider: errors, faults, and when things happen.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Compress::Zlib qw/ memGunzip /;
use JSON::PP;

use Client;

start('-p', '0');

my %stream = (stream => JSON::PP::true);
my ($a, $d, @d, @e, $s);

my @all = qw! chat/completions completions responses messages !;
my %terminal = ('chat/completions' => '[DONE]', completions => '[DONE]',
	responses => 'response.completed', messages => 'message_stop');

sub last_event {
	my @e = events($_[0]);
	return @e ? $e[-1]{event} // $e[-1]{data} : '';
}


# --- error answers

my %openai = (400 => 'invalid_request_error', 401 => 'invalid_request_error',
	429 => 'requests', 500 => 'server_error', 503 => 'server_error');
my %anthropic = (400 => 'invalid_request_error', 401 => 'authentication_error',
	403 => 'permission_error', 404 => 'not_found_error',
	413 => 'request_too_large', 429 => 'rate_limit_error',
	500 => 'api_error', 529 => 'overloaded_error');

for my $n (sort keys %openai) {
	$a = post('chat/completions', { status => $n }, \%stream);
	is($a->{status}, $n, "status=$n");
	is(json($a)->{error}{type}, $openai{$n}, "$n in OpenAI's dialect");
	is($a->{end}, 'done', "$n ends well");
}

for my $n (sort keys %anthropic) {
	$a = post('messages', { status => $n }, \%stream);
	is("$a->{status} " . json($a)->{error}{type}, "$n $anthropic{$n}",
		"$n in Anthropic's dialect");
	is(json($a)->{type}, 'error', "$n type");
}

$d = json(post('chat/completions', { status => 400,
	code => 'context_length_exceeded' }));
is($d->{error}{code}, 'context_length_exceeded', 'code=');
like($d->{error}{message}, qr/maximum context length is/, 'its message');
$d = json(post('messages', { status => 400,
	code => 'context_length_exceeded' }));
like($d->{error}{message}, qr/^prompt is too long: \d+ tokens > \d+ maximum$/,
	'the words of Anthropic');
is(json(post('responses', { status => 429, code => 'insufficient_quota' }))
	->{error}{type}, 'insufficient_quota', 'insufficient_quota');
is(json(post('chat/completions', { status => 500, message => 'a "b"' }))
	->{error}{message}, 'a "b"', 'message=');

$a = post('chat/completions', { status => 429, retry_after => 3,
	retry_after_ms => 2500, should_retry => 'false' });
is("$a->{h}{'retry-after'} $a->{h}{'retry-after-ms'} $a->{h}{'x-should-retry'}",
	'3 2500 false', 'retry_after=, retry_after_ms=, should_retry=');
$a = post('chat/completions', { status => 429 });
like($a->{h}{'x-ratelimit-reset-requests'}, qr/./, 'rate limits are told');
for my $p (qw! chat/completions messages !) {
	$a = post($p, { status => 429, limits => 'off' });
	is(join(' ', grep { /ratelimit/ } keys %{$a->{h}}), '', "limits=off, $p");
}
$a = post('chat/completions', { status => 502, body => '<html>bad</html>' });
is("$a->{status} $a->{h}{'content-type'} $a->{body}",
	'502 text/html <html>bad</html>', 'body=');
$a = post('chat/completions', { body => '{"a":' });
is("$a->{status} $a->{body}", '200 {"a":', 'body= alone');
$a = post('chat/completions', { status => 204 });
is("$a->{status} $a->{body} " . ($a->{h}{'content-length'} // '-'),
	'204  -', '204 has no body');
is(get('/v1/models?mock_status=500')->{status}, 500, 'status of a GET');

# --- fails, flap, key

is(join(' ', map { post('chat/completions', { status => 500, fails => 2,
	key => 'a' })->{status} } 1 .. 4), '500 500 200 200', 'fails=2');
is(join(' ', map { post('chat/completions', { status => 500, flap => 2,
	key => 'b' })->{status} } 1 .. 6), '500 500 200 200 500 500', 'flap=2');
is(post('chat/completions', { status => 500, fails => 1, key => 'c' })
	->{status}, 500, 'keys apart');
is(post('chat/completions', { fault => 'reset', fails => 0 })->{status}, 200,
	'a fault is lifted too');

# --- before the head

for (['reset', 'rst', ''], ['close', 'eof', ''],
	['close_mid_head', 'eof', "HTTP/1.1 200 OK\r\nContent-Type: applica"])
{
	$a = post('chat/completions', { fault => $_->[0] }, \%stream);
	is("$a->{end} $a->{raw}", "$_->[1] $_->[2]", $_->[0]);
}

$a = post('chat/completions', { fault => 'hang' }, {}, timeout => 0.2);
is("$a->{end} $a->{raw}", 'timeout ', 'hang');
$a = post('chat/completions', { fault => 'hang_head' }, \%stream,
	timeout => 0.2);
is("$a->{end} $a->{status} $a->{body}", 'timeout 200 ', 'hang_head');
$a = post('chat/completions', { fault => 'bad_head' });
unlike($a->{raw}, qr{^HTTP/1}, 'bad_head');
is($a->{end}, 'eof', 'bad_head ends');

# --- errors in a 200

for my $p (@all) {
	$a = post($p, { fault => 'error200' }, \%stream);
	is($a->{status}, 200, "$p error200");
	is($a->{h}{'content-type'}, 'application/json', "$p error200 plain");
	ok(json($a)->{error}, "$p error200 error");

	$a = post($p, { fault => 'error_first' }, \%stream);
	@d = datas($a->{body});
	ok($d[-1]{error} || $d[-1]{type} eq 'error', "$p error_first");
	is(content_of($a->{body}), '', "$p error_first: no content");
	is($a->{end}, 'done', "$p error_first: a clean end");
	unlike($a->{body}, qr/DONE|message_stop/, "$p error_first: no more");
	unlike($a->{body}, qr/output_item/, "$p error_first: after the preamble");

	$a = post($p, { fault => 'error_event', at => 3, size => 4 }, \%stream);
	is(length content_of($a->{body}), 12, "$p error_event at=3");
	@d = datas($a->{body});
	ok($d[-1]{error} || $d[-1]{response}{error}, "$p error_event");
}

$a = post('responses', { fault => 'error_event', at => 1 }, \%stream);
@d = datas($a->{body});
is("$d[-1]{type} $d[-1]{response}{status} $d[-1]{response}{error}{code}",
	'response.failed failed server_error', 'response.failed');
is($d[-1]{sequence_number}, $#d, 'next sequence_number');
$a = post('messages', { fault => 'error_event' }, \%stream);
is(last_event($a->{body}), 'error', 'event: error');
is((datas($a->{body}))[-1]{error}{type}, 'overloaded_error', 'overloaded');

# --- ends of streams

for my $p (@all) {
	my $t = $terminal{$p};

	is(last_event(post($p, {}, \%stream)->{body}), $t, "$p terminal");

	$a = post($p, { fault => 'cut', at => 2, size => 4 }, \%stream);
	is("$a->{end} " . length content_of($a->{body}), 'eof 8', "$p cut");
	unlike($a->{raw}, qr/\r\n0\r\n\r\n$/, "$p cut: no last chunk");

	$a = post($p, { fault => 'clean_cut', at => 2, size => 4 }, \%stream);
	is("$a->{end} " . length content_of($a->{body}), 'done 8',
		"$p clean_cut");
	unlike($a->{body}, qr/"(stop|end_turn|completed)"|DONE/,
		"$p clean_cut: no finish");

	$a = post($p, { fault => 'reset_mid', at => 2, size => 4 }, \%stream);
	is("$a->{end} " . length content_of($a->{body}), 'rst 8',
		"$p reset_mid");

	$a = post($p, { fault => 'stall', at => 2, size => 4 }, \%stream,
		timeout => 0.1);
	is("$a->{end} " . length content_of($a->{body}), 'timeout 8',
		"$p stall");

	$a = post($p, { fault => 'no_done' }, \%stream);
	is($a->{end}, 'done', "$p no_done");
	isnt(last_event($a->{body}), $t, "$p no_done: no terminal event");

	$a = post($p, { fault => 'no_finish' }, \%stream);
	is($a->{end}, 'done', "$p no_finish");
	unlike($a->{body}, qr/"finish_reason":"stop"|end_turn|response.completed/,
		"$p no_finish: none");

	$a = post($p, { fault => 'malformed', at => 2, events => 4, size => 4 },
		\%stream);
	my @bad = grep { $_->{data} ne '[DONE]' && !eval { decode_json($_->{data}) } }
		events($a->{body});
	is(@bad, 1, "$p malformed: one bad event");
	is(last_event($a->{body}), $t, "$p malformed: otherwise whole");

	$a = post($p, { fault => 'not_sse' }, \%stream);
	is($a->{h}{'content-type'}, 'application/json', "$p not_sse");
	ok(json($a), "$p not_sse is JSON");

	$a = post($p, { fault => 'done_open' }, \%stream, timeout => 0.1);
	is("$a->{end} " . last_event($a->{body}), "timeout $t", "$p done_open");
}

like(post('chat/completions', { fault => 'no_done' }, \%stream)->{body},
	qr/"finish_reason":"stop"/, 'no_done has a finish_reason');
like(post('messages', { fault => 'no_done' }, \%stream)->{body},
	qr/end_turn/, 'no_done has a stop_reason');
like(post('chat/completions', { fault => 'no_finish' }, \%stream)->{body},
	qr/DONE/, 'no_finish has [DONE]');

$a = post('chat/completions', { fault => 'cut', events => 3, at => 100 },
	\%stream);
is(length content_of($a->{body}), 48, 'cut beyond the last delta');
unlike($a->{body}, qr/"stop"/, 'comes before the finish chunk');

# --- other bodies

$a = post('chat/completions', { fault => 'gzip' });
is($a->{h}{'content-encoding'}, 'gzip', 'gzip');
ok(decode_json(memGunzip($a->{body}))->{choices}, 'true gzip');
$a = post('chat/completions', { fault => 'gzip', total => '1m' });
is(length decode_json(memGunzip($a->{body}))->{choices}[0]{message}{content},
	1 << 20, 'true gzip of 1 MB');
$a = post('chat/completions', { fault => 'gzip' }, \%stream);
like(memGunzip($a->{body}), qr/\[DONE\]\n\n$/, 'gzip of a stream');

my %so = (%stream, stream_options => { include_usage => JSON::PP::true });
$a = post('chat/completions', { fault => 'no_stream_options' }, \%so);
is($a->{status}, 400, 'no_stream_options');
is(json($a)->{error}{param}, 'stream_options', 'names it');
like(json($a)->{error}{message}, qr/stream_options/, 'in words too');
is(post('chat/completions', { fault => 'no_stream_options', status => 422 },
	\%so)->{status}, 422, 'or 422');
$a = post('chat/completions', { fault => 'no_stream_options' }, \%stream);
is(last_event($a->{body}), '[DONE]', 'works without');

for my $b ({}, \%stream) {
	my $what = %$b ? 'stream' : 'plain';

	$a = post('chat/completions', { fault => 'short' }, $b);
	is($a->{end}, 'eof', "short $what");
	is($a->{h}{'content-length'}, 100 + length $a->{body}, "short by 100");

	$a = post('chat/completions', { fault => 'long' }, $b, to_eof => 1);
	cmp_ok(length $a->{body}, '>', $a->{h}{'content-length'}, "long $what");
}

for (['cut', 'eof', 100], ['reset_mid', 'rst', 100],
	['stall', 'timeout', 100], ['clean_cut', 'done', 100])
{
	$a = post('chat/completions', { fault => $_->[0], at => 100 }, {},
		timeout => 0.2);
	is("$a->{end} " . length $a->{body}, "$_->[1] $_->[2]",
		"plain $_->[0] at byte 100");
}
$a = post('chat/completions', { fault => 'done_open' }, {}, timeout => 0.1);
is($a->{end}, 'timeout', 'plain done_open');
ok(json($a), 'plain done_open has all of it');

# --- keepalive

$s = connect_to();
post('chat/completions', {}, \%stream, sock => $s) for 1 .. 3;
is(post('chat/completions', {}, {}, sock => $s)->{status}, 200, 'keepalive');
$a = post('chat/completions', { keepalive => 'off' }, {}, sock => $s,
	to_eof => 1);
is("$a->{h}{connection} $a->{end}", 'close eof', 'keepalive=off');
$a = post('chat/completions', {}, {}, to_eof => 1,
	headers => { Connection => 'close' });
is("$a->{h}{connection} $a->{end}", 'close eof', 'Connection: close');
for my $b ({}, \%stream) {
	for (1 .. 3) {    # the machine may be busy
		$a = post('chat/completions', { fault => 'close_after' }, $b,
			to_eof => 1);
		last if $a->{ms} < 45;
	}
	is("$a->{h}{connection} $a->{end}", 'keep-alive eof', 'close_after');
	cmp_ok($a->{ms}, '<', 45, 'close_after at once');
	$a = post('chat/completions', { fault => 'half_close_idle' }, $b,
		to_eof => 1);
	is("$a->{h}{connection} $a->{end}", 'keep-alive eof', 'half_close_idle');
	cmp_ok($a->{ms}, '>', 40, 'half_close_idle after 50 ms');
}

# --- early and slow

$s = connect_to();
send_req($s, 'POST', '/v1/chat/completions', { 'X-Mock-Early' => 1,
	'X-Mock-Status' => 413, 'Content-Length' => 1000000 });
$a = read_answer($s, to_eof => 1);
is("$a->{status} $a->{h}{connection} $a->{end}", '413 close eof', 'early=1');

my $body = base('chat/completions', { x => 'y' x 500000 });
$a = req('POST', '/v1/chat/completions?mock_delay=1', { 'X-Mock-Read-Rate' =>
	'1m' }, $body, timeout => 5);
is($a->{status}, 200, 'read_rate=');
cmp_ok($a->{ms}, '>', 150, 'reads slowly');

# --- time

sub near {
	my ($got, $want, $name) = @_;
	ok($got > $want - 5 && $got < $want + 200, $name)
		or diag("$got ms, not $want");
}

near(post('chat/completions', { delay => 100 })->{ms}, 100, 'delay=100');
near(post('chat/completions', { delay => '0.1s' })->{ms}, 100, 'delay=0.1s');
near(post('chat/completions', { delay => 60, status => 500 })->{ms}, 60,
	'delay before an error');

for my $p (@all) {
	$a = post($p, { first => 100, gap => 30, events => 4 }, \%stream);
	cmp_ok($a->{at}[0], '<', 0.05, "$p head at once");
	near($a->{at}[1] * 1000, 100, "$p first=100");
	near(($a->{at}[2] - $a->{at}[1]) * 1000, 30, "$p gap=30");
	near($a->{ms}, 220, "$p 4 gaps in all");
	is(content_of($a->{pieces}[0]), '', "$p preamble has no content")
		unless $p eq 'completions';
}

like(join('', post('messages', { first => 50 }, \%stream)->{pieces}[0]),
	qr/content_block_start.*ping/s, 'the preamble of messages comes at once');

$a = post('chat/completions', { events => 50, gap => 4 }, \%stream);
near($a->{ms}, 200, '50 events, 4 ms apart, do not drift');

$a = post('messages', { first => 120, heartbeat => 25 }, \%stream);
my $n = () = $a->{body} =~ /event: ping/g;
ok($n >= 4 && $n <= 6, 'heartbeat=25: pings while waiting') or diag($n);
$a = post('chat/completions', { fault => 'stall', heartbeat => 25 },
	\%stream, timeout => 0.2);
$n = () = $a->{body} =~ /^: heartbeat$/mg;
ok($n >= 5 && $n <= 8, 'heartbeat: comments while stalled') or diag($n);

$a = post('chat/completions', { total => 20000, rate => 100000 });
near($a->{ms}, 200, 'rate=');
cmp_ok(@{$a->{pieces}}, '>', 10, 'in pieces');

# --- backpressure: what the client does not read is not made

reset_mock();
$s = connect_to();
send_req($s, 'POST', '/v1/embeddings', { 'X-Mock-Total' => '64m' },
	base('embeddings'));
sleep 0.3;
cmp_ok(stats()->{bytes_out}, '<', 16 << 20, 'made as fast as it is read');
$a = read_answer($s, timeout => 20, to_eof => 0, pause => 0);
is($a->{end}, 'done', 'and whole in the end');
cmp_ok(length $a->{body}, '>=', 64 << 20, '64 MB');

is(Client::stop(), 0, 'a clean exit');

done_testing();
