// SPDX-License-Identifier: MIT OR Apache-2.0
// The owner process: exports its whole address space and keeps changing it.
#define _GNU_SOURCE
#include "owner.h"

#include "../lib/load.h"
#include "guard.h"
#include "layout.h"
#include "leaks.h"
#include "op_sync.h"
#include "pattern.h"
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATIC_LEN (64ul << 10)
#define TOMB_LEN (64ul << 10)

static uint64_t static_bufs[NWORKERS][STATIC_LEN / 8] __attribute__((aligned(8)));
static struct worker workers[NWORKERS];
static struct mailbox *fatal_mb;
static unsigned classes = ~0u;

struct step {
	void (*run)(struct worker *w);
	unsigned weight;
	bool plain; // may run without the library
	unsigned classes;
};

#define CLASS(k) (1u << (k))
static const struct step steps[] = {
	{ op_map, 300, true, CLASS(K_LIBC) | CLASS(K_RAW) },
	{ op_malloc, 120, false, CLASS(K_MALLOC) },
	{ op_malloc_churn, 20, false, CLASS(K_MALLOC) },
	{ op_cross, 80, false, CLASS(K_LIBC_X) | CLASS(K_RAW_X) },
	{ op_brk, 20, false, CLASS(K_BRK) },
	{ op_static, 60, false, CLASS(K_STATIC) },
	{ op_read, 40, false, CLASS(K_LIBC) },
	{ op_count, 40, true, CLASS(K_LIBC) },
	{ op_semaphore, 20, true, CLASS(K_LIBC) },
	{ op_signal, 20, true, CLASS(K_LIBC) },
	{ op_thread, 12, false, CLASS(K_STACK) },
	{ op_fork, 4, false, CLASS(K_FORK) },
	{ op_spawn, 3, false, CLASS(K_FORK) },
	{ op_shared, 20, false, CLASS(K_SHARED) | CLASS(K_FILE) },
	{ op_direct, 12, false, CLASS(K_DEVICE) },
	{ op_sysv, 16, false, CLASS(K_SYSV) },
	{ op_ring, 12, false, CLASS(K_RING) },
	{ op_writer, 10, false, CLASS(K_WRITER) },
	{ op_seal, 4, false, CLASS(K_SEAL) },
	{ op_vfork, 12, false, CLASS(K_VFORK) },
};
#define NSTEPS (sizeof(steps) / sizeof(steps[0]))

static void fatal(int signo, void *addr)
{
	fail_note(fatal_mb, F_CRASH, K_LIBC, "the owner died of signal %d at %p", signo, addr);
}

static const struct step *pick(struct worker *w)
{
	for (;;) {
		const struct step *s = &steps[rng_below(&w->rng, NSTEPS)];

		// By rejection: 300 is the heaviest weight of the table.
		if (rng_below(&w->rng, 300) < s->weight && (s->plain || !w->plain) && s->classes & classes)
			return s;
	}
}

static void inject_once(struct worker *w)
{
	static _Atomic uint32_t done;

	if (w->inject < INJECT_FD || atomic_exchange(&done, 1))
		return;
	if (w->inject == INJECT_FD && dup(0) < 0)
		abort();
	if (w->inject == INJECT_MEMORY)
		memset(mmap(NULL, 96 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 96 << 20);
	if (w->inject == INJECT_CRASH)
		raise(SIGSEGV);
	if (w->inject == INJECT_PROC && fork() == 0) {
		sleep(60);
		_exit(0);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	volatile uint64_t here = 0;

	w->mb->owner.stack[w->id] = (uint64_t)&here & ~(PAGE - 1);
	inject_once(w);
	while (!atomic_load(&w->mb->owner.retire)) {
		pick(w)->run(w);
		atomic_fetch_add_explicit(&w->slot->beat, 1, memory_order_relaxed);
	}
	w->mb->owner.stack[w->id] = 0;
	return NULL;
}

static void landmarks(struct owner_box *box)
{
	uint64_t *tomb = mmap((void *)TOMB_AT, TOMB_LEN,
			      PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	box->brk_base = (uint64_t)sbrk(0) - (1 << 20);
	box->mmap_top = (uint64_t)&errno; // the main thread's TLS: near the top of the mmap area
	box->bss = (uint64_t)static_bufs;
	box->bss_len = sizeof(static_bufs);
	box->tomb = 0;
	if (tomb != MAP_FAILED) {
		pattern_fill(tomb, TOMB_LEN / 8, 0, 1);
		box->tomb = (uint64_t)tomb;
	}
}

static bool any_attached(struct mailbox *mb, uint32_t epoch)
{
	for (unsigned a = 0; a < NATTACHERS; a++)
		if (atomic_load(&mb->attacher[a].ready_epoch) == epoch)
			return true;
	return false;
}

static void wait_attached(struct mailbox *mb, uint32_t epoch, bool attached, unsigned ms)
{
	while (any_attached(mb, epoch) != attached && ms--)
		usleep(1000);
}

static void check_leaks(struct mailbox *mb, const struct footprint *before, bool plain)
{
	struct footprint after;
	long left = 0;

	// What the library does on a peer's farewell may take a moment.
	for (unsigned i = 0; i < 50; i++) {
		footprint_take(&after);
		left = plain ? 0 : memfd_bytes_in(SLICE_BASE, TOMB_AT);
		if (!left && after.fds <= before->fds && after.children <= before->children)
			break;
		usleep(100000);
	}
	footprint_compare(mb, "owner", before, &after);
	if (left < 0)
		fail_note(mb, F_LEAK, K_LIBC, "owner: its shared file is not found, so nothing is known of leaks in it");
	else if (left)
		fail_note(mb, F_LEAK, K_LIBC, "owner: %ld bytes of unmapped addresses still in the shared file", left);
}

static void warm_up(struct worker *w)
{
	struct ask a = { "warm-up", K_STATIC, REQ_TOUCH, next_gen(), w->static_buf, w->static_len };

	wait_attached(w->mb, w->epoch, true, 5000);
	ask_and_wait(w, &a);
}

// So many mappings beside: every other page of a range may be read alone.
static void fill_table(void)
{
	const char *text = getenv("STRESS_MAPPINGS");
	unsigned long n = text ? strtoul(text, NULL, 0) : 0;
	char *range = n ? mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : NULL;

	for (unsigned long i = 0; range && range != MAP_FAILED && i < n; i += 2)
		mprotect(range + i * PAGE, PAGE, PROT_READ);
}

static bool userfaultfd_here(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int sweeper_main(void)
{
	int64_t id = xp.make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);

	return id <= 0 || xp.remove(id);
}

int owner_main(struct mailbox *mb, const struct owner_options *o)
{
	struct owner_box *box = &mb->owner;
	uint32_t epoch = atomic_load(&box->epoch);
	struct footprint before;

	fatal_mb = mb;
	classes = o->classes;
	guard_install(fatal);
	signals_install();
	vm_plain_use(o->plain_fd);
	landmarks(box);
	direct_file_prepare();
	if (o->plain_fd < 0) {
		op_ring_prepare(mb);
		writer_start(mb, o->mailbox_fd);
	}
	fill_table();
	if (o->plain_fd < 0) {
		box->segid = xp.make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
		if (box->segid <= 0) {
			// Only what this machine cannot do excuses a refusal.
			if (errno == ENOSYS && !userfaultfd_here())
				return 77;
			fail_note(mb, F_API, K_LIBC, "xpmem_make: %m");
			return 3;
		}
	} else {
		box->tomb = 0;
	}
	for (unsigned i = 0; i < NWORKERS; i++)
		workers[i] = (struct worker){ .mb = mb,
					      .id = i,
					      .rng = { mix64(mb->seed ^ (0x10000ull * epoch + i)) },
					      .slot = &mb->slot[i],
					      .epoch = epoch,
					      .key = mix64(mb->seed + epoch),
					      .static_buf = static_bufs[i],
					      .static_len = STATIC_LEN,
					      .inject = o->inject,
					      .classes = o->classes,
					      .plain = o->plain_fd >= 0 };
	atomic_store(&box->state, OWNER_READY);
	if (o->plain_fd < 0)
		warm_up(&workers[0]);
	mates_create();
	footprint_take(&before);
	for (unsigned i = 0; i < NWORKERS; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			return 4;
	for (unsigned i = 0; i < NWORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	signals_check(mb);
	atomic_store(&box->state, OWNER_QUIESCED);
	wait_attached(mb, epoch, false, 20000);
	check_leaks(mb, &before, o->plain_fd >= 0);
	mates_join();
	writer_end(mb);
	if (o->plain_fd < 0) {
		if (xp.remove(box->segid))
			fail_note(mb, F_API, K_LIBC, "xpmem_remove: %m");
		if (!xp.remove(box->segid) || errno != ENOENT)
			fail_note(mb, F_API, K_LIBC, "a second xpmem_remove: errno %d", errno);
	}
	return 0;
}
