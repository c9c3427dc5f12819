import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hpcule
from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.jobs.limits import check_site
from hpcule.jobs.site import SiteConfig, load_site, site_names

PACKAGE = Path(hpcule.__file__).parent
SITES = sorted((PACKAGE / "jobs" / "sites").iterdir())


def test_the_packages_sites_are_its_files():
    assert site_names() == [path.stem for path in SITES]
    assert "local" in site_names()


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_every_site_file_is_valid(path):
    assert load_site(path.stem) == load_site(str(path))


@pytest.mark.slow
def test_a_site_is_found_where_only_the_package_is(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "alone" / "hpcule", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "elsewhere").mkdir()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "alone"), "PYTHONSAFEPATH": "1"}
    words = ["craft", "classwise", "--data", "digits", "--out", "store", "--submit", "local", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "hpcule", *words],
        cwd=tmp_path / "elsewhere",
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=debug" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partitoin: gpu", r"unknown setting 'site.yaml: partitoin': did you mean 'site.yaml: partition'"),
        ("nodes: 0", r"site.yaml: nodes=0: valid are whole numbers from 1"),
        ("nodes: many", r"site.yaml: nodes=many: expected a whole number"),
        ("setup: module load python", r"site.yaml: setup=module load python: expected a list"),
        ("victim: {nodes: 0}", r"site.yaml: victim.nodes=0: valid are whole numbers from 1"),
        ("sbatch: {requeue: false}", r"site.yaml: sbatch.requeue: hpcule sets it, and relies on it; leave it out"),
        ("sbatch: {no_requeue: true}", r"site.yaml: sbatch.no_requeue: hpcule sets it"),
        ("craft: {sbatch: {array: 0-3}}", r"site.yaml: craft.sbatch.array: hpcule sets it"),
        ("sbatch: {signal: TERM}", r"site.yaml: sbatch.signal: write `signal_seconds:`"),
    ],
)
def test_a_typo_in_a_site_file_is_refused(tmp_path, text, message):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_site(str(tmp_path / "site.yaml"))


def test_predicted_times_become_limits_where_the_site_has_none():
    site = build_config(SiteConfig, {"victim": {"minutes": 9}})
    planned = site.with_minutes({"craft": 601, "victim": 600}, {"victim": 5})
    assert (planned.resources("craft").minutes, planned.resources("victim").minutes) == (26, 9)
    assert planned.resources("report").minutes is None
    assert site.with_minutes({"craft": 601, "victim": 1}, {"craft": 20}).resources("craft").minutes == 20


@pytest.mark.parametrize(
    ("site", "workers", "expected"),
    [
        ({}, 1, (1, 1, 0)),
        ({}, 2, (2, 1, 0)),
        ({"tasks_per_node": 4, "gpus_per_node": 4}, 1, (1, 1, 1)),
        ({"tasks_per_node": 4, "gpus_per_node": 4}, 3, (1, 3, 3)),
        ({"tasks_per_node": 4, "gpus_per_node": 2}, 4, (1, 4, 2)),
        ({"tasks_per_node": 4, "gpus_per_node": 4}, 6, (2, 3, 3)),
        ({"tasks_per_node": 4}, 7, (7, 1, 0)),
        ({"tasks_per_node": 4, "victim": {"nodes": 3}}, 6, (3, 2, 0)),
        ({"tasks_per_node": 4, "victim": {"tasks_per_node": 2}}, 6, (3, 2, 0)),
        ({"victim": {"nodes": 2, "tasks_per_node": 2}}, 1, (2, 2, 0)),
        ({"gpus_per_node": 4, "victim": {"tasks_per_node": 2, "gpus_per_node": 1}}, 2, (1, 2, 1)),
    ],
)
def test_jobs_have_a_rank_for_each_worker_of_a_victim(site, workers, expected):
    wanted = build_config(SiteConfig, site).resources("victim", workers)
    assert (wanted.nodes, wanted.tasks_per_node, wanted.gpus_per_node) == expected


def test_a_job_has_a_victim_for_each_group_of_ranks():
    site = build_config(SiteConfig, {"victim": {"nodes": 2, "tasks_per_node": 6}})
    assert [site.dealt_victims(workers) for workers in (1, 2, 4)] == [12, 6, 3]
    assert build_config(SiteConfig, {"victims_per_job": 5}).dealt_victims(2) == 5


def test_an_unknown_site_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown site 'locla': did you mean 'local'"):
        load_site("locla")


def test_without_slurm_nothing_is_submitted(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="there is no sbatch on this machine"):
        check_site(load_site("local"))
