/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a program keeps for itself: descriptors, standard streams, signals. */
#include "harness.h"

#include <dirent.h>
#include <sys/prctl.h>

static int count_fds(int need_cloexec)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	int n = 0;

	EXPECT(folder != NULL);
	while ((entry = readdir(folder))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.' || fd == dirfd(folder))
			continue;
		n++;
		if (need_cloexec && fd > 2 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) {
			char link[64], name[128] = "";

			snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
			if (readlink(link, name, sizeof name - 1) >= 0)
				fail(__FILE__, __LINE__, "descriptor %d, %s, survives exec", fd, name);
		}
	}
	closedir(folder);
	return n;
}

static long f_count_fds(long cloexec, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return count_fds(cloexec);
}

static long f_count_tasks(long b, long c, long d, long e)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	long n = 0;

	(void)b, (void)c, (void)d, (void)e;
	while ((entry = readdir(folder)))
		n += entry->d_name[0] != '.';
	closedir(folder);
	return n;
}

CASE(descriptors, "descriptors close on exec, and their number does not grow, nor that of threads")
{
	struct peer p;
	char *source = anonymous(8 * PAGE);
	long segid, fds = 0, tasks = 0, own = 0, own_tasks = 0;

	/* What the runner was started with is not our business. */
	for (int fd = 3; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
	p = spawn();
	fill(source, 8 * PAGE, 1);
	segid = make_all();
	for (int i = 0; i < 200; i++) {
		long apid = r_get(&p, segid, XPMEM_RDWR);
		long addr = r_attach(&p, apid, (long)source, 8 * PAGE);

		EXPECT(addr != -1);
		EXPECT_EQ(r_verify(&p, addr, 8 * PAGE, 1), 0);
		if (i % 2)
			EXPECT_EQ(r_detach(&p, addr), 0);
		EXPECT_EQ(r_release(&p, apid), 0);
		api->remove(make_all());
		if (i == 20) {
			fds = call(&p, f_count_fds, 1, 0, 0);
			tasks = call(&p, f_count_tasks, 0, 0, 0);
			own = count_fds(1);
			own_tasks = f_count_tasks(0, 0, 0, 0);
		}
	}
	EXPECT(call(&p, f_count_fds, 1, 0, 0) <= fds);
	EXPECT(call(&p, f_count_tasks, 0, 0, 0) <= tasks);
	EXPECT(count_fds(1) <= own);
	EXPECT(f_count_tasks(0, 0, 0, 0) <= own_tasks);
	quit(&p);
}

static long child_counts(long fds, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	for (int i = 0; i < 8; i++)
		if (f_make_all(0, 0, 0, 0) <= 0)
			return 1;
	return count_fds(0) > fds ? 2 : 0;
}

CASE(reopen_leaks_nothing, "whatever the library opens again in a child, it closes what it had")
{
	long fds;

	make_all();
	fds = count_fds(0);
	for (int i = 0; i < 100; i++)
		make_all();
	EXPECT_EQ(count_fds(0), fds);
	/* A child's child, too: each inherits what the one before opened. */
	EXPECT_EQ(run_in_child(child_counts, fds, 0, 0, 0), 0);
	for (int i = 0; i < 20; i++)
		EXPECT_EQ(run_in_child(child_counts, fds, 0, 0, 0), 0);
	EXPECT_EQ(count_fds(0), fds);
}

CASE(no_standard_streams, "a program without standard streams keeps the library off 0, 1 and 2")
{
	struct peer p = spawn();
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		close(0);
		close(1);
		close(2);
		if (f_make_all(0, 0, 0, 0) <= 0)
			_exit(1);
		for (int fd = 0; fd < 3; fd++)
			if (fcntl(fd, F_GETFD) >= 0)
				_exit(2);
		_exit(0);
	}
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT_EQ(status, 0);
	quit(&p);
}

CASE(signals, "the program's signals go to its own threads, and calls survive them")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid;

	count_alarms(0);
	fill(source, 4 * PAGE, 1);
	segid = make_all();
	ualarm(500, 500);
	for (int i = 0; i < 200; i++) {
		long apid = get_rw(segid);
		long addr = attach(apid, (long)source, 4 * PAGE, 0);

		EXPECT(addr != -1);
		EXPECT_EQ(verify(addr, 4 * PAGE, 1), 0);
		EXPECT_EQ(api->release(apid), 0);
	}
	ualarm(0, 0);
	EXPECT(alarms > 0);
	EXPECT(api->remove(segid) == 0);
	quit(&p);
}
