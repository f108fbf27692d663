// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "children.h"

#include "mailbox.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct child children[NCHILDREN];

void child_start(unsigned n, char *const argv[], const char *preload, const char *debug_file)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0) {
		perror("stress: fork");
		exit(1);
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		setpgid(0, 0); // an interrupt from the keyboard is for the driver alone
		if (preload)
			setenv("LD_PRELOAD", preload, 1);
		if (debug_file) {
			setenv("XPMEM_DEBUG", "stats", 0);
			setenv("XPMEM_DEBUG_FILE", debug_file, 1);
		}
		execv("/proc/self/exe", argv);
		_exit(127);
	}
	children[n] = (struct child){ .pid = pid };
}

int child_reap(int *status)
{
	pid_t pid = waitpid(-1, status, WNOHANG);

	if (pid <= 0)
		return -1;
	for (unsigned n = 0; n < NCHILDREN; n++)
		if (children[n].pid == pid) {
			children[n].pid = 0;
			return n;
		}
	return NCHILDREN;
}

void child_stop(unsigned n, unsigned ms)
{
	if (!children[n].pid || children[n].resume_at)
		return;
	kill(children[n].pid, SIGSTOP);
	children[n].resume_at = now_us() + ms * 1000ull;
}

void child_resume_due(void)
{
	for (unsigned n = 0; n < NCHILDREN; n++) {
		if (!children[n].resume_at || now_us() < children[n].resume_at)
			continue;
		children[n].resume_at = 0;
		if (children[n].pid)
			kill(children[n].pid, SIGCONT);
	}
}

void child_kill(unsigned n)
{
	children[n].expect_end = true;
	if (children[n].pid)
		kill(children[n].pid, SIGKILL);
}

static void dump_file(const char *path, const char *what)
{
	char text[400];
	FILE *f = fopen(path, "r");
	size_t n;

	if (!f)
		return;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	if (!strcmp(what, "stat")) {
		char *state = strrchr(text, ')');

		if (state && strlen(state) > 3) // the name and the state are enough
			state[3] = 0;
	}
	for (char *c = text; *c; c++)
		if (*c == '\n')
			*c = ' ';
	fprintf(stderr, " %s: %s;", what, text);
}

// Where each thread of a process is, and those of its services: the children
// of its threads.
static void dump_process(int pid, unsigned depth)
{
	char path[300];
	DIR *d;
	struct dirent *e;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		FILE *f;
		int child;

		if (e->d_name[0] == '.')
			continue;
		fprintf(stderr, "  %s %s", depth ? "of its child, thread" : "thread", e->d_name);
		for (const char *const *what = (const char *const[]){ "stat", "wchan", "syscall", "stack", NULL };
		     *what; what++) {
			snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", pid, e->d_name, *what);
			dump_file(path, *what);
		}
		fputc('\n', stderr);
		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", pid, e->d_name);
		f = fopen(path, "r");
		while (f && depth < 2 && fscanf(f, "%d", &child) == 1)
			dump_process(child, depth + 1);
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
}

void child_dump(unsigned n, const char *role)
{
	fprintf(stderr, "stress: %s %d:\n", role, children[n].pid);
	dump_process(children[n].pid, 0);
}

static bool is_known(int pid)
{
	for (unsigned n = 0; n < NCHILDREN; n++)
		if (children[n].pid == pid)
			return true;
	return false;
}

void strangers_dump(void)
{
	char path[64];
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	f = fopen(path, "r");
	while (f && fscanf(f, "%d", &pid) == 1)
		if (!is_known(pid)) {
			fprintf(stderr, "stress: left behind, %d:\n", pid);
			dump_process(pid, 0);
		}
	if (f)
		fclose(f);
}

unsigned strangers(bool end, char *names, unsigned long size)
{
	char path[64], comm[64];
	FILE *f;
	unsigned n = 0;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	f = fopen(path, "r");
	while (f && fscanf(f, "%d", &pid) == 1) {
		size_t used = strlen(names);
		FILE *c;

		n++;
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		c = fopen(path, "r");
		if (!c || fscanf(c, "%60s", comm) != 1)
			strcpy(comm, "?");
		if (c)
			fclose(c);
		if (used + 1 < size)
			snprintf(names + used, size - used, " %d(%s)", pid, comm);
		if (end)
			kill(pid, SIGKILL);
	}
	if (f)
		fclose(f);
	return n;
}
