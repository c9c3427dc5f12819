"""Spectra: the energy of cells, and how classes are told apart."""

import itertools

import numpy as np
import pytest

from hpcule.world.coloured import frequency_counts
from hpcule.world.spectra import Cells, amplitudes, dealt

SIZES = [(24, 24), (25, 30), (30, 25)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("sectors", [1, 3])
def test_each_cell_has_the_energy_1_around_its_wavelength_and_direction(height, width, sectors):
    cells = Cells.between(3, 12, 2, sectors)
    assert cells.wavelengths == (3, 6, 12)
    energies = cells.energies(height, width)
    assert energies.shape == (3 * sectors, height, width // 2 + 1)
    assert (energies[:, 0, 0] == 0).all()
    np.testing.assert_allclose((energies * frequency_counts(width)).sum((1, 2)), 1, rtol=1e-5)
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
def test_amplitudes_have_the_energy_1_and_the_share_of_each_cell(height, width):
    cells = Cells.between(3, 12, 2, 1)
    energies = cells.energies(height, width)
    table = np.array([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)
    found = amplitudes(table, energies) ** 2
    np.testing.assert_allclose((found * frequency_counts(width)).sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(found[0], 0.2 * energies[0] + 0.8 * energies[2], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found[1], energies[1], rtol=1e-5, atol=1e-9)
