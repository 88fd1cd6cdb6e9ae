#!/usr/bin/perl

# The cache and its clients: many at once, some that leave, some that read
# slowly what is played to them again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();
skip_under_valgrind('reloads');

my $c = Caching->new(workers => 2, cache => 'on max_size=4m',
    path => '%%DIR%%/cache size=64m',
    location => 'llm_adapter_client_abort cancel;',
    locations => {
        '/drain/v1/' => 'llm_adapter_client_abort drain;',
    });
my ($t, $mock) = @$c{qw(t mock)};

# 16 keys at once, in all forms

my @kinds = qw(chat messages completions responses);
my @many = map { { kind => $kinds[$_ % 4], stream => $_ / 4 % 2,
                   say => Caching::question(), n => $_ } } 0 .. 15;
my $before = $c->calls;

for my $one (@many) {
    my $h2 = $one->{n} % 3 == 0;
    my $client = $h2 ? h2($t->port('h2')) : h1($t->port);
    $one->{client} = $client;
    $one->{sent} = start_ask($client, $one->{kind}, $c->options(
        $one->{kind}, say => $one->{say}, stream => $one->{stream}),
        mock => { text => "the answer to number $one->{n} of them",
                  size => 3, gap => 5 });
}

for my $one (@many) {
    my $r = head_of($one->{client}, $one->{sent});
    $one->{client}->read_body($r);
    is($r->header('x-llm-cache'), 'MISS', "16 at once: $one->{n}");
    $one->{client}->close;
}

is($c->calls - $before, 16, '16 at once: 16 calls');

for my $one (@many) {
    for my $stream (0, 1) {
        my $x = $c->try($one->{kind}, say => $one->{say},
                        stream => $stream);
        is_cache($x, 'HIT', "16 at once: $one->{n} again");
        is(content_of($x->{r}, $one->{kind}, $stream)->{text},
           "the answer to number $one->{n} of them",
           "16 at once: $one->{n}: its own");
    }
}

# the same key at once: each is answered

my $say = Caching::question();
my @same = map { h1($t->port) } 1 .. 8;
start_ask($_, 'chat', $c->options('chat', say => $say, stream => 1),
          mock => { events => 5, gap => 10 }) for @same;
is_whole($_->read_response, 'chat', 'the same key at once: whole')
    for @same;
is_cache($c->try('chat', say => $say), 'HIT', 'the same key: stored');
$_->close for @same;

# the client leaves in the middle: nothing is stored; with drain it is

for my $stream (0, 1) {
    for my $where ('', '/drain') {
        my $name = ($where || 'cancel') . ', '
                   . ($stream ? 'stream' : 'plain');
        my %ask = (say => Caching::question(), stream => $stream,
                   prefix => $where);
        my $had = $c->calls;
        my $client = h1($t->port);

        start_ask($client, 'chat', $c->options('chat', %ask),
                  mock => $stream ? { events => 10, gap => 30 }
                                  : { delay => 300 });
        wait_for { $c->calls > $had };
        nap(0.1);
        $client->abort('rst');

        if ($where eq '') {
            $mock->wait_stat('aborted', 1, 2);
            nap(0.3);
            my $x = $c->try('chat', %ask);
            is_cache($x, 'MISS', "$name: the client left");
            next;
        }

        my $got = wait_for {
            my $x = $c->try('chat', %ask, control => 'only-if-cached');
            ($x->{r}->header('x-llm-cache') // '') eq 'HIT' ? $x : undef;
        } 3, 0.05;
        ok($got, "$name: the client left, and it was stored");
        is_form($got, $name) if $got;
    }
}

# a large answer, to slow readers, some of whom leave

for my $kind (qw(chat messages)) {
    for my $stream (0, 1) {
        my $name = "$kind, 1 MB, " . ($stream ? 'stream' : 'plain');
        my %ask = (say => Caching::question(), stream => $stream);
        my $first = $c->try($kind, %ask, mock => { total => '1m',
                                                   size => 2000 });
        is_cache($first, 'MISS', $name);

        my @slow;

        for my $n (0 .. 5) {
            my $client = $n % 2 ? h2($t->port('h2'), window => 5000,
                                     auto => 0, rcvbuf => 4096)
                                : h1($t->port, rcvbuf => 4096);
            my $sent = start_ask($client, $kind, $c->options($kind, %ask));
            my $r = head_of($client, $sent);
            is($r->header('x-llm-cache'), 'HIT', "$name: slow reader $n");
            push @slow, [$client, $r];
        }

        # others go on, in both workers, and can store and purge

        for (1 .. 6) {
            my $start = now();
            my %other = (say => Caching::question());
            my $x = $c->try('chat', %other);
            is_cache($x, 'MISS', "$name: another one");
            is_cache($c->try('chat', %other), 'HIT',
                     "$name: stored beside");
            cmp_ok(now() - $start, '<', 2, "$name: at once");
        }

        my $purged = http_post($t->port, '/llm', { purge => 'all' });
        nap(0.002);
        is($purged->status, 200, "$name: purged below slow readers");
        my $other = $c->try($kind, %ask, mock => { text => 'new' });
        is_cache($other, 'MISS', "$name: gone for others");

        # two leave, the rest reads on

        $slow[$_][0]->abort($_ ? 'rst' : 'fin') for 0, 1;

        for my $n (2 .. 5) {
            my ($client, $r) = @{ $slow[$n] };
            if ($client->isa('LLM::H2')) {
                $client->{auto} = 1;
                $client->window_update(0, 10_000_000);
                $client->window_update($r, 10_000_000);
            }
            $client->read_body($r);
            ok($r->complete, "$name: slow reader $n: complete");
            is(length $r->body, length $first->{r}->body,
               "$name: slow reader $n: all of it");
            my $x = { r => $r, kind => $kind, stream => $stream };
            is_same_content($first, $x, "$name: slow reader $n");
            $client->close;
        }
    }
}

# more than it has room for: the rest goes on, what is asked for again stays

{
    my $d = Caching->new(workers => 2, mock => $mock,
                         path => '%%DIR%%/cache size=4m');
    my %hot = (say => Caching::question());
    my $bad = '';
    my $calls = 0;

    $d->try('chat', %hot, mock => { total => 3000 });

    for my $n (1 .. 900) {
        my $r = h1($d->port)->request(request_of('chat', $d->options('chat',
            say => Caching::question(), mock => { total => 12000 })));
        $bad .= " $n:" . $r->status if $r->status != 200;
        $calls += $d->try('chat', %hot)->{calls} if $n % 10 == 0;
    }

    is($bad, '', '11 MB in 4 MB: all are answered');
    cmp_ok($calls, '<=', 2, '11 MB in 4 MB: a hot one stays');

    my $cache = http_get($d->port, '/llm')->json->{cache};
    cmp_ok($cache->{entries}, '>', 50, '11 MB in 4 MB: entries');
    cmp_ok($cache->{entries}, '<', 400, '11 MB in 4 MB: not all');
    cmp_ok($cache->{used}, '<=', $cache->{size}, '11 MB in 4 MB: used');
    cmp_ok(-s $d->{t}->path('cache/data.mdb'), '<=', 4.2 * 1024 * 1024,
           '11 MB in 4 MB: the file');
    $d->pair('chat', { say => $_ }, { say => $_ }, 'HIT', 'still stores')
        for questions(3);
    unlike($d->{t}->error_log, qr/\[error\]/, '11 MB in 4 MB: no error');
    no_alerts($d->{t}, name => '11 MB in 4 MB: no alerts');
}

# a reload with slow readers: they get all of it

my %ask = (say => Caching::question());
my $first = $c->try('chat', %ask, mock => { total => '1m', size => 2000 });
my $slow = h1($t->port, rcvbuf => 4096);
start_ask($slow, 'chat', $c->options('chat', %ask));
my $r = head_of($slow);
ok($t->reload, 'reload below a slow reader');
is_cache($c->try('chat', %ask), 'HIT', 'the new worker has it');
$slow->read_body($r);
is($r->body, $first->{r}->body, 'the slow reader has all of it');
$slow->close;

no_alerts($t);
done_testing();
