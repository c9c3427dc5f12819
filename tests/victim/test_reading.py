"""Which images go through the steps that act once, and that networks are asked about the images they were tested on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.data.resize import resize_planes
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.squeeze import squeeze
from hpcule.victim.countermeasures.table import Countermeasures, countermeasure
from hpcule.victim.published import Published
from hpcule.victim.reading import read_for_test, squeezed
from hpcule.victim.training import train_victim

CPU = torch.device("cpu")
EVERYONE = np.arange(40)


def config_of(text, **settings):
    settings = {"network": "convnet", "epochs": 2, "batch": 30, "precision": "fp32", **settings}
    return VictimConfig(**settings, countermeasures=Countermeasures.parse(text))


def make_set(shape=(3, 8, 8), resident=2**30):
    return Published(ToySource(40, shape), resident=resident)


@pytest.mark.parametrize(
    ("text", "training", "test"),
    [
        ("crop-flip", [], []),
        ("jpeg-50+crop-flip", ["jpeg-50"], []),
        ("jpeg-50+grayscale+test-too", ["jpeg-50", "grayscale"], ["jpeg-50", "grayscale"]),
        ("lowpass+zscore+blur+equalize", ["lowpass", "zscore", "blur", "equalize"], ["lowpass", "zscore", "equalize"]),
        ("grayscale+size-16+jpeg-50", ["grayscale", "size-16", "jpeg-50"], ["size-16"]),
        ("grayscale+size-16+test-too+cutout", ["grayscale", "size-16"], ["grayscale", "size-16"]),
    ],
)
def test_steps_of_training_and_of_test_samples(text, training, test):
    for read, steps in ((squeezed, training), (read_for_test, test)):
        found = read(make_set(), config_of(text), 0, CPU)
        expected = squeeze(ToySource(40).samples, [countermeasure(step) for step in steps], 255)
        assert found.shape == expected.shape[1:]
        np.testing.assert_array_equal(found.take(EVERYONE)[0].numpy(), expected)


def test_what_is_read_as_it_is_stays_in_memory_once():
    test = make_set()
    assert read_for_test(test, config_of("jpeg-50"), 0, CPU) is test


@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize("shape", [(1, 24, 20), (3, 8, 8)])
def test_samples_that_do_not_fit_into_memory_have_their_new_shape_too(shape, decodes):
    anew = make_set(shape, resident=0)
    anew.source.decodes = decodes
    found = read_for_test(anew, config_of("size-16"), 0, CPU)
    expected = [resize_planes(sample, 16) for sample in anew.source.samples[[3, 1]]]
    np.testing.assert_array_equal(found.take(np.array([3, 1]))[0].numpy(), expected)


def test_a_network_is_built_and_tested_at_the_size_that_is_read(alone):
    config, sizes = config_of("crop-flip+size-16"), []

    def note(epoch, network):
        network.register_forward_pre_hook(lambda module, images: sizes.append(tuple(images[0].shape[1:])))

    train_victim(config, make_set(), make_set(), alone, 0, after_epoch=note)
    assert set(sizes) == {(3, 16, 16)}


def test_the_clean_samples_of_an_attacker_are_read_for_test(alone):
    text = "bit-depth-1+test-too+dfr-50"
    once = squeezed(make_set(), config_of("bit-depth-1"), 0, CPU)
    plain = train_victim(config_of("dfr-50"), once, once, alone, 0, owned=once)[1]
    found = train_victim(config_of(text), make_set(), make_set(), alone, 0, owned=make_set())[1]
    assert found.curve == plain.curve


def test_recordings_have_no_steps(alone):
    recordings = make_set((1, 1, 64))
    recordings.source.rate = 16_000
    for text in ("grayscale+size-16", "simclr-2"):
        with pytest.raises(UsageError, match=r"for images, and toys holds recordings"):
            train_victim(config_of(text), recordings, recordings, alone, 0)
