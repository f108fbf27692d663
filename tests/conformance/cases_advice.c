/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rows of docs/settings.md whose effect is seen elsewhere than in a flag that stays. */
#include "harness.h"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SIZE (16 * PAGE)

/* A line of smaps of the mapping at an address, or an empty one. */
static const char *smaps(const char *address, const char *key)
{
	FILE *text = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	static char line[512];
	int inside = 0;

	EXPECT(text != NULL);
	while (fgets(line, sizeof line, text)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr(line, '-') < strchr(line, ' ')) {
			inside = start <= (unsigned long)address && (unsigned long)address < end;
			if (inside && !*key)
				break;
		} else if (inside && !strncmp(line, key, strlen(key))) {
			break;
		}
	}
	if (feof(text))
		line[0] = 0;
	fclose(text);
	return line;
}

static int has_flag(const char *address, const char *flag)
{
	return strstr(smaps(address, "VmFlags:"), flag) != NULL;
}

static char *filled(void)
{
	char *source = anonymous(SIZE);

	fill(source, SIZE, 1);
	return source;
}

static long share_now(struct peer *p, char *source)
{
	long addr = share(p, source, SIZE);

	EXPECT_EQ(r_verify(p, addr, SIZE, 1), 0);
	return addr;
}

static void expect_shared(struct peer *p, char *source, long addr)
{
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
	EXPECT_EQ(r_fill(p, addr, SIZE, 2), 0);
	EXPECT_EQ(verify((long)source, SIZE, 2), 0);
	fill(source, SIZE, 3);
	EXPECT_EQ(r_verify(p, addr, SIZE, 3), 0);
}

/* Where mremap moves it to, it is private again. */
static char *move(char *source)
{
	char *to = mremap(source, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, anonymous(SIZE));

	EXPECT(to != MAP_FAILED && to != source);
	return to;
}

/* What acts once acts on pages that are shared, too, and loses none. */
static void expect_harmless(int advice)
{
	struct peer p = spawn();
	char *before = filled(), *after = filled();
	long addr;

	if (madvise(before, SIZE, advice))
		skip_case("the kernel does not know this advice");
	addr = share_now(&p, before);
	expect_shared(&p, before, addr);
	addr = share_now(&p, after);
	EXPECT_EQ(madvise(after, SIZE, advice), 0);
	expect_shared(&p, after, addr);
	EXPECT_EQ(madvise(after, SIZE, advice), 0);
	EXPECT_EQ(verify((long)move(after), SIZE, 3), 0);
	quit(&p);
}

CASE(advice_cold, "MADV_COLD acts on shared memory")
{
	expect_harmless(MADV_COLD);
}

CASE(advice_pageout, "MADV_PAGEOUT acts on shared memory")
{
	expect_harmless(MADV_PAGEOUT);
}

CASE(advice_populate_read, "MADV_POPULATE_READ acts on shared memory")
{
	expect_harmless(MADV_POPULATE_READ);
}

CASE(advice_populate_write, "MADV_POPULATE_WRITE acts on shared memory")
{
	expect_harmless(MADV_POPULATE_WRITE);
}

CASE(advice_mergeable, "MADV_MERGEABLE is noted while memory is shared, and holds where it is private again")
{
	struct peer p = spawn();
	char *before = filled(), *after = filled();
	long addr;

	if (madvise(before, SIZE, MADV_MERGEABLE))
		skip_case("the kernel merges nothing");
	addr = share_now(&p, before);
	expect_shared(&p, before, addr);
	before = move(before);
	EXPECT(has_flag(before, " mg"));
	addr = share_now(&p, after);
	EXPECT_EQ(madvise(after, SIZE, MADV_MERGEABLE), 0);
	expect_shared(&p, after, addr);
	after = move(after);
	EXPECT(has_flag(after, " mg"));
	EXPECT_EQ(madvise(after, SIZE, MADV_UNMERGEABLE), 0);
	EXPECT(!has_flag(after, " mg"));
	quit(&p);
}

CASE(advice_locked_on_fault, "what is locked on fault is so after it was shared, before and after that was said")
{
	struct peer p = spawn();
	char *before = filled(), *after = filled();
	long addr;

	if (mlock(after, SIZE) || syscall(SYS_mlock2, before, SIZE, 1 /* MLOCK_ONFAULT */) || munlock(after, SIZE))
		skip_case("may not lock so much memory");
	addr = share_now(&p, before);
	EXPECT(has_flag(before, " lo"));
	expect_shared(&p, before, addr);
	addr = share_now(&p, after);
	EXPECT_EQ(syscall(SYS_mlock2, after, SIZE, 1), 0);
	EXPECT(has_flag(after, " lo"));
	expect_shared(&p, after, addr);
	EXPECT_EQ(munlock(after, SIZE), 0);
	EXPECT(!has_flag(after, " lo"));
	before = move(before);
	EXPECT(has_flag(before, " lo"));
	EXPECT_EQ(verify((long)before, SIZE, 3), 0);
	quit(&p);
}

CASE(advice_name, "a name is not shown while memory is shared, and cannot be given then")
{
	struct peer p = spawn();
	char *source = filled();
	long addr;

	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, source, SIZE, "told"))
		skip_case("the kernel gives no names");
	EXPECT(strstr(smaps(source, ""), "told"));
	addr = share_now(&p, source);
	if (backend == BACKEND_USER) {
		EXPECT(!strstr(smaps(source, ""), "told"));
		EXPECT_ERR(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, source, SIZE, "late"), EBADF);
	}
	expect_shared(&p, source, addr);
	quit(&p);
}

/* The protection key of the mapping at an address; 0 where there are none. */
static int key_of(const char *address)
{
	int key = 0;

	sscanf(smaps(address, "ProtectionKey:"), "ProtectionKey: %d", &key);
	return key;
}

static long touch_attached(long apid, long offset, long c, long d)
{
	long addr = attach(apid, offset, SIZE, 0);

	(void)c, (void)d;
	return addr == -1 ? -1 : peek(addr);
}

/* The owner's memory has its key and its bytes, whether or not a peer may have it. */
static void expect_key(struct peer *p, long apid, char *source, int key)
{
	long got;

	EXPECT_EQ(pkey_mprotect(source, SIZE, PROT_READ | PROT_WRITE, key), 0);
	got = call(p, touch_attached, apid, source, 0);
	EXPECT(got == -1 || FAULTED(got) || got == (unsigned char)source[0]);
	EXPECT_EQ(key_of(source), key);
	EXPECT_EQ(verify((long)source, SIZE, 1), 0);
}

CASE(advice_protection_key, "memory has its protection key, whether it got it before peers touched it or since")
{
	struct peer p = spawn();
	char *before = filled(), *late = filled(), *since = filled();
	int key = pkey_alloc(0, 0);
	long addr, apid;

	if (key < 0)
		skip_case("no protection keys here");
	addr = share_now(&p, since);
	apid = r_get(&p, make_all(), XPMEM_RDWR);
	expect_key(&p, apid, before, key);
	/* The service has no right to what a thread has begun to use since. */
	expect_key(&p, apid, late, pkey_alloc(0, 0));
	EXPECT_EQ(pkey_mprotect(since, SIZE, PROT_READ | PROT_WRITE, key), 0);
	EXPECT_EQ(key_of(since), key);
	expect_shared(&p, since, addr);
	EXPECT_EQ(pkey_set(key, PKEY_DISABLE_ACCESS), 0);
	EXPECT_EQ(peek((long)since), -SIGSEGV);
	EXPECT_EQ(r_fill(&p, addr, SIZE, 3), 0);
	EXPECT_EQ(pkey_set(key, 0), 0);
	EXPECT_EQ(verify((long)since, SIZE, 3), 0);
	EXPECT_EQ(mprotect(since, SIZE, PROT_READ), 0);
	EXPECT_EQ(key_of(since), key);
	quit(&p);
}
