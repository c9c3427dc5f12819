from __future__ import annotations

import numpy as np
import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import Countermeasures
from hpcule.victim.kinds import clean
from hpcule.victim.training_data import TrainingData, stratified


def make_data(n=90):
    source = ToySource(n)
    return TrainingData(source, np.arange(n, dtype=np.int64)[10:], 2**20)


def inverted(ids, samples):
    return 255 - samples


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_mixture_protects_its_share_of_every_class(share):
    data = make_data()
    config = VictimConfig(countermeasures=Countermeasures.parse(f"mix-{share}"))
    samples, labels = data.published(inverted, config, 3).take(np.arange(80))
    originals = data.source.samples[data.ids]
    moved = (samples.numpy() != originals).any(axis=(1, 2, 3))
    for label in range(3):
        own = labels.numpy() == label
        assert moved[own].sum() == round(share * own.sum())
    assert np.array_equal(samples.numpy()[moved], 255 - originals[moved])


def test_the_clean_part_is_the_rest_with_as_many_steps():
    data = make_data()
    config = VictimConfig(batch=20, epochs=3, countermeasures=Countermeasures.parse("mix-0.5"))
    settings, part = data.clean_part(config, 3)
    samples, _ = data.published(inverted, config, 3).take(np.arange(80))
    untouched = data.ids[(samples.numpy() == data.source.samples[data.ids]).all(axis=(1, 2, 3))]
    assert np.array_equal(part.ids, untouched)
    assert settings.steps == 3 * 4
    assert np.array_equal(part.take(np.arange(len(part)))[0].numpy(), data.source.samples[untouched])


def test_a_larger_share_protects_more_of_the_same_and_seeds_differ():
    labels = np.arange(60) % 3
    ids = np.arange(60, dtype=np.int64)
    parts = [stratified(ids, labels, share, 0) for share in (0.2, 0.5, 0.9)]
    assert set(parts[0]) < set(parts[1]) < set(parts[2])
    assert set(stratified(ids, labels, 0.5, 1)) != set(parts[1])


def test_a_mixture_without_clean_samples_has_no_clean_part():
    with pytest.raises(UsageError, match="of 80 samples 0 stay clean"):
        make_data().clean_part(VictimConfig(batch=20, countermeasures=Countermeasures.parse("mix-0.999")), 0)


def test_without_a_mixture_all_is_published():
    data = make_data()
    config = VictimConfig(countermeasures=Countermeasures.parse("jpeg-10"))
    samples, _ = data.published(clean, config, 0).take(np.arange(80))
    assert np.array_equal(samples.numpy(), data.source.samples[data.ids])
