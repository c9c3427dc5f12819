import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FLAG = """
import os, signal
from hpcule.world.signals import StopFlag
flag = StopFlag()
print(bool(flag), repr(flag.name))
{work}
print(bool(flag), repr(flag.name))
"""

CHILD = "from hpcule.world.signals import die_with_parent; import time; die_with_parent(); print(1, flush=True); " + (
    "time.sleep(60)"
)
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def output(work):
    code = FLAG.format(work=work)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_sets_the_flag_and_nothing_else(name):
    assert output(f"os.kill(os.getpid(), signal.{name})").splitlines() == ["False ''", f"True '{name}'"]


def test_a_forked_helper_does_not_set_its_copy_of_the_flag():
    work = (
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os._exit(7 if flag else 8)\n"
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
    with subprocess.Popen([sys.executable, "-c", PARENT.format(child=CHILD)], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)
