"""The equal-spectrum control: what it takes from a store, and what it leaves."""

import numpy as np
import pytest
from toys import ToySource

from hpcule.publish.carry import added
from hpcule.victim.equal_spectrum import equal_spectrum_noise
from hpcule.victim.kinds import publisher


def waves(n, shape, seed=0):
    """Deltas whose first two channels move together along slow waves, and whose third is white."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape[1:])
    phases = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    slow = 9 * np.sin(2 * np.pi * (rows / shape[1] + 2 * columns / shape[2]) + phases)
    delta = np.stack([slow, slow, rng.normal(0, 3, (n, *shape[1:]))], axis=1)
    return np.rint(delta[:, : shape[0]]).astype(np.int64)


def middle(n, shape, classes=3):
    source = ToySource(n, shape, classes)
    source.samples = source.samples.clip(80, 175)
    return source


def noise_of(store, source, ids=None, seed=0):
    ids = np.arange(len(source)) if ids is None else np.asarray(ids)
    published = added(equal_spectrum_noise(store, seed, source), source.levels)(ids, source.samples[ids])
    assert published.dtype == source.samples.dtype
    return published.astype(np.int64) - source.samples[ids]


def test_it_has_the_spectrum_the_strength_and_the_channels_of_the_deltas(make_store):
    source = middle(400, (3, 12, 10))
    deltas = waves(400, source.shape)
    deltas[::2] //= 2
    noise = noise_of(make_store(source, epsilon=16.0, deltas=deltas), source)
    for which in (slice(0, None, 2), slice(1, None, 2)):  # each as strong as the delta in whose place it stands
        own, found = (np.sqrt((part[which] ** 2).mean((1, 2, 3))) for part in (deltas, noise))
        np.testing.assert_allclose(found, own, rtol=0.06)  # of rounding
    expected, found = ((np.abs(np.fft.fft2(part)) ** 2).mean(0) for part in (deltas, noise))
    np.testing.assert_allclose(found, expected, rtol=0.25, atol=0.01 * expected.max())
    assert np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 2].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(noise.ravel(), deltas.ravel())[0, 1]) < 0.05


def test_it_is_shared_by_what_shares_a_delta(make_store):
    source = middle(30, (3, 12, 10))
    store = make_store(source, epsilon=16.0, groups=3, deltas=waves(3, source.shape))
    noise = noise_of(store, source)
    for label in range(3):
        own = noise[source.labels == label]
        assert (own == own[0]).all()
    assert (noise[0] != noise[1]).any()


def test_each_sample_has_its_own_whatever_stands_next_to_it(make_store):
    source = middle(30, (3, 12, 10))
    store = make_store(source, epsilon=16.0, deltas=waves(30, source.shape))
    noise = noise_of(store, source)
    np.testing.assert_array_equal(noise_of(store, source, [7, 3, 29]), noise[[7, 3, 29]])
    assert (noise_of(store, source, seed=1) != noise).any((1, 2, 3)).all()


def test_a_training_set_of_its_kind_has_it(make_store):
    source = middle(30, (3, 12, 10))
    store = make_store(source, epsilon=16.0, deltas=waves(30, source.shape))
    ids = np.arange(30)
    published = publisher("spectrum", store, 5, source)(ids, source.samples)
    np.testing.assert_array_equal(published - source.samples.astype(np.int64), noise_of(store, source, seed=5))


def test_grey_samples_stay_grey(make_store):
    source = middle(20, (3, 12, 10))
    source.samples[::2] = source.samples[::2, :1]
    deltas = waves(20, source.shape)
    noise = noise_of(make_store(source, epsilon=16.0, deltas=deltas), source)
    assert (noise[::2] == noise[::2, :1]).all()
    seen = deltas[::2].mean(1, keepdims=True)
    strengths = [np.sqrt((part**2).mean((1, 2, 3))) for part in (noise[::2], np.rint(seen))]
    np.testing.assert_allclose(*strengths, rtol=0.1)


def test_nothing_becomes_nothing(make_store):
    source = middle(20, (3, 12, 10))
    assert not noise_of(make_store(source), source).any()


class Padded(ToySource):
    """Toys whose last columns were padded, on every sample another number of them."""

    def lengths(self, ids):
        return 5 + ids % (self.shape[2] - 4)


def test_what_was_padded_stays_as_it_is(make_store):
    source = Padded(20, (1, 1, 40), dtype=np.uint16)
    own = np.arange(40) < source.lengths(np.arange(20))[:, None, None, None]
    deltas = np.random.default_rng(0).integers(-900, 900, (20, 1, 1, 40)) * own
    noise = noise_of(make_store(source, epsilon=1000.0, deltas=deltas), source)
    assert not noise[~own].any()
    assert np.sqrt((noise**2).mean()) == pytest.approx(np.sqrt((deltas**2).mean()), rel=0.05)
