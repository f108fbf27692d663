// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "window.h"

#include "../lib/load.h"
#include "layout.h"
#include "rng.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define VADER_WINDOW (8ul << 20)
#define BUCKETS 1024
#define MAX_WINDOWS 8192
#define EXACT_WINDOWS 512 // of each lane

struct window {
	uint64_t base, len;
	char *map;
	struct window *next;
	unsigned lane; // only among exact windows
};

_Thread_local unsigned window_lane;
_Thread_local bool window_may_fail;

// `lock` guards everything here; both threads of an attacher come by.
static struct {
	pthread_mutex_t lock;
	enum window_style style;
	uint32_t epoch;
	int64_t apid;
	unsigned used;
	bool warm;
	unsigned oldest[ATTACHER_THREADS]; // exact windows: the next to go
	struct window pool[MAX_WINDOWS];
	struct window *bucket[BUCKETS];
} w = { .lock = PTHREAD_MUTEX_INITIALIZER };

static unsigned bucket_of(uint64_t base)
{
	return mix64(base) % BUCKETS;
}

static void drop(struct mailbox *mb, struct window *win)
{
	struct window **link = &w.bucket[bucket_of(win->base)];

	if (!win->map)
		return;
	while (*link && *link != win)
		link = &(*link)->next;
	if (*link)
		*link = win->next;
	if (xp.detach(win->map))
		fail_note(mb, F_API, K_LIBC, "xpmem_detach: %s", strerror(errno));
	win->map = NULL;
}

// A free place in the pool; among exact windows the oldest makes room.
static struct window *place(struct mailbox *mb)
{
	struct window *win;

	if (w.style != WIN_EXACT)
		return w.used < MAX_WINDOWS ? &w.pool[w.used++] : NULL;
	win = &w.pool[window_lane * EXACT_WINDOWS + w.oldest[window_lane]];
	w.oldest[window_lane] = (w.oldest[window_lane] + 1) % EXACT_WINDOWS;
	w.used = ATTACHER_THREADS * EXACT_WINDOWS;
	drop(mb, win);
	return win;
}

static struct window *attach_one(struct mailbox *mb, uint64_t base, uint64_t ask, uint64_t len)
{
	struct xpmem_addr at = { w.apid, (off_t)base };
	struct window *win;
	char *map;

	map = xp.attach(at, ask, NULL);
	if (map == (void *)-1) {
		int e = errno;

		if (!owner_gone(mb, w.epoch) && !(e == ENOMEM && window_may_fail))
			fail_note(mb, F_API, K_LIBC, "xpmem_attach(%#lx, %#lx): %s", base, ask,
				  strerror(e));
		return NULL;
	}
	stat_add(&mb->stats.attaches, 1);
	if (w.warm)
		stat_add(&mb->stats.warm_attaches, 1);
	win = place(mb);
	if (!win) {
		xp.detach(map);
		return NULL;
	}
	*win = (struct window){ base, len, map, w.bucket[bucket_of(base)], window_lane };
	w.bucket[bucket_of(base)] = win;
	return win;
}

static struct window *find(uint64_t base, uint64_t len)
{
	for (struct window *win = w.bucket[bucket_of(base)]; win; win = win->next)
		if (win->base == base && win->len >= len && (w.style != WIN_EXACT || win->lane == window_lane))
			return win;
	return NULL;
}

bool windows_open(struct mailbox *mb, enum window_style style, uint32_t epoch, int plain_fd)
{
	bool ok = true;

	pthread_mutex_lock(&w.lock);
	w.style = style;
	w.epoch = epoch;
	w.warm = false;
	w.used = 0;
	memset(w.bucket, 0, sizeof(w.bucket));
	memset(w.pool, 0, sizeof(w.pool));
	memset(w.oldest, 0, sizeof(w.oldest));
	if (style == WIN_PLAIN) {
		w.pool[0] = (struct window){ SLICE_BASE, ARENA_SIZE,
					     mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE,
						  MAP_SHARED, plain_fd, 0),
					     NULL, 0 };
		ok = w.pool[0].map != MAP_FAILED;
		w.used = ok;
	} else {
		w.apid = xp.get(mb->owner.segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
		if (w.apid <= 0) {
			int e = errno;

			ok = false;
			if (!owner_gone(mb, epoch))
				fail_note(mb, F_API, K_LIBC, "xpmem_get: %s", strerror(e));
		}
	}
	if (ok && style == WIN_GIANT) {
		uint64_t top = (mb->owner.mmap_top + (1ul << 32)) & ~((1ul << 30) - 1);
		uint64_t low = top - (96ul << 30);

		// Not beyond the end of user addresses, where the segment ends.
		if (top > 0x7ffffffff000ul)
			top = 0x7ffffffff000ul;
		ok = attach_one(mb, SLICE_BASE, ARENA_SIZE + SLICE_SIZE, ARENA_SIZE + SLICE_SIZE) &&
		     attach_one(mb, low, top - low, top - low) &&
		     attach_one(mb, mb->owner.brk_base & ~(PAGE - 1), 1ul << 30, 1ul << 30);
		w.warm = true;
	}
	pthread_mutex_unlock(&w.lock);
	return ok;
}

void *window_at(struct mailbox *mb, uint64_t addr, uint64_t len, uint64_t *run)
{
	struct window *win = NULL;
	uint64_t base, size;

	pthread_mutex_lock(&w.lock);
	switch (w.style) {
	case WIN_PLAIN:
	case WIN_GIANT:
		for (unsigned i = 0; i < w.used && !win; i++)
			if (addr >= w.pool[i].base && addr < w.pool[i].base + w.pool[i].len)
				win = &w.pool[i];
		if (win || w.style == WIN_PLAIN)
			break;
		__attribute__((fallthrough)); // e.g. the .bss of a position-independent program
	case WIN_VADER:
		base = addr & ~(VADER_WINDOW - 1);
		win = find(base, VADER_WINDOW);
		if (!win)
			win = attach_one(mb, base, VADER_WINDOW + 1, VADER_WINDOW);
		break;
	case WIN_EXACT:
		base = addr & ~(PAGE - 1);
		size = ((addr + len + PAGE - 1) & ~(PAGE - 1)) - base;
		win = find(base, size);
		if (!win)
			win = attach_one(mb, base, size, size);
		break;
	}
	pthread_mutex_unlock(&w.lock);
	if (!win)
		return NULL;
	*run = win->base + win->len - addr;
	if (*run > len)
		*run = len;
	return win->map + (addr - win->base);
}

void windows_close(struct mailbox *mb)
{
	pthread_mutex_lock(&w.lock);
	if (w.style == WIN_PLAIN) {
		if (w.used)
			munmap(w.pool[0].map, ARENA_SIZE);
	} else {
		// One half by hand: release takes the rest with it.
		for (unsigned i = 0; i < w.used; i += 2)
			if (w.pool[i].map && xp.detach(w.pool[i].map))
				fail_note(mb, F_API, K_LIBC, "xpmem_detach: %s", strerror(errno));
		if (w.apid > 0 && xp.release(w.apid))
			fail_note(mb, F_API, K_LIBC, "xpmem_release: %s", strerror(errno));
		w.apid = 0;
	}
	w.used = 0;
	pthread_mutex_unlock(&w.lock);
}
