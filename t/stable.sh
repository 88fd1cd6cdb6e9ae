#!/bin/bash

# The tests of the module against a current stable nginx.  Its source comes
# with the crate nginx-src, so cargo is needed; without it this says so.

set -eu

cd "$(dirname "$0")/.."

build=$PWD/build/stable

if ! command -v cargo >/dev/null; then
    echo "check-stable: skipped, no cargo"
    exit 0
fi

if ! ls -d "$build"/vendor/nginx-src*/nginx >/dev/null 2>&1; then
    mkdir -p "$build/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nnginx-src = "*"\n' \
        >"$build/fetch/Cargo.toml"
    : >"$build/fetch/src/lib.rs"

    (cd "$build/fetch" && cargo vendor -q "$build/vendor") \
        >"$build/cargo.log" 2>&1 || {
            echo "check-stable: skipped, cargo could not get nginx-src"
            tail -3 "$build/cargo.log"
            exit 0
        }
fi

src=$(ls -d "$build"/vendor/nginx-src*/nginx | head -1)

make -s module NGINX_SRC="$src" NGINX_OBJ="$build/obj" \
    MODULE="$build/ngx_http_llm_module.so"

export TEST_NGINX_BINARY=$build/obj/nginx
export LLM_MODULE=$build/ngx_http_llm_module.so

"$TEST_NGINX_BINARY" -v

t/lib/prove -j"${JOBS:-2}" t/*.t
prove -j"${JOBS:-2}" -It/lib ${STABLE_E2E:-t/e2e/stream.t t/e2e/abort.t t/e2e/bodies.t}
