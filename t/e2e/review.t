#!/usr/bin/perl

# What a hostile review found: each case failed once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Socket;
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();
skip_under_valgrind('measures time, fills sockets');

my ($t, $mock) = gateway(
    location => 'llm_adapter_passthrough openai;',
    locations => {
        '/drain/v1/' => 'llm_adapter_client_abort drain;',
        '/deny/v1/' => 'llm_adapter_passthrough off;',
        '/deny/v1/embeddings' => 'deny all;',
        '/page/v1/' => 'llm_adapter_intercept_errors on; '
                       . 'error_page 408 429 =418 /page;',
    },
    server => 'location = /page { return 418 "page"; }');


# --- no second version below a prefix: it would step round other locations

for my $path (qw(v1/embeddings v1/v1/embeddings v1/v1%2fembeddings))
{
    my $r = http_post($t->port, "/deny/$path", '{"model":"m","input":"x"}',
                      headers => ['Content-Type' => 'application/json']);
    isnt($r->status, 200, "/deny/$path is not served");
}


# --- drained: what still waits in an HTTP/2 connection's queue is not filled
# with the answers of others

{
    my $c = h2($t->port('h2'), window => 0, conn_window => 2 ** 30,
               rcvbuf => 4096, auto => 0);
    my @ask = ('chat', prefix => '/drain', stream => 1);

    my $plug = start_ask($c, @ask,
                         mock => { events => 20000, size => 100, gap => 0 });
    my $own = start_ask($c, @ask, model => 'MINE',
                        mock => { events => 4000, size => 4000, gap => '3ms' });
    nap(1.5);
    $c->window_update($plug, 2 ** 30);      # fills the socket
    nap(1);
    $c->window_update($own, 2 ** 20);       # is queued behind it
    nap(0.5);
    $c->reset($own, 8);
    nap(0.5);

    my @others = map { h1($t->port, rcvbuf => 4096) } 1 .. 6;
    start_ask($_, 'chat', stream => 1, model => 'VICTIM',
              mock => { events => 40000, size => 100, gap => 0 }) for @others;
    nap(1);

    my ($raw, $end) = ('', now() + 4);

    while (now() < $end) {
        sysread($c->sock, $raw, 65536, length $raw) or nap(0.02);
    }

    cmp_ok(length $raw, '>', 1000000, 'drain: there was much to read');
    unlike($raw, qr/VICTIM/, 'drain: nothing of other answers in it');

    $_->abort('rst') for @others;
    $c->abort('rst');
}


# --- a 408 can't have an error page: nginx would send nothing at all

for my $status (408, 429) {
    my $r = ask(h1($t->port), 'chat', prefix => '/page', timeout => 5,
                mock => { status => $status });
    is($r->status, $status == 408 ? 408 : 418, "error_page and $status");
}

no_alerts($t);


# --- a whole answer that took too long is no server's failure

{
    my ($n) = gateway(
        mock => $mock, endpoint => 'http://back',
        http => 'upstream back { server 127.0.0.1:%%MOCK%%; '
                . 'server 127.0.0.1:%%MOCK%%; keepalive 2; }',
        locations => { '/short/v1/' => 'llm_adapter_timeout plain=200ms;' });

    is(ask(h1($n->port), 'chat', prefix => '/short',
           mock => { delay => '2s' })->status, 504, 'plain timeout')
        for 1 .. 2;
    is(ask(h1($n->port), 'chat')->status, 200, 'the servers are still used');
    no_alerts($n);
}


# --- after an idle connection that has gone the time to connect counts anew

{
    socket(my $listen, PF_INET, SOCK_STREAM, 0) or die "socket(): $!";
    bind($listen, sockaddr_in(0, INADDR_LOOPBACK)) && listen($listen, 0)
        or die "listen(): $!";
    my ($port) = sockaddr_in(getsockname $listen);
    pipe(my $ready, my $tell) or die "pipe(): $!";

    my $pid = fork() // die "fork(): $!";

    if (!$pid) {
        $SIG{TERM} = 'DEFAULT';
        accept(my $c, $listen);
        my $text = '';
        1 while $text !~ /\r\n\r\n\{.*\}/s
                && sysread $c, $text, 65536, length $text;
        syswrite $c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

        my @fill = map {            # nobody else is let in
            socket(my $s, PF_INET, SOCK_STREAM, 0);
            $s->blocking(0);
            connect($s, sockaddr_in($port, INADDR_LOOPBACK));
            $s;
        } 1 .. 4;
        select undef, undef, undef, 0.3;
        syswrite $tell, 'x';
        sysread $c, $text, 65536;
        setsockopt($c, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0);
        close $c;
        sleep 30;
        exit;
    }

    my ($n) = gateway(
        mock => $mock, endpoint => "http://127.0.0.1:$port",
        location => 'llm_adapter_timeout connect=300ms plain=6s;');

    is(ask(h1($n->port), 'chat')->status, 200, 'a connection is kept');
    sysread $ready, my $x, 1;

    my $start = now();
    my $r = ask(h1($n->port), 'chat', test => 'stale');
    cmp_ok(now() - $start, '<', 3, 'stale connection: connect timeout');
    is(log_of($n, 'stale')->{error}, 'timeout_connect', '... by its name');

    kill KILL => $pid;
    waitpid $pid, 0;
    no_alerts($n);
}

done_testing();
