/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where processes find each other, where lines of the log go, and what is left at the end. */
#include "harness.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* A new folder that others may put something in, but not take it away. */
static const char *fresh(void)
{
	static char path[64];

	strcpy(path, "/tmp/xpmem-case-XXXXXX");
	EXPECT(mkdtemp(path) != NULL);
	EXPECT_EQ(chmod(path, 01777), 0);
	return path;
}

/* Entries of a folder whose names begin so; -1 if there is none. */
static int entries(const char *path, const char *prefix)
{
	struct dirent *entry;
	DIR *folder = opendir(path);
	int n = 0;

	while (folder && (entry = readdir(folder)))
		n += entry->d_name[0] != '.' && !strncmp(entry->d_name, prefix, strlen(prefix));
	if (!folder)
		return -1;
	closedir(folder);
	return n;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where)
{
	(void)about, (void)kind, (void)where;
	return remove(path);
}

static void remove_all(const char *path)
{
	EXPECT_EQ(nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void only_user(void)
{
	if (backend != BACKEND_USER)
		skip_case("there are no sockets");
}

/* The errno of xpmem_make in a new process with this XPMEM_DIR; 0 if it works. */
static int make_with(const char *folder)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		setenv("XPMEM_DIR", folder, 1);
		_exit(make_range(anonymous(PAGE), PAGE) > 0 ? 0 : errno);
	}
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int make_refused(const char *folder)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		setenv("XPMEM_DIR", folder, 1);
		errno = 0;
		_exit(api->make(anonymous(PAGE), PAGE, XPMEM_PERMIT_MODE, (void *)0600) == -1 ?
			      errno : 255);
	}
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT(WIFEXITED(status));
	return WEXITSTATUS(status);
}

CASE(folder_refused, "a folder that is none, or in which others could take what is put there, is refused")
{
	static char longest[2000];
	const char *path;
	char inner[128];

	only_user();
	path = fresh();
	EXPECT_EQ(make_refused(""), ENOSYS);
	EXPECT_EQ(make_refused("relative"), ENOSYS);
	memset(longest, 'x', sizeof longest - 1);
	longest[0] = '/';
	EXPECT_EQ(make_refused(longest), ENOSYS);
	EXPECT_EQ(make_refused("/nowhere/at/all"), ENOSYS);
	EXPECT_EQ(make_refused("/proc/self/maps"), ENOSYS);
	EXPECT_EQ(chmod(path, 0777), 0);
	EXPECT_EQ(make_refused(path), ENOSYS);
	EXPECT_EQ(chmod(path, 0770), 0);
	EXPECT_EQ(make_refused(path), ENOSYS);
	EXPECT_EQ(entries(path, ""), 0);
	/* And these will do. */
	EXPECT_EQ(chmod(path, 0700), 0);
	EXPECT_EQ(make_with(path), 0);
	snprintf(inner, sizeof inner, "%s/link", path);
	EXPECT_EQ(symlink(path, inner), 0);
	EXPECT_EQ(make_with(inner), 0);
	remove_all(path);
}

CASE(folder_any_umask, "whatever the umask, a user has a folder to use")
{
	struct stat about;
	const char *path;
	char name[128];

	only_user();
	path = fresh();
	umask(0777);
	EXPECT_EQ(make_with(path), 0);
	umask(0);
	EXPECT_EQ(make_with(path), 0);
	snprintf(name, sizeof name, "%s/xpmem-%d", path, (int)geteuid());
	EXPECT_EQ(stat(name, &about), 0);
	EXPECT_EQ(about.st_mode & 07777, 0711);
	/* One that an earlier version has made. */
	EXPECT_EQ(chmod(name, 0), 0);
	EXPECT_EQ(make_with(path), 0);
	umask(022);
	remove_all(path);
}

static void meet(const char *path)
{
	struct peer p;
	char *source = anonymous(PAGE);
	long addr;

	setenv("XPMEM_DIR", path, 1);
	p = spawn();
	source[0] = 9;
	addr = share(&p, source, PAGE);
	EXPECT_EQ(r_peek(&p, addr), 9);
	quit(&p);
}

CASE(folder_taken, "who finds the folder taken by somebody else has a second place, and is found there")
{
	const char *path;
	char name[128];

	only_user();
	path = fresh();
	snprintf(name, sizeof name, "%s/xpmem-%d", path, (int)geteuid());
	EXPECT_EQ(mkdir(name, 0777), 0);
	if (is_root())
		EXPECT_EQ(chown(name, 12345, 12345), 0);
	else
		EXPECT_EQ(chmod(name, 0777), 0);
	meet(path);
	EXPECT_EQ(entries(name, ""), 0);
	remove_all(path);
}

CASE(folder_taken_by_link, "a link in the place of the folder is not followed")
{
	const char *path;
	char name[128], there[128];

	only_user();
	path = fresh();
	snprintf(name, sizeof name, "%s/xpmem-%d", path, (int)geteuid());
	snprintf(there, sizeof there, "%s/elsewhere", path);
	EXPECT_EQ(mkdir(there, 0700), 0);
	EXPECT_EQ(symlink(there, name), 0);
	meet(path);
	EXPECT_EQ(entries(there, ""), 0);
	remove_all(path);
}

CASE(folder_swept, "a socket that a killed process has left is removed by the next one that starts")
{
	const char *path;
	char name[128];
	/* Beside the socket, the link by which the module's id is found. */
	int status, up[2], left = over_both() ? 2 : 1;
	pid_t pid, service;
	char byte;

	only_user();
	path = fresh();
	snprintf(name, sizeof name, "%s/xpmem-%d", path, (int)geteuid());
	setenv("XPMEM_DIR", path, 1);
	EXPECT_EQ(pipe(up), 0);
	EXPECT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	pid = fork();
	if (pid == 0) {
		byte = make_all() > 0;
		if (write(up[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	EXPECT_EQ(read(up[0], &byte, 1), 1);
	EXPECT_EQ(entries(name, ""), left);
	/* Neither can do anything for the other. */
	service = service_beside(pid);
	EXPECT(service > 0);
	EXPECT_EQ(kill(pid, SIGSTOP), 0);
	EXPECT(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	EXPECT_EQ(kill(service, SIGKILL), 0);
	EXPECT_EQ(kill(pid, SIGKILL), 0);
	EXPECT(waitpid(pid, &status, 0) == pid);
	/* It has been left to us. Until it is gone its socket answers. */
	EXPECT(waitpid(service, &status, __WALL) == service);
	EXPECT_EQ(entries(name, ""), left);
	EXPECT_EQ(make_with(path), 0);
	for (int i = 0; entries(name, "") != 0; i++) {
		EXPECT(i < 500);
		usleep(10000);
	}
	remove_all(path);
}

CASE(log_file_is_none, "lines that cannot go to the file that was named keep nobody waiting")
{
	const char *path;
	char fifo[128];
	const char *const names[] = { fifo, "/dev/null", "/dev/watchdog", path = fresh(),
				      "/nowhere/at/all" };

	snprintf(fifo, sizeof fifo, "%s/fifo", path);
	EXPECT_EQ(mkfifo(fifo, 0600), 0);
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			/* What goes to standard error instead is not to be seen here. */
			EXPECT(freopen("/dev/null", "w", stderr) != NULL);
			setenv("XPMEM_DEBUG", "1,stats", 1);
			setenv("XPMEM_DEBUG_FILE", names[i], 1);
			alarm(20);
			exit(make_all() > 0 ? 0 : 1);
		}
		EXPECT(waitpid(pid, &status, 0) == pid);
		EXPECT_EQ(status, 0);
	}
	remove_all(path);
}

CASE(nothing_is_left, "who ends leaves no process to whom its children fall")
{
	int status;
	pid_t pid;

	only_user();
	EXPECT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	pid = fork();
	if (pid == 0)
		exit(make_all() > 0 ? 0 : 1);
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT_EQ(status, 0);
	errno = 0;
	EXPECT_EQ(waitpid(-1, &status, __WALL), -1);
	EXPECT_EQ(errno, ECHILD);
}

CASE(locked_memory_limit, "where all memory is locked up to a limit, it works or is refused as documented")
{
	struct rlimit limit;
	long made;

	EXPECT_EQ(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (limit.rlim_max > 64 << 20)
		limit.rlim_max = 64 << 20;
	limit.rlim_cur = limit.rlim_max;
	EXPECT_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		skip_case("memory may not be locked");
	errno = 0;
	made = api->make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
	EXPECT(made > 0 || errno == ENOSYS || errno == ENOMEM);
}

#ifdef CONFORMANCE_STATIC
/* Only a program without shared libraries can be run as another user from anywhere. */
CASE(secure_execution, "a program with more rights than its caller reads no variable that names a file")
{
	const char *path;
	char program[128], log[128], buffer[65536];
	int from, to, status;
	ssize_t n;
	pid_t pid;

	if (!is_root())
		skip_case("needs root");
	path = fresh();
	snprintf(program, sizeof program, "%s/program", path);
	snprintf(log, sizeof log, "%s/log", path);
	from = open("/proc/self/exe", O_RDONLY);
	to = open(program, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
	EXPECT(from >= 0 && to >= 0);
	while ((n = read(from, buffer, sizeof buffer)) > 0)
		EXPECT_EQ(write(to, buffer, (size_t)n), n);
	close(from);
	close(to);
	for (int secure = 0; secure < 2; secure++) {
		EXPECT_EQ(chown(program, secure ? 12345 : 0, 0), 0);
		EXPECT_EQ(chmod(program, secure ? 04755 : 0755), 0);
		pid = fork();
		if (pid == 0) {
			setenv("XPMEM_DEBUG", "1,stats", 1);
			setenv("XPMEM_DEBUG_FILE", log, 1);
			setenv("XPMEM_DIR", path, 1);
			EXPECT(freopen("/dev/null", "w", stdout) != NULL);
			EXPECT(freopen("/dev/null", "w", stderr) != NULL);
			execl(program, program, "errno_untouched", NULL);
			_exit(125);
		}
		EXPECT(waitpid(pid, &status, 0) == pid);
		EXPECT(WIFEXITED(status) && WEXITSTATUS(status) != 125);
		/* Read by the one, and not by the other. */
		EXPECT_EQ(access(log, F_OK), secure ? -1 : 0);
		if (!secure)
			EXPECT_EQ(unlink(log), 0);
		EXPECT_EQ(entries(path, "xpmem-12345"), 0);
	}
	remove_all(path);
}
#endif
