"""Copies on their way: who may read them, and what a process that is killed leaves."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcule.config.errors import StoreError
from hpcule.publish.copy import check_out, write_copy

FORMATS = ["npz", "hdf5", "folder", "webdataset"]


class Watcher:
    """Publishes samples as they are, and looks at what has been written by then."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.seen: list[Path] = []

    def publish(self, ids, clean):
        for path in self.root.rglob("*"):
            if path.is_file():
                self.seen.append(path)
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
                assert not h5py.is_hdf5(path), "half an HDF5 file looks like a whole one"
                assert not zipfile.is_zipfile(path), "half an archive looks like a whole one"
        folders = [path for path in self.root.iterdir() if path.is_dir()]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in folders)
        return clean

    def publish_native(self, sample, clean):
        return clean

    def publish_recording(self, sample, clean):
        return clean

    def bound(self, native):
        return 0

    def confirm(self):
        assert self.seen


@pytest.fixture
def _open_mask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_open_mask")
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("format", FORMATS)
def test_who_may_read_a_copy(make_source, tmp_path, monkeypatch, format, named, private):
    monkeypatch.setattr("hpcule.store.fingerprint._BLOCK_BYTES", 1000)
    source, watcher = make_source(40, split="all"), Watcher(tmp_path)
    ending = {"npz": ".npz", "hdf5": ".h5"}.get(format, "") if named else ""
    out = tmp_path / f"copy{ending}"
    kind = check_out(out, format, source, {})
    written, _ = write_copy(out, kind, source, {}, watcher, "toys", native=False, private=private)
    assert watcher.seen
    assert list(tmp_path.iterdir()) == [out]
    paths = [out, *out.rglob("*")]
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}
    expected = {True: 0o700, False: 0o600} if private else {True: 0o755, False: 0o644}
    assert modes <= set(expected.items())
    assert written == sum(path.stat().st_size for path in paths if path.is_file())
    if format == "hdf5":
        with h5py.File(out if named else out / "toys.h5", "r") as file:
            np.testing.assert_array_equal(file["images"][()], source.samples.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("kind", ["link to a folder", "link to nothing", "pipe"])
@pytest.mark.parametrize("name", ["copy", "copy.npz"])
def test_a_copy_takes_nobodys_place(make_source, tmp_path, name, kind):
    out, target = tmp_path / name, tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(out)
    else:
        if kind == "link to a folder":
            target.mkdir()
        out.symlink_to(target)
    with pytest.raises(StoreError, match=r"is a link|is not empty"):
        check_out(out, "npz", make_source(), {})
