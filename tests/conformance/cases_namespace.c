/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Containers that share the device, or the folder of sockets. */
#include "harness.h"

#include <sched.h>

static void across(int namespaces)
{
	struct peer p = spawn_in(namespaces);
	char *source = anonymous(8 * PAGE);
	long addr;

	fill(source, 8 * PAGE, 1);
	addr = share(&p, source, 8 * PAGE);
	EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&p, addr, 8 * PAGE, 2), 0);
	EXPECT_EQ(verify((long)source, 8 * PAGE, 2), 0);
	munmap(source, PAGE);
	EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
	EXPECT_EQ(r_detach(&p, addr), 0);
	quit(&p);
}

CASE(pid_namespace, "an attacher in another PID namespace")
{
	across(CLONE_NEWPID);
}

CASE(network_namespace, "an attacher in another network namespace")
{
	across(CLONE_NEWNET);
}

CASE(both_namespaces, "an attacher in other PID, network and IPC namespaces")
{
	across(CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC);
}

CASE(owner_in_pid_namespace, "owners with the same pid in two PID namespaces are two owners")
{
	char *source = anonymous(4 * PAGE);
	struct peer one = spawn_in(CLONE_NEWPID), two = spawn_in(CLONE_NEWPID), q = spawn();
	long a, b, at, bt;

	EXPECT_EQ(r_fill(&one, (long)source, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_fill(&two, (long)source, 4 * PAGE, 2), 0);
	a = call(&one, f_make_all, 0, 0, 0);
	b = call(&two, f_make_all, 0, 0, 0);
	EXPECT(a > 0 && b > 0 && a != b);
	at = r_attach(&q, r_get(&q, a, XPMEM_RDWR), (long)source, 4 * PAGE);
	bt = r_attach(&q, r_get(&q, b, XPMEM_RDWR), (long)source, 4 * PAGE);
	EXPECT_EQ(r_verify(&q, at, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_verify(&q, bt, 4 * PAGE, 2), 0);
	quit(&one);
	for (int i = 0; i < 2000 && r_peek(&q, at) != -SIGBUS; i++)
		usleep(1000);
	EXPECT_EQ(r_peek(&q, at), -SIGBUS);
	EXPECT_EQ(r_verify(&q, bt, 4 * PAGE, 2), 0);
	quit(&two);
	quit(&q);
}
