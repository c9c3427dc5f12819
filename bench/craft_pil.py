"""Time of `hpcule craft pil`: surrogate and noise together, as `craft --json` reports it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="DATA (default: an array of the shape of CIFAR-10, made here)")
    parser.add_argument("--samples", type=int, default=50_000, help="of the array made here (default: 50000)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpcule-bench-") as folder:
        data = options.data or make_data(Path(folder), options.samples)
        summaries = [craft(data, Path(folder, f"store-{run}"), options) for run in range(options.runs)]
    seconds = sorted(summary["craft_seconds"] for summary in summaries)
    samples, memory = summaries[0]["samples"], max(summary["peak_memory_mebibytes"] for summary in summaries)
    middle = median(seconds)
    print(
        f"craft pil: {samples} samples, {options.workers} worker(s), {len(seconds)} run(s): craft_seconds "
        f"min {seconds[0]:.2f}, median {middle:.2f}, max {seconds[-1]:.2f}; "
        f"{samples / middle:.0f} images/s; peak memory of a worker {memory} MiB"
    )


def make_data(folder: Path, samples: int) -> str:
    """Ten classes of noise around a pattern each: the method's time does not depend on what the samples show."""
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % 10
    patterns = rng.integers(64, 192, (10, 32, 32, 3), dtype=np.uint8)
    images = rng.integers(0, 64, (samples, 32, 32, 3), dtype=np.uint8)
    images += patterns[labels]
    path = folder / "cifar-shaped.npz"
    np.savez(path, train_images=images, train_labels=labels)
    return str(path)


def craft(data: str, store: Path, options: argparse.Namespace) -> dict[str, Any]:
    settings = [f"--set={override}" for override in options.overrides]
    what = ["craft", "pil", "--data", data, "--out", str(store), "--json", "--workers", str(options.workers)]
    return hpcule(*what, *settings)


def hpcule(*arguments: str) -> dict[str, Any]:
    """What a command with --json prints."""
    finished = subprocess.run([sys.executable, "-m", "hpcule", *arguments], capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


if __name__ == "__main__":
    main()
