#!/usr/bin/perl

# Request bodies: of any size, in memory or in a file, by length, in chunks,
# over HTTP/2, arrive at the provider byte for byte except for what must
# change.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;

skip_without_module();

my ($t, $mock) = gateway(
    server => 'client_body_buffer_size 16k;',
    locations => {
        '/mem/v1/' => 'client_body_buffer_size 8m;',
        '/file/v1/' => 'client_body_in_file_only clean;',
        '/small/v1/' => 'client_max_body_size 100k;',
    },
    http => <<'EOT');
    llm_adapter_model alias* openai:gpt-4o-2024-08-06;
    llm_adapter_model calias* anthropic:claude-opus-4;
EOT

my $SPLICE = qr/"stream_options":\{"include_usage":true\}/;


sub client {
    my ($way) = @_;
    return $way =~ /h2/ ? h2($t->port('h2'), timeout => 30)
                        : h1($t->port, timeout => 30);
}


# Uploads $body in the given manner.

sub upload {
    my ($way, $kind, $body, %o) = @_;

    my $c = client($way);

    if ($way eq 'h2 no length') {
        my ($method, $path, %r) = request_of($kind, %o, body => $body);
        my $s = $c->start($method, $path, headers => $r{headers}, open => 1);
        $c->send_data($s, $body, end => 1);
        return $c->read_body($s);
    }

    return ask($c, $kind, %o, body => $body,
               $way eq 'h1 chunked' ? (chunked => 5000)
               : $way eq 'h1 expect' ? (expect => 1)
               : $way eq 'h1 slow' ? (piece => 150_000, delay => 0.02) : ());
}


my @WAYS = ('h1', 'h1 chunked', 'h1 expect', 'h1 slow', 'h2', 'h2 no length');


# What the provider got is $wanted, with usage asked for where $streamed.

sub arrived {
    my ($wanted, $streamed, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $got = $mock->last_body;

    if ($streamed) {
        ok(scalar($got =~ s/,\s*$SPLICE|$SPLICE\s*,//), "$name: usage asked");
    }

    my $same = $got eq $wanted;
    ok($same, "$name: the provider's bytes") or diag(
        length($got) . ' bytes for ' . length($wanted) . ', first '
        . substr($got, 0, 300));

    my ($length) = $mock->control('last')->body =~ /^content-length: (\d+)/mi;
    is($length, length $mock->last_body, "$name: its Content-Length");
}


# A body of about $size bytes; the model's place: first, middle, last.

sub large {
    my ($size, $place, $model, $streamed) = @_;

    my $text = join '', map { sprintf 'line %07d of "text" ', $_ }
               1 .. $size / 26 + 1;
    $text = substr $text, 0, $size;
    $text =~ s/"/\\"/g;
    $text = substr $text, 0, $size;
    $text =~ s/\\$/x/;

    my @members = (qq("messages": [{"role":"user","content":"$text"}]));
    push @members, '"max_tokens":100' if $model =~ /^c/;
    push @members, '"stream":true' if $streamed;

    my %at = (first => 0, middle => 1, last => scalar @members);
    splice @members, $at{$place}, 0, qq("model" : "$model");

    return '{' . join(', ', @members) . '}';
}


# --- 2 MB, however it comes and wherever the model stands ---

for my $way (@WAYS) {
    for my $prefix ('', '/mem', '/file') {
        for my $place ($way eq 'h1' ? qw(first middle last) : 'last') {
            for my $streamed ($place eq 'last' ? (0, 1) : (0)) {
                my $name = "$way, '$prefix', model $place"
                           . ($streamed ? ', stream' : '');
                my $body = large(2_000_000, $place, 'alias-1', $streamed);
                my $r = upload($way, 'chat', $body, prefix => $prefix,
                               test => $name, mock => { events => 2 });

                (my $wanted = $body) =~
                    s/"model" : "alias-1"/"model" : "gpt-4o-2024-08-06"/;

                is($r->status, 200, "$name: answered");
                arrived($wanted, $streamed, $name);
                is_whole($r, 'chat', "$name: whole") if $streamed;

                if ($way eq 'h1 expect') {
                    is(scalar(grep { /100/ } @{ $r->informational }), 1,
                       "$name: 100 Continue");
                }

                my $log = log_of($t, $name);
                is($log->{requested_model}, 'alias-1', "$name: asked for");
                is($log->{model}, 'gpt-4o-2024-08-06', "$name: mapped to");
            }
        }
    }
}

for my $way (@WAYS) {
    my $body = large(2_000_000, 'last', 'calias-1', 1);
    my $r = upload($way, 'messages', $body, mock => { events => 2 });
    (my $wanted = $body) =~ s/"calias-1"/"claude-opus-4"/;
    is_whole($r, 'messages', "messages, $way: whole");
    arrived($wanted, 0, "messages, $way");
}


# --- sizes around the buffers ---

for my $way ('h1', 'h1 chunked', 'h2 no length') {
    for my $size (100, 1000, 8192, 16300, 16384, 16500, 32768, 65536, 262144)
    {
        for my $off (-1, 0, 1) {
            my $body = large($size, 'last', 'alias-1', 1);
            my $fill = $size - length $body;
            my $pad = $fill + $off > 0 ? ' ' x ($fill + $off) : '';
            $body =~ s/\}\z/$pad}/;

            if (length $body > $size + $off) {
                my $cut = length($body) - $size - $off;
                substr $body, index($body, 'line'), $cut, ''
                    if $cut < $size / 2;
            }

            my $r = upload($way, 'chat', $body, mock => { events => 1 });
            (my $wanted = $body) =~ s/"alias-1"/"gpt-4o-2024-08-06"/;
            my $got = $mock->last_body;
            $got =~ s/,\s*$SPLICE|$SPLICE\s*,//;
            ok($r->status == 200 && $got eq $wanted,
               "$way, a body of " . length($body) . ' bytes');
        }
    }
}


# --- 20 MB ---

for my $way ('h1', 'h1 chunked', 'h2') {
    my $body = large(20_000_000, 'last', 'alias-1', 0);
    my $r = upload($way, 'chat', $body, timeout => 30,
                   mock => { events => 1, keep => 1 });
    (my $wanted = $body) =~ s/"alias-1"/"gpt-4o-2024-08-06"/;
    is($r->status, 200, "$way, 20 MB: answered");
    ok($mock->last_body eq $wanted, "$way, 20 MB: the provider's bytes");
}


# --- what is not ours stays as it was written ---

{
    my $odd = join '', "\r\n{ \"zeta\" : 1.0e+5 ,\n\t\"n\":1E400,",
        '"big":123456789012345678901234567890, "neg":-0.0,',
        '"u":"\u00e9\/\ud83d\ude00 ', "\xc3\xa9\xf0\x9f\x98\x80", '",',
        '"nested":{"model":"inner","stream":true,"stream_options":{}},',
        '"dup":{"a":1,"a":2}, "" : null,"MODEL":"x","model ":"y",',
        '"messages" : [ { "role":"user", "content" : [ ] } ] ,',
        "  \"model\"\t:\r\n MODEL , \"x\":[[],{},\"\",0]\n}\n  ";

    for my $case (
        ['"alias-7"', '"gpt-4o-2024-08-06"'],
        ['"al\u0069as-7"', '"gpt-4o-2024-08-06"'],
        ['"gpt-4o"', '"gpt-4o"'],
        ['"g\u0070t-4o"', '"g\u0070t-4o"'],
        ['"m\u00f6del\/1"', '"m\u00f6del\/1"'],
    ) {
        my ($model, $to) = @$case;

        for my $way ('h1', 'h2', 'h1 chunked') {
            (my $body = $odd) =~ s/MODEL ,/$model ,/;
            (my $wanted = $odd) =~ s/MODEL ,/$to ,/;
            my $r = upload($way, 'chat', $body, mock => { events => 1 });
            is($r->status, 200, "$way, $model: answered");
            arrived($wanted, 0, "$way, $model");
        }
    }

    # names may be written with escapes

    my $body = '{"mod\u0065l":"alias-7","str\u0065am":true,"messages":[]}';
    my $r = upload('h1', 'chat', $body, mock => { events => 1 });
    is_whole($r, 'chat', 'escaped names: a stream');
    (my $wanted = $body) =~ s/alias-7/gpt-4o-2024-08-06/;
    arrived($wanted, 1, 'escaped names');

    # where usage is asked for matters little, but it must stay JSON

    for my $body (
        '{"stream":true,"model":"gpt-4o","messages":[]}',
        '{"model":"gpt-4o","messages":[],"stream":true}',
        '{"model":"gpt-4o","messages":[],"stream":true,"stream_options":null}',
        '{"model":"gpt-4o","stream_options":{},"messages":[],"stream":true}',
        '{"model":"gpt-4o","stream_options": { } ,"messages":[],"stream":true}',
        '{"model":"gpt-4o","stream_options":{"include_usage":false},'
            . '"messages":[],"stream":true}',
        '{"model":"gpt-4o","stream_options":{"a":[{}],"b":"}"},'
            . '"messages":[],"stream":true}',
        ' { "model" : "gpt-4o" , "messages" : [ ] , "stream" : true } ',
    ) {
        my $r = upload('h1', 'chat', $body, mock => { events => 1 });
        my $got = json_decode($mock->last_body);
        my $wanted = json_decode($body);
        $wanted->{stream_options}{include_usage} = JSON::PP::true();
        is_deeply($got, $wanted, "usage is asked for in $body");
        is_whole($r, 'chat', "answered: $body");
    }
}


# --- too large ---

for my $way ('h1', 'h1 chunked', 'h1 expect', 'h2', 'h2 no length') {
    for my $kind (qw(chat messages responses)) {
        my $name = "$way, $kind, too large";
        my $before = $mock->stats->{requests};
        my $body = body_of($kind, more => '"x":"' . 'y' x 300_000 . '"');
        my $r = upload($way, $kind, $body, prefix => '/small', test => $name,
                       close => 1);
        my $e = is_error($r, $kind, 413, $name);
        is($e->{type}, 'request_too_large', "$name: its type")
            if $kind eq 'messages';
        is($mock->stats->{requests}, $before, "$name: not sent on");
        is(log_of($t, $name)->{status}, 413, "$name: in the log")
            if $way ne 'h1 expect';
    }
}

{
    my $r = upload('h1', 'chat', body_of('chat', more => '"x":"'
                   . 'y' x 90_000 . '"'), prefix => '/small');
    is($r->status, 200, 'just small enough');
}


# --- a provider that takes its time, or none at all ---

{
    my $body = large(500_000, 'last', 'alias-1', 0);
    my $r = upload('h1', 'chat', $body,
                   mock => { events => 1, read_rate => '3m' });
    is($r->status, 200, 'a provider that reads slowly: answered');
    (my $wanted = $body) =~ s/"alias-1"/"gpt-4o-2024-08-06"/;
    ok($mock->last_body eq $wanted, 'a provider that reads slowly: all of it');

    for my $way ('h1', 'h2') {
        for my $streamed (0, 1) {
            my $name = "$way, an answer before the body"
                       . ($streamed ? ', stream' : '');
            my $big = large(8_000_000, 'first', 'alias-1', $streamed);
            my $start = now();
            $r = upload($way, 'chat', $big, test => $name,
                        mock => { early => 1, status => 413,
                                  message => 'too long for me' });
            is($r->status, 413, "$name: status");
            like($r->body, qr/too long for me/, "$name: the provider's words");
            cmp_ok(now() - $start, '<', $ENV{LLM_VALGRIND} ? 40 : 5,
                   "$name: in time");
        }
    }
}


# --- many at once, each its own ---

{
    my @clients = map { h1($t->port, timeout => 30) } 1 .. 12;
    my $n = 0;

    for my $c (@clients) {
        $n++;
        start_ask($c, 'chat', body => large(300_000 + $n * 1000, 'last',
                                            "alias-$n", 0),
                  test => "many $n", mock => { events => 1,
                                               delay => '200ms' });
    }

    $n = 0;

    for my $c (@clients) {
        $n++;
        my $r = $c->read_response;
        is($r->status, 200, "one of many: answered");
        is(log_of($t, "many $n")->{requested_model}, "alias-$n",
           'one of many: its own model');
    }
}

LLM::Conn::close_all();
my @left = glob $t->path('client_body_temp/*');
@left = grep { -f } map { -d $_ ? glob("$_/*/*") : $_ } @left;
is(scalar @left, 0, 'no temporary file is left');

no_alerts($t);

done_testing();
