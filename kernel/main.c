// SPDX-License-Identifier: GPL-2.0-only
/* The module and the ioctls of /dev/xpmem. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "xpmem.h"

/*
 * One function for each command. Arguments are a few whole words, and are read
 * one by one: copy_from_user() takes six times as many instructions. When the
 * answer cannot be delivered, it is undone.
 */
#define XPMEM_READ(to, from)	unsafe_get_user(to, from, fault)

static long xpmem_ioc_make(struct xpmem_client *client, void __user *user)
{
	struct xpmem_ioc_make __user *arg = user;
	u64 vaddr, size, value;
	s64 segid;
	s32 type;

	if (!user_read_access_begin(arg, sizeof(*arg)))
		return -EFAULT;
	XPMEM_READ(vaddr, &arg->vaddr);
	XPMEM_READ(size, &arg->size);
	XPMEM_READ(type, &arg->permit_type);
	XPMEM_READ(value, &arg->permit_value);
	user_read_access_end();
	segid = xpmem_segment_make(client, vaddr, size, type, value);
	if (segid < 0)
		return segid;
	if (!put_user(segid, &arg->segid))
		return 0;
	xpmem_segment_remove(segid);
	return -EFAULT;

fault:
	user_read_access_end();
	return -EFAULT;
}

static long xpmem_ioc_get(struct xpmem_client *client, void __user *user)
{
	struct xpmem_ioc_get __user *arg = user;
	s64 segid, apid;
	s32 flags, type;
	u64 value;

	if (!user_read_access_begin(arg, sizeof(*arg)))
		return -EFAULT;
	XPMEM_READ(segid, &arg->segid);
	XPMEM_READ(flags, &arg->flags);
	XPMEM_READ(type, &arg->permit_type);
	XPMEM_READ(value, &arg->permit_value);
	user_read_access_end();
	apid = xpmem_access_grant(client, segid, flags, type, value);
	if (apid < 0)
		return apid;
	if (!put_user(apid, &arg->apid))
		return 0;
	xpmem_access_release(client, apid);
	return -EFAULT;

fault:
	user_read_access_end();
	return -EFAULT;
}

static long xpmem_ioc_attach(struct xpmem_client *client, void __user *user)
{
	struct xpmem_ioc_attach __user *arg = user;
	unsigned long addr;
	s64 apid, offset;
	u64 size, vaddr;
	s32 unused;

	if (!user_read_access_begin(arg, sizeof(*arg)))
		return -EFAULT;
	XPMEM_READ(apid, &arg->apid);
	XPMEM_READ(offset, &arg->offset);
	XPMEM_READ(size, &arg->size);
	XPMEM_READ(vaddr, &arg->vaddr);
	/* The whole of it must be there. */
	XPMEM_READ(unused, &arg->flags);
	(void)unused;
	user_read_access_end();
	addr = xpmem_attach(client, apid, offset, size, vaddr);
	if (IS_ERR_VALUE(addr))
		return addr;
	if (!put_user(addr, &arg->vaddr))
		return 0;
	xpmem_detach(client, addr);
	return -EFAULT;

fault:
	user_read_access_end();
	return -EFAULT;
}

/* The other commands take one word and answer none. */
static long xpmem_ioc_word(struct xpmem_client *client, unsigned int number,
			   void __user *user)
{
	s64 word;

	if (get_user(word, (s64 __user *)user))
		return -EFAULT;
	switch (number) {
	case XPMEM_IOC_DETACH:
		return xpmem_detach(client, word);
	case XPMEM_IOC_RELEASE:
		return xpmem_access_release(client, word);
	case XPMEM_IOC_REMOVE:
		return xpmem_segment_remove(word);
	default:
		return xpmem_hold(client, word);
	}
}

static long xpmem_ioctl(struct file *file, unsigned int number,
			unsigned long arg)
{
	struct xpmem_client *client = file->private_data;
	void __user *user = (void __user *)arg;

	switch (number) {
	case XPMEM_IOC_GET:
		return xpmem_ioc_get(client, user);
	case XPMEM_IOC_ATTACH:
		return xpmem_ioc_attach(client, user);
	case XPMEM_IOC_DETACH:
	case XPMEM_IOC_RELEASE:
	case XPMEM_IOC_REMOVE:
	case XPMEM_IOC_HOLD:
		return xpmem_ioc_word(client, number, user);
	case XPMEM_IOC_MAKE:
		return xpmem_ioc_make(client, user);
	case XPMEM_IOC_VERSION:
		return XPMEM_CURRENT_VERSION;
	/* The reserved fork hooks: attachments are never copied to a child. */
	case XPMEM_IOC_FORK_BEGIN:
	case XPMEM_IOC_FORK_END:
		return 0;
	default:
		return -ENOTTY;
	}
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
	xpmem_exempt_init();
	err = xpmem_ids_init();
	if (err)
		return err;
	err = xpmem_access_init();
	if (err)
		goto no_ids;
	err = xpmem_spaces_init();
	if (err)
		goto no_access;
	err = xpmem_stats_init();
	if (err)
		goto no_spaces;
	err = misc_register(&xpmem_device);
	if (err)
		goto no_stats;
	return 0;

no_stats:
	xpmem_stats_exit();
no_spaces:
	xpmem_spaces_exit();
no_access:
	xpmem_access_exit();
no_ids:
	xpmem_ids_exit();
	return err;
}

static void __exit xpmem_exit(void)
{
	misc_deregister(&xpmem_device);
	xpmem_stats_exit();
	xpmem_spaces_exit();
	xpmem_access_exit();
	xpmem_ids_exit();
}

module_init(xpmem_init);
module_exit(xpmem_exit);

MODULE_DESCRIPTION("Load and store access to another process's memory");
MODULE_LICENSE("GPL");
MODULE_VERSION("2.7.4");
