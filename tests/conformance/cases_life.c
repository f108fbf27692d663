/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that lock themselves in, end oddly, or whose helper is harmed: they go on, and end, as without. */
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* From now on no signal can be sent to another process. */
static int refuse_signals_by_landlock(void)
{
	const uint64_t scope[3] = { 0, 0, 2 };
	int set = (int)syscall(444, scope, sizeof scope, 0);

	return set < 0 ? -1 : (int)syscall(446, set, 0);
}

static int refuse_signals_by_seccomp(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void sandboxed(int (*refuse)(void))
{
	struct peer p = spawn();
	size_t size = 8 << 20;
	char *source = anonymous(size);
	long addr;

	fill(source, size, 1);
	addr = share(&p, source, size);
	EXPECT_EQ(r_verify(&p, addr, size, 1), 0);
	EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (refuse())
		skip_case("this kernel has no such sandbox");
	EXPECT_EQ(verify((long)source, size, 1), 0);
	EXPECT_EQ(munmap(source, size), 0);
	EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
	quit(&p);
}

CASE(sandbox_landlock, "a program that may signal nobody any more goes on, and its peers see it")
{
	sandboxed(refuse_signals_by_landlock);
}

CASE(sandbox_seccomp, "a program to which signals are refused by a filter goes on, and its peers see it")
{
	sandboxed(refuse_signals_by_seccomp);
}

static long leave_by_thread_exit(long a, long b, long c, long d)
{
	(void)a, (void)b, (void)c, (void)d;
	if (make_all() <= 0)
		return 1;
	pthread_exit(NULL);
}

CASE(last_thread_ends, "a program whose last thread ends by pthread_exit is at its end")
{
	int status = -1;
	pid_t pid = fork();

	EXPECT(pid >= 0);
	if (pid == 0)
		_exit((int)leave_by_thread_exit(0, 0, 0, 0));
	for (int i = 0; i < 1000 && waitpid(pid, &status, WNOHANG) == 0; i++)
		usleep(10000);
	if (status == -1)
		kill(pid, SIGKILL);
	EXPECT_EQ(status, 0);
}
