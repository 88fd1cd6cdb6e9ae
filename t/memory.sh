#!/bin/bash

# 100,000 mixed requests through nginx under valgrind: no leak, no invalid
# access, no alert.  REQUESTS=N for another number.

set -eu

cd "$(dirname "$0")/.."

make -s -C t/bench

LLM_VALGRIND=1 prove -v -It/lib t/memory/mixed.t
