#!/usr/bin/perl

# The real command-line agents, @anthropic-ai/claude-code and @openai/codex,
# do a task of two tool turns: a command that writes a file, and one that
# reads another.  The mock provider says which.  The npm package ai does the
# same in its own loop.
#
# Nothing leaves this host: proxies that do not exist are set for all but the
# loopback, and there is no login.  An agent that does not install, or does
# not do the task with the provider itself, is skipped.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib abs_path("$FindBin::Bin/../lib"), "$FindBin::Bin/sdk";

use File::Copy qw(copy);
use File::Path qw(make_path);
use Test::More;

use LLM::E2E;
use SDK;

skip_without_module();

my $NOWHERE = 'http://127.0.0.1:9';

my ($t, $mock) = SDK->servers;
my $runs = 0;


# --- the agents ---

# Each is told its tools by headers of every request.

my %AGENT = (
    claude => {
        agent => qr{^claude-cli/}, model => 'claude-mock',
        uri => qr{/v1/messages$},
        tool => 'Bash',
        args => '{"command":"echo one > made.txt","description":"Write"}',
        tool2 => 'Read',
        args2 => '{"file_path":"%%WORK%%/note.txt"}',
        run => \&run_claude,
    },
    codex => {
        agent => qr{^codex_exec/}, model => 'gpt-mock',
        uri => qr{/v1/responses$},
        tool => 'exec_command', args => '{"cmd":"echo one > made.txt"}',
        tool2 => 'exec_command', args2 => '{"cmd":"cat note.txt"}',
        run => \&run_codex,
    },
);

sub run_claude {
    my ($dir, $home, $url, $headers) = @_;

    my ($claude) = glob "$dir/node_modules/\@anthropic-ai/"
                        . 'claude-code-linux-*/claude';
    return (["$claude", '-p', 'Do the task.', '--model', 'claude-mock',
             '--output-format', 'json', '--allowedTools', 'Bash,Read'],
            ANTHROPIC_BASE_URL => $url,
            ANTHROPIC_API_KEY => 'sk-of-the-client',
            ANTHROPIC_CUSTOM_HEADERS => join("\n", map { "$_: $headers->{$_}" }
                                                   sort keys %$headers),
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC => 1,
            DISABLE_TELEMETRY => 1, DISABLE_ERROR_REPORTING => 1,
            DISABLE_AUTOUPDATER => 1);
}

sub run_codex {
    my ($dir, $home, $url, $headers) = @_;

    my ($codex) = glob "$dir/node_modules/\@openai/codex-linux-*/vendor/*"
                       . '/bin/codex';
    my $list = join ', ', map { qq("$_" = '$headers->{$_}') }
                          sort keys %$headers;

    make_path("$home/.codex");
    spew("$home/.codex/config.toml", <<"EOT");
model = "gpt-mock"
model_provider = "gateway"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.gateway]
name = "gateway"
base_url = "$url/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
http_headers = { $list }
EOT

    return ([$codex, 'exec', '--json', '--skip-git-repo-check',
             '--sandbox', 'danger-full-access', 'Do the task.'],
            CODEX_HOME => "$home/.codex",
            OPENAI_API_KEY => 'sk-of-the-client', RUST_LOG => 'error');
}


# One task.  Returns what came of it: why (empty if it was done), and texts.

sub task {
    my ($name, $dir, $url, %controls) = @_;

    my $agent = $AGENT{$name};
    my $home = $t->path('home' . ++$runs);
    my $work = "$home/work";
    make_path($work);
    spew("$work/note.txt", "the secret word is heron\n");

    my %c = (tools => 1, turns => 2, events => 6, text => 'It is done.',
             (map { $_ => $agent->{$_} } qw(tool args tool2 args2)),
             key => "task$runs", %controls);
    my %headers = map { ('X-Mock-' . $_ =~ tr/_/-/r)
                        => $c{$_} =~ s/%%WORK%%/$work/r } keys %c;

    my ($command, %env) = $agent->{run}->($dir, $home, $url, \%headers);
    my $before = $mock->stats->{requests};

    my ($status, $took) = SDK::run_bounded(60, $command,
        dir => $work, stdout => "$home/out", stderr => "$home/err",
        env => {
            HOME => $home, XDG_CONFIG_HOME => undef, %env,
            (map { $_ => $NOWHERE } qw(http_proxy https_proxy HTTP_PROXY
                                       HTTPS_PROXY ALL_PROXY all_proxy)),
            NO_PROXY => '127.0.0.1', no_proxy => '127.0.0.1',
            OPENAI_BASE_URL => undef,
        });

    my $out = slurp("$home/out");
    my %r = (requests => $mock->stats->{requests} - $before, took => $took);
    my @wrong;

    push @wrong, defined $status ? "ended with $status" : 'took too long'
        if !defined $status || $status;
    push @wrong, 'the first tool made no file'
        if slurp("$work/made.txt") ne "one\n";
    push @wrong, 'the second tool\'s output did not reach the provider'
        if $mock->last_body !~ /heron/;
    push @wrong, 'no last answer' if $out !~ /It is done\./;

    $r{why} = join '; ', @wrong;
    $r{said} = substr(slurp("$home/err"), -1000) . substr $out, -1500;

    note(sprintf '%s: %d requests, %.1f s', $name, $r{requests}, $took);
    return \%r;
}


# The log's lines of an agent since $from.

sub lines_of {
    my ($name, $from) = @_;
    my @all = map { json_decode($_) } split /\n/, slurp($t->path('llm.log'));
    return grep { $_->{agent} =~ $AGENT{$name}{agent} }
           @all[$from .. $#all];
}

sub log_length { return scalar(() = slurp($t->path('llm.log')) =~ /\n/g) }


# --- tasks ---

my ($dir, $why) = SDK::installed('agents');
my $direct = 'http://127.0.0.1:' . $mock->port;
my $gateway = 'http://127.0.0.1:' . $t->port;

for my $name (sort keys %AGENT) {
    SKIP: {
        SDK::skip_one("$name: $why") if !$dir;

        my $r = task($name, $dir, $direct);
        if ($r->{why}) {
            diag("$name does not do the task with the provider itself: "
                 . "$r->{why}\n$r->{said}");
            SDK::skip_one("$name does not run here: $r->{why}");
        }

        my $from = log_length();
        $r = task($name, $dir, $gateway);
        is($r->{why}, '', "$name: a task of two tool turns")
            or diag($r->{said});

        my @lines = grep { $_->{uri} =~ $AGENT{$name}{uri} }
                    lines_of($name, $from);
        cmp_ok(scalar(@lines), '>=', 3, "$name: its requests");
        is(join(' ', map { $_->{status} } @lines),
           join(' ', (200) x @lines), "$name: their status");
        is((grep { $_->{prompt_tokens} eq '' || $_->{error} ne ''
                   || $_->{done} ne 'OK' } @lines), 0,
           "$name: usage known, no errors");
        is((grep { $_->{stream} } @lines), scalar(@lines), "$name: streams");

        $r = task($name, $dir, "$gateway/ping", gap => '150ms');
        is($r->{why}, '', "$name: a slow provider, pings")
            or diag($r->{said});

        # what goes wrong once: the agent understands it and goes on (a kept
        # connection that is closed is tried again here; codex does not come
        # back after a 429)

        my %once = (
            'overloaded, with Retry-After' => { status => 529,
                                                retry_after => 1 },
            'too many requests' => { status => 429, retry_after_ms => 50 },
            'the stream is cut' => { fault => 'cut', at => 3 },
            'an error in the stream' => { fault => 'error_event', at => 3 },
            'a closed connection' => { fault => 'close' },
        );
        delete $once{'too many requests'} if $name eq 'codex';

        for my $what (sort keys %once) {
            $from = log_length();
            $r = task($name, $dir, $gateway, fails => 1, %{ $once{$what} });
            is($r->{why}, '', "$name: once, $what") or diag($r->{said});
            ok((grep { $_->{error} ne '' } lines_of($name, $from)),
               "$name: once, $what: in the log")
                if ($once{$what}{fault} // '') ne 'close';
        }
    }
}


# --- the loop of the npm package ai ---

my ($npm, $no_npm) = SDK::installed('sdk');

SKIP: {
    SDK::skip_one("npm: $no_npm") if !$npm;
    copy("$FindBin::Bin/sdk/$_", $npm) for qw(run.mjs js_loop.mjs);
    SDK::compare($t, $mock, 'js_loop', [SDK::node($npm), "$npm/js_loop.mjs"]);
}

unlike($t->error_log, qr/sk-of-the|heron/,
       'no key and no prompt in the error log');

no_alerts($t);
done_testing();
