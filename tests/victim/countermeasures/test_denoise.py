from __future__ import annotations

import numpy as np
import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.victim.countermeasures import denoise as module
from hpcule.victim.countermeasures.denoise import denoise, drawn
from hpcule.victim.countermeasures.fit import Fit
from hpcule.victim.published import Published
from hpcule.world.keyed import bits, key

SIZE = 40


def striped(ids, samples):
    """Published with stripes that are the same everywhere."""
    stripes = 24 * (np.arange(samples.shape[3]) % 2) - 12
    return np.clip(samples.astype(int) + stripes, 0, 255).astype(samples.dtype)


def make_set(publish=striped, resident=2**20):
    return Published(ToySource(SIZE, contrast=0.1), publish, resident=resident)


@pytest.fixture
def shorter(monkeypatch):
    monkeypatch.setattr(module, "FIT", Fit(steps=40, batch=16, rate=3e-3, clip_norm=1.0))


def test_a_denoiser_learns_from_pairs_what_the_others_have(alone, shorter):
    train = make_set()
    numbers = np.setdiff1d(np.arange(SIZE), drawn(train, 20, 0))
    change = denoise(train, 20, lambda clean: clean, 0, alone)
    published, _ = train.take(np.arange(SIZE))
    found = change(train.ids, published.numpy())
    before, after = (np.abs(rows.astype(int) - train.source.samples)[numbers] for rows in (published.numpy(), found))
    assert 11 < before.mean() <= 12
    assert after.mean() < 0.6 * before.mean()


def test_copies_that_do_not_differ_stay_as_they_are(alone, shorter):
    train = Published(ToySource(SIZE), resident=2**20)
    change = denoise(train, 10, lambda clean: clean, 0, alone)
    np.testing.assert_array_equal(change(train.ids, train.source.samples), train.source.samples)


def test_classes_have_as_many_originals_as_each_other():
    source = ToySource(20)
    source.labels = np.array([0] * 12 + [1] * 6 + [2] * 2)
    train = Published(source, ids=np.arange(20), resident=2**20)
    found = drawn(train, 10, 3)
    own = source.labels[found]
    assert sorted(np.bincount(own)) == [2, 4, 4]
    values = bits(key(3, "originals"), train.ids, 1)[:, 0]
    for label in range(3):
        first = sorted(np.flatnonzero(source.labels == label), key=lambda number: values[number])
        assert set(found[own == label]) == set(first[: np.count_nonzero(own == label)])
    assert set(found) < set(drawn(train, 13, 3))
    assert set(found) != set(drawn(train, 10, 4))


def test_more_originals_than_samples_are_refused(alone):
    with pytest.raises(UsageError, match=r"denoise-41: here are 40 training samples: use denoise-40 at most"):
        denoise(make_set(), 41, lambda clean: clean, 0, alone)
