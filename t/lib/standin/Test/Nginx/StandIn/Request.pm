package Test::Nginx::StandIn::Request;

# The sections request, raw_request, pipelined_requests and more_headers made
# into bytes.  requests_of($block) returns a list of requests; each is a list
# of packets { value => bytes, delay_before => seconds }.
#
# A request is written as "METHOD [URL [VERSION]]", then lines of body.  Host,
# Connection and Content-Length are added where the test does not give them;
# a body whose length is counted here loses its outer white space first.

use strict;
use warnings;

use Exporter 'import';

use Test::Nginx::StandIn::Settings;

our @EXPORT = qw(requests_of);


sub requests_of {
    my ($block) = @_;

    my $raw = $block->raw_request;

    if (defined $raw) {
        return [map { { value => $_ } } ref $raw ? @$raw : $raw];
    }

    return pipelined($block) if $block->pipelined_requests;

    my $request = $block->request;
    my $name = $block->name;
    bail_out("$name: no request") if !defined $request;

    return one_request($block, without_comments($request), 0)
        if !ref $request;

    bail_out("$name: request is neither a text nor a list")
        if ref $request ne 'ARRAY';

    my $index = 0;
    return map { one_request($block, $_, $index++) } @$request;
}


# Leading blank lines and lines that begin with # are notes.

sub without_comments {
    my ($text) = @_;
    1 while $text =~ s/^\s*#[^\n]+\s+// || $text =~ s/^\s+//;
    return $text;
}


# A request as a text or as a list of packets (texts or hashes).

sub one_request {
    my ($block, $request, $index) = @_;

    my @packets = ref $request ? @$request : ($request);
    my @values = map { ref $_ ? $_->{value} : $_ } @packets;
    my @built = build($block, $index, 'close', @values);

    return [map { { ref $packets[$_] ? %{ $packets[$_] } : (),
                    value => $built[$_] } } 0 .. $#built];
}


# All requests in one write, over one connection.

sub pipelined {
    my ($block) = @_;

    my $list = $block->pipelined_requests;
    my $name = $block->name;
    bail_out("$name: pipelined_requests is not a list")
        if ref $list ne 'ARRAY';

    my $text = '';

    for my $i (0 .. $#$list) {
        my $connection = $i == $#$list ? 'close' : 'keep-alive';
        $text .= join '', build($block, $i, $connection,
                                expand_env($list->[$i], $name));
    }

    return [{ value => $text }];
}


# The header lines of request $index, each ended by CRLF, and whether they say
# chunked.

sub more_headers {
    my ($block, $index) = @_;

    my $text = $block->more_headers // '';

    if (ref $text eq 'ARRAY') {
        $text = $text->[$index]
            // bail_out($block->name, ": no more_headers for request $index");
    }

    my ($out, $chunked) = ('', 0);

    for my $line (split /\n+/, $text) {
        next if $line =~ /^\s*#/;

        my ($key, $value) = split /:\s*/, $line, 2;
        $value //= '';
        $out .= "$key: $value\r\n";
        $chunked = 1 if lc $key eq 'transfer-encoding' && $value eq 'chunked';
    }

    $out =~ s/(?<!\r)\n/\r\n/g;

    return ($out, $chunked);
}


# Turns the packets of a request into those to send: as many, cut at the same
# places.  What is added goes to the packet that ends the request line.

sub build {
    my ($block, $index, $connection, @packets) = @_;

    my $text = join '', @packets;
    my ($headers, $chunked) = more_headers($block, $index);

    my ($line, $body) = $text =~ /^([^\n]*)(?:\n(.*))?$/s;
    my @words = split ' ', $line;

    bail_out($block->name, ": bad request line '$line'")
        if @words < 1 || @words > 3;

    my $has_body = defined $body && $body ne '';
    my $counted = $has_body && !$chunked
                  && $headers !~ /^Content-Length:/m;

    my $added = '';
    $added .= "Host: $Setting{server_name}\r\n" if $headers !~ /^Host:/mi;
    $added .= "Connection: $connection\r\n" if $headers !~ /^Connection/mi;
    $added .= $headers;

    my ($from, $to) = (length($line) + 1, length $text);

    if ($counted) {
        $from += length $1 if $body =~ /^(\s+)/;
        $to -= length $1 if $from < $to && $body =~ /(\s+)$/;
        $added .= 'Content-Length: ' . ($to - $from) . "\r\n";
    }

    my $head = join(' ', $words[0], $words[1] // '/', $words[2] // 'HTTP/1.1')
               . "\r\n$added\r\n";

    return recut(\@packets, length $line, $head, $from, $to);
}


# Packets that hold $head in place of the request line, which ended at offset
# $at, and of the body the bytes from $from to $to.

sub recut {
    my ($packets, $at, $head, $from, $to) = @_;

    my ($start, $sent, @out) = (0, 0);

    for my $i (0 .. $#$packets) {
        my $end = $start + length $packets->[$i];
        my $new = '';

        if ($end <= $at && $i < $#$packets) {
            # the line goes on in the next packet
            $new = substr $head, $sent, $end - $sent;
            $sent = $end;

        } elsif ($start <= $at) {
            $new = substr $head, $sent;
        }

        my $first = $start > $from ? $start : $from;
        my $last = $end < $to ? $end : $to;
        $new .= substr $packets->[$i], $first - $start, $last - $first
            if $last > $first;

        push @out, $new;
        $start = $end;
    }

    return @out;
}


1;
