"""What the tests on the local Slurm share: commands, waiting, and what is where."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpcule.store.manifest import read_manifest
from hpcule.store.vault import Vault

ROOT = Path(__file__).parents[2]
CLUSTER = Path(os.environ.get("HPCULE_LOCAL_CLUSTER", "/var/lib/hpcule-local-cluster"))
OF_A_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "SBATCH_", "SRUN_", "OMPI_", "PMI", "JSM_")

CRAFT = ROOT / "slurm" / "craft.sbatch"
LOCAL_CLUSTER = ROOT / "slurm" / "local-cluster"

SMOKE = ["--data", "digits", "--preset", "smoke", "--set", "deterministic=true", "--set", "world.threads=1"]
LONG = [*SMOKE, "--set", "method.epochs=80"]
"""Long enough to be disturbed midway where OFTEN_SAVED goes with it: a hundred steps, a checkpoint each."""
OFTEN_SAVED = ["--set", "world.checkpoint_seconds=0"]
REQUEUED = "was stopped ({}): requeued, to continue with what is saved"


def environ() -> dict[str, str]:
    """Our variables without any launcher's; the programs of our Python first, and where the cluster is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_LAUNCHER)}
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return {**kept, "SLURM_CONF": str(CLUSTER / "slurm.conf")}


def call(
    *words: object, timeout: float = 600, cwd: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    line = [str(word) for word in words]
    return subprocess.run(line, env={**environ(), **more}, capture_output=True, text=True, timeout=timeout, cwd=cwd)


@contextlib.contextmanager
def beside(*words: object) -> Iterator[Callable[[], subprocess.CompletedProcess[str]]]:
    """Call something while jobs wait in the queue; gives a function that waits for the end of it."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit(call, *words).result


def wait_until(true: Callable[[], object], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.1)


def saved(store: Path) -> bool:
    return any((store / "run").glob("checkpoint-*/COMMIT"))


def contents(store: Path) -> dict[str, bytes]:
    manifest = read_manifest(Vault(store))
    assert manifest.complete
    return {entry.file: (store / entry.file).read_bytes() for entry in manifest.files}


def submit(folder: Path, *words: object) -> str:
    """Submit a script with its output in `folder`; the job's id."""
    done = call("sbatch", "--parsable", f"--chdir={folder}", "--output=log", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(job: str, field: str) -> str:
    """A field of `scontrol show job`, such as JobState or Restarts."""
    text = call("scontrol", "--oneliner", "show", "job", job).stdout
    return dict(word.split("=", 1) for word in text.split() if "=" in word).get(field, "")


def ask_to_stop(job: str) -> None:
    """Send the signal before the time limit. To the step alone: for a whole job, scancel repeats it where it has had no
    answer, and then the next attempt gets it, too."""
    assert call("scancel", "--signal=USR2", f"{job}.0").returncode == 0


def jobs_named(beginning: str, state: str = "") -> list[str]:
    """Jobs in the queue, elements of arrays one by one, whose names begin so, in a state or in any."""
    lines = call("squeue", "--noheader", "--array", "--format=%i %T %j").stdout.splitlines()
    found = [line.split() for line in lines]
    return [job for job, its_state, name in found if name.startswith(beginning) and state in ("", its_state)]


def wait_for_end(job: str, folder: Path, state: str = "COMPLETED") -> None:
    """Wait until a job ends, which must be in this state."""
    wait_until(lambda: shown(job, "JobState") not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"), job)
    assert shown(job, "JobState") == state, (folder / "log").read_text()


def wait_for_restart(job: str, number: int = 1) -> None:
    """Wait until a job has been requeued this many times. It starts when the credentials of its last start expire, and
    fails if it is made to start before."""
    wait_until(lambda: shown(job, "Restarts") == str(number), "the requeue")


def progress_of(job: str, number: int, folder: Path) -> Path:
    """The file that is there once an attempt of a job, submitted in this folder, has saved something."""
    return folder / "hpcule-runs" / "jobs" / f"{job}_attempts" / f"{number}-progress"


def ranks_of(attempt: Path) -> list[int]:
    """The processes of an attempt that craft or train, by its progress file."""
    return tasks(HPCULE_PROGRESS=str(attempt))


def tasks(**variables: str) -> list[int]:
    """Processes that have these variables, lowest number first."""
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


def lose_node(node: str) -> None:
    """Kill a node's daemon, and with it the tasks that run there and what watches them."""
    ranks = tasks(SLURM_PROCID="1", SLURMD_NODENAME=node)
    daemon = int((CLUSTER / f"slurmd.{node}.pid").read_text())
    for process in (daemon, parent(ranks[0]), *ranks):
        with contextlib.suppress(ProcessLookupError):  # a task's own command dies with it
            os.kill(process, signal.SIGKILL)


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
