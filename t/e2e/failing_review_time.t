#!/usr/bin/perl

# What a review of retries, breakers and balancing has found, each case failed
# once: what is a matter of time.  Probes, what happens while a request waits,
# slow providers and slow clients, and what outlives a reload.  See also
# failing_review.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time, needs two workers');


# a provider that is played here

my $slow = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 8,
                                 Timeout => 10)
    or die "listen: $!\n";

sub read_request {
    my ($sock) = @_;

    my $text = '';

    while ($text !~ /\r\n\r\n/) {
        sysread $sock, $text, 65536, length $text or return;
    }

    my ($length) = $text =~ /^content-length: *(\d+)/im;
    my $size = index($text, "\r\n\r\n") + 4 + ($length // 0);

    while (length $text < $size) {
        sysread $sock, $text, 65536, length $text or return;
    }
}


# NAME => port and members; each has the models NAME, alone, and NAME-b, with b
# behind it

my $two = 'breaker failures=2 window=60s open=60s;';
my $soon = 'breaker failures=2 window=60s open=1s;';

my %PROVIDER = (
    (map { ("probe$_" => "A $soon") } 1 .. 2),
    probe3 => "A key client; $soon",
    plain => "A $two", plain2 => "A $two",
    once => 'A breaker failures=3 window=60s open=60s;',
    twice => "A $two",
    (map { ("late$_" => "A $two") } 1 .. 3),
    slow => "SLOW $two",
    (map { ("lat$_" => 'A breaker off;') } 1 .. 2),
    (map { ("latb$_" => 'B breaker off;') } 1 .. 2),
    reload => 'A key sk-former; breaker open=10m;',
    unknown => 'A key sk-former; breaker open=10m;',
    limited => 'A key sk-former; breaker off;',
    maker => 'B breaker off;',
);

my $conf = '';

for my $name (sort keys %PROVIDER) {
    my ($port, $text) = split / /, $PROVIDER{$name}, 2;
    $conf .= Targets::provider($name, $port, $text)
        . "    llm_adapter_model $name $name:m-a x$name:m-a;\n"
        . "    llm_adapter_model $name-b $name:m-a x$name:m-a b:m-b xb:m-b;\n";
}

my $g = Targets->new(
    connections => 2048, vars => { SLOW => $slow->sockport },
    locations => {
        '/once/v1/' => 'llm_adapter_retry attempts=1;',
        '/plain/v1/' => 'llm_adapter_retry attempts=1; '
                        . 'llm_adapter_timeout plain=300ms;',
        '/total/v1/' => 'llm_adapter_retry attempts=9 backoff=20ms..30ms '
                        . 'budget=1000%; llm_adapter_timeout total=800ms;',
        '/later/v1/' => 'llm_adapter_retry attempts=3 backoff=800ms..1600ms '
                        . 'budget=1000% resume=on;',
    },
    server => join("\n", map { "location /state/$_ { "
                               . "return 200 \$llm_breaker_$_; }" }
                         sort keys %PROVIDER),
    http => $conf . <<'EOT');
    llm_adapter_model probe2* probe2;
    llm_adapter_model same twice:one twice:two;
    llm_adapter_model pinned late3:m-a maker:m-b;
    llm_adapter_model scout lat1:m-a latb1:m-b balance=latency;
    llm_adapter_model read-late lat2:m-a latb2:m-b balance=latency;
EOT

my $t = $g->{t};


sub state_of { return http_get($t->port, "/state/$_[0]")->body }

# n requests: "500 500 503"

sub statuses {
    my ($n, $kind, %o) = @_;
    return join ' ', map { $g->try($kind, %o)->{r}->status } 1 .. $n;
}

sub as { return (headers => [authorization => "Bearer $_[0]"]) }


# --- a provider that is well again, and slow; probes that are refused

{
    $g->set(a => { status => 500 });
    is(statuses(2, 'chat', model => "probe$_", prefix => '/once', as('good')),
       '500 500', "probe$_: fails") for 1 .. 3;
    is(state_of("probe$_"), 'open', "probe$_: opens") for 1 .. 3;

    nap(1.1);
    $g->set;

    # a probe takes longer than open=, and there is traffic meanwhile

    my @wait = map { h1($t->port, timeout => 20) } 1, 2;
    start_ask($wait[0], 'chat', model => 'probe1', prefix => '/once',
              mock => { delay => 1600 });
    ok($g->{a}->wait_stat('requests', 1, 5), 'a slow probe');

    # a client's key that is limited, a model that nobody knows

    my $x = $g->try('chat', model => 'probe3', as('limited'),
                    mock => { status => 429, retry_after => 600 });
    is_outcome($x, { status => 429, attempts => 1, calls => '2 0' },
               'key client, a limited probe: its own matter');
    is(state_of('probe3'), 'closed', '... and the provider works');
    is_outcome($g->try('chat', model => 'probe3', as('good')),
               { attempts => 1, calls => '3 0', provider => 'probe3' },
               '... for the others');

    $x = $g->try('chat', model => 'probe2-unknown', prefix => '/once',
                 mock => { status => 404, code => 'model_not_found' });
    is($x->{r}->status, 502, 'a probe for an unknown model');
    is(state_of('probe2'), 'closed', '... and the provider works');
    is_outcome($g->try('chat', model => 'probe2-known', prefix => '/once'),
               { attempts => 1 }, '... for the others');

    nap(1.1);
    start_ask($wait[1], 'chat', model => 'probe1', prefix => '/once',
              mock => { delay => 6000 });
    is($wait[0]->read_response->status, 200, 'the slow probe has ended well');
    is(state_of('probe1'), 'closed', '... and closes, though others followed');
    is(statuses(3, 'chat', model => 'probe1', prefix => '/once'),
       '200 200 200', '... so that all may call');
    $_->close for @wait;
}


# --- a plain answer that takes too long, where most do not

$g->set;
is(statuses(5, 'chat', model => 'plain'), '200 200 200 200 200',
   'timeout_plain: five are well');
$g->set(a => { delay => 600 });
is(statuses(3, 'chat', model => 'plain', prefix => '/plain'), '504 504 504',
   'timeout_plain: long answers');
is(state_of('plain'), 'closed', 'timeout_plain: a matter of what was asked');
is(statuses(3, 'chat', model => 'plain2', prefix => '/plain'), '504 504 503',
   'timeout_plain: nothing else comes');


# --- SDKs are not to multiply what was tried

$g->set(a => { status => 500, delay => 300 });

{
    my $x = $g->try('chat', model => 'one', prefix => '/total');
    is_outcome($x, { status => 504, log_error => 'timeout_total',
                     should => 'false' }, 'timeout_total, after attempts');
    cmp_ok($x->{log}{attempts}, '>', 1, 'there were some');
}


# --- a request that fails counts once

$g->set(a => { status => 500 });
is_outcome($g->try('chat', model => 'once'),
           { status => 500, attempts => 3, should => 'false',
             calls => $_ * 3 . ' 0' }, "request $_ that fails")
    for 1, 2;
is(state_of('once'), 'closed', 'two requests are two failures');
is_outcome($g->try('chat', model => 'once', prefix => '/once'),
           { status => 500, attempts => 1 }, 'the third request');
is(state_of('once'), 'open', 'is the third failure');

is_outcome($g->try('chat', model => 'same'),
           { status => 500, attempts => 3 }, 'two targets at one provider');
is(state_of('twice'), 'closed', '... and one request counts once');


# --- the breaker opens while a request waits to ask again

$g->set;
my $made = $g->try('responses', model => 'late3');
my ($id) = $made->{r}->body =~ /"id": ?"(resp_\w+)"/;

for my $case (
    ['chat', 1, 'late1', { fault => 'cut', at => 3 }, 1, 'truncated'],
    ['chat', 0, 'late2', { status => 500 }, 2, 'breaker_open'],
    ['responses', 0, 'late3', { status => 500 }, 1, 'pinned_unavailable'],
) {
    my ($kind, $stream, $p, $how, $calls, $error) = @$case;
    my $name = "$p, after $calls";
    my @pinned = $kind eq 'responses'
        ? (model => 'pinned', more => qq("previous_response_id":"$id")) : ();

    $g->set(a => $how);
    my $client = h1($t->port, timeout => 20);
    start_ask($client, $kind, stream => $stream, model => $p,
              prefix => '/later', test => "late $p.", @pinned);
    ok($g->{a}->wait_stat('requests', $calls, 10), "$name: waits");
    is(statuses(1, $kind, model => $p, prefix => '/once',
                mock => { status => 500 }), '500', "$name: another fails");
    is(state_of($p), 'open', "$name: which opens the breaker");

    my $r = $client->read_response;
    my $log = log_of($t, "late $p.");
    is($log->{error}, $error, "$name: \$llm_error");

    if ($stream) {
        is_in_band($r, $kind, $name);

    } else {
        is(is_error($r, $kind, 503, $name)->{code}, $error, "$name: its code");
        is($r->header('x-should-retry'), 'false',
           "$name: is not asked again above") if $calls > 1;
    }

    is($log->{attempts}, $calls, "$name: no further attempt");
    $client->close;
}


# --- balance=latency: one finds out, the others go where they went

$g->set(a => { delay => 50 }, b => { delay => 2000 });
is_outcome($g->try('chat', model => 'scout'),
           { provider => 'lat1', calls => '1 0' }, 'scout: the first');

{
    my @clients = map { h1($t->port, timeout => 20) } 1 .. 7;
    start_ask($clients[0], 'chat', model => 'scout');
    ok($g->{b}->wait_stat('requests', 1, 5), 'scout: the other is tried');
    start_ask($_, 'chat', model => 'scout') for @clients[1 .. 6];

    my %n;
    $n{ $_->read_response->header('x-llm-provider') // '-' }++
        for @clients[1 .. 6];
    is_deeply(\%n, { lat1 => 6 }, 'scout: by one only');
    $_->close for @clients;
}


# --- clients that read slowly are not the provider's fault

{
    # lat2: quick; latb2: 4 ms a token

    $g->set(b => { gap => 4 });
    my @how = ('chat', stream => 1, model => 'read-late');
    $g->try(@how, mock => { events => 100 }) for 1 .. 4;
    is_outcome($g->try(@how), { provider => 'lat2' }, 'the quick one is first');

    my @late = map { h1($t->port, timeout => 20, rcvbuf => 16384) } 1, 2;
    start_ask($_, @how, mock => { events => 150, size => 80_000 }) for @late;

    # a provider that loses patience

    my @clients = map { h1($t->port, timeout => 20, rcvbuf => 16384) } 1, 2;
    start_ask($_, 'chat', stream => 1, model => 'slow', prefix => '/once')
        for @clients;
    my @served;

    for (1, 2) {
        my $sock = $slow->accept or next;
        read_request($sock);
        push @served, $sock;
    }

    is(scalar(@served), 2, 'slow readers: two of them');

    my $event = 'data: {"id":"x","object":"chat.completion.chunk","choices":'
                . '[{"index":0,"delta":{"content":"' . 'z' x 8000
                . '"},"finish_reason":null}]}' . "\n\n";
    my $head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
               . "Connection: close\r\n\r\n";
    my %left = map { $_ => $head . $event x 3000 } @served;
    my $select = IO::Select->new(@served);
    $_->blocking(0) for @served;

    while (my @can = $select->can_write(1.5)) {
        for my $sock (@can) {
            my $done = syswrite $sock, $left{$sock}, 65536;
            substr($left{$sock}, 0, $done // 0) = '';
            $select->remove($sock) if $left{$sock} eq '';
        }
    }

    cmp_ok(length $left{$_}, '>', 0, 'slow readers: not all is taken')
        for @served;

    for my $sock (@served) {
        setsockopt $sock, SOL_SOCKET, SO_LINGER, pack 'll', 1, 0;
        close $sock;
    }

    for my $client (@clients) {
        my $r = $client->read_response;
        ok(!$r->complete || substr($r->body, -400) =~ /"error"/,
           'slow readers: the provider has reset it');
        $client->close;
    }

    is(state_of('slow'), 'closed', 'slow readers: they open no breaker');

    for my $client (@late) {
        my $r = $client->read_response;
        like(substr($r->body, -40), qr/\[DONE\]\s*\z/, 'read late: whole');
        $client->close;
    }

    my %n;
    $n{ $g->try(@how)->{r}->header('x-llm-provider') }++ for 1 .. 6;
    is_deeply(\%n, { lat2 => 6 }, 'read late: the quick one is still first');
}


# --- a provider whose key has changed is another one

my @changed = ('chat', model => 'reload', prefix => '/once');

$g->set(a => { status => 401 });
is(statuses(2, @changed), '502 503', 'reload: a wrong key');
$g->set(a => { status => 404 });
is(statuses(2, 'chat', model => 'unknown', prefix => '/once'), '502 503',
   'reload: a model that is not known');
$g->set(a => { status => 429, retry_after => 600 });
is_outcome($g->try('chat', model => 'limited-b'), { provider => 'b' },
           'reload: a limit');
$g->set;
is_outcome($g->try('chat', model => 'limited-b'),
           { provider => 'b', calls => '0 1' }, 'reload: it is kept');

(my $other = $t->conf) =~ s/sk-former/sk-right/g;
spew($t->path('nginx.conf'), $other);
ok($t->reload, 'reload: with the right keys');

is_outcome($g->try(@changed), { attempts => 1, calls => '1 1' },
           'reload: it is asked again');
is_outcome($g->try('chat', model => 'unknown', prefix => '/once'),
           { attempts => 1 },
           'reload: it may know the model by now');
is_outcome($g->try('chat', model => 'limited-b'),
           { provider => 'limited' },
           'reload: the limit was another account\'s');

no_alerts($t);
done_testing();
