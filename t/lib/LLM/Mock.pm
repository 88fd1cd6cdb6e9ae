package LLM::Mock;

# Runs the mock provider (build/llm_mock, or $ENV{LLM_MOCK}) and speaks to its
# control interface.
#
#   my $m = LLM::Mock->start(args => ['-s', 0, '-c', $cert, '-k', $key]);
#   $m->port  $m->tls_port            the first of each; port(1) the second
#   $m->stats $m->requests            JSON of /_mock/NAME, decoded
#   $m->last $m->last_body $m->last_response_body        bytes
#   $m->reset $m->set(delay => 5)     see t/mock for names
#   $m->stop                          also done when the object goes

use strict;
use warnings;

use IO::Select ();

use LLM::H1 ();
use LLM::Process qw(spawn end_child);
use LLM::Util qw(now wait_for repo_root);


sub start {
    my ($class, %o) = @_;

    my $binary = $o{binary} // $ENV{LLM_MOCK}
                 // repo_root() . '/build/llm_mock';
    die "$binary is not there: run make\n" if !-x $binary;

    pipe(my $out, my $in) or die "pipe(): $!\n";

    my $pid = spawn([$binary, @{ $o{args} // [] }],
                    stdout => $in, env => $o{env});
    close $in;

    my $self = bless { pid => $pid, owner => $$, out => $out }, $class;

    my %given = map { $o{args}[$_] => $o{args}[$_ + 1] }
                0 .. $#{ $o{args} // [] };
    $self->{addr} = $given{'-a'} // '127.0.0.1';

    $self->_read_ports($o{timeout} // 10, @{ $o{args} // [] });
    return $self;
}


# One line "listening PORT" or "listening-tls PORT" for each port asked for
# with -p (one if there is no -p) and -s.

sub _read_ports {
    my ($self, $timeout, @args) = @_;

    my %given = map { $args[$_] => $args[$_ + 1] // '' } 0 .. $#args;
    my $lists = join ',', grep { defined } $given{'-p'} // 0, $given{'-s'};
    my $want = 1 + $lists =~ tr/,//;

    my $end = now() + $timeout;
    my $text = '';
    my $select = IO::Select->new($self->{out});

    while (1) {
        my @plain = $text =~ /^listening (\d+)\n/mg;
        my @tls = $text =~ /^listening-tls (\d+)\n/mg;
        @$self{'ports', 'tls_ports'} = (\@plain, \@tls);
        return if @plain + @tls >= $want;

        my $left = $end - now();
        my $n = $left > 0 && $select->can_read($left)
                ? sysread($self->{out}, $text, 4096, length $text) : 0;

        die "the mock provider did not start, it said: '$text'\n" if !$n;
    }
}


sub port      { return $_[0]{ports}[ $_[1] // 0 ] }
sub tls_port  { return $_[0]{tls_ports}[ $_[1] // 0 ] }
sub ports     { return @{ $_[0]{ports} } }
sub pid       { return $_[0]{pid} }


# A control request (port => P, or to the first): the whole response object.

sub control {
    my ($self, $name, %o) = @_;
    my $client = LLM::H1->new(addr => $self->{addr},
                              port => $o{port} // $self->port);
    return $client->request($o{method} // 'GET', "/_mock/$name", close => 1);
}


sub stats              { return $_[0]->control('stats')->json }
sub requests           { return $_[0]->control('requests')->json }
sub last               { return $_[0]->control('last')->body }
sub last_body          { return $_[0]->control('last_body')->body }
sub last_response_body { return $_[0]->control('last_response_body')->body }
sub reset              { return $_[0]->control('reset')->status == 200 }


# Defaults of a port (port => P, or the first), for requests that say nothing
# else.

sub set {
    my ($self, %values) = @_;
    my $port = delete $values{port};
    my $query = join '&', map { "$_=$values{$_}" } sort keys %values;
    return $self->control("set?$query", port => $port)->status == 200;
}


# Waits until the counter $name is at least $value: the stats then.

sub wait_stat {
    my ($self, $name, $value, $timeout) = @_;

    my $stats;

    wait_for {
        $stats = $self->stats;
        ($stats->{$name} // 0) >= $value;
    } $timeout // 5, 0.01;

    return $stats;
}


sub stop { end_child($_[0]) }


sub DESTROY { $_[0]->stop }


1;
