package LLM::Process;

# A child process and what /proc says of processes (Linux).

use strict;
use warnings;

use Config qw(%Config);
use Exporter 'import';
use POSIX qw(WNOHANG);

use LLM::Util qw(slurp wait_for);

our @EXPORT_OK = qw(spawn reap end_child alive children cmdline rss_kb which);


# Starts a command and returns its pid.  %o: stdout, stderr: files or handles
# to write to; stdin: a handle or file to read from; env: a hash of additions
# (undef removes a name); dir.

sub spawn {
    my ($command, %o) = @_;

    my $pid = fork();
    die "fork(): $!\n" if !defined $pid;
    return $pid if $pid;

    # the child: no Perl cleanup may run in it, hence _exit() on any failure
    eval {
        open STDIN, ref $o{stdin} ? '<&' : '<', $o{stdin} // '/dev/null'
            or die;
        _redirect(\*STDOUT, $o{stdout}) if $o{stdout};
        _redirect(\*STDERR, $o{stderr}) if $o{stderr};
        chdir $o{dir} or die "chdir $o{dir}: $!" if $o{dir};

        my $env = $o{env} // {};
        for (keys %$env) {
            defined $env->{$_} ? ($ENV{$_} = $env->{$_}) : delete $ENV{$_};
        }

        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE CHLD);
        _die_with_parent();
        exec { $command->[0] } @$command or die "exec $command->[0]: $!";
    };

    print STDERR $@;
    POSIX::_exit(127);
}


# A test that is killed outright runs no cleanup: the kernel then ends its
# children, by prctl(PR_SET_PDEATHSIG, SIGTERM).

sub _die_with_parent {
    my $prctl = $Config{archname} =~ /^x86_64/ ? 157
              : $Config{archname} =~ /^aarch64/ ? 167 : return;
    syscall($prctl, 1, 15, 0, 0, 0);
}


sub _redirect {
    my ($handle, $to) = @_;
    open $handle, ref $to ? '>&' : '>>', $to or die "redirect to $to: $!";
}


# Waits up to $timeout for our child $pid; returns its wait status, or undef
# if it still runs.  A pid that is not our child counts as ended, status 0,
# when it is gone.

sub reap {
    my ($pid, $timeout) = @_;

    my $status;

    wait_for {
        my $got = waitpid($pid, WNOHANG);
        $status = $? if $got == $pid;
        $status = 0 if $got < 0 && !alive($pid);
        defined $status;
    } $timeout // 0;

    return $status;
}


# True if the process runs; a zombie does not.

sub alive {
    my ($pid) = @_;
    return slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) [^ZX]/s;
}


sub children {
    my ($pid) = @_;

    my $list = slurp("/proc/$pid/task/$pid/children");
    return sort { $a <=> $b } split ' ', $list if $list ne '';

    my @found;

    for my $stat (glob '/proc/[0-9]*/stat') {
        push @found, $1 if slurp($stat) =~ /^(\d+) \(.*\) \S \Q$pid\E /s;
    }

    return sort { $a <=> $b } @found;
}


sub cmdline {
    my ($pid) = @_;
    return slurp("/proc/$pid/cmdline") =~ tr/\0/ /r;
}


# Resident memory in KB: all of it (VmRSS), or 'anon' (no file pages: the
# better one for growth), or any other field of /proc/PID/status, as 'VmHWM'.

sub rss_kb {
    my ($pid, $what) = @_;
    $what = 'VmRSS' if !$what;
    $what = 'RssAnon' if $what eq 'anon';
    return slurp("/proc/$pid/status") =~ /^\Q$what\E:\s+(\d+) kB/m ? $1 : 0;
}


# Full path of a program: exec() of a binary upgrade does not search PATH.

sub which {
    my ($name) = @_;

    return $name if $name =~ /\//;

    for (split(/:/, $ENV{PATH} // ''), '/usr/sbin', '/usr/local/sbin') {
        return "$_/$name" if -x "$_/$name" && !-d "$_/$name";
    }

    die "$name: program not found\n";
}


# Ends the child {pid} of an object whose process {owner} started it; in a
# forked copy of the test it does nothing.

sub end_child {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    return if $self->{owner} != $$;

    local $?;
    kill TERM => $pid;
    return if defined reap($pid, 3);

    kill KILL => $pid;
    reap($pid, 3);
}


1;
