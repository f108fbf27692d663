/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The owner's pages go to a device's own memory, which no processor can reach
 * (the kernel's test_hmm is such a device): who touches them has them back, as
 * the device has left them.
 */
#include "count.h"
#include <sys/sysmacros.h>

/* As the driver has them: where, what to copy to or from, how many pages. */
struct device_cmd { uint64_t addr, buffer, pages, copied, faults; };
enum { DEVICE_READ, DEVICE_WRITE, DEVICE_TAKE, DEVICE_GIVE_BACK, DEVICE_SNAPSHOT, DEVICE_EXCLUSIVE };
#define HAS_IT 0x20		/* of a snapshot: in the memory of this device */

#define FEW 64L
static int device = -1;

/* The owner has the device do it with its pages from BASE on; values go to or come from there. */
static long device_do(int what, long pages, void *buffer)
{
	struct device_cmd cmd = { BASE, (uint64_t)buffer, pages };

	return ioctl(device, _IOWR('H', what, struct device_cmd), &cmd) ? -errno : 0;
}

static long r_open(long a, long b, long c)
{
	char line[128];
	FILE *f = fopen("/proc/devices", "r");
	int found = -1;

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " HMM_DMIRROR\n"))
			found = atoi(line);
	if (f)
		fclose(f);
	if (found < 0)
		return -ENOENT;
	unlink("/tmp/device");
	if (mknod("/tmp/device", S_IFCHR | 0600, makedev(found, 0)))
		return -errno;
	device = open("/tmp/device", O_RDWR);
	return device < 0 ? -errno : 0;
}

/* Takes them; answers how many the device has then. */
static long r_take(long pages, long b, long c)
{
	static char buffer[SIZE];
	unsigned char there[PAGES];
	long n = 0, err;

	/* Pages that somebody uses at that moment stay: not all of them always go. */
	err = device_do(DEVICE_TAKE, pages, buffer);
	if (err && err != -ENOENT)
		return err;
	err = device_do(DEVICE_SNAPSHOT, pages, there);
	for (long i = 0; i < pages; i++)
		n += (there[i] & 0xf0) == HAS_IT;
	return err ? err : n;
}

/* The device writes v, v + 1, ... */
static long r_device_fill(long pages, long v, long c)
{
	static char buffer[SIZE];

	for (long i = 0; i < pages; i++)
		*(long *)(buffer + i * PAGE) = v + i;
	return device_do(DEVICE_WRITE, pages, buffer);
}

static long r_exclusive(long pages, long b, long c)
{
	static char buffer[SIZE];

	return device_do(DEVICE_EXCLUSIVE, pages, buffer);
}

static char *start(void)
{
	CALL(&owner, r_map, BASE, FEW * PAGE, 0);
	CALL(&owner, r_madvise, BASE, FEW * PAGE, MADV_NOHUGEPAGE);
	CALL(&owner, r_fill, BASE, FEW, 1000);
	return (char *)x_attach(apid, BASE, FEW * PAGE);
}

static int all(char *p, long v)
{
	for (long i = 0; i < FEW; i++)
		if (val(p + i * PAGE) != v + i) {
			printf("  page %ld is %lx, not %lx\n", i, val(p + i * PAGE), v + i);
			return 0;
		}
	return 1;
}

static void finish(char *p)
{
	CHECK(x_detach(p) == 0);
	CALL(&owner, r_unmap, BASE, FEW * PAGE, 0);
}

static void taken(void)
{
	char *p = start();

	NEED((long)p > 0 && all(p, 1000));
	CHECK(CALL(&owner, r_take, FEW, 0, 0) == FEW);
	CHECK(all(p, 1000));
	/* Stores, the first touch. */
	CHECK(CALL(&owner, r_take, FEW, 0, 0) == FEW);
	for (long i = 0; i < FEW; i++)
		CHECK(wr(p + i * PAGE, 2000 + i) == 0);
	for (long i = 0; i < FEW; i++)
		CHECK(CALL(&owner, r_val, BASE + i * PAGE, 0, 0) == 2000 + i);
	finish(p);
}

static void changed_there(void)
{
	char *p = start();

	NEED((long)p > 0 && all(p, 1000));
	for (long round = 1; round < 5; round++) {
		CHECK(CALL(&owner, r_take, FEW, 0, 0) == FEW);
		CHECK(CALL(&owner, r_device_fill, FEW, round * 10000, 0) == 0);
		CHECK(all(p, round * 10000));
		/* And where the page has not left the processor's memory. */
		CHECK(CALL(&owner, r_device_fill, FEW, round * 10000 + 5000, 0) == 0);
		CHECK(all(p, round * 10000 + 5000));
	}
	finish(p);
}

/* The device alone may use them, where they are: until a processor touches them. */
static void exclusive(void)
{
	char *p = start();

	NEED((long)p > 0 && all(p, 1000));
	CHECK(CALL(&owner, r_exclusive, FEW, 0, 0) == 0);
	CHECK(all(p, 1000));
	CHECK(CALL(&owner, r_exclusive, FEW, 0, 0) == 0);
	CHECK(CALL(&owner, r_device_fill, FEW, 3000, 0) == 0);
	CHECK(all(p, 3000));
	CHECK(wr(p, 1) == 0 && CALL(&owner, r_val, BASE, 0, 0) == 1);
	finish(p);
}

/* What the owner takes away while the device has it is a hole. */
static void gone_there(void)
{
	char *p = start();

	NEED((long)p > 0 && all(p, 1000));
	CHECK(CALL(&owner, r_take, FEW, 0, 0) == FEW);
	CALL(&owner, r_unmap, BASE, PAGE, 0);
	CHECK(CALL(&owner, r_madvise, BASE + PAGE, PAGE, MADV_DONTNEED) == 0);
	CHECK(CALL(&owner, r_protect, BASE + 2 * PAGE, PAGE, PROT_READ) == 0);
	CHECK(rd(p, NULL) == SIGBUS && val(p + PAGE) == 0);
	CHECK(wr(p + 2 * PAGE, 1) == SIGBUS && val(p + 2 * PAGE) == 1002 && val(p + 3 * PAGE) == 1003);
	finish(p);
}

static long take(int turn)
{
	return CALL(&owner, r_take, PAGES, 0, 0);
}

static void taken_while_used(void)
{
	CALL(&owner, r_map, BASE, SIZE, 0);
	CALL(&owner, r_madvise, BASE, SIZE, MADV_NOHUGEPAGE);
	CHECK(count_while(take) >= 0);
}

int main(void)
{
	long err;

	count_begin();
	if (owner_begin())
		return 1;
	err = CALL(&owner, r_open, 0, 0, 0);
	if (err) {
		printf("no device with memory of its own (%ld)\n0 passed, 0 failed, 1 skipped\n", err);
		return 77;
	}
	RUN(taken);
	RUN(changed_there);
	RUN(exclusive);
	RUN(gone_there);
	RUN(taken_while_used);
	return owner_end();
}
