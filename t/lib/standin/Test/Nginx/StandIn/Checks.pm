package Test::Nginx::StandIn::Checks;

# The expectations of a block held against an answer and against the logs.
#
# A context $x is a hash: block, name, response (of Client::parse_response, or
# undef), index (of the request in the block), repeat (of the block), many
# (the block has several requests: expectations must be lists then).

use strict;
use warnings;

use Digest::MD5 ();
use Digest::SHA ();
use Exporter 'import';
use JSON::PP ();
use Test::LongString ();
use Test::More ();

use Test::Nginx::StandIn::Client ();
use Test::Nginx::StandIn::Server;
use Test::Nginx::StandIn::Settings;

our @EXPORT = qw(check_response check_error_log check_access_log
                 check_shutdown_log is_text add_body_check);

my @body_checks;

sub add_body_check { push @body_checks, @_ }


# is() with a useful picture of a long difference; like() for a pattern.

sub is_text {
    my ($got, $expected, $what) = @_;

    return Test::More::like($got, $expected, $what)
        if ref $expected eq 'Regexp';
    return Test::Base::is($got, $expected, $what) if $Setting{no_long_string};
    return Test::LongString::is_string($got, $expected, $what);
}


# The expectation for this request, out of a list if there are several.

sub pick {
    my ($x, $section) = @_;

    my $value = $x->{block}->$section;

    return $value->[ $x->{index} ] if ref $value eq 'ARRAY';
    return $value if !$x->{many};

    bail_out("$x->{name}: several requests need a list in $section");
}


# --- the response ---

sub check_response {
    my ($x) = @_;

    check_code($x);
    check_raw_headers($x);
    check_headers($x);
    filter_body($x);
    check_body($x);
}


sub check_code {
    my ($x) = @_;

    my $block = $x->{block};
    my $code = $x->{response} ? $x->{response}{code} : '';
    my $what = "$x->{name}: status";

    if (defined $block->error_code_like) {
        my $re = pick($x, 'error_code_like');
        Test::More::like($code, qr/$re/sm, $what);
        return;
    }

    my $expected = defined $block->error_code ? pick($x, 'error_code') : 200;
    Test::More::is($code, $expected, $what);
}


sub check_raw_headers {
    my ($x) = @_;

    my $head = $x->{response} ? $x->{response}{head} : undef;

    if (defined $x->{block}->raw_response_headers_like) {
        my $re = pick($x, 'raw_response_headers_like');
        Test::More::like($head, qr/$re/s, "$x->{name}: raw headers match");
    }

    if (defined $x->{block}->raw_response_headers_unlike) {
        my $re = pick($x, 'raw_response_headers_unlike');
        Test::More::unlike($head, qr/$re/s,
                           "$x->{name}: raw headers do not match");
    }
}


# Lines "Name: value"; "! Name" says that it must not be there.

sub expected_headers {
    my ($x, $section) = @_;

    my %headers;

    for my $line (split /\n/, pick($x, $section)) {
        $line =~ s/^\s+|\s+$//g;
        my ($name, $value) = $line =~ s/^!\s*// ? ($line)
                                                : split /\s*:\s*/, $line, 2;
        $headers{ $name // '' } = $value;
    }

    return \%headers;
}


sub header_text {
    my ($x, $name) = @_;
    return '' if !$x->{response};
    return join ', ',
           Test::Nginx::StandIn::Client::header_values($x->{response}, $name);
}


sub check_headers {
    my ($x) = @_;

    if (defined $x->{block}->response_headers) {
        my $expected = expected_headers($x, 'response_headers');

        for my $name (sort keys %$expected) {
            check_header($x, $name, $expected->{$name});
        }

    } elsif (defined $x->{block}->response_headers_like) {
        my $expected = expected_headers($x, 'response_headers_like');

        for my $name (sort keys %$expected) {
            Test::More::like(header_text($x, $name),
                             qr/^$expected->{$name}$/,
                             "$x->{name}: header $name matches");
        }
    }
}


sub check_header {
    my ($x, $name, $value) = @_;

    if (defined $value) {
        Test::More::is(header_text($x, $name), expand_server_port($value),
                       "$x->{name}: header $name");
        return;
    }

    my $head = $x->{response} ? $x->{response}{head} : undef;
    Test::More::unlike($head, qr/^\s*\Q$name\E\s*:/ms,
                       "$x->{name}: header $name is absent");
}


my %FILTER = (
    md5_hex => \&Digest::MD5::md5_hex, sha1_hex => \&Digest::SHA::sha1_hex,
    uc => sub { uc $_[0] }, lc => sub { lc $_[0] },
    ucfirst => sub { ucfirst $_[0] }, lcfirst => sub { lcfirst $_[0] },
    length => sub { length $_[0] },
);

# response_body_filters: names or code, one list for all requests or a list of
# lists.

sub filter_body {
    my ($x) = @_;

    my $list = $x->{block}->response_body_filters;
    return if !defined $list || !$x->{response};

    $list = [split ' ', $list] if !ref $list;
    $list = [$list] if ref $list ne 'ARRAY';
    $list = $list->[ $x->{index} ]
            // bail_out("$x->{name}: no filter for this request")
        if ref $list->[0] eq 'ARRAY';

    for my $filter (@$list) {
        my $code = ref $filter eq 'CODE' ? $filter : $FILTER{$filter}
            // bail_out("$x->{name}: no filter '$filter'");
        $x->{response}{content} = $code->($x->{response}{content});
    }
}


sub check_body {
    my ($x) = @_;

    my $block = $x->{block};
    my $content = $x->{response} ? $x->{response}{content} : undef;
    my $what = "$x->{name}: body (repeat $x->{repeat}, request $x->{index})";

    if (defined $block->response_body) {
        $content = sorted_json($content)
            if defined $block->response_body_json_sort;

        my $expected = pick($x, 'response_body');
        $expected = expand_env(expand_server_port($expected), $x->{name})
            if defined $expected && !ref $expected;
        is_text($content, $expected, $what);

    } elsif (defined $block->response_body_like) {
        my $re = expand_server_port(pick($x, 'response_body_like'));
        Test::More::like($content, qr/$re/s, $what);

    } elsif (defined $block->response_body_unlike) {
        my $re = expand_server_port(pick($x, 'response_body_unlike'));
        Test::More::unlike($content, qr/$re/s, $what);
    }

    $_->($block, $content, $x->{index}, $x->{repeat}) for @body_checks;
}


sub sorted_json {
    my ($text) = @_;
    my $json = JSON::PP->new->canonical->loose;
    my $value = eval { $json->decode($text) };
    return $@ ? $text : $json->encode($value) . "\n";
}


# --- logs ---

# A section of patterns as a list: lines of text, one regex, or a list.

sub patterns {
    my ($value) = @_;
    return @$value if ref $value eq 'ARRAY';
    return $value if ref $value;
    chomp $value;
    return split /\n+/, $value;
}


sub matches {
    my ($line, $pattern) = @_;
    return $line =~ /$pattern/ if ref $pattern;
    return $line =~ /\Q$pattern\E/;
}


# One test a pattern, passed if some line has it.

sub some_line {
    my ($lines, $what, @patterns) = @_;

    for my $pattern (@patterns) {
        Test::More::ok(scalar(grep { matches($_, $pattern) } @$lines),
                       "$what has \"$pattern\"");
    }
}


# One test a pattern, passed if no line has it; one failed test for each line
# that does.

sub no_line {
    my ($lines, $what, @patterns) = @_;

    for my $pattern (@patterns) {
        my @bad = grep { matches($_, $pattern) } @$lines;
        too_many_tests() if @bad > 1;

        if (!@bad) {
            Test::More::pass("$what does not have \"$pattern\"");
            next;
        }

        for my $line (@bad) {
            chomp $line;
            Test::More::fail("$what has \"$pattern\": $line");
        }
    }
}


# What matches in each line, against grep_error_log_out; both may be lists by
# repeat.

sub check_grep {
    my ($x, $lines) = @_;

    my $block = $x->{block};
    my $pattern = $block->grep_error_log;
    $pattern = $pattern->[ $x->{repeat} ] if ref $pattern eq 'ARRAY';

    my $expected = $block->grep_error_log_out;
    return if !defined $pattern && !defined $expected;

    bail_out("$x->{name}: grep_error_log and grep_error_log_out go together")
        if !defined $pattern || !defined $expected;

    $expected = $expected->[ $x->{repeat} ] if ref $expected eq 'ARRAY';
    $expected = expand_env($expected, $x->{name});

    my $re = ref $pattern ? qr/$pattern/ : qr/\Q$pattern\E/;
    my $found = join '', map { "$_\n" } grep { !/\n/ }
                         map { /($re)/ ? $1 : () } @$lines;

    is_text($found, $expected, "$x->{name}: grep_error_log_out "
                               . "(repeat $x->{repeat})");
}


sub check_error_log {
    my ($x) = @_;

    my $block = $x->{block};
    my $lines = error_log_lines();
    my $what = "$x->{name}: error.log (repeat $x->{repeat})";

    check_grep($x, $lines);

    my @wanted = defined $block->error_log ? patterns($block->error_log) : ();
    my @unwanted = defined $block->no_error_log
                   ? patterns($block->no_error_log) : ();

    some_line($lines, $what, @wanted);
    no_line($lines, $what, @unwanted);

    my $named = join "\n", @wanted, @unwanted;

    for my $level (qw(alert crit emerg)) {
        next if index($named, "[$level") >= 0;
        warn "WARNING: $x->{name}: $_" for grep { /\[$level\]/ } @$lines;
    }

    for my $line (grep { /\bAssertion .*?failed\b/ } @$lines) {
        too_many_tests();
        Test::More::fail("$x->{name}: $line");
    }
}


sub check_access_log {
    my ($x) = @_;

    my ($some, $none) = ($x->{block}->access_log, $x->{block}->no_access_log);
    return if !defined $some && !defined $none;

    my $lines = access_log_lines();
    my $what = "$x->{name}: access.log (repeat $x->{repeat})";

    some_line($lines, $what, patterns($some)) if defined $some;
    no_line($lines, $what, patterns($none)) if defined $none;
}


# What was logged since the last look, after nginx has stopped.

sub check_shutdown_log {
    my ($block) = @_;

    my $some = $block->shutdown_error_log;
    my $none = $block->no_shutdown_error_log;
    return if !defined $some && !defined $none;

    my $lines = error_log_lines();
    my $what = $block->name . ': error.log at the end';

    some_line($lines, $what, patterns($some)) if defined $some;
    no_line($lines, $what, patterns($none)) if defined $none;
}


1;
