/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <mpi.h>

int main(int argc, char **argv)
{
	int rank, size, sum = -1;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	MPI_Finalize();
	return sum != size * (size - 1) / 2;
}
