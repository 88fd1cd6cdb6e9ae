package Test::Nginx::Socket;

# A small stand-in for the real Test::Nginx::Socket (CPAN), which is not in
# Debian: test files t/*.t run unchanged under either.  t/lib/prove puts this
# directory on @INC only where the real one is not installed.
#
# Written anew for this project from the format's meaning, on Debian's
# Test::Base.  Covered, with the real one's defaults and order:
#
#   functions  repeat_each no_shuffle workers worker_connections master_on
#              master_off log_level no_long_string no_root_location timeout
#              server_name server_addr config_preamble env_to_nginx
#              add_block_preprocessor add_cleanup_handler ... (see @EXPORT)
#   blocks     main_config http_config config post_main_config user_files
#              request raw_request pipelined_requests more_headers timeout
#              raw_request_middle_delay wait abort shutdown ignore_response
#              error_code(_like) response_body(_like, _unlike, _filters,
#              _json_sort) response_headers(_like)
#              raw_response_headers_(un)like error_log no_error_log
#              grep_error_log(_out) access_log no_access_log
#              (no_)shutdown_error_log must_die suppress_stderr init
#              post_setup_server_root log_level error_log_file server_name
#              skip_nginx skip_eval tcp_*
#
# A block that uses any other section of the real module ends the run, so that
# nothing passes by being ignored.

use strict;
use warnings;

use Test::Base -base;

use Carp qw(croak);
use List::Util qw(shuffle);
use Time::HiRes qw(sleep);

use Test::Nginx::StandIn::Checks;
use Test::Nginx::StandIn::Client;
use Test::Nginx::StandIn::Request;
use Test::Nginx::StandIn::Server;
use Test::Nginx::StandIn::Settings;
use Test::Nginx::StandIn::TCP;

our $VERSION = '0';

our @EXPORT = qw(
    run_tests run_test repeat_each plan no_shuffle no_long_string is_str
    no_root_location workers worker_connections master_on master_off
    master_process_enabled log_level timeout server_name server_addr
    server_root html_dir server_port server_port_for_client config_preamble
    env_to_nginx check_accum_error_log add_block_preprocessor
    add_cleanup_handler add_test_cleanup_handler add_response_body_check
    bail_out
);

my @NOT_HERE = qw(
    http2 http3 http09 curl curl_options curl_protocol curl_error stap
    stap_out stap_out_like stap_out_unlike udp_listen udp_reply udp_query
    reload_fails skip_nginx2 skip_openssl skip_slave todo todo_nginx charset
    request_eval response_body_eval server_addr_for_client
    write_resp_body_file
);

my (@preprocessors, @cleanup, @block_cleanup);
my ($previous_config, $previous_block);


# --- settings ---

sub setting {
    my ($name, @value) = @_;
    $Setting{$name} = $value[0] if @value;
    return $Setting{$name};
}

sub repeat_each            { return setting('repeat_each', @_) }
sub workers                { return setting('workers', @_) }
sub worker_connections     { return setting('worker_connections', @_) }
sub log_level              { return setting('log_level', @_) }
sub timeout                { return setting('timeout', @_) }
sub server_name            { return setting('server_name', @_) }
sub server_addr            { return setting('server_addr', @_) }
sub server_port            { return setting('port', @_) }
sub server_port_for_client { return setting('client_port', @_) }
sub config_preamble        { return setting('preamble', @_) }

sub no_shuffle ()            { $Setting{no_shuffle} = 1 }
sub no_long_string ()        { $Setting{no_long_string} = 1 }
sub no_root_location ()      { $Setting{no_root_location} = 1 }
sub check_accum_error_log () { $Setting{accumulate_error_log} = 1 }
sub master_on ()             { $Setting{master} = 'on' }
sub master_off ()            { $Setting{master} = 'off' }
sub server_root ()           { return root_file() }
sub html_dir ()              { return root_file('html') }

sub master_process_enabled {
    $Setting{master} = $_[0] ? 'on' : 'off' if @_;
    return $Setting{master};
}

sub env_to_nginx {
    croak 'env_to_nginx: no names' if !@_;
    push @{ $Setting{env} }, @_;
}

sub add_block_preprocessor (&) { unshift @preprocessors, shift }
sub add_cleanup_handler        { unshift @cleanup, shift }
sub add_test_cleanup_handler   { unshift @block_cleanup, shift }
sub add_response_body_check    { add_body_check(@_) }

sub is_str { return is_text(@_) }


# --- running ---

sub run_tests () {
    $ENV{TEST_NGINX_SERVER_PORT} //= $Setting{port};

    my @blocks = Test::Base::blocks();
    @blocks = shuffle(@blocks) if !$Setting{no_shuffle};

    for my $block (@blocks) {
        $_->($block) for @preprocessors;
        $block->set_value(name => $0 . ' ' . $block->name);
        run_test($block);
        $_->($block) for @block_cleanup;
    }

    cleanup();
}


sub run_test {
    my ($block) = @_;

    return if defined $block->SKIP;

    my $name = $block->name;

    for my $section (@NOT_HERE) {
        bail_out("$name: --- $section needs the real Test::Nginx")
            if defined $block->$section;
    }

    forget_ports();
    my $skip = skip_reason($block);
    my $config = expand_env(scalar($block->config), $name);

    if (!$skip) {
        return if !bring_up($block, $config);
        run_code($block, 'init');
    }

    rewind_error_log();

    for my $repeat (0 .. $Setting{repeat_each} - 1) {
        my $tcp = $skip ? undef : start_tcp($block);
        write_user_files($block) if $repeat > 0;

        SKIP: {
            Test::More::skip("$name: $skip->{why}", $skip->{tests}) if $skip;
            run_requests($block, $repeat);
            check_tcp($tcp);
        }

        stop_tcp($tcp);
    }
}


# Starts nginx for the block; false if the block is done with that (must_die).
# A block without config goes on with the server of the one before.

sub bring_up {
    my ($block, $config) = @_;

    my $name = $block->name;

    if (!defined $config) {
        bail_out("$name: no config, and none before it")
            if !defined $previous_config;
        return 1;
    }

    return 1 if !$Setting{restart} && defined $previous_config
                && $previous_config eq $config;

    $previous_config = $config;
    stop_nginx();
    check_shutdown_log($previous_block) if $previous_block;
    $previous_block = $block;

    prepare_root();
    run_code($block, 'post_setup_server_root');
    write_user_files($block);
    write_config($block, $config);
    rewind_error_log();

    if (defined $block->must_die) {
        check_must_die($block);
        return 0;
    }

    start_patiently($block);
    sleep $Setting{sleep};
    return 1;
}


# Retries while another process still has the port.

sub start_patiently {
    my ($block) = @_;

    my $status;

    for my $try (1 .. 40) {
        $status = start_nginx($block) or return;

        open my $log, '<', root_file('logs', 'error.log');
        last if !$log || !grep { /Address already in use/ } <$log>;
        sleep 0.1 * ($try < 10 ? $try : 10);
    }

    bail_out($block->name, ": nginx did not start (wait status $status)");
}


sub check_must_die {
    my ($block) = @_;

    my $name = $block->name;
    my $expected = $block->must_die;

    for my $repeat (0 .. $Setting{repeat_each} - 1) {
        my $status = start_nginx($block);

        if ($status == -1) {
            Test::More::fail("$name: nginx could not be run");

        } elsif ($status & 128 || $status >> 8 > 128) {
            Test::More::fail("$name: nginx dumped core");

        } elsif ($expected =~ /^\s*\d+\s*$/) {
            Test::More::is($status >> 8, $expected, "$name: exit code");

        } else {
            Test::More::isnt($status, 0, "$name: nginx refused to start");
        }

        check_error_log({ block => $block, name => $name, index => 0,
                          repeat => $repeat, many => 0 });

        if ($status == 0) {
            sleep $Setting{sleep};
            stop_nginx();
        }
    }
}


sub run_requests {
    my ($block, $repeat) = @_;

    my @requests = requests_of($block);
    my $timeout = seconds(scalar $block->timeout) // $Setting{timeout};
    my $pipelined = $block->pipelined_requests;
    my $answers = $pipelined ? @$pipelined : @requests;

    my %x = (block => $block, name => $block->name, repeat => $repeat,
             many => $pipelined || @requests > 1, response => undef);
    my $rest;

    for my $index (0 .. $answers - 1) {
        $x{index} = $index;

        if ($index == 0 || !$pipelined) {
            my $packets = $requests[$index];
            $rest = exchange($block, $packets, $timeout) // '';
            $x{is_head} = $packets->[0]{value} =~ /^\s*HEAD\s/;
        }

        if (!defined $block->ignore_response) {
            $x{response} = parse_response($x{name}, $rest, $x{is_head});
            $rest = $x{response} ? $x{response}{rest} // '' : '';

            warn "$x{name}: bytes after the response: $rest\n"
                if $rest ne '' && !$pipelined;

            check_response(\%x);
        }

        sleep $block->wait if $block->wait;
        check_error_log(\%x);
        check_access_log(\%x) if !defined $block->ignore_response;
    }
}


# --- conditions and code in blocks ---

# { tests, why } if the block does not apply: skip_nginx "N: < 1.2.3: why",
# skip_eval "N: perl expression".

sub skip_reason {
    my ($block) = @_;

    my $name = $block->name;

    if (defined(my $text = $block->skip_eval)) {
        my ($tests, $code) = $text =~ /^\s*(\d+)\s*:\s*(.*)/s
            or bail_out("$name: bad skip_eval: $text");
        my $true = eval "package main; $code";
        bail_out("$name: skip_eval: $@") if $@;
        return { tests => $tests, why => 'skip_eval' } if $true;
    }

    if (defined(my $text = $block->skip_nginx)) {
        my ($tests, $op, @v) = $text =~ m{
                ^\s* (\d+) \s*:\s* ([<>]=?) \s* (\d+)\.(\d+)\.(\d+) \s*
                (?: :\s* (.*?) \s* )? $
            }x or bail_out("$name: bad skip_nginx: $text");
        my $why = $v[3] || "nginx is $op $v[0].$v[1].$v[2]";
        my ($have, $bound) = (nginx_version(),
                              sprintf '%d.%03d%03d', @v[0 .. 2]);

        return { tests => $tests, why => $why }
            if $op eq '<' ? $have < $bound : $op eq '<=' ? $have <= $bound
             : $op eq '>' ? $have > $bound : $have >= $bound;
    }

    return;
}


sub run_code {
    my ($block, $section) = @_;
    my $code = $block->$section;
    return if !$code;
    eval "package main; $code; 1"
        or bail_out($block->name, ": $section: $@");
}


# --- ending ---

my $owner = $$;

sub cleanup {
    stop_tcp();
    $_->() for splice @cleanup;
}

on_bail_out(sub { cleanup(); stop_nginx() });

$SIG{$_} //= sub { exit 1 } for qw(INT TERM HUP PIPE);

END {
    if ($$ == $owner) {
        local $?;
        cleanup();

        if (!$Setting{no_clean}) {
            stop_nginx();
            check_shutdown_log($previous_block) if $previous_block;
            remove_root();
        }
    }
}


1;
