"""The PyPI package anthropic."""

import asyncio
import io
import json
import time

import anthropic
from anthropic import Anthropic, AsyncAnthropic

from run import (BASE, GATEWAY, Aborts, arrived, brief, case, credentials, ctl, drain,
                 last_body, main, raised, requests, sent, shape, unique)


def make(prefix="", cls=Anthropic, **more):
    more = {"max_retries": 0, "timeout": 10, **more}
    return cls(base_url=f"{BASE}{prefix}", api_key="sk-of-the-client", **more)


client = make()
byok = make("/byok_claude")
ASK = {
    "model": "claude-mock", "max_tokens": 100000, "system": "Be brief.",
    "messages": [{"role": "user",
                  "content": 'Grüße, 世界 🌍 "quoted" \\ \x01'}],
}
TOOLS = [{
    "name": "get_weather", "description": "of a place",
    "input_schema": {"type": "object", "required": ["location"],
                     "properties": {"location": {"type": "string"}}},
}]


def say(c=client, **body):
    return c.messages.create(**{**ASK, **body})


def text(items):
    return "".join(getattr(getattr(i, "delta", None), "text", "") or ""
                   for i in items)


def complete(items):
    return any(i.type == "message_stop" for i in items)


# --- messages ---


@case("messages")
def _():
    r = say(**ctl())
    assert r.stop_reason == "end_turn" and r.usage.output_tokens > 0
    return r, sent()


@case("messages: the request is sent as it is")
def _():
    o = ctl(cached=100)
    o["extra_headers"]["anthropic-beta"] = "a-2025-01-01,b-2026-02-02"
    r = say(metadata={"user_id": "<&>\u2028"},
            extra_body={"temperature": 1.0, "unknown_member": [1, {"b": None}, 1.0, 1e-9]},
            extra_query={"beta": "true"}, **o)
    return r, sent()


for name, controls in {
    "as it comes": {},
    "CRLF, comments, ids": {"eol": "crlf", "comments": 1, "ids": 1},
    "CR, data of many lines": {"eol": "cr", "multiline": 1},
    "split into 7 bytes": {"split": 7},
    "unknown members and events": {"unknown": 1},
    "thinking": {"thinking": 5},
    "an event of 2 MB": {"big_event": "2m", "events": 3},
    "3,000 events": {"events": 3000, "size": 20},
    "until close": {"stream_framing": "close"},
    "heartbeats": {"gap": 30, "events": 4, "heartbeat": 10},
}.items():
    @case(f"messages stream: {name}")
    def _(controls=controls):
        items, error = drain(say(stream=True, **ctl(**controls)))
        assert error is None
        assert items[-1].type == "message_stop"
        return (len(items), text(items)) if len(items) > 100 else items


@case("messages stream: helper")
def _():
    with client.messages.stream(**ASK, **ctl(events=10, thinking=2)) as s:
        words = "".join(s.text_stream)
        r = s.get_final_message()
    assert words == r.content[-1].text
    return r, sent()


@case("messages: beta")
def _():
    r = client.beta.messages.create(**ASK, betas=["context-1m-2025-08-07"],
                                    **ctl())
    assert "context-1m" in sent()["headers"]["anthropic-beta"]
    return r, sent()


@case("count_tokens")
def _():
    r = client.messages.count_tokens(model=ASK["model"],
                                     messages=ASK["messages"], **ctl())
    assert r.input_tokens > 0
    return r, sent()


# --- tools ---


@case("tools")
def _():
    r = say(tools=TOOLS, **ctl(tools=2))
    assert r.stop_reason == "tool_use"
    assert [c.input["location"] for c in r.content] == ["Paris, France",
                                                        "Rome, Italy"]
    return r


@case("tools, stream")
def _():
    with client.messages.stream(**ASK, tools=TOOLS,
                                **ctl(tools=2, events=6)) as s:
        parts = [e.partial_json for e in s if e.type == "input_json"]
        r = s.get_final_message()
    assert [c.input["location"] for c in r.content] == ["Paris, France",
                                                        "Rome, Italy"]
    assert json.loads("".join(parts).replace("}{", "},{").join("[]"))
    return r, parts


@case("tools: two turns, stream")
def _():
    messages, seen = list(ASK["messages"]), []

    for _ in range(3):
        with client.messages.stream(
                **{**ASK, "messages": messages}, tools=TOOLS,
                **ctl(tools=1, turns=2)) as s:
            r = s.get_final_message()

        if r.stop_reason != "tool_use":
            break

        seen.append(r.content[0].input["location"])
        messages.append({"role": "assistant",
                         "content": [c.to_dict() for c in r.content]})
        messages.append({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": r.content[0].id,
             "content": "sunny"}]})

    assert seen == ["Paris, France", "Rome, Italy"]
    return r, sent()


# --- models, other endpoints ---


@case("models", only="gateway")
def _():
    r = list(client.models.list(limit=1000))
    assert any(m.id == "claude-mock" and m.type == "model" for m in r)
    assert client.models.retrieve("claude-mock").type == "model"
    e = raised(client.models.retrieve, "claude-none")
    assert type(e) is anthropic.NotFoundError
    return r


@case("files: a multipart upload")
def _():
    content = b"some text\n" * 200000
    f = make("/claude").beta.files.upload(
        file=("a.txt", io.BytesIO(content), "text/plain"), **ctl())
    body = last_body()
    assert content in body
    d = f.model_dump(mode="json", warnings=False)
    assert len(body) == d["bytes"]
    d.pop("crc32")
    return d


# --- what goes wrong ---

CLASSES = {
    400: anthropic.BadRequestError, 401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError, 404: anthropic.NotFoundError,
    409: anthropic.ConflictError, 413: anthropic.APIStatusError,
    422: anthropic.UnprocessableEntityError, 429: anthropic.RateLimitError,
    500: anthropic.InternalServerError, 529: anthropic.APIStatusError,
}

for status, kind in CLASSES.items():
    @case(f"error {status}")
    def _(status=status, kind=kind):
        out = []
        for stream in False, True:
            e = raised(say, byok, stream=stream, **ctl(status=status))
            assert isinstance(e, kind) and e.status_code == status, repr(e)
            out.append(shape(e))
            if status not in (401, 403, 404):
                own = raised(say, stream=stream, **ctl(status=status))
                assert brief(shape(own)) == brief(shape(e))
        return out


@case("error: the gateway's own key is refused", only="gateway")
def _():
    e = raised(say, **ctl(status=401))
    assert e.status_code == 502
    assert e.body["error"]["type"] and e.body["error"]["message"]
    return shape(e)


@case("529 is tried again")
def _():
    before, start = requests(), time.monotonic()
    r = say(make(max_retries=2), **ctl(status=529, fails=1, key=unique(),
                                       retry_after=1))
    assert requests() - before == 2
    assert time.monotonic() - start >= 0.9, "Retry-After is obeyed"
    return r


@case("x-should-retry is passed on")
def _():
    before = requests()
    e = raised(say, make(max_retries=2),
               **ctl(status=529, should_retry="false"))
    assert requests() - before == 1
    return shape(e)


@case("a closed connection", differ=True)
def _():
    out = []
    for fault in "reset", "close", "bad_head", "close_mid_head":
        e = raised(say, **ctl(fault=fault))
        if GATEWAY:
            assert e.status_code == 502, fault
            assert e.body["error"]["type"] == "api_error"
        out.append(shape(e))
    return out


# --- streams that fail ---


def failing(fault, **more):
    return say(stream=True, **ctl(fault=fault, at=3, events=8, **more))


@case("an error event after content")
def _():
    items, error = drain(failing("error_event"))
    assert len(items) > 2 and not complete(items)
    assert isinstance(error, anthropic.APIStatusError)
    return items, shape(error)


for fault in "cut", "reset_mid", "clean_cut":
    @case(f"{fault} after content", differ=True)
    def _(fault=fault):
        items, error = drain(failing(fault))
        assert not complete(items), "never looks complete"
        if GATEWAY:
            assert isinstance(error, anthropic.APIStatusError), repr(error)
        return len(items), error and shape(error)


@case("no message_stop after a stop_reason", differ=True)
def _():
    items, error = drain(failing("no_done"))
    assert error is None and complete(items) == GATEWAY


@case("the helper fails, too", differ=True)
def _():
    for fault in ("cut", "clean_cut", "error_event")[:None if GATEWAY else 1]:
        def use():
            with client.messages.stream(**ASK, **ctl(fault=fault, at=3)) as s:
                s.get_final_message()

        raised(use)


@case("an error before content", differ=True)
def _():
    try:
        _, e = drain(failing("error_first"))
    except anthropic.APIError as error:
        e = error
    assert isinstance(e, anthropic.APIError)
    if GATEWAY:
        assert e.status_code == 529
    return shape(e)


@case("a malformed event is not shown", differ=True)
def _():
    items, error = drain(failing("malformed"))
    if GATEWAY:
        assert error is None and complete(items)
    return len(items)


# --- time ---


@case("timeout of the SDK")
def _():
    out = []
    for stream in False, True:
        with Aborts():
            e = raised(say, stream=stream, timeout=0.5, **ctl(delay=5000))
        assert type(e) is anthropic.APITimeoutError
        out.append(shape(e))
    return out


@case("timeouts of the gateway", only="gateway")
def _():
    slow = make("/slow")
    out = []
    for stream in False, True:
        e = raised(say, slow, stream=stream, **ctl(delay=3000))
        assert e.status_code == 504
        out.append(shape(e))

    items, e = drain(say(slow, stream=True, **ctl(fault="stall", at=3)))
    assert isinstance(e, anthropic.APIStatusError) and not complete(items)
    out.append(shape(e))
    return out


@case("pings are not seen", differ=True)
def _():
    items, error = drain(say(make("/ping"), stream=True,
                             **ctl(events=3, gap=200)))
    assert error is None and complete(items)


# --- giving up ---


@case("abort: a stream")
def _():
    with Aborts():
        s = say(stream=True, **ctl(events=500, gap=20))
        for _, event in zip(range(5), s):
            pass
        s.close()

    with Aborts():
        with client.messages.stream(**ASK, **ctl(events=500, gap=20)) as s:
            next(iter(s.text_stream))


@case("abort: a cancelled task")
async def _():
    with Aborts():
        async with make(cls=AsyncAnthropic) as c:
            async def use():
                async for event in await c.messages.create(
                        **ASK, stream=True, **ctl(events=500, gap=20)):
                    pass

            before = requests()
            task = asyncio.create_task(use())
            await arrived(before)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass


# --- size and number ---


@case("a body of 4 MB")
def _():
    r = say(messages=[{"role": "user", "content": 'wörd "x" \n' * 400000}],
            **ctl(keep=1))
    return r, sent()


@case("an answer of 8 MB")
def _():
    return say(**ctl(total="8m"))


@case("too large a body", only="gateway")
def _():
    e = raised(say, make("/small"),
               messages=[{"role": "user", "content": "x" * 200000}])
    assert e.status_code == 413
    assert e.body["error"]["type"] == "request_too_large"
    return shape(e)


@case("40 streams at a time")
async def _():
    async with make(cls=AsyncAnthropic) as c:
        async def one(i):
            s = await c.messages.create(
                **ASK, stream=True, **ctl(seed=i + 1, events=30, gap=2))
            return text([event async for event in s])

        r = await asyncio.gather(*(one(i) for i in range(40)))
    assert len(set(r)) == 40
    return r


# --- the gateway's own ---


@case("errors of the gateway", only="gateway")
def _():
    e = raised(say, model="nobody-knows")
    assert type(e) is anthropic.NotFoundError
    out = [shape(e)]

    e = raised(say, model="gpt-mock")
    assert type(e) is anthropic.BadRequestError
    out.append(shape(e))
    return out


@case("keys")
def _():
    say(**ctl())
    if GATEWAY:
        assert credentials() == {"authorization": None,
                                 "key": "sk-of-the-gateway"}
    r = say(byok, **ctl())
    keys = credentials()
    assert "sk-of-the-client" in repr(keys)
    return r, keys, sent()


main()
