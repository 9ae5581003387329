# A thin front for people; CMakeLists.txt builds. `make help` lists the targets. Each installs what it needs
# on Debian 12 (as root or by sudo), which takes no time when nothing is missing; not with HUSK_DEPS=no.
BUILD ?= build
BUILD_TYPE ?= RelWithDebInfo
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
CMAKE_FLAGS ?=
CONFORMANCE ?=
STRESS ?=
SHARE := $(BUILD)/share/husk

.PHONY: all help deps kernel quickstart test test-unit test-e2e test-kvm test-fresh conformance stress lint \
	install clean programs

all: programs kernel ## build everything: programs, guest agent and guest kernel

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo '  make bench-NAME   run one benchmark: $(patsubst test/bench/bench-%,%,$(wildcard test/bench/bench-*))'

deps: ## install the Debian packages of all targets
	hack/install-deps

deps-%: # those of some
	@hack/install-deps $*

$(BUILD)/build.ninja: CMakeLists.txt | deps-build
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=$(BUILD_TYPE) $(CMAKE_FLAGS)

programs: deps-build $(BUILD)/build.ninja ## build the programs and the initramfs, without the kernel
	ninja -C $(BUILD) -j $(JOBS)

kernel: deps-kernel ## build the guest kernel, or take it from the cache
	kernel/build --install-to $(SHARE)

quickstart: ## from a fresh Debian 12 to a container in its own VM, with the times it took
	hack/quickstart

test: test-unit test-e2e ## units and end-to-end

test-unit: deps-test programs kernel ## unit tests, fuzz corpora, guest tests
	ninja -C $(BUILD) -j $(JOBS) unit-tests
	ctest --test-dir $(BUILD) --output-on-failure -L 'unit|vm' -j 1

test-e2e: deps-test all ## the end-to-end suite, with the backend that auto chooses
	ctest --test-dir $(BUILD) -V -L e2e

test-kvm: deps-kvm all ## the end-to-end suite with backend kvm, inside an emulated host where needed
	test/kvm/run-e2e

conformance: deps-conformance all ## Kubernetes' own test of CRI servers, compared with a file
	test/conformance/run $(CONFORMANCE)

test-fresh: deps-test ## quickstart and test from a fresh clone in a minimal Debian (minutes, gigabytes)
	hack/test-fresh

stress: deps-test all ## half an hour of pods while their processes are killed at random
	test/stress/run $(STRESS)

bench-%: deps-bench all
	test/bench/bench-$*

lint: deps-lint $(BUILD)/build.ninja ## layers, headers, format, forbidden calls
	ninja -C $(BUILD) -j $(JOBS) husk_proto
	hack/lint

install: all ## install below DESTDIR and PREFIX (default /usr/local)
	DESTDIR=$(DESTDIR) cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove the build directory; the caches stay
	rm -rf $(BUILD)
