/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * XPMEM: load and store directly in another process's memory.
 *
 * Written by cbindgen from src/capi/xpmem.rs; change that, then `make headers`.
 */

#ifndef XPMEM_H
#define XPMEM_H

#include <linux/types.h>
#include <sys/types.h>

/* size of xpmem_make(): the whole address space */
#define XPMEM_MAXADDR_SIZE ((size_t)(-1L))

/* errno: the caller is a fork child that uses what its parent opened */
#define XPMEM_ERRNO_NOPROC 2004

/* flags of xpmem_get() */
#define XPMEM_RDONLY 1
#define XPMEM_RDWR 2

/* permit_type: the permit value is a file mode */
#define XPMEM_PERMIT_MODE 1


/**
 * Names a segment, on this machine, to every process.
 */
typedef __s64 xpmem_segid_t;

/**
 * Names an access permit, to the process that got it.
 */
typedef __s64 xpmem_apid_t;

/**
 * A place in a segment that a permit gives access to.
 */
struct xpmem_addr {
        xpmem_apid_t apid;
        /**
         * In bytes from the start of the segment; a page multiple.
         */
        off_t offset;
};

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Version of the XPMEM that serves this process, 0x00027004 for 2.7.4.
 *
 * Returns -1 with errno set where there is none: ENOSYS, or what opening
 * /dev/xpmem answered.
 */
int xpmem_version(void);

/**
 * Makes sure that XPMEM can serve this process. No call needs it first.
 *
 * Returns 0, or -1 with errno set as xpmem_version() has it.
 */
int xpmem_init(void);

/**
 * The functions below by the ioctl numbers and structures of /dev/xpmem.
 *
 * Returns what the ioctl returns, or -1 with errno set: ENOTTY, no such
 * command; EFAULT, arg cannot be read or written, and nothing has
 * happened; else what the function of that name says.
 */
int xpmem_ioctl(int cmd, void *arg);

/**
 * Exports size bytes of this process at vaddr, both page multiples; NULL
 * and XPMEM_MAXADDR_SIZE mean the whole address space. permit_type is
 * XPMEM_PERMIT_MODE and permit_value a file mode, (void *)0600 say.
 *
 * Returns a segid, or -1 with errno set: EINVAL, ENOMEM, EBUSY, ENOSYS, or
 * XPMEM_ERRNO_NOPROC.
 */
xpmem_segid_t xpmem_make(void *vaddr,
                         size_t size,
                         int permit_type,
                         void *permit_value);

/**
 * Withdraws a segment of this process. Whoever has it attached gets SIGBUS.
 *
 * Returns 0, or -1 with errno set: EINVAL, not positive; ENOENT, no such
 * segment; EACCES, another process's; ENOSYS.
 */
int xpmem_remove(xpmem_segid_t segid);

/**
 * Asks for access to a segment; flags is XPMEM_RDONLY or XPMEM_RDWR,
 * permit_type is XPMEM_PERMIT_MODE, permit_value does not matter.
 *
 * Returns an apid, which is for this process only, or -1 with errno set:
 * EINVAL; ENOENT, no such segment; EACCES, its mode denies; ENOSYS.
 */
xpmem_apid_t xpmem_get(xpmem_segid_t segid,
                       int flags,
                       int permit_type,
                       void *permit_value);

/**
 * Gives an access permit back and detaches all of its attachments.
 *
 * Returns 0, or -1 with errno set: EINVAL, not positive; ENOENT, no such
 * permit; EACCES, another process's; ENOSYS.
 */
int xpmem_release(xpmem_apid_t apid);

/**
 * Maps size bytes (rounded up to pages) of a segment at vaddr, replacing
 * what is mapped there, or anywhere when vaddr is NULL. Nothing is touched:
 * holes are fine, and to touch one is SIGBUS.
 *
 * Returns the address, or (void *)-1 with errno set: EINVAL; ENOENT, no
 * such permit, or the segment is gone; EACCES, another process's permit;
 * ENOMEM, also where memory in a small window cannot be shared (pinned by a
 * device); ENOSYS.
 */
void *xpmem_attach(struct xpmem_addr addr, size_t size, void *vaddr);

/**
 * Unmaps the whole attachment that contains vaddr.
 *
 * Returns 0, also where nothing is mapped, or -1 with errno set: EINVAL,
 * mapped, but no attachment; ENOSYS.
 */
int xpmem_detach(void *vaddr);

#ifdef __cplusplus
}
#endif

#endif  /* XPMEM_H */
