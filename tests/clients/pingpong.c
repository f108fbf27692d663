/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MPI messages whose buffers come and go: every byte is checked.
 *
 * An MPI library with XPMEM keeps attachments of its peers' memory for the
 * life of the job and makes no call when it finds one in its cache.  Whatever
 * happens to the buffers between two messages (freed, unmapped, moved, the
 * address given to other memory, the page shared with a forked child) the
 * next message must carry the bytes of that moment.  This program does all of
 * that between messages.
 *
 * Every step draws a permutation of the ranks from a seed that all share:
 * each rank sends one message and receives one, so that both directions run at
 * once.  Content is a function of (seed, step, sender, index): the receiver
 * knows what each byte must be.  The bytes around the receive buffer and the
 * sender's own buffer are checked too.
 *
 * usage: pingpong [-n steps] [-s seed] [-m largest size] [-f fork every N]
 *                 [-t churning threads] [-k only this kind of memory] [-x not this kind] [-v]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024UL * 1024UL)
#define LARGEST (16 * MIB)
#define GUARD 64
#define SLOTS 6
/* Far from where the system places mappings by itself: what we unmap there is given to nobody. */
#define SLOTS_AT ((unsigned char *)0x200000000000)
#define SLOT_SIZE (LARGEST + 4 * MIB)
#define STACK_LARGEST (2 * MIB)
#define DATA_LARGEST (2 * MIB)
#define RODATA_WORDS (256 * 1024)
#define RODATA_STEP 0x9e3779b97f4a7c15

/* Read-only data of the program file, each eight bytes different. */
#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
__asm__(".pushsection .rodata\n"
	".balign 64\n"
	"rodata_words:\n"
	".set rodata_i, 0\n"
	".rept " TEXT(RODATA_WORDS) "\n"
	".quad rodata_i * " TEXT(RODATA_STEP) "\n"
	".set rodata_i, rodata_i + 1\n"
	".endr\n"
	".popsection\n");
extern const unsigned char rodata_words[RODATA_WORDS * 8];

static unsigned char data_area[DATA_LARGEST + 2 * GUARD + 4096] = {1};
static unsigned char bss_area[LARGEST + 2 * GUARD + 4096];

enum kind {
	RODATA,		/* sending only */
	DATA,
	BSS,
	STACK,
	THREAD_STACK,
	HEAP,
	HEAP_REALLOC,
	HEAP_ALIGNED,
	HEAP_KEPT,	/* one block, written again in place */
	MMAP_FRESH,	/* mapped at an address used before by other memory */
	MMAP_KEPT,	/* one mapping, written again in place */
	MMAP_DONTNEED,	/* one mapping, its pages dropped before it is filled */
	MMAP_OVER,	/* MAP_FIXED over the live mapping */
	MMAP_REMAP,	/* grown or moved by mremap after it was filled */
	MMAP_READONLY,	/* filled, then protected against writing; sending only */
	MMAP_SHARED_ANON,
	MMAP_MEMFD,
	MMAP_FILE_PRIVATE,
	BRK,
	KINDS,
};

static const char *const kind_name[KINDS] = {
	"rodata", "data", "bss", "stack", "thread-stack", "heap", "heap-realloc", "heap-aligned",
	"heap-kept", "mmap-fresh", "mmap-kept", "mmap-dontneed", "mmap-over", "mmap-remap",
	"mmap-readonly", "mmap-shared-anon", "mmap-memfd", "mmap-file-private", "brk",
};

/* One message buffer, from the moment it is made to the moment it is given back. */
struct buffer {
	enum kind kind;
	int slot;
	unsigned char *raw;	/* the memory itself */
	size_t raw_size;
	unsigned char *at;	/* where the message starts; GUARD bytes before and after are ours */
	size_t size;
	int fd;			/* of MMAP_MEMFD: by it the file can be found again */
	pthread_t thread;
	sem_t ready, done;
};

static int rank, ranks, verbose, without = -1;
static uint64_t seed;
static unsigned long step;
static unsigned char *const slots = SLOTS_AT;
static unsigned char *heap_kept[2];
static int file_fd = -1;
static volatile int stop_churning;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t draw(uint64_t *state)
{
	return mix(*state += 0x9e3779b97f4a7c15ULL);
}

static void fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "pingpong: rank %d step %lu seed %llu: ", rank, step,
		(unsigned long long)seed);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	fflush(stderr);
	/* The neighbours of the address tell a stale page from a torn copy. */
	if (getenv("PINGPONG_PAUSE"))
		pause();
	MPI_Abort(MPI_COMM_WORLD, 1);
	abort();
}

static void check(int ok, const char *what)
{
	if (!ok)
		fail("%s: %s", what, strerror(errno));
}

/* Content: eight bytes at a time, from a key that names the message. */
static uint64_t content_key(unsigned long at_step, int sender)
{
	return mix(seed ^ mix(at_step * 1024 + sender + 1));
}

static void fill(unsigned char *at, size_t size, uint64_t key)
{
	size_t i;

	for (i = 0; i + 8 <= size; i += 8) {
		uint64_t word = (key + i) * 0x9e3779b97f4a7c15ULL;

		word ^= word >> 29;
		memcpy(at + i, &word, 8);
	}
	for (; i < size; i++)
		at[i] = (unsigned char)(key + i);
}

static void verify(const unsigned char *at, size_t size, uint64_t key, const char *what,
		   const struct buffer *b, const char *other)
{
	size_t i;

	for (i = 0; i + 8 <= size; i += 8) {
		uint64_t word = (key + i) * 0x9e3779b97f4a7c15ULL, found;

		word ^= word >> 29;
		memcpy(&found, at + i, 8);
		if (found != word)
			break;
	}
	for (; i < size; i++) {
		uint64_t word = (key + (i & ~7UL)) * 0x9e3779b97f4a7c15ULL;
		unsigned char must;
		size_t j, bad = 0;

		word ^= word >> 29;
		must = (i & ~7UL) + 8 <= size ? (unsigned char)(word >> (i % 8 * 8))
					      : (unsigned char)(key + i);
		if (at[i] == must)
			continue;
		for (j = i; j < size && bad < 1 << 20; j++) {
			word = (key + (j & ~7UL)) * 0x9e3779b97f4a7c15ULL;
			word ^= word >> 29;
			must = (j & ~7UL) + 8 <= size ? (unsigned char)(word >> (j % 8 * 8))
						      : (unsigned char)(key + j);
			bad += at[j] != must;
		}
		fail("%s: wrong byte %zu of %zu at %p (page offset %#lx) in %s, other side %s: "
		     "%#04x (0x11: never written, 0xee: the forked child's); %zu bytes wrong from there",
		     what, i, size, (const void *)(at + i), (unsigned long)(at + i) & 4095,
		     kind_name[b->kind], other, at[i], bad);
	}
}

static void verify_rodata(const unsigned char *at, size_t size, size_t offset,
			  const struct buffer *b)
{
	size_t i, first = size, bad = 0, last = 0;

	for (i = 0; i < size; i++) {
		uint64_t word = (uint64_t)((offset + i) / 8) * RODATA_STEP;

		if (at[i] == (unsigned char)(word >> ((offset + i) % 8 * 8)))
			continue;
		first = first < i ? first : i;
		last = i;
		bad++;
	}
	if (bad)
		fail("received: wrong bytes %zu..%zu of %zu (%zu of them) from %p in %s, other side rodata, "
		     "found %02x %02x %02x %02x", first, last, size, bad, (const void *)(at + first),
		     kind_name[b->kind], at[first], at[first + 1], at[first + 2], at[first + 3]);
}

/* --- making and giving back buffers ------------------------------------- */

static void *hold_stack_buffer(void *arg)
{
	struct buffer *b = arg;
	unsigned char area[STACK_LARGEST + 2 * GUARD + 64];

	b->raw = area;
	sem_post(&b->ready);
	while (sem_wait(&b->done) && errno == EINTR)
		;
	return NULL;
}

static unsigned char *map_at(unsigned char *at, size_t size, int flags, int fd)
{
	unsigned char *p;

	if (!(flags & MAP_FIXED))
		flags |= MAP_FIXED_NOREPLACE;
	p = mmap(at, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	check(p == at, "mmap");
	return p;
}

static size_t page_up(size_t n)
{
	return (n + 4095) & ~4095UL;
}

/*
 * Buffers of the kinds that own address space live in a slot: the same few
 * addresses see every kind of memory in turn.
 */
static void make_buffer(struct buffer *b, enum kind kind, int slot, int kept, size_t size, uint64_t r)
{
	unsigned char *base = slots + slot * SLOT_SIZE + (r >> 8 & 7) * 4096;
	size_t lead = GUARD + (r & 63), need = page_up(size + lead + GUARD);

	memset(b, 0, sizeof(*b));
	b->kind = kind;
	b->slot = slot;
	b->size = size;
	b->raw_size = need;
	switch (kind) {
	case RODATA:
		b->raw = (unsigned char *)rodata_words;
		b->at = b->raw + (size ? r % (sizeof(rodata_words) - size + 1) : 0);
		return;
	case DATA:
		b->raw = data_area;
		break;
	case BSS:
		b->raw = bss_area;
		break;
	case STACK:		/* the caller has set the memory aside */
		return;
	case THREAD_STACK: {
		pthread_attr_t attr;

		check(!sem_init(&b->ready, 0, 0) && !sem_init(&b->done, 0, 0), "sem_init");
		check(!pthread_attr_init(&attr), "pthread_attr_init");
		pthread_attr_setstacksize(&attr, STACK_LARGEST + 256 * 1024);
		check(!pthread_create(&b->thread, &attr, hold_stack_buffer, b), "pthread_create");
		pthread_attr_destroy(&attr);
		while (sem_wait(&b->ready) && errno == EINTR)
			;
		break;
	}
	case HEAP:
		b->raw = malloc(need);
		break;
	case HEAP_REALLOC:
		b->raw = malloc(need / 3 + 1);
		if (b->raw) {
			memset(b->raw, 0xa5, need / 3 + 1);
			b->raw = realloc(b->raw, need);
		}
		break;
	case HEAP_ALIGNED:
		check(!posix_memalign((void **)&b->raw, 4096, need), "posix_memalign");
		break;
	case HEAP_KEPT:
		b->raw = heap_kept[kept];
		break;
	case MMAP_FRESH:
	case MMAP_READONLY:
	case MMAP_REMAP:
		b->raw = map_at(base, need, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		break;
	case MMAP_OVER:
		b->raw = map_at(base, need, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		memset(b->raw, 0x5a, need);
		map_at(base, need, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
		break;
	case MMAP_KEPT:
	case MMAP_DONTNEED:
		b->raw = slots + (SLOTS + kept) * SLOT_SIZE;
		if (kind == MMAP_DONTNEED)
			check(!madvise(b->raw, need, MADV_DONTNEED), "madvise");
		break;
	case MMAP_SHARED_ANON:
		b->raw = map_at(base, need, MAP_SHARED | MAP_ANONYMOUS, -1);
		break;
	case MMAP_MEMFD:
		b->fd = memfd_create("pingpong", MFD_CLOEXEC);
		check(b->fd >= 0 && !ftruncate(b->fd, need), "memfd");
		b->raw = map_at(base, need, MAP_SHARED, b->fd);
		break;
	case MMAP_FILE_PRIVATE:
		b->raw = map_at(base, need, MAP_PRIVATE, file_fd);
		break;
	case BRK:
		/* Only where nobody else moved the break: it is given back in order. */
		b->raw = sbrk(need);
		check(b->raw != (void *)-1, "sbrk");
		break;
	default:
		fail("no such kind %d", kind);
	}
	check(b->raw != NULL, "allocation");
	b->at = b->raw + lead;
}

static void give_back(struct buffer *b)
{
	switch (b->kind) {
	case RODATA:
	case DATA:
	case BSS:
	case STACK:
	case HEAP_KEPT:
	case MMAP_KEPT:
	case MMAP_DONTNEED:
		break;
	case THREAD_STACK:
		sem_post(&b->done);
		check(!pthread_join(b->thread, NULL), "pthread_join");
		sem_destroy(&b->ready);
		sem_destroy(&b->done);
		break;
	case HEAP:
	case HEAP_REALLOC:
	case HEAP_ALIGNED:
		free(b->raw);
		break;
	case BRK:
		if (sbrk(0) == b->raw + b->raw_size)
			check(sbrk(-(intptr_t)b->raw_size) != (void *)-1, "sbrk");
		break;
	case MMAP_MEMFD:
		close(b->fd);
		/* fallthrough */
	default:
		check(!munmap(b->raw, b->raw_size), "munmap");
	}
}

static void set_guards(struct buffer *b)
{
	memset(b->at - GUARD, 0xc3, GUARD);
	memset(b->at + b->size, 0xc3, GUARD);
}

static void verify_guards(const struct buffer *b, const char *what)
{
	int i;

	for (i = 0; i < GUARD; i++)
		if (b->at[i - GUARD] != 0xc3 || b->at[b->size + i] != 0xc3)
			fail("%s: bytes around the buffer changed, in %s", what,
			     kind_name[b->kind]);
}

/* --- the side show ------------------------------------------------------- */

/* Frees and maps memory all the time, as the rest of a program does. */
static void *churn(void *arg)
{
	uint64_t state = mix(seed + 77 * (uintptr_t)arg + rank);
	void *held[16] = {0};
	size_t size[16] = {0};

	while (!stop_churning) {
		uint64_t r = draw(&state);
		int i = r & 15;
		size_t want = 1 + (r >> 8) % (r & 16 ? 512 * 1024 : 3000);

		if (r & 32) {
			unsigned char *p = mmap(NULL, want, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			if (p == MAP_FAILED)
				continue;
			memset(p, (int)r, want);
			munmap(p, want);
			continue;
		}
		if (held[i]) {
			unsigned char *p = held[i];

			if (p[0] != (unsigned char)i || p[size[i] - 1] != (unsigned char)i)
				fail("churning thread: its heap block %p changed", held[i]);
			free(p);
		}
		held[i] = malloc(want);
		size[i] = want;
		if (held[i])
			memset(held[i], i, want);
		if ((r >> 40 & 15) == 0)
			usleep(200);
	}
	for (int i = 0; i < 16; i++)
		free(held[i]);
	return NULL;
}

/* A child that scribbles on its copies of both buffers while messages run. */
static int child_may_write(const struct buffer *b)
{
	return b->kind != RODATA && b->kind != MMAP_READONLY && b->kind != MMAP_SHARED_ANON &&
	       b->kind != MMAP_MEMFD;
}

static pid_t fork_scribbler(struct buffer *out, struct buffer *in)
{
	pid_t child = fork();

	if (child)
		return child;
	if (child_may_write(out))
		memset(out->at, 0xee, out->size);
	if (!child_may_write(in))
		_exit(0);
	memset(in->at, 0xee, in->size);
	usleep(2000);
	for (size_t i = 0; i < in->size; i++)
		if (in->at[i] != 0xee)
			_exit(9);
	_exit(0);
}

/* --- one step ------------------------------------------------------------ */

struct plan {
	int to, from;
	enum kind out_kind, in_kind, from_kind;
	size_t out_size, in_size;
	size_t from_rodata;
	uint64_t r;
	unsigned forks : 1;
};

static size_t draw_size(uint64_t *state, size_t largest)
{
	uint64_t r = draw(state);
	int bits = r % 25;			/* up to 16 MiB, each power of two alike */
	size_t size = (1UL << bits) + (r >> 8) % (1UL << bits);

	if ((r >> 60) < 3)
		size = size & ~4095UL ? size & ~4095UL : size;	/* whole pages too */
	return size > largest ? 1 + size % largest : size;
}

/* Every rank draws the plan of all ranks, and takes its own part of it. */
static void draw_plan(struct plan *p, uint64_t *state, size_t largest, int only, int fork_every)
{
	int perm[64], i, k;
	size_t sizes[64];
	enum kind outs[64], ins[64];
	uint64_t rs[64];

	for (i = 0; i < ranks; i++)
		perm[i] = i;
	for (i = ranks - 1; i > 0; i--) {
		k = draw(state) % (i + 1);
		int t = perm[i];
		perm[i] = perm[k];
		perm[k] = t;
	}
	if (ranks == 2) {			/* always to the other one */
		perm[0] = 1;
		perm[1] = 0;
	}
	for (i = 0; i < ranks; i++) {
		sizes[i] = draw_size(state, largest);
		outs[i] = only >= 0 ? (enum kind)only : draw(state) % KINDS;
		do
			ins[i] = only >= 0 ? (enum kind)only : draw(state) % KINDS;
		while (only < 0 && (ins[i] == RODATA || ins[i] == MMAP_READONLY ||
				    (ins[i] == outs[i] && (ins[i] == DATA || ins[i] == BSS ||
							   ins[i] == BRK))));
		if (ins[i] == RODATA || ins[i] == MMAP_READONLY)
			ins[i] = HEAP;
		if ((int)ins[i] == without)
			ins[i] = MMAP_FRESH;
		if ((int)outs[i] == without)
			outs[i] = MMAP_FRESH;
		if (ins[i] == outs[i] && (ins[i] == DATA || ins[i] == BSS || ins[i] == BRK))
			outs[i] = MMAP_FRESH;
		rs[i] = draw(state);
	}
	/* The kinds with little room cut the message. */
	for (i = 0; i < ranks; i++) {
		size_t room = LARGEST;
		enum kind o = outs[i], n = ins[perm[i]];

		if (o == RODATA)
			room = sizeof(rodata_words);
		if (o == STACK || n == STACK || o == THREAD_STACK || n == THREAD_STACK)
			room = room < STACK_LARGEST ? room : STACK_LARGEST;
		if (o == DATA || n == DATA || o == MMAP_FILE_PRIVATE || n == MMAP_FILE_PRIVATE)
			room = room < DATA_LARGEST ? room : DATA_LARGEST;
		if (sizes[i] > room)
			sizes[i] = 1 + sizes[i] % room;
	}
	for (i = 0; i < ranks; i++)
		if (perm[i] == rank)
			p->from = i;
	p->to = perm[rank];
	p->out_kind = outs[rank];
	p->in_kind = ins[rank];
	p->from_kind = outs[p->from];
	p->out_size = sizes[rank];
	p->in_size = sizes[p->from];
	if (p->from_kind == RODATA)
		p->from_rodata = rs[p->from] % (sizeof(rodata_words) - p->in_size + 1);
	p->r = rs[rank];
	/* While a relative maps it too, memory that fork shares cannot be attached anew (documented). */
	p->forks = fork_every && (int)(step % fork_every) == rank % fork_every &&
		   p->out_kind != MMAP_SHARED_ANON && p->in_kind != MMAP_SHARED_ANON;
}

static void exchange(const struct plan *p, struct buffer *out, struct buffer *in)
{
	MPI_Request req[2];
	MPI_Status status[2];
	uint64_t key = content_key(step, rank);
	pid_t child = -1;
	int n, wstatus;

	if (out->kind != RODATA) {
		set_guards(out);
		fill(out->at, out->size, key);
	}
	if (out->kind == MMAP_REMAP) {
		/* To the same slot's upper half, or grown in place: the bytes go along. */
		size_t more = out->raw_size + (p->r >> 20 & 1 ? 4096 : 0);
		unsigned char *to = out->raw, *moved;

		if ((p->r >> 21 & 1) && out->raw_size < SLOT_SIZE / 2)
			to = slots + out->slot * SLOT_SIZE + SLOT_SIZE / 2;
		if (to == out->raw)
			moved = mremap(out->raw, out->raw_size, more, 0);
		else
			moved = mremap(out->raw, out->raw_size, more,
				       MREMAP_MAYMOVE | MREMAP_FIXED, to);
		if (moved != MAP_FAILED) {
			out->at = moved + (out->at - out->raw);
			out->raw = moved;
			out->raw_size = more;
		}
	}
	if (out->kind == MMAP_READONLY)
		check(!mprotect(out->raw, out->raw_size, PROT_READ), "mprotect");
	set_guards(in);
	memset(in->at, 0x11, in->size);
	if (p->forks)
		child = fork_scribbler(out, in);

	check(!MPI_Irecv(in->at, (int)in->size, MPI_BYTE, p->from, 5, MPI_COMM_WORLD, &req[0]),
	      "MPI_Irecv");
	if (p->r >> 30 & 1)
		check(!MPI_Isend(out->at, (int)out->size, MPI_BYTE, p->to, 5, MPI_COMM_WORLD,
				 &req[1]), "MPI_Isend");
	else
		check(!MPI_Issend(out->at, (int)out->size, MPI_BYTE, p->to, 5, MPI_COMM_WORLD,
				  &req[1]), "MPI_Issend");
	check(!MPI_Waitall(2, req, status), "MPI_Waitall");
	MPI_Get_count(&status[0], MPI_BYTE, &n);
	if ((size_t)n != in->size)
		fail("received %d bytes, expected %zu", n, in->size);

	verify_guards(in, "received");
	if (p->from_kind == RODATA)
		verify_rodata(in->at, in->size, p->from_rodata, in);
	else
		verify(in->at, in->size, content_key(step, p->from), "received", in,
		       kind_name[p->from_kind]);
	if (out->kind != RODATA) {
		verify_guards(out, "sent");
		verify(out->at, out->size, key, "sent", out, "none");
	}
	if (child > 0) {
		pid_t got;

		do
			got = waitpid(child, &wstatus, 0);
		while (got < 0 && errno == EINTR);
		check(got == child, "waitpid");
		if (!WIFEXITED(wstatus) || WEXITSTATUS(wstatus))
			fail("forked child ended with %#x: its copy changed or it crashed", wstatus);
	}
}

static void one_step(const struct plan *p)
{
	struct buffer out, in;
	size_t stack_size = 1;
	int first_slot = p->r >> 40 & 1 ? 0 : 3, kept = p->r >> 42 & 1;

	if (p->out_kind == STACK)
		stack_size = page_up(p->out_size + 4096);
	if (p->in_kind == STACK && page_up(p->in_size + 4096) > stack_size)
		stack_size = page_up(p->in_size + 4096);
	/* Memory of the main stack, as deep as the message is large. */
	unsigned char on_stack_out[p->out_kind == STACK ? stack_size : 1];
	unsigned char on_stack_in[p->in_kind == STACK ? stack_size : 1];

	make_buffer(&out, p->out_kind, first_slot + (p->r >> 41 & 1), kept, p->out_size, p->r);
	if (p->out_kind == STACK) {
		out.raw = on_stack_out;
		out.at = on_stack_out + GUARD + (p->r & 63);
	}
	make_buffer(&in, p->in_kind, first_slot + 2, !kept, p->in_size, mix(p->r));
	if (p->in_kind == STACK) {
		in.raw = on_stack_in;
		in.at = on_stack_in + GUARD + (p->r >> 6 & 63);
	}
	/* One static area cannot be both buffers. */
	if (out.raw == in.raw && out.kind != RODATA)
		fail("plan gives one memory to both buffers (%s)", kind_name[out.kind]);
	if (p->in_kind == BRK || p->out_kind == BRK) {
		exchange(p, &out, &in);
		give_back(p->in_kind == BRK ? &in : &out);
		give_back(p->in_kind == BRK ? &out : &in);
		return;
	}
	exchange(p, &out, &in);
	give_back(&out);
	give_back(&in);
}

int main(int argc, char **argv)
{
	unsigned long steps = 200;
	size_t largest = LARGEST;
	int c, provided, fork_every = 0, threads = 0, only = -1, i;
	unsigned long counts[KINDS] = {0};
	unsigned long long bytes = 0, all_bytes = 0;
	pthread_t churners[8];

	seed = 1;
	while ((c = getopt(argc, argv, "n:s:m:f:t:k:x:v")) != -1) {
		switch (c) {
		case 'n':
			steps = strtoul(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			largest = strtoul(optarg, NULL, 0);
			break;
		case 'f':
			fork_every = atoi(optarg);
			break;
		case 't':
			threads = atoi(optarg);
			break;
		case 'k':
		case 'x':
			for (i = 0; i < KINDS && strcmp(optarg, kind_name[i]); i++)
				;
			if (i == KINDS) {
				fprintf(stderr, "pingpong: no kind of memory named %s\n", optarg);
				return 2;
			}
			*(c == 'k' ? &only : &without) = i;
			break;
		case 'v':
			verbose = 1;
			break;
		default:
			return 2;
		}
	}
	if (largest < 1 || largest > LARGEST || threads > 8) {
		fprintf(stderr, "pingpong: at most %lu bytes and 8 threads\n", LARGEST);
		return 2;
	}
	MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (ranks > 64)
		fail("at most 64 ranks");

	map_at(slots + SLOTS * SLOT_SIZE, 2 * SLOT_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (i = 0; i < 2; i++)
		check((heap_kept[i] = malloc(LARGEST + 4096)) != NULL, "malloc");
	file_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	check(file_fd >= 0, "open of the program file");
	/* A private file mapping must stay inside its file. */
	if (lseek(file_fd, 0, SEEK_END) < (off_t)(DATA_LARGEST + sizeof(rodata_words)))
		fail("the program file is smaller than its data");
	for (i = 0; i < threads; i++)
		check(!pthread_create(&churners[i], NULL, churn, (void *)(uintptr_t)(i + 1)),
		      "pthread_create");

	uint64_t state = mix(seed);

	for (step = 0; step < steps; step++) {
		struct plan p;
		size_t cap = largest;

		draw_plan(&p, &state, cap, only, fork_every);
		if (verbose)
			printf("rank %d step %lu: %zu bytes to %d from %s; %zu bytes from %d (%s) into %s\n",
			       rank, step, p.out_size, p.to, kind_name[p.out_kind], p.in_size,
			       p.from, kind_name[p.from_kind], kind_name[p.in_kind]),
				fflush(stdout);
		counts[p.out_kind]++;
		counts[p.in_kind]++;
		bytes += p.out_size;
		one_step(&p);
	}
	stop_churning = 1;
	for (i = 0; i < threads; i++)
		pthread_join(churners[i], NULL);
	MPI_Reduce(&bytes, &all_bytes, 1, MPI_UNSIGNED_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0) {
		printf("pingpong: %lu steps, %d ranks, %llu bytes, every byte right, seed %llu\n",
		       steps, ranks, all_bytes, (unsigned long long)seed);
		if (verbose)
			for (i = 0; i < KINDS; i++)
				printf("  %-18s %lu\n", kind_name[i], counts[i]);
	}
	MPI_Finalize();
	return 0;
}
