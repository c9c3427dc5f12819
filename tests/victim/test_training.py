"""What a victim will take, against what it took."""

from __future__ import annotations

import pytest
from toys import ToySource

from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.published import Published
from hpcule.victim.training import of_length, train_victim, work


class Counted(Published):
    """Counts the samples that are asked for."""

    taken = 0

    def images(self, numbers, device):
        self.taken += len(numbers)
        return super().images(numbers, device)


@pytest.mark.parametrize(
    ("config", "trained"),
    [
        (VictimConfig(network="convnet", epochs=3, batch=30), 3 * 90),
        (VictimConfig(network="convnet", steps=7, batch=30), 7 * 30),
        (VictimConfig(network="convnet", countermeasures=Countermeasures.parse("simclr-3")), 3 * 90),
    ],
    ids=["epochs", "steps", "features"],
)
def test_the_work_of_a_victim_is_what_it_does(alone, config, trained):
    train, test = Counted(ToySource(90), resident=2**30), Counted(ToySource(40, seed=1), resident=2**30)
    train_victim(config, train, test, alone, 0)
    assert work(config, 90, 40)[0] == trained
    extra = 40 if config.countermeasures.steps else 0  # for the geometry of the features, once
    assert train.taken + test.taken == sum(work(config, 90, 40)) + extra


def test_a_recipe_is_cut_to_a_length():
    short = of_length(VictimConfig(countermeasures=Countermeasures.parse(("jpeg-10", "simclr-50"))), 2)
    assert str(short.countermeasures) == "jpeg-10+simclr-2"
    short = of_length(
        VictimConfig(epochs=9, countermeasures=Countermeasures.parse("cutout"), target=0.5, evaluate_every=3), 4
    )
    assert (short.steps, short.target, short.evaluate_every) == (4, None, None)
    assert str(short.countermeasures) == "cutout-50"
