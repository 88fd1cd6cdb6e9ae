package Test::Nginx::StandIn::Settings;

# What a test file and the environment say about a run, and the texts that
# stand for ports and variables.  All of it is in %Setting.

use strict;
use warnings;

use Cwd qw(realpath);
use Exporter 'import';
use File::Basename qw(dirname);
use File::Spec ();
use Test::More ();

# t/lib, for the library of our own tests: parallel-safe ports, processes
use lib realpath(dirname(__FILE__) . '/../../../..');
use LLM::Util ();

our @EXPORT = qw(%Setting bail_out on_bail_out seconds expand_env
                 expand_server_port forget_ports too_many_tests);

our %Setting = (
    binary => $ENV{TEST_NGINX_BINARY} || 'nginx',
    load_modules => $ENV{TEST_NGINX_LOAD_MODULES} // '',
    worker_user => $ENV{TEST_NGINX_WORKER_USER},
    event_type => $ENV{TEST_NGINX_EVENT_TYPE},
    postpone_output => $ENV{TEST_NGINX_POSTPONE_OUTPUT},
    master => $ENV{TEST_NGINX_MASTER_PROCESS} || 'off',
    log_level => $ENV{TEST_NGINX_LOG_LEVEL} || 'debug',
    timeout => $ENV{TEST_NGINX_TIMEOUT} || 3,
    sleep => $ENV{TEST_NGINX_SLEEP} || 0.015,
    restart => $ENV{TEST_NGINX_FORCE_RESTART_ON_TEST} // 1,
    no_shuffle => $ENV{TEST_NGINX_NO_SHUFFLE} || 0,
    no_clean => $ENV{TEST_NGINX_NO_CLEAN},
    verbose => $ENV{TEST_NGINX_VERBOSE},
    randomize => $ENV{TEST_NGINX_RANDOMIZE},
    valgrind => $ENV{TEST_NGINX_USE_VALGRIND},
    preload => $ENV{TEST_NGINX_LD_PRELOAD},
    stop_signal => $ENV{TEST_NGINX_FAST_SHUTDOWN} ? 'TERM' : 'QUIT',
    workers => 1, worker_connections => 64, repeat_each => 1,
    server_addr => '127.0.0.1', server_name => 'localhost',
    preamble => '', env => [], no_root_location => 0, no_long_string => 0,
    accumulate_error_log => $ENV{TEST_NGINX_CHECK_ACCUM_ERR_LOG},
);

# modes of the real module that change what a test means: not here
for my $mode (qw(USE_STAP USE_HUP USE_RR USE_HTTP2 USE_HTTP3 CHECK_LEAK
                 BENCHMARK NO_NGINX_MANAGER))
{
    die "TEST_NGINX_$mode needs the real Test::Nginx\n"
        if $ENV{"TEST_NGINX_$mode"};
}

{
    my $port = $Setting{randomize} ? LLM::Util::free_port()
             : $ENV{TEST_NGINX_SERVER_PORT} || $ENV{TEST_NGINX_PORT} || 1984;
    $Setting{port} = $port;
    $Setting{client_port} = $Setting{randomize} ? $port
                          : $ENV{TEST_NGINX_CLIENT_PORT} || $port;

    my $root = $Setting{randomize} ? "t/servroot_$port"
             : $ENV{TEST_NGINX_SERVROOT} || 't/servroot';
    $Setting{root} = File::Spec->rel2abs($root);
    $ENV{TEST_NGINX_SERVER_ROOT} = $Setting{root};
}


# --- ending ---

my $cleanup;

sub on_bail_out { $cleanup = shift }

sub bail_out {
    $cleanup->() if $cleanup;
    Test::More::BAIL_OUT(join '', @_);
}


# A result that no plan has counted: the plan must not be complained of too.

sub too_many_tests { Test::More->builder->no_ending(1) }


# --- texts ---

# "300ms", "2s" or "2" in seconds.

sub seconds {
    my ($text) = @_;
    return $text if !defined $text;
    return $1 / 1000 if $text =~ /^\s*([\d.]+)ms\s*$/;
    $text =~ s/([\d.])s\s*$/$1/;
    return $text;
}


# $TEST_NGINX_NAME in a text becomes the environment variable; the random
# ports TEST_NGINX_RAND_PORT_n are the same within a block.

my %rand_port;

sub forget_ports { %rand_port = () }

sub expand_env {
    my ($text, $name) = @_;

    return $text if !defined $text || ref $text;

    $text =~ s{\$(TEST_NGINX_[_A-Z0-9]+)}{
        my $var = $1;
        $var =~ /^TEST_NGINX_RAND_PORT_\d+$/
            ? $rand_port{$var} //= LLM::Util::free_port()
            : $ENV{$var} // bail_out("$name: the environment has no $var");
    }gex;

    return $text;
}


# $ServerPort, $ServerPortForClient in expected answers.

sub expand_server_port {
    my ($text) = @_;
    $text =~ s/\$ServerPort\b/$Setting{port}/g;
    $text =~ s/\$ServerPortForClient\b/$Setting{client_port}/g;
    return $text;
}


1;
