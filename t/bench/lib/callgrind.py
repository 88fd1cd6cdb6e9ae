"""Instructions per request under callgrind: hardly any noise.

nginx runs alone in one process under valgrind, once for N and once for 2 N
requests; the difference of the two totals has no start-up and no end in it.
"""

import os
import re
import shutil
import signal
import subprocess
import time

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


def functions(path):
    """Instructions by function, its own ones, all of the process."""
    text = subprocess.run(["callgrind_annotate", "--auto=no",
                           "--threshold=100", path],
                          capture_output=True, text=True).stdout
    sums = {}
    for line in text.splitlines():
        m = re.match(r"\s*([\d,]+) +\( *[\d.]+%\) +(.*)$", line)
        if m and "PROGRAM TOTALS" not in line:
            name = re.sub(r" \[.*/", " [", m.group(2)).split(":")[-1]
            name = name.split("/")[-1]
            sums[name] = sums.get(name, 0) + int(m.group(1).replace(",", ""))
    return sums


def profile(one, two, n):
    """Instructions per request by function, the largest first."""
    a, b = functions(one), functions(two)
    sums = {k: (b[k] - a.get(k, 0)) / n for k in b}
    return sorted(((v, k) for k, v in sums.items() if v >= 10), reverse=True)


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
        finish(process)
    return total(out), out


def finish(process):
    """A signal just before epoll_wait() is seen at the next event only."""
    for _ in range(20):
        time.sleep(0.3)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            pass
    stop(process, signal.SIGQUIT, 5)


def measure(rows):
    if not shutil.which("valgrind"):
        raise Skipped("valgrind is not installed")
    for name, (title, n, port, args) in WORK.items():
        log("callgrind: " + title)
        got = []
        for server in (rows.a, rows.b):
            one, first = run(rows, server, name, n)
            two, path = run(rows, server, name, 2 * n)
            text = os.path.join(server.dir, "profile.%s" % name)
            with open(text, "w") as f:
                f.write("".join("%9.0f  %s\n" % line
                                for line in profile(first, path, n)))
            got.append({"instructions": (two - one) / n, "file": text})
        rows.raw["callgrind-" + name] = got
        plain, other = (g["instructions"] for g in got)
        rows.line("callgrind: " + title, "instructions, ratio",
                  "{:,.0f}".format(plain), "{:,.0f}".format(other),
                  [other / plain], "%.2fx",
                  note="added %s; %s" % ("{:,.0f}".format(other - plain),
                                         os.path.relpath(got[1]["file"])))
