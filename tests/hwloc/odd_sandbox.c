/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * odd_sandbox LIBXPMEM [CASE]: what stock does not call may be refused.
 */
#include "files.h"
#include "sandbox.h"

#define WITHOUT(name, number, what) \
	static unsigned long name(const struct calls *c) \
	{ \
		refuse(number, SECCOMP_RET_ERRNO | EPERM); \
		return what(c); \
	}
WITHOUT(no_madvise, SYS_madvise, everything)
WITHOUT(no_mprotect, SYS_mprotect, both_files)
WITHOUT(no_process_vm_readv, SYS_process_vm_readv, everything)
WITHOUT(no_openat, SYS_openat, everything)
WITHOUT(no_getrandom, SYS_getrandom, everything)
WITHOUT(no_gettid, SYS_gettid, everything)
WITHOUT(no_sysinfo, SYS_sysinfo, everything)
WITHOUT(no_prlimit, SYS_prlimit64, everything)
WITHOUT(no_memfd, SYS_memfd_create, both_files)
WITHOUT(no_fallocate, SYS_fallocate, everything)
WITHOUT(no_sched, SYS_sched_getaffinity, both_files)
WITHOUT(no_pread, SYS_pread64, everything)
WITHOUT(no_pwrite, SYS_pwrite64, everything)
WITHOUT(no_fcntl, SYS_fcntl, everything)

static void no_status(int how)
{
	refuse(SYS_newfstatat, SECCOMP_RET_ERRNO | how);
	refuse(SYS_statx, SECCOMP_RET_ERRNO | how);
#ifdef SYS_fstat
	refuse(SYS_fstat, SECCOMP_RET_ERRNO | how);
#endif
}

static unsigned long no_fstat(const struct calls *c)
{
	no_status(EACCES);
	return everything(c);
}

/* Writes into a file that is not empty, at a place in it, and adopts. What was
 * before stays. */
static unsigned long in_the_middle(const struct calls *c, int flags)
{
	char name[] = "/dev/shm/odd.XXXXXX", full[] = "before", got[sizeof(full)];
	int file = mkstemp(name), again = open(name, flags);
	unsigned long said;
	size_t n;

	unlink(name);
	if (c->get_length(small, &n, 0) || ftruncate(file, n + 8192))
		return answer(-1);
	write(file, full, sizeof(full));
	if (c->write(small, again, 4096, addr, n, 0))
		return answer(-1) + 0x20000;
	said = adopted(c, again, 4096, addr, n);
	/* The position stays, but with stock. */
	if (c == &ours && lseek(again, 0, SEEK_CUR) != 0)
		return 1;
	lseek(file, 0, SEEK_SET);
	if (read(file, got, sizeof(got)) != sizeof(got) || memcmp(got, full, sizeof(got)))
		return 0;
	return said;
}

/* All that stock does not call for a file. */
static void strict(int how)
{
	static const int numbers[] = {
		SYS_pread64, SYS_pwrite64, SYS_fcntl, SYS_fallocate, SYS_madvise, SYS_mprotect,
		SYS_process_vm_readv, SYS_memfd_create, SYS_openat,
	};
	size_t i;

	no_status(how);
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		refuse(numbers[i], SECCOMP_RET_ERRNO | how);
}

static unsigned long strict_sandbox(const struct calls *c)
{
	strict(ENOSYS);
	return both_files(c);
}

static unsigned long write_without_pwrite(const struct calls *c)
{
	refuse(SYS_pwrite64, SECCOMP_RET_ERRNO | ENOSYS);
	return in_the_middle(c, O_RDWR);
}

static unsigned long write_without_fcntl(const struct calls *c)
{
	refuse(SYS_fcntl, SECCOMP_RET_ERRNO | EACCES);
	return in_the_middle(c, O_RDWR);
}

static unsigned long write_without_fstat(const struct calls *c)
{
	no_status(ENOSYS);
	return in_the_middle(c, O_RDWR);
}

static unsigned long write_strictly(const struct calls *c)
{
	char name[] = "/dev/shm/odd.XXXXXX";
	int file = mkstemp(name);
	size_t n;

	unlink(name);
	strict(EPERM);
	if (c->get_length(small, &n, 0) || c->write(small, file, 8192, addr, n, 0))
		return answer(-1);
	return adopted(c, file, 8192, addr, n);
}

/* What a file is not open for is as stock says it without a question. */
static unsigned long write_what_is_read(const struct calls *c)
{
	char name[] = "/dev/shm/odd.XXXXXX";
	int file = mkstemp(name), read_only = open(name, O_RDONLY), write_only = open(name, O_WRONLY);
	unsigned long said;

	unlink(name);
	close(file);
	refuse(SYS_fcntl, SECCOMP_RET_ERRNO | EPERM);
	said = answer(c->write(small, read_only, 0, addr, length, 0));
	return said * 1000 + answer(c->write(small, write_only, 0, addr, length, 0));
}

static unsigned long append_without_blocks(const struct calls *c)
{
	char name[] = "/dev/shm/odd.XXXXXX";
	int file = mkstemp(name), again = open(name, O_RDWR | O_APPEND);
	size_t n;

	close(file);
	unlink(name);
	refuse(SYS_fallocate, SECCOMP_RET_ERRNO | EOPNOTSUPP);
	if (c->get_length(small, &n, 0) || c->write(small, again, 0, addr, n, 0))
		return answer(-1);
	return adopted(c, again, 0, addr, n);
}

/* Stock has EBUSY for the second; ours must not, whatever is refused. Another file
 * is not taken for the one that is there. */
static unsigned long twice(const struct calls *c)
{
	hwloc_topology_t first, second, other;
	unsigned long said;

	if (c == &stock)
		return adopted(c, large_fd, 0, addr, large_length);
	if (c->adopt(&first, large_fd, 0, addr, large_length, 0)
	    || c->adopt(&second, large_fd, 0, addr, large_length, 0))
		return answer(-1);
	if (!c->adopt(&other, fd, 0, addr, length, 0) || errno != EBUSY)
		return 1;
	hwloc_topology_destroy(first);
	said = walk(second);
	hwloc_topology_destroy(second);
	return said | SUCCESS;
}

WITHOUT(twice_without_process_vm_readv, SYS_process_vm_readv, twice)

static unsigned long twice_strictly(const struct calls *c)
{
	strict(ENOSYS);
	return twice(c);
}

#define CASE(name) { #name, name, 0 }
static const struct beside cases[] = {
	CASE(no_madvise), CASE(no_mprotect), CASE(no_process_vm_readv), CASE(no_openat),
	CASE(no_getrandom), CASE(no_gettid), CASE(no_sysinfo), CASE(no_prlimit), CASE(no_memfd),
	CASE(no_fallocate), CASE(no_sched), CASE(no_pread), CASE(no_pwrite), CASE(no_fcntl),
	CASE(no_fstat), CASE(strict_sandbox), CASE(write_without_pwrite),
	CASE(write_without_fcntl), CASE(write_without_fstat), CASE(write_strictly), CASE(write_what_is_read),
	CASE(append_without_blocks), CASE(twice), CASE(twice_without_process_vm_readv),
	CASE(twice_strictly),
	{ NULL, NULL, 0 },
};

int main(int argc, char **argv)
{
	return run_cases(cases, argc, argv);
}
