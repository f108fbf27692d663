// SPDX-License-Identifier: MIT OR Apache-2.0
// One owner and one peer: forks of an owner whose memory is shared, first touches
// of one with many threads, and a window of which most is holes.
#define _GNU_SOURCE
#include "scale.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t exported(void)
{
	load_library();
	return xp.make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
}

static int64_t permit(int64_t segid)
{
	int64_t apid = xp.get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);

	if (apid <= 0)
		die("xpmem_get");
	return apid;
}

static char *attached(int64_t apid, int64_t addr, size_t len)
{
	struct xpmem_addr at = { apid, addr };
	char *mem = xp.attach(at, len, NULL);

	if (mem == (void *)-1)
		die("xpmem_attach");
	return mem;
}

// --- fork and exec -----------------------------------------------------------
#define SHARED (512 * MIB)
#define FORKS 7

static int64_t fork_and_exec(void)
{
	double start = now_us();
	pid_t pid = fork();

	if (!pid) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
	return (int64_t)(now_us() - start);
}

// arg: whether it shares. Answers each number it hears with one fork's time.
static void forking(int sock, void *arg)
{
	char *mem = mapped(SHARED);

	memset(mem, 0x5a, SHARED);
	tell(sock, arg ? exported() : 0);
	tell(sock, (int64_t)mem);
	for (;;) {
		hear(sock);
		tell(sock, fork_and_exec());
	}
}

void bench_forks(int ranks)
{
	static struct sample with, without;
	struct other plain = other_start(forking, NULL), sharing = other_start(forking, "");
	int64_t apid, addr;
	char *mem;

	(void)ranks;
	hear(plain.sock);
	hear(plain.sock);
	load_library();
	apid = permit(hear(sharing.sock));
	addr = hear(sharing.sock);
	mem = attached(apid, addr, SHARED);
	touch_pages(mem, SHARED);
	for (int i = 0; i < FORKS; i++) {
		tell(plain.sock, 0);
		sample_add(&without, hear(plain.sock));
		tell(sharing.sock, 0);
		sample_add(&with, hear(sharing.sock));
	}
	printf("fork and exec, 512 MiB shared: %.1f ms over %.1f of a plain one: %.1f median, %.1f minimum   (target <= 5)\n",
	       sample_median(&with) / 1e3, sample_median(&without) / 1e3, sample_median(&with) / sample_median(&without),
	       sample_min(&with) / sample_min(&without));
	xp.detach(mem);
	xp.release(apid);
	other_end(&plain);
	other_end(&sharing);
}

// --- first touch of a threaded owner -------------------------------------------
#define PLACES 64
#define APART (4 * MIB)

static volatile bool spinning;
static volatile uint64_t spun[1024][8];

static void *spin(void *arg)
{
	volatile uint64_t *count = arg;

	while (spinning)
		++*count;
	return NULL;
}

static void *idle(void *arg)
{
	(void)arg;
	pause();
	return NULL;
}

struct crowd {
	int threads;
	bool busy;
};

static void threaded(int sock, void *arg)
{
	struct crowd *crowd = arg;
	char *mem = mapped(PLACES * APART);

	for (int i = 0; i < PLACES; i++)
		memset(mem + i * APART, 0x5a, MIB);
	spinning = true;
	for (int i = 0; i < crowd->threads; i++) {
		pthread_attr_t attr;
		pthread_t thread;

		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 64 << 10);
		if (pthread_create(&thread, &attr, crowd->busy ? spin : idle, (void *)spun[i]))
			die("pthread_create");
	}
	tell(sock, exported());
	tell(sock, (int64_t)mem);
	hear(sock);
}

static void one_crowd(int threads, bool busy, const char *target)
{
	struct crowd crowd = { threads, busy };
	struct other owner = other_start(threaded, &crowd);
	struct sample touch = { 0 };
	double worst = 0, sum = 0;
	int64_t apid;
	char *mem;

	load_library();
	apid = permit(hear(owner.sock));
	mem = attached(apid, hear(owner.sock), PLACES * APART);
	for (int i = 0; i < PLACES; i++) {
		double start = now_us(), took;

		(void)*(volatile char *)(mem + i * APART);
		took = now_us() - start;
		sample_add(&touch, took);
		sum += took;
		if (took > worst)
			worst = took;
	}
	printf("  %3d threads, %-4s %8.2f ms on average, %.2f median, %.2f worst%s\n", threads, busy ? "busy" : "idle",
	       sum / PLACES / 1e3, sample_median(&touch) / 1e3, worst / 1e3, target);
	xp.detach(mem);
	xp.release(apid);
	other_end(&owner);
}

void bench_threads(int ranks)
{
	(void)ranks;
	printf("a peer's first touch of a place in an owner's memory\n");
	one_crowd(0, false, "");
	one_crowd(500, false, "");
	one_crowd(2, true, "");
	one_crowd(16, true, "   (target <= 20 on average, on two processors)");
}

// --- a window with holes ----------------------------------------------------------
#define WINDOW (100 * GIB)

static void sparse(int sock, void *arg)
{
	size_t touched = *(size_t *)arg;
	char *mem = mapped(WINDOW);
	size_t runs = touched / (64 * MIB), apart = WINDOW / runs;

	for (size_t i = 0; i < runs; i++)
		memset(mem + i * apart / PAGE * PAGE, 0x5a, 64 * MIB);
	tell(sock, exported());
	tell(sock, (int64_t)mem);
	for (;;) {
		hear(sock);
		tell(sock, proc_field("smaps_rollup", "Rss:"));
		tell(sock, proc_lines("maps"));
	}
}

void bench_window(int ranks)
{
	size_t free_now = (size_t)sysconf(_SC_AVPHYS_PAGES) * PAGE, touched = 16 * GIB;
	struct other owner;
	int64_t apid, addr;
	double start, took;
	char *mem;
	size_t runs, apart;

	(void)ranks;
	while (touched > free_now / 3 && touched > 64 * MIB)
		touched /= 2;
	owner = other_start(sparse, &touched);
	load_library();
	apid = permit(hear(owner.sock));
	addr = hear(owner.sock);
	start = now_us();
	mem = attached(apid, addr, WINDOW);
	printf("a window of 100 GiB, %.2f GiB of it touched\n", touched / (double)GIB);
	printf("  attach          %8.1f ms\n", (now_us() - start) / 1e3);
	runs = touched / (64 * MIB);
	apart = WINDOW / runs;
	start = now_us();
	for (size_t i = 0; i < runs; i++)
		touch_pages(mem + i * apart / PAGE * PAGE, 64 * MIB);
	took = now_us() - start;
	printf("  touch           %8.1f ms, %.2f us a page\n", took / 1e3, took / (touched / PAGE));
	tell(owner.sock, 0);
	printf("  owner's memory  %8.2f GiB in ", hear(owner.sock) / 1024. / 1024.);
	printf("%lld mappings; the attacher's in %ld\n", (long long)hear(owner.sock), proc_lines("maps"));
	start = now_us();
	xp.detach(mem);
	printf("  detach          %8.1f ms\n", (now_us() - start) / 1e3);
	start = now_us();
	other_end(&owner);
	printf("  owner's end     %8.1f ms\n", (now_us() - start) / 1e3);
	xp.release(apid);
}
