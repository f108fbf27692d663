// SPDX-License-Identifier: MIT OR Apache-2.0
// fork: the child has a copy as of that moment, and from then on neither sees
// what the other, or an attacher, writes.
#define _GNU_SOURCE
#include "../lib/load.h"
#include "layout.h"
#include "pattern.h"
#include "worker.h"

#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

// One fork at a time: eight at once would only measure the queue.
pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;

struct family {
	struct worker *w;
	uint64_t *shown, *hidden; // seen by attachers before the fork; never seen
	uint64_t shown_len, hidden_len;
	uint32_t gen;
	int ready[2], go[2];
};

static bool holds(struct worker *w, const volatile uint64_t *mem, uint64_t len, unsigned writer, uint32_t gen,
		  const char *when)
{
	for (size_t i = 0; i < len / 8; i++)
		if (mem[i] != pattern_word(w->key, gen, writer, i)) {
			fail_note(w->mb, F_FORK, K_FORK, "child, %s: %p+%#lx word %zu is %016lx, must be %016lx",
				  when, (void *)mem, len, i, mem[i], pattern_word(w->key, gen, writer, i));
			return false;
		}
	return true;
}

// Only async-signal-safe calls, and those of the library, which says that they
// work in a child.
static void child(struct family *f)
{
	struct worker *w = f->w;
	volatile uint64_t local[64];
	char c = 0;
	bool ok;

	close(f->ready[0]);
	close(f->go[1]); // a parent that is killed lets go
	ok = holds(w, f->shown, f->shown_len, 0, f->gen, "at once") &&
	     holds(w, f->hidden, f->hidden_len, 0, f->gen, "at once, not promoted");
	for (unsigned i = 0; i < 64; i++)
		local[i] = pattern_word(w->key, f->gen, 9, i);
	for (size_t i = 0; i < f->shown_len / 8; i++)
		f->shown[i] = pattern_word(w->key, f->gen, 9, i);
	if (write(f->ready[1], &c, 1) != 1)
		_exit(2);
	while (read(f->go[0], &c, 1) < 0 && errno == EINTR)
		;
	ok = ok && holds(w, f->shown, f->shown_len, 9, f->gen, "after the parent went on") &&
	     holds(w, local, sizeof(local), 9, f->gen, "own stack");
	if (xp.make && f->gen % 8 == 0) {
		int64_t id = xp.make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);

		if (id <= 0 || xp.remove(id))
			fail_note(w->mb, F_API, K_FORK, "xpmem_make in a child: %ld: %m", (long)id);
	}
	_exit(ok ? 0 : 1);
}

static void parent(struct family *f, pid_t pid)
{
	struct worker *w = f->w;
	int status = 0;
	char c = 0;
	ssize_t n;

	close(f->ready[1]); // a child that dies is noticed
	close(f->go[0]);
	f->ready[1] = f->go[0] = -1;
	while ((n = read(f->ready[0], &c, 1)) < 0 && errno == EINTR)
		;
	own_view(w, "after fork", K_FORK, f->shown, f->shown_len, f->gen);
	publish_again(w, "after fork", K_FORK, f->shown, f->shown_len, f->gen, REQ_ANSWER);
	publish(w, "parent of fork", K_FORK, f->shown, f->shown_len);
	publish(w, "hidden from it", K_FORK, f->hidden, f->hidden_len);
	if (n != 1 || write(f->go[1], &c, 1) != 1)
		fail_note(w->mb, F_CRASH, K_FORK, "the child of a fork is gone: %m");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fail_note(w->mb, F_CRASH, K_FORK, "the child of a fork died of signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) > 1)
		fail_note(w->mb, F_CRASH, K_FORK, "the child of a fork ended with %d", WEXITSTATUS(status));
}

// By a call of libc's, or by one of its `syscall`.
static pid_t fork_somehow(struct worker *w)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	switch (rng_below(&w->rng, 6)) {
	case 0:
		return _Fork();
	case 1:
		return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	case 2:
		return syscall(SYS_clone3, &args, sizeof(args));
	default:
		return fork();
	}
}

void op_fork(struct worker *w)
{
	uint64_t at = slice_of(w->id, SLICE_BUF) + (40ul << 20);
	struct family f = { .w = w, .shown_len = random_pages(w, 64), .hidden_len = 2 * PAGE };
	bool heap = rng_one_in(&w->rng, 2);
	pid_t pid;

	if (pthread_mutex_trylock(&fork_lock)) {
		usleep(100); // not to take the processor from whom we would wait for
		return;
	}
	f.shown = heap ? malloc(f.shown_len) : vm_libc.map(at, f.shown_len, false) ? (void *)at : NULL;
	f.hidden = malloc(f.hidden_len);
	if (!f.shown || !f.hidden || pipe2(f.ready, 02000000) || pipe2(f.go, 02000000))
		abort();
	f.gen = next_gen();
	pattern_fill(f.shown, f.shown_len / 8, w->key, f.gen);
	pattern_fill(f.hidden, f.hidden_len / 8, w->key, f.gen);
	publish_again(w, "before fork", K_FORK, f.shown, f.shown_len, f.gen, 0);
	pid = fork_somehow(w);
	if (pid == 0)
		child(&f);
	if (pid > 0)
		parent(&f, pid);
	else
		fail_note(w->mb, F_OWNER_MEM, K_FORK, "fork: %m");
	stat_add(&w->mb->stats.forks, 1);
	for (unsigned i = 0; i < 2; i++) {
		if (f.ready[i] >= 0)
			close(f.ready[i]);
		if (f.go[i] >= 0)
			close(f.go[i]);
	}
	free(f.hidden);
	if (heap)
		free(f.shown);
	else
		vm_libc.unmap(at, f.shown_len);
	pthread_mutex_unlock(&fork_lock);
}

void op_spawn(struct worker *w)
{
	char *argv[] = { "true", NULL };
	int status = -1, r;
	pid_t pid;

	if (pthread_mutex_trylock(&fork_lock)) {
		usleep(100); // not to take the processor from whom we would wait for
		return;
	}
	r = posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ);
	while (!r && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r || status)
		fail_note(w->mb, F_CRASH, K_FORK, "posix_spawn of true: %s, status %#x", strerror(r), status);
	stat_add(&w->mb->stats.spawns, 1);
	atomic_fetch_add(&w->slot->beat, 1);
	pthread_mutex_unlock(&fork_lock);
}
