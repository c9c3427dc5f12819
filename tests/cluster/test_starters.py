"""The starters of launch/, as they stand, with two processes on this machine."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from cluster import ROOT, SMOKE, call, contents, environ

from hpcule.world.launcher import free_port

pytestmark = pytest.mark.cluster
PROGRAMS = {"torchrun.sh": "torchrun", "mpiexec.sh": "mpiexec", "deepspeed.sh": "deepspeed"}


@pytest.mark.parametrize("starter", PROGRAMS)
def test_two_processes_write_the_bytes_of_one(starter, one_process, tmp_path):
    if shutil.which(PROGRAMS[starter], path=environ()["PATH"]) is None:
        pytest.skip(f"{PROGRAMS[starter]} is not installed")
    as_root = "--allow-run-as-root" if os.geteuid() == 0 else ""
    done = call(
        *(ROOT / "launch" / starter, 2, "craft", "pil", *SMOKE, "--out", tmp_path / "store", "--json"),
        MPIEXEC_OPTIONS=f"--oversubscribe {as_root}",
        PORT=str(free_port()),
    )
    assert done.returncode == 0, done.stderr
    summary = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    assert json.loads(summary)["workers"] == 2
    assert contents(tmp_path / "store") == one_process(SMOKE)


def test_what_is_not_run_is_at_least_a_script():
    done = call("bash", "-n", ROOT / "launch" / "jsrun.lsf")
    assert done.returncode == 0, done.stderr
