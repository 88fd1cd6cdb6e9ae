"""Asks as it is told to, with the defaults of the SDKs, and says what came.

A line of JSON each way.  In: call (chat, chat_stream, chat_helper, ...),
model, test (the name in the gateway's log), base.  Out: text, events (types
of those seen), error (of the exception, if one was raised), took (seconds).
"""

import json
import sys
import time

import anthropic
import openai

MESSAGES = [{"role": "user", "content": "Say hello"}]


def gpt(q):
    client = openai.OpenAI(base_url=f"{q['base']}/v1", api_key="none",
                           timeout=30)
    return client, {"model": q["model"],
                    "extra_headers": {"X-Test": q["test"]}}


def claude(q):
    client = anthropic.Anthropic(base_url=q["base"], api_key="none",
                                 timeout=30)
    return client, {"model": q["model"], "max_tokens": 100000,
                    "messages": MESSAGES,
                    "extra_headers": {"X-Test": q["test"]}}


def chat(q, out):
    client, ask = gpt(q)
    r = client.chat.completions.create(messages=MESSAGES, **ask)
    out["text"] = r.choices[0].message.content


def chat_stream(q, out):
    client, ask = gpt(q)
    for c in client.chat.completions.create(messages=MESSAGES, stream=True,
                                            **ask):
        for choice in c.choices:
            out["text"] += choice.delta.content or ""


def chat_helper(q, out):
    client, ask = gpt(q)
    with client.chat.completions.stream(messages=MESSAGES, **ask) as s:
        for event in s:
            if event.type == "content.delta":
                out["text"] += event.delta
        final = s.get_final_completion().choices[0]
        assert final.message.content == out["text"], "the final text"
        out["end"] = final.finish_reason


def completions_stream(q, out):
    client, ask = gpt(q)
    for c in client.completions.create(prompt="Say hello", stream=True, **ask):
        for choice in c.choices:
            out["text"] += choice.text


def responses_stream(q, out):
    client, ask = gpt(q)
    for event in client.responses.create(input="Say hello", store=False,
                                         stream=True, **ask):
        out["events"].append(event.type)
        if event.type == "response.output_text.delta":
            out["text"] += event.delta
        if event.type == "response.failed":
            out["failed"] = event.response.error.code


def responses_helper(q, out):
    client, ask = gpt(q)
    with client.responses.stream(input="Say hello", store=False, **ask) as s:
        for event in s:
            out["events"].append(event.type)
            if event.type == "response.failed":
                out["failed"] = event.response.error.code
        out["end"] = s.get_final_response().status


def messages(q, out):
    client, ask = claude(q)
    out["text"] = client.messages.create(**ask).content[0].text


def messages_stream(q, out):
    client, ask = claude(q)
    for event in client.messages.create(stream=True, **ask):
        if event.type == "content_block_delta":
            out["text"] += event.delta.text


def messages_helper(q, out):
    client, ask = claude(q)
    with client.messages.stream(**ask) as s:
        for text in s.text_stream:
            out["text"] += text
        final = s.get_final_message()
        assert final.content[0].text == out["text"], "the final text"
        out["end"] = final.stop_reason


def shape(e):
    body = getattr(e, "body", None)
    if isinstance(body, dict):
        body = body.get("error", body)
    return {
        "class": type(e).__name__,
        "classes": [c.__name__ for c in type(e).__mro__],
        "message": str(e),
        "status": getattr(e, "status_code", None),
        "code": body.get("code") if isinstance(body, dict) else None,
        "type": body.get("type") if isinstance(body, dict) else None,
    }


for line in sys.stdin:
    q = json.loads(line)
    out = {"text": "", "events": []}
    start = time.monotonic()

    try:
        globals()[q["call"]](q, out)
    except Exception as e:
        out["error"] = shape(e)

    out["took"] = time.monotonic() - start
    print(json.dumps(out), flush=True)
