import shutil
import struct
import wave

import numpy as np
import pytest
import soundfile

from hpcule.config.errors import DataError
from hpcule.data.check import check_same_task
from hpcule.data.opening import Opening
from hpcule.data.subset import Subset

_FORMAT = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 8000, 32000, 4, 32)
FLOATS = b"RIFF" + struct.pack("<I", 52) + b"WAVE" + _FORMAT + struct.pack("<4sI4f", b"data", 16, 0, 0, 0, 0)
"""A WAV file of four 32-bit floating-point samples."""


def signal_of(length, seed=0):
    return np.random.default_rng(seed).integers(-(2**15), 2**15, length).astype("<i2")


@pytest.fixture
def put(tmp_path):
    """Write one recording below tmp_path and return its signed samples."""

    def write(relative, length=20, *, rate=8000, channels=1, width=2, signal=None):
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        signal = signal_of(length, seed=sum(map(ord, relative))) if signal is None else np.array(signal, "<i2")
        with wave.open(str(path), "wb") as file:
            file.setparams((channels, width, rate, 0, "NONE", ""))
            file.writeframes(signal.tobytes() * (width if width != 2 else 1) * channels)
        return signal

    return write


def refusal(folder, **options):
    with pytest.raises(DataError) as caught:
        Opening(**options).source(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(source):
    return source.read(np.arange(len(source)))


def test_samples_are_shifted_up_and_padded_with_silence(tmp_path, put):
    extremes = [-32768, -1, 0, 1, 32767]
    put("a/0.wav", signal=extremes)
    long = put("b/0.wav", 9)
    source = Opening().source(str(tmp_path))
    assert (source.kind, source.rate, source.levels, source.shape) == ("wav", 8000, 65535, (1, 1, 9))
    samples = everything(source)
    assert samples.dtype == np.uint16
    assert samples[0, 0, 0].tolist() == [0, 32767, 32768, 32769, 65535, 32768, 32768, 32768, 32768]
    assert (samples[1, 0, 0].astype(int) - 32768 == long).all()
    assert source.lengths(np.array([1, 0])).tolist() == [9, 5]


def test_ids_follow_class_and_file_names_and_all_splits_have_one_length(tmp_path, put):
    for name, length in (("train/b/2.wav", 4), ("train/a/1.wav", 6), ("test/c/0.WAV", 11), ("test/b/1.wav", 3)):
        put(name, length)
    (tmp_path / "train" / "a" / "notes.txt").touch()
    assert Opening().splits(str(tmp_path)) == ("train", "test")
    train, test = Opening().source(str(tmp_path)), Opening().test(str(tmp_path), None)
    assert [train.file_name(sample) for sample in range(2)] == ["a/1.wav", "b/2.wav"]
    assert (train.class_names, train.labels.tolist(), test.labels.tolist()) == (("a", "b", "c"), [0, 1], [1, 2])
    assert train.shape == test.shape == (1, 1, 11)
    check_same_task(train, test)


def test_clip_length_pads_and_cuts(tmp_path, put):
    long, short = put("a/long.wav", 30), put("a/short.wav", 5)
    source = Opening(clip_length=8).source(str(tmp_path))
    assert source.shape == (1, 1, 8)
    assert source.lengths(np.arange(2)).tolist() == [8, 5]
    samples = everything(source)[:, 0, 0].astype(int) - 32768
    assert (samples[0] == long[:8]).all()
    assert (samples[1] == [*short, 0, 0, 0]).all()


def test_files_alone_have_no_labels(tmp_path, put):
    put("1.wav")
    source = Opening().source(str(tmp_path))
    assert source.labels is source.class_names is None
    assert source.file_name(0) == "1.wav"


@pytest.mark.parametrize("inner", ["", "recordings/"])
def test_fsdd_has_labels_and_splits_in_its_names(tmp_path, put, inner):
    names = ["7_ann_0.wav", "7_ann_4.wav", "7_ann_5.wav", "7_ann_49.wav", "0_bob_12.wav", "0_bob_3.wav"]
    for number, name in enumerate(names):
        put(inner + name, 10 + number)
    assert Opening().splits(str(tmp_path)) == ("train", "test")
    train, test = Opening().source(str(tmp_path)), Opening().test(str(tmp_path), None)
    assert [train.file_name(s) for s in range(3)] == ["0/0_bob_12.wav", "7/7_ann_49.wav", "7/7_ann_5.wav"]
    assert [test.file_name(s) for s in range(3)] == ["0/0_bob_3.wav", "7/7_ann_0.wav", "7/7_ann_4.wav"]
    assert train.labels.tolist() == test.labels.tolist() == [0, 1, 1]
    assert train.class_names == ("0", "7")
    assert train.shape == test.shape == (1, 1, 15)
    assert train.lengths(np.arange(3)).tolist() == [14, 13, 12]


def test_a_subset_keeps_lengths_and_rate(tmp_path, put):
    for length in range(1, 7):
        put(f"{length}.wav", length)
    subset = Subset(Opening().source(str(tmp_path)), 3)
    assert subset.lengths(np.arange(3)).tolist() == [1, 3, 5]
    assert subset.rate == 8000


def test_other_rates_and_layouts_are_refused(tmp_path, put):
    put("a/0.wav", rate=16000)
    put("b/1.wav", rate=8000)
    assert refusal(tmp_path) == (
        f"{tmp_path}/b/1.wav has 8000 samples a second, 0.wav has 16000; give all one rate: "
        "`ffmpeg -i IN.wav -ar 16000 -c:a pcm_s16le OUT.wav`"
    )
    (tmp_path / "c").mkdir()
    assert "c: class without recordings; add some or remove the folder" in refusal(tmp_path)
    put("2.wav")
    assert "holds recordings (2.wav) next to folders (a)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 4}, "has 32 bits a sample, and hpcule reads PCM of 8, 16 or 24; convert it: `ffmpeg"),
        ({"length": 0}, "cannot be decoded (no samples in it); replace it, or leave out such files with --set skip"),
    ],
)
def test_what_it_cannot_read_is_named(tmp_path, put, settings, message):
    put("a/0.wav", **settings)
    assert f"{tmp_path}/a/0.wav {message}" in refusal(tmp_path)


def test_floating_point_is_no_damage(tmp_path):
    (tmp_path / "0.wav").write_bytes(FLOATS)
    assert "0.wav is no plain PCM (unknown format: 3); convert it: `ffmpeg" in refusal(tmp_path)


def damage(path, kind):
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not a recording " * 4, "header": whole[:30], "cut": whole[:-6]}[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "header"])
def test_a_damaged_header_is_found_at_once_or_the_file_left_out(tmp_path, put, kind):
    put("a/0.wav")
    kept = put("b/1.wav")
    damage(tmp_path / "a" / "0.wav", kind)
    assert "a/0.wav cannot be decoded (" in refusal(tmp_path)
    source = Opening(skip_unreadable=True).source(str(tmp_path))
    assert [entry.file for entry in source.left_out] == ["a/0.wav"]
    assert source.labels.tolist() == [1]
    assert (everything(source)[0, 0, 0].astype(int) - 32768 == kept).all()
    damage(tmp_path / "b" / "1.wav", kind)
    with pytest.raises(DataError, match="none of the 2 recordings can be decoded"):
        Opening(skip_unreadable=True).source(str(tmp_path))


def test_a_cut_file_is_no_silence(tmp_path, put):
    put("a/0.wav", 20)
    put("a/1.wav", 20)
    damage(tmp_path / "a" / "0.wav", "cut")
    with pytest.raises(DataError, match=r"a/0.wav cannot be decoded \(17 samples where its header says 20\)"):
        everything(Opening().source(str(tmp_path)))
    assert [entry.file for entry in Opening(skip_unreadable=True).source(str(tmp_path)).left_out] == ["a/0.wav"]


def test_a_header_that_claims_more_than_the_file_could_hold(tmp_path, put):
    put("a/0.wav", 20)
    put("b/1.wav", 20)
    content = bytearray((tmp_path / "a" / "0.wav").read_bytes())
    content[40:44] = (2**31 - 2).to_bytes(4, "little")
    (tmp_path / "a" / "0.wav").write_bytes(content)
    assert "its header promises 1073741823 samples" in refusal(tmp_path)
    assert [entry.file for entry in Opening(skip_unreadable=True).source(str(tmp_path)).left_out] == ["a/0.wav"]


def test_a_file_that_changes_meanwhile(tmp_path, put):
    put("0.wav", 20)
    source = Opening().source(str(tmp_path))
    put("0.wav", 10)
    with pytest.raises(DataError, match="changed while it was in use: start again"):
        everything(source)


def test_links_that_lead_out_are_refused(tmp_path, put):
    put("outside/0.wav")
    put("data/a/1.wav")
    (tmp_path / "data" / "a" / "2.wav").symlink_to(tmp_path / "outside" / "0.wav")
    assert "is a link that leads out of" in refusal(tmp_path / "data")


def test_another_rate_or_length_is_another_task(tmp_path, put):
    put("a/x/0.wav", 20)
    put("b/x/0.wav", 20, rate=16000)
    put("c/x/0.wav", 30)
    first, other_rate, longer = (Opening().source(str(tmp_path / name)) for name in "abc")
    with pytest.raises(DataError, match="a has 8000 samples a second and b has 16000 samples a second"):
        check_same_task(first, other_rate)
    with pytest.raises(DataError, match=r"30 samples, not 20; put both into one folder, .* with --set clip_length=20"):
        check_same_task(first, longer)


def test_independent_readers_agree(tmp_path, put):
    put("a/0.wav", 1000)
    expected, rate = soundfile.read(tmp_path / "a" / "0.wav", dtype="int16")
    source = Opening().source(str(tmp_path))
    assert rate == source.rate
    assert (everything(source)[0, 0, 0].astype(int) - 32768 == expected).all()


def test_flac_stands_beside_wav(tmp_path, put):
    put("b/0.wav", 20)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "0.flac", signal := signal_of(30), 8000, subtype="PCM_16")
    source = Opening().source(str(tmp_path))
    assert [source.file_name(sample) for sample in range(2)] == ["a/0.flac", "b/0.wav"]
    assert (everything(source)[0, 0, 0].astype(int) - 32768 == signal).all()
    assert source.recording(0).format == "flac"
    assert source.recording(1) is None
    whole = (tmp_path / "a" / "0.flac").read_bytes()
    (tmp_path / "a" / "0.flac").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"a/0.flac cannot be decoded \("):
        everything(Opening().source(str(tmp_path)))
    assert [entry.file for entry in Opening(skip_unreadable=True).source(str(tmp_path)).left_out] == ["a/0.flac"]


def test_real_recordings(real_data, tmp_path):
    folder = real_data("fsdd/recordings")
    train, test = Opening().source(str(folder)), Opening().test(str(folder), None)
    assert (len(train), len(test), train.rate, train.class_count) == (2700, 300, 8000, 10)
    assert np.bincount(train.labels).tolist() == [270] * 10
    assert train.shape == test.shape == (1, 1, 18262)
    assert not (train.read(np.arange(0, 2700, 300)) == 32768).all(axis=(1, 2, 3)).any()
    shutil.copytree(folder.parent, tmp_path / "copy")
    assert Opening().source(str(tmp_path / "copy")).file_name(0) == train.file_name(0)
