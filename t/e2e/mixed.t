#!/usr/bin/perl

# Everything at once, at random: clients of all kinds that read, dawdle or
# leave, and a provider that answers, fails or falls silent.  What was whole at
# the provider is whole at the client, and in the end nothing is left over.
#
#   LLM_MIXED=SECONDS (6), LLM_SEED=N (of the time)

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use POSIX ();
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my $seconds = $ENV{LLM_MIXED} // 6;
my $seed = $ENV{LLM_SEED} // time;
my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;
my $jobs = 6;

diag("LLM_SEED=$seed LLM_MIXED=$seconds");

my $late = 'llm_adapter_timeout first_token=400ms idle=300ms '
           . "plain=${slow}s ";

my ($t, $mock) = gateway(
    connections => 512,
    server => 'client_body_buffer_size 16k; keepalive_requests 100000;',
    location => "$late total=3s;",
    locations => {
        '/ping/v1/' => "llm_adapter_ping 20ms head=30ms; $late total=3s;",
        '/flush/v1/' => 'llm_adapter_flush 15ms; llm_adapter_ping 40ms; '
                        . "send_timeout 500ms; $late total=3s;",
        '/drain/v1/' => "llm_adapter_client_abort drain; $late total=2s;",
        '/named/v1/' => "llm_adapter named; $late total=3s;",
        '/gzip/v1/' => 'gzip on; gzip_types text/event-stream '
                       . "application/json; $late total=3s;",
    },
    http => <<'EOT');
    upstream pool {
        server 127.0.0.1:%%MOCK%%;
        keepalive 4;
    }

    llm_adapter_provider named {
        endpoint http://pool/v1;
        dialect openai;
        key none;
        breaker off;
    }
EOT

my @KINDS = qw(chat messages responses completions embeddings);
my @FAULTS = qw(
    reset close hang hang_head close_mid_head bad_head error200 error_first
    error_event cut clean_cut reset_mid stall malformed no_done no_finish
    not_sse gzip no_stream_options short long done_open half_close_idle
    close_after
);


sub pick { return $_[rand @_] }


sub controls {
    my %set = (events => 1 + int rand 20, size => pick(1, 20, 300, 5000));

    $set{gap} = pick(1, 5, 20) . 'ms' if rand() < 0.4;
    $set{delay} = int(rand 60) . 'ms' if rand() < 0.3;
    $set{fault} = pick(@FAULTS) if rand() < 0.3;
    $set{at} = int rand 4 if rand() < 0.5;
    $set{status} = pick(400, 401, 404, 429, 500, 503) if rand() < 0.05;
    $set{eol} = pick(qw(lf crlf cr)) if rand() < 0.2;
    $set{stream_framing} = pick(qw(chunked length close)) if rand() < 0.2;
    $set{plain} = pick(qw(chunked length)) if rand() < 0.2;
    $set{chunk} = pick(1, 7, 100) if rand() < 0.1;
    $set{comments} = 1 if rand() < 0.1;
    $set{multiline} = 1 if rand() < 0.1;
    $set{unknown} = 1 if rand() < 0.1;
    $set{usage} = pick(qw(off last chunk)) if rand() < 0.2;
    $set{total} = pick('100k', '1m', '4m') if rand() < 0.15;
    $set{heartbeat} = '10ms' if rand() < 0.05;

    # large ones in tiny pieces take too long for these timeouts
    delete $set{chunk} if $set{total};

    return \%set;
}


# One request; what was wrong, or ''.

sub one {
    my ($client) = @_;

    my $h2 = $client->isa('LLM::H2');
    my $kind = pick(@KINDS);
    my $stream = $kind eq 'embeddings' ? 0 : rand() < 0.7;
    my $set = controls();
    my $prefix = pick('', '', '', '/ping', '/flush', '/drain', '/gzip',
                      $kind eq 'messages' ? '' : '/named');
    my %o = (stream => $stream, mock => $set, prefix => $prefix);
    $o{headers} = ['accept-encoding' => 'gzip'] if $prefix eq '/gzip';
    $o{more} = '"x":"' . 'y' x pick(10, 20000, 300000) . '"' if rand() < 0.1;
    $o{chunked} = 3000 if !$h2 && rand() < 0.1;

    my $start = now();
    my $s = start_ask($client, $kind, %o);

    # some leave before, some within

    return leave($client, $s) if rand() < 0.08;
    nap(rand 0.05) if rand() < 0.1;

    my $r = head_of($client, $s, timeout => 8 * $slow);

    if (rand() < 0.1) {
        $client->read_body($r, limit => rand 3000, timeout => 3);
        return leave($client, $s);
    }

    nap(rand 0.3) if rand() < 0.1;
    $client->read_body($r, timeout => 8 * $slow);

    my $what = "$kind stream=$stream '$prefix' "
               . join ' ', map { "$_=$set->{$_}" } sort keys %$set;

    return "$what: no end, status " . $r->status if $r->end eq '';
    return "$what: status " . $r->status
        if $r->status !~ /^(?:200|40[0134]|429|50[02349]|529)$/;
    return '' if $set->{fault} || $set->{status} || $prefix eq '/gzip'
                 || $r->status != 200;

    # a small window, many bytes: llm_adapter_timeout total
    return '' if !$stream && now() - $start > 1.9;

    return "$what: end " . $r->end if !$r->complete;
    return '' if !$stream;

    # no fault: whole, or an error if it took too long

    my $ended = $r->body =~ /(?:^data: \[DONE\]|^event: (?:message_stop|response\.(?:completed|incomplete))\n.*)\n\n\z/ms;
    return '' if $ended || in_band_error($r, $kind);
    return "$what: " . substr $r->body, -200;
}


sub leave {
    my ($client, $stream) = @_;

    if ($stream && rand() < 0.7) {
        $client->reset($stream) if !$stream->end;
        return '';
    }

    $client->abort(pick(qw(fin rst)));
    return 'gone';
}


sub job {
    my ($out) = @_;

    my ($end, $count, $client) = (now() + $seconds, 0);
    my @wrong;

    while (now() < $end) {
        $client //= rand() < 0.4
            ? h2($t->port('h2'), timeout => 8 * $slow,
                 (rand() < 0.2 ? (window => 2000) : ()))
            : h1($t->port, timeout => 8 * $slow,
                 (rand() < 0.2 ? (rcvbuf => 4096) : ()));
        my $said = eval { one($client) } // "died: $@";
        $count++;

        push @wrong, $said if $said ne '' && $said ne 'gone';

        if ($said ne '' || $client->error || $client->eof || rand() < 0.1) {
            $client->close;
            undef $client;
        }
    }

    $client->close if $client;
    print {$out} json_encode({ count => $count,
                               wrong => [@wrong[0 .. ($#wrong > 9 ? 9
                                                      : $#wrong)]] }), "\n";
    close $out;
}


# --- the jobs ---

my (@in, @pids);

for my $n (1 .. $jobs) {
    pipe(my $in, my $out) or die "pipe: $!\n";
    my $pid = fork();
    die "fork: $!\n" if !defined $pid;

    if (!$pid) {
        srand($seed + $n);
        eval { job($out) };
        POSIX::_exit(0);
    }

    close $out;
    push @in, $in;
    push @pids, $pid;
}

my ($count, @wrong) = (0);

for my $in (@in) {
    my $json = json_decode(scalar <$in>) // { count => 0,
                                              wrong => ['a job died'] };
    $count += $json->{count};
    push @wrong, @{ $json->{wrong} };
}

waitpid $_, 0 for @pids;

diag("$count requests");
cmp_ok($count, '>', 50, 'many requests');
is(scalar @wrong, 0, 'each ended as it should') or diag(join "\n", @wrong);


# --- what is left ---

my $calm = wait_for {
    my $stats = $mock->stats;
    $stats->{open_streams} == 0 && $stats->{open_connections} <= 64 * 2 + 8;
} 6 * $slow;
ok($calm, 'no stream is open at the provider');

my $r = ask(h1($t->port), 'chat', stream => 1);
is_whole($r, 'chat', 'all is well after that');

no_alerts($t);

done_testing();
