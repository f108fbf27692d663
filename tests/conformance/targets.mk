# SPDX-License-Identifier: MIT OR Apache-2.0
# The conformance suite in build/tests: over the shared library, over the
# static one (for an initramfs), and the cases alone for the Rust program.

CONFORMANCE_SOURCES := $(wildcard tests/conformance/*.c)
CONFORMANCE_CASES   := $(filter-out tests/conformance/main.c,$(CONFORMANCE_SOURCES))
TEST_CFLAGS         ?= -O1 -g -std=gnu11 -Wall -Wextra -Werror
CONFORMANCE_DEPS    := $(CONFORMANCE_SOURCES) tests/conformance/harness.h tests/stress/rawsys.h include/xpmem.h

.PHONY: conformance
conformance: build $(BUILD)/tests/conformance $(BUILD)/tests/conformance-static \
		$(BUILD)/tests/libconformance-cases.so $(BUILD)/tests/conformance-rust \
		$(BUILD)/tests/fake-device

$(BUILD)/tests/conformance: $(CONFORMANCE_DEPS)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -o $@ $(CONFORMANCE_SOURCES) -L$(BUILD)/lib -lxpmem \
		-Wl,-rpath,'$$ORIGIN/../lib' -pthread

$(BUILD)/tests/conformance-static: $(CONFORMANCE_DEPS) $(BUILD)/lib/libxpmem.a
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -DCONFORMANCE_STATIC -static -o $@ $(CONFORMANCE_SOURCES) $(BUILD)/lib/libxpmem.a -pthread

$(BUILD)/tests/libconformance-cases.so: $(CONFORMANCE_DEPS)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -fPIC -shared -o $@ $(CONFORMANCE_CASES) -pthread

# cargo knows what is out of date.
.PHONY: $(BUILD)/tests/conformance-rust
$(BUILD)/tests/conformance-rust:
	@mkdir -p $(@D)
	$(CARGO) build --locked --release --example conformance
	@$(call put,755,$(TARGET)/release/examples/conformance,$@)

$(BUILD)/tests/fake-device: tests/conformance/fake/device.c
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -o $@ $<

# The library with switches for tests (src/testing.rs), in a folder of its own.
.PHONY: fault-injection
fault-injection:
	$(CARGO) build --release --locked --lib --features fault-injection --target-dir $(BUILD)/fault-injection
	@mkdir -p $(BUILD)/fault-injection/lib
	@$(call put,755,$(BUILD)/fault-injection/release/libxpmem.so,$(BUILD)/fault-injection/lib/libxpmem.so.0)

# The sweep needs a library that is built with fault-injection, at run time.
$(BUILD)/tests/sweep: $(wildcard tests/faults/*.[ch]) $(CONFORMANCE_DEPS)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -o $@ tests/faults/sweep.c tests/faults/operations.c tests/faults/killed.c \
		tests/conformance/harness.c \
		tests/conformance/peer.c tests/conformance/memory.c tests/conformance/expectations.c \
		-L$(BUILD)/lib -lxpmem -Wl,-rpath,'$$ORIGIN/../lib' -pthread
