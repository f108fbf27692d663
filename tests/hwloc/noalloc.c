/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Preloaded: fails one allocation of libxpmem's own, the one that
 * noalloc_countdown counts to; everybody else's succeed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

long noalloc_countdown = -1;	/* -1: none */
static uintptr_t start, end;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static int look(struct dl_phdr_info *info, size_t size, void *data)
{
	int i;

	(void)size, (void)data;
	if (!info->dlpi_name || !strstr(info->dlpi_name, "libxpmem"))
		return 0;
	start = info->dlpi_addr;
	for (i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD)
			end = start + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
	return 1;
}

/* To be called once all is loaded; 0 if there is no libxpmem. */
int noalloc_find(void)
{
	return dl_iterate_phdr(look, NULL);
}

static int fails(void *caller)
{
	uintptr_t at = (uintptr_t)caller;

	if (noalloc_countdown < 0 || at < start || at >= end || noalloc_countdown-- != 0)
		return 0;
	errno = ENOMEM;
	return 1;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t size)
{
	return fails(CALLER) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return fails(CALLER) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
	return fails(CALLER) ? NULL : __libc_realloc(old, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	return fails(CALLER) ? NULL : __libc_memalign(align, size);
}

int posix_memalign(void **to, size_t align, size_t size)
{
	if (fails(CALLER))
		return ENOMEM;
	*to = __libc_memalign(align, size);
	return *to ? 0 : ENOMEM;
}
