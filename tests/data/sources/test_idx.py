import gzip
import struct

import numpy as np
import pytest

from hpcule.config.errors import DataError
from hpcule.data.opening import Opening
from hpcule.data.sources.idx import open_idx


def write(folder, header, payload, name="train-images-idx3-ubyte", opened=open):
    with opened(folder / name, "wb") as file:
        file.write(struct.pack(f">4B{len(header) - 4}I", *header) + payload)


def test_plain_files_are_mapped_where_they_lie(tmp_path):
    write(tmp_path, (0, 0, 8, 3, 2, 3, 4), bytes(range(24)))
    source = open_idx(tmp_path, "train")
    assert isinstance(source.images, np.memmap)
    assert source.images.filename == tmp_path / "train-images-idx3-ubyte"
    assert source.read(np.array([1]))[0, 0].tolist() == np.arange(12, 24).reshape(3, 4).tolist()
    assert source.labels is None


def test_only_one_split_is_there(tmp_path):
    write(tmp_path, (0, 0, 8, 3, 2, 3, 4), bytes(24), "t10k-images-idx3-ubyte")
    assert Opening().splits(str(tmp_path)) == ("test",)
    with pytest.raises(DataError, match="no split 'train', only test"):
        Opening().source(str(tmp_path))


@pytest.mark.parametrize("opened", [open, gzip.open])
@pytest.mark.parametrize(
    ("header", "payload", "message"),
    [
        ((0, 0, 8, 3, 3, 3, 4), bytes(24), "its header says"),
        ((0, 0, 8, 3, 1, 3, 4), bytes(24), "its header says"),
        ((0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), bytes(24), "its header says|MiB to unpack"),
        ((0, 0, 8, 3, 0, 3, 4), b"", "no samples"),
        ((0, 0, 13, 3, 2, 3, 4), bytes(96), "begins with 00 00 0d 03; IDX of unsigned bytes"),
        ((0, 0, 8, 1, 24), bytes(24), "begins with 00 00 08 01"),
    ],
)
def test_damaged_files(tmp_path, header, payload, message, opened):
    name = "train-images-idx3-ubyte" + (".gz" if opened is gzip.open else "")
    write(tmp_path, header, payload, name, opened)
    with pytest.raises(DataError, match=f"{name}.*({message})"):
        Opening().source(str(tmp_path))


def test_empty_file(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").touch()
    with pytest.raises(DataError, match="begins with nothing"):
        Opening().source(str(tmp_path))


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_truncated_gz(tmp_path, make_images, keep):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write(tmp_path, (0, 0, 8, 3, 50, 8, 8), make_images(50, 8, 8).tobytes(), path.name, gzip.open)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(DataError, match=r"ubyte\.gz is damaged"):
        Opening().source(str(tmp_path))


def test_no_gz_at_all(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"plain")
    with pytest.raises(DataError, match=r"ubyte\.gz is damaged"):
        Opening().source(str(tmp_path))


def test_labels_that_do_not_match(tmp_path):
    write(tmp_path, (0, 0, 8, 3, 2, 3, 4), bytes(24))
    write(tmp_path, (0, 0, 8, 1, 3), bytes(3), "train-labels-idx1-ubyte")
    with pytest.raises(DataError, match="labels that do not match: 3 labels for 2 images"):
        Opening().source(str(tmp_path))
