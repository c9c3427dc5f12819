"""On a real Slurm: time limits that it signals and enforces by itself, and nodes that are lost after them.

Slurm looks at time limits every half minute, so a job needs minutes to reach a few. Two jobs do so side by side.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from cluster import (
    CRAFT,
    LOCAL_CLUSTER,
    LONG,
    OFTEN_SAVED,
    REQUEUED,
    call,
    contents,
    lose_node,
    progress_of,
    ranks_of,
    shown,
    submit,
    wait_for_end,
    wait_for_restart,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm")]
SLOW_NETWORK = """
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self, channels, classes, size):
        super().__init__()
        self.linear = nn.Linear(channels * size[0] * size[1], classes)

    def forward(self, images):
        if len(images) > 2:  # so many try a network out
            time.sleep(3600)
        return self.linear(images.flatten(1))
"""
SITE = "{partition: debug, minutes: 1, signal_seconds: 1, sbatch: {nodelist: n4}}"


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """The number and the folder of a craft and of a victim, a step of which takes longer than its time limit."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("craft", "victim"))
    (theirs / "slow_networks.py").write_text(SLOW_NETWORK)
    (theirs / "site.yaml").write_text(SITE)
    settings = ["victim.network=slow_networks:Slow", "victim.steps=2", "world.threads=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    done = call("hpcule", "train", "--data", "digits", *words, "--submit", "site.yaml", cwd=theirs)
    assert done.returncode == 0, done.stderr
    (victim,) = re.findall(r"train: job (\d+), 1 task", done.stdout)
    craft = submit(ours, "--exclude=n4", CRAFT, ours / "store", "pil", *LONG, *OFTEN_SAVED)
    return {"craft": (craft, ours), "victim": (f"{victim}_0", theirs)}


def reach_time_limit(job: str, number: int, folder: Path) -> None:
    """Let an attempt save something, then do nothing until Slurm tells it that its time limit is near.

    However quick the machine is, the work is not done before; and however slow it is, something is saved.
    """
    attempt = progress_of(job, number, folder)
    wait_until(attempt.exists, "a checkpoint")
    for rank in ranks_of(attempt):
        os.kill(rank, signal.SIGSTOP)  # Slurm lets them go on when it sends the signal
    limit_minutes(job, 2)  # the script wants the signal as long before, so Slurm sends it when it looks next
    wait_for_restart(job, number + 1)
    limit_minutes(job, 60)


def limit_minutes(job: str, minutes: int) -> None:
    assert call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}").returncode == 0


def test_nodes_lost_after_four_time_limits(submitted, one_process):
    """Losses are counted apart from time limits: before one or after, the job goes on, on the nodes that are left."""
    job, folder = submitted["craft"]
    for number in range(4):
        reach_time_limit(job, number, folder)
    log = folder / "log"
    assert log.read_text().count(REQUEUED.format("time limit")) == 4

    # Slurm requeues the job by itself where it knows that the node is down, here before anything is saved.
    attempt = progress_of(job, 4, folder)
    wait_until(lambda: len(ranks_of(attempt)) == 2, "the start")
    assert shown(job, "NodeList") == "n[1-2]"
    assert call("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test").returncode == 0
    wait_for_restart(job, 5)
    assert not attempt.exists()
    # The node's daemon reports from time to time, which ends the state as well; Slurm then refuses to resume it.
    call("scontrol", "update", "NodeName=n2", "State=RESUME")
    wait_until(lambda: "DOWN" not in call("scontrol", "show", "node", "n2").stdout.split("State=")[1].split()[0], "n2")

    # A rank that is left requeues the job where Slurm knows of nothing yet.
    wait_until(progress_of(job, 5, folder).exists, "a checkpoint")
    nodes = shown(job, "NodeList")
    lost = "n2" if nodes == "n[1-2]" else "n3"
    try:
        lose_node(lost)
        wait_for_restart(job, 6)
        wait_for_end(job, folder)
        assert shown(job, "NodeList") == ("n[1,3]" if lost == "n2" else "n[1-2]")
        assert log.read_text().count(REQUEUED.format("lost")) == 1
        assert contents(folder / "store") == one_process(LONG)
    finally:
        repaired = call(LOCAL_CLUSTER, "up")
    assert repaired.returncode == 0, repaired.stderr
    assert f"started slurmd.{lost}" in repaired.stdout
    assert call("srun", f"--nodelist={lost}", "true").returncode == 0


def test_a_victim_that_gets_nowhere_within_its_time_limit(submitted):
    """It gets a second attempt, and not a third: it would never end."""
    job, folder = submitted["victim"]
    wait_until(lambda: shown(job, "JobState") == "TIMEOUT" and shown(job, "Restarts") == "1", "the second time limit")
    (path,) = folder.glob("hpcule-runs/jobs/*/logs/*_0_log.err")
    log = path.read_text()
    assert log.count(REQUEUED.format("time limit")) == 1
    assert (
        log.count("nothing new within its time limit and is not requeued: what it does is longer than the limit") == 1
    )
    assert "raise it (--time of sbatch, `minutes: N` in the site file)" in log
    assert not list(progress_of(job, 0, folder).parent.glob("*-progress"))
