#!/usr/bin/perl

# What a review of the cache has found: stale answers out of a back-off, whose
# rules open the status location and who may purge, answers that are none,
# requests that take long to put in order, secrets in the file.  (The file
# itself: cache_review_file.t.)

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();
skip_under_valgrind('measures time');

my $RETRY = 'attempts=3 backoff=1500ms..1500ms budget=1000%';
my $REALIP = 'set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;';
my $ALL = '{"purge":"all"}';

my $c = Caching->new(
    workers => 2,
    cache => 'on ttl=1s stale=1h',
    http => <<'EOT2',
    deny 203.0.113.9;
    llm_adapter_provider frail {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        breaker failures=3 window=30s open=30s;
    }
    llm_adapter_provider theirs {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key client;
        breaker off;
    }
EOT2
    server => "$REALIP location = /own { allow 198.51.100.0/24; deny all;"
              . ' llm_adapter_status purge=on; }',
    servers => <<"EOT2",
    server {
        listen 127.0.0.1:%%PORT_allow%%;
        $REALIP
        allow all;
        location = /llm { llm_adapter_status purge=on; }
        location / { location = /llm2 { llm_adapter_status purge=on; } }
    }
EOT2
    locations => {
        '/slow/v1/' => "llm_adapter frail; llm_adapter_retry $RETRY;",
        '/once/v1/' => 'llm_adapter frail;',
        '/long/v1/' => 'llm_adapter_cache on;',
        '/theirs/v1/' => 'llm_adapter theirs; llm_adapter_cache on;',
        '/team/v1/' => 'llm_adapter_cache on scope=$http_x_team;',
    });
my ($t, $mock) = @$c{qw(t mock)};


sub purge {
    my ($body, %o) = @_;
    return http_post($t->port($o{port}), $o{at} // '/llm', $body, %o,
                     port => $t->port($o{port}),
                     headers => ['content-type' => 'application/json',
                                 @{ $o{headers} // [] }]);
}


# --- stale: made first, so that one wait is enough for their time

my %plain = (say => Caching::question(), prefix => '/slow');
my %stream = (say => Caching::question(), prefix => '/slow', stream => 1);
my %failing = (say => Caching::question());
my @faults = map { { say => Caching::question(), stream => 1 } } 1 .. 3;
is_cache($c->try('chat', %$_), 'MISS', 'to be stale')
    for \%plain, \%stream, \%failing, @faults;
nap(2.1);


# a breaker opens during a back-off

{
    my $had = $c->calls;
    my @waiting = map { [$_, h1($t->port, timeout => 20)] } \%plain, \%stream;

    for my $one (@waiting) {
        my ($ask, $client) = @$one;
        my $form = $ask->{stream} ? 'stream' : 'plain';
        push @$one, $form;
        start_ask($client, 'chat', $c->options('chat', %$ask),
                  test => "backoff $form", mock => { status => 500 });
    }

    ok(wait_for(sub { $c->calls == $had + 2 }, 5), 'back-off: both asked');

    my %other = (say => Caching::question(), prefix => '/once');
    my $x = $c->try('chat', %other, mock => { status => 500 });
    is($x->{r}->status, 500, 'back-off: a third failure');

    for my $one (@waiting) {
        my ($ask, $client, $form) = @$one;
        my $y = { r => $client->read_response, kind => 'chat', c => $c,
                  stream => $ask->{stream}, test => "backoff $form" };
        is_cache($y, 'STALE', "back-off, $form");
        is_form($y, "back-off, $form");
        is(Caching->logged($y)->{error}, 'breaker_open',
           "back-off, $form: why");
        $client->close;
    }

    is($c->calls, $had + 3, 'back-off: nobody was asked after it');


    # open at once

    $x = $c->try('chat', %plain);
    is_cache($x, 'STALE', 'breaker open', calls => 0);
    is(Caching->logged($x)->{error}, 'breaker_open', 'breaker open: why');

    $x = $c->try('chat', %failing, mock => { status => 500 });
    is_cache($x, 'STALE', 'a 500', calls => 1);
    is(Caching->logged($x)->{error}, 'upstream_500', 'a 500: why');

    for my $fault (qw(reset bad_head error_first)) {
        $x = $c->try('chat', %{ shift @faults }, mock => { fault => $fault });
        is_cache($x, 'STALE', $fault, any_calls => 1);
        isnt(Caching->logged($x)->{error}, '', "$fault: why");
    }

    for my $stream (0, 1) {
        $x = $c->try('chat', prefix => '/once', say => Caching::question(),
                     stream => $stream);
        is_error($x->{r}, 'chat', 503, 'nobody answered');
        is_cache($x, 'MISS', 'nobody answered', status => 503, calls => 0,
                 reason => 'failed');
        is($x->{r}->header('x-llm-cache-key'), undef,
           'nobody answered: no entry has a key');
    }
}


# --- the status location: whose rules open it

for my $case (['http\'s deny', undef, '/llm'],
              ['server\'s allow', 'allow', '/llm'],
              ['server\'s allow, nested', 'allow', '/llm2'])
{
    my ($name, $port, $at) = @$case;
    my @far = (headers => ['x-real-ip' => '198.51.100.7']);

    is(http_get($t->port($port), $at, @far)->status, 403, "$name: reading");
    is(purge($ALL, port => $port, at => $at, @far)->status, 403,
       "$name: purging");
    is(http_get($t->port($port), $at)->status, 200, "$name: from here");
}

{
    my %at = (at => '/own', headers => ['x-real-ip' => '198.51.100.7']);
    is(purge($ALL, %at)->status, 200, 'its own rules: let in');
    is(http_get($t->port, '/own')->status, 403, 'its own rules: kept out');
}


# --- purging: of which site

for my $case (
    ['evil.example', 'evil.example', 403],
    ['evil.example:81', 'evil.example:81', 403],
    ['localhost.evil.example', 'localhost.evil.example', 403],
    ['localhostess', 'localhostess', 403],
    ['127.0.0.1.evil.example', '127.0.0.1.evil.example', 403],
    ['127.0.0.1', 'evil.example', 403],
    ['localhost', 'localhost', 200], ['LocalHost:8080', 'localhost:8080', 200],
    ['127.0.0.1:80', '127.0.0.1:80', 200], ['[::1]:80', '[::1]:80', 200],
) {
    my ($host, $origin, $status) = @$case;
    my $r = purge($ALL, host => $host, headers =>
                  ['sec-fetch-site' => 'same-origin',
                   origin => "http://$origin"]);
    is($r->status, $status, "Host $host, Origin $origin");
}

is(purge($ALL, host => 'status.example', at => '/own', headers =>
         [origin => 'https://status.example', 'x-real-ip' => '198.51.100.7'])
   ->status, 200, 'a name, where access rules say who may');


# --- purging: how much it reads

{
    my $scope = sub { '{"scope":"' . 'x' x ($_[0] - 12) . '"}' };

    for my $how ([], [chunked => 1000], [chunked => 100_000]) {
        my $name = @$how ? "in chunks of $how->[1]" : 'with its length';
        is(purge($scope->(65_537), @$how)->status, 413, "64k and 1, $name");
        is(purge($scope->(900_000), @$how)->status, 413, "900k, $name");
        is(purge($scope->(65_536), @$how)->status, 200, "64k, $name");
    }
}


# --- a 200 that is something else

my %NONE = (
    embeddings => ['{}', '{"detail":"queued, come back later"}',
        '{"object":"list","data":[]}', '{"object":"list","data":null}',
        '{"data":{}}', '{"data":[1]}', '{"data":[{}]}',
        '{"data":[{"index":0}]}', '{"data":[{"embedding":null}]}',
        '{"data":[{"embedding":[]}]}', '{"data":[{"embedding":""}]}',
        '{"data":[{"embedding":[1]},{"index":1}]}'],
    count => ['{}', '{"detail":"queued, come back later"}',
        '{"input_tokens":null}', '{"input_tokens":"5"}',
        '{"x":{"input_tokens":5}}'],
);
my %SOME = (
    embeddings => ['{"data":[{"embedding":[1]}]}',
        '{"data":[{"embedding":"AACAPw=="},{"embedding":[0.5,1]}]}'],
    count => ['{"input_tokens":5}', '{ "input_tokens" : 0 }'],
);

for my $kind (sort keys %NONE) {
    for my $body (@{ $NONE{$kind} }) {
        my %ask = (say => Caching::question(), prefix => '/long');
        my $x = $c->try($kind, %ask, mock => { body => $body });
        is_cache($x, 'MISS', "$kind, $body", reason => 'unfinished',
                 late => 1);
        is($x->{r}->body, $body, "$kind, $body: passed on");
        is_cache($c->try($kind, %ask), 'MISS', "$kind, $body: not stored");
        is_cache($c->try($kind, %ask), 'HIT', "$kind, a good one is");
    }

    for my $body (@{ $SOME{$kind} }) {
        my %ask = (say => Caching::question(), prefix => '/long');
        is_cache($c->try($kind, %ask, mock => { body => $body }), 'MISS',
                 "$kind, $body");
        my $x = $c->try($kind, %ask);
        is_cache($x, 'HIT', "$kind, $body: stored");
        is($x->{r}->body, $body, "$kind, $body: the same bytes");
    }
}


# --- a stream without usage is no plain answer

for my $kind (qw(chat completions)) {
    my %ask = (say => Caching::question(), prefix => '/long');
    my %stream = (%ask, stream => 1,
                  more => '"stream_options":{"include_usage":true}');

    is_cache($c->try($kind, %stream, mock => { usage => 'off' }), 'MISS',
             "$kind, no usage");
    is_cache($c->try($kind, %stream), 'HIT', "$kind, no usage: as a stream");

    my $x = $c->try($kind, %ask);
    is_cache($x, 'MISS', "$kind, no usage: not as a plain one");
    is(ref $x->{r}->json->{usage}, 'HASH', "$kind: asked for, with usage");
    is_cache($c->try($kind, %ask), 'HIT', "$kind: the plain one is stored");
    is_same_content($x, $c->try($kind, %ask), "$kind: the plain one");
}


# --- what takes long to put in order

# ($n members, from the last to the first)

sub members {
    my ($n) = @_;
    return '"x":{' . join(',', map { sprintf '"m%06d":1', $n - $_ } 1 .. $n)
           . '}';
}

{
    my @cases = (['70,000 members', members(70_000)],
                 ['70,000 objects',
                  '"x":[' . join(',', ('{"b":1,"a":2}') x 70_000) . ']'],
                 ['4 MB', '"x":"' . 'y' x (4 * 1024 * 1024) . '"']);

    for my $case (@cases) {
        my ($name, $more) = @$case;
        my %ask = (say => Caching::question(), more => $more,
                   prefix => '/long');

        for my $stream (0, 1, 1) {
            my $x = $c->try('chat', %ask, stream => $stream);
            is_cache($x, 'BYPASS', $name, reason => 'too-large');
            is($x->{r}->header('x-llm-cache-key'), undef, "$name: no key");
            is_whole($x->{r}, 'chat', "$name: answered") if $stream;
            is_form($x, "$name: answered") if !$stream;
        }
    }

    @cases = (['60,000 members', members(60_000)],
              ['3.9 MB', '"x":"' . 'y' x 3_900_000 . '"']);

    for my $case (@cases) {
        my ($name, $more) = @$case;
        my %ask = (say => Caching::question(), more => $more,
                   prefix => '/long');
        is_cache($c->try('chat', %ask), $_, $name) for qw(MISS HIT);
    }
}


# --- secrets: none is in the file

sub data { return slurp($t->path('cache/data.mdb')) }

{
    my %ask = (say => Caching::question(), prefix => '/team');
    my @team = map { [headers => ['x-team' => "team-SECRET-$_"]] } 1, 2;

    for my $state (qw(MISS HIT)) {
        is_cache($c->try('chat', %ask, @$_), $state, 'teams') for @team;
    }

    cmp_ok(index(data(), $ask{say}), '>=', 0, 'the file has the question');
    unlike(data(), qr/team-SECRET/, 'a scope\'s value is not in the file');

    my $r = purge('{"scope":"team-SECRET-1"}');
    is($r->json->{matched}, 1, 'purged by its text');
    nap(0.002);
    is_cache($c->try('chat', %ask, @{ $team[0] }), 'MISS', 'team 1: gone');
    is_cache($c->try('chat', %ask, @{ $team[1] }), 'HIT', 'team 2: there');
    $r = purge('{"scope":"value team-SECRET-2"}');
    is($r->json->{matched}, 1, 'purged by its text in full');
}

for my $arg ('key', '%6bey', 'k%65y', 'ke%79', '%4BEY', '%6b%65%79', 'KEY') {
    my %ask = (say => Caching::question(), prefix => '/long', key => undef);
    my @query = map { "a=1&$arg=sk-SECRET-$_&b=2" } 1, 2;

    my $x = $c->try('chat', %ask, query => $query[0]);
    is_cache($x, 'MISS', "?$arg=");
    my $head = $mock->last;
    like($head, qr{^POST \S*/chat/completions\?a=1&b=2 }, "?$arg=: left out");
    unlike($head, qr/SECRET/, "?$arg=: not sent on");

    is_cache($c->try('chat', %ask, query => $query[0]), 'HIT',
             "?$arg=, again");
    is_cache($c->try('chat', %ask, query => $query[1]), 'MISS',
             "?$arg=, another one");
}

for my $arg (qw(api_key api-key access_token %61pi_key keys)) {
    my %ask = (say => Caching::question(), prefix => '/long');
    is_cache($c->try('chat', %ask, query => "$arg=sk-SECRET-3"), $_,
             "?$arg=") for qw(MISS HIT);
    is_cache($c->try('chat', %ask, query => "$arg=sk-SECRET-4"), 'MISS',
             "?$arg=, another one");
}

unlike(data(), qr/SECRET/, 'no argument\'s value is in the file');


# --- a scope that is not known in time

for my $scope ('$llm_model', '${llm_model}', 'x$llm_requested_model',
               '$http_x_team$llm_stream')
{
    my ($ok, $text) = check_conf(gateway_conf(
        $c->conf_options(cache => "on scope=$scope")),
        vars => { MOCK => $mock->port });
    ok(!$ok, "scope=$scope is refused");
    like($text, qr/\[emerg\].*invalid scope/, "scope=$scope: why");
}


# --- whose account it is, where the client's own key is sent on

{
    my ($org, $project) = qw(openai-organization openai-project);
    my @accounts = ([], [$org => 'a'], [$org => 'b'], [$project => 'a'],
                    [$project => 'b'], [$org => 'a', $project => 'b'],
                    [$org => 'b', $project => 'a'],
                    [$org => 'SECRET', $project => 'SECRET']);
    my %ask = (say => Caching::question(), prefix => '/theirs');
    my %ours = (say => Caching::question(), prefix => '/long');

    for my $state (qw(MISS HIT)) {
        for my $headers (@accounts) {
            is_cache($c->try('chat', %ask, headers => $headers), $state,
                     join ' ', 'an account of theirs:', @$headers);
        }
    }

    is_cache($c->try('chat', %ours, headers => [$org => 'a']), 'MISS',
             'our account');
    is_cache($c->try('chat', %ours, headers => [$org => 'b']), 'HIT',
             'our account, whatever they say');
    unlike(data(), qr/SECRET/, 'no account is in the file');
}

for my $case (['on scope=global', 'client', 1],
              ['on scope=$http_x_team', 'client', 1],
              ['on', 'client', 0], ['on scope=user', 'client', 0],
              ['off', 'client', 0], ['on scope=global', 'none', 0])
{
    my ($cache, $key, $warned) = @$case;
    my ($ok, $text) = check_conf(gateway_conf(
        $c->conf_options(cache => $cache, provider => "key $key;")),
        vars => { MOCK => $mock->port });
    my $warning = qr/\[warn\].*scope of "llm_adapter_cache"/;

    ok($ok, "cache $cache, key $key: fine") or diag($text);
    is($text =~ $warning ? 1 : 0, $warned,
       "cache $cache, key $key: " . ($warned ? 'warned' : 'no warning'));
}

no_alerts($t);
done_testing();
