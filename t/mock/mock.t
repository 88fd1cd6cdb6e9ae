#!/usr/bin/perl

# The mock provider: endpoints, dialects, requests, the control interface.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Test::More;
use Compress::Zlib qw/ crc32 /;
use JSON::PP;
use MIME::Base64;

use Client;

start('-p', '0,0');
ok(port(0) && port(1), 'two ports chosen and printed');

my %stream = (stream => JSON::PP::true);
my %usage = (%stream, stream_options => { include_usage => JSON::PP::true });
my $tools = [{ type => 'function', function => { name => 'look',
	parameters => {} } }, { type => 'function', function =>
	{ name => 'move', parameters => {} } }];
my ($a, $d, @e, @d);

# --- chat/completions

$a = post('chat/completions', { events => 4, size => 10 });
$d = json($a);
is($a->{status}, 200, 'chat plain');
is($a->{h}{'content-type'}, 'application/json', 'chat plain type');
is($a->{h}{'content-length'}, length $a->{body}, 'chat plain length');
is($d->{object}, 'chat.completion', 'chat plain object');
is($d->{model}, 'm-1', 'model echoed');
is($d->{choices}[0]{finish_reason}, 'stop', 'finish_reason');
is(length $d->{choices}[0]{message}{content}, 40, 'size * events');
is($d->{usage}{completion_tokens}, 4, 'usage');
like($a->{h}{'x-request-id'}, qr/^req_\w{32}$/, 'x-request-id');
ok($a->{h}{$_}, $_) for qw/ openai-organization openai-processing-ms
	openai-version openai-project x-ratelimit-limit-requests
	x-ratelimit-remaining-tokens set-cookie cf-ray server date /;
is(@{$a->{headers}{'set-cookie'}}, 2, 'two cookies');

my $plain = $d->{choices}[0]{message}{content};

$a = post('chat/completions', { events => 4, size => 10 }, \%stream);
@e = events($a->{body});
@d = datas($a->{body});
like($a->{h}{'content-type'}, qr{^text/event-stream}, 'stream type');
is($a->{h}{'transfer-encoding'}, 'chunked', 'stream chunked');
is($a->{end}, 'done', 'stream ends by its framing');
is($e[-1]{data}, '[DONE]', '[DONE]');
is(@d, 6, 'role, 4 deltas, finish');
is($d[0]{choices}[0]{delta}{role}, 'assistant', 'role chunk first');
is($d[0]{choices}[0]{delta}{content}, '', 'role chunk has no text');
is($d[-1]{choices}[0]{finish_reason}, 'stop', 'finish chunk last');
is(content_of($a->{body}), $plain, 'deltas add up to the plain content');
is((grep { exists $_->{usage} } @d), 0, 'no usage member unasked');
is((grep { $_->{id} ne $d[0]{id} } @d), 0, 'one id');
is((grep { exists $_->{event} } @e), 0, 'chat events have no name');
is(@{$a->{chunks}}, 7, 'one HTTP chunk an event');

$a = post('chat/completions', { events => 2 }, \%usage);
@d = datas($a->{body});
is((grep { exists $_->{usage} && !defined $_->{usage} } @d), 4,
	'usage null on every other chunk');
is_deeply($d[-1]{choices}, [], 'usage chunk has no choices');
is($d[-1]{usage}{completion_tokens}, 2, 'usage chunk');
is($d[-1]{usage}{total_tokens}, $d[-1]{usage}{prompt_tokens} + 2, 'total');

@d = datas(post('chat/completions', { usage => 'last' }, \%usage)->{body});
ok($d[-1]{usage} && @{$d[-1]{choices}}, 'usage=last');
@d = datas(post('chat/completions', { usage => 'off' }, \%usage)->{body});
is((grep { exists $_->{usage} } @d), 0, 'usage=off');

@d = datas(post('chat/completions', { usage => 'last' }, \%stream)->{body});
ok($d[-1]{usage}, 'usage=last comes unasked');

@d = datas(post('chat/completions', { azure => 1 }, \%stream)->{body});
is_deeply($d[0]{choices}, [], 'azure: empty choices first');
ok($d[0]{prompt_filter_results} && !exists $d[0]{usage}, 'azure filter');
is($d[1]{choices}[0]{delta}{role}, 'assistant', 'azure: then the role');

@d = datas(post('chat/completions', { obfuscation => 1 }, \%stream)->{body});
is((grep { defined $_->{obfuscation} } @d), @d, 'obfuscation');
cmp_ok(keys %{{ map { length $_->{obfuscation} => 1 } @d }}, '>', 2,
	'obfuscation of varying length');
@d = datas(post('chat/completions', { obfuscation => 1 }, { %stream,
	stream_options => { include_obfuscation => JSON::PP::false } })->{body});
is((grep { exists $_->{obfuscation} } @d), 0, 'include_obfuscation false');

# tool calls, only for a request with tools, until their results are there

$d = json(post('chat/completions', { tools => 2 }, { tools => $tools }));
is(@{$d->{choices}[0]{message}{tool_calls}}, 2, 'two tool calls');
is($d->{choices}[0]{message}{content}, undef, 'content null');
is($d->{choices}[0]{finish_reason}, 'tool_calls', 'finish tool_calls');
is($d->{choices}[0]{message}{tool_calls}[0]{function}{name}, 'look', 'name');
is($d->{choices}[0]{message}{tool_calls}[1]{function}{name}, 'move', 'name 2');
ok(decode_json($d->{choices}[0]{message}{tool_calls}[0]{function}{arguments}),
	'arguments are JSON');
my $args = $d->{choices}[0]{message}{tool_calls}[0]{function}{arguments};

$d = json(post('chat/completions', { tools => 1 }));
is($d->{choices}[0]{finish_reason}, 'stop', 'no tools offered, none called');

@d = datas(post('chat/completions', { tools => 2, events => 3 },
	{ %stream, tools => $tools })->{body});
my @calls = ('', '');
for my $t (map { @{$_->{choices}[0]{delta}{tool_calls} || []} } @d) {
	$calls[$t->{index}] .= $t->{function}{arguments};
}
is($calls[0], $args, 'streamed arguments add up');
is($d[-1]{choices}[0]{finish_reason}, 'tool_calls', 'stream tool_calls');
is(@d, 1 + 2 * (1 + 3) + 1, 'call head and 3 pieces each');

my @done = ({ role => 'user', content => 'x' },
	{ role => 'assistant', content => undef, tool_calls => [] },
	{ role => 'tool', tool_call_id => 'c', content => 'y' });
$d = json(post('chat/completions', { tools => 1 },
	{ tools => $tools, messages => \@done }));
is($d->{choices}[0]{finish_reason}, 'stop', 'text after a tool result');
$d = json(post('chat/completions', { tools => 1, turns => 2,
	args2 => '{"n":2}' }, { tools => $tools, messages => \@done }));
is($d->{choices}[0]{message}{tool_calls}[0]{function}{arguments}, '{"n":2}',
	'turns=2: another call, args2=');
$d = json(post('chat/completions', { tools => 1, tool => 'sh',
	args => '{"cmd":"ls \"x\""}' }, { tools => $tools }));
is($d->{choices}[0]{message}{tool_calls}[0]{function}{name}, 'sh', 'tool=');
is(decode_json($d->{choices}[0]{message}{tool_calls}[0]{function}{arguments})
	->{cmd}, 'ls "x"', 'args=');

@d = datas(post('chat/completions', { thinking => 3, events => 1 },
	\%stream)->{body});
is((grep { $_->{choices}[0]{delta}{reasoning_content} } @d), 3, 'thinking=');

# max_tokens and finish=

$d = json(post('chat/completions', {}, { max_tokens => 3 }));
is($d->{choices}[0]{finish_reason}, 'length', 'max_tokens reached');
is($d->{usage}{completion_tokens}, 3, 'max_tokens tokens');
$d = json(post('chat/completions', { events => 9 }, { max_tokens => 3 }));
is($d->{usage}{completion_tokens}, 9, 'events= wins over max_tokens');
$d = json(post('chat/completions', { finish => 'content_filter' }));
is($d->{choices}[0]{finish_reason}, 'content_filter', 'finish=');
$d = json(post('chat/completions', { prompt_tokens => 77, cached => 70 }));
is($d->{usage}{prompt_tokens}, 77, 'prompt_tokens=');
is($d->{usage}{prompt_tokens_details}{cached_tokens}, 70, 'cached=');

# text=

my $text = "caf\xc3\xa9 \"q\" \\ \xe6\x97\xa5\xe6\x9c\xac end";
for my $n (1, 3, 7, 30) {
	$a = post('chat/completions', { text => $text, events => $n }, \%stream);
	my $got = content_of($a->{body});
	utf8::encode($got);
	is($got, $text, "text= in $n pieces");
}
$d = json(post('chat/completions', { text => $text }));
$d = $d->{choices}[0]{message}{content};
utf8::encode($d);
is($d, $text, 'text= plain');

# big events, total

$a = post('chat/completions', { big_event => '4m', at => 2, events => 3 },
	\%stream);
@d = map { $_->{data} =~ /"content":"([^"]+)"/ ? length $1 : () }
	events($a->{body});
is("@d", '16 4194304 16', 'big_event=4m at=2');
$d = json(post('chat/completions', { total => 300000 }));
is(length $d->{choices}[0]{message}{content}, 300000, 'total=');

# seed

my $s1 = post('chat/completions', { seed => 5 })->{body};
is(post('chat/completions', { seed => 5 })->{body}, $s1, 'seed= repeats');
isnt(post('chat/completions', { seed => 6 })->{body}, $s1, 'another seed');
isnt(json(post('chat/completions', {}))->{id},
	json(post('chat/completions', {}))->{id}, 'ids differ without');

# --- completions

$d = json(post('completions', { events => 2, size => 8 }));
is($d->{object}, 'text_completion', 'completions');
is(length $d->{choices}[0]{text}, 16, 'completions text');
$a = post('completions', { events => 2, size => 8 }, \%usage);
@d = datas($a->{body});
is(content_of($a->{body}), $d->{choices}[0]{text}, 'completions stream');
is(@d, 4, 'two texts, finish, usage');
ok($d[-1]{usage} && !@{$d[-1]{choices}}, 'completions usage chunk');
is((events($a->{body}))[-1]{data}, '[DONE]', 'completions [DONE]');

# --- embeddings

$d = json(post('embeddings', { dim => 8 }, { input => ['a', 'b', 'c'] }));
is(@{$d->{data}}, 3, 'an embedding for each input');
is(@{$d->{data}[2]{embedding}}, 8, 'dim=');
is($d->{data}[2]{index}, 2, 'index');
is(@{json(post('embeddings', {}, { input => [1, 2, 3] }))->{data}}, 1,
	'one for an array of tokens');
is(@{json(post('embeddings', {}, { input => [[1, 2], [3]] }))->{data}}, 2,
	'two for two arrays of tokens');
$d = json(post('embeddings', {}, { dimensions => 5,
	encoding_format => 'base64' }));
is(length decode_base64($d->{data}[0]{embedding}), 20, 'dimensions, base64');
is(length decode_base64(json(post('embeddings', { dim => $_ },
	{ encoding_format => 'base64' }))->{data}[0]{embedding}), 4 * $_,
	"base64 of $_") for 1, 2, 3, 1000, 20000;
is(@{json(post('embeddings', { dim => 20000 }))->{data}[0]{embedding}},
	20000, '20000 numbers');
for my $n (9, 10, 11, 99, 100, 101, 1001) {
	$a = post('embeddings', { dim => 2, count => $n });
	is(@{json($a)->{data}}, $n, "count=$n, length right");
}
$a = post('embeddings', { total => '500k', plain => 'chunked' });
cmp_ok(length $a->{body}, '>=', 500 << 10, 'total=500k chunked');
is(length $a->{body}, length post('embeddings', { total => '500k' })->{body},
	'the same with a length');
ok(json($a), 'and whole');

# --- responses

$d = json(post('responses', { events => 3, size => 5 }));
is($d->{object}, 'response', 'responses plain');
is($d->{status}, 'completed', 'responses status');
my $rtext = $d->{output}[0]{content}[0]{text};
is(length $rtext, 15, 'responses text');
is($d->{usage}{output_tokens}, 3, 'responses usage');

$a = post('responses', { events => 3, size => 5 }, \%stream);
@e = events($a->{body});
@d = datas($a->{body});
is_deeply([map { $_->{event} } @e], [qw/ response.created
	response.in_progress response.output_item.added
	response.content_part.added response.output_text.delta
	response.output_text.delta response.output_text.delta
	response.output_text.done response.content_part.done
	response.output_item.done response.completed /], 'responses events');
is_deeply([map { $_->{type} } @d], [map { $_->{event} } @e], 'names agree');
is_deeply([map { $_->{sequence_number} } @d], [0 .. $#d], 'sequence_number');
is(content_of($a->{body}), $rtext, 'responses deltas');
is($d[-1]{response}{output}[0]{content}[0]{text}, $rtext, 'completed text');
is($d[-1]{response}{usage}{output_tokens}, 3, 'completed usage');
is((grep { $_->{data} eq '[DONE]' } @e), 0, 'no [DONE]');

$a = post('responses', { tools => 1, events => 2 },
	{ %stream, tools => [{ type => 'function', name => 'look' }] });
@d = datas($a->{body});
is($d[2]{item}{type}, 'function_call', 'function_call item');
is($d[2]{item}{name}, 'look', 'its name');
is(join('', map { $_->{delta} } grep { $_->{type} =~ /arguments.delta/ } @d),
	$d[-1]{response}{output}[0]{arguments}, 'its arguments');
$d = json(post('responses', { tools => 1 },
	{ tools => [{ type => 'function', name => 'look' }], input =>
	[{ type => 'function_call_output', call_id => 'c', output => 'x' }] }));
is($d->{output}[0]{type}, 'message', 'text after function_call_output');

@d = datas(post('responses', { thinking => 2 }, \%stream)->{body});
is((grep { $_->{type} eq 'response.reasoning_summary_text.delta' } @d), 2,
	'reasoning item');
@d = datas(post('responses', {}, { %stream, max_output_tokens => 2 })->{body});
is($d[-1]{type}, 'response.incomplete', 'response.incomplete');

is(json(get('/v1/responses/resp_abc'))->{id}, 'resp_abc', 'GET response');
$d = json(req('DELETE', '/v1/responses/resp_abc'));
ok($d->{deleted} && $d->{id} eq 'resp_abc', 'DELETE response');
$d = json(post('responses/compact', {}));
is($d->{object}, 'response.compaction', 'compact');
is($d->{output}[-1]{type}, 'compaction', 'compaction item');
is(json(req('POST', '/v1/responses/resp_abc/cancel', {}, ''))->{id},
	'resp_abc', 'cancel');

# --- messages

$a = post('messages', { events => 3, size => 5 });
$d = json($a);
is($d->{type}, 'message', 'messages plain');
is(length $d->{content}[0]{text}, 15, 'messages text');
is($d->{stop_reason}, 'end_turn', 'stop_reason');
is($d->{usage}{output_tokens}, 3, 'messages usage');
like($a->{h}{'request-id'}, qr/^req_011C\w+$/, 'request-id');
ok($a->{h}{$_}, $_) for qw/ anthropic-organization-id
	anthropic-ratelimit-requests-limit
	anthropic-ratelimit-output-tokens-remaining /;
ok(!$a->{h}{'x-request-id'}, 'no OpenAI headers');

my $mtext = $d->{content}[0]{text};
$a = post('messages', { events => 3, size => 5 }, \%stream);
@e = events($a->{body});
@d = datas($a->{body});
is_deeply([map { $_->{event} } @e], [qw/ message_start content_block_start
	ping content_block_delta content_block_delta content_block_delta
	content_block_stop message_delta message_stop /], 'messages events');
is_deeply([map { $_->{type} } @d], [map { $_->{event} } @e], 'names agree');
is(content_of($a->{body}), $mtext, 'messages deltas');
is($d[-2]{delta}{stop_reason}, 'end_turn', 'message_delta');
is($d[-2]{usage}{output_tokens}, 3, 'message_delta usage');

my $atools = [{ name => 'look', input_schema => {} }];
$d = json(post('messages', { tools => 1 }, { tools => $atools }));
is($d->{content}[0]{type}, 'tool_use', 'tool_use');
is($d->{stop_reason}, 'tool_use', 'stop_reason tool_use');
is(ref $d->{content}[0]{input}, 'HASH', 'input is an object');
@d = datas(post('messages', { tools => 2, events => 3 },
	{ %stream, tools => $atools })->{body});
is(join('', map { $_->{delta}{partial_json} } grep { $_->{index} == 0 }
	grep { $_->{type} eq 'content_block_delta' } @d),
	'{"location":"Paris, France"}', 'input_json_delta');
is((grep { $_->{type} eq 'content_block_stop' } @d), 2, 'two blocks');
is((grep { $_->{type} eq 'ping' } @d), 1, 'one ping');
$d = json(post('messages', { tools => 1 }, { tools => $atools, messages =>
	[{ role => 'user', content => [{ type => 'tool_result',
	tool_use_id => 'x', content => 'y' }] }] }));
is($d->{content}[0]{type}, 'text', 'text after tool_result');
@d = datas(post('messages', { thinking => 2 }, \%stream)->{body});
is((grep { ($_->{delta}{type} // '') eq 'signature_delta' } @d), 1,
	'thinking block with signature');
$d = json(post('messages', {}, { max_tokens => 2 }));
is($d->{stop_reason}, 'max_tokens', 'max_tokens');

# the assistant's words gone on with

sub with_last {
	my ($content, %more) = @_;
	return { messages => [{ role => 'user', content => 'x' },
		{ role => 'assistant', content => $content }], %more };
}

sub said_of {
	my ($ctl, $content, %more) = @_;
	my $answer = json(post('messages', $ctl, with_last($content, %more)));
	return $answer->{content} ? join '|', map { $_->{text} }
		@{$answer->{content}} : $answer->{error}{message};
}

my $whole = "One \x{e9}\x{1f600} \"two\"\n three";
my %told = (text => 'One%20%C3%A9%F0%9F%98%80%20%22two%22%0A%20three');
my %go = (prefill => 'on', %told);
sub with_query { join '&', map { "mock_$_=$_[0]{$_}" } sort keys %{$_[0]} }

for ([1, 'One', substr $whole, 3], [1, 'Well. One', substr $whole, 3],
	[1, substr($whole, 0, 5), substr $whole, 5],
	[1, substr($whole, 0, 6), substr $whole, 6],
	[1, substr($whole, 0, 12), substr $whole, 12],
	[1, 'Something else', $whole], [1, '', $whole], [1, $whole, ''],
	[1, [{ type => 'text', text => 'One' }], substr $whole, 3],
	[1, [map { { type => 'text', text => $_ } } 'On', 'e'], substr $whole, 3],
	[0, 'One', $whole])
{
	my ($on, $content, $want) = @$_;
	my $q = with_query($on ? \%go : \%told);
	my $name = 'prefill: after '
		. JSON::PP->new->ascii->allow_nonref->encode($content);
	for my $ascii (0, 1) {
		my $json = JSON::PP->new->ascii($ascii)->utf8(!$ascii);
		my %body = (model => 'm', max_tokens => 100, %{with_last($content)});
		$d = json(req('POST', "/v1/messages?$q", {}, $json->encode(\%body)));
		is(join('', map { $_->{text} } @{$d->{content}}), $want,
			"$name, ascii $ascii");
		$a = req('POST', "/v1/messages?$q&mock_size=2", {},
			$json->encode({ %body, %stream }));
		is(content_of($a->{body}), $want, "$name, ascii $ascii, stream");
	}
}

@e = events(post('messages', { prefill => 'on', text => 'abc' },
	with_last('abc', %stream))->{body});
is(join(' ', map { $_->{event} } @e),
	'message_start message_delta message_stop', 'prefill: nothing is left to be said');
is(said_of({ prefill => 'on', events => 4, size => 10 },
	substr($mtext, 0, 9)), json(post('messages', { events => 4, size => 10 }))
	->{content}[0]{text} =~ s/^.{9}//sr, 'prefill: after filler');
for my $blank (' ', "\n", "\x{3000}", "\x{a0}") {
	is(said_of({ prefill => 'on' }, "x$blank"), 'messages: final assistant '
		. 'content cannot end with trailing whitespace', 'prefill: whitespace');
}
like(said_of({ prefill => 400 }, 'One'),
	qr/^This model does not support assistant message prefill\./,
	'prefill=400');
is(post('messages', { prefill => 400 }, with_last('One'))->{status}, 400,
	'its status');
is(post('messages', { prefill => 400 })->{status}, 200, 'prefill=400, none');
is(post('messages', {}, with_last('x '))->{status}, 200, 'no prefill=');
is(said_of({ %go, text => 'One two' }, 'One', messages => [
	{ role => 'assistant', content => 'One' },
	{ role => 'user', content => 'One' }]), 'One two',
	'prefill: the last message is not the assistant\'s');

cmp_ok(json(post('messages/count_tokens', {}))->{input_tokens}, '>', 0,
	'count_tokens');

# --- the rest

is(json(get('/v1/models'))->{data}[0]{id}, 'gpt-mock', 'models');
$d = json(get('/v1/models?limit=1000', { 'anthropic-version' => '2023-06-01' }));
is($d->{data}[0]{type}, 'model', 'models of Anthropic');
is($d->{has_more}, JSON::PP::false, 'has_more');
is(json(get('/v1/models/abc'))->{id}, 'abc', 'models/{id}');
is(json(get('/v1/batches'))->{object}, 'list', 'batches');
is(json(req('POST', '/v1/batches', {}, '{}'))->{object}, 'batch', 'batch');
is(json(get('/v1/batches/batch_7'))->{id}, 'batch_7', 'batches/{id}');
$a = req('HEAD', '/anything/at/all');
is($a->{status} . $a->{body}, '200', 'HEAD anything');
is(get('/v1/nothing')->{status}, 404, 'unknown is 404');
is(json(get('/v1/nothing'))->{error}{type}, 'invalid_request_error',
	'in OpenAI shape');
is(get('/v1/chat/completions')->{status}, 405, 'GET chat is 405');
is(req('POST', '/some/prefix/chat/completions', {}, base('chat'))->{status},
	200, 'any prefix');

# --- requests

my $mp = join '', map { chr(32 + $_ % 90) } 1 .. 300000;
$d = json(req('POST', '/v1/files', { 'Content-Type' =>
	'multipart/form-data; boundary=b' }, $mp));
is($d->{bytes}, 300000, 'files bytes');
is(hex $d->{crc32}, crc32($mp), 'files crc32');

my $big = base('chat', { junk => 'y' x (5 << 20), stream => JSON::PP::true });
$a = req('POST', '/v1/chat/completions', {}, $big);
is((events($a->{body}))[-1]{data}, '[DONE]', '5 MB body, stream found');
is(get('/_mock/last_body')->{status}, 413, 'not kept');
$a = req('POST', '/v1/chat/completions', { 'X-Mock-Keep' => 1 }, $big);
is(control('last_body'), $big, 'kept with keep=1');

my $body = base('chat', { stream => JSON::PP::true });
my $s = connect_to();
Client::write_all($s, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
	. "Transfer-Encoding: chunked\r\n\r\n");
for my $c ($body =~ /(.{1,7})/gs) {
	Client::write_all($s, sprintf "%x;ext=1\r\n%s\r\n", length $c, $c);
}
Client::write_all($s, "0\r\nTrailer: x\r\n\r\n");
$a = read_answer($s);
is((events($a->{body}))[-1]{data}, '[DONE]', 'chunked request');
is(control('last_body'), $body, 'chunked request decoded');

$s = connect_to();
Client::write_all($s, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
	. "Expect: 100-continue\r\nContent-Length: " . length($body)
	. "\r\n\r\n");
IO::Select->new($s)->can_read(2);
sysread $s, my $buf, 1000;
is($buf, "HTTP/1.1 100 Continue\r\n\r\n", '100-continue');
Client::write_all($s, $body);
is(read_answer($s)->{status}, 200, 'then the answer');

$s = connect_to();
Client::write_all($s, "POST /v1/chat/completions HTTP/1.0\r\n"
	. "Content-Length: " . length($body) . "\r\n\r\n$body");
$a = read_answer($s, to_eof => 1);
ok(!$a->{h}{'transfer-encoding'} && $a->{end} eq 'eof', 'HTTP/1.0 stream');
like($a->{body}, qr/\[DONE\]\n\n$/, 'whole');

# every split of a small request

my $small = '{"stre\u0061m": true ,"model":"a\"b\u00e9","messages":[],'
	. '"n":[1,-2.5e3,{"x":null}]}';
my $bad = 0;
for my $i (1 .. length($small) - 1) {
	$s = connect_to();
	Client::write_all($s, "POST /v1/chat/completions?mock_events=1 HTTP/1.1"
		. "\r\nContent-Length: " . length($small) . "\r\n\r\n"
		. substr $small, 0, $i);
	sleep 0.002;
	Client::write_all($s, substr $small, $i);
	$a = read_answer($s);
	$bad++ unless $a->{body} =~ /"model":"a\\"b\\u00e9"/
		&& $a->{body} =~ /\[DONE\]/;
}
is($bad, 0, 'scanner at any split; escapes in names; model echoed raw');

# pipelining and keepalive

reset_mock();
$s = connect_to();
my $one = "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: "
	. length($body) . "\r\n\r\n$body";
Client::write_all($s, $one x 3);
my $all = '';
while ($all !~ /(\[DONE\].*){3}0\r\n\r\n$/s && IO::Select->new($s)->can_read(2)) {
	sysread $s, $all, 65536, length $all or last;
}
is(() = $all =~ /\[DONE\]/g, 3, 'three pipelined requests');
$d = stats();
is("$d->{connections} $d->{requests} $d->{streams}", '1 3 3',
	'one connection, control requests not counted');

# bad requests

for (['{"model":"m","messages":[}', 'bad JSON'], ['[]', 'not an object'],
	['{"model":"m","messages":[]} x', 'bytes after'], ['', 'empty body'],
	['{"model":"m","messages":[01]}', 'bad number'],
	["{\"model\":\"m\n\",\"messages\":[]}", 'control byte'],
	['{"messages":[]}', 'no model'], ['{"model":"m"}', 'no messages'],
	['{"model":"m","messages":[]', 'cut off'])
{
	$a = req('POST', '/v1/chat/completions', {}, $_->[0]);
	is($a->{status}, 400, "400: $_->[1]");
	ok(json($a)->{error}{message}, "$_->[1] in OpenAI shape");
}

$a = req('POST', '/v1/messages', {}, '{"model":"m","messages":[]}');
is($a->{status}, 400, 'messages without max_tokens');
is(json($a)->{error}{type}, 'invalid_request_error', 'in Anthropic shape');
like(post('chat/completions', { nonsense => 1 })->{body},
	qr/unknown control/, 'unknown control is an error');
like(post('chat/completions', { fault => 'nonsense' })->{body},
	qr/unknown control/, 'unknown fault is an error');
$s = connect_to();
Client::write_all($s, "garbage\r\n\r\n");
is(read_answer($s)->{status}, 400, 'bad request line');

# --- where controls come from

$d = json(req('POST', '/v1/chat/completions?mock_events=2&x=y&mock_text=a%20b',
	{}, base('chat')));
is($d->{choices}[0]{message}{content}, 'a b', 'query, percent-encoded');
for my $m ('gpt@events=2;size=3', 'gpt@mock:events=2;size=3') {
	$d = json(post('chat/completions', {}, { model => $m }));
	is($d->{usage}{completion_tokens}, 2, "model $m");
	is($d->{model}, $m, 'echoed whole');
}
$d = json(post('chat/completions', {}, { model => 'claude@20250101' }));
is($d->{usage}{completion_tokens}, 16, 'a date is not a control');
$d = json(req('POST', '/@events=5;size=2/v1/chat/completions?mock_events=2',
	{ 'X-Mock-Events' => 3 }, base('chat', { model => 'm@events=1' })));
is($d->{usage}{completion_tokens}, 5, 'path over header over query over model');
$d = json(req('POST', '/v1/chat/completions?mock_events=2',
	{ 'X-Mock-Events' => 3 }, base('chat', { model => 'm@events=1' })));
is($d->{usage}{completion_tokens}, 3, 'header over query over model');

control('set?status=503&retry_after=7');
$a = post('chat/completions', {});
is("$a->{status} $a->{h}{'retry-after'}", '503 7', '/_mock/set');
is(post('chat/completions', {}, {}, port => port(1))->{status}, 200,
	'only on that port');
control('set?status=-1');
is(post('chat/completions', {})->{status}, 200, 'set again');
is(get('/_mock/set?nonsense=1')->{status}, 400, 'set refuses nonsense');

# --- /_mock/

reset_mock();
$a = post('chat/completions', { events => 3 }, \%stream);
is(control('last_response_body'), $a->{body}, 'last_response_body');
like(control('last'), qr{^POST /v1/chat/completions HTTP/1.1\r\n.*\r\n\r\n$}s,
	'last is the raw head');
is(control('last_body'), base('chat', \%stream), 'last_body');
$a = post('chat/completions', { total => '9m' });
is(get('/_mock/last_response_body')->{status}, 413, 'too large an answer');
$d = stats();
is("$d->{requests} $d->{streams} $d->{open_streams} $d->{aborted}",
	'2 1 0 0', 'stats');
cmp_ok($d->{bytes_out}, '>', 9 << 20, 'bytes_out');
cmp_ok($d->{bytes_in}, '>', 200, 'bytes_in');
is($d->{ports}[0]{requests}, 2, 'per port');
$d = decode_json(control('requests'));
is(@$d, 2, 'requests');
is("$d->[0]{method} $d->[0]{uri} $d->[0]{status} $d->[0]{stream}",
	'POST /v1/chat/completions 200 1', 'a request');
cmp_ok(abs($d->[0]{t_ms} - time() * 1000), '<', 30000, 't_ms');
post('chat/completions', {}) for 1 .. 70;
is(@{decode_json(control('requests'))}, 64, 'the last 64');
reset_mock();
is(stats()->{requests}, 0, 'reset');

# --- derive=: the answer is a function of the question

sub derived {
	my ($body, $path, %o) = @_;
	my $r = req('POST', '/v1/' . ($path || 'chat/completions'),
		{ 'X-Mock-Derive' => 1, 'Content-Type' => 'application/json',
		%{$o{headers} || {}} }, $body);
	return $r->{body};
}

my $q = '{"model":"m","messages":[{"role":"user","content":"caf\u00e9"}],'
	. '"seed":1}';
my $answer = derived($q);
ok(length(json({ body => $answer })->{choices}[0]{message}{content}) > 10,
	'derived text');
is(derived($q), $answer, 'derived again');
is(derived("{ \"seed\" :1,\n\"messages\":[ {\"content\":\"caf\xc3\xa9\","
	. '"role":"user"}],"model":"m"}'), $answer,
	'order, space and escapes do not count');
is(derived($q =~ s/"seed"/"user":"u","metadata":{"a":1},"stream":false,"seed"/r),
	$answer, 'nor do members that only say for whom');

my %seen = ($answer => 1);
for (['"seed":1', '"seed":2'], ['"seed":1', '"seed":1.0'],
	['"seed":1', '"seed":"1"'], ['"seed":1', '"seed":[1]'],
	['"seed":1', '"seed":{"stream":1}'], ['"m"', '"n"'], ['caf', 'cag'],
	['u00e9', 'u00e8'], ['"user"', '"assistant"'],
	['"user"', '"user","user":"x"'])
{
	my ($from, $to) = @$_;
	my $d = derived($q =~ s/\Q$from\E/$to/r);
	ok(!$seen{$d}++, "$to counts");
}

my $s8 = derived($q =~ s/"seed"/"stream":true,"seed"/r);
is(content_of($s8), json({ body => $answer })->{choices}[0]{message}{content},
	'streamed the same text');
is((datas($s8))[0]{id}, json({ body => $answer })->{id}, 'with the same id');

$q = '{"model":"m","input":"x","user":"a"}';
$answer = derived($q, 'responses');
isnt(derived($q =~ s/"a"/"b"/r, 'responses'), $answer,
	'responses: user counts');
is(derived($q =~ s/"user"/"stream":false,"user"/r, 'responses'), $answer,
	'responses: stream does not');
isnt(json({ body => derived($q, 'embeddings') })->{data}[0]{embedding}[0],
	json({ body => derived($q =~ s/"x"/"y"/r, 'embeddings') })
	->{data}[0]{embedding}[0], 'derived vectors differ');
is(derived($q, 'embeddings'), derived($q, 'embeddings'), 'and repeat');
like(derived('{"model":"m","input":"x"', 'embeddings'), qr/could not parse/,
	'broken JSON is refused as ever');
like(derived('{"model":"m","messages":[]}', undef,
	headers => { 'X-Mock-Text' => 'this' }), qr/"content": "this"/,
	'text= wins');

# --- aborts

for my $case (['waiting', { delay => 60000 }, 0], ['hanging',
	{ fault => 'hang' }, 0], ['streaming', { gap => 50, events => 1000 }, 1],
	['stalled', { fault => 'stall' }, 1], ['plain', { rate => 1000 }, 0])
{
	my ($name, $ctl, $stream) = @$case;

	reset_mock();
	$s = connect_to();
	send_req($s, 'POST', '/v1/chat/completions',
		{ map { ("X-Mock-$_" => $ctl->{$_}) } keys %$ctl },
		base('chat', $stream ? \%stream : {}));
	sleep 0.12;
	is(stats()->{aborted}, 0, "$name: not aborted yet");
	is(stats()->{open_streams}, $stream, "$name: open streams");
	my $t = time() * 1000;
	close $s;
	for (1 .. 100) { last if stats()->{aborted}; sleep 0.005 }
	$d = stats();
	is($d->{aborted}, 1, "$name: aborted");
	is($d->{open_streams}, 0, "$name: closed");
	cmp_ok($d->{last_abort_ms} - $t, '<', 100, "$name: at once");
	is(decode_json(control('requests'))->[0]{aborted}, JSON::PP::true,
		"$name: recorded");
}

reset_mock();
$s = connect_to();
Client::write_all($s, "POST /v1/files HTTP/1.1\r\nContent-Length: 999\r\n\r\nx");
sleep 0.02;
close $s;
sleep 0.05;
is(stats()->{aborted}, 1, 'client gone while sending its body');

my $pid = Client::pid();
is(Client::stop(), 0, 'SIGTERM: a clean exit');

done_testing();
