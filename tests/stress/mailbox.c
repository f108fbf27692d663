// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "mailbox.h"

#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

const char *const klass_name[NKLASS] = {
	[K_MALLOC] = "malloc",
	[K_LIBC] = "libc calls",
	[K_LIBC_X] = "libc calls, across threads",
	[K_RAW] = "raw calls, one thread",
	[K_RAW_X] = "raw calls, across threads",
	[K_BRK] = "brk",
	[K_STATIC] = ".bss in place",
	[K_STACK] = "thread stacks",
	[K_FORK] = "fork",
	[K_SHARED] = "shared anonymous memory",
	[K_FILE] = "shared files",
	[K_DEVICE] = "direct reads",
	[K_SYSV] = "System V segments",
	[K_RING] = "io_uring",
	[K_WRITER] = "a third process writes",
	[K_SEAL] = "sealed memory",
	[K_VFORK] = "vfork, raw clone3",
};

const char *const fail_name[NFAIL] = {
	[F_STALE] = "stale reads",
	[F_GARBAGE] = "wrong reads",
	[F_LOST] = "lost updates",
	[F_SIGNAL] = "spurious SIGBUS or SIGSEGV",
	[F_NO_SIGBUS] = "missing SIGBUS",
	[F_EFAULT] = "spurious EFAULT",
	[F_WAKE] = "lost futex wakes",
	[F_OWNER_MEM] = "owner's own memory wrong",
	[F_FORK] = "fork children wrong",
	[F_API] = "library calls failed",
	[F_CRASH] = "processes crashed",
	[F_HANG] = "hangs",
	[F_LEAK] = "leaks",
};

struct mailbox *mailbox_map(int fd, bool create)
{
	struct mailbox *mb;

	if (create && ftruncate(fd, sizeof(*mb)))
		return NULL;
	mb = mmap(NULL, sizeof(*mb), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return mb == MAP_FAILED ? NULL : mb;
}

void fail_note(struct mailbox *mb, enum fail f, enum klass k, const char *fmt, ...)
{
	uint32_t n = atomic_fetch_add(&mb->nfailures, 1);
	va_list ap;

	stat_add(&mb->stats.fail[f][k], 1);
	if (n >= sizeof(mb->failure) / sizeof(mb->failure[0]))
		return;
	mb->failure[n].fail = f;
	mb->failure[n].klass = k;
	va_start(ap, fmt);
	vsnprintf(mb->failure[n].text, sizeof(mb->failure[n].text), fmt, ap);
	va_end(ap);
	atomic_store(&mb->failure[n].full, 1);
}

void skip_note(struct mailbox *mb, enum klass k, const char *why)
{
	if (!atomic_exchange(&mb->stats.skipped[k], 1))
		fprintf(stderr, "stress: skipped, %s: %s\n", klass_name[k], why);
}

void futex_wait_ms(_Atomic uint32_t *word, uint32_t value, unsigned ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000l };

	syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0);
}

void futex_wake_all(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
