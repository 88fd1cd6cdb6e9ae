#!/usr/bin/perl

# The mock provider: how answers look on the wire; TLS.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Test::More;
use File::Temp qw/ tempdir /;
use JSON::PP;

use Client;

my $dir = tempdir(CLEANUP => 1);

my $tls = system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 "
	. "-subj /CN=localhost -keyout $dir/key.pem -out $dir/cert.pem "
	. ">/dev/null 2>&1") == 0;

start('-p', '0', '-d', '0', '-n', '4', '-b', '10', '-P', "$dir/pid",
	$tls ? ('-s', '0', '-c', "$dir/cert.pem", '-k', "$dir/key.pem") : ());

my %stream = (stream => JSON::PP::true);
my @all = qw! chat/completions responses messages !;
my ($a, $d, @e, @d);

is(json(post('chat/completions', {}))->{usage}{completion_tokens}, 4, '-n');
is(length json(post('chat/completions', {}))->{choices}[0]{message}{content},
	40, '-b');
open my $f, '<', "$dir/pid";
is(<$f> + 0, Client::pid(), '-P');

# --- framing

for my $p (@all) {
	my $want = json(post($p, { seed => 1 }));

	for my $how (qw/ length chunked close /) {
		$a = post($p, { seed => 1, plain => $how });
		is_deeply(json($a), $want, "$p plain=$how");
		is($a->{end}, $how eq 'close' ? 'eof' : 'done', "$p $how end");
		is(defined $a->{h}{'content-length'}, $how eq 'length', "$p $how");
	}

	$want = post($p, { seed => 1, obfuscation => 1 }, \%stream)->{body};

	for my $how (qw/ length chunked close /) {
		$a = post($p, { seed => 1, obfuscation => 1,
			stream_framing => $how }, \%stream);
		is($a->{body}, $want, "$p stream_framing=$how");
		is($a->{end}, $how eq 'close' ? 'eof' : 'done', "$p $how end");
	}

	# whatever the wire, the same events

	my @want = map { "$_->{event}/$_->{data}" }
		map { { event => '', %$_ } } events($want);

	for my $ctl ({ eol => 'crlf' }, { eol => 'cr' }, { bom => 1 },
		{ comments => 1 }, { ids => 1 }, { chunk => 7 }, { split => 29 },
		{ eol => 'crlf', bom => 1, comments => 1, ids => 1, chunk => 3 })
	{
		my $name = join ' ', map { "$_=$ctl->{$_}" } sort keys %$ctl;
		$a = post($p, { %$ctl, seed => 1, obfuscation => 1,
			events => 4 }, \%stream, timeout => 20);
		is_deeply([map { "$_->{event}/$_->{data}" }
			map { { event => '', %$_ } } events($a->{body})], \@want,
			"$p $name: same events");
	}

	$a = post($p, { seed => 1, obfuscation => 1, multiline => 1 }, \%stream);
	like($a->{body}, qr/^data: \{\ndata:   "/m, "$p multiline");
	is_deeply([datas($a->{body})], [datas($want)], "$p multiline: same JSON");

	$a = post($p, { no_last_newline => 1 }, \%stream);
	unlike($a->{body}, qr/\n$/, "$p no_last_newline");
	is(scalar events($a->{body} . "\n\n"), @want, "$p otherwise whole");

	$a = post($p, { unknown => 1 }, \%stream);
	ok((grep { $_->{mock_unknown} || $_->{type}
		&& $_->{type} eq 'mock_unknown_event' } datas($a->{body})),
		"$p unknown=1");
}

$a = post('chat/completions', { eol => 'cr' }, \%stream);
unlike($a->{body}, qr/\n/, 'eol=cr has no LF');
$a = post('chat/completions', { eol => 'crlf' }, \%stream);
unlike($a->{body}, qr/[^\r]\n/, 'eol=crlf has no bare LF');
$a = post('chat/completions', { bom => 1 }, \%stream);
like($a->{body}, qr/^\xef\xbb\xbfdata/, 'bom=1');
$a = post('chat/completions', { comments => 1 }, \%stream);
like($a->{body}, qr/^: keepalive$/m, 'comments=1');
@e = events(post('chat/completions', { ids => 1 }, \%stream)->{body});
is($e[0]{retry}, 3000, 'ids=1: retry');
is(join(' ', map { $_->{id} } @e), join(' ', 0 .. $#e), 'ids=1: ids');
@e = events(post('chat/completions', { named => 1 }, \%stream)->{body});
is($e[0]{event}, 'chat.completion.chunk', 'named=1');
$a = post('chat/completions', { chunk => 7 }, \%stream);
is((grep { length > 7 } @{$a->{chunks}}), 0, 'chunk=7');
$a = post('chat/completions', { split => 40, events => 2 }, \%stream);
cmp_ok(@{$a->{pieces}}, '>', 15, 'split=40');
$a = post('chat/completions', { split => 1, split_head => 1, events => 0,
	headers => 'X: y' }, {}, timeout => 10);
cmp_ok(@{$a->{pieces}}, '>', 500, 'split_head=1');
ok(json($a), 'and whole');
is(get('/v1/models?mock_headers=X-One:%201|X-Two:%202')->{h}{'x-two'}, 2,
	'headers=');
ok(json(post('chat/completions', { unknown => 1 }))->{mock_unknown},
	'unknown=1 plain');

# --- TLS

SKIP: {
	skip 'no openssl command', 6 unless $tls;

	my $port = Client::tls_port();
	ok($port, 'listening-tls');

	my $run = sub {
		my ($ctl, $body, $args) = @_;
		my $b = base('chat/completions', $body);
		my $r = "POST /v1/chat/completions HTTP/1.1\r\n$ctl"
			. "Connection: close\r\nContent-Length: " . length($b)
			. "\r\n\r\n$b";
		open my $w, '>', "$dir/request";
		print $w $r;
		close $w;
		return scalar `(cat $dir/request; sleep 0.5) | openssl s_client \\
			-connect 127.0.0.1:$port -quiet -no_ign_eof $args \\
			2>$dir/err`;
	};

	reset_mock();
	like($run->('', {}, "-sess_out $dir/session"),
		qr/"chat.completion"/, 'plain over TLS');
	like($run->("X-Mock-Gap: 20\r\n", \%stream, "-sess_in $dir/session"),
		qr/\[DONE\]/, 'stream over TLS');
	cmp_ok(length $run->("X-Mock-Total: 300000\r\n", {}, ''), '>', 300000,
		'300 KB over TLS');
	$d = stats();
	is($d->{tls_handshakes}, 3, 'tls_handshakes');
	is($d->{tls_resumed}, 1, 'tls_resumed');
}

is(Client::stop(), 0, 'a clean exit');
ok(!-e "$dir/pid", 'pid file removed');

done_testing();
