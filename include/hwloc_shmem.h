/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * hwloc topologies in shared memory: the three functions of hwloc/shmem.h as
 * libxpmem has them, and how to find an address for them.
 *
 * Can be included alone, or beside hwloc.h and hwloc/shmem.h: `struct
 * hwloc_topology *` is hwloc's hwloc_topology_t. libhwloc is found in the
 * process when a function is called; without one they fail with ENOSYS.
 *
 * Written by cbindgen from src/capi/hwloc.rs; change that, then `make headers`.
 */

#ifndef HWLOC_SHMEM_OF_XPMEM_H
#define HWLOC_SHMEM_OF_XPMEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * A topology of libhwloc.
 */
struct hwloc_topology;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Bytes that a topology needs in a file: what stock hwloc would need, in
 * whole pages, so that any writer may use the number. A file of ours
 * takes less; the rest of it is a hole.
 *
 * Returns 0, or -1 with errno set: EINVAL for flags other than 0 or a
 * topology that is not loaded, ENOSYS.
 */
int hwloc_shmem_topology_get_length(struct hwloc_topology *topology,
                                    size_t *lengthp,
                                    unsigned long flags);

/**
 * Writes a topology into a file, for adoption at mmap_address by other
 * processes. The topology and the position of fd stay as they are; bytes
 * of the file behind fileoffset + length too.
 *
 * Returns 0, or -1 with errno set and the file as it was:
 * EINVAL: flags other than 0; a topology that is not loaded; fileoffset or
 * mmap_address not a multiple of the page size; length too short.
 * EBUSY: the addresses are not free in this process. EBADF, EACCES: fd is
 * not open for reading and writing. ESPIPE, ENOSPC, EFBIG, EIO, EPERM: as
 * the file says. ENOMEM. ENOSYS.
 */
int hwloc_shmem_topology_write(struct hwloc_topology *topology,
                               int fd,
                               uint64_t fileoffset,
                               void *mmap_address,
                               size_t length,
                               unsigned long flags);

/**
 * Adopts a topology from a file that hwloc or we wrote. It is read-only,
 * and destroyed with hwloc_topology_destroy(). The file is checked whole
 * before; it must not be cut shorter, nor written to, while the topology
 * is in use (one with up to 64 KiB in use is copied, and may be). fd may be
 * closed.
 *
 * The same file can be adopted more than once in a process: all but the
 * first are copies at other addresses. With
 * HWLOC_SHMEM_RELOCATE=1 in the environment a topology whose addresses
 * are taken is copied to others instead of failing with EBUSY, with
 * HWLOC_SHMEM_PRIVATE=1 each is copied, with 0 none is.
 *
 * Returns 0, or -1 with errno set:
 * EINVAL: flags other than 0; fileoffset or mmap_address not a multiple of
 * the page size; an address or length that are not those of the file; one that is
 * short, corrupt, or of another layout than the running libhwloc's.
 * EBUSY: the addresses are not free. EBADF, ESPIPE, EISDIR, EIO: as the
 * file says. ENOMEM. ENOSYS.
 */
int hwloc_shmem_topology_adopt(struct hwloc_topology **topologyp,
                               int fd,
                               uint64_t fileoffset,
                               void *mmap_address,
                               size_t length,
                               unsigned long flags);

/**
 * Finds addresses for length bytes that are free in nr processes and in
 * the caller's, away from where mappings, heaps and stacks will grow.
 * They are free when this returns; xpmem_hwloc_hole_reserve() keeps them so.
 *
 * Returns 0, or -1 with errno set: EINVAL for a length of 0 or a bad pid,
 * ENOENT for a process that is gone, EACCES for one that may not be looked
 * at, ENOMEM if there is no such range.
 */
int xpmem_hwloc_hole_find(const pid_t *pids,
                          unsigned int nr,
                          size_t length,
                          void **addrp);

/**
 * Keeps addresses free for one hwloc_shmem_topology_adopt() in this process
 * with just this address and length, which takes their place in one step.
 * If that fails they stay reserved.
 *
 * Returns 0, or -1 with errno set: EBUSY if they are taken, EINVAL if they
 * are not whole pages, ENOMEM if there are 16 reservations.
 */
int xpmem_hwloc_hole_reserve(void *addr, size_t length);

/**
 * Gives reserved addresses back.
 *
 * Returns 0, or -1 with errno set: EINVAL if they are not reserved.
 */
int xpmem_hwloc_hole_release(void *addr, size_t length);

#ifdef __cplusplus
}
#endif

#endif  /* HWLOC_SHMEM_OF_XPMEM_H */
