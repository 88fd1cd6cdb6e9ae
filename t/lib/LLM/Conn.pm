package LLM::Conn;

# The connection under LLM::H1 and LLM::H2: a non-blocking TCP or TLS socket,
# with time limits, and with control over buffers, closing and resetting.
# Nothing here dies on what the peer does: eof() and error() tell.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Select ();
use IO::Socket::INET ();
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY SO_LINGER inet_aton
              pack_sockaddr_in);

use Scalar::Util qw(refaddr weaken);

use LLM::Util qw(now nap);

# weak references to all connections, for close_all()
my %OPEN;


# addr (127.0.0.1), port; timeout: seconds any one call may take (10); rcvbuf,
# sndbuf: set before connect(), so that the TCP window is small too; tls: a
# hash of sni, ca, verify, alpn (needs IO::Socket::SSL, see have_tls()).

sub new {
    my ($class, %o) = @_;

    my $self = bless {
        addr => $o{addr} // '127.0.0.1', port => $o{port},
        timeout => $o{timeout} // 10, buf => '',
        eof => 0, error => '', write_error => '', sent => 0, received => 0,
    }, $class;

    local $SIG{PIPE} = 'IGNORE';

    $self->{sock} = $self->_connect(\%o);
    $self->_start_tls($o{tls}) if $o{tls};
    weaken($OPEN{ refaddr $self } = $self);

    return $self;
}


sub _connect {
    my ($self, $o) = @_;

    socket(my $sock, PF_INET, SOCK_STREAM, 0) or die "socket(): $!\n";

    for (['rcvbuf', SO_RCVBUF], ['sndbuf', SO_SNDBUF]) {
        my ($name, $option) = @$_;
        next if !$o->{$name};
        setsockopt($sock, SOL_SOCKET, $option, pack('l', $o->{$name}))
            or die "setsockopt($name): $!\n";
    }

    my $to = pack_sockaddr_in($self->{port}, inet_aton($self->{addr}));
    connect($sock, $to)
        or die "cannot connect to $self->{addr}:$self->{port}: $!\n";

    setsockopt($sock, IPPROTO_TCP, TCP_NODELAY, pack('l', 1));
    bless $sock, 'IO::Socket::INET';
    $sock->blocking(0);

    return $sock;
}


# TLS is IO::Socket::SSL's (Debian: libio-socket-ssl-perl); tests that need
# it skip when it is not there.

sub have_tls { return scalar eval { require IO::Socket::SSL; 1 } }


sub _start_tls {
    my ($self, $tls) = @_;

    die "IO::Socket::SSL is not installed\n" if !have_tls();
    $tls = {} if !ref $tls;

    $self->{sock}->blocking(1);
    $self->{sock}->timeout($self->{timeout});

    my $ok = IO::Socket::SSL->start_SSL($self->{sock},
        SSL_hostname => $tls->{sni} // '',
        SSL_verify_mode => $tls->{verify} ? 1 : 0,
        ($tls->{ca} ? (SSL_ca_file => $tls->{ca}) : ()),
        ($tls->{alpn} ? (SSL_alpn_protocols => $tls->{alpn}) : ()),
        ($tls->{version} ? (SSL_version => $tls->{version}) : ()));

    die "TLS handshake failed: $IO::Socket::SSL::SSL_ERROR\n" if !$ok;

    $self->{tls} = 1;
    $self->{sock}->blocking(0);
}


sub sock { return $_[0]{sock} }


# '' or what a read or write failed with ("read: Connection reset by peer").
# A failed write does not stop reading: an early answer may be there.

sub error { return $_[0]{error} || $_[0]{write_error} }


sub eof { return $_[0]{eof} }


# Bytes read but not yet used: what follows a 101, or a bug.

sub buffered { return $_[0]{buf} }


# --- sending ---

# Writes all of $bytes, or as much as the server takes before the timeout.
# Returns the number of bytes written.

sub write {
    my ($self, $bytes, $timeout) = @_;

    my $end = now() + ($timeout // $self->{timeout});
    my $done = 0;

    local $SIG{PIPE} = 'IGNORE';

    while ($done < length $bytes) {
        my $n = syswrite($self->{sock}, $bytes, 65536, $done);

        if (defined $n) {
            $done += $n;
            next;
        }

        if (!$self->_would_block) {
            $self->{write_error} ||= "write: $!";
            last;
        }

        last if !$self->_wait_ready('write', $end);
    }

    $self->{sent} += $done;
    return $done;
}


# The same in pieces of $size bytes with $delay seconds between them.

sub write_slowly {
    my ($self, $bytes, $size, $delay) = @_;

    my $done = 0;

    while ($done < length $bytes) {
        nap($delay) if $done;
        my $n = $self->write(substr $bytes, $done, $size);
        $done += $n;
        last if $n == 0;
    }

    return $done;
}


# --- ending ---

# Waits until the server has closed: 'eof', 'reset', or '' (still open after
# the timeout).  Bytes that come meanwhile stay in buffered().

sub wait_close {
    my ($self, $timeout) = @_;

    my $end = now() + ($timeout // $self->{timeout});

    1 while $self->fill($end);

    return 'eof' if $self->{eof};
    return $self->{error} ? 'reset' : '';
}


# 'rst': the peer gets a reset; 'fin': an ordinary close with data unread or
# not (the kernel answers with a reset if there is unread data).

sub abort {
    my ($self, $how) = @_;

    setsockopt($self->{sock}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0))
        if ($how // 'rst') eq 'rst';

    $self->close;
}


# Sends FIN; the answer can still be read.

sub half_close { shutdown($_[0]{sock}, 1) }


sub close {
    my ($self) = @_;

    delete $OPEN{ refaddr $self };

    if ($self->{tls} && $self->{sock}) {
        # no close_notify: tests want the bare TCP close, at once
        $self->{sock}->close(SSL_no_shutdown => 1);
        delete $self->{sock};

    } elsif ($self->{sock}) {
        CORE::close(delete $self->{sock});
    }
}


# Closes every connection the test still has: a server that stops gracefully
# waits for its clients.

sub close_all {
    $_->close for grep { defined } values %OPEN;
}


# --- receiving ---

# Adds what can be read to the buffer.  Returns the number of bytes, 0 at the
# end of the connection, on an error or when $end has passed.

sub fill {
    my ($self, $end, $size) = @_;

    return 0 if $self->{eof} || $self->{error};

    while (1) {
        my $n = sysread($self->{sock}, $self->{buf}, $size // 65536,
                        length $self->{buf});

        if ($n) {
            $self->{received} += $n;
            return $n;
        }

        if (defined $n) {
            $self->{eof} = 1;
            return 0;
        }

        if (!$self->_would_block) {
            $self->{error} = "read: $!";
            return 0;
        }

        return 0 if !$self->_wait_ready('read', $end);
    }
}


sub _would_block {
    my ($self) = @_;
    return 1 if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
    return 0 if !$self->{tls};

    no warnings 'once';
    my $error = $IO::Socket::SSL::SSL_ERROR;
    return 1 if $error == IO::Socket::SSL::SSL_WANT_READ()
             || $error == IO::Socket::SSL::SSL_WANT_WRITE();
    return 0;
}


sub _wait_ready {
    my ($self, $what, $end) = @_;

    my $left = $end - now();
    return 0 if $left <= 0;

    no warnings 'once';
    if ($self->{tls}) {
        my $error = $IO::Socket::SSL::SSL_ERROR;
        $what = 'read' if $error == IO::Socket::SSL::SSL_WANT_READ();
        $what = 'write' if $error == IO::Socket::SSL::SSL_WANT_WRITE();
    }

    my $select = IO::Select->new($self->{sock});
    return $what eq 'read' ? $select->can_read($left)
                           : $select->can_write($left);
}


1;
