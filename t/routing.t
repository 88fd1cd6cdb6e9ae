#!/usr/bin/perl

# From a model's name and a path to a provider, a path there and a body: the
# body is the client's, byte for byte, but for the model's name.
#
# Each provider answers "NAME METHOD PATH BODY" of the request that it got.

use Test::Nginx::Socket 'no_plan';

sub ::chat { return "POST /v1/chat/completions\n" . ($_[0] // '') }
sub ::model { return ::chat(qq({"model":"$_[0]","messages":[]})) }

# what providers get of it
sub ::got { return qq($_[0] POST /chat/completions {"model":"$_[1]","messages":[]}) }

add_block_preprocessor(sub {
    my ($block) = @_;

    my $providers = '';

    for my $name (qw(p q r)) {
        $providers .= "llm_adapter_provider $name { endpoint http://127.0.0.1:\$TEST_NGINX_RAND_PORT_1/$name; dialect openai; "
                      . (scalar($block->get_section($name)) // '') . "}\n";
    }

    $block->set_value(http_config => $providers . <<'EOC' . (scalar($block->models) // ''));
llm_adapter_provider a { endpoint http://127.0.0.1:$TEST_NGINX_RAND_PORT_1/a/v9/; dialect anthropic; }
server {
    listen $TEST_NGINX_RAND_PORT_1;
    client_body_buffer_size 128k;
    client_body_in_single_buffer on;
    large_client_header_buffers 4 128k;
    location ~ ^/(\w+)(/.*)$ {
        proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_2/?$args;
        proxy_method GET;
        proxy_pass_request_body off;
        proxy_pass_request_headers off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Body $request_body;
        proxy_set_header X-Line "$1 $request_method $2$is_args$args";
    }
}
server {
    listen $TEST_NGINX_RAND_PORT_2;
    large_client_header_buffers 4 128k;
    default_type application/json;
    return 200 '$http_x_line $http_x_body';
}
EOC
    $block->set_value(config => 'location /v1/ { llm_adapter on; }')
        if !defined $block->config;
    $block->set_value(no_error_log => ['[alert]', '[crit]', '[error]']);

    my $got = $block->got;
    $block->set_value(response_body => $got) if defined $got;
});

# the members of a provider's block, if the test has them
sub Test::Base::Block::get_section {
    my ($block, $name) = @_;
    my $section = "provider_$name";
    return $block->$section;
}

no_long_string();
no_root_location();

run_tests();

__DATA__

=== exact beats longest prefix beats star
--- models
llm_adapter_model * r;
llm_adapter_model gpt* q;
llm_adapter_model gpt-4 p;
llm_adapter_model gpt-4* q:long;
llm_adapter_model gpt-4o-* p:longer;
--- request eval
[map { ::model($_) } qw(gpt-4 gpt-4o gpt-4o-mini gpt-5 gpt gp x GPT-4)]
--- got eval
[::got('p', 'gpt-4'), ::got('q', 'long'), ::got('p', 'longer'), ::got('q', 'gpt-5'), ::got('q', 'gpt'), ::got('r', 'gp'),
 ::got('r', 'x'), ::got('r', 'GPT-4')]



=== a model by its exact name alone
--- models
llm_adapter_model gpt-4 p;
--- request eval
[::model('gpt-4'), ::model('gpt-4o'), ::model('gpt-'), ::model('gpt-4*')]
--- error_code eval
[200, 404, 404, 404]
--- response_body_like eval
['^p POST', 'model_not_found', 'model_not_found', 'model_not_found']



=== a model's name is compared as text, whatever its spelling
--- models
llm_adapter_model "gpt-é/1" p;
llm_adapter_model 'a"b' q:c;
--- request eval
[::model('gpt-é/1'), ::model('gpt-\u00e9\/1'), ::model('\u0067pt-\u00E9/1'), ::model('a\"b'), ::model('\u0061\u0022b')]
--- got eval
[::got('p', 'gpt-é/1'), ::got('p', 'gpt-\u00e9\/1'), ::got('p', '\u0067pt-\u00E9/1'), ::got('q', 'c'), ::got('q', 'c')]



=== a target's model: only its name changes
--- models
llm_adapter_model fast p:gpt-4o-mini;
--- request eval
[
    ::chat('{"model":"fast","messages":[]}'),
    ::chat('{ "messages" : [ {"model":"fast","content":"\u00e9\/\ud83d\ude00"} ] ,' . "\t" . '"seed":1.0e+2,"n":12345678901234567890,  "model" :  "fast"  , "x":[1,  2] }'),
    ::chat('{"a":{"model":"fast"},"mod\u0065l":"f\u0061st","messages":["fast"],"a":{"model":"fast"}}'),
]
--- got eval
[
    'p POST /chat/completions {"model":"gpt-4o-mini","messages":[]}',
    'p POST /chat/completions { "messages" : [ {"model":"fast","content":"\u00e9\/\ud83d\ude00"} ] ,' . "\t" . '"seed":1.0e+2,"n":12345678901234567890,  "model" :  "gpt-4o-mini"  , "x":[1,  2] }',
    'p POST /chat/completions {"a":{"model":"fast"},"mod\u0065l":"gpt-4o-mini","messages":["fast"],"a":{"model":"fast"}}',
]



=== a target's model is quoted
--- models
llm_adapter_model fast 'p:a"b\\c:d';
--- request eval
::model('fast')
--- got eval
::got('p', 'a\"b\\\\c:d')



=== a target's model that is the client's: nothing changes
--- models
llm_adapter_model fast p:fast;
--- request eval
::model('f\u0061st')
--- got eval
::got('p', 'f\u0061st')



=== a body of many bytes
--- models
llm_adapter_model fast p:slow;
--- request eval
::chat('{"messages":["' . 'x' x 60000 . '"],"model":"fast","y":"' . 'z' x 20000 . '"}')
--- got eval
'p POST /chat/completions {"messages":["' . 'x' x 60000 . '"],"model":"slow","y":"' . 'z' x 20000 . '"}'



=== a body that nginx wrote to a file
--- models
llm_adapter_model fast p:slow;
--- config
location /v1/ { llm_adapter on; client_body_buffer_size 1k; client_body_in_file_only clean; }
location /v2/ { llm_adapter on; client_body_buffer_size 1k; }
--- request eval
[::chat('{"messages":["' . 'x' x 6000 . '"],"model":"fast"}'), "POST /v2/responses\n" . '{"input":["' . 'x' x 6000 . '"],"model":"fast"}',
 ::model('fast')]
--- got eval
['p POST /chat/completions {"messages":["' . 'x' x 6000 . '"],"model":"slow"}', 'p POST /responses {"input":["' . 'x' x 6000 . '"],"model":"slow"}',
 ::got('p', 'slow')]



=== a location's own target, whatever the model
--- models
llm_adapter_model gpt-4 p;
--- config
location /v1/ { llm_adapter q; }
location /v2/ { llm_adapter r:mapped; }
--- request eval
[::model('gpt-4'), ::model('none/such'), "POST /v2/responses\n" . '{"model":"x"}']
--- got eval
[::got('q', 'gpt-4'), ::got('q', 'none/such'), 'r POST /responses {"model":"mapped"}']



=== provider/model where a location says direct
--- models
llm_adapter_model * p;
llm_adapter_model q/x p;
llm_adapter_model r/y* p:mapped;
--- config
location /v1/ { llm_adapter on direct; }
--- request eval
[map { ::model($_) } qw(q/gpt-4 q/x r/yes r/no r/a/b/c none/x q/ q /x q\/m)]
--- got eval
[::got('q', 'gpt-4'), ::got('p', 'q/x'), ::got('p', 'mapped'), ::got('r', 'no'), ::got('r', 'a/b/c'), ::got('p', 'none/x'),
 ::got('p', 'q/'), ::got('p', 'q'), ::got('p', '/x'), ::got('q', 'm')]



=== provider/model, with nothing else configured
--- config
location /v1/ { llm_adapter on direct; }
--- request eval
[map { ::model($_) } qw(q/gpt-4 none/x q)]
--- error_code eval
[200, 404, 404]
--- response_body_like eval
['^q POST /chat/completions \{"model":"gpt-4"', 'model_not_found', 'model_not_found']



=== provider/model where a location does not say direct
--- models
llm_adapter_model gpt* p;
--- request eval
::model('p/gpt-4')
--- error_code: 404
--- response_body_like: model_not_found



=== each endpoint's path
--- models
llm_adapter_model o p;
llm_adapter_model c a;
--- config
location /v1/ { llm_adapter on; }
--- request eval
[
    "POST /v1/chat/completions\n" . '{"model":"o","messages":[]}',
    "POST /v1/completions?x=y\n" . '{"model":"o","prompt":"p"}',
    "POST /v1/embeddings\n" . '{"model":"o","input":"p"}',
    "POST /v1/responses\n" . '{"model":"o","input":"p"}',
    "POST /v1/messages?beta=true\n" . '{"model":"c","messages":[]}',
    "POST /v1/messages/count_tokens\n" . '{"model":"c","messages":[]}',
]
--- got eval
[
    'p POST /chat/completions {"model":"o","messages":[]}',
    'p POST /completions?x=y {"model":"o","prompt":"p"}',
    'p POST /embeddings {"model":"o","input":"p"}',
    'p POST /responses {"model":"o","input":"p"}',
    'a POST /v9/messages?beta=true {"model":"c","messages":[]}',
    'a POST /v9/messages/count_tokens {"model":"c","messages":[]}',
]



=== the prefix is the location's; v1 after it is the API's
--- models
llm_adapter_model * p;
--- config
location /v1 { llm_adapter on; }
location /llm/ { llm_adapter on; }
location ^~ /deep/er { llm_adapter on; }
--- request eval
[map { "POST $_\n" . '{"model":"o"}' } qw(/v1/responses /v1//responses /llm/responses /llm/v1/responses /deep/er/v1/responses
 /deep/er/responses /%76%31/respon%73es)]
--- got eval
[('p POST /responses {"model":"o"}') x 7]



=== a path under the prefix that is not quite it
--- models
llm_adapter_model * p;
--- config
location /llm/ { llm_adapter on; }
--- request eval
[map { "POST $_\n" . '{"model":"o"}' } qw(/llm/v2/responses /llm/v1/v1/responses /llm/x/responses /llm/responsesx /llm/v1responses
 /llm/RESPONSES)]
--- error_code eval
[(404) x 6]
--- response_body_like eval
[('"code":"not_found"') x 6]



=== the root as a location
--- models
llm_adapter_model * p;
--- config
location / { llm_adapter on; }
--- request eval
[map { "POST $_\n" . '{"model":"o"}' } qw(/v1/responses /responses)]
--- got eval
[('p POST /responses {"model":"o"}') x 2]



=== a location by a regular expression
--- models
llm_adapter_model * p;
--- config
location ~ ^/(team-\w+/)?v1/ { llm_adapter on; }
location ~ /responses$ { llm_adapter on; }
--- request eval
[map { "POST $_\n" . '{"model":"o"}' } qw(/v1/responses /team-a/v1/embeddings /responses)]
--- got eval
['p POST /responses {"model":"o"}', 'p POST /embeddings {"model":"o"}', 'p POST /responses {"model":"o"}']



=== exact locations
--- models
llm_adapter_model * p;
--- config
location = /v1/chat/completions { llm_adapter q; }
location = /api/v1/responses { llm_adapter on; }
location = /embeddings { llm_adapter r; }
--- request eval
[::model('x'), map { "POST $_\n" . '{"model":"o"}' } qw(/api/v1/responses /embeddings)]
--- got eval
[::got('q', 'x'), 'p POST /responses {"model":"o"}', 'r POST /embeddings {"model":"o"}']



=== a named location by try_files
--- config
location /v1/ { try_files /none @llm; }
location @llm { llm_adapter q; }
--- request eval
::model('x')
--- got eval
::got('q', 'x')



=== models, of the configuration
--- models
llm_adapter_model gpt-4 p;
llm_adapter_model 'quo"te' q:x;
llm_adapter_model gpt-5 a;
--- request
GET /v1/models
--- response_body_like eval
qr/^\{"object":"list","data":\[\{"id":"gpt-4","object":"model","created":\d{10},"owned_by":"p"\},\{"id":"quo\\"te","object":"model","created":\d{10},"owned_by":"q"\},\{"id":"gpt-5","object":"model","created":\d{10},"owned_by":"a"\}\]\}$/
--- response_headers
Content-Type: application/json



=== models, in the other shape
--- models
llm_adapter_model gpt-4 p;
llm_adapter_model claude a;
--- request
GET /v1/models?limit=1000
--- more_headers
anthropic-version: 2023-06-01
--- response_body_like eval
my $m = sub { qq(\\{"type":"model","id":"$_[0]","display_name":"$_[0]","created_at":"20\\d\\d-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ"\\}) };
'^\{"data":\[' . $m->('gpt-4') . ',' . $m->('claude') . '\],"has_more":false,"first_id":"gpt-4","last_id":"claude"\}$'



=== no models
--- request eval
["GET /v1/models", "GET /v1/models"]
--- more_headers eval
["", "anthropic-version: 2023-06-01"]
--- response_body eval
['{"object":"list","data":[]}', '{"data":[],"has_more":false,"first_id":null,"last_id":null}']



=== one model
--- models
llm_adapter_model gpt-4 p;
llm_adapter_model org/gpt-4 q;
--- config
location /v1/ { llm_adapter on; }
location /o/ { llm_adapter on; }
--- request eval
["GET /v1/models/gpt-4", "GET /o/v1/models/org%2Fgpt-4", "GET /v1/models/org/gpt-4", "GET /v1/models/gpt-4", "GET /v1/models/gpt",
 "GET /v1/models/none", "GET /v1/models/"]
--- more_headers eval
["", "", "", "anthropic-version: 2023-06-01", "", "anthropic-version: 2023-06-01", ""]
--- error_code eval
[200, 200, 200, 200, 404, 404, 404]
--- response_body_like eval
[
    '^\{"id":"gpt-4","object":"model","created":\d{10},"owned_by":"p"\}$',
    '^\{"id":"org/gpt-4","object":"model","created":\d{10},"owned_by":"q"\}$',
    '^\{"id":"org/gpt-4","object":"model","created":\d{10},"owned_by":"q"\}$',
    '^\{"type":"model","id":"gpt-4","display_name":"gpt-4","created_at":"[^"]*"\}$',
    '"param":"model","code":"model_not_found"',
    '"type":"not_found_error","message":"the model does not exist"',
    '"code":"not_found"',
]



=== models of a location's own target
--- provider_p: model gpt-4; model gpt-5;
--- models
llm_adapter_model x q;
--- config
location /v1/ { llm_adapter p; }
location /v2/ { llm_adapter p:gpt-9; }
--- request eval
["GET /v1/models", "GET /v2/models", "GET /v1/models/gpt-5", "GET /v1/models/x"]
--- error_code eval
[200, 200, 200, 404]
--- response_body_like eval
['"data":\[\{"id":"gpt-4",[^}]*\},\{"id":"gpt-5",[^}]*\}\]\}$', '"data":\[\{"id":"gpt-9",[^}]*\}\]\}$', '^\{"id":"gpt-5"', 'model_not_found']



=== models that a pattern takes: those that would be served, each once
--- provider_p: model gpt-4; model gpt-5; model o3;
--- provider_q: model gpt-6; model o3;
--- models
llm_adapter_model gpt-5 p;
llm_adapter_model gpt-* p;
llm_adapter_model alias-* q:gpt-6;
llm_adapter_model * q;
--- request eval
["GET /v1/models", "GET /v1/models/gpt-4", "GET /v1/models/gpt-6"]
--- error_code eval
[200, 200, 404]
--- response_body_like eval
['"data":\[\{"id":"gpt-5",[^}]*"p"\},\{"id":"gpt-4",[^}]*"p"\},\{"id":"o3",[^}]*"q"\}\]\}$', '"id":"gpt-4"', 'model_not_found']



=== HEAD of models
--- models
llm_adapter_model gpt-4 p;
--- request
HEAD /v1/models
--- response_headers_like
Content-Type: application/json
Content-Length: \d+
--- response_body:
