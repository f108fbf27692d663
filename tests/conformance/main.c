/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The suite over the C library, linked dynamically or statically. */
#include "harness.h"

int main(int argc, char **argv)
{
	static const struct xpmem_api table = {
		xpmem_version, xpmem_init, xpmem_ioctl, xpmem_make,   xpmem_remove,
		xpmem_get,     xpmem_release, xpmem_attach, xpmem_detach,
	};

	return conformance_main(argc, argv, &table);
}
