#!/usr/bin/perl

# Blocks with plain nginx: the results are the same under the stand-in and
# under the real Test::Nginx::Socket.

use strict;
use warnings;

BEGIN { delete $ENV{TEST_NGINX_LOAD_MODULES} }

use Test::Nginx::Socket;

repeat_each(2);

# the log at the end of the last block is looked at once
plan tests => repeat_each() * 123 + 1;

# the blocks' order matters to that one alone
no_shuffle();

$ENV{TEST_NGINX_SELFTEST_WORD} = 'parrot';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value('config', 'location = /made { return 200 made; }')
        if $block->name =~ /preprocessor/;
});

no_long_string();
worker_connections(128);
log_level('info');

run_tests();

__DATA__

=== TEST 1: the simplest
--- config
    location = /t { return 200 "hello\n"; }
--- request
GET /t
--- response_body
hello
--- no_error_log
[error]



=== TEST 2: status, headers, absent headers
--- config
    location = /t {
        add_header X-One 1 always;
        add_header X-Two "a b";
        return 404 gone;
    }
--- request
GET /t
--- error_code: 404
--- response_headers
X-One: 1
x-one: 1
! X-Two
Content-Length: 4
--- response_body: gone



=== TEST 3: headers and body by pattern
--- config
    location = /t {
        add_header X-Id id-$request_id;
        add_header X-Multi one;
        add_header X-Multi two;
        return 200 "answer 42\n";
    }
--- request
GET /t
--- response_headers_like
X-Id: id-[0-9a-f]{32}
X-Multi: one, two
--- raw_response_headers_like chomp
X-Multi: one\r\nX-Multi: two\r\n
--- raw_response_headers_unlike: X-Absent
--- response_body_like: ^answer \d+$
--- error_code_like: ^2\d\d$



=== TEST 4: body must not match
--- config
    location = /t { return 200 "fine\n"; }
--- request
    GET /t
--- response_body_unlike: error



=== TEST 5: what is sent by default
--- config
    location = /t {
        return 200 "$request|$http_host|$http_connection|$http_user_agent";
    }
--- request
GET /t
--- response_body: GET /t HTTP/1.1|localhost|close|



=== TEST 6: version, more headers, notes
--- config
    location = /t {
        set $headers "$http_x_a|$http_x_empty|$http_connection";
        return 200 "$server_protocol|$http_host|$headers";
    }
--- request
# a note
GET /t HTTP/1.0
--- more_headers
X-A: b: c
# another note
X-Empty:
Host: other.test
Connection: x, close
--- response_body: HTTP/1.0|other.test|b: c||x, close



=== TEST 7: a request body is counted and trimmed
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/back;
        proxy_method GET;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Len $content_length;
        proxy_set_header X-Body $request_body;
    }
    location = /back { return 200 "$http_x_len:$http_x_body"; }
--- request
POST /t
hello world


--- response_body: 11:hello world



=== TEST 8: a length of the test's own
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/back;
        proxy_method GET;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
    }
    location = /back { return 200 "[$http_x_body]"; }
--- request
POST /t
hello
--- more_headers
Content-Length: 3
--- response_body: [hel]



=== TEST 9: a chunked body
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/back;
        proxy_method GET;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
    }
    location = /back { return 200 "[$http_x_body]"; }
--- request eval
"POST /t
3\r
abc\r
2\r
de\r
0\r
\r
"
--- more_headers
Transfer-Encoding: chunked
--- response_body: [abcde]



=== TEST 10: several requests
--- config
    location ~ /. {
        add_header X-Uri $uri;
        return 200 "$uri $http_x_n\n";
    }
    location = /c { return 403; }
--- request eval
["GET /a", "GET /b", "GET /c"]
--- more_headers eval
["X-N: 1", "X-N: 2", "X-N: 3"]
--- error_code eval
[200, 200, 403]
--- response_body_like eval
[qr/^\/a 1$/, "^/b 2\$", "Forbidden"]
--- response_headers eval
["X-Uri: /a", "X-Uri: /b", "! X-Uri"]
--- no_error_log
[crit]



=== TEST 11: packets
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/back;
        proxy_method GET;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
    }
    location = /back { return 200 "[$http_x_body]"; }
--- request eval
[["POST /t\nab", {value => "cd", delay_before => 0.02}, "ef "]]
--- response_body: [abcdef]



=== TEST 12: a pipeline
--- config
    location ~ /. { return 200 "$uri $http_connection $http_x_n\n"; }
--- pipelined_requests eval
["GET /a", "GET /b HTTP/1.1", "GET /c"]
--- more_headers eval
["X-N: 1", "", "X-N: 3"]
--- response_body eval
["/a keep-alive 1\n", "/b keep-alive \n", "/c close 3\n"]



=== TEST 13: raw bytes
--- config
    location = /t { return 200 "$request_method $http_x_a\n"; }
--- raw_request eval
["GET /t HTT", "P/1.1\r\nHost: a\r\nConnection: close\r\nX-A: 7\r", "\n\r\n"]
--- raw_request_middle_delay: 0.01
--- response_body
GET 7



=== TEST 14: HEAD
--- config
    location = /t { return 200 "hello\n"; }
--- request
HEAD /t
--- response_headers
Content-Length: 6
--- response_body:



=== TEST 15: a chunked answer
--- config
    location = /page {
        ssi on;
        ssi_types text/plain;
    }
--- user_files
>>> page
one <!--# echo var="uri" -->
--- request
GET /page
--- response_headers
Transfer-Encoding: chunked
! Content-Length
--- response_body
one /page



=== TEST 16: files, the root location, dates
--- config
--- user_files eval
[
    ["a.txt", "alpha \$TEST_NGINX_SELFTEST_WORD\n", "202001020304.05"],
    ["dir/b.txt", "beta\n"],
]
--- request eval
["GET /a.txt", "GET /dir/b.txt", "GET /"]
--- response_headers eval
["Last-Modified: Thu, 02 Jan 2020 03:04:05 GMT", "Content-Type: text/plain",
 "Content-Type: text/html"]
--- response_body_like eval
["^alpha parrot\n\$", "^beta\n\$", "It works!"]



=== TEST 17: error log, by text and by pattern
--- config
    location = /t { root html; }
--- request
GET /t
--- error_code: 404
--- response_body_like: 404 Not Found
--- error_log eval
["[error]", qr/open\(\) ".*\/html\/t" failed/]
--- no_error_log
[alert]
[emerg]



=== TEST 18: grep in the error log
--- config
    location = /t { root html; }
--- request
GET /t
--- error_code: 404
--- grep_error_log eval: qr/open\(\)|client: [\d.]+/
--- grep_error_log_out eval
["open()\n", "open()\n"]



=== TEST 19: access log
--- http_config
    log_format short "$uri $status";
    access_log logs/access.log short;
--- config
    location = /t {
        access_log logs/access.log short;
        return 201 x;
    }
--- request
GET /t
--- error_code: 201
--- access_log
/t 201
--- no_access_log
/t 500



=== TEST 20: variables of the environment
--- main_config
    worker_rlimit_core 1;
--- http_config
    map $uri $word { default "$TEST_NGINX_SELFTEST_WORD"; }
--- config
    location = /t { return 200 "$word $TEST_NGINX_SELFTEST_WORD\n"; }
--- request
GET /t
--- response_body
parrot $TEST_NGINX_SELFTEST_WORD



=== TEST 21: the port in answers
--- config
    location = /t { return 200 "$server_port\n"; }
--- request
GET /t
--- response_body
$ServerPort



=== TEST 22: nginx must not start
--- config
    nonsense;
--- must_die
--- error_log
unknown directive "nonsense"
--- no_error_log
[crit]
--- suppress_stderr



=== TEST 23: nginx must not start, exit code
--- config
    return 200
--- must_die: 1
--- error_log
[emerg]
--- suppress_stderr



=== TEST 24: a provider of the test's own
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/up;
        proxy_set_header Host up;
        proxy_set_header Connection close;
    }
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_reply eval
["HTTP/1.1 203 Fine\r\nX-", "Up: 1\r\nConnection: close\r\n\r\nbody\n"]
--- tcp_query eval
"GET /up HTTP/1.0\r
Host: up\r
Connection: close\r
\r
"
--- tcp_query_len: 49
--- request
GET /t
--- error_code: 203
--- response_headers
X-Up: 1
--- response_body
body



=== TEST 25: a provider that answers what it got
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1;
    }
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_reply_delay: 20ms
--- tcp_reply eval
sub { "HTTP/1.0 200 OK\r\n\r\n" . length($_[0]) . "\n" }
--- request
GET /t
--- response_body_like: ^\d+$



=== TEST 26: nobody there
--- config
    location = /t { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; }
--- request
GET /t
--- error_code: 502
--- response_body_like: 502 Bad Gateway
--- error_log
Connection refused



=== TEST 27: the client leaves
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1;
        access_log logs/access.log;
    }
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_reply:
--- tcp_no_close
--- request
GET /t
--- timeout: 200ms
--- wait: 0.1
--- abort
--- ignore_response
--- error_log
prematurely closed connection, so upstream connection is closed too



=== TEST 28: half close
--- config
    location = /t { return 200 "still\n"; }
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
--- shutdown: 1
--- response_body
still



=== TEST 29: skipped on every nginx
--- config
    nonsense;
--- request
GET /t
--- response_body
no
--- skip_nginx: 2: > 0.1.0: never mind



=== TEST 30: not skipped
--- config
    location = /t { return 200 "yes\n"; }
--- request
GET /t
--- response_body
yes
--- skip_nginx: 2: < 0.1.0



=== TEST 31: skipped by a condition
--- config
    nonsense;
--- request
GET /t
--- skip_eval: 3: 1 + 1 == 2



=== TEST 32: a block left out
--- config
    nonsense;
--- SKIP



=== TEST 33: a preprocessor gives the configuration
--- request
GET /made
--- response_body chomp
made



=== TEST 34: filters of the answer
--- config
    location = /t { return 200 "hello\n"; }
--- request
GET /t
--- response_body_filters eval
[sub { $_[0] =~ tr/l/L/r }, 'ucfirst', 'length']
--- response_body: 6



=== TEST 35: sorted JSON
--- config
    location = /t { return 200 '{"b": 1, "a": [2]}'; }
--- request
GET /t
--- response_body_json_sort
--- response_body
{"a":[2],"b":1}



=== TEST 36: caches and temporary files are removed between blocks
--- http_config
    proxy_cache_path $TEST_NGINX_SERVER_ROOT/one_cache keys_zone=one:1m;
--- config
    location = /t {
        proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/back;
        proxy_cache one;
        proxy_cache_valid 1m;
    }
    location = /back { return 200 "$msec\n"; }
--- request eval
["GET /t", "GET /t"]
--- response_body_like eval
['^\d+\.\d+$', '^\d+\.\d+$']



=== TEST 37: debug log
--- log_level: debug
--- config
    location = /t { return 200 "x\n"; }
--- request
GET /t
--- error_log
http request line: "GET /t HTTP/1.1"
--- response_body
x



=== TEST 38: code before the requests
--- config
    location = /t { root html; }
--- init
open my $out, '>', "$ENV{TEST_NGINX_SERVER_ROOT}/html/t" or die;
print $out "from init\n";
close $out;
--- request
GET /t
--- response_body
from init



=== TEST 39: nothing bad at the end
--- config
    location = /t { return 200 "x\n"; }
--- request
GET /t
--- response_body
x
--- no_error_log
[error]
--- no_shutdown_error_log
[alert]
