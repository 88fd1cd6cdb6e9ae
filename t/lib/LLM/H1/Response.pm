package LLM::H1::Response;

# One HTTP/1.x response as it arrives: the head, the decoded body, and when
# each piece came.  LLM::H1 feeds it; tests read it.
#
#   status version reason head      numbers and texts of the first lines
#   headers                         list of [name, value] in order
#   header($name)                   first value, any case; header_all($name)
#   body                            decoded bytes so far
#   json                            the body decoded, undef if it is not JSON
#   sse                             list of events, see LLM::Util::sse_events
#   chunks                          list of [time, bytes]: HTTP chunks, when
#                                   the last byte of each was read
#   reads                           list of [time, body length after it]
#   end                             '' (more to come) or one of
#        chunked   the last chunk and its trailers were seen
#        length    Content-Length bytes came
#        none      no body by definition (HEAD, 204, 304)
#        eof       closed, and close is this body's end
#        cut       closed or reset in the middle
#        bad       not valid chunked coding
#        timeout   (only while waiting for the head)
#   complete                        true if end is chunked, length, none, eof
#   trailers                        list of [name, value]
#   informational                   heads of 1xx answers before this one
#   started head_at                 times: request sent, head read

use strict;
use warnings;

use LLM::Util qw(now json_decode sse_events);


sub new {
    my ($class, %o) = @_;
    return bless {
        %o, status => 0, version => '', reason => '', head => '',
        headers => [], body => '', chunks => [], reads => [], end => '',
        trailers => [], informational => [], mode => '', left => 0,
        piece => '',
    }, $class;
}


sub status        { return $_[0]{status} }
sub version       { return $_[0]{version} }
sub reason        { return $_[0]{reason} }
sub head          { return $_[0]{head} }
sub headers       { return $_[0]{headers} }
sub body          { return $_[0]{body} }
sub chunks        { return $_[0]{chunks} }
sub reads         { return $_[0]{reads} }
sub end           { return $_[0]{end} }
sub trailers      { return $_[0]{trailers} }
sub informational { return $_[0]{informational} }
sub started       { return $_[0]{started} }
sub head_at       { return $_[0]{head_at} }
sub json          { return json_decode($_[0]{body}) }
sub sse           { return sse_events($_[0]{body}) }


sub complete {
    return scalar($_[0]{end} =~ /^(?:chunked|length|none|eof)$/);
}


sub header_all {
    my ($self, $name) = @_;
    return map { $_->[1] } grep { lc $_->[0] eq lc $name }
           @{ $self->{headers} };
}


sub header {
    my ($self, $name) = @_;
    return ($self->header_all($name))[0];
}


sub parse_head {
    my ($self, $text) = @_;

    $self->{head} = $text;
    my ($first, @lines) = split /\r?\n/, $text;

    if ($first =~ /^HTTP\/(\d\.\d) (\d{3})(?: (.*))?$/) {
        @$self{qw(version status reason)} = ($1, $2, $3 // '');

    } else {
        $self->{end} = 'bad';
        return;
    }

    for (@lines) {
        push @{ $self->{headers} }, [$1, $2] if /^([^:]*):[ \t]*(.*?)[ \t]*$/;
    }

    $self->_choose_mode;
}


sub _choose_mode {
    my ($self) = @_;

    if ($self->{method} eq 'HEAD' || $self->{status} =~ /^(?:204|304)$/) {
        $self->{end} = 'none';

    } elsif (($self->header('Transfer-Encoding') // '') =~ /chunked/i) {
        $self->{mode} = 'size';

    } elsif (defined(my $length = $self->header('Content-Length'))) {
        $self->{mode} = 'length';
        $self->{left} = $length;
        $self->{end} = 'length' if $length == 0;

    } else {
        $self->{mode} = 'eof';
    }
}


# Takes what it can from the buffer.  Modes: length, eof; and for chunked
# coding size, data, crlf, trailer.

sub feed {
    my ($self, $buf) = @_;

    my $had = length $self->{body};

    while (!$self->{end} && $$buf ne '') {
        my $mode = $self->{mode};

        if ($mode eq 'eof') {
            $self->{body} .= $$buf;
            $$buf = '';

        } elsif ($mode eq 'length') {
            $self->_take($buf);
            $self->{end} = 'length' if $self->{left} == 0;

        } else {
            last if !$self->_feed_chunked($buf);
        }
    }

    push @{ $self->{reads} }, [now(), length $self->{body}]
        if length $self->{body} > $had;
}


sub _take {
    my ($self, $buf) = @_;
    my $piece = substr $$buf, 0, $self->{left}, '';
    $self->{left} -= length $piece;
    $self->{body} .= $piece;
    return $piece;
}


sub _feed_chunked {
    my ($self, $buf) = @_;

    if ($self->{mode} eq 'data') {
        $self->{piece} .= $self->_take($buf);
        return 1 if $self->{left};

        push @{ $self->{chunks} }, [now(), $self->{piece}];
        $self->{piece} = '';
        $self->{mode} = 'crlf';
        return 1;
    }

    $$buf =~ s/^([^\n]*?)\r?\n// or return 0;
    my $line = $1;

    if ($self->{mode} eq 'crlf') {
        $self->{mode} = 'size';
        $self->{end} = 'bad' if $line ne '';

    } elsif ($self->{mode} eq 'trailer') {
        $self->{end} = 'chunked' if $line eq '';
        push @{ $self->{trailers} }, [$1, $2] if $line =~ /^([^:]+):\s*(.*)$/;

    } elsif ($line =~ /^([0-9a-f]+)\s*(?:;.*)?$/i) {
        $self->{left} = hex $1;
        $self->{mode} = $self->{left} ? 'data' : 'trailer';

    } else {
        $self->{end} = 'bad';
    }

    return 1;
}


# The connection is over: was that this body's end?

sub connection_ended {
    my ($self, $error) = @_;
    return if $self->{end};
    $self->{end} = $self->{mode} eq 'eof' && !$error ? 'eof' : 'cut';
}


1;
