/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * forward FAKE LIBXPMEM forwarded|served: with a libhwloc whose layout is not
 * ours each call must reach it as it came, and its answer the caller; with one
 * of our layout none does.
 */
#include "../lib/check.h"
#include "fake.h"
#include "ours.h"
#include <string.h>

static struct fake_calls *calls;

/* Whether the last call was made with just these. */
static int was(void *t, int fd, uint64_t offset, void *addr, size_t length, unsigned long flags)
{
	struct fake_arguments *a = &calls->last;

	return a->topology == t && a->fd == fd && a->offset == offset && a->addr == addr
		&& a->length == length && a->flags == flags;
}

int main(int argc, char **argv)
{
	/* None of these numbers is one that our own code would accept. */
	const uint64_t offset = 0x123456789abcdefu;
	void *addr = (void *)0x3000000012345, *t = NULL, *adopted = NULL, *fake;
	int (*init)(void **), rc, forwarded, errors[] = { EDOM, EBUSY, EINVAL, 4711 };
	void (*destroy)(void *);
	size_t length = 0, i;
	struct ours ours;

	if (argc < 4)
		return 2;
	forwarded = !strcmp(argv[3], "forwarded");
	fake = loaded(argv[1]);
	ours = load_ours(argv[2]);
	calls = dlsym(fake, "fake_calls");
	init = dlsym(fake, "hwloc_topology_init");
	destroy = dlsym(fake, "hwloc_topology_destroy");
	init(&t);
	if (!forwarded) {
		/* Not loaded, and no such file. */
		errno = 0;
		CHECK("get_length", ours.get_length(t, &length, 0) == -1 && errno == EINVAL);
		errno = 0;
		CHECK("write", ours.write(t, -1, 0, addr, 4096, 0) == -1 && errno == EINVAL);
		errno = 0;
		CHECK("adopt", ours.adopt(&adopted, -1, 0, addr, 4096, 0) == -1 && errno == EBADF);
		CHECK("not forwarded", !calls->get_length && !calls->write && !calls->adopt);
	} else {
		rc = ours.get_length(t, &length, 0x40);
		CHECK("get_length", rc == 0 && length == 0x123000 && calls->get_length == 1);
		CHECK("its arguments", calls->last.topology == t && calls->last.flags == 0x40);
		rc = ours.write(t, 77, offset, addr, 0x12345, 0x81);
		CHECK("write", rc == 0 && calls->write == 1);
		CHECK("its arguments", was(t, 77, offset, addr, 0x12345, 0x81));
		rc = ours.adopt(&adopted, 78, offset + 1, addr, 0x54321, 0x82);
		CHECK("adopt", rc == 0 && calls->adopt == 1 && adopted == calls);
		CHECK("its arguments", was(NULL, 78, offset + 1, addr, 0x54321, 0x82));
		for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
			calls->error = errors[i];
			length = 5;
			adopted = NULL;
			errno = 0;
			rc = ours.get_length(t, &length, 0);
			CHECK("get_length fails", rc == -1 && errno == errors[i] && length == 5);
			errno = 0;
			rc = ours.write(t, 1, 0, addr, 4096, 0);
			CHECK("write fails", rc == -1 && errno == errors[i]);
			errno = 0;
			rc = ours.adopt(&adopted, 1, 0, addr, 4096, 0);
			CHECK("adopt fails", rc == -1 && errno == errors[i] && !adopted);
		}
	}
	destroy(t);
	CHECK("no topology is left over", calls->init == calls->destroy);
	return finish();
}
