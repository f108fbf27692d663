/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Everything that hwloc's queries answer about a topology, as text. */
#ifndef DUMP_H
#define DUMP_H
#include <hwloc.h>
#include <stdio.h>

/* DUMP_MEMATTRS: also what stock crashes on in a topology adopted from a
 * file that stock wrote. */
#define DUMP_MEMATTRS 1
#define DUMP_BINDING 2
/* Stock ranks CPU kinds in place, and so crashes on any adopted topology. */
#define DUMP_REFRESH 4

void dump(hwloc_topology_t topology, int what, FILE *out);

/* Copies, checks, compares and exports; answers 0, or says what differs. */
int exercise(hwloc_topology_t topology, int what);

/* Reads every object and set once; answers a sum. */
unsigned long walk(hwloc_topology_t topology);
#endif
