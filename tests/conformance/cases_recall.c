/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Files that two processes lend to each other, and take back at the same time. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <sched.h>
#include <sys/syscall.h>

#define SIZE (4 * PAGE)

/* Seen by both; made before the peer is. */
struct board {
	int ready;
	int gone[2];
};

static int file = -1;

/* Maps a file of this process's own, whose bytes are all `value`. */
static long f_map_file(long addr, long value, long c, long d)
{
	char bytes[SIZE];

	(void)c, (void)d;
	if (file < 0) {
		file = memfd_create("lent", MFD_CLOEXEC);
		memset(bytes, (int)value, sizeof bytes);
		if (file < 0 || write(file, bytes, sizeof bytes) != (long)sizeof bytes)
			return -1;
	}
	return (long)mmap((void *)addr, SIZE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | (addr ? MAP_FIXED : 0), file, 0);
}

static int all(int *word, int value)
{
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value)
		sched_yield();
	return 1;
}

/* Unmaps the own file at the moment when the other does so too; what the
 * attachment of the other's shows when that has been unmapped. */
static long f_unmap_both(long mine, long theirs, long on, long me)
{
	struct board *board = (struct board *)on;

	__atomic_add_fetch(&board->ready, 1, __ATOMIC_SEQ_CST);
	all(&board->ready, 2);
	raw6(SYS_munmap, mine, SIZE, 0, 0, 0, 0);
	__atomic_store_n(&board->gone[me], 1, __ATOMIC_SEQ_CST);
	all(&board->gone[!me], 1);
	return peek(theirs);
}

CASE(recall_both_ways, "a file that was lent is gone when a raw munmap returns, also while its peer takes one back")
{
	struct board *board = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct peer p = spawn();
	long here = f_map_file(0, 1, 0, 0), there = call(&p, f_map_file, 0, 2, 0);
	long theirs = attach(get_rw(call(&p, f_make_all, 0, 0, 0)), there, SIZE, 0);
	long ours = r_attach(&p, r_get(&p, make_all(), XPMEM_RDWR), here, SIZE);
	long value;

	EXPECT(here != -1 && there != -1 && theirs != -1 && ours != -1);
	value = r_peek(&p, ours);
	if (FAULTED(value))
		skip_case("such files are not lent");
	for (int i = 0; i < 300; i++) {
		EXPECT_EQ(f_map_file(here, 1, 0, 0), here);
		EXPECT_EQ(call(&p, f_map_file, there, 2, 0), there);
		EXPECT_EQ(r_peek(&p, ours), 1);
		EXPECT_EQ(peek(theirs), 2);
		memset(board, 0, sizeof *board);
		start(&p, f_unmap_both, there, ours, (long)board, 1);
		value = f_unmap_both(here, theirs, (long)board, 0);
		if (!FAULTED(value))
			fail(__FILE__, __LINE__, "round %d: their file is still seen: %ld", i, value);
		value = finish(&p);
		if (!FAULTED(value))
			fail(__FILE__, __LINE__, "round %d: the file here is still seen: %ld", i, value);
	}
	quit(&p);
}
