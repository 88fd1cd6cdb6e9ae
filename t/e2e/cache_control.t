#!/usr/bin/perl

# Who decides: the operator by llm_adapter_cache_bypass and
# llm_adapter_no_cache, the client by Cache-Control (RFC 9111), unless
# client_control=off.

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
    locations => {
        '/bypass/v1/' => 'llm_adapter_cache_bypass $http_x_a $arg_b;',
        '/nocache/v1/' => 'llm_adapter_no_cache $http_x_a $arg_b;',
        '/deaf/v1/' => 'llm_adapter_cache on client_control=off;',
        '/short/v1/' => 'llm_adapter_cache on ttl=1s;',
        '/stale/v1/' => 'llm_adapter_cache on ttl=1s stale=1h;',
        '/off/v1/' => 'llm_adapter_cache off;',
    });
my ($t, $mock) = @$c{qw(t mock)};

my @FORMS = (['chat', 0], ['chat', 1], ['messages', 0], ['messages', 1],
             ['responses', 1], ['embeddings', 0]);


sub text_of {
    my ($x) = @_;
    return $x->{kind} eq 'embeddings' ? substr $x->{r}->body, 0, 2000
        : content_of($x->{r}, $x->{kind}, $x->{stream})->{text};
}


sub name_of { return "$_[0], " . ($_[1] ? 'stream' : 'plain') }


# --- no-cache: asked afresh, and that is stored

for my $form (@FORMS) {
    my ($kind, $stream) = @$form;
    my $name = name_of(@$form);
    my %ask = (say => Caching::question(), stream => $stream);

    is_cache($c->try($kind, %ask, mock => { text => 'one' }), 'MISS',
             "$name: no-cache: before");

    my $x = $c->try($kind, %ask, control => 'no-cache',
                    mock => { text => 'two', seed => 2 });
    is_cache($x, 'BYPASS', "$name: no-cache", reason => 'no-cache');

    my $y = $c->try($kind, %ask);
    is_cache($y, 'HIT', "$name: no-cache: after");
    is(text_of($y), text_of($x), "$name: no-cache: the new one");
    is(text_of($y), 'two', "$name: no-cache: truly") if $kind ne 'embeddings';
}


# --- ... whatever the form: an older one of the other form is not given

for my $kind (qw(chat messages completions responses)) {
    for my $stream (0, 1) {
        my %ask = (say => Caching::question());
        my $name = "$kind, stored " . ($stream ? 'as a stream' : 'plain');

        is_cache($c->try($kind, %ask, stream => $stream,
                         mock => { text => 'one' }), 'MISS', $name);
        is_cache($c->try($kind, %ask, stream => !$stream || 0,
                         control => 'no-cache', mock => { text => 'two' }),
                 'BYPASS', "$name, afresh in the other form");

        for my $wanted (0, 1) {
            my $x = $c->try($kind, %ask, stream => $wanted);
            is_cache($x, 'HIT', "$name, as " . ($wanted ? 'stream' : 'plain'));
            is(text_of($x), 'two', "$name, as "
               . ($wanted ? 'stream' : 'plain') . ': the new one');
        }
    }
}


# --- no-store: not stored, but may be answered

for my $form (@FORMS) {
    my ($kind, $stream) = @$form;
    my $name = name_of(@$form);
    my %ask = (say => Caching::question(), stream => $stream);

    for my $n (1, 2) {
        my $x = $c->try($kind, %ask, control => 'no-store');
        is_cache($x, 'MISS', "$name: no-store, $n", reason => 'no-store');
    }

    is_cache($c->try($kind, %ask), 'MISS', "$name: nothing was stored");
    is_cache($c->try($kind, %ask, control => 'no-store'), 'HIT',
             "$name: no-store is answered");
    is_cache($c->try($kind, %ask), 'HIT', "$name: no-store takes nothing out");
}


# --- both: neither

{
    my %ask = (say => Caching::question());
    is_cache($c->try('chat', %ask, mock => { text => 'one' }), 'MISS',
             'both: before');
    my $x = $c->try('chat', %ask, control => 'no-cache, no-store',
                    mock => { text => 'two' });
    is($x->{r}->header('x-llm-cache'), 'BYPASS', 'both: BYPASS');
    is(text_of($x), 'two', 'both: asked afresh');
    my $y = $c->try('chat', %ask);
    is_cache($y, 'HIT', 'both: after');
    is(text_of($y), 'one', 'both: the new one was not stored');
}


# --- only-if-cached

for my $form (@FORMS) {
    my ($kind, $stream) = @$form;
    my $name = name_of(@$form);
    my %ask = (say => Caching::question(), stream => $stream);

    my $x = $c->try($kind, %ask, control => 'only-if-cached');
    is($x->{calls}, 0, "$name: only-if-cached: nobody was asked");
    my $error = is_error($x->{r}, $kind, 504, "$name: only-if-cached");
    is(Caching->logged($x)->{status}, 504, "$name: only-if-cached: logged");
    unlike($x->{r}->header('retry-after') // '', qr/./,
           "$name: only-if-cached: not to be tried again soon");

    is_cache($c->try($kind, %ask), 'MISS', "$name: only-if-cached: stored");
    is_cache($c->try($kind, %ask, control => 'only-if-cached'), 'HIT',
             "$name: only-if-cached: there");
}

{
    # of what is not looked up, too: there is nothing cached

    my $x = $c->try('chat', say => Caching::question(), key => undef,
                    control => 'only-if-cached');
    is_error($x->{r}, 'chat', 504, 'only-if-cached, no credential');
    is($x->{calls}, 0, 'only-if-cached, no credential: nobody was asked');

    my %ask = (say => Caching::question(), prefix => '/short',
               control => 'only-if-cached');
    $c->try('chat', %ask, control => undef);
    is_cache($c->try('chat', %ask), 'HIT', 'only-if-cached: still fresh');
    nap(2.1);
    is_error($c->try('chat', %ask)->{r}, 'chat', 504,
             'only-if-cached: its time is over');
}


# --- max-age

{
    my %ask = (say => Caching::question());
    is_cache($c->try('chat', %ask, mock => { text => 'one' }), 'MISS',
             'max-age: before');
    is_cache($c->try('chat', %ask, control => 'max-age=100'), 'HIT',
             'max-age=100');

    nap(2.1);

    is_cache($c->try('chat', %ask, control => 'max-age=100'), 'HIT',
             'max-age=100, later');
    my $x = $c->try('chat', %ask, control => 'max-age=1',
                    mock => { text => 'two' });
    is($x->{calls}, 1, 'max-age=1, later: asked');
    like($x->{r}->header('x-llm-cache'), qr/^(?:EXPIRED|BYPASS|MISS)$/,
         'max-age=1, later: it is too old');
    is($x->{r}->header('age'), undef, 'max-age=1, later: no Age');

    $x = $c->try('chat', %ask);
    is_cache($x, 'HIT', 'max-age: after');
    is(text_of($x), 'two', 'max-age: the new one');

    $x = $c->try('chat', %ask, control => 'max-age=0',
                 mock => { text => 'three' });
    is($x->{calls}, 1, 'max-age=0: asked');
    is(text_of($c->try('chat', %ask)), 'three', 'max-age=0: stored');
}


# --- how it is written

{
    my %ask = (say => Caching::question());
    $c->try('chat', %ask);

    for my $control ('No-Cache', 'foo, no-cache', 'max-age=100,no-cache',
                     'private="a, b" , no-cache', 'MAX-AGE=0', 'max-age="0"')
    {
        my $x = $c->try('chat', %ask, control => $control);
        is($x->{calls}, 1, "'$control': asked");
    }

    for my $control ('', 'foo', 'no-cachex', 'x-no-cache', 'foo="no-cache"',
                     'max-age=999999999999999999999',
                     'max-stale', 'public, max-age=1000')
    {
        my $x = $c->try('chat', %ask, control => $control);
        is($x->{calls}, 0, "'$control': not asked");
        is($x->{r}->status, 200, "'$control': answered");
    }

    my $x = $c->try('chat', %ask, headers => ['cache-control' => 'foo',
                                              'cache-control' => 'no-cache']);
    is($x->{calls}, 1, 'in a second header: asked');

    $x = $c->try('chat', %ask, h2 => 1, control => 'no-cache');
    is_cache($x, 'BYPASS', 'HTTP/2: no-cache', reason => 'no-cache');

    unlike($mock->last, qr/^cache-control:/mi,
           'the provider is not told of it');
}


# --- client_control=off

{
    my %ask = (say => Caching::question(), prefix => '/deaf');

    my $x = $c->try('chat', %ask, control => 'only-if-cached');
    is_cache($x, 'MISS', 'client_control=off: only-if-cached');
    is_cache($c->try('chat', %ask, control => $_), 'HIT',
             "client_control=off: $_")
        for 'no-cache', 'max-age=0', 'no-store', 'only-if-cached';

    %ask = (say => Caching::question(), prefix => '/deaf');
    is_cache($c->try('chat', %ask, control => 'no-store'), 'MISS',
             'client_control=off: no-store');
    is_cache($c->try('chat', %ask), 'HIT',
             'client_control=off: it was stored');
}


# --- llm_adapter_cache_bypass: afresh, then stored

for my $way ([headers => ['x-a' => 1]], [headers => ['x-a' => 'yes']],
             [query => 'b=1'])
{
    my %ask = (say => Caching::question(), prefix => '/bypass', @$way);
    my $name = "bypass by @$way[0]";
    my %plain = (%ask, headers => []);

    is_cache($c->try('chat', %ask, mock => { text => 'one' }), 'BYPASS',
             "$name: first", reason => 'bypass');
    is_cache($c->try('chat', %ask, mock => { text => 'two' }), 'BYPASS',
             "$name: again", reason => 'bypass');

    next if $way->[0] eq 'query';

    my $x = $c->try('chat', %plain);
    is_cache($x, 'HIT', "$name: it was stored");
    is(text_of($x), 'two', "$name: the last one");
}

{
    my %ask = (say => Caching::question(), prefix => '/bypass');

    $c->pair('chat', { %ask }, { %ask, headers => ['x-a' => 0] }, 'HIT',
             'bypass 0');
    is_cache($c->try('chat', %ask, headers => ['x-a' => '']), 'HIT',
             'bypass, empty');
}


# --- llm_adapter_no_cache: not stored, but may be answered

{
    my %ask = (say => Caching::question(), prefix => '/nocache');
    my %no = (%ask, headers => ['x-a' => 1]);

    for (1, 2) {
        my $x = $c->try('chat', %no);
        is_cache($x, 'MISS', "llm_adapter_no_cache, $_",
                 reason => 'no-store', late => 1);
    }

    is_cache($c->try('chat', %ask), 'MISS', 'nothing was stored');
    is_cache($c->try('chat', %no), 'HIT', 'llm_adapter_no_cache: answered');
    is_cache($c->try('chat', %ask, headers => ['x-a' => 0]), 'HIT',
             'llm_adapter_no_cache 0');
}


# --- where the cache is off nobody is asked for one

{
    my $x = $c->try('chat', say => Caching::question(), prefix => '/off',
                    control => 'only-if-cached');
    like($x->{r}->status, qr/^(?:200|504)$/, 'off: only-if-cached');

    for my $control ('no-cache', 'no-store', 'max-age=0') {
        $x = $c->try('chat', say => Caching::question(), prefix => '/off',
                     control => $control);
        is($x->{r}->status, 200, "off: $control");
        is($x->{calls}, 1, "off: $control: asked");
    }
}

no_alerts($t);
done_testing();
