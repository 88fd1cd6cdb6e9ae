"""The rows of the table: what is run, in pairs, and what is made of it."""

import os
import statistics
import time

from proc import (Broken, Skipped, faults, helped, log, memory, nofile,
                  waited)

KB = 1024

# name, body bytes, connections, nginx port, floors and goals of issue 2:
# throughput ratio, CPU added per request in us
REQUESTS = {
    "2k": ("2 KB body", 2 * KB, 32, "main", (0.85, 0.96), (4.5, 1.0)),
    "60k": ("60 KB body", 60 * KB, 32, "main", (0.72, 0.82), (20.0, 11.0)),
    "2m": ("2 MB body, spilled to disk", 2048 * KB, 8, "main",
           (0.60, 0.75), None),
    "2m-memory": ("2 MB body, in memory", 2048 * KB, 8, "large",
                  (0.60, 0.75), None),
}

# streams, ms between events, events, opened per second
STREAMS = {
    "s200": (200, 20, 150, 1000),
    "s1000": (1000, 50, 60, 1000),
    "s5000": (5000, 200, 40, 1000),
}

EVENT_BYTES = 60


def median(values):
    return statistics.median(values)


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    q = statistics.quantiles(values, n=4, method="inclusive")
    return q[0], q[2]


def ratio(a, b):
    return a / b if b else float("nan")


class Rows:
    """Holds the servers; every method measures one row and adds its lines."""

    def __init__(self, opts, mock, load, a, b, twin):
        self.opts = opts
        self.mock = mock
        self.load = load
        self.a = a              # plain
        self.b = b              # llm, or another plain with --plain-only
        self.twin = twin        # plain again: the noise
        self.lines = []
        self.raw = {}
        self.told = {}          # complaints of servers that are gone
        self.whole = None

    def line(self, row, what, plain, other, values, fmt, limits=None,
             better="more", note=""):
        value = median(values)
        q1, q3 = quartiles(values)
        verdict = ""
        if limits:
            floor, goal = limits
            if better == "less":
                reached = [value <= floor, value <= goal]
            else:
                reached = [value >= floor, value >= goal]
            verdict = "goal" if reached[1] else "floor" if reached[0] \
                else "BELOW"
        self.lines.append({
            "row": row, "what": what, "plain": plain, "llm": other,
            "value": value, "q1": q1, "q3": q3, "pairs": len(values),
            "format": fmt, "floor": limits[0] if limits else None,
            "goal": limits[1] if limits else None, "verdict": verdict,
            "note": note})

    @staticmethod
    def contention(got):
        """Was something else running on the core of the worker?"""
        share = max(median([p[i].get("waited", 0) for p in got])
                    for i in (0, 1))
        if share < 0.03:
            return ""
        return "DISTURBED: other processes had the worker's core for %.0f %%" \
               " of the time; repeat when the machine is idle" % (share * 100)

    def pairs(self, rounds, run, a, b):
        """a and b in turn, the first changes: drift falls on both."""
        out = []
        for i in range(rounds):
            if i % 2:
                rb, ra = run(b), run(a)
            else:
                ra, rb = run(a), run(b)
            out.append((ra, rb))
        return out

    # requests

    def request(self, server, size, conns, port, seconds, **args):
        before, waits = faults(server.worker), waited(server.worker)
        own = helped(server.worker)
        r = self.load.run(server.url(port), b=size, c=conns, t=seconds,
                          T=seconds + 20, pid=server.worker, who=server.name,
                          **args)
        # a worker that waits for its own threads is not disturbed
        own = helped(server.worker) - own
        waits += own
        if not r["requests"]:
            raise Broken("%s: no requests in %s s" % (server.name, seconds))
        return {"rps": r["rps"], "cpu": r["cpu_us"] / r["requests"],
                "busy": r["cpu_us"] / r["seconds"] / 1e6,
                "faults": (faults(server.worker) - before) / r["requests"],
                "waited": max(0, waited(server.worker) - waits) / r["seconds"],
                "requests": r["requests"],
                "helped": own * 1e6 / r["requests"],
                "p50": r["latency"]["p50"], "p99": r["latency"]["p99"],
                "body_min": r["body_min"], "body_max": r["body_max"]}

    def requests(self, name, a=None, b=None, noise=False):
        title, size, conns, port, speed, cpu = REQUESTS[name]
        a, b = a or self.a, b or self.b
        o = self.opts

        rounds, seconds = o.rounds, o.seconds
        if name == "60k":
            # the noisiest row: its CPU doubles when neighbours use the cache
            rounds, seconds = rounds * 2, seconds * 0.6

        def run(server):
            return self.request(server, size, conns, port, seconds)

        for server in (a, b):
            self.request(server, size, conns, port, 0.2)

        got = self.pairs(rounds, run, a, b)
        self.raw[name + ("-noise" if noise else "")] = got

        if noise:
            title, speed, cpu = "2 KB, plain against plain (noise)", None, None

        side = [{k: median([p[i][k] for p in got]) for k in got[0][0]}
                for i in (0, 1)]

        note = self.contention(got)
        if side[0]["busy"] < 0.9 and not note:
            note = "plain's worker was busy %.0f %%, llm's %.0f %% of the " \
                   "time: the client's core limits" % (
                       side[0]["busy"] * 100, side[1]["busy"] * 100)

        self.line(title, "throughput", "%.0f/s" % side[0]["rps"],
                  "%.0f/s" % side[1]["rps"],
                  [ratio(y["rps"], x["rps"]) for x, y in got], "%.2fx",
                  speed, note=note)
        self.line(title, "CPU per request, added", "%.1f us" % side[0]["cpu"],
                  "%.1f us" % side[1]["cpu"],
                  [y["cpu"] - x["cpu"] for x, y in got], "%+.1f us",
                  cpu, better="less")
        if not noise:
            self.line(title, "the same as throughput", "", "",
                      [ratio(x["cpu"], y["cpu"]) for x, y in got], "%.2fx")
            self.line(title, "page faults per request, added",
                      "%.1f" % side[0]["faults"], "%.1f" % side[1]["faults"],
                      [y["faults"] - x["faults"] for x, y in got], "%+.1f")
        if name == "2k" and not noise and not o.quick:
            self.latency(title, size)

        lengths = [(side[i]["body_min"], side[i]["body_max"]) for i in (0, 1)]
        if a.kind != b.kind and lengths[0] != lengths[1]:
            log("%s: answers differ in length: plain %s, llm %s"
                % (title, lengths[0], lengths[1]))

    def latency(self, title, size):
        got = self.pairs(8, lambda s: self.request(s, size, 1, "main", 0.3),
                         self.a, self.b)
        self.raw["latency"] = got
        self.line(title + ", 1 connection", "latency p50, added",
                  "%.0f us" % median([x["p50"] for x, y in got]),
                  "%.0f us" % median([y["p50"] for x, y in got]),
                  [y["p50"] - x["p50"] for x, y in got], "%+.0f us")

    def sequential(self):
        number = 2000 if self.opts.quick else 10000
        made = []
        for server in (self.a, self.b):
            before = self.mock.stats()["connections"]
            self.load.run(server.url(), c=1, n=number, b=2 * KB, T=60,
                          pid=server.worker, who=server.name)
            made.append(self.mock.stats()["connections"] - before)
        self.raw["sequential"] = made
        self.line("%d sequential requests" % number,
                  "connections to the provider", "%d" % made[0],
                  "%d" % made[1], [made[1]], "%d", (10, 2), better="less")

    # streams

    def headers(self, events, gap, size=EVENT_BYTES):
        return ["X-Mock-Events: %d" % events, "X-Mock-Gap: %d" % gap,
                "X-Mock-First: 0", "X-Mock-Size: %d" % size]

    def expected(self, events, server):
        """Data events of a whole stream, from the mock without a proxy."""
        if self.whole is None:
            one = self.load.run(self.mock.url("/v1/chat/completions"),
                                "stream", self.headers(10, 1), c=1, T=10,
                                who="mock")
            two = self.load.run(server.url("stream"), "stream",
                                self.headers(10, 1), c=1, T=10,
                                who=server.name)
            if one["events"] != two["events"]:
                raise Broken("%s gives %d events of %d" % (
                    server.name, two["events"], one["events"]))
            self.whole = one["events"] - 10
        return events + self.whole

    def stream(self, server, count, gap, events, ramp):
        waits = waited(server.worker)
        r = self.load.run(
            server.url("stream"), "stream", self.headers(events, gap),
            c=count, r=ramp, g=gap, e=self.expected(events, server),
            T=count / ramp + events * gap / 1000 * 1.5 + 15,
            pid=server.worker, who=server.name)
        steady = r.get("steady")
        out = {"cpu": r["cpu_us"] / r["events"], "busy":
               r["cpu_us"] / r["seconds"] / 1e6,
               "waited": (waited(server.worker) - waits) / r["seconds"],
               "events": r["events"], "whole": r["requests"],
               "ttft50": r["token"]["p50"], "ttft99": r["token"]["p99"],
               "byte50": r["ttft"]["p50"], "byte99": r["ttft"]["p99"],
               "gap50": r["gap"]["p50"], "gap99": r["gap"]["p99"],
               "jitter50": r["jitter"]["p50"], "jitter99": r["jitter"]["p99"]}
        if steady and steady["seconds"] > 0.5:
            out["cpu"] = steady["cpu_us"] / steady["events"]
            out["rate"] = steady["events"] / steady["seconds"]
        # the last connections close, the pools settle
        self.mock.wait_streams(0, 5)
        time.sleep(0.1)
        return out

    def streams(self, name):
        count, gap, events, ramp = STREAMS[name]
        if count * 2 + 100 > nofile():
            raise Skipped("%d files may be open" % nofile())
        rounds = {"s200": 8, "s1000": 6, "s5000": 2}[name]
        if self.opts.quick:
            rounds = {"s200": 2, "s1000": 2, "s5000": 1}[name]
            events = {"s200": 80, "s1000": 40, "s5000": 25}[name]
            ramp *= 2
        if self.opts.stream_rounds:
            rounds = self.opts.stream_rounds

        self.expected(events, self.b)
        got = self.pairs(rounds,
                         lambda s: self.stream(s, count, gap, events, ramp),
                         self.a, self.b)
        self.raw[name] = got
        title = "%d streams, an event each %d ms" % (count, gap)

        def col(key, i, scale=1.0):
            return median([p[i][key] for p in got]) / scale

        def both(key, scale, fmt):
            return fmt % col(key, 0, scale), fmt % col(key, 1, scale)

        self.line(title, "CPU per event", *both("cpu", 1, "%.1f us"),
                  [ratio(y["cpu"], x["cpu"]) for x, y in got], "%.2fx",
                  (1.10, 1.05) if name == "s200" else None, better="less",
                  note=self.contention(got))
        tokens = name == "s1000"
        self.line(title, "first token p50, added",
                  *both("ttft50", 1000, "%.2f ms"),
                  [(y["ttft50"] - x["ttft50"]) / 1000 for x, y in got],
                  "%+.3f ms", (0.15, 0.03) if tokens else None,
                  better="less")
        self.line(title, "first token p99", *both("ttft99", 1000, "%.2f ms"),
                  [ratio(y["ttft99"], x["ttft99"]) for x, y in got], "%.2fx",
                  (1.5, 1.1) if tokens else None, better="less")
        self.line(title, "gap p99", *both("gap99", 1000, "%.1f ms"),
                  [ratio(y["gap99"], x["gap99"]) for x, y in got], "%.2fx",
                  (1.10, 1.02) if name == "s5000" else None, better="less")
        self.line(title, "jitter p50", *both("jitter50", 1000, "%.2f ms"),
                  [ratio(y["jitter50"], x["jitter50"]) for x, y in got],
                  "%.2fx")
        self.line(title, "streams whole",
                  "%d" % min(p[0]["whole"] for p in got),
                  "%d" % min(p[1]["whole"] for p in got),
                  [min(p[1]["whole"] for p in got)], "%d", (count, count))

    def held(self, server, count):
        """Bytes a stream costs: a fresh worker, before and while open."""
        server.fresh()
        ramp, gap = 1000, 250
        wait = count / ramp + 20
        events = int((wait + 20) * 1000 / gap)
        # once through all code before the first look
        self.load.run(server.url("stream"), "stream", self.headers(20, 1),
                      c=4, T=10, who=server.name)
        time.sleep(0.3)
        before = memory(server.worker)
        process = self.load.begin(
            server.url("stream"), "stream", self.headers(events, gap),
            c=count, r=ramp, T=wait + 60)
        reached = self.mock.wait_streams(count, wait)
        time.sleep(2.0)
        after = memory(server.worker)
        open_now = self.mock.stats()["open_streams"]
        process.terminate()
        report = self.load.end(process, 30, server.name)
        self.mock.wait_streams(0, 10)
        if not reached or open_now != count:
            raise Broken("%s: %d of %d streams open" % (
                server.name, open_now, count))
        out = {k: (after[k] - before[k]) / count for k in after}
        out["received"] = report["bytes"] / count
        out["base_rss"] = before["Rss"]
        return out

    def memories(self, count):
        if count * 2 + 100 > nofile():
            raise Skipped("%d files may be open" % nofile())
        got = [self.held(s, count) for s in (self.a, self.b)]
        self.raw["memory-%d" % count] = got
        title = "%d open streams" % count
        for key, what in (("Pss", "memory per stream"),
                          ("Private_Dirty", "private dirty per stream")):
            self.line(title, what, "%.1f KB" % (got[0][key] / KB),
                      "%.1f KB" % (got[1][key] / KB), [got[1][key] / KB],
                      "%.1f KB", (25, 20) if key == "Pss" else None,
                      better="less")

    def aborts(self):
        rounds = 1 if self.opts.quick else 5
        count = 200

        def run(server):
            r = self.load.run(
                server.url("stream"), "abort", self.headers(1000, 20),
                c=count, k=5, r=1000, T=20, M=self.mock.url("/"),
                pid=server.worker, who=server.name)["abort"]
            self.mock.wait_streams(0, 5)
            return r

        got = self.pairs(rounds, run, self.a, self.b)
        self.raw["aborts"] = got
        title = "%d clients leave at once" % count
        share = [min(p[i]["reached"] / p[i]["streams"] for p in got)
                 for i in (0, 1)]
        self.line(title, "reach the provider", "%.0f %%" % (share[0] * 100),
                  "%.0f %%" % (share[1] * 100), [share[1] * 100], "%.0f %%",
                  (100, 100))
        late = [[p[i]["last_delay_us"] / 1000 for p in got] for i in (0, 1)]
        self.line(title, "the last after", "%.1f ms" % median(late[0]),
                  "%.1f ms" % median(late[1]), late[1], "%.1f ms", (100, 10),
                  better="less")

    def backoff(self):
        """All fail at once, wait 2 to 4 s, and are answered."""
        if self.opts.plain_only:
            raise Skipped("it is the module's")
        rounds = 1 if self.opts.quick else 5
        count = 1000
        got = []
        for i in range(rounds):
            # the budget begins with ten: one more for each call
            for name in ("before", "after"):
                key = "%s-%d" % (name, i)
                headers = ["X-Mock-Key: " + key, "X-Mock-Status: 500",
                           "X-Mock-Fails: %d" % (
                               count if name == "after" else 0)]
                before = waited(self.b.worker)
                r = self.load.run(self.b.url("failing"), headers=headers,
                                  b=256, c=count, n=count, T=30,
                                  pid=self.b.worker, who="back-off")
                r["waited"] = waited(self.b.worker) - before
                if name == "before":
                    plain = r
            got.append((plain, r))
        self.raw["backoff"] = got
        title = "1,000 fail at once, wait 2 to 4 s, succeed"
        cpu = [[p[i]["cpu_us"] / count for p in got] for i in (0, 1)]
        self.line(title, "CPU per request, without failure and with",
                  "%.0f us" % median(cpu[0]), "%.0f us" % median(cpu[1]),
                  [ratio(b, a) for a, b in zip(*cpu)], "%.2fx")
        busy = [p[1]["cpu_us"] / p[1]["seconds"] / 1e4 for p in got]
        self.line(title, "the worker is busy", "", "%.1f %%" % median(busy),
                  busy, "%.1f %%")

    def check_servers(self):
        for server in (self.a, self.b, self.twin):
            if server is None or server.process is None:
                continue
            if not server.alive():
                raise Broken("%s: the worker died: %s"
                             % (server.name, server.last_words()))

    def complaints(self):
        out = dict(self.told)
        for server in (self.a, self.b, self.twin):
            if server is not None and os.path.exists(server.log):
                count, first = server.complaints()
                if count:
                    out[server.name] = {"lines": count, "first": first}
        return out
