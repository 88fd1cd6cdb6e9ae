#!/usr/bin/perl

# The end-to-end library against plain nginx: no module of ours is loaded.

use strict;
use warnings;

use FindBin ();
use lib $FindBin::Bin;

use Test::More;
use LLM::E2E;

my $BIG = 4 * 1024 * 1024;

my $conf = <<'EOT';
    map $http_x_rate $rate { default 0; ~^\d+k$ $http_x_rate; }
    log_format short '$request_method $uri $status $http_x_name';

    server {
        listen 127.0.0.1:%%PORT%%;
        access_log %%DIR%%/access.log short;

        location = /hello { return 200 "hello\n"; }
        location = /env {
            return 200 "$http_host|$http_x_a|$server_protocol";
        }
        location = /none  { return 204; }

        location /big {
            root %%DIR%%/html;
            sendfile off;
            output_buffers 2 32k;
        }

        location /chunked/ {
            proxy_pass http://127.0.0.1:%%PORT_backend%%/;
            proxy_http_version 1.1;
            proxy_buffering off;
        }

        location /echo {
            client_max_body_size 20m;
            proxy_pass http://127.0.0.1:%%PORT_backend%%/echo;
            proxy_http_version 1.1;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_backend%%;

        location = /page {
            ssi on;
            ssi_types text/plain;
            default_type text/plain;
            root %%DIR%%/html;
        }

        location = /echo {
            client_max_body_size 20m;
            client_body_buffer_size 16m;
            client_body_in_single_buffer on;
            add_header X-Method $request_method;
            add_header X-Length $content_length;
            proxy_pass http://127.0.0.1:%%PORT_backend%%/body;
            proxy_set_header X-Body $request_body;
        }

        location = /body { return 200 $http_x_body; }
    }
EOT

my $t = start_nginx($conf,
    module => '', workers => 2, master => 1,
    files => {
        'html/big' => 'x' x $BIG,
        'html/page' => "one\n<!--# echo var=\"uri\" -->\ntwo\n",
    });
my $port = $t->port;


subtest 'server' => sub {
    is(scalar($t->workers), 2, 'workers');
    ok($t->rss > 0, 'memory');
    ok(alive($t->pid), 'master lives');
    like($t->conf, qr/listen 127.0.0.1:$port;/, 'port put in');
    isnt($t->port('other'), $t->port, 'ports differ');
};


subtest 'simple requests' => sub {
    my $r = http_get($port, '/hello');
    is($r->status, 200);
    is($r->body, "hello\n");
    is($r->end, 'length');
    ok($r->complete);
    is($r->version, '1.1');
    is($r->header('connection'), 'close');

    $r = http_get($port, '/env', headers => [ 'X-A' => 'b' ], host => 'h.test',
                  version => '1.0');
    is($r->body, 'h.test|b|HTTP/1.0');

    $r = http('HEAD', $port, '/hello');
    is($r->end, 'none');
    is($r->header('Content-Length'), 6);

    is(http_get($port, '/none')->end, 'none', 'no content');
    is(http_get($port, '/missing')->status, 404);
};


subtest 'keepalive and pieces' => sub {
    my $c = h1($port);

    for my $n (1 .. 3) {
        my $r = $c->request('GET', '/hello');
        is($r->body, "hello\n", "request $n");
    }

    my $r = $c->request('GET', '/hello', piece => 7, delay => 0.001);
    is($r->status, 200, 'sent in pieces');

    $c->write("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n" x 2);
    is($c->read_response->body, "hello\n", 'pipelined, first');
    is($c->read_response->body, "hello\n", 'pipelined, second');
    is($c->wait_close(0.05), '', 'still open');

    $c->half_close;
    is($c->wait_close, 'eof', 'server closed after half close');
};


subtest 'chunked answer' => sub {
    my $r = http_get($port, '/chunked/page');
    is($r->header('Transfer-Encoding'), 'chunked');
    is($r->body, "one\n/page\ntwo\n");
    is($r->end, 'chunked');
    is(join('', map { $_->[1] } @{ $r->chunks }), $r->body, 'chunks');
    cmp_ok($r->chunks->[0][0], '>=', $r->started, 'times');

    $r = http_get($port, '/chunked/page', version => '1.0');
    is($r->end, 'eof', 'HTTP/1.0 is delimited by close');
    is($r->body, "one\n/page\ntwo\n");
};


subtest 'request bodies' => sub {
    my $body = join ',', 1 .. 500;

    my $r = http_post($port, '/echo', $body);
    is($r->body, $body, 'content-length');
    is($r->header('X-Length'), length $body);

    $r = http_post($port, '/echo', $body, chunked => 100);
    is($r->body, $body, 'chunked');

    $r = http_post($port, '/echo', { b => 1, a => [2] });
    is_deeply($r->json, { a => [2], b => 1 }, 'json');

    my $c = h1($port);
    $r = $c->request('POST', '/echo', body => $body, expect => 1);
    is($r->body, $body, 'expect');
    is(scalar(@{ $r->informational }), 1, '100 was seen');
    like($r->informational->[0], qr/^HTTP\/1.1 100 /);

    $c = h1($port);
    $r = $c->request('POST', '/echo', expect => 1, body => 'x',
                     headers => [ 'Content-Length' => 30_000_000 ]);
    is($r->status, 413, 'a final answer instead of 100');
};


subtest 'slow reader' => sub {
    my $c = h1($port, rcvbuf => 8192);
    $c->send_request('GET', '/big');
    my $r = $c->read_head;
    is($r->status, 200);

    $c->read_body($r, limit => 1000);
    cmp_ok(length $r->body, '>=', 1000, 'limit');
    cmp_ok(length $r->body, '<', 200_000);

    my $start = now();
    my $had = length $r->body;
    $c->read_body($r, rate => 400_000, for => 0.5);
    my $read = length($r->body) - $had;
    cmp_ok($read, '<', 400_000, "rate limited: $read bytes in 0.5 s");
    cmp_ok($read, '>', 50_000);
    cmp_ok(now() - $start, '<', 2, 'time limited');
    is($r->end, '', 'not over');

    $c->read_body($r);
    is(length $r->body, $BIG, 'the rest');
    ok($r->complete);
};


subtest 'aborts' => sub {
    for my $how (qw(rst fin)) {
        my $c = h1($port, rcvbuf => 8192);
        $c->send_request('GET', '/big', headers => [ 'X-Name' => $how ]);
        my $r = $c->read_head;
        $c->read_body($r, limit => 1000);
        $c->abort($how);
        ok($t->wait_access(qr{GET /big \d+ $how$}m), "$how: logged");
    }

    like($t->error_log, qr/reset by peer|Broken pipe/, 'nginx saw it');
};


subtest 'cut answers' => sub {
    my $c = h1($port, rcvbuf => 8192);
    $c->send_request('GET', '/big');
    my $r = $c->read_head;
    $c->read_body($r, limit => 1000);
    ok($t->kill_worker(pid => $_), 'killed and replaced') for $t->workers;
    $c->read_body($r);
    is($r->end, 'cut', 'worker killed');
    ok(!$r->complete);
    is(scalar($t->workers), 2, 'workers replaced');

    $r = http_get($port, '/hello', timeout => 5);
    is($r->status, 200, 'serves again');

    is(http_get($port, '/hello', timeout => 5)->status, 200);
    my $idle = h1($port);
    $r = $idle->read_head(timeout => 0.05);
    is($r->end, 'timeout', 'no answer without a request');
    is($r->status, 0);
};


subtest 'reload' => sub {
    my %old = map { $_ => 1 } $t->workers;
    ok($t->reload(old_gone => 1), 'reload');
    my @new = $t->workers;
    is(scalar(@new), 2);
    ok(!grep({ $old{$_} } @new), 'other workers');

    (my $changed = $conf) =~ s/"hello\\n"/"changed"/;
    ok($t->reload(conf => $changed), 'with another configuration');
    is(http_get($port, '/hello')->body, 'changed');

    ok(!$t->reload(conf => "nonsense;\n"), 'a bad one is refused');
    is(http_get($port, '/hello')->body, 'changed', 'the old one serves on');
};


no_alerts($t, allow => [qr/exited on signal 9/,
                        qr/unknown directive "nonsense"/]);


subtest 'binary upgrade' => sub {
    plan skip_all => 'needs exec()' if $ENV{LLM_VALGRIND};

    my $u = start_nginx($conf, module => '', daemon => 1,
                        files => { 'html/big' => '' });
    my ($old, $new) = $u->upgrade;
    ok($new, 'upgraded');
    isnt($old, $new);
    is($u->pid, $new);
    is(http_get($u->port, '/hello')->body, "hello\n");
    no_alerts($u);
    ok(!alive($new), 'stopped');
};


subtest 'one process' => sub {
    my $u = start_nginx($conf, module => '', master => 0,
                        log_level => 'debug');
    is_deeply([$u->workers], [$u->pid]);
    is(http_get($u->port, '/hello')->body, "hello\n");
    ok($u->wait_log(qr/http process request line/), 'debug log');
    my $mark = $u->log_mark;
    ok(!$u->wait_log(qr/http process request line/, 0.05, $mark), 'mark');
    no_alerts($u);
    is($u->exit_status, 0);
};


subtest 'bad configurations' => sub {
    my $u = start_nginx('nonsense;', module => '', may_fail => 1);
    ok($u->failed, 'failed: ' . $u->failed);
    like($u->error_log, qr/unknown directive "nonsense"/);

    my ($ok, $text) = check_conf('nonsense;', module => '');
    ok(!$ok);
    like($text, qr/unknown directive "nonsense"/);

    ($ok, $text) = check_conf($conf, module => '');
    ok($ok);
    like($text, qr/test is successful/);
};


subtest 'no_alerts() sees alerts' => sub {
    my $u = start_nginx($conf, module => '');
    spew($u->path('error.log'), "1970/01/01 [alert] 1#1: made up\n");
    is(scalar($u->alerts), 1);
    is(scalar($u->alerts(qr/made up/)), 0);
    spew($u->path('error.log'), "==1==ERROR: AddressSanitizer: x\n");
    is(scalar($u->alerts), 1);
};


subtest 'tls client' => sub {
    plan skip_all => 'no IO::Socket::SSL' if !have_tls();

    my $dir = File::Temp->newdir;
    my ($cert, $key) = make_cert($dir, 'localhost');
    my %files = (files => { 'html/b' => 'x' x $BIG });
    my $u = start_nginx(<<"EOT", module => '', %files);
        server {
            listen 127.0.0.1:%%PORT%% ssl;
            ssl_certificate $cert;
            ssl_certificate_key $key;
            root %%DIR%%/html;
            location = /hello { return 200 "\$ssl_server_name\\n"; }
        }
EOT

    my %tls = (tls => { sni => 'localhost', ca => $cert, verify => 1 });
    is(http_get($u->port, '/hello', %tls)->body, "localhost\n");

    my $c = h1($u->port, %tls, rcvbuf => 8192);
    $c->send_request('GET', '/b');
    my $r = $c->read_head;
    $c->read_body($r, for => 0.2, rate => 100_000);
    cmp_ok(length $r->body, '<', 100_000, 'slow');
    $c->read_body($r);
    is(length $r->body, $BIG, 'whole');
    $c->abort('rst');

    ok(!eval { h1($u->port, tls => { sni => 'x.test', verify => 1 }) },
       'verification can fail');
    no_alerts($u);
};


subtest 'mock provider' => sub {
    plan skip_all => 'build/llm_mock is not there' if !have_mock();

    my $m = start_mock(args => ['-p', '0,0']);
    is(scalar($m->ports), 2, 'ports');
    my @messages = ({ role => 'user', content => 'a' });
    my %body = (model => 'm', messages => \@messages);
    is(http_post($m->port, '/v1/chat/completions', \%body)->status, 200);
    is(json_decode($m->last_body)->{model}, 'm', 'last body');
    like($m->last, qr{^POST /v1/chat/completions }, 'last head');
    is($m->wait_stat('requests', 1)->{requests}, 1, 'counters');
    ok($m->reset);
    is($m->stats->{requests}, 0);
};


subtest 'events of a stream' => sub {
    my @e = sse_events("\xef\xbb\xbfdata: a\r\n\r\n: ping\n\nevent: x\n"
                       . "data:1\ndata: 2\nid: 7\n\n\n\ndata\r\rdata: cut");
    is(scalar(@e), 5);
    is($e[0]{data}, 'a');
    is_deeply($e[1]{comments}, ['ping']);
    is($e[1]{data}, undef);
    is($e[2]{data}, "1\n2");
    is($e[2]{event}, 'x');
    is($e[2]{id}, 7);
    is($e[3]{data}, '');
    is($e[4]{data}, 'cut');
    ok(!$e[4]{complete});
    ok($e[3]{complete});
};


subtest 'helpers' => sub {
    my %seen;
    $seen{free_port()}++ for 1 .. 50;
    is(scalar(keys %seen), 50, 'ports are different');
    ok(!(wait_for { 0 } 0.05), 'wait_for gives up');
    is((wait_for { 7 } 1), 7);
    is(json_encode({ b => 1, a => "\x{e9}" }), qq({"a":"\xc3\xa9","b":1}));
    is(json_decode('nonsense'), undef);
    ok(-d repo_root() . '/t/lib', 'root');
};


done_testing();
