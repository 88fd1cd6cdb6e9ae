#!/usr/bin/perl

# What one client's failures must not do to the others, and what must not look
# like a success: each case was a bug once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();
skip_under_valgrind('measures time');

my ($a, $b) = (start_mock(), start_mock());

my @names = map { "p$_" } 1 .. 16;
my $providers = join '', map { <<"EOT" } @names;
    llm_adapter_provider $_ {
        endpoint http://127.0.0.1:%%A%%/v1; dialect openai; key sk-ours;
        breaker failures=3 window=20s open=1s;
    }
    llm_adapter_model $_ $_;
EOT

my $t = start_nginx(<<"EOT", workers => 2,
    log_format llm escape=json '{"test":"\$http_x_test","error":"\$llm_error",'
        '"attempts":"\$llm_attempts","breaker":"\$llm_breaker"}';

$providers
    llm_adapter_provider client {
        endpoint http://127.0.0.1:%%A%%/v1; dialect openai; key client;
        breaker failures=3 window=20s open=1s;
    }
    llm_adapter_provider header {
        endpoint http://127.0.0.1:%%A%%/v1; dialect openai;
        header Authorization "Bearer sk-ours"; breaker off;
    }
    llm_adapter_provider held {
        endpoint http://127.0.0.1:%%A%%/v1; dialect openai; key none;
        breaker off;
    }
    llm_adapter_provider spare {
        endpoint http://127.0.0.1:%%B%%/v1; dialect openai; key none;
        breaker off;
    }
    llm_adapter_model client client;
    llm_adapter_model header header;
    llm_adapter_model paid client spare;
    llm_adapter_model big held:big spare;
    llm_adapter_model small held:small spare;
    llm_adapter_model both held spare;

    server {
        listen 127.0.0.1:%%PORT%%;
        access_log %%DIR%%/llm.log llm;
        location /v1/ {
            llm_adapter on;
            llm_adapter_retry attempts=1;
            llm_adapter_timeout idle=2s;
        }
        location /two/v1/ {
            llm_adapter on;
            llm_adapter_retry attempts=3 backoff=20ms..50ms budget=1000%;
        }
    }
EOT
    vars => { A => $a->port, B => $b->port });


sub try {
    my ($model, %o) = @_;

    return ask(h1($t->port, timeout => 20), $o{kind} // 'chat',
               model => $model, %o);
}


sub statuses {
    my ($n, @ask) = @_;
    return join ' ', map { try(@ask)->status } 1 .. $n;
}


sub from { return $_[0]->header('x-llm-provider') // '' }


# --- a breaker closes again, though answers take longer than it is open

{
    is(statuses(3, 'p1', mock => { status => 500 }), '500 500 500', 'it opens');
    is(try('p1')->status, 503, 'it is open');

    my @clients;

    for (1 .. 30) {
        my $c = h1($t->port, timeout => 20);
        start_ask($c, 'chat', model => 'p1', mock => { delay => 1500 });
        push @clients, $c;
        nap(0.2);
    }

    my @got = map { $_->read_response->status } @clients;
    is(join(' ', @got[-8 .. -1]), join(' ', (200) x 8),
       'slow answers close it, and it stays so');
}


# --- errors that are the client's own, told in the middle of a stream

{
    my $sse = sub {
        return join '', map { "data: $_\n\n" }
            '{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}',
            qq({"error":{"message":"$_[0]","type":"invalid_request_error","param":null,"code":"$_[1]"}});
    };

    my $count = sub {
        my ($model, $code) = @_;
        my $body = $sse->('no', $code) =~ s/([^\w])/sprintf '%%%02X', ord $1/ger;
        return map { try($model, stream => 1, query =>
                         "mock_body=$body&mock_headers="
                         . 'Content-Type%3A%20text%2Fevent-stream') } 1 .. 4;
    };

    for my $case (['p2', 'content_policy_violation'],
                  ['p3', 'context_length_exceeded']) {
        my ($model, $code) = @$case;
        my @r = $count->($model, $code);
        is(try($model)->status, 200, "$code in a stream closes nobody out");
    }
}


# --- long errors

for my $size (1_000, 100_000) {
    my $text = 'x' x $size;
    my $name = "p" . ($size == 1_000 ? 4 : 5);

    $a->reset;
    $a->set(status => 500, body => qq({"error":{"message":"$text"}}));
    is(statuses(3, $name), '500 500 500', "an error of $size bytes");
    is(try($name)->status, 503, "an error of $size bytes counts");

    $a->reset;
    $a->set(status => 401,
            body => qq({"error":{"message":"sk-ours $text"}}));
    my $r = try($size == 1_000 ? 'p6' : 'p7');
    is($r->status, 502, "401 of $size bytes: not the client's");
    like($r->body, qr/"code":"provider_auth"/, '... and says so');
    unlike($r->body, qr/sk-ours/, '... not in its words');

    $a->reset;
    $a->set(status => 500, body => qq({"error":{"message":"$text"}}));
    $r = try('both', prefix => '/two');
    is($r->status . from($r), '200spare', "an error of $size bytes: elsewhere");
}


# --- a key in a header is ours, too

$a->reset;
{
    my $r = try('header', mock => { status => 401, message => 'sk-ours' });
    is($r->status, 502, 'a key in a header: refused');
    unlike($r->body, qr/sk-ours/, '... not in its words');
}


# --- a client's own key, its own limit

{
    my @key = (headers => [authorization => 'Bearer sk-theirs']);
    my %limit = (mock => { status => 429, retry_after => 600 });

    my $r = try('paid', @key, %limit);
    is($r->status . from($r), '429client',
       "a client's limit is not mended with the operator's key");
    is(from(try('paid', @key)), 'client', '... nor that of the others');

    is(statuses(3, 'client', @key, mock => { status => 500 }), '500 500 500',
       'open, with key client');
    nap(1.1);
    is(try('client', @key, %limit)->status, 429, "a probe that is limited");
    is(try('client', @key)->status, 200, '... leaves it to the others');
}


# --- one thing that may not be done is not all

is(statuses(2, 'p8'), '200 200', 'it goes well');
is(try('p8', mock => { status => 403 })->status, 502, 'a 403');
is(try('p8')->status, 200, '... of one request');
is(try('p9', mock => { status => 403 })->status, 502, 'a 403 of all');
is(try('p9')->status, 503, '... closes it');


# --- of one request that is asked again one failure counts

is(try('p10', prefix => '/two', mock => { status => 500 })->status, 500,
   'three attempts');
is(try('p10')->status, 200, '... are one failure');


# --- told waits: of a model, also of the last attempt, never of other limits

{
    my $r = try('big', mock => { status => 429, retry_after => 600 });
    is($r->status, 429, 'a far time, the only attempt');
    is(from(try('big')), 'spare', '... is remembered');
    is(from(try('small')), 'held', '... for this model');

    my %left = (headers => 'x-ratelimit-remaining-requests: 99|'
                           . 'x-ratelimit-reset-requests: 9s');
    $r = try('p11', prefix => '/two',
             mock => { status => 503, fails => 1, key => 'left', %left,
                       limits => 'off' });
    is($r->status . $r->header('x-llm-attempts'), '2002',
       'a limit that is not used up tells no wait');
}


# --- answers that are none

{
    my $long = 'x' x 100_000;

    for my $how ('length', 'chunked', 'close') {
        $a->reset;
        $a->set(body => qq({"id":"x","choices":[{"message":{"content":"$long),
                plain => $how);
        my $r = try('p13');
        ok($r->status != 200 || !$r->complete, "JSON that ends too soon, $how");
    }

    $a->reset;
}


# --- who made it stays its maker

{
    my $all = join '', map {
        my $m = $_;
        qq(llm_adapter_provider m$m { endpoint http://127.0.0.1:%%@{[uc $m]}%%/v1; dialect openai; key none; breaker off; }\n)
    } qw(a b);

    my $n = start_nginx(<<"EOT", vars => { A => $a->port, B => $b->port });
    $all
    llm_adapter_model r mb ma;
    llm_adapter_model x ma mb;
    server { listen 127.0.0.1:%%PORT%%; location /v1/ { llm_adapter on; } }
EOT
    my $say = sub {
        my ($model, %o) = @_;
        my $more = $o{previous} ? qq("previous_response_id":"$o{previous}",)
                                : '';
        return ask(h1($n->port), 'responses',
                   body => qq({"model":"$model",$more"input":"hi"}),
                   mock => $o{mock} // {});
    };

    my $id = json_decode($say->('r')->body)->{id};
    is(from($say->('x', previous => $id)), 'mb', 'its maker serves it');

    $a->set(body => json_encode({ id => $id, object => 'response',
                                  status => 'completed', output => [] }));
    is(from($say->('x')), 'ma', 'another one names it');
    $a->reset;
    is(from($say->('x', previous => $id)), 'mb', 'its maker still does');

    no_alerts($n, name => 'no alerts: makers');
}


# --- another key is another provider

{
    my $conf = sub { <<"EOT" };
    llm_adapter_provider k {
        endpoint http://127.0.0.1:%%A%%/v1; dialect openai; key $_[0];
        breaker open=1h;
    }
    llm_adapter_model * k;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /v1/ { llm_adapter on; llm_adapter_retry attempts=1; }
    }
EOT
    my $n = start_nginx($conf->('sk-wrong'), vars => { A => $a->port });

    $a->set(status => 401);
    is(ask(h1($n->port), 'chat')->status, 502, 'a wrong key');
    $a->reset;
    is(ask(h1($n->port), 'chat')->status, 503, '... closes it');

    $n->reload;
    is(ask(h1($n->port), 'chat')->status, 503, '... over a reload');

    $n->reload(http => $conf->('sk-right'));
    is(ask(h1($n->port), 'chat')->status, 200, '... but not of another key');
    no_alerts($n, name => 'no alerts: keys');
}

no_alerts($t);
done_testing();
