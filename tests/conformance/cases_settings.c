/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a program has said about its memory holds after sharing as before. */
#include "harness.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

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

/* Says so of the two of them, once they are shared. */
static void set_two(char *source, int advice)
{
	EXPECT_EQ(madvise(source + PAGE, PAGE, advice), 0);
	EXPECT_EQ(madvise(source + 6 * PAGE, PAGE, advice), 0);
}

/* Moves sixteen pages that are several mappings to the kernel. */
static char *move_sixteen(char *from)
{
	char *to = mremap(from, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, anonymous(16 * PAGE));

	if (to == MAP_FAILED && errno == EFAULT && backend != BACKEND_USER)
		skip_case("this kernel moves one mapping at a time");
	EXPECT(to != MAP_FAILED);
	return to;
}

CASE(wiped_on_fork_after, "memory that is wiped in children is wiped when that is said after it was shared")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(0);
	long addr = share_now(&p, source, 16 * PAGE);

	set_two(source, MADV_WIPEONFORK);
	expect_in_child(source, 0);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	/* Moved, it is private memory again and wiped still. */
	source = move_sixteen(source);
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

	set_two(source, MADV_DONTFORK);
	expect_in_child(source, -SIGSEGV);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	EXPECT_EQ(madvise(source, 2 * PAGE, MADV_DOFORK), 0);
	EXPECT_EQ(in_child(source + PAGE), (unsigned char)source[PAGE]);
	EXPECT_EQ(in_child(source + 6 * PAGE), -SIGSEGV);
	quit(&p);
}

CASE(wiped_on_fork_before, "memory that is wiped in children is wiped when it is shared after that was said")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(MADV_WIPEONFORK);
	char *alone = anonymous(3 * PAGE);

	/* As libraries of cryptography have it: a page of its own. */
	EXPECT_EQ(munmap(alone, PAGE), 0);
	EXPECT_EQ(munmap(alone + 2 * PAGE, PAGE), 0);
	alone += PAGE;
	fill(alone, PAGE, 1);
	EXPECT_EQ(madvise(alone, PAGE, MADV_WIPEONFORK), 0);
	share_now(&p, source, 16 * PAGE);
	expect_in_child(source, 0);
	share_now(&p, alone, PAGE);
	EXPECT_EQ(in_child(alone), 0);
	EXPECT_EQ(in_child(alone), 0);
	/* What is mapped there later is not. */
	EXPECT_EQ(munmap(alone, PAGE), 0);
	EXPECT_EQ(mmap(alone, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), (long)alone);
	fill(alone, PAGE, 1);
	share_now(&p, alone, PAGE);
	EXPECT_EQ(in_child(alone), (unsigned char)*alone);
	quit(&p);
}

CASE(kept_from_children_before, "memory that children are not to have is absent when it is shared after that was said")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(MADV_DONTFORK);

	share_now(&p, source, 16 * PAGE);
	expect_in_child(source, -SIGSEGV);
	quit(&p);
}

/* Whether the kernel's flags of the mapping at an address have this one. */
static int has_flag(const char *address, const char *flag)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	char line[512];
	int inside = 0, found = 0;

	EXPECT(file != NULL);
	while (!found && fgets(line, sizeof line, file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr(line, '-') < strchr(line, ' '))
			inside = start <= (unsigned long)address && (unsigned long)address < end;
		else if (inside && !strncmp(line, "VmFlags:", 8)) {
			char *at = strstr(line, flag);

			found = at ? 1 : -1;
		}
	}
	fclose(file);
	return found > 0;
}

/* An advice holds when it was given before sharing, after it, and at the place
 * where the memory moves to. */
static void expect_kept(int advice, const char *flag, int opposite)
{
	struct peer p = spawn();
	char *before = two_of_sixteen(0), *after = two_of_sixteen(0), *moved;

	if (madvise(before + PAGE, PAGE, advice))
		skip_case("the kernel does not know this advice");
	EXPECT(has_flag(before + PAGE, flag) && !has_flag(after + PAGE, flag));
	share_now(&p, before, 16 * PAGE);
	EXPECT(has_flag(before + PAGE, flag) && !has_flag(before, flag) && !has_flag(before + 2 * PAGE, flag));
	share_now(&p, after, 16 * PAGE);
	EXPECT(!has_flag(after + PAGE, flag));
	EXPECT_EQ(madvise(after + PAGE, PAGE, advice), 0);
	EXPECT(has_flag(after + PAGE, flag) && !has_flag(after + 2 * PAGE, flag));
	for (int i = 0; i < 2; i++) {
		char *old = i ? after : before;

		moved = move_sixteen(old);
		EXPECT(moved != old);
		EXPECT_EQ(verify((long)moved, 16 * PAGE, 1), 0);
		EXPECT(has_flag(moved + PAGE, flag) && !has_flag(moved + 2 * PAGE, flag));
	}
	share_now(&p, moved, 16 * PAGE);
	EXPECT_EQ(madvise(moved, 16 * PAGE, opposite), 0);
	EXPECT(!has_flag(moved + PAGE, flag));
	quit(&p);
}

CASE(kept_hugepage, "MADV_HUGEPAGE is kept")
{
	expect_kept(MADV_HUGEPAGE, "hg", MADV_NOHUGEPAGE);
}

CASE(kept_nohugepage, "MADV_NOHUGEPAGE is kept")
{
	expect_kept(MADV_NOHUGEPAGE, "nh", MADV_HUGEPAGE);
}

CASE(kept_dontdump, "MADV_DONTDUMP is kept")
{
	expect_kept(MADV_DONTDUMP, "dd", MADV_DODUMP);
}

CASE(kept_sequential, "MADV_SEQUENTIAL is kept")
{
	expect_kept(MADV_SEQUENTIAL, "sr", MADV_NORMAL);
}

CASE(kept_random, "MADV_RANDOM is kept")
{
	expect_kept(MADV_RANDOM, "rr", MADV_NORMAL);
}

CASE(kept_in_child, "a child's copy has the settings of its parent's memory")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(MADV_DONTDUMP);
	int status;
	pid_t pid;

	share_now(&p, source, 16 * PAGE);
	fflush(NULL);
	pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0)
		_exit(!has_flag(source + PAGE, "dd") || has_flag(source + 2 * PAGE, "dd"));
	EXPECT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	quit(&p);
}

CASE(kept_locked, "what is locked stays locked, with its other settings")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(MADV_DONTDUMP);

	if (mlock(source, 8 * PAGE))
		skip_case("may not lock memory");
	share_now(&p, source, 16 * PAGE);
	EXPECT(has_flag(source, "lo") && has_flag(source + PAGE, "lo") && !has_flag(source + 8 * PAGE, "lo"));
	EXPECT(has_flag(source + PAGE, "dd") && !has_flag(source, "dd"));
	EXPECT_EQ(munlock(source, 16 * PAGE), 0);
	EXPECT(!has_flag(source, "lo"));
	quit(&p);
}

CASE(kept_policy, "the NUMA policy of a mapping is kept")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(0), *moved;
	unsigned long nodes = 1;
	int mode = -1;

	if (syscall(SYS_mbind, source + PAGE, PAGE, 2 /* MPOL_BIND */, &nodes, 64, 0))
		skip_case("may not set a policy");
	share_now(&p, source, 16 * PAGE);
	EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, NULL, 0, source + PAGE, 2), 0);
	EXPECT_EQ(mode, 2);
	EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, NULL, 0, source + 2 * PAGE, 2), 0);
	EXPECT_EQ(mode, 0);
	moved = move_sixteen(source);
	EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, NULL, 0, moved + PAGE, 2), 0);
	EXPECT_EQ(mode, 2);
	/* What is mapped in its place has none. */
	source = mmap(source, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	fill(source, 16 * PAGE, 1);
	share_now(&p, source, 16 * PAGE);
	EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, NULL, 0, source + PAGE, 2), 0);
	EXPECT_EQ(mode, 0);
	quit(&p);
}

/* A userfaultfd of the program's own, for faults in user mode. */
static int watcher(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		skip_case("no userfaultfd");
	return fd;
}

static int watch(int fd, char *source, size_t size)
{
	struct uffdio_register r = { .range = { (unsigned long)source, size }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	return ioctl(fd, UFFDIO_REGISTER, &r);
}

CASE(watched_before, "memory that a userfaultfd of the owner's watches is not shared, and stays watched")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(0);
	int fd = watcher();
	long addr, apid;

	if (backend != BACKEND_USER)
		skip_case("the module needs no watch of its own");
	EXPECT_EQ(watch(fd, source, 8 * PAGE), 0);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	/* A peer that asks for so little is told at once. */
	EXPECT_EQ(r_attach(&p, apid, (long)source, 8 * PAGE), -1);
	addr = r_attach(&p, apid, (long)source + 8 * PAGE, 8 * PAGE);
	EXPECT_EQ(r_peek(&p, addr), (unsigned char)source[8 * PAGE]);
	EXPECT(has_flag(source, "um") && !has_flag(source + 8 * PAGE, "um"));
	EXPECT_EQ(verify((long)source, 16 * PAGE, 1), 0);
	/* When it is not watched any more it can be. */
	close(fd);
	addr = r_attach(&p, apid, (long)source, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 16 * PAGE, 1), 0);
	quit(&p);
}

CASE(watched_after, "a userfaultfd of the owner's can watch memory that has been shared")
{
	struct peer p = spawn();
	char *source = two_of_sixteen(0);
	long addr = share_now(&p, source, 16 * PAGE);
	int fd = watcher();

	if (backend != BACKEND_USER)
		skip_case("the module needs no watch of its own");
	EXPECT_EQ(watch(fd, source, 8 * PAGE), 0);
	EXPECT(has_flag(source, "um"));
	EXPECT_EQ(verify((long)source, 16 * PAGE, 1), 0);
	EXPECT(FAULTED(r_peek(&p, addr)));
	EXPECT_EQ(r_peek(&p, addr + 8 * PAGE), (unsigned char)source[8 * PAGE]);
	EXPECT_ERR(ioctl(fd, UFFDIO_REGISTER, (void *)8), EFAULT);
	quit(&p);
}
