#!/usr/bin/perl

# Which requests share an entry of the cache, and which must not: members,
# headers, the query, routes, tenants; when= and scope=; requests that use a
# provider's state.

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
    cache => 'on when=always',
    server => 'set $tenant $http_x_tenant;',
    http => <<'EOT',
    llm_adapter_provider second {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
    }
    llm_adapter_provider extra {
        endpoint http://127.0.0.1:%%MOCK%%/v1;
        dialect openai;
        key none;
        header OpenAI-Organization org-2;
    }
EOT
    locations => {
        '/same/v1/' => '',
        '/second/v1/' => 'llm_adapter second;',
        '/extra/v1/' => 'llm_adapter extra;',
        '/both/v1/' => 'llm_adapter second openai;',
        '/model/v1/' => 'llm_adapter second:gpt-5;',
        '/unasked/v1/' => 'llm_adapter_cache on;',
        '/fixed/v1/' => 'llm_adapter_cache on when=deterministic;',
        '/user/v1/' => 'llm_adapter_cache on scope=user when=always;',
        '/global/v1/' => 'llm_adapter_cache on scope=global when=always;',
        '/reveal/v1/' => 'llm_adapter_cache on scope=global reveal=on '
                         . 'when=always;',
        '/tenant/v1/' => 'llm_adapter_cache on scope=$tenant when=always;',
    });
my ($t, $mock) = @$c{qw(t mock)};

my %MODEL = (messages => 'claude-sonnet-4', count => 'claude-sonnet-4');


# The members of a request, as a list: name, JSON.

sub members {
    my ($kind, $say) = @_;

    my @list = (model => '"' . ($MODEL{$kind} // 'gpt-4o') . '"');
    my $messages = qq([{"role":"user","content":"$say"}]);

    return (@list, messages => $messages) if $kind =~ /^(?:chat|count)$/;
    return (@list, max_tokens => 900, messages => $messages)
        if $kind eq 'messages';
    return (@list, prompt => qq("$say")) if $kind eq 'completions';
    return (@list, input => qq("$say"), store => 'false')
        if $kind eq 'responses';
    return (@list, input => qq("$say"));
}


sub object {
    my @members = @_;
    my @text;

    while (@members) {
        my ($name, $value) = splice @members, 0, 2;
        push @text, qq("$name":$value);
    }

    return '{' . join(',', @text) . '}';
}


# Two requests are one to the cache, or not.

sub differ {
    my ($kind, $first, $second, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $c->pair($kind, $first, $second, 'MISS', $name);
}

sub share {
    my ($kind, $first, $second, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $c->pair($kind, $first, $second, 'HIT', $name);
}


# --- the body

for my $kind (qw(chat completions messages responses embeddings count)) {

    my @m = members($kind, Caching::question());
    my $base = { body => object(@m) };

    is_cache($c->try($kind, %$base), 'MISS', "$kind: first");
    is_cache($c->try($kind, %$base), 'HIT', "$kind: the same");

    # what does not matter: order and whitespace

    my @pairs = map { [@m[2 * $_, 2 * $_ + 1]] } 0 .. $#m / 2;
    is_cache($c->try($kind, body => object(map { @$_ } reverse @pairs)),
             'HIT', "$kind: members in another order");

    my $spaced = "\r\n {\t" . join(" ,\n ", map { qq("$_->[0]" :\t$_->[1]) }
                                          @pairs) . " }\n";
    $spaced =~ s/"role":"user","content"/"role" : "user" , "content"/;
    is_cache($c->try($kind, body => $spaced), 'HIT', "$kind: whitespace");

    (my $turned = object(@m)) =~
        s/("role":"user"),("content":"[^"]*")/$2,$1/;
    is_cache($c->try($kind, body => $turned), 'HIT',
             "$kind: another order within");

    # what does

    my %OTHER = (
        'an unknown member' => [x_unknown => 1],
        'an unknown member, of another value' => [x_unknown => '"1"'],
        'an unknown member, null' => [x_unknown => 'null'],
        'an unknown object' => [x_o => '{"a":{"b":[1,2]}}'],
        'an unknown object, an array in another order' =>
            [x_o => '{"a":{"b":[2,1]}}'],
        'a seed' => [seed => 1],
        'another seed' => [seed => 2],
        'a seed, a number written otherwise' => [seed => '1.0'],
        'a temperature' => [temperature => 0],
        'another temperature' => [temperature => '0.5'],
        'a response format' => [response_format => '{"type":"json_object"}'],
        'dimensions' => [dimensions => 64],
        'stop words' => [stop => '["a"]'],
        'a service tier' => [service_tier => '"flex"'],
    );

    $OTHER{'a name that is a listed one but for its case'} = [Stream => 1];

    for my $name (sort keys %OTHER) {
        my $body = object(@m, @{ $OTHER{$name} });
        is_cache($c->try($kind, body => $body), 'MISS', "$kind: $name");
        is_cache($c->try($kind, body => $body), 'HIT', "$kind: $name, again");
    }

    my @other = @m;
    $other[1] =~ s/.$/-2"/;
    is_cache($c->try($kind, body => object(@other)), 'MISS',
             "$kind: another model");

    @other = map { s/what is it/What is it/r } @m;
    is_cache($c->try($kind, body => object(@other)), 'MISS',
             "$kind: a letter");

    @other = map { s/question /question  /r } @m;
    is_cache($c->try($kind, body => object(@other)), 'MISS',
             "$kind: whitespace within a string");

    is_cache($c->try($kind, %$base), 'HIT', "$kind: the first is still there");
}

# those that are listed for the endpoint do not matter, others do

my %LISTED = (
    chat => [qw(user safety_identifier prompt_cache_key
                prompt_cache_retention metadata stream stream_options)],
    completions => [qw(user stream stream_options)],
    embeddings => [qw(user)],
    messages => [qw(metadata stream)],
    responses => [qw(stream stream_options)],
    count => [],
);

my %VALUE = (
    metadata => '{"user_id":"u-1"}', stream => 'false',
    stream_options => '{"include_obfuscation":false}',
);

for my $kind (sort keys %LISTED) {
    my %listed = map { $_ => 1 } @{ $LISTED{$kind} };

    for my $name (qw(user safety_identifier prompt_cache_key
                     prompt_cache_retention metadata stream stream_options))
    {
        next if $name =~ /^stream/ && !$listed{$name};

        my @m = members($kind, Caching::question());
        my $value = $VALUE{$name} // '"u-1"';

        my $want = $listed{$name} ? 'HIT' : 'MISS';
        $c->pair($kind, { body => object(@m) },
                 { body => object(@m, $name => $value) }, $want,
                 "$kind: $name");
    }
}

# the order of members at any depth, but not that of arrays

{
    my $say = Caching::question();
    my @m = members('chat', $say);
    my $tools = sub {
        my (@names) = @_;
        return '[' . join(',', map {
            qq({"type":"function","function":{"name":"$_","parameters":)
            . '{"type":"object","properties":{"a":{"type":"string"},'
            . '"b":{"type":"number","minimum":0}}}}}' } @names) . ']';
    };

    my $body = object(@m, tools => $tools->('f', 'g'));
    (my $turned = $body) =~
        s/("a":\{[^{}]*\}),("b":)\{("type":"number"),("minimum":0)\}/$2\{$4,$3\},$1/g;
    isnt($turned, $body, 'members were turned');

    share('chat', { body => $body }, { body => $turned },
          'order of members, deep');
    is_cache($c->try('chat', body => object(@m, tools => $tools->('g', 'f'))),
             'MISS', 'order of an array');
}

# escapes are as they were written; a member that comes twice

differ('chat', { say => "a\\u0062c $$" }, { say => "abc $$" },
       'an escaped letter');
{
    my @m = members('chat', Caching::question());
    $c->pair('chat', { body => object(@m, seed => 1, seed => 2) },
             { body => object(@m, seed => 2, seed => 1) }, 'MISS',
             'a member twice, in another order');
}


# --- the endpoint, the query, headers

for my $pair (['"prompt":"%s"', qw(chat completions)],
              ['"input":"%s","store":false', qw(chat responses embeddings)])
{
    my ($more, @kinds) = @$pair;
    my $say = Caching::question();
    my $text = '{"model":"gpt-4o",' . sprintf($more, $say)
               . qq(,"messages":[{"role":"user","content":"$say"}]});

    is_cache($c->try($_, body => $text), 'MISS', "one body, $_") for @kinds;
    is_cache($c->try($_, body => $text), 'HIT', "one body again, $_")
        for @kinds;
}

for my $kind (qw(chat messages)) {
    my $say = Caching::question();
    my %ask = (say => $say);

    differ($kind, { %ask }, { %ask, query => 'a=1' }, "$kind: a query");
    is_cache($c->try($kind, %ask, query => 'a=1'), 'HIT',
             "$kind: the same query");
    is_cache($c->try($kind, %ask, query => 'a=2'), 'MISS',
             "$kind: another query");

    for my $name (qw(anthropic-beta openai-beta)) {
        my %one = (say => Caching::question());
        differ($kind, { %one }, { %one, headers => [$name => 'x-2025'] },
               "$kind: $name");
        is_cache($c->try($kind, %one, headers => [$name => 'x-2025']), 'HIT',
                 "$kind: the same $name");
        is_cache($c->try($kind, %one, headers => [$name => 'y-2025']), 'MISS',
                 "$kind: another $name");
        is_cache($c->try($kind, %one, headers => [$name => "$_-2025",
                         $name => 'x-2025']), 'MISS',
                 "$kind: $name twice, $_") for qw(y z);
    }

    my %two = (say => Caching::question());
    share($kind, { %two, headers => ['anthropic-beta' => 'a-1,b-2,c-3'] },
          { %two, headers => ['anthropic-beta' => 'c-3, a-1 ,b-2'] },
          "$kind: anthropic-beta in another order");
    is_cache($c->try($kind, %two, headers => [
                 'anthropic-beta' => 'b-2', 'anthropic-beta' => 'c-3,a-1']),
             'HIT', "$kind: anthropic-beta in two headers");
    is_cache($c->try($kind, %two, headers => ['anthropic-beta' => 'a-1,b-2']),
             'MISS', "$kind: anthropic-beta, one less");

    my %three = (say => Caching::question());
    share($kind, { %three }, { %three, headers => [
              'user-agent' => 'other/1', 'x-other' => 1,
              traceparent => '00-0123456789abcdef0123456789abcdef-0123456789abcdef-01',
              accept => 'text/html', cookie => 'a=b' ] },
          "$kind: headers that do not matter");
}

{
    my %ask = (say => Caching::question());
    differ('messages', { %ask },
           { %ask, headers => ['anthropic-version' => '2024-01-01'] },
           'anthropic-version');
}


# --- the route

{
    my %ask = (say => Caching::question());

    share('chat', { %ask }, { %ask, prefix => '/same' },
          'another location, the same route');

    is_cache($c->try('chat', %ask, prefix => "/$_"), 'MISS', "route $_")
        for qw(second extra both model);
    is_cache($c->try('chat', %ask, prefix => "/$_"), 'HIT',
             "route $_, again") for qw(second extra both model);
    is_cache($c->try('chat', %ask), 'HIT', 'the first route, again');
}


# --- tenants

for my $form (['chat', 0], ['chat', 1], ['messages', 0], ['embeddings', 0]) {
    my ($kind, $stream) = @$form;
    my $name = "$kind, " . ($stream ? 'stream' : 'plain');
    my %ask = (say => Caching::question(), stream => $stream);

    my @tenants = ('sk-tenant-a', 'sk-tenant-b', 'sk-tenant-A', 'sk-tenant-');

    for my $n (0 .. $#tenants) {
        my $x = $c->try($kind, %ask, key => $tenants[$n],
                        mock => { text => "for tenant number $n" });
        is_cache($x, 'MISS', "$name: tenant $n asks");
    }

    for my $n (0 .. $#tenants) {
        my $x = $c->try($kind, %ask, key => $tenants[$n]);
        is_cache($x, 'HIT', "$name: tenant $n again");
        is(content_of($x->{r}, $kind, $stream)->{text},
           "for tenant number $n", "$name: tenant $n has the own answer")
            if $kind ne 'embeddings';
    }

    for (1, 2) {
        is_cache($c->try($kind, %ask, key => undef), 'BYPASS',
                 "$name: without a credential", reason => 'no-scope');
    }

    my $x = $c->try($kind, %ask, key => undef,
                    headers => [authorization => '']);
    is_cache($x, 'BYPASS', "$name: an empty credential",
             reason => 'no-scope');
}

# the credential's other places

{
    my %ask = (say => Caching::question(), key => undef);
    my %place = (
        'x-api-key' => 'sk-other', 'api-key' => 'sk-other-2',
        'authorization' => 'Bearer sk-other-3', 'x-goog-api-key' => 'sk-other-4',
    );

    for my $name (sort keys %place) {
        my @headers = (headers => [$name => $place{$name}]);
        is_cache($c->try('chat', %ask, @headers), 'MISS', "by $name");
        is_cache($c->try('chat', %ask, @headers), 'HIT', "by $name, again");
    }
}

{
    my %ask = (say => Caching::question(), key => undef);
    is_cache($c->try('chat', %ask, query => "key=sk-q-$_"), 'MISS',
             "by an argument, $_") for 1, 2;
    is_cache($c->try('chat', %ask, query => "key=sk-q-$_"), 'HIT',
             "by an argument, $_, again") for 1, 2;
}

# scope=user: the credential and whom it names

{
    my %ask = (say => Caching::question(), prefix => '/user');
    my $u = sub { return (more => qq("user":"$_[0]")) };

    is_cache($c->try('chat', %ask, $u->('u-1')), 'MISS', 'user 1');
    is_cache($c->try('chat', %ask, $u->('u-2')), 'MISS', 'user 2');
    is_cache($c->try('chat', %ask, $u->('u-1')), 'HIT', 'user 1, again');
    is_cache($c->try('chat', %ask, $u->('u-2')), 'HIT', 'user 2, again');
    is_cache($c->try('chat', %ask, more => '"safety_identifier":"u-1"'),
             'MISS', 'safety_identifier is another one');
    is_cache($c->try('chat', %ask, $u->('u-1'), key => 'sk-tenant-b'),
             'MISS', "user 1 of another tenant");
    is_cache($c->try('chat', %ask, $u->('u-1'), key => undef), 'BYPASS',
             'user 1 without a credential', reason => 'no-scope');
    is_cache($c->try('chat', %ask), 'BYPASS', 'nobody is named',
             reason => 'no-scope');

    my %say = (say => Caching::question(), prefix => '/user');
    my $m = sub { return (more => qq("metadata":{"user_id":"$_[0]"})) };
    is_cache($c->try('messages', %say, $m->('u-1')), 'MISS',
             'messages: user 1');
    is_cache($c->try('messages', %say, $m->('u-2')), 'MISS',
             'messages: user 2');
    is_cache($c->try('messages', %say, $m->('u-1')), 'HIT',
             'messages: user 1, again');
}

# scope=global: all, and nothing is revealed but with reveal=on

{
    my %ask = (say => Caching::question(), prefix => '/global');
    my $x = $c->try('chat', %ask);
    my $y = $c->try('chat', %ask, key => 'sk-tenant-b');
    my $z = $c->try('chat', %ask, key => undef);

    is(join(' ', map { $_->{calls} } $x, $y, $z), '1 0 0', 'global: asked once');
    is(Caching->logged($x)->{cache}, 'MISS', 'global: the log of the first');
    is(Caching->logged($_)->{cache}, 'HIT', 'global: the log of others')
        for $y, $z;

    for my $one ($x, $y, $z) {
        is($one->{r}->header($_), undef, "global: no $_")
            for qw(x-llm-cache age x-llm-cache-key x-llm-cache-reason);
    }

    %ask = (say => Caching::question(), prefix => '/reveal');
    is_cache($c->try('chat', %ask), 'MISS', 'reveal');
    is_cache($c->try('chat', %ask, key => 'sk-tenant-b'), 'HIT',
             'reveal, another tenant');
}

# scope=$variable

{
    my %ask = (say => Caching::question(), prefix => '/tenant');
    my $t1 = [headers => ['x-tenant' => 't-1']];
    my $t2 = [headers => ['x-tenant' => 't-2']];

    is_cache($c->try('chat', %ask, @$t1), 'MISS', 'variable: t-1');
    is_cache($c->try('chat', %ask, @$t1, key => 'sk-tenant-b'), 'HIT',
             'variable: t-1 by another credential');
    is_cache($c->try('chat', %ask, @$t1, key => undef), 'HIT',
             'variable: t-1 without a credential');
    is_cache($c->try('chat', %ask, @$t2), 'MISS', 'variable: t-2');
    is_cache($c->try('chat', %ask), 'BYPASS', 'variable: empty',
             reason => 'no-scope');
}


# --- when

{
    my @cases = (
        # more, unasked, deterministic
        ['', 'HIT', 'BYPASS'],
        ['"temperature":0', 'HIT', 'HIT'],
        ['"temperature":0.0', 'HIT', 'HIT'],
        ['"temperature":1', 'BYPASS', 'BYPASS'],
        ['"temperature":1e-3', 'BYPASS', 'BYPASS'],
        ['"temperature":0,"top_p":0.5', 'BYPASS', 'BYPASS'],
        ['"top_p":1', 'HIT', 'BYPASS'],
        ['"n":2', 'BYPASS', 'BYPASS'],
        ['"n":1', 'HIT', 'BYPASS'],
        ['"temperature":null', 'HIT', 'BYPASS'],
    );

    for my $case (@cases) {
        my ($more, @want) = @$case;

        for my $where ('/unasked', '/fixed', '') {
            my $want = shift @want // 'HIT';
            my %ask = (say => Caching::question(), prefix => $where,
                       ($more ne '' ? (more => $more) : ()));
            my $name = "{$more} at '$where'";

            my $x = $c->try('chat', %ask);
            my $y = $c->try('chat', %ask);

            if ($want eq 'HIT') {
                is_cache($x, 'MISS', "$name: first");
                is_cache($y, 'HIT', "$name: again");

            } else {
                is_cache($_, 'BYPASS', $name, reason => 'sampled')
                    for $x, $y;
            }
        }
    }

    my %ask = (say => Caching::question(), prefix => '/fixed');
    is_cache($c->try('embeddings', %ask), 'MISS', 'embeddings are fixed');
    is_cache($c->try('embeddings', %ask), 'HIT', 'embeddings, again');
}


# --- requests with a state

{
    my @cases = (
        ['responses', 'store' => 'true'],
        ['responses', 'store' => 'null'],
        ['responses', undef],
        ['responses', 'store' => 'false',
         previous_response_id => '"resp_0123456789"'],
        ['responses', 'store' => 'false', conversation => '"conv_012345678"'],
        ['responses', 'store' => 'false', background => 'true'],
        ['responses', 'store' => 'false', prompt => '{"id":"pmpt_0123456"}'],
        ['responses', 'store' => 'false', tools => '[{"type":"web_search"}]'],
        ['responses', 'store' => 'false',
         tools => '[{"type":"function","name":"f","parameters":{}},'
                  . '{"type":"code_interpreter","container":{"type":"auto"}}]'],
        ['chat', 'store' => 'true'],
        ['chat', 'web_search_options' => '{}'],
        ['messages', 'container' => '"container_0123456"'],
        ['messages', tools =>
         '[{"type":"web_search_20250305","name":"web_search"}]'],
        ['messages', tools => '[{"type":"code_execution_20250522",'
                              . '"name":"code_execution"}]'],
        ['messages', mcp_servers =>
         '[{"type":"url","url":"https://x.test/","name":"x"}]'],
    );

    for my $case (@cases) {
        my ($kind, @more) = @$case;
        my %m = members($kind, Caching::question());
        delete $m{store};
        %m = (%m, @more) if defined $more[0];
        my $body = object(map { $_ => $m{$_} } sort keys %m);
        my $name = "$kind, " . join ' ', map { $_ // 'no store' } @more;

        is_cache($c->try($kind, body => $body), 'BYPASS', $name,
                 reason => 'stateful') for 1, 2;
    }

    # and those that only look like it

    my $function = '[{"type":"function","name":"f","parameters":{}}]';
    my @fine = (
        ['responses', tools => $function],
        ['responses', previous_response_id => 'null'],
        ['responses', background => 'false'],
        ['chat', store => 'false'],
        ['chat', tools => '[{"type":"function","function":{"name":"f"}}]'],
        ['messages', tools =>
         '[{"name":"f","input_schema":{"type":"object"}}]'],
        ['messages', tools => '[{"type":"bash_20250124","name":"bash"}]'],
        ['messages', mcp_servers => '[]'],
    );

    for my $case (@fine) {
        my ($kind, @more) = @$case;
        my $body = object(members($kind, Caching::question()), @more);
        $c->pair($kind, { body => $body }, { body => $body }, 'HIT',
                 "$kind, @more");
    }
}

no_alerts($t);
done_testing();
