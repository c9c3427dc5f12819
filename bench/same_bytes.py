"""Hashes of what every method crafts, to compare two versions of hpcule.

    python bench/same_bytes.py record before.json      # with one version installed
    python bench/same_bytes.py record after.json       # with the other
    python bench/same_bytes.py compare before.json after.json

`record` crafts every method's smoke preset on one worker, and EM, PIL and UC on two workers, each with
`deterministic: true`, on images and recordings that it makes itself. It writes the SHA-256 of the deltas by id and the
resolved settings. `compare` fails if a delta differs, and lists the settings that only one version has. Stores are read
with h5py and JSON alone, so that the program does not depend on the version that it examines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from sklearn.datasets import load_digits

IMAGES = 256
DISTRIBUTED = ("em", "pil", "uc")


def write_images(path: Path) -> None:
    """Save scikit-learn's digits as 32 x 32 colour images, split as training data with labels."""
    digits = load_digits()
    grey = np.kron(digits.images[:IMAGES] * 15, np.ones((4, 4))).astype(np.uint8)
    colour = np.stack([grey, np.roll(grey, 1, axis=1), 255 - grey], axis=-1)
    np.savez(path, images=colour, labels=digits.target[:IMAGES].astype(np.int64))


def write_recordings(folder: Path) -> None:
    """Save sixty-four noisy tones of two classes as 16-bit WAV files of one second at 8 kHz."""
    random = np.random.default_rng(0)
    seconds = np.arange(8000) / 8000
    for number in range(64):
        label = number % 2
        tone = np.sin(2 * np.pi * (300 + 400 * label) * seconds) + 0.1 * random.standard_normal(8000)
        path = folder / f"tone{label}" / f"{number:03}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((tone * 8000).astype("<i2").tobytes())


def hash_of_deltas(store: Path) -> str:
    """The SHA-256 over all arrays of a store, file by file in the manifest's order."""
    manifest = json.loads((store / "manifest.json").read_text())
    files = [shard["file"] for shard in manifest["shards"]]
    files += [manifest["shared"]["file"]] if manifest.get("shared") else []
    digest = hashlib.sha256()
    for name in files:
        with h5py.File(store / name) as file:
            for array in sorted(file):
                values = file[array][()]
                digest.update(f"{array} {values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def record(out: Path, methods: list[str]) -> None:
    """Craft with every method and write one JSON document."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images, recordings = Path(folder, "images.npz"), Path(folder, "recordings")
        write_images(images)
        write_recordings(recordings)
        listed = subprocess.run(
            [sys.executable, "-m", "hpcule", "methods", "--json"], check=True, capture_output=True, text=True
        )
        names = [method["name"] for method in json.loads(listed.stdout)]
        runs = [(name, 1) for name in names] + [(name, 2) for name in DISTRIBUTED]
        for name, workers in runs:
            if methods and name not in methods:
                continue
            store = Path(folder, f"{name}-{workers}")
            data = recordings if name == "poscuda" else images
            settings = ["--set", "deterministic=true", "--set", "seed=3"]
            command = ["craft", name, "--data", str(data), "--preset", "smoke", "--out", str(store), *settings]
            subprocess.run(
                [sys.executable, "-m", "hpcule", *command, "--workers", str(workers)], check=True, capture_output=True
            )
            manifest = json.loads((store / "manifest.json").read_text())
            results[f"{name} on {workers}"] = {"sha256": hash_of_deltas(store), "settings": manifest["config"]}
            print(f"{name} on {workers}: {results[f'{name} on {workers}']['sha256'][:16]}", flush=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a nested mapping, by their dotted names."""
    result: dict[str, Any] = {}
    for name, value in tree.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return result


def compare(before: Path, after: Path) -> int:
    """Print what differs; return 1 if the deltas of any run do."""
    old, new = json.loads(before.read_text()), json.loads(after.read_text())
    differing = [run for run in sorted(old | new) if old.get(run, {}).get("sha256") != new.get(run, {}).get("sha256")]
    for run in differing:
        print(f"{run}: other deltas")
    for run in sorted(old.keys() & new.keys()):
        first, second = flat(old[run]["settings"]), flat(new[run]["settings"])
        for name in sorted(first.keys() | second.keys()):
            if name not in second:
                print(f"{run}: {name}={first[name]} is gone")
            elif name not in first:
                print(f"{run}: {name}={second[name]} is new")
            elif first[name] != second[name]:
                print(f"{run}: {name}: {first[name]} became {second[name]}")
    print(f"{len(old.keys() | new.keys()) - len(differing)} runs with the same deltas, {len(differing)} with others")
    return 1 if differing else 0


def main() -> int:
    """Run one of the two verbs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    recording = verbs.add_parser("record", help="craft with every method and write hashes and settings")
    recording.add_argument("out", type=Path)
    recording.add_argument("methods", nargs="*", help="these methods alone (default: all)")
    comparing = verbs.add_parser("compare", help="compare two documents of `record`")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.verb == "record":
        record(options.out, options.methods)
        return 0
    return compare(options.before, options.after)


if __name__ == "__main__":
    sys.exit(main())
