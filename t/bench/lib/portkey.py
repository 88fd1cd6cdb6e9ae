"""The npm gateway @portkey-ai/gateway beside the module, 2 KB, no stream."""

import glob
import json
import os
import shutil
import subprocess

from proc import (Broken, SERVER_CORE, Skipped, free_port, log, start, stop,
                  wait_port)
from rows import median, ratio

# 1.3.3 of its HTTP server is its fastest here, see notes/baselines.md
PACKAGES = ["@portkey-ai/gateway@1.15.2", "@hono/node-server@1.3.3"]


def install(opts):
    where = os.path.join(opts.build, "bench")
    package = os.path.join(where, "node_modules", "@portkey-ai", "gateway")
    if not shutil.which("node") or not shutil.which("npm"):
        raise Skipped("node and npm are not installed")
    if not os.path.exists(os.path.join(package, "package.json")):
        log("npm install --prefix %s %s" % (where, " ".join(PACKAGES)))
        os.makedirs(where, exist_ok=True)
        try:
            r = subprocess.run(
                ["npm", "install", "--prefix", where, "--no-audit",
                 "--no-fund", "--loglevel=error"] + PACKAGES,
                capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            raise Skipped("npm install took longer than 180 s")
        if r.returncode:
            raise Skipped("npm install failed: %s" % r.stderr[-300:].strip())
    with open(os.path.join(package, "package.json")) as f:
        meta = json.load(f)
    script = os.path.join(package, "build", "start-server.js")
    if not os.path.exists(script):
        found = glob.glob(os.path.join(package, "build", "*.js"))
        raise Skipped("no start-server.js, only %s" % found)
    return script, meta["version"]


def version_of(opts, name):
    path = os.path.join(opts.build, "bench", "node_modules", name,
                        "package.json")
    try:
        with open(path) as f:
            return json.load(f)["version"]
    except (OSError, ValueError):
        return "?"


def row(rows, name="portkey", mock=None,
        title="2 KB, npm @portkey-ai/gateway %s (left) and llm", ours=None,
        limits=(25, 40)):
    """ours(seconds): a round of the module; a miss if nothing is said."""
    opts = rows.opts
    script, version = install(opts)
    port = free_port()
    output = os.path.join(opts.build, "bench", "portkey.log")
    env = dict(os.environ, NODE_ENV="production", PORT=str(port))
    with open(output, "w") as out:
        process = start(["node", script, "--port=%d" % port, "--headless"],
                        SERVER_CORE, stdout=out, stderr=out, env=env)
    try:
        try:
            wait_port(port, process, 20, "portkey")
        except Broken as e:
            raise Skipped(str(e))
        compare(rows, process, port, name, mock or rows.mock, title % version,
                ours or (lambda s: rows.request(rows.b, 2048, 32, "main", s)),
                limits)
    finally:
        stop(process)


def compare(rows, process, port, name, mock, title, ours, limits):
    url = "http://127.0.0.1:%d/v1/chat/completions" % port
    headers = ["x-portkey-provider: openai",
               "x-portkey-custom-host: %s" % mock.url("/v1")]

    def run(side):
        if side:
            return ours(seconds)
        r = rows.load.run(url, headers=headers, b=2048, c=32, t=seconds,
                          T=seconds + 20, pid=process.pid, who="portkey")
        return {"rps": r["rps"], "cpu": r["cpu_us"] / max(r["requests"], 1)}

    seconds = 2.0
    try:
        run(None)                 # its code gets compiled
    except Broken as e:
        raise Skipped(str(e))
    seconds = 1.0
    got = rows.pairs(8, run, None, "llm")
    rows.raw[name] = got
    note = rows.contention(got)
    note = note or "node-server %s" % version_of(rows.opts, "@hono/node-server")
    rows.line(title, "throughput",
              "%.0f/s" % median([x["rps"] for x, y in got]),
              "%.0f/s" % median([y["rps"] for x, y in got]),
              [ratio(y["rps"], x["rps"]) for x, y in got], "%.1fx",
              limits, note=note)
    rows.line(title, "CPU per request, its over ours",
              "%.0f us" % median([x["cpu"] for x, y in got]),
              "%.1f us" % median([y["cpu"] for x, y in got]),
              [ratio(x["cpu"], y["cpu"]) for x, y in got], "%.1fx")
