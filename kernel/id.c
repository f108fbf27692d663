// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ids: 39 random bits over a 24-bit index. The index keeps the table dense;
 * the random part makes an id that nobody was told useless to try, and an old
 * id never names a new object.
 */
#include <linux/random.h>

#include "xpmem.h"

#define XPMEM_ID_INDEX_BITS	24
#define XPMEM_ID_INDEX_MAX	((1U << XPMEM_ID_INDEX_BITS) - 1)

DEFINE_XARRAY_ALLOC1(xpmem_segments);
DEFINE_XARRAY_ALLOC1(xpmem_accesses);
DEFINE_SPINLOCK(xpmem_owned_lock);

static unsigned long xpmem_id_index(s64 id)
{
	return id & XPMEM_ID_INDEX_MAX;
}

/* The table's reference is the one the object was born with. */
int xpmem_id_add(struct xarray *table, struct xpmem_object *obj)
{
	u64 tag = get_random_u64() >> 1;
	u32 index;
	int err;

	err = xa_alloc(table, &index, obj, XA_LIMIT(1, XPMEM_ID_INDEX_MAX),
		       GFP_KERNEL_ACCOUNT);
	if (err)
		return err == -EBUSY ? -ENOSPC : err;
	/* Until it has its id no lookup can match it. */
	WRITE_ONCE(obj->id, (tag & ~(u64)XPMEM_ID_INDEX_MAX) | index);
	return 0;
}

/* With a reference, or NULL. */
struct xpmem_object *xpmem_id_get(struct xarray *table, s64 id)
{
	struct xpmem_object *obj;

	xa_lock(table);
	obj = xa_load(table, xpmem_id_index(id));
	if (obj && READ_ONCE(obj->id) == id)
		kref_get(&obj->ref);
	else
		obj = NULL;
	xa_unlock(table);
	return obj;
}

/* True for the one caller that took it out: it now holds the table's reference. */
bool xpmem_id_del(struct xarray *table, struct xpmem_object *obj)
{
	unsigned long index = xpmem_id_index(obj->id);
	bool found;

	xa_lock(table);
	found = xa_load(table, index) == obj;
	if (found)
		__xa_erase(table, index);
	xa_unlock(table);
	if (!found)
		return false;

	spin_lock(&xpmem_owned_lock);
	list_del_init(&obj->owned);
	spin_unlock(&xpmem_owned_lock);
	return true;
}

/* Takes the first object off a client's list, with a reference. */
struct xpmem_object *xpmem_owned_first(struct list_head *owned)
{
	struct xpmem_object *obj;

	spin_lock(&xpmem_owned_lock);
	obj = list_first_entry_or_null(owned, struct xpmem_object, owned);
	if (obj) {
		/* While listed it still has the table's reference. */
		kref_get(&obj->ref);
		list_del_init(&obj->owned);
	}
	spin_unlock(&xpmem_owned_lock);
	return obj;
}
