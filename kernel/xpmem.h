/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XPMEM: an exported address space is a file whose offset is the owner's
 * virtual address. Attaching maps that file, so the kernel's own reverse map
 * knows every attachment in every process, and revoking is one
 * unmap_mapping_range().
 *
 * Objects, each holding a reference on the next:
 *
 *   attachment (a VMA's vm_private_data) -> access (permit, apid)
 *	-> segment (segid) -> space (one per exporting client) -> mm (mmgrab)
 *
 * A client is an open file of /dev/xpmem. What it made and got lives in the
 * two id tables until it is withdrawn or the client goes.
 *
 * Lock order, outermost first:
 *
 *   client->lock
 *   access->unmap
 *   attacher's mmap_lock		(access->unmap inside it: try only)
 *   owner's mmap_lock			(try only, when the attacher's is held)
 *   attachment->tables
 *   mmu notifier of the owner		(its start..end)
 *   space->inval
 *   i_mmap_rwsem of the space's inode	(never together with space->inval)
 *   page-table locks
 *
 * xpmem_exempt_lock, access->lock and the locks of the id tables are leaves.
 * The kernel splits a VMA with i_mmap_rwsem held and notifies inside: space.c
 * ignores that, or the order above would be turned round. Nothing may allocate
 * under space->inval: reclaim calls the notifier.
 */
#ifndef _XPMEM_H
#define _XPMEM_H

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>

#include "compat.h"
#include "xpmem_uapi.h"

struct user_namespace;

/* id.c: 63-bit ids, not guessable. */
struct xpmem_object {
	struct kref ref;
	s64 id;
	struct hlist_node chain;	/* the table's; its lock */
	/* In the client's list of what it made or got; the table's lock. */
	struct hlist_node owned;
};

struct xpmem_table {
	spinlock_t lock;	/* also of the clients' lists of its objects */
	unsigned int count;
	struct hlist_head *chains;
};

extern struct xpmem_table xpmem_segments, xpmem_accesses;

int xpmem_ids_init(void);
void xpmem_ids_exit(void);
int xpmem_id_add(struct xpmem_table *table, struct xpmem_object *obj,
		 struct hlist_head *owned);
struct xpmem_object *xpmem_id_get(struct xpmem_table *table, s64 id);
bool xpmem_id_del(struct xpmem_table *table, struct xpmem_object *obj);
struct xpmem_object *xpmem_owned_first(struct xpmem_table *table,
				       struct hlist_head *owned);

/* client.c: an open file of /dev/xpmem, and the address space that opened it. */
struct xpmem_client {
	struct mm_struct *mm;		/* mmgrab; identity only */
	struct mutex lock;		/* space, until it is set */
	struct xpmem_space *space;
	unsigned long top;		/* where to attach next: below; a hint */
	struct hlist_head segments;	/* xpmem_segments.lock */
	struct hlist_head accesses;	/* xpmem_accesses.lock */
};

int xpmem_open(struct inode *inode, struct file *file);
int xpmem_release(struct inode *inode, struct file *file);

/* space.c: the exported address space as a file. */
struct xpmem_space {
	struct kref ref;
	struct mm_struct *mm;		/* mmgrab; mmget_not_zero() to look inside */
	struct inode *inode;		/* file offset == address in @mm */
	struct mmu_interval_notifier notifier;
	/*
	 * Read: page-table entries made from one notifier sequence are being
	 * inserted. Write: the sequence moves, or something is withdrawn.
	 */
	struct rw_semaphore inval;
};

struct xpmem_space *xpmem_space_create(struct mm_struct *mm);
void xpmem_space_put(struct xpmem_space *space);
void xpmem_space_withdraw(struct xpmem_space *space, unsigned long start,
			  unsigned long size);
struct file *xpmem_space_file(struct xpmem_space *space,
			      const struct file_operations *fops, int flags,
			      void *data);

static inline bool xpmem_space_alive(const struct xpmem_space *space)
{
	return atomic_read(&space->mm->mm_users) > 0;
}

/* segment.c */
struct xpmem_segment {
	struct xpmem_object obj;
	struct xpmem_space *space;
	unsigned long start;
	unsigned long size;
	umode_t mode;
	kuid_t uid;
	kgid_t gid;
	struct user_namespace *user_ns;
	bool removed;	/* set before space->inval is cycled; read under it */
};

/* What answers an id or an address answers an error as a negative number. */
s64 xpmem_make(struct xpmem_client *client, u64 vaddr, u64 size, s32 type,
	       u64 value);
int xpmem_remove(struct xpmem_client *client, s64 segid);
void xpmem_segment_put(struct xpmem_segment *segment);
void xpmem_segment_withdraw(struct xpmem_segment *segment);
bool xpmem_segment_permits(const struct xpmem_segment *segment, bool write);

static inline struct xpmem_segment *xpmem_segment_get(s64 segid)
{
	struct xpmem_object *obj = xpmem_id_get(&xpmem_segments, segid);

	return obj ? container_of(obj, struct xpmem_segment, obj) : NULL;
}

/* access.c */
struct xpmem_access {
	struct xpmem_object obj;
	struct xpmem_segment *segment;
	struct mm_struct *mm;		/* granted to; mmgrab */
	bool write;
	spinlock_t lock;		/* guards what says so, here and below */
	bool revoked;			/* as segment->removed; set under lock */
	struct file *file;		/* lock; made at the first attach */
	struct hlist_head attachments;	/* lock */
	/* One detach or release at a time looks up and unmaps. */
	struct mutex unmap;
	/* Set by a task for itself alone; see xpmem_unmap_exactly(). */
	struct task_struct *unmapper;
	struct xpmem_attachment *unmapping;
};

int xpmem_access_init(void);
void xpmem_access_exit(void);
s64 xpmem_get(struct xpmem_client *client, s64 segid, s32 flags, s32 type,
	      u64 value);
int xpmem_give_back(struct xpmem_client *client, s64 apid);
void xpmem_access_put(struct xpmem_access *access);
void xpmem_access_revoke(struct xpmem_access *access);

static inline struct xpmem_access *xpmem_access_get(s64 apid)
{
	struct xpmem_object *obj = xpmem_id_get(&xpmem_accesses, apid);

	return obj ? container_of(obj, struct xpmem_access, obj) : NULL;
}

static inline bool xpmem_access_valid(const struct xpmem_access *access)
{
	return !READ_ONCE(access->revoked) &&
	       !READ_ONCE(access->segment->removed);
}

/*
 * space.c: a task whose notifications about an attachment are to be ignored:
 * all of them while it revokes (@mm NULL), or those about one PMD of @mm.
 */
struct xpmem_exemption {
	struct hlist_node node;		/* hashed by task */
	struct task_struct *task;
	struct mm_struct *mm;
	unsigned long start;
};

/* attach.c: one attach call; its VMAs share it, however they were split. */
struct xpmem_attachment {
	refcount_t ref;			/* VMAs, and whoever looks at it */
	struct xpmem_access *access;
	struct hlist_node link;		/* access->lock */
	unsigned long lo, hi;		/* its VMAs lie within; access->lock */
	struct mutex tables;		/* page table or huge entry: one of them */
	u8 window;			/* log2 of pages a fault; a hint */
	/* Who was refused what by a page fault in the owner; a hint. */
	struct task_struct *refused_task;
	unsigned long refused_addr;
	struct xpmem_exemption split;	/* the last split of a VMA of it */
};

void xpmem_split_begin(struct vm_area_struct *vma, unsigned long addr);
void xpmem_exempt_del(struct xpmem_exemption *e);

/* Called, as xpmem_split_begin() is, under the mmap_lock: nearly always none. */
static inline void xpmem_split_forget(struct xpmem_attachment *att)
{
	if (!hlist_unhashed(&att->split.node))
		xpmem_exempt_del(&att->split);
}

unsigned long xpmem_attach(struct xpmem_client *client, s64 apid, s64 offset,
			   u64 size, u64 vaddr);
int xpmem_detach(struct xpmem_client *client, u64 vaddr);
void xpmem_attachment_put(struct xpmem_attachment *att);
int xpmem_attachment_unmap(struct xpmem_attachment *att, struct file *file);
struct file *xpmem_access_file(struct xpmem_access *access);

/* fault.c */
#define XPMEM_WINDOW_MAX	(PMD_SHIFT - PAGE_SHIFT)
vm_fault_t xpmem_fault(struct vm_fault *vmf);
vm_fault_t xpmem_pfn_mkwrite(struct vm_fault *vmf);

/* stats.c: /proc/xpmem/stats */
enum xpmem_live {
	XPMEM_LIVE_SPACES,
	XPMEM_LIVE_SEGMENTS,
	XPMEM_LIVE_PERMITS,
	XPMEM_LIVE_ATTACHMENTS,
	XPMEM_LIVE_MAX
};

enum xpmem_event {
	XPMEM_EV_FAULT_READ,
	XPMEM_EV_FAULT_WRITE,
	XPMEM_EV_FAULT_UPGRADE,
	XPMEM_EV_FAULT_REFUSED,
	XPMEM_EV_FAULT_AGAIN,
	XPMEM_EV_FAULT_WAIT,
	XPMEM_EV_FAULT_SLOW,
	XPMEM_EV_MAPPED_SMALL,
	XPMEM_EV_MAPPED_HUGE,
	XPMEM_EV_INVALIDATE,
	XPMEM_EV_INVALIDATE_MAPPED,
	XPMEM_EV_UNMAP_TWO_STEPS,
	XPMEM_EV_MAX
};

extern atomic_long_t xpmem_live[XPMEM_LIVE_MAX];
struct xpmem_events {
	unsigned long n[XPMEM_EV_MAX];
};
DECLARE_PER_CPU(struct xpmem_events, xpmem_events);

#define xpmem_live_inc(what)	atomic_long_inc(&xpmem_live[what])
#define xpmem_live_dec(what)	atomic_long_dec(&xpmem_live[what])
#define xpmem_event_add(what, k) this_cpu_add(xpmem_events.n[what], k)
#define xpmem_event(what)	xpmem_event_add(what, 1)

int xpmem_stats_init(void);
void xpmem_stats_exit(void);

#endif /* _XPMEM_H */
