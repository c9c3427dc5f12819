"""Scripts of jobs for LSF, PBS and Flux: one job a command, whose ranks the site's launcher starts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcule.config.errors import UsageError
from hpcule.jobs.site import DEFAULT_MINUTES, Resources, SiteConfig

STARTS = {
    # One resource set a rank, as each of them sees its own GPU then.
    "lsf": "jsrun --nrs {ranks} --rs_per_host {tasks_per_node} --tasks_per_rs 1 --cpu_per_rs {cpus_per_task} "
    "--gpu_per_rs {gpus_per_task}",
    "pbs": "mpiexec -n {ranks} --ppn {tasks_per_node}",
    "flux": "flux run --nodes={nodes} --ntasks={ranks} --cores-per-task={cpus_per_task} "
    "--gpus-per-task={gpus_per_task}",
}
"""How the ranks of a job start where a site does not say it: on machines with jsrun, with Cray's or MPICH's mpiexec."""


@dataclass(frozen=True)
class PortableJob:
    """One job.

    Attributes:
        name: of the job.
        arguments: of hpcule.
        wanted: resources.
        after: jobs that it waits for, by the way in which they have to end: "ok" or "any".
        path: file of the script, which a job that goes on later submits again.
    """

    name: str
    arguments: Sequence[str]
    wanted: Resources
    after: Mapping[str, Sequence[str]]
    path: Path


def script(job: PortableJob, site: SiteConfig, python: str, environment: Sequence[str]) -> str:
    """The script of a job.

    Args:
        job: the job.
        site: where it runs.
        python: shell words that start Python for a rank.
        environment: shell lines that export variables.

    Raises:
        UsageError: `start` of the site has an unknown field.
    """
    directives = {"lsf": _lsf, "pbs": _pbs, "flux": _flux}[site.system]
    sentinel = {"lsf": "#BSUB", "pbs": "#PBS", "flux": "# flux:"}[site.system]
    shell = "#!/bin/bash -l" if site.login_shell else "#!/bin/bash"
    seconds = max(60 * (job.wanted.minutes or DEFAULT_MINUTES) - site.signal_seconds, 0)
    lines = [shell, *(f"{sentinel} {option}" for option in [*directives(job, site), *site.options]), ""]
    lines += [f"cd {shlex.quote(str(Path.cwd()))} || exit", *environment, *site.setup]
    lines.append(f"export HPCULE_STOP_AT=$(( $(date +%s) + {seconds} ))")
    watched = shlex.join(["-m", "hpcule.jobs.portable_command", site.system, str(job.path)])
    ranks = f"{start_words(site, job.wanted)} {python} -u -m hpcule {shlex.join(job.arguments)}"
    lines.append(f"exec {shlex.quote(sys.executable)} -u {watched} {ranks}")
    return "\n".join(lines) + "\n"


def start_words(site: SiteConfig, wanted: Resources) -> str:
    """The shell words that start the ranks of a job.

    Raises:
        UsageError: `start` of the site has an unknown field.
    """
    known = {
        "ranks": wanted.ranks,
        "nodes": wanted.nodes,
        "tasks_per_node": wanted.tasks_per_node,
        "cpus_per_task": wanted.cpus_per_task,
        "gpus_per_task": wanted.gpus_per_node // wanted.tasks_per_node,
        "gpus_per_node": wanted.gpus_per_node,
    }
    try:
        return (site.start or STARTS[site.system]).format(**known)
    except (KeyError, IndexError, ValueError):
        raise UsageError(
            f"start: {site.start!r} may hold the fields {', '.join(f'{{{name}}}' for name in known)}"
        ) from None


def _lsf(job: PortableJob, site: SiteConfig) -> Iterator[str]:
    """Options of bsub, from IBM's reference of it; `-nnodes` is for machines with jsrun."""
    wanted, cores = job.wanted, job.wanted.tasks_per_node * job.wanted.cpus_per_task
    yield f"-J {job.name}"
    yield f"-W {wanted.minutes or DEFAULT_MINUTES}"
    if start_words(site, wanted).startswith("jsrun"):
        yield f"-nnodes {wanted.nodes}"
    else:
        yield f'-n {wanted.nodes * cores} -R "span[ptile={cores}]"'
        if wanted.gpus_per_node:
            yield f'-gpu "num={wanted.gpus_per_node}"'
    if wanted.memory_gigabytes:
        yield f"-M {wanted.memory_gigabytes}GB"
    yield from _named(site, wanted, queue="-q", account="-P", reservation="-U")
    yield f"-o {job.path.with_suffix('')}-%J.out"
    # A job that ends so goes back to the queue under its own number, and those that wait for it go on waiting.
    yield '-Q "75"'
    conditions = [
        f"{'done' if kind == 'ok' else 'ended'}({name})" for kind, names in job.after.items() for name in names
    ]
    if conditions:
        yield f'-w "{" && ".join(conditions)}"'


def _pbs(job: PortableJob, site: SiteConfig) -> Iterator[str]:
    """Options of qsub, from the reference guide of PBS Professional."""
    wanted, minutes = job.wanted, job.wanted.minutes or DEFAULT_MINUTES
    chunk = f"ncpus={wanted.tasks_per_node * wanted.cpus_per_task}:mpiprocs={wanted.tasks_per_node}"
    if wanted.gpus_per_node:
        chunk += f":ngpus={wanted.gpus_per_node}"
    if wanted.memory_gigabytes:
        chunk += f":mem={wanted.memory_gigabytes}gb"
    yield f"-N {job.name}"
    yield f"-l select={wanted.nodes}:{chunk}"
    yield "-l place=scatter"
    yield f"-l walltime={minutes // 60:02d}:{minutes % 60:02d}:00"
    yield from _named(site, wanted, queue="-q", account="-A")
    yield f"-j oe -o {job.path.parent}/"
    depend = [f"after{kind}:{':'.join(names)}" for kind, names in job.after.items() if names]
    if depend:
        yield f"-W depend={','.join(depend)}"


def _flux(job: PortableJob, site: SiteConfig) -> Iterator[str]:
    """Options of flux batch, from flux-batch(1)."""
    wanted = job.wanted
    yield f"--job-name={job.name}"
    yield f"--nodes={wanted.nodes} --nslots={wanted.ranks} --cores-per-slot={wanted.cpus_per_task}"
    if wanted.gpus_per_node:
        yield f"--gpus-per-slot={wanted.gpus_per_node // wanted.tasks_per_node}"
    yield f"--time-limit={wanted.minutes or DEFAULT_MINUTES}m"
    yield from _named(site, wanted, queue="--queue", account="--bank")
    yield f"--output={job.path.with_suffix('')}-{{{{id}}}}.out"
    yield from (f"--dependency=after{kind}:{name}" for kind, names in job.after.items() for name in names)


def _named(site: SiteConfig, wanted: Resources, **options: str) -> Iterator[str]:
    """The site's own queue, account and reservation, by the options that take them."""
    values = {"queue": wanted.partition, "account": site.account, "reservation": site.reservation}
    for name, option in options.items():
        if value := values[name]:
            yield f"{option}{'=' if option.startswith('--') else ' '}{value}"
