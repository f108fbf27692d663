/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The attacher does to an attachment what one may do to any mapping. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <sys/syscall.h>
#include <pthread.h>

static long f_mprotect(long addr, long size, long protection, long d)
{
	(void)d;
	return mprotect((void *)addr, size, protection);
}

static long f_mremap(long addr, long old, long new, long to)
{
	return (long)mremap((void *)addr, old, new, MREMAP_MAYMOVE | (to ? MREMAP_FIXED : 0), (void *)to);
}

static long f_anonymous(long size, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return (long)anonymous(size);
}

static long f_madvise(long addr, long size, long advice, long d)
{
	(void)d;
	return madvise((void *)addr, size, advice);
}

CASE(partial_munmap, "munmap of the middle leaves both ends, and what comes there is the program's own")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 2 * PAGE, 1), 0);
	EXPECT_EQ(call(&p, f_munmap, addr + 3 * PAGE, 2 * PAGE, 0), 0);
	EXPECT_EQ(r_peek(&p, addr + 3 * PAGE), -SIGSEGV);
	EXPECT_EQ(r_verify(&p, addr, 3 * PAGE, 1), 0);
	EXPECT_EQ(r_peek(&p, addr + 7 * PAGE), (unsigned char)source[7 * PAGE]);
	fill(source, 8 * PAGE, 2);
	EXPECT_EQ(r_verify(&p, addr, 3 * PAGE, 2), 0);
	EXPECT_EQ(r_detach(&p, addr), 0);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 2), 0);
	quit(&p);
}

CASE(munmap_then_detach, "munmap of all of it, then detach and release are 0")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR), addr, mine;

	fill(source, 8 * PAGE, 1);
	addr = r_attach(&p, apid, (long)source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(call(&p, f_munmap, addr, 8 * PAGE, 0), 0);
	EXPECT_EQ(r_detach(&p, addr), 0);
	/* Memory of the program's own that happens to come to that place... */
	mine = call(&p, f_anonymous, 8 * PAGE, 0, 0);
	EXPECT_EQ(r_fill(&p, mine, 8 * PAGE, 5), 0);
	/* ...is not release's to unmap. */
	EXPECT_EQ(r_release(&p, apid), 0);
	EXPECT_EQ(r_verify(&p, mine, 8 * PAGE, 5), 0);
	quit(&p);
}

static long f_map_at(long addr, long size, long c, long d)
{
	(void)c, (void)d;
	return (long)mmap((void *)addr, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

CASE(own_memory_over_attachment, "memory mapped over an attachment survives its release")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR), addr;

	fill(source, 8 * PAGE, 1);
	addr = r_attach(&p, apid, (long)source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(call(&p, f_map_at, addr + 2 * PAGE, 2 * PAGE, 0), addr + 2 * PAGE);
	EXPECT_EQ(r_fill(&p, addr + 2 * PAGE, 2 * PAGE, 6), 0);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_release(&p, apid), 0);
	EXPECT_EQ(r_verify(&p, addr + 2 * PAGE, 2 * PAGE, 6), 0);
	quit(&p);
}

CASE(mprotect_attachment, "mprotect of part of an attachment")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(call(&p, f_mprotect, addr + 2 * PAGE, 4 * PAGE, PROT_READ), 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT(FAULTED(r_poke(&p, addr + 3 * PAGE, 1)));
	EXPECT(FAULTED(r_poke(&p, addr + 5 * PAGE, 1)));
	EXPECT_EQ(r_poke(&p, addr + PAGE, 0x10), 0);
	EXPECT_EQ((unsigned char)source[PAGE], 0x10);
	EXPECT_EQ(call(&p, f_mprotect, addr + 2 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(r_poke(&p, addr + 3 * PAGE, 0x11), 0);
	EXPECT_EQ((unsigned char)source[3 * PAGE], 0x11);
	EXPECT_EQ(r_detach(&p, addr + 3 * PAGE), 0);
	quit(&p);
}

CASE(mremap_attachment, "mremap of an attachment: it moves or is refused, and nothing breaks")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr, place, moved;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	place = call(&p, f_anonymous, 8 * PAGE, 0, 0);
	moved = call4(&p, f_mremap, addr, 8 * PAGE, 8 * PAGE, place);
	if (moved == -1) {
		EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	} else {
		EXPECT_EQ(moved, place);
		/* Pages that were touched are there; others too, or are a fault. */
		EXPECT_EQ(r_verify(&p, moved, 4 * PAGE, 1), 0);
		fill(source, 8 * PAGE, 2);
		EXPECT_EQ(r_verify(&p, moved, 4 * PAGE, 2), 0);
		{
			long seen = r_peek(&p, moved + 6 * PAGE);

			EXPECT(FAULTED(seen) || seen == (unsigned char)source[6 * PAGE]);
		}
		EXPECT_EQ(r_peek(&p, addr), -SIGSEGV);
		munmap(source, PAGE);
		EXPECT_EQ(r_peek(&p, moved), -SIGBUS);
	}
	quit(&p);
}

CASE(mremap_attachment_grow, "an attachment cannot be grown beyond what was attached")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid, apid, addr, grown;

	fill(source, 8 * PAGE, 1);
	segid = make_range(source, 4 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, 0, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	grown = call4(&p, f_mremap, addr, 4 * PAGE, 8 * PAGE, 0);
	if (grown != -1) {
		/* The memory behind the segment was not exported. */
		EXPECT(FAULTED(r_peek(&p, grown + 5 * PAGE)));
		EXPECT(FAULTED(r_poke(&p, grown + 5 * PAGE, 1)));
	}
	EXPECT_EQ(verify((long)source, 8 * PAGE, 1), 0);
	quit(&p);
}

CASE(madvise_attachment, "MADV_DONTNEED by the attacher drops nothing of the owner's")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	call(&p, f_madvise, addr, 8 * PAGE, MADV_DONTNEED);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 2), 0);
	quit(&p);
}

CASE(hostile_remove, "MADV_REMOVE by an attacher must not go unnoticed")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr, ret;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	ret = call(&p, f_madvise, addr, PAGE, MADV_REMOVE);
	/* A writer may zero the page as well by storing zeros; but both sides
	 * must go on seeing the same page. */
	if (ret == 0)
		EXPECT(source[0] == 0 || verify((long)source, PAGE, 1) == 0);
	source[0] = 0x2a;
	EXPECT_EQ(r_peek(&p, addr), 0x2a);
	EXPECT_EQ(r_poke(&p, addr + 1, 0x2b), 0);
	EXPECT_EQ(source[1], 0x2b);
	quit(&p);
}

CASE(hostile_remove_rdonly, "a read-only attacher can remove nothing")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDONLY), addr;

	fill(source, 8 * PAGE, 1);
	addr = r_attach(&p, apid, (long)source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT(call(&p, f_madvise, addr, 8 * PAGE, MADV_REMOVE) == -1);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 1), 0);
	call(&p, f_madvise, addr, 8 * PAGE, MADV_DONTNEED);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	quit(&p);
}

static void *unmapper(void *argument)
{
	long *shared = argument;

	while (!__atomic_load_n(&shared[0], __ATOMIC_RELAXED)) {
		long at = attach(shared[1], 0, PAGE, 0);

		if (at == -1 || munmap((void *)at, PAGE))
			return (void *)1;
	}
	return NULL;
}

CASE(unmap_while_pages_come, "munmap of one attachment while another's pages are being mapped")
{
	char *source = anonymous(512 * PAGE);
	long shared[2] = { 0, 0 }, base;
	pthread_t thread;
	void *failed;

	fill(source, 512 * PAGE, 1);
	shared[1] = get_rw(make_range(source, 512 * PAGE));
	EXPECT(pthread_create(&thread, NULL, unmapper, shared) == 0);
	for (int i = 0; i < 100; i++) {
		base = attach(shared[1], 0, 512 * PAGE, 0);
		EXPECT(base != -1);
		EXPECT_EQ(verify(base, 512 * PAGE, 1), 0);
		EXPECT_EQ(api->detach((void *)base), 0);
	}
	__atomic_store_n(&shared[0], 1, __ATOMIC_RELAXED);
	EXPECT(pthread_join(thread, &failed) == 0 && failed == NULL);
}

/* Shared memory that has grown by a system call past libc. */
static char *grown_past_libc(struct peer *p, long *addr)
{
	char *room = anonymous(64 * PAGE);

	munmap(room + 16 * PAGE, 48 * PAGE);
	fill(room, 16 * PAGE, 1);
	*addr = share(p, room, 64 * PAGE);
	EXPECT_EQ(r_verify(p, *addr, 16 * PAGE, 1), 0);
	EXPECT(raw6(SYS_mremap, (long)room, 16 * PAGE, 32 * PAGE, 0, 0, 0) == (long)room);
	fill(room, 32 * PAGE, 2);
	return room;
}

CASE(grown_then_dropped, "memory that grew past libc is dropped by libc's madvise")
{
	struct peer p = spawn();
	long addr;
	char *room = grown_past_libc(&p, &addr);

	EXPECT_EQ(madvise(room + 8 * PAGE, 16 * PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(verify((long)room, 8 * PAGE, 2), 0);
	for (long at = 8; at < 24; at++)
		EXPECT_EQ(peek((long)room + at * PAGE), 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 2), 0);
	for (long at = 8; at < 24; at++)
		EXPECT_EQ(r_peek(&p, addr + at * PAGE), 0);
	quit(&p);
}

CASE(grown_then_moved, "memory that grew past libc is moved by libc's mremap")
{
	struct peer p = spawn();
	long addr;
	char *room = grown_past_libc(&p, &addr), *to = anonymous(40 * PAGE);

	EXPECT(mremap(room, 32 * PAGE, 40 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	EXPECT_EQ(verify((long)to, 32 * PAGE, 2), 0);
	EXPECT_EQ(peek((long)to + 39 * PAGE), 0);
	EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
	EXPECT_EQ(r_peek(&p, addr + 20 * PAGE), -SIGBUS);
	quit(&p);
}

CASE(grown_then_cut, "memory that grew past libc is made smaller by libc's mremap")
{
	struct peer p = spawn();
	long addr;
	char *room = grown_past_libc(&p, &addr);

	EXPECT_EQ(r_peek(&p, addr + 31 * PAGE), peek((long)room + 31 * PAGE));
	EXPECT(mremap(room, 32 * PAGE, 20 * PAGE, 0) == room);
	EXPECT_EQ(verify((long)room, 20 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&p, addr, 20 * PAGE, 2), 0);
	EXPECT_EQ(r_peek(&p, addr + 20 * PAGE), -SIGBUS);
	quit(&p);
}

CASE(grown_then_replaced, "memory that grew past libc is replaced by libc's mmap and mremap")
{
	struct peer p = spawn();
	long addr;
	char *room = grown_past_libc(&p, &addr), *other = anonymous(16 * PAGE);

	fill(other, 16 * PAGE, 3);
	EXPECT(mmap(room + 12 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == room + 12 * PAGE);
	EXPECT_EQ(r_peek(&p, addr + 13 * PAGE), 0);
	EXPECT(mremap(other, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 10 * PAGE) ==
	       room + 10 * PAGE);
	EXPECT_EQ(verify((long)room, 10 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)room + 10 * PAGE, 16 * PAGE, 3), 0);
	EXPECT_EQ(r_verify(&p, addr, 10 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&p, addr + 10 * PAGE, 16 * PAGE, 3), 0);
	quit(&p);
}

CASE(grown_then_protected, "memory that grew past libc is protected and unmapped by libc")
{
	struct peer p = spawn();
	long addr;
	char *room = grown_past_libc(&p, &addr);

	EXPECT_EQ(mprotect(room + 8 * PAGE, 16 * PAGE, PROT_READ), 0);
	EXPECT_EQ(verify((long)room, 32 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&p, addr, 32 * PAGE, 2), 0);
	EXPECT_EQ(munmap(room + 8 * PAGE, 24 * PAGE), 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(r_peek(&p, addr + 8 * PAGE), -SIGBUS);
	EXPECT_EQ(r_peek(&p, addr + 31 * PAGE), -SIGBUS);
	quit(&p);
}

CASE(grown_then_attached_over, "an attachment takes the place of memory that grew past libc")
{
	char *theirs = anonymous(16 * PAGE), *room;
	struct peer p = spawn(), q = spawn();
	long addr, segid;

	EXPECT_EQ(r_fill(&q, (long)theirs, 16 * PAGE, 4), 0);
	segid = call(&q, f_make_all, 0, 0, 0);
	room = grown_past_libc(&p, &addr);
	EXPECT_EQ(attach(get_rw(segid), (long)theirs, 16 * PAGE, (long)room + 10 * PAGE), (long)room + 10 * PAGE);
	EXPECT_EQ(verify((long)room, 10 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)room + 10 * PAGE, 16 * PAGE, 4), 0);
	EXPECT_EQ(r_verify(&p, addr, 10 * PAGE, 2), 0);
	EXPECT_EQ(api->detach(room + 10 * PAGE), 0);
	quit(&p);
	quit(&q);
}

CASE(moved_over_attachment, "shared memory that libc's mremap puts in the place of an attachment")
{
	char *theirs = anonymous(16 * PAGE), *source = anonymous(16 * PAGE);
	struct peer p = spawn(), q = spawn();
	long addr, segid, mine;

	EXPECT_EQ(r_fill(&q, (long)theirs, 16 * PAGE, 4), 0);
	segid = call(&q, f_make_all, 0, 0, 0);
	fill(source, 16 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	mine = attach(get_rw(segid), (long)theirs, 16 * PAGE, 0);
	EXPECT_EQ(verify(mine, 4 * PAGE, 4), 0);
	EXPECT((long)mremap(source, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)mine) == mine);
	EXPECT_EQ(verify(mine, 16 * PAGE, 1), 0);
	EXPECT_EQ(r_peek(&p, addr + PAGE), -SIGBUS);
	EXPECT_EQ(r_verify(&q, (long)theirs, 16 * PAGE, 4), 0);
	quit(&p);
	quit(&q);
}

CASE(attachment_moved_with_shared, "libc's mremap of an attachment and what is shared beside it ends, either way")
{
	char *theirs = anonymous(8 * PAGE), *source = anonymous(16 * PAGE), *to = anonymous(16 * PAGE);
	struct peer p = spawn(), q = spawn();
	long addr, segid, mine;

	EXPECT_EQ(r_fill(&q, (long)theirs, 8 * PAGE, 4), 0);
	segid = call(&q, f_make_all, 0, 0, 0);
	fill(source, 16 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	mine = attach(get_rw(segid), (long)theirs, 8 * PAGE, (long)source + 8 * PAGE);
	EXPECT_EQ(mine, (long)source + 8 * PAGE);
	EXPECT_EQ(verify(mine, 4 * PAGE, 4), 0);
	/* Several mappings: what becomes of that depends on the kernel. */
	if (mremap(source, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
		EXPECT_EQ(verify((long)to, 8 * PAGE, 1), 0);
	quit(&p);
	quit(&q);
}
