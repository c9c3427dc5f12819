"""Where rank, size, address and threads come from: a table a launcher; nothing else reads the environment."""

from __future__ import annotations

import atexit
import os
import random
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcule.config.errors import UsageError

TORCHRUN = {"rank": "RANK", "size": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE"}
JSRUN = {"rank": "JSM_NAMESPACE_RANK", "size": "JSM_NAMESPACE_SIZE", "local_rank": "JSM_NAMESPACE_LOCAL_RANK"}
SRUN = {"rank": "SLURM_PROCID", "size": "SLURM_NTASKS", "local_rank": "SLURM_LOCALID"}
MEETING = "HPCULE_MEETING"
"""Variable that names the folder where ranks meet that `--workers` has started; their numbers are as torchrun's."""
MPI_MARKS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PALS_LOCAL_RANKID", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE")
"""Open MPI, MPICH and Intel MPI, Cray PALS, Intel MPI, MVAPICH: any of them says that an MPI launcher started us."""
MPI_SIZES = (
    *("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"),
    *("JSM_NAMESPACE_SIZE", "FLUX_JOB_SIZE"),
)
"""Variables in which launchers say how many tasks they have started."""
FLUX = "FLUX_JOB_SIZE"
"""Variable of Flux, which sets those of MPI, too, unless an option says otherwise."""
SLURM_PMI = {"PMI_RANK": "SLURM_PROCID", "PMI_SIZE": "SLURM_NTASKS"}
"""What `srun --mpi=pmi2` sets for its tasks, and what it then equals."""


@dataclass(frozen=True)
class Place:
    """Where this process stands in a run."""

    launcher: str
    """"single", "workers" (our own, of `--workers`), "torchrun", "jsrun", "srun" or "mpi"."""
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Workers on this node."""
    address: str = ""
    """Host of rank 0, empty for a single process and where the ranks meet in a folder."""
    port: int = 0
    error_file: str = ""
    """Where `--workers` or torch's elastic agent wants this worker's own error, empty elsewhere."""
    folder: str = ""
    """Private folder in which the ranks meet, empty where they meet at an address."""

    @property
    def host(self) -> str:
        """This machine's name, for messages."""
        return socket.gethostname()

    @property
    def meeting(self) -> str:
        """Where the ranks meet, for messages."""
        return self.folder or f"{self.address}:{self.port}"

    @property
    def on_one_machine(self) -> bool:
        """Whether all ranks are on this machine."""
        return self.local_size == self.size


def detect(environ: Mapping[str, str] = os.environ) -> Place:
    """Find our place. Order: `--workers`, torchrun, jsrun, srun, MPI, single process.

    Expected variables: torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT
    (deepspeed's launcher the same, but LOCAL_SIZE); jsrun JSM_NAMESPACE_* with LSB_DJOB_RANKFILE and LSB_JOBID; srun
    SLURM_PROCID with SLURM_STEP_ID, SLURM_JOB_NODELIST and SLURM_JOB_ID; MPI is asked through mpi4py.

    Raises:
        UsageError: a launcher is present but incomplete, or two launchers contradict each other. There is no silent
            fallback to a world of one: every rank would believe to be rank 0 and write the same files.
    """
    if MEETING in environ:
        return _workers(environ)
    if TORCHRUN["rank"] in environ or TORCHRUN["size"] in environ:
        return _torchrun(environ)
    if JSRUN["rank"] in environ:
        return _jsrun(environ)
    mpi = any(mark in environ for mark in MPI_MARKS if not _is_of_srun(mark, environ))
    # SLURM_NTASKS alone also stands in a shell of salloc; a task of srun has a step and a number.
    if SRUN["rank"] in environ and environ.get("SLURM_STEP_ID", "") not in ("", "4294967290") and not mpi:
        return _srun(environ)
    if mpi:
        return _mpi(environ)
    if environ.get(FLUX, "1") != "1":
        raise UsageError(
            f"Flux started {environ[FLUX]} tasks without MPI's variables, so they cannot find each other: start them "
            "with Flux's PMI and mpi4py, or torchrun on each node"
        )
    return Place("single")


def environment_threads(environ: Mapping[str, str] = os.environ) -> int | None:
    """Number of threads that OMP_NUM_THREADS asks for, read as OpenMP and torch read it, or None.

    OpenMP takes a list, one number a level of nested parallelism, and ignores what is not a positive number.
    """
    first = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def _is_of_srun(mark: str, environ: Mapping[str, str]) -> bool:
    """Whether srun's own PMI plugin has set this mark: its rank and size are then those of the task."""
    return mark == "PMI_SIZE" and all(environ.get(pmi, "?") == environ.get(own) for pmi, own in SLURM_PMI.items())


def _workers(environ: Mapping[str, str]) -> Place:
    numbers, folder = _numbers("--workers", TORCHRUN, environ), Path(environ[MEETING])
    return _place("workers", numbers, folder=str(folder), error_file=str(error_file(folder, numbers["rank"])))


def error_file(folder: Path, rank: int) -> Path:
    """The file in the ranks' meeting folder in which a rank leaves its error."""
    return folder / f"error-{rank}.json"


def _torchrun(environ: Mapping[str, str]) -> Place:
    table = TORCHRUN if "LOCAL_WORLD_SIZE" in environ else {**TORCHRUN, "local_size": "LOCAL_SIZE"}
    numbers = _numbers("torchrun", table, environ, optional=("local_rank", "local_size"))
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if not address or not (port or "").isdigit():
        raise UsageError("RANK and WORLD_SIZE are set but MASTER_ADDR or MASTER_PORT is not: start with torchrun")
    error_file = environ.get("TORCHELASTIC_ERROR_FILE", "")
    return _place("torchrun", numbers, address=address, port=int(port or 0), error_file=error_file)


def _jsrun(environ: Mapping[str, str]) -> Place:
    numbers = _numbers("jsrun", JSRUN, environ)
    size = numbers["size"]
    if size == 1:
        return _place("jsrun", numbers)
    hosts = _rank_file(environ)
    job = environ.get("LSB_JOBID", "")
    if len(hosts) < 2 or not job.isdigit():
        raise UsageError("jsrun: LSB_DJOB_RANKFILE must name a file that lists the hosts, and LSB_JOBID the job")
    # The first line is the launch node, which runs no rank.
    return _place("jsrun", numbers, local_size=max(1, hosts.count(hosts[1])), address=hosts[1], port=job_port(job))


def _srun(environ: Mapping[str, str]) -> Place:
    numbers = _numbers("srun", SRUN, environ)
    tasks = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", "1")))
    local_size = int(tasks.group()) if tasks else 1
    if numbers["size"] == 1:
        return _place("srun", numbers)
    nodes, job = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST"), environ.get("SLURM_JOB_ID")
    if not nodes or not job:
        raise UsageError("srun: SLURM_JOB_NODELIST or SLURM_JOB_ID is not set, so the address of rank 0 is unknown")
    # A requeued job takes another port: the last one may be what it failed for.
    port = job_port(job, environ["SLURM_STEP_ID"], environ.get("SLURM_RESTART_COUNT", "0"))
    return _place("srun", numbers, local_size=local_size, address=_first_node(nodes), port=port)


def _mpi(environ: Mapping[str, str]) -> Place:
    try:
        from mpi4py import MPI
    except ImportError:
        raise UsageError('started by an MPI launcher, but mpi4py is missing: pip install "hpcule[mpi]"') from None
    # mpi4py's own call comes after the interpreter, which our processes do not wait for. MPI ends once only.
    atexit.unregister(MPI.Finalize)
    atexit.register(MPI.Finalize)
    world = MPI.COMM_WORLD
    _check_mpi_size(world.Get_size(), environ)
    if world.Get_size() == 1:
        return Place("mpi")
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    here = (socket.gethostname(), free_port()) if world.Get_rank() == 0 else None
    address, port = world.bcast(here, root=0)
    return Place("mpi", world.Get_rank(), world.Get_size(), node.Get_rank(), node.Get_size(), address, port)


def _check_mpi_size(size: int, environ: Mapping[str, str]) -> None:
    """Refuse MPI singletons: under the wrong process manager, MPI makes each task rank 0 of 1."""
    for variable in MPI_SIZES:
        expected = environ.get(variable, "")
        if expected.isdigit() and int(expected) != size:
            raise UsageError(
                f"MPI counts {size} process(es) but {variable} says {expected}: mpi4py was built against another MPI "
                f"than the launcher's; install it with the site's MPI, or start with srun or torchrun"
            )


def _place(launcher: str, numbers: Mapping[str, int], **more: str | int) -> Place:
    fields: dict[str, Any] = {**numbers, **more}
    return Place(launcher, **fields)


def _numbers(
    launcher: str, table: Mapping[str, str], environ: Mapping[str, str], optional: tuple[str, ...] = ()
) -> dict[str, int]:
    values: dict[str, int] = {}
    for name, variable in table.items():
        text = environ.get(variable)
        if text is None and name in optional:
            continue
        if text is None or not text.isdigit():
            raise UsageError(f"{launcher}: {variable} must be a number, not {text!r}")
        values[name] = int(text)
    if values["rank"] >= values["size"]:
        raise UsageError(f"{launcher}: rank {values['rank']} of a world of {values['size']}")
    return values


def _rank_file(environ: Mapping[str, str]) -> list[str]:
    try:
        return Path(environ["LSB_DJOB_RANKFILE"]).read_text().split()
    except (KeyError, OSError):
        return []


def _first_node(nodes: str) -> str:
    """First host of a Slurm node list ("gpu[003-004,7],x1" is gpu003)."""
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodes).split(",")[0]
    try:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30)
        if shown.returncode == 0 and shown.stdout.split():
            first = shown.stdout.split()[0]
    except (OSError, subprocess.TimeoutExpired):
        pass  # containers often lack scontrol: our own reading of the list stands
    if not re.fullmatch(r"[\w.-]+", first):
        raise UsageError(f"srun: cannot read the node list '{nodes}'")
    return first


def job_port(job: str, *more: str) -> int:
    """A port that all ranks derive from the job's numbers without a message; fixed ports collide on shared nodes."""
    return random.Random(" ".join(("hpcule", job, *more))).randint(20000, 60000)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def slurm_job(environ: Mapping[str, str] = os.environ) -> str:
    """This job's name among Slurm's; empty elsewhere.

    SLURM_JOB_ID does not do: for one element of an array it is the number of the whole array.
    """
    array, element = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else environ.get("SLURM_JOB_ID", "")
