/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Memory attributes whose values depend on who asks: objects and sets of
 * processors, also those that a restriction took away. What is adopted answers
 * as the original does, where hwloc does not crash over that.
 */
#include "check.h"

static void *const addr = (void *)0x340000000000;
static hwloc_memattr_id_t id;

static hwloc_topology_t exchanged(hwloc_topology_t t)
{
	int fd = memfd_create("initiators", MFD_CLOEXEC);
	hwloc_topology_t adopted = NULL;
	size_t length = put(t, fd, 0, addr);

	CHECK("written", length != 0);
	CHECK("adopted", length && !hwloc_shmem_topology_adopt(&adopted, fd, 0, addr, length, 0));
	close(fd);
	if (!adopted)
		exit(finish());
	return adopted;
}

static hwloc_obj_t object(hwloc_topology_t t, hwloc_obj_type_t type, unsigned i)
{
	return hwloc_get_obj_by_type(t, type, i);
}

static void set(hwloc_topology_t t, hwloc_obj_t target, hwloc_obj_t from, hwloc_uint64_t value)
{
	struct hwloc_location l = { .type = HWLOC_LOCATION_TYPE_OBJECT };

	l.location.object = from;
	CHECK("set", !hwloc_memattr_set_value(t, id, target, &l, 0, value));
}

static void set_cpus(hwloc_topology_t t, hwloc_obj_t target, unsigned first, unsigned last,
		     hwloc_uint64_t value)
{
	struct hwloc_location l = { .type = HWLOC_LOCATION_TYPE_CPUSET };
	hwloc_bitmap_t set = hwloc_bitmap_alloc();

	hwloc_bitmap_set_range(set, first, last);
	l.location.cpuset = set;
	CHECK("set", !hwloc_memattr_set_value(t, id, target, &l, 0, value));
	hwloc_bitmap_free(set);
}

/* How many initiators there are, or -1. */
static int initiators(hwloc_topology_t t, hwloc_obj_t target, struct hwloc_location *from,
		      hwloc_uint64_t *values)
{
	unsigned n = 16;

	return hwloc_memattr_get_initiators(t, id, target, 0, &n, from, values) ? -1 : (int)n;
}

/* hwloc leaves the pointer of a second initiator as its stack was. */
static void __attribute__((noinline)) scribble(unsigned long value)
{
	volatile unsigned long stack[600];
	int i;

	for (i = 0; i < 600; i++)
		stack[i] = value;
	(void)stack[0];
}

static void objects(const char *description, hwloc_obj_type_t type, unsigned long rubbish)
{
	hwloc_topology_t t = machine(description), a;
	int nodes = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
	int from = hwloc_get_nbobjs_by_type(t, type), i, j, n;
	struct hwloc_location l[16];
	hwloc_uint64_t values[16], value;
	hwloc_obj_t best;

	id = HWLOC_MEMATTR_ID_BANDWIDTH;
	for (i = 0; i < from; i++)
		for (j = 0; j < nodes; j++) {
			scribble(rubbish);
			set(t, object(t, HWLOC_OBJ_NUMANODE, j), object(t, type, i), 100 + i * 10 + j);
		}
	a = exchanged(t);
	for (j = 0; j < nodes; j++) {
		n = initiators(a, object(a, HWLOC_OBJ_NUMANODE, j), l, values);
		CHECK("all of them", n == from);
		for (i = 0; i < n; i++) {
			CHECK("the object", l[i].type == HWLOC_LOCATION_TYPE_OBJECT
			      && l[i].location.object == object(a, type, i));
			CHECK("its value", values[i] == (hwloc_uint64_t)(100 + i * 10 + j));
			CHECK("asked for", !hwloc_memattr_get_value(a, id,
				object(a, HWLOC_OBJ_NUMANODE, j), &l[i], 0, &value)
			      && value == values[i]);
			CHECK("the best", !hwloc_memattr_get_best_target(a, id, &l[i], 0, &best, &value)
			      && best == object(a, HWLOC_OBJ_NUMANODE, nodes - 1));
		}
		CHECK("from the best", !hwloc_memattr_get_best_initiator(a, id,
			object(a, HWLOC_OBJ_NUMANODE, j), 0, &l[0], &value)
		      && l[0].location.object == object(a, type, from - 1));
	}
	hwloc_topology_destroy(a);
	hwloc_topology_destroy(t);
}

/* Objects and processors that a restriction took away, not yet asked for. */
static void restricted(void)
{
	hwloc_topology_t t = machine("pack:2 core:4 pu:1"), a;
	hwloc_bitmap_t left = hwloc_bitmap_alloc();
	struct hwloc_location l[16];
	hwloc_uint64_t values[16];
	hwloc_obj_t node;
	int n;

	CHECK("register", !hwloc_memattr_register(t, "restricted", 5, &id));
	node = object(t, HWLOC_OBJ_NUMANODE, 0);
	set_cpus(t, node, 0, 3, 10);
	set_cpus(t, node, 4, 7, 11);
	set(t, node, object(t, HWLOC_OBJ_PACKAGE, 1), 12);
	set(t, node, object(t, HWLOC_OBJ_PACKAGE, 0), 13);
	hwloc_bitmap_set_range(left, 0, 2);
	CHECK("restrict", !hwloc_topology_restrict(t, left, 0));
	a = exchanged(t);
	n = initiators(a, object(a, HWLOC_OBJ_NUMANODE, 0), l, values);
	CHECK("two are left", n == 2);
	CHECK("the processors that are left", n == 2 && hwloc_bitmap_isequal(l[0].location.cpuset, left)
	      && values[0] == 10);
	CHECK("the package that is left", n == 2 && values[1] == 13
	      && l[1].location.object == object(a, HWLOC_OBJ_PACKAGE, 0));
	hwloc_topology_destroy(a);
	/* The writer's own is as it would be without us. */
	n = initiators(t, object(t, HWLOC_OBJ_NUMANODE, 0), l, values);
	CHECK("two are left", n == 2 && values[0] == 10 && values[1] == 13);
	hwloc_topology_destroy(t);
	hwloc_bitmap_free(left);
}

/* A target none of whose initiators is left is none. */
static void gone(void)
{
	hwloc_topology_t t = machine("pack:2 core:2 pu:1"), a;
	hwloc_bitmap_t left = hwloc_bitmap_alloc();
	unsigned n = 0;

	CHECK("register", !hwloc_memattr_register(t, "gone", 5, &id));
	set_cpus(t, object(t, HWLOC_OBJ_NUMANODE, 0), 2, 3, 10);
	hwloc_bitmap_set_range(left, 0, 1);
	CHECK("restrict", !hwloc_topology_restrict(t, left, 0));
	a = exchanged(t);
	CHECK("no target", !hwloc_memattr_get_targets(a, id, NULL, 0, &n, NULL, NULL) && n == 0);
	hwloc_topology_destroy(a);
	hwloc_topology_destroy(t);
	hwloc_bitmap_free(left);
}

/* A number that the program gave a processor is no set that it was in. Of many
 * processors the sets are looked at only where the numbers are not in order. */
static void renumbered(const char *description, unsigned which, unsigned number)
{
	hwloc_topology_t t = machine(description), a;
	unsigned i, n = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU), same = 0;

	object(t, HWLOC_OBJ_PU, which)->os_index = number;
	object(t, HWLOC_OBJ_NUMANODE, 0)->attr->numanode.local_memory = 12345;
	a = exchanged(t);
	for (i = 0; i < n; i++) {
		hwloc_obj_t was = object(t, HWLOC_OBJ_PU, i), is = object(a, HWLOC_OBJ_PU, i);

		same += is->os_index == was->os_index
			&& hwloc_bitmap_isequal(is->cpuset, was->cpuset)
			&& hwloc_bitmap_isequal(is->complete_cpuset, was->complete_cpuset);
	}
	CHECK("numbers and sets", same == n);
	CHECK("the memory", object(a, HWLOC_OBJ_NUMANODE, 0)->attr->numanode.local_memory == 12345);
	hwloc_topology_destroy(a);
	hwloc_topology_destroy(t);
}

int main(void)
{
	static const char *const machines[] = { "pack:2 core:2 pu:2", "pu:2100", "core:1100 pu:2" };
	unsigned long rubbish[] = { 0, 8, 0x5a5a5a5a5a58, 0xffffffffffffffff };
	unsigned i;

	for (i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
		objects("pack:2 [numa] core:4 pu:2", HWLOC_OBJ_PACKAGE, rubbish[i]);
		objects("pu:8", HWLOC_OBJ_PU, rubbish[i]);
		objects("pack:2 [numa] [numa] l3:2 core:2 pu:1", HWLOC_OBJ_L3CACHE, rubbish[i]);
	}
	restricted();
	gone();
	for (i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
		/* Before, behind and among those of others. */
		renumbered(machines[i], 0, 1);
		renumbered(machines[i], 0, 2);
		renumbered(machines[i], 1, 0);
		renumbered(machines[i], 1, 3);
		renumbered(machines[i], 1, 77);
		renumbered(machines[i], 2, 1);
		renumbered(machines[i], 7, 100000);
		renumbered(machines[i], 7, -1);
	}
	return finish();
}
