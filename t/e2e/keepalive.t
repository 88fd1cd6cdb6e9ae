#!/usr/bin/perl

# Connections to the provider: a few carry everything, a stale one costs
# nothing, and no request is sent twice that the provider may have seen.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;

my ($t, $mock) = gateway(
    workers => 1,
    vars => { DEAD => free_port() },
    server => 'keepalive_requests 1000000;',
    location => 'llm_adapter_passthrough openai;',
    locations => {
        '/named/v1/' => 'llm_adapter named;',
        '/two/v1/' => 'llm_adapter two;',
        '/none/v1/' => 'llm_adapter none;',
        '/several/v1/' => 'llm_adapter several;',
        '/twice/v1/' => 'llm_adapter twice;',
    },
    http => <<'EOT');
    upstream provider.named {
        server 127.0.0.1:%%MOCK%%;
        keepalive 8;
    }

    upstream several {
        server 127.0.0.1:%%DEAD%% max_fails=0;
        server 127.0.0.1:%%MOCK%%;
        keepalive 1;
    }

    upstream twice {
        server 127.0.0.1:%%MOCK%% max_fails=0;
        server 127.0.0.1:%%MOCK%% max_fails=0;
    }

    llm_adapter_provider several {
        endpoint http://several/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_provider twice {
        endpoint http://twice/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_provider named {
        endpoint http://provider.named/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_provider two {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        keepalive 2;
        breaker off;
    }

    llm_adapter_provider none {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        keepalive 0;
        breaker off;
    }
EOT

# every shape an answer can have that leaves a connection usable
my @SHAPES = (
    ['chat', 0, { events => 3 }],
    ['chat', 1, { events => 3 }],
    ['messages', 1, { events => 3 }],
    ['chat', 0, { events => 3, plain => 'chunked' }],
    ['chat', 1, { events => 3, stream_framing => 'length' }],
    ['responses', 1, { events => 3 }],
    ['embeddings', 0, { dim => 8 }],
    ['completions', 1, { events => 3, chunk => 50 }],
    ['chat', 0, { status => 429 }],
    ['messages', 0, { events => 3, plain => 'chunked', chunk => 9 }],
);


sub counted {
    my ($code) = @_;
    my $before = $mock->stats;
    $code->();
    my $after = $mock->stats;
    return map { $after->{$_} - $before->{$_} } qw(requests connections);
}


# One request after the other on one connection; how many went wrong.

sub in_turn {
    my ($count, $prefix, @shapes) = @_;

    my $client = h1($t->port);
    my $wrong = 0;

    for my $i (0 .. $count - 1) {
        my ($kind, $streamed, $set) = @{ $shapes[$i % @shapes] };
        my $r = ask($client, $kind, stream => $streamed, mock => $set,
                    prefix => $prefix);
        my $want = $set->{status} // 200;
        $wrong++ if $r->status != $want || !$r->complete
                    || ($streamed && $r->body !~ /(?:\[DONE\]|_stop"}|"metadata":\{}}})\n\n\z/);
    }

    return $wrong;
}


# --- ten thousand in a row ---

{
    my $count = $ENV{LLM_VALGRIND} ? 1000 : 10000;
    my $wrong;
    my ($requests, $connections) = counted(sub {
        $wrong = in_turn($count, '', @SHAPES);
    });

    is($wrong, 0, "$count requests, plain and streamed: all are whole");
    is($requests, $count, 'the provider got each once');

    # a connection is used up to 1,000 times; two providers
    cmp_ok($connections, '<=', 2 + $count / 1000 + 2,
           "by $connections connections");
    cmp_ok($mock->stats->{open_connections}, '<=', 3, 'few are left open');
}

for my $shape (@SHAPES) {
    my ($kind, $streamed, $set) = @$shape;
    my $name = join ' ', $kind, $streamed ? 'stream' : 'plain',
               map { "$_=$set->{$_}" } sort keys %$set;
    my $wrong;
    my ($requests, $connections) = counted(sub {
        $wrong = in_turn(30, '', $shape);
    });
    is("$wrong $requests " . ($connections <= 1 ? 'few' : $connections),
       '0 30 few', "$name: its connection is used again");
}

{
    my $wrong;
    my ($requests, $connections) = counted(sub {
        $wrong = in_turn(2000, '/named', grep { $_->[0] ne 'messages' }
                                         @SHAPES);
    });
    is($wrong, 0, 'an upstream { } with keepalive: all are whole');
    cmp_ok($connections, '<=', 4, "by $connections connections");
}

{
    my ($requests, $connections) = counted(sub { in_turn(20, '/none',
                                                         $SHAPES[0]) });
    is($connections, 20, 'keepalive 0: each on its own');
    my $open = $mock->stats->{open_connections};
    nap(0.05);
    cmp_ok($mock->stats->{open_connections}, '<=', $open,
           'keepalive 0: none is kept');
}

{
    # the passthrough keeps connections too

    my ($requests, $connections) = counted(sub {
        my $client = h1($t->port);
        $client->request('GET', '/v1/files') for 1 .. 30;
    });
    is($requests, 30, 'passthrough: each once');
    cmp_ok($connections, '<=', 2, 'passthrough: by few connections');
}


# --- no more than keepalive says ---

{
    my $before = $mock->stats->{open_connections};
    my @clients = map { h1($t->port) } 1 .. 12;
    start_ask($_, 'chat', stream => 1, prefix => '/two',
              mock => { events => 3, gap => '100ms' }) for @clients;
    $_->read_response for @clients;

    my $left = wait_for {
        my $n = $mock->stats->{open_connections} - $before;
        $n <= 2 ? $n || 'none' : 0;
    } 2 * $slow;
    is($left, 2, 'keepalive 2: two of twelve are kept');

    my ($requests, $connections) = counted(sub {
        my @two = map { h1($t->port) } 1 .. 2;
        start_ask($_, 'chat', prefix => '/two', mock => { delay => '100ms' })
            for @two;
        $_->read_response for @two;
    });
    is("$requests $connections", '2 0', 'and both are used again');
}


# --- stale connections ---

for my $prefix ('', '/named') {
    my $what = $prefix ? 'upstream { }' : 'a host';

    # closed while idle: seen, or found out by sending

    for my $fault (qw(close_after half_close_idle)) {
        for my $pause (0, 0.03, 0.1) {
            my @status;
            my ($requests) = counted(sub {
                my $client = h1($t->port);
                for (1 .. 6) {
                    push @status, ask($client, 'chat', prefix => $prefix,
                                      mock => { fault => $fault,
                                                events => 2 })->status;
                    nap($pause);
                }
            });
            is_deeply(\@status, [(200) x 6],
                      "$what, $fault, $pause s between: all are answered");
            is($requests, 6, "$what, $fault, $pause s between: each once");
        }
    }

    # an idle connection that ends when the request comes: once more, on a
    # new one, and nobody notices

    for my $fault (qw(close reset)) {
        for my $streamed (0, 1) {
            my $client = h1($t->port);
            my $name = "$what, stale by $fault, "
                       . ($streamed ? 'stream' : 'plain');
            ask($client, 'chat', prefix => $prefix);

            my $r;
            my ($requests) = counted(sub {
                $r = ask($client, 'chat', stream => $streamed, test => $name,
                         prefix => $prefix,
                         mock => { fault => $fault, fails => 1,
                                   key => "$name $$", events => 3 });
            });
            is($r->status, 200, "$name: answered");
            is($requests, 2, "$name: by a second connection");
            $streamed ? is_whole($r, 'chat', "$name: whole")
                      : is($r->body, $mock->last_response_body,
                           "$name: its bytes");
            is(log_of($t, $name)->{error}, '', "$name: no error");
            is($r->header('x-llm-attempts'), 1, "$name: one attempt");

            # and if that fails too, it is an error, not a third time

            ask($client, 'chat', prefix => $prefix);
            ($requests) = counted(sub {
                $r = ask($client, 'chat', stream => $streamed,
                         prefix => $prefix, mock => { fault => $fault });
            });
            is_error($r, 'chat', 502, "$name, twice");
            is($requests, 2, "$name, twice: no third time");
        }
    }

    # something was answered: never again

    {
        my $client = h1($t->port);
        ask($client, 'chat', prefix => $prefix);
        my $r;
        my ($requests) = counted(sub {
            $r = ask($client, 'chat', prefix => $prefix,
                     mock => { fault => 'close_mid_head' });
        });
        is_error($r, 'chat', 502, "$what, half a head from an idle one");
        is($requests, 1, "$what, half a head: not sent again");
    }
}

for my $prefix ('/none', '/twice') {
    for my $fault (qw(close reset close_mid_head bad_head)) {
        for my $kind (qw(chat embeddings)) {
            my $r;
            my ($requests, $connections) = counted(sub {
                $r = ask(h1($t->port), $kind, prefix => $prefix,
                         mock => { fault => $fault });
            });
            my $name = "$prefix, $kind, $fault on a new connection";
            is_error($r, $kind, 502, $name);
            is("$requests $connections", '1 1', "$name: sent once");
        }
    }
}


# --- a server that can't be reached is passed over ---

{
    my @clients = map { h1($t->port) } 1 .. 10;
    start_ask($_, 'chat', prefix => '/several', mock => { delay => '50ms' })
        for @clients;
    my @status = map { $_->read_response->status } @clients;
    is_deeply(\@status, [(200) x 10], 'one of two servers is dead');
}


# --- a large body over a stale connection: sent again as a whole ---

for my $prefix ('', '/named') {
    my $client = h1($t->port, timeout => 20);
    my $more = '"x":"' . 'y' x 2_000_000 . '"';
    ask($client, 'chat', prefix => $prefix);
    my $r = ask($client, 'chat', prefix => $prefix, more => $more,
                mock => { fault => 'close', fails => 1,
                          key => "large $prefix $$" });
    is($r->status, 200, "'$prefix', a large body: answered");
    is($mock->last_body, body_of('chat', more => $more),
       "'$prefix', a large body: it came whole the second time");
}


# --- idle connections do not hold a worker that quits ---

SKIP: {
    skip 'one process', 3 if !$t->{master};

    my @clients = map { h1($t->port) } 1 .. 6;
    start_ask($_, 'chat', mock => { delay => '200ms' }) for @clients;
    $_->read_response for @clients;
    $_->close for @clients;
    cmp_ok($mock->stats->{open_connections}, '>=', 6, 'idle connections');

    ok($t->reload(old_gone => 1, timeout => 5), 'the old worker ends');
    my $gone = wait_for { $mock->stats->{open_connections} == 0 } 2;
    ok($gone, 'and its idle connections are closed');
}

no_alerts($t);

done_testing();
