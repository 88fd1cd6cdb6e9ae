package LLM::Nginx;

# One nginx for a test, in a directory of its own.
#
#   my $t = LLM::Nginx->start($http, %options);
#
# $http is what stands inside http {}.  In it, in `main` and in `events`:
#   %%PORT%%, %%PORT_name%%   a free port each, see $t->port('name')
#   %%DIR%%                   the directory
#   %%NAME%%                  $options{vars}{NAME}
#
# Options (default):
#   vars => {}, main => '', events => ''        more text
#   raw => 1           $http is the whole nginx.conf, nothing is added
#   workers (1), connections (1024), log_level ('info')
#   master (1)         master_process; under valgrind it is off unless the
#                      test says master => 1, since one process is quicker
#   daemon (0)         needed for upgrade(): nginx ignores USR2 otherwise
#   module             path; default $ENV{LLM_MODULE} or the build's; ''
#                      means no load_module line (plain nginx, static build)
#   modules => []      further ones
#   user ('root')      the workers' user, when started as root
#   env => {}          environment of nginx (undef removes a name)
#   files => { 'html/x' => 'text' }    written below the directory first
#   may_fail => 1      a failed start gives an object with ->failed true
#   start_timeout (10; 60 under valgrind)
#
# Environment: TEST_NGINX_BINARY (nginx), LLM_MODULE, LLM_VALGRIND=1,
# LLM_NGINX_PRELOAD (LD_PRELOAD of nginx alone: a sanitizer's library),
# LLM_KEEP=1 (directories stay, their names are printed).

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Spec ();
use File::Temp ();
use Scalar::Util qw(weaken);
use Test::More ();

use LLM::Process qw(spawn reap alive children cmdline rss_kb which);
use LLM::Util qw(now nap wait_for free_port slurp spew repo_root);


# directive prefix, the module it needs
my @TEMP_PATHS = (
    [client_body => ''], [proxy => 'proxy'], [fastcgi => 'fastcgi'],
    [uwsgi => 'uwsgi'], [scgi => 'scgi'],
);

# weak references to all objects, for END
my %LIVE;


sub binary { return which($ENV{TEST_NGINX_BINARY} // 'nginx') }


# What `nginx -V` says; version_number() is 1022001 for 1.22.1.

my %built;

sub build_info {
    my $binary = binary();
    return $built{$binary} //= `$binary -V 2>&1`;
}

sub version_number {
    return build_info() =~ m{nginx/(\d+)\.(\d+)\.(\d+)}
        ? $1 * 1_000_000 + $2 * 1000 + $3 : 0;
}


# --- making it ---

sub prepare {
    my ($class, $http, %o) = @_;

    my $self = bless {
        opt => \%o, ports => {}, owner => $$, valgrind => $ENV{LLM_VALGRIND},
        workers => $o{workers} // 1,
    }, $class;

    $self->{master} = $o{master} // !$self->{valgrind};
    $self->{daemon} = $self->{valgrind} ? 0 : $o{daemon} // 0;

    # owned by the object: removed when it goes, after stop()
    $self->{tempdir} = File::Temp->newdir('llm-nginx-XXXXXXXX', TMPDIR => 1,
                                          CLEANUP => !$ENV{LLM_KEEP});
    $self->{dir} = "$self->{tempdir}";
    chmod 0755, $self->{dir};
    weaken($LIVE{ $self->{dir} } = $self);
    Test::More::diag("kept: $self->{dir}") if $ENV{LLM_KEEP};

    make_path(map { "$self->{dir}/$_" } qw(html logs));
    $self->_write_files;
    $self->write_conf($http);

    return $self;
}


sub _write_files {
    my ($self) = @_;

    my $files = $self->{opt}{files} // {};

    for my $name (sort keys %$files) {
        my $path = "$self->{dir}/$name";
        make_path(dirname($path));
        spew($path, $files->{$name});
    }
}


# Writes nginx.conf anew, for a reload(); the same ports and variables.

sub write_conf {
    my ($self, $http) = @_;
    my $text = $self->{opt}{raw} ? $http : $self->_whole_conf($http);
    $self->{conf} = $self->expand($text);
    spew("$self->{dir}/nginx.conf", $self->{conf});
}


sub _whole_conf {
    my ($self, $http) = @_;

    my $o = $self->{opt};
    my $connections = $o->{connections} // 1024;
    my $temp = '';

    for (@TEMP_PATHS) {
        my ($name, $module) = @$_;
        next if $module ne ''
                && build_info() =~ /--without-http_${module}_module/;
        $temp .= "    ${name}_temp_path %%DIR%%/${name}_temp;\n";
    }

    return $self->_main_conf . <<"EOT";
events {
    worker_connections $connections;
@{[ $o->{events} // '' ]}
}

http {
    access_log %%DIR%%/access.log;
$temp
$http
}
EOT
}


sub _main_conf {
    my ($self) = @_;

    my $o = $self->{opt};
    my @lines = map { "load_module $_;" } $self->_modules;

    push @lines, 'daemon ' . ($self->{daemon} ? 'on;' : 'off;'),
         'master_process ' . ($self->{master} ? 'on;' : 'off;'),
         "worker_processes $self->{workers};",
         'pid %%DIR%%/nginx.pid;',
         'error_log %%DIR%%/error.log ' . ($o->{log_level} // 'info') . ';';

    # root: the directory and the build tree may be closed to others
    push @lines, 'user ' . ($o->{user} // 'root') . ';' if $> == 0;

    return join("\n", @lines, $o->{main} // '') . "\n";
}


sub _modules {
    my ($self) = @_;

    my $own = exists $self->{opt}{module} ? $self->{opt}{module}
            : $ENV{LLM_MODULE} // 'build/ngx_http_llm_module.so';

    return map { File::Spec->rel2abs($_, repo_root()) }
           grep { defined && $_ ne '' }
           @{ $self->{opt}{modules} // [] }, $own;
}


sub expand {
    my ($self, $text) = @_;

    my $vars = $self->{opt}{vars} // {};

    $text =~ s{%%(\w+)%%}{
        my $name = $1;
        $name eq 'DIR' ? $self->{dir}
        : $name =~ /^PORT(?:_(\w+))?$/ ? $self->port($1)
        : $vars->{$name} // die "%%$name%% in the configuration is unknown\n";
    }gex;

    return $text;
}


# --- starting ---

sub start {
    my ($class, $http, %o) = @_;

    my $self = $class->prepare($http, %o);
    my $problem = $self->_launch;

    return $self if !$problem;

    $self->{failed} = $problem;
    $self->stop;
    return $self if $o{may_fail};

    die "nginx did not start: $problem\n" . $self->stderr . $self->error_log;
}


# `nginx -t` with the same options: (true if fine, what it printed).

sub check {
    my ($class, $http, %o) = @_;

    my $self = $class->prepare($http, %o);
    my $pid = spawn([$self->command, '-t'], stdout => "$self->{dir}/stderr",
                    stderr => "$self->{dir}/stderr", env => $self->_env);
    my $status = reap($pid, 30);

    return (defined $status && $status == 0, $self->stderr);
}


sub command {
    my ($self) = @_;
    my $dir = $self->{dir};
    return (binary(), '-p', "$dir/", '-c', "$dir/nginx.conf",
            '-e', "$dir/error.log");
}


sub _env {
    my ($self) = @_;
    my %env = %{ $self->{opt}{env} // {} };
    $env{LD_PRELOAD} = $ENV{LLM_NGINX_PRELOAD} if $ENV{LLM_NGINX_PRELOAD};
    return \%env;
}


sub _launch {
    my ($self) = @_;

    my @command = $self->command;
    my $timeout = $self->{opt}{start_timeout} // 10;

    if ($self->{valgrind}) {
        unshift @command, $self->_valgrind_command;
        $timeout = 60;
    }

    my $pid = spawn(\@command, stdout => "$self->{dir}/stderr",
                    stderr => "$self->{dir}/stderr", env => $self->_env);

    if ($self->{daemon}) {
        my $status = reap($pid, $timeout);
        return 'it hangs' if !defined $status;
        return "exit status " . ($status >> 8) if $status;

    } else {
        $self->{child} = $pid;
    }

    my $ok = wait_for { $self->_is_up || $self->_died } $timeout;

    return 'no answer in time' if !$ok;
    return "it ended, wait status $self->{status}" if defined $self->{status};
    return '';
}


sub _valgrind_command {
    my ($self) = @_;
    my $own = repo_root() . '/t/lib/valgrind.supp';
    return (which('valgrind'), '-q', '--leak-check=full',
            '--show-leak-kinds=definite', '--errors-for-leak-kinds=definite',
            '--error-exitcode=99', '--gen-suppressions=all',
            '--num-callers=30', "--log-file=$self->{dir}/valgrind.%p",
            (-e $own ? "--suppressions=$own" : ()));
}


sub _died {
    my ($self) = @_;
    return 0 if !$self->{child};
    $self->{status} = reap($self->{child}, 0);
    return defined $self->{status};
}


# Up: the pid file is there, so the sockets are open, and all workers are in
# their loops.  No trial connection: it would show in logs and counters.

sub _is_up {
    my ($self) = @_;
    return 0 if !$self->read_pid;
    return 1 if !$self->{master};
    return $self->workers >= $self->_workers_wanted;
}


sub _workers_wanted {
    my ($self) = @_;
    return $self->{conf} =~ /^\s*worker_processes\s+(\d+)/m ? $1 : 1;
}


# --- what it is ---

sub dir      { return $_[0]{dir} }
sub failed   { return $_[0]{failed} }
sub conf     { return $_[0]{conf} }
sub valgrind { return $_[0]{valgrind} }
sub path     { return "$_[0]{dir}/$_[1]" }


# A port of this server; a new free one for a name not seen before.

sub port {
    my ($self, $name) = @_;
    return $self->{ports}{ $name // '' } //= free_port();
}


sub read_pid {
    my ($self, $file) = @_;
    return slurp("$self->{dir}/" . ($file // 'nginx.pid')) =~ /^(\d+)\s/
        ? $1 : undef;
}


# The master's pid (the only process's with master => 0).

sub pid { return $_[0]->read_pid // $_[0]{child} }


# Pids of the workers that serve (not those that shut down) of the master
# $master, default the present one.  Under valgrind process titles cannot be
# seen: there it is all children.

sub workers {
    my ($self, $master) = @_;
    $master //= $self->pid;

    my @pids = !$master ? ()
             : !$self->{master} ? ($master)
             : $self->{valgrind} ? children($master)
             : grep { cmdline($_) =~ /^nginx: worker process\s*$/ }
               children($master);

    return @pids;
}

sub old_workers {
    my ($self) = @_;
    my @pids = grep { cmdline($_) =~ /worker process is shutting down/ }
               children($self->pid);
    return @pids;
}


# KB of the given worker, or the sum over all; $what as in rss_kb().

sub rss {
    my ($self, $what, @pids) = @_;
    @pids = $self->workers if !@pids;
    my $sum = 0;
    $sum += rss_kb($_, $what) for @pids;
    return $sum;
}


# --- signals ---

sub signal {
    my ($self, $name, $pid) = @_;
    return kill $name => $pid // $self->pid;
}


# Reload; with conf => TEXT or http => TEXT a new configuration first (conf: a
# synonym).  Waits until the new workers run and the old ones accept no more,
# with old_gone => 1 also until they ended.  False if the new configuration was
# refused.

sub reload {
    my ($self, %o) = @_;

    # a single process loses its free connections on a reload
    die "reload() needs master => 1\n" if !$self->{master};

    my $http = $o{conf} // $o{http};
    $self->write_conf($http) if defined $http;

    my %old = map { $_ => 1 } $self->workers;
    my $mark = $self->log_mark;
    my $timeout = $o{timeout} // 10;
    $self->signal('HUP');

    my $ok = wait_for {
        my @new = grep { !$old{$_} } $self->workers;
        @new >= $self->_workers_wanted && $self->_all_quit($mark, keys %old)
            ? 'up'
        : $self->log_since($mark) =~ /\[emerg\]/ ? 'refused' : '';
    } $timeout;

    return 0 if $ok ne 'up';
    return 1 if !$o{old_gone};

    return !!wait_for { !grep { alive($_) } keys %old } $timeout;
}


# True when none of the given workers takes connections any more.

sub _all_quit {
    my ($self, $mark, @pids) = @_;

    my %serving = map { $_ => 1 } $self->workers;
    return !grep { $serving{$_} } @pids if !$self->{valgrind};

    # no titles to see; the log needs level notice or more
    my $log = $self->log_since($mark);
    return !grep { alive($_) && $log !~ /\b$_#\d+: gracefully shutting/ }
           @pids;
}


# Binary upgrade by USR2 (start with daemon => 1).  Waits until the new
# master's workers run, then QUITs the old master and waits for its end, or
# leaves it with keep_old => 1.  Returns (old pid, new pid), () on failure.

sub upgrade {
    my ($self, %o) = @_;

    die "upgrade() needs daemon => 1\n" if !$self->{daemon};

    my $old = $self->pid;
    my $timeout = $o{timeout} // 10;
    $self->signal('USR2');

    my $new = wait_for {
        my $pid = $self->read_pid;
        defined $pid && $pid != $old && $self->read_pid('nginx.pid.oldbin')
            && $self->workers($pid) >= $self->_workers_wanted ? $pid : 0;
    } $timeout;

    return if !$new;
    return ($old, $new) if $o{keep_old};

    $self->signal('QUIT', $old);
    return if !wait_for { !alive($old) } $timeout;
    return ($old, $new);
}


# Kills a worker (the first by default) and waits for its replacement, whose
# pid is returned.

sub kill_worker {
    my ($self, %o) = @_;

    my %before = map { $_ => 1 } $self->workers;
    my $victim = $o{pid} // ($self->workers)[0];
    kill $o{signal} // 'KILL', $victim;

    return wait_for {
        my ($new) = grep { !$before{$_} } $self->workers;
        $new;
    } $o{timeout} // 10;
}


# Stops nginx: QUIT (or signal => 'TERM'), then TERM and KILL if it does not
# end in `timeout` seconds (10).  Returns true if the first signal was enough.
# exit_status() is then the wait status of a daemon => 0 server.

sub stop {
    my ($self, %o) = @_;

    return 1 if $self->{stopped} || $self->{owner} != $$;
    $self->{stopped} = 1;

    local $?;
    my $pid = $self->pid;
    return 1 if !$pid;

    my $timeout = $o{timeout} // ($self->{valgrind} ? 30 : 10);
    my @family = ($pid, children($pid), $self->{child} // ());
    my $first = $o{signal} // 'QUIT';

    for my $name ($first, 'TERM', 'KILL') {
        kill $name => $name eq 'KILL' ? @family : $pid;

        if ($self->_wait_gone($pid, $timeout)) {
            $self->{forced} = $name ne $first;
            return !$self->{forced};
        }
    }

    return 0;
}


sub _wait_gone {
    my ($self, $pid, $timeout) = @_;

    if ($self->{child} && !defined $self->{status}) {
        $self->{status} = reap($self->{child}, $timeout);
        return 0 if !defined $self->{status};
    }

    return wait_for { !alive($pid) } $timeout;
}


sub exit_status { return $_[0]{status} }


# Servers still there at the end of the test, also when it died.  END comes
# before the global destruction, which would take the directories first.

sub DESTROY { $_[0]->stop(signal => 'TERM', timeout => 2) }

END {
    for my $self (values %LIVE) {
        $self->stop(signal => 'TERM', timeout => 2) if $self;
    }
}


# --- logs ---

sub error_log  { return slurp("$_[0]{dir}/error.log") }
sub access_log { return slurp("$_[0]{dir}/access.log") }
sub stderr     { return slurp("$_[0]{dir}/stderr") }


# log_mark() now, log_since($mark) later: the lines written between.

sub log_mark { return -s "$_[0]{dir}/error.log" // 0 }

sub log_since {
    my ($self, $mark) = @_;
    my $text = $self->error_log;
    return $mark < length $text ? substr($text, $mark) : '';
}


# Wait until error.log (since $mark) or access.log matches; true if so.  The
# access log's line is written after the client has the last byte.

sub wait_log {
    my ($self, $re, $timeout, $mark) = @_;
    return !!wait_for { $self->log_since($mark // 0) =~ $re } $timeout // 5;
}

sub wait_access {
    my ($self, $re, $timeout) = @_;
    return !!wait_for { $self->access_log =~ $re } $timeout // 5;
}


# Lines that must not be in the logs, valgrind's report included; @allow are
# patterns of lines that are expected in this test.

sub alerts {
    my ($self, @allow) = @_;

    my @bad = grep {
        /\[(?:alert|emerg|crit)\]|Sanitizer|runtime error:|AddressSan/
            || /exited on signal|\*\*\* (?:stack|buffer|.*free)/
    } split /\n/, $self->error_log . $self->stderr;

    push @bad, map { split /\n/, slurp($_) } glob "$self->{dir}/valgrind.*";

    for my $re (@allow) {
        @bad = grep { !/$re/ } @bad;
    }

    return @bad;
}


1;
