# SPDX-License-Identifier: MIT OR Apache-2.0
#   make stress            build the stress program
#   make soak MINUTES=60   run it that long; SEED= repeats a run
STRESS_SRC := $(wildcard tests/stress/*.c) tests/lib/load.c tests/lib/proc.c
STRESS     := $(BUILD)/tests/stress
MINUTES    ?= 30
STEPS      ?= $(shell [ $(MINUTES) -ge 30 ] && echo 1000000 || echo 1)

.PHONY: stress soak
stress: $(STRESS)

$(STRESS): $(STRESS_SRC) $(wildcard tests/stress/*.h tests/lib/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread $(STRESS_SRC) -o $@ -ldl

soak: build $(STRESS)
	XPMEM_BACKEND=user $(STRESS) --preload $(abspath $(BUILD)/lib/libxpmem.so.0) \
	    --seconds $$(($(MINUTES) * 60)) --min-steps $(STEPS) --skip brk $(if $(SEED),--seed $(SEED))
