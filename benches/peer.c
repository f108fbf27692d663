// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "peer.h"

#include "../tests/lib/load.h"
#include "sample.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE_PAGE (2ul << 20)

struct call {
	int32_t what;
	int64_t arg;
};

struct peer peer_start(const char *lib, const char *stats)
{
	int fd[2];
	struct peer p = { -1, -1 };
	char num[16];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd))
		return p;
	p.pid = fork();
	if (p.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd[0]);
		if (stats) {
			setenv("XPMEM_DEBUG", "stats", 1);
			setenv("XPMEM_DEBUG_FILE", stats, 1);
		}
		snprintf(num, sizeof(num), "%d", fd[1]);
		execl("/proc/self/exe", "bench-user", "--peer", num, lib, (char *)NULL);
		_exit(127);
	}
	close(fd[1]);
	p.sock = fd[0];
	return p;
}

int64_t peer_call(struct peer *p, enum peer_do what, int64_t arg)
{
	struct call c = { what, arg };
	int64_t answer = -1;

	if (send(p->sock, &c, sizeof(c), MSG_NOSIGNAL) != sizeof(c))
		return -1;
	while (recv(p->sock, &answer, sizeof(answer), 0) < 0)
		if (errno != EINTR)
			return -1;
	return answer;
}

void peer_end(struct peer *p)
{
	peer_call(p, PEER_END, 0);
	close(p->sock);
	waitpid(p->pid, NULL, 0);
}

static struct {
	char *mem;
	size_t len;
	bool is_mallocs;
	volatile bool dirtying;
	pthread_t thread;
} block;

// Every hundredth page, over and over: what is dirty when the stop comes is 1 %.
static void *dirty(void *arg)
{
	(void)arg;
	for (uint64_t n = 0; block.dirtying; n++)
		for (size_t at = 0; at < block.len && block.dirtying; at += 100 * PAGE)
			*(volatile uint64_t *)(block.mem + at) = n;
	return NULL;
}

double random_loads(const char *mem, size_t len)
{
	const size_t loads = 1 << 20;
	uint64_t x = 88172645463325252ull;
	double start = now_us();

	for (size_t i = 0; i < loads; i++)
		x = x * 6364136223846793005ull + 1442695040888963407ull +
		    *(const volatile unsigned char *)(mem + (x >> 20) % len);
	return (now_us() - start) * 1e3 / loads;
}

size_t huge_bytes(const char *mem, size_t len)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start = 0, end = 0, kib;
	size_t total = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *dash = strchr(line, '-'), *space = strchr(line, ' ');

		if (dash && space && dash < space && sscanf(line, "%lx-%lx ", &start, &end) == 2)
			continue;
		if (start < (uintptr_t)mem + len && end > (uintptr_t)mem &&
		    (sscanf(line, "AnonHugePages: %lu", &kib) == 1 || sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1))
			total += kib << 10;
	}
	if (f)
		fclose(f);
	return total;
}

// Begins where a huge page can.
static int64_t alloc_huge(size_t len)
{
	char *mem = mmap(NULL, len + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t head = -(uintptr_t)mem % HUGE_PAGE;

	if (mem == MAP_FAILED)
		return -1;
	if (head)
		munmap(mem, head);
	munmap(mem + head + len, HUGE_PAGE - head);
	block.is_mallocs = false;
	block.mem = mem + head;
	block.len = len;
	madvise(block.mem, len, MADV_HUGEPAGE);
	memset(block.mem, 0x5a, len);
	return (int64_t)block.mem;
}

static int64_t make(void)
{
	return xp.make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
}

static int64_t do_call(const struct call *c)
{
	switch (c->what) {
	case PEER_MAKE:
		return make();
	case PEER_ALLOC:
		block.len = c->arg;
		block.mem = mmap(NULL, block.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (block.mem == MAP_FAILED)
			return -1;
		block.is_mallocs = false;
		memset(block.mem, 0x5a, block.len);
		return (int64_t)block.mem;
	case PEER_MALLOC:
		block.len = c->arg;
		block.mem = malloc(block.len);
		if (!block.mem)
			return -1;
		block.is_mallocs = true;
		memset(block.mem, 0x5a, block.len);
		return (int64_t)block.mem;
	case PEER_ALLOC_HUGE:
		return alloc_huge(c->arg);
	case PEER_LOADS:
		return (int64_t)(random_loads((char *)c->arg, block.len) * 1e3);
	case PEER_HUGE:
		return (int64_t)huge_bytes((char *)c->arg, block.len);
	case PEER_FREE_AT:
		return munmap((char *)c->arg, block.len);
	case PEER_FREE:
		if (block.dirtying) {
			block.dirtying = false;
			pthread_join(block.thread, NULL);
		}
		if (!block.is_mallocs)
			return munmap(block.mem, block.len);
		free(block.mem);
		return 0;
	case PEER_DIRTY:
		block.dirtying = true;
		return pthread_create(&block.thread, NULL, dirty, NULL);
	default:
		return 0;
	}
}

int peer_main(int sock, const char *lib)
{
	struct call c;

	if (!xpmem_api_load(lib))
		return 1;
	while (recv(sock, &c, sizeof(c), 0) == sizeof(c)) {
		int64_t answer = do_call(&c);

		if (send(sock, &answer, sizeof(answer), MSG_NOSIGNAL) < 0 || c.what == PEER_END)
			break;
	}
	return 0;
}
