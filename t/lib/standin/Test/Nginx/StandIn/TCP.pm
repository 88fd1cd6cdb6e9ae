package Test::Nginx::StandIn::TCP;

# The sections tcp_*: a server for one connection, in a child process.  It
# reads (once, or until it has as much as tcp_query says), replies, closes.

use strict;
use warnings;

use Exporter 'import';
use File::Temp ();
use IO::Select ();
use IO::Socket::INET ();
use IO::Socket::UNIX ();
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep);

use Test::Nginx::StandIn::Checks qw(is_text);
use Test::Nginx::StandIn::Server qw(stop_process);
use Test::Nginx::StandIn::Settings;

our @EXPORT = qw(start_tcp check_tcp stop_tcp);

my $child;


sub start_tcp {
    my ($block) = @_;

    return if !defined $block->tcp_listen;

    my $name = $block->name;
    bail_out("$name: tcp_listen without tcp_reply")
        if !defined $block->tcp_reply && !defined $block->tcp_shutdown;

    my $length = $block->tcp_query_len
                 // (defined $block->tcp_query ? length $block->tcp_query
                                               : undef);
    my $self = {
        block => $block, want => $length,
        listen => listen_on(expand_env(scalar($block->tcp_listen), $name),
                            $name),
        query => File::Temp->new(UNLINK => 1),
    };

    my $pid = fork() // bail_out("$name: fork failed: $!");

    if ($pid == 0) {
        eval { serve($self); 1 } or print STDERR "$name: TCP server: $@";
        POSIX::_exit(0);
    }

    $child = $pid;
    return $self;
}


sub listen_on {
    my ($target, $name) = @_;

    for my $try (1 .. 30) {
        unlink $target if $target =~ /\.sock$/;

        my $sock = $target =~ /^\d+$/
            ? IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5,
                                    LocalPort => $target, ReuseAddr => 1)
            : IO::Socket::UNIX->new(Local => $target, Listen => 5);
        return $sock if $sock;

        sleep 0.1 * $try;
    }

    bail_out("$name: cannot listen on $target: $!");
}


sub serve {
    my ($self) = @_;

    my $block = $self->{block};
    my $client = $self->{listen}->accept or die "accept: $!\n";
    my $shutdown = $block->tcp_shutdown;

    if (defined $shutdown) {
        sleep $block->tcp_shutdown_delay if $block->tcp_shutdown_delay;
        $client->shutdown($shutdown);
    }

    my $query = defined $shutdown && $shutdown != 1
                ? '' : read_query($self, $client);

    my $delay = seconds(scalar $block->tcp_reply_delay);
    sleep $delay if $delay;

    my $reply = $block->tcp_reply;

    if (defined $reply && !(defined $shutdown && $shutdown != 0)) {
        $reply = $reply->($query) if ref $reply eq 'CODE';

        for my $piece (ref $reply ? @$reply : $reply) {
            defined $client->send($piece)
                or warn $block->name, ": TCP server: cannot send: $!\n";
        }
    }

    sleep 1 while defined $block->tcp_no_close;

    close $client;
}


# What is read goes to the file at once: the parent may look at any time.

sub read_query {
    my ($self, $client) = @_;

    my $auto = $self->{block}->tcp_query_auto_timeout;
    my $silence = $auto || 0.1;
    my $select = IO::Select->new($client);
    my $query = '';

    while (1) {
        last if defined $auto && !$select->can_read($silence);

        my $n = sysread $client, $query, 4096, length $query;
        die "read: $!\n" if !defined $n;
        last if $n == 0;

        syswrite $self->{query}, substr($query, -$n);

        last if !defined $auto
                && (!$self->{want} || length $query >= $self->{want});
    }

    return $query;
}


sub check_tcp {
    my ($self) = @_;

    return if !$self;

    my $block = $self->{block};
    open my $in, '<:raw', $self->{query}->filename
        or bail_out("cannot read the TCP query: $!");
    my $query = do { local $/; <$in> } // '';

    is_text($query, scalar($block->tcp_query), $block->name . ': TCP query')
        if defined $block->tcp_query;

    Test::More::is(length $query, $block->tcp_query_len,
                   $block->name . ': TCP query length')
        if defined $block->tcp_query_len;
}


sub stop_tcp {
    my ($self) = @_;

    stop_process($child, 'KILL') if $child;
    undef $child;
    close $self->{listen} if $self;
}


1;
