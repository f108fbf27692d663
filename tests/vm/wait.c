/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Whoever waits waits alone: for a file server that does not answer (spoken to
 * over /dev/fuse), for memory that is being changed. Nothing else of the
 * attacher or the owner waits with it, and SIGKILL ends it.
 */
#include "t.h"
#include <poll.h>
#include <sys/mount.h>
#include <linux/fuse.h>

static struct peer owner;
static long segid, apid;

#define BASE 0x200000000000L
#define PAGES 16L
#define FILE_SIZE (PAGES * PAGE)

/* A server of one file, which answers READ only when told to. */
struct server { int fd, go[2]; pid_t pid; char path[32]; };

static void answer(int fd, uint64_t unique, int error, const void *data, size_t size)
{
	struct { struct fuse_out_header h; char data[FILE_SIZE]; } out = {
		.h = { sizeof(out.h) + size, error, unique },
	};

	if (size)
		memcpy(out.data, data, size);
	if (write(fd, &out, out.h.len) < 0) {}
}

static void serve(struct server *s)
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

static int server_start(struct server *s)
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

static void server_stop(struct server *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	umount2(s->path, MNT_DETACH);
	close(s->go[0]);
	close(s->go[1]);
}

static long r_file(long path, long addr, long c)
{
	int fd = open((char *)path, O_RDWR);
	struct stat st;
	/* Until somebody asks, the kernel takes the file for empty. */
	long ok = fd >= 0 && !fstat(fd, &st) && st.st_size == FILE_SIZE && mmap((void *)addr, FILE_SIZE, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_FIXED, fd, 0) == (void *)addr;

	close(fd);
	return ok ? 0 : -errno;
}

/* An attacher with two threads: one touches, one goes on mapping. */
static volatile long *turns, *value;
static void *mapper(void *arg)
{
	for (;;) {
		void *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(p, PAGE);
		++*turns;
		usleep(1000);
	}
	return NULL;
}

static long r_mapper(long a, long b, long c)
{
	pthread_t t;

	return pthread_create(&t, NULL, mapper, NULL);
}

/* With a path, one that maps the file itself: the measure of the others. */
static pid_t attacher_start(const char *path)
{
	pid_t pid;

	*turns = *value = 0;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		long a, p;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dev = -1;
		dev_open();
		if (path) {
			p = BASE;
			if (r_file((long)path, p, 0))
				_exit(1);
		} else {
			a = x_get(segid, RW);
			p = x_attach(a, BASE, FILE_SIZE);
		}
		r_mapper(0, 0, 0);
		*value = val((void *)p);
		pause();
	}
	return pid;
}

/* A thing that would hang is left to a child. */
static int readable(pid_t pid, const char *what)
{
	int status = -1, i;
	pid_t child = fork();

	if (!child) {
		char path[64], buf[4096];
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
		fd = open(path, O_RDONLY);
		_exit(fd < 0 || read(fd, buf, sizeof(buf)) < 0);
	}
	for (i = 0; i < 1000 && waitpid(child, &status, WNOHANG) != child; i++)
		usleep(10000);
	if (i == 1000)
		kill(child, SIGKILL);
	return i < 1000 && status == 0;
}

static int ends(pid_t pid)
{
	for (int i = 0; i < 1000; i++) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return 1;
		usleep(10000);
	}
	return 0;
}

static int goes_on(void)
{
	long had = *turns;

	for (int i = 0; i < 1000; i++) {
		if (*turns > had + 10)
			return 1;
		usleep(10000);
	}
	return 0;
}

static void server_without_answer(void)
{
	struct server s;
	pid_t pid;

	if (getuid() || access("/dev/fuse", W_OK))
		SKIP("no FUSE, or not root");
	for (int who = 0; who < 5; who++) {
		NEED(server_start(&s) == 0);
		struct peer o = peer_start();
		NEED(CALL(&o, r_file, s.path, BASE, 0) == 0);
		segid = CALL(&o, r_make, 0, MAXADDR, 0666);
		NEED(segid > 0);
		pid = attacher_start(who == 4 ? s.path : NULL);
		for (int i = 0; i < 500 && !*turns; i++)
			usleep(10000);
		usleep(300000);
		CHECK(*value == 0 && goes_on());
		CHECK(readable(pid, "cmdline") && readable(pid, "maps") && readable(pid, "status"));
		CHECK(readable(o.pid, "cmdline") && readable(o.pid, "maps"));
		/* The owner's mmap goes on. */
		CHECK(CALL(&o, r_map, 0, 16 * PAGE, 0) > 0);
		switch (who) {
		case 0:	/* The attacher is killed. */
		case 4:
			kill(pid, SIGKILL);
			CHECK(ends(pid));
			break;
		case 1:	/* The owner is killed: it ends; and so does the attacher. */
			kill(o.pid, SIGKILL);
			CHECK(ends(o.pid));
			kill(pid, SIGKILL);
			CHECK(ends(pid));
			break;
		case 2:	/* The server answers: so it was no more than a wait. */
			CHECK(write(s.go[1], "x", 1) == 1);
			for (int i = 0; i < 1000 && !*value; i++)
				usleep(10000);
			CHECK(*value == 4000);
			kill(pid, SIGKILL);
			CHECK(ends(pid));
			break;
		case 3:	/* The server dies: an error, as if the file were mapped. */
			kill(s.pid, SIGKILL);
			for (int i = 0; i < 1000 && !*value; i++)
				usleep(10000);
			CHECK(*value == BAD);
			kill(pid, SIGKILL);
			CHECK(ends(pid));
		}
		server_stop(&s);
		peer_kill(&o);
	}
}

/* The owner changes other memory all the time: a fault does not wait for it. */
#define OTHER (64L << 20)
static volatile int churning;
static void *churn(void *arg)
{
	char *m = arg;

	while (churning) {
		for (long i = 0; i < OTHER; i += PAGE)
			*(volatile char *)(m + i) = 1;
		madvise(m, OTHER, MADV_FREE);
		madvise(m, OTHER, MADV_DONTNEED);
	}
	return NULL;
}
static long r_churn(long on, long b, long c)
{
	static pthread_t t;

	if (on) {
		void *m = mmap(NULL, OTHER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		madvise(m, OTHER, MADV_NOHUGEPAGE);
		churning = 1;
		return pthread_create(&t, NULL, churn, m);
	}
	churning = 0;
	return pthread_join(t, NULL);
}

#define ROUNDS 400
static void unrelated_changes(void)
{
	long waited, again, changed;

	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 1);
	CALL(&owner, r_churn, 1, 0, 0);
	usleep(100000);
	waited = stat_of("faults_waited");
	again = stat_of("faults_again");
	changed = stat_of("invalidations");
	for (int i = 0; i < ROUNDS || stat_of("invalidations") < changed + 4; i++) {
		char *p = (char *)x_attach(apid, BASE + (i % 16) * PAGE, PAGE);

		CHECK(val(p) == 1 + i % 16);
		x_detach(p);
		usleep(2000);
	}
	waited = stat_of("faults_waited") - waited;
	again = stat_of("faults_again") - again;
	changed = stat_of("invalidations") - changed;
	CALL(&owner, r_churn, 0, 0, 0);
	printf("  %d faults and more, %ld changes of other memory meanwhile: waited %ld times, looked again %ld times\n",
	       ROUNDS, changed, waited, again);
	/*
	 * Counted, not timed: a virtual processor may be away for long. Some come again
	 * because the owner's mmap_lock was taken at that moment.
	 */
	CHECK(changed > 3 && waited == 0 && again <= ROUNDS / 4);
	CALL(&owner, r_unmap, BASE, 16 * PAGE, 0);
}

/* Many threads at once, the memory itself among what is changed: never stale. */
static volatile int storming;
static void *storm(void *arg)
{
	long i = (long)arg;

	while (storming) {
		madvise((void *)(BASE + (i % 64) * PAGE), PAGE, MADV_DONTNEED);
		i = i * 5 + 1;
	}
	return NULL;
}
static pthread_t storm_threads[40];
static long r_storm(long on, long threads, long c)
{
	storming = on;
	for (long i = 0; i < threads; i++)
		if (on)
			pthread_create(&storm_threads[i], NULL, storm, (void *)i);
		else
			pthread_join(storm_threads[i], NULL);
	return 0;
}

/* More changes at a time than the module keeps apart, and then none: all in order. */
static void many_changes_at_once(void)
{
	char *p;

	CALL(&owner, r_map, BASE, 64 * PAGE, 0);
	p = (char *)x_attach(apid, BASE, 64 * PAGE);
	CALL(&owner, r_storm, 1, 40, 0);
	for (long k = 0; k < 20000; k++)
		CHECK(wr(p + k % 64 * PAGE, k) == 0);
	CALL(&owner, r_storm, 0, 40, 0);
	for (long k = 0; k < 64; k++) {
		CHECK(wr(p + k * PAGE, 900 + k) == 0);
		CHECK(CALL(&owner, r_val, BASE + k * PAGE, 0, 0) == 900 + k);
		CALL(&owner, r_put, BASE + k * PAGE, 700 + k, 0);
		CHECK(val(p + k * PAGE) == 700 + k);
	}
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, 64 * PAGE, 0);
}

/* An owner that puts the same content in place of its memory has its peers wait. */
enum { HOLD = 0x7810 };
static long x_hold(long on) { return x_one(HOLD, on); }
static long r_hold(long on, long b, long c) { return x_hold(on); }
static int other_fd;
static long r_hold_by(long open_it, long b, long c)
{
	int64_t one = 1;

	if (!open_it)
		return close(other_fd);
	other_fd = open("/dev/xpmem", O_RDWR | O_CLOEXEC);
	return ioctl(other_fd, HOLD, &one) ? -errno : 0;
}
static volatile long seen;
static void *look(void *arg)
{
	seen = val(arg);
	return NULL;
}
static void held_once(char *p, long page, long value, int by_close)
{
	pthread_t t;

	seen = -1;
	CHECK((by_close ? CALL(&owner, r_hold_by, 1, 0, 0) : CALL(&owner, r_hold, 1, 0, 0)) == 0);
	CALL(&owner, r_unmap, BASE + page * PAGE, PAGE, 0);
	pthread_create(&t, NULL, look, p + page * PAGE);
	usleep(50000);
	CHECK(seen == -1);
	CALL(&owner, r_map, BASE + page * PAGE, PAGE, 0);
	CALL(&owner, r_put, BASE + page * PAGE, value, 0);
	usleep(50000);
	CHECK(seen == -1);
	CHECK((by_close ? CALL(&owner, r_hold_by, 0, 0, 0) : CALL(&owner, r_hold, 0, 0, 0)) == 0);
	pthread_join(t, NULL);
	CHECK(seen == value);
}

static void held(void)
{
	char *p, *q;
	pid_t pid;

	CHECK(x_hold(2) == -EINVAL && x_hold(-1) == -EINVAL && x_hold(0) == 0);
	CHECK(ioctl(dev, HOLD, (void *)8) == -1 && errno == EFAULT);
	CALL(&owner, r_map, BASE, 16 * PAGE, 0);
	CALL(&owner, r_fill, BASE, 16, 100);
	p = (char *)x_attach(apid, BASE, 16 * PAGE);
	q = (char *)x_attach(apid, BASE, 16 * PAGE);
	CHECK(val(q) == 100);
	for (int i = 0; i < 8; i++)
		held_once(p, i, 1000 + i, i & 1);
	/* Twice is once; what is mapped already goes on, and so do those who are killed. */
	CHECK(CALL(&owner, r_hold, 1, 0, 0) == 0 && CALL(&owner, r_hold, 1, 0, 0) == 0);
	CHECK(val(q + 9 * PAGE) == 109);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dev_open();
		char *mine = (char *)x_attach(x_get(segid, RW), BASE, 16 * PAGE);

		rd(mine, NULL);
		_exit(1);
	}
	usleep(100000);
	kill(pid, SIGKILL);
	CHECK(ends(pid));
	CHECK(CALL(&owner, r_hold, 0, 0, 0) == 0);
	CHECK(val(p + 15 * PAGE) == 115);
	/* What is gone after it is gone. */
	CHECK(CALL(&owner, r_hold, 1, 0, 0) == 0);
	CALL(&owner, r_unmap, BASE, 16 * PAGE, 0);
	CHECK(CALL(&owner, r_hold, 0, 0, 0) == 0);
	CHECK(rd(p, NULL) == SIGBUS);
	CHECK(x_detach(p) == 0 && x_detach(q) == 0);
}

int main(void)
{
	t_catch();
	turns = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	value = turns + 1;
	dev_open();
	owner = peer_start();
	RUN(server_without_answer);
	segid = CALL(&owner, r_make, 0, MAXADDR, 0666);
	apid = x_get(segid, RW);
	RUN(unrelated_changes);
	RUN(many_changes_at_once);
	RUN(held);
	x_release(apid);
	peer_stop(&owner);
	return t_done();
}
