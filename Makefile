# A thin front for people; CMakeLists.txt builds. `make help` lists the targets.
BUILD ?= build
BUILD_TYPE ?= RelWithDebInfo
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
CMAKE_FLAGS ?=
CONFORMANCE ?=
SHARE := $(BUILD)/share/husk

.PHONY: all help deps kernel quickstart test test-unit test-e2e test-kvm conformance lint install clean programs

all: programs kernel ## build everything: programs, guest agent and guest kernel

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo '  make bench-NAME   run one benchmark: $(patsubst test/bench/bench-%,%,$(wildcard test/bench/bench-*))'

deps: ## install the Debian packages that build, run and tests need (root or sudo)
	hack/install-deps

$(BUILD)/build.ninja: CMakeLists.txt
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=$(BUILD_TYPE) $(CMAKE_FLAGS)

programs: $(BUILD)/build.ninja ## build the programs and the initramfs, without the kernel
	ninja -C $(BUILD) -j $(JOBS)

kernel: ## build the guest kernel, or take it from the cache
	kernel/build --install-to $(SHARE)

quickstart: ## from a fresh Debian 12 to a container in its own VM, with the times it took
	hack/quickstart

test: test-unit test-e2e ## units and end-to-end

test-unit: programs kernel ## unit tests, fuzz corpora, guest tests
	ninja -C $(BUILD) -j $(JOBS) unit-tests
	ctest --test-dir $(BUILD) --output-on-failure -L 'unit|vm' -j 1

test-e2e: all ## the end-to-end suite, with the backend that auto chooses
	ctest --test-dir $(BUILD) -V -L e2e

test-kvm: all ## the end-to-end suite with backend kvm, inside an emulated host where needed
	test/kvm/run-e2e

conformance: deps all ## Kubernetes' own test of CRI servers, compared with a file (needs Go)
	test/conformance/run $(CONFORMANCE)

bench-%: all
	test/bench/bench-$*

lint: $(BUILD)/build.ninja ## layers, headers, format, forbidden calls
	ninja -C $(BUILD) -j $(JOBS) husk_proto
	hack/lint

install: all ## install below DESTDIR and PREFIX (default /usr/local)
	DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove the build directory; the caches stay
	rm -rf $(BUILD)
