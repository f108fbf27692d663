// SPDX-License-Identifier: MIT OR Apache-2.0
// bench-scale LIBRARY [forks|threads|window|ranks [N]]: all of it when nothing is named.
#define _GNU_SOURCE
#include "scale.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *library;

void die(const char *why)
{
	fprintf(stderr, "bench-scale: %s: %s\n", why, strerror(errno));
	_exit(1);
}

void load_library(void)
{
	if (!xpmem_api_load(library))
		_exit(1);
}

struct other other_start(void (*main_of)(int sock, void *arg), void *arg)
{
	int fd[2];
	struct other o;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
		die("socketpair");
	o.pid = fork();
	if (o.pid < 0)
		die("fork");
	if (!o.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd[0]);
		main_of(fd[1], arg);
		_exit(0);
	}
	close(fd[1]);
	o.sock = fd[0];
	return o;
}

void other_end(struct other *o)
{
	// Others that were started later have a copy of it.
	shutdown(o->sock, SHUT_RDWR);
	close(o->sock);
	waitpid(o->pid, NULL, 0);
}

void tell(int sock, int64_t number)
{
	if (send(sock, &number, sizeof(number), MSG_NOSIGNAL) != sizeof(number))
		_exit(1);
}

int64_t hear(int sock)
{
	int64_t number;
	ssize_t n;

	do
		n = recv(sock, &number, sizeof(number), 0);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(number))
		_exit(n ? 1 : 0);
	return number;
}

char *mapped(size_t len)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		die("mmap");
	return mem;
}

void touch_pages(volatile char *mem, size_t len)
{
	for (size_t at = 0; at < len; at += PAGE)
		(void)mem[at];
}

// How many lines a file of /proc/self has; the number behind `name`, where a line
// begins with it, goes to `value`.
static long read_lines(const char *file, const char *name, long *value)
{
	char path[64], line[512];
	long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/%s", file);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		n += strchr(line, '\n') != NULL;
		if (name && !strncmp(line, name, strlen(name)))
			sscanf(line + strlen(name), "%ld", value);
	}
	if (f)
		fclose(f);
	return n;
}

long proc_field(const char *file, const char *name)
{
	long value = 0;

	read_lines(file, name, &value);
	return value;
}

long proc_lines(const char *file)
{
	return read_lines(file, NULL, NULL);
}

long proc_entries(const char *dir)
{
	char path[300];
	long n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/self/%s", dir);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	// Without "." and "..", and the one that was open for this.
	return n - 2 - !strcmp(dir, "fd");
}

// Descriptors of the children of all threads: the library's service has a table of
// its own. Called where there are no other children.
long service_descriptors(void)
{
	char path[300];
	long n = 0, pid;
	struct dirent *e;
	DIR *d = opendir("/proc/self/task");

	while (d && (e = readdir(d))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/children", e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		while (f && fscanf(f, "%ld", &pid) == 1) {
			snprintf(path, sizeof(path), "../%ld/fd", pid);
			n += proc_entries(path);
		}
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return n;
}

static const struct part {
	const char *name;
	void (*run)(int ranks);
} parts[] = {
	{ "forks", bench_forks },
	{ "threads", bench_threads },
	{ "window", bench_window },
	{ "ranks", bench_ranks },
};

// In a process of its own, which has not loaded the library for another part.
static void run_part(const struct part *part, int ranks)
{
	pid_t pid = fork();

	if (!pid) {
		part->run(ranks);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "all";
	double load[3] = { 0, 0, 0 };

	if (argc < 2) {
		fprintf(stderr, "usage: bench-scale LIBRARY [forks|threads|window|ranks [N]]\n");
		return 2;
	}
	library = argv[1];
	setvbuf(stdout, NULL, _IOLBF, 0);
	getloadavg(load, 3);
	printf("load average %.1f on %ld processors\n", load[0], sysconf(_SC_NPROCESSORS_ONLN));
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!strcmp(what, "all") || !strcmp(what, parts[i].name))
			run_part(&parts[i], argc > 3 ? atoi(argv[3]) : 64);
	return 0;
}
