#!/usr/bin/perl

# The cache: what was answered once is answered again without the provider;
# what the client and the log are told of it; that an answer is there as soon
# as it was given, in any worker.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();

my $c = Caching->new(
    workers => 4,
    locations => {
        '/off/v1/' => 'llm_adapter_cache off;',
        '/quiet/v1/' => 'llm_adapter_headers off;',
        '/short/v1/' => 'llm_adapter_cache on ttl=1s;',
        '/long/v1/' => 'llm_adapter_cache on ttl=1h;',
    });
my ($t, $mock) = @$c{qw(t mock)};

my @ALL = ((map { [$_, 0], [$_, 1] } qw(chat completions messages responses)),
           ['embeddings', 0], ['count', 0]);


# --- once from the provider, then from the cache

for my $form (@ALL) {
    my ($kind, $stream) = @$form;
    my $name = "$kind, " . ($stream ? 'stream' : 'plain');
    my %ask = (stream => $stream, say => Caching::question());

    my $x = $c->try($kind, %ask, mock => { prompt_tokens => 1000,
                                           text => "answer to $name" });
    is_cache($x, 'MISS', "$name: first");

    my $y = $c->try($kind, %ask);
    is_cache($y, 'HIT', "$name: second");
    is_cache($c->try($kind, %ask, h2 => 1), 'HIT', "$name: third, HTTP/2");

    is($y->{r}->header($_), $x->{r}->header($_), "$name: the same $_")
        for qw(content-type cache-control content-length x-accel-buffering
               transfer-encoding x-llm-provider x-llm-model);
    isnt($y->{r}->header('x-llm-request-id'),
         $x->{r}->header('x-llm-request-id'), "$name: a request of its own");
    is($y->{r}->header($_), undef, "$name: no $_ of the first call")
        for qw(x-request-id request-id set-cookie openai-processing-ms
               x-ratelimit-remaining-requests);

    if ($stream) {
        is_form($y, "$name, again");
        is_deeply([events_of($y->{r}->body)], [events_of($x->{r}->body)],
                  "$name: the same events");

    } else {
        is($y->{r}->body, $x->{r}->body, "$name: the same bytes");
    }

    my ($first, $again) = map { Caching->logged($_) } $x, $y;

    is($first->{cache}, 'MISS', "$name: the log's first");
    is($again->{cache}, 'HIT', "$name: the log's second");
    is($again->{cache_reason}, '', "$name: no reason to be told");
    is($again->{attempts}, 0, "$name: no attempts in the log");
    is($again->{status}, 200, "$name: status in the log");
    is($again->{upstream_status}, '', "$name: no upstream in the log");
    is($again->{$_}, $first->{$_}, "$name: the same $_ in the log")
        for qw(error provider model requested_model dialect stream
               finish_reason prompt_tokens completion_tokens);

    if ($kind =~ /^(?:chat|messages)$/) {
        my $cost = 1000 / 1000 + $first->{completion_tokens} * 2 / 1000;
        is($first->{cost} + 0, $cost, "$name: cost $cost");
        is($first->{cost_saved} + 0, 0, "$name: nothing saved")
            if $first->{cost_saved} ne '';
        isnt($again->{cost}, '', "$name: the cost of a hit is known");
        is(($again->{cost} || 0) + 0, 0, "$name: it costs nothing");
        is($again->{cost_saved} + 0, $cost, "$name: saves $cost");
    }
}


# --- off, and told nothing

{
    my %ask = (say => Caching::question());

    for my $n (1, 2) {
        my $x = $c->try('chat', %ask, prefix => '/off');
        is($x->{r}->status, 200, "off: answer $n");
        is($x->{calls}, 1, "off: call $n");
        like($x->{r}->header('x-llm-cache') // 'OFF', qr/^OFF$/,
             "off: said so, $n");
        is($x->{r}->header('age'), undef, "off: no Age, $n");
        is($x->{r}->header('x-llm-cache-key'), undef, "off: no key, $n");
    }

    my $x = $c->try('chat', %ask, prefix => '/quiet');
    is($x->{calls}, 1, 'headers off: asked');
    my $y = $c->try('chat', %ask, prefix => '/quiet');
    is($y->{calls}, 0, 'headers off: not asked');

    for ($x, $y) {
        is(join(' ', grep { /^x-llm/i } map { $_->[0] } @{ $_->{r}->headers }),
           '', 'headers off: none');
    }

    is(Caching->logged($y)->{cache}, 'HIT', 'headers off: the log knows');
}


# --- Age, time over, refreshed

{
    my ($one, $two, $both) = questions(3);
    my %short = (prefix => '/short');
    my %long = (prefix => '/long');

    is_cache($c->try('chat', %short, say => $one, mock => { text => 'old' }),
             'MISS', 'ttl=1s: first');
    is_cache($c->try('chat', %long, say => $_), 'MISS', 'ttl=1h: first')
        for $two, $both;

    my $x = $c->try('chat', %short, say => $one);
    is_cache($x, 'HIT', 'ttl=1s: at once');
    cmp_ok($x->{r}->header('age'), '<=', 1, 'ttl=1s: Age');

    nap(2.1);

    $x = $c->try('chat', %long, say => $two);
    is_cache($x, 'HIT', 'ttl=1h: later');
    cmp_ok($x->{r}->header('age') // 0, '>=', 2, 'ttl=1h: Age has grown');
    cmp_ok($x->{r}->header('age') // 99, '<=', 6,
           'ttl=1h: but not too much');

    $x = $c->try('chat', %short, say => $one, mock => { text => 'new' });
    is_cache($x, 'EXPIRED', 'ttl=1s: later');
    is(content_of($x->{r}, 'chat')->{text}, 'new', 'ttl=1s: asked anew');
    is(Caching->logged($x)->{cache}, 'EXPIRED', 'ttl=1s: in the log');

    $x = $c->try('chat', %short, say => $one);
    is_cache($x, 'HIT', 'ttl=1s: refreshed');
    is(content_of($x->{r}, 'chat')->{text}, 'new', 'ttl=1s: the new one');

    # one entry, two opinions

    is_cache($c->try('chat', %long, say => $both), 'HIT',
             'young enough for the one');
    is_cache($c->try('chat', %short, say => $both), 'EXPIRED',
             'too old for the other');
}


# --- the id

{
    my ($one, $two) = questions(2);
    my @x = map { $c->try('chat', say => $_) } $one, $one, $two, $two;
    my @id = map { $_->{r}->header('x-llm-cache-key') } @x;

    like($id[1] // '', qr/^[0-9a-f]{16,}$/, 'X-LLM-Cache-Key of a hit');
    like($id[3] // '', qr/^[0-9a-f]{16,}$/, '... of another');
    isnt($id[1], $id[3], 'two entries, two ids');
    is($id[0], $id[1], 'the same when it was stored')
        if defined $id[0];
}


# --- it is there as soon as the last byte was seen, in any worker

{
    my ($bad, %seen) = ('');
    my $start = now();
    my $before = $c->calls;

    for my $n (1 .. 200) {
        my ($kind, $stream) = @{ $ALL[$n % 8] };
        my @ask = request_of($kind, $c->options($kind, stream => $stream,
                                                say => Caching::question()));

        for my $want (qw(MISS HIT)) {
            my $client = h1($t->port);
            my $r = $client->request(@ask);
            my $got = $r->header('x-llm-cache') // 'none';
            $bad .= " $n:$kind:$stream:$want:$got" if $got ne $want;
            $client->close;
        }
    }

    is($bad, '', '200 pairs, each on new connections: MISS, HIT');
    is($c->calls - $before, 200, '200 pairs: 200 calls');
    note(sprintf '200 pairs in %.2f s', now() - $start);
}


# --- on one connection, in one go; large and chunked requests

for my $client (h1($t->port), h2($t->port('h2'))) {
    my $way = $client->isa('LLM::H2') ? 'HTTP/2' : 'HTTP/1.1';
    my $bad = '';

    for my $n (1 .. 24) {
        my ($kind, $stream) = @{ $ALL[$n % @ALL] };
        my %ask = (client => $client, stream => $stream,
                   say => Caching::question());

        for my $want (qw(MISS HIT HIT)) {
            my $x = $c->try($kind, %ask, stream => $want eq 'HIT'
                            && $kind !~ /^(?:embeddings|count)$/
                            ? int rand 2 : $stream);
            my $got = $x->{r}->header('x-llm-cache') // 'none';
            $bad .= " $n:$kind:$stream:$want:$got" if $got ne $want;
        }
    }

    is($bad, '', "$way: one connection");
    $client->close;
}

for my $size (20_000, 3_000_000) {
    my %ask = (say => Caching::question() . 'x' x $size);
    $c->pair('chat', { %ask }, { %ask }, 'HIT', "a request of $size bytes");
    is_cache($c->try('chat', %ask, chunked => 30_000), 'HIT',
             "a request of $size bytes, in chunks");
    is_cache($c->try('chat', %ask, stream => 1, h2 => 1), 'HIT',
             "a request of $size bytes, HTTP/2, a stream");
    is_cache($c->try('chat', say => "$ask{say}y"), 'MISS',
             "a request of $size bytes and one");
}


# --- not cached: a request that is not one

{
    my $get = http_get($t->port, '/v1/models',
                       headers => [authorization => 'Bearer sk-tenant-a']);
    is($get->status, 200, 'GET models');
    unlike($get->header('x-llm-cache') // '', qr/HIT|MISS/,
           'GET models: no cache');

    for my $body ('{"model":"gpt-4o"', '{"messages":[]}', '') {
        for (1, 2) {
            my $x = $c->try('chat', body => $body);
            is($x->{r}->status, 400, "a bad request '$body' is one");
            unlike($x->{r}->header('x-llm-cache') // '', qr/HIT|STALE/,
                   "a bad request '$body' is no hit");
        }
    }
}

no_alerts($t);
done_testing();
