"""Features of images without a network."""

import numpy as np
import pytest

from hpcule.craft.parts.band_energies import ROUNDING, BandEnergies


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 30, 45), (2, 4, 4)])
def test_white_noise_has_the_same_energy_in_all_bands_and_a_flat_image_none(shape):
    noise = np.random.default_rng(0).integers(28, 229, (200, *shape), dtype=np.uint8)
    noise[-1] = 77
    found = BandEnergies(shape).features(noise)
    bands, means = found[:, : -shape[0]], found[:, -shape[0] :]
    np.testing.assert_allclose(np.exp(bands[:-1]).mean(0), noise[:-1].mean(1).var(), rtol=0.3)
    np.testing.assert_allclose(bands[-1], np.log(ROUNDING), atol=1e-6)
    np.testing.assert_allclose(means[-1], np.log(78))


def test_a_wave_stands_out_in_the_band_of_its_length_and_direction():
    wave = (128 + 60 * np.sin(2 * np.pi * np.arange(64) / 8)).astype(np.uint8)
    across, down = np.tile(wave, (64, 1)), np.tile(wave[:, None], (1, 64))
    found = BandEnergies((1, 64, 64)).features(np.stack([across, down])[:, None])[:, :-1]
    # Two bands an octave from 2 pixels on, three directions each.
    assert found.argmax(1).tolist() == [4 * 3, 4 * 3 + 2]
