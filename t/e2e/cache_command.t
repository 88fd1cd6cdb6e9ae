#!/usr/bin/perl

# The command llm-cache beside running workers: what it tells of a cache, what
# it purges, and that an answer which it takes from one directory to another,
# or which was written by hand, is a hit there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Digest::SHA qw(sha256_hex);
use File::Temp ();
use JSON::PP ();
use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();
skip_under_valgrind('needs a master process');

my $tool = $ENV{LLM_CACHE_TOOL} // repo_root() . '/build/llm-cache';

plan(skip_all => "$tool is not there: run make") if !-x $tool;

delete $ENV{LLM_CACHE};

my $questions = 0;
my $tmp = File::Temp->newdir('llm-cache-XXXXXXXX', TMPDIR => 1);

chmod 0755, "$tmp";


# --- the command

# in: text on stdin; signal => [NAME, seconds].  { code, out, err }

sub run {
    my ($args, %o) = @_;

    my ($in, $out, $err) = map { "$tmp/$_" } qw(in out err);
    my $start = now();

    spew($in, $o{in} // '');
    unlink $out, $err;

    my $pid = spawn([$tool, @$args], stdin => $in, stdout => $out,
                    stderr => $err, env => $o{env} // {});

    if ($o{signal}) {
        nap $o{signal}[1];
        kill $o{signal}[0], $pid;
    }

    my $status = reap($pid, 60);

    if (!defined $status) {
        kill 'KILL', $pid;
        reap($pid, 10);
        $status = 9;
    }

    return { code => $status & 127 ? -($status & 127) : $status >> 8,
             out => slurp($out), err => slurp($err),
             time => now() - $start };
}


sub is_run {
    my ($r, $code, $err, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is($r->{code}, $code, "$name: exit code $code") or diag($r->{err});
    like($r->{err}, $err, "$name: stderr");

    my @wrong = grep { !/^llm-cache: / } split /\n/, $r->{err};
    is("@wrong", '', "$name: all of it in lines of its own");
}


my $QUIET = qr/^\z/;

sub lines_of { return map { json_decode($_) } split /\n/, $_[0]{out} }


# --- the gateway

sub start {
    my ($mock, %o) = @_;

    my ($t) = gateway(
        mock => $mock, workers => 2, %o,
        http => 'llm_adapter_cache_path '
                . ($o{path} // '%%DIR%%/cache') . ' size=64m;',
        locations => {
            '/v1/' => 'llm_adapter_cache on scope=global reveal=on ttl=2h;',
            '/key/v1/' => 'llm_adapter_cache on ttl=2h stale=1h;',
            '/team/v1/' => 'llm_adapter_cache on scope=$http_x_team;',
        });

    my $dir = $o{path} // $t->path('cache');

    wait_for { -s "$dir/data.mdb" } 10;

    return ($t, $dir);
}


my $mock = start_mock();
my ($t, $dir) = start($mock);

my %BODY = (
    responses => '"store":false,"input":"%s"',
    completions => '"prompt":"%s"',
    embeddings => '"input":"%s"',
    messages => '"max_tokens":99,"messages":[{"role":"user","content":"%s"}]',
    chat => '"messages":[{"role":"user","content":"%s"}]',
);


# One question; the same again with its say.  team, key: whose.

sub ask_for {
    my ($t, $kind, %o) = @_;

    my $model = $o{model} // ($kind eq 'messages' ? 'claude-x' : 'gpt-4o');
    my $say = $o{say};
    my @headers;

    push @headers, 'x-team' => $o{team} if defined $o{team};
    push @headers, 'authorization' => "Bearer $o{key}" if defined $o{key};

    return ask(h1($t->port), $kind, close => 1,
               prefix => defined $o{team} ? '/team' : defined $o{key} ? '/key'
                         : '',
               headers => \@headers, mock => $o{mock} // {},
               body => sprintf('{"model":"%s",%s%s}', $model,
                               $o{stream} ? '"stream":true,' : '',
                               sprintf $BODY{$kind}, $say));
}

sub question { return 'Question ' . ++$questions . " \x{c3}\x{a9} \\n 1.50" }

sub status_of { return $_[0]->header('x-llm-cache') // 'none' }


# Asks until it is no miss, and is a hit then.

sub is_kept {
    my ($t, $kind, $name, %o) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $r;
    wait_for { $r = ask_for($t, $kind, %o); status_of($r) eq 'HIT' } 5;
    is(status_of($r), 'HIT', $name);

    return $r;
}


# --- before there is anything

{
    my $r = run(['--version']);
    is_run($r, 0, $QUIET, '--version');
    like($r->{out}, qr/^llm-cache \d+\.\d+\.\d+\n\z/, '--version: it');

    $r = run(['--help']);
    is_run($r, 0, $QUIET, '--help');
    like($r->{out}, qr/^usage: llm-cache/, '--help: it');

    $r = run([]);
    is($r->{code}, 2, 'no command: exit code 2');
    like($r->{err}, qr/^usage: /, 'no command: usage');

    is_run(run(['stat']), 2, qr/^llm-cache: .*-d.*LLM_CACHE/,
           'no directory');
    is_run(run(['-d', $dir, 'fly']), 2, qr/unknown command "fly"/,
           'unknown command');
    is_run(run(['-d', $dir, '--fly', 'stat']), 2, qr/unknown option "--fly"/,
           'unknown option');
    is_run(run(['-d', $dir, 'export', '--json']), 2, qr/no such option/,
           "another command's option");
    is_run(run(['-d', $dir, 'stat', 'x']), 2, qr/too many/, 'too many');
    is_run(run(['-d', $dir, 'get']), 2, qr/too few/, 'too few');
    is_run(run(['-d', $dir, 'get', 'xyz']), 2, qr/no id/, 'no id');
    is_run(run(['-d', $dir, 'get', '0' x 32]), 1, qr/there is no entry/,
           'unknown id');
    is_run(run(['-d', $dir, 'purge', 'some']), 2, qr/purge what/,
           'purge some');
    is_run(run(['-d', $dir, 'purge', 'scope']), 2, qr/which/,
           'purge of no scope');
    is_run(run(['-d', $dir, 'purge', 'id', 'xyz']), 2, qr/no id/,
           'purge of no id');
    is_run(run(['-d', $dir, 'import', '--ttl', '1y']), 2, qr/invalid time/,
           'no time');
    is_run(run(['-d', $dir, 'import', '--size', '1m']), 2, qr/invalid size/,
           'no size');
    is_run(run(['-d', $dir, 'import', "$tmp/absent"]), 1,
           qr/absent": No such file/, 'no file to import');
    is_run(run(['-d', "$tmp/absent", 'stat']), 1, qr/No such file/,
           'no directory there');
    is_run(run(['-d', "$tmp/in", 'list']), 1, qr/is no directory/,
           'a file as directory');

    mkdir "$tmp/empty";
    is_run(run(['-d', "$tmp/empty", $_]), 1, qr/there is no cache/,
           "$_ of an empty directory") for qw(stat list export);
    is_run(run(['-d', "$tmp/empty", 'purge', 'all']), 1,
           qr/there is no cache/, 'purge of an empty directory');
    is(join(' ', glob "$tmp/empty/*"), '', 'nothing was made in it');

    $r = run(['-d', $dir, 'export', "$tmp/none.jsonl"]);
    is_run($r, 0, $QUIET, 'export of an empty cache');
    ok(-f "$tmp/none.jsonl" && -z _, 'export of an empty cache: is empty');
    is_run(run(['-d', $dir, 'list'], env => { LLM_CACHE => "$tmp/empty" }),
           0, $QUIET, '-d is stronger than $LLM_CACHE');

    $r = run(['import'], env => { LLM_CACHE => $dir }, in => "\n \n");
    is_run($r, 0, $QUIET, 'import of nothing');
    is($r->{out}, "imported 0, skipped 0, bad 0\n",
       'import of nothing: summary');
}


# --- entries of all kinds, both forms

my (@asked, %body_of);

for my $kind (sort keys %BODY) {
    for my $stream ($kind eq 'embeddings' ? 0 : (0, 1)) {
        my $name = "$kind, " . ($stream ? 'stream' : 'plain');
        my %q = (say => question(), stream => $stream,
                 mock => { text => "it is $name" });

        is(status_of(ask_for($t, $kind, %q)), 'MISS', "$name: asked");
        my $r = is_kept($t, $kind, "$name: kept", %q);

        push @asked, [$kind, $name, \%q, $r];
        $body_of{ $r->header('x-llm-cache-key') } = $r->body;
    }
}

my $n = @asked;

# mocks differ from request to request in what they are asked for

{
    my $say = question();
    my %by = (team => 'red', key => 'sk-secret-1');

    for my $who (sort keys %by) {
        my %q = (say => $say, $who => $by{$who});
        ask_for($t, 'chat', %q);
        is_kept($t, 'chat', "of a $who: kept", %q);
        push @asked, ['chat', "of a $who", \%q,
                      ask_for($t, 'chat', %q)];
        $n++;
    }

    # its body is too long to be kept as a request

    my %q = (say => 'long ' . 'x' x 30_000);
    ask_for($t, 'chat', %q);
    push @asked, ['chat', 'a long request', \%q,
                  is_kept($t, 'chat', 'a long request: kept', %q)];
    $n++;

    # JSON on several lines, and in other ways than ours

    my $text = qq({\n "id": "x", "object":"chat.completion",\r\n\t"model":"m",)
        . qq("big": 123456789012345678901234567890.10e+5, "choices": [ {)
        . qq("index":0,"finish_reason" :"stop","message":{"role":"assistant",)
        . qq("content":"\\u00e9 \\ud83c\\udf0d"}} ] }\n);
    my $line = json_encode({
        endpoint => 'chat/completions', scope => 'global', form => 'plain',
        route => 'openai', answer_text => $text,
        request => { model => 'gpt-4o', messages => [
            { role => 'user', content => 'spread' } ] } });

    is_run(run(['-d', $dir, 'import'], in => $line), 0, $QUIET, 'spread');
    my $r = ask_for($t, 'chat', say => 'spread');
    is(status_of($r), 'HIT', 'an answer of several lines');
    is($r->body, $text, 'an answer of several lines: the same bytes');
    push @asked, ['chat', 'several lines', { say => 'spread' }, $r];
    $n++;
}


# --- stat, list, get

{
    my $r = run(['-d', $dir, 'stat']);
    is_run($r, 0, $QUIET, 'stat');
    like($r->{out}, qr/^entries +$n$/m, 'stat: entries');
    like($r->{out}, qr/^size +67108864 \(64\.0 MB\)$/m, 'stat: size');
    like($r->{out}, qr/^$_ +\d/m, "stat: $_") for qw(used file readers);
    like($r->{out}, qr/^pending purges +0$/m, 'stat: purges');

    my ($json) = lines_of(run(['-d', $dir, 'stat', '--json']));
    is($json->{entries}, $n, 'stat --json: entries');
    is($json->{size}, 64 << 20, 'stat --json: size');
    is($json->{pending}, 0, 'stat --json: pending');
    cmp_ok($json->{used}, '>', 4096, 'stat --json: used');
    cmp_ok($json->{file}, '>=', $json->{used}, 'stat --json: file');
    cmp_ok($json->{readers}, '>=', 2, 'stat --json: readers');
    cmp_ok($json->{max_readers}, '>', 100, 'stat --json: max_readers');

    $r = run(['-d', $dir, 'list']);
    is_run($r, 0, $QUIET, 'list');

    my @lines = split /\n/, $r->{out};
    is(scalar @lines, $n, 'list: a line each');

    my $columns = join ' +', '[0-9a-f]{32}', '\d+[smhd]', '\d+[smhd]',
                  '(?:stream|plain)', '\d+', '(?:openai|anthropic)/[a-z/]+',
                  '(?:gpt-4o|claude-x)', '(?:openai|anthropic)',
                  '(?:global|(?:value|key) sha256:[0-9a-f]{64})';
    my @odd = grep { !/^$columns$/ } @lines;
    is("@odd", '', 'list: in columns');
    unlike($r->{out}, qr/Question|it is|sk-secret/, 'list: no prompts');

    my @json = lines_of(run(['-d', $dir, 'list', '--json']));
    is(scalar @json, $n, 'list --json: a line each');
    is(scalar(grep { $_->{form} eq 'stream' } @json), 4,
       'list --json: forms');
    is(scalar(grep { $_->{left} > 3500 && !$_->{expired} && $_->{age} < 100 }
              @json), $n, 'list --json: times');

    @json = lines_of(run([qw(list --json --model claude-x -d), $dir]));
    is(scalar @json, 2, 'list --model');
    is($json[0]{provider}, 'anthropic', 'list --model: provider');
    is($json[0]{endpoint}, 'messages', 'list --model: endpoint');

    for my $scope ('value red', 'red') {
        @json = lines_of(run(['-d', $dir, 'list', '--json', '--scope',
                              $scope]));
        is(join(' ', map { $_->{scope} } @json),
           'value sha256:' . sha256_hex('red'), "list --scope '$scope'");
    }

    for my $id (sort keys %body_of) {
        my $name = "get of " . substr $id, 0, 6;
        $r = run(['-d', $dir, 'get', $id]);
        is_run($r, 0, $QUIET, $name);

        my ($e) = lines_of($r);
        like($e->{request}{model}, qr/^(?:gpt-4o|claude-x)$/,
             "$name: its request");
        is($e->{key} =~ /^[0-9a-f]{64}$/ ? 1 : 0, 1, "$name: key");

        my $text = run(['-d', $dir, 'get', '--text', $id])->{out};

        if ($e->{form} eq 'stream') {
            is($text, $e->{answer_text}, "$name: its events");
            is(join("\n", grep { !usage_only($_) } events_of($text)),
               join("\n", grep { !usage_only($_) }
                          events_of($body_of{$id})),
               "$name: --text, what clients get");

        } else {
            is($text, $body_of{$id}, "$name: --text");
        }
    }
}


# --- export, and import elsewhere

my $file = "$tmp/all.jsonl";

{
    my $r = run(['-d', $dir, 'export', $file]);
    is_run($r, 0, $QUIET, 'export');
    is($r->{out}, '', 'export: nothing on stdout');
    ok(!-e "$file.tmp", 'export: no file is left');
    is((stat $file)[2] & 0777, 0600, 'export: for nobody else');

    my $text = slurp($file);
    is(run(['-d', $dir, 'export'])->{out}, $text, 'export to stdout: same');
    is(run(['-d', $dir, 'export', '-'])->{out}, $text, 'export to -: same');

    my @all = map { json_decode($_) } split /\n/, $text;
    is(scalar @all, $n, 'export: all of them');
    is(scalar(grep { $_->{v} == 1 } @all), $n, 'export: version');
    is(scalar(grep { defined $_->{request} } @all), $n - 1,
       'export: requests, but for the long one');
    is(scalar(grep { $_->{provider_digest} } @all), $n,
       'export: digests of providers');
    is(scalar(grep { $_->{usage}{prompt} } @all), $n - 1, 'export: usage');
    unlike($text, qr/"id":"$_"/, 'export: no ids of the directory')
        for sort keys %body_of;

    is_run(run(['-d', $dir, 'export', "$tmp/absent/x"]), 1,
           qr/absent\/x\.tmp": No such/, 'export to nowhere');
}

{
    my ($u, $new) = start($mock);

    is(status_of(ask_for($u, 'chat', say => 'other')), 'MISS',
       'another directory: asked');
    is_kept($u, 'chat', 'another directory: kept', say => 'other');

    $mock->reset;

    my $r = run(['-d', $new, 'import', $file]);
    is_run($r, 0, $QUIET, 'import');
    is($r->{out}, "imported $n, skipped 0, bad 0\n", 'import: summary');

    for (@asked) {
        my ($kind, $name, $q, $was) = @$_;

        my $r = ask_for($u, $kind, %$q, mock => {});
        is($r->status, 200, "$name: answered");
        is($r->body, $was->body, "$name: the same answer");
        is(status_of($r), status_of($was), "$name: " . status_of($was));
        is($r->header($_), $was->header($_), "$name: $_")
            for qw(content-type x-llm-provider x-llm-model);
    }

    is($mock->stats->{requests}, 0, 'no provider was asked');

    # once more, and back: nothing changes

    $r = run(['-d', $new, 'import'], in => slurp($file));
    is($r->{out}, "imported $n, skipped 0, bad 0\n", 'import twice');

    my $strip = sub {
        my ($text) = @_;
        return join "\n", sort map { s/"begun":\d+/"begun":0/r }
                               grep { !/"other"/ } split /\n/, $text;
    };

    ok($strip->(run(['-d', $new, 'export'])->{out}) eq $strip->(slurp($file)),
       'export of the import: the same');

    is(run(['-d', $new, 'purge', 'all'])->{code}, 0, 'purged');
    is(status_of(ask_for($u, $asked[0][0], %{ $asked[0][2] })), 'MISS',
       'purged: a miss');
    is(run(['-d', $new, 'import', $file])->{code}, 0, 'imported again');
    is_kept($u, $asked[1][0], 'imported after a purge: a hit',
            %{ $asked[1][2] });

    # an answer of later is not written over

    my ($later) = map { json_decode($_) } split /\n/, slurp($file);
    $later->{made} -= 60_000;
    $later->{ttl} = 7000;
    $r = run(['-d', $new, 'import'], in => json_encode($later));
    is($r->{out}, "imported 0, skipped 1, bad 0\n", 'a newer one stays');

    no_alerts($u, name => 'the other nginx: no alerts');
}


# --- lines written by hand

my %line = (
    endpoint => 'chat/completions', scope => 'global', route => 'openai',
    request => { model => 'gpt-4o', messages => [
        { role => 'user', content => 'by hand' } ] },
    answer => { id => 'x', object => 'chat.completion', created => 1,
        model => 'gpt-4o', choices => [ { index => 0,
            finish_reason => 'stop', message => { role => 'assistant',
                content => 'written by hand' } } ],
        usage => { prompt_tokens => 3, completion_tokens => 4,
                   total_tokens => 7 } },
);

sub line_of { return json_encode({ %line, @_ }) }

{
    my $r = run(['-d', $dir, 'import'], in => line_of());
    is_run($r, 0, $QUIET, 'by hand');
    is($r->{out}, "imported 1, skipped 0, bad 0\n", 'by hand: summary');

    $r = ask_for($t, 'chat', say => 'by hand');
    is(status_of($r), 'HIT', 'by hand: a hit');
    is($r->header('x-llm-provider'), 'openai', 'by hand: provider');
    is($r->json->{choices}[0]{message}{content}, 'written by hand',
       'by hand: the answer');

    $r = ask_for($t, 'chat', say => 'by hand', stream => 1);
    is(status_of($r), 'HIT', 'by hand: a hit as a stream, too');
    is_whole($r, 'chat', 'by hand: a whole stream');

    my ($e) = grep { ($_->{answer}{id} // '') eq 'x' }
              lines_of(run(['-d', $dir, 'export']));
    is($e->{usage}{completion}, 4, 'by hand: usage of the answer');
    is($e->{finish_reason}, 'stop', 'by hand: its finish reason');
    is($e->{ttl}, 3600, 'by hand: ttl');
    is($e->{asked}, 'gpt-4o', 'by hand: asked');

    # a stream, with other line ends than ours

    my $chunk = '{"id":"x","object":"chat.completion.chunk","created":1,'
                . '"model":"gpt-4o","choices":[%s]%s}';
    my @parts = (
        sprintf($chunk, '{"index":0,"delta":{"role":"assistant",'
                        . '"content":"str"}}', ''),
        sprintf($chunk, '{"index":0,"delta":{"content":"eam"}}', ''),
        sprintf($chunk, '{"index":0,"delta":{},"finish_reason":"stop"}', ''),
        sprintf($chunk, '', ',"usage":{"prompt_tokens":3,'
                            . '"completion_tokens":4,"total_tokens":7}'),
        '[DONE]');
    my %stream = (%line, request => { model => 'gpt-4o', stream => 'x',
                                      messages => [ { role => 'user',
                                          content => 'hand stream' } ] });
    delete $stream{answer};
    delete $stream{request}{stream};

    $r = run(['-d', $dir, 'import', '--ttl', '30m'],
             in => json_encode({ %stream, answer_text =>
                 join('', map { ":c\r\ndata:$_\r\n\r\n" } @parts) . 'data: x'
             }));
    is_run($r, 0, $QUIET, 'a stream by hand');

    $r = ask_for($t, 'chat', say => 'hand stream', stream => 1);
    is(status_of($r), 'HIT', 'a stream by hand: a hit');
    is($r->body, join('', map { "data: $_\n\n" } @parts[0 .. 2, 4]),
       'a stream by hand: as it ought to be, without usage');

    $r = ask_for($t, 'chat', say => 'hand stream');
    is(status_of($r), 'HIT', 'a stream by hand: a hit as plain, too');
    is($r->json->{choices}[0]{message}{content}, 'stream',
       'a stream by hand: its text');
    is($r->json->{usage}{total_tokens}, 7, 'a stream by hand: usage');

    # both forms of one answer

    $r = run(['-d', $dir, 'import'], in => line_of(
        request => $stream{request}) . "\n");
    is_run($r, 0, $QUIET, 'both forms');

    my @both = map { [ map { $_->{form} } lines_of(
                       run(['-d', $dir, 'get', $_])) ] }
               map { $_->{id} } lines_of(run(['-d', $dir, 'list', '--json']));
    is(scalar(grep { "@$_" eq 'plain stream' } @both), 2,
       'both forms: get has both');
    is(scalar(grep { @$_ > 1 } @both), 2, 'both forms: of no other');

    # numbers as other programs write them

    $r = run(['-d', $dir, 'import'], in => join '', map {
        line_of(request => { %{ $line{request} }, seed => $_->[0] },
                cost => '@') =~ s/"\@"/$_->[1]/r . "\n"
    } [11, '1.23e-05'], [12, '0.000012300001'], [13, '7']);
    is_run($r, 0, $QUIET, 'costs');

    my $costs = run(['-d', $dir, 'export'])->{out};
    is(join(' ', sort $costs =~ /"cost":([^,]+)/g),
       '0.000012300000 0.000012300001 7.000000000000', 'costs: kept');

    # big numbers and the order of members

    my $bytes = '{"z":1.0, "choices":[{"finish_reason":"stop","index":0,'
                . '"message":{"content":"\u00e9\/","role":"assistant"}}],'
                . '"big":12345678901234567890123.10E+400,"z":2}';
    $r = run(['-d', $dir, 'import'],
             in => line_of(request => { %{ $line{request} }, seed => 14 },
                           answer => '@') =~ s/"\@"/$bytes/r);
    is_run($r, 0, $QUIET, 'bytes');
    ok(index(run(['-d', $dir, 'export'])->{out}, "\"answer\":$bytes}") > 0,
       'bytes: as they were');

    # whose it is

    my $scope = 'key sha256:' . sha256_hex('sk-hand');
    is(run(['-d', $dir, 'import'],
           in => line_of(scope => $scope))->{code}, 0, 'for a key');
    is(status_of(ask_for($t, 'chat', say => 'by hand', key => 'sk-hand')),
       'HIT', 'for a key: its hit');
    is(status_of(ask_for($t, 'chat', say => 'by hand', key => 'sk-other')),
       'MISS', "for a key: no other's");

    # its time

    my $hour = 3600_000;
    my $ms = int(now_ms());
    my $text = join "\n",
        line_of(made => $ms - 2 * $hour),
        line_of(made => $ms - 2 * $hour, ttl => 8000,
                request => { %{ $line{request} }, seed => 1 }),
        line_of(made => $ms - 2 * $hour, stale => 7200,
                request => { %{ $line{request} }, seed => 2 }),
        line_of(made => $ms + 999 * $hour,
                request => { %{ $line{request} }, seed => 3 });

    $r = run(['-d', $dir, 'import'], in => $text);
    is_run($r, 0, $QUIET, 'times');
    is($r->{out}, "imported 3, skipped 1, bad 0\n", 'times: summary');

    my %left = map { ($_->{request}{seed} // '') => $_ }
               lines_of(run(['-d', $dir, 'export']));
    cmp_ok($left{3}{made}, '<=', $ms + 60_000, 'times: not in the future');
    is($left{2}{stale}, 7200, 'times: stale');

    $r = run(['-d', $dir, 'import', '--all'],
             in => line_of(made => 1000, request => { %{ $line{request} },
                                                      seed => 4 }));
    is($r->{out}, "imported 1, skipped 0, bad 0\n", '--all: imported');
    like(run(['-d', $dir, 'list'])->{out}, qr/ expired /, '--all: expired');
}

sub now_ms { require Time::HiRes; return 1000 * Time::HiRes::time() }


# --- a directory that knows one route

{
    my $u = start_nginx(<<'EOT', vars => { MOCK => $mock->port });
    llm_adapter_provider only {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        breaker off;
    }

    llm_adapter_model * only:gpt-real;
    llm_adapter_cache_path %%DIR%%/cache size=4m;

    server {
        listen 127.0.0.1:%%PORT%%;

        location /v1/ {
            llm_adapter on;
            llm_adapter_cache on scope=global reveal=on;
        }
    }
EOT

    my $dir = $u->path('cache');
    wait_for { -s "$dir/data.mdb" } 10;

    my %short = %line;
    delete $short{route};

    my $r;
    wait_for {
        $r = run(['-d', $dir, 'import'], in => json_encode(\%short));
        $r->{code} == 0;
    } 5;

    is_run($r, 0, $QUIET, 'one route');

    $r = ask_for($u, 'chat', say => 'by hand');
    is(status_of($r), 'HIT', 'one route: a hit');
    is($r->header('x-llm-provider'), 'only', 'one route: its provider');
    is($r->header('x-llm-model'), 'gpt-real', 'one route: its model');

    # more than it has room for: the limit is the one of nginx, and stays

    my $big = 'x' x 20_000;

    for my $round (1 .. 4) {
        $r = run(['-d', $dir, 'import'], in => join '', map {
            my %rq = (%{ $line{request} }, seed => "$round $_");
            json_encode({ %short, request => \%rq, answer => {
                              %{ $line{answer} }, big => $big } }) . "\n"
        } 1 .. 1000);
        is($r->{code}, 0, "more than there is room for, $round");
    }

    my ($st) = lines_of(run(['-d', $dir, 'stat', '--json']));
    is($st->{size}, 4 << 20, 'more than there is room for: size');
    cmp_ok($st->{used}, '<=', 4 << 20, 'more than there is room for: used');
    cmp_ok(-s "$dir/data.mdb", '<=', 8 << 20,
           'more than there is room for: the file');
    cmp_ok($st->{entries}, '>', 50, 'more than there is room for: entries');

    no_alerts($u, name => 'one route: no alerts');
}


# --- a file that is none

{
    mkdir "$tmp/broken";
    spew("$tmp/broken/data.mdb", 'x' x 10_000);

    is_run(run(['-d', "$tmp/broken", $_]), 1, qr/can't be read/,
           "$_ of a broken file") for qw(stat list export);
    is(slurp("$tmp/broken/data.mdb"), 'x' x 10_000,
       'who only reads changes nothing');

    my $r = run(['-d', "$tmp/broken", 'import'],
                in => line_of(provider_digest => '0'));
    is($r->{code}, 0, 'import into a broken file');
    like($r->{err}, qr/^llm-cache: .*can't be used.*begun anew\n\z/,
         'import into a broken file: told');
    is((lines_of(run(['-d', "$tmp/broken", 'stat', '--json'])))[0]{entries},
       1, 'import into a broken file: it is there');
}


# --- bad lines

{
    my %no = %line;
    my $good = line_of(request => { %{ $line{request} }, seed => 5 });
    my %rq = %{ $line{request} };
    my $event = 'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}';
    my %choice = %{ $line{answer}{choices}[0] };

    my $without = sub {
        my %copy = %line;
        delete @copy{@_};
        return \%copy;
    };

    my @bad = (
        ['{"v":1', qr/invalid JSON/],
        ["\xff", qr/invalid JSON/],
        ['[]', qr/no JSON object/],
        [line_of(v => 2), qr/version/],
        [line_of(scope => 5), qr/"scope" is no string/],
        [line_of(ttl => 1.5), qr/"ttl" is no number/],
        [line_of(ttl => '1h'), qr/"ttl" is no number/],
        [line_of(ttl => 1e11), qr/"ttl" is no number/],
        [line_of(cost => 'x'), qr/"cost"/],
        [json_encode($without->('scope')), qr/"scope" is missing/],
        [line_of(scope => 'anybody'), qr/"scope" is none of/],
        [json_encode($without->('endpoint')), qr/"endpoint" is missing/],
        [line_of(endpoint => 'images'), qr/unknown endpoint "images"/],
        [line_of(endpoint => 'models'), qr/unknown endpoint/],
        [line_of(dialect => 'klingon'), qr/unknown dialect "klingon"/],
        [line_of(dialect => 'anthropic'), qr/unknown endpoint/],
        [line_of(route => 'away'),
         qr/unknown route "away"; known are .*"openai"/],
        [json_encode($without->('route')),
         qr/"route" is missing; known are .*"anthropic"/],
        [line_of(request => []), qr/"request": .*must be a JSON object/],
        [line_of(request => { model => 'x' }), qr/"request": .*messages/],
        [line_of(request => { %rq, store => JSON::PP::true() }),
         qr/stateful/],
        [json_encode($without->('request')), qr/neither "request" nor "key"/],
        [json_encode({ %{ $without->('request') }, key => 'ab' }),
         qr/"key" is no 64 hex/],
        [json_encode({ %{ $without->('request') }, key => 'a' x 64 }),
         qr/not one of this scope/],
        [json_encode($without->('answer')), qr/needs "answer" or/],
        [line_of(answer_text => 'x'), qr/needs "answer" or/],
        [line_of(form => 'poem'), qr/"form"/],
        [line_of(form => 'stream'), qr/a stream is/],
        [line_of(answer => { error => { message => 'x' } }),
         qr/not fit to keep: failed/],
        [line_of(answer => {}), qr/not fit to keep: unfinished/],
        [line_of(answer => { choices => [ { %choice,
             finish_reason => 'length' } ] }), qr/keep: truncated/],
        [line_of(answer => { choices => [ { %choice,
             finish_reason => 'content_filter' } ] }), qr/keep: filtered/],
        [line_of(provider => "a\nX-Evil: 1"), qr/control character/],
        [line_of(content_type => "a\r\nX-Evil: 1"), qr/control character/],
        (map { [json_encode({ %{ $without->('answer') },
                              answer_text => $_->[0] }), $_->[1]] }
            ['', qr/keep: unfinished/],
            ["$event\n\n", qr/keep: unfinished/],
            ["data: [DONE]\n\n", qr/keep: unfinished/],
            ["$event\n\ndata: {x\n\n", qr/keep: malformed/],
            ["data: {\"error\":{\"message\":\"x\"}}\n\n", qr/keep: failed/]),
    );

    my $text = join '', "$good\n", map { "$_->[0]\n" } @bad;
    my $count = @bad;

    # the last line has no end

    my $r = run(['-d', $dir, 'import'], in => $text . $good);
    is($r->{out}, "imported 2, skipped 0, bad $count\n", 'bad: summary');
    is($r->{code}, 1, 'bad: exit code');

    my %told = $r->{err} =~ /^llm-cache: line (\d+): (.*)$/mg;
    is(scalar keys %told, $count, 'bad: each is told');
    like($told{$_ + 2} // '', $bad[$_][1], "bad: line $_")
        for 0 .. $#bad;

    # more than is told

    $r = run(['-d', $dir, 'import'], in => "x\n" x 500);
    is($r->{out}, "imported 0, skipped 0, bad 500\n", 'many bad: summary');
    is(scalar(() = $r->{err} =~ /\n/g), 101, 'many bad: not all are told');

    # one that is too long, between good ones

    my $long = "$tmp/long";
    open my $fh, '>', $long or die;
    print $fh "$good\n{\"v\":\"";
    print $fh 'x' x (1 << 20) for 1 .. 70;
    print $fh "\"}\n$good\n";
    close $fh;

    $r = run(['-d', $dir, 'import', $long]);
    is($r->{out}, "imported 2, skipped 0, bad 1\n", 'too long: summary');
    like($r->{err}, qr/^llm-cache: line 2: longer than 64 MB\n\z/,
         'too long: told');
    unlink $long;
}


# --- purge

{
    my $purged = sub { return (lines_of($_[0]))[0] // {} };

    my $r = run(['-d', $dir, 'purge', 'scope', 'red']);
    is_run($r, 0, $QUIET, 'purge scope');
    is_deeply($purged->($r), { matched => 1, deleted => 1, pending => 0 },
              'purge scope: told');
    is(status_of(ask_for($t, 'chat', %{ (grep { $_->[1] eq 'of a team' }
                                              @asked)[0][2] })),
       'MISS', 'purge scope: a miss');

    $r = run(['-d', $dir, 'purge', 'model', 'claude-x']);
    is($purged->($r)->{matched}, 2, 'purge model');

    my ($one) = grep { $_->[1] eq 'chat, plain' } @asked;
    my $id = $one->[3]->header('x-llm-cache-key');
    $r = run(['-d', $dir, 'purge', 'id', uc $id]);
    cmp_ok($purged->($r)->{matched}, '>=', 1, 'purge id');
    is(status_of(ask_for($t, 'chat', %{ $one->[2] })), 'MISS',
       'purge id: a miss');

    $r = run(['-d', $dir, 'purge', 'id', '0' x 32]);
    is($purged->($r)->{matched}, 0, 'purge of an unknown id');

    $r = run(['-d', $dir, 'purge', 'all']);
    cmp_ok($purged->($r)->{matched}, '>', 5, 'purge all');
    is(run(['-d', $dir, 'export'])->{out}, '', 'purge all: nothing is left');
    is($purged->(run(['-d', $dir, 'stat', '--json']))->{pending}, 0,
       'purge all: nothing is pending');
}


# --- much of it, while requests run

{
    my $many = 20_000;
    my $text = '';
    my %rq = %{ $line{request} };
    my $head = json_encode({ %line, request => '@' });
    my $rq = json_encode(\%rq);

    for my $i (1 .. $many) {
        my $r = $rq =~ s/by hand/many $i/r;
        $text .= $head =~ s/"\@"/$r/r . "\n";
    }

    spew("$tmp/many", $text);

    my $pid = spawn([$tool, '-d', $dir, 'import', "$tmp/many"],
                    stdout => "$tmp/many.out", stderr => "$tmp/many.err");
    my $start = now();
    my ($status, $wrong, $asked) = (undef, 0, 0);

    while (!defined($status = reap($pid, 0))) {
        my %q = (say => 'meanwhile ' . $asked++ % 50);
        $wrong++ if ask_for($t, 'chat', %q)->status != 200;
    }

    my $took = now() - $start;

    is($status, 0, 'import while requests run');
    is(slurp("$tmp/many.out"), "imported $many, skipped 0, bad 0\n",
       'import while requests run: all of them');
    is(slurp("$tmp/many.err"), '', 'import while requests run: no words');
    cmp_ok($asked, '>', 10, "$asked requests meanwhile");
    is($wrong, 0, 'all of them were answered');
    cmp_ok($took, '<', 30 * ($ENV{LLM_SLOW} // 1),
           sprintf 'import of %d: %.1f s', $many, $took);

    is(status_of(ask_for($t, 'chat', say => "many $_")), 'HIT', "many $_")
        for 1, 777, $many;

    my @names = lines_of(run([qw(list --json --model gpt-4o -d), $dir]));
    cmp_ok(scalar @names, '>=', $many, 'all of them have their model');

    my $r = run(['-d', $dir, 'export', "$tmp/many2"]);
    is($r->{code}, 0, 'export of many');
    cmp_ok($r->{time}, '<', 30 * ($ENV{LLM_SLOW} // 1),
           sprintf 'export of many: %.1f s', $r->{time});

    my @back = grep { /many \d/ } split /\n/, slurp("$tmp/many2");
    is(scalar @back, $many, 'export of many: all of them');

    # to a directory that no nginx has seen

    mkdir "$tmp/fresh";
    $r = run(['-d', "$tmp/fresh", 'import', '--size', '128m', "$tmp/many2"]);
    is_run($r, 0, $QUIET, 'import to a fresh directory');
    like($r->{out}, qr/^imported 20\d+, skipped 0, bad 0$/,
         'import to a fresh directory: summary');

    $r = run(['-d', "$tmp/fresh", 'stat', '--json']);
    is((lines_of($r))[0]{size}, 128 << 20, 'its size');

    # to delete them takes longer than a worker may be kept waiting

    ($r) = lines_of(run(['-d', "$tmp/fresh", 'purge', 'all']));
    cmp_ok($r->{matched}, '>=', $many, 'purge of many');
    is($r->{deleted} + $r->{pending}, $r->{matched}, 'purge of many: told');

    ($r) = lines_of(run(['-d', "$tmp/fresh", 'stat', '--json']));
    is("$r->{entries} $r->{pending}", '0 0', 'purge of many: all are gone');

    # a signal: what was read is written, and no half file is left.  It may
    # come before the command is ready for it, or after its end.

    my %code;

    for my $delay (map { $_ * 0.005 } 1 .. 40) {
        $r = run(['-d', $dir, 'export', "$tmp/cut"], signal => ['INT', $delay]);
        $code{ $r->{code} }++;

        last if $r->{code} == 0;
        next if $r->{code} != 130;

        is($r->{err}, '', 'SIGINT: no words');
        ok(!-e "$tmp/cut" && !-e "$tmp/cut.tmp", 'SIGINT: no file');
        last;
    }

    ok($code{130}, 'SIGINT: exit code') or diag(join ' ', %code);

    pipe my $from, my $to or die "pipe(): $!";
    mkdir "$tmp/fresh2";

    $pid = spawn([$tool, '-d', "$tmp/fresh2", 'import'], stdin => $from,
                 stdout => "$tmp/fresh2.out", stderr => "$tmp/fresh2.err");
    close $from;

    my @some = grep { /many/ } split /\n/, slurp("$tmp/many2");
    syswrite $to, join '', map { "$_\n" } @some[0 .. 1499];
    syswrite $to, substr $some[1500], 0, 100;

    wait_for { slurp("/proc/$pid/wchan") =~ /pipe/
               || slurp("/proc/$pid/syscall") =~ /^0 0x0 / } 5;
    kill 'TERM', $pid;

    my $ended = reap($pid, 20) // -1;
    is($ended >> 8, 143, 'SIGTERM: exit code of an import');
    is(slurp("$tmp/fresh2.out"), "imported 1500, skipped 0, bad 0\n",
       'SIGTERM: what was read is written');
    is(slurp("$tmp/fresh2.err"), '', 'SIGTERM: no words');
    is((lines_of(run(['-d', "$tmp/fresh2", 'stat', '--json'])))[0]{entries},
       1500, 'SIGTERM: it is there');

    # a pipe that nobody reads

    my $cut = `'$tool' -d '$dir' export 2>'$tmp/pipe' | head -c 100`;
    is(length $cut, 100, 'a closed pipe');
    is(slurp("$tmp/pipe"), "llm-cache: writing failed: Broken pipe\n",
       'a closed pipe: told once');
}


# --- whose the files are

SKIP: {
    my @user = getpwnam 'nobody';

    skip 'needs root', 1 if $> != 0 || !@user;

    my ($uid, $gid) = @user[2, 3];
    my $own = "$tmp/own";

    mkdir $own, 0700;
    chown $uid, $gid, $own;

    mkdir "$tmp/roots", 0700;
    spew("$tmp/roots/in", line_of(provider_digest => '0'));

    my $r = run(['-d', $own, 'import', "$tmp/roots/in"]);
    is_run($r, 0, $QUIET, 'as root');

    my @files = glob "$own/*";
    cmp_ok(scalar @files, '>=', 3, 'as root: files');
    is(join(' ', grep { (stat)[4] != $uid || (stat)[5] != $gid } @files), '',
       "as root: the directory's owner has them all");
    is(join(' ', grep { (stat)[2] & 077 } @files), '',
       'as root: nobody else may read them');

    $r = run(['-d', $own, 'export', "$tmp/roots/out"]);
    is_run($r, 0, $QUIET, 'as root: export');
    is((stat "$tmp/roots/out")[4], 0, "as root: the export is root's");
    is(scalar(() = slurp("$tmp/roots/out") =~ /\n/g), 1,
       'as root: the export is whole');
    ok(!-e "$tmp/roots/out.tmp", 'as root: nothing else is left');
    is(run(['-d', $own, 'purge', 'all'])->{code}, 0, 'as root: purge');
    is(join(' ', grep { (stat)[4] != $uid } glob "$own/*"), '',
       'as root: they are still its own');

    my ($u, $dir) = start($mock, path => $own,
                           user => 'nobody ' . getgrgid($gid));
    is(status_of(ask_for($u, 'chat', say => 'own')), 'MISS',
       'workers of that user: asked');
    is_kept($u, 'chat', 'workers of that user: kept', say => 'own');
    no_alerts($u, name => 'workers of that user: no alerts');
}

no_alerts($t);

done_testing();
