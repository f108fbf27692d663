/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The owner changes its memory; the peer makes no call and looks again. A page
 * that is no longer the owner's, shown without an error, is the worst failure.
 */
#include "harness.h"
#include "../stress/rawsys.h"
#include <pthread.h>
#include <sys/syscall.h>

static long remap(char *p, size_t size)
{
	return (long)mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

CASE(unmap, "after munmap a touch is SIGBUS")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	munmap(source + 2 * PAGE, 3 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 2 * PAGE, 1), 0);
	for (int i = 2; i < 5; i++)
		EXPECT_EQ(r_peek(&p, addr + i * PAGE), -SIGBUS);
	EXPECT_EQ(r_peek(&p, addr + 5 * PAGE), (unsigned char)source[5 * PAGE]);
	quit(&p);
}

CASE(unmap_and_map, "munmap and mmap at the same address show the new page")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 4 * PAGE);
	for (int i = 0; i < 200; i++) {
		EXPECT_EQ(r_peek(&p, addr + (i % 4) * PAGE), (unsigned char)source[(i % 4) * PAGE]);
		munmap(source, 4 * PAGE);
		EXPECT_EQ(remap(source, 4 * PAGE), (long)source);
		fill(source, 4 * PAGE, i);
		EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, i), 0);
		EXPECT_EQ(r_fill(&p, addr, 4 * PAGE, i + 1), 0);
		EXPECT_EQ(verify((long)source, 4 * PAGE, i + 1), 0);
	}
	quit(&p);
}

CASE(map_fixed_over, "MAP_FIXED over attached memory shows the new page")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	addr = share(&p, source, 4 * PAGE);
	for (int i = 0; i < 200; i++) {
		fill(source, 4 * PAGE, i);
		EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, i), 0);
		EXPECT_EQ(remap(source + PAGE, 2 * PAGE), (long)source + PAGE);
		EXPECT_EQ(r_peek(&p, addr + PAGE), 0);
		EXPECT_EQ(r_poke(&p, addr + 2 * PAGE, 99), 0);
		EXPECT_EQ(source[2 * PAGE], 99);
	}
	quit(&p);
}

CASE(free_and_malloc, "free and malloc again show what is in the new buffer")
{
	struct peer p = spawn();
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR);
	enum { WINDOW = 8 << 20, CACHE = 64 };
	long bases[CACHE], addrs[CACHE];
	int cached = 0;

	for (int i = 0; i < 150; i++) {
		size_t size = 5000 + (i * 7919 % 500000);
		char *source = malloc(size);
		long base = (long)source & -(long)WINDOW, addr = -1;

		fill(source, size, i);
		if ((base + WINDOW) < (long)source + (long)size) {
			free(source);
			continue;
		}
		for (int k = 0; k < cached; k++)
			if (bases[k] == base)
				addr = addrs[k];
		if (addr == -1 && cached < CACHE) {
			addr = r_attach(&p, apid, base, WINDOW);
			EXPECT(addr != -1);
			bases[cached] = base;
			addrs[cached++] = addr;
		}
		EXPECT_EQ(r_verify(&p, addr + ((long)source - base), size, i), 0);
		EXPECT_EQ(r_fill(&p, addr + ((long)source - base), size, i + 1), 0);
		EXPECT_EQ(verify((long)source, size, i + 1), 0);
		free(source);
	}
	quit(&p);
}

CASE(mremap_move, "mremap to elsewhere: the old place is a hole, the new one has the data")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE), *target = anonymous(8 * PAGE);
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR), from, to;

	fill(source, 8 * PAGE, 1);
	from = r_attach(&p, apid, (long)source, 8 * PAGE);
	to = r_attach(&p, apid, (long)target, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, from, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_peek(&p, to), 0);
	EXPECT_EQ((long)mremap(source, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target),
		  (long)target);
	EXPECT_EQ(verify((long)target, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, to, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_peek(&p, from), -SIGBUS);
	EXPECT_EQ(r_poke(&p, from + 7 * PAGE, 1), -SIGBUS);
	EXPECT_EQ(r_fill(&p, to, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)target, 8 * PAGE, 2), 0);
	quit(&p);
}

CASE(mremap_grow, "mremap that grows keeps the data and adds memory of its own")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE), *grown;
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR), addr, beyond;

	/* Room to grow in place, and another attached page behind that. */
	munmap(source + 4 * PAGE, 8 * PAGE);
	fill(source, 4 * PAGE, 1);
	fill(source + 12 * PAGE, 4 * PAGE, 2);
	addr = r_attach(&p, apid, (long)source, 12 * PAGE);
	beyond = r_attach(&p, apid, (long)source + 12 * PAGE, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, beyond, 4 * PAGE, 2), 0);
	grown = mremap(source, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
	EXPECT(grown != MAP_FAILED);
	EXPECT_EQ(verify((long)grown, 4 * PAGE, 1), 0);
	for (int i = 4; i < 8; i++)
		EXPECT_EQ(grown[i * PAGE], 0);
	fill(grown, 8 * PAGE, 3);
	EXPECT_EQ(verify((long)source + 12 * PAGE, 4 * PAGE, 2), 0);
	if (grown != source) {
		EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
		addr = r_attach(&p, apid, (long)grown, 8 * PAGE);
	}
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 3), 0);
	EXPECT_EQ(r_fill(&p, addr, 8 * PAGE, 4), 0);
	EXPECT_EQ(verify((long)grown, 8 * PAGE, 4), 0);
	quit(&p);
}

CASE(realloc_large, "realloc of a large buffer keeps every byte")
{
	struct peer p = spawn();
	size_t size = 300000;
	char *source = malloc(size);
	long addr;

	for (int i = 0; i < 12; i++) {
		fill(source, size, i);
		addr = share(&p, source, size);
		EXPECT_EQ(r_verify(&p, addr, size, i), 0);
		source = realloc(source, size * 3 / 2);
		EXPECT_EQ(verify((long)source, size, i), 0);
		size = size * 3 / 2;
	}
	quit(&p);
}

CASE(dontneed, "MADV_DONTNEED shows zeros, and stores from both sides after it")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	addr = share(&p, source, 8 * PAGE);
	for (int i = 0; i < 100; i++) {
		fill(source, 8 * PAGE, i);
		EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, i), 0);
		EXPECT_EQ(madvise(source + 2 * PAGE, 4 * PAGE, MADV_DONTNEED), 0);
		EXPECT_EQ(r_peek(&p, addr + 3 * PAGE), 0);
		EXPECT_EQ(source[2 * PAGE + 1], 0);
		source[4 * PAGE] = 7;
		EXPECT_EQ(r_peek(&p, addr + 4 * PAGE), 7);
		EXPECT_EQ(r_poke(&p, addr + 5 * PAGE, 8), 0);
		EXPECT_EQ(source[5 * PAGE], 8);
		EXPECT_EQ(r_verify(&p, addr, 2 * PAGE, i), 0);
	}
	quit(&p);
}

CASE(brk_shrink_grow, "brk down and up again shows zeros, then new data")
{
	struct peer p = spawn();
	char *top = sbrk(0), *source;
	long addr;

	if (sbrk(((-(long)top) & (PAGE - 1)) + 16 * PAGE) == (void *)-1)
		skip_case("no brk heap here");
	source = (char *)(((long)top + PAGE - 1) & -PAGE);
	fill(source, 16 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	EXPECT(brk(source + 4 * PAGE) == 0);
	EXPECT_EQ(r_peek(&p, addr + 8 * PAGE), -SIGBUS);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT(brk(source + 16 * PAGE) == 0);
	EXPECT_EQ(source[8 * PAGE], 0);
	EXPECT_EQ(r_peek(&p, addr + 8 * PAGE), 0);
	fill(source, 16 * PAGE, 2);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 2), 0);
	quit(&p);
}

CASE(protect_and_back, "mprotect to none, to read and back, after promotion")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(mprotect(source, 2 * PAGE, PROT_READ), 0);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT(FAULTED(r_poke(&p, addr + PAGE, 0x44)));
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	EXPECT_EQ(mprotect(source, 2 * PAGE, PROT_NONE), 0);
	EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
	EXPECT_EQ(mprotect(source, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_poke(&p, addr + PAGE, 0x45), 0);
	EXPECT_EQ((unsigned char)source[PAGE], 0x45);
	quit(&p);
}

CASE(owner_forks, "fork of the owner: the attachment stays with the owner, the child has a snapshot")
{
	struct peer p = spawn();
	char *source = anonymous(64 * PAGE);
	long addr;

	fill(source, 64 * PAGE, 1);
	addr = share(&p, source, 64 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 32 * PAGE, 1), 0);
	for (int i = 0; i < 10; i++) {
		int ready[2], status = -1;
		pid_t pid;
		char byte;

		EXPECT(pipe(ready) == 0);
		fill(source, 64 * PAGE, i);
		pid = fork();
		EXPECT(pid >= 0);
		if (pid == 0) {
			close(ready[1]);
			/* Until the parent and the peer have written. */
			if (read(ready[0], &byte, 1) != 0)
				_exit(1);
			if (verify((long)source, 64 * PAGE, i))
				_exit(2);
			fill(source, 64 * PAGE, 77);
			_exit(0);
		}
		close(ready[0]);
		EXPECT_EQ(r_fill(&p, addr, 32 * PAGE, i + 1), 0);
		EXPECT_EQ(verify((long)source, 32 * PAGE, i + 1), 0);
		fill(source, 64 * PAGE, i + 2);
		EXPECT_EQ(r_verify(&p, addr, 64 * PAGE, i + 2), 0);
		close(ready[1]);
		EXPECT(waitpid(pid, &status, 0) == pid);
		EXPECT_EQ(status, 0);
		EXPECT_EQ(verify((long)source, 64 * PAGE, i + 2), 0);
		EXPECT_EQ(r_verify(&p, addr, 64 * PAGE, i + 2), 0);
	}
	quit(&p);
}

static long f_write_mem(long pid, long addr, long size, long seed)
{
	char path[64], *bytes = malloc(size);
	int fd;
	ssize_t n;

	fill(bytes, size, seed);
	snprintf(path, sizeof path, "/proc/%ld/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = pwrite(fd, bytes, size, addr);
	close(fd);
	free(bytes);
	return n;
}

CASE(written_from_outside, "what a third process writes through /proc/pid/mem is seen")
{
	struct peer p = spawn(), q = spawn();
	char *source = anonymous(4 * PAGE);
	long addr, n;

	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 2 * PAGE, 1), 0);
	n = call4(&q, f_write_mem, getpid(), (long)source, 4 * PAGE, 5);
	if (n < 0)
		skip_case("may not write /proc/pid/mem of a parent here");
	EXPECT_EQ(n, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 5), 0);
	quit(&p);
	quit(&q);
}

CASE(stays_through_many_shares, "one buffer attached anew many times")
{
	struct peer p = spawn();
	char *source = anonymous(32 * PAGE);
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR);

	for (int i = 0; i < 300; i++) {
		long addr = r_attach(&p, apid, (long)source, 32 * PAGE);

		EXPECT(addr != -1);
		fill(source, 32 * PAGE, i);
		EXPECT_EQ(r_verify(&p, addr, 32 * PAGE, i), 0);
		EXPECT_EQ(r_detach(&p, addr), 0);
	}
	quit(&p);
}

CASE(own_attachment, "an attachment of one's own memory is cut off like a peer's, and hinders none")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR), addr, own;
	struct xpmem_addr self = { api->get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL), (off_t)(long)source };

	EXPECT(self.apid > 0);
	fill(source, 4 * PAGE, 1);
	addr = r_attach(&p, apid, (long)source, 4 * PAGE);
	own = (long)api->attach(self, 4 * PAGE, NULL);
	EXPECT(own != -1);
	for (int i = 0; i < 50; i++) {
		EXPECT_EQ(r_peek(&p, addr), (unsigned char)source[0]);
		EXPECT_EQ(peek(own + PAGE), (unsigned char)source[PAGE]);
		/* Not through libc: the library must learn of it from the kernel. */
		EXPECT_EQ(raw6(SYS_munmap, (long)source, 4 * PAGE, 0, 0, 0, 0), 0);
		EXPECT_EQ(remap(source, 4 * PAGE), (long)source);
		fill(source, 4 * PAGE, i);
		EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, i), 0);
		EXPECT_EQ(verify(own, 4 * PAGE, i), 0);
	}
	quit(&p);
}

/* A large buffer that is written while it is shared. Of each page, word 0 counts
 * what the owner has stored there, word 1 what the attacher has, and the rest says
 * which page it is. */
enum { WRITTEN_PAGES = 6000, WORDS = PAGE / sizeof(uint64_t), WRITERS = 2 };

static struct written {
	uint64_t (*pages)[WORDS];
	uint64_t rounds[WRITERS];
	int end;
} written;

static void *keep_writing(void *argument)
{
	long me = (long)argument;

	while (!__atomic_load_n(&written.end, __ATOMIC_ACQUIRE)) {
		for (long i = me; i < WRITTEN_PAGES; i += WRITERS)
			written.pages[i][0]++;
		written.rounds[me]++;
	}
	return NULL;
}

/* One look at every page, front to back, and a store to each; 0, or 1 + the page
 * that is not what it must be. */
static long f_look_through(long addr, long size, long round, long unused)
{
	volatile uint64_t(*pages)[WORDS] = (void *)addr;

	(void)unused;
	for (long i = 0; i < size / (long)PAGE; i++) {
		if (pages[i][1] != (uint64_t)round)
			return 1 + i;
		for (unsigned long k = 2; k < WORDS; k++)
			if (pages[i][k] != (uint64_t)i * WORDS + k)
				return 1 + i;
		pages[i][1] = round + 1;
	}
	return 0;
}

CASE(written_while_shared, "a large buffer that two threads write while its pages come to be shared")
{
	struct peer p = spawn();
	size_t size = WRITTEN_PAGES * PAGE;
	pthread_t threads[WRITERS];
	long addr;

	written.pages = anonymous(size);
	for (long i = 0; i < WRITTEN_PAGES; i++)
		for (unsigned long k = 2; k < WORDS; k++)
			written.pages[i][k] = (uint64_t)i * WORDS + k;
	addr = share(&p, written.pages, size);
	for (long i = 0; i < WRITERS; i++)
		EXPECT_EQ(pthread_create(&threads[i], NULL, keep_writing, (void *)i), 0);
	EXPECT_EQ(call(&p, f_look_through, addr, size, 0), 0);
	EXPECT_EQ(call(&p, f_look_through, addr, size, 1), 0);
	__atomic_store_n(&written.end, 1, __ATOMIC_RELEASE);
	for (long i = 0; i < WRITERS; i++)
		EXPECT_EQ(pthread_join(threads[i], NULL), 0);
	for (long i = 0; i < WRITTEN_PAGES; i++) {
		EXPECT_EQ(written.pages[i][0], written.rounds[i % WRITERS]);
		EXPECT_EQ(written.pages[i][1], 2);
	}
	quit(&p);
}
