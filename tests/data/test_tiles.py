from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hpcule.config.errors import UsageError
from hpcule.data.opening import Opening

SIZES = {"a/large.png": (50, 33), "a/one tile.png": (16, 16), "b/narrow.png": (5, 40), "b/turned.jpg": (30, 20)}
"""Width and height of files; the last is turned by EXIF."""


@pytest.fixture
def pictures(tmp_path):
    """Name -> pixels [3, H, W] as they are seen, and the folder."""
    rng, seen, exif = np.random.default_rng(0), {}, Image.Exif()
    exif[0x0112] = 6
    for name, (width, height) in SIZES.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = name == "a/one tile.png"
        pixels = rng.integers(0, 256, (height, width) if grey else (height, width, 3), dtype=np.uint8)
        if name.endswith(".jpg"):
            Image.fromarray(pixels).save(path, exif=exif)
            pixels = np.rot90(np.array(Image.open(path)), -1)
        else:
            Image.fromarray(pixels).save(path)
        seen[name] = np.stack([pixels] * 3) if grey else pixels.transpose(2, 0, 1)
    return seen, tmp_path / "pictures"


def test_every_pixel_is_in_one_tile_and_what_lies_beyond_mirrors(pictures):
    seen, folder = pictures
    source = Opening(tile_size=16).source(str(folder))
    tiles = source.read(np.arange(len(source)))
    number = 0
    for label, (name, whole) in zip([0, 0, 1, 1], seen.items(), strict=True):
        _, height, width = whole.shape
        for top in range(0, height, 16):
            for left in range(0, width, 16):
                rows = [mirrored(row, height) for row in range(top, top + 16)]
                columns = [mirrored(column, width) for column in range(left, left + 16)]
                np.testing.assert_array_equal(tiles[number], whole[:, rows][:, :, columns], err_msg=name)
                assert source.labels[number] == label
                number += 1
    assert number == len(source) == 12 + 1 + 3 + 4
    assert source.shape == (3, 16, 16)


def mirrored(place, size):
    """Where a place beyond an edge comes from: the edge's own pixel is there twice."""
    place %= 2 * size
    return place if place < size else 2 * size - 1 - place


def test_tiles_in_any_order_are_the_same(pictures):
    source = Opening(tile_size=16).source(str(pictures[1]))
    everything = source.read(np.arange(len(source)))
    ids = np.random.default_rng(1).permutation(np.repeat(np.arange(len(source)), 2))
    np.testing.assert_array_equal(source.read(ids), everything[ids])


def test_tiles_join_to_their_image(pictures):
    seen, folder = pictures
    source = Opening(tile_size=16).source(str(folder))
    for image, whole in enumerate(seen.values()):
        ids = source.of_image(image)
        np.testing.assert_array_equal(source.joined(image, source.read(ids)), whole)
    assert [image for image, *_ in source.by_image(np.array([14, 2, 13, 3]))] == [0, 2]


def test_sizes_are_read_without_decoding(pictures):
    _, folder = pictures
    whole = (folder / "a" / "large.png").read_bytes()
    (folder / "a" / "large.png").write_bytes(whole[: len(whole) // 2])
    assert len(Opening(tile_size=16).source(str(folder))) == 20


def test_other_data_have_no_tiles(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4))
    with pytest.raises(UsageError, match=r"tile_size=16: data is no folder of images"):
        Opening(tile_size=16).source(str(tmp_path / "data.npz"))


def test_test_samples_are_cut_too(pictures):
    test = Opening(tile_size=16).test(str(pictures[1]), str(pictures[1]) + ":all")
    assert test.shape == (3, 16, 16)
