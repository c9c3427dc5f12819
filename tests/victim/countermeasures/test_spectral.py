from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from toys import ToySource

from hpcule.data.source import Source
from hpcule.victim.countermeasures.bands import OCTAVES, SECTORS, band_energies, bands_of, powers
from hpcule.victim.countermeasures.spectral import equal_bands, fitted_lowpass, notch, wiener
from hpcule.victim.published import Published


class Textured(Source):
    """Noise, in which a class has more of one wavelength and direction."""

    name, kind, split, levels = "textured", "npz", "all", 255
    WAVES = ((0.25, 0.0), (0.0, 0.25), (0.125, 0.125))

    def __init__(self, n=90, size=16, strength=20.0, classes=3):
        rng = np.random.default_rng(0)
        self.shape, self.class_names = (1, size, size), tuple("abc"[:classes])
        self.labels = np.arange(n, dtype=np.int64) % classes
        down, across = np.mgrid[:size, :size]
        values = rng.normal(128, 8, (n, 1, size, size))
        for value, label in zip(values, self.labels, strict=True):
            y, x = self.WAVES[label]
            value[0] += strength * np.cos(2 * np.pi * (y * down + x * across + rng.uniform()))
        self.samples = np.rint(values).clip(0, 255).astype(np.uint8)

    def __len__(self):
        return len(self.samples)

    def read(self, ids):
        return self.samples[ids]

    def band(self, label):
        """Number of the band that has the wave of a class."""
        y, x = self.WAVES[label]
        return bands_of(self.shape)[round(y * self.shape[1]), round(x * self.shape[2])]


def slow_band(down, across):
    """Octave and sector of a frequency in cycles a pixel; None for the mean."""
    if not down and not across:
        return None
    octave = min(OCTAVES - 1, max(0, math.floor(math.log2(0.5 / math.hypot(down, across)))))
    angle = math.atan2(down, across)
    if angle < 0:
        angle += math.pi
    return octave, math.floor(angle / math.pi * SECTORS) % SECTORS


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (16, 12), (33, 40)])
def test_every_frequency_is_in_its_band(height, width):
    bands = bands_of((3, height, width))
    assert bands.shape == (height, width // 2 + 1)
    names = {}
    for row in range(height):
        for column in range(width // 2 + 1):
            down, across = np.fft.fftfreq(height)[row], np.fft.rfftfreq(width)[column]
            if 2 * column in (0, width):
                down = abs(down)
            names.setdefault(bands[row, column], set()).add(slow_band(down, across))
    assert sorted(names) == list(range(-1, len(names) - 1))
    assert all(len(found) == 1 for found in names.values()), "no band has two names"
    assert len(set.union(*names.values())) == len(names), "no two bands have the same name"
    assert names[-1] == {None}


def test_powers_add_up_to_the_mean_square():
    source = ToySource(5, (3, 6, 5))
    found = list(powers(Published(source, resident=2**20)))
    assert [label for label, _ in found] == source.labels.tolist()
    for (_, power), sample in zip(found, source.samples.astype(float), strict=True):
        assert power.sum() == pytest.approx((sample**2).mean())
        assert power[0, 0] == pytest.approx((sample.mean((1, 2)) ** 2).mean())
        waves = [[cmath.exp(-2j * math.pi * (2 * row / 6 + column / 5)) for column in range(5)] for row in range(6)]
        coefficients = (sample * np.array(waves)).sum((1, 2)) / 30
        assert power[2, 1] == pytest.approx(2 * (np.abs(coefficients) ** 2).mean())


def slow_filter(sample, gain):
    """A sample whose whole spectrum [H, W] is multiplied by gains."""
    changed = np.fft.ifft2(np.fft.fft2(sample.astype(float)) * gain)
    assert np.abs(changed.imag).max() < 1e-9
    return np.rint(changed.real).clip(0, 255)


def test_wiener_leaves_each_class_the_lower_median_of_spectra():
    source = Textured(30, 8)
    train = Published(source, resident=2**20)
    squares = np.abs(np.fft.fft2(source.samples.astype(float))) ** 2
    spectra = np.stack([squares[source.labels == label].mean((0, 1)) for label in range(3)])
    usual = np.sort(spectra, axis=0)[1]
    found = wiener(train)(train.ids, source.samples)
    for sample, label, own in zip(source.samples, source.labels, found, strict=True):
        gain = np.sqrt(np.minimum(1, usual / spectra[label]))
        gain[0, 0] = 1
        np.testing.assert_array_equal(own, slow_filter(sample, gain))


def test_wiener_takes_the_smaller_of_two():
    source = Textured(60, classes=2)
    train = Published(source, resident=2**20)
    found = wiener(train)(train.ids, source.samples)
    before, after = (
        np.array([np.abs(np.fft.fft2(rows[source.labels == k, 0])).mean(0)[[4, 0], [0, 4]] for k in range(2)])
        for rows in (source.samples.astype(float), found.astype(float))
    )
    assert before[0, 0] > 3 * before[1, 0]
    assert before[1, 1] > 3 * before[0, 1]
    assert after.max() < 1.5 * after.min()


def test_a_notch_takes_out_the_bands_that_name_the_class():
    source = Textured()
    train = Published(source, resident=2**20)
    bands = bands_of(source.shape)
    change = notch(train)
    # Other images, as test samples are.
    samples = np.random.default_rng(1).integers(60, 200, (4, 1, 16, 16)).astype(np.uint8)
    found = change(np.arange(4), samples)
    spectra = np.fft.rfft2(found.astype(float))[:, 0]
    left = np.array([[np.abs(row[bands == band]).mean() for band in range(bands.max() + 1)] for row in spectra]).mean(0)
    gone = set(np.flatnonzero(left < 0.2 * np.median(left)))
    assert {source.band(label) for label in range(3)} <= gone
    # An eighth of the bands are two, which leaves one of the three.
    assert len(left) == 18
    assert len(gone) == round(18 / 4)
    kept = np.where(np.isin(bands, list(gone)), 0, 1)
    for sample, own in zip(samples, found, strict=True):
        expected = np.fft.irfft2(np.fft.rfft2(sample.astype(float)) * kept, (16, 16))
        np.testing.assert_array_equal(own, np.rint(expected).clip(0, 255))


def test_a_low_pass_filter_ends_below_the_waves_that_name_the_class():
    source = Textured(classes=2)  # waves of 4 pixels, which are in the second octave from 4 to 8
    train = Published(source, resident=2**20)
    bands = bands_of(source.shape)
    samples = np.random.default_rng(1).integers(60, 200, (4, 1, 16, 16)).astype(np.uint8)
    found = fitted_lowpass(train)(np.arange(4), samples)
    gone = 2 * SECTORS
    assert bands.max() + 1 == 3 * SECTORS
    assert {source.band(label) for label in range(2)} <= set(range(SECTORS, gone))
    kept = np.where((bands >= 0) & (bands < gone), 0, 1)
    for sample, own in zip(samples, found, strict=True):
        expected = np.fft.irfft2(np.fft.rfft2(sample.astype(float)) * kept, (16, 16))
        np.testing.assert_array_equal(own, np.rint(expected).clip(0, 255))


def test_a_low_pass_filter_leaves_images_whose_energies_name_nothing():
    train = Published(Textured(strength=0.0), resident=2**20)
    np.testing.assert_array_equal(fitted_lowpass(train)(train.ids, train.source.samples), train.source.samples)


def test_a_notch_leaves_images_whose_energies_name_nothing():
    source = Textured(strength=0.0)
    train = Published(source, resident=2**20)
    np.testing.assert_array_equal(notch(train)(train.ids, source.samples), source.samples)


def test_every_image_gets_the_mean_energies():
    source = Textured()
    train = Published(source, resident=2**20)
    bands = bands_of(source.shape)
    mean = np.mean([band_energies(power, bands) for _, power in powers(train)], axis=0)
    changed, limited = train.through(equal_bands(train)), 0
    for (_, power), (_, now) in zip(powers(train), powers(changed), strict=True):
        own = band_energies(power, bands)
        limited += np.count_nonzero(mean > 16 * own)
        expected = np.clip(mean, own / 16, 16 * own)
        np.testing.assert_allclose(band_energies(now, bands), expected, rtol=0.1, atol=0.1)
    assert 0 < limited < 0.2 * len(train) * len(mean)
    before, after = source.samples.astype(float), changed.take(train.ids)[0].numpy().astype(float)
    np.testing.assert_allclose(after.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=0.1)


def test_an_image_without_energy_stays_as_it_is():
    train = Published(Textured(), resident=2**20)
    flat = np.full((1, 1, 16, 16), 90, np.uint8)
    np.testing.assert_array_equal(equal_bands(train)(np.array([0]), flat), flat)
