"""A task of a job is a real hpcule process; only Slurm itself is not here."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hpcule.jobs.attempt import Attempt
from hpcule.jobs.command import Command


def test_a_command_that_succeeds_returns():
    Command(["methods", "--json"])()


def test_a_command_that_fails_ends_the_task_with_one_line(tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        Command(["verify", str(tmp_path)])()
    assert ended.value.code == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line == f"hpcule: hpcule verify {tmp_path} ended with 1; its own error is in this job's log"


def run_with_scontrol(command, folder):
    """In a process of its own: signal handlers and PATH are its own. scontrol notes what it was asked."""
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\necho JobState=RUNNING Restarts=0\n')
    script.chmod(0o755)
    os.environ |= {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "OMP_NUM_THREADS": "1"}
    os.environ["SUBMITIT_FOLDER"] = str(folder)
    command()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "outcome", "claimed"),
    [
        (signal.SIGUSR2, "time limit", False),
        (signal.SIGTERM, "stopped", False),
        (signal.SIGUSR2, "time limit", True),
    ],
)
def test_a_stopped_command_is_saved_and_requeued_by_one_task_before_its_limit(tmp_path, number, outcome, claimed):
    store = tmp_path / "store"
    settings = ["--set", "method.epochs=100000", "--set", "world.threads=1"]
    command = Command(["craft", "pil", "--data", "digits", "--out", str(store), *settings])
    process = multiprocessing.get_context("spawn").Process(target=run_with_scontrol, args=(command, tmp_path))
    process.start()
    log = store / "run" / "log-00000.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 3, process)
    attempt = Attempt(tmp_path / "77_attempts", 0)
    assert not attempt.progress.exists()
    assert not claimed or attempt.claim("time limit")
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == (75 if outcome == "stopped" else 0)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "--oneliner show job 77"
    requeued = outcome == "time limit" and not claimed
    assert asked[1:] == (["requeue incomplete 77"] if requeued else [])
    assert (attempt.folder / "0-outcome").read_text() == outcome
    assert attempt.progress.exists()
    assert list((store / "run").glob("checkpoint-*/COMMIT"))
    assert not json.loads((store / "manifest.json").read_text())["complete"]


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_survives_pickling(tmp_path):
    """submitit hands it over by a file."""
    import pickle

    path = Path(tmp_path / "command.pkl")
    path.write_bytes(pickle.dumps(Command(["methods"])))
    assert pickle.loads(path.read_bytes()) == Command(["methods"])
