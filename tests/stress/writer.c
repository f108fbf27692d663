// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "writer.h"

#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

// So many pages a call: each is a piece of its own.
#define PIECES 16
#define PATIENCE_US 20000000

static pid_t writer;

bool writer_is_there(void)
{
	return writer > 0;
}

void writer_start(struct mailbox *mb, int mailbox_fd)
{
	char box[16];
	char *argv[] = { "stress", "--plain", "--role", "writer", "--mailbox", box, NULL };
	pid_t parent = getpid();

	snprintf(box, sizeof(box), "%d", mailbox_fd);
	atomic_store(&mb->writer.quit, 0);
	atomic_store(&mb->writer.stop, 0);
	atomic_store(&mb->writer.done, atomic_load(&mb->writer.wanted));
	atomic_store(&mb->writer.epoch, atomic_load(&mb->owner.epoch));
	writer = fork();
	if (writer == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		fcntl(mailbox_fd, F_SETFD, 0);
		unsetenv("LD_PRELOAD");
		execv("/proc/self/exe", argv);
		_exit(127);
	}
}

void writer_end(struct mailbox *mb)
{
	if (writer <= 0)
		return;
	atomic_store(&mb->writer.quit, 1);
	atomic_fetch_add(&mb->writer.wanted, 1);
	futex_wake_all(&mb->writer.wanted);
	while (waitpid(writer, NULL, 0) < 0 && errno == EINTR)
		;
}

// One call, or as many as it takes: what another process writes may be refused for the
// moment in which a page changes its place.
static bool write_whole(struct mailbox *mb, pid_t pid, const char *from, uint64_t to, uint64_t len)
{
	uint64_t start = now_us();

	for (uint64_t at = 0; at < len;) {
		struct iovec local = { (void *)(from + at), 0 }, remote[PIECES];
		unsigned n = 0;
		ssize_t did;

		for (; n < PIECES && at + local.iov_len < len; n++) {
			uint64_t here = to + at + local.iov_len, room = PAGE - here % PAGE;
			uint64_t rest = len - at - local.iov_len;

			remote[n] = (struct iovec){ (void *)here, room < rest ? room : rest };
			local.iov_len += remote[n].iov_len;
		}
		did = process_vm_writev(pid, &local, 1, remote, n, 0);
		if (did > 0) {
			at += did;
			continue;
		}
		if (errno != EFAULT || now_us() - start > PATIENCE_US)
			return false;
		stat_add(&mb->stats.refused, 1);
		sched_yield();
	}
	return true;
}

static void serve(struct mailbox *mb, pid_t owner, uint64_t *text)
{
	struct writer_box *box = &mb->writer;

	box->error = 0;
	for (uint32_t i = 0; i < box->rounds && (!i || !atomic_load(&box->stop)); i++) {
		pattern_fill(text, box->len / 8, box->key, box->first + i);
		if (!write_whole(mb, owner, (char *)text, box->addr, box->len)) {
			box->error = errno;
			break;
		}
		atomic_store(&box->gen, box->first + i);
	}
}

int writer_main(struct mailbox *mb)
{
	struct writer_box *box = &mb->writer;
	uint32_t epoch = atomic_load(&box->epoch), last = atomic_load(&box->done);
	uint64_t *text = malloc(1 << 20);
	pid_t owner = getppid();

	while (text && !atomic_load(&box->quit) && atomic_load(&box->epoch) == epoch && getppid() == owner) {
		uint32_t wanted = atomic_load(&box->wanted);

		if (wanted == last) {
			futex_wait_ms(&box->wanted, wanted, 1000);
			continue;
		}
		if (atomic_load(&box->quit))
			break;
		last = wanted;
		serve(mb, owner, text);
		atomic_store(&box->done, wanted);
		futex_wake_all(&box->done);
	}
	return 0;
}
