package LLM::DNS;

# A name server for tests: UDP on 127.0.0.1, a process of its own.
#
#   my $dns = LLM::DNS->start;
#   $dns->port
#   $dns->set('a.test' => '127.0.0.1', '127.0.0.2', '::1');   its addresses
#   $dns->set('b.test' => 'CNAME', 'a.test');
#   $dns->set('a.test' => 'NXDOMAIN');      or SERVFAIL, REFUSED, SILENT
#   $dns->set('*' => ...);                  names that are not set
#   $dns->set('a.test' => 'TURN', ...);     one of the addresses, then the next
#   $dns->ttl(5);                           of all answers (1)
#   $dns->queries('a.test')                 how often it was asked for (A)
#   $dns->stop                              also done when the object goes
#
# A name that is not set does not exist.

use strict;
use warnings;

use File::Temp ();
use IO::Socket::INET ();
use Socket qw(AF_INET AF_INET6 inet_aton inet_pton);

use LLM::Process qw(spawn end_child);
use LLM::Util qw(slurp spew repo_root);

my %RCODE = (SERVFAIL => 2, NXDOMAIN => 3, REFUSED => 5);
my %TYPE = (A => 1, CNAME => 5, AAAA => 28);


sub start {
    my ($class, %o) = @_;

    my $self = bless {
        owner => $$, names => {}, ttl => 1,
        tempdir => File::Temp->newdir('llm-dns-XXXXXXXX', TMPDIR => 1),
    }, $class;

    $self->{dir} = "$self->{tempdir}";
    $self->_write;

    pipe(my $out, my $in) or die "pipe(): $!\n";

    $self->{pid} = spawn([$^X, '-I' . repo_root() . '/t/lib', '-MLLM::DNS',
                          '-e', 'LLM::DNS::serve(@ARGV)', $self->{dir},
                          $o{port} // 0], stdout => $in);
    close $in;

    ($self->{port}) = (<$out> // '') =~ /^(\d+)$/;
    die "the name server did not start\n" if !$self->{port};

    return $self;
}


sub port { return $_[0]{port} }


sub set {
    my ($self, $name, @what) = @_;
    $self->{names}{$name} = join ' ', @what;
    $self->_write;
}


sub ttl {
    my ($self, $ttl) = @_;
    $self->{ttl} = $ttl;
    $self->_write;
}


sub queries {
    my ($self, $name) = @_;
    return scalar grep { $_ eq $name } split /\n/,
           slurp("$self->{dir}/queries");
}


sub _write {
    my ($self) = @_;

    my $names = $self->{names};

    spew("$self->{dir}/names.new", "$self->{ttl}\n",
         map { "$_ $names->{$_}\n" } sort keys %$names);
    rename "$self->{dir}/names.new", "$self->{dir}/names"
        or die "rename(): $!\n";
}


sub stop { end_child($_[0]) }

sub DESTROY { $_[0]->stop }


# --- the server ---

sub serve {
    my ($dir, $port) = @_;

    my $sock = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                     LocalPort => $port, Proto => 'udp')
        or die "bind(): $!\n";

    open my $log, '>>', "$dir/queries" or die "$dir/queries: $!\n";
    $_->autoflush(1) for $log, *STDOUT;

    print $sock->sockport, "\n";
    open STDOUT, '>', '/dev/null';

    while (1) {
        my $from = $sock->recv(my $query, 4096) // next;
        my ($id, $name, $type, $question) = _parse($query) or next;

        print {$log} "$name\n" if $type == $TYPE{A};

        my $answer = _answer("$dir/names", $name, $type, $id, $question);
        $sock->send($answer, 0, $from) if defined $answer;
    }
}


sub _parse {
    my ($query) = @_;

    my ($id, $flags, $count) = unpack 'n3', $query;
    return if length $query < 17 || $count != 1;

    my @labels;
    my $pos = 12;

    while (1) {
        my $len = ord substr $query, $pos++, 1;
        last if !$len;
        push @labels, lc substr $query, $pos, $len;
        $pos += $len;
    }

    return ($id, join('.', @labels), unpack('n', substr $query, $pos, 2),
            substr $query, 12, $pos + 4 - 12);
}


my $turn = 0;

sub _answer {
    my ($file, $name, $type, $id, $question) = @_;

    my ($ttl, @lines) = split /\n/, slurp($file);
    my %names = map { /^(\S+) (.*)/ ? ($1 => $2) : () } @lines;
    my ($first, @rest) = split ' ', $names{$name} // $names{'*'} // 'NXDOMAIN';

    return if $first eq 'SILENT';

    my $rcode = $RCODE{$first};
    return pack('n6', $id, 0x8180 | $rcode, 1, 0, 0, 0) . $question if $rcode;

    my @records;

    if ($first eq 'CNAME') {
        @records = [$TYPE{CNAME}, join '', map { pack 'C/a*', $_ }
                                  split(/\./, $rest[0]), ''];

    } else {
        my @addrs = $first eq 'TURN' ? $rest[$turn++ % @rest]
                                     : ($first, @rest);
        @records = $type == $TYPE{AAAA}
            ? map { [$type, inet_pton(AF_INET6, $_)] } grep { /:/ } @addrs
            : map { [$type, inet_aton($_)] } grep { !/:/ } @addrs;
    }

    return pack('n6', $id, 0x8180, 1, scalar @records, 0, 0) . $question
           . join '', map { pack 'n n n N n/a*', 0xc00c, $_->[0], 1, $ttl,
                                 $_->[1] } @records;
}


1;
