#!/usr/bin/perl

# A provider fails and nothing was shown yet: who is asked again, after how
# long, and what the client is told when it was all in vain.  Streamed and
# plain, in each dialect.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use POSIX qw(strftime);
use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time');

my $refusing = free_port();

# Who is told to come back in a while is called less: one for each such case.

my $far = Targets::provider('fresh', 'A', 'breaker off; keepalive 0;')
          . "    llm_adapter_model fresh fresh:m-a xfresh:m-a;\n";

$far .= Targets::provider("far$_", 'A')
        . "    llm_adapter_model alone$_ far$_:m-a xfar$_:m-a;\n"
        . "    llm_adapter_model far$_ far$_:m-a xfar$_:m-a b:m-b xb:m-b;\n"
    for 1 .. 9;

my $g = Targets->new(
    names => [qw(a b c)],
    members => {
        map { $_ => <<"EOT" } qw(a b c)
breaker off;
        timeout first_token=400ms idle=400ms plain=400ms;
        model m-$_ input=@{[ { a => 100, b => 2, c => 3 }->{$_} ]} output=10;
EOT
    },
    vars => { REFUSING => $refusing },
    locations => {
        '/slow/v1/' => 'llm_adapter_retry attempts=4 backoff=100ms..5s '
                       . 'budget=1000%;',
        '/once/v1/' => 'llm_adapter_retry attempts=1;',
        '/twice/v1/' => 'llm_adapter_retry attempts=2 backoff=20ms..500ms '
                        . 'budget=1000%;',
        '/page/v1/' => 'llm_adapter_intercept_errors on; '
                       . 'error_page 500 =418 /page;',
        '/five/v1/' => 'llm_adapter_retry attempts=5 backoff=20ms..500ms '
                       . 'budget=1000%;',
    },
    server => 'location = /page { return 418 page; }',
    http => $far . <<'EOT');
    llm_adapter_provider gone {
        endpoint http://127.0.0.1:%%REFUSING%%/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_model gone gone;
    llm_adapter_model gone-a gone a:m-a;
EOT

my @ALL = (['chat', 0], ['chat', 1], ['messages', 0], ['messages', 1]);
my @CHAT = (['chat', 0], ['chat', 1]);


# For each of the forms: how the providers behave, what is asked, the outcome.
# In the wanted outcome A, B, C stand for the providers of the dialect.

sub each_form {
    my ($forms, $how, $ask, $want, $name, $more) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $form (@$forms) {
        my ($kind, $stream) = @$form;
        my $full = "$kind, " . ($stream ? 'stream' : 'plain') . ": $name";
        my %want = %$want;
        my $x = $kind eq 'messages' ? 'x' : '';

        $want{provider} =~ s/^([A-C])$/$x\l$1/ if $want{provider};

        $g->set(ref $how eq 'CODE' ? $how->($stream) : %$how);
        my $got = $g->try($kind, stream => $stream, %$ask);
        is_outcome($got, \%want, $full);
        $more->($got, $full) if $more;
    }
}


# --- nothing fails

each_form(\@ALL, {}, { model => 'three' },
    { provider => 'A', model => 'm-a', attempts => 1, calls => '1 0 0',
      log_upstream_status => 200, should => undef, after => undef },
    'nothing fails');


# --- the same provider once more: 500, 502, 408, 409, reset, closed, cut

my %RETRY = (
    'a 500' => { status => 500 },
    'a 502' => { status => 502, body => '<html>bad gateway</html>' },
    'a 408' => { status => 408 },
    'a 409' => { status => 409 },
    'a reset' => { fault => 'reset' },
    'a close' => { fault => 'close' },
    'a close within the head' => { fault => 'close_mid_head' },
    'no HTTP' => { fault => 'bad_head' },
);

for my $what (sort keys %RETRY) {
    my %how = %{ $RETRY{$what} };
    my $model = $how{fault} ? 'fresh' : 'one';
    my $name = $how{fault} ? 'fresh' : 'a';

    # (an Anthropic 408 is a timeout_error, which is not asked again)

    for my $form ($what =~ /408/ ? @CHAT : @ALL) {
        my $x = $form->[0] eq 'messages' ? 'x' : '';

        each_form([$form], { a => { %how, fails => 1 } }, { model => $model },
            { provider => "$x$name", model => 'm-a', attempts => 2,
              calls => '2 0 0', should => undef },
            "$what, once");
    }

    each_form(\@CHAT, { a => \%how }, { model => $model },
        { status => $how{status} // 502, provider => $name, attempts => 3,
          calls => '3 0 0', should => 'false', after => undef },
        "$what, for ever");
}

each_form(\@CHAT, { a => { fault => 'cut', at => 0, fails => 1 } },
    { model => 'one' },
    { provider => 'A', attempts => 2, calls => '2 0 0' },
    'cut before anything');

each_form([['chat', 0], ['messages', 0], ['embeddings', 0]],
    { a => { fault => 'cut', fails => 1 } },
    { model => 'one' },
    { provider => 'A', attempts => 2, calls => '2 0 0' },
    'cut in the middle');

each_form([['chat', 0]], { a => { fault => 'short' } }, { model => 'two' },
    { provider => 'B', attempts => 3, calls => '2 1 0' },
    'shorter than its length');

# the failure is over when the next one answers: nothing of it is left

each_form(\@CHAT, { a => { status => 500, fails => 2 } }, { model => 'one' },
    { provider => 'A', attempts => 3, calls => '3 0 0',
      log_upstream_status => '500, 500, 200' },
    'a 500 twice');

each_form(\@CHAT, { a => { status => 500, message => 'the last one' } },
    { model => 'one', prefix => '/once' },
    { status => 500, attempts => 1, calls => '1 0 0', should => undef,
      log_error => 'upstream_500' },
    'one attempt only: the client may try again',
    sub {
        my ($x, $name) = @_;
        is(is_error($x->{r}, 'chat', 500, $name)->{message}, 'the last one',
           "$name: the provider's own words");
    });


# --- each target gets its chance before one gets a second

each_form(\@ALL, { a => { status => 500 } }, { model => 'two' },
    { provider => 'B', model => 'm-b', attempts => 3, calls => '2 1 0' },
    'two targets, three attempts');

each_form(\@ALL, { a => { status => 500 } }, { model => 'three' },
    { provider => 'B', model => 'm-b', attempts => 2, calls => '1 1 0' },
    'three targets, three attempts');

each_form(\@CHAT, { a => { status => 500 }, b => { status => 500 } },
    { model => 'three' },
    { provider => 'C', model => 'm-c', attempts => 3, calls => '1 1 1' },
    'three targets, two fail');

each_form(\@CHAT, { map { $_ => { status => 500 } } qw(a b c) },
    { model => 'three', prefix => '/five' },
    { status => 500, attempts => 5, calls => '3 1 1', should => 'false' },
    'three targets, five attempts, all fail');

each_form(\@CHAT, { map { $_ => { status => 500 } } qw(a b c) },
    { model => 'three', prefix => '/twice' },
    { status => 500, provider => 'B', attempts => 2, calls => '1 1 0',
      should => 'false' },
    'three targets, two attempts, all fail');


# --- what is counted is what the answering target did

each_form(\@CHAT, { a => { status => 500, fails => 9 },
                    b => { prompt_tokens => 1000, events => 50 } },
    { model => 'three' },
    { provider => 'B', log_prompt_tokens => 1000, log_completion_tokens => 50,
      log_cost => '0.002500000', log_finish_reason => 'stop',
      log_upstream_status => '500, 200' },
    'usage and cost');

each_form([['chat', 1]],
    { a => { fault => 'error_first', usage => 'last', prompt_tokens => 777 },
      b => { prompt_tokens => 1000, events => 50 } },
    { model => 'three' },
    { provider => 'B', log_prompt_tokens => 1000, log_completion_tokens => 50,
      log_cost => '0.002500000' },
    'usage and cost, after an error event');


# --- errors in a 200

for my $case (
    ['plain, an error', [['chat', 0], ['messages', 0], ['responses', 0],
                         ['completions', 0], ['embeddings', 0]],
     { fault => 'error200' }],
    ['as the first event', [['chat', 1], ['messages', 1], ['responses', 1],
                            ['completions', 1]],
     { fault => 'error_first' }],
    ['response.failed at once', [['responses', 1]],
     { fault => 'error_event', at => 0 }],
) {
    my ($name, $forms, $how) = @$case;

    for my $form (@$forms) {
        my ($kind) = @$form;
        my $x = $kind eq 'messages' ? 'x' : '';

        each_form([$form], { a => { %$how, fails => 1 } }, { model => 'one' },
            { provider => "${x}a", attempts => 2, calls => '2 0 0' },
            "200 and $name, once");
        each_form([$form], { a => $how }, { model => 'three' },
            { provider => "${x}b", calls => $how->{at} ? '1 1 0' : '1 1 0',
              attempts => 2 },
            "200 and $name, another target");
    }
}

each_form([['messages', 1]],
    { a => { fault => 'error_first', code => 'overloaded_error',
             limits => 'off' } },
    { model => 'two' },
    { provider => 'B', attempts => 2, calls => '1 1 0' },
    'overloaded_error as the first event goes elsewhere at once');

each_form([['chat', 0]],
    { a => { body => '{"error":{"message":"slow down","type":"requests",'
                     . '"code":"rate_limit_exceeded"}}', limits => 'off' } },
    { model => 'two' },
    { provider => 'B', attempts => 2, calls => '1 1 0' },
    'rate_limit_exceeded in a 200 goes elsewhere at once');


# --- 429, 503, 529: without a time the next one at once, or the same later

for my $status (429, 503, 529) {

    each_form(\@ALL, { a => { status => $status, limits => 'off' } },
        { model => 'two' },
        { provider => 'B', attempts => 2, calls => '1 1 0' },
        "$status for ever, no time told");

    each_form(\@CHAT, { a => { status => $status, limits => 'off',
                               fails => 1 } },
        { model => 'one', prefix => '/slow' },
        { provider => 'A', attempts => 2, calls => '2 0 0' },
        "$status once, no time told, nobody else",
        sub {
            my ($x, $name) = @_;
            cmp_ok(($g->gaps('a'))[0], '>=', 45, "$name: after a back-off");
        });

    each_form(\@CHAT, { map { $_ => { status => $status, limits => 'off' } }
                        qw(a b c) },
        { model => 'three' },
        { status => $status, provider => 'C', attempts => 3,
          calls => '1 1 1', should => 'false' },
        "$status of all");
}

# told a near time: it waits, and asks the same one

each_form([['chat', 0], ['messages', 1]],
    { a => { status => 429, retry_after => 1, fails => 1 } },
    { model => 'two', prefix => '/slow' },
    { provider => 'A', attempts => 2, calls => '2 0 0', after => undef },
    '429 once, Retry-After 1',
    sub {
        my ($x, $name) = @_;
        cmp_ok(($g->gaps('a'))[0], '>=', 990, "$name: not before that");
    });

# told a time far away: the next one at once, and then not this one first

each_form([['chat', 0], ['messages', 1]],
    sub { (a => { status => 429, retry_after => 2 }) }, { model => 'far1' },
    { attempts => 2, calls => '1 1 0', model => 'm-b' },
    '429, Retry-After 2, beyond the back-off',
    sub {
        my ($x, $name) = @_;
        my $kind = $x->{kind};

        for my $stream (0, 1) {
            my $next = $g->try($kind, model => 'far1', stream => $stream);
            is_outcome($next, { attempts => 1, model => 'm-b' },
                       "$name: held");
        }

        is($g->calls, '1 3 0', "$name: not called meanwhile");

        is_outcome($g->try($kind, model => 'alone1'),
                   { status => 429, after => 2, attempts => 1,
                     calls => '2 3 0' },
                   "$name: but if there is nobody else");
        nap(2.1);
        $g->set;
        is_outcome($g->try($kind, model => 'far1'), { model => 'm-a' },
                   "$name: the first again later");
    });

# ... with nobody else: the provider's own words and time

each_form(\@ALL, { a => { status => 429, retry_after => 1,
                          message => 'slow down' } },
    { model => 'alone2' },
    { status => 429, attempts => 1, calls => '1 0 0', after => 1,
      should => undef, log_error => 'upstream_429' },
    '429, Retry-After beyond the back-off, alone',
    sub {
        my ($x, $name) = @_;
        is(is_error($x->{r}, $x->{kind}, 429, $name)->{message}, 'slow down',
           "$name: its words");
    });

each_form([['chat', 0]], { a => { status => 429, retry_after => 61 } },
    { model => 'alone3' },
    { status => 429, attempts => 1, calls => '1 0 0', after => 61,
      should => 'false' },
    'a wait of more than a minute: no SDK need wait for it');

each_form([['chat', 1]], { a => { status => 503, retry_after => 7 } },
    { model => 'alone4' },
    { status => 503, attempts => 1, calls => '1 0 0', after => 7,
      should => undef },
    '503, Retry-After beyond the back-off, alone');


# --- how the time is told

sub in_seconds { return strftime('%a, %d %b %Y %H:%M:%S GMT',
                                 gmtime time + $_[0]) }

sub rfc3339 { return strftime('%Y-%m-%dT%H:%M:%SZ', gmtime time + $_[0]) }

# (kind, controls, least ms between the calls)

my @NEAR = (
    ['Retry-After with a fraction', 'chat', { retry_after => '0.5' }, 490],
    ['an HTTP-date', 'chat', sub { { retry_after => in_seconds(2) } }, 800],
    ['retry-after-ms', 'chat',
     { retry_after_ms => 300, retry_after => 60 }, 295],
    ['x-ratelimit-reset-requests of an exhausted limit', 'chat',
     { limits => 'off', headers => 'x-ratelimit-remaining-requests: 0|'
                                   . 'x-ratelimit-reset-requests: 350ms|'
                                   . 'x-ratelimit-remaining-tokens: 100|'
                                   . 'x-ratelimit-reset-tokens: 1m30s' }, 345],
    ['x-ratelimit-reset-tokens of an exhausted limit', 'chat',
     { limits => 'off', headers => 'x-ratelimit-remaining-requests: 5|'
                                   . 'x-ratelimit-reset-requests: 1h|'
                                   . 'x-ratelimit-remaining-tokens: 0|'
                                   . 'x-ratelimit-reset-tokens: 0.4s' }, 395],
    ['anthropic-ratelimit-requests-reset', 'messages',
     sub { { limits => 'off', headers =>
             'anthropic-ratelimit-requests-remaining: 0|'
             . 'anthropic-ratelimit-requests-reset: ' . rfc3339(2) } }, 800],
    ['RetryInfo', 'chat',
     { limits => 'off', body => '{"error":{"code":429,"message":"quota",'
       . '"status":"RESOURCE_EXHAUSTED","details":[{"@type":'
       . '"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.4s"}]}}'
     }, 395],
);

for my $case (@NEAR) {
    my ($name, $kind, $how, $least) = @$case;

    each_form([[$kind, 0], [$kind, 1]], sub {
            my %more = %{ ref $how eq 'CODE' ? $how->() : $how };
            return (a => { status => 429, fails => 1, %more });
        }, { model => 'two', prefix => '/slow' },
        { provider => 'A', attempts => 2, calls => '2 0 0' },
        "$name",
        sub {
            my ($x, $full) = @_;
            cmp_ok(($g->gaps('a'))[0] // 0, '>=', $least,
                   "$full: not before that");
        });
}

# the same, far away: somebody else, who answers at once

my @FAR = (
    ['an HTTP-date', 'chat', sub { { retry_after => in_seconds(4) } }],
    ['retry-after-ms', 'chat', { retry_after_ms => 1500,
                                 retry_after => 0 }],
    ['RetryInfo', 'chat',
     { limits => 'off', body => '{"error":{"code":429,"message":"quota",'
       . '"status":"RESOURCE_EXHAUSTED","details":[{"@type":'
       . '"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}]}}'
     }],
);

my $n = 5;

for my $case (@FAR) {
    my ($name, $kind, $how) = @$case;
    my $model = 'far' . $n++;

    each_form([[$kind, 0]], sub {
            my %more = %{ ref $how eq 'CODE' ? $how->() : $how };
            return (a => { status => 429, %more });
        }, { model => $model },
        { model => 'm-b', attempts => 2, calls => '1 1 0' },
        "$name, far away");
}

# a provider that knows better

each_form(\@CHAT, { a => { status => 500, should_retry => 'false' } },
    { model => 'two' },
    { provider => 'B', attempts => 2, calls => '1 1 0' },
    'x-should-retry: false of the provider');


# --- nothing comes: the next one at once, never the same

for my $form (['chat', 0], ['chat', 1], ['messages', 1]) {

    each_form([$form], { a => { fault => 'hang' } }, { model => 'two' },
        { provider => 'B', model => 'm-b', attempts => 2, calls => '1 1 0' },
        'accepts and never answers');
}

each_form([['chat', 1], ['messages', 1]], { a => { first => '5s' } },
    { model => 'two' },
    { provider => 'B', attempts => 2, calls => '1 1 0' },
    'the first token after a long time');

each_form([['chat', 1]], { a => { fault => 'hang' } }, { model => 'one' },
    { status => 504, provider => 'A', attempts => 1, calls => '1 0 0',
      log_error => 'timeout_first_token', should => 'false' },
    'never answers, and nobody else');

each_form([['chat', 0]], { a => { fault => 'stall' } }, { model => 'one' },
    { status => 504, attempts => 1, calls => '1 0 0',
      log_error => 'timeout_plain' },
    'stalls in a plain answer, and nobody else');

each_form(\@CHAT, { a => { status => 504 } }, { model => 'two' },
    { provider => 'B', attempts => 2, calls => '1 1 0' },
    'a 504');


# --- the client's own mistakes are final

my %CLIENT = (
    'content policy' => { status => 400, code => 'content_policy_violation' },
    'a 400' => { status => 400 },
    'a 413' => { status => 413 },
    'a 422' => { status => 422 },
);

for my $what (sort keys %CLIENT) {
    each_form(\@ALL, { a => $CLIENT{$what} }, { model => 'three' },
        { status => $CLIENT{$what}{status}, provider => 'A', attempts => 1,
          calls => '1 0 0', should => undef,
          log_error => "upstream_$CLIENT{$what}{status}" },
        $what,
        sub {
            my ($x, $name) = @_;
            is($x->{r}->body, $g->{a}->last_response_body,
               "$name: the reason, unchanged");
        });
}


# --- nobody listens there

each_form(\@CHAT, {}, { model => 'gone-a' },
    { provider => 'A', model => 'm-a', attempts => 2, calls => '1 0 0',
      log_upstream_status => '502, 200' },
    'a refused connection, another target');

each_form(\@CHAT, {}, { model => 'gone' },
    { status => 502, code => 'upstream_connect', provider => 'gone',
      attempts => 3, calls => '0 0 0', log_error => 'upstream_connect',
      should => 'false' },
    'a refused connection, nobody else');


# --- what is sent to each is the client's request, but for the model

for my $stream (0, 1) {
    my @how = (model => 'two', stream => $stream, more => '"temperature":0.50');
    $g->set(a => { status => 500 });
    $g->try('chat', @how);

    my $want = body_of('chat', @how, model => 'm-b');
    my $got = $g->{b}->last_body;
    $got =~ s/,"stream_options":\{"include_usage":true\}//;
    is($got, $want, 'the body of the fallback, ' . ($stream ? 'stream'
                                                            : 'plain'));
}

# one that is large, and comes slowly: both get all of it

for my $chunked (0, 60000) {
    my $name = 'a large body, ' . ($chunked ? 'chunked' : 'with a length');
    my @how = (model => 'two', more => '"x":"' . 'y' x 1500000 . '"');

    $g->set(a => { status => 500 });
    is_outcome($g->try('chat', @how, chunked => $chunked),
               { provider => 'b', calls => '2 1 0' }, $name);
    ok($g->{a}->last_body eq body_of('chat', @how, model => 'm-a'),
       "$name: the first has it");
    ok($g->{b}->last_body eq body_of('chat', @how, model => 'm-b'),
       "$name: the other has it");
}


# --- error_page is for what is final

for my $stream (0, 1) {
    my @ask = ('chat', model => 'two', prefix => '/page', stream => $stream);

    $g->set(a => { status => 500, fails => 1 });
    is_outcome($g->try(@ask), { provider => 'a', attempts => 2,
                                calls => '2 0 0' },
               "error_page, stream $stream: not yet");
    $g->set(map { $_ => { status => 500 } } qw(a b));
    my $x = $g->try(@ask);
    is($x->{r}->status . ' ' . $x->{r}->body, '418 page',
       "error_page, stream $stream: in the end");
    is($g->calls, '2 1 0', "error_page, stream $stream: all were asked");
}


# --- the client's connection outlives all of it

for my $h2 (0, 1) {
    my $client = $h2 ? h2($g->port('h2')) : h1($g->port);
    my (@got, @want);

    for my $case (
        [200, { status => 500, fails => 1 }], [200, { fault => 'reset' }],
        [200, { fault => 'hang' }], [200, { fault => 'error_first' }],
        [400, { status => 400 }], [200, { fault => 'gzip' }],
        [200, { fault => 'cut', at => 0 }], [200, {}],
    ) {
        my ($status, $how) = @$case;

        for my $stream (0, 1) {
            $g->set(a => $how);
            my $r = $g->try('chat', model => 'two', client => $client,
                            stream => $stream)->{r};
            push @got, $r->status . ($r->complete ? ' whole' : ' cut');
            push @want, "$status whole";
        }
    }

    is_deeply(\@got, \@want, 'one connection for all' . ($h2 ? ', h2' : ''));
}

no_alerts($g->{t});
done_testing();
