// The npm package openai.

import OpenAI, { toFile } from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import {
    aborts, assert, base, brief, credentials, ctl, drain, gateway, hash,
    lastBody, main, plainChunk, raised, requests, sent, shape, test, unique,
    whenArrived,
} from './run.mjs';

const make = (prefix = '', more = {}) => new OpenAI({
    baseURL: `${base}${prefix}/v1`, apiKey: 'sk-of-the-client', maxRetries: 0,
    timeout: 10000, ...more,
});

const client = make();
const byok = make('/byok');
const model = 'gpt-mock';
const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Grüße, 世界 🌍 "quoted" \\ \u0001' },
];
const ask = { model, messages };
const tools = [{
    type: 'function',
    function: {
        name: 'get_weather', description: 'of a place',
        parameters: { type: 'object', required: ['location'],
                      properties: { location: { type: 'string' } } },
    },
}, {
    type: 'function',
    function: { name: 'get_time', parameters: { type: 'object',
                                                properties: {} } },
}];

const chat = (body, o) => client.chat.completions.create({ ...ask, ...body },
                                                         o);
const text = (chunks) => chunks.map((c) => c.choices[0]?.delta?.content ?? '')
    .join('');


// --- chat ---

test('chat', async () => {
    const r = await chat({}, ctl());
    assert.equal(r.choices[0].finish_reason, 'stop');
    assert.ok(r.usage.completion_tokens > 0);
    return { r, sent: await sent() };
});

test('chat: the request is sent as it is', async () => {
    const r = await chat({
        temperature: 0.10000000000000001, seed: 12345678901, n: 1,
        metadata: { a: '<&>', b: '\u2028' }, unknown_member: [1, { b: null }],
        stop: ['\n\n'], logit_bias: { 50256: -100 },
    }, ctl({ unknown: 1 }, { query: { a: 'b c' } }));
    return { r, sent: await sent() };
});

test('chat stream: no usage unless it is asked for', async () => {
    const { items, error } = await drain(await chat({ stream: true },
                                                    ctl({ events: 20 })));
    assert.equal(error, null);
    assert.ok(items.every((c) => c.choices.length === 1), 'empty choices');
    assert.ok(items.every((c) => !c.usage), 'a usage');
    assert.equal(items.at(-1).choices[0].finish_reason, 'stop');
    return items.map(plainChunk);
});

test('chat stream: with usage', async () => {
    const { items, error } = await drain(await chat(
        { stream: true, stream_options: { include_usage: true } }, ctl()));
    assert.equal(error, null);
    assert.deepEqual(items.at(-1).choices, []);
    assert.ok(items.at(-1).usage.total_tokens > 0);
    return { items, sent: await sent() };
});

test('chat stream: usage not wanted, other stream options', async () => {
    const { items } = await drain(await chat(
        { stream: true, stream_options: { include_obfuscation: false } },
        ctl({ obfuscation: 1 })));
    assert.ok(items.every((c) => c.choices.length && !c.usage));
    return items.map(plainChunk);
});

for (const [name, controls] of Object.entries({
    'Azure, obfuscation': { azure: 1, obfuscation: 1 },
    'CRLF, comments, ids': { eol: 'crlf', comments: 1, ids: 1, bom: 1 },
    'CR, data of many lines': { eol: 'cr', multiline: 1 },
    'split into 7 bytes': { split: 7 },
    'no last newline': { no_last_newline: 1 },
    'unknown members': { unknown: 1 },
    'usage in the last chunk': { usage: 'last', prompt_tokens: 9 },
    'reasoning': { thinking: 4 },
    'an event of 2 MB': { big_event: '2m', events: 3 },
    '3,000 events': { events: 3000, size: 20 },
    'by Content-Length': { stream_framing: 'length' },
    'until close': { stream_framing: 'close' },
    'length': { finish: 'length' },
})) {
    test(`chat stream: ${name}`, async () => {
        const { items, error } = await drain(
            await chat({ stream: true }, ctl(controls)));
        assert.equal(error, null);
        assert.ok(items.at(-1).choices[0].finish_reason);
        return items.length > 100
            ? { n: items.length, text: text(items) }
            : items.map(plainChunk);
    });
}

test('chat stream: text in pieces of a byte', async () => {
    const say = 'Grüße, 世界 🌍 "quoted" \\ {"a":1} data: [DONE]';
    const r = await drain(await client.chat.completions.create({
        ...ask, stream: true,
        model: `gpt-mock@size=1;text=${encodeURIComponent(say)}`,
    }, ctl()));
    assert.equal(text(r.items), say);
    return r.items.map(plainChunk);
});

test('chat stream: helper', async () => {
    const s = client.chat.completions.stream(ask, ctl({ events: 10 }));
    const deltas = [];
    s.on('content', (d) => deltas.push(d));
    const r = await s.finalChatCompletion();
    assert.equal(deltas.join(''), r.choices[0].message.content);
    return plainChunk(r);
});

test('chat: parse', async () => {
    const r = await client.chat.completions.parse({
        ...ask, model: 'gpt-mock@text=%7B%22city%22%3A%22Rome%22%7D',
        response_format: zodResponseFormat(z.object({ city: z.string() }),
                                           'place'),
    }, ctl());
    assert.equal(r.choices[0].message.parsed.city, 'Rome');
    return r;
});

test('chat: limited by max_tokens', async () => {
    const r = await chat({ max_completion_tokens: 3 }, ctl());
    assert.equal(r.choices[0].finish_reason, 'length');
    return r;
});


// --- tools ---

test('tools', async () => {
    const r = await chat({ tools }, ctl({ tools: 2 }));
    const calls = r.choices[0].message.tool_calls;
    assert.deepEqual(calls.map((c) => JSON.parse(c.function.arguments)),
                     [{ location: 'Paris, France' },
                      { location: 'Rome, Italy' }]);
    return r;
});

test('tools, stream', async () => {
    const { items, error } = await drain(await chat(
        { tools, stream: true }, ctl({ tools: 2, events: 6 })));
    assert.equal(error, null);
    const args = ['', ''];
    for (const c of items) {
        for (const t of c.choices[0].delta.tool_calls ?? []) {
            args[t.index] += t.function.arguments;
        }
    }
    assert.deepEqual(args.map((a) => JSON.parse(a).location),
                     ['Paris, France', 'Rome, Italy']);
    return items.map(plainChunk);
});

test('tools: the SDK\'s own loop, stream', async () => {
    const seen = [];
    const runner = client.chat.completions.runTools({
        ...ask, stream: true,
        tools: [{
            type: 'function',
            function: {
                name: 'get_weather', parse: JSON.parse,
                parameters: tools[0].function.parameters,
                function: (a) => { seen.push(a.location); return 'sunny'; },
            },
        }],
    }, ctl({ tools: 1, turns: 2, events: 4 }));
    const last = await runner.finalContent();
    assert.deepEqual(seen, ['Paris, France', 'Rome, Italy']);
    return { last, messages: runner.messages };
});


// --- completions, embeddings ---

test('completions', async () => {
    return client.completions.create({ model, prompt: 'Once' }, ctl());
});

test('completions stream', async () => {
    const { items, error } = await drain(await client.completions.create(
        { model, prompt: 'Once', stream: true }, ctl()));
    assert.equal(error, null);
    assert.ok(items.every((c) => c.choices.length && !c.usage));
    return items.map(plainChunk);
});

for (const [name, format] of Object.entries({
    'as the SDK asks': {}, float: { encoding_format: 'float' },
    base64: { encoding_format: 'base64' },
})) {
    test(`embeddings: ${name}`, async () => {
        const r = await client.embeddings.create(
            { model: 'text-embedding-mock', input: ['a', 'b', 'c'],
              dimensions: 256, ...format }, ctl());
        assert.equal(r.data.length, 3);
        assert.equal(typeof r.data[0].embedding,
                     name === 'base64' ? 'string' : 'object');
        return r;
    });
}

test('embeddings: 2,000 vectors', async () => {
    const input = Array.from({ length: 2000 }, (_, i) => `text ${i}`);
    const r = await client.embeddings.create(
        { model: 'text-embedding-mock', input }, ctl());
    assert.equal(r.data.length, 2000);
    assert.ok(r.data.every((d) => d.embedding.length === 1536));
    return { sum: hash(r.data.map((d) => d.embedding.join()).join()),
             usage: r.usage };
});


// --- responses ---

const question = { model, input: 'Say hello', store: false };
const functions = [{ type: 'function', strict: false,
                     ...tools[0].function }];

test('responses', async () => {
    const r = await client.responses.create(question, ctl());
    assert.equal(r.status, 'completed');
    assert.ok(r.output_text.length);
    return { r, sent: await sent() };
});

test('responses stream', async () => {
    const { items, error } = await drain(await client.responses.create(
        { ...question, stream: true }, ctl({ obfuscation: 1 })));
    assert.equal(error, null);
    assert.equal(items.at(-1).type, 'response.completed');
    assert.deepEqual(items.map((e) => e.sequence_number),
                     items.map((_, i) => i));
    assert.ok(items.at(-1).response.usage.output_tokens);
    return { items, sent: await sent() };
});

test('responses: tool call', async () => {
    const r = await client.responses.create({ ...question, tools: functions },
                                            ctl({ tools: 1 }));
    const call = r.output.find((o) => o.type === 'function_call');
    assert.equal(JSON.parse(call.arguments).location, 'Paris, France');
    return r;
});

test('responses stream: tool call', async () => {
    const { items, error } = await drain(await client.responses.create(
        { ...question, tools: functions, stream: true },
        ctl({ tools: 1, events: 5, thinking: 3 })));
    assert.equal(error, null);
    const args = items
        .filter((e) => e.type === 'response.function_call_arguments.delta')
        .map((e) => e.delta).join('');
    assert.equal(JSON.parse(args).location, 'Paris, France');
    return items;
});

test('responses stream: helper', async () => {
    const s = client.responses.stream(question, ctl());
    const r = await s.finalResponse();
    assert.equal(r.status, 'completed');
    return r;
});

test('responses: retrieve, cancel, delete, compact', async () => {
    const id = 'resp_0123456789abcdef';
    const got = await client.responses.retrieve(id, {}, ctl());
    assert.equal(got.id, id);
    return {
        got,
        sent: await sent(),
        cancelled: await client.responses.cancel(id, ctl()),
        deleted: await client.responses.delete(id, ctl()) ?? null,
        compact: await client.responses.compact(question, ctl()),
    };
});


// --- models, other endpoints ---

test('models', { differ: true }, async () => {
    const list = [];
    for await (const m of client.models.list()) list.push(m);
    assert.ok(list.some((m) => m.id === model && m.object === 'model'));
    assert.equal((await client.models.retrieve(model)).id, model);
    if (gateway) {
        const e = await raised(() => client.models.retrieve('gpt-none'));
        assert.equal(e.constructor, OpenAI.NotFoundError);
        assert.equal(e.code, 'model_not_found');
    }
    return list;
});

test('files: a multipart upload', async () => {
    const content = Buffer.alloc(3 << 20, '{"line":1}\n');
    const file = await client.files.create({
        file: await toFile(content, 'upload.jsonl'), purpose: 'batch',
    }, ctl());
    assert.ok(file.bytes > content.length);
    const body = await lastBody();
    assert.equal(body.length, file.bytes);
    assert.ok(body.includes(content), 'the content arrived');
    assert.ok(body.includes('name="purpose"'));
    const { crc32, ...rest } = file;
    return rest;
});

test('batches', async () => {
    const made = await client.batches.create({
        input_file_id: 'file-mock', endpoint: '/v1/chat/completions',
        completion_window: '24h',
    }, ctl());
    const got = await client.batches.retrieve('batch_1', ctl());
    const list = await client.batches.list({ limit: 3 }, ctl());
    return { made, got, list: list.data, sent: await sent() };
});


// --- what goes wrong ---

const classes = {
    400: OpenAI.BadRequestError, 401: OpenAI.AuthenticationError,
    403: OpenAI.PermissionDeniedError, 404: OpenAI.NotFoundError,
    409: OpenAI.ConflictError, 413: OpenAI.APIError,
    422: OpenAI.UnprocessableEntityError, 429: OpenAI.RateLimitError,
    500: OpenAI.InternalServerError, 503: OpenAI.InternalServerError,
    529: OpenAI.InternalServerError,
};

for (const [status, type] of Object.entries(classes)) {
    for (const stream of [false, true]) {
        test(`error ${status}${stream ? ', stream' : ''}`, async () => {
            const e = await raised(() => byok.chat.completions.create(
                { ...ask, stream }, ctl({ status })));
            assert.equal(e.constructor, type);
            assert.equal(e.status, +status);
            if (['401', '403', '404'].includes(status)) {
                return shape(e);
            }
            const own = await raised(() => chat({ stream },
                                                ctl({ status })));
            assert.deepEqual(brief(shape(own)), brief(shape(e)));
            return shape(e);
        });
    }
}

test('error: the gateway\'s own key is refused', { only: 'gateway' },
     async () => {
    const list = [];
    for (const status of [401, 403, 404]) {
        const e = await raised(() => chat({}, ctl({ status })));
        assert.equal(e.status, 502, 'not the client\'s fault');
        assert.ok(e.error.message && e.error.type && e.code);
        list.push(shape(e));
    }
    return list;
});

test('error: codes', async () => {
    const list = [];
    for (const code of ['context_length_exceeded', 'insufficient_quota']) {
        const status = code === 'insufficient_quota' ? 429 : 400;
        const e = await raised(() => byok.chat.completions.create(
            ask, ctl({ status, code })));
        assert.equal(e.code, code);
        list.push(shape(e));
    }
    return list;
});

test('error: the provider\'s own complaint', async () => {
    const e = await raised(() => client.embeddings.create(
        { model: 'text-embedding-mock' }, ctl()));
    assert.equal(e.constructor, OpenAI.BadRequestError);
    assert.equal(e.param, 'input');
    return shape(e);
});

test('error: responses, embeddings, passthrough', async () => {
    const o = ctl({ status: 429 });
    return [
        shape(await raised(() => client.responses.create(question, o))),
        shape(await raised(() => client.embeddings.create(
            { model: 'text-embedding-mock', input: 'a' }, o))),
        shape(await raised(() => client.responses.retrieve('resp_1', {}, o))),
    ];
});

test('429 is tried again', async () => {
    const before = await requests();
    const start = Date.now();
    const r = await make('', { maxRetries: 2 }).chat.completions.create(
        ask, ctl({ status: 429, fails: 1, key: unique(), retry_after: 1 }));
    assert.equal(await requests() - before, 2);
    assert.ok(Date.now() - start >= 900, 'Retry-After is obeyed');
    return r;
});

test('retry-after-ms is passed on', async () => {
    const before = await requests();
    const start = Date.now();
    await make('', { maxRetries: 2 }).chat.completions.create(
        ask, ctl({ status: 503, fails: 1, key: unique(), retry_after_ms: 30,
                   retry_after: 9 }));
    assert.equal(await requests() - before, 2);
    assert.ok(Date.now() - start < 2000);
});

test('x-should-retry is passed on', async () => {
    const before = await requests();
    const e = await raised(() => make('', { maxRetries: 2 }).chat.completions
        .create(ask, ctl({ status: 500, should_retry: 'false' })));
    assert.equal(await requests() - before, 1);
    return shape(e);
});

test('retries are used up', async () => {
    const before = await requests();
    const e = await raised(() => make('', { maxRetries: 1 }).chat.completions
        .create(ask, ctl({ status: 500, retry_after_ms: 20 })));
    assert.equal(await requests() - before, 2);
    return shape(e);
});

test('a closed connection', { differ: true }, async () => {
    const list = [];
    for (const fault of ['reset', 'close', 'bad_head', 'close_mid_head']) {
        const e = await raised(() => chat({}, ctl({ fault })));
        if (gateway) {
            assert.equal(e.status, 502, fault);
            assert.ok(e.error.message && e.error.type, fault);
        }
        list.push(shape(e));
    }
    return list;
});


// --- streams that fail ---

for (const stream of ['chat', 'responses']) {
    const open = (fault, o = {}) => stream === 'chat'
        ? chat({ stream: true }, ctl({ fault, at: 3, events: 8, ...o }))
        : client.responses.create({ ...question, stream: true },
                                  ctl({ fault, at: 3, events: 8, ...o }));
    const complete = (items) => items.some(
        (i) => i.choices?.[0]?.finish_reason
               || i.type === 'response.completed');
    const failed = ({ items, error }) => error
        || items.find((i) => /^(?:error|response.failed)$/.test(i.type));

    test(`${stream}: an error event after content`, async () => {
        const r = await drain(await open('error_event'));
        assert.ok(r.items.length > 2);
        assert.ok(failed(r) && !complete(r.items));
        return { items: r.items.map(plainChunk),
                 error: r.error && shape(r.error) };
    });

    for (const fault of ['cut', 'reset_mid', 'clean_cut', 'no_finish']) {
        test(`${stream}: ${fault} after content`, { differ: true },
             async () => {
            const r = await drain(await open(fault));
            assert.ok(!complete(r.items), 'never looks complete');
            if (gateway) {
                // [DONE] came, so it ended as the provider wanted
                const ended = stream === 'chat' && fault === 'no_finish';
                assert.equal(!!failed(r), !ended, 'the SDK is told');
            }
            return { n: r.items.length,
                     error: failed(r) && shape(failed(r)) };
        });
    }
}

test('chat: an error before content', { differ: true }, async () => {
    let e;
    try {
        const r = await drain(await chat({ stream: true },
                                         ctl({ fault: 'error_first' })));
        e = r.error;
    } catch (x) {
        e = x;
    }
    assert.ok(e instanceof OpenAI.APIError);
    if (gateway) {
        assert.equal(e.status, 500, 'as a status, so that SDKs try again');
    }
    return shape(e);
});

test('chat: no [DONE] after a finish', { differ: true }, async () => {
    const r = await drain(await chat({ stream: true },
                                     ctl({ fault: 'no_done' })));
    assert.equal(r.error, null);
    assert.equal(r.items.at(-1).choices[0].finish_reason, 'stop');
});

test('chat: a malformed event is not shown', { differ: true }, async () => {
    const r = await drain(await chat({ stream: true },
                                     ctl({ fault: 'malformed', at: 2,
                                           events: 5 })));
    if (gateway) {
        assert.equal(r.error, null);
    }
    return r.items.length;
});


// --- time ---

test('timeout of the SDK: plain', async () => {
    let e;
    await aborts(async () => {
        e = await raised(() => chat({}, ctl({ delay: 5000 },
                                            { timeout: 500 })));
    });
    assert.equal(e.constructor, OpenAI.APIConnectionTimeoutError);
    return shape(e);
});

test('timeout of the SDK: stream', async () => {
    let e;
    await aborts(async () => {
        e = await raised(() => chat({ stream: true },
                                    ctl({ delay: 5000 }, { timeout: 500 })));
    });
    assert.equal(e.constructor, OpenAI.APIConnectionTimeoutError);
    return shape(e);
});

test('timeouts of the gateway', { only: 'gateway' }, async () => {
    const slow = make('/slow').chat.completions;
    const list = [];

    let e = await raised(() => slow.create(ask, ctl({ delay: 3000 })));
    assert.equal(e.status, 504);
    assert.ok(e.error.message);
    list.push(shape(e));

    e = await raised(() => slow.create({ ...ask, stream: true },
                                       ctl({ delay: 3000 })));
    assert.equal(e.status, 504);
    list.push(shape(e));

    const r = await drain(await slow.create({ ...ask, stream: true },
                                            ctl({ fault: 'stall', at: 3 })));
    assert.ok(r.items.length > 1 && r.error instanceof OpenAI.APIError);
    assert.ok(r.items.every((c) => !c.choices[0].finish_reason));
    list.push(shape(r.error));
    return list;
});

test('pings are not seen', { differ: true }, async () => {
    const r = await drain(await make('/ping').chat.completions.create(
        { ...ask, stream: true }, ctl({ events: 3, gap: 200 })));
    assert.equal(r.error, null);
    assert.equal(r.items.at(-1).choices[0].finish_reason, 'stop');
});


// --- giving up ---

test('abort: while waiting', async () => {
    await aborts(async () => {
        const signal = await whenArrived();
        const e = await raised(() => chat({}, ctl({ delay: 5000 },
                                                  { signal })));
        assert.equal(e.constructor, OpenAI.APIUserAbortError);
    });
});

test('abort: a stream, by its controller', async () => {
    await aborts(async () => {
        const s = await chat({ stream: true }, ctl({ events: 500, gap: 20 }));
        let n = 0;
        for await (const chunk of s) {
            if (++n === 5) s.controller.abort();
        }
        assert.ok(n < 10);
    });
});

test('abort: a stream, by leaving the loop', async () => {
    await aborts(async () => {
        const s = await client.responses.create(
            { ...question, stream: true }, ctl({ events: 500, gap: 20 }));
        for await (const event of s) {
            if (event.type === 'response.output_text.delta') break;
        }
    });
});

test('abort: an upload', async () => {
    const before = await requests();
    const c = new AbortController();
    setTimeout(() => c.abort(), 30);
    await raised(() => chat({ messages: [{
        role: 'user', content: 'x'.repeat(16 << 20) }] },
        ctl({ delay: 2000 }, { signal: c.signal })));
    assert.ok(await requests() - before <= 1);
});


// --- size and number ---

test('a body of 4 MB', async () => {
    const r = await chat({ messages: [
        { role: 'user', content: 'wörd "x" \n'.repeat(400000) }] },
    ctl({ keep: 1 }));
    return { r, sent: await sent() };
});

test('a body of 4 MB, stream', async () => {
    const { items, error } = await drain(await chat({
        stream: true, stream_options: { include_usage: true },
        messages: [{ role: 'user', content: '0123456789'.repeat(400000) }],
    }, ctl({ keep: 1 })));
    assert.equal(error, null);
    return { items, sent: await sent() };
});

test('an answer of 8 MB', async () => {
    return chat({}, ctl({ total: '8m' }));
});

test('too large a body', { only: 'gateway' }, async () => {
    const e = await raised(() => make('/small').chat.completions.create({
        ...ask, messages: [{ role: 'user', content: 'x'.repeat(200000) }],
    }, ctl()));
    assert.equal(e.constructor, OpenAI.APIError);
    assert.equal(e.status, 413);
    assert.ok(e.error.message && e.error.type);
    return shape(e);
});

test('40 streams at a time', async () => {
    const all = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
        const { items, error } = await drain(await chat(
            { stream: true }, ctl({ seed: i + 1, events: 30, gap: 2 })));
        assert.equal(error, null);
        return text(items);
    }));
    assert.equal(new Set(all).size, 40);
    return all;
});

test('200 requests, one after another', async () => {
    const all = [];
    for (let i = 0; i < 200; i++) {
        const r = await chat({}, ctl({ seed: i + 1, events: 2 }));
        all.push(r.choices[0].message.content);
    }
    return hash(all.join());
});


// --- the gateway's own ---

test('errors of the gateway', { only: 'gateway' }, async () => {
    const list = [];

    let e = await raised(() => chat({ model: 'nobody-knows' }));
    assert.equal(e.constructor, OpenAI.NotFoundError);
    assert.equal(e.code, 'model_not_found');
    list.push(shape(e));

    e = await raised(() => chat({ model: 'claude-mock' }));
    assert.equal(e.constructor, OpenAI.BadRequestError);
    list.push(shape(e));

    e = await raised(() => chat({ model: undefined }));
    assert.equal(e.constructor, OpenAI.BadRequestError);
    list.push(shape(e));

    e = await raised(() => chat({ messages: undefined }));
    assert.equal(e.constructor, OpenAI.BadRequestError);
    list.push(shape(e));

    e = await raised(() => make('/strict').files.list());
    assert.equal(e.constructor, OpenAI.NotFoundError);
    list.push(shape(e));

    e = await raised(() => make('/strict').get('/chat/completions'));
    assert.equal(e.status, 405);
    list.push(shape(e));
    return list;
});

test('the client\'s key', async () => {
    const { data, response } = await byok.chat.completions
        .create(ask, ctl()).withResponse();
    const { authorization } = await credentials();
    assert.equal(authorization, 'Bearer sk-of-the-client');
    assert.ok(response.headers.get('x-ratelimit-limit-requests'));
    return { data, sent: await sent() };
});

test('headers', { only: 'gateway' }, async () => {
    const { response, request_id } = await client.chat.completions
        .create(ask, ctl()).withResponse();
    const h = response.headers;
    assert.equal(h.get('x-llm-provider'), 'openai');
    assert.equal(h.get('x-llm-model'), model);
    assert.equal(h.get('x-llm-attempts'), '1');
    assert.match(h.get('x-llm-request-id'), /^[0-9a-f]{32}$/);
    assert.equal(h.get('x-request-id'), request_id);
    assert.ok(request_id);
    const { authorization } = await credentials();
    assert.equal(authorization, 'Bearer sk-of-the-gateway');
    for (const name of ['set-cookie', 'openai-organization', 'openai-project',
                        'x-ratelimit-limit-requests'])
    {
        assert.equal(h.get(name), null, name);
    }
});

await main();
