"""Variables in which launchers tell a process its number: a table a launcher, each with its source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict, cast

from hpcule.config.errors import UsageError

TORCHRUN = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
FLUX = {"rank": "FLUX_TASK_RANK", "size": "FLUX_JOB_SIZE", "local_rank": "FLUX_TASK_LOCAL_ID"}
"""flux-environment(7) of flux-core, section "Job environment"."""
JSRUN = {
    "rank": "JSM_NAMESPACE_RANK",
    "size": "JSM_NAMESPACE_SIZE",
    "local_rank": "JSM_NAMESPACE_LOCAL_RANK",
    "local_size": "JSM_NAMESPACE_LOCAL_SIZE",
}
"""Spectrum MPI's Job Step Manager; the first three as in Lightning's LSFEnvironment."""
SRUN = {"rank": "SLURM_PROCID", "size": "SLURM_NTASKS", "local_rank": "SLURM_LOCALID"}
"""srun(1), section "Output environment variables"."""
SCHEDULERS = {"flux": FLUX, "jsrun": JSRUN, "srun": SRUN}
"""Launchers that say all that ranks need to find each other, the innermost first: Flux runs under srun and jsrun."""

MPI = {
    # Open MPI's documentation, "Environment variables set for MPI applications"
    "Open MPI": {
        "rank": "OMPI_COMM_WORLD_RANK",
        "size": "OMPI_COMM_WORLD_SIZE",
        "local_rank": "OMPI_COMM_WORLD_LOCAL_RANK",
        "local_size": "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    # User guide of MVAPICH2, on mpirun_rsh; MVAPICH 3 has renamed them
    "MVAPICH2": {
        "rank": "MV2_COMM_WORLD_RANK",
        "size": "MV2_COMM_WORLD_SIZE",
        "local_rank": "MV2_COMM_WORLD_LOCAL_RANK",
        "local_size": "MV2_COMM_WORLD_LOCAL_SIZE",
    },
    "MVAPICH": {
        "rank": "MVP_COMM_WORLD_RANK",
        "size": "MVP_COMM_WORLD_SIZE",
        "local_rank": "MVP_COMM_WORLD_LOCAL_RANK",
        "local_size": "MVP_COMM_WORLD_LOCAL_SIZE",
    },
    # mpiexec of MPICH and of Intel MPI
    "Hydra": {
        "local_rank": "MPI_LOCALRANKID",
        "local_size": "MPI_LOCALNRANKS",
        "rank": "PMI_RANK",
        "size": "PMI_SIZE",
    },
    # pals.h of HPE's Parallel Application Launch Service
    "PALS": {
        "rank": "PALS_RANKID",
        "size": "PMI_SIZE",
        "local_rank": "PALS_LOCAL_RANKID",
        "local_size": "PALS_LOCAL_SIZE",
    },
    # Flux RFC 13, "Simple process manager interface v1"
    "PMI": {"rank": "PMI_RANK", "size": "PMI_SIZE"},
    # PMIx 4.0 standard, environment of a client
    "PMIx": {"rank": "PMIX_RANK"},
    # aprun(1) of Cray
    "ALPS": {"rank": "ALPS_APP_PE"},
}
"""Launchers of MPI, which do not say where rank 0 is, by the variable that only they set, first in each table."""
OPTIONAL = ("size", "local_rank", "local_size")
MADE_BY = {"srun": ("PALS", "PMI", "PMIx"), "flux": ("PMI",), "jsrun": ("Open MPI", "PMI", "PMIx")}
"""Tables that a scheduler's own process management fills: `srun --mpi=pmi2`, `pmix` or `cray_shasta` (Slurm's
mpi/cray_shasta plugin, which sets PALS_RANKID), the `pmi` plugin of flux-shell, Spectrum MPI."""
SIZES = ("SLURM_STEP_NUM_TASKS", "JSM_NAMESPACE_SIZE", "FLUX_JOB_SIZE")
"""Variables in which schedulers say how many processes there are, whoever has started those of MPI."""
UNKNOWN = {
    "MPT_LRANK": ("mpiexec_mpt of HPE MPT", ()),
    # PBS and LSF count from 1, which is also the number of a script of one process.
    "PBS_TASKNUM": ("pbsdsh", ("1",)),
    "LSF_PM_TASKID": ("blaunch", ("1",)),
}
"""Variables of launchers that say too little, the launcher, and the values that they have without it."""


class Numbers(TypedDict, total=False):
    """Where a process stands among those of its launcher, and among those of them on its node."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def numbers(
    launcher: str, table: Mapping[str, str], environ: Mapping[str, str], optional: Collection[str] = ()
) -> Numbers:
    """The numbers in a launcher's variables, by their names in the table.

    Raises:
        UsageError: one of them is missing or no number, or a rank is not below its size.
    """
    values: dict[str, int] = {}
    for name, variable in table.items():
        text = environ.get(variable)
        if text is None and name in optional:
            continue
        if text is None or not text.isdigit():
            raise UsageError(
                f"{launcher}: {variable} must be a number, not {text!r}: start with {launcher} and leave the variables "
                f"that it sets alone, or unset them ({', '.join(v for v in table.values() if v in environ)})"
            )
        values[name] = int(text)
    for rank, size in (("rank", "size"), ("local_rank", "local_size")):
        if rank in values and size in values and values[rank] >= values[size]:
            raise UsageError(
                f"{launcher}: {table[rank]} and {table[size]} make this rank {values[rank]} of a world of "
                f"{values[size]}, counted from 0; unset them if they are left over from another start"
            )
    return cast(Numbers, values)


def mpi_launcher(environ: Mapping[str, str]) -> str:
    """Name of the table of the MPI launcher whose variables are there; empty without one."""
    return next((name for name, table in MPI.items() if _marks(table) & set(environ)), "")


def _marks(table: Mapping[str, str]) -> set[str]:
    """The variables that tell a launcher: its first one, and those of the same origin."""
    first = next(iter(table.values()))
    return {variable for variable in table.values() if variable.split("_")[0] == first.split("_")[0]}


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Stop where a launcher has started this process that does not say which of how many it is.

    Raises:
        UsageError: names the variable that was seen.
    """
    for variable, (launcher, harmless) in UNKNOWN.items():
        if (value := environ.get(variable, "")) and value not in harmless:
            raise UsageError(
                f"{variable}={value}: {launcher} has started this process and does not say which of how many it is; "
                f"let it start torchrun on each node, use mpiexec, or unset {variable} for a single process"
            )
