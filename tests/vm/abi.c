/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ioctl ABI and every documented errno. */
#include "t.h"

static struct peer owner;
static char *mem;		/* in both: mapped before the fork */
#define MEM (16 * PAGE)

static void version_and_unknown(void)
{
	CHECK(ioctl(dev, VERSION) == 0x27004);
	CHECK(ioctl(dev, FORK_BEGIN) == 0 && ioctl(dev, FORK_END) == 0);
	CHECK(ioctl(dev, 0x7809) == -1 && errno == ENOTTY);
	CHECK(ioctl(dev, 0x40017801) == -1 && errno == ENOTTY);
}

static void bad_pointers(void)
{
	static const int with[] = { MAKE, REMOVE, GET, RELEASE, ATTACH, DETACH };
	long segments = stat_of("segments"), permits = stat_of("permits");
	long atts = stat_of("attachments");
	long segid = x_make(mem, PAGE, 0600), apid = x_get(segid, RW);
	char *ro = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct make m = { (uint64_t)mem, PAGE, 1, 0600, 0 };
	struct get g = { segid, RW, 1, 0, 0 };
	struct attach a = { apid, 0, PAGE, 0, 0, 0 };

	for (unsigned i = 0; i < sizeof(with) / sizeof(*with); i++)
		CHECK(ioctl(dev, with[i], (void *)8) == -1 && errno == EFAULT);
	/* Readable, not writable: the answer cannot be delivered. */
	memcpy(ro, &m, sizeof(m));
	memcpy(ro + 256, &g, sizeof(g));
	memcpy(ro + 512, &a, sizeof(a));
	mprotect(ro, PAGE, PROT_READ);
	CHECK(ioctl(dev, MAKE, ro) == -1 && errno == EFAULT);
	CHECK(ioctl(dev, GET, ro + 256) == -1 && errno == EFAULT);
	CHECK(ioctl(dev, ATTACH, ro + 512) == -1 && errno == EFAULT);
	CHECK(stat_settles("segments", segments + 1));
	CHECK(stat_settles("permits", permits + 1));
	CHECK(stat_settles("attachments", atts));
	munmap(ro, PAGE);
	CHECK(x_release(apid) == 0);
	CHECK(x_remove(segid) == 0);
}

static void make_errors(void)
{
	struct make m = { (uint64_t)mem, PAGE, 2, 0600, 0 };
	long s;

	CHECK(ioctl(dev, MAKE, &m) == -1 && errno == EINVAL);
	CHECK(x_make(mem, PAGE, 01000) == -EINVAL);
	CHECK(x_make(mem, 0, 0600) == -EINVAL);
	CHECK(x_make((void *)(1UL << 62), PAGE, 0600) == -EINVAL);
	CHECK(x_make(mem, 1UL << 62, 0600) == -EINVAL);
	CHECK(x_make((void *)PAGE, MAXADDR, 0600) == -EINVAL);
	CHECK(x_make(mem + 1, PAGE, 0600) == -EINVAL);
	CHECK(x_make(mem, PAGE + 1, 0600) == -EINVAL);
	s = x_make(NULL, MAXADDR, 0600);
	CHECK(s > 0 && x_remove(s) == 0);
	/* Unmapped memory is accepted. */
	s = x_make((void *)(1UL << 40), PAGE, 0600);
	CHECK(s > 0 && x_remove(s) == 0);
}

static void remove_errors(void)
{
	long s = CALL(&owner, r_make, mem, MEM, 0666);

	CHECK(s > 0);
	CHECK(x_remove(0) == -EINVAL && x_remove(-1) == -EINVAL);
	CHECK(x_remove(12345) == -ENOENT && x_remove(s ^ (1L << 40)) == -ENOENT);
	CHECK(x_remove(s) == -EACCES);
	CHECK(CALL(&owner, r_remove, s, 0, 0) == 0);
	CHECK(CALL(&owner, r_remove, s, 0, 0) == -ENOENT);
}

static void get_errors(void)
{
	long s = CALL(&owner, r_make, mem, MEM, 0666), a;
	struct get g = { s, RW, 2, 0, 0 };

	CHECK(x_get(0, RW) == -EINVAL && x_get(-5, RW) == -EINVAL);
	CHECK(x_get(s, 0) == -EINVAL && x_get(s, 3) == -EINVAL && x_get(s, 4) == -EINVAL);
	CHECK(ioctl(dev, GET, &g) == -1 && errno == EINVAL);
	g.type = 1;
	g.value = 0666;
	CHECK(ioctl(dev, GET, &g) == -1 && errno == EINVAL);
	CHECK(x_get(s + (1L << 30), RW) == -ENOENT);
	a = x_get(s, RD);
	CHECK(a > 0 && x_release(a) == 0 && x_release(a) == -ENOENT);
	CHECK(x_release(0) == -EINVAL && x_release(-1) == -EINVAL && x_release(77) == -ENOENT);
	CHECK(CALL(&owner, r_remove, s, 0, 0) == 0);
	CHECK(x_get(s, RW) == -ENOENT);
}

static void attach_errors(void)
{
	long s = CALL(&owner, r_make, mem, MEM, 0666), a = x_get(s, RW), p, q;
	long own = x_make(mem, MEM, 0600), self = x_get(own, RW);

	CHECK(x_attach(0, 0, PAGE) == -EINVAL && x_attach(-3, 0, PAGE) == -EINVAL);
	CHECK(x_attach(a, 1, PAGE) == -EINVAL);
	CHECK(x_attach_at(a, 0, PAGE, (void *)123) == -EINVAL);
	CHECK(x_attach(a + (1L << 33), 0, PAGE) == -ENOENT);
	CHECK(x_attach(a, -(long)PAGE, PAGE) == -EINVAL);
	CHECK(x_attach(a, 0, 0) == -EINVAL);
	CHECK(x_attach(a, 0, MEM + 1) == -EINVAL);
	CHECK(x_attach(a, PAGE, MEM) == -EINVAL);
	CHECK(x_attach(a, MEM, PAGE) == -EINVAL);
	CHECK(x_attach(a, 0, (size_t)-1) == -EINVAL);
	CHECK(x_attach_at(a, 0, PAGE, (void *)(1UL << 62)) == -ENOMEM);
	/* Rounded up, and the last byte is there. */
	p = x_attach(a, 0, MEM - PAGE + 1);
	CHECK(p > 0 && rd((char *)p + MEM - 8, NULL) == 0);
	CHECK(x_attach_at(a, 0, PAGE, (void *)(p + PAGE)) == -EINVAL);
	CHECK(x_attach_at(self, 0, PAGE, mem) == -EINVAL);
	CHECK(x_attach_at(self, MEM - PAGE, PAGE, mem + MEM - PAGE) == -EINVAL);
	/* A fixed address otherwise replaces what is there. */
	q = (long)mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*(long *)q = 1;
	CALL(&owner, r_put, mem, 42, 0);
	CHECK(x_attach_at(a, 0, PAGE, (void *)q) == q && val((void *)q) == 42);
	CHECK(x_detach(q) == 0 && rd((void *)q, NULL) == SIGSEGV);
	munmap((void *)q, MEM);
	CHECK(x_detach(p) == 0);
	p = x_attach(a, 0, PAGE);
	CHECK(CALL(&owner, r_remove, s, 0, 0) == 0);
	CHECK(x_attach(a, 0, PAGE) == -ENOENT);
	CHECK(rd((void *)p, NULL) == SIGBUS);
	CHECK(x_detach(p) == 0 && x_release(a) == 0);
	CHECK(x_release(self) == 0 && x_remove(own) == 0);
}

static void detach_rules(void)
{
	long s = CALL(&owner, r_make, mem, MEM, 0666), a = x_get(s, RW), p;
	char *plain = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(x_detach(NULL) == 0);
	CHECK(x_detach(~0UL) == 0);
	CHECK(x_detach(plain) == -EINVAL);
	p = x_attach(a, 0, MEM);
	CHECK(x_detach(p + 5 * PAGE + 17) == 0);
	CHECK(rd((void *)p, NULL) == SIGSEGV && rd((void *)(p + MEM - 8), NULL) == SIGSEGV);
	CHECK(x_detach(p) == 0);
	p = x_attach(a, 0, MEM);
	CHECK(x_release(a) == 0 && rd((void *)p, NULL) == SIGSEGV);
	CALL(&owner, r_remove, s, 0, 0);
	munmap(plain, PAGE);
}

/* A child on the parent's descriptor. */
static void fork_child(void)
{
	long s = x_make(mem, MEM, 0666), a = x_get(s, RW), p = x_attach(a, 0, MEM);
	int status;
	pid_t pid = fork();

	if (!pid) {
		int bad = 0;

		bad |= (x_make(mem, PAGE, 0600) != -NOPROC) << 0;
		bad |= (x_get(s, RW) != -NOPROC) << 1;
		bad |= (x_attach(a, 0, PAGE) != -EACCES) << 2;
		bad |= (x_release(a) != -EACCES) << 3;
		bad |= (x_remove(s) != -EACCES) << 4;
		/* No attachment of the parent's. */
		bad |= (rd((void *)p, NULL) != SIGSEGV) << 5;
		dev = -1;
		dev_open();
		long s2 = x_make(mem, PAGE, 0600), a2 = x_get(s, RW);
		bad |= (s2 <= 0 || a2 <= 0) << 6;
		long p2 = x_attach(a2, 0, PAGE);
		bad |= (p2 <= 0 || rd((void *)p2, NULL)) << 7;
		_exit(bad);
	}
	waitpid(pid, &status, 0);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	if (WEXITSTATUS(status))
		printf("  child: 0x%x\n", WEXITSTATUS(status));
	CHECK(rd((void *)p, NULL) == 0);
	CHECK(x_release(a) == 0 && x_remove(s) == 0);
}

static long r_setid(long uid, long gid, long c)
{
	if (syscall(SYS_setgroups, 0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return -errno;
	dev_open();
	return 0;
}
static long r_userns(long a, long b, long c)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWIPC) ? -errno : 0;
}
static long r_get(long segid, long flags, long c)
{
	long a = x_get(segid, flags);

	return a > 0 ? x_release(a) : a;
}

static void permissions(void)
{
	struct peer mine, same, group, other, ns;
	long s600, s640, s666, s066, s444, segs;

	if (getuid())
		SKIP("needs root");
	segs = stat_of("segments");
	mine = peer_start(); same = peer_start(); group = peer_start();
	other = peer_start(); ns = peer_start();
	NEED(CALL(&mine, r_setid, 1000, 1000, 0) == 0);
	NEED(CALL(&same, r_setid, 1000, 2000, 0) == 0);
	NEED(CALL(&group, r_setid, 1001, 1000, 0) == 0);
	NEED(CALL(&other, r_setid, 1002, 1002, 0) == 0);
	NEED(CALL(&ns, r_setid, 1002, 1002, 0) == 0);
	s600 = CALL(&mine, r_make, mem, MEM, 0600);
	s640 = CALL(&mine, r_make, mem, MEM, 0640);
	s666 = CALL(&mine, r_make, mem, MEM, 0666);
	s066 = CALL(&mine, r_make, mem, MEM, 0066);
	s444 = CALL(&mine, r_make, mem, MEM, 0444);
	CHECK(CALL(&same, r_get, s600, RW, 0) == 0);
	CHECK(CALL(&group, r_get, s600, RD, 0) == -EACCES);
	CHECK(CALL(&other, r_get, s600, RD, 0) == -EACCES);
	CHECK(CALL(&group, r_get, s640, RD, 0) == 0);
	CHECK(CALL(&group, r_get, s640, RW, 0) == -EACCES);
	CHECK(CALL(&other, r_get, s640, RD, 0) == -EACCES);
	CHECK(CALL(&other, r_get, s666, RW, 0) == 0);
	CHECK(CALL(&same, r_get, s066, RD, 0) == -EACCES);
	CHECK(CALL(&other, r_get, s444, RD, 0) == 0);
	CHECK(CALL(&other, r_get, s444, RW, 0) == -EACCES);
	/* CAP_IPC_OWNER passes; not one of the caller's own making. */
	CHECK(r_get(s600, RW, 0) == 0);
	if (CALL(&ns, r_userns, 0, 0, 0) == 0)
		CHECK(CALL(&ns, r_get, s600, RD, 0) == -EACCES);
	peer_stop(&mine); peer_stop(&same); peer_stop(&group);
	peer_stop(&other); peer_stop(&ns);
	CHECK(stat_settles("segments", segs));
}

static void owner_gone(void)
{
	struct peer o = peer_start();
	long s = CALL(&o, r_make, mem, MEM, 0666), a = x_get(s, RW);
	long p = x_attach(a, 0, MEM), b;

	CALL(&o, r_put, mem, 7, 0);
	CHECK(val((void *)p) == 7);
	peer_kill(&o);
	CHECK(rd((void *)p, NULL) == SIGBUS);
	CHECK(x_get(s, RW) == -ENOENT && x_remove(s) == -ENOENT);
	b = x_attach(a, 0, PAGE);
	CHECK(b == -ENOENT);
	CHECK(x_detach(p) == 0 && x_release(a) == 0);
}

static void read_only_permit(void)
{
	long s = CALL(&owner, r_make, mem, MEM, 0666), a = x_get(s, RD), p;

	CALL(&owner, r_put, mem, 5, 0);
	p = x_attach(a, 0, MEM);
	CHECK(p > 0 && val((void *)p) == 5);
	CHECK(wr((void *)p, 6) == SIGSEGV);
	CHECK(mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
	CHECK(mprotect((void *)p, PAGE, PROT_READ | PROT_EXEC) == -1 && errno == EACCES);
	CHECK(CALL(&owner, r_val, mem, 0, 0) == 5);
	CHECK(x_release(a) == 0);
	CALL(&owner, r_remove, s, 0, 0);
}

/* exec closes everything, even where O_CLOEXEC was forgotten. */
static void exec_closes(void)
{
	long segs = stat_of("segments");
	pid_t pid = fork();

	if (!pid) {
		dev_open();
		fcntl(dev, F_SETFD, 0);
		if (x_make(mem, MEM, 0666) < 0)
			_exit(1);
		char *args[] = { "sh", "-c", "sleep 1", NULL };
		execv("/bin/sh", args);
		_exit(1);
	}
	usleep(400000);
	waitpid(pid, NULL, 0);
	CHECK(stat_settles("segments", segs));
}

static void two_descriptors(void)
{
	int first = dev, second;
	long s = x_make(mem, MEM, 0600), a, p;

	dev = -1;
	dev_open();
	second = dev;
	a = x_get(s, RW);
	CHECK(a > 0);
	dev = first;
	p = x_attach(a, 0, PAGE);
	CHECK(p > 0 && wr((void *)p, 9) == 0);
	dev = second;
	CHECK(x_remove(s) == 0 && rd((void *)p, NULL) == SIGBUS);
	close(second);
	/* The permit's descriptor went: so did its attachment. */
	CHECK(rd((void *)p, NULL) == SIGSEGV);
	dev = first;
	CHECK(x_release(a) == -ENOENT);
}

static void ids_not_guessable(void)
{
	long a = x_make(mem, PAGE, 0600), b = x_make(mem, PAGE, 0600);
	int hits = 0;

	CHECK(a != b && (a >> 24) != (b >> 24));
	for (long i = 1; i < 100000; i++)
		hits += x_get(i, RD) > 0;
	CHECK(hits == 0);
	x_remove(a);
	x_remove(b);
}

int main(void)
{
	t_catch();
	mem = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(mem, 0, MEM);
	dev_open();
	owner = peer_start();
	RUN(version_and_unknown);
	RUN(bad_pointers);
	RUN(make_errors);
	RUN(remove_errors);
	RUN(get_errors);
	RUN(attach_errors);
	RUN(detach_rules);
	RUN(fork_child);
	RUN(permissions);
	RUN(owner_gone);
	RUN(read_only_permit);
	RUN(exec_closes);
	RUN(two_descriptors);
	RUN(ids_not_guessable);
	peer_stop(&owner);
	return t_done();
}
