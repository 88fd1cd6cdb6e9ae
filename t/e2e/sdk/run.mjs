// What the scripts have in common.  A script is a list of cases; each prints
// one line of JSON:
//
//   {"name", "ok", "why", "result", "differ"}
//
// The driver runs a script twice, against the mock provider itself (VIA is
// direct) and through nginx (gateway), and compares the results, but for
// those of cases marked "differ".
//
// Environment: VIA, BASE (http://127.0.0.1:PORT of either), MOCK (the mock's
// own, for its counters), CA (a file) and TLS (https://..., only for gateway).

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

export const via = process.env.VIA;
export const base = process.env.BASE;
export const gateway = via === 'gateway';

const mock = process.env.MOCK;
const cases = [];


// --- cases ---

export function test(name, options, fn) {
    if (!fn) {
        [options, fn] = [{}, options];
    }
    if (!options.only || options.only === via) {
        cases.push({ name, fn, differ: options.differ ?? !!options.only,
                     todo: options.todo, timeout: options.timeout ?? 15000 });
    }
}


export async function main() {
    const only = process.env.ONLY;

    for (const { name, fn, differ, todo, timeout } of cases) {
        if (only && !name.includes(only)) continue;

        const out = { name, ok: true, why: '', differ, todo, result: null };
        let timer;

        try {
            const late = new Promise((_, no) => {
                timer = setTimeout(no, timeout, new Error('took too long'));
            });
            out.result = brief(await Promise.race([fn(), late])) ?? null;

        } catch (e) {
            out.ok = false;
            out.why = `${e?.stack ?? e}`.slice(0, 2000);
        }

        clearTimeout(timer);
        console.log(JSON.stringify(out));
    }

    process.exit(0);
}


export const hash = (data) =>
    createHash('sha256').update(data).digest('hex').slice(0, 16);


// Long texts and vectors become their digests.

export function brief(x) {
    const text = JSON.stringify(x, (key, v) => {
        if (typeof v === 'string' && v.length < 1000) {
            v = v.replace(/\breq_[0-9a-zA-Z]+/g, 'req_*');   // are counted
        }
        if (typeof v === 'string' && v.length > 400) {
            return `${v.length} characters, ${hash(v)}`;
        }
        if (Array.isArray(v) && v.length > 16
            && v.every((n) => typeof n === 'number'))
        {
            return `${v.length} numbers, ${hash(v.join())}`;
        }
        return v === undefined ? null : v;
    });
    return text === undefined ? null : JSON.parse(text);
}


// --- the mock ---

// Controls of one request, as request options.  Answers to equal requests
// with a seed are equal.

let seed = 1000;

export function ctl(controls = {}, more = {}) {
    const headers = { 'x-mock-seed': '7', ...more.headers };
    for (const [name, value] of Object.entries(controls)) {
        headers['x-mock-' + name.replaceAll('_', '-')] = `${value}`;
    }
    return { ...more, headers };
}

export const unique = () => `${via}-${process.pid}-${seed++}`;

async function ask(name) {
    const r = await fetch(`${mock}/_mock/${name}`);
    assert.equal(r.status, 200, name);
    return Buffer.from(await r.arrayBuffer());
}

export const stats = async () => JSON.parse(await ask('stats'));
export const requests = async () => (await stats()).requests;
export const lastBody = () => ask('last_body');


// What the provider was sent: the request line, the headers without those of
// the connection, of the credential and of this test, and the body's digest.

export async function sent() {
    const skip = ['host', 'connection', 'content-length', 'keep-alive',
                  'transfer-encoding', 'accept-encoding', 'authorization',
                  'x-api-key'];
    const { line, headers } = await head();

    for (const name of skip) delete headers[name];
    return { line: line.replace(/ \/byok[^/]*/, ' '), headers,
             body: hash(await lastBody()) };
}

export async function credentials() {
    const { headers } = await head();
    return { authorization: headers.authorization,
             key: headers['x-api-key'] };
}

async function head() {
    const [line, ...rest] = `${await ask('last')}`.trim().split('\r\n');
    const headers = {};

    for (const text of rest) {
        const [, name, value] = text.match(/^([^:]*): *(.*)$/);
        headers[name.toLowerCase()] = value;
    }

    return { line, headers };
}


// Runs fn, which gives up on an answer; the provider must be left within two
// seconds, and by one request.

export async function aborts(fn) {
    const before = (await stats()).aborted;
    await fn();

    for (let i = 0; i < 200; i++) {
        if ((await stats()).aborted > before) break;
        await sleep(10);
    }

    assert.equal((await stats()).aborted, before + 1, 'aborted at the mock');
}

// A signal that aborts once the mock has one request more than now.

export async function whenArrived() {
    const controller = new AbortController();
    const before = await requests();
    (async () => {
        for (let i = 0; i < 300 && await requests() === before; i++) {
            await sleep(10);
        }
        controller.abort();
    })();
    return controller.signal;
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));


// --- results ---

// The error that fn ends with; it must.

export async function raised(fn) {
    try {
        await fn();
    } catch (e) {
        return e;
    }
    assert.fail('no error was raised');
}


// What is fixed of an SDK's error.

export function shape(e) {
    return {
        class: e?.constructor?.name, status: e?.status, code: e?.code,
        type: e?.type, param: e?.param, message: `${e?.message}`,
        body: e?.error, request_id: e?.requestID,
    };
}


// Reads a stream to its end or its error: { items, error }.

export async function drain(stream) {
    const items = [];
    try {
        for await (const item of stream) items.push(item);
    } catch (e) {
        return { items, error: e };
    }
    return { items, error: null };
}


// The members that a gateway's own usage request adds to other chunks.

export const plainChunk = ({ usage, ...chunk }) =>
    usage === null || usage === undefined ? chunk : { ...chunk, usage };

export { assert };
