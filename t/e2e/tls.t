#!/usr/bin/perl

# TLS to the provider: verified unless the operator says otherwise, with SNI,
# sessions used again, connections kept.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use File::Temp;
use IO::Socket::INET;
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;
my $dir = File::Temp->newdir;
chmod 0755, "$dir";


# An authority, and certificates of it.

sub openssl {
    my (@args) = @_;
    system("openssl @args >/dev/null 2>&1") == 0 or die "openssl @args\n";
}

sub issue {
    my ($name) = @_;

    my $base = "$dir/$name";
    openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes",
            "-subj /CN=$name -keyout $base.key -out $base.csr");
    spew("$base.ext", "subjectAltName=DNS:$name\n");
    openssl("x509 -req -in $base.csr -CA $dir/ca.crt -CAkey $dir/ca.key",
            "-CAcreateserial -days 30 -extfile $base.ext -out $base.crt");
    return ("$base.crt", "$base.key");
}

openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes",
        "-days 30 -subj /CN=TestCA -keyout $dir/ca.key -out $dir/ca.crt");

my @localhost = issue('localhost');
my @provider = issue('provider.test');
my @other = issue('other.test');

# the provider; its certificate is localhost's
my $mock = start_mock(args => ['-p', 0, '-s', 0, '-c', $localhost[0],
                               '-k', $localhost[1]], wait_tls => 1);

# in front of it, a server that has several names
my $front = start_nginx(<<'EOT', module => '',
    ssl_certificate %%DIRS%%/other.test.crt;
    ssl_certificate_key %%DIRS%%/other.test.key;
    proxy_http_version 1.1;
    add_header X-SNI $ssl_server_name always;
    add_header X-Seen-Host $http_host always;

    server {
        listen 127.0.0.1:%%PORT%% ssl default_server;
        listen 127.0.0.1:%%PORT_plain%%;
        server_name other.test;
        location / { proxy_pass http://127.0.0.1:%%MOCK%%; }
    }

    server {
        listen 127.0.0.1:%%PORT%% ssl;
        server_name provider.test;
        ssl_certificate %%DIRS%%/provider.test.crt;
        ssl_certificate_key %%DIRS%%/provider.test.key;
        location / {
            proxy_buffering off;
            proxy_pass http://127.0.0.1:%%MOCK%%;
        }
    }
EOT
    vars => { DIRS => "$dir", MOCK => $mock->port });

# a port that says nothing
my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64);


my %PROVIDERS = (
    default  => 'endpoint https://localhost:%%TLS%%/v1;',
    ca       => 'endpoint https://localhost:%%TLS%%/v1; tls ca=%%DIRS%%/ca.crt;',
    lax      => 'endpoint https://localhost:%%TLS%%/v1; tls verify=off;',
    wrong    => 'endpoint https://localhost:%%TLS%%/v1; '
                . 'tls ca=%%DIRS%%/ca.crt name=wrong.test;',
    otherca  => 'endpoint https://localhost:%%TLS%%/v1; '
                . 'tls ca=%%DIRS%%/alien.crt;',
    ip       => 'endpoint https://127.0.0.1:%%TLS%%/v1; '
                . 'tls ca=%%DIRS%%/ca.crt name=localhost;',
    once     => 'endpoint https://localhost:%%TLS%%/v1; '
                . 'tls ca=%%DIRS%%/ca.crt; keepalive 0;',
    named    => 'endpoint https://pool/v1; '
                . 'tls ca=%%DIRS%%/ca.crt name=provider.test;',
    namedoff => 'endpoint https://pool2/v1; '
                . 'tls ca=%%DIRS%%/ca.crt name=nobody.test;',
    sni      => 'endpoint https://127.0.0.1:%%FRONT%%/v1; '
                . 'tls ca=%%DIRS%%/ca.crt name=provider.test;',
    mute     => 'endpoint https://127.0.0.1:%%MUTE%%/v1; '
                . 'tls verify=off; timeout connect=500ms;',
    plain    => 'endpoint https://127.0.0.1:%%PLAIN%%/v1; tls verify=off;',
);

openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes",
        "-days 30 -subj /CN=Alien -keyout $dir/alien.key -out $dir/alien.crt");

my $providers = '';

for my $name (sort keys %PROVIDERS) {
    $providers .= "    llm_adapter_provider $name {\n        "
                  . "dialect openai; key env:TEST_E2E_KEY; breaker off; "
                  . "$PROVIDERS{$name}\n    }\n";
}

my ($t) = gateway(
    mock => $mock,
    env => { TEST_E2E_KEY => 'sk-canary-tls' },
    vars => { TLS => $mock->tls_port, DIRS => "$dir",
              FRONT => $front->port, PLAIN => $front->port('plain'),
              MUTE => $mute->sockport },
    locations => { map { ("/$_/v1/" => "llm_adapter $_; llm_adapter_ping off;") }
                   keys %PROVIDERS },
    http => <<"EOT");
    upstream pool {
        server 127.0.0.1:%%FRONT%%;
        keepalive 4;
    }

    upstream pool2 {
        server 127.0.0.1:%%FRONT%%;
        keepalive 4;
    }

$providers
EOT


sub refused {
    my ($prefix, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $streamed (0, 1) {
        my $before = $mock->stats->{requests};
        my $r = ask(h1($t->port), 'chat', prefix => "/$prefix",
                    stream => $streamed, test => "$name $streamed");
        is_error($r, 'chat', 502, $name);
        like(log_of($t, "$name $streamed")->{error},
             qr/^upstream_(?:connect|tls)$/, "$name: \$llm_error");
        is($mock->stats->{requests}, $before, "$name: nothing was sent");
    }
}


sub accepted {
    my ($prefix, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $r = ask(h1($t->port), 'chat', prefix => "/$prefix");
    is($r->status, 200, "$name: answered");
    is($r->body, $mock->last_response_body, "$name: its bytes");
    like($mock->control('last')->body, qr/^authorization: bearer sk-canary/mi,
         "$name: with the key");

    $r = ask(h1($t->port), 'chat', prefix => "/$prefix", stream => 1,
             mock => { events => 5 });
    is_whole($r, 'chat', "$name, stream: whole");
    is_same_events($r, $mock, name => "$name, stream", hidden => 1);

    return $r;
}


# --- who is trusted ---

refused('default', 'an authority that the system does not know');
refused('otherca', 'another authority than the one that was named');
refused('wrong', 'a certificate for another name');
refused('namedoff', 'upstream { }, a certificate for another name');
refused('plain', 'a port that speaks no TLS');

accepted('ca', 'tls ca=');
accepted('lax', 'tls verify=off');
accepted('ip', 'an address and tls name=');

{
    my $r = accepted('sni', 'SNI');
    is($r->header('x-sni'), 'provider.test', 'SNI is sent');

    $r = accepted('named', 'upstream { } and tls name=');
    is($r->header('x-sni'), 'provider.test', 'upstream { }: SNI is sent');
    is($r->header('x-seen-host'), 'provider.test', 'upstream { }: Host');
}


# --- what a handshake costs ---

{
    my $before = $mock->stats;
    my $client = h1($t->port);
    my $bad = grep { !$_->complete }
              map { ask($client, 'chat', prefix => '/ca', stream => $_ % 2,
                        mock => { events => 2 }) } 1 .. 30;
    my $after = $mock->stats;
    is($bad, 0, 'thirty requests');
    cmp_ok($after->{tls_handshakes} - $before->{tls_handshakes}, '<=', 1,
           'keepalive: one handshake at most');

    $before = $after;
    $bad = grep { !$_->complete }
           map { ask($client, 'chat', prefix => '/once', stream => $_ % 2,
                     mock => { events => 2 }) } 1 .. 10;
    $after = $mock->stats;
    is($bad, 0, 'ten more, without keepalive');
    is($after->{tls_handshakes} - $before->{tls_handshakes}, 10,
       'no keepalive: ten handshakes');
    cmp_ok($after->{tls_resumed} - $before->{tls_resumed}, '>=', 9,
           'their session is used again');
}


# --- the handshake is part of connect ---

{
    my $start = now();
    my $r = ask(h1($t->port), 'chat', prefix => '/mute', test => 'mute');
    my $took = now() - $start;
    is_error($r, 'chat', 504, 'no handshake');
    is(log_of($t, 'mute')->{error}, 'timeout_connect', 'no handshake: class');
    ok($took > 0.4 && $took < 2 * $slow, 'no handshake: in time')
        or diag("took $took");

    # and a client that leaves meanwhile is noticed

    my $c = h1($t->port);
    start_ask($c, 'chat', prefix => '/mute', test => 'mute gone');
    nap(0.15);
    $c->abort('fin');
    is(log_of($t, 'mute gone')->{status}, 499, 'gone during the handshake');
}


# --- large things, and cut ones ---

{
    my $body = body_of('chat', more => '"x":"' . 'y' x 2_000_000 . '"');
    my $r = ask(h1($t->port, timeout => 30), 'chat', prefix => '/ca',
                body => $body);
    is($r->status, 200, 'a body of 2 MB: answered');
    ok($mock->last_body eq $body, 'a body of 2 MB: its bytes');

    $r = ask(h1($t->port, timeout => 30), 'embeddings', prefix => '/ca',
             mock => { total => '7m' });
    ok($r->complete, 'an answer of 7 MB: whole');
    ok($r->body eq $mock->last_response_body, 'an answer of 7 MB: its bytes');

    for my $fault (qw(cut reset_mid)) {
        $r = ask(h1($t->port), 'chat', prefix => '/ca', stream => 1,
                 test => "tls $fault",
                 mock => { fault => $fault, at => 3, events => 6 });
        is_in_band($r, 'chat', "$fault over TLS");
        is(log_of($t, "tls $fault")->{error}, 'truncated',
           "$fault over TLS: \$llm_error");
    }

    # stale connections

    my $c = h1($t->port);

    for my $fault (qw(close close_after half_close_idle)) {
        my @status = map {
            ask($c, 'chat', prefix => '/ca')->status,
            ask($c, 'chat', prefix => '/ca',
                mock => { fault => $fault,
                          $fault eq 'close' ? (fails => 1, key => "$_ $$")
                                            : () })->status
        } 1 .. 3;
        is_deeply(\@status, [(200) x 6], "$fault over TLS: all are answered");
    }

    # the client's leaving closes it at once

    my $before = $mock->stats->{aborted};
    $c = h1($t->port);
    start_ask($c, 'chat', prefix => '/ca', stream => 1, test => 'tls gone',
              mock => { events => 1000, gap => '100ms' });
    my $r2 = $c->read_head;
    $c->abort('fin');
    is($mock->wait_stat('aborted', $before + 1, 2 * $slow)->{aborted},
       $before + 1, 'the client leaves: the provider sees it');
}

unlike($t->error_log, qr/sk-canary/, 'no key in the error log');

no_alerts($front, name => 'the front: no alerts');
no_alerts($t);

done_testing();
