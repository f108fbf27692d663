/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Each row of the ABI's errno table. */
#include "harness.h"

#include <pthread.h>

#define MODE XPMEM_PERMIT_MODE
#define UNKNOWN 0x7123456789abcdefl
#define FAR ((void *)(1ul << 62))

static long f_remove(long segid, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return api->remove(segid);
}

static long f_make(long vaddr, long size, long mode, long d)
{
	(void)d;
	return api->make((void *)vaddr, size, MODE, (void *)mode);
}

CASE(version, "xpmem_version answers at least 2.6, xpmem_init 0")
{
	EXPECT(api->version() >= 0x00026000);
	EXPECT_EQ(api->init(), 0);
	EXPECT_EQ(api->init(), 0);
}

CASE(errno_untouched, "a call that succeeds leaves errno alone")
{
	long segid, apid;
	void *p = anonymous(PAGE);

	errno = 4711;
	api->version();
	segid = make_range(p, PAGE);
	EXPECT_EQ(errno, 4711);
	apid = get_rw(segid);
	EXPECT_EQ(api->detach(NULL), 0);
	EXPECT_EQ(api->release(apid), 0);
	EXPECT_EQ(api->remove(segid), 0);
	EXPECT_EQ(errno, 4711);
}

CASE(make_arguments, "EINVAL for each wrong argument of make")
{
	void *p = anonymous(4 * PAGE);

	EXPECT_ERR(api->make(p, PAGE, 0, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, PAGE, 2, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, PAGE, -1, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, PAGE, MODE, (void *)01000), EINVAL);
	EXPECT_ERR(api->make(p, PAGE, MODE, (void *)-1l), EINVAL);
	EXPECT_ERR(api->make(p, 0, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(NULL, 0, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make((char *)p + 1, PAGE, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make((char *)p + 2048, 2 * PAGE, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, 1, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, PAGE + 8, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, XPMEM_MAXADDR_SIZE, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(FAR, PAGE, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make((void *)-PAGE, 2 * PAGE, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, 1ul << 62, MODE, (void *)0600), EINVAL);
	EXPECT_ERR(api->make(p, -PAGE, MODE, (void *)0600), EINVAL);
}

CASE(make_accepts, "any mapped or unmapped page range, and the whole address space")
{
	void *p = anonymous(4 * PAGE);
	long a = make_range(p, 4 * PAGE), b, c;

	munmap(p, 4 * PAGE);
	b = make_range(p, 2 * PAGE);
	c = make_all();
	EXPECT(a != b && b != c && a != c);
	EXPECT(api->make(p, PAGE, MODE, (void *)0) > 0);
	EXPECT(api->make(p, PAGE, MODE, (void *)0777) > 0);
	EXPECT_EQ(api->remove(a), 0);
	EXPECT_EQ(api->remove(b), 0);
	EXPECT_EQ(api->remove(c), 0);
}

CASE(remove_errors, "EINVAL, ENOENT, and a second remove is ENOENT")
{
	long segid = make_all();

	EXPECT_ERR(api->remove(0), EINVAL);
	EXPECT_ERR(api->remove(-1), EINVAL);
	EXPECT_ERR(api->remove(INT64_MIN), EINVAL);
	EXPECT_ERR(api->remove(UNKNOWN), ENOENT);
	EXPECT_EQ(api->remove(segid), 0);
	EXPECT_ERR(api->remove(segid), ENOENT);
}

CASE(remove_foreign, "only the owner may remove: EACCES, and nothing happens")
{
	struct peer p = spawn();
	long segid = make_all();

	EXPECT_ERR(call(&p, f_remove, segid, 0, 0), EACCES);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	quit(&p);
	EXPECT_EQ(api->remove(segid), 0);
}

CASE(remove_owner_gone, "ENOENT once the owner has exited")
{
	struct peer p = spawn();
	long segid = call(&p, f_make, 0, -1, 0666);

	EXPECT(segid > 0);
	quit(&p);
	EXPECT_ERR(api->remove(segid), ENOENT);
}

CASE(get_arguments, "EINVAL and ENOENT of get")
{
	struct peer p = spawn();
	long segid = make_all();

	EXPECT(segid > 0);
	EXPECT_ERR(api->get(0, XPMEM_RDWR, MODE, NULL), EINVAL);
	EXPECT_ERR(api->get(-1, XPMEM_RDWR, MODE, NULL), EINVAL);
	EXPECT_ERR(api->get(segid, 3, MODE, NULL), EINVAL);
	EXPECT_ERR(api->get(segid, 4, MODE, NULL), EINVAL);
	EXPECT_ERR(api->get(segid, -1, MODE, NULL), EINVAL);
	EXPECT_ERR(api->get(segid, 0x102, MODE, NULL), EINVAL);
	EXPECT_ERR(api->get(segid, XPMEM_RDWR, 0, NULL), EINVAL);
	EXPECT_ERR(api->get(segid, XPMEM_RDWR, 2, NULL), EINVAL);
	EXPECT_ERR(api->get(UNKNOWN, XPMEM_RDWR, MODE, NULL), ENOENT);
	EXPECT_ERR(r_get(&p, UNKNOWN, XPMEM_RDWR), ENOENT);
	EXPECT_ERR(r_get(&p, segid, 7), EINVAL);
	/* The permit value of get does not matter: Open MPI passes 0666. */
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	EXPECT(r_get(&p, segid, XPMEM_RDONLY) > 0);
	quit(&p);
}

CASE(get_removed, "ENOENT for a removed segment and for one whose owner is gone")
{
	struct peer p = spawn(), q = spawn();
	long segid = make_all();

	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	EXPECT_EQ(api->remove(segid), 0);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), ENOENT);
	segid = call(&q, f_make, 0, -1, 0666);
	EXPECT(segid > 0);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	kill_peer(&q);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), ENOENT);
	quit(&p);
}

CASE(get_mode, "the owner's mode bits count, read always and write for RDWR")
{
	struct peer p;
	long segid;

	drop_privileges();
	p = spawn();
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0);
	EXPECT(segid > 0);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDONLY), EACCES);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0400);
	EXPECT(r_get(&p, segid, XPMEM_RDONLY) > 0);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0200);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	/* The owner's class decides, not the best one. */
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0066);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0600);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	quit(&p);
}

/* A peer of another user than this process is from here on. */
static struct peer of_another_user(void)
{
	struct peer p;

	if (!is_root())
		skip_case("needs root, to have two users");
	p = spawn();
	EXPECT_EQ(call(&p, drop_to, 65533, 0, 0), 0);
	drop_privileges();
	return p;
}

CASE(get_other_user_private, "mode 0600 keeps another user out")
{
	struct peer p = of_another_user();
	long segid;

	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0600);
	EXPECT(segid > 0);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDONLY), EACCES);
	quit(&p);
}

CASE(get_other_user_public, "mode 0666 lets another user in, 0644 to read")
{
	struct peer p = of_another_user();
	long segid;

	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0666);
	EXPECT(r_get(&p, segid, XPMEM_RDWR) > 0);
	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0644);
	EXPECT(r_get(&p, segid, XPMEM_RDONLY) > 0);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	quit(&p);
}

CASE(get_other_user_refused, "without a module another user gets EACCES whatever the mode says")
{
	struct peer p = of_another_user();
	long segid;

	segid = api->make(NULL, XPMEM_MAXADDR_SIZE, MODE, (void *)0666);
	EXPECT(segid > 0);
	EXPECT_ERR(r_get(&p, segid, XPMEM_RDWR), EACCES);
	quit(&p);
}

CASE(release_errors, "EINVAL, ENOENT, EACCES, and a second release is ENOENT")
{
	struct peer p = spawn();
	long segid = make_all(), theirs, mine;

	theirs = r_get(&p, segid, XPMEM_RDWR);
	EXPECT(theirs > 0);
	mine = get_rw(segid);
	EXPECT_ERR(api->release(0), EINVAL);
	EXPECT_ERR(api->release(-7), EINVAL);
	EXPECT_ERR(api->release(UNKNOWN), ENOENT);
	EXPECT_ERR(api->release(theirs), EACCES);
	EXPECT_EQ(api->release(mine), 0);
	EXPECT_ERR(api->release(mine), ENOENT);
	EXPECT_EQ(r_release(&p, theirs), 0);
	EXPECT_ERR(r_release(&p, theirs), ENOENT);
	quit(&p);
}

CASE(attach_arguments, "EINVAL of attach, in its order")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid = make_range(source, 4 * PAGE), apid = r_get(&p, segid, XPMEM_RDWR);

	EXPECT(apid > 0);
	EXPECT_ERR(r_attach(&p, 0, 0, PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, -3, 0, PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, UNKNOWN, 0, PAGE), ENOENT);
	EXPECT_ERR(r_attach(&p, apid, 1, PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, 2048, PAGE), EINVAL);
	EXPECT_ERR(r_attach_at(&p, apid, 0, PAGE, 0x10001), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, -(long)PAGE, PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, 0, 0), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, 4 * PAGE, PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, 0, 5 * PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, 3 * PAGE, PAGE + 1), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, 0, -1), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, PAGE, -(long)PAGE), EINVAL);
	EXPECT_ERR(r_attach(&p, apid, INT64_MAX & -PAGE, 2 * PAGE), EINVAL);
	quit(&p);
}

CASE(attach_foreign, "someone else's permit is EACCES")
{
	struct peer p = spawn(), q = spawn();
	char *source = anonymous(PAGE);
	long segid = make_range(source, PAGE), apid = r_get(&p, segid, XPMEM_RDWR);

	EXPECT(apid > 0);
	EXPECT(r_get(&q, segid, XPMEM_RDWR) > 0);
	EXPECT_ERR(r_attach(&q, apid, 0, PAGE), EACCES);
	EXPECT_ERR(attach(apid, 0, PAGE, 0), EACCES);
	quit(&p);
	quit(&q);
}

CASE(attach_gone, "ENOENT once the segment is removed or its owner is gone")
{
	struct peer p = spawn(), q = spawn();
	char *source = anonymous(PAGE);
	long segid = make_range(source, PAGE), apid = r_get(&p, segid, XPMEM_RDWR);

	EXPECT(apid > 0);
	EXPECT_EQ(api->remove(segid), 0);
	EXPECT_ERR(r_attach(&p, apid, 0, PAGE), ENOENT);
	EXPECT_EQ(r_release(&p, apid), 0);
	segid = call(&q, f_make, (long)source, PAGE, 0666);
	apid = r_get(&p, segid, XPMEM_RDWR);
	EXPECT(apid > 0);
	kill_peer(&q);
	EXPECT_ERR(r_attach(&p, apid, 0, PAGE), ENOENT);
	EXPECT_EQ(r_release(&p, apid), 0);
	quit(&p);
}

CASE(attach_rounds_up, "a size that is no page multiple is rounded up")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid, apid, addr;

	fill(source, 4 * PAGE, 1);
	segid = make_range(source, 4 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDWR);
	/* libfabric attaches n * page - 1, Open MPI 4 a window + 1. */
	addr = r_attach(&p, apid, 0, 4 * PAGE - 1);
	EXPECT(addr != -1);
	EXPECT_EQ(r_verify(&p, addr, 4 * PAGE, 1), 0);
	EXPECT_EQ(r_detach(&p, addr), 0);
	addr = r_attach(&p, apid, 0, 2 * PAGE + 1);
	EXPECT(addr != -1);
	EXPECT_EQ(r_verify(&p, addr, 3 * PAGE, 1), 0);
	addr = r_attach(&p, apid, 3 * PAGE, 1);
	EXPECT(addr != -1);
	EXPECT_EQ(r_peek(&p, addr + PAGE - 1), (unsigned char)source[4 * PAGE - 1]);
	quit(&p);
}

CASE(attach_no_room, "ENOMEM when the address space is full")
{
	struct peer p = spawn();
	long segid = make_all(), apid = r_get(&p, segid, XPMEM_RDWR), addr = 0;
	int i;

	for (i = 0; i < 8 && addr != -1; i++)
		addr = r_attach(&p, apid, 0, 1l << 45);
	EXPECT_EQ(addr, -1);
	EXPECT_EQ(errno, ENOMEM);
	EXPECT(i > 1);
	quit(&p);
}

static long f_anonymous(long size, long b, long c, long d)
{
	(void)b, (void)c, (void)d;
	return (long)anonymous(size);
}

CASE(attach_overlaps, "a fixed address over an attachment or over one's own source is EINVAL")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid = make_range(source, 8 * PAGE), apid = r_get(&p, segid, XPMEM_RDWR), addr, own;

	addr = r_attach(&p, apid, 0, 4 * PAGE);
	EXPECT(addr != -1);
	EXPECT_ERR(r_attach_at(&p, apid, 0, PAGE, addr), EINVAL);
	EXPECT_ERR(r_attach_at(&p, apid, 0, 2 * PAGE, addr - PAGE), EINVAL);
	EXPECT_ERR(r_attach_at(&p, apid, 0, 2 * PAGE, addr + 3 * PAGE), EINVAL);
	own = get_rw(segid);
	EXPECT_ERR(attach(own, 0, 2 * PAGE, (long)source), EINVAL);
	EXPECT_ERR(attach(own, 4 * PAGE, 2 * PAGE, (long)source + 5 * PAGE), EINVAL);
	quit(&p);
}

CASE(attach_fixed, "a fixed address replaces what is mapped there")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid, apid, place;

	fill(source, 4 * PAGE, 9);
	segid = make_range(source, 4 * PAGE);
	apid = r_get(&p, segid, XPMEM_RDWR);
	place = call(&p, f_anonymous, 6 * PAGE, 0, 0);
	EXPECT_EQ(r_fill(&p, place, 6 * PAGE, 3), 0);
	EXPECT_EQ(r_attach_at(&p, apid, 0, 4 * PAGE, place + PAGE), place + PAGE);
	EXPECT_EQ(r_verify(&p, place + PAGE, 4 * PAGE, 9), 0);
	EXPECT_EQ(r_verify(&p, place, PAGE, 3), 0);
	EXPECT_EQ(r_poke(&p, place + 2 * PAGE, 0x5a), 0);
	EXPECT_EQ((unsigned char)source[PAGE], 0x5a);
	EXPECT_EQ(r_detach(&p, place + PAGE), 0);
	quit(&p);
}

CASE(detach_answers, "nothing there is 0, something else is EINVAL")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE), *other = anonymous(PAGE);
	long segid = make_range(source, 4 * PAGE), apid, addr;

	EXPECT_EQ(api->detach(NULL), 0);
	EXPECT_ERR(api->detach(other), EINVAL);
	EXPECT_ERR(api->detach(source), EINVAL);
	munmap(other, PAGE);
	EXPECT_EQ(api->detach(other), 0);
	apid = r_get(&p, segid, XPMEM_RDWR);
	addr = r_attach(&p, apid, 0, 4 * PAGE);
	EXPECT(addr != -1);
	EXPECT_EQ(r_detach(&p, addr), 0);
	EXPECT_EQ(r_detach(&p, addr), 0);
	quit(&p);
}

CASE(detach_interior, "any address within detaches all of it, and nothing else")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid = make_range(source, 4 * PAGE), apid = r_get(&p, segid, XPMEM_RDWR), one, two;

	one = r_attach(&p, apid, 0, 4 * PAGE);
	two = r_attach(&p, apid, 0, 4 * PAGE);
	EXPECT(one != -1 && two != -1 && one != two);
	EXPECT_EQ(r_peek(&p, one), 0);
	EXPECT_EQ(r_detach(&p, one + 2 * PAGE + 77), 0);
	for (long i = 0; i < 4; i++)
		EXPECT_EQ(call(&p, f_mapped, one + i * PAGE, 0, 0), 0);
	EXPECT_EQ(r_peek(&p, two + PAGE), 0);
	quit(&p);
}

CASE(release_detaches, "release takes all attachments of the permit with it, and only those")
{
	struct peer p = spawn();
	char *source = anonymous(4 * PAGE);
	long segid = make_range(source, 4 * PAGE), apid, other, one, two, three;

	apid = r_get(&p, segid, XPMEM_RDWR);
	other = r_get(&p, segid, XPMEM_RDWR);
	one = r_attach(&p, apid, 0, PAGE);
	two = r_attach(&p, apid, PAGE, PAGE);
	three = r_attach(&p, other, PAGE, PAGE);
	EXPECT(one != -1 && two != -1 && three != -1);
	EXPECT_EQ(r_peek(&p, one), 0);
	EXPECT_EQ(r_release(&p, apid), 0);
	EXPECT_EQ(call(&p, f_mapped, one, 0, 0), 0);
	EXPECT_EQ(call(&p, f_mapped, two, 0, 0), 0);
	EXPECT_EQ(r_detach(&p, one), 0);
	if (other != apid)
		EXPECT_EQ(r_peek(&p, three), 0);
	quit(&p);
}
