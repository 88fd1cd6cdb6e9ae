package LLM::H2::Stream;

# One HTTP/2 stream as it arrives.  LLM::H2 feeds it; tests read it.
#
#   id status headers header($name) header_all($name) body trailers json sse
#   chunks      list of [time, bytes], one for each DATA frame
#   head_at     when the headers came; started: when the request was sent
#   end         '' (open) or one of
#        end_stream     the peer ended it
#        rst            the peer reset it: rst_code says why
#        cancelled      we reset it
#        cut            the connection ended before the stream did
#        goaway         it was not processed: its id is above GOAWAY's last
#   complete    true if end is end_stream
#   unacked     DATA bytes (padding too) not yet given back to the window

use strict;
use warnings;

use LLM::Util qw(now json_decode sse_events);


sub new {
    my ($class, %o) = @_;
    return bless {
        started => now(), send_window => 65535, auto => 1, %o,
        status => 0, headers => [], trailers => [], informational => [],
        body => '', chunks => [], end => '', unacked => 0,
    }, $class;
}


sub id            { return $_[0]{id} }
sub status        { return $_[0]{status} }
sub headers       { return $_[0]{headers} }
sub trailers      { return $_[0]{trailers} }
sub informational { return $_[0]{informational} }
sub body          { return $_[0]{body} }
sub chunks        { return $_[0]{chunks} }
sub end           { return $_[0]{end} }
sub rst_code      { return $_[0]{rst_code} }
sub started       { return $_[0]{started} }
sub head_at       { return $_[0]{head_at} }
sub unacked       { return $_[0]{unacked} }
sub send_window   { return $_[0]{send_window} }
sub complete      { return $_[0]{end} eq 'end_stream' }
sub json          { return json_decode($_[0]{body}) }
sub sse           { return sse_events($_[0]{body}) }


sub header_all {
    my ($self, $name) = @_;
    return map { $_->[1] } grep { lc $_->[0] eq lc $name }
           @{ $self->{headers} };
}


sub header {
    my ($self, $name) = @_;
    return ($self->header_all($name))[0];
}


sub got_headers {
    my ($self, @headers) = @_;

    if ($self->{status}) {
        $self->{trailers} = \@headers;
        return;
    }

    my ($status) = map { $_->[1] } grep { $_->[0] eq ':status' } @headers;

    if ($status =~ /^1/) {
        push @{ $self->{informational} }, \@headers;
        return;
    }

    $self->{status} = $status;
    $self->{headers} = \@headers;
    $self->{head_at} = now();
}


sub got_data {
    my ($self, $data, $frame_length) = @_;
    $self->{body} .= $data;
    $self->{unacked} += $frame_length;
    push @{ $self->{chunks} }, [now(), $data] if $data ne '';
}


sub ended {
    my ($self, $how, $code) = @_;
    return if $self->{end};
    $self->{end} = $how;
    $self->{rst_code} = $code;
}


1;
