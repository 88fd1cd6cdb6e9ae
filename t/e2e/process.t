#!/usr/bin/perl

# Processes: reload, upgrade, quit and kill with streams in the air; one
# process, two workers; and where keys come from at all of these.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use LLM::Nginx;
use Gateway;

skip_without_module();
skip_under_valgrind('masters and workers, many of them');

my $mock = start_mock();
my %RUNNING = (events => 30, gap => '50ms');


sub running {
    my ($t, $count, @kinds) = @_;

    my @list;

    for my $i (0 .. $count - 1) {
        my $c = $i % 3 == 2 ? h2($t->port('h2')) : h1($t->port);
        my $kind = $kinds[$i % @kinds];
        my $s = start_ask($c, $kind, stream => 1, mock => \%RUNNING);
        push @list, [$c, $s, $kind];
    }

    $_->[3] = head_of($_->[0], $_->[1]) for @list;
    return @list;
}


sub all_whole {
    my ($name, @list) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $whole = 0;

    for (@list) {
        my ($c, $s, $kind, $r) = @$_;
        $c->read_body($r);
        $whole++ if $r->status == 200 && $r->complete
                    && !in_band_error($r, $kind)
                    && $r->body =~ /(?:\[DONE\]|message_stop|response\.completed)/;
        $c->close;
    }

    is($whole, scalar @list, "$name: all streams are whole");
}


sub last_key {
    my ($key) = $mock->control('last')->body
                =~ /^(?:authorization: bearer|x-api-key:) *(\S+)/mi;
    return $key;
}


# --- reload ---

for my $workers (1, 2) {
    my ($t) = gateway(mock => $mock, workers => $workers);
    my @list = running($t, 12, qw(chat messages responses));
    my @old = $t->workers;
    is(scalar @old, $workers, "$workers workers");

    ok($t->reload, "$workers workers: reload with running streams");

    my $r = ask(h1($t->port), 'chat', stream => 1, mock => { events => 2 });
    is_whole($r, 'chat', 'a new worker serves');
    is(scalar(grep { alive($_) } @old), $workers, 'the old ones still work')
        if $workers == 1;

    all_whole("$workers workers, reload", @list);
    ok(wait_for(sub { !grep { alive($_) } @old } => 5), 'the old ones end');

    no_alerts($t, name => "$workers workers, reload: no alerts");
}

{
    # again and again, with requests all the time

    my ($t) = gateway(mock => $mock, workers => 2);
    my ($bad, $count) = (0, 0);

    for my $round (1 .. 5) {
        my @list = map {
            my $c = h1($t->port);
            start_ask($c, 'chat', stream => 1,
                      mock => { events => 8, gap => '30ms' });
            $c;
        } 1 .. 8;
        $t->signal('HUP');

        for (@list) {
            my $r = $_->read_response;
            $count++;
            $bad++ if !$r->complete || $r->body !~ /\[DONE\]\n\n\z/;
            $_->close;
        }
    }

    is($bad, 0, "$count streams over five reloads");
    ok(wait_for(sub { !$t->old_workers } => 5), 'no old worker stays');
    no_alerts($t, name => 'five reloads: no alerts');
}


# --- quit ---

for my $workers (1, 2) {
    my ($t) = gateway(mock => $mock, workers => $workers);
    my @list = running($t, 9, qw(chat messages responses));
    $t->signal('QUIT');
    nap(0.1);
    all_whole("$workers workers, quit", @list);
    ok(wait_for(sub { !alive($t->pid // 0) } => 5), 'nginx has ended');
    no_alerts($t, name => "$workers workers, quit: no alerts");
}

{
    my ($t) = gateway(mock => $mock);
    my @list = running($t, 6, 'chat');
    my $before = $mock->stats;
    my $start = now();
    $t->stop(signal => 'TERM');
    cmp_ok(now() - $start, '<', 3, 'TERM does not wait');
    my $stats = $mock->wait_stat('aborted', $before->{aborted} + 6, 2);
    is($stats->{aborted}, $before->{aborted} + 6,
       'TERM closes the connections to the provider');
    $_->[0]->close for @list;
    no_alerts($t, name => 'TERM: no alerts');
}

{
    my ($t) = gateway(mock => $mock, main => 'worker_shutdown_timeout 500ms;');
    my @list = map { my $c = h1($t->port);
                     start_ask($c, 'chat', stream => 1,
                               mock => { events => 1000, gap => '50ms' });
                     $c } 1 .. 4;
    my $plain = h1($t->port);
    start_ask($plain, 'chat', mock => { delay => '30s' });
    $_->read_head for @list;
    my $before = $mock->stats;
    my $start = now();
    ok($t->reload(old_gone => 1), 'worker_shutdown_timeout: the worker ends');
    cmp_ok(now() - $start, '<', 4, 'in time');
    my $stats = $mock->wait_stat('aborted', $before->{aborted} + 5, 2);
    is($stats->{aborted}, $before->{aborted} + 5,
       'and no connection to the provider stays');
    $_->close for @list, $plain;
    no_alerts($t, name => 'worker_shutdown_timeout: no alerts');
}


# --- one process ---

{
    my ($t) = gateway(mock => $mock, master => 0,
                      env => { TEST_E2E_KEY => 'sk-single' },
                      provider => 'key env:TEST_E2E_KEY;');
    for my $kind (qw(chat messages responses)) {
        my $r = ask(h1($t->port), $kind, stream => 1, mock => { events => 3 });
        is_whole($r, $kind, "master_process off, $kind: whole");
        is(last_key(), 'sk-single', "master_process off, $kind: the key");
    }

    my $r = ask(h2($t->port('h2')), 'chat');
    is($r->body, $mock->last_response_body, 'master_process off, plain');

    my $before = $mock->stats;
    my $c = h1($t->port);
    start_ask($c, 'chat', stream => 1, mock => \%RUNNING);
    $c->read_head;
    $c->abort('fin');
    is($mock->wait_stat('aborted', $before->{aborted} + 1, 2)->{aborted},
       $before->{aborted} + 1, 'master_process off: an abort');
    no_alerts($t, name => 'master_process off: no alerts');
}


# --- a worker is killed ---

{
    my ($t) = gateway(mock => $mock, workers => 2);
    my $before = $mock->stats;
    my @list = running($t, 20, 'chat');
    my ($victim) = $t->workers;
    ok($t->kill_worker(pid => $victim), 'a worker is killed and replaced');

    my ($whole, $cut, $other) = (0, 0, 0);

    for (@list) {
        my ($c, $s, $kind, $r) = @$_;
        $c->read_body($r);
        $r->complete && $r->body =~ /\[DONE\]\n\n\z/ ? $whole++
            : $r->end eq 'cut' ? $cut++ : $other++;
        $c->close;
    }

    is("$other", '0', "streams are whole ($whole) or cut ($cut)");
    is($mock->stats->{aborted} - $before->{aborted}, $cut,
       'the provider saw as many end');

    my $bad = grep { !$_->complete }
              map { ask(h1($t->port), 'chat', close => 1,
                        mock => { events => 1 }) } 1 .. 20;
    is($bad, 0, 'all is well after that');
    ok($t->reload(old_gone => 1), 'a reload too');
    no_alerts($t, name => 'a worker was killed: no alerts',
              allow => [qr/exited on signal 9/]);
}


# --- binary upgrade ---

for my $how ('env', 'file') {
    my ($t) = gateway(
        mock => $mock, daemon => 1, env => { TEST_E2E_KEY => 'sk-upgrade' },
        files => { 'key' => "sk-upgrade\n" },
        provider => $how eq 'env' ? 'key env:TEST_E2E_KEY;'
                                  : 'key file:%%DIR%%/key;');
    my @list = running($t, 6, qw(chat messages));
    is(last_key(), 'sk-upgrade', "$how: the key before an upgrade");

    my ($old, $new) = $t->upgrade;
    ok($new, "$how: upgrade with running streams");
    isnt($old, $new, "$how: another master");

    my $r = ask(h1($t->port), 'chat', stream => 1, mock => { events => 2 });
    is_whole($r, 'chat', "$how: the new binary serves");
    is(last_key(), 'sk-upgrade', "$how: it has the key");
    all_whole("$how, upgrade", @list);

    ok($t->reload(old_gone => 1), "$how: a reload of the new binary");
    ask(h1($t->port), 'messages');
    is(last_key(), 'sk-upgrade', "$how: and the key again");
    no_alerts($t, name => "$how, upgrade: no alerts");
}


# --- keys that are missing ---

my %o = (vars => { MOCK => $mock->port }, env => { TEST_E2E_NONE => undef,
                                                   TEST_E2E_KEY => 'sk-one' });
my $missing = gateway_conf(provider => 'key env:TEST_E2E_NONE;');
my $present = gateway_conf(provider => 'key env:TEST_E2E_KEY;');

{
    my ($ok, $text) = check_conf($missing, %o);
    ok($ok, 'a missing env:NAME is no error for -t');
    like($text, qr/\[warn\].*TEST_E2E_NONE/, 'but a warning that names it');

    my $t = start_nginx($missing, %o, may_fail => 1);
    ok($t->failed, 'it is one at the start');
    like($t->error_log . $t->stderr, qr/\[emerg\].*TEST_E2E_NONE/,
         'that names it');

    ($ok, $text) = check_conf(gateway_conf(provider => 'key file:/nowhere;'),
                              %o);
    ok(!$ok, 'a missing file:PATH is an error');
    like($text, qr/\[emerg\].*\/nowhere/, 'that names it');

    ($ok, $text) = check_conf(gateway_conf(provider =>
                                           'header X-A env:TEST_E2E_NONE;'),
                              %o);
    like($text, qr/\[warn\].*TEST_E2E_NONE/, 'so for headers');
}

{
    my $t = start_nginx($present, %o);
    my @list = running($t, 3, 'chat');
    ok(!$t->reload(http => $missing), 'a reload with a missing env is refused');
    my $r = ask(h1($t->port), 'chat', stream => 1, mock => { events => 2 });
    is_whole($r, 'chat', 'the old configuration serves on');
    is(last_key(), 'sk-one', 'with its key');
    all_whole('refused reload', @list);

    ok($t->reload(http => $present), 'a reload with the key');
    ask(h1($t->port), 'chat');
    is(last_key(), 'sk-one', 'with its key');
    no_alerts($t, name => 'missing keys: no alerts', allow => [qr/emerg/]);
}

{
    # a file that only root can read, and that changes

    my ($t) = gateway(mock => $mock, user => $> == 0 ? 'nobody nogroup' : undef,
                      files => { key => "sk-first\n" },
                      provider => 'key file:%%DIR%%/key;');
    chmod 0600, $t->path('key');
    ok($t->reload, 'a file for root alone');
    ask(h1($t->port), 'chat');
    is(last_key(), 'sk-first', 'its key, without the newline');
    spew($t->path('key'), 'sk-second');
    ok($t->reload, 'the file has changed');
    ask(h1($t->port), 'chat');
    is(last_key(), 'sk-second', 'the new key');
    no_alerts($t, name => 'a key file: no alerts');
}


# --- what -T shows ---

{
    my $conf = gateway_conf(
        provider => 'header X-Env env:TEST_E2E_H; '
                    . 'header X-File file:%%DIR%%/header;' . "\n"
                    . 'key file:%%DIR%%/key;',
        http => 'llm_adapter_provider e { endpoint http://127.0.0.1:1; '
                . 'dialect openai; key env:TEST_E2E_KEY; }');
    my $p = LLM::Nginx->prepare(
        $conf, vars => { MOCK => $mock->port },
        env => { TEST_E2E_KEY => 'canary-env', TEST_E2E_H => 'canary-henv' },
        files => { key => "canary-file\n", header => "canary-hfile\n" });
    my $out = $p->path('T');
    my $pid = spawn([$p->command, '-T'], stdout => $out, stderr => $out,
                    env => $p->_env);
    my $status = reap($pid, 20);
    my $text = slurp($out);

    is($status, 0, '-T works');
    like($text, qr/llm_adapter_provider/, '-T shows the configuration');
    unlike($text, qr/canary/, '-T shows no secret');

    my ($ok, $warn) = check_conf(
        gateway_conf(provider => 'key sk-canary-literal;'),
        vars => { MOCK => $mock->port });
    ok($ok, 'a key in the configuration itself is no error');
    like($warn, qr/\[warn\].*configuration/, 'but a warning');
    unlike($warn, qr/canary/, 'that does not show it');
}

done_testing();
