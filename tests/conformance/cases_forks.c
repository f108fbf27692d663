/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Children that are made past libc's fork. */
#include "harness.h"

#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

static char data[64 * PAGE] __attribute__((aligned(4096)));
static char stack[16 * PAGE] __attribute__((aligned(4096)));

/* In the child: a copy of the moment, and its stores are its own. */
static int check_copy(void *unused)
{
	long wrong = verify((long)data, sizeof data, 1);

	(void)unused;
	memset(data, 9, sizeof data);
	_exit(wrong != 0);
}

static void expect_copy(const char *way, long pid, struct peer *p, long addr)
{
	int status = -1;

	if (pid < 0)
		fail(__FILE__, __LINE__, "%s fails: errno %d", way, errno);
	EXPECT_EQ(waitpid((pid_t)pid, &status, __WALL), pid);
	if (status)
		fail(__FILE__, __LINE__, "child of %s: status %#x", way, status);
	EXPECT_EQ(verify((long)data, sizeof data, 1), 0);
	EXPECT_EQ(r_verify(p, addr, sizeof data, 1), 0);
}

CASE(fork_past_libc, "children of _Fork, clone, clone3 and of system calls through libc have copies")
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	struct peer p = spawn();
	long addr, pid;

	fill(data, sizeof data, 1);
	addr = share(&p, data, sizeof data);
	EXPECT_EQ(r_verify(&p, addr, sizeof data, 1), 0);
	fflush(NULL);
	for (int i = 0; i < 3; i++) {
		pid = fork();
		if (pid == 0)
			check_copy(NULL);
		expect_copy("fork", pid, &p, addr);
		pid = _Fork();
		if (pid == 0)
			check_copy(NULL);
		expect_copy("_Fork", pid, &p, addr);
		pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (pid == 0)
			check_copy(NULL);
		expect_copy("SYS_clone", pid, &p, addr);
		pid = syscall(SYS_clone3, &args, sizeof args);
		if (pid == 0)
			check_copy(NULL);
		expect_copy("SYS_clone3", pid, &p, addr);
#ifdef SYS_fork
		pid = syscall(SYS_fork);
		if (pid == 0)
			check_copy(NULL);
		expect_copy("SYS_fork", pid, &p, addr);
#endif
		expect_copy("clone", clone(check_copy, stack + sizeof stack, SIGCHLD, NULL), &p, addr);
		expect_copy("clone without a signal", clone(check_copy, stack + sizeof stack, 0, NULL), &p, addr);
	}
	/* A task that shares all memory is a thread of sorts, and goes on as ever. */
	pid = clone(check_copy, stack + sizeof stack, SIGCHLD | CLONE_VM, NULL);
	EXPECT(pid > 0);
	EXPECT_EQ(waitpid((pid_t)pid, NULL, __WALL), pid);
	EXPECT_EQ(r_peek(&p, addr), 9);
	EXPECT_ERR(syscall(SYS_clone3, (void *)8, sizeof args), EFAULT);
	EXPECT_ERR(syscall(SYS_clone, SIGCHLD | CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
	quit(&p);
}

/* Farther than what is shared along with a touched page. */
#define STEP (16UL << 20)
#define FAR (5 * STEP)

/* A handler that touches memory which nobody has touched through there. */
static struct {
	volatile char *next;
	volatile int ran;
	volatile long seen;
} handler;

static void on_signal(int sig)
{
	(void)sig;
	handler.ran++;
	handler.seen = *handler.next;
	handler.next += STEP;
}

static void in_prepare(void)
{
	if (handler.next)
		raise(SIGUSR1);
}

CASE(fork_in_handler, "a signal's handler in the middle of a fork may touch what is attached; the mask is as before")
{
	struct sigaction action = { .sa_handler = on_signal };
	char *source = anonymous(FAR);
	sigset_t before, after;
	long addr;

	/* It runs when the library has been told of the fork. */
	EXPECT_EQ(pthread_atfork(in_prepare, NULL, NULL), 0);
	EXPECT_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	for (size_t at = 0; at < FAR; at += STEP)
		source[at] = 7;
	addr = attach(get_rw(make_range(source, FAR)), 0, FAR, 0);
	EXPECT_EQ(peek(addr), 7);
	sigemptyset(&before);
	sigaddset(&before, SIGUSR2);
	EXPECT_EQ(sigprocmask(SIG_SETMASK, &before, NULL), 0);
	handler.next = (char *)addr + STEP;
	for (int i = 1; i <= 3; i++) {
		int status = -1;
		pid_t pid = fork();

		EXPECT(pid >= 0);
		sigprocmask(SIG_SETMASK, NULL, &after);
		if (pid == 0)
			_exit(memcmp(&before, &after, sizeof(long)) != 0 || source[0] != 7 || source[4 * STEP] != 7);
		EXPECT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_EQ(status, 0);
		EXPECT_EQ(memcmp(&before, &after, sizeof(long)), 0);
		EXPECT_EQ(handler.ran, i);
		EXPECT_EQ(handler.seen, 7);
	}
}
