"""bench/camvid_sky.py: one label an image, from the masks of street scenes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hpcule.data.opening import Opening

PROGRAM = Path(__file__).parents[1] / "bench" / "camvid_sky.py"


def test_images_are_sorted_by_how_much_sky_the_training_images_have(tmp_path):
    rows_of_sky = {"train": [0, 2, 4, 6, 8], "val": [1, 9], "test": [5, 3]}
    for split, rows in rows_of_sky.items():
        for number, sky in enumerate(rows):
            for part in ("images", "masks"):
                (tmp_path / "camvid" / split / part).mkdir(parents=True, exist_ok=True)
            mask = np.full((10, 12), 3, np.uint8)
            mask[:sky] = 0
            Image.fromarray(mask).save(tmp_path / "camvid" / split / "masks" / f"{number}.png")
            pixels = np.full((10, 12, 3), 20 * sky, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "camvid" / split / "images" / f"{number}.png")
    line = [sys.executable, PROGRAM, tmp_path / "camvid", tmp_path / "out"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["train/open: 2", "train/enclosed: 3"]
    for split, rows in rows_of_sky.items():
        source = Opening().source(f"{tmp_path / 'out'}:{split}")
        assert source.class_names == ("enclosed", "open")
        sky = source.read(np.arange(len(source)))[:, 0, 0, 0] // 20
        assert sorted(sky) == sorted(rows)
        assert list(source.labels) == [int(value > 4) for value in sky]
