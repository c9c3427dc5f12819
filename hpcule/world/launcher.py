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

from hpcule.config.errors import UsageError, first_line
from hpcule.world.launcher_variables import (
    MADE_BY,
    MPI,
    OPTIONAL,
    SCHEDULERS,
    SIZES,
    TORCHRUN,
    Numbers,
    mpi_launcher,
    numbers,
    refuse_unknown,
)

MEETING = "HPCULE_MEETING"
"""Variable that names the folder where ranks meet that `--workers` has started; their numbers are as torchrun's."""


@dataclass(frozen=True)
class Place:
    """Where this process stands in a run."""

    launcher: str
    """"single", "workers" (our own, of `--workers`), "torchrun", "flux", "jsrun", "srun" or "mpi"."""
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
    """Find our place. Order: `--workers`, torchrun, Flux, jsrun, srun, MPI, single process.

    Expected are the variables of `launcher_variables`, and for the address of rank 0: from torchrun MASTER_ADDR and
    MASTER_PORT (deepspeed's launcher the same, but LOCAL_SIZE); from Flux FLUX_JOB_ID; from jsrun LSB_DJOB_RANKFILE and
    LSB_JOBID; from srun SLURM_STEP_ID, SLURM_JOB_NODELIST and SLURM_JOB_ID. MPI is asked through mpi4py.

    Raises:
        UsageError: a launcher is present but incomplete or unknown, or two launchers contradict each other. There is no
            silent fallback to a world of one: every rank would believe to be rank 0 and write the same files.
    """
    if MEETING in environ:
        return _workers(environ)
    if TORCHRUN["rank"] in environ or TORCHRUN["size"] in environ:
        return _torchrun(environ)
    mpi, scheduler = mpi_launcher(environ), _scheduler(environ)
    if scheduler and (not mpi or _is_its_own(mpi, scheduler, environ)):
        own = numbers(scheduler, SCHEDULERS[scheduler], environ, optional=("local_size",))
        return Place(scheduler, **own) if own["size"] == 1 else _MEETINGS[scheduler](environ, own)
    if mpi:
        return _mpi(mpi, environ)
    refuse_unknown(environ)
    return Place("single")


def environment_threads(environ: Mapping[str, str] = os.environ) -> int | None:
    """Number of threads that OMP_NUM_THREADS asks for, read as OpenMP and torch read it, or None.

    OpenMP takes a list, one number a level of nested parallelism, and ignores what is not a positive number.
    """
    first = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def _scheduler(environ: Mapping[str, str]) -> str:
    """The scheduler's own launcher that has started this process; empty without one."""
    found = [name for name, table in SCHEDULERS.items() if table["rank"] in environ]
    # SLURM_NTASKS alone also stands in a shell of salloc; a task of srun has a step and a number.
    if environ.get("SLURM_STEP_ID", "") in ("", "4294967290") and "srun" in found:
        found.remove("srun")
    return found[0] if found else ""


def _is_its_own(mpi: str, scheduler: str, environ: Mapping[str, str]) -> bool:
    """Whether the scheduler has set the variables of this MPI launcher: they then say what its own do."""
    own = SCHEDULERS[scheduler]
    pairs = [(environ.get(MPI[mpi].get(name, "")), environ.get(own[name])) for name in ("rank", "size")]
    return mpi in MADE_BY[scheduler] and all(theirs in (None, ours) for theirs, ours in pairs)


def _workers(environ: Mapping[str, str]) -> Place:
    own, folder = numbers("--workers", TORCHRUN, environ), Path(environ[MEETING])
    return Place("workers", **own, folder=str(folder), error_file=str(error_file(folder, own["rank"])))


def error_file(folder: Path, rank: int) -> Path:
    """The file in the ranks' meeting folder in which a rank leaves its error."""
    return folder / f"error-{rank}.json"


def _torchrun(environ: Mapping[str, str]) -> Place:
    table = TORCHRUN if "LOCAL_WORLD_SIZE" in environ else {**TORCHRUN, "local_size": "LOCAL_SIZE"}
    own = numbers("torchrun", table, environ, optional=("local_rank", "local_size"))
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if not address or not (port or "").isdigit():
        raise UsageError("RANK and WORLD_SIZE are set but MASTER_ADDR or MASTER_PORT is not: start with torchrun")
    error_file = environ.get("TORCHELASTIC_ERROR_FILE", "")
    return Place("torchrun", **own, address=address, port=int(port or 0), error_file=error_file)


def _flux(environ: Mapping[str, str], own: Numbers) -> Place:
    nodes, job = environ.get("FLUX_JOB_NNODES", ""), environ.get("FLUX_JOB_ID", "")
    if not nodes.isdigit() or int(nodes) < 1 or not job:
        raise UsageError("flux: FLUX_JOB_NNODES or FLUX_JOB_ID is not set: leave the variables that flux sets alone")
    try:
        shown = subprocess.run(
            ["flux", "hostlist", "--expand", "--nth=0", "local"], capture_output=True, text=True, timeout=30
        )
        said, address = shown.stderr.strip().splitlines()[:1], shown.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said, address = [first_line(error)], ""
    if not address:
        raise UsageError(
            f"flux: `flux hostlist` does not name the host of rank 0 ({''.join(said)}): put flux (0.60 or newer) on "
            "the PATH of the tasks, or start torchrun on each node"
        )
    # Flux does not say how many tasks each node has; by default, their numbers differ by one at most.
    own["local_size"] = -(-own["size"] // int(nodes))
    return Place("flux", **own, address=address, port=job_port(job))


def _jsrun(environ: Mapping[str, str], own: Numbers) -> Place:
    hosts = _rank_file(environ)
    job = environ.get("LSB_JOBID", "")
    if len(hosts) < 2 or not job.isdigit():
        raise UsageError("jsrun: LSB_DJOB_RANKFILE must name a file that lists the hosts, and LSB_JOBID the job")
    # The first line is the launch node, which runs no rank. A host has a line for each slot, which need not be a rank.
    own.setdefault("local_size", min(own["size"], hosts.count(hosts[1])))
    return Place("jsrun", **own, address=hosts[1], port=job_port(job))


def _srun(environ: Mapping[str, str], own: Numbers) -> Place:
    nodes, job = _srun_nodes(environ), environ.get("SLURM_JOB_ID")
    if not nodes or not job:
        raise UsageError("srun: SLURM_JOB_NODELIST or SLURM_JOB_ID is not set, so the address of rank 0 is unknown")
    # A requeued job takes another port: the last one may be what it failed for.
    port = job_port(job, environ["SLURM_STEP_ID"], environ.get("SLURM_RESTART_COUNT", "0"))
    own["local_size"] = _srun_tasks(environ)
    return Place("srun", **own, address=_first_node(nodes), port=port)


def _srun_nodes(environ: Mapping[str, str]) -> str | None:
    """The nodes of a step, that of rank 0 first.

    The list of nodes is in the cluster's order, and so are the tasks, but for `--distribution=arbitrary`: there,
    SLURM_HOSTFILE holds the node of each task, one a line or with commas, and sbatch passes them on as
    SLURM_ARBITRARY_NODELIST.
    """
    if not environ.get("SLURM_DISTRIBUTION", "").startswith("arbitrary"):
        return environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    listed = environ.get("SLURM_ARBITRARY_NODELIST", "")
    if not listed:
        try:
            listed = Path(environ.get("SLURM_HOSTFILE", "")).read_text().replace(",", " ").split()[0].split("*")[0]
        except (OSError, IndexError):
            raise UsageError(
                "srun: with --distribution=arbitrary, SLURM_HOSTFILE must name the file of nodes for the tasks, too: "
                "nothing else says on which node rank 0 is"
            ) from None
    return listed


def _srun_tasks(environ: Mapping[str, str]) -> int:
    """Number of tasks on this node, from a list such as `4(x2),1`."""
    listed = environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", "1"))
    counts = [
        int(count) for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", listed) for _ in range(int(times or 1))
    ]
    node = environ.get("SLURM_NODEID", "")
    return counts[int(node) if node.isdigit() and int(node) < len(counts) else 0] if counts else 1


_MEETINGS = {"flux": _flux, "jsrun": _jsrun, "srun": _srun}
"""How the ranks of each scheduler find each other."""


def _mpi(launcher: str, environ: Mapping[str, str]) -> Place:
    """Ask MPI, and compare with what its launcher has said."""
    stated = numbers(launcher, MPI[launcher], environ, optional=OPTIONAL)
    if stated.get("size") == 1:
        _check_mpi_size(1, environ)
        return Place("mpi")
    try:
        from mpi4py import MPI as mpi  # noqa: N811
    except ImportError:
        raise UsageError(
            f'{launcher} has started this process, but mpi4py is missing: pip install "hpcule[mpi]", or start with '
            "torchrun"
        ) from None
    # mpi4py's own call comes after the interpreter, which our processes do not wait for. MPI ends once only.
    atexit.unregister(mpi.Finalize)
    atexit.register(mpi.Finalize)
    world = mpi.COMM_WORLD
    counted = Numbers(rank=world.Get_rank(), size=world.Get_size())
    if counted["size"] == 1:
        _check_mpi_size(1, environ)
        raise UsageError(
            f"{MPI[launcher]['rank']} is set, but nothing says how many processes there are, and MPI counts 1: install "
            "mpi4py with the launcher's MPI, start with srun or torchrun, or unset the variable for a single process"
        )
    if differing := [name for name, number in counted.items() if stated.get(name, number) != number]:
        name = differing[0]
        raise UsageError(
            f"MPI says {dict(counted)} but {MPI[launcher][name]}={environ[MPI[launcher][name]]}: two launchers have "
            "started these processes; start them with one of the two, with srun or with torchrun"
        )
    node = world.Split_type(mpi.COMM_TYPE_SHARED)
    counted |= Numbers(local_rank=node.Get_rank(), local_size=node.Get_size())
    here = (socket.gethostname(), free_port()) if world.Get_rank() == 0 else None
    address, port = world.bcast(here, root=0)
    return Place("mpi", **counted, address=address, port=port)


def _check_mpi_size(size: int, environ: Mapping[str, str]) -> None:
    """Refuse MPI singletons: under the wrong process manager, MPI makes each task rank 0 of 1."""
    for variable in (*SIZES, *(table["size"] for table in MPI.values() if "size" in table)):
        expected = environ.get(variable, "")
        if expected.isdigit() and int(expected) != size:
            raise UsageError(
                f"MPI counts {size} process(es) but {variable} says {expected}: mpi4py was built against another MPI "
                f"than the launcher's; install it with the site's MPI, or start with srun or torchrun"
            )


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
