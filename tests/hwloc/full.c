/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * full: a file system without a free block. Writing there is ENOSPC and leaves
 * the file as it is; adopting a file that has holes is an answer, not a SIGBUS:
 * touching a mapping of a hole takes a block. Exit 77 where no file system can
 * be mounted.
 */
#include "check.h"
#include "dump.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void *const addr = (void *)0x370000000000;

/* Takes what is left. */
static int fill(const char *name)
{
	static char block[4096];
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	while (write(fd, block, sizeof(block)) == sizeof(block))
		;
	return fd;
}

/* Writing fails, and leaves an empty file. */
static void no_room(const char *what, hwloc_topology_t t, int fd, size_t length)
{
	struct stat st;

	FAILS(what, hwloc_shmem_topology_write(t, fd, 0, addr, length, 0), ENOSPC);
	CHECK(what, !fstat(fd, &st) && st.st_size == 0);
}

int main(void)
{
	char dir[] = "/tmp/full.XXXXXX", name[64], filler[64];
	const char *large = "pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2";
	hwloc_topology_t t, a;
	size_t length;
	unsigned long sum;
	int fd, full, i;

	if ((unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) || !mkdtemp(dir)
	    || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)
	    || mount("tmpfs", dir, "tmpfs", 0, "size=2m")) {
		perror("no file system can be mounted");
		rmdir(dir);
		return 77;
	}
	snprintf(name, sizeof(name), "%s/topology", dir);
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	t = machine(large);
	sum = walk(t);
	hwloc_shmem_topology_get_length(t, &length, 0);

	full = fill(filler);
	fd = open(name, O_RDWR | O_CREAT, 0600);
	no_room("no block", t, fd, length);
	ftruncate(full, lseek(full, 0, SEEK_END) - 65536);
	no_room("fewer than are needed", t, fd, length);
	close(fd);
	fd = open(name, O_RDWR | O_APPEND);
	no_room("appending", t, fd, length);
	close(fd);
	unlink(filler);
	close(full);

	fd = open(name, O_RDWR);
	CHECK("written", !hwloc_shmem_topology_write(t, fd, 0, addr, length, 0));
	full = fill(filler);
	CHECK("adopted where nothing is free", !hwloc_shmem_topology_adopt(&a, fd, 0, addr, length, 0));
	CHECK("as written", walk(a) == sum);
	hwloc_topology_destroy(a);
	/* Each page of it becomes a hole once. */
	for (i = 0; i < 40; i++) {
		char page[4096];
		int rc;

		pread(fd, page, sizeof(page), i * 4096l);
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i * 4096l, 4096);
		close(full);
		full = fill(filler);
		CHECK("nothing is free", write(full, page, 1) == -1 && errno == ENOSPC);
		if (child()) {
			rc = hwloc_shmem_topology_adopt(&a, fd, 0, addr, length, 0);
			_exit(rc == 0 || errno != EINVAL);
		}
		CHECK("a hole is no SIGBUS", child_passed());
		ftruncate(full, lseek(full, 0, SEEK_END) - 8192);
		pwrite(fd, page, sizeof(page), i * 4096l);
	}
	CHECK("whole again", !hwloc_shmem_topology_adopt(&a, fd, 0, addr, length, 0));
	CHECK("as written", walk(a) == sum);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return finish();
}
