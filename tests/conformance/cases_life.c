/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Programs that lock themselves in, end oddly, or whose helper is harmed: they go on, and end, as without. */
#include "harness.h"

#include <dirent.h>
#include <grp.h>
#include <linux/capability.h>
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

/* ---- tasks of the library: threads of the program, and children that share its memory */

/* The lines of /proc/PID/status that tell what a task may do. */
static void rights_of(pid_t tid, char *into, size_t room)
{
	static const char *const keys[] = { "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:",
					    "Seccomp" };
	char name[64], line[4096];
	FILE *f;

	into[0] = 0;
	snprintf(name, sizeof name, "/proc/%d/status", tid);
	f = fopen(name, "r");
	while (f && fgets(line, sizeof line, f))
		for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				strncat(into, line, room - strlen(into) - 1);
	if (f)
		fclose(f);
}

pid_t service_beside(pid_t program)
{
	char name[300], comm[32] = "";
	pid_t found = 0, child;
	struct dirent *entry;
	DIR *tasks;
	FILE *f;

	snprintf(name, sizeof name, "/proc/%d/task", program);
	tasks = opendir(name);
	while (tasks && (entry = readdir(tasks)) && !found) {
		snprintf(name, sizeof name, "/proc/%d/task/%s/children", program, entry->d_name);
		f = fopen(name, "r");
		while (f && !found && fscanf(f, "%d", &child) == 1) {
			FILE *g;

			snprintf(name, sizeof name, "/proc/%d/comm", child);
			g = fopen(name, "r");
			if (g && fgets(comm, sizeof comm, g) && !strcmp(comm, "xpmem-service\n"))
				found = child;
			if (g)
				fclose(g);
		}
		if (f)
			fclose(f);
	}
	if (tasks)
		closedir(tasks);
	return found;
}

/* Whether a task of ours may do what this thread may not. */
static int any_other_rights(void)
{
	char own[16384], theirs[16384];
	pid_t service = service_beside(getpid());
	struct dirent *entry;
	int other = 0;
	DIR *tasks = opendir("/proc/self/task");

	rights_of((pid_t)syscall(SYS_gettid), own, sizeof own);
	while (tasks && (entry = readdir(tasks)))
		if (atoi(entry->d_name)) {
			rights_of(atoi(entry->d_name), theirs, sizeof theirs);
			other |= theirs[0] && strcmp(own, theirs);
		}
	if (tasks)
		closedir(tasks);
	if (service) {
		rights_of(service, theirs, sizeof theirs);
		other |= theirs[0] && strcmp(own, theirs);
	}
	return other;
}

/* ---- changes of what a program may do */

static long f_anonymous(long size, long value, long c, long d)
{
	(void)c, (void)d;
	return (long)memset(anonymous((size_t)size), (int)value, (size_t)size);
}

static long make_all_or_not(void)
{
	return api->make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
}

static int raw_setuid(void)
{
	return (int)syscall(SYS_setresuid, 65534, 65534, 65534);
}

static int libc_setuid(void)
{
	return setuid(65534);
}

static int libc_setgroups(void)
{
	const gid_t groups[2] = { 7, 9 };

	return setgroups(2, groups);
}

static int raw_setegid(void)
{
	return (int)syscall(SYS_setresgid, -1, 65534, -1);
}

static int drop_capability(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &head, sets))
		return -1;
	sets[0].effective &= ~(1u << CAP_CHOWN);
	sets[0].permitted &= ~(1u << CAP_CHOWN);
	return (int)syscall(SYS_capset, &head, sets);
}

static int no_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int filter(void)
{
	return no_new_privileges() || refuse_signals_by_seccomp() ? -1 : 0;
}

static void *sleeper(void *argument)
{
	(void)argument;
	for (;;)
		pause();
	return NULL;
}

/* With change, the memory is the program's alone within a moment, and it goes on. */
static void changed(int (*change)(void), int threads, int may_serve)
{
	struct peer p = spawn(), owner = spawn();
	size_t size = 1 << 20;
	char *source = anonymous(size), *theirs;
	long addr, window, made;
	pthread_t thread;

	if (backend != BACKEND_USER)
		skip_case("there is no service");
	for (int i = 0; i < threads; i++)
		EXPECT(pthread_create(&thread, NULL, sleeper, NULL) == 0);
	fill(source, size, 1);
	addr = share(&p, source, size);
	EXPECT_EQ(r_verify(&p, addr, size, 1), 0);
	/* It is an attacher, too. */
	theirs = (char *)call(&owner, f_anonymous, size, 0x5a, 0);
	window = attach(get_rw(call(&owner, f_make_all, 0, 0, 0)), (long)theirs, size, 0);
	EXPECT(window != -1);
	EXPECT_EQ(peek(window), 0x5a);

	EXPECT_EQ(change(), 0);
	for (int i = 0; any_other_rights(); i++) {
		EXPECT(i < 500);
		usleep(10000);
	}
	EXPECT_EQ(verify((long)source, size, 1), 0);
	fill(source, size, 2);
	EXPECT_EQ(peek(window), -SIGBUS);
	EXPECT_EQ(poke(window + (long)size - 1, 1), -SIGBUS);
	for (int i = 0; r_peek(&p, addr) != -SIGBUS; i++) {
		EXPECT(i < 500);
		usleep(10000);
	}
	EXPECT_EQ(r_poke(&p, addr + (long)size - 1, 1), -SIGBUS);
	EXPECT_EQ(verify((long)source, size, 2), 0);

	errno = 0;
	made = make_all_or_not();
	if (may_serve) {
		EXPECT(made > 0);
		addr = r_attach(&p, r_get(&p, made, XPMEM_RDWR), (long)source, size);
		EXPECT_EQ(r_verify(&p, addr, size, 2), 0);
		EXPECT_EQ(api->detach((void *)window), 0);
		EXPECT(!mapped(window));
	} else if (made == -1) {
		EXPECT_EQ(errno, ENOSYS);
	}
	EXPECT(!any_other_rights());
	EXPECT_EQ(munmap(source, size), 0);
	quit(&p);
	quit(&owner);
}

#define CHANGE(name, change, threads, may_serve, as_root, what)                            \
	CASE(name, what)                                                                  \
	{                                                                                 \
		if (as_root && !is_root())                                                \
			skip_case("needs root");                                          \
		changed(change, threads, may_serve);                                      \
	}

CHANGE(rights_setuid_raw, raw_setuid, 0, 0, 1, "after a raw setresuid no task has the old rights")
CHANGE(rights_setuid, libc_setuid, 3, 0, 1, "after setuid no task has the old rights")
CHANGE(rights_setgroups, libc_setgroups, 3, 1, 1, "after setgroups no task has the old groups")
CHANGE(rights_setgid_raw, raw_setegid, 0, 1, 1, "after a raw setresgid no task has the old group")
CHANGE(rights_capability, drop_capability, 0, 1, 1, "a capability that is dropped is dropped by all")
CHANGE(rights_no_new_privs, no_new_privileges, 0, 1, 0, "after PR_SET_NO_NEW_PRIVS no task could gain any")
CHANGE(rights_filter, filter, 0, 0, 0, "after a filter of system calls no task goes without it")

static void served_anew(int (*change)(void))
{
	struct peer p = spawn();
	char *source = anonymous(PAGE);
	long addr, made;
	pid_t before;

	if (backend != BACKEND_USER || !is_root())
		skip_case("needs a service, and root");
	source[0] = 7;
	addr = share(&p, source, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 7);
	before = service_beside(getpid());
	EXPECT_EQ(change(), 0);
	made = make_all();
	EXPECT(service_beside(getpid()) != before);
	EXPECT(!any_other_rights());
	EXPECT_EQ(r_peek(&p, addr), -SIGBUS);
	addr = r_attach(&p, r_get(&p, made, XPMEM_RDWR), (long)source, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 7);
	quit(&p);
}

CASE(rights_at_a_call, "a call after a change is served with the new rights, or not at all")
{
	served_anew(libc_setgroups);
}

/* Root without rights of its own: no other task is shown this. */
static int no_root(void)
{
	return prctl(PR_SET_SECUREBITS, 3);
}

CASE(rights_securebits, "a call after a change of secure bits finds no task with the old ones")
{
	served_anew(no_root);
}

/* ---- a service that is killed or stopped */

static void harmed_owner(int sig)
{
	struct peer p = spawn();
	size_t size = 4 << 20;
	char *source = anonymous(size);
	long addr, made, seen;
	pid_t service, child;
	int status;

	if (backend != BACKEND_USER)
		skip_case("there is no service");
	fill(source, size, 1);
	addr = share(&p, source, size);
	EXPECT_EQ(r_verify(&p, addr, size / 2, 1), 0);
	service = service_beside(getpid());
	EXPECT(service > 0);
	EXPECT_EQ(kill(service, sig), 0);
	/* Until it is cut off, it may see what is there. */
	for (int i = 0; (seen = r_peek(&p, addr + (long)size - 1)) != -SIGBUS; i++) {
		EXPECT_EQ(seen, peek((long)source + (long)size - 1));
		EXPECT(i < 500);
		usleep(10000);
	}
	EXPECT_EQ(r_poke(&p, addr, 1), -SIGBUS);
	EXPECT_EQ(verify((long)source, size, 1), 0);
	child = fork();
	EXPECT(child >= 0);
	if (child == 0)
		_exit(verify((long)source, size, 1) ? 1 : 0);
	EXPECT(waitpid(child, &status, 0) == child);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(munmap(source, size / 2), 0);
	made = make_all();
	addr = r_attach(&p, r_get(&p, made, XPMEM_RDWR), (long)source + (long)size / 2, size / 2);
	EXPECT_EQ(r_peek(&p, addr), peek((long)source + (long)size / 2));
	quit(&p);
}

CASE(owners_service_killed, "an owner whose service is killed goes on, with its memory its own")
{
	harmed_owner(SIGKILL);
}

CASE(owners_service_stopped, "an owner whose service is stopped goes on, with its memory its own")
{
	harmed_owner(SIGSTOP);
}

static void harmed_attacher(int sig)
{
	struct peer owner = spawn();
	size_t size = 4 << 20;
	char *theirs = (char *)call(&owner, f_anonymous, size, 0x5a, 0);
	long window, seen;
	pid_t service;

	if (backend != BACKEND_USER)
		skip_case("there is no service");
	window = attach(get_rw(call(&owner, f_make_all, 0, 0, 0)), (long)theirs, size, 0);
	EXPECT(window != -1);
	EXPECT_EQ(peek(window), 0x5a);
	service = service_beside(getpid());
	EXPECT(service > 0);
	EXPECT_EQ(kill(service, sig), 0);
	/* It may see what is there until it is cut off, and never a page of zeros. */
	seen = peek(window + 3 * (1 << 20));
	EXPECT(seen == 0x5a || seen == -SIGBUS);
	for (int i = 0; peek(window) != -SIGBUS; i++) {
		EXPECT_EQ(peek(window), 0x5a);
		EXPECT(i < 500);
		usleep(10000);
	}
	EXPECT_EQ(poke(window + 3 * (1 << 20), 1), -SIGBUS);
	for (size_t at = 0; at < size; at += PAGE)
		EXPECT_EQ(r_peek(&owner, (long)theirs + (long)at), 0x5a);
	EXPECT_EQ(api->detach((void *)window), 0);
	quit(&owner);
}

CASE(attachers_service_killed, "an attacher whose service is killed sees SIGBUS, no zeros, and loses no store")
{
	harmed_attacher(SIGKILL);
}

CASE(attachers_service_stopped, "an attacher whose service is stopped sees SIGBUS in the end")
{
	harmed_attacher(SIGSTOP);
}
