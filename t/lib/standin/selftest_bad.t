#!/usr/bin/perl

# Wrong expectations must fail: each entry is a test file of its own with one
# block, run as a process, whose numbers of passed and failed tests are known.
# The numbers are the real Test::Nginx::Socket's too.

use strict;
use warnings;

use Cwd qw(getcwd);
use File::Temp ();
use Test::More;

delete $ENV{TEST_NGINX_LOAD_MODULES};
$ENV{TEST_NGINX_RANDOMIZE} = 1;

my $OK = <<'EOT';
--- config
    location = /t { add_header X-A 1; return 200 "hello\n"; }
    location = /chunked {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1;
        proxy_http_version 1.1;
    }
    location = /warn { root html; }
EOT

# title, passed tests, failed tests, BAIL or PLAN n (if so), block
my @CASES = (
    ['all right', 2, 0, "$OK--- request\nGET /t\n--- response_body\nhello\n"],
    ['body', 1, 1, "$OK--- request\nGET /t\n--- response_body\nbye\n"],
    ['body, a line more', 1, 1,
     "$OK--- request\nGET /t\n--- response_body\nhello\n\nyou\n"],
    ['no newline', 1, 1, "$OK--- request\nGET /t\n--- response_body: hello\n"],
    ['status', 0, 1, "$OK--- request\nGET /t\n--- error_code: 201\n"],
    ['status, by default 200', 0, 1, "$OK--- request\nGET /warn\n"],
    ['status pattern', 0, 1,
     "$OK--- request\nGET /t\n--- error_code_like: ^4\n"],
    ['body pattern', 1, 1,
     "$OK--- request\nGET /t\n--- response_body_like: ^bye\n"],
    ['body must not match', 1, 1,
     "$OK--- request\nGET /t\n--- response_body_unlike: ell\n"],
    ['header', 2, 1,
     "$OK--- request\nGET /t\n--- response_headers\nX-A: 1\nX-B: 1\n"],
    ['header that must be absent', 1, 1,
     "$OK--- request\nGET /t\n--- response_headers\n! X-A\n"],
    ['header pattern is anchored', 1, 1,
     "$OK--- request\nGET /t\n"
     . "--- response_headers_like\nContent-Type: text\n"],
    ['raw headers', 1, 1,
     "$OK--- request\nGET /t\n--- raw_response_headers_like: X-a: 1\n"],
    ['raw headers must not match', 1, 1,
     "$OK--- request\nGET /t\n--- raw_response_headers_unlike: X-A: 1\n"],
    ['error log lacks a line', 1, 1,
     "$OK--- request\nGET /t\n--- error_log\nno such line\n"],
    ['error log, one of two', 2, 1,
     "$OK--- request\nGET /warn\n--- error_code: 404\n"
     . "--- error_log\nfailed (2\nno such line\n"],
    ['error log has a line', 1, 1,
     "$OK--- request\nGET /warn\n--- error_code: 404\n"
     . "--- no_error_log\nfailed (2\n"],
    ['text is no pattern', 1, 1,
     "$OK--- request\nGET /warn\n--- error_code: 404\n"
     . "--- error_log\nfailed .2\n"],
    ['grep', 1, 1,
     "$OK--- request\nGET /warn\n--- error_code: 404\n"
     . "--- grep_error_log eval: qr/failed/\n"
     . "--- grep_error_log_out\nfailed\nfailed\n"],
    ['access log', 2, 2,
     "$OK--- request\nGET /t\n--- access_log\nGET /t \nGET /x \n"
     . "--- no_access_log\nGET /t \n"],
    ['must die, does not', 0, 1, "$OK--- must_die\n"],
    ['must die with another code', 0, 1,
     "--- config\nnonsense;\n--- must_die: 3\n--- suppress_stderr\n"],
    ['must die, another reason', 1, 1,
     "--- config\nnonsense;\n--- must_die\n--- suppress_stderr\n"
     . "--- error_log\nno such reason\n"],
    ['time out', 0, 3,
     "$OK--- request\nGET /chunked\n--- timeout: 0.2\n--- response_body: x\n"
     . "--- tcp_listen: \$TEST_NGINX_RAND_PORT_1\n--- tcp_reply:\n"
     . "--- tcp_no_close\n"],
    ['cut in a chunk', 0, 3,
     "$OK--- request\nGET /chunked\n--- response_body: x\n"
     . "--- tcp_listen: \$TEST_NGINX_RAND_PORT_1\n--- tcp_reply eval\n"
     . qq("HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n)
     . qq(3\\r\\nx"\n)],
    ['tcp query', 1, 2,
     "$OK--- request\nGET /chunked\n"
     . "--- tcp_listen: \$TEST_NGINX_RAND_PORT_1\n--- tcp_reply eval\n"
     . qq("HTTP/1.1 200 OK\\r\\n\\r\\n"\n)
     . qq(--- tcp_query: x\n--- tcp_query_len: 2\n)],
    ['second of two requests', 3, 1,
     qq($OK--- request eval\n["GET /t", "GET /t"]\n)
     . qq(--- response_body eval\n["hello\\n", "bye\\n"]\n)],
    ['filters', 1, 1,
     "$OK--- request\nGET /t\n--- response_body_filters\nuc\n"
     . "--- response_body\nhello\n"],
    ['no list for two requests', 1, 0, 'BAIL',
     qq($OK--- request eval\n["GET /t", "GET /t"]\n)
     . "--- response_body: hello\n"],
    ['no such variable', 0, 0, 'BAIL',
     "--- config\nset \$a \$TEST_NGINX_NO_SUCH;\n--- request\nGET /t\n"],
    ['grep without an answer', 1, 0, 'BAIL',
     "$OK--- request\nGET /t\n--- grep_error_log: x\n"],
    ['plan', 2, 0, 'PLAN 3',
     "$OK--- request\nGET /t\n--- response_body\nhello\n"],
);

my $dir = File::Temp->newdir;
my $start = getcwd();
my @inc = map { m{^/} ? $_ : "$start/$_" } grep { !ref } @INC;
$ENV{PERL5LIB} = join ':', @inc;

mkdir "$dir/t" or die;
chdir $dir or die;


for my $case (@CASES) {
    my ($title, $passed, $failed, @rest) = @$case;
    my $how = @rest > 1 ? shift @rest : '';
    my $plan = $how =~ /PLAN (\d+)/ ? "tests => $1" : "'no_plan'";

    open my $out, '>', 't/bad.t' or die;
    print {$out} "use Test::Nginx::Socket;\nplan $plan;\nrun_tests();\n"
                 . "__DATA__\n\n=== TEST 1: bad\n$rest[0]";
    close $out;

    my $text = `$^X t/bad.t 2>t/stderr`;
    my $status = $?;
    my @ok = $text =~ /^ok \d/mg;
    my @not_ok = $text =~ /^not ok \d/mg;
    my $bail = $text =~ /^Bail out!/m ? 1 : 0;

    my $got = @ok . ' passed, ' . @not_ok . " failed, bail $bail";
    my $expected = "$passed passed, $failed failed, bail "
                   . ($how eq 'BAIL' ? 1 : 0);
    is($got, $expected, $title) or diag($text);

    # a result beyond the plan leaves the exit status alone, as a bail out may
    my $seen = $status != 0 || @not_ok || $bail;
    is(!!$seen, !!($failed || $how), "$title: a harness sees it");
}


# a server root with somebody's file in it is left alone
{
    local $ENV{TEST_NGINX_RANDOMIZE};
    delete local $ENV{TEST_NGINX_SERVROOT};
    mkdir 't/servroot';
    open my $out, '>', 't/servroot/precious' or die;
    close $out;

    my $text = `TEST_NGINX_PORT=19840 $^X t/bad.t 2>/dev/null`;
    like($text, qr/^Bail out!.*servroot/m, 'a foreign file ends the run');
    ok(-e 't/servroot/precious', 'and is still there');
}

chdir $start;
done_testing();
