/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * One side of an exchange. Which implementation serves is decided by
 * LD_PRELOAD and the library path.
 *
 *   exchange write FILE ADDR LABEL   load (environment says what), write,
 *                                    and leave FILE.dump and FILE.xml
 *   exchange adopt FILE ADDR LABEL   adopt FILE, compare with both
 *
 * LABEL is WRITER-ADOPTER, each "stock..." or "ours...": what stock crashes on
 * is left out.
 */
#define _GNU_SOURCE
#include "dump.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <hwloc/export.h>
#include <hwloc/memattrs.h>
#include <hwloc/distances.h>
#include <hwloc/cpukinds.h>
#include <hwloc/shmem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Attributes that discovery does not find on a small machine. */
static void decorate(hwloc_topology_t t)
{
	hwloc_obj_t root = hwloc_get_root_obj(t), node = NULL, first;
	unsigned nodes = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE), i;
	struct hwloc_location from;
	hwloc_memattr_id_t id;

	hwloc_obj_add_info(root, "Comment", "decorated");
	hwloc_topology_insert_misc_object(t, root, "a misc object");
	first = hwloc_get_obj_by_type(t, HWLOC_OBJ_PU, 0);
	if (first) {
		hwloc_topology_insert_misc_object(t, first, "below a PU");
		first->userdata = (void *)0x1234;
	}
	hwloc_memattr_register(t, "Colour", HWLOC_MEMATTR_FLAG_HIGHER_FIRST
			       | HWLOC_MEMATTR_FLAG_NEED_INITIATOR, &id);
	while ((node = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, node))) {
		from.type = HWLOC_LOCATION_TYPE_CPUSET;
		from.location.cpuset = root->cpuset;
		hwloc_memattr_set_value(t, HWLOC_MEMATTR_ID_BANDWIDTH, node, &from, 0,
					1000 + node->os_index);
		from.location.cpuset = node->cpuset;
		if (!hwloc_bitmap_iszero(node->cpuset))
			hwloc_memattr_set_value(t, HWLOC_MEMATTR_ID_LATENCY, node, &from, 0,
						10 + node->os_index);
		from.type = HWLOC_LOCATION_TYPE_OBJECT;
		from.location.object = first;
		hwloc_memattr_set_value(t, id, node, &from, 0, 7 * node->os_index);
	}
	if (nodes > 1 && nodes <= 64) {
		hwloc_obj_t *objs = calloc(nodes, sizeof(*objs));
		hwloc_uint64_t *values = calloc(nodes * nodes, sizeof(*values));
		hwloc_distances_add_handle_t handle;

		for (i = 0; i < nodes; i++)
			objs[i] = hwloc_get_obj_by_type(t, HWLOC_OBJ_NUMANODE, i);
		for (i = 0; i < nodes * nodes; i++)
			values[i] = 10 + i;
		handle = hwloc_distances_add_create(t, "made up",
			HWLOC_DISTANCES_KIND_FROM_USER | HWLOC_DISTANCES_KIND_MEANS_LATENCY, 0);
		if (handle && !hwloc_distances_add_values(t, handle, nodes, objs, values, 0))
			hwloc_distances_add_commit(t, handle, 0);
		/* Between a node and a core: of two types, by gp_index. */
		objs[1] = first;
		handle = hwloc_distances_add_create(t, "mixed",
			HWLOC_DISTANCES_KIND_FROM_USER | HWLOC_DISTANCES_KIND_MEANS_BANDWIDTH, 0);
		if (handle && !hwloc_distances_add_values(t, handle, 2, objs, values, 0))
			hwloc_distances_add_commit(t, handle, 0);
		free(objs);
		free(values);
	}
	if (!hwloc_cpukinds_get_nr(t, 0)) {
		struct hwloc_info_s infos[] = { { "CoreType", "Big" } };

		hwloc_cpukinds_register(t, first->cpuset, 1, 1, infos, 0);
		hwloc_cpukinds_register(t, root->cpuset, 0, 0, NULL, 0);
	}
}

static hwloc_topology_t load(void)
{
	const char *xml = getenv("EXCHANGE_XML"), *synthetic = getenv("EXCHANGE_SYNTHETIC");
	hwloc_topology_t t;

	if (hwloc_topology_init(&t))
		return NULL;
	hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_ALL);
	if (xml && hwloc_topology_set_xml(t, xml))
		return NULL;
	if (synthetic && hwloc_topology_set_synthetic(t, synthetic))
		return NULL;
	if (hwloc_topology_load(t))
		return NULL;
	if (!getenv("EXCHANGE_PLAIN"))
		decorate(t);
	return t;
}

static char *slurp(const char *path, const char *suffix, size_t *size)
{
	char name[4096], *text;
	FILE *file;

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	file = fopen(name, "r");
	if (!file)
		return NULL;
	fseek(file, 0, SEEK_END);
	*size = ftell(file);
	rewind(file);
	text = malloc(*size + 1);
	*size = fread(text, 1, *size, file);
	text[*size] = 0;
	fclose(file);
	return text;
}

static int fail(const char *what)
{
	printf("FAIL %s: %s\n", what, strerror(errno));
	return 1;
}

static int write_side(const char *path, void *addr)
{
	hwloc_topology_t t = load();
	char name[4096];
	size_t length;
	FILE *out;
	int fd, rc;

	if (!t)
		return fail("load");
	snprintf(name, sizeof(name), "%s.dump", path);
	out = fopen(name, "w");
	dump(t, DUMP_MEMATTRS | DUMP_BINDING, out);
	fclose(out);
	snprintf(name, sizeof(name), "%s.xml", path);
	hwloc_topology_export_xml(t, name, 0);
	if (hwloc_shmem_topology_get_length(t, &length, 0))
		return fail("get_length");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	rc = hwloc_shmem_topology_write(t, fd, 0, addr, length, 0);
	if (rc)
		return fail("write");
	snprintf(name, sizeof(name), "%s.length", path);
	out = fopen(name, "w");
	fprintf(out, "%zu\n", length);
	fclose(out);
	close(fd);
	/* The source is as it was: its own queries still answer the same. */
	if (exercise(t, DUMP_MEMATTRS | DUMP_REFRESH))
		return 1;
	hwloc_topology_destroy(t);
	return 0;
}

/* Releases know of different kinds of support: between two, leave it out. */
static size_t without_support(char *xml, size_t n)
{
	char *line = xml, *end, *to = xml;

	const char *cross = getenv("EXCHANGE_CROSS");

	if (!cross || !*cross)
		return n;
	for (; line < xml + n; line = end) {
		end = memchr(line, '\n', xml + n - line);
		end = end ? end + 1 : xml + n;
		if (memmem(line, end - line, "<support ", 9))
			continue;
		memmove(to, line, end - line);
		to += end - line;
	}
	return to - xml;
}

static int differs(const char *what, const char *a, size_t na, const char *b, size_t nb)
{
	size_t i = 0;

	if (na == nb && !memcmp(a, b, na))
		return 0;
	while (i < na && i < nb && a[i] == b[i])
		i++;
	while (i && a[i - 1] != '\n')
		i--;
	printf("FAIL %s differs:\n< %.300s\n> %.300s\n", what, a + i, b + i);
	return 1;
}

/* An adopted topology is written again and adopted from there: as before. */
static int again(hwloc_topology_t t, const char *xml, void *addr)
{
	hwloc_topology_t second;
	int fd = memfd_create("again", 0), n, failed;
	size_t length;
	char *text;

	addr = (char *)addr + (1ul << 36);
	if (hwloc_shmem_topology_get_length(t, &length, 0)
	    || hwloc_shmem_topology_write(t, fd, 0, addr, length, 0)
	    || hwloc_shmem_topology_adopt(&second, fd, 0, addr, length, 0))
		return fail("share again");
	close(fd);
	hwloc_topology_export_xmlbuffer(second, &text, &n, 0);
	failed = differs("XML of the second", xml, strlen(xml), text, strlen(text));
	hwloc_free_xmlbuffer(second, text);
	hwloc_topology_destroy(second);
	return failed;
}

static int adopt_side(const char *path, void *addr, const char *label)
{
	/* Stock's own memory attributes crash in what stock wrote. */
	int theirs = strstr(label, "-stock") != NULL;
	int crash = theirs && !strncmp(label, "stock", 5);
	int what = DUMP_BINDING | (crash ? 0 : DUMP_MEMATTRS) | (theirs ? 0 : DUMP_REFRESH);
	size_t length, na, nb;
	hwloc_topology_t t = NULL, live;
	char *text, *mine, *xml = NULL;
	int fd, n, failed;
	FILE *out;

	text = slurp(path, ".length", &na);
	length = text ? strtoul(text, NULL, 10) : 0;
	free(text);
	/* One more topology alive: plugins stay, and pairs of init and destroy
	 * are counted. */
	if (getenv("EXCHANGE_LIVE")) {
		hwloc_topology_init(&live);
		hwloc_topology_load(live);
	}
	fd = open(path, O_RDONLY);
	if (hwloc_shmem_topology_adopt(&t, fd, 0, addr, length, 0))
		return fail("adopt");
	close(fd);
	out = open_memstream(&mine, &nb);
	dump(t, what, out);
	fclose(out);
	text = slurp(path, ".dump", &na);
	if (crash) {
		/* Compare without the memory attributes. */
		char *from = strstr(text, "\nmemattr "), *to = strstr(text, "\ncpubind ");

		if (from && to) {
			memmove(from, to, strlen(to) + 1);
			na = strlen(text);
		}
	}
	failed = differs("dump", text, na, mine, nb);
	free(text);
	free(mine);
	if (!crash) {
		hwloc_topology_export_xmlbuffer(t, &xml, &n, 0);
		text = slurp(path, ".xml", &na);
		na = without_support(text, na);
		if (!theirs)
			failed |= again(t, xml, addr);
		failed |= differs("XML", text, na, xml, without_support(xml, strlen(xml)));
		hwloc_free_xmlbuffer(t, xml);
		free(text);
	}
	failed |= !!exercise(t, what);
	if (hwloc_topology_restrict(t, hwloc_topology_get_topology_cpuset(t), 0) == 0
	    || errno != EPERM) {
		printf("FAIL an adopted topology can be changed\n");
		failed = 1;
	}
	hwloc_topology_destroy(t);
	if (getenv("EXCHANGE_LIVE"))
		hwloc_topology_destroy(live);
	return failed;
}

int main(int argc, char **argv)
{
	void *addr;

	if (argc < 5)
		return 2;
	addr = (void *)strtoul(argv[3], NULL, 16);
	if (!strcmp(argv[1], "write"))
		return write_side(argv[2], addr);
	return adopt_side(argv[2], addr, argv[4]);
}
