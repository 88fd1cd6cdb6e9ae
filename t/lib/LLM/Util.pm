package LLM::Util;

# Helpers shared by the test library: time, ports, files, JSON, SSE.
# Core Perl only.  Tests normally get these names from LLM::E2E.

use strict;
use warnings;

use Cwd qw(realpath);
use Exporter 'import';
use Fcntl qw(:flock O_RDWR O_CREAT);
use File::Basename qw(dirname);
use File::Spec ();
use IO::Socket::INET ();
use JSON::PP ();
use Socket qw(SOCK_STREAM SOMAXCONN);
use Time::HiRes ();

our @EXPORT_OK = qw(
    now nap wait_for free_port slurp spew repo_root
    json_encode json_decode sse_events
);


# Seconds on the monotonic clock: differences are safe to compare.

sub now {
    return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC());
}


sub nap {
    my ($seconds) = @_;
    Time::HiRes::sleep($seconds) if $seconds > 0;
}


# wait_for { COND } $timeout (or a sub ref): polls until COND is true and
# returns its value, or the last false value when the time is over.

sub wait_for (&;$$) {
    my ($cond, $timeout, $step) = @_;

    my $end = now() + ($timeout // 5);
    my $wait = $step // 0.002;

    while (1) {
        my $value = $cond->();
        return $value if $value || now() >= $end;

        nap($wait);
        $wait *= 1.5 if !$step && $wait < 0.05;
    }
}


# A TCP port no other test has or will get while this process lives.  Ports
# lie outside the kernel's ephemeral range, so that no outgoing connection
# takes one between this call and the server's bind(); the lock file keeps
# parallel tests apart; the trial bind() finds strangers.

my %port_lock;

sub free_port {
    my ($lo, $hi) = _port_range();
    my $dir = _lock_dir();

    for (1 .. 2000) {
        my $port = $lo + int(rand($hi - $lo));
        next if $port_lock{$port};

        sysopen(my $lock, "$dir/$port", O_RDWR|O_CREAT, 0666) or next;
        flock($lock, LOCK_EX|LOCK_NB) or next;

        my $sock = IO::Socket::INET->new(
            LocalAddr => '0.0.0.0', LocalPort => $port, Proto => 'tcp',
            ReuseAddr => 1, Listen => 1) or next;
        close $sock;

        $port_lock{$port} = $lock;
        return $port;
    }

    die "no free port between $lo and $hi\n";
}


sub _port_range {
    my ($first, $last) = (32768, 60999);

    if (open my $in, '<', '/proc/sys/net/ipv4/ip_local_port_range') {
        my $line = <$in> // '';
        ($first, $last) = ($1, $2) if $line =~ /(\d+)\s+(\d+)/;
    }

    return (10240, $first) if $first >= 14336;
    return ($last + 1, 65500) if $last <= 61400;
    return (20000, 32000);
}


sub _lock_dir {
    my $dir = File::Spec->tmpdir() . "/llm-test-ports-$>";
    mkdir $dir, 0700;
    die "cannot use $dir: $!\n" if !-d $dir;
    return $dir;
}


sub slurp {
    my ($path) = @_;
    open my $in, '<:raw', $path or return '';
    local $/;
    return scalar(<$in>) // '';
}


sub spew {
    my ($path, @text) = @_;
    open my $out, '>:raw', $path or die "cannot write $path: $!\n";
    print {$out} @text;
    close $out or die "cannot write $path: $!\n";
}


# The top of the source tree, found from this file's own place (t/lib/LLM).

my $root = dirname(dirname(dirname(dirname(realpath(__FILE__)))));

sub repo_root { return $root }


# JSON as bytes (UTF-8), keys sorted so that texts can be compared.

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

sub json_encode { return $json->encode($_[0]) }


# Returns undef for what is not JSON: tests say is_deeply() on it.

sub json_decode {
    my ($text) = @_;
    return scalar eval { $json->decode($text // '') };
}


# Splits an event-stream body into a list of events, each a hash:
#   data     the data lines joined by \n (undef if there was none)
#   event, id, retry     as given, undef if absent
#   comments             list of comment texts
#   raw                  the bytes of the block, without its blank line
#   complete             false for a last block with no blank line after it
# Blocks of comments only are events too (data undef): pings can be counted.

sub sse_events {
    my ($body) = @_;

    $body =~ s/^\xef\xbb\xbf//;

    my @lines = split /(\r\n|\n|\r)/, $body, -1;
    my ($event, @events);

    while (@lines) {
        my ($line, $end) = splice @lines, 0, 2;

        if ($line eq '' && defined $end) {
            if ($event) {
                $event->{complete} = 1;
                push @events, $event;
                undef $event;
            }
            next;
        }

        next if $line eq '';

        $event //= { data => undef, event => undef, id => undef,
                     retry => undef, comments => [], raw => '',
                     complete => 0 };
        $event->{raw} .= $line . ($end // '');
        _sse_field($event, $line);
    }

    push @events, $event if $event;
    return @events;
}


sub _sse_field {
    my ($event, $line) = @_;

    my ($name, $value) = $line =~ /^([^:]*)(?:: ?(.*))?$/s;
    $value //= '';

    if ($name eq '') {
        push @{ $event->{comments} }, $value;

    } elsif ($name eq 'data') {
        $event->{data} = defined $event->{data}
            ? "$event->{data}\n$value" : $value;

    } elsif ($name =~ /^(?:event|id|retry)$/) {
        $event->{$name} = $value;
    }
}


1;
