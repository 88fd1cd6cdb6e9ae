// Asks as it is told to, with the defaults of the SDKs, and says what came:
// see fail.py.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const messages = [{ role: 'user', content: 'Say hello' }];

const gpt = (q) => new OpenAI({ baseURL: `${q.base}/v1`,
                                apiKey: 'none', timeout: 30000 });
const claude = (q) => new Anthropic({ baseURL: q.base,
                                      apiKey: 'none', timeout: 30000 });

const o = (q) => ({ headers: { 'x-test': q.test } });
const say = (q) => ({ model: q.model, max_tokens: 100000, messages });
const input = (q) => ({ model: q.model, input: 'Say hello', store: false });

const calls = {
    async chat(q, out) {
        const r = await gpt(q).chat.completions.create(
            { model: q.model, messages }, o(q));
        out.text = r.choices[0].message.content;
    },

    async chat_stream(q, out) {
        const s = await gpt(q).chat.completions.create(
            { model: q.model, messages, stream: true }, o(q));
        for await (const c of s) {
            out.text += c.choices[0]?.delta?.content ?? '';
        }
    },

    async chat_helper(q, out) {
        const s = gpt(q).chat.completions.stream(
            { model: q.model, messages }, o(q));
        s.on('content', (delta) => { out.text += delta; });
        const final = await s.finalChatCompletion();
        assert.equal(final.choices[0].message.content, out.text);
        out.end = final.choices[0].finish_reason;
    },

    async completions_stream(q, out) {
        const s = await gpt(q).completions.create(
            { model: q.model, prompt: 'Say hello', stream: true }, o(q));
        for await (const c of s) out.text += c.choices[0]?.text ?? '';
    },

    async responses_stream(q, out) {
        const s = await gpt(q).responses.create(
            { ...input(q), stream: true }, o(q));
        for await (const event of s) seen(out, event);
    },

    async responses_helper(q, out) {
        const s = gpt(q).responses.stream(input(q), o(q));
        for await (const event of s) seen(out, event);
        out.end = (await s.finalResponse()).status;
    },

    async messages(q, out) {
        const r = await claude(q).messages.create(say(q), o(q));
        out.text = r.content[0].text;
    },

    async messages_stream(q, out) {
        const s = await claude(q).messages.create(
            { ...say(q), stream: true }, o(q));
        for await (const event of s) out.text += event.delta?.text ?? '';
    },

    async messages_helper(q, out) {
        const s = claude(q).messages.stream(say(q), o(q));
        s.on('text', (delta) => { out.text += delta; });
        const final = await s.finalMessage();
        assert.equal(final.content[0].text, out.text);
        out.end = final.stop_reason;
    },
};

function seen(out, event) {
    out.events.push(event.type);
    if (event.type === 'response.output_text.delta') out.text += event.delta;
    if (event.type === 'response.failed') {
        out.failed = event.response.error.code;
    }
}


function shape(e) {
    const classes = [];
    for (let p = Object.getPrototypeOf(e); p; p = Object.getPrototypeOf(p)) {
        classes.push(p.constructor.name);
    }

    const body = e.error?.error ?? e.error;
    return { class: classes[0], classes, message: `${e.message}`,
             status: e.status, code: body?.code, type: body?.type };
}


for await (const line of createInterface({ input: process.stdin })) {
    const q = JSON.parse(line);
    const out = { text: '', events: [] };
    const start = performance.now();

    try {
        await calls[q.call](q, out);
    } catch (e) {
        out.error = shape(e);
    }

    out.took = (performance.now() - start) / 1000;
    console.log(JSON.stringify(out));
}
