"""How items stand, by the study's files and by the queue; and what may be removed when they are finished."""

import sys
import time
from pathlib import Path

import pytest

from hpcule.config.tree import build_config
from hpcule.study.clean import clean_folder
from hpcule.study.config import StudyConfig
from hpcule.study.folder import Beat, StudyFolder
from hpcule.study.grid import StudySamples, expand
from hpcule.study.status import cell_status, item_statuses
from hpcule.study.submitted import SubmittedJobs

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from study_items import craft_item, victim_item


class Study:
    """One cell, whose craft is task 0 of array 10 and whose three victims are task 0 of array 11."""

    def __init__(self, path, monkeypatch):
        self.folder, self.monkeypatch = StudyFolder(path), monkeypatch
        config = build_config(StudyConfig, {"name": "toy", "data": "digits", "method": "pil", "seeds": [0]})
        samples = {"digits": StudySamples(100_000, training="a", test="b")}
        self.folder.begin(config, samples)
        self.grid = expand(config, samples)
        ((self.craft,), (self.cell,)) = self.grid.crafts, self.grid.cells
        self.clean, self.protected = self.cell.victims["clean"], self.cell.victims["protected"]
        self.logs = path / "logs"
        self.submit("10", [[self.craft]])
        self.submit("11", [list(self.grid.victims)])

    def submit(self, job, items):
        where = {"logs": str(self.logs), "code": str(self.folder.path / "code" / job)}
        facts = {"job": job, "batch": "b", "stage": "craft", "tasks": len(items), "items": items}
        SubmittedJobs(self.folder.path).note({**facts, **where, "time": time.time(), "cancelled": False})

    def in_job(self, array):
        self.monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        self.monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")

    def states(self, queue):
        found = item_statuses(self.folder, self.grid, queue)
        return {key: status.state for key, status in found.items()}

    def cell_state(self, queue):
        return cell_status(self.folder, self.grid, self.cell, item_statuses(self.folder, self.grid, queue))


@pytest.fixture
def study(tmp_path, monkeypatch):
    return Study(tmp_path / "study", monkeypatch)


def test_jobs_in_the_queue_are_queued_or_running(study):
    assert set(study.states({"10_0": "PENDING", "11_0": "PENDING"}).values()) == {"queued"}
    states = study.states({"10_0": "RUNNING", "11_0": "REQUEUED"})
    assert (states[study.craft], states[study.clean]) == ("running", "queued")
    assert study.cell_state({"10_0": "PENDING", "11_0": "PENDING"}).state == "queued"


def test_without_the_queue_the_files_alone_count(study):
    assert set(study.states(None).values()) == {"waiting"}


def test_a_job_that_ended_without_a_word_is_lost(study):
    study.in_job("10")
    Beat(study.folder, study.craft).note("surrogate", 1, 2)
    states = study.states({"11_0": "PENDING"})
    assert (states[study.craft], states[study.clean], states[study.protected]) == ("lost", "queued", "skipped")
    cell = study.cell_state({"11_0": "PENDING"})
    assert cell.state == "lost"
    assert f"job 10_0 ended without a result, log: {study.logs}/10_0*" in cell.line()
    assert "skipped: craft lost" in cell.line()


def test_what_runs_outside_of_the_queue_is_not_lost(study):
    Beat(study.folder, study.craft).note("surrogate", 1, 2)
    assert study.states({})[study.craft] == "running"


def test_victims_of_a_failed_craft_are_skipped(study):
    study.in_job("10")
    study.folder.fail(study.craft, ValueError("too hot"))
    for queue in (None, {}, {"10_0": "COMPLETING"}):
        states = study.states(queue)
        assert (states[study.craft], states[study.protected]) == ("failed", "skipped")
    line = study.cell_state({}).line()
    assert "too hot" in line
    assert f"log: {study.logs}/10_0*" in line
    assert "protected, digits, plain" in line
    assert "skipped: craft failed" in line


def test_a_failure_is_over_when_the_item_is_done_again(study):
    study.in_job("10")
    study.folder.fail(study.craft, ValueError("too hot"))
    study.submit("12", [[study.craft]])
    assert study.states({"12_0": "PENDING"})[study.craft] == "queued"
    study.in_job("12")
    Beat(study.folder, study.craft).note("surrogate", 1, 2)
    assert study.states({"12_0": "RUNNING"})[study.craft] == "running"


def test_a_victim_that_failed_in_a_job_that_still_runs_has_failed(study):
    study.in_job("11")
    study.folder.fail(study.clean, ValueError("too hot"))
    states = study.states({"10_0": "RUNNING", "11_0": "RUNNING"})
    assert (states[study.clean], states[study.protected]) == ("failed", "running")


def test_cancelled_items_wait(study):
    jobs = SubmittedJobs(study.folder.path)
    jobs.mark_cancelled(jobs.arrays())
    assert set(study.states({}).values()) == {"waiting"}


def test_cleaning_removes_what_finished_items_left_and_nothing_else(study):
    files = ["crafts/{craft}/run/checkpoint-00000001/COMMIT", "crafts/{craft}/index.h5", "code/10/hpcule/a.py"]
    files += ["code/11/hpcule/a.py", "logs/10_0_log.out", "logs/10_submission.sh", "logs/11_0_log.out", "cache/a"]
    fitted = "done/dvae-0123.checkpoint"
    files += [fitted]
    paths = [study.folder.path / name.format(craft=study.craft) for name in files]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("some")
    (study.logs / ".submission_file_a.sh").symlink_to(study.logs / "10_submission.sh")
    study.folder.finish(study.craft, craft_item())
    for queued, kinds in (({"10", "11"}, {"checkpoints"}), ({"11"}, {"logs", "copies of the code"})):
        removed = clean_folder(study.folder, study.grid, queued)
        assert {what for what, size in removed.items() if size} == kinds
    left = {str(path.relative_to(study.folder.path)) for path in paths if path.exists()}
    assert left == {f"crafts/{study.craft}/index.h5", "code/11/hpcule/a.py", "logs/11_0_log.out", "cache/a", fitted}
    assert not list(study.logs.glob(".submission*"))
    for key in study.grid.victims:
        study.folder.finish(key, victim_item("noise", None, 0.5))
    clean_folder(study.folder, study.grid, set())
    assert [path for path in paths if path.exists()] == [study.folder.store(study.craft) / "index.h5"]
    assert study.folder.result(study.craft) == craft_item()
