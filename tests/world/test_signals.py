import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcule.world.signals import PARENT

FLAG = """
import os, signal
from hpcule.world.signals import StopFlag
flag = StopFlag()
with flag.watched():
    print(bool(flag), repr(flag.name))
    {work}
    print(bool(flag), repr(flag.name))
"""

CHILD = "from hpcule.world.signals import die_with_parent; import time; die_with_parent(); print(1, flush=True); " + (
    "time.sleep(60)"
)
PARENT_CODE = """
import subprocess, sys
from hpcule.world.signals import environment_of_child
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE, env=environment_of_child())
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
STOPPABLE = """
import hashlib, os, signal, sys, time
from hpcule.world.signals import *

def ready():
    print("ready", flush=True)

try:
    stop_on_signals(quietly=False)
    {work}
except Interrupted as error:
    print(error, flush=True)
    sys.exit(9)
"""
IN_C = "ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
"""Minutes inside one call, during which no handler of Python runs."""


def output(work):
    code = FLAG.format(work=work)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP"])
def test_a_signal_sets_the_flag_and_nothing_else(name):
    assert output(f"os.kill(os.getpid(), signal.{name})").splitlines() == ["False ''", f"True '{name}'"]


def test_a_forked_helper_does_not_set_its_copy_of_the_flag():
    work = (
        "pid = os.fork()\n    "
        "if pid == 0:\n    "
        "    os.kill(os.getpid(), signal.SIGTERM)\n    "
        "    os._exit(7 if flag else 8)\n    "
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert output(work).splitlines()[1:] == ["8", "False ''"]


def gone(pid):
    """Whether a process has ended; what its new parent has not yet buried counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def test_an_orphan_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT_CODE.format(child=CHILD)], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)


def test_a_child_whose_parent_died_before_it_could_ask_ends_at_once():
    dead = subprocess.Popen(["true"])
    dead.wait()
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, env={**os.environ, PARENT: str(dead.pid)}, timeout=30, capture_output=True)
    assert done.returncode == 137
    assert done.stdout == b""


@pytest.fixture
def started():
    """Starts what a test gives it, and kills what is left of it afterwards."""
    processes = []

    def start(work, **more):
        command = [sys.executable, "-c", STOPPABLE.format(work=work)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_a_signal_is_raised_where_nobody_watches_for_it(started, number):
    process = started("ready(); time.sleep(60)")
    process.send_signal(number)
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 9
    assert said.startswith(f"stopped by {number.name}: run the same command again")
    assert errors == ""


def test_a_second_signal_does_not_disturb_the_end_after_the_first(started):
    process = started(
        """
    try:
        ready()
        time.sleep(60)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up", flush=True)"""
    )
    process.terminate()
    said, errors = process.communicate(timeout=30)
    assert said.splitlines()[0] == "cleaned up"
    assert (process.returncode, errors) == (9, "")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_call_that_cannot_be_interrupted_is_given_up_within_seconds(started, number, code):
    process = started(IN_C)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.startswith(f"hpcule: stopped by {number.name}: run the same command again")


def test_a_second_interrupt_is_final(started):
    process = started(IN_C)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=3)
    assert process.returncode == 130


@pytest.mark.slow
def test_a_step_that_does_not_end_is_given_up(started):
    work = """
    flag = StopFlag()
    with flag.watched():
        ready()
        while True:
            time.sleep(0.01)"""
    process = started(work)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert "StoppedError: stopped by SIGTERM within a step" in errors


@pytest.mark.slow
def test_what_is_unhurried_may_finish(started):
    work = """
    flag = StopFlag()
    with flag.watched(), unhurried():
        ready()
        end = time.monotonic() + 6
        while time.monotonic() < end:
            time.sleep(0.01)
        print(flag.name, flush=True)
        os._exit(3)"""
    process = started(work)
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (3, "SIGTERM\n")


def test_what_nohup_ignores_stays_ignored(started):
    process = started("ready(); time.sleep(1)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_forked_helper_dies_of_a_signal_and_its_parent_does_not(started):
    work = """
    helper = os.fork()
    if helper == 0:
        time.sleep(60)
        os._exit(0)
    ready()
    time.sleep(0.5)  # what arrives within a fork is lost on its child
    os.kill(helper, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) == -signal.SIGTERM
    time.sleep(5.5)"""
    process = started(work)
    assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)


def test_signals_to_a_child_wait_until_it_is_ready_for_them():
    code = STOPPABLE.format(work="stop_in_time(); time.sleep(60)").replace(
        "import hashlib", "import time; time.sleep(1); import hashlib"
    )
    parent = f"""
import subprocess, sys
from hpcule.world.signals import held_back
with held_back():
    child = subprocess.Popen([sys.executable, "-c", {code!r}])
child.terminate()
sys.exit(child.wait())
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    assert "stopped by SIGTERM" in done.stdout


@pytest.mark.parametrize("seconds", [-5, 0.5])
def test_a_command_stops_by_itself_at_the_time_that_its_job_sets(seconds):
    code = STOPPABLE.format(work="stop_in_time(); time.sleep(60)")
    environ = {**os.environ, "HPCULE_STOP_AT": str(time.time() + seconds)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (
        9,
        "stopped by SIGUSR2: run the same command again to continue, craft with --resume\n",
    )


def test_a_time_that_is_none_is_refused():
    code = STOPPABLE.format(work="stop_in_time()")
    environ = {**os.environ, "HPCULE_STOP_AT": "noon"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=50)
    assert "HPCULE_STOP_AT must be a time in seconds since 1970, not 'noon'" in done.stderr
