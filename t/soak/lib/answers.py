"""What t/soak/coalesce asks, and what each answer has to be, byte for byte.

A key says in its model name how the provider (t/mock) shall answer it, so
that the answer's text is a function of the key, and each event of the OpenAI
APIs names the key.  What is drawn anew for each call are the ids and the
time, which stand in each event of most APIs: an answer that is put together
of two calls cannot match.  Where they stand only at the beginning (messages),
the four providers tell calls apart: each cuts its text in another way.

An answer is compared with what the provider says when it is asked without
the gateway, after its ids and time have been put in there (Truth).  A part of
an answer must be the beginning of that.
"""

import hashlib
import json
import re

# size= of a provider's pieces of text; its name is sent as X-LLM-Provider
PROVIDERS = {"a": 9, "b": 12, "c": 17, "d": 23}

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions",
         "messages": "/v1/messages", "responses": "/v1/responses"}

MAX_RESPONSE = 48 * 1024


class Key:
    """One question.  big: longer than max_response, so that it may be asked
    for again while it is in the air, and slow readers are told so.  None has
    an event of twice that: with it in the log everybody is too far behind."""

    def __init__(self, number, kind, weight, big=False, **controls):
        self.number = number
        self.kind = kind
        self.weight = weight
        self.big = big
        controls["prompt_tokens"] = 1000 + number
        self.model = "%sk%d@%s" % (
            "claude-" if kind == "messages" else "", number,
            ";".join("%s=%s" % kv for kv in sorted(controls.items())))
        # the stream's end cannot be sent before
        self.least = (controls.get("delay", 0) + controls.get("first", 0)
                      + controls.get("gap", 0)
                      * (controls["events"] - 1)) / 1000

    def body(self, stream=False, usage=False):
        turn = [{"role": "user", "content": "question %d" % self.number}]
        if self.kind == "messages":
            body = {"max_tokens": 99999, "messages": turn}
        elif self.kind == "responses":
            body = {"input": turn, "store": False}
        elif self.kind == "completions":
            body = {"prompt": "question %d" % self.number}
        else:
            body = {"messages": turn, "temperature": 0.5}
        body["model"] = self.model
        if stream:
            body["stream"] = True
        if usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def counts(self):
        """May a client ask for the usage chunk?"""
        return self.kind in ("chat", "completions")


KEYS = [Key(n, *args, **controls) for n, (args, controls) in enumerate([
    (("chat", 10), dict(events=40, gap=25, delay=150)),
    (("chat", 6), dict(events=20, gap=80, first=300)),
    (("messages", 10), dict(events=40, gap=30, delay=100)),
    (("responses", 6), dict(events=30, gap=40)),
    (("completions", 6), dict(events=30, gap=40, delay=250)),
    (("chat", 5, True), dict(events=400, gap=8)),
    (("chat", 2, True), dict(events=10, gap=60, big_event=80000,
                             rate=60000)),
    (("messages", 6), dict(events=12, gap=250, delay=300)),
    (("chat", 4), dict(events=3, gap=5)),
    (("messages", 3), dict(events=1)),
    (("chat", 6), dict(events=16, delay=900)),
    (("responses", 2, True), dict(events=250, gap=10)),
    (("messages", 4), dict(events=60, gap=15, first=500)),
])]


class Wrong(Exception):
    """An answer that is not what it has to be."""


_SLOT = re.compile(rb'(?<=")(?:chatcmpl-|cmpl-|resp_|msg_)[A-Za-z0-9]{20,}'
                   rb'(?=")|(?<="created":)\d{10}|(?<="created": )\d{10}'
                   rb'|(?<="created_at":)\d{10}')


class Truth:
    """One answer as the provider gives it, with slots for what is new in
    each call: where the slot stands first, and the value there."""

    def __init__(self, body):
        self.body = body
        self.slots = []
        seen = set()
        for m in _SLOT.finditer(body):
            if m.group() not in seen:
                seen.add(m.group())
                self.slots.append((m.start(), m.group()))

    def filled(self, body):
        """This answer with the ids and the time of that one, and the ids."""
        mine, ids = self.body, []
        for at, value in self.slots:
            new = body[at:at + len(value)]
            if len(new) < len(value):
                # it ends within the slot: a beginning of any value
                if len(new):
                    mine = mine[:at] + new + mine[at + len(new):]
                break
            if value.isdigit() != new.isdigit() \
                    or not re.fullmatch(rb"[A-Za-z0-9_-]+", new):
                return None, []
            mine = mine.replace(value, new)
            if not new.isdigit():
                ids.append(new.decode())
        return mine, ids


def difference(got, wanted):
    n = next((i for i, (x, y) in enumerate(zip(got, wanted)) if x != y),
             min(len(got), len(wanted)))
    return "at %d of %d: %r, not %r" % (
        n, len(got), got[max(0, n - 60):n + 60],
        wanted[max(0, n - 60):n + 60])


class Truths:
    """All of them, by (key, form, provider); form: plain, stream, usage (a
    stream with its usage chunk)."""

    def __init__(self):
        self.known = {}

    def add(self, key, form, provider, body):
        self.known[key.number, form, provider] = Truth(body)

    def find(self, key, form, provider):
        if provider:
            name = provider[1:] if key.kind == "messages" \
                and provider[0] == "x" else provider
            if name not in PROVIDERS:
                raise Wrong("by the provider %s" % provider)
            return [self.known[key.number, form, name]]
        return [self.known[key.number, form, p] for p in PROVIDERS]

    def check(self, key, form, provider, body, whole):
        """The call's ids; Wrong if the body is not the answer (or, if it is
        not whole, no beginning of it)."""
        said = None
        for truth in self.find(key, form, provider):
            wanted, ids = truth.filled(body)
            if wanted is None:
                continue
            if body == wanted or not whole and wanted.startswith(body):
                return ids
            said = said or difference(body, wanted)
        raise Wrong(said or "no ids where they have to be: %r" % body[:200])

    # ------------------------------------------------------------- streams

    def stream(self, key, form, provider, body, whole):
        """(ids, error that was told in it or None)"""
        head, event = body, ""
        if whole and body.endswith(b"\n\n"):
            cut = body.rfind(b"\n\n", 0, -2)
            head, event = body[:cut + 2 if cut >= 0 else 0], \
                body[cut + 2 if cut >= 0 else 0:].decode()
            error = self.error(event)
            if error is not None:
                return self.check(key, form, provider, head, False), error
        return self.check(key, form, provider, body, whole), None

    @staticmethod
    def error(event):
        """The error of an event that is one."""
        data = "\n".join(line[5:].lstrip() for line in event.split("\n")
                         if line.startswith("data:"))
        try:
            d = json.loads(data)
        except ValueError:
            return None
        if not isinstance(d, dict):
            return None
        if d.get("type") == "response.failed":
            d = d["response"]
        elif not d.get("error") and d.get("type") == "error":
            d = {"error": d}
        error = d.get("error")
        if not error:
            return None
        if not isinstance(error, dict) or not error.get("message"):
            raise Wrong("an error without a message: %s" % data[:200])
        return error

    def replay(self, key, form, provider, body):
        """A whole stream that the cache may have made of a plain answer:
        the same text, cut in another way."""
        try:
            return self.check(key, form, provider, body, True)
        except Wrong as e:
            said = e
        got = told(key.kind, body)
        for truth in self.find(key, form, provider):
            if got[1:] == told(key.kind, truth.body)[1:]:
                return got[0]
        raise said

    # --------------------------------------------------------------- plain

    def plain(self, key, provider, body, folded):
        """(ids, digest of the folded answer or None); folded: it may be
        what the gateway has made of a stream."""
        try:
            return self.check(key, "plain", provider, body, True), None
        except Wrong:
            if not folded:
                raise
        try:
            got = json.loads(body)
        except ValueError:
            raise Wrong("no JSON: %r" % body[:200])
        said = None
        for truth in self.find(key, "plain", provider):
            try:
                return fold_check(got, json.loads(truth.body), body)
            except Wrong as e:
                said = e
        raise said


def told(kind, body):
    """What a stream says: its ids, its text, why and how it ends."""
    text, ids, stop, last = "", [], None, None
    for event in body.decode().split("\n\n"):
        data = event[event.find("data: ") + 6:]
        if not event:
            continue
        last = data
        if data == "[DONE]":
            continue
        last = d = json.loads(data)
        if kind in ("chat", "completions"):
            new = [d["id"]]
            for c in d["choices"]:
                text += c["text"] if kind == "completions" \
                    else c["delta"].get("content") or ""
                stop = c.get("finish_reason") or stop
        else:
            whole = d.get("message") or d.get("response") or {}
            new = [whole["id"]] if whole else ids[:1]
            new += [d["item_id"]] if "item_id" in d else ids[1:]
            if d["type"] in ("content_block_delta",
                             "response.output_text.delta"):
                text += d["delta"] if kind == "responses" \
                    else d["delta"]["text"]
            stop = d.get("delta", {}).get("stop_reason") \
                if d["type"] == "message_delta" \
                else whole.get("status") or stop
        if ids[:len(new)] != new[:len(ids)]:
            raise Wrong("ids of two calls: %s, %s" % (ids, new))
        ids = new if len(new) > len(ids) else ids
    return ids, text, stop, last if kind in ("chat", "completions") \
        else last["type"]


# members that must be in a folded answer
FACTS = {"chat.completion": [("id",), ("model",), ("created",),
                             ("choices", 0, "message", "content"),
                             ("choices", 0, "finish_reason")],
         "text_completion": [("id",), ("model",), ("created",),
                             ("choices", 0, "text"),
                             ("choices", 0, "finish_reason")],
         "message": [("id",), ("model",), ("content", 0, "text"),
                     ("stop_reason",), ("usage", "output_tokens"),
                     ("usage", "input_tokens")],
         "response": [("id",), ("model",), ("created_at",), ("status",),
                      ("output", 0, "id"),
                      ("output", 0, "content", 0, "text"),
                      ("usage", "total_tokens")]}

NEW = {("id",), ("created",), ("created_at",), ("output", 0, "id")}


def leaves(value, path=()):
    if isinstance(value, dict):
        for k, v in value.items():
            yield from leaves(v, path + (k,))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from leaves(v, path + (i,))
    else:
        yield path, value


def fold_check(got, wanted, body):
    """Each member must have the value it has in the provider's own plain
    answer, which may have some more that say nothing."""
    if not isinstance(got, dict):
        raise Wrong("a folded answer of type %s" % type(got).__name__)
    kind = got.get("object") or got.get("type")
    have, want = dict(leaves(got)), dict(leaves(wanted))
    if kind == "chat.completion.chunk" or kind not in FACTS:
        raise Wrong("a folded answer of kind %s: %r" % (kind, body[:200]))
    for path in FACTS[kind]:
        if path not in have:
            raise Wrong("a folded answer without %s: %r" % (path, body[:200]))
    for path, value in have.items():
        if path not in NEW and want.get(path) != value:
            raise Wrong("folded: %s: %s" % (path, difference(
                str(value), str(want.get(path)))))
    ids = [str(have[p]) for p in (("id",), ("output", 0, "id")) if p in have]
    text = body
    for path in NEW:
        if path in have:
            text = text.replace(str(have[path]).encode(), b"*")
    return ids, hashlib.sha256(text).hexdigest()[:16]
