package LLM::H1;

# A raw HTTP/1.x client for tests: it sends exactly the bytes it is told to,
# reads when it is told to, and notes when each piece arrived.
#
#   my $c = LLM::H1->new(port => 8080, timeout => 10, rcvbuf => 4096,
#                        tls => { sni => 'a.test', ca => 'ca.pem' });
#   my $r = $c->request('POST', '/v1/x', body => '{}', headers => [ A => 1 ]);
#   $r->status; $r->header('content-type'); $r->body; $r->complete;
#
#   $c->send_request(...);            only send
#   my $r = $c->read_head;            status line and headers
#   $c->read_some($r);                wait for some body bytes, return them
#   $c->read_body($r, limit => N);    read on; limit, rate, until, timeout
#   $c->abort('rst'); $c->abort('fin'); $c->half_close; $c->close;
#
# Nothing here dies on what the server does: look at $r->end and $c->error.

use strict;
use warnings;

use parent 'LLM::Conn';

use LLM::H1::Response ();
use LLM::Util qw(now nap);


sub new {
    my ($class, %o) = @_;
    my $self = $class->SUPER::new(%o);
    $self->{methods} = [];
    return $self;
}


# --- sending ---

# The text of a request.  headers: a list of name, value pairs, sent in that
# order after Host; body: sent with Content-Length, or in chunks of `chunked`
# bytes; version: '1.1' or '1.0'; close: adds Connection: close.

sub format_head {
    my ($self, $method, $path, %o) = @_;

    my $version = $o{version} // '1.1';
    my @headers = @{ $o{headers} // [] };
    my %given = map { lc $_ => 1 } @headers[grep { !($_ & 1) } 0 .. $#headers];

    unshift @headers, Host => $o{host} // 'localhost' if !$given{host};
    push @headers, Connection => 'close' if $o{close} && !$given{connection};
    push @headers, Expect => '100-continue' if $o{expect};

    if (defined $o{body} && !$given{'content-length'}
        && !$given{'transfer-encoding'})
    {
        push @headers, $o{chunked}
            ? ('Transfer-Encoding' => 'chunked')
            : ('Content-Length' => length $o{body});
    }

    my $head = "$method $path HTTP/$version\r\n";

    while (@headers) {
        my ($name, $value) = splice @headers, 0, 2;
        $head .= "$name: $value\r\n";
    }

    return "$head\r\n";
}


sub format_body {
    my ($self, %o) = @_;

    return '' if !defined $o{body};
    return $o{body} if !$o{chunked};

    my $text = '';

    for (my $at = 0; $at < length $o{body}; $at += $o{chunked}) {
        my $piece = substr $o{body}, $at, $o{chunked};
        $text .= sprintf "%x\r\n%s\r\n", length $piece, $piece;
    }

    return "${text}0\r\n\r\n";
}


# Sends a request.  Beside format_head()'s options: piece, delay: written in
# pieces; expect: sends the head, waits for 100 Continue, then the body (the
# body is kept back when a final answer comes instead).  Returns bytes sent.

sub send_request {
    my ($self, $method, $path, %o) = @_;

    push @{ $self->{methods} }, $method;
    $self->{started} = now();

    my $head = $self->format_head($method, $path, %o);
    my $body = $self->format_body(%o);

    if ($o{expect}) {
        my $n = $self->write($head);
        return $n if !$self->_await_continue($o{expect_timeout});
        return $n + $self->write($body);
    }

    return $self->write_slowly("$head$body", $o{piece}, $o{delay} // 0.01)
        if $o{piece};

    return $self->write("$head$body");
}


# True if "100 Continue" arrived; a final answer stays in the buffer.

sub _await_continue {
    my ($self, $timeout) = @_;

    my $end = now() + ($timeout // $self->{timeout});

    while ($self->{buf} !~ /\r\n\r\n/) {
        last if !$self->fill($end);
    }

    return 0 if $self->{buf} !~ s/^(HTTP\/1\.\d 100[^\r\n]*\r\n.*?\r\n)//s;

    push @{ $self->{informational} }, $1;
    return 1;
}


# --- receiving ---

# Reads a status line and headers.  1xx answers are collected in
# $r->informational, except 101.  Returns a response in any case: status is 0
# if none came.

sub read_head {
    my ($self, %o) = @_;

    my $end = now() + ($o{timeout} // $self->{timeout});
    my $r = LLM::H1::Response->new(
        method => $o{method} // shift(@{ $self->{methods} }) // 'GET',
        started => $self->{started}, conn => $self);

    push @{ $r->{informational} }, @{ delete $self->{informational} // [] };

    while (1) {
        if ($self->{buf} =~ s/^(.*?\r?\n)\r?\n//s) {
            my $head = $1;

            if ($head =~ /^HTTP\/1\.\d 1(?!01)\d\d/) {
                push @{ $r->{informational} }, $head;
                next;
            }

            $r->{head_at} = now();
            $r->parse_head($head);
            return $r;
        }

        next if $self->fill($end);

        $r->{end} = $self->{error} ? 'cut' : $self->{eof} ? 'eof' : 'timeout';
        return $r;
    }
}


# Waits for body bytes and returns the new decoded ones; '' at the end of the
# body, on a cut and on a timeout (see $r->end: '' means there is more).

sub read_some {
    my ($self, $r, %o) = @_;

    my $end = now() + ($o{timeout} // $self->{timeout});
    my $had = length $r->{body};

    while (!$r->{end}) {
        $r->feed(\$self->{buf});
        last if length $r->{body} > $had || $r->{end};

        my $n = $self->fill($end, $o{size});
        next if $n;

        $self->_no_more_bytes($r);
        last;
    }

    return substr $r->{body}, $had;
}


sub _no_more_bytes {
    my ($self, $r) = @_;

    $r->connection_ended($self->{error}) if $self->{eof} || $self->{error};
}


# Reads the body: to its end, or until one of
#   limit => N      the body has at least N bytes
#   until => qr//   the body so far matches
#   timeout => S    S seconds have gone by (default: the client's timeout,
#                   counted anew whenever something arrives)
#   for => S        S seconds in all, whatever arrives
#   rate => N       (not a limit) reads at most N bytes a second
# Returns the response; $r->end is '' if the body goes on.

sub read_body {
    my ($self, $r, %o) = @_;

    my $start = now();
    my $stop = $o{for} ? $start + $o{for} : undef;
    my $size = $o{rate} ? _slice($o{rate}) : undef;
    my $from = $self->{received};

    while (!$r->{end}) {
        last if defined $o{limit} && length $r->{body} >= $o{limit};
        last if $o{until} && $r->{body} =~ $o{until};

        my $timeout = $o{timeout} // $self->{timeout};

        if ($stop) {
            my $left = $stop - now();
            last if $left <= 0;
            $timeout = $left if $left < $timeout;
        }

        my $got = $self->read_some($r, timeout => $timeout, size => $size);
        last if $got eq '';

        nap($start + ($self->{received} - $from) / $o{rate} - now())
            if $o{rate};
    }

    return $r;
}


sub _slice {
    my ($rate) = @_;
    my $size = int($rate / 20);
    return $size < 1 ? 1 : $size > 65536 ? 65536 : $size;
}


sub read_response {
    my ($self, %o) = @_;
    my $r = $self->read_head(%o);
    return $r if $r->{end};
    return $self->read_body($r, %o);
}


# send_request() and read_response() in one.

sub request {
    my ($self, $method, $path, %o) = @_;
    $self->send_request($method, $path, %o);
    my %read = map { $_ => $o{$_} }
               grep { exists $o{$_} } qw(timeout limit until rate for);
    return $self->read_response(%read);
}


1;
