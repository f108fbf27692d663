/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * odd_process LIBXPMEM [CASE]: processes that are short of something, or arranged
 * in another way than most, adopt and write.
 */
#include "files.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/time.h>

static void limit(int what, rlim_t soft)
{
	struct rlimit r = { soft, soft };

	if (setrlimit(what, &r))
		_exit(9);
}

static unsigned long no_descriptor(const struct calls *c)
{
	limit(RLIMIT_NOFILE, 0);
	return both_files(c);
}

/* Takes as many mappings as there can be, but for one; 0 if they are too many. */
static int take_mappings(void)
{
	size_t page = getpagesize(), i, n = 0;
	FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
	char *all;

	if (!f || fscanf(f, "%zu", &n) != 1 || n > 1 << 17)
		return 0;
	fclose(f);
	all = mmap(NULL, n * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (i = 1; i < n; i += 2)
		if (mprotect(all + i * page, page, PROT_READ))
			break;
	return 1;
}

static unsigned long one_mapping(const struct calls *c)
{
	int file = memfd_create("one", 0);
	hwloc_topology_t t = small;
	unsigned long said;

	if (!take_mappings())
		return 0;
	said = both_files(c);
	return c->write(t, file, 0, addr, length, 0) ? answer(-1) : said;
}

/* What is left of a write is not in the way of a larger one. */
static unsigned long one_mapping_for_more(const struct calls *c)
{
	int file = memfd_create("more", 0);
	void *at, *last = NULL;

	if (!take_mappings())
		return 0;
	/* No two of these are one. */
	while ((at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0)) != MAP_FAILED)
		last = at;
	munmap(last, 4096);
	if (c->write(small, file, 0, addr, length, 0)
	    || c->write(small, file, 0, addr, length, 0)
	    || c->write(large, file, 0, addr, large_length, 0)
	    || c->write(small, file, 0, addr, length, 0))
		return answer(-1);
	return both_files(c);
}

/* Stock writes without memory of the program's own. Ours needs some words, of
 * which a program has as many on its heap. */
static unsigned long no_more_data(const struct calls *c)
{
	static const char *const machines[] = { "pack:4 [numa] core:64 pu:2", "pu:2048", "pu:4000" };
	size_t n[3], pages[6];
	int file = memfd_create("data", 0), i;
	FILE *f = fopen("/proc/self/statm", "r");
	hwloc_topology_t t[3];

	if (c->write(small, file, 0, addr, length, 0))
		return answer(-1);
	for (i = 0; i < 3; i++) {
		t[i] = machine(machines[i]);
		if (stock.get_length(t[i], &n[i], 0))
			return 0;
	}
	for (i = 0; i < 6; i++)
		if (!f || fscanf(f, "%zu", &pages[i]) != 1)
			return 0;
	fclose(f);
	free(malloc(65536));
	limit(RLIMIT_DATA, pages[5] * getpagesize() + 65536);
	for (i = 0; i < 3; i++)
		if (c->write(t[i], file, 0, addr, n[i], 0))
			return answer(-1) + ((i + 1ul) << 32);
	return SUCCESS;
}

static unsigned long no_locked_memory(const struct calls *c)
{
	limit(RLIMIT_MEMLOCK, 0);
	return everything(c);
}

static unsigned long all_locked(const struct calls *c)
{
	/* Not everybody may. */
	mlockall(MCL_CURRENT | MCL_FUTURE);
	return everything(c);
}

static unsigned long small_files(const struct calls *c)
{
	signal(SIGXFSZ, SIG_IGN);
	limit(RLIMIT_FSIZE, 4096);
	return everything(c);
}

static unsigned long no_processes(const struct calls *c)
{
	limit(RLIMIT_NPROC, 0);
	return everything(c);
}

static unsigned long short_of_time(const struct calls *c)
{
	struct rlimit r = { 20, 30 };

	setrlimit(RLIMIT_CPU, &r);
	return everything(c);
}

static unsigned long without_standard_files(const struct calls *c)
{
	close(0);
	close(1);
	close(2);
	return everything(c);
}

static unsigned long file_is_descriptor_0(const struct calls *c)
{
	dup2(fd, 0);
	return adopted(c, 0, 0, addr, length);
}

static unsigned long not_dumpable(const struct calls *c)
{
	prctl(PR_SET_DUMPABLE, 0);
	return everything(c);
}

static unsigned long nobody(const struct calls *c)
{
	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		return 0;
	return everything(c);
}

static unsigned long without_proc(const struct calls *c)
{
	if (chroot("/dev/shm") || chdir("/"))
		return 0;
	return both_files(c);
}

static unsigned long read_implies_exec(const struct calls *c)
{
	personality(READ_IMPLIES_EXEC);
	return both_files(c);
}

static unsigned long old_layout(const struct calls *c)
{
	personality(ADDR_COMPAT_LAYOUT | ADDR_NO_RANDOMIZE);
	return everything(c);
}

/* In a thread. */
struct task {
	const struct calls *c;
	unsigned long (*run)(const struct calls *);
	unsigned long said;
};

static void *thread(void *data)
{
	struct task *task = data;

	task->said = task->run(task->c);
	return NULL;
}

static unsigned long in_thread(const struct calls *c, size_t stack, unsigned long (*run)(const struct calls *))
{
	struct task task = { c, run, 0 };
	pthread_attr_t attr;
	pthread_t id;

	pthread_attr_init(&attr);
	if (stack)
		pthread_attr_setstacksize(&attr, stack);
	if (pthread_create(&id, &attr, thread, &task))
		return 0;
	pthread_join(id, NULL);
	return task.said;
}

static unsigned long a_thread(const struct calls *c)
{
	return in_thread(c, 0, everything);
}

static unsigned long small_stack(const struct calls *c)
{
	return in_thread(c, PTHREAD_STACK_MIN, both_files);
}

static unsigned long cancelled_later(const struct calls *c)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_cancel(pthread_self());
	return everything(c);
}

static void nothing(int signal)
{
	(void)signal;
}

static unsigned long interrupted(const struct calls *c)
{
	struct itimerval often = { { 0, 200 }, { 0, 200 } };
	struct sigaction act = { .sa_handler = nothing };
	unsigned long sum = 0;
	int i;

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (i = 0; i < 50; i++)
		sum = everything(c);
	return sum;
}

static unsigned long on_signal_stack_said;
static const struct calls *on_signal_calls;
static void handler(int signal)
{
	(void)signal;
	on_signal_stack_said = both_files(on_signal_calls);
}

static unsigned long on_signal_stack(const struct calls *c)
{
	stack_t ss = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
	struct sigaction act = { .sa_handler = handler, .sa_flags = SA_ONSTACK };

	on_signal_calls = c;
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR1, &act, NULL);
	raise(SIGUSR1);
	return on_signal_stack_said;
}

static unsigned long after_fork(const struct calls *c, int before)
{
	unsigned long said = before ? both_files(c) : 0;
	int ends[2];

	if (pipe(ends))
		return 0;
	if (child()) {
		said = everything(c);
		_exit(write(ends[1], &said, sizeof(said)) != sizeof(said));
	}
	if (read(ends[0], &said, sizeof(said)) != sizeof(said))
		return 0;
	return said;
}

static unsigned long in_child(const struct calls *c)
{
	return after_fork(c, 0);
}

static unsigned long in_child_of_adopter(const struct calls *c)
{
	return after_fork(c, 1);
}

/* The child shares this one's memory, and is gone first. */
static unsigned long in_vfork(const struct calls *c)
{
	static volatile unsigned long said;
	pid_t pid = vfork();

	if (pid == 0) {
		said = both_files(c);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return said;
}

static int cloned(void *data)
{
	return thread(data) != NULL;
}

/* A task that shares memory and is no thread of libc's. */
static unsigned long in_clone(const struct calls *c)
{
	struct task task = { c, both_files, 0 };
	char *stack = malloc(1 << 18);
	int pid = clone(cloned, stack + (1 << 18), CLONE_VM | SIGCHLD, &task);

	waitpid(pid, NULL, 0);
	return task.said;
}

/* Adopted, copied, destroyed; the copy is used. */
static unsigned long copy_outlives(const struct calls *c)
{
	hwloc_topology_t t, copy;

	if (c->adopt(&t, fd, 0, addr, length, 0))
		return answer(-1);
	hwloc_topology_dup(&copy, t);
	hwloc_topology_destroy(t);
	return walk(copy);
}

/* The file is gone before it is used. */
static unsigned long closed_first(const struct calls *c)
{
	hwloc_topology_t t;
	unsigned long sum;

	if (c->adopt(&t, large_fd, 0, addr, large_length, 0))
		return answer(-1);
	close(large_fd);
	sum = walk(t);
	hwloc_topology_destroy(t);
	return sum;
}

/* No topology of the process lives: hwloc gives all its parts back. */
static unsigned long only_one(const struct calls *c)
{
	hwloc_topology_destroy(small);
	hwloc_topology_destroy(large);
	return both_files(c) ^ both_files(c);
}

static unsigned long binds(const struct calls *c)
{
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	hwloc_topology_t t, native;
	size_t n;
	int file = memfd_create("native", 0);
	unsigned long said;

	hwloc_topology_init(&native);
	hwloc_topology_load(native);
	if (c->get_length(native, &n, 0) || c->write(native, file, 0, addr, n, 0)
	    || c->adopt(&t, file, 0, addr, n, 0))
		return answer(-1);
	hwloc_get_cpubind(t, set, 0);
	said = hwloc_bitmap_weight(set);
	hwloc_bitmap_singlify(set);
	said = said * 100 + answer(hwloc_set_cpubind(t, set, 0)) % 50;
	hwloc_get_last_cpu_location(t, set, 0);
	said = said * 100 + hwloc_bitmap_weight(set);
	hwloc_topology_destroy(t);
	return said;
}

#define CASE(name) { #name, name, 0 }
static const struct beside cases[] = {
	CASE(no_descriptor), CASE(one_mapping), CASE(one_mapping_for_more), CASE(no_more_data), CASE(no_locked_memory), CASE(all_locked),
	/* Ours needs the length, as stock does; what a write leaves is not. */
	{ "small_files", small_files, BETTER },
	CASE(no_processes), CASE(short_of_time), CASE(without_standard_files),
	CASE(file_is_descriptor_0), CASE(not_dumpable), CASE(nobody), CASE(without_proc),
	CASE(read_implies_exec), CASE(old_layout), 
	CASE(a_thread), CASE(small_stack), CASE(cancelled_later), CASE(interrupted),
	CASE(on_signal_stack), CASE(in_child), CASE(in_child_of_adopter), CASE(in_vfork),
	CASE(in_clone), CASE(copy_outlives), CASE(closed_first), CASE(only_one), CASE(binds),
	{ NULL, NULL, 0 },
};

int main(int argc, char **argv)
{
	return run_cases(cases, argc, argv);
}
