"""A collection comes back as it was: same folders, stems and sizes, protected, with a record of every file."""

from __future__ import annotations

import csv
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hpcule.data.opening import Opening
from hpcule.publish.carry import publishing
from hpcule.publish.records import from_cell
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

SIZES = {"x/big one.png": (3000, 2000), "x/small.png": (20, 31)}
GREY, COLOUR = "L", "RGB"

# The folder is crafted and published in processes of their own, which takes half a minute.
pytestmark = pytest.mark.slow


def picture(seed, size=(61, 47), mode=COLOUR):
    """Smooth colours, as photographs have them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 6, 4), dtype=np.uint8), "RGBA")
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def hpcule(*words):
    line = [sys.executable, "-m", "hpcule", *map(str, words)]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder of two classes with all that people put into folders."""
    root = tmp_path_factory.mktemp("mixed") / "pictures"
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "x/photo.jpg": (COLOUR, {"quality": 95}),
        "x/photo.png": (COLOUR, {}),
        "x/SCAN.JPEG": (COLOUR, {}),
        "x/big one.png": (COLOUR, {}),
        "x/small.png": (COLOUR, {}),
        "x/two\nlines.png": (COLOUR, {}),
        "y/turned.jpg": (COLOUR, {"exif": exif}),
        "y/grey.png": (GREY, {}),
        "y/clear.png": ("RGBA", {}),
        "y/clear.webp": ("RGBA", {"lossless": True, "exact": True}),
        "y/palette.png": ("P", {}),
        "y/Old.TIF": (COLOUR, {}),
        "y/plain.bmp": (COLOUR, {}),
    }
    for seed, (name, (mode, options)) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed, SIZES.get(name, (61, 47)), mode).save(path, **options)
    (root / "y" / "broken.png").write_bytes((root / "y" / "grey.png").read_bytes()[:60])
    return root


@pytest.fixture(scope="module")
def published(mixed, tmp_path_factory):
    """The folder, protected with 8 levels at 32 pixels and published: (copy, records by file)."""
    folder = tmp_path_factory.mktemp("published")
    settings = ["--set", "image_size=32", "--set", "skip_unreadable=true", "--set", "method.epsilon=8"]
    hpcule("craft", "classwise", "--data", mixed, "--out", folder / "store", *settings)
    out = hpcule("export", folder / "store", "--data", mixed, "--out", folder / "copy")
    assert "Wrote 13 protected samples" in out
    record = folder / "store" / "run" / "export.csv"
    assert str(record) in out
    assert record.stat().st_mode & 0o777 == 0o600
    return folder / "copy", by_file(record)


def by_file(record):
    rows = csv.DictReader(io.StringIO(record.read_text(), newline=""))
    named = [{**row, **{name: from_cell(row[name]) for name in ("file", "published")}} for row in rows]
    return {row["file"]: row for row in named}


def test_folders_stems_and_sizes_are_the_same(mixed, published):
    copy, records = published
    names = {file: row["published"] for file, row in records.items() if row["published"]}
    changed = {file: name for file, name in names.items() if name != file}
    assert changed == {
        "x/photo.jpg": "x/photo.jpg.png",  # x/photo.png is there
        "x/SCAN.JPEG": "x/SCAN.png",
        "y/turned.jpg": "y/turned.png",
    }
    assert sorted(names.values()) == sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    for file, name in names.items():
        with Image.open(mixed / file) as before, Image.open(copy / name) as after:
            expected = before.size[::-1] if file == "y/turned.jpg" else before.size
            assert after.size == expected, file
            assert after.getexif().get(0x0112, 1) == 1
            assert "exif" not in after.info


def test_all_are_protected_within_the_budget_and_transparency_is_untouched(mixed, published):
    copy, records = published
    for file, row in records.items():
        if not row["published"]:
            continue
        assert row["protected"] == "yes"
        with Image.open(mixed / file) as before, Image.open(copy / row["published"]) as after:
            if file == "y/turned.jpg":
                before = before.rotate(-90, expand=True)
            # A palette with transparency is read as RGBA.
            pixels = [np.asarray(image.convert("RGBA").convert("RGB")).astype(int) for image in (before, after)]
            change = pixels[1] - pixels[0]
            assert np.abs(change).max() == int(row["largest_change"]) <= 8, file
            grey = file == "y/grey.png"
            assert (change == change[..., :1]).all() == grey, file
            assert np.abs(change).mean() > (2 if grey else 3), file
            if "clear" in file:
                assert after.mode == "RGBA"
                assert np.array_equal(np.asarray(after)[..., 3], np.asarray(before)[..., 3])
        assert 29 < float(row["psnr_db"]) < 40


def test_the_record_says_what_else_changed(published):
    _, records = published
    assert records["y/broken.png"]["protected"] == "no"
    assert records["y/broken.png"]["note"].startswith("cannot be decoded: left out (")
    assert records["y/turned.jpg"]["note"] == "turned as EXIF says, written as PNG"
    assert records["y/grey.png"]["note"] == "grey became RGB"
    assert records["y/palette.png"]["note"] == "P became RGB"
    assert records["x/photo.jpg"]["note"] == "written as PNG"
    assert (records["x/big one.png"]["width"], records["x/big one.png"]["height"]) == ("3000", "2000")
    assert records["x/two\nlines.png"]["note"] == ""


def test_victims_see_what_is_published(mixed, published):
    copy, records = published
    source = Opening(image_size=32, skip_unreadable=True).source(str(mixed))
    copied = Opening(image_size=32).source(str(copy))
    numbers = {copied.file_name(sample): sample for sample in range(len(copied))}
    ids = np.arange(len(source))
    with StoreReader(Vault(copy.parent / "store")) as store:
        seen = publishing(store, source)(ids, source.read(ids))
    order = np.array([numbers[records[source.file_name(sample)]["published"]] for sample in ids])
    assert np.array_equal(seen, copied.read(order))
    assert np.array_equal(source.labels, copied.labels[order])
    assert (seen != source.read(ids)).any((1, 2, 3)).all()


def test_jpeg_files_may_stay_jpeg_at_a_price(mixed, published, run, tmp_path):
    store = published[0].parent / "store"
    record = store / "run" / "export.csv"
    before = record.read_bytes()
    code, out, err = run("export", store, "--data", mixed, "--out", tmp_path / "copy", "--jpeg-quality", 90)
    rows = by_file(record)
    record.write_bytes(before)
    assert code == 0, err
    assert "JPEG at quality 90 leaves " in out
    assert " in 3 files" in out
    assert "recipes=[plain,jpeg-90]" in out
    encoded = {"x/photo.jpg", "x/SCAN.JPEG", "y/turned.jpg"}
    for file, row in rows.items():
        if not row["published"]:
            continue
        assert row["published"] == file
        assert (file in encoded) == bool(row["jpeg_share"]) == ("JPEG at quality 90" in row["note"])
        with Image.open(tmp_path / "copy" / file) as after:
            assert (after.format == "JPEG") == (file in encoded)
            assert after.format != "JPEG" or not after.getexif()
            if file == "x/photo.jpg":
                with Image.open(mixed / file) as clean:
                    change = np.asarray(after).astype(int) - np.asarray(clean).astype(int)
                assert np.abs(change).max() == int(row["largest_change"]) > 8
    code, _, err = run("export", store, "--data", mixed, "--out", tmp_path / "two", "--jpeg-quality", 101)
    assert (code, err.count("\n")) == (2, 1)
    words = ["--format", "npz", "--jpeg-quality", 90]
    code, _, err = run("export", store, "--data", mixed, "--out", tmp_path / "two", *words)
    assert code == 2
    assert "come back as files of their own sizes" in err
