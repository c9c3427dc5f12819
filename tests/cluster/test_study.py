"""A study handed to a real Slurm, with a job that is told to stop and a node that is lost."""

from __future__ import annotations

import csv
import json

import pytest
from cluster import (
    LOCAL_CLUSTER,
    ask_to_stop,
    beside,
    call,
    contents,
    jobs_named,
    lose_node,
    saved,
    tasks,
    wait_for_restart,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm")]
STUDY = """
name: toy
data: digits
method: pil
preset: smoke
craft: {deterministic: true, method: {epochs: 200}, world: {threads: 1, checkpoint_seconds: 0}}
factors:
  craft.method.batch: [64, 256]
seeds: [0]
victim: {network: convnet, epochs: 1, batch: 32, learning_rate: 0.05}
world: {threads: 1}
"""


def states(out):
    return {cell["state"] for cell in json.loads(call("hpcule", "study", "status", out, "--json").stdout)}


def test_disturbed_jobs_end_with_the_bytes_of_an_undisturbed_run(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    out = tmp_path / "out"
    with beside("hpcule", "study", "run", tmp_path / "study.yaml", "--out", tmp_path / "alone") as end:
        done = call("hpcule", "study", "submit", tmp_path / "study.yaml", "--out", out, "--site", "local")
        assert done.returncode == 0, done.stderr
        assert "craft: job" in done.stdout

        wait_until(lambda: any(saved(store) for store in (out / "crafts").iterdir()), "a checkpoint")
        stopped = jobs_named("hpcule-craft", "RUNNING")[0]
        ask_to_stop(stopped)
        wait_for_restart(stopped)
        wait_until(lambda: tasks(SLURM_PROCID="1", SLURMD_NODENAME="n2"), "a craft on n2")
        try:
            lose_node("n2")
            wait_until(lambda: (out / "report.html").exists() and states(out) == {"done"}, "the report", 600)
        finally:
            repaired = call(LOCAL_CLUSTER, "up")
        assert "started slurmd.n2" in repaired.stdout
        alone = end()
    assert alone.returncode == 0, alone.stderr
    rows = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    expected = list(csv.DictReader((tmp_path / "alone" / "cells.csv").read_text().splitlines()))
    assert [row["protected_last"] for row in rows] == [row["protected_last"] for row in expected]
    for store in (tmp_path / "alone" / "crafts").iterdir():
        assert contents(out / "crafts" / store.name) == contents(store)


JOINT = """
name: joint
data: digits
method: classwise
preset: smoke
seeds: [0]
victim: {network: convnet, epochs: 2, batch: 32, learning_rate: 0.05, workers: 2}
world: {threads: 1}
"""


def test_victims_are_trained_jointly_on_two_nodes(tmp_path):
    (tmp_path / "study.yaml").write_text(JOINT)
    out = tmp_path / "out"
    words = ["hpcule", "study", "run", tmp_path / "study.yaml", "--out", tmp_path / "alone", "--workers", "2"]
    with beside(*words) as end:
        done = call("hpcule", "study", "submit", tmp_path / "study.yaml", "--out", out, "--site", "local")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: (out / "report.html").exists() and states(out) == {"done"}, "the report", 600)
        alone = end()
    assert alone.returncode == 0, alone.stderr
    (row,), (expected,) = (
        list(csv.DictReader((folder / "cells.csv").read_text().splitlines())) for folder in (out, tmp_path / "alone")
    )
    assert row["victim_workers"] == expected["victim_workers"] == "2"
    for kind in ("protected", "clean", "noise"):
        assert row[f"{kind}_last"] == expected[f"{kind}_last"]
    arrays = [json.loads(path.read_text()) for path in (out / "jobs").iterdir()]
    victims = ",".join(array["job"] for array in arrays if array["stage"] == "victim")
    nodes = call("sacct", "--allocations", "--noheader", "--format=NNodes", f"--jobs={victims}").stdout.split()
    assert nodes == ["2"] * 3


def test_a_partition_that_is_not_there_is_refused_before_anything_is_submitted(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "site.yaml").write_text("partition: debgu")
    words = ["study", "submit", tmp_path / "study.yaml", "--out", tmp_path / "out", "--site", tmp_path / "site.yaml"]
    done = call("hpcule", *words)
    assert done.returncode == 2
    assert "unknown partition 'debgu': did you mean 'debug'?" in done.stderr
    assert not list((tmp_path / "out").glob("logs/*"))
