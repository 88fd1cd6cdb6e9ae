#!/usr/bin/perl

# The HTTP/2 client against plain nginx: no module of ours is loaded.

use strict;
use warnings;

use FindBin ();
use lib $FindBin::Bin;

use Test::More;
use LLM::E2E;
use LLM::HPACK;

my $BIG = 2 * 1024 * 1024;

# `listen ... http2` warns from 1.25.1 on, where `http2 on` is the new way
my $new = LLM::Nginx::version_number() >= 1025001;

my $conf = <<'EOT';
    log_format short '$request_method $uri $status $http_x_name';

    server {
        listen 127.0.0.1:%%PORT%% %%LISTEN%%;
        %%HTTP2%%
        access_log %%DIR%%/access.log short;
        client_max_body_size 20m;

        location = /hello { return 200 "hello\n"; }
        location = /env   { return 200 "$http_host|$http_x_a|$scheme"; }
        location = /none  { return 204; }
        location = /many  {
            add_header X-Long $http_x_long;
            add_header X-Time $msec;
            return 200 ok;
        }

        location /big {
            root %%DIR%%/html;
            sendfile off;
        }

        location /echo {
            proxy_pass http://127.0.0.1:%%PORT_backend%%/;
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_backend%%;
        client_max_body_size 20m;
        client_body_buffer_size 16m;
        client_body_in_single_buffer on;
        location / {
            proxy_pass http://127.0.0.1:%%PORT_backend%%/body;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Length $request_length;
            proxy_set_header X-Body $request_body;
        }
        location = /body { return 200 "$http_x_length $http_x_body"; }
        large_client_header_buffers 4 1m;
    }
EOT

my $t = start_nginx($conf, module => '', master => 1,
    vars => { LISTEN => $new ? '' : 'http2',
              HTTP2 => $new ? 'http2 on;' : '' },
    files => { 'html/big' => 'x' x $BIG });
my $port = $t->port;


subtest 'header compression' => sub {
    # RFC 7541, C.4 and C.6: the same decoder for all of a connection
    my $d = LLM::HPACK->new;
    my $decode = sub { join ',', map { "$_->[0]=$_->[1]" }
                                 $d->decode(pack 'H*', $_[0]) };

    is($decode->('828684418cf1e3c2e5f23a6ba0ab90f4ff'),
       ':method=GET,:scheme=http,:path=/,:authority=www.example.com');
    is($decode->('828684be5886a8eb10649cbf'),
       ':method=GET,:scheme=http,:path=/,:authority=www.example.com,'
       . 'cache-control=no-cache');
    is($decode->('828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf'),
       ':method=GET,:scheme=https,:path=/index.html,'
       . ':authority=www.example.com,custom-key=custom-value');

    $d = LLM::HPACK->new(size => 256);
    is($decode->('488264025885aec3771a4b6196d07abe941054d444a8200595040b8166'
                 . 'e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3'),
       ':status=302,cache-control=private,date=Mon, 21 Oct 2013 20:13:21 GMT,'
       . 'location=https://www.example.com');
    is($decode->('4883640effc1c0bf'),
       ':status=307,cache-control=private,date=Mon, 21 Oct 2013 20:13:21 GMT,'
       . 'location=https://www.example.com', 'eviction');

    is($decode->(unpack 'H*', LLM::HPACK::encode(['a', 'b' x 300])),
       'a=' . 'b' x 300, 'own encoder, long value');

    for my $bad ('ff8080808080', '80', '0003', 'be', '000182ffff0161') {
        $d = LLM::HPACK->new;
        ok(!defined eval { $d->decode(pack 'H*', $bad); 1 }, "$bad dies");
    }
};


subtest 'simple requests' => sub {
    my $c = h2($port);

    my $s = $c->request('GET', '/hello');
    is($s->status, 200);
    is($s->body, "hello\n");
    is($s->end, 'end_stream');
    ok($s->complete);
    is($s->header('Content-Length'), 6);
    like($s->header('server'), qr/^nginx/);

    $s = $c->request('GET', '/env', headers => [ 'x-a' => 'b' ],
                     authority => 'h.test');
    is($s->body, 'h.test|b|http');

    $s = $c->request('HEAD', '/hello');
    is($s->body, '');
    ok($s->complete);

    is($c->request('GET', '/none')->status, 204);
    is($c->request('GET', '/missing')->status, 404);
    is($c->peer_settings->{3}, 128, 'settings of the peer');
    ok($c->ping < 1, 'ping');
};


subtest 'many headers, one connection' => sub {
    my $c = h2($port);

    for my $n (1, 100, 5000, 7000) {
        my $s = $c->request('GET', '/many',
                            headers => [ 'x-long' => 'v' x $n ]);
        is($s->header('x-long'), 'v' x $n, "value of $n bytes");
    }

    my @s = map { $c->start('GET', '/many', headers => [ 'x-long' => $_ ]) }
            1 .. 50;
    $c->read_body($_) for @s;
    is(join(' ', map { $_->header('x-long') } @s), join(' ', 1 .. 50),
       '50 streams at once');
};


subtest 'request bodies' => sub {
    my $c = h2($port);
    my $body = 'abc' x 100_000;

    my $s = $c->request('POST', '/echo', body => $body);
    is($s->status, 200);
    is($s->body =~ s/^\d+ //r, $body, 'whole');

    $s = $c->start('POST', '/echo', open => 1);
    $c->send_data($s, 'one ');
    is($c->read_some($s, timeout => 0.1), '', 'no answer yet');
    $c->send_data($s, 'two', end => 1);
    $c->read_body($s);
    like($s->body, qr/^\d+ one two$/, 'in pieces, without a length');
};


subtest 'flow control' => sub {
    my $c = h2($port, window => 1000, auto => 0);

    my $s = $c->start('GET', '/big');
    $c->read_body($s, timeout => 0.2);
    is(length $s->body, 1000, 'stops at the window');
    is($s->unacked, 1000);

    $c->window_update($s, 500);
    $c->read_body($s, timeout => 0.2);
    is(length $s->body, 1500, 'goes on by as much as it was given');

    my $other = $c->start('GET', '/hello');
    $c->read_body($other);
    is($other->body, "hello\n", 'another stream is not held up');

    $c->window_update($s, $BIG);
    $c->read_body($s, timeout => 0.2);
    is(length($s->body) + 6, 65535, "stops at the connection's window");

    $c->window_update(0, $BIG);
    $c->read_body($s);
    is(length $s->body, $BIG, 'the rest');
    ok($s->complete);
};


subtest 'slow and quick streams' => sub {
    my $c = h2($port, rcvbuf => 8192);

    my $slow = $c->start('GET', '/big', auto => 0);
    my $quick = $c->start('GET', '/big');
    $c->read_body($quick);
    is(length $quick->body, $BIG, 'quick');
    is(length $slow->body, 65535, 'slow');
    $c->reset($slow);
    is($slow->end, 'cancelled');
    is($c->request('GET', '/hello')->body, "hello\n");

    $c = h2($port, rcvbuf => 8192, window => 2 * $BIG,
            conn_window => 2 * $BIG);
    my $s = $c->start('GET', '/big');
    $c->read_body($s, rate => 200_000, for => 0.4);
    cmp_ok(length $s->body, '<', 300_000, 'rate');
    cmp_ok(length $s->body, '>', 10_000);
    $c->read_body($s);
    is(length $s->body, $BIG, 'the rest');
};


subtest 'aborts' => sub {
    my $c = h2($port);
    my $s = $c->start('GET', '/big', auto => 0,
                      headers => [ 'x-name' => 'reset' ]);
    $c->read_some($s);
    $c->reset($s);
    ok($t->wait_access(qr{/big \d+ reset$}m), 'stream reset');

    for my $how (qw(rst fin)) {
        $c = h2($port);
        $s = $c->start('GET', '/big', auto => 0,
                       headers => [ 'x-name' => $how ]);
        $c->read_some($s);
        $c->abort($how);
        ok($t->wait_access(qr{/big \d+ $how$}m), "connection: $how");
    }
};


subtest 'bad frames' => sub {
    my $c = h2($port);
    $c->request('GET', '/hello');
    my $s = $c->start('POST', '/echo', open => 1);
    $c->window_update($s, 0x7fffffff);
    $c->read_body($s, timeout => 2);
    is($s->end, 'rst', 'the stream was reset');
    is($s->rst_code, 3, 'FLOW_CONTROL_ERROR');

    $c->send_frame('HEADERS', 4, 2, LLM::HPACK::encode([':method', 'GET']));
    ok($c->read_until(sub { $c->goaway_got }), 'goaway');
    is($c->goaway_got->{code}, 1);
    is($c->wait_close, 'eof');
};


subtest 'reload and a killed worker' => sub {
    my $c = h2($port);
    $c->request('GET', '/hello');
    my $s = $c->start('GET', '/big', auto => 0);
    $c->read_some($s);
    ok($t->reload);
    ok($c->read_until(sub { $c->goaway_got }), 'goaway after a reload');

    $c->window_update(0, $BIG);
    $c->window_update($s, $BIG);
    $c->read_body($s);
    is(length $s->body, $BIG, 'the open stream ends well');

    $c = h2($port);
    $s = $c->start('GET', '/big', auto => 0);
    $c->read_some($s);
    ok($t->kill_worker, 'killed and replaced');
    $c->read_body($s);
    is($s->end, 'cut');
};


no_alerts($t, allow => [qr/exited on signal 9/]);


subtest 'over tls' => sub {
    plan skip_all => 'no IO::Socket::SSL' if !have_tls();

    my $dir = File::Temp->newdir;
    my ($cert, $key) = make_cert($dir);
    my $u = start_nginx(<<"EOT", module => '');
        server {
            listen 127.0.0.1:%%PORT%% ssl @{[ $new ? '' : 'http2' ]};
            @{[ $new ? 'http2 on;' : '' ]}
            ssl_certificate $cert;
            ssl_certificate_key $key;
            location = /hello { return 200 "\$server_protocol"; }
        }
EOT

    my $c = h2($u->port, tls => { sni => 'localhost', ca => $cert,
                                  verify => 1 });
    is($c->request('GET', '/hello', scheme => 'https')->body, 'HTTP/2.0');
    no_alerts($u);
};


done_testing();
