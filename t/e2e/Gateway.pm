package Gateway;

# What the end-to-end tests of the module have in common: one configuration
# with a provider of each dialect, the requests of each endpoint, the log, and
# the comparison of streams.
#
#   my ($t, $mock) = gateway(location => 'llm_adapter_ping 100ms;');
#   my $r = ask(h1($t->port), 'chat', stream => 1, test => 'name',
#               mock => { events => 5, gap => '20ms' });
#   is_whole($r, 'chat');  is_same_events($r, $mock);
#   log_of($t, 'name')->{error};
#
# A "client" is an LLM::H1 or an LLM::H2: ask(), start_ask(), head_of() take
# both.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Exporter 'import';
use Test::More ();

use LLM::E2E;

our @EXPORT = qw(
    gateway gateway_conf ask start_ask head_of request_of body_of
    log_of logs_of events_of is_same_events is_whole is_error
    in_band_error is_in_band usage_only
);


my %PATH = (
    chat        => 'chat/completions',
    completions => 'completions',
    responses   => 'responses',
    embeddings  => 'embeddings',
    messages    => 'messages',
    count       => 'messages/count_tokens',
);

my $MESSAGES = '"messages":[{"role":"user","content":"Say hello"}]';

my %BODY = (
    chat        => $MESSAGES,
    completions => '"prompt":"Say hello"',
    responses   => '"input":"Say hello","store":false',
    embeddings  => '"input":"Say hello"',
    messages    => '"max_tokens":100000,' . $MESSAGES,
    count       => $MESSAGES,
);

my @FIELDS = qw(
    status error provider model requested_model dialect stream attempts
    prompt_tokens completion_tokens cached_tokens usage_source finish_reason
    ttft overhead cost breaker
);


# --- servers ---

# The text inside http {}.  provider, location, server, http: more text at
# these places; locations: further locations as { PREFIX => TEXT }; they get
# "llm_adapter on;" unless TEXT has it.  retry: arguments of llm_adapter_retry;
# without it a failure is shown as it is, and opens no breaker.  fields: more
# variables for the log, less their "llm_".

sub gateway_conf {
    my (%o) = @_;

    my $format = join ',', map {
        my $name = /^status$/ ? $_ : "llm_$_";
        qq("$_":"\$$name");
    } @FIELDS, @{ $o{fields} // [] };

    my $provider = $o{provider} // '';
    my $key = $provider =~ /^\s*key\s/m ? '' : 'key none;';
    $key .= ' breaker off;' if $provider !~ /\bbreaker\s/;

    my %locations = ('/v1/' => $o{location} // '',
                     %{ $o{locations} // {} });
    my $locations = '';

    for my $path (sort keys %locations) {
        my $text = $locations{$path};
        $text = "llm_adapter on; $text" if $text !~ /\bllm_adapter\s/;
        $locations .= "        location $path { $text }\n";
    }

    return <<"EOT";
    log_format llm escape=json '{"test":"\$http_x_test",$format,'
        '"upstream_status":"\$upstream_status","sent":"\$bytes_sent",'
        '"upstream_addr":"\$upstream_addr","done":"\$request_completion"}';

    llm_adapter_provider openai {
        endpoint @{[ $o{endpoint} // 'http://127.0.0.1:%%MOCK%%' ]}/v1;
        dialect openai;
        $key
        $provider
    }

    llm_adapter_provider anthropic {
        endpoint @{[ $o{endpoint} // 'http://127.0.0.1:%%MOCK%%' ]}/v1;
        dialect anthropic;
        $key
        $provider
    }

    llm_adapter_retry @{[ $o{retry} // 'attempts=1' ]};

    llm_adapter_model claude* anthropic;
    llm_adapter_model * openai;

    @{[ $o{http} // '' ]}

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_h2%% http2;
        access_log %%DIR%%/llm.log llm;
        client_max_body_size 32m;
        @{[ $o{server} // '' ]}
$locations
    }
    @{[ $o{servers} // '' ]}
EOT
}


# (nginx, mock provider).  Options: of gateway_conf(), of start_nginx(), and
# mock => a running one, mock_args => [...].  $ENV{LLM_WORKERS} is the default
# of workers, LLM_MASTER=0 that of master.

sub gateway {
    my (%o) = @_;

    my $mock = $o{mock} // start_mock(args => $o{mock_args} // []);
    my $master = $o{master} // $ENV{LLM_MASTER};
    my $t = start_nginx(gateway_conf(%o), %o,
                        workers => $o{workers} // $ENV{LLM_WORKERS} // 1,
                        (defined $master ? (master => $master) : ()),
                        vars => { MOCK => $mock->port,
                                  %{ $o{vars} // {} } });

    return ($t, $mock);
}


# --- requests ---

# more => '"temperature":0' adds members, say => TEXT is what is asked,
# body => TEXT is all of it.

sub body_of {
    my ($kind, %o) = @_;

    return $o{body} if defined $o{body};

    my $model = $o{model}
                // ($kind =~ /^(?:messages|count)$/ ? 'claude-sonnet-4'
                                                    : 'gpt-4o');
    my @members = (qq("model":"$model"));
    push @members, '"stream":true' if $o{stream};
    push @members, $o{more} if defined $o{more};
    push @members, defined $o{say} ? $BODY{$kind} =~ s/Say hello/$o{say}/r
                                   : $BODY{$kind};

    return '{' . join(',', @members) . '}';
}


# (method, path, headers and body for the library's request calls).
# prefix => '/x' before /v1/; query => 'a=b'; test: name in the log; mock:
# controls; headers: further ones, lower case.

sub request_of {
    my ($kind, %o) = @_;

    my $path = ($o{prefix} // '') . "/v1/$PATH{$kind}";
    $path .= "?$o{query}" if defined $o{query};

    my @headers = ('content-type' => 'application/json');
    push @headers, 'anthropic-version' => '2023-06-01'
        if $kind =~ /^(?:messages|count)$/
           && !grep { $_ eq 'anthropic-version' } @{ $o{headers} // [] };
    push @headers, 'x-test' => $o{test} if defined $o{test};

    my $mock = $o{mock} // {};
    push @headers, "x-mock-$_" =~ tr/_/-/r, $mock->{$_} for sort keys %$mock;
    push @headers, @{ $o{headers} // [] };

    my %pass = map { $_ => $o{$_} } grep { exists $o{$_} }
               qw(timeout limit until rate for version close chunked expect
                  piece delay length open auto);

    return ('POST', $path, %pass, headers => \@headers,
            body => body_of($kind, %o));
}


# Closes a connection that the answer has ended: nginx lingers for a client
# that does not, and writes its log line after that.

sub ask {
    my ($client, $kind, %o) = @_;

    my $r = $client->request(request_of($kind, %o));

    $client->close
        if $r->complete && !$client->isa('LLM::H2')
           && ($o{close} || ($o{version} // '') eq '1.0');

    return $r;
}


# Only sends.  Returns the stream of an LLM::H2, undef for an LLM::H1.

sub start_ask {
    my ($client, $kind, %o) = @_;

    return $client->start(request_of($kind, %o))
        if $client->isa('LLM::H2');

    $client->send_request(request_of($kind, %o));
    return;
}


sub head_of {
    my ($client, $stream, %o) = @_;
    return $stream ? $client->read_head($stream, %o)
                   : $client->read_head(%o);
}


# --- the log ---

sub logs_of {
    my ($t, $test) = @_;
    return grep { $_ && $_->{test} eq $test }
           map { json_decode($_) }
           grep { index($_, substr $test, 0, 8) >= 0 }
           split /\n/, slurp($t->path('llm.log'));
}


# The line of the request that was named so; waits for it; {} if none comes.

sub log_of {
    my ($t, $test, $timeout) = @_;
    my @found;
    wait_for { @found = logs_of($t, $test); scalar @found } $timeout // 5;
    return $found[0] // {};
}


# --- streams ---

# What must not change of a body's events: one string an event, comments left
# out; long data as its digest, so that a failure can be read.

sub events_of {
    my ($body) = @_;

    my @list;

    for my $ev (sse_events($body)) {
        next if !defined $ev->{data} && !defined $ev->{event}
                && !defined $ev->{id} && !defined $ev->{retry};

        my $data = $ev->{data} // '(none)';
        $data = length($data) . ' bytes, ' . md5_hex($data)
            if length $data > 4000;

        push @list, join '|', map { defined $_ ? $_ : '-' }
                    $ev->{event}, $ev->{id}, $ev->{retry}, $data;
    }

    return @list;
}


# An event of events_of(): only a usage, which is kept from those who did not
# ask for it.

sub usage_only { return $_[0] =~ /"choices": ?\[\].*"usage": ?\{/s }


# The client got what the provider sent last; hidden => 1: less its usage.

sub is_same_events {
    my ($r, $mock, %o) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @sent = events_of($o{sent} // $mock->last_response_body);
    @sent = grep { !usage_only($_) } @sent if $o{hidden};
    my @got = events_of($r->body);

    Test::More::cmp_ok(scalar(@sent), '>', 1, "$o{name}: there were events")
        if !$o{few};
    Test::More::is_deeply(\@got, \@sent, "$o{name}: the same events");
}


my %TERMINAL = (
    chat        => qr/^data: \[DONE\]$/,
    completions => qr/^data: \[DONE\]$/,
    messages    => qr/^event: message_stop\ndata: /,
    responses   => qr/^event: response\.(?:completed|incomplete)\ndata: /,
);


# A stream that was ended by HTTP and by its dialect's own last event.

sub is_whole {
    my ($r, $kind, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @events = sse_events($r->body);
    my $last = $events[-1] // { raw => '', complete => 0 };
    my @wrong;

    push @wrong, 'status ' . $r->status if $r->status != 200;
    push @wrong, 'end: "' . $r->end . '"' if !$r->complete;
    push @wrong, 'no blank line at the end' if !$last->{complete};

    my $raw = join "\n", grep { /^(?:event|data):/ } split /\n/, $last->{raw};
    push @wrong, "last event: $last->{raw}" if $raw !~ $TERMINAL{$kind};
    push @wrong, 'an error: ' . in_band_error($r, $kind)->{message}
        if in_band_error($r, $kind);

    Test::More::is(join('; ', @wrong), '', $name // "$kind: whole");
}


# The in-band error of a stream, as { status.., type, code, message, at, n }:
# its place among n events.  undef if there is none.

sub in_band_error {
    my ($r, $kind) = @_;

    my @events = grep { defined $_->{data} } sse_events($r->body);
    my ($at, $error, $ev) = (0);

    for my $e (@events) {
        $at++;
        my $json = json_decode($e->{data});
        next if ref $json ne 'HASH';

        if ($kind =~ /^(?:chat|completions)$/) {
            $error = $json->{error};

        } elsif ($kind eq 'messages') {
            $error = $json->{error} if ($json->{type} // '') eq 'error';

        } elsif (($json->{type} // '') eq 'response.failed') {
            $error = $json->{response}{error};

        } elsif (($json->{type} // '') eq 'error') {
            $error = $json;
        }

        if ($error) {
            $ev = $json;
            return { %$error, at => $at, n => scalar @events, event => $e,
                     json => $ev };
        }
    }

    return;
}


# A stream that failed after it was shown: the error in the dialect's shape is
# the last thing that is said, and the HTTP message ends well.

sub is_in_band {
    my ($r, $kind, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $e = in_band_error($r, $kind);
    my @wrong;

    push @wrong, 'status ' . $r->status if $r->status != 200;
    push @wrong, 'HTTP end: "' . $r->end . '"' if !$r->complete;

    if (!$e) {
        push @wrong, 'no error in: ' . substr $r->body, -300;

    } else {
        push @wrong, "error is event $e->{at} of $e->{n}"
            if $e->{at} != $e->{n};
        push @wrong, 'no message' if ($e->{message} // '') eq '';
        push @wrong, 'no blank line' if !$e->{event}{complete};
        push @wrong, _shape($r, $kind, $e);
    }

    push @wrong, 'a terminal event'
        if $r->body =~ /^data: ?\[DONE\]|message_stop|response\.completed/m;

    Test::More::is(join('; ', @wrong), '', "$name: told in-band");

    return $e // {};
}


sub _shape {
    my ($r, $kind, $e) = @_;

    my $name = $e->{event}{event} // '';

    if ($kind eq 'messages') {
        return (($name ne 'error' ? "event: $name" : ()),
                (($e->{type} // '') !~ /_error$/ ? 'no type' : ()));
    }

    return () if $kind ne 'responses' || $name ne 'response.failed';

    my @before = map { json_decode($_->{data}) }
                 grep { defined $_->{data} } sse_events($r->body);
    pop @before;

    my $json = $e->{json};
    my ($id) = map { $_->{response}{id} } grep { $_->{response} } @before;
    my $seq = $before[-1]{sequence_number};

    return (
        ($json->{sequence_number} != $seq + 1
             ? "sequence_number $json->{sequence_number} after $seq" : ()),
        ($json->{response}{id} ne $id ? 'another response id' : ()),
        ($json->{response}{status} ne 'failed' ? 'not status failed' : ()),
        (($json->{response}{error}{code} // '') eq '' ? 'no code' : ()));
}


# An HTTP error in the dialect's JSON; returns the error member.

sub is_error {
    my ($r, $kind, $status, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $json = $r->json;
    my $error = ref $json eq 'HASH' ? $json->{error} : undef;
    my @wrong;

    push @wrong, 'status ' . $r->status if $r->status != $status;
    push @wrong, 'end: "' . $r->end . '"' if !$r->complete;
    push @wrong, 'type ' . ($r->header('content-type') // 'none')
        if ($r->header('content-type') // '') !~ m{^application/json};

    if (ref $error ne 'HASH') {
        push @wrong, 'no error in: ' . substr $r->body, 0, 300;

    } else {
        push @wrong, 'no message' if ($error->{message} // '') eq '';
        push @wrong, 'no type' if !defined $error->{type};
        push @wrong, 'not "type":"error"'
            if $kind eq 'messages' && ($json->{type} // '') ne 'error';
    }

    Test::More::is(join('; ', @wrong), '', "$name: error $status");

    return $error // {};
}


1;
