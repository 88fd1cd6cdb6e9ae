#!/usr/bin/perl

# A provider that says exactly the bytes it is told to: odd but lawful HTTP,
# unlawful HTTP, odd event streams.  Whatever it is, the client gets an answer
# in time that does not pretend to be whole if it is not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use IO::Socket::INET;
use POSIX ();
use Test::More;
use Time::HiRes ();

use LLM::E2E;
use Gateway;

skip_without_module();

my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;


# --- pieces ---

my $JSON = '{"id":"x","object":"chat.completion","choices":[{"index":0,'
           . '"message":{"role":"assistant","content":"hi"},'
           . '"finish_reason":"stop"}],"usage":{"prompt_tokens":3,'
           . '"completion_tokens":4}}';
my $CHUNK = '{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,'
            . '"delta":{"content":"%s"},"finish_reason":null}]}';
my $FINISH = '{"id":"x","object":"chat.completion.chunk","choices":[{"index":0'
             . ',"delta":{},"finish_reason":"stop"}]}';

sub delta { return sprintf $CHUNK, $_[0] }

sub stream_of { return join '', map { "data: $_\n\n" } @_ }

my $GOOD = stream_of(delta('a'), delta('b'), $FINISH, '[DONE]');

sub plain {
    my ($body, $head) = @_;
    return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
           . ($head // 'Content-Length: ' . length($body) . "\r\n")
           . "\r\n$body";
}

sub sse {
    my ($body, $head) = @_;
    return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
           . ($head // 'Content-Length: ' . length($body) . "\r\n")
           . "\r\n$body";
}

my $TE = "Transfer-Encoding: chunked\r\n";

sub chunked {
    my ($body, $format) = @_;
    return sprintf(($format // '%x') . "\r\n%s\r\n0\r\n\r\n",
                   length $body, $body);
}


# --- scripts: name => [steps]; text is sent, a reference to a number
# is a pause; RST and KEEP say how it ends (the default is a close) ---

my %SCRIPT = (

    # lawful
    http10 => ["HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
               . $JSON],
    no_reason => ["HTTP/1.1 200\r\nContent-Type: application/json\r\n"
                  . 'Content-Length: ' . length($JSON) . "\r\n\r\n$JSON",
                  'KEEP'],
    lf_only => ["HTTP/1.1 200 OK\nContent-Type: application/json\n"
                . 'Content-Length: ' . length($JSON) . "\n\n$JSON", 'KEEP'],
    informational => ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints"
                      . "\r\nLink: </x>; rel=preload\r\n\r\n"
                      . "HTTP/1.1 102 Processing\r\n\r\n", \0.05,
                      plain($JSON), 'KEEP'],
    extensions => [plain(chunked($JSON, '000%X;a=b;c="d"'), $TE), 'KEEP'],
    trailers => [plain(sprintf("%x\r\n%s\r\n0\r\nX-T: canary\r\nX-U: v\r\n\r\n",
                               length $JSON, $JSON), $TE), 'KEEP'],
    identity => [plain($JSON, "Content-Encoding: identity\r\nContent-Length: "
                       . length($JSON) . "\r\n"), 'KEEP'],
    te_case => [plain(chunked($JSON), "transfer-encoding: CHUNKED\r\n"),
                'KEEP'],
    no_type => ["HTTP/1.1 200 OK\r\nContent-Length: " . length($JSON)
                . "\r\n\r\n$JSON", 'KEEP'],
    big_head => [plain($JSON, 'X-Big: ' . 'b' x 20000 . "\r\nContent-Length: "
                       . length($JSON) . "\r\n"), 'KEEP'],
    slow_head => [(map { $_, \0.002 }
                   split //, plain($JSON)), 'KEEP'],
    empty => [plain(''), 'KEEP'],
    no_content => ["HTTP/1.1 204 No Content\r\n\r\n", 'KEEP'],
    head_then_wait => [plain(substr($JSON, 0, 20), 'Content-Length: '
                             . length($JSON) . "\r\n"), \0.2,
                       substr($JSON, 20), 'KEEP'],
    accel => [plain($JSON, "X-Accel-Redirect: /internal\r\n"
                    . "X-Accel-Limit-Rate: 1\r\nX-Accel-Buffering: yes\r\n"
                    . "X-Accel-Charset: koi8-r\r\nX-Accel-Expires: 100\r\n"
                    . "Set-Cookie: a=b\r\nConnection: X-Hop\r\nX-Hop: 1\r\n"
                    . "Keep-Alive: timeout=5\r\nX-Kept: 1\r\nX-Kept: 2\r\n"
                    . 'Content-Length: ' . length($JSON) . "\r\n"), 'KEEP'],

    # unlawful
    both_lengths => [plain(chunked($JSON), $TE . "Content-Length: 5\r\n")],
    both_lengths2 => [plain(chunked($JSON), "Content-Length: 5\r\n$TE")],
    two_lengths => [plain($JSON, "Content-Length: 5\r\nContent-Length: "
                          . length($JSON) . "\r\n")],
    minus => [plain($JSON, "Content-Length: -5\r\n")],
    hex => [plain($JSON, "Content-Length: 0x10\r\n")],
    huge => [plain($JSON, 'Content-Length: ' . '9' x 30 . "\r\n")],
    te_gzip => [plain($JSON, "Transfer-Encoding: gzip, chunked\r\n")],
    bad_chunk => [plain("xyz\r\n$JSON\r\n0\r\n\r\n", $TE)],
    huge_chunk => [plain('f' x 20 . "\r\n$JSON\r\n0\r\n\r\n", $TE)],
    neg_chunk => [plain("-5\r\n$JSON\r\n0\r\n\r\n", $TE)],
    no_crlf => [plain(sprintf("%x\r\n%sXX0\r\n\r\n", length $JSON, $JSON),
                      $TE)],
    no_last => [plain(sprintf("%x\r\n%s\r\n", length $JSON, $JSON), $TE)],
    half_last => [plain(sprintf("%x\r\n%s\r\n0\r\n", length $JSON, $JSON),
                        $TE)],
    too_big_head => [plain($JSON, 'X-Big: ' . 'b' x 70000 . "\r\n")],
    endless_head => ["HTTP/1.1 200 OK\r\n", map { 'X-' . 'a' x 999 . ": b\r\n" }
                     1 .. 200],
    no_colon => [plain($JSON, "this is no header\r\n")],
    nul => [plain($JSON, "X-A: b\0c\r\n")],
    not_http => ["SSH-2.0-OpenSSH_9.2\r\n"],
    http2 => ["\0\0\x12\4\0\0\0\0\0" . "\0" x 18],
    http09 => [$JSON],
    switching => ["HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
                  'HOLD'],
    nothing => [],
    rst => ['RST'],
    half_status => ['HTTP/1.1 20'],

    # error answers
    e500 => ["HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", 'KEEP'],
    e500_empty => ["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 'KEEP'],
    e418 => ["HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\n\r\npot",
             'KEEP'],
    e302 => ["HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n"
             . "Content-Length: 0\r\n\r\n", 'KEEP'],

    # streams
    s_good => [sse(chunked($GOOD), $TE), 'KEEP'],
    s_chunk_each => [sse(join('', map { sprintf "1\r\n%s\r\n", $_ }
                              split //, $GOOD) . "0\r\n\r\n", $TE), 'KEEP'],
    s_type_case => ["HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream;"
                    . "charset=UTF-8\r\n$TE\r\n" . chunked($GOOD), 'KEEP'],
    s_close => [sse($GOOD, '')],
    s_no_space => [sse(join('', map { "data:$_\n\n" } delta('a'), $FINISH,
                            '[DONE]')), 'KEEP'],
    s_fields => [sse("\xef\xbb\xbf: hello\n\nretry: 500\n\nfoo: bar\nid: 7\n"
                     . 'data: ' . delta('a') . "\n\nevent: x\n\nid\ndata: "
                     . delta('b') . "\nweird\n:c\n\ndata\n\ndata: $FINISH\n\n"
                     . "data: [DONE]\n\n"), 'KEEP'],
    s_after_done => [sse($GOOD . stream_of(delta('late'), '[DONE]')), 'KEEP'],
    s_done_no_end => [sse(stream_of(delta('a'), $FINISH) . 'data: [DONE]'),
                      'KEEP'],
    s_utf8 => [sse(stream_of(delta("\xff\xfe"), delta('b'), $FINISH,
                             '[DONE]')), 'KEEP'],
    s_surrogate => [sse(stream_of(delta('\ud83d'), delta('\ude00'), $FINISH,
                                  '[DONE]')), 'KEEP'],
    s_deep => [sse(stream_of('[' x 100000 . ']' x 100000, delta('b'), $FINISH,
                             '[DONE]')), 'KEEP'],
    s_numbers => [sse(stream_of('1', '"x"', 'null', '[]', delta('b'), $FINISH,
                                '[DONE]')), 'KEEP'],
    s_null_choices => [sse(stream_of('{"choices":null}', '{}', delta('b'),
                                     $FINISH, '[DONE]')), 'KEEP'],
    s_null_error => [sse(stream_of(
        delta('a') =~ s/^\{/{"error":null,/r, $FINISH, '[DONE]')), 'KEEP'],
    s_two_choices => [sse(stream_of(
        delta('a'), delta('b') =~ s/"index":0/"index":1/r, $FINISH,
        $FINISH =~ s/"index":0/"index":1/r)), 'KEEP'],
    s_one_open => [sse(stream_of(
        delta('a'), delta('b') =~ s/"index":0/"index":1/r, $FINISH)), 'KEEP'],
    s_error_text => [sse(stream_of('{"error":"just words"}')), 'KEEP'],
    s_error_event => [sse("event: error\ndata: {\"message\":\"named\"}\n\n"),
                      'KEEP'],
    s_empty => [sse(''), 'KEEP'],
    s_only_done => [sse(stream_of('[DONE]')), 'KEEP'],
    s_comments => [sse(": a\n\n: b\n\n"), 'KEEP'],
    s_garbage => [sse(join '', map { chr(($_ * 7919 >> 3) & 255) }
                      1 .. 20000), 'KEEP'],
    s_long_line => [sse('x' x 300000 . "\n\n" . $GOOD), 'KEEP'],
    s_bad_chunk_later => [sse(sprintf("%x\r\n%s\r\nzz\r\n", length
                                      stream_of(delta('a')),
                                      stream_of(delta('a'))), $TE), \0.1],
    s_cr => [sse($GOOD =~ s/\n/\r/gr), 'KEEP'],
    s_cr_split => [sse('', $TE), map({ sprintf("%x\r\n%s\r\n", length $_, $_),
                                       \0.02 }
                                     'data: ' . delta('a') . "\r", "\n\r",
                                     "\ndata: $FINISH\r\n", "\r",
                                     "\ndata: [DONE]\r\n\r\n"),
                   "0\r\n\r\n", 'KEEP'],
);


# --- the provider ---

my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 128)
    or die "listen: $!\n";
my $provider = fork();
die "fork: $!\n" if !defined $provider;
provide() if $provider == 0;

sub provide {
    setpgrp(0, 0);
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    $SIG{CHLD} = 'IGNORE';
    $SIG{PIPE} = 'IGNORE';
    my $parent = getppid();

    while (getppid() == $parent) {
        my $sock = $listen->accept or next;
        my $pid = fork();

        if (!$pid) {
            eval { serve($sock) };
            POSIX::_exit(0);
        }
    }

    POSIX::_exit(0);
}

sub serve {
    my ($sock) = @_;

    $sock->autoflush(1);
    setsockopt($sock, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1);
    my $buf = '';

    while (1) {
        while ($buf !~ /\r\n\r\n/) {
            sysread($sock, $buf, 65536, length $buf) or return;
        }

        $buf =~ s/^(.*?\r\n\r\n)//s;
        my $head = $1;
        my ($length) = $head =~ /^content-length: (\d+)/mi;
        $length //= 0;

        while (length $buf < $length) {
            sysread($sock, $buf, 65536, length $buf) or return;
        }

        substr $buf, 0, $length, '';
        my ($name) = $head =~ /^x-script: (\w+)/mi;

        for my $step (@{ $SCRIPT{$name} }) {
            if (ref $step) {
                Time::HiRes::sleep($$step);

            } elsif ($step eq 'HOLD') {
                sleep 30;

            } elsif ($step eq 'RST') {
                setsockopt($sock, Socket::SOL_SOCKET(), Socket::SO_LINGER(),
                           pack('ii', 1, 0));
                return;

            } elsif ($step ne 'KEEP') {
                syswrite($sock, $step) // return;
            }
        }

        my $last = $SCRIPT{$name}[-1] // '';
        return if $last ne 'KEEP';
    }
}

END {
    if ($provider && $$ != $provider) {
        local $?;
        kill 'TERM', -$provider;
        waitpid $provider, 0;
    }
}


# --- the gateway ---

my ($t) = gateway(
    mock => bless({}, 'NoMock'),
    location => 'llm_adapter_ping off; llm_adapter_timeout first_token=3s '
                . 'idle=2s plain=2s;',
    server => 'location /internal { internal; return 200 "INTERNAL"; }');

sub NoMock::port { return $listen->sockport }


# Over both protocols at once: what h1 got, after it was compared with h2's.

sub told {
    my ($script, %o) = @_;

    my $start = now();
    my ($r, $r2) = map {
        my $c = $_ ? h2($t->port('h2')) : h1($t->port);
        ask($c, 'chat', stream => $script =~ /^s_/ ? 1 : 0,
            test => "wire $script", headers => ['x-script' => $script]);
    } 0, 1;
    my $took = now() - $start;

    is($r2->status, $r->status, "$script: h2 has the same status");
    is($r2->body, $r->body, "$script: h2 has the same body")
        if $script !~ /^s_/ && $r->status == 200;
    cmp_ok($took, '<', ($o{within} // 2) * $slow, "$script: in time");

    return $r;
}


# lawful and plain: the provider's bytes

for my $script (qw(http10 no_reason lf_only informational extensions trailers
                   identity te_case no_type big_head slow_head head_then_wait
                   accel))
{
    my $r = told($script, within => 6);
    is($r->status, 200, "$script: status");
    is($r->body, $JSON, "$script: body");
    is($r->end, $script eq 'accel' ? 'length' : $r->end, "$script: end");
    ok($r->complete, "$script: whole");
    is(scalar @{ $r->trailers }, 0, "$script: no trailers");
    is(log_of($t, "wire $script")->{error}, '', "$script: no error");
    is(log_of($t, "wire $script")->{completion_tokens}, 4, "$script: usage");

    next if $script ne 'accel';

    is($r->header($_), undef, "$_ is not passed on")
        for qw(x-accel-redirect x-accel-limit-rate x-accel-buffering
               x-accel-expires x-accel-charset set-cookie keep-alive);
    is_deeply([$r->header_all('x-kept')], [1, 2], 'other headers are');
}

{
    my $r = told('empty');
    is($r->status, 502, 'empty: that is no answer');
    like($r->body, qr/"code":"truncated"/, 'empty: it says so');
    ok($r->complete, 'empty: whole');

    $r = told('no_content');
    is($r->status, 204, 'no_content: status');
    is($r->body, '', 'no_content: body');
    ok($r->complete, 'no_content: whole');
}

for (['e500', 500, 'oops'], ['e500_empty', 500, ''], ['e418', 418, 'pot']) {
    my ($script, $status, $body) = @$_;
    my $r = told($script);
    is($r->status, $status, "$script: status");
    is($r->body, $body, "$script: body");
    ok($r->complete, "$script: whole");
    is(log_of($t, "wire $script")->{error}, "upstream_$status",
       "$script: \$llm_error");
}

{
    my $r = told('e302');
    is($r->status, 302, 'e302: as it is');
    ok($r->complete, 'e302: whole');
}

# unlawful: an error of ours

for my $script (qw(both_lengths both_lengths2 two_lengths minus hex huge
                   te_gzip bad_chunk huge_chunk neg_chunk no_crlf no_last
                   half_last too_big_head endless_head no_colon nul not_http
                   http2 http09 nothing rst half_status))
{
    my $r = told($script);
    is_error($r, 'chat', 502, $script);
    like(log_of($t, "wire $script")->{error},
         qr/^(?:upstream_invalid|upstream_closed|truncated)$/,
         "$script: \$llm_error");
    unlike($r->body, qr/"hi"|OpenSSH/, "$script: not the provider's bytes");
}

{
    my $r = told('switching', within => 6);
    is_error($r, 'chat', $r->status, 'switching');
    like($r->status, qr/^50[24]$/, 'switching: an error');
}


# streams that are whole

my %WANT = (
    s_good => [delta('a'), delta('b')],
    s_chunk_each => [delta('a'), delta('b')],
    s_type_case => [delta('a'), delta('b')],
    s_close => [delta('a'), delta('b')],
    s_no_space => [delta('a')],
    s_done_no_end => [delta('a')],
    s_surrogate => [delta('\ud83d'), delta('\ude00')],
    s_null_choices => ['{"choices":null}', '{}', delta('b')],
    s_null_error => [delta('a') =~ s/^\{/{"error":null,/r],
    s_cr => [delta('a'), delta('b')],
    s_cr_split => [delta('a')],
    s_after_done => [delta('a'), delta('b')],
);

for my $script (sort keys %WANT) {
    my $r = told($script);
    is_whole($r, 'chat', "$script: whole");
    my @data = grep { defined } map { $_->{data} } $r->sse;
    is_deeply(\@data, [@{ $WANT{$script} }, $FINISH, '[DONE]'],
              "$script: the same events");
    is(log_of($t, "wire $script")->{error}, '', "$script: no error");
}

{
    my $r = told('s_fields');
    is_whole($r, 'chat', 's_fields: whole');
    my @list = grep { defined $_->{data} && $_->{data} ne '' } $r->sse;
    is_deeply([map { $_->{data} } @list],
              [delta('a'), delta('b'), $FINISH, '[DONE]'],
              's_fields: the same events');
    is($list[0]{id}, 7, 's_fields: its id');
    is(scalar(grep { ($_->{event} // '') eq 'x' && defined $_->{data} }
              $r->sse), 0, 's_fields: an event without data is none');

    # every choice has its reason: complete without [DONE]

    $r = told('s_two_choices');
    is_whole($r, 'chat', 's_two_choices: whole');

    $r = told('s_one_open');
    is_in_band($r, 'chat', 's_one_open');
    is(log_of($t, 'wire s_one_open')->{error}, 'truncated',
       's_one_open: $llm_error');
}

# events that are no JSON are left out

for my $script (qw(s_utf8 s_deep)) {
    my $r = told($script);
    is_whole($r, 'chat', "$script: whole");
    my @data = grep { defined } map { $_->{data} } $r->sse;
    is_deeply(\@data, [delta('b'), $FINISH, '[DONE]'],
              "$script: that one is left out");
    is(log_of($t, "wire $script")->{error}, 'malformed_event',
       "$script: \$llm_error");
}

{
    # JSON, but not what we know: passed on

    my $r = told('s_numbers');
    is_whole($r, 'chat', 's_numbers: whole');
    like($r->body, qr/data: 1\n\n.*data: \[\]\n\n/s, 's_numbers: passed on');
}

# streams that fail

for (['s_error_text', qr/^[45]\d\d$/], ['s_error_event', qr/^[45]\d\d$/],
     ['s_empty', qr/^502$/], ['s_comments', qr/^502$/],
     ['s_garbage', qr/^502$/])
{
    my ($script, $status) = @$_;
    my $r = told($script);
    like($r->status, $status, "$script: status");
    ok($r->complete, "$script: HTTP ends well");
    isnt(log_of($t, "wire $script")->{error}, '', "$script: \$llm_error");
    is_error($r, 'chat', $r->status, $script) if $script ne 's_error_text';
}

{
    my $r = told('s_bad_chunk_later');
    is_in_band($r, 'chat', 's_bad_chunk_later');
    like(log_of($t, 'wire s_bad_chunk_later')->{error},
         qr/^(?:truncated|upstream_invalid)$/, 's_bad_chunk_later: class');

    $r = told('s_only_done');
    ok($r->complete, 's_only_done: HTTP ends well');

    $r = told('s_long_line');
    is_whole($r, 'chat', 's_long_line: the rest is whole');
    cmp_ok(length $r->body, '<', 10000, 's_long_line: a field of no meaning');
}

ok(!(grep { !alive($_) } $t->workers), 'the worker lives');
no_alerts($t);

done_testing();
