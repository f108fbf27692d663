/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The end of a service where what it would do, or would look at, is not to be had. */
#include "harness.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

/* A domain; shown nowhere, and without no_new_privs. */
static int enter_landlock(uint64_t files, uint64_t net, uint64_t scope)
{
	const uint64_t attributes[3] = { files, net, scope };
	size_t known = scope ? 3 : net ? 2 : 1;
	int set = (int)syscall(444, attributes, known * sizeof files, 0);

	return set < 0 ? -1 : (int)syscall(446, set, 0);
}

static void in_a_domain(uint64_t files, uint64_t net, uint64_t scope)
{
	struct peer p = spawn();
	char *source = anonymous(PAGE);
	pid_t before;
	long addr, made;

	if (backend != BACKEND_USER || !is_root())
		skip_case("needs a service, and root");
	source[0] = 7;
	addr = share(&p, source, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 7);
	before = service_beside(getpid());
	EXPECT(before > 0);
	if (enter_landlock(files, net, scope))
		skip_case("this kernel has no such sandbox");
	made = make_all();
	/* One that is outside could not be signalled. */
	EXPECT(service_beside(getpid()) != before);
	EXPECT_EQ(kill(service_beside(getpid()), 0), 0);
	for (int i = 0; r_peek(&p, addr) != -SIGBUS; i++) {
		EXPECT(i < 3000);
		usleep(10000);
	}
	EXPECT_EQ(source[0], 7);
	addr = r_attach(&p, r_get(&p, made, XPMEM_RDWR), (long)source, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 7);
	quit(&p);
}

CASE(rights_landlock_files, "after Landlock alone, of files, a call finds no task outside of the domain")
{
	/* Nobody makes a symbolic link. */
	in_a_domain(1 << 12, 0, 0);
}

CASE(rights_landlock_signals, "after Landlock alone, of signals, a call finds no task outside of the domain")
{
	in_a_domain(0, 0, 2);
}

CASE(rights_landlock_undumpable, "the same in a program that lets nobody look into it")
{
	EXPECT_EQ(prctl(PR_SET_DUMPABLE, 0), 0);
	in_a_domain(0, 0, 2);
}

CASE(rights_landlock_network, "after Landlock alone, of the network, a call finds no task outside of the domain")
{
	/* Nobody binds a TCP port. */
	in_a_domain(0, 1, 0);
}

static void ends_untraceable(int sig)
{
	const size_t size = 1 << 20;
	char *source;
	struct peer p;
	int status = 0;
	pid_t child;
	long addr;

	if (backend != BACKEND_USER)
		skip_case("there is no service");
	drop_privileges();
	p = spawn();
	source = anonymous(size);
	fill(source, size, 1);
	addr = share(&p, source, size);
	EXPECT_EQ(r_verify(&p, addr, size, 1), 0);
	EXPECT_EQ(prctl(PR_SET_DUMPABLE, 0), 0);
	EXPECT_EQ(kill(service_beside(getpid()), sig), 0);
	/* Peers are cut off all the same, and see nothing that is written afterwards. */
	for (int i = 0; r_peek(&p, addr) != -SIGBUS; i++) {
		EXPECT(i < 3000);
		usleep(10000);
	}
	EXPECT_EQ(verify((long)source, size, 1), 0);
	fill(source, size, 2);
	EXPECT_EQ(r_peek(&p, addr + PAGE), -SIGBUS);
	/* A child has what was shared not at all, and cannot write into its parent. */
	EXPECT_EQ(prctl(PR_SET_DUMPABLE, 1), 0);
	child = fork();
	EXPECT(child >= 0);
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		source[0] = 3;
		_exit(0);
	}
	EXPECT_EQ(waitpid(child, &status, 0), child);
	EXPECT(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
	EXPECT_EQ(verify((long)source, size, 2), 0);
	EXPECT_EQ(munmap(source, size), 0);
	/* The next service, if one begins, serves what is there then. */
	source = anonymous(size);
	fill(source, size, 4);
	errno = 0;
	addr = api->make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
	if (addr == -1) {
		EXPECT_EQ(errno, ENOSYS);
	} else {
		addr = r_attach(&p, r_get(&p, addr, XPMEM_RDWR), (long)source, size);
		EXPECT_EQ(r_verify(&p, addr, size, 4), 0);
	}
	quit(&p);
}

CASE(untraceable_killed, "a program that may not be traced, and its service is killed: nobody sees it any more")
{
	ends_untraceable(SIGKILL);
}

CASE(untraceable_stopped, "a program that may not be traced, and its service is stopped: nobody sees it any more")
{
	ends_untraceable(SIGSTOP);
}
