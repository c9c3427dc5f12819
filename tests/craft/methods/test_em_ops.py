from __future__ import annotations

import numpy as np
import pytest
from toys import ToySource, craft
from two_phase_toys import CLASSES, make_method

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure
from hpcule.store.budget import Budget

SOURCE = ToySource(60, (3, 8, 8), CLASSES, contrast=0.3)


def crafted(*overrides):
    method = make_method("em-ops", SOURCE, None, "method.step_size=2", *overrides)
    deltas = craft(method).deltas
    return method, np.concatenate([deltas[shard] for shard in sorted(deltas)])


@pytest.mark.parametrize("pixels", [1, 2])
def test_the_pixel_has_its_colour_and_all_else_ems_budget(pixels):
    method, delta = crafted(f"method.pixels={pixels}")
    published = SOURCE.samples.astype(np.int64) + delta
    rest = delta.copy()
    for number, label in enumerate(SOURCE.labels):
        for row, column, colour in method.shortcut.pixels[label]:
            assert (published[number, :, row, column] == colour).all()
            rest[number, :, row, column] = 0
    assert abs(rest).max() == 8
    assert (rest != 0).mean() > 0.5
    assert abs(delta).max() > 8
    assert published.min() >= 0
    assert published.max() <= 255
    assert method.budget(method.config, SOURCE.shape, 255) == Budget("linf", 8.0, pixels)
    assert Budget("linf", 8.0, pixels).excess(delta) is None
    # A pixel is not part of what the surrogate learns from.
    assert all(part.abs().max() <= 8 for part in method.noise._deltas.values())


def test_class_wise_noise_cannot_hold_pixels_that_depend_on_the_sample():
    with pytest.raises(UsageError, match=r"method\.unit: earlier versions had this setting, without any effect"):
        configure("em-ops", "toys", preset=None, file={}, overrides=["method.unit=class"])
