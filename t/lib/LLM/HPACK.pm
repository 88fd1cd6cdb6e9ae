package LLM::HPACK;

# Header compression of HTTP/2 (RFC 7541): an encoder that only writes
# literals without indexing and without Huffman coding, and a full decoder
# (static and dynamic table, Huffman code).
#
#   my $text = LLM::HPACK::encode([$name, $value], ...);
#   my $decoder = LLM::HPACK->new;
#   my @headers = $decoder->decode($block);    list of [$name, $value]; dies

use strict;
use warnings;


# RFC 7541, Appendix A
my @STATIC = map { [ split /=/, $_, 2 ] } (
    ':authority=', ':method=GET', ':method=POST', ':path=/',
    ':path=/index.html', ':scheme=http', ':scheme=https', ':status=200',
    ':status=204', ':status=206', ':status=304', ':status=400',
    ':status=404', ':status=500', 'accept-charset=',
    'accept-encoding=gzip, deflate', 'accept-language=', 'accept-ranges=',
    'accept=', 'access-control-allow-origin=', 'age=', 'allow=',
    'authorization=', 'cache-control=', 'content-disposition=',
    'content-encoding=', 'content-language=', 'content-length=',
    'content-location=', 'content-range=', 'content-type=', 'cookie=',
    'date=', 'etag=', 'expect=', 'expires=', 'from=', 'host=', 'if-match=',
    'if-modified-since=', 'if-none-match=', 'if-range=',
    'if-unmodified-since=', 'last-modified=', 'link=', 'location=',
    'max-forwards=', 'proxy-authenticate=', 'proxy-authorization=', 'range=',
    'referer=', 'refresh=', 'retry-after=', 'server=', 'set-cookie=',
    'strict-transport-security=', 'transfer-encoding=', 'user-agent=',
    'vary=', 'via=', 'www-authenticate=',
);

# RFC 7541, Appendix B: the code is canonical, so the number of bits of each
# symbol (0 .. 255, 256 is EOS) says all of it.
my @BITS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
);

# "bit string" => symbol
my %SYMBOL = _huffman_codes();


sub _huffman_codes {
    my %symbol;
    my ($code, $bits) = (0, 0);

    for my $s (sort { $BITS[$a] <=> $BITS[$b] || $a <=> $b } 0 .. 256) {
        $code <<= $BITS[$s] - $bits;
        $bits = $BITS[$s];
        $symbol{ sprintf '%0*b', $bits, $code } = $s;
        $code++;
    }

    return %symbol;
}


# --- encoding ---

sub encode {
    my @headers = @_;
    return join '', map { "\x00" . _string($_->[0]) . _string($_->[1]) }
                    @headers;
}


sub _string {
    my ($text) = @_;
    return _integer(length $text, 7) . $text;
}


sub _integer {
    my ($value, $bits) = @_;

    my $max = (1 << $bits) - 1;
    return chr $value if $value < $max;

    my $out = chr $max;
    $value -= $max;

    while ($value >= 128) {
        $out .= chr($value & 127 | 128);
        $value >>= 7;
    }

    return $out . chr $value;
}


# --- decoding ---

# size: what our SETTINGS_HEADER_TABLE_SIZE allows the peer.

sub new {
    my ($class, %o) = @_;
    my $size = $o{size} // 4096;
    return bless { table => [], used => 0, size => $size, limit => $size },
                 $class;
}


sub decode {
    my ($self, $block) = @_;

    my @headers;

    while ($block ne '') {
        my $first = ord $block;

        if ($first & 0x80) {
            push @headers, $self->_entry(_take_integer(\$block, 7));

        } elsif ($first & 0x40) {
            my $header = $self->_literal(\$block, 6);
            $self->_insert($header);
            push @headers, $header;

        } elsif ($first & 0x20) {
            my $size = _take_integer(\$block, 5);
            die "table size $size is over the limit\n"
                if $size > $self->{limit};
            $self->{size} = $size;
            $self->_evict;

        } else {
            push @headers, $self->_literal(\$block, 4);
        }
    }

    return @headers;
}


sub _literal {
    my ($self, $block, $bits) = @_;

    my $index = _take_integer($block, $bits);
    my $name = $index ? $self->_entry($index)->[0] : _take_string($block);

    return [$name, _take_string($block)];
}


sub _entry {
    my ($self, $index) = @_;

    my $entry = $index == 0 ? undef
              : $index <= @STATIC ? $STATIC[$index - 1]
              : $self->{table}[$index - @STATIC - 1];

    die "no header table entry $index\n" if !$entry;
    return [@$entry];
}


sub _insert {
    my ($self, $header) = @_;
    unshift @{ $self->{table} }, $header;
    $self->{used} += _entry_size($header);
    $self->_evict;
}


sub _evict {
    my ($self) = @_;

    while ($self->{used} > $self->{size}) {
        $self->{used} -= _entry_size(pop @{ $self->{table} });
    }
}


sub _entry_size {
    my ($header) = @_;
    return 32 + length($header->[0]) + length $header->[1];
}


sub _take_integer {
    my ($block, $bits) = @_;

    my $max = (1 << $bits) - 1;
    my $value = ord(_take($block, 1)) & $max;
    return $value if $value < $max;

    for (my $shift = 0; $shift < 35; $shift += 7) {
        my $byte = ord _take($block, 1);
        $value += ($byte & 127) << $shift;
        return $value if !($byte & 128);
    }

    die "integer too large\n";
}


sub _take_string {
    my ($block) = @_;

    my $huffman = $$block ne '' && ord($$block) & 0x80;
    my $text = _take($block, _take_integer($block, 7));

    return $huffman ? huffman_decode($text) : $text;
}


sub _take {
    my ($block, $length) = @_;
    die "header block cut short\n" if $length > length $$block;
    return substr $$block, 0, $length, '';
}


sub huffman_decode {
    my ($text) = @_;

    my ($out, $code) = ('', '');

    for my $bit (split //, unpack 'B*', $text) {
        $code .= $bit;
        my $symbol = $SYMBOL{$code} // next;
        die "EOS in a Huffman string\n" if $symbol == 256;
        $out .= chr $symbol;
        $code = '';
    }

    die "bad Huffman padding\n" if $code !~ /^1{0,7}$/;
    return $out;
}


1;
