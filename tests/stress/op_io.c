// SPDX-License-Identifier: MIT OR Apache-2.0
// System calls write into buffers that are promoted under them.
#define _GNU_SOURCE
#include "layout.h"
#include "pattern.h"
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct stream {
	struct worker *w;
	int fd;
	uint64_t len;
	uint32_t gen;
};

// Writes the pattern in uneven pieces, so that the reader sleeps in its call in between.
static void feed(void *arg)
{
	struct stream *s = arg;
	uint64_t chunk[512], sent = 0, words = s->len / 8;

	while (sent < words) {
		size_t n = words - sent < 512 ? words - sent : 512, bytes = n * 8, at = 0;

		for (size_t i = 0; i < n; i++)
			chunk[i] = pattern_word(s->w->key, s->gen, 0, sent + i);
		while (at < bytes) {
			ssize_t did = write(s->fd, (char *)chunk + at, bytes - at);

			if (did > 0)
				at += did;
			else if (errno != EINTR)
				return;
		}
		sent += n;
		if ((sent & 2047) == 0)
			usleep(30);
	}
}

static bool take_in(struct worker *w, int fd, bool waitall, char *buf, uint64_t len)
{
	uint64_t at = 0;

	while (at < len) {
		ssize_t n = waitall ? recv(fd, buf + at, len - at, MSG_WAITALL) : read(fd, buf + at, len - at);

		if (n > 0) {
			at += n;
			continue;
		}
		if (n < 0 && errno == EINTR) {
			stat_add(&w->mb->stats.eintr, 1);
			continue;
		}
		fail_note(w->mb, errno == EFAULT ? F_EFAULT : F_OWNER_MEM, K_LIBC,
			  "%s into %p: answered %zd at %lu of %lu: %s", waitall ? "recv" : "read",
			  (void *)buf, n, at, len, strerror(errno));
		return false;
	}
	return true;
}

void op_read(struct worker *w)
{
	uint64_t at = slice_of(w->id, SLICE_BUF), len = random_pages(w, 128);
	struct stream s = { .w = w, .len = len, .gen = next_gen() };
	bool waitall = rng_one_in(&w->rng, 2), heap = rng_one_in(&w->rng, 2), ok;
	struct ask touch = { "read: touch", K_LIBC, REQ_TOUCH, s.gen, NULL, len };
	char *buf;
	int fd[2];
	struct mate *m;

	if (waitall ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) : pipe2(fd, 02000000))
		return;
	s.fd = fd[1];
	buf = heap ? malloc(len) : vm_libc.map(at, len, false) ? (char *)at : NULL;
	m = buf ? mate_start(feed, &s) : NULL;
	if (m) {
		touch.mem = (void *)((uint64_t)buf & ~7ul);
		ask_start(w, &touch);
		ok = take_in(w, fd[0], waitall, buf, len);
		if (!ok) // the feeder must not wait for us for ever
			close(fd[0]);
		ask_wait(w);
		mate_wait(m);
		if (ok) {
			stat_add(&w->mb->stats.io_bytes, len);
			publish_again(w, waitall ? "recv" : "read", heap ? K_MALLOC : K_LIBC, buf, len, s.gen, 0);
			close(fd[0]);
		}
	} else {
		close(fd[0]);
	}
	close(fd[1]);
	if (heap)
		free(buf);
	else if (buf)
		vm_libc.unmap(at, len);
}
