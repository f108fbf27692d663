/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * odd_machine LIBXPMEM [CASE]: topologies as the public interface makes them and
 * nobody has them. Here random machines (differ.c) do not get to.
 */
#include "beside.h"
#include <hwloc/cpukinds.h>
#include <hwloc/diff.h>
#include <hwloc/distances.h>
#include <hwloc/export.h>
#include <hwloc/memattrs.h>
#include <limits.h>

#define HUGE_TEXT (1 << 20)

static hwloc_topology_t loaded(const char *description, unsigned long flags)
{
	hwloc_topology_t t;

	hwloc_topology_init(&t);
	hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_ALL);
	if (hwloc_topology_set_flags(t, flags)
	    || (description && hwloc_topology_set_synthetic(t, description)) || hwloc_topology_load(t))
		_exit(9);
	return t;
}

#define SYNTHETIC(name, description) \
	static unsigned long name(const struct calls *c) \
	{ \
		return shared_by(c, loaded(description, 0)); \
	}
SYNTHETIC(one_processor, "pu:1")
SYNTHETIC(far_processors, "pu:4(indexes=0,60000,1000000,4095)")
SYNTHETIC(far_nodes, "[numa(indexes=70000,3)] pack:2 [numa(indexes=9,100000)] pu:2")
SYNTHETIC(nodes_everywhere, "[numa] pack:2 [numa][numa] die:2 [numa] l3:2 [numa] core:2 [numa] pu:2")
SYNTHETIC(groups, "group:2 group:2 group:2 group:2 group:2 group:2 group:2 pu:2")
SYNTHETIC(one_below_the_other, "pack:1 die:1 l3:1 l2:1 l1d:1 l1i:1 core:1 pu:1")
SYNTHETIC(wide, "pu:3000")
SYNTHETIC(no_memory, "[numa(memory=0)] pu:2")
SYNTHETIC(all_memory, "[numa(memory=18446744073709551615)] pack:2 [numa(memory=9223372036854775808)] pu:2")

#define NATIVE(name, flags) \
	static unsigned long name(const struct calls *c) \
	{ \
		return shared_by(c, loaded(NULL, flags)); \
	}
NATIVE(native, 0)
NATIVE(native_disallowed, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED)
NATIVE(native_support, HWLOC_TOPOLOGY_FLAG_IMPORT_SUPPORT)
NATIVE(native_restricted, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING
       | HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM)

static unsigned long of_another_process(const struct calls *c)
{
	hwloc_topology_t t;

	hwloc_topology_init(&t);
	hwloc_topology_set_pid(t, getppid());
	return hwloc_topology_load(t) ? 0 : shared_by(c, t);
}

static unsigned long without_components(const struct calls *c)
{
	hwloc_topology_t t;

	setenv("HWLOC_COMPONENTS", "no_os,stop", 1);
	hwloc_topology_init(&t);
	return hwloc_topology_load(t) ? 0 : shared_by(c, t);
}

static unsigned long texts(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:2 core:2 pu:2");
	hwloc_obj_t obj = hwloc_get_root_obj(t);
	char *huge = malloc(HUGE_TEXT + 1), name[16];
	int i;

	memset(huge, 'x', HUGE_TEXT);
	huge[HUGE_TEXT] = 0;
	hwloc_obj_add_info(obj, "", "");
	hwloc_obj_add_info(obj, "", huge);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "%d", i);
		hwloc_obj_add_info(hwloc_get_obj_by_type(t, HWLOC_OBJ_PU, i % 8), name, "same");
		hwloc_obj_add_info(hwloc_get_obj_by_type(t, HWLOC_OBJ_PU, i % 8), "same", name);
	}
	obj->name = strdup("\xff\xfe\x01");
	obj->subtype = strdup("");
	return shared_by(c, t);
}

static unsigned long everywhere_misc(const struct calls *c)
{
	hwloc_topology_t t = machine("[numa] pack:2 core:2 pu:2");
	hwloc_obj_t at = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, 0);
	int i;

	for (i = 0; i < 40; i++)
		at = hwloc_topology_insert_misc_object(t, at, i % 2 ? "" : "deep");
	for (i = 0; i < 500; i++)
		hwloc_topology_insert_misc_object(t, hwloc_get_obj_by_type(t, HWLOC_OBJ_PU, i % 8), "wide");
	return shared_by(c, t);
}

static unsigned long attributes(const struct calls *c)
{
	static const hwloc_uint64_t values[] = { 0, 1, UINT64_MAX, 1ul << 63 };
	hwloc_topology_t t = machine("[numa] pack:4 [numa] core:2 pu:2");
	struct hwloc_location l = { .type = HWLOC_LOCATION_TYPE_OBJECT };
	hwloc_memattr_id_t id;
	char name[32];
	int i;

	for (i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "attribute %d", i);
		if (hwloc_memattr_register(t, name, i % 2 ? 1 : 5, &id))
			return 0;
		l.location.object = hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, i % 4);
		hwloc_memattr_set_value(t, id, hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, i % 5),
					i % 2 ? NULL : &l, 0, values[i % 4]);
	}
	return shared_by(c, t);
}

static unsigned long many_distances(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:4 [numa] core:4 pu:2");
	hwloc_obj_t objs[32];
	hwloc_uint64_t values[32 * 32];
	int i, k;

	for (k = 0; k < 32; k++)
		objs[k] = hwloc_get_obj_by_type(t, HWLOC_OBJ_PU, k);
	for (k = 0; k < 32 * 32; k++)
		values[k] = k % 7 ? UINT64_MAX - k : 0;
	for (i = 0; i < 100; i++) {
		hwloc_distances_add_handle_t handle = hwloc_distances_add_create(t, i % 3 ? "same" : NULL,
			HWLOC_DISTANCES_KIND_FROM_USER | HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0);

		if (!handle || hwloc_distances_add_values(t, handle, 2 + i % 31, objs, values, 0)
		    || hwloc_distances_add_commit(t, handle, 0))
			return 0;
	}
	return shared_by(c, t);
}

static unsigned long kinds(const struct calls *c)
{
	static const int efficiencies[] = { -1, 0, INT_MAX, 7 };
	hwloc_topology_t t = machine("pack:2 core:32 pu:2");
	struct hwloc_info_s info = { "", "" };
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	int i;

	for (i = 0; i < 100; i++) {
		hwloc_bitmap_zero(set);
		hwloc_bitmap_set_range(set, i, i % 5 ? i + i % 9 : -1);
		hwloc_cpukinds_register(t, set, efficiencies[i % 4], i % 2, &info, 0);
	}
	return shared_by(c, t);
}

static unsigned long group_objects(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:4 core:8 pu:2");
	int i;

	for (i = 0; i < 30; i++) {
		hwloc_obj_t g = hwloc_topology_alloc_group_object(t);

		hwloc_obj_add_other_obj_sets(g, hwloc_get_obj_by_type(t, HWLOC_OBJ_CORE, i % 8));
		if (i > 8)
			hwloc_obj_add_other_obj_sets(g, hwloc_get_obj_by_type(t, HWLOC_OBJ_CORE, i % 7 + 1));
		g->attr->group.dont_merge = i % 2;
		g->attr->group.kind = UINT_MAX - i;
		g->attr->group.subkind = i;
		hwloc_topology_insert_group_object(t, g);
	}
	return shared_by(c, t);
}

static unsigned long restricted_twice(const struct calls *c)
{
	hwloc_topology_t t = machine("[numa] pack:4 [numa] core:4 pu:2");
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	unsigned long said;

	hwloc_bitmap_set_range(set, 3, 20);
	hwloc_topology_restrict(t, set, 0);
	said = shared_by(c, t);
	hwloc_bitmap_only(set, 9);
	hwloc_topology_restrict(t, set, HWLOC_RESTRICT_FLAG_REMOVE_CPULESS);
	return said + shared_by(c, t);
}

static unsigned long filtered(const struct calls *c)
{
	hwloc_topology_t t;
	int type;

	hwloc_topology_init(&t);
	for (type = HWLOC_OBJ_TYPE_MIN; type < HWLOC_OBJ_TYPE_MAX; type++)
		hwloc_topology_set_type_filter(t, type, HWLOC_TYPE_FILTER_KEEP_NONE);
	hwloc_topology_set_synthetic(t, "pack:2 die:2 l3:2 l2:2 core:2 pu:2");
	return hwloc_topology_load(t) ? 0 : shared_by(c, t);
}

static unsigned long differed(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:2 [numa] core:2 pu:2"), other = machine("pack:2 [numa] core:2 pu:2");
	hwloc_topology_diff_t diff;

	hwloc_get_obj_by_type(other, HWLOC_OBJ_PACKAGE, 1)->name = strdup("changed");
	hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, 1)->name = strdup("as it was");
	hwloc_get_obj_by_type(other, HWLOC_OBJ_NUMANODE, 1)->attr->numanode.local_memory += 4096;
	if (hwloc_topology_diff_build(t, other, 0, &diff) || hwloc_topology_diff_apply(t, diff, 0))
		return 1;
	return shared_by(c, t);
}

static void exported(void *reserved, hwloc_topology_t t, hwloc_obj_t obj)
{
	(void)obj;
	hwloc_export_obj_userdata(reserved, t, obj, "name", "value", 5);
}

static unsigned long with_userdata(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:2 core:2 pu:2"), back;
	hwloc_obj_t obj = NULL;
	char *xml;
	int n;

	while ((obj = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_PU, obj)))
		obj->userdata = obj;
	hwloc_topology_set_userdata(t, t);
	hwloc_topology_set_userdata_export_callback(t, exported);
	if (hwloc_topology_export_xmlbuffer(t, &xml, &n, 0))
		return 0;
	/* Nobody decodes it. */
	hwloc_topology_init(&back);
	hwloc_topology_set_xmlbuffer(back, xml, n);
	return hwloc_topology_load(back) ? 0 : shared_by(c, t) + shared_by(c, back);
}

static unsigned long allowed_none(const struct calls *c)
{
	hwloc_topology_t t = loaded("pack:2 [numa] core:4 pu:2", HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
	hwloc_bitmap_t cpus = hwloc_bitmap_alloc(), nodes = hwloc_bitmap_alloc();

	hwloc_bitmap_only(cpus, 5);
	hwloc_bitmap_only(nodes, 1);
	hwloc_topology_allow(t, cpus, nodes, HWLOC_ALLOW_FLAG_CUSTOM);
	return shared_by(c, t);
}

static unsigned long refreshed(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:2 [numa] core:4 pu:2");

	hwloc_topology_refresh(t);
	hwloc_topology_refresh(t);
	return shared_by(c, t);
}

/* A number that the machine does not have. */
static unsigned long renumbered(const struct calls *c)
{
	hwloc_topology_t t = machine("pack:2 [numa] core:4 pu:2");

	hwloc_get_obj_by_type(t, HWLOC_OBJ_CORE, 1)->os_index = (unsigned)-1;
	hwloc_get_obj_by_type(t, HWLOC_OBJ_PACKAGE, 1)->os_index = 0;
	return shared_by(c, t);
}

static unsigned long not_loaded(const struct calls *c)
{
	hwloc_topology_t t;

	hwloc_topology_init(&t);
	return shared_by(c, t);
}

#define CASE(name) { #name, name, 0 }
static const struct beside cases[] = {
	CASE(one_processor), CASE(far_processors), CASE(far_nodes), CASE(nodes_everywhere), CASE(groups),
	CASE(one_below_the_other), CASE(wide), CASE(no_memory), CASE(all_memory), CASE(native),
	CASE(native_disallowed), CASE(native_support), CASE(native_restricted), CASE(of_another_process),
	CASE(without_components), CASE(texts), CASE(everywhere_misc), CASE(attributes),
	CASE(many_distances), CASE(kinds), CASE(group_objects), CASE(restricted_twice), CASE(filtered),
	CASE(differed), CASE(with_userdata), CASE(allowed_none), CASE(refreshed), CASE(renumbered),
	CASE(not_loaded),
	{ NULL, NULL, 0 },
};

int main(int argc, char **argv)
{
	load_sides(argc > 1 ? argv[1] : "libxpmem.so.0");
	beside(cases, argc > 2 ? argv[2] : NULL);
	return finish();
}
