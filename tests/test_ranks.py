"""What each rank asks of the file system and sends does not grow with the number of ranks, but for the depth of a tree.

Ranks are threads of one process that run the command itself, counted by bench/ranks; a slow test compares their counts
with those of real processes.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCH = Path(__file__).parents[1] / "bench" / "ranks"
FILES = 96
SHARDS = 16
CRAFT = ("--preset", "smoke", "--set", f"store.shards={SHARDS}", "--set", "world.threads=1", "--set", "method.batch=32")
METADATA = ("opens", "stats", "fsyncs", "renames", "listings", "makes", "removes")

Counts = list[dict[str, int]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (FILES, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        place = folder / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}.png")
    return folder


def counted(program: str, sizes: list[int], *arguments: object) -> dict[int, Counts]:
    """The counts of each rank, by number of ranks."""
    command = [sys.executable, BENCH / f"{program}.py", "--json", "--workers", *sizes, "--", "craft", *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return {int(size): ranks for size, ranks in json.loads(run.stdout.splitlines()[-1]).items()}


def check_growth(found: dict[int, Counts]) -> None:
    """A rank has its own share of the work and a constant; rank 0 in addition opens the folder, once for all."""
    for size, ranks in found.items():
        own_shards, own_files = SHARDS // size, FILES // size
        for rank, counts in enumerate(ranks):
            work = 8 * own_shards + 2 * own_files + 20 + (2 * FILES + SHARDS + 60) * (rank == 0)
            for kind in METADATA:
                assert counts[kind] <= work, (size, rank, kind, counts[kind], work)
        for kind in METADATA:
            others = [counts[kind] for counts in ranks[1:]]
            assert sum(others) <= 8 * SHARDS + 2 * FILES + 20 * size, (size, kind, others)
    # No count of a rank besides the messages grows with the number of ranks.
    sizes = sorted(found)
    for few, many in pairwise(sizes):
        for kind in METADATA:
            assert found[many][0][kind] <= found[few][0][kind], (kind, many)
            most = {size: max((counts[kind] for counts in found[size][1:]), default=math.inf) for size in (few, many)}
            assert most[many] <= most[few], (kind, many)
    pairs = max(counts["messages"] for counts in found[2])
    for size in sizes[1:]:
        assert max(counts["messages"] for counts in found[size]) <= 1.2 * pairs * math.log2(size), size


def test_a_craft_and_its_verification(images: Path, tmp_path: Path) -> None:
    sizes, store = [1, 2, 4, 16], tmp_path / "store"
    check_growth(counted("simulate", sizes, "pil", "--data", images, "--out", store, *CRAFT))
    check_growth(counted("simulate", sizes, "pil", "--data", images, "--out", store, *CRAFT, "--resume"))


@pytest.mark.slow
def test_threads_count_what_processes_do(images: Path, tmp_path: Path) -> None:
    # One rank alone opens the data before it counts.
    sizes, arguments = [2, 4, 8], ("pil", "--data", images, "--out", tmp_path / "store", *CRAFT)
    real, simulated = counted("processes", sizes, *arguments), counted("simulate", sizes, *arguments)
    for size in sizes:
        for one, other in zip(real[size], simulated[size], strict=True):
            # The bytes of times and of peak memory differ by some digits.
            assert one.pop("bytes") == pytest.approx(other.pop("bytes"), rel=0.02)
            assert one == other, size
