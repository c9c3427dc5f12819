"""On a real Slurm: which jobs come back, and which do not."""

from __future__ import annotations

import json
import shlex

import pytest
from cluster import (
    CRAFT,
    LONG,
    OFTEN_SAVED,
    REQUEUED,
    ROOT,
    ask_to_stop,
    beside,
    call,
    contents,
    jobs_named,
    progress_of,
    saved,
    shown,
    submit,
    wait_for_end,
    wait_for_restart,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm")]
EVALUATE = ROOT / "slurm" / "evaluate.sbatch"
STUDY = """
name: toy
data: digits
method: pil
preset: smoke
craft: {deterministic: true, method: {epochs: EPOCHS}, world: {threads: 1, checkpoint_seconds: 0}}
factors:
  craft.method.batch: [64, 256]
seeds: [0]
victim: {network: convnet, steps: 1000000, batch: 32}
world: {threads: 1}
"""


def cancel(job, folder):
    assert call("scancel", job).returncode == 0
    wait_for_end(job, folder, "CANCELLED")
    assert shown(job, "Restarts") == "0"


def submit_study(folder, epochs):
    (folder / "study.yaml").write_text(STUDY.replace("EPOCHS", str(epochs)))
    out = folder / "out"
    done = call("hpcule", "study", "submit", folder / "study.yaml", "--out", out, "--site", "local")
    assert done.returncode == 0, done.stderr
    return out


def test_a_victim_that_is_stopped_three_times(tmp_path):
    """It ends as one that nobody has disturbed, to the last digit."""
    settings = ["victim.network=convnet", "victim.batch=64", "victim.steps=400", "seed=0", "world.threads=1"]
    train = ["train", "--data", "digits", *(word for setting in settings for word in ("--set", setting))]
    words = shlex.join([*train, *OFTEN_SAVED, "--out", str(tmp_path / "disturbed")])
    start = "srun --kill-on-bad-exit=0 --wait=60 python -m hpcule.jobs.command"
    job = submit(tmp_path, "--requeue", "--open-mode=append", f"--wrap={start} {words}")
    with beside("hpcule", *train, "--out", tmp_path / "undisturbed") as end:
        for number in range(3):
            wait_until(progress_of(job, number, tmp_path).exists, "a checkpoint")
            ask_to_stop(job)
            wait_for_restart(job, number + 1)
        wait_for_end(job, tmp_path)
        undisturbed = end()
    assert undisturbed.returncode == 0, undisturbed.stderr
    files = (tmp_path / out / "results.json" for out in ("disturbed", "undisturbed"))
    found, expected = ({**json.loads(file.read_text()), "seconds": 0} for file in files)
    assert found == expected


def test_a_preempted_job_of_a_partition_that_cancels(one_process, tmp_path):
    store = tmp_path / "store"
    where = ["--nodelist=n[3-4]", "--exclusive"]
    job = submit(tmp_path, "--partition=cancelled", *where, CRAFT, store, "pil", *LONG, *OFTEN_SAVED)
    wait_until(lambda: saved(store), "a checkpoint")
    submit(tmp_path, "--partition=debug", *where, "--nodes=2", "--output=urgent", "--wrap=true")
    wait_for_restart(job)
    wait_for_end(job, tmp_path)
    assert REQUEUED.format("preempted") in (tmp_path / "log").read_text()
    assert contents(store) == one_process(LONG)


def test_a_cancelled_craft_and_its_evaluation(one_process, tmp_path):
    store, report = tmp_path / "store", tmp_path / "report"
    job = submit(tmp_path, CRAFT, store, "pil", *LONG, *OFTEN_SAVED)
    wait_until(lambda: saved(store), "a checkpoint")
    cancel(job, tmp_path)
    resumed = call("hpcule", "craft", "pil", *LONG, "--out", store, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert contents(store) == one_process(LONG)
    job = submit(tmp_path, EVALUATE, store, "--data", "digits", "--suite", "quick", "--out", report)
    wait_until(progress_of(job, 0, tmp_path).exists, "a victim")
    cancel(job, tmp_path)
    assert not (report / "results.json").exists()


@pytest.mark.parametrize(("epochs", "stage"), [(100000, "craft"), (1, "victim")])
def test_a_cancelled_study(epochs, stage, tmp_path):
    out = submit_study(tmp_path, epochs)
    wait_until(lambda: list((out / "running").glob("*.json")) and jobs_named(f"hpcule-{stage}", "RUNNING"), stage)
    running = jobs_named(f"hpcule-{stage}", "RUNNING")
    assert call("scancel", *{job.split("_")[0] for job in jobs_named("hpcule-")}).returncode == 0
    wait_until(lambda: not jobs_named("hpcule-"), "the end of all jobs")
    assert {(shown(job, "JobState"), shown(job, "Restarts")) for job in running} == {("CANCELLED", "0")}
    status = call("hpcule", "study", "status", out)
    assert status.returncode == 0, status.stderr
