/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a user may have of what all share, and that an mm has one space. */
#include "t.h"
#include <sys/resource.h>

#define UID 1234

static int limit(const char *what, int n)
{
	char path[96], text[16];

	snprintf(path, sizeof(path), "/sys/module/xpmem/parameters/%s", what);
	snprintf(text, sizeof(text), "%d", n);
	return write_file(path, text);
}

static long r_become(long uid, long b, long c)
{
	if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		return -errno;
	dev_open();
	return 0;
}

/* How many segments, or permits for @segid, until it is refused; and how. */
static long r_take(long segid, long max, long c)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	long n, id = 0;

	for (n = 0; n < max && id >= 0; n++)
		id = segid ? x_get(segid, RD) : x_make(page, PAGE, 0666);
	return id == -ENOSPC ? n - 1 : id < 0 ? id : n;
}

static long r_reopen(long a, long b, long c)
{
	dev_open();
	return 0;
}

static void by_user(void)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	struct peer one, two, other;
	long segid = x_make(page, PAGE, 0666);

	if (getuid())
		SKIP("needs root");
	NEED(segid > 0);
	CHECK(limit("segments_per_user", 100) == 0 && limit("permits_per_user", 50) == 0);
	one = peer_start();
	two = peer_start();
	other = peer_start();
	CHECK(CALL(&one, r_become, UID, 0, 0) == 0 && CALL(&two, r_become, UID, 0, 0) == 0);
	CHECK(CALL(&other, r_become, UID + 1, 0, 0) == 0);
	/* Of all of a user's processes together, and of no one else. */
	CHECK(CALL(&one, r_take, 0, 70, 0) == 70 && CALL(&two, r_take, 0, 70, 0) == 30);
	CHECK(CALL(&one, r_take, segid, 70, 0) == 50 && CALL(&two, r_take, segid, 70, 0) == 0);
	CHECK(CALL(&other, r_take, 0, 100, 0) == 100 && CALL(&other, r_take, segid, 50, 0) == 50);
	/* root goes beyond. */
	CHECK(r_take(0, 150, 0) == 150 && r_take(segid, 60, 0) == 60);
	/* What is given back counts no more. */
	CHECK(CALL(&one, r_reopen, 0, 0, 0) == 0);
	CHECK(CALL(&two, r_take, 0, 100, 0) == 70 && CALL(&two, r_take, segid, 100, 0) == 50);
	peer_kill(&one);
	peer_kill(&two);
	peer_kill(&other);
	dev_open();
	CHECK(limit("segments_per_user", 1 << 20) == 0 && limit("permits_per_user", 1 << 20) == 0);
	CHECK(stat_settles("segments", 0) && stat_settles("permits", 0) && stat_settles("spaces", 0));
}

static void owners(void)
{
	struct peer p[3];

	if (getuid())
		SKIP("needs root");
	CHECK(limit("owners_per_user", 2) == 0);
	for (int i = 0; i < 3; i++) {
		p[i] = peer_start();
		CHECK(CALL(&p[i], r_become, UID, 0, 0) == 0);
		CHECK(CALL(&p[i], r_take, 0, 5, 0) == (i < 2 ? 5 : 0));
	}
	peer_kill(&p[0]);
	CHECK(stat_settles("spaces", 1));
	CHECK(CALL(&p[2], r_take, 0, 5, 0) == 5);
	peer_kill(&p[1]);
	peer_kill(&p[2]);
	CHECK(limit("owners_per_user", 1 << 16) == 0 && stat_settles("spaces", 0));
}

/* How many notifications ten mappings made and dropped are. */
static long churn(void)
{
	long before = stat_of("invalidations");

	for (int k = 0; k < 10; k++) {
		char *m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		m[0] = 1;
		munmap(m, 4 * PAGE);
	}
	return stat_of("invalidations") - before;
}

/* Libraries of one process may each have opened the device. */
static void two_descriptors(void)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	struct peer p = peer_start();
	long a, b, one, two, q;
	int first;

	one = x_make(page, PAGE, 0666);
	first = dev;
	dev = -1;
	dev_open();
	two = x_make(page, PAGE, 0666);
	CHECK(one > 0 && two > 0 && stat_of("spaces") == 1);
	CHECK(CALL(&p, r_map, 0x300000000000L, PAGE, 0) > 0);
	/* A permit is the process's, whichever descriptor asked for it. */
	a = x_get(one, RW);
	q = x_attach(a, 0, PAGE);
	CHECK(q == -EINVAL || q > 0);
	close(first);
	/* The first one's segment went with it, the other one's is there. */
	b = CALL(&p, x_get, one, RW, 0);
	CHECK(b == -ENOENT && CALL(&p, x_get, two, RW, 0) > 0 && stat_of("spaces") == 1);
	peer_stop(&p);
	close(dev);
	dev = -1;
	CHECK(stat_settles("segments", 0) && stat_settles("spaces", 0));
	dev_open();
}

/* What the owner's own calls cost does not depend on how many have segments. */
#define DESCRIPTORS 10000
static void many_descriptors(void)
{
	static char page[PAGE] __attribute__((aligned(4096)));
	struct rlimit files = { DESCRIPTORS + 100, DESCRIPTORS + 100 };
	static int fds[DESCRIPTORS];
	int n = DESCRIPTORS, keep = dev;
	long none = churn(), one, many;

	/* An ordinary user has what he is given. */
	if (setrlimit(RLIMIT_NOFILE, &files))
		n = 900;
	CHECK(x_make(page, PAGE, 0666) > 0);
	one = churn();
	for (int i = 0; i < n; i++) {
		fds[i] = dev = open("/dev/xpmem", O_RDWR | O_CLOEXEC);
		CHECK(dev >= 0 && x_make(page, PAGE, 0666) > 0);
	}
	dev = keep;
	CHECK(stat_of("spaces") == 1 && stat_of("segments") == n + 1);
	many = churn();
	printf("  notifications of 10 munmap(): %ld with no segment, %ld with one, %ld with %d descriptors\n",
	       none, one, many, n);
	CHECK(none == 0 && one >= 10 && many <= one + 2);
	for (int i = 0; i < n; i++)
		close(fds[i]);
	dev_open();
	CHECK(stat_settles("segments", 0) && stat_settles("spaces", 0));
}

int main(void)
{
	t_catch();
	dev_open();
	RUN(by_user);
	RUN(owners);
	RUN(two_descriptors);
	RUN(many_descriptors);
	return t_done();
}
