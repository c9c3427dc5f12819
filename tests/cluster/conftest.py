"""Fixtures of the tests on the local Slurm."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import CLUSTER, call, contents, wait_until


@pytest.fixture(scope="session")
def slurm() -> None:
    """The cluster without anybody's jobs, or a skip."""
    if shutil.which("sinfo") is None or not (CLUSTER / "slurm.conf").exists() or call("sinfo").returncode:
        pytest.skip("the local Slurm does not run: make test-cluster, or slurm/local-cluster up")
    # A machine that went down had jobs running, and Slurm has kept them.
    call("scancel", "--user=root")
    wait_until(lambda: not call("squeue", "--noheader").stdout, "the end of jobs left over")


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], dict[str, bytes]]:
    """The files that one process writes with these settings, undisturbed; made on first use."""
    made: dict[tuple[str, ...], dict[str, bytes]] = {}

    def files(settings: list[str]) -> dict[str, bytes]:
        if tuple(settings) not in made:
            store = tmp_path_factory.mktemp("one") / "store"
            done = call("hpcule", "craft", "pil", *settings, "--out", store)
            assert done.returncode == 0, done.stderr
            made[tuple(settings)] = contents(store)
        return made[tuple(settings)]

    return files
