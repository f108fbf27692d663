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
 *	-> segment (segid) -> space (one per exporting mm) -> mm (mmgrab)
 *
 * A client is an open file of /dev/xpmem. What it made and got lives in the
 * two id tables until it is withdrawn or the client goes. "get" and "put" are
 * references everywhere: the calls are make, remove, grant and release.
 *
 * Who calls whom: main -> client -> detach -> attach -> fault -> window ->
 * revoke; detach and attach -> access -> segment -> space -> revoke; all of
 * them id, user and stats. Nothing calls back up.
 *
 * Lock order, outermost first:
 *
 *   client->lock
 *   access->unmap
 *   attacher's mmap_lock, or its VMA's	(access->unmap inside it: try only)
 *   owner's mmap_lock			(try only, when the attacher's is held)
 *   attachment->tables
 *   mmu notifier of the owner		(its start..end)
 *   space->inval
 *   i_mmap_rwsem of the space's inode	(never together with space->inval)
 *   page-table locks
 *
 * space->lock, access->lock, the locks of revoke.c's exemptions, of the id
 * tables and of the users are leaves. The kernel splits a VMA with i_mmap_rwsem
 * held and notifies inside: revoke.c ignores that, or the order above would be
 * turned round. Nothing may allocate under space->inval: reclaim calls the
 * notifier. No lock is held while a fault waits: for the owner's mmap_lock, for
 * a change of the owner's memory to end, or for whatever the owner's page needs.
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
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "xpmem_uapi.h"

struct user_namespace;

/* user.c: what a user has, of what root limits by a parameter of the module. */
enum xpmem_kind {
	XPMEM_KIND_SEGMENT,
	XPMEM_KIND_PERMIT,
	XPMEM_KIND_SPACE,
	XPMEM_KIND_MAX
};

struct xpmem_user {
	struct hlist_node chain;	/* by uid; xpmem_users_lock, as ref */
	unsigned int ref;
	kuid_t uid;
	atomic_t count[XPMEM_KIND_MAX];
};

struct xpmem_user *xpmem_user_get_current(void);
void xpmem_user_put(struct xpmem_user *user);
bool xpmem_user_over(struct xpmem_user *user, enum xpmem_kind kind);
extern unsigned int xpmem_limits[XPMEM_KIND_MAX];

/* One more of @kind; false if that is too many, and nothing was counted. */
static inline bool xpmem_user_charge(struct xpmem_user *user,
				     enum xpmem_kind kind)
{
	unsigned int count = atomic_inc_return(&user->count[kind]);

	return likely(count <= READ_ONCE(xpmem_limits[kind])) ||
	       xpmem_user_over(user, kind);
}

static inline void xpmem_user_uncharge(struct xpmem_user *user,
				       enum xpmem_kind kind)
{
	atomic_dec(&user->count[kind]);
}

/* id.c: 63-bit ids, not guessable. */
struct xpmem_client;

struct xpmem_object {
	struct kref ref;
	s64 id;
	struct hlist_node chain;	/* the table's; its lock */
	struct hlist_node owned;	/* the client's; the table's lock */
	struct xpmem_client *client;	/* there while the object is in @chain */
};

struct xpmem_table {
	enum xpmem_kind kind;
	spinlock_t lock;	/* also of the clients' lists of its objects */
	unsigned int count;
	struct hlist_head *chains;
};

extern struct xpmem_table xpmem_segments, xpmem_accesses;

int xpmem_ids_init(void);
void xpmem_ids_exit(void);
int xpmem_id_add_segment(struct xpmem_object *obj, struct xpmem_client *client);
int xpmem_id_add_access(struct xpmem_object *obj, struct xpmem_client *client);
struct xpmem_object *xpmem_id_get(struct xpmem_table *table, s64 id);
bool xpmem_id_del(struct xpmem_table *table, struct xpmem_object *obj);
struct xpmem_object *xpmem_owned_first(struct xpmem_table *table,
				       struct xpmem_client *client);

/* client.c: an open file of /dev/xpmem, and the address space that opened it. */
struct xpmem_client {
	struct mm_struct *mm;		/* mmgrab; identity only */
	struct xpmem_user *user;
	struct mutex lock;		/* space until it is set, and holds */
	struct xpmem_space *space;	/* kept from one segment to the next */
	bool holds;			/* lock; its faults wait */
	unsigned long top;		/* where to attach next: below; a hint */
	/* By kind: XPMEM_KIND_SEGMENT, XPMEM_KIND_PERMIT. The table's lock. */
	struct hlist_head owned[XPMEM_KIND_SPACE];
};

int xpmem_open(struct inode *inode, struct file *file);
int xpmem_release(struct inode *inode, struct file *file);
int xpmem_hold(struct xpmem_client *client, s64 hold);

/* A change of the owner's memory between its start and its end. */
struct xpmem_change {
	const void *key;		/* the notification's range */
	unsigned long start, end;
};

#define XPMEM_CHANGES	16

/* space.c: the exported address space as a file. */
struct xpmem_space {
	/* One for each mm and the reference count: mmu_notifier_get(), _put(). */
	struct mmu_notifier notifier;
	/* Refuses the OOM reaper what cannot be had without sleeping. */
	struct mmu_interval_notifier veto;
	struct mm_struct *mm;		/* mmgrab; mmget_not_zero() to look inside */
	struct inode *inode;		/* file offset == address in @mm */
	struct xpmem_user *user;
	struct work_struct work;	/* frees it */

	spinlock_t lock;		/* guards, down to @held_since: */
	bool dying;			/* the owner is being killed for memory */
	unsigned int nr_changes;
	struct xpmem_change changes[XPMEM_CHANGES];
	/* Those that found no place, as one: all of them within these bounds. */
	unsigned int nr_others;
	unsigned long others_start, others_end;
	struct list_head looks;		/* struct xpmem_look */
	unsigned int nr_holds;		/* clients whose owner holds it */
	unsigned int held;		/* how often one began or ended */
	unsigned long held_since;	/* jiffies; while there are holds */

	wait_queue_head_t quiet;	/* a change ended */
	/*
	 * Read: page-table entries made from one look are being inserted.
	 * Write: that look was made stale, or something is withdrawn.
	 */
	struct rw_semaphore inval;
};

int xpmem_spaces_init(void);
void xpmem_spaces_exit(void);
struct xpmem_space *xpmem_space_get_current(void);
void xpmem_space_put(struct xpmem_space *space);
struct file *xpmem_space_file(struct xpmem_space *space,
			      const struct file_operations *fops, int flags,
			      void *data);

static inline bool xpmem_space_alive(const struct xpmem_space *space)
{
	return atomic_read(&space->mm->mm_users) > 0;
}

/* revoke.c: changes of the owner's memory, and who looks at it meanwhile. */
struct xpmem_look {
	struct list_head node;		/* space->lock */
	unsigned long start, end;
	bool stale;	/* set under space->lock; space->inval is then cycled */
};

extern const struct mmu_interval_notifier_ops xpmem_veto_ops;
int xpmem_change_start(struct mmu_notifier *notifier,
		       const struct mmu_notifier_range *range);
void xpmem_change_end(struct mmu_notifier *notifier,
		      const struct mmu_notifier_range *range);
void xpmem_owner_exits(struct mmu_notifier *notifier, struct mm_struct *mm);
int xpmem_look_begin(struct xpmem_space *space, struct xpmem_look *look,
		     unsigned long start, unsigned long end);
void xpmem_look_end(struct xpmem_space *space, struct xpmem_look *look);
bool xpmem_space_changes(struct xpmem_space *space, unsigned long start,
			 unsigned long end);
void xpmem_space_hold(struct xpmem_space *space, bool hold);
unsigned int xpmem_space_held(struct xpmem_space *space);
unsigned long xpmem_space_held_for(struct xpmem_space *space);
void xpmem_space_withdraw(struct xpmem_space *space, unsigned long start,
			  unsigned long size);

/*
 * A task whose notifications about an attachment are to be ignored: all of
 * them while it revokes (@mm NULL), or those about one PMD of @mm.
 */
struct xpmem_exemption {
	struct hlist_node node;		/* hashed by task */
	struct task_struct *task;
	struct mm_struct *mm;
	unsigned long start;
};

void xpmem_exempt_init(void);
void xpmem_exempt_add(struct xpmem_exemption *e);
void xpmem_exempt_forget(struct xpmem_exemption *e);

/* Not two at a time for one exemption; nearly always there is none. */
static inline void xpmem_exempt_del(struct xpmem_exemption *e)
{
	if (!hlist_unhashed(&e->node))
		xpmem_exempt_forget(e);
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
s64 xpmem_segment_make(struct xpmem_client *client, u64 vaddr, u64 size,
		       s32 type, u64 value);
int xpmem_segment_remove(s64 segid);
int xpmem_client_keep_space(struct xpmem_client *client);
void xpmem_segment_put(struct xpmem_segment *segment);
void xpmem_client_withdraw(struct xpmem_client *client);
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
	/* Set by a task for itself alone; see detach.c. */
	struct task_struct *unmapper;
	struct xpmem_attachment *unmapping;	/* while there is an unmapper */
};

int xpmem_access_init(void);
void xpmem_access_exit(void);
s64 xpmem_access_grant(struct xpmem_client *client, s64 segid, s32 flags,
		       s32 type, u64 value);
void xpmem_access_put(struct xpmem_access *access);

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

/* attach.c: one attach call; its VMAs share it, however they were split. */
struct xpmem_attachment {
	refcount_t ref;			/* VMAs, and whoever looks at it */
	struct xpmem_access *access;
	struct hlist_node link;		/* access->lock */
	unsigned long lo, hi;		/* its VMAs lie within; access->lock */
	struct mutex tables;		/* page table or huge entry: one of them */
	u8 window;			/* log2 of pages a fault; a hint */
	struct xpmem_exemption split;	/* the last split of a VMA of it */
};

unsigned long xpmem_attach(struct xpmem_client *client, s64 apid, s64 offset,
			   u64 size, u64 vaddr);
void xpmem_attachment_put(struct xpmem_attachment *att);
bool xpmem_vma_is_attachment(const struct vm_area_struct *vma);

/* detach.c */
int xpmem_detach(struct xpmem_client *client, u64 vaddr);
int xpmem_access_release(struct xpmem_client *client, s64 apid);
void xpmem_client_revoke(struct xpmem_client *client);

/* window.c: one fault's run of pages of the owner's, and where they go. */
#define XPMEM_WINDOW_MAX	(PMD_SHIFT - PAGE_SHIFT)

struct xpmem_window {
	struct vm_fault *vmf;
	struct xpmem_attachment *att;
	struct xpmem_space *space;
	struct xpmem_look look;
	unsigned long addr;		/* of the first page, attacher's */
	unsigned long source;		/* of the first page, owner's */
	unsigned long pages;
	unsigned long index;		/* of the page that was touched */
	unsigned long *pfns;		/* as hmm_range_fault() fills them */
	unsigned long one;		/* of the page that was touched */
	bool write;
	pgprot_t prot, prot_write;	/* of whole entries, ready to use */
	unsigned long mapped;
};

void xpmem_window_set(struct xpmem_window *w, unsigned int order);
void xpmem_window_clip(struct xpmem_window *w, unsigned long start,
		       unsigned long end);
int xpmem_window_look(struct xpmem_window *w);
int xpmem_window_look_around(struct xpmem_window *w,
			     struct vm_area_struct *owner_vma);
bool xpmem_window_shows(const struct xpmem_window *w, unsigned long hmm);
bool xpmem_window_error(const struct xpmem_window *w);
bool xpmem_window_huge(const struct xpmem_window *w);
int xpmem_window_insert(struct xpmem_window *w, bool huge);
int xpmem_window_copy(struct xpmem_window *w, void *buf, int offset, int len);

/* The owner's address of the page that was touched. */
static inline unsigned long xpmem_source(const struct vm_fault *vmf)
{
	return vmf->pgoff << PAGE_SHIFT;
}

/* wait.c: each answers what the fault shall. */
vm_fault_t xpmem_wait_owner(struct xpmem_window *w);
vm_fault_t xpmem_wait_quiet(struct xpmem_window *w);
vm_fault_t xpmem_back_off(struct xpmem_window *w);
vm_fault_t xpmem_fault_slowly(struct xpmem_window *w);

/* fault.c */
vm_fault_t xpmem_fault(struct vm_fault *vmf);
vm_fault_t xpmem_pfn_mkwrite(struct vm_fault *vmf);
XPMEM_HUGE_FAULT(xpmem_huge_fault);
#ifdef XPMEM_FAULT_LOCK
vm_fault_t xpmem_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end);
#endif
bool xpmem_owner_allows(const struct vm_area_struct *vma, bool write);
struct vm_area_struct *xpmem_owner_vma(struct mm_struct *owner,
				       unsigned long source, bool write);
vm_fault_t xpmem_owner_error(vm_fault_t error);
vm_fault_t xpmem_fault_nowait(struct xpmem_window *w,
			      struct vm_area_struct *owner_vma);

/* debugger.c */
int xpmem_vma_access(struct vm_area_struct *vma, unsigned long addr, void *buf,
		     int len, int write);

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
	XPMEM_EV_FAULT_OWNER,
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
