// SPDX-License-Identifier: GPL-2.0-only
/* The module and the ioctl table of /dev/xpmem. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/page_table_check.h>
#include <linux/uaccess.h>

#include "xpmem.h"

union xpmem_ioc {
	struct xpmem_ioc_make make;
	struct xpmem_ioc_remove remove;
	struct xpmem_ioc_get get;
	struct xpmem_ioc_release release;
	struct xpmem_ioc_attach attach;
	struct xpmem_ioc_detach detach;
};

/* Handlers take the argument already copied in. */
static int xpmem_ioc_version(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return XPMEM_CURRENT_VERSION;
}

static int xpmem_ioc_make(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return xpmem_make(client, &arg->make);
}

static int xpmem_ioc_remove(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return xpmem_remove(client, &arg->remove);
}

static int xpmem_ioc_get(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return xpmem_get(client, &arg->get);
}

static int xpmem_ioc_release(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return xpmem_give_back(client, &arg->release);
}

static int xpmem_ioc_attach(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return xpmem_attach(client, &arg->attach);
}

static int xpmem_ioc_detach(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return xpmem_detach(client, &arg->detach);
}

/* The reserved fork hooks: attachments are never copied to a child. */
static int xpmem_ioc_nothing(struct xpmem_client *client, union xpmem_ioc *arg)
{
	return 0;
}

/* When the answer cannot be delivered, the answer is undone. */
static void xpmem_undo_make(struct xpmem_client *client, union xpmem_ioc *arg)
{
	struct xpmem_ioc_remove remove = { .segid = arg->make.segid };

	xpmem_remove(client, &remove);
}

static void xpmem_undo_get(struct xpmem_client *client, union xpmem_ioc *arg)
{
	struct xpmem_ioc_release release = { .apid = arg->get.apid };

	xpmem_give_back(client, &release);
}

static void xpmem_undo_attach(struct xpmem_client *client, union xpmem_ioc *arg)
{
	struct xpmem_ioc_detach detach = { .vaddr = arg->attach.vaddr };

	xpmem_detach(client, &detach);
}

struct xpmem_command {
	u8 size;
	u8 answer;	/* where in the argument the 64-bit answer is */
	int (*handle)(struct xpmem_client *client, union xpmem_ioc *arg);
	/* Set when there is an answer. */
	void (*undo)(struct xpmem_client *client, union xpmem_ioc *arg);
};

#define XPMEM_COMMAND(nr, type, fn)					\
	[(nr) - XPMEM_IOC_VERSION] = {					\
		.size = sizeof(type), .handle = (fn) }
#define XPMEM_ANSWER(nr, type, field, fn, undone)			\
	[(nr) - XPMEM_IOC_VERSION] = {					\
		.size = sizeof(type), .handle = (fn),			\
		.answer = offsetof(type, field), .undo = (undone) }
struct xpmem_ioc_none { };

/* Every number from the first to the last is there. */
static const struct xpmem_command xpmem_commands[] = {
	XPMEM_COMMAND(XPMEM_IOC_VERSION, struct xpmem_ioc_none,
		      xpmem_ioc_version),
	XPMEM_ANSWER(XPMEM_IOC_MAKE, struct xpmem_ioc_make, segid,
		     xpmem_ioc_make, xpmem_undo_make),
	XPMEM_COMMAND(XPMEM_IOC_REMOVE, struct xpmem_ioc_remove,
		      xpmem_ioc_remove),
	XPMEM_ANSWER(XPMEM_IOC_GET, struct xpmem_ioc_get, apid, xpmem_ioc_get,
		     xpmem_undo_get),
	XPMEM_COMMAND(XPMEM_IOC_RELEASE, struct xpmem_ioc_release,
		      xpmem_ioc_release),
	XPMEM_ANSWER(XPMEM_IOC_ATTACH, struct xpmem_ioc_attach, vaddr,
		     xpmem_ioc_attach, xpmem_undo_attach),
	XPMEM_COMMAND(XPMEM_IOC_DETACH, struct xpmem_ioc_detach,
		      xpmem_ioc_detach),
	XPMEM_COMMAND(XPMEM_IOC_FORK_BEGIN, struct xpmem_ioc_none,
		      xpmem_ioc_nothing),
	XPMEM_COMMAND(XPMEM_IOC_FORK_END, struct xpmem_ioc_none,
		      xpmem_ioc_nothing),
};

static long xpmem_ioctl(struct file *file, unsigned int number,
			unsigned long user)
{
	unsigned int index = number - XPMEM_IOC_VERSION;
	struct xpmem_client *client = file->private_data;
	void __user *where = (void __user *)user;
	const struct xpmem_command *command;
	union xpmem_ioc arg;
	int ret;

	if (index >= ARRAY_SIZE(xpmem_commands))
		return -ENOTTY;
	index = array_index_nospec(index, ARRAY_SIZE(xpmem_commands));
	command = &xpmem_commands[index];
	if (command->size && copy_from_user(&arg, where, command->size))
		return -EFAULT;
	ret = command->handle(client, &arg);
	if (ret < 0 || !command->undo)
		return ret;
	if (put_user(*(u64 *)((void *)&arg + command->answer),
		     (u64 __user *)(where + command->answer))) {
		command->undo(client, &arg);
		return -EFAULT;
	}
	return ret;
}

static const struct file_operations xpmem_fops = {
	.owner = THIS_MODULE,
	.open = xpmem_open,
	.release = xpmem_release,
	.unlocked_ioctl = xpmem_ioctl,
	/* No compat_ioctl on purpose: the ABI is LP64 only. */
};

static struct miscdevice xpmem_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "xpmem",
	.fops = &xpmem_fops,
	.mode = 0666,
};

/*
 * page_table_check=on, a debugging aid, makes a second writable mapping of an
 * anonymous page a BUG(). Such a mapping is what this module is for.
 */
static bool __init xpmem_sharing_is_bug(void)
{
#ifdef CONFIG_PAGE_TABLE_CHECK
	return !static_branch_likely(&page_table_check_disabled);
#else
	return false;
#endif
}

static int __init xpmem_init(void)
{
	int err;

	BUILD_BUG_ON(sizeof(struct xpmem_ioc_make) != 40);
	BUILD_BUG_ON(offsetof(struct xpmem_ioc_make, permit_value) != 24);
	BUILD_BUG_ON(sizeof(struct xpmem_ioc_get) != 32);
	BUILD_BUG_ON(offsetof(struct xpmem_ioc_get, apid) != 24);
	BUILD_BUG_ON(sizeof(struct xpmem_ioc_attach) != 40);
	BUILD_BUG_ON(offsetof(struct xpmem_ioc_attach, vaddr) != 24);

	if (xpmem_sharing_is_bug()) {
		pr_err("the kernel was booted with page_table_check=on\n");
		return -EOPNOTSUPP;
	}
	err = xpmem_ids_init();
	if (err)
		return err;
	err = xpmem_stats_init();
	if (err)
		goto no_ids;
	err = misc_register(&xpmem_device);
	if (err)
		goto no_stats;
	return 0;

no_stats:
	xpmem_stats_exit();
no_ids:
	xpmem_ids_exit();
	return err;
}

static void __exit xpmem_exit(void)
{
	misc_deregister(&xpmem_device);
	xpmem_stats_exit();
	xpmem_ids_exit();
}

module_init(xpmem_init);
module_exit(xpmem_exit);

MODULE_DESCRIPTION("Load and store access to another process's memory");
MODULE_LICENSE("GPL");
MODULE_VERSION("2.7.4");
