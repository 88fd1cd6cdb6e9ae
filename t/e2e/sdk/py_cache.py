"""Both packages of PyPI, and answers that come from the cache: each answer is
stored in one form and asked for in both, and the SDK makes the same of it."""

import json
import os

import anthropic
import openai

from run import BASE, case, ctl, digest, drain, main, raised, requests, unique

KEY = "sk-of-" + unique()
OPENAI = openai.OpenAI(base_url=f"{BASE}/v1", api_key=KEY, max_retries=0,
                       timeout=10)
ANTHROPIC = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0,
                                timeout=10)
SCHEMA = {"type": "object", "required": ["location"],
          "properties": {"location": {"type": "string"}}}
CHAT_TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "of a place",
    "parameters": SCHEMA}}]
FUNCTIONS = [{"type": "function", "strict": False, "name": "get_weather",
              "description": "of a place", "parameters": SCHEMA}]
TOOLS = [{"name": "get_weather", "description": "of a place",
          "input_schema": SCHEMA}]

# controls of the provider; the second half with tools
TEXTS = {
    "a text": {"events": 12},
    "one word": {"events": 1, "size": 4},
    "a long text": {"total": 60000, "size": 100},
    "CRLF, comments": {"events": 5, "eol": "crlf", "comments": 1},
}
CALLS = {
    "a call": {"tools": 1, "events": 6},
    "two calls": {"tools": 2, "events": 6},
}


def ask(text):
    return [{"role": "user", "content": text}]


# --- one way to ask for each form; all give the finished thing ---


def chat_plain(q, more, o):
    return OPENAI.chat.completions.create(
        model="gpt-mock", messages=ask(q), **more, **o)


def chat_stream(q, more, o):
    with OPENAI.chat.completions.stream(
            model="gpt-mock", messages=ask(q), **more, **o,
            stream_options={"include_usage": True}) as s:
        events = sum(1 for e in s if e.type == "chunk")
        assert events > 2, events
        return s.get_final_completion()


def chat_summary(r):
    m = r.choices[0].message
    return {"id": r.id, "model": r.model, "text": m.content or "",
            "finish": r.choices[0].finish_reason,
            "fingerprint": r.system_fingerprint,
            "usage": r.usage.model_dump(exclude_none=True),
            "calls": [(c.id, c.function.name, json.loads(c.function.arguments))
                      for c in m.tool_calls or []]}


def responses_plain(q, more, o):
    return OPENAI.responses.create(model="gpt-mock", input=q, store=False,
                                   **more, **o)


def responses_stream(q, more, o):
    with OPENAI.responses.stream(model="gpt-mock", input=q, store=False,
                                 **more, **o) as s:
        items = list(s)
        assert len(items) > 4
        numbers = [i.sequence_number for i in items]
        assert numbers == list(range(len(items))), numbers
        return s.get_final_response()


def responses_summary(r):
    d = r.model_dump(mode="json", exclude_none=True, warnings=False)

    # what the accumulator adds
    for item in d["output"]:
        item.pop("parsed_arguments", None)
        for part in item.get("content", []):
            part.pop("parsed", None)
    return {"id": d["id"], "status": d["status"], "output": d["output"],
            "usage": d["usage"], "text": r.output_text}


def messages_plain(q, more, o):
    return ANTHROPIC.messages.create(model="claude-mock", max_tokens=100000,
                                     messages=ask(q), **more, **o)


def messages_stream(q, more, o):
    with ANTHROPIC.messages.stream(model="claude-mock", max_tokens=100000,
                                   messages=ask(q), **more, **o) as s:
        items = list(s)
        assert items[0].type == "message_start"
        assert items[-1].type == "message_stop"
        return s.get_final_message()


def messages_summary(r):
    blocks = []
    for b in r.content:
        d = b.model_dump(mode="json", exclude_none=True, warnings=False)
        d.pop("parsed_output", None)
        blocks.append(d)
    usage = r.usage
    return {"id": r.id, "model": r.model, "stop": r.stop_reason,
            "content": blocks,
            "usage": [usage.input_tokens, usage.output_tokens,
                      usage.cache_read_input_tokens,
                      usage.cache_creation_input_tokens]}


def completions_plain(q, more, o):
    return OPENAI.completions.create(model="gpt-mock", prompt=q, **o)


def completions_stream(q, more, o):
    items, error = drain(OPENAI.completions.create(
        model="gpt-mock", prompt=q, stream=True,
        stream_options={"include_usage": True}, **o))
    assert error is None and items[-1].usage
    first, last = items[0], items[-2]
    first.choices[0].text = "".join(i.choices[0].text for i in items
                                    if i.choices)
    first.choices[0].finish_reason = last.choices[0].finish_reason
    first.usage = items[-1].usage
    return first


def completions_summary(r):
    return {"id": r.id, "model": r.model, "text": r.choices[0].text,
            "finish": r.choices[0].finish_reason,
            "usage": r.usage.model_dump(exclude_none=True)}


KINDS = {
    "chat": (chat_plain, chat_stream, chat_summary, CHAT_TOOLS),
    "responses": (responses_plain, responses_stream, responses_summary,
                  FUNCTIONS),
    "messages": (messages_plain, messages_stream, messages_summary, TOOLS),
    "completions": (completions_plain, completions_stream,
                    completions_summary, None),
}


def asked(fn, *args):
    before = requests()
    r = fn(*args)
    return r, requests() - before


def stored_and_played(kind, stored, controls, tools):
    plain, stream, summary, offered = KINDS[kind]
    forms = {"plain": plain, "stream": stream}
    more = {"tools": offered} if tools else {}
    question = "question " + unique()
    o = ctl(**controls)

    r, calls = asked(forms[stored], question, more, o)
    want = summary(r)
    assert calls == 1, calls

    for form in "plain", "stream", "plain":
        r, calls = asked(forms[form], question, more, o)
        got = summary(r)
        assert calls == 0, f"{form}: the provider was asked"
        assert got == want, f"{form}:\n{got}\n{want}"

    return digest(json.dumps(want))


for kind, (_, _, _, offered) in KINDS.items():
    for stored in "plain", "stream":
        for what, controls in TEXTS.items():
            @case(f"{kind}, {what}, stored as {stored}")
            def _(kind=kind, stored=stored, controls=controls):
                return stored_and_played(kind, stored, controls, False)

        for what, controls in CALLS.items() if offered else ():
            @case(f"{kind}, {what}, stored as {stored}")
            def _(kind=kind, stored=stored, controls=controls):
                return stored_and_played(kind, stored, controls, True)


@case("messages, thinking, stored as stream")
def _():
    q = "question " + unique()
    o = ctl(thinking=4, events=4)
    one, calls = asked(messages_stream, q, {}, o)
    again, more = asked(messages_stream, q, {}, o)
    assert (calls, more) == (1, 0)
    assert messages_summary(one) == messages_summary(again)
    assert one.content[0].type == "thinking" and one.content[0].signature


# --- what is told, and asked, with it ---


@case("headers")
def _():
    q = "question " + unique()
    for want in "MISS", "HIT":
        raw = OPENAI.chat.completions.with_raw_response.create(
            model="gpt-mock", messages=ask(q), **ctl())
        assert raw.headers["x-llm-cache"] == want, raw.headers
        assert (want == "HIT") == ("age" in raw.headers)
        assert raw.parse().choices[0].finish_reason == "stop"

    s = OPENAI.chat.completions.create(model="gpt-mock", messages=ask(q),
                                       stream=True, **ctl())
    assert s.response.headers["x-llm-cache"] == "HIT"
    items, error = drain(s)
    assert error is None
    assert all(i.usage is None and i.choices for i in items)


@case("headers, messages")
def _():
    q = "question " + unique()
    o = dict(model="claude-mock", max_tokens=1000, messages=ask(q), **ctl())
    for want in "MISS", "HIT":
        raw = ANTHROPIC.messages.with_raw_response.create(**o)
        assert raw.headers["x-llm-cache"] == want, raw.headers


@case("embeddings")
def _():
    q = "question " + unique()

    def embed(**more):
        return OPENAI.embeddings.create(model="text-embedding-mock", input=q,
                                        **more, **ctl())

    one, calls = asked(embed)
    two, more = asked(embed)
    assert (calls, more) == (1, 0)
    assert one.data[0].embedding == two.data[0].embedding
    assert asked(lambda: embed(dimensions=64))[1] == 1
    return len(one.data[0].embedding)


@case("no-cache asks afresh")
def _():
    q = "question " + unique()
    o = ctl()
    assert asked(chat_plain, q, {}, o)[1] == 1
    o["extra_headers"]["Cache-Control"] = "no-cache"
    assert asked(chat_plain, q, {}, o)[1] == 1
    assert asked(chat_plain, q, {}, ctl())[1] == 0


@case("only-if-cached")
def _():
    o = ctl()
    o["extra_headers"]["Cache-Control"] = "only-if-cached"
    e = raised(chat_plain, "question " + unique(), {}, o)
    assert isinstance(e, openai.InternalServerError) and e.status_code == 504
    assert e.body["message"]
    e = raised(messages_plain, "question " + unique(), {}, o)
    assert isinstance(e, anthropic.APIStatusError) and e.status_code == 504
    assert e.body["error"]["message"]


@case("only-if-cached is not tried again")
def _():
    o = ctl()
    o["extra_headers"]["Cache-Control"] = "only-if-cached"
    for client, fn in ((OPENAI.with_options(max_retries=2),
                        lambda c: c.chat.completions),
                       (ANTHROPIC.with_options(max_retries=2),
                        lambda c: c.messages)):
        more = {"max_tokens": 5} if client.__class__.__name__ == "Anthropic" else {}
        e = raised(fn(client).create, model="claude-mock" if more else
                   "gpt-mock", messages=ask("question " + unique()),
                   **more, **o)
        assert e.response.headers.get("x-should-retry") == "false"
        assert e.response.request.headers.get(
            "x-stainless-retry-count") == "0"


@case("other tenants ask for themselves")
def _():
    q = "question " + unique()
    assert asked(chat_plain, q, {}, ctl())[1] == 1
    other = OPENAI.with_options(api_key="sk-of-another-" + unique())
    assert asked(lambda: other.chat.completions.create(
        model="gpt-mock", messages=ask(q), **ctl()))[1] == 1
    assert asked(chat_plain, q, {}, ctl())[1] == 0


assert os.environ["VIA"] == "gateway"
main()
