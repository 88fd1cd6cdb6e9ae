#!/usr/bin/perl

# What a review of retries and breakers has found, each case failed once: how
# one client takes a provider away from all others, what passes by the
# classification of errors, who is told to wait.  What takes time is in
# failing_review_time.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use IO::Socket::INET;
use POSIX ();
use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('needs two workers');

my $CANARY = 'sk-canary-failing-review';
my $BIG = 70_000;


# --- a provider that says what the mock does not: MODEL => its whole answer,
# --- or a sub that makes it of the request's body

my $canned;

sub canned_provider {
    my (%answers) = @_;

    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64)
        or die "listen: $!\n";

    $canned = fork() // die "fork: $!\n";
    return $listen->sockport if $canned;

    $SIG{$_} = 'DEFAULT' for qw(TERM INT ALRM);
    $SIG{PIPE} = 'IGNORE';
    alarm 300;

    while (1) {
        my $sock = $listen->accept or next;
        my $body = read_request($sock) // next;
        my ($model) = $body =~ /"model":"([^"]*)"/;
        my $answer = $answers{ $model // '' } // "HTTP/1.1 404 No\r\n\r\n";

        $answer = $answer->($body) if ref $answer;
        print $sock $answer;
        close $sock;
    }

    POSIX::_exit(0);
}


sub read_request {
    my ($sock) = @_;

    my $text = '';

    while ($text !~ /\r\n\r\n/) {
        sysread $sock, $text, 65536, length $text or return;
    }

    my ($head, $body) = split /\r\n\r\n/, $text, 2;
    my ($length) = $head =~ /^content-length: *(\d+)/im;

    while (length $body < ($length // 0)) {
        sysread $sock, $body, 65536, length $body or return;
    }

    return $body;
}


sub http_answer {
    my ($status, $body, $headers) = @_;
    $headers //= 'Content-Length: ' . length($body) . "\r\n";
    return "HTTP/1.1 $status Status\r\nContent-Type: application/json\r\n"
           . "Connection: close\r\n$headers\r\n$body";
}


END {
    if ($canned) {
        my $status = $?;
        kill 'TERM', $canned;
        waitpid $canned, 0;
        $? = $status;
    }
}


# an error of more than can be held back, and one of more than is read at all

my $canned_port = canned_provider(
    (map {
        my $error = qq({"error":{"message":"Incorrect key $CANARY",)
                    . '"type":"x","code":null},"pad":"';
        ("big-$_" => http_answer($_, $error . 'x' x $BIG . '"}'),
         "huge-$_" => http_answer($_, $error . 'x' x 2_000_000 . '"}'));
    } 401, 500, 503, 429),
    'big-200' => http_answer(200,
        qq({"error":{"message":"Incorrect key $CANARY","type":"x",)
        . '"code":"invalid_api_key"},"pad":"' . 'x' x $BIG . '"}'),
    'empty-length' => http_answer(200, ''),
    'empty-close' => http_answer(200, '', ''),
    'empty-chunked' => http_answer(200, "0\r\n\r\n",
                                   "Transfer-Encoding: chunked\r\n"),
    (map { ("echo$_" => \&echo_id) } 1, 2),
);

# a server whose clients may choose the ids of what it makes

sub echo_id {
    my ($id) = $_[0] =~ /"request_id":"(\w+)"/;
    $id //= 'resp_own';
    return http_answer(200, qq({"id":"$id","object":"response",)
        . '"status":"completed","output":[],"usage":{"input_tokens":1,'
        . '"output_tokens":1,"total_tokens":2}}');
}


# --- NAME => port and members; each has the models NAME, alone, and NAME-b,
# --- with b behind it

my $two = 'breaker failures=2 window=60s open=60s;';
my $five = 'breaker failures=5 window=60s open=60s;';
my $keyed = 'key env:TEST_E2E_KEY;';

my %PROVIDER = (
    (map { ("told$_" => "A $two") } 0 .. 3),
    (map { ("mid$_" => "A $keyed $five") } 0 .. 4),
    (map { ("theirs$_" => "A key client; $two") } 0 .. 4),
    big => "CANNED $keyed breaker off;",
    (map { ("alone$_" => "CANNED $keyed $two") } 0 .. 4),
    (map { ("empty$_" => "CANNED $two") } 0 .. 3),
    bearer => "A key none; header Authorization 'Bearer $CANARY'; breaker off;",
    apikey => "A key none; header x-api-key $CANARY; breaker off;",
    (map { ("refuses$_" => "A $five") } 0 .. 3),
    xai => "A $keyed $five",
    told => 'A breaker off;',
    limited => "A $five",
    again => 'A breaker off;',
    maker => 'B breaker off;',
    echo => 'CANNED breaker off;',
);

my $conf = '';

for my $name (sort keys %PROVIDER) {
    my ($port, $text) = split / /, $PROVIDER{$name}, 2;
    $conf .= Targets::provider($name, $port, $text)
        . "    llm_adapter_model $name $name:m-a x$name:m-a;\n"
        . "    llm_adapter_model $name-b $name:m-a x$name:m-a b:m-b xb:m-b;\n";
}

my $g = Targets->new(
    env => { TEST_E2E_KEY => $CANARY }, connections => 2048,
    vars => { CANNED => $canned_port },
    locations => {
        '/once/v1/' => 'llm_adapter_retry attempts=1;',
        '/two/v1/' => 'llm_adapter_retry attempts=2 backoff=20ms..500ms '
                      . 'budget=1000%;',
    },
    server => join("\n", map { "location /state/$_ { "
                               . "return 200 \$llm_breaker_$_; }" }
                         sort keys %PROVIDER),
    http => $conf . <<'EOT');
    llm_adapter_model big-* big b:m-b;
    llm_adapter_model huge-* big b:m-b;
    llm_adapter_model alone-500 alone0:big-500;
    llm_adapter_model alone-503 alone1:big-503;
    llm_adapter_model alone-401 alone2:big-401;
    llm_adapter_model alone-huge alone3:huge-500;
    llm_adapter_model alone-200 alone4:big-200;
    llm_adapter_model empty-length empty0:empty-length b:m-b;
    llm_adapter_model empty-close empty1:empty-close b:m-b;
    llm_adapter_model empty-chunked empty2:empty-chunked b:m-b;
    llm_adapter_model empty-alone empty3:empty-close;
    llm_adapter_model maker-a maker:m-b a:m-a;
    llm_adapter_model a-maker a:m-a maker:m-b;
    llm_adapter_model maker-echo maker:m-b echo:echo1;
    llm_adapter_model echo-maker echo:echo2 maker:m-b;
    llm_adapter_model limit-big limited:big b:m-b;
    llm_adapter_model limit-small limited:small b:m-b;
EOT

my $t = $g->{t};


sub state_of { return http_get($t->port, "/state/$_[0]")->body }

# n requests: "500 500 503"

sub statuses {
    my ($n, $kind, %o) = @_;
    return join ' ', map { $g->try($kind, %o)->{r}->status } 1 .. $n;
}

sub as { return (headers => [authorization => "Bearer $_[0]"]) }

sub never_shown {
    my ($x, $name) = @_;
    unlike($x->{r}->head . $x->{r}->body, qr/canary/, "$name: no key");
}


# --- told in the stream: what clients are to blame for

my $i = 0;

for my $case (['chat', 'content_policy_violation'],
              ['chat', 'context_length_exceeded'],
              ['responses', 'invalid_request_error'],
              ['messages', 'invalid_request_error'])
{
    my ($kind, $code) = @$case;
    my $name = "$kind, $code in the stream";
    my @how = ($kind, model => 'told' . $i, prefix => '/once');

    $g->set(a => { fault => 'error_event', code => $code });
    is(statuses(3, @how, stream => 1), '200 200 200', "$name: three times");
    $g->set;
    is_outcome($g->try(@how), { attempts => 1, calls => '1 0' },
               "$name: closed");

    $i++;
}

# ... or their keys

$i = 0;

for my $case (['chat', 'invalid_api_key'], ['chat', 'insufficient_quota'],
              ['messages', 'authentication_error'])
{
    my ($kind, $code) = @$case;
    my $name = "$kind, key client, $code in the stream";
    my @how = ($kind, model => "theirs$i");

    $g->set(a => { fault => 'error_event', code => $code });

    for (1 .. 3) {
        my $x = $g->try(@how, stream => 1, as('bad'));
        is($x->{r}->body, $g->{a}->last_response_body, "$name: unchanged");
    }

    $g->set;
    is_outcome($g->try(@how, as('good')), { attempts => 1, calls => '1 0' },
               "$name: closed");
    $i++;
}


# --- told in the stream: our key and our credit

$i = 0;

for my $case (['chat', 'invalid_api_key', 'provider_auth'],
              ['completions', 'invalid_api_key', 'provider_auth'],
              ['responses', 'invalid_api_key', 'provider_auth'],
              ['messages', 'authentication_error', 'provider_auth'],
              ['chat', 'insufficient_quota', 'provider_quota'])
{
    my ($kind, $code, $want) = @$case;
    my $name = "$kind, our key, $code in the stream";
    my $x = $kind eq 'messages' ? 'x' : '';

    $g->set(a => { fault => 'error_event', code => $code,
                   message => "Incorrect API key provided: $CANARY" });
    my $got = $g->try($kind, model => "mid$i-b", stream => 1);
    my $e = is_in_band($got->{r}, $kind, $name);
    is($e->{code} // $want, $want, "$name: its code");
    is($got->{log}{error}, $want, "$name: \$llm_error");
    never_shown($got, $name);
    is_outcome($g->try($kind, model => "mid$i-b"),
               { attempts => 1, calls => '1 1', provider => "${x}b" },
               "$name: open");
    $i++;
}


# --- errors that are longer than what is held back

for my $size (qw(big huge)) {
    for my $status (500, 503, 429, 401) {
        my $name = "an error $status, $size";

        $g->set;
        my $x = $g->try('chat', model => "$size-$status", prefix => '/two');
        is_outcome($x, { attempts => 2, provider => 'b', calls => '0 1' },
                   "$name: another one");
        never_shown($x, $name);
    }
}

for my $model (qw(alone-500 alone-503 alone-huge)) {
    like(statuses(2, 'chat', model => $model, prefix => '/once'),
         qr/^50\d 50\d$/, "$model: fails");
    is_outcome($g->try('chat', model => $model, prefix => '/once'),
               { status => 503, code => 'breaker_open' }, "$model: counts");
}

{
    my $x = $g->try('chat', model => 'alone-401');
    is_outcome($x, { status => 502, code => 'provider_auth', attempts => 1,
                     should => 'false' }, 'a long 401: ours');
    never_shown($x, 'a long 401');
    is(state_of('alone2'), 'open', 'a long 401: opens');

    $x = $g->try('chat', model => 'alone-200');
    is_outcome($x, { status => 502, code => 'provider_auth', attempts => 1 },
               'a long error within a 200: ours');
    never_shown($x, 'a long error within a 200');
}


# --- our key in a header of the block

for my $case (['chat', 0, 'bearer', { status => 401 }],
              ['chat', 1, 'bearer', { fault => 'error_first',
                                      code => 'invalid_api_key' }],
              ['chat', 1, 'bearer', { fault => 'error_event',
                                      code => 'invalid_api_key' }],
              ['messages', 0, 'apikey', { status => 401 }],
              ['messages', 1, 'apikey', { status => 403 }])
{
    my ($kind, $stream, $model, $how) = @$case;
    my $name = "a key in a header, $kind, stream $stream";

    $g->set(a => { %$how, message => "Incorrect key $CANARY" });
    my $x = $g->try($kind, stream => $stream, model => $model);
    is($x->{log}{error}, 'provider_auth', "$name: \$llm_error");
    never_shown($x, $name);
    next if ($how->{fault} // '') eq 'error_event';
    is_outcome($x, { status => 502, attempts => 1, calls => '1 0' }, $name);

    $g->set(a => { %$how, message => "Incorrect key $CANARY" });
    is_outcome($g->try($kind, stream => $stream, model => "$model-b"),
               { attempts => 2, calls => '1 1' }, "$name: another one");
}


# --- a client's own rate limit

for my $case (['chat', 0], ['chat', 1], ['messages', 1]) {
    my ($kind, $stream) = @$case;
    my $name = "key client, a 429, $kind, stream $stream";
    my $x = $kind eq 'messages' ? 'x' : '';
    my @how = ($kind, stream => $stream, model => 'theirs3-b');

    $g->set(a => { status => 429, retry_after => 600 });
    my $got = $g->try(@how, as('limited'));
    is_outcome($got, { status => 429, attempts => 1, calls => '1 0',
                       after => 600, provider => "${x}theirs3" },
               "$name: its own matter");
    is($got->{r}->body, $g->{a}->last_response_body, "$name: unchanged");

    $g->set(a => { status => 429, limits => 'off' });
    is_outcome($g->try(@how, as('limited')),
               { status => 429, attempts => 1, calls => '1 0' },
               "$name: not asked again");

    $g->set;
    is_outcome($g->try(@how, as('good')),
               { attempts => 1, calls => '1 0', provider => "${x}theirs3" },
               "$name: nobody else waits");
}


# --- a 200 that is empty

for my $case (['length', 'chat', 0], ['close', 'chat', 1],
              ['chunked', 'embeddings', 0])
{
    my ($how, $kind, $stream) = @$case;
    my $name = "an empty 200, $how, $kind, stream $stream";

    $g->set;
    is_outcome($g->try($kind, stream => $stream, model => "empty-$how",
                       prefix => '/two'),
               { attempts => 2, provider => 'b', calls => '0 1' },
               "$name: another one");
}

is_outcome($g->try('chat', stream => $_, model => 'empty-alone',
                   prefix => '/once'),
           { status => 502, code => 'truncated', log_error => 'truncated' },
           "an empty 200, alone, stream $_") for 0, 1;
is(state_of('empty3'), 'open', 'an empty 200: counts');


# --- told to wait: also if there is no further attempt

$g->set(a => { status => 429, retry_after => 600, fails => 1 });
is_outcome($g->try('chat', model => 'told-b', prefix => '/once'),
           { status => 429, attempts => 1, calls => '1 0' },
           'attempts=1: told to wait');
is_outcome($g->try('chat', model => 'told-b', prefix => '/once'),
           { attempts => 1, calls => '1 1', provider => 'b' },
           'attempts=1: the next one goes elsewhere');

# a limit is one model's

$g->set(a => { status => 429, retry_after => 60, fails => 1 });
is_outcome($g->try('chat', model => 'limit-big'),
           { attempts => 2, calls => '1 1', model => 'm-b' },
           'a limited model: another one');
is_outcome($g->try('chat', model => 'limit-small'),
           { attempts => 1, calls => '2 1', model => 'small' },
           'a limited model: others of that provider do not wait');
is_outcome($g->try('chat', model => 'limit-big'),
           { attempts => 1, calls => '2 2', model => 'm-b' },
           'a limited model: it does');

# one word about asking again

for my $given ('true', 'false') {
    $g->set(a => { status => 429, retry_after => 100,
                   should_retry => $given });
    my $x = $g->try('chat', model => 'again', prefix => '/once');
    is(join(',', $x->{r}->header_all('x-should-retry')), 'false',
       "x-should-retry: $given and a long wait: one header");
}


# --- limits that are not used up tell no wait

my $in45 = POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time + 45));
my $ANTHROPIC = 'anthropic-ratelimit';

my %LIMITS = (
    openai => 'x-ratelimit-remaining-requests: 9999|'
              . 'x-ratelimit-reset-requests: 8.64s|'
              . 'x-ratelimit-remaining-tokens: 100000|'
              . 'x-ratelimit-reset-tokens: 45s',
    anthropic => "$ANTHROPIC-requests-remaining: 49|"
                 . "$ANTHROPIC-requests-reset: $in45|"
                 . "$ANTHROPIC-tokens-remaining: 80000|"
                 . "$ANTHROPIC-tokens-reset: $in45",
    exhausted => 'x-ratelimit-remaining-requests: 0|'
                 . 'x-ratelimit-reset-requests: 45s',
);

for my $case (['chat', 0, 503, 'openai'], ['chat', 1, 503, 'openai'],
              ['chat', 0, 429, 'openai'], ['chat', 0, 503, 'exhausted'],
              ['messages', 0, 529, 'anthropic'],
              ['messages', 1, 529, 'anthropic'])
{
    my ($kind, $stream, $status, $limits) = @$case;
    my $name = "$kind, stream $stream, $status, limits: $limits";

    my %how = (status => $status, limits => 'off',
               headers => $LIMITS{$limits});
    $g->set(a => { %how, fails => 1 });
    is_outcome($g->try($kind, stream => $stream, model => 'one'),
               { attempts => 2, calls => '2 0' }, "$name: asked again");

    $g->set(a => \%how);
    is_outcome($g->try($kind, stream => $stream, model => 'one',
                       prefix => '/once'),
               { status => $status, attempts => 1, after => undef },
               "$name: no Retry-After");
    $g->set;
    is_outcome($g->try($kind, stream => $stream, model => 'two'),
               { attempts => 1, calls => '1 0' }, "$name: nobody waits");
}


# --- 403 and 402 may be about one request

$i = 0;

for my $case (
    ['a 403', 'chat', { status => 403, body =>
        '{"error":{"message":"You are not allowed to sample from this model",'
        . '"type":"invalid_request_error","param":null,"code":null}}' }],
    ['a 402', 'chat', { status => 402, body =>
        '{"error":{"message":"This request requires more credits, or fewer '
        . 'max_tokens. You requested up to 1000000 tokens, but can only '
        . 'afford 5000.","code":402}}' }],
    ['a 403', 'messages', { status => 403, code => 'permission_error' }],
) {
    my ($what, $kind, $how) = @$case;
    my $x = $kind eq 'messages' ? 'x' : '';
    my $p = "refuses$i";
    my $name = "$kind, $what";

    $g->set;
    is_outcome($g->try($kind, model => "$p-b"), { provider => "$x$p" },
               "$name: others are well");
    $g->set(a => $how);
    is_outcome($g->try($kind, model => "$p-b"),
               { attempts => 2, calls => '1 1' }, "$name: another one");
    $g->set;
    is_outcome($g->try($kind, model => "$p-b"),
               { attempts => 1, calls => '1 0', provider => "$x$p" },
               "$name: nobody else is kept away");
    $i++;
}

$g->set(a => { status => 403 });
is(statuses(2, 'chat', model => 'refuses3', prefix => '/once'), '502 503',
   'a 403, and nothing else comes: at once');


# --- a key's refusal by 400 (xAI)

$g->set(a => { status => 400, body =>
    '{"code":"Client specified an invalid argument","error":"Incorrect API '
    . 'key provided: sk-wr***ng. You can obtain an API key from '
    . 'https://console.x.ai."}' });

{
    my $x = $g->try('chat', model => 'xai');
    is_outcome($x, { status => 502, code => 'provider_auth',
                     log_error => 'provider_auth' }, 'a 400 about our key');
    unlike($x->{r}->body, qr/sk-wr/, 'a 400 about our key: not shown');
    is(state_of('xai'), 'open', 'a 400 about our key: open');
    is_outcome($g->try('chat', model => 'xai-b'),
               { provider => 'b', attempts => 1, calls => '1 1' },
               'a 400 about our key: another one');

    $x = $g->try('chat', model => 'theirs4', as('sk-wrong'));
    is_outcome($x, { status => 400 }, 'a 400 about a client\'s key');
    is($x->{r}->body, $g->{a}->last_response_body, '... is unchanged');
}


# --- who made what: from the last event on, and nobody takes it over

for my $fault ('', 'done_open') {
    my $name = $fault || 'well';

    $g->set;
    my $client = h1($t->port, timeout => 20);
    start_ask($client, 'responses', model => 'maker-a', stream => 1,
              mock => { events => 2, $fault ? (fault => $fault) : () });
    my $head = $client->read_head;
    $client->read_body($head, until => qr/response\.completed.*?\n\n/s);
    my ($id) = $head->body =~ /"id": ?"(resp_\w+)"/;
    my $next = ask(h1($t->port, timeout => 20), 'responses',
                   model => 'a-maker',
                   more => qq("previous_response_id":"$id"));
    is($next->header('x-llm-provider'), 'maker',
       "$name: the next turn goes to the maker at once");
    $client->close;
}

$g->set;

{
    my $first = $g->try('responses', model => 'maker-echo');
    is_outcome($first, { provider => 'maker' }, 'a response is made');
    my ($id) = $first->{r}->body =~ /"id": ?"(resp_\w+)"/;
    my @next = ('responses', model => 'echo-maker',
                more => qq("previous_response_id":"$id"));

    is_outcome($g->try(@next), { provider => 'maker' }, 'its next turn');
    is_outcome($g->try('responses', model => 'echo-maker',
                       more => qq("request_id":"$id")),
               { provider => 'echo' }, 'another provider says the same id');
    is_outcome($g->try(@next), { provider => 'maker' },
               'its next turn goes to the same maker');
}


# --- plain answers that are cut behind what is held back

for my $case (['clean_cut', 'chunked'], ['cut', 'close'],
              ['clean_cut', 'close'])
{
    my ($fault, $framing) = @$case;

    for my $total (100, 200_000) {
        my $name = "$fault, $framing, $total bytes";

        $g->set(a => { fault => $fault, plain => $framing, total => $total });
        my $x = $g->try('chat', model => 'one', prefix => '/once');
        is($x->{log}{error}, 'truncated', "$name: \$llm_error");
        ok($x->{r}->status == 502 || !$x->{r}->complete,
           "$name: does not look whole")
            or diag('status ' . $x->{r}->status . ', '
                    . length($x->{r}->body) . ' bytes');
    }
}

no_alerts($t);
unlike($t->error_log, qr/\Q$CANARY/, 'no key in the error log');
done_testing();
