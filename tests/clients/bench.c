/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * MPI ping-pong: half the round trip, least and median, at each size.
 *
 * usage: bench [-w] [smallest largest]     -w: write the buffer anew before each send
 * prints: "bench SIZE LEAST MEDIAN", microseconds.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_ROUNDS 3000

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	static double time[MOST_ROUNDS];
	size_t smallest = 4096, largest = 4 << 20, size;
	int rank, ranks, rewrite = 0, c;
	unsigned char *out = NULL, *in = NULL;

	while ((c = getopt(argc, argv, "w")) != -1) {
		if (c != 'w')
			return 2;
		rewrite = 1;
	}
	if (optind + 2 == argc) {
		smallest = strtoul(argv[optind], NULL, 0);
		largest = strtoul(argv[optind + 1], NULL, 0);
	}
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (ranks != 2 || smallest < 1 || posix_memalign((void **)&out, 4096, largest) ||
	    posix_memalign((void **)&in, 4096, largest)) {
		fprintf(stderr, "bench: two ranks and memory are needed\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	for (size = smallest; size <= largest; size *= 2) {
		int rounds = (int)((512UL << 20) / size), warm = 20, i;

		rounds = rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds < 60 ? 60 : rounds;
		memset(out, rank + 1, size);
		memset(in, 0, size);
		MPI_Barrier(MPI_COMM_WORLD);
		for (i = -warm; i < rounds; i++) {
			double start;

			if (rewrite)
				memset(out, (i & 63) + 1 + rank, size);
			start = MPI_Wtime();
			if (rank == 0) {
				MPI_Send(out, (int)size, MPI_BYTE, 1, 1, MPI_COMM_WORLD);
				MPI_Recv(in, (int)size, MPI_BYTE, 1, 1, MPI_COMM_WORLD,
					 MPI_STATUS_IGNORE);
			} else {
				MPI_Recv(in, (int)size, MPI_BYTE, 0, 1, MPI_COMM_WORLD,
					 MPI_STATUS_IGNORE);
				MPI_Send(out, (int)size, MPI_BYTE, 0, 1, MPI_COMM_WORLD);
			}
			if (i >= 0)
				time[i] = (MPI_Wtime() - start) * 1e6 / 2;
			/* A figure for wrong data is worth nothing. */
			unsigned char must = rewrite ? (i & 63) + 1 + !rank : 2 - rank;

			if (in[0] != must || in[size / 2] != must || in[size - 1] != must) {
				fprintf(stderr, "bench: wrong data at size %zu\n", size);
				MPI_Abort(MPI_COMM_WORLD, 1);
			}
		}
		qsort(time, rounds, sizeof(*time), by_value);
		if (rank == 0)
			printf("bench %zu %.3f %.3f\n", size, time[0], time[rounds / 2]), fflush(stdout);
	}
	MPI_Finalize();
	return 0;
}
