// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "children.h"
#include "mailbox.h"

#include "../lib/proc.h"

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

static void dump_process(int pid, unsigned depth);

static void dump_child(int pid, void *depth)
{
	dump_process(pid, *(unsigned *)depth + 1);
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
		if (e->d_name[0] == '.')
			continue;
		fprintf(stderr, "  %s %s", depth ? "of its child, thread" : "thread", e->d_name);
		for (const char *const *what = (const char *const[]){ "stat", "wchan", "syscall", "stack", NULL };
		     *what; what++) {
			snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", pid, e->d_name, *what);
			dump_file(path, *what);
		}
		fputc('\n', stderr);
	}
	if (d)
		closedir(d);
	if (depth < 2)
		proc_children(pid, dump_child, &depth);
}

// Name, state, system call and time of processor of each service of a process.
struct brief {
	char *text;
	unsigned long size;
};

static long cpu_ticks(int pid)
{
	char path[64];
	unsigned long user = 0, system = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
		user = 0;
	if (f)
		fclose(f);
	return user + system;
}

static void brief_task(int pid, void *context)
{
	struct brief *to = context;
	unsigned long used = strlen(to->text);
	char path[64], call[16] = "?", wait[32] = "?";
	long before = cpu_ticks(pid);
	FILE *f;

	usleep(100000);
	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%15s", call) != 1)
		strcpy(call, "?");
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%31s", wait) != 1)
		strcpy(wait, "?");
	if (f)
		fclose(f);
	if (used + 1 < to->size)
		snprintf(to->text + used, to->size - used, " %d %c %s %s +%ld;", pid, proc_state(pid), call, wait,
			 cpu_ticks(pid) - before);
}

void child_brief(unsigned n, char *text, unsigned long size)
{
	struct brief to = { text, size };

	text[0] = 0;
	if (children[n].pid) {
		brief_task(children[n].pid, &to);
		proc_children(children[n].pid, brief_task, &to);
	}
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

static void dump_stranger(int pid, void *unused)
{
	(void)unused;
	if (!is_known(pid)) {
		fprintf(stderr, "stress: left behind, %d:\n", pid);
		dump_process(pid, 0);
	}
}

void strangers_dump(void)
{
	proc_children(0, dump_stranger, NULL);
}

struct naming {
	char *names;
	unsigned long size;
	bool end;
};

static void name_stranger(int pid, void *context)
{
	struct naming *to = context;
	size_t used = strlen(to->names);
	char path[64], comm[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%60s", comm) != 1)
		strcpy(comm, "?");
	if (f)
		fclose(f);
	if (used + 1 < to->size)
		snprintf(to->names + used, to->size - used, " %d(%s)", pid, comm);
	if (to->end)
		kill(pid, SIGKILL);
}

unsigned strangers(bool end, char *names, unsigned long size)
{
	struct naming to = { names, size, end };
	long n = proc_children(0, name_stranger, &to);

	return n < 0 ? 0 : n;
}
