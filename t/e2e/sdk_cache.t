#!/usr/bin/perl

# The official SDKs of PyPI, openai and anthropic, and the cache: what was
# stored as a stream or plain is the same to them in either form.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib abs_path("$FindBin::Bin/../lib"), $FindBin::Bin, "$FindBin::Bin/sdk";

use Test::More;

use LLM::E2E;
use Caching;
use SDK;

skip_without_module();

my ($python, $no_python) = SDK::installed('python');

plan(skip_all => "could not be installed: $no_python") if !$python;

my $c = Caching->new(
    workers => 2,
    path => '%%DIR%%/cache size=64m',
    http => <<'EOT');
    llm_adapter_model gpt-mock openai;
    llm_adapter_model text-embedding-mock openai;
    llm_adapter_model claude-mock anthropic;
EOT
my ($t, $mock) = @$c{qw(t mock)};

my ($cases, $why) = SDK::run($t, $mock, 'gateway',
    ["$python/bin/python", "$FindBin::Bin/sdk/py_cache.py"],
    script => 'py_cache');

is($why, '', 'ran to its end');
cmp_ok(scalar @$cases, '>=', 40, 'cases');
ok($_->{ok}, $_->{name}) or diag($_->{why}) for @$cases;

unlike($t->error_log, qr/sk-of|question/,
       'no key and no prompt in the error log');

no_alerts($t);
done_testing();
