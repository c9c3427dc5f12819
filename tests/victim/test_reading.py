"""Which images go through the steps that act once, and that networks are asked about the images they were tested on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.data.resize import resize_planes
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures import denoise
from hpcule.victim.countermeasures.class_means import class_means
from hpcule.victim.countermeasures.fit import Fit
from hpcule.victim.countermeasures.spectral import equal_bands, fitted_lowpass, notch, wiener
from hpcule.victim.countermeasures.squeeze import squeeze
from hpcule.victim.countermeasures.table import Countermeasures, countermeasure
from hpcule.victim.published import Published
from hpcule.victim.reading import ReadingSteps
from hpcule.victim.testing import measured
from hpcule.victim.training import train_victim

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
def test_steps_of_training_and_of_test_samples(alone, text, training, test):
    reading = ReadingSteps(make_set(), config_of(text), 0, alone)
    for found, steps in ((reading.train, training), (reading.for_test(make_set()), test)):
        expected = squeeze(ToySource(40).samples, [countermeasure(step) for step in steps], 255)
        assert found.shape == expected.shape[1:]
        np.testing.assert_array_equal(found.take(EVERYONE)[0].numpy(), expected)


def test_what_is_read_as_it_is_stays_in_memory_once(alone):
    test = make_set()
    assert ReadingSteps(make_set(), config_of("jpeg-50"), 0, alone).for_test(test) is test


@pytest.mark.parametrize("decodes", [False, True])
@pytest.mark.parametrize("shape", [(1, 24, 20), (3, 8, 8)])
def test_samples_that_do_not_fit_into_memory_have_their_new_shape_too(alone, shape, decodes):
    anew = make_set(shape, resident=0)
    anew.source.decodes = decodes
    found = ReadingSteps(anew, config_of("size-16"), 0, alone).for_test(anew)
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
    once = ReadingSteps(make_set(), config_of("bit-depth-1"), 0, alone).train
    plain = train_victim(config_of("dfr-50"), once, once, alone, 0, owned=once).result
    found = train_victim(config_of(text), make_set(), make_set(), alone, 0, owned=make_set()).result
    assert found.curve == plain.curve


def test_recordings_have_no_steps(alone):
    recordings = make_set((1, 1, 64))
    recordings.source.rate = 16_000
    for text in ("grayscale+size-16", "simclr-2", "dvae"):
        with pytest.raises(UsageError, match=r"for images, and toys holds recordings"):
            train_victim(config_of(text), recordings, recordings, alone, 0)


FITS = {
    "class-means": class_means,
    "wiener": wiener,
    "notch": notch,
    "fitted-lowpass": fitted_lowpass,
    "equal-bands": equal_bands,
}


@pytest.mark.parametrize("name", FITS)
def test_a_step_is_fitted_to_what_the_steps_before_it_leave(alone, name):
    before = make_set().through(lambda ids, samples: squeeze(samples, [countermeasure("bit-depth-3")], 255))
    change, test = FITS[name](before), make_set((3, 8, 8))
    reading = ReadingSteps(make_set(), config_of(f"bit-depth-3+{name}"), 0, alone)
    np.testing.assert_array_equal(
        reading.train.take(EVERYONE)[0].numpy(), change(EVERYONE, before.take(EVERYONE)[0].numpy())
    )
    found = reading.for_test(test)
    if name in ("class-means", "wiener"):
        assert found is test
        too = ReadingSteps(make_set(), config_of(f"bit-depth-3+{name}+test-too"), 0, alone).for_test(test)
        expected = squeeze(test.source.samples, [countermeasure("bit-depth-3")], 255)
    else:
        too, expected = found, change(EVERYONE, test.source.samples)
    np.testing.assert_array_equal(too.take(EVERYONE)[0].numpy(), expected)


def test_originals_are_read_at_the_size_of_their_copies(alone, monkeypatch):
    monkeypatch.setattr(denoise, "FIT", Fit(steps=1, batch=8, rate=1e-3, clip_norm=1.0))
    reading = ReadingSteps(make_set(), config_of("size-16+denoise-10"), 0, alone)
    plain = ReadingSteps(make_set(), config_of("size-16"), 0, alone)
    # Clean copies do not differ from their originals, so there is nothing to learn.
    assert torch.equal(reading.train.take(EVERYONE)[0], plain.train.take(EVERYONE)[0])


def test_a_victim_tells_how_its_test_samples_were_read(alone):
    config, test = config_of("equal-bands"), make_set()
    trained = train_victim(config, make_set(), test, alone, 0)
    expected = equal_bands(make_set())(EVERYONE, test.source.samples)
    np.testing.assert_array_equal(trained.test.take(EVERYONE)[0].numpy(), expected)
    assert measured(trained.network, trained.test, alone, fast=False) == trained.result.last.measures


@pytest.mark.parametrize(("name", "fewest"), [("dvae", 2), ("class-means", 2), ("wiener", 2), ("notch", 5)])
def test_too_few_samples_of_a_class_are_refused(alone, name, fewest):
    own = Published(ToySource(40), ids=np.concatenate([np.arange(0, 40, 3), [1]]), resident=2**20)
    with pytest.raises(UsageError, match=rf"{name}.* needs {fewest} training samples of each class, and class 1 has 1"):
        ReadingSteps(own, config_of(name), 0, alone)
