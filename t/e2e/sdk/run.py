"""What the Python scripts have in common; see run.mjs."""

import asyncio
import hashlib
import inspect
import json
import os
import re
import sys
import threading
import time
import traceback
import urllib.request

VIA = os.environ["VIA"]
BASE = os.environ["BASE"]
TLS = os.environ.get("TLS")
CA = os.environ.get("CA")
GATEWAY = VIA == "gateway"

_mock = os.environ["MOCK"]
_cases = []
_seed = 0


# --- cases ---


def case(name, *, differ=False, only=None, todo=None):
    def add(fn):
        if only in (None, VIA):
            _cases.append((name, differ or only is not None, todo, fn))
        return fn

    return add


def main():
    wanted = os.environ.get("ONLY", "")

    for name, differ, todo, fn in _cases:
        if wanted not in name:
            continue

        out = {"name": name, "ok": True, "why": "", "differ": differ,
               "todo": todo}

        # a client that hangs does so in code of its own: nothing but the end
        # of the process helps
        timer = threading.Timer(20, _hung, [out])
        timer.daemon = True
        timer.start()

        try:
            result = fn()
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            out["result"] = brief(result)
        except BaseException:
            out["ok"] = False
            out["why"] = traceback.format_exc()[-2000:]

        timer.cancel()
        print(json.dumps(out), flush=True)


def _hung(out):
    out["ok"] = False
    out["why"] = "took too long\n" + "".join(
        line
        for frame in sys._current_frames().values()
        for line in traceback.format_stack(frame)[-4:]
    )
    print(json.dumps(out), flush=True)
    os._exit(1)


def digest(data):
    if isinstance(data, str):
        data = data.encode()
    return hashlib.sha256(data).hexdigest()[:16]


def brief(x):
    """As JSON; long texts and vectors become their digests."""
    if hasattr(x, "model_dump"):
        x = x.model_dump(mode="json", warnings=False)

    if isinstance(x, dict):
        return {str(k): brief(v) for k, v in x.items()}

    if isinstance(x, (list, tuple)):
        if len(x) > 16 and all(isinstance(n, (int, float)) for n in x):
            return f"{len(x)} numbers, {digest(repr(list(x)))}"
        return [brief(v) for v in x]

    if isinstance(x, str):
        if len(x) > 400:
            return f"{len(x)} characters, {digest(x)}"
        return re.sub(r"\breq_[0-9a-zA-Z]+", "req_*", x)

    if x is None or isinstance(x, (bool, int, float)):
        return x

    return repr(x)


# --- the mock ---


def ctl(**controls):
    """Controls of one request, as a keyword argument of an SDK's call."""
    headers = {"X-Mock-Seed": "7"}
    for name, value in controls.items():
        headers["X-Mock-" + name.replace("_", "-")] = str(value)
    return {"extra_headers": headers}


def unique():
    global _seed
    _seed += 1
    return f"{VIA}-{os.getpid()}-{_seed}"


def _ask(name):
    with urllib.request.urlopen(f"{_mock}/_mock/{name}") as answer:
        return answer.read()


def stats():
    return json.loads(_ask("stats"))


def requests():
    return stats()["requests"]


def last_body():
    return _ask("last_body")


def _head():
    line, *rest = _ask("last").decode("latin-1").strip().split("\r\n")
    headers = {}
    for text in rest:
        name, value = text.split(":", 1)
        headers[name.lower()] = value.strip()
    return line, headers


def sent():
    line, headers = _head()
    for name in ("host", "connection", "content-length", "keep-alive",
                 "transfer-encoding", "accept-encoding", "authorization",
                 "x-api-key"):
        headers.pop(name, None)
    return {"line": re.sub(r" /byok[^/]*/", " /", line), "headers": headers,
            "body": digest(last_body())}


def credentials():
    _, headers = _head()
    return {"authorization": headers.get("authorization"),
            "key": headers.get("x-api-key")}


async def arrived(before):
    """The mock has one request more than before."""
    for _ in range(300):
        if await asyncio.to_thread(requests) > before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the request did not come")


class Aborts:
    """What happens inside gives up on an answer, and the provider is left."""

    def __enter__(self):
        self.before = stats()["aborted"]

    def __exit__(self, kind, value, tb):
        if kind:
            return
        end = time.monotonic() + 2
        while stats()["aborted"] == self.before and time.monotonic() < end:
            time.sleep(0.01)
        assert stats()["aborted"] == self.before + 1, "aborted at the mock"


# --- results ---


def raised(fn, *args, **kw):
    try:
        fn(*args, **kw)
    except Exception as e:
        return e
    raise AssertionError("no error was raised")


def shape(e):
    return {"class": type(e).__name__, "message": str(e),
            **{name: getattr(e, name, None)
               for name in ("status_code", "code", "type", "param", "body",
                            "request_id")}}


def drain(stream):
    items = []
    try:
        for item in stream:
            items.append(item)
    except Exception as e:
        return items, e
    return items, None


def plain_chunk(chunk):
    """Without the usage:null that a gateway's own usage request brings."""
    d = chunk.model_dump(mode="json", warnings=False)
    if d.get("usage") is None:
        d.pop("usage", None)
    return d
