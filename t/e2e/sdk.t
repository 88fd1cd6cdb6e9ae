#!/usr/bin/perl

# The official SDKs, of npm and PyPI: what they see through the gateway is
# what they see of the provider itself, and what must differ is better.
#
# google-genai is not run: its dialect does not exist here yet.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib abs_path("$FindBin::Bin/../lib"), "$FindBin::Bin/sdk";

use File::Copy qw(copy);
use Test::More;

use LLM::E2E;
use SDK;

skip_without_module();

my ($npm, $no_npm) = SDK::installed('sdk');
my ($python, $no_python) = SDK::installed('python');

plan(skip_all => "nothing could be installed: $no_npm; $no_python")
    if !$npm && !$python;

my ($t, $mock) = SDK->servers;

for my $script (qw(openai anthropic ai)) {
    SKIP: {
        SDK::skip_one("npm: $no_npm") if !$npm;
        copy("$FindBin::Bin/sdk/$_", $npm) for 'run.mjs', "js_$script.mjs";
        SDK::compare($t, $mock, "js_$script",
                     [SDK::node($npm), "$npm/js_$script.mjs"]);
    }
}

for my $script (qw(openai anthropic)) {
    SKIP: {
        SDK::skip_one("PyPI: $no_python") if !$python;
        SDK::compare($t, $mock, "py_$script",
                     ["$python/bin/python", "$FindBin::Bin/sdk/py_$script.py"]);
    }
}

# what the gateway knows of them

my @log = map { json_decode($_) } split /\n/, slurp($t->path('llm.log'));
my @good = grep { $_->{status} eq '200' && $_->{error} eq ''
                  && $_->{uri} =~ m{/(?:chat/completions|completions
                                      |embeddings|messages|responses)$}x }
           @log;

cmp_ok(scalar(@good), '>', 100, 'requests in the log');
is(join("\n", map { json_encode($_) }
        grep { $_->{prompt_tokens} eq '' } @good), '',
   'the usage of each is known');

my @agents = ($npm ? qw(OpenAI/JS Anthropic/JS ai-sdk-openai/
                        ai-sdk-anthropic/) : (),
              $python ? qw(OpenAI/Python Anthropic/Python) : ());

for my $agent (@agents) {
    ok((grep { $_->{agent} =~ m{\Q$agent\E} } @log), "$agent was here");
}

unlike($t->error_log, qr/sk-of-the|Gr(?:ü|\\u00fc)/,
       'no key and no prompt in the error log');

no_alerts($t);
done_testing();
