"""Recordings as they are published: bit exact, at their own length, and nothing else in the files."""

import wave

import numpy as np
import pytest

from hpcule.config.errors import UsageError
from hpcule.data.opening import Opening
from hpcule.publish.export import export
from hpcule.store.vault import Vault

LENGTHS = [30, 12, 1, 25, 30, 7]


@pytest.fixture
def recordings(tmp_path):
    """Six recordings of three classes, one file with notes and a name in its metadata, and its source."""
    rng = np.random.default_rng(0)
    for number, length in enumerate(LENGTHS):
        path = tmp_path / "clean" / f"class{number % 3}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 11025, 0, "NONE", ""))
            file.writeframes(rng.integers(-(2**15), 2**15, length).astype("<i2").tobytes())
        path.write_bytes(path.read_bytes() + b"LIST\x0a\x00\x00\x00Jane Doe\x00\x00")
    return Opening().source(str(tmp_path / "clean"))


@pytest.fixture
def store(recordings, make_store):
    """Any delta within a recording's own samples, none behind its end."""
    path, _, delta, _ = make_store(recordings, epsilon=65535.0)
    return path, delta


def read(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 11025)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_protected_recordings_are_written_bit_exact_and_at_their_own_length(recordings, store, tmp_path):
    path, delta = store
    summary = export(Vault(path), recordings, tmp_path / "out")
    assert (summary.format, summary.protected) == ("wav", 6)
    clean = recordings.read(np.arange(6)).astype(np.int64) - 32768
    for sample in range(6):
        name = recordings.file_name(sample)
        length = int(recordings.lengths(np.array([sample]))[0])
        published = read(tmp_path / "out" / name)
        np.testing.assert_array_equal(published, (clean + delta)[sample, 0, 0, :length])
        assert (tmp_path / "out" / name).stat().st_size == 44 + 2 * length  # a header, the samples, nothing else
    assert (np.abs(delta).max(axis=(1, 2, 3)) > 0).all()
    again = Opening().source(str(tmp_path / "out"))
    np.testing.assert_array_equal(again.read(np.arange(6)), clean + delta + 32768)
    np.testing.assert_array_equal(again.labels, recordings.labels)


def test_other_splits_are_copied_unchanged(recordings, store, tmp_path):
    other = Opening().source(str(tmp_path / "clean"))
    other.split = "test"
    export(Vault(store[0]), recordings, tmp_path / "out", other_splits={"test": other})
    copied = [read(tmp_path / "out" / "test" / other.file_name(sample)) for sample in range(6)]
    originals = [read(tmp_path / "clean" / other.file_name(sample)) for sample in range(6)]
    for copy, original in zip(copied, originals, strict=True):
        np.testing.assert_array_equal(copy, original)


@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_recordings_as_arrays(recordings, store, tmp_path, format):
    path, delta = store
    out = tmp_path / f"out.{'npz' if format == 'npz' else 'h5'}"
    export(Vault(path), recordings, out)
    samples = Opening().source(str(out)).read(np.arange(6))
    np.testing.assert_array_equal(samples, recordings.read(np.arange(6)).astype(np.int64) + delta)


def test_formats_that_cannot_hold_them(recordings, store, make_source, make_store, tmp_path):
    with pytest.raises(
        UsageError, match="PNG holds images, and these are recordings: choose the format wav or webdataset or npz or"
    ):
        export(Vault(store[0]), recordings, tmp_path / "out", format="folder")
    images = make_source()
    path = make_store(images, name="other")[0]
    with pytest.raises(UsageError, match="WAV files hold recordings, and these are images: choose the format folder"):
        export(Vault(path), images, tmp_path / "out", format="wav")
