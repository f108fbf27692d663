# SPDX-License-Identifier: MIT OR Apache-2.0
#   make bench-user        the user back end beside memcpy, CMA and two copies
BENCH_USER_SRC := benches/bench_user.c benches/peer.c benches/copy.c benches/attach.c benches/cold.c benches/huge.c tests/lib/load.c
BENCH_USER     := $(BUILD)/benches/bench-user

.PHONY: bench-user
bench: bench-user

$(BENCH_USER): $(BENCH_USER_SRC) $(wildcard benches/*.h) $(wildcard tests/lib/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread $(BENCH_USER_SRC) -o $@ -ldl

bench-user: build $(BENCH_USER)
	XPMEM_BACKEND=user $(BENCH_USER) $(abspath $(BUILD)/lib/libxpmem.so.0)
	@if [ -x tests/clients/bench.sh ]; then tests/clients/bench.sh -r 3; fi

#   make bench-scale       owners with many threads, forks, much memory, many peers
BENCH_SCALE := $(BUILD)/benches/bench-scale

.PHONY: bench-scale
bench: bench-scale

$(BENCH_SCALE): $(wildcard benches/scale/*.[ch]) benches/sample.h tests/lib/load.c $(wildcard tests/lib/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread $(filter %.c,$^) -o $@ -ldl

bench-scale: build $(BENCH_SCALE)
	XPMEM_BACKEND=user $(BENCH_SCALE) $(abspath $(BUILD)/lib/libxpmem.so.0)

#   make bench-hwloc       shared topologies: stock hwloc's functions and ours
BENCH_HWLOC := $(BUILD)/benches/bench-hwloc

.PHONY: bench-hwloc
bench: bench-hwloc

$(BENCH_HWLOC): benches/hwloc/bench.c tests/hwloc/dump.c tests/hwloc/dump.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall benches/hwloc/bench.c tests/hwloc/dump.c -o $@ -lhwloc -ldl

bench-hwloc: build $(BENCH_HWLOC)
	HWLOC_PLUGINS_PATH=/nonexistent $(BENCH_HWLOC) $(abspath $(BUILD)/lib/libxpmem.so.0)
	@echo "With hwloc's plugins, as installed:"
	BENCH_QUICK=1 $(BENCH_HWLOC) $(abspath $(BUILD)/lib/libxpmem.so.0)
