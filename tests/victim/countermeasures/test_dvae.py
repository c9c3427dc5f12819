from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from toys import ToySource
from toys import alone as process

from hpcule.config.errors import StoppedError
from hpcule.nets.disentangling import Disentangled
from hpcule.victim.countermeasures import dvae as module
from hpcule.victim.countermeasures.dvae import content, dvae
from hpcule.victim.countermeasures.fit import Batch
from hpcule.victim.keeper import Keeper
from hpcule.victim.published import Published
from hpcule.world.signals import StopFlag

SIZE = 60
EVERYONE = np.arange(SIZE)
PATTERNS = 24 * np.random.default_rng(5).choice([-1, 1], (3, 3, 8, 8))


def protected(ids, samples):
    """A perturbation that is the same for a class."""
    return np.clip(samples.astype(int) + PATTERNS[ids % 3], 0, 255).astype(samples.dtype)


def make_set(publish=protected, resident=2**20):
    return Published(ToySource(SIZE, contrast=0.0), publish, resident=resident)


@pytest.fixture
def shorter(monkeypatch):
    shorten(monkeypatch, 12)


def shorten(monkeypatch, steps):
    for name, value in (("EPOCHS", 1), ("FEWEST_STEPS", steps), ("BATCH", 30)):
        monkeypatch.setattr(module, name, value)


def purified(world, train, keeper=None, target=3.0):
    samples, _ = train.take(EVERYONE)
    return dvae(train, target, world, keeper or Keeper(world))(EVERYONE, samples.numpy())


def along_patterns(samples):
    """How much of each class's pattern is in its samples, in levels."""
    return np.mean([((samples[label::3] - 127.5) * np.sign(PATTERNS[label])).mean() for label in range(3)])


@pytest.mark.slow
def test_a_perturbation_by_class_is_removed_and_the_image_stays(alone, monkeypatch):
    shorten(monkeypatch, 200)
    train = make_set()
    found = purified(alone, train)
    before = train.take(EVERYONE)[0].numpy()
    assert along_patterns(before) > 20
    assert abs(along_patterns(found)) < 0.3 * along_patterns(before)
    clean = train.source.samples.astype(float)
    assert np.abs(found - clean).mean() < np.abs(before - clean).mean()


def test_memory_decides_nothing_and_samples_are_changed_one_by_one(alone, shorter):
    whole = purified(alone, make_set())
    assert whole.dtype == np.uint8
    train = make_set(resident=0)
    change = dvae(train, 3.0, alone, Keeper(alone))
    samples, _ = train.take(EVERYONE)
    for rows in ([7], [59, 3, 20]):
        np.testing.assert_array_equal(change(EVERYONE[rows], samples.numpy()[rows]), whole[rows])


def purified_on(world):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten(monkeypatch, 12)
        return purified(world, make_set()).tolist()


@pytest.mark.slow
def test_ranks_purify_together(pool):
    first, second = pool.run(purified_on)
    assert first == second
    apart = np.abs(np.array(first) - np.array(purified_on(process())))
    assert np.quantile(apart, 0.99) <= 2


class Stop(StopFlag):
    """Set from the look on that has this number, counted from 1."""

    def __init__(self, limit=10**9):
        super().__init__(signals=())
        self.looks, self.limit = 0, limit

    def __bool__(self):
        self.looks += 1
        return self.looks >= self.limit


def test_what_was_fitted_is_kept_next_to_the_victims(alone, shorter, tmp_path):
    expected = purified(alone, make_set())
    for limit in (5, 12):  # in the first pass, and in the second
        with pytest.raises(StoppedError):
            purified(alone, make_set(), Keeper(alone, tmp_path / "one.checkpoint", Stop(limit)))
    np.testing.assert_array_equal(
        purified(alone, make_set(), Keeper(alone, tmp_path / "one.checkpoint", Stop())), expected
    )
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    assert all(file.name.startswith("dvae-") for file in files)
    # Another victim of the same samples asks nothing, as it has nothing to fit.
    flag = Stop()
    np.testing.assert_array_equal(purified(alone, make_set(), Keeper(alone, tmp_path / "two", flag)), expected)
    assert flag.looks == 0
    # The first pass does not depend on the strength; other samples share nothing.
    purified(alone, make_set(), Keeper(alone, tmp_path / "three", Stop()), target=4.5)
    assert len(list(tmp_path.iterdir())) == 3
    purified(alone, make_set(lambda ids, samples: samples), Keeper(alone, tmp_path / "four", Stop()))
    assert len(list(tmp_path.iterdir())) == 5


def test_content_is_that_of_samples_and_labels():
    train = make_set()
    samples, labels = train.take(EVERYONE)
    expected = hashlib.sha256(samples.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    assert content(train) == expected == content(make_set(resident=0))
    other = make_set()
    other.source.labels[3] += 1
    assert content(other) != expected


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("information", "residue"), [(2.0, 0.001), (0.5, 0.1), (2.0, 0.1)])
def test_the_loss_counts_what_is_beyond_its_limits(alone, information, residue, early):
    rng = torch.Generator().manual_seed(0)
    images, decoded = torch.rand(4, 3, 5, 5, generator=rng), torch.rand(4, 3, 5, 5, generator=rng)
    residues = residue**0.5 * torch.randn(4, 3, 5, 5, generator=rng)
    divergences = information * torch.tensor([0.8, 0.9, 1.1, 1.2])
    batch = Batch(EVERYONE[:4], EVERYONE[:4], 1, 0)
    found = module._loss(Disentangled(decoded, residues, divergences), images, 1.0, batch, alone, early=early)
    expected = 0.0
    for image, own, rest in zip(images, decoded, residues, strict=True):
        expected += float(((own - image) ** 2).mean() + (((own + rest).clamp(0, 1) - image) ** 2).mean())
    if information > 1:
        expected += 0.01 * float(divergences.sum())
    if residue > 0.01 and not early:
        expected += sum(float((rest**2).mean()) for rest in residues)
    assert float(found) == pytest.approx(expected, rel=1e-5)
