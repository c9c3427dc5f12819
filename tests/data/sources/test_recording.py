"""Recordings of all widths, channels and kinds of file; soundfile writes and reads them independently."""

from __future__ import annotations

import io
import sys
import tracemalloc
import wave

import numpy as np
import pytest
import soundfile

from hpcule.config.errors import DataError, UsageError
from hpcule.data.source import Recording
from hpcule.data.sources.layout import UnreadableError
from hpcule.data.sources.recording import encode, opened, perturbed_recording, plain, working

KINDS = [(format, bits, channels) for format in ("wav", "flac") for bits in (8, 16, 24) for channels in (1, 2, 5)]
SUBTYPES = {("wav", 8): "PCM_U8", ("flac", 8): "PCM_S8"}


def noise(bits, channels, length=40, seed=0):
    """int32 [channels, t], aligned left, with both ends of the grid."""
    top = 1 << (bits - 1)
    values = np.random.default_rng(seed).integers(-top, top, (channels, length))
    values[:, :2] = -top, top - 1
    return (values << (32 - bits)).astype(np.int32)


def write(path, samples, format, bits, rate=11025):
    subtype = SUBTYPES.get((format, bits), f"PCM_{bits}")
    soundfile.write(path, samples.T, rate, format=format.upper(), subtype=subtype)


def read(path):
    with opened(path) as (head, samples):
        return Recording(samples(), head.bits, head.rate, head.format)


@pytest.mark.parametrize(("format", "bits", "channels"), KINDS)
def test_a_file_comes_back_bit_for_bit(tmp_path, format, bits, channels):
    path, samples = tmp_path / f"one.{format}", noise(bits, channels)
    write(path, samples, format, bits)
    recording = read(path)
    assert (recording.format, recording.bits, recording.rate) == (format, bits, 11025)
    np.testing.assert_array_equal(recording.samples, samples)
    copy = io.BytesIO(encode(recording))
    info = soundfile.info(copy)
    assert (info.format, info.subtype) == (format.upper(), SUBTYPES.get((format, bits), f"PCM_{bits}"))
    copy.seek(0)
    again, rate = soundfile.read(copy, dtype="int32", always_2d=True)
    assert rate == 11025
    np.testing.assert_array_equal(again.T, samples)


def test_an_extended_header_is_read_too(tmp_path):
    samples = noise(24, 2)
    soundfile.write(tmp_path / "one.wav", samples.T, 8000, format="WAVEX", subtype="PCM_24")
    recording = read(tmp_path / "one.wav")
    assert (recording.format, recording.bits) == ("wav", 24)
    np.testing.assert_array_equal(recording.samples, samples)


def test_floating_point_in_an_extended_header_is_refused(tmp_path):
    soundfile.write(tmp_path / "one.wav", np.zeros((5, 2)), 8000, format="WAVEX", subtype="FLOAT")
    with pytest.raises(DataError, match=r"one.wav (is no plain PCM|has 32 bits)"):
        read(tmp_path / "one.wav")


def test_tags_are_left_behind(tmp_path):
    for format in ("wav", "flac"):
        with soundfile.SoundFile(tmp_path / f"one.{format}", "w", 8000, 1, subtype="PCM_16") as file:
            file.artist = "Jane Doe"
            file.write(np.zeros(9, np.int16))
        assert b"Jane Doe" in (tmp_path / f"one.{format}").read_bytes()
        assert b"Jane" not in encode(read(tmp_path / f"one.{format}"))


def test_working_samples_are_the_rounded_mean_of_the_channels():
    samples = np.array([[0, 100, -32768, 32767, 5], [3, 101, -32768, 32767, -6]]) << 16
    expected = [2, 100, -32768, 32767, 0]  # halves go to the even neighbour
    seen = working(Recording(samples.astype(np.int32), 16, 8000, "wav"))
    assert (seen.astype(int) - 32768).tolist() == expected
    fine = np.array([[0x7FFFFF, -0x800000, 0x000180, 0x00017F]]) << 8
    assert working(Recording(fine.astype(np.int32), 24, 8000, "wav")).tolist() == [65535, 0, 32770, 32769]


def test_plain_and_working_are_inverse():
    signal = np.array([0, 1, 32768, 65535], np.uint16)
    assert working(plain(signal, 8000)).tolist() == signal.tolist()


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("epsilon", [100, 700, 65535])
def test_a_perturbation_moves_every_channel_within_budget_and_grid(bits, epsilon):
    samples, step = noise(bits, 2, 400), 1 << (32 - bits)
    delta = np.random.default_rng(1).integers(-min(epsilon, 4000), min(epsilon, 4000) + 1, 400)
    clean = Recording(samples, bits, 8000, "flac")
    published = perturbed_recording(clean, delta, epsilon)
    top = 1 << (bits - 1)
    for channel in range(2):
        for t in range(400):
            wanted = round(int(delta[t]) * 65536 / step)
            bound = int(epsilon * 65536 / step)
            value = int(samples[channel, t]) // step + max(-bound, min(bound, wanted))
            assert int(published.samples[channel, t]) == max(-top, min(top - 1, value)) * step
    change = published.samples.astype(np.int64) - samples
    assert np.abs(change).max() <= epsilon * 65536
    assert (change != 0).any() == (bits > 8 or epsilon >= 256)


def test_python_itself_reads_what_is_written():
    with wave.open(io.BytesIO(encode(Recording(noise(24, 2), 24, 8000, "wav")))) as file:
        assert file.getparams()[:4] == (2, 3, 8000, 40)


def test_without_soundfile_plain_wav_is_read_and_flac_says_what_is_missing(tmp_path, monkeypatch):
    samples = noise(16, 2)
    for format in ("wav", "flac"):
        write(tmp_path / f"one.{format}", samples, format, 16)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    np.testing.assert_array_equal(read(tmp_path / "one.wav").samples, samples)
    with pytest.raises(UsageError, match=r'need soundfile: pip install "hpcule\[audio\]"'):
        read(tmp_path / "one.flac")


@pytest.mark.parametrize("promised", [10**7, 2**36 - 1])
def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path, promised):
    path = tmp_path / "one.flac"
    write(path, noise(16, 1, 5000), "flac", 16)
    data = bytearray(path.read_bytes())
    # The number of samples: 36 bits that end with byte 25.
    data[21:26] = ((data[21] >> 4 << 36) + promised).to_bytes(5, "big")
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UnreadableError, match=r"one.flac cannot be decoded \("):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(("bits", "valid"), [(16, 12), (16, 16), (24, 20), (8, 6)])
def test_bits_that_do_not_count_are_cleared(tmp_path, extended, bits, valid):
    """A format of 12 bits stores them in 16; the lowest four are 0, or a text."""
    width, samples = bits // 8, noise(bits, 1)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, width, 8000, 0, "NONE", ""))
        stored = samples[0].astype("<i4").view(np.uint8).reshape(-1, 4)[:, 4 - width :]
        out.writeframes((stored ^ 0x80 if width == 1 else stored).tobytes())
    data = file.getvalue()
    if extended:
        guid = bytes.fromhex("0100000000001000800000aa00389b71")
        head = b"\xfe\xff" + data[22:36] + (22).to_bytes(2, "little") + valid.to_bytes(2, "little") + bytes(4) + guid
        data = data[:16] + len(head).to_bytes(4, "little") + head + data[36:]
        data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    else:
        data = data[:34] + valid.to_bytes(2, "little") + data[36:]
    (tmp_path / "x.wav").write_bytes(data)
    found = read(tmp_path / "x.wav").samples
    assert np.array_equal(found, samples >> (32 - valid) << (32 - valid))
    assert np.array_equal(found, samples) is (bits == valid)
