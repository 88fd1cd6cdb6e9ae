# ngx_http_llm_module
#
#   make                    build/ngx_http_llm_module.so for the installed nginx
#   make NGINX_SRC=DIR      ... for an nginx source tree (and an nginx of it)
#   make run                the demo on :8080
#   make test               everything that must pass
#   make check-stable       the tests against a current stable nginx
#   make check-memory       100,000 requests under valgrind
#   make soak               10 minutes of providers that break at random
#   make bench              against plain proxy_pass
#   make install            the module into nginx's modules directory

SHELL = /bin/bash

CC ?= cc
BUILD = $(CURDIR)/build
MODULE = $(BUILD)/ngx_http_llm_module.so

# Debian's nginx-dev carries the source that the installed nginx was built of
NGINX_SRC ?= /usr/share/nginx/src
NGINX_OBJ = $(BUILD)/nginx

CFLAGS_MODULE = -g -O2 -fstack-protector-strong -Wformat \
	-Werror=format-security -fPIC

SOURCES = $(wildcard ngx_llm_module/*.[ch] ngx_llm_module/core/*.[ch] \
	ngx_llm_module/store/*.[ch])

# tests whose subject is the module in nginx
JOBS ?= 2

# most of these wait most of the time
JOBS_E2E ?= 3

.PHONY: all module setup run test test-core test-store test-fuzz test-mock \
	test-lib test-nginx test-e2e check-clang check-stable check-memory soak bench \
	install clean mock

all: module

module: $(MODULE)

$(MODULE): config $(SOURCES) | setup
	@CC="$(CC)" t/build.sh "$(NGINX_SRC)" "$(NGINX_OBJ)" "$@" \
		"$(CFLAGS_MODULE)"

# says what it installs, if anything
setup:
	@t/setup.sh build

mock: | setup
	@$(MAKE) -s -C t/mock

run: module mock
	@conf/demo/run $(PROVIDER)

test: setup-test module mock check-clang test-core test-store test-fuzz \
		test-nginx test-e2e check-stable
	@echo "make test: all passed"

setup-test:
	@t/setup.sh test

test-core:
	@$(MAKE) -s -C t/core test

test-store:
	@$(MAKE) -s -C t/store test

test-fuzz:
	@$(MAKE) -s -C t/fuzz test

test-lib: mock
	@prove -j$(JOBS) -It/lib t/lib/*.t t/mock/*.t

test-nginx: module mock test-lib
	@t/lib/prove -j$(JOBS) t/*.t

test-e2e: module mock
	@LLM_MODULE=$(MODULE) prove -j$(JOBS_E2E) -It/lib t/e2e/*.t

# the module again, by the other compiler: only for its warnings
check-clang: | setup
	@CC=clang t/build.sh "$(NGINX_SRC)" "$(BUILD)/nginx-clang" \
		"$(BUILD)/clang/ngx_http_llm_module.so" "$(CFLAGS_MODULE)"

check-stable: setup-test mock
	@t/stable.sh

check-memory: setup-test module mock
	@t/memory.sh

soak: setup-test module mock
	@t/soak/failing $(SOAK)

bench: setup-test module mock
	@$(MAKE) -s -C t/bench
	@t/bench/run $(BENCH)

install: module
	@dir=$$(nginx -V 2>&1 | sed -n 's/.*--modules-path=\([^ ]*\).*/\1/p'); \
	install -D -m 644 $(MODULE) \
		"$(DESTDIR)$${dir:-/usr/lib/nginx/modules}/ngx_http_llm_module.so"

clean:
	rm -rf $(BUILD)
