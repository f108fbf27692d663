/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runner of the cases: a process group and a time limit each. */
#include "harness.h"

#include <grp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <time.h>

const struct xpmem_api *api;
enum backend backend;

extern const struct test_case *const __start_xpmem_cases[];
extern const struct test_case *const __stop_xpmem_cases[];

/* For what hangs alone: a case takes long where the machine has much else to do. */
static int timeout_seconds = 120;
static int report_fd = 1;

void fail(const char *file, int line, const char *format, ...)
{
	char text[512];
	int n = snprintf(text, sizeof text, "  %s:%d: ", strrchr(file, '/') ? strrchr(file, '/') + 1 : file,
			 line);
	va_list ap;

	va_start(ap, format);
	n += vsnprintf(text + n, sizeof text - n - 1, format, ap);
	va_end(ap);
	if (n > (int)sizeof text - 2)
		n = sizeof text - 2;
	text[n++] = '\n';
	if (write(report_fd, text, n) < 0)
		_exit(3);
	_exit(1);
}

void skip_case(const char *why)
{
	dprintf(report_fd, "  %s\n", why);
	_exit(77);
}

/* ---- privileges */

int is_root(void)
{
	return geteuid() == 0;
}

long drop_to(long uid, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		return -1;
	/* As if started by that user, and not changed from root: owners of
	 * /proc/self files and ptrace rights hang on it. */
	prctl(PR_SET_DUMPABLE, 1);
	return 0;
}

void drop_privileges(void)
{
	if (is_root())
		EXPECT_EQ(drop_to(65534, 0, 0, 0), 0);
}

/* ---- the runner */

static const char *backend_name(void)
{
	static const char *const names[] = { "user", "kernel", "fake" };

	return names[backend];
}

static void find_backend(void)
{
	const char *name = getenv("XPMEM_CONFORMANCE_BACKEND");

	if (!name)
		name = getenv("XPMEM_BACKEND");
	if (!name || !strcmp(name, "auto"))
		name = access("/dev/xpmem", F_OK) ? "user" : "kernel";
	backend = !strcmp(name, "kernel") ? BACKEND_KERNEL :
		  !strcmp(name, "fake")	  ? BACKEND_FAKE :
					    BACKEND_USER;
}

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 0 passed, 1 failed, 77 skipped. */
static int run(const struct test_case *c)
{
	const char *excuse = excused(c->name, backend);
	int status = 0, timed_out = 0;
	long deadline;
	pid_t pid;

	if (excuse) {
		printf("skipped: %s: %s\n", c->name, excuse);
		return 77;
	}
	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		return 1;
	}
	if (pid == 0) {
		setpgid(0, 0);
		c->run();
		/* exit(), so that the library's own line of statistics comes. */
		exit(0);
	}
	setpgid(pid, pid);
	deadline = now_ms() + timeout_seconds * 1000l;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		struct timespec nap = { 0, 1000000 };

		if (now_ms() > deadline) {
			timed_out = 1;
			/* Whatever was meant to be seen, leave a trace of where. */
			killpg(pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
		nanosleep(&nap, NULL);
	}
	killpg(pid, SIGKILL);
	/* Children of the case were reparented to us (subreaper): collect them. */
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (timed_out)
		printf("FAILED: %s: hung for %d s (%s)\n", c->name, timeout_seconds, c->what);
	else if (WIFSIGNALED(status))
		printf("FAILED: %s: killed by signal %d (%s)\n", c->name, WTERMSIG(status), c->what);
	else if (WEXITSTATUS(status) == 77)
		printf("skipped: %s\n", c->name);
	else if (WEXITSTATUS(status))
		printf("FAILED: %s: %s\n", c->name, c->what);
	else
		printf("ok: %s\n", c->name);
	fflush(stdout);
	return timed_out || WIFSIGNALED(status) ? 1 : WEXITSTATUS(status) == 77 ? 77 : WEXITSTATUS(status) ? 1 : 0;
}

static int wanted(const char *name, int argc, char **argv, int first)
{
	if (first >= argc)
		return 1;
	for (int i = first; i < argc; i++)
		if (!strncmp(name, argv[i], strlen(argv[i])))
			return 1;
	return 0;
}

void catch_faults(void);

int conformance_main(int argc, char **argv, const struct xpmem_api *table)
{
	const struct test_case *const *c;
	int passed = 0, failed = 0, skipped = 0, i = 1, repeat = 1;

	api = table;
	find_backend();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	catch_faults();
	for (; i < argc; i++) {
		if (!strcmp(argv[i], "--list")) {
			for (c = __start_xpmem_cases; c < __stop_xpmem_cases; c++)
				printf("%-32s %s\n", (*c)->name, (*c)->what);
			return 0;
		} else if (!strcmp(argv[i], "--timeout") && i + 1 < argc) {
			timeout_seconds = atoi(argv[++i]);
		} else if (!strcmp(argv[i], "--repeat") && i + 1 < argc) {
			repeat = atoi(argv[++i]);
		} else if (!strcmp(argv[i], "--exec-child")) {
			/* cases_end.c: what an exec leaves of us */
			return 0;
		} else if (argv[i][0] == '-') {
			fprintf(stderr,
				"usage: %s [--list] [--timeout SECONDS] [--repeat N] [CASE...]\n"
				"A CASE is the beginning of a name.\n",
				argv[0]);
			return 2;
		} else {
			break;
		}
	}
	printf("conformance: back end %s, uid %d\n", backend_name(), (int)geteuid());
	while (repeat-- > 0)
		for (c = __start_xpmem_cases; c < __stop_xpmem_cases; c++) {
			if (!wanted((*c)->name, argc, argv, i) || !concerns((*c)->name, backend))
				continue;
			switch (run(*c)) {
			case 0:
				passed++;
				break;
			case 77:
				skipped++;
				break;
			default:
				failed++;
			}
		}
	printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
	return failed != 0;
}
