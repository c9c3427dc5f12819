"""CamVid's street scenes, divided into training and test samples frame by frame.

CamVid's own test split is of other drives than its training split, and a small network trained on its few hundred
images ranks none of the eleven labels there. This takes the frames of all splits in the order of their names and makes
every third a test sample: the same drives, seconds later. What it measures is whether a victim learns, not how well it
would do in another street.

    python bench/camvid_frames.py CAMVID OUT

CAMVID has `SPLIT/images/NAME.png` and `SPLIT/masks/NAME.png` in the splits train, val and test, `classes.txt`, and
`labels.csv` with the columns `split`, `file` and one for each label. OUT gets the same, in the splits train and test,
with hard links to the images and masks, or copies on another file system.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

from camvid_sky import link_or_copy

SPLITS = ("train", "val", "test")
EVERY = 3


def arrange(camvid: Path, out: Path) -> dict[str, int]:
    """Write the folder; returns the number of images by split."""
    with (camvid / "labels.csv").open(newline="") as file:
        rows = {(row["split"], row["file"]): row for row in csv.DictReader(file)}
    frames = [(split, path.name) for split in SPLITS for path in (camvid / split / "images").glob("*.png")]
    counts = {"train": 0, "test": 0}
    found = []
    for number, (split, name) in enumerate(sorted(frames, key=lambda frame: frame[1])):
        into = "test" if number % EVERY == EVERY - 1 else "train"
        for part in ("images", "masks"):
            (out / into / part).mkdir(parents=True, exist_ok=True)
            link_or_copy(camvid / split / part / name, out / into / part / name)
        found.append({**rows[split, name], "split": into})
        counts[into] += 1
    shutil.copyfile(camvid / "classes.txt", out / "classes.txt")
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path, metavar="CAMVID", nargs="?")
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?")
    options = parser.parse_args()
    if options.out is None:  # as `make bench` calls every program
        parser.print_help()
        return
    for split, count in arrange(options.camvid, options.out).items():
        print(f"{split}: {count}")


if __name__ == "__main__":
    main()
