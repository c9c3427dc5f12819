"""Runs a craft on W real processes of this machine and prints what each rank has asked of the file system and sent.

    python bench/ranks/processes.py --workers 1 2 4 8 -- craft em --data DATA --out STORE --preset smoke

Options are those of `simulate.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from simulate import Counts, run_all

from hpcule.world.launcher import MEETING
from hpcule.world.launcher_variables import TORCHRUN
from hpcule.world.meeting import prepare
from hpcule.world.signals import environment_of_child


def run_ranks(arguments: list[str], workers: int, folders: list[Path]) -> list[Counts]:
    """Run a command of hpcule on all ranks; what each has counted, by rank."""
    with tempfile.TemporaryDirectory(prefix="hpcule-ranks-") as name:
        folder = Path(name)
        prepare(folder)
        command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(folder / "counts")]
        command += [":".join(map(str, folders)), *arguments]
        environ = {**environment_of_child(), MEETING: name}
        processes = []
        for rank in range(workers):
            numbers = {"rank": rank, "size": workers, "local_rank": rank, "local_size": workers}
            own = {TORCHRUN[key]: str(number) for key, number in numbers.items()}
            processes.append(subprocess.Popen(command, env={**environ, **own}, stdout=subprocess.DEVNULL))
        codes = [process.wait() for process in processes]
        assert not any(codes), codes
        return [json.loads((folder / f"counts-{rank}.json").read_text()) for rank in range(workers)]


def main() -> None:
    """Run, and print."""
    run_all(__doc__, run_ranks)


if __name__ == "__main__":
    main()
