// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "vmops.h"

#include "layout.h"
#include "rawsys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define AT(replace) ((replace) ? MAP_FIXED : MAP_FIXED_NOREPLACE)

static bool libc_map(uint64_t addr, uint64_t len, bool replace)
{
	return mmap((void *)addr, len, RW, ANON | AT(replace), -1, 0) == (void *)addr;
}

static bool libc_unmap(uint64_t addr, uint64_t len)
{
	return !munmap((void *)addr, len);
}

static bool libc_discard(uint64_t addr, uint64_t len)
{
	return !madvise((void *)addr, len, MADV_DONTNEED);
}

static bool libc_remap(uint64_t addr, uint64_t len, uint64_t newlen, uint64_t to)
{
	if (to)
		return mremap((void *)addr, len, newlen, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)to) ==
		       (void *)to;
	return mremap((void *)addr, len, newlen, 0) == (void *)addr;
}

const struct vmops vm_libc = { libc_map, libc_unmap, libc_discard, libc_remap, true };

// As libc does it: failures by errno.
static long told(long answer)
{
	if (answer < 0 && answer > -4096) {
		errno = -answer;
		return -1;
	}
	return answer;
}

static bool raw_map(uint64_t addr, uint64_t len, bool replace)
{
	return told(raw6(SYS_mmap, addr, len, RW, ANON | AT(replace), -1, 0)) == (long)addr;
}

static bool raw_unmap(uint64_t addr, uint64_t len)
{
	return told(raw6(SYS_munmap, addr, len, 0, 0, 0, 0)) == 0;
}

static bool raw_discard(uint64_t addr, uint64_t len)
{
	return told(raw6(SYS_madvise, addr, len, MADV_DONTNEED, 0, 0, 0)) == 0;
}

static bool raw_remap(uint64_t addr, uint64_t len, uint64_t newlen, uint64_t to)
{
	int flags = to ? MREMAP_MAYMOVE | MREMAP_FIXED : 0;

	return told(raw6(SYS_mremap, addr, len, newlen, flags, to, 0)) == (long)(to ? to : addr);
}

const struct vmops vm_raw = { raw_map, raw_unmap, raw_discard, raw_remap, true };

static int plain_fd = -1;

void vm_plain_use(int fd)
{
	plain_fd = fd;
}

static bool plain_discard(uint64_t addr, uint64_t len)
{
	return !fallocate(plain_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, addr - SLICE_BASE, len);
}

static bool plain_map(uint64_t addr, uint64_t len, bool replace)
{
	return plain_discard(addr, len) &&
	       mmap((void *)addr, len, RW, MAP_SHARED | AT(replace), plain_fd, addr - SLICE_BASE) ==
		       (void *)addr;
}

static bool plain_unmap(uint64_t addr, uint64_t len)
{
	return plain_discard(addr, len) && !munmap((void *)addr, len);
}

const struct vmops vm_plain = { plain_map, plain_unmap, plain_discard, NULL, false };

void vm_plain_inject_stale(uint64_t addr)
{
	mmap((void *)addr, PAGE, RW, ANON | MAP_FIXED, -1, 0);
}
