"""The PyPI package openai."""

import asyncio
import io
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from run import (BASE, CA, GATEWAY, TLS, Aborts, arrived, brief, case,
                 credentials, ctl, digest, drain, last_body, main, plain_chunk,
                 raised, requests, sent, shape, unique)


def make(prefix="", cls=OpenAI, **more):
    more = {"max_retries": 0, "timeout": 10, **more}
    return cls(base_url=f"{BASE}{prefix}/v1", api_key="sk-of-the-client",
               **more)


client = make()
byok = make("/byok")
MODEL = "gpt-mock"
ASK = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": 'Grüße, 世界 🌍 "quoted" \\ \x01'},
    ],
}
FUNCTION = {
    "name": "get_weather", "description": "of a place",
    "parameters": {"type": "object", "required": ["location"],
                   "additionalProperties": False,
                   "properties": {"location": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": {**FUNCTION, "strict": True}}]
FUNCTIONS = [{"type": "function", "strict": False, **FUNCTION}]
QUESTION = {"model": MODEL, "input": "Say hello", "store": False}


def chat(c=client, **body):
    return c.chat.completions.create(**{**ASK, **body})


def text(items):
    return "".join(i.choices[0].delta.content or "" for i in items
                   if i.choices)


# --- chat ---


@case("chat")
def _():
    r = chat(**ctl())
    assert r.choices[0].finish_reason == "stop"
    assert r.usage.completion_tokens > 0
    return r, sent()


@case("chat: the request is sent as it is")
def _():
    r = chat(temperature=0.1, seed=12345678901, metadata={"a": "<&>\u2028"},
             extra_body={"unknown_member": [1, {"b": None}, 1.0, 1e-9]},
             extra_query={"a": "b c"}, **ctl(unknown=1))
    assert r.mock_unknown
    return r, sent()


@case("chat stream: no usage unless it is asked for")
def _():
    items, error = drain(chat(stream=True, **ctl(events=20)))
    assert error is None
    assert all(len(i.choices) == 1 and not i.usage for i in items)
    assert items[-1].choices[0].finish_reason == "stop"
    return [plain_chunk(i) for i in items]


@case("chat stream: with usage")
def _():
    items, error = drain(chat(
        stream=True, stream_options={"include_usage": True}, **ctl()))
    assert error is None
    assert items[-1].choices == [] and items[-1].usage.total_tokens > 0
    return items, sent()


for name, controls in {
    "Azure, obfuscation": {"azure": 1, "obfuscation": 1},
    "CRLF, comments": {"eol": "crlf", "comments": 1},
    "ids": {"ids": 1},
    "CR, data of many lines": {"eol": "cr", "multiline": 1},
    "split into 7 bytes": {"split": 7},
    "unknown members": {"unknown": 1},
    "reasoning": {"thinking": 4},
    "an event of 2 MB": {"big_event": "2m", "events": 3},
    "3,000 events": {"events": 3000, "size": 20},
    "until close": {"stream_framing": "close"},
}.items():
    @case(f"chat stream: {name}")
    def _(controls=controls):
        items, error = drain(chat(stream=True, **ctl(**controls)))
        assert error is None
        assert items[-1].choices[0].finish_reason
        if len(items) > 100:
            return len(items), text(items)
        return [plain_chunk(i) for i in items]


@case("chat stream: text in pieces of a byte")
def _():
    words = "Gr%C3%BC%C3%9Fe %F0%9F%8C%8D data: [DONE]"
    items, _ = drain(chat(stream=True, model=f"gpt-mock@size=1;text={words}",
                          **ctl()))
    assert text(items) == "Grüße 🌍 data: [DONE]"
    return [plain_chunk(i) for i in items]


@case("chat stream: helper")
def _():
    with client.chat.completions.stream(**ASK, **ctl(events=10)) as s:
        deltas = [e.delta for e in s if e.type == "content.delta"]
        r = s.get_final_completion()
    assert "".join(deltas) == r.choices[0].message.content
    return plain_chunk(r)


@case("chat: parse")
def _():
    class Place(BaseModel):
        city: str

    r = client.chat.completions.parse(
        **{**ASK, "model": "gpt-mock@text=%7B%22city%22%3A%22Rome%22%7D"},
        response_format=Place, **ctl())
    assert r.choices[0].message.parsed.city == "Rome"
    return r, sent()


@case("chat: raw and streamed responses")
def _():
    raw = client.chat.completions.with_raw_response.create(**ASK, **ctl())
    assert raw.status_code == 200
    with client.chat.completions.with_streaming_response.create(
            **ASK, **ctl()) as r:
        body = b"".join(r.iter_bytes())
    return digest(raw.content), digest(body)


# --- tools ---


@case("tools")
def _():
    r = chat(tools=TOOLS, **ctl(tools=2))
    calls = r.choices[0].message.tool_calls
    assert [c.function.arguments for c in calls] == [
        '{"location":"Paris, France"}', '{"location":"Rome, Italy"}']
    return r


@case("tools, stream")
def _():
    items, error = drain(chat(tools=TOOLS, stream=True,
                              **ctl(tools=2, events=6)))
    assert error is None
    args = ["", ""]
    for i in items:
        for t in i.choices[0].delta.tool_calls or []:
            args[t.index] += t.function.arguments or ""
    assert args == ['{"location":"Paris, France"}',
                    '{"location":"Rome, Italy"}']
    return [plain_chunk(i) for i in items]


@case("tools, stream helper")
def _():
    with client.chat.completions.stream(
            **ASK, tools=TOOLS, **ctl(tools=1, events=6)) as s:
        r = s.get_final_completion()
    call = r.choices[0].message.tool_calls[0]
    assert call.function.parsed_arguments == {"location": "Paris, France"}
    return plain_chunk(r)


# --- completions, embeddings ---


@case("completions")
def _():
    plain = client.completions.create(model=MODEL, prompt="Once", **ctl())
    items, error = drain(client.completions.create(
        model=MODEL, prompt="Once", stream=True, **ctl()))
    assert error is None
    assert all(i.choices and not i.usage for i in items)
    return plain, [plain_chunk(i) for i in items]


for name, more in {"as the SDK asks": {}, "float": {"encoding_format": "float"},
                   "base64": {"encoding_format": "base64"}}.items():
    @case(f"embeddings: {name}")
    def _(name=name, more=more):
        r = client.embeddings.create(
            model="text-embedding-mock", input=["a", "b", "c"],
            dimensions=256, **more, **ctl())
        assert len(r.data) == 3
        assert isinstance(r.data[0].embedding,
                          str if name == "base64" else list)
        return r, sent()


@case("embeddings: 2,000 vectors")
def _():
    r = client.embeddings.create(
        model="text-embedding-mock", input=[f"text {i}" for i in range(2000)],
        **ctl())
    assert len(r.data) == 2000
    return digest(repr([d.embedding for d in r.data])), r.usage


# --- responses ---


@case("responses")
def _():
    r = client.responses.create(**QUESTION, **ctl())
    assert r.status == "completed" and r.output_text
    return r, sent()


@case("responses stream")
def _():
    items, error = drain(client.responses.create(
        **QUESTION, stream=True, **ctl(obfuscation=1)))
    assert error is None
    assert items[-1].type == "response.completed"
    assert [i.sequence_number for i in items] == list(range(len(items)))
    return items, sent()


@case("responses: tool calls")
def _():
    r = client.responses.create(**QUESTION, tools=FUNCTIONS, **ctl(tools=1))
    call = next(o for o in r.output if o.type == "function_call")
    assert call.arguments == '{"location":"Paris, France"}'

    items, error = drain(client.responses.create(
        **QUESTION, tools=FUNCTIONS, stream=True,
        **ctl(tools=1, events=5, thinking=3)))
    assert error is None
    assert "".join(
        i.delta for i in items
        if i.type == "response.function_call_arguments.delta"
    ) == '{"location":"Paris, France"}'
    return r, items


@case("responses stream: helper")
def _():
    with client.responses.stream(**QUESTION, **ctl()) as s:
        s.until_done()
        r = s.get_final_response()
    assert r.status == "completed"
    return r


@case("responses: retrieve, cancel, delete, compact")
def _():
    name = "resp_0123456789abcdef"
    got = client.responses.retrieve(name, **ctl())
    assert got.id == name
    line = sent()
    return (got, line, client.responses.cancel(name, **ctl()),
            client.responses.delete(name, **ctl()),
            client.responses.compact(model=MODEL, input="Say hello", **ctl()))


# --- models, other endpoints ---


@case("models", differ=True)
def _():
    r = list(client.models.list())
    assert any(m.id == MODEL and m.object == "model" for m in r)
    assert client.models.retrieve(MODEL).id == MODEL
    if GATEWAY:
        e = raised(client.models.retrieve, "gpt-none")
        assert type(e) is openai.NotFoundError
    return r


@case("files: a multipart upload")
def _():
    content = b'{"line":1}\n' * 300000
    f = client.files.create(file=("upload.jsonl", io.BytesIO(content)),
                            purpose="batch", **ctl())
    body = last_body()
    assert len(body) == f.bytes and content in body
    d = f.model_dump()
    d.pop("crc32")
    return d


@case("batches")
def _():
    made = client.batches.create(
        input_file_id="file-mock", endpoint="/v1/chat/completions",
        completion_window="24h", **ctl())
    return (made, client.batches.retrieve("batch_1", **ctl()),
            client.batches.list(limit=3, **ctl()).data, sent())


# --- what goes wrong ---

CLASSES = {
    400: openai.BadRequestError, 401: openai.AuthenticationError,
    403: openai.PermissionDeniedError, 404: openai.NotFoundError,
    409: openai.ConflictError, 413: openai.APIStatusError,
    422: openai.UnprocessableEntityError, 429: openai.RateLimitError,
    500: openai.InternalServerError, 503: openai.InternalServerError,
    529: openai.InternalServerError,
}

for status, kind in CLASSES.items():
    @case(f"error {status}")
    def _(status=status, kind=kind):
        out = []
        for stream in False, True:
            e = raised(chat, byok, stream=stream, **ctl(status=status))
            assert type(e) is kind, repr(e)
            out.append(shape(e))
            if status not in (401, 403, 404):
                own = raised(chat, stream=stream, **ctl(status=status))
                assert brief(shape(own)) == brief(shape(e))
        return out


@case("error: the gateway's own key is refused", only="gateway")
def _():
    e = raised(chat, **ctl(status=401))
    assert e.status_code == 502 and e.code
    return shape(e)


@case("429 is tried again")
def _():
    before, start = requests(), time.monotonic()
    r = chat(make(max_retries=2), **ctl(status=429, fails=1, key=unique(),
                                        retry_after=1))
    assert requests() - before == 2
    assert time.monotonic() - start >= 0.9, "Retry-After is obeyed"
    return r


@case("x-should-retry is passed on")
def _():
    before = requests()
    e = raised(chat, make(max_retries=2),
               **ctl(status=500, should_retry="false"))
    assert requests() - before == 1
    return shape(e)


@case("a closed connection", differ=True)
def _():
    out = []
    for fault in "reset", "close", "bad_head", "close_mid_head":
        e = raised(chat, **ctl(fault=fault))
        if GATEWAY:
            assert e.status_code == 502, fault
            assert e.body["message"] and e.body["type"]
        out.append(shape(e))
    return out


# --- streams that fail ---


def failing(kind, fault):
    o = ctl(fault=fault, at=3, events=8)
    if kind == "chat":
        return chat(stream=True, **o)
    return client.responses.create(**QUESTION, stream=True, **o)


def complete(items):
    return any(getattr(i, "type", "") == "response.completed"
               or (getattr(i, "choices", None)
                   and i.choices[0].finish_reason) for i in items)


def failed(items, error):
    return error or next(
        (i for i in items
         if getattr(i, "type", "") in ("error", "response.failed")), None)


for kind in "chat", "responses":
    @case(f"{kind}: an error event after content")
    def _(kind=kind):
        items, error = drain(failing(kind, "error_event"))
        assert len(items) > 2
        assert failed(items, error) and not complete(items)
        return [plain_chunk(i) for i in items], error and shape(error)

    for fault in "cut", "reset_mid", "clean_cut":
        @case(f"{kind}: {fault} after content", differ=True)
        def _(kind=kind, fault=fault):
            items, error = drain(failing(kind, fault))
            assert not complete(items), "never looks complete"
            if GATEWAY:
                assert failed(items, error), "the SDK is told"
                if kind == "chat":
                    assert type(error) is openai.APIError
            return len(items), error and shape(error)


@case("chat: an error before content", differ=True)
def _():
    try:
        _, e = drain(failing("chat", "error_first"))
    except openai.APIError as error:
        e = error
    assert isinstance(e, openai.APIError)
    if GATEWAY:
        assert e.status_code == 500
    return shape(e)


@case("chat: no [DONE] after a finish", differ=True)
def _():
    items, error = drain(failing("chat", "no_done"))
    assert error is None
    assert items[-1].choices[0].finish_reason == "stop"


@case("chat: a malformed event is not shown", differ=True)
def _():
    items, error = drain(failing("chat", "malformed"))
    if GATEWAY:
        assert error is None and complete(items)
    return len(items)


# --- time ---


@case("timeout of the SDK")
def _():
    out = []
    for stream in False, True:
        with Aborts():
            e = raised(chat, stream=stream, timeout=0.5, **ctl(delay=5000))
        assert type(e) is openai.APITimeoutError
        out.append(shape(e))

    with Aborts():
        items, e = drain(chat(stream=True, timeout=0.6,
                              **ctl(fault="stall", at=3)))
    assert type(e) is openai.APITimeoutError and not complete(items)
    out.append(shape(e))
    return out


@case("timeouts of the gateway", only="gateway")
def _():
    slow = make("/slow")
    out = []
    for stream in False, True:
        e = raised(chat, slow, stream=stream, **ctl(delay=3000))
        assert e.status_code == 504
        out.append(shape(e))

    items, e = drain(chat(slow, stream=True, **ctl(fault="stall", at=3)))
    assert type(e) is openai.APIError and not complete(items)
    out.append(shape(e))
    return out


@case("pings are not seen", differ=True)
def _():
    items, error = drain(chat(make("/ping"), stream=True,
                              **ctl(events=3, gap=200)))
    assert error is None and complete(items)


# after an id the SDK takes a comment and a blank line for an empty event
@case("pings are not seen, events have ids", only="gateway")
def _():
    items, error = drain(chat(make("/ping"), stream=True,
                              **ctl(events=3, gap=200, ids=1)))
    assert error is None and complete(items), repr(error)


# --- giving up ---


@case("abort: a stream, by close()")
def _():
    with Aborts():
        s = chat(stream=True, **ctl(events=500, gap=20))
        for _, chunk in zip(range(5), s):
            pass
        s.close()


@case("abort: a stream, by leaving its block")
def _():
    with Aborts():
        with client.responses.create(**QUESTION, stream=True,
                                     **ctl(events=500, gap=20)) as s:
            for event in s:
                if event.type == "response.output_text.delta":
                    break


@case("abort: a cancelled task")
async def _():
    for stream in False, True:
        with Aborts():
            async with make(cls=AsyncOpenAI) as c:
                async def use():
                    r = await c.chat.completions.create(
                        **ASK, stream=stream,
                        **ctl(delay=0 if stream else 5000, events=500,
                              gap=20))
                    async for chunk in r:
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
    messages = [{"role": "user", "content": 'wörd "x" \n' * 400000}]
    plain = chat(messages=messages, **ctl(keep=1))
    line = sent()
    items, error = drain(chat(messages=messages, stream=True,
                              stream_options={"include_usage": True},
                              **ctl(keep=1)))
    assert error is None
    return plain, line, items, sent()


@case("an answer of 8 MB")
def _():
    return chat(**ctl(total="8m"))


@case("too large a body", only="gateway")
def _():
    e = raised(chat, make("/small"),
               messages=[{"role": "user", "content": "x" * 200000}])
    assert type(e) is openai.APIStatusError and e.status_code == 413
    assert e.body["message"]
    return shape(e)


@case("40 streams at a time")
async def _():
    async with make(cls=AsyncOpenAI) as c:
        async def one(i):
            s = await c.chat.completions.create(
                **ASK, stream=True, **ctl(seed=i + 1, events=30, gap=2))
            return text([chunk async for chunk in s])

        r = await asyncio.gather(*(one(i) for i in range(40)))
    assert len(set(r)) == 40
    return r


@case("100 requests, one after another")
def _():
    return digest("".join(
        chat(**ctl(seed=i + 1, events=2)).choices[0].message.content
        for i in range(100)))


# --- TLS and HTTP/2 ---


def make_h2():
    return OpenAI(
        base_url=f"{TLS}/v1", api_key="sk-of-the-client", max_retries=0,
        timeout=10,
        http_client=openai.DefaultHttpxClient(
            http2=True, verify=ssl.create_default_context(cafile=CA)))


@case("HTTP/2: plain, streams, an error", only="gateway")
def _():
    with make_h2() as c:
        raw = c.chat.completions.with_raw_response.create(**ASK, **ctl())
        assert raw.http_response.http_version == "HTTP/2"
        assert raw.parse() == chat(**ctl())

        o = ctl(events=200, obfuscation=1)
        assert drain(chat(c, stream=True, **o)) == drain(chat(stream=True,
                                                              **o))
        o = {**QUESTION, "stream": True, **ctl(thinking=3)}
        assert (drain(c.responses.create(**o))
                == drain(client.responses.create(**o)))

        e = raised(chat, c, **ctl(status=429))
        assert type(e) is openai.RateLimitError

        items, e = drain(chat(c, stream=True, **ctl(fault="cut", at=3)))
        assert type(e) is openai.APIError and not complete(items)

        o = {"messages": [{"role": "user", "content": "x" * (4 << 20)}],
             **ctl()}
        assert chat(c, **o) == chat(**o)


# its HTTP/2 library never resets a stream: the end of the connection does it
@case("HTTP/2: abort, by closing the client", only="gateway")
def _():
    with Aborts():
        c = make_h2()
        s = chat(c, stream=True, **ctl(events=500, gap=20))
        for _, chunk in zip(range(5), s):
            pass
        c.close()


@case("HTTP/2: 30 streams in one connection", only="gateway")
def _():
    with make_h2() as c, ThreadPoolExecutor(30) as pool:
        def one(i):
            return text(drain(chat(c, stream=True,
                                   **ctl(seed=i + 1, events=30, gap=2)))[0])

        r = list(pool.map(one, range(30)))
    assert len(set(r)) == 30 and all(r)


# --- the gateway's own ---


@case("errors of the gateway", only="gateway")
def _():
    e = raised(chat, model="nobody-knows")
    assert type(e) is openai.NotFoundError and e.code == "model_not_found"
    out = [shape(e)]

    e = raised(chat, model="claude-mock")
    assert type(e) is openai.BadRequestError
    out.append(shape(e))

    e = raised(make("/strict").files.list)
    assert type(e) is openai.NotFoundError
    out.append(shape(e))
    return out


@case("keys")
def _():
    chat(**ctl())
    own = credentials()
    if GATEWAY:
        assert own["authorization"] == "Bearer sk-of-the-gateway"
    r = chat(byok, **ctl())
    assert credentials()["authorization"] == "Bearer sk-of-the-client"
    return r, sent()


main()
