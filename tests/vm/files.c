/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An owner's file on a disk: what an attacher stores is what the file has,
 * after writeback, fsync and another mount. files FILESYSTEM DEVICE (see disk)
 */
#include "t.h"
#include <sys/mount.h>

#define BASE 0x200000000000L
#define PAGES 256L
#define DIR "/tmp/disk"

static struct peer owner;
static long segid, apid;
static const char *type, *disk;

static long r_map_file(long path, long addr, long shared)
{
	int fd = open((char *)path, O_RDWR | O_CREAT, 0666);
	long ok = fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0 &&
		  mmap((void *)addr, PAGES * PAGE, PROT_READ | PROT_WRITE,
		       (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED, fd, 0) == (void *)addr;

	if (!ok)
		return -errno;
	return fd;
}
static long r_sync(long fd, long b, long c) { return fsync(fd) ? -errno : 0; }
static long r_msync(long addr, long size, long c) { return msync((void *)addr, size, MS_SYNC) ? -errno : 0; }

static int mounted(void) { return mount(disk, DIR, type, 0, NULL) == 0; }

/* The file as the disk has it: nothing of it is in memory after a remount. */
static int on_disk(long v)
{
	int fd, bad = 0;
	long got;

	if (umount(DIR) || !mounted())
		return 0;
	fd = open(DIR "/file", O_RDONLY);
	for (long i = 0; i < PAGES; i++)
		if (pread(fd, &got, 8, i * PAGE) != 8 || got != v + i)
			bad++;
	close(fd);
	if (bad)
		printf("  %d of %ld pages are not as stored\n", bad, PAGES);
	return fd >= 0 && !bad;
}

static void stores_reach_the_disk(void)
{
	static const char *const ways[] = { "fsync", "msync", "sync", "munmap" };

	for (long way = 0; way < 4; way++) {
		long fd = CALL(&owner, r_map_file, DIR "/file", BASE, 1), v = 10000 * (way + 1);
		char *p = (char *)x_attach(apid, BASE, PAGES * PAGE);

		NEED(fd >= 0 && (long)p > 0);
		/* Stored, written back while attached, and stored again. */
		for (int round = 0; round < 3; round++) {
			for (long i = 0; i < PAGES; i++)
				CHECK(wr(p + i * PAGE, v + i - 2 + round) == 0);
			if (round < 2) {
				CHECK(CALL(&owner, r_sync, fd, 0, 0) == 0);
				CHECK(write_file("/proc/sys/vm/drop_caches", "3") == 0);
			}
		}
		if (way == 0)
			CHECK(CALL(&owner, r_sync, fd, 0, 0) == 0);
		if (way == 1)
			CHECK(CALL(&owner, r_msync, BASE, PAGES * PAGE, 0) == 0);
		if (way == 2)
			sync();
		CHECK(val(p) == v);
		CALL(&owner, r_unmap, BASE, PAGES * PAGE, 0);
		CALL(&owner, close, fd, 0, 0);
		CHECK(rd(p, NULL) == SIGBUS && x_detach(p) == 0);
		if (!on_disk(v)) {
			printf("  after %s\n", ways[way]);
			CHECK(!"on the disk");
		}
	}
}

/* A private mapping: the owner's, never the file's. */
static void private_stays_private(void)
{
	long fd = CALL(&owner, r_map_file, DIR "/file", BASE, 0), was = CALL(&owner, r_val, BASE, 0, 0);
	char *p = (char *)x_attach(apid, BASE, PAGES * PAGE);

	CHECK(val(p) == was && wr(p, 5) == 0);
	CHECK(CALL(&owner, r_val, BASE, 0, 0) == 5 && CALL(&owner, r_sync, fd, 0, 0) == 0);
	CALL(&owner, r_unmap, BASE, PAGES * PAGE, 0);
	CALL(&owner, close, fd, 0, 0);
	CHECK(x_detach(p) == 0 && on_disk(was));
}

/* Cut short while attached: no page beyond, and no stale one after it grows. */
static void truncated(void)
{
	long fd = CALL(&owner, r_map_file, DIR "/file", BASE, 1);
	char *p = (char *)x_attach(apid, BASE, PAGES * PAGE);

	CHECK(wr(p, 1) == 0 && wr(p + 100 * PAGE, 2) == 0);
	CHECK(CALL(&owner, ftruncate, fd, 50 * PAGE, 0) == 0);
	CHECK(val(p) == 1 && rd(p + 100 * PAGE, NULL) == SIGBUS);
	CHECK(CALL(&owner, ftruncate, fd, PAGES * PAGE, 0) == 0);
	CHECK(val(p + 100 * PAGE) == 0 && wr(p + 100 * PAGE, 3) == 0);
	CHECK(CALL(&owner, r_val, BASE + 100 * PAGE, 0, 0) == 3);
	CALL(&owner, r_unmap, BASE, PAGES * PAGE, 0);
	CALL(&owner, close, fd, 0, 0);
	CHECK(x_detach(p) == 0);
}

int main(int argc, char **argv)
{
	t_catch();
	if (argc < 3)
		return 2;
	type = argv[1];
	disk = argv[2];
	t_case = "files";
	mkdir(DIR, 0755);
	if (!mounted()) {
		/* It may be there and have found something wrong. */
		if (errno != ENODEV) {
			printf("FAIL files: mount: errno %d\n", errno);
			t_failed++;
			return t_done();
		}
		printf("skip files: no %s in this kernel\n", type);
		t_skipped++;
		return t_done();
	}
	dev_open();
	owner = peer_start();
	segid = CALL(&owner, r_make, 0, MAXADDR, 0666);
	apid = x_get(segid, RW);
	RUN(stores_reach_the_disk);
	RUN(private_stays_private);
	RUN(truncated);
	x_release(apid);
	peer_stop(&owner);
	CHECK(umount(DIR) == 0);
	return t_done();
}
