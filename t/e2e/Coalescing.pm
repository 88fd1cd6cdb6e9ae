package Coalescing;

# For the tests of coalescing: a gateway that does it, and many clients of one
# script, whose answers are read as they come.
#
#   my ($t, $mock) = server(workers => 2, cache => 'off');
#   my @c = map { client($t, question => $q, stream => 1) } 1 .. 10;
#   run_clients(10, \@c, sub { between });
#   is_one_call($mock, $before, 'name', @c);

use strict;
use warnings;

use Exporter 'import';
use IO::Select ();
use IO::Socket::INET ();
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(time sleep);

use LLM::E2E;
use Gateway;

our @EXPORT = qw(
    client run_clients question calls cache_of joined bodies pids is_one_call
    status_of is_empty server leader_of
);

my $n = 0;


# --- clients: sockets that are read together ---

# { question, stream, mock => {...}, headers => [...], after => s, leave => s,
# pause => s: reads nothing for so long, with a small buffer }

sub client {
    my ($t, %o) = @_;

    return { %o, begin => time + ($o{after} // 0), port => $t->port,
             data => '', state => 'new' };
}


sub open_client {
    my ($c) = @_;

    my $body = json_encode({ model => $c->{model} // 'gpt-4o',
                             messages => [{ role => 'user',
                                            content => $c->{question} }],
                             ($c->{stream} ? (stream => \1) : ()),
                             %{ $c->{more} // {} } });
    my $head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
               . "Connection: close\r\nContent-Type: application/json\r\n"
               . 'X-Test: ' . ($c->{test} // '-') . "\r\n";

    my %mock = %{ $c->{mock} // {} };
    $head .= "X-Mock-$_: $mock{$_}\r\n" for sort keys %mock;

    my @headers = @{ $c->{headers} // [authorization => 'Bearer sk-a'] };

    while (my ($name, $value) = splice @headers, 0, 2) {
        $head .= "$name: $value\r\n";
    }

    $head .= 'Content-Length: ' . length($body) . "\r\n\r\n";

    $c->{sock} = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                       PeerPort => $c->{port},
                                       ($c->{pause}
                                        ? (Sockopts => [[SO_RCVBUF, 4096]])
                                        : ()))
        or die "connect: $!";
    syswrite $c->{sock}, $head . $body;
    $c->{state} = 'open';
}


# Runs them all; at most so many seconds.  on => a function called between.

sub run_clients {
    my ($limit, $list, $on) = @_;

    my $end = time + $limit;
    my $select = IO::Select->new;
    my %by;

    while (time < $end && grep { $_->{state} ne 'done' } @$list) {

        for my $c (@$list) {
            if ($c->{state} eq 'new' && time >= $c->{begin}) {
                open_client($c);
                $by{ $c->{sock} } = $c;
                $select->add($c->{sock}) if !$c->{pause};
            }

            if ($c->{state} eq 'open' && $c->{pause}
                && time >= $c->{begin} + $c->{pause})
            {
                $select->add($c->{sock});
                $c->{pause} = 0;
            }

            if ($c->{state} eq 'open' && $c->{leave}
                && time >= $c->{begin} + $c->{leave})
            {
                $select->remove($c->{sock});
                close $c->{sock};
                $c->{state} = 'done';
                $c->{left} = 1;
            }
        }

        $on->() if $on;

        for my $sock ($select->can_read(0.005)) {
            my $c = $by{$sock};
            my $got = sysread $sock, $c->{data}, 262144, length $c->{data};

            if (!$got) {
                $select->remove($sock);
                close $sock;
                $c->{state} = 'done';
                $c->{ended} = time;
            }
        }
    }

    for my $c (@$list) {
        $c->{hung} = 1 if $c->{state} ne 'done';
        my ($head, $rest) = split /\r\n\r\n/, $c->{data}, 2;
        $c->{status} = ($head // '') =~ m{^HTTP/1.1 (\d+)} ? $1 : 0;
        $c->{head} = { map { lc($_->[0]) => $_->[1] }
                       map { [split /:\s*/, $_, 2] }
                       grep { /:/ } split /\r\n/, $head // '' };
        $c->{body} = $rest // '';

        if (($c->{head}{'transfer-encoding'} // '') eq 'chunked') {
            my ($raw, $out) = ($c->{body}, '');
            $c->{whole} = 0;

            while ($raw =~ s/^([0-9a-f]+)\r\n//i) {
                my $size = hex $1;

                if ($size == 0) {
                    $c->{whole} = 1;
                    last;
                }

                $out .= substr $raw, 0, $size, '';
                $raw =~ s/^\r\n//;
            }

            $c->{body} = $out;

        } else {
            $c->{whole} = length $c->{body}
                          == ($c->{head}{'content-length'} // -1);
        }
    }
}


sub question { return "coalesce $$ " . ++$n }

sub calls { return $_[0]->stats->{requests} }

sub cache_of { return $_[0]{head}{'x-llm-cache'} // '(none)' }

sub joined { return scalar grep { cache_of($_) eq 'COALESCED' } @_ }

sub bodies { my %b; $b{ $_->{body} }++ for @_; return scalar keys %b }

sub pids { my %p; $p{ $_->{head}{'x-pid'} // 0 }++ for @_; return \%p }


# All have the same whole answer, of one call.

sub is_one_call {
    my ($mock, $before, $name, @c) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is(calls($mock) - $before, 1, "$name: one call");
    is(scalar(grep { $_->{hung} } @c), 0, "$name: nobody hangs");
    is(scalar(grep { $_->{status} != 200 || !$_->{whole} } @c), 0,
       "$name: all are answered, whole");
    is(bodies(@c), 1, "$name: all alike");
    is(joined(@c), @c - 1, "$name: one leads, the others have joined");
    is(scalar(grep { cache_of($_) eq 'COALESCED'
                     && ($_->{head}{'x-llm-attempts'} // '') ne '0' } @c), 0,
       "$name: without an attempt");
}


sub status_of {
    my ($t) = @_;
    return http_get($t->port, '/llm')->json->{coalesce};
}


sub is_empty {
    my ($t, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $st;
    wait_for(sub {
        $st = status_of($t);
        return $st->{flights} == 0 && $st->{linked} == 0;
    }, 4);
    is("$st->{flights} $st->{linked}", '0 0', "$name: nothing is left in the zone");
}


sub server {
    my (%o) = @_;

    my $cache = delete $o{cache} // 'off';
    my $extra = delete $o{extra} // '';
    my $http = delete $o{http} // '';

    return gateway(
        fields => [qw(cache flight cost_saved)],
        http => $http,
        provider => 'model gpt-4o input=1000 output=2000;',
        server => "llm_adapter_coalesce on; llm_adapter_cache $cache; "
                  . 'add_header X-Pid $pid always; '
                  . 'location = /llm { llm_adapter_status; } ' . $extra,
        %o);
}


# The worker that has a connection to the provider on which something moves:
# by /proc, since the tests have no other means.

sub leader_of {
    my ($port, @pids) = @_;

    my %inode;
    my $hex = sprintf ':%04X', $port;

    for my $line (split /\n/, slurp('/proc/net/tcp')) {
        my @f = split ' ', $line;
        $inode{ $f[9] } = 1 if ($f[2] // '') =~ /$hex$/ && $f[3] eq '01';
    }

    my @found;

    for my $pid (@pids) {
        for my $fd (glob "/proc/$pid/fd/*") {
            my $link = readlink $fd;
            push @found, $pid
                if $link && $link =~ /socket:\[(\d+)\]/ && $inode{$1};
        }
    }

    return @found ? ($found[0]) : ();
}


1;
