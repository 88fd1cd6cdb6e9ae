// The npm package ai: a task of two tool turns, each dialect.

import { ToolLoopAgent, generateText, isStepCount, jsonSchema, streamText,
         tool } from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { createAnthropic } from '@ai-sdk/anthropic';

import { assert, base, main, sent, test } from './run.mjs';

const settings = { baseURL: `${base}/v1`, apiKey: 'sk-of-the-client' };
const controls = 'tools=1;turns=2;events=5;seed=7;text=It+is+done.';
const models = {
    responses: createOpenAI(settings).responses(`gpt-mock@${controls}`),
    chat: createOpenAI(settings).chat(`gpt-mock@${controls}`),
    messages: createAnthropic(settings)(`claude-mock@${controls}`),
};

function task(model) {
    const seen = [];
    return {
        seen,
        options: {
            model, stopWhen: isStepCount(5),
            tools: {
                get_weather: tool({
                    inputSchema: jsonSchema({
                        type: 'object', required: ['location'],
                        properties: { location: { type: 'string' } },
                    }),
                    execute: async ({ location }) => {
                        seen.push(location);
                        return { sky: 'clear', location };
                    },
                }),
            },
        },
    };
}

const prompt = 'How is the weather in Paris and in Rome?';

async function check(seen, result) {
    const steps = await result.steps;
    assert.deepEqual(seen, ['Paris, France', 'Rome, Italy']);
    assert.equal(steps.length, 3);
    assert.equal(await result.text, 'It is done.');
    return {
        steps: steps.map((s) => ({ text: s.text, finish: s.finishReason,
                                   usage: s.usage })),
        sent: await sent(),
    };
}

for (const [name, model] of Object.entries(models)) {
    test(`${name}: generateText`, async () => {
        const { seen, options } = task(model);
        return check(seen, await generateText({ ...options, prompt }));
    });

    test(`${name}: streamText`, async () => {
        const { seen, options } = task(model);
        const r = streamText({ ...options, prompt });
        await r.consumeStream();
        return check(seen, r);
    });

    test(`${name}: an agent`, async () => {
        const { seen, options } = task(model);
        return check(seen, await new ToolLoopAgent(options)
            .generate({ prompt }));
    });
}

await main();
