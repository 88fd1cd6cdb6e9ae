#!/usr/bin/perl

# A stream that breaks after the client has seen some of it, with "resume=on":
# another attempt goes on with it, and the client sees one whole answer, or it
# is told of the break, and nothing looks whole.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;

use Encode qw(encode_utf8);
use Test::More;

use LLM::E2E;
use Gateway;
use Targets;

skip_without_module();
skip_under_valgrind('measures time');

my $slow = $ENV{LLM_SLOW} // 1;
my $ms = 300 * $slow;

my %price = (a => [100, 1000], b => [2, 20], c => [3, 30]);

my %members = map { $_ => <<"EOT" } qw(a b c);
breaker off; timeout first_token=${ms}ms idle=${ms}ms;
        model m-$_ input=$price{$_}[0] output=$price{$_}[1];
EOT

my $retry = 'backoff=10ms..50ms budget=1000%';

# new: never asked to continue before; k: with a breaker

my $http = '';

for my $n (0 .. 9) {
    $http .= Targets::provider("new$n", 'B', $members{b})
             . "    llm_adapter_model new$n a:m-a new$n:m-b xa:m-a "
             . "xnew$n:m-b;\n";
}

for my $n (0 .. 3) {
    $http .= Targets::provider("k$n", 'A',
                               'breaker failures=2 window=60s open=60s; '
                               . "timeout idle=${ms}ms;")
             . "    llm_adapter_model k$n k$n:m-a xk$n:m-a b:m-b xb:m-b;\n";
}

my $g = Targets->new(
    names => [qw(a b c)], workers => 1, connections => 2048,
    retry => "attempts=3 $retry resume=on",
    members => \%members,
    vars => { REFUSING => free_port() },
    location => 'llm_adapter_ping off;',
    locations => {
        '/off/v1/' => "llm_adapter_retry attempts=3 $retry resume=off;",
        '/default/v1/' => "llm_adapter_retry attempts=3 $retry;",
        '/once/v1/' => "llm_adapter_retry attempts=1 $retry resume=on;",
        '/two/v1/' => "llm_adapter_retry attempts=2 $retry resume=on;",
        '/later/v1/' => 'llm_adapter_retry attempts=3 backoff=2s..4s '
                        . 'budget=1000% resume=on;',
        '/ping/v1/' => 'llm_adapter_ping 50ms; llm_adapter_timeout '
                       . 'first_token=10s idle=10s;',
        '/patient/v1/' => 'llm_adapter_timeout first_token=60s idle=60s;',
    },
    http => $http . Targets::provider('gone', 'REFUSING')
            . Targets::provider('silent', 'B', $members{b}
                                               . ' stream_usage off;')
            . <<'EOT');
    llm_adapter_model hole a:m-a gone c:m-c xa:m-a xgone xc:m-c;
    llm_adapter_model quiet silent silent:m-2;
EOT

my @KINDS = qw(chat completions messages);
my @ALL = (@KINDS, 'responses');

# what may go wrong at a joint: characters of two to four bytes, whitespace of
# several kinds, what JSON escapes, what looks like an event

my $TEXT = encode_utf8(
    qq(H\x{f6}r \\"q\\\\n\\" \n\n\tdata: [DONE]\r\n\n)
    . qq(\x{4e16}\x{754c}\x{1f30d}\x{1f468}\x{200d}\x{1f469} )
    . qq(\x{3000}\x{a0}<b>/\x{2028}\x{b}\x{1}x\x{7f}\x{e9}  .));

my $PLAIN = 'Hello world, this is it. And so it goes on, and on, to an end.';


# --- what a stream says ---

sub parts_of {
    my ($r) = @_;
    return map { $_->{data} eq '[DONE]' ? '[DONE]' : json_decode($_->{data}) }
           grep { defined $_->{data} } sse_events($r->body);
}


sub text_of {
    my ($r, $kind) = @_;

    my $text = join '', map { $_ // '' }
        map {
            $kind eq 'messages' ? ref $_->{delta} ? $_->{delta}{text} : undef
            : $kind eq 'completions' ? $_->{choices}[0]{text}
            : $kind eq 'chat' ? $_->{choices}[0]{delta}{content}
            : $_->{type} eq 'response.output_text.delta' ? $_->{delta}
            : undef
        } grep { ref } parts_of($r);

    return encode_utf8($text);
}


# The order of events, a letter each: s(tart), r(ole), o(pen), p(ing), t(ext),
# c(lose), f(inish), u(sage), e(nd), E(rror), ? for what is none of these.

sub order_of {
    my ($r, $kind) = @_;
    return join '', map { letter($_, $kind) } parts_of($r);
}

sub letter {
    my ($p, $kind) = @_;

    return '?' if !defined $p;
    return 'e' if !ref $p;
    return 'E' if $p->{error};

    if ($kind eq 'messages') {
        return { message_start => 's', content_block_start => 'o',
                 ping => 'p', content_block_delta => 't',
                 content_block_stop => 'c', message_delta => 'f',
                 message_stop => 'e' }->{ $p->{type} // '' } // '?';
    }

    my $choice = $p->{choices}[0] or return 'u';

    return 'f' if defined $choice->{finish_reason};
    return 't' if $kind eq 'completions';
    return 'r' if exists $choice->{delta}{role};
    return exists $choice->{delta}{content} ? 't' : '?';
}

my %ORDER = (
    chat => qr/^rt*fu?e$/,
    completions => qr/^t*fu?e$/,
    messages => qr/^sop*t[pt]*cp*fp*e$/,
);


sub sse_faults {
    my ($r, $kind) = @_;
    my @wrong;

    for my $ev (sse_events($r->body)) {
        push @wrong, "not ended: $ev->{raw}" if !$ev->{complete};
        next if !defined $ev->{data};

        my $json = json_decode($ev->{data});
        push @wrong, "not JSON: $ev->{data}"
            if !$json && $ev->{data} ne '[DONE]';
        push @wrong, "event $ev->{event}, type $json->{type}"
            if $kind eq 'messages' && $json
               && ($ev->{event} // '') ne $json->{type};
    }

    return @wrong;
}


# The client has seen one whole answer: this text, in a valid stream.  want:
# members of the log, and calls; provider is that of the OpenAI dialect.

sub is_resumed {
    my ($x, $text, $want, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($r, $kind, $log) = @$x{qw(r kind log)};
    my @wrong = sse_faults($r, $kind);
    my $got = text_of($r, $kind);
    my $order = order_of($r, $kind);

    is_whole($r, $kind, "$name: whole");

    push @wrong, sprintf 'text of %d, not %d bytes: "%s"', length $got,
                 length $text, substr $got, 0, 200
        if $got ne $text;
    push @wrong, "order $order" if $order !~ $ORDER{$kind};

    my %want = (status => 200, error => '', attempts => 2, %$want);
    my $calls = delete $want{calls};
    $want{provider} = ($kind eq 'messages' ? 'x' : '') . $want{provider}
        if $want{provider};

    for (sort keys %want) {
        push @wrong, "$_ " . ($log->{$_} // 'none') . ", not $want{$_}"
            if ($log->{$_} // 'none') ne $want{$_};
    }

    push @wrong, 'calls ' . $g->calls . ", not $calls"
        if $calls && $g->calls ne $calls;

    is(join('; ', @wrong), '', $name) or diag(substr $r->body, 0, 2000);
}


# It broke, and that is told; in the log, too.

sub is_broken {
    my ($x, $text, $want, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($r, $kind, $log) = @$x{qw(r kind log)};
    my %want = (error => 'truncated', attempts => 1, %$want);
    my $calls = delete $want{calls};

    my $e = is_in_band($r, $kind, $name);
    is_deeply({ map { $_ => $log->{$_} } keys %want }, \%want,
              "$name: " . join ', ', map { "$_ $want{$_}" } sort keys %want);
    is($g->calls, $calls, "$name: calls $calls") if $calls;
    is(text_of($r, $kind), $text, "$name: the text so far") if defined $text;
    is(join('; ', sse_faults($r, $kind)), '', "$name: valid events");
    unlike(order_of($r, $kind), qr/s.*s|r.*r|f|e/,
           "$name: one beginning, no end") if $kind ne 'responses';

    return $e;
}


# The second provider was asked to continue this, or as the first one was.

sub is_asked {
    my ($kind, $shown, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $body = json_decode($g->{b}->last_body);
    my $first = json_decode($g->{a}->last_body);
    delete $_->{model} for $body, $first;

    push @{ $first->{messages} }, { role => 'assistant', content => $shown }
        if $kind eq 'messages';
    is_deeply($body, $first, "$name: what the second was asked");
}


# --- each place where it may break

for my $kind (@KINDS) {
    my ($shown, @bad) = (0);

    for my $at (1 .. length($TEXT) - 1) {
        $g->set(a => { text => $TEXT, size => 1, at => $at, fault => 'cut' },
                b => { text => $TEXT, size => 1 + $at % 7, prefill => 'on' });

        my $r = ask(h1($g->port), $kind, model => 'three', stream => 1);
        my $order = order_of($r, $kind);

        push @bad, "$at: $order: " . text_of($r, $kind)
            if text_of($r, $kind) ne $TEXT || $order !~ $ORDER{$kind}
               || sse_faults($r, $kind);
        $shown++ if $g->calls eq '1 1 0';
    }

    is(join("\n", @bad), '', "$kind: broken at each character");
    cmp_ok($shown, '>', 30, "$kind: and resumed by the next");
}


# --- how it may break, and how it may go on

my %BREAK = (
    cut => 'truncated', reset_mid => 'truncated', stall => 'timeout_idle',
    error_event => 'upstream_error', clean_cut => 'truncated',
);

my $new = 0;

for my $fault (sort keys %BREAK) {
    for my $kind (@KINDS) {
        for my $h2 ($kind eq 'completions' ? 0 : (0, 1)) {
            my $name = "$kind, $fault" . ($h2 ? ', h2' : '');
            my %ask = (model => 'three', stream => 1, h2 => $h2);
            my %break = (text => $PLAIN, size => 3, at => 4, fault => $fault);

            $g->set(a => \%break,
                    b => { text => $PLAIN, size => 5, prefill => 'on' });
            my $x = $g->try($kind, %ask);
            is_resumed($x, $PLAIN, { provider => 'b', model => 'm-b',
                                     calls => '1 1 0' }, "$name: resumed");
            is_asked($kind, 'Hello world,', $name);

            next if $h2;

            # by another text it can not be

            $g->set(a => \%break,
                    b => { text => 'Hello you, this is it', size => 5,
                           prefill => 400 });
            $x = $g->try($kind, %ask, prefix => '/two', model =>
                         $kind eq 'messages' ? 'new' . $new++ : 'two');
            is_broken($x, 'Hello world,',
                      { error => $BREAK{$fault},
                        attempts => $kind eq 'messages' ? 3 : 2 },
                      "$name, another answer");
        }
    }
}


# messages: what the first has shown of whitespace is not asked for, and must
# not come twice or be lost; some models say it again, and some do not

for my $case (['Hello.', "\n\n ", 'Then.'], ['a', "\t\r\n", 'b'],
              ['a', encode_utf8("\x{3000}"), 'b'])
{
    my ($before, $blank, $after) = @$case;
    my $whole = $before . $blank . $after;
    my $name = 'messages, whitespace: '
               . join ' ', map { sprintf '%02x', ord } split //, $whole;
    my %break = (text => $whole, size => length "$before$blank", at => 1,
                 fault => 'cut');

    $g->set(a => \%break, b => { text => $whole, size => 2, prefill => 'on' });
    is_resumed($g->try('messages', model => 'three', stream => 1), $whole,
               { provider => 'b', calls => '1 1 0' }, $name);

    $g->set(a => \%break,
            b => { text => "$before$after", prefill => 'on', size => 3 });
    is_resumed($g->try('messages', model => 'three', stream => 1), $whole,
               { provider => 'b' }, "$name, not said again");
}

# nothing but whitespace was shown: there is nothing to continue

$g->set(a => { text => "\n\n$PLAIN", size => 1, at => 2, fault => 'cut' },
        b => { text => "\n\n$PLAIN", size => 7, prefill => 'on' });
is_resumed($g->try('messages', model => 'three', stream => 1), "\n\n$PLAIN",
           { provider => 'b' }, 'messages, only whitespace was shown');
is(json_decode($g->{b}->last_body)->{messages}[-1]{role}, 'user',
   'messages, only whitespace was shown: asked anew');

# the client's own words before it, the same or not

for my $words ('Well,', 'Hello w') {
    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
            b => { text => $PLAIN, size => 5, prefill => 'on' });
    my $body = '{"model":"three","stream":true,"max_tokens":100000,"messages":'
               . '[{"role":"user","content":"x"},'
               . qq({"role":"assistant","content":"$words"}]});
    my $x = $g->try('messages', model => 'three', stream => 1, body => $body);
    is_resumed($x, $PLAIN, { provider => 'b' }, "messages, behind '$words'");
    is(json_decode($g->{b}->last_body)->{messages}[-1]{content},
       'Hello world,', "messages, behind '$words': asked");
}

# all was said but the end: a model that continues has nothing to add, and
# says so with no content at all

for my $kind (@KINDS) {
    my $shown = 'Hello world,';
    my %break = (text => $PLAIN, size => 3, at => 4, fault => 'cut');
    my $name = "$kind, nothing to add";

    $g->set(a => \%break, b => { text => $shown, size => 5, prefill => 'on' });
    my $x = $g->try($kind, model => 'three', stream => 1);

    in_band_error($x->{r}, $kind) && $kind eq 'messages'
        ? is_broken($x, $shown, { attempts => 2 }, $name)
        : is_resumed($x, $shown, { provider => 'b' }, $name);

    # less than was shown is another answer

    next if $kind eq 'messages';
    $g->set(a => \%break, b => { text => substr($shown, 0, 11), size => 5 });
    is_broken($g->try($kind, model => 'three', stream => 1), $shown,
              { attempts => 2, calls => '1 1 0' }, "$kind, a shorter answer");
}

# how the second one writes its events

my %LOOKS = (
    'many lines' => { multiline => 1 },
    'CRLF, comments, ids' => { eol => 'crlf', comments => 1, ids => 1 },
    'CR, a mark' => { eol => 'cr', bom => 1 },
    'cut anywhere' => { split => 7 },
    'random members' => { obfuscation => 1, usage => 'last' },
    'Azure, whole in one' => { azure => 1, size => 1000 },
    'an unknown member' => { unknown => 1, size => 40 },
    'pings' => { gap => 20, heartbeat => 5, size => 9 },
);

for my $look (sort keys %LOOKS) {
    for my $kind (@KINDS) {
        $g->set(a => { text => $TEXT, size => 4, at => 5, fault => 'cut' },
                b => { text => $TEXT, size => 5, prefill => 'on',
                       %{ $LOOKS{$look} } });
        my $x = $g->try($kind, model => 'three', stream => 1);

        if ($look eq 'an unknown member' && $kind eq 'messages') {
            like(order_of($x->{r}, $kind), qr/^sop?[tp]+\?t*cfe$/,
                 "$kind, $look: an unknown event behind the joint");
            is(text_of($x->{r}, $kind), $TEXT, "$kind, $look: the text");
            next;
        }

        is_resumed($x, $TEXT, { provider => 'b', calls => '1 1 0' },
                   "$kind, $look");
    }
}


# --- who goes on

for my $kind (@KINDS) {
    my @ask = ($kind, stream => 1, model => 'three');

    # the same target, if there is no other

    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut',
                   fails => 1, prefill => 'on' });
    is_resumed($g->try(@ask, model => 'one'), $PLAIN,
               { provider => 'a', calls => '2 0 0' }, "$kind, the same");

    # the second goes further, the third to the end

    $g->set(a => { text => $TEXT, size => 3, at => 4, fault => 'reset_mid' },
            b => { text => $TEXT, size => 4, at => 6, fault => 'error_event',
                   prefill => 'on' },
            c => { text => $TEXT, size => 5, prefill => 'on' });
    is_resumed($g->try(@ask), $TEXT, { provider => 'c', attempts => 3,
                                       calls => '1 1 1' },
               "$kind, breaks twice");

    # or not even as far

    $g->set(a => { text => $PLAIN, size => 3, at => 8, fault => 'cut' },
            b => { text => $PLAIN, size => 3, at => 1, fault => 'stall',
                   prefill => 'on' },
            c => { text => $PLAIN, size => 5, prefill => 'on' });
    is_resumed($g->try(@ask), $PLAIN, { provider => 'c', attempts => 3 },
               "$kind, breaks soon");

    # all of them break

    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
            b => { text => $PLAIN, size => 4, at => 4, fault => 'stall',
                   prefill => 'on' },
            c => { text => $PLAIN, size => 5, at => 2, fault => 'error_event',
                   prefill => 'on' });
    is_broken($g->try(@ask),
              substr($PLAIN, 0, $kind eq 'messages' ? 12 + 16 + 10 : 16),
              { attempts => 3, calls => '1 1 1' }, "$kind, all break");

    # only one attempt may be made: as without resume

    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'error_event',
                   message => 'the reactor is down' });
    my $e = is_broken($g->try(@ask, prefix => '/once'), 'Hello world,',
                      { error => 'upstream_error', calls => '1 0 0' },
                      "$kind, attempts=1");
    is($e->{message}, 'the reactor is down',
       "$kind, attempts=1: the provider's words");
}

# the second can not answer at all, the third does

my %WORSE = (
    'a 500' => { status => 500 }, 'a 503' => { status => 503, limits => 'off' },
    'a 429' => { status => 429, limits => 'off' },
    'a 401' => { status => 401 },
    'a 404' => { status => 404, code => 'model_not_found' },
    'plain JSON' => { fault => 'not_sse' }, 'a reset' => { fault => 'reset' },
    'no HTTP' => { fault => 'bad_head' }, 'silence' => { fault => 'hang' },
    'a cut preamble' => { fault => 'cut', at => 0, prefill => 'on' },
    'an error first' => { fault => 'error_first', prefill => 'on' },
    'gzip' => { fault => 'gzip' }, 'HTML' => { body => '<html>' },
    'refused' => undef,
);

for my $worse (sort keys %WORSE) {
    for my $kind (@KINDS) {
        my $how = $WORSE{$worse};

        $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
                ($how ? (b => $how) : ()),
                c => { text => $PLAIN, size => 5, prefill => 'on' });
        is_resumed($g->try($kind, model => $how ? 'three' : 'hole',
                           stream => 1), $PLAIN,
                   { provider => 'c', attempts => 3,
                     calls => $how ? '1 1 1' : '1 0 1' },
                   "$kind, the second: $worse");
    }
}

# a 400 is final, and never what the client is shown

for my $kind (@KINDS) {
    my %no = (status => 400, message => 'no such thing');
    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
            b => \%no, c => \%no);
    my $e = is_broken($g->try($kind, stream => 1, prefix => '/two', model =>
                              $kind eq 'messages' ? 'new5' : 'two'),
                      'Hello world,',
                      { attempts => $kind eq 'messages' ? 3 : 2 },
                      "$kind, a 400");
    unlike($e->{message}, qr/such thing/, "$kind, a 400: not its words");
}


# --- messages: models that do not continue

my %two = (stream => 1, prefix => '/two');

for my $n (6, 7) {
    my %refuses = $n == 6 ? (prefill => 400) : (status => 422, fails => 1);
    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
            b => { text => $PLAIN, size => 5, %refuses });
    is_resumed($g->try('messages', model => "new$n", %two), $PLAIN,
               { provider => "new$n", attempts => 3, calls => '1 2 0' },
               "messages, xnew$n does not continue");
    is(json_decode($g->{b}->last_body)->{messages}[-1]{role}, 'user',
       "messages, xnew$n: asked anew");

    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
            b => { text => $PLAIN, size => 5, prefill => 400 });
    is_resumed($g->try('messages', model => "new$n", %two), $PLAIN,
               $n == 6 ? { provider => "new$n", attempts => 2,
                           calls => '1 1 0' }
                       : { provider => "new$n", attempts => 3,
                           calls => '1 2 0' },
               "messages, xnew$n: that is kept in mind if it said so");
}

# thinking was asked for: an answer must begin with it, so it is asked anew

$g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
        b => { text => $PLAIN, size => 5, prefill => 'on' });
is_resumed($g->try('messages', model => 'three', stream => 1, more =>
                   '"thinking":{"type":"enabled","budget_tokens":1024}'),
           $PLAIN, { provider => 'b', calls => '1 1 0' },
           'messages, thinking asked for, none shown');
is(json_decode($g->{b}->last_body)->{messages}[-1]{role}, 'user',
   'messages, thinking asked for: asked anew');


# --- what can not be resumed: told at once

my $tools = '"tools":[{"type":"function","name":"look","function":{"name":'
            . '"look","parameters":{}},"input_schema":{"type":"object"}}]';

my @NOT = (
    ['a tool call', 'chat messages', { tools => 1, events => 6 }, 3, $tools],
    ['after a tool call', 'chat', { tools => 2, events => 3 }, 4, $tools],
    ['thinking', 'messages', { thinking => 6 }, 3],
    ['after thinking', 'messages', { thinking => 3 }, 6],
    ['responses', 'responses', { text => $PLAIN, size => 3 }, 4],
    ['after the last text', 'messages', { text => 'abcdef', size => 2 }, 3],
);

for my $case (@NOT) {
    my ($what, $kinds, $how, $at, $more) = @$case;

    for my $kind (split / /, $kinds) {
        for my $fault (qw(cut stall error_event)) {
            $g->set(a => { %$how, at => $at, fault => $fault }, b => $how);
            is_broken($g->try($kind, model => 'three', stream => 1,
                              ($more ? (more => $more) : ())), undef,
                      { error => $BREAK{$fault}, calls => '1 0 0' },
                      "$kind, $what, $fault");
        }
    }
}

for my $prefix ('/off', '/default') {
    for my $kind (@ALL) {
        $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' });
        is_broken($g->try($kind, model => 'three', stream => 1,
                          prefix => $prefix), 'Hello world,',
                  { calls => '1 0 0' }, "$kind, $prefix");
    }
}

# before anything is shown all is as ever, and what is whole is left alone

for my $kind (@ALL) {
    $g->set(a => { fault => 'cut', at => 0 }, b => { text => $PLAIN });
    my $x = $g->try($kind, model => 'three', stream => 1);
    is_outcome($x, { provider => ($kind eq 'messages' ? 'x' : '') . 'b',
                     attempts => 2, calls => '1 1 0' }, "$kind, at first");
    is_same_events($x->{r}, $g->{b}, name => "$kind, at first", hidden => 1);

    $g->set(a => { text => $TEXT, size => 1 });
    $x = $g->try($kind, model => 'three', stream => 1);
    is_outcome($x, { attempts => 1, calls => '1 0 0' }, "$kind, unbroken");
    is_same_events($x->{r}, $g->{a}, name => "$kind, unbroken", hidden => 1);
}

# a text of 256 KB is kept, and no more

for my $kind (@KINDS) {
    my %long = (events => 400, size => 1000);

    $g->set(a => { %long, at => 200, fault => 'cut' },
            b => { events => 800, size => 500, prefill => 'on' });
    my $x = $g->try($kind, model => 'three', stream => 1);
    $g->set(a => \%long);
    my $whole = $g->try($kind, model => 'one', stream => 1);
    is_resumed($x, text_of($whole->{r}, $kind), { provider => 'b' },
               "$kind, after 200 KB");

    $g->set(a => { %long, at => 300, fault => 'cut' },
            b => { %long, prefill => 'on' });
    is_broken($g->try($kind, model => 'three', stream => 1), undef,
              { calls => '1 0 0' }, "$kind, after 300 KB");
}


# --- what it has cost: all attempts, as far as they told it

sub is_paid {
    my ($x, $want, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my %got = map { $_ => $x->{log}{$_} } keys %$want;
    $_ = sprintf '%.6f', $_ || 0 for grep { defined } $got{cost};
    is_deeply(\%got, $want, $name) or diag(explain(\%got));
}

sub usd { return sprintf '%.6f', $_[0] / 1e6 }

# Anthropic tells what it has read at the beginning, OpenAI all at the end.
# The second one has 13 events of 5 bytes, or 10 for the rest

my %a = (text => $PLAIN, size => 3, at => 4, fault => 'cut',
         prompt_tokens => 100, prefill => 'on');
my %b = (text => $PLAIN, size => 5, prompt_tokens => 70, prefill => 'on');

$g->set(a => \%a, b => \%b);
my $x = $g->try('messages', model => 'three', stream => 1);
is_paid($x, { prompt_tokens => 170, completion_tokens => 11,
              usage_source => 'provider', finish_reason => 'end_turn',
              cost => usd(100 * 100 + 1000 + 70 * 2 + 10 * 20) },
        'messages: usage and cost');

$g->set(a => \%a, b => \%b);
$x = $g->try('chat', model => 'three', stream => 1);
is_paid($x, { prompt_tokens => 70, completion_tokens => 13,
              usage_source => 'provider', finish_reason => 'stop',
              cost => usd(70 * 2 + 13 * 20) }, 'chat: usage and cost');
unlike($x->{r}->body, qr/"prompt_tokens"/, 'chat: usage is not shown');

$g->set(a => \%a, b => \%b);
$x = $g->try('chat', model => 'three', stream => 1,
             more => '"stream_options":{"include_usage":true}');
is_resumed($x, $PLAIN, { prompt_tokens => 70 }, 'chat, usage asked for');
is(scalar(() = $x->{r}->body =~ /"prompt_tokens"/g), 1,
   'chat, usage asked for: shown once');

$g->set(a => { %a, fault => 'stall' }, b => { %b, fault => 'cut', at => 1 },
        c => { %b, prompt_tokens => 7 });
$x = $g->try('messages', model => 'three', stream => 1);
is_resumed($x, $PLAIN, { provider => 'c', attempts => 3 },
           'messages: three attempts');
is_paid($x, { prompt_tokens => 177, completion_tokens => 1 + 1 + 9,
              cost => usd(100 * 100 + 1000 + 70 * 2 + 20 + 7 * 3 + 9 * 30) },
        'messages: usage and cost of three attempts');

# of attempts in vain, too

$g->set(a => \%a, b => { %b, fault => 'cut', at => 1 },
        c => { %b, fault => 'cut', at => 1 });
$x = $g->try('messages', model => 'three', stream => 1);
is_paid($x, { error => 'truncated', prompt_tokens => 240,
              completion_tokens => 3,
              cost => usd(100 * 100 + 1000 + 70 * 2 + 20 + 70 * 3 + 30) },
        'messages: usage and cost when all break');

# nothing is known where it may not be asked for

for my $kind (qw(chat completions)) {
    $g->set(b => { %a, fails => 1 });
    $x = $g->try($kind, model => 'quiet', stream => 1);
    is_resumed($x, $PLAIN, { provider => 'silent', prompt_tokens => '',
                             completion_tokens => '', cost => '' },
               "$kind, stream_usage off");
    unlike($g->{b}->last_body, qr/stream_options/,
           "$kind, stream_usage off: not asked for");
}


# --- meanwhile: pings, a client that goes

for my $kind (@KINDS) {
    $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' },
            b => { text => $PLAIN, size => 5, first => 300, prefill => 'on' });
    $x = $g->try($kind, model => 'three', stream => 1, prefix => '/ping');
    is_resumed($x, $PLAIN, { provider => 'b' }, "$kind, pings meanwhile");
    cmp_ok(scalar(() = $x->{r}->body =~ /^(?:: ?ping|event: ping)/mg), '>=',
           3, "$kind, pings meanwhile: there were some");
}

my %LEAVE = (
    'before more is shown' => { first => '20s' },
    'while it is compared' => { size => 2, gap => '10s' },
    'after the joint' => { size => 20, gap => 100 * $slow },
);

for my $when (sort keys %LEAVE) {
    for my $kind (qw(chat messages)) {
        for my $h2 (0, 1) {
            my $name = "$kind, a client that goes $when"
                       . ($h2 ? ', h2' : '');
            my $test = "gone $kind $when $h2";

            $g->set(a => { text => $PLAIN, size => 12, at => 1,
                           fault => 'cut' },
                    b => { text => $PLAIN, prefill => 'on',
                           %{ $LEAVE{$when} } });

            my $client = $h2 ? h2($g->port('h2')) : h1($g->port);
            my $stream = start_ask($client, $kind, model => 'three',
                                   stream => 1, test => $test,
                                   prefix => '/patient');
            my $r = head_of($client, $stream);
            $g->{b}->wait_stat('requests', 1);
            nap(0.12 * $slow);

            my $at = now();
            $client->close;
            is($g->{b}->wait_stat('aborted', 1)->{aborted}, 1,
               "$name: the second provider is left");
            cmp_ok(now() - $at, '<', 1 * $slow, "$name: at once");
            is_deeply([@{ log_of($g->{t}, $test) }{qw(status error attempts)}],
                      [499, 'client_closed', 2], "$name: the log");
        }
    }
}

# in the back-off: nobody is called any more

$g->set(a => { text => $PLAIN, size => 3, at => 4, fault => 'cut' });
my $client = h1($g->port);
start_ask($client, 'chat', model => 'one', stream => 1, test => 'in back-off',
          prefix => '/later');
head_of($client);
nap(0.2 * $slow);
$client->close;
is_deeply([@{ log_of($g->{t}, 'in back-off') }{qw(status attempts)}],
          [499, 1], 'a client that goes in the back-off: the log');
nap(1.2);
is($g->calls, '1 0 0', 'a client that goes in the back-off: no call');


# --- many at once

for my $kind (@KINDS) {
    my $n = 100;

    $g->set(a => { text => $TEXT, size => 3, at => 5, fault => 'cut',
                   gap => 3 },
            b => { text => $TEXT, size => 4, gap => 3, prefill => 'on' });

    my @clients = map { h1($g->port, timeout => 20) } 1 .. $n;
    start_ask($_, $kind, model => 'three', stream => 1) for @clients;
    my @answers = map { $_->read_response } @clients;
    my @good = grep { $_->complete && text_of($_, $kind) eq $TEXT
                      && order_of($_, $kind) =~ $ORDER{$kind} } @answers;

    is(scalar(@good), $n, "$kind: $n at once");
    is($g->calls, "$n $n 0", "$kind: $n at once: calls");
    $_->close for @clients;
}


# --- the breaker: a break is one failure, resumed or not

for my $case (['chat', 'cut', 0], ['messages', 'cut', 1],
              ['chat', 'stall', 2], ['messages', 'error_event', 3])
{
    my ($kind, $fault, $n) = @$case;
    my $k = ($kind eq 'messages' ? 'x' : '') . "k$n";

    for my $time (1, 2) {
        $g->set(a => { text => $PLAIN, size => 3, at => 4, fault => $fault },
                b => { text => $PLAIN, size => 5, prefill => 'on' });
        my $x = $g->try($kind, model => "k$n", stream => 1, prefix => '/two');
        is_resumed($x, $PLAIN, { provider => 'b', calls => '1 1 0' },
                   "breaker, $kind, $fault, $time");
        my $state = $time == 1 ? 'closed' : 'open';
        like($x->{log}{breaker}, qr/\b$k=$state\b/,
             "breaker, $kind, $fault, $time: $state");
    }
}

no_alerts($g->{t});
done_testing();
