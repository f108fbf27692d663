# SPDX-License-Identifier: MIT OR Apache-2.0
#   make examples          build them into build/examples
EXAMPLES := $(BUILD)/examples

.PHONY: examples $(EXAMPLES)/window
examples: build $(EXAMPLES)/owner $(EXAMPLES)/attacher $(EXAMPLES)/window
	@if command -v mpicc >/dev/null; then $(MAKE) --no-print-directory $(EXAMPLES)/pingpong_mpi; fi

$(EXAMPLES)/%: examples/%.c include/xpmem.h
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -Werror -o $@ $< -Iinclude -L$(BUILD)/lib -lxpmem -Wl,-rpath,'$$ORIGIN/../lib'

$(EXAMPLES)/pingpong_mpi: examples/pingpong_mpi.c include/xpmem.h
	@mkdir -p $(@D)
	mpicc -O2 -Wall -Wextra -o $@ $< -Iinclude -L$(BUILD)/lib -lxpmem -Wl,-rpath,'$$ORIGIN/../lib'

# cargo knows what is out of date.
$(EXAMPLES)/window:
	@mkdir -p $(@D)
	$(CARGO) build --locked --release --example window
	@cp $(TARGET)/release/examples/window $@
