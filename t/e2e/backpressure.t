#!/usr/bin/perl

# A client that reads slowly, or not at all: the provider is read no faster,
# the worker does not grow, nothing times out that should not, and all of it
# arrives.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Digest::MD5;
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;

# enough for 100 MB, less than the client's pause
my $plain = $ENV{LLM_VALGRIND} ? 20 : 3;
my $tls = '';

if (have_tls()) {
    $tls = <<'EOT';
        listen 127.0.0.1:%%PORT_tls%% ssl;
        ssl_certificate %%DIR%%/localhost.crt;
        ssl_certificate_key %%DIR%%/localhost.key;
EOT
}

my $mock = start_mock();

require File::Temp;
my $dir = File::Temp->newdir;
my ($crt, $key) = make_cert("$dir");

my ($t) = gateway(
    mock => $mock,
    files => { 'localhost.crt' => slurp($crt), 'localhost.key' => slurp($key) },
    server => $tls,
    location => 'llm_adapter_ping off; '
                . "llm_adapter_timeout first_token=2s idle=1s plain=${plain}s;",
    locations => {
        '/total/v1/' => 'llm_adapter_ping off; llm_adapter_timeout total=1s;',
        '/stall/v1/' => 'llm_adapter_ping off; send_timeout 1s;',
        '/limit/v1/' => 'llm_adapter_ping off; limit_rate 20k;',
        '/short/v1/' => 'llm_adapter_ping off; client_body_timeout 1s; '
                        . 'send_timeout 1s;',
    });

my $MB = $ENV{LLM_VALGRIND} ? 40 : 100;
my @WAYS = ('h1', 'h2', $tls ? 'tls' : ());


sub client {
    my ($way, %o) = @_;

    return $way eq 'h2'  ? h2($t->port('h2'), timeout => 30, %o)
         : $way eq 'tls' ? h1($t->port('tls'), timeout => 30, %o,
                              tls => { ca => $crt })
                         : h1($t->port, timeout => 30, %o);
}


# Waits until the provider writes no more: bytes it has written since $from.

sub stalled_at {
    my ($from) = @_;

    my $out = -1;

    wait_for {
        my $now = $mock->stats->{bytes_out};
        my $same = $now == $out;
        $out = $now;
        $same;
    } 15 * $slow, 0.3 * $slow;

    return $out - $from;
}


# Reads to the end, keeping only a digest: (bytes, md5, most KB the worker
# had).  pace: bytes a second for the first $first bytes.

sub drink {
    my ($c, $r, %o) = @_;

    my $md5 = Digest::MD5->new;
    my ($bytes, $most, $reads) = (0, 0, 0);
    my $start = now();

    # what an LLM::H2 read together with the head is in the body already
    my $got = $r->body;

    while (1) {
        $got = $c->read_some($r) if $got eq '';
        last if $got eq '';

        $md5->add($got);
        $bytes += length $got;
        $got = '';

        # a body of 100 MB need not be kept
        $r->{body} = '';
        $#{ $r->{chunks} } = -1;
        $#{ $r->{reads} } = -1 if $r->{reads};
        $#{ $c->{frames} } = -1 if $c->{frames};

        if ($reads++ % 64 == 0) {
            my $kb = $t->rss('anon');
            $most = $kb if $kb > $most;
        }

        nap($start + $bytes / $o{pace} - now())
            if $o{pace} && $bytes < $o{first};
    }

    return ($bytes, $md5->hexdigest, $most);
}


# --- 100 MB, plain and streamed ---

my @ANSWERS = (
    ['embeddings', 0, { total => "${MB}m" }],
    ['chat', 1, { events => 10000, size => 2000, seed => 3 }],
);

for my $answer (@ANSWERS) {
    my ($kind, $streamed, $set) = @$answer;
    my %ask = (stream => $streamed, mock => $set,
               $streamed ? (more => '"stream_options":{"include_usage":true}')
                         : ());

    # what it is, and the worker's size when it has carried it quickly

    my ($bytes, $md5);

    {
        my $direct = h1($mock->port, timeout => 30);
        start_ask($direct, $kind, %ask);
        my $r = $direct->read_head;
        ($bytes, $md5) = drink($direct, $r);
        cmp_ok($bytes, '>', $streamed ? 2e7 : $MB * 1e6,
               "$kind: the answer is large");
    }

    for my $way (@WAYS) {
        my $c = client($way, window => 1 << 20, conn_window => 1 << 24);
        my $s = start_ask($c, $kind, %ask);
        my $r = head_of($c, $s);
        my @got = drink($c, $r);
        is($got[0], $bytes, "$kind, $way, fast: its length");
        is($got[1], $md5, "$kind, $way, fast: its bytes");
        ok($r->complete, "$kind, $way, fast: whole");
    }

    for my $way (@WAYS) {
        my $name = "$kind, $way, slow";
        my $base = $t->rss('anon');
        my $from = $mock->stats->{bytes_out};
        my $c = client($way, rcvbuf => 16384, window => 65535);
        my $s = start_ask($c, $kind, %ask, test => $name);
        my $r = head_of($c, $s);
        is($r->status, 200, "$name: it runs");

        my $out = stalled_at($from);
        cmp_ok($out, '<', $bytes * 0.7, "$name: the provider waits ("
               . ($out >> 10) . ' KB written)');
        cmp_ok($t->rss('anon') - $base, '<', 2048,
               "$name: the worker does not grow while it waits");

        # longer than plain or idle
        nap($streamed ? 1.5 : 3.3);
        is($r->end, '', "$name: it is not ended");
        is(scalar(logs_of($t, $name)), 0, "$name: and not logged");

        my @got = drink($c, $r, pace => 2e6, first => 1.5e6);
        my $grown = $got[2] - $base;

        is($got[0], $bytes, "$name: its length");
        is($got[1], $md5, "$name: its bytes");
        ok($r->complete, "$name: whole");
        cmp_ok($grown, '<', 2048, "$name: the worker grew by $grown KB");

        my $log = log_of($t, $name);
        is($log->{status}, 200, "$name: status in the log");
        is($log->{error}, '', "$name: no error in the log");
        isnt($log->{prompt_tokens}, '', "$name: usage in the log");
    }
}


# --- slow, but in time: pauses on both sides ---

{
    my @all;

    for my $way (@WAYS) {
        my $c = client($way, rcvbuf => 16384, window => 32768);
        my $s = start_ask($c, 'chat', stream => 1, test => "$way pauses",
                          mock => { events => 40, size => 50000 });
        push @all, [$way, $c, head_of($c, $s)];
    }

    for (1 .. 3) {
        nap(1.3);
        $_->[1]->read_body($_->[2], limit => length($_->[2]->body) + 200000)
            for @all;
    }

    for (@all) {
        my ($way, $c, $r) = @$_;
        $c->read_body($r);
        is_whole($r, 'chat', "$way, a client that pauses: whole");
        is(log_of($t, "$way pauses")->{error}, '',
           "$way, a client that pauses: no error");
    }
}


# --- the true timeouts still work after a pause ---

{
    my $c = client('h1', rcvbuf => 16384);
    start_ask($c, 'chat', stream => 1, test => 'idle after a pause',
              mock => { events => 60, size => 50000, at => 50,
                        fault => 'stall' });
    my $r = $c->read_head;
    nap(2);
    my $start = now();
    $c->read_body($r);
    is_in_band($r, 'chat', 'a stall after a pause');
    cmp_ok(now() - $start, '<', 6 * $slow, 'a stall after a pause: in time');
    is(log_of($t, 'idle after a pause')->{error}, 'timeout_idle',
       'a stall after a pause: $llm_error');
}


# --- a client that never reads again ---

{
    my $before = $mock->stats;
    my $start = now();
    my @all;

    for my $way (@WAYS) {
        for my $case (['chat', 1, { events => 100000, size => 1000 }],
                      ['embeddings', 0, { total => '60m' }])
        {
            my ($kind, $streamed, $set) = @$case;
            my $name = "$kind, $way, stalled";
            my $c = client($way, rcvbuf => 16384, window => 65535, auto => 0);
            my $s = start_ask($c, $kind, stream => $streamed, test => $name,
                              prefix => '/stall', mock => $set);
            my $r = head_of($c, $s);
            is($r->status, 200, "$name: it runs");
            push @all, [$name, $c, $r];
        }
    }

    nap(0.3);
    is($mock->stats->{aborted}, $before->{aborted},
       'stalled: not before send_timeout');

    my $stats = $mock->wait_stat('aborted', $before->{aborted} + @all,
                                 6 * $slow);
    is($stats->{aborted}, $before->{aborted} + @all,
       "stalled: the provider's connections are closed");
    cmp_ok(now() - $start, '<', 5 * $slow, 'stalled: in time');
    is(log_of($t, $_->[0])->{error}, 'client_timeout', "$_->[0]: \$llm_error")
        for @all;
}


# --- what the provider does while the client does not read ---

{
    my %much = (events => 14, size => 50000);
    my @cases = (
        ['ends', '', { %much }],
        ['ends and closes', '', { %much, fault => 'close_after' }],
        ['ends by closing', '', { %much, stream_framing => 'close' }],
        ['is cut', '', { %much, fault => 'cut', at => 10 }],
        ['resets', '', { %much, fault => 'reset_mid', at => 10 }],
        ['says an error', '', { %much, fault => 'error_event', at => 10 }],
        ['takes too long', '/total', { %much, fault => 'stall', at => 10 }],
    );
    my @all;

    for my $way (@WAYS) {
        for (@cases) {
            my ($what, $prefix, $set) = @$_;
            my $name = "$way, the provider $what behind a slow client";
            my $c = client($way, rcvbuf => 16384, window => 32768);
            my $s = start_ask($c, 'chat', stream => 1, prefix => $prefix,
                              test => $name, mock => $set);
            push @all, [$name, $c, head_of($c, $s), $what];
        }
    }

    nap(1.5);

    for (@all) {
        my ($name, $c, $r, $what) = @$_;
        $c->read_body($r);

        if ($what =~ /^ends/) {
            is_whole($r, 'chat', "$name: whole");
            is(log_of($t, $name)->{error}, '', "$name: no error");
            next;
        }

        is_in_band($r, 'chat', $name);
        is(log_of($t, $name)->{error},
           $what eq 'says an error' ? 'upstream_error'
           : $what eq 'takes too long' ? 'timeout_total' : 'truncated',
           "$name: \$llm_error");

        my @bad = grep { defined $_->{data} && !json_decode($_->{data}) }
                  $r->sse;
        is(scalar @bad, 0, "$name: only whole events");
    }

}

for my $way (@WAYS) {
    my $c = client($way, rcvbuf => 16384, window => 32768);
    my $s = start_ask($c, 'embeddings', mock => { total => '1m',
                                                  fault => 'close_after' });
    my $r = head_of($c, $s);
    nap(0.7);
    $c->read_body($r);
    is($r->body, $mock->last_response_body,
       "$way, plain, the provider closes behind a slow client: its bytes");
}


# --- send_timeout is about the client, not about the provider ---

{
    my @cases = (['chat', 1, { delay => '2500ms', events => 3 }],
                 ['chat', 0, { delay => '2500ms', events => 3 }],
                 ['messages', 1, { events => 2, gap => '2500ms' }],
                 ['embeddings', 0, { total => '40k', rate => '20k' }]);
    my @running;

    for my $way (@WAYS) {
        for (@cases) {
            my ($kind, $streamed, $set) = @$_;
            my $name = "$kind, $way, a silent provider, "
                       . ($streamed ? 'stream' : 'plain');
            my $c = client($way);
            my $s = start_ask($c, $kind, stream => $streamed, test => $name,
                              prefix => '/short', mock => $set);
            push @running, [$c, $s, $kind, $streamed, $name];
        }
    }

    for (@running) {
        my ($c, $s, $kind, $streamed, $name) = @$_;
        my $r = head_of($c, $s);
        $c->read_body($r);

        $streamed ? is_whole($r, $kind, "$name: whole")
                  : ok($r->status == 200 && $r->complete, "$name: whole");
        is(log_of($t, $name)->{error}, '', "$name: no error");
    }
}


# --- limit_rate ---

for my $way (@WAYS) {
    my $name = "$way, limit_rate";
    my $c = client($way);
    my $start = now();
    my $r = ask($c, 'chat', stream => 1, prefix => '/limit',
                mock => { events => 150, size => 300, gap => '5ms' });
    is_whole($r, 'chat', "$name: whole");
    is_same_events($r, $mock, name => $name, hidden => 1);
    cmp_ok(now() - $start, '<', 2.5 * $slow, "$name: no delay");

    my @chunks = @{ $r->chunks };
    cmp_ok(scalar @chunks, '>', 20, "$name: live");

    $start = now();
    $c = client($way);
    $r = ask($c, 'embeddings', prefix => '/limit', mock => { total => '300k' });
    ok($r->complete, "$name, plain: whole");
    is($r->body, $mock->last_response_body, "$name, plain: its bytes");
    cmp_ok(now() - $start, '<', 2.5 * $slow, "$name, plain: no hang");
}


# --- one that stalls among many that do not ---

for my $way (@WAYS) {
    my $name = "$way, beside a stalled one";
    my $stalled = client($way, rcvbuf => 16384, window => 65535, auto => 0);
    my $s = start_ask($stalled, 'embeddings', mock => { total => '60m' });
    my $r = head_of($stalled, $s);
    is($r->status, 200, "$name: it is stalled");
    nap(0.3);

    my @clients = map { client($way) } 1 .. 40;
    my $start = now();
    my @streams = map { start_ask($_, 'chat', stream => 1,
                                  mock => { events => 20, gap => '10ms' }) }
                  @clients;
    my $whole = 0;

    for my $i (0 .. $#clients) {
        my $x = head_of($clients[$i], $streams[$i]);
        $clients[$i]->read_body($x);
        $whole++ if $x->complete && $x->body =~ /\[DONE\]\n\n\z/;
    }

    is($whole, 40, "$name: all others are whole");
    cmp_ok(now() - $start, '<', 5 * $slow, "$name: and in time");
    $stalled->abort('rst');
}

{
    # streams of one connection have windows of their own

    my $c = h2($t->port('h2'), timeout => 30, auto => 'conn',
               window => 30000, conn_window => 1 << 24);
    my $stalled = start_ask($c, 'embeddings', auto => 0, test => 'h2 stalled',
                            mock => { total => '60m' });
    $c->read_head($stalled);
    my @streams = map { start_ask($c, 'chat', stream => 1, auto => 1,
                                  mock => { events => 30, size => 3000,
                                            gap => '5ms' }) } 1 .. 20;
    $c->read_body($_) for @streams;
    is(scalar(grep { $_->complete && $_->body =~ /\[DONE\]\n\n\z/ } @streams),
       20, 'h2, one stream is stalled: the others are whole');
    is($stalled->end, '', 'h2: the stalled one still waits');
    $c->reset($stalled);
    is(log_of($t, 'h2 stalled')->{status}, 499, 'h2: and can be reset');
}

no_alerts($t);

done_testing();
