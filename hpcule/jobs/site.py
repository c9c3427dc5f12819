"""What a batch system needs to know of a site, from a small YAML file each; some come with the package."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from hpcule.config.errors import UsageError
from hpcule.config.ranges import check_ranges, setting
from hpcule.config.tree import Tree, build_config, load_yaml, unknown

SITES = files(__package__) / "sites"
"""Folder of the site files that come with the package."""


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """One site. A joint job (a craft) takes `nodes` x `tasks_per_node` ranks, any other takes one."""

    partition: str | None = None
    account: str | None = None
    nodes: int = setting(1, at_least=1)
    tasks_per_node: int = setting(1, at_least=1)
    cpus_per_task: int = setting(1, at_least=1)
    gpus_per_node: int = setting(0, at_least=0)
    memory_gigabytes: int | None = None
    minutes: int = setting(60, at_least=1)
    """Time limit of a job; what is not finished then is saved, requeued and goes on."""
    at_once: int = setting(16, at_least=1)
    """Jobs of an array that may run at the same time."""
    signal_seconds: int = 90
    """Seconds before the time limit at which a job is asked to save."""
    network_interface: str | None = None
    """Where nodes have several: the one that they reach each other by, for gloo and NCCL."""
    setup: tuple[str, ...] = ()
    """Shell lines before the start, for example `module load python`."""
    sbatch: Tree = field(default_factory=dict)
    """Further options of sbatch, for example `constraint: gpu`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_ranges(self)


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


def check_partition(site: SiteConfig) -> None:
    """Ask Slurm, before anything is submitted, whether it is there and has the partition.

    Raises:
        UsageError: it does not answer, or does not know the partition.
    """
    if shutil.which("sbatch") is None:
        raise UsageError("there is no sbatch on this machine: submit from a login node of the cluster")
    asked = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, timeout=60)
    if asked.returncode:
        raise UsageError(f"Slurm does not answer: {(asked.stderr.strip() or 'sinfo failed').splitlines()[0]}")
    partitions = sorted(set(asked.stdout.split()))
    if site.partition is not None and site.partition not in partitions:
        raise UsageError(unknown("partition", site.partition, partitions))
