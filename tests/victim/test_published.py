from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ToySource

from hpcule.victim.kinds import clean, noise_basis, random_noise
from hpcule.victim.published import BLOCK, Published

RESIDENT = 2**30


def noise_of(store, source, ids, seed=0):
    """Published minus clean, int64, of the random-noise control."""
    ids = np.asarray(ids, np.int64)
    published = random_noise(store, seed, source)(ids, source.samples[ids])
    assert published.dtype == source.samples.dtype
    return published.astype(np.int64) - source.samples[ids]


def everyone(source):
    return np.arange(len(source))


@pytest.mark.parametrize(
    "budget", [{}, {"norm": "l2", "epsilon": 50.0}, {"norm": "l0", "epsilon": 7.0}, {"free_pixels": 2}]
)
@pytest.mark.parametrize("matched", [False, True])
def test_noise_leaves_grey_samples_grey(make_store, budget, matched):
    source = ToySource(12, (3, 7, 5), contrast=0.0)
    source.samples[::2] = source.samples[::2, :1]
    deltas = np.random.default_rng(0).integers(-4, 5, (12, 3, 7, 5))
    if budget.get("norm") == "l0":
        deltas[..., 1:] = 0
    store = make_store(source, deltas=deltas, **budget)
    noise = (
        random_noise(store, 0, source, matched=matched)(everyone(source), source.samples).astype(int) - source.samples
    )
    assert (noise[::2] == noise[::2, :1]).all()
    assert (noise.reshape(12, -1) != 0).any(axis=1).all()
    assert (noise[1::2] != noise[1::2, :1]).any(axis=(1, 2, 3)).all()
    if matched and not budget:
        mean = np.rint(deltas[::2].mean(axis=1))
        strength = np.rint(np.sqrt((mean**2).mean(axis=(1, 2))))
        assert (np.abs(noise[::2, 0]).max(axis=(1, 2)) == strength).all()


@pytest.mark.parametrize("groups", [0, 3])
def test_matched_noise_is_as_strong_as_the_delta_in_its_place(make_store, groups):
    source = ToySource(12, (3, 7, 5), contrast=0.0)
    deltas = np.random.default_rng(0).integers(-9, 10, (groups or 12, 3, 7, 5))
    deltas[0] = 0
    store = make_store(source, epsilon=16.0, groups=groups, deltas=deltas)
    ids = everyone(source)
    full, matched = (random_noise(store, 0, source, matched=matched)(ids, source.samples) for matched in (False, True))
    moved = matched.astype(int) - source.samples
    own = deltas[source.labels] if groups else deltas
    for sample, delta in zip(moved, own, strict=True):
        assert set(np.abs(sample).flat) == {round(float(np.sqrt((delta**2).mean())))}
    awake = np.abs(moved) > 0
    np.testing.assert_array_equal(np.sign(moved)[awake], np.sign(full.astype(int) - source.samples)[awake])


class Padded(ToySource):
    """Toys whose last columns were padded, on every sample another number of them."""

    def lengths(self, ids):
        return 1 + ids % self.shape[2]


def test_noise_leaves_what_was_padded_and_is_as_strong_on_the_rest(make_store):
    source = Padded(12, (1, 1, 40), contrast=0.0, dtype=np.uint16)
    deltas = np.random.default_rng(0).integers(-900, 900, (12, 1, 1, 40))
    own = np.arange(40) < source.lengths(everyone(source))[:, None, None, None]
    # Without a bound: as strong as the delta.
    store = make_store(source, epsilon=65535.0, deltas=deltas * own)
    moved = noise_of(store, source, everyone(source))
    for sample, delta, length in zip(moved, deltas, source.lengths(everyone(source)), strict=True):
        strength = round(float(np.sqrt((delta[0, 0, :length] ** 2).mean())))
        assert set(np.abs(sample[0, 0, :length])) == {strength}
        assert not sample[0, 0, length:].any()


@pytest.mark.parametrize("groups", [0, 3])
@pytest.mark.parametrize(("dtype", "epsilon"), [(np.uint8, 8.0), (np.uint8, 12.7), (np.uint16, 100.0)])
def test_noise_fills_the_budget_on_the_grid(make_store, groups, dtype, epsilon):
    source = ToySource(40, (3, 7, 5), contrast=0.6, dtype=dtype)
    noise = noise_of(make_store(source, epsilon=epsilon, groups=groups), source, everyone(source))
    published = source.samples + noise
    inside = (published > 0) & (published < source.levels)
    assert 0.5 < inside.mean() < 1, "some samples touch the ends of the grid"
    assert (np.abs(noise[inside]) == int(epsilon)).all()
    assert np.abs(noise).max() == int(epsilon)
    assert abs((noise[inside] > 0).mean() - 0.5) < 0.1
    assert published.min() >= 0
    assert published.max() <= source.levels


def test_noise_of_a_budget_in_l2_is_spread_over_all_values(make_store):
    source = ToySource(30, (3, 8, 8), contrast=0.0)
    noise = noise_of(make_store(source, epsilon=6.6 * np.sqrt(192), norm="l2"), source, everyone(source))
    assert set(np.abs(noise).flat) == {6}


@pytest.mark.parametrize("groups", [0, 3])
def test_noise_of_a_budget_in_pixels_is_random_pixels_of_pure_colours(make_store, groups):
    source = ToySource(30, (3, 8, 8), contrast=0.0)
    store = make_store(source, epsilon=2.0, norm="l0", groups=groups)
    noise = noise_of(store, source, everyone(source))
    changed = (noise != 0).any(axis=1)
    assert changed.sum(axis=(1, 2)).max() == 2
    colours = np.moveaxis(source.samples + noise, 1, 3)[changed]
    assert set(colours.flat) == {0, 255}
    assert len(np.unique(colours, axis=0)) > 3
    places = {tuple(np.flatnonzero(sample.ravel())) for sample in changed}
    assert len(places) == 3 if groups else len(places) > 25


@pytest.mark.parametrize("matched", [False, True])
def test_noise_beside_free_pixels_has_as_many_of_them(make_store, matched):
    source = ToySource(30, (3, 8, 8), contrast=0.0)
    deltas = np.full((30, 3, 8, 8), -8)
    deltas[:, :, 3, 4] = 120
    store = make_store(source, free_pixels=2, deltas=deltas)
    publish = random_noise(store, 0, source, matched=matched)
    noise = publish(everyone(source), source.samples).astype(np.int64) - source.samples
    largest = np.abs(noise).max(axis=1).reshape(30, -1)
    assert ((largest == 8).sum(axis=1) >= 62).all()
    assert ((largest > 8).sum(axis=1) <= 2).all()
    assert ((largest > 8).sum(axis=1) == 2).mean() > 0.9


def test_noise_of_a_method_without_a_bound_is_as_strong_as_its_delta(make_store):
    source = ToySource(12, (3, 7, 5), contrast=0.0)
    deltas = np.random.default_rng(0).integers(-40, 41, (12, 3, 7, 5))
    store = make_store(source, epsilon=255.0, deltas=deltas)
    noise = noise_of(store, source, everyone(source))
    expected = np.rint(np.sqrt((deltas**2).mean(axis=(1, 2, 3))))
    np.testing.assert_array_equal(np.abs(noise).max(axis=(1, 2, 3)), expected)


def test_noise_goes_with_the_sample(make_store):
    source = ToySource(40, contrast=0.1)
    store = make_store(source)
    together = noise_of(store, source, everyone(source))
    np.testing.assert_array_equal(noise_of(store, source, [7, 3, 39]), together[[7, 3, 39]])
    assert len({noise.tobytes() for noise in together}) == 40
    agreement = (together[0] == together[1]).mean()
    assert 0.35 < agreement < 0.65


def test_noise_is_shared_by_what_shares_a_delta(make_store):
    source = ToySource(30, contrast=0.1)
    noise = noise_of(make_store(source, groups=3), source, everyone(source))
    for label in range(3):
        own = noise[source.labels == label]
        assert (own == own[0]).all()
    assert len({noise[label].tobytes() for label in range(3)}) == 3


@pytest.mark.parametrize("groups", [0, 3])
def test_noise_differs_by_seed(make_store, groups):
    source = ToySource(30, contrast=0.1)
    store = make_store(source, groups=groups)
    first, second = (noise_of(store, source, everyone(source), seed) for seed in (0, 1))
    assert 0.4 < (first == second).mean() < 0.6
    np.testing.assert_array_equal(noise_of(store, source, everyone(source), 0), first)


@pytest.mark.parametrize("resident", [0, RESIDENT], ids=["read anew", "resident"])
def test_a_subset_is_numbered_from_zero(resident):
    source = ToySource(50)
    ids = np.array([3, 4, 11, 40, 49])
    subset = Published(source, clean, ids=ids, resident=resident)
    assert len(subset) == 5
    samples, labels = subset.take(np.array([4, 0, 2]))
    np.testing.assert_array_equal(samples.numpy(), source.samples[[49, 3, 11]])
    assert labels.tolist() == source.labels[[49, 3, 11]].tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_kept_or_read_anew_samples_are_the_same(make_store, dtype):
    source = ToySource(BLOCK + 50, (1, 4, 4), dtype=dtype)
    noise = random_noise(make_store(source), 0, source)
    ids = np.arange(20, BLOCK + 50)
    kept = Published(source, noise, ids=ids, resident=RESIDENT)
    anew = Published(source, noise, ids=ids, resident=0)
    kept.take(np.array([0]))
    reads = source.reads
    numbers = np.array([0, BLOCK + 29, 77, BLOCK - 20, BLOCK - 21])
    samples, labels = kept.take(numbers)
    assert source.reads == reads
    assert samples.dtype == (torch.uint8 if dtype == np.uint8 else torch.int32)
    np.testing.assert_array_equal(samples.numpy(), noise(ids[numbers], source.samples[ids[numbers]]))
    other_samples, other_labels = anew.take(numbers)
    assert source.reads == reads + 1
    assert (samples == other_samples).all()
    assert (labels == other_labels).all()


def test_what_has_to_be_decoded_and_does_not_fit_into_memory_is_published_once():
    source, seen = ToySource(60), []
    source.decodes = True

    def note(ids, samples):
        seen.extend(ids.tolist())
        return samples + 1

    published = Published(source, note, resident=0)
    for _ in range(3):
        samples, _ = published.take(np.array([5, 2, 59]))
        np.testing.assert_array_equal(samples.numpy(), source.samples[[5, 2, 59]] + 1)
    assert sorted(seen) == [2, 5, 59]


def test_the_clean_control_is_the_source():
    source = ToySource(20)
    samples, labels = Published(source, resident=RESIDENT).take(everyone(source))
    np.testing.assert_array_equal(samples.numpy(), source.samples)
    np.testing.assert_array_equal(labels.numpy(), source.labels)


def basis_of(store):
    return noise_basis(store.manifest.unit, store.manifest.budget, store.manifest.levels)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"deltas": np.ones((60, 3, 8, 8))}, True),
        ({"epsilon": 8}, {"epsilon": 9}, False),
        ({"norm": "l2", "epsilon": 255}, {"norm": "linf", "epsilon": 5}, False),
        ({}, {"free_pixels": 1}, False),
    ],
)
def test_random_noise_is_the_same_where_its_basis_is(make_store, one, other, same):
    source, ids = ToySource(60), np.arange(60)
    stores = [make_store(source, **settings) for settings in (one, other)]
    first, second = (random_noise(store, 3, source)(ids, source.read(ids)) for store in stores)
    assert (basis_of(stores[0]) == basis_of(stores[1])) == same == bool((first == second).all())


def test_noise_as_strong_as_the_deltas_is_the_stores_own(make_store):
    assert basis_of(make_store(ToySource(60), epsilon=255.0)) is None


@pytest.mark.parametrize("resident", [0, RESIDENT])
def test_samples_are_changed_once(resident):
    source, changed = ToySource(30), []

    def change(ids, samples):
        changed.extend(ids.tolist())
        return 255 - samples

    train = Published(source, ids=np.arange(5, 25), resident=resident).through(change)
    for numbers in ([3, 1], [1, 2], [19, 3]):
        found, _ = train.take(np.array(numbers))
        np.testing.assert_array_equal(found.numpy(), 255 - source.samples[5 + np.array(numbers)])
    assert sorted(changed) == (list(range(5, 25)) if resident else [6, 7, 8, 24])


def test_blocks_are_all_samples_in_order():
    train = Published(ToySource(BLOCK + 7, (1, 4, 4)), resident=0)
    samples, labels = zip(*train.blocks(), strict=True)
    assert [len(part) for part in samples] == [BLOCK, 7]
    np.testing.assert_array_equal(torch.cat(samples).numpy(), train.source.samples)
    assert torch.equal(torch.cat(labels), train.labels)


def test_originals_are_clean():
    train = Published(ToySource(30), lambda ids, samples: samples // 2, ids=np.arange(30)[::2], resident=RESIDENT)
    originals = train.originals(np.array([4, 2]))
    assert originals.ids.tolist() == [8, 4]
    np.testing.assert_array_equal(originals.take(np.arange(2))[0].numpy(), train.source.samples[[8, 4]])


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [0, 2**30])
def test_images_on_a_gpu_are_those_of_the_host(resident):
    published = Published(ToySource(20, (3, 6, 5)), resident=resident)
    numbers = np.array([3, 1, 19, 3])
    for _ in range(2):
        images, labels = published.images(numbers, torch.device("cuda"))
        expected, names = published.images(numbers, torch.device("cpu"))
        assert images.device.type == labels.device.type == "cuda"
        torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=0)
        assert labels.tolist() == names.tolist()
