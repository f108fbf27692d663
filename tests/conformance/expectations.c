/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The one table of what a back end cannot pass, and why. A case that stands
 * here is a promise that the documentation does not make for that back end.
 */
#include "harness.h"

static const struct {
	const char *name;
	enum backend backend;
	const char *why;
} excuses[] = {
	{ "get_other_user_public", BACKEND_USER,
	  "without a module only the same user may attach: no process could be held to its mode" },
	{ "hostile_remove_rdonly", BACKEND_USER,
	  "userfaultfd takes no mapping of a read-only descriptor, so MADV_REMOVE is the kernel's to allow" },
#ifdef CONFORMANCE_STATIC
	{ "protect_and_back", BACKEND_USER,
	  "the kernel has no event for mprotect, and a static program's libc cannot be met before it calls" },
#endif
	{ "get_other_user_refused", BACKEND_KERNEL, "the module lets other users in by mode" },
	{ "mutex_and_condition", BACKEND_KERNEL, "a shared futex needs a page that can be pinned" },
	{ "futex", BACKEND_KERNEL, "a shared futex needs a page that can be pinned" },
	{ "futex_waiter_before_sharing", BACKEND_KERNEL, "a shared futex needs a page that can be pinned" },
	{ "direct_io", BACKEND_KERNEL, "an attachment's pages cannot be pinned" },
	{ "vm_readv", BACKEND_KERNEL, "an attachment's pages cannot be pinned" },
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

const char *excused(const char *name, enum backend backend)
{
	for (unsigned i = 0; i < sizeof excuses / sizeof *excuses; i++)
		if (excuses[i].backend == backend && !strcmp(name, excuses[i].name))
			return excuses[i].why;
	return NULL;
}
