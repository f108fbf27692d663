/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A /dev/xpmem for machines that have none: runs a command whose openat() of
 * that name and whose ioctls 0x78xx come here, by seccomp user notification.
 * It keeps ids, modes and processes as a module does, and shares no memory. A
 * double for tests of the library's kernel side, and for nothing else.
 *
 *   fake-device [--noproc-first] [--noproc N] [--old-kernel] [--not-a-device] COMMAND...
 *
 *   --noproc-first   the first ioctl of a process answers errno 2004, as if its
 *                    descriptor were inherited, until the device is opened again
 *   --noproc N       every Nth does, and what the process had is gone
 *   --old-kernel     MADV_WIPEONFORK is EINVAL, process_vm_readv/writev EPERM
 *   --not-a-device   the file is there, and is an ordinary one
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOPROC 2004
#define PAGE 4096ull
#define TOP (1ull << 47)
#define LENGTH(a) (sizeof(a) / sizeof *(a))

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "not ported"
#endif

enum { VERSION = 0x7800, MAKE, REMOVE, GET, RELEASE, ATTACH, DETACH, FORK_BEGIN, FORK_END };

struct make_arg { uint64_t vaddr; uint64_t size; int32_t permit_type; uint64_t permit_value; int64_t segid; };
struct get_arg { int64_t segid; int32_t flags, permit_type; uint64_t permit_value; int64_t apid; };
struct attach_arg { int64_t apid; int64_t offset; uint64_t size; uint64_t vaddr; int32_t fd, flags; };

/* A process that has opened the device, until it ends. */
struct group { pid_t pid; int pidfd; long calls; int first; unsigned uid, gid; };
struct segment { int64_t id; struct group *owner; uint64_t vaddr, size; unsigned mode, uid, gid; int gone; };
struct permit { int64_t id; struct group *holder; struct segment *segment; };
struct attachment { uint64_t start, end; struct permit *permit; };

/* Ids of what is gone stay known, so that they stay ENOENT: nothing is freed. */
static struct group *groups[65536];
static struct segment *segments[65536];
static struct permit *permits[65536];
static struct attachment *attachments[65536];
static size_t n_groups, n_segments, n_permits, n_attachments;
static uint64_t next_place = 0x10000000000ull;
static long noproc_every;
static int noproc_first;
static int not_a_device;

static void die(const char *what)
{
	perror(what);
	exit(125);
}

static void *fresh(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		die("calloc");
	return p;
}

#define ADD(list, n, item) do { if ((n) == LENGTH(list)) die("full"); (list)[(n)++] = (item); } while (0)

/* A field of /proc/pid/status. */
static int status_of(pid_t pid, const char *format, void *value)
{
	char path[64], line[256];
	int found = 0;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (!found && fgets(line, sizeof line, f))
		found = sscanf(line, format, value) == 1;
	fclose(f);
	return found;
}

static int fetch(pid_t pid, uint64_t addr, void *to, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)addr, size };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

static int store(pid_t pid, uint64_t addr, const void *from, size_t size)
{
	struct iovec local = { (void *)from, size }, remote = { (void *)addr, size };

	return process_vm_writev(pid, &local, 1, &remote, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

static struct group *group_of(pid_t tgid)
{
	for (size_t i = 0; i < n_groups; i++)
		if (groups[i]->pid == tgid && groups[i]->pidfd >= 0)
			return groups[i];
	return NULL;
}

static void end_group(struct group *g)
{
	for (size_t i = 0; i < n_segments; i++)
		if (segments[i]->owner == g)
			segments[i]->gone = 1;
	for (size_t i = 0; i < n_permits; i++)
		if (permits[i]->holder == g)
			permits[i]->id = 0;
	close(g->pidfd);
	g->pidfd = -1;
}

/* What ends without telling us yet is gone all the same. */
static int alive(struct group *g)
{
	struct pollfd p = { g->pidfd, POLLIN, 0 };

	if (g->pidfd < 0)
		return 0;
	if (poll(&p, 1, 0) > 0) {
		end_group(g);
		return 0;
	}
	return 1;
}

static struct segment *segment_of(int64_t id)
{
	for (size_t i = 0; i < n_segments; i++)
		if (segments[i]->id == id && !segments[i]->gone && alive(segments[i]->owner))
			return segments[i];
	return NULL;
}

static struct permit *permit_of(int64_t id)
{
	for (size_t i = 0; i < n_permits; i++)
		if (permits[i]->id == id && alive(permits[i]->holder))
			return permits[i];
	return NULL;
}

static int64_t identifier(void)
{
	static uint64_t counter;

	counter++;
	return (int64_t)(counter << 20 | (counter * 0x9e37 & 0xfffff));
}

static int do_make(struct group *g, pid_t pid, uint64_t arg)
{
	struct make_arg a;
	struct segment *s;

	if (fetch(pid, arg, &a, sizeof a))
		return -EFAULT;
	if (a.permit_type != 1 || a.permit_value & ~0777ull || a.size == 0)
		return -EINVAL;
	if (a.size == UINT64_MAX) {
		if (a.vaddr)
			return -EINVAL;
		a.size = TOP;
	} else if (a.vaddr + a.size < a.vaddr || a.vaddr + a.size > TOP || a.vaddr % PAGE || a.size % PAGE) {
		return -EINVAL;
	}
	s = fresh(sizeof *s);
	*s = (struct segment){ identifier(), g, a.vaddr, a.size, a.permit_value, g->uid, g->gid, 0 };
	if (store(pid, arg + offsetof(struct make_arg, segid), &s->id, sizeof s->id)) {
		free(s);
		return -EFAULT;
	}
	ADD(segments, n_segments, s);
	return 0;
}

static int do_remove(struct group *g, pid_t pid, uint64_t arg)
{
	struct segment *s;
	int64_t id;

	if (fetch(pid, arg, &id, sizeof id))
		return -EFAULT;
	if (id <= 0)
		return -EINVAL;
	s = segment_of(id);
	if (!s)
		return -ENOENT;
	if (s->owner != g)
		return -EACCES;
	s->gone = 1;
	return 0;
}

static int do_get(struct group *g, pid_t pid, uint64_t arg)
{
	unsigned long long caps = 0;
	unsigned shift, granted, wanted;
	struct segment *s;
	struct permit *p;
	struct get_arg a;

	if (fetch(pid, arg, &a, sizeof a))
		return -EFAULT;
	if (a.segid <= 0 || (a.flags != 1 && a.flags != 2) || a.permit_type != 1 || a.permit_value)
		return -EINVAL;
	s = segment_of(a.segid);
	if (!s)
		return -ENOENT;
	shift = g->uid == s->uid ? 6 : g->gid == s->gid ? 3 : 0;
	granted = s->mode >> shift & 7;
	wanted = a.flags == 2 ? 6 : 4;
	status_of(g->pid, "CapEff: %llx", &caps);
	if ((granted & wanted) != wanted && !(caps >> 15 & 1))
		return -EACCES;
	p = fresh(sizeof *p);
	*p = (struct permit){ identifier(), g, s };
	if (store(pid, arg + offsetof(struct get_arg, apid), &p->id, sizeof p->id)) {
		free(p);
		return -EFAULT;
	}
	ADD(permits, n_permits, p);
	return 0;
}

static int do_release(struct group *g, pid_t pid, uint64_t arg)
{
	struct permit *p;
	int64_t id;

	if (fetch(pid, arg, &id, sizeof id))
		return -EFAULT;
	if (id <= 0)
		return -EINVAL;
	p = permit_of(id);
	if (!p)
		return -ENOENT;
	if (p->holder != g)
		return -EACCES;
	p->id = 0;
	return 0;
}

static int do_attach(struct group *g, pid_t pid, uint64_t arg)
{
	struct attachment *t;
	struct attach_arg a;
	struct permit *p;

	if (fetch(pid, arg, &a, sizeof a))
		return -EFAULT;
	if (a.apid <= 0 || a.vaddr % PAGE || a.offset % (int64_t)PAGE)
		return -EINVAL;
	p = permit_of(a.apid);
	if (!p)
		return -ENOENT;
	if (p->holder != g)
		return -EACCES;
	if (!segment_of(p->segment->id))
		return -ENOENT;
	if (a.size > TOP)
		return -EINVAL;
	a.size = (a.size + PAGE - 1) & -PAGE;
	if (a.offset < 0 || !a.size || (uint64_t)a.offset + a.size > p->segment->size)
		return -EINVAL;
	if (!a.vaddr) {
		a.vaddr = next_place;
		next_place += a.size + PAGE;
	}
	t = fresh(sizeof *t);
	*t = (struct attachment){ a.vaddr, a.vaddr + a.size, p };
	if (store(pid, arg + offsetof(struct attach_arg, vaddr), &a.vaddr, sizeof a.vaddr)) {
		free(t);
		return -EFAULT;
	}
	ADD(attachments, n_attachments, t);
	return 0;
}

static int do_detach(struct group *g, pid_t pid, uint64_t arg)
{
	uint64_t at;

	if (fetch(pid, arg, &at, sizeof at))
		return -EFAULT;
	for (size_t i = 0; i < n_attachments; i++) {
		struct attachment *t = attachments[i];

		if (t->permit->holder == g && at >= t->start && at < t->end)
			t->start = t->end = 0;
	}
	return 0;
}

static int do_ioctl(pid_t pid, pid_t tgid, int cmd, uint64_t arg)
{
	struct group *g = group_of(tgid);

	if (!g)
		return -NOPROC;
	g->calls++;
	if ((noproc_every && g->calls % noproc_every == 0) || (noproc_first && g->first && g->calls == 1)) {
		end_group(g);
		return -NOPROC;
	}
	switch (cmd) {
	case VERSION:
		return 0x00027004;
	case MAKE:
		return do_make(g, pid, arg);
	case REMOVE:
		return do_remove(g, pid, arg);
	case GET:
		return do_get(g, pid, arg);
	case RELEASE:
		return do_release(g, pid, arg);
	case ATTACH:
		return do_attach(g, pid, arg);
	case DETACH:
		return do_detach(g, pid, arg);
	case FORK_BEGIN:
	case FORK_END:
		return 0;
	}
	return -ENOTTY;
}

/* Puts a character device into the caller; its open() answers that number. */
static void do_open(int listener, const struct seccomp_notif *q, pid_t tgid, int flags)
{
	struct seccomp_notif_addfd add;
	struct seccomp_notif_resp resp;
	struct group *g = group_of(tgid);
	int fd = not_a_device ? memfd_create("ordinary", 0) : open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		die("/dev/null");
	if (!g) {
		g = fresh(sizeof *g);
		g->first = 1;
		for (size_t i = 0; i < n_groups; i++)
			g->first &= groups[i]->pid != tgid;
		g->pid = tgid;
		g->pidfd = syscall(SYS_pidfd_open, tgid, 0);
		/* "Uid: real effective ...": the second number. */
		status_of(tgid, "Uid: %*u %u", &g->uid);
		status_of(tgid, "Gid: %*u %u", &g->gid);
		if (g->pidfd >= 0)
			ADD(groups, n_groups, g);
	}
	memset(&add, 0, sizeof add);
	add.id = q->id;
	add.flags = SECCOMP_ADDFD_FLAG_SEND;
	add.srcfd = fd;
	add.newfd_flags = flags & O_CLOEXEC;
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) < 0 && errno != ENOENT) {
		memset(&resp, 0, sizeof resp);
		resp.id = q->id;
		resp.error = -EMFILE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &resp);
	}
	close(fd);
}

static void serve(int listener)
{
	struct seccomp_notif q;
	struct seccomp_notif_resp a;
	char path[32] = "", link[64], target[64] = "";
	pid_t tgid = 0;

	memset(&q, 0, sizeof q);
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &q))
		return;
	memset(&a, 0, sizeof a);
	a.id = q.id;
	a.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	status_of(q.pid, "Tgid: %d", &tgid);
	if (q.data.nr == SYS_openat) {
		/* Byte by byte would be exact; a path that ends at a page's end
		 * and is not ours may fail to be read, and then goes on. */
		if (!fetch(q.pid, q.data.args[1], path, sizeof "/dev/xpmem") &&
		    !memcmp(path, "/dev/xpmem", sizeof "/dev/xpmem")) {
			do_open(listener, &q, tgid, q.data.args[2]);
			return;
		}
	} else {
		snprintf(link, sizeof link, "/proc/%d/fd/%d", q.pid, (int)q.data.args[0]);
		if (readlink(link, target, sizeof target - 1) > 0 && !strcmp(target, "/dev/null")) {
			int ret = do_ioctl(q.pid, tgid, (int)q.data.args[1], q.data.args[2]);

			a.flags = 0;
			a.val = ret < 0 ? 0 : ret;
			a.error = ret < 0 ? ret : 0;
		}
	}
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &a);
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define RET(action) BPF_STMT(BPF_RET | BPF_K, action)
#define LOW(n) (offsetof(struct seccomp_data, args) + 8 * (n))

static int install(int old_kernel)
{
	struct sock_filter filter[] = {
		LOAD(arch),
		IF(ARCH, 1, 0),
		RET(SECCOMP_RET_ALLOW),
		LOAD(nr),
		IF(SYS_openat, 0, 1),
		RET(SECCOMP_RET_USER_NOTIF),
		IF(SYS_ioctl, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW(1)),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
		IF(0x7800, 0, 1),
		RET(SECCOMP_RET_USER_NOTIF),
		RET(SECCOMP_RET_ALLOW),
		/* From here on --old-kernel. */
		IF(SYS_process_vm_readv, 1, 0),
		IF(SYS_process_vm_writev, 0, 1),
		RET(SECCOMP_RET_ERRNO | EPERM),
		IF(SYS_madvise, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, LOW(2)),
		IF(MADV_WIPEONFORK, 0, 1),
		RET(SECCOMP_RET_ERRNO | EINVAL),
		RET(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { LENGTH(filter), filter };

	if (!old_kernel)
		filter[12] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		die("no_new_privs");
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void send_fd(int socket, int fd)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
				  .msg_controllen = sizeof control.bytes };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	if (sendmsg(socket, &message, 0) != 1)
		die("sendmsg");
}

static int receive_fd(int socket)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
				  .msg_controllen = sizeof control.bytes };
	struct cmsghdr *c;
	int fd = -1;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	c = CMSG_FIRSTHDR(&message);
	if (c)
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
	return fd;
}

int main(int argc, char **argv)
{
	int pair[2], listener, status = 0, i = 1, old_kernel = 0;
	pid_t pid;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--noproc") && i + 1 < argc)
			noproc_every = atol(argv[++i]);
		else if (!strcmp(argv[i], "--noproc-first"))
			noproc_first = 1;
		else if (!strcmp(argv[i], "--old-kernel"))
			old_kernel = 1;
		else if (!strcmp(argv[i], "--not-a-device"))
			not_a_device = 1;
		else
			break;
	}
	if (i >= argc || argv[i][0] == '-') {
		fprintf(stderr, "usage: %s [--noproc-first] [--noproc N] [--old-kernel] [--not-a-device] COMMAND...\n", argv[0]);
		return 2;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		close(pair[0]);
		listener = install(old_kernel);
		if (listener < 0)
			_exit(77);
		send_fd(pair[1], listener);
		close(listener);
		close(pair[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(argv[i], argv + i);
		_exit(127);
	}
	close(pair[1]);
	listener = receive_fd(pair[0]);
	if (listener < 0) {
		puts("no seccomp user notification here");
		waitpid(pid, &status, 0);
		return 77;
	}
	for (;;) {
		struct pollfd p = { listener, POLLIN, 0 };
		int n = poll(&p, 1, 200);

		if (n > 0 && p.revents & POLLIN)
			serve(listener);
		else if (n > 0 && p.revents & POLLHUP)
			break;
		else if (n == 0 && waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
