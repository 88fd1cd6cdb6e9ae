#!/usr/bin/perl

# One entry in two forms: what was stored as a stream is given as a plain
# answer and the other way round, with the same content, and as valid as one of
# the provider's; usage only for those who ask; ids.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Test::More;

use LLM::E2E;
use Gateway;
use Caching;

skip_without_module();

my $c = Caching->new(
    workers => 2,
    cache => 'on max_size=4m',
    locations => {
        '/fresh/v1/' => 'llm_adapter_cache on ids=fresh;',
        '/kept/v1/' => 'llm_adapter_cache on ids=kept;',
        '/ping/v1/' => 'llm_adapter_ping 50ms;',
    });
my ($t, $mock) = @$c{qw(t mock)};

my @KINDS = qw(chat completions messages responses);
my $USAGE = '"stream_options":{"include_usage":true}';

my $TOOLS = '"tools":[{"type":"function","function":{"name":"f","parameters":'
            . '{"type":"object"}},"name":"f","parameters":{}}]';
my $TOOLS_M = '"tools":[{"name":"f","input_schema":{"type":"object"}}]';

# escapes, surrogates, controls; as the mock is given it: bytes, encoded
my $ODD = join '', map { sprintf '%%%02X', ord }
          split //, "Gr\xc3\xbc\xc3\x9fe \"quoted\" \\ \xe4\xb8\x96\xe7\x95\x8c "
                    . "\xf0\x9f\x8c\x8d\xf0\x9f\x91\xa8\xe2\x80\x8d \xe2\x80\xa8"
                    . "<b>/ data: x event: y [DONE] \x01 end";


# --- text of all sorts, from either form to either form

my %CASES = (
    'a short text' => { events => 3, size => 20 },
    'one event' => { events => 1, size => 10 },
    'many events' => { events => 600, size => 20 },
    'a large text' => { events => 4, size => 60000 },
    'usage with cached tokens' => { events => 3, prompt_tokens => 5000,
                                    cached => 4000 },
    'CRLF, comments and ids' => { events => 3, eol => 'crlf', comments => 1,
                                  ids => 1 },
    'data of many lines' => { events => 3, multiline => 1 },
    'obfuscation' => { events => 3, obfuscation => 1 },
);

for my $kind (@KINDS) {
    for my $what (sort keys %CASES, 'odd characters') {
        my $mock_says = $CASES{$what} // { events => 7 };
        # in the query: header values are not decoded
        my @query = $what eq 'odd characters' ? (query => "mock_text=$ODD")
                                              : ();

        for my $stream (0, 1) {
            my $name = "$kind, $what, from a "
                       . ($stream ? 'stream' : 'plain answer');
            my $usage = $kind =~ /^(?:chat|completions)$/;
            my %ask = (say => Caching::question(), @query);

            my $first = $c->try($kind, %ask, stream => $stream,
                                mock => $mock_says,
                                $stream && $usage ? (more => $USAGE) : ());
            is_cache($first, 'MISS', $name);

            my @forms = ([0], [1], $usage ? [1, more => $USAGE] : ());
            my $text = content_of($first->{r}, $kind, $stream)->{text};
            cmp_ok(length $text, '>', 0, "$name: a text");

            for my $form (@forms) {
                my ($wanted, @more) = @$form;
                my $as = "$name, as a " . ($wanted ? 'stream' : 'plain answer')
                         . (@more ? ' with usage' : '');
                my $x = $c->try($kind, %ask, stream => $wanted, @more);

                is_cache($x, 'HIT', $as);
                is_form($x, $as);
                is_same_content($first, $x, $as);

                next if !$wanted;

                my $n = usage_events($x->{r});
                is($n, 0, "$as: no usage, it was not asked for")
                    if $usage && !@more;
                is($n, 1, "$as: usage once") if $usage && @more;
            }
        }
    }
}


# --- tools, thinking, finish reasons

my %RICH = (
    'a tool call' => { tools => 1, events => 6 },
    'three tool calls' => { tools => 3, events => 5 },
    'a tool call without arguments' => { tools => 1, args => '{}' },
    'thinking' => { thinking => 4, events => 3 },
);

for my $kind (qw(chat messages responses)) {
    for my $what (sort keys %RICH) {
        for my $stream (0, 1) {
            my $name = "$kind, $what, from a "
                       . ($stream ? 'stream' : 'plain answer');
            my $more = $kind eq 'messages' ? $TOOLS_M : $TOOLS;
            my %ask = (say => Caching::question(), more => $more);

            my $first = $c->try($kind, %ask, stream => $stream,
                                mock => $RICH{$what});
            is_cache($first, 'MISS', $name);
            my $content = content_of($first->{r}, $kind, $stream);

            if ($kind ne 'responses' && $what =~ /tool/) {
                is(scalar @{ $content->{calls} }, $RICH{$what}{tools},
                   "$name: calls");
                like($content->{finish}, qr/^tool_/, "$name: finish reason");
            }

            for my $wanted ($stream, !$stream || 0) {
                my $as = "$name, as a "
                         . ($wanted ? 'stream' : 'plain answer');
                my $x = $c->try($kind, %ask, stream => $wanted,
                                mock => $RICH{$what});

                # what the other form can't say is asked for, and kept beside
                if ($wanted != $stream && $what eq 'thinking'
                    && $x->{calls} == 1)
                {
                    is_cache($x, 'MISS', "$as, stored beside");
                    $x = $c->try($kind, %ask, stream => $wanted);
                    is_cache($x, 'HIT', "$as, from beside");
                    is_form($x, $as);
                    next;
                }

                is_cache($x, 'HIT', $as);
                is_form($x, $as);
                is_same_content($first, $x, $as);
            }
        }
    }
}


# --- members nobody knows: the same form is as it was, the other one says
# --- them too, or is asked for

for my $kind (@KINDS, 'embeddings') {
    for my $stream ($kind eq 'embeddings' ? (0) : (0, 1)) {
        my $name = "$kind, unknown members, "
                   . ($stream ? 'stream' : 'plain');
        my %ask = (say => Caching::question());
        my %how = (mock => { unknown => 1, events => 4 });

        my $first = $c->try($kind, %ask, %how, stream => $stream);
        is_cache($first, 'MISS', $name);
        my $said = $first->{r}->body =~ /mock_unknown/;
        ok($said, "$name: there is one") if $kind =~ /^(?:chat|messages)$/;

        my $same = $c->try($kind, %ask, stream => $stream);
        is_cache($same, 'HIT', "$name: the same form");
        is_deeply([events_of($same->{r}->body)],
                  [events_of($first->{r}->body)], "$name: the same events")
            if $stream;
        is($same->{r}->body, $first->{r}->body, "$name: the same bytes")
            if !$stream;

        next if $kind eq 'embeddings';

        my $other = $c->try($kind, %ask, %how, stream => !$stream || 0);

        if ($other->{calls}) {
            is_cache($other, 'MISS', "$name: the other form is asked for");
            is_cache($c->try($kind, %ask, stream => !$stream || 0), 'HIT',
                     "$name: and stored beside");
            is_cache($c->try($kind, %ask, stream => $stream), 'HIT',
                     "$name: the first is there, too");

        } else {
            is_cache($other, 'HIT', "$name: the other form");
            like($other->{r}->body, qr/mock_unknown/,
                 "$name: the other form says it, too") if $said;
        }
    }
}


# --- a plain answer as a stream comes in several events, whatever its size

for my $kind (@KINDS) {
    my %ask = (say => Caching::question());
    $c->try($kind, %ask, mock => { total => 4000 });
    my $x = $c->try($kind, %ask, stream => 1);
    is_cache($x, 'HIT', "$kind: 4,000 bytes as a stream");

    my @deltas = grep { /"(?:content|text|delta)":/ } events_of($x->{r}->body);
    cmp_ok(scalar @deltas, '>=', 5, "$kind: several events");
}


# --- ids

for my $kind (@KINDS) {
    for my $stream (0, 1) {
        my $name = "$kind, " . ($stream ? 'stream' : 'plain');
        my $say = Caching::question();
        my (%seen, @id);

        for my $n (1 .. 3) {
            my $x = $c->try($kind, say => $say, stream => $stream,
                            prefix => '/fresh');
            is_cache($x, $n == 1 ? 'MISS' : 'HIT', "$name: ids=fresh, $n");
            is_form($x, "$name: ids=fresh, $n");
            push @id, content_of($x->{r}, $kind, $stream)->{id};

            if ($stream) {
                my %ids = map { $_ => 1 } grep { defined }
                          map { $_->{id} // $_->{response}{id}
                                // $_->{message}{id} }
                          grep { ref } parts_of($x->{r});
                is(scalar keys %ids, 1, "$name: one id in all of it, $n");
            }
        }

        isnt($id[0], $id[1], "$name: ids=fresh: a hit has its own");
        isnt($id[1], $id[2], "$name: ids=fresh: each one");
        (my $form = $id[0]) =~ s/[-_].*//;
        like($id[1], qr/^\Q$form\E[-_]\w+$/, "$name: ids=fresh: its form");
        is(length $id[1], length $id[0], "$name: ids=fresh: its length");

        my @kept = map { content_of($c->try($kind, say => $say,
                             stream => $stream, prefix => '/kept')->{r},
                             $kind, $stream)->{id} } 1, 2;
        is($kept[0], $kept[1], "$name: ids=kept");
    }
}

# the ids of tool calls, too, and they fit each other

{
    my %ask = (say => Caching::question(), more => $TOOLS,
               prefix => '/fresh');
    my %how = (mock => { tools => 2 });
    my $first = content_of($c->try('chat', %ask, %how)->{r}, 'chat');
    my $again = content_of($c->try('chat', %ask, %how)->{r}, 'chat');
    my @ids = map { [map { $_->[0] } @{ $_->{calls} }] } $first, $again;

    is(scalar @{ $ids[1] }, 2, 'tool calls: two');
    isnt($ids[1][$_], $ids[0][$_], "tool call $_: an id of its own")
        for 0, 1;
    isnt($ids[1][0], $ids[1][1], 'tool calls: two ids');
    is($again->{calls}[$_][3], $first->{calls}[$_][3],
       "tool call $_: the arguments") for 0, 1;
}


# --- pings are not stored

{
    my %ask = (say => Caching::question(), stream => 1, prefix => '/ping');
    my $x = $c->try('messages', %ask, mock => { events => 3, gap => '150ms' });
    my $before = () = $x->{r}->body =~ /^event: ping/mg;
    cmp_ok($before, '>', 1, 'pings while the provider was silent');

    my $y = $c->try('messages', %ask);
    is_cache($y, 'HIT', 'pings');
    is_form($y, 'pings');
    my $after = () = $y->{r}->body =~ /^event: ping/mg;
    cmp_ok($after, '<=', 1, 'none but the provider\'s own is played again');
    cmp_ok($y->{r}->chunks->[-1][0] - $y->{r}->started, '<', 0.3,
           'it is played at once');
}


# --- HTTP/1.0 and HTTP/2

for my $kind (@KINDS) {
    my %ask = (say => Caching::question());
    my $first = $c->try($kind, %ask, mock => { total => 30000 });

    for my $stream (0, 1) {
        for my $way ('1.0', 'h2') {
            my $x = $c->try($kind, %ask, stream => $stream,
                            $way eq 'h2' ? (h2 => 1) : (version => '1.0'));
            my $name = "$kind, $way, " . ($stream ? 'stream' : 'plain');
            is_cache($x, 'HIT', $name);
            is_form($x, $name);
            is_same_content($first, $x, $name);
        }
    }
}

no_alerts($t);
done_testing();
