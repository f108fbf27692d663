# SPDX-License-Identifier: MIT OR Apache-2.0
#   make bench-user        the user back end beside memcpy, CMA and two copies
BENCH_USER_SRC := benches/bench_user.c benches/peer.c benches/copy.c benches/attach.c tests/stress/api.c
BENCH_USER     := $(BUILD)/benches/bench-user

.PHONY: bench-user
bench: bench-user

$(BENCH_USER): $(BENCH_USER_SRC) $(wildcard benches/*.h) tests/stress/api.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread $(BENCH_USER_SRC) -o $@ -ldl

bench-user: build $(BENCH_USER)
	XPMEM_BACKEND=user $(BENCH_USER) $(abspath $(BUILD)/lib/libxpmem.so.0)
	@if [ -x tests/clients/bench.sh ]; then tests/clients/bench.sh -r 3; fi
