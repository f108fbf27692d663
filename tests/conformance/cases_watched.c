/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An owner that watches its own stores by a userfaultfd, or tells the kernel another
 * story of its address space. */
#include "harness.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define PAGES 16L
#define SIZE (PAGES * PAGE)

static int faults = -1;
static char *noted;

/* A monitor: notes each page that is stored to, and lets the store go on. */
static void *monitor(void *nothing)
{
	struct uffd_msg m;

	while (read(faults, &m, sizeof m) == sizeof m) {
		unsigned long page = m.arg.pagefault.address & -PAGE;
		struct uffdio_writeprotect wp = { { page, PAGE }, 0 };

		if (m.event != UFFD_EVENT_PAGEFAULT || !(m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP))
			continue;
		__atomic_add_fetch(&noted[(page - *(unsigned long *)nothing) / PAGE], 1, __ATOMIC_SEQ_CST);
		EXPECT_EQ(ioctl(faults, UFFDIO_WRITEPROTECT, &wp), 0);
	}
	return NULL;
}

/* What is stored to [source, source + SIZE) from now on is noted. */
static void watch_stores(char *source)
{
	static unsigned long first;
	struct uffdio_api it = { UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, 0 };
	struct uffdio_register range = { { (unsigned long)source, SIZE }, UFFDIO_REGISTER_MODE_WP, 0 };
	struct uffdio_writeprotect wp = { range.range, UFFDIO_WRITEPROTECT_MODE_WP };
	pthread_t thread;

	first = (unsigned long)source;
	noted = calloc(1, PAGES);
	faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (faults < 0 || ioctl(faults, UFFDIO_API, &it))
		skip_case("no userfaultfd that protects from stores");
	EXPECT_EQ(ioctl(faults, UFFDIO_REGISTER, &range), 0);
	EXPECT_EQ(ioctl(faults, UFFDIO_WRITEPROTECT, &wp), 0);
	EXPECT_EQ(pthread_create(&thread, NULL, monitor, &first), 0);
}

static void expect_noted(char *source)
{
	for (long i = 0; i < PAGES; i += 2) {
		source[i * PAGE] = 42;
		EXPECT_EQ(source[i * PAGE], 42);
	}
	for (long i = 0; i < PAGES; i++)
		EXPECT_EQ(noted[i], i % 2 == 0);
}

CASE(protected_before, "an owner that watches its stores goes on to see each, and a peer none that it does not")
{
	struct peer p = spawn();
	char *source = anonymous(SIZE);
	long apid;

	if (backend != BACKEND_USER)
		skip_case("the module needs no watch of its own");
	setenv("XPMEM_WAIT", "0", 1);
	fill(source, SIZE, 1);
	watch_stores(source);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT_EQ(r_attach(&p, apid, (long)source, SIZE), -1);
	expect_noted(source);
	quit(&p);
}

CASE(protected_after, "an owner begins to watch its stores to memory that has been shared, and sees each")
{
	struct peer p = spawn();
	char *source = anonymous(SIZE);
	long addr;

	if (backend != BACKEND_USER)
		skip_case("the module needs no watch of its own");
	setenv("XPMEM_WAIT", "0", 1);
	fill(source, SIZE, 1);
	addr = share(&p, source, SIZE);
	EXPECT_EQ(r_fill(&p, addr, SIZE, 2), 0);
	watch_stores(source);
	EXPECT_EQ(verify((long)source, SIZE, 2), 0);
	EXPECT(FAULTED(r_poke(&p, addr, 1)));
	expect_noted(source);
	quit(&p);
}

CASE(another_story, "memory is shared where the owner has told the kernel of another heap and stack (PR_SET_MM)")
{
	struct peer p = spawn();
	char *source = anonymous(SIZE), *other = anonymous(SIZE), *heap = malloc(4000), on_stack[64];
	long apid, at;

	if (prctl(PR_SET_MM, PR_SET_MM_START_STACK, other + SIZE - 64, 0, 0))
		skip_case("may not use PR_SET_MM");
	fill(source, SIZE, 1);
	fill(other, SIZE, 2);
	memset(heap, 3, 4000);
	memset(on_stack, 4, sizeof on_stack);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	EXPECT_EQ(prctl(PR_SET_MM, PR_SET_MM_START_STACK, source + SIZE - 64, 0, 0), 0);
	at = r_attach(&p, apid, (long)source, SIZE);
	EXPECT_EQ(r_verify(&p, at, SIZE, 1), 0);
	EXPECT_EQ(r_fill(&p, at, SIZE, 5), 0);
	EXPECT_EQ(verify((long)source, SIZE, 5), 0);
	at = r_attach(&p, apid, (long)other, SIZE);
	EXPECT_EQ(r_verify(&p, at, SIZE, 2), 0);
	at = r_attach(&p, apid, (long)heap & -PAGE, PAGE) + ((long)heap & (PAGE - 1));
	EXPECT_EQ(r_peek(&p, at + 5), 3);
	EXPECT_EQ(r_poke(&p, at + 5, 6), 0);
	EXPECT_EQ(heap[5], 6);
	at = r_attach(&p, apid, (long)on_stack & -PAGE, PAGE) + ((long)on_stack & (PAGE - 1));
	EXPECT_EQ(r_poke(&p, at + 5, 7), 0);
	EXPECT_EQ(on_stack[5], 7);
	EXPECT_EQ(verify((long)source, SIZE, 5), 0);
	quit(&p);
}
