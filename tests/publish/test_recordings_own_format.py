"""Recordings of several channels and widths are published as their files were, and victims see what is published."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import soundfile

from hpcule.data.opening import Opening
from hpcule.publish.carry import publishing
from hpcule.publish.export import export
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

FILES = {
    "a/0.wav": ("PCM_U8", 1),
    "a/1.wav": ("PCM_16", 1),
    "a/2.wav": ("PCM_24", 2),
    "b/3.flac": ("PCM_16", 1),
    "b/4.flac": ("PCM_24", 2),
    "b/5.flac": ("PCM_S8", 3),
}
STEPS = {"PCM_U8": 256, "PCM_S8": 256, "PCM_16": 1, "PCM_24": 1 / 256}
"""Levels of 16 bits a step of the file's grid."""


@pytest.fixture
def mixed(tmp_path):
    rng = np.random.default_rng(0)
    for number, (name, (subtype, channels)) in enumerate(FILES.items()):
        path = tmp_path / "clean" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.9, 0.9, (60 + number, channels)), 16000, subtype=subtype)
    return Opening().source(str(tmp_path / "clean"))


def levels(file):
    """float64 [t, channels] in levels of 16 bits."""
    samples, rate = soundfile.read(file, dtype="int32", always_2d=True)
    assert rate == 16000
    return samples / 65536


def hpcule(*words):
    line = [sys.executable, "-m", "hpcule", *map(str, words)]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("epsilon", [700.0, 65535.0])
def test_rate_width_channels_and_format_are_kept(mixed, make_store, tmp_path, epsilon):
    store, _, delta, _ = make_store(mixed, epsilon=epsilon, shards=2)
    export(Vault(store), mixed, tmp_path / "copy")
    for sample, (name, (subtype, channels)) in enumerate(FILES.items()):
        info = soundfile.info(tmp_path / "copy" / name)
        assert (info.subtype, info.channels, info.samplerate) == (subtype, channels, 16000)
        before, after = levels(tmp_path / "clean" / name), levels(tmp_path / "copy" / name)
        assert before.shape == after.shape == (60 + sample, channels)
        change, wanted = after - before, delta[sample, 0, 0, : len(before), None]
        assert np.abs(change).max() <= epsilon
        inside = (np.abs(before) < 30000) & (np.abs(before + wanted) < 30000)
        allowed = np.abs(wanted) <= epsilon // STEPS[subtype] * STEPS[subtype]
        assert np.abs(change - wanted)[inside & allowed].max() <= STEPS[subtype] / 2
        assert (change != 0).any()


def test_victims_see_what_is_published(mixed, make_store, tmp_path):
    store, *_ = make_store(mixed, epsilon=65535.0, shards=2)
    export(Vault(store), mixed, tmp_path / "copy")
    copy, ids = Opening().source(str(tmp_path / "copy")), np.arange(len(mixed))
    with StoreReader(Vault(store)) as reader:
        seen = publishing(reader, mixed)(ids, mixed.read(ids))
    np.testing.assert_array_equal(seen, copy.read(ids))
    assert (seen != mixed.read(ids)).any(axis=(1, 2, 3)).all()


def test_clipped_recordings_are_published_as_long_as_they_are_seen(mixed, make_store, tmp_path):
    source = Opening(clip_length=50).source(str(tmp_path / "clean"))
    store, *_ = make_store(source, epsilon=700.0, shards=2)
    export(Vault(store), source, tmp_path / "copy")
    assert {soundfile.info(tmp_path / "copy" / name).frames for name in FILES} == {50}


def test_tar_shards_hold_the_same_files(mixed, make_store, tmp_path):
    store, *_ = make_store(mixed, epsilon=700.0, shards=2)
    for format in ("wav", "webdataset"):
        export(Vault(store), mixed, tmp_path / format, format=format)
    with tarfile.open(tmp_path / "webdataset" / "000000.tar") as archive:
        for sample, name in enumerate(FILES):
            data = archive.extractfile(f"{sample:06d}{PurePosixPath(name).suffix}").read()
            assert data == (tmp_path / "wav" / name).read_bytes()


def test_other_splits_are_copied_bit_for_bit(mixed, make_store, tmp_path):
    store, *_ = make_store(mixed, epsilon=700.0, shards=2)
    export(Vault(store), mixed, tmp_path / "copy", other_splits={"test": Opening().source(str(tmp_path / "clean"))})
    for name in FILES:
        np.testing.assert_array_equal(levels(tmp_path / "copy" / "test" / name), levels(tmp_path / "clean" / name))


@pytest.mark.slow
def test_real_recordings_as_24_bit_stereo_flac(real_data, tmp_path):
    for path in sorted(real_data("fsdd/recordings").glob("*_jackson_[0-5].wav")):
        signal, rate = soundfile.read(path, dtype="int32")
        stereo = np.stack([signal, signal // 2], axis=1)
        (tmp_path / "clean").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "clean" / f"{path.stem}.flac", stereo, rate, subtype="PCM_24")
    hpcule("craft", "poscuda", "--data", tmp_path / "clean", "--out", tmp_path / "store", "--set", "seed=0")
    hpcule("verify", tmp_path / "store", "--data", tmp_path / "clean")
    hpcule("export", tmp_path / "store", "--data", tmp_path / "clean", "--out", tmp_path / "copy")
    protected = sorted((tmp_path / "copy" / "train").rglob("*.flac"))
    assert len(protected) == 10
    for path in protected:
        before, rate = soundfile.read(tmp_path / "clean" / path.name, dtype="int32")
        after, again = soundfile.read(path, dtype="int32")
        assert (rate, before.shape, soundfile.info(path).subtype) == (again, after.shape, "PCM_24")
        change = (after - before) // 256
        assert 0 < np.count_nonzero(change[:, 0]) <= 200
        np.testing.assert_array_equal(change[:, 0] % 256, 0)  # whole levels of 16 bits
        np.testing.assert_array_equal(change[:, 0], change[:, 1])
        assert len(path.read_bytes()) < 3 * 2 * len(before)
