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
MANDIR     ?= $(PREFIX)/share/man
DESTDIR    ?=

CARGO   ?= cargo
INSTALL ?= install
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BUILD   := build
SOVER   := 0.0.0

# $(call put,MODE,FILE,TO): what has not changed stays as it is, and what has is
# replaced whole, since tests may be running it.
put = cmp -s $(2) $(3) || { $(INSTALL) -m $(1) $(2) $(3).new && mv -f $(3).new $(3); }

.PHONY: build demo check bench soak install headers clean

build:
	$(CARGO) build --release --locked --bins
	@# Link-time optimization is for the final libraries only: cargo leaves it
	@# out where an rlib is made along, as for the tool. They have no backtraces
	@# (src/backtrace.rs): the unwinder's function is ours, and is nobody else's.
	$(CARGO) rustc --release --locked --lib --crate-type cdylib,staticlib --target-dir $(TARGET)/lto \
		-- --cfg xpmem_no_backtrace -C link-arg=-Wl,-z,muldefs
	@mkdir -p $(BUILD)/lib $(BUILD)/bin $(BUILD)/include
	@$(call put,755,$(TARGET)/lto/release/libxpmem.so,$(BUILD)/lib/libxpmem.so.$(SOVER))
	@ln -sfn libxpmem.so.$(SOVER) $(BUILD)/lib/libxpmem.so.0
	@ln -sfn libxpmem.so.0 $(BUILD)/lib/libxpmem.so
	@objcopy --localize-symbol=_Unwind_Backtrace $(TARGET)/lto/release/libxpmem.a $(TARGET)/lto/libxpmem.a
	@$(call put,644,$(TARGET)/lto/libxpmem.a,$(BUILD)/lib/libxpmem.a)
	@$(call put,755,$(TARGET)/release/xpmem,$(BUILD)/bin/xpmem)
	@$(INSTALL) -m 644 include/*.h $(BUILD)/include/

demo:
	ci/setup.sh build
	. ci/path.sh && $(MAKE) build
	ci/demo.sh

check:
	ci/check

# The .pc files carry no absolute path: the prefix may be moved.
PC_DIR    = $(LIBDIR)/pkgconfig
VERSION  := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
LIBS_PRIVATE = -lgcc_eh -lutil -lrt -lpthread -lm -ldl -lc
PC_EDIT = sed -e 's|@RELATIVE_PREFIX@|$(shell realpath -m --relative-to=$(PC_DIR) $(PREFIX))|' \
	-e 's|@RELATIVE_LIBDIR@|$(shell realpath -m --relative-to=$(PREFIX) $(LIBDIR))|' \
	-e 's|@RELATIVE_INCLUDEDIR@|$(shell realpath -m --relative-to=$(PREFIX) $(INCLUDEDIR))|' \
	-e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS_PRIVATE@|$(LIBS_PRIVATE)|'

# Installs what `make build` left in build/, so that root need not have cargo.
install:
	@test -e $(BUILD)/lib/libxpmem.so.$(SOVER) || $(MAKE) build
	$(INSTALL) -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PC_DIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(BINDIR)
	$(INSTALL) -m 755 $(BUILD)/lib/libxpmem.so.$(SOVER) $(DESTDIR)$(LIBDIR)/
	ln -sfn libxpmem.so.$(SOVER) $(DESTDIR)$(LIBDIR)/libxpmem.so.0
	ln -sfn libxpmem.so.0 $(DESTDIR)$(LIBDIR)/libxpmem.so
	$(INSTALL) -m 644 $(BUILD)/lib/libxpmem.a $(DESTDIR)$(LIBDIR)/
	$(INSTALL) -m 644 $(BUILD)/include/*.h $(DESTDIR)$(INCLUDEDIR)/
	$(INSTALL) -m 755 $(BUILD)/bin/xpmem $(DESTDIR)$(BINDIR)/
	@for page in man/*.[1-9]; do \
		to=$(DESTDIR)$(MANDIR)/man$${page##*.}; \
		$(INSTALL) -d $$to && $(INSTALL) -m 644 $$page $$to/ || exit 1; \
		for name in $$(sed -n 's/^\.Nm \(xpmem_[a-z_]*\).*/\1/p' $$page | sort -u); do \
			[ -e man/$$name.3 ] || ln -sf $${page##*/} $$to/$$name.3 || exit 1; \
		done; \
	done
	for pc in pkgconfig/*.pc.in; do \
		$(PC_EDIT) $$pc >$(DESTDIR)$(PC_DIR)/$$(basename $$pc .in) || exit 1; \
	done

headers:
	$(CARGO) run --quiet --locked --example headers -- --write

clean:
	rm -rf $(BUILD) $(TARGET)

# Targets of the kernel module, test programs and benchmarks (check-vm, bench-user, soak, ...).
include kernel/targets.mk
include tests/conformance/targets.mk
-include benches/targets.mk examples/targets.mk tests/stress/targets.mk tests/peers/targets.mk tests/hwloc/targets.mk
