from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from slowly import slow_but

from hpcule.config.errors import DataError, PeerLostError, PeerTimeoutError, StoppedError, UsageError, WorkerError
from hpcule.world.launcher import Place
from hpcule.world.local import Failure, _explain, report_failure


@pytest.fixture
def failed(tmp_path):
    """A failed worker that has left this error, or none."""

    def make(error=None, exitcode=1, given_up=False):
        path = tmp_path / f"error-{len(list(tmp_path.iterdir()))}.json"
        path.write_text("")
        if error is not None:
            report_failure(Place("workers", error_file=str(path)), error)
        return Failure(4711, exitcode, path, given_up)

    return make


def test_a_rank_that_lost_its_peer_is_never_the_culprit(failed):
    explained = _explain({0: failed(PeerLostError("rank 0 lost another")), 1: failed(DataError("bad.png is broken"))})
    assert isinstance(explained, WorkerError)
    assert "rank 1 on " in str(explained)
    assert "failed: bad.png is broken" in str(explained)


def test_a_rank_that_was_told_to_stop_is_never_the_culprit(failed):
    cause = failed(DataError("bad.png is broken"))
    for victim in (failed(exitcode=-signal.SIGTERM), failed(StoppedError("stopped by SIGTERM, saved"))):
        assert "rank 3 on " in str(_explain({0: victim, 3: cause}))


def test_a_killed_rank_is_named_with_its_signal(failed):
    explained = str(_explain({0: failed(PeerLostError("lost")), 2: failed(exitcode=-signal.SIGKILL)}))
    assert "rank 2 on " in explained
    assert "was killed by SIGKILL (process 4711); the kernel kills with SIGKILL when memory runs out" in explained
    assert "memory" not in str(_explain({1: failed(exitcode=-signal.SIGSEGV)}))


def test_a_hung_rank_is_a_time_out_and_no_kill(failed):
    late, hung = failed(PeerTimeoutError("timed out")), failed(exitcode=-signal.SIGKILL, given_up=True)
    for lost in (failed(PeerLostError("lost")), late):
        explained = str(_explain({0: late, 1: hung, 2: lost}))
        assert re.fullmatch(
            r"rank 0 on \S+: timed out; killed, as it did not answer: rank 1 \(process 4711\)", explained
        )
    assert "bad.png is broken" in str(_explain({0: late, 1: hung, 2: failed(DataError("bad.png is broken"))}))
    aborted = str(_explain({0: failed(exitcode=-signal.SIGABRT)}))
    assert "NCCL ends a rank with SIGABRT when another one does not answer" in aborted


def test_where_all_lost_a_peer_the_first_is_named(failed):
    assert "rank 0 on " in str(_explain({1: failed(PeerLostError("b")), 0: failed(PeerLostError("a"))}))


def test_wrong_use_and_a_stop_keep_their_kind(failed):
    assert isinstance(_explain({1: failed(UsageError("no such device"))}), UsageError)
    assert isinstance(_explain({1: failed(StoppedError("stopped, saved"))}), StoppedError)
    assert str(_explain({1: failed(UsageError("no such device"))})) == "no such device"


def test_a_rank_that_had_no_time_to_say_so_was_stopped_all_the_same(failed):
    for exitcode in (-signal.SIGKILL, 75):
        explained = _explain({0: failed(exitcode=exitcode)}, "SIGTERM")
        assert isinstance(explained, StoppedError)
        assert "stopped by SIGTERM" in str(explained)
    assert "disk full" in str(_explain({0: failed(exitcode=75), 1: failed(DataError("disk full"))}, "SIGTERM"))


def test_a_rank_that_was_asked_to_stop_in_a_long_step_is_no_cause(failed):
    explained = str(_explain({0: failed(exitcode=75), 1: failed(exitcode=-signal.SIGKILL)}))
    assert "rank 1 on " in explained
    assert "killed by SIGKILL" in explained


def test_a_stopped_rank_explains_more_than_one_that_lost_it(failed):
    lost, stopped = failed(PeerLostError("lost")), failed(StoppedError("stopped, saved"), 75)
    assert str(_explain({0: lost, 1: stopped})) == "stopped, saved"


def test_an_error_of_another_kind_and_no_error_at_all(failed):
    assert "failed: KeyError: 'label'" in str(_explain({0: failed(KeyError("label"))}))
    assert "failed: exit code 3, no message" in str(_explain({0: failed(exitcode=3)}))


def test_a_failure_is_reported_only_where_somebody_listens():
    report_failure(Place("srun"), DataError("nobody listens"))


def test_the_agent_of_torchrun_shows_a_users_error_as_one_line_without_a_traceback(tmp_path):
    path = tmp_path / "error.json"
    for error in (DataError("no such folder"), KeyError("label")):
        try:
            raise error
        except Exception as caught:
            report_failure(Place("torchrun", 1, 2, error_file=str(path)), caught)
        shown = json.loads(path.read_text())["message"]["extraInfo"]["py_callstack"]
        if isinstance(error, DataError):
            assert re.fullmatch("hpcule: rank 1 on .+: no such folder", shown)
        else:
            assert shown.startswith("Traceback")


# From here on, real runs: they start several processes each and take seconds.


@pytest.fixture
def long_run(tmp_path, request):
    """A craft run on two workers that would take hours, once both are at work; killed at the end at the latest."""
    rng = np.random.default_rng(0)
    data, store = tmp_path / "toys.npz", tmp_path / "store"
    np.savez(data, images=rng.integers(0, 256, (96, 8, 8, 3), np.uint8), labels=np.arange(96) % 3)
    command = [sys.executable, "-m", "hpcule", "craft", "pil", "--data", data, "--out", store, "--workers", "2"]
    settings = ["method.epochs=10000000", "deterministic=true", *getattr(request, "param", [])]
    command += [word for setting in settings for word in ("--set", setting)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        wait_for(lambda: run.poll() is not None or (store / "manifest.json").exists())
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.5)
        workers = workers_of(run.pid)
        assert sorted(workers) == [0, 1]
        yield run, workers, store
    finally:
        run.kill()
        run.communicate()


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers_of(launcher):
    """Process ids of a launcher's workers, by rank."""
    found = {}
    for task in Path(f"/proc/{launcher}/task").iterdir():
        for child in (task / "children").read_text().split():
            environ = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            ranks = [int(entry[5:]) for entry in environ if entry.startswith(b"RANK=")]
            found.update(dict.fromkeys(ranks, int(child)))
    return found


def gone(pid):
    """Whether a process has ended; what its new parent has not yet buried counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_within_seconds(long_run):
    run, workers, store = long_run
    os.kill(workers[1], signal.SIGKILL)
    start = time.monotonic()
    _, message = run.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert run.returncode == 1
    assert "rank 1 on " in message
    assert "SIGKILL" in message
    assert "Traceback" not in message
    assert all(map(gone, workers.values()))
    assert not json.loads((store / "manifest.json").read_text())["complete"]


@pytest.mark.slow
@pytest.mark.parametrize("long_run", [["world.timeout_seconds=15"]], indirect=True)
def test_a_worker_that_hangs_is_named_after_the_time_out(long_run):
    run, workers, _ = long_run
    os.kill(workers[1], signal.SIGSTOP)
    start = time.monotonic()
    _, message = run.communicate(timeout=60)
    assert time.monotonic() - start < 15 + 30
    assert run.returncode == 1
    assert "timed out: another rank did not answer" in message
    assert f"killed, as it did not answer: rank 1 (process {workers[1]})" in message
    assert message.count("hpcule: rank") == 1
    assert all(map(gone, workers.values()))


def test_a_terminated_run_saves_and_says_how_to_go_on(long_run):
    run, workers, store = long_run
    run.terminate()
    _, message = run.communicate(timeout=60)
    assert run.returncode == 75  # EX_TEMPFAIL: a batch system may run it again
    assert "SIGTERM" in message
    assert "--resume" in message
    assert "Traceback" not in message
    assert all(map(gone, workers.values()))
    assert list((store / "run").glob("checkpoint-*/COMMIT"))


@pytest.mark.slow
def test_workers_die_with_a_killed_launcher(long_run):
    run, workers, _ = long_run
    run.kill()
    wait_for(lambda: all(map(gone, workers.values())), 20)


@pytest.mark.parametrize("delay", slow_but([0.3], [0.0, 0.3, 1.0]))
def test_workers_that_still_start_die_with_a_killed_launcher(tmp_path, delay):
    command = [sys.executable, "-m", "hpcule", "doctor", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        wait_for(lambda: len(workers_of(run.pid)) == 2)
        time.sleep(delay)
        workers = workers_of(run.pid)
        run.kill()
    wait_for(lambda: all(map(gone, workers.values())), 20)


def test_workers_that_still_start_are_stopped_with_one_line(tmp_path):
    command = [sys.executable, "-m", "hpcule", "doctor", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        wait_for(lambda: len(workers_of(run.pid)) == 2)
        workers = workers_of(run.pid)
        run.send_signal(signal.SIGINT)
        _, message = run.communicate(timeout=30)
    assert run.returncode == 75
    assert message.startswith("hpcule: stopped by SIGINT")
    assert message.count("\n") == 1
    assert all(map(gone, workers.values()))


def listening(process):
    """Addresses, in hexadecimal, at which a process listens."""
    links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()]
    sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return [line[1].split(":")[0] for line in lines[1:] if line[3] == "0A" and line[9] in sockets]


@pytest.mark.slow
def test_workers_listen_on_the_loopback_interface_alone(long_run):
    run, workers, _ = long_run
    assert listening(run.pid) == []
    found = [address for worker in workers.values() for address in listening(worker)]
    assert found, "gloo keeps a socket open for every rank"
    assert set(found) == {"0100007F"}  # 127.0.0.1


@pytest.mark.slow
def test_a_second_interrupt_ends_everything_at_once(long_run):
    run, workers, _ = long_run
    for worker in workers.values():
        os.kill(worker, signal.SIGSTOP)  # it cannot heed the first
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    assert run.wait(10) == 130
    wait_for(lambda: all(map(gone, workers.values())), 10)


@pytest.mark.slow
def test_wrong_use_that_only_a_worker_sees_is_wrong_use():
    command = [sys.executable, "-m", "hpcule", "doctor", "--workers", "2", "--set", "world.device=cuda"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 2
    assert "hpcule: world.device=cuda, but torch sees no CUDA device" in done.stderr
    assert "Traceback" not in done.stderr
