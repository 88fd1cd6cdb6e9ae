#!/usr/bin/perl

# What a review of the cache has found out about its file: older answers after
# newer ones, where a store was lost or is on its way; purges of a file that is
# full; its size over reloads.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use POSIX ();
use Test::More;

use LLM::E2E;
use LLM::Process qw(which);
use Gateway;
use Caching;

skip_without_module();
skip_under_valgrind('needs a master process');

# a write past the limit of a file's size is an error then, and no signal

$SIG{XFSZ} = 'IGNORE';


# A connection to each worker; which one it is stands in a header.

sub to_workers {
    my ($c, $n) = @_;

    my %client;

    for (1 .. 200) {
        my $client = h1($c->port, timeout => 20);
        my $r = $client->request('GET', '/worker');
        my $pid = $r->header('x-worker') // last;
        $client{$pid} //= $client;
        return values %client if keys %client == $n;
    }

    die "not all workers are met\n";
}


# Many small questions that nobody has asked, on several connections, each of
# which has several on its way.  Returns how many were answered with 200.

sub load {
    my ($port, $n) = @_;

    my ($well, $asked, @clients) = (0, 0);

    while ($asked < $n) {
        my @batch = map { $_ //= h1($port, timeout => 20) } @clients[0 .. 7];

        for my $client (@batch) {
            my $text = join '', map {
                my $body = body_of('chat', say => "load $$ " . $asked++);
                "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                . "Authorization: Bearer sk-load\r\nX-Mock-Events: 1\r\n"
                . 'Content-Type: application/json' . "\r\n"
                . 'Content-Length: ' . length($body) . "\r\n\r\n$body"
            } 1 .. 25;
            $client->write($text);
            push @{ $client->{methods} }, ('POST') x 25;
        }

        for my $client (@batch) {
            for (1 .. 25) {
                my $r = $client->read_response;
                $well++ if $r->status == 200 && $r->complete;
                last if $r->end ne 'length' && !$r->complete;
            }
        }
    }

    $_->close for @clients;
    return $well;
}


# The same for as long as the test likes: returns what ends it.

sub load_on {
    my ($port) = @_;

    my $pid = fork() // die "fork(): $!\n";

    if (!$pid) {
        eval { load($port, 1000) while 1 };
        POSIX::_exit(0);
    }

    return sub {
        kill 'KILL', $pid;
        waitpid $pid, 0;
    };
}


sub purge {
    my ($c, $what) = @_;
    my $r = http_post($c->port, '/llm', $what,
                      headers => ['content-type' => 'application/json']);
    nap(0.002);
    return $r;
}


sub file_size { return -s $_[0]{t}->path('cache/data.mdb') }


# --- asked for afresh in one worker, then asked for in the other

{
    my $c = Caching->new(workers => 2, server => 'keepalive_requests 100000;'
        . ' location = /worker { add_header X-Worker $pid; return 200; }');
    my @client = to_workers($c, 2);
    my %ask = (say => Caching::question());
    my (@wrong, %state);

    my @ends = map { load_on($c->port) } 1, 2;

    # (at once: not by try(), which looks up what the provider was asked)

    for my $n (1 .. 200) {
        my ($one, $other) = @client[$n % 2, 1 - $n % 2];
        my $stream = $n % 5 == 0;
        my @ask = map { [request_of('chat', %ask, $c->options('chat',
            stream => $stream, control => $_->[0],
            mock => { text => $_->[1] }))] }
            ['no-cache', "answer $n"], [undef, "more $n"];

        my $x = $one->request(@{ $ask[0] });
        my $y = $other->request(@{ $ask[1] });
        my $text = content_of($y, 'chat', $stream)->{text};

        $state{ $y->header('x-llm-cache') }++;
        push @wrong, "$n: $text"
            if $x->status != 200 || $text !~ /^(?:answer|more) $n$/;
    }

    $_->() for @ends;
    is(join(', ', @wrong[0 .. ($#wrong < 5 ? $#wrong : 5)]), '',
       'no-cache, then the other worker: nothing older');
    cmp_ok($state{HIT} // 0, '>=', 190, 'and from the cache');
    no_alerts($c->{t}, name => 'two workers: no alerts');
}


# --- asked for afresh, and it can't be written

SKIP: {
    my $prlimit = which('prlimit');
    skip('no prlimit', 1) if !$prlimit;

    my $c = Caching->new(workers => 2, cache => 'on ttl=1h stale=1h', server =>
        'location = /worker { add_header X-Worker $pid; return 200; }');
    my @client = to_workers($c, 2);
    my %kept = (say => Caching::question());
    my @asks = map { { say => Caching::question(), stream => $_ } } 0, 1;

    is_cache($c->try('chat', %$_, mock => { text => 'the first' }), 'MISS',
             'written') for \%kept, @asks;
    is_cache($c->try('chat', %kept, client => $_), 'HIT', 'written')
        for @client;

    for my $worker ($c->{t}->workers) {
        is(system($prlimit, "--pid=$worker", '--fsize=0:'), 0,
           'writing fails from now on');
    }

    for my $ask (@asks) {
        my $form = $ask->{stream} ? 'stream' : 'plain';
        my $x = $c->try('chat', %$ask, client => $client[0],
                        control => 'no-cache',
                        mock => { text => 'the second' });
        is(content_of($x->{r}, 'chat', $ask->{stream})->{text}, 'the second',
           "not written, $form: answered afresh");

        for my $n (1 .. 6) {
            my $y = $c->try('chat', %$ask, client => $client[$n % 2],
                            stream => $n > 3, mock => { text => 'the third' });
            is(content_of($y->{r}, 'chat', $n > 3)->{text}, 'the third',
               "not written, $form: not the older one, $n");
            nap(0.05);
        }
    }

    is_cache($c->try('chat', %kept, client => $_), 'HIT',
             'what else is there is read') for @client;
    is(http_get($c->port, '/llm')->json->{cache}{dropped} > 0 ? 1 : 0, 1,
       'it was dropped');

    for my $worker ($c->{t}->workers) {
        system($prlimit, "--pid=$worker", '--fsize=unlimited:');
    }

    no_alerts($c->{t}, name => 'not written: no alerts');
}


# --- 200 purges, and a file that is full: the next purge works

{
    my $c = Caching->new(workers => 2, path => '%%DIR%%/cache size=4m',
                         server => 'keepalive_requests 100000;');
    my $bad = 0;

    for my $n (1 .. 200) {
        $bad++ if purge($c, qq({"model":"nosuch$n"}))->status != 200;
    }

    is($bad, 0, '200 purges');

    my $n = 12_000;
    is(load($c->port, $n), $n, 'full: all are answered');

    for my $what ('{"model":"nobody"}', '{"scope":"nobody"}') {
        is(purge($c, $what)->status, 200, "full: $what");
    }

    my %ask = (say => Caching::question());
    is_cache($c->try('chat', %ask), $_, 'full: stores') for qw(MISS HIT);
    is(load($c->port, 600), 600, 'full: more');

    my $cache = http_get($c->port, '/llm')->json->{cache};
    cmp_ok($cache->{entries}, '>', 100, 'full: entries');
    is(purge($c, '{"purge":"all"}')->status, 200, 'full: all');
    is($c->try('chat', %ask, control => 'only-if-cached')->{r}->status, 504,
       'full: it is gone') for 1 .. 6;
    ok(wait_for(sub { http_get($c->port, '/llm')->json
                      ->{cache}{entries} == 0 }, 15), 'full: all are gone');

    unlike($c->{t}->error_log, qr/MDB_MAP_FULL/, 'full: no purge failed');
    no_alerts($c->{t}, name => 'full: no alerts');
}


# --- reloads under writes: the file keeps to its size

{
    my $c = Caching->new(workers => 2, path => '%%DIR%%/cache size=4m',
                         server => 'keepalive_requests 100000;');
    my ($port, $most) = ($c->port, 0);

    is(load($port, 4000), 4000, 'filled');

    my $end = load_on($port);

    for my $n (1 .. 5) {
        ok($c->{t}->reload, "reload $n");
        nap(0.6);
        $most = file_size($c) if file_size($c) > $most;
    }

    $end->();
    is(load($port, 2000), 2000, 'goes on');
    $most = file_size($c) if file_size($c) > $most;
    cmp_ok($most, '<', 6 * 1024 * 1024, '5 reloads: size=4m is 4m');
    no_alerts($c->{t}, name => 'reloads: no alerts');
}

done_testing();
