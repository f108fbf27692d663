# SPDX-License-Identifier: MIT OR Apache-2.0
#
#   make              build everything into build/
#   make demo         show it: two processes share memory
#   make check        every test there is (ci/steps/)
#   make bench        benchmarks
#   make install      into $(DESTDIR)$(PREFIX)
#   make headers      write include/*.h anew from the code

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
DESTDIR    ?=

CARGO   ?= cargo
INSTALL ?= install
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BUILD   := build
SOVER   := 0.0.0

.PHONY: build demo check bench soak install headers clean

build:
	$(CARGO) build --release --locked
	@mkdir -p $(BUILD)/lib $(BUILD)/bin $(BUILD)/include
	@$(INSTALL) -m 755 $(TARGET)/release/libxpmem.so $(BUILD)/lib/libxpmem.so.$(SOVER)
	@ln -sfn libxpmem.so.$(SOVER) $(BUILD)/lib/libxpmem.so.0
	@ln -sfn libxpmem.so.0 $(BUILD)/lib/libxpmem.so
	@$(INSTALL) -m 644 $(TARGET)/release/libxpmem.a $(BUILD)/lib/libxpmem.a
	@$(INSTALL) -m 755 $(TARGET)/release/xpmem $(BUILD)/bin/xpmem
	@$(INSTALL) -m 644 include/*.h $(BUILD)/include/

demo: build
	$(BUILD)/bin/xpmem demo

check:
	ci/check

headers:
	XPMEM_HEADERS=write $(CARGO) test --locked --test header

clean:
	rm -rf $(BUILD) $(TARGET)

# Targets of the test programs and benchmarks (bench, bench-user, soak, ...).
-include benches/targets.mk tests/stress/targets.mk
