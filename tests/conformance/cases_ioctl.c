/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The same operations by number, with the structures of the device. */
#include "harness.h"

struct make_arg { uint64_t vaddr; size_t size; int permit_type; uint64_t permit_value; int64_t segid; };
struct get_arg { int64_t segid; int flags, permit_type; uint64_t permit_value; int64_t apid; };
struct attach_arg { int64_t apid; int64_t offset; size_t size; uint64_t vaddr; int fd, flags; };

enum { VERSION = 0x7800, MAKE, REMOVE, GET, RELEASE, ATTACH, DETACH, FORK_BEGIN, FORK_END };

static long f_ioctl(long cmd, long arg, long c, long d)
{
	(void)c, (void)d;
	return api->ioctl(cmd, (void *)arg);
}

CASE(ioctl_operations, "each operation through xpmem_ioctl")
{
	char *source = anonymous(2 * PAGE);
	struct make_arg make = { (uintptr_t)source, 2 * PAGE, XPMEM_PERMIT_MODE, 0666, 0 };
	struct get_arg get = { 0, XPMEM_RDWR, XPMEM_PERMIT_MODE, 0, 0 };
	struct attach_arg attach = { 0, PAGE, PAGE, 0, 0, 0 };
	uint64_t place;

	EXPECT_EQ(api->ioctl(VERSION, NULL), api->version());
	EXPECT_EQ(api->ioctl(MAKE, &make), 0);
	EXPECT(make.segid > 0);
	get.segid = make.segid;
	EXPECT_EQ(api->ioctl(GET, &get), 0);
	EXPECT(get.apid > 0);
	attach.apid = get.apid;
	EXPECT_EQ(api->ioctl(ATTACH, &attach), 0);
	EXPECT(attach.vaddr != 0);
	place = attach.vaddr + 5;
	EXPECT_EQ(api->ioctl(DETACH, &place), 0);
	EXPECT_EQ(api->ioctl(RELEASE, &get.apid), 0);
	EXPECT_EQ(api->ioctl(REMOVE, &make.segid), 0);
	EXPECT_ERR(api->ioctl(REMOVE, &make.segid), ENOENT);
	EXPECT_EQ(api->ioctl(FORK_BEGIN, NULL), 0);
	EXPECT_EQ(api->ioctl(FORK_END, NULL), 0);
}

CASE(ioctl_unknown, "ENOTTY for what is no command")
{
	long words[8] = { 0 };

	EXPECT_ERR(api->ioctl(0x7809, words), ENOTTY);
	EXPECT_ERR(api->ioctl(0x77ff, words), ENOTTY);
	EXPECT_ERR(api->ioctl(0, words), ENOTTY);
	EXPECT_ERR(api->ioctl(-1, words), ENOTTY);
}

CASE(ioctl_errors, "the ioctls refuse what the functions refuse, and the permit value of get")
{
	struct get_arg get = { make_all(), XPMEM_RDWR, XPMEM_PERMIT_MODE, 0666, 0 };
	struct make_arg make = { 0, 0, XPMEM_PERMIT_MODE, 0666, 0 };
	struct attach_arg attach = { 0, 0, PAGE, 0, 0, 0 };

	EXPECT_ERR(api->ioctl(GET, &get), EINVAL);
	EXPECT_ERR(api->ioctl(MAKE, &make), EINVAL);
	EXPECT_ERR(api->ioctl(ATTACH, &attach), EINVAL);
}

CASE(ioctl_hostile_pointers, "EFAULT for an argument that cannot be read or written")
{
	static const int commands[] = { MAKE, REMOVE, GET, RELEASE, ATTACH, DETACH };
	char *pages = anonymous(2 * PAGE), *none = anonymous(PAGE);
	struct make_arg *make;

	munmap(pages + PAGE, PAGE);
	mprotect(none, PAGE, PROT_NONE);
	for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
		EXPECT_ERR(api->ioctl(commands[i], NULL), EFAULT);
		EXPECT_ERR(api->ioctl(commands[i], (void *)64), EFAULT);
		EXPECT_ERR(api->ioctl(commands[i], none), EFAULT);
		EXPECT_ERR(api->ioctl(commands[i], pages + PAGE), EFAULT);
		EXPECT_ERR(api->ioctl(commands[i], pages + PAGE - 4), EFAULT);
		EXPECT_ERR(api->ioctl(commands[i], (void *)-4096l), EFAULT);
		EXPECT_ERR(api->ioctl(commands[i], (void *)(1ul << 62)), EFAULT);
	}
	/* The answer does not fit behind a structure that can be read. */
	make = (struct make_arg *)pages;
	*make = (struct make_arg){ 0, -1, XPMEM_PERMIT_MODE, 0666, 0 };
	mprotect(pages, PAGE, PROT_READ);
	EXPECT_ERR(api->ioctl(MAKE, make), EFAULT);
}

static int lines_of_maps(void)
{
	char buffer[4096];
	int fd = open("/proc/self/maps", O_RDONLY), lines = 0;
	ssize_t n;

	EXPECT(fd >= 0);
	while ((n = read(fd, buffer, sizeof buffer)) > 0)
		for (ssize_t i = 0; i < n; i++)
			lines += buffer[i] == '\n';
	close(fd);
	return lines;
}

static long f_readonly_attach(long apid, long b, long c, long d)
{
	struct attach_arg *arg = anonymous(PAGE);
	int before, after;
	long ret;

	(void)b, (void)c, (void)d;
	*arg = (struct attach_arg){ apid, 0, 8 * PAGE, 0, 0, 0 };
	mprotect(arg, PAGE, PROT_READ);
	before = lines_of_maps();
	errno = 0;
	ret = api->ioctl(ATTACH, arg);
	if (ret != -1 || errno != EFAULT)
		return 1;
	after = lines_of_maps();
	return after == before ? 0 : 2;
}

CASE(ioctl_attach_undone, "an attach whose answer cannot be written leaves no attachment")
{
	struct peer p = spawn();
	char *source = anonymous(8 * PAGE);
	long segid = make_range(source, 8 * PAGE), apid = r_get(&p, segid, XPMEM_RDWR), addr;

	/* Warm up, so that what the first attach sets up is not counted. */
	addr = r_attach(&p, apid, 0, PAGE);
	EXPECT_EQ(r_detach(&p, addr), 0);
	EXPECT_EQ(call(&p, f_readonly_attach, apid, 0, 0), 0);
	/* And by the structure of a peer, across processes. */
	EXPECT_ERR(call(&p, f_ioctl, ATTACH, 8, 0), EFAULT);
	quit(&p);
}
