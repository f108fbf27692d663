/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * While the owner's pages are moved under them, both sides count on them: no
 * count may be lost, and none that was seen may be unseen again.
 */
#ifndef COUNT_H
#define COUNT_H

#include "owner.h"
#include <stdatomic.h>

#define PAGES 1024L
#define SIZE (PAGES * PAGE)

/* What each side does with every page, again and again; the fourth is written once. */
struct page { atomic_long by[3]; long constant; char rest[PAGE - 4 * sizeof(long)]; };

static struct counting {
	atomic_int over;
	atomic_long rounds[3];		/* through all pages: the owner, two of the attacher's */
	atomic_long unseen;
} *sh;

static inline void count_begin(void)
{
	sh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static inline void count(struct page *p, int who)
{
	long last[PAGES] = { 0 };
	int other = who ? 0 : 1;

	do {
		long mine = sh->rounds[who];

		for (long i = 0; i < PAGES; i++) {
			/* The other side's, which only grows, and what nobody else changes. */
			long theirs = p[i].by[other];

			if (theirs < last[i] || p[i].by[who] != mine || p[i].constant != 77 + i)
				sh->unseen++;
			last[i] = theirs;
			p[i].by[who]++;
		}
		sh->rounds[who]++;
	} while (!sh->over);
}

static inline void *count_owner(void *p) { count(p, 0); return NULL; }
static inline void *count_first(void *p) { count(p, 1); return NULL; }
static inline void *count_second(void *p) { count(p, 2); return NULL; }

static pthread_t counter;
static inline long r_count(long on, long b, long c)
{
	return on ? pthread_create(&counter, NULL, count_owner, (void *)BASE) : pthread_join(counter, NULL);
}

/* Everybody has been once more through all pages. */
static inline void count_on(void)
{
	for (int i = 0; i < 3; i++)
		for (long had = sh->rounds[i]; sh->rounds[i] < had + 2;)
			usleep(1000);
}

/*
 * Has what the owner has mapped at BASE moved, in six turns, while everybody counts.
 * Answers the least that a turn moved, as its function says.
 */
static inline long count_while(long (*move)(int turn))
{
	struct page *p = (struct page *)x_attach(apid, BASE, SIZE);
	long least = PAGES;
	pthread_t t[2];

	if ((long)p < 0)
		return -1;
	memset(sh, 0, sizeof(*sh));
	for (long i = 0; i < PAGES; i++)
		CHECK(wr(&p[i].constant, 77 + i) == 0);
	CALL(&owner, r_count, 1, 0, 0);
	pthread_create(&t[0], NULL, count_first, p);
	pthread_create(&t[1], NULL, count_second, p);
	count_on();
	for (int turn = 1; turn <= 6; turn++) {
		long n = move(turn);

		least = n < least ? n : least;
		count_on();
	}
	sh->over = 1;
	CALL(&owner, r_count, 0, 0, 0);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	for (long i = 0; i < PAGES; i++)
		for (int who = 0; who < 3; who++)
			CHECK(p[i].by[who] == sh->rounds[who]);
	CHECK(sh->unseen == 0);
	printf("  %ld rounds of the owner's, %ld and %ld of the attacher's, %ld pages moved at least\n", sh->rounds[0],
	       sh->rounds[1], sh->rounds[2], least);
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, SIZE, 0);
	return least;
}

#endif
