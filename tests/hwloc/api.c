/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The calls and their errnos, one case each; run over our library. Also
 * compiles against our header beside hwloc's, so a signature that differs
 * does not compile.
 */
#define _GNU_SOURCE
#include "../../include/hwloc_shmem.h"
#include "../lib/check.h"
#include "dump.h"
#include <fcntl.h>
#include <hwloc/shmem.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static hwloc_topology_t source;
static size_t length;
static char *const addr = (void *)0x320000000000;

static int file(void)
{
	int fd = memfd_create("api", MFD_CLOEXEC);

	if (fd < 0 || hwloc_shmem_topology_write(source, fd, 0, addr, length, 0)) {
		perror("write");
		exit(1);
	}
	return fd;
}

static int adopt(int fd, hwloc_topology_t *t)
{
	return hwloc_shmem_topology_adopt(t, fd, 0, addr, length, 0);
}

static void get_length(void)
{
	hwloc_topology_t t;
	size_t n = 1;

	FAILS("flags", hwloc_shmem_topology_get_length(source, &n, 1), EINVAL);
	CHECK("the answer is not touched", n == 1);
	hwloc_topology_init(&t);
	FAILS("not loaded", hwloc_shmem_topology_get_length(t, &n, 0), EINVAL);
	hwloc_topology_destroy(t);
	CHECK("whole pages", length % getpagesize() == 0 && length > 0);
}

/* A failing write leaves the file, its size and its position alone. */
static void write_fails(const char *what, hwloc_topology_t t, int fd, uint64_t offset,
			void *at, size_t n, unsigned long flags, int wanted)
{
	static char before[1 << 16], after[1 << 16];
	struct stat old = { .st_size = 0 }, now = { .st_size = 0 };
	ssize_t had, has;
	off_t position;

	fstat(fd, &old);
	had = pread(fd, before, sizeof(before), 0);
	position = lseek(fd, 0, SEEK_CUR);
	FAILS(what, hwloc_shmem_topology_write(t, fd, offset, at, n, flags), wanted);
	fstat(fd, &now);
	has = pread(fd, after, sizeof(after), 0);
	CHECK(what, old.st_size == now.st_size && had == has
	      && (had <= 0 || !memcmp(before, after, had))
	      && position == lseek(fd, 0, SEEK_CUR));
}

static void writing(void)
{
	int fd = memfd_create("w", 0), other, ends[2];
	char name[64], text[] = "old contents";
	hwloc_topology_t t;
	struct stat st;
	void *busy;
	size_t small;

	pwrite(fd, text, sizeof(text), 0);
	lseek(fd, 5, SEEK_SET);
	write_fails("flags", source, fd, 0, addr, length, 1, EINVAL);
	write_fails("flags before the file", source, -1, 0, addr, length, 1, EINVAL);
	write_fails("bad fd", source, -1, 0, addr, length, 0, EBADF);
	hwloc_topology_init(&t);
	write_fails("not loaded", t, fd, 0, addr, length, 0, EINVAL);
	hwloc_topology_destroy(t);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	other = open(name, O_RDONLY);
	write_fails("read-only", source, other, 0, addr, length, 0, EBADF);
	close(other);
	other = open(name, O_WRONLY);
	write_fails("write-only", source, other, 0, addr, length, 0, EACCES);
	close(other);
	if (pipe(ends))
		exit(1);
	write_fails("pipe", source, ends[1], 0, addr, length, 0, ESPIPE);
	close(ends[0]);
	close(ends[1]);
	write_fails("offset not of pages", source, fd, 1, addr, length, 0, EINVAL);
	write_fails("huge offset", source, fd, 1ull << 63, addr, length, 0, EINVAL);
	write_fails("address not of pages", source, fd, 0, addr + 1, length, 0, EINVAL);
	write_fails("length 0", source, fd, 0, addr, 0, 0, EINVAL);
	write_fails("null address", source, fd, 0, NULL, length, 0, EBUSY);
	write_fails("kernel's address", source, fd, 0, (void *)0xffff800000000000, length, 0, EBUSY);
	write_fails("lowest address", source, fd, 0, (void *)4096, length, 0, EBUSY);
	busy = mmap(addr + length - 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS
		    | MAP_FIXED_NOREPLACE, -1, 0);
	write_fails("taken address", source, fd, 0, addr, length, 0, EBUSY);
	munmap(busy, 4096);
	for (small = 4096; small < 20480 && small < length / 4; small += 4096)
		write_fails("short length", source, fd, 0, addr, small, 0, EINVAL);
	write_fails("no such memory", source, fd, 0, addr, 1ul << 50, 0, ENOMEM);
	other = memfd_create("sealed", MFD_ALLOW_SEALING);
	fcntl(other, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE);
	write_fails("sealed", source, other, 0, addr, length, 0, EPERM);
	close(other);

	/* What follows the range stays. */
	if (ftruncate(fd, length + 12288))
		exit(1);
	pwrite(fd, text, sizeof(text), length + 8192);
	CHECK("write", !hwloc_shmem_topology_write(source, fd, 4096, addr, length, 0));
	fstat(fd, &st);
	memset(name, 0, sizeof(name));
	pread(fd, name, sizeof(text), length + 8192);
	CHECK("a longer file stays", st.st_size == (off_t)length + 12288 && !strcmp(name, text));
	CHECK("position", lseek(fd, 0, SEEK_CUR) == 5);
	CHECK("adopt at an offset", !hwloc_shmem_topology_adopt(&t, fd, 4096, addr, length, 0));
	hwloc_topology_destroy(t);
	close(fd);

	/* O_APPEND moves each write() to the end of the file. */
	fd = memfd_create("append", 0);
	pwrite(fd, text, sizeof(text), 0);
	fcntl(fd, F_SETFL, O_APPEND);
	CHECK("append", !hwloc_shmem_topology_write(source, fd, 4096, addr, length, 0));
	CHECK("append adopts", !hwloc_shmem_topology_adopt(&t, fd, 4096, addr, length, 0));
	hwloc_topology_destroy(t);
	close(fd);
	fd = open("/dev/full", O_RDWR);
	FAILS("full device", hwloc_shmem_topology_write(source, fd, 0, addr, length, 0), ENOSPC);
	close(fd);
	fd = open("/dev/zero", O_RDWR);
	FAILS("device", hwloc_shmem_topology_write(source, fd, 0, addr, length, 0), EINVAL);
	close(fd);
}

static void adopting(void)
{
	int fd = file(), other, ends[2], i;
	hwloc_topology_t t = NULL;
	char name[64], zeros[64] = "", byte;
	void *busy;
	uint64_t *map;
	uint64_t word;

	FAILS("flags", hwloc_shmem_topology_adopt(&t, fd, 0, addr, length, 1), EINVAL);
	FAILS("bad fd", adopt(-1, &t), EBADF);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	other = open(name, O_WRONLY);
	FAILS("write-only", adopt(other, &t), EBADF);
	close(other);
	if (pipe(ends))
		exit(1);
	FAILS("pipe", adopt(ends[0], &t), ESPIPE);
	close(ends[0]);
	close(ends[1]);
	other = open("/", O_RDONLY);
	FAILS("directory", adopt(other, &t), EISDIR);
	close(other);
	other = memfd_create("empty", 0);
	FAILS("empty", adopt(other, &t), EINVAL);
	pwrite(other, zeros, 10, 0);
	FAILS("ten bytes", adopt(other, &t), EINVAL);
	close(other);
	FAILS("offset past the end", hwloc_shmem_topology_adopt(&t, fd, 1 << 30, addr, length, 0), EINVAL);
	FAILS("offset not of pages", hwloc_shmem_topology_adopt(&t, fd, 8, addr, length, 0), EINVAL);
	FAILS("another address", hwloc_shmem_topology_adopt(&t, fd, 0, addr + 4096, length, 0), EINVAL);
	FAILS("another length", hwloc_shmem_topology_adopt(&t, fd, 0, addr, length + 4096, 0), EINVAL);
	busy = mmap(addr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	FAILS("taken address", adopt(fd, &t), EBUSY);
	setenv("HWLOC_SHMEM_RELOCATE", "1", 1);
	CHECK("relocate", !adopt(fd, &t));
	if (t) {
		CHECK("relocated", !exercise(t, DUMP_MEMATTRS | DUMP_REFRESH)
		      && walk(t) == walk(source));
		hwloc_topology_destroy(t);
	}
	unsetenv("HWLOC_SHMEM_RELOCATE");
	munmap(busy, 4096);
	setenv("HWLOC_SHMEM_PRIVATE", "1", 1);
	CHECK("private", !adopt(fd, &t));
	ftruncate(fd, 0);
	CHECK("cutting the file is harmless then", walk(t) == walk(source));
	hwloc_topology_destroy(t);
	unsetenv("HWLOC_SHMEM_PRIVATE");
	close(fd);

	fd = file();
	pread(fd, &word, 8, 24);
	byte = 0;
	pwrite(fd, &byte, 1, 26);
	FAILS("another layout", adopt(fd, &t), EINVAL);
	pwrite(fd, &word, 8, 24);
	for (i = 0; i < 5; i++) {
		size_t cut[] = { 24, 848, 4096, length / 2, length - 4096 };

		other = memfd_create("cut", 0);
		map = malloc(cut[i]);
		pread(fd, map, cut[i], 0);
		pwrite(other, map, cut[i], 0);
		FAILS("cut", adopt(other, &t), EINVAL);
		/* Long enough, but zeros. */
		if (i < 3) {
			ftruncate(other, length);
			FAILS("zeros", adopt(other, &t), EINVAL);
		}
		free(map);
		close(other);
	}
	CHECK("nothing stays mapped", adopt(fd, &t) == 0);
	CHECK("position", lseek(fd, 0, SEEK_CUR) == 0);
	CHECK("the same", walk(t) == walk(source));
	hwloc_topology_destroy(t);
	CHECK("again", adopt(fd, &t) == 0);
	hwloc_topology_destroy(t);
	close(fd);
}

/* No address of this process's stack or code is in a file. */
static void leaks(void)
{
	int fd = file();
	uint64_t *words = malloc(length);
	size_t i;
	unsigned found = 0;
	uintptr_t stack = (uintptr_t)&fd, code = (uintptr_t)hwloc_topology_init;

	pread(fd, words, length, 0);
	for (i = 0; i < length / 8; i++)
		if (words[i] - (stack - (8 << 20)) < 16 << 20 || words[i] - (code - (4 << 20)) < 8 << 20)
			found++;
	CHECK("no pointer of the writer", found == 0);
	free(words);
	close(fd);
}

/* A second adoption, in every order of destruction. */
static void twice(void)
{
	unsigned long sum = walk(source);
	hwloc_topology_t a, b, c;
	int fd = file(), order, status;

	for (order = 0; order < 4; order++) {
		/* Each in a process: the mapping stays where it is shared. */
		if (!fork()) {
			int ok = !adopt(fd, &a) && !adopt(fd, &b) && !adopt(fd, &c);

			ok = ok && walk(a) == sum && walk(b) == sum && walk(c) == sum;
			if (!ok)
				_exit(1);
			hwloc_topology_destroy(order & 1 ? a : b);
			hwloc_topology_destroy(order & 2 ? c : (order & 1 ? b : a));
			if (walk(order & 2 ? (order & 1 ? b : a) : c) != sum)
				_exit(2);
			if (exercise(order & 2 ? (order & 1 ? b : a) : c, DUMP_MEMATTRS | DUMP_REFRESH))
				_exit(3);
			hwloc_topology_destroy(order & 2 ? (order & 1 ? b : a) : c);
			if (adopt(fd, &a) || walk(a) != sum)
				_exit(4);
			hwloc_topology_destroy(a);
			_exit(0);
		}
		wait(&status);
		CHECK("three times in one process", status == 0);
	}
	/* Another file for the same address is not taken for the first. */
	if (!fork()) {
		hwloc_topology_t other;
		int second = memfd_create("second", 0);

		hwloc_topology_init(&other);
		hwloc_topology_set_synthetic(other, "numa core:3 pu:1");
		hwloc_topology_load(other);
		if (hwloc_shmem_topology_write(other, second, 0, addr, length, 0) || adopt(fd, &a))
			_exit(1);
		if (!adopt(second, &b) || errno != EBUSY)
			_exit(2);
		setenv("HWLOC_SHMEM_RELOCATE", "1", 1);
		if (adopt(second, &b) || walk(b) != walk(other))
			_exit(4);
		if (walk(a) != sum)
			_exit(3);
		_exit(0);
	}
	wait(&status);
	CHECK("another file, same address", status == 0);
	close(fd);
}

/* An adopted topology is written again, to another address. */
static void again(void)
{
	char *there = addr + (1ul << 36);
	hwloc_topology_t a, b;
	int fd = file(), second = memfd_create("again", 0);
	size_t n = 0;

	CHECK("adopt", !adopt(fd, &a));
	CHECK("length of the adopted", !hwloc_shmem_topology_get_length(a, &n, 0) && n <= length);
	CHECK("write the adopted", !hwloc_shmem_topology_write(a, second, 0, there, length, 0));
	CHECK("adopt that", !hwloc_shmem_topology_adopt(&b, second, 0, there, length, 0));
	CHECK("same", walk(b) == walk(source) && !exercise(b, DUMP_MEMATTRS | DUMP_REFRESH));
	hwloc_topology_destroy(b);
	hwloc_topology_destroy(a);
	close(fd);
	close(second);
}

/* What a file takes, beside stock's: length is what stock would need. */
static void sizes(void)
{
	static const struct {
		const char *machine;
		unsigned part;
	} of[] = {
		{ "pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2", 2 },
		{ "pack:4 [numa] l3:16 l2:20 l1d:1 core:1 pu:8", 4 },
	};
	hwloc_topology_t t;
	struct stat st;
	unsigned i;
	size_t n;
	int fd;

	for (i = 0; i < 2; i++) {
		fd = memfd_create("size", 0);
		hwloc_topology_init(&t);
		hwloc_topology_set_synthetic(t, of[i].machine);
		hwloc_topology_load(t);
		CHECK("write", !hwloc_shmem_topology_get_length(t, &n, 0)
		      && !hwloc_shmem_topology_write(t, fd, 0, addr, n, 0));
		fstat(fd, &st);
		CHECK("size", st.st_size == (off_t)n
		      && (size_t)st.st_blocks * 512 <= n / of[i].part);
		hwloc_topology_destroy(t);
		close(fd);
	}
}

static void holes(void)
{
	pid_t pids[2], self = getpid();
	void *at = NULL;
	hwloc_topology_t t;
	int i, fd, status;

	for (i = 0; i < 2; i++)
		if (!(pids[i] = fork())) {
			pause();
			_exit(0);
		}
	FAILS("length 0", xpmem_hwloc_hole_find(pids, 2, 0, &at), EINVAL);
	FAILS("bad pid", xpmem_hwloc_hole_find((pid_t[]){ -1 }, 1, 4096, &at), EINVAL);
	FAILS("no process", xpmem_hwloc_hole_find((pid_t[]){ 0x3ffffff }, 1, 4096, &at), ENOENT);
	FAILS("no room", xpmem_hwloc_hole_find(&self, 1, 1ul << 47, &at), ENOMEM);
	CHECK("find", !xpmem_hwloc_hole_find(pids, 2, length, &at) && at);
	for (i = 0; i < 2; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], &status, 0);
	}
	CHECK("reserve", !xpmem_hwloc_hole_reserve(at, length));
	FAILS("reserved", xpmem_hwloc_hole_reserve(at, length), EBUSY);
	fd = memfd_create("hole", 0);
	CHECK("write to a reserved address",
	      !hwloc_shmem_topology_write(source, fd, 0, at, length, 0));
	ftruncate(fd, length / 2);
	FAILS("a failed adoption", hwloc_shmem_topology_adopt(&t, fd, 0, at, length, 0), EINVAL);
	CHECK("write anew", !hwloc_shmem_topology_write(source, fd, 0, at, length, 0));
	pwrite(fd, "\377\377\377\377\377\377\377\377", 8, 24 + 728);
	FAILS("a corrupt file", hwloc_shmem_topology_adopt(&t, fd, 0, at, length, 0), EINVAL);
	CHECK("still reserved", mmap(at, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS
				     | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
	CHECK("write anew", !hwloc_shmem_topology_write(source, fd, 0, at, length, 0));
	CHECK("adopt there", !hwloc_shmem_topology_adopt(&t, fd, 0, at, length, 0));
	CHECK("same", walk(t) == walk(source));
	hwloc_topology_destroy(t);
	FAILS("taken by the adoption", xpmem_hwloc_hole_release(at, length), EINVAL);
	CHECK("reserve", !xpmem_hwloc_hole_reserve(at, length));
	CHECK("release", !xpmem_hwloc_hole_release(at, length));
	close(fd);
}

int main(void)
{
	const char *machine = getenv("API_SYNTHETIC");

	hwloc_topology_init(&source);
	hwloc_topology_set_synthetic(source, machine ? machine
		: "pack:2 [numa(memory=68719476736)] l3:8 l2:8 l1d:1 l1i:1 core:1 pu:2");
	hwloc_topology_load(source);
	if (hwloc_shmem_topology_get_length(source, &length, 0))
		return 1;
	get_length();
	writing();
	adopting();
	leaks();
	twice();
	again();
	sizes();
	holes();
	hwloc_topology_destroy(source);
	return finish();
}
