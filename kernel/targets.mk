# SPDX-License-Identifier: GPL-2.0-only
# Included by the Makefile at the top.
#
#   make module                build kernel/xpmem.ko for KDIR
#   make install-module        module, udev rule, modules-load.d, DKMS source
#   make check-vm              every test in guests of three Debian kernels
#   make check-debug-kernel    the same on kernels with KASAN and lockdep
#   make check-many            what races most, with eight processors
#   make check-arm64           the library for arm64, over both back ends, in a guest
#   make check-both            the conformance suite over both back ends at once, in a guest
#   make check-dkms            install-module in a Debian system, and its boot
#   make bench-vm              guest instructions of each operation

KDIR    ?= /lib/modules/$(shell uname -r)/build
# The kernel that KDIR is of. Not what its kernelrelease says: Debian 12's is another.
KVER    ?= $(or $(shell sed -n 's/^.define UTS_RELEASE "\(.*\)"/\1/p' $(KDIR)/include/generated/utsrelease.h 2>/dev/null),$(shell uname -r))
MODVER  := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' kernel/dkms.conf)

.PHONY: module install-module install-dkms check-vm check-arm64 check-debug-kernel check-many check-both check-dkms bench-vm

module:
	$(MAKE) -C kernel KDIR=$(KDIR)

# With DKMS the module is built again for each new kernel; without it, once.
install-module: install-dkms
	$(INSTALL) -D -m 644 packaging/udev/90-xpmem.rules $(DESTDIR)/usr/lib/udev/rules.d/90-xpmem.rules
	$(INSTALL) -D -m 644 packaging/modules-load/xpmem.conf $(DESTDIR)/usr/lib/modules-load.d/xpmem.conf
	@if [ -z "$(DESTDIR)" ] && command -v dkms >/dev/null; then \
		dkms install --force xpmem/$(MODVER) -k $(KVER); \
	elif [ -z "$(DESTDIR)" ]; then \
		$(MAKE) module && $(MAKE) -C kernel KDIR=$(KDIR) KERNELRELEASE=$(KVER) modules_install && depmod $(KVER); \
	fi

install-dkms:
	$(INSTALL) -d $(DESTDIR)/usr/src/xpmem-$(MODVER)
	$(INSTALL) -m 644 kernel/Kbuild kernel/Makefile kernel/dkms.conf kernel/*.[ch] \
		$(DESTDIR)/usr/src/xpmem-$(MODVER)/

check-vm:
	ci/steps/80-vm.sh

check-arm64:
	tests/vm/arm64-library.sh

check-debug-kernel:
	tests/vm/check-debug.sh

check-many:
	tests/vm/check-many.sh

check-both:
	VM_BACKEND=both tests/vm/user.sh trixie

check-dkms:
	tests/vm/dkms.sh

bench-vm:
	tests/vm/bench.sh
