// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "leaks.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long entries(const char *dir)
{
	DIR *d = opendir(dir);
	long n = 0;

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n - 3; // ".", ".." and, for fd, the listing itself
}

static long lines(const char *file)
{
	FILE *f = fopen(file, "r");
	long n = 0;
	int c;

	if (!f)
		return -1;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

// Resident memory that is no file's: the program's own, and the pages it shares.
static long memory_kib(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[128];
	long sum = 0, kib;

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1 || sscanf(line, "RssShmem: %ld", &kib) == 1)
			sum += kib;
	fclose(f);
	return sum;
}

static void children(struct footprint *f)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[300];
		FILE *file;
		int pid;

		snprintf(path, sizeof(path), "/proc/self/task/%s/children", e->d_name);
		file = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		while (file && fscanf(file, "%d", &pid) == 1) {
			char state = '?';
			FILE *stat;

			f->children++;
			snprintf(path, sizeof(path), "/proc/%d/stat", pid);
			stat = fopen(path, "r");
			if (stat && fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state == 'Z')
				f->zombies++;
			if (stat)
				fclose(stat);
		}
		if (file)
			fclose(file);
	}
	if (d)
		closedir(d);
}

void footprint_take(struct footprint *f)
{
	memset(f, 0, sizeof(*f));
	f->fds = entries("/proc/self/fd");
	f->threads = entries("/proc/self/task") + 1;
	f->maps = lines("/proc/self/maps");
	f->memory = memory_kib();
	children(f);
}

void footprint_compare(struct mailbox *mb, const char *who, const struct footprint *before,
		       const struct footprint *after)
{
	const struct {
		const char *what;
		long before, after, slack;
	} row[] = {
		{ "descriptors", before->fds, after->fds, 0 },
		{ "threads", before->threads, after->threads, 0 },
		{ "mappings", before->maps, after->maps, 200 },
		// Freed heap that the allocator keeps, of all threads.
		{ "resident memory (KiB)", before->memory, after->memory, 64 << 10 },
		{ "children", before->children, after->children, 1 },
		{ "zombies", before->zombies, after->zombies, 0 },
	};

	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++)
		if (row[i].after > row[i].before + row[i].slack)
			fail_note(mb, F_LEAK, K_LIBC, "%s: %s grew from %ld to %ld", who, row[i].what,
				  row[i].before, row[i].after);
}

// Data of one file within [lo, hi), by its map of holes.
static long data_in(int fd, off_t lo, off_t hi)
{
	long sum = 0;

	while (lo < hi) {
		off_t data = lseek(fd, lo, SEEK_DATA), hole;

		if (data < 0 || data >= hi)
			break;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0 || hole > hi)
			hole = hi;
		sum += hole - data;
		lo = hole;
	}
	return sum;
}

// Data in [lo, hi) of the memfds, at least that large, among the descriptors in `dir`.
static long memfd_data(const char *dir, off_t lo, off_t hi, unsigned *files)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	long sum = 0;

	while (d && (e = readdir(d))) {
		char path[600], link[64];
		ssize_t n;
		struct stat st;
		int fd;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 8 || strncmp(link, "/memfd:", 7))
			continue;
		// A description of its own: the owner's file position is not ours to move.
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (!fstat(fd, &st) && st.st_size >= hi) {
			sum += data_in(fd, lo, hi);
			++*files;
		}
		close(fd);
	}
	if (d)
		closedir(d);
	return sum;
}

long memfd_bytes_in(uint64_t lo, uint64_t hi)
{
	// The library's descriptors are those of a thread of its own, not the program's.
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	unsigned files = 0;
	long sum = 0;

	while (d && (e = readdir(d))) {
		char path[300];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/fd", e->d_name);
		sum += memfd_data(path, lo, hi, &files);
	}
	if (d)
		closedir(d);
	return files ? sum : -1;
}

long files_below(const char *dir, char *names, size_t size)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	long n = 0;

	while (d && (e = readdir(d))) {
		char path[600];
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (lstat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode)) {
			n += files_below(path, names, size);
		} else {
			size_t used = strlen(names);

			if (used + 2 < size)
				snprintf(names + used, size - used, " %s", path);
			n++;
		}
	}
	if (d)
		closedir(d);
	return n;
}
