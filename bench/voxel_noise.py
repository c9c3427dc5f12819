"""Whether voxel-class noise keeps volumes from being segmented, and what memory it takes.

A set of spheres of two textures in noise is made, crafted for on two workers, exported in nnU-Net's layout, compared
voxel by voxel, and segmented by victims on clean samples, on random noise and on protected samples.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
spheres: Any = importlib.import_module("volumes")

TESTS = 12
MEASURES = ("mean Dice", "mean IoU", "sensitivity")
VICTIM = (
    *("victim.task=segmentation", "victim.pixel_network=unet-small", "victim.batch=4", "victim.optimizer=adam"),
    *("victim.learning_rate=0.002", "victim.countermeasures=crop-flip"),
)


def hpcule(*arguments: object) -> None:
    """Run a verb of this checkout."""
    subprocess.run([sys.executable, "-m", "hpcule", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def craft(method: str, data: Path, store: Path, workers: int, *settings: str) -> Any:
    """Craft for voxels, and return what the verb reports."""
    command = [sys.executable, "-m", "hpcule", "craft", method, "--data", str(data), "--out", str(store), "--json"]
    given = ["method.task=segmentation", "seed=0", *settings]
    command += ["--workers", str(workers), *(part for setting in given for part in ("--set", setting))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def largest_change(copy: Path, count: int, size: int) -> int:
    """The largest change of a voxel, after masks have been compared; each volume has to be there and changed."""
    largest = 0
    for number in range(count):
        values, mask = spheres.sphere_volume(number, size)
        image: Any = nibabel.load(copy / "imagesTr" / f"P{number}_0000.nii.gz")
        label: Any = nibabel.load(copy / "labelsTr" / f"P{number}.nii.gz")
        assert np.array_equal(np.asanyarray(label.dataobj), mask)
        change = np.abs(np.asanyarray(image.dataobj.get_unscaled()).astype(int) - values)
        assert change.any()
        largest = max(largest, int(change.max()))
    return largest


def victims(data: Path, store: Path | None, out: Path, epochs: int, seeds: int) -> str:
    """The mean of each measure over seeds, of victims on clean or on protected samples."""
    found = []
    for seed in range(seeds):
        place = out.with_name(f"{out.name}-{seed}")
        of_store = ["--store", store] if store else []
        settings = [part for one in (*VICTIM, f"victim.epochs={epochs}", f"seed={seed}") for part in ("--set", one)]
        hpcule("train", "--data", data, *of_store, "--out", place, *settings)
        found.append(json.loads((place / "results.json").read_text())["curve"][-1]["measures"])
    means = {name: (np.mean(values), np.ptp(values)) for name in MEASURES if (values := [one[name] for one in found])}
    return ", ".join(f"{name} {100 * mean:.1f}% (range {100 * spread:.1f})" for name, (mean, spread) in means.items())


def measure_protection(options: argparse.Namespace) -> None:
    """Print a line for the clean set and one for each method."""
    data = spheres.write_nnunet(options.folder / "data", options.count, options.size, tests=TESTS)
    print("clean:", victims(data, None, options.folder / "clean", options.epochs, options.seeds), flush=True)
    for method in options.methods:
        store, copy = options.folder / f"{method}-store", options.folder / f"{method}-copy"
        craft(method, data, store, 2, "store.shards=4", *options.set)
        hpcule("verify", store, "--data", data)
        hpcule("export", store, "--data", data, "--out", copy, "--dicom-tags", "keep")
        change = largest_change(copy, options.count, options.size)
        reached = victims(data, store, options.folder / method, options.epochs, options.seeds)
        print(f"{method}: {reached}; voxels changed by at most {change} stored values", flush=True)


def measure_memory(options: argparse.Namespace) -> None:
    """Print the largest worker's peak memory for each method, on volumes of one sphere repeated."""
    values, mask = spheres.sphere_volume(0, options.size)
    data = options.folder / "data"
    for number in range(options.count):
        spheres.write_volume(data / "images" / f"{number:04d}.nii", np.roll(values, number, 0))
        spheres.write_volume(data / "masks" / f"{number:04d}.nii", np.roll(mask, number, 0))
    (data / "classes.txt").write_text("0 background\n1 striped\n2 smooth\n")
    for method in options.methods:
        report = craft(method, data, options.folder / f"{method}-store", options.workers, *options.set)
        print(f"{method}: {json.dumps(report)}", flush=True)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="absent or empty; default: a temporary one")
    parser.add_argument("--methods", nargs="+", default=["classwise"])
    parser.add_argument("--count", type=int, default=8, help="volumes to protect")
    parser.add_argument("--size", type=int, default=16, help="voxels along each side")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="settings of the crafts")
    parser.add_argument("--memory", action="store_true", help="measure the memory of crafts, and train no victims")
    parser.add_argument("--workers", type=int, default=1, help="of crafts whose memory is measured")
    options = parser.parse_args()
    options.folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcule-volumes-"))
    (measure_memory if options.memory else measure_protection)(options)


if __name__ == "__main__":
    main()
