"""CamVid's street scenes as a folder of two classes: how much of an image is sky.

CamVid has masks of eleven classes, and most images have most of them, so none of its labels is the one label of an
image. This reads one off the masks: `open` where the sky covers more of an image than in half of the training images,
`enclosed` where buildings and trees leave less of it.

    python bench/camvid_sky.py CAMVID OUT

CAMVID has `SPLIT/images/NAME.png` and `SPLIT/masks/NAME.png`, whose values are numbers of classes, 0 for the sky, in
the splits train, val and test. OUT gets hard links to the images, or copies on another file system, as
`SPLIT/CLASS/NAME.png`.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")
SKY = 0


def sky_share(mask: Path) -> float:
    """Share of an image that its mask says is sky."""
    with Image.open(mask) as image:
        return float(np.mean(np.asarray(image) == SKY))


def arrange(camvid: Path, out: Path) -> dict[tuple[str, str], int]:
    """Write the folder; returns the number of images by split and class."""
    shares = {
        split: {path.name: sky_share(path) for path in sorted((camvid / split / "masks").glob("*.png"))}
        for split in SPLITS
    }
    limit = median(shares["train"].values())
    counts = {(split, name): 0 for split in SPLITS for name in ("open", "enclosed")}
    for split, found in shares.items():
        for file, share in found.items():
            name = "open" if share > limit else "enclosed"
            place = out / split / name
            place.mkdir(parents=True, exist_ok=True)
            link_or_copy(camvid / split / "images" / file, place / file)
            counts[split, name] += 1
    return counts


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path, metavar="CAMVID", nargs="?")
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?")
    options = parser.parse_args()
    if options.out is None:  # as `make bench` calls every program
        parser.print_help()
        return
    for (split, name), count in arrange(options.camvid, options.out).items():
        print(f"{split}/{name}: {count}")


if __name__ == "__main__":
    main()
