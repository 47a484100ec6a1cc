# SPDX-License-Identifier: BSD-2-Clause
# A thin layer over meson: see README.md.
BUILD ?= build
SCENARIO ?= demo
FUZZ_SECONDS ?= 600

all: deps-build $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja: | deps-build
	@meson setup $(BUILD)

# Boots real Xen in QEMU and shows an unmodified guest doing verified I/O through Sluice.
demo: deps-lab all
	@lab/run demo

# All tests: units, hosted, sanitizers, style, and a guest on real Xen.
check: deps-build deps-check deps-lab
	@tests/check

# Fuzzes the Xen side, channels and the judgement of requests; what it has found so far is in tests/fuzz/corpus, and played by make check.
fuzz: deps-build deps-check
	@tests/fuzz/run $(FUZZ_SECONDS)

# Measures Sluice against what a user would run instead, into doc/bench: guests on real Xen, segments
# at full speed, many disks. A part alone is bench-lab, bench-native or bench-scale; these with
# JOBS=a,b measure only those, into $(BUILD)/bench.
bench: deps-build deps-lab deps-bench all
	@BUILD=$(BUILD) tests/bench/bench native
	@BUILD=$(BUILD) tests/bench/bench scale
	@BUILD=$(BUILD) tests/bench/bench lab
	@tests/bench/bench report

bench-native bench-scale: bench-%: deps-bench all
	@BUILD=$(BUILD) tests/bench/bench $* --only "$(JOBS)"

bench-lab: deps-bench deps-lab all
	@BUILD=$(BUILD) tests/bench/bench lab --only "$(JOBS)"

# Measures shared memory with segments of one's own against IVSHMEM's, TCP and UNIX sockets, into
# doc/bench-sivshm.md.
bench-sivshm: deps-lab all
	@BUILD=$(BUILD) tests/bench/bench-sivshm

# make lab SCENARIO=name; lab/run --list names them.
lab: deps-lab all
	@lab/run $(SCENARIO)

install: all
	@meson install -C $(BUILD)

deps-%:
	@tools/deps $*

clean:
	@rm -rf $(BUILD) build-asan build-fuzz

.PHONY: all demo check fuzz bench bench-native bench-scale bench-lab bench-sivshm lab install clean
