"""Spectra: the energy of cells, how classes are told apart, and noise that has the spectrum it is asked for."""

import itertools

import numpy as np
import pytest

from hpcule.craft.parts.spectra import Cells, amplitudes, coloured, dealt, halves

SIZES = [(24, 24), (25, 30), (30, 25)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("sectors", [1, 3])
def test_each_cell_has_the_energy_1_around_its_wavelength_and_direction(height, width, sectors):
    cells = Cells.between(3, 12, 2, sectors)
    assert cells.wavelengths == (3, 6, 12)
    energies = cells.energies(height, width)
    assert energies.shape == (3 * sectors, height, width // 2 + 1)
    assert (energies[:, 0, 0] == 0).all()
    np.testing.assert_allclose((energies * halves(width)).sum((1, 2)), 1, rtol=1e-5)
    for cell, energy in enumerate(energies):
        row, column = np.unravel_index(energy.argmax(), energy.shape)
        down, across = abs(np.fft.fftfreq(height)[row]), column / width
        octaves = np.log2(np.hypot(down, across) * cells.wavelengths[cell // sectors])
        assert abs(octaves) < 0.35
        if sectors == 3:
            assert abs(np.degrees(np.arctan2(down, across)) - 45 * (cell % 3)) < 20


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_flips_keep_the_energies(height, width):
    energies = Cells.between(3, 12, 2, 3).energies(height, width)
    np.testing.assert_array_equal(energies[:, 1:], energies[:, :0:-1])


@pytest.mark.parametrize(("classes", "a_period", "sectors"), [(2, 2, 1), (3, 3, 1), (10, 4, 3), (12, 4, 3)])
def test_every_whole_period_tells_all_classes_apart(classes, a_period, sectors):
    cells = Cells.between(4, 64.1, a_period, sectors)
    table = dealt(classes, cells, a_period, purpose=5)
    np.testing.assert_allclose(table.sum(1), 1, rtol=1e-6)
    for first in (0, a_period * sectors):
        for one, other in itertools.combinations(table[:, first : first + a_period * sectors], 2):
            assert one.any()
            assert not (one * other).any()


def test_of_many_classes_few_are_alike_in_all_periods():
    table = dealt(37, Cells.between(4, 250, 4, 3), 4, purpose=5)
    alike = [np.array_equal(one, other) for one, other in itertools.combinations(table > 0, 2)]
    assert sum(alike) < 0.02 * len(alike)
    assert not np.array_equal(table, dealt(37, Cells.between(4, 250, 4, 3), 4, purpose=6))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_noise_has_the_spectrum_that_is_asked_for(height, width):
    cells = Cells.between(3, 12, 2, 1)
    table = np.array([[0.2, 0.0, 0.8]], np.float32)
    amplitude = amplitudes(table, cells.energies(height, width))
    noise = coloured(3, np.arange(3000), np.repeat(amplitude, 3000, axis=0), width)
    assert noise.mean() == pytest.approx(0, abs=1e-6)
    assert noise.var() == pytest.approx(1, abs=0.02)
    found = (np.abs(np.fft.fft2(noise)) ** 2).mean(0) / (height * width) ** 2
    expected = np.zeros((height, width))
    for row, column in np.ndindex(height, width // 2 + 1):  # a frequency and its mirror image
        expected[row, column] = expected[-row, -column] = amplitude[0, row, column] ** 2
    np.testing.assert_allclose(found, expected, rtol=0.15, atol=1e-5)


def test_noise_is_that_of_the_id_whatever_stands_next_to_it():
    amplitude = amplitudes(np.ones((1, 3), np.float32) / 3, Cells.between(3, 12, 2, 1).energies(17, 23))
    ids = np.array([5, 900, 7, 3, 11])
    together = coloured(3, ids, np.repeat(amplitude, 5, axis=0), 23)
    for row, one in zip(together, ids, strict=True):
        np.testing.assert_array_equal(row, coloured(3, np.array([one]), amplitude, 23)[0])
    assert np.corrcoef(together.reshape(5, -1))[~np.eye(5, dtype=bool)].max() < 0.6
