/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Stands in for a libhwloc of any layout: FAKE_ABI is the number that its
 * topologies begin with, FAKE_ODD names one thing in which it differs from
 * the layout of 0x20400. Its three shared-memory functions write down what
 * they were given and answer what the test says.
 */
#include "fake.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_calls fake_calls;

struct object {
	unsigned type, pad0;
	void *pad1[4];
	void *attr;
	void *pad2[24];
	uint64_t gp_index;
};

struct bitmap {
	unsigned count, allocated;
	unsigned long *words;
	int infinite, pad;
};

static int odd(const char *what)
{
	const char *wanted = getenv("FAKE_ODD");

	return wanted && !strcmp(wanted, what);
}

static void put(char *t, size_t at, const void *value, size_t size)
{
	memcpy(t + at, value, size);
}

#define PUT(t, at, type, value) do { type v_ = (value); put(t, at, &v_, sizeof(v_)); } while (0)

int hwloc_topology_init(void **tp)
{
	char *t = calloc(1, 896);
	struct object *root = calloc(1, sizeof(*root)), ***levels = malloc(sizeof(*levels));

	fake_calls.init++;
	root->type = odd("root") ? 1 : 0;
	root->attr = calloc(1, 40);
	root->gp_index = odd("object") ? 7 : 1;
	levels[0] = malloc(sizeof(*levels[0]));
	levels[0][0] = root;
	PUT(t, 0, unsigned, strtoul(getenv("FAKE_ABI"), NULL, 16));
	PUT(t, 4, unsigned, odd("levels") ? 2 : 1);
	PUT(t, 8, unsigned, 16);
	PUT(t, 16, void *, calloc(16, 4));
	PUT(t, 24, void *, levels);
	PUT(t, 40 + 18 * 4, int, odd("types") ? -7 : -8);
	PUT(t, odd("index") ? 232 : 224, uint64_t, 2);
	*tp = t;
	return 0;
}

void hwloc_topology_destroy(void *topology)
{
	char *t = topology;
	struct object ***levels;
	void *counts;

	fake_calls.destroy++;
	memcpy(&levels, t + 24, sizeof(levels));
	memcpy(&counts, t + 16, sizeof(counts));
	free(levels[0][0]->attr);
	free(levels[0][0]);
	free(levels[0]);
	free(levels);
	free(counts);
	free(t);
}

void hwloc_topology_check(void *t)
{
	(void)t;
}

unsigned hwloc_get_api_version(void)
{
	return 0x20c00;
}

const void *hwloc_topology_get_support(void *t)
{
	return (char *)t + (odd("support") ? 640 : 648);
}

void hwloc_topology_set_userdata(void *t, const void *userdata)
{
	memcpy((char *)t + (odd("userdata") ? 208 : 216), &userdata, sizeof(userdata));
}

int hwloc_obj_attr_snprintf(char *text, size_t size, const void *obj, const char *separator,
			    int verbose)
{
	(void)obj, (void)separator, (void)verbose;
	return snprintf(text, size, "busid=%s id=0000:0000",
			odd("pci") ? "17561234:05:00.2" : "1234:56:17.5");
}

void *hwloc_bitmap_alloc(void)
{
	struct bitmap *b = calloc(1, sizeof(*b));

	b->allocated = 8;
	b->words = calloc(8, sizeof(long));
	return b;
}

int hwloc_bitmap_set(void *bitmap, unsigned bit)
{
	struct bitmap *b = bitmap;

	b->count = bit / 64 + 1;
	b->words[bit / 64] |= 1ul << (bit % 64);
	if (odd("bitmap"))
		b->infinite = 2;
	return 0;
}

void hwloc_bitmap_free(void *bitmap)
{
	free(((struct bitmap *)bitmap)->words);
	free(bitmap);
}

static int answer(void *t, int fd, uint64_t offset, void *addr, size_t length, unsigned long flags)
{
	fake_calls.last = (struct fake_arguments){ t, fd, offset, addr, length, flags };
	if (fake_calls.error) {
		errno = fake_calls.error;
		return -1;
	}
	return 0;
}

int hwloc_shmem_topology_get_length(void *t, size_t *lengthp, unsigned long flags)
{
	fake_calls.get_length++;
	if (!fake_calls.error)
		*lengthp = 0x123000;
	return answer(t, -1, 0, lengthp, 0, flags);
}

int hwloc_shmem_topology_write(void *t, int fd, uint64_t offset, void *addr, size_t length,
			       unsigned long flags)
{
	fake_calls.write++;
	return answer(t, fd, offset, addr, length, flags);
}

int hwloc_shmem_topology_adopt(void **tp, int fd, uint64_t offset, void *addr, size_t length,
			       unsigned long flags)
{
	fake_calls.adopt++;
	if (!fake_calls.error)
		*tp = &fake_calls;
	return answer(NULL, fd, offset, addr, length, flags);
}

/* Nothing is loaded here: a caller that has to falls back. */
int hwloc_topology_set_flags(void *t, unsigned long flags)
{
	(void)t, (void)flags;
	return -1;
}

int hwloc_topology_set_synthetic(void *t, const char *description)
{
	(void)t, (void)description;
	return -1;
}

int hwloc_topology_load(void *t)
{
	(void)t;
	return -1;
}
