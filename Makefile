# ngx_http_llm_module
#
#   make                    build/ngx_http_llm_module.so for the installed nginx
#                           and build/llm-cache
#   make NGINX_SRC=DIR      ... for an nginx source tree (and an nginx of it)
#   make run                the demo on :8080
#   make test               everything that must pass
#   make check-stable       the tests against a current stable nginx
#   make check-memory       100,000 requests under valgrind
#   make soak               10 minutes of providers that break at random
#   make soak-cache         20 minutes of kills and reloads over the cache
#   make soak-coalesce      10 minutes of kills, joins, leaves, slow readers
#   make bench              against plain proxy_pass, proxy_cache
#   make install            the module into nginx's modules directory, and
#                           llm-cache into $(SBINDIR)

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
	ngx_llm_module/store/*.[ch] ngx_llm_module/share/*.[ch])

# the command on a cache's directory
TOOL = $(BUILD)/llm-cache
SBINDIR = /usr/local/sbin

CFLAGS_TOOL = -std=gnu11 -D_GNU_SOURCE -g -O2 -fstack-protector-strong \
	-Wall -Wextra -Wpointer-arith -Werror -Ingx_llm_module

SOURCES_TOOL = $(wildcard ngx_llm_module/tool/*.c ngx_llm_module/core/*.c \
	ngx_llm_module/store/*.c)
HEADERS_TOOL = $(wildcard ngx_llm_module/tool/*.h ngx_llm_module/core/*.h \
	ngx_llm_module/store/*.h)
OBJS_TOOL = $(SOURCES_TOOL:ngx_llm_module/%.c=$(BUILD)/tool/%.o)

# tests whose subject is the module in nginx
JOBS ?= 2

# most of these wait most of the time
JOBS_E2E ?= 3

.PHONY: all module llm-cache setup run test test-core test-store test-share test-fuzz \
	test-mock test-lib test-nginx test-e2e check-clang check-stable \
	check-memory soak soak-cache soak-coalesce bench install clean mock

all: module llm-cache

module: $(MODULE)

$(MODULE): config $(SOURCES) | setup
	@CC="$(CC)" t/build.sh "$(NGINX_SRC)" "$(NGINX_OBJ)" "$@" \
		"$(CFLAGS_MODULE)"

llm-cache: $(TOOL)

# made anew of all objects, so that a removed source does not stay in it

$(TOOL): $(OBJS_TOOL)
	@echo "build $@"
	@$(CC) $(LDFLAGS) -o $@ $(OBJS_TOOL) -llmdb -lcrypto -lpthread

$(BUILD)/tool/%.o: ngx_llm_module/%.c $(HEADERS_TOOL) | setup
	@mkdir -p $(@D)
	@$(CC) $(CFLAGS_TOOL) -c -o $@ $<

# says what it installs, if anything
setup:
	@t/setup.sh build

mock: | setup
	@$(MAKE) -s -C t/mock

run: module mock
	@conf/demo/run $(PROVIDER)

# two at a time what only computes
test: setup-test module llm-cache mock check-clang
	@$(MAKE) -s -j2 --output-sync=target test-core test-store test-fuzz \
		test-share
	@$(MAKE) -s test-nginx
	@$(MAKE) -s test-e2e
	@$(MAKE) -s check-stable
	@echo "make test: all passed"

setup-test:
	@t/setup.sh test

test-core:
	@$(MAKE) -s -C t/core test

test-store:
	@$(MAKE) -s -C t/store test

test-share:
	@$(MAKE) -s -C t/share test

test-fuzz:
	@$(MAKE) -s -C t/fuzz test

test-lib: mock
	@prove -j$(JOBS) -It/lib t/lib/*.t t/mock/*.t

test-nginx: module mock test-lib
	@t/lib/prove -j$(JOBS) t/*.t

test-e2e: module llm-cache mock
	@LLM_MODULE=$(MODULE) prove -j$(JOBS_E2E) -It/lib t/e2e/*.t

# both again, by the other compiler: only for its warnings
check-clang: | setup
	@CC=clang t/build.sh "$(NGINX_SRC)" "$(BUILD)/nginx-clang" \
		"$(BUILD)/clang/ngx_http_llm_module.so" "$(CFLAGS_MODULE)"
	@for f in $(SOURCES_TOOL) $(wildcard ngx_llm_module/share/*.c); do \
		clang $(CFLAGS_TOOL) -fsyntax-only $$f || exit 1; \
	done

check-stable: setup-test mock
	@t/stable.sh

check-memory: setup-test module mock
	@t/memory.sh

soak: setup-test module mock
	@t/soak/failing $(SOAK)

soak-cache: setup-test module mock
	@t/soak/cache $(SOAK)

soak-coalesce: setup-test module mock
	@t/soak/coalesce $(SOAK)

bench: setup-test module mock
	@$(MAKE) -s -C t/bench
	@t/bench/run $(BENCH)

install: module llm-cache
	@install -D -m 755 $(TOOL) "$(DESTDIR)$(SBINDIR)/llm-cache"
	@dir=$$(nginx -V 2>&1 | sed -n 's/.*--modules-path=\([^ ]*\).*/\1/p'); \
	install -D -m 644 $(MODULE) \
		"$(DESTDIR)$${dir:-/usr/lib/nginx/modules}/ngx_http_llm_module.so"

clean:
	rm -rf $(BUILD)
