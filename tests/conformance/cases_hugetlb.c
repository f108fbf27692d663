/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory on pages of hugetlbfs is served as such, at the owner and at the peer. */
#include "harness.h"

#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>

#ifndef MFD_HUGE_1GB
#define MFD_HUGE_1GB (30u << 26)
#endif
#define HUGE (2ul << 20)
#define PAGES 3
#define SIZE (PAGES * HUGE)
#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static long pool(const char *what)
{
	char path[128];

	snprintf(path, sizeof path, POOL "%s", what);
	return number_in(path);
}

/* A file of that size on huge pages; skips the case where there is none. */
static int file_on_huge_pages(size_t size)
{
	int fd = memfd_create("hugetlb", MFD_HUGETLB | MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size))
		skip_case("no files on hugetlb pages");
	return fd;
}

static int set_pool(long n)
{
	FILE *text = fopen(POOL "nr_hugepages", "w");
	int done = text && fprintf(text, "%ld\n", n) > 0;

	if (text && fclose(text))
		done = 0;
	return done && pool("nr_hugepages") >= n;
}

static long pool_before = -1;
static pid_t who;

static void give_back(void)
{
	if (getpid() == who)
		set_pool(pool_before);
}

/* As many huge pages are free from here to the end of the case; nobody else counts them
 * meanwhile who asks here. */
static void need_pages(long n)
{
	int lock = open(POOL "nr_hugepages", O_RDONLY | O_CLOEXEC);

	if (lock < 0 || flock(lock, LOCK_EX))
		skip_case("no hugetlb pages");
	pool_before = pool("nr_hugepages");
	who = getpid();
	if (pool("free_hugepages") - pool("resv_hugepages") >= n)
		return;
	atexit(give_back);
	if (!set_pool(pool_before + n))
		skip_case("no hugetlb pages, and none to be had");
}

/* Whoever closes a file last gives its pages back, and that may be a service, which
 * nobody waits for. */
static void expect_free(long n)
{
	for (int i = 0; i < 6000 && pool("free_hugepages") != n; i++)
		usleep(10000);
	EXPECT_EQ(pool("free_hugepages"), n);
}

/* The size in KiB of the kernel's pages at an address. */
static long page_kib(long address, long b, long c, long d)
{
	FILE *text = fopen("/proc/self/smaps", "r");
	unsigned long start = 0, end = 0;
	char line[512];
	long kib, found = 0;

	(void)b, (void)c, (void)d;
	while (text && fgets(line, sizeof line, text)) {
		char *dash = strchr(line, '-'), *space = strchr(line, ' ');

		if (dash && space && dash < space && sscanf(line, "%lx-%lx ", &start, &end) == 2)
			continue;
		if (start <= (unsigned long)address && (unsigned long)address < end &&
		    sscanf(line, "KernelPageSize: %ld", &kib) == 1)
			found = kib;
	}
	if (text)
		fclose(text);
	return found;
}

enum kind { MEMFD, ANONYMOUS, SEGMENT, FILE_OF_FS };

static int file = -1;

/* Nobody but the mappings holds the file. To root the mapping is enough. */
static void close_file(void)
{
	if (file >= 0)
		close(file);
	file = -1;
}

/* Owner's memory of a kind; skips where there is none. */
static char *memory_of(enum kind kind, size_t size)
{
	int flags = MAP_SHARED, fd = -1, id;
	char path[] = "/tmp/xpmem-hugetlb-XXXXXX", name[64];
	char *memory;

	if (kind == SEGMENT) {
		id = shmget(IPC_PRIVATE, size, SHM_HUGETLB | IPC_CREAT | 0600);
		if (id < 0)
			skip_case("may not have segments on hugetlb pages");
		memory = shmat(id, NULL, 0);
		shmctl(id, IPC_RMID, NULL);
	} else {
		if (kind == MEMFD) {
			fd = memfd_create("hugetlb", MFD_HUGETLB | MFD_CLOEXEC);
		} else if (kind == FILE_OF_FS) {
			if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || !mkdtemp(path) ||
			    mount("none", path, "hugetlbfs", 0, "pagesize=2M"))
				skip_case("may not mount hugetlbfs");
			snprintf(name, sizeof name, "%s/file", path);
			fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
			EXPECT(fd >= 0);
			EXPECT_EQ(umount2(path, MNT_DETACH), 0);
			rmdir(path);
		} else {
			flags |= MAP_ANONYMOUS | MAP_HUGETLB;
		}
		if (kind != ANONYMOUS && (fd < 0 || ftruncate(fd, (off_t)size)))
			skip_case("no files on hugetlb pages");
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
		file = fd;
		if (is_root())
			close_file();
	}
	EXPECT(memory != MAP_FAILED);
	return memory;
}

static void expect_both_ways(struct peer *p, char *memory, long addr, size_t size)
{
	fill(memory, size, 1);
	EXPECT_EQ(r_verify(p, addr, (long)size, 1), 0);
	EXPECT_EQ(r_fill(p, addr, (long)size, 2), 0);
	EXPECT_EQ(verify((long)memory, size, 2), 0);
}

/* Reads a file past the page cache to an address: what is there is pinned meanwhile. */
static long read_direct(long to, long b, long c, long d)
{
	char path[] = "/var/tmp/xpmem-direct-XXXXXX";
	int fd = mkstemp(path);
	long done = 0;
	char *page = anonymous(PAGE);

	(void)b, (void)c, (void)d;
	memset(page, 'd', PAGE);
	if (fd < 0 || write(fd, page, PAGE) != (long)PAGE || fsync(fd))
		done = -1;
	unlink(path);
	if (done == 0 && (fcntl(fd, F_SETFL, O_DIRECT) || pread(fd, (void *)to, PAGE, 0) != (long)PAGE))
		done = errno == EFAULT ? -2 : -1;
	close(fd);
	munmap(page, PAGE);
	return done;
}

static int may_lock_less_than(size_t size)
{
	struct rlimit limit;

	return !is_root() && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < size;
}

static long lock_there(long addr, long size, long c, long d)
{
	(void)c, (void)d;
	return mlock((void *)addr, (size_t)size);
}

static void expect_served(enum kind kind)
{
	struct peer p = spawn();
	long addr, pinned;
	char *memory;
	pid_t child;
	int status;
	long free_before;

	need_pages(PAGES);
	free_before = pool("free_hugepages");
	memory = memory_of(kind, SIZE);
	addr = share(&p, memory, SIZE);
	expect_both_ways(&p, memory, addr, SIZE);
	EXPECT_EQ(page_kib((long)memory, 0, 0, 0), HUGE >> 10);
	if (backend == BACKEND_USER)
		EXPECT_EQ(call(&p, page_kib, addr, 0, 0), HUGE >> 10);
	/* Not a page more than the owner has. */
	expect_free(free_before - PAGES);
	EXPECT(mlock(memory, SIZE) == 0 || may_lock_less_than(SIZE));
	if (backend == BACKEND_USER && !may_lock_less_than(SIZE))
		EXPECT_EQ(call(&p, lock_there, addr, SIZE, 0), 0);
	pinned = backend == BACKEND_USER ? call(&p, read_direct, addr + HUGE, 0, 0) : -1;
	EXPECT(pinned != -2);
	if (pinned == 0)
		EXPECT_EQ(memory[HUGE + PAGE - 1], 'd');
	pinned = read_direct((long)memory + 2 * HUGE, 0, 0, 0);
	EXPECT(pinned != -2);
	if (pinned == 0)
		EXPECT_EQ(r_peek(&p, addr + 2 * HUGE), 'd');
	/* A child has the same memory, as ever. */
	fflush(NULL);
	child = fork();
	EXPECT(child >= 0);
	if (child == 0) {
		memory[5] = 'c';
		_exit(0);
	}
	EXPECT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(r_peek(&p, addr + 5), 'c');
	EXPECT_EQ(memory[5], 'c');
	EXPECT_EQ(r_detach(&p, addr), 0);
	close_file();
	EXPECT_EQ(kind == SEGMENT ? shmdt(memory) : munmap(memory, SIZE), 0);
	expect_free(free_before);
	quit(&p);
}

CASE(hugetlb_memfd, "a memfd on hugetlb pages")
{
	expect_served(MEMFD);
}

CASE(hugetlb_anonymous, "MAP_SHARED|MAP_ANONYMOUS|MAP_HUGETLB")
{
	if (!is_root() && backend == BACKEND_USER)
		skip_case("only root can open what has no name");
	expect_served(ANONYMOUS);
}

CASE(hugetlb_segment, "a System V segment on hugetlb pages")
{
	expect_served(SEGMENT);
}

CASE(hugetlb_file, "a file of hugetlbfs")
{
	expect_served(FILE_OF_FS);
}

/* Parts of a huge page: the peer has all of it, and finds its bytes where they are. */
static void expect_part(struct peer *p, long apid, char *memory, size_t from, size_t size)
{
	long addr = r_attach(p, apid, (long)memory + (long)from, (long)size);

	EXPECT(addr != -1);
	for (size_t at = 0; at < size; at += PAGE) {
		EXPECT_EQ(r_peek(p, addr + (long)at), (unsigned char)memory[from + at]);
		EXPECT_EQ(r_poke(p, addr + (long)at, (long)(at >> 12) % 250), 0);
		EXPECT_EQ((unsigned char)memory[from + at], (at >> 12) % 250);
	}
	EXPECT_EQ(r_peek(p, addr + (long)size - 1), (unsigned char)memory[from + size - 1]);
	EXPECT_EQ(r_detach(p, addr), 0);
	if (backend == BACKEND_USER)
		EXPECT_EQ(call(p, f_mapped, addr, 0, 0), 0);
	fill(memory, SIZE, 1);
}

CASE(hugetlb_in_part, "an attachment that begins and ends within huge pages")
{
	struct peer p = spawn();
	long apid, free_before;
	char *memory;

	need_pages(PAGES);
	free_before = pool("free_hugepages");
	memory = memory_of(MEMFD, SIZE);
	fill(memory, SIZE, 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT(apid > 0);
	expect_part(&p, apid, memory, 0, PAGE);
	expect_part(&p, apid, memory, HUGE - PAGE, PAGE);
	expect_part(&p, apid, memory, 5 * PAGE, 3 * PAGE);
	expect_part(&p, apid, memory, HUGE - 2 * PAGE, 4 * PAGE);
	expect_part(&p, apid, memory, HUGE / 2, HUGE);
	expect_part(&p, apid, memory, HUGE / 2 + PAGE, SIZE - HUGE);
	expect_part(&p, apid, memory, PAGE, SIZE - PAGE);
	expect_part(&p, apid, memory, 0, SIZE - PAGE);
	expect_part(&p, apid, memory, HUGE, HUGE);
	close_file();
	EXPECT_EQ(munmap(memory, SIZE), 0);
	expect_free(free_before);
	quit(&p);
}

CASE(hugetlb_beside_others, "a window over hugetlb pages and the ordinary memory beside them")
{
	struct peer p = spawn();
	char *around, *memory;
	long apid, addr;
	int fd;

	need_pages(PAGES);
	fd = file_on_huge_pages(HUGE);
	around = anonymous(4 * HUGE);
	memory = around + HUGE + -(unsigned long)around % HUGE;
	EXPECT_EQ(mmap(memory, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), (long)memory);
	fill(around, 4 * HUGE, 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT(apid > 0);
	addr = r_attach(&p, apid, (long)around + PAGE, 4 * HUGE - 2 * PAGE);
	for (size_t at = PAGE; at < 4 * HUGE - PAGE; at += PAGE)
		EXPECT_EQ(r_peek(&p, addr - (long)PAGE + (long)at), (unsigned char)around[at]);
	if (backend == BACKEND_USER)
		EXPECT_EQ(call(&p, page_kib, addr - (long)PAGE + (memory - around), 0, 0), HUGE >> 10);
	/* Its neighbours are what they were. */
	for (size_t at = PAGE; at < 4 * HUGE - PAGE; at += PAGE)
		EXPECT_EQ(r_poke(&p, addr - (long)PAGE + (long)at, 7), 0);
	for (size_t at = PAGE; at < 4 * HUGE - PAGE; at += PAGE)
		EXPECT_EQ(around[at], 7);
	/* A window that ends in the midst of them. */
	addr = r_attach(&p, apid, (long)memory - (long)HUGE / 2, HUGE);
	EXPECT_EQ(r_peek(&p, addr), 7);
	EXPECT_EQ(r_peek(&p, addr + HUGE - PAGE), 7);
	quit(&p);
}

CASE(hugetlb_gigantic, "pages of 1 GiB, as a whole and in part")
{
	struct peer p = spawn();
	unsigned long size = 1ul << 30;
	long apid, addr;
	char *memory;
	int fd = memfd_create("gigantic", MFD_HUGETLB | MFD_HUGE_1GB | MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size))
		skip_case("no pages of 1 GiB");
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		skip_case("no page of 1 GiB is free");
	fill(memory + 5 * HUGE, SIZE, 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT(apid > 0);
	addr = r_attach(&p, apid, (long)memory, (long)size);
	EXPECT_EQ(r_verify(&p, addr + 5 * (long)HUGE, SIZE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr + 5 * (long)HUGE, SIZE, 2), 0);
	EXPECT_EQ(verify((long)memory + 5 * (long)HUGE, SIZE, 2), 0);
	if (backend == BACKEND_USER)
		EXPECT_EQ(call(&p, page_kib, addr, 0, 0), size >> 10);
	EXPECT_EQ(r_detach(&p, addr), 0);
	addr = r_attach(&p, apid, (long)memory + 5 * (long)HUGE + (long)PAGE, HUGE);
	EXPECT_EQ(r_peek(&p, addr), (unsigned char)memory[5 * HUGE + PAGE]);
	addr = r_attach(&p, apid, (long)memory + 5 * (long)HUGE + (long)PAGE, PAGE);
	EXPECT_EQ(r_peek(&p, addr), (unsigned char)memory[5 * HUGE + PAGE]);
	quit(&p);
}

CASE(hugetlb_at_an_address, "at an address of its own choice a peer has whole huge pages, or SIGBUS")
{
	struct peer p = spawn();
	long apid, room, fits;
	char *memory;

	need_pages(PAGES);
	if (backend != BACKEND_USER)
		skip_case("the kernel maps parts");
	memory = memory_of(MEMFD, SIZE);
	fill(memory, SIZE, 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT(apid > 0);
	room = (long)mmap(NULL, 4 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	fits = room + (long)(-(unsigned long)room % HUGE) + (long)HUGE;
	EXPECT_EQ(r_attach_at(&p, apid, (long)memory, SIZE, fits), fits);
	EXPECT_EQ(r_verify(&p, fits, SIZE, 1), 0);
	EXPECT_EQ(r_detach(&p, fits), 0);
	EXPECT_EQ(r_attach_at(&p, apid, (long)memory, SIZE, fits + (long)PAGE), fits + (long)PAGE);
	EXPECT_EQ(r_peek(&p, fits + (long)PAGE), -SIGBUS);
	EXPECT_EQ(r_detach(&p, fits + (long)PAGE), 0);
	/* Parts at the ends are not there, and nothing else is. */
	EXPECT_EQ(r_attach_at(&p, apid, (long)memory + PAGE, SIZE - 2 * PAGE, fits + (long)PAGE), fits + (long)PAGE);
	EXPECT_EQ(r_peek(&p, fits + (long)PAGE), -SIGBUS);
	EXPECT_EQ(r_peek(&p, fits + (long)HUGE), (unsigned char)memory[HUGE]);
	EXPECT_EQ(r_peek(&p, fits + (long)(SIZE - 2 * PAGE)), -SIGBUS);
	EXPECT_EQ(verify((long)memory, SIZE, 1), 0);
	quit(&p);
}

CASE(hugetlb_changes, "what becomes of hugetlb pages at their owner reaches the peer")
{
	struct peer p = spawn();
	char *memory;
	long addr;

	need_pages(PAGES);
	memory = memory_of(MEMFD, SIZE);
	fill(memory, SIZE, 1);
	addr = share(&p, memory, SIZE);
	EXPECT_EQ(r_verify(&p, addr, SIZE, 1), 0);
	/* A page of the file goes from both. */
	EXPECT_EQ(madvise(memory, HUGE, MADV_REMOVE), 0);
	EXPECT_EQ(memory[7], 0);
	EXPECT_EQ(r_peek(&p, addr + 7), 0);
	EXPECT_EQ(munmap(memory + HUGE, HUGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr + HUGE)) && FAULTED(r_peek(&p, addr + 2 * HUGE - PAGE)));
	EXPECT_EQ(r_peek(&p, addr + 2 * HUGE), (unsigned char)memory[2 * HUGE]);
	/* Other memory takes its place. */
	EXPECT_EQ(mmap(memory + 2 * HUGE, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		  (long)memory + (long)(2 * HUGE));
	memory[2 * HUGE] = 'n';
	EXPECT_EQ(r_peek(&p, addr + 2 * HUGE), 'n');
	EXPECT_EQ(r_peek(&p, addr + 2 * HUGE + PAGE), 0);
	/* What is read alone is read alone. */
	EXPECT_EQ(mprotect(memory, HUGE, PROT_READ), 0);
	EXPECT_EQ(r_peek(&p, addr), 0);
	EXPECT(FAULTED(r_poke(&p, addr, 1)));
	quit(&p);
}

static long make_memory(long size, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	char *memory = memory_of(MEMFD, (size_t)size);

	fill(memory, (size_t)size, 1);
	return (long)memory;
}

CASE(hugetlb_owner_ends, "hugetlb pages are free again when owner and peer are done, in any order")
{
	struct peer p = spawn();
	long free_before, source, addr;

	need_pages(PAGES);
	free_before = pool("free_hugepages");
	source = call(&p, make_memory, SIZE, 0, 0);
	addr = attach(get_rw(call(&p, f_make_all, 0, 0, 0)), source, SIZE, 0);
	EXPECT_EQ(verify(addr, SIZE, 1), 0);
	expect_free(free_before - PAGES);
	kill_peer(&p);
	EXPECT_EQ(api->detach((void *)addr), 0);
	expect_free(free_before);
}

CASE(hugetlb_none_left, "where no huge page is left a peer's touch is SIGBUS, and the owner has what it had")
{
	struct peer p = spawn();
	char *memory, *rest;
	long addr, left;
	int fd;

	need_pages(PAGES);
	fd = file_on_huge_pages(SIZE);
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	EXPECT(memory != MAP_FAILED);
	fill(memory, HUGE, 1);
	left = pool("free_hugepages") - pool("resv_hugepages");
	rest = mmap(NULL, (size_t)left * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	EXPECT(rest != MAP_FAILED);
	addr = share(&p, memory, SIZE);
	EXPECT_EQ(r_verify(&p, addr, HUGE, 1), 0);
	EXPECT(FAULTED(r_peek(&p, addr + 2 * HUGE)));
	EXPECT_EQ(verify((long)memory, HUGE, 1), 0);
	EXPECT_EQ(munmap(rest, (size_t)left * HUGE), 0);
	EXPECT_EQ(r_poke(&p, addr + 2 * HUGE, 3), 0);
	EXPECT_EQ(memory[2 * HUGE], 3);
	quit(&p);
}

CASE(hugetlb_private, "private memory on hugetlb pages is refused, and stays as it is")
{
	struct peer p = spawn();
	char *memory;
	long apid, addr;

	need_pages(1);
	if (backend != BACKEND_USER)
		skip_case("the kernel shares it");
	memory = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	EXPECT(memory != MAP_FAILED);
	fill(memory, HUGE, 1);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT_ERR(r_attach(&p, apid, (long)memory, PAGE), ENOMEM);
	addr = share(&p, memory, HUGE);
	EXPECT(FAULTED(r_peek(&p, addr)) && FAULTED(r_peek(&p, addr + HUGE - PAGE)));
	EXPECT_EQ(verify((long)memory, HUGE, 1), 0);
	quit(&p);
}
