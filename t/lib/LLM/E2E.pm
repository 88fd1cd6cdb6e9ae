package LLM::E2E;

# The library of the end-to-end tests (t/e2e/*.t): core Perl only.
#
#   use Test::More;
#   use lib 't/lib';
#   use LLM::E2E;
#
#   my $mock = start_mock();
#   my $t = start_nginx(<<'EOT', vars => { MOCK => $mock->port });
#       server {
#           listen 127.0.0.1:%%PORT%%;
#           location / { proxy_pass http://127.0.0.1:%%MOCK%%; }
#       }
#   EOT
#
#   my $r = http_post($t->port, '/v1/chat/completions', '{}');
#   is($r->status, 200);
#   no_alerts($t);                    stops nginx and looks at its logs
#   done_testing();
#
# The objects: LLM::Nginx, LLM::Mock, LLM::H1 (with LLM::H1::Response) and
# LLM::H2; each file's head lists its methods.

use strict;
use warnings;

use Exporter 'import';
use File::Spec ();
use Test::More ();

use LLM::Conn ();
use LLM::H1 ();
use LLM::Mock ();
use LLM::Nginx ();
use LLM::Process qw(alive rss_kb spawn reap);
use LLM::Util qw(now nap wait_for free_port slurp spew repo_root
                 json_encode json_decode sse_events);

our @EXPORT = qw(
    start_nginx check_conf start_mock no_alerts have_mock skip_without_module
    skip_under_valgrind http h1 h2 http_get http_post have_tls make_cert
    now nap wait_for free_port slurp spew repo_root alive rss_kb spawn reap
    json_encode json_decode sse_events
);


# A test that is interrupted still stops its servers: exit() runs DESTROY.

for my $signal (qw(INT TERM HUP PIPE)) {
    $SIG{$signal} //= sub { exit 1 };
}


sub start_nginx { return LLM::Nginx->start(@_) }


# `nginx -t`: (true if fine, the text).

sub check_conf { return LLM::Nginx->check(@_) }


sub start_mock { return LLM::Mock->start(@_) }

sub have_mock {
    return -x ($ENV{LLM_MOCK} // repo_root() . '/build/llm_mock');
}


# One test: all client connections are closed, nginx stops by itself (running
# => 1: neither), and its logs have no alert, sanitizer or valgrind text;
# allow => [qr//...] are exceptions.

sub no_alerts {
    my ($t, %o) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @bad;

    if (!$o{running}) {
        LLM::Conn::close_all();
        push @bad, 'nginx had to be killed' if !$t->stop;
        push @bad, 'wait status ' . $t->exit_status if $t->exit_status;
    }

    push @bad, $t->alerts(@{ $o{allow} // [] });

    Test::More::is(join("\n", @bad), '', $o{name} // 'no alerts');
}


sub skip_without_module {
    my $module = $ENV{LLM_MODULE} // 'build/ngx_http_llm_module.so';
    return if $module eq '' || -e File::Spec->rel2abs($module, repo_root());
    Test::More::plan(skip_all => "$module is not there: run make");
}


sub skip_under_valgrind {
    my ($why) = @_;
    return if !$ENV{LLM_VALGRIND};
    Test::More::plan(skip_all => $why // 'needs a master process');
}


# --- clients ---

sub h1 {
    my ($port, %o) = @_;
    return LLM::H1->new(port => $port, %o);
}


sub h2 {
    my ($port, %o) = @_;
    require LLM::H2;
    return LLM::H2->new(port => $port, %o);
}


# One request on a connection of its own.  Options of LLM::H1's new(),
# send_request() and read_body() may be mixed.

sub http {
    my ($method, $port, $path, %o) = @_;
    my $client = LLM::H1->new(port => $port, %o);
    my $r = $client->request($method, $path, close => 1, %o);
    $client->close if $r->end;
    return $r;
}

sub http_get {
    my ($port, $path, %o) = @_;
    return http('GET', $port, $path, %o);
}


# The body: bytes, or a reference, which is sent as JSON.

sub http_post {
    my ($port, $path, $body, %o) = @_;

    my @headers = @{ $o{headers} // [] };

    if (ref $body) {
        $body = json_encode($body);
        push @headers, 'Content-Type' => 'application/json'
            if !grep { /^content-type$/i } @headers;
    }

    return http('POST', $port, $path, %o, body => $body,
                headers => \@headers);
}


sub have_tls { return LLM::Conn::have_tls() }


# A self-signed certificate for the names (default localhost) in $dir:
# returns (certificate file, key file).

sub make_cert {
    my ($dir, @names) = @_;

    @names = ('localhost') if !@names;
    my ($cert, $key) = ("$dir/$names[0].crt", "$dir/$names[0].key");
    my $alt = join ',', map { /^[\d.]+$/ ? "IP:$_" : "DNS:$_" } @names;

    system("openssl req -x509 -newkey ec "
           . "-pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "
           . "-subj '/CN=$names[0]' -addext 'subjectAltName=$alt' "
           . "-keyout '$key' -out '$cert' >/dev/null 2>&1") == 0
        or die "openssl could not make a certificate\n";

    return ($cert, $key);
}


1;
