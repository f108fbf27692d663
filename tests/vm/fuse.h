/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A file server that does not answer, spoken to over /dev/fuse. */
#ifndef FUSE_H
#define FUSE_H

#include "t.h"
#include <poll.h>
#include <sys/mount.h>
#include <linux/fuse.h>

#define PAGES 16L
#define FILE_SIZE (PAGES * PAGE)

/* A server of one file, which answers READ only when told to. */
struct server { int fd, go[2]; pid_t pid; char path[32]; };

static inline void answer(int fd, uint64_t unique, int error, const void *data, size_t size)
{
	struct { struct fuse_out_header h; char data[FILE_SIZE]; } out = {
		.h = { sizeof(out.h) + size, error, unique },
	};

	if (size)
		memcpy(out.data, data, size);
	if (write(fd, &out, out.h.len) < 0) {}
}

static inline void serve(struct server *s)
{
	static char in[1 << 17], page[FILE_SIZE];
	struct fuse_in_header *h = (void *)in;
	struct { uint64_t unique; uint32_t size; } held[64];
	int n = 0, answering = 0;

	for (long i = 0; i < PAGES; i++)
		*(long *)(page + i * PAGE) = 4000 + i;
	for (;;) {
		struct pollfd p[2] = { { s->fd, POLLIN }, { answering ? -1 : s->go[0], POLLIN } };

		if (poll(p, 2, -1) < 0)
			_exit(1);
		if (p[1].revents) {
			answering = 1;
			while (n-- > 0)
				answer(s->fd, held[n].unique, 0, page, held[n].size);
			n = 0;
		}
		if (!p[0].revents)
			continue;
		if (read(s->fd, in, sizeof(in)) < (ssize_t)sizeof(*h)) {
			if (errno == ENODEV)
				_exit(0);
			continue;
		}
		switch (h->opcode) {
		case FUSE_INIT: {
			/*
			 * Reads ahead wait for nobody; what is read otherwise,
			 * the kernel waits for whoever is killed.
			 */
			struct fuse_init_out o = { .major = 7, .minor = 31, .max_write = 4096,
				.max_readahead = 1 << 16, .flags = FUSE_ASYNC_READ };

			answer(s->fd, h->unique, 0, &o, sizeof(o));
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out o = { .attr_valid = 3600, .attr = { .ino = 1,
				.size = FILE_SIZE, .blocks = 8 * PAGES, .mode = S_IFREG | 0666,
				.nlink = 1, .blksize = 4096 } };

			answer(s->fd, h->unique, 0, &o, sizeof(o));
			break;
		}
		case FUSE_OPEN: {
			struct fuse_open_out o = { .fh = 1 };

			answer(s->fd, h->unique, 0, &o, sizeof(o));
			break;
		}
		case FUSE_READ: {
			struct fuse_read_in *r = (void *)(h + 1);

			/* The whole file is read at a time, or what of it is asked for. */
			if (answering)
				answer(s->fd, h->unique, 0, page + r->offset, r->size < FILE_SIZE - r->offset ?
				       r->size : FILE_SIZE - r->offset);
			else if (n < 64 && !r->offset)
				held[n++] = (typeof(held[0])){ h->unique,
					r->size < FILE_SIZE ? r->size : FILE_SIZE };
			break;
		}
		case FUSE_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(s->fd, h->unique, h->opcode == FUSE_FLUSH || h->opcode == FUSE_RELEASE ?
			       0 : -ENOSYS, NULL, 0);
		}
	}
}

static inline int server_start(struct server *s)
{
	static int count;
	char options[128];
	int fd;

	snprintf(s->path, sizeof(s->path), "/tmp/fuse%d", count++);
	fd = open(s->path, O_CREAT | O_RDWR, 0666);
	close(fd);
	s->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (s->fd < 0 || pipe(s->go))
		return -1;
	snprintf(options, sizeof(options), "fd=%d,rootmode=100666,user_id=0,group_id=0,allow_other", s->fd);
	if (mount("t", s->path, "fuse", 0, options))
		return -1;
	fflush(stdout);
	s->pid = fork();
	if (!s->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(s);
	}
	close(s->fd);
	return 0;
}

static inline void server_stop(struct server *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	umount2(s->path, MNT_DETACH);
	close(s->go[0]);
	close(s->go[1]);
}

/* For peers: maps the server's file. */
static inline long r_file(long path, long addr, long c)
{
	int fd = open((char *)path, O_RDWR);
	struct stat st;
	/* Until somebody asks, the kernel takes the file for empty. */
	long ok = fd >= 0 && !fstat(fd, &st) && st.st_size == FILE_SIZE &&
		  mmap((void *)addr, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == (void *)addr;

	close(fd);
	return ok ? 0 : -errno;
}

#endif
