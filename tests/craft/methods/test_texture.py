"""Class texture: what samples of a class share is a spectrum, and nothing else."""

import numpy as np
import pytest
from toys import ToySource, craft, make_problem

from hpcule.config.errors import UsageError
from hpcule.craft.table import configure, find

EPSILON = 16


def crafted(source, *overrides, seed=1):
    config = configure("texture", "toys", preset="paper", file={}, overrides=overrides).method
    return craft(find("texture")(config, make_problem(source, shards=2, seed=seed))).delta.astype(np.int64)


def grey_middle(n, classes, side=32):
    """A source without extremes, so that no published value is clipped."""
    source = ToySource(n, (3, side, side), classes)
    source.samples = source.samples.clip(64, 191)
    return source


def spectrum(delta):
    """Mean energy of the first channel at each frequency [H, W], of 1 in all."""
    energy = (np.abs(np.fft.fft2(delta[:, 0])) ** 2).mean(0)
    return energy / energy.sum()


def overlap(one, other):
    return np.minimum(one, other).sum()


def test_classes_differ_in_their_spectra():
    source = grey_middle(240, 2)
    delta = crafted(source)
    first, second, again = (
        spectrum(delta[rows])
        for rows in (source.labels == 0, source.labels == 1, np.flatnonzero(source.labels == 0)[::2])
    )
    assert overlap(first, again) > 0.85
    assert overlap(first, second) < 0.35


def test_what_a_class_shares_is_no_pattern():
    source = grey_middle(240, 2)
    own = crafted(source)[source.labels == 0, 0].reshape(120, -1)
    assert np.abs(own.mean(0)).mean() < 0.15 * np.abs(own).mean()
    correlations = np.corrcoef(own)[~np.eye(120, dtype=bool)]
    assert abs(correlations.mean()) < 0.02


def test_the_budget_is_used_in_full():
    delta = crafted(grey_middle(40, 2), f"method.epsilon={EPSILON}")
    assert np.abs(delta).max() == EPSILON
    assert np.sqrt((delta**2).mean()) > 0.75 * EPSILON


def test_all_channels_change_alike_unless_colour_is_asked_for():
    source = grey_middle(40, 2)
    delta = crafted(source)
    assert (delta == delta[:, :1]).all()
    coloured = crafted(source, "method.colour=true")
    assert abs(np.corrcoef(coloured[:, 0].ravel(), coloured[:, 1].ravel())[0, 1]) < 0.1


def test_flat_parts_get_a_share_of_the_budget():
    source = grey_middle(40, 2)
    source.samples[:, :, :, :16] = 128
    # Where the square around a pixel is flat, and where it reaches a deviation of far more than the budget.
    flat, rough = np.s_[:, :, 5:-5, 5:10], np.s_[:, :, 5:-5, 22:-5]
    whole, half, none = (crafted(source, f"method.flat={share}") for share in (1, 0.5, 0))
    assert (half[rough] == whole[rough]).all()
    assert (np.abs(2 * half[flat] - whole[flat]) <= 1).all()
    assert np.abs(half[flat]).max() == EPSILON // 2
    assert (none[flat] == 0).all()


def test_purity_is_the_share_of_samples_with_their_own_class_s_spectrum():
    source = grey_middle(400, 2)
    pure, mixed, none = (crafted(source, f"method.purity={purity}") for purity in (1, 0.5, 0))
    strayed = [(delta != pure).any((1, 2, 3)).mean() for delta in (mixed, none)]
    # A random class is the own one half of the time.
    assert strayed == pytest.approx([0.25, 0.5], abs=0.08)
    first, second = (spectrum(none[source.labels == label]) for label in (0, 1))
    assert overlap(first, second) > 0.85


def test_longer_waves_can_be_asked_for():
    delta = crafted(grey_middle(60, 2, side=64), "method.shortest=16", "method.longest=32")
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    assert spectrum(delta)[frequency > 1 / 10].sum() < 0.2


def test_too_narrow_a_range_for_the_classes_is_refused():
    with pytest.raises(UsageError, match="10 classes need 4 bands of wavelengths, and from 5 to 8 pixels there are 2"):
        crafted(grey_middle(60, 10), "method.shortest=5", "method.longest=8")
