"""Noise with a spectrum, compared with the whole spectrum of what was made."""

import numpy as np
import pytest

from hpcule.world.coloured import frequency_counts, to_images, white_spectra

SHAPES = [(1, 12, 12), (2, 13, 10), (1, 1, 31)]


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_the_spectrum_that_is_asked_for(shape):
    _, height, width = shape
    amplitude = np.random.default_rng(0).uniform(0, 0.1, (height, width // 2 + 1)).astype(np.float32)
    # A real image has the same energy at a frequency and at its mirror image.
    amplitude[:, frequency_counts(width) == 1] = 0.05
    images = to_images(white_spectra(3, np.arange(4000), shape) * amplitude, width)
    assert images.shape == (4000, *shape)
    found = (np.abs(np.fft.fft2(images)) ** 2).mean((0, 1)) / (height * width) ** 2
    expected = np.zeros((height, width))
    for row, column in np.ndindex(amplitude.shape):
        expected[row, column] = expected[-row, -column] = amplitude[row, column] ** 2
    np.testing.assert_allclose(found, expected, rtol=0.15, atol=1e-5)
    assert images.var() == pytest.approx((amplitude**2 * frequency_counts(width)).sum(), rel=0.03)


def test_noise_is_white_and_that_of_its_id_whatever_stands_next_to_it():
    ids = np.array([5, 900, 7, 3, 11])
    together = to_images(white_spectra(3, ids, (2, 17, 23)), 23)
    for row, one in zip(together, ids, strict=True):
        np.testing.assert_array_equal(row, to_images(white_spectra(3, np.array([one]), (2, 17, 23)), 23)[0])
    apart = np.corrcoef(together.reshape(10, -1))[~np.eye(10, dtype=bool)]
    assert np.abs(apart).max() < 0.2
    assert (together != to_images(white_spectra(4, ids, (2, 17, 23)), 23)).any((2, 3)).all()
