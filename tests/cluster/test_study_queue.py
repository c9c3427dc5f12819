"""What a study has in the queue of a real Slurm: everything once, and nothing whose craft has failed."""

from __future__ import annotations

import json

import pytest
from cluster import call, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm")]
COMMON = """
name: toy
data: digits
method: pil
preset: smoke
craft: {world: {threads: 1}}
seeds: [0]
world: {threads: 1}
"""


@pytest.fixture
def study(tmp_path):
    """Submits a study with these more lines at a site with these lines; later calls name a part of `hpcule study`."""
    wait_until(lambda: queued() == 0, "the end of earlier jobs")

    def run(part, lines="", site=""):
        words = ["study", part, tmp_path / "out"]
        if part == "submit":
            (tmp_path / "study.yaml").write_text(COMMON + lines)
            partition = "" if "partition:" in site else "partition: debug\n"
            (tmp_path / "site.yaml").write_text(f"{partition}minutes: 10\n{site}")
            words = [
                "study",
                part,
                tmp_path / "study.yaml",
                "--out",
                tmp_path / "out",
                "--site",
                tmp_path / "site.yaml",
            ]
        done = call("hpcule", *words, *(["--json"] if part == "status" else []))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if part == "status" else done

    yield run
    if (tmp_path / "out").exists():
        call("hpcule", "study", "cancel", tmp_path / "out")


def queued():
    """Number of jobs in the queue, each task of an array counting as one."""
    return len(call("squeue", "--noheader", "--array", "--format=%i").stdout.splitlines())


def test_a_study_larger_than_an_array_is_queued_once_and_cancelled(study):
    # Two recipes, each with a protected victim, noise of the same strength, which wait, noise, and a clean control.
    rates = [round(number / 10_000, 4) for number in range(1, 252)]
    items = 1 + 2 * 4 * len(rates)
    lines = f"factors: {{victim.learning_rate: {rates}}}\nrecipes: [plain, crop-flip]\nmatched_noise: true\n"
    lines += "victim: {steps: 5, batch: 64}\n"
    site = "sbatch: {begin: now+1hour}\n"
    first = study("submit", lines, site)
    assert " 1001 task(s)" in first.stdout
    assert queued() == items + 1
    second = study("submit", lines, site)
    assert "nothing to submit" in second.stdout
    assert f"{items} item(s) are in the queue already" in second.stderr
    assert {cell["state"] for cell in study("status")} == {"queued"}
    assert f"cancelled {items + 1} job(s)" in study("cancel").stdout
    wait_until(lambda: queued() == 0, "the end of the cancelled jobs")
    assert {cell["state"] for cell in study("status")} == {"waiting"}


def test_victims_of_a_failed_craft_leave_the_queue_and_the_others_share_jobs(study):
    lines = "factors: {craft.method.learning_rate: [0.1, 1.0e+30]}\nvictim: {network: convnet, steps: 5, batch: 64}\n"
    study("submit", lines, "victim: {tasks_per_node: 2}\n")
    wait_until(lambda: queued() == 0, "the end of the study")
    good, bad = study("status")
    assert (good["state"], bad["state"]) == ("done", "failed")
    (failed,) = [note for note in bad["notes"] if "the training has diverged" in note]
    assert "log: " in failed
    assert [note for note in bad["notes"] if note != failed] == [
        "victim on protected, digits, plain, batch 64, seed 0 skipped: craft failed"
    ]


@pytest.fixture
def narrow_partition():
    """Gives a partition a quality of service that takes three jobs, of one node each."""
    name, partition = "hpcule-test", "cancelled"
    words = ("MaxSubmitJobsPerUser=3", "MaxTRESPerJob=node=1")
    assert call("sacctmgr", "--immediate", "add", "qos", name, "set", *words).returncode == 0
    try:
        assert call("scontrol", "update", f"PartitionName={partition}", f"QoS={name}").returncode == 0
        yield partition
    finally:
        call("scontrol", "update", f"PartitionName={partition}", "QoS=")
        call("sacctmgr", "--immediate", "delete", "qos", name)


def test_limits_of_a_partition_of_its_own_quality_of_service(narrow_partition, study, tmp_path):
    lines = "factors: {victim.learning_rate: [0.1, 0.2, 0.3]}\nvictim: {network: convnet, steps: 5, batch: 64}\n"
    submitted = study("submit", lines, f"partition: {narrow_partition}\nsbatch: {{begin: now+1hour}}\n")
    assert queued() == 3
    # A craft, and for each rate a protected and a clean victim and noise; one job is the report.
    assert "8 item(s) are beyond Slurm's limit of jobs" in submitted.stderr
    (tmp_path / "site.yaml").write_text(f"partition: {narrow_partition}\nnodes: 2\n")
    words = ["study", "submit", tmp_path / "study.yaml", "--out", tmp_path / "other", "--site", tmp_path / "site.yaml"]
    refused = call("hpcule", *words)
    assert refused.returncode == 2
    assert f"node=2, but the quality of service hpcule-test of partition {narrow_partition} allows" in refused.stderr
