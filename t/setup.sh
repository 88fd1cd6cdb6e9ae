#!/bin/bash

# Installs what is missing, and says so in one line.
#
#   setup.sh build | test

set -eu

want=()

need() { # PACKAGE TEST...
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || want+=("$package")
}

have() { command -v "$1"; }
header() { [ -f "/usr/include/$1" ]; }
perl_module() { perl -M"$1" -e 1; }

need nginx-core have nginx
need nginx-dev test -f /usr/share/nginx/src/conf_flags
need gcc have gcc
need make have make
need libc6-dev header stdio.h
need libssl-dev header openssl/ssl.h
need liblmdb-dev header lmdb.h
need libpcre2-dev header pcre2.h
need zlib1g-dev header zlib.h

if [ "${1:-build}" = test ]; then
    need clang have clang
    need libclang-rt-14-dev \
        sh -c 'ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-*.a'
    need libjansson-dev header jansson.h
    need libtest-base-perl perl_module Test::Base
    need spin have spin
    need libtest-longstring-perl perl_module Test::LongString
    need libtext-diff-perl perl_module Text::Diff
    need libio-socket-ssl-perl perl_module IO::Socket::SSL
    need openssl have openssl
    need curl have curl
    need valgrind have valgrind
    need procps have ps
    need nodejs have node
    need npm have npm
    need python3 have python3
    need python3-venv python3 -c 'import ensurepip, venv'
fi

[ ${#want[@]} -eq 0 ] && exit 0

echo "installing by apt: ${want[*]}"

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

export DEBIAN_FRONTEND=noninteractive

{
    # nginx is wanted as a program, not as a service on port 80

    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${want[@]}"
} >/tmp/llm-setup.$$.log 2>&1 || { tail -20 /tmp/llm-setup.$$.log; exit 1; }

rm -f /tmp/llm-setup.$$.log
