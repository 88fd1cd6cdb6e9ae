#!/usr/bin/perl

# What the official SDKs of OpenAI and Anthropic, for Python and Node, make of
# failures behind the gateway, with all their defaults (max_retries is 2):
# attempts do not multiply, waits are kept, and nothing that broke looks whole.
# The comments say what was observed of openai 3.54.0 and 7.57.0 (npm),
# anthropic 2.12.0 and 1.12.0 (npm).

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib abs_path("$FindBin::Bin/../lib"), $FindBin::Bin, "$FindBin::Bin/sdk";

use File::Copy qw(copy);
use Test::More;

use LLM::E2E;
use Gateway;
use SDK;
use Targets;

skip_without_module();
skip_under_valgrind('measures time');

my ($npm, $no_npm) = SDK::installed('sdk');
my ($python, $no_python) = SDK::installed('python');

plan(skip_all => "nothing could be installed: $no_npm; $no_python")
    if !$npm && !$python;

# Who is told to wait, or whose breaker is open, is so for a while: each case
# has a provider of its own.

my ($http, $next) = ('', 0);

for my $n (0 .. 29) {
    $http .= Targets::provider("own$n", 'A',
                               'breaker failures=1 window=10s '
                               . ($n < 20 ? 'open=1200ms;' : 'open=2m;'))
             . "    llm_adapter_model own$n own$n:m-a xown$n:m-a;\n"
             . Targets::provider("told$n", 'A')
             . "    llm_adapter_model told$n told$n:m-a xtold$n:m-a;\n";
}

my $retry = 'attempts=3 budget=1000%';

my $g = Targets->new(
    http => $http, retry => "$retry backoff=20ms..500ms",
    locations => {
        '/once/v1/' => 'llm_adapter_retry attempts=1;',
        '/later/v1/' => "llm_adapter_retry $retry backoff=20ms..5s;",
        '/slow/v1/' => 'llm_adapter_timeout first_token=300ms plain=300ms '
                       . 'idle=300ms;',
        '/resume/v1/' => "llm_adapter_retry $retry backoff=20ms..500ms "
                         . 'resume=on;',
    });

my $TEXT = qq(Hello,\n\n  "w\\o\trld", it is. );
my %break = (text => $TEXT, size => 3, at => 4);


# --- one SDK's process, which is told what to ask ---

my $talk;

sub talk_to {
    my ($name, @command) = @_;

    $talk = SDK->talk($g->{t}, @command, timeout => 60);
    $talk->{name} = $name;
}


# One call of an SDK: what came of it, and the requests that were made of it.
# a, b: how the providers behave; want: as told below.

sub is_seen {
    my ($call, $what, $o, $want) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $name = "$talk->{name}, $call, $what";
    my $test = sprintf 'sdk %d.', ++$next;

    $g->set(a => $o->{a} // {}, b => $o->{b} // {}) if !$o->{as_it_is};

    my $base = 'http://127.0.0.1:' . ($o->{direct} ? $g->{a}->port : $g->port);
    my $x = $talk->ask({ call => $call, base => $base . ($o->{prefix} // ''),
                         model => $o->{model} // 'one', test => $test });
    my $e = $x->{error} // {};

    # requests: of the gateway; calls: of the providers; class and up: of the
    # exception, the latter one that it is derived from; least, most: seconds

    my $requests = $want->{requests} // 1;
    wait_for { logs_of($g->{t}, $test) >= $requests } 3
        if !$o->{direct};

    my %got = (
        requests => $o->{direct} ? 1 : scalar(logs_of($g->{t}, $test)),
        calls => $g->calls, class => $e->{class}, text => $x->{text},
        up => scalar((grep { $_ eq ($want->{up} // '') }
                      @{ $e->{classes} // [] })[0]),
        map({ $_ => $e->{$_} } qw(status code type)),
        map({ $_ => $x->{$_} } qw(end failed)),
        last => $x->{events}[-1]);

    my %want = (requests => 1, class => undef, up => undef, %$want);
    my ($least, $most) = map { delete $want{$_} } qw(least most);

    is_deeply({ map { $_ => $got{$_} } keys %want }, \%want, $name)
        or diag(json_encode($x));
    cmp_ok($x->{took}, '>=', $least, "$name: not too soon") if $least;
    cmp_ok($x->{took}, '<', $most // 5, "$name: not too late");

    return $x;
}


# A request of our own, to open a breaker.

sub open_breaker {
    my ($kind, $model) = @_;

    $g->set(a => { status => 500 });
    $g->try($kind, model => $model, prefix => '/once');
    $g->set;
}


# --- errors before any content: the status decides about the class, for both
# SDKs, and x-should-retry about what follows

sub plain {
    my ($lang, $kind, $n) = @_;

    my $claude = $kind eq 'messages';

    # 503 and 504 have classes of their own in Anthropic's
    my ($c503, $c504) = $claude
        ? ('ServiceUnavailableError', 'GatewayTimeoutError')
        : ('InternalServerError', 'InternalServerError');

    # our attempts are used up: x-should-retry: false is obeyed by all four.
    # Without it, from the provider itself, they ask three times

    is_seen($kind, 'a 500 of the provider itself',
            { direct => 1, a => { status => 500 } },
            { class => 'InternalServerError', status => 500, calls => '3 0' });
    is_seen($kind, 'a 500 for ever', { a => { status => 500 } },
            { class => 'InternalServerError', up => 'APIError', status => 500,
              calls => '3 0', most => 3,
              type => $claude ? 'api_error' : 'server_error' });
    is_seen($kind, 'a 503 for ever',
            { a => { status => 503, limits => 'off' } },
            { class => $c503, up => 'InternalServerError', status => 503,
              calls => '3 0', most => 3 });
    is_seen($kind, 'a 500, then all is well',
            { a => { status => 500, fails => 1, text => $TEXT } },
            { text => $TEXT, calls => '2 0', most => 3 });

    # What they make of a long wait, told by the provider itself, differs:
    # OpenAI's for Node takes no notice of more than 60 s and asks again at
    # once, twice; that for Python sleeps for up to 120 s, and does not ask
    # again after more; both of Anthropic's sleep, however long it is.  With
    # x-should-retry: false all of them raise the error at once

    my %far = (status => 429, retry_after => 130, limits => 'off');
    is_seen($kind, 'a 429, 130 s, of the provider itself',
            { direct => 1, a => \%far },
            { class => 'RateLimitError', most => 6,
              calls => $lang eq 'python' ? '1 0' : '3 0' })
        if !$claude;

    $far{retry_after} = 90;
    is_seen($kind, 'a 429, 90 s', { model => "told$n", a => \%far },
            { class => 'RateLimitError', status => 429, calls => '1 0',
              most => 1 });

    # a second is waited for, by them or, where the back-off may be as long, by
    # the gateway; never by both

    my %near = (status => 429, retry_after => 1, limits => 'off');
    is_seen($kind, 'a 429 for ever, a second',
            { model => 'told' . ($n + 10), a => \%near },
            { class => 'RateLimitError', requests => 3, calls => '3 0',
              least => 2, most => 5 });
    is_seen($kind, 'a 429 for ever, a second, waited for here',
            { model => 'told' . ($n + 20), prefix => '/later', a => \%near },
            { class => 'RateLimitError', calls => '3 0', least => 2,
              most => 5 });

    # the breaker is open for 1.2 s, and retry-after-ms is kept to: they do not
    # wait the 2 s of Retry-After

    open_breaker($kind, "own$n");
    is_seen($kind, 'a breaker that is open for 1.2 s',
            { as_it_is => 1, model => "own$n" },
            { requests => 2, calls => '1 0', least => 0.8, most => 1.9 });

    open_breaker($kind, 'own' . ($n + 20));
    is_seen($kind, 'a breaker that is open for two minutes',
            { as_it_is => 1, model => 'own' . ($n + 20) },
            { class => $c503, status => 503, code => 'breaker_open',
              calls => '0 0', most => 1 });

    # what is not the client's fault is no 401 and no 404

    for ([401, 'provider_auth'], [404, 'provider_model', 'model_not_found']) {
        my ($status, $code, $said) = @$_;
        is_seen($kind, "a $status of our key",
                { a => { status => $status, code => $said
                         // 'authentication_error' } },
                { class => 'InternalServerError', status => 502,
                  code => $code, calls => '1 0', most => 1 });
    }

    is_seen($kind, 'silence', { a => { delay => '9s' }, prefix => '/slow' },
            { class => $c504, up => 'InternalServerError', status => 504,
              code => 'timeout_plain', calls => '1 0', most => 2 });
    is_seen($kind, 'a 400', { a => { status => 400 } },
            { class => 'BadRequestError', status => 400, calls => '1 0',
              type => 'invalid_request_error', most => 1 });
}


# --- streams

# what an in-band error becomes

my %IN_BAND = (
    openai => ['APIError', undef],          # in Python, too: no status
    py_claude => ['APIStatusError', 200],   # the status is that of the stream
    js_claude => ['APIError', undef],
);

sub streams {
    my ($lang) = @_;

    for my $call (qw(chat_stream chat_helper completions_stream
                     messages_stream messages_helper))
    {
        my $claude = $call =~ /^messages/;
        my ($class, $status) = @{ $IN_BAND{ !$claude ? 'openai' : $lang eq
                                  'python' ? 'py_claude' : 'js_claude' } };
        my %shown = (class => $class, up => 'APIError', status => $status,
                     text => substr($TEXT, 0, 12));

        # the error is raised behind what was shown, never a silent end; not
        # one of them asks again then

        for my $fault (qw(cut reset_mid clean_cut stall)) {
            is_seen($call, "$fault after content",
                    { a => { %break, fault => $fault },
                      prefix => '/slow' },
                    { %shown, calls => '1 0',
                      code => $fault eq 'stall' ? 'timeout_idle'
                                                : 'truncated',
                      type => $claude ? $fault eq 'stall' ? 'timeout_error'
                                                          : 'api_error'
                                      : 'server_error' });
        }

        # the provider's own; overloaded_error stays in the type, the class is
        # that of any error in a stream

        is_seen($call, 'an error after content',
                { a => { %break, fault => 'error_event' } },
                { %shown, calls => '1 0', code => undef,
                  type => $claude ? 'overloaded_error' : 'server_error' });

        # before content it is an HTTP error, with the class that the status
        # has: 529 is OverloadedError

        is_seen($call, 'an error at first',
                { a => { fault => 'error_first' } },
                { class => $claude ? 'OverloadedError'
                                   : 'InternalServerError',
                  up => 'InternalServerError',
                  status => $claude ? 529 : 500, calls => '3 0', text => '' });

        # one that is resumed is one answer to all of them

        is_seen($call, 'resumed',
                { model => 'one', prefix => '/resume',
                  a => { %break, fault => 'cut', fails => 1,
                         prefill => 'on' } },
                { text => $TEXT, calls => '2 0',
                  ($call =~ /helper/
                   ? (end => $claude ? 'end_turn' : 'stop') : ()) });
        is_seen($call, 'resumed by another',
                { model => 'two', prefix => '/resume',
                  a => { %break, fault => 'error_event', prefill => 'on',
                         at => 3 },
                  b => { text => $TEXT, size => 5, prefill => 'on' } },
                { text => $TEXT, calls => $claude ? '1 1' : '2 1' });
    }
}


# response.failed is an event like others: nothing is raised for it.  Reading
# goes on to the end of the stream, and who does not look at the type takes it
# for an answer.  Python's helper misses response.completed, with a
# RuntimeError; Node's gives the failed response as the final one.

sub responses {
    my ($lang) = @_;

    for my $fault (qw(cut error_event)) {
        my $code = $fault eq 'cut' ? 'truncated' : 'server_error';
        my %told = (failed => $code, last => 'response.failed',
                    calls => '1 0');

        is_seen('responses_stream', "$fault after content",
                { a => { %break, fault => $fault } },
                { %told, text => substr $TEXT, 0, 12 });
        is_seen('responses_helper', "$fault after content",
                { a => { %break, fault => $fault } },
                { %told, $lang eq 'python'
                  ? (class => 'RuntimeError', end => undef)
                  : (end => 'failed') });
    }

    is_seen($_, 'an error at first', { a => { fault => 'error_first' } },
            { class => 'InternalServerError', status => 500, calls => '3 0' })
        for qw(responses_stream responses_helper);
}


sub all_of {
    my ($lang, $n) = @_;

    plain($lang, 'chat', $n);
    plain($lang, 'messages', $n + 1);
    streams($lang);
    responses($lang);
    $talk->end;
}


SKIP: {
    SDK::skip_one("PyPI: $no_python") if !$python;
    talk_to('python', "$python/bin/python", "$FindBin::Bin/sdk/fail.py");
    all_of('python', 0);
}

SKIP: {
    SDK::skip_one("npm: $no_npm") if !$npm;
    copy("$FindBin::Bin/sdk/fail.mjs", $npm);
    talk_to('node', SDK::node($npm), "$npm/fail.mjs");
    all_of('node', 2);
}

no_alerts($g->{t});
done_testing();
