"""What victims of a study are trained on."""

import numpy as np
import pytest
from toys import ToySource, alone

from hpcule.craft.run import craft
from hpcule.craft.table import configure
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.study.items import planned_store
from hpcule.victim.kinds import noise_basis, random_noise
from hpcule.world.signals import StopFlag


@pytest.mark.parametrize(
    ("method", "unit", "norm"),
    [("classwise", "class", "linf"), ("lsp", "sample", "l2"), ("ops", "sample", "l0"), ("ar", "sample", "l2")],
)
def test_random_noise_is_the_same_before_the_craft_and_after(tmp_path, method, unit, norm):
    source = ToySource(60, (3, 32, 32))
    config = configure(method, "toys", preset="smoke", file={}, overrides=["seed=3"])
    craft(config, source, Vault(tmp_path / "store"), alone(), StopFlag(), resume=True, report=lambda step: None)
    store, planned = StoreReader(Vault(tmp_path / "store")), planned_store(config, source)
    assert (store.manifest.unit, store.manifest.norm) == (unit, norm)
    assert noise_basis(unit, store.manifest.budget, store.manifest.levels)
    ids = np.arange(60)
    noisy, same = (random_noise(given, 7, source)(ids, source.samples) for given in (store, planned))
    assert (noisy != source.samples).any()
    np.testing.assert_array_equal(noisy, same)
