/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What may be attached, and what its attachment is to others: files, what nobody may
 * write, a userfaultfd's, one's own memory, other attachments, system calls.
 */
#include "range.h"
#include <sys/uio.h>
#include <linux/userfaultfd.h>

static long r_file(long prot, long flags, long mode)
{
	int fd = memfd_create("t", 0), use = fd;
	char path[64];
	long addr;

	if (mode == 1) {
		close(fd);
		snprintf(path, sizeof(path), "/tmp/source-%d", getuid());
		fd = use = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	}
	for (int i = 0; i < PAGES; i++) {
		long v = 1000 + i;

		if (pwrite(fd, &v, 8, i * PAGE) != 8)
			return -errno;
	}
	if (ftruncate(fd, SIZE))
		return -errno;
	if (!(prot & PROT_WRITE)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		use = open(path, O_RDONLY);
	}
	addr = (long)mmap((void *)BASE, SIZE, prot, flags | MAP_FIXED, use, 0);
	return addr == BASE ? fd : -errno;
}
static long r_pread(long fd, long off, long c)
{
	long v = BAD;

	return pread(fd, &v, 8, off) == 8 ? v : BAD;
}
static long r_trunc(long fd, long size, long c) { return ftruncate(fd, size); }
static long r_close(long fd, long b, long c) { return close(fd); }

static void files(void)
{
	for (int disk = 0; disk < 2; disk++) {
		long fd = CALL(&owner, r_file, PROT_READ | PROT_WRITE, MAP_SHARED, disk);
		char *p = att(BASE, SIZE);

		CHECK(fd >= 0 && all(p, PAGES, 1000));
		CHECK(wr(p + PAGE, 5) == 0 && CALL(&owner, r_pread, fd, PAGE, 0) == 5);
		/* Truncated, and grown again. */
		CALL(&owner, r_trunc, fd, 4 * PAGE, 0);
		CHECK(val(p) == 1000 && rd(p + 4 * PAGE, NULL) == SIGBUS && rd(p + SIZE - 8, NULL) == SIGBUS);
		CALL(&owner, r_trunc, fd, SIZE, 0);
		CHECK(val(p + 4 * PAGE) == 0);
		CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);

		/* Private: a write is the owner's copy, never the file's. */
		fd = CALL(&owner, r_file, PROT_READ | PROT_WRITE, MAP_PRIVATE, disk);
		p = att(BASE, SIZE);
		CHECK(all(p, PAGES, 1000) && wr(p + PAGE, 6) == 0);
		CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 6 && CALL(&owner, r_pread, fd, PAGE, 0) == 1001);
		CALL(&owner, r_put, BASE + 2 * PAGE, 7, 0);
		CHECK(val(p + 2 * PAGE) == 7);
		CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);
	}
}

/* Sources that nobody may write: an attacher with RDWR may not either. */
static void read_only_sources(void)
{
	static const struct { int prot, flags, disk; } kind[] = {
		{ PROT_READ, MAP_SHARED, 0 }, { PROT_READ, MAP_PRIVATE, 0 },
		{ PROT_READ, MAP_SHARED, 1 }, { PROT_READ | PROT_EXEC, MAP_PRIVATE, 1 },
	};
	long text = (long)r_sum & ~(PAGE - 1), mine;
	char *p;

	for (int k = 0; k < 4; k++) {
		long fd = CALL(&owner, r_file, kind[k].prot, kind[k].flags, kind[k].disk);

		p = att(BASE, SIZE);
		CHECK(fd >= 0 && all(p, PAGES, 1000));
		CHECK(wr(p + PAGE, 5) == SIGBUS && val(p + PAGE) == 1001);
		CHECK(wr(p + 60 * PAGE, 5) == SIGBUS);
		CHECK(CALL(&owner, r_pread, fd, PAGE, 0) == 1001);
		CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);
	}
	/* Program text, which other processes share. */
	p = att(text, PAGE);
	mine = *(long *)text;
	CHECK(val(p) == mine && wr(p, 0) == SIGBUS && *(volatile long *)text == mine);
	CHECK(x_detach(p) == 0);
}

/* The owner's own faults go to a userfaultfd, in a thread of the owner's. */
static int uffd = -1;
static void *uffd_serve(void *arg)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	struct uffd_msg m;

	while (read(uffd, &m, sizeof(m)) == sizeof(m)) {
		long at = m.arg.pagefault.address & ~(PAGE - 1);
		struct uffdio_copy c = { .dst = at, .src = (long)page, .len = PAGE };

		if (m.event != UFFD_EVENT_PAGEFAULT)
			break;
		*(long *)page = 3000 + (at - BASE) / PAGE;
		usleep(1000);
		ioctl(uffd, UFFDIO_COPY, &c);
	}
	return NULL;
}
static long r_uffd(long addr, long size, long c)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { { addr, size }, UFFDIO_REGISTER_MODE_MISSING };
	pthread_t t;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	return -pthread_create(&t, NULL, uffd_serve, NULL);
}

static void userfault_source(void)
{
	char *p;

	own(SIZE, 0);
	if (CALL(&owner, r_uffd, BASE, SIZE, 0)) {
		CALL(&owner, r_unmap, BASE, SIZE, 0);
		SKIP("no userfaultfd");
	}
	p = att(BASE, SIZE);
	CHECK(all(p, PAGES, 3000));
	CHECK(wr(p, 1) == 0 && CALL(&owner, r_val, BASE, 0, 0) == 1);
	finish(p, SIZE);
}

static void self_attach(void)
{
	char *m = mmap((void *)BASE, 2 * HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), *p;
	long s = x_make(m, 2 * HUGE, 0600), a = x_get(s, RW);

	p = (char *)x_attach(a, 0, 2 * HUGE);
	NEED((long)p > 0);
	r_fill((long)m, 2 * HUGE / PAGE, 1);
	CHECK(all(p, 2 * HUGE / PAGE, 1));
	CHECK(wr(p, 5) == 0 && *(volatile long *)m == 5);
	madvise(m, HUGE, MADV_DONTNEED);
	CHECK(val(p) == 0 && wr(p + PAGE, 6) == 0 && ((volatile long *)m)[PAGE / 8] == 6);
	munmap(m, PAGE);
	CHECK(rd(p, NULL) == SIGBUS && val(p + PAGE) == 6);
	CHECK(x_release(a) == 0 && x_remove(s) == 0);
	munmap(m, 2 * HUGE);
}

/* Attachments are not sources. */
static void no_chain(void)
{
	char *p = start(SIZE, 0), *q;
	long s = x_make(NULL, MAXADDR, 0600), a = x_get(s, RW);

	NEED((long)p > 0);
	q = (char *)x_attach(a, (long)p, SIZE);
	CHECK((long)q > 0 && rd(q, NULL) == SIGBUS && wr(q, 1) == SIGBUS);
	CHECK(val(p) == 1000);
	CHECK(x_release(a) == 0 && x_remove(s) == 0);
	finish(p, SIZE);
}

static long r_attach_back(long seg, long offset, long size)
{
	long a = x_get(seg, RW);

	return a < 0 ? a : x_attach_at(a, offset, size, (void *)BASE);
}

/* Two processes that attach each other's attachment: revoking must end. */
static void ring(void)
{
	char *p = att(BASE, SIZE);
	long s = x_make(NULL, MAXADDR, 0600);

	NEED((long)p > 0);
	CHECK(CALL(&owner, r_attach_back, s, p, SIZE) == BASE);
	CHECK(rd(p, NULL) == SIGBUS);
	CHECK(CALL(&owner, r_val, BASE, 0, 0) == BAD);
	CHECK(munmap(p + PAGE, PAGE) == 0);
	CHECK(mprotect(p, PAGE, PROT_READ) == 0);
	CHECK(CALL(&owner, r_protect, BASE, PAGE, PROT_READ) == 0);
	CHECK(CALL(&owner, r_unmap, BASE, SIZE, 0) == 0);
	CHECK(x_detach(p) == 0 && x_remove(s) == 0);
}

/* System calls on attached memory, and a debugger. */
static void calls_on(long flags)
{
	char *p = start(SIZE, flags), path[64];
	long v = 0;
	int fds[2], fd;

	NEED((long)p > 0);
	CHECK(pipe(fds) == 0);
	CHECK(write(fds[1], p + PAGE, 8) == 8 && read(fds[0], &v, 8) == 8 && v == 1001);
	v = 66;
	CHECK(write(fds[1], &v, 8) == 8 && read(fds[0], p + PAGE, 8) == 8);
	CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 66);
	/* get_user_pages() is refused; so it was with every XPMEM. */
	struct iovec local = { &v, 8 }, remote = { p, 8 };

	CHECK(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == -1 && errno == EFAULT);
	remote.iov_len = PAGE;
	CHECK(vmsplice(fds[1], &remote, 1, 0) == -1 && errno == EFAULT);
	CHECK(syscall(SYS_futex, p, 1, 1, NULL, NULL, 0) == -1 && errno == EFAULT);
	close(fds[0]);
	close(fds[1]);
	/* vm_ops->access: read, write, and not past what the owner may. */
	snprintf(path, sizeof(path), "/proc/%d/mem", getpid());
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK(pread(fd, &v, 8, (long)p + 2 * PAGE) == 8 && v == 1002);
	v = 67;
	CHECK(pwrite(fd, &v, 8, (long)p + 2 * PAGE) == 8 && val(p + 2 * PAGE) == 67);
	CALL(&owner, r_protect, BASE, SIZE, PROT_READ);
	CHECK(pwrite(fd, &v, 8, (long)p + 3 * PAGE) != 8 && val(p + 3 * PAGE) == 1003);
	close(fd);
	finish(p, SIZE);
}

static void system_calls(void)
{
	calls_on(0);
	calls_on(MAP_SHARED);
}

/* A debugger is the first to touch them, and what it may not write it does not. */
static void untouched_by_owner(void)
{
	int mem = open("/proc/self/mem", O_RDWR);

	for (int k = 0; k < 3; k++) {
		long fd = -1, v = 5, zero = 1;
		char *p;

		if (k < 2)
			CHECK(own(SIZE, k ? MAP_SHARED : 0) == BASE);
		else
			CHECK((fd = CALL(&owner, r_file, PROT_READ | PROT_WRITE, MAP_SHARED, 0)) >= 0);
		p = att(BASE, SIZE);
		CHECK(pread(mem, &zero, 8, (long)p + PAGE) == 8 && zero == (k < 2 ? 0 : 1001));
		CHECK(pwrite(mem, &v, 8, (long)p + PAGE) == 8 && pwrite(mem, &v, 8, (long)p + 2 * PAGE) == 8);
		CHECK(CALL(&owner, r_val, BASE + PAGE, 0, 0) == 5 && CALL(&owner, r_val, BASE + 2 * PAGE, 0, 0) == 5);
		/* Across a page's end. */
		v = 0x0102030405060708;
		CHECK(pwrite(mem, &v, 8, (long)p + 4 * PAGE - 4) == 8);
		CHECK(CALL(&owner, r_val, BASE + 4 * PAGE - 4, 0, 0) == v);
		CALL(&owner, r_unmap, BASE + 6 * PAGE, PAGE, 0);
		CHECK(pread(mem, &v, 8, (long)p + 6 * PAGE) == -1);
		if (fd >= 0)
			CALL(&owner, r_close, fd, 0, 0);
		finish(p, SIZE);
	}
	close(mem);
}

int main(void)
{
	if (owner_begin())
		return 1;
	RUN(files);
	RUN(read_only_sources);
	RUN(userfault_source);
	RUN(self_attach);
	RUN(no_chain);
	RUN(ring);
	RUN(system_calls);
	RUN(untouched_by_owner);
	return owner_end();
}
