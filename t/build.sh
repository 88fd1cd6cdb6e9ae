#!/bin/bash

# Builds the module (and, of a source tree of one's own, nginx too).
#
#   build.sh NGINX_SRC OBJ MODULE CFLAGS

set -eu

src=$1 obj=$2 module=$3 cflags=$4
top=$(cd "$(dirname "$0")/.." && pwd)
log=$obj.log

mkdir -p "$(dirname "$obj")" "$(dirname "$module")"

flags=(--with-compat --with-threads --with-http_ssl_module
       --with-http_v2_module --with-http_auth_request_module
       --with-http_realip_module --with-http_sub_module
       --with-http_slice_module --with-http_stub_status_module --with-debug)
what=(binary modules)

if [ -f "$src/conf_flags" ]; then

    # Debian's: the flags of the installed nginx

    . "$src/conf_flags"
    flags=("${NGX_CONF_FLAGS[@]}")
    what=(modules)
fi

conf=./configure
[ -x "$src/configure" ] || conf=auto/configure

stamp="$src $cflags ${CC:-cc} $(cd "$top" && cat config && \
       ls ngx_llm_module/*.[ch] ngx_llm_module/core/*.[ch] \
       ngx_llm_module/store/*.[ch])"

if [ ! -f "$obj/Makefile" ] || [ "$(cat "$obj/stamp" 2>/dev/null)" != "$stamp" ]
then
    rm -rf "$obj"

    if [ ! -f "$src/conf_flags" ]; then

        # configure writes into its tree

        rm -rf "$obj.src"
        cp -r "$src" "$obj.src"
    fi

    echo "configure nginx ($src)"

    (cd "$([ -d "$obj.src" ] && echo "$obj.src" || echo "$src")" &&
     $conf --builddir="$obj" --add-dynamic-module="$top" "${flags[@]}" \
           --with-cc="${CC:-cc}" --with-cc-opt="$cflags") >"$log" 2>&1 ||
        { tail -20 "$log"; exit 1; }

    echo "$stamp" >"$obj/stamp"
fi

[ -d "$obj.src" ] && src=$obj.src

echo "build $module (${CC:-cc})"

(cd "$src" && make -j2 -f "$obj/Makefile" "${what[@]}") >>"$log" 2>&1 ||
    { grep -E -A6 'error|warning' "$log" || tail -20 "$log"; exit 1; }

# a running nginx has the old one mapped

cp "$obj/ngx_http_llm_module.so" "$module.new"
mv "$module.new" "$module"
