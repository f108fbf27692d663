// SPDX-License-Identifier: MIT OR Apache-2.0
// Tasks that libc's fork did not make: children of vfork, who write to their parent's
// memory while it waits, and children and threads of an inline clone3.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "rawsys.h"
#include "worker.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define STACK (16ul << 10)
// Increments of a raw thread.
#define INCREMENTS 200000ul

static pid_t wait_for(pid_t pid, int *status)
{
	pid_t got;

	while ((got = waitpid(pid, status, 0)) < 0 && errno == EINTR)
		;
	return got;
}

// Writes generation after generation into it for `us`; the last one.
static uint32_t rewrite(const struct worker *w, uint64_t *mem, uint64_t len, uint32_t first, uint64_t us)
{
	uint64_t start = now_us();
	uint32_t gen = first;

	do
		pattern_fill(mem, len / 8, w->key, gen++);
	while (now_us() - start < us && gen < first + 1000);
	return gen - 1;
}

// Its child runs in this memory, and on this stack.
static __attribute__((noinline)) pid_t by_vfork(struct worker *w, uint64_t at, uint64_t len, uint32_t first,
						 volatile uint32_t *last)
{
	static char *argv[] = { "true", NULL };
	bool exec = rng_one_in(&w->rng, 4);
	uint64_t us = rng_below(&w->rng, 2000);
	pid_t pid = vfork();

	if (pid == 0) {
		*last = rewrite(w, (uint64_t *)at, len, first, us);
		if (exec)
			execve("/bin/true", argv, environ);
		_exit(exec);
	}
	return pid;
}

static void child_of_vfork(struct worker *w, uint64_t at, uint64_t len)
{
	uint32_t before = next_gen(), first = next_gens(1000);
	struct ask touch = { "vfork: touch", K_VFORK, REQ_TOUCH, first, (void *)at, len };
	volatile uint32_t last = before;
	int status = -1;
	pid_t pid;

	pattern_fill((uint64_t *)at, len / 8, w->key, before);
	ask_start(w, &touch);
	pid = by_vfork(w, at, len, first, &last);
	if (pid < 0 || wait_for(pid, &status) != pid || status)
		fail_note(w->mb, F_CRASH, K_VFORK, "the child of a vfork: %d, status %#x", pid, status);
	ask_wait(w);
	publish_again(w, "vfork", K_VFORK, (void *)at, len, last, 0);
}

// A child that has nothing but registers: where memory was shared it has none. It
// stores to `at`, if that is not 0, and ends.
static pid_t raw_child(uint64_t at)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
#if defined(__x86_64__)
	long pid;

	__asm__ volatile("syscall\n"
			 "test %%rax, %%rax\n"
			 "jnz 1f\n"
			 "test %[at], %[at]\n"
			 "jz 2f\n"
			 "movq $1, (%[at])\n"
			 "2: mov %[end], %%eax\n"
			 "xor %%edi, %%edi\n"
			 "syscall\n"
			 "hlt\n"
			 "1:\n"
			 : "=a"(pid)
			 : "a"(SYS_clone3), "D"(&args), "S"(sizeof(args)), [at] "r"(at), [end] "i"(SYS_exit_group)
			 : "rcx", "r11", "memory");
	return pid < 0 ? -1 : pid;
#else
	(void)args, (void)at;
	return 0;
#endif
}

static void child_of_raw_clone(struct worker *w, uint64_t at, uint64_t len)
{
	bool stores = rng_one_in(&w->rng, 2);
	uint32_t gen = next_gen();
	int status = 0;
	pid_t pid;

	pattern_fill((uint64_t *)at, len / 8, w->key, gen);
	publish_again(w, "raw clone3", K_VFORK, (void *)at, len, gen, 0);
	pid = raw_child(stores ? at : 0);
	if (pid == 0)
		return;
	// It may have a copy, or nothing: not its parent's memory. The kernel itself writes
	// to a task's memory when it begins (rseq).
	if (pid < 0 || wait_for(pid, &status) != pid || (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)))
		fail_note(w->mb, F_CRASH, K_VFORK, "the child of a raw clone3: %d, status %#x", pid, status);
	publish_again(w, "raw clone3 child", K_VFORK, (void *)at, len, gen, 0);
	publish(w, "after raw clone3", K_VFORK, (void *)at, len);
}

// A thread that libc knows nothing of: it counts up one word in each of two pages.
static pid_t raw_thread(uint64_t at, uint64_t stack, volatile int *tid)
{
	struct clone_args args = { .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
					    CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
				   .parent_tid = (uint64_t)tid,
				   .child_tid = (uint64_t)tid,
				   .stack = stack,
				   .stack_size = STACK };
#if defined(__x86_64__)
	long made;

	__asm__ volatile("syscall\n"
			 "test %%rax, %%rax\n"
			 "jnz 1f\n"
			 "mov %[times], %%rcx\n"
			 "2: incq (%[at])\n"
			 "incq 4096(%[at])\n"
			 "dec %%rcx\n"
			 "jnz 2b\n"
			 "mov %[end], %%eax\n"
			 "xor %%edi, %%edi\n"
			 "syscall\n"
			 "hlt\n"
			 "1:\n"
			 : "=a"(made)
			 : "a"(SYS_clone3), "D"(&args), "S"(sizeof(args)), [at] "r"(at), [end] "i"(SYS_exit),
			   [times] "i"(INCREMENTS)
			 : "rcx", "r11", "memory");
	return made < 0 ? -1 : made;
#else
	(void)args, (void)at;
	return 0;
#endif
}

static void thread_of_raw_clone(struct worker *w, uint64_t at, uint64_t len)
{
	struct ask touch = { "raw thread: touch", K_VFORK, REQ_TOUCH, next_gen(), (void *)at, len };
	uint64_t stack = at + (1ul << 20);
	volatile uint64_t *words = (uint64_t *)at;
	volatile int tid = 1;
	sigset_t all, old;
	pid_t made;

	if (len < 2 * PAGE || !vm_libc.map(stack, STACK, false))
		return;
	// Its handlers would run with this thread's storage.
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	made = raw_thread(at, stack, &tid);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (made > 0) {
		ask_start(w, &touch);
		ask_wait(w);
		while (tid)
			usleep(20);
		stat_add(&w->mb->stats.counts, 2 * INCREMENTS);
		if (words[0] != INCREMENTS || words[PAGE / 8] != INCREMENTS)
			fail_note(w->mb, F_LOST, K_VFORK, "a raw thread counted to %lu and %lu, the owner reads %lu and %lu",
				  INCREMENTS, INCREMENTS, words[0], words[PAGE / 8]);
		publish(w, "raw thread", K_VFORK, (void *)at, len);
	} else if (made < 0) {
		fail_note(w->mb, F_CRASH, K_VFORK, "a raw clone3 of a thread is refused");
	}
	vm_libc.unmap(stack, STACK);
}

void op_vfork(struct worker *w)
{
	uint64_t at = slice_of(w->id, SLICE_BUF) + (56ul << 20), len = random_pages(w, 64);

	if (!vm_libc.map(at, len, false))
		return;
	switch (rng_below(&w->rng, 3)) {
	case 0:
		child_of_vfork(w, at, len);
		break;
	case 1:
		child_of_raw_clone(w, at, len);
		break;
	default:
		thread_of_raw_clone(w, at, len);
	}
	vm_libc.unmap(at, len);
}
