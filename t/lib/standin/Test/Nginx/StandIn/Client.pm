package Test::Nginx::StandIn::Client;

# Sends one request of a block over a connection of its own, reads until the
# server closes, and takes the answer apart.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Exporter 'import';
use IO::Select ();
use IO::Socket::INET ();
use Test::More ();
use Time::HiRes qw(sleep);

use Test::Nginx::StandIn::Settings;

our @EXPORT = qw(exchange parse_response);


# Returns the bytes of the answer.  A silence longer than $timeout is a failed
# test, except with --- abort, where it is what the test wants.

sub exchange {
    my ($block, $packets, $timeout) = @_;

    my $sock = connect_server($block, $timeout) or return;
    my $self = {
        sock => $sock, block => $block, packets => [@$packets],
        out => '', in => '', writing => 1,
    };
    $self->{out} = (shift @{ $self->{packets} })->{value};

    local $SIG{PIPE} = 'IGNORE';

    while (1) {
        my $select = IO::Select->new($sock);
        my ($readable, $writable) = IO::Select->select(
            $select, $self->{writing} ? $select : undef, undef, $timeout);

        if (!$readable) {
            silence($block);
            last;
        }

        last if @$readable && !receive($self);
        last if @$writable && !transmit($self);
    }

    close $sock;
    return $self->{in};
}


my $failed_connects = 0;

sub connect_server {
    my ($block, $timeout) = @_;

    my ($addr, $port) = @Setting{qw(server_addr client_port)};

    for my $try (1 .. 25) {
        my $sock = IO::Socket::INET->new(
            PeerAddr => $addr, PeerPort => $port, Proto => 'tcp',
            Timeout => $timeout);

        if ($sock) {
            $sock->blocking(0);
            return $sock;
        }

        sleep $try < 20 ? $Setting{sleep} * $try : 1;
    }

    my $text = $block->name . ": cannot connect to $addr:$port: $!";
    bail_out($text) if ++$failed_connects >= 3;

    too_many_tests();
    Test::More::fail($text);
    return;
}


sub silence {
    my ($block) = @_;

    if (defined $block->abort) {
        sleep 0.005;
        return;
    }

    too_many_tests();
    Test::More::fail($block->name . ': the client timed out');
}


# Both return false when the connection is of no more use.

sub receive {
    my ($self) = @_;

    while (1) {
        my $n = sysread $self->{sock}, $self->{in}, 65536, length $self->{in};
        next if $n;
        return 0 if defined $n;
        return 1 if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;

        warn $self->{block}->name, ": reading the answer failed: $!\n";
        return 0;
    }
}


sub transmit {
    my ($self) = @_;

    while (1) {
        if ($self->{out} eq '') {
            return finish_writing($self) if !@{ $self->{packets} };
            next_packet($self);
            next;
        }

        my $n = syswrite $self->{sock}, $self->{out};

        if (!defined $n) {
            return 1 if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
            warn $self->{block}->name, ": sending failed: $!\n";
            return 0;
        }

        substr $self->{out}, 0, $n, '';
    }
}


sub next_packet {
    my ($self) = @_;

    my $packet = shift @{ $self->{packets} };
    my $delay = $packet->{delay_before}
                // $self->{block}->raw_request_middle_delay;

    sleep $delay if $delay;
    $self->{out} = $packet->{value};
}


sub finish_writing {
    my ($self) = @_;

    my $how = $self->{block}->shutdown;
    shutdown $self->{sock}, $how eq '' ? 1 : $how if defined $how;

    $self->{writing} = 0;
    return 1;
}


# --- the answer ---

# A hash: code, head (the raw status line and headers), headers (a list of
# [name, value]), content (decoded), rest (bytes after this response).  undef
# if the chunked coding is broken, which is a failed test of its own.

sub parse_response {
    my ($name, $raw, $is_head) = @_;

    my ($status, $text) = $raw =~ /^([^\n]*)\n?(.*)$/s;
    my @words = split ' ', $status, 3;
    my $code = $status =~ /^\d{3} / ? $words[0] : $words[1];

    my %r = (
        code => defined $code && $code =~ /^\d+$/ ? $code : '',
        head => $raw =~ /^(.*?\r\n)\r\n/s ? $1 : '',
        headers => take_headers(\$text), content => $text,
    );

    return \%r if $r{code} eq '304' || $r{code} eq '101';

    my ($coding) = header_values(\%r, 'Transfer-Encoding');
    my ($length) = header_values(\%r, 'Content-Length');

    if (defined $coding && $coding eq 'chunked') {
        return if !decode_chunked($name, \%r);

    } elsif (defined $length && $length =~ /^\d+$/) {
        my $missing = $length - length $text;
        warn "$name: the body is cut short by $missing bytes\n"
            if $missing > 0 && !$is_head;

        if ($missing < 0) {
            $r{rest} = substr $text, $length;
            $r{content} = substr $text, 0, $length;
        }
    }

    return \%r;
}


sub take_headers {
    my ($text) = @_;

    my @headers;

    while (1) {
        if ($$text =~ s/^([^\s:]+)[ \t]*: ?([^\n]*)\n?//) {
            push @headers, [$1, $2];

        } elsif (@headers && $$text =~ s/^([ \t][^\n]*)\n?//) {
            $headers[-1][1] .= "\n$1";

        } else {
            $$text =~ s/^\r?\n//;
            return \@headers;
        }

        $headers[-1][1] =~ s/\r$//;
    }
}


# All values of a header; '_' in the asked name stands for '-'.

sub header_values {
    my ($r, $name) = @_;
    $name = lc $name =~ tr/_/-/r;
    return map { $_->[1] } grep { lc $_->[0] eq $name } @{ $r->{headers} };
}


sub decode_chunked {
    my ($name, $r) = @_;

    my ($text, $out) = ($r->{content}, '');
    my @trailers = header_values($r, 'Trailer');

    while (1) {
        $text =~ s/^[ \t]*([0-9A-Fa-f]+)[ \t]*\r\n//
            or return broken($name, $text eq '' ? 'no last chunk'
                                                : "no chunk size: $text");
        my $size = hex $1;
        last if $size == 0;

        return broken($name, 'a chunk is cut short') if $size > length $text;

        $out .= substr $text, 0, $size, '';
        $text =~ s/^\r\n// or return broken($name, 'no CRLF after a chunk');
    }

    for my $trailer (@trailers) {
        $text =~ s/^\Q$trailer\E: [^\n]*\r\n//
            or return broken($name, "no trailer $trailer");
    }

    $text =~ s/^\r\n// or return broken($name, 'no CRLF after the last chunk');

    $r->{content} = $out;
    $r->{rest} = $text if $text ne '';
    return 1;
}


sub broken {
    my ($name, $why) = @_;
    too_many_tests();
    Test::More::fail("$name: bad chunked coding: $why");
    return 0;
}


1;
