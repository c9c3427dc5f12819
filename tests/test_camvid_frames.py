"""bench/camvid_frames.py: frames of all splits, divided again."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hpcule.data.opening import Opening

PROGRAM = Path(__file__).parents[1] / "bench" / "camvid_frames.py"


def test_frames_are_divided_with_their_masks_and_labels(tmp_path):
    camvid, lines = tmp_path / "camvid", ["split,file,a,b"]
    for number in range(9):
        split = ("train", "val", "test")[number // 3]
        for part in ("images", "masks"):
            (camvid / split / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), number % 2, np.uint8)).save(camvid / split / part / f"{number}.png")
        lines.append(f"{split},{number}.png,{number % 2},{int(number > 4)}")
    (camvid / "classes.txt").write_text("0 a\n1 b\n")
    (camvid / "labels.csv").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, PROGRAM, camvid, tmp_path / "out"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["train: 6", "test: 3"], done.stderr
    test = Opening().source(f"{tmp_path / 'out'}:test")
    assert [test.file_name(place) for place in range(3)] == [f"images/{number}.png" for number in (2, 5, 8)]
    np.testing.assert_array_equal(test.label_matrix.values, [[0, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(test.masks.read(np.arange(3))[:, 0, 0], [0, 1, 0])
