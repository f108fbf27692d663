// SPDX-License-Identifier: MIT OR Apache-2.0
// All-to-all: each rank reads 64 KiB of each other, by an attachment and by CMA.
#define _GNU_SOURCE
#include "scale.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define BLOCK (64ul << 10)
#define ROUNDS 100
#define MOST 1024

// What the ranks share to begin with: where each one's block is, and a barrier.
struct board {
	pthread_barrier_t barrier;
	int ranks;
	struct {
		pid_t pid;
		char *block;
		int64_t segid;
		double first, last, cma_first, cma_last;
		long rss, fds, tasks, maps, wrong;
	} rank[MOST];
};

static struct board *board;

static void meet(void)
{
	pthread_barrier_wait(&board->barrier);
}

static void read_cma(int from, char *to)
{
	struct iovec here = { to, BLOCK }, there = { board->rank[from].block, BLOCK };

	if (process_vm_readv(board->rank[from].pid, &here, 1, &there, 1, 0) != (ssize_t)BLOCK)
		die("process_vm_readv");
}

static void check(int me, int from, const char *got)
{
	for (size_t at = 0; at < BLOCK; at += 511)
		board->rank[me].wrong += got[at] != (char)(from + 1);
}

// One exchange: of all others, the nearest first, as all-to-all goes.
static double exchange(int me, char **at, char *to)
{
	double start;

	meet();
	start = now_us();
	for (int step = 1; step < board->ranks; step++) {
		int from = (me + step) % board->ranks;

		if (at)
			memcpy(to, at[from], BLOCK);
		else
			read_cma(from, to);
		check(me, from, to);
	}
	return now_us() - start;
}

static void attach_all(int me, char **at)
{
	for (int step = 1; step < board->ranks; step++) {
		int from = (me + step) % board->ranks;
		struct xpmem_addr a = { 0, (int64_t)board->rank[from].block };

		a.apid = xp.get(board->rank[from].segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
		if (a.apid <= 0)
			die("xpmem_get");
		at[from] = xp.attach(a, BLOCK, NULL);
		if (at[from] == (void *)-1)
			die("xpmem_attach");
	}
}

static void rank_main(int sock, void *arg)
{
	int me = *(int *)arg;
	char *to = mapped(BLOCK), *block = mapped(BLOCK), *at[MOST] = { 0 };
	long before, fds, tasks, maps;
	double start;

	memset(to, 0, BLOCK);
	memset(block, me + 1, BLOCK);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	board->rank[me].pid = getpid();
	board->rank[me].block = block;
	board->rank[me].cma_first = exchange(me, NULL, to);
	for (int i = 1; i < ROUNDS; i++)
		board->rank[me].cma_last = exchange(me, NULL, to);
	before = proc_field("smaps_rollup", "Pss:"), fds = proc_entries("fd");
	tasks = proc_entries("task"), maps = proc_lines("maps");
	load_library();
	board->rank[me].segid = xp.make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
	meet();
	start = now_us();
	attach_all(me, at);
	start = now_us() - start;
	board->rank[me].first = start + exchange(me, at, to);
	for (int i = 1; i < ROUNDS; i++)
		board->rank[me].last = exchange(me, at, to);
	meet();
	board->rank[me].rss = proc_field("smaps_rollup", "Pss:") - before;
	board->rank[me].fds = proc_entries("fd") - fds + service_descriptors();
	board->rank[me].tasks = proc_entries("task") - tasks;
	board->rank[me].maps = proc_lines("maps") - maps;
	meet();
	tell(sock, 0);
	hear(sock);
}

static void all_to_all(int ranks)
{
	static struct other others[MOST];
	static int number[MOST];
	struct sample first = { 0 }, last = { 0 }, cma_first = { 0 }, cma_last = { 0 };
	long rss = 0, fds = 0, tasks = 0, maps = 0, wrong = 0;
	pthread_barrierattr_t attr;

	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	memset(board, 0, sizeof(*board));
	pthread_barrier_init(&board->barrier, &attr, ranks);
	board->ranks = ranks;
	for (int i = 0; i < ranks; i++) {
		number[i] = i;
		others[i] = other_start(rank_main, &number[i]);
	}
	for (int i = 0; i < ranks; i++)
		hear(others[i].sock);
	for (int i = 0; i < ranks; i++) {
		other_end(&others[i]);
		sample_add(&first, board->rank[i].first);
		sample_add(&last, board->rank[i].last);
		sample_add(&cma_first, board->rank[i].cma_first);
		sample_add(&cma_last, board->rank[i].cma_last);
		rss += board->rank[i].rss, fds += board->rank[i].fds, tasks += board->rank[i].tasks;
		maps += board->rank[i].maps, wrong += board->rank[i].wrong;
	}
	printf("  %3d ranks: first exchange, with get and attach, %.1f ms (CMA %.2f); the %dth %.0f us (CMA %.0f)%s\n",
	       ranks, sample_median(&first) / 1e3, sample_median(&cma_first) / 1e3, ROUNDS, sample_median(&last),
	       sample_median(&cma_last), wrong ? "; WRONG BYTES" : "");
	printf("             a rank has %ld KiB, %.1f descriptors, %.1f threads, %.1f mappings more\n", rss / ranks,
	       fds / (double)ranks, tasks / (double)ranks, maps / (double)ranks);
}

void bench_ranks(int ranks)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED || ranks < 2 || ranks > MOST)
		die("ranks");
	printf("all-to-all of 64 KiB\n");
	if (ranks / 4 > 1)
		all_to_all(ranks / 4);
	if (ranks / 2 > 1)
		all_to_all(ranks / 2);
	all_to_all(ranks);
	munmap(board, sizeof(*board));
}
