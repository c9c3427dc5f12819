"""`hpcule revert`: what the owner gets back, value by value, and what is said of how sure that is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from slowly import slow_but

from hpcule.data.opening import Opening

MIXED = {
    "x/photo.jpg": (61, 47),
    "x/photo.png": (61, 47),
    "x/zebra.bmp": (20, 31),
    "y/Old.TIF": (33, 33),
    "y/a.webp": (90, 70),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Images of several sizes and formats, two of them with one stem, a black and a white corner in each."""
    root = tmp_path_factory.mktemp("mixed") / "pictures"
    for split in ("train", "test"):
        for seed, (name, size) in enumerate(MIXED.items()):
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = np.random.default_rng(seed).integers(40, 216, (5, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
            picture.paste((0, 0, 0), (0, 0, 9, 9))
            picture.paste((255, 255, 255), (11, 0, 20, 9))
            picture.save(path, lossless=True) if name.endswith("webp") else picture.save(path)
    return root


@pytest.fixture(scope="module")
def bordered(mixed, tmp_path_factory):
    """Those that are black or white where they are, and nowhere nearly so, as JPEG is around corners."""
    root = tmp_path_factory.mktemp("bordered") / "pictures"
    shutil.copytree(mixed, root, ignore=shutil.ignore_patterns("*.jpg"))
    return root


@pytest.fixture(scope="module")
def same_size(tmp_path_factory):
    """JPEG and BMP files of one stem, whose order is another one when all are PNG."""
    root = tmp_path_factory.mktemp("same") / "pictures"
    for number, name in enumerate(["x/a.bmp", "x/a.jpg", "x/b.png", "y/a.png", "y/c.jpg"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def many_classes(tmp_path_factory):
    """24 images of 12 classes, whose names sort otherwise than their numbers; many values are black or white."""
    path = tmp_path_factory.mktemp("many") / "many.npz"
    images = np.random.default_rng(0).integers(-30, 286, (24, 16, 16, 3)).clip(0, 255).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(24) % 12)
    return path


def half_grey(count, *shape):
    """Images far from black and white, every second one grey in three channels."""
    images = np.random.default_rng(0).integers(60, 190, (count, *shape, 3), dtype=np.uint8)
    images[::2] = images[::2, ..., :1]
    return images


@pytest.fixture(scope="module")
def grey_npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("grey") / "grey.npz"
    np.savez(path, images=half_grey(12, 16, 16), labels=np.arange(12) % 2)
    return path


@pytest.fixture(scope="module")
def grey_files(tmp_path_factory):
    root = tmp_path_factory.mktemp("grey") / "pictures"
    for number, pixels in enumerate(half_grey(8, 40, 36)):
        path = root / "xy"[number // 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


CASES = {
    # fixture, method, settings, format; whether values are uncertain, and the answer without the originals
    "npz by sample": ("small_npz", "ar", [], "npz", False, True),
    "hdf5 by sample": ("small_npz", "ar", [], "hdf5", False, True),
    "folder by sample": ("small_npz", "ar", [], "folder", False, True),
    "black and white": ("many_classes", "ar", [], "npz", False, True),
    "class names in another order": ("many_classes", "ar", [], "folder", False, True),
    "shared": ("many_classes", "classwise", [], "npz", True, False),
    "stems that collide": ("same_size", "ar", [], "folder", False, True),
    "resized npz": ("small_npz", "classwise", ["--set", "image_size=20"], "folder", True, False),
    "own sizes": ("mixed", "classwise", ["--set", "image_size=32"], "folder", True, False),
    "own sizes, black and white as such": ("bordered", "classwise", ["--set", "image_size=32"], "folder", True, None),
    "own sizes, texture": ("bordered", "texture", ["--set", "image_size=32"], "folder", True, None),
    "own sizes, grey texture": ("grey_files", "texture", ["--set", "image_size=32"], "folder", False, True),
    "own sizes as npz": ("mixed", "ar", ["--set", "image_size=32"], "npz", False, True),
    "grey by sample": ("grey_npz", "ar", [], "npz", False, True),
    "grey, shared": ("grey_npz", "classwise", [], "npz", False, True),
    "own sizes, grey": ("grey_files", "classwise", ["--set", "image_size=32"], "folder", False, True),
    "wav": ("small_wavs", "poscuda", ["--set", "method.region=600"], "wav", False, True),
    "wav as hdf5": ("small_wavs", "poscuda", ["--set", "method.region=600"], "hdf5", False, True),
}


@pytest.fixture
def export(run, tmp_path):
    """Craft and export; returns the store and the copy."""

    def make(data, method, settings, format, *access):
        store, copy = tmp_path / "store", tmp_path / "copy"
        code, _, told = run("craft", method, "--data", data, "--out", store, *settings, *access)
        assert code == 0, told
        code, _, told = run("export", store, "--data", data, "--out", copy, "--format", format, *access)
        assert code == 0, told
        return store, copy

    return make


@pytest.fixture
def revert(run, tmp_path):
    """Revert, and return what is said of it."""

    def back(store, copy, *more, out="back"):
        code, told, err = run("revert", store, "--data", copy, "--out", tmp_path / out, *more, "--json")
        assert code == 0, err
        return json.loads(told)

    return back


@pytest.mark.parametrize("case", slow_but(["npz by sample", "own sizes", "wav"], CASES))
def test_back_from_every_format(request, tmp_path, run, export, revert, case):
    fixture, method, settings, format, uncertain, identical = CASES[case]
    data = request.getfixturevalue(fixture)
    store, copy = export(data, method, settings, format)
    summary = revert(store, copy)
    assert summary["altered"] == []
    assert (summary["missing"], summary["foreign"]) == (0, 0)
    assert (summary["uncertain"] > 0, summary["identical"]) == (uncertain, identical)
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o700
    checked = revert(store, copy, "--originals", data, out="again")
    assert checked["identical"] is (identical is not False)

    size = int(settings[1].split("=")[1]) if "image_size" in str(settings) else None
    native = case.startswith("own sizes") and format == "folder"
    original, published, back = (samples(path, size, native) for path in (data, copy, tmp_path / "back"))
    order = matched(original, published)
    assert len(order) == summary["reverted"] == len(original)
    cut = same = 0
    for number, at in enumerate(order):
        at_an_end = (published[at] == 0) | (published[at] == (65535 if "wav" in case else 255))
        different = back[at] != original[number]
        assert not (different & ~at_an_end).any()
        assert np.array_equal(back[at][different], published[at][different])
        cut += int(different.sum())
        same += int((published[at] == original[number]).all())
    assert same < len(original)
    assert cut <= summary["uncertain"]
    assert (cut > 0) is (identical is False)


def samples(path, size, native):
    """All protected samples [C, H, W] in the order of their files, `native`: each at its own size."""
    files = list(path.iterdir()) if path.is_dir() else []
    whole = files[0] if len(files) == 1 and files[0].suffix in (".npz", ".h5") else path
    source = Opening(image_size=size).source(str(whole))
    if native:
        return [source.native(sample).pixels for sample in range(len(source))]
    return list(source.read(np.arange(len(source))))


def matched(original, published):
    """For each original the published sample that is nearest to it."""
    found = []
    for one in original:
        distances = [
            np.abs(one.astype(int) - other).mean() if one.shape == other.shape else np.inf for other in published
        ]
        found.append(int(np.argmin(distances)))
    assert len(set(found)) == len(found)
    return found


def test_files_that_were_changed_or_are_gone(export, revert, run, small_npz, tmp_path):
    store, copy = export(small_npz, "ar", [], "folder")
    files = sorted((copy / "train").rglob("*.png"))
    pixels = np.array(Image.open(files[0]))
    pixels[0, 0, 0] ^= 128
    Image.fromarray(pixels).save(files[0])
    files[1].unlink()
    names = [str(path.relative_to(copy)) for path in files[:2]]
    summary = revert(store, copy)
    assert (summary["altered"], summary["missing"], summary["identical"]) == (names, 1, None)
    assert revert(store, copy, "--originals", small_npz, out="again")["identical"] is False
    _, told, _ = run("revert", store, "--data", copy, "--out", tmp_path / "told")
    assert f"2 file(s) are not as the export wrote them: {', '.join(names)}" in told
    assert "lacks 1 of the store's samples" in told
    shutil.copy(files[2], files[2].with_name("stranger.png"))
    code, _, err = run("revert", store, "--data", copy, "--out", tmp_path / "third")
    assert code == 1
    assert "stranger.png among them" in err


@pytest.mark.parametrize(
    ("mask", "pattern", "published"),
    [
        ("1_mask.png", "*_mask.*", "1_mask.png"),
        ("1_mask.jpg", "*_mask.jpg", "1_mask.png"),
        ("1.jpg", "*.jpg", "1-2.png"),  # beside the sample 1.png
        ("1[a].jpg", "*.jpg", "1[a].png"),
    ],
)
@pytest.mark.parametrize("size", [[], ["--set", "image_size=16"]])
def test_excluded_files_stay_as_they_are(export, revert, tmp_path, mask, pattern, published, size):
    data = tmp_path / "data"
    for split in ("train", "test"):
        for number, pixels in enumerate(half_grey(4, 24, 24)):
            path = data / split / "xy"[number // 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        numbers = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24) // 100
        Image.fromarray(numbers).save(data / split / "x" / mask)
    store, copy = export(data, "classwise", ["--exclude", pattern, *size], "folder")
    summary = revert(store, copy, "--originals", data)
    assert (summary["reverted"], summary["missing"], summary["identical"]) == (4, 0, True)
    back = tmp_path / "back"
    for split in ("train", "test"):
        names = sorted(str(path.relative_to(back / split)) for path in (back / split).rglob("*.*"))
        assert names == sorted(["x/0.png", "x/1.png", "y/2.png", "y/3.png", f"x/{published}"])
        for name in names:
            before = name if not name.endswith(published) else f"x/{mask}"
            with Image.open(data / split / before) as one, Image.open(back / split / name) as other:
                assert (one.mode, np.asarray(one).tobytes()) == (other.mode, np.asarray(other).tobytes())


def test_a_texture_that_follows_the_contrast_of_originals_is_refused(export, run, bordered, tmp_path):
    store, copy = export(bordered, "texture", ["--set", "image_size=32", "--set", "method.flat=0.5"], "folder")
    code, _, err = run("revert", store, "--data", copy, "--out", tmp_path / "back")
    assert code == 2
    assert "with method.flat=0.5 the perturbation of an image of its own size depends on the original" in err
    assert not (tmp_path / "back").exists()


def test_another_store_takes_nothing_off(export, revert, small_npz, run, tmp_path):
    _, copy = export(small_npz, "ar", [], "npz")
    assert run("craft", "ar", "--data", small_npz, "--out", tmp_path / "other")[0] == 0
    summary = revert(tmp_path / "other", copy)
    assert summary["identical"] is False
    assert summary["altered"] is None
    assert run("craft", "ar", "--data", small_npz, "--out", tmp_path / "smaller", "--set", "image_size=12")[0] == 0
    code, _, err = run("revert", tmp_path / "smaller", "--data", copy, "--out", tmp_path / "third")
    assert code == 1
    assert "was not published from" in err
    assert "samples of shape (3, 16, 16) and 255 levels, not (3, 12, 12) and 255" in err


def test_an_encrypted_store(export, revert, run, small_npz, tmp_path):
    assert run("key", tmp_path / "key")[0] == 0
    store, copy = export(small_npz, "ar", [], "folder", "--key", tmp_path / "key")
    assert run("revert", store, "--data", copy, "--out", tmp_path / "back")[0] == 1
    assert not (tmp_path / "back").exists()
    assert revert(store, copy, "--key", tmp_path / "key")["identical"] is True


def test_without_a_record(export, run, small_npz, tmp_path):
    store, copy = export(small_npz, "ar", [], "folder")
    for path in (store / "run").rglob("*.csv"):
        path.unlink()
    code, _, err = run("revert", store, "--data", copy, "--out", tmp_path / "back")
    assert code == 1
    assert "there is no record of an export as a folder" in err


def test_a_folder_that_is_not_empty(export, run, small_npz, tmp_path):
    store, copy = export(small_npz, "ar", [], "npz")
    code, _, err = run("revert", store, "--data", copy, "--out", copy)
    assert code == 1
    assert "is not empty" in err
