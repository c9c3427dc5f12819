"""A task of a job is a real hpcule process; only Slurm itself is not here."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from hpcule.config.errors import WorkerError
from hpcule.jobs.command import Command


def test_a_command_that_succeeds_returns():
    Command(["methods", "--json"])()


def test_a_command_that_fails_is_an_error(tmp_path):
    with pytest.raises(WorkerError, match=r"hpcule verify .* ended with 1; its own error is in this job's log"):
        Command(["verify", str(tmp_path)])()


def run_with_scontrol(command, folder):
    """In a process of its own: signal handlers and PATH are its own. scontrol notes what it was asked."""
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n')
    script.chmod(0o755)
    os.environ |= {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "OMP_NUM_THREADS": "1"}
    command()


@pytest.mark.parametrize(
    ("number", "task", "asked"),
    [(signal.SIGUSR2, "0", True), (signal.SIGTERM, "0", True), (signal.SIGUSR2, "1", False)],
)
def test_a_stopped_command_is_saved_and_requeued_once(tmp_path, monkeypatch, number, task, asked):
    monkeypatch.setenv("SLURM_PROCID", task)
    store = tmp_path / "store"
    settings = ["--set", "method.epochs=100000", "--set", "world.threads=1"]
    command = Command(["craft", "pil", "--data", "digits", "--out", str(store), *settings])
    process = multiprocessing.get_context("spawn").Process(target=run_with_scontrol, args=(command, tmp_path))
    process.start()
    log = store / "run" / "log-00000.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 3, process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 0
    assert (tmp_path / "asked").exists() == asked
    if asked:
        assert (tmp_path / "asked").read_text().split() == ["requeue", "77"]
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
