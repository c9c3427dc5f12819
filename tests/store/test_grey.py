"""What is added to a grey image that is stored with three channels: no colour, and no more than the budget."""

from __future__ import annotations

import numpy as np
import pytest

from hpcule.store.budget import Budget
from hpcule.store.grey import is_grey, mean_of_channels
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

BUDGETS = [{}, {"norm": "l2", "epsilon": 30.0}]


def test_grey_is_the_same_value_in_every_pixel():
    images = np.zeros((3, 3, 2, 2), np.uint8)
    images[1] = [[[1, 2], [3, 4]]] * 3
    images[2, 2, 1, 1] = 1
    assert is_grey(images).tolist() == [True, True, False]
    assert is_grey(images[:, :1]).all()
    assert is_grey(images[1])


@pytest.mark.parametrize("unit", [{}, {"unit": "class", "groups": 3}])
@pytest.mark.parametrize("budget", BUDGETS)
def test_grey_samples_get_the_mean_of_the_channels(make_source, make_store, budget, unit):
    source = make_source(20, shape=(3, 4, 4))
    source.samples = np.clip(source.samples, 60, 190)  # nothing is cut off
    source.samples[::2] = source.samples[::2, :1]
    store, manifest, delta, group = make_store(source, **budget, **unit)
    delta = delta if group is None else delta[group]
    ids = np.arange(20)
    with StoreReader(Vault(store)) as reader:
        change = reader.published(ids, source.samples).astype(int) - source.samples
        assert (change == reader.delta_on(ids, source.samples)).all()
        # As revert asks: the published samples are grey where the clean ones are.
        assert (change == reader.delta_on(ids, source.samples + change)).all()
    assert (change[1::2] == delta[1::2]).all()
    assert (change[::2] == change[::2, :1]).all()
    nearest = 1 if budget.get("norm") == "l2" else 0.5
    assert np.abs(change[::2, 0] - delta[::2].mean(axis=1)).max() < nearest
    assert (np.abs(change).max(axis=(1, 2, 3)) > 0).all()
    assert manifest.budget.excess(change) is None


@pytest.mark.parametrize("budget", [Budget("linf", 8), Budget("l2", 8), Budget("l0", 8), Budget("linf", 8, 3)])
def test_the_mean_takes_no_more_of_a_budget(budget):
    rng = np.random.default_rng(0)
    delta = rng.integers(-3, 4, (500, 3, 2, 2)) * rng.integers(0, 2, (500, 1, 2, 2))
    mean = budget.rounded(mean_of_channels(delta))
    found = np.broadcast_to(mean, delta.shape).astype(int)
    assert (budget.spent(found) <= budget.spent(delta)).all()
    assert found.any()
