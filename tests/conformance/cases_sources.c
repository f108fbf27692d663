/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every kind of memory that a program may want to share. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <sys/syscall.h>

#include <pthread.h>
#include <sys/shm.h>

/* Shares [p, p + size) and checks both ways, twice. */
static void both_ways(char *p, size_t size)
{
	struct peer peer = spawn();
	long addr;

	fill(p, size, 1);
	addr = share(&peer, p, size);
	EXPECT_EQ(r_verify(&peer, addr, size, 1), 0);
	EXPECT_EQ(r_fill(&peer, addr, size, 2), 0);
	EXPECT_EQ(verify((long)p, size, 2), 0);
	fill(p, size, 3);
	EXPECT_EQ(r_verify(&peer, addr, size, 3), 0);
	quit(&peer);
	EXPECT_EQ(verify((long)p, size, 3), 0);
}

CASE(source_malloc_small, "a small malloc on the brk heap")
{
	char *p = malloc(1000);

	both_ways(p, 1000);
	free(p);
	EXPECT(malloc(100000) != NULL);
}

CASE(source_malloc_large, "a large malloc, which mmaps")
{
	char *p = malloc(3 << 20);

	both_ways(p, 3 << 20);
	free(p);
}

static char data_variable[40000] = { 1, 2, 3 };
static char bss_variable[40000];

CASE(source_data, ".data of the program")
{
	both_ways(data_variable, sizeof data_variable);
}

CASE(source_bss, ".bss of the program")
{
	both_ways(bss_variable, sizeof bss_variable);
}

static const char constant[3 * 4096] __attribute__((aligned(4096))) = { 5, 6, 7 };

CASE(source_rodata, "constants can be read, not written")
{
	struct peer p = spawn();
	long addr = share(&p, (void *)constant, sizeof constant);

	EXPECT_EQ(r_peek(&p, addr + 1), 6);
	EXPECT(FAULTED(r_poke(&p, addr + 1, 9)));
	EXPECT_EQ(*(volatile const char *)(constant + 1), 6);
	quit(&p);
}

static __attribute__((noinline)) void on_stack(void)
{
	/* Deep enough to be clear of the frames below, which run meanwhile. */
	char buffer[64 * 1024];

	both_ways(buffer, sizeof buffer);
}

CASE(source_main_stack, "a buffer on the main stack")
{
	on_stack();
}

static __attribute__((noinline)) void registered_on_stack(void)
{
	char room[64 * PAGE];
	char *buffer = (char *)(((long)room + 24 * PAGE) & -(long)PAGE);

	/* As programs do for a device, or verbs for them: a mapping of its own. */
	EXPECT_EQ(madvise(buffer, 8 * PAGE, MADV_DONTFORK), 0);
	both_ways(buffer, 8 * PAGE);
	EXPECT_EQ(madvise(buffer, 8 * PAGE, MADV_DOFORK), 0);
}

CASE(source_registered_stack, "a part of the main stack that children do not get, with the stack's end below it")
{
	registered_on_stack();
}

static void *thread_body(void *unused)
{
	on_stack();
	return unused;
}

CASE(source_thread_stack, "a buffer on a thread's stack")
{
	pthread_t thread;

	EXPECT_EQ(pthread_create(&thread, NULL, thread_body, NULL), 0);
	EXPECT_EQ(pthread_join(thread, NULL), 0);
}

static void *arena_body(void *unused)
{
	char *p = malloc(50000);

	both_ways(p, 50000);
	free(p);
	return unused;
}

CASE(source_thread_arena, "a malloc in a thread's arena")
{
	pthread_t thread;

	EXPECT_EQ(pthread_create(&thread, NULL, arena_body, NULL), 0);
	EXPECT_EQ(pthread_join(thread, NULL), 0);
}

CASE(source_huge, "4 MiB aligned to 2 MiB, huge pages wished for")
{
	char *p = anonymous(6 << 20);

	p = (char *)(((long)p + (2 << 20) - 1) & -(2l << 20));
	madvise(p, 4 << 20, MADV_HUGEPAGE);
	both_ways(p, 4 << 20);
}

static int scratch_file(size_t size)
{
	char path[256];
	const char *folder = getenv("TMPDIR");
	int fd;

	snprintf(path, sizeof path, "%s/xpmem-conformance-XXXXXX", folder ? folder : "/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		skip_case("cannot make a file in TMPDIR");
	unlink(path);
	EXPECT_EQ(ftruncate(fd, size), 0);
	return fd;
}

static void shared_file(int fd, size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *again = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	EXPECT(p != MAP_FAILED && again != MAP_FAILED);
	both_ways(p, size);
	/* It must still be the file. */
	EXPECT_EQ(verify((long)again, size, 3), 0);
	close(fd);
}

CASE(source_shared_file, "MAP_SHARED of a file, which stays that file")
{
	shared_file(scratch_file(8 * PAGE), 8 * PAGE);
}

CASE(source_shared_file_later_offset, "MAP_SHARED of a file from an offset")
{
	struct peer p = spawn();
	int fd = scratch_file(16 * PAGE);
	char *whole = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *part = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 8 * PAGE);
	long addr;

	EXPECT(whole != MAP_FAILED && part != MAP_FAILED);
	fill(whole, 16 * PAGE, 1);
	addr = share(&p, part, 4 * PAGE);
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(r_peek(&p, addr + i * PAGE), (unsigned char)whole[(8 + i) * PAGE]);
	EXPECT_EQ(r_poke(&p, addr + 9, 0x12), 0);
	EXPECT_EQ((unsigned char)whole[8 * PAGE + 9], 0x12);
	quit(&p);
}

CASE(source_shared_file_detached, "MAP_SHARED of a file: a detach leaves nothing of it, nor does the owner's end")
{
	int fd = scratch_file(8 * PAGE);
	char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct peer owner = spawn(), p = spawn();
	long segid, apid, addr, other;

	EXPECT(m != MAP_FAILED);
	fill(m, 8 * PAGE, 1);
	segid = call(&owner, f_make_all, 0, 0, 0);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, (long)m, 8 * PAGE);
	other = r_attach(&p, apid, (long)m, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, other, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_detach(&p, addr), 0);
	EXPECT_EQ(call(&p, f_mapped, addr, 0, 0), 0);
	kill_peer(&owner);
	for (int i = 0; i < 1000 && r_peek(&p, other) >= 0; i++)
		usleep(5000);
	EXPECT_EQ(r_peek(&p, other), -SIGBUS);
	EXPECT_EQ(r_detach(&p, other), 0);
	EXPECT_EQ(call(&p, f_mapped, other, 0, 0), 0);
	quit(&p);
}

CASE(source_private_file, "MAP_PRIVATE of a file: the owner's copy, not the file's")
{
	int fd = scratch_file(8 * PAGE);
	char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	char byte = 1;

	EXPECT(p != MAP_FAILED);
	both_ways(p, 8 * PAGE);
	EXPECT_EQ(pread(fd, &byte, 1, 0), 1);
	EXPECT_EQ(byte, 0);
}

CASE(source_private_file_untouched, "MAP_PRIVATE of a file, read by the peer before the owner")
{
	struct peer p = spawn();
	int fd = scratch_file(4 * PAGE);
	char *m, page[PAGE], byte;
	long addr;

	fill(page, PAGE, 1);
	EXPECT_EQ(pwrite(fd, page, PAGE, PAGE), PAGE);
	m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	addr = share(&p, m, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr + PAGE, PAGE, 1), 0);
	EXPECT_EQ(r_poke(&p, addr + PAGE, 0x19), 0);
	EXPECT_EQ((unsigned char)m[PAGE], 0x19);
	EXPECT_EQ(pread(fd, &byte, 1, PAGE), 1);
	EXPECT_EQ((unsigned char)byte, (unsigned char)page[0]);
	quit(&p);
}

CASE(source_memfd, "MAP_SHARED of a memfd")
{
	int fd = memfd_create("conformance", MFD_CLOEXEC);

	EXPECT(fd >= 0 && ftruncate(fd, 8 * PAGE) == 0);
	shared_file(fd, 8 * PAGE);
}

CASE(source_posix_shm, "MAP_SHARED of a POSIX shared memory object")
{
	char name[64];
	int fd;

	snprintf(name, sizeof name, "/dev/shm/xpmem-conformance-%d", (int)getpid());
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		skip_case("no /dev/shm here");
	unlink(name);
	EXPECT_EQ(ftruncate(fd, 8 * PAGE), 0);
	shared_file(fd, 8 * PAGE);
}

CASE(source_sysv_shm, "a System V segment")
{
	int id = shmget(IPC_PRIVATE, 8 * PAGE, IPC_CREAT | 0600);
	char *p, *again;

	if (id < 0)
		skip_case("no System V shared memory here");
	p = shmat(id, NULL, 0);
	again = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	EXPECT(p != (void *)-1 && again != (void *)-1);
	both_ways(p, 8 * PAGE);
	EXPECT_EQ(verify((long)again, 8 * PAGE, 3), 0);
}

CASE(source_shared_anonymous, "MAP_SHARED|MAP_ANONYMOUS that nobody else has")
{
	struct peer p = spawn();
	char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long addr;

	EXPECT(m != MAP_FAILED);
	fill(m, 8 * PAGE, 1);
	addr = share(&p, m, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)m, 8 * PAGE, 2), 0);
	fill(m, 8 * PAGE, 3);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 3), 0);
	quit(&p);
}

CASE(source_shared_anonymous_family, "MAP_SHARED|MAP_ANONYMOUS that a child has too: all three, or SIGBUS")
{
	char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct peer peer = spawn(), child = spawn();
	long addr, seen;

	EXPECT(m != MAP_FAILED);
	fill(m, 8 * PAGE, 1);
	addr = share(&peer, m, 8 * PAGE);
	seen = r_peek(&peer, addr);
	if (seen == -SIGBUS) {
		/* A refusal must be whole, and harmless. */
		EXPECT_EQ(r_fill(&child, (long)m, 8 * PAGE, 2), 0);
		EXPECT_EQ(verify((long)m, 8 * PAGE, 2), 0);
		skip_case("memory that relatives share is refused here, as documented");
	}
	EXPECT_EQ(r_verify(&peer, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&peer, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)m, 8 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&child, (long)m, 8 * PAGE, 2), 0);
	EXPECT_EQ(r_fill(&child, (long)m, 8 * PAGE, 3), 0);
	EXPECT_EQ(r_verify(&peer, addr, 8 * PAGE, 3), 0);
	EXPECT_EQ(verify((long)m, 8 * PAGE, 3), 0);
	quit(&peer);
	quit(&child);
}

CASE(source_shared_anonymous_moved, "MAP_SHARED|MAP_ANONYMOUS that a child had too, moved past libc: its pages are there")
{
	char *m = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *to = anonymous(8 * PAGE);
	struct peer p = spawn(), child = spawn();
	long addr, segid;

	EXPECT(m != MAP_FAILED);
	fill(m, 8 * PAGE, 1);
	segid = make_all();
	addr = r_attach(&p, r_get(&p, segid, XPMEM_RDWR), (long)m, 8 * PAGE);
	if (r_peek(&p, addr) == -SIGBUS)
		skip_case("memory that relatives share is refused here, as documented");
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	/* The peers have it, too: nobody is to when it is touched again. */
	EXPECT_EQ(call(&child, f_munmap, m, 8 * PAGE, 0), 0);
	EXPECT_EQ(call(&p, f_munmap, m, 8 * PAGE, 0), 0);
	EXPECT((char *)raw6(SYS_mremap, (long)m, 8 * PAGE, 8 * PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED, (long)to, 0) == to);
	addr = r_attach(&p, r_get(&p, segid, XPMEM_RDWR), (long)to, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)to, 8 * PAGE, 2), 0);
	quit(&p);
	quit(&child);
}

CASE(source_mixed, "one window over private, shared, read-only memory and holes")
{
	struct peer p = spawn();
	char *base = anonymous(16 * PAGE);
	int fd = scratch_file(4 * PAGE);
	long addr;

	EXPECT(mmap(base + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
	       MAP_FAILED);
	munmap(base + 8 * PAGE, 2 * PAGE);
	fill(base, 8 * PAGE, 1);
	fill(base + 10 * PAGE, 6 * PAGE, 2);
	mprotect(base + 12 * PAGE, 2 * PAGE, PROT_READ);
	addr = share(&p, base, 16 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr + 10 * PAGE, 6 * PAGE, 2), 0);
	EXPECT_EQ(r_peek(&p, addr + 9 * PAGE), -SIGBUS);
	EXPECT(FAULTED(r_poke(&p, addr + 13 * PAGE, 1)));
	EXPECT_EQ(r_fill(&p, addr, 8 * PAGE, 3), 0);
	EXPECT_EQ(verify((long)base, 8 * PAGE, 3), 0);
	quit(&p);
}

CASE(source_stack_grows, "the main stack still grows after part of it was shared")
{
	volatile char deep[2 << 20];

	on_stack();
	deep[0] = 1;
	deep[sizeof deep / 2] = 2;
	EXPECT_EQ(deep[0] + deep[sizeof deep / 2], 3);
}

CASE(source_mlocked, "locked memory can be shared and stays locked")
{
	char *p = anonymous(8 * PAGE);
	char line[256];
	long before = -1, after = -1;
	FILE *status;

	if (mlock(p, 8 * PAGE))
		skip_case("may not lock memory");
	for (int i = 0; i < 2; i++) {
		status = fopen("/proc/self/status", "r");
		EXPECT(status != NULL);
		while (fgets(line, sizeof line, status))
			sscanf(line, "VmLck: %ld", i ? &after : &before);
		fclose(status);
		if (i == 0)
			both_ways(p, 8 * PAGE);
	}
	EXPECT(before >= 32);
	EXPECT(after >= before);
}

static long locked_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *status = fopen("/proc/self/status", "r");

	if (!status)
		return -1;
	while (fgets(line, sizeof line, status))
		sscanf(line, "VmLck: %ld", &kib);
	fclose(status);
	return kib;
}

CASE(source_mlocked_changes, "shared locked memory is locked after mprotect, and MADV_DONTNEED is refused")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long before, addr;

	if (mlock(source, 8 * PAGE))
		skip_case("may not lock memory");
	before = locked_kib();
	EXPECT(before >= 32);
	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT(madvise(source, 8 * PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(mprotect(source, 4 * PAGE, PROT_READ), 0);
	EXPECT_EQ(locked_kib(), before);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(locked_kib(), before);
	EXPECT_EQ(munlock(source, 8 * PAGE), 0);
	EXPECT_EQ(locked_kib(), before - 32);
	quit(&p);
}

/* Shares a buffer at each of several depths, each a good deal below the last. */
static void deeper(struct peer *p, long apid, int levels)
{
	volatile char room[300 * 1024];
	char *source = (char *)(((long)room + PAGE) & -(long)PAGE);
	long addr;

	fill(source, 64 * PAGE, levels);
	addr = r_attach(p, apid, (long)source, 64 * PAGE);
	EXPECT(addr != -1);
	EXPECT_EQ(r_verify(p, addr, 64 * PAGE, levels), 0);
	if (levels > 0)
		deeper(p, apid, levels - 1);
	EXPECT_EQ(r_fill(p, addr, 64 * PAGE, levels + 7), 0);
	EXPECT_EQ(verify((long)source, 64 * PAGE, levels + 7), 0);
	EXPECT_EQ(r_detach(p, addr), 0);
}

CASE(main_stack_grows_on, "the main stack goes on growing below what is shared of it")
{
	struct peer p = spawn();
	long apid = r_get(&p, make_all(), XPMEM_RDWR);

	for (int i = 1; i <= 10; i++)
		deeper(&p, apid, i);
	quit(&p);
}
