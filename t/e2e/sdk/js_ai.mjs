// The npm packages ai, @ai-sdk/openai and @ai-sdk/anthropic.

import {
    APICallError, Output, embed, embedMany, generateText, jsonSchema,
    streamText, tool,
} from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { createAnthropic } from '@ai-sdk/anthropic';

import {
    aborts, assert, base, ctl, gateway, main, raised, requests, sent, test,
    unique,
} from './run.mjs';

const openai = (prefix = '') => createOpenAI(
    { baseURL: `${base}${prefix}/v1`, apiKey: 'sk-of-the-client' });
const anthropic = (prefix = '') => createAnthropic(
    { baseURL: `${base}${prefix}/v1`, apiKey: 'sk-of-the-client' });

const models = {
    responses: (name, prefix) => openai(prefix).responses(name ?? 'gpt-mock'),
    chat: (name, prefix) => openai(prefix).chat(name ?? 'gpt-mock'),
    messages: (name, prefix) => anthropic(prefix)(name ?? 'claude-mock'),
};

const ask = { instructions: 'Be brief.', prompt: 'Grüße, 世界 🌍',
              maxOutputTokens: 100000 };

const weather = () => {
    const seen = [];
    return {
        seen,
        tools: {
            get_weather: tool({
                description: 'of a place',
                inputSchema: jsonSchema({
                    type: 'object', required: ['location'],
                    properties: { location: { type: 'string' } },
                }),
                execute: async ({ location }) => {
                    seen.push(location);
                    return { sky: 'clear' };
                },
            }),
        },
    };
};

// what does not hold a time or an id of the SDK's own

const answer = (r) => ({
    text: r.text, reasoning: r.reasoningText, finish: r.finishReason,
    usage: r.usage, calls: r.toolCalls.map((c) => [c.toolName, c.input]),
    id: r.response.id, model: r.response.modelId,
});

const failure = (e) => ({
    class: e.constructor.name, status: e.statusCode, message: e.message,
    data: e.data, retryable: e.isRetryable,
});

async function parts(result) {
    const list = [];
    try {
        for await (const part of result.stream) {
            const { type, id, text, delta, toolName, input, finishReason,
                    error } = part;
            list.push({ type, id, text, delta, toolName, input, finishReason,
                        error: error && failure(error) });
        }
    } catch (e) {
        list.push({ type: 'error', error: failure(e) });
    }
    return list;
}

const quiet = { onError: () => {} };

for (const [name, model] of Object.entries(models)) {

    test(`${name}: generateText`, async () => {
        const r = await generateText({ ...ask, model: model(), ...ctl() });
        assert.equal(r.finishReason, 'stop');
        assert.ok(r.usage.outputTokens > 0);
        return { r: answer(r), sent: await sent() };
    });

    test(`${name}: streamText`, async () => {
        const r = streamText({ ...ask, ...quiet, model: model(),
                               ...ctl({ events: 10, thinking: 3,
                                        obfuscation: 1 }) });
        const list = await parts(r);
        assert.equal(list.at(-1).type, 'finish');
        assert.equal(await r.finishReason, 'stop');
        assert.ok((await r.usage).outputTokens > 0);
        return { list, text: await r.text, usage: await r.usage,
                 sent: await sent() };
    });

    test(`${name}: a tool call`, async () => {
        const { tools } = weather();
        const r = await generateText({ ...ask, tools, model: model(),
                                       ...ctl({ tools: 1 }) });
        assert.equal(r.finishReason, 'tool-calls');
        assert.deepEqual(r.toolCalls[0].input,
                         { location: 'Paris, France' });
        return answer(r);
    });

    test(`${name}: a tool call, stream`, async () => {
        const { tools, seen } = weather();
        const r = streamText({ ...ask, ...quiet, tools, model: model(),
                               ...ctl({ tools: 1, events: 6 }) });
        const list = await parts(r);
        assert.deepEqual(seen, ['Paris, France']);
        return list;
    });

    test(`${name}: an object`, async () => {
        const r = await generateText({
            ...ask, ...ctl(),
            model: model(`${name === 'messages' ? 'claude' : 'gpt'}-mock`
                         + '@text=%7B%22city%22%3A%22Rome%22%7D'),
            output: Output.object({ schema: jsonSchema({
                type: 'object', required: ['city'],
                additionalProperties: false,
                properties: { city: { type: 'string' } },
            }) }),
        });
        assert.deepEqual(r.output, { city: 'Rome' });
        return { r: answer(r), sent: await sent() };
    });

    for (const status of [400, 409, 429, 500, 529]) {
        test(`${name}: error ${status}`, async () => {
            const e = await raised(() => generateText(
                { ...ask, model: model(), maxRetries: 0,
                  ...ctl({ status }) }));
            assert.ok(APICallError.isInstance(e));
            assert.equal(e.statusCode, status);
            return failure(e);
        });
    }

    test(`${name}: 429 is tried again`, async () => {
        const before = await requests();
        const r = await generateText({
            ...ask, model: model(), maxRetries: 2,
            ...ctl({ status: 429, fails: 1, key: unique(),
                     retry_after_ms: 50 }) });
        assert.equal(await requests() - before, 2);
        return answer(r);
    });

    test(`${name}: an error event after content`, async () => {
        const list = await parts(streamText(
            { ...ask, ...quiet, model: model(), maxRetries: 0,
              ...ctl({ fault: 'error_event', at: 3, events: 8 }) }));
        assert.ok(list.some((p) => p.type === 'error'));
        assert.ok(list.some((p) => p.type === 'text-delta'));
        assert.notEqual(list.at(-1).finishReason, 'stop');
        return list.map((p) => p.type);
    });

    for (const fault of ['cut', 'clean_cut']) {
        test(`${name}: ${fault} after content`, { differ: true }, async () => {
            const list = await parts(streamText(
                { ...ask, ...quiet, model: model(), maxRetries: 0,
                  ...ctl({ fault, at: 3, events: 8 }) }));
            assert.notEqual(list.at(-1).finishReason, 'stop');
            if (gateway) {
                assert.ok(list.some((p) => p.type === 'error'),
                          'the SDK is told');
            }
            return list;
        });
    }

    test(`${name}: abort`, async () => {
        await aborts(async () => {
            const c = new AbortController();
            const r = streamText({
                ...ask, ...quiet, model: model(), abortSignal: c.signal,
                ...ctl({ events: 500, gap: 20 }) });
            let n = 0;
            for await (const part of r.stream) {
                if (part.type === 'text-delta' && ++n === 3) c.abort();
            }
            assert.ok(n < 10);
        });
    });

    test(`${name}: pings are not seen`, { differ: true }, async () => {
        const list = await parts(streamText(
            { ...ask, ...quiet, model: model(undefined, '/ping'),
              ...ctl({ events: 3, gap: 200 }) }));
        assert.equal(list.at(-1).finishReason, 'stop');
        assert.ok(!list.some((p) => p.type === 'error'));
    });
}

test('embeddings', async () => {
    const model = openai().embedding('text-embedding-mock');
    const one = await embed({ model, value: 'a', ...ctl({ dim: 64 }) });
    const many = await embedMany({ model, values: ['a', 'b', 'c'],
                                   ...ctl({ dim: 64 }) });
    assert.equal(many.embeddings.length, 3);
    return { one: one.embedding, many: many.embeddings, usage: many.usage,
             sent: await sent() };
});

await main();
