"""The rows of the cache: against proxy_cache, proxy_pass, and itself.

Both caches lie on the same file system, a tmpfs if there is one.  A row that
measures hits looks at a first answer's header and then counts the calls at the
mock: one call within a round, and the row is broken.
"""

import http.client
import mmap
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time

import portkey
from proc import Broken, Mock, Nginx, Skipped, log, nofile, private
from rows import KB, median, ratio

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
BODIES = 1000                     # in rotation
ALL = 10 ** 11                    # every body another one

# name: title, body bytes, port, bodies, is the key a header's, floor and goal
# of issue 4
HITS = {
    "cache-2k": ("hit, 2 KB, proxy_cache by the body", 2 * KB, "body",
                 BODIES, False, (1.3, 1.7)),
    "cache-header": ("hit, 2 KB, proxy_cache by a header, 1 key", 2 * KB,
                     "header", 1, True, (0.95, 1.2)),
    "cache-header-1000": ("hit, 2 KB, proxy_cache by a header, 1,000 keys",
                          2 * KB, "header", BODIES, True, (0.95, 1.2)),
    "cache-60k": ("hit, 60 KB, proxy_cache by the body", 60 * KB, "large",
                  BODIES, False, (3.5, 4.5)),
}

MISSES = {
    "cache-miss-2k": ("miss that stores, 2 KB, proxy_pass", 2 * KB,
                      (0.50, 0.65)),
    "cache-miss-60k": ("miss that stores, 60 KB, proxy_pass", 60 * KB,
                       (0.38, 0.45)),
}

ROWS = list(HITS) + list(MISSES) + [
    "cache-1m", "cache-turn", "cache-memory", "cache-portkey", "cache-zipf"]

CONF = """
%(head)s
daemon off;
worker_processes 1;
pid %(dir)s/nginx.pid;
error_log %(dir)s/error.log error;
worker_rlimit_nofile %(files)d;

events {
    worker_connections %(files)d;
}

http {
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_max_body_size 32m;
    client_body_buffer_size 128k;
    client_body_temp_path %(dir)s/client;
    proxy_temp_path %(dir)s/proxy;
    fastcgi_temp_path %(dir)s/fastcgi;
    uwsgi_temp_path %(dir)s/uwsgi;
    scgi_temp_path %(dir)s/scgi;

%(http)s
}
"""

LLM = """
    llm_adapter_provider mock {
        endpoint http://127.0.0.1:%(mock)d/v1;
        dialect openai;
        key none;
        keepalive 64;
    }

    llm_adapter_cache_path %(store)s size=%(size)s;

    server {
%(listen)s
        location /v1/ {
            llm_adapter mock;
            llm_adapter_cache on ttl=1h scope=global reveal=on when=always;
        }
    }
"""

# open_file_cache spares it an open() and an fstat() a hit.  The header tells
# of the cache only if asked to: it costs nothing in what is measured.
PLAIN = """
    upstream mock {
        server 127.0.0.1:%(mock)d;
        keepalive 64;
        keepalive_requests 100000000;
    }

    proxy_cache_path %(store)s levels=1:2 keys_zone=cache:64m max_size=1g
                     inactive=1h use_temp_path=off;
    open_file_cache max=4000 inactive=1h;
    open_file_cache_valid 1h;

    map $http_x_check $told {
        1  $upstream_cache_status;
    }

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ignore_headers Set-Cookie Cache-Control Expires Vary;
    proxy_hide_header Set-Cookie;
    proxy_cache_methods POST;
    proxy_cache_valid 200 1h;

    server {
        listen 127.0.0.1:%(main)d backlog=4096;
        location /v1/ {
            proxy_pass http://mock;
        }
    }

    server {
        listen 127.0.0.1:%(body)d backlog=4096;
        location /v1/ {
            proxy_pass http://mock;
            proxy_cache cache;
            proxy_cache_key $request_body;
            add_header X-Cache $told;
        }
    }

    # the key stands before the answer in one buffer: else nothing is cached
    server {
        listen 127.0.0.1:%(large)d backlog=4096;
        location /v1/ {
            proxy_pass http://mock;
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            proxy_busy_buffers_size 64k;
            proxy_cache cache;
            proxy_cache_key $request_body;
            add_header X-Cache $told;
        }
    }

    server {
        listen 127.0.0.1:%(header)d backlog=4096;
        location /v1/ {
            proxy_pass http://mock;
            proxy_cache cache;
            proxy_cache_key $http_x_key;
            add_header X-Cache $told;
        }
    }
"""


class Cached(Nginx):
    """kind "plain": with proxy_cache; "llm": with the module's."""

    PORTS = ("main", "body", "large", "header")

    def __init__(self, opts, name, kind, mock_port, where, size="1g"):
        self.store = os.path.join(where, name)
        self.size = size
        os.makedirs(self.store, 0o700, exist_ok=True)
        super().__init__(opts, name, kind, mock_port)

    def write_conf(self, mock_port, extra=""):
        llm = self.kind == "llm"
        head = extra
        if os.getuid() == 0:
            head += "user root;\n"
        if llm:
            head += "load_module %s;\n" % self.opts.module
        listen = "\n".join("        listen 127.0.0.1:%d backlog=4096;" % p
                           for p in self.ports.values())
        http = (LLM if llm else PLAIN) % dict(
            self.ports, mock=mock_port, store=self.store, size=self.size,
            listen=listen)
        self.conf = os.path.join(self.dir, "nginx.conf")
        with open(self.conf, "w") as f:
            f.write(CONF % dict(head=head, dir=self.dir, http=http,
                                files=min(nofile(), 20000)))

    def forget(self):
        """Stops it and takes its cache away."""
        self.stop()
        shutil.rmtree(self.store, ignore_errors=True)


class Turns:
    """What llm_turns.so writes: see turns.c."""

    NAMES = ("turns", "total", "longest", "wall", "cpu", "over_1ms",
             "over_5ms")

    def __init__(self, opts, server):
        library = os.path.join(opts.build, "llm_turns.so")
        if not os.path.exists(library):
            raise Skipped("%s is not there" % library)
        self.path = os.path.join(server.dir, "turns")
        if os.path.exists(self.path):
            os.unlink(self.path)
        server.env = dict(os.environ, LD_PRELOAD=library,
                          LLM_TURNS=self.path)

    def open(self):
        size = 8 * len(self.NAMES)
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), size)

    def reset(self):
        self.map[:] = bytes(len(self.map))

    def get(self):
        got = struct.unpack("%dQ" % len(self.NAMES), self.map[:])
        return dict(zip(self.NAMES, got))


class Cache:
    """Owns the mock and the servers of these rows, while one is measured."""

    def __init__(self, rows):
        self.rows = rows
        self.opts = rows.opts
        self.servers = []
        self.next = 1
        self.mock = None
        self.where = None

    def __enter__(self):
        if not self.supported():
            raise Skipped("the module has no llm_adapter_cache")
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.where = tempfile.mkdtemp(prefix="llm-bench-", dir=base)
        if base is None:
            log("no /dev/shm: the caches lie in %s" % self.where)
        # 1.2 KB in all
        self.mock = Mock(self.opts.mock, "-b", "32")
        return self

    def __exit__(self, *exc):
        for server in self.servers:
            server.stop()
            count, first = server.complaints()
            if count:
                self.rows.told[server.name] = {"lines": count, "first": first}
        shutil.rmtree(self.where, ignore_errors=True)

    def supported(self):
        if self.opts.plain_only:
            return True
        with open(self.opts.module, "rb") as f:
            return b"llm_adapter_cache_path" in f.read()

    def server(self, kind, name=None, size="1g", preload=False):
        name = "cache-" + (name or kind)
        if self.opts.plain_only:
            kind = "plain"
        server = Cached(self.opts, name, kind, self.mock.port, self.where,
                        size)
        self.servers.append(server)
        turns = Turns(self.opts, server) if preload else None
        server.start()
        if turns:
            turns.open()
            server.turns = turns
        return server

    def calls(self):
        return self.mock.stats()["requests"]

    def numbers(self):
        """Numbers no request has had."""
        self.next += 10 ** 8
        return self.next

    # hits

    def fill(self, server, size, port, count, first=0, headers=(), conns=16,
             rate=None, tries=4):
        """Asks until all is answered by the cache; calls of the last try."""
        for _ in range(tries):
            before = self.calls()
            self.rows.load.run(server.url(port), n=count, v=count, V=first,
                               b=size, c=conns, T=300, q=rate,
                               headers=headers, who=server.name)
            missed = self.calls() - before
            if missed == 0:
                break
            time.sleep(1.5)
        return missed

    def check_hit(self, server, port, key):
        """Asks again what the mock was asked last; the answer's header."""
        body = self.mock.ask("last_body")
        head = self.mock.ask("last").decode("latin-1")
        headers = {"Content-Type": "application/json", "X-Check": "1"}
        for name in ("X-Key", "Authorization"):
            value = re.search(r"(?im)^%s: (.*?)\r" % name, head)
            if value:
                headers[name] = value.group(1)
        c = http.client.HTTPConnection("127.0.0.1", server.ports[port],
                                       timeout=5)
        try:
            c.request("POST", "/v1/chat/completions", body, headers)
            answer = c.getresponse()
            answer.read()
        finally:
            c.close()
        status = answer.getheader(key)
        if answer.status != 200 or status != "HIT":
            raise Broken("%s: %s is %s, status %d, HIT was expected" % (
                server.name, key, status, answer.status))

    def prepare(self, server, size, port, count, headers):
        missed = self.fill(server, size, port, count, headers=headers)
        if missed:
            raise Broken("%s: %d of %d are still asked of the provider"
                         % (server.name, missed, count))
        # the mock's last request must be one of this server's
        self.rows.load.run(self.mock.url("/v1/chat/completions"), n=1, v=count,
                           b=size, c=1, T=10, headers=headers, who="mock")
        self.check_hit(server, port,
                       "X-Cache" if server.kind == "plain" else "X-LLM-Cache")

    def hit(self, server, size, port, seconds, count, first=0, headers=(),
            conns=32, most=0.0):
        before = self.calls()
        got = self.rows.request(server, size, conns, port, seconds, v=count,
                                V=first, headers=headers)
        missed = self.calls() - before
        if missed > most * got["requests"]:
            raise Broken("%s: %d of %d were asked of the provider" % (
                server.name, missed, got["requests"]))
        return got

    def hits(self, name):
        title, size, port, count, header, limits = HITS[name]
        o = self.opts
        headers = ["X-Key: ############"] if header else []
        a, b = self.server("plain"), self.server("llm")
        for server in (a, b):
            self.prepare(server, size, port, count, headers)
            self.hit(server, size, port, 0.2, count, headers=headers)
        got = self.rows.pairs(
            o.rounds, lambda s: self.hit(s, size, port, o.seconds, count,
                                         headers=headers), a, b)
        self.compare(name, title, got, limits)

    def compare(self, name, title, got, limits):
        rows = self.rows
        rows.raw[name] = got
        side = [{k: median([p[i][k] for p in got]) for k in got[0][0]}
                for i in (0, 1)]
        note = rows.contention(got)
        for i, who in ((0, "the left's"), (1, "llm's")):
            if side[i]["busy"] < 0.9 and not note:
                note = "%s worker was busy %.0f %% of the time: the client's" \
                       " core limits" % (who, side[i]["busy"] * 100)
        rows.line(title, "throughput", "%.0f/s" % side[0]["rps"],
                  "%.0f/s" % side[1]["rps"],
                  [ratio(y["rps"], x["rps"]) for x, y in got], "%.2fx",
                  limits, note=note)
        rows.line(title, "CPU per request, its over ours",
                  "%.1f us" % side[0]["cpu"], "%.1f us" % side[1]["cpu"],
                  [ratio(x["cpu"], y["cpu"]) for x, y in got], "%.2fx")
        log("%s: answers of %d and %d bytes" % (
            name, side[0]["body_max"], side[1]["body_max"]))

    # misses

    def misses(self, name):
        title, size, limits = MISSES[name]
        o = self.opts
        a, b = self.server("plain"), self.server("llm")
        last = {}

        def run(server):
            first = self.numbers()
            before = self.calls()
            got = self.rows.request(server, size, 32, "main", o.seconds,
                                    v=ALL, V=first)
            called = self.calls() - before
            if called < got["requests"]:
                raise Broken("%s: %d calls for %d different requests" % (
                    server.name, called, got["requests"]))
            last[server] = first + got["requests"]
            return got

        for server in (a, b):
            run(server)
        got = self.rows.pairs(o.rounds, run, a, b)
        self.compare(name, title, got, limits)
        self.rows.line(title, "of it in the thread that writes", "",
                       "%.1f us" % median([y["helped"] for x, y in got]),
                       [y["helped"] for x, y in got], "%.1f us")
        if b.kind == "llm":
            self.kept(title, size, b, last[b])

    def kept(self, title, size, server, end):
        """Were they stored?  The last ones are asked for again."""
        count = 500
        time.sleep(2)
        before = self.calls()
        self.rows.load.run(server.url(), n=count, v=count, b=size,
                           V=end - count, c=8, T=30, who=server.name)
        share = 100 - 100 * (self.calls() - before) / count
        self.rows.line(title, "of the last %d, kept" % count, "",
                       "%.0f %%" % share, [share], "%.0f %%")

    # size

    def million(self):
        o = self.opts
        size, small = 256, 10 * 1000
        large = 100 * 1000 if o.quick else 1000 * 1000
        # two entries share a page, so that a million is some 2.5 GB
        headers = ["X-Mock-Total: 64"]
        a = self.server("llm", "llm-few", "6g")
        b = self.server("llm", "llm-many", "6g")
        span = {a: small, b: large}
        for server in (a, b):
            missed = self.fill(server, size, "main", span[server],
                               headers=headers, conns=32)
            if missed > span[server] / 1000:
                raise Broken("%s: of %d entries %d are not there" % (
                    server.name, span[server], missed))
        some = min(50 * 1000, large)
        step = {"n": 0}

        def run(server):
            first = 0
            if server is b:
                first = step["n"] * 7919 * 11 % (large - some + 1)
                step["n"] += 1
            return self.hit(server, size, "main", o.seconds,
                            min(some, span[server]), first, headers,
                            most=0.001)

        for server in (a, b):
            run(server)
        got = self.rows.pairs(o.rounds, run, a, b)
        self.rows.raw["cache-1m"] = got
        title = "hit, %s entries to %s" % ("{:,}".format(large),
                                           "{:,}".format(small))
        for key, what, fmt, limits in (
                ("cpu", "CPU per request", "%.1f us", (1.3, 1.05)),
                ("p50", "latency p50, 32 connections", "%.0f us", None)):
            self.rows.line(
                title, what, fmt % median([x[key] for x, y in got]),
                fmt % median([y[key] for x, y in got]),
                [ratio(y[key], x[key]) for x, y in got], "%.2fx", limits,
                better="less", note=self.rows.contention(got))

    # the event loop

    def turn(self):
        o = self.opts
        rate, seconds = 5000, 2 if o.quick else 5
        a = self.server("plain", preload=True)
        b = self.server("llm", preload=True)
        last = {}

        def run(server, t=seconds):
            first = self.numbers()
            server.turns.reset()
            r = self.rows.load.run(
                server.url(), b=2 * KB, c=32, t=t, q=rate, v=ALL, V=first,
                T=t + 20, pid=server.worker, who=server.name)
            # the queue is written out
            time.sleep(1)
            got = server.turns.get()
            got["rps"] = r["rps"]
            last[server] = first + r["requests"]
            return got

        for server in (a, b):
            run(server, 1)
        got = self.rows.pairs(2 if o.quick else 4, run, a, b)
        self.rows.raw["cache-turn"] = got
        title = "5,000 stores/s, proxy_pass"

        slowest = min(p[1]["rps"] for p in got)
        note = "" if slowest > rate * 0.95 else \
            "DISTURBED: in one round there were only %.0f/s" % slowest

        def longest(key, i):
            return max(p[i][key] for p in got) / 1e6

        for key, what, limits in (
                ("longest", "longest turn of the event loop", (5, 1)),
                ("wall", "the same with waiting for the core", None),
                ("cpu", "most CPU in a turn", None)):
            self.rows.line(title, what, "%.2f ms" % longest(key, 0),
                           "%.2f ms" % longest(key, 1), [longest(key, 1)],
                           "%.2f ms", limits, better="less", note=note)
        self.rows.line(title, "turns over 1 ms",
                       "%d" % sum(p[0]["over_1ms"] for p in got),
                       "%d" % sum(p[1]["over_1ms"] for p in got),
                       [sum(p[1]["over_1ms"] for p in got)], "%d")
        self.kept(title, 2 * KB, b, last[b])

    def memory(self):
        o = self.opts
        size, text = ("64m", 16) if o.quick else ("1g", 16)
        count = 6 * 1000 if o.quick else 90 * 1000
        headers = ["X-Mock-Total: %dk" % text]
        b = self.server("llm", "llm-memory", size)

        def ask(n, first):
            self.rows.load.run(b.url(), n=n, v=n, V=first, b=2 * KB, c=32,
                               T=120, headers=headers, who=b.name)

        # through all code, reading and writing
        ask(1000, 0)
        time.sleep(1.5)
        ask(1000, 0)
        before = private(b.worker, b.store)
        ask(count, 1000)
        time.sleep(1.5)
        ask(count, 1000)
        time.sleep(1.5)
        after = private(b.worker, b.store)
        used = sum(os.stat(os.path.join(b.store, f)).st_blocks * 512
                   for f in os.listdir(b.store))
        self.rows.raw["cache-memory"] = [before, after, used]
        title = "a cache of %s, filled (%d MB)" % (size, used / 1e6)
        self.rows.line(title, "private memory of a worker, empty and filled",
                       "%.1f MB" % (before / 1e6), "%.1f MB" % (after / 1e6),
                       [(after - before) / 1e6], "%+.1f MB")

    def portkey(self):
        b = self.server("llm")
        self.prepare(b, 2 * KB, "main", BODIES, [])
        portkey.row(self.rows, "cache-portkey", self.mock,
                    "hit, 2 KB, a miss of npm @portkey-ai/gateway %s (left)",
                    lambda s: self.hit(b, 2 * KB, "main", s, BODIES), (50, 80))

    def zipf(self):
        """The test of the store that tries its eviction prints both rates."""
        source = os.path.join(ROOT, "t", "store")
        build = os.path.join(self.opts.build, "store")
        program = os.path.join(build, "test_evict")
        if not os.path.exists(os.path.join(source, "test_evict.c")):
            raise Skipped("there is no t/store/test_evict.c")
        for argv in (["make", "-s", "-C", source, "BUILD=" + build, program],
                     [program]):
            r = subprocess.run(argv, capture_output=True, text=True,
                               timeout=300)
            if r.returncode:
                raise Broken("%s: code %d: %s" % (
                    argv[0], r.returncode, (r.stderr or r.stdout)[-300:]))
        found = re.search(r"# (\d+) keys, room for (\d+): ([\d.]+) % hits, "
                          r"of an exact LRU ([\d.]+) %", r.stdout)
        if not found:
            raise Broken("test_evict prints no rates: " + r.stdout[:200])
        ours, exact = float(found.group(3)), float(found.group(4))
        self.rows.line(
            "Zipf 0.9, %s keys, room for %s, an exact LRU (left)"
            % (found.group(1), found.group(2)), "hits, ours less the LRU's",
            "%.1f %%" % exact, "%.1f %%" % ours, [ours - exact], "%+.1f %%",
            (-3, -0.5))


def row(rows, name):
    if rows.opts.plain_only and name not in HITS and name not in MISSES:
        raise Skipped("it is the module's")
    with Cache(rows) as cache:
        if name in HITS:
            cache.hits(name)
        elif name in MISSES:
            cache.misses(name)
        else:
            {"cache-1m": cache.million, "cache-turn": cache.turn,
             "cache-memory": cache.memory, "cache-portkey": cache.portkey,
             "cache-zipf": cache.zipf}[name]()
        for server in cache.servers:
            if not server.alive():
                raise Broken("%s: the worker died: %s"
                             % (server.name, server.last_words()))
