/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Somebody else's libxpmem.so.0, for a program to be linked against. */
#include <xpmem.h>

int xpmem_version(void) { return -1; }
int xpmem_init(void) { return -1; }
int xpmem_ioctl(int cmd, void *arg) { (void)cmd, (void)arg; return -1; }
xpmem_segid_t xpmem_make(void *v, size_t s, int t, void *p) { (void)v, (void)s, (void)t, (void)p; return -1; }
int xpmem_remove(xpmem_segid_t s) { (void)s; return -1; }
xpmem_apid_t xpmem_get(xpmem_segid_t s, int f, int t, void *p) { (void)s, (void)f, (void)t, (void)p; return -1; }
int xpmem_release(xpmem_apid_t a) { (void)a; return -1; }
void *xpmem_attach(struct xpmem_addr a, size_t s, void *v) { (void)a, (void)s, (void)v; return (void *)-1; }
int xpmem_detach(void *v) { (void)v; return -1; }
