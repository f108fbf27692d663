// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ids: 63 random bits. An id that nobody was told is useless to try, and an
 * old id never names a new object. Being random, an id is its own hash: the
 * table is an array of chains, and adding to it allocates nothing.
 */
#include <linux/bits.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/random.h>

#include "xpmem.h"

/* So many that a chain is short: three for 100,000 ids, 128 at the limit. */
#define XPMEM_ID_CHAINS		BIT(15)
#define XPMEM_ID_MAX		BIT(22)
/* The last of them are for whoever may exceed a user's limits. */
#define XPMEM_ID_RESERVED	BIT(19)

struct xpmem_table xpmem_segments = {
	.kind = XPMEM_KIND_SEGMENT,
	.lock = __SPIN_LOCK_UNLOCKED(xpmem_segments.lock),
};

struct xpmem_table xpmem_accesses = {
	.kind = XPMEM_KIND_PERMIT,
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

/* The lock is not held: a few more than the limit do no harm. */
static bool xpmem_id_full(const struct xpmem_table *table)
{
	unsigned int count = READ_ONCE(table->count);

	if (likely(count < XPMEM_ID_MAX - XPMEM_ID_RESERVED))
		return false;
	return count >= XPMEM_ID_MAX || !capable(CAP_SYS_RESOURCE);
}

/*
 * Into the table and the client's list. The table's reference is the one the
 * object was born with. One of each table, for the compiler to know which.
 */
static __always_inline int xpmem_id_add(struct xpmem_table *table,
					enum xpmem_kind kind,
					struct xpmem_object *obj,
					struct xpmem_client *client)
{
	s64 id = get_random_u64() & S64_MAX;

	if (xpmem_id_full(table) ||
	    !xpmem_user_charge(client->user, kind))
		return -ENOSPC;
	obj->client = client;
	spin_lock(&table->lock);
	while (unlikely(!id || xpmem_id_find(table, id)))
		id = get_random_u64() & S64_MAX;
	obj->id = id;
	hlist_add_head(&obj->chain, &table->chains[id & (XPMEM_ID_CHAINS - 1)]);
	hlist_add_head(&obj->owned, &client->owned[kind]);
	table->count++;
	spin_unlock(&table->lock);
	return 0;
}

int xpmem_id_add_segment(struct xpmem_object *obj, struct xpmem_client *client)
{
	return xpmem_id_add(&xpmem_segments, XPMEM_KIND_SEGMENT, obj, client);
}

int xpmem_id_add_access(struct xpmem_object *obj, struct xpmem_client *client)
{
	return xpmem_id_add(&xpmem_accesses, XPMEM_KIND_PERMIT, obj, client);
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
		xpmem_user_uncharge(obj->client->user, table->kind);
	}
	spin_unlock(&table->lock);
	return found;
}

/* Takes the first object off a client's list, with a reference. */
struct xpmem_object *xpmem_owned_first(struct xpmem_table *table,
				       struct xpmem_client *client)
{
	struct xpmem_object *obj;

	spin_lock(&table->lock);
	obj = hlist_entry_safe(client->owned[table->kind].first,
			       struct xpmem_object, owned);
	if (obj) {
		/* While listed it still has the table's reference. */
		kref_get(&obj->ref);
		hlist_del_init(&obj->owned);
	}
	spin_unlock(&table->lock);
	return obj;
}
