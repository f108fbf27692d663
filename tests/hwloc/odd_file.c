/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * odd_file LIBXPMEM [CASE]: files of every kind, places in them, and addresses.
 */
#include "beside.h"
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

static hwloc_topology_t small;
static size_t length;
/* Written by stock. */
static int fd;

/* A write, and what an adoption says of what there is then. */
static unsigned long both(const struct calls *c, int file, uint64_t offset, void *at, size_t n)
{
	unsigned long said = 0;

	if (file < 0)
		return 0;
	errno = 0;
	if (c->write(small, file, offset, at, n, 0))
		said = errno;
	return said + adopted(c, file, offset, at, n);
}

#define FILE_CASE(name, open_it) \
	static unsigned long name(const struct calls *c) \
	{ \
		return both(c, open_it, 0, addr, length); \
	}
FILE_CASE(a_directory, open("/", O_RDONLY))
FILE_CASE(dev_zero, open("/dev/zero", O_RDWR))
FILE_CASE(dev_null, open("/dev/null", O_RDWR))
FILE_CASE(dev_full, open("/dev/full", O_RDWR))
FILE_CASE(an_event, eventfd(0, EFD_NONBLOCK))
FILE_CASE(an_epoll, epoll_create1(0))
FILE_CASE(a_socket, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0))
FILE_CASE(proc_maps, open("/proc/self/maps", O_RDONLY))
FILE_CASE(proc_mem, open("/proc/self/mem", O_RDWR))
FILE_CASE(a_path_alone, open("/dev/shm", O_PATH))
FILE_CASE(no_file, dup(-1) == -1 ? 1023 : 0)

static int anonymous(unsigned seals)
{
	int file = memfd_create("odd", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (seals)
		ftruncate(file, length);
	fcntl(file, F_ADD_SEALS, seals);
	return file;
}

FILE_CASE(may_not_grow, anonymous(F_SEAL_GROW))
FILE_CASE(may_not_shrink, anonymous(F_SEAL_SHRINK))
FILE_CASE(may_not_be_written, anonymous(F_SEAL_WRITE))

static unsigned long sealed_later(const struct calls *c)
{
	int file = anonymous(0);

	if (c->write(small, file, 0, addr, length, 0))
		return answer(-1);
	fcntl(file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	return adopted(c, file, 0, addr, length);
}

static int pipe_end(void)
{
	int ends[2];

	return pipe(ends) ? -1 : ends[0];
}
FILE_CASE(a_pipe, pipe_end())

static int opened(int flags)
{
	char name[] = "/tmp/odd.XXXXXX";
	int file = mkstemp(name), again = open(name, flags);

	unlink(name);
	close(file);
	return again;
}
FILE_CASE(only_read, opened(O_RDONLY))
FILE_CASE(only_written, opened(O_WRONLY))
FILE_CASE(synchronous, opened(O_RDWR | O_SYNC))
FILE_CASE(appended_to, opened(O_RDWR | O_APPEND))
FILE_CASE(not_waited_for, opened(O_RDWR | O_NONBLOCK))

/* Where in a file. */
#define PLACE_CASE(name, offset) \
	static unsigned long name(const struct calls *c) \
	{ \
		return both(c, anonymous(0), offset, addr, length); \
	}
PLACE_CASE(behind_4_gib, 5ul << 30)
PLACE_CASE(behind_8_eib, 1ul << 63)
PLACE_CASE(at_the_last_page, (1ul << 63) - 4096)
PLACE_CASE(at_no_page, 512)

/* At which address. */
#define ADDRESS_CASE(name, at) \
	static unsigned long name(const struct calls *c) \
	{ \
		return both(c, anonymous(0), 0, (void *)(at), length); \
	}
ADDRESS_CASE(at_null, 0ul)
ADDRESS_CASE(at_one_page, 4096ul)
ADDRESS_CASE(at_the_top, 0x7ffffffff000ul)
ADDRESS_CASE(near_the_top, 0x7ffffffff000ul - length)
ADDRESS_CASE(at_5_levels, 1ul << 50)
ADDRESS_CASE(beyond_the_hole, 0xffff800000000000ul)
ADDRESS_CASE(at_vsyscall, 0xffffffffff600000ul)
ADDRESS_CASE(at_the_end, -4096ul)
ADDRESS_CASE(at_no_page_of_memory, (uintptr_t)addr + 8)
ADDRESS_CASE(at_code, (uintptr_t)printf & ~4095ul)
ADDRESS_CASE(at_low_memory, 1ul << 20)
ADDRESS_CASE(in_the_first_4_gib, 3ul << 30)

/* Beside what is mapped, and over it: some of it free, and some not. */
static unsigned long beside_a_mapping(const struct calls *c)
{
	int i, said = 0;

	mmap(addr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (i = -6; i < 4; i++)
		said = said * 2 + !c->write(small, anonymous(0), 0, addr + i * 4096, length, 0);
	return said;
}

static unsigned long below_a_growing_one(const struct calls *c)
{
	char *low = mmap(addr + (1 << 24), 1 << 16, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);

	return c->write(small, anonymous(0), 0, low - length, length, 0) == 0 ? 1 :
		both(c, anonymous(0), 0, low - length - (1 << 20), length);
}

/* What is there is damaged, cut or has holes. */
static int changed(size_t cut, size_t at, uint64_t word)
{
	int file = memfd_create("changed", MFD_CLOEXEC);
	char *bytes = malloc(length);

	pread(fd, bytes, length, 0);
	if (at)
		memcpy(bytes + at - 8, &word, 8);
	pwrite(file, bytes, length, 0);
	ftruncate(file, cut);
	free(bytes);
	return file;
}

#define CHANGED_CASE(name, cut, at, word) \
	static unsigned long name(const struct calls *c) \
	{ \
		return adopted(c, changed(cut, at, word), 0, addr, length); \
	}
CHANGED_CASE(empty, 0, 0, 0)
CHANGED_CASE(half_a_header, 12, 0, 0)
CHANGED_CASE(a_header, 24, 0, 0)
CHANGED_CASE(a_page, 4096, 0, 0)
CHANGED_CASE(all_but_a_byte, length - 1, 0, 0)
CHANGED_CASE(longer, length + 4096, 0, 0)
CHANGED_CASE(another_version, length, 8, 2ul | 24ul << 32)
CHANGED_CASE(another_header_length, length, 8, 1ul | 32ul << 32)
CHANGED_CASE(another_address, length, 16, 0x12345000)
CHANGED_CASE(another_length, length, 24, 8192)
CHANGED_CASE(another_abi, length, 32, 0x30000)
CHANGED_CASE(no_levels, length, 24 + 32, 0)
CHANGED_CASE(levels_elsewhere, length, 24 + 32, 0x666000)
CHANGED_CASE(levels_of_the_kernel, length, 24 + 32, 0xffff888000000000)

/* Whatever was there goes, and what follows stays. */
static unsigned long over_another(const struct calls *c)
{
	hwloc_topology_t larger = machine("pack:2 core:32 pu:2");
	int file = anonymous(0);
	size_t n;

	c->get_length(larger, &n, 0);
	if (c->write(larger, file, 0, addr, n, 0))
		return answer(-1);
	return both(c, file, 0, addr, length);
}

static unsigned long deleted(const struct calls *c)
{
	return both(c, opened(O_RDWR), 0, addr, length) + both(c, opened(O_RDWR), 4096, addr, length);
}

static unsigned long twice_in_one(const struct calls *c)
{
	int file = anonymous(0);

	return both(c, file, 1 << 20, addr, length) * 31 + both(c, file, 2 << 20, addr + (1 << 24), length);
}

/* hwloc documents whole pages, and takes any length that is enough. */
#define LENGTH_CASE(name, offset, n) \
	static unsigned long name(const struct calls *c) \
	{ \
		return both(c, anonymous(0), offset, addr, n); \
	}
LENGTH_CASE(a_byte_less, 0, length - 1)
LENGTH_CASE(half_a_page_less, 4096, length - 2048)
LENGTH_CASE(a_word_more, 1 << 20, length + 8)
LENGTH_CASE(three_bytes_more, 4096, length + 3)

/* Cut to the byte, adopted twice, and moved. */
static unsigned long odd_and_twice(const struct calls *c)
{
	int file = anonymous(0);
	hwloc_topology_t first;
	unsigned long said;

	if (stock.write(small, file, 0, addr, length - 5, 0)
	    || c->adopt(&first, file, 0, addr, length - 5, 0))
		return answer(-1);
	if (c == &stock)
		return walk(first) | SUCCESS;
	said = adopted(c, file, 0, addr, length - 5);
	hwloc_topology_destroy(first);
	return said;
}

static unsigned long lengths(const struct calls *c)
{
	static const size_t list[] = { 0, 1ul << 47, 1ul << 62, -4096ul };
	unsigned long said = 0;
	size_t i;

	for (i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		said = said * 31 + adopted(c, fd, 0, addr, list[i]);
	return said;
}

#define CASE(name) { #name, name, 0 }
/* Stock leaves a header or a length behind, or answers whatever errno was there:
 * ours is another errno then. */
#define FAILS_CASE(name) { #name, name, UNLIKE }
#define DAMAGE_CASE(name) { #name, name, REFUSED }
static const struct beside cases[] = {
	CASE(a_pipe), CASE(sealed_later), CASE(synchronous), CASE(not_waited_for),
	CASE(behind_4_gib), CASE(near_the_top), CASE(at_low_memory), CASE(in_the_first_4_gib),
	CASE(longer), CASE(over_another), CASE(a_byte_less),
	CASE(half_a_page_less), CASE(a_word_more), CASE(three_bytes_more), CASE(odd_and_twice), CASE(deleted), CASE(twice_in_one),
	CASE(below_a_growing_one), CASE(another_version), CASE(another_header_length),
	CASE(another_address), CASE(another_length), CASE(another_abi),
	FAILS_CASE(a_directory), FAILS_CASE(dev_zero), FAILS_CASE(dev_null), FAILS_CASE(dev_full),
	FAILS_CASE(an_event), FAILS_CASE(an_epoll), FAILS_CASE(a_socket), FAILS_CASE(proc_maps),
	FAILS_CASE(proc_mem), FAILS_CASE(a_path_alone), FAILS_CASE(no_file),
	FAILS_CASE(may_not_grow), FAILS_CASE(may_not_shrink), FAILS_CASE(may_not_be_written),
	FAILS_CASE(only_read), FAILS_CASE(only_written), FAILS_CASE(appended_to),
	FAILS_CASE(behind_8_eib), FAILS_CASE(at_the_last_page), FAILS_CASE(at_no_page),
	FAILS_CASE(at_null), FAILS_CASE(at_one_page), FAILS_CASE(at_the_top),
	FAILS_CASE(at_5_levels), FAILS_CASE(beyond_the_hole), FAILS_CASE(at_vsyscall),
	FAILS_CASE(at_the_end), FAILS_CASE(at_no_page_of_memory), FAILS_CASE(at_code),
	CASE(beside_a_mapping), FAILS_CASE(empty), FAILS_CASE(half_a_header),
	FAILS_CASE(a_header), DAMAGE_CASE(a_page), CASE(all_but_a_byte),
	DAMAGE_CASE(no_levels), DAMAGE_CASE(levels_elsewhere), DAMAGE_CASE(levels_of_the_kernel),
	FAILS_CASE(lengths),
	{ NULL, NULL, 0 },
};

int main(int argc, char **argv)
{
	load_sides(argc > 1 ? argv[1] : "libxpmem.so.0");
	small = machine("pack:2 core:4 pu:2");
	fd = memfd_create("stock", 0);
	if (stock.get_length(small, &length, 0) || stock.write(small, fd, 0, addr, length, 0)) {
		perror("stock writes");
		return 1;
	}
	beside(cases, argc > 2 ? argv[2] : NULL);
	return finish();
}
