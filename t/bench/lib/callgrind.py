"""Instructions per request under callgrind: hardly any noise.

nginx runs alone in one process under valgrind, once for N and once for 2 N
requests; the difference of the two totals has no start-up and no end in it.
"""

import os
import shutil
import signal

from proc import Broken, SERVER_CORE, Skipped, log, start, stop, wait_port

# title, N, arguments of the load client by N
WORK = {
    "2k": ("2 KB body", 2000, "main", lambda n: dict(n=n, c=1, b=2048)),
    "60k": ("60 KB body", 500, "main", lambda n: dict(n=n, c=1, b=61440)),
    "2m": ("2 MB body, in memory", 20, "large",
           lambda n: dict(n=n, c=1, b=2097152)),
    "event": ("an event of a stream", 500, "stream", None),
}


def total(path):
    with open(path) as f:
        for line in f:
            if line.startswith(("summary:", "totals:")):
                return int(line.split()[1])
    raise Broken("no totals in %s" % path)


def run(rows, server, name, n):
    opts = rows.opts
    title, _, port, args = WORK[name]
    out = os.path.join(server.dir, "callgrind.%s.%d" % (name, n))
    if os.path.exists(out):
        os.unlink(out)
    server.write_conf(rows.mock.port, extra="master_process off;\n")
    words = os.path.join(server.dir, "output")
    with open(words, "w") as f:
        process = start(["valgrind", "--tool=callgrind",
                         "--callgrind-out-file=" + out] + server.argv(),
                        SERVER_CORE, stdout=f, stderr=f)
    try:
        wait_port(server.ports[port], process, 60, server.name)
        url = server.url(port)
        if args:
            rows.load.run(url, T=240, who=server.name, **args(n))
        else:
            rows.load.run(url, "stream", rows.headers(n, 3), c=1, T=240,
                          e=None, who=server.name)
    finally:
        stop(process, signal.SIGQUIT, 60)
    return total(out), out


def measure(rows):
    if not shutil.which("valgrind"):
        raise Skipped("valgrind is not installed")
    for name, (title, n, port, args) in WORK.items():
        log("callgrind: " + title)
        got = []
        for server in (rows.a, rows.b):
            one, _ = run(rows, server, name, n)
            two, path = run(rows, server, name, 2 * n)
            got.append({"instructions": (two - one) / n, "file": path})
        rows.raw["callgrind-" + name] = got
        plain, other = (g["instructions"] for g in got)
        rows.line("callgrind: " + title, "instructions, ratio",
                  "{:,.0f}".format(plain), "{:,.0f}".format(other),
                  [other / plain], "%.2fx",
                  note="added %s; %s" % ("{:,.0f}".format(other - plain),
                                         os.path.relpath(got[1]["file"])))
