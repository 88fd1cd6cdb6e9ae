#!/usr/bin/perl

# Addresses that change: with "resolver" a provider's host is looked up again
# while nginx runs, nobody waits for it, and nothing that works is given up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::DNS;
use LLM::E2E;
use LLM::Nginx;
use Gateway;

skip_without_module();

my $slow = $ENV{LLM_VALGRIND} ? 8 : 1;

# Names begin with "-": the system (getaddrinfo() of glibc) does not ask for
# these, so that nginx starts without them and at once.

# one port, two addresses; nothing is at 127.0.0.3

my $port = free_port();
my %mock = map { $_ => start_mock(args => ['-a', $_, '-p', $port]) }
           qw(127.0.0.1 127.0.0.2);
my ($one, $two) = @mock{qw(127.0.0.1 127.0.0.2)};
my $dns = LLM::DNS->start;


sub start {
    my ($name, %o) = @_;

    my ($t) = gateway(mock => $one, endpoint => "http://$name:$port", %o,
        vars => { DNS => $dns->port, %{ $o{vars} // {} } },
        http => ($o{resolver}
                 // 'resolver 127.0.0.1:%%DNS%% valid=1s ipv6=off;')
                . ' resolver_timeout 1s; ' . ($o{http} // ''));
    return $t;
}


my $calls = 0;

# The addresses that a call tried, in the log's words; its status if no 200.

sub where {
    my ($t, %o) = @_;

    my $test = 'call ' . ++$calls . '.';
    my $r = ask(h1($t->port), $o{kind} // 'chat', test => $test, close => 1,
                %o);
    my $at = log_of($t, $test)->{upstream_addr} // '';
    $at =~ s/:$port\b//g;

    return $r->status == 200 ? $at : $r->status . " $at";
}

# Until calls go to $at; what the last one said.

sub comes_to {
    my ($t, $at, $seconds, %o) = @_;
    my $said;
    wait_for { ($said = where($t, %o)) eq $at } ($seconds // 5) * $slow, 0.1;
    return $said;
}

sub count { return scalar(() = $_[0] =~ /$_[1]/g) }


sub open_at { return $_[0]->stats->{open_connections} }

# what is logged of a provider's name

sub logged {
    my ($name, $text, $provider) = @_;
    $provider //= 'openai';
    return qr/llm: provider "$provider": "\Q$name\E" $text/;
}


# --- unknown at start, known later ---

my $t = start('-a.test');

like($t->error_log . $t->stderr,
     qr/\[warn\].* of provider "openai".* fail until "resolver" finds it/,
     'a name that is unknown at start is a warning');

{
    my $r = ask(h1($t->port), 'chat', test => 'unknown', close => 1);
    is_error($r, 'chat', 502, 'a name that is not known');
    is(log_of($t, 'unknown')->{error}, 'upstream_dns', 'the class in the log');

    $t->wait_log(qr/could not be resolved/, 5 * $slow);
    ok(wait_for(sub { $dns->queries('-a.test') >= 3 }, 10 * $slow),
       'it is asked for again');
    is(count($t->error_log, logged('-a.test', 'could not be resolved '
                                   . '\(3: Host not found\), its calls fail')),
       1, 'and logged once');
}

$dns->set('-a.test', '127.0.0.1');

is(comes_to($t, '127.0.0.1', 4), '127.0.0.1', 'then it has an address');
like($t->error_log, logged('-a.test', 'is resolved again'), 'which is logged');
is(comes_to($t, '127.0.0.1', 4, kind => 'messages'), '127.0.0.1',
   'the other provider of that name');


# --- it moves ---

sub stream_to {
    my ($t, $test, %set) = @_;
    my $c = h1($t->port, timeout => 20);
    start_ask($c, 'chat', stream => 1, test => $test,
              mock => { events => 30, gap => '200ms', %set });
    return ($c, $c->read_head);
}

{
    my @clients = map { h1($t->port) } 1 .. 6;
    start_ask($_, 'chat', mock => { delay => '300ms' }) for @clients;
    $_->read_response for @clients;
    $_->close for @clients;

    my ($c, $r) = stream_to($t, 'moving');
    cmp_ok(open_at($one), '>=', 6, 'idle connections, and a stream');

    my $mark = $t->log_mark;
    my $since = now();
    $dns->set('-a.test', '127.0.0.2');

    is(comes_to($t, '127.0.0.2'), '127.0.0.2', 'calls go to the new address');
    note(sprintf 'after %.1f s', now() - $since);
    is(comes_to($t, '127.0.0.2', 5, kind => 'messages'), '127.0.0.2',
       "the other provider's too");

    my $left = wait_for { open_at($one) <= 1 } 2 * $slow;
    ok($left, 'idle connections to the old one are closed');
    is(open_at($one), 1, 'the stream is not');

    $c->read_body($r);
    $c->close;
    is_whole($r, 'chat', 'it runs to its end');
    is(count($r->body, qr/"delta":\{"content":"/), 30, 'with all its events');
    is(log_of($t, 'moving')->{upstream_addr}, "127.0.0.1:$port",
       'its address in the log is the old one');
    ok(wait_for(sub { open_at($one) == 0 }, 2 * $slow),
       'and its connection is not kept');

    is(count($t->log_since($mark), logged('-a.test',
                                          "is now at 127\\.0\\.0\\.2:$port\n")),
       1, 'it is logged once');
}


# --- the same addresses, in another order ---

{
    my $mark = $t->log_mark;
    $dns->set('-a.test', '127.0.0.1', '127.0.0.2');
    $t->wait_log(logged('-a.test', "is now at 127.0.0.1:$port, 127.0.0.2"),
                 5 * $slow, $mark);

    # streams that run: each needs a connection of its own

    my %seen;
    my @running = map { [stream_to($t, "both $_.", gap => '20ms')] } 1 .. 16;

    for (@running) {
        my ($c, $r) = @$_;
        $c->read_body($r);
        $c->close;
    }

    $seen{ log_of($t, "both $_.")->{upstream_addr} }++ for 1 .. 16;
    is(join(' ', sort keys %seen), "127.0.0.1:$port 127.0.0.2:$port",
       'two addresses, both are used');

    $mark = $t->log_mark;
    my @before = map { $_->stats->{connections} } $one, $two;
    $dns->set('-a.test', '127.0.0.2', '127.0.0.1', '127.0.0.2');
    my $asked = $dns->queries('-a.test');
    wait_for { $dns->queries('-a.test') >= $asked + 2 } 8 * $slow;
    where($t) for 1 .. 3;
    my @after = map { $_->stats->{connections} } $one, $two;

    is($after[0] + $after[1] - $before[0] - $before[1], 0,
       'the same set: idle connections stay in use');
    unlike($t->log_since($mark), logged('-a.test', 'is now at'),
           'and nothing is logged');
}


# --- DNS fails: what was known stays ---

{
    my $mark = $t->log_mark;
    $dns->set('-a.test', '127.0.0.2');
    $t->wait_log(logged('-a.test', "is now at 127.0.0.2:$port\n", $_),
                 5 * $slow, $mark) for qw(openai anthropic);
    is(where($t), '127.0.0.2', 'one address again');
}

for my $how (qw(NXDOMAIN SERVFAIL SILENT)) {
    my $mark = $t->log_mark;
    $dns->set('-a.test', $how);
    ok($t->wait_log(logged('-a.test', 'could not be resolved.* stay in use'),
                    8 * $slow, $mark),
       "$how is logged");

    my $asked = $dns->queries('-a.test');
    my @wrong = grep { $_ ne '127.0.0.2' } map { nap(0.15); where($t) } 1 .. 8;
    is_deeply(\@wrong, [], "$how: the old address is kept");
    ok(wait_for(sub { $dns->queries('-a.test') > $asked }, 8 * $slow),
       "$how: it is asked again");
    is(count($t->log_since($mark), logged('-a.test', 'could not')), 1,
       "$how: logged once");

    $dns->set('-a.test', '127.0.0.2');
    ok($t->wait_log(logged('-a.test', 'is resolved again'), 20 * $slow, $mark),
       "$how: over");
    unlike($t->log_since($mark), logged('-a.test', 'is now at'),
           "$how: nothing has changed");
}

no_alerts($t, name => 'one worker: no alerts');


# --- several addresses, one that refuses ---

{
    $dns->set('-b.test', '127.0.0.1', '127.0.0.3');
    my $t = start('-b.test', provider => 'keepalive 0;');
    comes_to($t, '127.0.0.1');

    my @at = map { where($t) } 1 .. 12;
    is(scalar(grep { !/^(?:127\.0\.0\.3, )?127\.0\.0\.1$/ } @at), 0,
       'a refusing address is passed over') or diag(explain(\@at));
    ok(scalar(grep { /, / } @at), 'within one attempt');

    $dns->set('-b.test', '127.0.0.3');
    ok(wait_for(sub { where($t) =~ /^502/ }, 5 * $slow), 'only that one');
    my $r = ask(h1($t->port), 'chat', test => 'refused', close => 1);
    is(log_of($t, 'refused')->{error}, 'upstream_connect', 'is no DNS error');

    # the list shrinks and grows under calls that come all the time

    my (@wrong, %seen);
    for my $round (1 .. 4) {
        $dns->set('-b.test', @$_) for $round % 2
            ? ['127.0.0.1', '127.0.0.2', '127.0.0.3'] : ['127.0.0.2'];
        my $end = now() + 1.5;
        while (now() < $end) {
            my $at = where($t, stream => 1, mock => { events => 3 });
            $seen{$at}++;
            push @wrong, $at if $round > 2 && $at !~ /127\.0\.0\.[12]$/;
        }
    }
    is_deeply(\@wrong, [], 'changing lists: no call fails');
    no_alerts($t, name => 'several: no alerts');
}


# --- CNAME, IPv6 beside IPv4, and names that nobody asks for ---

{
    $dns->set('-alias.test', 'CNAME', '-real.test');
    $dns->set('-real.test', '127.0.0.2');
    $dns->set('-six.test', '::1', '127.0.0.1');
    $dns->ttl(1);

    my $t = start('-ALIAS.test', resolver => 'resolver 127.0.0.1:%%DNS%%;',
        locations => { map { ("/$_/v1/" => "llm_adapter $_;") }
                       qw(six named literal) },
        http => <<"EOT");
    upstream named.test { server 127.0.0.1:$port; keepalive 2; }
    llm_adapter_provider named {
        endpoint http://named.test/v1; dialect openai; key none;
    }
    llm_adapter_provider literal {
        endpoint http://127.0.0.1:$port/v1; dialect openai; key none;
    }
    llm_adapter_provider six {
        endpoint http://-six.test:$port/v1; dialect openai; key none;
        keepalive 0;
    }
EOT

    is(comes_to($t, '127.0.0.2'), '127.0.0.2', 'an alias, upper case');
    like(comes_to($t, '127.0.0.1', 5, prefix => '/six'),
         qr/^127\.0\.0\.1$/, 'a name with IPv4 and IPv6');
    my @at = map { where($t, prefix => '/six') } 1 .. 6;
    is(scalar(grep { /^(?:\[::1\], )?127\.0\.0\.1$/ } @at), 6,
       'both are tried') or diag(explain(\@at));
    ok(scalar(grep { /::1/ } @at), 'IPv6 too');
    like($t->error_log,
         logged('-six.test', "is now at 127.0.0.1:$port, \\[::1\\]:$port",
                'six'),
         'both are logged');

    is(where($t, prefix => '/named'), '127.0.0.1', 'a named upstream');
    is(where($t, prefix => '/literal'), '127.0.0.1', 'an IP address');
    is($dns->queries('named.test'), 0, 'is not asked for');

    # by the answer's own validity
    $dns->set('-real.test', '127.0.0.1');
    is(comes_to($t, '127.0.0.1'), '127.0.0.1', 'TTL 1: it moves');
    no_alerts($t, name => 'names: no alerts');
}


# --- no resolver, or one that is not http's: as at start ---

for my $where ('none', 'server') {
    my $t = start('-c.test', resolver => '',
                  server => $where eq 'server'
                            ? 'resolver 127.0.0.1:%%DNS%% valid=1s;' : '');
    $dns->set('-c.test', '127.0.0.1');
    like($t->error_log . $t->stderr, qr/will fail until a reload finds it/,
         "resolver: $where");
    nap(1.2);
    like(where($t), qr/^502/, "resolver: $where, no address");
    is($dns->queries('-c.test'), 0, "resolver: $where, nobody asks");
    no_alerts($t, name => "resolver: $where, no alerts");
}


# --- known at start by the system, elsewhere later ---

SKIP: {
    skip 'no localhost here', 3 if !gethostbyname 'localhost';

    $dns->set('localhost', '127.0.0.2');
    my $t = start('localhost');
    unlike($t->error_log . $t->stderr, qr/not found/, 'no warning');
    is(where($t) =~ /^502/ ? 1 : 0, 0, 'it works at once');
    is(comes_to($t, '127.0.0.2'), '127.0.0.2', 'then the resolver counts');
    no_alerts($t, name => 'localhost: no alerts');
}


# --- a worker that ends is not held by a query ---

for my $signal (qw(QUIT TERM)) {
    $dns->set('-d.test', 'SILENT');
    my $asked = $dns->queries('-d.test');
    my $t = start('-d.test', resolver => 'resolver 127.0.0.1:%%DNS%%;'
                                        . ' resolver_timeout 30s;#');
    ok(wait_for(sub { $dns->queries('-d.test') > $asked }, 5 * $slow),
       "$signal: a query without an answer");
    my $since = now();
    ok($t->stop(signal => $signal), "$signal: it ends");
    cmp_ok(now() - $since, '<', 1.5 * $slow, "$signal: at once");
    no_alerts($t, name => "$signal: no alerts");
}

{
    # with answers, idle connections and timers

    $dns->set('-d.test', '127.0.0.1');
    my $t = start('-d.test');
    comes_to($t, '127.0.0.1');
    my $since = now();
    ok($t->stop, 'idle: it ends');
    cmp_ok(now() - $since, '<', 1.5 * $slow, 'idle: at once');
    no_alerts($t, name => 'idle: no alerts');
}


# --- reload ---

SKIP: {
    skip 'one process', 10 if $ENV{LLM_VALGRIND};

    $dns->set('-e.test', '127.0.0.1');
    my $t = start('-e.test', workers => 2);
    is(comes_to($t, '127.0.0.1'), '127.0.0.1', 'before a reload');

    my ($c, $r) = stream_to($t, 'reloaded', gap => '100ms');
    my @old = $t->workers;
    $dns->set('-e.test', '127.0.0.2');
    ok($t->reload, 'reload');
    is(comes_to($t, '127.0.0.2'), '127.0.0.2', 'a new worker asks');
    ok(scalar(grep { alive($_) } @old), 'the old one serves its stream');
    $c->read_body($r);
    $c->close;
    is_whole($r, 'chat', 'to its end');
    ok(wait_for(sub { !grep { alive($_) } @old }, 3), 'and ends then');

    # idle connections and a query under way

    $dns->set('-e.test', 'SILENT');
    $t->wait_log(qr/could not be resolved/, 10);
    @old = $t->workers;
    ok($t->reload(old_gone => 1, timeout => 5), 'a query holds nobody');
    like(where($t), qr/^502/, 'a new worker knows no address');
    $dns->set('-e.test', '127.0.0.1');
    is(comes_to($t, '127.0.0.1', 10), '127.0.0.1', 'until there is an answer');
    no_alerts($t, name => 'reload: no alerts');
}


# --- the name server comes and goes ---

{
    my $own = LLM::DNS->start;
    $own->set('-f.test', '127.0.0.1');
    my $t = start('-f.test', vars => { DNS => $own->port });
    is(comes_to($t, '127.0.0.1'), '127.0.0.1', 'a name server');
    $own->stop;
    my @wrong = grep { $_ ne '127.0.0.1' } map { nap(0.3); where($t) } 1 .. 10;
    is_deeply(\@wrong, [], 'it is gone: nobody notices');

    my $again = LLM::DNS->start(port => $own->port);
    $again->set('-f.test', '127.0.0.2');
    is(comes_to($t, '127.0.0.2', 15), '127.0.0.2', 'it is back');
    no_alerts($t, name => 'name server: no alerts');
}


# --- one process ---

{
    $dns->set('-g.test', '127.0.0.1');
    my $t = start('-g.test', master => 0);
    is(comes_to($t, '127.0.0.1'), '127.0.0.1', 'one process');
    $dns->set('-g.test', '127.0.0.2');
    is(comes_to($t, '127.0.0.2'), '127.0.0.2', 'one process: it moves');
    no_alerts($t, name => 'one process: no alerts');
}


# --- thousands of changes: memory ---

{
    my $names = 300;
    my $text = join '', map { <<"EOT" } 1 .. $names;
    llm_adapter_provider p$_ {
        endpoint http://-p$_.test:$port/v1; dialect openai; key none;
    }
EOT
    $dns->set('*', 'TURN', '127.0.0.1', '127.0.0.2', '127.0.0.3');
    $dns->set('-h.test', '127.0.0.1');
    $dns->ttl(0);

    my $t = start('-h.test', resolver => 'resolver 127.0.0.1:%%DNS%% ipv6=off;',
                  http => $text, connections => 4096);
    my ($worker) = $t->workers;

    nap(3);
    my $before = rss_kb($worker, 'anon');
    my $changes = count($t->error_log, qr/is now at/);
    nap(6);
    my $growth = rss_kb($worker, 'anon') - $before;
    $changes = count($t->error_log, qr/is now at/) - $changes;

    cmp_ok($changes, '>', 500, "$changes changes of addresses");

    SKIP: {
        skip 'freed memory is kept for a while', 1
            if $ENV{LLM_VALGRIND} || $ENV{LLM_NGINX_PRELOAD};
        cmp_ok($growth, '<', 200, "they took $growth KB");
    }

    no_alerts($t, name => 'many: no alerts');
}

done_testing();
