import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.npz import open_npz


def test_stored_member_is_mapped_where_it_lies(tmp_path, make_images):
    images = make_images(9, 4, 4, 3)
    np.savez(tmp_path / "set.npz", images=images)
    source = open_npz(tmp_path / "set.npz", "all")
    assert isinstance(source.images, np.memmap)
    assert source.images.filename == tmp_path / "set.npz"
    assert (source.labels, source.class_names, source.class_count) == (None, None, 0)


def test_deflated_member_is_mapped_from_a_file_without_a_name(tmp_path, make_images):
    np.savez_compressed(tmp_path / "set.npz", images=make_images(9, 4, 4, 3))
    source = open_npz(tmp_path / "set.npz", "all")
    assert isinstance(source.images, np.memmap)
    assert source.images.filename is None


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from hpcule.data.sources.npz import open_npz
def own_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before = own_kib()
source = open_npz(Path(sys.argv[1]), "all")
samples = source.read(np.arange(0, 64, 16))
print(own_kib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell own memory from mapped files")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_opening_does_not_load(tmp_path, save):
    save(tmp_path / "set.npz", images=np.zeros((64, 1 << 10, 1 << 10), np.uint8))  # 64 MiB
    command = [sys.executable, "-c", MEASURE, tmp_path / "set.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 3 << 10 < int(result.stdout) < 16 << 10  # the four samples that were read, and small things


UNPACK = """
import resource, sys
from pathlib import Path
from hpcule.config.errors import DataError
from hpcule.data.sources.npz import open_npz
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    open_npz(Path(sys.argv[1]), "all")
except DataError as error:
    print(error)
"""


def test_temporary_folder_is_full(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", images=np.zeros((5, 1 << 10, 1 << 10), np.uint8))
    command = [sys.executable, "-c", UNPACK, tmp_path / "set.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "set.npz: images: cannot unpack it into" in result.stdout
    assert "set TMPDIR" in result.stdout


def test_archive_behind_other_bytes(tmp_path, make_images):
    images = make_images(9, 4, 4)
    np.savez(tmp_path / "set.npz", images=images)
    (tmp_path / "set.npz").write_bytes(b"#!/bin/sh\n" + (tmp_path / "set.npz").read_bytes())
    assert np.array_equal(open_npz(tmp_path / "set.npz", "all").read(np.arange(9))[:, 0], images)


def refused(path, **arrays):
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        Opening().source(str(path))
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_pickled_objects_are_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trapped"),))

    objects = np.array([Trap()], dtype=object)
    assert "contains pickled objects" in refused(tmp_path / "x.npz", images=objects, labels=np.zeros(1))
    labels = np.array([Trap()], dtype=object)
    assert "labels contains pickled objects" in refused(
        tmp_path / "y.npz", images=np.zeros((1, 4, 4), np.uint8), labels=labels
    )
    assert not (tmp_path / "trapped").exists()


def test_float_images(tmp_path):
    images = np.zeros((9, 4, 4), np.float32)
    message = refused(tmp_path / "x.npz", images=images)
    assert "float32" in message
    assert "NaN" not in message
    assert "uint8" in message
    images[6, 1, 1] = np.nan
    assert "sample 6 holds NaN" in refused(tmp_path / "x.npz", images=images)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint32, bool, "U3", np.complex64])
def test_images_of_other_numbers(tmp_path, dtype):
    assert "convert to uint8 or uint16" in refused(tmp_path / "x.npz", images=np.zeros((2, 4, 4), dtype))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 4), r"shape [4, 4]; valid is [n, H, W] or [n, H, W, C]"),
        ((2, 3, 4, 4, 3), "valid is [n, H, W]"),
        ((), "shape []"),
        ((2, 3, 8, 8), "8 channels"),
        ((2, 8, 8, 4), "4 channels"),
        ((0, 8, 8), "no samples"),
        ((2, 0, 8), "empty"),
    ],
)
def test_images_of_other_shapes(tmp_path, shape, message):
    assert message in refused(tmp_path / "x.npz", images=np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(5, int), "labels that do not match: 5 labels for 3 images"),
        (np.full((3, 14), 3), "label 0 of sample 0 is 3; valid are 0, 1"),
        (np.zeros((3, 1, 1), int), "shape [3, 1, 1]"),
        (np.array([0.0, np.nan, 1.0]), "sample 1 is NaN"),
        (np.array([0.0, 1.0, 0.5]), "sample 2 is 0.5, no whole number"),
        (np.array([0.0, np.inf, 0.5]), "sample 1 is inf, no whole number"),
        (np.array([0, -1, 0]), "sample 1 is negative"),
        (np.array([0, 1, 1_000_000]), "label 1000000 of sample 2 is too large"),
        (np.array([0, 1, 2**64 - 1], np.uint64), "label 18446744073709551615 of sample 2 is too large"),
        (np.array(["cat", "dog", "cat"]), "labels are <U3; number the classes"),
    ],
)
def test_bad_labels(tmp_path, labels, message):
    assert message in refused(tmp_path / "x.npz", images=np.zeros((3, 4, 4), np.uint8), labels=labels)


@pytest.mark.parametrize("labels", [np.array([0.0, 2.0, 1.0]), np.array([[0], [2], [1]], np.uint8)])
def test_whole_numbers_of_any_type_are_labels(tmp_path, labels):
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 4, 4), np.uint8), labels=labels)
    source = Opening().source(str(tmp_path / "x.npz"))
    assert source.labels.tolist() == [0, 2, 1]
    assert source.class_names == ("0", "1", "2")


def test_members_of_other_names(tmp_path):
    assert "holds x, y; valid are images and labels" in refused(tmp_path / "x.npz", x=np.zeros(3), y=np.zeros(3))


def test_no_zip_file(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"x\.npz is not a whole npz file"):
        Opening().source(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_file(tmp_path, make_images, save):
    save(tmp_path / "x.npz", images=make_images(20, 16, 16))
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"x\.npz is not a whole npz file"):
        Opening().source(str(tmp_path / "x.npz"))


def test_flipped_byte_in_a_deflated_member(tmp_path, make_images):
    np.savez_compressed(tmp_path / "x.npz", images=make_images(20, 16, 16))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz: images is damaged"):
        Opening().source(str(tmp_path / "x.npz"))


def write_member(path, shape, payload, compression):
    """An npz whose header says `shape`, whatever follows it."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", header + payload)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(3, 4, 4), (10**12, 4, 4), (2**62, 2**62, 16), (-2, -1, 16)])
def test_header_that_does_not_fit_the_file(tmp_path, shape, compression):
    write_member(tmp_path / "x.npz", shape, bytes(32), compression)
    with pytest.raises(DataError, match=r"x\.npz: images is (\d+ bytes, its header says|damaged)"):
        Opening().source(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("payload", [b"", b"\x93NUMPY\x09\x00", b"\x93NUMPY\x01\x00\x05\x00{'a'}", b"not numpy"])
def test_member_that_is_no_array(tmp_path, payload):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", payload)
    with pytest.raises(DataError, match=r"x\.npz: images"):
        Opening().source(str(tmp_path / "x.npz"))


def test_an_array_without_its_ending_is_none(tmp_path, make_images):
    np.savez(tmp_path / "good.npz", images=make_images(9, 4, 4, 3))
    with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(tmp_path / "set.npz", "w") as out:
        out.writestr("images", good.read("images.npy"))
    with pytest.raises(DataError, match=r"set\.npz holds nothing; valid are images and labels"):
        Opening().source(str(tmp_path / "set.npz"))
