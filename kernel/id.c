// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ids: 63 random bits. An id that nobody was told is useless to try, and an
 * old id never names a new object. Being random, an id is its own hash: the
 * table is an array of chains, and adding to it allocates nothing.
 */
#include <linux/bits.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/random.h>

#include "xpmem.h"

/* So many that a chain is short: three for 100,000 ids, 128 at the limit. */
#define XPMEM_ID_CHAINS		BIT(15)
#define XPMEM_ID_MAX		BIT(22)

struct xpmem_table xpmem_segments = {
	.lock = __SPIN_LOCK_UNLOCKED(xpmem_segments.lock),
};

struct xpmem_table xpmem_accesses = {
	.lock = __SPIN_LOCK_UNLOCKED(xpmem_accesses.lock),
};

int xpmem_ids_init(void)
{
	size_t size = XPMEM_ID_CHAINS * sizeof(struct hlist_head);

	/* Zeroes are empty chains. */
	xpmem_segments.chains = kvzalloc(size, GFP_KERNEL);
	xpmem_accesses.chains = kvzalloc(size, GFP_KERNEL);
	if (xpmem_segments.chains && xpmem_accesses.chains)
		return 0;
	xpmem_ids_exit();
	return -ENOMEM;
}

void xpmem_ids_exit(void)
{
	kvfree(xpmem_segments.chains);
	kvfree(xpmem_accesses.chains);
}

/* Under the table's lock. */
static struct xpmem_object *xpmem_id_find(struct xpmem_table *table, s64 id)
{
	struct xpmem_object *obj;

	hlist_for_each_entry(obj, &table->chains[id & (XPMEM_ID_CHAINS - 1)],
			     chain)
		if (obj->id == id)
			return obj;
	return NULL;
}

/*
 * Into the table and the client's list @owned. The table's reference is the
 * one the object was born with.
 */
int xpmem_id_add(struct xpmem_table *table, struct xpmem_object *obj,
		 struct hlist_head *owned)
{
	s64 id = get_random_u64() & S64_MAX;
	int err = -ENOSPC;

	spin_lock(&table->lock);
	if (table->count < XPMEM_ID_MAX) {
		while (unlikely(!id || xpmem_id_find(table, id)))
			id = get_random_u64() & S64_MAX;
		obj->id = id;
		hlist_add_head(&obj->chain,
			       &table->chains[id & (XPMEM_ID_CHAINS - 1)]);
		hlist_add_head(&obj->owned, owned);
		table->count++;
		err = 0;
	}
	spin_unlock(&table->lock);
	return err;
}

/* With a reference, or NULL. */
struct xpmem_object *xpmem_id_get(struct xpmem_table *table, s64 id)
{
	struct xpmem_object *obj;

	spin_lock(&table->lock);
	obj = xpmem_id_find(table, id);
	if (obj)
		kref_get(&obj->ref);
	spin_unlock(&table->lock);
	return obj;
}

/* True for the one caller that took it out: it now holds the table's reference. */
bool xpmem_id_del(struct xpmem_table *table, struct xpmem_object *obj)
{
	bool found;

	spin_lock(&table->lock);
	found = !hlist_unhashed(&obj->chain);
	if (found) {
		hlist_del_init(&obj->chain);
		hlist_del_init(&obj->owned);
		table->count--;
	}
	spin_unlock(&table->lock);
	return found;
}

/* Takes the first object off a client's list, with a reference. */
struct xpmem_object *xpmem_owned_first(struct xpmem_table *table,
				       struct hlist_head *owned)
{
	struct xpmem_object *obj;

	spin_lock(&table->lock);
	obj = hlist_entry_safe(owned->first, struct xpmem_object, owned);
	if (obj) {
		/* While listed it still has the table's reference. */
		kref_get(&obj->ref);
		hlist_del_init(&obj->owned);
	}
	spin_unlock(&table->lock);
	return obj;
}
