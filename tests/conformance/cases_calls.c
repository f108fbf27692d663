/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Each call that changes what is mapped, made by the owner in three ways: by
 * libc's function, by libc's syscall(), and past libc. The table in
 * docs/memory-calls.md has a cell for each case.
 */
#include "harness.h"
#include "../stress/rawsys.h"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/shm.h>

enum way { LIBC, SYSCALL, RAW };

#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#define MREMAP_DONTUNMAP 4

static long by_libc(long number, const long a[5])
{
	void *p = (void *)a[0];

	switch (number) {
	case SYS_munmap:
		return munmap(p, a[1]);
	case SYS_mmap:
		return (long)mmap(p, a[1], a[2], a[3], a[4], 0);
	case SYS_mremap:
		return (long)mremap(p, a[1], a[2], a[3], (void *)a[4]);
	case SYS_madvise:
		return madvise(p, a[1], a[2]);
	case SYS_mprotect:
		return mprotect(p, a[1], a[2]);
	case SYS_pkey_mprotect:
		return pkey_mprotect(p, a[1], a[2], a[3]);
	case SYS_brk:
		return brk(p);
	case SYS_shmdt:
		return shmdt(p);
	case SYS_shmat:
		return (long)shmat(a[0], (void *)a[1], a[2]);
	case SYS_remap_file_pages:
		return remap_file_pages(p, a[1], a[2], a[3], a[4]);
	case SYS_mlock:
		return mlock(p, a[1]);
	case SYS_munlock:
		return munlock(p, a[1]);
	default:
		fail(__FILE__, __LINE__, "no such call: %ld", number);
	}
}

static long invoke(enum way way, long number, const long a[5])
{
	long answer;

	switch (way) {
	case LIBC:
		return by_libc(number, a);
	case SYSCALL:
		answer = syscall(number, a[0], a[1], a[2], a[3], a[4], 0);
		break;
	default:
		answer = raw6(number, a[0], a[1], a[2], a[3], a[4], 0);
		if (answer < 0 && answer > -4096) {
			errno = -answer;
			return -1;
		}
	}
	/* brk(2) answers where the heap ends. */
	return number == SYS_brk ? (answer == a[0] ? 0 : -1) : answer;
}

#define INVOKE(number, ...) invoke(way, number, (const long[5]){ __VA_ARGS__ })

/* Three cases for one call: they end in _libc, _syscall and _raw. */
#define CELLS(name, what)                                                                 \
	static void body_##name(enum way way);                                            \
	CASE(call_##name##_libc, what ", by libc") { body_##name(LIBC); }                 \
	CASE(call_##name##_syscall, what ", by syscall()") { body_##name(SYSCALL); }      \
	CASE(call_##name##_raw, what ", past libc") { body_##name(RAW); }                 \
	static void body_##name(enum way way)

enum { PAGES = 8, SIZE = PAGES * PAGE };
#define RW (PROT_READ | PROT_WRITE)

/* Memory of the owner that a peer has read and written. */
struct shared {
	struct peer peer;
	char *source;
	long addr;
};

static struct shared begin(char *source)
{
	struct shared s = { .peer = spawn(), .source = source };

	fill(source, SIZE, 1);
	s.addr = share(&s.peer, source, SIZE);
	EXPECT_EQ(r_verify(&s.peer, s.addr, SIZE, 1), 0);
	EXPECT_EQ(r_fill(&s.peer, s.addr, SIZE, 2), 0);
	EXPECT_EQ(verify((long)source, SIZE, 2), 0);
	return s;
}

/* Both sides see the same memory again, whatever became of it. */
static void goes_on(struct shared *s, long first, long pages)
{
	char *p = s->source + first * PAGE;
	long addr = s->addr + first * PAGE;

	fill(p, pages * PAGE, 7);
	EXPECT_EQ(r_verify(&s->peer, addr, pages * PAGE, 7), 0);
	EXPECT_EQ(r_fill(&s->peer, addr, pages * PAGE, 8), 0);
	EXPECT_EQ(verify((long)p, pages * PAGE, 8), 0);
}

static void new_memory(struct shared *s, long first, long pages)
{
	char *p = mmap(s->source + first * PAGE, pages * PAGE, RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	EXPECT(p == s->source + first * PAGE);
	EXPECT_EQ(r_peek(&s->peer, s->addr + first * PAGE), 0);
	goes_on(s, first, pages);
}

CELLS(munmap, "munmap of the middle")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_EQ(INVOKE(SYS_munmap, (long)s.source + 2 * PAGE, 3 * PAGE), 0);
	for (long i = 0; i < PAGES; i++)
		EXPECT_EQ(r_peek(&s.peer, s.addr + i * PAGE),
			  i >= 2 && i < 5 ? -SIGBUS : (long)(unsigned char)s.source[i * PAGE]);
	new_memory(&s, 2, 3);
	quit(&s.peer);
}

CELLS(mmap_fixed, "mmap over the middle")
{
	struct shared s = begin(anonymous(SIZE));
	long at = (long)s.source + 2 * PAGE;

	EXPECT_EQ(INVOKE(SYS_mmap, at, 3 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1), at);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 2 * PAGE), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(mmap_fails, "mmap that fails changes nothing")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_ERR(INVOKE(SYS_mmap, (long)s.source, SIZE, RW, MAP_PRIVATE | MAP_FIXED, -1), EBADF);
	EXPECT_EQ(verify((long)s.source, SIZE, 2), 0);
	EXPECT_EQ(r_verify(&s.peer, s.addr, SIZE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(mremap_away, "mremap to another place")
{
	struct shared s = begin(anonymous(SIZE));
	long to = (long)anonymous(SIZE);

	EXPECT_EQ(INVOKE(SYS_mremap, (long)s.source, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	EXPECT_EQ(verify(to, SIZE, 2), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), -SIGBUS);
	fill((void *)to, SIZE, 3);
	new_memory(&s, 0, PAGES);
	EXPECT_EQ(verify(to, SIZE, 3), 0);
	quit(&s.peer);
}

CELLS(mremap_over, "mremap of other memory over the middle")
{
	struct shared s = begin(anonymous(SIZE));
	char *other = anonymous(2 * PAGE);
	long to = (long)s.source + 2 * PAGE;

	fill(other, 2 * PAGE, 5);
	EXPECT_EQ(INVOKE(SYS_mremap, (long)other, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
	EXPECT_EQ(r_verify(&s.peer, s.addr + 2 * PAGE, 2 * PAGE, 5), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(mremap_less, "mremap that makes it shorter")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_EQ(INVOKE(SYS_mremap, (long)s.source, SIZE, 5 * PAGE, 0), (long)s.source);
	EXPECT_EQ(verify((long)s.source, 5 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&s.peer, s.addr, 5 * PAGE, 2), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 5 * PAGE), -SIGBUS);
	new_memory(&s, 5, 3);
	quit(&s.peer);
}

CELLS(mremap_more, "mremap that makes it longer")
{
	char *room = anonymous(2 * SIZE);
	struct shared s;

	munmap(room + SIZE, SIZE);
	s = begin(room);
	EXPECT_EQ(INVOKE(SYS_mremap, (long)room, SIZE, 2 * SIZE, MREMAP_MAYMOVE), (long)room);
	EXPECT_EQ(verify((long)room, SIZE, 2), 0);
	EXPECT_EQ(peek((long)room + SIZE), 0);
	EXPECT_EQ(r_verify(&s.peer, s.addr, SIZE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(mremap_dontunmap, "mremap that takes the pages and leaves the place")
{
	struct shared s = begin(anonymous(SIZE));
	long to = (long)anonymous(SIZE);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	EXPECT_EQ(INVOKE(SYS_mremap, (long)s.source, SIZE, SIZE, flags, to), to);
	EXPECT_EQ(verify(to, SIZE, 2), 0);
	EXPECT_EQ(peek((long)s.source), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), 0);
	goes_on(&s, 0, PAGES);
	EXPECT_EQ(verify(to, SIZE, 2), 0);
	quit(&s.peer);
}

CELLS(dontneed, "MADV_DONTNEED of the middle")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_EQ(INVOKE(SYS_madvise, (long)s.source + 2 * PAGE, 3 * PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(peek((long)s.source + 2 * PAGE), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 2 * PAGE), 0);
	EXPECT_EQ(verify((long)s.source, 2 * PAGE, 2), 0);
	EXPECT_EQ(r_verify(&s.peer, s.addr, 2 * PAGE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(free, "MADV_FREE: the content may go, and what is stored next may not")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_EQ(INVOKE(SYS_madvise, (long)s.source, SIZE, MADV_FREE), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(remove, "MADV_REMOVE of private memory is refused as ever")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_ERR(INVOKE(SYS_madvise, (long)s.source, SIZE, MADV_REMOVE), EINVAL);
	EXPECT_EQ(verify((long)s.source, SIZE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(guard, "MADV_GUARD_INSTALL and _REMOVE of the middle")
{
	char *probe = anonymous(PAGE);
	struct shared s;

	if (madvise(probe, PAGE, MADV_GUARD_INSTALL))
		skip_case("no guard pages here");
	s = begin(anonymous(SIZE));
	EXPECT_EQ(INVOKE(SYS_madvise, (long)s.source + 2 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL), 0);
	EXPECT_EQ(peek((long)s.source + 2 * PAGE), -SIGSEGV);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 2 * PAGE), -SIGBUS);
	EXPECT_EQ(INVOKE(SYS_madvise, (long)s.source + 2 * PAGE, 3 * PAGE, MADV_GUARD_REMOVE), 0);
	EXPECT_EQ(peek((long)s.source + 2 * PAGE), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 2 * PAGE), 0);
	EXPECT_EQ(verify((long)s.source, 2 * PAGE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

static void protections(enum way way, long number)
{
	struct shared s = begin(anonymous(SIZE));

	/* pkey_mprotect takes a key besides: none. */
	EXPECT_EQ(INVOKE(number, (long)s.source, 2 * PAGE, PROT_READ, -1), 0);
	EXPECT_EQ(r_verify(&s.peer, s.addr, SIZE, 2), 0);
	EXPECT(FAULTED(r_poke(&s.peer, s.addr + PAGE, 1)));
	EXPECT_EQ(INVOKE(number, (long)s.source, 2 * PAGE, PROT_NONE, -1), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), -SIGBUS);
	EXPECT_EQ(INVOKE(number, (long)s.source, 2 * PAGE, RW, -1), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(mprotect, "mprotect to read, to none and back")
{
	protections(way, SYS_mprotect);
}

CELLS(pkey_mprotect, "pkey_mprotect to read, to none and back")
{
	protections(way, SYS_pkey_mprotect);
}

CELLS(brk, "brk that gives back what is shared")
{
	char *end = sbrk(0), *first = (char *)(((long)end + PAGE - 1) & -PAGE);
	struct shared s;

	EXPECT_EQ(brk(first + 2 * SIZE), 0);
	s = begin(first);
	EXPECT_EQ(INVOKE(SYS_brk, (long)first), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), -SIGBUS);
	EXPECT_EQ(brk(first + 2 * SIZE), 0);
	EXPECT_EQ(peek((long)first), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

static int segment(void)
{
	int id = shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600);

	if (id < 0)
		skip_case("no System V shared memory here");
	return id;
}

CELLS(shmdt, "shmdt of a shared segment")
{
	int id = segment();
	char *p = shmat(id, NULL, 0), *again = shmat(id, NULL, 0);
	struct shared s;

	shmctl(id, IPC_RMID, NULL);
	EXPECT(p != (void *)-1 && again != (void *)-1);
	s = begin(p);
	EXPECT_EQ(INVOKE(SYS_shmdt, (long)p), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), -SIGBUS);
	new_memory(&s, 0, PAGES);
	EXPECT_EQ(verify((long)again, SIZE, 2), 0);
	quit(&s.peer);
}

CELLS(shmdt_cut, "shmdt of a segment whose middle is gone")
{
	int id = segment();
	char *p = shmat(id, NULL, 0);
	struct shared s;

	shmctl(id, IPC_RMID, NULL);
	EXPECT(p != (void *)-1);
	s = begin(p);
	EXPECT_EQ(munmap(p + 2 * PAGE, 2 * PAGE), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), (unsigned char)p[0]);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), (unsigned char)p[4 * PAGE]);
	EXPECT_EQ(INVOKE(SYS_shmdt, (long)p), 0);
	EXPECT_EQ(mapped((long)p + 4 * PAGE), 0);
	EXPECT_EQ(r_peek(&s.peer, s.addr), -SIGBUS);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 4 * PAGE), -SIGBUS);
	new_memory(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(shmat_remap, "shmat over shared private memory")
{
	int id = segment();
	struct shared s = begin(anonymous(SIZE));
	char *other = shmat(id, NULL, 0);

	fill(other, SIZE, 5);
	EXPECT_EQ(INVOKE(SYS_shmat, id, (long)s.source + 123, SHM_REMAP | SHM_RND), (long)s.source);
	shmctl(id, IPC_RMID, NULL);
	EXPECT_EQ(r_verify(&s.peer, s.addr, SIZE, 5), 0);
	goes_on(&s, 0, PAGES);
	EXPECT_EQ(verify((long)other, SIZE, 8), 0);
	quit(&s.peer);
}

CELLS(shmat_remap_segment, "shmat over another shared segment")
{
	int first = segment(), second = segment();
	char *p = shmat(first, NULL, 0), *again = shmat(first, NULL, 0);
	struct shared s;

	shmctl(first, IPC_RMID, NULL);
	s = begin(p);
	EXPECT_EQ(INVOKE(SYS_shmat, second, (long)p, SHM_REMAP), (long)p);
	shmctl(second, IPC_RMID, NULL);
	EXPECT_EQ(r_peek(&s.peer, s.addr), 0);
	goes_on(&s, 0, PAGES);
	EXPECT_EQ(verify((long)again, SIZE, 2), 0);
	quit(&s.peer);
}

CELLS(shmat_fails, "shmat that fails changes nothing")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_EQ(INVOKE(SYS_shmat, -1, (long)s.source, SHM_REMAP), -1);
	EXPECT_EQ(verify((long)s.source, SIZE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

static char *file(void)
{
	int fd = memfd_create("rearranged", 0);
	char *p;

	EXPECT(fd >= 0 && ftruncate(fd, SIZE) == 0);
	p = mmap(NULL, SIZE, RW, MAP_SHARED, fd, 0);
	EXPECT(p != MAP_FAILED);
	/* Open: nobody but root finds a file without a name otherwise. */
	return p;
}

CELLS(remap_file_pages, "remap_file_pages of a shared file")
{
	struct shared s = begin(file());

	EXPECT_EQ(INVOKE(SYS_remap_file_pages, (long)s.source, 2 * PAGE, 0, 4), 0);
	for (long i = 0; i < PAGES; i++)
		EXPECT_EQ(r_peek(&s.peer, s.addr + i * PAGE), (unsigned char)s.source[i * PAGE]);
	s.source[PAGE] = 0x31;
	EXPECT_EQ(s.source[5 * PAGE], 0x31);
	EXPECT_EQ(r_peek(&s.peer, s.addr + PAGE), 0x31);
	EXPECT_EQ(r_peek(&s.peer, s.addr + 5 * PAGE), 0x31);
	quit(&s.peer);
}

CELLS(remap_file_pages_private, "remap_file_pages of private memory is refused as ever")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_ERR(INVOKE(SYS_remap_file_pages, (long)s.source, 2 * PAGE, 0, 4), EINVAL);
	EXPECT_EQ(verify((long)s.source, SIZE, 2), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(mlock, "mlock and munlock")
{
	struct shared s = begin(anonymous(SIZE));

	EXPECT_EQ(INVOKE(SYS_mlock, (long)s.source, SIZE), 0);
	goes_on(&s, 0, PAGES);
	EXPECT_EQ(INVOKE(SYS_munlock, (long)s.source, SIZE), 0);
	goes_on(&s, 0, PAGES);
	quit(&s.peer);
}

CELLS(dontneed_many, "MADV_DONTNEED of many mappings at once")
{
	enum { MANY = 300 };
	struct peer p = spawn();
	char *source = anonymous(2 * MANY * PAGE);
	long addr;

	for (long i = 0; i < MANY; i++)
		EXPECT_EQ(mprotect(source + (2 * i + 1) * PAGE, PAGE, PROT_NONE), 0);
	addr = share(&p, source, 2 * MANY * PAGE);
	for (long i = 0; i < MANY; i++) {
		source[2 * i * PAGE] = 0x21;
		EXPECT_EQ(r_peek(&p, addr + 2 * i * PAGE), 0x21);
	}
	EXPECT_EQ(INVOKE(SYS_madvise, (long)source, 2 * MANY * PAGE, MADV_DONTNEED), 0);
	for (long i = 0; i < MANY; i++) {
		EXPECT_EQ(source[2 * i * PAGE], 0);
		EXPECT_EQ(r_peek(&p, addr + 2 * i * PAGE), 0);
	}
	quit(&p);
}

#ifdef __x86_64__
static void child_on_its_stack(void)
{
	raw6(SYS_exit, 7, 0, 0, 0, 0, 0);
}

CASE(call_clone_by_syscall, "syscall() makes a task on another stack, as it does without us")
{
	struct shared s = begin(anonymous(SIZE));
	long *top = (long *)((char *)anonymous(SIZE) + SIZE - 64);
	int status = -1;

	/* The child returns from syscall() to what stands on its own stack. */
	*top = (long)child_on_its_stack;
	for (int i = 0; i < 20; i++) {
		long pid = syscall(SYS_clone, CLONE_VM | SIGCHLD, top, NULL, NULL, 0);

		EXPECT(pid > 0);
		EXPECT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	}
	quit(&s.peer);
}
#endif
