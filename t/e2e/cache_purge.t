#!/usr/bin/perl

# The status location, as far as the cache is concerned: what is told of it,
# and purging: all, by scope, by model, by id; who may, and how it is asked.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Digest::SHA qw(sha256_hex);
use Test::More;

use LLM::E2E;
use LLM::H1;
use Gateway;
use Caching;

skip_without_module();

my $c = Caching->new(
    workers => 4,
    server => 'set $tenant $http_x_tenant;'
              . ' location = /read { llm_adapter_status; }'
              . ' location = /off { llm_adapter_status purge=off; }'
              . ' location = /closed { llm_adapter_status purge=on;'
              . ' deny all; }'
              . ' location = /behind { set_real_ip_from 127.0.0.1;'
              . ' real_ip_header X-Real-IP; llm_adapter_status purge=on; }'
              . ' location = /open { set_real_ip_from 127.0.0.1;'
              . ' real_ip_header X-Real-IP; allow 192.0.2.0/24; deny all;'
              . ' llm_adapter_status purge=on; }',
    locations => {
        '/tenant/v1/' => 'llm_adapter_cache on scope=$tenant;',
        '/global/v1/' => 'llm_adapter_cache on scope=global reveal=on;',
        '/named/v1/' => 'llm_adapter openai:gpt-named;',
    });
my ($t, $mock) = @$c{qw(t mock)};


# What begins in the same ms is not stored, either.

sub purge {
    my ($what, %o) = @_;
    my $r = http_post($t->port, $o{at} // '/llm', $what,
                      headers => ['content-type' => 'application/json',
                                  @{ $o{headers} // [] }]);
    nap(0.002);
    return $r;
}


# It is answered with these numbers.

sub is_purged {
    my ($r, $matched, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $json = $r->json;
    is($r->status, 200, "$name: 200") or diag($r->body);
    like($r->header('content-type') // '', qr{^application/json},
         "$name: JSON");
    is(ref $json eq 'HASH' ? join(' ', sort keys %$json) : $r->body,
       'deleted matched pending', "$name: its members") or return;
    is($json->{matched}, $matched, "$name: matched") if defined $matched;
    is($json->{deleted} + $json->{pending}, $json->{matched},
       "$name: deleted and pending");
}


sub status {
    my ($at) = @_;
    return http_get($t->port, $at // '/llm')->json;
}


# All entries, each asked for often enough to meet each worker.

sub are_cached {
    my ($asks, $state, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $ask (@$asks) {
        my ($kind, %o) = @$ask;
        my $times = $state eq 'HIT' ? 4 : 1;
        is_cache($c->try($kind, %o), $state, $name) for 1 .. $times;
    }
}


# Absent in each worker: asked for without storing anything.

sub are_gone {
    my ($asks, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $ask (@$asks) {
        my ($kind, %o) = @$ask;
        my @states = map { $c->try($kind, %o, control => 'only-if-cached')
                           ->{r}->status } 1 .. 10;
        is(join(' ', @states), join(' ', (504) x 10), "$name: gone");
    }
}


# --- GET

{
    my $json = status();
    is(ref $json, 'HASH', 'GET: JSON') or diag(http_get($t->port, '/llm')->body);
    my $cache = $json->{cache};
    is(ref $cache, 'HASH', 'GET: with "cache"');
    is($cache->{entries}, 0, 'no entries');
    is($cache->{size}, 16 * 1024 * 1024, 'its size');
    cmp_ok($cache->{used}, '>=', 0, 'what is used');

    my @five = map { ['chat', say => $_] } questions(5);
    are_cached(\@five, $_, 'five') for qw(MISS HIT);
    my $after = status()->{cache};
    is($after->{entries}, 5, 'five entries');
    cmp_ok($after->{used}, '>', $cache->{used}, 'more is used');
    cmp_ok($after->{used}, '<=', $after->{size}, 'no more than there is');
    is(status('/read')->{cache}{entries}, 5, 'where purging is off, too');

    my $head = http('HEAD', $t->port, '/llm');
    is($head->status, 200, 'HEAD');
    is($head->body, '', 'HEAD: no body');
    like(http_get($t->port, '/llm')->header('content-type'),
         qr{^application/json}, 'GET: its type');
    like(http_get($t->port, '/llm')->header('cache-control') // '',
         qr/no-store|no-cache/, 'GET: not to be kept');

    my $secret = http_get($t->port, '/llm')->body;
    unlike($secret, qr/sk-tenant|question/, 'GET: no credential, no prompt');
}


# --- all

{
    my @asks = ((map { ['chat', say => $_] } questions(3)),
                ['messages', say => Caching::question(), stream => 1],
                ['embeddings', say => Caching::question()],
                ['chat', say => Caching::question(), key => 'sk-tenant-b']);

    are_cached(\@asks, 'MISS', 'before all');
    are_cached(\@asks, 'HIT', 'before all');

    my $entries = status()->{cache}{entries};
    is($entries, 11, 'eleven entries');
    my $r = purge('{"purge":"all"}');
    is_purged($r, $entries, 'all');

    are_gone(\@asks, 'all');
    ok(wait_for(sub { status()->{cache}{entries} == 0 } => 5),
       'all: no entries');
    are_cached(\@asks, 'MISS', 'all: stored anew');
    are_cached(\@asks, 'HIT', 'all: there anew');
    is_purged(purge(' { "purge" : "all" } '), 6, 'all, again');
    is_purged(purge('{"purge":"all"}'), 0, 'all, nothing there');
}


# --- by scope

{
    my @ask = map { ['chat', say => $_] } questions(2);
    my @a = map { [@$_, key => 'sk-tenant-a'] } @ask;
    my @b = map { [@$_, key => 'sk-tenant-b'] } @ask;
    my @one = map { [@$_, prefix => '/tenant', headers =>
                     ['x-tenant' => 'team one']] } @ask;
    my @two = map { [@$_, prefix => '/tenant', headers =>
                     ['x-tenant' => 'team two']] } @ask;
    my @all = map { [@$_, prefix => '/global'] } @ask;

    are_cached($_, 'MISS', 'scopes') for \@a, \@b, \@one, \@two, \@all;
    are_cached($_, 'HIT', 'scopes') for \@a, \@b, \@one, \@two, \@all;

    is_purged(purge('{"scope":"nobody"}'), 0, 'an unknown scope');
    are_cached($_, 'HIT', 'an unknown scope')
        for \@a, \@b, \@one, \@two, \@all;

    is_purged(purge('{"scope":"team one"}'), 2, 'scope team one');
    are_gone(\@one, 'team one');
    are_cached($_, 'HIT', 'the others') for \@two, \@a;

    is_purged(purge('{"scope":"value team two"}'), 2, 'scope value team two');
    are_gone(\@two, 'team two');

    my $id = 'sha256:' . sha256_hex('sk-tenant-a');
    is_purged(purge(json_encode({ scope => $id })), 2, 'scope of a key');
    are_gone(\@a, 'tenant a');
    are_cached(\@b, 'HIT', 'tenant b');

    my @odd = (['chat', say => Caching::question(), prefix => '/tenant',
                headers => ['x-tenant' => "\"t\\ \xc3\xbc/"]]);
    are_cached(\@odd, $_, 'an odd name') for qw(MISS HIT);
    is_purged(purge('{"scope":"\"t\\\\ \u00fc\/"}'), 1, 'an odd name');
    are_gone(\@odd, 'an odd name');

    is_purged(purge('{"scope":"global"}'), 2, 'scope global');
    are_gone(\@all, 'global');
    are_cached(\@b, 'HIT', 'tenant b still');

    are_cached(\@one, 'MISS', 'team one anew');
    are_cached(\@one, 'HIT', 'team one, there anew');
    purge('{"purge":"all"}');
}


# --- by model: as asked by the client, or of the provider

{
    my @four = map { ['chat', say => $_, model => 'gpt-4'] } questions(2);
    my @mini = map { ['chat', say => $_, model => 'gpt-4-mini'] } questions(2);
    my @named = map { ['chat', say => $_, model => 'alias',
                       prefix => '/named'] } questions(2);

    are_cached($_, 'MISS', 'models') for \@four, \@mini, \@named;
    are_cached($_, 'HIT', 'models') for \@four, \@mini, \@named;

    is_purged(purge('{"model":"gpt-4"}'), 2, 'model gpt-4');
    are_gone(\@four, 'model gpt-4');
    are_cached($_, 'HIT', 'other models') for \@mini, \@named;

    is_purged(purge('{"model":"gpt-named"}'), 2, 'the provider\'s name');
    are_gone(\@named, 'the provider\'s name');
    are_cached(\@named, 'MISS', 'an alias, anew');
    are_cached(\@named, 'HIT', 'an alias, there anew');
    is_purged(purge('{"model":"alias"}'), 2, 'the client\'s name');
    are_gone(\@named, 'the client\'s name');
    are_cached(\@mini, 'HIT', 'the third model');
    purge('{"purge":"all"}');
}


# --- by id

{
    my @asks = map { ['chat', say => $_] } questions(3);
    are_cached(\@asks, 'MISS', 'ids');

    my @id = map { my ($kind, %o) = @$_;
                   $c->try($kind, %o)->{r}->header('x-llm-cache-key') } @asks;

    is_purged(purge(json_encode({ id => $id[1] })), 1, 'an id');
    are_gone([$asks[1]], 'the id');
    are_cached([@asks[0, 2]], 'HIT', 'other ids');
    is_purged(purge(json_encode({ id => '0' x length $id[1] })), 0,
              'an unknown id');
    is(purge('{"id":"no id"}')->status, 400, 'not an id');

    # both forms of one question go by either id

    for my $n (0, 1) {
        my %ask = (say => Caching::question());
        my %how = (mock => { unknown => 1, events => 4 });
        my @x = map { $c->try('messages', %ask, %how, stream => $_) }
                1, 0, 1, 0;
        is(join(' ', map { $_->{calls} } @x), '1 1 0 0',
           'two forms, stored beside') or next;
        my $id = $x[2 + $n]{r}->header('x-llm-cache-key');
        is(purge(json_encode({ id => $id }))->status, 200, "by id $n");
        are_gone([['messages', %ask, stream => $_]], "by id $n, form $_")
            for 0, 1;
    }
    is(purge('{"id":"../../x"}')->status, 400, 'not at all an id');
}


# --- a purge also hits what was begun before it

{
    my %ask = (say => Caching::question());
    my $client = h1($t->port);
    my $had = $c->calls;

    start_ask($client, 'chat', $c->options('chat', %ask),
              mock => { delay => 400 });
    ok(wait_for(sub { $c->calls > $had }), 'a call is in the air');
    is(purge('{"purge":"all"}')->status, 200, 'purged meanwhile');
    is($client->read_response->status, 200, 'it is answered');
    is_cache($c->try('chat', %ask), 'MISS', 'and was not stored');
    $client->close;
}


# --- after a reload and by a new worker

{
    my @asks = map { ['chat', say => $_] } questions(2);

    are_cached(\@asks, 'MISS', 'reload');
    is(purge('{"purge":"all"}')->status, 200, 'purged');

    SKIP: {
        skip('needs a master process', 1) if $t->valgrind;
        ok($t->reload, 'reload');
    }

    are_gone(\@asks, 'after a reload');
    are_cached(\@asks, 'MISS', 'after a reload: stored');
    are_cached(\@asks, 'HIT', 'after a reload: there');
}


# --- how it is asked

{
    my @asks = map { ['chat', say => $_] } questions(1);
    are_cached(\@asks, 'MISS', 'refusals');

    my $post = sub {
        my ($type, $body, @headers) = @_;
        return http_post($t->port, '/llm', $body, headers =>
            [(defined $type ? ('content-type' => $type) : ()), @headers]);
    };

    my $all = '{"purge":"all"}';

    is($post->('text/plain', $all)->status, 415, 'text/plain');
    is($post->('application/x-www-form-urlencoded', $all)->status, 415,
       'a form');
    is($post->('application/jsonx', $all)->status, 415, 'almost JSON');
    is($post->(undef, $all)->status, 415, 'no type');

    for my $body ('', '{', 'null', '[]', '"all"', '{}', '{"purge":"some"}',
                  '{"purge":true}', '{"scope":1}', '{"model":null}',
                  '{"unknown":"x"}', '{"purge":"all","scope":"x"}',
                  '{"purge":"all"} x', '{"id":["x"]}', '{"scope":""}')
    {
        is($post->('application/json', $body)->status, 400,
           "400 for '$body'");
    }

    is($post->('application/json', '{"scope":"' . 'x' x 200000 . '"}')->status
       =~ /^(?:400|413)$/ ? 'refused' : 'taken', 'refused', 'too large');

    for my $origin ('https://evil.test', 'null', 'http://localhost:1',
                    'http://localhost.evil.test')
    {
        is($post->('application/json', $all, origin => $origin)->status, 403,
           "a foreign Origin: $origin");
    }

    is($post->('application/json', $all, 'sec-fetch-site' => 'cross-site',
               origin => 'https://evil.test')->status, 403,
       'from another site');

    for my $method (qw(PUT DELETE PATCH)) {
        my $r = http($method, $t->port, '/llm', body => $all, headers =>
                     ['content-type' => 'application/json']);
        is($r->status, 405, "$method");
        like($r->header('allow') // '', qr/GET/, "$method: Allow");
    }

    for my $at ('/off', '/read') {
        my $r = purge($all, at => $at);
        is($r->status, 405, "$at: purging is off");
        unlike($r->header('allow') // '', qr/POST/, "$at: Allow");
    }

    is(purge($all, at => '/closed')->status, 403, 'access rules: denied');
    is(http_get($t->port, '/closed')->status, 403,
       'access rules: reading, too');

    # who is not at loopback

    my @far = ('x-real-ip' => '192.0.2.7');

    is(purge($all, at => '/behind', headers => \@far)->status, 403,
       'from elsewhere');
    is(http_get($t->port, '/behind', headers => [@far])->status, 403,
       'from elsewhere, reading');
    is(http_get($t->port, '/behind')->status, 200, 'from loopback');

    are_cached(\@asks, 'HIT', 'nothing was purged by all that');

    is(http_get($t->port, '/open', headers => [@far])->status, 200,
       'access rules: from elsewhere');
    is(http_get($t->port, '/open', headers => ['x-real-ip' => '198.51.100.1'])
       ->status, 403, 'access rules: from somewhere else');
    is_purged(purge($all, at => '/open', headers => \@far), undef,
              'access rules: purged from elsewhere');
    are_gone(\@asks, 'purged from elsewhere');

    # all that is fine

    is_purged($post->('application/json; charset=utf-8', $all), undef,
              'with a charset');
    is_purged($post->('Application/JSON', $all), undef, 'other letters');
    my $own = 'http://localhost';
    is_purged($post->('application/json', $all, origin => $own), undef,
              'its own Origin');

    my $h2 = h2($t->port('h2'));
    my $r = $h2->request('POST', '/llm', body => $all, headers =>
                         ['content-type' => 'application/json']);
    is($r->status, 200, 'HTTP/2');
    is(ref $r->json, 'HASH', 'HTTP/2: JSON');

    $r = http('POST', $t->port, '/llm', body => $all, chunked => 3,
              headers => ['content-type' => 'application/json']);
    is_purged($r, undef, 'in chunks');

    my $client = h1($t->port);
    $client->send_request('POST', '/llm', body => $all, piece => 4,
        delay => 0.01, headers => ['content-type' => 'application/json']);
    is_purged($client->read_response, undef, 'slowly');
    $client->close;
}

no_alerts($t);
done_testing();
