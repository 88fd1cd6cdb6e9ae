#!/usr/bin/perl

# What a provider refuses for good: our key, the model, our credit (another
# one is asked at once, and this one no more), the size of the prompt (one with
# more context), and the same with the client's own key (passed on unchanged).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();

my $CANARY = 'sk-canary-failing-keys';
my $open = 'breaker failures=5 window=10s open=60s;';

# (name, kinds, what the provider does, the error's code)

my $said = "Incorrect key $CANARY";

my @OURS = (
    ['a 401', 'chat messages responses embeddings',
     { status => 401, message => $said }, 'provider_auth'],
    ['a 403', 'chat messages', { status => 403, message => $said },
     'provider_auth'],
    ['an invalid_api_key in a 200', 'chat',
     { body => qq({"error":{"message":"$said","type":"invalid_request_error",)
               . '"code":"invalid_api_key"}}' }, 'provider_auth'],
    ['an authentication_error in a stream', 'messages stream',
     { fault => 'error_first', code => 'authentication_error',
       message => $said }, 'provider_auth'],
    ['an unknown model', 'chat messages responses',
     { status => 404, message => "model: $said" },
     'provider_model'],
    ['insufficient_quota', 'chat responses',
     { status => 429, code => 'insufficient_quota' }, 'provider_quota'],
    ['a credit balance that is too low', 'messages',
     { status => 400, code => 'insufficient_quota' }, 'provider_quota'],
    ['a 402', 'messages', { status => 402, code => 'billing_error' },
     'provider_quota'],
);


# Each case has a provider of its own: its breaker stays open.

my ($conf, $n) = ('', 0);
my @cases;

for my $ours (@OURS) {
    my ($what, $kinds, $how, $code) = @$ours;

    for my $kind (grep { $_ ne 'stream' } split / /, $kinds) {
        my @streams = $kinds =~ /stream/ ? (1)
                      : $kind eq 'embeddings' || $how->{body} ? (0) : (0, 1);

        for my $stream (@streams) {
            $n++;
            push @cases, { n => $n, kind => $kind, stream => $stream,
                           how => $how, code => $code,
                           name => "$kind, " . ($stream ? 'stream' : 'plain')
                                   . ", $what" };
            $conf .= Targets::provider("k$n", 'A',
                                       "key env:TEST_E2E_KEY; $open")
                . "    llm_adapter_model both$n k$n:m-a xk$n:m-a "
                . "b:m-b xb:m-b;\n"
                . "    llm_adapter_model alone$n k$n:m-a xk$n:m-a;\n"
                . "    llm_adapter_model other$n k$n:other xk$n:other;\n";
        }
    }
}

my $g = Targets->new(
    env => { TEST_E2E_KEY => $CANARY },
    names => [qw(a b c)],
    locations => { '/theirs/v1/' => 'llm_adapter theirs theirs2 xtheirs '
                                    . 'xtheirs2;' },
    http => $conf
            . Targets::provider('never', 'A', 'key env:TEST_E2E_KEY; breaker off;')
            . <<'EOT');
    llm_adapter_provider theirs {
        endpoint http://127.0.0.1:%%A%%/one/v1;
        dialect openai;
        key client;
    }

    llm_adapter_provider theirs2 {
        endpoint http://127.0.0.1:%%A%%/two/v1;
        dialect openai;
        key client;
    }

    llm_adapter_provider xtheirs {
        endpoint http://127.0.0.1:%%A%%/one/v1;
        dialect anthropic;
        key client;
    }

    llm_adapter_provider xtheirs2 {
        endpoint http://127.0.0.1:%%A%%/two/v1;
        dialect anthropic;
        key client;
    }

    llm_adapter_provider size {
        endpoint http://127.0.0.1:%%A%%/v1;
        dialect openai;
        key sk-ours;
        breaker failures=2 window=30s open=60s;
        model small context=8k;
        model nothing;
    }

    llm_adapter_provider xsize {
        endpoint http://127.0.0.1:%%A%%/v1;
        dialect anthropic;
        key sk-ours;
        model small context=8k;
    }

    llm_adapter_provider size2 {
        endpoint http://127.0.0.1:%%B%%/v1;
        dialect openai;
        key sk-ours;
        model small context=8k;
        model tiny context=4k;
        model big context=128k;
    }

    llm_adapter_provider size3 {
        endpoint http://127.0.0.1:%%C%%/v1;
        dialect openai;
        key sk-ours;
        model big context=128k;
    }

    llm_adapter_provider xsize3 {
        endpoint http://127.0.0.1:%%C%%/v1;
        dialect anthropic;
        key sk-ours;
        model big context=128k;
    }

    llm_adapter_model off never:m-a xnever:m-a b:m-b xb:m-b;
    llm_adapter_model small size:small xsize:small;
    llm_adapter_model small-same size:small size2:small;
    llm_adapter_model small-unsaid size:small size2:unsaid;
    llm_adapter_model small-big size:small size2:big size3:big
                      xsize:small xsize3:big;
    llm_adapter_model small-tiny-big size:small size2:tiny size3:big;
    llm_adapter_model nothing-big size:nothing size3:big;
EOT


# --- our key, our credit, our model

for my $case (@cases) {
    my ($i, $kind, $name, $code) = @$case{qw(n kind name code)};
    my @form = ($kind, stream => $case->{stream});
    my $x = $kind eq 'messages' ? 'x' : '';

    # another one at once, and the next time at first

    $g->set(a => $case->{how});
    my $got = $g->try(@form, model => "both$i");
    is_outcome($got, { provider => "${x}b", model => 'm-b', attempts => 2,
                       calls => '1 1 0' }, "$name: another one");
    like($got->{log}{breaker},
         $code eq 'provider_model' ? qr/\b${x}k$i=closed\b/
                                   : qr/\b${x}k$i=open\b/,
         "$name: \$llm_breaker");

    is_outcome($g->try(@form, model => "both$i"),
               { provider => "${x}b", attempts => 1, calls => '1 2 0' },
               "$name: this one no more");

    # alone: closed for now, as the other has found out

    is_outcome($g->try(@form, model => "alone$i"),
               { status => 503, code => 'breaker_open',
                 log_attempts => 0, calls => '1 2 0',
                 log_error => 'breaker_open' },
               "$name: nobody else");

    # another model of it is another matter, unless it is the key

    $g->set;
    my $other = $g->try(@form, model => "other$i");
    is_outcome($other, $code eq 'provider_model'
                       ? { model => 'other', attempts => 1 }
                       : { status => 503, log_attempts => 0, calls => '0 0 0' },
               "$name: another model of this one");
}

# the last resort says no: a 502 of our own, with none of its words

for my $case (['chat', 0], ['chat', 1], ['responses', 1], ['messages', 0],
              ['messages', 1])
{
    my ($kind, $stream) = @$case;

    for my $refusal (
        [{ status => 401, message => $said }, 'provider_auth'],
        [{ status => 404, message => "model: $said" }, 'provider_model'],
        [{ status => 429, code => 'insufficient_quota', message => $said },
         'provider_quota'],
    ) {
        my ($how, $code) = @$refusal;
        my $name = "$kind, " . ($stream ? 'stream' : 'plain') . ", $code";
        next if $kind eq 'messages' && $code eq 'provider_quota';

        $g->set(a => $how);
        my $x = $g->try($kind, stream => $stream, model => 'off');
        is_outcome($x, { attempts => 2, calls => '1 1 0', model => 'm-b' },
                   "$name: breaker off, another one");
        is_outcome($g->try($kind, stream => $stream, model => 'off'),
                   { attempts => 2, calls => '2 2 0', model => 'm-b' },
                   "$name: breaker off, asked again");

        $g->set(a => $how, b => $how);
        $x = $g->try($kind, stream => $stream, model => 'off');
        is_outcome($x, { status => 502, attempts => 2, calls => '1 1 0',
                         log_error => $code, should => 'false' },
                   "$name: none left");
        my $e = is_error($x->{r}, $kind, 502, "$name: none left");
        is($e->{code}, $code, "$name: its code");
        unlike($x->{r}->body, qr/canary/, "$name: none of its words");
    }
}

unlike($g->{t}->error_log, qr/\Q$CANARY/, 'no key in the error log');


# --- the client's own key: the provider's word, unchanged, and nobody else's

for my $case (['chat', 0], ['chat', 1], ['messages', 0], ['messages', 1]) {
    my ($kind, $stream) = @$case;

    for my $how (
        { status => 401 }, { status => 403 }, { status => 404 },
        { status => 429, code => 'insufficient_quota' },
        { status => 400, code => 'context_length_exceeded' },
    ) {
        my $name = "$kind, " . ($stream ? 'stream' : 'plain')
                   . ", key client, $how->{status}";
        next if $kind eq 'messages' && $how->{status} == 429;

        $g->set(a => $how);

        for my $time (1, 2) {
            my $x = $g->try($kind, stream => $stream, prefix => '/theirs',
                            headers => [authorization => 'Bearer sk-theirs']);
            is_outcome($x, { status => $how->{status}, attempts => 1,
                             calls => "$time 0 0",
                             log_error => "upstream_$how->{status}" },
                       "$name: final, time $time");
            is($x->{r}->body, $g->{a}->last_response_body,
               "$name: unchanged, time $time");
        }
    }
}

# trouble of the provider's is another matter

$g->set(a => { status => 500, fails => 1 });
is_outcome($g->try('chat', prefix => '/theirs',
                   headers => [authorization => 'Bearer sk-theirs']),
           { attempts => 2, calls => '2 0 0' }, 'key client, a 500');


# --- more context

my %long = (status => 400, code => 'context_length_exceeded');

for my $case (['chat', 0], ['chat', 1]) {
    my ($kind, $stream) = @$case;
    my $name = $stream ? 'stream' : 'plain';

    $g->set(a => \%long);
    is_outcome($g->try($kind, stream => $stream, model => 'small-big'),
               { attempts => 2, calls => '1 1 0', model => 'big',
                 provider => 'size2' }, "$name, context: a larger one");

    $g->set(a => \%long);
    is_outcome($g->try($kind, stream => $stream, model => 'small-tiny-big'),
               { attempts => 2, calls => '1 0 1', model => 'big',
                 provider => 'size3' }, "$name, context: not a smaller one");

    $g->set(a => \%long, b => \%long);
    is_outcome($g->try($kind, stream => $stream, model => 'small-big'),
               { status => 400, attempts => 2, calls => '1 1 0',
                 code => 'context_length_exceeded' },
               "$name, context: too long for the larger one, too");

    $g->set(a => \%long);
    is_outcome($g->try($kind, stream => $stream, model => 'nothing-big'),
               { attempts => 2, calls => '1 0 1', model => 'big' },
               "$name, context: from one whose size is not said");

    for my $model (qw(small small-same small-unsaid)) {
        $g->set(a => \%long);
        my $x = $g->try($kind, stream => $stream, model => $model);
        is_outcome($x, { status => 400, attempts => 1, calls => '1 0 0',
                         code => 'context_length_exceeded', should => undef,
                         log_error => 'upstream_400' },
                   "$name, $model: nobody has more context");
        is($x->{r}->body, $g->{a}->last_response_body,
           "$name, $model: the provider's error unchanged");
    }
}

# Anthropic has no code for it

for my $stream (0, 1) {
    $g->set(a => \%long);
    is_outcome($g->try('messages', stream => $stream, model => 'small-big'),
               { attempts => 2, calls => '1 0 1', model => 'big',
                 provider => 'xsize3' }, "messages, context: stream $stream");
}

# it is no failure of the provider's: its breaker (of two failures) is closed

$g->set;
my $x = is_outcome($g->try('chat', model => 'small'),
                   { attempts => 1, calls => '1 0 0' },
                   'context: the provider is well');
is($x->{log}{breaker}, 'size=closed, xsize=closed', 'context: closed');

no_alerts($g->{t});
done_testing();
