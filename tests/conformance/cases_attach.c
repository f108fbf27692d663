/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What an attachment shows, and when touching it is SIGBUS. */
#include "harness.h"

CASE(roundtrip, "loads and stores go both ways")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	long addr;

	fill(source, 16 * PAGE, 1);
	addr = share(&p, source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, 16 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)source, 16 * PAGE, 2), 0);
	fill(source, 16 * PAGE, 3);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 3), 0);
	quit(&p);
}

CASE(segment_offset, "offsets count from the start of the segment")
{
	struct peer p = spawn();
	char *source = anonymous(16 * PAGE);
	long segid, apid, addr;

	fill(source, 16 * PAGE, 4);
	segid = make_range(source + 4 * PAGE, 8 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, 2 * PAGE, 3 * PAGE);
	EXPECT(addr != -1);
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(r_peek(&p, addr + i * PAGE + 11),
			  (unsigned char)source[(6 + i) * PAGE + 11]);
	quit(&p);
}

CASE(attach_is_lazy, "attach touches no page of the owner")
{
	struct peer p = spawn();
	size_t pages = 256;
	unsigned char resident[256];
	char *source = anonymous(pages * PAGE);

	EXPECT(share(&p, source, pages * PAGE) != -1);
	memset(resident, 0, sizeof resident);
	/* A small range may have been made shareable, but a peer's window must
	 * not fill the owner's memory. */
	source = anonymous(64 << 20);
	EXPECT(share(&p, source, 64 << 20) != -1);
	EXPECT_EQ(mincore(source + (32 << 20), pages * PAGE, resident), 0);
	for (size_t i = 0; i < pages; i++)
		EXPECT_EQ(resident[i] & 1, 0);
	quit(&p);
}

CASE(attach_1tib, "a window of 1 TiB, nearly all of it holes")
{
	struct peer p = spawn();
	size_t size = 1ul << 40;
	char *source = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long addr;

	if (source == MAP_FAILED)
		skip_case("no terabyte of address space here");
	EXPECT_EQ(mprotect(source + size / 2, PAGE, PROT_READ | PROT_WRITE), 0);
	source[size / 2 + 5] = 42;
	munmap(source + size / 4, PAGE);
	addr = share(&p, source, size);
	EXPECT_EQ(r_peek(&p, addr + size / 2 + 5), 42);
	EXPECT_EQ(r_peek(&p, addr + size / 4), -SIGBUS);
	EXPECT_EQ(r_peek(&p, addr + size - 1), -SIGBUS);
	EXPECT_EQ(r_poke(&p, addr + size / 2 + 6, 43), 0);
	EXPECT_EQ(source[size / 2 + 6], 43);
	EXPECT_EQ(r_detach(&p, addr + size / 2), 0);
	quit(&p);
}

CASE(hole_sigbus, "a hole is SIGBUS, exactly, and its neighbours are there")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 8 * PAGE, 5);
	munmap(source + 3 * PAGE, 2 * PAGE);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 3 * PAGE, 5), 0);
	EXPECT_EQ(r_peek(&p, addr + 3 * PAGE), -SIGBUS);
	EXPECT_EQ(r_poke(&p, addr + 4 * PAGE + 9, 1), -SIGBUS);
	EXPECT_EQ(r_peek(&p, addr + 5 * PAGE), (unsigned char)source[5 * PAGE]);
	EXPECT_EQ(r_peek(&p, addr + 7 * PAGE + 4095), (unsigned char)source[7 * PAGE + 4095]);
	/* Again: a fault that was answered must be answered the same. */
	EXPECT_EQ(r_peek(&p, addr + 3 * PAGE), -SIGBUS);
	quit(&p);
}

CASE(prot_none_sigbus, "PROT_NONE memory of the owner is SIGBUS")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 6);
	EXPECT_EQ(mprotect(source + PAGE, PAGE, PROT_NONE), 0);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_peek(&p, addr + PAGE), -SIGBUS);
	EXPECT_EQ(r_peek(&p, addr), (unsigned char)source[0]);
	EXPECT_EQ(r_peek(&p, addr + 2 * PAGE), (unsigned char)source[2 * PAGE]);
	quit(&p);
}

CASE(prot_none_since, "what an owner has shared and then hidden is SIGBUS at new attachments, too")
{
	struct peer p = spawn(), q = spawn();
	char *source = anonymous(4 * PAGE);
	long addr, apid;

	fill(source, 4 * PAGE, 6);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 6), 0);
	EXPECT_EQ(mprotect(source + PAGE, PAGE, PROT_NONE), 0);
	EXPECT_EQ(r_peek(&p, addr + PAGE), -SIGBUS);
	apid = r_get(&q, make_all(), XPMEM_RDWR);
	for (int first = 0; first < 2; first++) {
		addr = r_attach(&q, apid, (long)source + first * PAGE, (4 - first) * PAGE);
		EXPECT(addr > 0);
		addr -= first * PAGE;
		EXPECT_EQ(r_peek(&q, addr + PAGE), -SIGBUS);
		if (!first)
			EXPECT_EQ(r_peek(&q, addr), (unsigned char)source[0]);
		EXPECT_EQ(r_peek(&q, addr + 2 * PAGE), (unsigned char)source[2 * PAGE]);
		EXPECT_EQ(r_poke(&q, addr + 3 * PAGE, 1), 0);
		EXPECT_EQ(source[3 * PAGE], 1);
		source[3 * PAGE] = 2;
	}
	quit(&q);
	quit(&p);
}

CASE(removed_sigbus, "after remove, touched and untouched pages are SIGBUS")
{
	struct peer p = spawn();
	char *source = anonymous(64 * PAGE);
	long segid, apid, addr;

	fill(source, 64 * PAGE, 7);
	segid = make_range(source, 64 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, 0, 64 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 2 * PAGE, 7), 0);
	EXPECT_EQ(api->remove(segid), 0);
	EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
	EXPECT_EQ(r_poke(&p, addr + 63 * PAGE, 1), -SIGBUS);
	EXPECT_EQ(verify((long)source, 64 * PAGE, 7), 0);
	EXPECT_EQ(r_detach(&p, addr), 0);
	EXPECT_EQ(r_release(&p, apid), 0);
	quit(&p);
}

CASE(removed_one_of_two, "removing one segment leaves another over the same memory alone")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long one, two, apid1, apid2, addr1, addr2;

	fill(source, 4 * PAGE, 8);
	one = make_range(source, 4 * PAGE);
	two = make_range(source, 4 * PAGE);
	apid1 = r_get(&p, one, XPMEM_RDWR);
	apid2 = r_get(&p, two, XPMEM_RDWR);
	addr1 = r_attach(&p, apid1, 0, 4 * PAGE);
	addr2 = r_attach(&p, apid2, 0, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr1, 4 * PAGE, 8), 0);
	EXPECT_EQ(r_verify(&p, addr2, 4 * PAGE, 8), 0);
	EXPECT_EQ(api->remove(one), 0);
	EXPECT_EQ(r_peek(&p, addr1), -SIGBUS);
	EXPECT_EQ(r_verify(&p, addr2, 4 * PAGE, 8), 0);
	EXPECT_EQ(r_poke(&p, addr2 + PAGE, 0x77), 0);
	EXPECT_EQ((unsigned char)source[PAGE], 0x77);
	quit(&p);
}

CASE(hole_filled_later, "memory mapped later into a hole is reached by an old attachment")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long addr;

	munmap(source + 2 * PAGE, 4 * PAGE);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_peek(&p, addr + 2 * PAGE), -SIGBUS);
	EXPECT(mmap(source + 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	fill(source + 2 * PAGE, 2 * PAGE, 3);
	/* One page whose touch failed before, one that was never touched. */
	EXPECT_EQ(r_verify(&p, addr + 2 * PAGE, 2 * PAGE, 3), 0);
	EXPECT_EQ(r_peek(&p, addr + 4 * PAGE), -SIGBUS);
	EXPECT_EQ(r_poke(&p, addr + 3 * PAGE, 0x21), 0);
	EXPECT_EQ((unsigned char)source[3 * PAGE], 0x21);
	quit(&p);
}

CASE(rdonly_write_faults, "a store through an XPMEM_RDONLY attachment faults and changes nothing")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid, apid, addr;

	fill(source, 4 * PAGE, 1);
	segid = make_range(source, 4 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDONLY);
	addr = r_attach(&p, apid, 0, 4 * PAGE);
	EXPECT(addr != -1);
	/* First touch by a store, then after a load. */
	EXPECT(FAULTED(r_poke(&p, addr + 2 * PAGE, 0x55)));
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT(FAULTED(r_poke(&p, addr, 0x55)));
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	fill(source, 4 * PAGE, 2);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 2), 0);
	quit(&p);
}

static long f_unlock(long addr, long size, long c, long d)
{
	int fd;
	char byte = 0x67;

	(void)c, (void)d;
	/* The ways in which a program may try to write anyway. */
	if (mprotect((void *)addr, size, PROT_READ | PROT_WRITE) == 0 && poke(addr, byte) == 0)
		return 1;
	fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = pwrite(fd, &byte, 1, addr);

		close(fd);
		if (n == 1)
			return 2;
	}
	return 0;
}

CASE(rdonly_cannot_be_opened, "neither mprotect nor /proc/self/mem writes through a read-only permit")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid, apid, addr;

	fill(source, 4 * PAGE, 1);
	segid = make_range(source, 4 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDONLY);
	addr = r_attach(&p, apid, 0, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(call(&p, f_unlock, addr, 4 * PAGE, 0), 0);
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	quit(&p);
}

CASE(readonly_owner, "memory that the owner itself may not write is not written by a peer")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 1);
	EXPECT_EQ(mprotect(source, 2 * PAGE, PROT_READ), 0);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT(FAULTED(r_poke(&p, addr + PAGE, 0x44)));
	EXPECT_EQ(r_poke(&p, addr + 2 * PAGE, source[2 * PAGE]), 0);
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	/* And writable once it is. */
	EXPECT_EQ(mprotect(source, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(r_poke(&p, addr + PAGE, 0x44), 0);
	EXPECT_EQ((unsigned char)source[PAGE], 0x44);
	quit(&p);
}

CASE(readonly_owner_first_touch_store, "a first touch by a store into the owner's read-only page faults")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 1);
	EXPECT_EQ(mprotect(source, 4 * PAGE, PROT_READ), 0);
	addr = share(&p, source, 4 * PAGE);
	EXPECT(FAULTED(r_poke(&p, addr, 0x44)));
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	quit(&p);
}

CASE(self_attach, "a process may attach its own segment")
{
	char *source = anonymous(4 * PAGE);
	long segid, apid, addr;

	fill(source, 4 * PAGE, 1);
	segid = make_range(source, 4 * PAGE);
	apid = get_rw(segid);
	addr = attach(apid, 0, 4 * PAGE, 0);
	EXPECT(addr != -1 && addr != (long)source);
	EXPECT_EQ(verify(addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(poke(addr + PAGE, 0x31), 0);
	EXPECT_EQ((unsigned char)source[PAGE], 0x31);
	source[PAGE + 1] = 0x32;
	EXPECT_EQ(peek(addr + PAGE + 1), 0x32);
	EXPECT_EQ(api->detach((void *)addr), 0);
	EXPECT_EQ(api->release(apid), 0);
}

CASE(many_windows, "Open MPI's way: overlapping windows of 8 MiB + 1 around many buffers")
{
	struct peer p = spawn();
	enum { WINDOW = 8 << 20 };
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR);

	for (int i = 0; i < 24; i++) {
		size_t size = PAGE << (i % 8);
		char *source = anonymous(size);
		long base = (long)source & -(long)WINDOW, addr;
		long bound = ((long)source + size - base + WINDOW - 1) & -(long)WINDOW;

		fill(source, size, i);
		addr = r_attach(&p, apid, base, bound + 1);
		EXPECT(addr != -1);
		EXPECT_EQ(r_verify(&p, addr + ((long)source - base), size, i), 0);
		EXPECT_EQ(r_fill(&p, addr + ((long)source - base), size, i + 1), 0);
		EXPECT_EQ(verify((long)source, size, i + 1), 0);
		if (i % 3 == 0)
			EXPECT_EQ(r_detach(&p, addr), 0);
	}
	quit(&p);
}
