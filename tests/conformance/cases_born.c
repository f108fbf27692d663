/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory that is shared from the start, since its size was asked for again and again. */
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define BUFFER (1ul << 20)

/* Whether all of it is a mapping of the file already. */
static int is_born(const char *at, size_t size)
{
	unsigned long lo, hi;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	int found = 0;

	EXPECT(maps);
	while (fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%lx", &lo, &hi) == 2 && lo <= (unsigned long)at &&
		    hi >= (unsigned long)at + size)
			found = strstr(line, "memfd:xpmem") != NULL;
	fclose(maps);
	return found;
}

/* One buffer of a client: made, filled, read and written by the peer, unmapped. */
static void use_among_others(struct peer *p, long apid, size_t size, long seed)
{
	char *buffer = anonymous(size);
	long addr;

	EXPECT_EQ(buffer[0] | buffer[size / 2] | buffer[size - 1], 0);
	fill(buffer, size, seed);
	addr = r_attach(p, apid, (long)buffer, (long)size);
	EXPECT(addr > 0);
	EXPECT_EQ(r_verify(p, addr, (long)size, seed), 0);
	EXPECT_EQ(r_fill(p, addr, (long)size, seed + 1), 0);
	EXPECT_EQ(verify((long)buffer, (long)size, seed + 1), 0);
	EXPECT_EQ(munmap(buffer, size), 0);
	EXPECT_EQ(r_detach(p, addr), 0);
}

/* The same where no other thread maps anything in its place. */
static void use_once(struct peer *p, long apid, size_t size, long seed)
{
	char *buffer = anonymous(size);
	long addr = r_attach(p, apid, (long)buffer, (long)size);

	EXPECT(addr > 0);
	fill(buffer, size, seed);
	EXPECT_EQ(r_verify(p, addr, (long)size, seed), 0);
	EXPECT_EQ(munmap(buffer, size), 0);
	EXPECT(FAULTED(r_peek(p, addr + (long)size / 2)));
	EXPECT_EQ(r_detach(p, addr), 0);
	use_among_others(p, apid, size, seed);
}

static const char *asked_for_by_user(void)
{
	const char *mode = getenv("XPMEM_BORN");

	return mode ? mode : "learned";
}

/* A peer that may attach all, and a buffer that was born shared. */
static char *newborn(struct peer *p, long *apid)
{
	char *buffer;
	long segid;

#ifdef CONFORMANCE_STATIC
	skip_case("a static program's mmap is not met");
#endif
	if (backend != BACKEND_USER || !strcmp(asked_for_by_user(), "off"))
		skip_case("the user back end alone has such memory");
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
	EXPECT(segid > 0);
	*apid = r_get(p, segid, XPMEM_RDWR);
	EXPECT(*apid > 0);
	for (int i = 0; i < 8; i++)
		use_once(p, *apid, BUFFER, i);
	buffer = anonymous(BUFFER);
	/* A busy machine may have it wait too long; then it is learned anew. */
	for (int i = 0; i < 100 && !is_born(buffer, BUFFER); i++) {
		EXPECT_EQ(munmap(buffer, BUFFER), 0);
		use_once(p, *apid, BUFFER, i);
		buffer = anonymous(BUFFER);
	}
	EXPECT(is_born(buffer, BUFFER));
	return buffer;
}

CASE(born_shared, "buffers that are used once are shared from the start, with the bytes of both sides")
{
	struct peer p = spawn();
	long apid;
	char *buffer = newborn(&p, &apid);

	for (size_t i = 0; i < BUFFER; i++)
		EXPECT_EQ(buffer[i], 0);
	EXPECT_EQ(munmap(buffer, BUFFER), 0);
	for (int i = 0; i < 50; i++)
		use_once(&p, apid, BUFFER, 100 + i);
	quit(&p);
}

CASE(born_forgotten, "what is not asked for any more is not shared from the start any more")
{
	struct peer p = spawn();
	long apid;
	char *buffer = newborn(&p, &apid);

	if (strcmp(asked_for_by_user(), "learned"))
		skip_case("all is to be shared from the start");
	EXPECT_EQ(munmap(buffer, BUFFER), 0);
	for (int i = 0; i < 20; i++) {
		buffer = anonymous(BUFFER);
		fill(buffer, BUFFER, i);
		EXPECT_EQ(munmap(buffer, BUFFER), 0);
	}
	buffer = anonymous(BUFFER);
	EXPECT(!is_born(buffer, BUFFER));
	quit(&p);
}

CASE(born_sandboxed, "a program that may ask for the time no more maps memory and forks as ever")
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	struct peer p = spawn();
	long apid;
	char *buffer = newborn(&p, &apid);
	int status;
	pid_t child;

	EXPECT_EQ(munmap(buffer, BUFFER), 0);
	child = fork();
	if (!child) {
		/* It teaches its own service, which the filter does not concern. */
		struct peer other = spawn();

		buffer = newborn(&other, &apid);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
			_exit(1);
		for (int i = 0; i < 8; i++) {
			pid_t grandchild;

			buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			buffer[0] = 1;
			grandchild = fork();
			if (!grandchild)
				_exit(0);
			if (waitpid(grandchild, NULL, 0) != grandchild || munmap(buffer, BUFFER))
				_exit(2);
		}
		_exit(0);
	}
	EXPECT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	quit(&p);
}

CASE(born_seldom, "memory that no peer asks for is never shared from the start")
{
	struct peer p = spawn();
	long segid;

	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
	if (strcmp(asked_for_by_user(), "learned"))
		skip_case("all is to be shared from the start");
	EXPECT(segid > 0);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	for (int i = 0; i < 50; i++) {
		char *buffer = anonymous(BUFFER);

		fill(buffer, BUFFER, i);
		EXPECT(!is_born(buffer, BUFFER));
		EXPECT_EQ(munmap(buffer, BUFFER), 0);
	}
	quit(&p);
}

static long f_child(long buffer, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	if (verify(buffer, BUFFER, 1))
		return 1;
	fill((void *)buffer, BUFFER, 2);
	return verify(buffer, BUFFER, 2) ? 2 : 0;
}

CASE(born_fork, "a child of a fork has a copy of what was born shared, asked for or not")
{
	struct peer p = spawn();
	long apid, addr;
	char *buffer = newborn(&p, &apid);

	fill(buffer, BUFFER, 1);
	EXPECT_EQ(run_in_child(f_child, (long)buffer, 0, 0, 0), 0);
	EXPECT_EQ(verify((long)buffer, BUFFER, 1), 0);
	addr = r_attach(&p, apid, (long)buffer, BUFFER);
	EXPECT_EQ(r_verify(&p, addr, BUFFER, 1), 0);
	EXPECT_EQ(run_in_child(f_child, (long)buffer, 0, 0, 0), 0);
	EXPECT_EQ(r_verify(&p, addr, BUFFER, 1), 0);
	EXPECT_EQ(verify((long)buffer, BUFFER, 1), 0);
	quit(&p);
}

CASE(born_changes, "what the program does to memory that was born shared is as it does to any")
{
	struct peer p = spawn();
	long apid, addr;
	char *buffer = newborn(&p, &apid), *moved;

	fill(buffer, BUFFER, 1);
	addr = r_attach(&p, apid, (long)buffer, BUFFER);
	EXPECT_EQ(r_verify(&p, addr, BUFFER, 1), 0);
	EXPECT_EQ(mprotect(buffer, PAGE, PROT_READ), 0);
	EXPECT(FAULTED(poke((long)buffer, 1)));
	EXPECT(FAULTED(r_poke(&p, addr, 1)));
	EXPECT_EQ(mprotect(buffer, PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(r_verify(&p, addr, BUFFER, 1), 0);
	EXPECT_EQ(mlock(buffer, 4 * PAGE), 0);
	EXPECT_EQ(munlock(buffer, 4 * PAGE), 0);
	EXPECT_EQ(madvise(buffer + 8 * PAGE, 8 * PAGE, MADV_DONTNEED), 0);
	for (size_t i = 8 * PAGE; i < 16 * PAGE; i++)
		EXPECT_EQ(buffer[i], 0);
	EXPECT_EQ(r_peek(&p, addr + 9 * PAGE), 0);
	EXPECT_EQ(verify((long)buffer, 8 * PAGE, 1), 0);
	fill(buffer, BUFFER, 3);
	EXPECT_EQ(munmap(buffer + BUFFER - 16 * PAGE, 16 * PAGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr + (long)(BUFFER - PAGE))));
	moved = mremap(buffer, BUFFER / 2, 2 * BUFFER, MREMAP_MAYMOVE);
	EXPECT(moved != MAP_FAILED);
	EXPECT_EQ(verify((long)moved, BUFFER / 2, 3), 0);
	fill(moved, 2 * BUFFER, 4);
	EXPECT_EQ(verify((long)moved, 2 * BUFFER, 4), 0);
	if (moved != buffer)
		EXPECT(FAULTED(r_peek(&p, addr)));
	quit(&p);
}

CASE(born_raw, "raw system calls of the owner reach the peers of what was born shared")
{
	struct peer p = spawn();
	long apid, addr;
	char *buffer = newborn(&p, &apid), *at;

	fill(buffer, BUFFER, 1);
	addr = r_attach(&p, apid, (long)buffer, BUFFER);
	EXPECT_EQ(r_verify(&p, addr, BUFFER, 1), 0);
	at = buffer + BUFFER / 2;
	EXPECT_EQ(syscall(SYS_munmap, at, PAGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr + (long)BUFFER / 2)));
	EXPECT_EQ(r_verify(&p, addr, BUFFER / 2, 1), 0);
	quit(&p);
}

static void *buffers(void *arg)
{
	for (int i = 0; i < 100; i++) {
		char *buffer = anonymous(BUFFER);

		fill(buffer, BUFFER, (long)arg + i);
		EXPECT_EQ(verify((long)buffer, BUFFER, (long)arg + i), 0);
		EXPECT_EQ(munmap(buffer, BUFFER), 0);
	}
	return NULL;
}

CASE(born_threads, "threads that make and unmap buffers of a learned size have their own bytes")
{
	struct peer p = spawn();
	pthread_t thread[3];
	long apid;
	char *buffer = newborn(&p, &apid);

	fill(buffer, BUFFER, 7);
	for (long i = 0; i < 3; i++)
		EXPECT_EQ(pthread_create(&thread[i], NULL, buffers, (void *)(1000 * (i + 1))), 0);
	for (int i = 0; i < 30; i++)
		use_among_others(&p, apid, BUFFER, i);
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(pthread_join(thread[i], NULL), 0);
	EXPECT_EQ(verify((long)buffer, BUFFER, 7), 0);
	quit(&p);
}

CASE(born_peer_killed, "the end of a peer is nothing to memory that was born shared for it")
{
	struct peer p = spawn(), last = spawn();
	long apid;
	char *buffer = newborn(&p, &apid);

	fill(buffer, BUFFER, 1);
	kill_peer(&p);
	/* Somebody else's end is nothing to it. */
	EXPECT_EQ(verify((long)buffer, BUFFER, 1), 0);
	EXPECT_EQ(munmap(buffer, BUFFER), 0);
	buffer = anonymous(BUFFER);
	fill(buffer, BUFFER, 2);
	EXPECT_EQ(verify((long)buffer, BUFFER, 2), 0);
	quit(&last);
}
