// SPDX-License-Identifier: MIT OR Apache-2.0
// One thread maps, replaces, discards, moves, shrinks and reuses its own
// addresses, through libc or by inline system calls.
#include "layout.h"
#include "pattern.h"
#include "worker.h"

#include <errno.h>

#define POSITIONS 6 // few, so that addresses come again at once
#define POSITION(slice, n) ((slice) + (n) * (8ul << 20))

struct mapping {
	struct worker *w;
	const struct vmops *vm;
	enum klass k;
	uint64_t at, len;
};

static bool refused(struct mapping *m, const char *what)
{
	fail_note(m->w->mb, F_OWNER_MEM, m->k, "%s of %#lx+%#lx refused: %m", what, m->at, m->len);
	return false;
}

// mremap over a mapping of which a part is promoted: it is several mappings by
// now. In libc the library sees to that; an inline call is refused, which the
// documentation says. Nothing is changed by it.
static bool remap_refused(struct mapping *m, const char *what)
{
	if (m->k == K_RAW && errno == EFAULT) {
		stat_add(&m->w->mb->stats.raw_mremap_refused, 1);
		return true;
	}
	return refused(m, what);
}

static void expect_hole(struct mapping *m, const char *op, uint64_t at, uint64_t len)
{
	struct ask a = { op, m->k, REQ_HOLE, next_gen(), (void *)at, len };

	if (m->vm->true_holes)
		ask_and_wait(m->w, &a);
}

// A part of the mapping, in whole pages.
static void part_of(struct mapping *m, uint64_t *at, uint64_t *len)
{
	uint64_t pages = m->len / PAGE, first = rng_below(&m->w->rng, pages);

	*at = m->at + first * PAGE;
	*len = (1 + rng_below(&m->w->rng, pages - first)) * PAGE;
}

static bool reuse(struct mapping *m)
{
	if (!m->vm->unmap(m->at, m->len))
		return refused(m, "munmap");
	if (rng_one_in(&m->w->rng, 4))
		expect_hole(m, "unmapped", m->at, m->len);
	if (rng_one_in(&m->w->rng, 2))
		m->len = random_pages(m->w, 256);
	if (!m->vm->map(m->at, m->len, false))
		return refused(m, "mmap of the same address");
	if (rng_one_in(&m->w->rng, 2))
		publish_again(m->w, "reuse/zero", m->k, (void *)m->at, m->len, 0, 0);
	else
		publish(m->w, "reuse", m->k, (void *)m->at, m->len);
	return true;
}

static bool replace(struct mapping *m)
{
	uint64_t at, len;

	part_of(m, &at, &len);
	if (!m->vm->map(at, len, true))
		return refused(m, "MAP_FIXED");
	publish_again(m->w, "MAP_FIXED/zero", m->k, (void *)at, len, 0, 0);
	publish(m->w, "MAP_FIXED", m->k, (void *)m->at, m->len);
	return true;
}

static bool discard(struct mapping *m)
{
	uint64_t at, len;

	part_of(m, &at, &len);
	if (!m->vm->discard(at, len))
		return refused(m, "MADV_DONTNEED");
	publish_again(m->w, "DONTNEED/zero", m->k, (void *)at, len, 0, 0);
	if (rng_one_in(&m->w->rng, 2))
		publish(m->w, "DONTNEED", m->k, (void *)m->at, m->len);
	return true;
}

// The middle goes; what is left must stay, the hole must be one, then all is whole again.
static bool punch(struct mapping *m)
{
	uint64_t at, len;
	uint32_t gen = next_gen();

	part_of(m, &at, &len);
	pattern_fill((void *)m->at, m->len / 8, m->w->key, gen);
	if (!m->vm->unmap(at, len))
		return refused(m, "munmap of a part");
	if (at > m->at)
		publish_again(m->w, "before hole", m->k, (void *)m->at, at - m->at, gen, 0);
	expect_hole(m, "hole", at, len);
	if (!m->vm->map(at, len, false))
		return refused(m, "mmap into the hole");
	publish(m->w, "hole filled", m->k, (void *)m->at, m->len);
	return true;
}

static bool grow(struct mapping *m)
{
	uint64_t more = random_pages(m->w, 64), old = m->len;
	uint32_t gen = next_gen();

	if (!m->vm->remap)
		return true;
	pattern_fill((void *)m->at, m->len / 8, m->w->key, gen);
	if (rng_one_in(&m->w->rng, 2)) // promoted at the old size first
		publish_again(m->w, "before growing", m->k, (void *)m->at, old, gen, 0);
	if (!m->vm->remap(m->at, old, old + more, 0))
		return remap_refused(m, "mremap to grow");
	m->len = old + more;
	publish_again(m->w, "grown/zero", m->k, (void *)(m->at + old), more, 0, 0);
	publish_again(m->w, "grown", m->k, (void *)m->at, old, gen, 0);
	return true;
}

static bool shrink(struct mapping *m)
{
	uint64_t keep = (m->len / PAGE + 1) / 2 * PAGE;

	if (!m->vm->remap || keep == m->len)
		return true;
	if (!m->vm->remap(m->at, m->len, keep, 0))
		return remap_refused(m, "mremap to shrink");
	expect_hole(m, "shrunk", m->at + keep, m->len - keep);
	m->len = keep;
	return true;
}

static bool move(struct mapping *m, uint64_t to)
{
	uint64_t from = m->at, len = m->len, more = rng_below(&m->w->rng, 8) * PAGE;
	uint32_t gen = next_gen();

	if (!m->vm->remap || to == from)
		return true;
	pattern_fill((void *)from, len / 8, m->w->key, gen);
	if (rng_one_in(&m->w->rng, 2))
		publish_again(m->w, "before moving", m->k, (void *)from, len, gen, 0);
	if (!m->vm->remap(from, len, len + more, to)) {
		// Linux 6.17 and later move mapping by mapping: those before the one
		// that cannot be moved with others are at the new place by now.
		if (remap_refused(m, "mremap to move")) {
			m->vm->unmap(from, len);
			m->vm->unmap(to, len + more);
		}
		return false;
	}
	m->at = to;
	m->len = len + more;
	publish_again(m->w, "moved", m->k, (void *)to, len, gen, 0);
	if (more)
		publish_again(m->w, "moved/zero", m->k, (void *)(to + len), more, 0, 0);
	expect_hole(m, "moved away", from, len);
	return true;
}

static void inject_stale(struct mapping *m)
{
	if (m->w->inject == INJECT_STALE && rng_one_in(&m->w->rng, 200)) {
		vm_plain_inject_stale(m->at);
		publish(m->w, "injected", m->k, (void *)m->at, m->len);
	}
}

void op_map(struct worker *w)
{
	bool may_raw = w->classes & 1u << K_RAW, may_libc = w->classes & 1u << K_LIBC;
	bool raw = !w->plain && may_raw && (!may_libc || rng_one_in(&w->rng, 2));
	struct mapping m = { .w = w,
			     .vm = w->plain ? &vm_plain : raw ? &vm_raw : &vm_libc,
			     .k = raw ? K_RAW : K_LIBC };
	uint64_t slice = slice_of(w->id, raw ? SLICE_RAW : SLICE_LIBC);
	unsigned here = rng_below(&w->rng, POSITIONS), rounds = 1 + rng_below(&w->rng, 6);
	bool ok;

	m.at = POSITION(slice, here);
	m.len = random_pages(w, 512);
	ok = m.vm->map(m.at, m.len, false) || refused(&m, "mmap");
	if (ok && rng_one_in(&w->rng, 4))
		publish_again(w, "new/zero", m.k, (void *)m.at, m.len, 0, 0);
	if (ok)
		publish(w, "new", m.k, (void *)m.at, m.len);
	for (unsigned i = 0; ok && i < rounds; i++) {
		switch (rng_below(&w->rng, 9)) {
		case 0:
		case 1:
		case 2:
			ok = reuse(&m);
			break;
		case 3:
			ok = replace(&m);
			break;
		case 4:
			ok = discard(&m);
			break;
		case 5:
			ok = punch(&m);
			break;
		case 6:
			ok = grow(&m);
			break;
		case 7:
			ok = shrink(&m);
			break;
		case 8:
			ok = move(&m, POSITION(slice, (here + 1) % POSITIONS));
			break;
		}
		if (ok && rng_one_in(&w->rng, 3))
			publish(w, "in place", m.k, (void *)m.at, m.len);
		inject_stale(&m);
	}
	if (ok && !m.vm->unmap(m.at, m.len))
		refused(&m, "munmap at the end");
}
