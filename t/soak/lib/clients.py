#!/usr/bin/env python3
"""One process of t/soak/coalesce's clients.

Reads its orders, one JSON object, from the file that is its argument; writes
a line of JSON for each request.  It says what it has seen; whether there was
a reason for it (a kill, a reload, a failing provider) is for its parent to
find out, which knows what it has done and when.  Times are those of
CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import json
import os
import random
import socket
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from answers import KEYS, PATHS, Truths, Wrong                 # noqa: E402

TIMEOUT = 20.0            # nobody waits longer: it hangs
SLOW_FOR = 12.0           # then a slow reader leaves
SLOT = 0.5                # seconds between moments at which many ask at once

# what is behind the port (coalesce): weight, tenants, is there a cache
SERVERS = {"off": (65, 1), "on": (35, 2)}


class Left(Exception):
    """The client has left by itself."""


class Closed(Exception):
    """The connection has ended before its message has."""


class Message:
    """An HTTP/1.1 answer as it comes."""

    def __init__(self):
        self.raw = bytearray()
        self.body = bytearray()
        self.status = 0
        self.headers = {}
        self.left = None          # of the chunk, or of all
        self.chunked = False
        self.last = False         # this is the chunk that ends it
        self.whole = False

    def feed(self, data):
        self.raw += data
        if not self.status and not self.head():
            return
        if self.chunked:
            self.chunks()
        else:
            self.body += self.raw
            self.raw.clear()
            if len(self.body) > self.left:
                raise Wrong("something behind the answer: %r"
                            % bytes(self.body[self.left:][:80]))
            self.whole = len(self.body) == self.left

    def head(self):
        end = self.raw.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = self.raw[:end].decode("latin-1").split("\r\n")
        del self.raw[:end + 4]
        version, _, rest = lines[0].partition(" ")
        if version != "HTTP/1.1" or not rest[:3].isdigit():
            raise Wrong("no HTTP: %r" % lines[0][:80])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self.chunked = self.headers.get("transfer-encoding") == "chunked"
        if not self.chunked:
            if "content-length" not in self.headers:
                raise Wrong("an answer without a length: %s" % lines)
            self.left = int(self.headers["content-length"])
        self.status = int(rest[:3])
        return True

    def chunks(self):
        """What there is of a chunk is shown, too; left is what is to come
        of it, None before its size."""
        raw, pos = self.raw, 0
        while not self.whole:
            if self.left is None:
                end = raw.find(b"\r\n", pos)
                if end < 0:
                    break
                self.left = int(bytes(raw[pos:end]), 16)
                self.last = self.left == 0
                pos = end + 2
            n = min(len(raw) - pos, self.left)
            self.body += raw[pos:pos + n]
            self.left -= n
            pos += n
            if self.left or len(raw) - pos < 2:
                break
            if raw[pos:pos + 2] != b"\r\n":
                raise Wrong("a chunk without its end")
            pos += 2
            self.left = None
            self.whole = self.last
        del raw[:pos]
        if self.whole and raw:
            raise Wrong("something behind the last chunk: %r"
                        % bytes(raw[:80]))


class Client:
    def __init__(self, orders, truths, number, out):
        self.orders = orders
        self.truths = truths
        self.number = number
        self.out = out
        self.wrong = 0
        self.rnd = random.Random(orders["seed"] * 10007 + number)
        self.conn = None          # kept: server, reader, writer, when the
                                  # last request was sent, by which worker

    # ------------------------------------------------------- what to ask

    async def choose(self, until):
        """A question, at the moment it is to be asked; the record."""
        rnd = self.rnd
        server = rnd.choices(list(SERVERS),
                             [w for w, _ in SERVERS.values()])[0]
        if rnd.random() < 0.35:
            # many at once ask one thing, whoever they are
            slot = int(time.monotonic() / SLOT) + 1
            key = random.Random(slot * 31 + self.orders["seed"]).choices(
                KEYS, [k.weight for k in KEYS])[0]
            wait = slot * SLOT - time.monotonic()
        else:
            key = rnd.choices(KEYS, [k.weight for k in KEYS])[0]
            wait = min(rnd.expovariate(2), 3)
        await asyncio.sleep(max(0, min(wait, until - time.monotonic())))
        stream = rnd.random() < 0.65
        usage = stream and key.counts() and rnd.random() < 0.4
        x = rnd.random()
        return key, {
            "server": server, "key": key.number,
            "form": "usage" if usage else "stream" if stream else "plain",
            "tenant": rnd.randrange(SERVERS[server][1]),
            "slow": x < 0.07 and "slow" not in self.orders["without"],
            "leaves": min(rnd.expovariate(0.8), 6) if 0.07 <= x < 0.2
            and "leave" not in self.orders["without"] else None,
            "nocache": x > 0.98}

    def request(self, key, r):
        rnd = self.rnd
        body = list(key.body(r["form"] != "plain",
                             r["form"] == "usage").items())
        if key.kind == "chat":
            body.append(("user", "u%d" % rnd.randrange(1000)))
        rnd.shuffle(body)
        body = json.dumps(dict(body), indent=rnd.choice((None, None, 1)))
        head = ["POST %s HTTP/1.1" % PATHS[key.kind], "Host: x",
                "Content-Type: application/json",
                "Authorization: Bearer sk-tenant-%d" % r["tenant"],
                "Content-Length: %d" % len(body)]
        if r["nocache"]:
            head.append("Cache-Control: no-cache")
        return ("\r\n".join(head) + "\r\n\r\n" + body).encode()

    # -------------------------------------------------------- connections

    async def connect(self, server, slow):
        s = socket.socket()
        s.setblocking(False)
        if slow:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        await asyncio.get_running_loop().sock_connect(
            s, ("127.0.0.1", self.orders["ports"][server]))
        return await asyncio.open_connection(
            sock=s, limit=2048 if slow else 1 << 18)

    async def use(self, r):
        """A connection: often the one of the last answer."""
        if self.conn and self.conn[0] == r["server"] and not r["slow"] \
                and self.rnd.random() < 0.7:
            _, reader, writer, r["kept"], r["keeper"] = self.conn
            self.conn = None
            return reader, writer
        self.drop()
        return await self.connect(r["server"], r["slow"])

    def drop(self):
        if self.conn:
            self.conn[2].transport.abort()
            self.conn = None

    async def read(self, reader, r, m):
        """The whole message, at the client's pace."""
        begun = time.monotonic()
        leave = None if r["leaves"] is None else begun + r["leaves"]
        while not m.whole:
            now = time.monotonic()
            if r["slow"]:
                if now > begun + SLOW_FOR:
                    raise Left
                await asyncio.sleep(self.rnd.choice((0, 0.03, 0.1, 0.4)))
                end = time.monotonic() + TIMEOUT
            else:
                end = begun + TIMEOUT
            if leave is not None:
                end = min(end, leave)
            try:
                data = await asyncio.wait_for(
                    reader.read(1024 if r["slow"] else 65536),
                    max(0, end - time.monotonic()))
            except asyncio.TimeoutError:
                if leave is not None and time.monotonic() >= leave:
                    raise Left
                raise
            if not data:
                raise Closed("closed")
            had = m.status
            r.setdefault("first", time.monotonic())
            m.feed(data)
            if m.status and not had:
                r["head"] = time.monotonic()

    async def ask(self, key, r, m):
        """How it has ended."""
        writer = None
        r["sent"] = time.monotonic()
        try:
            reader, writer = await self.use(r)
            writer.write(self.request(key, r))
            await self.read(reader, r, m)
        except Left:
            return "left"
        except asyncio.TimeoutError:
            return "hangs"
        except (Closed, OSError) as e:
            r["why"] = str(e)
            return "cut"
        finally:
            r["end"] = time.monotonic()
            if writer and (not m.whole or r["slow"] or m.headers.get(
                    "connection") == "close"):
                writer.transport.abort()
            elif writer:
                self.conn = (r["server"], reader, writer, r["sent"],
                             m.headers.get("x-pid"))
        return "whole"

    # ------------------------------------------------------------- answers

    def judge(self, key, r, m, how):
        """The record's result, from how it has ended and what came."""
        body, h = bytes(m.body), m.headers
        r["status"], r["got"] = m.status, len(body)
        for name, header in (("pid", "x-pid"), ("cache", "x-llm-cache"),
                             ("provider", "x-llm-provider"),
                             ("attempts", "x-llm-attempts"),
                             ("request", "x-llm-request-id"),
                             ("flight", "x-flight")):
            if h.get(header):
                r[name] = h[header]
        if not m.status:
            return how
        if r.get("pid") is None:
            raise Wrong("not by a worker of this nginx: %s" % h)
        if m.status != 200:
            return self.refused(r, m, body, how)
        want = "application/json" if r["form"] == "plain" \
            else "text/event-stream"
        if not h.get("content-type", "").startswith(want):
            raise Wrong("%s wanted, %s sent" % (want, h.get("content-type")))
        if r["form"] == "plain":
            return self.plain(key, r, body, how)
        if r.get("cache") in ("HIT", "STALE"):
            if how != "whole":
                return how
            r["ids"] = self.truths.replay(key, r["form"], r.get("provider"),
                                          body)
            return how
        ids, error = self.truths.stream(key, r["form"], r.get("provider"),
                                        body, how == "whole")
        r["ids"] = ids
        if error:
            r["code"] = error.get("code") or error.get("type")
            r["why"] = error["message"][:200]
            return "in-band"
        return how

    def plain(self, key, r, body, how):
        folded = r.get("cache") in ("COALESCED", "HIT", "STALE")
        if how == "whole":
            r["ids"], r["fold"] = self.truths.plain(
                key, r.get("provider"), body, folded)
        elif not folded:
            r["ids"] = self.truths.check(key, "plain", r.get("provider"),
                                         body, False)
        return how

    def refused(self, r, m, body, how):
        if how != "whole":
            return how
        try:
            error = json.loads(body)["error"]
            r["why"] = error["message"][:200]
        except (ValueError, KeyError, TypeError):
            raise Wrong("status %d without an error: %r" % (m.status,
                                                            body[:200]))
        if m.status < 400:
            raise Wrong("status %d: %s" % (m.status, r["why"]))
        r["code"] = error.get("code") or error.get("type")
        return "error"

    def keep(self, m):
        """Where a wrong answer is found."""
        self.wrong += 1
        name = "%s/wrong-%d-%d" % (self.orders["dir"], self.number,
                                   self.wrong)
        if self.wrong <= 5:
            with open(name, "wb") as f:
                f.write(("%d %s\n\n" % (m.status, m.headers)).encode()
                        + m.body + b"\n---\n" + m.raw)
        return name

    async def one(self, until):
        key, r = await self.choose(until)
        if time.monotonic() >= until:
            return
        m = Message()
        try:
            how = await self.ask(key, r, m)
            r["result"] = self.judge(key, r, m, how)
            if r["result"] == "in-band":
                # it is closed after that, without having said so before
                self.drop()
        except (Wrong, ValueError, KeyError, IndexError, TypeError,
                AttributeError) as e:
            r["result"] = "wrong"
            r["why"] = "%s: %s" % (type(e).__name__, str(e)[:600])
            r.setdefault("end", time.monotonic())
            r["body"] = self.keep(m)
            self.drop()
        r["client"] = self.number
        self.out.write(json.dumps(r) + "\n")
        if r["result"] in ("error", "cut"):
            await asyncio.sleep(self.rnd.random() * 0.3)

    async def run(self, until):
        await asyncio.sleep(self.rnd.random())
        while time.monotonic() < until:
            await self.one(until)
        self.drop()


async def run(orders):
    truths = Truths()
    with open(orders["truths"], "rb") as f:
        for line in f:
            number, form, provider, body = json.loads(line)
            truths.add(KEYS[number], form, provider,
                       body.encode("latin-1"))
    with open(orders["out"], "w") as out:
        await asyncio.gather(*[
            Client(orders, truths, orders["first"] + i, out).run(
                orders["until"]) for i in range(orders["clients"])])


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        asyncio.run(run(json.load(f)))
