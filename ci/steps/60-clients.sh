#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Real MPI clients over the library: Open MPI 4.1.4 vader, UCX 1.13.1, NetPIPE, mpi4py.
exec "$(dirname "$0")/../../tests/clients/run.sh" "$@"
