"""Why a job was stopped, read from what a real Slurm 22.05 said of such jobs, and whether it goes on."""

import signal

import pytest

from hpcule.config.errors import StoppedError, WorkerError
from hpcule.jobs.attempt import Attempt
from hpcule.jobs.requeue import job_facts, requeue, why_ended

SAVED, PEER_LOST = 75, 69
TERM, USR2 = signal.SIGTERM, signal.SIGUSR2
RUNNING = "JobId=7 JobName=wrap JobState=RUNNING Reason=None Dependency=(null) Restarts=1 EndTime=2026-11-30T14:40:13"
ENDED = "JobId=7 JobState=COMPLETING Reason=None Restarts=1 EndTime=2026-11-30T13:36:47 ExitCode=0:15"
IN_GRACE = "PreemptEligibleTime=2026-11-30T13:36:09 PreemptTime=2026-11-30T13:36:47"


def slurm_says(text, folder, monkeypatch):
    """Stand in for scontrol: notes what it was asked, and answers."""
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\necho "{text}"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def asked(folder):
    path = folder / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if not line.startswith("--oneliner")]


@pytest.mark.parametrize(
    ("code", "signals", "says", "outcome"),
    [
        (1, [], RUNNING, "failed"),
        (-signal.SIGKILL, [], RUNNING, "failed"),
        (SAVED, [USR2], RUNNING, "time limit"),
        (PEER_LOST, [USR2], RUNNING, "time limit"),  # the other rank was quicker to end
        (-USR2, [USR2], RUNNING, "time limit"),
        (SAVED, [USR2], f"{RUNNING} {IN_GRACE}", "preempted"),
        (SAVED, [TERM], f"{RUNNING} {IN_GRACE}", "preempted"),
        (SAVED, [TERM], f"{ENDED} {IN_GRACE}", "preempted"),
        (SAVED, [TERM], f"{ENDED.replace('13:36:47', '13:36:50')} {IN_GRACE}", "cancelled"),
        (SAVED, [USR2, TERM], ENDED.replace("Reason=None", "Reason=TimeLimit"), "time limit"),
        (SAVED, [USR2, TERM], ENDED, "cancelled"),
        (SAVED, [TERM], ENDED, "cancelled"),
        (PEER_LOST, [], ENDED, "cancelled"),
        (SAVED, [TERM], f"{RUNNING} PreemptTime=None", "stopped"),
        (SAVED, [TERM], ENDED.replace("Restarts=1", "Restarts=2"), "requeued"),
        (PEER_LOST, [], RUNNING, "lost"),
        (PEER_LOST, [], "", "lost"),
        (SAVED, [TERM], "", "stopped"),
    ],
)
def test_why_a_job_was_stopped(code, signals, says, outcome, tmp_path, monkeypatch):
    slurm_says(says, tmp_path, monkeypatch)
    assert why_ended(code, signals, job_facts("7"), Attempt(tmp_path, 1)) == outcome


@pytest.mark.parametrize("outcome", ["cancelled", "stopped"])
def test_what_somebody_ended_does_not_come_back(outcome, tmp_path, monkeypatch):
    slurm_says(RUNNING, tmp_path, monkeypatch)
    with pytest.raises(StoppedError, match=f"job 7 was {outcome} by somebody and is not requeued: submit it again"):
        requeue("7", outcome, {}, Attempt(tmp_path, 0))
    assert not asked(tmp_path)


def test_a_time_limit_that_is_too_short_is_named_the_second_time(tmp_path, monkeypatch, capsys):
    slurm_says(RUNNING, tmp_path, monkeypatch)
    for number in range(2):
        attempt = Attempt(tmp_path, number)
        attempt.progress.touch()
        assert attempt.claim("time limit")
        requeue("7", "time limit", {}, attempt)
    first, second = Attempt(tmp_path, 2), Attempt(tmp_path, 3)
    assert first.claim("time limit")
    requeue("7", "time limit", {}, first)
    assert "requeued, to continue" in capsys.readouterr().err
    assert second.claim("time limit")
    with pytest.raises(WorkerError, match=r"nothing new within its time limit .*--time of sbatch, `minutes: N`"):
        requeue("7", "time limit", {}, second)
    assert asked(tmp_path) == ["requeue incomplete 7"] * 3


def test_a_job_that_is_over_for_slurm_is_requeued_all_the_same_after_preemption(tmp_path, monkeypatch):
    slurm_says(ENDED, tmp_path, monkeypatch)
    requeue("7", "preempted", job_facts("7"), Attempt(tmp_path, 0))
    assert asked(tmp_path) == ["requeue 7"]


def test_losses_without_progress_end_at_some_time(tmp_path, monkeypatch):
    slurm_says(RUNNING, tmp_path, monkeypatch)
    for number in range(3):
        attempt = Attempt(tmp_path, number)
        assert attempt.claim("lost")
        requeue("7", "lost", {}, attempt)
    attempt = Attempt(tmp_path, 3)
    assert attempt.claim("lost")
    with pytest.raises(WorkerError, match="lost a rank 4 times without saving anything in between"):
        requeue("7", "lost", {}, attempt)
    attempt.progress.touch()
    requeue("7", "lost", {}, attempt)


def test_without_scontrol_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_facts("7") == {}
    with pytest.raises(WorkerError, match=r"is not requeued \(scontrol: No such file or directory\): submit it again"):
        requeue("7", "preempted", {}, Attempt(tmp_path, 0))
