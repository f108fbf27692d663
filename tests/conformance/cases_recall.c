/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Files that two processes lend to each other, and take back at the same time. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

#define PIECES 8

/* Memory of one's own in pieces that stay apart. */
static long f_map_pieces(long a, long b, long c, long d)
{
	char *all = anonymous(2 * PIECES * PAGE);

	(void)a, (void)b, (void)c, (void)d;
	for (int i = 0; i < PIECES; i++) {
		all[2 * i * PAGE] = 1;
		mprotect(all + (2 * i + 1) * PAGE, PAGE, PROT_NONE);
	}
	return (long)all;
}

/* Tells of the fork when it is about to begin; how the child ended. */
static long f_fork(long on, long b, long c, long d)
{
	int status = -1;
	pid_t child;

	(void)b, (void)c, (void)d;
	__atomic_store_n((int *)on, 1, __ATOMIC_SEQ_CST);
	child = fork();
	if (child == 0)
		_exit(0);
	return waitpid(child, &status, 0) == child ? status : -1;
}

/* With XPMEM_TEST_SLOW_FORK=1 the fork lasts for longer than an attacher is waited for. */
CASE(recall_in_a_fork, "who is asked to let go of memory while it forks does so, and keeps what else it has")
{
	int *forking = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct peer p = spawn();
	long pieces = call(&p, f_map_pieces, 0, 0, 0);
	long theirs = attach(get_rw(call(&p, f_make_all, 0, 0, 0)), pieces, 2 * PIECES * PAGE, 0);
	char *asked = anonymous(PAGE), *kept = anonymous(PAGE);
	long apid = r_get(&p, make_all(), XPMEM_RDWR);
	long there, beside;

	fill(asked, PAGE, 1);
	fill(kept, PAGE, 2);
	there = r_attach(&p, apid, (long)asked, PAGE);
	beside = r_attach(&p, apid, (long)kept, PAGE);
	EXPECT_EQ(r_verify(&p, there, PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, beside, PAGE, 2), 0);
	for (int i = 0; i < PIECES; i++)
		EXPECT_EQ(peek(theirs + 2 * i * PAGE), 1);
	for (int round = 0; round < 3; round++) {
		*forking = 0;
		start(&p, f_fork, (long)forking, 0, 0, 0);
		all(forking, 1);
		/* It is asked somewhere in its fork, or just before. */
		usleep(20000 * round);
		EXPECT_EQ(mprotect(asked, PAGE, PROT_READ), 0);
		EXPECT_EQ(mprotect(asked, PAGE, PROT_READ | PROT_WRITE), 0);
		EXPECT_EQ(finish(&p), 0);
		/* Of an owner that has hung up nothing is left. */
		EXPECT_EQ(r_verify(&p, beside, PAGE, 2), 0);
		EXPECT_EQ(r_verify(&p, there, PAGE, 1), 0);
	}
	quit(&p);
}
