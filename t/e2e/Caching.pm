package Caching;

# For the tests of the cache: a gateway with one, requests that count what the
# provider was asked, and the content of answers, whatever their form.
#
#   my $c = Caching->new(cache => 'on ttl=1h', workers => 2);
#   my $x = $c->try('chat', say => 'a question', stream => 1);
#   is_cache($x, 'MISS', 'the first');
#   is_cache($c->try('chat', say => 'a question'), 'HIT', 'plain, too');
#   $c->pair('chat', {...}, {...}, 'MISS', 'name');
#
# A question is answered with a text of its own unless mock => says more: a
# mixed up entry is seen.

use strict;
use warnings;

use Encode qw(encode_utf8);
use Exporter 'import';
use Test::More ();

use LLM::E2E;
use Gateway;

our @EXPORT = qw(
    is_cache is_form is_same_content content_of parts_of sse_faults
    usage_events questions
);

my $asked = 0;


# --- servers ---

# cache: arguments of llm_adapter_cache in the server; path: of
# llm_adapter_cache_path; status: members of `location = /llm`; retry: as
# Targets has it; others as those of gateway().

sub new {
    my ($class, %o) = @_;

    my $self = bless { n => 0 }, $class;
    my ($t, $mock) = gateway($self->conf_options(%o));

    @$self{qw(t mock mocks)} = ($t, $mock, [$mock, @{ $o{mocks} // [] }]);
    return $self;
}


# What gateway() and gateway_conf() take.

sub conf_options {
    my ($self, %o) = @_;

    my $cache = $o{cache} // 'on';
    my $path = $o{path} // '%%DIR%%/cache size=16m';
    my $status = $o{status} // 'llm_adapter_status purge=on;';

    $o{http} = "llm_adapter_cache_path $path;\n    " . ($o{http} // '')
        if $path ne '';
    $o{server} = ($o{server} // '') . " location = /llm { $status }"
        if $status ne '';
    $o{server} .= " llm_adapter_cache $cache;" if $cache ne '';
    $o{fields} = [qw(cache cache_reason cost_saved), @{ $o{fields} // [] }];
    $o{provider} //= 'model gpt-4o input=1000 output=2000; '
                     . 'model claude-sonnet-4 input=1000 output=2000;';

    return %o;
}


sub port { return $_[0]{t}->port($_[1]) }


# How often the providers were asked.

sub calls {
    my ($self) = @_;
    my $n = 0;
    $n += $_->stats->{requests} for @{ $self->{mocks} };
    return $n;
}


# --- requests ---

# A text that was not asked before, in this or another process.

sub question { return "question $$ " . ++$asked . ', what is it?' }

sub questions { return map { question() } 1 .. $_[0] }


# One request, on a connection of its own unless client => is given.  key: the
# client's credential, undef for none; control: Cache-Control; others as those
# of request_of().  Returns { r, kind, stream, calls, test, c }.

sub try {
    my ($self, $kind, %o) = @_;

    my $test = $o{test} // sprintf 'cache %d.', ++$self->{n};
    my $client = $o{client}
                 // ($o{h2} ? h2($self->port('h2'), timeout => 20)
                            : h1($self->port, timeout => 20));

    my $before = $self->calls;
    my $r = ask($client, $kind, $self->options($kind, %o), test => $test);
    my $calls = $self->calls - $before;

    $client->close if !$o{client};

    return { r => $r, kind => $kind, stream => $o{stream}, calls => $calls,
             test => $test, c => $self };
}


# The options of request_of() for those of try().

sub options {
    my ($self, $kind, %o) = @_;

    my @headers = @{ delete $o{headers} // [] };
    my $key = exists $o{key} ? $o{key} : 'sk-tenant-a';

    push @headers, $kind =~ /^(?:messages|count)$/
        ? ('x-api-key' => $key) : (authorization => "Bearer $key")
        if defined $key;
    push @headers, 'cache-control' => $o{control} if defined $o{control};

    delete @o{qw(key control h2 client)};
    return (%o, headers => \@headers);
}


sub logged { return log_of($_[1]{c}{t}, $_[1]{test}) }


# Is the second of two requests answered from the cache?  state: of the
# second; the first is a MISS.

sub pair {
    my ($self, $kind, $first, $second, $state, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $x = $self->try($kind, %$first);
    is_cache($x, 'MISS', "$name: the first");
    my $y = $self->try($kind, %$second);
    is_cache($y, $state, $name);

    return ($x, $y);
}


my %FREE = map { $_ => 1 } qw(HIT STALE);


# The answer's place, and what goes with it: how often the provider was asked,
# attempts, Age.  want: status, calls, reason (of the log, and of the header
# unless late => 1), tries (X-LLM-Attempts).

sub is_cache {
    my ($x, $state, $name, %want) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $r = $x->{r};
    my $free = $state eq 'HIT';
    my $status = $want{status} // 200;
    my $calls = $want{calls} // ($FREE{$state} ? 0 : 1);
    my $age = $r->header('age');
    my $got = $r->header('x-llm-cache') // '(none)';
    my @wrong;

    push @wrong, "status " . $r->status if $r->status != $status;
    push @wrong, "end '" . $r->end . "'" if !$r->complete;
    push @wrong, "X-LLM-Cache: $got, not $state" if $got ne $state;
    push @wrong, "asked $x->{calls}, not $calls times"
        if defined $x->{calls} && !($want{any_calls}) && $x->{calls} != $calls;
    push @wrong, 'Age: ' . ($age // '(none)')
        if $FREE{$state} ? ($age // '') !~ /^\d+$/ : defined $age;
    push @wrong, 'attempts ' . ($r->header('x-llm-attempts') // '(none)')
        if $free && ($r->header('x-llm-attempts') // '') ne '0';

    if (defined $want{reason}) {
        my $header = $r->header('x-llm-cache-reason') // '';
        my $log = Caching->logged($x);
        push @wrong, "X-LLM-Cache-Reason: '$header', not '$want{reason}'"
            if !$want{late} && $header ne $want{reason};
        push @wrong, "\$llm_cache_reason '" . ($log->{cache_reason} // '')
                     . "', not '$want{reason}'"
            if ($log->{cache_reason} // '') ne $want{reason};
        push @wrong, "\$llm_cache '" . ($log->{cache} // '') . "'"
            if ($log->{cache} // '') ne $state;
    }

    Test::More::is(join('; ', @wrong), '', "$name: $state")
        or Test::More::diag(
            'reason ' . ($r->header('x-llm-cache-reason') // '(none)')
            . ', body: ' . substr $r->body, 0, 200);
}


# --- content ---

sub parts_of {
    my ($r) = @_;
    return map { $_->{data} eq '[DONE]' ? '[DONE]' : json_decode($_->{data}) }
           grep { defined $_->{data} } sse_events($r->body);
}


# What a valid stream has no place for.

sub sse_faults {
    my ($r, $kind) = @_;

    my ($seq, @wrong) = (0);

    for my $ev (sse_events($r->body)) {
        push @wrong, "not ended: $ev->{raw}" if !$ev->{complete};
        next if !defined $ev->{data} || $ev->{data} eq '[DONE]';

        my $json = json_decode($ev->{data});

        if (ref $json ne 'HASH') {
            push @wrong, "not JSON: $ev->{data}";
            next;
        }

        next if $kind !~ /^(?:messages|responses)$/;

        push @wrong, 'event ' . ($ev->{event} // '(none)')
                     . ", type $json->{type}"
            if ($ev->{event} // '') ne $json->{type};
        push @wrong, "sequence_number $json->{sequence_number} after $seq"
            if $kind eq 'responses' && $json->{sequence_number} != $seq++;
    }

    return @wrong;
}


sub usage_events {
    my ($r) = @_;
    return grep { ref $_ && ref $_->{usage} eq 'HASH' } parts_of($r);
}


# What an answer says, in one form for streams and plain ones: a hash of text,
# calls, finish, usage, id, model, and what is in the endpoint's own.

sub content_of {
    my ($r, $kind, $stream) = @_;

    my $say = $stream ? { chat => \&_chat_stream,
                          completions => \&_completions_stream,
                          messages => \&_messages_stream,
                          responses => \&_responses_stream }->{$kind}
            : { chat => \&_chat, completions => \&_completions,
                messages => \&_messages, responses => \&_response }->{$kind};

    my $json = $stream ? [grep { ref } parts_of($r)] : $r->json;
    return "not an answer: " . substr $r->body, 0, 200
        if !ref $json || !@{ $stream ? $json : [1] };

    my $content = $say->($json);
    $content->{text} = encode_utf8($content->{text} // '');
    return $content;
}


sub _chat {
    my ($json) = @_;

    my $choice = $json->{choices}[0];
    my $calls = $choice->{message}{tool_calls};

    return { (map { $_ => $json->{$_} } qw(id model created usage
                  system_fingerprint service_tier)),
             text => $choice->{message}{content},
             calls => [map { [@$_{qw(id type)}, @{ $_->{function} }
                             {qw(name arguments)}] } @{ $calls // [] }],
             finish => $choice->{finish_reason} };
}


# The usage is left out where it was not asked for: see is_same_content().

sub _chat_stream {
    my ($list) = @_;

    my $first = $list->[0];
    my ($text, $finish, $usage, @calls);

    for my $part (@$list) {
        my $choice = $part->{choices}[0];
        my $delta = $choice->{delta} // {};

        $usage = $part->{usage} if $part->{usage};
        $finish = $choice->{finish_reason} if $choice->{finish_reason};
        $text = ($text // '') . $delta->{content} if defined $delta->{content};

        for my $call (@{ $delta->{tool_calls} // [] }) {
            my $c = $calls[ $call->{index} ] //= [undef, undef, undef, ''];
            $c->[0] //= $call->{id};
            $c->[1] //= $call->{type};
            $c->[2] //= $call->{function}{name};
            $c->[3] .= $call->{function}{arguments} // '';
        }
    }

    return { (map { $_ => $first->{$_} } qw(id model created
                  system_fingerprint service_tier)),
             text => $text, calls => \@calls, finish => $finish,
             usage => $usage };
}


sub _completions {
    my ($json) = @_;
    return { (map { $_ => $json->{$_} } qw(id model created usage)),
             text => $json->{choices}[0]{text},
             finish => $json->{choices}[0]{finish_reason} };
}


sub _completions_stream {
    my ($list) = @_;

    my $content = { map { $_ => $list->[0]{$_} } qw(id model created) };
    $content->{usage} = undef;

    for my $part (@$list) {
        my $choice = $part->{choices}[0];
        $content->{usage} = $part->{usage} if $part->{usage};
        $content->{text} .= $choice->{text} // '' if $choice;
        $content->{finish} = $choice->{finish_reason}
            if $choice->{finish_reason};
    }

    return $content;
}


sub _messages {
    my ($json) = @_;

    my @blocks = @{ $json->{content} };

    return { (map { $_ => $json->{$_} } qw(id model role stop_sequence)),
             text => join('', map { $_->{text} // '' } @blocks),
             thinking => join('', map { $_->{thinking} // '' } @blocks),
             signature => join('', map { $_->{signature} // '' } @blocks),
             types => join(' ', map { $_->{type} } @blocks),
             calls => [map { [@$_{qw(id name input)}] }
                       grep { $_->{type} eq 'tool_use' } @blocks],
             finish => $json->{stop_reason},
             usage => _tokens($json->{usage}) };
}


sub _tokens {
    my ($usage) = @_;
    return { map { $_ => $usage->{$_} } qw(input_tokens output_tokens
                 cache_read_input_tokens cache_creation_input_tokens) };
}


sub _messages_stream {
    my ($list) = @_;

    my ($message, @blocks);

    for my $part (@$list) {
        my $type = $part->{type};
        my $delta = $part->{delta};
        my $block = $blocks[ $part->{index} // 0 ];

        if ($type eq 'message_start') {
            $message = $part->{message};

        } elsif ($type eq 'content_block_start') {
            $blocks[ $part->{index} ] = { %{ $part->{content_block} } };

        } elsif ($type eq 'content_block_delta') {
            $block->{$_} .= $delta->{$_}
                for grep { defined $delta->{$_} }
                    qw(text thinking signature partial_json);

        } elsif ($type eq 'message_delta') {
            $message = { %$message, %$delta,
                         usage => { %{ $message->{usage} },
                                    %{ $part->{usage} // {} } } };
        }
    }

    for (@blocks) {
        $_->{input} = json_decode($_->{partial_json})
            if defined $_->{partial_json} && $_->{partial_json} ne '';
    }

    return _messages({ %$message, content => \@blocks });
}


# (The usage of the whole one is what counts, and it is that of the stream's
# last event.)

sub _response {
    my ($json) = @_;
    my @output = @{ $json->{output} };

    return { (map { $_ => $json->{$_} } qw(id model created_at usage status
                  store metadata)),
             output => \@output,
             text => join('', map { $_->{text} // '' }
                              map { @{ $_->{content} // [] } } @output) };
}


sub _responses_stream {
    my ($list) = @_;

    my $last = $list->[-1]{response} // { output => [] };
    my $content = _response($last);
    my $text = join '', map { $_->{delta} }
               grep { $_->{type} eq 'response.output_text.delta' } @$list;

    $content->{text} = "deltas: $text" if $text ne $content->{text};
    return $content;
}


# Two answers, each with its form, say the same; less => [...]: members that
# are not compared.  A stream that does not tell its usage is compared without.

sub is_same_content {
    my ($x, $y, $name, %o) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @say = map { content_of($_->{r}, $_->{kind}, $_->{stream}) } $x, $y;
    my @less = @{ $o{less} // [] };

    push @less, 'usage'
        if grep { ref $_ && !defined $_->{usage} } @say;

    for my $say (grep { ref } @say) {
        delete @$say{@less};
    }

    Test::More::is_deeply($say[1], $say[0], "$name: the same content");
}


# An answer is a whole one of the form that was asked for.

sub is_form {
    my ($x, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($r, $kind) = @$x{qw(r kind)};
    my $type = $r->header('content-type') // '';

    if (!$x->{stream}) {
        Test::More::is(ref $r->json, 'HASH', "$name: JSON");
        Test::More::like($type, qr{^application/json}, "$name: type");
        return;
    }

    my @wrong = sse_faults($r, $kind);
    my @parts = parts_of($r);

    push @wrong, "type $type" if $type !~ m{^text/event-stream};
    push @wrong, 'Cache-Control: ' . ($r->header('cache-control') // '')
        if ($r->header('cache-control') // '') ne 'no-cache';
    push @wrong, 'X-Accel-Buffering' if !$r->header('x-accel-buffering');
    push @wrong, 'a length' if defined $r->header('content-length');
    # (a text, its end, and the last event)
    push @wrong, scalar(@parts) . ' events' if @parts < 3;

    is_whole($r, $kind, "$name: whole");
    Test::More::is(join('; ', @wrong), '', "$name: a valid stream");
}


1;
