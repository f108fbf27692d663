// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "driver.h"

#include "children.h"
#include "layout.h"
#include "leaks.h"
#include "report.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_US 20000
#define HANG_S 45

static struct {
	const struct options *o;
	struct mailbox *mb;
	struct rng rng;
	struct deeds deeds;
	int mailbox_fd, plain_fd;
	uint32_t incarnations;
	uint64_t owner_end; // when the present owner is to go
	char dir[256], run[300], log[300];
	bool made_dir, hung, unsupported;
	// The watchdog's memory of each heartbeat.
	uint64_t beat[NWORKERS + NATTACHERS * ATTACHER_THREADS], since[NWORKERS + NATTACHERS * ATTACHER_THREADS];
} d;

// A run that is interrupted ends in good order: verdict, and nothing left behind.
static volatile sig_atomic_t interrupted;

static void interrupt(int signo)
{
	(void)signo;
	interrupted = 1;
}

static const char *role_of(unsigned n)
{
	return n == OWNER ? "owner" : "attacher";
}

// `role` other than the usual one: see sweep().
static void start_as(unsigned n, const char *role)
{
	char box[16], plain[16], self[16], inc[16], mask[16], file[400];
	uint32_t incarnation = ++d.incarnations;
	char *argv[] = { "stress",	 "--role", (char *)role, "--mailbox", box,
			 "--plain-fd",	 plain,	   "--self",   self,	 "--incarnation", inc,
			 "--classes",	 mask,	   "--inject", (char *)inject_name[d.o->inject],
			 d.o->plain ? "--plain" : d.o->lib ? "--lib" : "--preload",
			 d.o->plain ? NULL : (char *)(d.o->lib ? d.o->lib : d.o->preload), NULL };

	snprintf(box, sizeof(box), "%d", d.mailbox_fd);
	snprintf(plain, sizeof(plain), "%d", d.plain_fd);
	snprintf(self, sizeof(self), "%u", n ? n - 1 : 0);
	snprintf(inc, sizeof(inc), "%u", incarnation);
	snprintf(mask, sizeof(mask), "%#x", d.o->classes);
	snprintf(file, sizeof(file), "%s/%s.%u", d.log, role, incarnation);
	if (n != OWNER)
		atomic_store(&d.mb->attacher[n - 1].incarnation, incarnation);
	child_start(n, argv, d.o->preload, file);
}

static void start(unsigned n)
{
	start_as(n, role_of(n));
}

static void start_owner(void)
{
	atomic_store(&d.mb->owner.state, OWNER_STARTING);
	atomic_fetch_add(&d.mb->owner.epoch, 1);
	atomic_store(&d.mb->owner.doomed, 0);
	atomic_store(&d.mb->owner.retire, 0);
	start(OWNER);
	d.deeds.owners++;
	d.owner_end = now_us() + (d.o->owner_life * 500000ull + rng_below(&d.rng, d.o->owner_life * 1000000ull));
}

static void on_end(int n, int status)
{
	if (n == OWNER && WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		children[n].expect_end = d.unsupported = true;
	}
	if (n == NCHILDREN) // an orphan that ended; those that do not are counted at the end
		return;
	if (!children[n].expect_end && !(n == OWNER && atomic_load(&d.mb->owner.retire) && status == 0) &&
	    !(atomic_load(&d.mb->stop) && status == 0))
		fail_note(d.mb, F_CRASH, K_LIBC, "%s %d ended with status %#x (signal %d)",
			  role_of(n), n ? n - 1 : 0, status, WTERMSIG(status));
	if (n == OWNER) {
		atomic_store(&d.mb->owner.state, OWNER_DEAD);
	} else {
		atomic_store(&d.mb->attacher[n - 1].ready_epoch, 0);
		atomic_store(&d.mb->attacher[n - 1].incarnation, INC_NONE);
		for (unsigned w = 0; w < NWORKERS; w++) // nobody will answer: look again
			futex_wake_all(&d.mb->slot[w].acks);
	}
}

static void reap(void)
{
	int status, n;

	while ((n = child_reap(&status)) >= 0)
		on_end(n, status);
}

static bool moved(unsigned i, uint64_t beat)
{
	uint64_t now = now_us();

	if (d.beat[i] != beat || !d.since[i]) {
		d.beat[i] = beat;
		d.since[i] = now;
	}
	return now - d.since[i] < HANG_S * 1000000ull;
}

static void hang(const char *who, unsigned i)
{
	fail_note(d.mb, F_HANG, K_LIBC, "%s %u made no progress for %d s; ready %u %u %u %u of %u", who, i, HANG_S,
		  d.mb->attacher[0].ready_epoch, d.mb->attacher[1].ready_epoch, d.mb->attacher[2].ready_epoch,
		  d.mb->attacher[3].ready_epoch, d.mb->owner.epoch);
	for (unsigned w = 0; w < NWORKERS; w++) {
		struct slot *s = &d.mb->slot[w];

		fprintf(stderr, "stress: worker %u: %s seq %u flags %#x want %#x acks %u %u %u %u at %#lx+%#lx\n", w,
			s->op_name, s->seq, s->flags, s->want, s->ack[0], s->ack[1], s->ack[2], s->ack[3], s->addr,
			s->len);
	}
	for (unsigned n = 0; n < NCHILDREN; n++)
		if (!d.deeds.hang[n][0])
			child_brief(n, d.deeds.hang[n], sizeof(d.deeds.hang[n]));
	for (unsigned n = 0; n < NCHILDREN; n++)
		if (children[n].pid)
			child_dump(n, role_of(n));
	strangers_dump();
	d.hung = true;
}

static void watch(void)
{
	unsigned i = 0;
	bool owner_runs = children[OWNER].pid && atomic_load(&d.mb->owner.state) == OWNER_READY &&
			  !atomic_load(&d.mb->owner.retire);

	for (unsigned w = 0; w < NWORKERS; w++, i++) {
		if (!owner_runs)
			d.since[i] = 0;
		else if (!moved(i, atomic_load(&d.mb->slot[w].beat)) && !d.hung)
			hang("worker", w);
	}
	for (unsigned a = 0; a < NATTACHERS; a++)
		for (unsigned t = 0; t < ATTACHER_THREADS; t++, i++) {
			if (!children[a + 1].pid)
				d.since[i] = 0;
			else if (!moved(i, atomic_load(&d.mb->attacher[a].beat[t])) && !d.hung)
				hang("attacher", a);
		}
}

static bool nobody_attached(void)
{
	for (unsigned a = 0; a < NATTACHERS; a++)
		if (atomic_load(&d.mb->attacher[a].ready_epoch))
			return false;
	return true;
}

// Lets the world turn until `done` or for `seconds`.
static bool turn_until(bool (*done)(void), unsigned seconds)
{
	uint64_t end = now_us() + seconds * 1000000ull;

	while (!done() && now_us() < end && !d.hung) {
		reap();
		child_resume_due();
		watch();
		usleep(TICK_US / 4);
	}
	return done();
}

static bool owner_ended(void)
{
	return !children[OWNER].pid;
}

static bool attachers_ended(void)
{
	for (unsigned n = 1; n < NCHILDREN; n++)
		if (children[n].pid)
			return false;
	return true;
}

static void end_owner(bool by_kill)
{
	if (!children[OWNER].pid)
		return;
	if (by_kill) {
		atomic_store(&d.mb->owner.doomed, 1);
		child_kill(OWNER);
		d.deeds.owner_kills++;
	} else {
		atomic_store(&d.mb->owner.retire, 1);
	}
	if (!turn_until(owner_ended, 90) && !d.hung)
		hang(by_kill ? "killed owner" : "retired owner", 0);
	if (!turn_until(nobody_attached, 60) && !d.hung)
		hang("attachers of a dead owner", 0);
}

// A tracer that comes and goes, as strace -p does; who is traced already is left.
static void trace_somebody(pid_t owner)
{
	unsigned n = 0, chosen = 0;
	char path[40];
	struct dirent *e;
	int status;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", owner);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.' && rng_one_in(&d.rng, ++n))
			chosen = strtoul(e->d_name, NULL, 10);
	if (dir)
		closedir(dir);
	if (!chosen || ptrace(PTRACE_SEIZE, chosen, 0, 0))
		return;
	usleep(rng_below(&d.rng, 15000));
	ptrace(PTRACE_INTERRUPT, chosen, 0, 0);
	if (waitpid(chosen, &status, __WALL) == (pid_t)chosen && WIFSTOPPED(status))
		ptrace(PTRACE_DETACH, chosen, 0, status >> 16 ? 0 : WSTOPSIG(status));
	d.deeds.traces++;
}

static void mischief(void)
{
	unsigned n = 1 + rng_below(&d.rng, NATTACHERS);

	if (d.o->stops && rng_one_in(&d.rng, 40)) {
		child_stop(rng_one_in(&d.rng, 3) ? OWNER : n, 1 + rng_below(&d.rng, 150));
		d.deeds.stops++;
	}
	// Not in its first call: no service begins under a tracer (ENOSYS).
	if (d.o->trace && rng_one_in(&d.rng, 3) && children[OWNER].pid && !children[OWNER].resume_at &&
	    atomic_load(&d.mb->owner.state) == OWNER_READY)
		trace_somebody(children[OWNER].pid);
	if (d.o->kill_attachers && rng_one_in(&d.rng, 100) && children[n].pid) {
		child_kill(n);
		d.deeds.attacher_kills++;
	}
	for (n = 1; n < NCHILDREN; n++)
		if (!children[n].pid)
			start(n);
}

// A killed process cannot remove its socket; the next one of the user does, once
// the socket is old enough to be nobody's who is just starting.
static void sweep(void)
{
	if (d.o->plain || !d.deeds.owner_kills)
		return;
	usleep(2500000);
	start_as(OWNER, "sweeper");
	children[OWNER].expect_end = true;
	turn_until(owner_ended, 10);
}

static long shm_files(void)
{
	DIR *dir = opendir("/dev/shm");
	struct dirent *e;
	long n = 0;

	while (dir && (e = readdir(dir)))
		n += strstr(e->d_name, "xpmem") != NULL;
	if (dir)
		closedir(dir);
	return n;
}

static void check_leftovers(long shm_before)
{
	char names[400] = "";
	unsigned left = 1;
	long files;

	for (unsigned i = 0; left && i < 50; i++) {
		reap();
		names[0] = 0;
		left = strangers(false, names, sizeof(names));
		usleep(100000);
	}
	if (left) {
		fail_note(d.mb, F_LEAK, K_LIBC, "processes left behind:%s", names);
		strangers_dump();
		strangers(true, names, sizeof(names));
	}
	names[0] = 0;
	files = files_below(d.run, names, sizeof(names));
	if (files)
		fail_note(d.mb, F_LEAK, K_LIBC, "%ld files left behind:%s", files, names);
	if (shm_files() > shm_before)
		fail_note(d.mb, F_LEAK, K_LIBC, "files left in /dev/shm");
}

// Sums late_revocations over the lines that the library wrote at the end of each owner.
static void read_logs(void)
{
	DIR *dir = opendir(d.log);
	struct dirent *e;
	char path[600], line[1024], last[1024] = "";

	while (dir && (e = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s", d.log, e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		while (f && fgets(line, sizeof(line), f)) {
			const char *late = strstr(line, "late_revocations=");

			if (late && !strncmp(e->d_name, "owner", 5)) {
				d.deeds.late_revocations += strtoull(late + 17, NULL, 10);
				strcpy(last, line);
			}
		}
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	if (last[0])
		printf("an owner's counters: %s", last);
}

static void remove_tree(const char *dir)
{
	DIR *list = opendir(dir);
	struct dirent *e;

	while (list && (e = readdir(list))) {
		char path[800];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || lstat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode))
			remove_tree(path);
		else
			unlink(path);
	}
	if (list)
		closedir(list);
	rmdir(dir);
}

static bool prepare(void)
{
	struct rlimit no_core = { 0, 0 };

	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGINT, interrupt);
	signal(SIGTERM, interrupt);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (d.o->dir) {
		snprintf(d.dir, sizeof(d.dir), "%s", d.o->dir);
	} else {
		const char *tmp = getenv("TMPDIR");

		snprintf(d.dir, sizeof(d.dir), "%s/xpmem-stress.XXXXXX", tmp ? tmp : "/tmp");
		d.made_dir = mkdtemp(d.dir) != NULL;
	}
	snprintf(d.run, sizeof(d.run), "%s/run", d.dir);
	snprintf(d.log, sizeof(d.log), "%s/log", d.dir);
	mkdir(d.run, 0700);
	mkdir(d.log, 0700);
	// Wherever the library puts its socket: it is in here, and counted at the end.
	setenv("XPMEM_DIR", d.run, 1);
	setenv("XDG_RUNTIME_DIR", d.run, 1);
	setenv("TMPDIR", d.run, 1);
	setenv("STRESS_FILES", d.dir, 1);
	d.mailbox_fd = memfd_create("stress-mailbox", 0);
	d.plain_fd = d.o->plain ? memfd_create("stress-arena", 0) : -1;
	if (d.mailbox_fd < 0 || (d.plain_fd >= 0 && ftruncate(d.plain_fd, ARENA_SIZE)))
		return false;
	d.mb = mailbox_map(d.mailbox_fd, true);
	return d.mb != NULL;
}

// What was to be found has been.
static bool found(int fail)
{
	for (unsigned k = 0; fail >= 0 && k < NKLASS; k++)
		if (atomic_load(&d.mb->stats.fail[fail][k]))
			return true;
	return false;
}

static bool enough(void)
{
	return d.o->end_steps && atomic_load(&d.mb->stats.steps) >= d.o->end_steps;
}

int driver_main(const struct options *o)
{
	uint64_t end = now_us() + o->seconds * 1000000ull;
	long shm_before = shm_files();
	int status;

	d.o = o;
	d.rng.state = mix64(o->seed);
	if (!prepare()) {
		perror("stress");
		return 1;
	}
	d.mb->seed = o->seed;
	start_owner();
	while (now_us() < end && !enough() && !d.hung && !d.unsupported && !interrupted && !found(o->expect)) {
		reap();
		child_resume_due();
		mischief();
		watch();
		if (!children[OWNER].pid || now_us() > d.owner_end) {
			end_owner(d.o->kill_owners && rng_one_in(&d.rng, 2));
			if (!d.hung)
				start_owner();
		}
		// A library that refuses to serve is a verdict after a few tries.
		if (o->expect < 0 && atomic_load(&d.mb->nfailures) > 200)
			break;
		usleep(TICK_US);
	}
	if (!d.hung)
		end_owner(false);
	atomic_store(&d.mb->stop, 1);
	if (d.hung || !turn_until(attachers_ended, 30)) {
		if (!d.hung)
			hang("attachers at the end", 0);
		for (unsigned n = 0; n < NCHILDREN; n++)
			child_kill(n);
		d.hung = false;
		turn_until(attachers_ended, 5);
		turn_until(owner_ended, 5);
	}
	sweep();
	check_leftovers(shm_before);
	read_logs();
	fflush(stdout);
	status = d.unsupported ? 77 : report(d.mb, o, &d.deeds);
	if (d.unsupported)
		printf("this kernel gives an ordinary process no userfaultfd\n");
	if (d.made_dir && !getenv("STRESS_KEEP"))
		remove_tree(d.dir);
	return status;
}
