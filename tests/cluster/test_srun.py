"""On a real Slurm: ranks find each other, and write the bytes of one process."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from cluster import (
    CRAFT,
    LONG,
    OFTEN_SAVED,
    ROOT,
    SMOKE,
    call,
    contents,
    environ,
    saved,
    submit,
    tasks,
    wait_for_end,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm")]


@pytest.mark.parametrize("plugin", ["none", "pmi2"])
def test_two_nodes_write_the_bytes_of_one_process(plugin, one_process, tmp_path):
    store = tmp_path / "store"
    done = call("srun", f"--mpi={plugin}", "-N2", "-n2", "hpcule", "craft", "pil", *SMOKE, "--out", store, "--json")
    assert done.returncode == 0, done.stderr
    assert '"workers": 2' in done.stdout
    assert contents(store) == one_process(SMOKE)


def test_the_batch_scripts(one_process, tmp_path):
    store = tmp_path / "store"
    wait_for_end(submit(tmp_path, CRAFT, store, "pil", *SMOKE[:-2]), tmp_path)
    assert "on 2 worker(s)" in (tmp_path / "log").read_text()
    assert contents(store) == one_process(SMOKE)
    report = tmp_path / "report"
    few = ["--suite", "quick", "--set", "recipes=[plain]", "--set", "victim.epochs=1", "--out", report]
    wait_for_end(submit(tmp_path, ROOT / "slurm" / "evaluate.sbatch", store, "--data", "digits", *few), tmp_path)
    assert (report / "results.json").exists()


def test_two_steps_of_a_job_at_a_time(tmp_path):
    step = "srun --overlap -N1 -n2 hpcule doctor"
    job = submit(tmp_path, "-N1", "-n2", f"--wrap={step} & {step} & wait")
    wait_for_end(job, tmp_path)
    assert (tmp_path / "log").read_text().count("2 of 2 ranks answered") == 2


def test_a_killed_rank_ends_the_step(tmp_path):
    store = tmp_path / "store"
    words = ["srun", "-N2", "-n2", "hpcule", "craft", "pil", *LONG, *OFTEN_SAVED, "--out", str(store)]
    step = subprocess.Popen(words, env=environ(), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: saved(store) or step.poll() is not None, "a checkpoint")
    (victim,) = tasks(SLURM_PROCID="1", SLURMD_NODENAME="n2")
    os.kill(victim, signal.SIGKILL)
    _, errors = step.communicate(timeout=60)
    assert step.returncode != 0
    assert "Killed" in errors
    assert not tasks(SLURMD_NODENAME="n1")


def test_a_wrong_partition_is_refused_by_name(tmp_path):
    done = call("sbatch", "--partition=nowhere", CRAFT, tmp_path / "store", "pil", *SMOKE)
    assert done.returncode != 0
    assert "invalid partition specified: nowhere" in done.stderr
    assert not (tmp_path / "store").exists()
