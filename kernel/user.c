// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much of what everybody shares one user may have. Memory is the memory
 * cgroup's to limit; this keeps ids for the others.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/hashtable.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "xpmem.h"

/*
 * A node of 512 processes of one user, each with a permit for each other one's
 * segment, has 262,144 permits.
 */
unsigned int xpmem_limits[XPMEM_KIND_MAX] = {
	[XPMEM_KIND_SEGMENT] = 1 << 20,
	[XPMEM_KIND_PERMIT] = 1 << 20,
	[XPMEM_KIND_SPACE] = 1 << 16,
};

module_param_named(segments_per_user, xpmem_limits[XPMEM_KIND_SEGMENT], uint,
		   0644);
MODULE_PARM_DESC(segments_per_user, "Segments that a user may have at a time");
module_param_named(permits_per_user, xpmem_limits[XPMEM_KIND_PERMIT], uint,
		   0644);
MODULE_PARM_DESC(permits_per_user, "Access permits that a user may have");
module_param_named(owners_per_user, xpmem_limits[XPMEM_KIND_SPACE], uint, 0644);
MODULE_PARM_DESC(owners_per_user, "Processes of a user that may have segments");

static DEFINE_HASHTABLE(xpmem_users, 6);
static DEFINE_SPINLOCK(xpmem_users_lock);

/* Under the lock. */
static struct xpmem_user *xpmem_user_find(kuid_t uid)
{
	struct xpmem_user *user;

	hash_for_each_possible(xpmem_users, user, chain, __kuid_val(uid))
		if (uid_eq(user->uid, uid))
			return user;
	return NULL;
}

/* The caller's real user, as for other limits; with a reference, or NULL. */
struct xpmem_user *xpmem_user_get_current(void)
{
	struct xpmem_user *user, *fresh;
	kuid_t uid = current_uid();

	fresh = kzalloc(sizeof(*fresh), GFP_KERNEL_ACCOUNT);
	if (!fresh)
		return NULL;
	fresh->uid = uid;
	spin_lock(&xpmem_users_lock);
	user = xpmem_user_find(uid);
	if (!user) {
		user = fresh;
		fresh = NULL;
		hash_add(xpmem_users, &user->chain, __kuid_val(uid));
	}
	user->ref++;
	spin_unlock(&xpmem_users_lock);
	kfree(fresh);
	return user;
}

void xpmem_user_put(struct xpmem_user *user)
{
	spin_lock(&xpmem_users_lock);
	if (--user->ref)
		user = NULL;
	else
		hash_del(&user->chain);
	spin_unlock(&xpmem_users_lock);
	kfree(user);
}

/* One too many was counted. */
bool xpmem_user_over(struct xpmem_user *user, enum xpmem_kind kind)
{
	if (capable(CAP_SYS_RESOURCE))
		return true;
	xpmem_user_uncharge(user, kind);
	return false;
}
