package Test::Nginx::StandIn::Server;

# The server root, nginx.conf, and the nginx process of a block.
#
# The root holds conf, html, logs, *_cache and *_temp.  Those are removed
# before each start; anything else found there ends the whole run, so that a
# wrong TEST_NGINX_SERVROOT never costs anybody's files.

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep time);

use Test::Nginx::StandIn::Settings;
use LLM::Process qw(alive);

our @EXPORT = qw(nginx_version start_nginx stop_nginx stop_process
                 running_pid prepare_root remove_root write_user_files
                 write_config root_file error_log_lines access_log_lines
                 rewind_error_log);


sub root_file { return join '/', $Setting{root}, @_ }


my $version_text;

sub version_text {
    return $version_text if defined $version_text;
    $version_text = `$Setting{binary} -V 2>&1`;
    bail_out("'$Setting{binary} -V' failed: $version_text") if $? != 0;
    return $version_text;
}


# As a number that compares rightly: 1.022001.

sub nginx_version {
    my @v = version_text() =~ m{/(\d+)\.(\d+)\.(\d+)}
        or bail_out("no version in: $version_text");
    return sprintf '%d.%03d%03d', @v;
}


# --- files ---

sub prepare_root {
    my $root = $Setting{root};

    if (-d $root) {
        remove_tree(map({ root_file($_) } qw(conf cache html logs)),
                    glob("$root/*_cache"), glob("$root/*_temp"));
        rmdir $root
            or bail_out("$root holds something that is not ours: $!");
    }

    make_path(map { root_file($_) } qw(conf html logs));
    write_file(root_file('html', 'index.html'),
               '<html><head><title>It works!</title></head>'
               . '<body>It works!</body></html>');
}


# Only a random root is ours alone.

sub remove_root {
    remove_tree($Setting{root})
        if $Setting{randomize} && $Setting{root} =~ m{/servroot_\d+$};
}


sub write_file {
    my ($path, $text) = @_;
    make_path(dirname($path));
    open my $out, '>:raw', $path or bail_out("cannot write $path: $!");
    print {$out} $text // '';
    close $out or bail_out("cannot write $path: $!");
}


# The section: text with lines ">>> NAME [DATE]" before each file, or a list of
# [name, text, date].  Names are relative to html/.

sub write_user_files {
    my ($block) = @_;

    my $files = $block->user_files;
    return if !$files;

    $files = parse_user_files($files) if !ref $files;

    for (@$files) {
        my ($name, $text, $date) = @$_;
        my $path = $name =~ m{^/} ? $name : root_file('html', $name);

        write_file($path, expand_env($text, $block->name));
        next if !$date;

        local $ENV{TZ} = 'GMT';
        system('touch', '-t', $date, $path) == 0
            or bail_out("touch -t $date $path failed");
    }
}


sub parse_user_files {
    my ($text) = @_;

    my @files;

    for my $line (split /^/, $text) {
        if ($line =~ />>> (\S+)(?:\s+(.+))?/) {
            push @files, [$1, undef, $2];

        } elsif (@files) {
            $files[-1][1] .= $line;
        }
    }

    return \@files;
}


# --- nginx.conf ---

sub write_config {
    my ($block, $config) = @_;

    my $name = $block->name;
    my ($http, $main, $post) =
        map { expand_env($_, $name) // '' }
        scalar($block->http_config), scalar($block->main_config),
        scalar($block->post_main_config);

    my $server_name = $block->server_name // $Setting{server_name};
    (my $quoted = $server_name) =~ s/(['\\])/\\$1/g;

    my $level = $block->log_level || $Setting{log_level};
    my $log = expand_env(scalar($block->error_log_file), $name)
              || root_file('logs', 'error.log');

    my $modules = join ' ', map { "load_module $_;" }
                            split ' ', $Setting{load_modules};
    $modules = expand_env($modules, $name);

    my $index = $Setting{no_root_location} ? '' : <<"EOT";
        location / {
            root @{[ root_file('html') ]};
            index index.html index.htm;
        }
EOT

    my $postpone = defined $Setting{postpone_output}
                   && $http !~ /\bpostpone_output\b/
                   ? "postpone_output $Setting{postpone_output};" : '';
    my $use = $Setting{event_type} ? "use $Setting{event_type};" : '';

    my $daemon = under_valgrind($block) ? 'off' : 'on';

    write_file(root_file('conf', 'nginx.conf'), <<"EOT");
daemon $daemon;
master_process $Setting{master};
worker_processes $Setting{workers};
pid @{[ root_file('logs', 'nginx.pid') ]};
error_log $log $level;
@{[ env_lines() ]}
@{[ user_line() ]}
$modules $main

http {
    access_log @{[ root_file('logs', 'access.log') ]};
    @{[ temp_paths($http) ]}
    default_type text/plain;
    keepalive_timeout 68000ms;
    $postpone

$http
    server {
        listen $Setting{port};
        server_name '$quoted';
        client_max_body_size 30M;

$Setting{preamble}
$config

$index
    }
}

$post

events {
    accept_mutex off;
    worker_connections $Setting{worker_connections};
    $use
}
EOT
}


sub env_lines {
    my @names = (qw(LD_PRELOAD LD_LIBRARY_PATH ASAN_OPTIONS),
                 map { /\s/ ? "'$_'" : $_ } @{ $Setting{env} });
    return join "\n", map { "env $_;" } @names;
}


sub user_line {
    return "user $Setting{worker_user};" if defined $Setting{worker_user};
    return $> == 0 ? 'user root;' : '';
}


sub temp_paths {
    my ($http) = @_;

    my @lines;

    for my $name (qw(client_body proxy fastcgi scgi uwsgi)) {
        next if version_text() =~ /--without-http_${name}_module/
                || $http =~ /\b${name}_temp_path\b/;
        push @lines, "${name}_temp_path " . root_file("${name}_temp") . ';';
    }

    return join ' ', @lines;
}


# --- the process ---

# valgrind keeps nginx in the foreground; a start that must fail needs none.

sub under_valgrind {
    my ($block) = @_;
    return $Setting{valgrind} && !defined $block->must_die;
}


# Returns the wait status of the start; 0: it runs.

sub start_nginx {
    my ($block) = @_;

    my @command = ($Setting{binary}, '-e', root_file('logs', 'error.log'),
                   '-p', "$Setting{root}/",
                   '-c', root_file('conf', 'nginx.conf'));

    unshift @command, valgrind_command() if under_valgrind($block);
    warn "starting: @command\n" if $Setting{verbose};

    my $quiet = defined $block->suppress_stderr ? '2>/dev/null' : '';
    my $line = "'" . join("' '", @command) . "' >/dev/null $quiet";

    my @preload = grep { defined } $Setting{preload}, $ENV{LD_PRELOAD};
    local $ENV{LD_PRELOAD} = "@preload" if @preload;

    return start_in_foreground($line) if under_valgrind($block);

    system($line);
    return $?;
}


sub valgrind_command {
    my $own = dirname(__FILE__) . '/../../../../valgrind.supp';
    return (qw(valgrind -q --leak-check=full --show-leak-kinds=definite
               --errors-for-leak-kinds=definite --num-callers=30),
            "--suppressions=$own",
            '--log-file=' . root_file('logs', 'valgrind.%p'));
}


sub start_in_foreground {
    my ($line) = @_;

    my $pid = fork() // bail_out("fork failed: $!");
    exec "exec $line" or POSIX::_exit(127) if $pid == 0;

    # the sockets are open before the pid file is written
    for (1 .. 600) {
        return $? if waitpid($pid, 1) == $pid;
        return 0 if running_pid();
        sleep 0.05;
    }

    bail_out('nginx does not start under valgrind');
}


# What valgrind has to say is a failed test beyond the plan.

sub check_valgrind {
    for my $file (glob root_file('logs', 'valgrind.*')) {
        open my $in, '<', $file or next;
        my $text = do { local $/; <$in> } // '';
        next if $text eq '';

        too_many_tests();
        Test::More::fail("valgrind: $text");
    }
}


sub running_pid {
    open my $in, '<', root_file('logs', 'nginx.pid') or return;
    my ($pid) = (<$in> // '') =~ /^(\d+)/;
    return if !$pid || !alive($pid);
    return $pid;
}


sub stop_nginx {
    my $pid = running_pid() or return;
    stop_process($pid, $Setting{stop_signal});
    check_valgrind() if $Setting{valgrind};
}


# Asks, then kills; a stop that does not come is said on stderr.

sub stop_process {
    my ($pid, $signal) = @_;

    my $patience = $Setting{timeout} * ($Setting{valgrind} ? 10 : 1);

    kill $signal, $pid;
    return if wait_gone($pid, $patience);

    warn "process $pid did not end by SIG$signal, it is killed\n";
    kill TERM => $pid;
    return if wait_gone($pid, 1);

    kill KILL => $pid;
    wait_gone($pid, 2);
}


sub wait_gone {
    my ($pid, $seconds) = @_;

    my $end = time() + $seconds;

    while (1) {
        waitpid $pid, 1;        # WNOHANG, if it is a child
        return 1 if !alive($pid);
        return 0 if time() > $end;
        sleep 0.005;
    }
}


# --- logs ---

my $position = 0;

sub rewind_error_log { $position = 0 }


# The lines written since the last call (all, with check_accum_error_log).
# The short sleep lets nginx finish what it logs after the answer.

sub error_log_lines {
    sleep $Setting{sleep} * 3;

    open my $in, '<', root_file('logs', 'error.log') or return [];
    seek $in, $position, 0 if !$Setting{accumulate_error_log};

    my @lines = <$in>;
    $position = tell $in;

    return \@lines;
}


sub access_log_lines {
    sleep $Setting{sleep} * 3;
    open my $in, '<', root_file('logs', 'access.log') or return [];
    return [<$in>];
}


1;
