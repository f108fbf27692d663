/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Touching memory that may not be there; signals. */
#include "harness.h"

#include <setjmp.h>

static __thread sigjmp_buf landing;
static __thread volatile sig_atomic_t armed;

static void on_fault(int sig)
{
	if (armed)
		siglongjmp(landing, sig);
	signal(sig, SIG_DFL);
}

void catch_faults(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = on_fault;
	action.sa_flags = SA_NODEFER;
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

#define GUARDED(statement)                         \
	do {                                       \
		int sig_ = sigsetjmp(landing, 1);  \
		if (sig_) {                        \
			armed = 0;                 \
			return -sig_;              \
		}                                  \
		armed = 1;                         \
		statement;                         \
		armed = 0;                         \
	} while (0)

long peek(long addr)
{
	volatile unsigned char *p = (unsigned char *)addr;
	long value;

	GUARDED(value = *p);
	return value;
}

long poke(long addr, long value)
{
	volatile unsigned char *p = (unsigned char *)addr;

	GUARDED(*p = value);
	return 0;
}

long add_to(long addr, long n)
{
	GUARDED(__atomic_add_fetch((long *)addr, n, __ATOMIC_RELAXED));
	return 0;
}

static unsigned char pattern(size_t i, long seed)
{
	/* Differs between neighbouring pages and between seeds. */
	return (unsigned char)(i * 7 + (i >> 12) * 13 + seed * 101 + 1);
}

void fill(void *p, size_t size, long seed)
{
	unsigned char *bytes = p;

	for (size_t i = 0; i < size; i++)
		bytes[i] = pattern(i, seed);
}

long fill_there(long addr, long size, long seed)
{
	GUARDED(fill((void *)addr, size, seed));
	return 0;
}

long verify(long addr, long size, long seed)
{
	const volatile unsigned char *p = (unsigned char *)addr;
	volatile long wrong = 0;

	GUARDED(for (long i = 0; i < size && !wrong; i++) if (p[i] != pattern(i, seed)) wrong = i + 1);
	return wrong;
}

/* All memory that is asked for after a first make is shared from the start. */
static void begin_early(void)
{
	static int begun;
	const char *born = getenv("XPMEM_BORN");

	if (!begun++ && born && *born >= '0' && *born <= '9')
		api->make(NULL, XPMEM_MAXADDR_SIZE, XPMEM_PERMIT_MODE, (void *)0600);
}

void *anonymous(size_t size)
{
	void *p;

	begin_early();
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	EXPECT(p != MAP_FAILED);
	return p;
}

int mapped(long addr)
{
	/* msync answers ENOMEM where nothing is mapped, and does nothing else. */
	return msync((void *)(addr & -PAGE), PAGE, MS_ASYNC) == 0 || errno != ENOMEM;
}

volatile sig_atomic_t alarms;

static void on_alarm(int sig)
{
	(void)sig;
	alarms++;
}

void count_alarms(int flags)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	action.sa_flags = flags;
	sigaction(SIGALRM, &action, NULL);
}

long number_in(const char *file)
{
	FILE *text = fopen(file, "r");
	long n = -1;

	if (!text || fscanf(text, "%ld", &n) != 1)
		n = -1;
	if (text)
		fclose(text);
	return n;
}
