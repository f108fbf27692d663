/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runner of the sweep: sweep [-l] [-n] [-c CALL] [-e ERRNO] [OPERATION...]. */
#include "sweep.h"

#include <dirent.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

extern const struct test_case *const __start_xpmem_cases[];
extern const struct test_case *const __stop_xpmem_cases[];
void catch_faults(void);

volatile struct words *words;

static const int errnos[] = { ENOMEM, EAGAIN, EPERM, EINVAL };
/* No errno, but the end of the service. */
static const int kill_it[] = { 0 };

/* ---- what operations use */

static long f_no_faults(long a, long b, long c, long d)
{
	(void)a, (void)b, (void)c, (void)d;
	return unsetenv("XPMEM_TEST_FAULTS");
}

struct scene begin(void)
{
	struct scene s = { .peer = spawn() };

	EXPECT_EQ(call(&s.peer, f_no_faults, 0, 0, 0), 0);
	return s;
}

void open_scene(struct scene *s, char *memory, size_t size)
{
	long apid;

	s->memory = memory;
	s->size = size;
	s->segid = make_all();
	apid = r_get(&s->peer, s->segid, XPMEM_RDWR);
	EXPECT(apid > 0);
	/* Larger than what is shared at once. */
	s->there = r_attach(&s->peer, apid, (long)memory, size > 1024 * PAGE ? size : 1024 * PAGE);
	EXPECT(s->there != -1);
}

void map_over(struct scene *s)
{
	EXPECT_EQ(mmap(s->memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		  s->memory);
}

void touch_there(struct scene *s, long seed)
{
	long result = r_verify(&s->peer, s->there, s->size, seed);

	EXPECT(result == 0 || FAULTED(result));
}

void expect_bytes(struct scene *s, long seed)
{
	EXPECT_EQ(verify((long)s->memory, s->size, seed), 0);
	touch_there(s, seed);
	for (int i = 0; i < 200 && r_verify(&s->peer, s->there, s->size, seed); i++)
		usleep(10000);
	EXPECT_EQ(r_verify(&s->peer, s->there, s->size, seed), 0);
	/* It is one memory: what one writes the other sees. */
	for (size_t at = 0; at < s->size; at += 8 * PAGE) {
		char old = s->memory[at];

		EXPECT_EQ(r_poke(&s->peer, s->there + at, old ^ 0x55), 0);
		EXPECT_EQ(s->memory[at], (char)(old ^ 0x55));
		s->memory[at] = old;
		EXPECT_EQ(r_peek(&s->peer, s->there + at), (unsigned char)old);
	}
	EXPECT_EQ(verify((long)s->memory, s->size, seed), 0);
}

void arm(void)
{
	words->count = 0;
	words->armed = 1;
}

void disarm(void)
{
	words->armed = 0;
}

/* The service is a child of one of our threads, and a process of its own. */
static int service(void)
{
	struct dirent *entry;
	DIR *tasks = opendir("/proc/self/task");
	int pid = 0;

	while (!pid && (entry = readdir(tasks))) {
		char path[300], text[300] = "";
		FILE *file;

		snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
		file = fopen(path, "r");
		while (file && fscanf(file, "%d", &pid) == 1) {
			FILE *comm;

			snprintf(path, sizeof path, "/proc/%d/comm", pid);
			comm = fopen(path, "r");
			if (comm && fgets(text, sizeof text, comm) && !strcmp(text, "xpmem-service\n")) {
				fclose(comm);
				break;
			}
			if (comm)
				fclose(comm);
			pid = 0;
		}
		if (file)
			fclose(file);
	}
	closedir(tasks);
	return pid;
}

static void look(uint32_t *mappings, uint32_t *descriptors, uint32_t *blocks)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	struct dirent *entry;
	char path[300];
	DIR *fds;
	int c;

	*mappings = *descriptors = *blocks = 0;
	while ((c = getc(maps)) != EOF)
		*mappings += c == '\n';
	fclose(maps);
	snprintf(path, sizeof path, "/proc/%d/fd", service());
	fds = opendir(path);
	EXPECT(fds);
	while ((entry = readdir(fds))) {
		struct stat st;
		char name[600], target[64] = "";

		if (entry->d_name[0] == '.')
			continue;
		++*descriptors;
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		if (readlink(name, target, sizeof target - 1) > 0 && !strncmp(target, "/memfd:xpmem", 12) &&
		    stat(name, &st) == 0)
			*blocks += st.st_blocks;
	}
	closedir(fds);
}

char *locked(size_t size)
{
	char *memory = anonymous(size);

	if (mlock(memory, size))
		skip_case("may not lock memory");
	return memory;
}

char *shared_anonymous(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

char *huge_page(void)
{
	char *memory = anonymous(2 * HUGE), *aligned = memory + (-(unsigned long)memory % HUGE);

	munmap(memory, (size_t)(aligned - memory));
	munmap(aligned + HUGE, (size_t)(memory + HUGE - aligned));
	if (madvise(aligned, HUGE, MADV_HUGEPAGE))
		skip_case("no huge pages");
	return aligned;
}

char *own_data(void)
{
	static char data[SIZE + 2 * PAGE] __attribute__((aligned(PAGE))) = { 1 };
	char *end = data + PAGE + SIZE;

	EXPECT_EQ(mprotect(data, PAGE, PROT_READ), 0);
	EXPECT_EQ(mprotect(end, PAGE, PROT_READ), 0);
	return data + PAGE;
}

void close_scene(struct scene *s)
{
	uint32_t mappings, descriptors, blocks;

	munmap(s->memory, s->size);
	quit(&s->peer);
	/* Its end is noticed, and what a promotion has put aside is freed. */
	for (int i = 0; i < 60; i++) {
		look(&mappings, &descriptors, &blocks);
		if (words->fail && mappings <= words->mappings && descriptors <= words->descriptors &&
		    blocks <= words->blocks)
			return;
		if (!words->fail && i > 10)
			break;
		usleep(10000);
	}
	if (!words->fail) {
		words->mappings = mappings;
		words->descriptors = descriptors;
		words->blocks = blocks;
		return;
	}
	EXPECT_EQ(mappings, words->mappings);
	EXPECT_EQ(descriptors, words->descriptors);
	EXPECT_EQ(blocks, words->blocks);
}

/* ---- the runner */

/* 0 passed, 1 failed, 77 skipped. */
static int once(const struct test_case *c, unsigned call, int error)
{
	int status = 0, seconds = 0;
	pid_t pid;

	words->armed = words->count = words->number = words->detail = 0;
	words->fail = call;
	words->error = error;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		c->run();
		exit(0);
	}
	setpgid(pid, pid);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (++seconds > 30000) {
			printf("  hung for 30 s\n");
			killpg(pid, SIGKILL);
			waitpid(pid, &status, 0);
			break;
		}
		usleep(1000);
	}
	killpg(pid, SIGKILL);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77))
		return WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		printf("  signal %d\n", WTERMSIG(status));
	printf("FAILED: %s: call %u of %u, number %u (%#x), with errno %d\n", c->name, call, words->count,
	       words->number, words->detail, error);
	return 1;
}

static int wanted(const char *name, int argc, char **argv)
{
	for (int i = optind; i < argc; i++)
		if (!strcmp(name, argv[i]))
			return 1;
	return optind == argc;
}

int main(int argc, char **argv)
{
	static const struct xpmem_api table = {
		xpmem_version, xpmem_init, xpmem_ioctl, xpmem_make,   xpmem_remove,
		xpmem_get,     xpmem_release, xpmem_attach, xpmem_detach,
	};
	const struct test_case *const *c;
	int passed = 0, failed = 0, skipped = 0, opt, error = 0, count_only = 0, list = 0;
	unsigned call = 0;
	char path[64];
	int fd;

	while ((opt = getopt(argc, argv, "lnc:e:")) != -1) {
		if (opt == 'n')
			count_only = 1;
		else if (opt == 'l')
			list = 1;
		else if (opt == 'c')
			call = atoi(optarg);
		else if (opt == 'e')
			error = atoi(optarg);
		else
			return 2;
	}
	api = &table;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	catch_faults();
	snprintf(path, sizeof path, "/dev/shm/xpmem-sweep-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, PAGE)) {
		perror(path);
		return 2;
	}
	words = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	setenv("XPMEM_TEST_FAULTS", path, 1);
	setenv("XPMEM_WAIT", "0", 1);
	for (c = __start_xpmem_cases; c < __stop_xpmem_cases; c++) {
		int killed = !strncmp((*c)->name, "killed", 6);
		const int *how = killed ? kill_it : errnos;
		unsigned ways = killed ? 1 : sizeof errnos / sizeof *errnos, calls, runs = 0;
		int bad = 0, first;

		if (!wanted((*c)->name, argc, argv))
			continue;
		if (list) {
			printf("%-20s %s\n", (*c)->name, (*c)->what);
			continue;
		}
		first = once(*c, 0, 0);
		calls = words->count;
		if (first == 77) {
			skipped++;
			printf("skipped: %s\n", (*c)->name);
			continue;
		}
		if (first || !calls) {
			failed++;
			printf("FAILED: %s: %s\n", (*c)->name, calls ? "by itself" : "no call is counted");
			continue;
		}
		for (unsigned at = 1; at <= calls && !count_only; at++)
			for (unsigned e = 0; e < ways; e++) {
				if ((call && call != at) || (error && error != how[e]))
					continue;
				bad += once(*c, at, how[e]) == 1;
				runs++;
				/* One that fails is done in another way, which has calls of its own. */
				if (words->count > calls)
					calls = words->count;
			}
		printf("%s: %s: %u calls, %u runs, %d failed\n", bad ? "FAILED" : "ok", (*c)->name, calls, runs,
		       bad);
		bad ? failed++ : passed++;
	}
	unlink(path);
	if (!list)
		printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
	return failed != 0;
}
