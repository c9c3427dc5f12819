"""The scripts that would be submitted; tests/cluster submits them."""

import pytest

from hpcule.config.tree import build_config
from hpcule.jobs.site import SiteConfig
from hpcule.jobs.submit import CommandBatch, _snapshot, submit_batches

pytest.importorskip("submitit", reason="needs the extra 'slurm'")

BATCHES = [
    CommandBatch("craft", [["study", "item", "DIR", "a"], ["study", "item", "DIR", "b"]], joint=True),
    CommandBatch("victim", [["study", "item", "DIR", "c"]], joint=False),
    CommandBatch("report", [], joint=False),
]


def scripts(tmp_path, **settings):
    site = build_config(SiteConfig, {"nodes": 2, "tasks_per_node": 3, **settings})
    return submit_batches(BATCHES, site, tmp_path, dry_run=True)


def test_joint_jobs_take_all_ranks_and_others_one(tmp_path):
    craft, victim = scripts(tmp_path, gpus_per_node=3)
    for line in ("--nodes=2", "--ntasks-per-node=3", "--gpus-per-node=3", "--requeue", "--signal=USR2@90"):
        assert f"#SBATCH {line}\n" in craft
    for line in ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1"):
        assert f"#SBATCH {line}\n" in victim
    assert "--kill-on-bad-exit=1" in craft


def test_a_batch_waits_for_the_one_before_it(tmp_path):
    craft, victim = scripts(tmp_path)
    assert "dependency" not in craft
    assert "#SBATCH --dependency=afterany:ID-OF-CRAFT\n" in victim


def test_the_sites_own_lines_are_there(tmp_path):
    craft, _ = scripts(
        tmp_path,
        partition="gpu",
        account="me",
        memory_gigabytes=7,
        network_interface="hsn0",
        setup=["module load python"],
        sbatch={"constraint": "fast"},
    )
    for line in ("--partition=gpu", "--account=me", "--mem=7GB", "--constraint=fast"):
        assert f"#SBATCH {line}\n" in craft
    assert "export GLOO_SOCKET_IFNAME=hsn0 NCCL_SOCKET_IFNAME=hsn0\n" in craft
    assert "module load python\n" in craft


def test_nobody_else_reads_what_jobs_were_told(tmp_path):
    _snapshot(tmp_path / "jobs")
    assert (tmp_path / "jobs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "jobs" / "code" / "hpcule" / "__init__.py").exists()


def test_a_dry_run_copies_nothing(tmp_path):
    scripts(tmp_path)
    assert not (tmp_path / "code").exists()
