#!/usr/bin/perl

# Planted keys, prompts and answers: they are in no log at info or above, no
# header to a client, no error, no -T; whatever happens to the request.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use LLM::Nginx;
use Gateway;

skip_without_module();

my $format = repo_root() . '/conf/llm_log.conf';
my $mock = start_mock();

# provider's keys, prompts, answers, what clients present
my $KEY = 'canary-key-4711';
my $HEADER = 'canary-header-4712';
my $PROMPT = 'canary-prompt-4713';
my $ANSWER = 'canary-answer-4714';
my $CLIENT = 'canary-client-4715';
my $COOKIE = 'canary-cookie-4716';

my $conf = gateway_conf(
    provider => "key env:TEST_E2E_KEY;\nheader X-Secret file:%%DIR%%/h;",
    location => 'llm_adapter_passthrough openai;',
    locations => {
        '/t/v1/' => 'llm_adapter_timeout first_token=300ms idle=300ms '
                    . 'plain=300ms;',
        '/client/v1/' => 'llm_adapter theirs;',
        '/drain/v1/' => 'llm_adapter_client_abort drain; '
                        . 'llm_adapter_timeout first_token=900ms idle=500ms;',
        '/dead/v1/' => 'llm_adapter dead;',
        '/small/v1/' => 'client_max_body_size 1k;',
    },
    http => <<'EOT');
    llm_adapter_provider theirs {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key client;
        breaker off;
    }

    llm_adapter_provider dead {
        endpoint http://127.0.0.1:1/v1;
        dialect openai;
        key env:TEST_E2E_KEY;
        breaker off;
    }
EOT

my $have_format = -e $format;

if ($have_format) {
    $conf =~ s/^\s*log_format llm .*?;$//ms;
    $conf = "    include $format;\n$conf";
}

my %o = (vars => { MOCK => $mock->port }, env => { TEST_E2E_KEY => $KEY },
         files => { h => "$HEADER\n" }, log_level => 'info');
my $t = start_nginx($conf, %o);

my (@heads, @errors);
my $more = qq("x":"$PROMPT","y":"$PROMPT");


sub one {
    my ($way, $kind, %q) = @_;

    my $c = $way eq 'h2' ? h2($t->port('h2')) : h1($t->port);
    my $r = ask($c, $kind, more => $more, %q,
                mock => { text => "$ANSWER and $ANSWER", %{ $q{mock} // {} } },
                headers => [authorization => "Bearer $CLIENT",
                            'x-api-key' => $CLIENT, cookie => $COOKIE,
                            'proxy-authorization' => "Basic $CLIENT",
                            @{ $q{headers} // [] }]);

    push @heads, map { "$_->[0]: $_->[1]\n" } @{ $r->headers };
    push @heads, map { "$_->[0]: $_->[1]\n" } @{ $r->trailers };
    push @errors, $r->body if $r->status != 200;

    return $r;
}


# --- the plants are where they should be ---

for my $kind (qw(chat messages responses)) {
    my $r = one('h1', $kind, stream => 1);
    my $head = $mock->control('last')->body;
    like($head, qr/\Q$KEY\E/, "$kind: our key goes to the provider");
    like($head, qr/\Q$HEADER\E/, "$kind: our header too");
    unlike($head, qr/\Q$CLIENT\E|\Q$COOKIE\E/, "$kind: the client's do not");
    like($mock->last_body, qr/\Q$PROMPT\E/, "$kind: the prompt");
    like(join('', map { $_->{data} // '' } $r->sse), qr/canary-answer/,
         "$kind: the answer comes");
}

{
    one('h1', 'chat', prefix => '/client');
    my $head = $mock->control('last')->body;
    like($head, qr/^authorization: bearer \Q$CLIENT\E/mi,
         'key client: the credential goes on');
    unlike($head, qr/\Q$COOKIE\E|^x-api-key|^proxy-auth/mi,
           'key client: only the one of the dialect');
}


# --- all that can happen ---

for my $way (qw(h1 h2)) {
    for my $kind (qw(chat messages responses embeddings)) {
        for my $streamed ($kind eq 'embeddings' ? 0 : (0, 1)) {
            my %q = (stream => $streamed);

            one($way, $kind, %q);
            one($way, $kind, %q, query => "beta=true&key=$CLIENT");
            one($way, $kind, %q, mock => { status => $_,
                                           message => "no $KEY here" })
                for 401, 403;
            one($way, $kind, %q, mock => { status => $_ })
                for 400, 404, 429, 500, 503;
            one($way, $kind, %q, query => "beta=true&key=$CLIENT",
                mock => { fault => $_, at => 1 })
                for qw(reset close close_mid_head bad_head error200 gzip cut
                       clean_cut reset_mid malformed error_first error_event
                       no_done no_finish short long not_sse);
            one($way, $kind, %q, prefix => '/t', mock => { fault => $_ })
                for qw(hang stall);
            one($way, $kind, %q, prefix => '/small',
                more => "$more,\"z\":\"" . 'z' x 2000 . '"');
        }
    }

    one($way, 'chat', prefix => '/dead');
    one($way, 'chat', prefix => '/nowhere');

    # what clients get wrong

    one($way, 'chat', body => $_)
        for '', "$PROMPT", qq({"model":"gpt-4o","$PROMPT"),
            qq({"model":"gpt-4o","messages":["$PROMPT",]}),
            qq({"$PROMPT":1}), qq(["$PROMPT"]), qq("$PROMPT"),
            qq({"model":{"$PROMPT":1},"messages":[]}),
            qq({"model":"a","model":"b","messages":["$PROMPT"]}),
            qq({"model":"gpt-4o","stream":"$PROMPT","messages":[]}),
            qq({"model":"gpt-4o","messages":["$PROMPT\x01"]}),
            qq({"model":"gpt-4o","messages":["$PROMPT\xff"]}),
            '[' x 3000 . $PROMPT;
    one($way, 'messages', body => qq({"messages":["$PROMPT"]}));
    one($way, 'chat', headers => ['content-encoding' => 'gzip']);

    # large ones go to a file

    one($way, 'chat', more => qq("x":"$PROMPT) . 'z' x 200000 . '"');

    # and clients that leave

    for my $prefix ('', '/drain') {
        for my $set ({ delay => '400ms' }, { events => 6, gap => '80ms' },
                     { fault => 'stall', at => 1, delay => '100ms' })
        {
            my $c = $way eq 'h2' ? h2($t->port('h2')) : h1($t->port);
            start_ask($c, 'chat', stream => 1, more => $more, mock => $set,
                      prefix => $prefix,
                      headers => [authorization => "Bearer $CLIENT"]);
            nap(0.2);
            $c->abort($prefix ? 'fin' : 'rst');
        }
    }

    # the passthrough

    my $c = $way eq 'h2' ? h2($t->port('h2')) : h1($t->port);
    for my $set ({}, { status => 401, message => "bad $KEY" },
                 { status => 500 }, { fault => 'close' },
                 { fault => 'bad_head' })
    {
        my $r = $c->request('GET', '/v1/files', headers => [
            authorization => "Bearer $CLIENT", cookie => $COOKIE,
            map { ("x-mock-$_" => $set->{$_}) } sort keys %$set]);
        push @heads, map { "$_->[0]: $_->[1]\n" } @{ $r->headers };
        push @errors, $r->body if $r->status != 200 && !$set->{message};
        last if !$r->complete;
    }
}

nap(0.5);
LLM::Conn::close_all();


# --- and where nothing of it may be ---

my $all = qr/canary-\w+-\d+/;
my $secret = qr/canary-(?:key|header|client|cookie)-\d+/;


sub finds {
    my ($text, $what, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @found = grep { /$what/ } split /\n/, $text;
    is(scalar @found, 0, $name)
        or diag('e.g. ' . substr $found[0], 0, 600);
}


cmp_ok(length(join '', @errors), '>', 1000, 'there were errors');
cmp_ok(scalar @heads, '>', 1000, 'there were headers');

# (the prompts are no secret to the client that sent them, but no error
# quotes them)

finds(join('', @heads), $all, 'no header to a client');
finds(join("\n", @errors), $all, 'no error text');

my $errors = $t->error_log;
cmp_ok(length $errors, '>', 1000, 'the error log has lines');

(my $others = $errors) =~ s/, request: "[^"]*"//g;
finds($others, $all, 'the error log at info');

TODO: {
    local $TODO = "nginx's own log context quotes the request line with its "
                  . 'query, where some clients put a key';
    finds($errors, $secret, 'the error log, request lines too');
}

if ($have_format) {
    my $log = slurp($t->path('llm.log'));
    cmp_ok(length $log, '>', 10000, 'the access log has lines');
    finds($log, $all, "the access log of conf/'s log_format");
}

finds($t->stderr, $all, 'stderr');

{
    my $out = $t->path('T');
    my $pid = spawn([$t->command, '-T'], stdout => $out, stderr => $out,
                    env => { TEST_E2E_KEY => $KEY });
    reap($pid, 30);
    my $text = slurp($out);
    like($text, qr/llm_adapter_provider/, '-T works');
    finds($text, $all, '-T');
}

# a -T writes to the same log
no_alerts($t);

done_testing();
