/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * differ LIBXPMEM MACHINES SEED [FIRST]: random machines, changed in every way that
 * hwloc's interface offers, each written and adopted by stock and by us, in all
 * pairs. What each adopted topology answers is what a copy of the original
 * answers, and wherever stock succeeds we do.
 *
 * With DIFFER_XML=FOLDER every third is a real machine, of which that has files.
 *
 * Each machine is a process of its own. Where hwloc itself dies while the
 * machine is made or copied, or in a pair of its own, there is nothing to
 * compare with: such are counted.
 */
#include "check.h"
#include "dump.h"
#include "random.h"
#include "work.h"
#include <dlfcn.h>
#include <glob.h>
#include <hwloc/cpukinds.h>
#include <hwloc/distances.h>
#include <hwloc/export.h>
#include <hwloc/memattrs.h>
#include <signal.h>

static void *const addr = (void *)0x360000000000;

struct calls {
	int (*get_length)(hwloc_topology_t, size_t *, unsigned long);
	int (*write)(hwloc_topology_t, int, uint64_t, void *, size_t, unsigned long);
	int (*adopt)(hwloc_topology_t *, int, uint64_t, void *, size_t, unsigned long);
};

static struct calls stock = {
	hwloc_shmem_topology_get_length, hwloc_shmem_topology_write, hwloc_shmem_topology_adopt,
};
static struct calls ours;

/* What a child shares with its parent. */
static struct {
	const char *doing;
	int stock_works;	/* whose code runs: a crash is hwloc's own */
	int odd;		/* hwloc's own check would abort */
	int own_pair;		/* stock fails over what stock wrote */
	int own_change;		/* hwloc fails when it changes a copy of its own */
	char history[4096];
} *shared;

static unsigned below(unsigned n)
{
	return n ? next() % n : 0;
}

static void note(const char *what)
{
	size_t n = strlen(shared->history);

	snprintf(shared->history + n, sizeof(shared->history) - n, "%s ", what);
}

static hwloc_obj_t any_at(hwloc_topology_t t, int depth)
{
	return hwloc_get_obj_by_depth(t, depth, below(hwloc_get_nbobjs_by_depth(t, depth)));
}

static hwloc_obj_t any_normal(hwloc_topology_t t)
{
	return any_at(t, below(hwloc_topology_get_depth(t)));
}

static hwloc_obj_t any(hwloc_topology_t t)
{
	static const int depths[] = { HWLOC_TYPE_DEPTH_NUMANODE, HWLOC_TYPE_DEPTH_MISC,
				      HWLOC_TYPE_DEPTH_MEMCACHE, HWLOC_TYPE_DEPTH_PCI_DEVICE,
				      HWLOC_TYPE_DEPTH_OS_DEVICE, HWLOC_TYPE_DEPTH_BRIDGE };
	int depth = depths[below(getenv("DIFFER_XML") ? 6 : 3)];

	if (below(3) || !hwloc_get_nbobjs_by_depth(t, depth))
		return any_normal(t);
	return any_at(t, depth);
}

static hwloc_bitmap_t some_cpus(hwloc_topology_t t)
{
	hwloc_bitmap_t set = hwloc_bitmap_alloc();
	int i, n = 1 + below(3);

	for (i = 0; i < n; i++)
		hwloc_bitmap_or(set, set, any_normal(t)->cpuset);
	return set;
}

static void word(char *text, size_t size)
{
	size_t i, n = below(size);

	for (i = 0; i < n; i++)
		text[i] = "abcdefghij klmnop&<>\"xyz\xc3\xa4"[below(26)];
	text[n] = 0;
}

/* A real machine: one of the files in the folder DIFFER_XML, devices and all. */
static hwloc_topology_t real(void)
{
	static glob_t files;
	hwloc_topology_t t;
	char pattern[4096];
	const char *path;

	snprintf(pattern, sizeof(pattern), "%s/*.xml", getenv("DIFFER_XML"));
	if (glob(pattern, 0, NULL, &files) || !files.gl_pathc)
		_exit(77);
	path = files.gl_pathv[below(files.gl_pathc)];
	note(strrchr(path, '/') + 1);
	hwloc_topology_init(&t);
	hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_ALL);
	if (!below(4))
		hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
	if (!below(4))
		hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
	if (hwloc_topology_set_xml(t, path) || hwloc_topology_load(t))
		_exit(77);
	return t;
}

static hwloc_topology_t made(void)
{
	char text[512] = "", part[64];
	static const char *const levels[] = { "die", "group", "l3", "l2", "l1d", "l1i", "core" };
	static const unsigned long flags[] = { 0, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED,
					       HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM };
	hwloc_topology_t t;
	int from_file = getenv("DIFFER_XML") && !below(3);
	unsigned i, numa = below(3), room = below(40) ? 96 : 3000, n;

	if (from_file)
		return real();
	snprintf(text, sizeof(text), "pack:%u ", n = 1 + below(4));
	room /= n;
	for (i = 0; i < numa; i++)
		strcat(text, below(3) || hwloc_get_api_version() < 0x20a00 ? "[numa(memory=1234567)] "
		       : "[numa(memory=99999 memorysidecachesize=4096)] ");
	for (i = 0; i < 7; i++) {
		if (below(2))
			continue;
		n = 1 + below(room < 4 ? room : 4);
		room /= n ? n : 1;
		snprintf(part, sizeof(part), "%s:%u ", levels[i], n ? n : 1);
		strcat(text, part);
	}
	snprintf(part, sizeof(part), "pu:%u", 1 + below(room ? room : 1));
	strcat(text, part);
	if (!below(3))
		strcat(text, strstr(text, "core") && below(2) ? "(indexes=core:pu)" : "(indexes=pack:pu)");
	hwloc_topology_init(&t);
	hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_ALL);
	if (!below(4))
		hwloc_topology_set_cache_types_filter(t, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
	hwloc_topology_set_flags(t, flags[below(3)]);
	note(text);
	if (hwloc_topology_set_synthetic(t, text) || hwloc_topology_load(t))
		_exit(77);
	return t;
}

/* A copy of hwloc's has no numbers to group by: they are not set. */
static int is_copy;

static void add_distances(hwloc_topology_t t)
{
	static const unsigned long kinds[] = {
		HWLOC_DISTANCES_KIND_FROM_USER | HWLOC_DISTANCES_KIND_MEANS_LATENCY,
		HWLOC_DISTANCES_KIND_FROM_USER | HWLOC_DISTANCES_KIND_MEANS_BANDWIDTH,
	};
	hwloc_distances_add_handle_t handle;
	hwloc_obj_t objs[32];
	hwloc_uint64_t values[32 * 32];
	unsigned n = 0, i, mixed = !below(4);
	int depth = below(5) ? (int)below(hwloc_topology_get_depth(t)) : HWLOC_TYPE_DEPTH_NUMANODE;
	char name[16];

	word(name, sizeof(name));
	if (mixed) {
		n = 2 + below(6);
		for (i = 0; i < n; i++)
			objs[i] = any(t);
	} else {
		unsigned all = hwloc_get_nbobjs_by_depth(t, depth);

		for (i = 0; i < all && n < 32; i++)
			if (below(4))
				objs[n++] = hwloc_get_obj_by_depth(t, depth, i);
	}
	for (i = 0; i < n * n; i++)
		values[i] = below(100);
	handle = hwloc_distances_add_create(t, below(3) ? name : NULL, kinds[below(2)], 0);
	if (handle && !hwloc_distances_add_values(t, handle, n, objs, values, 0))
		hwloc_distances_add_commit(t, handle, below(4) || is_copy ? 0
					   : HWLOC_DISTANCES_ADD_FLAG_GROUP
					   | HWLOC_DISTANCES_ADD_FLAG_GROUP_INACCURATE);
}

static void change_distances(hwloc_topology_t t)
{
	struct hwloc_distances_s *all[4];
	unsigned n = 4;

	if (!below(4)) {
		hwloc_distances_remove_by_depth(t, any(t)->depth);
		return;
	}
	if (hwloc_distances_get(t, &n, all, 0, 0) || !n)
		return;
	if (n > 4)
		n = 4;
	while (n--)
		if (!below(2)) {
			hwloc_distances_release_remove(t, all[n]);
		} else {
			hwloc_distances_transform(t, all[n], below(4), NULL, 0);
			hwloc_distances_release(t, all[n]);
		}
}

static void memattrs(hwloc_topology_t t)
{
	static const unsigned long flags[] = { 1, 2, 5, 6 };
	hwloc_memattr_id_t id = 2 + below(4);
	struct hwloc_location l;
	hwloc_bitmap_t set = NULL;
	unsigned i, n = 1 + below(8);
	unsigned long f;
	char name[16];

	word(name, sizeof(name));
	if (below(2) && hwloc_memattr_register(t, name, flags[below(4)], &id))
		return;
	if (hwloc_memattr_get_flags(t, id, &f))
		return;
	for (i = 0; i < n; i++) {
		hwloc_obj_t target = below(8) ? any_at(t, HWLOC_TYPE_DEPTH_NUMANODE) : any(t);

		if (below(2)) {
			l.type = HWLOC_LOCATION_TYPE_OBJECT;
			l.location.object = any(t);
		} else {
			l.type = HWLOC_LOCATION_TYPE_CPUSET;
			l.location.cpuset = set = some_cpus(t);
		}
		hwloc_memattr_set_value(t, id, target,
					f & HWLOC_MEMATTR_FLAG_NEED_INITIATOR ? &l : NULL, 0, below(1000));
		hwloc_bitmap_free(set);
		set = NULL;
	}
}

static void kinds(hwloc_topology_t t)
{
	struct hwloc_info_s infos[2];
	hwloc_bitmap_t set = some_cpus(t);
	char name[16], value[64];

	word(name, sizeof(name));
	word(value, sizeof(value));
	infos[0].name = name;
	infos[0].value = value;
	infos[1].name = "CoreType";
	infos[1].value = below(2) ? "IntelAtom" : "IntelCore";
	hwloc_cpukinds_register(t, set, (int)below(5) - 1, below(3), infos, 0);
	hwloc_bitmap_free(set);
}

static void group(hwloc_topology_t t)
{
	hwloc_obj_t g = hwloc_topology_alloc_group_object(t);
	int i, n = 1 + below(4);

	if (!g)
		return;
	for (i = 0; i < n; i++)
		hwloc_obj_add_other_obj_sets(g, any_normal(t));
	g->attr->group.subkind = below(3);
	g->attr->group.dont_merge = !below(3);
	if (below(2)) {
		g->subtype = strdup("ours");
		hwloc_obj_add_info(g, "group", "one");
	}
	hwloc_topology_insert_group_object(t, g);
}

static void misc(hwloc_topology_t t)
{
	hwloc_obj_t at = any(t);
	int i, n = below(6) ? 1 : below(60);
	char name[32];

	for (i = 0; i < n && at; i++) {
		word(name, sizeof(name));
		at = hwloc_topology_insert_misc_object(t, at, name);
	}
}

static void restricted(hwloc_topology_t t)
{
	hwloc_bitmap_t set = some_cpus(t);
	unsigned long flags = 0;
	int kinds = hwloc_cpukinds_get_nr(t, 0);

	if (below(2))
		flags |= HWLOC_RESTRICT_FLAG_ADAPT_MISC;
	if (getenv("DIFFER_XML") && below(2))
		flags |= HWLOC_RESTRICT_FLAG_ADAPT_IO;
	if (!below(3)) {
		hwloc_bitmap_zero(set);
		hwloc_bitmap_or(set, set, any_at(t, HWLOC_TYPE_DEPTH_NUMANODE)->nodeset);
		flags |= HWLOC_RESTRICT_FLAG_BYNODESET;
		if (below(2))
			flags |= HWLOC_RESTRICT_FLAG_REMOVE_MEMLESS;
	} else if (below(2)) {
		flags |= HWLOC_RESTRICT_FLAG_REMOVE_CPULESS;
	}
	/* A kind that goes leaves texts that hwloc has freed and reads again: who
	 * comes to what by that is luck, of the next reader as of hwloc. */
	if (hwloc_topology_restrict(t, set, flags) || hwloc_cpukinds_get_nr(t, 0) != kinds)
		_exit(77);
	hwloc_bitmap_free(set);
}

static void texts(hwloc_topology_t t)
{
	hwloc_obj_t obj = any(t);
	char name[64], value[64];

	word(name, sizeof(name));
	word(value, sizeof(value));
	switch (below(4)) {
	case 0:
		free(obj->name);
		obj->name = strdup(name);
		break;
	case 1:
		free(obj->subtype);
		obj->subtype = strdup(value);
		break;
	case 2:
		obj->userdata = (void *)(uintptr_t)below(100000);
		hwloc_topology_set_userdata(t, obj);
		break;
	default:
		hwloc_obj_add_info(obj, name, value);
	}
}

static void allowed(hwloc_topology_t t)
{
	hwloc_bitmap_t set = some_cpus(t);

	hwloc_topology_allow(t, set, NULL, below(2) ? HWLOC_ALLOW_FLAG_CUSTOM : HWLOC_ALLOW_FLAG_ALL);
	hwloc_bitmap_free(set);
}

static void numbers(hwloc_topology_t t)
{
	hwloc_obj_t obj;

	shared->odd = 1;
	switch (below(4)) {
	case 0:
		any_at(t, HWLOC_TYPE_DEPTH_NUMANODE)->attr->numanode.local_memory = below(1 << 30);
		break;
	case 1:
		obj = any_normal(t);
		if (hwloc_obj_type_is_cache(obj->type))
			obj->attr->cache.depth = below(9);
		break;
	case 2:
		obj = any_normal(t);
		if (obj->type != HWLOC_OBJ_PU)
			obj->os_index = below(100000);
		break;
	default:
		obj = any_normal(t);
		if (obj->type == HWLOC_OBJ_GROUP)
			obj->attr->group.kind = below(2000);
	}
}

/* Through XML and back: numbers that another process gave. */
static hwloc_topology_t carried(hwloc_topology_t t)
{
	hwloc_topology_t back;
	char *xml;
	int length;

	if (hwloc_topology_export_xmlbuffer(t, &xml, &length, 0))
		_exit(77);
	hwloc_topology_init(&back);
	hwloc_topology_set_all_types_filter(back, HWLOC_TYPE_FILTER_KEEP_ALL);
	hwloc_topology_set_flags(back, hwloc_topology_get_flags(t));
	if (hwloc_topology_set_xmlbuffer(back, xml, length) || hwloc_topology_load(back))
		_exit(77);
	hwloc_topology_destroy(t);
	return back;
}

/* Whether a copy of hwloc's shares memory with the original, which each of them
 * frees: it does where a restriction has left a target of a memory attribute no
 * initiator. What comes of that is luck. Only this layout says so. */
static int copies_share(hwloc_topology_t t)
{
	struct target {
		void *obj;
		unsigned type, os_index;
		uint64_t gp_index, value;
		unsigned nr_initiators;
		void *initiators;
	};
	struct memattr {
		char *name;
		unsigned long flags;
		unsigned iflags, nr_targets;
		struct target *targets;
	} *attrs = *(struct memattr **)((char *)t + 728);
	unsigned n = *(unsigned *)((char *)t + 724), i, k;

	for (i = 0; i < n; i++) {
		if (!attrs[i].nr_targets && attrs[i].targets)
			return 1;
		for (k = 0; k < attrs[i].nr_targets; k++)
			if (!attrs[i].targets[k].nr_initiators && attrs[i].targets[k].initiators)
				return 1;
	}
	return 0;
}

static hwloc_topology_t copy_of(hwloc_topology_t t)
{
	hwloc_topology_t copy;

	if (copies_share(t) || hwloc_topology_dup(&copy, t))
		_exit(77);
	return copy;
}

static hwloc_topology_t copied(hwloc_topology_t t)
{
	hwloc_topology_t copy = copy_of(t);

	hwloc_topology_destroy(t);
	return copy;
}

static hwloc_topology_t changed(hwloc_topology_t t)
{
	static void (*const ways[])(hwloc_topology_t) = {
		add_distances, change_distances, memattrs, memattrs, kinds, group, misc, restricted,
		texts, allowed,
	};
	static const char *const names[] = {
		"distances", "change-distances", "memattrs", "memattrs", "kinds", "group", "misc",
		"restrict", "texts", "allow",
	};
	unsigned n = below(14), way;

	while (n--) {
		way = below(13);
		if (way < 10) {
			note(names[way]);
			ways[way](t);
		} else if (way == 10) {
			note("xml");
			t = carried(t);
		} else if (way == 11) {
			note("dup");
			t = copied(t);
		} else {
			note("refresh");
			hwloc_topology_refresh(t);
		}
	}
	if (!below(8)) {
		note("numbers");
		numbers(t);
	}
	return t;
}

static char *text_of(hwloc_topology_t t, int what)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	dump(t, what, out);
	fclose(out);
	return text;
}

static int is_object_of(hwloc_topology_t t, hwloc_obj_t wanted)
{
	static const int levels[] = {
		HWLOC_TYPE_DEPTH_NUMANODE, HWLOC_TYPE_DEPTH_BRIDGE, HWLOC_TYPE_DEPTH_PCI_DEVICE,
		HWLOC_TYPE_DEPTH_OS_DEVICE, HWLOC_TYPE_DEPTH_MISC, HWLOC_TYPE_DEPTH_MEMCACHE,
	};
	int normal = hwloc_topology_get_depth(t), n = sizeof(levels) / sizeof(*levels), i;

	for (i = 0; i < normal + n; i++) {
		int depth = i < normal ? i : levels[i - normal];
		hwloc_obj_t obj = NULL;

		while ((obj = hwloc_get_next_obj_by_depth(t, depth, obj)))
			if (obj == wanted)
				return 1;
	}
	return 0;
}

/* Whether hwloc answers with an initiator that it has freed itself, as some do after a
 * restriction: what can be read there is luck. */
static int has_freed_initiators(hwloc_topology_t t)
{
	unsigned long flags;
	hwloc_memattr_id_t id;
	unsigned i, k;

	for (id = 0; !hwloc_memattr_get_flags(t, id, &flags); id++) {
		hwloc_obj_t targets[64];
		unsigned nr = 64;

		if (!(flags & HWLOC_MEMATTR_FLAG_NEED_INITIATOR)
		    || hwloc_memattr_get_targets(t, id, NULL, 0, &nr, targets, NULL))
			continue;
		for (i = 0; i < nr && i < 64; i++) {
			struct hwloc_location from[64];
			unsigned n = 64;

			if (hwloc_memattr_get_initiators(t, id, targets[i], 0, &n, from, NULL))
				continue;
			for (k = 0; k < n && k < 64; k++)
				if (from[k].type == HWLOC_LOCATION_TYPE_OBJECT
				    && !is_object_of(t, from[k].location.object))
					return 1;
		}
	}
	return 0;
}

/* The original's answers are luck, in part. */
static int by_luck;

/* As text_of, of a topology that is not to change by being asked. */
static char *text_aside(hwloc_topology_t t, int what)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	char *text;
	off_t size;

	if (child()) {
		FILE *out = fdopen(fd, "w");

		dump(t, what, out);
		fclose(out);
		_exit(0);
	}
	if (!child_passed())
		_exit(77);
	if (child())
		_exit(has_freed_initiators(t));
	by_luck = !child_passed();
	size = lseek(fd, 0, SEEK_END);
	text = calloc(1, size + 1);
	if (pread(fd, text, size, 0) != size)
		_exit(77);
	close(fd);
	return text;
}

/* Fails unless `got` is what a copy of the original answers; where hwloc's copy
 * loses something (a group that another took the place of), also what the
 * original answers. */
static void same(const char *copy, const char *original, const char *got)
{
	size_t i = 0, line = 0;
	const char *wanted = copy;

	if (!strcmp(copy, got) || (original && !strcmp(original, got)))
		return;
	if (!strcmp(shared->doing, "stock adopts stock's") && !getenv("DIFFER_OWN"))
		_exit(1);
	while (wanted[i] && wanted[i] == got[i]) {
		i++;
		if (wanted[i - 1] == '\n')
			line = i;
	}
	if (original && by_luck)
		_exit(77);
	printf("wanted: %.900s\ngot:    %.900s\n", wanted + line, got + line);
	_exit(1);
}

#define DOING(works, what) do { \
	shared->stock_works = (works); \
	shared->doing = (what); \
} while (0)
#define MUST(condition) do { \
	if (!(condition)) { \
		printf("fails: %s (%s)\n", #condition, strerror(errno)); \
		_exit(1); \
	} \
} while (0)

/* Whether it was hwloc itself that failed. */
static int failed_itself(int status)
{
	return (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		|| (WIFSIGNALED(status) && shared->stock_works);
}

/* Changes a copy of the original, and what was adopted and copied, in the same
 * ways: they stay the same. */
static void changed_alike(hwloc_topology_t original, hwloc_topology_t adopted)
{
	uint64_t from = state;
	hwloc_topology_t t;
	char *wanted;

	limit_work(60);
	is_copy = 1;
	DOING(1, "change a copy");
	t = copy_of(original);
	/* A question changes what hwloc makes of a change: both are asked before. */
	free(text_of(t, DUMP_MEMATTRS));
	t = changed(t);
	if (copies_share(t))
		_exit(77);
	wanted = text_of(t, DUMP_MEMATTRS);
	hwloc_topology_destroy(t);
	DOING(0, "change a copy of what was adopted");
	state = from;
	adopted = changed(adopted);
	same(wanted, NULL, text_of(adopted, DUMP_MEMATTRS));
	hwloc_topology_destroy(adopted);
	_exit(0);
}

static void one(void)
{
	hwloc_topology_t t, copy, a, b;
	char *all, *some, *got, *before, *own;
	size_t length, our_length;
	int fd[3], i, rc;

	DOING(1, "make");
	t = changed(made());
	for (i = 0; i < 3; i++)
		fd[i] = memfd_create("differ", MFD_CLOEXEC);
	copy = copy_of(t);
	before = text_of(copy, DUMP_MEMATTRS);
	own = text_aside(t, DUMP_MEMATTRS);
	hwloc_topology_destroy(copy);
	MUST(!stock.get_length(t, &length, 0));
	DOING(0, "get_length");
	MUST(!ours.get_length(t, &our_length, 0));
	MUST(length == our_length);
	/* Ours first: stock changes what it writes. */
	DOING(0, "write");
	rc = ours.write(t, fd[1], 0, addr, length, 0);
	DOING(1, "stock writes");
	if (stock.write(t, fd[0], 0, addr, length, 0))
		_exit(77);
	DOING(0, "write where stock does");
	MUST(rc == 0);
	DOING(1, "copy");
	copy = copy_of(t);
	/* A machine that hwloc's own check aborts on can be shared all the same. */
	if (child()) {
		hwloc_topology_check(t);
		_exit(0);
	}
	shared->odd |= !child_passed();
	all = text_of(copy, DUMP_MEMATTRS);
	some = text_of(copy, 0);
	/* hwloc 2.9 keeps texts of CPU kinds that it has freed. */
	if (strcmp(before, all))
		_exit(77);

	for (i = 0; i < 2; i++) {
		DOING(0, i ? "stock adopts ours" : "stock adopts stock's");
		/* Where hwloc crashes over its own file we can still be better. */
		if (child()) {
			MUST(!stock.adopt(&a, fd[i], 0, addr, length, 0));
			got = text_of(a, i ? DUMP_MEMATTRS : 0);
			same(i ? all : some, i ? own : NULL, got);
			hwloc_topology_destroy(a);
			_exit(0);
		}
		wait(&rc);
		shared->own_pair |= !i && rc;
		if (i && WIFEXITED(rc) && WEXITSTATUS(rc) == 77)
			_exit(77);
		MUST(rc == 0 || !i);

		DOING(0, i ? "adopt ours" : "adopt stock's");
		MUST(!ours.adopt(&a, fd[i], 0, addr, length, 0));
		got = text_of(a, DUMP_MEMATTRS);
		same(all, i ? own : NULL, got);
		free(got);
		DOING(0, "a second adoption");
		MUST(!ours.adopt(&b, fd[i], 0, addr, length, 0));
		got = text_of(b, DUMP_MEMATTRS);
		same(all, i ? own : NULL, got);
		free(got);
		if (i) {
			DOING(0, "write what was adopted");
			MUST(!ours.write(b, fd[2], 0, (char *)addr + (1l << 36), length, 0));
		}
		hwloc_topology_destroy(a);
		DOING(0, "copy what was adopted");
		MUST(!hwloc_topology_dup(&a, b));
		got = text_of(a, DUMP_MEMATTRS);
		same(all, i ? own : NULL, got);
		/* Each copy counts its objects' indexes on: stock writes a copy. What
		 * hwloc's copy has lost and ours has is another machine. */
		if (!strcmp(all, got)) {
			if (child())
				changed_alike(i ? t : copy, a);
			wait(&rc);
			MUST(rc == 0 || failed_itself(rc));
			shared->own_change |= rc;
		}
		hwloc_topology_destroy(a);
		free(got);
		DOING(0, "destroy");
		if (!shared->odd)
			hwloc_topology_check(b);
		hwloc_topology_destroy(b);
	}
	DOING(0, "adopt what was adopted and written");
	MUST(!ours.adopt(&a, fd[2], 0, (char *)addr + (1l << 36), length, 0));
	got = text_of(a, DUMP_MEMATTRS);
	same(all, own, got);
	hwloc_topology_destroy(a);
	_exit(0);
}

int main(int argc, char **argv)
{
	unsigned long first = argc > 4 ? strtoul(argv[4], NULL, 0) : 0, i;
	unsigned long machines = first + (argc > 2 ? strtoul(argv[2], NULL, 0) : 100);
	unsigned long seed = argc > 3 ? strtoul(argv[3], NULL, 0) : 1, own = 0, pairs = 0, changes = 0;
	void *lib = dlopen(argc > 1 ? argv[1] : "libxpmem.so.0", RTLD_NOW | RTLD_LOCAL);
	int status, null = open("/dev/null", O_WRONLY);

	if (!lib) {
		printf("%s\n", dlerror());
		return 1;
	}
	*(void **)&ours.get_length = dlsym(lib, "hwloc_shmem_topology_get_length");
	*(void **)&ours.write = dlsym(lib, "hwloc_shmem_topology_write");
	*(void **)&ours.adopt = dlsym(lib, "hwloc_shmem_topology_adopt");
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* What hwloc has to say when it aborts over its own. */
	if (!getenv("DIFFER_STDERR"))
		dup2(null, 2);
	for (i = first; i < machines; i++) {
		memset(shared, 0, sizeof(*shared));
		fflush(stdout);
		if (fork() == 0) {
			setvbuf(stdout, NULL, _IONBF, 0);
			limit_work(60);
			state = seed * 1000003 + i;
			next();
			one();
		}
		wait(&status);
		pairs += shared->own_pair;
		changes += shared->own_change != 0;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			passed++;
		} else if (failed_itself(status)) {
			own++;
			if (getenv("DIFFER_OWN"))
				printf("own: %s, status %x: %s\n", shared->doing, status, shared->history);
		} else {
			failed++;
			printf("FAIL seed %lu, machine %lu, while \"%s\", status %x: %s\n", seed, i,
			       shared->doing, status, shared->history);
		}
	}
	printf("hwloc itself fails over %lu machines, %lu files of its own, and %lu copies of its own\n",
	       own, pairs, changes);
	return finish();
}
