/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * One owner, exported both ways (XPMEM_BACKEND=both): while one peer's touches
 * move its memory into the shared file of its service, another peer stores to it
 * through the module. No touch may fail, and no store may be lost.
 *
 * "both apart" exports the same memory twice, by two back ends that do not know
 * of each other: what the module's hold is for. "both calls" has the owner make
 * calls for which the service makes the memory private again; linked dynamically.
 */
#include "t.h"
#include <stdatomic.h>
#include "../../include/xpmem.h"

#define BASE 0x400000000000L
#define PAGES 512
#define ROUNDS 6

static struct shared {
	atomic_int turn;		/* of the round */
	atomic_int over;
	atomic_long stores[2], bus[2];	/* by module and by service */
	long segid, named;
} *sh;
static int apart, calls;

struct page { atomic_long by_module, by_service, by_owner; char rest[PAGE - 3 * sizeof(long)]; };

/* Stores to every page again and again until the round is over. */
static void store(struct page *p, int which)
{
	unsigned seed = 1 + which;

	while (!atomic_load(&sh->over)) {
		unsigned k = (seed = seed * 1103515245 + 12345) >> 8;
		struct page *page = &p[k % PAGES];
		int sig = sigsetjmp(t_jmp, 0);

		if (sig) {
			atomic_fetch_add(&sh->bus[which], 1);
			continue;
		}
		t_armed = 1;
		if (which)
			atomic_fetch_add(&page->by_service, 1);
		else
			atomic_fetch_add(&page->by_module, 1);
		t_armed = 0;
		atomic_fetch_add(&sh->stores[which], 1);
		/* The service's touches come slowly: each promotes what is around it. */
		if (which)
			usleep(500);
	}
}

static long by_module(long a, long b, long c)
{
	long apid = x_get(sh->segid, RW), p = x_attach(apid, 0, PAGES * PAGE);

	if (p < 0)
		return p;
	store((struct page *)p, 0);
	return x_release(apid);
}

static long by_service(long a, long b, long c)
{
	struct xpmem_addr addr = { xpmem_get(sh->named, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL), 0 };
	void *p = addr.apid < 0 ? (void *)-1 : xpmem_attach(addr, PAGES * PAGE, NULL);

	if (p == (void *)-1)
		return -errno;
	store(p, 1);
	/* The owner's last call may have taken it back. */
	(void)*(volatile long *)p;
	/* It is what it was chosen for: pages that a system call can pin. */
	struct iovec to = { (void *)&a, sizeof(a) }, from = { p, sizeof(a) };
	long n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

	xpmem_release(addr.apid);
	return n == sizeof(a) ? 0 : -errno;
}

static long sum(int which)
{
	struct page *p = (struct page *)BASE;
	long n = 0;

	for (int i = 0; i < PAGES; i++)
		n += atomic_load(which ? &p[i].by_service : &p[i].by_module);
	return n;
}

static void *own(void *arg)
{
	struct page *p = (struct page *)BASE;
	long *stores = arg;

	while (!atomic_load(&sh->over))
		atomic_fetch_add(&p[(*stores)++ % PAGES].by_owner, 1);
	return NULL;
}

/*
 * What the memory is, by turns. Of shared memory the service copies more at a time than
 * it can do while the owner stands, and then again what was stored meanwhile: that nobody
 * stores by the module then, the module must have been told.
 */
static const struct { long size; int flags, advice; } kinds[] = {
	{ PAGES * PAGE, MAP_PRIVATE, MADV_NOHUGEPAGE },
	{ PAGES * PAGE, MAP_PRIVATE, MADV_HUGEPAGE },
	{ 16 * PAGES * PAGE, MAP_SHARED, MADV_NORMAL },
};

/* The service makes it private for this, and the kernel refuses it then. */
static void take_back(void *p)
{
	CHECK(madvise(p, PAGES * PAGE, MADV_REMOVE) == -1 && errno == EINVAL);
	usleep(20000);
}

static void shared_both_ways(void)
{
	long lost = 0, bus[2] = { 0, 0 }, stores[2] = { 0, 0 };
	struct peer a = peer_start(), b = peer_start();

	for (int round = 0; round < ROUNDS; round++) {
		struct page *p = (struct page *)BASE;
		long mine = 0, found = 0, kind = round % (apart ? 2 : 3);
		pthread_t t;

		NEED(mmap(p, kinds[kind].size, PROT_READ | PROT_WRITE, kinds[kind].flags | MAP_ANONYMOUS | MAP_FIXED,
			  -1, 0) == p);
		madvise(p, kinds[kind].size, kinds[kind].advice);
		memset(p, 0, kinds[kind].size);
		sh->named = xpmem_make(p, PAGES * PAGE, XPMEM_PERMIT_MODE, (void *)0666);
		sh->segid = apart ? x_make(p, PAGES * PAGE, 0666) : sh->named;
		NEED(sh->named > 0 && sh->segid > 0);
		atomic_store(&sh->over, 0);
		for (int i = 0; i < 2; i++)
			sh->stores[i] = sh->bus[i] = 0;
		peer_send(&a, by_module, 0, 0, 0);
		pthread_create(&t, NULL, own, &mine);
		for (int i = 0; i < 2000 && sh->stores[0] < 100; i++)
			usleep(1000);
		peer_send(&b, by_service, 0, 0, 0);
		for (int i = 0; i < 20000 && sh->stores[1] < 60; i++)
			usleep(1000);
		for (int i = 0; i < 4 && calls && kinds[kind].flags == MAP_PRIVATE; i++)
			take_back(p);
		atomic_store(&sh->over, 1);
		pthread_join(t, NULL);
		CHECK(peer_wait(&a) == 0 && peer_wait(&b) == 0);
		for (int i = 0; i < PAGES; i++)
			found += p[i].by_owner;
		lost += sh->stores[0] - sum(0) + sh->stores[1] - sum(1) + mine - found;
		for (int i = 0; i < 2; i++) {
			bus[i] += sh->bus[i];
			stores[i] += sh->stores[i];
		}
		CHECK(sh->stores[0] > 0 && sh->stores[1] > 0);
		if (apart)
			CHECK(x_remove(sh->segid) == 0);
		CHECK(xpmem_remove(sh->named) == 0);
	}
	printf("  %ld stores by the module, %ld by the service: %ld lost, %ld and %ld SIGBUS\n", stores[0], stores[1], lost,
	       bus[0], bus[1]);
	CHECK(lost == 0 && bus[1] == 0 && (apart || bus[0] == 0));
	peer_stop(&a);
	peer_stop(&b);
}

int main(int argc, char **argv)
{
	t_catch();
	apart = argc > 1 && !strcmp(argv[1], "apart");
	calls = argc > 1 && !strcmp(argv[1], "calls");
	setenv("XPMEM_BACKEND", apart ? "user" : "both", 1);
	sh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	dev_open();
	RUN(shared_both_ways);
	return t_done();
}
