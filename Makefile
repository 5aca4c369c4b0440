# SPDX-License-Identifier: BSD-2-Clause
# The two commands are `make run` and `make test`; `make help` lists the rest.

BUILD  ?= build
PREFIX ?= /usr/local
MESON_FLAGS ?=

.PHONY: build run test test-all mutants bench fuzz soak attack lab lab-kernel coexist deb-dkms format clean install help
.DEFAULT_GOAL := build

build: setup-build
	@scripts/build $(BUILD) $(MESON_FLAGS)

run: setup-run
	@scripts/build $(BUILD) $(MESON_FLAGS)
	@$(BUILD)/bin/ebb run --memory 2G --workload "memhog 75%; idle 2" \
	    --json ebb-run.json --plot ebb-run.svg

test: setup-test
	@tests/run quick

test-all: setup-test
	@tests/run

mutants: setup-test
	@tests/mutants

bench: build
	@$(BUILD)/bin/ebb bench alloc

# TIME=SECONDS for each target, FRESH=1
fuzz: setup-test
	@FRESH=$(or $(FRESH),0) tests/fuzz/run $(or $(TIME),120)

# TIME=SECONDS
soak: setup-test
	@scripts/build $(BUILD) $(MESON_FLAGS)
	@python3 tests/vhost/soak.py $(BUILD)/bin/ebbd $(or $(TIME),3600)

# TIME=SECONDS
attack: setup-test
	@scripts/build $(BUILD) $(MESON_FLAGS)
	@python3 tests/attack/attack.py $(BUILD)/bin/ebbd $(or $(TIME),600)

# QUICK=1, FRESH=1, MIXED=1, ONLY=P1,P6, ROUNDS=7, TRACES=DIR, LAB_DIR=DIR
LAB_DIR ?= $(BUILD)/lab
lab: setup-run
	@scripts/build $(BUILD) $(MESON_FLAGS)
	@python3 lab/lab.py run --dir '$(LAB_DIR)' --ebb $(BUILD)/bin/ebb --drop $(BUILD)/lab/drop \
	    $(if $(QUICK),--quick) $(if $(FRESH),--fresh) $(if $(MIXED),--mixed) \
	    $(if $(ONLY),--only '$(ONLY)') $(if $(ROUNDS),--rounds $(ROUNDS)) \
	    $(if $(TRACES),--traces '$(TRACES)')

# KERNEL=6.12, FLAVOUR=plain|debug, KERNEL_DIR=DIR
KERNEL_DIR ?= $(BUILD)/lab-kernel
lab-kernel: setup-kernel
	@scripts/build $(BUILD) $(MESON_FLAGS)
	@lab/linux/kernel --ebb $(BUILD)/bin/ebb $(if $(KERNEL),--kernel '$(KERNEL)') \
	    $(if $(FLAVOUR),--flavour '$(FLAVOUR)') '$(KERNEL_DIR)'

# HOST=scribble|ebbd
coexist: build
	@EBB_COEXIST=all EBB_COEXIST_HOST=$(HOST) python3 tests/e2e/test_coexist.py $(BUILD)/bin/ebb \
	    $(BUILD)/bin/ebb-guest.elf

# For Linux guests: docs/linux-guest.md
deb-dkms:
	@linux/deb '$(BUILD)'

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i
	@git ls-files -z '*.md' | xargs -0 scripts/wrap.py

clean:
	rm -rf $(BUILD) build-*

install: build
	@meson configure $(BUILD) --prefix $(PREFIX)
	@meson install -C $(BUILD)

help:
	@echo 'make run       build, start a 2 GiB guest under QEMU, watch its freed memory come back'
	@echo '               (writes ebb-run.svg and ebb-run.json)'
	@echo 'make test      before each commit, minutes: units, properties, conformance, a guest per'
	@echo '               machine type in QEMU, units once more with sanitizers'
	@echo 'make test-all  every test, 45 minutes: that, and clang, all end-to-end tests, the model,'
	@echo '               fuzzing, everything with sanitizers (tests/README.md)'
	@echo 'make mutants   do the tests see bugs? A few dozen copies of the code with one bug in each'
	@echo 'make build     the programs, in $(BUILD)/bin'
	@echo 'make bench     what the allocator costs, with reporting off and idle, beside LLFree;'
	@echo '               all trackers side by side: $(BUILD)/bin/ebb bench trackers'
	@echo 'make fuzz      fuzz ring, device, vhost-user messages and control socket, TIME=120 seconds each'
	@echo 'make soak      VMs that appear and go on an ebbd that starts again each minute, for TIME=3600'
	@echo '               seconds: nothing may be left of them'
	@echo 'make attack    front-ends that attack ebbd, for TIME=600 seconds: other VMs must not notice'
	@echo 'make lab       everything in docs/performance.md, beside Linux guests: hours, on a quiet'
	@echo '               machine, and goes on where it was stopped; QUICK=1: minutes; FRESH=1: anew;'
	@echo '               ONLY=P1,P6 ROUNDS=7 TRACES=DIR LAB_DIR=DIR as you like'
	@echo 'make lab-kernel small Linux kernels with ebb built in, from Debian'"'"'s sources, plain and with'
	@echo '               KASAN and lockdep, and runs of them: an hour or two, KERNEL=6.12, FLAVOUR=plain'
	@echo 'make coexist   the module in Linux guests, beside all that host and guest do with memory:'
	@echo '               an hour or two; HOST=scribble: with a host that writes over what it is told of'
	@echo 'make deb-dkms  the module for Linux guests as a Debian package, in $(BUILD)'
	@echo 'make format    clang-format every C file, wrap prose'
	@echo 'make install   below PREFIX ($(PREFIX))'
	@echo 'make clean     remove what was built'

setup-%:
	@scripts/setup $*
