/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Ping-pong between two MPI ranks of one machine, beside MPI: MPI tells the
 * segid, the messages go through attached memory.
 *
 *   mpicc -O2 -o pingpong_mpi pingpong_mpi.c $(pkg-config --cflags --libs xpmem)
 *   mpirun -n 2 ./pingpong_mpi
 */
#include <mpi.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xpmem.h>

enum { ROUNDS = 10000, MESSAGE = 1024 };

/* Rank 0's memory: a message and whose turn it is. */
struct table {
	_Atomic int turn;
	char message[MESSAGE];
};

static void fail(const char *what)
{
	perror(what);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char **argv)
{
	int rank, ranks;
	size_t page = sysconf(_SC_PAGESIZE);
	long long segid = 0;
	struct table *table = NULL;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (ranks != 2) {
		fprintf(stderr, "two ranks, please\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}

	if (rank == 0) {
		table = aligned_alloc(page, page);
		memset(table, 0, page);
		segid = xpmem_make(table, page, XPMEM_PERMIT_MODE, (void *)0600);
		if (segid == -1)
			fail("xpmem_make");
	}
	MPI_Bcast(&segid, 1, MPI_LONG_LONG, 0, MPI_COMM_WORLD);
	if (rank == 1) {
		struct xpmem_addr place = { 0 };
		place.apid = xpmem_get(segid, XPMEM_RDWR, XPMEM_PERMIT_MODE, NULL);
		if (place.apid == -1)
			fail("xpmem_get");
		table = xpmem_attach(place, page, NULL);
		if (table == (void *)-1)
			fail("xpmem_attach");
	}

	double start = MPI_Wtime();
	for (int round = 0; round < ROUNDS; round++) {
		char wanted = rank ? 2 * round + 1 : 2 * round;
		/* Where ranks share a processor, waiting is leaving it to the other. */
		while (atomic_load_explicit(&table->turn, memory_order_acquire) != rank)
			usleep(0);
		if (round + rank > 0 && table->message[round % MESSAGE] != (char)(wanted)) {
			fprintf(stderr, "round %d: not what was sent\n", round);
			MPI_Abort(MPI_COMM_WORLD, 1);
		}
		memset(table->message, wanted + 1, MESSAGE);
		atomic_store_explicit(&table->turn, !rank, memory_order_release);
	}
	double each = (MPI_Wtime() - start) / (2.0 * ROUNDS);

	/* Rank 0's memory must stay until rank 1 is done with it. */
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0) {
		printf("%d round trips, %.2f us each way\n", ROUNDS, each * 1e6);
		xpmem_remove(segid);
	} else {
		xpmem_detach(table);
	}
	MPI_Finalize();
	return 0;
}
