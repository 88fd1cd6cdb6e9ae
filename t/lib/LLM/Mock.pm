package LLM::Mock;

# Runs the mock provider (build/llm_mock, or $ENV{LLM_MOCK}) and speaks to its
# control interface.
#
#   my $m = LLM::Mock->start(args => ['--tls', ...], env => {...});
#   $m->port  $m->tls_port            as it printed them
#   $m->stats $m->requests $m->last   JSON of /_mock/NAME, decoded
#   $m->last_body $m->last_response_body        bytes
#   $m->reset
#   $m->stop                          also done when the object goes

use strict;
use warnings;

use IO::Select ();

use LLM::H1 ();
use LLM::Process qw(spawn reap);
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

    my $self = bless { pid => $pid, owner => $$, out => $out, ports => {} },
               $class;

    $self->_read_ports($o{timeout} // 10, $o{wait_tls});
    return $self;
}


# Lines "listening PORT" and "listening-tls PORT", in any order; a provider
# without TLS prints one, so after the first the second gets little time.

sub _read_ports {
    my ($self, $timeout, $wait_tls) = @_;

    my $end = now() + $timeout;
    my $text = '';
    my $select = IO::Select->new($self->{out});

    while (1) {
        $self->{ports}{ $1 // '' } = $2
            while $text =~ /^listening(-tls)? (\d+)$/mg;
        my $have = $self->{ports};

        return if defined $have->{''} && (!$wait_tls || $have->{'-tls'});

        my $left = $end - now();
        my $n = $left > 0 && $select->can_read($left)
                ? sysread($self->{out}, $text, 4096, length $text) : 0;

        next if $n;
        die "the mock provider did not start, it said: '$text'\n";
    }
}


sub port { return $_[0]{ports}{''} }
sub pid  { return $_[0]{pid} }


sub tls_port {
    my ($self) = @_;
    $self->_read_ports(2, 1) if !$self->{ports}{'-tls'};
    return $self->{ports}{'-tls'};
}


# A control request; returns the whole response object.

sub control {
    my ($self, $name, %o) = @_;
    my $client = LLM::H1->new(port => $self->port);
    return $client->request($o{method} // 'GET', "/_mock/$name", close => 1);
}


sub stats              { return $_[0]->control('stats')->json }
sub requests           { return $_[0]->control('requests')->json }
sub last               { return $_[0]->control('last')->json }
sub last_body          { return $_[0]->control('last_body')->body }
sub last_response_body { return $_[0]->control('last_response_body')->body }
sub reset              { return $_[0]->control('reset')->status == 200 }


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


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    return if $self->{owner} != $$;

    local $?;
    kill TERM => $pid;
    return if defined reap($pid, 3);

    kill KILL => $pid;
    reap($pid, 3);
}


sub DESTROY { $_[0]->stop }


1;
