/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The one table of what a back end cannot pass, and why. A case that stands
 * here is a promise that the documentation does not make for that back end.
 */
#include "harness.h"

#include <sys/utsname.h>

#define WATCH "a mapping of other files than tmpfs's cannot be watched before Linux 6.7"

/* What the kernel tells nobody of, and libc's own call is met for: each way that
 * is not met. A static program's libc is not met at all. */
#define UNTOLD "the kernel has no event for this call, and it is not met in libc"
#ifdef CONFORMANCE_STATIC
#define UNMET(name, why)                                                                   \
	{ name "_libc", BACKEND_USER, why, { 0, 0 } }, { name "_syscall", BACKEND_USER, why, { 0, 0 } }, \
	{ name "_raw", BACKEND_USER, why, { 0, 0 } }
#else
#define UNMET(name, why) { name "_raw", BACKEND_USER, why, { 0, 0 } }
#endif
#define OLD(name)                                                                         \
	{ name "_libc", BACKEND_USER, WATCH, { 6, 7 } }, { name "_syscall", BACKEND_USER, WATCH, { 6, 7 } }, \
	{ name "_raw", BACKEND_USER, WATCH, { 6, 7 } }

/* Whether the kernel, or what the library takes it for, is older than that. */
static int before(const int version[2])
{
	struct utsname name;
	int major = 6, minor = 1;

	if (!version[0])
		return 1;
	if (!getenv("XPMEM_TEST_OLD_KERNEL") &&
	    (uname(&name) || sscanf(name.release, "%d.%d", &major, &minor) != 2))
		return 0;
	return major < version[0] || (major == version[0] && minor < version[1]);
}

static const struct {
	const char *name;
	enum backend backend;
	const char *why;
	/* Only on kernels before this one; {0} is on all. */
	int before[2];
} excuses[] = {
	{ "source_pinned", BACKEND_USER, "pinned pages cannot be told before Linux 6.8", { 6, 8 } },
	{ "source_pinned_huge", BACKEND_USER, "pinned pages cannot be told before Linux 6.8", { 6, 8 } },
	{ "direct_read_during_promotion", BACKEND_USER, "pinned pages cannot be told before Linux 6.8", { 6, 8 } },
	{ "process_writes_during_promotion", BACKEND_USER, "pinned pages cannot be told before Linux 6.8", { 6, 8 } },
	{ "advice_protection_key", BACKEND_USER, "before Linux 6.8 it is copied, and lies on other pages without a key", { 6, 8 } },
	{ "sealed_then_forked", BACKEND_USER, "such a kernel has no mseal; it is played on one that has", { 6, 10 } },
	{ "sealed_then_dropped", BACKEND_USER, "such a kernel has no mseal; it is played on one that has", { 6, 10 } },
	{ "kind_file_size_limit", BACKEND_USER, "before Linux 6.8 pages are written to the file, which the limit forbids", { 6, 8 } },
	{ "source_shared_file", BACKEND_USER, WATCH, { 6, 7 } },
	{ "source_shared_file_later_offset", BACKEND_USER, WATCH, { 6, 7 } },
	{ "source_shared_file_detached", BACKEND_USER, WATCH, { 6, 7 } },
	{ "source_mixed", BACKEND_USER, WATCH, { 6, 7 } },
	{ "source_sysv_shm", BACKEND_USER, WATCH, { 6, 7 } },
	{ "limit_of_mappings", BACKEND_USER,
	  "a mapping is looked up in the text of all of them before Linux 6.11: this one takes minutes", { 6, 11 } },
	{ "get_other_user_public", BACKEND_USER,
	  "without a module only the same user may attach: no process could be held to its mode", { 0, 0 } },
	{ "hostile_remove_rdonly", BACKEND_USER,
	  "userfaultfd takes no mapping of a read-only descriptor, so MADV_REMOVE is the kernel's to allow", { 0, 0 } },
#ifdef CONFORMANCE_STATIC
	{ "registered_first", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "registered_related", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "registered_beside_a_child", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "registered_beside_a_tracer", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "protect_and_back", BACKEND_USER,
	  "the kernel has no event for mprotect, and this program's libc cannot be met before it calls", { 0, 0 } },
	{ "source_sysv_shm", BACKEND_USER,
	  "the kernel has no event for shmdt, and this program's libc cannot be met before it calls", { 0, 0 } },
	{ "prot_none_since", BACKEND_USER, "as protect_and_back", { 0, 0 } },
	{ "sealed_then_dropped", BACKEND_USER, "as protect_and_back", { 0, 0 } },
	{ "kind_code", BACKEND_USER, "as protect_and_back", { 0, 0 } },
	{ "kind_buffer_ring", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "demoted_removed", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "demoted_moved", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "demoted_watched", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "demoted_moved_out", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "demoted_place_left", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "demoted_not_twice", BACKEND_USER, "shared memory lets the kernel do it", { 0, 0 } },
	{ "hugetlb_segment", BACKEND_USER, "as source_sysv_shm", { 0, 0 } },
	{ "advice_mergeable", BACKEND_USER, "as wiped_on_fork_after", { 0, 0 } },
	{ "call_remap_file_pages_libc", BACKEND_USER, UNTOLD, { 0, 0 } },
	{ "call_remap_file_pages_syscall", BACKEND_USER, UNTOLD, { 0, 0 } },
	{ "pinned_then_protected", BACKEND_USER, "as protect_and_back", { 0, 0 } },
	{ "kept_hugepage", BACKEND_USER, "as wiped_on_fork_after", { 0, 0 } },
	{ "kept_nohugepage", BACKEND_USER, "as wiped_on_fork_after", { 0, 0 } },
	{ "kept_dontdump", BACKEND_USER, "as wiped_on_fork_after", { 0, 0 } },
	{ "kept_sequential", BACKEND_USER, "as wiped_on_fork_after", { 0, 0 } },
	{ "kept_random", BACKEND_USER, "as wiped_on_fork_after", { 0, 0 } },
	{ "kept_policy", BACKEND_USER, "mremap of what is in pieces is done by the one that is met in libc", { 0, 0 } },
	{ "demoted_file_moved", BACKEND_USER, "as kept_policy", { 0, 0 } },
	{ "wiped_on_fork_after", BACKEND_USER, "the kernel has no event for madvise, see protect_and_back", { 0, 0 } },
	{ "kept_from_children_after", BACKEND_USER, "the kernel has no event for madvise, see protect_and_back", { 0, 0 } },
#endif
#if defined(CONFORMANCE_STATIC) || !defined(__x86_64__)
	{ "watched_after", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "protected_after", BACKEND_USER, "as fork_past_libc", { 0, 0 } },
	{ "fork_past_libc", BACKEND_USER, "this program's libc cannot be met before it calls", { 0, 0 } },
#endif
#ifndef __x86_64__
	{ "fork_past_libc", BACKEND_USER, "libc's _Fork and clone are met on x86-64 alone", { 0, 0 } },
	/* docs/waits.md */
	{ "waits_with_limits", BACKEND_USER, "waits with a limit are begun again on x86-64 alone", { 0, 0 } },
	{ "waits_with_limits_end", BACKEND_USER, "waits with a limit are begun again on x86-64 alone", { 0, 0 } },
#endif
	/* docs/memory-calls.md */
	OLD("call_shmdt"), OLD("call_shmdt_cut"), OLD("call_shmat_remap"), OLD("call_shmat_remap_segment"),
	UNMET("call_shmdt", UNTOLD), UNMET("call_shmdt_cut", UNTOLD), UNMET("call_shmat_remap", UNTOLD),
	UNMET("call_shmat_remap_segment", UNTOLD), UNMET("call_mprotect", UNTOLD),
	UNMET("call_pkey_mprotect", UNTOLD), UNMET("call_guard", UNTOLD),
	{ "call_remap_file_pages_raw", BACKEND_USER, UNTOLD, { 0, 0 } },
	UNMET("call_remap_file_pages_private", "shared memory lets the kernel do it"),
	UNMET("call_remove", "shared memory lets the kernel do it"),
	UNMET("call_free", "the kernel takes this advice for private memory alone"),
	{ "get_other_user_refused", BACKEND_KERNEL, "the module lets other users in by mode", { 0, 0 } },
	{ "mutex_and_condition", BACKEND_KERNEL, "a shared futex needs a page that can be pinned", { 0, 0 } },
	{ "kind_inheriting_mutex", BACKEND_KERNEL, "a shared futex needs a page that can be pinned", { 0, 0 } },
	{ "futex", BACKEND_KERNEL, "a shared futex needs a page that can be pinned", { 0, 0 } },
	{ "futex_waiter_before_sharing", BACKEND_KERNEL, "a shared futex needs a page that can be pinned", { 0, 0 } },
	{ "direct_io", BACKEND_KERNEL, "an attachment's pages cannot be pinned", { 0, 0 } },
	{ "vm_readv", BACKEND_KERNEL, "an attachment's pages cannot be pinned", { 0, 0 } },
	{ "attachment_registered", BACKEND_KERNEL, "an attachment's pages cannot be pinned", { 0, 0 } },
};

/*
 * The fake device knows ids, errnos and processes, and shares no memory: only
 * these are its cases, and the others are not counted as skipped either.
 */
static const char *const fake_cases[] = {
	"version", "errno_untouched", "make_arguments", "make_accepts", "remove_errors",
	"remove_foreign", "remove_owner_gone", "get_arguments", "get_removed", "get_mode",
	"get_other_user_private", "get_other_user_public", "release_errors", "attach_foreign",
	"attach_gone", "ioctl_operations", "ioctl_unknown", "ioctl_errors",
	"ioctl_hostile_pointers", "owner_child_ids", "threads_make", "no_standard_streams",
	"reopen_leaks_nothing",
};

int concerns(const char *name, enum backend backend)
{
	if (backend != BACKEND_FAKE)
		return 1;
	for (unsigned i = 0; i < sizeof fake_cases / sizeof *fake_cases; i++)
		if (!strcmp(name, fake_cases[i]))
			return 1;
	return 0;
}

int over_both(void)
{
	const char *both = getenv("XPMEM_BACKEND");

	return both && !strcmp(both, "both") && !access("/dev/xpmem", F_OK);
}

const char *excused(const char *name, enum backend backend)
{
	/* Both back ends: other users come in by the module, and it serves without a service. */
	if (over_both()) {
		if (!strcmp(name, "get_other_user_public"))
			return NULL;
		if (!strcmp(name, "get_other_user_refused"))
			return "the module lets other users in by mode";
		if (!strcmp(name, "folder_refused"))
			return "the module makes what its service has no folder for";
	}
	for (unsigned i = 0; i < sizeof excuses / sizeof *excuses; i++)
		if (excuses[i].backend == backend && !strcmp(name, excuses[i].name) &&
		    before(excuses[i].before))
			return excuses[i].why;
	return NULL;
}
