package Client;

# A plain HTTP/1.1 client for the mock's own tests: it keeps the raw bytes, the
# time each piece came, and how the connection ended, and forgives nothing.

use strict;
use warnings;

use Errno qw/ EAGAIN EINTR EWOULDBLOCK ECONNRESET /;
use File::Basename qw/ dirname /;
use File::Spec;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Time::HiRes qw/ time sleep /;

use Exporter qw/ import /;
our @EXPORT = qw/ start port base req get post events datas json stats
                  control connect_to send_req read_answer reset_mock
                  content_of sleep time /;

my ($pid, @ports, @tls);


# Starts build/llm_mock (or $ENV{LLM_MOCK}) on free ports; ends with the test.

sub start {
	my (@args) = @_;

	my $dir = dirname(File::Spec->rel2abs(__FILE__));
	my $bin = $ENV{LLM_MOCK} || "$dir/../../build/llm_mock";

	unless (-x $bin) {
		system("make -s -C '$dir' 1>&2") == 0 or die "make failed";
	}

	pipe(my $r, my $w) or die $!;
	$pid = fork() // die $!;

	if ($pid == 0) {
		close $r;
		open STDOUT, '>&', $w or die $!;
		exec $bin, @args or die "exec $bin: $!";
	}

	close $w;

	@ports = @tls = ();
	my $want = 1;

	for my $i (0 .. $#args) {
		$want = () = $args[$i + 1] =~ /\d+/g if $args[$i] eq '-p';
	}

	$want++ if grep { $_ eq '-s' } @args;

	while ($want-- > 0 && defined(my $line = <$r>)) {
		push @ports, $1 if $line =~ /^listening (\d+)$/;
		push @tls, $1 if $line =~ /^listening-tls (\d+)$/;
	}

	return $pid;
}


sub port { return $ports[$_[0] // 0] }
sub tls_port { return $tls[0] }
sub pid { return $pid }


# TERM, and the exit status: a sanitizer's complaint is a failure.

sub stop {
	return unless $pid;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	undef $pid;
	return $?;
}


END { my $rc = $?; stop(); $? = $rc }


sub connect_to {
	my ($port) = @_;

	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $port // port(), Proto => 'tcp', Timeout => 5)
		or die "connect: $!";
	$s->blocking(0);
	return $s;
}


sub write_all {
	my ($s, $data) = @_;
	my $sel = IO::Select->new($s);

	while (length $data) {
		$sel->can_write(5) or return;
		my $n = syswrite $s, $data;
		return if !defined $n && !$!{EAGAIN};
		substr($data, 0, $n // 0) = '';
	}
}


sub send_req {
	my ($s, $method, $uri, $headers, $body) = @_;

	my $head = "$method $uri HTTP/1.1\r\nHost: mock\r\n";
	$head .= "$_: $headers->{$_}\r\n" for sort keys %{$headers || {}};
	$head .= 'Content-Length: ' . length($body) . "\r\n" if defined $body;

	write_all($s, "$head\r\n" . ($body // ''));
}


# Reads one answer.  end is one of: done (whole by its own framing), eof, rst,
# timeout; body is without chunks; at[] and pieces[] tell what came when.

sub read_answer {
	my ($s, %o) = @_;

	my $begin = time();
	my $limit = $begin + ($o{timeout} // 5);
	my $sel = IO::Select->new($s);
	my %a = (raw => $o{early} // '', at => [], pieces => [], end => '');

	while (1) {
		last if parse(\%a, $o{method}) && !$o{to_eof};

		my $left = $limit - time();
		if ($left <= 0 || !$sel->can_read($left)) {
			$a{end} = 'timeout';
			last;
		}

		my $n = sysread $s, my $buf, 1 << 20;

		if (!defined $n) {
			next if $!{EAGAIN} || $!{EINTR};
			$a{end} = 'rst';
			last;
		}

		if ($n == 0) {
			$a{end} = 'eof';
			last;
		}

		$a{raw} .= $buf;
		push @{$a{at}}, time() - $begin;
		push @{$a{pieces}}, $buf;

		if ($o{pause}) {
			sleep $o{pause};
		}
	}

	$a{body} = body(\%a);
	$a{end} ||= 'done';
	$a{ms} = (time() - $begin) * 1000;

	return \%a;
}


sub parse {
	my ($a, $method) = @_;

	return 0 unless defined $a->{head} || $a->{raw} =~ /\r\n\r\n/;

	unless (defined $a->{head}) {
		my $n = index($a->{raw}, "\r\n\r\n") + 4;
		$a->{head} = substr $a->{raw}, 0, $n;
		$a->{headlen} = $n;
		($a->{status}) = $a->{head} =~ m{^HTTP/1\.1 (\d\d\d) };

		for ($a->{head} =~ /^([^:\r\n]+: [^\r\n]*)/mg) {
			my ($k, $v) = split /: /, $_, 2;
			push @{$a->{headers}{lc $k}}, $v;
			$a->{h}{lc $k} = $v;
		}
	}

	if (($a->{h}{'transfer-encoding'} // '') eq 'chunked') {
		return parse_chunked($a);
	}

	my $n = $a->{h}{'content-length'};
	my $have = length($a->{raw}) - $a->{headlen};
	my $none = ($method // '') eq 'HEAD' || ($a->{status} // 0) == 204;

	return $none || defined $n && $have >= $n;
}


# Goes on where it stopped, for answers are long and pieces short.

sub parse_chunked {
	my ($a) = @_;

	$a->{chunks} //= [];
	pos($a->{raw}) = $a->{pos} //= $a->{headlen};

	while ($a->{raw} =~ /\G([0-9a-f]+)\r\n/gc) {
		my ($n, $p) = (hex $1, pos $a->{raw});

		if ($n == 0) {
			return $a->{raw} =~ /\G\r\n/gc ? 1 : 0;
		}

		return 0 if length($a->{raw}) < $p + $n + 2;

		push @{$a->{chunks}}, substr $a->{raw}, $p, $n;
		pos($a->{raw}) = $a->{pos} = $p + $n + 2;
	}

	return 0;
}


# The body as far as it came.

sub body {
	my ($a) = @_;

	return '' unless defined $a->{head};
	return join '', @{$a->{chunks}} if $a->{chunks};
	return substr $a->{raw}, $a->{headlen};
}


# req('POST', '/v1/...', { header => value }, $body, timeout => ..., ...)

sub req {
	my ($method, $uri, $headers, $body, %o) = @_;

	$body = encode_json($body) if ref $body;

	my $s = $o{sock} // connect_to($o{port});
	send_req($s, $method, $uri, $headers, $body);

	return read_answer($s, %o, method => $method);
}


sub get { return req('GET', $_[0], $_[1]) }


# post('chat/completions', { events => 3 }, { stream => ... }, %o): controls go
# into headers, the body gets what the endpoint requires.

sub post {
	my ($path, $ctl, $body, %o) = @_;

	my %h = map { my $n = $_; $n =~ s/_/-/g; ("X-Mock-$n" => $ctl->{$_}) }
		keys %$ctl;
	$h{'Content-Type'} = 'application/json';

	return req('POST', "/v1/$path", { %h, %{$o{headers} || {}} },
		base($path, $body), %o);
}


sub base {
	my ($path, $body) = @_;

	my %b = (model => 'm-1');
	my @m = ({ role => 'user', content => 'hi' });

	if ($path =~ /^chat/) {
		%b = (%b, messages => \@m);

	} elsif ($path =~ /^messages/) {
		%b = (%b, messages => \@m, max_tokens => 100000);

	} elsif ($path =~ /^completions/) {
		%b = (%b, prompt => 'hi');

	} else {
		%b = (%b, input => 'hi');
	}

	return JSON::PP->new->utf8->canonical->encode({ %b, %{$body || {}} });
}


# Server-sent events by the WHATWG rules: [ { event, data, id, retry } ].  An
# event without its blank line is dropped, as in a browser.

sub events {
	my ($body) = @_;

	my (@out, %e);
	$body =~ s/^\xef\xbb\xbf//;

	while ($body =~ /\G([^\r\n]*)(\r\n|\r|\n)/gc) {
		my $line = $1;

		if ($line eq '') {
			push @out, { %e } if exists $e{data};
			%e = ();
			next;
		}

		next if $line =~ /^:/;

		my ($k, $v) = $line =~ /^([^:]*):? ?(.*)$/s;
		$e{$k} = $k eq 'data' && exists $e{data} ? "$e{data}\n$v" : $v;
	}

	return @out;
}


# The JSON of each event but [DONE]; dies if one is broken.

sub datas {
	return map { decode_json($_->{data}) }
		grep { $_->{data} ne '[DONE]' } events($_[0]);
}


# The text a client would have put together from a stream.

sub content_of {
	my $text = '';

	for my $d (datas($_[0])) {
		if ($d->{choices}) {
			my $c = $d->{choices}[0] or next;
			$text .= $c->{delta}{content} // $c->{text} // '';

		} elsif (($d->{type} // '') eq 'response.output_text.delta') {
			$text .= $d->{delta};

		} elsif (($d->{type} // '') eq 'content_block_delta') {
			$text .= $d->{delta}{text} // '';
		}
	}

	return $text;
}


sub json { return decode_json($_[0]{body}) }
sub control { return get("/_mock/$_[0]")->{body} }
sub stats { return decode_json(control('stats')) }
sub reset_mock { control('reset') }

1;
