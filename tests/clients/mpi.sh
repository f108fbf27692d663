# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# How Open MPI is started: as root too, quiet, local, more ranks than processors. Needs lib.sh.

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm=isolated OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_base_warn_component_unused=0 OMPI_MCA_oob_tcp_if_include=lo
export OMPI_MCA_opal_warn_on_missing_libcuda=0
export UCX_WARN_UNUSED_ENV_VARS=n

# Both set MPI, the words of the command to run.
mpi() { # RANKS COPY-MECHANISM COMMAND...
    local ranks=$1 copy=$2
    shift 2
    MPI=(mpirun -n "$ranks" -x LD_LIBRARY_PATH -x XPMEM_DEBUG -x XPMEM_DEBUG_FILE
        --mca mca_base_component_path "$OUT/mca:$MPI_PLUGINS"
        --mca pml ob1 --mca btl self,vader --mca btl_vader_single_copy_mechanism "$copy" "$@")
}

ucx_mpi() { # RANKS TRANSPORTS COMMAND...
    local ranks=$1 transports=$2
    shift 2
    MPI=(mpirun -n "$ranks" -x LD_LIBRARY_PATH -x XPMEM_DEBUG -x XPMEM_DEBUG_FILE
        -x "LD_PRELOAD=$OUT/libuct_xpmem.so.0" -x "UCX_TLS=$transports"
        --mca pml ucx --mca pml_ucx_tls any --mca pml_ucx_devices any --mca osc '^ucx' "$@")
}

# Needs IMPI, from prepare.sh impi. SINGLE-COPY: 1, or 0 for two copies through shared memory.
impi() { # RANKS SINGLE-COPY COMMAND...
    local ranks=$1 single=$2
    shift 2
    MPI=(env "LD_LIBRARY_PATH=$LIBDIR:$IMPI/lib" "I_MPI_ROOT=$IMPI" I_MPI_FABRICS=shm I_MPI_SHM_XPMEM="$single" I_MPI_PIN=0
        "$IMPI/bin/mpiexec.hydra" -bootstrap fork -n "$ranks" "$@")
}
