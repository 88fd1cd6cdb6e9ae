#!/usr/bin/perl

# Where llm_adapter may stand, and what else nginx does in and around such a
# location: if, limit_except, nesting, subrequests of other modules, access
# rules, redirects.
#
# Each provider answers {"by":"NAME","got":"REQUEST LINE"}.

use Test::Nginx::Socket 'no_plan';

sub ::chat { return "POST $_[0]chat/completions\n" . '{"model":"m","messages":[]}' }
sub ::by { return qq({"by":"$_[0]","got":"POST /$_[0]/chat/completions HTTP/1.1"}) }

add_block_preprocessor(sub {
    my ($block) = @_;

    my $providers = '';

    for my $name (qw(p q r)) {
        $providers .= "llm_adapter_provider $name { endpoint http://127.0.0.1:\$TEST_NGINX_RAND_PORT_1/$name; dialect openai; }\n";
    }

    $block->set_value(http_config => ($block->http_config // '') . $providers . <<'EOC');
log_format short '$request_method $uri $status';
server {
    listen $TEST_NGINX_RAND_PORT_1;
    default_type application/json;
    location ~ ^/(\w+)/ { return 200 '{"by":"$1","got":"$request"}'; }
    location = /elsewhere { add_header X-Accel-Redirect $arg_to always; return 200; }
    location = /mirrored { access_log logs/access.log short; return 200; }
}
EOC
    $block->set_value(no_error_log => ['[alert]', '[crit]', defined $block->error_log ? () : '[error]'])
        if !defined $block->no_error_log;
});

no_long_string();

run_tests();

__DATA__

=== an if with a target of its own
--- config
location /v1/ {
    llm_adapter p;
    if ($http_x_b) { llm_adapter q; }
}
--- request eval
[::chat('/v1/'), ::chat('/v1/')]
--- more_headers eval
["", "X-B: 1"]
--- response_body eval
[::by('p'), ::by('q')]



=== an if without one, before and after it
--- config
location /v1/ {
    if ($http_x_b) { add_header X-If before; }
    llm_adapter p;
    llm_adapter_headers off;
    if ($http_x_c) { add_header X-If after; }
}
--- request eval
[(::chat('/v1/')) x 3]
--- more_headers eval
["", "X-B: 1", "X-C: 1"]
--- response_body eval
[(::by('p')) x 3]
--- response_headers eval
["! X-If\n! X-LLM-Provider", "X-If: before\n! X-LLM-Provider", "X-If: after\n! X-LLM-Provider"]



=== an if without one, where models are looked up
--- http_config
llm_adapter_model m q;
--- config
location /llm/ {
    llm_adapter on;
    if ($http_x_b) { set $x 1; }
}
--- request eval
[::chat('/llm/'), ::chat('/llm/')]
--- more_headers eval
["", "X-B: 1"]
--- response_body eval
[::by('q'), ::by('q')]



=== an if alone has it
--- config
location /v1/ {
    if ($http_x_b) { llm_adapter q; }
    root html;
}
location /llm/ {
    if ($http_x_b) { llm_adapter q; }
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/r/;
}
--- request eval
[::chat('/v1/'), ::chat('/llm/'), ::chat('/llm/')]
--- more_headers eval
["X-B: 1", "X-B: 1", ""]
--- response_body eval
[::by('q'), ::by('q'), '{"by":"r","got":"POST /r/chat/completions HTTP/1.0"}']



=== an if that is another's
--- config
location /v1/ {
    llm_adapter p;
    if ($http_x_b) { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; }
}
--- request eval
[::chat('/v1/'), ::chat('/v1/')]
--- more_headers eval
["", "X-B: 1"]
--- response_body eval
[::by('p'), '{"by":"v1","got":"POST /v1/chat/completions HTTP/1.0"}']



=== limit_except with access rules
--- config
location /v1/ {
    llm_adapter p;
    limit_except GET { allow 127.0.0.1; deny all; }
}
location /llm/ {
    llm_adapter p;
    limit_except GET { deny all; }
}
--- request eval
[::chat('/v1/'), ::chat('/llm/'), "GET /llm/models", "GET /v1/models"]
--- error_code eval
[200, 403, 200, 200]
--- response_body_like eval
['"by":"p"', '^\{"error":\{"message":"access is denied"', '"object":"list"', '"object":"list"']
--- no_error_log
[alert]



=== limit_except with a target of its own
--- config
location /v1/ {
    llm_adapter p;
    limit_except GET { llm_adapter q; }
}
location /llm/ {
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/r/;
    limit_except GET { llm_adapter q; }
}
--- request eval
[::chat('/v1/'), "GET /v1/models", ::chat('/llm/'), "GET /llm/x"]
--- response_body eval
[::by('q'), '{"object":"list","data":[]}', ::by('q'), '{"by":"r","got":"GET /r/x HTTP/1.0"}']



=== a nested location does not inherit it
--- config
location /v1/ {
    llm_adapter p;
    location /v1/inner/ { }
    location = /v1/chat/completions { add_header X-Nested yes always; }
}
--- request eval
["GET /v1/inner/models", "GET /v1/models", ::chat('/v1/')]
--- error_code eval
[404, 200, 404]
--- response_body_like eval
['<title>404 Not Found', '"object":"list"', '<title>404 Not Found']
--- no_error_log
[alert]
[crit]



=== a nested location with its own
--- config
location /v1/ {
    llm_adapter p;
    location /v1/team/ { llm_adapter q; }
    location ~ ^/v1/r/ { llm_adapter r; }
}
--- request eval
[::chat('/v1/'), ::chat('/v1/team/'), ::chat('/v1/r/v1/')]
--- error_code eval
[200, 200, 404]
--- response_body_like eval
['"by":"p"', '"by":"q"', 'not_found']



=== settings are inherited where it is not
--- config
llm_adapter_headers off;
location /v1/ {
    location /v1/in/ { llm_adapter q; }
    location /v1/on/ { llm_adapter q; llm_adapter_headers on; }
}
--- request eval
[::chat('/v1/in/'), ::chat('/v1/on/')]
--- response_body eval
[::by('q'), ::by('q')]
--- response_headers eval
["! X-LLM-Provider", "X-LLM-Provider: q"]



=== an SSI include of it
--- config
location /v1/ { llm_adapter p; }
location /page { ssi on; ssi_types text/plain; }
--- user_files
>>> page
[<!--# include virtual="/v1/models" -->] after
--- request
GET /page
--- response_body_like: ^\[.*500 Internal Server Error.*\] after$
--- grep_error_log: llm_adapter does not serve subrequests
--- grep_error_log_out
llm_adapter does not serve subrequests
--- no_error_log
[alert]
[crit]



=== an SSI include of it that waits
--- config
location /v1/ { llm_adapter p; }
location /page { ssi on; ssi_types text/plain; }
--- user_files
>>> page
[<!--# include virtual="/v1/chat/completions" wait="yes" -->] after
--- request
GET /page
--- response_body_like: after$
--- error_log
llm_adapter does not serve subrequests
--- no_error_log
[alert]
[crit]



=== a mirror of others' requests
--- config
location /v1/ { llm_adapter p; }
location /m/ {
    mirror /v1/chat/completions;
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/r/;
}
--- request eval
::chat('/m/')
--- wait: 0.1
--- response_body: {"by":"r","got":"POST /r/chat/completions HTTP/1.0"}
--- grep_error_log: llm_adapter does not serve subrequests
--- grep_error_log_out
llm_adapter does not serve subrequests
--- no_error_log
[alert]
[crit]



=== its requests mirrored
--- config
location /v1/ { mirror /mirror; llm_adapter p; }
location = /mirror {
    internal;
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/mirrored;
}
--- request eval
[::chat('/v1/'), "POST /v1/chat/completions\n" . '{"model":"m","stream":true,"messages":["' . 'x' x 20000 . '"]}']
--- wait: 0.1
--- response_body eval
[::by('p'), ::by('p')]
--- access_log
POST /mirrored 200



=== auth_request by it
--- config
location /v1/ { llm_adapter p; }
location /page { auth_request /v1/models; }
--- request
GET /page
--- error_code: 500
--- response_body_like: 500 Internal Server Error
--- grep_error_log: llm_adapter does not serve subrequests
--- grep_error_log_out
llm_adapter does not serve subrequests
--- no_error_log
[alert]
[crit]



=== auth_request before it
--- config
location /v1/ { auth_request /auth; auth_request_set $who $upstream_http_x_who; add_header X-Who $who; llm_adapter p; }
location = /auth {
    internal;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/judge;
    proxy_pass_request_body off;
    proxy_set_header Content-Length "";
}
location = /judge { add_header X-Who me always; if ($http_x_key = good) { return 204; } if ($http_x_key = bad) { return 403; } return 401; }
--- request eval
[::chat('/v1/'), ::chat('/v1/'), ::chat('/v1/'), "POST /v1/messages\n{}"]
--- more_headers eval
["X-Key: good", "X-Key: bad", "", ""]
--- error_code eval
[200, 403, 401, 401]
--- response_body_like eval
['"by":"p"', '^\{"error":\{.*"code":"forbidden"', '^\{"error":\{.*"code":"unauthorized"', '^\{"type":"error","error":\{"type":"authentication_error"']
--- response_headers eval
["X-Who: me", "! X-None", "! X-None", "! X-None"]
--- no_error_log
[alert]



=== satisfy any
--- config
location /v1/ {
    satisfy any;
    deny all;
    auth_basic x;
    auth_basic_user_file $TEST_NGINX_SERVER_ROOT/html/users;
    llm_adapter p;
}
--- user_files
>>> users
me:{PLAIN}secret
--- request eval
[::chat('/v1/'), ::chat('/v1/')]
--- more_headers eval
["Authorization: Basic bWU6c2VjcmV0", ""]
--- error_code eval
[200, 401]
--- response_body_like eval
['"by":"p"', '"code":"unauthorized"']
--- no_error_log
[alert]



=== a rewrite into it
--- config
rewrite ^/api/(.*)$ /v1/$1 last;
location /v1/ { llm_adapter p; }
location /old/ { rewrite ^/old/(.*)$ /v1/$1; }
--- request eval
[::chat('/api/'), ::chat('/old/')]
--- response_body eval
[::by('p'), ::by('p')]



=== a rewrite within it
--- config
location /v1/ { rewrite ^/v1/engines/[^/]+/(.*)$ /v1/$1 break; llm_adapter p; }
location /azure/ { rewrite ^/azure/deployments/[^/]+/(.*)$ /$1 break; llm_adapter q; }
--- request eval
[::chat('/v1/engines/m/'), ::chat('/azure/deployments/m/')]
--- response_body eval
[::by('p'), ::by('q')]



=== an internal location
--- config
location /v1/ { internal; llm_adapter p; }
location /api/ { rewrite ^/api/(.*)$ /v1/$1 last; }
--- request eval
[::chat('/v1/'), ::chat('/api/')]
--- error_code eval
[404, 200]
--- response_body_like eval
['^\{"error":\{"message":"there is no such endpoint"', '"by":"p"']



=== error_page into it
--- config
location /v1/ { error_page 405 = @llm; }
location /v2/ { error_page 404 =200 @llm; return 404; }
location /v3/ { error_page 418 @llm; return 418; }
location @llm { llm_adapter p; }
--- user_files
>>> v1/chat/completions
a file
--- request eval
["POST /v1/chat/completions\n" . '{"model":"m","messages":[]}', "POST /v2/v1/chat/completions\n" . '{"model":"m","messages":[]}',
 "POST /v3/v1/chat/completions\n" . '{"model":"m","messages":[]}']
--- error_code eval
[200, 200, 418]
--- response_body eval
[::by('p'), ::by('p'), ::by('p')]



=== error_page into it by its path is a GET
--- config
location /x/ { error_page 404 =200 /v1/models; return 404; }
location /v1/ { llm_adapter p; }
--- request eval
"POST /x/chat/completions\n{}"
--- response_body: {"object":"list","data":[]}



=== another upstream's redirect into it
--- config
location /ask/ {
    rewrite ^ /elsewhere?to=$arg_to break;
    proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1;
}
location @llm { llm_adapter p; }
location /v1/ { llm_adapter p; }
--- request eval
["POST /ask/v1/chat/completions?to=\@llm\n" . '{"model":"m","messages":[]}', "GET /ask/?to=/v1/models"]
--- error_code eval
[404, 200]
--- response_body_like eval
['not_found', '"object":"list"']



=== another upstream's redirect into it, to the path that was asked
--- config
location = /v1/chat/completions { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/elsewhere?to=@llm; }
location @llm { llm_adapter p; }
--- request eval
[::chat('/v1/'), "POST /v1/chat/completions\n" . '{"model":"m","messages":["' . 'x' x 20000 . '"]}']
--- response_body eval
[::by('p'), ::by('p')]



=== filters see its answers
--- config
location /v1/ {
    llm_adapter p;
    sub_filter '"by"' '"from"';
    sub_filter_types *;
}
--- request eval
::chat('/v1/')
--- response_headers
! Content-Length
Transfer-Encoding: chunked
--- response_body: {"from":"p","got":"POST /p/chat/completions HTTP/1.1"}



=== gzip, of its answers and errors
--- config
location /v1/ { llm_adapter p; gzip on; gzip_types application/json; gzip_min_length 1; }
--- request eval
[::chat('/v1/'), "POST /v1/chat/completions\n{"]
--- more_headers eval
["Accept-Encoding: gzip", "Accept-Encoding: gzip"]
--- error_code eval
[200, 400]
--- response_headers eval
["Content-Encoding: gzip", "! Content-Encoding"]
--- response_body_filters eval
my $gunzip = sub { require IO::Uncompress::Gunzip; my $out; IO::Uncompress::Gunzip::gunzip(\$_[0] => \$out); return $out };
[[$gunzip], [sub { $_[0] }]]
--- response_body_like eval
['^\{"by":"p","got":"POST /p/chat/completions HTTP/1.1"\}$', 'unexpected end at byte 1']



=== HTTP/1.0
--- config
location /v1/ { llm_adapter p; }
--- request eval
"POST /v1/chat/completions HTTP/1.0\n" . '{"model":"m","messages":[]}'
--- response_headers
Content-Length: 52
! Transfer-Encoding
--- response_body eval
::by('p')



=== requests in a pipeline
--- config
location /v1/ { llm_adapter p; }
location /llm/ { llm_adapter q; }
--- pipelined_requests eval
[::chat('/v1/'), ::chat('/llm/'), "GET /v1/models", ::chat('/v1/')]
--- response_body eval
[::by('p'), ::by('q'), '{"object":"list","data":[]}', ::by('p')]
