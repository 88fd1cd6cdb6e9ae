"""Processes of the benchmark: the mock, nginx, the load client.

Everything started here is ended by stop_all(), by its process id.
"""

import ctypes
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import time

CLIENT_CORE = 0          # mock and client
SERVER_CORE = 1          # what is measured

_started = []


class Broken(Exception):
    """Something answered wrong or did not run: the bench fails."""


class Skipped(Exception):
    """A row that cannot be run here."""


def log(text):
    import sys
    print("bench: " + text, file=sys.stderr, flush=True)


def cores():
    return sorted(os.sched_getaffinity(0))


def core(number):
    have = cores()
    return have[number] if number < len(have) else have[-1]


def nofile():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def free_port(used=set()):
    """Below the ephemeral range: no client connection may take it."""
    for port in range(20000, 32000):
        if port in used:
            continue
        used.add(port)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Broken("no free port")


def wait_port(port, process, seconds=10.0, name="server"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Broken("%s ended with code %s" % (name, process.returncode))
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Broken("%s does not listen after %d s" % (name, seconds))


def _setup(pin):
    def run():
        # an ended bench leaves no server behind
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if pin is not None:
            os.sched_setaffinity(0, {core(pin)})
    return run


def start(argv, pin, **kw):
    process = subprocess.Popen(argv, preexec_fn=_setup(pin),
                               stdin=subprocess.DEVNULL, **kw)
    _started.append(process)
    return process


def stop(process, signo=signal.SIGTERM, seconds=10):
    if process.poll() is None:
        process.send_signal(signo)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process in _started:
        _started.remove(process)


def stop_all():
    for process in reversed(list(_started)):
        stop(process, seconds=3)


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(name))
            except (OSError, IndexError, ValueError):
                pass
    return found


def memory(pid):
    """Rss, Pss and Private_Dirty in bytes."""
    sums = {}
    with open("/proc/%d/smaps_rollup" % pid) as f:
        for line in f:
            part = line.split()
            if len(part) == 3 and part[2] == "kB":
                sums[part[0].rstrip(":")] = int(part[1]) * 1024
    return {k: sums.get(k, 0) for k in ("Rss", "Pss", "Private_Dirty")}


def private(pid, but):
    """Private_Dirty in bytes, less that of files below a directory: pages of
    a tmpfs that only one process has mapped are counted with it."""
    total, skip = 0, False
    with open("/proc/%d/smaps" % pid) as f:
        for line in f:
            part = line.split()
            if not part[0].endswith(":"):
                skip = len(part) > 5 and part[5].startswith(but)
            elif part[0] == "Private_Dirty:" and not skip:
                total += int(part[1]) * 1024
    return total


def faults(pid):
    """Minor page faults so far: memory taken from the kernel anew."""
    with open("/proc/%d/stat" % pid) as f:
        return int(f.read().rsplit(")", 1)[1].split()[7])


def waited(pid):
    """Seconds it was ready to run while something else had its core."""
    with open("/proc/%d/schedstat" % pid) as f:
        return int(f.read().split()[1]) / 1e9


def helped(pid):
    """Seconds the other threads of a process have run."""
    ran = 0
    for task in os.listdir("/proc/%d/task" % pid):
        if int(task) != pid:
            try:
                with open("/proc/%d/task/%s/schedstat" % (pid, task)) as f:
                    ran += int(f.read().split()[0])
            except OSError:
                pass
    return ran / 1e9


class Mock:
    def __init__(self, binary, *args):
        self.port = free_port()
        self.process = start([binary, "-p", str(self.port)] + list(args),
                             CLIENT_CORE, stdout=subprocess.DEVNULL)
        wait_port(self.port, self.process, name="mock")

    def ask(self, what):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            c.request("GET", "/_mock/" + what)
            return c.getresponse().read()
        finally:
            c.close()

    def stats(self):
        return json.loads(self.ask("stats"))

    def url(self, path=""):
        return "http://127.0.0.1:%d%s" % (self.port, path)

    def wait_streams(self, number, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.stats()["open_streams"] == number:
                return True
            time.sleep(0.1)
        return False


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
    client_body_temp_path %(dir)s/body;
    proxy_temp_path %(dir)s/proxy;
    fastcgi_temp_path %(dir)s/fastcgi;
    uwsgi_temp_path %(dir)s/uwsgi;
    scgi_temp_path %(dir)s/scgi;

%(http)s

    # requests
    server {
        listen 127.0.0.1:%(main)d backlog=4096;
        client_body_buffer_size 128k;
        location /v1/ {
%(plain)s
        }
    }

    # streams
    server {
        listen 127.0.0.1:%(stream)d backlog=4096;
        client_body_buffer_size 128k;
        location /v1/ {
%(unbuffered)s
        }
    }

    # a provider that fails, and is asked again
    server {
        listen 127.0.0.1:%(failing)d backlog=4096;
        location /v1/ {
%(again)s
        }
    }

    # large bodies held in memory
    server {
        listen 127.0.0.1:%(large)d backlog=4096;
        client_body_buffer_size 4m;
        location /v1/ {
%(plain)s
        }
    }
}
"""

PLAIN_HTTP = """
    upstream mock {
        server 127.0.0.1:%d;
        keepalive 64;
        keepalive_requests 100000000;
    }
"""

PLAIN = """            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";"""

LLM_HTTP = """
    llm_adapter_provider mock {
        endpoint http://127.0.0.1:%d/v1;
        dialect openai;
        key none;
        keepalive 64;
    }
    llm_adapter_provider again {
        endpoint http://127.0.0.1:%d/v1;
        dialect openai;
        key none;
        breaker off;
    }
"""

LLM = "            llm_adapter mock;"

AGAIN = """            llm_adapter again;
            llm_adapter_retry attempts=2 backoff=4s..4s budget=1000%;"""


class Nginx:
    """One instance: kind is "plain" or "llm"."""

    PORTS = ("main", "stream", "failing", "large")
    env = None

    def __init__(self, opts, name, kind, mock_port):
        self.opts = opts
        self.name = name
        self.kind = kind
        self.dir = os.path.join(opts.build, "bench", name)
        self.ports = {k: free_port() for k in self.PORTS}
        self.process = None
        self.worker = None
        os.makedirs(self.dir, exist_ok=True)
        self.write_conf(mock_port)

    def write_conf(self, mock_port, extra=""):
        llm = self.kind == "llm"
        head = extra
        if os.getuid() == 0:
            head += "user root;\n"
        if llm:
            head += "load_module %s;\n" % self.opts.module
        conf = CONF % dict(
            self.ports, head=head, dir=self.dir, files=min(nofile(), 20000),
            http=LLM_HTTP % (mock_port, mock_port) if llm
            else PLAIN_HTTP % mock_port,
            plain=LLM if llm else PLAIN, again=AGAIN if llm else PLAIN,
            unbuffered=LLM if llm
            else PLAIN + "\n            proxy_buffering off;")
        self.conf = os.path.join(self.dir, "nginx.conf")
        with open(self.conf, "w") as f:
            f.write(conf)

    def argv(self):
        return [self.opts.nginx, "-p", self.dir, "-c", self.conf,
                "-e", os.path.join(self.dir, "error.log")]

    def start(self):
        self.log = os.path.join(self.dir, "error.log")
        if os.path.exists(self.log):
            os.unlink(self.log)
        self.output = os.path.join(self.dir, "output")
        with open(self.output, "w") as out:
            self.process = start(self.argv(), None, stdout=out, stderr=out,
                                 env=self.env)
        try:
            wait_port(self.ports["main"], self.process, name=self.name)
        except Broken as e:
            raise Broken("%s: %s" % (e, self.last_words()))
        for _ in range(100):
            workers = children(self.process.pid)
            if workers:
                break
            time.sleep(0.02)
        else:
            raise Broken("%s has no worker" % self.name)
        self.worker = workers[0]
        # with those of its thread pool
        for task in os.listdir("/proc/%d/task" % self.worker):
            os.sched_setaffinity(int(task), {core(SERVER_CORE)})
        return self

    def stop(self):
        if self.process:
            stop(self.process)
            self.process = None

    def fresh(self):
        self.stop()
        return self.start()

    def url(self, port="main", path="/v1/chat/completions"):
        return "http://127.0.0.1:%d%s" % (self.ports[port], path)

    def alive(self):
        return self.process is not None and self.process.poll() is None \
            and self.worker in children(self.process.pid)

    def last_words(self):
        words = []
        for name in (self.output, self.log):
            if os.path.exists(name):
                with open(name, errors="replace") as f:
                    words += [line.strip() for line in f.readlines()[-3:]]
        return " | ".join(words)[:600]

    def complaints(self):
        """Lines of the error log by level; none are expected."""
        count, first = {}, None
        try:
            with open(self.log, errors="replace") as f:
                for line in f:
                    for level in ("error", "crit", "alert", "emerg"):
                        if "[%s]" % level in line:
                            count[level] = count.get(level, 0) + 1
                            first = first or line.strip()[:300]
        except OSError:
            pass
        return count, first


class Load:
    """Runs llm_load and gives back its report."""

    def __init__(self, opts):
        self.binary = opts.load

    def argv(self, url, mode, args, headers, pid):
        argv = [self.binary, "-u", url, "-m", mode]
        for key, value in args.items():
            if value is True:
                argv.append("-" + key)
            elif value is not None:
                argv += ["-" + key, str(value)]
        for h in headers:
            argv += ["-H", h]
        if pid:
            argv += ["-P", str(pid)]
        return argv

    def begin(self, url, mode="closed", headers=(), pid=None, **args):
        return start(self.argv(url, mode, args, headers, pid), CLIENT_CORE,
                     stdout=subprocess.PIPE)

    def end(self, process, seconds=None, who=""):
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            stop(process)
            raise Broken("%s: the load client hangs" % who)
        finally:
            if process in _started:
                _started.remove(process)
        try:
            report = json.loads(out)
        except ValueError:
            raise Broken("%s: the load client ended with %s"
                         % (who, process.returncode))
        if report["errors"]:
            e = Broken("%s: %d errors of %d requests %s, first: %s" % (
                who, report["errors"], report["begun"],
                {k: v for k, v in report["errors_by"].items() if v},
                report["first_error"]))
            e.report = report
            raise e
        return report

    def run(self, url, mode="closed", headers=(), pid=None, who="", **args):
        limit = float(args.setdefault("T", 60))
        process = self.begin(url, mode, headers, pid, **args)
        return self.end(process, limit + 15, who or url)
