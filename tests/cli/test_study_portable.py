"""A study that is submitted to a stand-in for PBS: its jobs, what is known of them, and their end."""

import os

import pytest
import schedulers

pytest.importorskip("psij", reason="needs the extra 'psij'")

STUDY = """
name: two
data: digits
method: pil
preset: smoke
factors: {craft.method.batch: [64, 256]}
seeds: [0]
victim: {network: convnet, epochs: 1, batch: 32, learning_rate: 0.05}
"""
SITE = """
system: pbs
nodes: 2
tasks_per_node: 2
minutes: 20
victim: {minutes: 10}
"""


def test_a_study_is_submitted_followed_and_cancelled(tmp_path, run, monkeypatch):
    folder, out = tmp_path / "scheduler", tmp_path / "out"
    schedulers.install(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "site.yaml").write_text(SITE)
    words = ["study", "submit", tmp_path / "study.yaml", "--out", out, "--site", tmp_path / "site.yaml"]
    code, shown, err = run(*words, "--dry-run")
    assert code == 0, err
    assert "#PBS -W depend=afterok:ID-OF-CRAFT-0" in shown
    assert not out.exists()
    code, shown, err = run(*words)
    assert code == 0, err
    scripts = {path.name: path.read_text() for path in folder.glob("script-*")}
    assert "craft: 2 job(s) of pbs, 101.server to 102.server" in shown
    assert "#PBS -l select=2:ncpus=2:mpiprocs=2\n" in scripts["script-101"]
    waiting = [text for text in scripts.values() if "-W depend=afterok:10" in text]
    assert waiting
    assert all("#PBS -l walltime=00:10:00\n" in text for text in waiting)
    assert sum("-W depend=afterany:101.server:102.server:" in text for text in scripts.values()) == 1
    _, shown, _ = run("study", "status", out)
    assert "crafts and victims: " in shown
    assert "queued" in shown
    code, shown, err = run(*words)
    assert code == 0, err
    assert "nothing to submit: every item is done or in the queue" in shown
    code, shown, err = run("study", "cancel", out)
    assert (code, shown) == (0, f"cancelled {len(scripts)} job(s) of {len(scripts)} array(s)\n"), err
    assert len((folder / "cancelled").read_text().splitlines()) == len(scripts)
    _, shown, _ = run("study", "status", out)
    assert "queued" not in shown
