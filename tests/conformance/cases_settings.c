/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a program has said about its memory holds after sharing as before. */
#include "harness.h"

/* Has the peer touch all of it, so that it is shared now. */
static long share_now(struct peer *p, char *source, size_t size)
{
	long addr = share(p, source, size);

	EXPECT_EQ(r_verify(p, addr, (long)size, 1), 0);
	return addr;
}

/* What a child finds at an address: a byte, or a negated signal. */
static long in_child(char *address)
{
	int pipes[2], status;
	long found = 0;
	pid_t pid;

	EXPECT_EQ(pipe(pipes), 0);
	fflush(NULL);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		found = peek((long)address);
		_exit(write(pipes[1], &found, sizeof found) != sizeof found);
	}
	EXPECT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(read(pipes[0], &found, sizeof found), (long)sizeof found);
	close(pipes[0]);
	close(pipes[1]);
	return found;
}

/* Sixteen pages: a setting is made for the second and the seventh, alone. */
static char *two_of_sixteen(int advice)
{
	char *source = anonymous(16 * PAGE);

	fill(source, 16 * PAGE, 1);
	if (advice) {
		EXPECT_EQ(madvise(source + PAGE, PAGE, advice), 0);
		EXPECT_EQ(madvise(source + 6 * PAGE, PAGE, advice), 0);
	}
	return source;
}

static void expect_in_child(char *source, long special)
{
	for (int i = 0; i < 16; i++) {
		char *at = source + i * PAGE;

		EXPECT_EQ(in_child(at), i == 1 || i == 6 ? special : (unsigned char)*at);
	}
}

CASE(wiped_on_fork_after, "memory that is wiped in children is wiped when that is said after it was shared")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(0);
	long addr = share_now(&p, source, 16 * PAGE);

	EXPECT_EQ(madvise(source + PAGE, PAGE, MADV_WIPEONFORK), 0);
	EXPECT_EQ(madvise(source + 6 * PAGE, PAGE, MADV_WIPEONFORK), 0);
	expect_in_child(source, 0);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	/* Moved, it is private memory again and wiped still. */
	source = mremap(source, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, anonymous(16 * PAGE));
	EXPECT(source != MAP_FAILED);
	expect_in_child(source, 0);
	EXPECT_EQ(madvise(source, 16 * PAGE, MADV_KEEPONFORK), 0);
	EXPECT_EQ(in_child(source + PAGE), (unsigned char)source[PAGE]);
	EXPECT_EQ(in_child(source + 6 * PAGE), (unsigned char)source[6 * PAGE]);
	quit(&p);
}

CASE(kept_from_children_after, "memory that children are not to have is absent when that is said after it was shared")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(0);
	long addr = share_now(&p, source, 16 * PAGE);

	EXPECT_EQ(madvise(source + PAGE, PAGE, MADV_DONTFORK), 0);
	EXPECT_EQ(madvise(source + 6 * PAGE, PAGE, MADV_DONTFORK), 0);
	expect_in_child(source, -SIGSEGV);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	EXPECT_EQ(madvise(source, 2 * PAGE, MADV_DOFORK), 0);
	EXPECT_EQ(in_child(source + PAGE), (unsigned char)source[PAGE]);
	EXPECT_EQ(in_child(source + 6 * PAGE), -SIGSEGV);
	quit(&p);
}
