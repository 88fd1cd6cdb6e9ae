package Targets;

# For the tests of retry, fallback, breakers and balancing: a gateway of two
# workers with several providers, each of them at a mock provider of its own.
#
#   my $g = Targets->new(names => ['a', 'b'], http => '...');
#   $g->set(a => { status => 500, fails => 1 });
#   my $x = $g->try('chat', model => 'two', stream => 1);
#   is_outcome($x, { status => 200, provider => 'a', calls => '2 0' }, 'name');
#
# For each name there are the providers NAME (dialect openai) and xNAME
# (anthropic), both at $g->{NAME}, an LLM::Mock.  The model "one" has the first
# of them as its target, "two" the first two, and so on; each is asked for the
# model "m-NAME".

use strict;
use warnings;

use Exporter 'import';
use Test::More ();

use LLM::E2E;
use Gateway;

our @EXPORT = qw(is_outcome);

my @COUNTS = qw(zero one two three four);


# names (a, b); members => { NAME => TEXT }: members of both providers of that
# name, in place of "breaker off;"; retry: arguments of llm_adapter_retry;
# others as those of gateway().

sub new {
    my ($class, %o) = @_;

    my @names = @{ $o{names} // ['a', 'b'] };
    my %mock = map { $_ => start_mock() } @names;
    my $self = bless { names => \@names, %mock, n => 0, port => {} }, $class;
    my ($http, %vars) = ('', %{ $o{vars} // {} });

    for my $name (@names) {
        $vars{uc $name} = $mock{$name}->port;
        $http .= provider($name, uc $name, $o{members}{$name});
    }

    for my $n (1 .. @names) {
        my @first = @names[0 .. $n - 1];
        $http .= "    llm_adapter_model $COUNTS[$n] "
                 . join(' ', map { ("$_:m-$_", "x$_:m-$_") } @first) . ";\n";
    }

    my $retry = $o{retry} // 'attempts=3 backoff=20ms..500ms budget=1000%';

    ($self->{t}) = gateway(
        workers => 2, %o, retry => $retry, mock => $mock{ $names[0] },
        http => $http . ($o{http} // ''), vars => \%vars);

    return $self;
}


# A provider of each dialect, at the port %%VAR%%.

sub provider {
    my ($name, $var, $text) = @_;

    my $conf = '';
    $text //= 'breaker off;';
    $text = "key sk-ours; $text" if $text !~ /\bkey\s/;

    for (['', 'openai'], ['x', 'anthropic']) {
        my ($prefix, $dialect) = @$_;
        $conf .= <<"EOT";
    llm_adapter_provider $prefix$name {
        endpoint http://127.0.0.1:%%$var%%/v1;
        dialect $dialect;
        $text
    }

EOT
    }

    return $conf;
}


sub mocks { return map { $_[0]{$_} } @{ $_[0]{names} } }
sub port  { return $_[0]{t}->port($_[1]) }


# From now on the providers behave like this; those not named are well.

sub set {
    my ($self, %how) = @_;

    $_->reset || die "a mock provider is gone\n" for $self->mocks;

    for my $name (keys %how) {
        my %values = %{ $how{$name} };
        s/([^\w.~-])/sprintf '%%%02X', ord $1/ge for values %values;
        $self->{$name}->set(%values) || die "bad control of $name\n";
    }
}


# How often each of them was called since set(): "2 0".

sub calls {
    my ($self) = @_;
    return join ' ', map { $_->stats->{requests} } $self->mocks;
}


# ms between the calls of one.

sub gaps {
    my ($self, $name) = @_;
    my @at = map { $_->{t_ms} } @{ $self->{$name}->requests };
    return map { $at[$_] - $at[$_ - 1] } 1 .. $#at;
}


# A request on a connection of its own (client => one to be used), and what
# became of it.  Options of Gateway's request_of(); h2 => 1.

sub try {
    my ($self, $kind, %o) = @_;

    my $test = $o{test} // sprintf 'test %d.', ++$self->{n};
    my $client = $o{client}
                 // ($o{h2} ? h2($self->port('h2'), timeout => 20)
                            : h1($self->port, timeout => 20));
    my $start = now();
    my $r = ask($client, $kind, model => 'two', %o, test => $test);
    my $took = now() - $start;

    $client->close if !$o{client};

    return { r => $r, kind => $kind, stream => $o{stream}, took => $took,
             log => log_of($self->{t}, $test), g => $self };
}


my %HEADER = (
    provider => 'x-llm-provider', model => 'x-llm-model',
    attempts => 'x-llm-attempts', should => 'x-should-retry',
    after => 'retry-after', after_ms => 'retry-after-ms',
);


# What is known by these names: a member of the log as log_NAME, calls, code
# (of the error), a header as above, else the response's method.

sub outcome {
    my ($x, $name) = @_;

    return $x->{log}{$1} if $name =~ /^log_(.*)/;
    return $x->{g}->calls if $name eq 'calls';
    return $x->{r}->header($HEADER{$name}) if $HEADER{$name};
    return $x->{r}->$name if $name ne 'code';

    my $json = $x->{r}->json;
    my $error = ref $json eq 'HASH' ? $json->{error} : undef;

    return ref $error eq 'HASH' ? $error->{code} // $error->{type} : undef;
}


sub text_of {
    my ($h) = @_;
    return join ', ', map { "$_ " . ($h->{$_} // '(none)') } sort keys %$h;
}


# The outcome is as wanted: { NAME => VALUE }.  What was a success must also be
# a whole answer, with no error in the log; and the log must say what the
# headers say.

sub is_outcome {
    my ($x, $want, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my %want = %$want;
    my $r = $x->{r};
    $want{status} //= 200;

    if ($want{status} == 200) {
        $want{log_error} //= '';

        $x->{stream} ? is_whole($r, $x->{kind}, "$name: whole")
                     : Test::More::is(ref $r->json, 'HASH', "$name: JSON");
    }

    for (qw(status provider model attempts)) {
        $want{"log_$_"} //= $want{$_} if defined $want{$_};
    }

    $want{complete} = 1;
    my %got = map { $_ => scalar outcome($x, $_) } keys %want;

    Test::More::is(text_of(\%got), text_of(\%want), $name)
        or Test::More::diag(sprintf 'took %.3f s, calls %s, body: %s',
                            $x->{took}, $x->{g}->calls,
                            substr $r->body, 0, 300);

    return $x;
}


1;
