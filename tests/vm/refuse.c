/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Memory that nobody gets by attaching, with what the attacher sees instead;
 * and errors of the owner's memory as what they are.
 */
#include "owner.h"
#include <sys/personality.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif

static char *att(long addr, long size) { return (char *)x_attach(apid, addr, size); }

static long r_secret(long addr, long b, long c)
{
	int fd = syscall(447, 0);	/* memfd_secret */

	if (fd < 0 || ftruncate(fd, 2 * PAGE))
		return -errno;
	if (mmap((void *)addr, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != (void *)addr)
		return -errno;
	*(volatile long *)addr = 4711;
	return 0;
}

static void secret_memory(void)
{
	char *p, path[64];
	long v;
	int fd;

	if (CALL(&owner, r_secret, BASE, 0, 0))
		SKIP("no memfd_secret()");
	/* Ordinary memory beside it, in the same window. */
	CALL(&owner, r_map, BASE + 2 * PAGE, 2 * PAGE, 0);
	CALL(&owner, r_fill, BASE + 2 * PAGE, 2, 5);
	p = att(BASE, 4 * PAGE);
	CHECK(val(p + 2 * PAGE) == 5);
	CHECK(rd(p, NULL) == SIGBUS && wr(p, 1) == SIGBUS && rd(p + PAGE, NULL) == SIGBUS);
	/* Nor by the attacher's debugger. */
	snprintf(path, sizeof(path), "/proc/self/mem");
	fd = open(path, O_RDONLY);
	CHECK(pread(fd, &v, 8, (long)p + 2 * PAGE) == 8 && v == 5);
	CHECK(pread(fd, &v, 8, (long)p) < 0);
	close(fd);
	CHECK(CALL(&owner, r_val, BASE, 0, 0) == 4711);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 4 * PAGE, 0);
}

static long r_shadow(long a, long b, long c)
{
	long p = syscall(453, 0, 2 * PAGE, 1);	/* map_shadow_stack */

	return p < 0 ? -errno : p;
}

static void shadow_stack(void)
{
	long at = CALL(&owner, r_shadow, 0, 0, 0);
	char *p;

	if (at < 0)
		SKIP("no shadow stacks");
	p = att(at, 2 * PAGE);
	CHECK(rd(p, NULL) == SIGBUS && wr(p + PAGE, 1) == SIGBUS);
	CHECK(x_detach(p) == 0);
}

static long mapped_as(pid_t pid, const char *name)
{
	char line[256], path[64];
	unsigned long from = 0, found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, name) && sscanf(line, "%lx-", &from) == 1)
			found = from;
	if (f)
		fclose(f);
	return found;
}

/* What a driver or the kernel maps without pages of its own. */
static void without_pages(void)
{
	long at = mapped_as(owner.pid, "[vvar]");
	char *p;

	if (!at)
		SKIP("no vvar");
	p = att(at, PAGE);
	CHECK(rd(p, NULL) == SIGBUS);
	CHECK(x_detach(p) == 0);
}

/* Below the stack there is nothing, and the kernel says nothing of it. */
static void below_the_stack(void)
{
	long at = mapped_as(owner.pid, "[stack]");
	char *p;

	NEED(at > 0);
	p = att(at - 64 * PAGE, 65 * PAGE);
	for (int i = 1; i < 64; i++)
		CHECK(rd(p + i * PAGE, NULL) == SIGBUS && wr(p + i * PAGE, 1) == SIGBUS);
	CHECK(rd(p + 64 * PAGE, NULL) == 0);
	CHECK(mapped_as(owner.pid, "[stack]") == at);
	CHECK(x_detach(p) == 0);
	CHECK(system("dmesg | grep -E 'GUP no longer|grows the stack'") != 0);
}

static long r_exec_only(long addr, long b, long c)
{
	return mmap((void *)addr, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)addr;
}

/* Write access is a mapping's, however many lie in one window. */
static void beside_each_other(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 8 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 8, 1);
	CALL(&owner, r_protect, BASE + 2 * PAGE, 2 * PAGE, PROT_READ);
	CALL(&owner, r_exec_only, BASE + 5 * PAGE, 0, 0);
	p = att(BASE, 8 * PAGE);
	CHECK(wr(p, 11) == 0 && val(p + PAGE) == 2);
	for (int i = 0; i < 8; i++) {
		int sig = i == 5 ? SIGBUS : 0;

		CHECK(rd(p + i * PAGE, NULL) == sig);
		CHECK(wr(p + i * PAGE, 20 + i) == (i == 2 || i == 3 ? SIGBUS : sig));
	}
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 8 * PAGE, 0);
}

static long r_short_file(long addr, long b, long c)
{
	int fd = memfd_create("short", 0);
	long ok = ftruncate(fd, PAGE) == 0 &&
		  mmap((void *)addr, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == (void *)addr;

	return ok ? fd : -errno;
}

static void beyond_the_file(void)
{
	long fd = CALL(&owner, r_short_file, BASE, 0, 0);
	char *p = att(BASE, 4 * PAGE);

	CHECK(wr(p, 1) == 0 && rd(p + PAGE, NULL) == SIGBUS && wr(p + 3 * PAGE, 1) == SIGBUS);
	CHECK(CALL(&owner, ftruncate, fd, 4 * PAGE, 0) == 0);
	CHECK(wr(p + PAGE, 2) == 0 && val(p + 3 * PAGE) == 0);
	CHECK(CALL(&owner, ftruncate, fd, PAGE, 0) == 0);
	CHECK(rd(p + PAGE, NULL) == SIGBUS && val(p) == 1);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 4 * PAGE, 0);
	CALL(&owner, close, fd, 0, 0);
}

/* A marker in the place of a page: an error, once. */
static void guard_markers(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 4 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 4, 1);
	p = att(BASE, 4 * PAGE);
	CHECK(val(p + PAGE) == 2);
	if (CALL(&owner, r_madvise, BASE + PAGE, PAGE, MADV_GUARD_INSTALL)) {
		x_detach(p);
		CALL(&owner, r_unmap, BASE, 4 * PAGE, 0);
		SKIP("no MADV_GUARD_INSTALL");
	}
	CHECK(rd(p + PAGE, NULL) == SIGBUS && wr(p + PAGE, 1) == SIGBUS);
	CHECK(val(p) == 1 && wr(p + 2 * PAGE, 7) == 0);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 4 * PAGE, 0);
}

static volatile int bus_code;
static void *volatile bus_addr;
static sigjmp_buf bus_jmp;
static void on_bus(int sig, siginfo_t *info, void *context)
{
	bus_code = info->si_code;
	bus_addr = info->si_addr;
	siglongjmp(bus_jmp, 1);
}

/* The kernel tells who poisons his own page, too. */
static long r_poison(long addr, long b, long c)
{
	long ret;

	if (sigsetjmp(t_jmp, 1))
		return 0;
	t_armed = 1;
	ret = r_madvise(addr, PAGE, MADV_HWPOISON);
	t_armed = 0;
	return ret;
}

static void poisoned(void)
{
	struct sigaction sa = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	char *p;
	long v;

	if (getuid())
		SKIP("needs root");
	CALL(&owner, r_map, BASE, 8 * PAGE, 0);
	CALL(&owner, r_madvise, BASE, 8 * PAGE, MADV_NOHUGEPAGE);
	CALL(&owner, r_fill, BASE, 8, 1);
	p = att(BASE, 8 * PAGE);
	CHECK(val(p + 3 * PAGE) == 4);
	/* Its page is another one afterwards. */
	if (CALL(&owner, r_madvise, BASE + 5 * PAGE, PAGE, MADV_SOFT_OFFLINE) == 0)
		CHECK(val(p + 5 * PAGE) == 6 && wr(p + 5 * PAGE, 66) == 0 &&
		      CALL(&owner, r_val, BASE + 5 * PAGE, 0, 0) == 66);
	v = CALL(&owner, r_poison, BASE + 3 * PAGE, 0, 0);
	if (v) {
		printf("  MADV_HWPOISON: %ld\n", v);
		x_detach(p);
		CALL(&owner, r_unmap, BASE, 8 * PAGE, 0);
		SKIP("no MADV_HWPOISON");
	}
	sigaction(SIGBUS, &sa, NULL);
	bus_code = 0;
	if (!sigsetjmp(bus_jmp, 0))
		(void)*(volatile long *)(p + 3 * PAGE + 8);
	t_catch();
	printf("  SIGBUS code %d, address +%lx\n", bus_code, (long)((char *)bus_addr - p));
	CHECK(bus_code == 4 /* BUS_MCEERR_AR */ && ((long)bus_addr & -PAGE) == (long)p + 3 * PAGE);
	CHECK(val(p + 2 * PAGE) == 3 && val(p + 4 * PAGE) == 5);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 8 * PAGE, 0);
}

/* Old programs whose readable memory is executable may attach. */
static long r_old_program(long seg, long b, long c)
{
	long a, p, v;

	if (personality(READ_IMPLIES_EXEC) == -1)
		return -errno;
	a = x_get(seg, RW);
	p = x_attach(a, BASE, PAGE);
	v = p > 0 ? val((void *)p) : p;
	/* But not execute what it attached. */
	if (p > 0 && mprotect((void *)p, PAGE, PROT_READ | PROT_EXEC) == 0)
		return -1;
	x_release(a);
	return v;
}

static void read_implies_exec(void)
{
	struct peer p = peer_start();

	CALL(&owner, r_map, BASE, PAGE, 0);
	CALL(&owner, r_fill, BASE, 1, 77);
	CHECK(CALL(&p, r_old_program, segid, 0, 0) == 77);
	peer_stop(&p);
	CALL(&owner, r_unmap, BASE, PAGE, 0);
}

#ifdef __aarch64__
/* Tagged addresses, as munmap() takes them. */
static void tagged_addresses(void)
{
	char *m = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long tag = 0x5aL << 56, s, a, p;

	prctl(55 /* PR_SET_TAGGED_ADDR_CTRL */, 1, 0, 0, 0);
	s = x_make((void *)((long)m | tag), 2 * PAGE, 0666);
	CHECK(s > 0);
	a = x_get(s, RW);
	p = x_attach(a, 0, PAGE);
	CHECK(wr((void *)p, 5) == 0 && val(m) == 5);
	CHECK(x_detach((void *)(p | tag)) == 0 && rd((void *)p, NULL) == SIGSEGV);
	x_release(a);
	x_remove(s);
	munmap(m, 2 * PAGE);
}
#endif

int main(void)
{
	if (owner_begin())
		return 1;
	RUN(secret_memory);
	RUN(shadow_stack);
	RUN(without_pages);
	RUN(below_the_stack);
	RUN(beside_each_other);
	RUN(beyond_the_file);
	RUN(guard_markers);
	RUN(poisoned);
	RUN(read_implies_exec);
#ifdef __aarch64__
	RUN(tagged_addresses);
#endif
	return owner_end();
}
