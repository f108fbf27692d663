/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "dump.h"
#include <errno.h>
#include <hwloc/cpukinds.h>
#include <hwloc/diff.h>
#include <hwloc/distances.h>
#include <hwloc/export.h>
#include <hwloc/memattrs.h>
#include <stdlib.h>
#include <string.h>

static void set(FILE *out, const char *name, hwloc_const_bitmap_t bitmap)
{
	char *text = NULL;

	if (!bitmap) {
		fprintf(out, " %s=none", name);
		return;
	}
	hwloc_bitmap_list_asprintf(&text, bitmap);
	fprintf(out, " %s=%s", name, text);
	free(text);
}

static void link_to(FILE *out, const char *name, hwloc_obj_t obj)
{
	if (obj)
		fprintf(out, " %s=%d.%u", name, obj->depth, obj->logical_index);
}

static void object(hwloc_topology_t topology, hwloc_obj_t obj, FILE *out)
{
	char text[512];
	unsigned i;

	hwloc_obj_type_snprintf(text, sizeof(text), obj, 1);
	fprintf(out, "%s", text);
	hwloc_obj_attr_snprintf(text, sizeof(text), obj, "|", 1);
	fprintf(out, " {%s}", text);
	fprintf(out, " at %d.%u os=%u gp=%llu name=%s subtype=%s memory=%llu"
		" rank=%u symmetric=%d arity=%u,%u,%u,%u",
		obj->depth, obj->logical_index, obj->os_index,
		(unsigned long long)obj->gp_index, obj->name, obj->subtype,
		(unsigned long long)obj->total_memory, obj->sibling_rank,
		obj->symmetric_subtree, obj->arity, obj->memory_arity,
		obj->io_arity, obj->misc_arity);
	fprintf(out, " userdata=%p", obj->userdata);
	link_to(out, "parent", obj->parent);
	link_to(out, "next", obj->next_sibling);
	link_to(out, "prev", obj->prev_sibling);
	link_to(out, "nextc", obj->next_cousin);
	link_to(out, "prevc", obj->prev_cousin);
	link_to(out, "first", obj->first_child);
	link_to(out, "last", obj->last_child);
	link_to(out, "memory", obj->memory_first_child);
	link_to(out, "io", obj->io_first_child);
	link_to(out, "misc", obj->misc_first_child);
	for (i = 0; i < obj->arity; i++)
		link_to(out, "child", obj->children[i]);
	set(out, "cpuset", obj->cpuset);
	set(out, "complete", obj->complete_cpuset);
	set(out, "nodeset", obj->nodeset);
	set(out, "complete", obj->complete_nodeset);
	for (i = 0; i < obj->infos_count; i++)
		fprintf(out, " %s=%s", obj->infos[i].name, obj->infos[i].value);
	if (obj->type == HWLOC_OBJ_NUMANODE)
		for (i = 0; i < obj->attr->numanode.page_types_len; i++)
			fprintf(out, " page%llu=%llu",
				(unsigned long long)obj->attr->numanode.page_types[i].size,
				(unsigned long long)obj->attr->numanode.page_types[i].count);
	fprintf(out, "\n");
	(void)topology;
}

static void level(hwloc_topology_t topology, int depth, FILE *out)
{
	unsigned i, n = hwloc_get_nbobjs_by_depth(topology, depth);

	fprintf(out, "level %d: %u of type %d\n", depth, n,
		(int)hwloc_get_depth_type(topology, depth));
	for (i = 0; i < n; i++)
		object(topology, hwloc_get_obj_by_depth(topology, depth, i), out);
}

static void distances(hwloc_topology_t topology, FILE *out)
{
	struct hwloc_distances_s **all;
	unsigned nr = 0, i, j;

	hwloc_distances_get(topology, &nr, NULL, 0, 0);
	all = calloc(nr + 1, sizeof(*all));
	hwloc_distances_get(topology, &nr, all, 0, 0);
	for (i = 0; i < nr; i++) {
		const char *name = hwloc_distances_get_name(topology, all[i]);

		fprintf(out, "distances %s kind %lu:", name ? name : "-", all[i]->kind);
		for (j = 0; j < all[i]->nbobjs; j++)
			fprintf(out, " %d.%u", all[i]->objs[j]->depth,
				all[i]->objs[j]->logical_index);
		for (j = 0; j < all[i]->nbobjs * all[i]->nbobjs; j++)
			fprintf(out, " %llu", (unsigned long long)all[i]->values[j]);
		fprintf(out, "\n");
		hwloc_distances_release(topology, all[i]);
	}
	free(all);
}

static void location(FILE *out, const struct hwloc_location *l)
{
	if (l->type == HWLOC_LOCATION_TYPE_CPUSET)
		set(out, "cpus", l->location.cpuset);
	else
		fprintf(out, " obj=%d.%u", l->location.object->depth,
			l->location.object->logical_index);
}

static void memattr(hwloc_topology_t topology, hwloc_memattr_id_t id, FILE *out)
{
	unsigned nr = 0, i, j;
	unsigned long flags = 0;
	const char *name = NULL;
	hwloc_obj_t *targets, best;
	hwloc_uint64_t *values, value;
	hwloc_memattr_id_t again = -1;

	hwloc_memattr_get_name(topology, id, &name);
	hwloc_memattr_get_flags(topology, id, &flags);
	hwloc_memattr_get_by_name(topology, name, &again);
	fprintf(out, "memattr %u=%u %s flags %lu\n", id, again, name, flags);
	hwloc_memattr_get_targets(topology, id, NULL, 0, &nr, NULL, NULL);
	targets = calloc(nr + 1, sizeof(*targets));
	values = calloc(nr + 1, sizeof(*values));
	hwloc_memattr_get_targets(topology, id, NULL, 0, &nr, targets, values);
	for (i = 0; i < nr; i++) {
		struct hwloc_location *from, one;
		hwloc_uint64_t *theirs;
		unsigned n = 0;

		fprintf(out, " target %d.%u %llu:", targets[i]->depth,
			targets[i]->logical_index, (unsigned long long)values[i]);
		if (!(flags & HWLOC_MEMATTR_FLAG_NEED_INITIATOR)) {
			hwloc_memattr_get_value(topology, id, targets[i], NULL, 0, &value);
			fprintf(out, " value %llu\n", (unsigned long long)value);
			continue;
		}
		hwloc_memattr_get_initiators(topology, id, targets[i], 0, &n, NULL, NULL);
		from = calloc(n + 1, sizeof(*from));
		theirs = calloc(n + 1, sizeof(*theirs));
		hwloc_memattr_get_initiators(topology, id, targets[i], 0, &n, from, theirs);
		for (j = 0; j < n; j++) {
			location(out, &from[j]);
			fprintf(out, " %llu", (unsigned long long)theirs[j]);
			if (!hwloc_memattr_get_value(topology, id, targets[i], &from[j], 0, &value))
				fprintf(out, " value %llu", (unsigned long long)value);
			if (!hwloc_memattr_get_best_target(topology, id, &from[j], 0, &best, &value))
				fprintf(out, " best %d.%u %llu", best->depth,
					best->logical_index, (unsigned long long)value);
		}
		if (!hwloc_memattr_get_best_initiator(topology, id, targets[i], 0, &one, &value)) {
			fprintf(out, " from");
			location(out, &one);
		}
		fprintf(out, "\n");
		free(from);
		free(theirs);
	}
	free(targets);
	free(values);
}

static void cpukinds(hwloc_topology_t topology, FILE *out)
{
	int nr = hwloc_cpukinds_get_nr(topology, 0), i;
	unsigned j;

	for (i = 0; i < nr; i++) {
		hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
		struct hwloc_info_s *infos;
		unsigned n;
		int efficiency;

		hwloc_cpukinds_get_info(topology, i, cpus, &efficiency, &n, &infos, 0);
		fprintf(out, "cpukind %d of %d efficiency %d", i, nr, efficiency);
		set(out, "cpus", cpus);
		for (j = 0; j < n; j++)
			fprintf(out, " %s=%s", infos[j].name, infos[j].value);
		fprintf(out, "\n");
		hwloc_bitmap_free(cpus);
	}
}

/* Questions that are answered from several parts at once. */
static void lookups(hwloc_topology_t topology, FILE *out)
{
	hwloc_obj_t root = hwloc_get_root_obj(topology), pu, nodes[16], found[64];
	struct hwloc_distances_s *distances[4];
	struct hwloc_location from = { .type = HWLOC_LOCATION_TYPE_OBJECT };
	unsigned nr, i;
	int n;

	for (pu = NULL; (pu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, pu));) {
		if (pu->logical_index % 61)
			continue;
		from.location.object = pu;
		nr = 16;
		hwloc_get_local_numanode_objs(topology, &from, &nr, nodes,
					      HWLOC_LOCAL_NUMANODE_FLAG_LARGER_LOCALITY);
		fprintf(out, "PU %u: kind %d, nodes", pu->logical_index,
			hwloc_cpukinds_get_by_cpuset(topology, pu->cpuset, 0));
		for (i = 0; i < nr && i < 16; i++)
			fprintf(out, " %u", nodes[i]->logical_index);
		link_to(out, "above", hwloc_get_common_ancestor_obj(topology, pu,
				hwloc_get_obj_by_type(topology, HWLOC_OBJ_PU, 0)));
		link_to(out, "covering", hwloc_get_obj_covering_cpuset(topology, pu->cpuset));
		nr = hwloc_get_closest_objs(topology, pu, found, 4);
		for (i = 0; i < nr; i++)
			link_to(out, "near", found[i]);
		fprintf(out, "\n");
	}
	n = hwloc_get_largest_objs_inside_cpuset(topology, root->cpuset, found, 64);
	for (i = 0; n > 0 && i < (unsigned)n; i++)
		link_to(out, "largest", found[i]);
	nr = 4;
	if (!hwloc_distances_get_by_type(topology, HWLOC_OBJ_NUMANODE, &nr, distances, 0, 0))
		for (i = 0; i < nr && i < 4; i++) {
			fprintf(out, " by type %u", distances[i]->nbobjs);
			hwloc_distances_release(topology, distances[i]);
		}
	nr = 4;
	if (!hwloc_distances_get_by_name(topology, "mixed", &nr, distances, 0))
		for (i = 0; i < nr && i < 4; i++) {
			fprintf(out, " by name %u", distances[i]->nbobjs);
			hwloc_distances_release(topology, distances[i]);
		}
	fprintf(out, "\n");
}

static void binding(hwloc_topology_t topology, FILE *out)
{
	hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
	hwloc_membind_policy_t policy = -1;
	int rc;

	errno = 0;
	rc = hwloc_get_cpubind(topology, cpus, 0);
	fprintf(out, "cpubind %d %d", rc, rc < 0 ? errno : 0);
	set(out, "cpus", cpus);
	rc = hwloc_set_cpubind(topology, cpus, 0);
	fprintf(out, " set %d %d", rc, rc < 0 ? errno : 0);
	rc = hwloc_get_membind(topology, cpus, &policy, HWLOC_MEMBIND_BYNODESET);
	fprintf(out, " membind %d %d policy %d\n", rc, rc < 0 ? errno : 0, (int)policy);
	hwloc_bitmap_free(cpus);
}

void dump(hwloc_topology_t topology, int what, FILE *out)
{
	int depth;
	hwloc_memattr_id_t id;
	const char *name;
	const struct hwloc_topology_support *support = hwloc_topology_get_support(topology);

	fprintf(out, "this system %d flags %lu\n", hwloc_topology_is_thissystem(topology),
		hwloc_topology_get_flags(topology));
	fprintf(out, "support pu %d cpubind %d%d membind %d%d\n", support->discovery->pu,
		support->cpubind->set_thisproc_cpubind, support->cpubind->get_thread_cpubind,
		support->membind->alloc_membind, support->membind->bind_membind);
	set(out, "cpus", hwloc_topology_get_topology_cpuset(topology));
	set(out, "complete", hwloc_topology_get_complete_cpuset(topology));
	set(out, "allowed", hwloc_topology_get_allowed_cpuset(topology));
	set(out, "nodes", hwloc_topology_get_topology_nodeset(topology));
	set(out, "allowed", hwloc_topology_get_allowed_nodeset(topology));
	fprintf(out, "\n");
	for (depth = 0; depth < hwloc_topology_get_depth(topology); depth++)
		level(topology, depth, out);
	for (depth = HWLOC_TYPE_DEPTH_NUMANODE; depth >= HWLOC_TYPE_DEPTH_MEMCACHE; depth--)
		level(topology, depth, out);
	distances(topology, out);
	cpukinds(topology, out);
	lookups(topology, out);
	if (what & DUMP_MEMATTRS)
		for (id = 0; !hwloc_memattr_get_name(topology, id, &name); id++)
			memattr(topology, id, out);
	if (what & DUMP_BINDING)
		binding(topology, out);
}

int exercise(hwloc_topology_t topology, int what)
{
	char *xml = NULL, *copied = NULL, synthetic[4096];
	int length = 0, copy_length = 0, rc = -1;
	hwloc_topology_t copy;
	hwloc_topology_diff_t diff = NULL;

	hwloc_topology_check(topology);
	if (what & DUMP_REFRESH) {
		if (hwloc_topology_refresh(topology)) {
			printf("refresh fails\n");
			return -1;
		}
		hwloc_topology_check(topology);
	}
	if (hwloc_topology_dup(&copy, topology)) {
		printf("dup fails: %s\n", strerror(errno));
		return -1;
	}
	hwloc_topology_check(copy);
	hwloc_topology_export_xmlbuffer(topology, &xml, &length, 0);
	hwloc_topology_export_xmlbuffer(copy, &copied, &copy_length, 0);
	/* Stock aborts here for some machines, the original too. */
	if (!getenv("EXCHANGE_NO_SYNTHETIC"))
		hwloc_topology_export_synthetic(topology, synthetic, sizeof(synthetic), 0);
	if (!xml || length != copy_length || memcmp(xml, copied, length)) {
		printf("the copy's XML differs\n");
	} else if (what & DUMP_MEMATTRS) {
		/* 1: "too complex", as hwloc finds any memory attribute whose
		 * initiator is an object. */
		rc = hwloc_topology_diff_build(topology, copy, 0, &diff);
		if (rc < 0)
			printf("diff to the copy: %d\n", rc);
		else
			rc = hwloc_topology_diff_destroy(diff);
	} else {
		rc = 0;
	}
	hwloc_free_xmlbuffer(topology, xml);
	hwloc_free_xmlbuffer(copy, copied);
	hwloc_topology_destroy(copy);
	return rc;
}

static unsigned long words(hwloc_const_bitmap_t bitmap)
{
	unsigned long sum = 0;
	int i, n;

	if (!bitmap)
		return 0;
	n = hwloc_bitmap_nr_ulongs(bitmap);
	for (i = 0; i < n; i++)
		sum += hwloc_bitmap_to_ith_ulong(bitmap, i);
	return sum;
}

static unsigned long below(hwloc_obj_t obj)
{
	unsigned long sum = obj->gp_index + obj->os_index + obj->attr->cache.size
		+ words(obj->cpuset) + words(obj->complete_cpuset)
		+ words(obj->nodeset) + words(obj->complete_nodeset);
	hwloc_obj_t child;

	for (child = obj->first_child; child; child = child->next_sibling)
		sum += below(child);
	for (child = obj->memory_first_child; child; child = child->next_sibling)
		sum += below(child);
	for (child = obj->io_first_child; child; child = child->next_sibling)
		sum += below(child);
	for (child = obj->misc_first_child; child; child = child->next_sibling)
		sum += below(child);
	return sum;
}

unsigned long walk(hwloc_topology_t topology)
{
	return below(hwloc_get_root_obj(topology));
}
