// The npm package @anthropic-ai/sdk.

import Anthropic, { toFile } from '@anthropic-ai/sdk';

import {
    aborts, assert, base, brief, credentials, ctl, drain, gateway, hash,
    lastBody, main, raised, requests, sent, shape as openai_shape, test,
    unique, whenArrived,
} from './run.mjs';

const make = (prefix = '', more = {}) => new Anthropic({
    baseURL: `${base}${prefix}`, apiKey: 'sk-of-the-client', maxRetries: 0,
    timeout: 10000, ...more,
});

const shape = (e) => ({ ...openai_shape(e), type: e?.type });

const client = make();
const byok = make('/byok_claude');
const model = 'claude-mock';
const ask = {
    model, max_tokens: 100000, system: 'Be brief.',
    messages: [{ role: 'user', content: 'Grüße, 世界 🌍 "quoted" \\ \u0001' }],
};
const tools = [{
    name: 'get_weather', description: 'of a place',
    input_schema: { type: 'object', required: ['location'],
                    properties: { location: { type: 'string' } } },
}];

const say = (body, o) => client.messages.create({ ...ask, ...body }, o);
const text = (items) => items.map((e) => e.delta?.text ?? '').join('');


// --- messages ---

test('messages', async () => {
    const r = await say({}, ctl());
    assert.equal(r.stop_reason, 'end_turn');
    assert.ok(r.usage.output_tokens > 0);
    return { r, sent: await sent() };
});

test('messages: the request is sent as it is', async () => {
    const r = await say({
        temperature: 1.0, top_k: 5, metadata: { user_id: '<&>\u2028' },
        unknown_member: [1, { b: null }], stop_sequences: ['\n\n'],
        system: [{ type: 'text', text: 'Be brief.',
                   cache_control: { type: 'ephemeral' } }],
    }, ctl({ cached: 100 }, {
        query: { beta: 'true' },
        headers: { 'anthropic-beta': 'a-2025-01-01,b-2026-02-02' },
    }));
    return { r, sent: await sent() };
});

for (const [name, controls] of Object.entries({
    'as it comes': {},
    'CRLF, comments, ids': { eol: 'crlf', comments: 1, ids: 1, bom: 1 },
    'CR, data of many lines': { eol: 'cr', multiline: 1 },
    'split into 7 bytes': { split: 7 },
    'unknown members and events': { unknown: 1 },
    'thinking': { thinking: 5 },
    'cached': { cached: 50 },
    'an event of 2 MB': { big_event: '2m', events: 3 },
    '3,000 events': { events: 3000, size: 20 },
    'by Content-Length': { stream_framing: 'length' },
    'until close': { stream_framing: 'close' },
    'heartbeats': { gap: 30, events: 4, heartbeat: 10 },
})) {
    test(`messages stream: ${name}`, async () => {
        const { items, error } = await drain(
            await say({ stream: true }, ctl(controls)));
        assert.equal(error, null);
        assert.equal(items.at(-1).type, 'message_stop');
        return items.length > 100
            ? { n: items.length, text: text(items) } : items;
    });
}

test('messages stream: text in pieces of a byte', async () => {
    const words = 'Grüße, 世界 🌍 "quoted" \\ event: message_stop';
    const { items } = await drain(await say({
        stream: true,
        model: `claude-mock@size=1;text=${encodeURIComponent(words)}`,
    }, ctl()));
    assert.equal(text(items), words);
    return items;
});

test('messages stream: helper', async () => {
    const seen = [];
    const s = client.messages.stream(ask, ctl({ events: 10, thinking: 2 }));
    s.on('text', (t) => seen.push(t));
    const r = await s.finalMessage();
    assert.equal(seen.join(''), r.content.at(-1).text);
    return { r, sent: await sent() };
});

test('messages: beta', async () => {
    const r = await client.beta.messages.create(
        { ...ask, betas: ['context-1m-2025-08-07'] }, ctl());
    const { line, headers } = await sent();
    assert.match(headers['anthropic-beta'], /context-1m-2025-08-07/);
    return { r, line, headers };
});

test('messages: limited by max_tokens', async () => {
    const r = await say({ max_tokens: 3 }, ctl());
    assert.equal(r.stop_reason, 'max_tokens');
    return r;
});

test('count_tokens', async () => {
    const { max_tokens, ...rest } = ask;
    const r = await client.messages.countTokens(rest, ctl());
    assert.ok(r.input_tokens > 0);
    return { r, sent: await sent() };
});


// --- tools ---

test('tools', async () => {
    const r = await say({ tools }, ctl({ tools: 2 }));
    assert.equal(r.stop_reason, 'tool_use');
    assert.deepEqual(r.content.map((c) => c.input.location),
                     ['Paris, France', 'Rome, Italy']);
    return r;
});

test('tools, stream', async () => {
    const s = client.messages.stream({ ...ask, tools },
                                     ctl({ tools: 2, events: 6 }));
    const pieces = [];
    s.on('inputJson', (part) => pieces.push(part));
    const r = await s.finalMessage();
    assert.deepEqual(r.content.map((c) => c.input.location),
                     ['Paris, France', 'Rome, Italy']);
    assert.ok(pieces.length > 6);
    return { r, pieces };
});

// The provider keeps the conversation, only the result is sent.
test('tools: the SDK\'s own loop, stream', async () => {
    const seen = [];
    const runner = client.beta.messages.toolRunner({
        ...ask, stream: true,
        model: 'claude-mock@tools=1;events=4;seed=7',
        tools: [{
            ...tools[0], parse: (a) => a,
            run: (a) => { seen.push(a.location); return 'sunny'; },
        }],
    });
    const last = await runner.runUntilDone();
    assert.deepEqual(seen, ['Paris, France']);
    assert.equal(last.stop_reason, 'end_turn');
    return { last, sent: await sent() };
});

test('tools: two turns, stream', async () => {
    const messages = [...ask.messages];
    const seen = [];

    for (let turn = 0; turn < 3; turn++) {
        const r = await client.messages.stream(
            { ...ask, messages, tools }, ctl({ tools: 1, turns: 2 }),
        ).finalMessage();

        messages.push({ role: 'assistant', content: r.content });
        if (r.stop_reason !== 'tool_use') break;

        seen.push(r.content[0].input.location);
        messages.push({ role: 'user', content: [{
            type: 'tool_result', tool_use_id: r.content[0].id,
            content: 'sunny',
        }] });
    }

    assert.deepEqual(seen, ['Paris, France', 'Rome, Italy']);
    return { messages, sent: await sent() };
});


// --- models, other endpoints ---

test('models', { differ: true }, async () => {
    const list = [];
    if (gateway) {
        for await (const m of client.models.list({ limit: 1000 })) {
            list.push(m);
        }
        assert.ok(list.some((m) => m.id === model && m.type === 'model'));

        const one = await client.models.retrieve(model);
        assert.equal(one.id, model);
        assert.equal(one.type, 'model');

        const e = await raised(() => client.models.retrieve('claude-none'));
        assert.equal(e.constructor, Anthropic.NotFoundError);
        assert.equal(e.type, 'not_found_error');
    }
    return list;
});

test('files: a multipart upload', async () => {
    const content = Buffer.alloc(2 << 20, 'some text\n');
    const file = await make('/claude').beta.files.upload(
        { file: await toFile(content, 'a.txt', { type: 'text/plain' }) },
        ctl());
    const body = await lastBody();
    assert.ok(body.includes(content), 'the content arrived');
    assert.equal(body.length, file.bytes);
    const { crc32, ...rest } = file;
    return rest;
});


// --- what goes wrong ---

const classes = {
    400: Anthropic.BadRequestError, 401: Anthropic.AuthenticationError,
    403: Anthropic.PermissionDeniedError, 404: Anthropic.NotFoundError,
    409: Anthropic.ConflictError, 413: Anthropic.APIError,
    422: Anthropic.UnprocessableEntityError, 429: Anthropic.RateLimitError,
    500: Anthropic.InternalServerError, 529: Anthropic.InternalServerError,
};

for (const [status, type] of Object.entries(classes)) {
    for (const stream of [false, true]) {
        test(`error ${status}${stream ? ', stream' : ''}`, async () => {
            const e = await raised(() => byok.messages.create(
                { ...ask, stream }, ctl({ status })));
            assert.ok(e instanceof type);
            assert.equal(e.status, +status);
            if (['401', '403', '404'].includes(status)) {
                return shape(e);
            }
            const own = await raised(() => say({ stream }, ctl({ status })));
            assert.deepEqual(brief(shape(own)), brief(shape(e)));
            return shape(e);
        });
    }
}

test('error: the gateway\'s own key is refused', { only: 'gateway' },
     async () => {
    const e = await raised(() => say({}, ctl({ status: 401 })));
    assert.equal(e.status, 502, 'not the client\'s fault');
    assert.ok(e.type && e.error.error.message);
    return shape(e);
});

test('error: the context is too long', async () => {
    const e = await raised(() => say({}, ctl(
        { status: 400, code: 'context_length_exceeded' })));
    assert.match(e.message, /prompt is too long: \d+ tokens > \d+ maximum/);
    return shape(e);
});

test('error: the provider\'s own complaint', async () => {
    const e = await raised(() => say({ max_tokens: undefined }, ctl()));
    assert.equal(e.constructor, Anthropic.BadRequestError);
    return shape(e);
});

test('429 is tried again', async () => {
    const before = await requests();
    const start = Date.now();
    const r = await make('', { maxRetries: 2 }).messages.create(
        ask, ctl({ status: 429, fails: 1, key: unique(), retry_after: 1 }));
    assert.equal(await requests() - before, 2);
    assert.ok(Date.now() - start >= 900, 'Retry-After is obeyed');
    return r;
});

test('529 is tried again, but not for ever', async () => {
    const before = await requests();
    const e = await raised(() => make('', { maxRetries: 1 }).messages.create(
        ask, ctl({ status: 529, retry_after_ms: 20 })));
    assert.equal(await requests() - before, 2);
    return shape(e);
});

test('x-should-retry is passed on', async () => {
    const before = await requests();
    await raised(() => make('', { maxRetries: 2 }).messages
        .create(ask, ctl({ status: 529, should_retry: 'false' })));
    assert.equal(await requests() - before, 1);
});

test('a closed connection', { differ: true }, async () => {
    const list = [];
    for (const fault of ['reset', 'close', 'bad_head', 'close_mid_head']) {
        const e = await raised(() => say({}, ctl({ fault })));
        if (gateway) {
            assert.equal(e.status, 502, fault);
            assert.equal(e.type, 'api_error', fault);
        }
        list.push(shape(e));
    }
    return list;
});


// --- streams that fail ---

const open = (fault, o = {}) => say(
    { stream: true }, ctl({ fault, at: 3, events: 8, ...o }));
const complete = (items) => items.some((i) => i.type === 'message_stop');

test('an error event after content', async () => {
    const { items, error } = await drain(await open('error_event'));
    assert.ok(items.length > 2 && !complete(items));
    assert.ok(error instanceof Anthropic.APIError);
    return { items, error: shape(error) };
});

for (const fault of ['cut', 'reset_mid', 'clean_cut']) {
    test(`${fault} after content`, { differ: true }, async () => {
        const { items, error } = await drain(await open(fault));
        assert.ok(!complete(items), 'never looks complete');
        if (gateway) {
            assert.ok(error instanceof Anthropic.APIError,
                      `the SDK is told: ${error}`);
            assert.ok(error.type, 'of what kind it is');
        }
        return { n: items.length, error: error && shape(error) };
    });
}

test('no message_stop after a stop_reason', { differ: true }, async () => {
    const { items, error } = await drain(await open('no_done'));
    assert.equal(error, null);
    assert.equal(complete(items), gateway);
});

test('the helper fails, too', { differ: true }, async () => {
    for (const fault of ['cut', 'clean_cut', 'error_event']) {
        const s = client.messages.stream(ask, ctl({ fault, at: 3,
                                                    events: 8 }));
        await raised(() => s.finalMessage());
    }
});

test('an error before content', { differ: true }, async () => {
    let e;
    try {
        e = (await drain(await open('error_first'))).error;
    } catch (x) {
        e = x;
    }
    assert.ok(e instanceof Anthropic.APIError);
    if (gateway) {
        assert.equal(e.status, 529, 'as a status, so that SDKs try again');
    }
    return shape(e);
});

test('a malformed event is not shown', { differ: true }, async () => {
    const { items, error } = await drain(await open('malformed', { at: 2 }));
    if (gateway) {
        assert.equal(error, null);
        assert.ok(complete(items));
    }
    return items.length;
});


// the SDK drops an event that no blank line follows
test('no last newline', { differ: true }, async () => {
    const { items, error } = await drain(await say(
        { stream: true }, ctl({ no_last_newline: 1 })));
    if (gateway) {
        assert.equal(error, null);
        assert.ok(complete(items));
    }
});


// --- time ---

test('timeout of the SDK', async () => {
    const list = [];
    for (const stream of [false, true]) {
        let e;
        await aborts(async () => {
            e = await raised(() => say({ stream }, ctl({ delay: 5000 },
                                                       { timeout: 500 })));
        });
        assert.equal(e.constructor, Anthropic.APIConnectionTimeoutError);
        list.push(shape(e));
    }
    return list;
});

test('timeouts of the gateway', { only: 'gateway' }, async () => {
    const slow = make('/slow').messages;
    const list = [];

    for (const stream of [false, true]) {
        const e = await raised(() => slow.create({ ...ask, stream },
                                                 ctl({ delay: 3000 })));
        assert.equal(e.status, 504);
        assert.ok(e.type);
        list.push(shape(e));
    }

    const { items, error } = await drain(await slow.create(
        { ...ask, stream: true }, ctl({ fault: 'stall', at: 3 })));
    assert.ok(items.length > 1 && error instanceof Anthropic.APIError);
    assert.ok(!complete(items));
    list.push(shape(error));
    return list;
});

test('pings are not seen', { differ: true }, async () => {
    const { items, error } = await drain(await make('/ping').messages.create(
        { ...ask, stream: true }, ctl({ events: 3, gap: 200 })));
    assert.equal(error, null);
    assert.ok(complete(items));
});


// --- giving up ---

test('abort: while waiting', async () => {
    await aborts(async () => {
        const signal = await whenArrived();
        const e = await raised(() => say({}, ctl({ delay: 5000 },
                                                 { signal })));
        assert.equal(e.constructor, Anthropic.APIUserAbortError);
    });
});

test('abort: a stream', async () => {
    const slowly = () => ctl({ events: 500, gap: 20 });

    await aborts(async () => {
        const s = await say({ stream: true }, slowly());
        let n = 0;
        for await (const event of s) {
            if (++n === 5) s.controller.abort();
        }
        assert.ok(n < 10);
    });

    await aborts(async () => {
        for await (const e of await say({ stream: true }, slowly())) {
            if (e.type === 'content_block_delta') break;
        }
    });

    await aborts(async () => {
        const s = client.messages.stream(ask, slowly());
        s.on('text', () => s.abort());
        const e = await raised(() => s.done());
        assert.equal(e.constructor, Anthropic.APIUserAbortError);
    });
});


// --- size and number ---

test('a body of 4 MB', async () => {
    const r = await say({ messages: [
        { role: 'user', content: 'wörd "x" \n'.repeat(400000) }] },
    ctl({ keep: 1 }));
    return { r, sent: await sent() };
});

test('an answer of 8 MB', async () => {
    return say({}, ctl({ total: '8m' }));
});

test('too large a body', { only: 'gateway' }, async () => {
    const e = await raised(() => make('/small').messages.create({
        ...ask, messages: [{ role: 'user', content: 'x'.repeat(200000) }],
    }, ctl()));
    assert.equal(e.status, 413);
    assert.equal(e.type, 'request_too_large');
    return shape(e);
});

test('40 streams at a time', async () => {
    const all = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
        const { items, error } = await drain(await say(
            { stream: true }, ctl({ seed: i + 1, events: 30, gap: 2 })));
        assert.equal(error, null);
        return text(items);
    }));
    assert.equal(new Set(all).size, 40);
    return all;
});


// --- the gateway's own ---

test('errors of the gateway', { only: 'gateway' }, async () => {
    const list = [];

    let e = await raised(() => say({ model: 'nobody-knows' }));
    assert.equal(e.constructor, Anthropic.NotFoundError);
    assert.equal(e.type, 'not_found_error');
    list.push(shape(e));

    e = await raised(() => say({ model: 'gpt-mock' }));
    assert.equal(e.constructor, Anthropic.BadRequestError);
    assert.equal(e.type, 'invalid_request_error');
    list.push(shape(e));

    e = await raised(() => say({ messages: undefined }));
    assert.equal(e.constructor, Anthropic.BadRequestError);
    list.push(shape(e));

    e = await raised(() => make('/strict').beta.files.list());
    assert.equal(e.constructor, Anthropic.NotFoundError);
    assert.equal(e.type, 'not_found_error');
    list.push(shape(e));
    return list;
});

test('the client\'s key', async () => {
    const { data, response } = await byok.messages.create(ask, ctl())
        .withResponse();
    const keys = await credentials();
    assert.match(JSON.stringify(keys), /sk-of-the-client/);
    assert.ok(response.headers.get('anthropic-ratelimit-requests-limit'));
    return { data, keys, sent: await sent() };
});

test('headers', { only: 'gateway' }, async () => {
    const { response, request_id } = await client.messages
        .create(ask, ctl()).withResponse();
    const h = response.headers;
    const { authorization, key } = await credentials();
    assert.equal(key, 'sk-of-the-gateway');
    assert.equal(authorization, undefined);
    assert.equal(h.get('x-llm-provider'), 'anthropic');
    assert.equal(h.get('request-id'), request_id);
    assert.ok(request_id);
    for (const name of ['set-cookie', 'anthropic-organization-id',
                        'anthropic-ratelimit-requests-limit'])
    {
        assert.equal(h.get(name), null, name);
    }
});

await main();
