// SPDX-License-Identifier: GPL-2.0-only
/* /proc/xpmem/stats: what lives now, and what happened since loading. */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "xpmem.h"

atomic_long_t xpmem_live[XPMEM_LIVE_MAX];
DEFINE_PER_CPU(struct xpmem_events, xpmem_events);

static const char *const xpmem_live_names[XPMEM_LIVE_MAX] = {
	[XPMEM_LIVE_SPACES] = "spaces",
	[XPMEM_LIVE_SEGMENTS] = "segments",
	[XPMEM_LIVE_PERMITS] = "permits",
	[XPMEM_LIVE_ATTACHMENTS] = "attachments",
};

static const char *const xpmem_event_names[XPMEM_EV_MAX] = {
	[XPMEM_EV_FAULT_READ] = "faults_read",
	[XPMEM_EV_FAULT_WRITE] = "faults_write",
	[XPMEM_EV_FAULT_UPGRADE] = "faults_upgrade",
	[XPMEM_EV_FAULT_REFUSED] = "faults_refused",
	[XPMEM_EV_FAULT_AGAIN] = "faults_again",
	[XPMEM_EV_FAULT_WAIT] = "faults_waited",
	[XPMEM_EV_FAULT_SLOW] = "faults_slow",
	[XPMEM_EV_FAULT_OWNER] = "faults_of_owner",
	[XPMEM_EV_MAPPED_SMALL] = "pages_mapped",
	[XPMEM_EV_MAPPED_HUGE] = "huge_pages_mapped",
	[XPMEM_EV_INVALIDATE] = "invalidations",
	[XPMEM_EV_INVALIDATE_MAPPED] = "invalidations_mapped",
	[XPMEM_EV_UNMAP_TWO_STEPS] = "releases_in_two_steps",
};

static int xpmem_stats_show(struct seq_file *m, void *v)
{
	unsigned long n;
	int i, cpu;

	for (i = 0; i < XPMEM_LIVE_MAX; i++)
		seq_printf(m, "%s %ld\n", xpmem_live_names[i],
			   atomic_long_read(&xpmem_live[i]));
	for (i = 0; i < XPMEM_EV_MAX; i++) {
		n = 0;
		for_each_possible_cpu(cpu)
			n += per_cpu(xpmem_events, cpu).n[i];
		seq_printf(m, "%s %lu\n", xpmem_event_names[i], n);
	}
	return 0;
}

int xpmem_stats_init(void)
{
	struct proc_dir_entry *dir = proc_mkdir("xpmem", NULL);

	if (!dir)
		return -ENOMEM;
	if (!proc_create_single("stats", 0444, dir, xpmem_stats_show)) {
		proc_remove(dir);
		return -ENOMEM;
	}
	return 0;
}

void xpmem_stats_exit(void)
{
	remove_proc_subtree("xpmem", NULL);
}
