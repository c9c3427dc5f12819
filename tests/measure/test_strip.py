"""A pattern, a pixel and a filter that a class shares are found from one original; noise of each sample is not."""

from __future__ import annotations

import numpy as np
import pytest

from hpcule.measure.strip import filter_strip, pattern_strip


@pytest.fixture
def images():
    """Twenty smooth images uint8 [20, 3, 16, 12] without extreme values."""
    random = np.random.default_rng(0)
    coarse = random.integers(60, 196, (20, 3, 4, 3))
    return (np.kron(coarse, np.ones((4, 4))) + random.integers(-9, 10, (20, 3, 16, 12))).astype(np.uint8)


def residual(strip, published, clean):
    return np.abs(strip(published[1:].astype(np.float32)) - clean[1:]).mean()


def test_a_pattern_of_the_class_is_the_difference_of_one_pair(images):
    pattern = np.random.default_rng(1).integers(-8, 9, images.shape[1:])
    published = (images + pattern).astype(np.uint8)
    assert residual(pattern_strip(published[:1], images[:1]), published, images) == 0


def test_a_pixel_is_filled_with_the_mean_around_it(images):
    published = images.copy()
    published[:, :, 0, 5] = [255, 0, 255]
    stripped = pattern_strip(published[:1], images[:1])(published[1:].astype(np.float32))
    expected = images[1:].astype(np.float32)
    around = [expected[:, :, row, column] for row, column in ((0, 4), (0, 6), (1, 4), (1, 5), (1, 6))]
    expected[:, :, 0, 5] = np.mean(around, axis=0)
    np.testing.assert_allclose(stripped, expected, atol=1e-4)


def slow_filter(images, taps):
    padded = np.pad(images.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    height, width = images.shape[2:]
    shifts = [(row, column) for row in range(3) for column in range(3)]
    return sum(taps[row, column] * padded[:, :, row : row + height, column : column + width] for row, column in shifts)


def test_a_filter_of_the_class_is_undone_by_a_fit_to_one_pair(images):
    taps = np.array([[0.02, 0.1, 0.05], [0.0, 0.6, 0.1], [0.08, 0.03, 0.02]])
    published = np.rint(slow_filter(images, taps)).astype(np.uint8)
    before = np.abs(published[1:].astype(float) - images[1:]).mean()
    assert before > 3
    assert residual(filter_strip(published[:1], images[:1]), published, images) < before / 2
    assert residual(filter_strip(published[:6], images[:6]), published, images) < before / 4


@pytest.mark.parametrize("way", [pattern_strip, filter_strip])
def test_noise_of_each_sample_stays(images, way):
    noise = np.random.default_rng(2).integers(-8, 9, images.shape)
    published = (images + noise).astype(np.uint8)
    assert residual(way(published[:1], images[:1]), published, images) > 3


@pytest.mark.parametrize("way", [pattern_strip, filter_strip])
def test_what_was_not_changed_stays(images, way):
    assert residual(way(images[:1], images[:1]), images, images) < 1e-3


@pytest.mark.parametrize("way", [pattern_strip, filter_strip])
def test_recordings(way):
    random = np.random.default_rng(3)
    clean = random.integers(20000, 40000, (4, 1, 1, 500)).astype(np.uint16)
    published = (clean + random.integers(-50, 51, (1, 1, 1, 500))).astype(np.uint16)
    stripped = way(published[:1], clean[:1])(published.astype(np.float32))
    assert stripped.shape == clean.shape
    assert np.abs(stripped[0] - clean[0]).mean() < np.abs(published[0] - clean[0].astype(int)).mean()
