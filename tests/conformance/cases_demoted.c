/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls that want private memory, while a peer stores to it. */
#include "harness.h"
#include "../stress/rawsys.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#define PAGES 512L
#define ROUNDS 20
#define MREMAP_DONTUNMAP 4

/* Adds to a word of each page in turn, until the owner says so; how often. */
static long f_add(long addr, long over, long c, long d)
{
	long n = 0;

	(void)c, (void)d;
	while (!__atomic_load_n((int *)over, __ATOMIC_ACQUIRE))
		__atomic_add_fetch((long *)(addr + n++ % PAGES * PAGE), 1, __ATOMIC_RELAXED);
	return n;
}

static void removed(char *at)
{
	EXPECT_ERR(madvise(at, PAGES * PAGE, MADV_REMOVE), EINVAL);
}

static int faults = -1;

static void watched(char *at)
{
	struct uffdio_register arg = { { (unsigned long)at, PAGES * PAGE }, UFFDIO_REGISTER_MODE_MISSING, 0 };

	EXPECT_EQ(ioctl(faults, UFFDIO_REGISTER, &arg), 0);
	EXPECT_EQ(ioctl(faults, UFFDIO_UNREGISTER, &arg.range), 0);
}

/* What the peer has added is all there in the end, whatever the owner calls meanwhile. */
static void add_beside(function adds, void (*call_it)(char *), int flags)
{
	int *over = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *buffer = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	struct peer p = spawn();
	long addr, stores, found = 0;

	EXPECT(buffer != MAP_FAILED);
	memset(buffer, 0, PAGES * PAGE);
	addr = r_attach(&p, r_get(&p, make_all(), XPMEM_RDWR), (long)buffer, PAGES * PAGE);
	EXPECT(addr > 0);
	start(&p, adds, addr, (long)over, 0, 0);
	for (int i = 0; i < ROUNDS; i++) {
		usleep(20000);
		call_it(buffer);
	}
	__atomic_store_n(over, 1, __ATOMIC_RELEASE);
	stores = finish(&p);
	EXPECT(stores > 0 && !FAULTED(stores));
	for (long i = 0; i < PAGES; i++)
		found += *(long *)(buffer + i * PAGE);
	EXPECT_EQ(found, stores);
	quit(&p);
}

CASE(demoted_removed, "nothing is lost that a peer stores while the owner's MADV_REMOVE is refused")
{
	add_beside(f_add, removed, MAP_PRIVATE);
}

/* The same, where what is there cannot be shared for a moment: those stores fail. */
static long f_add_where_it_is(long addr, long over, long c, long d)
{
	long n = 0, stores = 0;

	(void)c, (void)d;
	while (!__atomic_load_n((int *)over, __ATOMIC_ACQUIRE)) {
		long done = add_to(addr + n++ % PAGES * PAGE, 1);

		stores += !FAULTED(done);
	}
	return stores;
}

static void moved(char *at)
{
	char *away = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	EXPECT(mremap(at, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away);
	EXPECT(mremap(away, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at);
}

CASE(demoted_moved, "nothing is lost that a peer stores before the owner's memory moves away and back")
{
	add_beside(f_add_where_it_is, moved, MAP_PRIVATE);
}

CASE(demoted_watched, "nothing is lost that a peer stores while the owner watches its memory by a userfaultfd")
{
	faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	struct uffdio_api api_of = { UFFD_API, 0, 0 };

	if (faults < 0 || ioctl(faults, UFFDIO_API, &api_of))
		skip_case("no userfaultfd");
	add_beside(f_add_where_it_is, watched, MAP_PRIVATE);
}

static char *move_pages_out(char *at, size_t size)
{
	char *away = mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	if (away == MAP_FAILED)
		skip_case("no MREMAP_DONTUNMAP of this memory");
	return away;
}

static long f_child(long addr, long value, long c, long d)
{
	(void)c, (void)d;
	return peek(addr) == value && poke(addr, 9) == 0 && peek(addr) == 9 ? 0 : 1;
}

CASE(demoted_place_left, "the place that mremap(MREMAP_DONTUNMAP) leaves is shared memory as before: inherited, dropped, unmapped")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE), *away;
	long addr;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	away = move_pages_out(source, 8 * PAGE);
	for (long i = 0; i < 8; i++) {
		EXPECT_EQ(source[i * PAGE], 0);
		source[i * PAGE] = 1;
		EXPECT_EQ(r_peek(&p, addr + i * PAGE), 1);
	}
	EXPECT_EQ(run_in_child(f_child, (long)source, 1, 0, 0), 0);
	EXPECT_EQ(source[0], 1);
	EXPECT_EQ(madvise(source + PAGE, PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(source[PAGE], 0);
	EXPECT_EQ(r_peek(&p, addr + PAGE), 0);
	EXPECT_ERR(remap_file_pages(source + 2 * PAGE, PAGE, 0, 0, 0), EINVAL);
	EXPECT_EQ(source[2 * PAGE], 1);
	EXPECT_EQ(mprotect(source + 3 * PAGE, PAGE, PROT_READ), 0);
	EXPECT(FAULTED(r_poke(&p, addr + 3 * PAGE, 2)));
	EXPECT_EQ(munmap(source + 4 * PAGE, PAGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr + 4 * PAGE)));
	EXPECT_EQ(verify((long)away, 8 * PAGE, 1), 0);
	quit(&p);
}

/* Memory of a file, filled with 1, that a peer has mapped and read at `addr`. */
static char *lent_file(struct peer *p, size_t size, int *fd, long *addr)
{
	char *source;

	*fd = memfd_create("conformance", MFD_CLOEXEC);
	EXPECT_EQ(ftruncate(*fd, (off_t)size), 0);
	source = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	EXPECT(source != MAP_FAILED);
	fill(source, size, 1);
	*addr = share(p, source, size);
	EXPECT_EQ(r_verify(p, *addr, size, 1), 0);
	return source;
}

CASE(demoted_file_left, "a file at the place that mremap(MREMAP_DONTUNMAP) leaves is taken back from peers when that is unmapped")
{
	struct peer p = spawn();
	long addr;
	int fd;
	char *source = lent_file(&p, 8 * PAGE, &fd, &addr), *away;

	away = move_pages_out(source, 8 * PAGE);
	EXPECT_EQ(verify((long)away, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(munmap(source, 8 * PAGE), 0);
	EXPECT(FAULTED(r_peek(&p, addr)));
	EXPECT(FAULTED(r_poke(&p, addr + PAGE, 5)));
	EXPECT_EQ(verify((long)away, 8 * PAGE, 1), 0);
	quit(&p);
}

static void moved_out(char *at)
{
	char *away = move_pages_out(at, PAGES * PAGE);

	/* What has been stored since is added to what was there. */
	for (long i = 0; i < PAGES; i++)
		__atomic_add_fetch((long *)(at + i * PAGE), *(long *)(away + i * PAGE), __ATOMIC_RELAXED);
	EXPECT_EQ(munmap(away, PAGES * PAGE), 0);
}

CASE(demoted_moved_out, "nothing is lost that a peer stores while mremap(MREMAP_DONTUNMAP) takes the pages")
{
	add_beside(f_add_where_it_is, moved_out, MAP_PRIVATE);
}

/* The same memory once more, behind itself: a ring whose ends meet. */
static char *ring_of(char *room, size_t size, int with_second)
{
	if (!with_second)
		return mmap(room, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return mremap(room, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, room + size);
}

static void expect_ring(char *ring, size_t size)
{
	for (size_t i = 0; i < size; i += PAGE) {
		ring[i]++;
		EXPECT_EQ(ring[size + i], ring[i]);
		ring[size + i] += 2;
		EXPECT_EQ(ring[i], ring[size + i]);
	}
}

/* A peer that may see it sees what is there; it may be told that it may not. */
static void expect_seen(struct peer *p, char *ring, size_t size)
{
	long addr = r_attach(p, r_get(p, make_all(), XPMEM_RDWR), (long)ring, 2 * size), seen;

	if (addr == -1)
		return;
	seen = r_peek(p, addr + size + PAGE);
	EXPECT(FAULTED(seen) || seen == (unsigned char)ring[PAGE]);
	if (r_poke(p, addr + PAGE, 77) == 0)
		EXPECT_EQ(ring[size + PAGE], 77);
	expect_ring(ring, size);
}

CASE(demoted_twice, "shared memory that mremap maps at a second place is one memory, shared before or after")
{
	size_t size = 16 * PAGE;
	struct peer p = spawn(), q = spawn();

	setenv("XPMEM_WAIT", "0", 1);
	for (int after = 0; after < 2; after++) {
		struct peer *who = after ? &q : &p;
		char *room = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char *ring = ring_of(room, size, 0);

		EXPECT(ring == room);
		fill(ring, size, 1);
		if (after) {
			long addr = share(who, ring, size);

			EXPECT_EQ(r_verify(who, addr, size, 1), 0);
			EXPECT_EQ(r_fill(who, addr, size, 2), 0);
		}
		EXPECT(ring_of(room, size, 1) == room + size);
		EXPECT_EQ(verify((long)ring + size, size, after ? 2 : 1), 0);
		expect_ring(ring, size);
		expect_seen(who, ring, size);
	}
	quit(&p);
	quit(&q);
}

CASE(demoted_not_twice, "private memory that is shared is mapped at no second place, as before")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long addr;

	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_ERR(mremap(source, 0, 4 * PAGE, MREMAP_MAYMOVE), EINVAL);
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	quit(&p);
}

CASE(demoted_shared_away, "shared anonymous memory is one with a child's also after mremap has moved it")
{
	struct peer p = spawn();
	char *source = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *away;
	long addr;

	EXPECT(source != MAP_FAILED);
	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	away = move_pages_out(source, 4 * PAGE);
	EXPECT_EQ(verify((long)away, 4 * PAGE, 1), 0);
	EXPECT_EQ(verify((long)source, 4 * PAGE, 1), 0);
	EXPECT_EQ(madvise(away, 4 * PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(verify((long)away, 4 * PAGE, 1), 0);
	EXPECT_EQ(run_in_child(f_child, (long)away, *away, 0, 0), 0);
	EXPECT_EQ(*away, 9);
	EXPECT_EQ(*source, 9);
	quit(&p);
}

CASE(demoted_shared_moved, "shared anonymous memory that is moved past libc is one with a child's, and MADV_DONTNEED keeps it")
{
	struct peer p = spawn();
	char *source = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *away = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long addr, flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	EXPECT(source != MAP_FAILED && away != MAP_FAILED);
	fill(source, 4 * PAGE, 1);
	addr = share(&p, source, 4 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(raw6(SYS_mremap, (long)source, 4 * PAGE, 4 * PAGE, flags, (long)away, 0), (long)away);
	EXPECT_EQ(verify((long)away, 4 * PAGE, 1), 0);
	EXPECT_EQ(madvise(away, 4 * PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(verify((long)away, 4 * PAGE, 1), 0);
	EXPECT_EQ(run_in_child(f_child, (long)away, *away, 0, 0), 0);
	EXPECT_EQ(*away, 9);
	EXPECT(FAULTED(r_peek(&p, addr)));
	quit(&p);
}

CASE(demoted_file_moved, "a file of which a part is lent to a peer moves as one, also where nothing else was ever shared")
{
	struct peer p = spawn();
	char *source, *away = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd, prot = PROT_READ | PROT_WRITE;
	long addr;

	source = lent_file(&p, 8 * PAGE, &fd, &addr);
	/* The same pages, and another mapping for whoever watches the first. */
	EXPECT(mmap(source + 4 * PAGE, 4 * PAGE, prot, MAP_SHARED | MAP_FIXED, fd, 4 * PAGE) == source + 4 * PAGE);
	EXPECT(mremap(source, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away);
	EXPECT_EQ(verify((long)away, 8 * PAGE, 1), 0);
	EXPECT(FAULTED(r_peek(&p, addr)));
	EXPECT(FAULTED(r_peek(&p, addr + 5 * PAGE)));
	quit(&p);
}
