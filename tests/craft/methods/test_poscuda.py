"""What makes PosCUDA what it is: only the keyed patch changes, and it is a convolution."""

import numpy as np
import pytest
from toys import ToySource, craft, make_problem

from hpcule.config.errors import DataError, UsageError
from hpcule.craft.methods.poscuda import PositionalConvolution, convolved_patch
from hpcule.craft.preparation import check_task
from hpcule.craft.table import configure, find

CLASSES, LENGTH = 5, 400


class Recordings(ToySource):
    """Toys of 16 bit that end anywhere, and are silent from there on."""

    rate = 8000

    def __init__(self, n=40, shortest=LENGTH, **settings):
        super().__init__(n, (1, 1, LENGTH), CLASSES, dtype=np.uint16, contrast=0.3, **settings)
        self._lengths = np.random.default_rng(5).integers(shortest, LENGTH + 1, n)
        for sample, length in zip(self.samples, self._lengths, strict=True):
            sample[..., length:] = 32768

    def lengths(self, ids):
        return self._lengths[ids]


def config_of(*overrides):
    settings = ["method.patch=40", "method.region=300", *overrides]
    return configure("poscuda", "toys", preset=None, file={}, overrides=settings).method


def crafted(source, *overrides, seed=1):
    """The method, and published minus clean [n, T]."""
    method = PositionalConvolution(config_of(*overrides), make_problem(source, shards=3, seed=seed))
    return method, craft(method).delta[:, 0, 0]


def slow_convolution(signal, taps):
    """Definition, one product after the other; zeros around the signal."""
    half = len(taps) // 2
    result = [0.0] * len(signal)
    for place in range(len(signal)):
        for k, tap in enumerate(taps):
            if 0 <= place + half - k < len(signal):
                result[place] += tap * signal[place + half - k]
    return np.array(result)


def test_convolution_equals_a_slow_one_and_numpys():
    rng = np.random.default_rng(0)
    for size, count in ((50, 7), (4, 9), (2, 3)):
        signal, taps = rng.normal(size=size), rng.uniform(size=count)
        np.testing.assert_allclose(
            convolved_patch(signal, taps), slow_convolution(signal, taps), rtol=1e-12, atol=1e-14
        )
        full = np.convolve(signal, taps)[count // 2 :][:size]
        np.testing.assert_allclose(convolved_patch(signal, taps), full, rtol=1e-12, atol=1e-14)


def test_only_the_keyed_patch_changes_and_is_the_classes_convolution():
    source = Recordings()
    method, delta = crafted(source)
    for sample, label in enumerate(source.labels):
        start = int(method.positions[label, 0])
        signal = source.samples[sample, 0, 0].astype(np.float64) - 32768
        expected = np.zeros(LENGTH, np.int64)
        filtered = slow_convolution(signal[start : start + 40], method.filters[label])
        expected[start : start + 40] = np.rint(filtered).clip(-32768, 32767) - signal[start : start + 40]
        np.testing.assert_array_equal(delta[sample], expected)
        assert (delta[sample, start : start + 40] != 0).mean() > 0.9


def test_classes_have_patches_apart_inside_the_region_and_filters_of_their_own():
    method, _ = crafted(Recordings())
    starts = np.sort(method.positions[:, 0])
    assert starts.tolist() == [0, 60, 120, 180, 240]
    np.testing.assert_allclose(method.filters.sum(axis=1), 1)
    assert (method.filters >= 0).all()
    largest = method.filters.max(axis=1, keepdims=True)
    assert ((method.filters == largest).sum(axis=1) == 1).all()
    assert len(np.unique(method.filters, axis=0)) == CLASSES


def test_the_key_gives_positions_and_filters():
    source = Recordings()
    first, delta = crafted(source, seed=1)
    again, same = crafted(source, seed=1)
    np.testing.assert_array_equal(delta, same)
    np.testing.assert_array_equal(first.positions, again.positions)
    others = [crafted(source, seed=seed)[0] for seed in range(2, 12)]
    assert len({tuple(method.positions[:, 0]) for method in others}) > 8
    assert not any(np.isclose(method.filters, first.filters).all(axis=1).any() for method in others)


@pytest.mark.parametrize("patch", ["40", "null"])
@pytest.mark.parametrize("short", ["wrap", "relative", "skip"])
def test_what_was_padded_stays_silent_whatever_is_short(patch, short):
    source = Recordings(n=60, shortest=1)
    _, delta = crafted(source, f"method.patch={patch}", f"method.short={short}")
    for row, length in zip(delta, source.lengths(np.arange(60)), strict=True):
        assert not row[length:].any()
    changed = delta.any(axis=1)
    if short == "skip" and patch == "40":
        method, _ = crafted(source)
        ends = method.positions[source.labels, 0] + 40
        np.testing.assert_array_equal(changed, ends <= source.lengths(np.arange(60)))
        assert 10 < changed.sum() < 60
    else:
        assert changed.all()


@pytest.mark.parametrize(
    ("short", "position", "length", "expected"),
    [
        ("wrap", 240, 280, (240, 280)),
        ("wrap", 240, 279, (0, 40)),  # 240 places, and 240 is the first again
        ("wrap", 240, 140, (38, 78)),
        ("relative", 240, 140, (80, 120)),
        ("relative", 150, 100, (30, 70)),
        ("wrap", 60, 25, (0, 25)),
        ("relative", 60, 25, (0, 25)),
        ("skip", 240, 279, (0, 0)),
    ],
)
def test_where_a_patch_lies_in_a_short_recording(short, position, length, expected):
    method, _ = crafted(Recordings(), f"method.short={short}")
    place = method._place(position, length)
    assert (place.start, place.stop) == expected


def test_the_whole_recording_is_cuda_in_one_dimension():
    source = Recordings(n=10, shortest=100)
    method, delta = crafted(source, "method.patch=null")
    for sample, (label, length) in enumerate(zip(source.labels, source.lengths(np.arange(10)), strict=True)):
        signal = source.samples[sample, 0, 0, :length].astype(np.float64) - 32768
        published = np.rint(slow_convolution(signal, method.filters[label]))
        np.testing.assert_array_equal(delta[sample, :length], published - signal)


def test_patches_of_a_class_add_up():
    source = Recordings()
    method, delta = crafted(source, "method.patches=3", "method.region=200")
    assert method.positions.shape == (CLASSES, 3)
    assert len(np.unique(method.positions)) == 3 * CLASSES
    signal = source.samples[0, 0, 0].astype(np.float64) - 32768
    expected = signal.copy()
    for start in method.positions[0]:
        patch = signal[start : start + 40]
        expected[start : start + 40] += slow_convolution(patch, method.filters[0]) - patch
    np.testing.assert_array_equal(delta[0], np.rint(expected).clip(-32768, 32767) - signal)


def test_fading_leaves_the_middle_and_softens_the_ends():
    source = Recordings()
    method, plain = crafted(source)
    _, faded = crafted(source, "method.fade=4")
    start = int(method.positions[0, 0])
    weights = np.ones(40)
    weights[:4], weights[-4:] = [0.2, 0.4, 0.6, 0.8], [0.8, 0.6, 0.4, 0.2]
    before, after = (delta[0, start : start + 40] for delta in (plain, faded))
    np.testing.assert_array_equal(after[4:36], before[4:36])
    np.testing.assert_allclose(after, weights * before, atol=1)  # each was rounded by itself


def test_normalisation():
    source = Recordings()
    signal = source.samples[:, 0, 0].astype(np.float64) - 32768
    rms, delta = crafted(source, "method.normalise=rms")
    none, louder = crafted(source, "method.normalise=none", "method.blur=0.2")
    assert (none.filters.max(axis=1) == 1).all()
    assert (np.sort(none.filters, axis=1)[:, :-1] < 0.2).all()
    for sample, label in enumerate(source.labels):
        place = slice(int(rms.positions[label, 0]), int(rms.positions[label, 0]) + 40)
        was, is_now = (np.square(x[sample, place]).mean() for x in (signal, signal + delta))
        assert is_now == pytest.approx(was, rel=0.05)  # but for what clips
    assert np.abs(louder).max() > 0


def test_silence_stays_silent():
    source = Recordings()
    source.samples[...] = 32768
    for normalise in ("sum", "rms", "none"):
        _, delta = crafted(source, f"method.normalise={normalise}")
        assert not delta.any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("patch=1", "method.patch=1: valid are whole numbers from 2"),
        ("patches=0", "method.patches=0: valid are whole numbers from 1"),
        ("taps=4", "method.taps=4: valid are odd numbers from 3"),
        ("blur=0", "method.blur=0: valid are numbers above 0 up to 1"),
        ("fade=21", "method.fade=21: valid are whole numbers up to half of the patch, 20"),
        ("short=cut", "method.short=cut: valid are wrap, relative, skip"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(UsageError) as caught:
        config_of(f"method.{setting}")
    assert message in str(caught.value)


def test_the_whole_recording_is_one_patch():
    with pytest.raises(UsageError, match=r"method.patches=2: the whole recording \(patch=null\) is one patch"):
        config_of("method.patch=null", "method.patches=2")


def config(name, **settings):
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return configure(name, "toys", preset=None, file={}, overrides=overrides)


def test_methods_are_for_images_or_for_recordings():
    check_task(config("poscuda"), Recordings())
    with pytest.raises(DataError, match="poscuda is made for audio and toys is images: take em, pil"):
        check_task(config("poscuda"), ToySource())
    with pytest.raises(DataError, match="pil is made for images and toys is audio: take poscuda"):
        check_task(config("pil"), Recordings())


def test_there_is_no_bound():
    assert find("poscuda").budget(config_of(), (1, 1, LENGTH), 65535).epsilon == 65535
    assert not find("poscuda").facts.bounded
