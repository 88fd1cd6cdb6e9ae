#!/usr/bin/perl

# Several targets: who is the first, by weight, speed, price or conversation;
# who serves what refers to state; what the next ones are asked; and names of
# models that nobody serves.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time, needs two workers');

my $g = Targets->new(
    names => [qw(a b c)],
    connections => 4096,
    locations => {
        '/direct/v1/' => 'llm_adapter on direct;',
        '/fixed/v1/' => 'llm_adapter a:m-a xa:m-a b:m-b xb:m-b;',
    },
    http => Targets::provider('max', 'A', <<'EOT')
breaker off;
        model small max_output=100;
EOT
        . Targets::provider('max2', 'B', <<'EOT')
breaker off;
        model small max_output=100;
EOT
        . Targets::provider('kept', 'B', 'breaker failures=2 window=30s '
                            . 'open=1s; timeout first_token=300ms '
                            . 'plain=300ms;')
        . Targets::provider('team', 'B', 'breaker off; account team;')
        . Targets::provider('team2', 'C', 'breaker off; account team;')
        . Targets::provider('broken', 'C', 'breaker failures=2 window=30s '
                            . 'open=60s;')
        . Targets::provider('dear', 'A', <<'EOT')
breaker off;
        model m-a input=2.50 output=10;
EOT
        . Targets::provider('cheap', 'B', <<'EOT')
breaker off;
        model m-b input=0.15 output=0.60;
EOT
        . <<'EOT');
    llm_adapter_model w31 a:m-a b:m-b weights=3,1;
    llm_adapter_model w62 a:m-a b:m-b weights=6,2 balance=weight;
    llm_adapter_model w11 a:m-a b:m-b balance=weight;
    llm_adapter_model w-both a:m-a xa:m-a b:m-b xb:m-b weights=3,3,1,1;
    llm_adapter_model w-broken broken:m-a b:m-b weights=3,1;
    llm_adapter_model order a:m-a b:m-b balance=order;
    llm_adapter_model fast0 a:p-a b:p-b balance=latency;
    llm_adapter_model fast1 a:s-a b:s-b balance=latency;
    llm_adapter_model fast2 a:f-a b:f-b balance=latency;
    llm_adapter_model cost c:m-c dear:m-a xdear:m-a cheap:m-b xcheap:m-b
                      xc:m-c balance=cost;
    llm_adapter_model hash3 a:m-a b:m-b c:m-c xa:m-a xb:m-b xc:m-c
                      balance=hash;
    llm_adapter_model hash2 a:m-a b:m-b xa:m-a xb:m-b balance=hash;

    llm_adapter_model pin a:m-a b:m-b xa:m-a xb:m-b;
    llm_adapter_model pin-w a:m-a b:m-b weights=1,1;
    llm_adapter_model pin-kept a:m-a kept:m-b;
    llm_adapter_model pin-team a:m-a team:m-b team2:m-c;

    llm_adapter_model max max:small xmax:small;
    llm_adapter_model a-max a:m-a max2:small xa:m-a xmax2:small;
    llm_adapter_model b/exact a:m-a;
EOT

my $t = $g->{t};


# Who answered n requests: { NAME => times }, streamed and plain in turn.

sub who {
    my ($n, $kind, %o) = @_;
    my %n;

    for my $i (1 .. $n) {
        my $r = ask(h1($g->port), $kind, stream => $i % 2, %o, close => 1);
        $n{ $r->header('x-llm-provider') // $r->status }++;
    }

    return \%n;
}


# --- the order, and weights: exact, whichever worker

$g->set;
is_deeply(who(10, 'chat', model => 'order'), { a => 10 }, 'order: the first');
is_deeply(who(40, 'chat', model => 'w31'), { a => 30, b => 10 },
          'weights 3 and 1');
is_deeply(who(16, 'chat', model => 'w62'), { a => 12, b => 4 },
          'weights 6 and 2');
is_deeply(who(20, 'chat', model => 'w11'), { a => 10, b => 10 },
          'balance=weight without weights');

for my $kind (qw(chat messages)) {
    my $x = $kind eq 'messages' ? 'x' : '';
    is_deeply(who(16, $kind, model => 'w-both'), { "${x}a" => 12, "${x}b" => 4 },
              "weights of targets of two dialects, $kind");
}

$g->set(a => { status => 500 });
is_deeply(who(8, 'chat', model => 'w31'), { b => 8 },
          'weights: the others serve for one that fails');

$g->set(c => { status => 401 });
is_deeply(who(8, 'chat', model => 'w-broken'), { b => 8 },
          'weights: the others serve for one whose breaker is open');
is($g->calls, '0 8 1', 'weights: it is asked once');


# --- the faster one

for my $stream (0, 1) {
    my $model = "fast$stream";
    my $name = 'latency, ' . ($stream ? 'stream' : 'plain');

    $g->set(a => $stream ? { first => 120 } : { delay => 120 }, b => {});
    my $n = who(20, 'chat', model => $model, stream => $stream);
    cmp_ok($n->{b} // 0, '>=', 15, "$name: the faster one")
        or diag(explain($n));
    cmp_ok($n->{a} // 0, '>=', 1, "$name: both were tried");
}

$g->set(a => { first => 50 }, b => { status => 500 });

{
    my $n = who(20, 'chat', model => 'fast2', stream => 1);
    is_deeply($n, { a => 20 }, 'latency: all are served');
    cmp_ok($g->{b}->stats->{requests}, '<=', 5,
           'latency: one that fails fast is not fast');
}


# --- the cheaper one

for my $case (['chat', 0], ['chat', 1], ['messages', 1]) {
    my ($kind, $stream) = @$case;
    my $x = $kind eq 'messages' ? 'x' : '';
    my @ask = ($kind, model => 'cost', stream => $stream);

    $g->set;
    is_outcome($g->try(@ask), { provider => "${x}cheap", attempts => 1 },
               "cost, $kind $stream: the cheapest");
    $g->set(b => { status => 400 });
    is_outcome($g->try(@ask), { status => 400, calls => '0 1 0' },
               "cost, $kind $stream: it is asked first");
    $g->set(b => { status => 500 });
    is_outcome($g->try(@ask), { provider => "${x}dear", calls => '1 1 0',
                                attempts => 2 },
               "cost, $kind $stream: then the next");
    $g->set(b => { status => 500 }, a => { status => 500 });
    is_outcome($g->try(@ask), { provider => "${x}c", calls => '1 1 1',
                                attempts => 3 },
               "cost, $kind $stream: whose price is not known is the last");
}


# --- a conversation stays where it is

sub turns {
    my ($kind, $n, $turns) = @_;

    my @said = (qq({"role":"user","content":"conversation $n"}));

    push @said, qq({"role":"assistant","content":"answer $_"}),
                qq({"role":"user","content":"question $_"}) for 2 .. $turns;

    my $said = '[' . join(',', @said) . ']';

    return $kind eq 'responses' ? qq("input":$said,"store":false)
           : $kind eq 'messages' ? qq("max_tokens":100,"messages":$said)
           : qq("messages":$said);
}

$g->set;

for my $kind (qw(chat messages responses)) {
    my (%who, %spread, @moved);

    for my $n (1 .. 24) {
        for my $turns (1, 2, 5) {
            for my $model ('hash3', 'hash2') {
                my $text = turns($kind, $n, $turns);
                my $stream = $turns == 2 ? ',"stream":true' : '';
                my $r = ask(h1($g->port), $kind, close => 1,
                            body => qq({"model":"$model",$text$stream}));
                my $name = $r->header('x-llm-provider') // $r->status;
                my $was = $who{"$model $n"} //= $name;
                push @moved, "$model $n: $was, $name" if $was ne $name;
            }
        }

        my ($three, $two) = ($who{"hash3 $n"}, $who{"hash2 $n"});
        $spread{$three}++;
        push @moved, "$n: $three, without c $two"
            if $three !~ /c$/ && $three ne $two;
    }

    is_deeply(\@moved, [], "hash, $kind: stable");
    is(scalar(keys %spread), 3, "hash, $kind: spread") or diag(explain \%spread);
    cmp_ok($_, '>=', 2, "hash, $kind: $_ of 24") for values %spread;
}

{
    # while its provider fails, the conversation is elsewhere

    my $first;

    for my $fails (undef, 1, undef) {
        $g->set($fails ? (substr($first, -1) => { status => 500 }) : ());
        my $x = $g->try('chat', body => '{"model":"hash3",'
                                        . turns('chat', 7, 3) . '}');
        $first //= $x->{r}->header('x-llm-provider');
        my $now = $x->{r}->header('x-llm-provider');
        ok($fails ? $now ne $first : $now eq $first,
           'hash: ' . ($fails ? 'elsewhere while it fails' : 'at home'));
    }
}


# --- what refers to state goes to its maker

sub response_body {
    my ($model, $previous, $stream) = @_;
    return qq({"model":"$model","input":"and then?",)
           . ($stream ? '"stream":true,' : '')
           . ($previous ? qq("previous_response_id":"$previous",) : '')
           . '"store":true}';
}

sub id_of {
    my ($x) = @_;
    return $1 if $x->{r}->body =~ /"id": ?"(resp_[^"]+)"/;
    return '';
}

# made by the second: the first has failed that time

sub made_by_second {
    my ($model, $stream) = @_;

    $g->set(a => { status => 503, limits => 'off' });
    my $x = $g->try('responses', stream => $stream,
                    body => response_body($model, undef, $stream));
    is_outcome($x, { model => 'm-b' }, "$model: made by the second");
    my $id = id_of($x);
    isnt($id, '', "$model: its id");
    $g->set;
    return $id;
}

for my $stream (0, 1) {
    my $name = $stream ? 'pinned, stream' : 'pinned, plain';
    my $id = made_by_second('pin', $stream);

    for my $time (1 .. 4) {
        my $x = $g->try('responses', stream => $stream,
                        body => response_body('pin', $id, $stream));
        is_outcome($x, { provider => 'b', attempts => 1,
                         calls => "0 $time 0" }, "$name: at its maker");
        $id = id_of($x) if $time == 2;      # the next of a chain
    }

    is_outcome($g->try('responses', body => response_body('pin')),
               { provider => 'a', attempts => 1 },
               "$name: others as written");

    # its maker is in trouble: asked again, but nobody else

    $g->set(b => { status => 500, fails => 1 });
    is_outcome($g->try('responses', stream => $stream,
                       body => response_body('pin', $id, $stream)),
               { provider => 'b', attempts => 2, calls => '0 2 0' },
               "$name: again at its maker");

    for my $how ({ fault => 'reset' }, { fault => 'close' }) {
        $g->set(b => $how);
        my $x = $g->try('responses', stream => $stream,
                        body => response_body('pin', $id, $stream));
        is_outcome($x, { status => 503, code => 'pinned_unavailable',
                         log_error => 'pinned_unavailable' },
                   "$name: unreachable");
        is($g->{a}->stats->{requests}, 0, "$name: nobody else is asked");
    }

    # what was made before our time, or elsewhere

    $g->set;
    is_outcome($g->try('responses', stream => $stream,
                       body => response_body('pin-w', "resp_unknown$_",
                                             $stream)),
               { provider => 'a', attempts => 1 },
               "$name: an unknown id is for the first")
        for 1 .. 3;

    $g->set(a => { status => 404 });
    $g->try('responses', stream => $stream,
            body => response_body('pin', 'resp_nobodys', $stream));
    is($g->{b}->stats->{requests}, 0, "$name: and for nobody else");
}

{
    # over a reload, and with the maker's breaker open

    my $id = made_by_second('pin-kept', 0);
    $t->reload;
    is_outcome($g->try('responses', body => response_body('pin-kept', $id)),
               { provider => 'kept', attempts => 1, calls => '0 1 0' },
               'pinned: after a reload');

    $g->set(b => { status => 500 });
    $g->try('responses', body => response_body('pin-kept', $id)) for 1 .. 2;
    $g->set;
    my $x = $g->try('responses', body => response_body('pin-kept', $id));
    is_outcome($x, { status => 503, code => 'pinned_unavailable',
                     log_attempts => 0, calls => '0 0 0', after => 1 },
               'pinned: its breaker is open');
    nap(1.1);
    is_outcome($g->try('responses', body => response_body('pin-kept', $id)),
               { provider => 'kept' }, 'pinned: and is not for ever');
}

{
    # of one account: either knows it

    my $id = made_by_second('pin-team', 0);
    $g->set(b => { status => 500 });
    is_outcome($g->try('responses', body => response_body('pin-team', $id)),
               { provider => 'team2', model => 'm-c', calls => '0 2 1' },
               'pinned: another one of the account');
}

{
    # the signature of thinking can be verified by its maker alone

    $g->set(a => { status => 503, limits => 'off' }, b => { thinking => 3 });
    my $x = $g->try('messages', model => 'pin');
    is_outcome($x, { provider => 'xb' }, 'signature: made by the second');
    my ($thinking) = grep { $_->{type} eq 'thinking' }
                     @{ $x->{r}->json->{content} };
    ok($thinking->{signature}, 'signature: there is one');

    my $content = json_encode([$thinking,
                               { type => 'text', text => 'so' }]);
    my $body = '{"model":"pin","max_tokens":1000,"messages":['
               . '{"role":"user","content":"Say hello"},'
               . qq({"role":"assistant","content":$content},)
               . '{"role":"user","content":"go on"}]}';
    $g->set;
    is_outcome($g->try('messages', body => $body),
               { provider => 'xb', attempts => 1, calls => '0 1 0' },
               "signature: the next turn is its maker's");
    $body =~ s/"signature":"[^"]+"/"signature":"unknown"/;
    is_outcome($g->try('messages', body => $body), { provider => 'xa' },
               'signature: another one is for the first');
}


# --- a stand-in can say less at once: the limit is lowered for it alone

for my $case (['chat', 'max_tokens'], ['chat', 'max_completion_tokens'],
              ['messages', 'max_tokens'], ['responses', 'max_output_tokens'])
{
    my ($kind, $member) = @$case;

    for my $stream (0, 1) {
        my $name = "max_output, $kind, $member, stream $stream";
        my $rest = $kind eq 'responses' ? '"input":"x","store":false'
                   : '"messages":[{"role":"user","content":"x"}]';
        my $ask = sub {
            my ($model, $n) = @_;
            my $x = $g->try($kind, stream => $stream,
                            body => qq({"model":"$model",)
                                    . ($stream ? '"stream":true,' : '')
                                    . qq("$member":$n,$rest}));
            is($x->{r}->status, 200, "$name: served");
        };

        $g->set(a => { status => 500 });
        $ask->('a-max', 5000);
        is(json_decode($g->{b}->last_body)->{$member}, 100,
           "$name: lowered for a fallback");
        is(json_decode($g->{a}->last_body)->{$member}, 5000,
           "$name: not for the first");
        $ask->('a-max', 7);
        is(json_decode($g->{b}->last_body)->{$member}, 7,
           "$name: not raised");
        $g->set;
        $ask->('max', 5000);
        is(json_decode($g->{a}->last_body)->{$member}, 5000,
           "$name: as asked where it is the first");
    }
}


# --- "provider/model", and TARGETs in the location

$g->set;
is_outcome($g->try('chat', model => 'b/some-model', prefix => '/direct'),
           { provider => 'b', model => 'some-model', calls => '0 1 0' },
           'direct: provider/model');
is(json_decode($g->{b}->last_body)->{model}, 'some-model',
   'direct: as it is asked');
is_outcome($g->try('chat', model => 'b/x/y', prefix => '/direct', stream => 1),
           { provider => 'b', model => 'x/y' }, 'direct: a model with a slash');
is_outcome($g->try('messages', model => 'xc/claude', prefix => '/direct'),
           { provider => 'xc', model => 'claude' }, 'direct: messages');
is_outcome($g->try('chat', model => 'b/exact', prefix => '/direct'),
           { provider => 'a', model => 'm-a' }, 'direct: a pattern wins');
is_outcome($g->try('chat', model => 'nobody/x', prefix => '/direct'),
           { provider => 'openai', model => 'nobody/x' },
           'direct: no such provider');
is_outcome($g->try('chat', model => 'b/some-model'),
           { provider => 'openai', model => 'b/some-model' },
           'not direct: a name as any other');
is_outcome($g->try('chat', model => 'xb/claude', prefix => '/direct'),
           { status => 400, code => 'unsupported_dialect' },
           'direct: a provider of another dialect');

$g->set(b => { status => 500, fails => 1 });
is_outcome($g->try('chat', model => 'b/some-model', prefix => '/direct'),
           { provider => 'b', attempts => 2, calls => '0 2 0' },
           'direct: asked again');

for my $kind (qw(chat messages)) {
    my $x = $kind eq 'messages' ? 'x' : '';
    $g->set(a => { status => 500 });
    is_outcome($g->try($kind, model => 'anything', prefix => '/fixed'),
               { provider => "${x}b", model => 'm-b', calls => '2 1 0' },
               "targets of a location, $kind");
}


# --- every endpoint has its stand-in

for my $kind (qw(chat completions responses embeddings messages count)) {
    my $x = $kind =~ /messages|count/ ? 'x' : '';

    for my $stream ($kind =~ /embeddings|count/ ? (0) : (0, 1)) {
        $g->set(a => { status => 502 });
        is_outcome($g->try($kind, model => 'three', stream => $stream),
                   { provider => "${x}b", model => 'm-b', calls => '1 1 0' },
                   "$kind, stream $stream: another one");
    }
}


# --- two hundred at once

for my $stream (0, 1) {
    my $n = 200;
    $g->set(a => { status => 503, limits => 'off', delay => 200 },
            b => { delay => 50 });

    my @clients = map { h1($g->port) } 1 .. $n;
    start_ask($_, 'chat', model => 'two', stream => $stream) for @clients;

    my %n;

    for my $client (@clients) {
        my $r = $client->read_response(timeout => 30);
        my $whole = $r->complete
                    && ($stream ? $r->body =~ /\[DONE\]\s*$/ : $r->json);
        $n{ join ' ', $r->status, $r->header('x-llm-provider') // '',
            $r->header('x-llm-attempts') // '', $whole ? 'whole' : 'cut' }++;
        $client->close;
    }

    is_deeply(\%n, { '200 b 2 whole' => $n }, "$n at once, stream $stream")
        or diag(explain(\%n));
    is($g->calls, "$n $n 0", "$n at once, stream $stream: the calls");
}

{
    my $n = 100;
    $g->set(a => { status => 503, limits => 'off', delay => 100 });
    my $client = h2($g->port('h2'), conn_window => 2 ** 24);
    my @streams = map { scalar start_ask($client, 'chat', model => 'two',
                                         stream => 1) } 1 .. $n;
    my %n;

    for my $s (@streams) {
        $client->read_head($s);
        $client->read_body($s);
        $n{ $s->status . ' ' . ($s->header('x-llm-provider') // '')
            . ($s->complete ? '' : ' ' . $s->end) }++;
    }

    is_deeply(\%n, { '200 b' => $n }, "$n streams of one connection")
        or diag(explain(\%n));
    is($g->calls, "$n $n 0", "$n streams of one connection: the calls");
}

no_alerts($t);


# --- a name that nobody serves: it is told nothing of the others

{
    my $n = start_nginx(<<'EOT', vars => { MOCK => $g->{a}->port });
    llm_adapter_provider secret-provider {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
    }
    llm_adapter_model secret-model secret-provider;
    llm_adapter_model secret-prefix* secret-provider;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /v1/ { llm_adapter on; }
        location /direct/v1/ { llm_adapter on direct; }
    }
EOT

    $g->set;

    for my $kind (qw(chat messages embeddings responses)) {
        for my $prefix ('', '/direct') {
            for my $model ('nothing', 'secret', 'nobody/secret-model') {
                my $r = ask(h1($n->port), $kind, model => $model,
                            prefix => $prefix);
                my $name = "$prefix, $kind, $model";
                is_error($r, $kind, 404, $name);
                (my $rest = $r->head . $r->body) =~ s/\Q$model//g;
                unlike($rest, qr/secret|openai|anthropic|127\.0/,
                       "$name: names nobody");
            }
        }
    }

    is($g->{a}->stats->{requests}, 0, 'unknown models: nobody is asked');
    is(ask(h1($n->port), 'chat', model => 'secret-model')->status, 200,
       'a known one');
    no_alerts($n);
}

done_testing();
