"""HDF5 files that keep the HDF5 library busy without end, or crash it, are refused in one line."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from hpcule.data.sources import hdf5_isolated
from hpcule.data.sources.hdf5_chunks import DecodedChunks
from hpcule.data.sources.hdf5_isolated import require_harmless

NAMES = ("images", "labels")
NOISE = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
READ = """
import sys
import numpy as np
from hpcule.config.errors import HpculeError
from hpcule.data.opening import Opening
try:
    source = Opening().source(sys.argv[1])
    source.read(np.arange(len(source)))
except HpculeError as error:
    print(error)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.h5"


def refusal(path):
    """What a process that may hang or crash says of a file."""
    read = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, timeout=300)
    assert read.returncode == 0, (read.returncode, read.stderr)
    assert read.stdout.count("\n") == 1
    return read.stdout


def write_chunk(path, stored, mask=0, shape=(1, 4096, 4096), **options):
    """One chunk of an array, of whatever bytes; the bits of the mask leave filters out."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", shape, np.uint8, chunks=shape, **options)
        images.id.write_direct_chunk((0, 0, 0), stored, mask)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), [(0, 0), (1, (1 << 64) - 16)])
def test_a_text_without_end(path, number, size):
    """Texts lie in a heap, whose next object is where this one's size says: here it is this one again."""
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.zeros((3, 4, 4), np.uint8)).attrs["layout"] = "NHW"
    content = bytearray(path.read_bytes())
    first = content.index(b"GCOL") + 16
    content[first : first + 16] = struct.pack("<HHIQ", number, 0, 0, size)
    path.write_bytes(content)
    assert "reading it keeps the HDF5 library busy for more than 3 s" in refusal(path)


@pytest.mark.parametrize(
    ("stored", "mask", "options", "message"),
    [
        (NOISE, 0, {}, "20000 bytes"),
        (NOISE, 1, {"compression": "gzip"}, "20000 bytes"),
        (b"ab", 1, {"compression": "gzip", "fletcher32": True}, "2 bytes"),
        (b"ab", 0, {"compression": "gzip", "fletcher32": True}, "2 bytes"),
        (NOISE, 1, {"compression": "lzf"}, "20000 bytes"),
    ],
)
def test_chunks_that_are_too_short(path, stored, mask, options, message):
    """HDF5 would copy what lies behind them in memory."""
    write_chunk(path, stored, mask, **options)
    with pytest.raises(OSError, match=rf"damaged chunks: chunk \(0, 0, 0\) has {message}"):
        require_harmless(path, NAMES)


def test_a_crash_ends_another_process(path):
    write_chunk(path, zlib.compress(NOISE), compression="gzip")
    assert "set.h5 is not a whole HDF5 file (reading it crashes the HDF5 library with SIG" in refusal(path)


@pytest.mark.parametrize("length", [20_000, 20_001, 19_999])
def test_a_chunk_is_as_long_as_it_should_be(path, length):
    write_chunk(path, zlib.compress((NOISE * 2)[:length]), shape=(1, 100, 200), compression="gzip")
    with h5py.File(path) as file:
        chunks = DecodedChunks(file["images"])
        if length == 20_000:
            chunks.require_all()
        else:
            with pytest.raises(ValueError, match="does not decode to 20000 bytes"):
                chunks.require_all()


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"compression": "lzf"}, {"compression": "szip"}, {}])
@pytest.mark.parametrize("more", [{}, {"shuffle": True, "fletcher32": True}])
def test_whatever_hdf5_writes_is_harmless(path, make_images, filters, more):
    """Chunks at the edges, too, and one that compression makes no smaller."""
    images = make_images(50, 9, 7)
    images[:20] = 0
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(8, 5, 4), **filters, **more)
    require_harmless(path, NAMES)
    with h5py.File(path) as file:
        DecodedChunks(file["images"]).require_all()


def test_a_checksum_inside_the_compression(path):
    """As PyTables writes it."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((2, 4, 4))
    properties.set_fletcher32()
    properties.set_deflate(3)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((4, 4, 4))
        h5py.Dataset(h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, properties))[...] = 1
    require_harmless(path, NAMES)
    with h5py.File(path) as file:
        DecodedChunks(file["images"]).require_all()


def test_numbers_that_numpy_does_not_have(path):
    """They are the reader's to refuse: nothing is harmful in them."""
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.IEEE_F64LE.copy()
        kind.set_fields(63, 40, 23, 0, 40)  # 23 bits of exponent
        h5py.h5d.create(file.id, b"images", kind, h5py.h5s.create_simple((3, 4, 4)))
    require_harmless(path, NAMES)


def test_one_process_tries_all_files_and_another_takes_its_place(tmp_path, make_images):
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    for path in paths:
        with h5py.File(path, "w") as file:
            file["images"] = make_images(3, 4, 4)
    require_harmless(paths[0], NAMES)
    process = hdf5_isolated._trial._process
    require_harmless(paths[1], NAMES)
    assert hdf5_isolated._trial._process is process
    os.kill(process.pid, signal.SIGKILL)
    require_harmless(paths[2], NAMES)
    assert hdf5_isolated._trial._process.pid != process.pid


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(OSError, match="not a regular file"):
        require_harmless(tmp_path / "pipe.h5", NAMES)
