// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "leaks.h"

#include "../lib/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void count_zombie(int child, void *zombies)
{
	*(long *)zombies += proc_state(child) == 'Z';
}

void footprint_take(struct footprint *f)
{
	memset(f, 0, sizeof(*f));
	f->fds = proc_entries("/proc/self/fd") - 1; // the listing itself
	f->threads = proc_entries("/proc/self/task");
	f->maps = proc_lines("/proc/self/maps");
	// Resident memory that is no file's: the program's own, and the pages it shares.
	f->memory = proc_status(0, "RssAnon") + proc_status(0, "RssShmem");
	f->children = proc_children(0, count_zombie, &f->zombies);
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
