/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The ioctls of /dev/xpmem.
 *
 * Numbers and layouts are those of every XPMEM module and library in the
 * field (LP64 only); they are frozen, but for XPMEM_IOC_HOLD, which is this
 * module's alone. All commands are bare _IO() numbers.
 * Any command answers EFAULT for a bad argument pointer, with nothing left
 * behind, and ENOTTY when the number is unknown.
 */
#ifndef _XPMEM_UAPI_H
#define _XPMEM_UAPI_H

#include <linux/types.h>
#include <linux/ioctl.h>

#define XPMEM_IOC_MAGIC		'x'

/* Returned by XPMEM_IOC_VERSION, as major << 16 | minor << 12 | patch. */
#define XPMEM_CURRENT_VERSION	0x00027004

#define XPMEM_IOC_VERSION	_IO(XPMEM_IOC_MAGIC, 0)
#define XPMEM_IOC_MAKE		_IO(XPMEM_IOC_MAGIC, 1)
#define XPMEM_IOC_REMOVE	_IO(XPMEM_IOC_MAGIC, 2)
#define XPMEM_IOC_GET		_IO(XPMEM_IOC_MAGIC, 3)
#define XPMEM_IOC_RELEASE	_IO(XPMEM_IOC_MAGIC, 4)
#define XPMEM_IOC_ATTACH	_IO(XPMEM_IOC_MAGIC, 5)
#define XPMEM_IOC_DETACH	_IO(XPMEM_IOC_MAGIC, 6)
#define XPMEM_IOC_FORK_BEGIN	_IO(XPMEM_IOC_MAGIC, 7)
#define XPMEM_IOC_FORK_END	_IO(XPMEM_IOC_MAGIC, 8)
#define XPMEM_IOC_HOLD		_IO(XPMEM_IOC_MAGIC, 16)

#define XPMEM_RDONLY		0x1
#define XPMEM_RDWR		0x2
#define XPMEM_PERMIT_MODE	0x1
#define XPMEM_MAXADDR_SIZE	(~(__u64)0)

/*
 * The descriptor was opened by another address space (before a fork, or sent
 * by a peer): open the device again.
 */
#define XPMEM_ERRNO_NOPROC	2004

/**
 * struct xpmem_ioc_make - export a range of the caller's address space
 * @vaddr: first address, a multiple of the page size
 * @size: bytes, a multiple of the page size; XPMEM_MAXADDR_SIZE with @vaddr 0
 *	exports everything
 * @permit_type: XPMEM_PERMIT_MODE
 * @permit_value: file mode bits, at most 0777
 * @segid: answer, greater than 0
 *
 * EINVAL: permit type or value, size 0, not page multiples, beyond the
 * address space. XPMEM_ERRNO_NOPROC: see there. ENOMEM, ENOSPC (ids used up).
 */
struct xpmem_ioc_make {
	__u64 vaddr;
	__u64 size;
	__s32 permit_type;
	__u32 pad;
	__u64 permit_value;
	__s64 segid;
};

/**
 * struct xpmem_ioc_remove - withdraw a segment
 * @segid: what make answered
 *
 * EINVAL: @segid <= 0. ENOENT: unknown, or its owner is gone. EACCES: not
 * the caller's.
 */
struct xpmem_ioc_remove {
	__s64 segid;
};

/**
 * struct xpmem_ioc_get - ask for access to a segment
 * @segid: the segment
 * @flags: XPMEM_RDONLY or XPMEM_RDWR
 * @permit_type: XPMEM_PERMIT_MODE
 * @permit_value: 0
 * @apid: answer, greater than 0
 *
 * EINVAL: @segid <= 0, @flags, @permit_type or @permit_value. ENOENT:
 * unknown, removed, or its owner is gone. EACCES: the mode bits deny it.
 * XPMEM_ERRNO_NOPROC: see there. ENOMEM, ENOSPC.
 */
struct xpmem_ioc_get {
	__s64 segid;
	__s32 flags;
	__s32 permit_type;
	__u64 permit_value;
	__s64 apid;
};

/**
 * struct xpmem_ioc_release - give an access permit back
 * @apid: what get answered
 *
 * All its attachments are unmapped. EINVAL: @apid <= 0. ENOENT: unknown.
 * EACCES: granted to someone else.
 */
struct xpmem_ioc_release {
	__s64 apid;
};

/**
 * struct xpmem_ioc_attach - map a part of a segment
 * @apid: the access permit
 * @offset: byte offset in the segment, a multiple of the page size
 * @size: bytes, rounded up to whole pages
 * @vaddr: in: address wanted, 0 for any; out: address of the attachment
 * @fd: unused
 * @flags: unused
 *
 * EINVAL: @apid <= 0, @vaddr or @offset not page multiples. ENOENT: unknown
 * permit, removed segment, or the owner is gone. EACCES: granted to someone
 * else. EINVAL: @offset < 0, @size 0, beyond the segment, or @vaddr overlaps
 * the source (attaching to oneself) or an existing attachment. ENOMEM.
 * EINTR: the caller is being killed.
 */
struct xpmem_ioc_attach {
	__s64 apid;
	__s64 offset;
	__u64 size;
	__u64 vaddr;
	__s32 fd;
	__s32 flags;
};

/**
 * struct xpmem_ioc_detach - unmap the attachment that contains an address
 * @vaddr: any address in it
 *
 * Answers 0 when nothing is mapped there. EINVAL: something else is.
 */
struct xpmem_ioc_detach {
	__u64 vaddr;
};

/**
 * struct xpmem_ioc_hold - let faults on the caller's memory wait
 * @hold: 1 from here on, 0 no more
 *
 * For an owner that takes memory away for a moment, to put the same content
 * in its place: until it is done, a touch of what is not there is a wait, which
 * can be interrupted, and no SIGBUS. The last close ends it, too. EINVAL:
 * @hold. XPMEM_ERRNO_NOPROC: see there. ENOMEM, ENOSPC.
 */
struct xpmem_ioc_hold {
	__s64 hold;
};

#endif /* _XPMEM_UAPI_H */
