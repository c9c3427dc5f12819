"""BAIT: patterns that are bound to wrong classes, through a pretrained surrogate that learns."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from slowly import slow_but
from torch import nn
from torch.nn import functional
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import DataError, HpculeError
from hpcule.craft.methods import bait
from hpcule.craft.methods.bait import BAITConfig, BoundTargets
from hpcule.craft.table import configure
from hpcule.data.augment import CropFlip
from hpcule.nets import unet
from hpcule.world.keyed import key

CLASSES = 3
SMALL = {"rounds": 3, "batch": 24, "ghost": 6, "learning_rate": 0.05}


class TinyEncoder(nn.Module):
    """A small random network in place of the pretrained one; `norm` says whether samples of a ghost see each other."""

    name, weights_sha256, dimension = "tiny", "0", 16

    def __init__(self, norm) -> None:
        super().__init__()
        torch.manual_seed(0)
        middle = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), middle, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.eval()

    def forward(self, images):
        return 10 * self.network(images)


@contextmanager
def small_networks(norm=True):
    """BAIT with the tiny encoder, and with a generator of a hundredth of the size."""
    originals = bait.load_encoder, unet.WIDTHS
    bait.load_encoder = lambda name, checkpoint, *, input_size: TinyEncoder(norm)
    unet.WIDTHS = (8, 8, 16)
    try:
        yield
    finally:
        bait.load_encoder, unet.WIDTHS = originals


@pytest.fixture(autouse=True)
def _small():
    with small_networks():
        yield


def make_method(source, world=None, *, shards=4, done=frozenset(), exact=True, **settings):
    problem = make_problem(source, world, shards=shards, done=done, exact=exact)
    return BoundTargets(BAITConfig(**{**SMALL, **settings}), problem)


def samples_of(source, batch, purpose=None):
    """All samples of a batch in [0, 1], their labels and their ids."""
    ids = np.concatenate([ghost.ids for ghost in batch])
    samples = torch.from_numpy(source.samples[ids])
    if purpose is not None:
        samples = CropFlip.draw(purpose, ids, 1).apply(samples)
    return samples.float() / 255, torch.from_numpy(source.labels[ids]), ids


def tensors_of(state):
    """All tensors of nested states, in order."""
    if isinstance(state, torch.Tensor):
        return [state.clone()]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors_of(value)]


# -- settings


def test_the_papers_values_and_three_stages():
    config = configure("bait", "toys", preset=None, file={}, overrides=[]).method
    assert (config.rounds, config.batch, config.epsilon, config.generator_rate) == (90, 512, 8, 1e-3)
    assert (config.learning_rate, config.momentum, config.weight_decay, config.clip_norm) == (0.1, 0.9, 5e-4, 5)
    method, rules = make_method(ToySource(24), rounds=90), []
    for number in range(90):
        method.round = number
        rules.append(method.rule)
    assert rules == ["likeliest"] * 30 + ["random"] * 30 + ["least likely"] * 30


# -- targets


class Fixed(nn.Module):
    """The same logits whatever the images are."""

    def __init__(self, logits):
        super().__init__()
        self.rows = logits

    def forward(self, images):
        return self.rows


def aim(rule, logits, labels, ids=None):
    source = ToySource(24, classes=logits.shape[1])
    method = make_method(source)
    method.round = bait.RULES.index(rule)
    share = bait._Share(np.arange(len(labels)) if ids is None else ids, torch.zeros(len(labels), 3, 8, 8), labels)
    return method.targets(Fixed(logits), share)


@pytest.mark.parametrize(("rule", "best"), [("likeliest", max), ("least likely", min)])
def test_targets_are_the_likeliest_or_the_least_likely_wrong_class(rule, best):
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % 5
    expected = [
        best((k for k in range(5) if k != y), key=lambda k: row[k])
        for row, y in zip(logits, labels.tolist(), strict=True)
    ]
    assert aim(rule, logits, labels).tolist() == expected
    # For some samples the own class is the extreme one, and must be passed over.
    assert any(best(range(5), key=lambda k: row[k]) == y for row, y in zip(logits, labels.tolist(), strict=True))


def test_random_targets_are_wrong_and_even_and_go_by_id():
    labels = torch.arange(3000) % 4
    targets = aim("random", torch.zeros(3000, 4), labels)
    assert (targets != labels).all()
    counts = np.bincount((targets - labels) % 4, minlength=4)
    assert counts[0] == 0
    assert counts[1:].min() > 900
    some = np.array([17, 4, 2800])
    assert aim("random", torch.zeros(3, 4), labels[some], some).tolist() == targets[some].tolist()


# -- a step of the generator


@pytest.mark.parametrize("rule", bait.RULES)
@pytest.mark.parametrize("augment", [False, True])
def test_a_step_is_that_of_the_whole_batch(rule, augment):
    """One graph over all samples of a batch, without ghosts, float64."""
    source = ToySource(40, classes=CLASSES)
    with small_networks(norm=False):
        method = make_method(source, augment=augment)
    method.round = bait.RULES.index(rule)
    ahead = method._look_ahead()
    batch = method.noise_schedule.at(0)
    assert len(batch) > 4
    purpose = key(0, "bait augment", "noise", method.round) if augment else None
    clean, labels, ids = samples_of(source, batch, purpose)
    clean = clean.double()
    network, generator = copy.deepcopy(ahead).double(), copy.deepcopy(method.generator).double()
    targets = method.targets(ahead, bait._Share(ids, clean.float(), labels))
    outputs = generator(clean)
    patterns = torch.stack([outputs[labels == k].mean(0) for k in range(CLASSES)])
    logits = network((clean + 8 / 255 * patterns[targets]).clamp(0, 1))
    loss = functional.cross_entropy(logits, targets)
    gradients = torch.autograd.grad(loss, list(generator.parameters()))
    before = [weight.detach().clone() for weight in method.generator.parameters()]
    figures = method._bind(ahead, batch)
    assert figures["cross_entropy"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert figures["bound"] == pytest.approx(float((logits.argmax(1) == targets).double().mean()))
    for weight, start, gradient in zip(method.generator.parameters(), before, gradients, strict=True):
        scale = float(gradient.abs().max())
        torch.testing.assert_close(weight.grad.double(), gradient, rtol=1e-3, atol=1e-3 * scale)
        # Adam's first step is the sign of the gradient, where that is not nearly zero.
        clear = gradient.abs() > 0.01 * scale
        moved = (weight.detach() - start)[clear]
        torch.testing.assert_close(moved, -1e-3 * gradient.sign()[clear].float(), rtol=0.01, atol=1e-6)
    torch.testing.assert_close(method.patterns, 8 / 255 * patterns.detach().float(), rtol=1e-4, atol=1e-7)


def test_a_class_that_is_absent_keeps_its_pattern():
    source = ToySource(40, classes=CLASSES)
    source.labels = np.where(np.arange(40) == 33, 2, np.arange(40) % 2).astype(np.int64)
    method = make_method(source, batch=12)
    batches = method.noise_schedule.epoch(0)
    method.patterns[2] = 0.01
    ahead, seen = method._look_ahead(), False
    for batch in batches:
        method._bind(ahead, batch)
        seen = seen or any(33 in ghost.ids for ghost in batch)
        assert bool((method.patterns[2] == 0.01).all()) is not seen
    assert seen


def test_the_generator_learns_to_bind():
    method = make_method(ToySource(60, classes=CLASSES), generator_rate=0.01, augment=False)
    ahead, batch = method._look_ahead(), method.noise_schedule.at(0)
    losses = [method._bind(ahead, batch)["cross_entropy"] for _ in range(12)]
    assert losses[-1] < losses[0] - 0.1


# -- the surrogate


def test_the_look_ahead_is_a_step_of_sgd_from_which_the_surrogate_comes_back():
    source = ToySource(40, classes=CLASSES)
    method = make_method(source, ghost=24, shards=1, augment=False, clip_norm=None)
    method.surrogate.train(method.model_schedule.at(0), method._load)
    method.round = 1
    method.patterns.uniform_(-8 / 255, 8 / 255, generator=torch.Generator().manual_seed(0))
    before = tensors_of(method.surrogate.state())
    start = copy.deepcopy(method.surrogate.network)
    momenta = [state["momentum_buffer"].clone() for state in method.surrogate._optimizer.state.values()]
    ahead = method._look_ahead()
    for kept, found in zip(before, tensors_of(method.surrogate.state()), strict=True):
        assert torch.equal(kept, found)
    (ghost,) = method.model_schedule.at(1)
    clean, labels, _ = samples_of(source, [ghost])
    loss = functional.cross_entropy(start(clean + method.patterns[labels]), labels)
    for weight, momentum, found in zip(start.parameters(), momenta, ahead.parameters(), strict=True):
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        expected = weight - 0.05 * (0.9 * momentum + gradient + 5e-4 * weight)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert not any(weight.requires_grad for weight in ahead.parameters())


def test_all_layers_of_the_surrogate_learn():
    method = make_method(ToySource(40, classes=CLASSES))
    before = [weight.clone() for weight in method.surrogate.network.parameters()]
    craft(method)
    for old, new in zip(before, method.surrogate.network.parameters(), strict=True):
        assert (old != new).any()


def test_the_look_ahead_has_batch_statistics_and_keeps_its_running_ones():
    source = ToySource(40, classes=CLASSES)
    method = make_method(source)
    ahead = method._look_ahead()
    before = [buffer.clone() for name, buffer in ahead.named_buffers() if "running" in name]
    images, _, _ = samples_of(source, method.noise_schedule.at(0)[:2])
    alone, together = method._logits(ahead, images[:6])[:3], method._logits(ahead, images[:3])
    assert not torch.allclose(alone, together, rtol=1e-3)
    assert method._logits(ahead, images[:1]).isfinite().all(), "one sample has no variance"
    after = [buffer for name, buffer in ahead.named_buffers() if "running" in name]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert before


# -- whole runs


def craft_on(world, n, shards):
    with small_networks():
        return craft(make_method(ToySource(n, classes=CLASSES), world, shards=shards))


def test_published_is_the_mean_of_the_generator_over_a_class():
    source = ToySource(150, classes=CLASSES)  # shards of 75: more than one tile
    method = make_method(source, shards=2, epsilon=7.6)
    outcome = craft(method)
    with torch.no_grad():
        outputs = method.generator(torch.from_numpy(source.samples).float() / 255).double()
    for label in range(CLASSES):
        mean = 7.6 * torch.stack([out for out, y in zip(outputs, source.labels, strict=True) if y == label]).mean(0)
        assert np.abs(outcome.shared[label] - mean.clamp(-7, 7).numpy()).max() <= 0.5001
    assert np.abs(outcome.shared).max() <= 7
    np.testing.assert_array_equal(outcome.group, source.labels)
    assert not outcome.deltas
    stages = [(step.stage, step.done, step.total) for step in outcome.steps]
    assert stages[:8] == [*(("noise", number, 7) for number in range(1, 8)), ("round", 1, 3)]
    assert stages[-2:] == [("patterns", 1, 2), ("patterns", 2, 2)]


@pytest.mark.parametrize(("n", "shards"), slow_but([(41, 3)], [(41, 3), (60, 4)]))
def test_three_ranks_and_one_craft_the_same_bits(trio, alone, n, shards):
    expected = craft_on(alone, n, shards)
    found = trio.run(craft_on, n, shards)
    events = [[(step.stage, step.done) for step in outcome.steps] for outcome in found]
    assert events[0] == events[1] == events[2], "ranks yield the same events between two collectives"
    together = joined(found)
    np.testing.assert_array_equal(together.shared, expected.shared)
    np.testing.assert_array_equal(together.group, expected.group)
    assert np.abs(expected.shared).max() > 1


def test_an_interruption_changes_nothing(tmp_path):
    """Within a pass of the generator, after it, after a round, and while the result is collected."""
    source = ToySource(41, classes=CLASSES)
    whole = craft(make_method(source, shards=3))
    assert [step.stage for step in whole.steps[:4]] == ["noise", "noise", "round", "noise"]
    for stop_after in (1, 2, 3, 8, len(whole.steps) - 1):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        method = make_method(source, shards=3)
        craft(method, stop_after=stop_after)
        save(method, folder)
        rest = craft(restore(make_method(source, shards=3), folder))
        np.testing.assert_array_equal(rest.shared, whole.shared)


def test_finished_shards_are_not_handed_out_again():
    outcome = craft(make_method(ToySource(40, classes=CLASSES), done=frozenset({0, 2})))
    assert set(outcome.groups) == {1, 3}
    assert outcome.shared is not None


def test_a_surrogate_that_diverges_ends_the_run():
    method = make_method(ToySource(40, classes=CLASSES), learning_rate=1e30, clip_norm=None, exact=False)
    with pytest.raises(HpculeError, match="has diverged"):
        craft(method)


def test_bf16_runs():
    problem = make_problem(ToySource(40, classes=CLASSES), autocast=True)
    outcome = craft(BoundTargets(BAITConfig(**SMALL), problem))
    assert 0 < np.abs(outcome.shared).max() <= 8


def with_resnet18(monkeypatch, folder, source):
    """A method with an untrained ResNet-18 from a checkpoint, and a generator of the usual size."""
    from hpcule.nets.encoder import load_encoder
    from hpcule.nets.pretrained import ARCHITECTURES

    monkeypatch.setattr(bait, "load_encoder", load_encoder)
    file = folder / "resnet18.pt"
    torch.manual_seed(0)
    torch.save(ARCHITECTURES["resnet18"].build(32).state_dict(), file)
    overrides = ["encoder=resnet18", f"checkpoint={file}", "encoder_size=32", "batch=6", "ghost=3", "rounds=1"]
    config = configure("bait", "toys", preset=None, file={}, overrides=[f"method.{text}" for text in overrides]).method
    return BoundTargets(config, make_problem(source, shards=2))


@pytest.mark.parametrize("channels", slow_but([1], [1, 3]))
def test_with_an_encoder_from_a_checkpoint(channels, monkeypatch, tmp_path):
    outcome = craft(with_resnet18(monkeypatch, tmp_path, ToySource(12, (channels, 16, 16))))
    assert outcome.shared.shape == (3, channels, 16, 16)
    assert 0 < np.abs(outcome.shared).max() <= 8


def test_images_of_two_channels_are_refused(monkeypatch, tmp_path):
    with pytest.raises(DataError, match="takes images of 1 or 3 channels, not 2"):
        craft(with_resnet18(monkeypatch, tmp_path, ToySource(12, (2, 16, 16))))
