/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A small MPI program whose data say whether it ran right: a sum over all
 * ranks, and a ring of messages.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 100000 };

int main(int argc, char **argv)
{
	int rank, size, sum = -1, bad = 0, all = 0, i;
	int *out = malloc(COUNT * sizeof(*out)), *in = malloc(COUNT * sizeof(*in));

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	bad += sum != size * (size - 1) / 2;
	for (i = 0; i < COUNT; i++)
		out[i] = rank * COUNT + i;
	MPI_Sendrecv(out, COUNT, MPI_INT, (rank + 1) % size, 7,
		     in, COUNT, MPI_INT, (rank + size - 1) % size, 7,
		     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	for (i = 0; i < COUNT; i++)
		bad += in[i] != (rank + size - 1) % size * COUNT + i;
	MPI_Allreduce(&bad, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	if (rank == 0) {
		char version[MPI_MAX_LIBRARY_VERSION_STRING];

		MPI_Get_library_version(version, &i);
		printf("%.*s: %d ranks, %s\n", (int)strcspn(version, ","), version, size,
		       all ? "data wrong" : "every number right");
	}
	MPI_Finalize();
	return all != 0;
}
