package LLM::H2;

# A raw HTTP/2 client for tests: prior knowledge over TCP (nginx 1.22:
# `listen PORT http2;`), or TLS with ALPN.  Frames are read only inside the
# calls below, so a test that calls none of them does not read at all.
#
#   my $c = LLM::H2->new(port => P, window => 1000, auto => 0, rcvbuf => N);
#   my $s = $c->request('POST', '/x', body => '{}', headers => [ a => 'b' ]);
#   $s->status; $s->header('content-type'); $s->body; $s->complete;
#
#   my $s = $c->start($method, $path, %o);  only send; streams may be many
#   $c->send_data($s, $bytes, end => 1);    keeps to the peer's windows
#   $c->read_head($s);  $c->read_some($s);  $c->read_body($s, limit => N);
#   $c->read_until(sub { COND }, $timeout); read frames until COND is true
#   $c->window_update($stream_or_0, N);     by hand, with auto => 0
#   $c->reset($s, 8); $c->ping; $c->goaway; $c->settings(4 => 100000);
#   $c->send_frame($type, $flags, $id, $payload);         anything else
#   $c->frames                              list of frames got so far
#   $c->abort('rst'), close, half_close, wait_close: as in LLM::Conn

use strict;
use warnings;

use parent 'LLM::Conn';

use LLM::H2::Stream ();
use LLM::HPACK ();
use LLM::Util qw(now nap);

my %TYPE = (
    DATA => 0, HEADERS => 1, PRIORITY => 2, RST_STREAM => 3, SETTINGS => 4,
    PUSH_PROMISE => 5, PING => 6, GOAWAY => 7, WINDOW_UPDATE => 8,
    CONTINUATION => 9,
);
my %NAME = reverse %TYPE;

use constant {
    END_STREAM => 1, ACK => 1, END_HEADERS => 4, PADDED => 8, PRIORITY => 32,
    INITIAL_WINDOW => 4, CANCEL => 8, FRAME_SIZE => 16384,
};

my $PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";


# Beside LLM::Conn's options:
#   window    our SETTINGS_INITIAL_WINDOW_SIZE: how much a stream may send us
#   auto      1: what was read is given back to both windows at once;
#             'conn': only to the connection's; 0: only by window_update()
#   conn_window    the connection's window is opened to this at the start
#   settings  hash of further settings, by number

sub new {
    my ($class, %o) = @_;

    $o{tls}{alpn} //= ['h2'] if ref $o{tls};
    $o{tls} = { alpn => ['h2'] } if $o{tls} && !ref $o{tls};

    my $self = $class->SUPER::new(%o);

    %$self = (%$self,
        auto => $o{auto} // 1, streams => {}, next_id => 1, frames => [],
        send_window => 65535, peer => { INITIAL_WINDOW, 65535 },
        decoder => LLM::HPACK->new, unacked => 0, pings => 0,
        fragment => undef);

    my %settings = (2 => 0, %{ $o{settings} // {} });
    $settings{+INITIAL_WINDOW} = $o{window} if defined $o{window};

    $self->write($PREFACE);
    $self->settings(%settings);
    $self->window_update(0, $o{conn_window} - 65535)
        if ($o{conn_window} // 0) > 65535;

    return $self;
}


sub frames        { return $_[0]{frames} }
sub goaway_got    { return $_[0]{goaway} }
sub peer_settings { return $_[0]{peer} }
sub send_window   { return $_[0]{send_window} }
sub streams       { return values %{ $_[0]{streams} } }


# --- sending ---

sub send_frame {
    my ($self, $type, $flags, $id, $payload) = @_;

    $type = $TYPE{$type} if exists $TYPE{$type};
    $payload //= '';

    return $self->write(substr(pack('N', length $payload), 1)
                        . pack('CCN', $type, $flags, $id) . $payload);
}


sub settings {
    my ($self, %values) = @_;
    $self->send_frame('SETTINGS', 0, 0, join '',
                      map { pack 'nN', $_, $values{$_} } sort keys %values);
}


sub window_update {
    my ($self, $stream, $n) = @_;
    my $id = ref $stream ? $stream->id : $stream;
    $self->send_frame('WINDOW_UPDATE', 0, $id, pack 'N', $n);
}


sub reset {
    my ($self, $stream, $code) = @_;
    $self->send_frame('RST_STREAM', 0, $stream->id, pack 'N', $code // CANCEL);
    $stream->ended('cancelled');
}


sub goaway {
    my ($self, $code) = @_;
    $self->send_frame('GOAWAY', 0, 0, pack 'NN', 0, $code // 0);
}


# Sends PING and waits for its answer: the round trip's seconds, or undef.

sub ping {
    my ($self, $timeout) = @_;
    my ($start, $had) = (now(), $self->{pings});
    $self->send_frame('PING', 0, 0, 'llm-ping');
    return $self->read_until(sub { $self->{pings} > $had }, $timeout)
        ? now() - $start : undef;
}


# Opens a stream.  headers: name, value pairs (names are sent as given: lower
# case is the caller's duty); authority, scheme; body: sent with END_STREAM and
# content-length (length => 0: without it); open => 1: no body and no
# END_STREAM, send_data() follows; auto: as in new(), for this stream.

sub start {
    my ($self, $method, $path, %o) = @_;

    my $stream = LLM::H2::Stream->new(
        id => $self->{next_id}, auto => $o{auto} // $self->{auto},
        send_window => $self->{peer}{+INITIAL_WINDOW});
    $self->{next_id} += 2;
    $self->{streams}{ $stream->id } = $stream;

    my @headers = (
        [':method', $method], [':scheme', $o{scheme} // 'http'],
        [':path', $path], [':authority', $o{authority} // 'localhost']);

    my @list = @{ $o{headers} // [] };
    push @headers, [splice @list, 0, 2] while @list;

    push @headers, ['content-length', length $o{body}]
        if defined $o{body} && ($o{length} // 1);

    my $ends = !$o{open} && ($o{body} // '') eq '';
    $self->_send_headers($stream->id, LLM::HPACK::encode(@headers), $ends);
    $self->send_data($stream, $o{body}, end => !$o{open})
        if ($o{body} // '') ne '';

    return $stream;
}


sub _send_headers {
    my ($self, $id, $block, $end_stream) = @_;

    my ($type, $flags) = ('HEADERS', $end_stream ? END_STREAM : 0);

    do {
        my $part = substr $block, 0, FRAME_SIZE, '';
        $flags |= END_HEADERS if $block eq '';
        $self->send_frame($type, $flags, $id, $part);
        ($type, $flags) = ('CONTINUATION', 0);
    } while $block ne '';
}


# Sends body bytes, waiting for the peer's WINDOW_UPDATEs where it must (frames
# are read meanwhile).  end => 1 ends the stream; force => 1 ignores windows.
# Returns the number of bytes sent: fewer if the stream ended or on a timeout.

sub send_data {
    my ($self, $stream, $bytes, %o) = @_;

    my $done = 0;

    while (1) {
        my $room = $o{force} ? FRAME_SIZE : $self->_room($stream);
        my $left = length($bytes) - $done;

        if ($left && $room <= 0) {
            my $ok = $self->read_until(
                sub { $stream->end || $self->_room($stream) > 0 },
                $o{timeout});
            return $done if !$ok || $stream->end;
            next;
        }

        my $part = substr $bytes, $done, $room < FRAME_SIZE ? $room
                                                            : FRAME_SIZE;
        $done += length $part;
        my $last = $done == length $bytes;

        $self->{send_window} -= length $part;
        $stream->{send_window} -= length $part;
        $self->send_frame('DATA', $last && $o{end} ? END_STREAM : 0,
                          $stream->id, $part) or return $done;

        return $done if $last;
    }
}


sub _room {
    my ($self, $stream) = @_;
    my ($a, $b) = ($self->{send_window}, $stream->{send_window});
    return $a < $b ? $a : $b;
}


# --- receiving ---

# Reads frames until the condition is true; returns it (false: the time is
# over or the connection ended).  size: bytes of one read from the socket.

sub read_until {
    my ($self, $cond, $timeout, $size) = @_;

    my $end = now() + ($timeout // $self->{timeout});

    while (1) {
        1 while $self->_one_frame;

        my $value = $cond->();
        return $value if $value;
        next if $self->fill($end, $size);

        if ($self->{eof} || $self->{error}) {
            $_->ended('cut') for $self->streams;
            return $cond->();
        }

        return $value;
    }
}


# Waits for the response's headers, the body's next bytes (returned), its end.

sub read_head {
    my ($self, $stream, %o) = @_;
    $self->read_until(sub { $stream->status || $stream->end }, $o{timeout});
    return $stream;
}


sub read_some {
    my ($self, $stream, %o) = @_;
    my $had = length $stream->body;
    $self->read_until(sub { length $stream->body > $had || $stream->end },
                      $o{timeout}, $o{size});
    return substr $stream->body, $had;
}


# Options as in LLM::H1: limit, until, timeout, for, rate.

sub read_body {
    my ($self, $stream, %o) = @_;

    my ($start, $from) = (now(), length $stream->body);

    while (!$stream->end) {
        last if defined $o{limit} && length $stream->body >= $o{limit};
        last if $o{until} && $stream->body =~ $o{until};

        my $timeout = $o{timeout} // $self->{timeout};
        my $left = $o{for} ? $start + $o{for} - now() : $timeout;
        last if $left <= 0;
        $timeout = $left if $left < $timeout;

        my $got = $self->read_some($stream, timeout => $timeout,
                                   size => $o{rate} ? 1024 : undef);
        last if $got eq '';

        nap($start + (length($stream->body) - $from) / $o{rate} - now())
            if $o{rate};
    }

    return $stream;
}


sub request {
    my ($self, $method, $path, %o) = @_;
    my $stream = $self->start($method, $path, %o);
    my %read = map { $_ => $o{$_} }
               grep { exists $o{$_} } qw(timeout limit until rate for);
    return $self->read_body($stream, %read);
}


# Takes one frame from the buffer; false if there is no whole one.

sub _one_frame {
    my ($self) = @_;

    return 0 if length $self->{buf} < 9;
    my $length = unpack 'N', "\0" . substr $self->{buf}, 0, 3;
    return 0 if length $self->{buf} < 9 + $length;

    my ($type, $flags, $id) = unpack 'CCN', substr $self->{buf}, 3, 6;
    my $payload = substr $self->{buf}, 9, $length;
    substr $self->{buf}, 0, 9 + $length, '';

    my $name = $NAME{$type} // "TYPE$type";
    push @{ $self->{frames} }, { type => $name, flags => $flags, id => $id,
                                 length => $length, time => now() };

    my $method = $self->can('_got_' . lc $name);
    $self->$method($flags, $id, $payload) if $method;

    return 1;
}


sub _unpad {
    my ($flags, $payload) = @_;
    return $payload if !($flags & PADDED);
    my $pad = ord $payload;
    return substr $payload, 1, length($payload) - 1 - $pad;
}


sub _got_data {
    my ($self, $flags, $id, $payload) = @_;

    my $stream = $self->{streams}{$id};
    my $length = length $payload;
    $self->{unacked} += $length;

    if ($stream) {
        $stream->got_data(_unpad($flags, $payload), $length);
        $stream->ended('end_stream') if $flags & END_STREAM;
    }

    $self->_give_back($stream);
}


# With auto windows: updates for what was read, once it is worth a frame.

sub _give_back {
    my ($self, $stream) = @_;

    if ($self->{auto} && $self->{unacked} >= 8192) {
        $self->window_update(0, $self->{unacked});
        $self->{unacked} = 0;
    }

    return if !$stream || $stream->end || ($stream->{auto} // 0) ne '1';

    if ($stream->{unacked} > 0) {
        $self->window_update($stream, $stream->{unacked});
        $stream->{unacked} = 0;
    }
}


sub _got_headers {
    my ($self, $flags, $id, $payload) = @_;

    $payload = _unpad($flags, $payload);
    substr $payload, 0, 5, '' if $flags & PRIORITY;
    $self->{fragment} = $payload;
    $self->{fragment_ends} = $flags & END_STREAM;
    $self->_headers_done($id) if $flags & END_HEADERS;
}


sub _got_continuation {
    my ($self, $flags, $id, $payload) = @_;
    $self->{fragment} .= $payload;
    $self->_headers_done($id) if $flags & END_HEADERS;
}


sub _headers_done {
    my ($self, $id) = @_;

    my @headers = $self->{decoder}->decode(delete $self->{fragment});
    my $stream = $self->{streams}{$id} or return;

    $stream->got_headers(@headers);
    $stream->ended('end_stream') if $self->{fragment_ends};
}


sub _got_rst_stream {
    my ($self, $flags, $id, $payload) = @_;
    my $stream = $self->{streams}{$id} or return;
    $stream->ended('rst', unpack 'N', $payload);
}


sub _got_settings {
    my ($self, $flags, $id, $payload) = @_;

    return if $flags & ACK;

    while (my ($key, $value) = unpack 'nN', substr $payload, 0, 6, '') {
        my $old = $self->{peer}{$key};
        $self->{peer}{$key} = $value;
        next if $key != INITIAL_WINDOW;
        $_->{send_window} += $value - $old for $self->streams;
    }

    $self->{settings_got} = 1;
    $self->send_frame('SETTINGS', ACK, 0, '');
}


sub _got_ping {
    my ($self, $flags, $id, $payload) = @_;

    if ($flags & ACK) {
        $self->{pings}++;

    } else {
        $self->send_frame('PING', ACK, 0, $payload);
    }
}


sub _got_goaway {
    my ($self, $flags, $id, $payload) = @_;

    my ($last, $code) = unpack 'NN', $payload;
    $self->{goaway} = { last => $last, code => $code,
                        text => substr $payload, 8 };

    for ($self->streams) {
        $_->ended('goaway') if $_->id > $last;
    }
}


sub _got_window_update {
    my ($self, $flags, $id, $payload) = @_;

    my $n = unpack('N', $payload) & 0x7fffffff;
    my $to = $id ? $self->{streams}{$id} : $self;
    $to->{send_window} += $n if $to;
}


1;
