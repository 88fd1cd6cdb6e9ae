#!/usr/bin/perl

# The cache's directory and what happens to it: nginx -t, reload, restart,
# killed workers, another size; files that are taken away or spoilt.  It never
# fails a request.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use File::Path qw(remove_tree);
use File::Temp ();
use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();
skip_under_valgrind('masters and workers, many of them');

my $mock = start_mock();
my $root = File::Temp->newdir('llm-cache-XXXXXXXX', TMPDIR => 1);
chmod 0755, "$root";

sub cache_with {
    my ($dir, %o) = @_;
    my $size = delete $o{size} // '16m';
    return Caching->new(mock => $mock, path => "$root/$dir size=$size", %o);
}


# A worker that has just begun opens the file in a moment.

sub opened {
    my ($c) = @_;
    my %left = map { $_ => 1 } $c->{t}->workers;

    return !!wait_for {
        my $json = http_get($c->port, '/llm')->json;
        delete $left{ $json->{pid} } if $json->{cache}{open};
        !%left;
    } 10;
}


# What is in the directory: name, size, time of change.

sub listing {
    my ($dir) = @_;
    return join "\n", map { join ' ', $_, (stat $_)[7, 9] }
                      sort glob "$dir/* $dir/.[a-z]*";
}


sub mode_of { return sprintf '%04o', (stat $_[0])[2] & 07777 }


# --- the directory; nginx -t; reload, refused reload; killed workers; restart

{
    my $dir = "$root/one";
    my %options = (workers => 2, provider => 'key sk-of-ours;');

    my ($ok, $said) = check_conf(
        gateway_conf(Caching->conf_options(path => "$dir size=16m")),
        vars => { MOCK => $mock->port });
    ok($ok, 'nginx -t') or diag($said);
    is(join(' ', glob "$dir/*"), '', 'nginx -t leaves no files');

    my $c = cache_with('one', %options);
    my $t = $c->{t};
    my @asks = map { { say => $_ } } questions(4);

    is_cache($c->try('chat', %$_), 'MISS', 'an entry') for @asks;
    is_cache($c->try('chat', %$_), 'HIT', 'an entry') for @asks;
    is(mode_of($dir), '0700', 'the directory is closed to others');

    for my $file (glob "$dir/*") {
        is((stat $file)[2] & 0077, 0, "$file, too");
    }

    # nginx -t beside it touches nothing

    my $before = listing($dir);
    isnt($before, '', 'there are files');
    ($ok) = check_conf(
        gateway_conf(Caching->conf_options(path => "$dir size=64m")),
        vars => { MOCK => $mock->port });
    ok($ok, 'nginx -t beside it');
    is(listing($dir), $before, 'nginx -t touches nothing');
    is_cache($c->try('chat', %{ $asks[0] }), 'HIT', 'all as it was');

    # reload

    ok($t->reload(old_gone => 1), 'reload');
    ok(opened($c), 'reload: opened');
    is_cache($c->try('chat', %$_), 'HIT', 'after a reload') for @asks;

    # a refused one

    my $good = gateway_conf($c->conf_options(path => "$dir size=16m"));
    my $mark = $t->log_mark;
    ok(!$t->reload(conf => "$good llm_adapter_nonsense;"),
       'a reload that is refused');
    is_cache($c->try('chat', %$_), 'HIT', 'after it') for @asks;
    $t->write_conf($good);

    # kill -9

    for my $n (1 .. 6) {
        my @started;

        # requests that store while it dies
        for (1 .. 6) {
            my $client = h1($t->port);
            start_ask($client, 'chat', $c->options('chat',
                      say => Caching::question()), mock => { total => 9000 });
            push @started, $client;
        }

        nap(0.002 * $n);
        ok($t->kill_worker(pid => ($t->workers)[$n % 2]),
           "worker killed, $n");
        $_->close for @started;
        ok(opened($c), "after kill $n: opened");
        is_cache($c->try('chat', %$_), 'HIT', "after kill $n") for @asks;
    }

    $c->pair('chat', { say => $_ }, { say => $_ }, 'HIT',
             'after the kills: new ones') for questions(2);

    no_alerts($t, name => 'one: no alerts',
              allow => [qr/exited on signal 9/, qr/unknown directive/]);

    # what is in it: the questions, not who asked, nor with which key

    my $file = join '', map { slurp($_) } glob "$dir/*";
    like($file, qr/question $$ /, 'what was asked is in it');
    my ($key) = $file =~ /(.{0,40}(?:sk-tenant|sk-of-ours).{0,40})/s;
    is($key, undef, 'no key is in it');

    # stop, start

    $c = cache_with('one', %options);
    ok(opened($c), 'after a restart: opened');
    is_cache($c->try('chat', %$_), 'HIT', 'after a restart') for @asks;
    no_alerts($c->{t}, name => 'a restart: no alerts');

    # what was answered last is there, too

    {
        my $d = cache_with('one', %options);
        my @last = map { { say => $_ } } questions(30);
        my @ask = map { [request_of('chat', $d->options('chat', %$_))] }
                  @last;
        h1($d->{t}->port)->request(@$_) for @ask;
        no_alerts($d->{t}, name => 'stopped at once: no alerts');

        $d = cache_with('one', %options);
        opened($d);
        my $lost = grep { $d->try('chat', %$_)->{calls} } @last;
        is($lost, 0, 'stopped at once: nothing is lost');

        # how it is called makes a difference, with which key does not

        my @new = map { gateway_conf($d->conf_options(%options,
                      path => "$dir size=16m", provider => $_)) }
                  'key sk-of-others;', 'key none; header X-Other 1;';
        ok($d->{t}->reload(conf => $new[0], old_gone => 1),
           'reload with another key');
        opened($d);
        is_cache($d->try('chat', %{ $last[0] }), 'HIT', 'another key');
        ok($d->{t}->reload(conf => $new[1], old_gone => 1),
           'reload with another header');
        opened($d);
        is_cache($d->try('chat', %{ $last[0] }), 'MISS', 'another header');
        no_alerts($d->{t}, name => 'called otherwise: no alerts');
    }

    # with another size, larger and smaller, by restart and by reload

    for my $size ('64m', '8m') {
        $c = cache_with('one', %options, size => $size);
        opened($c);
        is_cache($c->try('chat', %$_), 'HIT', "size=$size") for @asks;
        $c->pair('chat', { say => $_ }, { say => $_ }, 'HIT',
                 "size=$size: a new one") for questions(1);
        no_alerts($c->{t}, name => "size=$size: no alerts");
    }

    $c = cache_with('one', %options);
    opened($c);

    for my $size ('48m', '8m') {
        ok($c->{t}->reload(conf => gateway_conf(
               $c->conf_options(path => "$dir size=$size")), old_gone => 1),
           "reload with size=$size");
        opened($c);
        is_cache($c->try('chat', %$_), 'HIT', "reload with size=$size")
            for @asks;
    }

    ok($c->{t}->reload(conf => gateway_conf($c->conf_options(
           path => '', cache => '', status => '', fields => [])),
           old_gone => 1), 'reload without a cache');
    is($c->try('chat', %{ $asks[0] })->{calls}, 1, 'no cache: asked');
    ok($c->{t}->reload(conf => gateway_conf($c->conf_options(
           path => "$dir size=16m"))), 'reload with a cache');
    opened($c);
    is_cache($c->try('chat', %$_), 'HIT', 'a cache again') for @asks;

    no_alerts($c->{t}, name => 'sizes by reload: no alerts');
}


# --- spoilt while it was stopped

my %SPOILT = (
    'bytes in the middle' => sub {
        my ($file) = @_;
        my $size = -s $file;
        open my $out, '+<:raw', $file or die "$file: $!";
        for (my $at = 8192; $at + 600 < $size; $at += 1500) {
            seek $out, $at, 0;
            print {$out} chr(0xa5 ^ ($at & 0xff)) x 600;
        }
        close $out;
    },
    'its head' => sub {
        my ($file) = @_;
        open my $out, '+<:raw', $file or die "$file: $!";
        print {$out} "\xff" x 8192;
        close $out;
    },
    'cut to half' => sub { truncate $_[0], (-s $_[0]) / 2 },
    'empty' => sub { truncate $_[0], 0 },
    'other text' => sub { spew($_[0], "not a cache at all\n" x 1000) },
);

for my $what (sort keys %SPOILT) {
    (my $dir = "spoilt $what") =~ tr/ /_/;
    my $c = cache_with($dir, workers => 2);
    my @asks = map { { say => $_ } } questions(12);
    is_cache($c->try('chat', %$_, mock => { total => 3000 }), 'MISS',
             "$what: stored") for @asks;
    no_alerts($c->{t}, name => "$what: before");

    my ($file) = glob "$root/$dir/data.mdb";
    ok($file && -s $file, "$what: there is a file") or next;
    $SPOILT{$what}->($file);

    $c = cache_with($dir, workers => 2);
    my @x = map { $c->try('chat', %$_, mock => { total => 3000 }) } @asks;
    is(join(' ', grep { $_ != 200 } map { $_->{r}->status } @x), '',
       "$what: all are answered");
    is(join(' ', grep { !/^(?:MISS|HIT|BYPASS)$/ }
            map { $_->{r}->header('x-llm-cache') // 'none' } @x), '',
       "$what: as MISS, or HIT if that was whole");
    is(join(' ', grep { $_->{r}->json->{choices}[0]{message}{content}
                        !~ /^w00001 w00002/ } @x), '',
       "$what: no answer is spoilt");
    cmp_ok(scalar(grep { $_->{calls} } @x), '>=', 1, "$what: some is lost")
        if $what ne 'bytes in the middle';

    my $say = Caching::question();
    my $works = wait_for {
        $c->try('chat', say => $say)->{calls} == 0;
    } 5, 0.1;
    ok($works, "$what: it works again");

    my @lines = $c->{t}->error_log =~ /^.*\[error\].*$/mg;
    cmp_ok(scalar @lines, '<=', 2, "$what: a line or two in the log")
        or diag(join "\n", @lines);
    cmp_ok(scalar @lines, '>=', 1, "$what: it is told")
        if $what ne 'bytes in the middle' && $what ne 'empty';

    no_alerts($c->{t}, name => "$what: no alerts");
}


# --- there is no place for it

spew("$root/a file", 'text');

for my $where ('no/such/place', 'a file', 'a file/below') {
    my $c = Caching->new(mock => $mock, workers => 2,
                         path => "'$root/$where' size=8m");

    for my $say (questions(5)) {
        for (1, 2) {
            my $x = $c->try('chat', say => $say);
            is_cache($x, 'MISS', "at '$where'");
        }
    }

    my @lines = $c->{t}->error_log =~ /^.*\[error\].*$/mg;
    cmp_ok(scalar @lines, '>=', 1, "at '$where': it is told");
    cmp_ok(scalar @lines, '<=', 3, "at '$where': not for each request")
        or diag(join "\n", @lines);
    is(http_get($c->{t}->port, '/llm')->status, 200, "at '$where': status");
    unlike(http_post($c->{t}->port, '/llm', { purge => 'all' })->status,
           qr/^(?:0|500)$/, "at '$where': purging");
    no_alerts($c->{t}, name => "at '$where': no alerts");
}

is(slurp("$root/a file"), 'text', 'what is no directory is left alone');


# --- taken away, and closed, while it runs

SKIP: {
    skip('needs root', 1) if $> != 0;

    my @nobody = getpwnam 'nobody';
    my $parent = "$root/theirs";
    mkdir $parent, 0755;

    my $dir = "$parent/cache";
    my $c = Caching->new(mock => $mock, workers => 2, user => 'nobody ' . getgrgid $nobody[3],
                         path => "$dir size=16m");
    my $t = $c->{t};

    is((stat $dir)[4], $nobody[2], 'it belongs to the workers');
    is(mode_of($dir), '0700', 'and is closed to others');
    $c->pair('chat', { say => $_ }, { say => $_ }, 'HIT', 'workers of nobody')
        for questions(1);

    # they may not open it any more: a new worker has none

    chmod 0000, $_ for glob "$dir/*";
    chmod 0000, $dir;
    my $mark = $t->log_mark;
    $t->kill_worker for 1 .. 2;

    my @say = questions(5);

    for my $say (@say, @say) {
        my $x = $c->try('chat', say => $say);
        is($x->{r}->status, 200, 'closed: answered');
        is($x->{calls}, 1, 'closed: asked');
    }

    my @lines = $t->log_since($mark) =~ /^.*\[(?:error|crit|warn)\].*$/mg;
    cmp_ok(scalar @lines, '>=', 1, 'closed: it is told');
    cmp_ok(scalar @lines, '<=', 4, 'closed: not for each request')
        or diag(join "\n", @lines);

    chmod 0700, $dir;
    chmod 0600, $_ for glob "$dir/*";
    ok(wait_for(sub { !grep { $c->try('chat', say => $say[0])->{calls} }
                      1 .. 6 } => 15, 0.2), 'opened: it works again');

    # it is removed

    $mark = $t->log_mark;
    remove_tree($dir);
    @say = questions(5);

    for my $say (@say, @say) {
        my $x = $c->try('chat', say => $say);
        is($x->{r}->status, 200, 'removed: answered');
    }

    mkdir $dir, 0700;
    chown $nobody[2], $nobody[3], $dir;
    ok(wait_for(sub { !grep { $c->try('chat', say => $say[0])->{calls} }
                      1 .. 6 } => 15, 0.2), 'put back: it works again');

    @lines = $t->log_since($mark) =~ /^.*\[(?:error|crit|warn)\].*$/mg;
    cmp_ok(scalar @lines, '<=', 6, 'removed: not a line for each request')
        or diag(join "\n", @lines);

    # the file alone

    unlink glob "$dir/*";
    my @x = map { $c->try('chat', say => $_) } @say;
    is(join(' ', grep { $_->{r}->status != 200 } @x), '',
       'files removed: answered');
    ok(wait_for(sub { !grep { $c->try('chat', say => $say[1])->{calls} }
                      1 .. 6 } => 15, 0.2), 'files removed: it works again');
    ok(-s "$dir/data.mdb", 'files removed: there is one again');

    no_alerts($t, name => 'taken away: no alerts',
              allow => [qr/exited on signal 9/, qr/\[crit\].*cache/]);
}

done_testing();
