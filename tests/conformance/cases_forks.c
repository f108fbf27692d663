/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Children that are made past libc's fork. */
#include "harness.h"

#include <linux/sched.h>
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
