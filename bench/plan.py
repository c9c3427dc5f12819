"""What `hpcule plan craft` predicts, and what the craft then takes: a row a method and number of workers."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from craft_pil import hpcule, make_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["pil"])
    parser.add_argument("--data", help="DATA (default: an array of the shape of CIFAR-10, made here)")
    parser.add_argument("--samples", type=int, default=10_000, help="of the array made here (default: 10000)")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="NAME=VALUE")
    options = parser.parse_args()
    print(
        "| method | workers | craft, predicted | craft, measured | error | whole, predicted | whole, measured | error |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="hpcule-bench-") as folder:
        data = options.data or make_data(Path(folder), options.samples)
        for method in options.methods:
            for workers in options.workers:
                print(row(method, data, workers, Path(folder), options), flush=True)


def row(method: str, data: str, workers: int, folder: Path, options: argparse.Namespace) -> str:
    """One line of a table in Markdown, in seconds; measured are medians."""
    settings = ["--preset", options.preset, *(f"--set={override}" for override in options.overrides)]
    common = [method, "--data", data, "--json", *settings]
    planned = hpcule("plan", "craft", *common, "--workers-per-node", str(workers))["plans"][0]
    crafted, whole = [], []
    for run in range(options.runs):
        store = folder / f"{method}-{workers}-{run}"
        begin = time.perf_counter()
        crafted.append(hpcule("craft", *common, "--workers", str(workers), "--out", str(store))["craft_seconds"])
        whole.append(time.perf_counter() - begin)
    cells = [method.upper(), str(workers)]
    for predicted, measured in ((planned["craft_seconds"], crafted), (planned["wall_seconds"], whole)):
        middle = median(measured)
        cells += [f"{predicted:.1f} s", f"{middle:.1f} s", f"{100 * (predicted / middle - 1):+.0f} %"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
