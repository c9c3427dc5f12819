"""What a batch system needs to know of a site, from a small YAML file each; some come with the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from hpcule.config.errors import UsageError
from hpcule.config.ranges import check_ranges, setting
from hpcule.config.tree import Tree, build_config, load_yaml, unknown

SITES = files(__package__) / "sites"
"""Folder of the site files that come with the package."""
Stage = Literal["craft", "victim", "report"]
"""The kind of work of a job; a single command that is submitted counts as a craft."""
DEFAULT_MINUTES = 60
"""Time limit of a job if neither the site nor a plan says anything."""
MARGIN, START_MINUTES = 2.0, 5
"""What a planned time is multiplied by, and what is added, for a time limit: plans are right within a factor of 2."""
OWNED_OPTIONS = {
    **{name: f"write the site's own setting `{name}:`" for name in ("partition", "account", "qos")},
    **{name: f"write the site's own setting `{name}:`" for name in ("reservation", "constraint", "nodes")},
    "ntasks-per-node": "write `tasks_per_node:`",
    "ntasks": "write `nodes:` and `tasks_per_node:`",
    "cpus-per-task": "write `cpus_per_task:`",
    "gpus-per-node": "write `gpus_per_node:`",
    "gpus-per-task": "write `gpus_per_node:`; every task sees all GPUs of its node",
    "time": "write `minutes:`",
    "mem": "write `memory_gigabytes:`",
    "signal": "write `signal_seconds:`",
    "output": "write `log_folder:`",
    "error": "write `log_folder:`",
    **dict.fromkeys(
        ("array", "chdir", "dependency", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode", "requeue"),
        "hpcule sets it, and relies on it; leave it out",
    ),
}
"""Options of sbatch that are not for `sbatch:`, with the remedy."""


def check_options(options: Tree) -> None:
    """Raise ValueError where an option of sbatch is one that hpcule sets itself."""
    for name in options:
        if remedy := OWNED_OPTIONS.get(name.replace("_", "-")):
            raise ValueError(f"sbatch.{name}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Resources of the jobs of one stage; what is not given is as in the site's common settings."""

    partition: str | None = None
    """Partition of the jobs."""
    nodes: int | None = setting(None, at_least=1)
    """Number of nodes of a job."""
    tasks_per_node: int | None = setting(None, at_least=1)
    """Number of ranks on each node."""
    cpus_per_task: int | None = setting(None, at_least=1)
    """Number of cores of a rank."""
    gpus_per_node: int | None = setting(None, at_least=0)
    """Number of GPUs of a node."""
    memory_gigabytes: int | None = setting(None, at_least=1)
    """Memory of a node."""
    minutes: int | None = setting(None, at_least=1)
    """Time limit of a job."""
    sbatch: Tree = field(default_factory=dict)
    """Further options of sbatch, on top of the common ones."""

    def __post_init__(self) -> None:
        """Check ranges and options."""
        check_ranges(self)
        check_options(self.sbatch)


@dataclass(frozen=True, kw_only=True)
class ContainerConfig:
    """The container that ranks run in; its Python has the packages that hpcule needs, submitit among them."""

    image: str
    """A file for Apptainer, or whatever `srun --container-image` of Pyxis takes."""
    runtime: Literal["apptainer", "pyxis"] = "apptainer"
    """`apptainer exec` inside of each task, or the options of Pyxis for srun."""
    binds: tuple[str, ...] = ()
    """Folders that the container sees besides the working folder, the code and the logs: where the data are."""
    python: str = "python3"
    """Python of the container."""


@dataclass(frozen=True)
class Resources:
    """What one job asks for; `minutes` may come from a plan."""

    partition: str | None
    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int
    memory_gigabytes: int | None
    minutes: int | None
    sbatch: Tree

    @property
    def ranks(self) -> int:
        """Number of ranks of the job."""
        return self.nodes * self.tasks_per_node


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """One site. A craft takes `nodes` x `tasks_per_node` ranks, a victim as many as train it jointly, and a report one,
    unless their own sections say otherwise."""

    system: Literal["slurm", "lsf", "pbs", "flux"] = "slurm"
    """Batch system of the site."""
    partition: str | None = None
    """Partition of the jobs, elsewhere called queue; without it, the default of the batch system."""
    account: str | None = None
    """Account that the jobs are charged to."""
    qos: str | None = None
    """Quality of service of the jobs."""
    reservation: str | None = None
    """Reservation that the jobs use."""
    constraint: str | None = None
    """Features that nodes must have, for example `a100`."""
    nodes: int = setting(1, at_least=1)
    """Number of nodes of a craft."""
    tasks_per_node: int = setting(1, at_least=1)
    """Number of ranks on each node; with GPUs, at most as many."""
    cpus_per_task: int = setting(1, at_least=1)
    """Number of cores of a rank."""
    gpus_per_node: int = setting(0, at_least=0)
    """Number of GPUs of a node; a job of fewer ranks asks for one each."""
    memory_gigabytes: int | None = setting(None, at_least=1)
    """Memory of a node; without it, the default of Slurm."""
    minutes: int | None = setting(None, at_least=1)
    """Time limit of a job (default: by the plan that `study submit --calibration` reads, else 60). What is not finished
    then is saved, requeued and goes on."""
    craft: StageConfig = field(default_factory=StageConfig)
    """Resources of crafts and of single commands, where they differ from the common ones."""
    victim: StageConfig = field(default_factory=StageConfig)
    """Resources of victims."""
    report: StageConfig = field(default_factory=StageConfig)
    """Resources of the report at the end."""
    victims_per_job: int | None = setting(None, at_least=1)
    """Number of victims of a job, dealt out to its ranks (default: one for each rank, or for each group of ranks that
    train one jointly)."""
    at_once: int = setting(16, at_least=1)
    """Number of jobs of an array that may run at the same time."""
    signal_seconds: int = setting(90, at_least=1)
    """Seconds before the time limit at which a job is asked to save."""
    network_interface: str | None = None
    """Where nodes have several: the one by which they reach each other, for gloo and NCCL."""
    gloo_interface: str | None = None
    """Interface for gloo alone, if it differs."""
    nccl_interface: str | None = None
    """Interface for NCCL alone, if it differs."""
    login_shell: bool = False
    """Whether the script reads the profile of a login shell (`bash -l`), which defines `module` at many sites."""
    setup: tuple[str, ...] = ()
    """Shell lines before the start, for example `module load python`."""
    srun_args: tuple[str, ...] = ()
    """Further options of srun, for example `--mpi=none`."""
    sbatch: Tree = field(default_factory=dict)
    """Further options of sbatch, for example `exclusive: true`."""
    options: tuple[str, ...] = ()
    """Further options of bsub, qsub or flux batch, a line each, for example `-l filesystems=home`."""
    start: str | None = None
    """Words that start the ranks in jobs of other systems than Slurm, with the fields `{ranks}`, `{nodes}`,
    `{tasks_per_node}`, `{cpus_per_task}`, `{gpus_per_task}` and `{gpus_per_node}` (default: jsrun on LSF, mpiexec on
    PBS, flux run on Flux)."""
    container: ContainerConfig | None = None
    """Container that ranks run in."""
    log_folder: str | None = None
    """Folder of logs and scripts (default: `logs` in the folder of the study or job)."""

    def __post_init__(self) -> None:
        """Check ranges and options."""
        check_ranges(self)
        check_options(self.sbatch)
        self._check_system()

    def _check_system(self) -> None:
        """Raise ValueError where a setting has no effect in this batch system."""
        own: dict[str, tuple[str, ...]] = dict.fromkeys(("options", "start"), ("lsf", "pbs", "flux"))
        own |= dict.fromkeys(("qos", "constraint", "srun_args", "sbatch"), ("slurm",))
        own |= {"reservation": ("slurm", "lsf"), "memory_gigabytes": ("slurm", "lsf", "pbs")}
        for name, systems in own.items():
            if getattr(self, name) and self.system not in systems:
                raise ValueError(f"{name}: has no effect with system={self.system}, only with {', '.join(systems)}")
        if self.system != "slurm" and self.container is not None and self.container.runtime == "pyxis":
            raise ValueError(f"container.runtime=pyxis: has no effect with system={self.system}; use apptainer")

    def resources(self, stage: Stage, workers: int = 1) -> Resources:
        """What a job of a stage asks for.

        Args:
            stage: of the job.
            workers: number of ranks that train a victim jointly.
        """
        common = {name: getattr(self, name) for name in (declared.name for declared in fields(Resources))}
        own: StageConfig = getattr(self, stage)
        if stage != "craft":
            nodes, tasks = self._spread(own, workers)
            common |= {"nodes": nodes, "tasks_per_node": tasks, "gpus_per_node": min(tasks, self.gpus_per_node)}
        given = {name: value for name in common if (value := getattr(own, name)) is not None}
        return Resources(**{**common, **given, "sbatch": {**self.sbatch, **own.sbatch}})

    def _spread(self, own: StageConfig, workers: int) -> tuple[int, int]:
        """Nodes, and ranks of each, for a number of ranks, as far as a section does not say them: as few nodes as have
        room for equal parts of the ranks."""
        if own.tasks_per_node is not None:
            return own.nodes or max(1, workers // own.tasks_per_node), own.tasks_per_node
        fitting = (nodes for nodes in range(1, workers + 1) if workers <= nodes * self.tasks_per_node)
        nodes = own.nodes or next(nodes for nodes in fitting if workers % nodes == 0)
        return nodes, max(1, workers // nodes)

    def with_minutes(self, predicted: Mapping[Stage, float], longest: Mapping[Stage, int | None]) -> SiteConfig:
        """The site with time limits for crafts and victims where it has none itself.

        Args:
            predicted: seconds that a job of each stage takes.
            longest: minutes that the partition of each stage allows; None: no limit.
        """
        sections = {}
        for stage, seconds in predicted.items():
            own: StageConfig = getattr(self, stage)
            if self.resources(stage).minutes is None:
                minutes = START_MINUTES + math.ceil(MARGIN * seconds / 60)
                own = replace(own, minutes=min(minutes, longest.get(stage) or minutes))
            sections[stage] = own
        return replace(self, craft=sections["craft"], victim=sections["victim"])

    def dealt_victims(self, workers: int = 1) -> int:
        """Number of victims of a job, each trained by `workers` ranks."""
        return self.victims_per_job or self.resources("victim", workers).ranks // workers


def load_site(name: str) -> SiteConfig:
    """Read a site.

    Args:
        name: one of `site_names`, or a path that ends in .yaml or .yml.

    Raises:
        UsageError: there is no such site, or its file has an unknown setting or an invalid value.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return _read(Path(name))
    if name not in site_names():
        raise UsageError(unknown("site", name, [*site_names(), "a file that ends in .yaml"]))
    with as_file(SITES / f"{name}.yaml") as path:
        return _read(path)


def site_names() -> list[str]:
    """The names of the sites that come with the package, sorted."""
    return sorted(Path(file.name).stem for file in SITES.iterdir() if file.name.endswith(".yaml"))


def _read(path: Path) -> SiteConfig:
    return build_config(SiteConfig, load_yaml(path), f"{path.name}: ")
